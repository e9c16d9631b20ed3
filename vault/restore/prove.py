"""The proof: what is on the disk, read back from it, against what was signed (design.md 6).

Flush, evict from the page cache and check that it went, walk the disk in the
tree's order, rebuild every canonical entry from what is found there, and compare
it with the expected one and all of them with the signed content root.
"""

import contextlib
import dataclasses
import errno
import hashlib
import itertools
import mmap
import os
import stat
import threading
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, wait
from enum import IntEnum
from typing import Final, NamedTuple, TypeAlias

from vault import fsmeta
from vault.model import EntryType, sort_key
from vault.pagecache import PIECE, evict, set_direct
from vault.processes import Helper, start
from vault.progress import NO_PROGRESS, Progress
from vault.restore.fs import Directories, Fs, join, local_error
from vault.restore.stage import DEVICES, may_be_omitted
from vault.restore.target import read_mounts
from vault.tree import ContentRoot, Entry, canonical_of, encode_canonical

_SMALL: Final = 1 << 20  # bytes; larger files are read and hashed by threads
_AHEAD_FILES: Final = 128  # asked of the disk and not yet read: bounds the descriptors
_AHEAD_BYTES: Final = 64 << 20
_BATCH_FILES: Final = 64  # handed to a process at once
_BATCHES_AHEAD: Final = 8  # read or being read, and not yet compared
_MAX_MISMATCHES: Final = 100  # named in a report; all are counted
_MEMORY: Final = frozenset({b"tmpfs", b"ramfs"})  # have no disk to read back from
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_EMPTY: Final = hashlib.sha256(b"").digest()

_TYPES: Final = {
    stat.S_IFDIR: EntryType.DIRECTORY,
    stat.S_IFREG: EntryType.FILE,
    stat.S_IFLNK: EntryType.SYMLINK,
    stat.S_IFIFO: EntryType.FIFO,
    stat.S_IFCHR: EntryType.CHARACTER_DEVICE,
    stat.S_IFBLK: EntryType.BLOCK_DEVICE,
}
_DEVICE_TYPES: Final = frozenset({EntryType.CHARACTER_DEVICE, EntryType.BLOCK_DEVICE})


class Evidence(IntEnum):
    """How surely bytes that were read back came from the disk; the weakest is the report's."""

    CACHED = 0  # the page cache or a file system in memory may have answered
    EVICTED = 1  # none of the file's pages was in the page cache when the reading began
    DIRECT = 2  # read past the page cache

    @property
    def word(self) -> str:
        """As an attestation says it."""
        return self.name.lower()


class Verdict(IntEnum):
    """What a proof says."""

    FAILED = 0
    PARTIAL = 1  # right but for what could not be applied, or was not asked for
    PASSED = 2

    @property
    def word(self) -> str:
        """As an attestation says it."""
        return self.name.lower()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Mismatch:
    """One thing that is not as signed."""

    path: bytes
    field: str  # "missing", "unexpected", "type", "content", "mode", "xattr user.x", …
    expected: str = ""
    found: str = ""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ProofReport:
    """What the disk holds, compared with what was signed."""

    verdict: Verdict
    entries: int  # found on disk
    files: int  # read back; without hard links
    size: int  # bytes read back
    disk_root: bytes  # content root of what is on the disk
    expected_root: bytes  # content root of the expected entries
    root_matches: bool  # the signed commitment holds for what had to match it
    evidence: dict[Evidence, int]  # files that were read at each level; without empty ones
    mismatches: tuple[Mismatch, ...]  # the first ones
    mismatch_count: int
    left_out: dict[str, int]  # omissions as they show on the disk
    skipped: int  # expected entries that were not asked for

    @property
    def weakest(self) -> Evidence:
        """The evidence that holds for all that was read."""
        return min(self.evidence, default=Evidence.EVICTED)


class _Hashed(NamedTuple):
    sha256: bytes
    size: int


class _Found(NamedTuple):
    """One object on the disk, before its content was read."""

    path: bytes
    type: EntryType
    meta: fsmeta.Meta
    link: bytes | None = None
    device: int | None = None
    fd: int = -1  # of a file; whoever reads the content closes it
    size: int = 0
    evidence: Evidence | None = None  # None: there is nothing to read
    content: _Hashed | None = None  # of a small file that was read already


def prove(
    staging: int,
    expected: Iterable[tuple[Entry | None, bytes]],
    *,
    check_root: Callable[[bytes], bool],
    left_out: Iterable[str] = (),
    executor: Executor,
    fs: Fs,
    progress: Progress = NO_PROGRESS,
    processes: int = 0,
) -> ProofReport:
    """Read the staged tree back from the disk and compare it with what was signed.

    Args:
        staging: Descriptor of the staging directory.
        expected: Every entry of the snapshot in order, with its canonical bytes
            as they were in the tree. None in place of an entry that was not asked
            for; a changed one where it was restored as something else (a hard
            link without its file as that file's copy).
        check_root: Whether a content root is the one that was signed.
        left_out: Omissions that staging reported: a difference that they explain
            makes the verdict partial instead of failed.
        executor: Reads and hashes large files.
        fs: System calls.
        progress: Is told files and bytes read.
        processes: That may be forked to read small files.

    Raises:
        LocalError: The disk failed, or lost writes; or a process was killed.
    """
    try:
        fs.syncfs(staging)
        disk = _Disk(staging, fs, executor, progress)
        comparison = _Comparison(frozenset(left_out))
        with contextlib.closing(disk.entries(processes)) as entries:
            comparison.run(entries, iter(expected))
        for path, links, seen in disk.foreign_links():
            comparison.mismatch(path, "links", f"{seen}", f"{links}, some outside the tree")
    except OSError as error:
        raise local_error("read back", b"the staged tree", error) from error
    return comparison.report(disk, check_root)


def read_disk_root(staging: int, *, executor: Executor, fs: Fs) -> bytes:
    """Content root of what is on the disk now; `ProofReport.disk_root` if nothing changed.

    Raises:
        LocalError: The disk failed.
    """
    root = ContentRoot()
    try:
        fs.syncfs(staging)
        for _, _, canonical in _Disk(staging, fs, executor, NO_PROGRESS).entries():
            root.update(canonical)
    except OSError as error:
        raise local_error("read back", b"the staged tree", error) from error
    return root.digest()


# --- comparing ---


class _Comparison:
    """Merges two sorted streams of entries and counts what differs."""

    def __init__(self, left_out: frozenset[str]) -> None:
        self._allowed = left_out
        self._disk_root = ContentRoot()
        self._expected_root = ContentRoot()
        self._mismatches: list[Mismatch] = []
        self._mismatch_count = 0
        self._left_out: Counter[str] = Counter()
        self._skipped = 0
        self._entries = 0
        self._exact = True  # every entry, byte by byte

    def run(
        self, disk: "Iterator[_ReadBack]", expected: Iterator[tuple[Entry | None, bytes]]
    ) -> None:
        """Compare both to their ends."""
        wanted = self._next_wanted(expected)
        for found, content, canonical in disk:
            self._entries += 1
            self._disk_root.update(canonical)
            if wanted is None or wanted[1] != canonical:  # else the path is the same, too
                wanted = self._pass_missing(wanted, expected, found.path)
                if wanted is None or wanted[0].path != found.path:
                    self.mismatch(found.path, "unexpected", "nothing", _type_name(found.type))
                    continue
                self._compare(*wanted, _entry(found, content))
            wanted = self._next_wanted(expected)
        while wanted is not None:
            self._missing(wanted[0])
            wanted = self._next_wanted(expected)

    def _pass_missing(
        self,
        wanted: tuple[Entry, bytes] | None,
        expected: Iterator[tuple[Entry | None, bytes]],
        path: bytes,
    ) -> tuple[Entry, bytes] | None:
        """Go past what should come before a path that was found."""
        key = sort_key(path)
        while wanted is not None and sort_key(wanted[0].path) < key:
            self._missing(wanted[0])
            wanted = self._next_wanted(expected)
        return wanted

    def mismatch(self, path: bytes, field: str, expected: str, found: str) -> None:
        """Count a difference that nothing explains."""
        self._mismatch_count += 1
        if len(self._mismatches) < _MAX_MISMATCHES:
            self._mismatches.append(
                Mismatch(path=path, field=field, expected=expected, found=found)
            )

    def report(self, disk: "_Disk", check_root: Callable[[bytes], bool]) -> ProofReport:
        """The verdict: all of it right, right but for omissions, or wrong."""
        expected_root = self._expected_root.digest()
        root_matches = check_root(expected_root)
        verdict = Verdict.FAILED
        if root_matches and not self._mismatch_count:
            verdict = Verdict.PASSED if self._exact else Verdict.PARTIAL
        return ProofReport(
            verdict=verdict,
            entries=self._entries,
            files=disk.files,
            size=disk.size,
            disk_root=self._disk_root.digest(),
            expected_root=expected_root,
            root_matches=root_matches,
            evidence=dict(disk.evidence),
            mismatches=tuple(self._mismatches),
            mismatch_count=self._mismatch_count,
            left_out=dict(sorted(self._left_out.items())),
            skipped=self._skipped,
        )

    def _next_wanted(
        self, expected: Iterator[tuple[Entry | None, bytes]]
    ) -> tuple[Entry, bytes] | None:
        for entry, canonical in expected:
            self._expected_root.update(canonical)
            if entry is not None:
                return entry, canonical
            self._skipped += 1
            self._exact = False
        return None

    def _missing(self, wanted: Entry) -> None:
        if DEVICES in self._allowed and may_be_omitted(wanted.type):
            self._omit({DEVICES})
        else:
            self.mismatch(wanted.path, "missing", _type_name(wanted.type), "nothing")

    def _omit(self, omissions: Iterable[str]) -> None:
        self._left_out.update(omissions)
        self._exact = False

    def _compare(self, wanted: Entry, canonical: bytes, found: Entry) -> None:
        if encode_canonical(found) == canonical:
            return
        found = _without_kernel_labels(found, wanted)
        if encode_canonical(found) == canonical:
            return
        self._exact = False
        if wanted.type is not found.type:
            self.mismatch(found.path, "type", _type_name(wanted.type), _type_name(found.type))
            return
        for field, expected, there in _content_differences(wanted, found):
            self.mismatch(found.path, field, expected, there)
        for difference in fsmeta.differences(wanted, found):
            if difference.omissions <= self._allowed:
                self._omit(difference.omissions)
            else:
                self.mismatch(found.path, difference.field, difference.expected, difference.found)


def _without_kernel_labels(found: Entry, wanted: Entry) -> Entry:
    xattrs = fsmeta.without_kernel_labels(found.xattrs, wanted.xattrs)
    if xattrs == found.xattrs:
        return found
    fields = {name: getattr(found, name) for name in found.__struct_fields__}
    return Entry(**(fields | {"xattrs": xattrs}))


def _content_differences(wanted: Entry, found: Entry) -> Iterator[tuple[str, str, str]]:
    if wanted.size != found.size:
        yield "size", str(wanted.size), str(found.size)
    elif wanted.sha256 != found.sha256:
        yield "content", _hex(wanted.sha256), _hex(found.sha256)
    if wanted.link != found.link:
        yield "link", repr(wanted.link), repr(found.link)
    if wanted.device != found.device:
        yield "device", str(wanted.device), str(found.device)


def _type_name(kind: EntryType) -> str:
    return kind.name.lower().replace("_", " ")


def _hex(digest: bytes | None) -> str:
    return "none" if digest is None else digest.hex()


# --- walking the disk ---

_Small: TypeAlias = list[_Found | None]  # None: not small, or a hard link
_Helper: TypeAlias = Helper[Sequence[bytes], _Small]


@dataclasses.dataclass(frozen=True, slots=True)
class _Batch:
    """Some members of the tree in order, whose small files are or will be read."""

    members: list[_Found | bytes]
    helper: _Helper | None  # that reads them
    small: _Small = dataclasses.field(default_factory=list)

    @property
    def is_done(self) -> bool:
        """Whether nobody would have to wait for it."""
        return self.helper is None or self.helper.ready


class _Disk:
    """The staged tree as the disk has it, in the order of the tree."""

    def __init__(self, root: int, fs: Fs, executor: Executor, progress: Progress) -> None:
        self._directories = Directories(root, fs)
        self._executor = executor
        self._progress = progress
        device = os.fstat(root).st_dev
        memory = any(mount.device == device and mount.kind in _MEMORY for mount in read_mounts())
        self._reader = _ContentReader(memory=memory)
        self._linked: dict[int, list[int]] = {}  # inode -> links it has, links seen
        self._first: dict[int, bytes] = {}  # inode -> its first path
        self.evidence: Counter[Evidence] = Counter()
        self.files = 0
        self.size = 0

    def entries(self, processes: int = 0) -> "Generator[_ReadBack]":
        """Every object, ascending component-wise, with its content's digest and canonical bytes.

        Args:
            processes: That read small files beside this one.

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

    def _read(self, looked: Iterator[_Found]) -> "Generator[_ReadBack]":
        """Read what is not read yet; the disk is asked for it ahead."""
        ahead: deque[tuple[_Found, Future[_Hashed] | None]] = deque()
        size = 0  # bytes of what is ahead
        try:
            for found in looked:
                ahead.append((found, self._begin(found)))
                size += found.size
                while len(ahead) > _AHEAD_FILES or size > _AHEAD_BYTES:
                    size -= ahead[0][0].size
                    yield self._resolve(*ahead.popleft())
            while ahead:
                yield self._resolve(*ahead.popleft())
        finally:
            for found, future in ahead:
                if future is not None and not future.cancel():
                    wait([future])  # it closes what it reads
                elif found.fd >= 0:
                    os.close(found.fd)

    def foreign_links(self) -> Iterator[tuple[bytes, int, int]]:
        """Files with links that are not in the tree: somebody else could write to them."""
        for inode, (links, seen) in self._linked.items():
            if links != seen:
                yield self._first[inode], links, seen

    def _begin(self, found: _Found) -> "Future[_Hashed] | None":
        """Have a large file read by a thread; small ones are only asked of the disk."""
        if found.size <= _SMALL:
            return None
        return self._executor.submit(self._reader.read, found.fd, found.size, found.evidence)

    def _resolve(self, found: _Found, future: "Future[_Hashed] | None") -> "_ReadBack":
        if found.fd < 0 and found.content is None:
            return found, None, _canonical(found, None)
        if found.content is not None:
            content = found.content
        elif future is not None:
            content = future.result()
        else:
            content = self._reader.read(found.fd, found.size, found.evidence)
        self.files += 1
        self.size += content.size
        if found.evidence is not None:
            self.evidence[found.evidence] += 1
        self._progress.advance(files=1, size=content.size)
        return found, content, _canonical(found, content)

    def _looked(self, members: Iterable[_Found | bytes]) -> Iterator[_Found]:
        """Look at what was only seen in a directory."""
        for member in members:
            yield member if isinstance(member, _Found) else self._file(member)

    def _walk(self) -> Iterator[_Found | bytes]:
        """Depth first with an explicit stack; names of a directory sorted bytewise.

        Of what the directory says is a regular file, only the path.
        """
        stack = [(b"", iter(self._names(b"")))]
        yield self._directory(b"")
        while stack:
            path, names = stack[-1]
            member = next(names, None)
            if member is None:
                stack.pop()
                self._directories.forget(path)
                continue
            name, is_file = member
            if is_file:  # what opens is looked at again
                yield join(path, name)
                continue
            found = self._look(join(path, name))
            yield found
            if found.type is EntryType.DIRECTORY:
                stack.append((found.path, iter(self._names(found.path))))

    # --- shared with other processes ---

    def _helper(self) -> _Helper:
        return Helper(lambda paths, _: self._read_small(paths), lambda: None, room=1)

    def _shared(self, helpers: Sequence[_Helper]) -> Iterator[_Found]:
        """As `_looked`, with small files read by whoever has time, in batches."""
        waiting: deque[_Batch] = deque()
        members = self._walk()
        while batch := list(itertools.islice(members, _BATCH_FILES)):
            waiting.append(self._hand_out(batch, helpers))
            while waiting and (waiting[0].is_done or len(waiting) > _BATCHES_AHEAD):
                yield from self._gather(waiting.popleft())
        while waiting:
            yield from self._gather(waiting.popleft())

    def _hand_out(self, members: list[_Found | bytes], helpers: Sequence[_Helper]) -> _Batch:
        paths = [member for member in members if isinstance(member, bytes)]
        for helper in helpers:
            if helper.offer(paths):
                return _Batch(members, helper)
        return _Batch(members, None, self._read_small(paths))

    def _gather(self, batch: _Batch) -> Iterator[_Found]:
        """A batch in its order; files that are not small are looked at here."""
        small = iter(batch.small if batch.helper is None else batch.helper.take())
        for member in batch.members:
            if isinstance(member, _Found):
                yield member
            else:
                yield next(small) or self._file(member)

    def _read_small(self, paths: Sequence[bytes]) -> _Small:
        """Look at files and read them, all but large ones and those with several links."""
        opened: deque[_Found | None] = deque()
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

    def _open_small(self, path: bytes) -> _Found | None:
        fd, status = self._open(path)
        if status.st_nlink == 1 and status.st_size <= _SMALL:
            return self._ask(path, fd, status)
        os.close(fd)
        return None

    def _names(self, path: bytes) -> list[tuple[bytes, bool]]:
        """Names in a directory, sorted bytewise, and whether each was a regular file."""
        with os.scandir(self._directories.open(path)) as members:
            return sorted(
                [(os.fsencode(each.name), each.is_file(follow_symlinks=False)) for each in members]
            )

    def _look(self, path: bytes) -> _Found:
        around, name = self._directories.parent(path)
        status = os.stat(name, dir_fd=around, follow_symlinks=False)
        if stat.S_ISDIR(status.st_mode):
            return self._directory(path)
        if stat.S_ISREG(status.st_mode):
            return self._file(path)
        with fsmeta.place_at(around, name) as (place, held):
            kind = _TYPES.get(stat.S_IFMT(held.st_mode))
            if kind in {None, EntryType.DIRECTORY, EntryType.FILE}:
                raise OSError(errno.ESTALE, f"{os.fsdecode(path)!r} is nothing that was staged")
            return _Found(
                path=path,
                type=kind,
                meta=fsmeta.read_meta(place, held),
                link=os.readlink(name, dir_fd=around) if kind is EntryType.SYMLINK else None,
                device=held.st_rdev if kind in _DEVICE_TYPES else None,
            )

    def _directory(self, path: bytes) -> _Found:
        fd = self._directories.open(path)
        return _Found(path, EntryType.DIRECTORY, fsmeta.read_meta(fd, os.fstat(fd)))

    def _file(self, path: bytes) -> _Found:
        """A file, open for reading, or a hard link."""
        fd, status = self._open(path)
        first = self._first_path(path, status) if status.st_nlink > 1 else path
        if first == path:
            return self._ask(path, fd, status)
        try:
            return _Found(path, EntryType.HARD_LINK, fsmeta.read_meta(fd, status), link=first)
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

    def _ask(self, path: bytes, fd: int, status: os.stat_result) -> _Found:
        """The file, its content asked of the disk; ``fd`` stays open, but for an error."""
        size = status.st_size
        try:
            meta = fsmeta.read_meta(fd, status)
            evidence = self._reader.ask(fd, size) if size else None
        except BaseException:
            os.close(fd)
            raise
        return _Found(path, EntryType.FILE, meta, fd=fd, size=size, evidence=evidence)

    def _first_path(self, path: bytes, status: os.stat_result) -> bytes:
        """docs/format.md 8: the first path in order is the file, later ones are hard links."""
        self._linked.setdefault(status.st_ino, [status.st_nlink, 0])[1] += 1
        return self._first.setdefault(status.st_ino, path)


def _canonical(found: _Found, content: _Hashed | None) -> bytes:
    """`encode_canonical` of `_entry`, which only a difference needs."""
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
        link=found.link,
        device=found.device,
        xattrs=meta.xattrs,
    )


def _entry(found: _Found, content: _Hashed | None) -> Entry:
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
        link=found.link,
        device=found.device,
        xattrs=meta.xattrs,
    )


# --- reading content from the disk ---


class _ContentReader:
    """Reads files back and hashes them; shared by all threads of a proof."""

    def __init__(self, *, memory: bool) -> None:
        self._memory = memory
        self._local = threading.local()

    def ask(self, fd: int, size: int) -> Evidence:
        """Get the file out of the cache and ask the disk for it, without waiting.

        Where something holds it in the cache, it will be read past the cache.
        """
        if self._memory:
            return Evidence.CACHED
        if evict(fd, size):
            os.posix_fadvise(fd, 0, min(size, _AHEAD_BYTES), os.POSIX_FADV_WILLNEED)
            return Evidence.EVICTED
        return Evidence.DIRECT if set_direct(fd) else Evidence.CACHED

    def read(self, fd: int, size: int, evidence: Evidence | None) -> _Hashed:
        """Read a file that was asked for, and close it.

        Raises:
            OSError: It can't be read.
        """
        try:
            if evidence is None:
                return _Hashed(_EMPTY, 0)
            if size <= _SMALL and evidence is not Evidence.DIRECT:
                data = os.pread(fd, size + 1, 0)
                if len(data) == size:
                    return _Hashed(hashlib.sha256(data).digest(), size)
            return _Hashed(*self._hash(fd))
        finally:
            os.close(fd)

    def _hash(self, fd: int) -> tuple[bytes, int]:
        """To the end, which a short read shows: O_DIRECT refuses to begin there."""
        buffer = self._buffer()
        digest, offset, count = hashlib.sha256(), 0, PIECE
        while count == PIECE:
            count = os.preadv(fd, [buffer], offset)
            with memoryview(buffer) as view:
                digest.update(view[:count])
            offset += count
        return digest.digest(), offset

    def _buffer(self) -> mmap.mmap:
        """One of the thread's own, at a page's start as O_DIRECT wants it."""
        if not hasattr(self._local, "buffer"):
            self._local.buffer = mmap.mmap(-1, PIECE)
        buffer: mmap.mmap = self._local.buffer
        return buffer


_ReadBack: TypeAlias = tuple[_Found, _Hashed | None, bytes]  # the last: the canonical entry
