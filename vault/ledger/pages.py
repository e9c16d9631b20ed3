"""Ledger pages: a thousand statements in one object, for cold reads (docs/format.md 2.5).

A page is a copy of bytes and proves nothing: a key that vouched for pages could be stolen. A line
stands for an object only where the store's own list says that the object has those bytes.
"""

from collections.abc import Sequence
from typing import Final

PAGE_LENGTH: Final = 1_000  # statements
MAX_PAGE: Final = 16 << 20  # bytes as stored


def pages_due(head: int) -> int:
    """How many whole pages there are up to a head, whose successor may be missing yet."""
    return (head + 1) // PAGE_LENGTH


def encode_page(envelopes: Sequence[bytes]) -> bytes:
    """One envelope a line, as stored: canonical JSON has no line ends."""
    assert len(envelopes) == PAGE_LENGTH
    return b"".join(envelope + b"\n" for envelope in envelopes)


def split_page(data: bytes) -> list[bytes] | None:
    """The lines of a page, unverified; None if it has not the right number of them."""
    lines = data.split(b"\n")
    is_whole = len(data) <= MAX_PAGE and len(lines) == PAGE_LENGTH + 1 and not lines[-1]
    return lines[:-1] if is_whole else None
