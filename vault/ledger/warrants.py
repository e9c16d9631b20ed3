"""Requests that people sign, and whether an act may rest on one (docs/format.md 2.9). No I/O.

A request has no number, so signatures survive a ledger that moves on. A statement `warrant`
carries it, and the act names that statement. What a warrant carries is judged then, never before.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final

from vault.clock import from_rfc3339, to_rfc3339
from vault.crypto.keys import Signer, VerifyKey
from vault.encoding import b64decode_strict, b64encode, dumps, loads_canonical
from vault.errors import ConfigError, FormatError
from vault.ledger.envelope import (
    PAYLOAD_TYPE,
    STATEMENT_TYPE,
    Envelope,
    Head,
    Signature,
    build_statement,
    pae,
)
from vault.ledger.statements import (
    MAX_SIGNATURES,
    StatementType,
    WarrantBody,
    WarrantSignature,
)
from vault.ledger.trust import parse_trust
from vault.model import Digest

REQUEST_TYPE: Final = "urn:vault:request:v1"
_HEX_64: Final = re.compile(r"[0-9a-f]{64}")
_HEX_32: Final = re.compile(r"[0-9a-f]{32}")
_TEXTS: Final = ("act", "summary", "reason", "ticket")
_MEMBERS: Final = frozenset({"_type", "predicateType", "subject", "predicate"})
_PREDICATE: Final = frozenset(
    {"repository", "root", "floor", "requester", "not_before", "expires", "nonce", *_TEXTS}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What people sign: one act, its values by their digest, and for how long."""

    repository: str  # 32 hex digits
    root: int  # version of the root under which it was asked
    floor: Head  # a statement that the ledger must contain
    act: str  # of `Act`; a newer program may know more
    summary: str  # what is lost, in words and numbers
    requester: str  # id of the key that asks, hex; it must sign too
    reason: str
    ticket: str
    not_before: datetime
    expires: datetime
    nonce: str  # 32 hex digits
    bound: Digest  # of the canonical JSON of the values that the act must carry

    @property
    def span(self) -> timedelta:
        """For how long it may be used."""
        return self.expires - self.not_before


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """Terms as signed; nothing vouches for the signatures yet."""

    terms: Terms
    envelope: Envelope

    @property
    def id(self) -> Digest:
        """What is remembered of a request that was used: SHA-256 of its payload."""
        return Digest.of(self.envelope.payload)

    @property
    def pae(self) -> bytes:
        """What the signatures are over."""
        return self.envelope.pae

    def signers(self, keys: Mapping[str, VerifyKey]) -> tuple[str, ...]:
        """Which of these keys signed it: their ids, each once."""
        return self.envelope.signed_by(keys)


# --- as bytes ---


def encode_request_terms(terms: Terms) -> bytes:
    """The payload that people sign.

    Raises:
        ConfigError: A text holds what canonical JSON does not.
    """
    payload = dumps(
        {
            "_type": STATEMENT_TYPE,
            "predicateType": REQUEST_TYPE,
            "subject": [{"name": "bound", "digest": {"sha256": str(terms.bound)}}],
            "predicate": {**terms_members(terms), "nonce": terms.nonce},
        }
    )
    try:
        parse_request_terms(payload)
    except FormatError as error:
        raise ConfigError("the request would not be readable", found=error) from error
    return payload


def terms_members(terms: Terms) -> dict[str, Any]:
    """What people sign, by the names of docs/format.md 2.9; all but the nonce."""
    return {
        "repository": terms.repository,
        "root": terms.root,
        "floor": str(terms.floor),
        "act": terms.act,
        "summary": terms.summary,
        "requester": terms.requester,
        "reason": terms.reason,
        "ticket": terms.ticket,
        "not_before": to_rfc3339(terms.not_before),
        "expires": to_rfc3339(terms.expires),
    }


def parse_request_terms(payload: bytes) -> Terms:
    """Read what people signed; names that are not known are passed over.

    Raises:
        FormatError: It is no request of docs/format.md 2.9.
    """
    fields = _mapping(loads_canonical(payload))
    if (fields.get("_type"), fields.get("predicateType")) != (STATEMENT_TYPE, REQUEST_TYPE):
        raise FormatError("not a request", found=repr(fields.get("predicateType"))[:80])
    said = _mapping(fields.get("predicate"))
    root = said.get("root")
    if type(root) is not int or root < 1:
        raise FormatError("request names no root", found=repr(root)[:40])
    texts = {name: _text(said, name) for name in _TEXTS}
    return Terms(
        repository=_matching(said, "repository", _HEX_32),
        root=root,
        floor=_floor(_text(said, "floor")),
        requester=_matching(said, "requester", _HEX_64),
        not_before=from_rfc3339(_text(said, "not_before")),
        expires=from_rfc3339(_text(said, "expires")),
        nonce=_matching(said, "nonce", _HEX_32),
        bound=_bound(fields.get("subject")),
        **texts,
    )


def unknown_members(payload: bytes) -> list[str]:
    """Names in a request that this program does not know: a person should not sign them.

    Raises:
        FormatError: It is no request.
    """
    fields = _mapping(loads_canonical(payload))
    return sorted((fields.keys() - _MEMBERS) | (_mapping(fields["predicate"]).keys() - _PREDICATE))


def _floor(text: str) -> Head:
    try:
        return parse_trust(text)
    except ConfigError as error:
        raise FormatError("request names no floor", found=repr(text[:90])) from error


def _bound(subject: Any) -> Digest:
    match subject:
        case [{"name": "bound", "digest": {"sha256": str(text)}}]:
            return Digest.parse(text)
        case _:
            raise FormatError("request binds nothing", found=repr(subject)[:80])


def _mapping(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise FormatError("request is malformed", found=type(value).__name__)
    return value


def _text(fields: Mapping[str, Any], name: str) -> str:
    value = fields.get(name)
    if not isinstance(value, str):
        raise FormatError(f"{name} of a request must be a text", found=type(value).__name__)
    return value


def _matching(fields: Mapping[str, Any], name: str, pattern: re.Pattern[str]) -> str:
    text = _text(fields, name)
    if not pattern.fullmatch(text):
        raise FormatError(f"{name} of a request is malformed", found=repr(text[:80]))
    return text


# --- signing and carrying ---


def signed_request(payload: bytes, signatures: Sequence[Signature] = ()) -> Request:
    """A request with the signatures that it has so far.

    Raises:
        FormatError: It is no request.
    """
    encoded = pae(PAYLOAD_TYPE, payload)
    envelope = Envelope(
        payload=payload, pae=encoded, signatures=tuple(signatures), size=len(payload)
    )
    return Request(terms=parse_request_terms(payload), envelope=envelope)


def carried_request(body: WarrantBody) -> Request:
    """The request that a warrant carries.

    Raises:
        FormatError: It carries none.
    """
    signatures = [Signature(keyid=s.keyid, sig=b64decode_strict(s.sig)) for s in body.signatures]
    return signed_request(b64decode_strict(body.payload), signatures)


def carrying(request: Request) -> WarrantBody:
    """The statement body that carries a request.

    Raises:
        ConfigError: It has no signature, or more than a statement holds.
    """
    count = len(request.envelope.signatures)
    if not 1 <= count <= MAX_SIGNATURES:
        raise ConfigError("a warrant carries 1 to 16 signatures", found=count)
    return WarrantBody(
        payload=b64encode(request.envelope.payload),
        signatures=tuple(
            WarrantSignature(keyid=each.keyid, sig=b64encode(each.sig))
            for each in request.envelope.signatures
        ),
    )


def add_signature(request: Request, key: Signer) -> Request:
    """The request with one more person's signature; one that the key gave before is replaced."""
    kept = [each for each in request.envelope.signatures if each.keyid != key.public.id]
    mine = Signature(keyid=key.public.id, sig=key.sign(request.envelope.pae))
    return signed_request(request.envelope.payload, [*kept, mine])


def merge_signatures(first: Request, second: Request) -> Request:
    """The signatures of both; equal ones count once. Whether they hold is asked with the keys.

    Raises:
        ConfigError: They are different requests, or have too many signatures.
    """
    if first.envelope.payload != second.envelope.payload:
        raise ConfigError("these are two different requests", expected=first.id, found=second.id)
    both = dict.fromkeys((*first.envelope.signatures, *second.envelope.signatures))
    if len(both) > MAX_SIGNATURES:
        raise ConfigError("a request holds at most 16 signatures", found=len(both))
    return signed_request(first.envelope.payload, tuple(both))


def with_proven(request: Request, keys: Mapping[str, VerifyKey]) -> Request:
    """The request with one signature for each of these keys that signed it, and no other."""
    kept = []
    for key_id in request.signers(keys):
        holds = (s for s in request.envelope.signatures if keys[key_id].verify(s.sig, request.pae))
        kept.append(Signature(keyid=key_id, sig=next(holds).sig))
    return signed_request(request.envelope.payload, kept)


def require_carriable(request: Request) -> None:
    """Pass if a statement can carry the request with the signatures that it has.

    Raises:
        ConfigError: The statement would be too large.
    """
    far = Head(seq=10**15 - 1, digest=request.id, version="-" * 66)
    try:
        build_statement(
            type=StatementType.WARRANT,
            repository=request.terms.repository,
            seq=far.seq + 1,
            prev=far,
            time=request.terms.expires,
            tool="vault 0.00.0",
            subject=[("request", request.id)],
            body=carrying(request),
            by=[request.terms.requester],
        )
    except ConfigError as error:
        raise ConfigError(
            "a statement can't carry this request with its signatures",
            found=error.found,
            expected=error.expected,
            hint="shorten its summary, reason or ticket, or let fewer people sign",
        ) from error


# --- whether it fits ---


@dataclass(frozen=True, slots=True, kw_only=True)
class ActAtHand:
    """The act that rests on a warrant, as far as the warrant must agree with it."""

    repository: str
    act: str | None  # of `Act`; None where its type has none
    bound: Digest | None  # of the values in its body
    time: datetime  # claimed
    root: int  # version of the root in force before it
    max_age: int  # seconds that a request for it may be good for
    floor: Digest | None  # of the statement in this ledger at the floor's number, before the act
    used: int | None  # seq of the valid act that used the request before


class Misfit(StrEnum):
    """Why a request does not fit an act."""

    REPOSITORY = "repository"
    ACT = "act"
    PLAN = "plan"
    FLOOR = "floor"
    ROOT = "root"
    EARLY = "early"
    EXPIRED = "expired"
    LONG = "long"
    REQUESTER = "requester"
    USED = "used"
    NO_REQUEST = "no request"


def unfit(terms: Terms, wanted: ActAtHand, signers: Sequence[str]) -> tuple[Misfit, str] | None:
    """Why a request does not fit an act: the first reason, also in words; None if it fits.

    Args:
        terms: What the request says.
        wanted: By the act.
        signers: Ids of the keys that may sign and did.
    """
    is_other = wanted.act is None or terms.act != wanted.act
    is_long = terms.span > timedelta(seconds=wanted.max_age)
    reasons = (
        (terms.repository != wanted.repository, Misfit.REPOSITORY, "of another repository"),
        (is_other, Misfit.ACT, f"for the act {terms.act[:40]}"),
        (terms.bound != wanted.bound, Misfit.PLAN, "for another plan, of other values"),
        (
            terms.floor.digest != wanted.floor,
            Misfit.FLOOR,
            f"its floor {terms.floor.seq} is not in this ledger",
        ),
        (
            terms.root != wanted.root,
            Misfit.ROOT,
            f"asked under root {terms.root}, in force is {wanted.root}",
        ),
        (
            wanted.time < terms.not_before,
            Misfit.EARLY,
            f"not good before {to_rfc3339(terms.not_before)}",
        ),
        (wanted.time > terms.expires, Misfit.EXPIRED, f"expired at {to_rfc3339(terms.expires)}"),
        (is_long, Misfit.LONG, f"good for longer than {wanted.max_age} seconds"),
        (terms.requester not in signers, Misfit.REQUESTER, "its requester did not sign"),
        (wanted.used is not None, Misfit.USED, f"used by statement {wanted.used}"),
    )
    return next(((kind, why) for is_so, kind, why in reasons if is_so), None)
