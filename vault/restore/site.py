"""Where the new and the former state are, and how they are moved (design.md 6, I6).

Three names matter: TARGET, staging, and a third that only file systems without
an exchange need. What is where is told by inode numbers alone, so that after a
crash at any point the next step is a table look-up on what is found.
"""

import contextlib
import dataclasses
import os
from collections.abc import Iterator
from typing import Final, Protocol

from vault import fsmeta
from vault.errors import ConfigError
from vault.restore import target as _target
from vault.restore import top as _top
from vault.restore.fs import Fs, inode_at, is_unsupported, list_names, remove_tree
from vault.restore.journal import Journal, MountPoint

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
_MOUNT_OWN: Final = b"lost+found"

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Promoted:
    """How a promotion went."""

    atomic: bool  # in one step: nobody saw TARGET missing or half
    left_out: tuple[str, ...] = ()  # omissions; only of a mount point's own attributes


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


class Beside:
    """TARGET and staging are neighbours in one directory.

    Args:
        parent: Descriptor of the directory; stays the caller's.
        path: TARGET.
        restore_id: 8 hex digits.
        new: Inode number of the new state; None where it was never made.
        old: Inode number of the former state; None where TARGET was missing.
        top: Attributes that the new state's top gets as it becomes TARGET; None: those it has.
        fs: System calls.
    """

    def __init__(
        self,
        parent: int,
        path: bytes,
        *,
        restore_id: str,
        new: int | None,
        old: int | None,
        top: fsmeta.Meta | None,
        fs: Fs,
    ) -> None:
        self._parent = parent
        self._path = path
        self._fs = fs
        name = path.rpartition(b"/")[2]
        staging = _target.staging_name(name, restore_id)
        self._names = {"t": name, "s": staging, "f": staging + b".former"}
        self._new = new
        self._old = old
        self._top = top

    def is_promoted(self) -> bool:
        """Whether TARGET is the new state."""
        return self.layout().startswith("n")

    def is_untouched(self) -> bool:
        """Whether TARGET is as it was, or at least nothing of this restore's doing."""
        layout = self.layout()
        staged = layout[1] == "n" and "o" not in layout[1:]
        return staged or self._back().get(layout) == ()

    def close(self) -> None:
        """Nothing is its own."""

    def forward(self) -> Promoted:
        """Make TARGET the new state."""
        if self._top is not None and not self.is_promoted():
            with self._held() as fd:
                _top.open_to_others(fd, self._top, self._fs)
        table = _FORWARD_MISSING if self._old is None else _FORWARD
        return Promoted(atomic=self._move(table))

    def backward(self) -> None:
        """Make TARGET what it was, and put the new state back into staging, closed to others."""
        self._move(self._back())
        if self._top is not None and "n" in self.layout():
            with self._held() as fd:
                _top.close_to_others(fd, self._fs)

    def open_new(self) -> int | None:
        """Descriptor of the new state, wherever it is; None where it is nowhere."""
        at = self.layout().find("n")
        return None if at < 0 else self._fs.open_directory(self._parent, self._names["tsf"[at]])

    def remove_old(self) -> None:
        """Remove the former state, if any is left."""
        self._remove("o", self._old)

    def remove_new(self) -> None:
        """Remove the staging directory, if any is left."""
        if self._new is None:  # killed between making it and writing down which it is
            with contextlib.suppress(FileNotFoundError):
                self._fs.rmdir(self._parent, self._names["s"])
        elif not self.is_promoted():
            self._remove("n", self._new)

    def settle(self) -> tuple[str, ...]:
        """Nothing is left to do once TARGET has its name."""
        return ()

    def layout(self) -> str:
        """What is at TARGET, at the staging name and at the third: n, o, - or ?."""
        return "".join(self._letter(self._names[role]) for role in "tsf")

    def knows_the_way_back(self) -> bool:
        """Whether what is found is a state of this restore."""
        return self.layout() in self._back()

    def place_of_old(self) -> bytes | None:
        """Name of the former state; None where it is nowhere."""
        at = self.layout().find("o")
        return None if at < 0 else self._names["tsf"[at]]

    def _back(self) -> dict[str, tuple[str, ...]]:
        return _BACKWARD_MISSING if self._old is None else _BACKWARD

    def _letter(self, name: bytes) -> str:
        inode = inode_at(self._parent, name)
        if inode is None:
            return "-"
        return {self._new: "n", self._old: "o"}.get(inode, "?")

    @contextlib.contextmanager
    def _held(self) -> Iterator[int]:
        fd = self.open_new()
        if fd is None:
            raise self._foreign()
        try:
            if os.fstat(fd).st_ino != self._new:
                raise self._foreign()
            yield fd
        finally:
            os.close(fd)

    def _move(self, table: dict[str, tuple[str, ...]]) -> bool:
        """Go the way from what is found; returns whether that was one step."""
        layout = self.layout()
        if layout not in table:
            raise self._foreign()
        steps = table[layout]
        if steps and layout in _SWAPPED and self._swap(table):
            return True
        for step in steps:
            source, to = (self._names[role] for role in step)
            self._fs.rename_new(self._parent, source, self._parent, to)
            self._fs.fsync(self._parent)
        self._check_arrived(table)
        return len(steps) < 2

    def _swap(self, table: dict[str, tuple[str, ...]]) -> bool:
        names = self._names["t"], self._names["s"]
        try:
            self._fs.exchange(self._parent, *names)
        except OSError as error:
            if is_unsupported(error):
                return False
            raise
        try:
            self._check_arrived(table)
        except ConfigError:  # others moved something in that moment: it is put back
            self._fs.exchange(self._parent, *names)
            raise
        finally:
            self._fs.fsync(self._parent)
        return True

    def _check_arrived(self, table: dict[str, tuple[str, ...]]) -> None:
        """See that what was moved is what was meant: a name can be swapped before any call."""
        if table.get(self.layout()) != ():
            raise self._foreign()

    def _remove(self, letter: str, inode: int | None) -> None:
        at = self.layout().find(letter, 1)  # never TARGET
        if at > 0 and inode is not None:
            remove_tree(self._fs, self._parent, self._names["tsf"[at]], inode)
            self._fs.fsync(self._parent)

    def _foreign(self) -> ConfigError:
        return ConfigError(
            f"what is at and beside {os.fsdecode(self._path)!r} is not what the restore left",
            found=self.layout(),
            hint="another process moved it; nothing was removed",
        )


class Within:
    """TARGET is a mount point: staging is in it, and its members are moved up one by one."""

    def __init__(self, path: bytes, journal: Journal, mount: MountPoint, fs: Fs) -> None:
        self._fs = fs
        self._path = path
        self._staging = _target.staging_name(path.rpartition(b"/")[2], journal.id)
        self._new = None if journal.new is None else int(journal.new)
        self._before = mount.before.meta()
        self._after = journal.top.meta() if journal.top is not None else None
        self._members = [name.encode("latin-1") for name in mount.names]
        self._top = os.open(path, _DIRECTORY)

    def close(self) -> None:
        """Close the mount point."""
        os.close(self._top)

    def is_promoted(self) -> bool:
        """Whether nothing is left in staging: it is removed after its last member left."""
        return inode_at(self._top, self._staging) is None

    def is_untouched(self) -> bool:
        """Whether no member was moved up."""
        return not any(
            inode_at(self._top, name) is not None for name in self._members if name != _MOUNT_OWN
        )

    def forward(self) -> Promoted:
        """Move the members up."""
        with self._open_staging() as staging:
            for name in list_names(staging):
                # an ext file system's own empty lost+found gives way to the snapshot's
                move = self._fs.rename if name == _MOUNT_OWN else self._fs.rename_new
                move(staging, name, self._top, name)
        self._fs.rmdir(self._top, self._staging)
        self._fs.fsync(self._top)
        return Promoted(atomic=False, left_out=self.settle())

    def backward(self) -> None:
        """Move the members back into staging."""
        if self.is_promoted():
            self._fs.mkdir(self._top, self._staging)
        with self._open_staging() as staging:
            for name in self._members:
                if inode_at(self._top, name) is not None and inode_at(staging, name) is None:
                    self._fs.rename_new(self._top, name, staging, name)
            self._fs.fsync(staging)
        self._fs.apply_fd(self._top, self._before, directory=True)
        self._fs.fsync(self._top)

    def open_new(self) -> int | None:
        """Descriptor of the new state, wherever it is."""
        return self._fs.open_directory(self._top, b"." if self.is_promoted() else self._staging)

    def remove_old(self) -> None:
        """There is none: the mount point was empty."""

    def remove_new(self) -> None:
        """Remove staging."""
        inode = inode_at(self._top, self._staging)
        if inode is None:
            return
        if self._new is None:  # killed between making it and writing down which it is
            self._fs.rmdir(self._top, self._staging)
        else:
            remove_tree(self._fs, self._top, self._staging, inode)
        self._fs.apply_fd(self._top, self._before, directory=True)
        self._fs.fsync(self._top)

    def settle(self) -> tuple[str, ...]:
        """Give the mount point the attributes that the top of the snapshot has."""
        if self._after is None:
            return ()
        omitted = self._fs.apply_fd(self._top, self._after, directory=True)
        self._fs.fsync(self._top)
        return omitted

    @contextlib.contextmanager
    def _open_staging(self) -> Iterator[int]:
        fd = self._fs.open_directory(self._top, self._staging)
        try:
            yield fd
        finally:
            os.close(fd)


def site_of(parent: int, journal: Journal, fs: Fs) -> Site:
    """Where the states of a restore are.

    Args:
        parent: Descriptor of the directory around TARGET; stays the caller's.
        journal: Of the restore.
        fs: System calls.

    Raises:
        OSError: TARGET, a mount point, can't be opened.
    """
    if journal.mount is not None:
        return Within(journal.place, journal, journal.mount, fs)
    return Beside(
        parent,
        journal.place,
        restore_id=journal.id,
        new=None if journal.new is None else int(journal.new),
        old=None if journal.old is None else int(journal.old),
        top=journal.top.meta() if journal.top is not None else None,
        fs=fs,
    )


def open_parent(target: bytes) -> int:
    """Descriptor of the directory around TARGET.

    Raises:
        OSError: It can't be opened.
    """
    return os.open(target.rpartition(b"/")[0] or b"/", _DIRECTORY)
