"""Trees as no honest writer makes them: published with the keys of a host and no check."""

import dataclasses
import hashlib
import hmac
import os
import struct
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, TypeAlias

import msgspec

from vault.crypto.key_files import WriterKey
from vault.crypto.keys import chunk_id
from vault.crypto.sealed import Sealer, Session
from vault.format import inventory
from vault.format.content_root import ContentRoot, commitment
from vault.format.entry import Entry
from vault.format.entry_encoding import encode_canonical, encode_extra, frame
from vault.format.pack import PackWriter
from vault.format.tree import TreeHeader, encode_header
from vault.ledger.records import Record
from vault.ledger.statements import Counts, InventoryRef, SnapshotBody, TreeRef
from vault.model import Digest, EntryType, LockMode, ObjectRef, ObjectType
from vault.repository.append_statements import Draft
from vault.repository.repository import Repository, domain_ref

Fields: TypeAlias = tuple[Any, ...]

_SECRET = b"k" * 32


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


class Forger:
    """Publishes what a test asks for, right or wrong.

    Args:
        repository: Read up to its head.
        key: Of the host.
        dataset: Whose snapshots they are.
    """

    def __init__(self, repository: Repository, key: WriterKey, *, dataset: str = "data") -> None:
        assert key.domain is not None
        self.repository = repository
        self.key = key
        self.dataset = dataset
        self.id_key = key.domain.id_key
        self.session = Session.new(repository.id, repository.ledger.recipients)
        self.refs: list[ObjectRef] = []  # what the next manifest needs

    def id_of(self, chunk: bytes, kind: ObjectType = ObjectType.DATA) -> bytes:
        """The id of a chunk."""
        return bytes(chunk_id(self.id_key, kind, hashlib.sha256(chunk).digest()))

    def store(self, kind: ObjectType, chunks: Sequence[bytes]) -> list[bytes]:
        """One pack of one block; gives the ids of its chunks."""
        writer = PackWriter(Sealer.for_session(self.session, kind, self.repository.id), 3)
        ids = [self.id_of(chunk, kind) for chunk in chunks]
        lengths = list(map(len, chunks))
        writer.add(writer.seal_block(writer.next_counter(), b"".join(chunks), ids, lengths))
        pack = writer.finish()
        name = f"packs/{str(pack.pack_id)[:2]}/{pack.pack_id}"
        self.refs.append(self.repository.put(name, pack.data, self.repository.clock()).ref)
        return ids

    def publish(self, tree: TreeRef) -> Record:
        """The manifest over everything stored so far."""
        writer = self.repository.ledger.writers[self.key.signing.public.id]
        assert writer.domain is not None
        needs = [*self.refs, domain_ref(writer.domain)]
        text = inventory.encode(needs)
        name = f"inventory/{Digest.of(text)}"
        ref = self.repository.put(name, text, self.repository.clock()).ref
        now = self.repository.clock()
        body = SnapshotBody(
            dataset=self.dataset,
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
        return self.repository.append(lambda _: draft, [self.key.signing], tool="forger")

    def publish_entries(self, entries: Sequence[Entry], *, level: int = 0) -> Record:
        """A tree of one chunk, with the right commitment."""
        root = ContentRoot()
        stream = encode_header(TreeHeader(key=_SECRET, relative=True, sources=(b"/source",)))
        for entry in entries:
            canonical = encode_canonical(entry)
            root.update(canonical)
            stream += frame(canonical, encode_extra(entry))
        return self.publish_stream(stream, commitment(_SECRET, root.digest()), level=level)

    def publish_stream(self, stream: bytes, signed: bytes, *, level: int = 0) -> Record:
        """Any bytes as a tree."""
        (name,) = self.store(ObjectType.TREE, [stream])
        return self.publish(TreeRef(id=name.hex(), level=level, commitment=signed.hex()))


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
    """Publish a tree of entries that no `Entry` can hold.

    Args:
        repository: Read up to its head.
        key: Of the host.
        entries: In this order; bytes are put into the stream as they are.
        data: Chunks of files.
        dataset: Whose snapshot it is.
        cuts: Numbers of entries at which a new chunk of the tree, in a pack of its own, begins.
    """
    forger = Forger(repository, key, dataset=dataset)
    if data:
        forger.store(ObjectType.DATA, data)
    root = hashlib.sha256()
    header = msgspec.msgpack.encode((_SECRET, True, (b"/source",)))
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
    ids = [forger.store(ObjectType.TREE, [chunk])[0] for chunk in chunks]
    packs = tuple(ref.name for ref in forger.refs)
    level = 0
    if len(ids) > 1:
        level, ids = 1, forger.store(ObjectType.TREE, [b"".join(ids)])
    signed = hmac.digest(_SECRET, root.digest(), "sha256").hex()
    record = forger.publish(TreeRef(id=ids[0].hex(), level=level, commitment=signed))
    return ForgedTree(record=record, packs=packs)
