"""One member of a tree: its fields, their limits, and the types of files (docs/format.md 8)."""

import stat
from collections.abc import Mapping
from typing import Final

import msgspec

from vault.model import EntryType

MAX_INLINE = 32_768  # chunk ids, or holes, in an entry; more go into a list outside it
MAX_ZEROS = 1 << 30  # bytes of holes in a file with a SHA-256, which covers holes too
MAX_META_NAME = 255  # bytes of an xattr's name; characters of a user's or group's
ID_SIZE = 32
MAX_OWNER = (1 << 32) - 2  # to chown(2) the number above means "leave it"
MAX_I63 = (1 << 63) - 1
MIN_TIME, MAX_TIME = -MAX_I63 - 1, MAX_I63  # ns since 1970: the years 1677 and 2262
FILE_TYPES: Final[Mapping[EntryType, int]] = {  # the bits of st_mode that stand for each
    EntryType.DIRECTORY: stat.S_IFDIR,
    EntryType.FILE: stat.S_IFREG,
    EntryType.SYMLINK: stat.S_IFLNK,
    EntryType.HARD_LINK: stat.S_IFREG,
    EntryType.FIFO: stat.S_IFIFO,
    EntryType.CHARACTER_DEVICE: stat.S_IFCHR,
    EntryType.BLOCK_DEVICE: stat.S_IFBLK,
}
ENTRY_TYPES: Final[Mapping[int, EntryType]] = {  # by those bits; a socket has no entry
    bits: kind for kind, bits in FILE_TYPES.items() if kind is not EntryType.HARD_LINK
}


class ListRef(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, gc=False):
    """A list outside its entry, stored as a tree stream is (docs/format.md 8.1)."""

    id: bytes
    level: int
    count: int  # chunk ids, or holes
    size: int  # bytes of the file that they cover


class Entry(msgspec.Struct, frozen=True, kw_only=True, array_like=True, gc=False):
    """One member of a tree. Times are ns since 1970; fields as in docs/format.md 8."""

    path: bytes  # relative to the top, whose own path is empty
    type: EntryType
    mode: int  # the 12 permission bits
    uid: int = 0
    gid: int = 0
    mtime: int = 0
    size: int = 0  # bytes; of files only
    sha256: bytes | None = None  # of the content; of files only, and those without a tree hash
    link: bytes | None = None  # symlink: target as read; hard link: path of an earlier file
    device: int | None = None  # st_rdev
    xattrs: tuple[tuple[bytes, bytes], ...] | None = None  # sorted by name; None if there are none
    chunks: bytes = b""  # chunk ids; empty if the digest gives the only one
    user: str = ""
    group: str = ""
    ctime: int = 0
    holes: tuple[tuple[int, int], ...] | None = None  # (offset, length); None if there are none
    tree_hash: bytes | None = None  # of the content, in place of a SHA-256
    chunk_list: ListRef | None = None  # in place of `chunks`, if there are many
    hole_list: ListRef | None = None  # in place of `holes`


def replace_entry(entry: Entry, **changes: object) -> Entry:
    """A copy with some fields changed."""
    return msgspec.structs.replace(entry, **changes)


def is_sparse(entry: Entry) -> bool:
    """Whether a file has holes."""
    return entry.holes is not None or entry.hole_list is not None


def hole_size(entry: Entry) -> int:
    """Bytes of a file that are in holes."""
    if entry.hole_list is not None:
        return entry.hole_list.size
    return sum(length for _, length in entry.holes) if entry.holes else 0
