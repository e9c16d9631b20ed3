"""Of several exit codes the gravest is told, by one order for every command."""

import itertools

import pytest

from cli.exits import EXIT_CODES, GRAVITY, gravest

ORDER = (4, 5, 1, 12, 10, 13, 14, 2, 16, 11, 17, 6, 3, 15)


@pytest.mark.parametrize(("graver", "lesser"), list(itertools.combinations(ORDER, 2)))
def test_the_graver_of_two_is_told(graver: int, lesser: int) -> None:
    """In whatever order they were met; and beside what went well."""
    assert gravest([graver, lesser]) == gravest([lesser, 0, graver]) == graver


def test_nothing_to_tell_is_0() -> None:
    """Of no codes, and of none but 0."""
    assert gravest([]) == gravest([0, 0]) == 0


def test_every_code_has_its_place() -> None:
    """A code without one could not be told beside another."""
    assert set(EXIT_CODES.values()) <= set(GRAVITY)
    assert len(set(GRAVITY)) == len(GRAVITY)
