"""What fails once a snapshot is published is told, and is no failure of it."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.lab import Lab
from tests.support.trees import MakeSource
from vault.errors import LocalError, StorageError, StorageUnavailableError, VaultError
from vault.ledger import pages
from vault.ledger.records import Record
from vault.machine.chunk_cache import Cache, DamagedCacheError
from vault.machine.workers import make_workers
from vault.snapshot import SnapshotReport, SnapshotRequest, take_snapshot
from vault.snapshot.last_run import EntryListWriter
from vault.snapshot.run_journal import ListJournal
from vault.storage.memory import FaultPoint


@pytest.fixture
def source(make_source: MakeSource) -> Path:
    """Some files."""
    top: Path = make_source(files=4)
    return top


def _full(*_: object, **__: object) -> None:
    raise OSError(28, "No space left on device")


def _read_only(*_: object, **__: object) -> None:
    raise LocalError("can't write", found="read-only file system")


def _quota(*_: object, **__: object) -> None:
    raise OSError(122, "Disk quota exceeded")


def _damaged(*_: object, **__: object) -> None:
    raise DamagedCacheError("the chunk map is damaged")


def _after(real: Callable[..., None], fail: Callable[..., None]) -> Callable[..., None]:
    """It is closed, and says that it failed."""

    def act(*arguments: object) -> None:
        real(*arguments)
        fail()

    return act


AFTERWARDS: dict[str, tuple[type, str, Callable[..., None]]] = {
    "the list does not fit": (EntryListWriter, "commit", _full),
    "the list is on a read-only disk": (EntryListWriter, "commit", _read_only),
    "the list is over a quota": (EntryListWriter, "commit", _quota),
    "the journal can't be removed": (ListJournal, "delete", _read_only),
    "the chunk map is full": (Cache, "forget_unindexed", _full),
    "the chunk map is damaged": (Cache, "forget_unindexed", _damaged),
    "the mark of the chunk map is damaged": (Cache, "mark", _damaged),
    "the list can't be closed": (EntryListWriter, "__exit__", _full),
    "the journal can't be closed": (ListJournal, "__exit__", _quota),
    "the chunk map can't be closed": (Cache, "__exit__", _full),
}


@pytest.mark.parametrize("name", AFTERWARDS)
def test_a_snapshot_that_is_published_is_reported_whatever_follows(
    lab: Lab, source: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Once, with what failed; and the next run is as good as ever."""
    shape, method, fail = AFTERWARDS[name]
    if method == "__exit__":
        fail = _after(getattr(shape, method), fail)
    lab.snapshot(source)
    (source / "dir0/file0").write_bytes(b"new" * 9000)
    with monkeypatch.context() as patch:
        patch.setattr(shape, method, fail)
        report = lab.snapshot(source)
    ledger = lab.open().ledger
    assert [record.seq for record in ledger.snapshots()][-1] == report.record.seq
    assert len(ledger.snapshots()) == 2
    assert report.trouble
    following = lab.snapshot(source)
    assert following.trouble == ()
    assert lab.verify(report.record, following.record).verdict == "passed"


def test_a_full_disk_before_it_is_published_fails_the_run(
    lab: Lab, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Control: the same error, a moment earlier."""
    monkeypatch.setattr(EntryListWriter, "extend", _read_only)
    with pytest.raises(LocalError):
        lab.snapshot(source)
    assert lab.open().ledger.snapshots() == []


def test_a_page_that_cannot_be_stored_does_not_undo_the_statement(
    lab: Lab, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next run owes it."""
    monkeypatch.setattr(pages, "PAGE_LENGTH", lab.open().head.seq + 2)

    def refuse(point: FaultPoint) -> None:
        if point.operation == "put" and point.name.startswith("ledger-page/"):
            raise StorageError("refused")

    lab.store.fault = refuse
    record = lab.snapshot(source).record
    lab.store.fault = None
    assert lab.open().ledger.snapshots()[-1].seq == record.seq
    assert not list(lab.store.versions("ledger-page/"))
    lab.snapshot(source)
    assert list(lab.store.versions("ledger-page/"))


def test_it_is_told_as_soon_as_it_stands(
    lab: Lab, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if the run is interrupted in the next moment."""
    told: list[Record] = []

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Cache, "forget_unindexed", interrupt)
    with pytest.raises(KeyboardInterrupt):
        _take(lab, source, told.append)
    assert [record.seq for record in told] == [lab.open().ledger.snapshots()[-1].seq]


def _take(lab: Lab, source: Path, published: Callable[[Record], None]) -> SnapshotReport:
    with make_workers(2) as workers:
        return take_snapshot(
            lab.open(),
            lab.host.key,
            SnapshotRequest(paths=(source,), dataset="data", tool="t"),
            cache_dir=lab.host.cache,
            state_dir=lab.host.state,
            workers=workers,
            published=published,
        )


@pytest.mark.parametrize("phase", ["before", "after"])
def test_a_store_that_falls_silent_at_the_manifest_leaves_a_hint(
    lab: Lab, source: Path, phase: str
) -> None:
    """Whether it is there nobody knows: neither published nor failed is claimed."""

    def fall_silent(point: FaultPoint) -> None:
        if (point.operation, point.phase) == ("put", phase) and point.name.startswith("ledger/"):
            raise StorageUnavailableError("no answer")

    lab.store.fault = fall_silent
    with pytest.raises(VaultError) as caught:
        lab.snapshot(source)
    assert "is not known" in str(caught.value.hint)
    lab.store.fault = None
    assert len(lab.open().ledger.snapshots()) == (phase == "after")
