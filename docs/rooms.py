"""Writes the map of rooms in CONTRIBUTING.md: floors by pyproject.toml, words by docstrings.

``python -m docs.rooms CONTRIBUTING.md`` writes it anew between its two marks.
"""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

_TOP = Path(__file__).parents[1]
_BEGIN = "<!-- made by `make docs` from the docstrings of the rooms -->\n"
_END = "<!-- end of what `make docs` makes -->\n"


def with_map(page: str) -> str:
    """The page, with the map between its marks as the code has it.

    Raises:
        ValueError: The page has not both marks.
    """
    head, begin, rest = page.partition(_BEGIN)
    _, end, tail = rest.partition(_END)
    if not begin or not end:
        raise ValueError("the page has no place for the map of rooms")
    return head + _BEGIN + rooms() + _END + tail


def rooms() -> str:
    """One line for each room, from the top floor down."""
    lines = ["| floor | room | what it is for |", "|---|---|---|"]
    floors = [["cli"], *_floors()]
    for number, floor in zip(range(len(floors), 0, -1), floors, strict=True):
        lines.extend(f"| {number} | `{room}` | {_says(room)} |" for room in floor)
    return "\n".join(lines) + "\n"


def _floors() -> Iterator[list[str]]:
    """The floors inside `vault/` from the top, each with the paths of its rooms."""
    project = tomllib.loads((_TOP / "pyproject.toml").read_text())
    contracts = project["tool"]["importlinter"]["contracts"]
    [layers] = [each["layers"] for each in contracts if each.get("containers") == ["vault"]]
    for layer in layers:
        yield [f"vault/{name}" for name in re.findall(r"\w+", layer)]


def _says(room: str) -> str:
    """The first sentence of what a folder or a module says of itself."""
    path = _TOP / room
    source = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    text = ast.get_docstring(ast.parse(source.read_text()))
    assert text is not None, f"{source} has no docstring"
    return text.split("\n\n")[0].replace("\n", " ").replace("|", "\\|")


if __name__ == "__main__":
    page = Path(sys.argv[1])
    page.write_text(with_map(page.read_text()))
