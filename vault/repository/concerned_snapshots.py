"""Which snapshots need packs that statements call bad, by whose word. No word costs nothing.

What writers make of such a word is in `bad_packs`; here people read it, so that one who is
about to restore knows, and a key that calls everything bad is seen.
"""

import dataclasses
from collections import Counter
from collections.abc import Sequence
from typing import Final

from vault.errors import IntegrityError
from vault.format.inventory import Resolver
from vault.ledger.records import Record
from vault.ledger.statements import Role
from vault.repository.bad_packs import words
from vault.repository.repository import Repository
from vault.storage.names import is_pack, pack_digits

MAX_LOOKED_AT: Final = 200  # inventories read, of the newest snapshots: any verifier may say a word


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class BadWord:
    """One statement that calls packs bad, and what it concerns."""

    seq: int
    type: str
    key_id: str  # that signed it
    role: Role  # with which that key's word counts
    packs: int  # that it calls bad, and on which no later word counts
    snapshots: tuple[int, ...]  # that need one of them, ascending


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Concerned:
    """All such words, and how far was looked."""

    words: tuple[BadWord, ...] = ()  # by seq; those that concern no snapshot, too
    unlooked: int = 0  # older snapshots whose inventories were not read

    def of(self, seq: int) -> list[int]:
        """The statements that call a pack bad which that snapshot needs, by seq."""
        return [word.seq for word in self.words if seq in word.snapshots]


def concerned_snapshots(repository: Repository, records: Sequence[Record]) -> Concerned:
    """What statements call bad of these snapshots' packs.

    Args:
        repository: Read up to its head.
        records: The snapshots in question, by seq.
    """
    said = {pack: word.seq for pack, word in words(repository).items()}
    if not said:
        return Concerned()
    found: dict[int, list[int]] = {seq: [] for seq in sorted(set(said.values()))}
    looked_at = records[-MAX_LOOKED_AT:]
    resolver = Resolver(repository.read)
    for record in looked_at:
        for seq in {said[pack] for pack in _packs_of(repository, resolver, record) & said.keys()}:
            found[seq].append(record.seq)
    counts = Counter(said.values())
    return Concerned(
        words=tuple(
            _word(repository, seq, counts[seq], snapshots) for seq, snapshots in found.items()
        ),
        unlooked=len(records) - len(looked_at),
    )


def _word(repository: Repository, seq: int, packs: int, snapshots: Sequence[int]) -> BadWord:
    ledger = repository.ledger
    record = ledger.records[seq]
    is_restorer = ledger.has_role(record, Role.RESTORER)
    return BadWord(
        seq=seq,
        type=record.type,
        key_id=record.key_id,
        role=Role.RESTORER if is_restorer else Role.VERIFIER,
        packs=packs,
        snapshots=tuple(snapshots),
    )


def _packs_of(repository: Repository, resolver: Resolver, record: Record) -> set[str]:
    """Ids of the packs that a snapshot needs; none where its inventory can't be read."""
    try:
        objects = resolver.resolve(repository.inventory_ref(record)).objects
    except IntegrityError:
        return set()
    return {pack_digits(ref.name) for ref in objects if is_pack(ref.name)}
