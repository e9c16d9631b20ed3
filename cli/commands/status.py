"""`vault status`: how the repository and its datasets stand."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, TypeAlias

import click

from cli.called_bad import bad_word_fields, warn_of_bad_words
from cli.commands.audit import protection_cells, protection_fields
from cli.exits import EXIT_DEGRADED, EXIT_INTEGRITY, EXIT_OBJECTIVE, EXIT_RETENTION, gravest
from cli.option_values import format_age
from cli.output import render
from cli.session import Invocation, pass_invocation, signer_name
from cli.witnessed import witnessed_fields, witnessed_text
from vault.clock import to_rfc3339
from vault.custody.protection import Protection, protections
from vault.custody.sampling import Coverage, coverage
from vault.durations import parse_duration
from vault.ledger.checkpoints import Standing
from vault.ledger.records import Record
from vault.ledger.statements import WHOLE_SHARE, Verdict
from vault.machine.workers import QUESTIONS, make_workers
from vault.repository.bad_packs import BadPackMemory
from vault.repository.concerned_snapshots import concerned_snapshots
from vault.repository.dataset_status import Check, Cited, DatasetStatus, Trouble, status_of
from vault.repository.datasets import owed
from vault.repository.heartbeats import silent_hosts
from vault.repository.repository import Repository, snapshot_body
from vault.repository.vouching import witnessed_now

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
EXITS = {
    Trouble.FAILED: EXIT_INTEGRITY,
    Trouble.OBJECTIVE: EXIT_OBJECTIVE,
    Trouble.INCOMPLETE: EXIT_DEGRADED,
}


@click.command()
@click.option(
    "--locks",
    is_flag=True,
    help="Show for how long each snapshot is protected; asks the store about every object.",
)
@click.option("--check", is_flag=True, help="End with an exit code that says what is wrong.")
@click.option(
    "--max-age",
    type=parse_duration,
    metavar="AGE",
    help="With --check: how old the newest complete snapshot of each dataset may be: 26h.",
)
@pass_invocation
def status(invocation: Invocation, *, locks: bool, check: bool, max_age: timedelta | None) -> int:
    """Show how every dataset stands: newest snapshot, last proof.

    Needs no key. The columns verified and restored (or drilled) are about the newest complete
    snapshot, or name an older one. A failure stays until the same snapshot passes; a check of a
    part does not replace a whole one. Warns of incomplete snapshots, of statements that call packs
    wrong and the snapshots that need these, of what should not be in the ledger, of events that
    their attestation does not support, and while recovery.key or root.key lie beside writer.key.
    Exit 5 with --locks: a lock ends before a snapshot that needs it does. With --check, the
    gravest of 4: a check of a newest snapshot failed; 5; 6: one is older than --max-age, or there
    is none, or a host did not sign by the time that it gave itself; 3: the newest is incomplete.
    Exit 6, --check or not: no witness saw the ledger lately.
    """
    repository = invocation.open()
    now = invocation.clock()
    ledger = repository.ledger
    cited = Cited(repository, BadPackMemory(invocation.places.state))
    states = [status_of(ledger, dataset, now, cited) for dataset in ledger.datasets()]
    invocation.report_findings(repository)
    invocation.report((*repository.plans.unreadable(), *repository.heavy_plans()))
    invocation.report(cited.findings)
    invocation.secrets.warn_of_keys_together()
    for state in states:
        _warn(invocation, state, max_age)
    concerned = concerned_snapshots(repository, owed(ledger, ledger.snapshots(), now))
    warn_of_bad_words(invocation, concerned)
    protected = _protected(repository, now) if locks else []
    gaps = [(record, found) for record, found in protected if found is not None and found.has_gap]
    for record, found in gaps:
        _warn_of_gap(invocation, record, found, now)
    doubted = sorted(cited.doubted)
    head_age = max(now - ledger.stored(ledger.records[-1]), timedelta())
    troubles = {trouble for state in states for trouble in state.troubles(max_age)}
    if max_age is not None and not states:
        troubles.add(Trouble.OBJECTIVE)
    records = owed(ledger, ledger.snapshots(), now)
    read_back = coverage(ledger, records, cited.believes)
    witnessed = witnessed_now(repository)
    frozen = EXIT_OBJECTIVE if witnessed.standing is Standing.FROZEN else 0
    silent = list(silent_hosts(ledger, now))
    invocation.report(each.finding for each in silent)
    if silent:
        troubles.add(Trouble.OBJECTIVE)
    codes = [*(EXITS[trouble] for trouble in troubles), EXIT_RETENTION if gaps else 0, frozen]
    fields = {
        "exit_code": gravest(codes),
        "repository": {
            "id": ledger.repository_id,
            "url": repository.store.url,
            "lock": repository.parameters.lock_mode.value,
            "head": str(repository.head),
            "head_age": int(head_age.total_seconds()),
        },
        "witnessed": witnessed_fields(witnessed),
        "silent": [
            {"host": each.host, "key": each.key_id, "next_by": to_rfc3339(each.next_by)}
            for each in silent
        ],
        "read_back": _coverage_fields(read_back),
        "not_believed": doubted,
        "called_bad": [bad_word_fields(word) for word in concerned.words],
        "datasets": [_fields(repository, state, max_age) for state in states],
        "snapshots": [_lock_fields(repository, record, found, now) for record, found in protected],
    }
    rows = [_lock_row(record, found, now) for record, found in protected if found is not None]
    facts = {**_outcome(states, max_age, doubted), **_facts(repository, head_age)}
    if witnessed.standing is not Standing.UNASKED:
        facts["witnessed"] = witnessed_text(witnessed)
    if records:
        facts["read back"] = _coverage_text(read_back, now - ledger.when(records[0]), now)
    invocation.emit("vault/status/v1", fields, _text(repository, states, facts, rows))
    if check or max_age is not None:
        return gravest(codes)
    return gravest((EXIT_RETENTION if gaps else 0, frozen))


def _protected(repository: Repository, now: datetime) -> list[Protected]:
    """Every snapshot that is owed."""
    records = owed(repository.ledger, repository.ledger.snapshots(), now)
    with make_workers(1, transfers=QUESTIONS) as workers:
        found = protections(repository, records, workers)
    return list(zip(records, found, strict=True))


def _coverage_fields(state: Coverage) -> dict[str, Any]:
    return {
        "slices": state.slices,
        "unread": state.unread,
        "since": to_rfc3339(state.since) if state.since else None,
        "through": state.through,
        "failed": state.failed,
    }


def _coverage_text(state: Coverage, oldest: timedelta, now: datetime) -> str:
    """The time within which every byte was read back, or which packs were not read back yet."""
    if state.since is not None:
        age = format_age(max(now - state.since, timedelta()))
        what = "every object was asked for" if state.failed else "every byte"
        wrong = "; not all was there and right" if state.failed else ""
        return f"{what} within {age}, of snapshots up to {state.through}{wrong}"
    unread = (
        "nothing whole"
        if state.unread == state.slices
        else (f"{state.unread} of {state.slices} slices never")
    )
    return f"{unread}, since the oldest was stored {format_age(max(oldest, timedelta()))} ago"


def _warn_of_gap(
    invocation: Invocation, record: Record, protection: Protection, now: datetime
) -> None:
    until = to_rfc3339(protection.until) if protection.until else "no time at all"
    invocation.warn(
        f"snapshot {record.seq} needs {protection.weakest}, which is locked until {until},"
        f" not until {to_rfc3339(protection.promised)}:"
        f" {render.plural(protection.days_to_gap(now) or 0, 'day')} to the gap"
    )


def _warn(invocation: Invocation, state: DatasetStatus, max_age: timedelta | None) -> None:
    for check in state.failures:
        invocation.warn(_failure(check, state.dataset))
    if state.seen_here and state.newest is not None:
        invocation.warn(
            f"snapshot {state.newest.seq} of {state.dataset} needs"
            f" {render.plural(state.seen_here, 'pack')} that a verification on this host found"
            " wrong; it had no recovery key to sign that with"
        )
    if Trouble.OBJECTIVE in state.troubles(max_age):
        invocation.warn(f"{state.dataset}: {_age_text(state)}, older than asked for")
    if state.incomplete is not None:
        seq = state.incomplete.seq
        newest = (
            f"newest complete one is {state.newest.seq}" if state.newest else "none is complete"
        )
        invocation.warn(f"snapshot {seq} of {state.dataset} is incomplete; the {newest}")


def _failure(check: Check, dataset: str) -> str:
    if check.spoiled:
        return (
            f"snapshot {check.snapshot} of {dataset} needs a pack that a {check.type} found wrong"
            f" (ledger {check.seq})"
        )
    which = f"the last {check.type} of snapshot {check.snapshot} of {dataset}"
    return f"{which} failed (ledger {check.seq})"


def _age_text(state: DatasetStatus) -> str:
    if state.newest is None or state.age is None:
        return "no snapshot is complete"
    age = format_age(max(state.age, timedelta()))
    return f"the newest complete snapshot, {state.newest.seq}, is {age} old"


def _outcome(
    states: Sequence[DatasetStatus], max_age: timedelta | None, doubted: Sequence[int]
) -> dict[str, str]:
    """The problem in one line, and the command to try next; claims only what was checked.

    Args:
        states: Of the datasets.
        max_age: That was asked for.
        doubted: Statements that what they cite does not bear out.
    """
    failed = [state for state in states if any(not each.spoiled for each in state.failures)]
    spoiled = [
        state for state in states if state not in failed and (state.failures or state.seen_here)
    ]
    old = [state for state in states if Trouble.OBJECTIVE in state.troubles(max_age)]
    incomplete = [state for state in states if state.incomplete is not None]
    parts = [
        f"{problem}: {', '.join(state.dataset for state in group)}"
        for problem, group in (
            ("a check of the newest snapshot failed", failed),
            ("the newest snapshot needs a pack that was found wrong", spoiled),
            ("no complete snapshot young enough", old),
            ("the newest snapshot is incomplete", incomplete),
        )
        if group
    ]
    if doubted:
        statements = ", ".join(f"ledger {seq}" for seq in doubted)
        parts.append(
            f"not believed, as what it cites is missing or says something else: {statements}"
        )
    if not states:
        return {"state": "no snapshots yet"}
    if not parts:
        unchecked = [state.dataset for state in states if not _is_checked(state)]
        known = "nothing is known to be wrong"
        return {"state": known + (f"; not verified: {', '.join(unchecked)}" if unchecked else "")}
    facts = {"wrong": "; ".join(parts)}
    if failed or spoiled:
        seq = _first_wrong((failed or spoiled)[0])
        facts["next"] = f"'vault verify {seq}' says what is wrong, and which snapshots are whole"
    elif doubted:
        facts["next"] = "'vault audit' names what is cited; copy it back from a second copy"
    elif old or incomplete:
        facts["next"] = f"'vault snapshot' of {(old or incomplete)[0].dataset}, and what it says"
    return facts


def _first_wrong(state: DatasetStatus) -> int:
    """Number of the snapshot that something is wrong with."""
    if state.failures:
        return state.failures[0].snapshot
    assert state.newest is not None
    return state.newest.seq


def _is_checked(state: DatasetStatus) -> bool:
    """Whether a whole verification of the newest complete snapshot passed."""
    check = state.verification
    return (
        check is not None
        and state.newest is not None
        and (check.snapshot, check.verdict) == (state.newest.seq, Verdict.PASSED)
    )


def _fields(
    repository: Repository, state: DatasetStatus, max_age: timedelta | None
) -> dict[str, Any]:
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
        "verification": _check_fields(state.verification),
        "restore": _check_fields(state.restore),
        "seen_here": state.seen_here,
        "troubles": sorted(trouble.value for trouble in state.troubles(max_age)),
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


def _check_fields(check: Check | None) -> dict[str, Any] | None:
    if check is None:
        return None
    return {
        "seq": check.seq,
        "type": check.type,
        "verdict": check.verdict,
        "finished": to_rfc3339(check.finished),
        "snapshot": check.snapshot,
        "share": check.share,
        "slice": list(check.slice) if check.slice else None,
        "opened": check.opened,
        "spoiled": check.spoiled,
    }


def _facts(repository: Repository, head_age: timedelta) -> dict[str, str]:
    return {
        "repository": repository.store.url,
        "head": f"{repository.head}, {format_age(head_age)} old",
        "locks": repository.parameters.lock_mode.value,
    }


def _text(
    repository: Repository,
    states: Sequence[DatasetStatus],
    facts: Mapping[str, str],
    locks: Sequence[Sequence[str]],
) -> str:
    if not states:
        return render.facts(facts)
    rows = [_row(repository, state) for state in states]
    width = render.terminal_width()
    parts = [render.facts(facts), render.table(_HEADINGS, rows, right=_RIGHT, width=width)]
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
        _check_text(state.verification, newest),
        _check_text(state.restore, newest),
    )


def _lock_row(record: Record, protection: Protection, now: datetime) -> Sequence[str]:
    dataset = snapshot_body(record).dataset
    until = render.moment(protection.promised)
    return (str(record.seq), dataset, until, *protection_cells(protection, now))


def _check_text(check: Check | None, newest: Record | None) -> str:
    """When, how it ended, how much of it was looked at, and of which snapshot if not the newest."""
    if check is None:
        return "never"
    verdict = "a pack is wrong" if check.spoiled else check.verdict
    text = f"{render.moment(check.finished)} {verdict}"
    if check.slice is not None:
        text += f", slice {check.slice[0] + 1} of {check.slice[1]}"
    elif check.share < WHOLE_SHARE and not check.failed:
        text += f", {check.share * 100 // WHOLE_SHARE or 'under 1'} % read"
    if not check.opened and not check.spoiled:
        text += ", not opened"
    if newest is None or check.snapshot != newest.seq:
        text += f" (snapshot {check.snapshot})"
    return text
