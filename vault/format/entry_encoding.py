"""The bytes of one entry of a tree, written and read (docs/format.md 8).

An entry has two parts: the canonical one, which the content root covers, and an extra one.
"""

import struct
from typing import TypeVar

import msgspec

from vault.errors import FormatError
from vault.format.entry import ID_SIZE, Entry, ListRef
from vault.format.entry_rules import check_entry
from vault.model import EntryType

MAX_CANONICAL = 4 << 20  # bytes
MAX_EXTRA = 2 << 20  # bytes

PART_LENGTHS = struct.Struct("<II")
_TYPES = frozenset(EntryType)

_Shape = TypeVar("_Shape", bound=msgspec.Struct)


class CanonicalPart(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Fields of the part that the content root covers, in their order."""

    path: bytes
    type: int
    mode: int
    uid: int
    gid: int
    mtime: int
    size: int
    digest: bytes | None
    link: bytes | None
    device: int | None
    xattrs: tuple[tuple[bytes, bytes], ...] | None


class _Extra(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    chunks: bytes
    user: str
    group: str
    ctime: int
    holes: tuple[tuple[int, int], ...] | None


class _ExtraWithLists(_Extra, frozen=True, array_like=True, forbid_unknown_fields=True):
    chunk_list: ListRef | None
    hole_list: ListRef | None


_encode = msgspec.msgpack.Encoder().encode
_canonical_decoder = msgspec.msgpack.Decoder(CanonicalPart)
_extra_decoder = msgspec.msgpack.Decoder(_Extra)
_long_extra_decoder = msgspec.msgpack.Decoder(_ExtraWithLists)
_LONG = b"\x97"  # msgpack: an array of seven
_TREE_HASH = b"\x01"  # before a content digest that is no SHA-256
_own_decoder = msgspec.msgpack.Decoder(Entry)


def encode_canonical(entry: Entry) -> bytes:
    """The part of an entry that the content root covers."""
    return canonical_of(
        entry.path,
        entry.type,
        entry.mode,
        entry.uid,
        entry.gid,
        entry.mtime,
        size=entry.size,
        sha256=entry.sha256,
        tree_hash=entry.tree_hash,
        link=entry.link,
        device=entry.device,
        xattrs=entry.xattrs,
    )


def encode_extra(entry: Entry) -> bytes:
    """The part of an entry that the content root leaves out."""
    fields = entry.chunks, entry.user, entry.group, entry.ctime, entry.holes
    if entry.chunk_list is None and entry.hole_list is None:
        return _encode(fields)
    return _encode((*fields, entry.chunk_list, entry.hole_list))


def encode_entry(entry: Entry) -> tuple[bytes, bytes]:
    """Both parts of an entry, checked first: a writer emits only what a reader accepts (I11).

    Raises:
        FormatError: A reader would refuse the entry, by the rules of `check_entry` or by size.
    """
    check_entry(entry)
    canonical, extra = encode_canonical(entry), encode_extra(entry)
    check_part_sizes(len(canonical), len(extra))
    return canonical, extra


def canonical_of(  # noqa: PLR0917 - the order is the format's; one call for every file
    path: bytes,
    kind: EntryType,
    mode: int,
    uid: int,
    gid: int,
    mtime: int,
    *,
    size: int = 0,
    sha256: bytes | None = None,
    tree_hash: bytes | None = None,
    link: bytes | None = None,
    device: int | None = None,
    xattrs: tuple[tuple[bytes, bytes], ...] | None = None,
) -> bytes:
    """`encode_canonical` of an entry with these fields, without making the entry."""
    digest = sha256 if tree_hash is None else _TREE_HASH + tree_hash
    return _encode((path, kind, mode, uid, gid, mtime, size, digest, link, device, xattrs))


def frame(canonical: bytes, extra: bytes) -> bytes:
    """The bytes of an entry in the stream.

    Raises:
        FormatError: A part is over its cap, so that a reader would refuse it.
    """
    first, second = len(canonical), len(extra)
    if first > MAX_CANONICAL or second > MAX_EXTRA:
        check_part_sizes(first, second)
    return PART_LENGTHS.pack(first, second) + canonical + extra


def keep_entry(entry: Entry) -> bytes:
    """The bytes of an entry for `kept_entry`; only this process reads them."""
    return _encode(entry)


def kept_entry(data: bytes) -> Entry:
    """The entry that `keep_entry` encoded; it is not checked again."""
    return _own_decoder.decode(data)


def decode_entry(canonical: bytes, extra: bytes) -> Entry:
    """The entry that these two parts encode.

    Raises:
        FormatError: Wrong types, a value out of range, fields that do not fit the
            type, or not the one shortest encoding.
    """
    first = decode_shortest(_canonical_decoder, canonical, "tree entry")
    chunk_list = hole_list = None
    if extra.startswith(_LONG):
        longer = decode_shortest(_long_extra_decoder, extra, "tree entry's extra part")
        chunk_list, hole_list = longer.chunk_list, longer.hole_list
        if chunk_list is None and hole_list is None:
            raise FormatError("tree entry's extra part has room for lists and none")
        second: _Extra = longer
    else:
        second = decode_shortest(_extra_decoder, extra, "tree entry's extra part")
    sha256, tree_hash = first.digest, None
    if sha256 is not None and len(sha256) == 1 + ID_SIZE and sha256[:1] == _TREE_HASH:
        tree_hash, sha256 = sha256[1:], None
    if first.type not in _TYPES:
        raise FormatError("tree entry has an unknown type", found=first.type)
    entry = Entry(
        path=first.path,
        type=EntryType(first.type),
        mode=first.mode,
        uid=first.uid,
        gid=first.gid,
        mtime=first.mtime,
        size=first.size,
        sha256=sha256,
        link=first.link,
        device=first.device,
        xattrs=first.xattrs,
        chunks=second.chunks,
        user=second.user,
        group=second.group,
        ctime=second.ctime,
        holes=second.holes,
        tree_hash=tree_hash,
        chunk_list=chunk_list,
        hole_list=hole_list,
    )
    check_entry(entry)
    return entry


def decode_shortest(decoder: "msgspec.msgpack.Decoder[_Shape]", data: bytes, what: str) -> _Shape:
    """The value of these bytes, if they are its only shortest encoding.

    Raises:
        FormatError: They are not.
    """
    try:
        value = decoder.decode(data)
        again = _encode(value)
    except (msgspec.MsgspecError, ValueError, OverflowError, RecursionError) as error:
        raise FormatError(f"{what} is malformed", found=str(error)[:120]) from error
    if again != data:  # otherwise one tree would have many content roots
        raise FormatError(f"{what} is not in its shortest encoding")
    return value


def check_part_sizes(canonical: int, extra: int) -> None:
    """Raise `FormatError` for parts of so many bytes that a reader would refuse them."""
    if canonical > MAX_CANONICAL or extra > MAX_EXTRA:
        raise FormatError(
            "tree entry is too long",
            expected=f"at most {MAX_CANONICAL} and {MAX_EXTRA}",
            found=f"{canonical} and {extra}",
        )


def type_in(canonical: bytes, path: bytes) -> int:
    """The type in a canonical part that was encoded here, with this path; found without parsing."""
    size = len(path)
    return canonical[size + (3 if size < 256 else 4)]


def legible_part(canonical: bytes) -> CanonicalPart | None:
    """The fields of a bad entry; None if one of them has a wrong type."""
    try:
        return _canonical_decoder.decode(canonical)
    except (msgspec.MsgspecError, ValueError, OverflowError, RecursionError):
        return None
