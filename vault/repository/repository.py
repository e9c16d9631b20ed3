"""One repository: a store, the verified ledger in it, and its other objects.

It knows nothing of files; the rooms above (`vault.snapshot`, `vault.restore` …) do. `opening`
opens one for a user, and compares it with what this machine remembers.
"""

import logging
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final, Self

from vault.clock import Clock
from vault.crypto.keys import Signer
from vault.errors import (
    FormatError,
    IntegrityError,
    MissingObjectError,
)
from vault.format import inventory
from vault.format.inventory import Inventory
from vault.ledger.beyond import Beyond
from vault.ledger.chain import Ledger
from vault.ledger.checkpoints import Standing
from vault.ledger.envelope import Head
from vault.ledger.records import Record
from vault.ledger.remembered import Remembered
from vault.ledger.statements import DomainRef, SnapshotBody
from vault.ledger.witnessed import Witnessed
from vault.model import Buffer, Digest, Finding, ObjectRef
from vault.parameters import Parameters
from vault.repository.append_statements import Draft, Log
from vault.repository.chosen import choose_history
from vault.repository.objects import Objects, Sightings, Stored
from vault.repository.plans import Plans
from vault.repository.read_statements import StoredLedger, Vouched, read_ledger
from vault.repository.seed_lookup import SeedLookup
from vault.storage.base import ObjectStore
from vault.storage.choose_store import observing
from vault.storage.names import inventory_name

_log = logging.getLogger(__name__)

NO_SNAPSHOT_MENDS: Final = (
    "no snapshot stores the keys of a domain again: copy that object from a second copy of the"
    " repository"
)


class Repository:
    """One repository, opened: `open` reads and verifies its ledger.

    Args:
        store: Where the objects are.
        history: Its statements, read from that store.
        clock: The caller's clock; compared with the store's before writing (I9).
        pause: Sleeps between append attempts; tests pass their own.
        sightings: Collects what reads find wrong beside the right bytes.
    """

    def __init__(
        self,
        store: ObjectStore,
        history: StoredLedger,
        *,
        clock: Clock,
        pause: Callable[[float], None],
        sightings: Sightings,
    ) -> None:
        self.store = store
        self.clock = clock
        self.ledger: Ledger = history.ledger
        self.objects = Objects(store, history.ledger, clock=clock, sightings=sightings)
        self.log = Log(history, self.objects, pause=pause)
        self._sightings = sightings
        self._unusable: set[int] = set()  # seqs of snapshots whose inventory is
        self.seeds = SeedLookup(history.ledger, self.objects)
        self.plans = Plans(history.ledger, self.objects.read_evidence)
        self.witnessed = Witnessed(standing=Standing.UNASKED)  # `vouching` asks

    @classmethod
    def open(
        cls,
        store: ObjectStore,
        root_digest: Digest,
        *,
        clock: Clock,
        pause: Callable[[float], None] = time.sleep,
        remembered: Remembered | None = None,
        tolerant: bool = False,
        toward: Head | None = None,
        knows_head: bool = False,
        vouched: Vouched | None = None,
        sightings: Sightings | None = None,
    ) -> Self:
        """The repository in a store, its ledger read up to the head and verified.

        Args:
            store: Where the objects are.
            root_digest: The pinned digest of statement 0.
            clock: The caller's clock.
            pause: Sleeps between append attempts.
            remembered: The ledger as it was verified here before: only what is new is read,
                if the store still has all of it.
            tolerant: Go on after a hole in the chain, with statements that link, so that an
                audit can report it; such a repository never appends.
            toward: A head that a person named: if the history by the store's order has not that
                one, the history that leads to it is read, and takes no statements.
            knows_head: Whether a head of this ledger was known before it was read.
            vouched: As of `read_ledger`.
            sightings: Collects what reads find wrong beside the right bytes; a new one if not
                given.

        Raises:
            RepositoryNotFoundError: The store holds no ledger.
            IntegrityError: The ledger does not chain from the pinned root.
        """
        history = read_ledger(
            store, root_digest, remembered=remembered, tolerant=tolerant, vouched=vouched
        )
        if toward is not None and history.ledger.digest_at(toward.seq) != toward.digest:
            history = choose_history(store, history, toward) or history
        history.knows_head = knows_head
        observed = observing(store, history.ledger.root.parameters)
        return cls(
            observed,
            history.on(observed),
            clock=clock,
            pause=pause,
            sightings=sightings or Sightings(),
        )

    @property
    def id(self) -> bytes:
        """The repository id: 16 bytes, part of every key derivation."""
        return bytes.fromhex(self.ledger.repository_id)

    @property
    def parameters(self) -> Parameters:
        """The parameters of the root in force."""
        return self.objects.parameters

    @property
    def head(self) -> Head:
        """The newest statement."""
        return self.log.head

    @property
    def beyond(self) -> Sequence[Beyond]:
        """Statements that listed keys signed, and that stand beyond a hole in the ledger."""
        return self.log.history.beyond

    @property
    def findings(self) -> list[Finding]:
        """What was found wrong so far beside the statements and beside the objects read."""
        return [*self.log.findings, *self._sightings.all()]

    # --- the log and the objects ---

    def refresh(self) -> None:
        """Read and verify what follows the head: `StoredLedger.refresh`."""
        self.log.refresh()

    def append(
        self,
        draft: Callable[[Ledger], Draft],
        signers: Sequence[Signer],
        *,
        tool: str,
        insist: Callable[[int], None] | None = None,
    ) -> Record:
        """Sign and append one statement: `Log.append`."""
        return self.log.append(draft, signers, tool=tool, insist=insist)

    def put(
        self, name: str, data: Buffer, need: datetime, *, digest: Digest | None = None
    ) -> Stored:
        """Store one object, locked at least until ``need``: `Objects.put`."""
        return self.objects.put(name, data, need, digest=digest)

    def lock_until(self, ref: ObjectRef, need: datetime) -> datetime:
        """Make sure an object is locked at least until ``need``: `Objects.lock_until`."""
        return self.objects.lock_until(ref, need)

    def put_evidence(self, data: bytes) -> Digest:
        """Store evidence that a statement will cite: `Objects.put_evidence`."""
        return self.objects.put_evidence(data)

    def read(self, ref: ObjectRef) -> bytes:
        """The bytes that a signed record names: `Objects.read`."""
        return self.objects.read(ref)

    def read_range(self, ref: ObjectRef, offset: int, length: int) -> bytes:
        """Part of the pinned version, NOT verified: `Objects.read_range`."""
        return self.objects.read_range(ref, offset, length)

    def read_evidence(self, digest: Digest) -> bytes:
        """The evidence that a statement cites: `Objects.read_evidence`."""
        return self.objects.read_evidence(digest)

    # --- inventories and plans ---

    def inventory(self, record: Record) -> Inventory:
        """All objects that a snapshot needs, deltas resolved.

        Raises:
            IntegrityError: The inventory or a base is missing or wrong.
        """
        return inventory.resolve(self.inventory_ref(record), self.read)

    def usable_inventory(self, record: Record) -> Inventory | None:
        """The inventory of a snapshot; None where it is missing or wrong, which is logged once."""
        try:
            return self.inventory(record)
        except IntegrityError as error:
            if record.seq not in self._unusable:
                self._unusable.add(record.seq)
                _log.warning("inventory of snapshot %d is unreadable: %s", record.seq, error)
            return None

    @staticmethod
    def inventory_ref(record: Record) -> ObjectRef:
        """The inventory object of a snapshot, as its manifest pins it."""
        body = snapshot_body(record)
        sha256 = Digest.parse(body.inventory.sha256)
        return ObjectRef(
            name=inventory_name(sha256),
            sha256=sha256,
            size=body.inventory.size,
            version=body.inventory.version,
        )

    def heavy_plans(self) -> list[Finding]:
        """Prune plans that doom much of what the newest snapshot of some dataset needs."""
        found: dict[str, Finding] = {}
        if not self.plans.doomed():
            return []
        for dataset in self.ledger.datasets():
            newest = self.ledger.snapshots(dataset)[-1]
            listed = self.usable_inventory(newest)
            if listed is not None:
                needed = [self.inventory_ref(newest), *listed.bases, *listed.objects]
                found |= {each.subject: each for each in self.plans.heavy(needed)}
        return list(found.values())


def domain_ref(domain: DomainRef) -> ObjectRef:
    """The stored object of a domain's secrets."""
    return ObjectRef(
        name=domain.object,
        sha256=Digest.parse(domain.sha256),
        size=domain.size,
        version=domain.version,
    )


def read_domain(repository: Repository, domain: DomainRef) -> bytes:
    """The sealed secrets of a domain, as enrolled.

    Raises:
        IntegrityError: They are missing or wrong; the hint says that no command remakes them.
    """
    try:
        return repository.read(domain_ref(domain))
    except IntegrityError as error:
        error.hint = NO_SNAPSHOT_MENDS
        if isinstance(error, MissingObjectError):
            error.hint += "; 'vault heal' shows whether the store only hides it"
        raise


def snapshot_body(record: Record) -> SnapshotBody:
    """The manifest in a record; whether it counts is for its caller to ask.

    Raises:
        FormatError: The record is no well-formed snapshot.
    """
    if not isinstance(record.body, SnapshotBody):
        raise FormatError(f"ledger {record.seq} is not a snapshot", found=record.type)
    return record.body
