"""Lists outside entries: whatever their length they are gone through piece by piece."""

import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vault.errors import FormatError, MissingObjectError
from vault.format.entry import Entry, ListRef
from vault.format.extents import holes_of, listed_ids, runs_between
from vault.model import EntryType

HEAD, *CASES = json.loads(
    (Path(__file__).parents[2] / "vectors/tree/lists.json").read_text(encoding="utf-8")
)
CHUNKS = {bytes.fromhex(name): bytes.fromhex(data) for name, data in HEAD["chunks"].items()}


def _fetch(name: bytes) -> bytes:
    if name not in CHUNKS:
        raise MissingObjectError(f"chunk {name.hex()} is missing")
    return CHUNKS[name]


def _read(case: dict[str, Any]) -> list[Any]:
    root, level, count, covered = case["list"]
    ref = ListRef(bytes.fromhex(root), level, count, covered)
    if "size" in case:
        entry = Entry(path=b"f", type=EntryType.FILE, mode=0, size=case["size"], hole_list=ref)
        return [list(hole) for hole in holes_of(entry, _fetch)]
    return [name.hex() for ids in listed_ids(ref, _fetch) for name in ids]


@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case["name"]))
def test_a_list_is_what_the_vector_says(case: dict[str, Any]) -> None:
    """Its items, or the one fault that it was given."""
    if "says" in case:
        with pytest.raises((FormatError, MissingObjectError), match=case["says"]):
            _read(case)
        return
    assert _read(case) == case.get("ids", case.get("holes"))


def test_a_hundred_million_ids_are_never_in_memory() -> None:
    """100 TiB of file: 3.2 GB of ids, gone through some hundred at a time."""
    leaf = bytes(range(32)) * 2_000
    above = b"leaf".ljust(32) * 2_000
    top = b"above".ljust(32) * 25
    chunks = {b"leaf".ljust(32): leaf, b"above".ljust(32): above, b"top".ljust(32): top}
    ref = ListRef(b"top".ljust(32), 2, 100_000_000, 100_000_000 << 20)
    read: Callable[[bytes], bytes] = chunks.__getitem__
    found = 0
    tracemalloc.start(1)
    for ids in listed_ids(ListRef(ref.id, ref.level, 100_000_000, ref.size), read):
        found += len(ids)
        if found == 1_000_000:  # the rest is the same, and tracing is slow
            break
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found == 1_000_000
    assert peak < 3_000_000


def test_runs_lie_between_holes() -> None:
    """None is empty; all of a file without holes is one."""
    assert list(runs_between([(0, 5), (5, 1), (10, 90)], 120)) == [(6, 4), (100, 20)]
    assert list(runs_between([(0, 5)], 5)) == []
    assert list(runs_between([], 7)) == [(0, 7)]
    assert list(runs_between([], 0)) == []
