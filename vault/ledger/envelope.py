"""Signed statements as bytes: DSSE envelopes and the statement grammar (docs/format.md 2.1, 2.2).

Envelope and payload are canonical JSON: whatever is spelled otherwise is no statement. A
statement's identity is still the SHA-256 of its PAE, never of its envelope: the second form of
an ECDSA signature changes the envelope of what is the same statement. Who signs is signed, in
``by``: a signature that is added or taken away breaks the link. This grammar decides who owns
a seq.
"""

import hashlib
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar

from vault.clock import from_rfc3339, to_rfc3339
from vault.crypto.keys import Signer, VerifyKey
from vault.encoding import b64decode_strict, b64encode, dumps, loads_canonical
from vault.errors import ConfigError, FormatError
from vault.ledger.statements import MAX_SIGNATURES, StatementType
from vault.model import Body, Digest, body_to_json

_T = TypeVar("_T")

PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
MAX_PAE = 4096  # bytes; what a KMS signs in one call
MAX_ROOT_PAE = 65_536  # bytes

_ENVELOPE = frozenset({"payload", "payloadType", "signatures"})
_SIGNATURE = frozenset({"keyid", "sig"})
_PREDICATE = re.compile(r"urn:vault:([a-z][a-z0-9-]{0,62}):v([1-9][0-9]{0,8})")
_REPOSITORY = re.compile(r"[0-9a-f]{32}")
_KEY_ID = re.compile(r"[0-9a-f]{64}")
_SIGNED_BY_ONE = frozenset({StatementType.SNAPSHOT, StatementType.HEARTBEAT})


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """A position in the ledger; prints as SEQ:DIGEST."""

    seq: int
    digest: Digest  # SHA-256 of the statement's PAE
    version: str = ""  # the store's id of the version read; a hint

    def __str__(self) -> str:
        """The form that ``--trust`` and ``--accept-head`` take."""
        return f"{self.seq}:{self.digest}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """One signature; the key id is unauthenticated and only a hint."""

    keyid: str
    sig: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """A parsed DSSE envelope; nothing in it is verified yet."""

    payload: bytes
    pae: bytes  # what the signatures are over
    signatures: tuple[Signature, ...]
    size: int  # bytes as stored

    @property
    def digest(self) -> Digest:
        """The identity of what is signed."""
        return Digest(hashlib.sha256(self.pae).digest())

    def is_signed_by(self, by: Sequence[str], keys: Mapping[str, VerifyKey]) -> bool:
        """Whether it has exactly these keys' signatures, each in its place.

        Args:
            by: Ids of keys, in their order.
            keys: Those that may have signed, by their ids.
        """
        return len(by) == len(self.signatures) and all(
            key_id in keys and keys[key_id].verify(signature.sig, self.pae)
            for key_id, signature in zip(by, self.signatures, strict=True)
        )

    def signed_by(self, keys: Mapping[str, VerifyKey]) -> tuple[str, ...]:
        """Which of the keys signed what is no statement and names none: their ids, each once.

        In the order of the signatures. The key that a signature names is tried first, then all
        others: nothing vouches for the name (docs/format.md 2.1).

        Args:
            keys: By their ids.
        """
        found: dict[str, None] = {}
        for signature in self.signatures:
            for key_id in _hinted_first(keys, signature.keyid):
                if key_id not in found and keys[key_id].verify(signature.sig, self.pae):
                    found[key_id] = None
                    break
        return tuple(found)


def _hinted_first(keys: Mapping[str, VerifyKey], hint: str) -> Iterator[str]:
    if hint in keys:
        yield hint
    yield from (key_id for key_id in keys if key_id != hint)


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """A parsed statement.

    Names of the frozen grammar are as they must be. What is wrong with the others is
    told by ``flaw``: it makes the statement void, but never changes who owns the seq.
    """

    repository: str  # 32 hex digits
    seq: int
    prev: Digest | None  # None exactly at seq 0
    prev_version: str  # reading hint; copied buckets have others
    type: str
    type_version: int  # 0 where the predicate type is not one of ours
    by: tuple[str, ...]  # ids of the keys that sign it, ascending
    critical: bool
    warrant: int | None = None  # seq of the warrant it names
    subject: tuple[tuple[str, Digest], ...] = ()
    time: datetime | None = None  # claimed
    tool: str = ""
    body: dict[str, Any] = field(default_factory=dict)
    flaw: str = ""

    @property
    def max_pae(self) -> int:
        """Bytes that its PAE may have."""
        return _max_pae(self.type)

    def check_size(self, envelope: Envelope) -> None:
        """Pass if its envelope keeps the limits of its type.

        Raises:
            FormatError: It does not.
        """
        if len(envelope.pae) > self.max_pae or envelope.size > max_envelope(self.max_pae):
            raise FormatError(
                f"{self.type} statement is too large",
                expected=self.max_pae,
                found=len(envelope.pae),
            )


def max_envelope(pae_limit: int) -> int:
    """Bytes that the envelope of a PAE with that limit may have."""
    return 2 * pae_limit + 8192


def pae(payload_type: str, payload: bytes) -> bytes:
    """DSSE's pre-authentication encoding (DSSE 1.0)."""
    kind = payload_type.encode("utf-8")
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)


# --- envelopes ---


def parse_envelope(data: bytes, *, limit: int = MAX_ROOT_PAE) -> Envelope:
    """Parse without verifying.

    Args:
        data: The envelope as stored.
        limit: Most bytes that the PAE may have.

    Raises:
        FormatError: Not an envelope of docs/format.md 2.1.
    """
    if len(data) > max_envelope(limit):
        raise FormatError("envelope is too large", expected=max_envelope(limit), found=len(data))
    fields = _members(loads_canonical(data), "envelope", _ENVELOPE)
    if fields.get("payloadType") != PAYLOAD_TYPE:
        raise FormatError(
            "envelope has another payload type",
            expected=PAYLOAD_TYPE,
            found=repr(fields.get("payloadType"))[:80],
        )
    payload = b64decode_strict(_text(fields.get("payload"), "payload"))
    encoded = pae(PAYLOAD_TYPE, payload)
    if len(encoded) > limit:
        raise FormatError("signed bytes exceed their limit", expected=limit, found=len(encoded))
    return Envelope(
        payload=payload,
        pae=encoded,
        signatures=_parse_signatures(fields.get("signatures")),
        size=len(data),
    )


def _parse_signatures(value: Any) -> tuple[Signature, ...]:
    if not isinstance(value, list) or not 1 <= len(value) <= MAX_SIGNATURES:
        raise FormatError("envelope must have 1 to 16 signatures")
    return tuple(_parse_signature(_members(item, "signature", _SIGNATURE)) for item in value)


def _parse_signature(fields: dict[str, Any]) -> Signature:
    return Signature(
        keyid=_text(fields.get("keyid"), "keyid"),
        sig=b64decode_strict(_text(fields.get("sig"), "sig")),
    )


def seal_envelope(payload: bytes, keys: Sequence[Signer], *, limit: int | None = None) -> bytes:
    """Sign a payload with every key, in the order of their ids, as ``by`` lists them.

    Args:
        payload: What `build_statement` made for these keys.
        keys: Each signs once; a key given twice counts once.
        limit: Most bytes that the PAE may have; by default that of the statement's type.

    Raises:
        ConfigError: Too large, no key, or more than 16.
        FormatError: No limit was given and the payload is not a statement.
    """
    message = pae(PAYLOAD_TYPE, payload)
    _refuse_oversize(message, parse_statement(payload).max_pae if limit is None else limit)
    unique = {key.public.id: key for key in keys}
    return _encode_envelope(payload, [_sign(unique[key_id], message) for key_id in sorted(unique)])


def _sign(key: Signer, message: bytes) -> Signature:
    return Signature(keyid=key.public.id, sig=key.sign(message))


def _encode_envelope(payload: bytes, signatures: Sequence[Signature]) -> bytes:
    if not 1 <= len(signatures) <= MAX_SIGNATURES:
        raise ConfigError(
            "statement must have 1 to 16 signatures", expected="1 to 16", found=len(signatures)
        )
    return dumps(
        {
            "payload": b64encode(payload),
            "payloadType": PAYLOAD_TYPE,
            "signatures": [{"keyid": s.keyid, "sig": b64encode(s.sig)} for s in signatures],
        }
    )


# --- statements ---


def build_statement(
    *,
    type: str,  # noqa: A002  # the word of docs/format.md 2.3
    repository: str,
    seq: int,
    prev: Head | None,
    time: datetime,
    tool: str,
    subject: Sequence[tuple[str, Digest]],
    body: Body,
    by: Collection[str],
    critical: bool = False,
    warrant: int | None = None,
) -> bytes:
    """The payload of a statement, ready to be sealed.

    Args:
        type: As `StatementType` has it.
        repository: 32 hex digits.
        seq: Its number.
        prev: The statement before it; None exactly at seq 0.
        time: The signer's clock.
        tool: The program.
        subject: Names and digests of what it is about.
        body: Of its type.
        by: Ids of the keys that will sign it.
        critical: Who does not understand it must not write; counts from the root's threshold.
        warrant: Seq of the warrant that it rests on.

    Raises:
        ConfigError: Its PAE exceeds the limit of its type, or a text is not UTF-8.
    """
    statement: dict[str, Any] = {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": name, "digest": {"sha256": str(sha)}} for name, sha in subject],
        "predicateType": f"urn:vault:{type}:v1",
        "predicate": {
            "repository": repository,
            "seq": seq,
            "prev": {"sha256": str(prev.digest), "version": prev.version} if prev else None,
            "time": to_rfc3339(time),
            "tool": tool,
            "by": sorted(set(by)),
            "critical": critical,
            "body": body_to_json(body),
        },
    }
    if warrant is not None:
        statement["predicate"]["warrant"] = {"seq": warrant}
    try:
        payload = dumps(statement)
    except ValueError as error:
        raise ConfigError(f"{type} statement can't be written as JSON", found=str(error)) from error
    _refuse_oversize(pae(PAYLOAD_TYPE, payload), _max_pae(type))
    _check_built(payload, type)
    return payload


def _check_built(payload: bytes, kind: str) -> None:
    """A writer reads what it wrote before anyone signs it."""
    try:
        flaw = parse_statement(payload).flaw
    except FormatError as error:
        flaw = str(error)
    if flaw:
        raise ConfigError(f"{kind} statement would not be readable", found=flaw)


def _max_pae(kind: str) -> int:
    return MAX_ROOT_PAE if kind == StatementType.ROOT else MAX_PAE


def _refuse_oversize(message: bytes, limit: int) -> None:
    if len(message) > limit:
        raise ConfigError(
            "statement is too large to sign", expected=f"at most {limit} bytes", found=len(message)
        )


def parse_statement(payload: bytes) -> Statement:
    """Parse the payload of an envelope.

    Raises:
        FormatError: It breaks the frozen grammar: canonical JSON, ``_type``,
            ``repository``, ``seq``, ``prev.sha256`` or ``by``.
    """
    fields = _mapping(loads_canonical(payload), "statement")
    if fields.get("_type") != STATEMENT_TYPE:
        raise FormatError("statement has another _type", expected=STATEMENT_TYPE)
    predicate = _mapping(fields.get("predicate"), "predicate")
    seq = _parse_seq(predicate.get("seq"))
    prev, prev_version = _parse_prev(predicate.get("prev"), seq)
    kind, version = _parse_predicate_type(fields.get("predicateType"))
    details = _Details()
    return Statement(
        repository=_parse_repository(predicate.get("repository")),
        seq=seq,
        prev=prev,
        prev_version=prev_version,
        type=kind,
        type_version=version,
        by=_parse_by(predicate.get("by"), kind),
        critical=predicate.get("critical", False) is not False,
        warrant=details.take(lambda: _parse_warrant(predicate.get("warrant")), None),
        subject=details.take(lambda: _parse_subject(fields.get("subject")), ()),
        time=details.take(lambda: from_rfc3339(_text(predicate.get("time"), "time")), None),
        tool=details.take(lambda: _text(predicate.get("tool"), "tool"), ""),
        body=details.take(lambda: _mapping(predicate.get("body"), "body"), {}),
        flaw=details.flaw,
    )


class _Details:
    """Collects the first flaw outside the frozen grammar."""

    def __init__(self) -> None:
        self.flaw = ""

    def take(self, parse: Callable[[], _T], fallback: _T) -> _T:
        try:
            return parse()
        except FormatError as error:
            self.flaw = self.flaw or str(error)
            return fallback


def _parse_seq(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 10**16:  # a bool is an int to isinstance
        raise FormatError("statement has no seq", found=repr(value)[:40])
    return value


def _parse_repository(value: Any) -> str:
    text = _text(value, "repository")
    if not _REPOSITORY.fullmatch(text):
        raise FormatError("repository id must be 32 hex digits", found=repr(text[:80]))
    return text


def _parse_prev(value: Any, seq: int) -> tuple[Digest | None, str]:
    if value is None and seq == 0:
        return None, ""
    if value is None or seq == 0:
        raise FormatError("prev must be null at seq 0 and only there", found=f"seq {seq}")
    fields = _mapping(value, "prev")
    version = fields.get("version", "")
    digest = Digest.parse(_text(fields.get("sha256"), "prev.sha256"))
    return digest, version if isinstance(version, str) else ""


def _parse_by(value: Any, kind: str) -> tuple[str, ...]:
    """Ids of the signers; a host signs alone."""
    most = 1 if kind in _SIGNED_BY_ONE else MAX_SIGNATURES
    if not isinstance(value, list) or not 1 <= len(value) <= most:
        raise FormatError(f"by must list 1 to {most} keys")
    if not all(isinstance(key_id, str) and _KEY_ID.fullmatch(key_id) for key_id in value):
        raise FormatError("by must list ids of 64 hex digits")
    if value != sorted(set(value)):
        raise FormatError("by must be in order, each key once")
    return tuple(value)


def _parse_warrant(value: Any) -> int | None:
    """The seq of the warrant that a statement names; None if it names none."""
    return None if value is None else _parse_seq(_mapping(value, "warrant").get("seq"))


def _parse_predicate_type(value: Any) -> tuple[str, int]:
    """Type and version; what is not ours is unknown, not malformed."""
    match = _PREDICATE.fullmatch(value) if isinstance(value, str) else None
    return (match[1], int(match[2])) if match else (repr(value)[:80], 0)


def _parse_subject(value: Any) -> tuple[tuple[str, Digest], ...]:
    if not isinstance(value, list):
        raise FormatError("subject must be a list")
    return tuple(_parse_subject_item(_mapping(item, "subject")) for item in value)


def _parse_subject_item(fields: dict[str, Any]) -> tuple[str, Digest]:
    digest = _mapping(fields.get("digest"), "subject digest")
    return (
        _text(fields.get("name"), "subject name"),
        Digest.parse(_text(digest.get("sha256"), "subject sha256")),
    )


def _mapping(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise FormatError(f"{what} must be a JSON object", found=type(value).__name__)
    return value


def _members(value: Any, what: str, names: frozenset[str]) -> dict[str, Any]:
    """A JSON object of exactly these names: nothing may ride along unsigned."""
    fields = _mapping(value, what)
    if fields.keys() != names:
        raise FormatError(
            f"{what} has other members", expected=sorted(names), found=str(sorted(fields))[:80]
        )
    return fields


def _text(value: Any, what: str) -> str:
    if not isinstance(value, str):
        raise FormatError(f"{what} must be a text", found=type(value).__name__)
    return value
