"""The lock of a version of an object in a directory: its file, and the kernel's immutable flag."""

import contextlib
import fcntl
import sys

from vault.clock import from_rfc3339, to_rfc3339
from vault.encoding import dumps, loads_strict
from vault.errors import (
    FormatError,
)
from vault.model import LockMode, Retention
from vault.storage.lock_rules import Lock

MAX_LOCK_FILE = 4096  # bytes; those of the vault have about 80

# linux/fs.h, 64-bit; FS_IMMUTABLE_FL
_GET_FLAGS, _SET_FLAGS, _IMMUTABLE = 0x80086601, 0x40086602, 0x10


def format_lock(lock: Lock) -> bytes:
    """The bytes of a lock file."""
    retention = lock.retention
    return dumps(
        {
            "hold": lock.hold,
            "mode": str(retention.mode) if retention else None,
            "until": to_rfc3339(retention.until) if retention else None,
        }
    )


def parse_lock(path: str, data: bytes) -> Lock:
    """The lock that a file states; an unreadable one raises, and so forbids every change.

    Raises:
        FormatError: Anything but what `format_lock` makes.
    """
    try:
        fields = loads_strict(data) if len(data) <= MAX_LOCK_FILE else None
        match fields:
            case {"hold": bool(hold), "mode": None, "until": None}:
                return Lock(hold=hold)
            case {
                "hold": bool(hold),
                "mode": "governance" | "compliance" as mode,
                "until": str(until),
            }:
                retention = Retention(mode=LockMode(mode), until=from_rfc3339(until))
                return Lock(retention=retention, hold=hold)
            case _:
                found = "not a lock"
    except FormatError as error:
        found = str(error)
    raise FormatError(
        f"lock file .retention/{path} can't be read",
        found=found,
        hint="nothing deletes or extends that object until the file is restored",
    )


def set_immutable(fd: int, *, on: bool) -> None:
    """Set or clear the kernel's immutable flag, if the file system and this user's rights allow."""
    flags = bytearray(8)
    with contextlib.suppress(OSError):
        fcntl.ioctl(fd, _GET_FLAGS, flags)
        before = int.from_bytes(flags[:4], sys.byteorder)
        after = before | _IMMUTABLE if on else before & ~_IMMUTABLE
        if after != before:
            fcntl.ioctl(fd, _SET_FLAGS, after.to_bytes(4, sys.byteorder))
