"""`vault export-checksums`: what `sha256sum --check` reads."""

import json
import sys
import tempfile
from collections.abc import Iterator
from typing import BinaryIO

import click

from cli import render
from cli.context import Invocation, pass_invocation
from vault.browse.view import open_reader
from vault.ledger import Record
from vault.model import EntryType
from vault.reader import Reader
from vault.selection import select
from vault.tree import Entry

_PIECE = 1_048_576  # bytes


@click.command("export-checksums")
@click.argument("spec", metavar="SNAPSHOT")
@pass_invocation
def export_checksums(invocation: Invocation, spec: str) -> None:
    """Print a snapshot's SHA-256 sums as sha256sum does.

    Needs recovery.key. After a restore to DIR: cd DIR && sha256sum --check FILE. Nothing is printed
    before the whole tree was checked against its signature.
    """
    repository = invocation.open(afresh=True)
    record = select(repository.ledger, spec)
    recovery = invocation.recovery_key(repository)
    scratch = invocation.scratch
    with (
        open_reader(repository, recovery, record, scratch=scratch) as reader,
        tempfile.TemporaryFile(dir=scratch) as spool,
    ):
        if invocation.options.json:
            _spool_json(spool, reader, record)
        else:
            _spool_lines(spool, reader, escape=sys.stdout.isatty())
        _print(spool)


def checksums(reader: Reader) -> Iterator[tuple[Entry, bytes]]:
    """Each name of each file with the SHA-256 of its content; hard links have their file's."""
    linked = {entry.link for entry, _ in reader.tree() if entry.type is EntryType.HARD_LINK}
    digests: dict[bytes, bytes] = {}
    for entry, _ in reader.tree():
        if entry.type is EntryType.HARD_LINK:
            assert entry.link is not None
            yield entry, digests[entry.link]
        elif entry.type is EntryType.FILE:
            assert entry.sha256 is not None
            if entry.path in linked:
                digests[entry.path] = entry.sha256
            yield entry, entry.sha256


def line(path: bytes, digest: bytes) -> bytes:
    r"""As sha256sum writes it: a name with ``\``, LF or CR is escaped and the line marked."""
    escaped = path.replace(b"\\", b"\\\\").replace(b"\n", b"\\n").replace(b"\r", b"\\r")
    mark = b"\\" if escaped != path else b""
    return mark + digest.hex().encode("ascii") + b"  " + escaped + b"\n"


def _spool_lines(spool: BinaryIO, reader: Reader, *, escape: bool) -> None:
    for entry, digest in checksums(reader):
        if escape:
            spool.write(f"{digest.hex()}  {render.path_text(entry.path)}\n".encode())
        else:
            spool.write(line(entry.path, digest))


def _spool_json(spool: BinaryIO, reader: Reader, record: Record) -> None:
    """One object, written file by file: a snapshot may have millions."""
    head = {"schema": "vault/export-checksums/v1", "snapshot": record.seq, "files": []}
    spool.write(json.dumps(head).removesuffix("]}").encode())
    for number, (entry, digest) in enumerate(checksums(reader)):
        item = {**render.path_fields(entry.path), "sha256": digest.hex()}
        spool.write((", " if number else "").encode() + json.dumps(item).encode())
    spool.write(b"]}\n")


def _print(spool: BinaryIO) -> None:
    spool.seek(0)
    with render.ignore_closed_stdout():
        while piece := spool.read(_PIECE):
            sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()
