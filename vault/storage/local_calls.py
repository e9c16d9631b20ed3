"""System calls of the store in a directory, and the errors of the vault that they end in."""

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from vault.errors import (
    ConfigError,
    RepositoryNotFoundError,
    StorageError,
    StorageUnavailableError,
    VaultError,
)
from vault.machine.durable import sync_directory
from vault.model import Buffer

DIRECTORY_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
READ_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK  # opening a FIFO must not block
CREATE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW

ABSENT = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG}
_TRANSIENT = {errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN, errno.EINTR, errno.ENFILE, errno.EMFILE}
LACKING = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EMLINK, errno.ENOLCK}
_HINTS = {
    errno.ENOSPC: "make room on the file system of the repository and run again",
    errno.EDQUOT: "raise the quota of the repository's owner and run again",
    errno.EIO: "the disk reports errors: check it, then run an audit that reads all data",
    errno.EROFS: "the file system of the repository is mounted read-only",
    errno.EACCES: "check owner and mode of the repository's files; where several users share it,"
    " docs/stores.md says whose they must be",
    errno.EPERM: "check owner, mode and the immutable flag (lsattr) of the repository's files",
}


@contextlib.contextmanager
def translated(action: str, name: str) -> Iterator[None]:
    """Turn every OSError into the vault's errors."""
    try:
        yield
    except OSError as error:
        raise storage_error(action, name, error) from error


def storage_error(action: str, name: str, error: OSError) -> VaultError:
    """The error to raise for an OSError, with a hint."""
    kind = StorageUnavailableError if error.errno in _TRANSIENT else StorageError
    hint = _HINTS.get(error.errno or 0)
    return kind(f"can't {action} {name}", found=error.strerror or str(error), hint=hint)


def make_directories(path: Path, made: list[Path]) -> None:
    """`mkdir -p` that survives a power cut; each directory it makes is added to ``made``."""
    if path.is_dir():
        return
    make_directories(path.parent, made)
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode=0o755)  # never writable for others, whatever the umask
        made.append(path)
    if not path.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
    sync_directory(path.parent)


def open_or_make(parent: int, name: str, mode: int) -> int:
    """Open a directory; if it is missing, make it with the mode of the root, whatever the umask."""
    try:
        return os.open(name, DIRECTORY_FLAGS, dir_fd=parent)
    except FileNotFoundError:
        made = True
        try:
            os.mkdir(name, 0o700, dir_fd=parent)
        except FileExistsError:
            made = False
        fd = os.open(name, DIRECTORY_FLAGS, dir_fd=parent)
        if made:
            os.fchmod(fd, mode)
        return fd


def share_file(fd: int, directory: int, most: int) -> None:
    """Give a file of the store the bits of ``most`` that its directory has, whatever the umask."""
    status = os.fstat(fd)
    mode = os.fstat(directory).st_mode & most
    if status.st_uid == os.geteuid() and stat.S_IMODE(status.st_mode) != mode:
        os.fchmod(fd, mode)


def mode_of(parent: int, file: str) -> int | None:
    """The mode of a file in an open directory; None if there is none of that name."""
    try:
        return os.lstat(file, dir_fd=parent).st_mode
    except FileNotFoundError:
        return None


def file_exists(parent: int, file: str) -> bool:
    """Whether an open directory has that name."""
    return mode_of(parent, file) is not None


def write_all(fd: int, data: Buffer) -> None:
    """Write all bytes."""
    with memoryview(data) as view, view.cast("B") as rest:
        done = 0
        while done < len(rest):
            done += os.write(fd, rest[done:])


def read_range_of(fd: int, offset: int, length: int) -> bytes:
    """Up to ``length`` bytes; one system call where the kernel gives all at once."""
    pieces: list[bytes] = []
    while length > 0 and (piece := os.pread(fd, length, offset)):
        pieces.append(piece)
        offset += len(piece)
        length -= len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def open_root(root: Path) -> int:
    """The directory of a store, opened.

    Raises:
        RepositoryNotFoundError: It is not there.
        ConfigError: It is no directory.
    """
    try:
        return os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError as error:
        raise RepositoryNotFoundError(
            f"no repository at {root}", hint="is its file system mounted?"
        ) from error
    except NotADirectoryError as error:
        raise ConfigError(f"{root} is not a directory") from error
