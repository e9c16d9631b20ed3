"""Chunks that are already stored are found, others are stored: deduplication.

`ChunkStore` joins the chunk map with the packs of the run; `TreeBuilder` turns
entries into the tree stream and its levels (docs/format.md 8).
"""

import hashlib
from collections.abc import Callable

from vault.cache import Cache
from vault.chunker import Chunker, ChunkSizes
from vault.crypto import chunk_id
from vault.model import ObjectType
from vault.snapshot.packer import Packer
from vault.storage.base import Buffer
from vault.tree import fold_levels

_TREE_BUFFER = 262_144  # bytes of tree stream that are cut at once


class ChunkStore:
    """Finds or stores chunks of one type.

    Args:
        cache: The chunk map.
        packer: Takes what is not there yet.
        usable: Whether a pack may be relied on by this run.
        fresh: Store anew what earlier runs stored (a tree that is spread too far).
    """

    def __init__(
        self, cache: Cache, packer: Packer, usable: Callable[[int], bool], *, fresh: bool = False
    ) -> None:
        self._cache = cache
        self._packer = packer
        self._usable = usable
        self._fresh = fresh
        self.added_size = 0  # bytes of plaintext stored by this run

    def store(self, chunk: bytes, piece: Buffer) -> int:
        """The number of the pack that holds the chunk, or is about to."""
        number = self._find(chunk, len(piece))
        if number is None:
            number = self._packer.add(chunk, piece)
            self.added_size += len(piece)
        return number

    def _find(self, chunk: bytes, size: int) -> int | None:
        pending = self._packer.find(chunk)
        if pending is not None:
            return pending
        known = self._cache.find(chunk)
        if known is None or known[1] != size:
            return None
        number = known[0]
        if self._fresh and number not in self._packer.stored:
            return None
        return number if self._usable(number) else None


class TreeBuilder:
    """Entries in, the tree's root out.

    Args:
        store: Where tree chunks go.
        sizes: Of tree chunks.
        id_key: The domain's id key.
    """

    def __init__(self, store: ChunkStore, sizes: ChunkSizes, id_key: bytes) -> None:
        self._store = store
        self._chunker = Chunker(sizes)
        self._id_key = id_key
        self._buffer = bytearray()
        self._ids: list[bytes] = []
        self.packs: set[int] = set()

    def add(self, data: bytes) -> None:
        """Append to the tree stream."""
        self._buffer += data
        if len(self._buffer) >= _TREE_BUFFER:
            self._cut(final=False)

    def finish(self) -> tuple[bytes, int]:
        """Root chunk id and level, once everything was added."""
        self._cut(final=True)
        return fold_levels(
            self._ids, lambda stream: self._chunker.cut(stream, final=True), self._put
        )

    def _cut(self, *, final: bool) -> None:
        data = bytes(self._buffer)
        at = 0
        for length in self._chunker.cut(data, final=final):
            self._ids.append(self._put(data[at : at + length]))
            at += length
        del self._buffer[:at]

    def _put(self, chunk: bytes) -> bytes:
        name = chunk_id(self._id_key, ObjectType.TREE, hashlib.sha256(chunk).digest())
        self.packs.add(self._store.store(name, chunk))
        return name
