"""What the vault requires of a store (docs/design.md "Stores").

One contract suite, ``tests/contract``, runs over every implementation.

A store holds *versions* of named objects. Nothing is ever overwritten: a PUT to
a taken name makes the next version. Every version may carry a retention and a
legal hold, both enforced by the store (or, for the local directory, by the program).
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from typing import Any, Protocol, TypeGuard, runtime_checkable

from vault.errors import StorageError
from vault.model import Buffer, Retention


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class StoreTraits:
    """What is known of a store, as promised by it or seen by ``store check``."""

    orders_versions_by_commit: bool  # the list of versions of one name is in commit order
    enforces_retention: bool  # a lock is refused by something the writer does not control


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ObjectVersion:
    """One version of one object, as the store states it."""

    name: str
    version: str  # the store's id of this version
    size: int  # bytes as stored
    modified: datetime  # aware, UTC; the store's clock
    marker: bool = False  # a delete marker: no bytes, hides older versions from plain reads
    in_parts: bool = False  # put together of parts: `modified` may be when they were begun


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ObjectStatus:
    """What the store states about one version beyond its listing."""

    size: int  # bytes as stored
    sha256: bytes | None  # as the store keeps it; None where it keeps none
    retention: Retention | None
    legal_hold: bool


class ObjectStore(Protocol):
    """A versioned, lockable object store. Implementations are thread-safe."""

    @property
    def url(self) -> str:
        """The address that `vault.storage.open_store` opens."""

    @property
    def traits(self) -> StoreTraits:
        """What this store promises."""

    def now(self) -> datetime:
        """The store's own clock: aware, UTC.

        Raises:
            StorageError: The store did not answer.
        """

    def put(
        self,
        name: str,
        data: Buffer,
        *,
        sha256: bytes,
        retention: Retention | None = None,
        exclusive: bool = False,
    ) -> ObjectVersion:
        """Store ``data`` as the newest version of ``name``; durable on return.

        The store checks ``sha256`` (or the caller re-reads where `traits` of a
        store cannot); the lock is in force from the first moment. ``exclusive``
        asks it to refuse a taken name; some can't, and store another version.

        Raises:
            ConfigError: `validate_name` refuses the name, or no store can keep that lock.
            DigestMismatchError: ``data`` does not have that SHA-256.
            NameTakenError: ``exclusive``, and a version that is no marker is the newest.
            RetentionError: The lock is over already; nothing was stored.
            StorageError: Not stored, or not known to be (a repeat is harmless).
        """

    def get(
        self, name: str, version: str | None = None, *, offset: int = 0, length: int | None = None
    ) -> bytes:
        """Bytes of one version, or of the newest that is not a marker.

        ``length`` None means to the end; a range past the end is cut short.

        Raises:
            ObjectNotFoundError: No such name or version, or it is (the newest is) a marker.
        """

    def status(self, name: str, version: str) -> ObjectStatus:
        """Size, stored checksum, retention and hold of one version.

        Raises:
            ObjectNotFoundError: No such version.
        """

    def versions(self, prefix: str, *, after: str = "") -> Iterator[ObjectVersion]:
        """Every version and delete marker of names that begin with ``prefix``.

        Sorted by name (bytewise); of one name, oldest first by the store's own
        order. Only names sorting after ``after`` are listed. Names that the
        vault could not have written are listed too: they are untrusted input.
        """

    def versions_of(self, name: str) -> list[ObjectVersion]:
        """Every version and delete marker of one name, as `versions` lists them.

        What other names there are costs nothing: one listing of as few names as can be
        asked for, and in a directory no listing at all for a name that is there.
        """

    def names(self, prefix: str) -> Iterator[str]:
        """Names that `versions` lists with a version that is no marker; each once, sorted.

        As cheap as the store can make it; says nothing about the bytes.
        """

    def extend(self, name: str, version: str, retention: Retention) -> datetime:
        """Lock one version at least until ``retention.until``; never shortens.

        Returns:
            The lock's end as the store holds it afterwards; later than asked if
            it already was.

        Raises:
            ObjectNotFoundError: No such version.
            RetentionError: The store refused and the lock in force is shorter.
        """

    def set_legal_hold(self, name: str, version: str, *, on: bool) -> None:
        """Set or clear the legal hold of one version.

        Raises:
            ObjectNotFoundError: No such version.
        """

    def hazards(self) -> list[str]:
        """What the store itself would do to objects, unasked: expire, hide, move; in words.

        Raises:
            StorageError: It can't be asked, or not by this caller.
        """

    def delete(self, name: str, version: str) -> None:
        """Remove one version for ever.

        Raises:
            ObjectNotFoundError: No such version.
            RetentionError: A lock or hold is in force; nothing was removed.
        """


class DeniedError(StorageError):
    """The store refused: these credentials may not do that, or a lock forbids it."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """What `vault.storage.conformance` saw this store do; nothing is assumed unseen."""

    orders_versions_by_commit: bool = False
    refuses_wrong_checksums: bool = False  # then the body is not hashed twice more here


UNSEEN = Observed()


class ServerStore(ObjectStore, Protocol):
    """A store on a server, which may keep less than it says: `store check` tries it out.

    `is_on_server` tells it from others. What it is asked by ``request`` is S3's.
    """

    @property
    def prefix(self) -> str:
        """Of every key; ends in a slash unless empty."""

    def observing(self, observed: Observed) -> ObjectStore:
        """The same store, with what is known of its server."""

    def request(self, action: str, name: str, operation: str, **arguments: Any) -> Any:
        """One call, as the server takes it; errors are translated.

        Raises:
            DeniedError: The server refused.
            VaultError: Whatever else went wrong.
        """

    def put_slowly(self, name: str, data: bytes, pause: Callable[[], object]) -> str:
        """A PUT whose body stops half-way while ``pause`` runs; returns the version id."""


@runtime_checkable
class _OnServer(Protocol):
    """The methods that no other store has; properties would be asked for their values."""

    def observing(self, observed: Observed) -> ObjectStore: ...
    def request(self, action: str, name: str, operation: str, **arguments: Any) -> Any: ...
    def put_slowly(self, name: str, data: bytes, pause: Callable[[], object]) -> str: ...


def is_on_server(store: ObjectStore) -> TypeGuard[ServerStore]:
    """Whether what a store keeps is for its server to decide."""
    return isinstance(store, _OnServer)


def names_of(versions: Iterable[ObjectVersion]) -> Iterator[str]:
    """`ObjectStore.names` by way of `ObjectStore.versions`."""
    last = None
    for version in versions:
        if not version.marker and version.name != last:
            last = version.name
            yield last
