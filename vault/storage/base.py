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
    """Properties of a store: those it promises, or those that ``store check`` saw."""

    orders_versions_by_commit: bool  # the list of versions of one name is in commit order
    lists_md5: bool  # the ETag of an object in a list is its MD5, unless the server encrypts it
    enforces_retention: bool  # by something that the writer does not control


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ObjectVersion:
    """One version of one object, as the store states it."""

    name: str
    version: str  # the store's id of this version
    size: int  # bytes as stored
    modified: datetime  # aware, UTC; the store's clock
    marker: bool = False  # a delete marker: no bytes, hides older versions from plain reads
    etag: str = ""  # as listed: on most servers the MD5 of the bytes, in lower-case hex

    @property
    def in_parts(self) -> bool:
        """Whether it was uploaded in parts: `modified` may be the start of that.

        Every server marks such an ETag with a dash.
        """
        return "-" in self.etag


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
        """The address that `vault.storage.choose_store.open_store` opens."""

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

        ``sha256`` is checked by the store, or by its client before sending. The lock is in
        force from the first moment. ``exclusive`` asks the store to refuse a taken name;
        a store that can't do that stores another version.

        Raises:
            ConfigError: `validate_name` refuses the name, or no store can keep that lock.
            DigestMismatchError: ``data`` has another SHA-256.
            NameTakenError: ``exclusive``, and a version that is no marker is the newest.
            RetentionError: The lock is over already; nothing was stored.
            StorageError: Not stored, or not known to be (a repeat is harmless).
        """

    def get(
        self, name: str, version: str | None = None, *, offset: int = 0, length: int | None = None
    ) -> bytes:
        """Bytes of one version; of the newest if none is named.

        ``length`` None means to the end; a range past the end is cut short.

        Raises:
            ObjectNotFoundError: No such name or version, or that version is a delete marker.
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

        The cost does not grow with other names: one listing of as few names as the store
        can be asked for; a directory lists nothing for a name that exists.
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
        """What the store would do to objects by rules of its own (expire, hide, move), in words.

        Raises:
            StorageError: The store can't be asked, or not with these credentials.
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
    """What `vault.storage.conformance` saw this store do; nothing else is relied on."""

    orders_versions_by_commit: bool = False
    refuses_wrong_checksums: bool = False  # then the client need not hash bodies again


UNSEEN = Observed()


class ServerStore(ObjectStore, Protocol):
    """A store on a server. It may keep less than it promises, so `store check` tries it out.

    `is_on_server` recognises one. ``request`` takes operations of S3.
    """

    @property
    def prefix(self) -> str:
        """The prefix of every key; ends in a slash unless empty."""

    def observing(self, observed: Observed) -> ObjectStore:
        """The same store, relying on what was observed of its server."""

    def request(self, action: str, name: str, operation: str, **arguments: Any) -> Any:
        """One call of the server's interface; errors are translated.

        Raises:
            DeniedError: The server refused.
            VaultError: Any other failure.
        """

    def put_slowly(self, name: str, data: bytes, pause: Callable[[], object]) -> str:
        """A PUT whose body stops half-way while ``pause`` runs; returns the version id."""


@runtime_checkable
class _OnServer(Protocol):
    """The methods that only such a store has; without properties, which a check would read."""

    def observing(self, observed: Observed) -> ObjectStore: ...
    def request(self, action: str, name: str, operation: str, **arguments: Any) -> Any: ...
    def put_slowly(self, name: str, data: bytes, pause: Callable[[], object]) -> str: ...


def is_on_server(store: ObjectStore) -> TypeGuard[ServerStore]:
    """Whether a server, and not this program, decides what the store keeps."""
    return isinstance(store, _OnServer)


def names_of(versions: Iterable[ObjectVersion]) -> Iterator[str]:
    """`ObjectStore.names` by way of `ObjectStore.versions`."""
    last = None
    for version in versions:
        if not version.marker and version.name != last:
            last = version.name
            yield last
