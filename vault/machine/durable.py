"""Files of this host that a crash leaves whole: the old one or the new one, never a part.

A restore writes its own small files by `vault.restore.private_files`: relative to an open
directory and through its recorded system calls, which the tests of power cuts replay. Objects of
a local store are `vault.storage.local`'s: they are linked, never put in place of others.
"""

import contextlib
import os
import tempfile
from pathlib import Path
from typing import IO, Final

from vault.errors import ConfigError, LocalError

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


def create(path: Path, data: bytes) -> None:
    """Make a file that was not there, with mode 0600; durable on return.

    Raises:
        FileExistsError: It was there, and is as it was.
        OSError: It can't be written; nothing is left of it.
    """
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with open(fd, "wb") as file:  # noqa: PTH123  # a descriptor has no path
            file.write(data)
            _sync(file)
        sync_directory(path.parent)
    except BaseException:
        path.unlink()
        raise


def create_named(path: Path, data: bytes) -> None:
    """As `create`, for a file that a person named: errors say which and why.

    Raises:
        ConfigError: There is such a file; it is as it was.
        LocalError: It can't be written.
    """
    try:
        create(path, data)
    except FileExistsError as error:
        raise ConfigError(
            f"{path} exists and is never overwritten", hint="move it away or name another"
        ) from error
    except OSError as error:
        raise LocalError(f"can't write {path}", found=error.strerror) from error


def replace(path: Path, data: bytes, *, durable: bool = True) -> None:
    """Put a file with mode 0600 in place of the one before, if there is one.

    Args:
        path: In a directory that only this user can write.
        data: All that it will hold.
        durable: Whether it is on the disk on return. Else a crash may leave it empty or in part,
            which the reader must notice, by a digest in it.

    Raises:
        OSError: It can't be written; the one before stays.
    """
    handle, name = tempfile.mkstemp(prefix=f".{path.stem[:16]}-", dir=path.parent)
    fresh = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            if durable:
                _sync(file)
        fresh.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            fresh.unlink()
        raise
    if durable:
        sync_directory(path.parent)


def put_in_place(file: IO[bytes], fresh: Path, path: Path) -> None:
    """Close a file that was written piece by piece, and give it its name; durable on return.

    Args:
        file: Open for writing.
        fresh: Where it is, in the directory of ``path``.
        path: Where it goes, in place of the one before.

    Raises:
        OSError: The disk failed.
    """
    _sync(file)
    file.close()
    fresh.replace(path)
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable.

    Raises:
        OSError: The disk failed.
    """
    fd = os.open(path, _DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _sync(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())
