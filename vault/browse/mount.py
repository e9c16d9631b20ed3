"""A snapshot as a read-only file system (FUSE), every byte verified as it is read.

The only importer of mfusepy, an optional dependency. `SnapshotFiles` knows nothing
of it: it answers the kernel's questions in plain values. Reading damaged data is an
input/output error, with the reason in the log; wrong bytes are never returned.
"""

import errno
import functools
import itertools
import logging
import os
import signal
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Concatenate, Final, ParamSpec, TypeVar

from vault.browse import OpenFile, View
from vault.errors import ConfigError, FormatError, IntegrityError, LocalError, VaultError
from vault.format.entry import FILE_TYPES, Entry, hole_size
from vault.format.entry_rules import is_plain
from vault.model import EntryType

_log = logging.getLogger(__name__)

MAX_SHOWN_NAME: Final = 1_024  # bytes: the kernel refuses a whole directory for one longer name
MAX_LINK: Final = 4_095  # bytes: PATH_MAX without its NUL; longer ones would be cut
_FOREVER: Final = 86_400  # seconds for which the kernel may keep answers: nothing changes
_MAX_REPORTED: Final = 1_000  # lines that are remembered, so as not to repeat them
_SIGNALLED: Final = 8  # what libfuse 3 returns after a signal ended it
_WRITING: Final = os.O_WRONLY | os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_TRUNC

_P = ParamSpec("_P")
_T = TypeVar("_T")


def _answering(
    method: "Callable[Concatenate[SnapshotFiles, str, _P], _T]",
) -> "Callable[Concatenate[SnapshotFiles, str, _P], _T]":
    """Turn a `VaultError` into EIO and one line in the log."""

    @functools.wraps(method)
    def wrapper(self: "SnapshotFiles", path: str, /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        try:
            return method(self, path, *args, **kwargs)
        except VaultError as error:
            self.report(path, error)
            raise OSError(errno.EIO, os.strerror(errno.EIO)) from error

    return wrapper


class SnapshotFiles:
    """Answers the kernel's questions to a file system, one at a time.

    Paths and names are as `os.fsdecode` gives them, paths with a leading ``/``.
    Inode numbers follow from the order of the tree: they are the same each time.

    Args:
        view: Of the snapshot, for random access.
    """

    use_ns = True  # mfusepy: times are whole nanoseconds

    def __init__(self, view: View) -> None:
        self._tree = view.tree
        self._view = view
        self._open: dict[int, OpenFile] = {}
        self._handles = itertools.count(1)
        self._reported: set[str] = set()
        self._bad = view.flaws.paths
        self._ghosts = _ghosts(view)

    def report(self, path: str, error: VaultError) -> None:
        """Log why a path can't be read, once: a kernel asks again and again."""
        what = "damaged" if isinstance(error, IntegrityError) else "unreadable"
        line = f"{path} is {what}: {error}"
        if line not in self._reported:
            if len(self._reported) >= _MAX_REPORTED:
                self._reported.clear()
            self._reported.add(line)
            _log.error("%s", line)

    @_answering
    def getattr(self, path: str, _handle: int | None = None) -> dict[str, int]:
        """As lstat(2) gives it, with times in nanoseconds."""
        number = self._tree.file_of(self._number(path))
        entry = self._tree.entry(number)
        return {
            "st_ino": number + 1,
            "st_mode": FILE_TYPES[entry.type] | entry.mode,
            "st_nlink": self._tree.links(number),
            "st_uid": entry.uid,
            "st_gid": entry.gid,
            "st_rdev": entry.device or 0,
            "st_size": len(entry.link) if entry.link is not None else entry.size,
            "st_blocks": _blocks(entry),
            "st_atime": entry.mtime,
            "st_mtime": entry.mtime,
            "st_ctime": entry.ctime,
        }

    def readdir_with_offset(
        self, path: str, offset: int, _handle: int
    ) -> Iterator[tuple[str, dict[str, int], int]]:
        """Members of a directory: name, type and inode, and where to go on after it.

        Entries that break a rule are listed, but every other access to them fails: so a program
        that copies the directory reports them.

        Args:
            path: Of the directory.
            offset: 0, or where to go on.
        """
        number = self._directory(path)
        yield from _dots(number, offset)
        for member in self._tree.children(number, offset - _FIRST):
            entry = self._tree.entry(member)
            name = entry.path.rpartition(b"/")[2]
            after = self._tree.after(member) + _FIRST
            if len(name) > MAX_SHOWN_NAME:
                _log.warning("a name of %d bytes in %s is left out", len(name), path)
                continue
            inode = self._tree.file_of(member) + 1
            yield os.fsdecode(name), {"st_mode": FILE_TYPES[entry.type], "st_ino": inode}, after
        behind = len(self._tree) + _FIRST
        for at, name in enumerate(self._ghosts.get(number, ()), start=behind + 1):
            if offset < at:
                yield os.fsdecode(name), {"st_mode": 0, "st_ino": at}, at  # 0 would not be shown

    @_answering
    def _directory(self, path: str) -> int:
        number = self._number(path)
        if self._tree.entry(number).type is not EntryType.DIRECTORY:
            raise _refused(errno.ENOTDIR)
        return number

    @_answering
    def readlink(self, path: str) -> str:
        """The target of a symlink."""
        entry = self._tree.entry(self._number(path))
        if entry.type is not EntryType.SYMLINK or entry.link is None:
            raise _refused(errno.EINVAL)
        if len(entry.link) > MAX_LINK:
            raise _refused(errno.ENAMETOOLONG)
        return os.fsdecode(entry.link)

    @_answering
    def open(self, path: str, flags: int) -> int:
        """A handle to read from."""
        if flags & _WRITING:
            raise _refused(errno.EROFS)
        entry = self._entry(path)
        if entry.type is not EntryType.FILE:
            raise _refused(errno.EISDIR if entry.type is EntryType.DIRECTORY else errno.EINVAL)
        handle = next(self._handles)
        self._open[handle] = self._view.open(entry)
        return handle

    @_answering
    def read(self, _path: str, size: int, offset: int, handle: int) -> bytes:
        """Verified bytes."""
        return self._open[handle].read(offset, size)

    def release(self, _path: str, handle: int) -> int:
        """Forget a handle."""
        self._open.pop(handle, None)
        return 0

    @_answering
    def listxattr(self, path: str) -> list[str]:
        """Names of extended attributes."""
        return [os.fsdecode(name) for name, _ in self._entry(path).xattrs or ()]

    @_answering
    def getxattr(self, path: str, name: str, _position: int = 0) -> bytes:
        """The value of one."""
        wanted = os.fsencode(name)
        for found, value in self._entry(path).xattrs or ():
            if found == wanted:
                return value
        raise _refused(errno.ENODATA)

    @_answering
    def statfs(self, _path: str) -> dict[str, int]:
        """A full file system of the snapshot's size."""
        return {
            "f_bsize": 4_096,
            "f_frsize": 4_096,
            "f_blocks": -(-self._view.size // 4_096),
            "f_files": len(self._tree),
            "f_namemax": MAX_SHOWN_NAME,
        }

    def _number(self, path: str) -> int:
        wanted = os.fsencode(path).strip(b"/")
        number = self._tree.find(wanted)
        if number is not None:
            return number
        if (bad := self._bad.get(wanted)) is not None:
            raise FormatError(f"its entry {bad.text}")
        raise _refused(errno.ENOENT)

    def _entry(self, path: str) -> Entry:
        """The entry, for a hard link that of its file."""
        return self._tree.entry(self._tree.file_of(self._number(path)))


def _ghosts(view: View) -> dict[int, list[bytes]]:
    """Names of bad entries, unless a good entry has the name, by the number of the directory."""
    found: dict[int, list[bytes]] = {}
    for path in view.flaws.paths:
        around, _, name = path.rpartition(b"/")
        if not is_plain(path) or not name or len(name) > MAX_SHOWN_NAME:
            continue
        number = view.tree.find(around)
        if number is None or view.tree.find(path) is not None:
            continue
        if view.tree.entry(number).type is EntryType.DIRECTORY:
            found.setdefault(number, []).append(name)
    return found


_FIRST: Final = 2  # offsets 1 and 2 follow "." and ".."; from here on an entry's number is added


def _dots(number: int, offset: int) -> Iterator[tuple[str, dict[str, int], int]]:
    for at, name in enumerate((".", ".."), start=1):
        if offset < at:
            yield name, {"st_mode": stat.S_IFDIR, "st_ino": number + 1}, at


def _blocks(entry: Entry) -> int:
    """Units of 512 bytes that hold data."""
    return -(-(entry.size - hole_size(entry)) // 512)


def _refused(number: int) -> OSError:
    return OSError(number, os.strerror(number))


# --- the kernel's side ---


def check_mount_point(directory: Path) -> None:
    """Pass if a file system can be mounted there.

    Raises:
        ConfigError: Not an empty directory.
    """
    try:
        empty = not any(directory.iterdir())
    except OSError as error:
        raise ConfigError(f"can't mount at {directory}", found=error.strerror) from error
    if not empty:
        raise ConfigError(
            f"can't mount at {directory}", expected="an empty directory", found="one with members"
        )


def load_fuse() -> Any:
    """The library.

    Raises:
        ConfigError: It, or the system's libfuse, is not installed.
    """
    try:
        import mfusepy  # noqa: PLC0415 - optional, and only this command needs it
    except ImportError as error:
        raise ConfigError(
            "mounting needs mfusepy, which is not installed",
            hint="pip install 'vault-backup[mount]'",
        ) from error
    except (OSError, AttributeError) as error:
        raise ConfigError(
            "mounting needs libfuse, which is not installed",
            found=error,
            hint="install your system's fuse3 or fuse package",
        ) from error
    return mfusepy


def mount_snapshot(view: View, directory: Path, *, allow_other: bool = False) -> None:
    """Mount a snapshot and answer until it is unmounted, or a signal ends it.

    Runs in the main thread. SIGINT, SIGTERM and SIGHUP unmount; then this returns.

    Args:
        view: For random access.
        directory: An empty directory.
        allow_other: Other users may look too, as far as modes and owners permit.

    Raises:
        ConfigError: The library is missing, or the directory is not fit.
        LocalError: The system refuses to mount.
    """
    fuse = load_fuse()
    check_mount_point(directory)
    options = {"allow_other": True, "default_permissions": True} if allow_other else {}
    try:
        with _default_signals():
            fuse.FUSE(
                SnapshotFiles(view),
                os.fsdecode(directory.absolute()),
                foreground=True,
                nothreads=True,  # a reader is not shared between threads
                ro=True,
                nosuid=True,
                nodev=True,
                use_ino=True,
                kernel_cache=True,
                attr_timeout=_FOREVER,
                entry_timeout=_FOREVER,
                negative_timeout=_FOREVER,
                fsname="vault",
                subtype="vault",
                **options,
            )
    except RuntimeError as error:
        if error.args != (_SIGNALLED,):
            raise LocalError(
                f"can't mount at {directory}", found=f"libfuse says {error}", hint=_HINT
            ) from error


_HINT: Final = "look at the lines above; is /dev/fuse there, and fusermount installed?"


@contextmanager
def _default_signals() -> Iterator[None]:
    """Give signals their default action for the block: libfuse unmounts only on such signals."""
    handlers = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGHUP)}
    former = {each: handler for each, handler in handlers.items() if callable(handler)}
    try:
        for number in former:  # one that is ignored stays so: nohup
            signal.signal(number, signal.SIG_DFL)
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
