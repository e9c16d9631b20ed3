"""Publishes a snapshot whose packs are stored: I1, I2, I3, I4 and I7 (docs/invariants.md).

Order of writes: index objects, inventory, locks of everything needed, manifest.
"""

import contextlib
import dataclasses
import logging
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta

from vault import retention as locking
from vault.crypto.key_files import DomainSecrets, WriterKey
from vault.errors import (
    IntegrityError,
    LedgerMovedError,
    MissingObjectError,
    ObjectNotFoundError,
    RetentionError,
)
from vault.format import inventory, pack_index
from vault.format.inventory import Inventory
from vault.format.pack_index import IndexEntry
from vault.ledger.chain import Ledger
from vault.ledger.records import Record
from vault.ledger.statements import (
    DomainRef,
    InventoryRef,
    RetentionTerms,
    SnapshotBody,
    StatementType,
)
from vault.machine.chunk_cache import Cache, PackRow
from vault.machine.workers import Workers
from vault.model import Digest, LockMode, ObjectRef, replace_body
from vault.repository.append_statements import Draft
from vault.repository.domain_packs import distrusted_spans, index_objects
from vault.repository.repository import Repository, domain_ref, read_domain
from vault.retention import KeptFor
from vault.snapshot.bad_pack_substitutes import Mending
from vault.snapshot.snapshot_request import Keeper
from vault.storage.names import PACKS, index_name, inventory_name, pack_name

_log = logging.getLogger(__name__)

_MAX_GROWTHS = 3  # times that a longer retention is locked anew
INDEX_PACKS = 64  # packs in one new index object (docs/design.md "Objects")
INDEX_SIZE = 8 << 20  # raw bytes of one, of which memory holds a few copies


class _RetentionGrewError(Exception):
    """Statements came in between after which the snapshot must be kept longer than was locked."""


class PacksGoneError(Exception):
    """Packs that this run relies on are absent to writers (I7); the run starts again."""

    def __init__(self, numbers: Iterable[int]) -> None:
        super().__init__("reused packs are gone")
        self.numbers = tuple(numbers)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class NeededPack:
    """A pack of the snapshot, as the cache knows it."""

    number: int
    row: PackRow

    @property
    def ref(self) -> ObjectRef:
        """The pack as an inventory names it."""
        return ObjectRef(
            name=pack_name(self.row.pack_id),
            sha256=Digest(self.row.pack_id),
            size=self.row.size,
            version=self.row.version,
        )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Publication:
    """The result of a finished run, to be published."""

    body: SnapshotBody  # the publisher fills in inventory, until and previous
    packs: Sequence[NeededPack]
    stored: frozenset[int]  # numbers of packs that this run stored
    new_index: Sequence[ObjectRef]
    keeper: Keeper
    started: datetime

    def kept_for(self, ledger: Ledger) -> KeptFor:
        """For how long the snapshot is kept if it is the next statement of this ledger."""
        return self.keeper.decide(ledger, created=self.started, complete=self.body.complete)


class Publisher:
    """Publishes one snapshot for one writer."""

    def __init__(
        self,
        repository: Repository,
        key: WriterKey,
        domain: DomainSecrets,
        cache: Cache,
        workers: Workers,
        *,
        tool: str,
        bad_indexes: frozenset[str] = frozenset(),
    ) -> None:
        self._bad_indexes = bad_indexes
        self._repository = repository
        self._key = key
        self._domain = domain
        self._cache = cache
        self._workers = workers
        self._tool = tool
        self._spans = distrusted_spans(repository.ledger, domain.name)
        self._extended: set[int] = set()  # numbers of packs whose locks this run extended

    def store_index(self, entries: Iterable[IndexEntry]) -> list[ObjectRef]:
        """Store index objects for new packs, with the shortest lock, as they are only a cache."""
        parts = pack_index.partition(entries, packs=INDEX_PACKS, limit=INDEX_SIZE)
        return [self._store_index_object(part) for part in parts]

    def _store_index_object(self, entries: Sequence[IndexEntry]) -> ObjectRef:
        data = pack_index.seal_index(self._domain.index_key, self._repository.id, entries)
        digest = Digest.of(data)
        need = self._repository.clock() + timedelta(
            seconds=self._repository.parameters.min_retention
        )
        name = index_name(self._domain.name, digest)
        return self._repository.put(name, data, need, digest=digest).ref

    def publish(self, publication: Publication) -> Record:
        """Lock everything needed, then append the manifest.

        Raises:
            PacksGoneError: Some of the packs can't be relied on; nothing was published.
            LedgerMovedError: Other writers won every attempt to append.
        """
        for _ in range(_MAX_GROWTHS):
            kept = publication.kept_for(self._repository.ledger)
            with contextlib.suppress(_RetentionGrewError):
                return self._publish_kept(publication, kept)
        raise LedgerMovedError("what keeps this snapshot grew at each attempt", hint="try again")

    def _publish_kept(self, publication: Publication, kept: KeptFor) -> Record:
        now = self._repository.clock()
        until = locking.snapshot_until(publication.started, kept.keep, now)
        try:
            return self._publish(publication, kept, until)
        except RetentionError as error:
            if self._repository.clock() < until:
                raise
            raise PacksGoneError(()) from error  # the host was suspended until all dates had passed

    def _publish(self, publication: Publication, kept: KeptFor, until: datetime) -> Record:
        repository = self._repository
        self._check_present(publication.packs)
        self._lock_packs(publication, until)
        refs = [pack.ref for pack in publication.packs]
        enrolled = self._enrolled_domain()
        read_domain(repository, enrolled)  # restores need it; no later step would notice its loss
        domain = self._undoomed(domain_ref(enrolled), until)
        base, base_ref = self._base(publication.body.dataset, [*refs, domain])
        in_use = self._index_in_use(publication.new_index)
        text = inventory.encode([*refs, domain], in_use, base, base_ref)
        stored = repository.put(inventory_name(Digest.of(text)), text, until)
        resolved = inventory.resolve(stored.ref, repository.read)
        self._lock_refs([domain, *resolved.bases], until)
        body = replace_body(
            publication.body,
            inventory=InventoryRef(
                sha256=str(stored.ref.sha256),
                size=stored.ref.size,
                version=stored.ref.version,
                objects=resolved.objects_count,
                bytes=resolved.bytes_total,
            ),
            mode=repository.parameters.lock_mode,
            until=until,
            retention=RetentionTerms(keep=int(kept.keep.total_seconds()), tiers=kept.tiers),
            policy=kept.policy,
        )
        needed = [*refs, domain, stored.ref, *resolved.bases]
        return repository.append(
            lambda ledger: self._manifest(ledger, body, needed, publication, kept),
            [self._key.signing],
            tool=self._tool,
        )

    def _manifest(
        self,
        ledger: Ledger,
        body: SnapshotBody,
        needed: Sequence[ObjectRef],
        publication: Publication,
        kept: KeptFor,
    ) -> Draft:
        """The statement, checked as I4 asks against the ledger that it extends."""
        if distrusted_spans(ledger, self._domain.name) != self._spans:
            raise PacksGoneError(())  # other writers are distrusted than at the start
        if self._is_late(body.until, kept.keep):
            raise PacksGoneError(())
        if publication.kept_for(ledger).keep > kept.keep:
            raise _RetentionGrewError
        bad = ledger.bad_packs()
        spoilt = [pack.number for pack in publication.packs if pack.row.pack_id.hex() in bad]
        if spoilt:
            raise PacksGoneError(spoilt)  # found wrong while this run built on them
        if self._are_doomed(needed):
            packs = publication.packs
            raise PacksGoneError(pack.number for pack in packs if self._are_doomed([pack.ref]))
        if self._unsure_of(publication):
            raise PacksGoneError(())  # the plan came after the locks were extended
        last = ledger.snapshots(body.dataset)
        body = replace_body(body, previous=last[-1].seq if last else None)
        digest = Digest.parse(body.inventory.sha256)
        return Draft(
            type=StatementType.SNAPSHOT, subject=[(inventory_name(digest), digest)], body=body
        )

    def _is_late(self, until: datetime, retention: timedelta) -> bool:
        """Whether the host was suspended since ``until`` was set, so that it is too early now."""
        return self._repository.clock() > until - retention + locking.RUN_MARGIN

    # --- what is needed, and its locks ---

    def _are_doomed(self, refs: Iterable[ObjectRef]) -> bool:
        """Whether a prune plan of any age names one of them (I4)."""
        planned = self._repository.plans.doomed()
        return any((ref.name, ref.version) in planned for ref in refs)

    def _undoomed(self, ref: ObjectRef, until: datetime) -> ObjectRef:
        """An object that no plan names: the same bytes once more, if a plan names this version."""
        if not self._are_doomed([ref]):
            return ref
        return self._repository.put(ref.name, self._repository.read(ref), until).ref

    def _unsure_of(self, publication: Publication) -> list[int]:
        """Packs without a lock of this run, which an unreadable prune plan may name."""
        if not self._repository.plans.unsure():
            return []
        sure = publication.stored | self._extended
        return [pack.number for pack in publication.packs if pack.number not in sure]

    def _check_present(self, packs: Sequence[NeededPack]) -> None:
        """Without locks, check in the store that reused packs are still there (I1)."""
        if self._repository.parameters.lock_mode is not LockMode.NONE:
            return
        listed = self._repository.store.versions(PACKS)
        present = {(item.name, item.version): item.size for item in listed if not item.marker}
        gone = [
            pack.number
            for pack in packs
            if present.get((pack.ref.name, pack.ref.version)) != pack.row.size
        ]
        if gone:
            raise PacksGoneError(gone)

    def _lock_packs(self, publication: Publication, until: datetime) -> None:
        """Extend every pack whose lock ends too early or may be doomed, by version id (I2)."""
        if self._repository.parameters.lock_mode is LockMode.NONE:
            return
        need = int(until.timestamp())
        unsure = set(self._unsure_of(publication))
        short = [
            pack
            for pack in publication.packs
            if pack.row.locked_until < need or pack.number in unsure
        ]
        results = self._workers.transfer.map(lambda pack: self._lock_pack(pack, until), short)
        gone: list[int] = []
        locked: dict[int, int] = {}
        for pack, locked_until in zip(short, results, strict=True):
            if locked_until is None:
                gone.append(pack.number)
            else:
                locked[pack.number] = int(locked_until.timestamp())
        self._cache.set_locked(locked)
        self._extended.update(locked)
        if gone:
            raise PacksGoneError(gone)

    def lock_substitutes(self, mendings: Sequence[Mending]) -> list[Mending]:
        """Lock the substitutes of bad packs; returns the mendings whose packs are all locked."""
        needs: dict[int, datetime] = {}
        for each in mendings:
            for number in each.numbers:
                needs[number] = max(each.until, needs.get(number, each.until))
        packs = self._known_packs(needs)
        results = self._workers.transfer.map(
            lambda pack: self._lock_pack(pack, needs[pack.number]), packs
        )
        locked = {
            pack.number: int(until.timestamp())
            for pack, until in zip(packs, results, strict=True)
            if until is not None
        }
        self._cache.set_locked(locked)
        return [
            each
            for each in mendings
            if all(locked.get(n, 0) >= each.until.timestamp() for n in each.numbers)
        ]

    def _known_packs(self, numbers: Iterable[int]) -> list[NeededPack]:
        rows = ((number, self._cache.pack(number)) for number in sorted(numbers))
        return [NeededPack(number=number, row=row) for number, row in rows if row is not None]

    def _lock_pack(self, pack: NeededPack, until: datetime) -> datetime | None:
        """Lock a pack; returns the end of its lock, or None if the pack counts as absent (I7)."""
        try:
            if not locking.reusable(self._locked_until(pack), self._repository.clock()):
                return None
            return self._repository.lock_until(pack.ref, until)
        except ObjectNotFoundError:
            return None

    def _locked_until(self, pack: NeededPack) -> datetime:
        """The end of a lock: known from own PUTs and extends, otherwise asked of the store."""
        if pack.row.locked_until:
            return datetime.fromtimestamp(pack.row.locked_until, UTC)
        status = self._repository.store.status(pack.ref.name, pack.ref.version)
        if status.retention is None:
            raise ObjectNotFoundError(f"{pack.ref.name} carries no lock")
        return status.retention.until

    def _lock_refs(self, refs: Sequence[ObjectRef], until: datetime) -> None:
        if self._repository.parameters.lock_mode is LockMode.NONE:
            return
        for ref in refs:
            try:
                self._repository.lock_until(ref, until)
            except ObjectNotFoundError:
                self._lock_elsewhere(ref, until)

    def _lock_elsewhere(self, ref: ObjectRef, until: datetime) -> None:
        """Lock another version of the same bytes; store one if locks are never extended."""
        try:
            self._repository.lock_until(self._relocated(ref), until)
        except (ObjectNotFoundError, MissingObjectError):
            if self._repository.parameters.extend:
                raise
            self._repository.put(ref.name, self._repository.read(ref), until)

    def _relocated(self, ref: ObjectRef) -> ObjectRef:
        """The same bytes under another version id, as in a copied bucket.

        See docs/design.md "Objects".

        Raises:
            IntegrityError: No version has them.
        """
        self._repository.read(ref)  # raises the reason if no version has the bytes
        other = self._repository.objects.right_version(ref, pinned=False)
        return dataclasses.replace(ref, version=other.version)

    def _enrolled_domain(self) -> DomainRef:
        writer = self._repository.ledger.writers[self._key.signing.public.id]
        assert writer.domain is not None
        return writer.domain

    # --- inventory ---

    def _base(
        self, dataset: str, objects: Sequence[ObjectRef]
    ) -> tuple[Inventory | None, ObjectRef | None]:
        """The inventory to build a delta on: the dataset's last one, or a base of that.

        None if it can't be relied on: it is damaged, its lock ran out too long ago (I7), or a
        prune plan names it or may name it (I4). The new inventory is then written in full.
        """
        previous = self._repository.ledger.snapshots(dataset)
        if not previous or self._repository.plans.unsure():
            return None, None
        until = self._repository.ledger.effective_until(previous[-1])
        if not locking.reusable(until, self._repository.clock()):
            return None, None
        ref = self._repository.inventory_ref(previous[-1])
        try:
            base = self._repository.inventory(previous[-1])
            if back := inventory.pick_base(objects, base):
                ref = base.bases[back - 1]
                base = inventory.resolve(ref, self._repository.read)
        except IntegrityError:
            return None, None
        return (None, None) if self._are_doomed([ref, *base.bases]) else (base, ref)

    def _index_in_use(self, new: Sequence[ObjectRef]) -> list[ObjectRef]:
        """Index objects of the domain after this run; sixteen of a size class become one."""
        listed = index_objects(self._repository, self._domain.name)
        in_use = {
            item.ref.name: item.ref for item in listed if item.ref.name not in self._bad_indexes
        }
        in_use.update((ref.name, ref) for ref in new)
        for group in pack_index.plan_merge(in_use.values()):
            entries = [entry for ref in group for entry in self._open_index(ref)]
            for ref in group:
                del in_use[ref.name]
            merged = self._store_index_object(_unique(entries))
            in_use[merged.name] = merged
        return sorted(in_use.values())

    def _open_index(self, ref: ObjectRef) -> list[IndexEntry]:
        """The entries of an index object to merge; none if it is damaged (I10)."""
        try:
            data = self._repository.read(ref)
            return pack_index.open_index(data, self._domain.index_key, self._repository.id)
        except IntegrityError as error:
            _log.warning("index object is left out: %s", error)
            return []


def _unique(entries: Sequence[IndexEntry]) -> list[IndexEntry]:
    return list({entry.pack_id: entry for entry in entries}.values())
