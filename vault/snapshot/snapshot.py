"""The snapshot flow from beginning to end: preparation, and up to two attempts."""

import contextlib
import dataclasses
import fcntl
import logging
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from vault.crypto.key_files import WriterKey
from vault.crypto.keys import RecipientKey
from vault.errors import BusyError, LedgerMovedError, LocalError
from vault.ledger.records import Record
from vault.machine.chunk_cache import Cache, DamagedCacheError
from vault.machine.privacy import make_private, open_lock
from vault.machine.workers import Workers, make_workers
from vault.model import validate_dataset
from vault.progress import NO_PROGRESS, Progress
from vault.repository import bad_packs
from vault.repository.bad_packs import BadPackMemory
from vault.repository.repository import Repository
from vault.snapshot import known_chunks
from vault.snapshot.preview import Planned
from vault.snapshot.publish import PacksGoneError
from vault.snapshot.snapshot_attempt import Attempt
from vault.snapshot.snapshot_request import SnapshotReport, SnapshotRequest, Task, enrolled
from vault.storage.urls import parse_local, scheme_of

_log = logging.getLogger(__name__)


def take_snapshot(
    repository: Repository,
    key: WriterKey,
    request: SnapshotRequest,
    *,
    cache_dir: Path,
    state_dir: Path,
    workers: Workers,
    progress: Progress = NO_PROGRESS,
    published: Callable[[Record], None] = lambda _: None,
) -> SnapshotReport:
    """Store what is new in ``request.paths`` and publish the manifest.

    If it is killed at any moment, the repository stays valid, and the next run reuses what was
    uploaded (I3).

    Args:
        repository: Read up to its head.
        key: This host's writer key.
        request: What to do.
        cache_dir: For the chunk map; may be lost at the cost of time.
        state_dir: For entry list and journal; may be lost at the cost of time.
        workers: Executors.
        progress: Receives the progress.
        published: Receives the statement as soon as it is in the ledger. Failures after that
            are in the report.

    Raises:
        ConfigError: The host may not write that dataset, or the source is not as required.
        BusyError: A snapshot of the dataset is running on this host.
        LedgerMovedError: Other writers won every attempt, or packs went missing twice.
        VaultError: The store or the disk failed; nothing was published.
    """
    validate_dataset(request.dataset)
    request = _without_own(request, repository, cache_dir, state_dir)
    writer = enrolled(repository, key, request.dataset)
    repository.objects.check_skew()
    lists_dir = state_dir / repository.ledger.repository_id
    with _only_one(lists_dir, request.dataset):
        memory = BadPackMemory(state_dir)
        task = Task(
            repository,
            key,
            writer,
            request,
            workers=workers,
            progress=progress,
            memory=memory,
            published=published,
        )
        with task.afterwards():
            try:
                _run(task, cache_dir, lists_dir)
            except DamagedCacheError as error:
                if task.report is not None:
                    raise
                _log.warning("%s; it is made again", error)
                Cache.discard(task.cache_path(cache_dir))
                _run(task, cache_dir, lists_dir)
        return task.finished()


def _run(task: Task, cache_dir: Path, lists_dir: Path) -> None:
    """Make an attempt, and a second one if packs turn out to be gone (I7)."""
    with task.open_cache(cache_dir) as cache:
        for attempt in (1, 2) if task.request.stream is None else (1,):
            try:
                task.look_for_bad_packs()
                task.bad_indexes = known_chunks.refresh(
                    task.repository, task.secrets, cache, task.bad_packs
                )
                Attempt(task, cache, lists_dir).run()
                return  # noqa: TRY300 - what it raises is handled here
            except PacksGoneError as gone:
                _log.warning("attempt %d: %d packs are gone", attempt, len(gone.numbers))
                cache.drop_packs(gone.numbers)
    raise LedgerMovedError("packs this snapshot relies on vanished", hint="try again")


def preview_snapshot(
    repository: Repository,
    key: WriterKey,
    request: SnapshotRequest,
    *,
    cache_dir: Path,
    state_dir: Path,
) -> Iterator[Planned]:
    """What `take_snapshot` would do with everything that it meets; reads and stores nothing.

    Raises:
        ConfigError: The host may not write that dataset, or the source is not as required.
    """
    validate_dataset(request.dataset)
    request = _without_own(request, repository, cache_dir, state_dir)
    writer = enrolled(repository, key, request.dataset)
    lists_dir = state_dir / repository.ledger.repository_id
    with make_workers(0) as workers:
        memory = BadPackMemory(state_dir)
        task = Task(repository, key, writer, request, workers=workers, memory=memory)
        task.look_for_bad_packs()
        with task.open_cache(cache_dir) as cache:
            yield from Attempt(task, cache, lists_dir).preview()


def _without_own(
    request: SnapshotRequest, repository: Repository, cache_dir: Path, state_dir: Path
) -> SnapshotRequest:
    """The request, leaving out this program's own files: else each run stores the one before."""
    own = [
        (state_dir, "the state directory of vault"),
        (cache_dir, "the cache directory of vault"),
    ]
    url = repository.store.url
    if scheme_of(url) == "file":
        own.append((parse_local(url), "this repository"))
    return dataclasses.replace(request, rules=dataclasses.replace(request.rules, own=own))


def rebuild_index(
    repository: Repository,
    key: WriterKey,
    *,
    cache_dir: Path,
    state_dir: Path,
    workers: Workers,
    tool: str,
    recipient: RecipientKey | None = None,
) -> int:
    """Make the chunk map anew; returns packs known.

    It is made from trusted index objects; with a recovery key, also from the packs themselves,
    for which the next snapshot then writes index objects.
    """
    writer = enrolled(repository, key, None)
    request = SnapshotRequest(paths=(), dataset="rebuild", tool=tool)
    task = Task(repository, key, writer, request, workers=workers)
    bad = bad_packs.words(repository, BadPackMemory(state_dir))
    Cache.discard(task.cache_path(cache_dir))
    with task.open_cache(cache_dir) as cache:
        known_chunks.refresh(repository, task.secrets, cache, bad)
        if recipient is not None:
            with tempfile.TemporaryDirectory(dir=cache_dir) as scratch:
                known_chunks.learn_from_packs(
                    repository, task.secrets, cache, recipient, bad=bad, scratch=Path(scratch)
                )
        return len(cache.pack_numbers())


@contextlib.contextmanager
def _only_one(directory: Path, dataset: str) -> Iterator[None]:
    """Hold the dataset's lock on this host; the kernel releases it if this process dies.

    Raises:
        BusyError: Another process holds it.
    """
    try:
        make_private(directory)
        lock = os.fdopen(open_lock(directory / f"{dataset}.lock"), "w")
    except OSError as error:
        raise LocalError(f"state directory {directory} can't be used", found=error) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BusyError(f"a snapshot of {dataset} is already running on this host") from error
        yield
