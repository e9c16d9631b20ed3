"""`vault log`: the ledger for people; needs no secret."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import TypeAlias

import click

from cli.option_values import parse_since
from cli.output import render, statement
from cli.output.long_output import emit_table
from cli.session import Invocation, pass_invocation
from vault.ledger.records import Record
from vault.ledger.statements import SnapshotBody, StatementType
from vault.machine.workers import QUESTIONS, in_order, make_workers
from vault.repository.describe_statements import (
    Chronicle,
    CitedEvidence,
    Effect,
    StatementView,
    cited_digest,
    doomed_needs,
    look_up,
)
from vault.repository.repository import Repository

OPENED = 200  # statements whose evidence one log opens, the newest of those it lists
RESOLVED = 50  # snapshots whose needs one log compares with prune plans, the newest it lists

_Opened: TypeAlias = Mapping[int, CitedEvidence]  # by seq

_RIGHT = {0, 1}


@click.command("log")
@click.argument("first", metavar="[SEQ]", type=click.IntRange(min=0), default=0)
@click.option(
    "--type",
    "types",
    type=click.Choice([kind.value for kind in StatementType]),
    multiple=True,
    help="Only statements of this type. Repeatable.",
)
@click.option("--dataset", metavar="DATASET", help="Only what concerns this dataset.")
@click.option(
    "--since",
    metavar="WHEN",
    help="Only what the store took since then: 2026-01-31, '2026-01-31 06:30', or 7d ago.",
)
@pass_invocation
def log(
    invocation: Invocation,
    *,
    first: int,
    types: Sequence[str],
    dataset: str | None,
    since: str | None,
) -> None:
    """List the statements of the ledger, from SEQ on: who did what, when, how it ended.

    Needs no key. The time is the store's, or in a copied store the signers' own. The evidence of
    restores, drills, verifications and prune plans is opened and compared with them, for the
    newest 200 listed. A void statement has no effect; a distrusted one had one, until a later
    statement took it back. 'vault show SEQ' shows all of one.
    """
    repository = invocation.open()
    now = invocation.clock()
    chronicle = Chronicle(repository.ledger)
    records = chronicle.choose(
        types=types,
        dataset=dataset,
        since=parse_since(since, now) if since is not None else None,
        first=first,
    )
    evidence = _opened(repository, records)
    doomed = _doomed(repository, records)
    views = map(chronicle.view, records)
    if invocation.options.json:
        for view in views:
            seq = view.record.seq
            fields = statement.view_fields(view, evidence.get(seq))
            render.emit_json("vault/log/v1", statement={**fields, "doomed": doomed.get(seq)})
    else:
        copied = repository.ledger.is_copy
        rows = _rows(views, evidence, doomed, copied=copied)
        emit_table(_headings(now, copied=copied), rows, right=_RIGHT)
    for seq, cited in evidence.items():
        if cited.problem:
            invocation.warn(f"ledger {seq}: what it cites does not bear it out: {cited.problem}")


def _opened(repository: Repository, records: Sequence[Record]) -> dict[int, CitedEvidence]:
    """The evidence that the newest of these statements cite."""
    citing = [record for record in records if cited_digest(record)][-OPENED:]
    with make_workers(1, transfers=QUESTIONS) as workers:
        asked = in_order(
            workers.transfer, lambda record: look_up(repository, record), citing, limit=QUESTIONS
        )
        found = {record.seq: future.result() for record, future in asked}
    return {seq: cited for seq, cited in found.items() if cited is not None}


def _doomed(repository: Repository, records: Sequence[Record]) -> dict[int, int | None]:
    """Of each snapshot that is looked up: how many of its objects plans name, None if unknown."""
    snapshots = [each for each in records if isinstance(each.body, SnapshotBody)]
    if not repository.plans.doomed():
        return {record.seq: 0 for record in snapshots}
    counting = [record for record in snapshots if not record.reason][-RESOLVED:]
    return {record.seq: doomed_needs(repository, record) for record in counting}


def _headings(now: datetime, *, copied: bool) -> Sequence[str]:
    time = "signed" if copied else "stored"
    return ("seq", f"{time} ({render.zone(now)})", "type", "signed by", "outcome", "what")


def _rows(
    views: Iterator[StatementView],
    evidence: _Opened,
    doomed: Mapping[int, int | None],
    *,
    copied: bool,
) -> Iterator[Sequence[object]]:
    for view in views:
        record = view.record
        cited = evidence.get(record.seq)
        opened = cited is not None or not cited_digest(record)
        own = record.time if record.time is not None else view.stored
        yield (
            record.seq,
            render.moment(own if copied else view.stored),
            record.type,
            statement.signer_text(view.signers),
            statement.effect_text(view, cited, opened=opened),
            "; ".join(filter(None, _parts(view, cited, doomed.get(record.seq, 0), copied=copied))),
        )


def _parts(
    view: StatementView, cited: CitedEvidence | None, doomed: int | None, *, copied: bool
) -> Iterator[str]:
    """The notes on a statement beside its outcome."""
    record = view.record
    yield statement.deed(record.body)
    if view.effect in (Effect.VOID, Effect.UNKNOWN):
        yield record.reason
    if cited is not None and cited.objects is not None:
        yield statement.plan_text(cited.objects, dooms=view.dooms)
    yield statement.doom_text(doomed)
    if view.is_skewed and not copied and record.time is not None:
        yield f"its own time is {render.moment(record.time)}"
