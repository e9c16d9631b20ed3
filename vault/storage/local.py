"""The local directory as a store (docs/design.md "Stores").

::

    ROOT/NAME            version 1 of object NAME; NAME~2, NAME~3 … later ones
    ROOT/.retention/     the lock of each version, under the path of the version
    ROOT/.tmp/           what is being written; leftovers are swept after a day
    ROOT/.lock/          flock targets: a process that changes a name holds its stripe

A version id is `n-sha256`: the number that picks the file, and the digest that the
object's name claims or, where the name claims none, the digest of the bytes.

An object is written to `.tmp`, made durable, read back and compared, then linked to its
name: it is there whole or not at all, and never replaced. A version that is deleted from
below a later one leaves a symlink as a gap, so that its number is not given out again and
the list stays in commit order. Locks are kept by this program; where it may, it also sets
the kernel's immutable flag, which root can clear.
"""

import contextlib
import errno
import fcntl
import hashlib
import itertools
import mmap
import os
import re
import secrets
import stat
import sys
import threading
import zlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple, TypeAlias, TypeVar

from vault.encoding import dumps, loads_strict
from vault.errors import (
    ConfigError,
    FormatError,
    NameTakenError,
    ObjectNotFoundError,
    RepositoryNotFoundError,
    StorageError,
    StorageUnavailableError,
    VaultError,
)
from vault.machine.durable import sync_directory
from vault.machine.pagecache import DIRECT_PIECE, evict, set_direct
from vault.model import Buffer, LockMode, Retention, from_rfc3339, to_rfc3339, utc_now
from vault.storage.base import ObjectStatus, ObjectVersion, StoreTraits
from vault.storage.lockrules import UNLOCKED, Lock, check_sha256
from vault.storage.names import validate_name

_VOLATILE = frozenset({".tmp", ".lock"})
_RESERVED = _VOLATILE | {".retention"}
_MAX_DEPTH = 64  # directories; bounds recursion and open descriptors on a planted tree
_MAX_LOCK_FILE = 4096  # bytes; ours have about 80
_MAX_HASHED = 64 << 20  # bytes; what the vault keeps under names without a digest is smaller
_STRIPES = 64
_LEFTOVER_AGE = timedelta(days=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK  # opening a FIFO must not block
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW

# linux/fs.h, 64-bit; FS_IMMUTABLE_FL
_GET_FLAGS, _SET_FLAGS, _IMMUTABLE = 0x80086601, 0x40086602, 0x10

_VERSION_ID = re.compile(r"([1-9][0-9]{0,8})-[0-9a-f]{64}")
_NUMBERED = re.compile(r"(.+)~([2-9]|[1-9][0-9]{1,8})", re.DOTALL)
_CLAIMED = re.compile(r"(?:.*/)?([0-9a-f]{64})", re.DOTALL)
_UNCLAIMED = "0" * 64
_SHARED = 0o3777  # bits that all directories of the store take from the root's mode

_ABSENT = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG}
_TRANSIENT = {errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN, errno.EINTR, errno.ENFILE, errno.EMFILE}
_LACKING = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EMLINK, errno.ENOLCK}
_HINTS = {
    errno.ENOSPC: "make room on the file system of the repository and run again",
    errno.EDQUOT: "raise the quota of the repository's owner and run again",
    errno.EIO: "the disk reports errors: check it, then run an audit that reads all data",
    errno.EROFS: "the file system of the repository is mounted read-only",
    errno.EACCES: "check owner and mode of the repository's files; where several users share it,"
    " docs/stores.md says whose they must be",
    errno.EPERM: "check owner, mode and the immutable flag (lsattr) of the repository's files",
}


_T = TypeVar("_T")


class _Entry(NamedTuple):
    """One directory entry; sorts as the names of the objects it stands for do."""

    name: str  # full, as listed; of a directory with the slash that every name below it has
    number: int
    file: str  # as the file system has it
    is_directory: bool
    is_regular: bool


_Look: TypeAlias = Callable[[int, _Entry], _T | None]  # with its open directory


class LocalStore:
    """An `ObjectStore` in a directory; see `vault.storage.base` for the semantics.

    Nothing is read or written before the first call. Any number of processes may
    use one directory at the same time.

    Args:
        root: The directory; must exist, see `LocalStore.create`.
        clock: The store's clock; aware, UTC.
    """

    def __init__(self, root: Path, *, clock: Callable[[], datetime] = utc_now) -> None:
        self._root = Path(root).absolute()
        self._clock = clock
        self._durable: set[tuple[str, ...]] = set()  # directories known to survive a power cut
        self._swept = False
        self._mutex = threading.Lock()
        self._local = threading.local()

    @classmethod
    def create(cls, root: Path, *, clock: Callable[[], datetime] = utc_now) -> "LocalStore":
        """The store in ``root``, which is made, durably and with its parents, if missing.

        Raises:
            ConfigError: A file is in the way, or the file system lacks what a store needs.
                Directories made here are removed again.
            StorageError: The directory can't be made.
        """
        store = cls(root, clock=clock)
        made: list[Path] = []
        try:
            _make_directories(store._root, made)
            store._try_out()
        except OSError as error:
            for path in [store._root / ".tmp", *reversed(made)]:
                with contextlib.suppress(OSError):
                    path.rmdir()
            if isinstance(error, FileExistsError | NotADirectoryError):
                raise ConfigError(f"{root} is not a directory") from error
            if error.errno in _LACKING:
                raise ConfigError(
                    f"the file system of {root} can't keep a repository",
                    expected="hard links, flock, and fsync of files and directories",
                    found=error.strerror,
                    hint="choose one on another (docs/stores.md, A directory as a store)",
                ) from error
            raise _storage_error("make", str(root), error) from error
        return store

    @property
    def url(self) -> str:
        """The absolute path."""
        return str(self._root)

    @property
    def traits(self) -> StoreTraits:
        """Versions are in commit order; locks bind only users of this program."""
        return StoreTraits(orders_versions_by_commit=True, enforces_retention=False)

    def now(self) -> datetime:
        """This machine's clock, or the one given."""
        return self._clock()

    def put(
        self,
        name: str,
        data: Buffer,
        *,
        sha256: bytes,
        retention: Retention | None = None,
        exclusive: bool = False,
    ) -> ObjectVersion:
        """See `ObjectStore.put`."""
        *directories, base = _writable_parts(name)
        check_sha256(name, data, sha256)
        now = self._clock()
        lock = UNLOCKED.extended(retention, now) if retention else UNLOCKED
        with _translated("store", name):
            self._sweep_once()
            with self._temporary(data, 0o444, now) as (fd, unlink, source, temporary):
                self._check_disk(source, temporary, name, len(data), sha256)
                with (
                    self._locked(name),
                    self._directory(directories, create=True) as parent,
                ):
                    if exclusive and stat.S_ISREG(_mode(parent, _newest_file(parent, base)) or 0):
                        raise NameTakenError(f"{name} is taken")
                    number = self._link(source, temporary, parent, (*directories, base), lock)
                    os.fsync(parent)
                unlink()  # before the flag: an immutable file can't be unlinked
                if lock.retention is not None:
                    _set_immutable(fd, on=True)
        claimed = _claimed(name) or _digest_of(len(data), sha256)
        return ObjectVersion(name=name, version=f"{number}-{claimed}", size=len(data), modified=now)

    def get(
        self, name: str, version: str | None = None, *, offset: int = 0, length: int | None = None
    ) -> bytes:
        """See `ObjectStore.get`; of a version id, only the number is compared."""
        with _translated("read", name), self._opened(name, version) as (fd, size):
            wanted = size - offset if length is None else min(length, size - offset)
            return _read(fd, offset, wanted)

    def status(self, name: str, version: str) -> ObjectStatus:
        """See `ObjectStore.status`; a directory keeps no checksum apart from the bytes."""
        with _translated("look up", name), self._opened(name, version) as (_, size):
            lock = self._read_lock(_version_path(name, version))
        return ObjectStatus(size=size, sha256=None, retention=lock.retention, legal_hold=lock.hold)

    def versions(self, prefix: str, *, after: str = "") -> Iterator[ObjectVersion]:
        """See `ObjectStore.versions`.

        Names that are not UTF-8 are listed with backslash escapes; what lies more than
        64 directories deep, symlinks and special files are not objects.
        """
        yield from self._listed(prefix, after, _describe)

    def versions_of(self, name: str) -> list[ObjectVersion]:
        """See `ObjectStore.versions_of`.

        Files are looked up by number, up to the first that is missing: a deletion by this
        program leaves no hole in the numbers. If number 1 is missing, another program may
        have removed it, so the directory is searched for the rest.
        """
        try:
            *directories, base = _version_path(name, f"1-{_UNCLAIMED}")
        except FileNotFoundError:
            return []
        if len(directories) > _MAX_DEPTH:
            return []
        with _translated("list", name):
            try:
                with self._directory(directories) as parent:
                    found = list(_numbered(parent, name, base))
            except OSError as error:
                if error.errno in _ABSENT:
                    return []
                raise
        if not found:
            return [item for item in self.versions(name) if item.name == name]
        return [version for version in found if version is not None]

    def names(self, prefix: str) -> Iterator[str]:
        """See `ObjectStore.names`; no file is looked at."""
        last = None
        for name in self._listed(prefix, "", _name_of):
            if name != last:
                last = name
                yield name

    def _listed(self, prefix: str, after: str, look: _Look[_T]) -> Iterator[_T]:
        """What ``look`` makes of the entries that may be versions, sorted."""
        parent, slash, _ = prefix.rpartition("/")
        parts = _parts(parent) if slash else ()
        if parts is None or (parts[:1] and parts[0] in _RESERVED) or len(parts) > _MAX_DEPTH:
            return
        with _translated("list", prefix), contextlib.ExitStack() as stack:
            try:
                directory = stack.enter_context(self._directory(parts))
            except OSError as error:
                if error.errno in _ABSENT:
                    return
                raise
            yield from _walk(directory, parent + slash, prefix, after, len(parts), look)

    def extend(self, name: str, version: str, retention: Retention) -> datetime:
        """See `ObjectStore.extend`."""

        def extended(lock: Lock) -> Lock:
            return lock.extended(retention, self._clock())

        lock = self._change_lock(name, version, extended)
        assert lock.retention is not None
        return lock.retention.until

    def set_legal_hold(self, name: str, version: str, *, on: bool) -> None:
        """See `ObjectStore.set_legal_hold`."""
        self._change_lock(name, version, lambda lock: Lock(retention=lock.retention, hold=on))

    def hazards(self) -> list[str]:
        """See `ObjectStore.hazards`."""
        return []

    def delete(self, name: str, version: str) -> None:
        """See `ObjectStore.delete`."""
        with (
            _translated("delete", name),
            self._locked(name),
            self._opened(name, version) as (fd, _),
        ):
            path = _version_path(name, version)
            self._read_lock(path).check_deletable(name, self._clock())
            _set_immutable(fd, on=False)
            with self._directory(path[:-1]) as parent:
                if _exists(parent, _next_file(path[-1])):
                    self._replace_by_gap(parent, path[-1])
                else:
                    os.unlink(path[-1], dir_fd=parent)
                os.fsync(parent)
            self._forget_lock(path)

    def _try_out(self) -> None:
        """Try once each operation that storing an object needs of the file system.

        Raises:
            OSError: One of them failed; nothing is left of the trial.
        """
        with self._temporary(b"", 0o600, self._clock()) as (fd, _, directory, file):
            fcntl.flock(fd, fcntl.LOCK_EX)
            linked = file + ".linked"
            try:
                os.link(file, linked, src_dir_fd=directory, dst_dir_fd=directory)
                os.fsync(directory)
            finally:
                with contextlib.suppress(OSError):
                    os.unlink(linked, dir_fd=directory)

    # --- objects ---

    def _link(
        self, source: int, temporary: str, parent: int, path: tuple[str, ...], lock: Lock
    ) -> int:
        """Link the temporary file as the next version; its lock is written first."""
        number = 1
        while True:
            file = _file_name(path[-1], number)
            if not _exists(parent, file):
                versioned = (*path[:-1], file)
                if lock == UNLOCKED:
                    self._forget_lock(versioned)  # left by a run killed before its link
                else:
                    self._write_lock(versioned, lock)
                with contextlib.suppress(FileExistsError):
                    os.link(temporary, file, src_dir_fd=source, dst_dir_fd=parent)
                    return number
            number += 1

    @contextlib.contextmanager
    def _opened(self, name: str, version: str | None) -> Iterator[tuple[int, int]]:
        """Descriptor and size of a version's file.

        Raises:
            ObjectNotFoundError: There is no such regular file.
        """
        try:
            fd = self._open(name, version)
        except OSError as error:
            if error.errno not in _ABSENT:
                raise
            raise ObjectNotFoundError(f"no object {name}", expected=version) from error
        try:
            found = os.fstat(fd)
            if not stat.S_ISREG(found.st_mode):
                raise ObjectNotFoundError(f"no object {name}", found="not a regular file")
            yield fd, found.st_size
        finally:
            os.close(fd)

    def _open(self, name: str, version: str | None) -> int:
        path = _version_path(name, f"1-{_UNCLAIMED}" if version is None else version)
        with self._directory(path[:-1]) as parent:
            file = path[-1] if version is not None else _newest_file(parent, path[-1])
            return os.open(file, _READ, dir_fd=parent)

    def _replace_by_gap(self, parent: int, file: str) -> None:
        """Remove a file in one step; a gap in its place keeps its number taken."""
        with self._directory((".tmp",), create=True) as directory:
            gap = secrets.token_hex(16)
            os.symlink("deleted", gap, dir_fd=directory)
            os.rename(gap, file, src_dir_fd=directory, dst_dir_fd=parent)

    # --- locks of versions ---

    def _change_lock(self, name: str, version: str, change: Callable[[Lock], Lock]) -> Lock:
        with (
            _translated("lock", name),
            self._locked(name),
            self._opened(name, version) as (fd, _),
        ):
            path = _version_path(name, version)
            before = self._read_lock(path)
            lock = change(before)
            if lock != before:
                self._write_lock(path, lock)
                _set_immutable(fd, on=lock != UNLOCKED)
            return lock

    def _read_lock(self, path: tuple[str, ...]) -> Lock:
        try:
            with self._directory((".retention", *path[:-1])) as directory:
                fd = os.open(path[-1], _READ, dir_fd=directory)
        except FileNotFoundError:
            return UNLOCKED
        try:
            return _parse_lock("/".join(path), os.read(fd, _MAX_LOCK_FILE + 1))
        finally:
            os.close(fd)

    def _write_lock(self, path: tuple[str, ...], lock: Lock) -> None:
        """Replace the lock of a version, atomically and durably."""
        with (
            self._temporary(_format_lock(lock), 0o644, self._clock()) as (_, _, source, temporary),
            self._directory((".retention", *path[:-1]), create=True) as directory,
        ):
            os.rename(temporary, path[-1], src_dir_fd=source, dst_dir_fd=directory)
            os.fsync(directory)

    def _forget_lock(self, path: tuple[str, ...]) -> None:
        with (
            contextlib.suppress(FileNotFoundError),
            self._directory((".retention", *path[:-1])) as directory,
        ):
            os.unlink(path[-1], dir_fd=directory)

    # --- directories and files of the store ---

    @contextlib.contextmanager
    def _directory(
        self, parts: tuple[str, ...] | list[str], *, create: bool = False
    ) -> Iterator[int]:
        """Descriptor of a directory below the root, reached without following symlinks."""
        fd = self._open_root()
        try:
            mode = os.fstat(fd).st_mode & _SHARED if create else 0
            for depth, part in enumerate(parts, 1):
                if create:
                    child = _open_or_make(fd, part, mode)
                else:
                    child = os.open(part, _DIRECTORY, dir_fd=fd)
                try:
                    if create and parts[0] not in _VOLATILE:
                        self._make_durable(fd, tuple(parts[:depth]))
                finally:
                    os.close(fd)
                    fd = child
            yield fd
        finally:
            os.close(fd)

    def _make_durable(self, parent: int, path: tuple[str, ...]) -> None:
        """Fsync each directory once: the process that made it may have been killed before."""
        if path not in self._durable:
            os.fsync(parent)
            self._durable.add(path)

    def _open_root(self) -> int:
        try:
            return os.open(self._root, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError as error:
            raise RepositoryNotFoundError(
                f"no repository at {self._root}", hint="is its file system mounted?"
            ) from error
        except NotADirectoryError as error:
            raise ConfigError(f"{self._root} is not a directory") from error

    @contextlib.contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        """Keep every other thread and process from changing versions of ``name``."""
        stripe = f"{zlib.crc32(name.encode(errors='backslashreplace')) % _STRIPES:02x}"
        with self._directory((".lock",), create=True) as directory:
            fd = os.open(stripe, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600, dir_fd=directory)
            _share(fd, directory, 0o666)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    @contextlib.contextmanager
    def _temporary(
        self, data: Buffer, mode: int, modified: datetime
    ) -> Iterator[tuple[int, Callable[[], None], int, str]]:
        """A durable file with ``data``: descriptor, its removal, its directory, its name."""
        file = secrets.token_hex(16)
        with self._directory((".tmp",), create=True) as directory:
            fd = os.open(file, _CREATE, 0o600, dir_fd=directory)

            def unlink() -> None:
                with contextlib.suppress(OSError):  # gone, or made immutable: swept later
                    os.unlink(file, dir_fd=directory)

            try:
                _share(fd, directory, mode)
                _write(fd, data)
                nanoseconds = (modified - _EPOCH) // timedelta(microseconds=1) * 1000
                os.utime(fd, ns=(nanoseconds, nanoseconds))
                os.fsync(fd)
                yield fd, unlink, directory, file
            finally:
                unlink()
                os.close(fd)

    def _check_disk(self, directory: int, file: str, name: str, size: int, sha256: bytes) -> None:
        """Pass if the disk gives back what was written.

        Raises:
            StorageError: It does not.
        """
        fd = os.open(file, _READ, dir_fd=directory)
        try:
            if not set_direct(fd):
                evict(fd, size)
            digest, found = self._hash(fd)
        finally:
            os.close(fd)
        if (digest, found) != (bytes(sha256), size):
            raise StorageError(
                f"can't store {name}: the disk does not give back what was written to it",
                expected=f"{size} bytes with SHA-256 {sha256.hex()}",
                found=f"{found} bytes with SHA-256 {digest.hex()}",
                hint="check the disk, its controller and this machine's memory;"
                " nothing has been stored under that name",
            )

    def _hash(self, fd: int) -> tuple[bytes, int]:
        """SHA-256 and size. A short read marks the end: O_DIRECT can't read from there."""
        buffer = self._buffer()
        digest, offset, count = hashlib.sha256(), 0, DIRECT_PIECE
        while count == DIRECT_PIECE:
            count = os.preadv(fd, [buffer], offset)
            with memoryview(buffer) as view:
                digest.update(view[:count])
            offset += count
        return digest.digest(), offset

    def _buffer(self) -> mmap.mmap:
        """A buffer of this thread, aligned to a page as O_DIRECT requires."""
        if not hasattr(self._local, "buffer"):
            self._local.buffer = mmap.mmap(-1, DIRECT_PIECE)
        buffer: mmap.mmap = self._local.buffer
        return buffer

    def _sweep_once(self) -> None:
        """Remove what runs that were killed left in `.tmp`."""
        with self._mutex:
            if self._swept:
                return
            self._swept = True
        oldest = (self._clock() - _LEFTOVER_AGE).timestamp()
        with self._directory((".tmp",), create=True) as directory:
            for file in os.listdir(directory):  # noqa: PTH208 - pathlib has no descriptors
                with contextlib.suppress(OSError):
                    if os.lstat(file, dir_fd=directory).st_mtime < oldest:
                        os.unlink(file, dir_fd=directory)


# --- names ---


def _parts(name: str) -> tuple[str, ...] | None:
    """The components of a name that is safe to look up, else None."""
    parts = tuple(name.split("/"))
    try:
        name.encode()
    except UnicodeEncodeError:
        return None
    if "\0" in name or not {"", ".", ".."}.isdisjoint(parts):
        return None
    return parts


def _writable_parts(name: str) -> tuple[str, ...]:
    parts = tuple(validate_name(name).split("/"))
    if len(parts) > _MAX_DEPTH or max(map(len, parts)) > 240:
        raise ConfigError(
            "object name does not fit a directory",
            expected=f"at most {_MAX_DEPTH} parts of at most 240 bytes",
            found=repr(name[:80]),
        )
    return parts


def _version_path(name: str, version: str) -> tuple[str, ...]:
    """Components of the file that holds a version.

    Raises:
        OSError: ENOENT: no version can have that name or id.
    """
    parts = _parts(name)
    match = _VERSION_ID.fullmatch(version)
    if not parts or not match or parts[0] in _RESERVED or _NUMBERED.fullmatch(parts[-1]):
        raise FileNotFoundError(errno.ENOENT, "no version can have that name or id")
    return (*parts[:-1], _file_name(parts[-1], int(match[1])))


def _file_name(base: str, number: int) -> str:
    return base if number == 1 else f"{base}~{number}"


def _split_file_name(file: str) -> tuple[str, int]:
    match = _NUMBERED.fullmatch(file)
    return (match[1], int(match[2])) if match else (file, 1)


def _next_file(file: str) -> str:
    base, number = _split_file_name(file)
    return _file_name(base, number + 1)


def _newest_file(parent: int, base: str) -> str:
    """The file of the newest version that was not deleted; numbers have no holes."""
    newest, number = base, 1
    while (mode := _mode(parent, file := _file_name(base, number))) is not None:
        newest = file if stat.S_ISREG(mode) else newest
        number += 1
    return newest


def _claimed(name: str) -> str | None:
    """The digest that the last component of a name claims."""
    match = _CLAIMED.fullmatch(name)
    return match[1] if match else None


def _digest_of(size: int, sha256: bytes) -> str:
    return sha256.hex() if size <= _MAX_HASHED else _UNCLAIMED


def _numbered(parent: int, name: str, base: str) -> Iterator["ObjectVersion | None"]:
    """The version in each file of a name, by number; None for a file that is no version."""
    for number in itertools.count(1):
        file = _file_name(base, number)
        if not _exists(parent, file):
            return
        yield _describe(parent, _Entry(name, number, file, is_directory=False, is_regular=True))


# --- listing ---


def _walk(  # noqa: PLR0917 - recursion
    directory: int, base: str, prefix: str, after: str, depth: int, look: _Look[_T]
) -> Iterator[_T]:
    """What ``look`` makes of the entries of an open directory whose names begin with ``base``."""
    for entry in sorted(_entries(directory, base, prefix, after)):
        if not entry.is_directory:
            seen = look(directory, entry)
            if seen is not None:
                yield seen
        elif depth < _MAX_DEPTH:
            with contextlib.suppress(FileNotFoundError):
                child = os.open(entry.file, _DIRECTORY, dir_fd=directory)
                try:
                    yield from _walk(child, entry.name, "", after, depth + 1, look)
                finally:
                    os.close(child)


def _entries(directory: int, base: str, prefix: str, after: str) -> Iterator[_Entry]:
    """Entries that may hold names that begin with ``prefix`` and sort after ``after``.

    Strings compare by code point, which is the order of their UTF-8 bytes.
    """
    with os.scandir(directory) as found:
        for item in found:
            file = item.name
            shown = (
                file if file.isascii() else os.fsencode(file).decode("utf-8", "backslashreplace")
            )
            if item.is_dir(follow_symlinks=False):
                if not base and file in _RESERVED:
                    continue
                entry = _Entry(base + shown + "/", 0, file, is_directory=True, is_regular=False)
                wanted = entry.name > after or after.startswith(entry.name)
            elif base + shown <= after:  # so is the object's name, its beginning
                continue
            else:
                name, number = _split_file_name(shown)
                is_regular = item.is_file(follow_symlinks=False)
                entry = _Entry(base + name, number, file, is_directory=False, is_regular=is_regular)
                wanted = entry.name > after
            if wanted and entry.name.startswith(prefix):
                yield entry


def _name_of(_: int, entry: _Entry) -> str | None:
    """The name of the object that a directory entry is a version of; None if it is none."""
    return entry.name if entry.is_regular else None


def _describe(directory: int, entry: _Entry) -> ObjectVersion | None:
    """The version that an entry holds; None if it holds none, or was removed meanwhile."""
    try:
        found = os.lstat(entry.file, dir_fd=directory)
        if not stat.S_ISREG(found.st_mode):
            return None
        claimed = _claimed(entry.name) or _hash_file(directory, entry.file, found.st_size)
    except FileNotFoundError:
        return None
    return ObjectVersion(
        name=entry.name,
        version=f"{entry.number}-{claimed}",
        size=found.st_size,
        modified=_from_nanoseconds(found.st_mtime_ns),
    )


def _hash_file(directory: int, file: str, size: int) -> str:
    if size > _MAX_HASHED:
        return _UNCLAIMED
    fd = os.open(file, _READ, dir_fd=directory)
    try:
        return hashlib.sha256(_read(fd, 0, size)).hexdigest()
    finally:
        os.close(fd)


# --- the lock file of a version ---


def _format_lock(lock: Lock) -> bytes:
    retention = lock.retention
    return dumps(
        {
            "hold": lock.hold,
            "mode": str(retention.mode) if retention else None,
            "until": to_rfc3339(retention.until) if retention else None,
        }
    )


def _parse_lock(path: str, data: bytes) -> Lock:
    """The lock that a file states; an unreadable one raises, and so forbids every change.

    Raises:
        FormatError: Anything but what `_format_lock` makes.
    """
    try:
        fields = loads_strict(data) if len(data) <= _MAX_LOCK_FILE else None
        match fields:
            case {"hold": bool(hold), "mode": None, "until": None}:
                return Lock(hold=hold)
            case {
                "hold": bool(hold),
                "mode": "governance" | "compliance" as mode,
                "until": str(until),
            }:
                retention = Retention(mode=LockMode(mode), until=from_rfc3339(until))
                return Lock(retention=retention, hold=hold)
            case _:
                found = "not a lock"
    except FormatError as error:
        found = str(error)
    raise FormatError(
        f"lock file .retention/{path} can't be read",
        found=found,
        hint="nothing deletes or extends that object until the file is restored",
    )


# --- system calls ---


@contextlib.contextmanager
def _translated(action: str, name: str) -> Iterator[None]:
    """Turn every OSError into the vault's errors."""
    try:
        yield
    except OSError as error:
        raise _storage_error(action, name, error) from error


def _storage_error(action: str, name: str, error: OSError) -> VaultError:
    kind = StorageUnavailableError if error.errno in _TRANSIENT else StorageError
    hint = _HINTS.get(error.errno or 0)
    return kind(f"can't {action} {name}", found=error.strerror or str(error), hint=hint)


def _make_directories(path: Path, made: list[Path]) -> None:
    """`mkdir -p` that survives a power cut; each directory it makes is added to ``made``."""
    if path.is_dir():
        return
    _make_directories(path.parent, made)
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode=0o755)  # never writable for others, whatever the umask
        made.append(path)
    if not path.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
    sync_directory(path.parent)


def _open_or_make(parent: int, name: str, mode: int) -> int:
    """A directory; one that is made has the mode of the store's root, whatever the umask."""
    try:
        return os.open(name, _DIRECTORY, dir_fd=parent)
    except FileNotFoundError:
        made = True
        try:
            os.mkdir(name, 0o700, dir_fd=parent)
        except FileExistsError:
            made = False
        fd = os.open(name, _DIRECTORY, dir_fd=parent)
        if made:
            os.fchmod(fd, mode)
        return fd


def _share(fd: int, directory: int, most: int) -> None:
    """Give a file of the store the bits of ``most`` that its directory has, whatever the umask."""
    status = os.fstat(fd)
    mode = os.fstat(directory).st_mode & most
    if status.st_uid == os.geteuid() and stat.S_IMODE(status.st_mode) != mode:
        os.fchmod(fd, mode)


def _mode(parent: int, file: str) -> int | None:
    try:
        return os.lstat(file, dir_fd=parent).st_mode
    except FileNotFoundError:
        return None


def _exists(parent: int, file: str) -> bool:
    return _mode(parent, file) is not None


def _write(fd: int, data: Buffer) -> None:
    with memoryview(data) as view, view.cast("B") as rest:
        done = 0
        while done < len(rest):
            done += os.write(fd, rest[done:])


def _read(fd: int, offset: int, length: int) -> bytes:
    """Up to ``length`` bytes; one system call where the kernel gives all at once."""
    pieces: list[bytes] = []
    while length > 0 and (piece := os.pread(fd, length, offset)):
        pieces.append(piece)
        offset += len(piece)
        length -= len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _set_immutable(fd: int, *, on: bool) -> None:
    """Set or clear the kernel's immutable flag, where the file system and our rights allow."""
    flags = bytearray(8)
    with contextlib.suppress(OSError):
        fcntl.ioctl(fd, _GET_FLAGS, flags)
        before = int.from_bytes(flags[:4], sys.byteorder)
        after = before | _IMMUTABLE if on else before & ~_IMMUTABLE
        if after != before:
            fcntl.ioctl(fd, _SET_FLAGS, after.to_bytes(4, sys.byteorder))


def _from_nanoseconds(nanoseconds: int) -> datetime:
    """A file's time; the epoch for one that a datetime can't hold."""
    try:
        return _EPOCH + timedelta(microseconds=nanoseconds // 1000)
    except OverflowError:
        return _EPOCH
