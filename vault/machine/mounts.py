"""The mount table of this process: what is mounted where, and what follows from its type."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

_MOUNTS: Final = Path("/proc/self/mountinfo")
_OCTAL: Final = re.compile(rb"\\([0-7]{3})")

_IN_MEMORY: Final = frozenset({b"tmpfs", b"ramfs"})
_INVENTIVE: Final = frozenset(
    {b"fuse", b"fuseblk", b"overlay", b"aufs", b"unionfs", b"cifs", b"smb3", b"9p", b"virtiofs"}
)


class Mount(NamedTuple):
    """A line of the mount table."""

    device: int  # `st_dev`
    kind: bytes  # type of the file system
    what: bytes  # is mounted, as the table spells it
    path: bytes  # where


def mounts(mountinfo: Path = _MOUNTS) -> Iterator[Mount]:
    """Every mounted file system; none where the system has no such table.

    Lines that are malformed are passed over. Source: proc_pid_mountinfo(5).
    """
    try:
        lines = mountinfo.read_bytes().splitlines()
    except OSError:
        return
    for line in lines:
        mount = _parse(line)
        if mount is not None:
            yield mount


def in_memory(mountinfo: Path = _MOUNTS) -> frozenset[int]:
    """`st_dev` of every tmpfs and ramfs: no disk to read back from, and times that prove nothing.

    Empty where the system has no mount table.
    """
    return frozenset(mount.device for mount in mounts(mountinfo) if mount.kind in _IN_MEMORY)


def invents_inodes(device: int, mountinfo: Path = _MOUNTS) -> bool:
    """Whether inode numbers of a device may be made up, so that two files can have one.

    Programs behind FUSE, network protocols and unions of file systems do so
    (libfuse/libfuse#79, rfjakob/gocryptfs#149). False where the system has no mount table.
    """
    return any(
        mount.kind in _INVENTIVE or mount.kind.startswith(b"fuse.")
        for mount in mounts(mountinfo)
        if mount.device == device
    )


def _parse(line: bytes) -> Mount | None:
    """From ``36 35 0:25 / /tmp rw … - tmpfs tmpfs rw``; odd bytes of a path are octal."""
    front, dash, back = line.partition(b" - ")
    fields = front.split(b" ")
    if not dash or len(fields) < 5:
        return None
    major, _, minor = fields[2].partition(b":")
    if not (major.isdigit() and minor.isdigit()):
        return None
    kind, _, rest = back.partition(b" ")
    return Mount(
        device=os.makedev(int(major), int(minor)),
        kind=kind,
        what=rest.partition(b" ")[0],
        path=_OCTAL.sub(lambda match: bytes([int(match[1], 8)]), fields[4]),
    )
