"""The bytes of files, read at any offset; each byte is verified before it is returned.

A block is opened as a whole: its tag and the id of every chunk in it are checked,
and the ids come from a tree that was signed. Open blocks are kept up to a number
of bytes, whatever the size of files and snapshot.
"""

import logging
from array import array
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate, islice
from pathlib import Path
from typing import Final, NamedTuple

from vault.browse.spilled_lists import Items, SpilledNumbers
from vault.encoding import shown_path
from vault.errors import DigestMismatchError, FormatError, IntegrityError
from vault.format.entry import ID_SIZE, Entry, ListRef, hole_size
from vault.format.extents import runs_between
from vault.format.pack import Directory
from vault.machine.lru import Recent
from vault.model import ObjectType
from vault.repository.pack_reader import PackReader
from vault.repository.reader import Located, Reader

_log = logging.getLogger(__name__)

MAX_CACHED: Final = 64 << 20  # bytes of open blocks
_AHEAD: Final = 8 << 20  # bytes of blocks that are fetched together when reading on
_MAX_AHEAD_CHUNKS: Final = 256  # looked up for that
_AT_ONCE: Final = 4_096  # chunks or holes that are noted together

_BlockKey = tuple[int, int]  # number of the pack, number of the block


class _Place(NamedTuple):
    """Where a chunk lies."""

    pack: int
    block: int
    offset: int  # in the block's raw bytes
    length: int  # bytes

    @property
    def key(self) -> _BlockKey:
        return self.pack, self.block


class Blocks:
    """Chunks of data packs by id.

    Args:
        reader: Finds the pack of each chunk.
        max_cached: Bytes of open blocks to keep.
    """

    def __init__(self, reader: Reader, *, max_cached: int = MAX_CACHED) -> None:
        self.reader = reader
        self._max_cached = max_cached
        self._open: Recent[_BlockKey, bytes] = Recent(max_cached, weigh=len, least=1)
        self._broken: dict[_BlockKey, IntegrityError] = {}

    def chunk(self, chunk_id: bytes, following: Sequence[bytes] = ()) -> memoryview:
        """The bytes of one chunk, verified.

        Args:
            chunk_id: Of the chunk.
            following: Ids that the caller will ask for next; blocks beside this one that hold
                them are fetched along.

        Raises:
            IntegrityError: It is missing or damaged.
        """

        def read(chunk_id: bytes) -> memoryview:
            place = self._place(chunk_id)
            raw = self._open.get(place.key)
            if raw is None:
                self._fetch(place, following)
                raw = self._open.get(place.key)
                assert raw is not None
            return memoryview(raw)[place.offset : place.offset + place.length]

        return self.reader.wherever(chunk_id, read)

    def _place(self, chunk_id: bytes) -> _Place:
        number = self.reader.find(chunk_id).pack
        pack = self.reader.pack(number)
        place = _locate(pack.directory, chunk_id)
        if pack.kind is not ObjectType.DATA or place is None:
            raise self.reader.doubt(
                FormatError(
                    f"{pack.ref.name} does not hold chunk {chunk_id.hex()} of a file",
                    found=pack.kind.name,
                )
            )
        return _Place(number, *place)

    def _fetch(self, wanted: _Place, following: Sequence[bytes]) -> None:
        """Open the block of a chunk, and those of the following chunks that lie beside it.

        Damage is remembered, so that later reads of the pack don't fetch all of it each time.
        """
        if (known := self._broken.get(wanted.key)) is not None:
            raise known.with_traceback(None)
        pack = self.reader.pack(wanted.pack)
        try:
            for number, raw in pack.blocks(self._together(wanted, pack, following)):
                self._open.put((wanted.pack, number), raw)
        except IntegrityError as error:
            if wanted.key not in self._open:
                self._broken[wanted.key] = error
                raise
            _log.debug("reading ahead in %s: %s", pack.ref.name, error)

    def _together(
        self, wanted: _Place, pack: PackReader, following: Sequence[bytes]
    ) -> Sequence[int]:
        """Blocks of the same pack to fetch in one go; the one that is wanted comes first."""
        blocks = {wanted.block: None}
        room = min(_AHEAD, self._max_cached) - pack.directory.blocks[wanted.block].raw
        for chunk_id in following[:_MAX_AHEAD_CHUNKS]:
            place = self._place(chunk_id)
            if place.pack != wanted.pack or place.key in self._broken:
                break
            if place.block in blocks or place.key in self._open:
                continue
            room -= pack.directory.blocks[place.block].raw
            if room < 0:
                break
            blocks[place.block] = None
        return list(blocks)


class FileContent:
    """The bytes of one file, at any offset.

    Offsets follow from the lengths of chunks. A caller that reads at random offsets must take
    these lengths from a signed index or a pack read by digest (`Reader.by_digest`).

    Args:
        blocks: Gives the chunks.
        entry: A file.

    Raises:
        IntegrityError: A chunk is in no pack, or the chunks don't add up to the file's size.
    """

    def __init__(self, blocks: Blocks, entry: Entry) -> None:
        reader = blocks.reader
        self.blocks = blocks
        self.size = entry.size
        self._starts: Sequence[int]  # of data between holes
        self._ends: Sequence[int]
        self._before: Sequence[int]  # bytes of data before it
        self._starts, self._ends, self._before = _kept_runs(
            runs_between(reader.holes_of(entry), entry.size), entry, reader.scratch
        )
        self._ids: Sequence[bytes]
        self._chunk_ends: Sequence[int]  # in the data
        self._ids, self._chunk_ends = _kept_chunks(reader.located(entry), entry, reader.scratch)
        found = self._chunk_ends[-1] if self._chunk_ends else 0
        expected = entry.size - hole_size(entry)
        if found != expected:
            raise blocks.reader.doubt(
                DigestMismatchError(
                    f"chunks of {shown_path(entry.path)} don't add up to the file",
                    expected=f"{expected} bytes",
                    found=f"{found} bytes",
                )
            )

    def read(self, offset: int, size: int) -> bytes:
        """Up to ``size`` bytes from ``offset`` on; fewer only at the end of the file.

        Raises:
            IntegrityError: Some of them are missing or damaged.
        """
        end = min(offset + size, self.size)
        pieces: list[memoryview | bytes] = []
        while offset < end:
            piece = self._piece(offset, end)
            pieces.append(piece)
            offset += len(piece)
        return b"".join(pieces)

    def _piece(self, offset: int, end: int) -> memoryview | bytes:
        """The next bytes that lie together in one chunk or one hole."""
        at = bisect_right(self._starts, offset) - 1
        if at >= 0 and offset < self._ends[at]:
            position = self._before[at] + offset - self._starts[at]
            return self._data(position, min(end, self._ends[at]) - offset)
        behind = self._starts[at + 1] if at + 1 < len(self._starts) else self.size
        return bytes(min(end, behind) - offset)

    def _data(self, position: int, size: int) -> memoryview:
        number = bisect_right(self._chunk_ends, position)
        start = self._chunk_ends[number - 1] if number else 0
        following = self._ids[number + 1 : number + 1 + _MAX_AHEAD_CHUNKS]
        chunk = self.blocks.chunk(self._ids[number], following)
        return chunk[position - start : position - start + size]


def _kept_runs(
    runs: Iterator[tuple[int, int]], entry: Entry, scratch: Path
) -> tuple[Sequence[int], Sequence[int], Sequence[int]]:
    """Start and end of each run of data between holes, and the bytes of data before it."""
    starts, ends, before = (_numbers(entry.hole_list, scratch) for _ in range(3))
    total = 0
    while some := list(islice(runs, _AT_ONCE)):
        starts.extend([offset for offset, _ in some])
        ends.extend([offset + length for offset, length in some])
        totals = list(accumulate((length for _, length in some), initial=total))
        before.extend(totals[:-1])
        total = totals[-1]
    return starts, ends, before


def _kept_chunks(
    chunks: Iterator[Located], entry: Entry, scratch: Path
) -> tuple[Sequence[bytes], Sequence[int]]:
    """Ids of a file's chunks, and where each ends in its data."""
    ids: list[bytes] | Items = [] if entry.chunk_list is None else Items(scratch, ID_SIZE)
    ends = _numbers(entry.chunk_list, scratch)
    total = 0
    while some := list(islice(chunks, _AT_ONCE)):
        ids.extend([chunk.id for chunk in some])
        totals = list(accumulate((chunk.length for chunk in some), initial=total))
        ends.extend(totals[1:])
        total = totals[-1]
    return ids, ends


def _numbers(listed: ListRef | None, scratch: Path) -> "array[int] | SpilledNumbers":
    """An empty list of numbers: on disk for a file whose list of chunks is an object of its own."""
    return array("Q") if listed is None else SpilledNumbers(scratch)


def _locate(directory: Directory, chunk_id: bytes) -> tuple[int, int, int] | None:
    """Block, offset and length of a chunk, without a map of the whole pack."""
    at = directory.ids.find(chunk_id)
    while at % len(chunk_id):  # across two ids; -1 ends it too
        if at < 0:
            return None
        at = directory.ids.find(chunk_id, at + 1)
    place = at // len(chunk_id)
    number = bisect_right(directory.blocks, place, key=lambda block: block.first_chunk) - 1
    first = directory.blocks[number].first_chunk
    return number, sum(directory.lengths[first:place]), directory.lengths[place]
