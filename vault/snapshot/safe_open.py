"""Opens what the walk met, or what has replaced it since, as many programs write by a rename.

A replacement counts only if it has the same path below directories that are no symlinks, on the
same device. Anything reached by a symlink or a mount may not be part of the source.
"""

import errno
import os
import stat
from typing import Protocol

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
TRIES = 3  # attempts to open a file that is replaced again and again
REPLACED = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EINVAL, errno.ESTALE})
"""Errors of the kernel if another kind of file, or for a moment none, has the name."""

_LOOK = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_PASS = _LOOK | os.O_DIRECTORY  # needs no right to list it
_NO_ATIME = getattr(os, "O_NOATIME", 0)
_LONG_PATH = 4_000  # bytes; the kernel takes paths of up to 4,096
_LONG_LINK = 4_096  # the most bytes that `os.readlink` reads; no system makes longer ones


class Identity(Protocol):
    """The part of a status that identifies a file."""

    @property
    def st_dev(self) -> int:
        """The device."""

    @property
    def st_ino(self) -> int:
        """The inode on that device."""


def open_source(full: bytes, expected: Identity) -> tuple[int, os.stat_result]:
    """Open the regular file at a path: a descriptor, which the caller closes, and its status.

    Args:
        full: Absolute path.
        expected: The file that the walk met there.

    Raises:
        FileNotFoundError: It vanished.
        OSError: It can't be opened; with ``ESTALE``: it is no regular file now, or elsewhere.
    """
    try:
        return open_met(full, FILE | _NO_ATIME, expected, stat.S_IFREG)
    except PermissionError:  # only the owner may leave the access time alone
        return open_met(full, FILE, expected, stat.S_IFREG)


def open_described(full: bytes, expected: os.stat_result) -> tuple[int, os.stat_result]:
    """As `open_source`, for any type; only for reading attributes by ``/proc/self/fd``.

    Raises:
        OSError: As `open_source` says.
    """
    return open_met(full, _LOOK, expected, stat.S_IFMT(expected.st_mode))


def open_met(full: bytes, flags: int, expected: Identity, kind: int) -> tuple[int, os.stat_result]:
    """Open the file of type ``kind`` (of ``st_mode``) at a path: a descriptor and its status.

    Raises:
        OSError: As `open_source` says.
    """
    try:
        descriptor = open_path(full, flags)
    except OSError as error:
        if error.errno not in REPLACED:
            raise
    else:
        found = os.fstat(descriptor)
        if found.st_ino == expected.st_ino and _is_there(found, expected, kind):
            return descriptor, found
        os.close(descriptor)
    return _open_replacement(full, flags, expected, kind)


def _open_replacement(
    full: bytes, flags: int, expected: Identity, kind: int
) -> tuple[int, os.stat_result]:
    """Open what has replaced a file, directory by directory from the root."""
    for left in reversed(range(TRIES)):
        try:
            descriptor = _open_stepwise(full, flags)
            break
        except FileNotFoundError:  # between two renames over it the kernel may find neither file
            if not left:
                raise
        except OSError as error:
            is_other = error.errno in {errno.ELOOP, errno.ENOTDIR}  # the flags excluded it
            raise (replaced() if is_other else error) from error
    found = os.fstat(descriptor)
    if not _is_there(found, expected, kind):
        os.close(descriptor)
        raise replaced()
    return descriptor, found


def _is_there(found: os.stat_result, expected: Identity, kind: int) -> bool:
    return stat.S_IFMT(found.st_mode) == kind and found.st_dev == expected.st_dev


def replaced() -> OSError:
    """The error to raise if the file there now can't stand for the one that was met."""
    return OSError(errno.ESTALE, "replaced by something else since it was listed")


def open_path(full: bytes, flags: int, dir_fd: int | None = None) -> int:
    """Open a name in a directory, or an absolute path, even one longer than PATH_MAX.

    Raises:
        OSError: As `os.open` says; no directory of a long path may be a symlink.
    """
    if len(full) <= _LONG_PATH:
        return os.open(full, flags, dir_fd=dir_fd)
    return _open_stepwise(full, flags)


def _open_stepwise(full: bytes, flags: int) -> int:
    """Open an absolute path, none of whose directories may be a symlink.

    Raises:
        OSError: As `os.open` says; with ``ENOTDIR``: one of them is no directory.
    """
    *directories, name = full[1:].split(b"/")
    around = os.open(b"/", _PASS)
    try:
        for directory in directories:
            inner = os.open(directory, _PASS, dir_fd=around)
            os.close(around)
            around = inner
        return os.open(name or b".", flags, dir_fd=around)
    finally:
        os.close(around)


def read_link(name: bytes, dir_fd: int | None) -> bytes:
    """The target of a symlink; with an empty name, of the one that is open.

    Raises:
        OSError: It is no symlink, or its target is too long to be read.
    """
    link = os.readlink(name, dir_fd=dir_fd)
    if len(link) >= _LONG_LINK:
        raise OSError(errno.ENAMETOOLONG, "the end of its target can't be read")
    return link
