"""Which entries of a tree are to be restored (`--include`)."""

import dataclasses
from collections.abc import Callable, Iterable
from typing import Final

from vault.format.entry import Entry
from vault.model import EntryType
from vault.restore.syscalls import is_nameable

NAMES: Final = "names"  # an omission: names of over 255 bytes, too long for the target

Wanted = Callable[[bytes, bool], bool]  # path, is a directory -> was asked for


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Everything, or the entries that patterns match and the directories around them.

    If a hard link matches but its file does not, the link is restored as the file; further
    links to the same file then link to it.
    """

    wanted: Wanted | None = None  # None: everything
    around: frozenset[bytes] = frozenset()  # directories that are needed, not asked for
    files: dict[bytes, bytes] = dataclasses.field(default_factory=dict)
    """File that was not asked for -> the first of its links that was."""

    @property
    def is_partial(self) -> bool:
        """Whether anything may be left out."""
        return self.wanted is not None

    def takes(self, entry: Entry) -> bool:
        """Whether the entry is restored at its own path."""
        if self.wanted is None or not entry.path:
            return True
        is_directory = entry.type is EntryType.DIRECTORY
        return entry.path in self.around or self.wanted(entry.path, is_directory)


def nameable(wanted: Wanted | None) -> Wanted:
    """Narrow `wanted` to entries whose names a Linux file system can hold."""
    return lambda path, is_directory: (
        is_nameable(path) and (wanted is None or wanted(path, is_directory))
    )


def select_entries(entries: Iterable[tuple[Entry, bytes]], wanted: Wanted | None) -> Selection:
    """Go through a tree once; find the directories and links that the wanted entries need."""
    if wanted is None:
        return Selection()
    around: set[bytes] = set()
    files: dict[bytes, bytes] = {}
    for entry, _ in entries:
        if not entry.path or not wanted(entry.path, entry.type is EntryType.DIRECTORY):
            continue
        path = entry.path
        while (path := path.rpartition(b"/")[0]) and path not in around:
            around.add(path)
        if entry.type is EntryType.HARD_LINK:
            assert entry.link is not None
            if not wanted(entry.link, False):
                files.setdefault(entry.link, entry.path)
    return Selection(wanted=wanted, around=frozenset(around), files=files)
