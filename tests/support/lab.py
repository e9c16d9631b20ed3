"""A repository with its keys, the hosts that write to it, and the clock that all go by."""

import contextlib
import dataclasses
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeAlias

from vault.crypto.key_file_bytes import Argon2Cost
from vault.crypto.key_files import (
    RecoveryKey,
    RootKey,
    WriterKey,
    load_recovery,
    load_root,
    load_writer,
)
from vault.crypto.keys import Signer
from vault.format.entry import Entry
from vault.ledger.chain import Ledger
from vault.ledger.kinds import name_packs
from vault.ledger.records import Record
from vault.ledger.remembered import LedgerMemory
from vault.ledger.statements import EventBody, RootBody
from vault.ledger.succession import snapshot_ranges
from vault.machine.workers import Workers, make_workers
from vault.model import Digest, EntryType, LockMode, replace_body
from vault.parameters import Parameters
from vault.progress import NO_PROGRESS, Progress
from vault.repository import attestations
from vault.repository.append_statements import Draft
from vault.repository.enrolment import InitRequest, add_writer, create_repository
from vault.repository.keyrequests import request_key
from vault.repository.reader import Reader
from vault.repository.repository import Repository
from vault.restore import (
    Course,
    Finalized,
    Local,
    RestoreReport,
    RestoreRequest,
    finalize_restore,
    restore_snapshot,
)
from vault.restore.syscalls import Fs
from vault.snapshot import SnapshotReport, SnapshotRequest, take_snapshot
from vault.storage.base import ObjectStore
from vault.storage.memory import MemoryStore
from vault.verify import VerifyReport, verify_snapshots

START = datetime(2030, 1, 1, tzinfo=UTC)  # after every real mtime: nothing written is "racy"
PASSPHRASE = b"correct horse"
TOOL = "vault test"
CHEAP = Argon2Cost(memory=64, iterations=1, lanes=1)

MakeRepository: TypeAlias = Callable[..., "Lab"]


class Clock:
    """A clock that moves only when a test moves it."""

    def __init__(self, now: datetime = START) -> None:
        self.now = now

    def __call__(self) -> datetime:
        """Now."""
        return self.now

    def advance(self, **span: float) -> None:
        """Move on by the arguments of `timedelta`."""
        self.now += timedelta(**span)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Host:
    """A machine with its writer key, cache and state."""

    key: WriterKey
    base: Path

    @property
    def cache(self) -> Path:
        """Where its chunk map is."""
        return self.base / "cache"

    @property
    def state(self) -> Path:
        """Where its entry lists and journals are."""
        return self.base / "state"

    def copy(self, base: Path) -> "Host":
        """The same machine as it is now, at another place."""
        shutil.copytree(self.base, base)
        return dataclasses.replace(self, base=base)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Lab:
    """A repository with all its keys, and the clock that everyone goes by."""

    store: Any  # MemoryStore, unless a test puts another one here
    clock: Clock
    root: Digest
    host: Host
    root_key: RootKey
    recovery: RecoveryKey
    base: Path
    warm: bool = False  # the host remembers the ledger it verified

    def open(self) -> Repository:
        """Read from the pinned root, or from what the host remembers; never waits."""
        memory = LedgerMemory(self.host.state)
        repository = Repository.open(
            self.store,
            self.root,
            clock=self.clock,
            pause=lambda _: None,
            remembered=memory.recall(self.root) if self.warm else None,
        )
        if self.warm:
            ledger = repository.ledger
            memory.remember(self.root, ledger, repository.findings, until=repository.head)
        return repository

    @property
    def local(self) -> Local:
        """Where this user keeps what he knows of his restores, and who he is."""
        return Local(state=self.host.state, host="here", user="me")

    @property
    def scratch(self) -> Path:
        """Room for what long operations spill."""
        place = self.base / "scratch"
        place.mkdir(exist_ok=True)
        return place

    def warmed(self) -> "Lab":
        """The same, and the host remembers the ledger from now on."""
        return dataclasses.replace(self, warm=True)

    def with_store(self, store: ObjectStore) -> "Lab":
        """The same people at another store."""
        return dataclasses.replace(self, store=store)

    def with_host(self, host: Host) -> "Lab":
        """The same repository from another machine."""
        return dataclasses.replace(self, host=host)

    def fork(self, base: Path) -> "Lab":
        """Store and machine as they are now, independent from here on."""
        return self.with_store(self.store.copy()).with_host(self.host.copy(base))

    def snapshot(
        self,
        *paths: Path,
        dataset: str = "data",
        workers: Workers | None = None,
        progress: Progress = NO_PROGRESS,
        **options: Any,
    ) -> SnapshotReport:
        """Take one; without workers every call happens in a fixed order."""
        request = SnapshotRequest(paths=paths, dataset=dataset, tool=TOOL, **options)
        with make_workers(0) as inline:
            report = take_snapshot(
                self.open(),
                self.host.key,
                request,
                cache_dir=self.host.cache,
                state_dir=self.host.state,
                workers=workers or inline,
                progress=progress,
            )
        if self.warm:
            self.open()
        return report

    def enrol(self, name: str, *, domain: str | None = None) -> Host:
        """One more machine, with its own key."""
        repository = self.open()
        key, request = request_key(
            repository, self.root_key.repository, name=name, datasets=["*"], domain=domain
        )
        add_writer(
            repository,
            request,
            self.root_key.enroller,
            recovery_key=lambda: self.recovery,
            share=domain,
            share_datasets=[each.name for each in repository.ledger.writers.values()],
            tool=TOOL,
        )
        base = self.base / name
        base.mkdir()
        return Host(key=key, base=base)

    def verify(self, *records: Record, keys: bool = True) -> VerifyReport:
        """Everything the snapshots need, read back; with the recovery key unless told otherwise."""
        repository = self.open()
        with make_workers(0) as workers:
            return verify_snapshots(
                repository,
                records or repository.ledger.snapshots(),
                recovery=self.recovery if keys else None,
                scratch=self.scratch,
                workers=workers,
            )

    def restore(
        self,
        record: Record,
        target: Path,
        *,
        repository: Repository | None = None,
        local: Local | None = None,
        fs: Fs | None = None,
        workers: Workers | None = None,
        course: Course | None = None,
        **options: Any,
    ) -> RestoreReport:
        """Restore a snapshot; without workers every call happens in a fixed order."""
        request = RestoreRequest(record=record, target=target, tool=TOOL, **options)
        with make_workers(0) as inline:
            return restore_snapshot(
                repository or self.open(),
                self.recovery,
                request,
                local=local or self.local,
                scratch=self.scratch,
                workers=workers or inline,
                fs=fs,
                course=course,
            )

    def finalize(self, target: Path, *, local: Local | None = None, **options: Any) -> Finalized:
        """Go on with a restore that is unfinished."""
        with make_workers(0) as workers:
            return finalize_restore(
                lambda: (self.open(), self.recovery),
                target,
                local=local or self.local,
                scratch=lambda: self.base,
                workers=workers,
                tool=TOOL,
                **options,
            )

    def verdicts(self) -> list[str]:
        """Of the restores that the ledger knows."""
        bodies = [record.body for record in self.open().ledger.valid("restore")]
        return [body.verdict for body in bodies if isinstance(body, EventBody)]

    def say(
        self,
        kind: str,
        about: int | Sequence[int],
        verdict: str = "passed",
        *,
        details: dict[str, Any] | None = None,
        bad: Sequence[str] = (),
        cleared: Sequence[str] = (),
        **claims: Any,
    ) -> int:
        """Attest an event of one or several snapshots; gives its number."""
        self.clock.advance(minutes=1)
        repository = self.open()
        ledger = repository.ledger
        covered = [about] if isinstance(about, int) else list(about)
        more: dict[str, Any] = dict(name_packs(bad, cleared))
        if kind == "verification":
            more |= {"share": 1_000_000, "opened": True, "read": 1, "through": repository.head.seq}
            more |= {"snapshots": snapshot_ranges(ledger.records, covered), **claims}
        attestation = attestations.attestation_of(
            repository,
            kind=kind,
            verdict=verdict,
            snapshot=ledger.records[about] if isinstance(about, int) else None,
            started=self.clock(),
            tool=TOOL,
            details={"bad_packs": list(bad), **(details or {})},
            claims=more,
        )
        data = attestations.sign(attestation, self.recovery.restorer)
        return attestations.record_attestation(
            repository, data, self.recovery.restorer, tool=TOOL
        ).seq

    def append_root(self, *, by: Signer | None = None, **changes: Any) -> Record:
        """Root N+1: the one in force with some members otherwise, signed by the root key."""
        repository = self.open()

        def draft(ledger: Ledger) -> Draft:
            body: RootBody = replace_body(ledger.root, version=ledger.root.version + 1, **changes)
            subject = [("repository", Digest.of(repository.id))]
            return Draft(type="root", subject=subject, body=body)

        return repository.append(draft, [by or self.root_key.root], tool=TOOL)

    def contents(self, record: Record) -> dict[str, bytes]:
        """Bytes of every file of a snapshot by path, put together from its packs."""
        with self._reader(record) as reader:
            return {
                os.fsdecode(entry.path): _content(reader, entry)
                for entry, _ in reader.tree()
                if entry.type is EntryType.FILE
            }

    def entries(self, record: Record) -> dict[str, Entry]:
        """Every entry of a snapshot by path."""
        with self._reader(record) as reader:
            return {os.fsdecode(entry.path): entry for entry, _ in reader.tree()}

    @contextlib.contextmanager
    def _reader(self, record: Record) -> Iterator[Reader]:
        scratch = self.base / "contents"
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir()
        reader = Reader(self.open(), self.recovery.recipient, record, scratch=scratch)
        with contextlib.closing(reader):
            reader.load_packs()
            yield reader


def _content(reader: Reader, entry: Entry) -> bytes:
    if not entry.size:
        return b""
    parts: list[bytes] = []
    for name in (name for ids in reader.chunks_of(entry) for name in ids):
        pack = reader.pack(reader.find(name).pack)
        place = next(place for place in pack.directory.iter_chunks() if place.id == name)
        ((_, raw),) = pack.blocks([place.block])
        parts.append(raw[place.offset : place.offset + place.length])
    data = b"".join(parts)
    for offset, length in entry.holes or ():
        data = data[:offset] + bytes(length) + data[offset:]
    assert hashlib.sha256(data).digest() == entry.sha256
    return data


def small_parameters(lock: LockMode, **changes: Any) -> Parameters:
    """Small trees make several packs, each of several blocks."""
    return Parameters(
        **{
            "lock_mode": lock,
            "data_chunk": (1024, 2048, 8192),
            "tree_chunk": (256, 512, 2048),
            "block_size": 8192,
            "pack_size": 24_576,
            **changes,
        }
    )


def make_lab(
    base: Path,
    clock: Clock,
    lock: LockMode = LockMode.NONE,
    *,
    store: ObjectStore | None = None,
    **changes: Any,
) -> Lab:
    """A repository with its first writer, in memory unless a store is given.

    Args:
        base: A directory for keys and hosts; made here.
        clock: Of the store, and of the lab's people.
        lock: Of what is stored.
        store: Where it is.
        **changes: Of `small_parameters`.
    """
    base.mkdir()
    store = store or MemoryStore(clock=clock)
    request = InitRequest(
        url=store.url,
        endpoint="",
        parameters=small_parameters(lock, **changes),
        host="first",
        keys=base / "keys",
        passphrase=PASSPHRASE,
        tool=TOOL,
        cost=CHEAP,
    )
    create_repository(store, request, clock=clock)
    return load_lab(base, store, clock)


def load_lab(base: Path, store: ObjectStore, clock: Clock) -> Lab:
    """From the key files that `create_repository` wrote."""
    key = load_writer(base / "keys/writer.key")
    home = base / "first"
    home.mkdir()
    return Lab(
        store=store,
        clock=clock,
        root=Digest.parse(key.repository.root),
        host=Host(key=key, base=home),
        root_key=load_root(base / "keys/root.key", PASSPHRASE),
        recovery=load_recovery(base / "keys/recovery.key", PASSPHRASE),
        base=base,
    )
