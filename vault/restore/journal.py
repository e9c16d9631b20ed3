"""What a restore has done so far, durably beside TARGET, so that it can go on or go back.

The file ``.<name>.vault-<id>.journal`` is replaced whole, never edited: after a
crash it is the one before or the one after. It is local and its loss costs no data.
"""

import os
from enum import StrEnum
from typing import Any, Final

from vault import fsmeta
from vault.encoding import dumps, loads_strict
from vault.errors import FormatError, naming
from vault.model import Body, body_from_json, body_to_json, replace_body
from vault.restore.fs import Fs, local_error

_VERSION: Final = 1
_MAX_SIZE: Final = 16 << 20  # bytes; the names at the top of a mount point are in it
_SUFFIX: Final = b".journal"


class State(StrEnum):
    """How far a restore went."""

    STAGED = "staged"  # all is in staging, nothing is proven
    PROVEN = "proven"  # what is in staging was read back; TARGET may be half exchanged
    EXCHANGED = "exchanged"  # TARGET is the new state, the former one is kept
    RECORDED = "recorded"  # and an attestation says so
    FINALIZED = "finalized"  # the former state is being removed: no way back
    DISCARDED = "discarded"  # staging is being removed: no way forward


class KeptMeta(Body, frozen=True, kw_only=True):
    """Attributes of a mount point: it can't be exchanged, so they are written down."""

    mode: int
    uid: int
    gid: int
    mtime: str  # ns; may be beyond what JSON's readers agree on
    xattrs: tuple[tuple[str, str], ...]  # hex

    @classmethod
    def of(cls, meta: fsmeta.Meta) -> "KeptMeta":
        """Of what was read from disk."""
        pairs = tuple((name.hex(), value.hex()) for name, value in meta.xattrs or ())
        return cls(mode=meta.mode, uid=meta.uid, gid=meta.gid, mtime=str(meta.mtime), xattrs=pairs)

    def meta(self) -> fsmeta.Meta:
        """The inverse of `of`.

        Raises:
            FormatError: The journal was damaged.
        """
        try:
            pairs = tuple((bytes.fromhex(name), bytes.fromhex(val)) for name, val in self.xattrs)
            mtime = int(self.mtime)
        except ValueError as error:
            raise FormatError("restore journal is damaged", found=str(error)) from error
        return fsmeta.Meta(
            mode=self.mode, uid=self.uid, gid=self.gid, mtime=mtime, xattrs=pairs or None
        )


class MountPoint(Body, frozen=True, kw_only=True):
    """What a restore into an empty mount point needs to know to go back."""

    before: KeptMeta
    after: KeptMeta
    names: tuple[str, ...]  # at the top of the new state; bytes as Latin-1


class Journal(Body, frozen=True, kw_only=True):
    """One restore. Inode numbers tell what is where; device numbers change with a reboot."""

    version: int = _VERSION
    id: str  # 8 hex digits
    state: State
    repository: str  # hex
    snapshot: int  # seq of the manifest
    digest: str  # hex, of the manifest's PAE
    new: str  # inode number of the staging directory, decimal
    old: str | None  # of the former state; None where TARGET was missing
    mount: MountPoint | None = None  # set where TARGET is a mount point
    disk_root: str = ""  # hex; content root as read back, once proven
    details: dict[str, Any] = {}  # noqa: RUF012 - strict JSON for the attestation; msgspec copies it

    def replace(self, **changes: Any) -> "Journal":
        """A copy with some fields changed."""
        return replace_body(self, **changes)


class JournalFile:
    """Where one journal is kept.

    Args:
        directory: Descriptor of the directory around TARGET; stays the caller's.
        staging: Name of the staging directory.
        fs: System calls.
    """

    def __init__(self, directory: int, staging: bytes, fs: Fs) -> None:
        self._directory = directory
        self._name = staging + _SUFFIX
        self._fs = fs

    def load(self) -> Journal:
        """The journal.

        Raises:
            FormatError: It was damaged.
            LocalError: It can't be read.
        """
        try:
            fd = os.open(
                self._name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._directory
            )
            with os.fdopen(fd, "rb") as file:
                data = file.read(_MAX_SIZE + 1)
        except OSError as error:
            raise local_error("read", self._name, error) from error
        if len(data) > _MAX_SIZE:
            raise FormatError("restore journal is too long", found=len(data))
        with naming(f"restore journal {os.fsdecode(self._name)!r}"):
            journal = body_from_json(loads_strict(data), Journal)
        numbers = [journal.new] if journal.old is None else [journal.new, journal.old]
        if journal.version != _VERSION or not all(text.isdecimal() for text in numbers):
            raise FormatError(
                "restore journal is not understood", found=f"version {journal.version}"
            )
        return journal

    def save(self, journal: Journal) -> Journal:
        """Replace it, durably; returns it.

        Raises:
            LocalError: It could not be written; the one before is still there.
        """
        data = dumps(body_to_json(journal))
        if len(data) > _MAX_SIZE:
            raise FormatError("too much for a restore journal", found=f"{len(data)} bytes")
        try:
            self._replace(data)
        except OSError as error:
            raise local_error("write", self._name, error) from error
        return journal

    def remove(self) -> None:
        """Remove it, durably; nothing happens where there is none.

        Raises:
            LocalError: It could not be removed.
        """
        try:
            for name in (self._name + b".new", self._name):
                self._unlink(name)
            self._fs.fsync(self._directory)
        except OSError as error:
            raise local_error("remove", self._name, error) from error

    def _replace(self, data: bytes) -> None:
        fresh = self._name + b".new"
        self._unlink(fresh)
        fd = self._fs.create(self._directory, fresh)
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[self._fs.pwrite(fd, rest, len(data) - len(rest)) :]
            self._fs.fsync(fd)
        finally:
            os.close(fd)
        self._fs.rename(self._directory, fresh, self._directory, self._name)
        self._fs.fsync(self._directory)

    def _unlink(self, name: bytes) -> None:
        try:
            self._fs.unlink(self._directory, name)
        except FileNotFoundError:
            return
