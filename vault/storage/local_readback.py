"""Reads files back past the page cache, and compares them with what was written."""

import hashlib
import mmap
import os
import threading

from vault.errors import StorageError
from vault.machine.page_cache import DIRECT_PIECE, evict, set_direct
from vault.storage.local_calls import READ_FLAGS


class DiskCheck:
    """Reads files back; any number of threads may use one."""

    def __init__(self) -> None:
        self._local = threading.local()

    def check(self, directory: int, file: str, name: str, size: int, sha256: bytes) -> None:
        """Pass if the disk gives back what was written.

        Raises:
            StorageError: It does not.
        """
        fd = os.open(file, READ_FLAGS, dir_fd=directory)
        try:
            if not set_direct(fd):
                evict(fd, size)
            digest, found = self._hash(fd)
        finally:
            os.close(fd)
        if (digest, found) != (bytes(sha256), size):
            raise StorageError(
                f"can't store {name}: the disk does not give back what was written to it",
                expected=f"{size} bytes with SHA-256 {sha256.hex()}",
                found=f"{found} bytes with SHA-256 {digest.hex()}",
                hint="check the disk, its controller and this machine's memory;"
                " nothing has been stored under that name",
            )

    def _hash(self, fd: int) -> tuple[bytes, int]:
        """SHA-256 and size. A short read marks the end: O_DIRECT can't read from there."""
        buffer = self._buffer()
        digest, offset, count = hashlib.sha256(), 0, DIRECT_PIECE
        while count == DIRECT_PIECE:
            count = os.preadv(fd, [buffer], offset)
            with memoryview(buffer) as view:
                digest.update(view[:count])
            offset += count
        return digest.digest(), offset

    def _buffer(self) -> mmap.mmap:
        """A buffer of this thread, aligned to a page as O_DIRECT requires."""
        if not hasattr(self._local, "buffer"):
            self._local.buffer = mmap.mmap(-1, DIRECT_PIECE)
        buffer: mmap.mmap = self._local.buffer
        return buffer
