"""Versions of objects as files of a directory: their names, their numbers, and lists of them.

NAME is version 1, NAME~2, NAME~3 … are later ones. A version id is `n-sha256`: the number that
picks the file, and the digest that the object's name claims or, where the name claims none, the
digest of the bytes.
"""

import contextlib
import errno
import hashlib
import itertools
import os
import re
import stat
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import NamedTuple, TypeAlias, TypeVar

from vault.errors import (
    ConfigError,
)
from vault.storage.base import ObjectVersion
from vault.storage.local_calls import (
    DIRECTORY_FLAGS,
    READ_FLAGS,
    file_exists,
    mode_of,
    read_range_of,
)
from vault.storage.names import validate_name

VOLATILE = frozenset({".tmp", ".lock"})
RESERVED = VOLATILE | {".retention"}
MAX_DEPTH = 64  # directories; bounds recursion and open descriptors on a planted tree
_MAX_HASHED = 64 << 20  # bytes; what the vault keeps under names without a digest is smaller
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_VERSION_ID = re.compile(r"([1-9][0-9]{0,8})-[0-9a-f]{64}")
_NUMBERED = re.compile(r"(.+)~([2-9]|[1-9][0-9]{1,8})", re.DOTALL)
_CLAIMED = re.compile(r"(?:.*/)?([0-9a-f]{64})", re.DOTALL)
UNCLAIMED = "0" * 64


_T = TypeVar("_T")


class FileEntry(NamedTuple):
    """One directory entry; sorts as the names of the objects it stands for do."""

    name: str  # full, as listed; of a directory with the slash that every name below it has
    number: int
    file: str  # as the file system has it
    is_directory: bool
    is_regular: bool


LookAtEntry: TypeAlias = Callable[[int, FileEntry], _T | None]  # with its open directory


def name_parts(name: str) -> tuple[str, ...] | None:
    """The components of a name that is safe to look up, else None."""
    parts = tuple(name.split("/"))
    try:
        name.encode()
    except UnicodeEncodeError:
        return None
    if "\0" in name or not {"", ".", ".."}.isdisjoint(parts):
        return None
    return parts


def writable_parts(name: str) -> tuple[str, ...]:
    """The components of the name of an object that is to be stored.

    Raises:
        ConfigError: A directory can't hold that name.
    """
    parts = tuple(validate_name(name).split("/"))
    if len(parts) > MAX_DEPTH or max(map(len, parts)) > 240:
        raise ConfigError(
            "object name does not fit a directory",
            expected=f"at most {MAX_DEPTH} parts of at most 240 bytes",
            found=repr(name[:80]),
        )
    return parts


def version_path(name: str, version: str) -> tuple[str, ...]:
    """Components of the file that holds a version.

    Raises:
        OSError: ENOENT: no version can have that name or id.
    """
    parts = name_parts(name)
    match = _VERSION_ID.fullmatch(version)
    if not parts or not match or parts[0] in RESERVED or _NUMBERED.fullmatch(parts[-1]):
        raise FileNotFoundError(errno.ENOENT, "no version can have that name or id")
    return (*parts[:-1], version_file(parts[-1], int(match[1])))


def version_file(base: str, number: int) -> str:
    """The name of the file of that version."""
    return base if number == 1 else f"{base}~{number}"


def _split_file_name(file: str) -> tuple[str, int]:
    match = _NUMBERED.fullmatch(file)
    return (match[1], int(match[2])) if match else (file, 1)


def next_file(file: str) -> str:
    """The file of the version after that in this file."""
    base, number = _split_file_name(file)
    return version_file(base, number + 1)


def newest_file(parent: int, base: str) -> str:
    """The file of the newest version that was not deleted; numbers have no holes."""
    newest, number = base, 1
    while (mode := mode_of(parent, file := version_file(base, number))) is not None:
        newest = file if stat.S_ISREG(mode) else newest
        number += 1
    return newest


def digest_in_name(name: str) -> str | None:
    """The digest that the last component of a name claims."""
    match = _CLAIMED.fullmatch(name)
    return match[1] if match else None


def digest_in_id(size: int, sha256: bytes) -> str:
    """The digest in a version id, where the name claims none."""
    return sha256.hex() if size <= _MAX_HASHED else UNCLAIMED


def numbered_versions(parent: int, name: str, base: str) -> Iterator["ObjectVersion | None"]:
    """The version in each file of a name, by number; None for a file that is no version."""
    for number in itertools.count(1):
        file = version_file(base, number)
        if not file_exists(parent, file):
            return
        yield version_of_entry(
            parent, FileEntry(name, number, file, is_directory=False, is_regular=True)
        )


def walk_versions(  # noqa: PLR0917 - recursion
    directory: int, base: str, prefix: str, after: str, depth: int, look: LookAtEntry[_T]
) -> Iterator[_T]:
    """What ``look`` makes of the entries of an open directory whose names begin with ``base``."""
    for entry in sorted(_entries(directory, base, prefix, after)):
        if not entry.is_directory:
            seen = look(directory, entry)
            if seen is not None:
                yield seen
        elif depth < MAX_DEPTH:
            with contextlib.suppress(FileNotFoundError):
                child = os.open(entry.file, DIRECTORY_FLAGS, dir_fd=directory)
                try:
                    yield from walk_versions(child, entry.name, "", after, depth + 1, look)
                finally:
                    os.close(child)


def _entries(directory: int, base: str, prefix: str, after: str) -> Iterator[FileEntry]:
    """Entries that may hold names that begin with ``prefix`` and sort after ``after``.

    Strings compare by code point, which is the order of their UTF-8 bytes.
    """
    with os.scandir(directory) as found:
        for item in found:
            file = item.name
            shown = (
                file if file.isascii() else os.fsencode(file).decode("utf-8", "backslashreplace")
            )
            if item.is_dir(follow_symlinks=False):
                if not base and file in RESERVED:
                    continue
                entry = FileEntry(base + shown + "/", 0, file, is_directory=True, is_regular=False)
                wanted = entry.name > after or after.startswith(entry.name)
            elif base + shown <= after:  # so is the object's name, its beginning
                continue
            else:
                name, number = _split_file_name(shown)
                is_regular = item.is_file(follow_symlinks=False)
                entry = FileEntry(
                    base + name, number, file, is_directory=False, is_regular=is_regular
                )
                wanted = entry.name > after
            if wanted and entry.name.startswith(prefix):
                yield entry


def name_of_entry(_: int, entry: FileEntry) -> str | None:
    """The name of the object that a directory entry is a version of; None if it is none."""
    return entry.name if entry.is_regular else None


def version_of_entry(directory: int, entry: FileEntry) -> ObjectVersion | None:
    """The version that an entry holds; None if it holds none, or was removed meanwhile."""
    try:
        found = os.lstat(entry.file, dir_fd=directory)
        if not stat.S_ISREG(found.st_mode):
            return None
        claimed = digest_in_name(entry.name) or _hash_file(directory, entry.file, found.st_size)
    except FileNotFoundError:
        return None
    return ObjectVersion(
        name=entry.name,
        version=f"{entry.number}-{claimed}",
        size=found.st_size,
        modified=_from_nanoseconds(found.st_mtime_ns),
    )


def _hash_file(directory: int, file: str, size: int) -> str:
    if size > _MAX_HASHED:
        return UNCLAIMED
    fd = os.open(file, READ_FLAGS, dir_fd=directory)
    try:
        return hashlib.sha256(read_range_of(fd, 0, size)).hexdigest()
    finally:
        os.close(fd)


def _from_nanoseconds(nanoseconds: int) -> datetime:
    """A file's time; the epoch for one that a datetime can't hold."""
    try:
        return EPOCH + timedelta(microseconds=nanoseconds // 1000)
    except OverflowError:
        return EPOCH
