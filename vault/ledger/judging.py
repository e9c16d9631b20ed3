"""What a statement that links amounts to: valid, void, or not understood (docs/format.md 2.3).

A statement that may not say what it says stays in the chain, is void, and is a finding: skipping
it would make two versions of this program disagree on who owns the next seq.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Final

from vault.errors import VaultError
from vault.ledger.agreement import agreement, agreement_of_unknown, unapproved
from vault.ledger.envelope import Statement
from vault.ledger.keyring import Keyring
from vault.ledger.kinds import KINDS, parse_body
from vault.ledger.linking import keys_brought
from vault.ledger.past import Holds, Past
from vault.ledger.records import Status
from vault.ledger.statements import (
    WRITER_ACTIONS,
    EventBody,
    HoldBody,
    PolicyBody,
    PruneBody,
    ResealBody,
    Role,
    StatementType,
    VerificationBody,
)
from vault.ledger.warrants import Misfit
from vault.model import Body

_GOVERNING: Final = {StatementType.ROOT: Role.ROOT, StatementType.WRITER: Role.ENROLLER}


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What a statement amounts to."""

    status: Status
    reason: str = ""  # why void or not understood
    key_id: str  # the key it counts for
    body: Body | None = None  # of its type's shape
    is_critical: bool = False  # who does not understand it must not write
    is_unagreed: bool = False  # void for want of a warrant that fits, or of approvals
    misfit: Misfit | None = None  # why the warrant that it names does not fit
    ends_reading: bool = False  # it changes who may sign, in a way that is not understood


def judge(statement: Statement, keyring: Keyring, past: Past) -> Judgement:
    """Judge a statement that links next, by what was said before it.

    Args:
        statement: Its signatures hold.
        keyring: Who may sign, without what it says itself.
        past: What was said before it.
    """
    signers = statement.by
    fallback = next((key for key in signers if key in keyring.listed), signers[0])
    if reason := _unknown(statement):
        brought = keys_brought(statement)
        every = (*signers, *agreement_of_unknown(statement, brought, keyring, past).signers)
        is_critical = statement.critical and keyring.governs(every)
        if statement.critical and not is_critical:
            reason += "; critical counts only from the keys that may sign a root"
        return Judgement(
            status=Status.UNKNOWN,
            reason=reason,
            key_id=fallback,
            is_critical=is_critical,
            ends_reading=_would_count(statement, keyring, every),
        )
    if statement.flaw:
        return Judgement(status=Status.VOID, reason=statement.flaw, key_id=fallback)
    try:
        body = parse_body(statement.type, statement.body)
    except VaultError as error:
        return Judgement(status=Status.VOID, reason=str(error), key_id=fallback)
    if statement.seq == 0:
        return Judgement(status=Status.VALID, key_id=fallback, body=body)
    agreed = agreement(statement, body, keyring, past)
    reason, key_id = keyring.objection(statement.type, body, signers, agreed.signers)
    reason = reason or about_others(body, statement.seq, past.holds)
    disagreed = agreed.problem or ("" if reason else unapproved(statement, body, keyring, agreed))
    return Judgement(
        status=Status.VOID if disagreed or reason else Status.VALID,
        reason=disagreed or reason,
        key_id=key_id or fallback,
        body=body,
        is_unagreed=bool(disagreed),
        misfit=agreed.misfit,
    )


def _unknown(statement: Statement) -> str:
    """Why this program does not understand a statement; empty where it does."""
    kind, version = statement.type, statement.type_version
    if kind not in KINDS or version != 1:
        return f"type {kind} v{version} is not understood"
    action = statement.body.get("action")
    if kind == StatementType.WRITER and isinstance(action, str) and action not in WRITER_ACTIONS:
        return f"action {action[:40]!r} of a writer statement is not understood"
    return ""


def _would_count(statement: Statement, keyring: Keyring, signers: Collection[str]) -> bool:
    """Whether a statement about keys is signed as one that counts would be.

    Chained over, the keys it adds would be unlisted here, and this program would append over
    what they sign.
    """
    role = _GOVERNING.get(StatementType(statement.type)) if statement.type in _GOVERNING else None
    return role is not None and not keyring.authority.shortfall(role, signers)


def about_others(body: Body, seq: int, holds: Callable[[], Holds]) -> str:
    """Why a statement of that seq would be void for what it says of other statements.

    Args:
        body: Of its type.
        seq: Its own.
        holds: Gives the holds in force before it.

    Returns:
        A reason; empty where there is none.
    """
    later = next((read for read in _read(body) if read is not None and read >= seq), None)
    if later is not None:
        return f"it is about statement {later}, which does not precede it"
    if isinstance(body, HoldBody) and body.hold is not None:
        held = holds().get(body.hold)
        if held is None:
            return f"it releases statement {body.hold}, which is no hold in force"
        if held.snapshot != body.snapshot:
            return f"it releases a hold of snapshot {held.snapshot}, not of {body.snapshot}"
    return ""


def _read(body: Body) -> tuple[int | None, ...]:
    """The statements that the signer of one must have read."""
    match body:
        case EventBody():
            return (body.snapshot,)
        case VerificationBody() | ResealBody():
            return (body.through,)
        case HoldBody():
            return (body.snapshot, body.hold)
        case PolicyBody():
            return (body.previous,)
        case PruneBody():
            return (body.head, body.of)
        case _:
            return ()
