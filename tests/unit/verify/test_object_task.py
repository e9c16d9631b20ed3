"""One look at an object is a task that another process can run by itself."""

import dataclasses
import multiprocessing
import pickle
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from tests.support.lab import Clock, Lab, MakeRepository
from tests.support.trees import MakeSource
from vault.errors import DigestMismatchError, MissingObjectError, RepositoryNotFoundError
from vault.ledger.records import Record
from vault.machine.workers import InlineExecutor, Workers
from vault.model import Digest, ObjectRef
from vault.storage.local import LocalStore
from vault.verify import Place, VerifyReport, verify_snapshots
from vault.verify.object_task import Look, Looked, look


@pytest.fixture
def lab(make_repository: MakeRepository, tmp_path: Path, clock: Clock) -> Lab:
    """A repository in a directory, which any process can open."""
    return make_repository(store=LocalStore.create(tmp_path / "store", clock=clock))


@pytest.fixture
def record(lab: Lab, make_source: MakeSource) -> Record:
    """A snapshot of several packs."""
    return lab.snapshot(make_source(files=10)).record


def _packs(lab: Lab, record: Record) -> list[ObjectRef]:
    objects = lab.open().inventory(record).objects
    return [ref for ref in objects if ref.name.startswith("packs/")]


def _damage(lab: Lab, ref: ObjectRef) -> None:
    """Change the last byte of an object on the disk."""
    (path,) = (
        path
        for path in Path(lab.store.url.removeprefix("file://")).rglob("*")
        if path.is_file() and path.stat().st_size == ref.size
        and Digest.of(path.read_bytes()) == ref.sha256
    )  # fmt: skip
    data = path.read_bytes()
    path.chmod(0o600)
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))


def _in_processes(lab: Lab) -> VerifyReport:
    """The verification whose objects are read by two new processes."""
    repository = lab.open()
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=context) as pool:
        return verify_snapshots(
            repository,
            repository.ledger.snapshots(),
            scratch=lab.base,
            workers=Workers(compute=InlineExecutor(), transfer=pool, in_flight=4),
            place=Place(url=lab.store.url),
        )


def test_processes_find_what_one_thread_finds(lab: Lab, record: Record) -> None:
    """All is right; then a pack is damaged, and another one is gone."""
    assert _in_processes(lab) == lab.verify(keys=False)
    assert _in_processes(lab).passed
    damaged, gone, *_ = _packs(lab, record)
    _damage(lab, damaged)
    lab.store.delete(gone.name, gone.version)
    report = _in_processes(lab)
    assert report == lab.verify(keys=False)
    assert report.verdict == "failed"
    assert {each.subject for each in report.findings} == {damaged.name, gone.name}


def test_a_task_and_its_result_are_plain_values(lab: Lab, record: Record) -> None:
    """They come back equal from a pickle; a result says what was wrong in the same words."""
    ref = _packs(lab, record)[0]
    task = Look(place=Place(url=lab.store.url), ref=ref, is_read=True)
    assert pickle.loads(pickle.dumps(task)) == task
    assert look(task) == look(task, lab.store) == Looked(version=ref.version)
    _damage(lab, ref)
    error = pickle.loads(pickle.dumps(look(task))).error
    assert isinstance(error, DigestMismatchError)
    assert (str(error), error.hint) == (str(look(task, lab.store).error), None)


def test_an_object_that_is_not_read_is_looked_for(lab: Lab, record: Record) -> None:
    """Damage of its bytes is not seen then; that it is missing, or has another size, is."""
    ref = _packs(lab, record)[0]
    task = Look(place=Place(url=lab.store.url), ref=ref, is_read=False)
    _damage(lab, ref)
    assert look(task) == Looked()
    longer = dataclasses.replace(task, ref=dataclasses.replace(ref, size=ref.size + 1))
    assert isinstance(look(longer).error, DigestMismatchError)
    lab.store.delete(ref.name, ref.version)
    assert isinstance(look(task).error, MissingObjectError)


def test_a_store_that_is_not_there_is_no_finding(lab: Lab, record: Record) -> None:
    """A worker that can't open it has seen nothing."""
    task = Look(place=Place(url=str(lab.base / "none")), ref=_packs(lab, record)[0], is_read=True)
    with pytest.raises(RepositoryNotFoundError):
        look(task)
