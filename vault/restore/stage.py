"""The staging directory: the tree is built there before TARGET changes (docs/design.md "Restore").

Each object is made relative to an open directory, never through a symlink, and never over an
existing object. So nothing outside staging changes, whatever path an entry has and whatever
another process does meanwhile.
"""

import contextlib
import errno
import os
import stat
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Final, Self, TypeVar

from vault.errors import FormatError, LocalError, VaultError
from vault.format.entry import FILE_TYPES, Entry, is_sparse, replace_entry
from vault.machine import metadata
from vault.model import EntryType
from vault.restore.journal import Journal, Journals, KeptMeta, Local, MountPoint, State, Subject
from vault.restore.syscalls import (
    Fs,
    OpenDirectories,
    check_path,
    inode_at,
    is_unsupported,
    join,
    local_error,
    remove_empty,
    remove_tree,
)
from vault.restore.target import TREE, Target, staging_name
from vault.restore.target_note import Note, remove_note, write_note

_T = TypeVar("_T")

_SPECIAL: Final = frozenset({EntryType.FIFO, EntryType.CHARACTER_DEVICE, EntryType.BLOCK_DEVICE})
DEVICES: Final = "devices"  # an omission: devices need root, and some file systems have no FIFOs
_REFUSED: Final = frozenset({errno.EPERM, errno.EACCES})


def may_be_omitted(kind: EntryType) -> bool:
    """Whether a restore may go on without objects of this type; they hold no data."""
    return kind in _SPECIAL


class Staging:
    """The directory that a tree is built in; a context manager.

    It is ``tree`` in ``.<name>.vault-<id>``, the holder. The holder keeps mode 0700 and this
    user as owner, so other users can't enter the tree before the exchange, whatever attributes
    its top has. The journal is written before both are made, the note beside TARGET after that.
    Leaving the block by an exception removes all of it, unless a promotion had begun (`kept`).

    Args:
        target: Where the restore goes.
        restore_id: 8 hex digits (`target.new_id`).
        fs: System calls.
        journals: Of this user's restores to the target; held.
        subject: The snapshot that is restored.
        local: User and host, for the note.

    Raises:
        LocalError: It can't be made.
    """

    def __init__(
        self,
        target: Target,
        restore_id: str,
        fs: Fs,
        *,
        journals: Journals,
        subject: Subject,
        local: Local,
    ) -> None:
        self.target = target
        self.id = restore_id
        self.name = staging_name(target.name, restore_id)
        self.path = join(join(target.home, self.name), TREE)
        self.fs = fs
        self.kept = False
        self._journals = journals
        with contextlib.ExitStack() as stack:
            self.parent = _opened(stack, target.parent, lambda: _open(target.parent))
            self.home = _opened(stack, target.home, lambda: _open(target.home))
            self.before = self._read_mount_point()
            self.journal = self._first_journal(subject)
            undo = stack.enter_context(contextlib.ExitStack())  # removes all again on a failure
            undo.callback(self._unmake)
            self.save(self.journal)
            _guard("make", self.path, lambda: fs.mkdir(self.home, self.name))
            self.holder = _opened(stack, self.path, lambda: fs.open_directory(self.home, self.name))
            _guard("make", self.path, lambda: fs.mkdir(self.holder, TREE))
            self.fd = _opened(stack, self.path, lambda: fs.open_directory(self.holder, TREE))
            self.inode = os.fstat(self.fd).st_ino
            around = os.fstat(self.holder).st_ino
            self.save(self.journal.replace(holder=str(around), new=str(self.inode)))
            _guard("leave a note beside", target.path, lambda: self._leave_note(local))
            undo.pop_all()
            self._close = stack.pop_all().close

    def _first_journal(self, subject: Subject) -> Journal:
        old = None if self.before is not None else self.target.inode
        return Journal(
            id=self.id,
            target=self.target.path.decode("latin-1"),
            state=State.STARTED,
            subject=subject,
            old=None if old is None else str(old),
            mount=None if self.before is None else MountPoint(before=KeptMeta.of(self.before)),
        )

    def _leave_note(self, local: Local) -> None:
        try:
            self._write_note(local)
        except OSError:
            if self.before is None:  # a mount point was empty: nothing of it needs the note
                raise

    def _write_note(self, local: Local) -> None:
        note = Note(
            id=self.id,
            host=local.host,
            user=local.user,
            state=str(local.state),
            repository=self.journal.subject.repository,
            snapshot=self.journal.subject.snapshot,
            target=_printable(self.target.name),
            beside=_printable(self.name),
            new=str(self.inode),
            former=self.journal.old,
        )
        write_note(self.parent, self.name, note, self.fs)

    def _unmake(self) -> None:
        """Remove the directories made so far, all still empty, after a failure to set up."""
        with contextlib.suppress(OSError, VaultError):
            remove_empty(self.fs, self.home, self.name)
            self._remove_note()
            self._sync()
            self._journals.remove(self.journal)

    def save(self, journal: Journal) -> None:
        """Put a journal in place of the one before, durably.

        Raises:
            LocalError: It could not be written; the journal before is still there.
        """
        self.journal = self._journals.save(journal)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is not None and not self.kept:
                self.remove()
        finally:
            self._close()

    @property
    def shown(self) -> str:
        """The path, for messages."""
        return repr(os.fsdecode(self.path))

    def remove(self) -> None:
        """Remove all of it, then its note and journal; symlinks and mounts in it are not followed.

        Raises:
            LocalError: Not all could be removed.
        """
        _guard("remove", self.path, self._remove_tree)
        _guard("remove the note of", self.path, self._remove_note)
        _guard("flush", self.path, self._sync)
        self._journals.remove(self.journal)

    def find_again(self) -> None:
        """Take for staging what has its names now: a way back may have made it anew.

        Raises:
            OSError: It is not there.
        """
        for fd, around, name in ((self.holder, self.home, self.name), (self.fd, self.holder, TREE)):
            found = self.fs.open_directory(around, name)
            os.dup2(found, fd, inheritable=False)
            os.close(found)
        self.inode = os.fstat(self.fd).st_ino

    def _remove_tree(self) -> None:
        if inode_at(self.holder, TREE) == self.inode:
            remove_tree(self.fs, self.holder, TREE, self.inode)
        if inode_at(self.home, self.name) == os.fstat(self.holder).st_ino:
            self.fs.rmdir(self.home, self.name)
            if self.before is not None:  # staging was in TARGET: give TARGET its old times back
                metadata.apply_fd(self.home, self.before, directory=True)

    def _remove_note(self) -> None:
        remove_note(self.parent, self.name, self.fs)

    def _sync(self) -> None:
        """Sync, so that removed names can't come back after a crash, when the journal is gone."""
        self.fs.fsync(self.parent)
        if self.before is not None:
            self.fs.fsync(self.home)

    def _read_mount_point(self) -> metadata.Meta | None:
        """Attributes of TARGET where staging is inside it."""
        if not self.target.mount_point:
            return None
        return metadata.read_meta(self.home, os.fstat(self.home))


def _opened(stack: contextlib.ExitStack, path: bytes, call: Callable[[], int]) -> int:
    fd = _guard("open", path, call)
    stack.callback(os.close, fd)
    return fd


def _open(path: bytes) -> int:
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def _printable(name: bytes) -> str:
    return name.decode("utf-8", "backslashreplace")


def _guard(what: str, path: bytes, call: Callable[[], _T]) -> _T:
    try:
        return call()
    except OSError as error:
        raise local_error(what, path, error) from error


class Stager:
    """Builds the tree in a staging directory; for one thread.

    The order is the caller's: directories before their members, a file's first
    path before its hard links, `finish_directories` last.

    Args:
        root: Descriptor of the staging directory; stays the caller's.
        fs: System calls.
        drop_privileges: Leave out set-uid, set-gid and file capabilities, which give privileges
            to any user who runs the file.
    """

    def __init__(self, root: int, fs: Fs, *, drop_privileges: bool = False) -> None:
        self._fs = fs
        self._drop_privileges = drop_privileges
        self._device = os.fstat(root).st_dev
        self._directories = OpenDirectories(root, fs)
        self._left_out: Counter[str] = Counter()

    @property
    def left_out(self) -> dict[str, int]:
        """Omissions so far: attributes not set and objects not made, with their counts."""
        return dict(sorted(self._left_out.items()))

    def add_left_out(self, omissions: Mapping[str, int]) -> None:
        """Add the omissions of a helping process that builds the same tree."""
        self._left_out.update(omissions)

    def close(self) -> None:
        """Close the directories that are open."""
        self._directories.close()

    def mkdir(self, path: bytes) -> None:
        """Make a directory; its attributes come last.

        Raises:
            FormatError: The path may not be restored.
            LocalError: The file system refused, or failed.
        """
        if path:  # the top is the staging directory itself
            self._at("make directory", path, self._fs.mkdir)

    def create_file(self, path: bytes) -> int:
        """Make an empty file.

        Returns:
            Descriptor for `write`; `finish_file` or `close_file` closes it.

        Raises:
            FormatError: The path may not be restored.
            LocalError: The file system refused, or failed.
        """
        return self._at("make", path, self._fs.create)

    def reopen_file(self, path: bytes) -> int:
        """Open a file that `create_file` made once more.

        Raises:
            LocalError: It is not there, or not the plain file that was made.
        """
        fd = self._at("open", path, self._fs.reopen)
        status = os.fstat(fd)
        if not self._is_ours(status) or status.st_nlink != 1:
            os.close(fd)
            raise _swapped(path)
        return fd

    def write(self, fd: int, offset: int, data: bytes | memoryview) -> None:
        """Write all of ``data`` at ``offset``.

        Raises:
            LocalError: The disk is full, or failed.
        """
        rest = memoryview(data)
        try:
            while rest:
                written = self._fs.pwrite(fd, rest, offset)
                offset += written
                rest = rest[written:]
        except OSError as error:
            raise local_error("write to", "staged file", error) from error

    def close_file(self, fd: int) -> None:
        """Close a file that gets more later.

        Raises:
            LocalError: Something written before was lost.
        """
        _guard("close", b"staged file", lambda: self._fs.close(fd))

    def finish_file(self, fd: int, entry: Entry) -> None:
        """Give a file its size (so a hole at its end too) and attributes, and close it.

        Raises:
            LocalError: The disk failed.
        """
        try:
            try:
                if is_sparse(entry):
                    self._fs.truncate(fd, entry.size)
                if self._drop_privileges:
                    entry = self._unprivileged(entry)
                omitted = self._fs.apply_fd(fd, entry, directory=False)
                if omitted:
                    self._left_out.update(omitted)
            except BaseException:
                os.close(fd)
                raise
            self._fs.close(fd)
        except OSError as error:
            raise local_error("finish", entry.path, error) from error

    def _unprivileged(self, entry: Entry) -> Entry:
        """Without set-uid and set-gid bits and file capabilities."""
        harmless, dropped = metadata.without_privileges(entry.mode, entry.xattrs)
        self._left_out.update(dropped)
        return (
            replace_entry(entry, mode=harmless.mode, xattrs=harmless.xattrs) if dropped else entry
        )

    def make(self, entry: Entry) -> bool:
        """Make a symlink, hard link, FIFO or device, with its attributes.

        Returns:
            Whether it was made; False counts in `left_out`.

        Raises:
            FormatError: Its path may not be restored.
            LocalError: The file system failed, or something is in its place.
        """
        try:
            self._make(entry)
        except OSError as error:
            refused = error.errno in _REFUSED or is_unsupported(error)
            if not (refused and may_be_omitted(entry.type)):
                raise local_error("make", entry.path, error) from error
            self._left_out.update((DEVICES,))
            return False
        return True

    def finish_directories(self, directories: Iterable[Entry]) -> None:
        """Give directories their attributes, inner ones first; the last step of building.

        Inner first: a read-only directory is closed, and its times are set, only after all
        below it is done. Holds at most as many entries as the tree is deep.

        Args:
            directories: Every directory, ascending as in the tree.

        Raises:
            LocalError: The disk failed.
        """
        waiting: list[Entry] = []
        for entry in directories:
            while waiting and not _is_below(entry.path, waiting[-1].path):
                self._finish_directory(waiting.pop())
            waiting.append(entry)
        while waiting:
            self._finish_directory(waiting.pop())

    def _finish_directory(self, entry: Entry) -> None:
        try:
            fd = self._directories.open(check_path(entry.path))
            omitted = self._fs.apply_fd(fd, entry, directory=True)
        except OSError as error:
            raise local_error("finish", entry.path, error) from error
        self._directories.forget(entry.path)
        self._left_out.update(omitted)

    def _at(self, what: str, path: bytes, call: Callable[[int, bytes], _T]) -> _T:
        """Call with the open directory around ``path`` and the name in it."""
        if not check_path(path):
            raise FormatError("the top of a tree is a directory")
        try:
            return call(*self._directories.parent(path))
        except OSError as error:
            raise local_error(what, path, error) from error

    def _make(self, entry: Entry) -> None:
        if not check_path(entry.path):
            raise FormatError("the top of a tree is a directory")
        if entry.type is EntryType.HARD_LINK:
            self._link(entry)
            return  # a hard link shares the attributes of its file, which has them already
        directory, name = self._directories.parent(entry.path)
        if entry.type is EntryType.SYMLINK:
            self._fs.symlink(directory, name, entry.link or b"")
        else:
            self._fs.mknod(directory, name, FILE_TYPES[entry.type], entry.device or 0)
        self._left_out.update(self._fs.apply_at(directory, name, entry))

    def _link(self, entry: Entry) -> None:
        source, first = self._directories.parent(check_path(entry.link or b""))
        source = os.dup(source)  # the next look-up may close it
        try:
            directory, name = self._directories.parent(entry.path)
            self._fs.link(source, first, directory, name)
            status = os.stat(name, dir_fd=directory, follow_symlinks=False)
            if not self._is_ours(status):
                self._fs.unlink(directory, name)
                raise _swapped(entry.link or b"")
        finally:
            os.close(source)

    def _is_ours(self, status: os.stat_result) -> bool:
        return stat.S_ISREG(status.st_mode) and status.st_dev == self._device


def _swapped(path: bytes) -> LocalError:
    return LocalError(
        f"staged file {os.fsdecode(path)!r} is not the one that was made",
        hint="another process changes the staging directory; nothing was promoted",
    )


def _is_below(path: bytes, directory: bytes) -> bool:
    return not directory or path.startswith(directory + b"/")
