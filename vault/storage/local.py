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
import fcntl
import os
import secrets
import stat
import threading
import zlib
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import TypeVar

from vault.clock import utc_now
from vault.errors import (
    ConfigError,
    NameTakenError,
    ObjectNotFoundError,
)
from vault.model import Buffer, Retention
from vault.storage.base import ObjectStatus, ObjectVersion, StoreTraits
from vault.storage.local_calls import (
    ABSENT,
    CREATE_FLAGS,
    DIRECTORY_FLAGS,
    LACKING,
    READ_FLAGS,
    file_exists,
    make_directories,
    mode_of,
    open_or_make,
    open_root,
    read_range_of,
    share_file,
    storage_error,
    translated,
    write_all,
)
from vault.storage.local_locks import MAX_LOCK_FILE, format_lock, parse_lock, set_immutable
from vault.storage.local_readback import DiskCheck
from vault.storage.local_versions import (
    EPOCH,
    MAX_DEPTH,
    RESERVED,
    UNCLAIMED,
    VOLATILE,
    LookAtEntry,
    digest_in_id,
    digest_in_name,
    name_of_entry,
    name_parts,
    newest_file,
    next_file,
    numbered_versions,
    version_file,
    version_of_entry,
    version_path,
    walk_versions,
    writable_parts,
)
from vault.storage.lock_rules import UNLOCKED, Lock, check_sha256

_STRIPES = 64
_LEFTOVER_AGE = timedelta(days=1)
_SHARED = 0o3777  # bits that all directories of the store take from the root's mode


_T = TypeVar("_T")


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
        self._disk = DiskCheck()
        self._made: list[Path] = []  # directories that `create` made, outer ones first

    @classmethod
    def create(cls, root: Path, *, clock: Callable[[], datetime] = utc_now) -> "LocalStore":
        """The store in ``root``, which is made, durably and with its parents, if missing.

        Raises:
            ConfigError: A file is in the way, or the file system lacks what a store needs.
                Directories made here are removed again.
            StorageError: The directory can't be made.
        """
        store = cls(root, clock=clock)
        try:
            make_directories(store._root, store._made)
            store._try_out()
        except OSError as error:
            store.discard_if_empty()
            if isinstance(error, FileExistsError | NotADirectoryError):
                raise ConfigError(f"{root} is not a directory") from error
            if error.errno in LACKING:
                raise ConfigError(
                    f"the file system of {root} can't keep a repository",
                    expected="hard links, flock, and fsync of files and directories",
                    found=error.strerror,
                    hint="choose one on another (docs/stores.md, A directory as a store)",
                ) from error
            raise storage_error("make", str(root), error) from error
        return store

    def discard_if_empty(self) -> None:
        """Remove the directories that `create` made, if nothing was put into the store since."""
        working = [self._root / name for name in (".tmp", ".lock", ".retention", "ledger")]
        for path in [*working, *reversed(self._made)]:
            with contextlib.suppress(OSError):  # it is not empty, or is not there
                path.rmdir()

    @property
    def url(self) -> str:
        """The absolute path."""
        return str(self._root)

    @property
    def traits(self) -> StoreTraits:
        """Versions are in commit order; locks bind only users of this program."""
        return StoreTraits(
            orders_versions_by_commit=True, lists_md5=False, enforces_retention=False
        )

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
        *directories, base = writable_parts(name)
        check_sha256(name, data, sha256)
        now = self._clock()
        lock = UNLOCKED.extended(retention, now) if retention else UNLOCKED
        with translated("store", name):
            self._sweep_once()
            with self._temporary(data, 0o444, now) as (fd, unlink, source, temporary):
                self._disk.check(source, temporary, name, len(data), sha256)
                with (
                    self._locked(name),
                    self._directory(directories, create=True) as parent,
                ):
                    if exclusive and stat.S_ISREG(mode_of(parent, newest_file(parent, base)) or 0):
                        raise NameTakenError(f"{name} is taken")
                    number = self._link(source, temporary, parent, (*directories, base), lock)
                    os.fsync(parent)
                unlink()  # before the flag: an immutable file can't be unlinked
                if lock.retention is not None:
                    set_immutable(fd, on=True)
        claimed = digest_in_name(name) or digest_in_id(len(data), sha256)
        return ObjectVersion(name=name, version=f"{number}-{claimed}", size=len(data), modified=now)

    def get(
        self, name: str, version: str | None = None, *, offset: int = 0, length: int | None = None
    ) -> bytes:
        """See `ObjectStore.get`; of a version id, only the number is compared."""
        with translated("read", name), self._opened(name, version) as (fd, size):
            wanted = size - offset if length is None else min(length, size - offset)
            return read_range_of(fd, offset, wanted)

    def status(self, name: str, version: str) -> ObjectStatus:
        """See `ObjectStore.status`; a directory keeps no checksum apart from the bytes."""
        with translated("look up", name), self._opened(name, version) as (_, size):
            lock = self._read_lock(version_path(name, version))
        return ObjectStatus(size=size, sha256=None, retention=lock.retention, legal_hold=lock.hold)

    def versions(self, prefix: str, *, after: str = "") -> Iterator[ObjectVersion]:
        """See `ObjectStore.versions`.

        Names that are not UTF-8 are listed with backslash escapes; what lies more than
        64 directories deep, symlinks and special files are not objects.
        """
        yield from self._listed(prefix, after, version_of_entry)

    def versions_of(self, name: str) -> list[ObjectVersion]:
        """See `ObjectStore.versions_of`.

        Files are looked up by number, up to the first that is missing: a deletion by this
        program leaves no hole in the numbers. If number 1 is missing, another program may
        have removed it, so the directory is searched for the rest.
        """
        try:
            *directories, base = version_path(name, f"1-{UNCLAIMED}")
        except FileNotFoundError:
            return []
        if len(directories) > MAX_DEPTH:
            return []
        with translated("list", name):
            try:
                with self._directory(directories) as parent:
                    found = list(numbered_versions(parent, name, base))
            except OSError as error:
                if error.errno in ABSENT:
                    return []
                raise
        if not found:
            return [item for item in self.versions(name) if item.name == name]
        return [version for version in found if version is not None]

    def names(self, prefix: str) -> Iterator[str]:
        """See `ObjectStore.names`; no file is looked at."""
        last = None
        for name in self._listed(prefix, "", name_of_entry):
            if name != last:
                last = name
                yield name

    def _listed(self, prefix: str, after: str, look: LookAtEntry[_T]) -> Iterator[_T]:
        """What ``look`` makes of the entries that may be versions, sorted."""
        parent, slash, _ = prefix.rpartition("/")
        parts = name_parts(parent) if slash else ()
        if parts is None or (parts[:1] and parts[0] in RESERVED) or len(parts) > MAX_DEPTH:
            return
        with translated("list", prefix), contextlib.ExitStack() as stack:
            try:
                directory = stack.enter_context(self._directory(parts))
            except OSError as error:
                if error.errno in ABSENT:
                    return
                raise
            yield from walk_versions(directory, parent + slash, prefix, after, len(parts), look)

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
            translated("delete", name),
            self._locked(name),
            self._opened(name, version) as (fd, _),
        ):
            path = version_path(name, version)
            self._read_lock(path).check_deletable(name, self._clock())
            set_immutable(fd, on=False)
            with self._directory(path[:-1]) as parent:
                if file_exists(parent, next_file(path[-1])):
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
            file = version_file(path[-1], number)
            if not file_exists(parent, file):
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
            if error.errno not in ABSENT:
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
        path = version_path(name, f"1-{UNCLAIMED}" if version is None else version)
        with self._directory(path[:-1]) as parent:
            file = path[-1] if version is not None else newest_file(parent, path[-1])
            return os.open(file, READ_FLAGS, dir_fd=parent)

    def _replace_by_gap(self, parent: int, file: str) -> None:
        """Remove a file in one step; a gap in its place keeps its number taken."""
        with self._directory((".tmp",), create=True) as directory:
            gap = secrets.token_hex(16)
            os.symlink("deleted", gap, dir_fd=directory)
            os.rename(gap, file, src_dir_fd=directory, dst_dir_fd=parent)

    # --- locks of versions ---

    def _change_lock(self, name: str, version: str, change: Callable[[Lock], Lock]) -> Lock:
        with (
            translated("lock", name),
            self._locked(name),
            self._opened(name, version) as (fd, _),
        ):
            path = version_path(name, version)
            before = self._read_lock(path)
            lock = change(before)
            if lock != before:
                self._write_lock(path, lock)
                set_immutable(fd, on=lock != UNLOCKED)
            return lock

    def _read_lock(self, path: tuple[str, ...]) -> Lock:
        try:
            with self._directory((".retention", *path[:-1])) as directory:
                fd = os.open(path[-1], READ_FLAGS, dir_fd=directory)
        except FileNotFoundError:
            return UNLOCKED
        try:
            return parse_lock("/".join(path), os.read(fd, MAX_LOCK_FILE + 1))
        finally:
            os.close(fd)

    def _write_lock(self, path: tuple[str, ...], lock: Lock) -> None:
        """Replace the lock of a version, atomically and durably."""
        with (
            self._temporary(format_lock(lock), 0o644, self._clock()) as (_, _, source, temporary),
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
        fd = open_root(self._root)
        try:
            mode = os.fstat(fd).st_mode & _SHARED if create else 0
            for depth, part in enumerate(parts, 1):
                if create:
                    child = open_or_make(fd, part, mode)
                else:
                    child = os.open(part, DIRECTORY_FLAGS, dir_fd=fd)
                try:
                    if create and parts[0] not in VOLATILE:
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

    @contextlib.contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        """Keep every other thread and process from changing versions of ``name``."""
        stripe = f"{zlib.crc32(name.encode(errors='backslashreplace')) % _STRIPES:02x}"
        with self._directory((".lock",), create=True) as directory:
            fd = os.open(stripe, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600, dir_fd=directory)
            share_file(fd, directory, 0o666)
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
            fd = os.open(file, CREATE_FLAGS, 0o600, dir_fd=directory)

            def unlink() -> None:
                with contextlib.suppress(OSError):  # gone, or made immutable: swept later
                    os.unlink(file, dir_fd=directory)

            try:
                share_file(fd, directory, mode)
                write_all(fd, data)
                nanoseconds = (modified - EPOCH) // timedelta(microseconds=1) * 1000
                os.utime(fd, ns=(nanoseconds, nanoseconds))
                os.fsync(fd)
                yield fd, unlink, directory, file
            finally:
                unlink()
                os.close(fd)

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
