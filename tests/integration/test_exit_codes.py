"""Each code of the table in docs/design.md "The command line", by a situation that leads to it."""

import fcntl
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, TypeAlias

import pytest

import cli.commands.list
import cli.commands.snapshot
from cli.exits import EXIT_CODES
from cli.main import TerminatedError
from vault import errors
from vault.clock import utc_now
from vault.crypto.key_files import load_writer
from vault.ledger.statements import HeartbeatBody
from vault.model import Buffer, Digest
from vault.repository.append_statements import Draft
from vault.repository.repository import Repository
from vault.storage.base import ObjectVersion
from vault.storage.choose_store import open_store
from vault.storage.local import LocalStore

Vault: TypeAlias = Callable[..., tuple[int, str, str]]
VaultJson: TypeAlias = Callable[..., Any]


def every_error() -> list[type[errors.VaultError]]:
    """The whole tree."""
    found = [errors.VaultError]
    for kind in found:
        found.extend(kind.__subclasses__())
    return [kind for kind in found if kind.__module__ == "vault.errors"]


def raises(error: BaseException) -> Callable[..., NoReturn]:
    """A command's work, failing."""

    def fail(*_: object, **__: object) -> NoReturn:
        raise error

    return fail


@pytest.mark.parametrize("kind", every_error())
def test_every_error_ends_with_the_code_of_its_nearest_ancestor(
    vault: Vault,
    repository: Path,
    source: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: type[errors.VaultError],
) -> None:
    """One line with what was expected and found, one with the hint; an object for programs."""
    error = kind("it failed", expected="one", found="two", hint="do this")
    monkeypatch.setattr(cli.commands.snapshot, "take_snapshot", raises(error))
    expected = next(EXIT_CODES[each] for each in kind.__mro__ if each in EXIT_CODES)
    code, out, err = vault("--json", "snapshot", source, "--name", "data")
    assert code == expected
    assert "vault: error: it failed: expected one, found two\nvault: hint: do this\n" in err
    assert json.loads(out) == {
        "schema": "vault/error/v1",
        "error": {
            "kind": kind.__name__,
            "message": "it failed",
            "expected": "one",
            "found": "two",
            "hint": "do this",
            "notes": [],
            "exit_code": expected,
        },
    }


def test_the_table_is_the_one_of_the_design() -> None:
    """Numbers are a promise to scripts."""
    assert {kind.__name__: code for kind, code in EXIT_CODES.items()} == {
        "VaultError": 1,
        "ConfigError": 2,
        "IntegrityError": 4,
        "RetentionError": 5,
        "RepositoryNotFoundError": 10,
        "LedgerMovedError": 11,
        "WrongKeyError": 12,
        "StorageError": 13,
        "LocalError": 14,
        "BusyError": 15,
        "SourceCommandError": 16,
    }


def test_0_done(vault: Vault, repository: Path) -> None:
    """Nothing on stderr either."""
    assert vault("list")[::2] == (0, "")


def test_1_a_bug(vault: Vault, repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line; the traceback only with -v."""
    monkeypatch.setattr("cli.output.render.table", raises(ZeroDivisionError("oops\x1b[2J")))
    code, out, err = vault("list")
    assert (code, out) == (1, "")
    assert r"ZeroDivisionError: oops\x1b[2J" in err
    assert "Traceback" not in err
    assert "Traceback" in vault("-v", "list")[2]


@pytest.mark.parametrize(
    "arguments",
    [
        ["no-such-command"],
        ["list", "--no-such-option"],
        ["-q", "-v", "list"],
        ["--trust", "nonsense", "list"],
        ["list", "no-such-dataset"],
        ["snapshot", "no-such-path", "--name", "data"],
        ["snapshot", ".", "--name", "data", "--retain", "9y"],
        ["snapshot", ".", "--name", "data", "--retain", "soon"],
        ["verify", "--read-data", "some"],
        ["--repo", "", "list"],
        ["init", ""],
        ["key", "add", "no-such-file"],
    ],
)
def test_2_usage(vault: Vault, repository: Path, arguments: list[str]) -> None:
    """Of click or of the vault: the same code, and an object either way."""
    code, out, err = vault(*arguments)
    assert (code, out) == (2, "")
    assert "vault: error: " in err
    assert "Traceback" not in err
    code, out, _ = vault("--json", *arguments)
    assert json.loads(out)["error"]["exit_code"] == code == 2


def test_2_no_repository_named(vault: Vault) -> None:
    """The hint says how to name it."""
    code, _, err = vault("list")
    assert code == 2
    assert "--repo" in err


def test_3_an_incomplete_snapshot(
    vault: Vault, repository: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that can't be read is listed; the snapshot says it is incomplete."""
    real = os.stat

    def unreadable(path: Any, **options: Any) -> os.stat_result:
        if path == b"readme":
            raise PermissionError(13, "Permission denied")
        return real(path, **options)

    monkeypatch.setattr(os, "stat", unreadable)
    code, out, err = vault("snapshot", source, "--name", "data")
    assert code == 3
    assert "INCOMPLETE" in out
    assert "unreadable: readme" in err


def test_4_tampering(vault: Vault, vault_json: VaultJson, repository: Path, source: Path) -> None:
    """One flipped bit in a pack: verify finds it, and restore touches nothing."""
    assert vault("snapshot", source, "--name", "data")[0] == 0
    for pack in (repository / "packs").rglob("*"):
        if pack.is_file():
            data = bytearray(pack.read_bytes())
            data[len(data) // 2] ^= 1
            pack.chmod(0o600)
            pack.write_bytes(data)
    found = vault_json("verify", code=4)["verification"]
    assert found["verdict"] == "failed"
    assert all(item["subject"].startswith(("packs/", "ledger ")) for item in found["findings"])
    assert vault("restore", "data", "target")[0] == 4
    assert not Path("target").exists()


def test_5_a_lock_beyond_all_dates(vault: Vault) -> None:
    """No store keeps a lock past 2100."""
    assert vault("init", "repository", "--lock", "governance", "--max-retain", "60y")[0] == 5


def test_10_no_repository(vault: Vault, repository: Path, home: Path) -> None:
    """Neither an absent directory nor an empty one is a repository."""
    (home / "empty").mkdir()
    assert vault("--repo", "absent", "list")[0] == 10
    assert vault("--repo", "empty", "list")[0] == 10


def test_11_the_ledger_moved_on(
    vault: Vault, repository: Path, keys: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others won every attempt to append."""
    key = load_writer(keys / "writer.key")
    root = Digest.parse(key.repository.root)
    other = Repository.open(open_store(str(repository)), root, clock=utc_now)
    put = LocalStore.put

    def overtaken(store: LocalStore, name: str, data: Buffer, **options: Any) -> ObjectVersion:
        if store is not other.store and name.startswith("ledger/"):
            draft = Draft(
                type="heartbeat", subject=[("repository", root)], body=HeartbeatBody(note="")
            )
            other.append(lambda _: draft, [key.signing], tool="another")
        return put(store, name, data, **options)

    monkeypatch.setattr("vault.repository.append_statements.APPEND_ATTEMPTS", 3)
    monkeypatch.setattr(LocalStore, "put", overtaken)
    assert vault("snapshot", source, "--name", "data")[0] == 11
    assert other.head.seq == 4, "three attempts were lost"


def test_12_a_wrong_passphrase(vault: Vault, repository: Path, source: Path, home: Path) -> None:
    """The file's first line is the passphrase; it is never printed."""
    assert vault("snapshot", source, "--name", "data")[0] == 0
    (home / "passphrase").write_text("wrong horse\n")
    code, out, err = vault("-v", "restore", "data", "target")
    assert code == 12
    assert "wrong horse" not in out + err


def test_12_no_passphrase_and_no_terminal(
    vault: Vault, repository: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At once, with the way out as the hint."""
    assert vault("snapshot", source, "--name", "data")[0] == 0
    monkeypatch.delenv("VAULT_PASSPHRASE_FILE")
    code, _, err = vault("restore", "data", "target")
    assert code == 12
    assert "VAULT_PASSPHRASE_FILE" in err


def test_12_no_writer_key(vault: Vault, repository: Path, source: Path, keys: Path) -> None:
    """recovery.key names the repository, and can't write."""
    (keys / "writer.key").unlink()
    assert vault("snapshot", source, "--name", "data")[0] == 12


def test_13_the_store_fails(
    vault: Vault, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No answer is neither "no repository" nor tampering."""
    from vault.storage.local import LocalStore

    error = errors.StorageUnavailableError("the store did not answer")
    monkeypatch.setattr(LocalStore, "versions", raises(error))
    assert vault("list")[0] == 13


def test_13_the_store_may_not_be_looked_at(
    vault: Vault, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A directory above it is closed to this user."""
    real = Path.stat

    def closed(self: Path, **options: Any) -> Any:
        if self == repository:
            raise PermissionError(13, "Permission denied")
        return real(self, **options)

    monkeypatch.setattr(Path, "stat", closed)
    code, _, err = vault("list")
    assert code == 13
    assert str(repository) in err


def test_14_the_local_disk_fails(vault: Vault, repository: Path, source: Path, home: Path) -> None:
    """The place for state is no directory."""
    (home / "no-directory").touch()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(home / "no-directory"))
        assert vault("verify")[0] == 14


def test_15_running_already(
    vault: Vault, vault_json: VaultJson, repository: Path, source: Path, home: Path
) -> None:
    """One snapshot of a dataset at a time on a host."""
    number = vault_json("list")["repository"]
    assert vault("snapshot", source, "--name", "data")[0] == 0
    with (home / "state/vault" / number / "data.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert vault("snapshot", source, "--name", "data")[0] == 15
        assert vault("snapshot", source, "--name", "other")[0] == 0


@pytest.mark.parametrize(("ending", "code"), [(KeyboardInterrupt(), 130), (TerminatedError(), 143)])
def test_130_and_143_say_so_in_one_line(
    vault: Vault,
    repository: Path,
    monkeypatch: pytest.MonkeyPatch,
    ending: BaseException,
    code: int,
) -> None:
    """No traceback."""
    monkeypatch.setattr("cli.output.render.table", raises(ending))
    found, _, err = vault("-q", "list")
    assert found == code
    assert err.splitlines()[-1] in {"vault: error: interrupted", "vault: error: terminated"}
    assert "Traceback" not in err
