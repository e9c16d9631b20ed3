"""Fetches content into staging, pack by pack, each pack once (docs/design.md "Restore").

The plan is held in arrays: 44 bytes a chunk and 12 a file, no objects. A giant file, whose
chunks are a list of their own, is planned and fetched part by part.
"""

import array
import bisect
import contextlib
import itertools
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, TypeAlias

from vault.encoding import shown_path
from vault.errors import (
    DigestMismatchError,
    FormatError,
    IntegrityError,
    VaultError,
    WrongKeyError,
)
from vault.format.entry import Entry
from vault.format.extents import runs_between
from vault.format.tree_file import Spool
from vault.format.tree_levels import split_ids
from vault.machine.processes import Helper, start
from vault.machine.workers import Workers, streamed
from vault.model import ObjectType
from vault.progress import Progress
from vault.repository.pack_reader import PackReader, StaleIndexError
from vault.repository.reader import LOOKED_UP, Located, Reader
from vault.restore.stage import Stager

PART = 32_768  # chunks of a giant file that are planned at once
BLOCKS_AHEAD = 4  # opened and not yet written; bounds memory
_ROOM = 2 << 20  # bytes: blocks of small files are not larger


class _PackPlan:
    """Chunks to read from one pack."""

    __slots__ = ("files", "ids", "offsets")

    def __init__(self) -> None:
        self.ids = bytearray()  # 32 bytes each
        self.files = array.array("I")
        self.offsets = array.array("Q")


class _Part(NamedTuple):
    """One chunk of a file, and where it is in the block at hand."""

    file: int
    offset: int  # in the file
    start: int  # in the block
    length: int


class _Placed(NamedTuple):
    """A chunk of a file, the pack it lies in, and where it goes."""

    id: bytes
    pack: int
    offset: int  # in the file


class _Work:
    """Chunks to read from one pack, in the order in which they lie there; 16 bytes for each.

    Arrays instead of objects: a pack of small files has 65,000 chunks, and an object for each
    would take more memory than the pack.
    """

    def __init__(self, pack: PackReader, plan: _PackPlan) -> None:
        self.pack = pack
        numbers = {name: number for number, name in enumerate(pack.directory.iter_ids())}
        wanted = array.array("I", [numbers[name] for name in split_ids(bytes(plan.ids))])
        order = sorted(range(len(wanted)), key=wanted.__getitem__)
        self._chunks = array.array("I", map(wanted.__getitem__, order))
        self._files = array.array("I", map(plan.files.__getitem__, order))
        self._offsets = array.array("Q", map(plan.offsets.__getitem__, order))

    def blocks(self) -> list[int]:
        """Numbers of the blocks with wanted chunks, ascending."""
        blocks = self.pack.directory.blocks
        return [number for number in range(len(blocks)) if self._range(number)]

    def parts(self, number: int) -> list[_Part]:
        """Wanted chunks of one block."""
        block, lengths = self.pack.directory.blocks[number], self.pack.directory.lengths
        first = block.first_chunk
        starts = [0, *itertools.accumulate(lengths[first : first + block.chunks])]
        return [
            _Part(self._files[at], self._offsets[at], starts[chunk - first], lengths[chunk])
            for at in self._range(number)
            for chunk in (self._chunks[at],)
        ]

    def left(
        self, blocks: Sequence[int]
    ) -> Iterator[tuple[list[bytes], Sequence[int], Sequence[int]]]:
        """Ids, files and offsets of the wanted chunks in these blocks, block by block."""
        for number in blocks:
            at = self._range(number)
            chunks = self._chunks[at.start : at.stop]
            ids = [self.pack.directory.chunk_id(place) for place in chunks]
            yield ids, self._files[at.start : at.stop], self._offsets[at.start : at.stop]

    def _range(self, number: int) -> range:
        """Where a block's chunks are in the arrays."""
        block = self.pack.directory.blocks[number]
        first = bisect.bisect_left(self._chunks, block.first_chunk)
        return range(first, bisect.bisect_left(self._chunks, block.first_chunk + block.chunks))


class FetchPlan:
    """Chunks wanted, by pack, and the files that want them.

    Args:
        reader: Finds the pack of each chunk.
    """

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._packs: dict[int, _PackPlan] = {}
        self._added: list[tuple[int, Entry, Sequence[bytes]]] = []
        self._added_ids: list[bytes] = []
        self.places = array.array("Q")  # of the files' entries in the spool
        self.pending = array.array("I")  # chunks not yet written, by file
        self.begun: set[int] = set()  # files that are made and get more

    def add(self, place: int, entry: Entry) -> None:
        """Queue one file that has content. It is planned by the time `end` returns.

        Raises:
            MissingObjectError: A chunk is in none of the packs.
            FormatError: A chunk lies in a pack that holds no file content.
            DigestMismatchError: The chunks together differ from the file in length.
            StaleIndexError: In place of these, as long as the index may be at fault: it was
                believed for some pack.
        """
        (ids,) = self._reader.chunks_of(entry)
        self._added.append((place, entry, ids))
        self._added_ids += ids
        if len(self._added_ids) >= LOOKED_UP:
            self.end()

    def check(self, entry: Entry) -> None:
        """Check that all chunks of a giant file can be found, as `add` does; plans nothing.

        Raises:
            IntegrityError: As `add`, or a list of it is missing or broken.
        """
        packs = set()
        for chunk in self._spread(entry, self._reader.located(entry)):
            if chunk.pack not in packs:
                packs.add(chunk.pack)
                self._check_kind(chunk.pack)

    def parts(self, place: int, entry: Entry) -> "Iterator[FetchPlan]":
        """A giant file that was checked, as plans to be carried out one after the other.

        No chunk of a plan finishes the file.
        """
        chunks = self._spread(entry, self._reader.located(entry))
        while some := list(itertools.islice(chunks, PART)):
            plan = FetchPlan(self._reader)
            plan.places.append(place)
            plan.pending.append(len(some) + 1)
            plan.begun.add(0)
            for chunk in some:
                plan._put(0, chunk)
            yield plan

    def end(self) -> None:
        """Plan what was added and not planned yet; raises as `add`."""
        locations = iter(self._reader.find_all(self._added_ids))
        for place, entry, ids in self._added:
            self._plan(place, entry, [Located(name, *next(locations)) for name in ids])
        self._added.clear()
        self._added_ids.clear()

    def _plan(self, place: int, entry: Entry, chunks: Sequence[Located]) -> None:
        """One file by its chunks."""
        file = len(self.places)
        self.places.append(place)
        self.pending.append(len(chunks))
        for chunk in self._spread(entry, chunks):
            self._put(file, chunk)

    def _spread(self, entry: Entry, chunks: Iterable[Located]) -> Iterator[_Placed]:
        """Give each chunk its offset in the file; they must fill all of it but the holes."""
        segments = runs_between(self._reader.holes_of(entry), entry.size)
        room, offset = 0, 0
        for name, number, length in chunks:
            while not room:
                offset, room = next(segments, (0, 0))
                if not room:
                    raise self._reader.doubt(_wrong_length(entry))
            yield _Placed(name, number, offset)
            offset, room = offset + length, room - length
            if room < 0:
                raise self._reader.doubt(_wrong_length(entry))
        if room or next(segments, None) is not None:
            raise self._reader.doubt(_wrong_length(entry))

    def _put(self, file: int, chunk: _Placed) -> None:
        plan = self._packs.get(chunk.pack)
        if plan is None:
            self._check_kind(chunk.pack)
            plan = self._packs[chunk.pack] = _PackPlan()
        plan.ids += chunk.id
        plan.files.append(file)
        plan.offsets.append(chunk.offset)

    def _check_kind(self, number: int) -> None:
        pack = self._reader.pack(number)
        if pack.kind is not ObjectType.DATA:
            raise self._reader.doubt(
                FormatError(f"{pack.ref.name} holds no file content", found=pack.kind.name)
            )

    def again(self, work: _Work, failed: "_Failed") -> None:
        """Plan the chunks that a pack failed to deliver from other packs that hold them.

        Raises:
            IntegrityError: A chunk lies in no other pack; this is the failed pack's error.
        """
        for ids, files, offsets in work.left(failed.blocks):
            locations = self._reader.find_again(ids)
            if locations is None:
                raise failed.error
            for name, at, file, offset in zip(ids, locations, files, offsets, strict=True):
                self._put(file, _Placed(name, at.pack, offset))

    def __bool__(self) -> bool:
        """Whether there is anything left to fetch."""
        return bool(self._packs)

    def packs(self) -> Iterator[_Work]:
        """Each pack with its work, which is dropped from the plan to free its memory."""
        for number in sorted(self._packs):
            yield _Work(self._reader.pack(number), self._packs.pop(number))


class _Failed(NamedTuple):
    """A pack that could not be read, and its blocks that are still wanted."""

    error: VaultError
    blocks: Sequence[int]


class _Written(NamedTuple):
    """Counts of files and bytes that one helping process finished."""

    files: int
    size: int


_Helper: TypeAlias = Helper[list[_Part], _Written]


class Fetcher:
    """Carries out a plan. Packs are fetched and opened in threads.

    One thread writes files. Helping processes also write files of one chunk, a block at a time.

    Args:
        plan: What to fetch.
        spool: The verified tree.
        stager: Where files go.
        renamed: From a file's path in the snapshot to its path in staging, where these differ.
        workers: Executors.
        processes: Number of processes that may be forked to write files of one chunk.
        progress: Called with files and bytes written.
    """

    def __init__(
        self,
        plan: FetchPlan,
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
        self._helpers: list[_Helper] = []

    def run(self) -> None:
        """Write all content; every file is finished with its attributes on return.

        Raises:
            StaleIndexError: The index was wrong; start again without it.
            IntegrityError: The store has no right copy of a chunk.
            LocalError: The disk failed.
        """
        with contextlib.ExitStack() as stack:
            # workers have no work yet, as `declare_quiet` asks
            self._helpers = start(stack, self._processes, self._helper)
            while self._plan:
                self._fetch_all()
            for helper in self._helpers:
                while helper.busy:
                    self._count(helper.take())
                self._stager.add_left_out(helper.finish())

    def _fetch_all(self) -> None:
        """Fetch all that is planned; chunks of a pack that failed are planned from other packs."""
        blocks = streamed(
            self._workers.compute,
            _open_blocks,
            self._plan.packs(),
            limit=self._workers.in_flight,
            ahead=BLOCKS_AHEAD,
        )
        failed: list[tuple[_Work, _Failed]] = []
        with contextlib.closing(blocks):
            for work, opened in blocks:
                if isinstance(opened, _Failed):
                    failed.append((work, opened))
                else:
                    block, raw = opened
                    self._write_block(work.parts(block), memoryview(raw))
        for work, why in failed:
            self._plan.again(work, why)

    def _helper(self) -> _Helper:
        before = Counter(self._stager.left_out)
        return Helper(self._write_all, lambda: Counter(self._stager.left_out) - before, room=_ROOM)

    def _write_block(self, parts: list[_Part], raw: memoryview) -> None:
        for helper in self._helpers:
            while helper.ready:
                self._count(helper.take())
        if self._helpers:
            parts = self._hand_over(parts, raw)
        self._count(self._write_all(parts, raw))

    def _hand_over(self, parts: list[_Part], raw: memoryview) -> list[_Part]:
        """Hand files of one chunk to an idle process, if any; returns the parts left to write."""
        whole = [part for part in parts if self._is_whole(part.file)]
        if whole and any(helper.offer(whole, raw) for helper in self._helpers):
            return [part for part in parts if not self._is_whole(part.file)]
        return parts

    def _is_whole(self, file: int) -> bool:
        return self._plan.pending[file] == 1 and file not in self._plan.begun

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
        """Open a file for writing; its first chunk creates it."""
        if file in self._plan.begun:
            return self._stager.reopen_file(path)
        if self._plan.pending[file] > 1:
            self._plan.begun.add(file)
        return self._stager.create_file(path)


def _open_blocks(work: _Work) -> Iterator[tuple[int, bytes] | _Failed]:
    left = work.blocks()
    try:
        for number, raw in work.pack.blocks(work.blocks()):
            yield number, raw
            left.remove(number)
    except StaleIndexError:
        raise
    except (IntegrityError, WrongKeyError) as error:
        yield _Failed(error, left)


def _wrong_length(entry: Entry) -> DigestMismatchError:
    return DigestMismatchError(
        f"chunks of {shown_path(entry.path)} are not as long as the file",
        expected=f"{entry.size} bytes",
    )
