"""Sequences on disk are read as those in memory are."""

import random
from bisect import bisect_right
from pathlib import Path

import pytest

from vault.browse.spilled_lists import Items, SpilledNumbers
from vault.errors import LocalError


@pytest.mark.parametrize("page", [40, 64, 65_536])
def test_they_hold_what_was_added(tmp_path: Path, page: int) -> None:
    """One by one, in slices, from the end, and searched."""
    dice = random.Random(1)
    numbers = sorted(dice.randrange(2**63) for _ in range(500))
    kept = SpilledNumbers(tmp_path, page=page, pages=3)
    items = Items(tmp_path, 32, page=page, pages=3)
    for at in range(0, 500, 70):
        kept.extend(numbers[at : at + 70])
        items.extend(number.to_bytes(32, "big") for number in numbers[at : at + 70])
    assert list(kept) == numbers
    assert len(items) == 500
    for _ in range(200):
        wanted = dice.randrange(2**63)
        assert bisect_right(kept, wanted) == bisect_right(numbers, wanted)
        at = dice.randrange(-500, 500)
        assert kept[at] == numbers[at]
        assert items[at : at + 9] == [n.to_bytes(32, "big") for n in numbers[at : at + 9]]
    with pytest.raises(IndexError):
        kept[500]


def test_nothing_was_added(tmp_path: Path) -> None:
    """Empty, and so false."""
    assert not SpilledNumbers(tmp_path)
    assert list(Items(tmp_path, 32)) == []


def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    """An error of the local disk."""
    with pytest.raises(LocalError, match="can't write"):
        Items(tmp_path / "missing", 32)
