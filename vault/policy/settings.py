"""What a policy says of one dataset: its own keys, else those of the top, else the defaults."""

import dataclasses
from collections.abc import Mapping
from datetime import timedelta, tzinfo
from typing import Final, TypeVar

import msgspec
from msgspec import UNSET, UnsetType

from vault.durations import LONGEST_DURATION, parse_duration
from vault.errors import ConfigError
from vault.policy.keeping import TIERS, KeepRules
from vault.policy.tables import DatasetTable, Incomplete, LockWanted, PolicyTable

DEFAULT_WITHIN: Final = "30d"
DEFAULT_LAST: Final = 3

_TableT = TypeVar("_TableT", bound=msgspec.Struct)
_T = TypeVar("_T")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class EffectiveRetention:
    """The retention of one dataset."""

    within: timedelta  # every snapshot
    tiers: Mapping[str, timedelta]  # of `TIERS`, in their order; without those that keep nothing
    last: int  # complete snapshots that are kept however old
    incomplete: Incomplete
    lock: LockWanted | None  # None: whatever the repository has

    def rules(self, zone: tzinfo) -> KeepRules:
        """As the decision takes them."""
        return KeepRules(
            within=self.within, tiers=self.tiers, zone=zone, incomplete=self.incomplete
        )


def effective_retention(policy: PolicyTable, dataset: DatasetTable) -> EffectiveRetention:
    """The retention of a dataset.

    Raises:
        ConfigError: A duration is over a hundred years.
    """
    said = _inherited(dataset.retention, policy.retention)
    tiers = {name: tier_keep(name, getattr(said, name)) for name in TIERS}
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


def effective_cron(policy: PolicyTable, dataset: DatasetTable) -> str | None:
    """The cron line of a dataset; None where nothing starts it."""
    if isinstance(dataset.cron, str):
        return dataset.cron
    return None if isinstance(policy.schedule, UnsetType) else policy.schedule.cron


def tier_keep(tier: str, value: object) -> timedelta:
    """How long a tier keeps: a number of its periods, or a duration; nothing where it is UNSET.

    Raises:
        ConfigError: Over a hundred years.
    """
    if isinstance(value, str):
        return parse_duration(value)
    span = TIERS[tier] * (value if isinstance(value, int) else 0)
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
