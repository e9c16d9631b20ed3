"""Finds names of one file (I12, docs/invariants.md): an inode number alone proves nothing.

A freed inode number is given out again, even within a run, and some file systems show one number
for two files. So a name is a link to an earlier one only if both were read as one inode in one
state. Where even that proves too little, the contents are compared.
"""

import hashlib
import os
from collections.abc import Callable
from typing import NamedTuple

import msgspec

from vault.format.entry_encoding import decode_entry
from vault.snapshot.list_records import ListRecord

_TICK_NS = 2 * 10**9  # no file system with hard links has coarser times
_DIGEST = 32  # bytes
_encode = msgspec.msgpack.Encoder().encode


def state_of(stat: os.stat_result) -> bytes:
    """The inode and its state; this changes with the content, the attributes, and the names."""
    return b"%x.%x.%x.%x.%x.%x.%x.%x" % (
        stat.st_dev,
        stat.st_ino,
        stat.st_size,
        stat.st_mtime_ns,
        stat.st_ctime_ns,
        stat.st_mode,
        stat.st_uid,
        stat.st_gid,
    )


def contents_of(record: ListRecord) -> bytes:
    """32 bytes that differ if the contents or extended attributes of two files do."""
    entry = decode_entry(record.canonical, record.extra)
    return hashlib.sha256(_encode((entry.sha256, entry.tree_hash, entry.xattrs))).digest()


class First(NamedTuple):
    """The name under which a file is in the tree."""

    path: bytes
    contents: bytes  # `contents_of`
    is_sure: bool  # the same state proves the same content


class Links:
    """Files with several names that a run has met; takes some 200 bytes for each.

    Args:
        invents_inodes: Whether the inode numbers of a device may be made up.
    """

    def __init__(self, invents_inodes: Callable[[int], bool]) -> None:
        self._invents_inodes = invents_inodes
        self._inventive: dict[int, bool] = {}  # by device
        # state -> u8 is sure ‖ contents ‖ path; empty: not in the tree yet
        self._first: dict[bytes, bytes] = {}

    def meet(self, state: bytes) -> bool:
        """Note a file that the walk met; returns whether one in that state was met before."""
        known = state in self._first
        if not known:
            self._first[state] = b""
        return known

    def stored(self, state: bytes, record: ListRecord) -> None:
        """Note that the tree has the content that was read of a file in that state.

        One state may stand for two contents if inode numbers are made up, or if the file was
        read so soon after its last change that another file may have got the same number and
        times since.
        """
        if not self._first.get(state):
            young = max(record.mtime, record.ctime) + _TICK_NS >= record.read_ns
            is_sure = not (young or self._is_inventive(record.dev))
            self._first[state] = bytes((is_sure,)) + contents_of(record) + record.path

    def first(self, state: bytes) -> First | None:
        """The first name of a file that was read in that state; None if there is none."""
        found = self._first.get(state)
        return First(found[_DIGEST + 1 :], found[1 : _DIGEST + 1], found[0] == 1) if found else None

    def _is_inventive(self, device: int) -> bool:
        if device not in self._inventive:
            self._inventive[device] = self._invents_inodes(device)
        return self._inventive[device]
