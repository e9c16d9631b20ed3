"""Which entries of a tree are to be restored (`--include`)."""

import dataclasses
from collections.abc import Callable, Iterable
from typing import Final

from vault.format.tree import Entry
from vault.model import EntryType
from vault.restore.syscalls import is_nameable

NAMES: Final = "names"  # an omission: of over 255 bytes, which the target can't have

Wanted = Callable[[bytes, bool], bool]  # path, is a directory -> was asked for


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Everything, or what patterns ask for with the directories around it.

    A hard link whose file was not asked for becomes that file; further links to
    the same file then link to it.
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
    """What is wanted, without what no name can be given to."""
    return lambda path, is_directory: (
        is_nameable(path) and (wanted is None or wanted(path, is_directory))
    )


def select(entries: Iterable[tuple[Entry, bytes]], wanted: Wanted | None) -> Selection:
    """Go through a tree once and find what has to come along."""
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
