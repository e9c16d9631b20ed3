"""docs/guide.md does what it says: every line of it is run, in its order."""

import functools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest

Guide: TypeAlias = Callable[[str], list[Any]]
StartMachine: TypeAlias = Callable[..., Any]

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "guide.md").read_text()
RUN = {"console", "crontab"}
NOT_RUN = {"sh"}  # what the reader sets up: names, and the installation


def make_sources(top: Path) -> None:
    """What the hosts of the guide have to back up."""
    www = top / "web/www"
    (www / "cache").mkdir(parents=True)
    (www / "index.html").write_text("hello\n")
    (www / "logo.png").write_bytes(bytes(range(256)) * 2_000)
    (www / "cache/page").write_text("hello, cached\n")
    (top / "db/dumps").mkdir(parents=True)
    (top / "db/dumps/shop.sql").write_text("select 1;\n")


def test_every_line_does_what_the_page_says(
    guide: Guide, machine: StartMachine, tmp_path: Path
) -> None:
    """Exit status and the output shown, on six machines that share a store and a medium."""
    make_sources(tmp_path)
    (tmp_path / "safe").mkdir()
    (tmp_path / "phone").mkdir()
    secret = tmp_path / "passphrase"
    secret.write_text("correct horse\n")
    secret.chmod(0o600)

    @functools.cache
    def named(name: str) -> Any:
        return machine(
            name,
            STORE=str(tmp_path / "store"),
            SAFE=str(tmp_path / "safe"),
            PHONE=str(tmp_path / "phone"),
            DOCS=str(DOCS),
            VAULT_PASSPHRASE_FILE=str(secret),
        )

    steps = guide(PAGE)
    assert {step.machine for step in steps} == {"web", "web2", "db", "desk", "bare", "bob"}
    for step in steps:
        step.check(named(step.machine))


def test_no_command_hides_from_the_test() -> None:
    """Every block is one that is run, or of the two that only set things up."""
    fences = re.findall(r"^```(\S*)(.*)\n((?:(?!```).*\n)*)```$", PAGE, re.MULTILINE)
    assert {word for word, _, _ in fences} == RUN | NOT_RUN
    assert not [body for word, _, body in fences if word in NOT_RUN and re.search("^vault", body)]
    assert all(machine for word, machine, _ in fences if word in RUN)


@pytest.mark.parametrize(
    "line",
    ["$ false", "$ true   # exit 1", "$ echo one\ntwo", "$ printf 'a\\nb\\n'\nb\na", "$ exit 0"],
)
def test_a_line_that_is_wrong_is_noticed(guide: Guide, machine: StartMachine, line: str) -> None:
    """Another status, missing output, another order, the end of the shell."""
    (step,) = guide(f"```console m\n{line}\n```\n")
    with pytest.raises(AssertionError):
        step.check(machine("m"))


@pytest.mark.parametrize(
    "block",
    [
        "```console m\n$ echo a   b c d e; (exit 3)   # exit 3\na b … e\n```",
        "```console m\n$ printf 'x\\nb\\nx'\nb\n```",
        "```crontab m\n*/5 * * * *  false || [ $? -eq 1 ]\n```",
    ],
)
def test_a_line_that_is_right_passes(guide: Guide, machine: StartMachine, block: str) -> None:
    """Blanks don't count, … is anything, lines between are not asked for, cron's fields are cut."""
    (step,) = guide(block)
    step.check(machine("m"))
