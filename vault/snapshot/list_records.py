"""Records of the entries that a run walked, for its list and its journal.

A record names packs by the cache's numbers. A head says which dataset and source the records
are of; frames of records are compressed.
"""

import contextlib
import dataclasses
import heapq
import os
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any, Protocol, Self

import msgspec

from vault.crypto.compression import compress, decompress
from vault.encoding import b64decode_strict, b64encode, dumps, loads_strict
from vault.errors import FormatError, LocalError
from vault.machine.chunk_cache import MARK
from vault.machine.filesystems import FileSystem
from vault.model import sort_key

_FORMAT = 4  # 4: with the devices that the walk met
_FRAME = 1 << 20  # bytes of records, before compression, that fill a frame
MAX_FRAME = 256 << 20  # bytes; a record names every pack of a huge file
_MAX_HEAD = 2 << 20  # bytes; the sources are in base64
FRAME_LEVEL = 1
FRAME_LENGTH = struct.Struct("<I")
_NO_MARK = bytes(MARK)
_NO_DIGEST = "0" * 64


class NumberGiver(Protocol):
    """Issues pack numbers: `vault.machine.chunk_cache.Cache`."""

    def mark(self) -> bytes:
        """A mark for all numbers issued so far; 16 bytes."""

    def knows(self, mark: bytes) -> bool:
        """Whether the numbers issued up to a mark still mean the same packs."""


class ListRecord(msgspec.Struct, array_like=True, gc=False):
    """One entry, with the packs it needs and what shows whether it has changed since.

    Only two fields are changed later: ``packs``, which is known after the rest, and ``dev``, as
    a file system may come back under another number.
    """

    path: bytes
    size: int  # bytes
    mtime: int  # ns
    ctime: int  # ns
    inode: int
    dev: int
    read_ns: int  # when the file was last read: ns since 1970 by this host's clock; 0: never
    packs: bytes  # cache numbers of its packs, u32 little-endian, each once
    canonical: bytes  # part of the tree entry
    extra: bytes  # part of the tree entry


class Top(msgspec.Struct, frozen=True, array_like=True):
    """The directory at which a walk begins."""

    device: int = 0
    inode: int = 0
    file_system: FileSystem = FileSystem()


class Ground(msgspec.Struct, frozen=True, array_like=True):
    """A device that a walk met."""

    device: int
    file_system: FileSystem
    newest: int = 0  # ns: newest ctime on it before the walk began; 0: none
    path: bytes = b""  # the path of that entry in the tree


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ListHead:
    """What a list is of; ``repository``, ``dataset``, ``generation`` decide if it can be used."""

    repository: str  # id, hex
    dataset: str
    generation: str  # that of the cache that issued the pack numbers
    key: bytes = dataclasses.field(repr=False)  # the tree's commitment key, kept from run to run
    sources: tuple[bytes, ...]  # absolute PATHs
    created: str  # RFC 3339, start of the run
    top: Top = dataclasses.field(default_factory=Top)

    def difference(self, other: Self) -> str:
        """Why a list with the ``other`` head can't be used for this one; empty if it can."""
        for name in ("repository", "dataset", "generation"):
            if getattr(self, name) != getattr(other, name):
                return f"it is of another {name}"
        return ""

    def other_source(self, other: Self) -> str:
        """Why a journal with the ``other`` head can't be used for this one; empty if it can.

        A journal has no newest ctime, so it can be used only on the same file system.
        """
        if self.sources != other.sources or self.top.inode != other.top.inode:
            return "it is of another PATH"
        here, there = self.top.file_system, other.top.file_system
        same = (here.kind, here.identity, here.volume) == (there.kind, there.identity, there.volume)
        if not same or not (here.volume or self.top.device == other.top.device):
            return "it is of another file system"
        return ""


encode_packed = msgspec.msgpack.Encoder().encode
_decoder = msgspec.msgpack.Decoder(list[ListRecord])
_top_decoder = msgspec.msgpack.Decoder(Top)


class RecordBatch:
    """Collects records for frames."""

    def __init__(self) -> None:
        self._records: list[ListRecord] = []
        self._size = 0

    def add(self, records: Iterable[ListRecord]) -> Iterator[bytes]:
        """Add records; yields the compressed frames that they fill."""
        for record in records:
            self._records.append(record)
            self._size += 64 + len(record.canonical) + len(record.extra) + len(record.packs)
            if self._size >= _FRAME:
                yield self.take()

    def take(self) -> bytes:
        """The compressed frame of the remaining records; empty if there are none."""
        if not self._records:
            return b""
        encoded = compress(encode_packed(self._records), FRAME_LEVEL)
        self._records.clear()
        self._size = 0
        return encoded


def latest_of(streams: list[Iterable[ListRecord]]) -> Iterator[ListRecord]:
    """Merge ascending streams; of records with one path, that of the first stream."""
    previous: bytes | None = None
    # heapq.merge keeps the streams' order among equal keys
    for record in heapq.merge(*streams, key=lambda record: sort_key(record.path)):
        if record.path != previous:
            previous = record.path
            yield record


def encode_head(head: ListHead, digest: str = _NO_DIGEST, mark: bytes = _NO_MARK) -> bytes:
    """The head, one line; its length does not depend on digest and mark."""
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
        "top": b64encode(encode_packed(head.top)),
    }
    return dumps(fields) + b"\n"


def read_head(file: IO[bytes]) -> tuple[ListHead, str, bytes]:
    """Head, digest and mark; the file is then positioned after the head.

    Raises:
        FormatError: The head is missing or malformed.
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


def decode_frame(encoded: bytes) -> list[ListRecord]:
    """The records of a compressed frame.

    Raises:
        FormatError: They can't be parsed.
    """
    try:
        return _decoder.decode(decompress(encoded, max_raw=MAX_FRAME))
    except (msgspec.MsgspecError, ValueError) as error:
        raise FormatError("entry list has a malformed frame", found=str(error)[:120]) from error


@contextlib.contextmanager
def local_errors_of(path: Path) -> Iterator[None]:
    """Turn an OSError into a `LocalError` that names the file."""
    try:
        yield
    except OSError as error:
        raise LocalError(f"{path} can't be used", found=error.strerror) from error


def create_private(path: Path) -> IO[bytes]:
    """A new file that only its owner can read, as it holds names and a key."""
    path.unlink(missing_ok=True)
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    return named_file(path, os.open(path, flags, 0o600))


def named_file(path: Path, descriptor: int) -> IO[bytes]:
    """A file object whose name is the path, not the number."""
    return open(path, "r+b", opener=lambda _path, _flags: descriptor)
