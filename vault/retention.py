"""When locks end and what follows from it; pure (I7, I8, I9, docs/invariants.md)."""

import dataclasses
from datetime import UTC, datetime, timedelta

from vault.clock import MAX_SKEW, to_rfc3339
from vault.errors import ConfigError, RetentionError
from vault.model import LAST_LOCK
from vault.parameters import Parameters

REUSE_GRACE = timedelta(days=5)  # a pack may be reused this long after its lock ran out
PRUNE_GRACE = timedelta(days=7)  # and is deleted only this long after; the gap is for slow runs
RUN_MARGIN = timedelta(hours=24)  # a run that publishes within it still gives the full retention
SPARE = timedelta(days=90)  # added to the lock of a pack where locks can't be extended


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class KeptFor:
    """For how long a snapshot is kept, and why; its manifest says so."""

    keep: timedelta
    tiers: tuple[str, ...] = ()  # hourly to yearly: those that it is the first of its period for
    policy: str = ""  # digest of the terms that were used


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def lock_target(need: datetime, digest: bytes, grid: int) -> datetime:
    """When to lock an object until, so that it is locked at least until ``need``.

    Lock dates lie on a grid, so that an object which every snapshot reuses is
    extended once per period, and each object has a phase of its own, so that the
    extends of a repository are spread over the period (I8).

    Args:
        need: The moment up to which the object is needed; aware.
        digest: SHA-256 of the object; its first bytes decide the phase.
        grid: The period in seconds.

    Returns:
        Whole seconds, UTC: the object's first grid date not before ``need``, or
        `LAST_LOCK` where that is earlier.

    Raises:
        ConfigError: The grid is shorter than a second.
        RetentionError: ``need`` itself is later than any lock may be.
    """
    if grid < 1:
        raise ConfigError("lock grid is not a period", expected="at least 1 s", found=grid)
    if need > LAST_LOCK:
        raise RetentionError(
            "no lock can last that long", expected=f"at most {to_rfc3339(LAST_LOCK)}", found=need
        )
    phase = int.from_bytes(digest[:8], "big") % grid
    seconds = _seconds_up(need)
    seconds += (phase - seconds) % grid
    last = _seconds_up(LAST_LOCK)
    return _EPOCH + timedelta(seconds=min(seconds, last))


def snapshot_until(
    started: datetime, retention: timedelta, published: datetime | None = None
) -> datetime:
    """Until when a snapshot promises to be restorable.

    Args:
        started: Start of the run.
        retention: What was asked for, as `check_retention` passed it.
        published: When the manifest is about to be published, once that is known.

    Returns:
        Start + retention + 24 h; where publishing took longer than those 24 h,
        publishing + retention. Whole seconds, UTC.

    Raises:
        RetentionError: Later than any lock may be.
    """
    begin = started + RUN_MARGIN
    if published is not None:
        begin = max(begin, published)
    if retention > LAST_LOCK - begin:
        raise RetentionError(
            "retention ends later than any lock may",
            expected=f"at most {to_rfc3339(LAST_LOCK)}",
            found=f"{retention.days} days from {to_rfc3339(begin)}",
        )
    return _EPOCH + timedelta(seconds=_seconds_up(begin + retention))


def ledger_until(now: datetime, parameters: Parameters) -> datetime:
    """The end of a lock for the ledger term that is set now (I2).

    Args:
        now: The time by this machine's clock; the store's, which counts, may be ahead of it (I9).
        parameters: Say how long the term is.
    """
    return now + MAX_SKEW + parameters.ledger_span


def pack_need(until: datetime, parameters: Parameters) -> datetime:
    """Until when to lock a pack that a snapshot needs until ``until``.

    Where locks are never extended, later snapshots may reuse it only while its lock lasts: the
    spare time decides how often everything is stored anew, some four times a year.
    """
    if parameters.extend:
        return until
    return max(until, min(until + SPARE, LAST_LOCK))


def check_retention(seconds: int, parameters: Parameters) -> int:
    """The retention to use for a run, in seconds: what was asked, at least the minimum.

    Raises:
        ConfigError: Negative, or over the repository's maximum.
    """
    if seconds < 0:
        raise ConfigError("retention is negative", found=seconds)
    if seconds > parameters.max_retention:
        raise ConfigError(
            "retention is over the repository's maximum",
            expected=f"at most {parameters.max_retention} s",
            found=f"{seconds} s",
            hint="ask for less; the maximum was fixed when the repository was made",
        )
    return max(seconds, parameters.min_retention)


def fits_default(parameters: Parameters) -> bool:
    """Whether the default retention lies between the shortest and the longest allowed one."""
    return parameters.min_retention <= parameters.default_retention <= parameters.max_retention


def reusable(locked_until: datetime, now: datetime) -> bool:
    """Whether a writer may reuse and extend an object; else it counts as absent (I7)."""
    return now - locked_until < REUSE_GRACE


def prunable(locked_until: datetime, now: datetime) -> bool:
    """Whether a lock ran out so long ago that no run can still be reusing the object (I7)."""
    return now - locked_until >= PRUNE_GRACE


def _seconds_up(moment: datetime) -> int:
    """Whole seconds since 1970, rounded up."""
    return -((_EPOCH - moment) // timedelta(seconds=1))
