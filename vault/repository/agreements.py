"""Agreement of several people, on a store: requests are made, checked, carried into the ledger.

What a request says and whether it fits an act is for `vault.ledger` to say. Here an act is refused
before anything is written, with the names of those who are missing.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from vault.clock import to_rfc3339
from vault.crypto.keys import Signer, VerifyKey, random_bytes
from vault.errors import ConfigError, LedgerMovedError, SignatureError, WrongKeyError
from vault.ledger.acts import act_of, approval_of, bound_digest, bound_values
from vault.ledger.agreement import approvers, brought_keys
from vault.ledger.authority import Authority
from vault.ledger.chain import Ledger
from vault.ledger.judging import Judgement
from vault.ledger.kinds import KINDS
from vault.ledger.records import Record, Status
from vault.ledger.request_files import RequestFile
from vault.ledger.statements import (
    MAX_APPROVAL_AGE,
    Act,
    EventBody,
    Role,
    RootBody,
    StatementType,
    Verdict,
    WarrantBody,
)
from vault.ledger.warrants import (
    Misfit,
    Request,
    Terms,
    add_signature,
    carrying,
    encode_request_terms,
    require_carriable,
    signed_request,
    with_proven,
)
from vault.model import Body, body_to_json
from vault.repository.append_statements import Draft
from vault.repository.repository import Repository

_NONCE_SIZE: Final = 16  # bytes


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Intent:
    """A statement that is about to be signed."""

    kind: StatementType
    body: Body
    by: tuple[str, ...]  # ids of the keys that will sign it


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Reasons:
    """What people read before they sign."""

    summary: str  # what is lost, in words and numbers
    reason: str
    ticket: str = ""
    span: timedelta  # for how long the request is good


# --- asking ---


def ask(
    repository: Repository, kind: StatementType, body: Body, reasons: Reasons, requester: Signer
) -> RequestFile:
    """A request for people to sign, with the requester's own signature.

    Raises:
        ConfigError: It is no act, it would be good for too long, or too large.
        WrongKeyError: The requester's key is not listed.
    """
    ledger = repository.ledger
    if requester.public.id not in ledger.keys:
        raise WrongKeyError(
            "the requester's key is not listed in this repository", found=requester.public.id
        )
    act = act_of(kind, body, ledger.root)
    values = None if act is None else bound_values(act, body_to_json(body), ledger)
    if act is None or values is None:
        raise ConfigError(f"a {kind} statement like this is no act that people approve")
    longest = timedelta(seconds=_max_age(ledger, act))
    if reasons.span > longest:
        raise ConfigError(
            f"a request for {act} may not be good for so long",
            expected=f"at most {longest}",
            found=str(reasons.span),
            hint="say less with --expires",
        )
    now = repository.clock().replace(microsecond=0)
    terms = Terms(
        repository=ledger.repository_id,
        root=ledger.root.version,
        floor=repository.head,
        act=act,
        summary=reasons.summary,
        requester=requester.public.id,
        reason=reasons.reason,
        ticket=reasons.ticket,
        not_before=now,
        expires=now + reasons.span,
        nonce=random_bytes(_NONCE_SIZE).hex(),
        bound=bound_digest(values),
    )
    request = add_signature(signed_request(encode_request_terms(terms)), requester)
    require_carriable(request)
    return RequestFile(request=request, values=values)


def _max_age(ledger: Ledger, act: Act) -> int:
    wanted = approval_of(act, ledger.root.approvals)
    return MAX_APPROVAL_AGE if wanted is None else wanted.max_age


def replacing(snapshot: int) -> EventBody:
    """A restore that puts a snapshot in the place of live data, as far as people can agree to it.

    Its end, and what it attests, are known only afterwards, and no request binds them.
    """
    epoch = datetime.fromtimestamp(0, UTC)
    return EventBody(
        verdict=Verdict.PASSED,
        snapshot=snapshot,
        started=epoch,
        finished=epoch,
        attestation="0" * 64,
        replaced=True,
    )


# --- before the act ---


def wants_approval(ledger: Ledger, kind: StatementType, body: Body) -> Act | None:
    """The act that a statement would be, if the root in force wants people to approve it."""
    act = act_of(kind, body, ledger.root)
    return act if approval_of(act, ledger.root.approvals) is not None else None


def require_unasked(ledger: Ledger, kind: StatementType, body: Body) -> None:
    """Pass if the root wants no approval of an act.

    Raises:
        ConfigError: It does.
    """
    act = wants_approval(ledger, kind, body)
    if act is not None:
        raise ConfigError(
            f"the root wants people to approve {act}",
            hint=f"'vault approve request {act}' asks them; --warrant FILE then acts",
        )


def require_agreed(ledger: Ledger, intent: Intent, request: Request, *, now: datetime) -> None:
    """Pass if an act would count once the request is carried by a warrant that it names.

    Raises:
        SignatureError: The request is of another repository, or has a signature that is forged.
        LedgerMovedError: The ledger does not contain the statement that the request rests on.
        ConfigError: It expired, was used, is for another act or plan, or too few people signed.
    """
    require_unforged(ledger, intent.body, request)
    moment = now.replace(microsecond=0)
    judgement = ledger.foresee(intent.by, intent.kind, intent.body, time=moment, request=request)
    if judgement.status is Status.VALID:
        return
    if judgement.misfit is not None:
        raise _misfit(judgement)
    missing = lacking(ledger, intent, request)
    raise ConfigError(
        f"not enough people have agreed: {judgement.reason}",
        hint=f"still needed of: {', '.join(missing)}" if missing else None,
    )


def require_unforged(ledger: Ledger, body: Body | None, request: Request) -> None:
    """Pass if no signature that claims to be of a known key is by another one.

    Raises:
        SignatureError: One is.
    """
    keys = {**brought_keys(body), **ledger.keys}
    for each in request.envelope.signatures:
        key = keys.get(each.keyid)
        if key is not None and not key.verify(each.sig, request.pae):
            raise SignatureError(
                "a signature in the request does not hold",
                expected=f"of {name_of(ledger, each.keyid)}, key {each.keyid}",
                hint="the request was changed, or the signature forged: ask for another",
            )


def _misfit(judgement: Judgement) -> Exception:
    reason = judgement.reason.partition(": ")[2]
    match judgement.misfit:
        case Misfit.REPOSITORY:
            return SignatureError(f"the request is {reason}")
        case Misfit.FLOOR:
            return LedgerMovedError(
                f"the request does not fit: {reason}",
                hint="the ledger that its signers knew is gone: find out why before you ask anew",
            )
        case Misfit.REQUESTER:
            return ConfigError(f"the request does not fit: {reason}")
        case _:
            return ConfigError(
                f"the request does not fit: {reason}",
                hint="'vault approve request' asks anew",
            )


def lacking(ledger: Ledger, intent: Intent, request: Request) -> list[str]:
    """People whose signature would still count for an act, by name and role."""
    authority = ledger.authority_at(len(ledger.records))
    signed = request.signers({**brought_keys(intent.body), **ledger.keys})
    wanted = approval_of(act_of(intent.kind, intent.body, ledger.root), ledger.root.approvals)
    found: dict[str, None] = {}
    if wanted is not None:
        role = Role(wanted.role)
        besides = (*intent.by, request.terms.requester)
        could = approvers(authority, intent.body, role, tuple(authority.keys), besides)
        for person in sorted(could - authority.people_with(role, signed)):
            found[_shown(ledger, person, role)] = None
    everybody = (*intent.by, *signed)
    new = [Authority.of(intent.body)] if isinstance(intent.body, RootBody) else []
    for each in (authority, *new):
        for role in KINDS[intent.kind].roles:
            if each.shortfall(role, everybody):
                able = each.people_with(role, tuple(each.keys))
                for person in sorted(able - each.people_with(role, everybody)):
                    found[_shown(ledger, person, role)] = None
    return list(found)


def _shown(ledger: Ledger, person: str, role: Role) -> str:
    return f"{name_of(ledger, person)} ({role})"


def name_of(ledger: Ledger, key_id: str) -> str:
    """Whose key it is: the person, else the name of the key or host; else what was given."""
    authority = ledger.authority_at(len(ledger.records))
    person = authority.people.get(key_id, key_id)
    if person != key_id:
        return person
    writer = ledger.writers.get(key_id)
    if writer is not None:
        return writer.name
    ids = zip(authority.keys, authority.body.keys, strict=True)
    return next((listed.name for each, listed in ids if each == key_id), key_id)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Consent:
    """What the root wants for the act of a request, and how much of it there is."""

    role: Role
    threshold: int
    approved: tuple[str, ...]  # people who signed and count, for each of the others who may act
    could: tuple[str, ...]  # people who could still


def consent(ledger: Ledger, request: Request) -> Consent | None:
    """Who has approved a request and who could; None where the root wants no approval."""
    wanted = approval_of(request.terms.act, ledger.root.approvals)
    if wanted is None:
        return None
    authority, role = ledger.authority_at(len(ledger.records)), Role(wanted.role)
    besides = (request.terms.requester,)
    all_able = approvers(authority, None, role, tuple(authority.keys), besides)
    found = approvers(authority, None, role, request.signers(ledger.keys), besides)
    return Consent(
        role=role,
        threshold=wanted.threshold,
        approved=tuple(name_of(ledger, each) for each in sorted(found)),
        could=tuple(name_of(ledger, each) for each in sorted(all_able - found)),
    )


# --- carrying it ---


def carry(
    repository: Repository,
    request: Request,
    intent: Intent,
    carrier: Signer,
    *,
    tool: str,
    insist: Callable[[int], None] | None = None,
) -> int:
    """Store the warrant that carries a request, unless one does; gives its number.

    Args:
        repository: Where.
        request: With the signatures that people gave.
        intent: The act that is to rest on it; looked at again on the ledger that is extended.
        carrier: Signs the warrant; any listed key may.
        tool: Goes into the statement.
        insist: As for `Log.append`.

    Raises:
        VaultError: As `require_agreed` says.
    """
    require_agreed(repository.ledger, intent, request, now=repository.clock())
    keys: Mapping[str, VerifyKey] = {**brought_keys(intent.body), **repository.ledger.keys}
    proven = with_proven(request, keys)
    known = carried_by(repository.ledger, proven, keys)
    if known is not None:
        return known.seq
    require_carriable(proven)
    draft = Draft(
        type=StatementType.WARRANT, subject=[("request", request.id)], body=carrying(proven)
    )

    def checked(ledger: Ledger) -> Draft:
        require_agreed(ledger, intent, proven, now=repository.clock())
        return draft

    return repository.append(checked, [carrier], tool=tool, insist=insist).seq


def rest_on(
    repository: Repository, intent: Intent, agreed: Request | None, carrier: Signer, *, tool: str
) -> int | None:
    """The number of the warrant that an act names: stored now; None where it needs none.

    Raises:
        VaultError: As `carry`; or the root wants people to approve the act, and nothing says so.
    """
    if agreed is None:
        require_unasked(repository.ledger, intent.kind, intent.body)
        return None
    return carry(repository, agreed, intent, carrier, tool=tool)


def carried_by(ledger: Ledger, request: Request, keys: Mapping[str, VerifyKey]) -> Record | None:
    """The newest warrant that carries a request with all of its signers, if there is one."""
    signers = set(request.signers(keys))
    for record in reversed(list(ledger.valid(StatementType.WARRANT))):
        other = ledger.carried(record.seq)
        if other is not None and other.id == request.id and signers <= set(other.signers(keys)):
            return record
    return None


# --- what was asked ---


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RequestState:
    """A request that the ledger carries, and what has become of it."""

    seq: int  # of the warrant
    request: Request
    signers: tuple[str, ...]  # ids of listed keys
    used_by: int | None  # seq of the act
    problem: str  # why no act can rest on it any more; empty if one can


def request_states(ledger: Ledger, *, now: datetime) -> list[RequestState]:
    """Every request that a warrant carries, by the number of its newest warrant."""
    found: dict[str, RequestState] = {}
    for record in ledger.valid(StatementType.WARRANT):
        assert isinstance(record.body, WarrantBody)
        request = ledger.carried(record.seq)
        if request is not None:
            found.pop(str(request.id), None)
            found[str(request.id)] = RequestState(
                seq=record.seq,
                request=request,
                signers=request.signers(ledger.keys),
                used_by=ledger.used_by(request),
                problem=why_over(ledger, request, now),
            )
    return list(found.values())


def why_over(ledger: Ledger, request: Request, now: datetime) -> str:
    """Why no act can rest on a request any more; empty if one may."""
    terms, used = request.terms, ledger.used_by(request)
    if used is not None:
        return f"used by statement {used}"
    if terms.repository != ledger.repository_id:
        return "of another repository"
    if terms.root != ledger.root.version:
        return f"asked under root {terms.root}, in force is {ledger.root.version}"
    if now > terms.expires:
        return f"expired at {to_rfc3339(terms.expires)}"
    return ""


def holders_of(ledger: Ledger, key_ids: Sequence[str]) -> list[str]:
    """Names of those who hold some keys, each once, in their order."""
    return list(dict.fromkeys(name_of(ledger, key_id) for key_id in key_ids))
