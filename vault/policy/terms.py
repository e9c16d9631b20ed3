"""What a policy publishes: its terms, as they are signed for and stored (docs/format.md 2.4).

Terms hold names, schedule, retention, objectives and the digests of recovery checks. They hold no
path, command or address: anyone who may read the store may read them.
"""

from collections.abc import Iterator
from datetime import timedelta
from typing import Annotated, Any, Final, Literal, TypeAlias, cast

import msgspec
from msgspec import Meta

from vault.durations import format_duration
from vault.encoding import dumps, loads_canonical
from vault.errors import FormatError
from vault.ledger.statements import TIER_NAMES
from vault.model import Digest
from vault.policy.checks import checks_digest
from vault.policy.dataset_names import governs
from vault.policy.keeping import KeepRules
from vault.policy.schedules import known_zone
from vault.policy.settings import effective_objectives, effective_retention, effective_schedule
from vault.policy.tables import MAX_DATASETS, DatasetName, DatasetTable, Label, PolicyTable

MAX_TERMS: Final = 256 << 10  # bytes
TERMS_SCHEMA: Final = "vault/policy-terms/v1"

Seconds: TypeAlias = Annotated[int, Meta(ge=1, le=100 * 366 * 86_400)]
TierName: TypeAlias = Literal["hourly", "daily", "weekly", "monthly", "quarterly", "yearly"]
ObjectiveName: TypeAlias = Literal["rpo", "rto", "verify", "drill"]
_ShortText: TypeAlias = Annotated[str, Meta(max_length=200)]


class _Terms(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """Strict: what a reader does not know, it could not compare or obey."""


class ScheduleTerms(_Terms, frozen=True, kw_only=True):
    """When a dataset is stored."""

    cron: _ShortText
    jitter: Annotated[int, Meta(ge=0, le=100 * 366 * 86_400)]  # seconds
    missed: Literal["run", "skip"]


class CheckTerms(_Terms, frozen=True, kw_only=True):
    """The recovery checks of a dataset."""

    digest: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]  # of `checks_json`
    names: Annotated[list[Label], Meta(min_length=1, max_length=100)]


class DatasetTerms(_Terms, frozen=True, kw_only=True):
    """What is promised of a dataset, or of one on each host."""

    name: DatasetName
    within: Seconds
    tiers: dict[TierName, Seconds]
    last: Annotated[int, Meta(ge=0, le=1000)]
    incomplete: Literal["stand-in", "never"]
    lock: Literal["", "governance", "compliance"]
    objectives: dict[ObjectiveName, Seconds]
    schedule: ScheduleTerms | None
    checks: CheckTerms | None

    def governs(self, dataset: str) -> bool:
        """Whether it is about a dataset of a repository."""
        return governs(self.name, dataset)

    def rules(self, timezone: str) -> KeepRules:
        """As the decision takes them.

        Raises:
            ConfigError: This machine does not know the zone.
        """
        return KeepRules(
            within=timedelta(seconds=self.within),
            tiers={
                tier: timedelta(seconds=self.tiers[tier])
                for tier in TIER_NAMES
                if tier in self.tiers
            },
            zone=known_zone(timezone),
            incomplete=self.incomplete,
        )


class PolicyTerms(_Terms, frozen=True, kw_only=True):
    """The terms of a policy."""

    schema: Literal["vault/policy-terms/v1"]
    name: Label
    owner: _ShortText
    criticality: Literal["low", "normal", "high", "critical"]
    timezone: _ShortText
    datasets: Annotated[list[DatasetTerms], Meta(min_length=1, max_length=MAX_DATASETS)]

    def encode(self) -> bytes:
        """The canonical JSON that is stored."""
        return dumps(msgspec.to_builtins(self))

    @property
    def digest(self) -> Digest:
        """The digest by which a statement cites them."""
        return Digest.of(self.encode())


def terms_of(policy: PolicyTable) -> PolicyTerms:
    """What a policy file publishes."""
    return PolicyTerms(
        schema=TERMS_SCHEMA,
        name=policy.name,
        owner=policy.owner,
        criticality=policy.criticality,
        timezone=policy.timezone,
        datasets=[_dataset_terms(policy, each) for each in policy.dataset],
    )


def parse_terms(data: bytes) -> PolicyTerms:
    """Terms that a statement cites, from the bytes of its evidence.

    Raises:
        FormatError: They are no terms that this program understands.
    """
    if len(data) > MAX_TERMS:
        raise FormatError(
            "terms of a policy are too long", expected=f"at most {MAX_TERMS} bytes", found=len(data)
        )
    fields: Any = loads_canonical(data)
    try:
        return msgspec.convert(fields, PolicyTerms, strict=True)
    except msgspec.ValidationError as error:
        raise FormatError("not the terms of a policy", found=str(error)[:120]) from error


def _dataset_terms(policy: PolicyTable, dataset: DatasetTable) -> DatasetTerms:
    retention = effective_retention(policy, dataset)
    return DatasetTerms(
        name=dataset.name,
        within=_seconds(retention.within),
        tiers=cast(
            "dict[TierName, int]",
            {tier: _seconds(keep) for tier, keep in retention.tiers.items()},
        ),
        last=retention.last,
        incomplete=retention.incomplete,
        lock=retention.lock or "",
        objectives=cast(
            "dict[ObjectiveName, int]",
            {name: _seconds(span) for name, span in effective_objectives(policy, dataset).items()},
        ),
        schedule=_schedule_terms(policy, dataset),
        checks=CheckTerms(
            digest=checks_digest(dataset.check), names=[each.name for each in dataset.check]
        )
        if dataset.check
        else None,
    )


def _schedule_terms(policy: PolicyTable, dataset: DatasetTable) -> ScheduleTerms | None:
    found = effective_schedule(policy, dataset)
    if found is None:
        return None
    return ScheduleTerms(cron=found.cron, jitter=_seconds(found.jitter), missed=found.missed)


def _seconds(span: timedelta) -> int:
    return int(span.total_seconds())


# --- weaker ---


def weaker(old: PolicyTerms, new: PolicyTerms) -> list[str]:
    """What new terms keep or demand less of than the old ones, a line each; empty if nothing.

    It goes by the terms alone, so that everyone finds the same: less time, fewer snapshots, weaker
    locks, longer objectives, and checks or datasets that are gone or changed.
    """
    by_name = {dataset.name: dataset for dataset in new.datasets}
    found = []
    for dataset in old.datasets:
        if dataset.name in by_name:
            said = _weaker_dataset(dataset, by_name[dataset.name])
            found += [f"{dataset.name}: {each}" for each in said]
        else:
            found.append(f"{dataset.name}: is no longer in the policy")
    return found


_LOCKS: Final = ("", "governance", "compliance")  # from weak to strong


def _weaker_dataset(old: DatasetTerms, new: DatasetTerms) -> Iterator[str]:
    if new.within < old.within:
        yield f"within from {_span(old.within)} to {_span(new.within)}"
    for tier, before in old.tiers.items():
        if (after := new.tiers.get(tier, 0)) < before:
            yield f"{tier} from {_span(before)} to {_span(after)}"
    if new.last < old.last:
        yield f"last from {old.last} to {new.last}"
    if (old.incomplete, new.incomplete) == ("never", "stand-in"):
        yield "incomplete from never to stand-in"
    if _LOCKS.index(new.lock) < _LOCKS.index(old.lock):
        yield f"lock from {old.lock} to {new.lock or 'any'}"
    for name, limit in old.objectives.items():
        allowed = new.objectives.get(name, 0)
        if not allowed or allowed > limit:
            yield f"objective {name} from {_span(limit)} to {_span(allowed)}"
    if old.checks is not None and new.checks != old.checks:
        gone = set(old.checks.names) - set(new.checks.names if new.checks else [])
        yield f"checks gone: {', '.join(sorted(gone))}" if gone else "checks changed"


def _span(seconds: int) -> str:
    return format_duration(timedelta(seconds=seconds)) if seconds else "none"
