"""Every object that must exist because a live or held snapshot, or the ledger itself, needs it.

One row of 0.6 kB for each object, however many snapshots need it. No other memory of an audit
grows with the repository.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Self

from vault.clock import to_rfc3339
from vault.custody.findings import Findings
from vault.errors import IntegrityError
from vault.format.inventory import Inventory, Resolver
from vault.ledger.chain import Ledger
from vault.ledger.records import Record
from vault.ledger.statements import (
    EventBody,
    PolicyBody,
    PruneBody,
    SnapshotBody,
    VerificationBody,
)
from vault.machine.lru import Recent
from vault.model import Code, Digest, LockMode, ObjectRef
from vault.repository.repository import Repository, domain_ref, snapshot_body
from vault.storage import names
from vault.storage.lock_rules import is_weaker
from vault.storage.names import DOMAINS, EVIDENCE, LEDGER, PACKS, PAGES, evidence_name, ledger_name

NEVER = datetime(1970, 1, 1, tzinfo=UTC)  # before any lock's end
_CACHE = 64 << 20  # bytes of inventories kept: consecutive inventories share their bases

TERM_PREFIXES = (LEDGER, PAGES, EVIDENCE, DOMAINS)  # docs/design.md "Objects"


@dataclasses.dataclass(slots=True, kw_only=True)
class Need:
    """One object that must exist, and the audit's observations of it."""

    name: str
    sha256: Digest  # of the object; of a statement, of its PAE
    size: int | None  # None: not signed
    version: str  # pinned; "" if no inventory or statement pins one
    until: datetime  # to be locked at least until then
    mode: LockMode  # at least that strictly
    held: bool  # a held snapshot needs it

    located: ObjectRef | None = None  # the version with the right bytes
    modified: datetime = NEVER  # of that version, by the store's clock
    locked_until: datetime | None = None
    is_hashed: bool = False  # its bytes were read and are right
    is_bad: bool = False  # missing, or different from what was signed

    @property
    def stored_size(self) -> int:
        """Size of the version with the right bytes; 0 if there is none."""
        return self.located.size if self.located else 0

    @property
    def is_pack(self) -> bool:
        """Whether content lies in it."""
        return names.is_pack(self.name)

    @property
    def is_sealed(self) -> bool:
        """Whether it begins with a header that lists its recipients."""
        return self.name.startswith((PACKS, DOMAINS))

    @property
    def is_statement(self) -> bool:
        """Whether it is an envelope, whose identity is not the digest of its bytes."""
        return self.name.startswith(LEDGER)


class Needs:
    """All rows, by name and pinned version."""

    def __init__(self, repository: Repository) -> None:
        self._rows: dict[str, list[Need]] = {}
        self.mode = repository.parameters.lock_mode

    def __iter__(self) -> Iterator[Need]:
        """Every row."""
        return (need for rows in self._rows.values() for need in rows)

    def __len__(self) -> int:
        """How many rows."""
        return sum(map(len, self._rows.values()))

    def of(self, name: str) -> Sequence[Need]:
        """Rows of a name; several where manifests pin several versions of the same bytes."""
        return self._rows.get(name, ())

    def find(self, ref: ObjectRef) -> Need | None:
        """The row of an object that an inventory names; None if there is none."""
        return next((need for need in self.of(ref.name) if need.version == ref.version), None)

    def add(
        self,
        name: str,
        sha256: Digest,
        *,
        size: int | None,
        version: str,
        until: datetime = NEVER,
        mode: LockMode | None = None,
        held: bool = False,
    ) -> Need:
        """Add a row, or raise the demands of an existing row to the stronger of both."""
        mode = self.mode if mode is None or is_weaker(mode, self.mode) else mode
        rows = self._rows.setdefault(name, [])
        for need in rows:
            if need.version == version:
                need.until = max(need.until, until)
                need.mode = mode if is_weaker(need.mode, mode) else need.mode
                need.held = need.held or held
                return need
        need = Need(
            name=name,
            sha256=sha256,
            size=size,
            version=version,
            until=until,
            mode=mode,
            held=held,
        )
        rows.append(need)
        return need


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Demand:
    """The lock that one snapshot demands of every object that it needs."""

    until: datetime
    mode: LockMode
    held: bool

    @classmethod
    def of(cls, ledger: Ledger, record: Record, *, held: bool) -> Self:
        """The demand of a snapshot's manifest, limited to what the root allows."""
        mode = snapshot_body(record).mode
        return cls(until=ledger.effective_until(record), mode=mode, held=held)


class Collector:
    """Reads manifests and inventories into `Needs`.

    Args:
        repository: Read up to its head.
        findings: Receives the flaws of inventories.
        room: Bytes of inventories that are kept, since consecutive ones share their bases.
    """

    def __init__(self, repository: Repository, findings: Findings, *, room: int = _CACHE) -> None:
        self.needs = Needs(repository)
        self._repository = repository
        self._findings = findings
        self._resolver = Resolver(self._fetch)
        self._cache: Recent[str, bytes] = Recent(room, weigh=len)
        self._hashed: set[tuple[str, str]] = set()  # pinned versions that were read and are right
        self._held = repository.ledger.held()

    def add_snapshots(self, records: Iterable[Record]) -> list[Record]:
        """Add all that these snapshots need, except the ledger.

        Snapshots that demand the longest lock come first: objects that later ones share with
        them then have a row already, and are not processed again for each of a thousand snapshots.

        Returns:
            The snapshots whose inventory can be read.
        """
        ledger, held = self._repository.ledger, self._held
        owing = [
            (_Demand.of(ledger, record, held=record.seq in held), record) for record in records
        ]
        told: dict[tuple[LockMode, bool], dict[str, ObjectRef]] = {}
        sound: list[Record] = []
        for demand, record in sorted(owing, key=lambda pair: pair[0].until, reverse=True):
            if self._add_snapshot(record, demand, told.setdefault((demand.mode, demand.held), {})):
                sound.append(record)
        return sorted(sound, key=lambda record: record.seq)

    def _add_snapshot(self, record: Record, demand: _Demand, told: dict[str, ObjectRef]) -> bool:
        try:
            refs = self.refs(record)
        except IntegrityError as error:
            self._findings.add(
                Code.INVENTORY,
                f"ledger {record.seq}",
                f"inventory can't be used: {error.message}",
                expected="" if error.expected is None else error.expected,
                found="" if error.found is None else error.found,
            )
            self._add_ref(self._repository.inventory_ref(record), record, demand)
            return False
        for ref in refs:
            if told.get(ref.name) is not ref:
                self._add_ref(ref, record, demand)
                told[ref.name] = ref
        self._check_domain(record, refs, demand)
        return True

    def _add_ref(self, ref: ObjectRef, record: Record, demand: _Demand) -> None:
        need = self.needs.add(
            ref.name,
            ref.sha256,
            size=ref.size,
            version=ref.version,
            until=demand.until,
            mode=demand.mode,
            held=demand.held,
        )
        need.is_hashed = need.is_hashed or (ref.name, ref.version) in self._hashed
        if (need.sha256, need.size) != (ref.sha256, ref.size) or not _names_itself(ref):
            self._findings.add(
                Code.INVENTORY,
                f"ledger {record.seq}",
                f"{ref.name} can't be what the inventory says",
                expected=f"sha256 {need.sha256}, {need.size} bytes",
                found=f"sha256 {ref.sha256}, {ref.size} bytes",
            )

    def _check_domain(self, record: Record, refs: Sequence[ObjectRef], demand: _Demand) -> None:
        """The writer's domain object is a need of its snapshots, whatever they say (I2)."""
        domain = self._repository.ledger.writer_for(record).domain
        assert domain is not None
        ref = domain_ref(domain)
        if all((each.name, each.sha256) != (ref.name, ref.sha256) for each in refs):
            self._findings.add(
                Code.INVENTORY,
                f"ledger {record.seq}",
                "inventory leaves out the domain object",
                expected=ref.name,
            )
            self._add_ref(ref, record, demand)

    def refs(self, record: Record) -> list[ObjectRef]:
        """The inventory, its bases and all that they list.

        Raises:
            IntegrityError: One of them is missing or wrong, or does not say what was signed.
        """
        ref = self._repository.inventory_ref(record)
        resolved = self._resolver.resolve(ref)
        _check_sums(snapshot_body(record), resolved)
        return [ref, *resolved.bases, *resolved.objects]

    def _fetch(self, ref: ObjectRef) -> bytes:
        """Read the pinned version; if its digest is wrong, any version with the right digest.

        The wrong version is reported by the version check, not here.
        """
        cached = self._cache.get(ref.name)
        if cached is not None and Digest.of(cached) == ref.sha256:
            return cached
        right = self._repository.objects.right_version(ref)
        if right.version == ref.version:
            self._hashed.add((ref.name, ref.version))
        self._cache.put(ref.name, right.data)
        return right.data

    def add_ledger(self, owed: Sequence[Record]) -> None:
        """Add every statement: each owed snapshot needs all statements up to its own."""
        until = NEVER
        owing = {record.seq for record in owed}
        for record in reversed(self._repository.ledger.records):
            if record.seq in owing:
                until = max(until, self._repository.ledger.effective_until(record))
            self.needs.add(
                ledger_name(record.seq),
                record.digest,
                size=None,
                version="",
                until=until,
            )

    def add_evidence(self) -> None:
        """Add the objects that statements cite: attestations, prune plans, terms of policies."""
        for record in self._repository.ledger.valid():
            match record.body:
                case EventBody() | VerificationBody() as body:
                    self._add_cited(body.attestation)
                case PruneBody() as body:
                    self._add_cited(body.plan, body.spared, body.details)
                case PolicyBody() as body:
                    self._add_cited(body.sha256)
                case _:
                    pass

    def _add_cited(self, *digests: str) -> None:
        for digest in filter(None, digests):
            self.needs.add(evidence_name(digest), Digest.parse(digest), size=None, version="")


def _check_sums(body: SnapshotBody, resolved: Inventory) -> None:
    found = (resolved.objects_count, resolved.bytes_total)
    if found != (body.inventory.objects, body.inventory.bytes):
        raise IntegrityError(
            "inventory does not add up to what was signed",
            expected=f"{body.inventory.objects} objects, {body.inventory.bytes} bytes",
            found=f"{found[0]} objects, {found[1]} bytes",
        )


def _names_itself(ref: ObjectRef) -> bool:
    return ref.name.rpartition("/")[2] == str(ref.sha256)


def when(moment: datetime) -> str:
    """A store's time as text for findings; if it can't be written as one, words instead."""
    try:
        return to_rfc3339(moment)
    except (ValueError, OverflowError):
        return "an impossible time"
