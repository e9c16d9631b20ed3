"""Which objectives of a policy are met, and which of its runs were missed; pure."""

import dataclasses
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Final

from vault.policy.schedules import CronSchedule, known_zone
from vault.policy.terms import DatasetTerms, ScheduleTerms
from vault.repository.dataset_status import Check, DatasetStatus

_MOST_RUNS: Final = 100_000  # that are looked for


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class MissedObjective:
    """An objective that is not met."""

    objective: str  # rpo, verify or drill
    allowed: timedelta
    age: timedelta | None  # None: it never was


def missed_objectives(
    terms: DatasetTerms, state: DatasetStatus, checked: Iterable[Check], now: datetime
) -> list[MissedObjective]:
    """The objectives of a dataset that are missed now.

    Args:
        terms: What is promised.
        state: Of the dataset.
        checked: Checks of any of its snapshots that passed whole; a restore verifies, too.
        now: The moment.
    """
    passed = list(checked)
    ages = {
        "rpo": state.age,
        "verify": _age([each.finished for each in passed if each.type != "drill"], now),
        "drill": _age([each.finished for each in passed if each.type == "drill"], now),
    }
    return [
        MissedObjective(objective=name, allowed=timedelta(seconds=allowed), age=ages[name])
        for name, allowed in terms.objectives.items()
        if name in ages and _is_missed(ages[name], timedelta(seconds=allowed))
    ]


def _age(times: Sequence[datetime], now: datetime) -> timedelta | None:
    return max(now - max(times), timedelta()) if times else None


def _is_missed(age: timedelta | None, allowed: timedelta) -> bool:
    return age is None or age > allowed


def missed_runs(
    schedule: ScheduleTerms,
    timezone: str,
    taken: Iterable[datetime],
    *,
    since: datetime,
    now: datetime,
) -> tuple[int, int]:
    """How many runs the schedule wanted, and how many of them brought no snapshot.

    A run has until the next one's time to bring it; the last is looked at once that is over.

    Args:
        schedule: Of the dataset.
        timezone: Whose clock it goes by.
        taken: When snapshots were taken.
        since: Runs before it are left out; so are those before the first snapshot.
        now: The moment.
    """
    times = sorted(taken)
    wanted = missed = 0
    begin: datetime | None = None
    place = 0
    for at in CronSchedule(schedule.cron, known_zone(timezone)).runs(since):
        if at > now or wanted == _MOST_RUNS:
            break
        if begin is not None:
            wanted += 1
            while place < len(times) and times[place] < begin:
                place += 1
            if place == len(times) or times[place] >= at:
                missed += 1
        begin = at
    return wanted, missed
