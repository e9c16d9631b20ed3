"""Opening a pack is a task that another process can run by itself."""

import contextlib
import dataclasses
import gc
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.lab import Clock, Lab, MakeRepository
from tests.support.trees import MakeSource
from vault.errors import DigestMismatchError, VaultError
from vault.ledger.records import Record
from vault.machine.workers import InlineExecutor, Workers, make_process_workers
from vault.model import Digest, ObjectRef
from vault.repository.pack_reader import PackReader
from vault.repository.reader import Reader
from vault.storage.local import LocalStore
from vault.verify import Place, VerifyReport, verify_snapshots
from vault.verify.pack_task import OpenedPack, PackTask, open_pack


@pytest.fixture
def lab(make_repository: MakeRepository, tmp_path: Path, clock: Clock) -> Lab:
    """A repository in a directory, which any process can open."""
    return make_repository(store=LocalStore.create(tmp_path / "store", clock=clock))


@pytest.fixture
def record(lab: Lab, make_source: MakeSource) -> Record:
    """A snapshot of several packs."""
    return lab.snapshot(make_source(files=10)).record


@pytest.fixture
def reader(lab: Lab, record: Record, tmp_path: Path) -> Iterator[Reader]:
    """Of that snapshot, its packs known by their own directories."""
    scratch = tmp_path / "reader"
    scratch.mkdir()
    made = Reader(lab.open(), lab.recovery.recipient, record, scratch=scratch, use_index=False)
    with contextlib.closing(made):
        made.load_packs()
        yield made


def _task(reader: Reader, pack: PackReader, **changes: Any) -> PackTask:
    assert pack.session is not None
    task = PackTask(
        place=Place(url=reader.repository.store.url),
        ref=pack.ref,
        entry=pack.as_entry(),
        repository_id=reader.repository.id,
        session=pack.session,
        id_key=reader.secrets.id_key,
    )
    return dataclasses.replace(task, **changes)


def _damage(lab: Lab, ref: ObjectRef, at: int) -> None:
    """Change one byte of an object on the disk."""
    (path,) = (
        path
        for path in Path(lab.store.url).rglob("*")
        if path.is_file()
        and path.stat().st_size == ref.size
        and Digest.of(path.read_bytes()) == ref.sha256
    )
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.chmod(0o600)
    path.write_bytes(data)


def _verified(lab: Lab, workers: Workers, place: Place | None) -> VerifyReport:
    """The verification with the recovery key."""
    repository = lab.open()
    return verify_snapshots(
        repository,
        repository.ledger.snapshots(),
        recovery=lab.recovery,
        scratch=lab.base,
        workers=workers,
        place=place,
    )


def test_processes_open_what_one_thread_opens(lab: Lab, record: Record, reader: Reader) -> None:
    """All is right; then one pack is damaged, one is gone, and one lies in another version."""
    inline = Workers(compute=InlineExecutor(), transfer=InlineExecutor(), in_flight=1)
    place = Place(url=lab.store.url)
    damaged, gone, moved, *_ = (pack.ref for pack in reader.packs().values())
    with make_process_workers(2) as pool:
        right = _verified(lab, pool, place)
        assert right.passed
        assert right.opened
        assert right.chunks > 0
        assert right == _verified(lab, inline, None)
        data = lab.store.get(moved.name, moved.version)
        lab.store.put(moved.name, data, sha256=moved.sha256)
        lab.store.delete(moved.name, moved.version)
        _damage(lab, damaged, damaged.size // 2)
        lab.store.delete(gone.name, gone.version)
        wrong = _verified(lab, pool, place)
    assert wrong == _verified(lab, inline, None)
    assert wrong.verdict == "failed"
    assert {damaged.name, gone.name} <= {each.subject for each in wrong.findings}


def test_no_pack_is_opened_in_the_callers_process(
    lab: Lab, record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What would fail here does not run here; the control: without a place it does."""

    def fail(pack: PackReader) -> OpenedPack:
        raise RuntimeError(pack.ref.name)

    monkeypatch.setattr("vault.verify.pack_task.open_blocks", fail)
    with make_process_workers(2) as pool:
        assert _verified(lab, pool, Place(url=lab.store.url)).passed
    inline = Workers(compute=InlineExecutor(), transfer=InlineExecutor(), in_flight=1)
    with pytest.raises(RuntimeError, match="packs/"):
        _verified(lab, inline, None)


def test_what_a_process_found_unreadable_is_given_up_before_the_tree_is_read(
    lab: Lab, record: Record, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So its chunks are sought in other packs, and it is not read once more for each file."""
    pack, *_ = reader.packs().values()
    _damage(lab, pack.ref, pack.directory.blocks[0].offset)
    events: list[str] = []
    give_up, tree = Reader.give_up, Reader.tree

    def given_up(reader: Reader, pack: PackReader, error: VaultError) -> None:
        events.append(pack.ref.name)
        give_up(reader, pack, error)

    def told(reader: Reader, *args: Any) -> Any:
        events.append("tree")
        return tree(reader, *args)

    monkeypatch.setattr(Reader, "give_up", given_up)
    monkeypatch.setattr(Reader, "tree", told)
    with make_process_workers(2) as pool:
        assert not _verified(lab, pool, Place(url=lab.store.url)).passed
    assert events[0] == pack.ref.name
    assert "tree" in events


def test_a_process_of_the_pool_is_tuned_as_a_program(lab: Lab) -> None:
    """Its collector looks for cycles as seldom as the command line's."""
    with make_process_workers(1) as pool:
        assert pool.compute.submit(gc.get_threshold).result() == (100_000, 50, 100)
    assert gc.get_threshold() != (100_000, 50, 100)


def test_a_task_is_a_plain_value_without_the_recovery_key(lab: Lab, reader: Reader) -> None:
    """What it is sent opens packs of one session; no secret is in its text."""
    pack, *_ = reader.packs().values()
    task = _task(reader, pack)
    sent = pickle.dumps(task)
    assert pickle.loads(sent) == task
    assert task.session.seed in sent  # the control: a secret would be seen
    assert lab.recovery.recipient.raw() not in sent
    assert not any(repr(secret) in repr(task) for secret in (task.session.seed, task.id_key))


def test_a_task_opens_all_blocks(reader: Reader) -> None:
    """With its own store as with the caller's."""
    for pack in reader.packs().values():
        task = _task(reader, pack)
        expected = OpenedPack(chunks=len(pack.directory.lengths))
        assert open_pack(task) == open_pack(task, reader.repository) == expected


def test_a_block_that_does_not_open_comes_back_as_a_value(lab: Lab, reader: Reader) -> None:
    """With the pack's other chunks, the blocks by number, and that no version gives them."""
    pack, *_ = reader.packs().values()
    _damage(lab, pack.ref, pack.directory.blocks[0].offset)
    result = pickle.loads(pickle.dumps(open_pack(_task(reader, pack))))
    assert isinstance(result.error, DigestMismatchError)
    assert str(result.error) == str(result.given_up)
    assert not pack.is_given_up  # that is the caller's to do
    assert result.faulty == {0}
    others = len(pack.directory.lengths) - pack.directory.blocks[0].chunks
    assert result.chunks == others


def test_right_bytes_in_another_version_are_told(lab: Lab, reader: Reader) -> None:
    """The caller notes it; the task has no ledger to note it in."""
    pack, *_ = reader.packs().values()
    data = lab.store.get(pack.ref.name, pack.ref.version)
    other = lab.store.put(pack.ref.name, data, sha256=pack.ref.sha256)
    lab.store.delete(pack.ref.name, pack.ref.version)
    result = open_pack(_task(reader, pack))
    assert result.versions == (other.version,)
    assert result.chunks == len(pack.directory.lengths)


def test_a_pack_of_another_session_takes_the_recovery_key(reader: Reader) -> None:
    """A task without its seed opens nothing, and says so: it is no damage."""
    pack, *_ = reader.packs().values()
    task = _task(reader, pack)
    other = dataclasses.replace(task.session, id=bytes(16))
    assert open_pack(dataclasses.replace(task, session=other)) == OpenedPack(
        is_of_other_session=True
    )
