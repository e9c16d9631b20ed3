"""Checkpoints in a store: the newest that counts, and notes that are stored beside it.

Whether one counts, and what it says, is for `vault.ledger.checkpoints`.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Final

from vault.errors import FormatError, ObjectNotFoundError
from vault.ledger.checkpoints import Checkpoint, WitnessPolicy
from vault.ledger.notes import MAX_NOTE, SignedNote, parse_note
from vault.machine.workers import AtOnce
from vault.model import Digest
from vault.repository.ledgerobjects import AT_ONCE, at_once, batches
from vault.repository.objects import Stored
from vault.repository.repository import Repository
from vault.storage.base import ObjectStore, ObjectVersion
from vault.storage.names import (
    CHECKPOINTS,
    checkpoint_name,
    checkpoint_prefix,
    parse_checkpoint_name,
)

MAX_JUNK: Final = 100  # objects that no log signed: then nothing more is read
MOST_READ: Final = 1_000  # objects in all: a stolen log key must not make readers read for ever


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A note in the store that a listed log signed."""

    note: SignedNote  # with all signatures of its text that were read
    stored: datetime  # the latest time that the store gives for it


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """What was read of the checkpoints in a store, newest first, up to the first that counts."""

    counted: Checkpoint | None
    seen: Sequence[Seen]  # newest first
    junk: int = 0  # objects that no listed log signed
    listed: int = 0  # objects of such names
    gave_up: bool = False  # there was more, and too much of it did not count

    def newest(self, origin: str) -> Seen | None:
        """The newest note of a log."""
        return next((each for each in self.seen if each.note.origin == origin), None)


def find_checkpoint(
    store: ObjectStore,
    policy: WitnessPolicy,
    now: datetime,
    *,
    after: int = 0,
    all_of_log: str = "",
) -> Search:
    """Read checkpoints, the largest size first, until one counts.

    Where the newest counts that is one list and one read. Objects of one size are read in the
    order in which they were stored, the newest first; lines below equal texts are united.

    Args:
        store: Where they are.
        policy: Whose signatures count.
        now: The client's clock.
        after: The size of one that counted before: older ones are not listed.
        all_of_log: An origin: one that counts does not end the search before a note of that log.
    """
    listed = _listed(store, after)
    reading = _Reading(policy, now, all_of_log)
    with at_once() as threads:
        for batch in _growing(listed):
            for version, note in zip(batch, _fetch(store, batch, threads), strict=True):
                if reading.is_done(version, note):
                    return reading.result(len(listed))
    return reading.result(len(listed))


class _Reading:
    """What was read so far, the newest first."""

    def __init__(self, policy: WitnessPolicy, now: datetime, all_of_log: str) -> None:
        self._policy = policy
        self._now = now
        self._wanted = all_of_log
        self._seen: dict[bytes, Seen] = {}
        self._counted: Checkpoint | None = None
        self._junk = self._read = 0

    def is_done(self, version: ObjectVersion, note: SignedNote | None) -> bool:
        """Take in one object; whether no more is to be read."""
        self._read += 1
        if note is None or not self._policy.is_logged(note):
            self._junk += 1
            return self._junk >= MAX_JUNK
        stored = version.modified
        known = self._seen.get(note.text)
        if known is not None:
            note, stored = known.note.with_lines(note.signatures), max(stored, known.stored)
        self._seen[note.text] = Seen(note=note, stored=stored)
        self._counted = self._counted or self._policy.count(note, self._now)
        return self._read >= MOST_READ or (self._counted is not None and self._has_wanted())

    def _has_wanted(self) -> bool:
        origins = {each.note.origin for each in self._seen.values()}
        return not self._wanted or self._wanted in origins

    def result(self, listed: int) -> Search:
        is_whole = self._counted is not None or self._read >= listed
        return Search(
            counted=self._counted,
            seen=tuple(self._seen.values()),
            junk=self._junk,
            listed=listed,
            gave_up=not is_whole,
        )


def _listed(store: ObjectStore, after: int) -> list[ObjectVersion]:
    """Objects that may be checkpoints, the largest size first, of one size the newest first."""
    found = [
        ((place[0], version.modified), version)
        for version in store.versions(CHECKPOINTS, after=checkpoint_prefix(after))
        if not version.marker and 0 < version.size <= MAX_NOTE
        if (place := parse_checkpoint_name(version.name)) is not None
    ]
    found.sort(key=lambda each: each[0], reverse=True)
    return [version for _, version in found]


def _growing(listed: Sequence[ObjectVersion]) -> Iterator[list[ObjectVersion]]:
    """The newest alone, as it mostly counts; then many at the same time."""
    if listed:
        yield list(listed[:1])
    yield from batches(iter(listed[1:]), AT_ONCE)


def _fetch(
    store: ObjectStore, versions: Sequence[ObjectVersion], threads: AtOnce
) -> list[SignedNote | None]:
    """The notes in these objects; None for what is none, or not the one that its name says."""

    def get(version: ObjectVersion) -> SignedNote | None:
        try:
            data = store.get(version.name, version.version, length=MAX_NOTE)
            note = parse_note(data)
        except (ObjectNotFoundError, FormatError):
            return None
        return note if version.name == checkpoint_name(note.size, Digest.of(data)) else None

    if len(versions) < 2:
        return [get(version) for version in versions]
    return threads.map(get, versions)


def store_note(repository: Repository, note: SignedNote) -> Stored:
    """Store a note with all its lines; it is locked once, for the ledger term.

    Raises:
        StorageError: It was not stored.
    """
    repository.objects.check_skew()
    data = note.encode()
    digest = Digest.of(data)
    need = repository.objects.ledger_need()
    return repository.put(checkpoint_name(note.size, digest), data, need, digest=digest)
