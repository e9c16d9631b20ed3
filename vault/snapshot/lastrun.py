"""The local list of a dataset's entries as last walked, and the journal of a walk going on.

Both let the next run skip what did not change; losing them costs time only. A
list is believed as a whole or not at all; of a journal every frame stands alone,
so that a kill or a crash costs the torn tail.

Records name packs by the cache's numbers. A mark of the cache (`vault.machine.chunkcache`), 16
bytes, goes with them: where the cache does not know it, they say nothing.

List: head (one JSON line) ‖ frame* ‖ grounds ‖ u64 where the grounds begin,
frame = u32 length ‖ zstd(msgpack list of records), records ascending component-wise;
grounds = zstd(msgpack list of the devices that the walk met). The head holds the mark,
and the SHA-256 of all that is behind the head.
Journal: head ‖ frame*, frame = u32 run ‖ u32 length ‖ mark ‖ u32 CRC-32 of all else ‖ zstd(…);
records ascend within a run. Later runs win.
"""

import contextlib
import dataclasses
import hashlib
import heapq
import operator
import os
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Protocol, Self

import msgspec

from vault.crypto.compression import compress, decompress
from vault.encoding import b64decode_strict, b64encode, dumps, loads_strict
from vault.errors import FormatError, LocalError, VaultError
from vault.machine.chunkcache import MARK
from vault.machine.durable import put_in_place
from vault.machine.filesystems import FileSystem
from vault.machine.privacy import make_private
from vault.model import from_rfc3339, sort_key

_FORMAT = 4  # since then it says what the walk met
_FRAME = 1 << 20  # bytes of records, before compression, that fill a frame
_MAX_FRAME = 256 << 20  # bytes; a record names every pack of a huge file
_MAX_HEAD = 2 << 20  # bytes; the sources, which a tree header holds too, are in base64
_LEVEL = 1
_LENGTH = struct.Struct("<I")
_OFFSET = struct.Struct("<Q")
_JOURNAL_FRAME = struct.Struct(f"<II{MARK}sI")  # run, length, mark, CRC-32
_JOURNAL_CHECKED = struct.Struct(f"<II{MARK}s")  # run, length, mark
_NO_MARK = bytes(MARK)
_NO_DIGEST = "0" * 64
_READ = 1 << 20  # bytes


class NumberGiver(Protocol):
    """Who gave the pack numbers: `vault.machine.chunkcache.Cache`."""

    def mark(self) -> bytes:
        """Stands for every number handed out so far; 16 bytes."""

    def knows(self, mark: bytes) -> bool:
        """Whether the numbers handed out up to a mark stand for what they did then."""


class ListRecord(msgspec.Struct, array_like=True, gc=False):
    """One entry with what tells whether it changed since, and the packs it needs.

    Only ``packs`` is ever changed, as it is known after the rest, and ``dev``: a file system
    may come back under another number.
    """

    path: bytes
    size: int  # bytes
    mtime: int  # ns
    ctime: int  # ns
    inode: int
    dev: int
    read_ns: int  # when the file was last read: ns since 1970 by this host's clock; 0: never
    packs: bytes  # cache numbers of its packs, u32 little-endian, each once
    canonical: bytes  # of the tree entry
    extra: bytes  # of the tree entry


class Top(msgspec.Struct, frozen=True, array_like=True):
    """What a walk begins with."""

    device: int = 0
    inode: int = 0
    file_system: FileSystem = FileSystem()


class Ground(msgspec.Struct, frozen=True, array_like=True):
    """A device that a walk met."""

    device: int
    file_system: FileSystem
    newest: int = 0  # ns: newest ctime of an entry on it, of those before the walk began; 0: none
    path: bytes = b""  # of that entry, in the tree


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ListHead:
    """Whose list it is. ``repository``, ``dataset`` and ``generation`` decide if it may be used."""

    repository: str  # id, hex
    dataset: str
    generation: str  # of the cache that gave the pack numbers
    key: bytes = dataclasses.field(repr=False)  # the tree's commitment key, kept from run to run
    sources: tuple[bytes, ...]  # absolute PATHs
    created: str  # RFC 3339, start of the run
    top: Top = dataclasses.field(default_factory=Top)

    def difference(self, other: Self) -> str:
        """Why a list with the ``other`` head is no use for this one; empty if it is."""
        for name in ("repository", "dataset", "generation"):
            if getattr(self, name) != getattr(other, name):
                return f"it is of another {name}"
        return ""

    def other_source(self, other: Self) -> str:
        """Why a journal with the ``other`` head is no use for this one; empty if it is.

        One has no newest ctime, so it is good only where its file system still is.
        """
        if self.sources != other.sources or self.top.inode != other.top.inode:
            return "it is of another PATH"
        here, there = self.top.file_system, other.top.file_system
        same = (here.kind, here.identity, here.volume) == (there.kind, there.identity, there.volume)
        if not same or not (here.volume or self.top.device == other.top.device):
            return "it is of another file system"
        return ""


_encode = msgspec.msgpack.Encoder().encode
_decoder = msgspec.msgpack.Decoder(list[ListRecord])
_grounds_decoder = msgspec.msgpack.Decoder(list[Ground])
_top_decoder = msgspec.msgpack.Decoder(Top)
_CTIME = operator.attrgetter("ctime")


class _Batch:
    """Records that will make a frame."""

    def __init__(self) -> None:
        self._records: list[ListRecord] = []
        self._size = 0

    def add(self, records: Iterable[ListRecord]) -> Iterator[bytes]:
        """The compressed frames that these fill."""
        for record in records:
            self._records.append(record)
            self._size += 64 + len(record.canonical) + len(record.extra) + len(record.packs)
            if self._size >= _FRAME:
                yield self.take()

    def take(self) -> bytes:
        """The compressed frame; empty without records."""
        if not self._records:
            return b""
        encoded = compress(_encode(self._records), _LEVEL)
        self._records.clear()
        self._size = 0
        return encoded


# --- the list ---


class EntryListWriter:
    """Writes a list beside its place and puts it there when it is whole.

    Use as a context manager: `commit` at the end, else nothing is left.
    """

    def __init__(self, path: Path, head: ListHead) -> None:
        """Begin the list.

        Raises:
            LocalError: The file can't be made.
        """
        self._path = path
        self._new = path.with_name(path.name + ".new")
        self._head = head
        self._hash = hashlib.sha256()
        self._batch = _Batch()
        self._last: bytes | None = None
        self._began = int(from_rfc3339(head.created).timestamp()) * 1_000_000_000
        self._newest: dict[int, ListRecord] = {}  # by device
        with _local(self._new):
            make_private(path.parent)
            self._file = _create(self._new)
            self._start = self._file.write(_encode_head(head))

    def extend(self, records: Sequence[ListRecord]) -> None:
        """Add the next records, in tree order.

        Raises:
            LocalError: It can't be written.
        """
        keys = [record.path.replace(b"/", b"\0") for record in records]  # `sort_key`, uncalled
        if self._last is not None:
            keys.insert(0, self._last)
        assert all(map(operator.lt, keys, keys[1:])), "records must come in tree order"
        self._last = keys[-1] if keys else self._last
        for device in {record.dev for record in records}:
            self._note_newest(device, records)
        for encoded in self._batch.add(records):
            self._write(encoded)

    def _note_newest(self, device: int, records: Sequence[ListRecord]) -> None:
        """A ctime that lies ahead is of a wrong clock: it says nothing of when the walk was."""
        newest = max(records, key=_CTIME)
        if newest.dev != device or newest.ctime > self._began:
            fit = [each for each in records if each.dev == device and each.ctime <= self._began]
            if not fit:
                return
            newest = max(fit, key=_CTIME)
        known = self._newest.get(device)
        if known is None or known.ctime < newest.ctime:
            self._newest[device] = newest

    def commit(self, mark: bytes, met: Mapping[int, FileSystem]) -> None:
        """Put the list in its place, durably.

        Args:
            mark: Of the cache whose pack numbers the records use.
            met: What the devices were that the walk met.

        Raises:
            LocalError: It can't be written; the former list stays.
        """
        self._write(self._batch.take())
        grounds = compress(_encode(self._grounds(met)), _LEVEL)
        with _local(self._path):
            grounds += _OFFSET.pack(self._file.tell())
            self._hash.update(grounds)
            self._file.write(grounds)
            self._file.seek(0)
            self._file.write(_encode_head(self._head, self._hash.hexdigest(), mark))
            put_in_place(self._file, self._new, self._path)

    def _grounds(self, met: Mapping[int, FileSystem]) -> list[Ground]:
        return [
            Ground(device, file_system, newest.ctime, newest.path)
            if (newest := self._newest.get(device))
            else Ground(device, file_system)
            for device, file_system in met.items()
        ]

    def records(self) -> Iterator[ListRecord]:
        """What was added so far.

        Raises:
            LocalError: It can't be written or read back.
        """
        self._write(self._batch.take())
        with _local(self._new):
            self._file.flush()
            end = self._file.tell()
        return EntryListReader(self._file, self._head, self._start, end).records()

    def _write(self, encoded: bytes) -> None:
        if encoded:
            framed = _LENGTH.pack(len(encoded)) + encoded
            self._hash.update(framed)
            with _local(self._new):
                self._file.write(framed)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if not self._file.closed:
            with contextlib.suppress(OSError):
                self._file.close()
            self._new.unlink(missing_ok=True)


class EntryListReader:
    """A list whose digest was checked. Use as a context manager."""

    def __init__(self, file: IO[bytes], head: ListHead, start: int, end: int) -> None:
        self._file = file
        self._start = start
        self._end = end  # of the records
        self.head = head

    @classmethod
    def open(cls, path: Path, expected: ListHead, numbers: NumberGiver) -> tuple[Self | None, str]:
        """The list, or None and why it is of no use ("" where there is none yet)."""
        try:
            file = path.open("rb")
        except FileNotFoundError:
            return None, ""
        except OSError as error:
            return None, f"entry list can't be read: {error.strerror}"
        try:
            head, digest, mark = _read_head(file)
            problem = expected.difference(head)
            if not problem and not numbers.knows(mark):
                problem = "its pack numbers are of another time"
            start = file.tell()
            if not problem and hashlib.file_digest(file, "sha256").hexdigest() != digest:
                problem = "it is damaged"
            end = 0 if problem else _end_of_records(file)
        except (VaultError, OSError) as error:
            problem = str(error)
        if problem:
            file.close()
            return None, f"entry list is ignored: {problem}"
        return cls(file, head, start, end), ""

    def grounds(self) -> list[Ground]:
        """The devices that the walk met.

        Raises:
            FormatError: Its digest was right, yet they can't be parsed.
            LocalError: It can't be read.
        """
        size = os.fstat(self._file.fileno()).st_size - _OFFSET.size - self._end
        encoded = self._read(self._end, size)
        try:
            return _grounds_decoder.decode(decompress(encoded, max_raw=_MAX_FRAME))
        except (msgspec.MsgspecError, ValueError) as error:
            raise FormatError("entry list has malformed grounds", found=str(error)[:120]) from error

    def records(self) -> Iterator[ListRecord]:
        """All records, ascending component-wise; about 1 MiB of them in memory.

        Raises:
            FormatError: Its digest was right, yet it can't be parsed.
            LocalError: It can't be read.
        """
        at = self._start
        while at < self._end:
            (size,) = _LENGTH.unpack(self._read(at, _LENGTH.size))
            at += _LENGTH.size
            yield from _decode_frame(self._read(at, size))
            at += size

    def _read(self, at: int, size: int) -> bytes:
        with _local(Path(self._file.name)):
            return os.pread(self._file.fileno(), size, at)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


# --- the journal ---


@dataclasses.dataclass(frozen=True, slots=True)
class _Place:
    """Where a frame lies."""

    run: int
    at: int
    size: int  # bytes, without the frame's own head


class ListJournal:
    """What runs since the last list have stored. Use as a context manager.

    Records are best appended in tree order: each step back begins another run,
    and every run keeps a frame in memory in `records`.
    """

    def __init__(
        self, file: IO[bytes], head: ListHead, places: list[_Place], numbers: NumberGiver
    ) -> None:
        self._file = file
        self._numbers = numbers
        self._places = places
        self._batch = _Batch()
        self._run = places[-1].run + 1 if places else 0
        self._last: bytes | None = None
        self.head = head

    @classmethod
    def open(cls, path: Path, head: ListHead, numbers: NumberGiver) -> tuple[Self, str]:
        """The journal, to read and go on with; a new one where there is none of any use.

        A torn tail is cut off, and so is one with pack numbers of another time.

        Args:
            path: Its file.
            head: For a new journal, and to tell whether an old one may be used;
                then the old one's head, with its key, stays.
            numbers: The cache.

        Returns:
            The journal, and why an old one was given up ("" if it was not).

        Raises:
            LocalError: It can't be written.
        """
        with _local(path):
            make_private(path.parent)
            try:
                file = _reopen(path)
            except FileNotFoundError:
                return cls._begin(path, head, numbers), ""
            try:
                old, _, _ = _read_head(file)
                problem = head.difference(old) or head.other_source(old)
            except VaultError as error:
                problem = str(error)
            if problem:
                file.close()
                return cls._begin(path, head, numbers), f"journal is ignored: {problem}"
            places, end = _scan(file, numbers)
            file.truncate(end)
            file.seek(end)
            return cls(file, old, places, numbers), ""

    @classmethod
    def _begin(cls, path: Path, head: ListHead, numbers: NumberGiver) -> Self:
        file = _create(path)
        file.write(_encode_head(head))
        file.flush()
        return cls(file, head, [], numbers)

    def extend(self, records: Sequence[ListRecord]) -> None:
        """Note entries, in tree order, whose chunks are all stored or on their way.

        Raises:
            LocalError: It can't be written.
        """
        if not records:
            return
        if self._last is not None and sort_key(records[0].path) <= self._last:
            self.flush()
            self._run += 1
        self._last = sort_key(records[-1].path)
        for encoded in self._batch.add(records):
            self._write(encoded)

    def flush(self) -> None:
        """Hand what was appended to the operating system: a kill loses nothing of it.

        Raises:
            LocalError: It can't be written.
        """
        encoded = self._batch.take()
        if encoded:
            self._write(encoded)

    def _write(self, encoded: bytes) -> None:
        with _local(Path(self._file.name)):
            head = _journal_head(self._run, encoded, self._numbers.mark())
            self._places.append(
                _Place(self._run, self._file.tell() + _JOURNAL_FRAME.size, len(encoded))
            )
            self._file.write(head + encoded)
            self._file.flush()

    def records(self) -> Iterator[ListRecord]:
        """What was flushed up to this call, ascending, each path once: the latest wins."""
        runs: dict[int, list[_Place]] = {}
        for place in self._places:
            runs.setdefault(place.run, []).append(place)
        return _latest([self._records(runs[run]) for run in sorted(runs, reverse=True)])

    def __bool__(self) -> bool:
        """Whether there is anything in it."""
        return bool(self._places)

    def _records(self, places: list[_Place]) -> Iterator[ListRecord]:
        for place in places:
            with _local(Path(self._file.name)):
                encoded = os.pread(self._file.fileno(), place.size, place.at)
            yield from _decode_frame(encoded)

    def delete(self) -> None:
        """Remove it: a list holds all that it held.

        Raises:
            LocalError: It can't be removed.
        """
        with _local(Path(self._file.name)):
            Path(self._file.name).unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.flush()
        finally:
            self._file.close()


def merge(last: Iterable[ListRecord], journal: ListJournal) -> Iterator[ListRecord]:
    """Records of both, ascending; where both have a path, the journal's."""
    return _latest([journal.records(), last]) if journal else iter(last)


def _latest(streams: list[Iterable[ListRecord]]) -> Iterator[ListRecord]:
    """Merge ascending streams; of equal paths the one of the first stream."""
    previous: bytes | None = None
    # heapq.merge keeps the streams' order among equal keys
    for record in heapq.merge(*streams, key=lambda record: sort_key(record.path)):
        if record.path != previous:
            previous = record.path
            yield record


class Joiner:
    """Meets a sorted walk with sorted records: both are gone through once."""

    def __init__(self, records: Iterable[ListRecord]) -> None:
        self._records = iter(records)
        self._next = next(self._records, None)

    def match(self, path: bytes) -> ListRecord | None:
        """The record of ``path``; None if there is none. Paths must ascend from call to call."""
        record = self._next
        if record is not None and record.path != path:
            wanted = sort_key(path)
            while record is not None and sort_key(record.path) < wanted:
                record = next(self._records, None)
            self._next = record
        if record is None or record.path != path:
            return None
        self._next = next(self._records, None)
        return record


# --- bytes ---


def _encode_head(head: ListHead, digest: str = _NO_DIGEST, mark: bytes = _NO_MARK) -> bytes:
    """One line; its length does not depend on digest and mark."""
    fields = {
        "created": head.created,
        "dataset": head.dataset,
        "format": _FORMAT,
        "generation": head.generation,
        "key": b64encode(head.key),
        "mark": mark.hex(),
        "repository": head.repository,
        "sha256": digest,
        "sources": [b64encode(source) for source in head.sources],
        "top": b64encode(_encode(head.top)),
    }
    return dumps(fields) + b"\n"


def _read_head(file: IO[bytes]) -> tuple[ListHead, str, bytes]:
    """Head, digest and mark; the file stands behind the head.

    Raises:
        FormatError: No such head.
    """
    line = file.readline(_MAX_HEAD)
    if not line.endswith(b"\n"):
        raise FormatError("it has no head")
    fields: Any = loads_strict(line[:-1])
    try:
        if fields["format"] != _FORMAT:
            raise FormatError("it has another format", expected=_FORMAT, found=fields["format"])
        head = ListHead(
            repository=str(fields["repository"]),
            dataset=str(fields["dataset"]),
            generation=str(fields["generation"]),
            key=b64decode_strict(fields["key"]),
            sources=tuple(b64decode_strict(source) for source in fields["sources"]),
            created=str(fields["created"]),
            top=_top_decoder.decode(b64decode_strict(fields["top"])),
        )
        digest = str(fields["sha256"])
        mark = bytes.fromhex(fields["mark"])
    except (
        KeyError,
        TypeError,
        ValueError,
        AttributeError,
        msgspec.MsgspecError,
    ) as error:
        raise FormatError("its head is malformed", found=str(error)) from error
    if len(head.key) != 32:
        raise FormatError("its head's key must be 32 bytes", found=len(head.key))
    return head, digest, mark


def _end_of_records(file: IO[bytes]) -> int:
    """Where the grounds of a list with the right digest begin."""
    file.seek(-_OFFSET.size, os.SEEK_END)
    return int(_OFFSET.unpack(file.read(_OFFSET.size))[0])


def _decode_frame(encoded: bytes) -> list[ListRecord]:
    try:
        return _decoder.decode(decompress(encoded, max_raw=_MAX_FRAME))
    except (msgspec.MsgspecError, ValueError) as error:
        raise FormatError("entry list has a malformed frame", found=str(error)[:120]) from error


def _journal_head(run: int, encoded: bytes, mark: bytes) -> bytes:
    checked = _JOURNAL_CHECKED.pack(run, len(encoded), mark)
    return checked + _LENGTH.pack(zlib.crc32(encoded, zlib.crc32(checked)))


def _scan(file: IO[bytes], numbers: NumberGiver) -> tuple[list[_Place], int]:
    """Whole frames from here on, and where they end: the rest is torn, damaged or unknown."""
    places: list[_Place] = []
    at = file.tell()
    end = os.fstat(file.fileno()).st_size
    while len(head := os.pread(file.fileno(), _JOURNAL_FRAME.size, at)) == _JOURNAL_FRAME.size:
        run, size, mark, crc = _JOURNAL_FRAME.unpack(head)
        start = at + _JOURNAL_FRAME.size
        descending = bool(places) and run < places[-1].run
        if descending or size > end - start:
            break
        if crc != _crc(file, head[: _JOURNAL_CHECKED.size], start, size) or not numbers.knows(mark):
            break
        places.append(_Place(run, start, size))
        at = start + size
    return places, at


def _crc(file: IO[bytes], checked: bytes, start: int, size: int) -> int:
    crc = zlib.crc32(checked)
    for at in range(start, start + size, _READ):
        crc = zlib.crc32(os.pread(file.fileno(), min(_READ, start + size - at), at), crc)
    return crc


# --- files ---


@contextlib.contextmanager
def _local(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise LocalError(f"{path} can't be used", found=error.strerror) from error


def _create(path: Path) -> IO[bytes]:
    """A new file for its owner's eyes only: it holds names and a key."""
    path.unlink(missing_ok=True)
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    return _named(path, os.open(path, flags, 0o600))


def _reopen(path: Path) -> IO[bytes]:
    return _named(path, os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC))


def _named(path: Path, descriptor: int) -> IO[bytes]:
    """A file object whose name is the path, not the number."""
    return open(path, "r+b", opener=lambda _path, _flags: descriptor)
