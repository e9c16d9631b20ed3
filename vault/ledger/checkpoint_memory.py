"""What a client remembers of checkpoints: where its list begins, and what a person accepted.

One small file a repository, beside the remembered heads. What is lost of it costs a longer list,
and an acceptance is asked for again.
"""

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from vault.encoding import dumps, loads_strict
from vault.errors import FormatError, LocalError
from vault.ledger.notes import SignedNote
from vault.machine import durable
from vault.machine.privacy import make_private
from vault.model import Digest

_MAX_FILE: Final = 4096  # bytes

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Remembrance:
    """What is remembered of one repository."""

    size: int = 0  # of the newest checkpoint that counted here
    accepted: str = ""  # SIZE:ROOT of one that contradicts the ledger, and was accepted

    def accepts(self, note: SignedNote) -> bool:
        """Whether a person went on although this note contradicts the ledger."""
        return self.accepted == _text(note)


class CheckpointMemory:
    """Checkpoints that this machine has seen.

    Args:
        state_dir: Where the remembered heads are, too.
    """

    def __init__(self, state_dir: Path) -> None:
        self._directory = state_dir / "checkpoints"

    def recall(self, root: Digest) -> Remembrance:
        """What is remembered; nothing where the file is missing or damaged."""
        try:
            with self._path(root).open("rb") as file:
                return _decode(file.read(_MAX_FILE + 1))
        except FileNotFoundError:
            return Remembrance()
        except (OSError, FormatError) as error:
            _log.info("what is remembered of checkpoints is not used: %s", error)
            return Remembrance()

    def note_counted(self, root: Digest, size: int) -> None:
        """Remember the size of the newest that counts.

        Raises:
            LocalError: It can't be written.
        """
        known = self.recall(root)
        if size != known.size:
            self._write(root, replace(known, size=size))

    def accept(self, root: Digest, note: SignedNote) -> None:
        """Remember that a person went on in spite of this note.

        Raises:
            LocalError: It can't be written.
        """
        self._write(root, replace(self.recall(root), accepted=_text(note)))

    def _write(self, root: Digest, what: Remembrance) -> None:
        path = self._path(root)
        data = dumps({"size": what.size, "accepted": what.accepted}) + b"\n"
        try:
            make_private(self._directory)
            durable.replace(path, data)
        except OSError as error:
            raise LocalError(f"can't write what is remembered in {path}", found=error) from error

    def _path(self, root: Digest) -> Path:
        return self._directory / f"{root}.json"


def _text(note: SignedNote) -> str:
    return f"{note.size}:{note.root}"


def _decode(data: bytes) -> Remembrance:
    fields: Any = loads_strict(data[:_MAX_FILE])
    match fields:
        case {"size": int(size), "accepted": str(accepted)} if size >= 0:
            return Remembrance(size=size, accepted=accepted)
    raise FormatError("file is no memory of checkpoints", found=repr(fields)[:80])
