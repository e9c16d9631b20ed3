"""Opens a repository, and compares its ledger with all heads known to the caller.

The caller hands in what this machine remembers, what it trusts and what it accepts. Nothing here
reads the environment, asks a person or prints. See docs/design.md "Trust".
"""

import dataclasses
import logging
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from pathlib import Path

from vault.clock import Clock
from vault.crypto.keys import Signer
from vault.errors import RepositoryNotFoundError, RollbackError, VaultError
from vault.ledger.checkpoint_memory import CheckpointMemory
from vault.ledger.envelope import Head
from vault.ledger.remembered import WORTHWHILE, LedgerMemory, Remembered
from vault.ledger.statements import HeartbeatBody, StatementType
from vault.ledger.trust import HeadMemory, check_floor
from vault.model import Digest
from vault.repository.append_statements import Draft
from vault.repository.repository import Repository
from vault.repository.vouching import (
    NO_WISH,
    WitnessWish,
    ask_witnesses,
    contradiction,
    require_witnessed,
    vouched_size,
)
from vault.storage.base import ObjectStore
from vault.storage.double_check import ask_twice
from vault.storage.names import evidence_name

SETTLED = timedelta(minutes=10)  # docs/design.md "Trust": a head older than this can't lose a race

_log = logging.getLogger(__name__)

Warn = Callable[[str], None]  # receives problems that do not stop the operation


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Acceptance:
    """A head that a person accepts in place of the one that this machine remembers.

    Args:
        head: The head, which the ledger must contain.
        writer: The key that records the acceptance in the ledger.
        tool: The program, for the statement.
        done: Called once the head is accepted, before it is remembered.
    """

    head: Head
    writer: Callable[[Repository], Signer]
    tool: str
    done: Callable[[], None] = lambda: None


def open_repository(
    store: ObjectStore,
    root: Digest,
    *,
    clock: Clock,
    state: Path | None = None,
    floors: Sequence[Head] = (),
    afresh: bool = False,
    acceptance: Acceptance | None = None,
    witnesses: WitnessWish = NO_WISH,
    warn: Warn = _log.warning,
) -> Repository:
    """The repository, verified from its root and compared with the heads already known.

    Args:
        store: Where it is: `vault.open_store`.
        root: The pinned digest of its statement 0.
        clock: The time, aware and UTC.
        state: The directory where this machine remembers heads and ledgers, and keeps
            these for the next time. None: nothing is remembered.
        floors: Heads that the ledger must contain.
        afresh: Read and verify every statement, for a caller who is about to prove something
            or to change who may sign. False: what was verified here before is believed.
        acceptance: The head that replaces the remembered one; every statement is then read.
        witnesses: Whose checkpoints count, and whether one must.
        warn: Receives what could not be remembered or recorded.

    Raises:
        RepositoryNotFoundError: The store holds no ledger.
        RollbackError: The store shows an older or different history than the one known here, or
            than the one that a quorum of witnesses has seen.
        IntegrityError: The ledger does not chain from the root, or what is remembered is damaged.
        StorageError: The store failed.
        LocalError: What is remembered can't be read, or the accepted head can't be written.
    """
    named = max((each for each in floors if each.seq), key=lambda each: each.seq, default=None)
    afresh = afresh or acceptance is not None or named is not None
    remembered = None if afresh or state is None else LedgerMemory(state).recall(root)
    known = known_heads(root, state=state) if acceptance is None else ()
    knows_head = acceptance is not None or bool(known) or named is not None
    tries = iter((remembered, None))
    repository = _read_twice(
        lambda: Repository.open(
            store,
            root,
            clock=clock,
            remembered=next(tries),
            toward=named,
            knows_head=knows_head,
            vouched=lambda ledger: vouched_size(store, ledger, witnesses, clock()),
        ),
        (*floors, *known),
    )
    for floor in floors:
        check_floor(repository.ledger, floor)
    _check_known(repository, known, warn=warn)
    repository.witnessed = ask_witnesses(repository, witnesses, state=state)
    require_witnessed(repository, state=state, accepting=acceptance is not None, warn=warn)
    if acceptance is not None:
        _accept(repository, acceptance, state=state, warn=warn)
    if repository.log.history.chosen is None:
        remember_head(repository, state=state, warn=warn)
        if state is not None:
            _remember_ledger(repository, remembered, LedgerMemory(state))
    return repository


def _check_known(repository: Repository, known: Sequence[Head], *, warn: Warn) -> None:
    """Compare the ledger with what this machine remembers.

    Raises:
        RollbackError: It lacks that head, and no person has chosen another history.
    """
    for floor in known:
        try:
            check_floor(repository.ledger, floor)
        except RollbackError as error:
            if repository.log.history.chosen is None:
                raise
            warn(f"the history that was chosen is another than the one known here: {error}")


def open_to_audit(
    store: ObjectStore,
    root: Digest,
    *,
    clock: Clock,
    state: Path | None = None,
    floors: Sequence[Head] = (),
    witnesses: WitnessWish = NO_WISH,
) -> tuple[Repository, Sequence[Head]]:
    """The repository, even with holes in its ledger, and the heads that it must contain.

    A head that the ledger lacks is not refused here, as the audit reports it. The repository
    can't be appended to, and nothing is remembered of it.

    Args:
        store: Where it is.
        root: The pinned digest of its statement 0.
        clock: The time, aware and UTC.
        state: Where this machine remembers heads.
        floors: Further heads that the ledger must contain.
        witnesses: Whose checkpoints count; what they say is for the audit to report.

    Raises:
        RepositoryNotFoundError: The store holds no ledger.
        IntegrityError: The ledger does not begin with that root, or what is remembered is damaged.
        StorageError: The store failed.
        LocalError: What is remembered can't be read.
    """
    floors = known_heads(root, state=state, floors=floors)
    repository = _read_twice(
        lambda: Repository.open(store, root, clock=clock, tolerant=True), floors
    )
    repository.witnessed = ask_witnesses(repository, witnesses)
    return repository, floors


def known_heads(
    root: Digest, *, state: Path | None, floors: Sequence[Head] = ()
) -> tuple[Head, ...]:
    """The heads handed in, and the one that this machine remembers.

    Call it before the store is listed (`HeadMemory.recall`).

    Raises:
        IntegrityError: What is remembered is damaged.
        LocalError: It can't be read.
    """
    known = None if state is None else HeadMemory(state).recall(root)
    return tuple(floors) if known is None else (*floors, known)


def remember_head(repository: Repository, *, state: Path | None, warn: Warn = _log.warning) -> None:
    """Remember the newest head that no concurrent append can replace any more.

    Args:
        repository: Read up to its head.
        state: Where this machine remembers heads; None: nothing is remembered.
        warn: Receives the reason if that fails.
    """
    if state is None:
        return
    head = settled_head(repository, repository.clock())
    try:
        HeadMemory(state).remember(repository.ledger.records[0].digest, head)
    except VaultError as error:
        warn(f"the head of the ledger is not remembered: {error}")


def settled_head(repository: Repository, now: datetime) -> Head:
    """The newest head that no lost race can take back (docs/design.md "Trust")."""
    records = repository.ledger.records
    by_line = repository.log.history.by_line
    if by_line is not None:  # a thief's page must not make a reader refuse the honest successor
        return records[by_line - 1].head
    ordered = repository.store.traits.orders_versions_by_commit
    if ordered or len(records) == 1 or records[-1].modified + SETTLED <= now:
        return repository.head
    return records[-2].head


def _read_twice(read: Callable[[], Repository], floors: Sequence[Head]) -> Repository:
    """The repository; read again if its ledger lacks one of these heads, as a list may lag."""

    def contains(repository: Repository) -> bool:
        return all(repository.ledger.digest_at(floor.seq) == floor.digest for floor in floors)

    try:
        return ask_twice("ledger", read, contains, is_list=True)
    except RepositoryNotFoundError as error:
        last = max((floor.seq for floor in floors), default=0)
        if last:  # nothing may be made anew in the place of what was emptied
            error.hint = (
                f"it is known here up to statement {last}: is this its place, and is its file"
                " system mounted? if so, find out who emptied it"
            )
        raise


def _remember_ledger(
    repository: Repository, remembered: Remembered | None, memory: LedgerMemory
) -> None:
    """Remember the verified statements, if there are enough new ones to be worth a file."""
    ledger = repository.ledger
    known = -1
    if remembered is not None and ledger.digest_at(remembered.head.seq) == remembered.head.digest:
        known = remembered.head.seq
    head = settled_head(repository, repository.clock())
    if head.seq - known >= WORTHWHILE:
        memory.remember(ledger.records[0].digest, ledger, repository.log.findings, until=head)


def _accept(
    repository: Repository, acceptance: Acceptance, *, state: Path | None, warn: Warn
) -> None:
    """Replace the remembered head by the accepted one, if the ledger contains that."""
    head, root = acceptance.head, repository.ledger.records[0].digest
    found = repository.ledger.digest_at(head.seq)
    if found != head.digest:
        raise RollbackError(
            "the ledger does not contain the head to accept",
            expected=head,
            found=f"{head.seq}:{found}" if found else repository.head,
        )
    try:
        _record_acceptance(repository, acceptance)
    except VaultError as error:
        warn(f"that {head} was accepted is not recorded in the ledger: {error}")
    acceptance.done()
    if state is None:
        return
    HeadMemory(state).replace(root, head)
    against = contradiction(repository.witnessed)
    if against is not None:
        CheckpointMemory(state).accept(root, against)


def _record_acceptance(repository: Repository, acceptance: Acceptance) -> None:
    key = acceptance.writer(repository)
    note = "accepted a head of the ledger"
    against = contradiction(repository.witnessed)
    if against is not None:  # it convicts the log key, or this ledger
        kept = repository.put_evidence(against.encode())
        note += f"; a checkpoint of another one is {evidence_name(kept)}"
    body = HeartbeatBody(note=note, accepted=str(acceptance.head))
    subject = [("repository", Digest.of(repository.id))]
    draft = Draft(type=StatementType.HEARTBEAT, subject=subject, body=body)
    repository.append(lambda _: draft, [key], tool=acceptance.tool)
