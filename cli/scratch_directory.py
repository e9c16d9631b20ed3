"""Scratch directories: one for each run, and none left by runs that were killed.

They can hold the names of a whole snapshot in clear, so what a kill left does not stay.
"""

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from vault.errors import LocalError
from vault.machine.privacy import make_private


@contextlib.contextmanager
def scratch_directory(cache: Path) -> Iterator[Path]:
    """An empty directory in ``cache`` that is removed at the end.

    A process that works in one holds a lock on it; directories without a held lock are removed
    first.

    Raises:
        LocalError: It can't be made.
    """
    around = cache / "scratch"
    try:
        make_private(around)
        with _locked(around, fcntl.LOCK_EX):  # a new one is not yet held
            _sweep(around)
            own = Path(tempfile.mkdtemp(dir=around))
            held = _open(own)
            fcntl.flock(held, fcntl.LOCK_EX)
    except OSError as error:
        raise LocalError(f"can't make a directory in {around}", found=error.strerror) from error
    try:
        yield own
    finally:
        shutil.rmtree(own, ignore_errors=True)
        os.close(held)


def _sweep(around: Path) -> None:
    for each in around.iterdir():
        with contextlib.suppress(OSError), _locked(each, fcntl.LOCK_EX | fcntl.LOCK_NB):
            shutil.rmtree(each, ignore_errors=True)


@contextlib.contextmanager
def _locked(directory: Path, operation: int) -> Iterator[None]:
    held = _open(directory)
    try:
        fcntl.flock(held, operation)
        yield
    finally:
        os.close(held)


def _open(directory: Path) -> int:
    return os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
