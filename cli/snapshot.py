"""`vault snapshot`: store the state of a source."""

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import click

from cli import progress, render
from cli.context import TOOL, Invocation, pass_invocation
from cli.exits import EXIT_DEGRADED
from cli.list import snapshot_fields
from cli.values import parse_duration
from vault.model import from_rfc3339
from vault.repository import Repository
from vault.snapshot import Problem, SnapshotReport, SnapshotRequest, take_snapshot
from vault.source import Rules
from vault.workers import make_workers

_SHOWN = 100  # problems on stderr; --json lists them all
_STRICT = {"changed", "attributes"}  # problems that --strict makes an exit code of


@click.command()
@click.argument(
    "paths", metavar="PATH...", nargs=-1, required=True, type=click.Path(path_type=Path)
)
@click.option("--name", "dataset", metavar="DATASET", required=True, help="What it is called.")
@click.option(
    "--exclude",
    "excludes",
    metavar="PATTERN",
    multiple=True,
    help="Leave out what matches, as in a .gitignore. Repeatable.",
)
@click.option(
    "--retain",
    type=parse_duration,
    metavar="DURATION",
    help="How long to keep it; default: the repository's.",
)
@click.option("--strict", is_flag=True, help="Exit 3 also if files changed while being read.")
@click.option("--allow-empty", is_flag=True, help="Take it even if the source is suddenly empty.")
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
    paths: tuple[Path, ...],
    dataset: str,
    excludes: tuple[str, ...],
    retain: timedelta | None,
    level: int,
    strict: bool,
    allow_empty: bool,
) -> int:
    """Store the state of PATHs as a snapshot.

    Of one PATH, names in the snapshot are relative to it; of several, they are
    full paths. Exit 3: some files could not be read; they are listed, and the
    snapshot is marked incomplete.
    """
    invocation.warn_of_keys_together()
    repository = invocation.open()
    writer = invocation.writer_key(repository)
    request = SnapshotRequest(
        paths=paths,
        dataset=dataset,
        tool=TOOL,
        retention=retain,
        rules=Rules(excludes=excludes),
        level=level,
        allow_empty=allow_empty,
    )
    with make_workers() as workers, progress.shown(quiet=invocation.options.quiet) as shown:
        report = take_snapshot(
            repository,
            writer,
            request,
            cache_dir=invocation.places.cache,
            state_dir=invocation.places.state,
            workers=workers,
            progress=shown,
        )
    invocation.remember(repository)
    _report_problems(invocation, report.problems)
    invocation.emit("vault/snapshot/v1", _report_fields(repository, report), _text(report))
    return exit_code(report, strict=strict)


def exit_code(report: SnapshotReport, *, strict: bool) -> int:
    """3 for a snapshot that is not all it should be, else 0 (design.md 6)."""
    flawed = any(problem.kind in _STRICT for problem in report.problems)
    if not report.body.complete or (strict and (flawed or report.body.counts.changed)):
        return EXIT_DEGRADED
    return 0


def _report_problems(invocation: Invocation, problems: Sequence[Problem]) -> None:
    for problem in problems[:_SHOWN]:
        detail = f": {problem.detail}" if problem.detail else ""
        invocation.warn(f"{problem.kind}: {render.path_text(problem.path)}{detail}")
    if len(problems) > _SHOWN:
        invocation.warn(f"and {len(problems) - _SHOWN:,} more; --json lists them")


def _report_fields(repository: Repository, report: SnapshotReport) -> dict[str, object]:
    return {
        "snapshot": snapshot_fields(repository, report.record),
        "new_packs": report.packs,
        "reused_packs": report.reused_packs,
        "problems": [
            {**render.path_fields(problem.path), "kind": problem.kind, "detail": problem.detail}
            for problem in report.problems
        ],
    }


def _text(report: SnapshotReport) -> str:
    body, counts = report.body, report.body.counts
    complete = "" if body.complete else ", INCOMPLETE"
    return render.facts(
        {
            "snapshot": f"{report.record.seq} of {body.dataset}{complete}",
            "content": f"{render.plural(counts.files, 'file')},"
            f" {render.plural(counts.directories, 'directory')}, {render.size(counts.size)}",
            "new": f"{render.size(counts.added_size)}"
            f" ({render.share(counts.added_size, counts.size)})"
            f", stored as {render.size(counts.added_bytes)}",
            "packs": f"{report.packs} new, {report.reused_packs} reused",
            "kept until": render.moment(from_rfc3339(body.until)),
            "head": str(report.record.head),
        }
    )
