"""The tree of a snapshot as a stream: its header, its entries in turn (docs/format.md 8).

Pure: no I/O and no clock. The stream is untrusted: every malformed byte ends in a `FormatError`,
and memory holds no more than one entry. `entry` has the fields of an entry, `entry_rules` its
rules, `entry_encoding` its bytes. `tree_order` has the rules between entries, and `tree_levels`
says how a stream is kept in chunks.
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
# A tree ends after so many bad entries, or bytes of them: a few chunks can repeat for ever.
MAX_BAD_ENTRIES = 1_000_000
MAX_BAD_BYTES = 4 << 30
MAX_STAND_INS = 64  # missing directories that are made up for one entry
_LENGTH = struct.Struct("<I")
_DIRECTORY, _FILE = EntryType.DIRECTORY, EntryType.FILE  # looked up once, not for every file


class TreeHeader(
    msgspec.Struct, frozen=True, kw_only=True, array_like=True, forbid_unknown_fields=True
):
    """The beginning of the tree stream."""

    key: bytes  # 32 random bytes: the commitment's key, secret
    relative: bool  # names are relative to the one source
    sources: tuple[bytes, ...]  # the PATHs as given, absolute

    def __repr__(self) -> str:
        """The fields without the key."""
        return f"TreeHeader(relative={self.relative}, sources={self.sources})"


_encode = msgspec.msgpack.Encoder().encode
_header_decoder = msgspec.msgpack.Decoder(TreeHeader)


def encode_header(header: TreeHeader) -> bytes:
    """The beginning of the stream, magic included.

    Raises:
        FormatError: The header is over its cap, or a reader would refuse it.
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
    """An entry that breaks a rule, and what is still known of it. Everything is untrusted."""

    path: bytes | None  # None: its bytes don't say
    after: bytes  # path of the last good entry before it
    problem: str  # "has impossible holes"; holds no name
    found: str = ""
    replaced: bool = False  # a bare directory is given in its place, for the sake of its members

    @property
    def text(self) -> str:
        """The problem, without the path."""
        return f"{self.problem}: found {self.found}" if self.found else self.problem


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TreeEnd:
    """The place where reading a tree ended; entries before it are proven by the ids of chunks."""

    after: bytes  # path of the last entry that was read
    error: VaultError


class Flaws:
    """Entries that a reader of a tree stepped over; the first of them by name."""

    def __init__(self) -> None:
        self.named: list[BadEntry] = []
        self.count = 0
        self.misplaced = 0  # those of them that do not come after all before
        self.end: TreeEnd | None = None

    def __bool__(self) -> bool:
        """Whether anything of the tree is missing."""
        return bool(self.count or self.end)

    def add(self, bad: BadEntry) -> None:
        """Note an entry that is stepped over."""
        self.count += 1
        if len(self.named) < MAX_NAMED_ENTRIES:
            self.named.append(bad)

    @property
    def paths(self) -> dict[bytes, BadEntry]:
        """The bad entries by path; the first one for each path."""
        found: dict[bytes, BadEntry] = {}
        for bad in self.named:
            if bad.path is not None:
                found.setdefault(bad.path, bad)
        return found

    @property
    def all_named(self) -> bool:
        """Whether the paths of all entries that were stepped over are known."""
        named = len(self.named) == self.count and all(b.path is not None for b in self.named)
        return named and self.end is None


class TreeParser:
    """Parses a tree stream that arrives in pieces, and checks the rules between entries.

    Paths must be strictly ascending. The parent of an entry must be a directory that came
    before. A hard link must name a file that came before; this is checked by a hash of the
    path, so on a collision the link passes here and has no file to link to in the consumer.
    Memory holds one entry, the open directories, and 8 bytes for every file.

    Args:
        flaws: Collects entries that break a rule. The parser goes on after them, as the
            lengths in front of an entry say where the next one begins. A directory that is
            missing, or bad but legible, is replaced by a bare one (mode 0700), as otherwise
            all in it would be lost. Lengths beyond their caps, and an entry that is cut off,
            end the tree. None: the first fault is raised.
        kept: For each entry in turn, whether it is in its place. Others are stepped over, so
            that one early entry with a late path does not displace all others. None: an
            entry is in its place if it comes after all before it.
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
        """The entries that are now complete, each with its canonical part for the content root.

        None stands for an entry that was stepped over. A directory that stands in for a
        missing one has no canonical part.

        Raises:
            FormatError: The stream breaks a rule; the parser can't be used afterwards.
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
        """End the stream: no bytes follow.

        Raises:
            FormatError: The stream ends before the top directory, or within an entry.
        """
        if self._buffer or not self._order.has_top:
            error = FormatError("tree stream ends too early", found=f"{len(self._buffer)} bytes")
            if self._flaws is None or not self._order.has_top:
                raise error
            self.end(self._flaws, error)

    def end(self, flaws: Flaws, error: VaultError) -> None:
        """End the tree, as the rest can't be read; the first reason is kept."""
        flaws.end = flaws.end or TreeEnd(after=self._order.last_path, error=error)

    @property
    def has_entries(self) -> bool:
        """Whether any entry was good."""
        return self._order.has_top

    def _parse_header(self) -> int:
        """The place where entries begin; 0 while the header is incomplete."""
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
        """The end of the entry at ``at``; None if it is incomplete, or if the tree ends there."""
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
        """Whether too much of the tree is bad; it then ends here."""
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
        """The entries to give in place of a bad one, which is noted in ``flaws``."""
        first = legible_part(canonical)
        if first is not None and _is_placeable(first) and not refused:
            flaws.misplaced += not self._order.may_come(first.path)
            made = self._make_directories(flaws, first)
            yield from ((entry, b"") for entry in made)
            if made and (entry := self._again(canonical, extra)) is not None:
                yield entry, canonical  # only its directory was missing
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
        """A bare directory in place of a bad one, if one may come here."""
        if first.type != EntryType.DIRECTORY:
            return None
        try:
            entry = _bare_directory(first)
            self._place(entry)
        except FormatError:
            return None
        return entry

    def _make_directories(self, flaws: Flaws, first: CanonicalPart) -> list[Entry]:
        """Bare directories for those missing above an entry, the top included."""
        missing: list[bytes] = []
        path = first.path
        while path:
            path = path.rpartition(b"/")[0]
            if self._order.depth(path) or len(missing) > MAX_STAND_INS:
                break
            missing.append(path)
        if len(missing) > MAX_STAND_INS or not all(map(self._order.may_come, missing)):
            return []  # one of the names is taken by another type, or the order is wrong
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
    """A directory of the owner, if legible; closed to others, as its attributes are unknown."""
    entry = _bare(first.path, first.uid, first.gid, first.mtime)
    try:
        check_entry(entry)
    except FormatError:
        return _bare(first.path)
    return entry
