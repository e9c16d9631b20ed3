"""Content into staging: planned by pack, so that each is fetched once (design.md 6).

The plan is held in arrays: 44 bytes a chunk and 12 a file, no objects.
"""

import array
import contextlib
import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple, TypeAlias

from vault.errors import DigestMismatchError, FormatError
from vault.model import ObjectType
from vault.pack import Location
from vault.processes import Helper, start
from vault.progress import Progress
from vault.reader import PackReader, Reader
from vault.restore.spool import Spool
from vault.restore.stage import Stager
from vault.tree import Entry
from vault.workers import Workers, streamed

_LOOKED_UP = 512  # chunks at once
BLOCKS_AHEAD = 4  # opened and not yet written; bounds memory
_ROOM = 2 << 20  # bytes: blocks of small files are not larger


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
        self._added: list[tuple[int, Entry, Sequence[bytes]]] = []
        self._added_ids: list[bytes] = []
        self.places = array.array("Q")  # of the files' entries in the spool
        self.pending = array.array("I")  # chunks not yet written, by file

    def add(self, place: int, entry: Entry) -> None:
        """Plan one file that has content; at the latest when `end` returns.

        Raises:
            MissingObjectError: A chunk is in none of the packs.
            FormatError: A chunk is none of a file's.
            DigestMismatchError: The chunks are not as long as the file.
            StaleIndexError: Any of these, unless everything was hashed.
        """
        ids = self._reader.chunks_of(entry)
        self._added.append((place, entry, ids))
        self._added_ids += ids
        if len(self._added_ids) >= _LOOKED_UP:
            self.end()

    def end(self) -> None:
        """Plan what was added and not planned yet; raises as `add`."""
        locations = iter(self._reader.find_all(self._added_ids))
        for place, entry, ids in self._added:
            self._plan(place, entry, [(name, *next(locations)) for name in ids])
        self._added.clear()
        self._added_ids.clear()

    def _plan(self, place: int, entry: Entry, chunks: Sequence[tuple[bytes, int, int]]) -> None:
        """One file by its chunks: id, pack and length."""
        file = len(self.places)
        self.places.append(place)
        self.pending.append(len(chunks))
        segments = _segments(entry)
        room, offset = 0, 0
        for name, number, length in chunks:
            while not room:
                offset, room = next(segments, (0, 0))
                if not room:
                    raise self._reader.doubt(_wrong_length(entry))
            plan = self._packs.get(number) or self._begin(number)
            plan.ids += name
            plan.files.append(file)
            plan.offsets.append(offset)
            offset, room = offset + length, room - length
            if room < 0:
                raise self._reader.doubt(_wrong_length(entry))
        if room or next(segments, None) is not None:
            raise self._reader.doubt(_wrong_length(entry))

    def _begin(self, number: int) -> _PackPlan:
        """The plan of a data pack that is needed for the first time."""
        pack = self._reader.pack(number)
        if pack.kind is not ObjectType.DATA:
            raise self._reader.doubt(
                FormatError(f"{pack.ref.name} holds no file content", found=pack.kind.name)
            )
        plan = self._packs[number] = _PackPlan()
        return plan

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


class _Part(NamedTuple):
    """One chunk of a file, and where it is in the block at hand."""

    file: int
    offset: int  # in the file
    start: int  # in the block
    length: int


class _Written(NamedTuple):
    """What a process finished."""

    files: int
    size: int


_Helper: TypeAlias = Helper[list[_Part], _Written]


class Fetcher:
    """Carries out a plan. Packs are fetched and opened in threads.

    Files are written by one thread; those of one chunk also by processes, each of which
    takes those of a block.

    Args:
        plan: What to fetch.
        spool: The verified tree.
        stager: Where files go.
        renamed: Path in staging of a file by its own, where it differs.
        workers: Executors.
        processes: That may be forked to write files of one chunk.
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
        processes: int = 0,
        progress: Progress,
    ) -> None:
        self._plan = plan
        self._spool = spool
        self._stager = stager
        self._renamed = renamed
        self._workers = workers
        self._processes = processes
        self._progress = progress
        self._begun: set[int] = set()  # files of several chunks
        self._helpers: list[_Helper] = []

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
        with contextlib.ExitStack() as stack:
            self._helpers = start(stack, self._processes, self._helper)  # no threads yet
            stack.enter_context(contextlib.closing(blocks))
            for work, (block, raw) in blocks:
                self._write_block(work.by_block[block], memoryview(raw))
            for helper in self._helpers:
                while helper.busy:
                    self._count(helper.take())
                self._stager.add_left_out(helper.finish())

    def _helper(self) -> _Helper:
        before = Counter(self._stager.left_out)
        return Helper(self._write_all, lambda: Counter(self._stager.left_out) - before, room=_ROOM)

    def _write_block(self, writes: Sequence[_Write], raw: memoryview) -> None:
        for helper in self._helpers:
            while helper.ready:
                self._count(helper.take())
        parts = [_Part(file, offset, place.offset, place.length) for place, file, offset in writes]
        if self._helpers:
            parts = self._hand_over(parts, raw)
        self._count(self._write_all(parts, raw))

    def _hand_over(self, parts: list[_Part], raw: memoryview) -> list[_Part]:
        """Have files of one chunk written by whoever has time; returns what is left to do."""
        whole = [part for part in parts if self._is_whole(part.file)]
        if whole and any(helper.offer(whole, raw) for helper in self._helpers):
            return [part for part in parts if not self._is_whole(part.file)]
        return parts

    def _is_whole(self, file: int) -> bool:
        return self._plan.pending[file] == 1 and file not in self._begun

    def _count(self, written: _Written) -> None:
        self._progress.advance(files=written.files, size=written.size)

    def _write_all(self, parts: list[_Part], raw: memoryview) -> _Written:
        files = size = 0
        for part in parts:
            files += self._write(part, raw[part.start : part.start + part.length])
            size += part.length
        return _Written(files, size)

    def _write(self, part: _Part, piece: memoryview) -> bool:
        """One chunk into its file; True if that finished the file."""
        file = part.file
        entry = self._spool.at(self._plan.places[file])
        fd = self._open(file, self._renamed.get(entry.path, entry.path))
        try:
            self._stager.write(fd, part.offset, piece)
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
