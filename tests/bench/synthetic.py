"""Large repositories without the years it takes to fill one: ledgers and chunk maps, generated.

Every statement is signed and would be accepted from anybody; every row of a chunk map has a true
check. Only what they speak of was never stored.
"""

import hashlib
import os
import random
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

from vault.clock import to_rfc3339
from vault.crypto.key_files import WriterKey, load_writer
from vault.ledger.envelope import Head, build_statement, parse_envelope, seal_envelope
from vault.ledger.statements import HeartbeatBody
from vault.machine.chunk_cache import Cache, PackRow
from vault.machine.workers import make_workers
from vault.model import Digest, ObjectType, PackId, replace_body
from vault.repository.repository import Repository, snapshot_body
from vault.snapshot import SnapshotRequest, take_snapshot
from vault.storage.local import LocalStore
from vault.storage.memory import MemoryStore
from vault.storage.names import ledger_name

CHUNKS_A_PACK = 32  # 32 MiB packs of chunks of 1 MiB on average
TEXT = b"%08d the quick brown fox jumps over the lazy dog\n"


def grow_ledger(path: Path, root: Digest, key: WriterKey, count: int) -> None:
    """Give the ledger in a directory ``count`` statements: its newest snapshot, published daily.

    Args:
        path: The repository; its ledger must have a snapshot.
        root: Digest of statement 0.
        key: Of the writer of that snapshot.
        count: Statements afterwards, if there are not more already.
    """
    store = LocalStore(path)
    repository = Repository.open(store, root, clock=store.now)
    ledger = repository.ledger
    last = ledger.snapshots()[-1]
    body = snapshot_body(last)
    names = [(f"inventory/{body.inventory.sha256}", Digest.parse(body.inventory.sha256))]
    head, time = repository.head, last.time
    assert time is not None
    for seq in range(head.seq + 1, count):
        time += timedelta(seconds=1)
        payload = build_statement(
            type="snapshot",
            repository=ledger.repository_id,
            seq=seq,
            prev=head,
            time=time,
            tool="bench",
            subject=names,
            body=replace_body(body, created=to_rfc3339(time), previous=head.seq),
            by=[key.signing.public.id],
        )
        envelope = seal_envelope(payload, [key.signing])
        (path / ledger_name(seq)).write_bytes(envelope)
        version = f"1-{hashlib.sha256(envelope).hexdigest()}"
        head = ledger.link(envelope, version=version, modified=time).head


def fill_cache(cache: Cache, chunks: int, *, seed: int = 1) -> None:
    """Enter packs of random chunk ids, as a cold client does that reads a large index."""
    generator = random.Random(seed)
    packs = chunks // CHUNKS_A_PACK
    for first in range(0, packs, 2048):
        some = min(2048, packs - first)
        cache.load_index(f"index/{first}", [_pack(generator) for _ in range(some)])


def _pack(generator: random.Random) -> tuple[PackRow, bytes, list[int]]:
    row = PackRow(
        pack_id=PackId(generator.randbytes(32)),
        size=32 << 20,
        version=f"1-{generator.randbytes(32).hex()}",
        type=ObjectType.DATA,
    )
    ids = generator.randbytes(32 * CHUNKS_A_PACK)
    return row, ids, [1 << 20] * CHUNKS_A_PACK


def chunk_ids(chunks: int, *, seed: int = 1) -> Iterator[bytes]:
    """The ids that `fill_cache` entered, in its order."""
    generator = random.Random(seed)
    for _ in range(chunks // CHUNKS_A_PACK):
        _, ids, _ = _pack(generator)
        yield from (ids[at : at + 32] for at in range(0, len(ids), 32))


def make_files(top: Path, count: int, *, size: int = 200, per_directory: int = 100) -> None:
    """Small files, each with content of its own."""
    for start in range(0, count, per_directory):
        directory = top / f"{start // per_directory // 100:04}" / f"{start:08}"
        directory.mkdir(parents=True)
        for number in range(start, min(start + per_directory, count)):
            text = (TEXT % number) * (size // len(TEXT % number) + 1)
            fd = os.open(directory / f"{number:08}.txt", os.O_WRONLY | os.O_CREAT, 0o644)
            os.write(fd, text[:size])
            os.close(fd)


def make_data(path: Path, size: int, *, seed: bytes = b"") -> None:
    """One file, half of it incompressible, no two mebibytes alike."""
    half = 1 << 19
    with path.open("wb") as file:
        for number in range(size >> 20):
            noise = hashlib.shake_128(seed + number.to_bytes(8, "big")).digest(half)
            line = TEXT % number
            file.write(noise + (line * (half // len(line) + 1))[:half])


def take_many(
    path: Path, keys: Path, tree: Path, dataset: str, count: int, *, state: Path, cache: Path
) -> None:
    """Take snapshots until the dataset has ``count``; one file changes each time."""
    key, root = writer_of(keys)
    store = LocalStore(path)
    file = next(tree.rglob("*.txt"))
    while True:
        repository = Repository.open(store, root, clock=store.now)
        taken = len(repository.ledger.snapshots(dataset))
        if taken >= count:
            return
        file.write_text(f"change {taken}\n")
        request = SnapshotRequest(paths=[tree], dataset=dataset, tool="bench")
        with make_workers(1) as workers:
            take_snapshot(
                repository, key, request, cache_dir=cache, state_dir=state, workers=workers
            )


def writer_of(keys: Path) -> tuple[WriterKey, Digest]:
    """The writer key in a directory of key files, and the pinned root."""
    key = load_writer(keys / "writer.key")
    return key, Digest.parse(key.repository.root)


def heartbeats(store: MemoryStore, root: Digest, key: WriterKey, count: int) -> list[bytes]:
    """Give the ledger of a store in memory ``count`` statements, of heartbeats; gives all of them.

    Args:
        store: Of a repository.
        root: Digest of statement 0.
        key: Of a writer of it.
        count: Statements afterwards.
    """
    read = Repository.open(store, root, clock=store.now)
    envelopes = [store.get(ledger_name(seq)) for seq in range(read.head.seq + 1)]
    prev = read.head
    while len(envelopes) < count:
        payload = build_statement(
            type="heartbeat",
            repository=read.ledger.repository_id,
            seq=len(envelopes),
            prev=prev,
            time=store.now(),
            tool="bench",
            subject=[],
            body=HeartbeatBody(note="alive"),
            by=[key.signing.public.id],
        )
        envelopes.append(seal_envelope(payload, [key.signing]))
        prev = Head(seq=len(envelopes) - 1, digest=parse_envelope(envelopes[-1]).digest)
        store.plant(ledger_name(prev.seq), envelopes[-1])
    return envelopes
