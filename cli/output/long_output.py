"""Output of any length, printed as it comes: lines, tables, lists in JSON."""

import json
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Final

from cli.output import render

_BATCH: Final = 2_000  # rows that are aligned with one another, so that memory has a bound


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
