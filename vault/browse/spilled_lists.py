"""Sequences on local disk: the chunks and holes of a giant file are too many for memory."""

import os
import tempfile
import weakref
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import overload

from vault.errors import LocalError
from vault.machine.lru import Recent

_PAGE = 65_536  # bytes, about; whole items
_PAGES = 64  # kept: the first steps of every search are the same


class Items(Sequence[bytes]):
    """Items of one width, added in order and then read at random.

    Args:
        directory: On local disk. The file has no name there.
        width: Bytes of an item.
        page: Bytes read at once, about: whole items.
        pages: How many of these are kept in memory.

    Raises:
        LocalError: The disk is full or failed.
    """

    def __init__(
        self, directory: Path, width: int, *, page: int = _PAGE, pages: int = _PAGES
    ) -> None:
        self._width = width
        self._in_page = page // width
        self._pages: Recent[int, bytes] = Recent(pages)
        self._count = 0
        try:
            self._fd, name = tempfile.mkstemp(dir=directory)
            weakref.finalize(self, os.close, self._fd)
            Path(name).unlink()
        except OSError as error:
            raise LocalError(f"can't write in {directory}", found=error.strerror) from error

    def extend(self, items: Iterable[bytes]) -> None:
        """Add the next ones; only before the first read."""
        rest = memoryview(b"".join(items))
        self._count += len(rest) // self._width
        try:
            while rest:
                rest = rest[os.write(self._fd, rest) :]
        except OSError as error:
            raise LocalError("can't keep a file's chunks on disk", found=error.strerror) from error

    def __len__(self) -> int:
        """Items added."""
        return self._count

    @overload
    def __getitem__(self, at: int) -> bytes: ...
    @overload
    def __getitem__(self, at: slice) -> list[bytes]: ...
    def __getitem__(self, at: int | slice) -> bytes | list[bytes]:
        """One, or a list of some.

        Raises:
            LocalError: The disk failed.
        """
        if isinstance(at, slice):
            return [self[each] for each in range(*at.indices(self._count))]
        if not -self._count <= at < self._count:
            raise IndexError(at)
        page, place = divmod(at % self._count, self._in_page)
        start = place * self._width
        return self._page(page)[start : start + self._width]

    def _page(self, number: int) -> bytes:
        page = self._pages.get(number)
        if page is None:
            size = self._in_page * self._width
            try:
                page = os.pread(self._fd, size, number * size)
            except OSError as error:
                raise LocalError("can't read a file's chunks", found=error.strerror) from error
            self._pages.put(number, page)
        return page


class SpilledNumbers(Sequence[int]):
    """Numbers of 64 bits, as `Items`."""

    def __init__(self, directory: Path, *, page: int = _PAGE, pages: int = _PAGES) -> None:
        self._items = Items(directory, 8, page=page, pages=pages)

    def extend(self, numbers: Iterable[int]) -> None:
        """Add the next ones."""
        self._items.extend(number.to_bytes(8, "little") for number in numbers)

    def __len__(self) -> int:
        """Numbers added."""
        return len(self._items)

    @overload
    def __getitem__(self, at: int) -> int: ...
    @overload
    def __getitem__(self, at: slice) -> list[int]: ...
    def __getitem__(self, at: int | slice) -> int | list[int]:
        """One, or a list of some."""
        found = self._items[at]
        if isinstance(found, bytes):
            return int.from_bytes(found, "little")
        return [int.from_bytes(each, "little") for each in found]
