"""What the holder of a log's key does: sign the ledger as it stands, and add cosignatures.

A log that has signed a note never signs another history: its own notes in the store, and what its
machine remembers, are compared first.
"""

import dataclasses
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from vault.crypto.keys import Signer
from vault.errors import ConfigError, RollbackError, SignatureError
from vault.ledger.checkpoint_memory import CheckpointMemory
from vault.ledger.checkpoints import WitnessPolicy, compare_note, compare_notes
from vault.ledger.merkle import tree_root
from vault.ledger.notes import (
    NoteSignature,
    SignedNote,
    cosigned_at,
    log_mark,
    log_origin,
)
from vault.ledger.witness import encode_request
from vault.ledger.witnessed import CONTRADICTIONS
from vault.repository.checkpoints import Search, Seen, find_checkpoint, store_note
from vault.repository.opening import settled_head
from vault.repository.repository import Repository
from vault.repository.vouching import witness_policy_of

_PARTS: Final = 4  # of `checkpoint_age`: a note of an unchanged ledger is signed anew after one


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Signed:
    """A note of the ledger as it stands, with the signatures that are known."""

    note: SignedNote
    stored: str  # the object that holds it, or an empty text: nothing was due
    cosigned: dict[str, datetime]  # by witness
    quorum: int
    counts: bool
    cosigned_size: int  # of the largest note of this log that some witness has cosigned; or 0


def sign_checkpoint(repository: Repository, key: Signer, *, state: Path | None) -> Signed:
    """Sign the ledger up to the head that may be remembered, and store what is due.

    Args:
        repository: Verified up to its head.
        key: Of a log that the root in force lists.
        state: Where this machine remembers what it saw of checkpoints.

    Raises:
        SignatureError: The root in force does not list the key with the role log.
        RollbackError: This log has signed another history.
        StorageError: The note was not stored.
    """
    policy = witness_policy_of(repository)
    origin = log_origin(repository.ledger.repository_id, key.public.id)
    if origin not in policy.logs:
        raise SignatureError(
            "the key has not the role log in the root in force", found=key.public.id
        )
    now = repository.clock()
    search = _search(repository, policy, origin, state)
    _refuse_second_history(repository, search, origin)
    last = search.newest(origin)
    note = _note_of(repository, origin, key, at_least=last.note.size if last else 0)
    due = _is_due(note, last, now, timedelta(seconds=repository.ledger.root.checkpoint_age))
    if last is not None and last.note.text == note.text:
        note = note.with_lines(last.note.signatures)
    stored = store_note(repository, note).ref.name if due else ""
    return _signed(policy, note, stored, search, now)


def attach_cosignatures(repository: Repository, note: SignedNote, *, state: Path | None) -> Signed:
    """Store a note that witnesses have cosigned, with all that is known of its text.

    Args:
        repository: Verified up to its head.
        note: As a witness gave it back.
        state: Where this machine remembers what it saw of checkpoints.

    Raises:
        SignatureError: No log that is listed signed it, or no listed witness cosigned it.
        RollbackError: It is of another history.
        StorageError: It was not stored.
    """
    policy = witness_policy_of(repository)
    now = repository.clock()
    if not policy.is_logged(note):
        raise SignatureError("no log of the root in force signed the note", found=note.origin)
    if not policy.cosigned(note, now):
        raise SignatureError(
            "no witness of the root in force cosigned the note",
            expected=", ".join(each.name for each in policy.witnesses) or "a root with witnesses",
            hint="the root lists witnesses by their verifier keys; clocks must agree",
        )
    if (
        compare_note(note, [record.digest for record in repository.ledger.records])
        in CONTRADICTIONS
    ):
        raise _other_history(repository, note)
    search = _search(repository, policy, note.origin, state)
    for seen in search.seen:
        if seen.note.text == note.text:
            note = note.with_lines(seen.note.signatures)
    note = _tidy(policy, note, now)
    stored = store_note(repository, note).ref.name
    return _signed(policy, note, stored, search, now)


def _search(
    repository: Repository, policy: WitnessPolicy, origin: str, state: Path | None
) -> Search:
    root = repository.ledger.records[0].digest
    after = CheckpointMemory(state).recall(root).size if state else 0
    now = repository.clock()
    return find_checkpoint(repository.store, policy, now, after=after, all_of_log=origin)


def _refuse_second_history(repository: Repository, search: Search, origin: str) -> None:
    digests = [record.digest for record in repository.ledger.records]
    own = [seen.note for seen in search.seen if seen.note.origin == origin]
    for note, standing in zip(own, compare_notes(own, digests), strict=True):
        if standing in CONTRADICTIONS:
            raise _other_history(repository, note)


def _other_history(repository: Repository, note: SignedNote) -> RollbackError:
    return RollbackError(
        "this log has signed another history",
        expected=f"root {note.root} over the first {note.size} statements",
        found=f"head {repository.head}",
        hint="find out who changed the store, or whose log key was stolen; a new log key, by a"
        " new root, begins a new log",
    )


def _note_of(repository: Repository, origin: str, key: Signer, *, at_least: int) -> SignedNote:
    size = max(settled_head(repository, repository.clock()).seq + 1, at_least)
    digests = [record.digest for record in repository.ledger.records[:size]]
    note = SignedNote(origin=origin, size=size, root=tree_root(digests))
    signature = NoteSignature(name=origin, mark=log_mark(key.public), data=key.sign(note.text))
    return note.with_lines([signature])


def _is_due(note: SignedNote, last: Seen | None, now: datetime, age: timedelta) -> bool:
    """Whether the ledger grew, or the last note is so old that witnesses should look again."""
    return last is None or note.size > last.note.size or last.stored + age / _PARTS <= now


def _tidy(policy: WitnessPolicy, note: SignedNote, now: datetime) -> SignedNote:
    """The log's line and the newest of each listed witness; others could be anything."""
    cosigned = policy.cosigned(note, now)
    kept = [each for each in note.signatures if each.name == note.origin][:1]
    for witness in policy.witnesses:
        for each in note.signatures:
            alone = dataclasses.replace(note, signatures=(each,))
            moment = cosigned_at(alone, witness.key_name, witness.public_raw)
            if moment is not None and moment == cosigned.get(witness.name):
                kept.append(each)
                break
    return dataclasses.replace(note, signatures=tuple(kept))


def _signed(
    policy: WitnessPolicy, note: SignedNote, stored: str, search: Search, now: datetime
) -> Signed:
    sizes = (
        each.note.size
        for each in search.seen
        if each.note.origin == note.origin and policy.cosigned(each.note, now)
    )
    cosigned = policy.cosigned(note, now)
    return Signed(
        note=note,
        stored=stored,
        cosigned=cosigned,
        quorum=policy.quorum,
        counts=policy.count(note, now) is not None,
        cosigned_size=max((*sizes, note.size if cosigned else 0), default=0),
    )


def request_of(repository: Repository, signed: Signed, old: int | None) -> bytes:
    """What a witness is asked by a file: C2SP tlog-witness ``add-checkpoint``.

    Args:
        repository: Of the note.
        signed: What `sign_checkpoint` gave.
        old: The size that the witness has cosigned last; None: the largest that any has.

    Raises:
        ConfigError: The note is of fewer statements.
    """
    size = signed.note.size
    begin = signed.cosigned_size if old is None else old
    if begin > size:
        raise ConfigError(
            "the witness has cosigned more than is signed now",
            expected=f"at most {size}",
            found=begin,
        )
    digests = [record.digest for record in repository.ledger.records[:size]]
    return encode_request(begin, digests, signed.note)
