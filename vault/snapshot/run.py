"""One walk over a source: what is unchanged, what is read, what becomes of it (design.md 6).

The walk is merge-joined with the entry list of the run before. Entries leave in
the order of the walk, however long reading takes: they wait in batches.
"""

import contextlib
import dataclasses
import errno
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import NamedTuple

from vault import fsmeta, source
from vault.entrylist import EntryListWriter, Joiner, Journal, ListRecord
from vault.model import Counts, EntryType, replace_body
from vault.progress import Progress
from vault.snapshot.chunks import ChunkStore, TreeBuilder
from vault.snapshot.packer import numbers_in, pack_numbers
from vault.snapshot.reading import (
    SMALL_FILE,
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
    canonical_of,
    decode_entry,
    encode_canonical,
    encode_extra,
    extra_of,
    frame,
    replace_entry,
)
from vault.workers import Workers

BATCH_SIZE = 4 * 1_048_576  # bytes of files in one batch
BATCH_FILES = 128  # bounds the descriptors that are open at once
JOURNAL_SIZE = 64 * 1_048_576  # bytes of files after which the journal is written
BATCHES_AHEAD = 3  # batches being read while one is stored; bounds memory
_FILE, _READ = EntryType.FILE, Outcome.READ  # looked up once, not for every file
RACY_NS = 60 * 10**9  # design.md 6: mtime alone proves nothing for the last 60 s
MAX_PROBLEMS = 10_000  # listed; the counts go on
_FIRST_TIME, _LAST_TIME = -(2**63), 2**63 - 1  # ns, docs/format.md 8: the years 1677 and 2262


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
    link: bytes | None = None  # a hard link to this path
    to_read: bool = False
    in_pieces: bool = False


@dataclasses.dataclass(slots=True)
class _Batch:
    """Consecutive slots; those to be read are read together."""

    slots: list[_Slot] = dataclasses.field(default_factory=list)
    size: int = 0
    small: list[SourceItem] = dataclasses.field(default_factory=list)  # read when they are due
    middling: list[SourceItem] = dataclasses.field(default_factory=list)  # read ahead by a thread
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
        self._records: list[ListRecord] = []  # of the batch that is being stored
        self._read_records: list[ListRecord] = []  # those of them that were read by this run
        self._done_size = 0  # bytes of content that they stand for, in the bar
        self._unflushed = 0  # bytes of the files whose records wait in the journal
        self._relied: set[bytes] = set()  # `ListRecord.packs` known to be usable
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
        self._records.append(_stream_record(top))
        ids: list[bytes] = []
        packs: list[int] = []
        for piece_ids, pieces in self._pieces_of(file):
            ids += piece_ids
            packs += self._chunks.store(piece_ids, pieces)
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
        self._records.append(_stream_record(entry))
        self._hand_on()
        self.packs.update(packs)
        self._tally.update(files=1, directories=1, size=file.size)
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
        if slot.to_read and not slot.in_pieces:
            batch.size += item.stat.st_size
            (batch.small if item.stat.st_size <= SMALL_FILE else batch.middling).append(item)
        if slot.in_pieces or batch.size >= BATCH_SIZE or len(batch.slots) >= BATCH_FILES:
            self._submit()

    def _slot_for(self, item: SourceItem) -> _Slot:
        stat = item.stat
        assert stat is not None
        record = self._joiner.match(item.path)
        is_file = item.type is _FILE
        is_linked = is_file and stat.st_nlink > 1
        link = self._link_of(item, stat) if is_linked else None
        if (
            record is not None
            and is_unchanged(stat, record, self._tmpfs)
            and (not is_linked or _link_in(record) == link)
            and (record.packs in self._relied or self._rely_on(record.packs))
        ):
            return _Slot(item, record)
        if link is not None:
            return _Slot(item, None, link)
        if not is_file:
            return _Slot(item)
        return _Slot(item, to_read=True, in_pieces=is_in_pieces(stat))

    def _link_of(self, item: SourceItem, stat: os.stat_result) -> bytes | None:
        """The path whose inode this is another name of, if it was met already."""
        first = self._first_of.setdefault((stat.st_dev, stat.st_ino), item.path)
        return first if first != item.path else None

    def _rely_on(self, packs: bytes) -> bool:
        """Whether an unchanged file's packs may be relied on; if so the snapshot needs them."""
        numbers = numbers_in(packs)
        if not all(map(self._usable, numbers)):
            return False
        self.packs.update(numbers)
        if len(numbers) <= 1:  # what many small files share; large ones have their own
            self._relied.add(packs)
        return True

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
        if batch.middling:
            batch.future = self._workers.compute.submit(self._reader.read_batch, batch.middling)
        self._waiting.append(batch)
        while self._waiting and self._is_due():
            self._store(self._waiting.popleft())

    def _is_due(self) -> bool:
        """Batches of which a thread reads nothing don't count as read ahead."""
        if self._waiting[0].future is None:
            return True
        return sum(batch.future is not None for batch in self._waiting) > BATCHES_AHEAD

    def _store(self, batch: _Batch) -> None:
        """Emit the entries of a batch, in order."""
        contents = self._contents(batch)
        packs = iter(self._store_chunks(contents))
        read = iter(contents)
        for item, record, link, to_read, in_pieces in batch.slots:
            if record is not None:
                self._emit_unchanged(item, record)
            elif in_pieces:
                self._store_large(item)
            elif to_read:
                content = next(read)
                numbers = [next(packs) for _ in content.ids]
                if self._is_stored(item, content):
                    self._emit_file(item, content, content.ids, numbers)
            elif link is not None and link not in self._linkable:
                self._store_large(item)  # its first name could not be read: now it is a file
            else:
                self._store_other(item, link)
        self._hand_on()

    def _contents(self, batch: _Batch) -> list[FileContent]:
        """Of the files of a batch, in order."""
        small = self._reader.read_batch(batch.small) if batch.small else []
        if batch.future is None:
            return small
        parts = {True: iter(small), False: iter(batch.future.result())}
        return [
            next(parts[slot.item.stat.st_size <= SMALL_FILE])  # type: ignore[union-attr]  # was met
            for slot in batch.slots
            if slot.to_read and not slot.in_pieces
        ]

    def _store_chunks(self, contents: Sequence[FileContent]) -> list[int]:
        """Store all chunks of files that were read; the numbers of their packs, in order."""
        ids = [name for content in contents for name in content.ids]
        if not ids:
            return []
        numbers = self._chunks.store(ids, [piece for each in contents for piece in each.pieces])
        self.packs.update(numbers)
        return numbers

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
                self.packs.update(packs)
                self._emit_file(item, content, ids, packs)
                return

    def _read_large(self, item: SourceItem) -> tuple[FileContent, list[bytes], list[int]]:
        ids: list[bytes] = []
        packs: list[int] = []
        with contextlib.closing(self._reader.open_in_pieces(item)) as file:
            for piece_ids, pieces in self._pieces_of(file):
                ids += piece_ids
                packs += self._chunks.store(piece_ids, pieces)
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
        if content.outcome is _READ:
            return True
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
        if content.problems:
            self._note_attributes(item, content.problems)
        user, group = source.owner_names(stat.st_uid, stat.st_gid)
        chunks = b"".join(ids) if len(ids) > 1 or content.holes else b""
        mtime = self._mtime_of(item, stat)
        record = _record(
            item,
            stat,
            mtime,
            # of a file that changed, the times say nothing about the bytes that were read
            content.read_ns if content.outcome is _READ else 0,
            canonical_of(
                item.path,
                _FILE,
                stat.st_mode & fsmeta.MODE_BITS,
                stat.st_uid,
                stat.st_gid,
                mtime,
                size=content.size,
                sha256=content.sha256,
                xattrs=content.xattrs,
            ),
            extra_of(chunks, user, group, stat.st_ctime_ns, content.holes),
            pack_numbers(packs),
        )
        self._records.append(record)
        self._read_records.append(record)
        if stat.st_nlink > 1:
            self._linkable.add(item.path)
        self._tally["files"] += 1
        self._tally["size"] += content.size
        self._unflushed += content.size
        if content.pieces:  # else the bar was told piece by piece
            self._done_size += content.size

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
        assert kind is not None
        user, group = source.owner_names(stat.st_uid, stat.st_gid)
        mtime = self._mtime_of(item, stat)
        canonical = canonical_of(
            item.path,
            kind,
            stat.st_mode & fsmeta.MODE_BITS,
            stat.st_uid,
            stat.st_gid,
            mtime,
            link=link or item.link,
            device=stat.st_rdev if kind in _DEVICES else None,
            xattrs=xattrs,
        )
        extra = extra_of(b"", user, group, stat.st_ctime_ns, None)
        read_ns = self._reader.clock_ns()
        self._records.append(_record(item, stat, mtime, read_ns, canonical, extra, b""))
        self._tally[_COUNTED[kind]] += 1

    def _mtime_of(self, item: SourceItem, stat: os.stat_result) -> int:
        """As the tree can hold it; one beyond that is listed."""
        mtime = stat.st_mtime_ns
        if _FIRST_TIME <= mtime <= _LAST_TIME:
            return mtime
        self._problem(item.path, "attributes", "its mtime lies beyond what can be stored")
        return max(_FIRST_TIME, min(mtime, _LAST_TIME))

    def _emit_unchanged(self, item: SourceItem, record: ListRecord) -> None:
        kind = item.type
        assert kind is not None
        self._tally[_COUNTED[kind]] += 1
        if kind is _FILE:
            stat = item.stat
            assert stat is not None
            if stat.st_nlink > 1:
                self._count_linked(item, stat, record)
            else:
                self._tally["size"] += record.size
        self._records.append(record)
        if record.packs:
            self._done_size += record.size

    def _count_linked(self, item: SourceItem, stat: os.stat_result, record: ListRecord) -> None:
        """Only the first name of an inode has content."""
        if self._first_of[(stat.st_dev, stat.st_ino)] == item.path:
            self._linkable.add(item.path)
            self._tally["size"] += record.size

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


_DEVICES = frozenset((EntryType.CHARACTER_DEVICE, EntryType.BLOCK_DEVICE))
_COUNTED = {
    EntryType.DIRECTORY: "directories",
    EntryType.FILE: "files",
    EntryType.HARD_LINK: "files",
    EntryType.SYMLINK: "symlinks",
    EntryType.FIFO: "others",
    EntryType.CHARACTER_DEVICE: "others",
    EntryType.BLOCK_DEVICE: "others",
}


def _record(  # noqa: PLR0917 - one call for every file
    item: SourceItem,
    stat: os.stat_result,
    mtime: int,
    read_ns: int,
    canonical: bytes,
    extra: bytes,
    packs: bytes,
) -> ListRecord:
    return ListRecord(
        item.path,
        stat.st_size,
        mtime,
        stat.st_ctime_ns,
        stat.st_ino,
        stat.st_dev,
        read_ns,
        packs,
        canonical,
        extra,
    )


def _xattrs_of(item: SourceItem, problems: list[str]) -> fsmeta.Xattrs | None:
    assert item.stat is not None
    fd = source.open_path(item.full, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if not os.path.samestat(os.fstat(fd), item.stat):
            raise OSError(errno.ESTALE, "replaced by something else since it was listed")
        return fsmeta.read_xattrs(b"/proc/self/fd/%d" % fd, problems)
    finally:
        os.close(fd)
