"""Walks the source in the order of a tree (docs/format.md 8).

If something can't be read, its item says so; the walk raises no exception. Every name is resolved
against an open directory whose identity was checked, so the walk does not follow a symlink that
replaced a directory meanwhile. A file that replaced another is taken in its place.
"""

import contextlib
import dataclasses
import errno
import functools
import grp
import itertools
import logging
import operator
import os
import pwd
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple, Self, TypeAlias

from vault import patterns
from vault.errors import ConfigError
from vault.format.entry import ENTRY_TYPES
from vault.machine import cache_tag
from vault.model import MAX_PATH, EntryType, sort_key
from vault.snapshot import safe_open

_log = logging.getLogger(__name__)

_OPEN_DIRECTORIES = 64  # kept open at once; deeper ones are opened again by their path


_SYMLINK, _TYPE_DIRECTORY = EntryType.SYMLINK, EntryType.DIRECTORY  # looked up once, not per file

MAX_NAMES = 1 << 24  # in one directory; a longer list is taken for an endless one
_NAMES = 1 << 16  # listed at once, so that signals are handled in between
_NAME = operator.attrgetter("name")

_SQLITE = (b"-wal", b"-shm", b"-journal")  # ends of names beside an open database


class SourceItem(NamedTuple):
    """One thing that the walk met. A tuple, because there is one for every file."""

    path: bytes  # path in the tree
    full: bytes  # path to open
    stat: os.stat_result | None  # by lstat; None if that failed
    type: EntryType | None  # None with `stat`: a socket, or something else that can't be stored
    link: bytes | None = None  # target of a symlink, as read
    error: str | None = None  # why it, or its list of members, can't be read
    vanished: bool = False  # it is gone since its directory was listed


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What a walk leaves out."""

    excludes: Sequence[str] = ()
    """gitignore patterns, matched below each PATH; full paths below one mean the same. What
    is in an excluded directory can't be included again."""
    caches: bool = False  # members of directories with a CACHEDIR.TAG (bford.info/cachedir)
    if_present: Sequence[str] = ()  # members of directories that hold a file of such a name
    one_file_system: bool = False  # members of directories on another file system than their PATH
    own: Sequence[tuple[Path, str]] = ()
    """Directories that this program writes to while it walks, and what each is: their
    members are left out, by whatever path the walk comes to them."""


class Reason(StrEnum):
    """The rule that left something out."""

    PATTERN = "pattern"
    CACHE = "cache"
    MARKER = "marker"
    FILE_SYSTEM = "file-system"
    OWN = "own"


class LeftOut(NamedTuple):
    """Something that a rule left out."""

    path: bytes  # in the tree
    reason: Reason
    detail: str


class Engine(StrEnum):
    """The program that a database belongs to."""

    POSTGRESQL = "postgresql"
    SQLITE = "sqlite"


class InUse(NamedTuple):
    """A database that a program may have open.

    Its files are read one after the other and may change meanwhile, so they may not fit together.
    """

    path: bytes  # in the tree: the directory of PostgreSQL, the main file of SQLite
    engine: Engine


NO_RULES = Rules()
Skipped: TypeAlias = Callable[[LeftOut], None]
Met: TypeAlias = Callable[[InUse], None]


def walk(
    paths: Sequence[Path | bytes],
    rules: Rules = NO_RULES,
    *,
    skipped: Skipped | None = None,
    in_use: Met | None = None,
) -> Iterator[SourceItem]:
    """Everything below ``paths``, component-wise ascending, the top first.

    For one directory, paths are relative to it. For one file, the top is its directory, and
    the file its only member. For several PATHs, paths are absolute without the leading ``/``;
    the directories above them are included, without their other members.

    Args:
        paths: What to walk; relative ones start at the working directory.
        rules: What to leave out.
        skipped: Called for each thing that is left out.
        in_use: Called for databases that are in use; these are also logged.

    Raises:
        ConfigError: No path, a missing one, one inside another, a symlink to a directory, one
            of ``rules.own``, or a pattern that is malformed or can't match. Raised at once,
            not while walking.
    """
    located = [(locate_source(path), os.fsencode(path)) for path in paths]
    roots = sorted((root for root, _ in located), key=sort_key)
    if not roots:
        raise ConfigError("no PATH given")
    for before, after in itertools.pairwise(roots):
        if before == after or after.startswith(before.rstrip(b"/") + b"/"):
            raise ConfigError(
                f"PATH {_show(after)} lies in PATH {_show(before)}",
                hint="name each file or directory once",
            )
    own = _identities(rules.own)
    for root in roots:
        _refuse_own(root, own)
    given = dict(located)
    named = [patterns.Root.of(root, given[root]) for root in roots]
    choosers = [
        _Chooser(rules, excludes, own, skipped or _ignore, in_use or _ignore)
        for excludes in patterns.below(rules.excludes, named)
    ]
    if len(roots) == 1:
        return _walk_one(roots[0], choosers[0])
    return _walk_several(roots, choosers)


@functools.lru_cache(maxsize=4096)
def owner_names(uid: int, gid: int) -> tuple[str, str]:
    """User and group name; empty if there is none, or UTF-8 can't hold it."""
    return _name_of(lambda: pwd.getpwuid(uid).pw_name), _name_of(lambda: grp.getgrgid(gid).gr_name)


def _name_of(look_up: Callable[[], str]) -> str:
    try:
        name = look_up()
        name.encode("utf-8")
    except (KeyError, OSError, UnicodeEncodeError):
        return ""
    return name


# --- what to walk ---


# device and inode of each of the vault's own directories -> what it is
_Own: TypeAlias = Mapping[tuple[int, int], str]


def _identities(own: Sequence[tuple[Path, str]]) -> _Own:
    """The device and inode of the directories that exist."""
    found = {}
    for directory, what in own:
        with contextlib.suppress(OSError):
            status = directory.stat()
            found[status.st_dev, status.st_ino] = what
    return found


def _refuse_own(root: bytes, own: _Own) -> None:
    """Refuse a PATH that lies in one of the vault's own directories."""
    path = Path(os.fsdecode(root))
    for around in (path, *path.parents) if own else ():
        try:
            found = around.lstat()
        except OSError:  # gone by now, which the walk reports
            continue
        what = own.get((found.st_dev, found.st_ino))
        if what is not None:
            raise ConfigError(
                f"PATH {_show(root)} lies in what a snapshot never holds",
                found=f"{_show(os.fsencode(around))} is {what}",
                hint="name what you want to keep, not where vault keeps it",
            )


class _Chooser:
    """Applies the rules, and reports what they left out."""

    def __init__(
        self, rules: Rules, excludes: Sequence[str], own: _Own, skipped: Skipped, in_use: Met
    ) -> None:
        self._matches = patterns.matcher(excludes) if excludes else None
        self._own = own
        self._caches = rules.caches
        self._if_present = [os.fsencode(name) for name in rules.if_present]
        self._one_file_system = rules.one_file_system
        self._skipped = skipped
        self.in_use = in_use
        self.has_patterns = self._matches is not None

    def excludes(self, path: bytes, below: int, is_directory: bool) -> bool:  # noqa: FBT001 - one call
        """Whether a pattern excludes the member; it is matched on ``path[below:]``."""
        excluded = self._matches is not None and self._matches(path[below:], is_directory)
        if excluded:
            self._skipped(LeftOut(path, Reason.PATTERN, "excluded by a pattern"))
        return excluded

    def members(self, path: bytes, fd: int, names: list[bytes]) -> list[bytes]:
        """The names in a directory that are walked; with a marker file, only its own name."""
        if self._caches and cache_tag.NAME in names and _is_cache_tag(fd):
            detail = "its members: it is a cache (CACHEDIR.TAG)"
            self._skipped(LeftOut(path, Reason.CACHE, detail))
            return [cache_tag.NAME]
        for marker in self._if_present:
            if marker in names:
                detail = f"its members: it holds {_show(marker)}"
                self._skipped(LeftOut(path, Reason.MARKER, detail))
                return [marker]
        return names

    def enters(self, item: SourceItem, top: int) -> bool:
        """Whether the members of a directory are walked; ``top`` is the device of its PATH."""
        found = item.stat
        assert found is not None
        what = self._own.get((found.st_dev, found.st_ino)) if self._own else None
        if what is not None:
            self._skipped(LeftOut(item.path, Reason.OWN, f"its members: it is {what}"))
            return False
        if self._one_file_system and found.st_dev != top:
            detail = "its members: it is on another file system"
            self._skipped(LeftOut(item.path, Reason.FILE_SYSTEM, detail))
            return False
        return True


def _ignore(_: object) -> None:
    pass


def _is_cache_tag(fd: int) -> bool:
    try:
        tag = os.open(cache_tag.NAME, safe_open.FILE, dir_fd=fd)
    except OSError:
        return False
    try:
        is_file = stat.S_ISREG(os.fstat(tag).st_mode)
        return is_file and os.read(tag, len(cache_tag.SIGNATURE)) == cache_tag.SIGNATURE
    except OSError:
        return False
    finally:
        os.close(tag)


def locate_source(path: Path | bytes) -> bytes:
    """The absolute path, with symlinks resolved in the directories above it, not in itself.

    So names in the tree have only directories above them.
    """
    given = os.fsencode(path)
    head, tail = os.path.split(given.rstrip(b"/") or b"/")
    if tail in (b"", b".", b".."):
        full = os.path.realpath(given)
    else:
        full = os.path.realpath(head or b".").rstrip(b"/") + b"/" + tail
    try:
        found = os.lstat(full)
    except (OSError, ValueError) as error:
        problem = getattr(error, "strerror", None) or "not a file name"
        raise ConfigError(f"PATH {_show(given)} can't be read", found=problem) from error
    if stat.S_ISLNK(found.st_mode) and Path(os.fsdecode(full)).is_dir():
        raise ConfigError(
            f"PATH {_show(given)} is a symbolic link to a directory",
            hint=f"name the directory itself: {_show(os.path.realpath(full))}",
        )
    return full


def _show(path: bytes) -> str:
    return os.fsdecode(path).encode("utf-8", "backslashreplace").decode("utf-8")


def _walk_one(root: bytes, chooser: "_Chooser") -> Iterator[SourceItem]:
    found = _look_at_root(b"", root)
    if found.type is EntryType.DIRECTORY or found.error is not None:
        yield from _walk_root(root, b"", chooser)
        return
    above, name = os.path.split(root)
    yield _look(b"", above, above, None)
    yield _look_at_root(name, root)


def _walk_several(roots: Sequence[bytes], choosers: Sequence["_Chooser"]) -> Iterator[SourceItem]:
    """Walk sorted roots and the directories above them, each once and before its members."""
    above: set[bytes] = set()
    for root, chooser in zip(roots, choosers, strict=True):
        parts = root[1:].split(b"/")
        for depth in range(len(parts)):
            path = b"/".join(parts[:depth])
            if path not in above:
                above.add(path)
                yield _look(path, b"/" + path, b"/" + path, None)
        yield from _walk_root(root, root[1:], chooser)


def _look_at_root(path: bytes, root: bytes) -> SourceItem:
    """The item of a PATH. One that is gone is an error, as it was there when the run began."""
    item = _look(path, root, root, None)
    if item.vanished:
        return item._replace(vanished=False, error="it is gone since the run began")
    return item


def _walk_root(root: bytes, path: bytes, chooser: "_Chooser") -> Iterator[SourceItem]:
    item = _look_at_root(path, root)
    if item.type is not EntryType.DIRECTORY:
        yield item
        return
    with _Walker(chooser, item) as walker:
        yield walker.enter(item, root, None)
        yield from walker


# --- the walk ---


_ADVICE = {
    Engine.POSTGRESQL: ("PostgreSQL may be running on it", "a dump"),
    Engine.SQLITE: ("SQLite may be writing {name}", "a copy of it"),
}


class _Level:
    """A directory whose members are being walked."""

    __slots__ = ("fd", "full", "names", "path", "problem", "stat")

    def __init__(
        self, item: SourceItem, found: os.stat_result, fd: int, names: list[bytes]
    ) -> None:
        self.path = item.path + b"/" if item.path else b""
        self.full = item.full.rstrip(b"/") + b"/"
        self.stat = found
        self.fd = fd
        self.names = iter(names)
        self.problem: OSError | None = None  # why it couldn't be opened again

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def reopen(self) -> None:
        """After `close`: open the directory that has its path now, without following symlinks."""
        try:
            self.fd, _ = safe_open.open_met(
                self.full[:-1] or b"/", safe_open.DIRECTORY, self.stat, stat.S_IFDIR
            )
        except OSError as error:
            self.problem = error


class _Walker:
    """Walks depth first, names of a directory sorted bytewise, which is component-wise order.

    It uses a stack instead of recursion, as a tree may be deeper than the limits of Python
    and of descriptors.
    """

    def __init__(self, chooser: _Chooser, top: SourceItem) -> None:
        assert top.stat is not None
        self._chooser = chooser
        self._below = len(top.path) + 1 if top.path else 0  # bytes of tree paths that name PATH
        self._device = top.stat.st_dev
        self._levels: list[_Level] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for level in self._levels:
            level.close()

    def enter(self, item: SourceItem, name: bytes, dir_fd: int | None) -> SourceItem:
        """Make a directory's members the next; if it can't be read, the returned item says why.

        If something has replaced it since, that is returned, and entered if it is a directory.
        """
        for left in reversed(range(safe_open.TRIES)):
            assert item.stat is not None
            try:
                fd = _open_directory(name, dir_fd, item.stat)
                break
            except OSError as error:
                if not left or error.errno not in safe_open.REPLACED:
                    return _failed(item, error)
            item = _look(item.path, item.full, name, dir_fd)
            if item.type is not _TYPE_DIRECTORY or not self._chooser.enters(item, self._device):
                return item
        try:
            try:
                listed, problem = _list(fd, item)
                names = self._chooser.members(item.path, fd, listed)
                if found := _databases_in_use(item.path, names):
                    self._warn_of_databases(item, found)
            except BaseException:
                os.close(fd)
                raise
        except OSError as error:
            return _failed(item, error)
        if problem:
            item = item._replace(error=problem)
        assert item.stat is not None
        self._levels.append(_Level(item, item.stat, fd, names))
        if len(self._levels) > _OPEN_DIRECTORIES:
            self._levels[-1 - _OPEN_DIRECTORIES].close()
        return item

    def _warn_of_databases(self, item: SourceItem, found: Sequence[InUse]) -> None:
        """Hand each to the caller, and warn people of one of each kind."""
        for each in reversed({each.engine: each for each in reversed(found)}.values()):
            what, instead = _ADVICE[each.engine]
            name = _show(each.path.rpartition(b"/")[2])
            _log.warning(
                "%s: %s: store %s instead (guide, 'Databases')",
                _show(item.full),
                what.format(name=name),
                instead,
            )
        for each in found:
            self._chooser.in_use(each)

    def __iter__(self) -> Iterator[SourceItem]:
        while self._levels:
            level = self._levels[-1]
            for name in level.names:
                if level.fd < 0 and level.problem is None:
                    level.reopen()
                item = self._member(level, name)
                if item is None:
                    continue
                if item.type is _TYPE_DIRECTORY:
                    if not self._chooser.enters(item, self._device):
                        yield item
                        continue
                    yield self.enter(item, name, level.fd)
                    break  # its members come next; none if it can't be read
                yield item
            else:
                self._levels.pop().close()

    def _member(self, level: _Level, name: bytes) -> SourceItem | None:
        path, full = level.path + name, level.full + name
        if len(path) > MAX_PATH:
            problem = (
                f"its path has over {MAX_PATH:,} bytes: neither it nor what it holds is stored"
            )
            return SourceItem(path, full, None, None, error=problem)
        if level.problem is not None:
            return _failed(SourceItem(path, full, None, None), level.problem)
        item = _look(path, full, name, level.fd)
        if self._chooser.has_patterns and self._chooser.excludes(
            path, self._below, item.type is _TYPE_DIRECTORY
        ):
            return None
        return item


def _databases_in_use(path: bytes, names: Sequence[bytes]) -> list[InUse]:
    """Databases that seem to be open, by the names in their directory."""
    joined = b"\0%s\0" % b"\0".join(names)  # one search instead of work for each name
    found = [InUse(path, Engine.POSTGRESQL)] if b"\0postmaster.pid\0" in joined else []
    if b"-wal\0" in joined or b"-shm\0" in joined or b"-journal\0" in joined:
        known, below = set(names), path + b"/" if path else b""
        found += [
            InUse(below + base, Engine.SQLITE)
            for base in names
            if any(base + ending in known for ending in _SQLITE)
        ]
    return found


def _open_directory(name: bytes, dir_fd: int | None, expected: os.stat_result) -> int:
    """Open exactly that directory, as its members and its metadata must belong together."""
    fd = safe_open.open_path(name, safe_open.DIRECTORY, dir_fd)
    if not os.path.samestat(os.fstat(fd), expected):
        os.close(fd)
        raise safe_open.replaced()
    return fd


def _list(fd: int, item: SourceItem) -> tuple[list[bytes], str]:
    """The names in a directory, sorted, each once; and the problem with the list, if any.

    A file system under change may list a name twice (restic/restic#1866). Only a damaged one
    lists impossible names.

    Raises:
        OSError: The list can't be read, or does not end.
    """
    if len(item.path) > MAX_PATH - 2:
        raise OSError(errno.ENAMETOOLONG, "its members' paths are too long to be stored")
    names: list[bytes] = []
    is_sound = True
    with os.scandir(fd) as members:
        listed = map(_NAME, members)
        while some := list(itertools.islice(listed, _NAMES)):
            # one call for all: no name holds a NUL, and Python lists a descriptor as text
            joined = os.fsencode("\0".join(some))
            is_sound = is_sound and b"/" not in joined and "" not in some
            names += joined.split(b"\0")
            if len(names) > MAX_NAMES:
                raise OSError(errno.EOVERFLOW, f"it lists more than {MAX_NAMES:,} names")
    names.sort()
    if any(map(operator.eq, names, itertools.islice(names, 1, None))):
        found = len(names)
        names = list(dict.fromkeys(names))
        _log.warning(
            "directory %s lists %d names twice; each is taken once",
            _show(item.full),
            found - len(names),
        )
    if is_sound:
        return names, ""
    return [name for name in names if name and b"/" not in name], "it lists what is no file name"


def _look(path: bytes, full: bytes, name: bytes, dir_fd: int | None) -> SourceItem:
    """The item of ``name`` in ``dir_fd``."""
    left = safe_open.TRIES
    while True:
        try:
            found = os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
            kind = ENTRY_TYPES.get(stat.S_IFMT(found.st_mode))
            link = safe_open.read_link(name, dir_fd) if kind is _SYMLINK else None
        except OSError as error:
            left -= 1
            if not left or error.errno not in safe_open.REPLACED:
                return _failed(SourceItem(path, full, None, None), error)
        else:
            # `SourceItem(…)` is a function in Python that does this
            return tuple.__new__(SourceItem, (path, full, found, kind, link, None, False))


def _failed(item: SourceItem, error: OSError) -> SourceItem:
    if isinstance(error, FileNotFoundError):
        return item._replace(vanished=True)
    return item._replace(error=error.strerror or str(error))
