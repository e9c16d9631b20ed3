"""The system calls of a restore, and directories that are entered without following links.

Every change to the file system goes through one `Fs`, so that a test can make
the n-th call fail or be the last one.
"""

import contextlib
import ctypes
import errno
import os
import stat
from typing import Final

from vault.encoding import shown_path
from vault.errors import ConfigError, FormatError, LocalError
from vault.format.entry_rules import is_plain
from vault.machine import metadata
from vault.machine.libc import libc
from vault.machine.lru import Recent

_RENAME_NOREPLACE: Final = 1
_RENAME_EXCHANGE: Final = 2
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_UNSUPPORTED: Final = frozenset({errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP})

MAX_WALKED_PATH = 65_536  # bytes; bounds the depth of a tree, and so the memory of a walk
MAX_PART = 255  # bytes of one part, of every Linux file system
_CACHED_DIRECTORIES = 64  # descriptors; a sorted restore needs as many as the tree is deep


def _checked(result: int) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def _renameat2(source: int, old: bytes, directory: int, new: bytes, flags: int) -> None:
    """renameat2(2); glibc has it since 2.28, musl since 1.2.6.

    Raises:
        OSError: ENOSYS where the C library lacks it, else what the kernel says.
    """
    call = getattr(libc, "renameat2", None)
    if call is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    _checked(call(source, old, directory, new, ctypes.c_uint(flags)))


def is_unsupported(error: OSError) -> bool:
    """Whether the system lacks an operation, in contrast to having failed at it."""
    return error.errno in _UNSUPPORTED


class Fs:
    """All changes a restore makes to the file system: each method is one system call."""

    def mkdir(self, directory: int, name: bytes) -> None:
        """Make a directory that only its owner can enter."""
        os.mkdir(name, 0o700, dir_fd=directory)

    def create(self, directory: int, name: bytes) -> int:
        """Make a new file, open for writing; never one that was there."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        return os.open(name, flags, 0o600, dir_fd=directory)

    def reopen(self, directory: int, name: bytes) -> int:
        """Open a file for writing again."""
        flags = os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        return os.open(name, flags, dir_fd=directory)

    def open_directory(self, directory: int, name: bytes) -> int:
        """Open a directory that is not a symlink."""
        return os.open(name, _DIRECTORY, dir_fd=directory)

    def pwrite(self, fd: int, data: bytes | memoryview, offset: int) -> int:
        """Write some of ``data``; returns how much."""
        return os.pwrite(fd, data, offset)

    def truncate(self, fd: int, size: int) -> None:
        """Set the size of an open file."""
        os.ftruncate(fd, size)

    def symlink(self, directory: int, name: bytes, target: bytes) -> None:
        """Make a symlink."""
        os.symlink(target, name, dir_fd=directory)

    def link(self, source: int, first: bytes, directory: int, name: bytes) -> None:
        """Give a file a second name."""
        os.link(first, name, src_dir_fd=source, dst_dir_fd=directory, follow_symlinks=False)

    def mknod(self, directory: int, name: bytes, kind: int, device: int) -> None:
        """Make a FIFO or device; ``kind`` is one of stat.S_IF*."""
        os.mknod(name, kind | 0o600, device, dir_fd=directory)

    def apply_fd(
        self, fd: int, attributes: metadata.Attributes, *, directory: bool
    ) -> tuple[str, ...]:
        """`metadata.apply_fd`."""
        return metadata.apply_fd(fd, attributes, directory=directory)

    def apply_at(
        self, directory: int, name: bytes, attributes: metadata.Attributes
    ) -> tuple[str, ...]:
        """`metadata.apply_at`."""
        return metadata.apply_at(directory, name, attributes)

    def chmod(self, fd: metadata.OpenPlace, mode: int) -> None:
        """Set the mode of an open or held object."""
        os.chmod(fd, mode)  # noqa: PTH101 - not a path but a held object

    def close(self, fd: int) -> None:
        """Close a written file; some file systems report a lost write only here."""
        os.close(fd)

    def unlink(self, directory: int, name: bytes) -> None:
        """Remove anything but a directory."""
        os.unlink(name, dir_fd=directory)

    def rmdir(self, directory: int, name: bytes) -> None:
        """Remove an empty directory."""
        os.rmdir(name, dir_fd=directory)

    def rename(self, source: int, old: bytes, directory: int, new: bytes) -> None:
        """Rename, replacing a file or an empty directory of that name."""
        os.rename(old, new, src_dir_fd=source, dst_dir_fd=directory)

    def rename_new(self, source: int, old: bytes, directory: int, new: bytes) -> None:
        """Rename to a name that is free; where the kernel can't promise that, look first."""
        try:
            _renameat2(source, old, directory, new, _RENAME_NOREPLACE)
        except OSError as error:
            if not is_unsupported(error):
                raise
            if inode_at(directory, new) is not None:
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST)) from error
            os.rename(old, new, src_dir_fd=source, dst_dir_fd=directory)

    def exchange(self, directory: int, one: bytes, around: int, other: bytes) -> None:
        """Swap two names, each in its directory, in one step.

        Raises:
            OSError: `is_unsupported` says whether the file system can't.
        """
        _renameat2(directory, one, around, other, _RENAME_EXCHANGE)

    def fsync(self, fd: int) -> None:
        """Make one file or directory durable."""
        os.fsync(fd)

    def syncfs(self, fd: int) -> None:
        """Make everything on the file system of ``fd`` durable; raises if a write was lost."""
        _checked(libc.syncfs(fd))


def inode_at(directory: int, name: bytes) -> int | None:
    """Inode number of a name, of a symlink its own; None if the name is missing."""
    try:
        return os.stat(name, dir_fd=directory, follow_symlinks=False).st_ino
    except FileNotFoundError:
        return None


def is_nameable(path: bytes) -> bool:
    """Whether each part of the path is short enough for Linux's own file systems.

    Snapshots can have longer names: FUSE, CIFS and NTFS allow them.
    """
    return len(path) <= MAX_PART or max(map(len, path.split(b"/"))) <= MAX_PART


def check_path(path: bytes) -> bytes:
    """The path itself, if it stays below the directory it is relative to.

    The tree's signature says who wrote it, and a writer may be malicious.

    Raises:
        FormatError: Absolute, too long, with NUL, empty, ``.`` or ``..`` parts.
    """
    if path and (len(path) > MAX_WALKED_PATH or not is_plain(path) or not is_nameable(path)):
        raise FormatError("path can't be restored", found=shown_path(path))
    return path


def local_error(what: str, path: bytes | str, error: OSError) -> LocalError:
    """The operating system's refusal in the vault's words."""
    shown = os.fsdecode(path)
    return LocalError(f"can't {what} {shown!r}", found=os.strerror(error.errno or 0))


class OpenDirectories:
    """Open directories below one root, entered part by part and never through a symlink.

    If another process swapped a part for a symlink or a mount, that is an error. Not
    thread-safe.

    Args:
        root: Descriptor of the root; stays the caller's.
        fs: System calls.
        writable: chmod directories that their owner can't enter, so that they can be removed.
    """

    def __init__(self, root: int, fs: Fs, *, writable: bool = False) -> None:
        self._root = root
        self._fs = fs
        self._writable = writable
        self._device = os.fstat(root).st_dev
        self._open: Recent[bytes, int] = Recent(_CACHED_DIRECTORIES, least=1, release=os.close)
        self._last = (b"", root)  # callers mostly ask for the same directory again

    def close(self) -> None:
        """Close all but the root."""
        self._last = (b"", self._root)
        self._open.clear()

    def parent(self, path: bytes) -> tuple[int, bytes]:
        """Descriptor of the directory around ``path``, valid until the next call, and its name."""
        around, _, name = path.rpartition(b"/")
        return self.open(around), name

    def open(self, path: bytes) -> int:
        """Descriptor of a directory, valid until the next call; the caller must not close it.

        Raises:
            OSError: ELOOP or ENOTDIR for a symlink in its place, EXDEV for a mount.
        """
        last, fd = self._last
        if path == last:
            return fd
        if not path:
            return self._root
        kept = self._open.get(path)
        fd = self._enter_all(path) if kept is None else kept
        self._last = (path, fd)
        return fd

    def _enter_all(self, path: bytes) -> int:
        """Enter a directory from the deepest one above it that is open."""
        end = len(path)
        while end > 0 and path[:end] not in self._open:
            end = max(path.rfind(b"/", 0, end), 0)
        kept = self._open.get(path[:end])
        fd = self._root if kept is None else kept
        while end < len(path):
            start = end + 1 if end else 0
            following = path.find(b"/", start)
            end = following if following >= 0 else len(path)
            fd = self._enter(fd, path[start:end], path[:end])
        return fd

    def forget(self, path: bytes) -> None:
        """Close one directory, if it is open."""
        self._last = (b"", self._root)
        self._open.forget(path)

    def _enter(self, around: int, name: bytes, path: bytes) -> int:
        fd = self._open_one(around, name)
        if os.fstat(fd).st_dev != self._device:
            os.close(fd)
            raise OSError(errno.EXDEV, "a file system is mounted there")
        self._open.put(path, fd)
        return fd

    def _open_one(self, around: int, name: bytes) -> int:
        if self._writable:
            with contextlib.suppress(PermissionError), metadata.place_at(around, name) as held:
                place, status = held
                if stat.S_ISDIR(status.st_mode) and status.st_mode & 0o700 != 0o700:
                    os.chmod(place, 0o700)  # noqa: PTH101 - not a path but a held object
        return self._fs.open_directory(around, name)


def remove_tree(fs: Fs, around: int, name: bytes, inode: int) -> None:
    """Remove one directory and all below it; symlinks and mounts in it are not followed.

    Args:
        fs: System calls.
        around: Descriptor of the directory that holds it.
        name: Its name there.
        inode: Its inode number: another directory under that name is left alone.

    Raises:
        ConfigError: Another object has the name.
        OSError: Not all could be removed.
    """
    root = fs.open_directory(around, name)
    try:
        status = os.fstat(root)
        if status.st_ino != inode:
            raise ConfigError("not the directory it was; left alone", found=os.fsdecode(name))
        if status.st_mode & 0o700 != 0o700:
            fs.chmod(root, 0o700)
        _empty(fs, root)
        fs.rmdir(around, name)
    finally:
        os.close(root)


def _empty(fs: Fs, root: int) -> None:
    """Depth first, with an explicit stack: a deep tree would exceed Python's recursion limit."""
    directories = OpenDirectories(root, fs, writable=True)
    try:
        stack = [(b"", _clear(fs, directories.open(b"")))]
        while stack:
            path, inner = stack[-1]
            if inner:
                child = join(path, inner.pop())
                stack.append((child, _clear(fs, directories.open(child))))
                continue
            stack.pop()
            if path:
                directories.forget(path)
                around, name = directories.parent(path)
                fs.rmdir(around, name)
    finally:
        directories.close()


def _clear(fs: Fs, directory: int) -> list[bytes]:
    """Remove all but directories; returns the names of those."""
    inner = []
    for name in list_names(directory):
        if stat.S_ISDIR(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode):
            inner.append(name)
        else:
            fs.unlink(directory, name)
    return inner


def remove_empty(fs: Fs, around: int, name: bytes) -> None:
    """Remove a directory, if it is there, and directories in it; none may hold a file.

    Raises:
        OSError: Something is in them.
    """
    with contextlib.suppress(FileNotFoundError):
        holder = fs.open_directory(around, name)
        try:
            for inner in list_names(holder):
                fs.rmdir(holder, inner)
        finally:
            os.close(holder)
        fs.rmdir(around, name)


def list_names(directory: int) -> list[bytes]:
    """Names in an open directory, sorted bytewise."""
    return sorted(os.fsencode(name) for name in os.listdir(directory))


def join(path: bytes, name: bytes) -> bytes:
    """Path of a name in a directory below the root."""
    return path + b"/" + name if path else name
