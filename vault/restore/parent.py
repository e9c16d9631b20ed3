"""Who else can rename what lies in a directory (ADR 0013)."""

import grp
import os
import pwd
import stat
from pathlib import Path
from typing import Final

_ACL: Final = "system.posix_acl_access"


def others_can_write(status: os.stat_result, path: Path | bytes | int) -> bool:
    """Whether anybody but this user and root may make and rename things in a directory.

    Its owner can. A group can where its bits say so, but for the group that a user has for
    himself alone, as many systems make one for each user. Mode bits of a directory with an
    access control list stand for the most that the list gives.

    Args:
        status: Of the directory.
        path: The directory, or a descriptor of it.
    """
    if status.st_uid not in {os.geteuid(), 0} or status.st_mode & stat.S_IWOTH:
        return True
    if not status.st_mode & stat.S_IWGRP:
        return False
    return _has_acl(path) or not _is_group_of_one(status.st_gid, status.st_uid)


def shared_because(
    parent: os.stat_result, path: Path | bytes | int, target: os.stat_result | None
) -> str | None:
    """Why others could swap TARGET or staging in a directory; None where they can't.

    A sticky directory keeps what is ours ours, but not from its owner.

    Args:
        parent: Status of the directory.
        path: The directory, or a descriptor of it.
        target: Status of TARGET; None where it is missing.
    """
    if not others_can_write(parent, path):
        return None
    mode = f"mode {stat.S_IMODE(parent.st_mode):04o}, user {parent.st_uid}"
    if parent.st_uid not in {os.geteuid(), 0}:
        return f"it is another user's: {mode}"
    if not parent.st_mode & stat.S_ISVTX:
        return f"others can write it, and it is not sticky: {mode}"
    if target is not None and target.st_uid != os.geteuid():
        return f"others can write it, and what is there now is of user {target.st_uid}: {mode}"
    return None


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
