"""Ledger pages: when they are due, and what is none."""

import pytest

from vault.ledger import pages
from vault.ledger.pages import PAGE_LENGTH, encode_page, pages_due, split_page


@pytest.mark.parametrize(("head", "due"), [(0, 0), (998, 0), (999, 1), (1998, 1), (1999, 2)])
def test_a_page_is_due_with_its_last_statement(head: int, due: int) -> None:
    """Statements begin at 0, so the thousandth has number 999."""
    assert PAGE_LENGTH == 1000
    assert pages_due(head) == due


def test_a_page_over_its_limit_is_not_looked_into(monkeypatch: pytest.MonkeyPatch) -> None:
    """By its size alone; one of exactly the limit is."""
    data = encode_page([b"x"] * PAGE_LENGTH)
    monkeypatch.setattr(pages, "MAX_PAGE", len(data))
    assert split_page(data) == [b"x"] * PAGE_LENGTH
    monkeypatch.setattr(pages, "MAX_PAGE", len(data) - 1)
    assert split_page(data) is None


@pytest.mark.parametrize("count", [0, 1, PAGE_LENGTH - 1, PAGE_LENGTH + 1])
def test_a_page_has_all_its_lines(count: int) -> None:
    """Each with its end: neither more nor fewer, nor one that is cut."""
    assert split_page(b"x\n" * count) is None
    assert split_page((b"x\n" * PAGE_LENGTH)[:-1]) is None
    assert split_page(b"x\n" * PAGE_LENGTH + b"x") is None
