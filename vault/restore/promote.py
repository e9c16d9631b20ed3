"""From staging to TARGET in one step, and back (design.md 6, I6).

Three names matter: TARGET, staging, and a third that only file systems without
an exchange need. What is where is told by inode numbers alone, so that after a
crash at any point the next step is a table look-up on what is found.
"""

# ruff: noqa: PTH119, PTH120 - file names are bytes, which pathlib does not take

import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from pathlib import Path
from typing import Any, Final, Protocol, Self

from vault import fsmeta
from vault.errors import BusyError, ConfigError, DigestMismatchError, VaultError
from vault.restore import target as _target
from vault.restore.fs import (
    Fs,
    inode_at,
    is_unsupported,
    list_names,
    local_error,
    remove_tree,
    try_lock,
)
from vault.restore.journal import Journal, JournalFile, KeptMeta, MountPoint, State
from vault.restore.prove import read_disk_root
from vault.restore.stage import Staging

# What is at (target, staging, third): n the new state, o the old one, - nothing.
# Renames are from-to pairs of t, s and f, the third name.
_FORWARD: Final[dict[str, tuple[str, ...]]] = {
    "n--": (),
    "no-": (),
    "n-o": (),
    "on-": ("tf", "st"),
    "-no": ("st",),
    "-on": ("ft",),
    "o-n": ("fs", "tf", "st"),
}
_BACKWARD: Final[dict[str, tuple[str, ...]]] = {
    "on-": (),
    "o-n": ("fs",),
    "no-": ("tf", "st", "fs"),
    "-on": ("st", "fs"),
    "-no": ("ft",),
    "n-o": ("ts", "ft"),
}
_FORWARD_MISSING: Final[dict[str, tuple[str, ...]]] = {"n--": (), "-n-": ("st",)}
_BACKWARD_MISSING: Final[dict[str, tuple[str, ...]]] = {"-n-": (), "n--": ("ts",)}
_SWAPPED: Final = {"on-", "no-"}  # one exchange leads from either to the other
_MOUNT_OWN: Final = b"lost+found"


_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Promoted:
    """How a promotion went."""

    atomic: bool  # in one step: nobody saw TARGET missing or half
    left_out: tuple[str, ...] = ()  # omissions; only of a mount point's own attributes


# --- what is where ---


class _Beside:
    """TARGET and staging are neighbours in one directory."""

    def __init__(self, parent: int, path: bytes, journal: Journal, fs: Fs) -> None:
        self._parent = parent
        self._path = path
        self._fs = fs
        name = path.rpartition(b"/")[2]
        staging = _target.staging_name(name, journal.id)
        self._names = {"t": name, "s": staging, "f": staging + b".former"}
        self._new = int(journal.new)
        self._old = None if journal.old is None else int(journal.old)

    def is_promoted(self) -> bool:
        """Whether TARGET is the new state."""
        return self._layout().startswith("n")

    def is_untouched(self) -> bool:
        """Whether TARGET is as it was."""
        return not self._back().get(self._layout(), ("",))

    def close(self) -> None:
        """Nothing is its own."""

    def forward(self) -> Promoted:
        """Make TARGET the new state."""
        table = _FORWARD_MISSING if self._old is None else _FORWARD
        return Promoted(atomic=self._move(table))

    def backward(self) -> None:
        """Make TARGET what it was, and put the new state back into staging."""
        self._move(self._back())

    def open_new(self) -> int:
        """Descriptor of the new state, wherever it is."""
        at = self._layout().find("n")
        if at < 0:
            raise self._foreign()
        return self._fs.open_directory(self._parent, self._names["tsf"[at]])

    def remove_old(self) -> None:
        """Remove the former state, if any is left."""
        self._remove("o", self._old)

    def remove_new(self) -> None:
        """Remove the staging directory, if any is left."""
        if not self.is_promoted():
            self._remove("n", self._new)

    def settle(self) -> tuple[str, ...]:
        """Nothing is left to do once TARGET has its name."""
        return ()

    def _back(self) -> dict[str, tuple[str, ...]]:
        return _BACKWARD_MISSING if self._old is None else _BACKWARD

    def _layout(self) -> str:
        return "".join(self._letter(self._names[role]) for role in "tsf")

    def _letter(self, name: bytes) -> str:
        inode = inode_at(self._parent, name)
        if inode is None:
            return "-"
        return {self._new: "n", self._old: "o"}.get(inode, "?")

    def _move(self, table: dict[str, tuple[str, ...]]) -> bool:
        layout = self._layout()
        if layout not in table:
            raise self._foreign()
        steps = table[layout]
        if steps and layout in _SWAPPED and self._swap():
            return True
        for step in steps:
            source, to = (self._names[role] for role in step)
            self._fs.rename_new(self._parent, source, self._parent, to)
            self._fs.fsync(self._parent)
        return len(steps) < 2

    def _swap(self) -> bool:
        try:
            self._fs.exchange(self._parent, self._names["t"], self._names["s"])
        except OSError as error:
            if is_unsupported(error):
                return False
            raise
        self._fs.fsync(self._parent)
        return True

    def _remove(self, letter: str, inode: int | None) -> None:
        at = self._layout().find(letter, 1)  # never TARGET
        if at > 0 and inode is not None:
            remove_tree(self._fs, self._parent, self._names["tsf"[at]], inode)
            self._fs.fsync(self._parent)

    def _foreign(self) -> ConfigError:
        return ConfigError(
            f"what is at and beside {os.fsdecode(self._path)!r} is not what the restore left",
            found=self._layout(),
            hint="another process moved it; nothing was touched",
        )


class _Within:
    """TARGET is a mount point: staging is in it, and its members are moved up one by one."""

    def __init__(self, path: bytes, journal: Journal, mount: MountPoint, fs: Fs) -> None:
        self._fs = fs
        self._path = path
        self._staging = _target.staging_name(path.rpartition(b"/")[2], journal.id)
        self._before = mount.before.meta()
        self._after = mount.after.meta()
        self._members = [name.encode("latin-1") for name in mount.names]
        self._top = os.open(path, _DIRECTORY)

    def close(self) -> None:
        os.close(self._top)

    def is_promoted(self) -> bool:
        """Whether nothing is left in staging: it is removed after its last member left."""
        return inode_at(self._top, self._staging) is None

    def is_untouched(self) -> bool:
        """Whether no member was moved up."""
        return not any(
            inode_at(self._top, name) is not None for name in self._members if name != _MOUNT_OWN
        )

    def forward(self) -> Promoted:
        with self._open_staging() as staging:
            for name in list_names(staging):
                # an ext file system's own empty lost+found gives way to the snapshot's
                move = self._fs.rename if name == _MOUNT_OWN else self._fs.rename_new
                move(staging, name, self._top, name)
        self._fs.rmdir(self._top, self._staging)
        self._fs.fsync(self._top)
        return Promoted(atomic=False, left_out=self.settle())

    def backward(self) -> None:
        if self.is_promoted():
            self._fs.mkdir(self._top, self._staging)
        with self._open_staging() as staging:
            for name in self._members:
                if inode_at(self._top, name) is not None and inode_at(staging, name) is None:
                    self._fs.rename_new(self._top, name, staging, name)
            self._fs.apply_fd(staging, self._after, directory=True)
            self._fs.fsync(staging)
        self._fs.apply_fd(self._top, self._before, directory=True)
        self._fs.fsync(self._top)

    def open_new(self) -> int:
        return self._fs.open_directory(self._top, b"." if self.is_promoted() else self._staging)

    def remove_old(self) -> None:
        """There is none: the mount point was empty."""

    def remove_new(self) -> None:
        inode = inode_at(self._top, self._staging)
        if inode is not None:
            remove_tree(self._fs, self._top, self._staging, inode)
            self._fs.apply_fd(self._top, self._before, directory=True)
            self._fs.fsync(self._top)

    def settle(self) -> tuple[str, ...]:
        """Give the mount point the attributes that the top of the snapshot has."""
        omitted = self._fs.apply_fd(self._top, self._after, directory=True)
        self._fs.fsync(self._top)
        return omitted

    @contextlib.contextmanager
    def _open_staging(self) -> Iterator[int]:
        fd = self._fs.open_directory(self._top, self._staging)
        try:
            yield fd
        finally:
            os.close(fd)


class _Site(Protocol):
    """Where the new and the former state are, and how to move them."""

    def close(self) -> None:
        """Close what it opened."""

    def is_promoted(self) -> bool:
        """Whether TARGET is the new state."""

    def is_untouched(self) -> bool:
        """Whether TARGET is as it was."""

    def forward(self) -> Promoted:
        """Make TARGET the new state."""

    def backward(self) -> None:
        """Make TARGET what it was, and put the new state back into staging."""

    def open_new(self) -> int:
        """Descriptor of the new state, wherever it is."""

    def remove_old(self) -> None:
        """Remove the former state, if any is left."""

    def remove_new(self) -> None:
        """Remove the staging directory, if any is left."""

    def settle(self) -> tuple[str, ...]:
        """Finish what a crash may have cut off after the moves; returns omissions."""


def _site(parent: int, path: bytes, journal: Journal, fs: Fs) -> _Site:
    if journal.mount is not None:
        return _Within(path, journal, journal.mount, fs)
    return _Beside(parent, path, journal, fs)


# --- a restore that is running ---


class Promotion:
    """The last steps of a restore, each durable before the next begins.

    Made when all is staged; then `proven`, `promote`, `recorded`. A failure
    before `promote` is undone by leaving the `Staging` block; one within it is
    rolled back, and where even that fails `finalize` and `undo` know the way.

    Args:
        staging: What is to be promoted, whole and with all attributes.
        repository: Repository id, hex.
        snapshot: Ledger number.
        digest: Of the manifest's PAE, hex.
        details: JSON that the attestation will need, should this run not live to write it.

    Raises:
        LocalError: The journal can't be written.
    """

    def __init__(
        self,
        staging: Staging,
        *,
        repository: str,
        snapshot: int,
        digest: str,
        details: dict[str, Any] | None = None,
    ) -> None:
        self._staging = staging
        with _local_errors("flush", staging.path):
            staging.fs.syncfs(staging.fd)  # what is promoted unproven must be durable, too
        old = None if staging.before is not None else staging.target.inode
        self.journal = staging.journal.save(
            Journal(
                id=staging.id,
                state=State.STAGED,
                repository=repository,
                snapshot=snapshot,
                digest=digest,
                new=str(staging.inode),
                old=None if old is None else str(old),
                mount=_mount_point(staging),
                details=details or {},
            )
        )

    def proven(self, disk_root: bytes, details: dict[str, Any] | None = None) -> None:
        """Write down that the staged tree was read back, and what it is.

        Args:
            disk_root: `ProofReport.disk_root`.
            details: More for the attestation.

        Raises:
            LocalError: The journal can't be written.
        """
        self._save(State.PROVEN, details, disk_root=disk_root.hex())

    def promote(self) -> Promoted:
        """Make TARGET the new state; the former one is kept at the staging name.

        Raises:
            ConfigError: TARGET changed since it was inspected.
            LocalError: The file system failed; TARGET is as it was, or `finalize`
                and `undo` are needed, as `Staging.kept` says.
        """
        assert self.journal.state is State.PROVEN
        _target.recheck(self._staging.target)
        with _opened_site(self._staging, self.journal) as site:
            self._staging.kept = True
            try:
                promoted = site.forward()
            except OSError as error:
                with contextlib.suppress(OSError, VaultError):
                    site.backward()
                    self._staging.kept = not site.is_untouched()
                raise local_error("promote to", self._staging.target.path, error) from error
        self._save(State.EXCHANGED, {"atomic": promoted.atomic})
        return promoted

    def recorded(self, details: dict[str, Any] | None = None) -> None:
        """Write down that an attestation says so; what is left is `finalize`.

        Raises:
            LocalError: The journal can't be written.
        """
        self._save(State.RECORDED, details)

    def _save(self, state: State, details: dict[str, Any] | None, **changes: Any) -> None:
        merged = self.journal.details | (details or {})
        self.journal = self._staging.journal.save(
            self.journal.replace(state=state, details=merged, **changes)
        )


def _mount_point(staging: Staging) -> MountPoint | None:
    if staging.before is None:
        return None
    return MountPoint(
        before=KeptMeta.of(staging.before),
        after=KeptMeta.of(fsmeta.read_meta(staging.fd, os.fstat(staging.fd))),
        names=tuple(name.decode("latin-1") for name in list_names(staging.fd)),
    )


@contextlib.contextmanager
def _opened_site(staging: Staging, journal: Journal) -> Iterator[_Site]:
    site = _site(staging.parent, staging.target.path, journal, staging.fs)
    try:
        yield site
    finally:
        site.close()


# --- a restore that ended: on its own, or by a crash ---


class _Left:
    """What a restore left behind, held against other runs; a context manager."""

    def __init__(self, path: Path | str | bytes, fs: Fs) -> None:
        self.path = _target.locate(path)
        with contextlib.ExitStack() as stack:
            self.parent = os.open(os.path.dirname(self.path), _DIRECTORY)
            stack.callback(os.close, self.parent)
            name = _only_journal(self.path)
            self.file = JournalFile(self.parent, name.removesuffix(b".journal"), fs)
            self.journal = self.file.load()
            if name != _journal_name(self.path, self.journal):
                raise ConfigError("restore journal is not the one of this target", found=name)
            self.site = _site(self.parent, self.path, self.journal, fs)
            stack.callback(self.site.close)
            self._hold(stack)
            self._close = stack.pop_all().close

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def save(self, state: State) -> None:
        """Go to a state, durably."""
        self.journal = self.file.save(self.journal.replace(state=state))

    def _hold(self, stack: contextlib.ExitStack) -> None:
        """The lock is on the new state's directory, which keeps it through renames."""
        try:
            fd = self.site.open_new()
        except (FileNotFoundError, ConfigError):
            if self.journal.state in {State.DISCARDED, State.STAGED}:
                return  # its removal was cut off after the directory
            raise
        stack.callback(os.close, fd)
        if not try_lock(fd):
            raise BusyError(f"a restore to {os.fsdecode(self.path)!r} is running")


def finalize(
    path: Path | str | bytes,
    *,
    record: Callable[[Journal], None],
    executor: Executor,
    fs: Fs | None = None,
) -> Journal:
    """Go on from where a restore stood, and remove the former state.

    What was proven but not yet promoted is read back again first: time has passed.

    Args:
        path: TARGET.
        record: Makes the attestation for a restore that has none yet; raises if it can't.
        executor: Reads and hashes.
        fs: System calls.

    Returns:
        The journal as it was when nothing was left to do but remove it.

    Raises:
        ConfigError: Nothing to finalize, or it was never proven.
        DigestMismatchError: What is staged is not what was proven; TARGET is untouched.
        LocalError: The file system failed; may be called again.
    """
    calls = fs or Fs()
    with _local_errors("finalize", path), _Left(path, calls) as left:
        if left.journal.state in {State.STAGED, State.DISCARDED}:
            raise ConfigError(
                "the restore was not proven, so it can't be finalized",
                hint="remove what it left with restore --undo, and restore again",
            )
        if left.journal.state is not State.FINALIZED:
            _complete(left, record, executor, calls)
            left.save(State.FINALIZED)
        left.site.remove_old()
        left.file.remove()
        return left.journal


def _complete(left: _Left, record: Callable[[Journal], None], executor: Executor, fs: Fs) -> None:
    """Promote if that is not done, and record if that is not done."""
    if not left.site.is_promoted():
        left.site.backward()
        left.save(State.PROVEN)
        _prove_again(left, executor, fs)
        left.site.forward()
    left.site.settle()
    if left.journal.state is State.PROVEN:
        left.save(State.EXCHANGED)
    if left.journal.state is State.EXCHANGED:
        record(left.journal)
        left.save(State.RECORDED)


def _prove_again(left: _Left, executor: Executor, fs: Fs) -> None:
    fd = left.site.open_new()
    try:
        found = read_disk_root(fd, executor=executor, fs=fs)
    finally:
        os.close(fd)
    if found.hex() != left.journal.disk_root:
        raise DigestMismatchError(
            "what is staged is not what was proven",
            expected=left.journal.disk_root,
            found=found.hex(),
            hint="remove it with restore --undo, and restore again",
        )


def undo(path: Path | str | bytes, *, fs: Fs | None = None) -> Journal | None:
    """Take one step back: a promoted restore into staging, a staged one away.

    Returns:
        The journal after TARGET was put back to what it was, the new state being
        in staging again (to finalize it after all, or to undo once more); None
        after staging was removed.

    Raises:
        ConfigError: Nothing to undo, or the former state is being removed already.
        LocalError: The file system failed; may be called again.
    """
    calls = fs or Fs()
    with _local_errors("undo", path):
        full = _target.locate(path)
        if not _target.journals(full):
            _remove_leftovers(full, calls)
            return None
        with _Left(path, calls) as left:
            return _undo(left)


def _undo(left: _Left) -> Journal | None:
    state = left.journal.state
    if state is State.FINALIZED:
        raise ConfigError(
            "the former state is being removed, so there is no way back",
            hint="end it with restore --finalize",
        )
    if state in {State.EXCHANGED, State.RECORDED}:
        left.site.backward()
        left.save(State.PROVEN)
        return left.journal
    if state is State.PROVEN:
        left.site.backward()
    left.save(State.DISCARDED)
    left.site.remove_new()
    left.file.remove()
    return None


def leftovers(path: Path | str | bytes) -> list[bytes]:
    """Staging directories beside TARGET, or in it, that killed runs left without a journal.

    Raises:
        ConfigError: TARGET is no possible one.
        LocalError: The directory around it can't be listed.
    """
    full = _target.locate(path)
    return [] if _target.journals(full) else _stagings(full)


def _stagings(full: bytes) -> list[bytes]:
    homes = sorted({os.path.dirname(full), full})
    return [path for home in homes for path in _target.stagings(full, home)]


def _remove_leftovers(full: bytes, fs: Fs) -> None:
    """What runs left that were killed before their journal was written."""
    found = _stagings(full)
    drafts = _target.journal_drafts(full)
    if not found and not drafts:
        raise ConfigError(f"no restore to {os.fsdecode(full)!r} is left to undo")
    for path in found + drafts:
        home, name = os.path.split(path)
        around = os.open(home, _DIRECTORY)
        try:
            if path in drafts:
                fs.unlink(around, name)
            else:
                _remove_leftover(fs, around, name)
        finally:
            os.close(around)


def _remove_leftover(fs: Fs, around: int, name: bytes) -> None:
    fd = fs.open_directory(around, name)
    try:
        if not try_lock(fd):
            raise BusyError("a restore is running", found=os.fsdecode(name))
        remove_tree(fs, around, name, os.fstat(fd).st_ino)
        fs.fsync(around)
    finally:
        os.close(fd)


def unfinished(path: Path | str | bytes) -> Journal | None:
    """The journal beside TARGET, if there is one; changes nothing.

    Raises:
        ConfigError: There are several.
        FormatError: It was damaged.
    """
    full = _target.locate(path)
    if not _target.journals(full):
        return None
    parent = os.open(os.path.dirname(full), _DIRECTORY)
    try:
        staging = _only_journal(full).removesuffix(b".journal")
        return JournalFile(parent, staging, Fs()).load()
    finally:
        os.close(parent)


def _only_journal(full: bytes) -> bytes:
    """Name of the one journal beside TARGET."""
    found = _target.journals(full)
    if len(found) != 1:
        shown = os.fsdecode(full)
        raise ConfigError(
            f"several restores to {shown!r} are unfinished"
            if found
            else f"no restore to {shown!r} is unfinished",
            found=", ".join(map(os.fsdecode, found)) or None,
        )
    return os.path.basename(found[0])


def _journal_name(full: bytes, journal: Journal) -> bytes:
    return _target.staging_name(os.path.basename(full), journal.id) + b".journal"


@contextlib.contextmanager
def _local_errors(what: str, path: Path | str | bytes) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise local_error(what, os.fsencode(path), error) from error
