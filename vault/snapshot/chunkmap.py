"""What a host may believe of the chunk map, and how it learns it (I7, I10 of design.md 5).

Own PUTs are believed. Index objects are believed when a valid snapshot of a
trusted writer of the domain lists them. Once a writer is distrusted from a seq
on, nothing is believed that was listed between that seq and its revocation, by
anyone: an honest host may have merged the false rows into an index of its own.
"""

import dataclasses
import logging
import struct
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from vault import index
from vault.cache import Cache, PackRow
from vault.crypto import RecipientKey
from vault.errors import IntegrityError
from vault.index import IndexEntry
from vault.keyfile import DomainSecrets
from vault.ledger import Ledger, Record, Status
from vault.model import ObjectRef, SnapshotBody, WriterBody
from vault.pack import Directory
from vault.reader import PackReader, Reader
from vault.repository import Repository

_log = logging.getLogger(__name__)

_HEADER_LENGTH = struct.Struct("<I")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """An index object, and the snapshot that vouches for it."""

    ref: ObjectRef
    seq: int


def distrusted_spans(ledger: Ledger, domain: str) -> tuple[tuple[int, int], ...]:
    """Seqs between which what a domain's snapshots list is not believed: (first, last)."""
    spans = []
    for record in ledger.valid("writer"):
        body = record.body
        assert isinstance(body, WriterBody)
        if body.distrust_from is None:
            continue
        writers = (writer for writer in ledger.writers.values() if writer.name == body.name)
        if any(writer.domain is not None and writer.domain.name == domain for writer in writers):
            spans.append((body.distrust_from, record.seq))
    return tuple(spans)


def index_objects(repository: Repository, domain: str) -> list[Listed]:
    """Index objects of a domain that count, each once, by name."""
    ledger = repository.ledger
    trusted = ledger.domain_writers(domain)
    spans = distrusted_spans(ledger, domain)
    listed: dict[str, Listed] = {}
    for dataset in ledger.datasets():
        own = [
            record
            for record in ledger.snapshots(dataset)
            if record.key_id in trusted
            and not any(first <= record.seq <= last for first, last in spans)
        ]
        for ref in _index_of(repository, own[-1]) if own else ():
            listed[ref.name] = Listed(ref=ref, seq=own[-1].seq)
    return [listed[name] for name in sorted(listed)]


def _index_of(repository: Repository, record: Record) -> Sequence[ObjectRef]:
    try:
        return repository.inventory(record).index
    except IntegrityError as error:
        _log.warning("inventory of snapshot %d is unreadable: %s", record.seq, error)
        return ()


def refresh(repository: Repository, secrets: DomainSecrets, cache: Cache) -> frozenset[str]:
    """Learn of packs that this host did not store itself; forget what may not be relied on.

    Returns:
        Names of index objects that are missing or damaged: ignored, and not to be
        listed any more (I10).
    """
    for first, last in distrusted_spans(repository.ledger, secrets.name):
        if cache.drop_listed(first, last):
            cache.forget_indexes(cache.loaded_indexes())
    loaded = cache.loaded_indexes()
    bad = frozenset(
        listed.ref.name
        for listed in index_objects(repository, secrets.name)
        if listed.ref.name not in loaded and not _load(repository, secrets, cache, listed)
    )
    cache.drop_packs(_untrusted_packs(repository, cache))
    return bad


def _load(repository: Repository, secrets: DomainSecrets, cache: Cache, listed: Listed) -> bool:
    try:
        data = repository.read(listed.ref)
        entries = index.open_index(data, secrets.index_key, repository.id)
    except IntegrityError as error:
        _log.warning("%s is ignored: %s", listed.ref.name, error)
        return False
    cache.load_index(
        listed.ref.name,
        (
            (_row(entry, listed.seq), entry.directory.ids, entry.directory.lengths)
            for entry in entries
        ),
    )
    return True


def _row(entry: IndexEntry, seq: int) -> PackRow:
    return PackRow(
        pack_id=entry.pack_id,
        size=entry.size,
        version=entry.version,
        type=entry.type,
        listed_by=seq,
    )


# --- packs that may not be relied on ---


def _untrusted_packs(repository: Repository, cache: Cache) -> list[int]:
    """Packs that a prune plan names, or that only a distrusted writer vouches for."""
    doomed = {name.rpartition("/")[2] for name, _ in repository.planned_deletions()}
    doomed |= _distrusted_packs(repository)
    numbers = (cache.pack_number(bytes.fromhex(name)) for name in doomed if len(name) == 64)
    return [number for number in numbers if number is not None]


def _distrusted_packs(repository: Repository) -> set[str]:
    """Ids of packs that came with snapshots made void by ``distrust_from``."""
    ledger = repository.ledger
    distrusted: set[str] = set()
    for record in ledger.records:
        writer = ledger.writers.get(record.key_id)
        if (
            writer is not None
            and writer.distrust_from is not None
            and record.seq >= writer.distrust_from
            and isinstance(record.body, SnapshotBody)
        ):
            distrusted |= _packs_of(repository, record)
    for record in ledger.snapshots() if distrusted else ():
        distrusted -= _packs_of(repository, record)
    return distrusted


def _packs_of(repository: Repository, record: Record) -> set[str]:
    try:
        objects = repository.inventory(dataclasses.replace(record, status=Status.VALID)).objects
    except IntegrityError:
        return set()
    return {ref.name.rpartition("/")[2] for ref in objects if ref.name.startswith("packs/")}


# --- packs that no index object names ---


def keep_unindexed(cache: Cache, number: int, entry: IndexEntry) -> None:
    """Keep what an index object will say of a pack: a killed run stores none."""
    cache.add_unindexed(number, _HEADER_LENGTH.pack(entry.header_length) + entry.directory.encode())


def unindexed(cache: Cache) -> Iterator[tuple[int, IndexEntry]]:
    """Packs that no index object of this host names yet, by number."""
    for number, kept in cache.unindexed():
        row = cache.pack(number)
        assert row is not None
        (header_length,) = _HEADER_LENGTH.unpack_from(kept)
        yield (
            number,
            IndexEntry(
                pack_id=row.pack_id,
                size=row.size,
                type=row.type,
                version=row.version,
                header_length=header_length,
                directory=Directory.decode(kept[_HEADER_LENGTH.size :], header_length),
            ),
        )


def learn_from_packs(
    repository: Repository,
    secrets: DomainSecrets,
    cache: Cache,
    recipient: RecipientKey,
    *,
    scratch: Path,
) -> int:
    """Read the directories of packs that no index object told of; returns how many.

    The next snapshot writes index objects for them.

    Raises:
        WrongKeyError: The packs are not sealed to this key.
    """
    learned = 0
    trusted = repository.ledger.domain_writers(secrets.name)
    for record in reversed(repository.ledger.snapshots()):
        if record.key_id in trusted:
            learned += _learn(repository, secrets, cache, recipient, record, scratch)
    return learned


def _learn(  # noqa: PLR0917 - a step of the loop above
    repository: Repository,
    secrets: DomainSecrets,
    cache: Cache,
    recipient: RecipientKey,
    record: Record,
    scratch: Path,
) -> int:
    missing = list(_unknown_packs(repository, cache, record))
    if not missing:
        return 0
    reader = Reader(repository, recipient, record, scratch=scratch, use_index=False)
    try:
        for ref in missing:
            pack = PackReader(reader, ref, secrets.id_key)
            entry = pack.as_entry()
            number = cache.reserve_pack()
            cache.add_pack(
                number, _row(entry, record.seq), entry.directory.ids, entry.directory.lengths
            )
            keep_unindexed(cache, number, entry)
    finally:
        reader.close()
    return len(missing)


def _unknown_packs(repository: Repository, cache: Cache, record: Record) -> Iterable[ObjectRef]:
    try:
        objects = repository.inventory(record).objects
    except IntegrityError as error:
        _log.warning("inventory of snapshot %d is unreadable: %s", record.seq, error)
        return ()
    packs = (ref for ref in objects if ref.name.startswith("packs/"))
    return [ref for ref in packs if cache.pack_number(ref.sha256) is None]
