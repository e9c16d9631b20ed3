"""Cron lines: their times, compared with a look at every minute; their gaps; what clocks skip."""

import itertools
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from vault.errors import ConfigError
from vault.policy.schedules import CronSchedule, known_zone

BERLIN = ZoneInfo("Europe/Berlin")


def minutes(start: datetime, days: int) -> list[datetime]:
    """Every minute of some days."""
    return [start + timedelta(minutes=n) for n in range(days * 1440)]


@pytest.mark.parametrize(
    ("line", "wants"),
    [
        ("17 * * * *", lambda t: t.minute == 17),
        ("*/20 6-8 * * *", lambda t: t.minute % 20 == 0 and 6 <= t.hour <= 8),
        ("5 2 * * 1-5", lambda t: (t.hour, t.minute) == (2, 5) and t.weekday() < 5),
        ("0 0 1,15 * *", lambda t: (t.hour, t.minute) == (0, 0) and t.day in {1, 15}),
        ("30 1 * jan,feb sun", lambda t: (t.hour, t.minute, t.weekday()) == (1, 30, 6)),
        ("@daily", lambda t: (t.hour, t.minute) == (0, 0)),
        ("0 4 * * 7", lambda t: (t.hour, t.minute, t.weekday()) == (4, 0, 6)),
    ],
)
def test_a_line_names_the_minutes_that_its_fields_name(line: str, wants: object) -> None:
    """In UTC; each minute of seven weeks is looked at."""
    assert callable(wants)
    start = datetime(2026, 1, 1, tzinfo=UTC)
    wanted = [moment for moment in minutes(start, 49) if wants(moment)]
    schedule = CronSchedule(line, ZoneInfo("UTC"))
    runs = schedule.runs(start - timedelta(seconds=1))
    assert [next(runs) for _ in wanted] == wanted
    gaps = [b - a for a, b in itertools.pairwise(wanted)]
    assert schedule.longest_gap() >= max(gaps)
    assert schedule.newest(wanted[3]) == wanted[3]
    assert schedule.newest(wanted[3] - timedelta(seconds=1)) == wanted[2]


@pytest.mark.parametrize(
    ("line", "gap"),
    [
        ("* * * * *", timedelta(minutes=1)),
        ("17 * * * *", timedelta(hours=1)),
        ("5 8-18/2 * * 1-5", timedelta(days=2, hours=14)),  # from Friday to Monday
        ("0 4 1,15 * *", timedelta(days=17)),
        ("@monthly", timedelta(days=31)),
        ("0 9 29 2 *", timedelta(days=1461)),
    ],
)
def test_the_longest_gap_is_found_wherever_it_lies(line: str, gap: timedelta) -> None:
    """Over nights, weekends, months and leap years."""
    assert CronSchedule(line, ZoneInfo("UTC")).longest_gap() == gap


def test_a_gap_is_an_hour_longer_when_summer_time_ends() -> None:
    """Once a year a day has 25 hours."""
    assert CronSchedule("17 4 * * *", BERLIN).longest_gap() == timedelta(hours=25)


def test_a_time_that_a_clock_skips_is_found() -> None:
    """At the start of summer time, of the zone that the line goes by."""
    skipped = CronSchedule("30 2 * * *", BERLIN).skipped()
    assert skipped is not None
    assert skipped.replace(tzinfo=None) == datetime(2026, 3, 29, 2, 30)  # noqa: DTZ001 - local
    assert CronSchedule("30 3 * * *", BERLIN).skipped() is None
    assert CronSchedule("30 2 * * *", ZoneInfo("UTC")).skipped() is None
    assert CronSchedule("30 * * * *", BERLIN).skipped() is None  # the next hour has its own


@pytest.mark.parametrize(
    "line",
    [
        "", "17", "* * * *", "* * * * * *", "60 * * * *", "* 24 * * *", "* * 0 * *", "* * * 13 *",
        "* * * * 8", "5-1 * * * *", "*/0 * * * *", "0 0 30 2 *", "0 0 L * *", "0 0 * * 5#2",
        "0 0 * * 5L", "0 0 1 * 1", "mon * * * *", "* * * * monday", "@reboot", "@hourly @daily",
        "٣ * * * *", "1, * * * *", "99999999999999999999999 * * * *", "1-2-3 * * * *",
    ],
)  # fmt: skip
def test_anything_else_is_no_cron_line(line: str) -> None:
    """Neither what cron does not know nor what systemd and cron read differently."""
    with pytest.raises(ConfigError, match="cron"):
        CronSchedule(line, ZoneInfo("UTC"))


def test_a_zone_must_be_one_that_this_machine_knows() -> None:
    """By its name, never by a path."""
    assert known_zone("Europe/Berlin").key == "Europe/Berlin"
    for name in ("Berlin", "../etc/passwd", "", "posix/UTC", "/etc/localtime"):
        with pytest.raises(ConfigError, match="no time zone"):
            known_zone(name)
