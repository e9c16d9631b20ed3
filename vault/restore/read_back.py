"""A staged tree as the disk has it, read back from there (docs/design.md "Restore").

Each file is evicted from the page cache, and mincore or cachestat says whether its pages are
gone. The tree is walked in its order, and each canonical entry rebuilt from what is on the disk.
"""

import contextlib
import errno
import hashlib
import itertools
import mmap
import os
import resource
import stat
import threading
from collections import Counter, deque
from collections.abc import Container, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, wait
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final, NamedTuple, TypeAlias

from vault.format.entry import ENTRY_TYPES, Entry
from vault.format.entry_encoding import canonical_of
from vault.format.tree_hash import TreeHash
from vault.machine import metadata
from vault.machine.mounts import in_memory
from vault.machine.page_cache import DIRECT_PIECE, evict, set_direct
from vault.machine.processes import Helper, start
from vault.model import EntryType
from vault.progress import Progress
from vault.restore.changed_since_proof import Stillness
from vault.restore.syscalls import Fs, OpenDirectories, join

_SMALL: Final = 1 << 20  # bytes; larger files are read and hashed by threads
_AHEAD_FILES: Final = 128  # asked of the disk and not yet read, each open
_SHARE: Final = 8  # one part in eight of the process's descriptors is for files read here
_AHEAD_BYTES: Final = 64 << 20
_BATCH_FILES: Final = 64  # handed to a helping process at once, which opens them all
_BATCHES_AHEAD: Final = 8  # handed out and not yet compared
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_EMPTY: Final = hashlib.sha256(b"").digest()

_DEVICE_TYPES: Final = frozenset({EntryType.CHARACTER_DEVICE, EntryType.BLOCK_DEVICE})


def _most_open(wanted: int) -> int:
    """How many files to keep open at once: as wanted, or fewer if the process's limit is low."""
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if descriptors == resource.RLIM_INFINITY:
        return wanted
    return max(1, min(wanted, descriptors // _SHARE))


class Evidence(IntEnum):
    """How sure it is that bytes came from the disk. A report gives the weakest of its files."""

    CACHED = 0  # the page cache or a file system in memory may have answered
    EVICTED = 1  # none of the file's pages was in the page cache when the reading began
    DIRECT = 2  # read past the page cache

    @property
    def word(self) -> str:
        """The word for it in an attestation."""
        return self.name.lower()


class Hashed(NamedTuple):
    """Length and digest of content that was read."""

    size: int
    read: int  # bytes read from the disk; holes of a vast file are skipped
    sha256: bytes | None = None
    tree_hash: bytes | None = None  # of a vast file, in place of a SHA-256


class DiskObject(NamedTuple):
    """One object on the disk, before its content was read."""

    path: bytes
    type: EntryType
    meta: metadata.Meta
    change: int  # st_ctime_ns when it was looked at
    link: bytes | None = None
    device: int | None = None
    fd: int = -1  # open descriptor of a file; reading the content closes it
    size: int = 0
    evidence: Evidence | None = None  # None: there is nothing to read
    content: Hashed | None = None  # of a small file that was read already


OnDisk: TypeAlias = tuple[DiskObject, Hashed | None, bytes]  # the last: the canonical entry

_Small: TypeAlias = list[DiskObject | None]  # None: not small, or a hard link
_Helper: TypeAlias = Helper[Sequence[bytes], _Small]


@dataclass(frozen=True, slots=True)
class _Batch:
    """Some members of the tree in order; a helper reads the small files among them."""

    members: list[DiskObject | bytes]
    helper: _Helper | None  # the process that reads them; None: read already
    small: _Small = field(default_factory=list)

    @property
    def is_done(self) -> bool:
        """Whether its files are read, so that gathering it returns at once."""
        return self.helper is None or self.helper.ready


class Disk:
    """The staged tree as the disk has it, in the order of the tree.

    Args:
        root: Descriptor of its top; stays the caller's.
        fs: System calls.
        executor: Reads and hashes large files.
        progress: Called with files and bytes read.
        still: Receives each entry's ctime.
        vast: Paths of files that have a tree hash in place of a SHA-256.
    """

    def __init__(
        self,
        root: int,
        fs: Fs,
        executor: Executor,
        progress: Progress,
        *,
        still: Stillness | None = None,
        vast: Container[bytes] = (),
    ) -> None:
        self._directories = OpenDirectories(root, fs)
        self._executor = executor
        self._progress = progress
        self._still = still
        self._vast = vast
        self._reader = _ContentReader(memory=os.fstat(root).st_dev in in_memory())
        self._linked: dict[int, list[int]] = {}  # inode -> links it has, links seen
        self._first: dict[int, bytes] = {}  # inode -> its first path
        self.evidence: Counter[Evidence] = Counter()
        self.files = 0
        self.size = 0

    def entries(self, processes: int = 0) -> "Generator[OnDisk]":
        """Every object, ascending component-wise, with its content's digest and canonical bytes.

        Args:
            processes: Number of helping processes that read small files beside this one.

        Raises:
            OSError: Something can't be read.
            LocalError: A process was killed.
        """
        with contextlib.ExitStack() as stack:
            stack.callback(self._directories.close)
            helpers = start(stack, processes, self._helper)
            looked = self._shared(helpers) if helpers else self._looked(self._walk())
            with contextlib.closing(self._read(looked)) as entries:
                yield from entries

    def _read(self, looked: Iterator[DiskObject]) -> "Generator[OnDisk]":
        """Read the content of files not read yet; reads are requested ahead of their turn."""
        ahead: deque[tuple[DiskObject, Future[Hashed] | None]] = deque()
        size = 0  # bytes of what is ahead
        try:
            most = _most_open(_AHEAD_FILES)
            for found in looked:
                ahead.append((found, self._begin(found)))
                size += found.size
                while len(ahead) > most or size > _AHEAD_BYTES:
                    size -= ahead[0][0].size
                    yield self._resolve(*ahead.popleft())
            while ahead:
                yield self._resolve(*ahead.popleft())
        finally:
            self._reader.stop()
            for found, future in ahead:
                if future is not None and not future.cancel():
                    wait([future])  # the reading thread closes the file
                elif found.fd >= 0:
                    os.close(found.fd)

    def foreign_links(self) -> Iterator[tuple[bytes, int, int]]:
        """Files with hard links outside the tree, through which they could be changed unseen."""
        for inode, (links, seen) in self._linked.items():
            if links != seen:
                yield self._first[inode], links, seen

    def _begin(self, found: DiskObject) -> "Future[Hashed] | None":
        """Have a thread read a large file; a small one is read when its turn comes."""
        if found.size <= _SMALL:
            return None
        return self._executor.submit(
            self._reader.read,
            found.fd,
            found.size,
            found.evidence,
            is_vast=found.path in self._vast,
        )

    def _resolve(self, found: DiskObject, future: "Future[Hashed] | None") -> "OnDisk":
        if self._still is not None:
            self._still.saw(found.change)
        if found.fd < 0 and found.content is None:
            return found, None, _canonical(found, None)
        if found.content is not None:
            content = found.content
        elif future is not None:
            content = future.result()
        else:
            is_vast = found.path in self._vast
            content = self._reader.read(found.fd, found.size, found.evidence, is_vast=is_vast)
        self.files += 1
        self.size += content.read
        if found.evidence is not None:
            self.evidence[found.evidence] += 1
        self._progress.advance(files=1, size=content.size)
        return found, content, _canonical(found, content)

    def _looked(self, members: Iterable[DiskObject | bytes]) -> Iterator[DiskObject]:
        """Open and stat members that so far are only names from a directory."""
        for member in members:
            yield member if isinstance(member, DiskObject) else self._file(member)

    def _walk(self) -> Iterator[DiskObject | bytes]:
        """Depth first with an explicit stack; names of a directory sorted bytewise.

        For a member that the directory lists as a regular file, yields only its path.
        """
        yield self._directory(b"")
        stack = [(b"", iter(self._names(b"")))]
        while stack:
            path, names = stack[-1]
            member = next(names, None)
            if member is None:
                stack.pop()
                self._directories.forget(path)
                continue
            name, is_file = member
            if is_file:  # its type is checked again once it is open
                yield join(path, name)
                continue
            found = self._look(join(path, name))
            yield found
            if found.type is EntryType.DIRECTORY:
                stack.append((found.path, iter(self._names(found.path))))

    # --- shared with other processes ---

    def _helper(self) -> _Helper:
        return Helper(lambda paths, _: self._read_small(paths), lambda: None, room=1)

    def _shared(self, helpers: Sequence[_Helper]) -> Iterator[DiskObject]:
        """As `_looked`, with small files read in batches, by an idle helper or else here."""
        waiting: deque[_Batch] = deque()
        members = self._walk()
        most = _most_open(_BATCH_FILES)
        while batch := list(itertools.islice(members, most)):
            waiting.append(self._hand_out(batch, helpers))
            while waiting and (waiting[0].is_done or len(waiting) > _BATCHES_AHEAD):
                yield from self._gather(waiting.popleft())
        while waiting:
            yield from self._gather(waiting.popleft())

    def _hand_out(self, members: list[DiskObject | bytes], helpers: Sequence[_Helper]) -> _Batch:
        paths = [member for member in members if isinstance(member, bytes)]
        for helper in helpers:
            if helper.offer(paths):
                return _Batch(members, helper)
        return _Batch(members, None, self._read_small(paths))

    def _gather(self, batch: _Batch) -> Iterator[DiskObject]:
        """A batch in its order; files that are not small are looked at here."""
        small = iter(batch.small if batch.helper is None else batch.helper.take())
        for member in batch.members:
            if isinstance(member, DiskObject):
                yield member
            else:
                yield next(small) or self._file(member)

    def _read_small(self, paths: Sequence[bytes]) -> _Small:
        """Look at files and read them, all but large ones and those with several links."""
        opened: deque[DiskObject | None] = deque()
        read: _Small = []
        try:
            opened.extend(map(self._open_small, paths))
            while opened:
                found = opened.popleft()
                if found is not None:
                    content = self._reader.read(found.fd, found.size, found.evidence)
                    found = found._replace(fd=-1, content=content)
                read.append(found)
        finally:
            for found in filter(None, opened):
                os.close(found.fd)
        return read

    def _open_small(self, path: bytes) -> DiskObject | None:
        fd, status = self._open(path)
        if status.st_nlink == 1 and status.st_size <= _SMALL and path not in self._vast:
            return self._ask(path, fd, status)
        os.close(fd)
        return None

    def _names(self, path: bytes) -> list[tuple[bytes, bool]]:
        """Names in a directory, sorted bytewise, and whether each was a regular file."""
        with os.scandir(self._directories.open(path)) as members:
            return sorted(
                [(os.fsencode(each.name), each.is_file(follow_symlinks=False)) for each in members]
            )

    def _look(self, path: bytes) -> DiskObject:
        around, name = self._directories.parent(path)
        status = os.stat(name, dir_fd=around, follow_symlinks=False)
        if stat.S_ISDIR(status.st_mode):
            return self._directory(path)
        if stat.S_ISREG(status.st_mode):
            return self._file(path)
        with metadata.place_at(around, name) as (place, held):
            kind = ENTRY_TYPES.get(stat.S_IFMT(held.st_mode))
            if kind in {None, EntryType.DIRECTORY, EntryType.FILE}:
                raise OSError(errno.ESTALE, f"{os.fsdecode(path)!r} is nothing that was staged")
            return DiskObject(
                path=path,
                type=kind,
                meta=metadata.read_meta(place, held),
                change=held.st_ctime_ns,
                link=os.readlink(name, dir_fd=around) if kind is EntryType.SYMLINK else None,
                device=held.st_rdev if kind in _DEVICE_TYPES else None,
            )

    def _directory(self, path: bytes) -> DiskObject:
        fd = self._directories.open(path)
        status = os.fstat(fd)
        meta = metadata.read_meta(fd, status)
        return DiskObject(path, EntryType.DIRECTORY, meta, status.st_ctime_ns)

    def _file(self, path: bytes) -> DiskObject:
        """A file, open for reading, or a hard link."""
        fd, status = self._open(path)
        first = self._first_path(path, status) if status.st_nlink > 1 else path
        if first == path:
            return self._ask(path, fd, status)
        try:
            meta = metadata.read_meta(fd, status)
            return DiskObject(path, EntryType.HARD_LINK, meta, status.st_ctime_ns, link=first)
        finally:
            os.close(fd)

    def _open(self, path: bytes) -> tuple[int, os.stat_result]:
        around, name = self._directories.parent(path)
        fd = os.open(name, _READ, dir_fd=around)
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            os.close(fd)
            raise OSError(errno.ESTALE, f"{os.fsdecode(path)!r} changes while it is read")
        return fd, status

    def _ask(self, path: bytes, fd: int, status: os.stat_result) -> DiskObject:
        """The file, with readahead requested; ``fd`` stays open unless an error is raised."""
        size = status.st_size
        try:
            meta = metadata.read_meta(fd, status)
            evidence = self._reader.ask(fd, size) if size else None
        except BaseException:
            os.close(fd)
            raise
        change = status.st_ctime_ns
        return DiskObject(path, EntryType.FILE, meta, change, fd=fd, size=size, evidence=evidence)

    def _first_path(self, path: bytes, status: os.stat_result) -> bytes:
        """First path of the inode, which is the file; later ones are links (docs/format.md 8)."""
        self._linked.setdefault(status.st_ino, [status.st_nlink, 0])[1] += 1
        return self._first.setdefault(status.st_ino, path)


def _canonical(found: DiskObject, content: Hashed | None) -> bytes:
    """`encode_canonical` of the entry, without building the entry: only a difference needs one."""
    meta = found.meta
    return canonical_of(
        found.path,
        found.type,
        meta.mode,
        meta.uid,
        meta.gid,
        meta.mtime,
        size=content.size if content else 0,
        sha256=content.sha256 if content else None,
        tree_hash=content.tree_hash if content else None,
        link=found.link,
        device=found.device,
        xattrs=meta.xattrs,
    )


def entry_of(found: DiskObject, content: Hashed | None) -> Entry:
    """An object found on the disk, as an entry of a tree."""
    meta = found.meta
    return Entry(
        path=found.path,
        type=found.type,
        mode=meta.mode,
        uid=meta.uid,
        gid=meta.gid,
        mtime=meta.mtime,
        size=content.size if content else 0,
        sha256=content.sha256 if content else None,
        tree_hash=content.tree_hash if content else None,
        link=found.link,
        device=found.device,
        xattrs=meta.xattrs,
    )


# --- reading content from the disk ---


class _ContentReader:
    """Reads files back and hashes them; shared by all threads of a proof."""

    def __init__(self, *, memory: bool) -> None:
        self._memory = memory
        self._is_stopped = False
        self._local = threading.local()

    def ask(self, fd: int, size: int) -> Evidence:
        """Evict the file from the page cache and request readahead, without waiting.

        If another process keeps pages of it cached, `read` will bypass the cache (O_DIRECT).
        """
        if self._memory:
            return Evidence.CACHED
        if evict(fd, size):
            os.posix_fadvise(fd, 0, min(size, _AHEAD_BYTES), os.POSIX_FADV_WILLNEED)
            return Evidence.EVICTED
        return Evidence.DIRECT if set_direct(fd) else Evidence.CACHED

    def stop(self) -> None:
        """Make all reads, running and future, raise OSError."""
        self._is_stopped = True

    def read(
        self, fd: int, size: int, evidence: Evidence | None, *, is_vast: bool = False
    ) -> Hashed:
        """Read a file that was given to `ask`, and close it.

        Args:
            fd: The file.
            size: Its size when it was opened, bytes.
            evidence: The result of `ask`; None: the file is empty.
            is_vast: Make a tree hash, which skips holes.

        Raises:
            OSError: It can't be read, or `stop` was called.
        """
        try:
            if is_vast:
                return self._tree_hash(fd)
            if evidence is None:
                return Hashed(0, 0, _EMPTY)
            if size <= _SMALL and evidence is not Evidence.DIRECT:
                data = os.pread(fd, size + 1, 0)
                if len(data) == size:
                    return Hashed(size, size, hashlib.sha256(data).digest())
            return self._hash(fd)
        finally:
            os.close(fd)

    def _hash(self, fd: int) -> Hashed:
        """Hash up to the first short read: an O_DIRECT read that starts at the end may fail."""
        digest = hashlib.sha256()
        size = 0
        for piece in self._pieces(fd, 0, None):
            digest.update(piece)
            size += len(piece)
        return Hashed(size, size, digest.digest())

    def _tree_hash(self, fd: int) -> Hashed:
        """Hash the data in whole pieces, and skip what the file system reports as holes."""
        digest = TreeHash()
        at = read = 0
        size = os.fstat(fd).st_size
        for data, end in metadata.data_runs(fd, size):
            begin = max(at, data - data % DIRECT_PIECE)
            digest.zeros(begin - at)
            found = 0
            for piece in self._pieces(fd, begin, end):
                digest.update(piece)
                found += len(piece)
            at = begin + found
            read += found
        digest.zeros(size - at)
        return Hashed(size, read, tree_hash=digest.digest())

    def _pieces(self, fd: int, offset: int, end: int | None) -> Iterator[memoryview]:
        """From an offset up to an end or beyond; None: to the end of the file."""
        buffer = self._buffer()
        count = DIRECT_PIECE
        with memoryview(buffer) as view:
            while count == DIRECT_PIECE and (end is None or offset < end):
                if self._is_stopped:
                    raise OSError(errno.ECANCELED, os.strerror(errno.ECANCELED))
                count = os.preadv(fd, [buffer], offset)
                yield view[:count]
                offset += count

    def _buffer(self) -> mmap.mmap:
        """This thread's buffer, aligned to a page as O_DIRECT requires."""
        if not hasattr(self._local, "buffer"):
            self._local.buffer = mmap.mmap(-1, DIRECT_PIECE)
        buffer: mmap.mmap = self._local.buffer
        return buffer
