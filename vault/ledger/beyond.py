"""Statements beyond a hole: what they show, and the three things for which a word more is asked.

A hole is a number at which nothing links, while statements that listed keys signed lie at it or
beyond. Either a statement was taken away, or someone holds a key. A thief with one key can put
such a statement anywhere, and a lock keeps it there; so it is a finding, and what was published
before stays readable. No I/O.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from vault.errors import ConfigError, RollbackError, VaultError
from vault.ledger.chain import Ledger
from vault.ledger.kinds import parse_body
from vault.ledger.linking import Candidate
from vault.ledger.statements import Role, SnapshotBody, StatementType
from vault.model import Code, Finding, Severity

SHOWN: Final = 8  # findings of single statements; what is beyond is counted

_OF_HOSTS: Final = {StatementType.SNAPSHOT, StatementType.HEARTBEAT}
_KEEPERS: Final = {Role.ROOT, Role.ENROLLER}  # of the list of keys


@dataclass(frozen=True, slots=True, kw_only=True)
class Beyond:
    """A statement that listed keys signed for its number, and that is not in the chain."""

    name: str  # of the object
    version: str  # the store's id
    modified: datetime  # the store's time
    candidate: Candidate

    @property
    def seq(self) -> int:
        """The number that it was signed for."""
        return self.candidate.statement.seq


def require_no_word(
    ledger: Ledger,
    beyond: Sequence[Beyond],
    kind: str,
    *,
    knows_head: bool,
    by_line: int | None = None,
) -> None:
    """Pass if a host may append, as far as statements beyond a hole go.

    Roots, writer statements and what restorers say can always be appended: by those a hole is
    dealt with.

    Args:
        ledger: Up to the hole.
        beyond: What stands there.
        kind: The type of what is to be appended.
        knows_head: The host remembers a head that the ledger has, or was told one.
        by_line: Seq of the first statement that only a page still has.

    Raises:
        RollbackError: It may not without a word more.
    """
    if kind not in _OF_HOSTS:
        return
    seq = by_line + 1 if by_line is not None else beyond[0].seq if beyond else None
    if seq is not None and not knows_head:
        raise _refused(
            ledger,
            seq,
            hint=f"this host knows no head: find out what happened, then say --trust {ledger.head}"
            " if nothing is missing before it; revoking a thief's key ends this",
        )
    governed = max(each.modified for each in ledger.valid(StatementType.ROOT, StatementType.WRITER))
    for each in beyond:
        if each.modified > governed and _is_of_keepers(ledger, each):
            raise _refused(
                ledger,
                each.seq,
                hint="a root or enroller key signed it, so a revocation may be missing: append"
                " one, or a new root",
            )


def _is_of_keepers(ledger: Ledger, beyond: Beyond) -> bool:
    roles = ledger.authority_at(len(ledger.records)).roles
    return any(roles.get(key_id, frozenset()) & _KEEPERS for key_id in beyond.candidate.signers)


def _refused(ledger: Ledger, seq: int, *, hint: str) -> RollbackError:
    return RollbackError(
        f"ledger statement {seq} is signed by a listed key but does not follow the head",
        expected=f"every statement after {ledger.head}",
        found="a hole before it",
        hint=hint,
    )


def refuse_older(beyond: Iterable[Beyond], dataset: str, newest: int | None) -> None:
    """Pass if no signed snapshot of a dataset stands beyond a hole.

    Raises:
        ConfigError: One does; it may be newer than what would be restored.
    """
    for each in beyond:
        statement = each.candidate.statement
        if statement.type != StatementType.SNAPSHOT or statement.type_version != 1:
            continue
        try:
            body = parse_body(statement.type, statement.body)
        except VaultError:
            continue
        if isinstance(body, SnapshotBody) and body.dataset == dataset:
            raise ConfigError(
                f"a signed snapshot {each.seq} of {dataset} stands beyond a hole in the ledger;"
                f" the newest before the hole is {newest if newest is not None else 'none'}",
                hint=f"say {dataset}@latest for the one before the hole;"
                " 'vault audit' tells of the hole",
            )


def findings_of(ledger: Ledger, beyond: Sequence[Beyond]) -> Iterator[Finding]:
    """One for each of the first statements, and one for the rest of each key."""
    for each in beyond[:SHOWN]:
        yield Finding(
            severity=Severity.ERROR,
            subject=each.name,
            problem="signed statement beyond a gap: statements are missing or were replaced,"
            " or a key was stolen",
            expected=f"every statement after {ledger.head}",
            found=f"key {each.candidate.signers[0]}",
            code=Code.BEYOND_GAP,
        )
    rest = Counter(each.candidate.signers[0] for each in beyond[SHOWN:])
    for key_id, count in rest.items():
        yield Finding(
            severity=Severity.ERROR,
            subject="ledger",
            problem=f"{count} more signed statements beyond a gap",
            found=f"key {key_id}",
            code=Code.BEYOND_GAP,
        )
