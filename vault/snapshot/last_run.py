"""The local list of a dataset's entries from the last walk, with which the next walk compares.

With it the next run skips what did not change; losing it costs time only. A list is believed as
a whole or not at all. What an unfinished walk has stored is in `run_journal`.

Records name packs by the cache's numbers. A mark of the cache (`vault.machine.chunk_cache`), 16
bytes, goes with them: if the cache does not know the mark, the numbers mean nothing.

List: head (one JSON line) ‖ frame* ‖ grounds ‖ u64 where the grounds begin,
frame = u32 length ‖ zstd(msgpack list of records), records ascending component-wise;
grounds = zstd(msgpack list of the devices that the walk met). The head holds the mark,
and the SHA-256 of all bytes after the head.
"""

import contextlib
import hashlib
import operator
import os
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Self

import msgspec

from vault.clock import from_rfc3339
from vault.crypto.compression import compress, decompress
from vault.errors import FormatError, VaultError
from vault.machine.durable import put_in_place
from vault.machine.filesystems import FileSystem
from vault.machine.privacy import make_private
from vault.model import sort_key
from vault.snapshot.list_records import (
    FRAME_LENGTH,
    FRAME_LEVEL,
    MAX_FRAME,
    Ground,
    ListHead,
    ListRecord,
    NumberGiver,
    RecordBatch,
    create_private,
    decode_frame,
    encode_head,
    encode_packed,
    local_errors_of,
    read_head,
)

_OFFSET = struct.Struct("<Q")
_grounds_decoder = msgspec.msgpack.Decoder(list[Ground])
_CTIME = operator.attrgetter("ctime")


# --- the list ---


class EntryListWriter:
    """Writes a list to a temporary file and puts it in its place once it is complete.

    Use as a context manager. Call `commit` at the end; without it nothing is left.
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
        self._batch = RecordBatch()
        self._last: bytes | None = None
        self._began = int(from_rfc3339(head.created).timestamp()) * 1_000_000_000
        self._newest: dict[int, ListRecord] = {}  # by device
        with local_errors_of(self._new):
            make_private(path.parent)
            self._file = create_private(self._new)
            self._start = self._file.write(encode_head(head))

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
        """Note the newest ctime, except one in the future, which a wrong clock set."""
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
            mark: The mark of the cache whose pack numbers the records use.
            met: The file system of each device that the walk met.

        Raises:
            LocalError: It can't be written; the former list stays.
        """
        self._write(self._batch.take())
        grounds = compress(encode_packed(self._grounds(met)), FRAME_LEVEL)
        with local_errors_of(self._path):
            grounds += _OFFSET.pack(self._file.tell())
            self._hash.update(grounds)
            self._file.write(grounds)
            self._file.seek(0)
            self._file.write(encode_head(self._head, self._hash.hexdigest(), mark))
            put_in_place(self._file, self._new, self._path)

    def _grounds(self, met: Mapping[int, FileSystem]) -> list[Ground]:
        return [
            Ground(device, file_system, newest.ctime, newest.path)
            if (newest := self._newest.get(device))
            else Ground(device, file_system)
            for device, file_system in met.items()
        ]

    def records(self) -> Iterator[ListRecord]:
        """The records added so far.

        Raises:
            LocalError: It can't be written or read back.
        """
        self._write(self._batch.take())
        with local_errors_of(self._new):
            self._file.flush()
            end = self._file.tell()
        return EntryListReader(self._file, self._head, self._start, end).records()

    def _write(self, encoded: bytes) -> None:
        if encoded:
            framed = FRAME_LENGTH.pack(len(encoded)) + encoded
            self._hash.update(framed)
            with local_errors_of(self._new):
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
        """The list; or None and why it can't be used ("" if there is none yet)."""
        try:
            file = path.open("rb")
        except FileNotFoundError:
            return None, ""
        except OSError as error:
            return None, f"entry list can't be read: {error.strerror}"
        try:
            head, digest, mark = read_head(file)
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
            FormatError: They can't be parsed, although the digest is right.
            LocalError: It can't be read.
        """
        size = os.fstat(self._file.fileno()).st_size - _OFFSET.size - self._end
        encoded = self._read(self._end, size)
        try:
            return _grounds_decoder.decode(decompress(encoded, max_raw=MAX_FRAME))
        except (msgspec.MsgspecError, ValueError) as error:
            raise FormatError("entry list has malformed grounds", found=str(error)[:120]) from error

    def records(self) -> Iterator[ListRecord]:
        """All records, ascending component-wise; memory holds about 1 MiB of them.

        Raises:
            FormatError: They can't be parsed, although the digest is right.
            LocalError: It can't be read.
        """
        at = self._start
        while at < self._end:
            (size,) = FRAME_LENGTH.unpack(self._read(at, FRAME_LENGTH.size))
            at += FRAME_LENGTH.size
            yield from decode_frame(self._read(at, size))
            at += size

    def _read(self, at: int, size: int) -> bytes:
        with local_errors_of(Path(self._file.name)):
            return os.pread(self._file.fileno(), size, at)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


class Joiner:
    """Joins a sorted walk with sorted records, reading each of them once."""

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


def _end_of_records(file: IO[bytes]) -> int:
    """The place where the grounds begin, in a list with the right digest."""
    file.seek(-_OFFSET.size, os.SEEK_END)
    return int(_OFFSET.unpack(file.read(_OFFSET.size))[0])
