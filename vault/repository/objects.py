"""Objects in the store: put under their lock, and read as the version that was signed (I5).

Bytes are compared with a signed digest before they are returned, except by `read_range`.
"""

import dataclasses
import hashlib
import threading
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from typing import NamedTuple

from vault import retention as locking
from vault.clock import Clock, check_skew, to_rfc3339
from vault.errors import (
    ConfigError,
    DigestMismatchError,
    FormatError,
    IntegrityError,
    MissingObjectError,
    ObjectNotFoundError,
)
from vault.ledger.chain import Ledger
from vault.model import Buffer, Code, Digest, Finding, LockMode, ObjectRef, Retention, Severity
from vault.parameters import Parameters
from vault.storage.base import ObjectStore, ObjectVersion
from vault.storage.double_check import ask_twice
from vault.storage.lock_rules import is_weaker
from vault.storage.names import evidence_name

MAX_EVIDENCE = 4 * 1_048_576  # bytes; docs/format.md 2.4


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """An object this process has just stored, with the lock that its PUT set."""

    ref: ObjectRef
    locked_until: datetime | None  # None under lock mode none


class Right(NamedTuple):
    """The bytes that a signed record names, and the version that has them."""

    data: bytes
    version: str


class Sightings:
    """Collects what reads, in any thread, found wrong beside the bytes they were to read."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._found: list[Finding] = []

    def tell(self, finding: Finding) -> None:
        """Add a finding."""
        with self._lock:
            self._found.append(finding)

    def all(self) -> tuple[Finding, ...]:
        """The findings so far, in the order in which they were added."""
        with self._lock:
            return tuple(self._found)


class Objects:
    """The objects of one repository, in its store.

    Args:
        store: The store that holds them.
        ledger: The verified ledger; its root in force says how objects are locked.
        clock: The caller's clock; compared with the store's before writing (I9).
        sightings: Collects what reads find wrong beside the right bytes.
    """

    def __init__(
        self, store: ObjectStore, ledger: Ledger, *, clock: Clock, sightings: Sightings
    ) -> None:
        self.store = store
        self.clock = clock
        self._ledger = ledger
        self._sightings = sightings

    @property
    def parameters(self) -> Parameters:
        """The parameters of the root in force."""
        return self._ledger.root.parameters

    def ledger_need(self) -> datetime:
        """`locking.ledger_until` for what is stored now."""
        return locking.ledger_until(self.clock(), self.parameters)

    def check_skew(self) -> None:
        """Refuse to write when the clocks differ by over five minutes (I9).

        Raises:
            VaultError: They do.
        """
        check_skew(self.clock(), self.store.now())

    def put(
        self,
        name: str,
        data: Buffer,
        need: datetime,
        *,
        digest: Digest | None = None,
        exclusive: bool = False,
    ) -> Stored:
        """Store one object, locked at least until ``need``; durable on return.

        Args:
            name: The name of the object.
            data: Its bytes.
            need: The moment before which the lock must not end.
            digest: The digest of ``data``, if the caller has it; the store checks it anyway.
            exclusive: See `ObjectStore.put`.

        Raises:
            NameTakenError: See `ObjectStore.put`.
            StorageError: Not stored.
        """
        digest = digest or Digest.of(data)
        retention = self.retention_for(digest, need)
        version = self.store.put(
            name, data, sha256=digest, retention=retention, exclusive=exclusive
        )
        ref = ObjectRef(name=name, sha256=digest, size=len(data), version=version.version)
        return Stored(ref=ref, locked_until=retention.until if retention else None)

    def retention_for(self, digest: bytes, need: datetime) -> Retention | None:
        """The lock on the grid that covers ``need``; None under lock mode none (I8)."""
        if self.parameters.lock_mode is LockMode.NONE:
            return None
        until = locking.lock_target(need, digest, self.parameters.lock_grid)
        return Retention(mode=self.parameters.lock_mode, until=until)

    def lock_until(self, ref: ObjectRef, need: datetime) -> datetime:
        """Make sure an object is locked at least until ``need``; returns the end of its lock.

        Raises:
            ObjectNotFoundError: It is missing, or its lock ends earlier and is never extended.
            RetentionError: The store keeps no such lock.
        """
        retention = self.retention_for(ref.sha256, need)
        assert retention is not None
        if self.parameters.extend:
            return self.store.extend(ref.name, ref.version, retention)
        found = self.store.status(ref.name, ref.version).retention
        if found is None or found.until < need or is_weaker(found.mode, retention.mode):
            raise ObjectNotFoundError(f"{ref.name} has no lock until {to_rfc3339(need)}")
        return found.until

    def put_evidence(self, data: bytes) -> Digest:
        """Store evidence that a statement will cite, locked for the ledger term.

        Raises:
            ConfigError: It is larger than any reader accepts; nothing was stored.
        """
        if len(data) > MAX_EVIDENCE:
            raise ConfigError(
                "evidence is larger than any reader takes",
                expected=f"at most {MAX_EVIDENCE} bytes",
                found=f"{len(data)} bytes",
            )
        digest = Digest.of(data)
        self.put(evidence_name(digest), data, self.ledger_need(), digest=digest)
        return digest

    def read(self, ref: ObjectRef) -> bytes:
        """The bytes that a signed record names, from any version that has them (I5).

        Raises:
            MissingObjectError: No version of the name is left.
            DigestMismatchError: There are versions, but none has these bytes.
        """
        found = self.right_version(ref)
        self.note_version(ref, found.version)
        return found.data

    def note_version(self, ref: ObjectRef, version: str) -> None:
        """Add a finding if an object was read from another version than the record pins."""
        if version != ref.version:
            self._sightings.tell(
                Finding(
                    severity=Severity.WARNING,
                    subject=ref.name,
                    problem="read from another version",
                    found=version,
                    code=Code.RELOCATED,
                )
            )

    def tell(self, finding: Finding) -> None:
        """Add a finding about what was read beside the bytes that were to be read."""
        self._sightings.tell(finding)

    def right_version(self, ref: ObjectRef, *, pinned: bool = True) -> Right:
        """The function `right_version`, for this store."""
        return right_version(self.store, ref, pinned=pinned)

    def read_range(self, ref: ObjectRef, offset: int, length: int) -> bytes:
        """Part of the pinned version; NOT verified: the caller checks a tag or id.

        Raises:
            MissingObjectError: The pinned version is gone; `read` may find another.
        """
        return read_range(self.store, ref, offset, length)

    def read_evidence(self, digest: Digest) -> bytes:
        """The evidence that a statement cites.

        Raises:
            MissingObjectError: It is not in the store.
            DigestMismatchError: It has other bytes.
            FormatError: It is larger than evidence may be.
        """
        name = evidence_name(digest)
        return _twice(name, lambda: self._find_evidence(name, digest)).data

    def _find_evidence(self, name: str, digest: Digest) -> Right | IntegrityError:
        """As `_find`, but without a size or version: statements give only a digest of evidence."""
        sizes: list[int] = []

        def small_enough() -> Iterator[str]:
            for version in self.store.versions_of(name):
                if not version.marker:
                    sizes.append(version.size)
                    if version.size <= MAX_EVIDENCE:
                        yield version.version

        right = _first(
            self.store, name, small_enough(), MAX_EVIDENCE, lambda data: Digest.of(data) == digest
        )
        if right is not None:
            return right
        if not sizes:
            return MissingObjectError(f"{name} is missing")
        if min(sizes) > MAX_EVIDENCE:
            limit = f"at most {MAX_EVIDENCE} bytes"
            return FormatError(f"{name} is too large", expected=limit, found=f"{min(sizes)} bytes")
        return DigestMismatchError(f"{name} has other bytes", expected=digest)


def right_version(store: ObjectStore, ref: ObjectRef, *, pinned: bool = True) -> Right:
    """The pinned version if it has the signed bytes, else the oldest other one that has them.

    Args:
        store: The store that holds the object; a worker has no more than that.
        ref: The object as it was signed.
        pinned: False to look at the other versions only.

    Raises:
        MissingObjectError: No version of the name is left.
        DigestMismatchError: There are versions, but none has these bytes.
    """
    return _twice(ref.name, lambda: _find(store, ref, pinned=pinned))


def read_range(store: ObjectStore, ref: ObjectRef, offset: int, length: int) -> bytes:
    """Part of the pinned version; NOT verified: the caller checks a tag or id.

    Raises:
        MissingObjectError: The pinned version is gone; `right_version` may find another.
    """
    try:
        return store.get(ref.name, ref.version, offset=offset, length=length)
    except ObjectNotFoundError as error:
        raise MissingObjectError(f"{ref.name} is missing", expected=ref.version) from error


def sizes(store: ObjectStore, ref: ObjectRef) -> set[int]:
    """The sizes of the versions of an object, as the store lists them; empty if it is missing."""

    def ask() -> set[int]:
        return {each.size for each in store.versions_of(ref.name) if not each.marker}

    return ask_twice(ref.name, ask, lambda found: ref.size in found, is_list=True)


def _find(store: ObjectStore, ref: ObjectRef, *, pinned: bool) -> Right | IntegrityError:
    data = _get(store, ref.name, ref.version, ref.size + 1) if pinned else None
    if data is not None and _matches(data, ref):
        return Right(data, ref.version)
    others = (version.version for version in _others(store, ref))
    right = _first(store, ref.name, others, ref.size + 1, lambda other: _matches(other, ref))
    return right or _unreadable(ref, data)


def _first(
    store: ObjectStore,
    name: str,
    versions: Iterable[str],
    length: int,
    is_right: Callable[[bytes], bool],
) -> Right | None:
    """The first version with the right bytes; at most ``length`` bytes of each are read."""
    for version in versions:
        data = _get(store, name, version, length)
        if data is not None and is_right(data):
            return Right(data, version)
    return None


def _get(store: ObjectStore, name: str, version: str, length: int) -> bytes | None:
    try:
        return store.get(name, version, length=length)
    except ObjectNotFoundError:
        return None


def _others(store: ObjectStore, ref: ObjectRef) -> Iterator[ObjectVersion]:
    """Versions of the object, other than the pinned one, that have its size."""
    for version in store.versions_of(ref.name):
        same = version.size == ref.size and not version.marker
        if same and version.version != ref.version:
            yield version


def _twice(name: str, find: Callable[[], Right | IntegrityError]) -> Right:
    """The right version, looked for twice; raises the error of the second look."""
    found = ask_twice(name, find, lambda answer: isinstance(answer, Right))
    if isinstance(found, IntegrityError):
        raise found
    return found


def _matches(data: bytes, ref: ObjectRef) -> bool:
    return len(data) == ref.size and hashlib.sha256(data).digest() == ref.sha256


def _unreadable(ref: ObjectRef, data: bytes | None) -> IntegrityError:
    if data is None:
        return MissingObjectError(f"{ref.name} is missing", expected=f"version {ref.version}")
    if len(data) != ref.size:
        found = "more bytes" if len(data) > ref.size else f"{len(data)} bytes"
        return DigestMismatchError(
            f"{ref.name} has the wrong size", expected=f"{ref.size} bytes", found=found
        )
    return DigestMismatchError(
        f"{ref.name} has the wrong bytes",
        expected=ref.sha256,
        found=hashlib.sha256(data).hexdigest(),
    )
