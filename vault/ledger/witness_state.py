"""What a witness keeps: its key, what it has seen of each log, and a journal (docs/format.md 9).

What was seen is written durably, under a lock, before anything is answered: a witness that is
killed in between has at worst seen more than it said. `docs/witness.py` keeps the same files.
"""

import base64
import contextlib
import fcntl
import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Final

from vault.clock import to_rfc3339
from vault.crypto.keys import WitnessKey
from vault.encoding import b64decode_strict, b64encode
from vault.errors import ConfigError, FormatError, LocalError, WrongKeyError, naming
from vault.ledger.notes import (
    NoteSignature,
    SignedNote,
    cosign,
    log_vkey,
    log_vkey_parts,
    vkey_parts,
    witness_vkey,
)
from vault.ledger.witness import Answer, LogState, Refused
from vault.machine import durable
from vault.machine.privacy import make_private, open_lock
from vault.model import Digest

_MAX_FILE: Final = 65_536  # bytes
_KEY: Final = "key.pem"
_VKEY: Final = "vkey"
_JOURNAL: Final = "journal"
_LOGS: Final = "logs"
_PKCS8: Final = bytes.fromhex("302e020100300506032b657004220420")  # of Ed25519, before the key
_PEM: Final = ("-----BEGIN PRIVATE KEY-----\n", "\n-----END PRIVATE KEY-----\n")


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalEntry:
    """One answer of a witness."""

    time: str
    answer: int
    origin: str
    size: int
    root: str
    why: str


class WitnessState:
    """A directory with a witness's key, and what it has seen of each log.

    Args:
        directory: Where it is.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    @property
    def exists(self) -> bool:
        """Whether there is a witness."""
        return (self._directory / _VKEY).exists()

    def create(self, name: str) -> str:
        """Make the key of a new witness; gives its verifier key.

        Raises:
            ConfigError: There is one already, or no key can have that name.
            LocalError: It can't be written.
        """
        key = WitnessKey.generate()
        vkey = witness_vkey(name, key.public_raw)
        try:
            vkey_parts(vkey)
        except FormatError as error:
            raise ConfigError("no witness can have that name", found=repr(name[:80])) from error
        pem = base64.b64encode(_PKCS8 + key.raw()).decode("ascii").join(_PEM)
        with self._local():
            make_private(self._directory / _LOGS)
        with self._locked(), self._local():
            if self.exists:
                raise ConfigError(f"there is a witness already in {self._directory}")
            durable.replace(self._directory / _KEY, pem.encode())  # of a run that was killed, too
            durable.create(self._directory / _VKEY, f"{vkey}\n".encode())
        return vkey

    def vkey(self) -> str:
        """The verifier key of the witness.

        Raises:
            WrongKeyError: There is no witness here.
            FormatError: The file is damaged.
        """
        path = self._directory / _VKEY
        data = self._read(path)
        if data is None:
            raise WrongKeyError(
                f"there is no witness in {self._directory}", hint="make one: 'vault witness init'"
            )
        with naming(path):
            vkey = data.decode("utf-8", "replace").strip()
            vkey_parts(vkey)
        return vkey

    def _key(self) -> tuple[str, WitnessKey]:
        """Name and key.

        Raises:
            FormatError: They do not belong together.
        """
        name, public = vkey_parts(self.vkey())
        path = self._directory / _KEY
        text = (self._read(path) or b"").decode("ascii", "replace")
        with naming(path):
            inside = text.removeprefix(_PEM[0]).removesuffix(_PEM[1])
            der = b64decode_strict(inside.strip())
            key = WitnessKey.from_raw(der[len(_PKCS8) :])
            if not der.startswith(_PKCS8) or key.public_raw != public:
                raise FormatError("file is not the key of this witness")
        return name, key

    # --- logs ---

    def add_log(self, vkey: str) -> None:
        """Know a log from now on; what was seen of it stays.

        Raises:
            ConfigError: Another key of that name is known.
            FormatError: It is no verifier key of a log.
        """
        origin, key = log_vkey_parts(vkey)
        self.vkey()
        with self._locked():
            known = self.log(origin)
            if known is None:
                self._write(LogState(origin=origin, key=key))
            elif known.key != key:
                raise ConfigError("another key of that log is known here", found=origin)

    def log(self, origin: str) -> LogState | None:
        """What was seen of a log; None for one that is not known.

        Raises:
            FormatError: The file is damaged: nothing may be cosigned.
        """
        path = self._path(origin)
        data = self._read(path)
        if data is None:
            return None
        with naming(path):
            return _decode(data, origin)

    def logs(self) -> list[LogState]:
        """All that are known, by origin.

        Raises:
            FormatError: A file is damaged.
        """
        found: list[LogState] = []
        with self._local():
            paths = sorted((self._directory / _LOGS).glob("[0-9a-f]*"))
        for path in paths:
            with naming(path):
                found.append(_decode(self._read(path) or b"", None))
        return sorted(found, key=lambda each: each.origin)

    @contextlib.contextmanager
    def judging(self) -> Iterator[None]:
        """Keep other processes from judging by what is about to change."""
        self.vkey()
        with self._locked():
            yield

    def cosign(self, known: LogState, note: SignedNote, now: datetime) -> NoteSignature:
        """Write what is seen now, then sign; call it under `judging`.

        Raises:
            LocalError: It can't be written: nothing is signed.
        """
        name, key = self._key()
        self._write(replace(known, size=note.size, root=note.root))
        self._enter(now, Answer.COSIGNED, note, "cosigned")
        return cosign(note, name, key, now)

    def refuse(self, refused: Refused, note: SignedNote, now: datetime) -> None:
        """Write a refusal into the journal."""
        self._enter(now, refused.answer, note, refused.why)

    # --- the journal ---

    def journal(self) -> list[JournalEntry]:
        """All answers, the oldest first.

        Raises:
            LocalError: It can't be read.
        """
        path = self._directory / _JOURNAL
        with self._local():
            if not path.exists():
                return []
            lines = path.read_text("utf-8", "replace").splitlines()
        return [entry for line in lines if (entry := _parse_entry(line)) is not None]

    def _enter(self, now: datetime, answer: Answer, note: SignedNote, why: str) -> None:
        line = f"{to_rfc3339(now)}\t{answer:d}\t{note.origin}\t{note.size}\t{note.root}\t{why}\n"
        with self._local():
            fd = os.open(
                self._directory / _JOURNAL,
                os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW,
                0o600,
            )
            with open(fd, "ab") as file:  # noqa: PTH123  # a descriptor has no path
                file.write(line.encode())
                file.flush()
                os.fsync(fd)

    # --- files ---

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        with self._local():
            fd = open_lock(self._directory / "lock")
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    @contextlib.contextmanager
    def _local(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise LocalError(
                f"the witness's directory {self._directory} failed", found=error
            ) from error

    def _read(self, path: Path) -> bytes | None:
        with self._local():
            try:
                with path.open("rb") as file:
                    return file.read(_MAX_FILE)
            except FileNotFoundError:
                return None

    def _path(self, origin: str) -> Path:
        return self._directory / _LOGS / hashlib.sha256(origin.encode()).hexdigest()

    def _write(self, state: LogState) -> None:
        root = b64encode(state.root) if state.root is not None else "-"
        text = f"{log_vkey(state.origin, state.key)}\n{state.size}\n{root}\n"
        with self._local():
            durable.replace(self._path(state.origin), text.encode())


def _decode(data: bytes, origin: str | None) -> LogState:
    lines = data.decode("utf-8", "replace").split("\n")
    if len(lines) != 4 or lines[3] or not lines[1].isascii() or not lines[1].isdecimal():
        raise FormatError("file is not what a witness has seen of a log")
    name, key = log_vkey_parts(lines[0])
    size = int(lines[1][:17])
    if origin not in {None, name} or (size == 0) is not (lines[2] == "-"):
        raise FormatError("file is of another log, or contradicts itself", found=name)
    root = None if lines[2] == "-" else Digest(b64decode_strict(lines[2]))
    return LogState(origin=name, key=key, size=size, root=root)


def _parse_entry(line: str) -> JournalEntry | None:
    fields = line.split("\t")
    try:
        time, answer, origin, size, root, why = fields
        return JournalEntry(
            time=time, answer=int(answer), origin=origin, size=int(size), root=root, why=why
        )
    except ValueError:
        return None
