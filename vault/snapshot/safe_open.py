"""Opens what the walk met, or what took its place since: many programs write by a rename.

A place in a source is a name below directories that are no symlinks, on the device that it
was on. What is reached otherwise, or lies behind a mount, may be no part of the source.
"""

import errno
import os
import stat
from typing import Protocol

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
TRIES = 3  # to take what is there now, where it is replaced again and again
REPLACED = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EINVAL, errno.ESTALE})
"""What the kernel says where something of another kind, or nothing for a moment, took a place."""

_LOOK = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_PASS = _LOOK | os.O_DIRECTORY  # needs no right to list it
_NO_ATIME = getattr(os, "O_NOATIME", 0)
_LONG_PATH = 4_000  # bytes; the kernel takes 4,096 at once
_LONG_LINK = 4_096  # bytes that `os.readlink` reads at most; no system makes one so long


class Identity(Protocol):
    """What a status says about which file it is of."""

    @property
    def st_dev(self) -> int:
        """Device."""

    @property
    def st_ino(self) -> int:
        """Inode on it."""


def open_source(full: bytes, expected: Identity) -> tuple[int, os.stat_result]:
    """The regular file that has a path now: a descriptor, which the caller closes, and its status.

    Args:
        full: Absolute path.
        expected: What the walk met there.

    Raises:
        FileNotFoundError: It vanished.
        OSError: It can't be opened; with ``ESTALE``: it is no file now, or elsewhere.
    """
    try:
        return open_met(full, FILE | _NO_ATIME, expected, stat.S_IFREG)
    except PermissionError:  # only the owner may leave the access time alone
        return open_met(full, FILE, expected, stat.S_IFREG)


def open_described(full: bytes, expected: os.stat_result) -> tuple[int, os.stat_result]:
    """The same of anything else, by its type, to read attributes of: by ``/proc/self/fd`` alone.

    Raises:
        OSError: As `open_source` says.
    """
    return open_met(full, _LOOK, expected, stat.S_IFMT(expected.st_mode))


def open_met(full: bytes, flags: int, expected: Identity, kind: int) -> tuple[int, os.stat_result]:
    """What has a path now, of a type of ``st_mode``: a descriptor, opened so, and its status.

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
    """What took the place, sought from the root on."""
    for left in reversed(range(TRIES)):
        try:
            descriptor = _open_stepwise(full, flags)
            break
        except FileNotFoundError:  # between two renames over it the kernel may find neither
            if not left:
                raise
        except OSError as error:
            is_other = error.errno in {errno.ELOOP, errno.ENOTDIR}  # as the flags would not have it
            raise (replaced() if is_other else error) from error
    found = os.fstat(descriptor)
    if not _is_there(found, expected, kind):
        os.close(descriptor)
        raise replaced()
    return descriptor, found


def _is_there(found: os.stat_result, expected: Identity, kind: int) -> bool:
    return stat.S_IFMT(found.st_mode) == kind and found.st_dev == expected.st_dev


def replaced() -> OSError:
    """To be raised where what is there now can't stand for what was met."""
    return OSError(errno.ESTALE, "replaced by something else since it was listed")


def open_path(full: bytes, flags: int, dir_fd: int | None = None) -> int:
    """Open a name in a directory, or an absolute path, longer than PATH_MAX too.

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
        OSError: It is none, or too long to be read.
    """
    link = os.readlink(name, dir_fd=dir_fd)
    if len(link) >= _LONG_LINK:
        raise OSError(errno.ENAMETOOLONG, "the end of its target can't be read")
    return link
