"""docs/damage.md does what it says: every line of it is run, in its order."""

import functools
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

Guide: TypeAlias = Callable[[str], list[Any]]
StartMachine: TypeAlias = Callable[..., Any]

PAGE = (Path(__file__).parents[2] / "docs/damage.md").read_text()


def test_every_line_does_what_the_page_says(
    guide: Guide, machine: StartMachine, tmp_path: Path
) -> None:
    """Exit status and the output shown, from the damage to a whole repository."""
    www = tmp_path / "web/www"
    www.mkdir(parents=True)
    (www / "readme").write_text("hello\n")
    (tmp_path / "logo.png").write_bytes(random.Random(1).randbytes(300_000))
    secret = tmp_path / "passphrase"
    secret.write_text("correct horse\n")
    secret.chmod(0o600)

    @functools.cache
    def named(name: str) -> Any:
        return machine(
            name,
            STORE=str(tmp_path / "store"),
            VAULT_REPO=str(tmp_path / "store"),
            VAULT_PASSPHRASE_FILE=str(secret),
        )

    web, desk = named("web"), named("desk")
    for command in (
        "vault init $STORE --host web",
        "vault snapshot www --name www",
        f"mv {tmp_path}/logo.png www/",
        "vault snapshot www --name www",
        f"mkdir -p {tmp_path}/desk/.config/vault",
        f"mv $KEYS/recovery.key $KEYS/root.key {tmp_path}/desk/.config/vault/",
    ):
        assert web.run(command)[0] == 0
    assert desk.run("vault list")[0] == 0
    steps = guide(PAGE)
    assert {step.machine for step in steps} == {"web", "desk"}
    for step in steps:
        step.check(named(step.machine))
