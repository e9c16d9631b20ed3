"""What is void because its key is distrusted: by a revocation, or by the root in force. No I/O.

A revocation distrusts a writer for good. A root's list holds while that root is in force, acts by
the type of statement, and takes back what a stolen enroller key distrusted (docs/format.md 2.3).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from vault.ledger.records import Record, Status
from vault.ledger.statements import StatementType

OF_WRITERS: Final = frozenset({StatementType.SNAPSHOT, StatementType.HEARTBEAT})
OF_ROLES: Final = frozenset(  # what a root's distrust makes void
    {
        StatementType.RESTORE,
        StatementType.DRILL,
        StatementType.VERIFICATION,
        StatementType.RESEAL,
        StatementType.POLICY,
        StatementType.HOLD,
        StatementType.PRUNE,
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Spoken:
    """A revocation that distrusts a writer."""

    seq: int
    key_id: str  # of the writer
    start: int  # seq; what it linked from there to the revocation is void
    by: tuple[str, ...]  # who signed the revocation


class Distrust:
    """All distrust that was spoken, and what of it holds now."""

    def __init__(self) -> None:
        self._spoken: list[Spoken] = []
        self._root: tuple[int, Mapping[str, int]] = (0, {})  # seq of the root; start by key id

    def speak(self, spoken: Spoken) -> None:
        """A writer is distrusted by a revocation."""
        self._spoken.append(spoken)

    def govern(self, seq: int, entries: Mapping[str, int]) -> bool:
        """A root comes into force with its whole list; returns whether that changes anything."""
        is_other = entries != self._root[1]
        self._root = (seq, entries)
        return is_other

    @property
    def writers(self) -> Mapping[str, Spoken]:
        """The distrust that holds of writers, by key id: of each the one that reaches furthest."""
        found: dict[str, Spoken] = {}
        for each in self._spoken:
            known = found.get(each.key_id)
            if not self._is_lifted(each) and (known is None or each.start < known.start):
                found[each.key_id] = each
        return found

    def _is_lifted(self, spoken: Spoken) -> bool:
        """Whether the root in force distrusts who spoke."""
        return self._root_start(spoken.by, spoken.seq)

    def _root_start(self, signers: Sequence[str], seq: int) -> bool:
        entries = self._root[1]
        return any(key_id in entries and seq >= entries[key_id] for key_id in signers)

    def why(self, record: Record, writers: Mapping[str, Spoken]) -> tuple[int, str] | None:
        """The statement that makes a record void, and in which words; None if none does.

        Args:
            record: Valid but for distrust.
            writers: As `writers` gives it.
        """
        spoken = writers.get(record.key_id)
        if record.type in OF_WRITERS and spoken is not None:
            if spoken.start <= record.seq < spoken.seq:
                return spoken.seq, f"its writer is distrusted by statement {spoken.seq}"
        elif record.type in OF_ROLES and self._root_start(record.by, record.seq):
            return self._root[0], f"its key is distrusted by the root in force, {self._root[0]}"
        return None


def is_valid_but_for_distrust(record: Record) -> bool:
    """Whether a statement would count if its key were trusted."""
    return record.status is Status.VALID or record.distrusted_by is not None
