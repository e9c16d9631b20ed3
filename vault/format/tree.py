"""The tree of a snapshot as a stream: its header, its entries in turn (docs/format.md 8).

Pure: no I/O and no clock. What is parsed here is untrusted: every malformed byte
ends in a `FormatError`, and no more than one entry is held. What one entry is stands in
`entry`, its rules in `entry_rules`, its bytes in `entry_encoding`; what entries owe each other
in `tree_order`; how a stream is kept in chunks in `tree_levels`.
"""

import dataclasses
import struct
from collections.abc import Iterator

import msgspec

from vault.encoding import shown_path
from vault.errors import FormatError, VaultError
from vault.format.entry import ID_SIZE, Entry
from vault.format.entry_encoding import (
    PART_LENGTHS,
    CanonicalPart,
    check_part_sizes,
    decode_entry,
    decode_shortest,
    legible_part,
)
from vault.format.entry_rules import check_entry, entry_error, is_plain
from vault.format.tree_order import PathSet, TreeOrder
from vault.model import MAX_PATH, EntryType

TREE_MAGIC = b"VAULTTR1"
MAX_TREE_HEADER = 1 << 20  # bytes
MAX_NAMED_ENTRIES = 10_000  # bad entries that a reader remembers by name; all are counted
MAX_BAD_ENTRIES = 1_000_000  # bad entries, and
MAX_BAD_BYTES = 4 << 30  # bytes of them, after which a tree ends: a few chunks can repeat for ever
MAX_STAND_INS = 64  # directories made for one entry whose own are missing
_LENGTH = struct.Struct("<I")
_DIRECTORY, _FILE = EntryType.DIRECTORY, EntryType.FILE  # looked up once, not for every file


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
_header_decoder = msgspec.msgpack.Decoder(TreeHeader)


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


def _check_header(header: TreeHeader) -> None:
    if len(header.key) != ID_SIZE:
        raise FormatError("tree header's key must be 32 bytes", found=len(header.key))


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
        self._files = PathSet()
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
                middle = at + PART_LENGTHS.size + _LENGTH.unpack_from(view, at)[0]
                canonical = bytes(view[at + PART_LENGTHS.size : middle])
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
        header = decode_shortest(
            _header_decoder, bytes(self._buffer[start : start + length]), "tree header"
        )
        _check_header(header)
        self.header = header
        return int(start + length)

    def _entry_end(self, at: int) -> int | None:
        """End of the entry at ``at``; None while it is not whole, or where the tree ends."""
        if len(self._buffer) - at < PART_LENGTHS.size:
            return None
        canonical, extra = PART_LENGTHS.unpack_from(self._buffer, at)
        try:
            check_part_sizes(canonical, extra)
        except FormatError as error:
            if self._flaws is None or not self._order.has_top:
                raise
            self.end(self._flaws, error)
            return None
        end = int(at + PART_LENGTHS.size + canonical + extra)
        return end if end <= len(self._buffer) else None

    def _place(self, entry: Entry, *, refused: bool = False) -> None:
        """Check the entry against those before it, and remember it."""
        if refused:
            raise entry_error(entry, "is out of order")
        if entry.type is EntryType.HARD_LINK and entry.link not in self._files:
            raise entry_error(entry, "is a hard link to no earlier file", repr(entry.link))
        flaw = self._order.flaw(entry.path, is_directory=entry.type is _DIRECTORY)
        if flaw:
            raise entry_error(entry, flaw)
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
        first = legible_part(canonical)
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

    def _stand_in(self, first: CanonicalPart) -> Entry | None:
        """A bare directory in place of a bad one, if it may be there."""
        if first.type != EntryType.DIRECTORY:
            return None
        try:
            entry = _bare_directory(first)
            self._place(entry)
        except FormatError:
            return None
        return entry

    def _make_directories(self, flaws: Flaws, first: CanonicalPart) -> list[Entry]:
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
        self, first: "CanonicalPart | None", error: FormatError, *, replaced: bool = False
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


def legible_path(canonical: bytes) -> bytes | None:
    """The path in an entry's canonical part, if it has one that a tree may hold."""
    first = legible_part(canonical)
    return first.path if first is not None and _is_placeable(first) else None


def _is_placeable(first: CanonicalPart) -> bool:
    return not first.path or (len(first.path) <= MAX_PATH and is_plain(first.path))


def _bare(path: bytes, uid: int = 0, gid: int = 0, mtime: int = 0) -> Entry:
    return Entry(path=path, type=EntryType.DIRECTORY, mode=0o700, uid=uid, gid=gid, mtime=mtime)


def _bare_directory(first: CanonicalPart) -> Entry:
    """Closed to others, as what its attributes allowed is not known; the owner's if legible."""
    entry = _bare(first.path, first.uid, first.gid, first.mtime)
    try:
        check_entry(entry)
    except FormatError:
        return _bare(first.path)
    return entry
