"""What a source's entries become: records for the tree, the entry list and the journal.

Pure. One function for each kind of entry, whoever has read it.
"""

import os
from collections.abc import Sequence

from vault import fsmeta, source
from vault.entrylist import ListRecord
from vault.model import EntryType
from vault.tree import Entry, canonical_of, encode_canonical, encode_extra, extra_of

_FIRST_TIME, _LAST_TIME = -(2**63), 2**63 - 1  # ns, docs/format.md 8: the years 1677 and 2262
_FILE = EntryType.FILE  # looked up once, not for every file
_DEVICES = frozenset((EntryType.CHARACTER_DEVICE, EntryType.BLOCK_DEVICE))


def is_storable(mtime: int) -> bool:
    """Whether the tree can hold this time."""
    return _FIRST_TIME <= mtime <= _LAST_TIME


def file_record(  # noqa: PLR0917 - one call for every file
    path: bytes,
    stat: os.stat_result,
    size: int,
    sha256: bytes,
    ids: Sequence[bytes],
    holes: tuple[tuple[int, int], ...] | None,
    xattrs: fsmeta.Xattrs | None,
    read_ns: int,
) -> ListRecord:
    """Of a file that was read; `ListRecord.packs` is left to who stores its chunks.

    Args:
        path: In the tree.
        stat: As it was when the file had been read.
        size: Bytes that were read.
        sha256: Of them.
        ids: Of its chunks.
        holes: None without any.
        xattrs: None without any.
        read_ns: When reading began; 0 if its times say nothing about what was read.
    """
    mtime = _stored(stat.st_mtime_ns)
    user, group = source.owner_names(stat.st_uid, stat.st_gid)
    canonical = canonical_of(
        path,
        _FILE,
        stat.st_mode & fsmeta.MODE_BITS,
        stat.st_uid,
        stat.st_gid,
        mtime,
        size=size,
        sha256=sha256,
        xattrs=xattrs,
    )
    chunks = b"".join(ids) if len(ids) > 1 or holes else b""
    extra = extra_of(chunks, user, group, stat.st_ctime_ns, holes)
    return _record(path, stat, mtime, read_ns, canonical, extra)


def other_record(
    item: source.SourceItem,
    kind: EntryType,
    *,
    link: bytes | None,
    xattrs: fsmeta.Xattrs | None,
    read_ns: int,
) -> ListRecord:
    """Of a directory, a link, or something else without content."""
    stat = item.stat
    assert stat is not None
    mtime = _stored(stat.st_mtime_ns)
    user, group = source.owner_names(stat.st_uid, stat.st_gid)
    canonical = canonical_of(
        item.path,
        kind,
        stat.st_mode & fsmeta.MODE_BITS,
        stat.st_uid,
        stat.st_gid,
        mtime,
        link=link or item.link,
        device=stat.st_rdev if kind in _DEVICES else None,
        xattrs=xattrs,
    )
    extra = extra_of(b"", user, group, stat.st_ctime_ns, None)
    return _record(item.path, stat, mtime, read_ns, canonical, extra)


def stream_record(entry: Entry) -> ListRecord:
    """A record that is never taken for unchanged: nobody can say what a stream was."""
    return ListRecord(
        path=entry.path,
        size=entry.size,
        mtime=entry.mtime,
        ctime=0,
        inode=0,
        dev=0,
        read_ns=0,
        packs=b"",
        canonical=encode_canonical(entry),
        extra=encode_extra(entry),
    )


def _stored(mtime: int) -> int:
    return max(_FIRST_TIME, min(mtime, _LAST_TIME))


def _record(  # noqa: PLR0917 - one call for every file
    path: bytes, stat: os.stat_result, mtime: int, read_ns: int, canonical: bytes, extra: bytes
) -> ListRecord:
    return ListRecord(
        path,
        stat.st_size,
        mtime,
        stat.st_ctime_ns,
        stat.st_ino,
        stat.st_dev,
        read_ns,
        b"",
        canonical,
        extra,
    )
