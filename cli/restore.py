"""`vault restore`: put a snapshot's content at a target, proven or not at all."""

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import click

from cli import listing, progress, render
from cli.context import TOOL, Invocation, pass_invocation
from cli.exits import EXIT_DEGRADED
from cli.values import format_age
from vault.ledger import Record
from vault.processes import spare_processors
from vault.repository import Repository, snapshot_body
from vault.restore import (
    BadEntriesError,
    Outcome,
    ProofFailedError,
    RestoreReport,
    RestoreRequest,
    finalize_restore,
    leftovers,
    undo,
)
from vault.restore import restore as restore_snapshot
from vault.restore.prove import ProofReport
from vault.selection import select
from vault.source import matcher
from vault.workers import make_workers


@click.command()
@click.argument("arguments", metavar="[SNAPSHOT] TARGET", nargs=-1, required=True)
@click.option(
    "--verify/--no-verify",
    default=True,
    show_default=True,
    help="Read everything back from disk before TARGET is touched.",
)
@click.option("--replace", is_flag=True, help="TARGET is not empty: exchange it, keep its state.")
@click.option(
    "--include",
    "includes",
    metavar="PATTERN",
    multiple=True,
    help="Only what matches, as in a .gitignore, into a missing or empty TARGET. Repeatable.",
)
@click.option(
    "--drop-privileges",
    is_flag=True,
    help="Leave out set-uid and set-gid bits and capabilities of files.",
)
@click.option("--dry-run", is_flag=True, help="Check and plan; make nothing.")
@click.option("--finalize", is_flag=True, help="Go on with a restore, or remove the former state.")
@click.option("--undo", "undoing", is_flag=True, help="Exchange back to the former state.")
@pass_invocation
def restore(
    invocation: Invocation,
    *,
    arguments: tuple[str, ...],
    verify: bool,
    replace: bool,
    includes: tuple[str, ...],
    drop_privileges: bool,
    dry_run: bool,
    finalize: bool,
    undoing: bool,
) -> int:
    """Put SNAPSHOT's content at TARGET, proven from disk.

    Needs recovery.key. SNAPSHOT is DATASET, DATASET@latest, DATASET@TIME or a
    ledger number. TARGET is changed in one step, after everything was restored
    beside it, read back from the disk and compared with what was signed; if
    anything is wrong TARGET stays as it was. A snapshot with entries that break a
    rule is not restored as a whole (exit 4, naming them); --include steps over
    them (exit 3), and --include "*" gives all but them.

    Afterwards, with --replace: 'vault restore --finalize TARGET' removes the
    former state, 'vault restore --undo TARGET' exchanges it back.
    """
    if finalize and undoing:
        raise click.UsageError("--finalize and --undo exclude each other")
    if finalize or undoing:
        (target,) = _exactly(arguments, 1, "TARGET")
        return _finalize(invocation, Path(target)) if finalize else _undo(invocation, Path(target))
    spec, target = _exactly(arguments, 2, "SNAPSHOT and TARGET")
    repository = invocation.open(afresh=True)
    request = RestoreRequest(
        record=select(repository.ledger, spec),
        target=Path(target),
        tool=TOOL,
        verify=verify,
        replace=replace,
        drop_privileges=drop_privileges,
        dry_run=dry_run,
        wanted=matcher(includes) if includes else None,
        protected=_protected(invocation, repository),
    )
    _say_what(invocation, repository, request.record)
    _warn_of_leftovers(invocation, request.target)
    report = _run(invocation, repository, request)
    if report.outcome is not Outcome.PLANNED:
        shown = render.printable(report.target)
        invocation.did(f"{shown} is {report.outcome}, attested {_where_attested(report)}")
    listing.report_flaws(invocation, request.record.seq, report.flaws)
    invocation.remember(repository)
    fields = {
        **_fields(request.record, report),
        "head": str(repository.head),
        "proven_newest": _has_floor(invocation),
    }
    invocation.emit("vault/restore/v1", {"restore": fields}, _text(request.record, report))
    return exit_code(report)


def _exactly(arguments: Sequence[str], count: int, what: str) -> Sequence[str]:
    if len(arguments) != count:
        raise click.UsageError(f"expected {what}")
    return arguments


def _protected(invocation: Invocation, repository: Repository) -> list[Path]:
    """Places that no restore may replace."""
    places = invocation.places
    url = repository.store.url
    local = [] if "://" in url else [Path(url)]
    return [places.keys, places.state, places.cache, *local]


def _say_what(invocation: Invocation, repository: Repository, record: Record) -> None:
    """Which snapshot was meant; and that nobody vouches for it being the newest."""
    body = snapshot_body(record)
    taken = render.moment(repository.ledger.when(record))
    invocation.note(f"snapshot {record.seq} of {body.dataset}, taken {taken}")
    listing.warn_of_gaps(invocation, record)
    if not _has_floor(invocation):
        age = invocation.clock() - repository.ledger.stored(repository.ledger.records[-1])
        invocation.warn(
            f"not proven newest: the ledger ends with {repository.head.seq}, which is"
            f" {format_age(max(age, timedelta()))} old; --trust SEQ:DIGEST names a later"
            " statement that must be there"
        )


def _warn_of_leftovers(invocation: Invocation, target: Path) -> None:
    """They take room, and nothing else tells of them."""
    for left in leftovers(target):
        invocation.warn(
            f"a restore that was killed, or still runs, has {render.path_text(left)};"
            " 'vault restore --undo TARGET' removes it once none runs"
        )


def _has_floor(invocation: Invocation) -> bool:
    """Whether the operator named a head that must be there; the root alone says nothing of it."""
    return any(floor.seq for floor in invocation.floors)


def _run(invocation: Invocation, repository: Repository, request: RestoreRequest) -> RestoreReport:
    recovery = invocation.recovery_key(repository)
    try:
        with (
            make_workers(processes=spare_processors()) as workers,
            progress.shown(quiet=invocation.options.quiet) as shown,
        ):
            return restore_snapshot(
                repository,
                recovery,
                request,
                scratch=invocation.scratch,
                workers=workers,
                progress=shown,
            )
    except ProofFailedError as error:
        for each in error.proof.mismatches:
            path = render.path_text(each.path)
            invocation.warn(f"{path}: {each.field}: expected {each.expected}, found {each.found}")
        raise
    except BadEntriesError as error:
        listing.report_flaws(invocation, request.record.seq, error.flaws)
        raise


def exit_code(report: RestoreReport) -> int:
    """3 where something could not be restored or recorded, else 0 (design.md 7)."""
    unrecorded = report.outcome is not Outcome.PLANNED and report.statement is None
    return EXIT_DEGRADED if report.left_out or report.flaws or unrecorded else 0


def _finalize(invocation: Invocation, target: Path) -> int:
    repository = invocation.open(afresh=True)
    recovery = invocation.recovery_key(repository)
    with make_workers() as workers:
        journal = finalize_restore(repository, recovery, target, workers=workers, tool=TOOL)
    text = f"restore of snapshot {journal.snapshot} to {render.printable(target)} is final"
    invocation.did(text)
    invocation.remember(repository)
    fields = {"target": str(target.absolute()), "snapshot": journal.snapshot}
    invocation.emit("vault/restore-finalize/v1", {"restore": fields}, text)
    return 0


def _undo(invocation: Invocation, target: Path) -> int:
    journal = undo(target)
    kept = journal is not None
    fields = {"target": str(target.absolute()), "kept": kept}
    shown = render.printable(target)
    text = f"{shown} is as it was before the restore"
    if kept:
        text += "; --finalize exchanges again, --undo removes what was restored"
    invocation.did(text)
    invocation.emit("vault/restore-undo/v1", {"restore": fields}, text)
    return 0


def _fields(record: Record, report: RestoreReport) -> dict[str, object]:
    return {
        "outcome": report.outcome.value,
        "target": render.printable(report.target),
        "snapshot": str(record.head),
        "files": report.files,
        "size": report.size,
        "proof": _proof_fields(report.proof) if report.proof else None,
        "left_out": report.left_out,
        "bad_packs": [name.rpartition("/")[2] for name in report.bad_packs],
        **listing.flaw_fields(report.flaws),
        "atomic": report.atomic,
        "former_kept": report.former,
        "statement": str(report.statement.head) if report.statement else None,
        "attestation_file": str(report.attestation_file) if report.attestation_file else None,
    }


def _proof_fields(proof: ProofReport) -> dict[str, object]:
    return {
        "verdict": proof.verdict.word,
        "entries": proof.entries,
        "files": proof.files,
        "bytes": proof.size,
        "root_matches": proof.root_matches,
        "evidence": {level.word: count for level, count in proof.evidence.items()},
        "skipped": proof.skipped,
    }


def _text(record: Record, report: RestoreReport) -> str:
    facts = {
        "outcome": report.outcome.value,
        "snapshot": f"{record.seq} of {snapshot_body(record).dataset}",
        "target": str(report.target),
        "content": f"{render.plural(report.files, 'file')} with content,"
        f" {render.size(report.size)}",
    }
    if report.proof is not None:
        facts["read back"] = (
            f"{render.plural(report.proof.entries, 'entry')}, {render.size(report.proof.size)},"
            f" {report.proof.weakest.word}"
        )
    if report.left_out:
        facts["left out"] = ", ".join(f"{what}: {n:,}" for what, n in report.left_out.items())
    if report.bad_packs:
        facts["damaged"] = (
            f"{render.plural(len(report.bad_packs), 'pack')}; what was wanted of"
            f" {'it' if len(report.bad_packs) == 1 else 'them'} came from others"
        )
    if report.flaws:
        first = report.flaws.named[0].path
        name = f", first {render.path_text(first)}" if first is not None else ""
        facts["stepped over"] = f"{render.plural(report.flaws.count, 'bad entry')}{name}"
    if report.outcome is not Outcome.PLANNED:
        facts["attested"] = _where_attested(report)
        facts["exchange"] = "in one step" if report.atomic else "not atomic"
    if report.former:
        facts["former state"] = "kept beside it; --finalize removes it, --undo brings it back"
    return render.facts(facts)


def _where_attested(report: RestoreReport) -> str:
    if report.statement is not None:
        return str(report.statement.head)
    return f"not recorded; 'vault attest push {report.attestation_file}' does it later"
