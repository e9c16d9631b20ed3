"""One attempt at a snapshot: from the walk to the manifest (docs/design.md "Snapshot")."""

import contextlib
import dataclasses
import logging
import os
import stat
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from datetime import UTC, datetime
from pathlib import Path

from vault import retention
from vault.clock import to_rfc3339
from vault.crypto.keys import random_bytes
from vault.crypto.sealed import Session
from vault.errors import ConfigError
from vault.format.chunker import ChunkSizes
from vault.format.content_root import commitment
from vault.format.entry_encoding import frame
from vault.format.pack_index import IndexEntry
from vault.format.tree import TreeHeader, encode_header
from vault.ledger.statements import Counts, InventoryRef, SnapshotBody, TreeRef
from vault.machine.chunk_cache import Cache, PackRow
from vault.model import LockMode, ObjectType, replace_body
from vault.repository.repository import snapshot_body
from vault.snapshot import known_chunks, unchanged
from vault.snapshot.bad_pack_substitutes import Mender
from vault.snapshot.dedup import ChunkStore, TreeBuilder
from vault.snapshot.file_reader import FileReader
from vault.snapshot.last_run import EntryListReader, EntryListWriter, Joiner
from vault.snapshot.list_records import ListHead, Top
from vault.snapshot.packer import Packer
from vault.snapshot.preview import Planned, preview
from vault.snapshot.publish import NeededPack, PacksGoneError, Publication, Publisher
from vault.snapshot.run_journal import ListJournal, merge
from vault.snapshot.snapshot_request import SnapshotReport, Task
from vault.snapshot.source_run import SourceRun
from vault.snapshot.stream import NamedStream, StreamFile, check_not_empty
from vault.snapshot.unchanged import Grounds

_log = logging.getLogger(__name__)

MAX_TREE_PACKS = 64  # a tree spread over more is written whole again (docs/design.md "Objects")


class Attempt:
    """One attempt; if packs turn out to be gone, all that it learnt is dropped."""

    def __init__(self, task: Task, cache: Cache, lists_dir: Path) -> None:
        self._task = task
        self._repository = task.repository
        self._cache = cache
        self._lists_dir = lists_dir
        self._tops = _tops(task.sources)
        self._directory = _directory(task.sources)
        self._session = Session.new(self._repository.id, self._repository.ledger.recipients)
        self._publisher = Publisher(
            self._repository,
            task.key,
            task.secrets,
            cache,
            task.workers,
            tool=task.request.tool,
            bad_indexes=task.bad_indexes,
        )
        is_unlocked = self._repository.parameters.lock_mode is LockMode.NONE
        self._may_reuse = not (is_unlocked and self._repository.plans.unsure())
        self._usable_packs: dict[int, bool] = {}
        self._data = self._packer(ObjectType.DATA)
        self._tree = self._packer(ObjectType.TREE)

    def run(self) -> None:
        """Walk, store, publish."""
        self._expect()
        self._task.progress.stage("reading")
        head = self._new_head()
        with contextlib.ExitStack() as stack:
            last, problem = EntryListReader.open(self._list_path, head, self._cache)
            _log_problem(problem)
            if last is not None:
                stack.enter_context(last)
                if self._serves(last, head):
                    head = dataclasses.replace(head, key=last.head.key)
                else:
                    last = None  # it says nothing about these sources
            journal, problem = ListJournal.open(self._journal_path, head, self._cache)
            _log_problem(problem)
            stack.enter_context(journal)
            entries = stack.enter_context(EntryListWriter(self._list_path, head))
            known = self._grounds(last, head, journal)
            self._store_and_publish(head, last, journal, entries, known)
            with self._task.afterwards():  # if it fails, the journal still has the same records
                entries.commit(self._cache.mark(), known.met)
                journal.delete()

    def preview(self) -> Iterator[Planned]:
        """What `run` would do, without reading or storing."""
        head = self._new_head()
        last, problem = EntryListReader.open(self._list_path, head, self._cache)
        _log_problem(problem)
        request = self._task.request
        with last or contextlib.nullcontext():
            if last is not None and not self._serves(last, head):
                last = None
            records = last.records() if last is not None else iter(())
            bad = {self._cache.pack_number(bytes.fromhex(pack)) for pack in self._task.bad_packs}
            yield from preview(
                request.paths,
                request.rules,
                records,
                self._grounds(last, head),
                lambda number: number not in bad and self._is_usable(number),
            )

    def _store_and_publish(
        self,
        head: ListHead,
        last: EntryListReader | None,
        journal: ListJournal,
        entries: EntryListWriter,
        known: Grounds,
    ) -> None:
        chunks = ChunkStore(self._cache, self._data, self._is_usable)
        tree = self._begin_tree(head, fresh=False)
        run = SourceRun(
            reader=self._reader(),
            chunks=chunks,
            tree=tree,
            joiner=Joiner(merge(last.records() if last else (), journal)),
            grounds=known,
            entries=entries,
            journal=journal,
            usable=self._is_usable,
            workers=self._task.workers,
            progress=self._task.progress,
        )
        if self._task.request.stream is not None:
            self._take_stream(run, self._task.request.stream)
        else:
            self._walk(run, last)
        self._task.progress.stage("finishing")
        self._data.finish()
        root, level = tree.finish()
        if len(tree.packs) > MAX_TREE_PACKS:
            tree = self._begin_tree(head, fresh=True)
            for record in entries.records():
                tree.add(frame(record.canonical, record.extra))
            root, level = tree.finish()
        self._tree.finish()
        ref = TreeRef(
            id=root.hex(), level=level, commitment=commitment(head.key, run.root.digest()).hex()
        )
        counts = replace_body(
            run.report.counts,
            added_size=chunks.added_size,
            added_bytes=self._data.stored_bytes + self._tree.stored_bytes,
        )
        self._publish(run, run.packs | tree.packs, ref, counts)

    def _walk(self, run: SourceRun, last: EntryListReader | None) -> None:
        empty = set(self._tops)
        for path in run.walk(self._task.request.paths, self._task.request.rules):
            if empty:
                empty -= _above(path, empty)
        self._refuse_emptied(empty, last)

    def _take_stream(self, run: SourceRun, named: NamedStream) -> None:
        sizes = ChunkSizes(*self._repository.parameters.data_chunk)
        file = StreamFile(self._reader(), named.stream, sizes)
        size = run.take_stream(os.fsencode(named.name), file)
        named.stream.finish()
        if not self._task.request.allow_empty:
            check_not_empty(named, size)

    # --- parts of the run ---

    @property
    def _list_path(self) -> Path:
        return self._lists_dir / f"{self._task.request.dataset}.entries"

    @property
    def _journal_path(self) -> Path:
        return self._lists_dir / f"{self._task.request.dataset}.journal"

    def _new_head(self) -> ListHead:
        return ListHead(
            repository=self._repository.ledger.repository_id,
            dataset=self._task.request.dataset,
            generation=self._cache.generation,
            key=random_bytes(32),
            sources=self._task.sources,
            created=to_rfc3339(self._task.started),
            top=Top() if self._task.request.stream else unchanged.top_of(self._directory),
        )

    def _serves(self, last: EntryListReader, head: ListHead) -> bool:
        return unchanged.serves(last.head, last.grounds(), head, self._directory)

    def _grounds(
        self, last: EntryListReader | None, head: ListHead, journal: ListJournal | None = None
    ) -> Grounds:
        return Grounds(
            last.grounds() if last else (),
            self._directory,
            same_path=last is None or last.head.sources == head.sources,
            killed=journal.head.top if journal else None,
        )

    def _packer(self, kind: ObjectType) -> Packer:
        return Packer(
            self._repository,
            self._session,
            kind,
            cache=self._cache,
            workers=self._task.workers,
            level=self._task.request.level,
            need=lambda: retention.pack_need(self._need(), self._repository.parameters),
        )

    def _need(self) -> datetime:
        """End of retention for a pack stored now; counted from now if the run took over 24 h."""
        now = self._repository.clock()
        return retention.snapshot_until(self._task.started, self._task.retention, now)

    def _reader(self) -> FileReader:
        sizes = ChunkSizes(*self._repository.parameters.data_chunk)
        clock = self._repository.clock
        return FileReader(
            sizes, self._task.secrets.id_key, lambda: int(clock().timestamp() * 1_000_000_000)
        )

    def _begin_tree(self, head: ListHead, *, fresh: bool) -> TreeBuilder:
        store = ChunkStore(self._cache, self._tree, self._is_usable, fresh=fresh)
        sizes = ChunkSizes(*self._repository.parameters.tree_chunk)
        tree = TreeBuilder(store, sizes, self._task.secrets.id_key)
        relative = len(head.sources) == 1
        tree.add(encode_header(TreeHeader(key=head.key, relative=relative, sources=head.sources)))
        return tree

    def _is_usable(self, number: int) -> bool:
        """Whether this run may rely on a pack: it is stored, and not about to go (I7)."""
        known = self._usable_packs.get(number)
        if known is None:
            row = self._cache.pack(number)
            is_sure = self._may_reuse or number in self._data.stored | self._tree.stored
            known = row is not None and is_sure and self._is_lock_alive(row)
            if row is not None:
                self._usable_packs[number] = known
        return known

    def _is_lock_alive(self, row: PackRow) -> bool:
        if self._repository.parameters.lock_mode is LockMode.NONE or not row.locked_until:
            return True  # the publisher checks presence, or the lock in the store
        until = datetime.fromtimestamp(row.locked_until, UTC)
        if not self._repository.parameters.extend:
            return until >= self._need()
        return retention.reusable(until, self._repository.clock())

    def _expect(self) -> None:
        """Estimate the work from the dataset's last snapshot."""
        previous = self._repository.ledger.snapshots(self._task.request.dataset)
        if previous:
            body = snapshot_body(previous[-1])
            counts = body.counts
            files = counts.files + counts.directories + counts.symlinks + counts.others
            self._task.progress.expect(files=files, size=counts.size)

    def _refuse_emptied(self, empty: AbstractSet[bytes], last: EntryListReader | None) -> None:
        """Refuse a source that was not empty last time and is now: it may be unmounted.

        See docs/design.md "Snapshot".
        """
        if not empty or self._task.request.allow_empty:
            return
        lost = self._filled_before(empty, last)
        if lost:
            raise ConfigError(
                "the source is empty and was not last time",
                found=", ".join(sorted(os.fsdecode(b"/" + top) for top in lost if top))
                or str(self._task.request.paths[0]),
                hint="is it mounted? --allow-empty takes the snapshot all the same",
            )

    def _filled_before(self, empty: AbstractSet[bytes], last: EntryListReader | None) -> set[bytes]:
        """The sources that had members last time, by the entry list or else by the ledger."""
        if last is not None:
            left = set(empty)
            for record in last.records():
                left -= _above(record.path, left)
                if not left:
                    break
            return set(empty) - left
        previous = self._repository.ledger.snapshots(self._task.request.dataset)
        if not previous or len(empty) < len(self._tops):
            return set()
        counts = snapshot_body(previous[-1]).counts
        return set(empty) if counts.files + counts.symlinks + counts.others else set()

    def _publish(self, run: SourceRun, numbers: set[int], tree: TreeRef, counts: Counts) -> None:
        task = self._task
        task.progress.stage("publishing")
        stored = self._data.stored | self._tree.stored
        packs = self._needed(numbers)
        indexed: list[int] = []
        new_index = self._publisher.store_index(self._unindexed(indexed))
        self._mend()
        body = SnapshotBody(
            dataset=task.request.dataset,
            created=task.started,
            complete=run.report.complete,
            counts=counts,
            tree=tree,
            inventory=InventoryRef(sha256="", size=0, version="", objects=0, bytes=0),
            mode=self._repository.parameters.lock_mode,
            until=task.started,  # the publisher sets it, and the fields of the inventory
        )
        record = self._publisher.publish(
            Publication(
                body=body,
                packs=packs,
                stored=frozenset(stored),
                new_index=new_index,
                keeper=task.keeper,
                started=task.started,
            )
        )
        task.publish(
            SnapshotReport(
                record=record,
                body=snapshot_body(record),
                problems=tuple(run.report.problems),
                left_out=tuple(run.report.left_out),
                in_use=tuple(run.report.in_use),
                packs=len(stored),
                reused_packs=len(packs) - len(numbers & stored),
                left=task.left,
            )
        )
        with task.afterwards():
            self._cache.forget_unindexed(indexed)

    def _mend(self) -> None:
        """Lock substitutes of bad packs for as long as older snapshots need those packs."""
        task = self._task
        if not task.bad_packs or self._repository.parameters.lock_mode is LockMode.NONE:
            return
        mender = Mender(self._repository, task.secrets, self._cache, task.bad_packs)
        mender.done(self._publisher.lock_substitutes(mender.plan()))

    def _unindexed(self, numbers: list[int]) -> Iterator[IndexEntry]:
        """Packs that no index object names yet; their numbers are appended to ``numbers``."""
        for number, entry in known_chunks.unindexed(self._cache):
            numbers.append(number)
            yield entry

    def _needed(self, numbers: set[int]) -> list[NeededPack]:
        rows = {number: self._cache.pack(number) for number in sorted(numbers)}
        gone = [number for number, row in rows.items() if row is None]
        if gone:
            raise PacksGoneError(gone)
        return [NeededPack(number=number, row=row) for number, row in rows.items() if row]


def _tops(sources: Sequence[bytes]) -> tuple[bytes, ...]:
    """For each source, the beginning of its members' paths in the tree."""
    return tuple(path[1:] + b"/" for path in sources) if len(sources) > 1 else (b"",)


def _directory(sources: Sequence[bytes]) -> bytes:
    """The directory at the top of the tree."""
    if len(sources) > 1:
        return b"/"
    (path,) = sources
    try:
        is_directory = stat.S_ISDIR(os.lstat(path).st_mode)
    except OSError:  # a stream's name, or a PATH that is gone, which the walk reports
        return path
    return path if is_directory else path.rpartition(b"/")[0] or b"/"


def _above(path: bytes, tops: AbstractSet[bytes]) -> set[bytes]:
    """Those of ``tops`` below which a path lies."""
    return {top for top in tops if path and path.startswith(top)}


def _log_problem(problem: str) -> None:
    if problem:
        _log.warning("%s", problem)
