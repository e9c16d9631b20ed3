"""The retention decision against a second one, written from the words of docs/retention.md.

P1 to P8 are the properties of docs/invariants.md, "Retention".
"""

import dataclasses
import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.retention_reference import (
    LENGTHS,
    Asked,
    Stated,
    first_key,
    keep_of,
    same_period,
    taken,
    until_of,
)
from vault.policy.keeping import (
    KeepDecision,
    KeepRules,
    PastSnapshot,
    PeriodCoverage,
    decide,
    decide_covered,
    period,
)
from vault.retention import snapshot_until

DAY, HOUR = timedelta(days=1), timedelta(hours=1)
MINIMUM = 2 * DAY
START = datetime(2026, 3, 27, 21, tzinfo=UTC)  # before clocks change, a month and a quarter end
REPLACED = {"a2": "a1", "a3": "a2"}
ZONES = ["UTC", "Europe/Berlin", "America/St_Johns", "Pacific/Apia"]

# --- one decision ---


def rules_of(asked: Asked) -> KeepRules:
    """The same for the code that is judged."""
    zone = UTC if asked.zone == "UTC" else ZoneInfo(asked.zone)
    rules = KeepRules(within=asked.within, tiers=asked.tiers, zone=zone)
    if asked.incomplete == "never":
        rules = dataclasses.replace(rules, incomplete="never")
    return rules


def past_of(snapshots: Iterable[Stated], dataset: str) -> list[PastSnapshot]:
    """Snapshots of a dataset as the decision takes them."""
    return [
        PastSnapshot(
            host=first_key(each.key, REPLACED),
            when=taken(each),
            until=each.until,
            complete=each.complete,
            sound=not each.failed,
        )
        for each in snapshots
        if each.dataset == dataset
    ]


def decided(
    asked: Asked, earlier: Iterable[Stated], candidate: Stated, retain: timedelta | None = None
) -> KeepDecision:
    """What the code that is judged says."""
    return decide(
        rules_of(asked),
        past_of(earlier, candidate.dataset),
        host=first_key(candidate.key, REPLACED),
        created=candidate.created,
        complete=candidate.complete,
        minimum=MINIMUM,
        asked=retain,
    )


lengths = st.sampled_from([HOUR, 5 * HOUR, DAY, 3 * DAY, 8 * DAY, 40 * DAY, 400 * DAY])
policies = st.builds(
    Asked,
    within=lengths,
    tiers=st.dictionaries(st.sampled_from(list(LENGTHS)), lengths, max_size=6).map(
        lambda found: {tier: found[tier] for tier in LENGTHS if tier in found}
    ),
    zone=st.sampled_from(ZONES),
    incomplete=st.sampled_from(["stand-in", "never"]),
)
moments = st.integers(-3000, 3000).map(lambda n: START + n * timedelta(minutes=17))
far = st.sampled_from([-400 * DAY, 4000 * DAY, timedelta(minutes=5), timedelta(minutes=6)])


@st.composite
def statements(draw: st.DrawFn) -> Stated:
    """A snapshot, as honest or as forged as may be."""
    stored = draw(moments)
    created = stored + draw(far | st.just(-HOUR) | st.just(timedelta()))
    return Stated(
        dataset=draw(st.sampled_from(["d", "d", "d", "e"])),
        key=draw(st.sampled_from(["a1", "a2", "a3", "b"])),
        created=created,
        stored=stored,
        until=created + draw(lengths),
        complete=draw(st.booleans()),
        failed=draw(st.sampled_from([False, False, False, True])),
    )


@settings(max_examples=250, deadline=None)
@given(
    asked=policies,
    earlier=st.lists(statements(), max_size=12),
    candidate=statements(),
    retain=st.none() | lengths,
)
def test_the_decision_is_what_the_page_says(
    asked: Asked, earlier: list[Stated], candidate: Stated, retain: timedelta | None
) -> None:
    """For any history, honest or forged, and any policy."""
    keep, tiers = keep_of(
        asked, earlier, candidate, minimum=MINIMUM, retain=retain, replaced=REPLACED
    )
    found = decided(asked, earlier, candidate, retain)
    assert (found.keep, list(found.tiers)) == (keep, tiers)
    assert len(found.reasons) == len(found.tiers)


@settings(max_examples=200, deadline=None)
@given(a=moments, b=moments, zone=st.sampled_from(ZONES), tier=st.sampled_from(list(LENGTHS)))
def test_periods_are_those_of_the_calendar(a: datetime, b: datetime, zone: str, tier: str) -> None:
    """Of the policy's zone; hours of UTC."""
    info = ZoneInfo(zone)
    assert (period(tier, a, info) == period(tier, b, info)) is same_period(tier, a, b, zone)


@settings(max_examples=100, deadline=None)
@given(
    asked=policies,
    earlier=st.lists(statements(), max_size=8),
    candidate=statements(),
    seed=st.randoms(use_true_random=False),
)
def test_p6_the_decision_depends_on_nothing_else(
    asked: Asked, earlier: list[Stated], candidate: Stated, seed: random.Random
) -> None:
    """Neither on the order in which the history is given nor on what was asked before."""
    shuffled = list(earlier)
    seed.shuffle(shuffled)
    assert decided(asked, earlier, candidate) == decided(asked, shuffled, candidate)


# --- what thieves and junk can do ---


@st.composite
def junk(draw: st.DrawFn) -> Stated:
    """What takes nothing from a good snapshot: unsound, incomplete, of another host, or short."""
    each = draw(statements())
    how = draw(st.integers(0, 4))
    if how == 0:
        return _changed(each, failed=True)
    if how == 1:
        return _changed(each, complete=False)
    if how == 2:
        return _changed(each, key="b")
    if how == 3:
        return _changed(each, dataset="e")
    return _changed(each, until=taken(each) + draw(st.sampled_from([timedelta(), HOUR])))


def _changed(snapshot: Stated, **fields: object) -> Stated:
    return Stated(**{**vars(snapshot), **fields})


long_policies = policies.filter(lambda asked: all(each > HOUR for each in asked.tiers.values()))


@settings(max_examples=200, deadline=None)
@given(
    asked=long_policies,
    earlier=st.lists(statements(), max_size=6),
    added=st.lists(junk(), max_size=8),
    candidate=statements(),
)
def test_p1_no_junk_makes_a_complete_snapshot_shorter(
    asked: Asked, earlier: list[Stated], added: list[Stated], candidate: Stated
) -> None:
    """Whatever is put between, before and after the good ones."""
    good = _changed(candidate, complete=True, key="a1", dataset="d")
    before, after = decided(asked, earlier, good), decided(asked, [*earlier, *added], good)
    assert after.keep >= before.keep
    assert set(after.tiers) >= set(before.tiers)


def test_p1_a_good_snapshot_does_take_a_tier() -> None:
    """The control: sound, complete, of the same host and dataset, and long."""
    asked = Asked(within=DAY, tiers={"daily": 3 * DAY})
    one = Stated(
        dataset="d", key="a1", created=START, stored=START, until=START + 4 * DAY, complete=True
    )
    assert decided(asked, [], one).tiers == ("daily",)
    assert decided(asked, [one], _changed(one, created=START + HOUR)).tiers == ()


@settings(max_examples=200, deadline=None)
@given(asked=policies, earlier=st.lists(statements(), max_size=8), candidate=statements())
def test_p7_within_is_kept_whatever_stands_in_the_ledger(
    asked: Asked, earlier: list[Stated], candidate: Stated
) -> None:
    """A host that was taken over can spend its tiers; the promise against it is `within`."""
    assert decided(asked, earlier, candidate).keep >= max(asked.within, MINIMUM)


@settings(max_examples=200, deadline=None)
@given(asked=policies, earlier=st.lists(statements(), max_size=8), candidate=statements())
def test_p8_a_claimed_time_counts_as_earlier_only(
    asked: Asked, earlier: list[Stated], candidate: Stated
) -> None:
    """A snapshot dated to the future covers nothing after the time at which it was stored."""
    limit = candidate.created - 367 * DAY
    old = [_changed(each, stored=limit - DAY, created=candidate.created + DAY) for each in earlier]
    assert decided(asked, old, candidate) == decided(asked, [], candidate)


# --- 400 days ---

GFS = Asked(
    within=7 * DAY,
    tiers={"daily": 14 * DAY, "weekly": 56 * DAY, "monthly": 372 * DAY},
    zone="Europe/Berlin",
)


def hourly(seed: int, days: int = 400) -> list[tuple[datetime, bool]]:
    """Runs of each hour with their minute; one in thirty fails, one in twenty is incomplete."""
    draw = random.Random(seed)
    start = datetime(2026, 1, 1, tzinfo=UTC)
    found = []
    for number in range(days * 24):
        if draw.random() < 1 / 30 or 3000 < number < 3000 + 60 * 24:
            continue  # missed; or off for two months
        minute = timedelta(minutes=17, seconds=draw.randrange(600))
        found.append((start + number * HOUR + minute, draw.random() > 1 / 20))
    return found


def taken_by_the_code(asked: Asked, runs: Iterable[tuple[datetime, bool]]) -> list[Stated]:
    """What is stored when every run asks the code that is judged."""
    rules = rules_of(asked)
    coverage = PeriodCoverage(rules.tiers, rules.zone)
    found = []
    for at, complete in runs:
        keep = decide_covered(rules, coverage, created=at, complete=complete, minimum=MINIMUM).keep
        until = snapshot_until(at, keep, at)
        coverage.add(at, until, complete=complete)
        found.append(_stored(at, until, complete))
    return found


def taken_by_the_page(asked: Asked, runs: Iterable[tuple[datetime, bool]]) -> list[Stated]:
    """The same, by the reference; it is shown the earlier runs that could cover anything."""
    found: list[Stated] = []
    shown: list[Stated] = []
    for at, complete in runs:
        candidate = _stored(at, at, complete)
        keep, _ = keep_of(asked, shown, candidate, minimum=MINIMUM)
        found.append(_stored(at, until_of(candidate, keep), complete))
        if found[-1].until >= at + min(asked.tiers.values()):
            oldest = at - 32 * DAY  # no tier has a longer period
            shown = [*(each for each in shown if each.created > oldest), found[-1]]
    return found


def _stored(at: datetime, until: datetime, complete: bool) -> Stated:  # noqa: FBT001 - a row
    return Stated(dataset="d", key="a1", created=at, stored=at, until=until, complete=complete)


def test_400_days_of_hourly_runs_are_kept_as_the_page_says_day_by_day() -> None:
    """On each day the same snapshots are owed; each period that had a complete run has one (P3)."""
    runs = hourly(1)
    ours, wanted = taken_by_the_code(GFS, runs), taken_by_the_page(GFS, runs)
    assert len(ours) > 7000
    for day in range(402):
        now = datetime(2026, 1, 1, tzinfo=UTC) + day * DAY
        assert _live(ours, now) == _live(wanted, now)
    assert_every_period_is_covered(ours, GFS)
    assert_few_carriers(ours, GFS)


def _live(snapshots: Iterable[Stated], now: datetime) -> list[datetime]:
    return [each.created for each in snapshots if each.created <= now < each.until]


def assert_every_period_is_covered(snapshots: Sequence[Stated], asked: Asked) -> None:
    """P3: a complete one of each period that had one lives until its `when` plus the length."""
    for tier, length in asked.tiers.items():
        complete = defaultdict(list)
        for each in snapshots:
            if each.complete:
                complete[_day_of(tier, each, asked)].append(each)
        assert len(complete) > 10
        for members in complete.values():
            assert any(each.until >= each.created + length for each in members)


def assert_few_carriers(snapshots: Sequence[Stated], asked: Asked) -> None:
    """P4: at most two of a period and tier: a complete one, and one before it that was not."""
    tier, length = list(asked.tiers.items())[-1]
    carriers = defaultdict(list)
    for each in snapshots:
        if each.until >= each.created + length:
            carriers[_day_of(tier, each, asked)].append(each.complete)
    assert all(found in ([True], [False], [False, True]) for found in carriers.values())


def _day_of(tier: str, snapshot: Stated, asked: Asked) -> tuple[int, ...]:
    local = snapshot.created.astimezone(ZoneInfo(asked.zone))
    match tier:
        case "daily":
            return (local.year, local.month, local.day)
        case "weekly":
            return tuple(local.isocalendar())[:2]
        case _:
            return (local.year, local.month)


def test_a_decision_that_forgets_a_period_is_seen() -> None:
    """The control: days of UTC instead of those of the zone differ from the page on some day."""
    runs = hourly(1, days=40)
    wrong = Asked(within=GFS.within, tiers=GFS.tiers, zone="Asia/Tokyo")
    ours = {each.created: each.until for each in taken_by_the_code(wrong, runs)}
    assert ours != {each.created: each.until for each in taken_by_the_page(GFS, runs)}
