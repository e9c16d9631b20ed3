"""What follows from the checkpoints that were read: for a client that goes on or refuses. Pure.

See docs/design.md "Trust" and docs/format.md 2.8.
"""

import dataclasses
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from vault.clock import to_rfc3339
from vault.errors import RollbackError
from vault.ledger.checkpoints import Checkpoint, Standing, compare_notes
from vault.ledger.envelope import Head
from vault.ledger.notes import SignedNote
from vault.model import Code, Digest, Finding, Severity

CONTRADICTIONS: Final = (Standing.TRUNCATED, Standing.FORKED)
_CODES: Final = {
    Standing.TRUNCATED: Code.TRUNCATED,
    Standing.FORKED: Code.FORKED,
    Standing.FROZEN: Code.FROZEN,
    Standing.UNWITNESSED: Code.UNWITNESSED,
}
ASK_A_WITNESS: Final = "have a witness cosign what 'vault checkpoint --out FILE' writes"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Witnessed:
    """What the newest checkpoint that counts says of a ledger."""

    standing: Standing
    checkpoint: Checkpoint | None = None  # the newest that counts
    against: tuple[SignedNote, ...] = ()  # notes of listed logs that contradict the ledger
    head: Head | None = None  # of the ledger that was compared
    age: timedelta = timedelta()  # that a checkpoint may have
    why: str = ""  # none counts, in words
    required: bool = False  # whether one must count

    @property
    def vouches(self) -> bool:
        """Whether a quorum saw this ledger, not long ago."""
        return self.standing is Standing.VOUCHED

    def at(self, now: datetime) -> "Witnessed":
        """The same by another clock: what was young enough may be too old."""
        is_frozen = self.checkpoint is not None and self.checkpoint.is_frozen(now, self.age)
        if self.vouches and is_frozen:
            return dataclasses.replace(self, standing=Standing.FROZEN)
        return self

    def finding(self) -> Finding | None:
        """What there is to say of it; None where all is well, or nothing was asked."""
        code = _CODES.get(self.standing)
        if code is None:
            return None
        is_error = self.standing in CONTRADICTIONS
        return Finding(
            severity=Severity.ERROR if is_error else Severity.WARNING,
            subject="ledger",
            problem=f"{self.standing}: {self.problem}",
            expected=self.expected,
            found=self.found,
            code=code,
        )

    def stray(self) -> list[Finding]:
        """Of the notes that do not count and contradict the ledger."""
        counted = self.checkpoint.note.text if self.checkpoint is not None else b""
        if self.head is None:  # no checkpoint was asked for
            return []
        return [_stray(note, self.head) for note in self.against if note.text != counted]

    def findings(self) -> list[Finding]:
        """All there is to say."""
        found = self.finding()
        return self.stray() if found is None else [found, *self.stray()]

    @property
    def problem(self) -> str:
        """In words."""
        match self.standing:
            case Standing.TRUNCATED:
                return "the ledger is shorter than a checkpoint that counts"
            case Standing.FORKED:
                return "the ledger is another one than a checkpoint that counts"
            case Standing.FROZEN:
                return "the newest checkpoint that counts is too old"
            case Standing.UNWITNESSED:
                return f"no checkpoint counts: {self.why}"
            case _:
                return ""

    @property
    def expected(self) -> str:
        """By the checkpoint."""
        if self.checkpoint is None:
            return ""
        note = self.checkpoint.note
        match self.standing:
            case Standing.TRUNCATED:
                return f"at least {note.size} statements"
            case Standing.FORKED:
                return f"root {note.root} over the first {note.size} statements"
            case Standing.FROZEN:
                return f"one of the last {int(self.age.total_seconds())} seconds"
            case _:
                return ""

    @property
    def found(self) -> str:
        """In the store."""
        match self.standing:
            case Standing.TRUNCATED | Standing.FORKED:
                return f"head {self.head}"
            case Standing.FROZEN:
                assert self.checkpoint is not None
                return to_rfc3339(self.checkpoint.time)
            case _:
                return ""

    def refusal(self) -> RollbackError:
        """The error of a client that does not go on."""
        hint = (
            "find out who changed the store, or whose log key was stolen; --accept-head"
            f" {self.head} goes on regardless and is recorded; a new root with another log key"
            " ends it"
            if self.standing in CONTRADICTIONS
            else ASK_A_WITNESS
        )
        return RollbackError(
            f"{self.standing}: {self.problem}",
            expected=self.expected or None,
            found=self.found or None,
            hint=hint,
        )


def conclude(
    digests: Sequence[Digest],
    head: Head,
    *,
    checkpoint: Checkpoint | None,
    others: Sequence[SignedNote],
    age: timedelta,
    now: datetime,
    why: str,
) -> Witnessed:
    """What a client makes of the checkpoints that it read.

    Args:
        digests: Of the ledger's statements, from the first.
        head: Its last one.
        checkpoint: The newest that counts.
        others: All notes of listed logs that were read, this one among them.
        age: That a checkpoint may have.
        now: The later of the clocks that are known.
        why: None counts, in words.
    """
    told = dict(zip((note.text for note in others), compare_notes(others, digests), strict=True))
    against = tuple(note for note in others if told[note.text] in CONTRADICTIONS)
    standing = Standing.UNWITNESSED if checkpoint is None else told[checkpoint.note.text]
    found = Witnessed(
        standing=standing, checkpoint=checkpoint, against=against, head=head, age=age, why=why
    )
    return found.at(now)


def _stray(note: SignedNote, head: Head) -> Finding:
    """Of a log without its witnesses: what is longer than the ledger may be its own, uncut."""
    is_longer = note.size > head.seq + 1
    signed = "more statements than the ledger has" if is_longer else "another history"
    guess = "the ledger was cut, or the key may be stolen" if is_longer else "the key may be stolen"
    over = "this ledger's statements"
    return Finding(
        severity=Severity.WARNING,
        subject=f"checkpoint of size {note.size}",
        problem=f"a listed log key signed {signed}, and too few witnesses did: {guess}",
        expected=f"at most {head.seq + 1} statements" if is_longer else f"a root over {over}",
        found=f"root {note.root} by {note.origin}",
        code=Code.CHECKPOINT,
    )
