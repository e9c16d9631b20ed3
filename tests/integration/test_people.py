"""docs/people.md does what it says: every line is run, by people at machines of their own."""

import functools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

Guide: TypeAlias = Callable[[str], list[Any]]
StartMachine: TypeAlias = Callable[..., Any]

PAGE = (Path(__file__).parents[2] / "docs/people.md").read_text()


def test_every_line_of_the_page_for_people_does_what_it_says(
    guide: Guide, machine: StartMachine, tmp_path: Path
) -> None:
    """Two homes, two sets of keys, one store; what travels is public."""
    (tmp_path / "shared").mkdir()
    secret = tmp_path / "passphrase"
    secret.write_text("correct horse\n")
    secret.chmod(0o600)

    @functools.cache
    def named(name: str) -> Any:
        return machine(
            name,
            STORE=str(tmp_path / "store"),
            SHARED=str(tmp_path / "shared"),
            VAULT_PASSPHRASE_FILE=str(secret),
        )

    steps = guide(PAGE)
    assert {step.machine for step in steps} == {"ann", "bob"}
    for step in steps:
        step.check(named(step.machine))
    assert not re.findall(r"^```(?!console (?:ann|bob)$|$)", PAGE, re.MULTILINE)
