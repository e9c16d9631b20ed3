"""What counts as unchanged: what the entry list of the last run proves about this walk.

`is_unchanged` compares an entry with its record; `bound` says how old a change must be for that.

If the walk goes over the same file system as last time, at the same PATH, an entry is unchanged if
its times are, and lie far enough before the time at which it was read. At another PATH or device
the walk may go over a snapshot of that file system. A file may have been written twice in one tick
of the clock, before and after such a snapshot was taken: then it has the same times in two
snapshots, with two contents. So there an entry's last change must lie a minute before the moment
that the file system shows now and before the one that it showed last time: a snapshot can also be
older than the last one.

Btrfs states that moment for its snapshots. For others it is not before the newest ctime that the
walk met there; the entry with that ctime, or a directory above it, still shows it, unless the file
system is an older one.
"""

import os
from collections.abc import Callable, Iterable, Sequence

from vault.machine import filesystems
from vault.machine.filesystems import FileSystem
from vault.machine.mounts import in_memory, mounts
from vault.snapshot.list_records import Ground, ListHead, ListRecord, Top
from vault.snapshot.walk import SourceItem

MARGIN_NS = 60 * 10**9  # for a clock that is set back, and for the time that a snapshot takes
RACY_NS = 60 * 10**9  # docs/design.md "Snapshot": mtime alone proves nothing for the last 60 s
LONG_AGO = -(2**63)
FOREVER = 2**63 - 1


def is_unchanged(stat: os.stat_result, record: ListRecord, bound: int) -> bool:
    """Whether an entry is still as it was read last time.

    Args:
        stat: The status now.
        record: The record of last time.
        bound: The time before which it must last have changed, from the function `bound`.
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
    """The time, in ns, before which an entry with an unchanged status must last have changed.

    Args:
        before: The device that it was on last time.
        now: The file system that it is on now.
        device: The `st_dev` of that.
        seen: The newest ctime now of the entry that had the newest one last time, and of the
            directories above it; None: unknown.
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
        return LONG_AGO  # if they are written to, they may be two copies
    return min(was.taken or before.newest, now.taken or seen or 0) - MARGIN_NS


def top_of(directory: bytes) -> Top:
    """The directory at which a walk begins; empty if it is gone, which the walk reports."""
    try:
        status = os.lstat(directory)
    except OSError:
        return Top()
    table = tuple(mounts())
    return Top(status.st_dev, status.st_ino, filesystems.learn(directory, status, table))


def serves(last: ListHead, grounds: Iterable[Ground], head: ListHead, directory: bytes) -> bool:
    """Whether the list of a walk can be used for another one that begins at ``directory``."""
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

    Removing or replacing one of them changes the directory that it was in. None if the time is
    unknown: one of them can't be looked at, or is hidden below another device.
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
    """Bounds by the device of last time and the device met; known ones cost no call."""

    def __init__(self, find: Callable[[int, int], int]) -> None:
        super().__init__()
        self._find = find

    def __missing__(self, pair: tuple[int, int]) -> int:
        found = self[pair] = self._find(*pair)
        return found


class Grounds:
    """The devices that a walk meets, and what the list of last time proves on each.

    ``bounds`` has the `bound` of entries that were on one device and are met on another.

    Args:
        last: The devices of last time.
        directory: The directory at which the walk begins.
        same_path: Whether the PATHs are those of last time.
        killed: Where a killed run began whose journal can be used (`ListHead.other_source`).
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
        """Learn the file system of an entry, if it is on a new device."""
        assert item.stat is not None
        device = item.stat.st_dev
        if device not in self.met:
            self.met[device] = filesystems.learn(item.full, item.stat, self._table)

    def _bound(self, before: int, device: int) -> int:
        if device in self._tmpfs:
            return LONG_AGO
        last = self._last.get(before)
        if last is None:  # it is in a journal, so of this PATH
            return FOREVER if before in (device, self._killed) else LONG_AGO
        now = self.met[device]
        seen = newest_above(self._directory, last.path, device) if now.identity else None
        return bound(last, now, device, seen, same_path=self._same_path)
