"""Which rows a host may have in its chunk map, and how it gets them (I7, I10, docs/invariants.md).

The host believes its own PUTs. It believes an index object if a valid snapshot of a trusted
writer of the domain lists it (`vault.repository.domain_packs`).
"""

import contextlib
import dataclasses
import logging
import struct
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from vault.crypto.key_files import DomainSecrets
from vault.crypto.keys import RecipientKey
from vault.errors import IntegrityError
from vault.format import pack_index
from vault.format.pack import Directory
from vault.format.pack_index import IndexEntry
from vault.ledger.records import Record, Status
from vault.ledger.statements import SnapshotBody
from vault.machine.chunk_cache import Cache, PackRow
from vault.model import ObjectRef
from vault.repository.domain_packs import Listed, distrusted_spans, index_objects
from vault.repository.pack_reader import PackReader
from vault.repository.reader import Reader
from vault.repository.repository import Repository
from vault.storage.names import is_pack, pack_digits

_log = logging.getLogger(__name__)

_HEADER_LENGTH = struct.Struct("<I")


def refresh(
    repository: Repository, secrets: DomainSecrets, cache: Cache, bad: Collection[str]
) -> frozenset[str]:
    """Enter packs that other hosts stored; drop packs that must not be relied on.

    Args:
        repository: Read up to its head.
        secrets: Those of the domain.
        cache: The chunk map of the domain.
        bad: Hex ids of packs that were found wrong (I7).

    Returns:
        Names of index objects that are missing or damaged. They are ignored, and the next
        snapshot must not list them (I10).
    """
    for first, last in distrusted_spans(repository.ledger, secrets.name):
        if cache.drop_listed(first, last):
            cache.forget_indexes(cache.loaded_indexes())
    loaded = cache.loaded_indexes()
    untrusted = _untrusted_packs(repository) | frozenset(bad)
    numbers = (cache.pack_number(bytes.fromhex(name)) for name in untrusted if len(name) == 64)
    cache.drop_packs([number for number in numbers if number is not None])
    return frozenset(
        listed.ref.name
        for listed in index_objects(repository, secrets.name)
        if listed.ref.name not in loaded
        and not _load(repository, secrets, cache, listed, untrusted)
    )


def _load(
    repository: Repository,
    secrets: DomainSecrets,
    cache: Cache,
    listed: Listed,
    untrusted: Collection[str],
) -> bool:
    """Enter the trusted packs of an index object; False if the object is damaged.

    The map keeps one place of each chunk, so this must be in a pack that may be relied on.
    """
    try:
        data = repository.read(listed.ref)
        entries = pack_index.open_index(data, secrets.index_key, repository.id)
    except IntegrityError as error:
        _log.warning("%s is ignored: %s", listed.ref.name, error)
        return False
    cache.load_index(
        listed.ref.name,
        (
            (_row(entry, listed.seq), entry.directory.ids, entry.directory.lengths)
            for entry in entries
            if entry.pack_id.hex() not in untrusted
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


def _untrusted_packs(repository: Repository) -> set[str]:
    """Ids of packs that a prune plan names, or that only a distrusted writer listed."""
    doomed = {name.rpartition("/")[2] for name, _ in repository.plans.doomed()}
    return doomed | _distrusted_packs(repository)


def _distrusted_packs(repository: Repository) -> set[str]:
    """Ids of packs of snapshots that ``distrust_from`` made void."""
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
    return {pack_digits(ref.name) for ref in objects if is_pack(ref.name)}


# --- packs that no index object names ---


def keep_unindexed(cache: Cache, number: int, entry: IndexEntry) -> None:
    """Keep the entry of a pack for an index object, as a run that is killed stores none."""
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
    bad: Collection[str],
    scratch: Path,
) -> int:
    """Read the directories of packs that are in no index object; returns their number.

    The next snapshot writes index objects for them. Bad packs, and packs that can't be read,
    are skipped.

    Raises:
        WrongKeyError: The packs are not sealed to this key.
    """
    learned = 0
    trusted = repository.ledger.domain_writers(secrets.name)
    for record in reversed(repository.ledger.snapshots()):
        if record.key_id in trusted:
            missing = [
                ref
                for ref in _unknown_packs(repository, cache, record)
                if ref.sha256.hex() not in bad
            ]
            if not missing:
                continue
            reader = Reader(repository, recipient, record, scratch=scratch, use_index=False)
            with contextlib.closing(reader):
                learned += sum(_learn(reader, ref, secrets, cache) for ref in missing)
    return learned


def _learn(reader: Reader, ref: ObjectRef, secrets: DomainSecrets, cache: Cache) -> bool:
    try:
        entry = PackReader(reader, ref, secrets.id_key).as_entry()
    except IntegrityError as error:
        _log.warning("%s is left out: %s", ref.name, error)
        return False
    number = cache.reserve_pack()
    row = _row(entry, reader.record.seq)
    cache.add_pack(number, row, entry.directory.ids, entry.directory.lengths)
    keep_unindexed(cache, number, entry)
    return True


def _unknown_packs(repository: Repository, cache: Cache, record: Record) -> Iterable[ObjectRef]:
    inventory = repository.usable_inventory(record)
    objects = () if inventory is None else inventory.objects
    packs = (ref for ref in objects if is_pack(ref.name))
    return [ref for ref in packs if cache.pack_number(ref.sha256) is None]
