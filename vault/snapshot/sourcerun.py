"""One walk over a source: what is unchanged, what is read, what becomes of it.

See docs/design.md "Snapshot".

The walk is merge-joined with the entry list of the run before. Entries leave in
the order of the walk, however long reading takes: they wait in batches.
"""

import contextlib
import dataclasses
import errno
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from concurrent.futures import Future
from pathlib import Path
from typing import NamedTuple

from vault.errors import ConfigError
from vault.format.content_root import ContentRoot
from vault.format.entry import Entry, replace_entry
from vault.format.entry_encoding import decode_entry, frame, type_in
from vault.format.tree_order import TreeOrder
from vault.ledger.statements import COUNTED, Counts
from vault.machine import metadata, mounts
from vault.machine.workers import Workers
from vault.model import EntryType, replace_body
from vault.progress import Progress
from vault.snapshot import safe_open
from vault.snapshot import walk as walking
from vault.snapshot.chunks_and_holes import Extents
from vault.snapshot.dedup import ChunkStore, TreeBuilder
from vault.snapshot.file_reader import (
    SMALL_FILE,
    FileReader,
    ReadContent,
    ReadOutcome,
    ToRead,
    failed,
)
from vault.snapshot.lastrun import EntryListWriter, Joiner
from vault.snapshot.links import First, Links, contents_of, state_of
from vault.snapshot.list_records import ListRecord
from vault.snapshot.packer import numbers_in, pack_numbers
from vault.snapshot.pieces import Pieces
from vault.snapshot.reading_processes import (
    BATCH_SIZE,
    BatchContents,
    PendingRead,
    WholeFiles,
    sharing,
)
from vault.snapshot.records import Recorded, other_record, stream_record
from vault.snapshot.run_journal import ListJournal
from vault.snapshot.stream import StreamFile
from vault.snapshot.unchanged import LONG_AGO, Grounds
from vault.snapshot.walk import InUse, LeftOut, Reason, SourceItem

BATCH_FILES = 128  # bounds the descriptors that are open at once
JOURNAL_SIZE = 64 * 1_048_576  # bytes of files after which the journal is written
BATCHES_AHEAD = 4  # batches read or being read while one is stored
AHEAD_SIZE = 16 * 1_048_576  # bytes of files in them; bounds memory
_FILE, _DIRECTORY, _READ = EntryType.FILE, EntryType.DIRECTORY, ReadOutcome.READ  # looked up once
_HARD_LINK = EntryType.HARD_LINK
_TOLD = frozenset({Reason.FILE_SYSTEM, Reason.OWN})  # others name each thing themselves
RACY_NS = 60 * 10**9  # docs/design.md "Snapshot": mtime alone proves nothing for the last 60 s
MAX_PROBLEMS = 10_000  # listed; the counts go on
MAX_PROBLEM_SIZE = 16 * 1_048_576  # bytes of their paths, which may be long


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """A file that is not in the snapshot as it should be."""

    path: bytes
    kind: str  # "unreadable", "changed", "vanished" or "attributes"
    detail: str


class _Slot(NamedTuple):
    """One item on its way from the walk to the tree. A tuple, because there is one for each."""

    item: SourceItem
    record: ListRecord | None = None  # unchanged: everything is known
    state: bytes = b""  # of a file with several names, `links.state_of`
    is_link: bool = False  # one in that state was met before
    to_read: bool = False
    in_pieces: bool = False


@dataclasses.dataclass(slots=True)
class _Batch:
    """Consecutive slots; those to be read are read together."""

    slots: list[_Slot] = dataclasses.field(default_factory=list)
    size: int = 0
    small: list[ToRead] = dataclasses.field(default_factory=list)
    middling: list[ToRead] = dataclasses.field(default_factory=list)  # read ahead by a thread
    reading: PendingRead | None = None  # of the small ones
    future: Future[PendingRead] | None = None  # of the middling ones

    @property
    def is_done(self) -> bool:
        """Whether nobody would have to wait for it."""
        return (self.reading is None or self.reading.ready) and (
            self.future is None or self.future.done()
        )


class SourceRun:
    """Walks, reads and stores one source; used once.

    Args:
        reader: Reads files.
        chunks: Finds or stores data chunks.
        tree: Takes the entries.
        joiner: The entry list of the run before, with the journal of a killed one.
        grounds: What those prove.
        entries: Gets the new entry list.
        journal: Gets what was read, for the run after a kill.
        usable: Whether a pack may be relied on.
        workers: Executors.
        progress: Told about every item.
    """

    def __init__(
        self,
        *,
        reader: FileReader,
        chunks: ChunkStore,
        tree: TreeBuilder,
        joiner: Joiner,
        grounds: Grounds,
        entries: EntryListWriter,
        journal: ListJournal,
        usable: Callable[[int], bool],
        workers: Workers,
        progress: Progress,
    ) -> None:
        self._reader = reader
        self._chunks = chunks
        self._tree = tree
        self._joiner = joiner
        self._grounds = grounds
        self._bounds = grounds.bounds
        self._device = -1  # of the item before
        self._bound = LONG_AGO  # of what was on it last time, too
        self._entries = entries
        self._journal = journal
        self._usable = usable
        self._workers = workers
        self._progress = progress
        self._files = WholeFiles(reader, ())
        self._order = TreeOrder()
        self._batch = _Batch()
        self._waiting: deque[_Batch] = deque()
        self._links = Links(mounts.invents_inodes)
        self._records: list[ListRecord] = []  # of the batch that is being stored
        self._read_records: list[ListRecord] = []  # those of them that were read by this run
        self._done_size = 0  # bytes of content that they stand for, in the bar
        self._unflushed = 0  # bytes of the files whose records wait in the journal
        self._relied: set[bytes] = set()  # `ListRecord.packs` known to be usable
        self._tally: dict[str, int] = dict.fromkeys(Counts.__struct_fields__, 0)
        self.packs: set[int] = set()
        self.root = ContentRoot()
        self.problems: list[Problem] = []
        self._problem_size = 0  # bytes of the paths of all
        self.complete = True
        self.left_out: list[LeftOut] = []  # what a person may not have thought of
        self._left_out_size = 0  # bytes of their paths
        self.in_use: list[InUse] = []  # databases
        self._in_use_size = 0  # bytes of their paths

    @property
    def counts(self) -> Counts:
        """What was seen so far."""
        return replace_body(Counts(), **self._tally)

    def walk(self, paths: Sequence[Path], rules: walking.Rules) -> Iterator[bytes]:
        """Go through the source; yields the path of every member as it is met."""
        with sharing(self._reader, self._workers.processes) as self._files:
            for item in walking.walk(paths, rules, skipped=self._left_out, in_use=self._met_in_use):
                self._visit(item)
                yield item.path
            self._submit()
            while self._waiting:
                self._store(self._waiting.popleft())
        if not self._order.has_top:  # it was there when the run began
            raise ConfigError(
                f"PATH {os.fsdecode(paths[0])} can't be read",
                found=self.problems[0].detail if self.problems else None,
                hint="was it unmounted or removed meanwhile? nothing was published",
            )

    def take_stream(self, name: bytes, file: StreamFile) -> int:
        """Store a stream as the one file of a tree; returns its size in bytes."""
        top = Entry(
            path=b"",
            type=EntryType.DIRECTORY,
            mode=0o700,
            uid=os.geteuid(),
            gid=os.getegid(),
            mtime=self._reader.clock_ns(),
        )
        self._records.append(stream_record(top))
        extents = Extents(self._tree.beside)
        with contextlib.closing(file):
            for ids, pieces in self._pieces_of(file):
                self._store_piece(extents, ids, pieces)
        entry = replace_entry(
            top, path=name, type=EntryType.FILE, mode=0o600, size=file.size, sha256=file.digest()
        )
        self._records.append(stream_record(extents.describe(entry)))
        self._hand_on()
        self.packs |= extents.packs
        self._tally.update(files=1, directories=1, size=file.size)
        return file.size

    # --- what is to be done with an item ---

    def _visit(self, item: SourceItem) -> None:
        path, _, stat, kind, _, error, is_vanished = item  # one step instead of one for each
        if error is not None or is_vanished:
            self._problem_of(item)
        if stat is None or is_vanished:
            return
        if stat.st_dev != self._device:
            self._grounds.meet(item)
            self._device = stat.st_dev
            self._bound = self._bounds[stat.st_dev, stat.st_dev]
        if kind is None:
            self._tally["sockets"] += 1
            return
        if flaw := self._order.flaw(path, is_directory=kind is _DIRECTORY):
            self._unreadable(path, f"it {flaw}, which can't be stored")
            return
        slot = self._slot_for(item, path, stat, kind)
        batch = self._batch
        batch.slots.append(slot)
        if slot.to_read and not slot.in_pieces:
            size = stat.st_size
            batch.size += size
            (batch.small if size <= SMALL_FILE else batch.middling).append(ToRead.of(item))
        if slot.in_pieces or batch.size >= BATCH_SIZE or len(batch.slots) >= BATCH_FILES:
            self._submit()

    def _slot_for(
        self, item: SourceItem, path: bytes, stat: os.stat_result, kind: EntryType
    ) -> _Slot:
        is_file = kind is _FILE
        state = state_of(stat) if is_file and stat.st_nlink > 1 else b""
        is_link = bool(state) and self._links.meet(state)
        record = self._joiner.match(path)
        if record is not None:
            device = self._device
            is_here = record.dev == device
            bound = self._bound if is_here else self._bounds[record.dev, device]
            packs = record.packs  # only a file that is no link has any
            if (
                is_unchanged(stat, record, bound)
                and (
                    (is_file and not is_link)
                    if packs
                    else type_in(record.canonical, path) == (_HARD_LINK if is_link else kind)
                )
                and (packs in self._relied or self._rely_on(packs))
            ):
                if not is_here:
                    record.dev = device
                # `_Slot(…)` is a function in Python that does this
                return tuple.__new__(_Slot, (item, record, state, is_link, False, False))
        if is_link or not is_file:
            return _Slot(item, None, state, is_link)
        return _Slot(item, None, state, to_read=True, in_pieces=self._reader.is_in_pieces(stat))

    def _rely_on(self, packs: bytes) -> bool:
        """Whether an unchanged file's packs may be relied on; if so the snapshot needs them."""
        numbers = numbers_in(packs)
        if not all(map(self._usable, numbers)):
            return False
        self.packs.update(numbers)
        if len(numbers) <= 1:  # what many small files share; large ones have their own
            self._relied.add(packs)
        return True

    def _left_out(self, left_out: LeftOut) -> None:
        if left_out.reason not in _TOLD:
            return
        self._left_out_size += len(left_out.path)
        if len(self.left_out) < MAX_PROBLEMS and self._left_out_size <= MAX_PROBLEM_SIZE:
            self.left_out.append(left_out)

    def _met_in_use(self, database: InUse) -> None:
        self._in_use_size += len(database.path)
        if len(self.in_use) < MAX_PROBLEMS and self._in_use_size <= MAX_PROBLEM_SIZE:
            self.in_use.append(database)

    def _problem_of(self, item: SourceItem) -> None:
        if item.vanished:
            self._tally["vanished"] += 1
            self._problem(item.path, "vanished", "gone since its directory was listed")
        else:
            self._unreadable(item.path, item.error or "")

    def _unreadable(self, path: bytes, detail: str) -> None:
        self._tally["unreadable"] += 1
        self.complete = False
        self._problem(path, "unreadable", detail)

    def _problem(self, path: bytes, kind: str, detail: str) -> None:
        self._problem_size += len(path)
        if len(self.problems) < MAX_PROBLEMS and self._problem_size <= MAX_PROBLEM_SIZE:
            self.problems.append(Problem(path=path, kind=kind, detail=detail))

    # --- batches ---

    def _submit(self) -> None:
        """Start reading the open batch, and store what is due."""
        batch, self._batch = self._batch, _Batch()
        if batch.middling:
            batch.future = self._workers.compute.submit(self._files.read, batch.middling)
        self._store_done()
        if batch.small:
            batch.reading = self._files.begin(batch.small)
        self._waiting.append(batch)
        self._store_done()

    def _store_done(self) -> None:
        """Store what is read, and whatever it takes to have no more than so much ahead."""
        while self._waiting and (self._waiting[0].is_done or self._is_too_much_ahead()):
            self._store(self._waiting.popleft())

    def _is_too_much_ahead(self) -> bool:
        waiting = self._waiting
        return len(waiting) > BATCHES_AHEAD or sum(batch.size for batch in waiting) > AHEAD_SIZE

    def _store(self, batch: _Batch) -> None:
        """Emit the entries of a batch, in order."""
        with _contents(batch.reading) as small, _contents(_result(batch)) as middling:
            contents = _in_order(batch, small, middling)
            packs = iter(self._store_chunks(contents))
            read = iter(contents)
            for item, record, state, is_link, to_read, in_pieces in batch.slots:
                if is_link:
                    self._store_link(item, record, state)
                elif record is not None:
                    self._emit_unchanged(item, record, state=state)
                elif in_pieces:
                    self._store_large(item)
                elif to_read:
                    content = next(read)
                    if content is None:  # it grew, or was replaced, since it was listed
                        self._store_large(item)
                        continue
                    numbers = [next(packs) for _ in content.ids]
                    if self._is_stored(item, content):
                        self._emit_file(item, content, numbers)
                else:
                    self._store_other(item)
        self._hand_on()

    def _store_chunks(self, contents: BatchContents) -> list[int]:
        """Store all chunks of files that were read; the numbers of their packs, in order."""
        ids = [name for each in contents if each is not None for name in each.ids]
        if not ids:
            return []
        pieces = [piece for each in contents if each is not None for piece in each.pieces]
        numbers = self._chunks.store(ids, pieces)
        self.packs.update(numbers)
        return numbers

    def _store_link(self, item: SourceItem, record: ListRecord | None, state: bytes) -> None:
        """Another name of a file that the walk met; a file of its own where that is not sure.

        The first name may have been gone, unreadable or changed when it was read.
        """
        first = self._links.first(state)
        if first is not None and record is not None and _link_in(record) == first.path:
            self._emit_unchanged(item, record, is_link=True)
        elif first is None or not (first.is_sure and self._emit_link(item, first.path, state)):
            self._store_large(item, first)

    def _store_large(self, item: SourceItem, first: First | None = None) -> None:
        """A file read in pieces: one is read ahead while another is stored.

        Args:
            item: The file.
            first: It is a link to this, if that has the same content.
        """
        is_vast = False
        for attempt in (1, 2):
            try:
                content, packs, is_vast = self._read_large(item, is_vast=is_vast)
            except OSError as error:
                self._is_stored(item, failed(error))
                return
            if content.record is None:
                self._is_stored(item, content)
                return
            if content.outcome is ReadOutcome.READ or attempt == 2:
                is_link = first is not None and self._is_link_to(first, item, content)
                if not is_link and self._is_stored(item, content):
                    self.packs.update(packs)
                    self._emit_file(item, content, sorted(packs))
                return

    def _is_link_to(self, first: First, item: SourceItem, content: ReadContent) -> bool:
        """Store as a link what was read to see whether it is one; False if it is not."""
        assert item.stat is not None
        state = state_of(item.stat)
        return (
            content.outcome is _READ
            and content.record is not None
            and content.state == state
            and contents_of(content.record) == first.contents
            and self._emit_link(item, first.path, state)
        )

    def _read_large(
        self, item: SourceItem, *, is_vast: bool
    ) -> tuple[ReadContent, AbstractSet[int], bool]:
        """What was read, the packs that it needs, and whether it has very many holes."""
        extents = Extents(self._tree.beside)
        with contextlib.closing(
            self._reader.open_in_pieces(ToRead.of(item), is_vast=is_vast)
        ) as file:
            for ids, pieces in self._pieces_of(file):
                self._store_piece(extents, ids, pieces)
                extents.add_holes(file.take_holes())
            return file.finish(extents), extents.packs, file.is_vast

    def _store_piece(
        self, extents: Extents, ids: Sequence[bytes], pieces: Sequence[memoryview]
    ) -> None:
        size = sum(map(len, pieces))
        extents.add(ids, self._chunks.store(ids, pieces), size)
        self._progress.advance(size=size)

    def _pieces_of(self, file: Pieces) -> Iterator[tuple[list[bytes], list[memoryview]]]:
        submit = self._workers.compute.submit
        future = submit(file.read_piece)
        while True:
            piece = future.result()
            if file.done:
                yield piece
                return
            future = submit(file.read_piece)
            yield piece

    def _is_stored(self, item: SourceItem, content: ReadContent) -> bool:
        """Count how reading ended; False where nothing is to be stored."""
        if content.outcome is _READ:
            return True
        if content.outcome is ReadOutcome.VANISHED:
            self._tally["vanished"] += 1
            self._problem(item.path, "vanished", content.problem)
            return False
        if content.outcome is ReadOutcome.UNREADABLE:
            self._unreadable(item.path, content.problem)
            return False
        if content.outcome is ReadOutcome.CHANGED:
            self._tally["changed"] += 1
            self._problem(item.path, "changed", "while it was read, twice")
        return True

    # --- entries ---

    def _emit_file(self, item: SourceItem, content: ReadContent, packs: Sequence[int]) -> None:
        record = content.record
        assert record is not None
        if content.lost or content.altered:
            self._note(item, content.lost, content.altered)
        record.packs = pack_numbers(packs)
        self._records.append(record)
        self._read_records.append(record)
        if content.state and content.outcome is _READ:
            self._links.stored(content.state, record)
        self._tally["files"] += 1
        self._tally["size"] += content.size
        self._unflushed += content.size
        if content.pieces:  # else the bar was told piece by piece
            self._done_size += content.size

    def _emit_link(self, item: SourceItem, first: bytes, state: bytes) -> bool:
        """Another name of a file; False if it is not in that state any more."""
        problems: list[str] = []
        try:
            _, xattrs = _describe(item, problems, state)
        except OSError:
            return False
        made = self._record_of(item, _HARD_LINK, first, xattrs, is_read=not problems)
        if made.lost:  # a link's attributes are those of the file, whatever room its paths leave
            return False
        self._emit_other(item, _HARD_LINK, made, problems)
        return True

    def _store_other(self, item: SourceItem) -> None:
        """A directory, a symlink, or something else without content."""
        problems: list[str] = []
        is_read = True
        try:
            item, xattrs = _describe(item, problems)
        except OSError as error:
            self._is_stored(item, failed(error))
            if item.type is not EntryType.DIRECTORY:
                return
            xattrs, is_read = None, False  # its members may be on their way: they need it
        assert item.type is not None
        is_read = is_read and not problems
        made = self._record_of(item, item.type, None, xattrs, is_read=is_read)
        self._emit_other(item, item.type, made, problems)

    def _record_of(
        self,
        item: SourceItem,
        kind: EntryType,
        link: bytes | None,
        xattrs: metadata.Xattrs | None,
        *,
        is_read: bool,
    ) -> Recorded:
        """The record of what has no content; the next run looks again unless all was read."""
        read_ns = self._reader.clock_ns() if is_read else 0
        return other_record(item, kind, link=link, xattrs=xattrs, read_ns=read_ns)

    def _emit_other(
        self, item: SourceItem, kind: EntryType, made: Recorded, problems: Sequence[str]
    ) -> None:
        self._note(item, [*problems, *made.lost], made.altered)
        if made.record is not None:
            self._records.append(made.record)
            self._tally[COUNTED[kind]] += 1

    def _emit_unchanged(
        self, item: SourceItem, record: ListRecord, *, state: bytes = b"", is_link: bool = False
    ) -> None:
        """What is as it was last time.

        Args:
            item: As it was met.
            record: As it was.
            state: Of a file with several names, of which this is the first.
            is_link: It is another one.
        """
        kind = item.type
        assert kind is not None
        self._tally[COUNTED[kind]] += 1
        if state:
            self._links.stored(state, record)
        if kind is _FILE and not is_link:
            self._tally["size"] += record.size  # only the first name of a file has content
        self._records.append(record)
        if record.packs:
            self._done_size += record.size

    def _hand_on(self) -> None:
        """Give a batch's records to tree, content root, entry list and journal, all at once."""
        records = self._records
        self._tree.add(b"".join([frame(record.canonical, record.extra) for record in records]))
        self.root.update(b"".join([record.canonical for record in records]))
        self._entries.extend(records)
        self._journal.extend(self._read_records)
        if self._unflushed >= JOURNAL_SIZE:  # a kill may cost so many bytes to read again
            self._journal.flush()
            self._unflushed = 0
        self._progress.advance(files=len(records), size=self._done_size)
        self._records, self._read_records, self._done_size = [], [], 0

    def _note(self, item: SourceItem, lost: Sequence[str], altered: Sequence[str]) -> None:
        """What is not stored makes a snapshot incomplete, not void."""
        for detail in lost:
            self._unreadable(item.path, detail)
        for detail in altered:
            self._problem(item.path, "attributes", detail)


def _result(batch: _Batch) -> PendingRead | None:
    return None if batch.future is None else batch.future.result()


def _contents(reading: PendingRead | None) -> "contextlib.AbstractContextManager[BatchContents]":
    return contextlib.nullcontext(()) if reading is None else reading.contents()


def _in_order(batch: _Batch, small: BatchContents, middling: BatchContents) -> BatchContents:
    """Of the files of a batch, as its slots have them."""
    if not middling:
        return small
    parts = {True: iter(small), False: iter(middling)}
    return [
        next(parts[slot.item.stat.st_size <= SMALL_FILE])  # type: ignore[union-attr]  # was met
        for slot in batch.slots
        if slot.to_read and not slot.in_pieces
    ]


def is_unchanged(stat: os.stat_result, record: ListRecord, bound: int) -> bool:
    """Whether what was read last time is still what is there.

    Args:
        stat: As it is now.
        record: As it was.
        bound: Before when it must last have changed, whenever it was read; see `unchanged`.
    """
    return (
        record.mtime == stat.st_mtime_ns
        and record.ctime == stat.st_ctime_ns
        and record.inode == stat.st_ino
        and record.size == stat.st_size
        and record.read_ns != 0  # times before 1970 are below it
        and (changed := max(record.mtime, record.ctime)) + RACY_NS < record.read_ns
        and changed < bound
    )


def _link_in(record: ListRecord) -> bytes | None:
    return decode_entry(record.canonical, record.extra).link


def _describe(
    item: SourceItem, problems: list[str], state: bytes = b""
) -> tuple[SourceItem, metadata.Xattrs | None]:
    """What has an item's path now, if it is of its type, with its attributes.

    Args:
        item: As the walk met it.
        problems: Takes what can't be read of it.
        state: It must be in this state, before and after.

    Raises:
        OSError: It vanished, is of another type, can't be read, or is not in that state.
    """
    met = item.stat
    assert met is not None
    fd, found = safe_open.open_described(item.full, met)
    try:
        if item.type is EntryType.SYMLINK:  # what it points to is never written anew in place
            item = item._replace(stat=found, link=safe_open.read_link(b"", fd))
        elif not os.path.samestat(found, met):
            item = item._replace(stat=found)
        xattrs = metadata.read_xattrs(b"/proc/self/fd/%d" % fd, problems)
        if state and not state == state_of(found) == state_of(os.fstat(fd)):
            raise OSError(errno.ESTALE, "changed since it was listed")
        return item, xattrs
    finally:
        os.close(fd)
