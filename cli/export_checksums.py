"""`vault export-checksums`: what `sha256sum --check` reads."""

import sys
from collections.abc import Iterator

import click

from cli import listing, render
from cli.context import Invocation, pass_invocation
from vault.browse import TreeIndex
from vault.model import EntryType
from vault.selection import select
from vault.tree import Entry


@click.command("export-checksums")
@click.argument("spec", metavar="SNAPSHOT")
@pass_invocation
def export_checksums(invocation: Invocation, spec: str) -> int:
    """Print a snapshot's SHA-256 sums as sha256sum does.

    Needs recovery.key. After a restore to DIR: cd DIR && sha256sum --check FILE. Nothing is printed
    before the whole tree was checked against its signature. Exit 3: entries that
    break a rule were stepped over; 4: the tree is damaged, and what lies before the
    damage is printed.
    """
    repository = invocation.open(afresh=True)
    record = select(repository.ledger, spec)
    recovery = invocation.recovery_key(repository)
    with listing.view(invocation, repository, recovery, record) as view:
        sums = checksums(view.tree)
        if invocation.options.json:
            listing.emit_json_list(
                "vault/export-checksums/v1",
                {"snapshot": record.seq},
                "files",
                ({**render.path_fields(entry.path), "sha256": sha.hex()} for entry, sha in sums),
                tail=lambda: listing.flaw_fields(view.flaws),
            )
        elif sys.stdout.isatty():
            listing.emit_lines(f"{sha.hex()}  {render.path_text(each.path)}" for each, sha in sums)
        else:
            with render.ignore_closed_stdout():
                sys.stdout.buffer.writelines(line(entry.path, sha) for entry, sha in sums)
                sys.stdout.buffer.flush()
        return listing.report_flaws(invocation, record.seq, view.flaws)


def checksums(tree: TreeIndex) -> Iterator[tuple[Entry, bytes]]:
    """Each name of each file with the SHA-256 of its content; hard links have their file's."""
    for number, entry in enumerate(tree):
        if entry.type is EntryType.HARD_LINK:
            digest = tree.entry(tree.file_of(number)).sha256
        elif entry.type is EntryType.FILE:
            digest = entry.sha256
        else:
            continue
        assert digest is not None
        yield entry, digest


def line(path: bytes, digest: bytes) -> bytes:
    r"""As sha256sum writes it: a name with ``\``, LF or CR is escaped and the line marked."""
    escaped = path.replace(b"\\", b"\\\\").replace(b"\n", b"\\n").replace(b"\r", b"\\r")
    mark = b"\\" if escaped != path else b""
    return mark + digest.hex().encode("ascii") + b"  " + escaped + b"\n"
