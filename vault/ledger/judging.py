"""What a statement that links amounts to: valid, void, or not understood (docs/format.md 2.3).

A statement that may not say what it says stays in the chain, is void, and is a finding: skipping
it would make two versions of this program disagree on who owns the next seq.
"""

from dataclasses import dataclass
from typing import Final

from vault.errors import VaultError
from vault.ledger.envelope import Statement
from vault.ledger.keyring import Keyring
from vault.ledger.kinds import KINDS, parse_body
from vault.ledger.records import Status
from vault.ledger.statements import (
    WRITER_ACTIONS,
    EventBody,
    ResealBody,
    Role,
    StatementType,
    VerificationBody,
)
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
    ends_reading: bool = False  # it changes who may sign, in a way that is not understood


def judge(statement: Statement, keyring: Keyring) -> Judgement:
    """Judge a statement that links next, by what was said before it.

    Args:
        statement: Its signatures hold.
        keyring: Who may sign, without what it says itself.
    """
    signers = statement.by
    fallback = next((key for key in signers if key in keyring.listed), signers[0])
    if reason := _unknown(statement):
        is_critical = statement.critical and keyring.governs(signers)
        if statement.critical and not is_critical:
            reason += "; critical counts only from the keys that may sign a root"
        return Judgement(
            status=Status.UNKNOWN,
            reason=reason,
            key_id=fallback,
            is_critical=is_critical,
            ends_reading=_would_count(statement, keyring),
        )
    if statement.flaw:
        return Judgement(status=Status.VOID, reason=statement.flaw, key_id=fallback)
    try:
        body = parse_body(statement.type, statement.body)
    except VaultError as error:
        return Judgement(status=Status.VOID, reason=str(error), key_id=fallback)
    if statement.seq == 0:
        return Judgement(status=Status.VALID, key_id=fallback, body=body)
    reason, key_id = keyring.objection(statement.type, body, signers)
    reason = reason or _warrant_objection(statement) or about_later(body, statement.seq)
    status = Status.VOID if reason else Status.VALID
    return Judgement(status=status, reason=reason, key_id=key_id or fallback, body=body)


def _unknown(statement: Statement) -> str:
    """Why this program does not understand a statement; empty where it does."""
    kind, version = statement.type, statement.type_version
    if kind not in KINDS or version != 1:
        return f"type {kind} v{version} is not understood"
    action = statement.body.get("action")
    if kind == StatementType.WRITER and isinstance(action, str) and action not in WRITER_ACTIONS:
        return f"action {action[:40]!r} of a writer statement is not understood"
    return ""


def _would_count(statement: Statement, keyring: Keyring) -> bool:
    """Whether a statement about keys is signed as one that counts would be.

    Chained over, the keys it adds would be unlisted here, and this program would append over
    what they sign.
    """
    role = _GOVERNING.get(StatementType(statement.type)) if statement.type in _GOVERNING else None
    return role is not None and not keyring.authority.shortfall(role, statement.by)


def _warrant_objection(statement: Statement) -> str:
    if statement.warrant is None:
        return ""
    return f"warrant {statement.warrant}: this program does not judge warrants"


def about_later(body: Body, seq: int) -> str:
    """Why a statement of that seq would be void: its signer can't have read a later one."""
    if not isinstance(body, EventBody | VerificationBody | ResealBody):
        return ""
    read = body.snapshot if isinstance(body, EventBody) else body.through
    if read is None or read < seq:
        return ""
    return f"it is about statement {read}, which does not precede it"
