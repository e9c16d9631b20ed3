"""Snapshots of governed datasets: an applied policy is a floor, decided on the real ledger."""

import random
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.support.lab import Lab, MakeRepository
from tests.support.policies import (
    apply_terms,
    edited,
    governed_snapshot,
    keeper_of,
    policy_terms,
    state_policy,
)
from tests.support.retention_reference import Asked, Stated, keep_of
from tests.support.trees import MakeSource
from vault.errors import LedgerMovedError
from vault.ledger.chain import Ledger
from vault.ledger.statements import SnapshotBody
from vault.model import LockMode
from vault.policy.history import failed_snapshots, host_of, past_snapshots
from vault.repository.repository import snapshot_body
from vault.retention import KeptFor

DAY, HOUR = timedelta(days=1), timedelta(hours=1)


def kept(body: SnapshotBody) -> timedelta:
    """For how long it is kept, without the day that is added."""
    return body.until - body.created - DAY


def test_a_governed_snapshot_is_kept_as_its_policy_says(lab: Lab, make_source: MakeSource) -> None:
    """The manifest says for how long, by which terms, and which tiers it carries."""
    source = make_source(files=1)
    apply_terms(lab, policy_terms())
    first = governed_snapshot(lab, source).body
    assert kept(first) == 372 * DAY
    assert first.policy == str(policy_terms().digest)
    assert first.retention is not None
    assert first.retention.tiers == ("daily", "monthly")
    assert first.retention.keep == 372 * 86_400
    lab.clock.advance(hours=1)
    second = governed_snapshot(lab, source).body
    assert (kept(second), second.policy) == (7 * DAY, first.policy)
    assert second.retention is not None
    assert second.retention.tiers == ()


def test_an_ungoverned_snapshot_is_kept_as_before(lab: Lab, make_source: MakeSource) -> None:
    """The control: another dataset goes by --retain, or the repository's default."""
    source = make_source(files=1)
    apply_terms(lab, policy_terms())
    assert keeper_of(lab, dataset="other").governed_by == []
    body = lab.snapshot(source, dataset="other", retention=10 * DAY).body
    assert (kept(body), body.policy) == (10 * DAY, "")
    assert body.retention is not None
    assert body.retention.tiers == ()


@pytest.mark.parametrize(
    ("asked", "wanted"), [(None, 7), (2 * DAY, 7), (9 * DAY, 9), (400 * DAY, 400)]
)
def test_the_longer_of_policy_and_request_counts(
    lab: Lab, make_source: MakeSource, asked: timedelta | None, wanted: int
) -> None:
    """An applied policy is a floor; more may be asked for."""
    source = make_source(files=1)
    apply_terms(lab, policy_terms())
    governed_snapshot(lab, source)
    lab.clock.advance(hours=1)
    assert kept(governed_snapshot(lab, source, retention=asked).body) == wanted * DAY


def test_a_weaker_policy_that_does_not_say_so_leaves_the_floor(
    lab: Lab, make_source: MakeSource
) -> None:
    """A thief of the policy key who hides what he weakens weakens nothing."""
    apply_terms(lab, policy_terms())
    weak = edited({"monthly = 12": "monthly = 0"})
    state_policy(lab, weak, weakens=False)
    body = governed_snapshot(lab, make_source(files=1)).body
    assert (kept(body), body.policy) == (372 * DAY, str(policy_terms().digest))


def test_a_snapshot_whose_check_failed_covers_nothing(lab: Lab, make_source: MakeSource) -> None:
    """Until a whole one passes; a verdict over several says nothing of one."""
    source = make_source(files=1)
    apply_terms(lab, policy_terms())
    first = governed_snapshot(lab, source).record
    lab.say("verification", first.seq, "failed")
    assert failed_snapshots(lab.open().ledger) == {first.seq}
    lab.clock.advance(hours=1)
    second = governed_snapshot(lab, source)
    assert kept(second.body) == 372 * DAY
    lab.say("verification", first.seq, "passed", share=500_000)
    lab.say("verification", [first.seq, second.record.seq], "failed")
    lab.say("verification", second.record.seq, "passed", share=500_000)
    assert failed_snapshots(lab.open().ledger) == {first.seq}
    lab.say("restore", first.seq, "passed")
    assert failed_snapshots(lab.open().ledger) == set()


def test_a_host_that_got_a_new_key_is_the_same_host(lab: Lab, make_source: MakeSource) -> None:
    """By `replaces`; an unrelated key is another host, and covers nothing of the first."""
    source = make_source(files=1)
    apply_terms(lab, policy_terms())
    governed_snapshot(lab, source)
    other = lab.with_host(lab.enrol("other"))
    ledger = lab.open().ledger
    mine, theirs = (each.host.key.signing.public.id for each in (lab, other))
    assert host_of(ledger, mine) != host_of(ledger, theirs)
    lab.clock.advance(hours=1)
    keeper = keeper_of(other, host=other.host)
    assert kept(other.snapshot(source, keeper=keeper).body) == 372 * DAY
    assert len({each.host for each in past_snapshots(lab.open().ledger, "data")}) == 2


# --- what comes in between ---


def test_a_policy_that_ends_during_a_run_leaves_its_floor(
    lab: Lab, make_source: MakeSource
) -> None:
    """And one that is applied meanwhile counts already."""
    source = make_source(files=1)
    terms = edited({'within = "7d"': 'within = "9d"'})
    first = apply_terms(lab, terms)
    keeper = keeper_of(lab)
    withdrawn = str(terms.digest)
    state_policy(lab, terms, action="withdraw", weakens=True, previous=first.seq)
    assert kept(lab.snapshot(source, keeper=keeper).body) == 9 * DAY
    keeper = keeper_of(lab)
    apply_terms(lab, edited({"monthly = 12": "monthly = 10"}))
    lab.clock.advance(hours=1)
    body = lab.snapshot(source, keeper=keeper).body
    assert kept(body) == 310 * DAY
    assert body.policy != withdrawn


class Growing:
    """Keeps longer each time it is asked, so many times."""

    def __init__(self, times: int) -> None:
        self.at_put = 3 * DAY
        self._left = times
        self.asked = 0

    def decide(self, ledger: Ledger, *, created: datetime, complete: bool) -> KeptFor:
        """See `Keeper`."""
        self.asked += 1
        return KeptFor(keep=self.at_put + min(self.asked, self._left) * 10 * DAY)


def test_what_grows_before_the_manifest_is_locked_once_more(
    make_repository: MakeRepository, make_source: MakeSource
) -> None:
    """The decision is made again on the ledger that the manifest extends."""
    lab = make_repository(LockMode.GOVERNANCE)
    body = lab.snapshot(make_source(files=2), keeper=Growing(2)).body
    assert kept(body) == 23 * DAY
    for info in lab.store.versions("packs/"):
        status = lab.store.status(info.name, info.version)
        assert status.retention.until >= body.until


def test_what_grows_without_end_publishes_nothing(lab: Lab, make_source: MakeSource) -> None:
    """The run ends, and says that it may be tried again."""
    with pytest.raises(LedgerMovedError, match="grew at each attempt"):
        lab.snapshot(make_source(files=1), keeper=Growing(100))
    assert lab.open().ledger.snapshots() == []


def test_packs_are_stored_for_what_every_snapshot_is_kept_for(
    make_repository: MakeRepository, make_source: MakeSource
) -> None:
    """A run that dies on the first of a month does not lock what it stored for a year."""
    lab = make_repository(LockMode.GOVERNANCE)
    apply_terms(lab, policy_terms())
    assert keeper_of(lab).at_put == 7 * DAY
    locked: list[datetime] = []
    original = lab.store.put

    def put(name: str, *arguments: object, **options: object) -> object:
        if name.startswith("packs/"):
            locked.append(options["retention"].until)  # type: ignore[attr-defined]
        return original(name, *arguments, **options)

    lab.store.put = put
    body = governed_snapshot(lab, make_source(files=2)).body
    grid = timedelta(seconds=lab.open().parameters.lock_grid)
    assert locked
    assert all(each <= lab.clock.now + 8 * DAY + grid for each in locked)
    for info in lab.store.versions("packs/"):
        assert lab.store.status(info.name, info.version).retention.until >= body.until


def test_where_locks_can_not_be_extended_packs_are_stored_for_the_longest_that_may_come(
    make_repository: MakeRepository, make_source: MakeSource
) -> None:
    """The first of a month is published; no lock is ever made longer."""
    lab = make_repository(LockMode.GOVERNANCE, extend=False)
    apply_terms(lab, policy_terms())
    extended: list[str] = []
    original = lab.store.extend

    def extend(name: str, version: str, retention: object) -> object:
        extended.append(name)
        return original(name, version, retention)

    lab.store.extend = extend
    body = governed_snapshot(lab, make_source(files=2)).body
    assert kept(body) == 372 * DAY
    assert extended == []
    for info in lab.store.versions("packs/"):
        assert lab.store.status(info.name, info.version).retention.until >= body.until


# --- many days on a real repository ---


def test_25_days_are_kept_as_the_page_says_and_restore(lab: Lab, tmp_path: Path) -> None:
    """Every 12 hours: what is signed is what the second decision says; what is kept restores."""
    source = tmp_path / "source"
    source.mkdir()
    apply_terms(lab, edited({"daily = 14": "daily = 14\nweekly = 5"}))
    asked = Asked(
        within=7 * DAY,
        tiers={"daily": 14 * DAY, "weekly": 35 * DAY, "monthly": 372 * DAY},
        zone="Europe/Berlin",
    )
    draw = random.Random(5)
    states: dict[int, bytes] = {}
    earlier: list[Stated] = []
    for number in range(50):
        lab.clock.now = datetime(2030, 1, 20, 0, 17, tzinfo=UTC) + number * 12 * HOUR
        if draw.random() < 0.1:
            continue  # missed
        state = b"state %d" % number
        (source / "file").write_bytes(state)
        report = governed_snapshot(lab, source)
        states[report.record.seq] = state
        stated = Stated(
            dataset="data",
            key="a",
            created=report.body.created,
            stored=lab.open().ledger.stored(report.record),
            until=report.body.until,
            complete=report.body.complete,
        )
        keep, tiers = keep_of(asked, earlier, stated, minimum=HOUR)
        assert kept(report.body) == keep, number
        assert report.body.retention is not None
        assert list(report.body.retention.tiers) == tiers
        earlier.append(stated)
    now = lab.clock.now
    live = [record for record in lab.open().ledger.snapshots() if snapshot_body(record).until > now]
    assert 15 < len(live) < len(states)
    for record in draw.sample(live, 4):
        target = tmp_path / f"target{record.seq}"
        lab.restore(record, target)
        assert (target / "file").read_bytes() == states[record.seq]
        assert [path.name for path in target.iterdir()] == ["file"]
