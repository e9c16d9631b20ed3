"""`vault stats`: sizes, deduplication, compression."""

from collections.abc import Sequence
from typing import Any

import click

from cli.exits import EXIT_INTEGRITY
from cli.output import render
from cli.session import Invocation, pass_invocation
from vault.ledger.records import Record
from vault.repository.datasets import Stats, measure, owed
from vault.repository.repository import Repository, snapshot_body

_HEADINGS = (
    "dataset",
    "snapshots",
    "files",
    "content",
    "objects",
    "stored",
    "dedup",
    "compression",
)
_RIGHT = {1, 2, 3, 4, 5, 6, 7}
_ALL = "(all)"


@click.command()
@click.argument("spec", metavar="[SNAPSHOT]", required=False)
@pass_invocation
def stats(invocation: Invocation, *, spec: str | None) -> int:
    """Show sizes, deduplication and compression by dataset.

    Needs no key. "content" is what a restore of every snapshot would write. "stored" is the size
    of the objects that they need, each counted once. "dedup" is content divided by stored, so it
    includes compression. "compression" is new content divided by the bytes that it was stored as.
    Snapshots that are no longer to be kept, or whose inventory can't be read (exit 4), are left
    out.
    """
    repository = invocation.open()
    if spec is not None:
        record = invocation.snapshot(repository, spec)
        groups = {snapshot_body(record).dataset: [record]}
    else:
        records = owed(repository.ledger, repository.ledger.snapshots(), invocation.clock())
        groups = _by_dataset(records)
    measured = {name: measure(repository, some) for name, some in groups.items()}
    total = _total(repository, groups, measured)
    fields = {
        "datasets": [{"dataset": name, **_fields(each)} for name, each in measured.items()],
        "total": _fields(total),
    }
    rows = [_row(name, each) for name, each in measured.items()]
    if len(measured) != 1:
        rows.append(_row(_ALL, total))
    text = render.table(_HEADINGS, rows, right=_RIGHT, width=render.terminal_width())
    invocation.emit("vault/stats/v1", fields, text)
    for seq, error in total.failed.items():
        invocation.warn(f"snapshot {seq} is left out: {error}")
    return EXIT_INTEGRITY if total.failed else 0


def _by_dataset(records: Sequence[Record]) -> dict[str, list[Record]]:
    groups: dict[str, list[Record]] = {}
    for record in sorted(records, key=lambda record: snapshot_body(record).dataset):
        groups.setdefault(snapshot_body(record).dataset, []).append(record)
    return groups


def _total(
    repository: Repository, groups: dict[str, list[Record]], measured: dict[str, Stats]
) -> Stats:
    """All of them together: datasets of one domain share objects."""
    if len(measured) == 1:
        return next(iter(measured.values()))
    return measure(repository, [record for some in groups.values() for record in some])


def _fields(each: Stats) -> dict[str, Any]:
    return {
        "snapshots": list(each.snapshots),
        "failed": list(each.failed),
        "files": each.files,
        "size": each.size,
        "objects": each.objects,
        "stored": each.stored,
        "added_size": each.added_size,
        "added_bytes": each.added_bytes,
        "deduplication": _rounded(each.deduplication),
        "compression": _rounded(each.compression),
    }


def _rounded(ratio: float | None) -> float | None:
    return None if ratio is None else round(ratio, 3)


def _row(name: str, each: Stats) -> Sequence[object]:
    return (
        name,
        f"{len(each.snapshots):,}",
        f"{each.files:,}",
        render.size(each.size),
        f"{each.objects:,}",
        render.size(each.stored),
        _ratio(each.deduplication),
        _ratio(each.compression),
    )


def _ratio(ratio: float | None) -> str:
    return "–" if ratio is None else f"{ratio:.2f} ×"
