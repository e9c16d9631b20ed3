"""Owner, mode, times, extended attributes and holes: read, applied, compared in one place.

Both ends use it: the source to describe what it backs up, the restore to apply
it and to read it back (docs/design.md "Floors"). Nothing here follows a symbolic link: an
object is named by an open descriptor, or by a directory descriptor and a name.

An attribute that can't be applied is always reported, as an *omission*, a word from this
list: ``owner``, ``setid`` (the set-uid and set-gid bits, dropped with the
owner they would lend), ``access`` (a plain user keeps what it must read back
readable), ``mode``, ``times``, ``xattr NAME``.
"""

import contextlib
import dataclasses
import errno
import os
import stat
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, Protocol, TypeAlias

from vault.model import SYMLINK_MODE

OWNER = "owner"
SETID = "setid"
ACCESS = "access"
MODE = "mode"
TIMES = "times"

MODE_BITS = 0o7777
_SETID_BITS = stat.S_ISUID | stat.S_ISGID
_FILE_ACCESS = stat.S_IRUSR
_DIRECTORY_ACCESS = stat.S_IRUSR | stat.S_IXUSR

_CAPABILITY = b"security.capability"

# The kernel makes these for one inode of one machine: they are no content, and can't be set.
_PRIVATE_XATTRS = frozenset({b"security.evm"})
# Labels that a security module of the kernel gives to each new file.
_KERNEL_LABELS = frozenset({b"security.selinux", b"security.SMACK64"})

_REFUSED = frozenset({errno.EPERM, errno.EACCES, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS})
_XATTR_REFUSED = _REFUSED | {errno.ENOSPC, errno.E2BIG, errno.ERANGE}  # too large for the inode

OpenPlace: TypeAlias = int | bytes  # a descriptor, or the /proc name of an O_PATH descriptor
Xattrs: TypeAlias = tuple[tuple[bytes, bytes], ...]


class Attributes(Protocol):
    """Fields of a tree entry other than type and content (docs/format.md 8)."""

    @property
    def mode(self) -> int:
        """The 12 permission bits."""

    @property
    def uid(self) -> int:
        """Owner."""

    @property
    def gid(self) -> int:
        """Group."""

    @property
    def mtime(self) -> int:
        """Nanoseconds since 1970; may be negative."""

    @property
    def xattrs(self) -> Sequence[tuple[bytes, bytes]] | None:
        """Sorted by name; None where there are none."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Meta:
    """The attributes of one object, as read from disk."""

    mode: int
    uid: int
    gid: int
    mtime: int  # ns
    xattrs: Xattrs | None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One attribute that is not as expected."""

    field: str
    expected: str
    found: str
    omissions: frozenset[str]  # if all of these were reported, they explain the difference


# --- reading ---


@contextlib.contextmanager
def place_at(directory: int, name: bytes) -> Iterator[tuple[bytes, os.stat_result]]:
    """Hold the object ``name`` itself, of whatever type, for as long as the block runs.

    Yields:
        A place for the functions below, and the object's status. The name can
        be swapped meanwhile; the place stays with the object it was opened on.
    """
    fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    try:
        yield b"/proc/self/fd/%d" % fd, os.fstat(fd)
    finally:
        os.close(fd)


def read_xattrs(place: OpenPlace, problems: list[str] | None = None) -> Xattrs | None:
    """Extended attributes sorted by name, ACLs and capabilities among them; None without any.

    Args:
        place: What to read.
        problems: Receives a line for every attribute that this user may not read, and that is
            left out. One that vanishes meanwhile is no problem.
    """
    unread = problems if problems is not None else []
    try:
        listed = os.listxattr(place)
    except OSError as error:
        if error.errno not in {errno.EOPNOTSUPP, errno.ENOSYS}:
            unread.append(f"xattrs: {error.strerror}")
        return None
    if not listed:
        return None
    names = sorted(map(os.fsencode, listed))
    found: list[tuple[bytes, bytes]] = []
    for name in names:
        try:
            if name not in _PRIVATE_XATTRS:
                found.append((name, os.getxattr(place, name)))
        except OSError as error:
            if error.errno != errno.ENODATA:
                unread.append(f"{xattr_text(name)}: {error.strerror}")
    return tuple(found) or None


def read_meta(place: OpenPlace, status: os.stat_result) -> Meta:
    """Attributes of the object behind ``place``, whose status was just taken."""
    return Meta(
        mode=SYMLINK_MODE if stat.S_ISLNK(status.st_mode) else status.st_mode & MODE_BITS,
        uid=status.st_uid,
        gid=status.st_gid,
        mtime=status.st_mtime_ns,
        xattrs=read_xattrs(place),
    )


def data_runs(fd: int, size: int) -> Iterator[tuple[int, int]]:
    """Data of a regular file between its holes, (start, end), as it is when asked for.

    Ascending and disjoint even if the file system's answers are not: if an answer leads no
    further, the rest of the file counts as data. Moves the descriptor's position.
    """
    position = 0
    while position < size:
        start = _seek(fd, position, os.SEEK_DATA, size)
        if start >= size:
            return
        position = _seek(fd, start, os.SEEK_HOLE, size)
        if position == start:
            position = size
        yield start, position


def measured_holes(fd: int, size: int) -> int:
    """Bytes of a regular file of that size which are in holes. Moves the position."""
    return size - sum(end - start for start, end in data_runs(fd, size))


def _seek(fd: int, offset: int, whence: int, size: int) -> int:
    """Where data or a hole begins, from ``offset`` to ``size``; ENXIO says there is none."""
    try:
        return max(offset, min(os.lseek(fd, offset, whence), size))
    except OSError as error:
        if error.errno == errno.ENXIO:
            return size
        if error.errno in _REFUSED:  # a file system that knows no holes: all of it is data
            return offset if whence == os.SEEK_DATA else size
        raise


# --- applying ---


def apply_fd(fd: int, attributes: Attributes, *, directory: bool = False) -> tuple[str, ...]:
    """Give an open file or directory its attributes.

    Returns:
        Omissions: attributes that could not be applied.

    Raises:
        OSError: The disk failed, as opposed to refused.
    """
    return _apply(fd, attributes, _DIRECTORY_ACCESS if directory else _FILE_ACCESS)


def apply_at(directory: int, name: bytes, attributes: Attributes) -> tuple[str, ...]:
    """Give a symlink, FIFO or device its attributes, by name and without following.

    Returns:
        Omissions: attributes that could not be applied. A symlink has no mode of its own.

    Raises:
        OSError: The disk failed, as opposed to refused.
    """
    with place_at(directory, name) as (place, status):
        return _apply(place, attributes, None if stat.S_ISLNK(status.st_mode) else 0)


def _apply(place: OpenPlace, wanted: Attributes, access: int | None) -> tuple[str, ...]:
    """Owner first, since chown clears set-uid bits and capabilities; times last."""
    omitted: list[str] = []
    owned = (wanted.uid, wanted.gid)
    status = os.stat(place)  # noqa: PTH116 - a held object, no path
    if owned != (status.st_uid, status.st_gid) and not _done(os.chown, place, *owned):
        omitted.append(OWNER)
    if access is not None:
        omitted += _apply_mode(place, wanted.mode, access, owned=not omitted)
    omitted += _apply_xattrs(place, wanted.xattrs or ())
    if not _apply_mtime(place, wanted.mtime):
        omitted.append(TIMES)
    return tuple(omitted)


def _apply_mtime(place: OpenPlace, mtime: int) -> bool:
    """Set the time and read it back: file systems round and clamp times without an error."""
    done = _done(_set_times, place, mtime)
    return done and os.stat(place).st_mtime_ns == mtime  # noqa: PTH116 - a held object, no path


def _set_times(place: OpenPlace, mtime: int) -> None:
    os.utime(place, ns=(mtime, mtime))


def _done(
    call: Callable[..., None], *arguments: Any, refused: Collection[int | None] = _REFUSED
) -> bool:
    """Whether the system did it; False when it refuses, in contrast to failing."""
    try:
        call(*arguments)
    except OverflowError:  # a number the system's types can't hold
        return False
    except OSError as error:
        if error.errno in refused:
            return False
        raise
    return True


def _apply_mode(place: OpenPlace, mode: int, access: int, *, owned: bool) -> list[str]:
    omitted = []
    if not owned and mode & _SETID_BITS:
        mode &= ~_SETID_BITS  # with set-uid a program would run with the wrong owner's rights
        omitted.append(SETID)
    if mode & access != access and os.geteuid() != 0:
        mode |= access  # without it the proof could not read the file back
        omitted.append(ACCESS)
    if not _done(os.chmod, place, mode):
        omitted.append(MODE)
    return omitted


def _apply_xattrs(place: OpenPlace, wanted: Sequence[tuple[bytes, bytes]]) -> list[str]:
    """Set exactly these and remove others: the parent's default ACL may have added some."""
    found = read_xattrs(place)
    if found is None and not wanted:
        return []
    omitted = []
    current = dict(found or ())
    for name, value in wanted:
        if current.pop(name, None) == value:
            continue
        if not _done(os.setxattr, place, name, value, refused=_XATTR_REFUSED):
            omitted.append(xattr_text(name))
    for name in current.keys() - _KERNEL_LABELS:
        if not _done(os.removexattr, place, name):
            omitted.append(xattr_text(name))  # noqa: PERF401 - each is tried, some are reported
    return omitted


def xattr_text(name: bytes) -> str:
    """An attribute as messages and omissions name it."""
    return "xattr " + name.decode("ascii", "backslashreplace")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Harmless:
    """Mode and attributes without privileges: running the file gives a user no further rights."""

    mode: int
    xattrs: Xattrs | None


def without_privileges(
    mode: int, xattrs: Sequence[tuple[bytes, bytes]] | None
) -> tuple[Harmless, tuple[str, ...]]:
    """Leave out set-uid, set-gid and capabilities; returns the resulting omissions, too."""
    kept = tuple(pair for pair in xattrs or () if pair[0] != _CAPABILITY)
    dropped = [SETID] if mode & _SETID_BITS else []
    if len(kept) != len(xattrs or ()):
        dropped.append(xattr_text(_CAPABILITY))
    return Harmless(mode=mode & ~_SETID_BITS, xattrs=kept or None), tuple(dropped)


# --- comparing ---


def differences(wanted: Attributes, found: Attributes) -> Iterator[Difference]:
    """Every attribute of ``found`` that is not as wanted, with the omission that may explain it."""
    if (wanted.uid, wanted.gid) != (found.uid, found.gid):
        yield Difference(
            field=OWNER,
            expected=f"{wanted.uid}:{wanted.gid}",
            found=f"{found.uid}:{found.gid}",
            omissions=frozenset({OWNER}),
        )
    if wanted.mode != found.mode:
        yield Difference(
            field=MODE,
            expected=f"{wanted.mode:04o}",
            found=f"{found.mode:04o}",
            omissions=_mode_omissions(wanted.mode, found.mode),
        )
    if wanted.mtime != found.mtime:
        yield Difference(
            field="mtime",
            expected=str(wanted.mtime),
            found=str(found.mtime),
            omissions=frozenset({TIMES}),
        )
    yield from _xattr_differences(dict(wanted.xattrs or ()), dict(found.xattrs or ()))


def without_kernel_labels(
    found: Sequence[tuple[bytes, bytes]] | None, wanted: Sequence[tuple[bytes, bytes]] | None
) -> Xattrs | None:
    """Attributes found, without labels that this machine's kernel added and none wanted."""
    names = {name for name, _ in wanted or ()}
    kept = [item for item in found or () if item[0] in names or item[0] not in _KERNEL_LABELS]
    return tuple(kept) or None


def _mode_omissions(wanted: int, found: int) -> frozenset[str]:
    """The narrowest omission that explains the difference: set-id bits lost, owner access gained.

    If neither does, any change of mode.
    """
    lost, gained = wanted & ~found, found & ~wanted
    if lost & ~_SETID_BITS or gained & ~_DIRECTORY_ACCESS:
        return frozenset({MODE})
    return frozenset(([SETID] if lost else []) + ([ACCESS] if gained else []))


def _xattr_differences(
    wanted: dict[bytes, bytes], found: dict[bytes, bytes]
) -> Iterator[Difference]:
    for name in sorted(wanted.keys() | found.keys()):
        if wanted.get(name) == found.get(name):
            continue
        yield Difference(
            field=xattr_text(name),
            expected=_shown(wanted.get(name)),
            found=_shown(found.get(name)),
            omissions=frozenset({xattr_text(name)}),
        )


def _shown(value: bytes | None) -> str:
    """Show only the size of an attribute: its value can be secret, or very long."""
    return "absent" if value is None else f"{len(value)} bytes"
