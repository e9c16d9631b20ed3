"""Directories and files of one user alone, whatever mask the program was started with."""

import contextlib
import grp
import os
import pwd
import stat
from pathlib import Path
from typing import Final

from vault.errors import ConfigError
from vault.machine.durable import sync_directory

_ACL: Final = "system.posix_acl_access"
_LOCK: Final = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC


def make_private(path: Path) -> None:
    """Make a directory and those missing above it, each with mode 0700, durably.

    Raises:
        OSError: It can't be made.
    """
    missing = []
    while not path.exists():
        missing.append(path)
        path = path.parent
    for each in reversed(missing):
        with contextlib.suppress(FileExistsError):
            each.mkdir(mode=0o700)
            sync_directory(each.parent)


def open_lock(path: Path) -> int:
    """Descriptor of a file to lock, which is made for this user alone where it is missing.

    Raises:
        OSError: It can't be made, or it is a symlink.
    """
    return os.open(path, _LOCK, 0o600)


def check_unshared(path: Path) -> None:
    """Pass if no other user can change the files in a directory, or if it is missing.

    A directory above it that all users may write must be sticky: otherwise any of them can put
    another directory in its place.

    Raises:
        ConfigError: Others can change them.
        OSError: It can't be looked at.
    """
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        status = path.stat()
        if others_can_write(status, path):
            raise _shared(path, status)
        for above in path.absolute().parents:
            status = above.stat()
            if status.st_mode & stat.S_IWOTH and not status.st_mode & stat.S_ISVTX:
                raise _shared(above, status)


def others_can_write(status: os.stat_result, path: Path | bytes | int) -> bool:
    """Whether users other than this one and root may make and rename files in a directory.

    Its owner can. A group can if its bits say so, except for a group whose only member is this
    user, as many systems make one for each user. In a directory with an access control list, the
    group's mode bits stand for the most that the list allows.

    Args:
        status: Of the directory.
        path: The directory, or a descriptor of it.
    """
    if status.st_uid not in {os.geteuid(), 0} or status.st_mode & stat.S_IWOTH:
        return True
    if not status.st_mode & stat.S_IWGRP:
        return False
    return _has_acl(path) or not _is_group_of_one(status.st_gid, status.st_uid)


def _has_acl(path: Path | bytes | int) -> bool:
    try:
        return _ACL in os.listxattr(path)
    except OSError:
        return False


def _is_group_of_one(gid: int, uid: int) -> bool:
    """Whether a group is the one that a user has for himself: his name, no other members."""
    try:
        group, user = grp.getgrgid(gid), pwd.getpwuid(uid)
    except KeyError:
        return False
    same = group.gr_name == user.pw_name and user.pw_gid == gid
    return same and set(group.gr_mem) <= {user.pw_name}


def _shared(path: Path, status: os.stat_result) -> ConfigError:
    return ConfigError(
        f"others can change what vault keeps: they can write {path}",
        expected=f"owner {os.geteuid()} or root, and no other user who can write it",
        found=f"owner {status.st_uid}, mode {stat.S_IMODE(status.st_mode):04o}",
        hint=f"chmod go-w {path}, once you have looked at what is in it; or name other"
        " directories with XDG_STATE_HOME and XDG_CACHE_HOME",
    )
