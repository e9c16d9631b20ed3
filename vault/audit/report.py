"""What an audit says in the end: what was looked at, how every snapshot stands, what was found."""

import dataclasses
from datetime import datetime, timedelta

from vault.custody.findings import AuditFinding, Concern
from vault.custody.protection import Protection
from vault.ledger.envelope import Head
from vault.model import LockMode, Severity


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotAudit:
    """How one snapshot that is owed stands."""

    seq: int
    dataset: str
    created: datetime
    complete: bool
    held: bool
    until: datetime  # promised
    objects: int
    bytes: int
    readable: bool  # whether its inventory is
    bad: int  # of its objects, those found missing or wrong; the ledger's up to it among them
    protection: Protection | None  # None under lock mode none, or if it can't be told

    @property
    def is_hit(self) -> bool:
        """Whether something that it needs is missing or wrong."""
        return self.bad > 0 or not self.readable


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class DatasetAge:
    """How old the newest complete snapshot of a dataset is: the RPO as it is."""

    dataset: str
    newest: int | None  # seq
    age: timedelta | None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """What was looked at."""

    names: int = 0  # listed
    versions: int = 0
    needed: int = 0  # objects, ledger and evidence among them
    bytes: int = 0  # of those whose size is signed
    checksums: int = 0  # that the store states
    not_available: int = 0  # that it does not
    read: int = 0  # objects whose bytes were hashed
    bytes_read: int = 0
    packs: int = 0  # of the needed objects; all content is in them
    packs_read: int = 0  # of them, those whose bytes were hashed
    headers: int = 0  # of them, those whose header was seen
    repeated: int = 0  # further versions with the right bytes
    unneeded: int = 0  # names that nothing needs: of expired snapshots and killed runs
    unneeded_bytes: int = 0

    @property
    def share_read(self) -> str:
        """How much of the packs was read, in words; never more than was."""
        if not self.packs:
            return "no packs to read"
        if not self.packs_read:
            return "packs not read"
        if self.packs_read == self.packs:
            return "all packs read"
        return f"{100 * self.packs_read // self.packs or 'under 1'} % of packs read"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class AuditReport:
    """All that one audit saw."""

    head: Head
    at: datetime
    lock_mode: LockMode
    advisory: bool  # nothing but this program keeps the locks, or there are none
    snapshots: tuple[SnapshotAudit, ...]
    datasets: tuple[DatasetAge, ...]
    totals: Totals
    findings: tuple[AuditFinding, ...]
    omitted: int  # findings that were counted and are not among these

    @property
    def gravest(self) -> Concern:
        """The gravest promise that an error is about."""
        broken = {item.concern for item in self.findings if item.severity is Severity.ERROR}
        return next((concern for concern in Concern if concern in broken), Concern.NONE)

    @property
    def verdict(self) -> str:
        """In a line: whether it passed, and how much of the packs that is said of (I5)."""
        passed = self.gravest is Concern.NONE
        return f"{'passed' if passed else f'failed: {self.gravest}'}; {self.totals.share_read}"
