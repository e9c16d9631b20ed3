"""A strict store in memory: the double for tests, and for trying things out.

It enforces every lock, keeps delete markers, and goes wrong on request: `FaultPoint`
makes the n-th call fail, stall or lose its reply; `MemoryStore.corrupt`,
`MemoryStore.remove` and `MemoryStore.put_marker` do what disks and thieves do.
"""

import dataclasses
import hashlib
import itertools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Literal, TypeAlias

from vault.clock import utc_now
from vault.errors import NameTakenError, ObjectNotFoundError
from vault.model import Buffer, Retention
from vault.storage.base import ObjectStatus, ObjectVersion, StoreTraits, names_of
from vault.storage.lock_rules import UNLOCKED, Lock, check_sha256
from vault.storage.names import validate_name

_Read: TypeAlias = Literal["now", "get", "status", "versions", "versions_of"]
Operation: TypeAlias = _Read | Literal["put", "extend", "set_legal_hold", "delete"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class FaultPoint:
    """Where a call stands when the injected fault may strike.

    Raising at "before" is a call that never arrived; at "after", one that took
    effect and whose reply was lost. Blocking at "before" is a stalled request.
    """

    operation: Operation
    name: str  # of the object, or the prefix listed
    phase: Literal["before", "after"]
    count: int  # this is the n-th call of the store, from 1, over all operations


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Version:
    id: str
    data: bytes
    sha256: bytes  # as checked at the PUT; stays when the data rots
    modified: datetime
    started: int  # when the request arrived, as a count
    marker: bool = False
    lock: Lock = UNLOCKED


class MemoryStore:
    """An `ObjectStore` in memory; see `vault.storage.base` for the semantics.

    Args:
        clock: The store's clock; aware, UTC.
        fault: Called before and after every operation acts; what it raises is
            what the caller of the operation gets.
        orders_versions_by_commit: False orders the versions of a name by the
            arrival of their PUTs, as some servers do: a PUT that stalled is
            listed before others that were done earlier.
    """

    def __init__(
        self,
        *,
        clock: Callable[[], datetime] = utc_now,
        fault: Callable[[FaultPoint], None] | None = None,
        orders_versions_by_commit: bool = True,
    ) -> None:
        self.fault = fault
        self._clock = clock
        self._by_commit = orders_versions_by_commit
        self._objects: dict[str, list[_Version]] = {}
        self._mutex = threading.RLock()
        self._calls = itertools.count(1)
        self._ids = itertools.count(1)

    @property
    def url(self) -> str:
        """A label only: a store in memory can't be opened by its URL."""
        return "memory:"

    @property
    def traits(self) -> StoreTraits:
        """Locks hold; the order is as constructed."""
        return StoreTraits(
            orders_versions_by_commit=self._by_commit, lists_md5=True, enforces_retention=True
        )

    def copy(self, *, fault: Callable[[FaultPoint], None] | None = None) -> "MemoryStore":
        """An independent store with the same content, clock and order; shares only bytes."""
        twin = MemoryStore(
            clock=self._clock, fault=fault, orders_versions_by_commit=self._by_commit
        )
        with self._mutex:
            twin._objects = {name: list(versions) for name, versions in self._objects.items()}
            start = next(self._ids)
        twin._ids = itertools.count(start)
        return twin

    # --- ObjectStore ---

    def now(self) -> datetime:
        """The injected clock."""
        with self._call("now", ""):
            return self._clock()

    def put(
        self,
        name: str,
        data: Buffer,
        *,
        sha256: bytes,
        retention: Retention | None = None,
        exclusive: bool = False,
    ) -> ObjectVersion:
        """See `ObjectStore.put`."""
        validate_name(name)
        started = next(self._ids)
        with self._call("put", name):
            check_sha256(name, data, sha256)
            taken = self._objects.get(name)
            if exclusive and taken and not taken[-1].marker:
                raise NameTakenError(f"{name} is taken", found=taken[-1].id)
            now = self._clock()
            lock = UNLOCKED.extended(retention, now) if retention else UNLOCKED
            version = _Version(
                id=self._new_id(),
                data=bytes(data),
                sha256=sha256,
                modified=now,
                started=started,
                lock=lock,
            )
            return self._insert(name, version)

    def get(
        self, name: str, version: str | None = None, *, offset: int = 0, length: int | None = None
    ) -> bytes:
        """See `ObjectStore.get`."""
        with self._call("get", name):
            data = self._find(name, version).data
            return data[offset : None if length is None else offset + length]

    def status(self, name: str, version: str) -> ObjectStatus:
        """See `ObjectStore.status`."""
        with self._call("status", name):
            found = self._find(name, version)
            return ObjectStatus(
                size=len(found.data),
                sha256=found.sha256,
                retention=found.lock.retention,
                legal_hold=found.lock.hold,
            )

    def versions(self, prefix: str, *, after: str = "") -> Iterator[ObjectVersion]:
        """See `ObjectStore.versions`; the state at the time of the call."""
        with self._call("versions", prefix):
            names = sorted(name for name in self._objects if name.startswith(prefix))
            return iter(
                [
                    _public(name, version)
                    for name in names
                    if name > after
                    for version in self._objects[name]
                ]
            )

    def versions_of(self, name: str) -> list[ObjectVersion]:
        """See `ObjectStore.versions_of`."""
        with self._call("versions_of", name):
            return [_public(name, version) for version in self._objects.get(name, ())]

    def names(self, prefix: str) -> Iterator[str]:
        """See `ObjectStore.names`."""
        return names_of(self.versions(prefix))

    def extend(self, name: str, version: str, retention: Retention) -> datetime:
        """See `ObjectStore.extend`."""
        with self._call("extend", name):
            found = self._find(name, version)
            lock = found.lock.extended(retention, self._clock())
            self._replace(name, dataclasses.replace(found, lock=lock))
            assert lock.retention is not None
            return lock.retention.until

    def set_legal_hold(self, name: str, version: str, *, on: bool) -> None:
        """See `ObjectStore.set_legal_hold`."""
        with self._call("set_legal_hold", name):
            found = self._find(name, version)
            lock = dataclasses.replace(found.lock, hold=on)
            self._replace(name, dataclasses.replace(found, lock=lock))

    def hazards(self) -> list[str]:
        """See `ObjectStore.hazards`."""
        return []

    def delete(self, name: str, version: str) -> None:
        """See `ObjectStore.delete`; removes delete markers, too."""
        with self._call("delete", name):
            found = self._find(name, version, markers=True)
            found.lock.check_deletable(name, self._clock())
            self._drop(name, version)

    # --- what disks and thieves do ---

    def put_marker(self, name: str) -> ObjectVersion:
        """Hide ``name`` from plain reads, as a DELETE without a version id does."""
        with self._mutex:
            marker = _Version(
                id=self._new_id(),
                data=b"",
                sha256=b"",
                modified=self._clock(),
                started=next(self._ids),
                marker=True,
            )
            return self._insert(name, marker)

    def plant(self, name: str, data: bytes) -> ObjectVersion:
        """Store ``data`` under any name, also one that the vault would never write."""
        with self._mutex:
            version = _Version(
                id=self._new_id(),
                data=data,
                sha256=hashlib.sha256(data).digest(),
                modified=self._clock(),
                started=next(self._ids),
            )
            return self._insert(name, version)

    def corrupt(self, name: str, version: str, data: bytes) -> None:
        """Change stored bytes in place, as a failing disk does: locks and checksum stay."""
        with self._mutex:
            found = self._find(name, version)
            self._replace(name, dataclasses.replace(found, data=data))

    def remove(self, name: str, version: str) -> None:
        """Lose one version in spite of its lock, as a thief of disks does."""
        with self._mutex:
            self._find(name, version, markers=True)
            self._drop(name, version)

    # --- state; all under the mutex ---

    @contextmanager
    def _call(self, operation: Operation, name: str) -> Iterator[None]:
        """Call the fault before and after, outside the mutex, so that a stall stalls one call."""
        count = next(self._calls)
        self._strike(operation, name, "before", count)
        with self._mutex:
            yield
        self._strike(operation, name, "after", count)

    def _strike(
        self, operation: Operation, name: str, phase: Literal["before", "after"], count: int
    ) -> None:
        if self.fault is not None:
            self.fault(FaultPoint(operation=operation, name=name, phase=phase, count=count))

    def _new_id(self) -> str:
        """An id that is opaque and in no order, so that no caller sorts by it."""
        return hashlib.sha256(b"%d" % next(self._ids)).hexdigest()[:24]

    def _insert(self, name: str, version: _Version) -> ObjectVersion:
        versions = self._objects.setdefault(name, [])
        versions.append(version)
        if not self._by_commit:
            versions.sort(key=lambda each: each.started)
        return _public(name, version)

    def _find(self, name: str, version: str | None, *, markers: bool = False) -> _Version:
        versions = self._objects.get(name, [])
        found = next(
            (each for each in reversed(versions) if version in {None, each.id}),
            None,
        )
        if found is None or (found.marker and not markers):
            raise ObjectNotFoundError(f"no object {name}", expected=version)
        return found

    def _replace(self, name: str, version: _Version) -> None:
        versions = self._objects[name]
        position = next(i for i, each in enumerate(versions) if each.id == version.id)
        versions[position] = version

    def _drop(self, name: str, version: str) -> None:
        kept = [each for each in self._objects[name] if each.id != version]
        if kept:
            self._objects[name] = kept
        else:
            del self._objects[name]


def _public(name: str, version: _Version) -> ObjectVersion:
    return ObjectVersion(
        name=name,
        version=version.id,
        size=len(version.data),
        modified=version.modified,
        marker=version.marker,
        etag="" if version.marker else hashlib.md5(version.data, usedforsecurity=False).hexdigest(),
    )
