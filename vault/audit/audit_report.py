"""The report of an audit: totals, the state of every snapshot, and the findings."""

import dataclasses
from datetime import datetime, timedelta

from vault.custody.findings import AuditFinding, Concern
from vault.custody.protection import Protection
from vault.ledger.envelope import Head
from vault.model import LockMode, Severity


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotAudit:
    """State of one live or held snapshot."""

    seq: int
    dataset: str
    created: datetime
    complete: bool
    held: bool
    until: datetime  # promised
    objects: int
    bytes: int
    readable: bool  # whether its inventory can be read
    bad: int  # number of its objects found missing or wrong, statements up to it among them
    called_bad: int | None  # seq of the check that found it wrong, and none has read it right since
    protection: Protection | None  # None under lock mode none, or if not known

    @property
    def is_hit(self) -> bool:
        """Whether it, or an object that it needs, is missing or wrong."""
        return self.bad > 0 or not self.readable or self.called_bad is not None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class DatasetAge:
    """Age of the newest complete snapshot of a dataset: the actual RPO."""

    dataset: str
    newest: int | None  # seq
    age: timedelta | None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """Counts of names, versions, objects and bytes that the audit looked at."""

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
        """How much of the packs was read, in words; rounded down."""
        if not self.packs:
            return "no packs to read"
        if not self.packs_read:
            return "packs not read"
        if self.packs_read == self.packs:
            return "all packs read"
        return f"{100 * self.packs_read // self.packs or 'under 1'} % of packs read"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class AuditReport:
    """Result of one audit."""

    head: Head
    at: datetime
    lock_mode: LockMode
    advisory: bool  # only this program keeps the locks, not the store; or there are none
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
        """One line: passed or failed, and how much of the packs was read.

        Without the second part "passed" would claim more than was read (I5).
        """
        passed = self.gravest is Concern.NONE
        return f"{'passed' if passed else f'failed: {self.gravest}'}; {self.totals.share_read}"
