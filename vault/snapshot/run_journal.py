"""The journal of an unfinished walk, from which a run after a kill goes on.

Every frame can be read alone, so that a kill or a crash costs only the torn tail. A mark of the
cache (`vault.machine.chunk_cache`), 16 bytes, goes with each: if the cache does not know the mark,
the pack numbers in the frame mean nothing.

Journal: head ‖ frame*, frame = u32 run ‖ u32 length ‖ mark ‖ u32 CRC-32 of all else ‖ zstd(…);
records ascend within a run. Later runs win.
"""

import dataclasses
import os
import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Self

from vault.errors import VaultError
from vault.machine.chunk_cache import MARK
from vault.machine.privacy import make_private
from vault.model import sort_key
from vault.snapshot.list_records import (
    FRAME_LENGTH,
    ListHead,
    ListRecord,
    NumberGiver,
    RecordBatch,
    create_private,
    decode_frame,
    encode_head,
    latest_of,
    local_errors_of,
    named_file,
    read_head,
)

_JOURNAL_FRAME = struct.Struct(f"<II{MARK}sI")  # run, length, mark, CRC-32
_JOURNAL_CHECKED = struct.Struct(f"<II{MARK}s")  # run, length, mark
_READ = 1 << 20  # bytes


@dataclasses.dataclass(frozen=True, slots=True)
class _Place:
    """The place of a frame."""

    run: int
    at: int
    size: int  # bytes, without the frame's own head


class ListJournal:
    """Records of what runs since the last list have stored. Use as a context manager.

    Append records in tree order if possible: each step back begins another run, and `records`
    keeps a frame of every run in memory.
    """

    def __init__(
        self, file: IO[bytes], head: ListHead, places: list[_Place], numbers: NumberGiver
    ) -> None:
        self._file = file
        self._numbers = numbers
        self._places = places
        self._batch = RecordBatch()
        self._run = places[-1].run + 1 if places else 0
        self._last: bytes | None = None
        self.head = head

    @classmethod
    def open(cls, path: Path, head: ListHead, numbers: NumberGiver) -> tuple[Self, str]:
        """The journal, to be read and continued; a new one if there is none that can be used.

        A torn tail is cut off, and so is a tail whose pack numbers the cache does not know.

        Args:
            path: The file of the journal.
            head: The head of a new journal; it also decides whether an old one can be used,
                which then keeps its own head and key.
            numbers: The cache.

        Returns:
            The journal, and why an old one was given up ("" if it was not).

        Raises:
            LocalError: It can't be written.
        """
        with local_errors_of(path):
            make_private(path.parent)
            try:
                file = _reopen(path)
            except FileNotFoundError:
                return cls._begin(path, head, numbers), ""
            try:
                old, _, _ = read_head(file)
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
        file = create_private(path)
        file.write(encode_head(head))
        file.flush()
        return cls(file, head, [], numbers)

    def extend(self, records: Sequence[ListRecord]) -> None:
        """Append records, in tree order, whose chunks are all stored or being stored.

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
        """Hand what was appended to the operating system, so that a kill does not lose it.

        Raises:
            LocalError: It can't be written.
        """
        encoded = self._batch.take()
        if encoded:
            self._write(encoded)

    def _write(self, encoded: bytes) -> None:
        with local_errors_of(Path(self._file.name)):
            head = _journal_head(self._run, encoded, self._numbers.mark())
            self._places.append(
                _Place(self._run, self._file.tell() + _JOURNAL_FRAME.size, len(encoded))
            )
            self._file.write(head + encoded)
            self._file.flush()

    def records(self) -> Iterator[ListRecord]:
        """The records flushed up to this call, ascending; of one path, only the latest."""
        runs: dict[int, list[_Place]] = {}
        for place in self._places:
            runs.setdefault(place.run, []).append(place)
        return latest_of([self._records(runs[run]) for run in sorted(runs, reverse=True)])

    def __bool__(self) -> bool:
        """Whether there is anything in it."""
        return bool(self._places)

    def _records(self, places: list[_Place]) -> Iterator[ListRecord]:
        for place in places:
            with local_errors_of(Path(self._file.name)):
                encoded = os.pread(self._file.fileno(), place.size, place.at)
            yield from decode_frame(encoded)

    def delete(self) -> None:
        """Remove the journal, as a list now holds all its records.

        Raises:
            LocalError: It can't be removed.
        """
        with local_errors_of(Path(self._file.name)):
            Path(self._file.name).unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.flush()
        finally:
            self._file.close()


def merge(last: Iterable[ListRecord], journal: ListJournal) -> Iterator[ListRecord]:
    """Records of both, ascending; if both have a path, the record of the journal."""
    return latest_of([journal.records(), last]) if journal else iter(last)


def _journal_head(run: int, encoded: bytes, mark: bytes) -> bytes:
    checked = _JOURNAL_CHECKED.pack(run, len(encoded), mark)
    return checked + FRAME_LENGTH.pack(zlib.crc32(encoded, zlib.crc32(checked)))


def _scan(file: IO[bytes], numbers: NumberGiver) -> tuple[list[_Place], int]:
    """The whole frames from here on, and their end; the rest is torn, damaged or unknown."""
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


def _reopen(path: Path) -> IO[bytes]:
    return named_file(path, os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC))
