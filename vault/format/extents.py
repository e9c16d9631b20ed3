"""Where a file's content lies: chunks and holes, also of a giant file (docs/format.md 8.1).

Pure. Lists outside entries are untrusted, and read piece by piece, so that memory does not grow
with them.
"""

import struct
from collections.abc import Callable, Iterable, Iterator
from typing import TypeAlias

from vault.errors import FormatError
from vault.format.entry import ID_SIZE, Entry, ListRef
from vault.format.tree_levels import expand_levels, split_ids

HOLE = struct.Struct("<QQ")  # offset, length
Fetch: TypeAlias = Callable[[bytes], bytes]
"""A function that returns a tree chunk, checked against its id."""


def listed_ids(ref: ListRef, fetch: Fetch) -> Iterator[list[bytes]]:
    """Chunk ids of a list, in order, some thousand at a time.

    Raises:
        FormatError: The entry says another number of them, or the list is broken.
    """
    return map(split_ids, _items(ref, fetch, ID_SIZE))


def holes_of(entry: Entry, fetch: Fetch) -> Iterator[tuple[int, int]]:
    """Holes of a file, (offset, length), ascending and inside it.

    Raises:
        FormatError: A list of them breaks a rule.
    """
    if entry.hole_list is not None:
        return _listed_holes(entry.hole_list, fetch, entry.size)
    return iter(entry.holes or ())


def _listed_holes(ref: ListRef, fetch: Fetch, size: int) -> Iterator[tuple[int, int]]:
    end = covered = 0
    for data in _items(ref, fetch, HOLE.size):
        for offset, length in HOLE.iter_unpack(data):
            if offset < end or not length or offset + length > size:
                raise FormatError("list of holes has impossible ones", found=(offset, length))
            end = offset + length
            covered += length
            yield offset, length
    if covered != ref.size:
        raise FormatError(
            "list of holes does not cover what it should", expected=ref.size, found=covered
        )


def runs_between(holes: Iterable[tuple[int, int]], size: int) -> Iterator[tuple[int, int]]:
    """(offset, length) of the data around holes."""
    at = 0
    for offset, length in holes:
        if offset > at:
            yield at, offset - at
        at = offset + length
    if at < size:
        yield at, size - at


def _items(ref: ListRef, fetch: Fetch, width: int) -> Iterator[bytes]:
    """Whole items of a list, those of one chunk at a time; never more than the entry says."""
    rest, found = b"", 0
    for chunk in expand_levels(ref.id, ref.level, fetch):
        data = rest + chunk if rest else chunk
        whole = len(data) - len(data) % width
        found += whole // width
        if found > ref.count:
            break
        rest = data[whole:]
        if whole:
            yield data[:whole]
    if found != ref.count or rest:
        raise FormatError(
            "list of a file has another length than its entry says",
            expected=f"{ref.count} items",
            found=f"{found} and {len(rest)} bytes" if found <= ref.count else "more",
        )
