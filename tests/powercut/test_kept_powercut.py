"""A power cut at any moment: what was said to be kept is, and nothing else is half there."""

import errno
import hashlib
import json
import os
import stat
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.support.powercut import Disk, Recorder
from vault.crypto.key_files import RepositoryAddress, WriterKey, save_writer
from vault.crypto.keys import RecipientKey, SigningKey
from vault.errors import ConfigError
from vault.ledger.envelope import Head
from vault.ledger.trust import HeadMemory
from vault.model import Digest, LockMode, Retention
from vault.repository import attestations
from vault.snapshot.last_run import EntryListWriter
from vault.snapshot.list_records import ListHead, ListRecord
from vault.storage.local import LocalStore

NOW = datetime(2030, 1, 1, tzinfo=UTC)
SOON, LATE = (Retention(mode=LockMode.GOVERNANCE, until=NOW + timedelta(days=n)) for n in (1, 2))
OBJECTS = {"ledger/0": b"one", "ledger/0~2": b"two" * 9000, "probe/a": b"free", "probe/a~2": b"2"}
LOCKED = {"ledger/0", "ledger/0~2"}


def _use_store(root: Path, recorder: Recorder) -> None:
    """Versions with locks and without, one that is extended, and two that are deleted."""
    store = LocalStore.create(root, clock=lambda: NOW)
    recorder.mark("made")
    versions = {}
    for file, data in OBJECTS.items():
        versions[file] = store.put(
            file.partition("~")[0],
            data,
            sha256=hashlib.sha256(data).digest(),
            retention=SOON if file in LOCKED else None,
        ).version
        recorder.mark(file)
    store.extend("ledger/0", versions["ledger/0"], LATE)
    recorder.mark("extended")
    store.delete("probe/a", versions["probe/a"])
    recorder.mark("deleted the former")
    store.delete("probe/a", versions["probe/a~2"])
    recorder.mark("deleted the newest")


def _check_store(disk: Disk, root: Path) -> None:
    said = disk.marks
    assert not said or disk.find(root) is not None
    deleted = {"probe/a"} if "deleted the former" in said else set()
    deleted |= {"probe/a~2"} if "deleted the newest" in said else set()
    for file, data in OBJECTS.items():
        found = disk.find(root / file)
        is_there = found is not None and stat.S_ISREG(disk.kept[found].kind)
        assert not (is_there and file in deleted), f"{file} came back"
        assert is_there or file not in said or ("extended" in said and file not in LOCKED), file
        assert not is_there or disk.read(root / file) == data, f"{file} is half there"
        if is_there and file in LOCKED:
            lock = json.loads(disk.read(root / ".retention" / file) or b"")
            assert lock["until"] in {"2030-01-02T00:00:00Z", "2030-01-03T00:00:00Z"}
            if file == "ledger/0" and "extended" in said:
                assert lock["until"] == "2030-01-03T00:00:00Z"


def test_a_store(tmp_path: Path) -> None:
    """A version is there whole, with its lock, or not at all; what was told stays so."""
    root = tmp_path / "above" / "store"
    with Recorder(tmp_path) as recorder:
        _use_store(root, recorder)
    disks = list(recorder.cuts())
    assert len(disks) > 30
    for disk in disks:
        try:
            _check_store(disk, root)
        except (AssertionError, ValueError) as error:
            raise AssertionError(f"after {disk.after}, said {disk.marks}: {error}") from error


def test_a_directory_that_another_run_made_is_synced(tmp_path: Path) -> None:
    """It may have been killed before it came to that."""
    data = b"data"
    with Recorder(tmp_path) as recorder:
        LocalStore.create(tmp_path / "store")
        (tmp_path / "store/packs").mkdir()
        LocalStore(tmp_path / "store").put("packs/0", data, sha256=hashlib.sha256(data).digest())
        assert recorder.worst().read(tmp_path / "store/packs/0") == data


def test_a_store_whose_directories_cannot_be_synced_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files that can be are not enough: their names would be lost."""
    sync = os.fsync

    def files_only(fd: int) -> None:
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        sync(fd)

    monkeypatch.setattr(os, "fsync", files_only)
    with pytest.raises(ConfigError, match="can't keep a repository"):
        LocalStore.create(tmp_path)
    monkeypatch.setattr(os, "fsync", sync)
    LocalStore.create(tmp_path)


# --- small files of this machine ---


def _save_key(place: Path) -> Iterator[Path]:
    key = WriterKey(
        repository=RepositoryAddress(id="0f" * 16, url="/srv", endpoint="", root="ab" * 32),
        name="web1",
        signing=SigningKey.generate(),
        recipient=RecipientKey.generate(),
        domain=None,
    )
    save_writer(place / "writer.key", key)
    yield place / "writer.key"


def _remember_heads(place: Path) -> Iterator[Path]:
    root = Digest(bytes(32))
    for seq in (1, 2):
        HeadMemory(place / "state").remember(root, Head(seq=seq, digest=root, version="v"))
        yield place / f"state/heads/{root}.json"


def _commit_lists(place: Path) -> Iterator[Path]:
    path = place / "state/lists/web"
    for count in (1, 2):
        head = ListHead(
            repository="00" * 16, dataset="web", generation=str(count), key=b"k" * 32,
            sources=(b"/srv",), created="2026-01-01T00:00:00Z",
        )  # fmt: skip
        with EntryListWriter(path, head) as writer:
            writer.extend([ListRecord(b"name", 0, -1, 2, 3, 4, 5, b"\1\0\0\0", b"c", b"e")])
            writer.commit(b"m" * 16, {})
        yield path


def _keep_attestation(place: Path) -> Iterator[Path]:
    yield attestations.keep(place / "state", b"{}")


@pytest.mark.parametrize("keep", [_save_key, _remember_heads, _commit_lists, _keep_attestation])
def test_a_file(tmp_path: Path, keep: Callable[[Path], Iterator[Path]]) -> None:
    """It is the former or the new one, whole; once the call returned, the new one."""
    whole: list[bytes | None] = [None]
    with Recorder(tmp_path) as recorder:
        for path in keep(tmp_path):
            recorder.mark("kept")
            whole.append(path.read_bytes())
    for disk in recorder.cuts():
        found = disk.read(path)
        if keep is _save_key and not disk.marks and found == b"":
            continue  # nothing was told of that name, and it is never overwritten
        assert found in whole[len(disk.marks) :][:2], disk.after
