"""After a restore, or its crash: go on with it, or take it back (ADR 0009).

This user's journal and the inode numbers found at the names decide each step. Without a journal
nothing is removed: the directory beside TARGET may be the only copy of the former live state.
"""

# ruff: noqa: PTH118, PTH119, PTH120 - file names are bytes, which pathlib does not take

import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, Self

from vault.errors import ConfigError
from vault.restore import target as _target
from vault.restore import target_note as _note
from vault.restore.changed_since_proof import walk_target
from vault.restore.journal import EXCHANGED, Journal, Journals, State, peek_journals
from vault.restore.shared_parent import shared_because
from vault.restore.swap import BesideSite, open_parent, site_of
from vault.restore.syscalls import Fs, local_error
from vault.restore.target_note import LeftBeside as BesideTarget
from vault.restore.target_note import Note

_MAX_NAMED: Final = 5  # directories beside TARGET that a message lists

ProveAgain = Callable[[Journal, int], bytes]
"""Reads the new state back and returns an attestation of it; raises if the state is wrong."""

RecordJournal = Callable[[Journal], None]
"""Appends the journal's attestation to the ledger."""


class _Left:
    """An unfinished restore, locked against other runs of this user; a context manager."""

    def __init__(self, state: Path, target: bytes, fs: Fs) -> None:
        with contextlib.ExitStack() as stack:
            self._journals = stack.enter_context(Journals(state, target, fs))
            self.parent = open_parent(target)
            stack.callback(os.close, self.parent)
            found = self._journals.load()
            self.started = [each for each in found if each.state is State.STARTED]
            self.journal = _only(target, [each for each in found if each not in self.started])
            self.fs = fs
            if self.journal is not None:
                self.site = site_of(self.parent, self.journal, fs)
                stack.callback(self.site.close)
            self._close = stack.pop_all().close

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def save(self, state: State, **changes: object) -> None:
        """Write the new state to the journal, durably."""
        assert self.journal is not None
        self.journal = self._journals.save(self.journal.replace(state=state, **changes))

    def end(self, journal: Journal) -> None:
        """Remove the note, then the journal: the restore is finished."""
        _note.remove_note(self.parent, _staging_name(journal), self.fs)
        self.fs.fsync(self.parent)  # no directory comes back once its journal is gone
        self._journals.remove(journal)


def _only(target: bytes, journals: list[Journal]) -> Journal | None:
    if len(journals) > 1:
        raise ConfigError(
            f"several restores to {os.fsdecode(target)!r} are unfinished",
            found=", ".join(each.id for each in journals),
        )
    return journals[0] if journals else None


def _staging_name(journal: Journal) -> bytes:
    return _target.staging_name(os.path.basename(journal.place), journal.id)


# --- forward ---


def finalize(
    path: Path | str | bytes,
    *,
    state: Path,
    prove: ProveAgain,
    record: RecordJournal,
    again: bool = False,
    fs: Fs | None = None,
) -> Journal:
    """Go on from the step that a restore had reached, and remove the former state.

    A tree that is still staged is proven again first: it may have changed since, and a journal
    is no proof. A tree that was exchanged already is proven again only with ``again``.

    Args:
        path: TARGET.
        state: The state directory of this user.
        prove: Proves the new state again, and signs that.
        record: Records an attestation in the ledger; raises if that fails.
        again: Prove also a tree that was exchanged already, and record that.
        fs: System calls.

    Returns:
        The last journal, as it was right before it was removed.

    Raises:
        BusyError: A restore of this user runs.
        ConfigError: No restore to finalize, or it was never proven.
        IntegrityError: The staged tree is not the restored one; TARGET is untouched.
        LocalError: The file system failed; the caller may try again.
    """
    calls = fs or Fs()
    full = _target.locate_target(path)
    _require_any(state, full, calls)
    with _local_errors("finalize", full), _Left(state, full, calls) as left:
        if left.journal is None or left.journal.state in {State.STAGED, State.DISCARDED}:
            raise ConfigError(
                "the restore was not proven, so it can't be finalized",
                hint="remove what it left with restore --undo, and restore again",
            )
        if left.journal.state is not State.FINALIZED:
            _complete(left, prove, record, again=again)
            left.save(State.FINALIZED)
        left.site.remove_old()
        left.end(left.journal)
        return left.journal


def _complete(left: _Left, prove: ProveAgain, record: RecordJournal, *, again: bool) -> None:
    """Promote if that is not done, and record if that is not done."""
    assert left.journal is not None
    if not left.site.is_promoted():
        left.site.backward()
        left.save(State.PROVEN, attestation=_prove(left, prove))
        left.save(State.EXCHANGED, atomic=left.site.forward().atomic)
    elif again:
        left.save(State.EXCHANGED, attestation=_prove(left, prove))
    left.site.settle()
    if left.journal.state is not State.RECORDED:
        left.save(State.EXCHANGED)
        record(left.journal)
        left.save(State.RECORDED)


def _prove(left: _Left, prove: ProveAgain) -> str:
    assert left.journal is not None
    fd = left.site.open_new()
    if fd is None:
        raise ConfigError("what was restored is not there any more", found=left.journal.id)
    try:
        return prove(left.journal, fd).decode("utf-8")
    finally:
        os.close(fd)


# --- back ---


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Undone:
    """Result of one step back."""

    journal: Journal | None = None
    """Of what was restored, which is kept beside TARGET; None: it was removed."""
    beside: Path | None = None  # where it is kept


def undo_restore(path: Path | str | bytes, *, state: Path, fs: Fs | None = None) -> Undone:
    """Take one step back: a promoted restore into staging, a staged one away.

    A restored tree that changed while it was TARGET is not removed.

    Args:
        path: TARGET.
        state: The state directory of this user.
        fs: System calls.

    Returns:
        Where the restored tree is kept (to finalize it after all, or to undo once more), or
        that it was removed.

    Raises:
        BusyError: A restore of this user runs.
        ConfigError: No restore to undo, its former state is being removed already, or the
            restored tree has changed since.
        LocalError: The file system failed; the caller may try again.
    """
    calls = fs or Fs()
    full = _target.locate_target(path)
    _require_any(state, full, calls)
    with _local_errors("undo", full), _Left(state, full, calls) as left:
        if left.journal is not None:
            return _undo(left)
        for journal in left.started:
            _discard(left, journal)
        return Undone()


def _undo(left: _Left) -> Undone:
    assert left.journal is not None
    journal = left.journal
    if journal.state is State.FINALIZED:
        raise ConfigError(
            "the former state is being removed, so there is no way back",
            hint="end it with restore --finalize",
        )
    if journal.state in EXCHANGED or not left.site.is_untouched():
        left.site.backward()
        left.save(State.UNDONE)
        return Undone(journal=left.journal, beside=_kept_at(journal))
    if journal.state is State.UNDONE:
        _refuse_changed(left, journal)
    left.save(State.DISCARDED)
    left.site.remove_new()
    left.end(journal)
    return Undone()


def _discard(left: _Left, journal: Journal) -> None:
    """Remove the staging directory of a run that was killed before the tree was complete."""
    site = site_of(left.parent, journal, left.fs)
    try:
        site.remove_new()
    finally:
        site.close()
    left.end(journal)


def _kept_at(journal: Journal) -> Path:
    home = os.path.dirname(journal.place) if journal.mount is None else journal.place
    return Path(os.fsdecode(os.path.join(home, _staging_name(journal), _target.TREE)))


def _refuse_changed(left: _Left, journal: Journal) -> None:
    """Refuse to remove a tree that was live and changed: it may be the only copy of new data."""
    fd = left.site.open_new()
    if fd is None:
        return
    try:
        changed = _first_change(fd, journal, left.fs)
    finally:
        os.close(fd)
    if changed is not None:
        raise ConfigError(
            f"what was restored was changed while it was {os.fsdecode(journal.place)!r},"
            " so it is not removed",
            found=os.fsdecode(changed) or "its top directory",
            hint=f"take what you need from {_kept_at(journal)}, remove that directory, and say"
            " --undo again; --finalize exchanges only what is as it was proven",
        )


def _first_change(fd: int, journal: Journal, fs: Fs) -> bytes | None:
    """Path of something that changed after the exchange; None where nothing did."""
    newest = int(journal.newest or 0)
    mounted = journal.mount is not None
    for path, status in walk_target(fd, fs):
        if mounted and b"/" not in path:
            continue  # a member of a mount point: its move changed its ctime
        if path:
            changed = status.st_ctime_ns > newest
        else:  # the top: the exchange changed its ctime
            changed = journal.top is not None and str(status.st_mtime_ns) != journal.top.mtime
        if changed:
            return path
    return None


# --- back without a journal ---


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """The exchange that `undo_restore_from` would make, shown to the user for consent."""

    target: Path
    other: Path | None  # becomes TARGET; None: TARGET is to be missing
    note: Note
    note_owner: int  # user id
    other_owner: int | None
    other_mode: int | None
    shared: str | None  # why other users could have put both there; None: only this user could


def undo_restore_from(
    path: Path | str | bytes,
    *,
    state: Path,
    agree: Callable[[Exchange], None],
    fs: Fs | None = None,
) -> Exchange | None:
    """Exchange TARGET and the directory beside it, as a note says; removes nothing.

    The note's own name gives both names. Its content, which others may have forged, says which
    directory is the former state: so `agree` asks the user first, and directories move only if
    their inode numbers are those of the note.

    Args:
        path: The note.
        state: The state directory of this user.
        agree: Called with the planned exchange; raises to refuse it.
        fs: System calls.

    Returns:
        The exchange made; None if TARGET was the former state already.

    Raises:
        ConfigError: The path is no note's, or the directories are not those of the note.
        FormatError: The note is damaged.
        LocalError: The file system failed.
    """
    calls = fs or Fs()
    around, name, restore_id = _note.note_parts(path)
    full = _target.locate_target(os.path.join(around, name))
    with _local_errors("undo", full), contextlib.ExitStack() as stack:
        if any(each.id == restore_id for each in peek_journals(state, full, calls)):
            left = stack.enter_context(_Left(state, full, calls))
        else:
            left = None
        parent = open_parent(full)
        stack.callback(os.close, parent)
        staging = _target.staging_name(name, restore_id)
        note, status = _note.read(parent, _note.note_name(staging))
        site = _site_of_note(parent, full, note, calls)
        stack.callback(site.close)
        if site.is_untouched():
            return None
        exchange = _describe(parent, full, site, note, status.st_uid)
        agree(exchange)
        site.backward()
        if left is not None and left.journal is not None and left.journal.id == restore_id:
            left.save(State.UNDONE)
        return exchange


def _site_of_note(parent: int, full: bytes, note: Note, fs: Fs) -> BesideSite:
    site = BesideSite(
        parent,
        full,
        restore_id=note.id,
        new=int(note.new),
        old=None if note.former is None else int(note.former),
        holder=None,
        fs=fs,
    )
    if not site.knows_the_way_back():
        raise ConfigError(
            f"what is at and beside {os.fsdecode(full)!r} is not what its note says",
            expected=f"inode {note.new} at one name"
            + (f", inode {note.former} at the other" if note.former else ""),
            found=site.described(),
            hint="nothing was moved; look at the directories and move them by hand",
        )
    return site


def _describe(parent: int, full: bytes, site: BesideSite, note: Note, owner: int) -> Exchange:
    place = site.find_old()
    status = None if place is None else os.stat(place[1], dir_fd=place[0], follow_symlinks=False)
    around, name = os.path.split(full)
    holder = os.path.join(around, _target.staging_name(name, note.id))
    return Exchange(
        target=Path(os.fsdecode(full)),
        other=None if place is None else Path(os.fsdecode(os.path.join(holder, place[1]))),
        note=note,
        note_owner=owner,
        other_owner=None if status is None else status.st_uid,
        other_mode=None if status is None else status.st_mode & 0o7777,
        shared=shared_because(os.fstat(parent), parent, status),
    )


# --- looking ---


def unfinished(path: Path | str | bytes, *, state: Path) -> Journal | None:
    """The journal of a restore to TARGET that staged its whole tree, or None; changes nothing.

    Raises:
        ConfigError: There are several such journals, or one is not this user's.
        FormatError: It was damaged.
    """
    full = _target.locate_target(path)
    found = peek_journals(state, full, Fs())
    return _only(full, [each for each in found if each.state is not State.STARTED])


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Leftovers:
    """Directories and notes of unfinished restores beside TARGET."""

    killed: tuple[Path, ...] = ()  # staging of runs of this user; `undo` removes it
    unknown: tuple[BesideTarget, ...] = ()  # without a journal of this user's: never removed


def leftovers(path: Path | str | bytes, *, state: Path) -> Leftovers:
    """List what killed restores of this user left, and what lies there without a journal.

    Raises:
        ConfigError: TARGET can't be a target, or a journal is not this user's.
        FormatError: A journal was damaged.
        LocalError: The directory around it can't be listed.
    """
    full = _target.locate_target(path)
    journals = peek_journals(state, full, Fs())
    known = {each.id for each in journals}
    return Leftovers(
        killed=tuple(_kept_at(each).parent for each in journals if each.state is State.STARTED),
        unknown=tuple(_note.found_beside(full, known=known)),
    )


def _require_any(state: Path, full: bytes, fs: Fs) -> None:
    """Refuse without a journal, naming what lies beside TARGET."""
    if peek_journals(state, full, fs):
        return
    found = _note.found_beside(full, known=set())
    shown = os.fsdecode(full)
    if not found:
        raise ConfigError(f"no restore to {shown!r} of this user is unfinished")
    named = ", ".join(str(each.path) for each in found[:_MAX_NAMED])
    more = f" and {len(found) - _MAX_NAMED} more" if len(found) > _MAX_NAMED else ""
    raise ConfigError(
        f"this user's state directory {state} has no journal of a restore to {shown!r};"
        " what lies beside it may be the former state, so it is left alone",
        found=named + more,
        hint=_advice(found[0]),
    )


def _advice(found: BesideTarget) -> str:
    if found.note is None:
        return "look at it; where it is what you want back, move it there by hand"
    note = found.note
    path = found.path if found.path.name.endswith(".note") else f"{found.path}.note"
    return (
        f"a note says: restore of snapshot {note.snapshot} by user {note.user} on {note.host},"
        f" journal in {note.state}; as that user say --undo or --finalize there, or exchange the"
        f" two names with 'vault restore --undo --from {path}'"
    )


@contextlib.contextmanager
def _local_errors(what: str, path: bytes) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise local_error(what, path, error) from error


def refuse_unfinished(state: Path, target: bytes, fs: Fs) -> None:
    """Refuse while an earlier restore of this user to TARGET waits for finalize or undo.

    Raises:
        ConfigError: One waits.
    """
    waiting = [each for each in peek_journals(state, target, fs) if each.state is not State.STARTED]
    if waiting:
        raise ConfigError(
            f"an earlier restore to {os.fsdecode(target)!r} is not finished",
            found=f"snapshot {waiting[0].subject.snapshot}, {waiting[0].state}",
            hint="finish it with restore --finalize, or take it back with restore --undo",
        )
