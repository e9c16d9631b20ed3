"""What a client remembers, to notice that a store shows an older ledger (docs/design.md "Trust").

A signed history can be cut short without breaking a signature. Three things tell: the pinned
root, the highest head ever seen here, and the head an operator names with ``--trust``.
"""

import contextlib
import fcntl
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from vault.encoding import dumps, loads_strict
from vault.errors import ConfigError, FormatError, IntegrityError, LocalError, RollbackError
from vault.ledger.envelope import Head
from vault.machine import durable
from vault.machine.privacy import make_private, open_lock
from vault.model import Digest

_TRUST = re.compile(r"(0|[1-9][0-9]{0,15}):([0-9a-f]{64})")
_MAX_MEMORY_FILE = 4096  # bytes


class LinkedHistory(Protocol):
    """What these checks ask of a ledger."""

    @property
    def head(self) -> Head | None:
        """The last statement linked."""

    def digest_at(self, seq: int) -> Digest | None:
        """The digest of a linked statement, None beyond the head."""


def parse_trust(text: str) -> Head:
    """Read SEQ:DIGEST, as ``snapshot`` prints it; 0:DIGEST names the root.

    Raises:
        ConfigError: Anything else.
    """
    match = _TRUST.fullmatch(text.strip())
    if match is None:
        raise ConfigError(
            "a trusted head is written SEQ:DIGEST",
            expected="a number, a colon, 64 lower-case hex digits",
            found=repr(text[:90]),
        )
    return Head(seq=int(match[1]), digest=Digest.parse(match[2]))


def check_floor(ledger: LinkedHistory, floor: Head) -> None:
    """Refuse a history that ends before ``floor`` or passes it with another digest.

    Raises:
        RollbackError: It does.
    """
    found = ledger.digest_at(floor.seq)
    if found == floor.digest:
        return
    problem = "another" if found is not None else "an older"
    raise RollbackError(
        f"the store shows {problem} history than the one known here",
        expected=floor,
        found=f"{floor.seq}:{found}" if found is not None else (ledger.head or "no statement"),
        hint="find out who changed the store; --accept-head SEQ:DIGEST goes on regardless"
        " and is recorded",
    )


class HeadMemory:
    """The highest head seen of each repository, one small file each.

    Any number of processes may use it at once: what one has remembered, no other lowers.
    """

    def __init__(self, state_dir: Path) -> None:
        self._state = state_dir
        self._directory = state_dir / "heads"

    def recall(self, root: Digest) -> Head | None:
        """The remembered head, None if the repository was never seen here.

        Asked before the store is listed, so that what another process of this machine
        appends and remembers meanwhile is no older history.

        Args:
            root: Digest of the repository's statement 0.

        Raises:
            IntegrityError: The file is damaged, so that nothing can be said.
            LocalError: It can't be read.
        """
        path = self._path(root)
        try:
            with path.open("rb") as file:
                data = file.read(_MAX_MEMORY_FILE + 1)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise LocalError(f"can't read the remembered head {path}", found=error) from error
        try:
            return _decode(data)
        except FormatError as error:
            raise IntegrityError(
                f"the remembered head {path} is damaged",
                found=error,
                hint="name the head you trust with --accept-head SEQ:DIGEST to write it anew",
            ) from error

    def remember(self, root: Digest, head: Head) -> None:
        """Raise the remembered head, durably; an older one leaves it as it is.

        Raises:
            IntegrityError: The file is damaged.
            LocalError: It can't be written.
        """
        if not self._is_higher(root, head):
            return  # most often, and also where nothing can be written
        with self._locked():
            if self._is_higher(root, head):
                self._write(root, head)

    def replace(self, root: Digest, head: Head) -> None:
        """Remember this head whatever was remembered before (``--accept-head``).

        Raises:
            LocalError: It can't be written.
        """
        with self._locked():
            self._write(root, head)

    def _is_higher(self, root: Digest, head: Head) -> bool:
        known = self.recall(root)
        return known is None or head.seq > known.seq

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold what is remembered against other processes; the kernel lets go if we die."""
        try:
            make_private(self._directory)
            fd = open_lock(self._state / "heads.lock")
        except OSError as error:
            raise _unwritable(self._directory, error) from error
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def _write(self, root: Digest, head: Head) -> None:
        path = self._path(root)
        try:
            durable.replace(path, _encode(head))
        except OSError as error:
            raise _unwritable(path, error) from error

    def _path(self, root: Digest) -> Path:
        return self._directory / f"{root}.json"


def _unwritable(path: Path, error: OSError) -> LocalError:
    return LocalError(f"can't write the remembered head {path}", found=error)


def _encode(head: Head) -> bytes:
    return dumps({"seq": head.seq, "digest": str(head.digest), "version": head.version}) + b"\n"


def _decode(data: bytes) -> Head:
    if len(data) > _MAX_MEMORY_FILE:
        raise FormatError("file is too large", expected=_MAX_MEMORY_FILE)
    fields: Any = loads_strict(data)
    match fields:
        case {"seq": int(seq), "digest": str(digest), "version": str(version)} if seq >= 0:
            return Head(seq=seq, digest=Digest.parse(digest), version=version)
    raise FormatError("file does not name a head", found=json.dumps(fields)[:80])
