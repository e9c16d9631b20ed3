"""`vault export-checksums`: what `sha256sum --check` reads."""

import sys
from collections.abc import Iterable, Iterator
from typing import Any, Final

import click

from cli import snapshot_views
from cli.exits import EXIT_DEGRADED
from cli.output import entry_text, long_output, render
from cli.session import Invocation, pass_invocation
from vault.browse import TreeIndex
from vault.format.entry import Entry
from vault.model import EntryType

_SHOWN: Final = 20  # files that are listed one by one


@click.command("export-checksums")
@click.argument("spec", metavar="SNAPSHOT")
@pass_invocation
def export_checksums(invocation: Invocation, spec: str) -> int:
    """Print a snapshot's SHA-256 sums as sha256sum does.

    Needs recovery.key. After a restore to DIR: cd DIR && sha256sum --check FILE. Nothing is printed
    before the whole tree was checked against its signature. A file with more than 1 GiB of holes
    has no SHA-256 but a tree hash, which --json gives; it is left out, with a message. Exit 3: such
    files, or entries that break a rule, were left out; 4: the tree is damaged, and what lies
    before the damage is printed.
    """
    repository = invocation.open(afresh=True)
    record = invocation.snapshot(repository, spec)
    recovery = invocation.secrets.recovery_key(repository)
    with snapshot_views.view(invocation, repository, recovery, record) as view:
        vast = _Vast()
        sums = vast.left_out_of(checksums(view.tree))
        if invocation.options.json:
            long_output.emit_json_list(
                "vault/export-checksums/v1",
                {"snapshot": record.seq},
                "files",
                map(_fields, checksums(view.tree)),
                tail=lambda: entry_text.flaw_fields(view.flaws),
            )
        elif sys.stdout.isatty():
            long_output.emit_lines(
                f"{sha.hex()}  {render.path_text(each.path)}" for each, sha in sums
            )
        else:
            with render.ignore_closed_stdout():
                sys.stdout.buffer.writelines(line(entry.path, sha) for entry, sha in sums)
                sys.stdout.buffer.flush()
        left_out = vast.report(invocation, record.seq)
        return snapshot_views.report_flaws(invocation, record.seq, view.flaws) or left_out


def checksums(tree: TreeIndex) -> Iterator[tuple[Entry, Entry]]:
    """Each name of each file, and the file, which has the digest; hard links have their own."""
    for number, entry in enumerate(tree):
        if entry.type is EntryType.HARD_LINK:
            yield entry, tree.entry(tree.file_of(number))
        elif entry.type is EntryType.FILE:
            yield entry, entry


def _fields(pair: tuple[Entry, Entry]) -> dict[str, Any]:
    entry, file = pair
    return {**render.path_fields(entry.path), **entry_text.digest_fields(file)}


class _Vast:
    """Files with a tree hash in place of a SHA-256, which the output has to leave out."""

    def __init__(self) -> None:
        self._count = 0
        self._named: list[bytes] = []

    def left_out_of(self, files: Iterable[tuple[Entry, Entry]]) -> Iterator[tuple[Entry, bytes]]:
        """Names with the SHA-256 of their files; keeps those without one for `report`."""
        for entry, file in files:
            if file.sha256 is not None:
                yield entry, file.sha256
                continue
            self._count += 1
            if len(self._named) < _SHOWN:
                self._named.append(entry.path)

    def report(self, invocation: Invocation, seq: int) -> int:
        """Warn about the files left out; returns the exit code for that."""
        for path in self._named:
            invocation.warn(
                f"snapshot {seq}: {render.path_text(path)} is left out: it has a tree hash and no"
                " SHA-256, as more than 1 GiB of it are holes; --json gives it"
            )
        if self._count > len(self._named):
            invocation.warn(f"snapshot {seq}: {self._count - len(self._named):,} more are left out")
        return EXIT_DEGRADED if self._count else 0


def line(path: bytes, digest: bytes) -> bytes:
    r"""As sha256sum writes it: a name with ``\``, LF or CR is escaped and the line marked."""
    escaped = path.replace(b"\\", b"\\\\").replace(b"\n", b"\\n").replace(b"\r", b"\\r")
    mark = b"\\" if escaped != path else b""
    return mark + digest.hex().encode("ascii") + b"  " + escaped + b"\n"
