"""From staging to TARGET in one step, and back (design.md 6, I6).

Three names matter: TARGET, staging, and a third that only file systems without
an exchange need. What is where is told by inode numbers alone, so that after a
crash at any point the next step is a table look-up on what is found.
"""

import contextlib
import os
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from pathlib import Path
from typing import Any, Final

from vault import fsmeta
from vault.errors import BusyError, ConfigError, DigestMismatchError, VaultError
from vault.restore import target as _target
from vault.restore.fs import Fs, inode_at, is_unsupported, list_names, local_error, remove_tree, try_lock
from vault.restore.journal import Journal, JournalFile, KeptMeta, MountPoint, State
from vault.restore.prove import read_disk_root
from vault.restore.stage import Staging
from vault.restore.target import Target, TargetState

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
    "on-": (),
    "o-n": ("fs",),
    "no-": ("tf", "st", "fs"),
    "-on": ("st", "fs"),
    "-no": ("ft",),
    "n-o": ("ts", "ft"),
}
_FORWARD_MISSING: Final[dict[str, tuple[str, ...]]] = {"n--": (), "-n-": ("st",)}
_BACKWARD_MISSING: Final[dict[str, tuple[str, ...]]] = {"-n-": (), "n--": ("ts",)}
_SWAPPED: Final = {"on-", "no-"}  # one exchange leads from either to the other
_MOUNT_OWN: Final = b"lost+found"


# --- what is where ---


class _Beside:
    """TARGET and staging are neighbours in one directory."""

    def __init__(self, parent: int, path: bytes, journal: Journal, fs: Fs) -> None:
        self._parent = parent
        self._path = path
        self._fs = fs
        name = path.rpartition(b"/")[2]
        staging = _target.staging_name(name, journal.id)
        self._names = {"t": name, "s": staging, "f": staging + b".former"}
        self._new = int(journal.new)
        self._old = None if journal.old is None else int(journal.old)

    def is_promoted(self) -> bool:
        """Whether TARGET is the new state."""
        return self._layout().startswith("n")

    def is_untouched(self) -> bool:
        """Whether TARGET is as it was."""
        return not self._back().get(self._layout(), ("",))

    def forward(self) -> bool:
        """Make TARGET the new state.

        Returns:
            Whether it was done in one step.
        """
        missing = self._old is None
        return self._move(_FORWARD_MISSING if missing else _FORWARD)

    def backward(self) -> None:
        """Make TARGET what it was, and put the new state back into staging."""
        self._move(self._back())

    def open_new(self) -> int:
        """Descriptor of the new state, wherever it is."""
        at = self._layout().find("n")
        if at < 0:
            raise self._foreign()
        return self._fs.open_directory(self._parent, self._names["tsf"[at]])

    def remove_old(self) -> None:
        """Remove the former state, if any is left."""
        self._remove("o", self._old)

    def remove_new(self) -> None:
        """Remove the staging directory, if any is left."""
        if not self.is_promoted():
            self._remove("n", self._new)

    def settle(self) -> None:
        """Nothing is left to do once TARGET has its name."""

    def _back(self) -> dict[str, tuple[str, ...]]:
        return _BACKWARD_MISSING if self._old is None else _BACKWARD

    def _layout(self) -> str:
        return "".join(self._letter(self._names[role]) for role in "tsf")

    def _letter(self, name: bytes) -> str:
        inode = inode_at(self._parent, name)
        if inode is None:
            return "-"
        return {self._new: "n", self._old: "o"}.get(inode, "?")

    def _move(self, table: dict[str, tuple[str, ...]]) -> bool:
        layout = self._layout()
        if layout not in table:
            raise self._foreign()
        steps = table[layout]
        if steps and layout in _SWAPPED and self._swap():
            return True
        for step in steps:
            source, to = (self._names[role] for role in step)
            self._fs.rename_new(self._parent, source, self._parent, to)
            self._fs.fsync(self._parent)
        return len(steps) < 2

    def _swap(self) -> bool:
        try:
            self._fs.exchange(self._parent, self._names["t"], self._names["s"])
        except OSError as error:
            if is_unsupported(error):
                return False
            raise
        self._fs.fsync(self._parent)
        return True

    def _remove(self, letter: str, inode: int | None) -> None:
        at = self._layout().find(letter, 1)  # never TARGET
        if at > 0 and inode is not None:
            remove_tree(self._fs, self._parent, self._names["tsf"[at]], inode)
            self._fs.fsync(self._parent)

    def _foreign(self) -> ConfigError:
        return ConfigError(
            f"what is at and beside {os.fsdecode(self._path)!r} is not what the restore left",
            found=self._layout(),
            hint="another process moved it; nothing was touched",
        )


class _Within:
    """TARGET is a mount point: staging is in it, and its members are moved up one by one."""

    def __init__(self, parent: int, path: bytes, journal: Journal, fs: Fs) -> None:
        assert journal.mount is not None
        self._fs = fs
        self._path = path
        self._staging = _target.staging_name(path.rpartition(b"/")[2], journal.id)
        self._mount = journal.mount
        self._members = [name.encode("latin-1") for name in journal.mount.names]
        self._top = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)

    def close(self) -> None:
        os.close(self._top)
