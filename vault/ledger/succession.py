"""How the snapshots of a ledger follow each other. No I/O."""

from collections.abc import Collection, Sequence

from vault.clock import MAX_SKEW
from vault.ledger.chain import Ledger
from vault.ledger.records import Record, Status
from vault.ledger.statements import MAX_RANGES, SnapshotBody, StatementType


def snapshot_ranges(
    records: Sequence[Record], seqs: Collection[int]
) -> tuple[tuple[int, int], ...]:
    """Some snapshots as ranges of seqs that hold no other snapshot; the newest, if too many.

    Args:
        records: Of the whole chain.
        seqs: Of the snapshots.
    """
    found: list[tuple[int, int]] = []
    is_open = False  # whether the last range may go on
    for record in records:
        if record.type != StatementType.SNAPSHOT:
            continue
        if record.seq in seqs:
            first = found.pop()[0] if is_open else record.seq
            found.append((first, record.seq))
        is_open = record.seq in seqs
    return tuple(found[-MAX_RANGES:])


def snapshot_before(ledger: Ledger, record: Record) -> Record | None:
    """The snapshot of the same dataset that was the newest when one was published."""
    assert isinstance(record.body, SnapshotBody)
    for each in ledger.published_before(record.body.dataset, record.seq):
        if each.distrusted_by is None or each.distrusted_by > record.seq:
            return each
    return None


def valid_before(ledger: Ledger, record: Record) -> Record | None:
    """The newest snapshot of the same dataset before one that counts now."""
    assert isinstance(record.body, SnapshotBody)
    earlier = ledger.published_before(record.body.dataset, record.seq)
    return next((each for each in earlier if each.status is Status.VALID), None)


def dated_back(ledger: Ledger, record: Record) -> Record | None:
    """The earlier snapshot of its dataset that one claims to be older than, if it does.

    Clocks of two hosts may differ by some minutes. In a copy nothing can be said.
    """
    assert isinstance(record.body, SnapshotBody)
    if ledger.is_copy:
        return None
    before = valid_before(ledger, record)
    is_back = before and record.body.created < ledger.when(before) - 2 * MAX_SKEW
    return before if is_back else None
