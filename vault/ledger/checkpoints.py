"""Which checkpoints count, and what one says of a ledger (docs/format.md 2.8). Pure.

A checkpoint counts with the signature of a log's key and the cosignatures of a quorum of
witnesses, all by one root: neither a log's key nor one witness alone can stop anybody.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Self

from vault.clock import MAX_SKEW
from vault.crypto.keys import VerifyKey
from vault.ledger.authority import Authority
from vault.ledger.merkle import tree_roots
from vault.ledger.notes import SignedNote, cosigned_at, is_logged, log_origin, vkey_parts
from vault.ledger.statements import Role
from vault.model import Digest


class Standing(StrEnum):
    """What checkpoints say of a ledger."""

    UNASKED = "unasked"  # no witness is listed: nothing was looked for
    VOUCHED = "vouched"  # the newest that counts is of this ledger
    TRUNCATED = "truncated"  # it is of a longer one
    FORKED = "forked"  # it is of another one
    FROZEN = "frozen"  # it is of this ledger, and too old
    UNWITNESSED = "unwitnessed"  # none counts


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Cosigner:
    """A witness that may cosign."""

    name: str  # as the root, or who pinned it, calls it
    key_name: str  # as its signatures do
    public_raw: bytes = dataclasses.field(repr=False)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class WitnessPolicy:
    """Whose signatures make a checkpoint count."""

    logs: Mapping[str, VerifyKey]  # by origin
    witnesses: tuple[Cosigner, ...]
    quorum: int  # different witnesses, at least 1

    @classmethod
    def of_root(cls, authority: Authority, repository: str) -> Self:
        """What a root says.

        Args:
            authority: Its keys.
            repository: The id of the repository, hex.
        """
        body = authority.body
        return cls(
            logs=log_keys(authority, repository),
            witnesses=tuple(cosigner(each.name, each.vkey) for each in body.witnesses),
            quorum=body.quorum,
        )

    def is_logged(self, note: SignedNote) -> bool:
        """Whether a log that is listed signed a note."""
        key = self.logs.get(note.origin)
        return key is not None and is_logged(note, key)

    def cosigned(self, note: SignedNote, now: datetime) -> dict[str, datetime]:
        """When each witness cosigned a note last, by name; what is dated in the future is not."""
        found: dict[str, datetime] = {}
        for witness in self.witnesses:
            moment = cosigned_at(note, witness.key_name, witness.public_raw)
            if moment is not None and moment <= now + MAX_SKEW:
                found[witness.name] = moment
        return found

    def count(self, note: SignedNote, now: datetime) -> "Checkpoint | None":
        """The note as a checkpoint, if it counts.

        Args:
            note: With all signatures that are known of its text.
            now: The client's clock.
        """
        if not self.is_logged(note):
            return None
        cosigned = self.cosigned(note, now)
        if not 1 <= self.quorum <= len(cosigned):
            return None
        newest = sorted(cosigned.values(), reverse=True)
        return Checkpoint(note=note, cosigned=cosigned, time=newest[self.quorum - 1])


def cosigner(name: str, vkey: str) -> Cosigner:
    """A witness by its verifier key.

    Raises:
        FormatError: It is none.
    """
    key_name, public = vkey_parts(vkey)
    return Cosigner(name=name, key_name=key_name, public_raw=public)


def log_keys(authority: Authority, repository: str) -> dict[str, VerifyKey]:
    """The logs that a root lists, by origin."""
    return {
        log_origin(repository, key_id): key
        for key_id, key in authority.keys.items()
        if Role.LOG in authority.roles[key_id]
    }


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A note that counts."""

    note: SignedNote
    cosigned: Mapping[str, datetime]  # by witness
    time: datetime  # by which a quorum had seen it

    def is_frozen(self, now: datetime, age: timedelta) -> bool:
        """Whether it is older than it may be."""
        return self.time + age < now


def compare_note(note: SignedNote, digests: Sequence[Digest]) -> Standing:
    """Whether a note is of the ledger with these statements, of a longer or of another one."""
    return compare_notes([note], digests)[0]


def compare_notes(notes: Sequence[SignedNote], digests: Sequence[Digest]) -> list[Standing]:
    """As `compare_note`, for many notes in one pass over the statements."""
    roots = tree_roots(digests, (note.size for note in notes))
    return [
        Standing.TRUNCATED
        if note.size > len(digests)
        else Standing.VOUCHED
        if roots[note.size] == note.root
        else Standing.FORKED
        for note in notes
    ]
