"""What a bucket really does, tried out before anything depends on it (docs/design.md "Stores").

Servers that speak S3 differ in what they enforce, and some accept a lock and forget it.
`check_store` tries each promise on small objects under ``probe/<random>/``, locked for a
minute at most, and says for each shortfall what the vault does about it.
"""

import base64
import dataclasses
import hashlib
import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

from vault.errors import (
    ConfigError,
    NameTakenError,
    ObjectNotFoundError,
    RetentionError,
    StorageError,
    StorageUnavailableError,
    VaultError,
)
from vault.model import LockMode, Retention, to_rfc3339
from vault.retention import MAX_SKEW
from vault.storage.base import DeniedError, ObjectVersion, Observed, ServerStore
from vault.storage.names import probe_prefix

LOCK = timedelta(seconds=60)
_RACERS, _RACES = 8, 8
_FAR_DATES = (
    datetime(2038, 1, 19, 3, 14, 8, tzinfo=UTC),  # past 31 bits of seconds
    datetime(2106, 2, 7, 6, 28, 16, tzinfo=UTC),  # past 32 bits
    datetime(2262, 4, 11, 23, 47, 17, tzinfo=UTC),  # past 63 bits of nanoseconds
    datetime(9999, 12, 31, tzinfo=UTC),
)
_AS_ADMINISTRATOR = "run it with the credentials of the bucket's administrator"
_DATA = b"vault store check\n" * 4096  # 72 KiB: more than a socket takes at once


class ProbeOutcome(StrEnum):
    """What a probe saw."""

    KEPT = "kept"
    SHORTFALL = "shortfall"
    UNTESTED = "untested"  # a promise before it is not kept, or access was denied


class Barred(StrEnum):
    """Which repositories must not be made on a store with this shortfall."""

    ALL = "all"
    LOCKED = "locked"  # those with a lock mode
    NONE = "none"  # the vault makes up for it


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One promise, and what follows if it is not kept."""

    name: str  # stable, for machines
    promise: str
    need: Barred
    remedy: str  # what the vault does about a shortfall


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
    bench = _Bench(store, clock)
    bench.can_lock = store.traits.enforces_retention
    probes = tuple(_probe(bench, row, attempt) for row, attempt in _PROBES)
    return StoreReport(url=store.url, probes=probes, leftovers=bench.prefix)


class _Shortfall(Exception):  # noqa: N818 - an outcome of a probe, no error
    """The promise is not kept; the text says what was seen.

    Args:
        text: What was seen, for the report.
        remedy: Replaces that of the row where the vault makes up for this shortfall.
    """

    def __init__(self, text: str, remedy: str = "") -> None:
        super().__init__(text)
        self.remedy = remedy


class _Bench:
    """Objects to try things on."""

    def __init__(self, store: ServerStore, clock: Callable[[], datetime]) -> None:
        self.store = store
        self.clock = clock
        self.can_lock = False
        self.is_versioned = False
        self.prefix = probe_prefix(secrets.token_hex(8))
        self._count = 0

    def name(self, base: str = "") -> str:
        """A name that was not used before."""
        self._count += 1
        return f"{self.prefix}{base or 'object'}-{self._count}"

    def put(self, name: str, data: bytes = _DATA, lock: Retention | None = None) -> ObjectVersion:
        """Store an object as the vault does."""
        return self.store.put(name, data, sha256=hashlib.sha256(data).digest(), retention=lock)

    def lock(self, mode: LockMode = LockMode.COMPLIANCE, span: timedelta = LOCK) -> Retention:
        """A lock of that length, by the store's clock."""
        return Retention(mode=mode, until=self.store.now().replace(microsecond=0) + span)

    def locked(self, mode: LockMode = LockMode.COMPLIANCE) -> tuple[ObjectVersion, Retention]:
        """A new object and its lock."""
        retention = self.lock(mode)
        return self.put(self.name(), lock=retention), retention

    def lock_of(self, version: ObjectVersion) -> Retention | None:
        """The lock of a version, as the server states it."""
        return self.store.status(version.name, version.version).retention

    def set_lock(self, version: ObjectVersion, retention: Retention) -> None:
        """Set a lock without the checks of `S3Store.extend`."""
        self.store.request(
            "lock",
            version.name,
            "put_object_retention",
            Key=self.store.prefix + version.name,
            VersionId=version.version,
            Retention={"Mode": retention.mode.upper(), "RetainUntilDate": retention.until},
        )


def _probe(bench: _Bench, row: Row, attempt: Callable[[_Bench], str]) -> Probe:
    """Run a probe; errors are shortfalls, except those that say nothing about the store."""
    missing = _missing_for(bench, row)
    if missing:
        return Probe(row=row, outcome=ProbeOutcome.UNTESTED, found=missing)
    try:
        found = attempt(bench)
    except _Shortfall as shortfall:
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


def _missing_for(bench: _Bench, row: Row) -> str:
    """What a probe builds on and the bucket lacks; "" if nothing."""
    if row.name in {"versioning", "object-lock"}:
        return ""
    if not bench.is_versioned:
        return "the bucket is not versioned"
    if row.need is Barred.LOCKED and not bench.can_lock:
        return "the bucket has no Object Lock"
    return ""


# --- the probes, one per row: what was seen, or _Shortfall ---


def _versioning(bench: _Bench) -> str:
    name = bench.name()
    first, second = bench.put(name, b"1"), bench.put(name, b"2")
    if bench.store.get(name, first.version) != b"1" or first.version == second.version:
        raise _Shortfall("a PUT replaced what was there")
    bench.is_versioned = True
    return "both versions are there"


def _object_lock(bench: _Bench) -> str:
    if not bench.can_lock:
        raise _Shortfall("Object Lock is off for the bucket, or may not be asked for")
    version, retention = bench.locked()
    if bench.lock_of(version) != retention:
        raise _Shortfall("the lock of a PUT is not there afterwards")
    return "the lock of a PUT is in force at once"


def _locked_delete(bench: _Bench) -> str:
    for mode in (LockMode.COMPLIANCE, LockMode.GOVERNANCE):
        version, _ = bench.locked(mode)
        if _is_refused(lambda version=version: bench.store.delete(version.name, version.version)):  # type: ignore[misc]
            continue
        raise _Shortfall(f"a version locked in {mode} mode was deleted")
    unlocked = bench.put(bench.name())
    if _is_refused(lambda: bench.store.delete(unlocked.name, unlocked.version)):
        return "refused, as these credentials may not delete anything"
    return "refused in both modes"


def _shorten(bench: _Bench) -> str:
    for mode in (LockMode.COMPLIANCE, LockMode.GOVERNANCE):
        version, retention = bench.locked(mode)
        shorter = bench.lock(mode, LOCK / 2)
        refused = _is_refused(lambda v=version, s=shorter: bench.set_lock(v, s))  # type: ignore[misc]
        if not refused or bench.lock_of(version) != retention:
            raise _Shortfall(f"a lock in {mode} mode was shortened")
    for mode in (LockMode.COMPLIANCE, LockMode.GOVERNANCE):
        for date in _FAR_DATES:
            _try_far_date(bench, mode, date)
    return "refused in both modes, and no far date wraps around"


def _try_far_date(bench: _Bench, mode: LockMode, date: datetime) -> None:
    """Ceph 16 keeps a lock's date in 32 bits: a later one wraps around and unlocks at once."""
    version, retention = bench.locked(mode)
    far = Retention(mode=mode, until=date)
    _is_refused(lambda: bench.set_lock(version, far))
    found = bench.lock_of(version)
    if found is None or found.until < retention.until:
        raise _Shortfall(
            f"a lock in {mode} mode was undone by setting it to {to_rfc3339(date)}: it became"
            f" {_text(found)}",
            remedy="gives hosts no right to change a lock (see 'vault store iam'): packs are locked"
            " for 90 days more when they are stored, and stored anew after that; who"
            " administers the bucket can still undo locks, in compliance mode too",
        )


def _downgrade(bench: _Bench) -> str:
    version, retention = bench.locked(LockMode.COMPLIANCE)
    longer = bench.lock(LockMode.GOVERNANCE, 2 * LOCK)
    if not _is_refused(lambda: bench.set_lock(version, longer)):
        raise _Shortfall("compliance was turned into governance")
    if bench.lock_of(version) != retention:
        raise _Shortfall("the refused request changed the lock")
    return "refused"


def _suspend(bench: _Bench) -> str:
    def set_versioning(status: str) -> None:
        bench.store.request(
            "change the versioning of",
            "",
            "put_bucket_versioning",
            VersioningConfiguration={"Status": status},
        )

    if _is_refused(lambda: set_versioning("Suspended")):
        return "refused"
    set_versioning("Enabled")
    raise _Shortfall("versioning was suspended in spite of Object Lock; it is on again")


def _extend(bench: _Bench) -> str:
    version, _ = bench.locked()
    longer = bench.lock(span=LOCK + timedelta(seconds=30))
    bench.set_lock(version, longer)
    if bench.lock_of(version) != longer:
        raise _Shortfall(f"{_text(bench.lock_of(version))} after extending to {_text(longer)}")
    return f"{to_rfc3339(longer.until)} set and read back"


def _extend_version(bench: _Bench) -> str:
    name = bench.name()
    # with locks of their own: the bucket's default, where it has one, may be longer
    first, second = (bench.put(name, data, bench.lock()) for data in (b"1", b"2"))
    before = bench.lock_of(second)
    retention = bench.lock(span=2 * LOCK)
    bench.set_lock(first, retention)
    found = bench.lock_of(first)
    if found is None or found.until < retention.until or bench.lock_of(second) != before:
        raise _Shortfall("an extend by version id did not lock that version alone")
    return "the version that is named, no other"


def _version_order(bench: _Bench) -> str:
    name = bench.name()
    quick: list[str] = []
    slow = bench.store.put_slowly(
        name, _DATA, lambda: quick.append(bench.put(name, b"quick").version)
    )
    listed = [item.version for item in bench.store.versions_of(name)]
    if listed == [*quick, slow]:
        return "a PUT that stalled is listed after the one that overtook it"
    if listed == [slow, *quick]:
        raise _Shortfall("a PUT that stalled is listed before the one that overtook it")
    raise _Shortfall("versions are missing from the list")


def _if_none_match(bench: _Bench) -> str:
    def enters(name: str) -> bool:
        try:
            bench.store.put(name, _DATA, sha256=hashlib.sha256(_DATA).digest(), exclusive=True)
        except NameTakenError:
            return False
        return True

    name = bench.name()
    if not enters(name) or enters(name):
        raise _Shortfall("If-None-Match is ignored")
    with ThreadPoolExecutor(_RACERS) as pool:
        for _ in range(_RACES):
            entered = sum(pool.map(enters, [bench.name()] * _RACERS))
            if entered != 1:
                raise _Shortfall(f"{entered} of {_RACERS} PUTs at the same time were let in")
    return f"a taken name is refused, and {_RACES} races of {_RACERS} had one winner each"


def _checksum(bench: _Bench) -> str:
    name = bench.name()
    wrong = base64.b64encode(hashlib.sha256(b"other bytes").digest()).decode()
    arguments: dict[str, Any] = {
        "Key": bench.store.prefix + name,
        "Body": b"these bytes",
        "ChecksumAlgorithm": "SHA256",
        "ChecksumSHA256": wrong,
    }
    if not _is_refused(lambda: bench.store.request("store", name, "put_object", **arguments)):
        raise _Shortfall("bytes with a wrong SHA-256 were stored")
    return "a wrong SHA-256 is refused"


def _listing(bench: _Bench) -> str:
    bases = ["a0", "a.b", "a/b", "a", "b"]
    names = [bench.prefix + "listing/" + base for base in bases if base != "a"]
    for name in names:
        bench.put(name, b"1")
        bench.put(name, b"2")
    listed = list(bench.store.versions(bench.prefix + "listing/"))
    if [item.name for item in listed] != sorted(names * 2):
        raise _Shortfall("names are not listed in the order of their bytes")
    if [bench.store.get(item.name, item.version) for item in listed] != [b"1", b"2"] * len(names):
        raise _Shortfall("the versions of a name are not in the order of their PUTs")
    return "names by their bytes, versions by their PUTs"


def _markers(bench: _Bench) -> str:
    version = bench.put(bench.name())
    bench.store.request(
        "delete-mark", version.name, "delete_object", Key=bench.store.prefix + version.name
    )
    kinds = [item.marker for item in bench.store.versions_of(version.name)]
    if kinds != [False, True] or bench.store.get(version.name, version.version) != _DATA:
        raise _Shortfall("a version can't be read behind a delete marker")
    return "read behind a delete marker"


def _clock_skew(bench: _Bench) -> str:
    skew = (bench.clock() - bench.store.now()).total_seconds()
    if abs(skew) > MAX_SKEW.total_seconds():
        raise _Shortfall(f"this machine's clock differs by {skew:.0f} s")
    return f"clocks differ by {skew:.0f} s"


def _default_retention(bench: _Bench) -> str:
    if not bench.can_lock:
        return "none"
    answer = bench.store.request("inspect", "", "get_object_lock_configuration")
    rule = answer["ObjectLockConfiguration"].get("Rule", {}).get("DefaultRetention")
    if not rule:
        return "none"
    span = f"{rule['Days']} days" if "Days" in rule else f"{rule.get('Years')} years"
    raise _Shortfall(f"{rule.get('Mode')}, {span}")


def _lifecycle(bench: _Bench) -> str:
    try:
        found = bench.store.hazards()
    except DeniedError:
        raise _Shortfall(
            "these credentials may not ask for the bucket's lifecycle rules",
            remedy="none: have the bucket's administrator run this check",
        ) from None
    if found:
        raise _Shortfall("; ".join(found))
    return "no rule expires, hides or archives objects"


def _is_refused(attempt: Callable[[], object]) -> bool:
    """Whether the server said no, for whatever reason."""
    try:
        attempt()
    except (StorageUnavailableError, ConfigError, ObjectNotFoundError):
        raise
    except (StorageError, RetentionError, VaultError):
        return True
    return False


def _text(retention: Retention | None) -> str:
    return f"{retention.mode} until {to_rfc3339(retention.until)}" if retention else "no lock"


_PROBES: tuple[tuple[Row, Callable[[_Bench], str]], ...] = (
    (
        Row(
            name="versioning",
            promise="a PUT to a taken name makes a version and replaces nothing",
            need=Barred.ALL,
            remedy="refuses the store: turn versioning on",
        ),
        _versioning,
    ),
    (
        Row(
            name="object-lock",
            promise="the bucket locks what is stored with a lock",
            need=Barred.LOCKED,
            remedy="refuses --lock: make a bucket with Object Lock, or use --lock none",
        ),
        _object_lock,
    ),
    (
        Row(
            name="locked-delete",
            promise="a locked version can't be deleted",
            need=Barred.LOCKED,
            remedy="refuses --lock: locks would protect nothing",
        ),
        _locked_delete,
    ),
    (
        Row(
            name="shorten",
            promise="a lock can't be shortened",
            need=Barred.LOCKED,
            remedy="refuses --lock: a host that may extend locks could unlock",
        ),
        _shorten,
    ),
    (
        Row(
            name="downgrade",
            promise="compliance can't be turned into governance",
            need=Barred.LOCKED,
            remedy="refuses --lock: a host that may extend locks could weaken them",
        ),
        _downgrade,
    ),
    (
        Row(
            name="suspend",
            promise="versioning can't be suspended while Object Lock is on",
            need=Barred.LOCKED,
            remedy="refuses --lock: later PUTs would be unlocked and replace one another",
        ),
        _suspend,
    ),
    (
        Row(
            name="extend",
            promise="an extended lock is read back as set",
            need=Barred.LOCKED,
            remedy="refuses --lock; every run reads its first extend back as well",
        ),
        _extend,
    ),
    (
        Row(
            name="extend-version",
            promise="an extend by version id locks that version alone",
            need=Barred.LOCKED,
            remedy="refuses --lock: an attacker's newer version would catch the lock",
        ),
        _extend_version,
    ),
    (
        Row(
            name="listing",
            promise="names are listed by their bytes, versions of a name in their order",
            need=Barred.ALL,
            remedy="refuses the store: the owner of a ledger number could not be determined",
        ),
        _listing,
    ),
    (
        Row(
            name="delete-marker",
            promise="versions can be read behind a delete marker",
            need=Barred.ALL,
            remedy="refuses the store: a delete marker would hide history from its readers",
        ),
        _markers,
    ),
    (
        Row(
            name="version-order",
            promise="versions are listed in the order in which their PUTs were done",
            need=Barred.NONE,
            remedy="ledger PUTs carry If-None-Match; a head is remembered once it has a successor",
        ),
        _version_order,
    ),
    (
        Row(
            name="if-none-match",
            promise="of PUTs with If-None-Match to one name, one is let in",
            need=Barred.NONE,
            remedy="none needed where versions are in order; else only one writer may append",
        ),
        _if_none_match,
    ),
    (
        Row(
            name="checksum",
            promise="bytes that do not have the SHA-256 they came with are refused",
            need=Barred.NONE,
            remedy="hashes every body again here and signs it, so that the server checks that",
        ),
        _checksum,
    ),
    (
        Row(
            name="clock",
            promise="the clocks of store and machine agree to five minutes",
            need=Barred.ALL,
            remedy="refuses to write until the clock is set right",
        ),
        _clock_skew,
    ),
    (
        Row(
            name="default-retention",
            promise="the bucket adds no locks of its own",
            need=Barred.NONE,
            remedy="explicit locks come first; only what is stored without one gets it",
        ),
        _default_retention,
    ),
    (
        Row(
            name="lifecycle",
            promise="no lifecycle rule of the bucket expires, hides or archives its objects",
            need=Barred.ALL,
            remedy="refuses the store: remove the rule, or leave this prefix out of it",
        ),
        _lifecycle,
    ),
)
