"""A stream kept as chunks, and the levels of chunk ids above them (docs/format.md 8)."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from vault.errors import FormatError
from vault.format.entry import ID_SIZE

MAX_TREE_LEVEL = 8


def split_ids(data: bytes) -> list[bytes]:
    """Chunk ids out of their concatenation.

    Raises:
        FormatError: Not a multiple of 32 bytes.
    """
    if len(data) % ID_SIZE:
        raise FormatError("list of chunk ids has a broken length", found=len(data))
    return [data[at : at + ID_SIZE] for at in range(0, len(data), ID_SIZE)]


def fold_levels(
    ids: Sequence[bytes], cut: Callable[[bytes], list[int]], put: Callable[[bytes], bytes]
) -> tuple[bytes, int]:
    """Store the chunk ids of a tree stream as levels until one id is left.

    Args:
        ids: Chunk ids of the stream itself, in order; at least one.
        cut: The tree chunker: divides bytes into chunks, returns their lengths.
        put: Stores a tree chunk and returns its id.

    Returns:
        The last id, and its level: 0 if the stream is one chunk.

    Raises:
        FormatError: The stream needs more than `MAX_TREE_LEVEL` levels.
    """
    level = 0
    while len(ids) > 1:
        level = check_level(level + 1)
        stream = b"".join(ids)
        above, at = [], 0
        for length in cut(stream):
            above.append(put(stream[at : at + length]))
            at += length
        ids = above
    return ids[0], level


def expand_levels(root: bytes, level: int, fetch: Callable[[bytes], bytes]) -> Iterator[bytes]:
    """The inverse of `fold_levels`: the tree stream's chunks, in order, one at a time.

    Args:
        root: Chunk id in the manifest.
        level: Level in the manifest.
        fetch: Returns a tree chunk that was checked against its id.

    Raises:
        FormatError: The level is out of range, or a level's length is broken.
    """
    check_level(level)
    ids: Iterator[bytes] = iter((root,))
    for _ in range(level):
        ids = _ids_of(map(fetch, ids))
    return map(fetch, ids)


def _ids_of(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Chunk ids of one level; the chunker may have cut within an id."""
    rest = b""
    for chunk in chunks:
        data = rest + chunk
        whole = len(data) - len(data) % ID_SIZE
        yield from split_ids(data[:whole])
        rest = data[whole:]
    if rest:
        raise FormatError("list of chunk ids has a broken length", found=len(rest))


def check_level(level: Any) -> int:
    """The level itself.

    Raises:
        FormatError: Not 0 to `MAX_TREE_LEVEL`.
    """
    if not isinstance(level, int) or not 0 <= level <= MAX_TREE_LEVEL:
        raise FormatError(
            "tree level is out of range", expected=f"0 to {MAX_TREE_LEVEL}", found=level
        )
    return level
