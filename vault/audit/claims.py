"""Compares times and locks that statements claim with those of the store and the root.

See docs/format.md 2.6.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta

from vault.clock import MAX_CLAIM_SKEW, MAX_SKEW
from vault.custody.findings import Findings
from vault.custody.needs import when
from vault.ledger.chain import Ledger
from vault.ledger.records import Record
from vault.model import Code
from vault.repository.repository import snapshot_body
from vault.storage.lockrules import is_weaker

_COPIED = timedelta(hours=1)  # statement 0 that much younger than it says: the store is a copy
_LONG_RUN = timedelta(days=7)  # from the start of a snapshot to its statement


def is_copy(ledger: Ledger) -> bool:
    """Whether the objects were copied here: the store's times are then those of the copying."""
    first = ledger.records[0]
    return first.time is not None and ledger.stored(first) - first.time > _COPIED


def check_times(ledger: Ledger, findings: Findings) -> None:
    """Report times that contradict the store's; skipped in a copy: its times are of the copying."""
    if is_copy(ledger):
        return
    before: datetime | None = None  # time of the predecessor, as corrected by the store's
    for record in ledger.records:
        if record.time is not None:
            _check_time(ledger, record, before, findings)
            before = min(record.time, ledger.stored(record))
    for dataset in ledger.datasets():
        previous: Record | None = None
        for record in ledger.snapshots(dataset):
            _check_created(ledger, record, previous, findings)
            previous = record


def _check_time(
    ledger: Ledger, record: Record, before: datetime | None, findings: Findings
) -> None:
    assert record.time is not None
    stored, subject = ledger.stored(record), f"ledger {record.seq}"
    if abs(record.time - stored) > MAX_CLAIM_SKEW:
        findings.add(
            Code.TIME_SKEW,
            subject,
            f"{record.type} statement {record.seq} claims a time far from the store's",
            expected=f"about {when(stored)}",
            found=when(record.time),
        )
    if before is not None and record.time < before - MAX_SKEW:
        findings.add(
            Code.TIME_ORDER,
            subject,
            f"{record.type} statement {record.seq} claims a time before its predecessor's",
            expected=f"not before {when(before)}",
            found=when(record.time),
        )


def _check_created(
    ledger: Ledger, record: Record, previous: Record | None, findings: Findings
) -> None:
    created, stored = snapshot_body(record).created, ledger.stored(record)
    subject, dataset = f"ledger {record.seq}", snapshot_body(record).dataset
    if previous is not None and created < ledger.when(previous) - 2 * MAX_SKEW:  # two clocks
        findings.add(
            Code.DATED_BACK,
            subject,
            f"snapshot {record.seq} of {dataset} claims to be taken before snapshot {previous.seq},"
            " which it follows",
            expected=f"not before {when(ledger.when(previous))}",
            found=when(created),
        )
    if stored - created > _LONG_RUN:
        findings.add(
            Code.TIME_SKEW,
            subject,
            f"snapshot {record.seq} of {dataset} claims to be taken long before it was stored",
            expected=f"about {when(stored)}",
            found=when(created),
        )


def check_modes(ledger: Ledger, records: Iterable[Record], findings: Findings) -> None:
    """Report snapshots that promise a weaker lock than the root in force then demands."""
    for record in records:
        wanted = ledger.authority_at(record.seq).body.parameters.lock_mode
        found = snapshot_body(record).mode
        if is_weaker(found, wanted):
            findings.add(
                Code.MODE_WEAK,
                f"ledger {record.seq}",
                "snapshot promises a weaker lock than the root asks for",
                expected=wanted,
                found=found,
            )
