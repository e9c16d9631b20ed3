"""Chunk ids and holes of a file that is read in pieces, in the form that its entry has.

A giant file has too many of them for an entry, and for memory. They then become lists of their
own, stored as a tree is while the file is being read (docs/format.md 8.1).
"""

from collections.abc import Callable, Iterable, Sequence

from vault.format.entry import ID_SIZE, MAX_INLINE, Entry, ListRef, replace_entry
from vault.format.extents import HOLE
from vault.snapshot.dedup import TreeBuilder

_PIECE = 262_144  # bytes that are passed on at once


class _List:
    """Items of one width, kept in memory while they are few."""

    def __init__(self, width: int, begin: Callable[[], TreeBuilder]) -> None:
        self._begin = begin
        self._most = MAX_INLINE * width
        self._data = bytearray()
        self._width = width
        self.builder: TreeBuilder | None = None
        self.count = 0

    def add(self, data: bytes) -> None:
        self._data += data
        self.count += len(data) // self._width
        if self.builder is None and len(self._data) > self._most:
            self.builder = self._begin()
        if self.builder is not None and len(self._data) >= _PIECE:
            self._hand_on()

    def _hand_on(self) -> None:
        assert self.builder is not None
        self.builder.add(bytes(self._data))
        self._data.clear()

    def finish(self, size: int) -> bytes | ListRef:
        """The items; if there are many, a reference to their list, which covers ``size`` bytes."""
        if self.builder is None:
            return bytes(self._data)
        self._hand_on()
        return ListRef(*self.builder.finish(), self.count, size)


class Extents:
    """Collects chunk ids, their packs, and holes while a file is read.

    Args:
        begin: Returns a new stream of tree chunks.
    """

    def __init__(self, begin: Callable[[], TreeBuilder]) -> None:
        self._ids = _List(ID_SIZE, begin)
        self._holes = _List(HOLE.size, begin)
        self._data_size = self._hole_size = 0
        self.packs: set[int] = set()  # packs that hold the chunks, and the lists

    def add(self, ids: Sequence[bytes], packs: Iterable[int], size: int) -> None:
        """Add the next chunks, of ``size`` bytes together."""
        self._ids.add(b"".join(ids))
        self.packs.update(packs)
        self._data_size += size

    def add_holes(self, holes: Iterable[tuple[int, int]]) -> None:
        """Add the next holes: (offset, length)."""
        for offset, length in holes:
            self._holes.add(HOLE.pack(offset, length))
            self._hole_size += length

    def describe(self, entry: Entry) -> Entry:
        """The entry, with chunks and holes added; called once, at the end."""
        ids, holes = self._ids.finish(self._data_size), self._holes.finish(self._hole_size)
        for each in self._ids, self._holes:
            if each.builder is not None:
                self.packs |= each.builder.packs
        is_derivable = self._ids.count == 1 and not self._holes.count and entry.tree_hash is None
        return replace_entry(
            entry,
            chunks=ids if isinstance(ids, bytes) and not is_derivable else b"",
            chunk_list=ids if isinstance(ids, ListRef) else None,
            holes=tuple(HOLE.iter_unpack(holes)) or None if isinstance(holes, bytes) else None,
            hole_list=holes if isinstance(holes, ListRef) else None,
        )
