"""One walk over a source: finds what is unchanged, reads the rest, and stores it.

See docs/design.md "Snapshot".

The walk is merge-joined with the entry list of the run before. Entries wait in batches until
they are read, so that they are stored in the order of the walk.
"""

import contextlib
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path

from vault.errors import ConfigError
from vault.format.content_root import ContentRoot
from vault.format.entry import Entry, replace_entry
from vault.format.entry_encoding import decode_entry, frame, type_in
from vault.format.tree_order import TreeOrder
from vault.ledger.statements import COUNTED
from vault.machine import metadata, mounts
from vault.machine.workers import Workers
from vault.model import EntryType
from vault.progress import Progress
from vault.snapshot import walk as walking
from vault.snapshot.batches import ReadBatch, Slot, contents_in, in_order_of_slots, reading_of
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
from vault.snapshot.item_attributes import read_attributes
from vault.snapshot.last_run import EntryListWriter, Joiner
from vault.snapshot.links import First, Links, contents_of, state_of
from vault.snapshot.list_records import ListRecord
from vault.snapshot.packer import numbers_in, pack_numbers
from vault.snapshot.pieces import Pieces
from vault.snapshot.reading_processes import (
    BATCH_SIZE,
    BatchContents,
    WholeFiles,
    sharing,
)
from vault.snapshot.records import Recorded, other_record, stream_record
from vault.snapshot.run_journal import ListJournal
from vault.snapshot.stream import StreamFile
from vault.snapshot.unchanged import LONG_AGO, Grounds, is_unchanged
from vault.snapshot.walk import SourceItem
from vault.snapshot.walk_report import WalkReport

BATCH_FILES = 128  # bounds the descriptors that are open at once
JOURNAL_SIZE = 64 * 1_048_576  # bytes of files after which the journal is written
BATCHES_AHEAD = 4  # batches read or being read while one is stored
AHEAD_SIZE = 16 * 1_048_576  # bytes of files in them; bounds memory
_FILE, _DIRECTORY, _READ = EntryType.FILE, EntryType.DIRECTORY, ReadOutcome.READ  # looked up once
_HARD_LINK = EntryType.HARD_LINK


class SourceRun:
    """Walks, reads and stores one source; used once.

    Args:
        reader: Reads files.
        chunks: Finds or stores data chunks.
        tree: Receives the entries.
        joiner: The entry list of the run before, with the journal of a killed one.
        grounds: What that list and journal prove.
        entries: Receives the new entry list.
        journal: Receives what was read, for the run after a kill.
        usable: Returns whether a pack may be relied on.
        workers: Executors.
        progress: Receives every item.
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
        self._device = -1  # device of the item before
        self._bound = LONG_AGO  # the bound if that item was there last time too
        self._entries = entries
        self._journal = journal
        self._usable = usable
        self._workers = workers
        self._progress = progress
        self._files = WholeFiles(reader, ())
        self._order = TreeOrder()
        self._batch = ReadBatch()
        self._waiting: deque[ReadBatch] = deque()
        self._links = Links(mounts.invents_inodes)
        self._records: list[ListRecord] = []  # of the batch that is being stored
        self._read_records: list[ListRecord] = []  # those of them that were read by this run
        self._done_size = 0  # bytes of their content, for the progress
        self._unflushed = 0  # bytes of the files whose records wait in the journal
        self._relied: set[bytes] = set()  # `ListRecord.packs` known to be usable
        self.report = WalkReport()
        self._tally = self.report.tally
        self.packs: set[int] = set()
        self.root = ContentRoot()

    def walk(self, paths: Sequence[Path], rules: walking.Rules) -> Iterator[bytes]:
        """Walk the source; yields the path of every member as it is met."""
        with sharing(self._reader, self._workers.processes) as self._files:
            for item in walking.walk(
                paths, rules, skipped=self.report.leave_out, in_use=self.report.meet_in_use
            ):
                self._visit(item)
                yield item.path
            self._submit()
            while self._waiting:
                self._store(self._waiting.popleft())
        if not self._order.has_top:  # it was there when the run began
            raise ConfigError(
                f"PATH {os.fsdecode(paths[0])} can't be read",
                found=self.report.problems[0].detail if self.report.problems else None,
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
            for ids, pieces in _pieces_of(file, self._workers):
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
            self.report.miss(item)
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
            self.report.unreadable(path, f"it {flaw}, which can't be stored")
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
    ) -> Slot:
        is_file = kind is _FILE
        state = state_of(stat) if is_file and stat.st_nlink > 1 else b""
        is_link = bool(state) and self._links.meet(state)
        record = self._joiner.match(path)
        if record is not None:
            device = self._device
            is_here = record.dev == device
            bound = self._bound if is_here else self._bounds[record.dev, device]
            packs = record.packs  # only a file that is not a link has packs
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
                # `Slot(…)` is a function in Python that does this
                return tuple.__new__(Slot, (item, record, state, is_link, False, False))
        if is_link or not is_file:
            return Slot(item, None, state, is_link)
        return Slot(item, None, state, to_read=True, in_pieces=self._reader.is_in_pieces(stat))

    def _rely_on(self, packs: bytes) -> bool:
        """Whether an unchanged file's packs may be relied on; if so, the snapshot needs them."""
        numbers = numbers_in(packs)
        if not all(map(self._usable, numbers)):
            return False
        self.packs.update(numbers)
        if len(numbers) <= 1:  # many small files share a pack; large ones have their own
            self._relied.add(packs)
        return True

    # --- batches ---

    def _submit(self) -> None:
        """Start reading the open batch, and store what is due."""
        batch, self._batch = self._batch, ReadBatch()
        if batch.middling:
            batch.future = self._workers.compute.submit(self._files.read, batch.middling)
        self._store_done()
        if batch.small:
            batch.reading = self._files.begin(batch.small)
        self._waiting.append(batch)
        self._store_done()

    def _store_done(self) -> None:
        """Store batches that are read; wait for more until not too much is read ahead."""
        while self._waiting and (self._waiting[0].is_done or self._is_too_much_ahead()):
            self._store(self._waiting.popleft())

    def _is_too_much_ahead(self) -> bool:
        waiting = self._waiting
        return len(waiting) > BATCHES_AHEAD or sum(batch.size for batch in waiting) > AHEAD_SIZE

    def _store(self, batch: ReadBatch) -> None:
        """Emit the entries of a batch, in order."""
        with contents_in(batch.reading) as small, contents_in(reading_of(batch)) as middling:
            contents = in_order_of_slots(batch, small, middling)
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
                    if self.report.is_stored(item, content):
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
        """Store a further name of a file as a link, or as a file of its own if that is not sure.

        The first name may have been gone, unreadable or changed when it was read.
        """
        first = self._links.first(state)
        if first is not None and record is not None and _link_in(record) == first.path:
            self._emit_unchanged(item, record, is_link=True)
        elif first is None or not (first.is_sure and self._emit_link(item, first.path, state)):
            self._store_large(item, first)

    def _store_large(self, item: SourceItem, first: First | None = None) -> None:
        """Store a file in pieces: one is read ahead while another is stored.

        Args:
            item: The file.
            first: A file of which it is a link, if the contents are equal.
        """
        is_vast = False
        for attempt in (1, 2):
            try:
                content, packs, is_vast = self._read_large(item, is_vast=is_vast)
            except OSError as error:
                self.report.is_stored(item, failed(error))
                return
            if content.record is None:
                self.report.is_stored(item, content)
                return
            if content.outcome is ReadOutcome.READ or attempt == 2:
                is_link = first is not None and self._is_link_to(first, item, content)
                if not is_link and self.report.is_stored(item, content):
                    self.packs.update(packs)
                    self._emit_file(item, content, sorted(packs))
                return

    def _is_link_to(self, first: First, item: SourceItem, content: ReadContent) -> bool:
        """Store a file as a link if its content, just read, is that of ``first``; else False."""
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
        """The content, the packs that it needs, and whether it has very many holes."""
        extents = Extents(self._tree.beside)
        with contextlib.closing(
            self._reader.open_in_pieces(ToRead.of(item), is_vast=is_vast)
        ) as file:
            for ids, pieces in _pieces_of(file, self._workers):
                self._store_piece(extents, ids, pieces)
                extents.add_holes(file.take_holes())
            return file.finish(extents), extents.packs, file.is_vast

    def _store_piece(
        self, extents: Extents, ids: Sequence[bytes], pieces: Sequence[memoryview]
    ) -> None:
        size = sum(map(len, pieces))
        extents.add(ids, self._chunks.store(ids, pieces), size)
        self._progress.advance(size=size)

    # --- entries ---

    def _emit_file(self, item: SourceItem, content: ReadContent, packs: Sequence[int]) -> None:
        record = content.record
        assert record is not None
        if content.lost or content.altered:
            self.report.note(item, content.lost, content.altered)
        record.packs = pack_numbers(packs)
        self._records.append(record)
        self._read_records.append(record)
        if content.state and content.outcome is _READ:
            self._links.stored(content.state, record)
        self._tally["files"] += 1
        self._tally["size"] += content.size
        self._unflushed += content.size
        if content.pieces:  # otherwise progress was reported piece by piece
            self._done_size += content.size

    def _emit_link(self, item: SourceItem, first: bytes, state: bytes) -> bool:
        """Emit a further name of a file; False if the file is no longer in that state."""
        problems: list[str] = []
        try:
            _, xattrs = read_attributes(item, problems, state)
        except OSError:
            return False
        made = self._record_of(item, _HARD_LINK, first, xattrs, is_read=not problems)
        if made.lost:  # a link has all attributes of the file, even if its paths leave no room
            return False
        self._emit_other(item, _HARD_LINK, made, problems)
        return True

    def _store_other(self, item: SourceItem) -> None:
        """Store a directory, a symlink, or something else without content."""
        problems: list[str] = []
        is_read = True
        try:
            item, xattrs = read_attributes(item, problems)
        except OSError as error:
            self.report.is_stored(item, failed(error))
            if item.type is not EntryType.DIRECTORY:
                return
            xattrs, is_read = None, False  # its members may already be read: they need it
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
        """The record of an item without content; the next run looks again unless all was read."""
        read_ns = self._reader.clock_ns() if is_read else 0
        return other_record(item, kind, link=link, xattrs=xattrs, read_ns=read_ns)

    def _emit_other(
        self, item: SourceItem, kind: EntryType, made: Recorded, problems: Sequence[str]
    ) -> None:
        self.report.note(item, [*problems, *made.lost], made.altered)
        if made.record is not None:
            self._records.append(made.record)
            self._tally[COUNTED[kind]] += 1

    def _emit_unchanged(
        self, item: SourceItem, record: ListRecord, *, state: bytes = b"", is_link: bool = False
    ) -> None:
        """Emit an entry that is as it was last time.

        Args:
            item: The item as it was met.
            record: Its record of last time.
            state: The state of a file with several names, of which this is the first.
            is_link: It is a further name.
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
        """Give the records of a batch to tree, content root, entry list and journal together."""
        records = self._records
        self._tree.add(b"".join([frame(record.canonical, record.extra) for record in records]))
        self.root.update(b"".join([record.canonical for record in records]))
        self._entries.extend(records)
        self._journal.extend(self._read_records)
        if self._unflushed >= JOURNAL_SIZE:  # after a kill so many bytes must be read again
            self._journal.flush()
            self._unflushed = 0
        self._progress.advance(files=len(records), size=self._done_size)
        self._records, self._read_records, self._done_size = [], [], 0


def _link_in(record: ListRecord) -> bytes | None:
    return decode_entry(record.canonical, record.extra).link


def _pieces_of(file: Pieces, workers: Workers) -> Iterator[tuple[list[bytes], list[memoryview]]]:
    submit = workers.compute.submit
    future = submit(file.read_piece)
    while True:
        piece = future.result()
        if file.done:
            yield piece
            return
        future = submit(file.read_piece)
        yield piece
