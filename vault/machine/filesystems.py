"""Identity of a mounted file system: its type, its UUID, and for a snapshot when it was taken.

Times and inode numbers of files can be compared only within one file system, so code that
compares them asks here first. A plain user can learn all of this; unknown fields are empty.
"""

import contextlib
import fcntl
import os
import struct
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from vault.machine.mounts import Mount

_DEVICES = Path("/sys/dev/block")
_UDEV = Path("/run/udev/data")

_ON_DISK = frozenset({b"ext2", b"ext3", b"ext4", b"xfs", b"f2fs"})
"""Those whose inode numbers stay, whose ctime follows the clock, and that have a UUID."""

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def _reads(kind: int, number: int, size: int) -> int:
    """An ioctl's number, _IOR of asm-generic/ioctl.h; on other machines the kernel refuses it."""
    return 2 << 30 | size << 16 | kind << 8 | number


_UUID = struct.Struct("B16s")  # struct fsuuid2 of linux/fs.h
_GET_UUID = _reads(0x15, 0, _UUID.size)
# struct btrfs_ioctl_fs_info_args and btrfs_ioctl_get_subvol_info_args of linux/btrfs.h
_BTRFS = struct.Struct("<QQ16s992x")  # …, …, UUID
_BTRFS_INFO = _reads(0x94, 31, _BTRFS.size)
_SUBVOLUME = struct.Struct("<8x256x8x8x8xQ16s16s16sQQ8x8x16xQI4x16x16x64x")
_SUBVOLUME_INFO = _reads(0x94, 60, _SUBVOLUME.size)
_READ_ONLY = 1  # BTRFS_ROOT_SUBVOL_RDONLY


class FileSystem(msgspec.Struct, frozen=True, array_like=True):
    """Identity of a file system, as far as the kernel and udev give it."""

    kind: str = ""  # its type, as the mount table has it
    identity: str = ""  # equal for it and its snapshots: UUID, and subvolume; empty: not known
    volume: str = ""  # distinguishes its snapshots; empty: only the device number does
    is_frozen: bool = False  # a read-only snapshot, or mounted read-only
    taken: int = 0  # when the snapshot was, ns since 1970; 0: not known


def learn(directory: bytes, expected: os.stat_result, table: Sequence[Mount]) -> FileSystem:
    """Which file system a directory is on.

    Args:
        directory: Absolute path.
        expected: Its status: if another directory is there now, the answer is empty.
        table: The mount table.
    """
    device = expected.st_dev
    found = [mount for mount in table if mount.device == device]
    kind = found[-1].kind if found else b""
    named = FileSystem(kind=os.fsdecode(kind))
    try:
        fd = os.open(directory, _DIRECTORY)
    except OSError:
        return named
    try:
        if not os.path.samestat(os.fstat(fd), expected):
            return named
        if kind in (b"", b"btrfs"):  # the table has no device number of a btrfs subvolume
            return _btrfs(fd) or named
        if kind == b"zfs":
            return _zfs(os.fsdecode(found[-1].what))
        if kind in _ON_DISK:
            return msgspec.structs.replace(
                named,
                identity=_uuid(fd) or _udev_uuid(device),
                volume=_volume(_DEVICES / f"{os.major(device)}:{os.minor(device)}"),
                is_frozen=bool(os.fstatvfs(fd).f_flag & os.ST_RDONLY),
            )
    except OSError:
        pass
    finally:
        os.close(fd)
    return named


def _btrfs(fd: int) -> FileSystem | None:
    """Identity of a btrfs subvolume; a read-only snapshot never written to has its origin's."""
    file_system = _ask(fd, _BTRFS_INFO, _BTRFS)
    found = _ask(fd, _SUBVOLUME_INFO, _SUBVOLUME)
    if file_system is None or found is None:
        return None
    flags, own, origin, received, written, made, seconds, nanoseconds = found
    if not any(own):  # made by a program of before 2012
        return FileSystem(kind="btrfs")
    is_snapshot = any(origin) and not any(received)
    is_frozen = is_snapshot and bool(flags & _READ_ONLY) and written <= made
    subvolume = origin if is_frozen else own
    return FileSystem(
        kind="btrfs",
        identity=f"{uuid.UUID(bytes=file_system[2])} {uuid.UUID(bytes=subvolume)}",
        volume=str(uuid.UUID(bytes=own)),
        is_frozen=is_frozen,
        taken=seconds * 1_000_000_000 + nanoseconds if is_frozen else 0,
    )


def _zfs(mounted: str) -> FileSystem:
    """Identity by name (pool/dataset, pool/dataset@snapshot): only ZFS's own tools know a UUID."""
    dataset, at, _ = mounted.partition("@")
    return FileSystem(kind="zfs", identity=dataset, volume=mounted, is_frozen=bool(at))


def _ask(fd: int, request: int, answer: struct.Struct) -> tuple[Any, ...] | None:
    buffer = bytearray(answer.size)
    try:
        fcntl.ioctl(fd, request, buffer)
    except OSError:  # the file system does not have this ioctl
        return None
    return answer.unpack(buffer)


def _uuid(fd: int) -> str:
    """The UUID, which kernels give from 6.10 on; empty if there is none."""
    found = _ask(fd, _GET_UUID, _UUID)
    return str(found[1].hex()) if found and any(found[1]) else ""


def _udev_uuid(device: int) -> str:
    """The UUID that udev found when the device appeared."""
    place = _UDEV / f"b{os.major(device)}:{os.minor(device)}"
    with contextlib.suppress(OSError):
        for line in place.read_text(errors="replace").splitlines():
            if line.startswith("E:ID_FS_UUID="):
                return line.partition("=")[2].replace("-", "").lower()
    return ""


def _volume(device: Path) -> str:
    """Identity of a block device's volume: device numbers are reused.

    For the device mapper its UUID; for a loop device the file behind it and the sequence number
    of this use. Empty for a disk.
    """
    for place in (device, device / ".."):  # a partition's own directory is in the disk's
        with contextlib.suppress(OSError):
            if name := (place / "dm/uuid").read_text(errors="replace").strip():
                return f"dm {name}"
        with contextlib.suppress(OSError):
            behind = (place / "loop/backing_file").read_text(errors="replace").strip()
            return f"loop {(place / 'diskseq').read_text().strip()} {behind}"
    return ""
