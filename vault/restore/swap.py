"""Where the new and the former state are, and how they are moved (docs/design.md "Restore", I6).

Three names matter: TARGET, and in a closed directory beside it the staged tree and a third
name that only file systems without an exchange need. Inode numbers alone tell which state has
which name. So after a crash at any point the code looks at the three names, and finds the next
step in a table.
"""

import contextlib
import dataclasses
import os
import stat
from collections.abc import Iterator
from typing import Final, Protocol

from vault.errors import ConfigError
from vault.machine import metadata
from vault.restore import target as _target
from vault.restore.journal import Journal, MountPoint
from vault.restore.syscalls import (
    Fs,
    inode_at,
    is_unsupported,
    list_names,
    remove_empty,
    remove_tree,
)

# What is at (target, staging, third): n the new state, o the old one, - nothing.
# Renames are from-to pairs of t, s and f, the third name.
_FORWARD: Final[dict[str, tuple[str, ...]]] = {
    "n--": (),
    "no-": (),
    "n-o": (),
    "on-": ("tf", "st"),
    "-no": ("st",),
    "-on": ("ft",),
    "o-n": ("fs", "tf", "st"),
}
_BACKWARD: Final[dict[str, tuple[str, ...]]] = {
    "o--": (),
    "on-": (),
    "o-n": ("fs",),
    "no-": ("tf", "st", "fs"),
    "-on": ("st", "fs"),
    "-no": ("ft",),
    "n-o": ("ts", "ft"),
    "-o-": ("st",),
    "--o": ("ft",),
}
_FORWARD_MISSING: Final[dict[str, tuple[str, ...]]] = {"n--": (), "-n-": ("st",)}
_BACKWARD_MISSING: Final[dict[str, tuple[str, ...]]] = {"---": (), "-n-": (), "n--": ("ts",)}
_SWAPPED: Final = {"on-", "no-"}  # one exchange leads from either to the other
_THIRD: Final = b"former"
_WORDS: Final = {
    "n": "the restored state",
    "o": "the former state",
    "-": "nothing",
    "?": "something else",
}

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Promoted:
    """How a promotion went."""

    atomic: bool  # in one step: no process could see TARGET missing or half restored
    left_out: tuple[str, ...] = ()  # attributes that could not be set on a mount point


class Site(Protocol):
    """Where the new and the former state are, and how to move them."""

    def close(self) -> None:
        """Close what it opened."""

    def is_promoted(self) -> bool:
        """Whether TARGET is the new state."""

    def is_untouched(self) -> bool:
        """Whether TARGET is as it was."""

    def forward(self) -> Promoted:
        """Make TARGET the new state."""

    def backward(self) -> None:
        """Make TARGET what it was, and put the new state back into staging."""

    def open_new(self) -> int | None:
        """Descriptor of the new state, wherever it is; None where it is nowhere."""

    def remove_old(self) -> None:
        """Remove the former state, if any is left."""

    def remove_new(self) -> None:
        """Remove the staging directory, if any is left."""

    def settle(self) -> tuple[str, ...]:
        """Finish what a crash may have cut off after the moves; returns omissions."""


class BesideSite:
    """TARGET, and beside it a closed directory that holds the staged tree, later the former state.

    Args:
        parent: Descriptor of the directory around TARGET; stays the caller's.
        path: TARGET.
        restore_id: 8 hex digits.
        holder: Inode number of the closed directory; None: it is not compared.
        new: Inode number of the new state; None where it was never made.
        old: Inode number of the former state; None where TARGET was missing.
        fs: System calls.

    Raises:
        ConfigError: Another directory has the holder's name.
        OSError: The holder can't be opened.
    """

    def __init__(
        self,
        parent: int,
        path: bytes,
        *,
        restore_id: str,
        holder: int | None,
        new: int | None,
        old: int | None,
        fs: Fs,
    ) -> None:
        self._parent = parent
        self._path = path
        self._fs = fs
        self._new = new
        self._old = old
        name = path.rpartition(b"/")[2]
        self._holder_name = _target.staging_name(name, restore_id)
        self._holder = _open_holder(fs, parent, self._holder_name)
        if self._holder is not None and holder not in {None, os.fstat(self._holder).st_ino}:
            self.close()
            raise self._foreign(f"another directory at {os.fsdecode(self._holder_name)!r}")
        self._places = {"t": (parent, name)}
        if self._holder is not None:
            self._places |= {"s": (self._holder, _target.TREE), "f": (self._holder, _THIRD)}

    def is_promoted(self) -> bool:
        """Whether TARGET is the new state."""
        return self.layout().startswith("n")

    def is_untouched(self) -> bool:
        """Whether TARGET is as it was, or was changed only by others, not by this restore."""
        layout = self.layout()
        staged = layout[1] == "n" and "o" not in layout[1:]
        return staged or self._back().get(layout) == ()

    def close(self) -> None:
        """Close the holder."""
        if self._holder is not None:
            os.close(self._holder)

    def forward(self) -> Promoted:
        """Make TARGET the new state."""
        table = _FORWARD_MISSING if self._old is None else _FORWARD
        return Promoted(atomic=self._move(table))

    def backward(self) -> None:
        """Make TARGET what it was, and put the new state back into the holder."""
        self._move(self._back())

    def open_new(self) -> int | None:
        """Descriptor of the new state, wherever it is; None where it is nowhere."""
        at = self.layout().find("n")
        return None if at < 0 else self._fs.open_directory(*self._places["tsf"[at]])

    def remove_old(self) -> None:
        """Remove the former state, if any is left, and the holder; the caller syncs the parent."""
        self._remove("o", self._old)
        self._remove_holder()

    def remove_new(self) -> None:
        """Remove the staged tree, if any is left, and the holder; the caller syncs the parent."""
        if self._new is not None:
            self._remove("n", self._new)
            self._remove_holder()
        elif self._holder is not None:  # killed before the journal had the inode numbers
            remove_empty(self._fs, self._parent, self._holder_name)

    def settle(self) -> tuple[str, ...]:
        """Do nothing: the renames were the last step."""
        return ()

    def layout(self) -> str:
        """One letter each for TARGET, the staging name and the third name: n, o, - or ?."""
        return "".join(self._letter(role) for role in "tsf")

    def described(self) -> str:
        """The states found at TARGET and in the directory beside it, for a message."""
        at_target, staged, third = (_WORDS[letter] for letter in self.layout())
        beside = os.fsdecode(self._holder_name)
        found = f"{at_target} at TARGET, {staged} at '{beside}/{os.fsdecode(_target.TREE)}'"
        if third != _WORDS["-"]:
            found += f", {third} at '{beside}/{os.fsdecode(_THIRD)}'"
        return found

    def knows_the_way_back(self) -> bool:
        """Whether the names hold a state that this restore can be in."""
        return self.layout() in self._back()

    def find_old(self) -> tuple[int, bytes] | None:
        """Directory and name of the former state; None where it is nowhere."""
        at = self.layout().find("o")
        return None if at < 0 else self._places["tsf"[at]]

    def _back(self) -> dict[str, tuple[str, ...]]:
        return _BACKWARD_MISSING if self._old is None else _BACKWARD

    def _letter(self, role: str) -> str:
        place = self._places.get(role)
        inode = None if place is None else inode_at(*place)
        if inode is None:
            return "-"
        return {self._new: "n", self._old: "o"}.get(inode, "?")

    def _move(self, table: dict[str, tuple[str, ...]]) -> bool:
        """Make the moves that the table has for the present state; returns whether it was one."""
        layout = self.layout()
        if layout not in table:
            raise self._foreign(self.described())
        steps = table[layout]
        if not steps:
            return True
        if self._holder is None:
            raise self._foreign(self.described())
        with self._movable():
            if layout in _SWAPPED and self._swap(table):
                return True
            for step in steps:
                source, to = (self._places[role] for role in step)
                self._fs.rename_new(*source, *to)
                self._sync()
            self._check_arrived(table)
        return len(steps) < 2

    def _swap(self, table: dict[str, tuple[str, ...]]) -> bool:
        places = *self._places["t"], *self._places["s"]
        try:
            self._fs.exchange(*places)
        except OSError as error:
            if is_unsupported(error):
                return False
            raise
        try:
            self._check_arrived(table)
        except ConfigError:  # another process moved something in that moment: swap back
            self._fs.exchange(*places)
            raise
        finally:
            self._sync()
        return True

    @contextlib.contextmanager
    def _movable(self) -> Iterator[None]:
        """Make read-only directories writable while they move: the kernel updates their ``..``."""
        with contextlib.ExitStack() as stack:
            for role in self._places if os.geteuid() else ():
                if self._letter(role) in {"n", "o"}:
                    place, status = stack.enter_context(metadata.place_at(*self._places[role]))
                    mode = stat.S_IMODE(status.st_mode)
                    if status.st_uid == os.geteuid() and not mode & stat.S_IWUSR:
                        self._fs.chmod(place, mode | stat.S_IWUSR)
                        stack.callback(self._fs.chmod, place, mode)
            yield

    def _sync(self) -> None:
        for directory in (self._parent, self._holder):
            if directory is not None:
                self._fs.fsync(directory)

    def _check_arrived(self, table: dict[str, tuple[str, ...]]) -> None:
        """Check the inode numbers after a move: another process can swap a name before a call."""
        if table.get(self.layout()) != ():
            raise self._foreign(self.described())

    def _remove(self, letter: str, inode: int | None) -> None:
        at = self.layout().find(letter, 1)  # never TARGET
        if at > 0 and inode is not None:
            remove_tree(self._fs, *self._places["tsf"[at]], inode)

    def _remove_holder(self) -> None:
        if self._holder is not None:
            with contextlib.suppress(FileNotFoundError):
                self._fs.rmdir(self._parent, self._holder_name)

    def _foreign(self, found: str) -> ConfigError:
        return ConfigError(
            f"what is at and beside {os.fsdecode(self._path)!r} is not what the restore left",
            found=found,
            hint="something else moved it; nothing was removed: give the directories these names"
            " back, or move them by hand",
        )


def _open_holder(fs: Fs, around: int, name: bytes) -> int | None:
    try:
        return fs.open_directory(around, name)
    except FileNotFoundError:
        return None


class Within:
    """TARGET is a mount point: staging is in it, and its members are moved up one by one."""

    def __init__(self, path: bytes, journal: Journal, mount: MountPoint, fs: Fs) -> None:
        self._fs = fs
        self._path = path
        self._holder = _target.staging_name(path.rpartition(b"/")[2], journal.id)
        self._new = None if journal.new is None else int(journal.new)
        self._before = mount.before.meta()
        self._after = journal.top.meta() if journal.top is not None else None
        self._members = [name.encode("latin-1") for name in mount.names]
        self._top = os.open(path, _DIRECTORY)

    def close(self) -> None:
        """Close the mount point."""
        os.close(self._top)

    def is_promoted(self) -> bool:
        """Whether staging is gone: it is removed once its last member was moved up."""
        return inode_at(self._top, self._holder) is None

    def is_untouched(self) -> bool:
        """Whether no member was moved up."""
        return not any(
            inode_at(self._top, name) is not None
            for name in self._members
            if name != _target.MOUNT_OWN
        )

    def forward(self) -> Promoted:
        """Move the members up."""
        with self._open_staging() as staging:
            for name in list_names(staging):
                # an ext file system's own empty lost+found gives way to the snapshot's
                move = self._fs.rename if name == _target.MOUNT_OWN else self._fs.rename_new
                move(staging, name, self._top, name)
        remove_empty(self._fs, self._top, self._holder)
        return Promoted(atomic=False, left_out=self.settle())

    def backward(self) -> None:
        """Move the members back into staging."""
        self._make_staging()
        with self._open_staging() as staging:
            for name in self._members:
                if inode_at(self._top, name) is not None and inode_at(staging, name) is None:
                    self._fs.rename_new(self._top, name, staging, name)
            if self._after is not None:
                self._fs.apply_fd(staging, self._after, directory=True)
            self._fs.fsync(staging)
        self._fs.apply_fd(self._top, self._before, directory=True)
        self._fs.fsync(self._top)

    def open_new(self) -> int | None:
        """Descriptor of the new state, wherever it is."""
        if self.is_promoted():
            return self._fs.open_directory(self._top, b".")
        with contextlib.suppress(FileNotFoundError), self._open_staging() as staging:
            return os.dup(staging)
        return None

    def remove_old(self) -> None:
        """Do nothing: the mount point was empty, so there is no former state."""

    def remove_new(self) -> None:
        """Remove staging."""
        holder = inode_at(self._top, self._holder)
        if holder is None:
            return
        if self._new is None:  # killed before the journal had its inode number
            remove_empty(self._fs, self._top, self._holder)
        else:
            remove_tree(self._fs, self._top, self._holder, holder)
        self._fs.apply_fd(self._top, self._before, directory=True)
        self._fs.fsync(self._top)

    def settle(self) -> tuple[str, ...]:
        """Give the mount point the attributes that the top of the snapshot has."""
        omitted: tuple[str, ...] = ()
        if self._after is not None:
            omitted = self._fs.apply_fd(self._top, self._after, directory=True)
        self._fs.fsync(self._top)
        return omitted

    def _make_staging(self) -> None:
        """Make staging again, if it was removed already or half."""
        for around, name in ((b".", self._holder), (self._holder, _target.TREE)):
            fd = self._fs.open_directory(self._top, around)
            try:
                if inode_at(fd, name) is None:
                    self._fs.mkdir(fd, name)
                self._fs.fsync(fd)  # always: a run that was killed may have made it without a sync
            finally:
                os.close(fd)

    @contextlib.contextmanager
    def _open_staging(self) -> Iterator[int]:
        holder = self._fs.open_directory(self._top, self._holder)
        try:
            fd = self._fs.open_directory(holder, _target.TREE)
        finally:
            os.close(holder)
        try:
            yield fd
        finally:
            os.close(fd)


def site_of(parent: int, journal: Journal, fs: Fs) -> Site:
    """The site of a restore: beside TARGET, or within it where TARGET is a mount point.

    Args:
        parent: Descriptor of the directory around TARGET; stays the caller's.
        journal: Of the restore.
        fs: System calls.

    Raises:
        OSError: TARGET, a mount point, can't be opened.
    """
    if journal.mount is not None:
        return Within(journal.place, journal, journal.mount, fs)
    return BesideSite(
        parent,
        journal.place,
        restore_id=journal.id,
        holder=None if journal.holder is None else int(journal.holder),
        new=None if journal.new is None else int(journal.new),
        old=None if journal.old is None else int(journal.old),
        fs=fs,
    )


def open_parent(target: bytes) -> int:
    """Descriptor of the directory around TARGET.

    Raises:
        OSError: It can't be opened.
    """
    return os.open(target.rpartition(b"/")[0] or b"/", _DIRECTORY)
