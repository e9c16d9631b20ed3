"""`vault heal`: make plain reads meet the right bytes again."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import click

from cli import render
from cli.attest import record_or_keep
from cli.context import TOOL, Invocation, pass_invocation
from cli.exits import EXIT_DEGRADED, EXIT_INTEGRITY
from vault import attest
from vault.audit.needs import when
from vault.heal import Done, Healer, HealPlan, HealReport, Step
from vault.keyfile import RecoveryKey
from vault.ledger import Record
from vault.repository import Repository
from vault.stats import owed
from vault.workers import make_workers

_TRANSFERS = 8  # questions to the store at the same time
_HEADINGS = ("action", "version", "of", "object")


@click.command()
@click.option("--execute", "is_execution", is_flag=True, help="Do it; else it is only shown.")
@click.option("--no-key", is_flag=True, help="Don't use recovery.key; record nothing.")
@pass_invocation
def heal(invocation: Invocation, *, is_execution: bool, no_key: bool) -> int:
    """Show, and with --execute remove, what hides needed objects from plain reads.

    Delete markers and junk versions over needed objects, and junk beside statements of
    the ledger, are removed where no lock keeps them; else the right bytes are stored
    again on top, with the lock they have. Never removed: what an inventory names, and
    bytes that are needed. With recovery.key what was done is attested in the ledger.
    vault itself never needs this: it reads the signed versions. Exit 4: something is in
    the way, or stays hidden or lost.
    """
    repository = invocation.open(afresh=True)
    started = invocation.clock()
    recovery = None
    if is_execution and invocation.has_recovery_key() and not no_key:
        recovery = invocation.recovery_key(repository)
    ledger = repository.ledger
    covered = ledger.ranges({r.seq for r in owed(ledger, ledger.snapshots(), started)})
    with make_workers(1, transfers=_TRANSFERS) as workers:
        healer = Healer(repository, workers)
        plan = healer.plan()
        report = healer.execute(plan) if is_execution else None
    statement = None
    if not covered:
        recovery = None  # a verification is of some snapshot
    if report is not None and report.done and recovery is not None:
        data = _attestation(repository, recovery, plan, report, started=started, covered=covered)
        statement = record_or_keep(invocation, repository, data, recovery)
    fields = {"heal": _fields(plan, report, statement)}
    invocation.emit("vault/heal/v1", fields, _text(plan, report, statement))
    in_the_way = report.hidden if report is not None else plan.repairs
    if in_the_way or plan.lost:
        return EXIT_INTEGRITY
    unrecorded = report is not None and report.done and recovery is not None and statement is None
    return EXIT_DEGRADED if unrecorded else 0


def _attestation(
    repository: Repository,
    recovery: RecoveryKey,
    plan: HealPlan,
    report: HealReport,
    *,
    started: datetime,
    covered: tuple[tuple[int, int], ...],
) -> bytes:
    """Of a partial verification: only names that were hidden were looked at closely."""
    attestation = attest.describe(
        repository,
        kind="verification",
        verdict="failed" if plan.lost or report.hidden else "partial",
        snapshot=None,
        started=started,
        tool=TOOL,
        details={**report.details(), "lost": len(plan.lost)},
        claims={
            "snapshots": covered,
            "share": 0,
            "opened": False,
            "read": 0,
            "through": repository.head.seq,
        },
    )
    return attest.sign(attestation, recovery.restorer)


def _fields(plan: HealPlan, report: HealReport | None, statement: Record | None) -> dict[str, Any]:
    if report is None:
        steps = [{**_step_fields(step), "done": None, "refusal": None} for step in plan.steps]
    else:
        steps = [_done_fields(done) for done in report.done]
    return {
        "executed": report is not None,
        "steps": steps,
        "hidden": plan.hidden if report is None else list(report.hidden),
        "lost": list(plan.lost),
        "statement": str(statement.head) if statement else None,
    }


def _step_fields(step: Step) -> Mapping[str, Any]:
    return {
        "action": step.action.value,
        "name": step.name,
        "version": step.version,
        "size": step.size,
        "modified": when(step.modified),
    }


def _done_fields(done: Done) -> dict[str, Any]:
    return {
        **_step_fields(done.step),
        "done": not done.refusal,
        "refusal": done.refusal or None,
    }


def _text(plan: HealPlan, report: HealReport | None, statement: Record | None) -> str:
    lines: list[str] = []
    if report is None:
        rows = [_row(step) for step in plan.steps]
        headings: tuple[str, ...] = _HEADINGS
    else:
        rows = [(*_row(done.step), done.refusal or "done") for done in report.done]
        headings = (*_HEADINGS, "result")
    if rows:
        lines.append(render.table(headings, rows, width=render.terminal_width()) + "\n")
    lines += [f"lost: {render.printable(name)}: no right version is left" for name in plan.lost]
    if report is None:
        hidden = render.plural(len(plan.hidden), "needed object")
        lines.append(f"{hidden} hidden; --execute changes that" if rows else "nothing is hidden")
    else:
        lines.append(f"{render.plural(len(report.hidden), 'needed object')} still hidden")
        lines.append(f"attested  {statement.head}" if statement else "attested  no")
    return "\n".join(lines)


def _row(step: Step) -> tuple[str, ...]:
    return (step.action.value, step.version, when(step.modified), step.name)
