"""One walk over a source: what is unchanged, what is read, what becomes of it (design.md 6).

The walk is merge-joined with the entry list of the run before. Entries leave in
the order of the walk, however long reading takes: they wait in batches.
"""

import contextlib
import dataclasses
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path

from vault import fsmeta, source
from vault.entrylist import EntryListWriter, Joiner, Journal, ListRecord
from vault.model import Counts, EntryType, replace_body
from vault.progress import Progress
from vault.snapshot.chunks import ChunkStore, TreeBuilder
from vault.snapshot.packer import numbers_in, pack_numbers
from vault.snapshot.reading import (
    FileContent,
    FileReader,
    LargeFile,
    Outcome,
    failed,
    is_in_pieces,
)
from vault.snapshot.stream import StreamFile
from vault.source import SourceItem
from vault.tree import (
    ContentRoot,
    Entry,
    decode_entry,
    encode_canonical,
    encode_extra,
    frame,
    replace_entry,
)
from vault.workers import Workers

BATCH_SIZE = 4 * 1_048_576  # bytes of files in one batch
BATCH_FILES = 512
JOURNAL_SIZE = 64 * 1_048_576  # bytes of files after which the journal is written
BATCHES_AHEAD = 3  # batches being read while one is stored; bounds memory
RACY_NS = 60 * 10**9  # design.md 6: mtime alone proves nothing for the last 60 s
MAX_PROBLEMS = 10_000  # listed; the counts go on
_FIRST_TIME, _LAST_TIME = -(2**63), 2**63 - 1  # ns, docs/format.md 8: the years 1677 and 2262


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """A file that is not in the snapshot as it should be."""

    path: bytes
    kind: str  # "unreadable", "changed", "vanished" or "attributes"
    detail: str


@dataclasses.dataclass(slots=True)
class _Slot:
    """One item on its way from the walk to the tree."""

    item: SourceItem
    record: ListRecord | None = None  # unchanged: everything is known
    link: bytes | None = None  # a hard link to this path
    to_read: bool = False
    in_pieces: bool = False


@dataclasses.dataclass(slots=True)
class _Batch:
    """Consecutive slots; those to be read are read together."""

    slots: list[_Slot] = dataclasses.field(default_factory=list)
    size: int = 0
    reads: int = 0
    future: Future[list[FileContent]] | None = None


class SourceRun:
    """Walks, reads and stores one source; used once.

    Args:
        reader: Reads files.
        chunks: Finds or stores data chunks.
        tree: Takes the entries.
        joiner: The entry list of the run before, with the journal of a killed one.
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
        entries: EntryListWriter,
        journal: Journal,
        usable: Callable[[int], bool],
        workers: Workers,
        progress: Progress,
    ) -> None:
        self._reader = reader
        self._chunks = chunks
        self._tree = tree
        self._joiner = joiner
        self._entries = entries
        self._journal = journal
        self._usable = usable
        self._workers = workers
        self._progress = progress
        self._batch = _Batch()
        self._waiting: deque[_Batch] = deque()
        self._first_of: dict[tuple[int, int], bytes] = {}  # inode with several links -> path
        self._linkable: set[bytes] = set()  # of those paths, the ones that are in the tree
        self._tmpfs = source.tmpfs_devices()
        self._unflushed = 0  # bytes of the files whose records wait in the journal
        self._tally: dict[str, int] = dict.fromkeys(Counts.__struct_fields__, 0)
        self.packs: set[int] = set()
        self.root = ContentRoot()
        self.problems: list[Problem] = []
        self.complete = True

    @property
    def counts(self) -> Counts:
        """What was seen so far."""
        return replace_body(Counts(), **self._tally)

    def walk(self, paths: Sequence[Path], rules: source.Rules) -> Iterator[bytes]:
        """Go through the source; yields the path of every member as it is met."""
        for item in source.walk(paths, rules):
            self._visit(item)
            yield item.path
        self._submit()
        while self._waiting:
            self._store(self._waiting.popleft())

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
        self._add(_stream_record(top))
        ids: list[bytes] = []
        packs: list[int] = []
        for piece_ids, pieces in self._pieces_of(file):
            ids += piece_ids
            packs += map(self._chunks.store, piece_ids, pieces)
            self._progress.advance(size=sum(map(len, pieces)))
        entry = replace_entry(
            top,
            path=name,
            type=EntryType.FILE,
            mode=0o600,
            size=file.size,
            sha256=file.sha256,
            chunks=b"".join(ids) if len(ids) > 1 else b"",
        )
        self._add(_stream_record(entry))
        self.packs.update(packs)
        self._tally.update(files=1, directories=1, size=file.size)
        self._progress.advance(files=1)
        return file.size

    # --- what is to be done with an item ---

    def _visit(self, item: SourceItem) -> None:
        if item.error is not None or item.vanished:
            self._problem_of(item)
        if item.stat is None or item.vanished:
            return
        if item.type is None:
            self._tally["sockets"] += 1
            return
        slot = self._slot_for(item)
        batch = self._batch
        batch.slots.append(slot)
        if slot.to_read:
            batch.size += item.stat.st_size
            batch.reads += 1
        if slot.in_pieces or batch.size >= BATCH_SIZE or len(batch.slots) >= BATCH_FILES:
            self._submit()

    def _slot_for(self, item: SourceItem) -> _Slot:
        assert item.stat is not None
        record = self._joiner.match(item.path)
        link = self._link_of(item)
        if record is not None and self._is_unchanged(item, record, link):
            return _Slot(item, record=record)
        if link is not None:
            return _Slot(item, link=link)
        if item.type is not EntryType.FILE:
            return _Slot(item)
        return _Slot(item, to_read=True, in_pieces=is_in_pieces(item.stat))

    def _link_of(self, item: SourceItem) -> bytes | None:
        """The path whose inode this is another name of, if it was met already."""
        assert item.stat is not None
        if item.stat.st_nlink == 1 or item.type is not EntryType.FILE:
            return None
        inode = (item.stat.st_dev, item.stat.st_ino)
        first = self._first_of.setdefault(inode, item.path)
        return first if first != item.path else None

    def _is_unchanged(self, item: SourceItem, record: ListRecord, link: bytes | None) -> bool:
        assert item.stat is not None
        if not is_unchanged(item.stat, record, self._tmpfs):
            return False
        if item.type is EntryType.FILE and item.stat.st_nlink > 1 and _link_in(record) != link:
            return False
        return all(map(self._usable, numbers_in(record.packs)))

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
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(Problem(path=path, kind=kind, detail=detail))

    # --- batches ---

    def _submit(self) -> None:
        """Start reading the open batch, and store what is due."""
        batch, self._batch = self._batch, _Batch()
        if batch.reads:
            small = [slot.item for slot in batch.slots if slot.to_read and not slot.in_pieces]
            batch.future = self._workers.compute.submit(self._reader.read_batch, small)
        self._waiting.append(batch)
        while self._waiting and self._is_due():
            self._store(self._waiting.popleft())

    def _is_due(self) -> bool:
        """Batches with nothing to read don't count as read ahead."""
        if self._waiting[0].future is None:
            return True
        return sum(batch.future is not None for batch in self._waiting) > BATCHES_AHEAD

    def _store(self, batch: _Batch) -> None:
        """Emit the entries of a batch, in order."""
        contents = iter(batch.future.result() if batch.future else ())
        for slot in batch.slots:
            if slot.record is not None:
                self._emit_unchanged(slot.item, slot.record)
            elif slot.in_pieces:
                self._store_large(slot.item)
            elif slot.to_read:
                self._store_file(slot.item, next(contents))
            elif slot.link is not None and slot.link not in self._linkable:
                self._store_large(slot.item)  # its first name could not be read: now it is a file
            else:
                self._store_other(slot.item, slot.link)

    def _store_file(self, item: SourceItem, content: FileContent) -> None:
        """A small file that was read."""
        if not self._is_stored(item, content):
            return
        packs = [
            self._chunks.store(name, piece)
            for name, piece in zip(content.ids, content.pieces, strict=True)
        ]
        self._emit_file(item, content, content.ids, packs)

    def _store_large(self, item: SourceItem) -> None:
        """A large file: one piece is read ahead while another is stored."""
        for attempt in (1, 2):
            try:
                content, ids, packs = self._read_large(item)
            except OSError as error:
                self._is_stored(item, failed(error))
                return
            if content.outcome is Outcome.READ or attempt == 2:
                self._is_stored(item, content)
                self._emit_file(item, content, ids, packs)
                return

    def _read_large(self, item: SourceItem) -> tuple[FileContent, list[bytes], list[int]]:
        ids: list[bytes] = []
        packs: list[int] = []
        with contextlib.closing(self._reader.open_in_pieces(item)) as file:
            for piece_ids, pieces in self._pieces_of(file):
                ids += piece_ids
                packs += map(self._chunks.store, piece_ids, pieces)
                self._progress.advance(size=sum(map(len, pieces)))
            return file.finish(), ids, packs

    def _pieces_of(
        self, file: LargeFile | StreamFile
    ) -> Iterator[tuple[list[bytes], list[memoryview]]]:
        submit = self._workers.compute.submit
        future = submit(file.read_piece)
        while True:
            piece = future.result()
            if file.done:
                yield piece
                return
            future = submit(file.read_piece)
            yield piece

    def _is_stored(self, item: SourceItem, content: FileContent) -> bool:
        """Count how reading ended; False where nothing is to be stored."""
        if content.outcome is Outcome.VANISHED:
            self._tally["vanished"] += 1
            self._problem(item.path, "vanished", content.problem)
            return False
        if content.outcome is Outcome.UNREADABLE:
            self._unreadable(item.path, content.problem)
            return False
        if content.outcome is Outcome.CHANGED:
            self._tally["changed"] += 1
            self._problem(item.path, "changed", "while it was read, twice")
        return True

    # --- entries ---

    def _emit_file(
        self,
        item: SourceItem,
        content: FileContent,
        ids: Sequence[bytes],
        packs: Sequence[int],
    ) -> None:
        stat = content.stat
        assert stat is not None
        self._note_attributes(item, content.problems)
        entry = _entry(
            item,
            stat,
            xattrs=content.xattrs,
            size=content.size,
            sha256=content.sha256,
            chunks=b"".join(ids) if len(ids) > 1 or content.holes else b"",
            holes=content.holes,
        )
        # of a file that changed, the times say nothing about the bytes that were read
        read_ns = content.read_ns if content.outcome is Outcome.READ else 0
        record = self._emit(entry, stat, read_ns, pack_numbers(packs))
        self.packs.update(packs)
        self._note_in_journal(record)
        if stat.st_nlink > 1:
            self._linkable.add(item.path)
        self._tally["size"] += content.size
        self._progress.advance(files=1, size=content.size if content.pieces else 0)

    def _note_in_journal(self, record: ListRecord) -> None:
        """What a kill may cost is bounded in bytes to read again, not in entries alone."""
        self._journal.append(record)
        self._unflushed += record.size
        if self._unflushed >= JOURNAL_SIZE:
            self._journal.flush()
            self._unflushed = 0

    def _store_other(self, item: SourceItem, link: bytes | None) -> None:
        """A directory, a link, or something else without content."""
        stat = item.stat
        assert stat is not None
        problems: list[str] = []
        try:
            xattrs = _xattrs_of(item, problems)
        except OSError as error:
            self._is_stored(item, failed(error))
            if item.type is not EntryType.DIRECTORY:
                return
            xattrs = None  # its members may be on their way: they need it
        self._note_attributes(item, problems)
        kind = EntryType.HARD_LINK if link is not None else item.type
        entry = _entry(item, stat, xattrs=xattrs, kind=kind, link=link or item.link)
        self._emit(entry, stat, self._reader.clock_ns(), b"")
        self._progress.advance(files=1)

    def _emit(self, entry: Entry, stat: os.stat_result, read_ns: int, packs: bytes) -> ListRecord:
        record = ListRecord(
            path=entry.path,
            size=stat.st_size,
            mtime=entry.mtime,
            ctime=stat.st_ctime_ns,
            inode=stat.st_ino,
            dev=stat.st_dev,
            read_ns=read_ns,
            packs=packs,
            canonical=encode_canonical(entry),
            extra=encode_extra(entry),
        )
        if entry.mtime != stat.st_mtime_ns:
            self._problem(entry.path, "attributes", "its mtime lies beyond what can be stored")
        self._tally[_COUNTED[entry.type]] += 1
        self._add(record)
        return record

    def _emit_unchanged(self, item: SourceItem, record: ListRecord) -> None:
        stat = item.stat
        assert stat is not None
        assert item.type is not None
        self._tally[_COUNTED[item.type]] += 1
        if item.type is EntryType.FILE:
            self.packs.update(numbers_in(record.packs))
            if stat.st_nlink > 1:
                self._count_linked(item, record)
            else:
                self._tally["size"] += record.size
        self._add(record)
        self._progress.advance(files=1, size=record.size if record.packs else 0)

    def _count_linked(self, item: SourceItem, record: ListRecord) -> None:
        """Only the first name of an inode has content."""
        if self._first_of[(item.stat.st_dev, item.stat.st_ino)] == item.path:  # type: ignore[union-attr]  # checked by the caller
            self._linkable.add(item.path)
            self._tally["size"] += record.size

    def _add(self, record: ListRecord) -> None:
        self._tree.add(frame(record.canonical, record.extra))
        self.root.update(record.canonical)
        self._entries.add(record)

    def _note_attributes(self, item: SourceItem, problems: Sequence[str]) -> None:
        """Attributes that can't be read make a snapshot incomplete, not void."""
        for problem in problems:
            self._unreadable(item.path, problem)


def _stream_record(entry: Entry) -> ListRecord:
    """A record that is never taken for unchanged: nobody can say what a stream was."""
    return ListRecord(
        path=entry.path,
        size=entry.size,
        mtime=entry.mtime,
        ctime=0,
        inode=0,
        dev=0,
        read_ns=0,
        packs=b"",
        canonical=encode_canonical(entry),
        extra=encode_extra(entry),
    )


def is_unchanged(stat: os.stat_result, record: ListRecord, tmpfs: frozenset[int]) -> bool:
    """Whether what was read last time is still what is there (design.md 6).

    Args:
        stat: As it is now.
        record: As it was.
        tmpfs: `st_dev` of file systems whose times prove nothing.
    """
    return (
        record.mtime == stat.st_mtime_ns
        and record.ctime == stat.st_ctime_ns
        and record.inode == stat.st_ino
        and record.size == stat.st_size
        and max(record.mtime, record.ctime) + RACY_NS < record.read_ns
        and stat.st_dev not in tmpfs
    )


def _link_in(record: ListRecord) -> bytes | None:
    return decode_entry(record.canonical, record.extra).link


_COUNTED = {
    EntryType.DIRECTORY: "directories",
    EntryType.FILE: "files",
    EntryType.HARD_LINK: "files",
    EntryType.SYMLINK: "symlinks",
    EntryType.FIFO: "others",
    EntryType.CHARACTER_DEVICE: "others",
    EntryType.BLOCK_DEVICE: "others",
}


def _entry(
    item: SourceItem,
    stat: os.stat_result,
    *,
    xattrs: fsmeta.Xattrs | None,
    kind: EntryType | None = None,
    size: int = 0,
    sha256: bytes | None = None,
    chunks: bytes = b"",
    link: bytes | None = None,
    holes: tuple[tuple[int, int], ...] | None = None,
) -> Entry:
    kind = kind or item.type
    assert kind is not None
    user, group = source.owner_names(stat.st_uid, stat.st_gid)
    is_device = kind in (EntryType.CHARACTER_DEVICE, EntryType.BLOCK_DEVICE)
    return Entry(
        path=item.path,
        type=kind,
        mode=stat.st_mode & fsmeta.MODE_BITS,
        uid=stat.st_uid,
        gid=stat.st_gid,
        mtime=max(_FIRST_TIME, min(stat.st_mtime_ns, _LAST_TIME)),
        size=size,
        sha256=sha256,
        link=link,
        device=stat.st_rdev if is_device else None,
        xattrs=xattrs,
        chunks=chunks,
        user=user,
        group=group,
        ctime=stat.st_ctime_ns,
        holes=holes,
    )


def _xattrs_of(item: SourceItem, problems: list[str]) -> fsmeta.Xattrs | None:
    fd = source.open_path(item.full, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        return fsmeta.read_xattrs(b"/proc/self/fd/%d" % fd, problems)
    finally:
        os.close(fd)
