"""What tests of whole operations share: a clock, a repository with its keys, small sources."""

import base64
import contextlib
import dataclasses
import hashlib
import hmac
import json
import os
import random
import shutil
import signal
import struct
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeAlias

import msgspec
import pytest

from vault.crypto.keyfiles import (
    Argon2Cost,
    RecoveryKey,
    RootKey,
    WriterKey,
    load_recovery,
    load_root,
    load_writer,
)
from vault.crypto.keys import chunk_id
from vault.crypto.sealed import Sealer, Session
from vault.format import inventory
from vault.format.entry import Entry
from vault.format.pack import PackWriter
from vault.ledger.kinds import name_packs
from vault.ledger.records import Record
from vault.ledger.remembered import LedgerMemory
from vault.ledger.statements import Counts, InventoryRef, SnapshotBody, TreeRef
from vault.machine.workers import Workers, make_workers
from vault.model import (
    Digest,
    EntryType,
    LockMode,
    ObjectRef,
    ObjectType,
    Parameters,
    Retention,
    from_rfc3339,
)
from vault.repository import attestations
from vault.repository.enrolment import (
    InitRequest,
    add_writer,
    create_repository,
    request_key,
)
from vault.repository.log import Draft
from vault.repository.reader import Reader
from vault.repository.repository import Repository, domain_ref
from vault.restore import Local
from vault.snapshot import SnapshotReport, SnapshotRequest, take_snapshot
from vault.storage.base import ObjectStore, ObjectVersion
from vault.storage.memory import MemoryStore
from vault.verify import VerifyReport, verify_snapshots

START = datetime(2030, 1, 1, tzinfo=UTC)  # after every real mtime: nothing written is "racy"
PASSPHRASE = b"correct horse"
TOOL = "vault test"
CHEAP = Argon2Cost(memory=64, iterations=1, lanes=1)

Tree: TypeAlias = Mapping[str, bytes]
MakeSource: TypeAlias = Callable[..., Path]


def pytest_configure() -> None:
    """Let programs under test be stopped by signals, also where this run ignores them (nohup).

    A program that is started inherits what is ignored, and not what is caught.
    """
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, lambda *_: None)


class Clock:
    """A clock that moves when it is told to."""

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
            self.root_key,
            recovery_key=lambda: self.recovery,
            share=domain,
            tool=TOOL,
        )
        base = self.base / name
        base.mkdir()
        return Host(key=key, base=base)

    def verify(self, *records: Record, keys: bool = True) -> VerifyReport:
        """Everything the snapshots need, read back; with the recovery key unless told otherwise."""
        repository = self.open()
        scratch = self.base / "scratch"
        scratch.mkdir(exist_ok=True)
        with make_workers(0) as workers:
            return verify_snapshots(
                repository,
                records or repository.ledger.snapshots(),
                recovery=self.recovery if keys else None,
                scratch=scratch,
                workers=workers,
            )

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
            more |= {"snapshots": ledger.ranges(covered), **claims}
        attestation = attestations.attestation_of(
            repository,
            kind=kind,
            verdict=verdict,
            snapshot=ledger.records[about] if isinstance(about, int) else None,
            started=self.clock(),
            tool="vault test",
            details={"bad_packs": list(bad), **(details or {})},
            claims=more,
        )
        data = attestations.sign(attestation, self.recovery.restorer)
        return attestations.record_attestation(
            repository, data, self.recovery.restorer, tool="vault test"
        ).seq

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


def on_disk(top: Path) -> dict[str, bytes]:
    """Bytes of every regular file below a directory, by path."""
    return {
        str(path.relative_to(top)): path.read_bytes()
        for path in top.rglob("*")
        if path.is_file() and not path.is_symlink()
    }


MakeRepository: TypeAlias = Callable[..., Lab]
AssertInvariants: TypeAlias = Callable[..., int]


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


@pytest.fixture(scope="session", autouse=True)
def _removable(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Locked objects in directories may be immutable: nobody could clean up.

    See docs/design.md "Stores".
    """
    yield
    if shutil.which("chattr") is not None:
        place = str(tmp_path_factory.getbasetemp())
        subprocess.run(["chattr", "-R", "-f", "-i", place], check=False, capture_output=True)


@pytest.fixture
def clock() -> Clock:
    """A clock for the store and for everybody else."""
    return Clock()


@pytest.fixture
def make_repository(tmp_path: Path, clock: Clock) -> MakeRepository:
    """Makes a repository with its first writer; ``store`` and parameters as given."""

    def make(
        lock: LockMode = LockMode.NONE,
        *,
        name: str = "lab",
        store: ObjectStore | None = None,
        **changes: Any,
    ) -> Lab:
        base = tmp_path / name
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

    return make


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


@pytest.fixture
def make_source(tmp_path: Path) -> MakeSource:
    """Makes a directory of files with bytes that neither compress nor repeat."""

    def make(name: str = "source", *, files: int = 6, size: int = 12_000, seed: int = 1) -> Path:
        top = tmp_path / name
        generator = random.Random(seed)
        for number in range(files):
            file = top / f"dir{number % 2}" / f"file{number}"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(generator.randbytes(size))
        (top / "empty").touch()
        (top / "link").symlink_to("dir0/file0")
        return top

    return make


@pytest.fixture
def files_of() -> Callable[[Path], dict[str, bytes]]:
    """Bytes of the files below a directory, as `Lab.contents` gives those of a snapshot."""
    return on_disk


# --- trees as no honest writer makes them ---

Fields: TypeAlias = tuple[Any, ...]


def forged_entry(
    path: bytes,
    kind: int = EntryType.FILE,
    *,
    data: bytes = b"",
    mode: int = 0o755,
    xattrs: Any = None,
    link: Any = None,
    chunks: bytes = b"",
    ctime: int = 0,
    holes: Any = None,
    **changes: Any,
) -> tuple[Fields, Fields]:
    """Canonical and extra part of an entry as plain values; whatever they are, it is encoded."""
    is_file = kind == EntryType.FILE
    canonical: dict[str, Any] = {
        "path": path,
        "type": int(kind),
        "mode": mode,
        "uid": os.geteuid(),
        "gid": os.getegid(),
        "mtime": 10**18,
        "size": len(data),
        "sha256": hashlib.sha256(data).digest() if is_file else None,
        "link": link,
        "device": None,
        "xattrs": xattrs,
    }
    canonical |= changes
    return tuple(canonical.values()), (chunks, "", "", ctime, holes)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ForgedTree:
    """What `forge_snapshot` published."""

    record: Record
    packs: tuple[str, ...]  # names: the one with data, then those of the tree, a chunk each


def forge_snapshot(
    repository: Repository,
    key: WriterKey,
    entries: Sequence[tuple[Fields, Fields] | bytes],
    *,
    data: Sequence[bytes] = (),
    dataset: str = "data",
    cuts: Sequence[int] = (),
) -> ForgedTree:
    """Publish a tree with the keys of a host and none of the writer's checks.

    Args:
        repository: Read up to its head.
        key: Of the host.
        entries: In this order; bytes are put into the stream as they are.
        data: Chunks of files.
        dataset: Whose snapshot it is.
        cuts: Numbers of entries at which a new chunk of the tree, in a pack of its own, begins.
    """
    assert key.domain is not None
    id_key = key.domain.id_key
    session = Session.new(repository.id, repository.ledger.recipients)
    refs: list[ObjectRef] = []

    def store(kind: ObjectType, chunks: Sequence[bytes]) -> list[bytes]:
        ids = [bytes(chunk_id(id_key, kind, hashlib.sha256(c).digest())) for c in chunks]
        writer = PackWriter(Sealer.for_session(session, kind, repository.id), 3)
        lengths = list(map(len, chunks))
        writer.add(writer.seal_block(writer.next_counter(), b"".join(chunks), ids, lengths))
        pack = writer.finish()
        name = f"packs/{str(pack.pack_id)[:2]}/{pack.pack_id}"
        refs.append(repository.put(name, pack.data, repository.clock()).ref)
        return ids

    if data:
        store(ObjectType.DATA, list(data))
    root, secret = hashlib.sha256(), b"k" * 32
    header = msgspec.msgpack.encode((secret, True, (b"/source",)))
    chunks = [b"VAULTTR1" + struct.pack("<I", len(header)) + header]
    for number, entry in enumerate(entries):
        if number in cuts:
            chunks.append(b"")
        if isinstance(entry, bytes):
            chunks[-1] += entry
            continue
        canonical, extra = map(msgspec.msgpack.encode, entry)
        root.update(canonical)
        chunks[-1] += struct.pack("<II", len(canonical), len(extra)) + canonical + extra
    ids = [store(ObjectType.TREE, [chunk])[0] for chunk in chunks]
    packs = tuple(ref.name for ref in refs)
    level = 0
    if len(ids) > 1:
        level, ids = 1, store(ObjectType.TREE, [b"".join(ids)])
    record = _publish(
        repository,
        key,
        refs,
        TreeRef(
            id=ids[0].hex(),
            level=level,
            commitment=hmac.digest(secret, root.digest(), "sha256").hex(),
        ),
        dataset,
    )
    return ForgedTree(record=record, packs=packs)


def _publish(
    repository: Repository, key: WriterKey, refs: list[ObjectRef], tree: TreeRef, dataset: str
) -> Record:
    writer = repository.ledger.writers[key.signing.public.id]
    assert writer.domain is not None
    needs = [*refs, domain_ref(writer.domain)]
    text = inventory.encode(needs)
    name = f"inventory/{Digest.of(text)}"
    ref = repository.put(name, text, repository.clock()).ref
    now = repository.clock()
    body = SnapshotBody(
        dataset=dataset,
        created=now,
        complete=True,
        counts=Counts(),
        tree=tree,
        inventory=InventoryRef(
            sha256=str(ref.sha256),
            size=ref.size,
            version=ref.version,
            objects=len(needs),
            bytes=sum(each.size for each in needs),
        ),
        mode=LockMode.NONE,
        until=now + timedelta(days=20),
    )
    draft = Draft(type="snapshot", subject=[(name, ref.sha256)], body=body)
    return repository.append(lambda _: draft, [key.signing], tool="forger")


@pytest.fixture
def forge() -> Callable[..., ForgedTree]:
    """Publishes trees without the writer's checks; see `forge_snapshot`."""
    return forge_snapshot


@pytest.fixture
def entry() -> Callable[..., tuple[Fields, Fields]]:
    """Makes an entry of such a tree; see `forged_entry`."""
    return forged_entry


# --- the invariants, by other means than the vault's own ---


@pytest.fixture
def assert_invariants() -> AssertInvariants:
    """Checks I1, I2 and I3 of a whole store; gives the number of snapshots."""
    return check_store


def check_store(
    store: ObjectStore,
    root: Digest,
    *,
    before: Sequence[ObjectVersion] = (),
    void: Sequence[int] = (),
) -> int:
    """See `assert_invariants`.

    Args:
        store: What to look at.
        root: Digest of statement 0.
        before: Versions that were there earlier, and must be there still.
        void: Snapshots by seq that don't count.
    """
    listed = list(store.versions(""))
    assert set(before) <= set(listed), "something stored was lost"
    _check_contents(store, listed)
    chain = _chain(store, [item for item in listed if item.name.startswith("ledger/")], root)
    parameters = chain[0][1]["predicate"]["body"]["parameters"]
    enrolments = [
        statement["predicate"]["body"]
        for _, statement in chain
        if statement["predicateType"] == "urn:vault:writer:v1"
    ]
    snapshots = 0
    for seq, (_, statement) in enumerate(chain):
        if statement["predicateType"] != "urn:vault:snapshot:v1" or seq in void:
            continue
        snapshots += 1
        body = statement["predicate"]["body"]
        needs = _needs(store, body["inventory"])
        assert any(
            enrolled["domain"]["sha256"] == line[0] for enrolled in enrolments for line in needs
        ), "the domain object is no need"
        assert any(line[3].startswith("packs/") for line in needs)
        for sha256, size, version, name in needs:
            data = store.get(name, version)
            assert len(data) == int(size), name
            assert hashlib.sha256(data).hexdigest() == sha256, name
            _check_lock(store, name, version, parameters, from_rfc3339(body["until"]))
        for item, _ in chain[: seq + 1]:
            _check_lock(store, item.name, item.version, parameters, from_rfc3339(body["until"]))
    _check_ledger_term(store, chain, parameters)
    return snapshots


def _check_contents(store: ObjectStore, listed: Sequence[ObjectVersion]) -> None:
    """What claims a digest in its name has it: no torn or replaced object."""
    for item in listed:
        name = item.name.rpartition("/")[2]
        if not item.name.startswith(("ledger/", "ledger-page/", "probe/")):
            found = hashlib.sha256(store.get(item.name, item.version)).hexdigest()
            assert found == name, item.name


def _chain(
    store: ObjectStore, listed: Sequence[ObjectVersion], root: Digest
) -> list[tuple[ObjectVersion, dict[str, Any]]]:
    """Owner and statement of every seq: the oldest version that follows the one before."""
    chain: list[tuple[ObjectVersion, dict[str, Any]]] = []
    expected = str(root)
    while True:
        name = f"ledger/{len(chain):016d}"
        for item in (item for item in listed if item.name == name):
            digest, statement = _statement(store.get(item.name, item.version))
            prev = (statement["predicate"]["prev"] or {}).get("sha256")
            if (prev == expected) if chain else (digest == expected):
                chain.append((item, statement))
                expected = digest
                break
        else:
            break
    assert chain, "no chain from the pinned root"
    assert {item.name for item in listed} == {item.name for item, _ in chain}, "orphans"
    return chain


def _statement(envelope: bytes) -> tuple[str, dict[str, Any]]:
    fields = json.loads(envelope)
    payload = base64.b64decode(fields["payload"])
    kind = fields["payloadType"].encode()
    pae = b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)
    return hashlib.sha256(pae).hexdigest(), json.loads(payload)


def _needs(store: ObjectStore, inventory: Mapping[str, Any]) -> list[list[str]]:
    """Lines of everything needed, the inventory and its bases among them."""
    name = f"inventory/{inventory['sha256']}"
    own = [inventory["sha256"], str(inventory["size"]), inventory["version"], name]
    chain = [own]
    texts: list[list[str]] = []
    while len(texts) < len(chain):
        lines = store.get(chain[-1][3], chain[-1][2]).decode().splitlines()
        texts.append(lines)
        chain += [line[7:].split("\t") for line in lines if line.startswith("# base ")]
    needed: set[tuple[str, ...]] = set()
    for lines in reversed(texts):
        end = lines.index("# index") if "# index" in lines else len(lines)
        for line in lines[:end]:
            if line.startswith("-"):
                needed.remove(tuple(line[1:].split("\t")))
            elif not line.startswith("#"):
                needed.add(tuple(line.split("\t")))
    assert len(needed) == inventory["objects"]
    assert sum(int(line[1]) for line in needed) == inventory["bytes"]
    return [*chain, *map(list, sorted(needed))]


def _retention(store: ObjectStore, name: str, version: str) -> Retention:
    retention = store.status(name, version).retention
    assert retention is not None, f"{name} carries no lock"
    return retention


def _check_lock(
    store: ObjectStore, name: str, version: str, parameters: Mapping[str, Any], until: datetime
) -> None:
    if parameters["lock_mode"] == "none":
        return
    retention = _retention(store, name, version)
    assert retention.mode == parameters["lock_mode"]
    assert retention.until >= until, f"{name} is locked until {retention.until}, needed {until}"


def _check_ledger_term(
    store: ObjectStore,
    chain: Sequence[tuple[ObjectVersion, Mapping[str, Any]]],
    parameters: Mapping[str, Any],
) -> None:
    term = timedelta(seconds=2 * (parameters["max_retention"] + 30 * 86_400))
    for item, _ in chain:
        _check_lock(store, item.name, item.version, parameters, item.modified + term)
