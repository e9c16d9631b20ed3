"""Turns a source's entries into records for the tree, the entry list and the journal.

Pure. One function for each kind of entry. Records keep the rules that readers enforce (I11), as
otherwise one bad entry would make the snapshot unreadable. An entry that breaks a rule is mended,
or reported as a problem of that one file.
"""

import os
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple, TypeAlias

from vault.errors import FormatError
from vault.format.entry import ID_SIZE, MAX_META_NAME, MAX_TIME, MIN_TIME, Entry, replace_entry
from vault.format.entry_encoding import MAX_CANONICAL, encode_canonical, encode_entry
from vault.format.entry_rules import broken_rule
from vault.machine import metadata
from vault.model import SYMLINK_MODE, EntryType
from vault.snapshot import walk
from vault.snapshot.chunks_and_holes import Extents
from vault.snapshot.list_records import ListRecord

_FILE, _SYMLINK = EntryType.FILE, EntryType.SYMLINK  # looked up once, not for every file
_DEVICES = frozenset((EntryType.CHARACTER_DEVICE, EntryType.BLOCK_DEVICE))
_U64 = 2**64 - 1
_NO_OWNER = 65_534  # what the kernel shows for an owner that it can't map
_NAMED = 5  # attributes named in a message

Holes: TypeAlias = tuple[tuple[int, int], ...]


class Recorded(NamedTuple):
    """The record of one thing that the walk met."""

    record: ListRecord | None  # None: every reader would refuse it; `lost` says why
    lost: Sequence[str] = ()  # what is not stored, which makes the snapshot incomplete
    altered: Sequence[str] = ()  # what is stored with a changed value


class Mended(NamedTuple):
    """An entry that was changed to keep the rules, as far as the right value is obvious."""

    entry: Entry
    lost: Sequence[str]  # as in `Recorded`
    altered: Sequence[str]


# --- records ---


def file_record(  # noqa: PLR0917 - one call for every file
    path: bytes,
    stat: os.stat_result,
    size: int,
    sha256: bytes,
    ids: Sequence[bytes],
    xattrs: metadata.Xattrs | None,
    read_ns: int,
) -> Recorded:
    """The record of a file that was read whole; the storing of chunks adds `ListRecord.packs`.

    Args:
        path: The path in the tree.
        stat: The status after the file was read.
        size: Bytes that were read.
        sha256: Their SHA-256.
        ids: The ids of its chunks.
        xattrs: None if there are none.
        read_ns: When reading began. 0 if the times of the file say nothing about what was
            read, or if not all could be read: the next run then reads, and reports, it again.
    """
    chunks = b"".join(ids) if len(ids) > 1 else b""
    return recorded(_file_entry(path, stat, size, sha256, chunks, xattrs), stat, read_ns)


def large_record(  # noqa: PLR0917 - as `file_record`
    path: bytes,
    stat: os.stat_result,
    size: int,
    digest: bytes,
    extents: Extents,
    xattrs: metadata.Xattrs | None,
    read_ns: int,
    *,
    is_tree_hash: bool,
) -> Recorded:
    """The record of a file that was read in pieces; as `file_record`.

    Args:
        path: The path in the tree.
        stat: The status after the file was read.
        size: Bytes that were read, with those in holes.
        digest: Their digest.
        extents: The chunks and holes of the file.
        xattrs: None if there are none.
        read_ns: When reading began; 0 if the times of the file say nothing about what was read.
        is_tree_hash: Whether the digest is a tree hash.
    """
    entry = _file_entry(path, stat, size, None if is_tree_hash else digest, b"", xattrs)
    if is_tree_hash:
        entry = replace_entry(entry, tree_hash=digest)
    return recorded(extents.describe(entry), stat, read_ns)


def _file_entry(  # noqa: PLR0917 - one call for every file
    path: bytes,
    stat: os.stat_result,
    size: int,
    sha256: bytes | None,
    chunks: bytes,
    xattrs: metadata.Xattrs | None,
) -> Entry:
    uid, gid = stat.st_uid, stat.st_gid
    user, group = walk.owner_names(uid, gid)
    return Entry(
        path=path,
        type=_FILE,
        mode=stat.st_mode & metadata.MODE_BITS,
        uid=uid,
        gid=gid,
        mtime=stat.st_mtime_ns,
        size=size,
        sha256=sha256,
        xattrs=xattrs,
        chunks=chunks,
        user=user,
        group=group,
        ctime=stat.st_ctime_ns,
    )


def other_record(
    item: walk.SourceItem,
    kind: EntryType,
    *,
    link: bytes | None,
    xattrs: metadata.Xattrs | None,
    read_ns: int,
) -> Recorded:
    """The record of a directory, a link, or something else without content."""
    stat = item.stat
    assert stat is not None
    uid, gid = stat.st_uid, stat.st_gid
    user, group = walk.owner_names(uid, gid)
    entry = Entry(
        path=item.path,
        type=kind,
        mode=SYMLINK_MODE if kind is _SYMLINK else stat.st_mode & metadata.MODE_BITS,
        uid=uid,
        gid=gid,
        mtime=stat.st_mtime_ns,
        link=item.link if link is None else link,
        device=stat.st_rdev & _U64 if kind in _DEVICES else None,
        xattrs=xattrs,
        user=user,
        group=group,
        ctime=stat.st_ctime_ns,
    )
    return recorded(entry, stat, read_ns)


def stream_record(entry: Entry) -> ListRecord:
    """A record that is never taken for unchanged, as a stream has no times to compare.

    Raises:
        FormatError: Every reader would refuse the entry.
    """
    canonical, extra = encode_entry(entry)
    return ListRecord(
        path=entry.path,
        size=entry.size,
        mtime=entry.mtime,
        ctime=0,
        inode=0,
        dev=0,
        read_ns=0,
        packs=b"",
        canonical=canonical,
        extra=extra,
    )


def recorded(entry: Entry, stat: os.stat_result, read_ns: int) -> Recorded:
    """The record of an entry, mended where it breaks a rule that readers have (I11)."""
    lost: Sequence[str] = ()
    altered: Sequence[str] = ()
    try:
        canonical, extra = encode_entry(entry)
    except FormatError:
        entry, lost, altered = mend(entry)
        try:
            canonical, extra = encode_entry(entry)
        except FormatError as error:
            return Recorded(None, (*lost, _why_not(entry, error)), altered)
    record = ListRecord(  # a clamped time differs from the file's, so it is read again
        entry.path,
        stat.st_size,
        entry.mtime,
        entry.ctime,
        stat.st_ino & _U64,
        stat.st_dev & _U64,
        0 if lost else read_ns,
        b"",
        canonical,
        extra,
    )
    return Recorded(record, lost, altered)


def _why_not(entry: Entry, error: FormatError) -> str:
    broken = broken_rule(entry)
    return f"it {broken[0]} ({broken[1]}), which can't be stored" if broken else str(error)


# --- mending ---


def mend(entry: Entry) -> Mended:
    """The entry, changed so that readers accept it, where the right value is obvious.

    Times become the nearest that can be stored. Holes are ordered, merged and cut to the size.
    An owner's name that is too long becomes an unknown one, and the number -1 becomes 65534.
    Of attributes with one name the first stays. Where no value is obvious the entry stays as
    it is, and `encode_entry` refuses it.
    """
    altered = []
    if not MIN_TIME <= entry.mtime <= MAX_TIME:
        altered.append("its mtime lies beyond what can be stored")
    if len(entry.user) > MAX_META_NAME or len(entry.group) > MAX_META_NAME:
        altered.append("its owner's name is too long to be stored")
    if min(entry.uid, entry.gid) == -1:  # so Python shows the highest number
        altered.append("its owner's number is none that an owner can have")
    xattrs, lost = _mended_xattrs(entry.xattrs)
    holes = fitting_holes(entry.holes or (), entry.size)
    is_whole = holes is None and len(entry.chunks) == ID_SIZE and entry.tree_hash is None
    entry = replace_entry(
        entry,
        uid=_NO_OWNER if entry.uid == -1 else entry.uid,
        gid=_NO_OWNER if entry.gid == -1 else entry.gid,
        mtime=_clamped(entry.mtime),
        ctime=_clamped(entry.ctime),
        user=entry.user if len(entry.user) <= MAX_META_NAME else "",
        group=entry.group if len(entry.group) <= MAX_META_NAME else "",
        holes=holes,
        chunks=b"" if is_whole else entry.chunks,  # its SHA-256 gives the id
        xattrs=xattrs,
    )
    return Mended(*_fitting(entry, lost), altered)


def fitting_holes(holes: Iterable[tuple[int, int]], size: int) -> Holes | None:
    """Holes, ordered, merged and cut to the file's size in bytes; None if none is left."""
    found: list[tuple[int, int]] = []
    for offset, length in sorted(holes):
        start, end = max(offset, 0), min(offset + length, size)
        if found and start <= sum(found[-1]):
            start, end = found[-1][0], max(end, sum(found[-1]))
            found.pop()
        if start < end:
            found.append((start, end - start))
    return tuple(found) or None


def _clamped(time: int) -> int:
    return max(MIN_TIME, min(time, MAX_TIME))


def _mended_xattrs(xattrs: metadata.Xattrs | None) -> tuple[metadata.Xattrs | None, list[str]]:
    """Attributes, sorted, each name once; those with an impossible name are left out."""
    first = dict(reversed(xattrs or ()))
    good = {name for name in first if 0 < len(name) <= MAX_META_NAME and b"\0" not in name}
    lost = [_left_out(first.keys() - good, "no attribute can have such a name")]
    return tuple(sorted((name, first[name]) for name in good)) or None, list(filter(None, lost))


def _fitting(entry: Entry, lost: list[str]) -> tuple[Entry, list[str]]:
    """The entry without its largest attributes, as many as make it too long.

    ACLs and capabilities are small, so they stay.
    """
    largest = sorted(entry.xattrs or (), key=lambda xattr: len(xattr[1]))
    dropped: list[bytes] = []
    while largest and (excess := len(encode_canonical(entry)) - MAX_CANONICAL) > 0:
        while largest and excess > 0:
            name, value = largest.pop()
            dropped.append(name)
            excess -= len(name) + len(value)
        entry = replace_entry(entry, xattrs=tuple(sorted(largest)) or None)
    if dropped:
        lost.append(_left_out(dropped, f"together they are over {MAX_CANONICAL >> 20} MiB"))
    return entry, lost


def _left_out(names: Collection[bytes], reason: str) -> str:
    if not names:
        return ""
    shown = ", ".join(metadata.xattr_text(name[:80]) for name in sorted(names)[:_NAMED])
    more = f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
    return f"{shown}{more} left out: {reason}"
