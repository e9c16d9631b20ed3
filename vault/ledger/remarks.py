"""What there is to say of statements that link and do not count. No I/O."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from vault.ledger.records import Record, Status, WriterInfo
from vault.model import Code, Finding, Severity


def remarks(
    records: Iterable[Record], writers: Mapping[str, WriterInfo], beyond: Mapping[str, int]
) -> Iterator[Finding]:
    """A finding for each statement that is void or not understood, by seq.

    Of a key that was distrusted, everything from there on is one warning: the revocation has dealt
    with it, and a thief may have left thousands.

    Args:
        records: Of the whole chain.
        writers: By key id.
        beyond: How many statements each distrusted key left beyond a hole.
    """
    dealt = Counter(beyond)
    first: dict[str, int] = {}
    for record in records:
        if record.status is Status.VALID:
            continue
        writer = writers.get(record.key_id)
        if writer is None or writer.distrust_from is None or record.seq < writer.distrust_from:
            yield _single(record)
            continue
        dealt[record.key_id] += 1
        first.setdefault(record.key_id, record.seq)
    for key_id, count in dealt.items():
        yield _together(writers[key_id], count, first.get(key_id))


def _single(record: Record) -> Finding:
    is_void = record.status is Status.VOID
    return Finding(
        severity=Severity.ERROR if is_void else Severity.WARNING,
        code=Code.VOID if is_void else Code.NOT_UNDERSTOOD,
        subject=f"ledger {record.seq}",
        problem=f"{record.type} statement is void: {record.reason}"
        if is_void
        else f"statement is not understood: {record.reason}",
        found=f"key {record.key_id}",
    )


def _together(writer: WriterInfo, count: int, first: int | None) -> Finding:
    statements = "1 statement does" if count == 1 else f"{count} statements do"
    return Finding(
        severity=Severity.WARNING,
        code=Code.DISTRUSTED,
        subject=f"ledger {first}" if first is not None else "ledger",
        problem=f"{statements} not count: the key of {writer.name} is distrusted from"
        f" {writer.distrust_from} on",
        found=f"key {writer.key.id}",
    )
