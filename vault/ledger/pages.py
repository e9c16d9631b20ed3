"""Ledger pages: a thousand statements in one object, for cold reads (docs/format.md 2.5).

A page is a copy, signed by nobody: what is in it is checked like any statement. But which
of several statements owns a name is decided by the store's order, which a copy can't
show: a thief with a writer key could copy a history of his own. Nobody else would
ever build on that one. So pages are believed only if statements that follow them,
read from their own objects, are signed by at least two keys.
"""

import dataclasses
from collections.abc import Sequence
from typing import Final

from vault.errors import FormatError
from vault.ledger.envelope import (
    MAX_ROOT_PAE,
    Statement,
    max_envelope,
    parse_envelope,
    parse_statement,
)
from vault.model import Digest

PAGE_LENGTH: Final = 1_000  # statements
MIN_VOUCHERS: Final = 2  # keys that signed what follows the pages
MAX_PAGE: Final = 16 << 20  # bytes as stored


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PagedStatement:
    """One line of a page, parsed and not verified."""

    envelope: bytes
    digest: Digest
    statement: Statement


def pages_due(head: int) -> int:
    """How many whole pages there are up to a head, whose successor may be missing yet."""
    return (head + 1) // PAGE_LENGTH


def encode_page(envelopes: Sequence[bytes]) -> bytes:
    """One envelope a line, as stored: canonical JSON has no line ends."""
    assert len(envelopes) == PAGE_LENGTH
    return b"".join(envelope + b"\n" for envelope in envelopes)


def parse_page(data: bytes, number: int) -> list[PagedStatement]:
    """The statements of a page: whole, in order, each linked to the one before by digest.

    Raises:
        FormatError: They are not.
    """
    if len(data) > MAX_PAGE:
        raise FormatError("ledger page is too large", expected=MAX_PAGE, found=len(data))
    lines = data.splitlines()
    if len(lines) != PAGE_LENGTH:
        raise FormatError("ledger page is not whole", expected=PAGE_LENGTH, found=len(lines))
    paged = list(map(_parse, lines))
    for place, item in enumerate(paged):
        before = paged[place - 1].digest if place else item.statement.prev
        if item.statement.seq != number * PAGE_LENGTH + place or item.statement.prev != before:
            raise FormatError(f"ledger page {number} does not chain", found=f"line {place + 1}")
    return paged


def _parse(line: bytes) -> PagedStatement:
    if len(line) > max_envelope(MAX_ROOT_PAE):
        raise FormatError("ledger page has too long a line", found=len(line))
    envelope = parse_envelope(line, limit=MAX_ROOT_PAE)
    return PagedStatement(
        envelope=line, digest=envelope.digest, statement=parse_statement(envelope.payload)
    )
