"""Directories that only their owner can enter, whatever mask the program was started with."""

import contextlib
import os
from pathlib import Path


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


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable.

    Raises:
        OSError: The disk failed.
    """
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
