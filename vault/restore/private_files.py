"""Small files in a directory that only this user can enter: written whole, checked when read.

A file that another user planted, a link, a FIFO, or a file that others may write is refused, never
read, as is the directory itself where others could have put it in place.
"""

import contextlib
import errno
import fcntl
import os
import stat
from pathlib import Path
from typing import Final, Self

from vault.errors import ConfigError, FormatError
from vault.machine.privacy import check_unshared, make_private
from vault.restore.syscalls import Fs, local_error

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_LOCK: Final = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_ODD: Final = frozenset({errno.ELOOP, errno.ENOTDIR, errno.ENXIO, errno.EISDIR})
_FRESH: Final = ".new"


class PrivateDirectory:
    """One such directory, open. `close` it.

    Args:
        path: For messages.
        fd: Its descriptor, which becomes this object's.
        fs: System calls.
    """

    def __init__(self, path: Path, fd: int, fs: Fs) -> None:
        self.path = path
        self._fd = fd
        self._fs = fs

    @classmethod
    def open(cls, path: Path, fs: Fs) -> Self | None:
        """The directory; None where there is none.

        Raises:
            ConfigError: Others can read or change it, or it is no directory.
            LocalError: It can't be opened.
        """
        try:
            fd = os.open(path, _DIRECTORY)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno in _ODD:
                raise ConfigError(f"{path} is no directory", hint="move it away") from error
            raise local_error("open", os.fsencode(path), error) from error
        try:
            _check_directory(path, os.fstat(fd))
            check_unshared(path.parent)
        except BaseException:
            os.close(fd)
            raise
        return cls(path, fd, fs)

    @classmethod
    def make(cls, path: Path, fs: Fs) -> Self:
        """As `open`, but makes the directory and those above it if they are missing.

        Raises:
            ConfigError: As `open`.
            LocalError: It can't be made.
        """
        try:
            make_private(path)
        except OSError as error:
            raise local_error("make", os.fsencode(path), error) from error
        made = cls.open(path, fs)
        if made is None:
            raise ConfigError(f"{path} is being removed")
        return made

    def close(self) -> None:
        """Close it."""
        os.close(self._fd)

    def names(self) -> list[str]:
        """Names of what is in it, sorted."""
        return sorted(os.listdir(self._fd))  # noqa: PTH208 - an open directory, no path

    def read(self, name: str, limit: int) -> bytes | None:
        """All of a file; None where there is none.

        Raises:
            ConfigError: It is no plain file of this user's alone.
            FormatError: It is longer than ``limit`` bytes.
            LocalError: It can't be read.
        """
        path = self.path / name
        try:
            fd = os.open(name, _READ, dir_fd=self._fd)
            with os.fdopen(fd, "rb") as file:
                _check_file(path, os.fstat(fd))
                data = file.read(limit + 1)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno in _ODD:
                raise _not_ours(path, "a link, or something that is no file") from error
            raise local_error("read", os.fsencode(path), error) from error
        if len(data) > limit:
            raise FormatError(f"{path} is too long", expected=f"at most {limit} bytes")
        return data

    def replace(self, name: str, data: bytes) -> None:
        """Put a file in place of the one before, durably.

        Raises:
            LocalError: It could not be written; the one before is still there.
        """
        try:
            self._replace(os.fsencode(name), data)
        except OSError as error:
            raise local_error("write", os.fsencode(self.path / name), error) from error

    def remove(self, name: str) -> None:
        """Remove a file, durably; nothing happens where there is none.

        Raises:
            LocalError: It could not be removed.
        """
        try:
            for each in (name + _FRESH, name):
                self._unlink(os.fsencode(each))
            self._fs.fsync(self._fd)
        except OSError as error:
            raise local_error("remove", os.fsencode(self.path / name), error) from error

    def lock(self, name: str) -> "HeldLock | None":
        """Lock a file against other runs; None if another run holds it.

        Raises:
            ConfigError: It is no plain file of this user's alone.
            LocalError: It can't be made.
        """
        path = self.path / name
        while True:
            try:
                fd = os.open(name, _LOCK, 0o600, dir_fd=self._fd)
            except OSError as error:
                if error.errno in _ODD:
                    raise _not_ours(path, "a link, or something that is no file") from error
                raise local_error("lock", os.fsencode(path), error) from error
            try:
                _check_file(path, os.fstat(fd))
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if self._is_at(name, fd):
                    return HeldLock(name, fd)
            except BlockingIOError:
                os.close(fd)
                return None
            except BaseException:
                os.close(fd)
                raise
            os.close(fd)  # the run that held it removed it meanwhile

    def unlock(self, lock: "HeldLock", *, keep: bool) -> None:
        """Let go of a lock; its file stays only where ``keep`` says so.

        Raises:
            OSError: The file can't be removed; the lock is let go all the same.
        """
        try:
            if not keep:
                os.unlink(lock.name, dir_fd=self._fd)
        finally:
            fcntl.flock(lock.fd, fcntl.LOCK_UN)  # closing is not enough: a fork has a copy
            os.close(lock.fd)

    def _is_at(self, name: str, fd: int) -> bool:
        try:
            there = os.stat(name, dir_fd=self._fd, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return os.path.samestat(there, os.fstat(fd))

    def _replace(self, name: bytes, data: bytes) -> None:
        fresh = name + os.fsencode(_FRESH)
        self._unlink(fresh)
        write_new(self._fs, self._fd, fresh, data)
        self._fs.rename(self._fd, fresh, self._fd, name)
        self._fs.fsync(self._fd)

    def _unlink(self, name: bytes) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._fs.unlink(self._fd, name)


class HeldLock:
    """A file that is held."""

    def __init__(self, name: str, fd: int) -> None:
        self.name = name
        self.fd = fd


def write_new(fs: Fs, directory: int, name: bytes, data: bytes, *, mode: int = 0o600) -> None:
    """Make a new file and sync its bytes; the caller syncs the directory.

    Raises:
        OSError: The name is taken, or the disk failed; then a part may be left.
    """
    fd = fs.create(directory, name)
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[fs.pwrite(fd, rest, len(data) - len(rest)) :]
        if mode != 0o600:
            with contextlib.suppress(PermissionError):  # where modes are those of the mount
                fs.chmod(fd, mode)
        fs.fsync(fd)
    finally:
        os.close(fd)


def _check_directory(path: Path, status: os.stat_result) -> None:
    mode = stat.S_IMODE(status.st_mode)
    if status.st_uid != os.geteuid() or mode & 0o077:
        raise ConfigError(
            f"{path} is not this user's alone",
            expected=f"user {os.geteuid()}, mode 0700",
            found=f"user {status.st_uid}, mode {mode:04o}",
            hint=f"if what it holds is yours: chmod 700 {path}; else remove it",
        )


def _check_file(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise _not_ours(path, "something that is no file")
    if status.st_uid != os.geteuid():
        raise _not_ours(path, f"user {status.st_uid}")
    if stat.S_IMODE(status.st_mode) & 0o077:
        raise _not_ours(path, f"mode {stat.S_IMODE(status.st_mode):04o}")
    if status.st_nlink != 1:
        raise _not_ours(path, f"{status.st_nlink} names")


def _not_ours(path: Path, found: str) -> ConfigError:
    return ConfigError(
        f"{path} is not what a run of this user wrote",
        expected=f"a plain file of user {os.geteuid()}, mode 0600, with one name",
        found=found,
        hint="look who put it there; nothing was read from it",
    )
