"""How long a snapshot is kept: the decision when it is taken; pure (docs/retention.md).

The first complete snapshot of an hour, a day, a week, and so on, carries the tier of that period.
A period is covered by *length*: by any sound snapshot in it that is kept as long as the tier
asks, however it came to be. So nothing that is forged, short, incomplete, or of another host
takes a tier from a good snapshot, and anyone can repeat the decision from public data.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Final, Literal, TypeAlias

_DAY: Final = timedelta(days=1)
TIER_LENGTHS: Final[Mapping[str, timedelta]] = {  # what a whole number of periods stands for
    "hourly": timedelta(hours=1),
    "daily": _DAY,
    "weekly": 7 * _DAY,
    "monthly": 31 * _DAY,
    "quarterly": 92 * _DAY,
    "yearly": 366 * _DAY,
}

Period: TypeAlias = tuple[int, ...]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class KeepRules:
    """What a policy says of one dataset, as far as the decision goes."""

    within: timedelta  # every snapshot
    tiers: Mapping[str, timedelta] = dataclasses.field(default_factory=dict)  # of `TIER_LENGTHS`
    zone: tzinfo = UTC  # whose calendar all periods but hours go by
    incomplete: Literal["stand-in", "never"] = "stand-in"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PastSnapshot:
    """A valid snapshot of the dataset that stands in the ledger before the candidate."""

    host: str  # the id of its key, the same for all keys that replaced each other
    when: datetime  # when it was taken, as far as that is believed (docs/format.md 2.6)
    until: datetime  # until when it is owed (docs/format.md 2.6)
    complete: bool
    sound: bool = True


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class KeepDecision:
    """For how long to keep a snapshot, and why."""

    keep: timedelta
    tiers: tuple[str, ...]  # that it carries, in the order of `TIER_LENGTHS`
    reasons: tuple[str, ...]  # for people: "first daily of 2026-11-27"


class PeriodCoverage:
    """Which periods the sound snapshots of one host cover, and for how long.

    Args:
        tiers: Of `TIER_LENGTHS`: those that will be asked about.
        zone: Whose calendar it is.
    """

    def __init__(self, tiers: Iterable[str], zone: tzinfo) -> None:
        self._tiers = tuple(tiers)
        self._zone = zone
        # the longest time for which a snapshot of a period is kept: of complete ones, and of all
        self._complete: dict[tuple[str, Period], timedelta] = {}
        self._any: dict[tuple[str, Period], timedelta] = {}

    def add(self, when: datetime, until: datetime, *, complete: bool) -> None:
        """A sound snapshot: when it was taken, until when it is owed."""
        length = until - when
        for tier in self._tiers:
            place = tier, period(tier, when, self._zone)
            for found in (self._complete, self._any) if complete else (self._any,):
                found[place] = max(found.get(place, length), length)

    def covers(self, tier: str, when: datetime, keep: timedelta, *, complete: bool) -> bool:
        """Whether a snapshot of that period is kept as long; ``complete``: a complete one."""
        found = self._complete if complete else self._any
        length = found.get((tier, period(tier, when, self._zone)))
        return length is not None and length >= keep


def decide(
    rules: KeepRules,
    past: Iterable[PastSnapshot],
    *,
    host: str,
    created: datetime,
    complete: bool,
    minimum: timedelta,
    asked: timedelta | None = None,
) -> KeepDecision:
    """For how long to keep the snapshot that is being taken.

    Args:
        rules: Of its dataset.
        past: The dataset's snapshots before it, of all hosts, in any order.
        host: Who takes it, named as in `PastSnapshot.host`.
        created: When it was begun, aware.
        complete: Whether it misses nothing.
        minimum: The shortest retention of the repository.
        asked: What ``--retain`` asks for; None where it is not given.
    """
    coverage = PeriodCoverage(rules.tiers, rules.zone)
    for each in past:
        if each.host == host and each.sound:
            coverage.add(each.when, each.until, complete=each.complete)
    return decide_covered(
        rules, coverage, created=created, complete=complete, minimum=minimum, asked=asked
    )


def decide_covered(
    rules: KeepRules,
    coverage: PeriodCoverage,
    *,
    created: datetime,
    complete: bool,
    minimum: timedelta,
    asked: timedelta | None = None,
) -> KeepDecision:
    """The same, where what covers periods is known already."""
    keep = max(rules.within, minimum, asked or minimum)
    granted = [
        tier
        for tier in TIER_LENGTHS
        if (length := rules.tiers.get(tier))
        and (complete or rules.incomplete == "stand-in")
        and not coverage.covers(tier, created, length, complete=complete)
    ]
    return KeepDecision(
        keep=max([keep, *(rules.tiers[tier] for tier in granted)]),
        tiers=tuple(granted),
        reasons=tuple(
            f"first {tier} of {period_name(tier, created, rules.zone)}" for tier in granted
        ),
    )


def period(tier: str, moment: datetime, zone: tzinfo) -> Period:
    """The period of a tier in which a moment lies; equal for moments of one period.

    Hours are those of UTC, so that none is doubled or lost where a zone changes to or from
    summer time. All others are those of the zone's calendar; weeks are ISO weeks.
    """
    if tier == "hourly":
        return (int(moment.timestamp() // 3600),)
    day = moment.astimezone(zone).date()
    match tier:
        case "daily":
            return (day.toordinal(),)
        case "weekly":
            return tuple(day.isocalendar())[:2]
        case "monthly":
            return (day.year, day.month)
        case "quarterly":
            return (day.year, (day.month - 1) // 3)
        case "yearly":
            return (day.year,)
        case _:
            raise ValueError(f"there is no tier {tier}")


def period_name(tier: str, moment: datetime, zone: tzinfo) -> str:
    """The period for people: ``2026-11-27``, ``2026-W48``, ``2026-Q4``."""
    local = moment.astimezone(UTC if tier == "hourly" else zone)
    match tier:
        case "hourly":
            return f"{local:%Y-%m-%dT%HZ}"
        case "daily":
            return f"{local:%Y-%m-%d}"
        case "weekly":
            return f"{local:%G-W%V}"
        case "monthly":
            return f"{local:%Y-%m}"
        case "quarterly":
            return f"{local:%Y}-Q{(local.month + 2) // 3}"
        case _:
            return f"{local:%Y}"
