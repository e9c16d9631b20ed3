"""A repository whose root says ``extend: false``, on a store that refuses any extend."""

from datetime import timedelta

import pytest

from tests.support.lab import Clock, Lab, MakeRepository
from tests.support.trees import MakeSource
from vault.audit import audit_repository
from vault.machine.workers import make_workers
from vault.model import LockMode, Retention
from vault.repository.repository import Repository
from vault.storage.base import ObjectVersion
from vault.storage.memory import MemoryStore

KEPT = timedelta(days=30)


class Unextended(MemoryStore):
    """Nobody holds the right to change a lock; says what was stored."""

    stored = 0  # bytes of packs

    def extend(self, name: str, version: str, retention: Retention) -> object:  # type: ignore[override]
        """Never called."""
        raise AssertionError(f"{name} was to be extended")

    def put(self, name: str, data: object, **options: object) -> ObjectVersion:
        """As ever."""
        self.stored += len(data) if name.startswith("packs/") else 0  # type: ignore[arg-type]
        return super().put(name, data, **options)  # type: ignore[arg-type]


@pytest.fixture
def lab(make_repository: MakeRepository, clock: Clock) -> Lab:
    """Locks that hold, and are never extended."""
    store = Unextended(clock=clock)
    return make_repository(LockMode.COMPLIANCE, store=store, extend=False)


def require_locked(lab: Lab) -> None:
    """What is owed is there and locked for as long as promised, statements for their term."""
    repository = Repository.open(lab.store, lab.root, clock=lab.clock, tolerant=True)
    with make_workers(0) as workers:
        report = audit_repository(repository, workers=workers)
    assert [finding for finding in report.findings if finding.severity == "error"] == []


def test_a_year_of_weeks_is_locked_throughout(
    lab: Lab, clock: Clock, make_source: MakeSource
) -> None:
    """Packs are stored anew before their locks would fall short, some four times a year."""
    source = make_source(files=20)
    first = 0
    for week in range(53):
        (source / "changing").write_bytes(str(week).encode())
        record = lab.snapshot(source, retention=KEPT).record
        first = first or lab.store.stored
        require_locked(lab)
        clock.advance(days=7)
    assert lab.verify(record).passed
    assert 3 * first < lab.store.stored < 7 * first


def test_an_unchanged_snapshot_reuses_what_is_locked_long_enough(
    lab: Lab, clock: Clock, make_source: MakeSource
) -> None:
    """The control: within the spare 90 days nothing is stored twice."""
    source = make_source(files=20)
    lab.snapshot(source, retention=KEPT)
    first = lab.store.stored
    clock.advance(days=30)
    lab.snapshot(source, retention=KEPT)
    assert lab.store.stored < 1.5 * first


def test_two_years_of_statements_keep_their_locks(
    lab: Lab, clock: Clock, make_source: MakeSource
) -> None:
    """Older statements are stored once more, and stay one entry each."""
    source = make_source()
    for _ in range(26):
        lab.snapshot(source, retention=KEPT)
        clock.advance(days=30)
    lab.snapshot(source, retention=KEPT)
    require_locked(lab)
    repository = lab.open()
    assert len(repository.ledger.records) == repository.head.seq + 1
