"""Ledger pages: when they are due, and what is none."""

import pytest

from tests.support.lab import Lab, MakeRepository
from tests.support.trees import MakeSource
from vault.errors import FormatError
from vault.ledger import pages
from vault.ledger.envelope import max_envelope
from vault.ledger.pages import PAGE_LENGTH, encode_page, pages_due, parse_page
from vault.storage.names import ledger_name


@pytest.mark.parametrize(("head", "due"), [(0, 0), (998, 0), (999, 1), (1998, 1), (1999, 2)])
def test_a_page_is_due_with_its_last_statement(head: int, due: int) -> None:
    """Statements begin at 0, so the thousandth has number 999."""
    assert PAGE_LENGTH == 1000
    assert pages_due(head) == due


def test_a_page_over_its_limit_is_not_looked_into(monkeypatch: pytest.MonkeyPatch) -> None:
    """By its size alone; one of exactly the limit is."""
    data = encode_page([b"x"] * PAGE_LENGTH)
    monkeypatch.setattr(pages, "MAX_PAGE", len(data))
    with pytest.raises(FormatError, match=r"envelope|JSON"):
        parse_page(data, 0)
    monkeypatch.setattr(pages, "MAX_PAGE", len(data) - 1)
    with pytest.raises(FormatError, match="page is too large"):
        parse_page(data, 0)


def test_sixteen_mebibytes_are_the_limit() -> None:
    """A thousand of the largest statements would be more: such a page is not written."""
    with pytest.raises(FormatError, match="page is too large"):
        parse_page(bytes((16 << 20) + 1), 0)
    with pytest.raises(FormatError, match="not whole"):
        parse_page(bytes(16 << 20), 0)


def test_a_line_longer_than_any_statement_is_refused() -> None:
    """Before it is parsed."""
    longest = max_envelope(65_536)
    for length, said in ((longest, r"envelope|JSON"), (longest + 1, "too long a line")):
        with pytest.raises(FormatError, match=said):
            parse_page(encode_page([b"x" * length, *[b"x"] * (PAGE_LENGTH - 1)]), 0)


def test_statements_are_a_page_of_their_numbers_only(
    make_repository: MakeRepository,
    make_source: MakeSource,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A signed run of statements, each linked to the one before, is no other page than its own."""
    lab: Lab = make_repository("none")
    source = make_source(files=1)
    lab.snapshot(source)
    lab.snapshot(source)
    envelopes = [lab.store.get(ledger_name(seq)) for seq in range(4)]
    monkeypatch.setattr(pages, "PAGE_LENGTH", 2)
    second = encode_page(envelopes[2:])
    assert [item.statement.seq for item in parse_page(second, 1)] == [2, 3]
    for number in (0, 2):
        with pytest.raises(FormatError, match=f"page {number} does not chain"):
            parse_page(second, number)
    with pytest.raises(FormatError, match="page 0 does not chain"):
        parse_page(encode_page([envelopes[0], envelopes[2]]), 0)
