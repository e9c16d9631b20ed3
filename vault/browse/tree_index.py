"""A verified tree on local disk that can be looked up by path and walked by directory.

In memory are 24 bytes for every entry and a bounded number of paths; the entries
themselves stay in the spool.
"""

import fnmatch
import os
import re
from array import array
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final, Self

from vault.encoding import shown_path
from vault.errors import ConfigError, FormatError
from vault.format.entry import Entry
from vault.format.tree import Flaws
from vault.format.tree_file import Spool, Tree
from vault.model import EntryType, sort_key

_MAX_KEYS: Final = 16_384  # sort keys kept: the first steps of every search are the same
_MAX_KEY: Final = 1_024  # bytes; longer ones are read again


class TreeIndex:
    """Entries by number, in tree order; the top directory is 0. Use as a context manager.

    Args:
        directory: On local disk; holds the spool as long as this is open.

    Raises:
        LocalError: The spool can't be made.
    """

    def __init__(self, directory: Path, *, max_keys: int = _MAX_KEYS) -> None:
        self._max_keys = max_keys
        self._spool = Spool(directory)
        self._places = array("Q")  # of entries in the spool
        self._ends = array("Q")  # number after the last entry below this one
        self._links = array("Q")  # as st_nlink
        self._keys: dict[int, bytes] = {}

    def __enter__(self) -> Self:
        self._spool.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._spool.__exit__(*error)

    def fill(self, entries: Iterable[tuple[Entry | None, bytes]]) -> None:
        """Read and verify a whole tree; look-ups work only after that.

        Raises:
            LocalError: The disk is full or failed.
            IntegrityError: The tree differs from the signed one.
        """
        self._spool.fill(entries)
        self._learn()

    def sift(self, tree: Tree) -> Flaws:
        """As `fill`, but skip bad entries; returns them.

        Raises:
            LocalError: The disk is full or failed.
            IntegrityError: The tree differs from the signed one.
        """
        flaws = self._spool.sift(tree)
        self._learn()
        return flaws

    def _learn(self) -> None:
        above: list[tuple[int, bytes]] = []  # directories that may still get members
        for place, entry, _ in self._spool.places():
            number = len(self._places)
            parent = entry.path.rpartition(b"/")[0]
            while above and above[-1][1] != parent:
                self._ends[above.pop()[0]] = number
            self._add(place, entry, above[-1][0] if above else None)
            if entry.type is EntryType.DIRECTORY:
                above.append((number, entry.path))
        for number, _ in above:
            self._ends[number] = len(self._places)

    def _add(self, place: int, entry: Entry, parent: int | None) -> None:
        is_directory = entry.type is EntryType.DIRECTORY
        self._places.append(place)
        self._ends.append(len(self._places))
        self._links.append(2 if is_directory else 1)
        if is_directory and parent is not None:
            self._links[parent] += 1
        elif entry.type is EntryType.HARD_LINK:
            self._links[self._target(entry)] += 1

    def __len__(self) -> int:
        """Number of entries."""
        return len(self._places)

    def __iter__(self) -> Iterator[Entry]:
        """All entries in order; quicker than one by one."""
        return (entry for entry, _ in self._spool)

    def entry(self, number: int) -> Entry:
        """The entry of that number."""
        return self._spool.at(self._places[number])

    def find(self, path: bytes) -> int | None:
        """The number of the entry at a path; None if there is none."""
        wanted = sort_key(path)
        low, high = 0, len(self._places)
        while low < high:
            middle = (low + high) // 2
            if self._key(middle) < wanted:
                low = middle + 1
            else:
                high = middle
        return low if low < len(self._places) and self._key(low) == wanted else None

    def _key(self, number: int) -> bytes:
        key = self._keys.get(number)
        if key is None:
            key = sort_key(self.entry(number).path)
            if len(key) <= _MAX_KEY:
                if len(self._keys) >= self._max_keys:
                    self._keys.clear()
                self._keys[number] = key
        return key

    def children(self, number: int, start: int = 0) -> Iterator[int]:
        """Numbers of a directory's members in order, from a member on.

        Args:
            number: Of the directory.
            start: A member, or the number after the last one; what is less is the first.
        """
        at = max(number + 1, start)
        while at < self._ends[number]:
            yield at
            at = self._ends[at]

    def after(self, number: int) -> int:
        """The number that follows an entry and all that is below it."""
        return self._ends[number]

    def below(self, number: int) -> range:
        """Numbers of everything below a directory, in order."""
        return range(number + 1, self._ends[number])

    def file_of(self, number: int) -> int:
        """The number itself, or for a hard link that of its file."""
        entry = self.entry(number)
        return self._target(entry) if entry.type is EntryType.HARD_LINK else number

    def links(self, number: int) -> int:
        """As st_nlink: names of a file; 2 and its subdirectories for a directory."""
        return self._links[number]

    def _target(self, entry: Entry) -> int:
        """The file that a hard link names; the parser compared only a hash of its path.

        Raises:
            FormatError: There is no such file.
        """
        assert entry.link is not None
        target = self.find(entry.link)
        if target is None or self.entry(target).type is not EntryType.FILE:
            raise FormatError(
                f"tree entry {shown_path(entry.path)} is a hard link to no earlier file",
                found=shown_path(entry.link),
            )
        return target


def tree_path(text: bytes) -> bytes:
    """Turn a path as users write it into a tree's: without ``/`` around it; ``.`` is the top."""
    return b"/".join(part for part in text.split(b"/") if part not in (b"", b"."))


def path_matcher(pattern: bytes) -> Callable[[bytes], bool]:
    """Tells whether a path matches a glob: the whole of it where there is a ``/``, else its name.

    ``*`` matches ``/`` too, as in find(1) ``-path``. As in paths, ``/`` or ``./`` around the
    glob is ignored.

    Raises:
        ConfigError: The glob is nothing but ``/`` and ``.``, so no name can match.
    """
    is_whole = b"/" in pattern
    pattern = tree_path(pattern)
    if not pattern:
        raise ConfigError(
            "the pattern is empty: no name is", hint="'*' matches everything, '*.conf' some names"
        )
    matches = re.compile(fnmatch.translate(os.fsdecode(pattern))).match
    if is_whole:
        return lambda path: matches(os.fsdecode(path)) is not None
    return lambda path: matches(os.fsdecode(path.rpartition(b"/")[2])) is not None
