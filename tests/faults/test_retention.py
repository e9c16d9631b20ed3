"""Locks of reused packs over months, and packs that are going or gone (I2, I4, I7, I9)."""

import json
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from tests.support.invariants import assert_invariants
from tests.support.lab import Clock, Lab, MakeRepository
from tests.support.trees import MakeSource
from vault.encoding import dumps
from vault.errors import (
    ConfigError,
    LedgerMovedError,
    MissingObjectError,
    SignatureError,
    StorageError,
    StorageUnavailableError,
    WrongKeyError,
)
from vault.format import inventory
from vault.ledger.envelope import build_statement, seal_envelope
from vault.ledger.records import Status
from vault.ledger.statements import PruneBody
from vault.model import Digest, LockMode, ObjectRef, Retention, Severity
from vault.repository.append_statements import Draft
from vault.repository.domain_packs import index_objects
from vault.repository.enrolment import revoke_writer
from vault.repository.hosts import find_writer
from vault.repository.objects import MAX_EVIDENCE
from vault.repository.repository import snapshot_body
from vault.storage.memory import FaultPoint
from vault.storage.names import ledger_name

DAY = timedelta(days=1)


@pytest.fixture
def lab(make_repository: MakeRepository) -> Lab:
    """A repository with governance locks: grid 10 days, retention 30 days."""
    return make_repository(LockMode.GOVERNANCE)


def _packs(lab: Lab, seq: int = -1) -> list[ObjectRef]:
    """Packs that a snapshot (by position) needs."""
    repository = lab.open()
    objects = repository.inventory(repository.ledger.snapshots()[seq]).objects
    return [ref for ref in objects if ref.name.startswith("packs/")]


def _until(lab: Lab, ref: ObjectRef) -> datetime:
    retention = lab.store.status(ref.name, ref.version).retention
    assert isinstance(retention, Retention)
    return retention.until


def _changed_source(top: Path, number: int) -> None:
    (top / "dir0/file0").write_bytes(b"%d" % number * 9000)


def _plan(lab: Lab, refs: list[ObjectRef]) -> Digest:
    """Announce the deletion of objects, as prune does, without deleting them."""
    repository = lab.open()
    digest = repository.put_evidence(inventory.encode(refs))
    draft = Draft(
        type="prune",
        subject=[(f"evidence/{digest}", digest)],
        body=PruneBody(phase="plan", plan=str(digest)),
    )
    repository.append(lambda _: draft, [lab.root_key.pruner], tool="vault test")
    return digest


def _drop(lab: Lab, refs: list[ObjectRef]) -> None:
    for ref in refs:
        lab.store.remove(ref.name, ref.version)


# --- locks over time ---


def test_locks_cover_every_live_snapshot_on_each_of_sixty_days(
    lab: Lab, clock: Clock, make_source: MakeSource
) -> None:
    """I2 holds every day, for packs that are reused from the first day on as well."""
    source = make_source()
    extended: list[str] = []

    def note(point: FaultPoint) -> None:
        if point.operation == "extend" and point.phase == "after":
            extended.append(point.name)

    lab.store.fault = note
    for day in range(60):
        if day % 7 == 3:
            _changed_source(source, day)
        lab.snapshot(source)
        assert assert_invariants(lab.store, lab.root) == day + 1
        clock.advance(days=1)
    packs = {ref.name for ref in _packs(lab)}
    often = max(extended.count(name) for name in packs)
    assert 5 <= often <= 7, "a reused pack moves about once per grid period of ten days"


def test_a_pack_that_no_new_snapshot_needs_is_not_extended(
    lab: Lab, clock: Clock, make_source: MakeSource
) -> None:
    """Dead data runs out: what nobody reuses keeps the date of its last use."""
    source = make_source()
    lab.snapshot(source)
    old = {ref: _until(lab, ref) for ref in _packs(lab)}
    for file in (path for path in source.rglob("file*") if path.is_file()):
        file.write_bytes(file.name.encode() * 2000)
    clock.advance(days=15)
    lab.snapshot(source)
    dead = set(old) - set(_packs(lab))
    assert dead
    assert all(_until(lab, ref) == old[ref] for ref in dead)


def test_every_lock_lies_on_the_grid_with_the_phase_of_its_object(
    lab: Lab, clock: Clock, make_source: MakeSource
) -> None:
    """I8: dates of one object differ by whole periods, so an extend a day is not needed."""
    source = make_source()
    for _ in range(3):
        lab.snapshot(source)
        clock.advance(days=9)
    for item in lab.store.versions(""):
        digest = Digest.of(lab.store.get(item.name, item.version))
        retention = lab.store.status(item.name, item.version).retention
        seconds = int(retention.until.timestamp())
        assert (seconds - int.from_bytes(digest[:8], "big")) % 864_000 == 0, item.name


def test_locked_until_is_asked_of_the_store_where_only_an_index_knows_the_pack(
    lab: Lab, clock: Clock, make_source: MakeSource
) -> None:
    """A second host of the domain extends packs that it has never stored (I2)."""
    source = make_source()
    lab.snapshot(source, retention=7 * DAY)
    other = lab.with_host(lab.enrol("second", domain="default"))
    clock.advance(days=5)
    report = other.snapshot(source, dataset="other")
    assert report.packs <= 2  # the tree alone: another dataset has another commitment key
    assert report.reused_packs >= 3
    assert assert_invariants(lab.store, lab.root) == 2
    assert lab.verify().verdict == "passed"


def test_a_long_run_gives_the_full_retention_from_when_it_is_published(
    lab: Lab, clock: Clock, make_source: MakeSource
) -> None:
    """Packs stored at the start of a run of three days are locked again before publishing."""
    source = make_source()

    def slow(point: FaultPoint) -> None:
        if point.operation == "put" and point.phase == "after" and point.name.startswith("packs/"):
            clock.advance(hours=24)

    lab.store.fault = slow
    record = lab.snapshot(source).record
    lab.store.fault = None
    assert snapshot_body(record).until >= clock.now + 30 * DAY
    assert assert_invariants(lab.store, lab.root) == 1


def test_the_domain_object_is_locked_as_long_as_the_newest_snapshot(
    lab: Lab, clock: Clock, make_source: MakeSource
) -> None:
    """Its own term of 860 days ends long before a repository does."""
    source = make_source()
    lab.snapshot(source)
    clock.advance(days=850)
    lab.snapshot(source)
    assert assert_invariants(lab.store, lab.root) == 2


# --- packs that ran out, or are gone ---


@pytest.mark.parametrize("days", [4.9, 5.1])
def test_a_pack_is_reused_until_five_days_after_its_lock_and_stored_anew_later(
    lab: Lab,
    clock: Clock,
    make_source: MakeSource,
    days: float,
) -> None:
    """I7: pruning may begin after seven days; the two between are for slow runs."""
    source = make_source()
    lab.snapshot(source, retention=7 * DAY)
    old = _packs(lab)
    reused = days < 5
    edge = (min if reused else max)(_until(lab, ref) for ref in old)
    clock.now = edge + timedelta(days=days)
    report = lab.snapshot(source)
    assert (report.packs == 0) is reused
    assert bool(set(old) & set(_packs(lab))) is reused
    assert assert_invariants(lab.store, lab.root) == 2


def test_the_lock_an_index_knows_nothing_of_is_looked_up_before_the_pack_is_reused(
    lab: Lab, clock: Clock, make_source: MakeSource
) -> None:
    """With the cache lost, packs that ran out are told by the store, and the run starts again."""
    source = make_source()
    lab.snapshot(source, retention=7 * DAY)
    old = _packs(lab)
    clock.now = max(_until(lab, ref) for ref in old) + 6 * DAY
    fresh = lab.with_host(lab.enrol("second", domain="default"))
    fresh.snapshot(source, dataset="other")
    assert not set(old) & set(_packs(lab))
    assert assert_invariants(lab.store, lab.root) == 2


@pytest.mark.parametrize("lock", [LockMode.NONE, LockMode.GOVERNANCE])
def test_a_pack_that_was_deleted_is_stored_anew(
    make_repository: MakeRepository,
    clock: Clock,
    make_source: MakeSource,
    lock: LockMode,
) -> None:
    """404 means absent: the run drops it from the map and starts again from the walk (I7)."""
    lab = make_repository(lock)
    source = make_source()
    lab.snapshot(source)
    gone = _packs(lab)[:1]
    _drop(lab, gone)
    clock.advance(days=20)
    record = lab.snapshot(source).record
    assert gone[0] not in _packs(lab)
    assert lab.verify(record).verdict == "passed"


@pytest.mark.parametrize("lock", [LockMode.NONE, LockMode.GOVERNANCE])
def test_packs_that_go_twice_end_the_run(
    make_repository: MakeRepository,
    clock: Clock,
    make_source: MakeSource,
    lock: LockMode,
) -> None:
    """Once is a race, twice is a store to look at: exit 11, and nothing is published."""
    lab = make_repository(lock)
    source = make_source()
    lab.snapshot(source)
    left = _packs(lab)
    clock.advance(days=20)
    armed = [True]

    def thief(point: FaultPoint) -> None:
        """Takes a pack at the last moment, once an attempt; the second is a month later."""
        if point.operation == "put" and not armed[0]:
            armed[0] = True
            clock.advance(days=20)
        looked_at = point.name.startswith("packs/") and point.operation in ("extend", "versions")
        if looked_at and point.phase == "before" and armed[0]:
            armed[0] = False
            wanted = [ref for ref in left if point.name in (ref.name, "packs/")]
            left.remove(wanted[0])
            _drop(lab, wanted[:1])

    lab.store.fault = thief
    with pytest.raises(LedgerMovedError, match="vanished"):
        lab.snapshot(source)
    lab.store.fault = None
    assert len(left) == 2
    assert len(lab.open().ledger.snapshots()) == 1
    record = lab.snapshot(source).record
    assert lab.verify(record).verdict == "passed"


# --- prune plans ---


@pytest.mark.parametrize("lock", [LockMode.NONE, LockMode.GOVERNANCE])
def test_a_pack_that_a_prune_plan_names_is_absent_to_writers(
    make_repository: MakeRepository,
    clock: Clock,
    make_source: MakeSource,
    lock: LockMode,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """I4: whatever the plan's age, and whether or not the pack is still there."""
    lab = make_repository(lock)
    source = make_source()
    lab.snapshot(source)
    doomed = _packs(lab)[:2]
    _plan(lab, doomed)
    clock.advance(days=300 if lock is LockMode.NONE else 1)
    for _ in range(2):
        lab.snapshot(source)
        assert not set(doomed) & set(_packs(lab))
    assert "are gone" not in caplog.text, "known at the start, not found out at the end"


def _append_before_manifest(lab: Lab, act: Callable[[], object]) -> Callable[[FaultPoint], None]:
    """Acts once, when the run has stored its inventory and is about to append."""
    done: list[bool] = []

    def fault(point: FaultPoint) -> None:
        is_due = point.operation == "put" and point.name.startswith("inventory/")
        if is_due and point.phase == "after" and not done:
            done.append(True)
            act()

    return fault


def test_a_plan_that_is_appended_while_the_run_goes_on_makes_it_start_again(
    lab: Lab, make_source: MakeSource
) -> None:
    """The last look is at the very head that the manifest extends (I4)."""
    source = make_source()
    lab.snapshot(source)
    doomed = _packs(lab)
    lab.store.fault = _append_before_manifest(lab, lambda: _plan(lab, doomed))
    lab.snapshot(source)
    assert not set(doomed) & set(_packs(lab))
    assert assert_invariants(lab.store, lab.root) == 2


@pytest.mark.parametrize("lock", [LockMode.NONE, LockMode.GOVERNANCE])
def test_a_plan_of_everything_stops_no_host(
    make_repository: MakeRepository, make_source: MakeSource, lock: LockMode
) -> None:
    """A stolen pruner's key dooms packs, inventories, index and the domain's keys: all anew."""
    lab = make_repository(lock)
    source = make_source(files=3)
    before = lab.snapshot(source).record
    prefixes = ("packs/", "inventory/", "index/", "domains/")
    everything = [each for prefix in prefixes for each in _refs(lab, prefix)]
    for _ in range(2):
        _plan_refs(lab, everything)
        record = lab.snapshot(source).record
        repository = lab.open()
        needed = {(ref.name, ref.version) for ref in repository.inventory(record).objects}
        assert not needed & {(ref.name, ref.version) for ref in everything}
        assert lab.verify(record).verdict == "passed"
        everything += [each for prefix in prefixes for each in _refs(lab, prefix)]
    assert lab.verify(before).verdict == "passed"


def test_a_plan_that_dooms_much_names_its_key(lab: Lab, make_source: MakeSource) -> None:
    """An honest plan names nothing that the newest snapshot needs."""
    lab.snapshot(make_source(files=3))
    assert lab.open().heavy_plans() == []
    seq = _plan_refs(lab, _refs(lab, "packs/"))
    (finding,) = lab.open().heavy_plans()
    assert (finding.subject, finding.severity) == (f"ledger {seq}", Severity.ERROR)
    assert lab.root_key.pruner.public.id in finding.found


def test_a_void_plan_of_a_pruner_dooms_too(lab: Lab, make_source: MakeSource) -> None:
    """It permits no deletion, but its signer may have the rights; of a writer it is nothing."""
    source = make_source(files=3)
    lab.snapshot(source)
    doomed = _packs(lab)
    refs = _refs(lab, "packs/")
    for signer, dooms in ((lab.host.key.signing, False), (lab.root_key.pruner, True)):
        repository = lab.open()
        digest = repository.put_evidence(inventory.encode(refs))
        payload = build_statement(
            type="prune",
            repository=repository.ledger.repository_id,
            seq=repository.head.seq + 1,
            prev=repository.head,
            time=lab.clock(),
            tool="t",
            subject=[],
            body=PruneBody(phase="plan", plan=str(digest)),
            by=[signer.public.id],
        )
        fields = json.loads(payload)
        fields["predicate"]["warrant"] = {"seq": 1}  # which nothing judges: void
        envelope = seal_envelope(dumps(fields), [signer])
        name = ledger_name(repository.head.seq + 1)
        lab.store.put(name, envelope, sha256=Digest.of(envelope))
        assert lab.open().ledger.records[-1].status is Status.VOID
        assert bool(lab.open().plans.doomed()) is dooms
    lab.snapshot(source)
    assert not set(doomed) & set(_packs(lab))


def test_what_a_plan_spares_is_not_doomed(lab: Lab, make_source: MakeSource) -> None:
    """A list of the same form, as evidence of its own."""
    lab.snapshot(make_source(files=3))
    refs = _refs(lab, "packs/")
    spared = lab.open().put_evidence(inventory.encode(refs[:1]))
    _plan_refs(lab, refs, spared=str(spared))
    assert lab.open().plans.doomed() == {(ref.name, ref.version) for ref in refs[1:]}


def _refs(lab: Lab, prefix: str) -> list[ObjectRef]:
    """All that the store has under a prefix."""
    return [
        ObjectRef(
            name=each.name,
            sha256=Digest.of(lab.store.get(each.name, each.version)),
            size=each.size,
            version=each.version,
        )
        for each in lab.store.versions(prefix)
    ]


def _plan_refs(lab: Lab, refs: Sequence[ObjectRef], spared: str = "") -> int:
    """The pruner announces to delete these; the number of the plan."""
    repository = lab.open()
    named = {ref.name: ref for ref in refs}
    digest = repository.put_evidence(inventory.encode(sorted(named.values())))
    body = PruneBody(phase="plan", plan=str(digest), spared=spared)
    draft = Draft(type="prune", subject=[(f"evidence/{digest}", digest)], body=body)
    return repository.append(lambda _: draft, [lab.root_key.pruner], tool="vault test").seq


# --- plans that can't be read ---


def _cite(lab: Lab, digest: Digest) -> None:
    """A plan by its digest, whatever that is of."""
    body = PruneBody(phase="plan", plan=str(digest))
    draft = Draft(type="prune", subject=[(f"evidence/{digest}", digest)], body=body)
    lab.open().append(lambda _: draft, [lab.root_key.pruner], tool="vault test")


def _stored(lab: Lab, data: bytes) -> Digest:
    """Evidence as somebody who holds the store's keys puts it there: of any size."""
    digest = Digest.of(data)
    lab.store.put(f"evidence/{digest}", data, sha256=digest)
    return digest


def _plan_text(names: int, *, objects: int | None = None, total: int | None = None) -> bytes:
    lines = [f"{n:064x}\t1\tv\tpacks/{n:064x}" for n in range(names)]
    count, size = names if objects is None else objects, names if total is None else total
    head = ["# vault-inventory 1", f"# objects {count}", f"# bytes {size}"]
    return "\n".join([*head, *lines, ""]).encode()


def _exchanged(lab: Lab) -> Digest:
    digest = _stored(lab, _plan_text(9))
    (version,) = lab.store.versions(f"evidence/{digest}")
    lab.store.corrupt(version.name, version.version, _plan_text(8))
    return digest


UNREADABLE: dict[str, Callable[[Lab], Digest]] = {
    "missing": lambda _: Digest.of(b"never stored"),
    "empty": lambda lab: _stored(lab, b""),
    "no inventory": lambda lab: _stored(lab, b"all of it\n"),
    "not ascii": lambda lab: _stored(lab, b"\xff" * 4000),
    "cut within a line": lambda lab: _stored(lab, _plan_text(9)[:-5]),
    "a line of a megabyte": lambda lab: _stored(lab, _plan_text(1)[:-1] + b"x" * 1_000_000 + b"\n"),
    "twice the same name": lambda lab: _stored(lab, _plan_text(1) + _plan_text(1)[-80:]),
    "sums differ": lambda lab: _stored(lab, _plan_text(9, objects=8)),
    "too large": lambda lab: _stored(lab, _plan_text(40_000)),
    "of another plan's bytes": _exchanged,
    "an index": lambda lab: _stored(lab, _plan_text(1) + b"# index\n" + _plan_text(2)[-136:]),
}


@pytest.mark.parametrize("kind", UNREADABLE)
@pytest.mark.parametrize("lock", [LockMode.NONE, LockMode.GOVERNANCE])
def test_a_plan_that_cannot_be_read_stops_nobody_and_is_told(
    make_repository: MakeRepository,
    make_source: MakeSource,
    lock: LockMode,
    kind: str,
) -> None:
    """It dooms nothing; a readable one beside it still does."""
    lab = make_repository(lock)
    source = make_source(files=3)
    lab.snapshot(source)
    doomed = _packs(lab)[:1]
    _cite(lab, UNREADABLE[kind](lab))
    _plan(lab, doomed)
    record = lab.snapshot(source).record
    assert not set(doomed) & set(_packs(lab))
    assert lab.verify(record).verdict == "passed"
    (finding,) = lab.open().plans.unreadable()
    assert finding.severity is Severity.ERROR


def test_beside_an_unreadable_plan_every_pack_is_locked_anew(
    lab: Lab, make_source: MakeSource
) -> None:
    """What it may doom is relied on only with a lock of this run; control: without the plan."""
    source = make_source()
    lab.snapshot(source)
    packs = {ref.name for ref in _packs(lab)}
    assert _extended_packs(lab, source) == set()
    _cite(lab, UNREADABLE["missing"](lab))
    assert _extended_packs(lab, source) == packs
    assert {ref.name for ref in _packs(lab)} == packs, "nothing was stored twice"


def _extended_packs(lab: Lab, source: Path) -> set[str]:
    """Packs whose locks a snapshot extends."""
    names: set[str] = set()

    def note(point: FaultPoint) -> None:
        if (point.operation, point.phase) == ("extend", "after"):
            names.add(point.name)

    lab.store.fault = note
    lab.snapshot(source)
    lab.store.fault = None
    return {name for name in names if name.startswith("packs/")}


def test_a_pack_that_an_unreadable_plan_deleted_is_stored_anew(
    make_repository: MakeRepository, make_source: MakeSource, clock: Clock
) -> None:
    """Its lock has ended, the lists of this host still know it: only the extend tells."""
    lab = make_repository(LockMode.GOVERNANCE)
    source = make_source()
    lab.snapshot(source)
    _cite(lab, UNREADABLE["too large"](lab))
    gone = _packs(lab)[:1]
    _drop(lab, gone)
    record = lab.snapshot(source).record
    assert not set(gone) & set(_packs(lab))
    assert lab.verify(record).verdict == "passed"


def test_without_locks_nothing_is_reused_beside_an_unreadable_plan(
    make_repository: MakeRepository, make_source: MakeSource
) -> None:
    """Nothing could keep the pruner from deleting it in the next moment."""
    lab = make_repository(LockMode.NONE)
    source = make_source()
    lab.snapshot(source)
    before = set(_packs(lab))
    lab.snapshot(source)
    assert set(_packs(lab)) == before
    _cite(lab, UNREADABLE["missing"](lab))
    lab.snapshot(source)
    assert not set(_packs(lab)) & before


@pytest.mark.parametrize("lock", [LockMode.NONE, LockMode.GOVERNANCE])
def test_an_unreadable_plan_that_comes_while_the_run_goes_on(
    make_repository: MakeRepository,
    make_source: MakeSource,
    lock: LockMode,
) -> None:
    """The last look is at the head that the manifest extends; the run starts again."""
    lab = make_repository(lock)
    source = make_source()
    lab.snapshot(source)
    before = set(_packs(lab))
    lab.store.fault = _append_before_manifest(
        lab, lambda: _cite(lab, UNREADABLE["no inventory"](lab))
    )
    lab.snapshot(source)
    assert bool(set(_packs(lab)) & before) is (lock is not LockMode.NONE)
    assert assert_invariants(lab.store, lab.root) == 2


def test_a_void_unreadable_plan_is_nothing(lab: Lab, make_source: MakeSource) -> None:
    """A writer may not announce deletions: nobody need fear what it says."""
    source = make_source()
    lab.snapshot(source)
    repository = lab.open()
    payload = build_statement(
        type="prune",
        repository=repository.ledger.repository_id,
        seq=repository.head.seq + 1,
        prev=repository.head,
        time=lab.clock(),
        tool="t",
        subject=[],
        body=PruneBody(phase="plan", plan="ab" * 32),
        by=[lab.host.key.signing.public.id],
    )
    envelope = seal_envelope(payload, [lab.host.key.signing])
    lab.store.put(ledger_name(repository.head.seq + 1), envelope, sha256=Digest.of(envelope))
    assert list(lab.open().plans.unreadable()) == []
    assert _extended_packs(lab, source) == set()


def test_a_store_that_does_not_answer_is_no_unreadable_plan(
    lab: Lab, make_source: MakeSource
) -> None:
    """The run ends with the store's error, and says nothing of the plan."""
    source = make_source()
    lab.snapshot(source)
    _plan(lab, [])

    def fail(point: FaultPoint) -> None:
        if point.name.startswith("evidence/"):
            raise StorageUnavailableError("no answer")

    lab.store.fault = fail
    with pytest.raises(StorageUnavailableError):
        lab.snapshot(source)


def test_a_plan_that_the_store_refuses_to_give_is_unreadable(
    lab: Lab, make_source: MakeSource
) -> None:
    """Sealed with a key that only its author has, or put into an archive."""
    source = make_source()
    lab.snapshot(source)
    _plan(lab, [])

    def refuse(point: FaultPoint) -> None:
        if point.name.startswith("evidence/") and point.operation == "get":
            raise StorageError("can't read it: it is sealed with a customer's key")

    lab.store.fault = refuse
    lab.snapshot(source)
    assert len(list(lab.open().plans.unreadable())) == 1


def test_evidence_that_no_reader_takes_is_not_stored(lab: Lab) -> None:
    """Neither a plan nor an attestation is signed over; control: one byte less is."""
    repository = lab.open()
    before = list(lab.store.versions(""))
    with pytest.raises(ConfigError, match="larger than any reader takes"):
        repository.put_evidence(b"x" * (MAX_EVIDENCE + 1))
    assert list(lab.store.versions("")) == before
    digest = repository.put_evidence(b"x" * MAX_EVIDENCE)
    assert len(repository.read_evidence(digest)) == MAX_EVIDENCE


def test_a_base_inventory_that_a_plan_names_is_not_built_upon(
    lab: Lab,
    make_source: MakeSource,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Bases are needs: a delta on a doomed one would be lost with it (I4)."""
    monkeypatch.setattr(inventory, "DELTA_FROM", 0)
    source = make_source(files=40)
    lab.snapshot(source)
    _changed_source(source, 1)
    repository = lab.open()
    base = repository.inventory_ref(repository.ledger.snapshots()[-1])
    lab.store.fault = _append_before_manifest(lab, lambda: _plan(lab, [base]))
    record = lab.snapshot(source).record
    assert lab.open().inventory(record).bases == ()
    _changed_source(source, 2)
    later = lab.snapshot(source).record
    assert [ref.name for ref in lab.open().inventory(later).bases] == [
        repository.inventory_ref(record).name
    ]
    _drop(lab, [base])
    assert lab.verify(record, later).verdict == "passed"


def test_a_base_inventory_whose_lock_ran_out_is_not_built_upon(
    lab: Lab, clock: Clock, make_source: MakeSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What may be pruned at any time is absent to writers, inventories like packs (I7)."""
    monkeypatch.setattr(inventory, "DELTA_FROM", 0)
    source = make_source(files=40)
    lab.snapshot(source, retention=7 * DAY)
    lab.snapshot(source, dataset="other", retention=90 * DAY)  # keeps the packs alive
    clock.advance(days=7 + 1 + 4)
    _changed_source(source, 1)
    record = lab.snapshot(source, retention=7 * DAY).record
    assert len(lab.open().inventory(record).bases) == 1
    clock.advance(days=7 + 1 + 6)
    _changed_source(source, 2)
    record = lab.snapshot(source).record
    assert lab.open().inventory(record).bases == ()


def test_needs_under_other_version_ids_are_extended_where_they_are(
    lab: Lab, clock: Clock, make_source: MakeSource
) -> None:
    """A copied bucket has other version ids; snapshots into it go on."""
    source = make_source()
    lab.snapshot(source)
    (domain,) = lab.store.versions("domains/")
    data = lab.store.get(domain.name, domain.version)
    lab.store.remove(domain.name, domain.version)
    copy = lab.store.put(domain.name, data, sha256=Digest.of(data))
    body = snapshot_body(lab.snapshot(source).record)
    until = lab.store.status(copy.name, copy.version).retention.until
    assert until >= body.until
    lab.store.remove(copy.name, copy.version)
    with pytest.raises(MissingObjectError, match="domains/"):
        lab.snapshot(source)


# --- clocks and roles ---


@pytest.mark.parametrize("minutes", [6, -6])
def test_a_clock_that_is_off_stops_the_run_at_its_start(
    lab: Lab, clock: Clock, make_source: MakeSource, minutes: float
) -> None:
    """I9: nothing is stored by a machine that does not know the time."""
    source = make_source()
    before = list(lab.store.versions(""))
    lab.store._clock = lambda: clock.now + timedelta(minutes=minutes)
    with pytest.raises(ConfigError, match="clock"):
        lab.snapshot(source)
    assert list(lab.store.versions("")) == before


def test_a_clock_that_jumps_while_the_run_goes_on_stops_it_before_publishing(
    lab: Lab, clock: Clock, make_source: MakeSource
) -> None:
    """I9: the dates of the manifest would be wrong."""
    source = make_source()

    def jump() -> None:
        lab.store._clock = lambda: clock.now - timedelta(minutes=6)

    lab.store.fault = _append_before_manifest(lab, jump)
    with pytest.raises(ConfigError, match="clock"):
        lab.snapshot(source)
    assert assert_invariants(lab.store, lab.root) == 0


def test_a_writer_that_is_revoked_while_it_runs_publishes_nothing(
    lab: Lab, make_source: MakeSource
) -> None:
    """I4: roles are checked against the head that is extended, not the one at the start.

    Twice: by the role of the key, and by whether the statement would link. Of a key that is
    listed the first alone tells: `test_a_statement_that_would_be_void_is_not_stored`.
    """
    source = make_source()
    before = len(list(lab.store.versions("ledger/")))

    def revoke() -> None:
        repository = lab.open()
        (writer,) = repository.ledger.writers.values()
        revoke_writer(
            repository,
            lab.root_key.enroller,
            writer,
            distrust_from=None,
            reason="",
            tool="vault test",
        )

    lab.store.fault = _append_before_manifest(lab, revoke)
    with pytest.raises(SignatureError):
        lab.snapshot(source)
    assert len(list(lab.store.versions("ledger/"))) == before + 1  # the revocation
    assert assert_invariants(lab.store, lab.root) == 0
    with pytest.raises(WrongKeyError):
        lab.snapshot(source)


@pytest.mark.parametrize("cached", [True, False])
def test_packs_of_a_distrusted_writer_are_not_reused(
    lab: Lab,
    make_source: MakeSource,
    cached: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    """I10: whether this host learned of them before the theft was found out, or only now."""
    source = make_source()
    stolen = lab.with_host(lab.enrol("stolen", domain="default"))
    start = stolen.snapshot(source, dataset="theirs").record.seq
    if cached:
        lab.snapshot(make_source("other", seed=4), dataset="ours")
    repository = lab.open()
    writer = find_writer(repository.ledger, "stolen")
    revoke_writer(
        repository,
        lab.root_key.enroller,
        writer,
        distrust_from=start,
        reason="theft",
        tool="vault test",
    )
    report = lab.snapshot(source)
    assert report.reused_packs == 0
    assert lab.verify(report.record).verdict == "passed"


def test_index_objects_count_only_from_trusted_writers_of_the_domain(
    lab: Lab, make_source: MakeSource
) -> None:
    """I10: another domain's, and those of a writer that is distrusted altogether, do not."""
    source = make_source()
    alone = lab.with_host(lab.enrol("alone"))
    stolen = lab.with_host(lab.enrol("stolen", domain="default"))
    alone.snapshot(source, dataset="alone")
    stolen.snapshot(source, dataset="theirs")
    counting = [each.ref.name for each in index_objects(lab.open(), "default")]
    assert [name.split("/")[1] for name in counting] == ["default"]
    repository = lab.open()
    writer = find_writer(repository.ledger, "stolen")
    revoke_writer(
        repository,
        lab.root_key.enroller,
        writer,
        distrust_from=writer.added + 1,
        reason="theft",
        tool="vault test",
    )
    assert index_objects(repository, "default") == []
    assert len(index_objects(repository, "alone")) == 1


def test_a_statement_that_would_be_void_is_not_stored(lab: Lab) -> None:
    """A key without the role is refused by the client that holds it (I4)."""
    repository = lab.open()
    digest = repository.put_evidence(inventory.encode([]))
    draft = Draft(
        type="prune",
        subject=[(f"evidence/{digest}", digest)],
        body=PruneBody(phase="plan", plan=str(digest)),
    )
    before = list(lab.store.versions("ledger/"))
    with pytest.raises(SignatureError):
        repository.append(lambda _: draft, [lab.host.key.signing], tool="vault test")
    assert list(lab.store.versions("ledger/")) == before


# --- the ledger's own locks ---


def _ledger_extends(lab: Lab, source: Path) -> list[str]:
    names: list[str] = []

    def note(point: FaultPoint) -> None:
        if point.operation == "extend" and point.phase == "after" and "ledger/" in point.name:
            names.append(point.name)

    lab.store.fault = note
    lab.snapshot(source)
    lab.store.fault = None
    return [name.rpartition("/")[2].lstrip("0") or "0" for name in names]


def test_whoever_appends_extends_the_statement_before_and_old_ones_at_half_term(
    lab: Lab, clock: Clock, make_source: MakeSource
) -> None:
    """The term is 860 days: nothing but the predecessor moves before 430 have passed."""
    source = make_source()
    assert _ledger_extends(lab, source) == ["1"]
    assert _ledger_extends(lab, source) == ["2"]
    clock.advance(days=429)
    assert _ledger_extends(lab, source) == ["3"]
    clock.advance(days=2)
    assert set(_ledger_extends(lab, source)) == {"0", "1", "2", "4"}
    assert assert_invariants(lab.store, lab.root) == 4
    assert _ledger_extends(lab, source) == ["5"], "not with every statement from then on"
    clock.advance(days=215)
    assert set(_ledger_extends(lab, source)) == {"0", "1", "2", "6"}, "or who was to do it died"
    for item in lab.store.versions("ledger/"):
        retention = lab.store.status(item.name, item.version).retention
        assert retention.until >= clock.now + 430 * DAY
