"""Reads attributes of items that have no content, or are a further name of a file."""

import errno
import os

from vault.machine import metadata
from vault.model import EntryType
from vault.snapshot import safe_open
from vault.snapshot.links import state_of
from vault.snapshot.walk import SourceItem


def read_attributes(
    item: SourceItem, problems: list[str], state: bytes = b""
) -> tuple[SourceItem, metadata.Xattrs | None]:
    """The item as it is now, if it still has its type, with its attributes.

    Args:
        item: The item as the walk met it.
        problems: Collects attributes that can't be read.
        state: The state that it must have, before and after; empty: any.

    Raises:
        OSError: It vanished, is of another type, can't be read, or is not in that state.
    """
    met = item.stat
    assert met is not None
    fd, found = safe_open.open_described(item.full, met)
    try:
        if item.type is EntryType.SYMLINK:  # a symlink's target is never changed in place
            item = item._replace(stat=found, link=safe_open.read_link(b"", fd))
        elif not os.path.samestat(found, met):
            item = item._replace(stat=found)
        xattrs = metadata.read_xattrs(b"/proc/self/fd/%d" % fd, problems)
        if state and not state == state_of(found) == state_of(os.fstat(fd)):
            raise OSError(errno.ESTALE, "changed since it was listed")
        return item, xattrs
    finally:
        os.close(fd)
