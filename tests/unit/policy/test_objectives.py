"""Objectives that are met or missed, and runs that brought nothing."""

from datetime import UTC, datetime, timedelta

import pytest

from tests.support.policies import edited
from vault.policy.objectives import missed_objectives, missed_runs
from vault.policy.terms import ScheduleTerms
from vault.repository.dataset_status import Check, DatasetStatus

NOW = datetime(2026, 3, 10, 12, tzinfo=UTC)
DAY, HOUR = timedelta(days=1), timedelta(hours=1)
TERMS = edited(
    {"[retention]": '[objectives]\nrpo = "5h"\nverify = "30d"\ndrill = "90d"\n[retention]'}
).datasets[0]


def state(age: timedelta | None) -> DatasetStatus:
    """Of a dataset whose newest complete snapshot has that age."""
    return DatasetStatus(
        dataset="data", snapshots=1, owed=1, newest=None, incomplete=None, age=age,
        verification=None, restore=None, failures=(),
    )  # fmt: skip


def check(kind: str, ago: timedelta) -> Check:
    """One that passed."""
    return Check(seq=1, type=kind, verdict="passed", finished=NOW - ago, snapshot=1)


@pytest.mark.parametrize(
    ("age", "checks", "missed"),
    [
        (4 * HOUR, [("verification", 29 * DAY), ("drill", 89 * DAY)], {}),
        (6 * HOUR, [("verification", 29 * DAY), ("drill", 89 * DAY)], {"rpo": 6 * HOUR}),
        (None, [("restore", 29 * DAY), ("drill", 91 * DAY)], {"rpo": None, "drill": 91 * DAY}),
        (4 * HOUR, [], {"verify": None, "drill": None}),
        (4 * HOUR, [("verification", 31 * DAY), ("verification", DAY), ("drill", DAY)], {}),
    ],
)
def test_an_objective_is_missed_when_it_is_older_than_allowed(
    age: timedelta | None,
    checks: list[tuple[str, timedelta]],
    missed: dict[str, timedelta | None],
) -> None:
    """Or when there never was anything; the newest check counts."""
    found = missed_objectives(TERMS, state(age), [check(*each) for each in checks], NOW)
    assert {each.objective: each.age for each in found} == missed


def test_runs_without_a_snapshot_are_counted() -> None:
    """Each has until the next one's time; the last one is not judged before that."""
    hourly = ScheduleTerms(cron="17 * * * *", jitter=600, missed="run")
    since = NOW - 10 * HOUR
    taken = [since + n * HOUR + timedelta(minutes=20) for n in range(10) if n not in {2, 3, 7}]
    assert missed_runs(hourly, "UTC", taken, since=since, now=NOW) == (9, 3)
    assert missed_runs(hourly, "UTC", [], since=since, now=NOW) == (9, 9)
    late = [each + timedelta(minutes=50) for each in taken]
    assert missed_runs(hourly, "UTC", late, since=since, now=NOW)[1] == 3
    assert missed_runs(hourly, "UTC", taken, since=NOW, now=NOW) == (0, 0)
