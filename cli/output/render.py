"""Everything that is printed: data to stdout, messages to stderr.

What comes from a store, a tree or a key file is untrusted text. It reaches the
terminal only through `printable`, so that no file name can move the cursor,
change colours, forge a line or turn the reading direction.
"""

import base64
import contextlib
import json
import os
import shutil
import sys
import textwrap
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, TextIO

from vault.errors import LocalError

if TYPE_CHECKING:  # --help must not import what reads statements
    from vault.ledger.statements import Counts

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
_ELLIPSIS = "…"
_SHOWN_RANGES = 20
_NARROWEST = 8  # columns; no cell is cut below this


# --- untrusted text ---


def printable(text: object) -> str:
    r"""The text with everything that is no plain character written as ``\xNN`` or ``\uNNNN``.

    Escaped are controls, terminal escapes, line ends, direction marks, and bytes
    of file names that are not UTF-8.
    """
    plain = str(text)
    if plain.isprintable():
        return plain
    return "".join(c if c.isprintable() else _escaped(c) for c in plain)


def _escaped(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # surrogateescape: a byte that is not UTF-8
        code -= 0xDC00
    if code <= 0xFF:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def path_text(path: bytes) -> str:
    """A file name for people."""
    return printable(os.fsdecode(path))


def path_fields(path: bytes) -> dict[str, str]:
    """A file name for programs: ``path``, and ``path_base64`` where it is not UTF-8."""
    try:
        return {"path": path.decode("utf-8")}
    except UnicodeDecodeError:
        return {"path": path_text(path), "path_base64": base64.b64encode(path).decode("ascii")}


# --- amounts and times ---


def size(amount: int) -> str:
    """Bytes in a unit that keeps the number short: ``1.5 GiB``."""
    value = float(amount)
    unit = 0
    while value >= 1023.95 and unit < len(_UNITS) - 1:
        value /= 1024
        unit += 1
    return f"{amount} B" if unit == 0 else f"{value:.1f} {_UNITS[unit]}"


def moment(when: datetime) -> str:
    """To the minute, in the zone of this machine: the one that DATASET@TIME takes."""
    return when.astimezone().strftime("%Y-%m-%d %H:%M")


def zone(when: datetime) -> str:
    """Offset of that zone from UTC, for headings."""
    offset = when.astimezone().strftime("%z")
    return f"UTC{offset[:3]}:{offset[3:]}"


def share(part: int, whole: int) -> str:
    """Per cent with one digit; of nothing it is nothing."""
    return f"{100 * part / whole:.1f} %" if whole else "0 %"


def plural(count: int, word: str) -> str:
    """``1 file``, ``49,863 files``."""
    if count != 1:
        is_changed = word.endswith("y") and word[-2] not in "aeiou"
        ending = "es" if word.endswith("s") else "s"
        word = word[:-1] + "ies" if is_changed else word + ending
    return f"{count:,} {word}"


def numbers(listed: Sequence[int]) -> str:
    """Ascending numbers, as ranges and of very many the last: ``2, 5-9``."""
    ranges: list[list[int]] = []
    for number in listed:
        if ranges and number == ranges[-1][1] + 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    parts = [str(first) if first == last else f"{first}-{last}" for first, last in ranges]
    left = len(parts) - _SHOWN_RANGES
    if left > 0:
        parts = [f"{left} more before", *parts[left:]]
    return ", ".join(parts) or "none"


# --- tables ---


def table(
    headings: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    right: Collection[int] = (),
    width: int | None = None,
) -> str:
    """Aligned columns, two blanks apart.

    Args:
        headings: Of the columns.
        rows: Untrusted; escaped here.
        right: Columns to align to the right; they are never cut.
        width: Columns of the terminal; the longest cells are cut to fit. None never cuts.
    """
    lines = [list(headings), *([printable(cell) for cell in row] for row in rows)]
    widths = [max(map(_columns, column)) for column in zip(*lines, strict=True)]
    if width is not None:
        _shrink(widths, right, width)
    return "\n".join(_line(cells, widths, right) for cells in lines)


def terminal_width() -> int | None:
    """Of stdout; None when it is no terminal and nothing should be cut."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def _shrink(widths: list[int], right: Collection[int], available: int) -> None:
    """Take columns from the widest cells until the line fits or all are narrow."""
    excess = sum(widths) + 2 * (len(widths) - 1) - available
    while excess > 0:
        candidates = [i for i in range(len(widths)) if i not in right and widths[i] > _NARROWEST]
        if not candidates:
            return
        widest = max(candidates, key=widths.__getitem__)
        widths[widest] -= 1
        excess -= 1


def _line(cells: Sequence[str], widths: Sequence[int], right: Collection[int]) -> str:
    parts = []
    for i, (cell, columns) in enumerate(zip(cells, widths, strict=True)):
        text = _cut(cell, columns)
        padding = " " * (columns - _columns(text))
        parts.append(padding + text if i in right else text + padding)
    return "  ".join(parts).rstrip()


def _cut(text: str, columns: int) -> str:
    if _columns(text) <= columns:
        return text
    while _columns(text) > columns - 1:
        text = text[:-1]
    return text + _ELLIPSIS


def _columns(text: str) -> int:
    """Columns a terminal gives to the text."""
    return sum(_character_columns(character) for character in text)


def _character_columns(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def facts(pairs: Mapping[str, str]) -> str:
    """Names and values, one pair a line, values aligned."""
    longest = max(map(len, pairs))
    return "\n".join(f"{name:<{longest}}  {printable(value)}" for name, value in pairs.items())


# --- output ---


def emit(text: str) -> bool:
    """Print data to stdout; if the reader has closed the pipe, drop the rest.

    Returns:
        Whether it was taken.

    Raises:
        LocalError: It can't be written.
    """
    with ignore_closed_stdout():
        print(text, flush=True)  # noqa: T201 - the one place that prints data
        return getattr(sys.stdout, "name", "") != os.devnull  # what stands in for a closed one
    return False


def emit_json(schema: str, **fields: Any) -> bool:
    """Print one object, as `emit`. ASCII only, so no string in it can steer a terminal."""
    return emit(json.dumps(_without_surrogates({"schema": schema, **fields})))


def _without_surrogates(value: Any) -> Any:
    """Escape bytes that are not UTF-8: other programs can't read JSON with a lone surrogate."""
    match value:
        case str():
            return value.encode("utf-8", "backslashreplace").decode("utf-8")
        case Mapping():
            return {name: _without_surrogates(each) for name, each in value.items()}
        case list() | tuple():
            return [_without_surrogates(each) for each in value]
        case _:
            return value


@contextlib.contextmanager
def ignore_closed_stdout() -> Iterator[None]:
    """After a broken pipe, stdout is the null device.

    The exit code then still says what the command did: a snapshot that was
    published has not failed because its report was not read.

    Raises:
        LocalError: It can't be written for another reason: it is on a full disk.
    """
    try:
        yield
    except BrokenPipeError:
        discard_stdout()
    except OSError as error:
        discard_stdout()  # a later flush of the buffer would fail again
        raise LocalError("can't write to stdout", found=error.strerror) from error


def discard_stdout() -> None:
    """Redirect stdout, with what is still buffered, to the null device."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)


def contents(counts: "Counts") -> str:
    """The counts that a snapshot and a restore of it have in common, in the same words."""
    more = [
        plural(count, what)
        for count, what in ((counts.symlinks, "symlink"), (counts.others, "other entry"))
        if count
    ]
    return ", ".join(
        [
            plural(counts.files, "file"),
            plural(counts.directories, "directory"),
            *more,
            size(counts.size),
        ]
    )


def message(level: str, text: object) -> None:
    """Print one line to stderr; ``level`` is error, hint, warning or empty."""
    prefix = f"vault: {level}: " if level else "vault: "
    with contextlib.suppress(OSError, ValueError):  # stderr may be closed: nothing left to tell
        _print_wrapped(prefix, printable(text), sys.stderr)


def _print_wrapped(prefix: str, text: str, stream: TextIO) -> None:
    """One line; on a terminal, folded at blanks with what follows indented."""
    line = prefix + text
    if stream.isatty():
        width = max(shutil.get_terminal_size().columns, 40)
        line = textwrap.fill(
            line,
            width,
            subsequent_indent=" " * len(prefix),
            break_long_words=False,
            break_on_hyphens=False,
        )
    print(line, file=stream, flush=True)
