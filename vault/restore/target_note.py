"""The note beside TARGET: for a person who finds a directory there, or lost the journal.

It says which restore left the directory, and where the journal is. The code decides nothing by
it: where others can write the directory around TARGET, any of them could have written the note.
A directory beside TARGET without a journal may be the only copy of the former live state, so
nothing here removes it.
"""

# ruff: noqa: PTH119, PTH120 - file names are bytes, which pathlib does not take

import contextlib
import dataclasses
import errno
import json
import os
import re
import stat
from pathlib import Path
from typing import Final

from vault.encoding import loads_strict
from vault.errors import ConfigError, FormatError, VaultError, naming
from vault.model import Body, body_from_json, body_to_json
from vault.restore import target as _target
from vault.restore.journal import is_id, is_number
from vault.restore.private_files import write_new
from vault.restore.syscalls import Fs, local_error

_VERSION: Final = 1
_MAX_SIZE: Final = 64 << 10  # bytes
_MAX_TEXT: Final = 4_096  # characters of a field
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NAME: Final = re.compile(rb"\.(.+)\.vault-([0-9a-f]{8})\.note", re.DOTALL)
_ABOUT: Final = (
    "vault restores the directory below; what lies beside it under the other name is staged, or"
    " the state before. The journal is in the state directory of the user named here. Nothing"
    " but 'vault restore --undo --from' reads this note, and it asks first."
)


class Note(Body, frozen=True, kw_only=True):
    """The fields of a note."""

    version: int = _VERSION
    about: str = _ABOUT
    id: str
    host: str
    user: str
    state: str  # directory
    repository: str
    snapshot: int
    target: str  # name of TARGET
    beside: str  # name of the directory beside it
    new: str  # inode number of the restored tree
    former: str | None  # inode number of the former TARGET; None if TARGET was missing


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LeftBeside:
    """A directory or note beside TARGET without a journal in this user's state directory."""

    path: Path
    note: Note | None = None  # the note beside it, if it can be read


def note_name(staging: bytes) -> bytes:
    """Name of the note of a staging directory."""
    return staging + _target.NOTE_SUFFIX


def write_note(parent: int, staging: bytes, note: Note, fs: Fs) -> None:
    """Leave a note, durably, that every user can read.

    Raises:
        OSError: It could not be written.
    """
    text = json.dumps(body_to_json(note), indent=1, ensure_ascii=True)
    write_new(fs, parent, note_name(staging), text.encode("ascii") + b"\n", mode=0o644)
    fs.fsync(parent)


def remove_note(parent: int, staging: bytes, fs: Fs) -> None:
    """Remove the note that a run of this user left, if it is there; the caller syncs.

    Raises:
        OSError: It could not be removed.
    """
    name = note_name(staging)
    try:
        status = os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return
    if stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid():
        with contextlib.suppress(FileNotFoundError):
            fs.unlink(parent, name)


def note_parts(path: Path | str | bytes) -> tuple[bytes, bytes, str]:
    """The directory of a note, the name of its TARGET, and its id: all from its own path.

    Raises:
        ConfigError: The path is not a note's.
    """
    given = os.fsencode(path)
    match = _NAME.fullmatch(os.path.basename(given))
    if match is None:
        raise ConfigError(
            f"{os.fsdecode(given)!r} is not the name of a restore's note",
            expected=".NAME.vault-ID.note",
        )
    return os.path.realpath(os.path.dirname(given) or b"."), match[1], match[2].decode("ascii")


def read(parent: int, name: bytes) -> tuple[Note, os.stat_result]:
    """What a note says, and the status of its file.

    Raises:
        ConfigError: It is missing, or no plain file.
        FormatError: It is damaged, too long, or its name is another restore's.
        LocalError: It can't be read.
    """
    shown = os.fsdecode(name)
    try:
        fd = os.open(name, _READ, dir_fd=parent)
        with os.fdopen(fd, "rb") as file:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                raise ConfigError(f"note {shown!r} is no file")
            data = file.read(_MAX_SIZE + 1)
    except FileNotFoundError as error:
        raise ConfigError(f"there is no note {shown!r}") from error
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise ConfigError(f"note {shown!r} is no file") from error
        raise local_error("read", name, error) from error
    with naming(f"note {shown!r}"):
        return _decode(data, name), status


def _decode(data: bytes, name: bytes) -> Note:
    if len(data) > _MAX_SIZE:
        raise FormatError("too long", expected=f"at most {_MAX_SIZE} bytes")
    note = body_from_json(loads_strict(data), Note)
    texts = (note.host, note.user, note.state, note.target, note.beside)
    if note.version != _VERSION or max(map(len, texts)) > _MAX_TEXT:
        raise FormatError("not understood", found=f"version {note.version}")
    if not (is_id(note.id) and is_number(note.new) and is_number(note.former)):
        raise FormatError("damaged", found="an id or inode number that is none")
    if not name.endswith(b".vault-" + note.id.encode("ascii") + _target.NOTE_SUFFIX):
        raise FormatError("of another restore", found=note.id)
    return note


def found_beside(full: bytes, *, known: set[str]) -> list[LeftBeside]:
    """Directories and notes of restores beside TARGET, or in it, except those with known ids.

    Args:
        full: TARGET, as `target.locate_target` gives it.
        known: Ids of the restores that this user's journals are about.

    Raises:
        LocalError: The directory around TARGET can't be listed.
    """
    paths: dict[bytes, bytes] = {}  # without the note's suffix -> as found
    for path in _target.beside(full):
        stem = path.removesuffix(_target.NOTE_SUFFIX)
        if stem[-8:].decode("ascii") not in known:
            paths[stem] = min(path, paths.get(stem, path))
    return [_beside(paths[stem], os.path.dirname(full), stem) for stem in sorted(paths)]


def _beside(path: bytes, around: bytes, stem: bytes) -> LeftBeside:
    note = None
    with contextlib.suppress(OSError, VaultError):
        parent = os.open(around, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            note = read(parent, note_name(os.path.basename(stem)))[0]
        finally:
            os.close(parent)
    return LeftBeside(path=Path(os.fsdecode(path)), note=note)
