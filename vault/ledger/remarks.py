"""What there is to say of statements that link and do not count. No I/O."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from vault.ledger.records import DistrustedSigner, Record, Status
from vault.model import Code, Finding, Severity


def remarks(
    records: Iterable[Record],
    distrusted: Mapping[str, DistrustedSigner],
    beyond: Mapping[str, int],
) -> Iterator[Finding]:
    """A finding for each statement that is void or not understood, by seq.

    Of a key that is distrusted, everything from there on is one warning: a revocation or a root has
    dealt with it, and a thief may have left thousands.

    Args:
        records: Of the whole chain.
        distrusted: Keys that are, by id.
        beyond: How many statements of each of these stand in the store and are not linked.
    """
    dealt = Counter(beyond)
    first: dict[str, int] = {}
    for record in records:
        if record.status is Status.VALID:
            continue
        key_id = distrusted_of(record.by, record.seq, distrusted)
        if key_id is None:
            yield _single(record)
            continue
        dealt[key_id] += 1
        first.setdefault(key_id, record.seq)
    for key_id, count in dealt.items():
        yield _together(distrusted[key_id], count, first.get(key_id))


def distrusted_of(
    signers: Iterable[str], seq: int, distrusted: Mapping[str, DistrustedSigner]
) -> str | None:
    """The one of these keys that is distrusted at that number; None if none is."""
    for key_id in signers:
        known = distrusted.get(key_id)
        if known is not None and seq >= known.start:
            return key_id
    return None


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


def _together(signer: DistrustedSigner, count: int, first: int | None) -> Finding:
    statements = "1 statement does" if count == 1 else f"{count} statements do"
    return Finding(
        severity=Severity.WARNING,
        code=Code.DISTRUSTED,
        subject=f"ledger {first}" if first is not None else "ledger",
        problem=f"{statements} not count: the key of {signer.name or 'no name'} is distrusted from"
        f" {signer.start} on",
        found=f"key {signer.key.id}",
    )
