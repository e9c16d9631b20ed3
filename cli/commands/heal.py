"""`vault heal`: make plain reads meet the right bytes again."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import click

from cli.commands.attest import record_or_keep
from cli.exits import EXIT_DEGRADED, EXIT_INTEGRITY, EXIT_STORAGE, gravest
from cli.output import render
from cli.session import TOOL, Invocation, pass_invocation
from vault.crypto.key_files import RecoveryKey
from vault.custody.heal import Done, HealPlan, HealReport, Step, heal_repository
from vault.custody.needs import when
from vault.ledger.records import Record
from vault.ledger.statements import StatementType, Verdict
from vault.ledger.succession import snapshot_ranges
from vault.machine.workers import QUESTIONS, make_workers
from vault.repository import attestations
from vault.repository.datasets import owed
from vault.repository.repository import Repository
from vault.storage.names import EVIDENCE, LEDGER, PAGES

_HEADINGS = ("action", "version", "of", "object")


@click.command()
@click.option(
    "--execute", "is_execution", is_flag=True, help="Do it; without this it is only shown."
)
@click.option("--no-key", is_flag=True, help="Don't use recovery.key; record nothing.")
@pass_invocation
def heal(invocation: Invocation, *, is_execution: bool, no_key: bool) -> int:
    """Show, and with --execute remove, what hides needed objects from plain reads.

    It removes delete markers and junk versions over needed objects, and junk beside statements
    of the ledger. If a lock keeps one of them, it stores the right bytes again on top, with
    their lock. A statement that only a page of the ledger still has is stored again, locked as
    one. It never removes a version that an inventory names, or bytes that are needed. With
    recovery.key the result is attested in the ledger. vault itself never needs this, as it
    reads the signed versions. An object is called lost if the store answered twice that it is not
    there. Exit 4: something is in the way, stays hidden, is lost, or is left although 'vault
    audit' calls it an error; 13: the store refused to show something.
    """
    repository = invocation.open(afresh=True)
    started = invocation.clock()
    recovery = None
    if is_execution and invocation.secrets.has_recovery_key() and not no_key:
        recovery = invocation.secrets.attesting_key(repository)
    ledger = repository.ledger
    covered = snapshot_ranges(
        ledger.records, {r.seq for r in owed(ledger, ledger.snapshots(), started)}
    )
    with make_workers(1, transfers=QUESTIONS) as workers:
        plan, report = heal_repository(repository, workers=workers, execute=is_execution)
    if report is not None:
        carried_out = sum(not each.refusal for each in report.done)
        invocation.did(f"{carried_out} of {render.plural(len(report.done), 'step')} carried out")
    statement = None
    if not covered:
        recovery = None  # without a snapshot there is no verification to attest
    has_healed = report is not None and any(not each.refusal for each in report.done)
    if report is not None and has_healed and recovery is not None:
        data = _attestation(repository, recovery, plan, report, started=started, covered=covered)
        statement = record_or_keep(invocation, repository, data, recovery)
    fields = {"heal": _fields(plan, report, statement)}
    invocation.emit("vault/heal/v1", fields, _text(plan, report, statement))
    in_the_way = report.hidden if report is not None else plan.repairs
    wrong = in_the_way or plan.lost or any(each.is_wrong for each in plan.left) or plan.unread
    unrecorded = has_healed and recovery is not None and statement is None
    return gravest(
        (
            EXIT_INTEGRITY if wrong else 0,
            EXIT_STORAGE if plan.refused else 0,
            EXIT_DEGRADED if unrecorded else 0,
        )
    )


def _attestation(
    repository: Repository,
    recovery: RecoveryKey,
    plan: HealPlan,
    report: HealReport,
    *,
    started: datetime,
    covered: tuple[tuple[int, int], ...],
) -> bytes:
    """Attestation of a partial verification: only hidden names were checked closely."""
    attestation = attestations.attestation_of(
        repository,
        kind=StatementType.VERIFICATION,
        verdict=Verdict.FAILED if plan.lost or report.hidden or plan.unread else Verdict.PARTIAL,
        snapshot=None,
        started=started,
        tool=TOOL,
        details={
            **report.details(),
            "lost": len(plan.lost),
            "not_shown": len(plan.refused),
            "left": len(plan.left),
        },
        claims={
            "snapshots": covered,
            "share": 0,
            "opened": False,
            "read": 0,
            "through": repository.head.seq,
        },
    )
    return attestations.sign(attestation, recovery.restorer)


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
        "refused": list(plan.refused),
        "left": [each.name for each in plan.left],
        "unread": list(plan.unread),
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
    """A summary in one line first; then each object; the next command last."""
    if report is None:
        rows = [_row(step) for step in plan.steps]
        headings: tuple[str, ...] = _HEADINGS
    else:
        rows = [(*_row(done.step), done.refusal or "done") for done in report.done]
        headings = (*_HEADINGS, "result")
    lines = [_outcome(plan, report)]
    lines += _each("lost", plan.lost, "the store has no right version of it")
    lines += _each("not shown", plan.refused, "the store refuses to show it, it may be right")
    lines += [f"left: {render.printable(each.name)}: {each.reason}" for each in plan.left]
    if plan.unread:
        lines.append(f"not looked at: what {_unread(plan.unread)} can't be used")
    if rows:
        lines.append("\n" + render.table(headings, rows, width=render.terminal_width()) + "\n")
    if report is not None:
        lines.append(f"attested  {statement.head}" if statement else "attested  no")
    if step := _next_step(plan, report):
        lines.append(f"next: {step}")
    return "\n".join(lines)


def _outcome(plan: HealPlan, report: HealReport | None) -> str:
    """The summary in one line; counts an object as healed only after a plain read shows it."""
    hidden = render.plural(len(plan.hidden if report is None else report.hidden), "needed object")
    parts = [f"{hidden} {'hidden' if report is None else 'still hidden'}"]
    parts += [
        f"{len(names):,} {word}"
        for word, names in (("lost", plan.lost), ("not shown", plan.refused), ("left", plan.left))
        if names
    ]
    if plan.unread:
        parts.append(f"{render.plural(len(plan.unread), 'snapshot')} not looked at")
    is_clean = len(parts) == 1 and not (plan.hidden if report is None else report.hidden)
    if is_clean and report is None:
        return "nothing is hidden" + ("; junk hides nothing yet" if plan.repairs else "")
    return ", ".join(parts)


def _each(word: str, names: Sequence[str], problem: str) -> list[str]:
    return [f"{word}: {render.printable(name)}: {problem}" for name in names]


def _next_step(plan: HealPlan, report: HealReport | None) -> str:
    if report is None and plan.repairs:
        return "'vault heal --execute' does it"
    if plan.lost or plan.unread:
        cited = list(filter(_is_cited, plan.lost))
        steps = []
        if plan.unread or len(cited) < len(plan.lost):
            steps.append("'vault verify' says which snapshots and files need what is lost")
        if cited:
            steps.append("'vault audit' says which statements cite it; copy it from a second copy")
        return ", ".join(steps)
    if plan.refused:
        return "with the right to read it: 'vault store iam' prints what each role must be allowed"
    if any(each.is_wrong for each in plan.left):
        return "'vault audit' says what is left, and who signed it"
    if report is not None and report.hidden:
        return "delete or cover them with an account that may, then 'vault heal'"
    return ""


def _unread(seqs: Sequence[int]) -> str:
    if len(seqs) == 1:
        return f"snapshot {seqs[0]} needs: its inventory"
    return f"snapshots {render.numbers(seqs)} need: their inventories"


def _is_cited(name: str) -> bool:
    """Whether statements alone need it: no snapshot does, so `vault verify` would pass."""
    return name.startswith((EVIDENCE, PAGES, LEDGER))


def _row(step: Step) -> tuple[str, ...]:
    return (step.action.value, step.version, when(step.modified), step.name)
