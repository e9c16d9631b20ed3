"""Packs in which a reader may find chunks: by index objects, and by other snapshots of the domain.

Nothing here is believed: each chunk's id is checked as its block is opened.
"""

import logging
from collections.abc import Collection, Iterator

from vault.crypto.key_files import DomainSecrets
from vault.errors import IntegrityError
from vault.format import pack_index
from vault.format.inventory import Inventory, Resolver
from vault.format.pack_index import IndexEntry
from vault.ledger.records import Record
from vault.model import Digest, ObjectRef
from vault.repository.domain_packs import indexed_packs, snapshots_of
from vault.repository.pack_reader import UNREADABLE, PackOpener, PackReader
from vault.repository.repository import Repository
from vault.storage.names import is_pack, pack_name

_log = logging.getLogger(__name__)


def index_entries(
    repository: Repository, inventory: Inventory, index_key: bytes
) -> Iterator[IndexEntry]:
    """The entries of index objects, one object at a time; a damaged object is skipped."""
    for ref in inventory.index:
        try:
            data = repository.read(ref)
            entries = pack_index.open_index(data, index_key, repository.id)
        except IntegrityError as error:
            _log.warning("%s is ignored: %s", ref.name, error)
            continue
        yield from entries


def other_packs(
    opener: PackOpener,
    repository: Repository,
    record: Record,
    inventory: Inventory,
    secrets: DomainSecrets,
) -> Iterator[PackReader]:
    """Packs of the domain that the snapshot does not need; those called bad come last."""
    own = {ref.name for ref in inventory.objects}
    doubted = repository.ledger.bad_packs()
    last: list[PackReader] = []
    seen: set[bytes] = set()
    for entry in indexed_packs(repository, secrets):
        ref = _ref_of(entry)
        if ref.name in own or entry.pack_id in seen:
            continue
        seen.add(entry.pack_id)
        pack = PackReader(opener, ref, secrets.id_key, entry=entry)
        if ref.sha256.hex() in doubted:
            last.append(pack)
        else:
            yield pack
    yield from _unindexed_packs(
        opener, repository, record, secrets, own, seen=seen, doubted=doubted
    )
    yield from last


def _unindexed_packs(
    opener: PackOpener,
    repository: Repository,
    record: Record,
    secrets: DomainSecrets,
    own: Collection[str],
    *,
    seen: Collection[bytes],
    doubted: Collection[str],
) -> Iterator[PackReader]:
    """Packs of later snapshots that are in no index object, as far as they can be read."""
    known = set(seen)
    resolver = Resolver(repository.read)
    for later in reversed(snapshots_of(repository.ledger, secrets.name)):
        if later.seq <= record.seq:
            return
        try:
            objects = resolver.resolve(repository.inventory_ref(later)).objects
        except IntegrityError as error:
            _log.warning("inventory of snapshot %d is unreadable: %s", later.seq, error)
            continue
        for ref in objects:
            if not is_pack(ref.name) or ref.name in own or ref.sha256 in known:
                continue
            known.add(ref.sha256)
            if ref.sha256.hex() in doubted:
                continue
            try:
                yield PackReader(opener, ref, secrets.id_key)
            except UNREADABLE as error:
                _log.warning("%s is no substitute: %s", ref.name, error)


def _ref_of(entry: IndexEntry) -> ObjectRef:
    return ObjectRef(
        name=pack_name(entry.pack_id),
        sha256=Digest(entry.pack_id),
        size=entry.size,
        version=entry.version,
    )
