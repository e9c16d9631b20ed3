"""A probe for each promise of a store, and what follows if it is not kept.

A probe returns what it saw, or raises `Shortfall`.
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

from vault.clock import MAX_SKEW, to_rfc3339
from vault.errors import (
    ConfigError,
    NameTakenError,
    ObjectNotFoundError,
    RetentionError,
    StorageError,
    StorageUnavailableError,
    VaultError,
)
from vault.model import LockMode, Retention
from vault.storage.base import DeniedError, ObjectVersion, ServerStore
from vault.storage.names import probe_prefix

LOCK = timedelta(seconds=60)
_RACERS, _RACES = 8, 8
_FAR_DATES = (
    datetime(2038, 1, 19, 3, 14, 8, tzinfo=UTC),  # past 31 bits of seconds
    datetime(2106, 2, 7, 6, 28, 16, tzinfo=UTC),  # past 32 bits
    datetime(2262, 4, 11, 23, 47, 17, tzinfo=UTC),  # past 63 bits of nanoseconds
    datetime(9999, 12, 31, tzinfo=UTC),
)
_DATA = b"vault store check\n" * 4096  # 72 KiB: more than a socket takes at once


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


class Shortfall(Exception):  # noqa: N818 - an outcome of a probe, no error
    """The promise is not kept; the text says what was seen.

    Args:
        text: What was seen, for the report.
        remedy: Replaces that of the row where the vault makes up for this shortfall.
    """

    def __init__(self, text: str, remedy: str = "") -> None:
        super().__init__(text)
        self.remedy = remedy


class Bench:
    """Makes the objects that probes need."""

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


def _versioning(bench: Bench) -> str:
    name = bench.name()
    first, second = bench.put(name, b"1"), bench.put(name, b"2")
    if bench.store.get(name, first.version) != b"1" or first.version == second.version:
        raise Shortfall("a PUT replaced what was there")
    bench.is_versioned = True
    return "both versions are there"


def _object_lock(bench: Bench) -> str:
    if not bench.can_lock:
        raise Shortfall("Object Lock is off for the bucket, or may not be asked for")
    version, retention = bench.locked()
    if bench.lock_of(version) != retention:
        raise Shortfall("the lock of a PUT is not there afterwards")
    return "the lock of a PUT is in force at once"


def _locked_delete(bench: Bench) -> str:
    for mode in (LockMode.COMPLIANCE, LockMode.GOVERNANCE):
        version, _ = bench.locked(mode)
        if _is_refused(lambda version=version: bench.store.delete(version.name, version.version)):  # type: ignore[misc]
            continue
        raise Shortfall(f"a version locked in {mode} mode was deleted")
    unlocked = bench.put(bench.name())
    if _is_refused(lambda: bench.store.delete(unlocked.name, unlocked.version)):
        return "refused, as these credentials may not delete anything"
    return "refused in both modes"


def _shorten(bench: Bench) -> str:
    for mode in (LockMode.COMPLIANCE, LockMode.GOVERNANCE):
        version, retention = bench.locked(mode)
        shorter = bench.lock(mode, LOCK / 2)
        refused = _is_refused(lambda v=version, s=shorter: bench.set_lock(v, s))  # type: ignore[misc]
        if not refused or bench.lock_of(version) != retention:
            raise Shortfall(f"a lock in {mode} mode was shortened")
    for mode in (LockMode.COMPLIANCE, LockMode.GOVERNANCE):
        for date in _FAR_DATES:
            _try_far_date(bench, mode, date)
    return "refused in both modes, and no far date wraps around"


def _try_far_date(bench: Bench, mode: LockMode, date: datetime) -> None:
    """Ceph 16 keeps a lock's date in 32 bits: a later one wraps around and unlocks at once."""
    version, retention = bench.locked(mode)
    far = Retention(mode=mode, until=date)
    _is_refused(lambda: bench.set_lock(version, far))
    found = bench.lock_of(version)
    if found is None or found.until < retention.until:
        raise Shortfall(
            f"a lock in {mode} mode was undone by setting it to {to_rfc3339(date)}: it became"
            f" {_text(found)}",
            remedy="gives hosts no right to change a lock (see 'vault store iam'): packs are locked"
            " for 90 days more when they are stored, and stored anew after that; an"
            " administrator of the bucket can still undo locks, in compliance mode too",
        )


def _downgrade(bench: Bench) -> str:
    version, retention = bench.locked(LockMode.COMPLIANCE)
    longer = bench.lock(LockMode.GOVERNANCE, 2 * LOCK)
    if not _is_refused(lambda: bench.set_lock(version, longer)):
        raise Shortfall("compliance was turned into governance")
    if bench.lock_of(version) != retention:
        raise Shortfall("the refused request changed the lock")
    return "refused"


def _suspend(bench: Bench) -> str:
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
    raise Shortfall("versioning was suspended in spite of Object Lock; it is on again")


def _extend(bench: Bench) -> str:
    version, _ = bench.locked()
    longer = bench.lock(span=LOCK + timedelta(seconds=30))
    bench.set_lock(version, longer)
    if bench.lock_of(version) != longer:
        raise Shortfall(f"{_text(bench.lock_of(version))} after extending to {_text(longer)}")
    return f"{to_rfc3339(longer.until)} set and read back"


def _extend_version(bench: Bench) -> str:
    name = bench.name()
    # with locks of their own: the bucket's default, where it has one, may be longer
    first, second = (bench.put(name, data, bench.lock()) for data in (b"1", b"2"))
    before = bench.lock_of(second)
    retention = bench.lock(span=2 * LOCK)
    bench.set_lock(first, retention)
    found = bench.lock_of(first)
    if found is None or found.until < retention.until or bench.lock_of(second) != before:
        raise Shortfall("an extend by version id did not lock that version alone")
    return "the version that is named, no other"


def _version_order(bench: Bench) -> str:
    name = bench.name()
    quick: list[str] = []
    slow = bench.store.put_slowly(
        name, _DATA, lambda: quick.append(bench.put(name, b"quick").version)
    )
    listed = [item.version for item in bench.store.versions_of(name)]
    if listed == [*quick, slow]:
        return "a PUT that stalled is listed after the one that overtook it"
    if listed == [slow, *quick]:
        raise Shortfall("a PUT that stalled is listed before the one that overtook it")
    raise Shortfall("versions are missing from the list")


def _if_none_match(bench: Bench) -> str:
    def enters(name: str) -> bool:
        try:
            bench.store.put(name, _DATA, sha256=hashlib.sha256(_DATA).digest(), exclusive=True)
        except NameTakenError:
            return False
        return True

    name = bench.name()
    if not enters(name) or enters(name):
        raise Shortfall("If-None-Match is ignored")
    with ThreadPoolExecutor(_RACERS) as pool:
        for _ in range(_RACES):
            entered = sum(pool.map(enters, [bench.name()] * _RACERS))
            if entered != 1:
                raise Shortfall(f"{entered} of {_RACERS} PUTs at the same time were let in")
    return f"a taken name is refused, and {_RACES} races of {_RACERS} had one winner each"


def _checksum(bench: Bench) -> str:
    name = bench.name()
    wrong = base64.b64encode(hashlib.sha256(b"other bytes").digest()).decode()
    arguments: dict[str, Any] = {
        "Key": bench.store.prefix + name,
        "Body": b"these bytes",
        "ChecksumAlgorithm": "SHA256",
        "ChecksumSHA256": wrong,
    }
    if not _is_refused(lambda: bench.store.request("store", name, "put_object", **arguments)):
        raise Shortfall("bytes with a wrong SHA-256 were stored")
    return "a wrong SHA-256 is refused"


def _listing(bench: Bench) -> str:
    bases = ["a0", "a.b", "a/b", "a", "b"]
    names = [bench.prefix + "listing/" + base for base in bases if base != "a"]
    for name in names:
        bench.put(name, b"1")
        bench.put(name, b"2")
    listed = list(bench.store.versions(bench.prefix + "listing/"))
    if [item.name for item in listed] != sorted(names * 2):
        raise Shortfall("names are not listed in the order of their bytes")
    if [bench.store.get(item.name, item.version) for item in listed] != [b"1", b"2"] * len(names):
        raise Shortfall("the versions of a name are not in the order of their PUTs")
    return "names by their bytes, versions by their PUTs"


def _markers(bench: Bench) -> str:
    version = bench.put(bench.name())
    bench.store.request(
        "delete-mark", version.name, "delete_object", Key=bench.store.prefix + version.name
    )
    kinds = [item.marker for item in bench.store.versions_of(version.name)]
    if kinds != [False, True] or bench.store.get(version.name, version.version) != _DATA:
        raise Shortfall("a version can't be read behind a delete marker")
    return "read behind a delete marker"


def _clock_skew(bench: Bench) -> str:
    skew = (bench.clock() - bench.store.now()).total_seconds()
    if abs(skew) > MAX_SKEW.total_seconds():
        raise Shortfall(f"this machine's clock differs by {skew:.0f} s")
    return f"clocks differ by {skew:.0f} s"


def _default_retention(bench: Bench) -> str:
    if not bench.can_lock:
        return "none"
    answer = bench.store.request("inspect", "", "get_object_lock_configuration")
    rule = answer["ObjectLockConfiguration"].get("Rule", {}).get("DefaultRetention")
    if not rule:
        return "none"
    span = f"{rule['Days']} days" if "Days" in rule else f"{rule.get('Years')} years"
    raise Shortfall(f"{rule.get('Mode')}, {span}")


def _lifecycle(bench: Bench) -> str:
    try:
        found = bench.store.hazards()
    except DeniedError:
        raise Shortfall(
            "these credentials may not ask for the bucket's lifecycle rules",
            remedy="none: have the bucket's administrator run this check",
        ) from None
    if found:
        raise Shortfall("; ".join(found))
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


STORE_PROBES: tuple[tuple[Row, Callable[[Bench], str]], ...] = (
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
