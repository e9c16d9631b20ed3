"""The line on which each key of a TOML file stands; `tomllib` gives values without their places."""

import re
from collections.abc import Iterator, Mapping

_PART = re.compile(r"""[A-Za-z0-9_-]+|"(?:\\.|[^"\\\n])*"|'[^'\n]*'""")
_DOTTED = rf"((?:{_PART.pattern})(?:[ \t]*\.[ \t]*(?:{_PART.pattern}))*)"
_HEADER = re.compile(rf"[ \t]*(\[\[?)[ \t]*{_DOTTED}[ \t]*\]\]?")
_KEY = re.compile(rf"[ \t]*{_DOTTED}[ \t]*=")
# what a value is made of, as far as it decides where the value ends
_QUOTED = re.compile(
    r'"""(?:\\.|[^\\])*?(?:"{3,5}|\Z)'
    r"|'''.*?(?:'{3,5}|\Z)"
    r'|"(?:\\.|[^"\\\n])*"'
    r"|'[^'\n]*'"
    r"|\#[^\n]*",
    re.DOTALL,
)
_PIECE = re.compile(rf"{_QUOTED.pattern}|[\[{{]|[\]}}]|\n|[^\"'\#\[\]{{}}\n]+|.", re.DOTALL)


def places(text: str) -> dict[str, int]:
    """Lines, from 1, of tables and keys by their path: ``dataset[1].retention.daily``.

    Keys inside a value, as those of an inline table, are not in it: `line_of` gives the line of
    the key that has the value. The text must be valid TOML, else places may be wrong.
    """
    found: dict[str, int] = {}
    counts: dict[str, int] = {}
    table = ""
    for number, line in _statements(text):
        if header := _HEADER.match(line):
            table = _enter(_parts(header[2]), counts, is_array=header[1] == "[[")
            found.setdefault(table, number)
        elif key := _KEY.match(line):
            path = ".".join(filter(None, [table, *_parts(key[1])]))
            found.setdefault(path, number)
    return found


def has_deep_key(text: str, most: int) -> bool:
    """Whether a key or a header has more parts than ``most``; the text may be any.

    The time that `tomllib` takes grows with the square of the parts.
    """
    bare = _QUOTED.sub('""', text)
    part = r'[A-Za-z0-9_"-]+[ \t]*'
    return re.search(rf'(?<![A-Za-z0-9_"-])(?:{part}\.[ \t]*){{{most}}}', bare) is not None


def line_of(found: Mapping[str, int], path: str) -> int:
    """The line of a path, else that of the nearest key or table around it; 1 of none."""
    while path:
        for known in (path, f"{path}[0]"):
            if known in found:
                return found[known]
        path = path[: max(path.rfind("."), path.rfind("["), 0)]
    return 1


def _statements(text: str) -> Iterator[tuple[int, str]]:
    """Each line on which a key or a header may begin: none inside of a value."""
    lines = text.split("\n")
    number, depth, begins = 1, 0, True
    position = 0
    while position < len(text):
        if begins:
            begins = False
            line = lines[number - 1]
            yield number, line
            if header := _HEADER.match(line):
                position += header.end()
                continue
        piece = _PIECE.match(text, position)
        assert piece is not None, "the last branch takes any character"
        mark = piece[0]
        position = piece.end()
        number += mark.count("\n")
        if mark in {"[", "{"}:
            depth += 1
        elif mark in {"]", "}"}:
            depth -= 1
        elif mark == "\n" and depth <= 0:
            begins = True


def _parts(dotted: str) -> list[str]:
    return [part.strip("\"'") for part in _PART.findall(dotted)]


def _enter(parts: list[str], counts: dict[str, int], *, is_array: bool) -> str:
    """The path of a table that a header opens; `counts` numbers the members of arrays."""
    path = ""
    for index, part in enumerate(parts):
        path = f"{path}.{part}" if path else part
        if is_array and index == len(parts) - 1:
            counts[path] = counts.get(path, -1) + 1
        if path in counts:
            path += f"[{counts[path]}]"
    return path
