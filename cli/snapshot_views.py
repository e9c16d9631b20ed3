"""Shared by commands that look into snapshots: the view, paths, reports of bad entries."""

import os
from typing import Final

from cli.exits import EXIT_DEGRADED, EXIT_INTEGRITY
from cli.output import render
from cli.session import Invocation
from vault.browse import View, tree_path
from vault.crypto.key_files import RecoveryKey
from vault.errors import ConfigError, DigestMismatchError, FormatError
from vault.format.tree import BadEntry, Flaws
from vault.ledger.records import Record
from vault.model import sort_key
from vault.repository.repository import Repository, snapshot_body
from vault.repository.snapshot_spec import split_path

_SHOWN: Final = 20  # bad entries that are listed one by one


def view(
    invocation: Invocation,
    repository: Repository,
    recovery: RecoveryKey,
    record: Record,
    *,
    is_one_of_many: bool = False,
) -> View:
    """A snapshot to look into, with scratch files in the usual place; says if it is incomplete."""
    if not is_one_of_many:
        warn_of_gaps(invocation, record)
    return View(repository, recovery, record, scratch=invocation.scratch)


def warn_of_gaps(invocation: Invocation, record: Record) -> None:
    """Say so where a snapshot is not all that its source was."""
    body = snapshot_body(record)
    if not body.complete:
        invocation.warn(
            f"snapshot {record.seq} of {body.dataset} is incomplete:"
            f" {body.counts.unreadable:,} unreadable when it was taken"
        )


def snapshot_and_path(spec: str, path: str = "") -> tuple[str, bytes]:
    """SNAPSHOT and PATH, which may also be written in one: ``SNAPSHOT:/dir``.

    Raises:
        ConfigError: PATH is there twice.
    """
    snapshot, directory = split_path(spec)
    if directory is None:
        return spec, tree_path(os.fsencode(path))
    if path:
        raise ConfigError(
            "the path is there twice", expected="SNAPSHOT PATH or SNAPSHOT:/PATH", found=repr(spec)
        )
    return snapshot, tree_path(os.fsencode(directory))


def number_at(found: View, path: bytes) -> int:
    """The number of the entry at a path.

    Raises:
        ConfigError: There is none.
        FormatError: It is, or may be, one that can't be read.
    """
    number = found.tree.find(path)
    if number is not None:
        return number
    shown, seq = render.path_text(path), found.record.seq
    if (bad := found.flaws.paths.get(path)) is not None:
        raise FormatError(f"{shown} in snapshot {seq} can't be read: its entry {bad.text}")
    end = found.flaws.end
    if end is not None and sort_key(path) > sort_key(end.after):
        raise DigestMismatchError(
            f"{shown} is not in what can be read of snapshot {seq},"
            f" which ends after {render.path_text(end.after) or 'its top'}",
            found=end.error,
            hint="'vault find' looks in all snapshots",
        )
    if end is None and not found.flaws.all_named:
        raise FormatError(
            f"{shown} is not in snapshot {seq}, but for entries whose names can't be read",
            found=render.plural(found.flaws.count, "bad entry"),
        )
    raise ConfigError(
        f"{shown} is not in snapshot {seq}",
        hint=f"'vault find' looks in all snapshots, 'vault ls {seq}' at this one",
    )


def report_flaws(invocation: Invocation, seq: int, flaws: Flaws) -> int:
    """Say what of a snapshot can't be given, on stderr.

    Returns:
        The exit code that this means: 0, 3 (entries were stepped over), 4 (the tree ends early).
    """
    for bad in flaws.named[:_SHOWN]:
        what = "stepped over" if not bad.replaced else "given as a directory without attributes"
        invocation.warn(f"snapshot {seq}: {_bad_name(bad)} is {what}: its entry {bad.text}")
    if flaws.count > _SHOWN:
        invocation.warn(
            f"snapshot {seq}: {flaws.count - _SHOWN:,} more entries are bad; see --json"
        )
    if flaws.end is None:
        return EXIT_DEGRADED if flaws.count else 0
    invocation.warn(
        f"snapshot {seq}: nothing after {render.path_text(flaws.end.after) or 'the top'} can be"
        f" read: {flaws.end.error}"
    )
    return EXIT_INTEGRITY


def _bad_name(bad: BadEntry) -> str:
    if bad.path is None:
        return f"an entry without a legible name, after {render.path_text(bad.after) or 'the top'},"
    return render.path_text(bad.path) or "the top"
