"""Who else can rename what lies in a directory (ADR 0013)."""

import os
import stat
from pathlib import Path

from vault.machine.privacy import others_can_write


def shared_because(
    parent: os.stat_result, path: Path | bytes | int, target: os.stat_result | None
) -> str | None:
    """Why other users could swap TARGET or staging in a directory; None if they can't.

    In a sticky directory only a file's owner and the directory's owner can rename it.

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
