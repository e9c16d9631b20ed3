"""What counts as unchanged: what the entry list of last time proves about a walk of today.

`is_unchanged` compares an entry with its record; `bound` says how old a change must be for that.

Where the walk goes over the file system of last time, at the same PATH, an entry's times
prove it unchanged by the time at which it was read. Elsewhere, at another PATH or device, it
may be a snapshot of that file system, and what was read then may have been of the very tick
of the clock in which the snapshot was taken: a file written once more in that tick has the
same times in the next snapshot. So there an entry's last change must lie a minute before
the moment as of which the file system was last time, and as of which it is now, because a
snapshot can be older than that of last time.

That moment is what btrfs says of its snapshots; else it is not before the newest ctime that
the walk met on it, which the entry with that ctime, or a directory above it, still shows
unless the file system is an older one.
"""

import os
from collections.abc import Callable, Iterable, Sequence

from vault.machine import filesystems
from vault.machine.filesystems import FileSystem
from vault.machine.mounts import in_memory, mounts
from vault.snapshot.list_records import Ground, ListHead, ListRecord, Top
from vault.snapshot.walk import SourceItem

MARGIN_NS = 60 * 10**9  # for a clock that is set back, and for what a snapshot takes
RACY_NS = 60 * 10**9  # docs/design.md "Snapshot": mtime alone proves nothing for the last 60 s
LONG_AGO = -(2**63)
FOREVER = 2**63 - 1


def is_unchanged(stat: os.stat_result, record: ListRecord, bound: int) -> bool:
    """Whether what was read last time is still what is there.

    Args:
        stat: As it is now.
        record: As it was.
        bound: Before when it must last have changed, whenever it was read, by the function `bound`.
    """
    return (
        record.mtime == stat.st_mtime_ns
        and record.ctime == stat.st_ctime_ns
        and record.inode == stat.st_ino
        and record.size == stat.st_size
        and record.read_ns != 0  # times before 1970 are below it
        and (changed := max(record.mtime, record.ctime)) + RACY_NS < record.read_ns
        and changed < bound
    )


def bound(
    before: Ground, now: FileSystem, device: int, seen: int | None, *, same_path: bool
) -> int:
    """Before when an entry must last have changed to be unchanged if its status is; ns.

    Args:
        before: What it was on last time.
        now: What it is on.
        device: `st_dev` of that.
        seen: Newest ctime where last time's newest was, and above; None: that can't be told.
        same_path: The PATHs are those of last time.
    """
    was = before.file_system
    if (was.kind, was.identity) != (now.kind, now.identity):
        return LONG_AGO
    if same_path and was.volume == now.volume and (now.volume or before.device == device):
        went_back = now.identity and seen is not None and seen < before.newest
        return seen - MARGIN_NS if went_back and seen is not None else FOREVER
    if not now.identity:
        return before.newest - MARGIN_NS if same_path else LONG_AGO
    if not (same_path or (was.is_frozen and now.is_frozen)):
        return LONG_AGO  # two that are written to may be two copies
    return min(was.taken or before.newest, now.taken or seen or 0) - MARGIN_NS


def top_of(directory: bytes) -> Top:
    """What a walk begins with; of what is gone the walk says so."""
    try:
        status = os.lstat(directory)
    except OSError:
        return Top()
    table = tuple(mounts())
    return Top(status.st_dev, status.st_ino, filesystems.learn(directory, status, table))


def serves(last: ListHead, grounds: Iterable[Ground], head: ListHead, directory: bytes) -> bool:
    """Whether the list of a walk says anything about another one that begins at ``directory``."""
    if last.sources == head.sources:
        return True
    if len(last.sources) != 1 or len(head.sources) != 1 or last.top.inode != head.top.inode:
        return False
    found = [ground for ground in grounds if ground.device == last.top.device]
    return any(
        bound(
            ground,
            head.top.file_system,
            head.top.device,
            newest_above(directory, ground.path, head.top.device),
            same_path=False,
        )
        > LONG_AGO
        for ground in found
    )


def newest_above(directory: bytes, path: bytes, device: int) -> int | None:
    """The newest ctime, in ns, of a path in a directory and of the directories above it.

    What removes or replaces one of them changes the directory that it was in. None where that
    can't be told: one can't be looked at, or is hidden below another device.
    """
    newest = 0
    names = path.split(b"/") if path else []
    for depth in range(len(names) + 1):
        full = b"/".join((directory.rstrip(b"/"), *names[:depth])) or b"/"
        try:
            found = os.lstat(full)
        except (FileNotFoundError, NotADirectoryError):
            break
        except OSError:
            return None
        if found.st_dev == device:
            newest = max(newest, found.st_ctime_ns)
        elif newest:
            return None
    return newest or None


class _Bounds(dict[tuple[int, int], int]):
    """By the device of last time and the one that is met; without a call for what is known."""

    def __init__(self, find: Callable[[int, int], int]) -> None:
        super().__init__()
        self._find = find

    def __missing__(self, pair: tuple[int, int]) -> int:
        found = self[pair] = self._find(*pair)
        return found


class Grounds:
    """The devices that a walk meets, and what last time's list proves on each.

    ``bounds`` has `bound` of what was on one device and is met on another.

    Args:
        last: Those of last time.
        directory: Where the walk begins.
        same_path: Whether the PATHs are those of last time.
        killed: Where a run began whose journal is of use (`ListHead.other_source`).
    """

    def __init__(
        self,
        last: Sequence[Ground],
        directory: bytes,
        *,
        same_path: bool,
        killed: Top | None = None,
    ) -> None:
        self._last = {ground.device: ground for ground in last}
        self._same_path = same_path
        self._killed = -1 if killed is None else killed.device
        self._directory = directory
        self._table = tuple(mounts())
        self._tmpfs = in_memory()
        self.bounds = _Bounds(self._bound)
        self.met: dict[int, FileSystem] = {}

    def meet(self, item: SourceItem) -> None:
        """Learn what an entry is on, if that is new."""
        assert item.stat is not None
        device = item.stat.st_dev
        if device not in self.met:
            self.met[device] = filesystems.learn(item.full, item.stat, self._table)

    def _bound(self, before: int, device: int) -> int:
        if device in self._tmpfs:
            return LONG_AGO
        last = self._last.get(before)
        if last is None:  # of a journal then, so of this PATH
            return FOREVER if before in (device, self._killed) else LONG_AGO
        now = self.met[device]
        seen = newest_above(self._directory, last.path, device) if now.identity else None
        return bound(last, now, device, seen, same_path=self._same_path)
