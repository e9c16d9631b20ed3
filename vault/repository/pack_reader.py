"""One pack, for the holder of a recovery key: its directory and its blocks, all of them checked.

Tags and chunk ids must prove what an index object says of a pack; if they do not, the directory in
the pack itself is read (docs/format.md 5).
"""

import dataclasses
import logging
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

from vault.crypto.sealed import MAX_HEADER, Header, Opener, SealedSeeds
from vault.errors import (
    IntegrityError,
    LocalError,
    VaultError,
    WrongKeyError,
)
from vault.format.pack import Directory, open_block, read_directory
from vault.format.pack_index import IndexEntry
from vault.machine.lru import Recent
from vault.model import Buffer, ObjectRef, PackId

_log = logging.getLogger(__name__)

UNREADABLE = (IntegrityError, WrongKeyError)  # a damaged header may seem to name other keys
RECENT_PACKS = 64  # packs whose directories and keys are kept in memory
WHOLE_PACK = 0.5  # if more of a pack is wanted, one GET of all of it is cheaper


class PackDirectories:
    """Directories of packs, kept in an unnamed file so that memory does not grow with them.

    Any number of threads may read once all are added.

    Args:
        scratch: A directory on local disk.

    Raises:
        LocalError: The file can't be made.
    """

    def __init__(self, scratch: Path) -> None:
        try:
            self._file = tempfile.TemporaryFile(dir=scratch)  # noqa: SIM115 - closed by `close`
        except OSError as error:
            raise LocalError(f"can't write in {scratch}", found=error.strerror) from error
        self._end = 0
        self._recent: Recent[tuple[int, int], Directory] = Recent(RECENT_PACKS)

    def close(self) -> None:
        """Close the file, which frees its space."""
        self._file.close()

    def add(self, directory: Directory) -> tuple[int, int]:
        """Add a directory to the file; returns its place there.

        Raises:
            LocalError: The disk is full or failed.
        """
        encoded = directory.encode()
        try:
            self._file.write(encoded)
            self._file.flush()
        except OSError as error:
            raise LocalError("can't keep directories of packs", found=error.strerror) from error
        kept = (self._end, len(encoded))
        self._end += len(encoded)
        return kept

    def read(self, kept: tuple[int, int], header_length: int) -> Directory:
        """A directory that `add` put into the file.

        Raises:
            LocalError: The disk failed.
        """
        found = self._recent.get(kept)
        if found is None:
            try:
                encoded = os.pread(self._file.fileno(), kept[1], kept[0])
                found = Directory.decode(encoded, header_length)
            except OSError as error:
                raise LocalError("can't read directories of packs", found=error.strerror) from error
            self._recent.put(kept, found)
        return found


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PackSession:
    """One run of a writer, all packs of which open with one seed."""

    id: bytes
    sealed: SealedSeeds  # the seed, sealed to each recipient
    seed: bytes = dataclasses.field(repr=False)

    def is_of(self, header: Header) -> bool:
        """Whether a pack with that header is of this session."""
        return (self.id, self.sealed) == (header.session_id, header.sealed)


class PackBytes(Protocol):
    """Gives the bytes of objects: a repository, or a task's own store."""

    def read(self, ref: ObjectRef) -> bytes:
        """As `Objects.read`."""

    def read_range(self, ref: ObjectRef, offset: int, length: int) -> bytes:
        """As `Objects.read_range`."""


class PackOpener(Protocol):
    """What packs are opened with: a `vault.repository.reader.Reader`, or what a task was sent."""

    @property
    def repository(self) -> PackBytes:
        """Gives the stored bytes."""

    @property
    def by_digest(self) -> bool:
        """Whether a directory is believed only after all bytes of its pack were hashed."""

    @property
    def directories(self) -> PackDirectories | None:
        """Where directories are put aside; None: they stay in memory."""

    @property
    def openers(self) -> Recent[bytes, Opener]:
        """Those used last, by SHA-256 of the pack."""

    def session_of(self, header: Header) -> PackSession:
        """The session that a pack with that header is of, its seed opened."""

    def opener_for(self, header: Header) -> Opener:
        """The opener for the blocks of a pack with that header."""

    def give_up(self, pack: "PackReader", error: VaultError) -> None:
        """Look for the chunks of an unreadable pack in other packs."""


class PackReader:
    """One pack: its directory and its blocks, each checked as it is opened.

    Args:
        reader: The reader of the snapshot, which opens seeds.
        ref: The pack, as a signed inventory names it.
        id_key: That of the domain; every chunk id is checked with it.
        entry: The entry of an index object about the pack, if there is one.
    """

    def __init__(
        self,
        reader: PackOpener,
        ref: ObjectRef,
        id_key: bytes,
        *,
        entry: IndexEntry | None = None,
    ) -> None:
        self._reader = reader
        self._id_key = id_key
        self._kept: tuple[int, int] | None = None
        self.is_given_up = False
        self.session: PackSession | None = None  # None: an index object told of the pack
        self.ref = ref
        if entry is not None:
            self._directory: Directory | None = entry.directory
            self.header_length = entry.header_length
            self.kind = entry.type
        else:
            self._read_own_directory()

    @property
    def directory(self) -> Directory:
        """The blocks and chunks of the pack."""
        if self._directory is not None:
            return self._directory
        directories = self._reader.directories
        assert self._kept is not None
        assert directories is not None
        return directories.read(self._kept, self.header_length)

    def put_aside(self) -> None:
        """Move the directory to local disk, as those of all packs together are large."""
        directories = self._reader.directories
        if self._directory is None or directories is None:
            return
        self._kept = directories.add(self._directory)
        self._directory = None

    def _opener(self, header: Callable[[], Buffer]) -> Opener:
        """The opener of its blocks; ``header`` gives the pack's first bytes if it is not cached."""
        opener = self._reader.openers.get(self.ref.sha256)
        if opener is None:
            opener = self._reader.opener_for(Header.parse(header()))
            self._reader.openers.put(self.ref.sha256, opener)
        return opener

    def _read_own_directory(self) -> None:
        """Read the directory from the pack, proven by its seal or, in doubt, by the digest."""
        try:
            if self._reader.by_digest:
                found = self._whole()[1]
            else:
                found = read_directory(self._range, self.ref.size, self._reader.opener_for)
        except UNREADABLE:  # another version may have the bytes
            found = self._whole()[1]
        header, opener, self._directory = found
        self._reader.openers.put(self.ref.sha256, opener)
        self.session = self._reader.session_of(header)
        self.header_length = header.length
        self.kind = header.type

    def _whole(self) -> tuple[memoryview, tuple[Header, Opener, Directory]]:
        """All bytes of the pack, checked by its digest; with header, key and directory."""
        whole = memoryview(self._reader.repository.read(self.ref))
        return whole, read_directory(
            lambda at, n: bytes(whole[at : at + n]), len(whole), self._reader.opener_for
        )

    def _range(self, offset: int, length: int) -> bytes:
        return self._reader.repository.read_range(self.ref, offset, length)

    def as_entry(self) -> IndexEntry:
        """The entry of this pack for an index object."""
        return IndexEntry(
            pack_id=PackId(self.ref.sha256),
            size=self.ref.size,
            type=self.kind,
            version=self.ref.version,
            header_length=self.header_length,
            directory=self.directory,
        )

    def blocks(self, wanted: Sequence[int]) -> Iterator[tuple[int, bytes]]:
        """Raw bytes of blocks, each with its number; tags and chunk ids are checked.

        Raises:
            StaleIndexError: The pack is not as an index object described it.
            IntegrityError: No version of the pack gives them.
        """
        pending = list(wanted)
        try:
            for number, stored in self._fetch(wanted):
                raw = self._open(number, stored)
                pending.remove(number)
                yield number, raw
        except UNREADABLE as error:
            _log.warning("%s is read again: %s", self.ref.name, error)
            try:
                yield from self._blocks_of_whole(pending)
            except StaleIndexError:
                raise
            except UNREADABLE as again:
                self._reader.give_up(self, again)
                raise

    def faulty_blocks(self) -> list[int]:
        """Numbers of the blocks that do not open in the pinned version, which is read once.

        Raises:
            StorageError: The store failed.
        """
        numbers = range(len(self.directory.blocks))
        try:
            stored = dict(self._cut(memoryview(self._range(0, self.ref.size)), numbers))
        except UNREADABLE:
            return list(numbers)
        return [number for number in numbers if not self._opens(number, stored[number])]

    def _opens(self, number: int, stored: memoryview) -> bool:
        try:
            self._open(number, stored)
        except UNREADABLE:
            return False
        return True

    def _fetch(self, wanted: Sequence[int]) -> Iterator[tuple[int, memoryview]]:
        """Stored bytes of blocks, unverified, in few calls to the store."""
        blocks = self.directory.blocks
        if sum(blocks[number].stored for number in wanted) >= WHOLE_PACK * self.ref.size:
            yield from self._cut(memoryview(self._range(0, self.ref.size)), wanted)
            return
        for run in _consecutive(wanted):
            start = blocks[run[0]].offset
            end = blocks[run[-1]].offset + blocks[run[-1]].stored
            data = memoryview(self._range(start, end - start))
            for number in run:
                at = blocks[number].offset - start
                yield number, data[at : at + blocks[number].stored]

    def _cut(self, whole: memoryview, wanted: Sequence[int]) -> Iterator[tuple[int, memoryview]]:
        self._opener(lambda: whole[:MAX_HEADER])
        for number in wanted:
            block = self.directory.blocks[number]
            yield number, whole[block.offset : block.offset + block.stored]

    def _open(self, number: int, stored: memoryview) -> bytes:
        return open_block(
            self._opener(lambda: self._range(0, min(MAX_HEADER, self.ref.size))),
            self.directory,
            number,
            stored,
            id_key=self._id_key,
        )

    def _blocks_of_whole(self, pending: Sequence[int]) -> Iterator[tuple[int, bytes]]:
        """Blocks from all bytes of a right version, which proves whether pack or index is wrong."""
        whole, (header, opener, directory) = self._whole()
        self._reader.openers.put(self.ref.sha256, opener)
        if (header.type, directory) != (self.kind, self.directory):
            raise StaleIndexError(f"{self.ref.name} holds other chunks than was believed")
        for number, stored in self._cut(whole, pending):
            yield number, self._open(number, stored)


class StaleIndexError(IntegrityError):
    """Unproven information may be wrong; the caller starts again and relies on less of it (I10)."""

    def __init__(self, problem: str) -> None:
        super().__init__(problem, hint="run 'vault index rebuild'")


def _consecutive(numbers: Sequence[int]) -> Iterator[list[int]]:
    """Runs of neighbouring blocks, each to be read as one range."""
    run: list[int] = []
    for number in numbers:
        if run and number != run[-1] + 1:
            yield run
            run = []
        run.append(number)
    if run:
        yield run
