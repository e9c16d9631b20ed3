"""Deduplication: finds chunks that are stored already, and stores the others.

`ChunkStore` joins the chunk map with the packs of the run; `TreeBuilder` turns
entries into the tree stream and its levels (docs/format.md 8).
"""

import hashlib
from collections.abc import Callable, Sequence

from vault.crypto.keys import chunk_id
from vault.format.chunker import Chunker, ChunkSizes
from vault.format.tree_levels import fold_levels
from vault.machine.chunk_cache import Cache, ChunkPlace
from vault.model import Buffer, ObjectType
from vault.snapshot.packer import Packer

_TREE_BUFFER = 262_144  # bytes of tree stream that are cut at once


class ChunkStore:
    """Finds or stores chunks of one type.

    Args:
        cache: The chunk map.
        packer: Stores new chunks.
        usable: Returns whether this run may rely on a pack.
        fresh: Store chunks anew although earlier runs did (for a tree in too many packs).
    """

    def __init__(
        self, cache: Cache, packer: Packer, usable: Callable[[int], bool], *, fresh: bool = False
    ) -> None:
        self._cache = cache
        self._packer = packer
        self._usable = usable
        self._fresh = fresh
        self.added_size = 0  # bytes of plaintext stored by this run

    def store(self, chunks: Sequence[bytes], pieces: Sequence[Buffer]) -> list[int]:
        """The numbers of the packs that hold the chunks, or will hold them.

        Args:
            chunks: Their ids.
            pieces: Their bytes.
        """
        packer = self._packer
        recorded = len(packer.stored)
        known = self._cache.find_all(chunks)
        numbers = []
        for chunk, piece, found in zip(chunks, pieces, known, strict=True):
            number = packer.find(chunk)
            if number is None:
                if found is None and len(packer.stored) != recorded:
                    found = self._cache.find(chunk)  # noqa: PLW2901 - its pack came in meanwhile
                number = self._usable_number(found, len(piece))
            if number is None:
                number = packer.add(chunk, piece)
                self.added_size += len(piece)
            numbers.append(number)
        return numbers

    def _usable_number(self, found: ChunkPlace | None, size: int) -> int | None:
        if found is None or found.length != size:
            return None
        if self._fresh and found.pack not in self._packer.stored:
            return None
        return found.pack if self._usable(found.pack) else None


class TreeBuilder:
    """Turns entries into the tree stream, and stores it up to its root.

    Args:
        store: Stores tree chunks.
        sizes: Sizes of tree chunks.
        id_key: The domain's id key.
    """

    def __init__(self, store: ChunkStore, sizes: ChunkSizes, id_key: bytes) -> None:
        self._store = store
        self._sizes = sizes
        self._chunker = Chunker(sizes)
        self._id_key = id_key
        self._buffer = bytearray()
        self._ids: list[bytes] = []
        self.packs: set[int] = set()

    def beside(self) -> "TreeBuilder":
        """A further stream of tree chunks in the same store, for a list of a giant file."""
        return TreeBuilder(self._store, self._sizes, self._id_key)

    def add(self, data: bytes) -> None:
        """Append to the tree stream."""
        self._buffer += data
        if len(self._buffer) >= _TREE_BUFFER:
            self._cut(final=False)

    def finish(self) -> tuple[bytes, int]:
        """Root chunk id and level, once everything was added."""
        self._cut(final=True)
        return fold_levels(
            self._ids,
            lambda stream: self._chunker.cut(stream, final=True),
            lambda chunk: self._put([chunk])[0],
        )

    def _cut(self, *, final: bool) -> None:
        data = bytes(self._buffer)
        at = 0
        chunks = []
        for length in self._chunker.cut(data, final=final):
            chunks.append(data[at : at + length])
            at += length
        self._ids += self._put(chunks)
        del self._buffer[:at]

    def _put(self, chunks: Sequence[bytes]) -> list[bytes]:
        digests = [hashlib.sha256(chunk).digest() for chunk in chunks]
        names = [chunk_id(self._id_key, ObjectType.TREE, digest) for digest in digests]
        self.packs.update(self._store.store(names, chunks))
        return names
