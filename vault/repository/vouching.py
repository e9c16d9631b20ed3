"""What witnesses say of the ledger that was read, and whether a client goes on.

See docs/design.md "Trust". Where no witness is listed nothing is asked of the store.
"""

import dataclasses
import logging
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from vault.errors import LocalError
from vault.ledger.chain import Ledger
from vault.ledger.checkpoint_memory import CheckpointMemory, Remembrance
from vault.ledger.checkpoints import Standing, WitnessPolicy, compare_note, log_keys
from vault.ledger.notes import SignedNote
from vault.ledger.witness_policy import PinnedWitnesses
from vault.ledger.witnessed import ASK_A_WITNESS, CONTRADICTIONS, Witnessed, conclude
from vault.model import Digest
from vault.repository.checkpoints import Search, find_checkpoint
from vault.repository.repository import Repository
from vault.storage.base import ObjectStore

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class WitnessWish:
    """What a caller wants of witnesses.

    Args:
        pinned: Witnesses that count in place of the root's.
        required: Whether to refuse a ledger of which no checkpoint counts.
    """

    pinned: PinnedWitnesses | None = None
    required: bool = False


NO_WISH: Final = WitnessWish()


def witness_policy_of(repository: Repository, wish: WitnessWish = NO_WISH) -> WitnessPolicy:
    """Whose signatures make a checkpoint of this repository count."""
    return _policy_of(repository.ledger, wish)


def vouched_size(store: ObjectStore, ledger: Ledger, wish: WitnessWish, now: datetime) -> int:
    """How many statements of a ledger the newest checkpoint that counts vouches for; or 0.

    Args:
        store: Where checkpoints are.
        ledger: Read up to its head, by copies of statements that may be forged.
        wish: Whose word counts.
        now: The client's clock.
    """
    policy = _policy_of(ledger, wish)
    if not policy.witnesses:
        return 0
    found = find_checkpoint(store, policy, now).counted
    if found is None:
        return 0
    digests = [record.digest for record in ledger.records]
    return found.note.size if compare_note(found.note, digests) is Standing.VOUCHED else 0


def _policy_of(ledger: Ledger, wish: WitnessWish) -> WitnessPolicy:
    authority = ledger.authority_at(len(ledger.records))
    if wish.pinned is not None:
        return wish.pinned.over(log_keys(authority, ledger.repository_id))
    return WitnessPolicy.of_root(authority, ledger.repository_id)


def ask_witnesses(
    repository: Repository, wish: WitnessWish = NO_WISH, *, state: Path | None = None
) -> Witnessed:
    """Compare the ledger with the newest checkpoint that counts.

    What was appended since the ledger was read is read too, before it is called shorter.

    Args:
        repository: Read up to its head.
        wish: Whose word counts.
        state: Where this machine remembers the size of the last that counted.
    """
    policy = witness_policy_of(repository, wish)
    if not policy.witnesses:
        why = "the root lists no witness"
        standing = Standing.UNWITNESSED if wish.required else Standing.UNASKED
        return Witnessed(standing=standing, why=why, required=wish.required)
    root = repository.ledger.records[0].digest
    remembers = state is not None and wish.pinned is None
    known = CheckpointMemory(state).recall(root) if state and remembers else Remembrance()
    search = find_checkpoint(repository.store, policy, repository.clock(), after=known.size)
    if any(each.note.size > len(repository.ledger.records) for each in search.seen):
        head = repository.head
        repository.refresh()
        if repository.head != head:  # it may have another root, and other witnesses
            policy = witness_policy_of(repository, wish)
    found = _conclude(repository, policy, search)
    if state and remembers and found.standing in {Standing.VOUCHED, Standing.FROZEN}:
        assert found.checkpoint is not None
        _remember(CheckpointMemory(state), root, found.checkpoint.note.size)
    return dataclasses.replace(found, required=wish.required)


def _conclude(repository: Repository, policy: WitnessPolicy, search: Search) -> Witnessed:
    ledger = repository.ledger
    notes = [each.note for each in search.seen]
    now = repository.clock()
    counts = (policy.count(note, now) for note in notes)
    return conclude(
        [record.digest for record in ledger.records],
        repository.head,
        checkpoint=next((each for each in counts if each is not None), None),
        others=[note for note in notes if policy.is_logged(note)],
        age=timedelta(seconds=ledger.root.checkpoint_age),
        now=max([now, *(each.modified for each in ledger.records[-2:] if each.is_dated)]),
        why=_why(search, policy),
    )


def _why(search: Search, policy: WitnessPolicy) -> str:
    """No checkpoint counts, in words."""
    if search.gave_up:
        return f"too much junk: {search.junk} of {search.listed} objects"
    if not policy.logs:
        return "the root lists no key with the role log"
    if not search.seen:
        return "no log has signed one"
    needed = f"{policy.quorum} of {len(policy.witnesses)} witnesses"
    return f"{needed} must cosign one"


def _remember(memory: CheckpointMemory, root: Digest, size: int) -> None:
    try:
        memory.note_counted(root, size)
    except LocalError as error:
        _log.info("the size of the newest checkpoint is not remembered: %s", error)


def require_witnessed(
    repository: Repository,
    *,
    state: Path | None,
    accepting: bool,
    warn: Callable[[str], None],
) -> None:
    """Refuse what a checkpoint that counts contradicts, unless a person went on in spite of it.

    Args:
        repository: With what witnesses say of it.
        state: Where this machine remembers what was accepted.
        accepting: Whether a person accepts a head now.
        warn: Receives what refuses nothing.

    Raises:
        RollbackError: The ledger is shorter than, or another than, what a quorum has seen.
    """
    found = repository.witnessed
    finding = found.finding()
    if finding is None:
        return
    note = contradiction(found)
    if note is None:
        if found.required and found.standing is Standing.UNWITNESSED:
            raise found.refusal()
        warn(_line(found))
        return
    is_accepted = accepting or repository.log.history.chosen is not None
    if not is_accepted and state is not None:
        root = repository.ledger.records[0].digest
        is_accepted = CheckpointMemory(state).recall(root).accepts(note)
    if not is_accepted:
        raise found.refusal()
    warn(f"{found.standing}: {found.problem}, which was accepted")


def _line(found: Witnessed) -> str:
    text = f"{found.standing}: {found.problem}"
    if found.standing is Standing.FROZEN:
        return f"{text}: it is of {found.found}; {ASK_A_WITNESS}"
    return f"{text}; {ASK_A_WITNESS}"


def contradiction(found: Witnessed) -> SignedNote | None:
    """The note that counts and contradicts the ledger, if one does."""
    if found.standing not in CONTRADICTIONS or found.checkpoint is None:
        return None
    return found.checkpoint.note


def witnessed_now(repository: Repository) -> Witnessed:
    """What witnesses say by the later of this machine's clock and the store's.

    Asks the store for its time only where that may change something.

    Raises:
        StorageError: The store did not answer.
    """
    found = repository.witnessed
    if not found.vouches:
        return found
    return found.at(max(repository.clock(), repository.store.now()))
