"""Files into chunks (design.md 6).

Small files are read whole, many to a batch, by the thread that walks: what Python does
for each would only fight over the interpreter elsewhere. Others are read by threads, a
large one in pieces, one after the other, so memory is bounded by the piece. One SHA-256
pass serves the file's digest and the id of a one-chunk file.
"""

import contextlib
import errno
import hashlib
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from enum import Enum
from typing import NamedTuple, TypeAlias

from vault import fsmeta, source
from vault.chunker import Chunker, ChunkSizes
from vault.crypto import chunk_id
from vault.model import ObjectType
from vault.source import SourceItem
from vault.storage.base import Buffer

SMALL_FILE = 256 * 1024  # bytes; larger ones are read, cut and hashed by threads
LARGE_FILE = 8 * 1_048_576  # bytes; larger files are read in pieces
PIECE = 8 * 1_048_576  # bytes
_HASHED_BESIDE = 1_048_576  # bytes, for which a thread is worth its start
_TOO_MANY_OPEN = frozenset({errno.EMFILE, errno.ENFILE})
_ZEROS = memoryview(bytes(1_048_576))


class Outcome(Enum):
    """How reading one file ended."""

    READ = "read"
    CHANGED = "changed"  # while it was read, twice
    VANISHED = "vanished"
    UNREADABLE = "unreadable"


_READ = Outcome.READ  # looked up once, not for every file


class FileContent(NamedTuple):
    """One file as read; the entry is made of ``stat`` as it was when read.

    A tuple, because there is one for every file.
    """

    outcome: Outcome
    stat: os.stat_result | None = None
    xattrs: fsmeta.Xattrs | None = None
    problems: Sequence[str] = ()  # attributes that could not be read, and why
    sha256: bytes = b""
    size: int = 0
    ids: Sequence[bytes] = ()
    pieces: Sequence[Buffer] = ()  # the chunks
    holes: tuple[tuple[int, int], ...] | None = None  # (offset, length)
    read_ns: int = 0
    problem: str = ""


class FileReader:
    """Reads, cuts and hashes; one for a run, used by several threads.

    Args:
        sizes: Chunk sizes of the repository.
        id_key: The domain's id key.
        clock_ns: The wall clock in nanoseconds, on the file system's scale.
    """

    def __init__(self, sizes: ChunkSizes, id_key: bytes, clock_ns: Callable[[], int]) -> None:
        self._sizes = sizes
        self._id_key = id_key
        self.clock_ns = clock_ns

    def chunk_id(self, sha256: bytes) -> bytes:
        """The id of a data chunk with this SHA-256."""
        return chunk_id(self._id_key, ObjectType.DATA, sha256)

    def read_batch(self, items: Sequence[SourceItem]) -> list[FileContent]:
        """Read files whole, in order; problems are results, not exceptions.

        All are opened first, and the disk is asked for them: it then has many requests
        at once, though one thread reads.
        """
        chunker = Chunker(self._sizes)
        read_ns = self.clock_ns()  # before the first byte: later writes are newer
        asked = deque(map(_ask, items))
        contents = []
        try:
            for item in items:
                first = asked.popleft()
                if isinstance(first, OSError) and first.errno in _TOO_MANY_OPEN:
                    first = _ask(item)  # those before it are closed by now
                content = self._read_once(first, chunker, read_ns)
                if content.outcome is Outcome.CHANGED:
                    content = self._read_once(_ask(item), chunker, self.clock_ns())
                contents.append(content)
        finally:
            for left in asked:
                if not isinstance(left, OSError):
                    os.close(left[0])
        return contents

    def _read_once(self, asked: "_Asked", chunker: Chunker, read_ns: int) -> FileContent:
        if isinstance(asked, OSError):
            return failed(asked)
        fd, before = asked
        try:
            try:
                data = _read_up_to(fd, before.st_size)
                after = os.fstat(fd)
                problems: list[str] = []
                xattrs = fsmeta.read_xattrs(fd, problems)
            finally:
                os.close(fd)
        except OSError as error:
            return failed(error)
        digest = hashlib.sha256(data).digest()
        ids, pieces = self._cut(data, digest, chunker)
        return FileContent(
            _outcome(before, after, len(data)),
            after,
            xattrs,
            problems,
            digest,
            len(data),
            ids,
            pieces,
            None,
            read_ns,
        )

    def _cut(
        self, data: bytes, digest: bytes, chunker: Chunker
    ) -> tuple[Sequence[bytes], Sequence[Buffer]]:
        """Ids and bytes of a whole file's chunks."""
        if not data:
            return (), ()
        if len(data) <= self._sizes.min:
            return (self.chunk_id(digest),), (data,)
        pieces = split(data, chunker.cut(data, final=True))
        if len(pieces) == 1:
            return (self.chunk_id(digest),), pieces
        return [self.chunk_id(hashlib.sha256(piece).digest()) for piece in pieces], pieces

    def open_in_pieces(self, item: SourceItem) -> "LargeFile":
        """A file to be read in pieces.

        Raises:
            OSError: It can't be opened.
        """
        return LargeFile(self, item, self._sizes)


class LargeFile:
    """A large or sparse file; `read_piece` is called by one thread at a time.

    Every run of data between holes is cut on its own; a hole costs only the
    hashing of its zeros (docs/format.md 8).
    """

    def __init__(self, reader: FileReader, item: SourceItem, sizes: ChunkSizes) -> None:
        self._reader = reader
        self._chunker = Chunker(sizes)
        self._read_ns = reader.clock_ns()
        self._fd, self._before = _open(item)
        self._holes = fsmeta.read_holes(self._fd, self._before.st_size)
        self._runs = _runs_between(self._holes, self._before.st_size)
        self._end = 0  # of the run of data that is being read
        self._sha256 = hashlib.sha256()
        self._tail = b""
        self.size = 0
        self.done = False

    def read_piece(self) -> tuple[list[bytes], list[memoryview]]:
        """The next chunks: ids and bytes. `done` is set with the last of them."""
        if self.size == self._end:
            self._next_run()
        if self.done:
            return [], []
        start = len(self._tail)
        room = min(PIECE, self._end - self.size)
        data = bytearray(start + room)
        data[:start] = self._tail
        view = memoryview(data)
        got = _read_into(self._fd, view[start:], self.size)
        self.size += got
        self.done = got < room or self.size == self._before.st_size
        filled = view[: start + got]
        with self._hashing(filled[start:]):
            lengths = self._chunker.cut(filled, final=self.done or self.size == self._end)
            pieces = split(filled, lengths)
            self._tail = bytes(filled[sum(lengths) :])
            ids = [self._reader.chunk_id(hashlib.sha256(piece).digest()) for piece in pieces]
        return ids, pieces

    @contextlib.contextmanager
    def _hashing(self, data: memoryview) -> Iterator[None]:
        """Hash the file's bytes beside the block: that takes as long as to cut and hash chunks."""
        if len(data) < _HASHED_BESIDE:
            self._sha256.update(data)
            yield
            return
        beside = threading.Thread(target=self._sha256.update, args=(data,))
        beside.start()
        try:
            yield
        finally:
            beside.join()

    def _next_run(self) -> None:
        """Hash the hole before the next run of data, or before the end of the file."""
        start, self._end = next(self._runs, (self._before.st_size, self._before.st_size))
        while self.size < start:
            zeros = _ZEROS[: start - self.size]
            self._sha256.update(zeros)
            self.size += len(zeros)
        self.done = self.size == self._before.st_size

    def finish(self) -> FileContent:
        """What is known once all pieces were read; ids and pieces are left to the caller."""
        after = os.fstat(self._fd)
        problems: list[str] = []
        return FileContent(
            outcome=_outcome(self._before, after, self.size),
            stat=after,
            xattrs=fsmeta.read_xattrs(self._fd, problems),
            problems=problems,
            sha256=self._sha256.digest(),
            size=self.size,
            holes=self._holes or None,
            read_ns=self._read_ns,
        )

    def close(self) -> None:
        """Close the file; may be called twice."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def failed(error: OSError) -> FileContent:
    """What an error while opening or reading means for the file."""
    vanished = isinstance(error, FileNotFoundError | NotADirectoryError)
    return FileContent(
        outcome=Outcome.VANISHED if vanished else Outcome.UNREADABLE,
        problem=error.strerror or type(error).__name__,
    )


_Asked: TypeAlias = tuple[int, os.stat_result] | OSError


def _ask(item: SourceItem) -> _Asked:
    """Open a file and have the disk begin to read it, without waiting; or why that failed."""
    try:
        fd, status = _open(item)
    except OSError as error:
        return error
    if status.st_size:
        os.posix_fadvise(fd, 0, status.st_size, os.POSIX_FADV_WILLNEED)
    return fd, status


def _open(item: SourceItem) -> tuple[int, os.stat_result]:
    assert item.stat is not None
    return source.open_source(item.full, item.stat)


def _outcome(before: os.stat_result, after: os.stat_result, size: int) -> Outcome:
    same = (
        before.st_size == after.st_size == size
        and before.st_mtime_ns == after.st_mtime_ns
        and before.st_ctime_ns == after.st_ctime_ns
    )
    return _READ if same else Outcome.CHANGED


def _read_up_to(fd: int, size: int) -> bytes:
    """``size`` bytes, fewer at the end of the file: a growing file can't hold us up."""
    data = os.read(fd, size)
    while len(data) < size and (more := os.read(fd, size - len(data))):
        data += more
    return data


def _read_into(fd: int, view: memoryview, offset: int) -> int:
    filled = 0
    while filled < len(view) and (got := os.preadv(fd, [view[filled:]], offset + filled)):
        filled += got
    return filled


def _runs_between(holes: Sequence[tuple[int, int]], size: int) -> Iterator[tuple[int, int]]:
    """(start, end) of the data around holes."""
    at = 0
    for offset, length in holes:
        if offset > at:
            yield at, offset
        at = offset + length
    if at < size:
        yield at, size


def is_in_pieces(stat: os.stat_result) -> bool:
    """Whether a file is read in pieces: a large one, or one that may have holes."""
    return stat.st_size > LARGE_FILE or stat.st_blocks * 512 < stat.st_size


def split(data: Buffer, lengths: Sequence[int]) -> list[memoryview]:
    """The data in consecutive pieces of these lengths, without copying."""
    view = memoryview(data)
    pieces = []
    offset = 0
    for length in lengths:
        pieces.append(view[offset : offset + length])
        offset += length
    return pieces
