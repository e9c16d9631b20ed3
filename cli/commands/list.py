"""`vault list`: which snapshots there are; needs no secret."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import click

from cli.called_bad import warn_of_bad_words
from cli.option_values import format_age
from cli.output import render
from cli.session import Invocation, pass_invocation, signer_name
from vault.clock import to_rfc3339
from vault.errors import ConfigError
from vault.ledger.chain import Ledger
from vault.ledger.records import Record
from vault.ledger.succession import dated_back
from vault.model import body_to_json
from vault.repository.concerned_snapshots import Concerned, concerned_snapshots
from vault.repository.hosts import ID_DIGITS
from vault.repository.repository import Repository, snapshot_body

_HEADINGS = (
    "seq",
    "created",
    "dataset",
    "complete",
    "files",
    "size",
    "added",
    "until",
    "host",
    "key",
)
_RIGHT = {0, 1, 4, 5, 6, 7}
_LONG_RUN = timedelta(hours=24)
_SHOWN = 3  # statements that call a snapshot's packs wrong


@click.command("list")
@click.argument("dataset", required=False)
@pass_invocation
def list_snapshots(invocation: Invocation, dataset: str | None) -> None:
    """List snapshots, newest last.

    Reads only public data: no key is needed beyond the digest of the root.
    Statements that do not count are reported on stderr, and those that call
    packs of these snapshots wrong.
    """
    repository = invocation.open()
    invocation.report_findings(repository)
    records = repository.ledger.snapshots(dataset)
    if dataset is not None and not records:
        known = ", ".join(repository.ledger.datasets()) or "none"
        raise ConfigError(
            f"there is no snapshot of dataset {dataset!r}", hint=f"datasets here: {known}"
        )
    concerned = concerned_snapshots(repository, records)
    warn_of_bad_words(invocation, concerned)
    fields = {
        "repository": repository.ledger.repository_id,
        "head": str(repository.head),
        "snapshots": [
            {**snapshot_fields(repository, record), "called_bad": concerned.of(record.seq)}
            for record in records
        ],
    }
    invocation.emit("vault/list/v1", fields, _text(invocation, repository, records, concerned))


def snapshot_fields(repository: Repository, record: Record) -> dict[str, Any]:
    """A snapshot for JSON: its manifest, where it stands and who wrote it."""
    ledger, body = repository.ledger, snapshot_body(record)
    created, until = ledger.when(record), ledger.effective_until(record)
    claimed = {"created": to_rfc3339(body.created), "until": to_rfc3339(body.until)}
    return {
        "seq": record.seq,
        "head": str(record.head),
        "host": signer_name(repository, record.key_id),
        "key": record.key_id,
        **body_to_json(body),
        "created": to_rfc3339(created),
        "until": to_rfc3339(until),
        "stored": to_rfc3339(ledger.stored(record)),
        "dated_back": back.seq if (back := dated_back(ledger, record)) else None,
        "claimed": claimed if (created, until) != (body.created, body.until) else None,
    }


def _text(
    invocation: Invocation,
    repository: Repository,
    records: Sequence[Record],
    concerned: Concerned,
) -> str:
    headings = list(_HEADINGS)
    headings[1] += f" ({render.zone(invocation.clock())})"
    rows = [_row(repository, record, concerned.of(record.seq)) for record in records]
    return render.table(headings, rows, right=_RIGHT, width=render.terminal_width())


def _taken(ledger: Ledger, record: Record) -> str:
    """When a snapshot was taken, and what is odd about that."""
    taken, back = ledger.when(record), dated_back(ledger, record)
    ran = ledger.stored(record) - taken
    if back is not None:
        return f"{render.moment(taken)} (before {back.seq}, stored later)"
    if ran > _LONG_RUN and not ledger.is_copy:
        return f"{render.moment(taken)} (stored {format_age(ran)} later)"
    return render.moment(taken)


def _row(repository: Repository, record: Record, called_bad: Sequence[int]) -> tuple[object, ...]:
    body = snapshot_body(record)
    counts = body.counts
    said = " ".join(map(str, called_bad[-_SHOWN:])) + (" …" if len(called_bad) > _SHOWN else "")
    return (
        record.seq,
        _taken(repository.ledger, record),
        body.dataset,
        ("yes" if body.complete else "NO") + (f", called wrong by {said}" if said else ""),
        f"{counts.files:,}",
        render.size(counts.size),
        render.size(counts.added_bytes),
        render.moment(repository.ledger.effective_until(record)),
        signer_name(repository, record.key_id),
        record.key_id[:ID_DIGITS],
    )
