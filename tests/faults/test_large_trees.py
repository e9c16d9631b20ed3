"""Trees that are hostile by their size: what is bounded, and what is refused at once."""

import resource
from collections.abc import Iterator

import pytest

from vault.errors import FormatError
from vault.format.entry import Entry
from vault.format.entry_encoding import encode_canonical, encode_extra
from vault.format.entry_encoding import frame as framed
from vault.format.tree import TreeHeader, TreeParser, encode_header
from vault.model import EntryType

MILLION = 1_000_000
EMPTY = bytes.fromhex("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")


def _crowd(count: int) -> Iterator[bytes]:
    """The stream of one directory with so many empty files."""
    yield encode_header(TreeHeader(key=b"k" * 32, relative=True, sources=(b"/crowd",)))
    top = Entry(path=b"", type=EntryType.DIRECTORY, mode=0o755)
    yield framed(encode_canonical(top), encode_extra(top))
    for number in range(count):
        entry = Entry(path=b"%07d" % number, type=EntryType.FILE, mode=0o644, sha256=EMPTY)
        yield framed(encode_canonical(entry), encode_extra(entry))


def test_a_million_entries_in_one_directory_take_little_memory() -> None:
    """Eight bytes a file, as the parser promises: no list of a million entries."""
    parser = TreeParser()
    pending = bytearray()
    seen = 0
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for data in _crowd(MILLION):
        pending += data
        if len(pending) > 65_536:
            seen += len(parser.feed(bytes(pending)))
            pending.clear()
    seen += len(parser.feed(bytes(pending)))
    parser.finish()
    assert seen == MILLION + 1
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 48 << 10  # KiB


def test_an_entry_larger_than_its_cap_is_refused_before_it_is_read() -> None:
    """A length of 4 GiB costs eight bytes of input and no memory."""
    parser = TreeParser()
    parser.feed(encode_header(TreeHeader(key=b"k" * 32, relative=True, sources=(b"/x",))))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(FormatError):
        parser.feed(b"\xff" * 8)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10  # KiB
