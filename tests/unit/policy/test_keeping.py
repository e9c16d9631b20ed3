"""How long a snapshot is kept: every case of docs/retention.md, and calendars."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from vault.policy.keeping import (
    TIER_LENGTHS,
    KeepDecision,
    KeepRules,
    PastSnapshot,
    decide,
    period,
    period_name,
)

DAY, HOUR = timedelta(days=1), timedelta(hours=1)
START = datetime(2026, 3, 2, 0, 17, tzinfo=UTC)  # a Monday
GFS = KeepRules(within=7 * DAY, tiers={"daily": 14 * DAY, "weekly": 56 * DAY})
MINIMUM = DAY


class History:
    """Snapshots of one dataset, each kept as was decided when it was taken."""

    def __init__(self, rules: KeepRules = GFS) -> None:
        self.rules = rules
        self.past: list[PastSnapshot] = []

    def run(
        self, at: datetime, *, complete: bool = True, sound: bool = True, host: str = "a"
    ) -> KeepDecision:
        """Take one."""
        found = decide(
            self.rules, self.past, host=host, created=at, complete=complete, minimum=MINIMUM
        )
        until = at + DAY + found.keep
        self.past.append(
            PastSnapshot(host=host, when=at, until=until, complete=complete, sound=sound)
        )
        return found


def every(start: datetime, count: int, step: timedelta) -> Iterator[datetime]:
    """Times of runs."""
    return (start + step * number for number in range(count))


# --- who gets a tier ---


def test_the_first_complete_one_of_a_period_carries_its_tier() -> None:
    """And says so; the second one is kept for `within`."""
    history = History()
    first = history.run(START)
    assert first.keep == 56 * DAY
    assert first.tiers == ("daily", "weekly")
    assert first.reasons == ("first daily of 2026-03-02", "first weekly of 2026-W10")
    assert history.run(START + HOUR) == KeepDecision(keep=7 * DAY, tiers=(), reasons=())
    assert history.run(START + DAY).tiers == ("daily",)
    assert history.run(START + 7 * DAY).tiers == ("daily", "weekly")


def test_a_missed_run_leaves_the_tier_to_the_next_one() -> None:
    """Whenever in the period it comes."""
    history = History()
    history.run(START)
    assert history.run(START + 13 * DAY).tiers == ("daily", "weekly")


def test_an_incomplete_one_stands_in_until_a_complete_one_comes() -> None:
    """Both carry the tier, a third of either kind does not."""
    history = History()
    assert history.run(START, complete=False).tiers == ("daily", "weekly")
    assert history.run(START + HOUR, complete=False).tiers == ()
    assert history.run(START + 2 * HOUR).tiers == ("daily", "weekly")
    assert history.run(START + 3 * HOUR).tiers == ()
    assert history.run(START + 4 * HOUR, complete=False).tiers == ()


def test_an_incomplete_one_never_carries_where_the_policy_says_never() -> None:
    """It is kept for `within`."""
    history = History(KeepRules(within=7 * DAY, tiers=GFS.tiers, incomplete="never"))
    assert history.run(START, complete=False).keep == 7 * DAY
    assert history.run(START + HOUR).tiers == ("daily", "weekly")


def test_one_whose_check_failed_covers_nothing() -> None:
    """The next one carries its tiers again."""
    history = History()
    history.run(START, sound=False)
    assert history.run(START + HOUR).tiers == ("daily", "weekly")


def test_another_host_covers_nothing() -> None:
    """A thief's key takes no tier of the host's own."""
    history = History()
    history.run(START, host="thief")
    assert history.run(START + HOUR).tiers == ("daily", "weekly")


def test_one_that_is_kept_too_short_covers_nothing() -> None:
    """However it came to be: junk, a run by hand, a run before there was a policy."""
    short = PastSnapshot(host="a", when=START, until=START + 13 * DAY, complete=True)
    found = decide(GFS, [short], host="a", created=START + HOUR, complete=True, minimum=MINIMUM)
    assert found.tiers == ("daily", "weekly")
    long = PastSnapshot(host="a", when=START, until=START + 14 * DAY, complete=True)
    found = decide(GFS, [long], host="a", created=START + HOUR, complete=True, minimum=MINIMUM)
    assert found.tiers == ("weekly",)


def test_a_longer_policy_gets_its_longer_one_in_the_same_period() -> None:
    """From 6 months to 12 on the 11th: that day's run carries the month."""
    history = History(KeepRules(within=7 * DAY, tiers={"monthly": 186 * DAY}))
    for at in every(START, 9, DAY):
        history.run(at)
    history.rules = KeepRules(within=7 * DAY, tiers={"monthly": 372 * DAY})
    assert history.run(START + 9 * DAY).reasons == ("first monthly of 2026-03",)
    assert history.run(START + 10 * DAY).tiers == ()
    history.rules = KeepRules(within=7 * DAY, tiers={"monthly": 93 * DAY})
    assert history.run(START + 11 * DAY).tiers == ()
    assert history.run(START + 40 * DAY).keep == 93 * DAY


def test_the_longest_of_all_reasons_counts() -> None:
    """`within`, the repository's minimum, what was asked for, and every tier that it gets."""
    rules = KeepRules(within=7 * DAY, tiers={"daily": 3 * DAY, "yearly": 366 * DAY})
    calls = [
        (KeepRules(within=7 * DAY), MINIMUM, None, 7 * DAY),
        (KeepRules(within=7 * DAY), 10 * DAY, None, 10 * DAY),
        (KeepRules(within=7 * DAY), MINIMUM, 9 * DAY, 9 * DAY),
        (KeepRules(within=7 * DAY), MINIMUM, 5 * DAY, 7 * DAY),
        (rules, MINIMUM, 9 * DAY, 366 * DAY),
        (rules, MINIMUM, 400 * DAY, 400 * DAY),
    ]
    for rule, minimum, asked, wanted in calls:
        found = decide(
            rule, [], host="a", created=START, complete=True, minimum=minimum, asked=asked
        )
        assert found.keep == wanted


def test_an_always_incomplete_host_keeps_its_history() -> None:
    """A laptop on which something is always unreadable: a carrier for each of four months."""
    rules = KeepRules(within=7 * DAY, tiers={"monthly": 372 * DAY})
    history = History(rules)
    carriers = [
        at
        for at in every(datetime(2026, 1, 1, tzinfo=UTC), 400, 6 * HOUR)
        if history.run(at, complete=False).tiers
    ]
    assert [at.month for at in carriers] == [1, 2, 3, 4]


# --- calendars ---

ZONES = [
    "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/St_Johns",
    "Africa/Casablanca", "Asia/Kathmandu",
]  # fmt: skip


@pytest.mark.parametrize("zone", ZONES)
def test_no_hour_and_no_day_is_doubled_or_lost_where_clocks_change(zone: str) -> None:
    """A run each quarter of an hour for a year: one carrier for each hour, one for each day."""
    rules = KeepRules(within=HOUR, tiers={}, zone=ZoneInfo(zone))
    start = datetime(2026, 1, 1, tzinfo=UTC)
    moments = list(every(start, 366 * 96, 15 * timedelta(minutes=1)))
    hours = [period("hourly", at, rules.zone) for at in moments]
    days = [period("daily", at, rules.zone) for at in moments]
    assert len(set(hours)) == 366 * 24
    assert hours == sorted(hours)
    assert days == sorted(days)
    local = {at.astimezone(ZoneInfo(zone)).date() for at in moments}
    assert len(set(days)) == len(local)


def test_weeks_are_those_of_iso_8601() -> None:
    """Also where a year has 53, and where a week has days of two years."""
    days = [datetime(2026, 12, 28, tzinfo=UTC) + DAY * n for n in range(14)]
    assert [period_name("weekly", day, UTC) for day in days] == ["2026-W53"] * 7 + ["2027-W01"] * 7
    assert len({period("weekly", day, UTC) for day in days}) == 2


@pytest.mark.parametrize(
    ("tier", "name", "same", "other"),
    [
        ("hourly", "2026-03-02T00Z", timedelta(minutes=42), timedelta(minutes=43)),
        ("daily", "2026-03-02", timedelta(hours=23, minutes=42), timedelta(hours=23, minutes=43)),
        ("weekly", "2026-W10", 6 * DAY, 7 * DAY),
        ("monthly", "2026-03", 29 * DAY, 30 * DAY),
        ("quarterly", "2026-Q1", 29 * DAY, 30 * DAY),
        ("yearly", "2026", 304 * DAY, 305 * DAY),
    ],
)
def test_a_period_begins_and_ends_with_its_calendar(
    tier: str, name: str, same: timedelta, other: timedelta
) -> None:
    """To the minute; its name is what people call it."""
    assert period_name(tier, START, UTC) == name
    assert period(tier, START, UTC) == period(tier, START + same, UTC)
    assert period(tier, START, UTC) != period(tier, START + other, UTC)


def test_days_are_those_of_the_policys_zone() -> None:
    """23:30 UTC is the next day in Berlin."""
    late = datetime(2026, 3, 2, 23, 30, tzinfo=UTC)
    assert period_name("daily", late, ZoneInfo("Europe/Berlin")) == "2026-03-03"
    assert period_name("hourly", late, ZoneInfo("Asia/Kathmandu")) == "2026-03-02T23Z"


def test_there_are_six_tiers_and_no_other() -> None:
    """Each number of periods is at least as long as they are."""
    assert list(TIER_LENGTHS) == ["hourly", "daily", "weekly", "monthly", "quarterly", "yearly"]
    with pytest.raises(ValueError, match="no tier"):
        period("secondly", START, UTC)


def names(found: Sequence[KeepDecision]) -> list[tuple[str, ...]]:
    """The tiers of each."""
    return [each.tiers for each in found]


def test_the_counts_of_the_page_are_those_of_the_decision() -> None:
    """Hourly runs; 7 d, daily 14, weekly 8, monthly 12: docs/retention.md."""
    rules = KeepRules(
        within=7 * DAY, tiers={"daily": 14 * DAY, "weekly": 56 * DAY, "monthly": 372 * DAY}
    )
    by_day = {}
    alive: list[datetime] = []
    start = datetime(2026, 1, 1, 0, 17, tzinfo=UTC)
    recent: list[PastSnapshot] = []
    for number, at in enumerate(every(start, 366 * 24, HOUR)):
        if number % 24 == 0:
            by_day[number // 24] = sum(until > at for until in alive)
            recent = [each for each in recent if each.when > at - 32 * DAY]
        found = decide(rules, recent, host="a", created=at, complete=True, minimum=MINIMUM)
        until = at + DAY + found.keep
        alive.append(until)
        if found.tiers:  # none other can cover a period
            recent.append(PastSnapshot(host="a", when=at, until=until, complete=True))
    assert [by_day[day] for day in (1, 8, 30, 365)] == [24, 192, 201, 216]
