"""The tree of a snapshot: entries, their order, content root and levels (docs/format.md 8).

Pure: no I/O and no clock. What is parsed here is untrusted: every malformed byte
ends in a `FormatError`, and no more than one entry is held.
"""

import dataclasses
import hashlib
import hmac
import stat
import struct
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeAlias, TypeVar

import msgspec

from vault.encoding import shown_path
from vault.errors import FormatError, VaultError
from vault.model import MAX_PATH, SYMLINK_MODE, EntryType, sort_key

__all__ = [
    "MAX_INLINE",
    "MAX_TREE_LEVEL",
    "MAX_ZEROS",
    "BadEntry",
    "ContentRoot",
    "Entry",
    "EntryType",
    "Flaws",
    "ListRef",
    "TreeEnd",
    "TreeHeader",
    "TreeOrder",
    "TreeParser",
    "broken_rule",
    "canonical_of",
    "check_entry",
    "commitment",
    "decode_entry",
    "encode_canonical",
    "encode_entry",
    "encode_extra",
    "encode_header",
    "expand_levels",
    "fold_levels",
    "frame",
    "hole_size",
    "is_plain",
    "is_sparse",
    "keep_entry",
    "kept_entry",
    "legible_path",
    "replace_entry",
    "sort_key",
    "split_ids",
    "type_in",
]

TREE_MAGIC = b"VAULTTR1"
MAX_CANONICAL = 4 << 20  # bytes
MAX_EXTRA = 2 << 20  # bytes
MAX_INLINE = 32_768  # chunk ids, and holes, that are in an entry; more are a list outside
MAX_ZEROS = 1 << 30  # bytes of holes in a file with a SHA-256, which would have to be hashed
MAX_TREE_HEADER = 1 << 20  # bytes
MAX_META_NAME = 255  # bytes of an xattr's name; characters of a user's or group's
MAX_TREE_LEVEL = 8
MAX_NAMED_ENTRIES = 10_000  # bad entries that a reader remembers by name; all are counted
MAX_BAD_ENTRIES = 1_000_000  # bad entries, and
MAX_BAD_BYTES = 4 << 30  # bytes of them, after which a tree ends: a few chunks can repeat for ever
MAX_STAND_INS = 64  # directories made for one entry whose own are missing
ID_SIZE = 32

_LENGTHS = struct.Struct("<II")
_LENGTH = struct.Struct("<I")
_NOT_A_PART = frozenset((b"", b".", b".."))
_MODE = 0o7777
MAX_OWNER = (1 << 32) - 2  # to chown(2) the number above means "leave it"
_U64 = (1 << 64) - 1
_I63 = (1 << 63) - 1
MIN_TIME, MAX_TIME = -_I63 - 1, _I63  # ns since 1970: the years 1677 and 2262
_TYPES = frozenset(EntryType)
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
_DIRECTORY, _FILE = EntryType.DIRECTORY, EntryType.FILE  # looked up once, not for every file
_DEVICES = frozenset((EntryType.CHARACTER_DEVICE, EntryType.BLOCK_DEVICE))
_LINKS = frozenset((EntryType.SYMLINK, EntryType.HARD_LINK))

_Shape = TypeVar("_Shape", bound=msgspec.Struct)


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
    chunks: bytes = b""  # chunk ids; empty where derivable
    user: str = ""
    group: str = ""
    ctime: int = 0
    holes: tuple[tuple[int, int], ...] | None = None  # (offset, length); None if there are none
    tree_hash: bytes | None = None  # of the content, in place of a SHA-256
    chunk_list: ListRef | None = None  # in place of `chunks`, where they are many
    hole_list: ListRef | None = None  # in place of `holes`


class _Canonical(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
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


class TreeHeader(
    msgspec.Struct, frozen=True, kw_only=True, array_like=True, forbid_unknown_fields=True
):
    """What the tree stream begins with."""

    key: bytes  # 32 random bytes: the commitment's key, secret
    relative: bool  # names are relative to the one source
    sources: tuple[bytes, ...]  # the PATHs as given, absolute

    def __repr__(self) -> str:
        """Without the key."""
        return f"TreeHeader(relative={self.relative}, sources={self.sources})"


_encode = msgspec.msgpack.Encoder().encode
_canonical_decoder = msgspec.msgpack.Decoder(_Canonical)
_extra_decoder = msgspec.msgpack.Decoder(_Extra)
_long_extra_decoder = msgspec.msgpack.Decoder(_ExtraWithLists)
_LONG = b"\x97"  # msgpack: an array of seven
_TREE_HASH = b"\x01"  # before a content digest that is no SHA-256
_header_decoder = msgspec.msgpack.Decoder(TreeHeader)
_own_decoder = msgspec.msgpack.Decoder(Entry)


# --- encoding ---


def replace_entry(entry: Entry, **changes: object) -> Entry:
    """A copy with some fields changed."""
    return msgspec.structs.replace(entry, **changes)


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
    """Both parts of an entry that a reader takes: what a writer emits passes here (I11).

    Raises:
        FormatError: A reader would refuse the entry, by the rules of `check_entry` or by size.
    """
    check_entry(entry)
    canonical, extra = encode_canonical(entry), encode_extra(entry)
    _check_caps(len(canonical), len(extra))
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
    """An entry as it stands in the stream.

    Raises:
        FormatError: A part is over its cap, as the reader would say too.
    """
    first, second = len(canonical), len(extra)
    if first > MAX_CANONICAL or second > MAX_EXTRA:
        _check_caps(first, second)
    return _LENGTHS.pack(first, second) + canonical + extra


def encode_header(header: TreeHeader) -> bytes:
    """The beginning of the stream, magic included.

    Raises:
        FormatError: The header is over its cap, or the reader would refuse it.
    """
    _check_header(header)
    encoded = _encode(header)
    if len(encoded) > MAX_TREE_HEADER:
        raise FormatError("tree header is too long", expected=MAX_TREE_HEADER, found=len(encoded))
    return b"".join((TREE_MAGIC, _LENGTH.pack(len(encoded)), encoded))


# --- decoding one entry ---


def keep_entry(entry: Entry) -> bytes:
    """An entry for `kept_entry`: this process's own notes, in no format."""
    return _encode(entry)


def kept_entry(data: bytes) -> Entry:
    """The entry that `keep_entry` was given, which was checked then."""
    return _own_decoder.decode(data)


def decode_entry(canonical: bytes, extra: bytes) -> Entry:
    """The entry that these two parts encode.

    Raises:
        FormatError: Wrong types, a value out of range, fields that do not fit the
            type, or not the one shortest encoding.
    """
    first = _decode(_canonical_decoder, canonical, "tree entry")
    chunk_list = hole_list = None
    if extra.startswith(_LONG):
        longer = _decode(_long_extra_decoder, extra, "tree entry's extra part")
        chunk_list, hole_list = longer.chunk_list, longer.hole_list
        if chunk_list is None and hole_list is None:
            raise FormatError("tree entry's extra part has room for lists and none")
        second: _Extra = longer
    else:
        second = _decode(_extra_decoder, extra, "tree entry's extra part")
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


def _decode(decoder: "msgspec.msgpack.Decoder[_Shape]", data: bytes, what: str) -> _Shape:
    try:
        value = decoder.decode(data)
        again = _encode(value)
    except (msgspec.MsgspecError, ValueError, OverflowError, RecursionError) as error:
        raise FormatError(f"{what} is malformed", found=str(error)[:120]) from error
    if again != data:  # otherwise one tree would have many content roots
        raise FormatError(f"{what} is not in its shortest encoding")
    return value


def check_entry(entry: Entry) -> None:
    """Every rule of docs/format.md 8 that one entry alone can break; writers and readers ask here.

    Raises:
        FormatError: Which one, and where.
    """
    broken = broken_rule(entry)
    if broken is not None:
        raise _bad(entry, *broken)


Flaw: TypeAlias = tuple[str, object] | None
"""What follows "the entry …" in a message, and what was found; None: there is none."""


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


def _bad(entry: Entry, problem: str, found: object = None) -> FormatError:
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
    if not 0 <= entry.size <= _I63:
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


def is_sparse(entry: Entry) -> bool:
    """Whether a file has holes."""
    return entry.holes is not None or entry.hole_list is not None


def hole_size(entry: Entry) -> int:
    """Bytes of a file that are in holes."""
    if entry.hole_list is not None:
        return entry.hole_list.size
    return sum(length for _, length in entry.holes) if entry.holes else 0


def _sizes_flaw(entry: Entry, holes: int) -> Flaw:
    """What a file with so many bytes in holes, or with a list, owes its size."""
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
    """Chunk ids of a file with so many bytes outside its holes."""
    chunks, odd = divmod(len(ids), ID_SIZE)
    if odd or chunks > data or chunks > MAX_INLINE:
        return "has an impossible number of chunk ids", len(ids)
    if chunks == 1 and is_derivable:
        return "names the one chunk that its SHA-256 already gives", None
    if not chunks and data and not is_derivable:
        return "has no chunk ids, and its digest gives none", None
    return None


def _list_flaw(ref: ListRef | None, *, is_alone: bool) -> Flaw:
    """What a list outside an entry can break without being read."""
    if ref is None:
        return None
    if not is_alone:
        return "has a list both in it and outside", None
    if len(ref.id) != ID_SIZE or not 0 <= ref.level <= MAX_TREE_LEVEL:
        return "has an impossible list", (ref.id[:ID_SIZE].hex(), ref.level)
    if not MAX_INLINE < ref.count <= ref.size <= _I63:
        return "has a list of an impossible length", (ref.count, ref.size)
    return None


def _holes_flaw(entry: Entry) -> Flaw:
    """Holes in an entry must be sorted, disjoint, and inside the file."""
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


def _check_caps(canonical: int, extra: int) -> None:
    if canonical > MAX_CANONICAL or extra > MAX_EXTRA:
        raise FormatError(
            "tree entry is too long",
            expected=f"at most {MAX_CANONICAL} and {MAX_EXTRA}",
            found=f"{canonical} and {extra}",
        )


def _check_header(header: TreeHeader) -> None:
    if len(header.key) != ID_SIZE:
        raise FormatError("tree header's key must be 32 bytes", found=len(header.key))


def type_in(canonical: bytes, path: bytes) -> int:
    """The type in a canonical part that was encoded here, whose path this is; in no time."""
    size = len(path)
    return canonical[size + (3 if size < 256 else 4)]


# --- parsing the stream ---


class _PathSet:
    """Paths seen, as 64-bit hashes keyed by the process: 8 bytes each, never path objects."""

    _RUN = 65_536

    def __init__(self) -> None:
        self._recent: set[int] = set()
        self._runs: list[array[int]] = []  # each sorted

    def add(self, path: bytes) -> None:
        self._recent.add(hash(path))
        if len(self._recent) == self._RUN:
            self._runs.append(array("q", sorted(self._recent)))
            self._recent.clear()

    def __contains__(self, path: bytes | None) -> bool:
        wanted = hash(path)
        if wanted in self._recent:
            return True
        positions = ((run, bisect_left(run, wanted)) for run in self._runs)
        return any(at < len(run) and run[at] == wanted for run, at in positions)


class TreeOrder:
    """What entries of a tree owe each other: strictly ascending, each in a directory before it.

    Readers and writers ask here. Holds the open directories. An entry that is refused
    changes nothing: those after it are judged as if it had not been there.
    """

    def __init__(self) -> None:
        self._open: list[bytes] = []  # paths of the directories that may still get members
        self.last_path = b""

    @property
    def has_top(self) -> bool:
        """Whether the top directory came."""
        return bool(self._open)

    def flaw(self, path: bytes, *, is_directory: bool) -> str:
        """Why an entry can't come next, in words that follow "the entry …"; "": now it came."""
        opened = self._open
        parent = path.rpartition(b"/")[0]
        if opened and opened[-1] == parent:  # nearly always: after this directory, or in it after
            if path <= self.last_path:  # a member that is none, so the names decide
                return "is out of order"
        elif flaw := self._leave_for(path, parent, is_directory=is_directory):
            return flaw
        self.last_path = path
        if is_directory:
            opened.append(path)
        return ""

    def _leave_for(self, path: bytes, parent: bytes, *, is_directory: bool) -> str:
        """The flaw of an entry that is not in the innermost directory."""
        if not self._open:
            return "comes before the top directory" if path or not is_directory else ""
        if not self.may_come(path):
            return "is out of order"
        around = self.depth(parent)
        if not around:
            return "has no directory to be in"
        del self._open[around:]  # what it leaves gets no more members
        return ""

    def depth(self, directory: bytes) -> int:
        """How many open directories there are up to this one; 0 if it is not open."""
        at = bisect_left(self._open, len(directory), key=len)  # each lies in the one before
        return at + 1 if self._open[at : at + 1] == [directory] else 0

    def may_come(self, path: bytes) -> bool:
        """Whether a path is behind all that came."""
        return not self._open or sort_key(path) > sort_key(self.last_path)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class BadEntry:
    """An entry that breaks a rule, and what can still be said of it. Everything is untrusted."""

    path: bytes | None  # None: its own bytes don't tell
    after: bytes  # path of the last good entry before it
    problem: str  # "has impossible holes"; holds no name
    found: str = ""
    replaced: bool = False  # a bare directory is given in its place, for the sake of its members

    @property
    def text(self) -> str:
        """What is wrong, without the path."""
        return f"{self.problem}: found {self.found}" if self.found else self.problem


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TreeEnd:
    """Where a tree can be read no further; what came before is proven by the ids of its chunks."""

    after: bytes  # path of the last entry that was read
    error: VaultError


class Flaws:
    """What was stepped over in reading a tree; the first ones by name."""

    def __init__(self) -> None:
        self.named: list[BadEntry] = []
        self.count = 0
        self.misplaced = 0  # of them, those that are not behind all that came before
        self.end: TreeEnd | None = None

    def __bool__(self) -> bool:
        """Whether anything of the tree is missing."""
        return bool(self.count or self.end)

    def add(self, bad: BadEntry) -> None:
        """Step over one."""
        self.count += 1
        if len(self.named) < MAX_NAMED_ENTRIES:
            self.named.append(bad)

    @property
    def paths(self) -> dict[bytes, BadEntry]:
        """The bad ones by path; of one that is bad more than once the first."""
        found: dict[bytes, BadEntry] = {}
        for bad in self.named:
            if bad.path is not None:
                found.setdefault(bad.path, bad)
        return found

    @property
    def all_named(self) -> bool:
        """Whether the path of everything that was stepped over is known."""
        named = len(self.named) == self.count and all(b.path is not None for b in self.named)
        return named and self.end is None


class TreeParser:
    """Parses a tree stream that arrives in pieces, and checks what entries owe each other.

    Strictly ascending order; parents that are directories and came before; hard
    links to files that came before (by hash: a colliding path passes here and has
    no such file to link to in the consumer). Holds one entry, the open
    directories, and 8 bytes for every file.

    Args:
        flaws: Takes what breaks a rule, and the parser goes on after it: the lengths
            in front of an entry say where the next one begins. A directory that is
            missing, or bad and legible, is replaced by a bare one (mode 0700), as all
            that lies in it would be lost otherwise. Lengths beyond their caps, and an
            entry that is cut off, end the tree. None: the first fault is raised.
        kept: Of each entry in turn, whether it is in its place; what is not, is stepped
            over, so that one early entry with a late path does not displace all others.
            None: each is in its place that is behind all before it.
    """

    def __init__(self, flaws: Flaws | None = None, kept: Iterator[bool] | None = None) -> None:
        self.header: TreeHeader | None = None
        self._flaws = flaws
        self._kept = kept
        self._buffer = bytearray()
        self._order = TreeOrder()
        self._files = _PathSet()
        self._bad_bytes = 0

    def feed(self, data: bytes) -> list[tuple[Entry | None, bytes]]:
        """Entries that are whole now, each with its canonical part for the content root.

        None stands for an entry that was stepped over. A directory that stands in for a
        missing one has no canonical part.

        Raises:
            FormatError: The stream breaks a rule; the parser is of no use afterwards.
        """
        if self._flaws is not None and self._flaws.end:
            return []
        self._buffer += data
        at = 0
        if self.header is None:
            at = self._parse_header()
            if self.header is None:
                return []
        entries: list[tuple[Entry | None, bytes]] = []
        with memoryview(self._buffer) as view:
            while (end := self._entry_end(at)) is not None:
                middle = at + _LENGTHS.size + _LENGTH.unpack_from(view, at)[0]
                canonical = bytes(view[at + _LENGTHS.size : middle])
                extra = bytes(view[middle:end])
                refused = self._kept is not None and not next(self._kept, True)
                try:
                    entry = decode_entry(canonical, extra)
                    self._place(entry, refused=refused)
                except FormatError as error:
                    if self._flaws is None:
                        raise
                    entries += self._step_over(
                        self._flaws, canonical, extra, error, refused=refused
                    )
                    if self._has_enough(self._flaws, end - at):
                        break
                else:
                    entries.append((entry, canonical))
                at = end
        del self._buffer[:at]
        return entries

    def finish(self) -> None:
        """Say that nothing follows.

        Raises:
            FormatError: The stream ends before the top directory, or within an entry.
        """
        if self._buffer or not self._order.has_top:
            error = FormatError("tree stream ends too early", found=f"{len(self._buffer)} bytes")
            if self._flaws is None or not self._order.has_top:
                raise error
            self.end(self._flaws, error)

    def end(self, flaws: Flaws, error: VaultError) -> None:
        """Say that the rest can't be read; the first reason counts."""
        flaws.end = flaws.end or TreeEnd(after=self._order.last_path, error=error)

    @property
    def has_entries(self) -> bool:
        """Whether any entry was good."""
        return self._order.has_top

    def _parse_header(self) -> int:
        """Where the entries begin; 0 while the header is not whole."""
        start = len(TREE_MAGIC) + _LENGTH.size
        if self._buffer[: len(TREE_MAGIC)] != TREE_MAGIC[: len(self._buffer)]:
            raise FormatError(
                "not a tree stream", found=bytes(self._buffer[: len(TREE_MAGIC)]).hex()
            )
        if len(self._buffer) < start:
            return 0
        (length,) = _LENGTH.unpack_from(self._buffer, len(TREE_MAGIC))
        if length > MAX_TREE_HEADER:
            raise FormatError("tree header is too long", expected=MAX_TREE_HEADER, found=length)
        if len(self._buffer) < start + length:
            return 0
        header = _decode(
            _header_decoder, bytes(self._buffer[start : start + length]), "tree header"
        )
        _check_header(header)
        self.header = header
        return int(start + length)

    def _entry_end(self, at: int) -> int | None:
        """End of the entry at ``at``; None while it is not whole, or where the tree ends."""
        if len(self._buffer) - at < _LENGTHS.size:
            return None
        canonical, extra = _LENGTHS.unpack_from(self._buffer, at)
        try:
            _check_caps(canonical, extra)
        except FormatError as error:
            if self._flaws is None or not self._order.has_top:
                raise
            self.end(self._flaws, error)
            return None
        end = int(at + _LENGTHS.size + canonical + extra)
        return end if end <= len(self._buffer) else None

    def _place(self, entry: Entry, *, refused: bool = False) -> None:
        """Check the entry against those before it, and remember it."""
        if refused:
            raise _bad(entry, "is out of order")
        if entry.type is EntryType.HARD_LINK and entry.link not in self._files:
            raise _bad(entry, "is a hard link to no earlier file", repr(entry.link))
        flaw = self._order.flaw(entry.path, is_directory=entry.type is _DIRECTORY)
        if flaw:
            raise _bad(entry, flaw)
        if entry.type is _FILE:
            self._files.add(entry.path)

    # --- what breaks a rule ---

    def _has_enough(self, flaws: Flaws, size: int) -> bool:
        """Whether the tree ends here, as so much of it is bad."""
        self._bad_bytes += size
        if flaws.count < MAX_BAD_ENTRIES and self._bad_bytes < MAX_BAD_BYTES:
            return False
        error = FormatError("too many entries of the tree break a rule", found=f"{flaws.count:,}")
        if not self._order.has_top:
            raise error
        self.end(flaws, error)
        return True

    def _step_over(
        self, flaws: Flaws, canonical: bytes, extra: bytes, error: FormatError, *, refused: bool
    ) -> "Iterator[tuple[Entry | None, bytes]]":
        """What is given in place of a bad entry; says so in ``flaws``."""
        first = _legible(canonical)
        if first is not None and _is_placeable(first) and not refused:
            flaws.misplaced += not self._order.may_come(first.path)
            made = self._make_directories(flaws, first)
            yield from ((entry, b"") for entry in made)
            if made and (entry := self._again(canonical, extra)) is not None:
                yield entry, canonical  # nothing but its directory was missing
                return
            stand_in = self._stand_in(first)
            if stand_in is not None:
                flaws.add(self._describe(first, error, replaced=True))
                yield stand_in, canonical
                return
        flaws.add(self._describe(first, error))
        yield None, canonical

    def _again(self, canonical: bytes, extra: bytes) -> Entry | None:
        try:
            entry = decode_entry(canonical, extra)
            self._place(entry)
        except FormatError:
            return None
        return entry

    def _stand_in(self, first: _Canonical) -> Entry | None:
        """A bare directory in place of a bad one, if it may be there."""
        if first.type != EntryType.DIRECTORY:
            return None
        try:
            entry = _bare_directory(first)
            self._place(entry)
        except FormatError:
            return None
        return entry

    def _make_directories(self, flaws: Flaws, first: _Canonical) -> list[Entry]:
        """Bare directories where those around an entry are missing; the top, too."""
        missing: list[bytes] = []
        path = first.path
        while path:
            path = path.rpartition(b"/")[0]
            if self._order.depth(path) or len(missing) > MAX_STAND_INS:
                break
            missing.append(path)
        if len(missing) > MAX_STAND_INS or not all(map(self._order.may_come, missing)):
            return []  # what has one of these names is no directory, or the entry is out of order
        made = [_bare(path) for path in reversed(missing)]
        for entry in made:
            after = self._order.last_path
            self._place(entry)
            flaws.add(
                BadEntry(
                    path=entry.path,
                    after=after,
                    problem="is missing, and others lie in it",
                    replaced=True,
                )
            )
        return made

    def _describe(
        self, first: "_Canonical | None", error: FormatError, *, replaced: bool = False
    ) -> BadEntry:
        path = first.path if first is not None else None
        prefix = f"tree entry {shown_path(path)} " if path is not None else ""
        return BadEntry(
            path=path,
            after=self._order.last_path,
            problem=error.message.removeprefix(prefix)
            .replace("tree entry's extra part ", "has an extra part that ", 1)
            .removeprefix("tree entry "),
            found="" if error.found is None else str(error.found)[:200],
            replaced=replaced,
        )


def _legible(canonical: bytes) -> _Canonical | None:
    """The fields of a bad entry, as far as they have their types."""
    try:
        return _canonical_decoder.decode(canonical)
    except (msgspec.MsgspecError, ValueError, OverflowError, RecursionError):
        return None


def legible_path(canonical: bytes) -> bytes | None:
    """The path in an entry's canonical part, if it has one that a tree may hold."""
    first = _legible(canonical)
    return first.path if first is not None and _is_placeable(first) else None


def _is_placeable(first: _Canonical) -> bool:
    return not first.path or (len(first.path) <= MAX_PATH and is_plain(first.path))


def _bare(path: bytes, uid: int = 0, gid: int = 0, mtime: int = 0) -> Entry:
    return Entry(path=path, type=EntryType.DIRECTORY, mode=0o700, uid=uid, gid=gid, mtime=mtime)


def _bare_directory(first: _Canonical) -> Entry:
    """Closed to others, as what its attributes allowed is not known; the owner's if legible."""
    entry = _bare(first.path, first.uid, first.gid, first.mtime)
    try:
        check_entry(entry)
    except FormatError:
        return _bare(first.path)
    return entry


# --- content root ---


class ContentRoot:
    """SHA-256 over canonical entries in order: what a restore must reproduce."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def update(self, canonical: bytes) -> None:
        """Add the next entry's canonical part, or those of several in one piece."""
        self._hash.update(canonical)

    def digest(self) -> bytes:
        """32 bytes."""
        return self._hash.digest()


def commitment(key: bytes, root: bytes) -> bytes:
    """HMAC-SHA-256: the content root, unreadable to those who may not read the tree."""
    return hmac.digest(key, root, "sha256")


# --- levels ---


def split_ids(data: bytes) -> list[bytes]:
    """Chunk ids out of their concatenation.

    Raises:
        FormatError: Not a multiple of 32 bytes.
    """
    if len(data) % ID_SIZE:
        raise FormatError("list of chunk ids has a broken length", found=len(data))
    return [data[at : at + ID_SIZE] for at in range(0, len(data), ID_SIZE)]


def fold_levels(
    ids: Sequence[bytes], cut: Callable[[bytes], list[int]], put: Callable[[bytes], bytes]
) -> tuple[bytes, int]:
    """Store the chunk ids of a tree stream as levels until one id is left.

    Args:
        ids: Chunk ids of the stream itself, in order; at least one.
        cut: The tree chunker: bytes to lengths that sum to theirs.
        put: Stores a tree chunk and returns its id.

    Returns:
        The last id, and its level: 0 where the stream is one chunk.

    Raises:
        FormatError: The stream needs more than `MAX_TREE_LEVEL` levels.
    """
    level = 0
    while len(ids) > 1:
        level = check_level(level + 1)
        stream = b"".join(ids)
        above, at = [], 0
        for length in cut(stream):
            above.append(put(stream[at : at + length]))
            at += length
        ids = above
    return ids[0], level


def expand_levels(root: bytes, level: int, fetch: Callable[[bytes], bytes]) -> Iterator[bytes]:
    """The inverse of `fold_levels`: the tree stream's chunks, in order, one at a time.

    Args:
        root: Chunk id in the manifest.
        level: Level in the manifest.
        fetch: Returns a tree chunk that was checked against its id.

    Raises:
        FormatError: The level is out of range, or a level's length is broken.
    """
    check_level(level)
    ids: Iterator[bytes] = iter((root,))
    for _ in range(level):
        ids = _ids_of(map(fetch, ids))
    return map(fetch, ids)


def _ids_of(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Chunk ids of one level; the chunker may have cut within an id."""
    rest = b""
    for chunk in chunks:
        data = rest + chunk
        whole = len(data) - len(data) % ID_SIZE
        yield from split_ids(data[:whole])
        rest = data[whole:]
    if rest:
        raise FormatError("list of chunk ids has a broken length", found=len(rest))


def check_level(level: Any) -> int:
    """The level itself.

    Raises:
        FormatError: Not 0 to `MAX_TREE_LEVEL`.
    """
    if not isinstance(level, int) or not 0 <= level <= MAX_TREE_LEVEL:
        raise FormatError(
            "tree level is out of range", expected=f"0 to {MAX_TREE_LEVEL}", found=level
        )
    return level
