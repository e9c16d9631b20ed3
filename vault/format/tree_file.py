"""A verified tree on local disk, so that it is fetched once and can be read often.

The file has no name, so it disappears with the process. Memory does not grow with the tree.
"""

import os
import struct
import tempfile
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Self, TypeAlias

from vault.errors import LocalError
from vault.format.entry import Entry
from vault.format.entry_encoding import keep_entry, kept_entry
from vault.format.tree import Flaws, legible_path
from vault.model import sort_key

Tree: TypeAlias = Callable[[Flaws, Iterator[bool] | None], Iterable[tuple[Entry | None, bytes]]]
"""A function that reads the tree from its beginning, such as `Reader.tree`."""

_LENGTHS = struct.Struct("<II")
_READ = 1 << 20  # bytes
_GUESS = 32_768  # bytes: an entry, and others that are asked for next


class Spool:
    """Entries in tree order. Use as a context manager.

    Args:
        directory: On local disk; holds the file as long as this is open.

    Raises:
        LocalError: The file can't be made.
    """

    def __init__(self, directory: Path) -> None:
        try:
            self._file = tempfile.TemporaryFile(dir=directory)  # noqa: SIM115 - closed by __exit__
        except OSError as error:
            raise LocalError(f"can't write in {directory}", found=error.strerror) from error
        self._end = 0
        self._window = (0, b"")  # a place and the bytes there; replaced together

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def fill(self, entries: Iterable[tuple[Entry | None, bytes]]) -> None:
        """Write all entries in place of earlier ones; None stands for one that was stepped over.

        Raises:
            LocalError: The disk is full or failed; errors of ``entries`` are passed on.
        """
        try:
            self._file.seek(0)
            self._file.truncate()
            self._end, self._window = 0, (0, b"")
            for entry, canonical in entries:
                self._add(canonical, b"" if entry is None else keep_entry(entry))
            self._file.flush()
        except OSError as error:
            raise LocalError("can't keep the tree on local disk", found=error.strerror) from error

    def sift(self, tree: Tree) -> Flaws:
        """Write as many entries of a damaged tree as fit together.

        An entry that comes too early displaces all that should have come before it. If that
        happened, the longest ascending row of entries is found, and the tree is read again
        without the others.

        Raises:
            LocalError: As `fill`; and what ``tree`` raises.
        """
        flaws = Flaws()
        self.fill(tree(flaws, None))
        if not flaws.misplaced:
            return flaws
        kept = _longest_row(self)
        if kept.count(0) >= flaws.misplaced:
            return flaws
        flaws = Flaws()
        self.fill(tree(flaws, map(bool, kept)))
        return flaws

    def canonical(self, place: int) -> bytes:
        """The canonical part of the entry at a place."""
        return self._one(place)[1]

    def _add(self, canonical: bytes, kept: bytes) -> None:
        lengths = _LENGTHS.pack(len(canonical), len(kept))
        self._end += self._file.write(b"".join((lengths, canonical, kept)))

    def __iter__(self) -> Iterator[tuple[Entry, bytes]]:
        """Entries with their canonical parts, in order."""
        for _, entry, canonical in self.places():
            yield entry, canonical

    def places(self) -> Iterator[tuple[int, Entry, bytes]]:
        """As iterating, with the place of each entry for `at`."""
        for place, entry, canonical in self.frames():
            if entry is not None:
                yield place, entry, canonical

    def frames(self) -> Iterator[tuple[int, Entry | None, bytes]]:
        """As `places`, with None for each entry that was stepped over."""
        place = 0
        while place < self._end:
            buffer = os.pread(self._file.fileno(), _READ, place)
            at = 0
            while (end := _end_of(buffer, at)) is not None:
                entry, canonical = _decode(buffer[at:end])
                yield place + at, entry, canonical
                at = end
            if not at:  # the entry is larger than the buffer
                entry, canonical, end = self._one(place)
                yield place, entry, canonical
                at = end - place
            place += at

    def at(self, place: int) -> Entry:
        """The entry at a place that `places` gave. Thread-safe."""
        entry = self._one(place)[0]
        assert entry is not None
        return entry

    def _one(self, place: int) -> tuple[Entry | None, bytes, int]:
        start, buffer = self._window
        at = place - start
        end = _end_of(buffer, at) if at >= 0 else None
        if end is None:
            buffer = os.pread(self._file.fileno(), _GUESS, place)
            at, end = 0, _LENGTHS.size + sum(_LENGTHS.unpack_from(buffer))
            if end > len(buffer):
                buffer = os.pread(self._file.fileno(), end, place)
            self._window = (place, buffer)
        return *_decode(buffer[at:end]), place + end - at


def _end_of(buffer: bytes, at: int) -> int | None:
    """The end of the entry at ``at``; None if the buffer does not hold all of it."""
    if at + _LENGTHS.size > len(buffer):
        return None
    end = at + _LENGTHS.size + sum(_LENGTHS.unpack_from(buffer, at))
    return end if end <= len(buffer) else None


def _decode(frame: bytes) -> tuple[Entry | None, bytes]:
    middle = _LENGTHS.size + _LENGTHS.unpack_from(frame)[0]
    entry = kept_entry(frame[middle:]) if middle < len(frame) else None
    return entry, frame[_LENGTHS.size : middle]


def _longest_row(spool: Spool) -> bytearray:
    """For each entry, 1 if it is in the longest row of ascending paths, or has no path; else 0.

    By patience sorting, with 25 bytes of memory for each entry. Paths are read from the file
    again to compare them.
    """
    places, before = array("Q"), array("q")  # by entry: its place; the entry before it in the row
    ends = array("Q")  # entries that end the rows of length 1, 2, …
    kept = bytearray()
    last = b""

    def key_of(number: int) -> bytes:
        path = legible_path(spool.canonical(places[number]))
        assert path is not None
        return sort_key(path)

    for place, entry, canonical in spool.frames():
        if entry is not None and not canonical:
            continue  # the parser made it up
        number = len(places)
        places.append(place)
        before.append(-1)
        path = legible_path(canonical)
        kept.append(path is None)
        if path is None:
            continue
        key = sort_key(path)
        at = len(ends)
        if ends and key <= last:
            at = bisect_left(ends, key, key=key_of)
            if key_of(ends[at]) == key:
                continue  # the first of a name counts
        before[number] = ends[at - 1] if at else -1
        if at == len(ends):
            ends.append(number)
        else:
            ends[at] = number
        if at == len(ends) - 1:
            last = key
    number = ends[-1] if ends else -1
    while number >= 0:
        kept[number] = 1
        number = before[number]
    return kept
