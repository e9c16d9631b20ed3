"""Until when the locks of everything that a snapshot needs last (I2)."""

import dataclasses
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from vault.custody.findings import Findings
from vault.custody.needs import NEVER, Collector, Need, Needs
from vault.custody.versions import Inspector
from vault.errors import IntegrityError, ObjectNotFoundError
from vault.ledger.chain import Ledger
from vault.ledger.records import Record
from vault.machine.workers import QUESTIONS, Workers, in_order, make_workers
from vault.model import LockMode, ObjectRef
from vault.repository.repository import Repository
from vault.storage.names import ledger_name

IN_FLIGHT = 32  # questions to the store at the same time, as far as there are threads


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Protection:
    """How long a snapshot can't be deleted, by the lock of its weakest object."""

    until: datetime | None  # None: something it needs carries no lock at all
    weakest: str  # the object whose lock ends first
    promised: datetime  # end of retention in the manifest

    @property
    def has_gap(self) -> bool:
        """Whether a needed object's lock ends before the snapshot's time does."""
        return self.until is None or self.until < self.promised

    def days_to_gap(self, now: datetime) -> int | None:
        """Whole days until the gap begins, 0 if it has; None where there is none."""
        if not self.has_gap:
            return None
        return 0 if self.until is None else max(0, (self.until - now) // timedelta(days=1))


class Ends:
    """The ends of all objects' locks; the end of a snapshot's protection follows from them.

    Args:
        needs: With `locked_until` filled in.
        ledger: Has the manifests with the promised ends.
        statements: How many of its statements are among the needs.
    """

    def __init__(self, needs: Needs, ledger: Ledger, statements: int) -> None:
        self._needs = needs
        self._promised = ledger.effective_until
        self._single = {  # of names with one row: nearly all, and asked for by every snapshot
            need.name: need.locked_until or NEVER for need in needs if len(needs.of(need.name)) == 1
        }
        self._ledger: list[tuple[datetime, str]] = []  # the weakest of statements 0 … n
        weakest = (datetime.max.replace(tzinfo=NEVER.tzinfo), "")
        for seq in range(statements):
            name = ledger_name(seq)
            weakest = min(weakest, *((need.locked_until or NEVER, name) for need in needs.of(name)))
            self._ledger.append(weakest)

    def _end(self, ref: ObjectRef) -> datetime:
        """The end of a lock where several versions of a name are pinned."""
        need = self._needs.find(ref)
        return (need.locked_until if need else None) or NEVER

    def of(self, record: Record, refs: Iterable[ObjectRef]) -> Protection:
        """Protection of a snapshot that needs these objects."""
        until, weakest = self._ledger[record.seq]
        single = self._single
        for ref in refs:
            end = single.get(ref.name) or self._end(ref)
            if end < until:
                until, weakest = end, ref.name
        return Protection(
            until=None if until == NEVER else until,
            weakest=weakest,
            promised=self._promised(record),
        )


def protection(repository: Repository, record: Record) -> Protection | None:
    """Until when a snapshot is protected; asks the store about every object it needs.

    None under lock mode none.

    Raises:
        IntegrityError: The inventory is missing or wrong.
    """
    with make_workers(1, transfers=QUESTIONS) as workers:
        return protections(repository, [record], workers)[0]


def protections(
    repository: Repository, records: Sequence[Record], workers: Workers
) -> list[Protection | None]:
    """As `protection`, of several snapshots; asks the store once about each shared object."""
    if repository.parameters.lock_mode is LockMode.NONE:
        return [None for _ in records]
    findings = Findings()
    collector = Collector(repository, findings)
    sound = collector.add_snapshots(records)
    if len(sound) < len(records):
        wrong = next(iter(findings.kept))
        raise IntegrityError(f"{wrong.subject}: {wrong.problem}", found=wrong.found or None)
    collector.add_ledger(records)
    _look_up(repository, collector.needs, workers)
    ends = Ends(collector.needs, repository.ledger, len(repository.ledger.records))
    return [ends.of(record, collector.refs(record)) for record in records]


def _look_up(repository: Repository, needs: Needs, workers: Workers) -> None:
    """Ask the store when the lock of each right version ends; a missing object has none."""
    hints = {ledger_name(record.seq): record.version for record in repository.ledger.records}
    inspector = Inspector(repository, needs)

    def locked_until(need: Need) -> datetime | None:
        store = repository.store
        try:
            status = store.status(need.name, need.version or hints[need.name])
        except ObjectNotFoundError:
            right = inspector.look(need.name).right(need.version)
            if right is None:
                return None
            status = store.status(need.name, right.version)
        return status.retention.until if status.retention else None

    for need, future in in_order(workers.transfer, locked_until, needs, limit=IN_FLIGHT):
        need.locked_until = future.result()
