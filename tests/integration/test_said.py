"""What was done is said, wherever the result goes (docs/design.md "The command line")."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from vault.crypto.key_files import load_request
from vault.crypto.keys import VerifyKey
from vault.errors import LocalError
from vault.machine.chunk_cache import Cache
from vault.snapshot.last_run import EntryListWriter

Vault: TypeAlias = Callable[..., tuple[int, str, str]]
VaultJson: TypeAlias = Callable[..., Any]
Process: TypeAlias = Callable[..., subprocess.Popen[str]]

# command, what it says to have done; each as a list of arguments, {source} and so on filled in
COMMANDS: dict[str, tuple[list[str], str]] = {
    "snapshot": (["snapshot", "{source}", "--name", "data"], "is published, head "),
    "init": (["init", "{home}/other", "--keys", "{home}/keys"], "is made, root 0:"),
    "key request": (
        [
            "key",
            "request",
            "--name",
            "second",
            "--dataset",
            "x-*",
            "--out",
            "{home}/second.request",
        ],
        "the key of this host is made",
    ),
    "key add": (
        ["key", "add", "{home}/third.request", "--key", "{third}", "--share-datasets", "first"],
        "host third is enrolled, head ",
    ),
    "key limit": (["key", "limit", "first", "--dataset", "data"], "host first is limited, head "),
    "key revoke": (["key", "revoke", "first"], "is revoked, head "),
    "restore": (["restore", "data", "{home}/target"], "is recovered, attested "),
    "verify": (["verify"], "the verification is recorded as passed, head "),
    "verify without key": (["verify", "--no-key"], "the verification ended: passed"),
    "audit": (["audit"], "the audit's verdict is: passed"),
    "heal": (["heal", "--execute"], "0 of 0 steps carried out"),
    "index rebuild": (["index", "rebuild"], "the chunk map is made anew"),
}


@pytest.fixture
def ready(vault: Vault, repository: Path, source: Path, home: Path, keys: Path) -> dict[str, Any]:
    """A repository with a snapshot, and a request of a third host."""
    assert vault("snapshot", source, "--name", "data")[0] == 0
    return {"source": source, "home": home}


def _arguments(name: str, ready: dict[str, Any]) -> list[str]:
    return [each.format(**ready) for each in COMMANDS[name][0]]


@pytest.fixture
def command(
    request: pytest.FixtureRequest, vault: Vault, ready: dict[str, Any], keys: Path, home: Path
) -> tuple[list[str], str]:
    """The arguments of a command, all that it needs made, and what it must say to have done."""
    name = request.param
    writer = keys / "writer.key"
    if name in ("key request", "key add"):
        kept = writer.read_bytes()
        writer.unlink()
        if name == "key add":
            options = ["--name", "third", "--dataset", "y-*", "--out", home / "third.request"]
            assert vault("key", "request", *options)[0] == 0
            asked = load_request(home / "third.request")
            ready["third"] = VerifyKey.from_der(asked.public).id
            writer.write_bytes(kept)
            writer.chmod(0o600)
    return _arguments(name, ready), COMMANDS[name][1]


@pytest.mark.parametrize("command", COMMANDS, indirect=True)
def test_a_full_disk_for_stdout_hides_nothing(
    process: Process, command: tuple[list[str], str]
) -> None:
    """Stderr says what was done, and that the result could not be written: exit 14."""
    arguments, said = command
    with Path("/dev/full").open("w") as full:
        running = process(*arguments, stdout=full)
        _, err = running.communicate(timeout=60)
    assert running.returncode == 14, err
    assert said in err.replace("\n", " "), err
    assert "can't write to stdout" in err
    assert "Traceback" not in err


@pytest.mark.parametrize("command", COMMANDS, indirect=True)
@pytest.mark.parametrize("form", [[], ["--json"]])
def test_a_reader_who_has_left_hides_nothing(
    process: Process, command: tuple[list[str], str], form: list[str]
) -> None:
    """As if it had been read; what was done stands on stderr."""
    arguments, said = command
    reading, writing = os.pipe()
    os.close(reading)
    running = process(*form, *arguments, stdout=writing)
    os.close(writing)
    _, err = running.communicate(timeout=60)
    assert running.returncode == 0, err
    assert said in err.replace("\n", " "), err


@pytest.mark.parametrize("command", ["snapshot", "key revoke", "verify"], indirect=True)
def test_a_stdout_that_was_closed_hides_nothing(
    process: Process, command: tuple[list[str], str]
) -> None:
    """As a supervisor starts it that gives it none."""
    arguments, said = command
    running = process(*arguments, stdout=None, preexec_fn=lambda: os.close(1))
    _, err = running.communicate(timeout=60)
    assert running.returncode == 0, err
    assert said in err.replace("\n", " "), err


def test_what_was_printed_is_not_said_twice(vault: Vault, ready: dict[str, Any]) -> None:
    """Control: stderr is for what stdout did not take."""
    code, out, err = vault(*_arguments("snapshot", ready))
    assert code == 0
    assert "head" in out
    assert "is published" not in err


def test_damage_is_graver_than_a_full_stdout(
    process: Process, vault: Vault, ready: dict[str, Any], repository: Path
) -> None:
    """A monitor that only looks at the code must not take lost bytes for a full disk."""
    pack = next(path for path in (repository / "packs").glob("*/*") if path.is_file())
    subprocess.run(["chattr", "-i", pack], check=False, capture_output=True)
    pack.chmod(0o600)
    data = bytearray(pack.read_bytes())
    data[len(data) // 2] ^= 1
    pack.write_bytes(data)
    with Path("/dev/full").open("w") as full:
        running = process("verify", stdout=full)
        _, err = running.communicate(timeout=60)
    assert running.returncode == 4, err
    assert "failed" in err


# --- what is written after the work is done ---


def _refuse(*_: object, **__: object) -> None:
    raise LocalError("can't write it", found="Disk quota exceeded")


def test_a_snapshot_is_reported_though_its_list_cannot_be_written(
    vault: Vault, vault_json: VaultJson, ready: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit 0, with its head, and a warning that the next run takes longer."""
    monkeypatch.setattr(EntryListWriter, "commit", _refuse)
    code, out, err = vault(*_arguments("snapshot", ready))
    assert code == 0
    assert "head" in out
    assert "is published; the next run takes longer" in " ".join(err.split())
    found = vault_json(*_arguments("snapshot", ready))
    assert found["trouble"] == ["can't write it: found Disk quota exceeded"]


def test_an_interrupt_after_publishing_says_that_it_is_published(
    vault: Vault, ready: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody should take another one for nothing."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Cache, "forget_unindexed", interrupt)
    code, _, err = vault(*_arguments("snapshot", ready))
    assert code == 130
    assert "is published, head" in " ".join(err.split())


@pytest.mark.parametrize(
    "command", ["snapshot", "key add", "key revoke", "verify", "init"], indirect=True
)
def test_a_head_that_cannot_be_remembered_is_a_warning(
    vault: Vault, command: tuple[list[str], str], home: Path
) -> None:
    """What the command did stands."""
    lock = home / "state/vault/heads.lock"
    lock.unlink()
    lock.mkdir()
    code, out, err = vault(*command[0])
    assert code == 0, err
    assert out
    assert "is not remembered" in " ".join(err.split())


def test_an_attestation_that_can_be_kept_nowhere_does_not_hide_the_verdict(
    vault: Vault, ready: dict[str, Any], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store refused and the state directory is a file: exit 3, and all of it is said."""

    def refuse(*_: object, **__: object) -> None:
        raise LocalError("the store is read-only")

    monkeypatch.setattr("vault.repository.attestations.record_attestation", refuse)
    (home / "state/vault/attestations").write_text("in the way")
    code, out, err = vault("verify")
    assert code == 3
    assert "passed" in out
    assert "nor can it be kept" in " ".join(err.split())


def test_a_report_that_cannot_be_written_does_not_hide_the_audit(
    vault: Vault, ready: dict[str, Any], home: Path
) -> None:
    """The verdict is printed, and the code says that the file is not there."""
    code, out, err = vault("audit", "--report", home / "nowhere/report.html")
    assert code == 14
    assert "passed" in out
    assert "can't write" in err
