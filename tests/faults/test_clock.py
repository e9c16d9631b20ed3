"""Time: a year of snapshots, runs that outlast their locks, clocks that differ (I2, I7, I8, I9)."""

import dataclasses
import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from cli.exits import exit_code_of
from tests.support.invariants import assert_invariants
from tests.support.lab import Clock, Lab, MakeRepository
from tests.support.trees import MakeSource, files_of
from vault.errors import ConfigError, LedgerMovedError, RetentionError, RollbackError
from vault.format import inventory
from vault.ledger import pages
from vault.ledger.records import Record
from vault.ledger.remembered import LedgerMemory
from vault.ledger.statements import HeartbeatBody
from vault.machine.workers import make_workers
from vault.model import LAST_LOCK, Digest, LockMode, ObjectRef, Retention
from vault.progress import Progress
from vault.repository.append_statements import Draft
from vault.repository.repository import Repository, domain_ref, snapshot_body
from vault.retention import prunable, reusable
from vault.snapshot import SnapshotReport, SnapshotRequest, take_snapshot
from vault.storage.memory import FaultPoint, MemoryStore

DAY = timedelta(days=1)
HOUR = timedelta(hours=1)
MONTH = 30 * 86_400  # seconds


class _Acting:
    """A `Progress` that does something when a stage begins."""

    def __init__(self, stage: str, *acts: Callable[[], object]) -> None:
        self._stage = stage
        self._acts = list(acts)

    def expect(self, *, files: int, size: int) -> None:
        """Nobody looks."""

    def advance(self, *, files: int = 0, size: int = 0) -> None:
        """Nobody looks."""

    def stage(self, name: str) -> None:
        """The next act, as often as the stage comes."""
        if name == self._stage and self._acts:
            self._acts.pop(0)()


def _take(
    lab: Lab,
    source: Path,
    *,
    repository: Repository | None = None,
    retention: timedelta | None = None,
    progress: Progress | None = None,
) -> SnapshotReport:
    request = SnapshotRequest(paths=(source,), dataset="data", tool="t", retention=retention)
    with make_workers(0) as workers:
        return take_snapshot(
            repository or lab.open(),
            lab.host.key,
            request,
            cache_dir=lab.host.cache,
            state_dir=lab.host.state,
            workers=workers,
            progress=progress or _Acting(""),
        )


def _packs(lab: Lab, seq: int = -1) -> set[ObjectRef]:
    repository = lab.open()
    objects = repository.inventory(repository.ledger.snapshots()[seq]).objects
    return {ref for ref in objects if ref.name.startswith("packs/")}


def _locked_until(store: MemoryStore, name: str, version: str) -> datetime:
    retention = store.status(name, version).retention
    assert retention is not None, f"{name} carries no lock"
    return retention.until


def _ends(lab: Lab, refs: set[ObjectRef]) -> list[datetime]:
    return sorted(_locked_until(lab.store, ref.name, ref.version) for ref in refs)


def _until(record: Record) -> datetime:
    return snapshot_body(record).until


# --- a year ---


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Snapshot:
    """What was promised, and all that the promise stands on except the ledger."""

    seq: int
    until: datetime
    needs: frozenset[tuple[str, str]]  # name, version


class _Year:
    """Takes a snapshot a day, and looks after each at every lock in the store."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.repository = lab.open()
        self.snapshots: list[_Snapshot] = []
        self.extends: list[Counter[str]] = []  # of each day, by object
        self.last_need: dict[tuple[str, str], datetime] = {}
        lab.store.fault = self._watch

    def _watch(self, point: FaultPoint) -> None:
        """Count extends; none is of a pack that counts as absent (I7)."""
        if point.operation != "extend" or point.phase != "before":
            return
        self.extends[-1][point.name] += 1
        if point.name.startswith("packs/"):
            (version,) = self.lab.store.versions(point.name)
            end = _locked_until(self.lab.store, point.name, version.version)
            assert reusable(end, self.lab.clock.now), f"{point.name} ran out at {end}"

    def take(self, source: Path) -> None:
        """One more day's snapshot."""
        self.extends.append(Counter())
        self.repository.refresh()
        record = _take(self.lab, source, repository=self.repository).record
        resolved = self.repository.inventory(record)
        writer = self.repository.ledger.writers[record.key_id]
        assert writer.domain is not None
        domain = domain_ref(writer.domain)
        assert domain in resolved.objects
        refs = {*resolved.objects, *resolved.bases, self.repository.inventory_ref(record)}
        needs = frozenset((ref.name, ref.version) for ref in refs)
        self.snapshots.append(_Snapshot(seq=record.seq, until=_until(record), needs=needs))
        for key in needs:
            self.last_need[key] = max(self.last_need.get(key, _until(record)), _until(record))

    @property
    def live(self) -> list[_Snapshot]:
        """Those whose promise has not run out."""
        return [each for each in self.snapshots if each.until > self.lab.clock.now]

    def check(self) -> None:
        """I2 for every live snapshot, and the term of every statement."""
        store = self.lab.store
        wanted = {
            key: self.last_need[key] for key in set().union(*(each.needs for each in self.live))
        }
        for (name, version), need in wanted.items():
            assert _locked_until(store, name, version) >= need, f"{name} on {self.lab.clock.now}"
        self._check_ledger()

    def _check_ledger(self) -> None:
        """A statement outlasts what stands on it, and half its term is always left."""
        records = self.repository.ledger.records
        half = self.lab.clock.now + self.repository.parameters.ledger_span / 2
        live = self.live
        for record, item in zip(records, self.lab.store.versions("ledger/"), strict=True):
            need = max((each.until for each in live if each.seq >= record.seq), default=half)
            end = _locked_until(self.lab.store, item.name, item.version)
            if record.seq == len(records) - 2:  # whoever appended the last one saw to it
                need = max(need, self.lab.clock.now + self.repository.parameters.ledger_span)
            assert end >= max(need, half), f"{item.name} on {self.lab.clock.now}"

    def dead(self) -> Iterator[tuple[str, str]]:
        """Packs and inventories that no live snapshot needs."""
        needed = set().union(*(each.needs for each in self.live))
        for prefix in ("packs/", "inventory/"):
            for item in self.lab.store.versions(prefix):
                if (item.name, item.version) not in needed:
                    yield item.name, item.version

    def check_dead(self) -> int:
        """Nothing dead is locked for longer than one period past its last use; how many ran out."""
        grid = timedelta(seconds=self.repository.parameters.lock_grid)
        over = 0
        for name, version in self.dead():
            end = _locked_until(self.lab.store, name, version)
            assert end < self.last_need[name, version] + grid, name
            over += end <= self.lab.clock.now
        return over

    def reap(self) -> int:
        """Delete what may be: the store refuses where a lock is in force."""
        gone = 0
        for name, version in list(self.dead()):
            if prunable(_locked_until(self.lab.store, name, version), self.lab.clock.now):
                self.lab.store.delete(name, version)
                gone += 1
        return gone

    def most_pack_extends(self, days: int) -> int:
        """The most often that one pack was extended within so many days."""
        most = 0
        for start in range(max(1, len(self.extends) - days + 1)):
            total: Counter[str] = Counter()
            for count in self.extends[start : start + days]:
                total.update(count)
            packs = (number for name, number in total.items() if name.startswith("packs/"))
            most = max(most, *packs)
        return most


SMALL_FILES = 20


def _live_on(source: Path, day: int) -> None:
    """One small file changes; its content comes back after 80 days, when its pack is dead."""
    number, turn = day % SMALL_FILES, day // SMALL_FILES
    seed = number * 4 + turn % 4
    (source / f"small{number}").write_bytes(random.Random(seed).randbytes(3_000))


def _year_of(
    make_repository: MakeRepository,
    make_source: MakeSource,
    monkeypatch: pytest.MonkeyPatch,
    lock: LockMode,
) -> tuple[_Year, Path]:
    """The longest retention is 30 days, so the ledger term of 120 days matters within a year."""
    monkeypatch.setattr(inventory, "DELTA_FROM", 0)  # chains of bases, though packs are few
    lab = make_repository(lock, max_retention=MONTH)
    source = make_source(files=8)
    for day in range(SMALL_FILES):
        _live_on(source, day)
    return _Year(lab), source


def test_on_every_day_of_a_year_everything_live_is_locked_and_everything_dead_runs_out(
    make_repository: MakeRepository,
    make_source: MakeSource,
    monkeypatch: pytest.MonkeyPatch,
    clock: Clock,
) -> None:
    """I2 over 400 daily snapshots that keep for 30 days, by at most 40 extends a pack a year."""
    year, source = _year_of(make_repository, make_source, monkeypatch, LockMode.GOVERNANCE)
    quarter = year.repository.parameters.ledger_span / 4
    born: dict[str, int] = {}  # the day of each inventory
    ages: list[int] = []  # of the oldest that a snapshot builds on, in days
    for day in range(400):
        _live_on(source, day)
        year.take(source)
        year.check()
        last = year.snapshots[-1]
        chain = [name for name, _ in last.needs if name.startswith("inventory/")]
        ages.append(max(day - born.setdefault(name, day) for name in chain))
        statements = 2 + last.seq // (quarter // DAY)
        assert year.extends[-1].total() <= len(last.needs) + statements
        if day % 10 == 9:
            over = year.check_dead()
        clock.advance(days=1)
    figures = {
        "extends of one pack in a year, at most": year.most_pack_extends(365),
        "extends of a snapshot, at most": max(each.total() for each in year.extends),
        "extends of a snapshot, on average": sum(map(Counter.total, year.extends)) / 400,
        "packs of the last snapshot": len(_packs(year.lab)),
        "dead objects that ran out": over,
        "oldest base of an inventory, in days": max(ages),
    }
    print(figures)  # `pytest -rP` shows it
    assert 30 <= year.most_pack_extends(365) <= 40
    assert over > 300
    assert max(ages) > 10, "no base was ever older than the longest lock beyond `until`"
    year.lab.store.fault = None
    assert assert_invariants(year.lab.store, year.lab.root) == 400


def test_what_compliance_locks_let_go_of_is_missed_by_nobody(
    make_repository: MakeRepository,
    make_source: MakeSource,
    monkeypatch: pytest.MonkeyPatch,
    clock: Clock,
) -> None:
    """Deleting all that ran out, every day, leaves every live snapshot whole (I2, I7)."""
    year, source = _year_of(make_repository, make_source, monkeypatch, LockMode.COMPLIANCE)
    gone = 0
    for day in range(120):
        _live_on(source, day)
        year.take(source)
        year.check()
        clock.advance(days=1)
        gone += year.reap()
    assert gone > 50
    year.lab.store.fault = None
    live = [year.repository.ledger.records[each.seq] for each in year.live]
    assert len(live) == 30
    assert year.lab.verify(*live).verdict == "passed"


def _copied(lab: Lab, *, locks: bool = True) -> Lab:
    """The same objects in another bucket, where every version has another id."""
    copy = MemoryStore(clock=lab.clock)
    copy.put("probe/first", b"", sha256=Digest.of(b""))
    for item in lab.store.versions(""):
        data = lab.store.get(item.name, item.version)
        retention = lab.store.status(item.name, item.version).retention if locks else None
        copy.put(item.name, data, sha256=Digest.of(data), retention=retention)
    copy.remove("probe/first", next(copy.versions("probe/")).version)
    return lab.with_store(copy)


def test_statements_that_pages_of_a_copied_bucket_tell_of_are_locked_where_they_are(
    make_repository: MakeRepository,
    make_source: MakeSource,
    monkeypatch: pytest.MonkeyPatch,
    clock: Clock,
) -> None:
    """The list shows them, and a host refuses to append after one that is gone."""
    monkeypatch.setattr(pages, "PAGE_LENGTH", 4)
    lab = make_repository(LockMode.GOVERNANCE)
    source = make_source()
    for _ in range(8):
        _take(lab, source)
    copied = _copied(lab)
    clock.advance(days=431)
    _take(copied, source)
    items = list(copied.store.versions("ledger/"))
    half = clock.now + 430 * DAY
    assert all(_locked_until(copied.store, item.name, item.version) >= half for item in items)
    clock.advance(days=216)
    copied.store.remove(items[1].name, items[1].version)
    with pytest.raises(RollbackError, match=r"statement 2 .* does not follow"):
        _take(copied, source)


def test_statements_that_were_copied_without_their_locks_are_locked_by_the_next_append(
    make_repository: MakeRepository,
    make_source: MakeSource,
    monkeypatch: pytest.MonkeyPatch,
    clock: Clock,
) -> None:
    """All of them, the first time somebody builds on them (I2); later ones leave them alone."""
    lab = make_repository(LockMode.GOVERNANCE)
    source = make_source()
    for _ in range(3):
        _take(lab, source)
    clock.advance(days=3)
    copied = _copied(lab, locks=False)
    clock.advance(days=3)
    record = _take(copied, source).record
    term = 860 * DAY
    items = list(copied.store.versions("ledger/"))
    assert len(items) == record.seq + 1
    for item in items:
        assert _locked_until(copied.store, item.name, item.version) >= clock.now + term
    extended: list[str] = []
    extend = copied.store.extend

    def counted(name: str, version: str, retention: Retention) -> datetime:
        extended.append(name)
        end: datetime = extend(name, version, retention)
        return end

    monkeypatch.setattr(copied.store, "extend", counted)
    _take(copied, source)
    assert [name for name in extended if name.startswith("ledger/")] == [items[-1].name]


def test_a_remembered_ledger_does_not_hide_that_the_bucket_was_copied(
    make_repository: MakeRepository,
    make_source: MakeSource,
    tmp_path: Path,
    clock: Clock,
) -> None:
    """The version ids in it are those of the first bucket, and so would seem to be right."""
    lab = make_repository(LockMode.GOVERNANCE)
    source = make_source()
    for _ in range(3):
        _take(lab, source)
    memory = LedgerMemory(tmp_path / "memory")
    known = lab.open()
    memory.remember(lab.root, known.ledger, known.findings, until=known.head)
    copied = _copied(lab, locks=False)
    remembered = memory.recall(lab.root)
    assert remembered is not None
    repository = Repository.open(copied.store, lab.root, clock=clock, remembered=remembered)
    body = HeartbeatBody(note="here")
    draft = Draft(type="heartbeat", subject=[("repository", lab.root)], body=body)
    repository.append(lambda _: draft, [lab.host.key.signing], tool="test")
    for item in copied.store.versions("ledger/"):
        assert _locked_until(copied.store, item.name, item.version) >= clock.now + 860 * DAY


# --- runs that last long ---


@pytest.fixture
def lab(make_repository: MakeRepository) -> Lab:
    """Locks end on days, so that all of a run's run out together; retention 7 to 400 days."""
    return make_repository(LockMode.GOVERNANCE, lock_grid=86_400)


@contextmanager
def _at(
    lab: Lab,
    operation: str,
    prefix: str,
    act: Callable[[], object],
    *,
    times: int = 1,
    armed: Callable[[], object] = lambda: True,
) -> Iterator[list[str]]:
    """Acts after calls of the store, so many times once armed; gives the objects' names."""
    met: list[str] = []

    def fault(point: FaultPoint) -> None:
        is_due = point.operation == operation and point.name.startswith(prefix)
        if is_due and point.phase == "after" and len(met) < times and armed():
            met.append(point.name)
            act()

    lab.store.fault = fault
    try:
        yield met
    finally:
        lab.store.fault = None


@pytest.mark.parametrize("hours", [1, 30, 24 * 9])
@pytest.mark.parametrize("retention", [7 * DAY, 30 * DAY])
def test_a_run_of_any_length_gives_the_full_retention_from_when_it_publishes(
    *,
    lab: Lab,
    clock: Clock,
    make_source: MakeSource,
    hours: int,
    retention: timedelta,
) -> None:
    """Even one that outlasts the shortest lock: `until` moves on, and all needs with it (I2)."""
    source = make_source()
    started = clock.now
    with _at(lab, "put", "packs/", lambda: clock.advance(hours=hours)) as met:
        record = _take(lab, source, retention=retention).record
    assert len(met) == 1
    published = started + hours * HOUR
    assert _until(record) == max(started + DAY, published) + retention
    assert _ends(lab, _packs(lab))[0] >= _until(record)
    assert assert_invariants(lab.store, lab.root) == 1
    assert lab.contents(record) == files_of(source)


def test_a_run_may_outlast_every_lock_that_it_set_itself(
    lab: Lab,
    clock: Clock,
    make_source: MakeSource,
) -> None:
    """Three days a pack: the first ones ran out, and are stored anew by the second attempt."""
    source = make_source()
    with _at(lab, "put", "packs/", lambda: clock.advance(days=4), times=5) as met:
        record = _take(lab, source, retention=7 * DAY).record
    assert len(met) == 5
    assert not {ref.name for ref in _packs(lab)} & set(met[:1])
    assert _until(record) == clock.now + 7 * DAY
    assert assert_invariants(lab.store, lab.root) == 1
    assert lab.contents(record) == files_of(source)


@pytest.mark.parametrize("days", [5, 10, 30])
@pytest.mark.parametrize(
    ("operation", "prefix"),
    [
        ("put", "index/"),
        ("extend", "packs/"),
        ("get", "inventory/"),
        ("put", "inventory/"),
        ("extend", "domains/"),
        ("now", ""),
    ],
)
def test_a_host_suspended_while_it_publishes_locks_everything_again(
    *,
    lab: Lab,
    clock: Clock,
    make_source: MakeSource,
    operation: str,
    prefix: str,
    days: int,
) -> None:
    """What was to be promised then is too little now: nothing is born half expired (I2)."""
    source = make_source()
    _take(lab, source, retention=7 * DAY)
    clock.advance(days=4)
    (source / "new").write_bytes(b"new" * 1000)
    armed: list[bool] = []
    publishing = _Acting("publishing", lambda: armed.append(True))
    with _at(lab, operation, prefix, lambda: clock.advance(days=days), armed=lambda: armed) as met:
        record = _take(lab, source, retention=7 * DAY, progress=publishing).record
    assert met
    assert _until(record) + DAY >= clock.now + 7 * DAY
    assert assert_invariants(lab.store, lab.root) == 2
    assert lab.verify(record).verdict == "passed"


def test_a_run_killed_right_after_its_manifest_leaves_the_ledger_locked_for_it(
    lab: Lab, clock: Clock, make_source: MakeSource
) -> None:
    """I2 holds from the moment of publishing, statements of 500 days ago included."""
    source = make_source()
    _take(lab, source)
    clock.advance(days=500)

    def die() -> None:
        raise KeyboardInterrupt

    with _at(lab, "put", "ledger/", die), pytest.raises(KeyboardInterrupt):
        _take(lab, source, retention=400 * DAY)
    assert assert_invariants(lab.store, lab.root) == 2


@pytest.mark.parametrize("minutes", [6, -6])
def test_the_clocks_are_compared_again_at_the_end_of_a_long_run(
    lab: Lab,
    clock: Clock,
    make_source: MakeSource,
    minutes: int,
) -> None:
    """I9: days later they may differ, and nothing is published."""
    source = make_source()

    def drift() -> None:
        clock.advance(days=3)
        lab.store._clock = lambda: clock.now + timedelta(minutes=minutes)

    with _at(lab, "put", "packs/", drift), pytest.raises(ConfigError, match="clock"):
        _take(lab, source)
    assert assert_invariants(lab.store, lab.root) == 0
    lab.store._clock = clock
    _take(lab, source)
    assert assert_invariants(lab.store, lab.root) == 1


# --- suspended between look-up and publish ---


def _almost_over(lab: Lab, clock: Clock, source: Path) -> set[ObjectRef]:
    """Packs of a snapshot of seven days, an hour before the first of them runs out."""
    _take(lab, source, retention=7 * DAY)
    packs = _packs(lab)
    clock.now = _ends(lab, packs)[0] - HOUR
    return packs


def _prune(lab: Lab, clock: Clock, refs: set[ObjectRef]) -> int:
    """Delete by the store's own rules what ran out long enough ago."""
    over = [
        ref
        for ref in sorted(refs)
        if prunable(_locked_until(lab.store, ref.name, ref.version), clock.now)
    ]
    for ref in over:
        lab.store.delete(ref.name, ref.version)
    return len(over)


@pytest.mark.parametrize("pruned", [False, True])
@pytest.mark.parametrize("known", ["by itself", "by an index"])
def test_packs_that_ran_out_while_the_host_was_suspended_are_absent(
    *,
    lab: Lab,
    clock: Clock,
    make_source: MakeSource,
    caplog: pytest.LogCaptureFixture,
    pruned: bool,
    known: str,
) -> None:
    """Ten days between look-up and publish: the run starts again, and needs none of them (I7)."""
    source = make_source()
    old = _almost_over(lab, clock, source)
    if known == "by an index":
        lab = lab.with_host(lab.enrol("second", domain="default"))

    def suspend() -> None:
        clock.advance(days=10)
        assert not pruned or _prune(lab, clock, old) == len(old)

    record = _take(lab, source, progress=_Acting("publishing", suspend)).record
    assert caplog.text.count("are gone") == 1
    assert not old & _packs(lab)
    assert _until(record) == clock.now + 30 * DAY
    assert lab.verify(record).verdict == "passed"
    assert lab.contents(record) == files_of(source)
    if not pruned:
        assert assert_invariants(lab.store, lab.root) == 2


def test_packs_that_ran_out_less_than_five_days_ago_are_extended_and_kept(
    lab: Lab, clock: Clock, make_source: MakeSource
) -> None:
    """A host suspended for four days needs no second attempt (I7)."""
    source = make_source()
    old = _almost_over(lab, clock, source)
    report = _take(lab, source, progress=_Acting("publishing", lambda: clock.advance(days=4)))
    assert report.packs == 0
    assert _packs(lab) == old
    assert assert_invariants(lab.store, lab.root) == 2


def test_a_host_that_is_suspended_again_in_its_second_attempt_gives_up(
    lab: Lab,
    clock: Clock,
    make_source: MakeSource,
) -> None:
    """Twice is no accident: exit 11, nothing published, and the next run is right."""
    source = make_source()
    _almost_over(lab, clock, source)
    acting = _Acting("publishing", *[lambda: clock.advance(days=50)] * 2)
    with pytest.raises(LedgerMovedError, match="vanished") as caught:
        _take(lab, source, progress=acting)
    assert exit_code_of(caught.value) == 11
    assert len(lab.open().ledger.snapshots()) == 1
    record = _take(lab, source).record
    assert lab.contents(record) == files_of(source)
    assert assert_invariants(lab.store, lab.root) == 2


# --- limits ---


@pytest.mark.parametrize("days", [0, 1, 6.9])
def test_a_retention_under_the_minimum_is_locked_at_the_minimum(
    lab: Lab,
    clock: Clock,
    make_source: MakeSource,
    days: float,
) -> None:
    """Design.md 6: less is asked for, the minimum lock is what the manifest says."""
    record = _take(lab, make_source(), retention=timedelta(days=days)).record
    assert _until(record) == clock.now + 8 * DAY
    assert _ends(lab, _packs(lab))[0] >= clock.now + 8 * DAY
    assert assert_invariants(lab.store, lab.root) == 1


def test_a_retention_over_the_maximum_exits_2_and_stores_nothing(
    lab: Lab, make_source: MakeSource
) -> None:
    """The maximum itself is fine; a second more is refused before anything is written."""
    source = make_source()
    most = timedelta(seconds=lab.open().parameters.max_retention)
    before = list(lab.store.versions(""))
    with pytest.raises(ConfigError, match="maximum") as caught:
        _take(lab, source, retention=most + timedelta(seconds=1))
    assert exit_code_of(caught.value) == 2
    assert list(lab.store.versions("")) == before
    record = _take(lab, source, retention=most).record
    assert _until(record) == lab.clock.now + most + DAY


def test_no_lock_ends_later_than_the_last_date_that_every_store_keeps(
    make_repository: MakeRepository,
    clock: Clock,
    make_source: MakeSource,
) -> None:
    """I8: where the grid goes past 2100 locks are cut, and a promise beyond it is refused."""
    clock.now = LAST_LOCK - 125 * DAY
    lab = make_repository(LockMode.GOVERNANCE, lock_grid=300 * 86_400, max_retention=MONTH)
    source = make_source()
    record = _take(lab, source).record
    ends = [_locked_until(lab.store, item.name, item.version) for item in lab.store.versions("")]
    assert max(ends) == LAST_LOCK
    assert sum(end == LAST_LOCK for end in ends) >= 3
    assert assert_invariants(lab.store, lab.root) == 1
    clock.now = LAST_LOCK - 20 * DAY
    before = list(lab.store.versions(""))
    with pytest.raises(RetentionError, match="later than any lock") as caught:
        _take(lab, source)
    assert exit_code_of(caught.value) == 5
    assert list(lab.store.versions("")) == before
    assert lab.verify(record).verdict == "passed"


# --- clocks that differ ---


def _with_clock(lab: Lab, *, minutes: int) -> Repository:
    """Opened by a host whose clock is off."""
    clock = lab.clock
    return Repository.open(
        lab.store,
        lab.root,
        clock=lambda: clock() + timedelta(minutes=minutes),
        pause=lambda _: None,
    )


@pytest.mark.parametrize("minutes", [4, -4])
def test_a_host_whose_clock_is_four_minutes_off_works_beside_one_that_is_right(
    *,
    lab: Lab,
    clock: Clock,
    make_source: MakeSource,
    minutes: int,
) -> None:
    """I9: both reuse and extend the same packs, and I2 holds by either clock."""
    source = make_source()
    other = lab.with_host(lab.enrol("second", domain="default"))
    for turn in range(8):
        (source / "small").write_bytes(b"%d" % turn * 1000)
        if turn % 2:
            record = _take(other, source, repository=_with_clock(lab, minutes=minutes)).record
        else:
            record = _take(lab, source).record
        assert assert_invariants(lab.store, lab.root) == turn + 1
        clock.advance(days=5)
    assert lab.contents(record) == files_of(source)


@pytest.mark.parametrize("minutes", [5, -5])
def test_the_ledger_term_counts_from_the_store_s_time(
    *,
    make_repository: MakeRepository,
    make_source: MakeSource,
    minutes: int,
) -> None:
    """I2: also what a host stores whose clock is behind; here the grid rounds nothing up."""
    lab = make_repository(LockMode.COMPLIANCE, lock_grid=1)
    _take(lab, make_source(), repository=_with_clock(lab, minutes=minutes))
    assert assert_invariants(lab.store, lab.root) == 1


@pytest.mark.parametrize("minutes", [6, -6])
def test_a_host_whose_clock_is_six_minutes_off_stores_nothing(
    lab: Lab, make_source: MakeSource, minutes: int
) -> None:
    """I9: refused at its start, while the other host goes on."""
    source = make_source()
    other = lab.with_host(lab.enrol("second", domain="default"))
    _take(lab, source)
    before = list(lab.store.versions(""))
    with pytest.raises(ConfigError, match="clock") as caught:
        _take(other, source, repository=_with_clock(lab, minutes=minutes))
    assert exit_code_of(caught.value) == 2
    assert list(lab.store.versions("")) == before
    _take(lab, source)
