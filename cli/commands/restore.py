"""`vault restore`: put a snapshot's content at a target, proven or not at all."""

import contextlib
import os
import platform
import pwd
from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from cli import snapshot_views
from cli.called_bad import warn_of_chosen
from cli.exits import EXIT_DEGRADED, exit_code_of, gravest
from cli.output import entry_text, progress, render, restore_failure
from cli.session import TOOL, Invocation, pass_invocation, publisher_fields, publisher_text
from cli.warrant_choice import chosen_request, warrant_option
from cli.witnessed import vouching_of
from vault.crypto.key_files import RecoveryKey
from vault.errors import ConfigError, VaultError
from vault.ledger.records import Record
from vault.machine.processes import spare_processors
from vault.machine.workers import make_workers
from vault.patterns import matcher
from vault.repository.concerned_snapshots import concerned_snapshots
from vault.repository.hosts import ID_DIGITS, PublishedBy, published_by
from vault.repository.repository import NO_SNAPSHOT_MENDS, Repository, snapshot_body
from vault.restore import (
    BadEntriesError,
    Course,
    Exchange,
    Finalized,
    Local,
    RestoreOutcome,
    RestoreReport,
    RestoreRequest,
    finalize_restore,
    leftovers,
    restore_snapshot,
    undo_restore,
    undo_restore_from,
)
from vault.restore.attesting import NOT_REPEATED
from vault.restore.prove import ProofReport

_MAX_NAMED = 5  # directories beside TARGET that are listed


@click.command()
@click.argument("arguments", metavar="[SNAPSHOT] TARGET", nargs=-1)
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
@click.option(
    "--shared-parent",
    is_flag=True,
    help="Others can write the directory around TARGET: compare who owns what, and attest it.",
)
@warrant_option
@click.option("--void", is_flag=True, help="SNAPSHOT is the number of one that does not count.")
@click.option("--dry-run", is_flag=True, help="Check and plan; make nothing.")
@click.option("--finalize", is_flag=True, help="Go on with a restore, or remove the former state.")
@click.option("--prove", is_flag=True, help="With --finalize: read TARGET back again first.")
@click.option("--undo", "undoing", is_flag=True, help="Exchange back to the former state.")
@click.option(
    "--from",
    "note",
    metavar="NOTE",
    help="With --undo: the journal is lost; exchange the names as this note beside TARGET says.",
)
@click.option("--yes", is_flag=True, help="With --from: do not ask.")
@pass_invocation
def restore(
    invocation: Invocation,
    *,
    arguments: tuple[str, ...],
    verify: bool,
    replace: bool,
    includes: tuple[str, ...],
    drop_privileges: bool,
    shared_parent: bool,
    warrant: str | None,
    void: bool,
    dry_run: bool,
    finalize: bool,
    prove: bool,
    undoing: bool,
    note: str | None,
    yes: bool,
) -> int:
    """Put SNAPSHOT's content at TARGET, proven from disk.

    Needs recovery.key. SNAPSHOT is DATASET, DATASET@latest, DATASET@TIME or a
    ledger number. TARGET is changed in one step, after everything was restored
    beside it, read back from the disk and compared with what was signed; if
    anything is wrong TARGET stays as it was. A snapshot with entries that break a
    rule is not restored as a whole (exit 4, naming them); --include steps over
    them (exit 3), and --include "*" gives all but them.

    Afterwards, with --replace: 'vault restore --finalize TARGET' removes the
    former state, 'vault restore --undo TARGET' exchanges it back. Both need the
    journal in the state directory of the user who restored. If that is lost,
    'vault restore --undo --from NOTE' asks, and exchanges the two names as the
    note beside TARGET says; nothing is removed.
    """
    _check_combination(finalize=finalize, prove=prove, undoing=undoing, note=note, yes=yes)
    if note is not None:
        return _undo_from(invocation, Path(note), arguments, yes=yes)
    if finalize or undoing:
        (given,) = _exactly(arguments, 1, "TARGET")
        if finalize:
            return _finalize(invocation, Path(given), again=prove)
        return _undo(invocation, Path(given))
    spec, target = _exactly(arguments, 2, "SNAPSHOT and TARGET")
    repository = invocation.open(afresh=True)
    agreed = chosen_request(repository, warrant)
    request = RestoreRequest(
        record=invocation.snapshot(repository, spec, void=void),
        target=Path(target),
        tool=TOOL,
        verify=verify,
        replace=replace,
        drop_privileges=drop_privileges,
        dry_run=dry_run,
        wanted=matcher(includes) if includes else None,
        shared_parent=shared_parent,
        void=void,
        protected=_protected(invocation, repository),
        agreed=None if agreed is None else agreed.request,
    )
    who = published_by(repository.ledger, request.record)
    newest_by = _say_what(invocation, repository, request.record, who)
    course = Course()
    with _explaining(invocation, request, course):
        _warn_of_leftovers(invocation, request.target)
        report = _run(invocation, repository, request, course)
    if report.outcome is not RestoreOutcome.PLANNED:
        shown = render.printable(report.target)
        invocation.did(f"{shown} is {report.outcome}, attested {_where_attested(report)}")
    snapshot_views.report_flaws(invocation, request.record.seq, report.flaws)
    invocation.remember(repository)
    fields = {
        **_fields(who, request.record, report),
        "head": str(repository.head),
        "proven_newest": newest_by is not None,
        "newest_by": newest_by,
    }
    invocation.emit("vault/restore/v1", {"restore": fields}, _text(who, request.record, report))
    for trouble in report.troubles:
        invocation.warn(f"TARGET is the new state, but: {trouble}")
    return restore_exit(report)


def _check_combination(
    *, finalize: bool, prove: bool, undoing: bool, note: str | None, yes: bool
) -> None:
    if finalize and undoing:
        raise click.UsageError("--finalize and --undo exclude each other")
    if prove and not finalize:
        raise click.UsageError("--prove belongs to --finalize")
    if note is not None and not undoing:
        raise click.UsageError("--from belongs to --undo")
    if yes and note is None:
        raise click.UsageError("--yes belongs to --undo --from")


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


def _say_what(
    invocation: Invocation, repository: Repository, record: Record, who: PublishedBy
) -> str | None:
    """Note which snapshot "latest" means; gives what vouches for it being the newest."""
    body = snapshot_body(record)
    taken = render.moment(repository.ledger.when(record))
    invocation.note(
        f"snapshot {record.seq} of {body.dataset}, taken {taken}, published by"
        f" {publisher_text(who)}"
    )
    _warn_of_another_key(invocation, record, who)
    warn_of_chosen(invocation, concerned_snapshots(repository, [record]))
    snapshot_views.warn_of_gaps(invocation, record)
    return vouching_of(invocation, repository)


def _warn_of_another_key(invocation: Invocation, record: Record, who: PublishedBy) -> None:
    """A stolen key of a host that shares the dataset can't pass for the one before."""
    if who.before is None:
        return
    if who.rotated_at is not None:
        invocation.note(f"the key of {who.host} was rotated at {who.rotated_at}")
        return
    invocation.warn(
        f"snapshot {record.seq} has another key than snapshot {who.before.seq} of the same dataset,"
        f" which {who.before_host} {who.before.key_id[:ID_DIGITS]} published:"
        f" 'vault log --dataset {snapshot_body(record).dataset}' shows who wrote what"
    )


def _warn_of_leftovers(invocation: Invocation, target: Path) -> None:
    """They take room, and no other command mentions them."""
    left = leftovers(target, state=invocation.places.state)
    for path in left.killed:
        invocation.warn(
            f"a restore that was killed, or still runs, has {path};"
            " 'vault restore --undo TARGET' removes it once none runs"
        )
    for each in left.unknown[:_MAX_NAMED]:
        said = ""
        if each.note is not None:
            said = f" (its note says: by user {each.note.user} on {each.note.host})"
        invocation.warn(
            f"{each.path} is of a restore that this user has no journal of{said}; it may be"
            " the former state of TARGET, and is left alone"
        )
    if len(left.unknown) > _MAX_NAMED:
        invocation.warn(f"and {len(left.unknown) - _MAX_NAMED:,} more beside it")


def _run(
    invocation: Invocation, repository: Repository, request: RestoreRequest, course: Course
) -> RestoreReport:
    with (
        make_workers(processes=spare_processors()) as workers,
        progress.shown(quiet=invocation.options.quiet) as shown,
    ):
        return restore_snapshot(
            repository,
            invocation.secrets.attesting_key(repository),
            request,
            local=_local(invocation),
            scratch=invocation.scratch,
            workers=workers,
            progress=shown,
            course=course,
        )


@contextlib.contextmanager
def _explaining(invocation: Invocation, request: RestoreRequest, course: Course) -> Iterator[None]:
    """However the restore ends, print what it leaves and what an operator can do."""
    try:
        yield
    except BaseException as error:
        if isinstance(error, BadEntriesError):
            snapshot_views.report_flaws(invocation, request.record.seq, error.flaws)
        if isinstance(error, VaultError) and (error.hint or "").startswith(NO_SNAPSHOT_MENDS):
            error.hint = None  # the notes have it in its place
        for note in restore_failure.notes(error, request, course):
            error.add_note(note)
        raise


def _local(invocation: Invocation) -> Local:
    """The directory of this user's journals, and the user and host for notes and attestations."""
    try:
        user = pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        user = str(os.geteuid())
    return Local(state=invocation.places.state, host=platform.node(), user=user)


def restore_exit(report: RestoreReport) -> int:
    """Exit code: that of an error after the exchange; 3 if something is left out or unrecorded."""
    unrecorded = report.outcome is not RestoreOutcome.PLANNED and report.statement is None
    degraded = EXIT_DEGRADED if report.left_out or report.flaws or unrecorded else 0
    return gravest([degraded, *map(exit_code_of, report.troubles)])


def _finalize(invocation: Invocation, target: Path, *, again: bool) -> int:
    def keys() -> tuple[Repository, RecoveryKey]:
        opened = invocation.open(afresh=True)
        repositories.append(opened)
        return opened, invocation.secrets.attesting_key(opened)

    repositories: list[Repository] = []
    with make_workers() as workers:
        final = finalize_restore(
            keys,
            target,
            local=_local(invocation),
            scratch=lambda: invocation.scratch,
            workers=workers,
            tool=TOOL,
            again=again,
        )
    seq = final.journal.subject.snapshot
    text = f"restore of snapshot {seq} to {render.printable(target)} is final"
    if final.not_repeated:
        text += f"; attested as partial: {NOT_REPEATED} ({render.printable(final.not_repeated)})"
    invocation.did(text)
    for repository in repositories:
        invocation.remember(repository)
    fields = {
        "target": str(target.absolute()),
        "snapshot": seq,
        "verdict": final.verdict,
        "not_repeated": final.not_repeated,
        "statement": str(final.statement.head) if final.statement else None,
        "attestation_file": str(final.attestation_file) if final.attestation_file else None,
    }
    invocation.emit("vault/restore-finalize/v1", {"restore": fields}, text)
    if final.attestation_file:
        invocation.warn(f"not recorded; 'vault attest push {final.attestation_file}' does it later")
    return EXIT_DEGRADED if _is_less(final) else 0


def _is_less(final: Finalized) -> bool:
    """Whether less is attested than a finished restore should have."""
    return final.not_repeated is not None or final.attestation_file is not None


def _undo(invocation: Invocation, target: Path) -> int:
    undone = undo_restore(target, state=invocation.places.state)
    fields = {
        "target": str(target.absolute()),
        "kept": undone.journal is not None,
        "beside": str(undone.beside) if undone.beside else None,
    }
    shown = render.printable(target)
    text = f"{shown} is as it was before the restore"
    if undone.beside is not None:
        beside = render.printable(undone.beside)
        text += f"; what was restored is {beside}: --finalize exchanges again, --undo removes it"
    invocation.did(text)
    invocation.emit("vault/restore-undo/v1", {"restore": fields}, text)
    return 0


def _undo_from(invocation: Invocation, note: Path, arguments: Sequence[str], *, yes: bool) -> int:
    """Without a journal a person decides."""
    targets = {str(Path(each).resolve()) for each in arguments}

    def agree(exchange: Exchange) -> None:
        if targets - {str(exchange.target)}:
            raise ConfigError(
                "the note is of another target",
                expected=", ".join(sorted(targets)),
                found=exchange.target,
            )
        if yes and exchange.shared is not None and exchange.note_owner != os.geteuid():
            raise ConfigError(
                "any user could have written the note, so --yes is not enough",
                found=f"a note of user {exchange.note_owner}; {exchange.shared}",
                hint="look at both directories, and say it on a terminal without --yes",
            )
        for line in _exchange_lines(exchange):
            invocation.note(line)
        if not yes:
            invocation.confirm("exchange them?", instead="--yes does not ask")

    done = undo_restore_from(note, state=invocation.places.state, agree=agree)
    if done is not None:
        invocation.did(f"{render.printable(done.target)} was exchanged")
    fields = {
        "note": str(note.absolute()),
        "target": str(done.target) if done else None,
        "moved": done is not None,
    }
    if done is None:
        text = "the target is the former state already; nothing was moved"
    else:
        text = f"{render.printable(done.target)} is what the note calls the former state;"
        text += " what was there lies beside it, and nothing was removed"
    invocation.emit("vault/restore-undo-from/v1", {"restore": fields}, text)
    return 0


def _exchange_lines(exchange: Exchange) -> list[str]:
    note = exchange.note
    said = (
        f"the note (of user {exchange.note_owner}) says: restore of snapshot {note.snapshot} by"
        f" user {note.user} on {note.host}, journal in {note.state}"
    )
    lines = [said]
    if exchange.other is None:
        lines.append(f"{exchange.target} goes beside its place: nothing was there before")
    else:
        mode = f"mode {exchange.other_mode or 0:04o}, of user {exchange.other_owner}"
        lines.append(f"{exchange.other} ({mode}) becomes {exchange.target}, and the other way")
    if exchange.shared is not None:
        lines.append(f"others could have put both there: {exchange.shared}")
    return lines


def _fields(who: PublishedBy, record: Record, report: RestoreReport) -> dict[str, object]:
    return {
        "outcome": report.outcome.value,
        "target": render.printable(report.target),
        "snapshot": str(record.head),
        "publisher": publisher_fields(who),
        "counts": {
            name: getattr(report.counts, name)
            for name in ("files", "directories", "symlinks", "others", "size")
        },
        "files": report.files,
        "size": report.size,
        "proof": _proof_fields(report.proof) if report.proof else None,
        "left_out": report.left_out,
        "bad_packs": [name.rpartition("/")[2] for name in report.bad_packs],
        **entry_text.flaw_fields(report.flaws),
        "atomic": report.atomic,
        "former_kept": report.former,
        "statement": str(report.statement.head) if report.statement else None,
        "attestation_file": str(report.attestation_file) if report.attestation_file else None,
        "troubles": [str(each) for each in report.troubles],
    }


def _proof_fields(proof: ProofReport) -> dict[str, object]:
    return {
        "verdict": proof.verdict,
        "entries": proof.entries,
        "files": proof.files,
        "bytes": proof.size,
        "root_matches": proof.root_matches,
        "evidence": {level.word: count for level, count in proof.evidence.items()},
        "skipped": proof.skipped,
    }


def _text(who: PublishedBy, record: Record, report: RestoreReport) -> str:
    facts = {
        "outcome": report.outcome.value,
        "snapshot": f"{record.seq} of {snapshot_body(record).dataset}",
        "published": f"by {publisher_text(who)}",
        "target": str(report.target),
        "content": render.contents(report.counts),
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
    if report.outcome is not RestoreOutcome.PLANNED:
        facts["attested"] = _where_attested(report)
        facts["exchange"] = "in one step" if report.atomic else "not atomic"
    if report.former:
        facts["former state"] = "kept beside it; --finalize removes it, --undo brings it back"
    return render.facts(facts)


def _where_attested(report: RestoreReport) -> str:
    if report.statement is not None:
        return str(report.statement.head)
    if report.attestation_file is None:
        return "not recorded; 'vault restore --finalize' does it later"
    return f"not recorded; 'vault attest push {report.attestation_file}' does it later"
