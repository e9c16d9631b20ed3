"""Lines of keys, compared with where the text has them."""

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from vault.policy.places import line_of, places

EXAMPLES = sorted((Path(__file__).parents[3] / "policies").glob("*.toml"))


def paths(value: Any, path: str = "") -> Iterator[str]:
    """The path of every key that has a value of its own."""
    if isinstance(value, dict):
        for key, member in value.items():
            yield from paths(member, f"{path}.{key}" if path else key)
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        for index, member in enumerate(value):
            yield from paths(member, f"{path}[{index}]")
    else:
        yield path


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_every_key_of_an_example_is_on_its_line(example: Path) -> None:
    """The line has the key, or the inline table that has it."""
    text = example.read_text()
    found, lines = places(text), text.splitlines()
    names = list(paths(tomllib.loads(text)))
    assert len(names) > 8
    for name in names:
        line = lines[line_of(found, name) - 1]
        assert name.rpartition(".")[2] in line.partition("#")[0], name
    numbers = [line_of(found, name) for name in names if name in found]
    assert len(numbers) == len(set(numbers))


TRICKY = '''# [not.a.header]
a = """
[b]
c = 1
"""
d = [
  "[e]", # f = 1
  "g = 2",
]
h.i = 1
"j k" = 2
l = { m = 1, n = "]" }
[[o]]
p = \'\'\'
[q]\'\'\'
[ o . r ]
s = """a "quoted" text ends with quotes""""
t = 'x#y'
[[o]]
[o.r]
s = 1
'''


def test_what_stands_in_strings_lists_and_comments_is_no_place() -> None:
    """A line inside a value begins neither a table nor a key."""
    tomllib.loads(TRICKY)
    assert places(TRICKY) == {
        "a": 2, "d": 6, "h.i": 10, "j k": 11, "l": 12, "o[0]": 13, "o[0].p": 14,
        "o[0].r": 16, "o[0].r.s": 17, "o[0].r.t": 18, "o[1]": 19, "o[1].r": 20, "o[1].r.s": 21,
    }  # fmt: skip


def test_a_place_that_is_not_known_is_that_of_what_is_around_it() -> None:
    """Down to the first line of the file."""
    found = {"dataset[0]": 5, "dataset[0].check[0]": 9}
    assert line_of(found, "dataset[0].check[0].sql") == 9
    assert line_of(found, "dataset[0].paths[3]") == 5
    assert line_of(found, "dataset") == 5
    assert line_of(found, "name") == 1
