"""Looking at one stored object, as a task that threads, processes and other machines can run."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Final, TypeVar

from vault.errors import DigestMismatchError, IntegrityError, MissingObjectError, StorageError
from vault.model import ObjectRef
from vault.repository.objects import right_version, sizes
from vault.storage.base import ObjectStore
from vault.storage.choose_store import open_store

_T = TypeVar("_T")

NAMED: Final = 20  # sizes that one message lists at most


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a store is, for a worker that opens it by itself."""

    url: str
    endpoint: str = ""  # of an S3 service other than AWS


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """One object to look at.

    This is all that a worker receives: the place of the store, and the object's name, SHA-256,
    size and version, which inventories hold in clear. It has no key and no password: a worker
    gets its access to an S3 service from its own environment, and only reads.
    """

    place: Place | None  # None: the caller hands in the open store
    ref: ObjectRef
    is_read: bool  # read all bytes; else only compare the listed size


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Looked:
    """The result of one look."""

    version: str = ""  # the one with the right bytes; empty if none was read
    error: IntegrityError | StorageError | None = None  # why it is wrong, or was not read


def look(task: Look, store: ObjectStore | None = None) -> Looked:
    """Look at an object; what is wrong with it is part of the result.

    Args:
        task: What to look at.
        store: The open store. None: it is opened here, from the task's place, once in each
            process; for workers in other processes.

    Raises:
        VaultError: The store can't be opened.
    """
    opened = store_at(task.place) if store is None and task.place is not None else store
    assert opened is not None
    ref = task.ref
    try:
        if task.is_read:
            return Looked(version=twice(lambda: right_version(opened, ref).version))
        twice(lambda: _require_size(opened, ref))
    except (IntegrityError, StorageError) as error:
        return Looked(error=error)
    return Looked()


@functools.lru_cache(maxsize=4)
def store_at(place: Place) -> ObjectStore:
    """The store at a place, opened once in a process."""
    return open_store(place.url, endpoint=place.endpoint)


def _require_size(store: ObjectStore, ref: ObjectRef) -> None:
    found = sizes(store, ref)
    if not found:
        raise MissingObjectError(f"{ref.name} is missing", expected=f"{ref.size} bytes")
    if ref.size not in found:
        raise DigestMismatchError(
            f"{ref.name} has the wrong size",
            expected=f"{ref.size} bytes",
            found=", ".join(f"{size} bytes" for size in sorted(found)[:NAMED]),
        )


def twice(work: Callable[[], _T]) -> _T:
    """Run ``work``; run it again if the store did not answer.

    Bytes that are wrong are asked for twice where they are read (`vault.storage.double_check`).
    """
    try:
        return work()
    except StorageError:
        return work()
