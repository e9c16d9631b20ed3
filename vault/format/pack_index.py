"""Index objects: where the chunks of up to some thousand packs lie (docs/format.md 5).

An index object is a cache: it can be rebuilt from the packs, and readers believe only what chunk
ids prove.
"""

import dataclasses
import re
import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from vault.crypto.compression import compress, decompress
from vault.crypto.sealed import Header, Opener, Sealer, open_whole, seal_whole
from vault.errors import FormatError, VaultError
from vault.format.pack import MAX_DIRECTORY, MAX_PACK, Directory
from vault.model import ObjectRef, ObjectType, PackId

MAX_INDEX: Final = 64 << 20  # bytes of raw
MAX_STORED_INDEX: Final = MAX_INDEX + (1 << 20)  # incompressible data grows a little
MERGE_COUNT: Final = 16  # index objects of a size class become one
MAX_MERGED: Final = 16 << 20  # bytes stored of one merge, of which memory holds a few copies

_MAX_VERSION = 1024
_VERSION = re.compile(rb"[!-~]{1,1024}")
_COUNT = struct.Struct("<I")
_ENTRY = struct.Struct("<32sQBIH")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class IndexEntry:
    """One pack in an index object."""

    pack_id: PackId
    size: int  # bytes as stored
    type: ObjectType  # DATA or TREE
    version: str  # the store's id of the version that was written
    header_length: int  # bytes; the first block follows
    directory: Directory


def seal_index(index_key: bytes, repository_id: bytes, entries: Sequence[IndexEntry]) -> bytes:
    """An index object of those packs; `partition` keeps them within its limit.

    Raises:
        VaultError: Over the limit.
    """
    return seal_index_with(Sealer.for_index(index_key, repository_id), entries)


def seal_index_with(sealer: Sealer, entries: Sequence[IndexEntry]) -> bytes:
    """As `seal_index`, with the caller's sealer."""
    raw = b"".join([_COUNT.pack(len(entries)), *map(_encode, entries)])
    if len(raw) > MAX_INDEX:
        raise VaultError("index object is over its limit", expected=MAX_INDEX, found=len(raw))
    return seal_whole(sealer, compress(raw))


def open_index(data: bytes, index_key: bytes, repository_id: bytes) -> list[IndexEntry]:
    """The entries of an index object.

    Raises:
        FormatError: Not an index object, or over a limit.
        DigestMismatchError: Altered, or of another domain or repository.
    """
    if len(data) > MAX_STORED_INDEX:
        raise FormatError("index object is too large", expected=MAX_STORED_INDEX, found=len(data))
    header = Header.parse(data)
    if header.type is not ObjectType.INDEX:
        raise FormatError("object is not an index object", found=header.type.name)
    frame = open_whole(data, Opener(header, index_key, repository_id))
    return list(_decode(decompress(frame, max_raw=MAX_INDEX)))


def partition(
    entries: Iterable[IndexEntry], *, packs: int, limit: int
) -> Iterator[list[IndexEntry]]:
    """The entries in their order, in groups for an index object each.

    Args:
        entries: The entries; read only as far as the current group.
        packs: The most entries of one group.
        limit: The most raw bytes of one group; a larger entry is alone in its group.
    """
    group: list[IndexEntry] = []
    size = _COUNT.size
    for entry in entries:
        needed = _encoded_size(entry)
        if group and (size + needed > limit or len(group) >= packs):
            yield group
            group, size = [], _COUNT.size
        group.append(entry)
        size += needed
    if group:
        yield group


def plan_merge(refs: Iterable[ObjectRef]) -> list[tuple[ObjectRef, ...]]:
    """Groups of index objects to merge: sixteen of one size class (powers of 16 bytes) each.

    So each entry is rewritten once for each class, and a repository has few objects of a
    class. A group that would exceed `MAX_MERGED` bytes is left alone.
    """
    classes: dict[int, list[ObjectRef]] = {}
    for ref in sorted(refs):
        classes.setdefault((ref.size.bit_length() - 1) // 4, []).append(ref)
    groups = (
        tuple(members[at : at + MERGE_COUNT])
        for _, members in sorted(classes.items())
        for at in range(0, len(members) - MERGE_COUNT + 1, MERGE_COUNT)
    )
    return [group for group in groups if sum(ref.size for ref in group) <= MAX_MERGED]


def _encoded_size(entry: IndexEntry) -> int:
    return _ENTRY.size + len(entry.version) + _COUNT.size + entry.directory.encoded_size


def _encode(entry: IndexEntry) -> bytes:
    version = entry.version.encode("ascii")
    directory = entry.directory.encode()
    fixed = _ENTRY.pack(entry.pack_id, entry.size, entry.type, entry.header_length, len(version))
    return b"".join([fixed, version, _COUNT.pack(len(directory)), directory])


class _Cursor:
    """Reads the parts of a plaintext, never past its end."""

    __slots__ = ("_at", "_data")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, size: int) -> bytes:
        part = self._data[self._at : self._at + size]
        if len(part) != size:
            raise FormatError("index object ends within a pack", expected=size, found=len(part))
        self._at += size
        return part

    @property
    def at_end(self) -> bool:
        return self._at == len(self._data)


def _decode(raw: bytes) -> Iterator[IndexEntry]:
    cursor = _Cursor(raw)
    (count,) = _COUNT.unpack(cursor.take(_COUNT.size))
    for _ in range(count):
        yield _decode_entry(cursor)
    if not cursor.at_end:
        raise FormatError("index object has bytes after its last pack", expected=f"{count} packs")


def _decode_entry(cursor: _Cursor) -> IndexEntry:
    pack_id, size, kind, header_length, version_length = _ENTRY.unpack(cursor.take(_ENTRY.size))
    if version_length > _MAX_VERSION or kind not in (ObjectType.DATA, ObjectType.TREE):
        raise FormatError(
            "index object has an impossible pack",
            found=f"type {kind}, version id of {version_length} bytes",
        )
    version = cursor.take(version_length)
    if not _VERSION.fullmatch(version):
        raise FormatError("index object has an impossible version id", found=repr(version[:80]))
    (length,) = _COUNT.unpack(cursor.take(_COUNT.size))
    if length > MAX_DIRECTORY:
        raise FormatError("pack directory is too large", expected=MAX_DIRECTORY, found=length)
    directory = Directory.decode(cursor.take(length), header_length)
    if not directory.stored_end < size <= MAX_PACK:
        raise FormatError(
            "index object has an impossible pack size", expected=f"≤ {MAX_PACK}", found=size
        )
    return IndexEntry(
        pack_id=PackId(pack_id),
        size=size,
        type=ObjectType(kind),
        version=version.decode("ascii"),
        header_length=header_length,
        directory=directory,
    )
