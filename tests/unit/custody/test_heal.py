"""Healing: plain reads meet the right bytes again, and nothing that is needed is ever deleted."""

import dataclasses
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.support.lab import Clock, Lab, MakeRepository
from tests.support.trees import MakeSource
from vault.audit import Concern, audit_repository
from vault.custody.heal import HealAction, Healer, HealPlan, HealReport, Step, plan_repair
from vault.errors import (
    ObjectNotFoundError,
    RetentionError,
    StorageError,
    StorageUnavailableError,
)
from vault.ledger.records import Record, Status
from vault.ledger.statements import EventBody, PruneBody, VerificationBody
from vault.machine.workers import make_workers
from vault.model import Digest, LockMode, ObjectRef, Retention
from vault.repository.append_statements import Draft
from vault.repository.objects import MAX_EVIDENCE
from vault.repository.repository import Repository
from vault.storage.base import ObjectVersion
from vault.storage.local import LocalStore
from vault.storage.memory import FaultPoint


@pytest.fixture
def lab(make_repository: MakeRepository) -> Lab:
    """A repository with locks that hold."""
    return make_repository(LockMode.COMPLIANCE)


@pytest.fixture
def record(lab: Lab, make_source: MakeSource) -> Record:
    """A snapshot of several packs."""
    return lab.snapshot(make_source(files=10)).record


def plan(lab: Lab) -> HealPlan:
    """What is in the way."""
    with make_workers(0) as workers:
        return Healer(lab.open(), workers).plan()


def heal(lab: Lab) -> tuple[HealPlan, HealReport]:
    """Plan and do it."""
    with make_workers(0) as workers:
        healer = Healer(lab.open(), workers)
        planned = healer.plan()
        return planned, healer.execute(planned)


def packs(lab: Lab, record: Record) -> list[ObjectRef]:
    """The packs of a snapshot."""
    objects = lab.open().inventory(record).objects
    return [ref for ref in objects if ref.name.startswith("packs/")]


def shown(lab: Lab, names: list[str]) -> dict[str, bytes]:
    """What a plain read of each name meets."""
    return {name: lab.store.get(name) for name in names}


def actions(plan: HealPlan) -> list[tuple[HealAction, str]]:
    """What is planned."""
    return [(step.action, step.name) for step in plan.steps]


def test_nothing_to_heal(lab: Lab, record: Record) -> None:
    """A sound repository is left alone."""
    planned, report = heal(lab)
    assert planned == HealPlan(repairs=(), lost=())
    assert report == HealReport(done=(), hidden=())


def needed(lab: Lab) -> list[str]:
    """Names of all that is owed: everything but the index, which is a cache."""
    names = {item.name for item in lab.store.versions("") if not item.name.startswith("index/")}
    return sorted(names)


def test_everything_marked_and_a_third_overwritten(lab: Lab, record: Record) -> None:
    """After it, plain reads give what they gave before; every pinned version is there still."""
    names = needed(lab)
    before = shown(lab, names)
    versions = list(lab.store.versions(""))
    for number, name in enumerate(names):
        if number % 3 == 0:
            lab.store.plant(name, b"junk" * number)
        lab.store.put_marker(name)
    planned, report = heal(lab)
    assert [
        name for action, name in actions(planned) if action is HealAction.REMOVE_MARKER
    ] == names
    assert [name for action, name in actions(planned) if action is HealAction.REMOVE_JUNK] == names[
        ::3
    ]
    assert planned.lost == ()
    assert report.hidden == ()
    assert not any(done.refusal for done in report.done)
    assert shown(lab, names) == before
    assert list(lab.store.versions("")) == versions
    assert plan(lab).repairs == ()


def test_a_plan_changes_nothing(lab: Lab, record: Record) -> None:
    """Only looks."""
    lab.store.put_marker(packs(lab, record)[0].name)
    before = list(lab.store.versions(""))
    (repair,) = plan(lab).repairs
    assert [step.action for step in repair.steps] == [HealAction.REMOVE_MARKER]
    assert list(lab.store.versions("")) == before


def locked_junk(lab: Lab, name: str, data: bytes) -> ObjectVersion:
    """Junk that its author locked for years."""
    until = lab.clock() + timedelta(days=4000)
    retention = Retention(mode=LockMode.COMPLIANCE, until=until)
    put: ObjectVersion = lab.store.put(name, data, sha256=Digest.of(data), retention=retention)
    return put


@pytest.mark.parametrize("same_size", [True, False])
def test_locked_junk_is_covered_by_the_right_bytes_with_their_lock(
    lab: Lab,
    record: Record,
    same_size: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    """What can't be deleted is no longer what people see."""
    ref = packs(lab, record)[0]
    data = lab.store.get(ref.name, ref.version)
    junk = locked_junk(lab, ref.name, bytes(len(data)) if same_size else b"junk")
    planned, report = heal(lab)
    (told,) = planned.left
    assert (told.name, "is locked until" in told.reason, told.is_wrong) == (ref.name, True, False)
    (done,) = report.done
    assert (done.step.action, done.refusal) == (HealAction.EXPOSE, "")
    assert report.hidden == ()
    newest = list(lab.store.versions(ref.name))[-1]
    assert lab.store.get(ref.name) == data
    assert newest.version not in (ref.version, junk.version)
    lock = lab.store.status(ref.name, ref.version).retention
    assert lab.store.status(ref.name, newest.version).retention == lock
    assert plan(lab) == HealPlan(repairs=(), lost=())


def test_a_statement_is_exposed_by_its_envelope(lab: Lab, record: Record) -> None:
    """Locked junk over the newest statement."""
    name = f"ledger/{record.seq:016d}"
    locked_junk(lab, name, b"{}")
    _, report = heal(lab)
    assert report.hidden == ()
    assert lab.store.get(name) == record.envelope
    assert lab.open().head.digest == record.digest


def test_junk_that_stood_at_a_number_of_the_ledger_first_is_removed(
    lab: Lab, record: Record, make_source: MakeSource
) -> None:
    """It hides nothing, and costs everybody who opens the repository a look at each version."""
    name = f"ledger/{record.seq + 1:016d}"
    for number in range(3):
        lab.store.plant(name, b"%d" % number)
    kept = locked_junk(lab, name, b"{}")
    owner = lab.snapshot(make_source("other", seed=2), dataset="other").record
    assert len(lab.open().findings) == 4
    planned, report = heal(lab)
    assert planned.hidden == []
    assert actions(planned) == [(HealAction.REMOVE_JUNK, name)] * 3
    assert not any(done.refusal for done in report.done)
    assert [each.name for each in planned.left] == [name]
    assert report.hidden == ()
    assert plan(lab).repairs == ()  # as long as the lock holds, nothing more can be done
    lab.clock.advance(days=4001)
    left = [item.version for item in lab.store.versions(name)]
    assert left == [kept.version, owner.version]
    assert [finding.found for finding in lab.open().findings] == [kept.version]


@pytest.mark.parametrize("cited_by", ["prune", "restore", "verification"])
def test_evidence_is_exposed(lab: Lab, record: Record, cited_by: str) -> None:
    """What statements cite is needed too: plans, and the attestations of every kind."""
    repository = lab.open()
    digest = repository.put_evidence(b"cited")
    body: PruneBody | EventBody | VerificationBody = PruneBody(phase="result", plan=str(digest))
    now = lab.clock()
    if cited_by == "restore":
        body = EventBody(
            verdict="passed",
            started=now,
            finished=now,
            attestation=str(digest),
        )
    if cited_by == "verification":
        body = VerificationBody(
            snapshots=((record.seq, record.seq),),
            through=record.seq,
            read=0,
            share=0,
            opened=False,
            nonce="0" * 32,
            verdict="partial",
            started=now,
            finished=now,
            attestation=str(digest),
        )
    key = lab.root_key.pruner if cited_by == "prune" else lab.recovery.restorer
    draft = Draft(type=cited_by, subject=[(f"evidence/{digest}", digest)], body=body)
    assert repository.append(lambda _: draft, [key], tool="test").status is Status.VALID
    locked_junk(lab, f"evidence/{digest}", b"junk")
    assert heal(lab)[1].hidden == ()
    assert lab.store.get(f"evidence/{digest}") == b"cited"


def test_the_right_version_is_found_by_digest_where_the_pinned_one_is_gone(
    lab: Lab, record: Record
) -> None:
    """Between older and newer junk of the same size."""
    ref = packs(lab, record)[0]
    data = lab.store.get(ref.name, ref.version)
    lab.store.remove(ref.name, ref.version)
    older = lab.store.plant(ref.name, bytes(len(data)))
    right = lab.store.plant(ref.name, data)
    lab.store.plant(ref.name, b"\xff" * len(data))
    assert heal(lab)[1].hidden == ()
    assert [item.version for item in lab.store.versions(ref.name)] == [
        older.version,
        right.version,
    ]


def test_what_no_version_has_is_lost(lab: Lab, record: Record) -> None:
    """Said, and nothing is deleted on the way: not the markers that are all that is left."""
    gone, wrong, other = packs(lab, record)[:3]
    lab.store.remove(gone.name, gone.version)
    lab.store.corrupt(wrong.name, wrong.version, b"short")
    lab.store.remove(other.name, other.version)
    lab.store.put_marker(other.name)
    before = list(lab.store.versions(""))
    planned, report = heal(lab)
    assert planned.lost == tuple(sorted([gone.name, wrong.name, other.name]))
    assert report.done == ()
    assert list(lab.store.versions("")) == before


@pytest.mark.parametrize("error", [StorageError("403"), StorageError("InvalidRequest")])
@pytest.mark.parametrize("operation", ["get", "status"])
def test_what_the_store_refuses_to_show_is_not_called_lost(
    lab: Lab, record: Record, error: StorageError, operation: str
) -> None:
    """Lost is what a right answer says is not there; a refusal says nothing."""
    ref = packs(lab, record)[0]
    data = lab.store.get(ref.name, ref.version)
    lab.store.remove(ref.name, ref.version)
    lab.store.plant(ref.name, data)  # the right bytes, as in a copied bucket
    status = lab.store.status

    def refuse(point: FaultPoint) -> None:
        if point.operation == operation and point.name == ref.name:
            raise error

    def silent(name: str, version: str) -> Any:
        return dataclasses.replace(status(name, version), sha256=None)

    lab.store.fault = refuse
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lab.store, "status", silent)
        planned = plan(lab)
    assert (planned.lost, planned.refused, planned.repairs) == ((), (ref.name,), ())
    lab.store.fault = None
    assert plan(lab) == HealPlan(repairs=(), lost=())


def test_a_store_that_does_not_answer_ends_it(lab: Lab, record: Record) -> None:
    """Nothing can be said then; least of all that something is lost."""
    lab.store.plant(packs(lab, record)[0].name, bytes(packs(lab, record)[0].size))

    def refuse(point: FaultPoint) -> None:
        if point.name.startswith("packs/") and point.operation in ("get", "status", "versions_of"):
            raise StorageUnavailableError("timed out")

    lab.store.fault = refuse
    with pytest.raises(StorageUnavailableError):
        plan(lab)


def test_one_stale_list_loses_nothing(
    lab: Lab, record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a list leaves out is asked for again before it is called lost."""
    ref = packs(lab, record)[0]
    versions = lab.store.versions

    def stale(prefix: str, **options: Any) -> Any:
        return (item for item in versions(prefix, **options) if prefix or item.name != ref.name)

    monkeypatch.setattr(lab.store, "versions", stale)
    assert plan(lab).lost == ()
    lab.store.remove(ref.name, ref.version)
    assert plan(lab).lost == (ref.name,)


def test_a_signed_statement_over_the_right_one_is_covered_and_kept(
    lab: Lab, record: Record, make_source: MakeSource
) -> None:
    """A thief's statement is what a plain read would meet; it is evidence, so it stays."""
    from vault.ledger.envelope import Head, build_statement, seal_envelope
    from vault.ledger.statements import HeartbeatBody

    repository = lab.open()
    payload = build_statement(
        type="heartbeat",
        repository=repository.ledger.repository_id,
        seq=record.seq,
        prev=Head(seq=record.seq - 1, digest=Digest(bytes(32))),
        time=lab.clock(),
        tool="test",
        subject=[("repository", lab.root)],
        body=HeartbeatBody(note="another history"),
        by=[lab.host.key.signing.public.id],
    )
    name = f"ledger/{record.seq:016d}"
    planted = lab.store.plant(name, seal_envelope(payload, [lab.host.key.signing]))
    planned, report = heal(lab)
    assert (planned.hidden, [each.name for each in planned.left]) == ([name], [name])
    assert [step.action for step in planned.steps] == [HealAction.EXPOSE]
    assert report.hidden == ()
    assert lab.store.get(name) == record.envelope
    assert planted in list(lab.store.versions(name))


def _marked(lab: Lab, record: Record) -> None:
    for item in list(lab.store.versions("")):
        lab.store.put_marker(item.name)


def _marked_cache(lab: Lab, record: Record) -> None:
    lab.store.put_marker(next(iter(lab.store.versions("index/"))).name)


def _covered_marker(lab: Lab, record: Record) -> None:
    ref = packs(lab, record)[0]
    data = lab.store.get(ref.name, ref.version)
    lab.store.put_marker(ref.name)
    lab.store.plant(ref.name, data)


def _locked_junk_over_a_pack(lab: Lab, record: Record) -> None:
    locked_junk(lab, packs(lab, record)[0].name, b"junk")


def _locked_junk_over_a_statement(lab: Lab, record: Record) -> None:
    locked_junk(lab, f"ledger/{record.seq:016d}", b"{}")


def _junk_over_what_nothing_needs(lab: Lab, record: Record) -> None:
    digest = Digest.of(b"orphan")
    for data in (b"orphan", b"junk"):
        lab.store.plant(f"packs/{str(digest)[:2]}/{digest}", data)


def _junk_beyond_the_head(lab: Lab, record: Record) -> None:
    locked_junk(lab, f"ledger/{record.seq + 1:016d}", b"junk")


def _junk_beside_a_lost_object(lab: Lab, record: Record) -> None:
    ref = packs(lab, record)[0]
    lab.store.remove(ref.name, ref.version)
    lab.store.plant(ref.name, b"junk")


def _wrong_page(lab: Lab, record: Record) -> None:
    lab.store.plant("ledger-page/0000000000", b"junk\n")


@pytest.mark.parametrize(
    ("attack", "is_healed"),
    [
        (_marked, True),
        (_marked_cache, True),
        (_covered_marker, True),
        (_locked_junk_over_a_pack, True),
        (_locked_junk_over_a_statement, True),
        (_junk_over_what_nothing_needs, True),
        (_junk_beyond_the_head, False),
        (_junk_beside_a_lost_object, False),
        (_wrong_page, False),
    ],
)
def test_an_audit_agrees_with_heal_on_what_must_be_visible(
    lab: Lab, record: Record, attack: Callable[[Lab, Record], None], *, is_healed: bool
) -> None:
    """After a heal that leaves nothing no version is an error; and after one that does, some is."""
    attack(lab, record)
    _, report = heal(lab)
    after = plan(lab)
    is_left = any(each.is_wrong for each in after.left)
    is_clean = not (report.hidden or after.lost or after.refused or is_left or after.unread)
    repository = Repository.open(lab.store, lab.root, clock=lab.clock, tolerant=True)
    with make_workers(0) as workers:
        gravest = audit_repository(repository, workers=workers).gravest
    assert (is_clean, gravest is not Concern.INTEGRITY) == (is_healed, is_healed)


def test_snapshots_whose_inventory_is_wrong_are_named(lab: Lab, record: Record) -> None:
    """What they need is not known, so it was not looked at."""
    ref = lab.open().inventory_ref(record)
    lab.store.remove(ref.name, ref.version)
    planned = plan(lab)
    assert (planned.unread, planned.lost) == ((record.seq,), (ref.name,))


def test_a_pinned_version_is_never_deleted(lab: Lab, record: Record) -> None:
    """Even one whose bytes are wrong: it is covered by a right one instead."""
    from vault.custody.needs import NEVER, Need
    from vault.custody.versions import Judged, NameView, VersionKind

    ref = packs(lab, record)[0]

    def version(name: str) -> ObjectVersion:
        return ObjectVersion(name=ref.name, version=name, size=5, modified=lab.clock())

    view = NameView(
        name=ref.name,
        judged=(
            Judged(version=version("right"), kind=VersionKind.RIGHT),
            Judged(version=version("junk"), kind=VersionKind.OTHER),
            Judged(version=version("pinned"), kind=VersionKind.OTHER),
        ),
    )
    need = Need(
        name=ref.name,
        sha256=ref.sha256,
        size=ref.size,
        version="pinned",
        until=NEVER,
        mode=LockMode.NONE,
        held=False,
    )
    repair = plan_repair(view, version("right"), [need])
    assert repair is not None
    assert [(step.action, step.version) for step in repair.steps] == [
        (HealAction.REMOVE_JUNK, "junk"),
        (HealAction.EXPOSE, "right"),
    ]
    only = dataclasses.replace(view, judged=(view.judged[0], view.judged[2]))
    repair = plan_repair(only, version("right"), [need])
    assert repair is not None
    assert [step.action for step in repair.steps] == [HealAction.EXPOSE]


def test_the_largest_evidence_is_never_deleted_under_a_wrong_name(lab: Lab, record: Record) -> None:
    """Its size is known to nothing but the limit: exactly that is hashed too."""
    repository = lab.open()
    digest = repository.put_evidence(b"x" * MAX_EVIDENCE)
    body = PruneBody(phase="result", plan=str(digest))
    draft = Draft(type="prune", subject=[(f"evidence/{digest}", digest)], body=body)
    repository.append(lambda _: draft, [lab.root_key.pruner], tool="test")
    other = packs(lab, record)[0]
    copy = lab.store.plant(other.name, b"x" * MAX_EVIDENCE)
    junk = lab.store.plant(other.name, b"y" * MAX_EVIDENCE)
    heal(lab)
    left = list(lab.store.versions(other.name))
    assert copy in left
    assert junk not in left  # the control
    assert Digest.of(lab.store.get(other.name)) == other.sha256


def _bytes_of(lab: Lab, record: Record, kind: str) -> bytes:
    """Of a needed object, which lies at another name."""
    if kind == "pack":
        ref = packs(lab, record)[-1]
        return bytes(lab.store.get(ref.name, ref.version))
    if kind == "evidence":
        repository = lab.open()
        digest = repository.put_evidence(b"the lines of a plan")
        body = PruneBody(phase="result", plan=str(digest))
        draft = Draft(type="prune", subject=[(f"evidence/{digest}", digest)], body=body)
        repository.append(lambda _: draft, [lab.root_key.pruner], tool="test")
        return b"the lines of a plan"
    return record.envelope


@pytest.mark.parametrize("kind", ["pack", "statement", "evidence"])
@pytest.mark.parametrize("over", ["pack", "statement"])
def test_bytes_of_another_needed_object_are_covered_and_left(
    lab: Lab, record: Record, kind: str, over: str
) -> None:
    """A rescued copy under a wrong name: the plan knows it, once and for all. Control: junk."""
    name = packs(lab, record)[0].name if over == "pack" else f"ledger/{1:016d}"
    right = lab.store.get(name)
    copy = lab.store.plant(name, _bytes_of(lab, record, kind))
    planned, report = heal(lab)
    assert actions(planned) == [(HealAction.EXPOSE, name)]
    (told,) = planned.left
    assert (told.name, told.is_wrong) == (name, False)
    assert "the bytes of another needed object" in told.reason
    assert [done.refusal for done in report.done] == [""]
    assert copy in list(lab.store.versions(name))
    assert report.hidden == ()
    assert lab.store.get(name) == right
    again, report = heal(lab)
    assert (actions(again), report.done) == ([], ())
    assert [each.name for each in again.left] == ([name] if over == "statement" else [])
    lab.store.plant(name, b"junk")
    assert actions(plan(lab)) == [(HealAction.REMOVE_JUNK, name)]


def test_bytes_of_another_needed_object_are_not_deleted_by_an_old_plan(
    lab: Lab, record: Record
) -> None:
    """It is asked once more right before a version goes."""
    ref, other = packs(lab, record)[:2]
    junk = lab.store.plant(other.name, b"junk")
    (repair,) = plan(lab).repairs
    copy = lab.store.plant(other.name, lab.store.get(ref.name, ref.version))
    (step,) = repair.steps
    assert step.version == junk.version
    wrong = dataclasses.replace(step, version=copy.version, size=copy.size)
    repair = dataclasses.replace(repair, steps=(wrong, step))
    with make_workers(0) as workers:
        report = Healer(lab.open(), workers).execute(HealPlan(repairs=(repair,), lost=()))
    assert "needed object" in report.done[0].refusal
    assert copy in list(lab.store.versions(other.name))
    assert junk not in list(lab.store.versions(other.name))
    assert report.hidden == ()


def test_lost_races_and_what_nobody_needs_are_left_alone(
    lab: Lab, record: Record, make_source: MakeSource
) -> None:
    """They hide nothing, and the former are part of what happened; junk before them is not."""
    fork = lab.fork(lab.base / "fork")
    source = make_source("other", seed=7)
    junk = lab.store.plant(f"ledger/{record.seq + 1:016d}", b"older junk")
    lost = fork.snapshot(source, dataset="other").record
    lab.snapshot(source)
    lab.store.plant(f"ledger/{lost.seq:016d}", lost.envelope)
    lab.store.plant(f"ledger/{lost.seq + 1:016d}", b"junk at a number that nobody has")
    before = list(lab.store.versions("ledger/"))
    assert actions(heal(lab)[0]) == [(HealAction.REMOVE_JUNK, junk.name)]
    before.remove(junk)
    assert list(lab.store.versions("ledger/")) == before


def test_refusals_stop_nothing_and_are_told(lab: Lab, record: Record) -> None:
    """Without the right to delete, what can be covered is; markers then are covered as well."""

    def refuse(point: FaultPoint) -> None:
        if point.operation == "delete":
            raise StorageError("403")

    names = [ref.name for ref in packs(lab, record)][:2]
    for name in names:
        lab.store.put_marker(name)
    lab.store.fault = refuse
    told: list[Any] = []
    with make_workers(0) as workers:
        healer = Healer(lab.open(), workers)
        report = healer.execute(healer.plan(), tell=told.append)
    assert [(done.step.action, bool(done.refusal)) for done in report.done] == [
        (HealAction.REMOVE_MARKER, True),
        (HealAction.EXPOSE, False),
    ] * 2
    assert told == list(report.done)
    assert report.hidden == ()
    assert all(shown(lab, names).values())
    assert report.details()["refused"] == 2
    assert report.details()["heal"]["expose"] == 2


def test_what_stays_hidden_is_told(lab: Lab, record: Record) -> None:
    """Neither deleting nor storing is allowed."""
    name = packs(lab, record)[0].name
    lab.store.put_marker(name)

    def refuse(point: FaultPoint) -> None:
        if point.operation in ("delete", "put"):
            raise RetentionError("no")

    lab.store.fault = refuse
    _, report = heal(lab)
    assert report.hidden == (name,)


def test_a_marker_that_somebody_else_removed_is_done(lab: Lab, record: Record) -> None:
    """Two people heal."""
    name = packs(lab, record)[0].name
    marker = lab.store.put_marker(name)

    def race(point: FaultPoint) -> None:
        if (point.operation, point.phase) == ("delete", "before"):
            lab.store.remove(name, marker.version)
            lab.store.fault = None
            raise ObjectNotFoundError("gone")

    lab.store.fault = race
    _, report = heal(lab)
    assert [done.refusal for done in report.done] == [""]
    assert report.hidden == ()


def test_locks_that_ran_out_are_not_asked_for_again(
    make_repository: MakeRepository, make_source: MakeSource
) -> None:
    """The copy of a version that was never locked, or no longer is, has no lock."""
    lab = make_repository(LockMode.NONE)
    record = lab.snapshot(make_source()).record
    ref = packs(lab, record)[0]
    lab.store.extend(
        ref.name,
        ref.version,
        Retention(mode=LockMode.GOVERNANCE, until=lab.clock() + timedelta(days=1)),
    )
    lab.clock.advance(days=2)
    locked_junk(lab, ref.name, b"junk")
    assert heal(lab)[1].hidden == ()
    newest = list(lab.store.versions(ref.name))[-1]
    assert lab.store.status(ref.name, newest.version).retention is None


def test_a_directory_is_healed(
    make_repository: MakeRepository, make_source: MakeSource, clock: Clock, tmp_path: Path
) -> None:
    """Files that were put beside an object as later versions of it go."""
    store = LocalStore.create(tmp_path / "store", clock=clock)
    lab = make_repository(LockMode.NONE, store=store)
    record = lab.snapshot(make_source()).record
    refs = packs(lab, record)
    before = shown(lab, [ref.name for ref in refs])
    for ref in refs:
        (tmp_path / "store" / (ref.name + "~2")).write_bytes(b"junk")
    assert all(data == b"junk" for data in shown(lab, [ref.name for ref in refs]).values())
    planned, report = heal(lab)
    assert len(list(planned.steps)) == len(refs)
    assert report.hidden == ()
    assert shown(lab, [ref.name for ref in refs]) == before
    assert lab.verify(record).passed


def test_details_are_bounded(lab: Lab, record: Record) -> None:
    """They go into an attestation."""
    step = Step(
        action=HealAction.REMOVE_JUNK, name="x" * 500, version="v", size=1, modified=lab.clock()
    )
    from vault.custody.heal import Done

    report = HealReport(done=(Done(step=step),) * 500, hidden=("x",))
    details = report.details()
    assert details["heal"]["remove junk"] == 500
    assert len(details["steps"]) == 100
    assert all(len(line) <= 200 for line in details["steps"])
