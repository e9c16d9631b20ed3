"""Attestations: signed records that an event took place (design.md 2 and 4).

An attestation is public: it carries digests, counts and times, never file names.
It is stored under ``evidence/`` and cited by a statement; where the store is
read-only it stays a file beside the target until `push` records it.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

import msgspec

from vault.bodies import parse_body
from vault.crypto import SigningKey
from vault.encoding import dumps, loads_strict
from vault.envelope import STATEMENT_TYPE, Envelope, parse_envelope, seal_envelope
from vault.errors import ConfigError, FormatError, SignatureError
from vault.ledger import Ledger, Record
from vault.model import (
    Body,
    Digest,
    EventBody,
    VerificationBody,
    body_from_json,
    body_to_json,
    to_rfc3339,
)
from vault.repository import MAX_EVIDENCE, Draft, Repository

PREDICATE_TYPE: Final = "urn:vault:attestation:v1"
KINDS: Final = frozenset({"restore", "drill", "verification"})


class Attestation(Body, frozen=True, kw_only=True):
    """What the restorer signs."""

    repository: str  # id, hex
    kind: str  # one of KINDS
    verdict: str  # "passed", "partial", "failed"
    snapshot: int | None = None  # seq
    manifest: str = ""  # digest of that statement
    head: str  # SEQ:DIGEST of the ledger as it was read
    started: str
    finished: str
    tool: str
    claims: dict[str, Any] = msgspec.field(
        default_factory=dict
    )  # what else its statement's body says (docs/format.md 2.3)
    details: dict[str, Any]  # counts, digests, words; no file names


def sign(attestation: Attestation, key: SigningKey) -> bytes:
    """The envelope: DSSE over an in-toto statement (docs/format.md 2.4)."""
    about = attestation.manifest or str(Digest.of(bytes.fromhex(attestation.repository)))
    name = "manifest" if attestation.manifest else "repository"
    subject = {"name": name, "digest": {"sha256": about}}
    payload = dumps(
        {
            "_type": STATEMENT_TYPE,
            "subject": [subject],
            "predicateType": PREDICATE_TYPE,
            "predicate": body_to_json(attestation),
        }
    )
    return seal_envelope(payload, [key], limit=MAX_EVIDENCE // 2)


def open_attestation(data: bytes, ledger: Ledger) -> Attestation:
    """What an envelope says, if a restorer of this repository signed it.

    Raises:
        FormatError: Not an attestation.
        SignatureError: No restorer listed in the ledger signed it.
        ConfigError: It is of another repository.
    """
    if len(data) > MAX_EVIDENCE:
        raise FormatError("attestation is too large", expected=f"at most {MAX_EVIDENCE} bytes")
    envelope = parse_envelope(data, limit=MAX_EVIDENCE)
    statement = loads_strict(envelope.payload)
    if not isinstance(statement, dict) or statement.get("predicateType") != PREDICATE_TYPE:
        raise FormatError("not an attestation", expected=PREDICATE_TYPE)
    attestation = body_from_json(statement.get("predicate"), Attestation)
    if attestation.kind not in KINDS:
        raise FormatError("attestation is of an unknown kind", found=attestation.kind[:40])
    if attestation.repository != ledger.repository_id:
        raise ConfigError(
            "attestation is of another repository",
            expected=ledger.repository_id,
            found=attestation.repository,
        )
    _require_restorer(attestation, envelope, ledger)
    return attestation


def _require_restorer(attestation: Attestation, envelope: Envelope, ledger: Ledger) -> None:
    signers = [
        key_id
        for key_id, key in ledger.keys.items()
        if any(key.verify(signature.sig, envelope.pae) for signature in envelope.signatures)
    ]
    if not signers:
        raise SignatureError("attestation is not signed by a key of this repository")
    ledger.require_role(signers, attestation.kind, body_of(attestation, Digest(bytes(32))))


def body_of(attestation: Attestation, digest: Digest) -> EventBody | VerificationBody:
    """The body of the statement that records an attestation of that digest.

    Raises:
        VaultError: It has not the shape of its kind.
    """
    fields: dict[str, Any] = {
        **attestation.claims,
        "verdict": attestation.verdict,
        "started": attestation.started,
        "finished": attestation.finished,
        "attestation": str(digest),
    }
    if attestation.kind != "verification":
        fields["snapshot"] = attestation.snapshot
    body = parse_body(attestation.kind, fields)
    assert isinstance(body, EventBody | VerificationBody)
    return body


def record(repository: Repository, data: bytes, key: SigningKey, *, tool: str) -> Record:
    """Store an attestation and append the statement that cites it.

    Raises:
        IntegrityError: It is not a restorer's attestation.
        VaultError: The store refused.
    """
    attestation = open_attestation(data, repository.ledger)
    digest = repository.put_evidence(data)
    body = body_of(attestation, digest)
    draft = Draft(type=attestation.kind, subject=[(f"evidence/{digest}", digest)], body=body)
    return repository.append(lambda _: draft, [key], tool=tool)


def is_recorded(repository: Repository, data: bytes) -> Record | None:
    """The statement that cites this attestation, if one does."""
    digest = str(Digest.of(data))
    for item in repository.ledger.valid(*KINDS):
        assert isinstance(item.body, EventBody | VerificationBody)
        if item.body.attestation == digest:
            return item
    return None


def describe(
    repository: Repository,
    *,
    kind: str,
    verdict: str,
    snapshot: Record | None,
    started: datetime,
    tool: str,
    details: Mapping[str, Any],
    claims: Mapping[str, Any] | None = None,
) -> Attestation:
    """An attestation of something that has just ended.

    Args:
        repository: Read up to the head that is named.
        kind: One of `KINDS`.
        verdict: Of `EventBody`.
        snapshot: What it is about, if it is one.
        started: When it began.
        tool: Name and version of the program.
        details: Counts, digests, words; no file names.
        claims: What the body of its statement says beside verdict, snapshot and times.
    """
    return Attestation(
        repository=repository.ledger.repository_id,
        kind=kind,
        verdict=verdict,
        snapshot=snapshot.seq if snapshot else None,
        manifest=str(snapshot.digest) if snapshot else "",
        head=str(repository.head),
        started=to_rfc3339(started),
        finished=to_rfc3339(repository.clock()),
        tool=tool,
        claims=dict(claims or {}),
        details=dict(details),
    )
