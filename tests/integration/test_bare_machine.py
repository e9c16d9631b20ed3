"""Recovery on a new machine, word for word as docs/guide.md has it."""

import os
import pty
import re
import select
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import pytest

Vault: TypeAlias = Callable[..., tuple[int, str, str]]
Guide: TypeAlias = Callable[[str], list[Any]]
StartMachine: TypeAlias = Callable[..., Any]

PAGE = (Path(__file__).parents[2] / "docs/guide.md").read_text()
SECTION = "Bare-machine recovery"


@pytest.fixture
def left(vault: Vault, home: Path, repository: Path, source: Path) -> Path:
    """What is left of the old machine: the store, and the medium ``safe`` with recovery.key."""
    (source / "empty").mkdir(mode=0o500)
    (source / "big").write_bytes(os.urandom(3_000_000))
    os.utime(source / "readme", ns=(1_234_567_890, -1_000_000_001))
    for _ in range(2):
        assert vault("snapshot", source, "--name", "www")[0] == 0
    safe = home / "safe"
    safe.mkdir()
    (home / "config/vault/recovery.key").rename(safe / "recovery.key")
    for gone in ("config", "state", "cache"):
        shutil.rmtree(home / gone)
    return home


def described(top: Path) -> Mapping[str, tuple[object, ...]]:
    """Every object below a directory, and it: what a restore must bring back."""
    found = {}
    for path in (top, *sorted(top.rglob("*"))):
        status = path.lstat()
        content: bytes | str | None = None
        if path.is_symlink():
            content = str(path.readlink())
        elif path.is_file():
            content = path.read_bytes()
        attributes = (status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns)
        links = status.st_nlink if not path.is_dir() else 0
        found[str(path.relative_to(top))] = (*attributes, links, content)
    return found


def test_the_guide_brings_everything_back(
    guide: Guide, machine: StartMachine, left: Path, source: Path
) -> None:
    """In an empty directory, with a new home: from store, recovery.key and passphrase alone."""
    steps = [step for step in guide(PAGE) if step.section == SECTION]
    assert {step.machine for step in steps} == {"bare"}
    assert {name for step in steps for name in re.findall(r"\$(\w+)", step.command)} == {"SAFE"}
    bare = machine("bare", SAFE=str(left / "safe"), VAULT_PASSPHRASE_FILE=str(left / "passphrase"))
    for step in steps:
        step.check(bare)
    assert described(left / "bare/www") == described(source)
    assert [path.name for path in (left / "safe").iterdir()] == ["recovery.key"]


def test_a_store_that_moved_is_named(machine: StartMachine, left: Path, source: Path) -> None:
    """As the guide says: --repo, while the key still holds the digest that is checked."""
    (left / "repository").rename(left / "new-place")
    bare = machine("bare", SAFE=str(left / "safe"), VAULT_PASSPHRASE_FILE=str(left / "passphrase"))
    restore = "VAULT_KEYS=$SAFE vault {} restore www www"
    assert bare.run(restore.format(""))[0] == 10
    status, out = bare.run(restore.format(f"--repo {left}/new-place"))
    assert status == 0, out
    assert described(left / "bare/www") == described(source)


def test_another_repository_in_its_place_is_refused(
    vault: Vault, machine: StartMachine, left: Path
) -> None:
    """The key pins the root: a store that somebody made up restores nothing."""
    shutil.rmtree(left / "repository")
    assert vault("init", left / "repository", "--keys", left / "other")[0] == 0
    bare = machine("bare", SAFE=str(left / "safe"), VAULT_PASSPHRASE_FILE=str(left / "passphrase"))
    status, out = bare.run("VAULT_KEYS=$SAFE vault restore www www")
    assert status == 4, out
    assert not (left / "bare/www").exists()


def test_the_passphrase_is_asked_for_once_and_not_shown(
    left: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a terminal, as on the day it is needed."""
    monkeypatch.delenv("VAULT_PASSPHRASE_FILE")
    monkeypatch.setenv("VAULT_KEYS", str(left / "safe"))
    child, terminal = pty.fork()
    if child == 0:
        command = [sys.executable, "-m", "cli.main", "restore", "www", str(left / "www")]
        os.execv(sys.executable, command)
    shown = b""
    while b"recovery.key: " not in shown:
        assert select.select([terminal], [], [], 60)[0], shown
        shown += os.read(terminal, 1024)
    os.write(terminal, b"correct horse\n")
    shown += _read_all(terminal)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0, shown
    assert shown.count(b"passphrase for") == 1
    assert b"correct horse" not in shown
    assert described(left / "www") == described(source)


def _read_all(terminal: int) -> bytes:
    """Until the other side is closed, which Linux reports as an error."""
    shown = b""
    while True:
        try:
            shown += os.read(terminal, 1024)
        except OSError:
            os.close(terminal)
            return shown
