"""What `verify` says and records: no more than it read; and what an operator needs, in order."""

import base64
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import pytest

import cli.main
from vault.errors import StorageError
from vault.machine.workers import in_order
from vault.storage.local import LocalStore
from vault.verify import without_key

Vault: TypeAlias = Callable[..., tuple[int, str, str]]
VaultJson: TypeAlias = Callable[..., Any]
Spoil: TypeAlias = Callable[[Path], None]


def _flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.chmod(0o600)
    path.write_bytes(data)


def _packs(repository: Path, kind: int) -> list[Path]:
    """Of that type, by the public header, the oldest first."""
    packs = [path for path in (repository / "packs").rglob("*") if path.is_file()]
    found = [path for path in packs if path.read_bytes()[14] == kind]
    return sorted(found, key=lambda path: path.stat().st_mtime_ns)


def _inventory(repository: Path, seq: int) -> Path:
    envelope = json.loads((repository / f"ledger/{seq:016d}").read_bytes())
    statement = json.loads(base64.b64decode(envelope["payload"]))
    digest: str = statement["predicate"]["body"]["inventory"]["sha256"]
    return repository / "inventory" / digest


FAULTS: dict[str, Spoil] = {
    "a bit of a data pack": lambda top: _flip(_packs(top, 1)[0], -300),
    "the header of a data pack": lambda top: _flip(_packs(top, 1)[0], 40),
    "the end of a data pack": lambda top: _flip(_packs(top, 1)[0], -20),
    "a data pack is gone": lambda top: _packs(top, 1)[0].unlink(),
    "a data pack is cut": lambda top: _cut(_packs(top, 1)[0]),
    "a bit of a tree pack": lambda top: _flip(_packs(top, 2)[0], -200),
    "a tree pack is gone": lambda top: _packs(top, 2)[0].unlink(),
    "an inventory is changed": lambda top: _flip(_inventory(top, 2), 30),
    "an inventory is gone": lambda top: _inventory(top, 2).unlink(),
}


def _cut(path: Path) -> None:
    path.chmod(0o600)
    path.write_bytes(path.read_bytes()[:-1])


@pytest.fixture
def two(vault: Vault, repository: Path, source: Path, home: Path) -> Path:
    """Two datasets that share nothing: snapshot 2 of www, to be spoilt, and 3 of db."""
    assert repository.is_dir()
    (source / "very-private").write_bytes(bytes(range(250)) * 4)
    other = home / "db"
    other.mkdir()
    (other / "table").write_bytes(b"rows " * 3000)
    assert vault("snapshot", source, "--name", "www")[0] == 0
    assert vault("snapshot", other, "--name", "db")[0] == 0
    return other


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("options", [(), ("--no-key",)])
def test_the_last_lines_say_what_an_operator_needs(
    vault: Vault, two: Path, repository: Path, fault: str, options: tuple[str, ...]
) -> None:
    """What is wrong, in one line; what is hit; what is whole; what to try: in this order."""
    FAULTS[fault](repository)
    code, out, err = vault("verify", *options)
    assert code == 4
    lines = [line.removeprefix("vault: ") for line in err.splitlines()]
    words = [line.partition(":")[0] for line in lines]
    start = words.index("error")
    assert words[start:] == sorted(words[start:], key=["error", "hit", "whole", "hint"].index), err
    assert words.count("error") == 1
    assert "1 of 2 snapshots hit" in lines[start]
    assert lines[words.index("hit")].startswith("hit: snapshot 2 of www: ")
    assert lines[words.index("whole")] == "whole: 3"
    assert any("'vault snapshot' of www" in line for line in lines[words.index("hint") :])
    assert out.startswith("verdict    failed: ")


def test_files_that_are_hit_are_named_with_the_key_only(
    vault: Vault, two: Path, repository: Path
) -> None:
    """Names of files are nobody's business who has no recovery key."""
    _packs(repository, 1)[0].unlink()
    assert "very-private" in vault("verify")[2]
    _, out, err = vault("verify", "--no-key")
    assert "very-private" not in out + err
    (evidence,) = (repository / "evidence").iterdir()
    assert "very-private" not in str(base64.b64decode(json.loads(evidence.read_bytes())["payload"]))


def test_no_snapshot_is_nothing_to_verify(
    vault: Vault, vault_json: VaultJson, repository: Path
) -> None:
    """It is no pass, and it is not recorded; a dataset that is named and has none is a mistake."""
    code, out, err = vault("verify")
    assert (code, err) == (0, err)
    assert "nothing to verify" in out
    assert "passed" not in out + err
    found = vault_json("verify")["verification"]
    assert (found["verdict"], found["statement"], found["whole"]) == ("nothing", None, [])
    assert vault_json("status")["repository"]["head"].startswith("1:")
    assert vault("verify", "www")[0] == 2


def test_a_verdict_names_what_was_read(vault: Vault, two: Path) -> None:
    """Without the key it says that packs were not opened; of a sample, how much it is of."""
    assert "every byte of 7 objects was read, packs opened" in vault("verify")[1]
    assert "packs not opened" in vault("verify", "--no-key")[1]
    for share in ("0%", "1%", "slice"):
        out = vault("verify", "--read-data", share)[1]
        assert out.startswith("verdict    partial: nothing wrong in ")
        assert "passed" not in out
    assert "trees opened, packs not read" in vault("verify", "--read-data", "0%")[1]


def test_a_sample_is_recorded_with_its_nonce_and_drawn_again_by_its_seed(
    vault: Vault, vault_json: VaultJson, two: Path
) -> None:
    """What is drawn again is not recorded: who knows a nonce beforehand chooses what is read."""
    first = vault_json("verify", "--read-data", "30%")["verification"]
    assert len(first["nonce"]) == 32
    assert first["statement"] is not None
    for seed in (first["nonce"], first["seed"]):
        again = vault_json("verify", "--read-data", "30%", "--seed", seed)["verification"]
        assert again["statement"] is None
        assert again["bytes_read"] == first["bytes_read"]
        assert again["nonce"] == first["nonce"]
    assert vault_json("verify", "--read-data", "30%")["verification"]["nonce"] != first["nonce"]
    for arguments in (
        ["--seed", first["nonce"]],
        ["--read-data", "slice", "--seed", first["nonce"]],
        ["--read-data", "30%", "--seed", "guess"],
        ["--read-data", "30%", "--seed", first["nonce"] + "@999"],
    ):
        assert vault("verify", *arguments)[0] == 2


def test_slices_have_their_turn_and_status_says_what_was_read(
    vault: Vault, vault_json: VaultJson, two: Path
) -> None:
    """Each recorded run reads the next; what nobody records is left to chance."""
    slices = [
        vault_json("verify", "--read-data", "slice")["verification"]["slice"] for _ in range(3)
    ]
    assert slices == [[0, 30], [1, 30], [2, 30]]
    vault_json("verify", "--read-data", "slice", "--no-key")
    assert vault_json("verify", "--read-data", "slice")["verification"]["slice"] == [3, 30]
    assert vault_json("status")["read_back"] == {
        "slices": 30,
        "unread": 26,
        "since": None,
        "through": None,
        "failed": False,
    }
    assert "26 of 30 slices never" in vault("status")[1]
    assert vault("verify")[0] == 0
    assert vault_json("status")["read_back"]["unread"] == 0
    assert "every byte within less than a minute" in vault("status")[1]


@pytest.mark.parametrize(
    ("ended_by", "code"), [(KeyboardInterrupt, 130), (cli.main.TerminatedError, 143)]
)
def test_who_ends_it_hears_what_was_done(
    vault: Vault,
    two: Path,
    monkeypatch: pytest.MonkeyPatch,
    ended_by: type[BaseException],
    code: int,
) -> None:
    """At once; what was read and what is left; nothing is recorded."""
    before = vault("--json", "list")[1]

    def ended(*args: Any, **options: Any) -> Iterator[Any]:
        for number, looked in enumerate(in_order(*args, **options)):
            if number == 2:
                raise ended_by
            yield looked

    monkeypatch.setattr(without_key, "in_order", ended)
    found, _, err = vault("verify")
    assert found == code
    assert "2 of 7 objects read, 2 snapshots left to open; nothing wrong so far" in err
    assert "nothing is attested" in err
    assert vault("--json", "list")[1] == before
    assert not (two.parent / "repository/evidence").exists()


def test_an_object_that_the_store_does_not_give_is_no_verdict(
    vault: Vault,
    vault_json: VaultJson,
    two: Path,
    repository: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Exit 13 and no statement; with one that is wrong beside it, 4, and only that one is bad."""
    head = vault_json("status")["repository"]["head"]
    name = _packs(repository, 1)[0].name
    get = LocalStore.get

    def refuse(self: LocalStore, wanted: str, *args: Any, **options: Any) -> bytes:
        if wanted.endswith(name):
            raise StorageError("input/output error")
        return get(self, wanted, *args, **options)

    monkeypatch.setattr(LocalStore, "get", refuse)
    code, out, err = vault("verify")
    assert code == 13
    assert out.startswith("verdict    unfinished: the store did not give 1 object")
    assert name in err
    assert vault_json("status")["repository"]["head"] == head
    _packs(repository, 1)[1].unlink()
    found = vault_json("verify", code=4)["verification"]
    assert [each["object"].endswith(name) for each in found["unread"]] == [True]
    (hit,) = found["hits"]
    assert [each.rpartition("/")[2] for each in hit["objects"]] == found["bad_packs"]
    assert name not in found["bad_packs"]


_HANGS = r"""
import os, sys, threading
import cli.main, cli.commands.verify
from vault.storage.local import LocalStore

get = LocalStore.get
where = sys.argv[1]

def hang(self, name, *args, **options):
    is_main = threading.current_thread() is threading.main_thread()
    if is_main or not name.startswith(where):
        return get(self, name, *args, **options)
    os.write(1, b"asked\n")  # whole: two threads may ask
    threading.Event().wait()

LocalStore.get = hang
cli.commands.verify.SIGNAL_GRACE = 0.1
sys.argv = ["vault", "verify", "--no-key"]
cli.main.main()
"""


ENDS = {
    signal.SIGINT: (130, "interrupted"),
    signal.SIGTERM: (143, "terminated"),
    signal.SIGHUP: (143, "terminated"),
}


@pytest.mark.usefixtures("two")
@pytest.mark.parametrize("where", ["packs/", "ledger/"])
@pytest.mark.parametrize("number", ENDS)
def test_a_store_that_hangs_holds_up_no_signal(
    repository: Path, keys: Path, number: signal.Signals, where: str
) -> None:
    """What is said is said at once, and the process ends although a thread still waits."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # it may be ignored here
    with subprocess.Popen(
        [sys.executable, "-c", _HANGS, where],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "VAULT_REPO": str(repository), "VAULT_KEYS": str(keys)},
    ) as running:
        signal.signal(signal.SIGINT, before)
        try:
            assert running.stdout is not None
            assert running.stdout.readline() == "asked\n"
            running.send_signal(number)
            _, err = running.communicate(timeout=120)
        finally:
            running.kill()
    code, said = ENDS[number]
    assert running.returncode == code
    assert ("nothing is attested" if where == "packs/" else said) in err


@pytest.mark.usefixtures("two")
def test_what_is_said_of_the_recovery_key_is_so_where_nothing_could_be_opened(
    vault: Vault, repository: Path
) -> None:
    """It was there and signed; the domain's keys were gone. The control: without the key."""
    next(repository.glob("domains/*/*")).unlink()
    _, out, err = vault("verify")
    assert "without the recovery key" not in out
    assert re.search(r"^attested +\d", out, re.MULTILINE)
    assert "where recovery.key is" not in err
    assert "stores again" not in err  # no snapshot can
    _, out, err = vault("verify", "--no-key")
    assert "without the recovery key" in out
    assert "where recovery.key is" in err


@pytest.mark.usefixtures("two")
def test_status_does_not_say_that_every_byte_was_read_back_where_some_were_not_there(
    vault: Vault, repository: Path
) -> None:
    """A failed verification looked everywhere, and did not get all. The control: a passed one."""
    vault("verify")
    assert "every byte within" in vault("status")[1]
    max(repository.glob("packs/*/*"), key=lambda path: path.stat().st_size).unlink()
    vault("verify")
    out = vault("status")[1]
    assert "every byte" not in out
    assert "not all was there and right" in out
    assert json.loads(vault("--json", "status")[1])["read_back"]["failed"] is True


@pytest.mark.usefixtures("two")
def test_status_says_what_a_verification_without_a_key_found_on_this_host(
    vault: Vault, vault_json: VaultJson, repository: Path
) -> None:
    """It could not sign it; the control: before, nothing is known to be wrong."""
    assert "nothing is known to be wrong" in vault("status")[1]
    _flip(_packs(repository, 1)[0], -300)
    assert vault("verify", "--no-key")[0] == 4
    code, out, err = vault("status", "--check")
    assert code == 4
    assert out.splitlines()[0].startswith("wrong")
    assert "that a verification on this host found wrong" in err
    assert sum(each["seen_here"] for each in vault_json("status")["datasets"]) == 1


@pytest.mark.usefixtures("two")
def test_status_calls_no_snapshot_restored_of_which_no_restore_was(
    vault: Vault, home: Path, repository: Path, source: Path
) -> None:
    """The restore was of the older one, and found a pack wrong that the newest needs, too."""
    assert vault("snapshot", source, "--name", "www")[0] == 0
    _flip(_packs(repository, 1)[0], -300)
    assert vault("restore", "2", home / "back")[0] == 4
    _, out, err = vault("status")
    assert "the last restore of snapshot 4" not in err
    assert "snapshot 4 of www needs a pack that a restore found wrong (ledger 5)" in err
    assert "found wrong: www" in out.splitlines()[0]
