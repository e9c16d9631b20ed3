"""The journal of a restore: its steps so far, so that it can go on or go back (ADR 0009).

Journals lie in the state directory of the user who restores (`vault.restore.private_files`), one
file each, and are replaced whole: after a crash the file is the journal before or after the
step. Journals are checked here before they are used. An attestation never rests on a journal
alone.
"""

import contextlib
import dataclasses
import hashlib
import os
import re
from enum import StrEnum
from pathlib import Path
from typing import Final, Self

from vault.encoding import dumps, loads_strict
from vault.errors import BusyError, FormatError, LocalError, naming
from vault.machine import metadata
from vault.model import Body, body_from_json, body_to_json, replace_body
from vault.restore.private_files import PrivateDirectory
from vault.restore.syscalls import Fs

_VERSION: Final = 1
_MAX_SIZE: Final = 16 << 20  # bytes; the names at the top of a mount point are in it
_ROOM: Final = "restores"
_ID: Final = re.compile(r"[0-9a-f]{8}")
_NUMBER: Final = re.compile(r"[0-9]{1,20}")
_KEY_LENGTH: Final = 32  # hex digits


class State(StrEnum):
    """How far a restore went."""

    STARTED = "started"  # staging is being built; nothing but staging and the note was made
    STAGED = "staged"  # the whole tree is in staging, unproven
    PROVEN = "proven"  # the staged tree was read back and attested; TARGET may be half exchanged
    EXCHANGED = "exchanged"  # TARGET is the new state, the former one is kept
    RECORDED = "recorded"  # as EXCHANGED, and the ledger has the attestation
    UNDONE = "undone"  # TARGET is the former state again, the restored tree is kept beside it
    FINALIZED = "finalized"  # the former state is being removed: no way back
    DISCARDED = "discarded"  # staging is being removed: no way forward


EXCHANGED: Final = frozenset({State.EXCHANGED, State.RECORDED})  # TARGET is the new state


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Local:
    """The user and host that restore, for the journal, the note and the attestation."""

    state: Path  # the state directory of this user
    host: str
    user: str


class Subject(Body, frozen=True, kw_only=True):
    """The snapshot that is restored."""

    repository: str  # id, hex
    snapshot: int  # seq of the manifest
    digest: str  # hex, of the manifest's PAE
    replaces: bool = False  # TARGET has live data
    warrant: int | None = None  # seq of what people agreed to


class KeptMeta(Body, frozen=True, kw_only=True):
    """Attributes of one directory."""

    mode: int
    uid: int
    gid: int
    mtime: str  # ns; may be beyond what JSON's readers agree on
    xattrs: tuple[tuple[str, str], ...]  # hex

    @classmethod
    def of(cls, meta: metadata.Attributes) -> "KeptMeta":
        """From attributes that were read from the disk."""
        pairs = tuple((name.hex(), value.hex()) for name, value in meta.xattrs or ())
        return cls(mode=meta.mode, uid=meta.uid, gid=meta.gid, mtime=str(meta.mtime), xattrs=pairs)

    def meta(self) -> metadata.Meta:
        """The inverse of `of`.

        Raises:
            FormatError: The journal was damaged.
        """
        try:
            pairs = tuple((bytes.fromhex(name), bytes.fromhex(val)) for name, val in self.xattrs)
            mtime = int(self.mtime)
        except ValueError as error:
            raise FormatError("restore journal is damaged", found=str(error)) from error
        return metadata.Meta(
            mode=self.mode, uid=self.uid, gid=self.gid, mtime=mtime, xattrs=pairs or None
        )


class MountPoint(Body, frozen=True, kw_only=True):
    """State of a mount point before a restore into it, so that the restore can be undone."""

    before: KeptMeta
    names: tuple[str, ...] = ()  # at the top of the new state; bytes as Latin-1

    def replace(self, **changes: object) -> "MountPoint":
        """A copy with some fields changed."""
        return replace_body(self, **changes)


class Journal(Body, frozen=True, kw_only=True):
    """One restore. Inode numbers tell the states apart; device numbers change with a reboot."""

    version: int = _VERSION
    id: str  # 8 hex digits
    target: str  # absolute path; bytes as Latin-1
    state: State
    subject: Subject
    holder: str | None = None  # inode number, decimal, of the directory around the staged tree
    new: str | None = None  # of the staged tree; None until both were made
    old: str | None = None  # of the former state; None where TARGET was missing
    mount: MountPoint | None = None  # set where TARGET is a mount point
    top: KeptMeta | None = None  # attributes of the new state's top, once all is staged
    newest: str = ""  # ns; latest change below the new state's top, as seen before the exchange
    atomic: bool = True  # the exchange was one step
    attestation: str = ""  # signed before the exchange by the process that proved

    @property
    def place(self) -> bytes:
        """Path of TARGET."""
        return self.target.encode("latin-1")

    def replace(self, **changes: object) -> "Journal":
        """A copy with some fields changed."""
        return replace_body(self, **changes)


def is_id(text: str) -> bool:
    """Whether a text names a restore."""
    return _ID.fullmatch(text) is not None


def is_number(text: str | None) -> bool:
    """Whether a text can be an inode number; None can, too: no inode."""
    return text is None or _NUMBER.fullmatch(text) is not None


def decode(data: bytes, *, target: bytes, restore_id: str) -> Journal:
    """Decode a journal, and check that it belongs to that restore.

    Raises:
        FormatError: The bytes are no journal, or another restore's.
    """
    journal = body_from_json(loads_strict(data), Journal)
    if journal.version != _VERSION:
        raise FormatError("restore journal is not understood", found=f"version {journal.version}")
    if journal.id != restore_id or journal.target != target.decode("latin-1"):
        raise FormatError(
            "restore journal is of another restore",
            expected=f"{restore_id} to {os.fsdecode(target)!r}",
            found=f"{journal.id[:40]!r} to {journal.target[:200]!r}",
        )
    if not all(map(is_number, (journal.holder, journal.new, journal.old, journal.newest or None))):
        raise FormatError("restore journal is damaged", found="an inode number that is none")
    for name in journal.mount.names if journal.mount else ():
        if not _is_plain_name(name):
            raise FormatError("restore journal is damaged", found=f"a name that is none: {name!r}")
    return journal


def _is_plain_name(name: str) -> bool:
    return bool(name) and name not in {".", ".."} and not set("/\0") & set(name) and name < "\u0100"


class Journals:
    """The journals of this user's restores to one TARGET, locked against this user's other runs.

    A context manager. The lock file is in the private directory, so other users can't take it.

    Args:
        state: The state directory of this user.
        target: Absolute path of TARGET (`target.locate_target`).
        fs: System calls.

    Raises:
        BusyError: Another run of this user holds the lock.
        ConfigError: The directory is not this user's alone.
        LocalError: It can't be made.
    """

    def __init__(self, state: Path, target: bytes, fs: Fs) -> None:
        self.target = target
        self._key = _key(target)
        with contextlib.ExitStack() as stack:
            room = PrivateDirectory.make(state / _ROOM, fs)
            stack.callback(room.close)
            lock = room.lock(f"{self._key}.lock")
            if lock is None:
                raise BusyError(f"a restore to {os.fsdecode(target)!r} is running")
            self._lock = lock
            self._room = room
            stack.pop_all()
        self._sweep()

    def _sweep(self) -> None:
        """Remove temporary files of runs that were killed while they wrote a journal."""
        with contextlib.suppress(LocalError):
            for name in self._room.names():
                if name.startswith(self._key) and name.endswith(".json.new"):
                    self._room.remove(name)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        keep = True
        try:
            with contextlib.suppress(OSError):
                keep = bool(_ids(self._room, self._key))
            with contextlib.suppress(OSError):
                self._room.unlock(self._lock, keep=keep)
        finally:
            self._room.close()

    def load(self) -> list[Journal]:
        """All of them, by id.

        Raises:
            ConfigError: One is no plain file of this user.
            FormatError: One is damaged.
            LocalError: One can't be read.
        """
        return _load(self._room, self.target)

    def save(self, journal: Journal) -> Journal:
        """Replace the restore's journal, durably; returns the new one.

        Raises:
            LocalError: It could not be written; the journal before is still there.
        """
        data = dumps(body_to_json(journal))
        if len(data) > _MAX_SIZE:
            raise FormatError("too much for a restore journal", found=f"{len(data)} bytes")
        self._room.replace(_name(self._key, journal.id), data)
        return journal

    def remove(self, journal: Journal) -> None:
        """Remove one, durably; nothing happens where there is none.

        Raises:
            LocalError: It could not be removed.
        """
        self._room.remove(_name(self._key, journal.id))


def peek_journals(state: Path, target: bytes, fs: Fs) -> list[Journal]:
    """The journals of this user's restores to TARGET, without holding them; changes nothing.

    Raises:
        ConfigError, FormatError, LocalError: As of `Journals`.
    """
    room = PrivateDirectory.open(state / _ROOM, fs)
    if room is None:
        return []
    try:
        return _load(room, target)
    finally:
        room.close()


def _load(room: PrivateDirectory, target: bytes) -> list[Journal]:
    key = _key(target)
    found = []
    for restore_id in _ids(room, key):
        data = room.read(_name(key, restore_id), _MAX_SIZE)
        if data is not None:
            path = room.path / _name(key, restore_id)
            try:
                with naming(f"restore journal {path}"):
                    found.append(decode(data, target=target, restore_id=restore_id))
            except FormatError as error:
                error.hint = (
                    f"nothing was moved or removed: move {path} away, and 'vault restore --undo'"
                    " says what lies beside TARGET and how to exchange the two"
                )
                raise
    return found


def _ids(room: PrivateDirectory, key: str) -> list[str]:
    pattern = re.compile(rf"{key}\.([0-9a-f]{{8}})\.json")
    return [match[1] for name in room.names() if (match := pattern.fullmatch(name))]


def _name(key: str, restore_id: str) -> str:
    return f"{key}.{restore_id}.json"


def _key(target: bytes) -> str:
    return hashlib.sha256(target).hexdigest()[:_KEY_LENGTH]
