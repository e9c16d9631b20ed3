"""Sizes and states by public data: manifests, inventories, events."""

import dataclasses
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from vault import attest
from vault.model import Digest, EventBody, replace_body, to_rfc3339
from vault.repository import Draft, Repository, snapshot_body
from vault.stats import Stats, measure, owed, status_of

if TYPE_CHECKING:
    from tests.conftest import Lab, MakeRepository, MakeSource


@pytest.fixture
def lab(make_repository: "MakeRepository", make_source: "MakeSource") -> "Lab":
    """The same source twice as one dataset, once as another."""
    made: Lab = make_repository()
    source = make_source()
    made.snapshot(source)
    made.clock.advance(days=1)
    made.snapshot(source)
    made.snapshot(source, dataset="other")
    return made


def _source(lab: "Lab") -> Path:
    return lab.base.parent / "source"


def test_objects_that_many_need_count_once(lab: "Lab") -> None:
    """Content counts as often as it can be restored, stored bytes once."""
    repository = lab.open()
    records = repository.ledger.snapshots()
    total = measure(repository, records)
    content = sum(path.stat().st_size for path in _source(lab).rglob("*") if path.is_file())
    listed = {
        item.name: item.size
        for item in lab.store.versions("")
        if item.name.startswith(("packs/", "inventory/", "domains/"))
    }
    # a link is a file to is_file(), and no content of its own
    assert total.size == 3 * (content - (_source(lab) / "link").stat().st_size)
    assert (total.objects, total.stored) == (len(listed), sum(listed.values()))
    parts = [measure(repository, [record]) for record in records]
    assert total.stored < sum(part.stored for part in parts)
    assert total.size == sum(part.size for part in parts)


def test_ratios(lab: "Lab") -> None:
    """Deduplication includes compression; of nothing there is none."""
    some = Stats(
        snapshots=(1,), files=1, size=100, objects=1, stored=20, added_size=50, added_bytes=25
    )
    assert (some.deduplication, some.compression) == (5, 2)
    nothing = measure(lab.open(), [])
    assert (nothing.deduplication, nothing.compression) == (None, None)


def test_expired_snapshots_are_not_owed(lab: "Lab") -> None:
    """They may be gone; those that are kept longer are still asked for."""
    repository = lab.open()
    first, *later = repository.ledger.snapshots()
    when = lab.clock() + timedelta(days=30, hours=12)
    assert owed(repository.ledger, [first, *later], lab.clock()) == [first, *later]
    assert owed(repository.ledger, [first, *later], when) == later


def test_claims_beyond_what_is_allowed_buy_no_time(lab: "Lab") -> None:
    """Who holds a writer key can neither be the youngest for good nor be owed for ever."""
    _publish(lab, created="2099-01-01T00:00:00Z", until="2099-01-01T00:00:00Z")
    ledger = lab.open().ledger
    forged = ledger.snapshots("data")[-1]
    lab.clock.advance(days=300)
    assert status_of(ledger, "data", lab.clock()).age == timedelta(days=300)
    assert owed(ledger, [forged], lab.clock()) == [forged]
    lab.clock.advance(days=102)
    assert owed(ledger, [forged], lab.clock()) == []


def test_an_event_that_ends_in_the_future_ended_when_it_was_stored(lab: "Lab") -> None:
    """Else it would be the last proof for good."""
    taken = lab.open().ledger.snapshots("data")[-1]
    at = lab.clock()
    body = EventBody(
        verdict="passed",
        snapshot=taken.seq,
        started=to_rfc3339(at),
        finished="2099-01-01T00:00:00Z",
        attestation="ab" * 32,
    )
    draft = Draft(type="drill", subject=[("x", Digest(bytes(32)))], body=body)
    lab.open().append(lambda _: draft, [lab.recovery.restorer], tool="t")
    state = status_of(lab.open().ledger, "data", lab.clock())
    assert state.restore is not None
    assert state.restore.finished == at


def _publish(lab: "Lab", **changes: object) -> None:
    """The newest snapshot again, with another claim."""
    repository = lab.open()
    body = replace_body(snapshot_body(repository.ledger.snapshots("data")[-1]), **changes)
    draft = Draft(type="snapshot", subject=[("x", Digest(bytes(32)))], body=body)
    repository.append(lambda _: draft, [lab.host.key.signing], tool="t")


def test_status_of_a_dataset(lab: "Lab") -> None:
    """Its newest complete snapshot and its age."""
    lab.clock.advance(hours=5)
    ledger = lab.open().ledger
    state = status_of(ledger, "data", lab.clock())
    assert (state.snapshots, state.owed, state.incomplete) == (2, 2, None)
    assert state.newest == ledger.snapshots("data")[-1]
    assert state.age == timedelta(hours=5)
    assert state.verification is state.restore is None


def test_an_incomplete_snapshot_is_not_the_newest(lab: "Lab") -> None:
    """It is told beside the newest complete one, until a complete one follows."""
    source = _source(lab)
    gone = source / "dir0/file0"
    gone.rename(source / "kept")
    gone.symlink_to("x")
    _incomplete(lab, source)
    state = status_of(lab.open().ledger, "data", lab.clock())
    assert state.newest is not None
    assert state.incomplete is not None
    assert state.newest.seq < state.incomplete.seq
    lab.snapshot(source)
    assert status_of(lab.open().ledger, "data", lab.clock()).incomplete is None


def _incomplete(lab: "Lab", source: Path) -> None:
    """A snapshot that says of itself that something could not be read."""
    real = Repository.append

    def append(self: Repository, draft: object, *arguments: object, **options: object) -> object:
        assert callable(draft)

        def flawed(ledger: object) -> object:
            made = draft(ledger)
            return dataclasses.replace(made, body=replace_body(made.body, complete=False))

        return real(self, flawed, *arguments, **options)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Repository, "append", append)
        lab.snapshot(source)


def test_a_dataset_without_snapshots_has_no_state(lab: "Lab") -> None:
    """Nothing is made up."""
    state = status_of(lab.open().ledger, "nobody", lab.clock())
    assert (state.snapshots, state.newest, state.age) == (0, None, None)


def _record(lab: "Lab", kind: str, snapshot: int | None, verdict: str = "passed") -> int:
    """Attest an event; gives its number."""
    repository = lab.open()
    record = repository.ledger.records[snapshot] if snapshot is not None else None
    attestation = attest.describe(
        repository,
        kind=kind,
        verdict=verdict,
        snapshot=record,
        started=lab.clock(),
        tool="vault test",
        details={},
        claims=_claims(repository, snapshot) if kind == "verification" else {},
    )
    data = attest.sign(attestation, lab.recovery.restorer)
    return attest.record(repository, data, lab.recovery.restorer, tool="vault test").seq


def _claims(repository: Repository, snapshot: int | None) -> dict[str, object]:
    """Of a verification of one snapshot, or of all there are."""
    ledger = repository.ledger
    seqs = [record.seq for record in ledger.snapshots()] if snapshot is None else [snapshot]
    return {
        "snapshots": ledger.ranges(seqs),
        "share": 1_000_000,
        "opened": True,
        "read": 1,
        "through": repository.head.seq,
    }


def test_the_last_event_is_one_of_the_dataset(lab: "Lab") -> None:
    """Or of everything there was; restores and drills are one kind."""
    ledger = lab.open().ledger
    (other,) = ledger.snapshots("other")
    mine = ledger.snapshots("data")[0]
    verified = _record(lab, "verification", None)
    lab.clock.advance(minutes=1)
    _record(lab, "verification", other.seq)
    drilled = _record(lab, "drill", mine.seq, "failed")
    ledger = lab.open().ledger
    state = status_of(ledger, "data", lab.clock())
    assert state.verification is not None
    assert (state.verification.seq, state.verification.snapshot) == (verified, None)
    assert state.restore is not None
    assert (state.restore.seq, state.restore.type, state.restore.verdict) == (
        drilled,
        "drill",
        "failed",
    )
    assert to_rfc3339(state.restore.finished) == to_rfc3339(lab.clock())
    assert status_of(ledger, "other", lab.clock()).restore is None


def test_an_event_of_everything_says_nothing_of_later_datasets(lab: "Lab") -> None:
    """They were not there to be verified."""
    _record(lab, "verification", None)
    lab.snapshot(_source(lab), dataset="late")
    ledger = lab.open().ledger
    assert status_of(ledger, "late", lab.clock()).verification is None
    assert snapshot_body(ledger.snapshots("late")[0]).dataset == "late"
