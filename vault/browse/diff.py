"""The differences between two snapshots; pure, with two entries in memory at a time."""

import dataclasses
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from enum import StrEnum
from typing import Final

from vault.format.entry import Entry
from vault.format.tree import Flaws
from vault.model import EntryType, sort_key

_METADATA: Final = ("mode", "uid", "gid", "mtime", "xattrs")


class ChangeKind(StrEnum):
    """Kind of change to a path."""

    ADDED = "added"
    REMOVED = "removed"
    TYPE = "type"  # a file became a directory, a name of its own became a hard link
    CONTENT = "content"  # also the target of a link, the number of a device
    METADATA = "metadata"  # mode, owner, time or extended attributes only


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One path that differs."""

    kind: ChangeKind
    old: Entry | None  # None where added
    new: Entry | None  # None where removed
    fields: tuple[str, ...] = ()  # of the metadata that differ

    @property
    def entry(self) -> Entry:
        """The newer of the two."""
        entry = self.new or self.old
        assert entry is not None
        return entry

    @property
    def old_size(self) -> int:
        """Bytes of content before."""
        return self.old.size if self.old else 0

    @property
    def new_size(self) -> int:
        """Bytes of content now."""
        return self.new.size if self.new else 0


def diff_trees(
    old: Iterable[Entry], new: Iterable[Entry], *, flaws: Sequence[Flaws] = ()
) -> Iterator[Change]:
    """Merge two trees, each in tree order, and yield the paths that differ, in that order.

    A hard link has the content of its file, so a change of content is reported once, at the file.

    Args:
        old: One tree.
        new: The other.
        flaws: Entries of either tree that could not be read. Their paths, and those behind the
            end of a damaged tree, are left out: an unreadable entry was not removed.
    """
    unknown = {path for each in flaws for path in each.paths}
    end = min((sort_key(each.end.after) for each in flaws if each.end), default=None)
    for before, after in _merge(iter(old), iter(new)):
        path = (before or after).path  # type: ignore[union-attr] # one of them is there
        if end is not None and sort_key(path) > end:
            return
        if path in unknown:
            continue
        if before is None or after is None:
            kind = ChangeKind.ADDED if before is None else ChangeKind.REMOVED
            yield Change(kind=kind, old=before, new=after)
        elif change := compare(before, after):
            yield change


def compare(old: Entry, new: Entry) -> Change | None:
    """The change between two states of one path; None if they are equal."""
    fields = tuple(name for name in _METADATA if getattr(old, name) != getattr(new, name))
    if old.type is not new.type:
        kind = ChangeKind.TYPE
    elif _content(old) != _content(new):
        kind = ChangeKind.CONTENT
    elif fields:
        kind = ChangeKind.METADATA
    else:
        return None
    return Change(kind=kind, old=old, new=new, fields=fields)


def _content(entry: Entry) -> tuple[object, ...]:
    return entry.size, entry.sha256, entry.tree_hash, entry.link, entry.device


def _merge(
    old: Iterator[Entry], new: Iterator[Entry]
) -> Iterator[tuple[Entry | None, Entry | None]]:
    """Pairs of entries with the same path; None in place of an entry that a tree lacks."""
    before, after = next(old, None), next(new, None)
    while before or after:
        side = _side(before, after)
        yield before if side <= 0 else None, after if side >= 0 else None
        if side <= 0:
            before = next(old, None)
        if side >= 0:
            after = next(new, None)


def _side(before: Entry | None, after: Entry | None) -> int:
    """Which comes first: the old one (-1), the new one (1), or both (0)."""
    if before is None or after is None:
        return 1 if before is None else -1
    first, second = sort_key(before.path), sort_key(after.path)
    return (first > second) - (first < second)


class Summary:
    """Counts what a comparison found."""

    def __init__(self) -> None:
        self.paths: Counter[ChangeKind] = Counter()
        self.added_size = 0  # bytes of new and changed files, as they are now
        self.removed_size = 0  # bytes of removed and changed files, as they were

    def add(self, change: Change) -> None:
        """Count one."""
        self.paths[change.kind] += 1
        if change.kind is not ChangeKind.METADATA:
            self.added_size += _file_size(change.new)
            self.removed_size += _file_size(change.old)


def _file_size(entry: Entry | None) -> int:
    return entry.size if entry is not None and entry.type is EntryType.FILE else 0
