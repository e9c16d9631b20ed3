"""Reads files and cuts them into chunks (docs/design.md "Snapshot").

The thread that walks, and processes beside it, read small files whole, many in a batch. Threads
would only compete for the interpreter there. Threads read other files, a large one in pieces.
One pass of SHA-256 gives the digest of a file and, for a file of one chunk, the chunk's id.
"""

import errno
import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from enum import Enum
from typing import NamedTuple, TypeAlias

from vault.crypto.keys import chunk_id
from vault.format.chunker import Chunker, ChunkSizes
from vault.format.entry import MAX_INLINE, MAX_ZEROS
from vault.format.tree_hash import TreeHash
from vault.machine import metadata
from vault.model import Buffer, ObjectType
from vault.snapshot import safe_open
from vault.snapshot.chunks_and_holes import Extents
from vault.snapshot.links import state_of
from vault.snapshot.list_records import ListRecord
from vault.snapshot.pieces import PIECE, BufferPool, ContentDigest, Part, Pieces, split_pieces
from vault.snapshot.records import file_record, large_record
from vault.snapshot.walk import SourceItem

SMALL_FILE = 256 * 1024  # bytes; larger ones are read, cut and hashed by threads
LARGE_FILE = 8 * 1_048_576  # bytes; larger files are read in pieces
_TOO_MANY_OPEN = frozenset({errno.EMFILE, errno.ENFILE})
_BLOCK = 512  # bytes; the unit of `st_blocks`
_STEP = 65_536  # bytes read at once of a generated file; /proc/sys lacks memory for 4 MiB
_ZEROS = memoryview(bytes(1_048_576))


class ReadOutcome(Enum):
    """How reading one file ended."""

    READ = "read"
    CHANGED = "changed"  # twice, while it was read
    VANISHED = "vanished"
    UNREADABLE = "unreadable"


_READ = ReadOutcome.READ  # looked up once, not for every file


class ToRead(NamedTuple):
    """A file that the walk met, with what a reader needs to know. May be pickled."""

    path: bytes  # path in the tree
    full: bytes  # path to open
    st_dev: int
    st_ino: int
    st_size: int  # bytes, as the walk saw it

    @classmethod
    def of(cls, item: SourceItem) -> "ToRead":
        """The file of an item whose ``stat`` is known."""
        stat = item.stat
        assert stat is not None
        return cls(item.path, item.full, stat.st_dev, stat.st_ino, stat.st_size)


class ReadContent(NamedTuple):
    """One file as read. A tuple, because there is one for every file."""

    outcome: ReadOutcome
    record: ListRecord | None = None  # None: it could not be read
    size: int = 0  # bytes that were read
    state: bytes = b""  # `links.state_of`, if the file has other names
    lost: Sequence[str] = ()  # attributes that are not stored, and why
    altered: Sequence[str] = ()  # what is stored with a changed value
    ids: Sequence[bytes] = ()
    pieces: Sequence[Buffer] = ()  # the chunks
    problem: str = ""


class FileReader:
    """Reads, cuts and hashes; one for a run, used by several threads and processes.

    Args:
        sizes: Chunk sizes of the repository.
        id_key: The domain's id key.
        clock_ns: The wall clock in nanoseconds, on the file system's scale.
    """

    def __init__(self, sizes: ChunkSizes, id_key: bytes, clock_ns: Callable[[], int]) -> None:
        self._sizes = sizes
        self._id_key = id_key
        self.clock_ns = clock_ns
        self.buffers = BufferPool()

    def is_in_pieces(self, stat: os.stat_result) -> bool:
        """Whether a file is read in pieces: one that may have holes, or is large.

        A file with very many chunks needs a list outside its entry, which only this way makes.
        """
        largest = min(LARGE_FILE, MAX_INLINE * self._sizes.min)
        return stat.st_size > largest or stat.st_blocks * _BLOCK < stat.st_size

    def chunk_id(self, sha256: bytes) -> bytes:
        """The id of a data chunk with this SHA-256."""
        return chunk_id(self._id_key, ObjectType.DATA, sha256)

    def read_batch(self, items: Sequence[ToRead], room: memoryview) -> list[ReadContent | None]:
        """Read files whole, in order; problems are results, not exceptions.

        All are opened first, and the disk is asked for their content. So the disk has many
        requests at once although one thread reads.

        Args:
            items: The files.
            room: Memory for their bytes, one file after the other; `ReadContent.pieces` are views
                of it.

        Returns:
            None for a file that is to be read in pieces: it has grown, goes on beyond its
            size, or was replaced by a sparse one.
        """
        chunker = Chunker(self._sizes)
        read_ns = self.clock_ns()  # before the first byte: later writes are newer
        asked = deque(map(_ask, items))
        contents = []
        try:
            for item in items:
                first = asked.popleft()
                if isinstance(first, OSError) and first.errno in _TOO_MANY_OPEN:
                    first = _ask(item)  # files before it are closed by now
                content = self._read_once(item, first, chunker, room, read_ns)
                if content is not None:
                    if content.outcome is ReadOutcome.CHANGED:
                        again = self.clock_ns()
                        content = self._read_once(item, _ask(item), chunker, room, again)
                    if content is not None and content.size:
                        room = room[content.size :]
                contents.append(content)
        finally:
            for left in asked:
                if not isinstance(left, OSError):
                    os.close(left[0])
        return contents

    def _read_once(
        self, item: ToRead, asked: "_Asked", chunker: Chunker, room: memoryview, read_ns: int
    ) -> ReadContent | None:
        if isinstance(asked, OSError):
            return failed(asked)
        fd, before = asked
        if before.st_ino != item.st_ino and self.is_in_pieces(before):  # a new file in its place
            os.close(fd)
            return None
        try:
            try:
                size = _read_whole(fd, room, before.st_size)
                if size > before.st_size:
                    return None
                data = room[:size]
                after = os.fstat(fd)
                problems: list[str] = []
                xattrs = metadata.read_xattrs(fd, problems)
            finally:
                os.close(fd)
        except OSError as error:
            return failed(error)
        digest = hashlib.sha256(data).digest()
        ids, pieces = self._cut(data, digest, chunker)
        outcome = _outcome(before, after, len(data))
        record, lost, altered = file_record(
            item.path,
            after,
            len(data),
            digest,
            ids,
            xattrs,
            read_ns if outcome is _READ and not problems and size == after.st_size else 0,
        )
        if record is None:
            return _unstorable(lost)
        problems += lost
        state = _state(after)
        return ReadContent(outcome, record, len(data), state, problems, altered, ids, pieces)

    def _cut(
        self, data: memoryview, digest: bytes, chunker: Chunker
    ) -> tuple[Sequence[bytes], Sequence[Buffer]]:
        """Ids and bytes of the chunks of a whole file."""
        if not data:
            return (), ()
        if len(data) <= self._sizes.min:
            return (self.chunk_id(digest),), (data,)
        pieces = split_pieces(data, chunker.cut(data, final=True))
        if len(pieces) == 1:
            return (self.chunk_id(digest),), pieces
        return [self.chunk_id(hashlib.sha256(piece).digest()) for piece in pieces], pieces

    def open_in_pieces(self, item: ToRead, *, is_vast: bool = False) -> "LargeFile":
        """A file to be read in pieces.

        Args:
            item: The file.
            is_vast: It has more bytes in holes than a SHA-256 is made over.

        Raises:
            OSError: It can't be opened.
        """
        return LargeFile(self, item, self._sizes, is_vast=is_vast)


class LargeFile(Pieces):
    """A large or sparse file.

    Every run of data between holes is cut on its own. Holes of up to 1 GiB are hashed as
    zeros; above that the tree hash makes them cost nothing (docs/format.md 8).
    """

    def __init__(
        self, reader: FileReader, item: ToRead, sizes: ChunkSizes, *, is_vast: bool
    ) -> None:
        self._item = item
        self._read_ns = reader.clock_ns()
        self._fd, self._before = safe_open.open_source(item.full, item)
        size = self._before.st_size
        self._size = 0  # bytes that were read and hashed, holes included
        self._zeros = 0  # those of them that are in holes
        self._holes: deque[tuple[int, int]] = deque()  # holes passed since `take_holes`
        self._tree_hash: TreeHash | None = None
        try:
            self._goes_on = _goes_on(self._fd, self._before)
        except OSError:
            os.close(self._fd)
            raise
        self.is_vast = is_vast or self._is_vast(size)
        digest: ContentDigest = hashlib.sha256()
        if self.is_vast:
            digest = self._tree_hash = TreeHash()
        piece = PIECE if self._goes_on else min(PIECE, size)
        super().__init__(sizes, reader.chunk_id, reader.buffers, piece, digest)

    def _is_vast(self, size: int) -> bool:
        allocated = self._before.st_blocks * _BLOCK
        return size - allocated > MAX_ZEROS and metadata.measured_holes(self._fd, size) > MAX_ZEROS

    def _read(self) -> Iterator[Part]:
        """See `Pieces`."""
        if self._goes_on:
            yield from self._read_to_end()
            return
        last = self._before.st_size
        for start, end in metadata.data_runs(self._fd, last):
            if not self._pass_hole(start):
                return
            while self._size < end:
                buffer = self._take()
                if buffer is None:
                    return
                wanted = buffer[self._room : self._room + min(self._piece, end - self._size)]
                got = _read_into(self._fd, wanted, self._size)
                self._size += got
                is_cut = got < len(wanted)  # the file was truncated meanwhile
                yield Part(buffer, got, is_cut or self._size == end, is_cut or self._size == last)
                self._hash.update(wanted[:got])
                if is_cut:
                    return
        self._pass_hole(min(last, os.fstat(self._fd).st_size))

    def _read_to_end(self) -> Iterator[Part]:
        """All bytes to the end, whatever size the file states."""
        is_last = False
        while not is_last:
            buffer = self._take()
            if buffer is None:
                return
            wanted = buffer[self._room : self._room + self._piece]
            got = 0
            while step := _read_into(self._fd, wanted[got : got + _STEP], self._size + got):
                got += step
            self._size += got
            is_last = got < len(wanted)
            yield Part(buffer, got, is_last, is_last)
            self._hash.update(wanted[:got])

    def _pass_hole(self, end: int) -> bool:
        """Hash the hole before the next run of data, or before the end of the file.

        False if reading ends here: the consumer has stopped, or the file has changed and now has
        more holes than a SHA-256 is made over.
        """
        start, size = self._size, end - self._size
        if size <= 0:
            return True
        self._zeros += size
        if self._tree_hash is not None:
            self._tree_hash.zeros(size)
            self._size = end
        elif self._zeros > MAX_ZEROS:
            self.is_vast = True
            return False
        while self._size < end and not self._is_closed:
            zeros = _ZEROS[: end - self._size]
            self._hash.update(zeros)
            self._size += len(zeros)
        self._holes.append((start, size))
        return not self._is_closed

    def take_holes(self) -> Iterator[tuple[int, int]]:
        """Holes that were passed since the last call."""
        while self._holes:
            yield self._holes.popleft()

    def finish(self, extents: Extents) -> ReadContent:
        """The result, once all pieces were read and given to ``extents``."""
        digest = self.digest()
        extents.add_holes(self.take_holes())
        after = os.fstat(self._fd)
        problems: list[str] = []
        xattrs = metadata.read_xattrs(self._fd, problems)
        outcome = _outcome(self._before, after, self._size)
        is_sure = outcome is _READ and self._size == after.st_size
        record, lost, altered = large_record(
            self._item.path,
            after,
            self._size,
            digest,
            extents,
            xattrs,
            self._read_ns if is_sure and not problems else 0,
            is_tree_hash=self._tree_hash is not None,
        )
        if record is None:
            return _unstorable(lost)
        return ReadContent(outcome, record, self._size, _state(after), [*problems, *lost], altered)

    def close(self) -> None:
        """See `Pieces.close`."""
        super().close()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def failed(error: OSError) -> ReadContent:
    """The result for a file that could not be opened or read."""
    vanished = isinstance(error, FileNotFoundError | NotADirectoryError)
    return ReadContent(
        outcome=ReadOutcome.VANISHED if vanished else ReadOutcome.UNREADABLE,
        problem=error.strerror or type(error).__name__,
    )


def _unstorable(lost: Sequence[str]) -> ReadContent:
    """The result for a file whose entry every reader would refuse."""
    return ReadContent(ReadOutcome.UNREADABLE, problem="; ".join(lost))


_Asked: TypeAlias = tuple[int, os.stat_result] | OSError


def _ask(item: ToRead) -> _Asked:
    """Open a file and have the disk begin to read it, without waiting; or the error."""
    try:
        fd, status = safe_open.open_source(item.full, item)
    except OSError as error:
        return error
    if status.st_size:
        os.posix_fadvise(fd, 0, status.st_size, os.POSIX_FADV_WILLNEED)
    return fd, status


def _goes_on(fd: int, status: os.stat_result) -> bool:
    """Whether a file has content beyond its size although it has not grown.

    Files of /proc have size 0; file systems by FUSE may state any size.
    """
    return bool(os.pread(fd, 1, status.st_size)) and os.fstat(fd).st_size == status.st_size


def _outcome(before: os.stat_result, after: os.stat_result, size: int) -> ReadOutcome:
    """The outcome of reading ``size`` bytes of a file.

    A file without blocks is generated while it is read: it may be shorter than stated (sysfs).
    """
    same = (
        before.st_size == after.st_size
        and before.st_mtime_ns == after.st_mtime_ns
        and before.st_ctime_ns == after.st_ctime_ns
    )
    return _READ if same and (size >= after.st_size or not after.st_blocks) else ReadOutcome.CHANGED


def _state(stat: os.stat_result) -> bytes:
    return state_of(stat) if stat.st_nlink > 1 else b""


def _read_whole(fd: int, room: memoryview, size: int) -> int:
    """Read a file of that size; returns more if it goes on, or if ``room`` is too small to see."""
    if size >= len(room):
        return size + 1
    filled = os.preadv(fd, [room[: size + 1]], 0)  # for most files one call, which sees the end too
    if 0 < filled < size:
        filled += _read_into(fd, room[filled:size], filled)
    return filled


def _read_into(fd: int, view: memoryview, offset: int) -> int:
    """Fill the view from an offset of the file on; fewer bytes only at the end of the file."""
    filled = 0
    while filled < len(view) and (got := os.preadv(fd, [view[filled:]], offset + filled)):
        filled += got
    return filled
