"""Capabilities of the target's file system, tried out in the staging directory."""

import contextlib
import dataclasses
import errno
import os
import stat
from collections.abc import Callable, Iterator
from typing import Final

from vault.machine import metadata
from vault.restore.stage import DEVICES
from vault.restore.syscalls import Fs, is_unsupported, remove_tree

# Errors of a failing or full disk; they say nothing about what the file system can hold.
_FAILURES: Final = frozenset({errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EROFS})
_ROOM: Final = b".vault-probe"
_FILE: Final = b"file"
_MTIME: Final = -1_000_000_001  # ns: before 1970, and not a whole second
_ACL: Final = bytes.fromhex(  # version 2: owner rw, uid 1 r, group r, mask r, others none
    "0200000001000600ffffffff020004000100000004000400ffffffff10000400ffffffff20000000ffffffff"
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """Kinds of objects and attributes that this user can make on a file system."""

    cannot_hold: frozenset[str]
    """Of: ``owner``, ``mode``, ``times``, ``symlinks``, ``hard links``, ``devices``,
    ``xattr user``, ``xattr trusted``, ``acl``, ``case`` (names that differ in case only)."""
    exchange: bool  # two directories can be swapped in one step


def probe(staging: int, fs: Fs) -> Capabilities:
    """Make one of each in the staging directory, read it back, remove it.

    Raises:
        OSError: The directory itself can't be written.
    """
    fs.mkdir(staging, _ROOM)
    room = fs.open_directory(staging, _ROOM)
    try:
        os.close(fs.create(room, _FILE))
        missing = {name for name, holds in _TRIALS.items() if not _holds(holds, room, fs)}
        return Capabilities(
            cannot_hold=frozenset(missing), exchange=_holds(_can_exchange, room, fs)
        )
    finally:
        inode = os.fstat(room).st_ino
        os.close(room)
        remove_tree(fs, staging, _ROOM, inode)


def _holds(trial: Callable[[int, Fs], bool], room: int, fs: Fs) -> bool:
    try:
        return trial(room, fs)
    except OSError as error:
        if error.errno in _FAILURES:
            raise
        return False  # for any other reason it can't hold this


@contextlib.contextmanager
def _file(room: int) -> Iterator[int]:
    fd = os.open(_FILE, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=room)
    try:
        yield fd
    finally:
        os.close(fd)


def _holds_owner(room: int, _: Fs) -> bool:
    with _file(room) as fd:
        before = os.fstat(fd)
        os.chown(fd, 1, 1)
        after = os.fstat(fd)
        os.chown(fd, before.st_uid, before.st_gid)
        return (after.st_uid, after.st_gid) == (1, 1)


def _holds_mode(room: int, _: Fs) -> bool:
    with _file(room) as fd:
        os.chmod(fd, 0o651)  # noqa: PTH101, S103 - an empty file in a private directory
        return stat.S_IMODE(os.fstat(fd).st_mode) == 0o651


def _holds_times(room: int, _: Fs) -> bool:
    with _file(room) as fd:
        os.utime(fd, ns=(_MTIME, _MTIME))
        return os.fstat(fd).st_mtime_ns == _MTIME


def _holds_symlinks(room: int, fs: Fs) -> bool:
    fs.symlink(room, b"symlink", b"nowhere")
    return os.readlink(b"symlink", dir_fd=room) == b"nowhere"


def _holds_links(room: int, fs: Fs) -> bool:
    fs.link(room, _FILE, room, b"link")
    return os.stat(b"link", dir_fd=room).st_nlink == 2


def _holds_devices(room: int, fs: Fs) -> bool:
    fs.mknod(room, b"device", stat.S_IFCHR, os.makedev(1, 3))
    return os.stat(b"device", dir_fd=room).st_rdev == os.makedev(1, 3)


def _holds_xattr(name: str, value: bytes) -> Callable[[int, Fs], bool]:
    def trial(room: int, _: Fs) -> bool:
        with _file(room) as fd:
            os.setxattr(fd, name, value)
            return (os.fsencode(name), value) in (metadata.read_xattrs(fd) or ())

    return trial


def _holds_case(room: int, fs: Fs) -> bool:
    os.close(fs.create(room, _FILE.upper()))
    return True


def _can_exchange(room: int, fs: Fs) -> bool:
    fs.mkdir(room, b"one")
    fs.mkdir(room, b"two")
    before = os.stat(b"one", dir_fd=room).st_ino
    try:
        fs.exchange(room, b"one", room, b"two")
    except OSError as error:
        if is_unsupported(error):
            return False
        raise
    return os.stat(b"two", dir_fd=room).st_ino == before


_TRIALS: Final[dict[str, Callable[[int, Fs], bool]]] = {
    metadata.OWNER: _holds_owner,
    metadata.MODE: _holds_mode,
    metadata.TIMES: _holds_times,
    "symlinks": _holds_symlinks,
    "hard links": _holds_links,
    DEVICES: _holds_devices,
    "xattr user": _holds_xattr("user.vault-probe", b"1"),
    "xattr trusted": _holds_xattr("trusted.vault-probe", b"1"),
    "acl": _holds_xattr("system.posix_acl_access", _ACL),
    "case": _holds_case,
}
