"""Where a restore goes, looked at before anything is downloaded (docs/design.md "Restore")."""

# ruff: noqa: PTH112, PTH114, PTH118, PTH119, PTH120, PTH208 - file names are bytes, which pathlib does not take

import dataclasses
import os
import re
import stat
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Final

from vault.errors import ConfigError, LocalError
from vault.machine.mounts import mounts
from vault.restore import syscalls as _fs
from vault.restore.shared_parent import shared_because

_ID_LENGTH: Final = 8  # hex digits
NOTE_SUFFIX: Final = b".note"
TREE: Final = b"tree"  # in the holder beside TARGET: what is staged, later the former state
_LONGEST_SUFFIX: Final = len(".vault-12345678.note")
MOUNT_OWN: Final = b"lost+found"  # what an empty ext file system has


class TargetState(StrEnum):
    """Kind of object found at TARGET."""

    MISSING = "missing"
    EMPTY = "empty"
    FULL = "full"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A place that a restore may go to."""

    path: bytes  # absolute; nothing in it is a symlink
    state: TargetState
    inode: int | None  # None where missing
    owner: int | None = None  # user id; None where missing
    mount_point: bool  # then staging is inside, and the promotion is not atomic

    @property
    def name(self) -> bytes:
        """Last part of the path."""
        return os.path.basename(self.path)

    @property
    def parent(self) -> bytes:
        """The directory around it: the note's place."""
        return os.path.dirname(self.path)

    @property
    def home(self) -> bytes:
        """The directory that staging is made in."""
        return self.path if self.mount_point else self.parent


def locate_target(path: Path | str | bytes) -> bytes:
    """The path of TARGET, absolute, with all directories above it resolved.

    Raises:
        ConfigError: It is ``/``, a symlink, has an impossible name, or no parent.
    """
    given = os.fsencode(path)
    head, tail = os.path.split(given.rstrip(b"/") or b"/")
    if tail in {b"", b".", b".."}:
        head, tail = os.path.split(os.path.realpath(given))
    if not tail:
        raise ConfigError("can't restore over the whole machine", found="/")
    if len(tail) + 1 + _LONGEST_SUFFIX > _fs.MAX_PART:
        raise ConfigError("target's name is too long to keep files beside it", found=_shown(given))
    parent = os.path.realpath(head or b".")
    if not os.path.isdir(parent):
        raise ConfigError("target's parent is no directory", found=_shown(parent))
    full = os.path.join(parent, tail)
    if os.path.islink(full):
        raise ConfigError(
            "target is a symbolic link",
            found=_shown(full),
            hint=f"name the directory itself: {_shown(os.path.realpath(full))}",
        )
    return full


def inspect(
    path: Path | str | bytes,
    *,
    replace: bool = False,
    shared_parent: bool = False,
    protected: Sequence[Path] = (),
) -> Target:
    """Decide whether a restore may go to ``path``; changes nothing.

    Args:
        path: TARGET as given.
        replace: Whether a non-empty directory may be replaced.
        shared_parent: Accept a directory in which other users can swap TARGET or staging; their
            inode numbers are then compared before and after the exchange.
        protected: Places of the vault's own (store, keys, state), which TARGET may neither
            contain nor lie in.

    Raises:
        ConfigError: A restore may not go there; the message says why (exit 2).
    """
    full = locate_target(path)
    _refuse_protected(full, protected)
    mounted = {mount.path for mount in mounts()}
    below = sorted(mount for mount in mounted if mount.startswith(full + b"/"))
    if below:
        raise ConfigError(f"a file system is mounted in {_shown(full)}", found=_shown(below[0]))
    target = _look(full, mount_point=full in mounted)
    if target.state is TargetState.FULL and target.mount_point:
        raise ConfigError(
            f"target {_shown(full)} is a mount point that is not empty",
            hint="restore into a new directory, or empty it first",
        )
    if target.state is TargetState.FULL and not replace:
        raise ConfigError(
            f"target {_shown(full)} is not empty",
            hint="restore into a new directory, or give --replace",
        )
    if not shared_parent:
        _refuse_shared(target)
    _refuse_immovable(target)
    return target


def _refuse_immovable(target: Target) -> None:
    """Refuse a TARGET that this user can't move: rename(2) of a directory must write its ``..``."""
    if target.state is TargetState.MISSING or target.mount_point or not os.geteuid():
        return
    if target.owner != os.geteuid() and not os.access(target.path, os.W_OK):
        raise ConfigError(
            f"target {_shown(target.path)} can't be exchanged by user {os.geteuid()}",
            found=f"it is of user {target.owner}, and not writable",
            hint="restore into a new directory, or as its owner",
        )


def _refuse_shared(target: Target) -> None:
    status = None if target.state is TargetState.MISSING else os.lstat(target.path)
    because = shared_because(Path(os.fsdecode(target.home)).stat(), target.home, status)
    if because is not None:
        raise ConfigError(
            f"another user can swap what is restored to {_shown(target.path)}",
            found=f"{_shown(target.home)}: {because}",
            hint="restore into a directory of your own, or give --shared-parent: then what is"
            " there is compared before and after the exchange",
        )


def recheck(target: Target) -> None:
    """Look again, right before the promotion.

    Raises:
        ConfigError: TARGET is another object than when it was inspected.
    """
    now = _look(target.path, mount_point=target.mount_point)
    same = (now.inode, now.owner) == (target.inode, target.owner)
    if not same or (target.state is TargetState.EMPTY and now.state is not TargetState.EMPTY):
        raise ConfigError(
            f"target {_shown(target.path)} changed during the restore",
            expected=target.state.value,
            found=now.state.value if same else "something else",
        )


def _look(full: bytes, *, mount_point: bool) -> Target:
    try:
        status = os.lstat(full)
    except FileNotFoundError:
        return Target(path=full, state=TargetState.MISSING, inode=None, mount_point=False)
    if not stat.S_ISDIR(status.st_mode):
        raise ConfigError(f"target {_shown(full)} is not a directory")
    try:
        names = set(map(os.fsencode, os.listdir(full)))
        if mount_point:
            names -= _own_names(full, names)
    except OSError as error:
        raise _fs.local_error("list", full, error) from error
    state = TargetState.FULL if names else TargetState.EMPTY
    return Target(
        path=full,
        state=state,
        inode=status.st_ino,
        owner=status.st_uid,
        mount_point=mount_point,
    )


def _own_names(full: bytes, names: set[bytes]) -> set[bytes]:
    """Names that an "empty" mount point may hold: staging, and mkfs's lost+found."""
    pattern = re.compile(re.escape(_prefix(full)) + rb"[0-9a-f]{8}")
    own = {name for name in names if pattern.fullmatch(name)}
    if MOUNT_OWN in names and not os.listdir(os.path.join(full, MOUNT_OWN)):
        own.add(MOUNT_OWN)
    return own


def _refuse_protected(full: bytes, protected: Sequence[Path]) -> None:
    for place in protected:
        own = os.path.realpath(os.fsencode(place))
        if (full + b"/").startswith(own.rstrip(b"/") + b"/") or own.startswith(full + b"/"):
            raise ConfigError(
                f"target {_shown(full)} overlaps the vault's own {_shown(own)}",
                hint="restore somewhere else",
            )


# --- names beside TARGET ---


def _prefix(full: bytes) -> bytes:
    return b"." + os.path.basename(full) + b".vault-"


def staging_name(name: bytes, restore_id: str) -> bytes:
    """``.<name>.vault-<id>``: the holder of staging, later of the former state."""
    return b"." + name + b".vault-" + restore_id.encode("ascii")


def new_id() -> str:
    """A random id that names one restore beside its target."""
    return os.urandom(_ID_LENGTH // 2).hex()


def beside(full: bytes) -> list[bytes]:
    """Paths of staging directories, former states and notes beside TARGET, or in it, sorted.

    Raises:
        LocalError: The directory around TARGET can't be listed.
    """
    pattern = re.compile(re.escape(_prefix(full)) + rb"[0-9a-f]{8}(\.note)?", re.DOTALL)
    found = []
    for home in sorted({os.path.dirname(full), full}):
        try:
            names = os.listdir(home)
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            continue
        except OSError as error:
            raise _fs.local_error("list", home, error) from error
        found += [os.path.join(home, name) for name in names if pattern.fullmatch(name)]
    return sorted(found)


# --- space on the file system ---


class Space:
    """Adds up the blocks and inodes that a tree takes on a file system.

    Args:
        block: Size of a block, bytes.
    """

    def __init__(self, block: int) -> None:
        self._block = block
        self.bytes = 0
        self.inodes = 0

    def add(self, size: int, *, directory: bool = False) -> None:
        """Add one object with ``size`` bytes of data (holes not counted)."""
        self.inodes += 1
        self.bytes += self._block if directory else -(-size // self._block) * self._block


def open_space(target: Target) -> Space:
    """An empty sum in the blocks of the target's file system."""
    return Space(max(os.statvfs(target.home).f_frsize, 1))


def check_space(target: Target, space: Space) -> None:
    """Check that the new state fits beside the former one, which is kept until finalized.

    Raises:
        LocalError: Too little (exit 14).
    """
    free = os.statvfs(target.home)
    if space.bytes > free.f_bavail * free.f_frsize:
        raise LocalError(
            f"not enough space beside {_shown(target.path)}",
            expected=f"{space.bytes} bytes",
            found=f"{free.f_bavail * free.f_frsize} bytes",
        )
    if free.f_files and space.inodes > free.f_favail:  # 0: made as needed (btrfs)
        raise LocalError(
            f"not enough inodes beside {_shown(target.path)}",
            expected=space.inodes,
            found=free.f_favail,
        )


def _shown(path: bytes) -> str:
    return repr(os.fsdecode(path))
