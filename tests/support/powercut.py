"""What a power cut leaves of a disk: calls are recorded, and replayed into a model of it.

The rules of the model are those that every file system of Linux keeps, and no more: content and
attributes are on the disk as they were when the file was last synced; a change of names is there
once the directory that something came to, or went from, was synced after it (of a directory that
moved: both), or is itself gone for good. With it is what it needs: earlier changes of the same
names, and of names in a directory that it removes. Of all other changes of names any may have come
to the disk. What moved is found by looking, so that it does not matter which call moved it.
"""

import dataclasses
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self, TypeAlias

import pytest

from vault.machine.libc import libc
from vault.restore import syscalls as restore_fs

Id: TypeAlias = tuple[int, int]  # device and inode
Slot: TypeAlias = tuple[Id, str]  # a name in a directory
Moved: TypeAlias = Mapping[Slot, tuple[Id | None, Id | None]]
Tree: TypeAlias = dict[str, bytes | None]

_CALLS = ("mkdir", "rename", "replace", "link", "unlink", "remove", "rmdir", "symlink", "mknod")


@dataclasses.dataclass(frozen=True, slots=True)
class Kept:
    """What the disk has of an object, apart from its names."""

    kind: int  # stat.S_IF*
    data: bytes  # of a file; where a symlink points to
    mode: int
    owner: tuple[int, int]
    mtime: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One call, or a mark of the test."""

    call: str
    moved: Moved
    synced: Mapping[Id, Kept]
    mark: str = ""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    """One way in which a power cut may leave it."""

    after: str  # the last call before the cut
    marks: tuple[str, ...]  # what had been announced by then, in order
    tops: Mapping[Path, Id]
    names: Mapping[Id, Mapping[str, Id]]  # by directory
    kept: Mapping[Id, Kept]

    def find(self, path: Path) -> Id | None:
        """What has a name; None where nothing has."""
        top = next(top for top in self.tops if path.is_relative_to(top))
        found: Id | None = self.tops[top]
        for part in path.relative_to(top).parts:
            if found is not None:
                found = self.names.get(found, {}).get(part)
        return found

    def read(self, path: Path) -> bytes | None:
        """Content of a file; None where there is none."""
        found = self.find(path)
        return None if found is None else self.kept[found].data

    def list(self, path: Path) -> list[str]:
        """Names in a directory; none where there is none."""
        found = self.find(path)
        return [] if found is None else sorted(self.names.get(found, ()))

    def tree(self, path: Path) -> Tree | None:
        """Content by path of all below a directory, None for directories; None without one."""
        found = self.find(path)
        if found is None:
            return None
        return {
            name: None if stat.S_ISDIR(self.kept[each].kind) else self.kept[each].data
            for name, each in self._below(found, "")
        }

    def mode(self, path: Path) -> int:
        """Permission bits of what has a name."""
        found = self.find(path)
        assert found is not None
        return self.kept[found].mode

    def _below(self, directory: Id, prefix: str) -> Iterator[tuple[str, Id]]:
        for name, each in sorted(self.names.get(directory, {}).items()):
            yield prefix + name, each
            yield from self._below(each, f"{prefix}{name}/")

    @property
    def key(self) -> object:
        """Equal where nothing tells two of them apart."""
        found = [
            (top, self.kept[id_], *((name, each, self.kept[each]) for name, each in below))
            for top, id_ in self.tops.items()
            for below in [self._below(id_, "")]
        ]
        return self.marks, tuple(found)

    def build(self) -> dict[int, int]:
        """Put the machine's own file system into this state; new inode numbers by former ones."""
        made: dict[Id, Path] = {}
        for top, id_ in self.tops.items():
            _empty(top)
            self._build(id_, top, made)
        return {id_[1]: path.lstat().st_ino for id_, path in made.items()}

    def _build(self, id_: Id, path: Path, made: dict[Id, Path]) -> None:
        kept = self.kept[id_]
        if id_ in made:
            path.hardlink_to(made[id_])
            return
        made[id_] = path
        if stat.S_ISLNK(kept.kind):
            path.symlink_to(os.fsdecode(kept.data))
        elif stat.S_ISREG(kept.kind):
            path.write_bytes(kept.data)
        else:
            assert stat.S_ISDIR(kept.kind)
            path.mkdir(exist_ok=True)
            for name, each in self.names.get(id_, {}).items():
                self._build(each, path / name, made)
        if not stat.S_ISLNK(kept.kind):
            os.chown(path, *kept.owner)
            path.chmod(kept.mode)
        os.utime(path, ns=(kept.mtime, kept.mtime), follow_symlinks=False)


def _empty(directory: Path) -> None:
    """Remove all in it; of a mount point only what is in that."""
    directory.chmod(0o700)
    for path in directory.iterdir():
        if path.is_symlink() or not path.is_dir():
            path.unlink()
            continue
        _empty(path)
        if not path.is_mount():
            path.rmdir()


class Recorder:
    """Records what happens below some directories; a context manager.

    What is there when it begins is on the disk already.
    """

    def __init__(self, *tops: Path) -> None:
        self._tops = {top: _id(top.lstat()) for top in tops}
        self._held: dict[Id, int] = {}  # so that no inode number is used twice
        self._first: dict[Id, Kept] = {}
        self._events: list[Event] = []
        self._patch = pytest.MonkeyPatch()
        self._names: dict[Slot, Id] = {}
        self._names = self._start = self._scan()
        self._first = {id_: _kept(fd) for id_, fd in self._held.items()}

    def __enter__(self) -> Self:
        for name in _CALLS:
            self._watch(os, name)
        self._watch(os, "open", lambda _path, flags, *_, **__: bool(flags & os.O_CREAT))
        self._watch(os, "fsync", synced=lambda fd: [_id(os.fstat(fd))])
        self._watch(os, "fdatasync", synced=lambda fd: [_id(os.fstat(fd))])
        self._patch.setattr(restore_fs, "libc", _Library(self))
        return self

    def __exit__(self, *_: object) -> None:
        self._patch.undo()
        for fd in self._held.values():
            os.close(fd)
        self._held.clear()

    def mark(self, text: str) -> None:
        """Note that something is announced: it may rest on nothing but what is on the disk."""
        self._events.append(Event(call=text, moved={}, synced={}, mark=text))

    @property
    def calls(self) -> list[str]:
        """What was recorded, in order."""
        return [event.call for event in self._events]

    def look(self, call: str, synced: Iterable[Id] | None = ()) -> None:
        """Note what a call moved and synced; None: all there is."""
        now = self._scan()
        moved = {
            slot: (self._names.get(slot), now.get(slot))
            for slot in self._names.keys() | now.keys()
            if self._names.get(slot) != now.get(slot)
        }
        self._names = now
        ids = set(self._tops.values()) | set(now.values()) if synced is None else set(synced)
        kept = {id_: _kept(self._held[id_]) for id_ in ids if id_ in self._held}
        if moved or kept:
            text = " ".join([call, *sorted(name for _, name in moved)])
            self._events.append(Event(call=text, moved=moved, synced=kept))

    def _watch(
        self,
        module: Any,
        name: str,
        when: Callable[..., bool] = lambda *_, **__: True,
        synced: Callable[..., list[Id]] = lambda *_, **__: [],
    ) -> None:
        call = getattr(module, name)

        def watched(*args: Any, **options: Any) -> Any:
            result = call(*args, **options)
            if when(*args, **options):
                self.look(name, synced(*args, **options))
            return result

        self._patch.setattr(module, name, watched)

    def _scan(self) -> dict[Slot, Id]:
        found: dict[Slot, Id] = {}
        waiting: list[tuple[Id, str]] = []
        for top, id_ in self._tops.items():
            self._hold(id_, os.fspath(top))
            waiting.append((id_, os.fspath(top)))
        while waiting:
            around, path = waiting.pop()
            for entry in os.scandir(path):
                status = os.lstat(entry.path)  # what an entry knows of itself ends at mounts
                found[around, entry.name] = id_ = _id(status)
                self._hold(id_, entry.path)
                if stat.S_ISDIR(status.st_mode):
                    waiting.append((id_, entry.path))
        return found

    def _hold(self, id_: Id, path: str) -> None:
        if id_ not in self._held:
            self._held[id_] = fd = _open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
            self._first[id_] = _kept(fd, content=False)

    # --- replaying ---

    def cuts(self) -> Iterator[Disk]:
        """All that a power cut at any moment may leave, each once."""
        seen = set()
        for end in range(len(self._events) + 1):
            for disk in self._cut(end):
                key = disk.key
                if key not in seen:
                    seen.add(key)
                    yield disk

    def worst(self) -> Disk:
        """If the power fails now, and nothing came to the disk that was not synced."""
        end = len(self._events)
        return self._disk(end, self._durable(end))

    def _cut(self, end: int) -> Iterator[Disk]:
        durable = self._durable(end)
        moves = [at for at in range(end) if self._events[at].moved]
        loose = [at for at in moves if at not in durable]
        yield self._disk(end, durable)
        for count in range(1, len(loose) + 1):
            yield self._disk(end, durable | set(loose[:count]))
            yield self._disk(end, durable | self._with_what_it_needs(loose[count - 1]))

    def _durable(self, end: int) -> set[int]:
        """Changes of names that are on the disk whatever happens."""
        synced: dict[Id, int] = {}
        for at, event in enumerate(self._events[:end]):
            synced |= dict.fromkeys(event.synced, at)
        found = _Survivors()
        for at in reversed(range(end)):
            moved = self._events[at].moved
            around = self._to_sync(moved)
            is_synced = all(synced.get(each, -1) >= at or each in found.gone for each in around)
            if moved and (is_synced or found.rest_on(moved)):
                found.add(at, moved)
        return found.chosen

    def _to_sync(self, moved: Moved) -> set[Id]:
        """Where something came, which takes it from where it was; of directories both places."""
        everywhere = {directory for directory, _ in moved}
        if any(
            stat.S_ISDIR(self._first[id_].kind) for pair in moved.values() for id_ in pair if id_
        ):
            return everywhere
        return {directory for (directory, _), (_, id_) in moved.items() if id_} or everywhere

    def _with_what_it_needs(self, at: int) -> set[int]:
        found = _Survivors()
        found.add(at, self._events[at].moved)
        for earlier in reversed(range(at)):
            if found.rest_on(self._events[earlier].moved):
                found.add(earlier, self._events[earlier].moved)
        return found.chosen

    def _disk(self, end: int, survived: set[int]) -> Disk:
        slots = dict(self._start)
        kept = dict(self._first)
        for at, event in enumerate(self._events[:end]):
            kept |= event.synced
            for slot, (_, id_) in event.moved.items() if at in survived else ():
                slots.pop(slot, None)
                if id_ is not None:
                    slots[slot] = id_
        names: dict[Id, dict[str, Id]] = {}
        for (directory, name), id_ in slots.items():
            names.setdefault(directory, {})[name] = id_
        return Disk(
            after=f"call {end}: {self._events[end - 1].call if end else 'none'}",
            marks=tuple(event.mark for event in self._events[:end] if event.mark),
            tops=self._tops,
            names=names,
            kept=kept,
        )


class _Survivors:
    """Changes that come to the disk, gathered from the latest to the first."""

    def __init__(self) -> None:
        self.chosen: set[int] = set()
        self.gone: set[Id] = set()  # by then
        self._slots: set[Slot] = set()

    def add(self, at: int, moved: Moved) -> None:
        """One more."""
        self.chosen.add(at)
        self._slots |= moved.keys()
        after = {id_ for _, id_ in moved.values()}
        self.gone |= {id_ for id_, _ in moved.values() if id_ is not None} - after

    def rest_on(self, moved: Moved) -> bool:
        """Whether one of them can't be there without an earlier change.

        The same name was changed again; or the directory was removed, which is empty by then.
        """
        return any(slot in self._slots or slot[0] in self.gone for slot in moved)


class _Library:
    """The C library; a sync of the whole file system is noted, not done: others work on it, too."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._real = libc
        self.renameat2 = self._renameat2

    def _renameat2(self, *args: Any) -> int:
        result: int = self._real.renameat2(*args)
        self._recorder.look("renameat2")
        return result

    def syncfs(self, _: int) -> int:
        self._recorder.look("syncfs", None)
        return 0


_open = os.open  # not the one that is watched


def _id(status: os.stat_result) -> Id:
    return status.st_dev, status.st_ino


def _kept(fd: int, *, content: bool = True) -> Kept:
    """Of a descriptor that only holds the object."""
    status = os.fstat(fd)
    kind, data = stat.S_IFMT(status.st_mode), b""
    if kind == stat.S_IFLNK:
        data = os.fsencode(os.readlink("", dir_fd=fd))
    elif kind == stat.S_IFREG and content:
        data = Path(f"/proc/self/fd/{fd}").read_bytes()
    mode = stat.S_IMODE(status.st_mode)
    return Kept(kind, data, mode, (status.st_uid, status.st_gid), status.st_mtime_ns)
