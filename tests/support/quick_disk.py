"""A disk that is never waited for."""

import errno
import fcntl
import os
from typing import Any


def fsync_at_once(file: Any) -> None:
    """What ``os.fsync`` does except for the wait: it still refuses what can't be synced.

    Raises:
        OSError: The descriptor is closed, or was opened for its path alone.
    """
    fd = file if isinstance(file, int) else file.fileno()
    if fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_PATH:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))
