"""What commands that look into snapshots share: the view, rows of entries, long output."""

import json
import os
import stat
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import Any, Final

from cli.exits import EXIT_DEGRADED, EXIT_INTEGRITY
from cli.output import render
from cli.session import Invocation
from vault.browse import View, tree_path
from vault.browse.mount import TYPES
from vault.crypto.keyfiles import RecoveryKey
from vault.errors import ConfigError, DigestMismatchError, FormatError
from vault.format.tree import BadEntry, Entry, Flaws
from vault.ledger.chain import Record
from vault.model import EntryType, sort_key
from vault.repository.repository import Repository, snapshot_body
from vault.repository.snapshotspec import split_path

_BATCH: Final = 2_000  # rows that are aligned with one another, so that memory has a bound
_SHOWN: Final = 20  # bad entries that are told one by one
TYPE_NAMES: Final = {kind: kind.name.lower().replace("_", " ") for kind in EntryType}


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


# --- paths ---


def split(spec: str, path: str = "") -> tuple[str, bytes]:
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


def find(found: View, path: bytes) -> int:
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


# --- what can't be given ---


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


def flaw_fields(flaws: Flaws) -> dict[str, Any]:
    """What can't be given, for programs."""
    return {
        "stepped_over": [
            {
                **(render.path_fields(bad.path) if bad.path is not None else {"path": None}),
                "problem": bad.text,
                "replaced": bad.replaced,
            }
            for bad in flaws.named
        ],
        "stepped_over_count": flaws.count,
        "ends_after": render.path_fields(flaws.end.after) if flaws.end else None,
    }


# --- entries ---


def digest_fields(entry: Entry) -> dict[str, str | None]:
    """Of an entry's content: the one that it has, if it is a file."""
    return {
        "sha256": entry.sha256.hex() if entry.sha256 else None,
        "tree_hash": entry.tree_hash.hex() if entry.tree_hash else None,
    }


def shown_path(entry: Entry) -> str:
    """For people: a directory ends in ``/``."""
    text = render.path_text(entry.path)
    return f"{text}/" if entry.type is EntryType.DIRECTORY else text


def mode_text(entry: Entry) -> str:
    """As ``ls -l`` writes it; a hard link as the file that it is."""
    return stat.filemode(TYPES[entry.type] | entry.mode)


def owner_text(entry: Entry) -> str:
    """User and group by name where they are known."""
    return f"{entry.user or entry.uid}:{entry.group or entry.gid}"


def local_time(nanoseconds: int) -> str:
    """To the minute, in the zone of this machine."""
    return render.moment(datetime.fromtimestamp(nanoseconds // 10**9, UTC))


def exact_time(nanoseconds: int) -> str:
    """RFC 3339 in UTC with nine digits: JSON numbers don't hold nanoseconds."""
    seconds, rest = divmod(nanoseconds, 10**9)
    whole = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{whole}.{rest:09}Z"


def entry_fields(entry: Entry) -> dict[str, Any]:
    """An entry for programs."""
    return {
        **render.path_fields(entry.path),
        "type": TYPE_NAMES[entry.type],
        "mode": f"{entry.mode:04o}",
        "uid": entry.uid,
        "gid": entry.gid,
        "user": entry.user,
        "group": entry.group,
        "mtime": exact_time(entry.mtime),
        "size": entry.size,
        **digest_fields(entry),
        "link": render.path_fields(entry.link) if entry.link is not None else None,
        "device": [os.major(entry.device), os.minor(entry.device)]
        if entry.device is not None
        else None,
        "xattrs": [render.path_text(name) for name, _ in entry.xattrs or ()],
    }


# --- long output ---


def emit_lines(lines: Iterable[str]) -> None:
    """Print lines as they come."""
    for some in _batches(lines):
        render.emit("\n".join(some))


def emit_table(
    headings: Sequence[str], rows: Iterable[Sequence[object]], *, right: Collection[int]
) -> None:
    """Print a table of any length; some thousand rows at a time are aligned."""
    width = render.terminal_width()
    for first, some in enumerate(_batches(rows)):
        text = render.table(headings, some, right=right, width=width)
        render.emit(text if not first else text.partition("\n")[2])


def emit_json_list(
    schema: str,
    head: Mapping[str, object],
    name: str,
    items: Iterable[Mapping[str, Any]],
    *,
    tail: Callable[[], Mapping[str, object]] = dict,
) -> None:
    """Print one object with a list of any length, item by item.

    Args:
        schema: Name and version of the form.
        head: Members before the list.
        name: Of the list.
        items: In the list.
        tail: Gives the members after the list, once it has ended.
    """
    start = json.dumps({"schema": schema, **head, name: []}).removesuffix("]}")
    emit_pieces([start])
    for first, some in enumerate(_batches(items)):
        emit_pieces([", " if first else "", ", ".join(map(json.dumps, some))])
    members = "".join(f", {json.dumps(key)}: {json.dumps(each)}" for key, each in tail().items())
    emit_pieces(["]", members, "}\n"])


def emit_pieces(pieces: Iterable[str]) -> None:
    """Print text without line ends of its own."""
    with render.ignore_closed_stdout():
        sys.stdout.write("".join(pieces))
        sys.stdout.flush()


def _batches(items: Iterable[Any]) -> Iterator[list[Any]]:
    iterator = iter(items)
    while some := list(islice(iterator, _BATCH)):
        yield some
