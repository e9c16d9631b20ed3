"""Reads large files and streams piece by piece, so that memory is bounded by the piece.

One thread reads pieces and hashes them as parts of the file. Another cuts the previous piece into
chunks and hashes those. Both take about as long.
"""

import hashlib
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Protocol

from vault.format.chunker import Chunker, ChunkSizes
from vault.model import Buffer

PIECE = 4 * 1_048_576  # bytes
_BUFFERS = 3  # one is filled, one is cut, the chunks of one are stored


class ContentDigest(Protocol):
    """Hashes a content in order: a SHA-256 or a `TreeHash`."""

    def update(self, data: Buffer, /) -> None:
        """Add the next bytes."""

    def digest(self) -> bytes:
        """The digest of all that was added: 32 bytes."""


class Part(NamedTuple):
    """Bytes that were read; they are hashed as part of the file now or soon."""

    buffer: memoryview  # they begin at `Pieces.room`
    size: int
    ends: bool  # a hole or the end follows
    is_last: bool


class BufferPool:
    """Buffers that are used again, as the kernel zeroes fresh memory page by page."""

    def __init__(self) -> None:
        self._buffers: list[bytearray] = []

    def take(self, size: int) -> bytearray:
        """A buffer of at least ``size`` bytes, with any content."""
        buffer = self._buffers.pop() if self._buffers else bytearray()
        return buffer if len(buffer) >= size else bytearray(size)

    def give_back(self, buffer: bytearray) -> None:
        """Return a buffer to the pool."""
        self._buffers.append(buffer)


class Pieces:
    """Cuts a file or stream; one thread at a time calls `read_piece`. Must be closed.

    Reading begins in `__init__`, so a subclass first sets what its `_read` needs.

    Args:
        sizes: Sizes of chunks.
        chunk_id: Returns the id of the chunk with a SHA-256.
        pool: Gives buffers.
        piece: The most bytes of a part.
        digest: Hashes what is read.
    """

    def __init__(
        self,
        sizes: ChunkSizes,
        chunk_id: Callable[[bytes], bytes],
        pool: BufferPool,
        piece: int,
        digest: ContentDigest,
    ) -> None:
        self.done = False
        self._is_closed = False
        self._chunk_id = chunk_id
        self._chunker = Chunker(sizes)
        self._room = sizes.max  # bytes before the part in a buffer, for the rest of the last part
        self._piece = piece
        self._pool = pool
        self._tail = b""
        self._free: queue.SimpleQueue[bytearray | None] = queue.SimpleQueue()  # None: stop
        self._held: list[bytearray] = []  # buffers whose chunks are cut or stored
        self._parts: queue.SimpleQueue[Part | BaseException | None] = queue.SimpleQueue()
        self._hash = digest
        for _ in range(_BUFFERS):
            self._free.put(pool.take(self._room + piece))
        self._thread = threading.Thread(target=self._run, name="reading", daemon=True)
        self._thread.start()

    def read_piece(self) -> tuple[list[bytes], list[memoryview]]:
        """Ids and bytes of the next chunks; the bytes stay valid until the call after the next one.

        `done` is set with the last of them.

        Raises:
            OSError: It can't be read.
        """
        if len(self._held) == _BUFFERS - 1:
            self._free.put(self._held.pop(0))
        part = self._parts.get()
        if isinstance(part, BaseException):
            raise part
        if part is None:
            self.done = True
            return [], []
        assert isinstance(part.buffer.obj, bytearray)
        self._held.append(part.buffer.obj)
        self.done = part.is_last
        return self._cut(part)

    def digest(self) -> bytes:
        """The digest of all that was read; waits until that is hashed."""
        self._thread.join()
        return self._hash.digest()

    def close(self) -> None:
        """Stop reading; may be called twice. Chunks must not be used afterwards."""
        self._is_closed = True
        self._free.put(None)
        self._thread.join()
        if not self.done:  # a thread in `read_piece` may still wait, or cut a buffer
            self._parts.put(None)
            return
        while not self._free.empty():
            if buffer := self._free.get():
                self._held.append(buffer)
        while self._held:
            self._pool.give_back(self._held.pop())

    def _read(self) -> Iterator[Part]:
        """Fill buffers from `_take`, and hash what was read when the next one is asked for."""
        raise NotImplementedError

    def _take(self) -> memoryview | None:
        """Wait for a free buffer, to be filled from `_room` on; None after the consumer stopped."""
        buffer = self._free.get()
        return None if buffer is None else memoryview(buffer)

    def _cut(self, part: Part) -> tuple[list[bytes], list[memoryview]]:
        start = self._room - len(self._tail)
        part.buffer[start : self._room] = self._tail
        filled = part.buffer[start : self._room + part.size]
        lengths = self._chunker.cut(filled, final=part.ends)
        pieces = split_pieces(filled, lengths)
        self._tail = bytes(filled[sum(lengths) :])
        return [self._chunk_id(hashlib.sha256(piece).digest()) for piece in pieces], pieces

    def _run(self) -> None:
        try:
            for part in self._read():
                self._parts.put(part)
            self._parts.put(None)
        except BaseException as error:  # noqa: BLE001 - handed on to the consumer
            self._parts.put(error)


def split_pieces(data: Buffer, lengths: Sequence[int]) -> list[memoryview]:
    """The data in consecutive pieces of these lengths, without copying."""
    view = memoryview(data)
    pieces = []
    offset = 0
    for length in lengths:
        pieces.append(view[offset : offset + length])
        offset += length
    return pieces
