"""`vault ls`: what is in a snapshot."""

from collections.abc import Iterable, Sequence

import click

from cli import snapshot_views
from cli.output import entry_text, long_output, render
from cli.session import Invocation, pass_invocation
from vault.browse import TreeIndex
from vault.format.entry import Entry
from vault.model import EntryType

_HEADINGS = ("mode", "owner", "size", "modified", "path")
_RIGHT = {2, 3}


@click.command()
@click.argument("spec", metavar="SNAPSHOT")
@click.argument("path", default="")
@click.option("-l", "--long", "is_long", is_flag=True, help="Modes, owners, sizes and times too.")
@click.option("-R", "--recursive", is_flag=True, help="Everything below PATH.")
@pass_invocation
def ls(invocation: Invocation, *, spec: str, path: str, is_long: bool, recursive: bool) -> int:
    """List what SNAPSHOT holds, or its directory PATH.

    Both in one word are SNAPSHOT:/PATH. Needs recovery.key. Reads only the tree, and
    prints nothing before all of it was checked against its signature. Names are
    escaped; --json has them as they are. Exit 3: entries that break a rule were stepped
    over; 4: the tree is damaged, and what lies before the damage is listed.
    """
    spec, wanted = snapshot_views.snapshot_and_path(spec, path)
    repository = invocation.open()
    record = invocation.snapshot(repository, spec)
    recovery = invocation.secrets.recovery_key(repository)
    with snapshot_views.view(invocation, repository, recovery, record) as view:
        number = snapshot_views.number_at(view, wanted)
        entries = map(view.tree.entry, _numbers(view.tree, number, recursive=recursive))
        if invocation.options.json:
            items = map(entry_text.entry_fields, entries)
            long_output.emit_json_list(
                "vault/ls/v1",
                {"snapshot": record.seq},
                "entries",
                items,
                tail=lambda: entry_text.flaw_fields(view.flaws),
            )
        elif is_long:
            long_output.emit_table(_HEADINGS, map(_row, entries), right=_RIGHT)
        else:
            long_output.emit_lines(map(entry_text.listed_path, entries))
        return snapshot_views.report_flaws(invocation, record.seq, view.flaws)


def _numbers(tree: TreeIndex, number: int, *, recursive: bool) -> Iterable[int]:
    """Members of a directory; anything else is listed itself, as ls(1) does."""
    if tree.entry(number).type is not EntryType.DIRECTORY:
        return (number,)
    return tree.below(number) if recursive else tree.children(number)


def _row(entry: Entry) -> Sequence[object]:
    path = entry_text.listed_path(entry)
    if entry.link is not None:
        sign = "->" if entry.type is EntryType.SYMLINK else "="
        path += f" {sign} {render.path_text(entry.link)}"
    return (
        entry_text.mode_text(entry),
        entry_text.owner_text(entry),
        f"{entry.size:,}",
        entry_text.local_time(entry.mtime),
        path,
    )
