"""What a policy would keep day by day, if every run came and was complete; pure."""

import bisect
import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final

from vault.errors import ConfigError
from vault.policy.keeping import TIER_LENGTHS, KeepRules, PeriodCoverage, decide_covered
from vault.policy.schedules import CronSchedule
from vault.retention import snapshot_until

MAX_FORECAST_RUNS: Final = 200_000


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class KeptOnDay:
    """What is kept after so many days."""

    day: int
    snapshots: int
    by_reason: Mapping[str, int]  # "within", and by tier: what keeps it at that moment
    oldest: datetime | None  # when the oldest of them was taken


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """What one dataset would have."""

    runs: int
    days: tuple[KeptOnDay, ...]
    carriers: Mapping[str, int]  # runs that carry each tier; new packs of those are locked twice
    first_until: datetime | None  # until when the first run's snapshot is kept
    last_until: datetime | None  # when the last of all would be free to go


@dataclasses.dataclass(frozen=True, slots=True)
class _Kept:
    at: datetime
    until: datetime
    within: datetime  # until when it would be kept without a tier
    tiers: tuple[str, ...]  # that it carries, the longest last


def forecast(
    rules: KeepRules,
    schedule: CronSchedule,
    start: datetime,
    days: Sequence[int],
    *,
    minimum: timedelta,
) -> Forecast:
    """Runs from a moment on, and what is kept after some days.

    Args:
        rules: Of the dataset.
        schedule: When it runs.
        start: The moment at which it begins, aware.
        days: To look at, ascending; the last one ends the forecast.
        minimum: The shortest retention of the repository.

    Raises:
        ConfigError: There would be over `MAX_FORECAST_RUNS` runs.
        RetentionError: A snapshot would be kept longer than any lock may last.
    """
    end = start + timedelta(days=days[-1])
    kept = _runs(rules, schedule, start, end, minimum)
    times = [each.at for each in kept]
    seen = [_on_day(kept[: bisect.bisect_right(times, start + timedelta(days=day))], start, day)
            for day in days]  # fmt: skip
    carriers = Counter(tier for each in kept for tier in each.tiers)
    return Forecast(
        runs=len(kept),
        days=tuple(seen),
        carriers={tier: carriers[tier] for tier in TIER_LENGTHS if tier in carriers},
        first_until=kept[0].until if kept else None,
        last_until=max((each.until for each in kept), default=None),
    )


def _runs(
    rules: KeepRules,
    schedule: CronSchedule,
    start: datetime,
    end: datetime,
    minimum: timedelta,
) -> list[_Kept]:
    coverage = PeriodCoverage(rules.tiers, rules.zone)
    kept: list[_Kept] = []
    for at in schedule.runs(start):
        if at > end:
            break
        if len(kept) == MAX_FORECAST_RUNS:
            raise ConfigError(
                "so many runs can't be simulated",
                expected=f"at most {MAX_FORECAST_RUNS:,}",
                hint="take fewer days",
            )
        decision = decide_covered(rules, coverage, created=at, complete=True, minimum=minimum)
        until = snapshot_until(at, decision.keep, at)
        coverage.add(at, until, complete=True)
        tiers = tuple(sorted(decision.tiers, key=rules.tiers.__getitem__))
        within = snapshot_until(at, max(rules.within, minimum), at)
        kept.append(_Kept(at, until, within, tiers))
    return kept


def _on_day(kept: Sequence[_Kept], start: datetime, day: int) -> KeptOnDay:
    now = start + timedelta(days=day)
    live = [each for each in kept if each.until > now]
    reasons = Counter("within" if each.within > now else each.tiers[-1] for each in live)
    return KeptOnDay(
        day=day,
        snapshots=len(live),
        by_reason={name: reasons[name] for name in ("within", *TIER_LENGTHS) if name in reasons},
        oldest=min((each.at for each in live), default=None),
    )
