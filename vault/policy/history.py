"""The snapshots of a dataset as the retention decision takes them, from the ledger alone."""

from collections.abc import Iterator

from vault.ledger.chain import Ledger
from vault.ledger.records import Record
from vault.ledger.statements import (
    ATTESTED,
    WHOLE_SHARE,
    EventBody,
    SnapshotBody,
    Verdict,
    VerificationBody,
)
from vault.policy.keeping import PastSnapshot


def past_snapshots(
    ledger: Ledger, dataset: str, *, before: int | None = None
) -> list[PastSnapshot]:
    """The valid snapshots of a dataset.

    Args:
        ledger: Where they stand.
        dataset: Its name.
        before: Only those before this seq; None: all.
    """
    records = ledger.snapshots(dataset)
    if before is not None:
        records = [record for record in records if record.seq < before]
    failed = failed_snapshots(ledger, before=before)
    return [_past(ledger, record, is_sound=record.seq not in failed) for record in records]


def host_of(ledger: Ledger, key_id: str) -> str:
    """The first key of a host: the id from which a key descends by replacement, step by step."""
    seen = set()
    while key_id not in seen:
        seen.add(key_id)
        writer = ledger.writers.get(key_id)
        if writer is None or not writer.replaces:
            break
        key_id = writer.replaces
    return key_id


def failed_snapshots(ledger: Ledger, *, before: int | None = None) -> set[int]:
    """Snapshots of which a check of exactly them failed, and no whole one has passed since."""
    failed: set[int] = set()
    for seq, about, is_failed in checks_of_one(ledger):
        if before is not None and seq >= before:
            break
        (failed.add if is_failed else failed.discard)(about)
    return failed


def checks_of_one(ledger: Ledger) -> Iterator[tuple[int, int, bool]]:
    """Checks of exactly one snapshot that failed or passed whole: seq, snapshot, if it failed."""
    for record in ledger.valid(*ATTESTED):
        about, is_whole = _judged(record)
        assert isinstance(record.body, EventBody | VerificationBody)
        if about is None:
            continue
        if record.body.verdict == Verdict.FAILED:
            yield record.seq, about, True
        elif record.body.verdict == Verdict.PASSED and is_whole:
            yield record.seq, about, False


def _judged(record: Record) -> tuple[int | None, bool]:
    """The one snapshot that a check is about, and whether it read all of it."""
    match record.body:
        case EventBody(snapshot=seq):
            return seq, True
        case VerificationBody(snapshots=((first, last),), share=share) if first == last:
            return first, share == WHOLE_SHARE
        case _:
            return None, False


def _past(ledger: Ledger, record: Record, *, is_sound: bool) -> PastSnapshot:
    assert isinstance(record.body, SnapshotBody)
    return PastSnapshot(
        host=host_of(ledger, record.key_id),
        when=ledger.when(record),
        until=ledger.effective_until(record),
        complete=record.body.complete,
        sound=is_sound,
    )
