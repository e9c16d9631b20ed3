"""`vault status`: how the repository and its datasets stand."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, TypeAlias

import click

from cli import render
from cli.audit import protection_cells, protection_fields
from cli.context import Invocation, pass_invocation, signer_name
from cli.exits import EXIT_RETENTION
from cli.values import format_age
from vault.audit.protection import Protection, protections
from vault.ledger import Record
from vault.model import to_rfc3339
from vault.repository import Repository, snapshot_body
from vault.stats import DatasetStatus, Event, owed, status_of
from vault.workers import make_workers

Protected: TypeAlias = tuple[Record, Protection | None]  # None under lock mode none

_HEADINGS = (
    "dataset",
    "newest",
    "taken",
    "age",
    "until",
    "host",
    "snapshots",
    "verified",
    "restored",
)
_RIGHT = {1, 2, 4, 6}
_LOCK_HEADINGS = (
    "snapshot",
    "dataset",
    "until",
    "protected until",
    "gap in days",
    "weakest object",
)
_TRANSFERS = 8  # questions to the store at the same time


@click.command()
@click.option(
    "--locks",
    is_flag=True,
    help="Show for how long each snapshot is protected; asks the store about every object.",
)
@pass_invocation
def status(invocation: Invocation, *, locks: bool) -> int:
    """Show how every dataset stands: newest snapshot, last proof.

    Needs no key. Restored is the last restore or drill. Warns of incomplete snapshots, of what
    should not be in the ledger, and while recovery.key or root.key lie beside
    writer.key. With --locks, exit 5: a lock ends before a snapshot that needs it does.
    """
    repository = invocation.open()
    now = invocation.clock()
    ledger = repository.ledger
    states = [status_of(ledger, dataset, now) for dataset in ledger.datasets()]
    invocation.report_findings(repository)
    invocation.report(repository.unreadable_plans())
    invocation.warn_of_keys_together()
    for state in states:
        _warn(invocation, state)
    protected = _protected(repository, now) if locks else []
    gaps = [(record, found) for record, found in protected if found is not None and found.has_gap]
    for record, found in gaps:
        _warn_of_gap(invocation, record, found, now)
    head_age = max(now - ledger.stored(ledger.records[-1]), timedelta())
    fields = {
        "repository": {
            "id": ledger.repository_id,
            "url": repository.store.url,
            "lock": repository.parameters.lock_mode.value,
            "head": str(repository.head),
            "head_age": int(head_age.total_seconds()),
        },
        "datasets": [_fields(repository, state) for state in states],
        "snapshots": [_lock_fields(repository, record, found, now) for record, found in protected],
    }
    rows = [_lock_row(record, found, now) for record, found in protected if found is not None]
    text = _text(repository, states, head_age, rows)
    invocation.emit("vault/status/v1", fields, text)
    return EXIT_RETENTION if gaps else 0


def _protected(repository: Repository, now: datetime) -> list[Protected]:
    """Every snapshot that is owed."""
    records = owed(repository.ledger, repository.ledger.snapshots(), now)
    with make_workers(1, transfers=_TRANSFERS) as workers:
        found = protections(repository, records, workers)
    return list(zip(records, found, strict=True))


def _warn_of_gap(
    invocation: Invocation, record: Record, protection: Protection, now: datetime
) -> None:
    until = to_rfc3339(protection.until) if protection.until else "no time at all"
    invocation.warn(
        f"snapshot {record.seq} needs {protection.weakest}, which is locked until {until},"
        f" not until {to_rfc3339(protection.promised)}:"
        f" {render.plural(protection.days_to_gap(now) or 0, 'day')} to the gap"
    )


def _warn(invocation: Invocation, state: DatasetStatus) -> None:
    if state.incomplete is not None:
        seq = state.incomplete.seq
        newest = (
            f"newest complete one is {state.newest.seq}" if state.newest else "none is complete"
        )
        invocation.warn(f"snapshot {seq} of {state.dataset} is incomplete; the {newest}")
    for event in (state.verification, state.restore):
        if event is not None and event.verdict == "failed":
            invocation.warn(f"the last {event.type} of {state.dataset} failed (ledger {event.seq})")


def _fields(repository: Repository, state: DatasetStatus) -> dict[str, Any]:
    newest, ledger = state.newest, repository.ledger
    return {
        "dataset": state.dataset,
        "snapshots": state.snapshots,
        "owed": state.owed,
        "newest": newest.seq if newest else None,
        "created": to_rfc3339(ledger.when(newest)) if newest else None,
        "age": int(state.age.total_seconds()) if state.age is not None else None,
        "until": to_rfc3339(ledger.effective_until(newest)) if newest else None,
        "host": signer_name(repository, newest.key_id) if newest else None,
        "size": snapshot_body(newest).counts.size if newest else None,
        "incomplete": state.incomplete.seq if state.incomplete else None,
        "verification": _event_fields(state.verification),
        "restore": _event_fields(state.restore),
    }


def _lock_fields(
    repository: Repository, record: Record, found: Protection | None, now: datetime
) -> dict[str, Any]:
    return {
        "seq": record.seq,
        "dataset": snapshot_body(record).dataset,
        "until": to_rfc3339(repository.ledger.effective_until(record)),
        "protection": protection_fields(found, now),
    }


def _event_fields(event: Event | None) -> dict[str, Any] | None:
    if event is None:
        return None
    return {
        "seq": event.seq,
        "type": event.type,
        "verdict": event.verdict,
        "finished": to_rfc3339(event.finished),
        "snapshot": event.snapshot,
    }


def _text(
    repository: Repository,
    states: Sequence[DatasetStatus],
    head_age: timedelta,
    locks: Sequence[Sequence[str]],
) -> str:
    facts = render.facts(
        {
            "repository": repository.store.url,
            "head": f"{repository.head}, {format_age(head_age)} old",
            "locks": repository.parameters.lock_mode.value,
        }
    )
    if not states:
        return f"{facts}\n\nno snapshots yet"
    rows = [_row(repository, state) for state in states]
    width = render.terminal_width()
    parts = [facts, render.table(_HEADINGS, rows, right=_RIGHT, width=width)]
    if locks:
        parts.append(render.table(_LOCK_HEADINGS, locks, right={0, 4}, width=width))
    return "\n\n".join(parts)


def _row(repository: Repository, state: DatasetStatus) -> Sequence[object]:
    newest, ledger = state.newest, repository.ledger
    return (
        state.dataset,
        newest.seq if newest else "none",
        render.moment(ledger.when(newest)) if newest else "",
        format_age(max(state.age, timedelta())) if state.age is not None else "",
        render.moment(ledger.effective_until(newest)) if newest else "",
        signer_name(repository, newest.key_id) if newest else "",
        f"{state.snapshots:,}",
        _event_text(state.verification),
        _event_text(state.restore),
    )


def _lock_row(record: Record, protection: Protection, now: datetime) -> Sequence[str]:
    dataset = snapshot_body(record).dataset
    until = render.moment(protection.promised)
    return (str(record.seq), dataset, until, *protection_cells(protection, now))


def _event_text(event: Event | None) -> str:
    return f"{render.moment(event.finished)} {event.verdict}" if event else "never"
