"""The rules that one entry of a tree can break by itself (docs/format.md 8).

Writers and readers both use them, so that no entry is written that a reader refuses (I11).
"""

from collections.abc import Sequence
from typing import TypeAlias

from vault.encoding import shown_path
from vault.errors import FormatError
from vault.format.entry import (
    ID_SIZE,
    MAX_I63,
    MAX_INLINE,
    MAX_META_NAME,
    MAX_OWNER,
    MAX_TIME,
    MAX_ZEROS,
    MIN_TIME,
    Entry,
    ListRef,
    hole_size,
    is_sparse,
)
from vault.format.tree_levels import MAX_TREE_LEVEL
from vault.model import MAX_PATH, SYMLINK_MODE, EntryType

_DIRECTORY, _FILE = EntryType.DIRECTORY, EntryType.FILE  # looked up once, not for every file
_NOT_A_PART = frozenset((b"", b".", b".."))
_MODE = 0o7777
_U64 = (1 << 64) - 1
_DEVICES = frozenset((EntryType.CHARACTER_DEVICE, EntryType.BLOCK_DEVICE))
_LINKS = frozenset((EntryType.SYMLINK, EntryType.HARD_LINK))


def check_entry(entry: Entry) -> None:
    """Pass if an entry breaks none of the rules of docs/format.md 8 that it can break by itself.

    Raises:
        FormatError: It breaks one; the message says which, and where.
    """
    broken = broken_rule(entry)
    if broken is not None:
        raise entry_error(entry, *broken)


Flaw: TypeAlias = tuple[str, object] | None
"""The end of a message that begins "the entry …", and what was found; None: no flaw."""


def broken_rule(entry: Entry) -> Flaw:
    """The first rule that an entry breaks by itself: `check_entry` as a value."""
    path, kind = entry.path, entry.type
    return (
        ((path or kind is not _DIRECTORY) and _path_flaw(path))
        or _numbers_flaw(entry)
        or _link_flaw(entry)
        or _device_flaw(entry)
        or (entry.xattrs is not None and _xattrs_flaw(entry.xattrs))
        or _content_flaw(entry)
        or _names_flaw(entry)
        or None
    )


def entry_error(entry: Entry, problem: str, found: object = None) -> FormatError:
    """The error for an entry, with a problem in words that follow "the entry …"."""
    return FormatError(f"tree entry {shown_path(entry.path)} {problem}", found=found)


def is_plain(path: bytes) -> bool:
    """Whether a path is relative and has no NUL, empty, ``.`` or ``..`` parts."""
    return b"\0" not in path and _NOT_A_PART.isdisjoint(path.split(b"/"))


def _path_flaw(path: bytes, what: str = "path") -> Flaw:
    if len(path) > MAX_PATH:
        return f"has a {what} of over {MAX_PATH:,} bytes", len(path)
    if not is_plain(path):
        return f"has a {what} that is not relative and plain", shown_path(path)
    return None


def _numbers_flaw(entry: Entry) -> Flaw:
    if not 0 <= entry.mode <= _MODE:
        return "has a mode out of range", entry.mode
    if not (0 <= entry.uid <= MAX_OWNER and 0 <= entry.gid <= MAX_OWNER):
        return "has an owner out of range", (entry.uid, entry.gid)
    if not (MIN_TIME <= entry.mtime <= MAX_TIME and MIN_TIME <= entry.ctime <= MAX_TIME):
        return "has a time out of range", (entry.mtime, entry.ctime)
    if not 0 <= entry.size <= MAX_I63:
        return "has a size out of range", entry.size
    return None


def _link_flaw(entry: Entry) -> Flaw:
    link = entry.link
    if (link is not None) != (entry.type in _LINKS):
        return "has a link and is none, or the reverse", None
    if link is None:
        return None
    if entry.type is EntryType.HARD_LINK:
        return _path_flaw(link, "target")
    if not link or b"\0" in link or len(link) > MAX_PATH:
        return "has an impossible link target", repr(link[:200])
    if entry.mode != SYMLINK_MODE:
        return "is a symlink with a mode of its own", f"{entry.mode:04o}"
    return None


def _device_flaw(entry: Entry) -> Flaw:
    device = entry.device
    if (device is not None) != (entry.type in _DEVICES):
        return "has a device number and is no device, or the reverse", device
    if device is not None and not 0 <= device <= _U64:
        return "has a device number out of range", device
    return None


def _xattrs_flaw(xattrs: Sequence[tuple[bytes, bytes]]) -> Flaw:
    if not xattrs:
        return "has an empty list of xattrs", "[]"
    previous = b""
    for name, _ in xattrs:
        if name <= previous:  # so an empty name fails too
            return "has xattrs out of order", repr(name[:200])
        if len(name) > MAX_META_NAME or b"\0" in name:
            return "has an impossible xattr name", repr(name[:200])
        previous = name
    return None


def _content_flaw(entry: Entry) -> Flaw:
    if entry.type is not _FILE:
        if entry.size or entry.sha256 is not None or entry.chunks or is_sparse(entry):
            return "has content and is no file", None
        if entry.tree_hash is not None or entry.chunk_list is not None:
            return "has content and is no file", None
        return None
    digest = entry.sha256 if entry.tree_hash is None else entry.tree_hash
    if digest is None or len(digest) != ID_SIZE:
        return "has no SHA-256", None
    if not is_sparse(entry) and entry.chunk_list is None:
        is_derivable = entry.tree_hash is None
        return _chunks_flaw(entry.chunks, entry.size, is_derivable=is_derivable)
    return (
        _holes_flaw(entry)
        or _list_flaw(entry.chunk_list, is_alone=not entry.chunks)
        or _list_flaw(entry.hole_list, is_alone=entry.holes is None)
        or _sizes_flaw(entry, hole_size(entry))
    )


def _sizes_flaw(entry: Entry, holes: int) -> Flaw:
    """The flaw of a file whose size does not fit its holes or its list."""
    data = entry.size - holes
    if data < 0:
        return "has more holes than bytes", holes
    if holes > MAX_ZEROS and entry.tree_hash is None:
        return "has a SHA-256 and too many holes for it", holes
    if entry.chunk_list is None:
        return _chunks_flaw(entry.chunks, data, is_derivable=False)
    if entry.chunk_list.size != data:
        return "has a chunk list that does not cover it", entry.chunk_list.size
    return None


def _chunks_flaw(ids: bytes, data: int, *, is_derivable: bool) -> Flaw:
    """The flaw in the chunk ids of a file with so many bytes outside its holes."""
    chunks, odd = divmod(len(ids), ID_SIZE)
    if odd or chunks > data or chunks > MAX_INLINE:
        return "has an impossible number of chunk ids", len(ids)
    if chunks == 1 and is_derivable:
        return "names the one chunk that its SHA-256 already gives", None
    if not chunks and data and not is_derivable:
        return "has no chunk ids, and its digest gives none", None
    return None


def _list_flaw(ref: ListRef | None, *, is_alone: bool) -> Flaw:
    """The flaw in a reference to a list outside the entry, without reading the list."""
    if ref is None:
        return None
    if not is_alone:
        return "has a list both in it and outside", None
    if len(ref.id) != ID_SIZE or not 0 <= ref.level <= MAX_TREE_LEVEL:
        return "has an impossible list", (ref.id[:ID_SIZE].hex(), ref.level)
    if not MAX_INLINE < ref.count <= ref.size <= MAX_I63:
        return "has a list of an impossible length", (ref.count, ref.size)
    return None


def _holes_flaw(entry: Entry) -> Flaw:
    """The flaw in the holes of an entry: they must be sorted, disjoint, and inside the file."""
    holes, end = entry.holes, 0
    if holes is None:
        return None
    if not holes:
        return "has an empty list of holes", "[]"
    if len(holes) > MAX_INLINE:
        return "has an impossible number of holes", len(holes)
    for offset, length in holes:
        if offset < end or length <= 0 or offset + length > entry.size:
            return "has impossible holes", (offset, length)
        end = offset + length
    return None


def _names_flaw(entry: Entry) -> Flaw:
    if len(entry.user) > MAX_META_NAME or len(entry.group) > MAX_META_NAME:
        return "has too long an owner's name", max(len(entry.user), len(entry.group))
    return None
