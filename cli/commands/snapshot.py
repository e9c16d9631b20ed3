"""`vault snapshot`: store the state of a source."""

import contextlib
import dataclasses
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path

import click

from cli.commands.list import snapshot_fields
from cli.exits import EXIT_DEGRADED
from cli.output import progress, render
from cli.session import TOOL, Invocation, pass_invocation, signer_name
from cli.sources import read_paths, read_rules, source_options
from vault.clock import to_rfc3339
from vault.crypto.key_files import WriterKey
from vault.durations import format_duration, parse_duration
from vault.errors import ConfigError, StorageError
from vault.ledger.records import Record
from vault.ledger.statements import Counts
from vault.machine.processes import spare_processors
from vault.machine.workers import make_workers
from vault.policy.in_force import policies_in_force
from vault.policy.policy_keeper import PolicyKeeper
from vault.repository.bad_packs import Word
from vault.repository.dataset_status import Check, Cited, failed_check
from vault.repository.repository import Repository, snapshot_body
from vault.snapshot import (
    Command,
    LeftPacks,
    NamedStream,
    Planned,
    PreviewAction,
    Problem,
    SnapshotReport,
    SnapshotRequest,
    StandardInput,
    preview_snapshot,
    take_snapshot,
)
from vault.snapshot.snapshot_request import MANY
from vault.snapshot.walk import LeftOut

_SHOWN = 100  # problems on stderr; --json lists them all
_QUIET_ACTIONS = {PreviewAction.UNCHANGED, PreviewAction.STORED}  # counted, not listed
_STRICT = {"changed", "attributes"}  # problems that --strict makes an exit code of


@click.command()
@click.argument("paths", metavar="[PATH... | -- COMMAND...]", nargs=-1)
@click.option(
    "--name", "dataset", metavar="DATASET", required=True, help="The dataset that it belongs to."
)
@source_options
@click.option(
    "--retain",
    type=parse_duration,
    metavar="DURATION",
    help="How long to keep it, at least; default: as its policy says, else the repository's.",
)
@click.option("--strict", is_flag=True, help="Exit 3 also if files changed while being read.")
@click.option("--allow-empty", is_flag=True, help="Take it even if the source is suddenly empty.")
@click.option("--dry-run", is_flag=True, help="Print what would be read and why; store nothing.")
@click.option(
    "--level",
    type=click.IntRange(1, 19),
    default=3,
    show_default=True,
    help="Compression level of zstd.",
)
@pass_invocation
def snapshot(
    invocation: Invocation,
    *,
    paths: tuple[str, ...],
    dataset: str,
    retain: timedelta | None,
    level: int,
    strict: bool,
    allow_empty: bool,
    dry_run: bool,
    excludes: tuple[str, ...],
    exclude_files: tuple[Path, ...],
    exclude_caches: bool,
    markers: tuple[str, ...],
    one_file_system: bool,
    path_files: tuple[Path, ...],
    path_files0: tuple[Path, ...],
    stdin_name: str | None,
    is_command: bool,
    file_name: str | None,
    timeout: timedelta | None,
) -> int:
    """Store the state of PATHs as a snapshot.

    Of one PATH, names in the snapshot are relative to it; of several, they are
    full paths. Exit 3: some files could not be read; they are listed, and the
    snapshot is marked incomplete.

    With --stdin or --command the snapshot is one file. When the command fails, is
    killed or runs out of time, nothing is published: exit 16.
    """
    with contextlib.ExitStack() as stack:
        stream = open_stream(
            stack,
            paths,
            stdin_name=stdin_name,
            is_command=is_command,
            file_name=file_name,
            timeout=timeout,
        )
        request = SnapshotRequest(
            paths=() if stream else read_paths(paths, path_files, path_files0),
            dataset=dataset,
            tool=TOOL,
            retention=retain,
            rules=read_rules(
                excludes,
                exclude_files,
                exclude_caches=exclude_caches,
                markers=markers,
                one_file_system=one_file_system,
            ),
            level=level,
            allow_empty=allow_empty,
            stream=stream,
        )
        invocation.secrets.warn_of_keys_together()
        repository = invocation.open()
        writer = invocation.secrets.writer_key(repository)
        request = _governed(invocation, repository, writer, request)
        if dry_run:
            return _preview(invocation, repository, writer, request)
        return _take(invocation, repository, writer, request, strict=strict)


def _governed(
    invocation: Invocation, repository: Repository, writer: WriterKey, request: SnapshotRequest
) -> SnapshotRequest:
    """The request, with the floor that applied policies are for its dataset."""
    policies = policies_in_force(repository)
    invocation.report(policies.findings)
    if not policies.of(request.dataset):
        return request
    keeper = PolicyKeeper(
        lambda ledger: policies_in_force(repository, ledger),
        repository.ledger,
        dataset=request.dataset,
        key_id=writer.signing.public.id,
        parameters=repository.parameters,
        asked=request.retention,
    )
    if request.retention is not None and request.retention < keeper.at_put:
        invocation.warn(
            f"policy {' and '.join(keeper.governed_by)} keeps {request.dataset} longer than"
            f" --retain: {format_duration(keeper.at_put)} or more"
        )
    return dataclasses.replace(request, keeper=keeper)


@contextlib.contextmanager
def _saying_what_stays(invocation: Invocation) -> Iterator[None]:
    """Of a run that is stopped before it published anything."""
    try:
        yield
    except BaseException as error:
        if not isinstance(error, Exception) and not invocation.has_done:
            error.add_note("nothing was published; the next run takes up what was stored")
        raise


def _take(
    invocation: Invocation,
    repository: Repository,
    writer: WriterKey,
    request: SnapshotRequest,
    *,
    strict: bool,
) -> int:
    with (
        _saying_what_stays(invocation),
        make_workers(processes=spare_processors()) as workers,
        progress.shown(quiet=invocation.options.quiet) as shown,
    ):
        report = take_snapshot(
            repository,
            writer,
            request,
            cache_dir=invocation.places.cache,
            state_dir=invocation.places.state,
            workers=workers,
            progress=shown,
            published=lambda record: invocation.did(_published_text(record)),
        )
    for trouble in report.trouble:
        invocation.warn(
            f"snapshot {report.record.seq} is published; the next run takes longer: {trouble}"
        )
    invocation.remember(repository)
    invocation.report((*repository.plans.unreadable(), *repository.heavy_plans()))
    _report_problems(invocation, report.problems)
    _report_left_out(invocation, report.left_out)
    if report.left is not None:
        _warn_of_bad_packs(invocation, repository, report.left)
    failed = _failed_check(invocation, repository, request.dataset)
    if failed is not None:
        invocation.warn(
            f"the last {failed.type} of {request.dataset} failed (ledger {failed.seq},"
            f" {render.moment(failed.finished)}), and none has passed since: run 'vault verify'"
        )
    invocation.emit("vault/snapshot/v1", _report_fields(repository, report, failed), _text(report))
    return snapshot_exit(report, strict=strict)


def _failed_check(invocation: Invocation, repository: Repository, dataset: str) -> Check | None:
    """The dataset's last check, if it failed; a store error here is only a warning.

    The snapshot is published already.
    """
    try:
        return failed_check(repository.ledger, dataset, Cited(repository))
    except StorageError as error:
        invocation.warn(f"whether the last check of {dataset} failed can't be told: {error}")
        return None


def _published_text(record: Record) -> str:
    dataset = snapshot_body(record).dataset
    return f"snapshot {record.seq} of {dataset} is published, head {record.head}"


def _preview(
    invocation: Invocation, repository: Repository, writer: WriterKey, request: SnapshotRequest
) -> int:
    """Print what a snapshot would do, line by line, as the walk goes on."""
    if request.stream is not None:
        raise ConfigError("--dry-run has nothing to say of a stream")
    totals: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    listed = []
    places = invocation.places
    for planned in preview_snapshot(
        repository, writer, request, cache_dir=places.cache, state_dir=places.state
    ):
        totals[planned.action] += 1
        sizes[planned.action] += planned.size
        if invocation.options.json:
            listed.append(_planned_fields(planned))
        elif planned.action not in _QUIET_ACTIONS:
            reason = f"  ({planned.reason})" if planned.reason else ""
            render.emit(f"{planned.action:<10}  {render.path_text(planned.path)}{reason}")
    summary = {
        action.value: {"count": totals[action], "size": sizes[action]} for action in PreviewAction
    }
    invocation.emit(
        "vault/snapshot-dry-run/v1",
        {"planned": listed, "totals": summary},
        render.facts(
            {
                action.value: f"{totals[action]:,}, {render.size(sizes[action])}"
                for action in PreviewAction
            }
        ),
    )
    return EXIT_DEGRADED if totals[PreviewAction.UNREADABLE] else 0


def _planned_fields(planned: Planned) -> dict[str, object]:
    return {
        **render.path_fields(planned.path),
        "action": planned.action.value,
        "size": planned.size,
        "reason": planned.reason,
    }


def open_stream(
    stack: contextlib.ExitStack,
    arguments: Sequence[str],
    *,
    stdin_name: str | None,
    is_command: bool,
    file_name: str | None,
    timeout: timedelta | None,
) -> NamedStream | None:
    """Standard input or a command as the source; None where PATHs are it.

    Raises:
        ConfigError: The options contradict each other.
        SourceCommandError: The command can't be started.
    """
    if stdin_name is not None:
        if is_command or arguments:
            raise ConfigError("--stdin takes neither PATHs nor --command")
        return NamedStream(name=stdin_name, stream=StandardInput(sys.stdin.buffer))
    if not is_command:
        if file_name is not None or timeout is not None:
            raise ConfigError("--file-name and --timeout go with --command")
        return None
    if not arguments:
        raise ConfigError("--command needs a command", hint="put it after --, at the end")
    seconds = None if timeout is None else timeout.total_seconds()
    name = file_name or Path(arguments[0]).name
    command = Command(arguments, timeout=seconds)
    return NamedStream(name=name, stream=stack.enter_context(command))


def snapshot_exit(report: SnapshotReport, *, strict: bool) -> int:
    """3 for a snapshot that is not all it should be, else 0 (docs/design.md "Snapshot")."""
    many = report.left is not None and report.left.is_many
    flawed = any(problem.kind in _STRICT for problem in report.problems)
    is_less = strict and (flawed or report.body.counts.changed)
    if not report.body.complete or many or is_less:
        return EXIT_DEGRADED
    return 0


def _report_problems(invocation: Invocation, problems: Sequence[Problem]) -> None:
    for problem in problems[:_SHOWN]:
        detail = f": {problem.detail}" if problem.detail else ""
        invocation.warn(f"{problem.kind}: {render.path_text(problem.path)}{detail}")
    if len(problems) > _SHOWN:
        invocation.warn(f"and {len(problems) - _SHOWN:,} more; --json lists them")


def _report_left_out(invocation: Invocation, left_out: Sequence[LeftOut]) -> None:
    for each in left_out[:_SHOWN]:
        invocation.warn(f"left out: {render.path_text(each.path)}: {each.detail}")
    if len(left_out) > _SHOWN:
        invocation.warn(f"and {len(left_out) - _SHOWN:,} more left out; --json lists them")


def _warn_of_bad_packs(invocation: Invocation, repository: Repository, left: LeftPacks) -> None:
    told = ", ".join(_teller(repository, word) for word in left.words)
    invocation.warn(
        f"{_bad_packs(left)} damaged, says {told}; what was in them and is still in the source"
        " was read again and stored anew"
    )
    if left.is_many:
        invocation.warn(f"that is more than {MANY:.0%} of its packs: ask {told} whether it is true")


def _bad_packs(left: LeftPacks) -> str:
    verb = "is" if len(left.packs) == 1 else "are"
    return (
        f"{len(left.packs):,} of {render.plural(left.of, 'pack')} that snapshot"
        f" {left.snapshot} needs {verb}"
    )


def _damaged(left: LeftPacks) -> str:
    return render.plural(len(left.packs), "damaged pack")


def _teller(repository: Repository, word: Word) -> str:
    if word.is_own:
        return "a verification on this host"
    return f"{signer_name(repository, word.key_id)} (ledger {word.seq})"


def _left_fields(repository: Repository, left: LeftPacks | None) -> dict[str, object] | None:
    if left is None:
        return None
    return {
        "snapshot": left.snapshot,
        "packs": list(left.packs),
        "of": left.of,
        "many": left.is_many,
        "said_by": [
            {
                "statement": None if word.is_own else word.seq,
                "signer": None if word.is_own else signer_name(repository, word.key_id),
            }
            for word in left.words
        ],
    }


def _report_fields(
    repository: Repository, report: SnapshotReport, failed: Check | None
) -> dict[str, object]:
    return {
        "snapshot": snapshot_fields(repository, report.record),
        "new_packs": report.packs,
        "reused_packs": report.reused_packs,
        "bad_packs": _left_fields(repository, report.left),
        "failed_check": {
            "statement": failed.seq,
            "type": failed.type,
            "finished": to_rfc3339(failed.finished),
            "snapshot": failed.snapshot,
        }
        if failed
        else None,
        "trouble": list(report.trouble),
        "left_out": [
            {**render.path_fields(each.path), "reason": each.reason.value, "detail": each.detail}
            for each in report.left_out
        ],
        "databases_in_use": [
            {**render.path_fields(each.path), "engine": each.engine.value} for each in report.in_use
        ],
        "problems": [
            {**render.path_fields(problem.path), "kind": problem.kind, "detail": problem.detail}
            for problem in report.problems
        ],
    }


def _skipped(counts: Counts) -> dict[str, str]:
    if not counts.sockets:
        return {}
    return {"skipped": f"{render.plural(counts.sockets, 'socket')}: nothing is in it to be stored"}


def _text(report: SnapshotReport) -> str:
    body, counts = report.body, report.body.counts
    complete = "" if body.complete else ", INCOMPLETE"
    return render.facts(
        {
            "snapshot": f"{report.record.seq} of {body.dataset}{complete}",
            "content": render.contents(counts),
            **_skipped(counts),
            "new": f"{render.size(counts.added_size)}"
            f" ({render.share(counts.added_size, counts.size)})"
            f", stored as {render.size(counts.added_bytes)}",
            "packs": f"{report.packs} new, {report.reused_packs} reused"
            + (f", {_damaged(report.left)} replaced" if report.left else ""),
            "kept until": render.moment(body.until),
            "head": str(report.record.head),
        }
    )
