"""`vault diff`: the differences between two snapshots."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import click

from cli import snapshot_views
from cli.output import entry_text, long_output, render
from cli.session import Invocation, pass_invocation
from vault.browse.diff import Change, ChangeKind, Summary, diff_trees
from vault.format.entry import Entry

_SIGNS: Final[Mapping[ChangeKind, str]] = {
    ChangeKind.ADDED: "+",
    ChangeKind.REMOVED: "-",
    ChangeKind.TYPE: "T",
    ChangeKind.CONTENT: "M",
    ChangeKind.METADATA: "U",
}


@click.command()
@click.argument("old", metavar="SNAPSHOT_A")
@click.argument("new", metavar="SNAPSHOT_B")
@click.option("--no-metadata", is_flag=True, help="Leave out what differs in metadata only.")
@pass_invocation
def diff(invocation: Invocation, *, old: str, new: str, no_metadata: bool) -> int:
    """List what differs from SNAPSHOT_A to SNAPSHOT_B.

    + added, - removed, M content, T type, U metadata only. Reads only trees: the
    content of files is compared by size and SHA-256. Entries that break a rule in one
    of them (exit 3), or lie behind damage in a tree (exit 4), are not compared. Needs
    recovery.key.
    """
    repository = invocation.open()
    records = [invocation.snapshot(repository, spec) for spec in (old, new)]
    recovery = invocation.secrets.recovery_key(repository)
    with (
        snapshot_views.view(invocation, repository, recovery, records[0]) as before,
        snapshot_views.view(invocation, repository, recovery, records[1]) as after,
    ):
        summary = Summary()
        flaws = before.flaws, after.flaws
        changes = _counted(
            diff_trees(before.tree, after.tree, flaws=flaws), summary, metadata=not no_metadata
        )
        if invocation.options.json:
            head = {"old": records[0].seq, "new": records[1].seq}
            items = map(_fields, changes)
            long_output.emit_json_list(
                "vault/diff/v1",
                head,
                "changes",
                items,
                tail=lambda: {
                    "summary": _summary_fields(summary),
                    "flaws": [
                        {"snapshot": record.seq, **entry_text.flaw_fields(each)}
                        for record, each in zip(records, flaws, strict=True)
                        if each
                    ],
                },
            )
        else:
            long_output.emit_lines(map(_line, changes))
            invocation.note(_summary_text(summary))
        for record, each in zip(records, flaws, strict=True):
            if each and not each.all_named:
                invocation.warn(
                    f"snapshot {record.seq} has entries that can't be named: what is shown as"
                    " added or removed may be among them"
                )
        codes = [
            snapshot_views.report_flaws(invocation, record.seq, each)
            for record, each in zip(records, flaws, strict=True)
        ]
        return max(codes)


def _counted(changes: Iterable[Change], summary: Summary, *, metadata: bool) -> Iterator[Change]:
    for change in changes:
        if metadata or change.kind is not ChangeKind.METADATA:
            summary.add(change)
            yield change


def _line(change: Change) -> str:
    text = f"{_SIGNS[change.kind]} {entry_text.listed_path(change.entry)}"
    match change.kind:
        case ChangeKind.ADDED | ChangeKind.REMOVED:
            size = change.entry.size
            return f"{text} ({render.size(size)})" if size else text
        case ChangeKind.CONTENT:
            return f"{text} ({render.size(change.old_size)} → {render.size(change.new_size)})"
        case ChangeKind.TYPE:
            return f"{text} ({_type(change.old)} → {_type(change.new)})"
        case ChangeKind.METADATA:
            return f"{text} ({', '.join(change.fields)})"


def _type(entry: Entry | None) -> str:
    assert entry is not None
    return entry_text.TYPE_NAMES[entry.type]


def _fields(change: Change) -> dict[str, Any]:
    return {
        **render.path_fields(change.entry.path),
        "kind": change.kind.value,
        "fields": list(change.fields),
        "old": entry_text.entry_fields(change.old) if change.old else None,
        "new": entry_text.entry_fields(change.new) if change.new else None,
    }


def _summary_fields(summary: Summary) -> dict[str, int]:
    return {
        **{kind.value: summary.paths[kind] for kind in ChangeKind},
        "added_size": summary.added_size,
        "removed_size": summary.removed_size,
    }


def _summary_text(summary: Summary) -> str:
    counts = ", ".join(f"{summary.paths[kind]:,} {kind.value}" for kind in ChangeKind)
    return (
        f"{counts}; files: {render.size(summary.removed_size)} before,"
        f" {render.size(summary.added_size)} now"
    )
