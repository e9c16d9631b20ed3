"""A last look before the exchange: has the staged tree changed since it was read back?

Reading a tree back takes time. Meanwhile a program of root's, which mode 0700 does not keep
out, can change a file that was read already. The kernel sets an inode's time of change (ctime)
with every change of content or attributes. So the ctimes seen by the reading are kept, and
compared with those of the last look.
"""

import array
import os
import stat
from collections.abc import Iterator

from vault.errors import LocalError
from vault.restore.syscalls import Fs, OpenDirectories, join, list_names, local_error


class Stillness:
    """ctimes of all entries as they were read, in the order of the tree: 8 bytes an entry."""

    def __init__(self) -> None:
        self._changes = array.array("q")

    def saw(self, change: int) -> None:
        """Note the next entry's ctime when it was read, ns."""
        self._changes.append(change)

    @property
    def newest(self) -> int | None:
        """The latest of all below the top; None where there is nothing."""
        return max(self._changes[1:], default=None)

    def check(self, root: int, fs: Fs) -> None:
        """Look at every entry again.

        Args:
            root: Descriptor of the top.
            fs: System calls.

        Raises:
            LocalError: One was changed after it was read, or the disk failed.
        """
        seen = iter(self._changes)
        try:
            for path, status in walk_target(root, fs):
                before = next(seen, None)
                if before is None or status.st_ctime_ns > before:
                    raise _changed(path)
        except OSError as error:
            raise local_error("look again at", b"the staged tree", error) from error
        if next(seen, None) is not None:
            raise _changed(b"")


def newest_change(root: int, fs: Fs) -> int | None:
    """The latest time of change below a top, ns; None where there is nothing.

    Raises:
        OSError: The disk failed.
    """
    return max((status.st_ctime_ns for path, status in walk_target(root, fs) if path), default=None)


def walk_target(root: int, fs: Fs) -> Iterator[tuple[bytes, os.stat_result]]:
    """An open directory and every object below it, in the order of the tree; reads no content.

    Raises:
        OSError: It can't be listed.
    """
    directories = OpenDirectories(root, fs)
    try:
        yield b"", os.fstat(root)
        stack = [(b"", iter(list_names(root)))]
        while stack:
            around, names = stack[-1]
            name = next(names, None)
            if name is None:
                stack.pop()
                directories.forget(around)
                continue
            path = join(around, name)
            status = os.stat(name, dir_fd=directories.open(around), follow_symlinks=False)
            yield path, status
            if stat.S_ISDIR(status.st_mode):
                stack.append((path, iter(list_names(directories.open(path)))))
    finally:
        directories.close()


def _changed(path: bytes) -> LocalError:
    return LocalError(
        f"staged {os.fsdecode(path) or 'tree'!r} changed after it was read back",
        hint="another program of this machine changes what is staged; nothing was exchanged",
    )
