"""docs/several-people.md does what it says: every line of it is run, on three machines."""

import functools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

Guide: TypeAlias = Callable[[str], list[Any]]
StartMachine: TypeAlias = Callable[..., Any]

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "several-people.md").read_text()


def test_every_line_does_what_the_page_says(
    guide: Guide, machine: StartMachine, tmp_path: Path
) -> None:
    """Three people with a home each, a store that all mount, mail and a telephone."""
    for name in ("mail", "phone", "alice/www"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "alice/www/index.html").write_text("hello\n")
    secret = tmp_path / "passphrase"
    secret.write_text("correct horse\n")
    secret.chmod(0o600)

    @functools.cache
    def named(name: str) -> Any:
        return machine(
            name,
            STORE=str(tmp_path / "store"),
            MAIL=str(tmp_path / "mail"),
            PHONE=str(tmp_path / "phone"),
            VAULT_PASSPHRASE_FILE=str(secret),
        )

    steps = guide(PAGE)
    assert {step.machine for step in steps} == {"alice", "bob", "carol"}
    for step in steps:
        step.check(named(step.machine))


def test_no_command_hides_from_the_test() -> None:
    """Every block is one that is run, or the one that only sets names."""
    fences = re.findall(r"^```(\S*)(.*)\n((?:(?!```).*\n)*)```$", PAGE, re.MULTILINE)
    assert {word for word, _, _ in fences} == {"console", "crontab", "sh"}
    assert not [body for word, _, body in fences if word == "sh" and "vault " in body]
