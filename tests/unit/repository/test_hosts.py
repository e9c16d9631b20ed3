"""Patterns of hosts: which overlap, which lie within others; names and who follows whom."""

import dataclasses
import itertools
from collections.abc import Iterator
from fnmatch import fnmatchcase

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.lab import Lab
from vault.ledger.chain import Ledger
from vault.repository.hosts import covers, hosts_of, is_key_id, overlap

SIGNS = "ab*?"
SHORT = ["".join(signs) for n in range(1, 4) for signs in itertools.product(SIGNS, repeat=n)]
TEXTS = ["".join(signs) for n in range(7) for signs in itertools.product("abc", repeat=n)]


def matched() -> Iterator[tuple[str, frozenset[int]]]:
    """Each short pattern, and which texts match it by Python's own rules."""
    for pattern in SHORT:
        yield pattern, frozenset(n for n, text in enumerate(TEXTS) if fnmatchcase(text, pattern))


def test_the_tables_agree_with_all_texts() -> None:
    """Against brute force, every pair of patterns of up to three signs.

    A text that two of them match need be no longer than six signs, and a third letter stands
    for all others. `covers` never says yes wrongly; it says no to a few that lie within.
    """
    texts = dict(matched())
    pairs = list(itertools.product(texts, repeat=2))
    met = [(a, b) for a, b in pairs if texts[a] & texts[b]]
    within = [(a, b) for a, b in pairs if texts[b] <= texts[a]]
    assert [(a, b) for a, b in pairs if overlap(a, b)] == met
    found = [(a, b) for a, b in pairs if covers(a, b)]
    assert set(found) <= set(within)
    assert len(found) > len(within) * 0.9


@settings(max_examples=300, deadline=None)
@given(st.text("abc", max_size=12), st.data())
def test_patterns_that_one_text_matches_overlap(text: str, data: st.DataObject) -> None:
    """Any two made from the same text by putting * and ? into it."""

    def blurred() -> str:
        signs = [data.draw(st.sampled_from((sign, "?", "*", f"*{sign}"))) for sign in text]
        return "".join(signs) or "*"

    first, second = blurred(), blurred()
    assert fnmatchcase(text, first)
    assert fnmatchcase(text, second)
    assert overlap(first, second)
    assert overlap(second, first)


@pytest.mark.parametrize(
    ("first", "second", "meet"),
    [
        ("*", "www", True),
        ("*", "*", True),
        ("db-*", "web-*", False),
        ("db-*", "*-1", True),
        ("db-1", "db-1", True),
        ("db-1", "db-2", False),
        ("db-?", "db-10", False),
        ("db-?", "db-1", True),
        ("*a", "*b", False),
        ("a*", "*b", True),
        ("a?", "?b", True),
        ("??", "*", True),
        ("???", "ab", False),
        ("*.*", "a.b", True),
        ("a.b", "a?b", True),
        ("*a*", "b", False),
        ("a" * 63, "*" * 63, True),
        ("*" * 32 + "a" * 31, "?" * 31 + "*" * 31 + "b", False),
    ],
)
def test_patterns_overlap_if_some_text_matches_both(first: str, second: str, meet: bool) -> None:  # noqa: FBT001 - a column of the table
    """Either way round."""
    assert overlap(first, second) is meet
    assert overlap(second, first) is meet


@pytest.mark.parametrize(
    ("wide", "narrow", "within"),
    [
        ("*", "db-*", True),
        ("db-*", "*", False),
        ("db-*", "db-1", True),
        ("db-*", "db-?", True),
        ("db-?", "db-*", False),
        ("*?", "?*", True),
        ("?*", "*?", True),
        ("?*", "*", False),
        ("*a*", "xax", True),
        ("*a", "*aa", True),
        ("db-1", "db-1", True),
        ("db", "db-1", False),
    ],
)
def test_a_pattern_lies_within_another(wide: str, narrow: str, within: bool) -> None:  # noqa: FBT001 - a column of the table
    """All that the narrow one matches, the wide one does."""
    assert covers(wide, narrow) is within


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ("0123456789abcdef", True),
        ("0123456789abcde", False),
        ("0" * 64, True),
        ("0" * 65, False),
        ("0123456789ABCDEF", False),
        ("0123456789abcdeg", False),
        ("", False),
    ],
)
def test_a_key_is_named_by_sixteen_digits_or_more(text: str, is_one: bool) -> None:  # noqa: FBT001 - a column of the table
    """Eight are found by trying keys for some hours."""
    assert is_key_id(text) is is_one


def test_a_writer_without_a_domain_is_in_none(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """A ledger may hold one: those that are in a domain are named as before."""
    lab.enrol("web", domain="default")
    ledger = lab.open().ledger
    web = next(writer for writer in ledger.writers.values() if writer.name == "web")
    bare = dataclasses.replace(web, name="bare", domain=None)
    monkeypatch.setattr(Ledger, "writers", {**ledger.writers, "bare": bare})
    assert hosts_of(ledger, "default") == ["first", "web"]
