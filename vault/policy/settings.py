"""What a policy says of one dataset: its own keys, else those of the top, else the defaults."""

import dataclasses
from collections.abc import Mapping
from datetime import timedelta, tzinfo
from typing import Final, Literal, TypeVar

import msgspec
from msgspec import UNSET, UnsetType

from vault.durations import LONGEST_DURATION, parse_duration
from vault.errors import ConfigError
from vault.policy.keeping import TIER_LENGTHS, KeepRules
from vault.policy.tables import (
    DatasetTable,
    Incomplete,
    LockWanted,
    PolicyTable,
    ScheduleTable,
)

DEFAULT_WITHIN: Final = "30d"
DEFAULT_LAST: Final = 3

_TableT = TypeVar("_TableT", bound=msgspec.Struct)
_T = TypeVar("_T")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class EffectiveRetention:
    """The retention of one dataset."""

    within: timedelta  # every snapshot
    tiers: Mapping[
        str, timedelta
    ]  # of `TIER_LENGTHS`, in their order; without those that keep nothing
    last: int  # complete snapshots that are kept however old
    incomplete: Incomplete
    lock: LockWanted | None  # None: whatever the repository has

    def rules(self, zone: tzinfo) -> KeepRules:
        """As the decision takes them."""
        return KeepRules(
            within=self.within, tiers=self.tiers, zone=zone, incomplete=self.incomplete
        )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class EffectiveSchedule:
    """When one dataset is stored."""

    cron: str
    jitter: timedelta  # by which a host may be later
    missed: Literal["run", "skip"]


def effective_retention(policy: PolicyTable, dataset: DatasetTable) -> EffectiveRetention:
    """The retention of a dataset.

    Raises:
        ConfigError: A duration is over a hundred years.
    """
    said = _inherited(dataset.retention, policy.retention)
    tiers = {name: tier_keep(name, getattr(said, name)) for name in TIER_LENGTHS}
    return EffectiveRetention(
        within=parse_duration(_or(said.within, DEFAULT_WITHIN)),
        tiers={name: keep for name, keep in tiers.items() if keep},
        last=_or(said.last, DEFAULT_LAST),
        incomplete=_or(said.incomplete, "stand-in"),
        lock=None if isinstance(said.lock, UnsetType) else said.lock,
    )


def effective_objectives(policy: PolicyTable, dataset: DatasetTable) -> dict[str, timedelta]:
    """The objectives of a dataset by name, without those that are not set.

    Raises:
        ConfigError: A duration is over a hundred years.
    """
    said = _inherited(dataset.objectives, policy.objectives)
    fields = msgspec.structs.asdict(said)
    return {name: parse_duration(text) for name, text in fields.items() if text is not UNSET}


def effective_schedule(policy: PolicyTable, dataset: DatasetTable) -> EffectiveSchedule | None:
    """When a dataset is stored; None where nothing starts it.

    Raises:
        ConfigError: A duration is over a hundred years.
    """
    top = None if isinstance(policy.schedule, UnsetType) else policy.schedule
    if isinstance(dataset.cron, str):
        top = msgspec.structs.replace(top or ScheduleTable(cron=dataset.cron), cron=dataset.cron)
    if top is None:
        return None
    return EffectiveSchedule(cron=top.cron, jitter=parse_duration(top.jitter), missed=top.missed)


def tier_keep(tier: str, value: object) -> timedelta:
    """How long a tier keeps: a number of its periods, or a duration; nothing where it is UNSET.

    Raises:
        ConfigError: Over a hundred years.
    """
    if isinstance(value, str):
        return parse_duration(value)
    span = TIER_LENGTHS[tier] * (value if isinstance(value, int) else 0)
    if span.total_seconds() > LONGEST_DURATION:
        raise ConfigError("longer than any lock", expected="at most a hundred years", found=span)
    return span


def _inherited(own: _TableT, top: _TableT) -> _TableT:
    """A table whose keys that the dataset leaves out are those of the top."""
    fields = msgspec.structs.asdict(own)
    return msgspec.structs.replace(
        top, **{name: value for name, value in fields.items() if value is not UNSET}
    )


def _or(value: _T | UnsetType, default: _T) -> _T:
    return default if isinstance(value, UnsetType) else value
