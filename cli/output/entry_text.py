"""Rows of entries in text and in JSON, and output of any length."""

import json
import os
import stat
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import Any, Final

from cli.output import render
from vault.format.entry import FILE_TYPES, Entry
from vault.format.tree import Flaws
from vault.model import EntryType

_BATCH: Final = 2_000  # rows that are aligned with one another, so that memory has a bound
TYPE_NAMES: Final = {kind: kind.name.lower().replace("_", " ") for kind in EntryType}


# --- what can't be given ---


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


def listed_path(entry: Entry) -> str:
    """For people: a directory ends in ``/``."""
    text = render.path_text(entry.path)
    return f"{text}/" if entry.type is EntryType.DIRECTORY else text


def mode_text(entry: Entry) -> str:
    """As ``ls -l`` writes it; a hard link as the file that it is."""
    return stat.filemode(FILE_TYPES[entry.type] | entry.mode)


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
