"""Reads the attributes of what a walk met and that has no content, or is a further name."""

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
    """What has an item's path now, if it is of its type, with its attributes.

    Args:
        item: As the walk met it.
        problems: Takes what can't be read of it.
        state: It must be in this state, before and after.

    Raises:
        OSError: It vanished, is of another type, can't be read, or is not in that state.
    """
    met = item.stat
    assert met is not None
    fd, found = safe_open.open_described(item.full, met)
    try:
        if item.type is EntryType.SYMLINK:  # what it points to is never written anew in place
            item = item._replace(stat=found, link=safe_open.read_link(b"", fd))
        elif not os.path.samestat(found, met):
            item = item._replace(stat=found)
        xattrs = metadata.read_xattrs(b"/proc/self/fd/%d" % fd, problems)
        if state and not state == state_of(found) == state_of(os.fstat(fd)):
            raise OSError(errno.ESTALE, "changed since it was listed")
        return item, xattrs
    finally:
        os.close(fd)
