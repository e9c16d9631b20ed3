"""What a policy would keep: counted once more, run by run."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from vault.errors import ConfigError
from vault.policy import forecast as module
from vault.policy.forecast import forecast
from vault.policy.keeping import KeepRules
from vault.policy.schedules import CronSchedule

DAY = timedelta(days=1)
START = datetime(2026, 1, 1, tzinfo=UTC)
UTC_ZONE = ZoneInfo("UTC")


def test_an_hourly_policy_keeps_what_the_page_says() -> None:
    """docs/retention.md; a minute before a run there is one more, which then goes."""
    rules = KeepRules(
        within=7 * DAY, tiers={"daily": 14 * DAY, "weekly": 56 * DAY, "monthly": 372 * DAY}
    )
    hourly = CronSchedule("17 * * * *", UTC_ZONE)
    start = START + timedelta(minutes=16)
    found = forecast(rules, hourly, start, [1, 8, 30, 365], minimum=DAY)
    assert found.runs == 365 * 24
    assert [each.snapshots for each in found.days] == [24, 192, 202, 217]
    assert [sum(each.by_reason.values()) for each in found.days] == [24, 192, 202, 217]
    assert found.days[2].by_reason == {"within": 192, "daily": 6, "weekly": 3, "monthly": 1}
    assert found.carriers == {"daily": 365, "weekly": 53, "monthly": 12}
    assert found.first_until == start + timedelta(minutes=1) + 373 * DAY
    assert found.days[3].oldest == start + timedelta(minutes=1)


def test_without_tiers_every_snapshot_is_kept_for_within() -> None:
    """And for the day that is added for runs that take long."""
    daily = CronSchedule("@daily", UTC_ZONE)
    found = forecast(KeepRules(within=10 * DAY), daily, START, [5, 100], minimum=DAY)
    assert [each.snapshots for each in found.days] == [5, 11]
    assert found.carriers == {}


def test_the_repositorys_minimum_counts_where_it_is_longer() -> None:
    """As it does when a snapshot is taken."""
    daily = CronSchedule("@daily", UTC_ZONE)
    found = forecast(KeepRules(within=DAY), daily, START, [100], minimum=20 * DAY)
    assert found.days[0].snapshots == 21


def test_too_many_runs_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A policy file is not trusted with hours of work."""
    monkeypatch.setattr(module, "MAX_FORECAST_RUNS", 100)
    rules = KeepRules(within=DAY)
    with pytest.raises(ConfigError, match="so many runs"):
        forecast(rules, CronSchedule("* * * * *", UTC_ZONE), START, [1], minimum=DAY)
    assert forecast(rules, CronSchedule("@daily", UTC_ZONE), START, [90], minimum=DAY).runs == 90
