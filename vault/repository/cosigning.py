"""What a witness that can read the repository does before it cosigns a note.

It judges by the ledger itself, every signature of which was checked, and needs no proof.
"""

from collections.abc import Sequence

from vault.ledger.checkpoints import Standing, compare_note, log_keys
from vault.ledger.merkle import tree_root
from vault.ledger.notes import SignedNote, is_logged
from vault.ledger.records import Record
from vault.ledger.statements import StatementType
from vault.ledger.witness import Answer, LogState, Refused
from vault.model import Digest
from vault.repository.repository import Repository


def listed_log(repository: Repository, origin: str) -> LogState | None:
    """A log that the root in force lists, as one of which nothing was seen."""
    ledger = repository.ledger
    keys = log_keys(ledger.authority_at(len(ledger.records)), ledger.repository_id)
    key = keys.get(origin)
    return LogState(origin=origin, key=key) if key is not None else None


def judge_by_ledger(
    repository: Repository, known: LogState | None, note: SignedNote
) -> Refused | None:
    """Whether a witness may cosign a note of this ledger; None: it may.

    Args:
        repository: Verified from its root.
        known: What was seen of the log before; None where the root lists no such log.
        note: What its log is said to have signed.
    """
    if known is None:
        return Refused(
            answer=Answer.UNKNOWN_LOG, why=f"the root in force lists no log {note.origin}"
        )
    if not is_logged(note, known.key):
        return Refused(answer=Answer.NOT_SIGNED, why="the log's key did not sign the note")
    if note.size < known.size:
        return Refused(
            answer=Answer.OLD_IS_LARGER,
            why=f"the note is of {note.size} statements, fewer than the {known.size} before",
        )
    digests = [record.digest for record in repository.ledger.records]
    if known.size > len(digests) or _root(digests, known) != known.root:
        return Refused(
            answer=Answer.NOT_CONSISTENT,
            why=f"the ledger does not begin with the {known.size} statements that were seen here",
        )
    standing = compare_note(note, digests)
    if standing is not Standing.VOUCHED:
        return Refused(
            answer=Answer.NOT_CONSISTENT,
            why=f"{standing}: the note is not of this ledger, whose head is {repository.head}",
        )
    return None


def _root(digests: Sequence[Digest], known: LogState) -> Digest | None:
    return tree_root(digests[: known.size]) if known.size else None


def governing(repository: Repository, start: int, end: int) -> list[Record]:
    """Statements of these numbers about who may sign: what a person behind a witness looks at."""
    kinds = (StatementType.ROOT, StatementType.WRITER)
    return [record for record in repository.ledger.valid(*kinds) if start <= record.seq < end]
