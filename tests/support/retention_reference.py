"""How long snapshots are kept, once more, from the words of docs/retention.md alone.

It judges `vault.policy.keeping` and imports nothing of the vault. It is written to be read beside
the page, with every statement looked at for every question, not to be quick.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

DAY = timedelta(days=1)
LENGTHS = {
    "hourly": timedelta(hours=1),
    "daily": DAY,
    "weekly": 7 * DAY,
    "monthly": 31 * DAY,
    "quarterly": 92 * DAY,
    "yearly": 366 * DAY,
}
_SKEW = timedelta(minutes=5)
_MARGIN = timedelta(hours=24)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stated:
    """A snapshot as statements and the store tell of it."""

    dataset: str
    key: str
    created: datetime  # as its host says
    stored: datetime  # by the store's clock
    until: datetime
    complete: bool
    failed: bool = False  # the last check of exactly this snapshot


@dataclasses.dataclass(frozen=True, kw_only=True)
class Asked:
    """What a policy asks for one dataset."""

    within: timedelta
    tiers: Mapping[str, timedelta]
    zone: str = "UTC"
    incomplete: str = "stand-in"


def taken(snapshot: Stated) -> datetime:
    """`when`: the host's time, unless the store took it over 5 minutes before that."""
    if snapshot.created > snapshot.stored + _SKEW:
        return snapshot.stored
    return snapshot.created


def first_key(key: str, replaced: Mapping[str, str]) -> str:
    """The first key of a host, of which all later ones are replacements, step by step."""
    while key in replaced:
        key = replaced[key]
    return key


def same_period(tier: str, a: datetime, b: datetime, zone: str) -> bool:
    """Whether two moments lie in one hour of UTC, or in one day, week … of a zone."""
    if tier == "hourly":
        return a.astimezone(UTC).strftime("%F %H") == b.astimezone(UTC).strftime("%F %H")
    x, y = (moment.astimezone(ZoneInfo(zone)).date() for moment in (a, b))
    if tier == "daily":
        return x == y
    if tier == "weekly":
        return _monday(x) == _monday(y)
    if tier == "monthly":
        return x.replace(day=1) == y.replace(day=1)
    if tier == "quarterly":
        return (x.year, (x.month + 2) // 3) == (y.year, (y.month + 2) // 3)
    return x.year == y.year


def _monday(day: date) -> date:
    return day - timedelta(days=day.weekday())


def covers(
    snapshot: Stated, tier: str, candidate: Stated, asked: Asked, replaced: Mapping[str, str]
) -> bool:
    """Whether an earlier snapshot covers the candidate's period of a tier."""
    return (
        snapshot.dataset == candidate.dataset
        and first_key(snapshot.key, replaced) == first_key(candidate.key, replaced)
        and not snapshot.failed
        and same_period(tier, taken(snapshot), candidate.created, asked.zone)
        and snapshot.until >= taken(snapshot) + asked.tiers[tier]
    )


def keep_of(
    asked: Asked,
    earlier: Sequence[Stated],
    candidate: Stated,
    *,
    minimum: timedelta,
    retain: timedelta | None = None,
    replaced: Mapping[str, str] | None = None,
) -> tuple[timedelta, list[str]]:
    """For how long a candidate is kept, and the tiers that it gets."""
    got = []
    for tier, length in asked.tiers.items():
        if length == timedelta():
            continue
        covering = [s for s in earlier if covers(s, tier, candidate, asked, replaced or {})]
        if candidate.complete:
            if not any(s.complete for s in covering):
                got.append(tier)
        elif asked.incomplete == "stand-in" and not covering:
            got.append(tier)
    lengths = [asked.within, minimum, *(asked.tiers[tier] for tier in got)]
    return max([*lengths, *([retain] if retain is not None else [])]), got


def until_of(candidate: Stated, keep: timedelta, *, margin: timedelta = _MARGIN) -> datetime:
    """Until when the candidate is owed, if it is stored at once."""
    return max(candidate.created + margin, candidate.stored) + keep
