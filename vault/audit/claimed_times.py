"""Compares times and locks that statements claim with those of the store and the root.

See docs/format.md 2.6.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta

from vault.clock import MAX_CLAIM_SKEW, MAX_SKEW
from vault.custody.findings import Findings
from vault.custody.needs import when
from vault.ledger.chain import Ledger
from vault.ledger.lapse import lapse
from vault.ledger.records import Record
from vault.ledger.succession import dated_back, snapshot_before
from vault.model import Code
from vault.repository.repository import snapshot_body
from vault.storage.lock_rules import is_weaker

_LONG_RUN = timedelta(days=7)  # from the start of a snapshot to its statement


def check_times(ledger: Ledger, findings: Findings) -> None:
    """Report times that contradict the store's; skipped in a copy: its times are of the copying."""
    for dataset in ledger.datasets():
        for record in ledger.snapshots(dataset):
            _check_previous(ledger, record, findings)
    if ledger.is_copy:
        return
    before: datetime | None = None  # time of the predecessor, as corrected by the store's
    for record in ledger.records:
        if record.time is not None:
            _check_time(ledger, record, before, findings)
            before = min(record.time, ledger.stored(record))
    for dataset in ledger.datasets():
        for record in ledger.snapshots(dataset):
            _check_created(ledger, record, findings)


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


def _check_previous(ledger: Ledger, record: Record, findings: Findings) -> None:
    """A publisher names the snapshot before it; a wrong name says that it did not look."""
    body, before = snapshot_body(record), snapshot_before(ledger, record)
    if body.previous != (before.seq if before else None):
        findings.add(
            Code.OTHER_PREVIOUS,
            f"ledger {record.seq}",
            f"snapshot {record.seq} of {body.dataset} does not name the one stored before it",
            expected=f"snapshot {before.seq}" if before else "none",
            found="none" if body.previous is None else f"snapshot {body.previous}",
        )


def _check_created(ledger: Ledger, record: Record, findings: Findings) -> None:
    created, stored = snapshot_body(record).created, ledger.stored(record)
    subject, dataset = f"ledger {record.seq}", snapshot_body(record).dataset
    previous = dated_back(ledger, record)
    if previous is not None:
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


def check_approvals(ledger: Ledger, findings: Findings) -> None:
    """Report acts that came after the warrant they rest on had expired, by the store's time.

    Their signers dated them back: claimed times decide what counts, and the store's are no claims.
    """
    for record in ledger.valid():
        if late := lapse(ledger, record):
            findings.add(
                Code.UNAPPROVED,
                f"ledger {record.seq}",
                f"{record.type} statement {record.seq} rests on a warrant that had expired",
                found=late,
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
