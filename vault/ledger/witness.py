"""What a witness cosigns: notes of a log that only grows (docs/format.md 2.8). Pure.

The answers are those of C2SP tlog-witness; `witness_state` keeps what was seen.
"""

import dataclasses
from collections.abc import Sequence
from enum import IntEnum
from typing import Final

from vault.crypto.keys import VerifyKey
from vault.encoding import b64decode_strict, b64encode
from vault.errors import FormatError
from vault.ledger.merkle import MAX_PROOF, consistency_proof, is_consistent
from vault.ledger.notes import MAX_NOTE, MAX_SIZE, SignedNote, is_logged, parse_note
from vault.model import Digest

MAX_REQUEST: Final = MAX_NOTE + 64 * (MAX_PROOF + 1)  # bytes


class Answer(IntEnum):
    """What a witness says, by the numbers of C2SP tlog-witness."""

    COSIGNED = 200
    OLD_IS_LARGER = 400
    NOT_SIGNED = 403
    UNKNOWN_LOG = 404
    OTHER_SIZE = 409
    NOT_CONSISTENT = 422


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class WitnessRequest:
    """A note, and the proof that it continues what the witness has seen."""

    old: int
    proof: tuple[bytes, ...]
    note: SignedNote


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LogState:
    """What a witness has seen of one log."""

    origin: str
    key: VerifyKey
    size: int = 0
    root: Digest | None = None  # None at size 0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """Why a witness does not cosign."""

    answer: Answer
    why: str


def encode_request(old: int, digests: Sequence[bytes], note: SignedNote) -> bytes:
    """The body of ``add-checkpoint``: a witness that has seen ``old`` can judge it alone.

    Args:
        old: The size that it has cosigned last; 0 for none.
        digests: Of all statements that the note is about.
        note: With the log's signature.
    """
    proof = consistency_proof(digests, old)
    lines = [f"old {old}", *map(b64encode, proof), "", ""]
    return "\n".join(lines).encode() + note.encode()


def parse_request(data: bytes) -> WitnessRequest:
    """The inverse of `encode_request`; a note alone is a request from size 0.

    Raises:
        FormatError: It is none.
    """
    if len(data) > MAX_REQUEST:
        raise FormatError("request is too large", expected=MAX_REQUEST, found=len(data))
    if not data.startswith(b"old "):
        return WitnessRequest(old=0, proof=(), note=parse_note(data))
    head, gap, note = data.partition(b"\n\n")
    lines = head.decode("ascii", "replace").split("\n")
    size = lines[0][4:]
    if not gap or not size.isascii() or not size.isdecimal() or str(int(size[:17])) != size:
        raise FormatError("request does not begin with the old size", found=repr(lines[0])[:80])
    if int(size) > MAX_SIZE or len(lines) > MAX_PROOF + 1:
        raise FormatError("request has too large a size or proof", found=f"{len(lines)} lines")
    proof = tuple(map(b64decode_strict, lines[1:]))
    if any(len(node) != 32 for node in proof):
        raise FormatError("request has a node that is no SHA-256")
    return WitnessRequest(old=int(size), proof=proof, note=parse_note(note))


def judge_request(known: LogState | None, request: WitnessRequest) -> Refused | None:
    """Whether a witness may cosign; None: it may."""
    note = request.note
    if known is None:
        return Refused(answer=Answer.UNKNOWN_LOG, why=f"no log {note.origin} is known here")
    if not is_logged(note, known.key):
        return Refused(answer=Answer.NOT_SIGNED, why="the log's key did not sign the note")
    if request.old > note.size:
        return Refused(
            answer=Answer.OLD_IS_LARGER,
            why=f"the note is of {note.size} statements, fewer than the {request.old} before",
        )
    if request.old != known.size:
        return Refused(
            answer=Answer.OTHER_SIZE,
            why=f"the proof begins at {request.old}, what was seen last here at {known.size}",
        )
    before = known.root or Digest.of(b"")
    if not is_consistent(known.size, before, note.size, note.root, request.proof):
        return Refused(
            answer=Answer.NOT_CONSISTENT,
            why=f"the note does not continue the {known.size} statements that were seen here",
        )
    return None
