"""Whether bytes that are read come from the disk: the kernel's page cache, and past it.

A drive's own cache may still answer; this module can't bypass that.
"""

import ctypes
import fcntl
import mmap
import os
from typing import Final

from vault.machine.libc import libc

DIRECT_PIECE: Final = 1 << 20  # bytes read at once; a multiple of every block size, for O_DIRECT
_WINDOW: Final = 1 << 30  # bytes of a file whose pages are looked up at once
_CACHESTAT: Final = 451  # its number on every architecture but alpha

libc.mincore.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p)


def evict(fd: int, size: int) -> bool:
    """Drop a file from the page cache; False if some of it is, or may be, still there.

    The kernel evicts only clean pages, so the caller syncs written data first.
    """
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    return not _is_resident(fd, size)


def set_direct(fd: int) -> bool:
    """Have a descriptor read past the page cache; False where the file system can't.

    Reads then begin and end at multiples of `DIRECT_PIECE`, into memory at a page's start.
    """
    try:
        fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_DIRECT)
    except OSError:
        return False
    return True


class _Range(ctypes.Structure):
    _fields_ = (("offset", ctypes.c_uint64), ("length", ctypes.c_uint64))


class _CacheStat(ctypes.Structure):
    _fields_ = tuple(
        (name, ctypes.c_uint64)
        for name in ("cached", "dirty", "writeback", "evicted", "recently_evicted")
    )


def _cached_pages(fd: int) -> int | None:
    """How many pages of a file are in the page cache, by cachestat(2); None if the call is missing.

    Linux has it since 6.5, and may allow it to the file's owner only. It takes a tenth of the
    time of a mapping for mincore(2).
    """
    whole, found = _Range(0, 0), _CacheStat()
    if libc.syscall(_CACHESTAT, fd, ctypes.byref(whole), ctypes.byref(found), 0):
        return None
    return int(found.cached)


def _is_resident(fd: int, size: int) -> bool:
    """Whether any page of the file is, or may be, in the page cache."""
    pages = _cached_pages(fd)
    if pages is not None:
        return pages > 0
    try:
        return any(
            _window_is_resident(fd, offset, min(_WINDOW, size - offset))
            for offset in range(0, size, _WINDOW)
        )
    except (OSError, ValueError):  # no mapping there, or cut short meanwhile
        return True


def _window_is_resident(fd: int, offset: int, length: int) -> bool:
    """By mincore(2), which looks without reading anything ahead."""
    pages = ctypes.create_string_buffer(-(-length // mmap.PAGESIZE))
    with mmap.mmap(fd, length, flags=mmap.MAP_PRIVATE, offset=offset) as view:
        start = ctypes.c_char.from_buffer(view)
        failed = libc.mincore(ctypes.addressof(start), length, pages)
        del start  # a mapping with a pointer into it can't be closed
    return bool(failed) or any(pages.raw)
