"""Content into staging: planned by pack, so that each is fetched once (design.md 6).

The plan is held in arrays: 44 bytes a chunk and 12 a file, no objects.
"""

import array
import contextlib
import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from vault.errors import DigestMismatchError, FormatError
from vault.model import ObjectType
from vault.pack import Location
from vault.progress import Progress
from vault.reader import PackReader, Reader
from vault.restore.spool import Spool
from vault.restore.stage import Stager
from vault.tree import Entry
from vault.workers import Workers, streamed

BLOCKS_AHEAD = 4  # opened and not yet written; bounds memory


class _PackPlan:
    """What one pack has to deliver."""

    __slots__ = ("files", "ids", "offsets")

    def __init__(self) -> None:
        self.ids = bytearray()  # 32 bytes each
        self.files = array.array("I")
        self.offsets = array.array("Q")


class _Write(NamedTuple):
    """One chunk to be written."""

    place: Location
    file: int
    offset: int


class Plan:
    """Chunks wanted, by pack, and the files that want them.

    Args:
        reader: Says where chunks lie.
    """

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._packs: dict[int, _PackPlan] = {}
        self.places = array.array("Q")  # of the files' entries in the spool
        self.pending = array.array("I")  # chunks not yet written, by file

    def add(self, place: int, entry: Entry) -> None:
        """Plan one file that has content.

        Raises:
            MissingObjectError: A chunk is in none of the packs.
            FormatError: A chunk is none of a file's.
            DigestMismatchError: The chunks are not as long as the file.
            StaleIndexError: Any of these, unless everything was hashed.
        """
        file = len(self.places)
        ids = self._reader.chunks_of(entry)
        self.places.append(place)
        self.pending.append(len(ids))
        segments = _segments(entry)
        room, offset = 0, 0
        for name in ids:
            pack, length = self._find(name)
            while not room:
                offset, room = next(segments, (0, 0))
                if not room:
                    raise self._reader.doubt(_wrong_length(entry))
            plan = self._packs.setdefault(pack, _PackPlan())
            plan.ids += name
            plan.files.append(file)
            plan.offsets.append(offset)
            offset, room = offset + length, room - length
            if room < 0:
                raise self._reader.doubt(_wrong_length(entry))
        if room or next(segments, None) is not None:
            raise self._reader.doubt(_wrong_length(entry))

    def _find(self, name: bytes) -> tuple[int, int]:
        """Number of the data pack that holds a chunk, and the chunk's length."""
        number, length = self._reader.find(name)
        pack = self._reader.pack(number)
        if pack.kind is not ObjectType.DATA:
            raise self._reader.doubt(
                FormatError(f"{pack.ref.name} holds no file content", found=pack.kind.name)
            )
        return number, length

    def packs(self) -> Iterator[tuple[PackReader, list[_Write]]]:
        """Each pack with its writes in the order of its blocks; a plan is dropped when taken."""
        for number in sorted(self._packs):
            pack = self._reader.pack(number)
            plan = self._packs.pop(number)
            places = {place.id: place for place in pack.directory.iter_chunks()}
            writes = [
                _Write(places[bytes(plan.ids[i * 32 : i * 32 + 32])], file, offset)
                for i, (file, offset) in enumerate(zip(plan.files, plan.offsets, strict=True))
            ]
            writes.sort(key=lambda write: (write.place.block, write.place.offset))
            yield pack, writes


class Fetcher:
    """Carries out a plan. Packs are fetched and opened in threads, files written in one.

    Args:
        plan: What to fetch.
        spool: The verified tree.
        stager: Where files go.
        renamed: Path in staging of a file by its own, where it differs.
        workers: Executors.
        progress: Told files and bytes written.
    """

    def __init__(
        self,
        plan: Plan,
        spool: Spool,
        stager: Stager,
        *,
        renamed: dict[bytes, bytes],
        workers: Workers,
        progress: Progress,
    ) -> None:
        self._plan = plan
        self._spool = spool
        self._stager = stager
        self._renamed = renamed
        self._workers = workers
        self._progress = progress
        self._begun: set[int] = set()  # files of several chunks

    def run(self) -> None:
        """Write all content; every file is finished with its attributes on return.

        Raises:
            StaleIndexError: The index was wrong; start again without it.
            IntegrityError: A pack can't be had with the right bytes.
            LocalError: The disk failed.
        """
        blocks = streamed(
            self._workers.compute,
            _open_blocks,
            map(_Work, self._plan.packs()),
            limit=self._workers.in_flight,
            ahead=BLOCKS_AHEAD,
        )
        with contextlib.closing(blocks):
            for work, (block, raw) in blocks:
                self._write_block(work.by_block[block], memoryview(raw))

    def _write_block(self, writes: Sequence[_Write], raw: memoryview) -> None:
        files = size = 0
        for place, file, offset in writes:
            piece = raw[place.offset : place.offset + place.length]
            files += self._write(file, offset, piece)
            size += place.length
        self._progress.advance(files=files, size=size)

    def _write(self, file: int, offset: int, piece: memoryview) -> bool:
        """One chunk into its file; True if that finished the file."""
        entry = self._spool.at(self._plan.places[file])
        fd = self._open(file, self._renamed.get(entry.path, entry.path))
        try:
            self._stager.write(fd, offset, piece)
        except BaseException:
            os.close(fd)
            raise
        self._plan.pending[file] -= 1
        if self._plan.pending[file]:
            self._stager.close_file(fd)
            return False
        self._stager.finish_file(fd, entry)
        return True

    def _open(self, file: int, path: bytes) -> int:
        """The first chunk makes the file."""
        if file in self._begun:
            return self._stager.reopen_file(path)
        if self._plan.pending[file] > 1:
            self._begun.add(file)
        return self._stager.create_file(path)


class _Work:
    """A pack and what is wanted of it, by block."""

    def __init__(self, planned: tuple[PackReader, Sequence[_Write]]) -> None:
        self.pack, writes = planned
        self.by_block: defaultdict[int, list[_Write]] = defaultdict(list)
        for write in writes:
            self.by_block[write.place.block].append(write)


def _open_blocks(work: _Work) -> Iterator[tuple[int, bytes]]:
    return work.pack.blocks(sorted(work.by_block))


def _segments(entry: Entry) -> Iterator[tuple[int, int]]:
    """(offset, length) of the file's data between its holes."""
    at = 0
    for hole, length in entry.holes or ():
        if hole > at:
            yield at, hole - at
        at = hole + length
    if entry.size > at:
        yield at, entry.size - at


def _wrong_length(entry: Entry) -> DigestMismatchError:
    return DigestMismatchError(
        f"chunks of {entry.path!r} are not as long as the file", expected=f"{entry.size} bytes"
    )
