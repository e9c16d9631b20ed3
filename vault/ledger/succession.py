"""How the snapshots of a ledger follow each other. No I/O."""

from collections.abc import Collection, Sequence

from vault.clock import MAX_SKEW
from vault.ledger.chain import Ledger
from vault.ledger.records import Record
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
    for each in reversed(ledger.published(record.body.dataset)):
        by = each.distrusted_by
        if each.seq < record.seq and (by is None or by > record.seq):
            return each
    return None


def dated_back(ledger: Ledger, record: Record) -> Record | None:
    """The earlier snapshot of its dataset that one claims to be older than, if it does.

    Clocks of two hosts may differ by some minutes. In a copy nothing can be said.
    """
    assert isinstance(record.body, SnapshotBody)
    if ledger.is_copy:
        return None
    before = [each for each in ledger.snapshots(record.body.dataset) if each.seq < record.seq]
    is_back = before and record.body.created < ledger.when(before[-1]) - 2 * MAX_SKEW
    return before[-1] if is_back else None
