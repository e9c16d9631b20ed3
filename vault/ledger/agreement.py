"""Whether people agreed to an act: the warrant that it names, and what the root wants. No I/O.

docs/format.md 2.9. The signatures of a fitting warrant count beside the act's own where thresholds
are met; where the root wants an act approved, only those of people who neither asked nor act.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from vault.crypto.keys import VerifyKey
from vault.ledger.acts import act_of, approval_of, bound_digest, bound_values
from vault.ledger.authority import Authority
from vault.ledger.envelope import Statement
from vault.ledger.keyring import Keyring
from vault.ledger.past import Past
from vault.ledger.statements import (
    MAX_APPROVAL_AGE,
    Act,
    Role,
    RootBody,
    StatementType,
)
from vault.ledger.warrants import ActAtHand, Misfit, unfit
from vault.model import Body, Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """Who agreed to an act beside those who sign it."""

    problem: str = ""  # why the warrant that it names does not fit
    misfit: Misfit | None = None  # the same, for programs
    signers: tuple[str, ...] = ()  # ids of the keys that signed the warrant, each once
    requester: str = ""  # id of the key that asked


_NONE: Final = Agreement()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """What an act is, as far as a warrant must agree with it."""

    act: str | None  # of `Act`; None where its type has none
    bound: Digest | None  # of the values that a request for it binds
    brought: Mapping[str, VerifyKey]  # keys that a root brings along, by id


def agreement(statement: Statement, body: Body, keyring: Keyring, past: Past) -> Agreement:
    """What the warrant that a statement names is worth to it.

    Args:
        statement: Link-valid as the next one.
        body: Its body, of its type.
        keyring: Who may sign, without what it says itself.
        past: What was linked before it.
    """
    if statement.warrant is None:
        return _NONE
    act = act_of(statement.type, body, keyring.authority.body)
    values = bound_values(act, statement.body, past) if act is not None else None
    asked = _Asked(
        act=act,
        bound=bound_digest(values) if values else None,
        brought=brought_keys(body),
    )
    return _examined(statement, asked, keyring, past)


def agreement_of_unknown(
    statement: Statement, brought: Mapping[str, VerifyKey], keyring: Keyring, past: Past
) -> Agreement:
    """The same of a statement that is not understood: its whole body is bound.

    Which act it is can't be known; any that is named after its type will do.

    Args:
        statement: Link-valid as the next one.
        brought: Keys in its body, by id.
        keyring: Who may sign, without what it says itself.
        past: What was linked before it.
    """
    if statement.warrant is None or statement.time is None:
        return _NONE
    if not statement.type_version or not statement.body:
        return _NONE
    request = past.carried(statement.warrant)
    act = request.terms.act if request is not None else ""
    is_of_type = act.startswith(f"{statement.type}.") or act == statement.type
    is_narrower = (statement.type, act) == (StatementType.ROOT, Act.RECIPIENT_REMOVE)
    asked = _Asked(
        act=act if is_of_type or is_narrower else None,
        bound=bound_digest(statement.body),
        brought=brought,
    )
    return _examined(statement, asked, keyring, past)


def _examined(statement: Statement, asked: _Asked, keyring: Keyring, past: Past) -> Agreement:
    assert statement.warrant is not None
    assert statement.time is not None
    request = past.carried(statement.warrant)
    if request is None:
        return Agreement(
            problem=f"warrant {statement.warrant}: that statement carries no request",
            misfit=Misfit.NO_REQUEST,
        )
    root = keyring.authority.body
    approval = approval_of(asked.act, root.approvals)
    wanted = ActAtHand(
        repository=statement.repository,
        act=asked.act,
        bound=asked.bound,
        time=statement.time,
        root=root.version,
        max_age=approval.max_age if approval is not None else MAX_APPROVAL_AGE,
        floor=past.digest_at(request.terms.floor.seq),
        used=past.used_by(request),
    )
    signers = request.signers({**asked.brought, **keyring.listed})
    if reason := unfit(request.terms, wanted, signers):
        return Agreement(problem=f"warrant {statement.warrant}: {reason[1]}", misfit=reason[0])
    return Agreement(signers=signers, requester=request.terms.requester)


def brought_keys(body: Body | None) -> Mapping[str, VerifyKey]:
    """The keys that a root brings along, by id; none of another body."""
    return Authority.of(body).keys if isinstance(body, RootBody) else {}


def unapproved(statement: Statement, body: Body, keyring: Keyring, agreed: Agreement) -> str:
    """Why the root in force does not let an act count without more people; empty if it does.

    Args:
        statement: Link-valid as the next one.
        body: Its body, of its type.
        keyring: Who may sign, without what it says itself.
        agreed: By the warrant that it names.
    """
    authority = keyring.authority
    if not authority.body.approvals:
        return ""
    act = act_of(statement.type, body, authority.body)
    wanted = approval_of(act, authority.body.approvals)
    if wanted is None:
        return ""
    found = approvers(
        authority, body, Role(wanted.role), agreed.signers, (*statement.by, agreed.requester)
    )
    if len(found) >= wanted.threshold:
        return ""
    people = "1 person" if wanted.threshold == 1 else f"{wanted.threshold} people"
    return (
        f"{act} needs the approval of {people} with the role {wanted.role},"
        f" other than who asks and who acts; found {len(found)}"
    )


def approvers(
    authority: Authority,
    body: Body | None,
    role: Role,
    signers: Collection[str],
    besides: Iterable[str],
) -> set[str]:
    """The people with a role among the signers of a warrant, but for those who ask or act.

    Args:
        authority: Of the root in force.
        body: Of the act; a new root may say whose key one is that no root had before.
        role: The one that the root wants.
        signers: Ids of keys.
        besides: Ids of the keys that asked and that act.
    """
    new = Authority.of(body).people if isinstance(body, RootBody) else {}
    left_out = {
        people[key] for people in (authority.people, new) for key in besides if key in people
    }
    return authority.people_with(role, signers) - left_out
