"""`vault status`: how the repository and its datasets stand."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import click

from cli import render
from cli.context import Invocation, pass_invocation, signer_name
from cli.values import format_age
from vault.model import from_rfc3339, to_rfc3339
from vault.repository import Repository, snapshot_body
from vault.stats import DatasetStatus, Event, status_of

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


@click.command()
@pass_invocation
def status(invocation: Invocation) -> None:
    """Show how every dataset stands: newest snapshot, last proof.

    Needs no key. Restored is the last restore or drill. Warns of incomplete snapshots, of what
    should not be in the ledger, and while recovery.key or root.key lie beside
    writer.key.
    """
    repository = invocation.open()
    now = invocation.clock()
    ledger = repository.ledger
    states = [status_of(ledger, dataset, now) for dataset in ledger.datasets()]
    invocation.report_findings(repository)
    invocation.warn_of_keys_together()
    for state in states:
        _warn(invocation, state)
    head_age = max(now - ledger.records[-1].modified, timedelta())
    fields = {
        "repository": {
            "id": ledger.repository_id,
            "url": repository.store.url,
            "lock": repository.parameters.lock_mode.value,
            "head": str(repository.head),
            "head_age": int(head_age.total_seconds()),
        },
        "datasets": [_fields(repository, state) for state in states],
    }
    text = _text(repository, states, head_age)
    invocation.emit("vault/status/v1", fields, text)


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
    newest = state.newest
    return {
        "dataset": state.dataset,
        "snapshots": state.snapshots,
        "owed": state.owed,
        "newest": newest.seq if newest else None,
        "created": snapshot_body(newest).created if newest else None,
        "age": int(state.age.total_seconds()) if state.age is not None else None,
        "until": snapshot_body(newest).until if newest else None,
        "host": signer_name(repository, newest.key_id) if newest else None,
        "size": snapshot_body(newest).counts.size if newest else None,
        "incomplete": state.incomplete.seq if state.incomplete else None,
        "verification": _event_fields(state.verification),
        "restore": _event_fields(state.restore),
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


def _text(repository: Repository, states: Sequence[DatasetStatus], head_age: timedelta) -> str:
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
    table = render.table(_HEADINGS, rows, right=_RIGHT, width=render.terminal_width())
    return f"{facts}\n\n{table}"


def _row(repository: Repository, state: DatasetStatus) -> Sequence[object]:
    newest = state.newest
    body = snapshot_body(newest) if newest else None
    return (
        state.dataset,
        newest.seq if newest else "none",
        render.moment(from_rfc3339(body.created)) if body else "",
        format_age(max(state.age, timedelta())) if state.age is not None else "",
        render.moment(from_rfc3339(body.until)) if body else "",
        signer_name(repository, newest.key_id) if newest else "",
        f"{state.snapshots:,}",
        _event_text(state.verification),
        _event_text(state.restore),
    )


def _event_text(event: Event | None) -> str:
    return f"{render.moment(event.finished)} {event.verdict}" if event else "never"
