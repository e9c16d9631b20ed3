"""The snapshot flow from end to end: prepare, walk, finish packs, publish, remember."""

import contextlib
import dataclasses
import fcntl
import logging
import os
import tempfile
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from pathlib import Path

from vault import locks, source
from vault.cache import Cache, DamagedCacheError, PackRow
from vault.chunker import ChunkSizes
from vault.codec import Session
from vault.crypto import RecipientKey, random_bytes
from vault.domain import open_domain
from vault.entrylist import EntryListReader, EntryListWriter, Joiner, Journal, ListHead, merge
from vault.errors import (
    BusyError,
    ConfigError,
    LedgerMovedError,
    LocalError,
    WrongKeyError,
)
from vault.keyfile import DomainSecrets, WriterKey
from vault.ledger import Record, WriterInfo
from vault.model import (
    Counts,
    InventoryRef,
    LockMode,
    ObjectType,
    SnapshotBody,
    TreeRef,
    replace_body,
    to_rfc3339,
    validate_label,
)
from vault.progress import NO_PROGRESS, Progress
from vault.repository import Repository, domain_ref, snapshot_body
from vault.snapshot import chunkmap
from vault.snapshot.chunks import ChunkStore, TreeBuilder
from vault.snapshot.packer import Packer
from vault.snapshot.preview import Planned, preview
from vault.snapshot.publish import (
    NeededPack,
    PacksGoneError,
    Publication,
    Publisher,
)
from vault.snapshot.reading import FileReader
from vault.snapshot.run import Problem, SourceRun
from vault.snapshot.stream import NamedStream, StreamFile
from vault.tree import TreeHeader, commitment, encode_header, frame
from vault.workers import Workers, make_workers

_log = logging.getLogger(__name__)

MAX_TREE_PACKS = 64  # a tree spread over more is written whole again (design.md 4)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotRequest:
    """What to take a snapshot of, and how."""

    paths: Sequence[Path]  # none with a stream
    dataset: str
    tool: str  # "vault 0.1.0"
    retention: timedelta | None = None  # None: the repository's default
    rules: source.Rules = source.NO_RULES
    level: int = 3  # zstd
    allow_empty: bool = False
    stream: NamedStream | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotReport:
    """A published snapshot."""

    record: Record
    body: SnapshotBody
    problems: Sequence[Problem]
    packs: int  # new
    reused_packs: int


def take_snapshot(
    repository: Repository,
    key: WriterKey,
    request: SnapshotRequest,
    *,
    cache_dir: Path,
    state_dir: Path,
    workers: Workers,
    progress: Progress = NO_PROGRESS,
) -> SnapshotReport:
    """Store what is new in ``request.paths`` and publish the manifest.

    Killed at any moment it leaves a valid repository; the next run reuses what
    was uploaded (I3).

    Args:
        repository: Read up to its head.
        key: This host's writer key.
        request: What to do.
        cache_dir: For the chunk map; may be lost at the cost of time.
        state_dir: For entry list and journal; may be lost at the cost of time.
        workers: Executors.
        progress: Told how it goes.

    Raises:
        ConfigError: The host may not write that dataset, or the source is not as required.
        BusyError: A snapshot of the dataset is running on this host.
        LedgerMovedError: Others won every attempt, or packs went missing twice.
        VaultError: The store or the disk failed; nothing was published.
    """
    validate_label(request.dataset, "dataset")
    writer = _enrolled(repository, key, request.dataset)
    repository.check_skew()
    lists_dir = state_dir / repository.ledger.repository_id
    with _only_one(lists_dir, request.dataset):
        task = _Task(repository, key, writer, request, workers=workers, progress=progress)
        try:
            return task.run(cache_dir, lists_dir)
        except DamagedCacheError as error:
            _log.warning("%s; it is made again", error)
            Cache.discard(task.cache_path(cache_dir))
            return task.run(cache_dir, lists_dir)


def preview_snapshot(
    repository: Repository,
    key: WriterKey,
    request: SnapshotRequest,
    *,
    cache_dir: Path,
    state_dir: Path,
) -> Iterator[Planned]:
    """What `take_snapshot` would do with everything it meets; nothing is read or stored.

    Raises:
        ConfigError: The host may not write that dataset, or the source is not as required.
    """
    validate_label(request.dataset, "dataset")
    writer = _enrolled(repository, key, request.dataset)
    lists_dir = state_dir / repository.ledger.repository_id
    with make_workers(0) as workers:
        task = _Task(repository, key, writer, request, workers=workers)
        with task.open_cache(cache_dir) as cache:
            yield from _Attempt(task, cache, lists_dir).preview()


def rebuild_index(
    repository: Repository,
    key: WriterKey,
    *,
    cache_dir: Path,
    workers: Workers,
    tool: str,
    recipient: RecipientKey | None = None,
) -> int:
    """Make the chunk map anew; returns packs known.

    From index objects that count; with a recovery key also from the packs
    themselves, which the next snapshot then writes index objects for.
    """
    writer = _enrolled(repository, key, None)
    request = SnapshotRequest(paths=(), dataset="rebuild", tool=tool)
    task = _Task(repository, key, writer, request, workers=workers)
    Cache.discard(task.cache_path(cache_dir))
    with task.open_cache(cache_dir) as cache:
        chunkmap.refresh(repository, task.secrets, cache)
        if recipient is not None:
            with tempfile.TemporaryDirectory(dir=cache_dir) as scratch:
                chunkmap.learn_from_packs(
                    repository, task.secrets, cache, recipient, scratch=Path(scratch)
                )
        return len(cache.pack_numbers())


def domain_secrets(repository: Repository, key: WriterKey, writer: WriterInfo) -> DomainSecrets:
    """The secrets of the writer's domain: from its key file, else from the domain object.

    Raises:
        IntegrityError: The object is not what was enrolled.
        WrongKeyError: It is not sealed to this host.
    """
    assert writer.domain is not None
    if key.domain is not None and key.domain.name == writer.domain.name:
        return key.domain
    data = repository.read(domain_ref(writer.domain))
    return open_domain(data, repository.id, key.recipient, writer.domain.name)


class _Task:
    """What the attempts of one snapshot share."""

    def __init__(
        self,
        repository: Repository,
        key: WriterKey,
        writer: WriterInfo,
        request: SnapshotRequest,
        *,
        workers: Workers,
        progress: Progress = NO_PROGRESS,
    ) -> None:
        self.repository = repository
        self.key = key
        self.request = request
        self.workers = workers
        self.progress = progress
        self.sources = _sources(request)
        self.secrets = domain_secrets(repository, key, writer)
        self.bad_indexes: frozenset[str] = frozenset()
        self.started = repository.clock()
        parameters = repository.parameters
        asked = request.retention
        seconds = parameters.default_retention if asked is None else int(asked.total_seconds())
        self.retention = timedelta(seconds=locks.check_retention(seconds, parameters))

    def cache_path(self, cache_dir: Path) -> Path:
        """Where the domain's chunk map is."""
        return cache_dir / self.repository.ledger.repository_id / self.secrets.name

    def open_cache(self, cache_dir: Path) -> Cache:
        """The domain's chunk map."""
        path = self.cache_path(cache_dir)
        return Cache.open(path, repository_id=self.repository.id, domain=self.secrets.name)

    def run(self, cache_dir: Path, lists_dir: Path) -> SnapshotReport:
        """Attempts: a second one if packs turn out to be gone (I7)."""
        with self.open_cache(cache_dir) as cache:
            for attempt in (1, 2) if self.request.stream is None else (1,):
                try:
                    return self.attempt(cache, lists_dir)
                except PacksGoneError as gone:
                    _log.warning("attempt %d: %d packs are gone", attempt, len(gone.numbers))
                    cache.drop_packs(gone.numbers)
        raise LedgerMovedError("packs this snapshot relies on vanished", hint="try again")

    def attempt(self, cache: Cache, lists_dir: Path) -> SnapshotReport:
        """One run from the walk to the manifest."""
        self.bad_indexes = chunkmap.refresh(self.repository, self.secrets, cache)
        attempt = _Attempt(self, cache, lists_dir)
        return attempt.run()


class _Attempt:
    """One run: everything it learns is dropped if packs turn out to be gone."""

    def __init__(self, task: _Task, cache: Cache, lists_dir: Path) -> None:
        self._task = task
        self._repository = task.repository
        self._cache = cache
        self._lists_dir = lists_dir
        self._tops = _tops(task.sources)
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
        self._need = locks.snapshot_until(task.started, task.retention)
        self._usable_packs: dict[int, bool] = {}
        self._data = self._packer(ObjectType.DATA)
        self._tree = self._packer(ObjectType.TREE)

    def run(self) -> SnapshotReport:
        """Walk, store, publish."""
        self._expect()
        self._task.progress.stage("reading")
        head = self._new_head()
        with contextlib.ExitStack() as stack:
            last, problem = EntryListReader.open(self._list_path, head, self._cache)
            _log_problem(problem)
            if last is not None:
                stack.enter_context(last)
                if last.head.sources == head.sources:
                    head = dataclasses.replace(head, key=last.head.key)
                else:
                    last = None  # other names: nothing in it says anything about these
            journal, problem = Journal.open(self._journal_path, head, self._cache)
            _log_problem(problem)
            stack.enter_context(journal)
            entries = stack.enter_context(EntryListWriter(self._list_path, head))
            report = self._store_and_publish(head, last, journal, entries)
            entries.commit(self._cache.mark())
            journal.delete()
        return report

    def preview(self) -> Iterator[Planned]:
        """What `run` would do, without reading or storing."""
        head = self._new_head()
        last, problem = EntryListReader.open(self._list_path, head, self._cache)
        _log_problem(problem)
        request = self._task.request
        with last or contextlib.nullcontext():
            known = last is not None and last.head.sources == head.sources
            records = last.records() if last is not None and known else iter(())
            yield from preview(request.paths, request.rules, records)

    def _store_and_publish(
        self,
        head: ListHead,
        last: EntryListReader | None,
        journal: Journal,
        entries: EntryListWriter,
    ) -> SnapshotReport:
        chunks = ChunkStore(self._cache, self._data, self._is_usable)
        tree = self._begin_tree(head, fresh=False)
        known = merge(last.records() if last else (), journal)
        run = SourceRun(
            reader=self._reader(),
            chunks=chunks,
            tree=tree,
            joiner=Joiner(known),
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
            run.counts,
            added_size=chunks.added_size,
            added_bytes=self._data.stored_bytes + self._tree.stored_bytes,
        )
        return self._publish(run, run.packs | tree.packs, ref, counts)

    def _walk(self, run: SourceRun, last: EntryListReader | None) -> None:
        empty = set(self._tops)
        for path in run.walk(self._task.request.paths, self._task.request.rules):
            empty -= _above(path, empty)
        self._refuse_emptied(empty, last)

    def _take_stream(self, run: SourceRun, named: NamedStream) -> None:
        sizes = ChunkSizes(*self._repository.parameters.data_chunk)
        file = StreamFile(self._reader(), named.stream, sizes)
        size = run.take_stream(os.fsencode(named.name), file)
        named.stream.finish()
        if not (size or self._task.request.allow_empty):
            raise ConfigError(
                f"the stream {named.name} is empty",
                hint="--allow-empty takes the snapshot all the same",
            )

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
        )

    def _packer(self, kind: ObjectType) -> Packer:
        return Packer(
            self._repository,
            self._session,
            kind,
            cache=self._cache,
            workers=self._task.workers,
            level=self._task.request.level,
            need=self._need,
        )

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
            known = row is not None and self._is_lock_alive(row)
            if row is not None:
                self._usable_packs[number] = known
        return known

    def _is_lock_alive(self, row: PackRow) -> bool:
        if self._repository.parameters.lock_mode is LockMode.NONE or not row.locked_until:
            return True  # presence, or the lock the store states, is checked before publishing
        until = datetime.fromtimestamp(row.locked_until, UTC)
        return locks.reusable(until, self._repository.clock())

    def _expect(self) -> None:
        """Guess the work from the dataset's last snapshot."""
        previous = self._repository.ledger.snapshots(self._task.request.dataset)
        if previous:
            body = snapshot_body(previous[-1])
            counts = body.counts
            files = counts.files + counts.directories + counts.symlinks + counts.others
            self._task.progress.expect(files=files, size=counts.size)

    def _refuse_emptied(self, empty: AbstractSet[bytes], last: EntryListReader | None) -> None:
        """A source that lost everything is an unmounted one until told otherwise (design.md 6)."""
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
        """Which of the sources had members: by the entry list, without one by the ledger."""
        if last is not None:
            left = set(empty)
            for record in last.records():
                left -= _above(record.path, left)
            return set(empty) - left
        previous = self._repository.ledger.snapshots(self._task.request.dataset)
        if not previous or len(empty) < len(self._tops):
            return set()
        counts = snapshot_body(previous[-1]).counts
        return set(empty) if counts.files + counts.symlinks + counts.others else set()

    def _publish(
        self, run: SourceRun, numbers: set[int], tree: TreeRef, counts: Counts
    ) -> SnapshotReport:
        task = self._task
        task.progress.stage("publishing")
        stored = {**self._data.stored, **self._tree.stored}
        packs = self._needed(numbers)
        unindexed = dict(chunkmap.unindexed(self._cache))
        new_index = self._publisher.store_index(list(unindexed.values()))
        body = SnapshotBody(
            dataset=task.request.dataset,
            created=to_rfc3339(task.started),
            complete=run.complete,
            counts=counts,
            tree=tree,
            inventory=InventoryRef(sha256="", size=0, version="", objects=0, bytes=0),
            mode=self._repository.parameters.lock_mode,
            until="",
        )
        record = self._publisher.publish(
            Publication(
                body=body,
                packs=packs,
                new_index=new_index,
                retention=task.retention,
                started=task.started,
            )
        )
        self._cache.forget_unindexed(unindexed)
        return SnapshotReport(
            record=record,
            body=snapshot_body(record),
            problems=tuple(run.problems),
            packs=len(stored),
            reused_packs=len(packs) - len(numbers & stored.keys()),
        )

    def _needed(self, numbers: set[int]) -> list[NeededPack]:
        rows = {number: self._cache.pack(number) for number in sorted(numbers)}
        gone = [number for number, row in rows.items() if row is None]
        if gone:
            raise PacksGoneError(gone)
        return [NeededPack(number=number, row=row) for number, row in rows.items() if row]


def _enrolled(repository: Repository, key: WriterKey, dataset: str | None) -> WriterInfo:
    """The writer as the ledger knows it.

    Raises:
        WrongKeyError: It is not enrolled, or was revoked.
        ConfigError: It may not write that dataset.
    """
    writer = repository.ledger.writers.get(key.signing.public.id)
    if writer is None or writer.domain is None:
        raise WrongKeyError(
            f"the writer key of {key.name} is not enrolled in this repository",
            hint="have 'vault key add' run with the request that 'vault key request' wrote",
        )
    if writer.revoked is not None:
        raise WrongKeyError(
            f"the writer key of {key.name} was revoked", found=f"ledger {writer.revoked}"
        )
    if dataset is not None and not any(fnmatchcase(dataset, p) for p in writer.datasets):
        raise ConfigError(
            f"{writer.name} may not write dataset {dataset}",
            expected=" or ".join(writer.datasets),
            found=dataset,
        )
    return writer


def _sources(request: SnapshotRequest) -> tuple[bytes, ...]:
    if request.stream is not None:
        return (os.fsencode(request.stream.name),)
    return tuple(sorted(map(source.locate, request.paths)))


def _tops(sources: Sequence[bytes]) -> tuple[bytes, ...]:
    """What the tree paths of each source's members begin with."""
    return tuple(path[1:] + b"/" for path in sources) if len(sources) > 1 else (b"",)


def _above(path: bytes, tops: AbstractSet[bytes]) -> set[bytes]:
    """Those of ``tops`` that a path is a member below."""
    return {top for top in tops if path and path.startswith(top)}


def _log_problem(problem: str) -> None:
    if problem:
        _log.warning("%s", problem)


@contextlib.contextmanager
def _only_one(directory: Path, dataset: str) -> Iterator[None]:
    """Hold the dataset's lock on this host; the kernel drops it if we die.

    Raises:
        BusyError: Another process holds it.
    """
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = (directory / f"{dataset}.lock").open("w")
    except OSError as error:
        raise LocalError(f"state directory {directory} can't be used", found=error) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BusyError(f"a snapshot of {dataset} is already running on this host") from error
        yield
