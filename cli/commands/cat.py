"""`vault cat`: one file of a snapshot."""

import sys

import click

from cli import snapshot_views
from cli.output import entry_text, render
from cli.session import Invocation, pass_invocation
from vault.browse import View
from vault.errors import ConfigError
from vault.format.entry import Entry
from vault.model import EntryType


@click.command()
@click.argument("spec", metavar="SNAPSHOT")
@click.argument("path", default="")
@pass_invocation
def cat(invocation: Invocation, *, spec: str, path: str) -> int:
    """Write the file PATH of SNAPSHOT to stdout.

    Both in one word are SNAPSHOT:/PATH. Needs recovery.key. Every byte is verified
    before it is written. Exit 4: the rest of the file is missing or damaged, and only its
    right beginning was written; or the file is right, and other parts of the snapshot are
    damaged. Exit 3: the file is right, and other entries of the snapshot break a rule.
    """
    if invocation.options.json:
        raise click.UsageError("cat writes the file itself: there is no JSON of it")
    spec, wanted = snapshot_views.snapshot_and_path(spec, path)
    if not wanted:
        raise click.UsageError("PATH is missing: which file?")
    repository = invocation.open()
    record = invocation.snapshot(repository, spec)
    recovery = invocation.secrets.recovery_key(repository)
    with snapshot_views.view(invocation, repository, recovery, record) as view:
        entry = _file(view, wanted)
        with render.ignore_closed_stdout():
            for piece in view.stream(entry):
                sys.stdout.buffer.write(piece)
            sys.stdout.buffer.flush()
        return snapshot_views.report_flaws(invocation, record.seq, view.flaws)


def _file(view: View, path: bytes) -> Entry:
    """The file at a path, by whichever of its names.

    Raises:
        ConfigError: There is none, or it is no file.
    """
    number = view.tree.file_of(snapshot_views.number_at(view, path))
    entry = view.tree.entry(number)
    if entry.type is not EntryType.FILE:
        target = render.path_text(entry.link) if entry.link is not None else None
        raise ConfigError(
            f"{render.path_text(path) or 'the top'} is not a file",
            expected="a file",
            found=f"a {entry_text.TYPE_NAMES[entry.type]}" + (f" to {target}" if target else ""),
        )
    return entry
