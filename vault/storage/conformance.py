"""What a bucket really does, tried out before anything depends on it (docs/design.md "Stores").

Servers that speak S3 differ in what they enforce, and some accept a lock and forget it.
`check_store` tries each promise on small objects under ``probe/<random>/``, locked for a
minute at most, and says for each shortfall what the vault does about it.
"""

import dataclasses
from collections.abc import Callable
from datetime import datetime
from enum import StrEnum

from vault.errors import (
    RetentionError,
    StorageUnavailableError,
    VaultError,
)
from vault.model import LockMode
from vault.storage.base import DeniedError, Observed, ServerStore
from vault.storage.conformance_probes import STORE_PROBES, Barred, Bench, Row, Shortfall

_AS_ADMINISTRATOR = "run it with the credentials of the bucket's administrator"


class ProbeOutcome(StrEnum):
    """What a probe saw."""

    KEPT = "kept"
    SHORTFALL = "shortfall"
    UNTESTED = "untested"  # a promise before it is not kept, or access was denied


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """What was seen of one promise."""

    row: Row
    outcome: ProbeOutcome
    found: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class StoreReport:
    """Everything that `check_store` saw; rows in a fixed order."""

    url: str
    probes: tuple[Probe, ...]
    leftovers: str  # the prefix of what was left behind

    def outcome(self, name: str) -> ProbeOutcome:
        """The outcome of the row with that name."""
        return next(probe.outcome for probe in self.probes if probe.row.name == name)

    def shortfalls(self, mode: LockMode) -> tuple[Probe, ...]:
        """Probes that forbid a repository of that lock mode; empty if none does."""
        fatal = {Barred.ALL} if mode is LockMode.NONE else {Barred.ALL, Barred.LOCKED}
        return tuple(
            probe
            for probe in self.probes
            if probe.outcome is not ProbeOutcome.KEPT and probe.row.need in fatal
        )

    @property
    def observed(self) -> Observed:
        """What the client may rely on from now on."""
        return Observed(
            orders_versions_by_commit=self.outcome("version-order") is ProbeOutcome.KEPT,
            refuses_wrong_checksums=self.outcome("checksum") is ProbeOutcome.KEPT,
        )

    @property
    def keeps_locks_from_extenders(self) -> bool:
        """Whether a right to extend locks can't undo one; stored as the root's ``extend``."""
        return self.outcome("shorten") is not ProbeOutcome.SHORTFALL


def require(report: StoreReport, mode: LockMode) -> None:
    """Pass if the store can keep what a repository of that lock mode promises.

    Raises:
        RetentionError: It can't; the message names the first shortfall.
        DeniedError: These credentials may not try a promise that it needs.
    """
    missing = report.shortfalls(mode)
    if not missing:
        return
    first = missing[0]
    if first.outcome is ProbeOutcome.UNTESTED:  # rows come after those they need: this was denied
        raise DeniedError(
            f"whether {report.url} keeps what a repository with lock mode {mode} promises could"
            " not be tried",
            expected=first.row.promise,
            found=first.found,
            hint=_AS_ADMINISTRATOR,
        )
    raise RetentionError(
        f"{report.url} can't keep what a repository with lock mode {mode} promises",
        expected=first.row.promise,
        found=first.found,
        hint="see 'vault store check'; --lock none makes a repository without enforced locks"
        if first.row.need is Barred.LOCKED
        else "see 'vault store check' and choose or set up another bucket",
    )


def check_store(store: ServerStore, *, clock: Callable[[], datetime]) -> StoreReport:
    """Try every promise. Takes a few seconds; leaves some small objects behind.

    Args:
        store: Any bucket and prefix; what is there already is not touched. Where the
            bucket has Object Lock, suspending its versioning is tried, and undone should
            that succeed: use credentials of an administrator to have it really tested.
        clock: That of this machine.

    Raises:
        RepositoryNotFoundError: There is no such bucket.
        StorageUnavailableError: The server does not answer.
        ConfigError: No credentials, or a wrong region.
        DeniedError: These credentials may not even store an object: nothing can be tried.
    """
    bench = Bench(store, clock)
    bench.can_lock = store.traits.enforces_retention
    probes = tuple(_probe(bench, row, attempt) for row, attempt in STORE_PROBES)
    return StoreReport(url=store.url, probes=probes, leftovers=bench.prefix)


def _probe(bench: Bench, row: Row, attempt: Callable[[Bench], str]) -> Probe:
    """Run a probe; errors are shortfalls, except those that say nothing about the store."""
    missing = _missing_for(bench, row)
    if missing:
        return Probe(row=row, outcome=ProbeOutcome.UNTESTED, found=missing)
    try:
        found = attempt(bench)
    except Shortfall as shortfall:
        if shortfall.remedy:
            row = dataclasses.replace(row, need=Barred.NONE, remedy=shortfall.remedy)
        return Probe(row=row, outcome=ProbeOutcome.SHORTFALL, found=str(shortfall))
    except StorageUnavailableError:
        raise
    except DeniedError as refusal:  # says nothing of what the store keeps
        if bench.is_versioned:
            return Probe(row=row, outcome=ProbeOutcome.UNTESTED, found=str(refusal))
        raise DeniedError(
            f"{bench.store.url} can't be checked with these credentials",
            found=refusal,
            hint=_AS_ADMINISTRATOR,
        ) from refusal
    except VaultError as error:
        return Probe(row=row, outcome=ProbeOutcome.SHORTFALL, found=str(error))
    return Probe(row=row, outcome=ProbeOutcome.KEPT, found=found)


def _missing_for(bench: Bench, row: Row) -> str:
    """What a probe builds on and the bucket lacks; "" if nothing."""
    if row.name in {"versioning", "object-lock"}:
        return ""
    if not bench.is_versioned:
        return "the bucket is not versioned"
    if row.need is Barred.LOCKED and not bench.can_lock:
        return "the bucket has no Object Lock"
    return ""
