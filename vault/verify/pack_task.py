"""Opening all blocks of one stored pack, as a task that threads, processes and other machines run.

A task and its result are frozen values; the caller acts on the result.
"""

import dataclasses

from vault.crypto.sealed import Header, Opener
from vault.errors import VaultError
from vault.format.pack_index import IndexEntry
from vault.machine.lru import Recent
from vault.model import ObjectRef
from vault.repository.objects import read_range, right_version
from vault.repository.pack_reader import (
    UNREADABLE,
    PackBytes,
    PackDirectories,
    PackReader,
    PackSession,
)
from vault.storage.base import ObjectStore
from vault.verify.object_task import Place, store_at


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PackTask:
    """One pack whose blocks are to be opened.

    It holds two secrets, which this pack needs: the seed of its session and the domain's key for
    chunk ids. The recovery key, which opens all sessions, stays with the caller. So a task may go
    to processes of the same user, which can read the memory of the caller anyway; it may go to
    another machine only by a channel that keeps secrets. A worker gets its access to an S3
    service from its own environment.
    """

    place: Place | None  # None: the caller hands in the bytes
    ref: ObjectRef
    entry: IndexEntry  # the believed content of the pack
    repository_id: bytes
    session: PackSession  # its seed is secret
    id_key: bytes = dataclasses.field(repr=False)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class OpenedPack:
    """The result of opening all blocks of a pack."""

    chunks: int = 0  # right ones
    faulty: frozenset[int] = frozenset()  # numbers of the blocks that do not open
    error: VaultError | None = None  # the problem of one of them
    given_up: VaultError | None = None  # why no version of the pack gives them; None: one may
    versions: tuple[str, ...] = ()  # those with the right bytes, other than the pinned one
    is_of_other_session: bool = False  # nothing was opened, as that needs the recovery key


class _OtherSessionError(Exception):
    """The stored pack names a session whose seed the task does not have."""


def open_pack(task: PackTask, objects: PackBytes | None = None) -> OpenedPack:
    """Open every block of a pack, even after one that does not open.

    Args:
        task: The pack.
        objects: Gives stored bytes. None: the store is opened here, from the task's place, once
            in each process; for workers in other processes.

    Raises:
        StorageError: The store failed, or can't be opened.
    """
    if objects is not None:
        return _open_with(_TaskOpener(task, objects), task)
    assert task.place is not None
    stored = _StoredBytes(store_at(task.place))
    opened = _open_with(_TaskOpener(task, stored), task)
    return dataclasses.replace(opened, versions=tuple(stored.versions))


def open_blocks(pack: PackReader) -> OpenedPack:
    """Open every block of a pack with the opener that it has.

    Raises:
        StorageError: The store failed.
    """
    blocks = pack.directory.blocks
    try:
        for _ in pack.blocks(range(len(blocks))):
            pass
    except UNREADABLE as error:
        faulty = frozenset(pack.faulty_blocks())
        right = sum(block.chunks for n, block in enumerate(blocks) if n not in faulty)
        return OpenedPack(chunks=right, faulty=faulty, error=error)
    return OpenedPack(chunks=len(pack.directory.lengths))


def _open_with(opener: "_TaskOpener", task: PackTask) -> OpenedPack:
    try:
        opened = open_blocks(PackReader(opener, task.ref, task.id_key, entry=task.entry))
    except _OtherSessionError:
        return OpenedPack(is_of_other_session=True)
    return dataclasses.replace(opened, given_up=opener.given_up)


class _TaskOpener:
    """Opens the pack of a task with the secrets in the task."""

    by_digest = False
    directories: PackDirectories | None = None

    def __init__(self, task: PackTask, repository: PackBytes) -> None:
        self.repository = repository
        self.openers: Recent[bytes, Opener] = Recent(1)
        self.given_up: VaultError | None = None
        self._task = task

    def session_of(self, header: Header) -> PackSession:
        """The session of the task.

        Raises:
            _OtherSessionError: The header names another one.
        """
        if not self._task.session.is_of(header):
            raise _OtherSessionError
        return self._task.session

    def opener_for(self, header: Header) -> Opener:
        """The opener of the blocks, if the header is of the task's session."""
        return Opener(header, self.session_of(header).seed, self._task.repository_id)

    def give_up(self, pack: PackReader, error: VaultError) -> None:  # noqa: ARG002 - one pack
        """Note that the pack can't be read; the caller looks for substitutes."""
        self.given_up = error


class _StoredBytes:
    """Gives bytes from a store alone, without a ledger."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self.versions: list[str] = []

    def read(self, ref: ObjectRef) -> bytes:
        """See `PackBytes.read`; notes a version other than the pinned one."""
        found = right_version(self._store, ref)
        if found.version != ref.version:
            self.versions.append(found.version)
        return found.data

    def read_range(self, ref: ObjectRef, offset: int, length: int) -> bytes:
        """See `PackBytes.read_range`."""
        return read_range(self._store, ref, offset, length)
