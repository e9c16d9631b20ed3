"""New chunks into blocks, blocks into packs, packs into the store (docs/design.md "Snapshot").

One thread calls `Packer`; sealing and uploads run on the executors given to it.
Blocks enter a pack in the order of their counters, packs are closed when full,
and a pack counts as stored only after its row is in the cache.
"""

import array
import dataclasses
import sys
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from datetime import datetime

from vault.crypto.sealed import Sealer, Session
from vault.format.pack import MAX_BLOCK_CHUNKS, PackWriter, SealedBlock
from vault.format.pack_index import IndexEntry
from vault.machine.chunk_cache import Cache, PackRow
from vault.machine.workers import Workers
from vault.model import Buffer, Digest, ObjectType
from vault.parameters import Parameters
from vault.repository.repository import Repository
from vault.snapshot.known_chunks import keep_unindexed
from vault.storage.names import pack_name

MAX_PENDING_BLOCKS = 8  # blocks sealed before they enter their pack; bounds memory
MAX_PACK_CHUNKS = 65_536 - MAX_BLOCK_CHUNKS  # docs/format.md 10


class _OpenPack:
    """A pack whose blocks are still being sealed."""

    def __init__(self, number: int, writer: PackWriter) -> None:
        self.number = number
        self.writer = writer
        self.pending: deque[Future[SealedBlock]] = deque()
        self.pending_size = 0  # bytes of plaintext in `pending`
        self.chunks = 0

    def take_sealed(self, limit: int) -> None:
        """Add the blocks that are ready, in order; wait until at most ``limit`` are pending."""
        while self.pending and (len(self.pending) > limit or self.pending[0].done()):
            block = self.pending.popleft().result()
            self.pending_size -= block.raw
            self.writer.add(block)

    def is_full(self, target: int) -> bool:
        """Whether the pack reaches ``target`` bytes even if nothing compresses."""
        return self.writer.size + self.pending_size >= target or self.chunks >= MAX_PACK_CHUNKS


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _StoredPack:
    """The result of an upload, without the bytes of the pack."""

    number: int
    entry: IndexEntry
    locked_until: int  # seconds since 1970; 0 under lock mode none


class Packer:
    """Stores chunks of one type that the repository does not have yet.

    Args:
        repository: Where packs go.
        session: The run's session; each pack has a salt of its own.
        kind: DATA or TREE.
        cache: Gets a row for every stored pack.
        workers: Executors.
        level: zstd level.
        need: Returns until when a pack stored now must be locked; called for each pack.
    """

    def __init__(
        self,
        repository: Repository,
        session: Session,
        kind: ObjectType,
        *,
        cache: Cache,
        workers: Workers,
        level: int,
        need: Callable[[], datetime],
    ) -> None:
        self._repository = repository
        self._parameters: Parameters = repository.parameters
        self._session = session
        self._kind = kind
        self._cache = cache
        self._workers = workers
        self._level = level
        self._need = need
        self._block = bytearray()
        self._ids: list[bytes] = []
        self._lengths: list[int] = []
        self._block_size = 0  # bytes of `_block` that are used
        self._open: _OpenPack | None = None
        self._uploads: deque[Future[_StoredPack]] = deque()
        self._pending: dict[
            bytes, int
        ] = {}  # chunk id -> number of its pack, until the cache has it
        self.stored: set[int] = set()  # packs of this run, by number
        self.stored_bytes = 0

    def find(self, chunk_id: bytes) -> int | None:
        """The number of this run's pack that will hold the chunk; None if there is none."""
        return self._pending.get(chunk_id)

    def add(self, chunk_id: bytes, piece: Buffer) -> int:
        """Store one new chunk; returns the number of its pack."""
        size, start = len(piece), self._block_size
        if start and (
            start + size > self._parameters.block_size or len(self._ids) >= MAX_BLOCK_CHUNKS
        ):
            self._flush_block()
            start = 0
        number = (self._open or self._begin_pack()).number
        if not start:
            self._block = bytearray(max(size, self._parameters.block_size))
        # copied at once: a piece is a view of a much larger buffer that is used again
        memoryview(self._block)[start : start + size] = piece
        self._ids.append(chunk_id)
        self._lengths.append(size)
        self._block_size = start + size
        self._pending[chunk_id] = number
        return number

    def finish(self) -> None:
        """Wait until every chunk added is stored."""
        self._close_pack()
        while self._uploads:
            self._record(self._uploads.popleft())

    def _begin_pack(self) -> _OpenPack:
        sealer = Sealer.for_session(self._session, self._kind, self._repository.id)
        number = self._cache.reserve_pack()
        self._open = _OpenPack(number, PackWriter(sealer, self._level))
        return self._open

    def _flush_block(self) -> None:
        """Hand the block to a worker; close the pack if it is full."""
        if not self._ids:
            return
        del self._block[self._block_size :]
        pack = self._open or self._begin_pack()
        pack.pending.append(
            self._workers.compute.submit(
                pack.writer.seal_block,
                pack.writer.next_counter(),
                self._block,
                self._ids,
                self._lengths,
            )
        )
        pack.pending_size += self._block_size
        pack.chunks += len(self._ids)
        self._block, self._ids, self._lengths, self._block_size = bytearray(), [], [], 0
        pack.take_sealed(MAX_PENDING_BLOCKS)
        if pack.is_full(self._parameters.pack_size):
            self._close_pack()

    def _close_pack(self) -> None:
        self._flush_block()
        pack, self._open = self._open, None
        if pack is None:
            return
        pack.take_sealed(0)
        while len(self._uploads) >= self._workers.in_flight:
            self._record(self._uploads.popleft())
        self._uploads.append(self._workers.transfer.submit(self._upload, pack.number, pack.writer))

    def _upload(self, number: int, writer: PackWriter) -> _StoredPack:
        finished = writer.finish()
        name = pack_name(finished.pack_id)
        stored = self._repository.put(
            name, finished.data, self._need(), digest=Digest(finished.pack_id)
        )
        until = int(stored.locked_until.timestamp()) if stored.locked_until else 0
        entry = IndexEntry(
            pack_id=finished.pack_id,
            size=stored.ref.size,
            type=self._kind,
            version=stored.ref.version,
            header_length=finished.header_length,
            directory=finished.directory,
        )
        return _StoredPack(number=number, entry=entry, locked_until=until)

    def _record(self, upload: Future[_StoredPack]) -> None:
        """Enter a stored pack into the cache; only from now on may anything rely on it."""
        pack = upload.result()
        entry = pack.entry
        row = PackRow(
            pack_id=entry.pack_id,
            size=entry.size,
            version=entry.version,
            type=entry.type,
            locked_until=pack.locked_until,
        )
        keep_unindexed(self._cache, pack.number, entry)
        self._cache.add_pack(pack.number, row, entry.directory.ids, entry.directory.lengths)
        for chunk in entry.directory.iter_ids():
            if self._pending.get(chunk) == pack.number:
                del self._pending[chunk]
        self.stored_bytes += entry.size
        self.stored.add(pack.number)


def pack_numbers(numbers: Sequence[int]) -> bytes:
    """Pack numbers, each once, in the form of the entry list: u32 little-endian."""
    if len(numbers) == 1:
        return numbers[0].to_bytes(4, "little")
    return b"".join(number.to_bytes(4, "little") for number in sorted(set(numbers)))


def numbers_in(packs: bytes) -> Sequence[int]:
    """The inverse of `pack_numbers`."""
    numbers = array.array("I", packs)
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers
