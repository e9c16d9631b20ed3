"""The request for a snapshot, its report, and what its attempts share."""

import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Protocol

from vault import retention as locking
from vault.crypto.key_files import DomainSecrets, WriterKey
from vault.crypto.sealed import open_seed
from vault.errors import ConfigError, FormatError, VaultError, WrongKeyError
from vault.format.domain_secrets import open_domain
from vault.format.tree import MAX_TREE_HEADER, TreeHeader, encode_header
from vault.ledger.chain import Ledger
from vault.ledger.records import Record, WriterInfo
from vault.ledger.statements import SnapshotBody
from vault.machine.chunk_cache import Cache
from vault.machine.workers import Workers
from vault.progress import NO_PROGRESS, Progress
from vault.repository import bad_packs
from vault.repository.bad_packs import BadPackMemory, Word
from vault.repository.repository import Repository, read_domain
from vault.retention import KeptFor
from vault.snapshot import walk
from vault.snapshot.stream import NamedStream
from vault.snapshot.walk_report import Problem
from vault.storage.names import is_pack

MANY = 0.05  # share of the packs of the dataset's last snapshot


class Keeper(Protocol):
    """The retention of a run; what decides it is handed in."""

    @property
    def at_put(self) -> timedelta:
        """What all is kept for that the run stores, whatever becomes of the run."""

    def decide(self, ledger: Ledger, *, created: datetime, complete: bool) -> KeptFor:
        """What the snapshot is kept for that would be the next statement of this ledger."""


@dataclasses.dataclass(frozen=True, slots=True)
class FixedKeeper:
    """One retention, whatever the ledger has."""

    at_put: timedelta

    def decide(self, ledger: Ledger, *, created: datetime, complete: bool) -> KeptFor:  # noqa: ARG002 - as `Keeper`
        """See `Keeper.decide`."""
        return KeptFor(keep=self.at_put)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotRequest:
    """The sources of a snapshot, and how to take it."""

    paths: Sequence[Path]  # empty with a stream
    dataset: str
    tool: str  # "vault 0.1.0"
    retention: timedelta | None = None  # None: the repository's default
    keeper: Keeper | None = None  # instead of a fixed retention
    rules: walk.Rules = walk.NO_RULES
    level: int = 3  # zstd level
    allow_empty: bool = False
    stream: NamedStream | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LeftPacks:
    """Packs of the dataset's last snapshot that are bad; this run did not rely on them (I7)."""

    snapshot: int  # seq of that snapshot
    packs: tuple[str, ...]  # hex ids, sorted
    of: int  # packs that it needs
    words: tuple[Word, ...]  # the sources of that claim, each once, by seq

    @property
    def is_many(self) -> bool:
        """Whether so many are bad that the source of the claim should be asked."""
        return len(self.packs) > MANY * self.of


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotReport:
    """A published snapshot."""

    record: Record
    body: SnapshotBody
    problems: Sequence[Problem]
    packs: int  # new ones
    reused_packs: int
    left_out: Sequence[walk.LeftOut] = ()  # other file systems, and the program's own directories
    in_use: Sequence[walk.InUse] = ()  # databases whose files may not fit together as read
    left: LeftPacks | None = None  # bad packs that the dataset's last snapshot needs
    trouble: tuple[str, ...] = ()  # failures after publishing; they only cost the next run time


class Task:
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
        memory: BadPackMemory | None = None,
        published: Callable[[Record], None] = lambda _: None,
    ) -> None:
        self.repository = repository
        self._memory = memory
        self.key = key
        self.request = request
        self.workers = workers
        self.progress = progress
        self.sources = _sources(request)
        self.secrets = domain_secrets(repository, key, writer)
        self.bad_indexes: frozenset[str] = frozenset()
        self.bad_packs: Mapping[str, Word] = {}  # hex id to the source of the claim
        self.left: LeftPacks | None = None
        self.report: SnapshotReport | None = None  # once it is published
        self._trouble: list[str] = []
        self._published = published
        self.started = repository.clock()
        parameters = repository.parameters
        asked = request.retention
        seconds = parameters.default_retention if asked is None else int(asked.total_seconds())
        fixed = FixedKeeper(timedelta(seconds=locking.check_retention(seconds, parameters)))
        self.keeper = request.keeper or fixed
        self.retention = self._at_put()

    def _at_put(self) -> timedelta:
        """What to lock packs for when they are stored.

        Where locks can be extended that is what every snapshot is kept for: a run that dies on
        1 January must not leave its packs locked for the years of the first of a year. Where
        they can't, it is the longest that the snapshot may get.
        """
        if self.repository.parameters.extend:
            return self.keeper.at_put
        ledger = self.repository.ledger
        ends = (
            self.keeper.decide(ledger, created=self.started, complete=complete).keep
            for complete in (True, False)
        )
        return max(self.keeper.at_put, *ends)

    def publish(self, report: SnapshotReport) -> None:
        """Note that the snapshot is published; from here on the run can't fail."""
        self.report = report
        self._published(report.record)

    @contextlib.contextmanager
    def afterwards(self) -> Iterator[None]:
        """For steps after publishing: an error in the block is noted, and does not fail the run."""
        try:
            yield
        except (VaultError, OSError) as error:
            if self.report is None:
                raise
            self._trouble.append(str(error))

    def finished(self) -> SnapshotReport:
        """The report, with what failed after publishing."""
        assert self.report is not None
        return dataclasses.replace(self.report, trouble=tuple(self._trouble))

    def look_for_bad_packs(self) -> None:
        """Learn which packs the ledger and this host now call bad."""
        self.bad_packs = bad_packs.words(self.repository, self._memory)
        previous = self.repository.ledger.snapshots(self.request.dataset)
        if self.bad_packs and previous:
            self.left = _left_of(self.repository, previous[-1], self.bad_packs)

    def cache_path(self, cache_dir: Path) -> Path:
        """The path of the domain's chunk map."""
        return cache_dir / self.repository.ledger.repository_id / self.secrets.name

    def open_cache(self, cache_dir: Path) -> Cache:
        """The domain's chunk map."""
        path = self.cache_path(cache_dir)
        return Cache.open(path, repository_id=self.repository.id, domain=self.secrets.name)


def _left_of(repository: Repository, record: Record, bad: Mapping[str, Word]) -> LeftPacks | None:
    """The bad packs that a snapshot needs; None if it needs none."""
    inventory = repository.usable_inventory(record)
    if inventory is None:
        return None
    packs = [ref.sha256.hex() for ref in inventory.objects if is_pack(ref.name)]
    left = sorted(pack for pack in packs if pack in bad)
    if not left:
        return None
    return LeftPacks(
        snapshot=record.seq,
        packs=tuple(left),
        of=len(packs),
        words=tuple(sorted({bad[pack] for pack in left}, key=lambda word: word.seq)),
    )


def enrolled(repository: Repository, key: WriterKey, dataset: str | None) -> WriterInfo:
    """The writer, as the ledger lists it.

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
        is_replaced = any(
            each.replaces == writer.key.id for each in repository.ledger.writers.values()
        )
        raise WrongKeyError(
            f"the writer key of {key.name} was {'replaced' if is_replaced else 'revoked'}",
            found=f"ledger {writer.revoked}",
            hint="the new one is in writer.next.key of the host that asked for it"
            if is_replaced
            else f"'vault show {writer.revoked}' says by whom and why",
        )
    if dataset is not None and not any(fnmatchcase(dataset, p) for p in writer.datasets):
        raise ConfigError(
            f"{writer.name} may not write dataset {dataset}",
            expected=" or ".join(writer.datasets),
            found=dataset,
        )
    return writer


def domain_secrets(repository: Repository, key: WriterKey, writer: WriterInfo) -> DomainSecrets:
    """The secrets of the writer's domain: from its key file, else from the domain object.

    Raises:
        IntegrityError: The object is not what was enrolled.
        WrongKeyError: It is not sealed to this host.
    """
    assert writer.domain is not None
    if key.domain is not None and key.domain.name == writer.domain.name:
        return key.domain
    data = read_domain(repository, writer.domain)
    return open_domain(
        data,
        repository.id,
        lambda header: open_seed(header, repository.id, key.recipient),
        writer.domain.name,
    )


def _sources(request: SnapshotRequest) -> tuple[bytes, ...]:
    """The sources as the tree names them.

    Raises:
        ConfigError: A PATH is missing, or a tree can't name so many.
    """
    if request.stream is not None:
        return (os.fsencode(request.stream.name),)
    found = tuple(sorted(map(walk.locate_source, request.paths)))
    try:
        encode_header(TreeHeader(key=bytes(32), relative=False, sources=found))
    except FormatError as error:
        raise ConfigError(
            f"{len(found):,} PATHs are more than one snapshot can name",
            expected=f"names of at most {MAX_TREE_HEADER} bytes together",
            found=error.found,
            hint="name the directories that hold them, or take several snapshots",
        ) from error
    return found
