"""The source of a snapshot, from options: paths, patterns, streams."""

import codecs
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from vault.durations import parse_duration
from vault.errors import ConfigError
from vault.snapshot.walk import Rules

_F = TypeVar("_F", bound=Callable[..., Any])

_WIDE_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE)
_MAX_LIST = 1 << 30  # bytes of a file that lists paths or patterns


def source_options(command: _F) -> _F:
    """The options that say what is read, in the order of the help page."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


_OPTIONS = (
    click.option(
        "--exclude",
        "excludes",
        metavar="PATTERN",
        multiple=True,
        help="Leave out what matches, as in a .gitignore; or a full path below PATH. Repeatable.",
    ),
    click.option(
        "--exclude-from",
        "exclude_files",
        metavar="FILE",
        multiple=True,
        type=click.Path(path_type=Path, allow_dash=True),
        help="Read such patterns from a file, one a line. Repeatable.",
    ),
    click.option(
        "--exclude-caches",
        is_flag=True,
        help="Leave out the members of directories tagged with a CACHEDIR.TAG.",
    ),
    click.option(
        "--exclude-if-present",
        "markers",
        metavar="NAME",
        multiple=True,
        help="Leave out the members of directories that hold such a file. Repeatable.",
    ),
    click.option(
        "--one-file-system",
        "-x",
        is_flag=True,
        help="Stay on the file system of each PATH.",
    ),
    click.option(
        "--files-from",
        "path_files",
        metavar="FILE",
        multiple=True,
        type=click.Path(path_type=Path, allow_dash=True),
        help="Read PATHs from a file, one a line; - is standard input. Repeatable.",
    ),
    click.option(
        "--files-from0",
        "path_files0",
        metavar="FILE",
        multiple=True,
        type=click.Path(path_type=Path, allow_dash=True),
        help="The same, each PATH ended by a NUL.",
    ),
    click.option(
        "--stdin",
        "stdin_name",
        metavar="NAME",
        help="Store standard input as a file of this name, instead of PATHs.",
    ),
    click.option(
        "--command",
        "is_command",
        is_flag=True,
        help="Store the output of the command after --, if it succeeds, instead of PATHs.",
    ),
    click.option(
        "--file-name",
        metavar="NAME",
        help="With --command: the file's name; default: the command's.",
    ),
    click.option(
        "--timeout",
        type=parse_duration,
        metavar="DURATION",
        help="With --command: end it after this time, and keep nothing.",
    ),
)


def read_rules(
    excludes: Sequence[str],
    exclude_files: Sequence[Path],
    *,
    exclude_caches: bool,
    markers: Sequence[str],
    one_file_system: bool,
) -> Rules:
    """The rules that these options make.

    Raises:
        ConfigError: A file of patterns can't be read, or is no UTF-8.
    """
    patterns = list(excludes)
    for file in exclude_files:
        patterns += [os.fsdecode(line) for line in _read_lines(file).splitlines()]
    return Rules(
        excludes=patterns,
        caches=exclude_caches,
        if_present=tuple(markers),
        one_file_system=one_file_system,
    )


def read_paths(
    paths: Sequence[str], path_files: Sequence[Path], path_files0: Sequence[Path]
) -> tuple[Path, ...]:
    """PATHs as given and as listed in files.

    Raises:
        ConfigError: None at all, or a list can't be read.
    """
    found = [os.fsencode(path) for path in paths]
    for file in path_files:
        found += _read_lines(file).split(b"\n")
    for file in path_files0:
        found += _read(file).split(b"\0")
    named = tuple(Path(os.fsdecode(path)) for path in found if path)
    if not named:
        raise ConfigError("no PATH given", hint="name what to take a snapshot of")
    return named


def _read_lines(file: Path) -> bytes:
    """A text file, without the mark that some editors put at its beginning."""
    data = _read(file)
    if data.startswith(_WIDE_MARKS):
        raise ConfigError(f"{file} is in UTF-16 or UTF-32", hint="save it as UTF-8")
    return data.removeprefix(codecs.BOM_UTF8)


def _read(file: Path) -> bytes:
    try:
        if str(file) == "-":
            data = sys.stdin.buffer.read(_MAX_LIST + 1)
        else:
            with file.open("rb") as opened:
                data = opened.read(_MAX_LIST + 1)
    except OSError as error:
        raise ConfigError(f"can't read {file}", found=error.strerror) from error
    if len(data) > _MAX_LIST:
        raise ConfigError(f"{file} is too long", expected=f"at most {_MAX_LIST} bytes")
    return data
