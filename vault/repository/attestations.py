"""Attestations: signed records that an event took place (docs/design.md "Words").

An attestation is public: it carries digests, counts and times, never file names.
It is stored under ``evidence/`` and cited by a statement; where the store can't be
written it is kept as a file of this user until `push` records it.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import msgspec

from vault.clock import to_rfc3339
from vault.crypto.keys import Signer
from vault.encoding import dumps, loads_strict
from vault.errors import (
    ConfigError,
    FormatError,
    IntegrityError,
    LocalError,
    RollbackError,
    SignatureError,
    VaultError,
)
from vault.ledger.chain import Ledger
from vault.ledger.envelope import STATEMENT_TYPE, Envelope, parse_envelope, seal_envelope
from vault.ledger.kinds import KINDS, parse_body
from vault.ledger.records import Record
from vault.ledger.statements import (
    ATTESTED,
    EventBody,
    SnapshotBody,
    StatementType,
    Verdict,
    VerificationBody,
)
from vault.ledger.trust import parse_trust
from vault.machine import durable
from vault.machine.privacy import make_private
from vault.model import Body, Digest, body_from_json, body_to_json
from vault.repository.append_statements import Draft
from vault.repository.hosts import published_by
from vault.repository.objects import MAX_EVIDENCE
from vault.repository.repository import Repository
from vault.storage.names import evidence_name

PREDICATE_TYPE: Final = "urn:vault:attestation:v1"


class Attestation(Body, frozen=True, kw_only=True):
    """What the restorer signs."""

    repository: str  # id, hex
    kind: str  # of `ATTESTED`
    verdict: str  # of `EventBody`
    snapshot: int | None = None  # seq
    manifest: str = ""  # digest of that statement
    head: str  # SEQ:DIGEST of the ledger as it was read
    started: str
    finished: str
    tool: str
    # other fields of its statement's body (docs/format.md 2.3)
    claims: dict[str, Any] = msgspec.field(default_factory=dict)
    details: dict[str, Any]  # counts, digests, words; no file names


def sign(attestation: Attestation, key: Signer) -> bytes:
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


def open_attestation(data: bytes, ledger: Ledger, *, seq: int | None = None) -> Attestation:
    """The attestation in an envelope, if a restorer of this repository signed it.

    Args:
        data: The envelope; untrusted.
        ledger: The ledger, which says who may sign.
        seq: That of the statement that cites it; the signer must have been listed then. None:
            that of the statement appended next.

    Raises:
        FormatError: Not an attestation, or one that no statement could cite.
        SignatureError: No restorer that was listed then signed it.
        ConfigError: It is of another repository.
    """
    if len(data) > MAX_EVIDENCE:
        raise FormatError("attestation is too large", expected=f"at most {MAX_EVIDENCE} bytes")
    envelope = parse_envelope(data, limit=MAX_EVIDENCE)
    statement = loads_strict(envelope.payload)
    if not isinstance(statement, dict) or statement.get("predicateType") != PREDICATE_TYPE:
        raise FormatError("not an attestation", expected=PREDICATE_TYPE)
    attestation = body_from_json(statement.get("predicate"), Attestation)
    if attestation.kind not in ATTESTED:
        raise FormatError("attestation is of an unknown kind", found=attestation.kind[:40])
    if attestation.repository != ledger.repository_id:
        raise ConfigError(
            "attestation is of another repository",
            expected=ledger.repository_id,
            found=attestation.repository,
        )
    body_of(attestation, Digest(bytes(32)))
    _require_signer(attestation.kind, envelope, ledger, len(ledger.records) if seq is None else seq)
    return attestation


def _require_signer(kind: str, envelope: Envelope, ledger: Ledger, seq: int) -> None:
    """Judge the signer by the root in force at statement ``seq``, as keys come and go."""
    roles = KINDS[kind].roles
    authority = ledger.authority_at(seq)
    signers = envelope.signed_by(authority.keys)
    if not any(authority.first(role, signers) for role in roles):
        wanted = " or ".join(role.value for role in roles)
        raise SignatureError(
            f"attestation is not signed by a {wanted} who was listed before statement {seq}"
        )


# --- an attestation and the statement that cites it ---


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Contradiction:
    """A difference between a statement and the attestation that it cites."""

    what: str  # a field of the body, "attestation", "kind", "manifest" or "head"
    statement: str  # the value in the statement or the ledger
    attestation: str

    def __str__(self) -> str:
        """One line, for people."""
        return f"{self.what}: {self.statement} by the statement, {self.attestation} as attested"


def objections(data: bytes, record: Record, ledger: Ledger) -> list[Contradiction]:
    """Why the attestation that an event cites does not support it; empty if it does. Pure.

    It must be an attestation of this repository by a restorer who was listed at the event's
    seq. It must have the kind of the event, agree with every field of its body, and name a
    head that the ledger had then and the manifest of the snapshot.

    Args:
        data: The bytes stored under the digest that the event cites; untrusted.
        record: A valid restore, drill or verification.
        ledger: The ledger that the record is part of.
    """
    assert isinstance(record.body, EventBody | VerificationBody)
    digest = Digest.of(data)
    if str(digest) != record.body.attestation:
        return [
            Contradiction(what="digest", statement=record.body.attestation, attestation=f"{digest}")
        ]
    try:
        attestation = open_attestation(data, ledger, seq=record.seq)
        if attestation.kind != record.type:
            return [Contradiction(what="kind", statement=record.type, attestation=attestation.kind)]
        said = body_of(attestation, digest)
    except VaultError as error:
        return [
            Contradiction(what="attestation", statement=record.type, attestation=f"{error}"[:300])
        ]
    return [
        *_unlike(record.body, said),
        *_head_objection(attestation, said, record, ledger),
        *_manifest_objection(attestation, said, ledger),
    ]


def _unlike(stated: Body, said: Body) -> Iterator[Contradiction]:
    """Fields of two bodies of the same shape that differ."""
    for name, value in body_to_json(stated).items():
        other = body_to_json(said)[name]
        if value != other:
            yield Contradiction(what=name, statement=_shown(value), attestation=_shown(other))


def _shown(value: Any) -> str:
    return dumps(value).decode()[:200]


def _head_objection(
    attestation: Attestation, said: EventBody | VerificationBody, record: Record, ledger: Ledger
) -> Iterator[Contradiction]:
    """The head that was read must come before the statement in this ledger."""
    try:
        head = parse_trust(attestation.head)
    except VaultError:
        yield Contradiction(what="head", statement="SEQ:DIGEST", attestation=attestation.head[:100])
        return
    known = ledger.digest_at(head.seq) if head.seq < record.seq else None
    if known != head.digest:
        held = f"{head.seq}:{known}" if known else f"{record.seq - 1} is the statement before"
        yield Contradiction(what="head", statement=held, attestation=f"{head}")
    if isinstance(said, VerificationBody) and said.through != head.seq:
        yield Contradiction(what="through", statement=f"{said.through}", attestation=f"{head}")


def _manifest_objection(
    attestation: Attestation, said: EventBody | VerificationBody, ledger: Ledger
) -> Iterator[Contradiction]:
    """The manifest must be that of the attested snapshot; empty if there is none."""
    seq = attestation.snapshot
    if isinstance(said, VerificationBody) and seq is not None and said.snapshots != ((seq, seq),):
        yield Contradiction(what="snapshots", statement=f"{said.snapshots}", attestation=f"{seq}")
    digest = ledger.digest_at(seq) if seq is not None else None
    wanted = str(digest) if digest is not None else ""
    if attestation.manifest != wanted:
        yield Contradiction(
            what="manifest", statement=wanted or "none", attestation=attestation.manifest[:80]
        )


def body_of(attestation: Attestation, digest: Digest) -> EventBody | VerificationBody:
    """The body of the statement that records an attestation of that digest.

    Raises:
        VaultError: Its fields do not fit its kind.
    """
    fields: dict[str, Any] = {
        **attestation.claims,
        "verdict": attestation.verdict,
        "started": attestation.started,
        "finished": attestation.finished,
        "attestation": str(digest),
    }
    if attestation.kind != StatementType.VERIFICATION:
        fields["snapshot"] = attestation.snapshot
    body = parse_body(attestation.kind, fields)
    assert isinstance(body, EventBody | VerificationBody)
    return body


def record_attestation(repository: Repository, data: bytes, key: Signer, *, tool: str) -> Record:
    """Store an attestation and append the statement that cites it.

    Raises:
        IntegrityError: ``data`` is not a restorer's attestation.
        VaultError: The store refused.
    """
    attestation = open_attestation(data, repository.ledger)
    body = body_of(attestation, Digest.of(data))
    warrant = _warrant_of(attestation)
    now = repository.clock().replace(microsecond=0)
    repository.ledger.require_role(key.public.id, attestation.kind, body, warrant=warrant, time=now)
    digest = repository.put_evidence(data)
    subject = [(evidence_name(digest), digest)]
    draft = Draft(type=attestation.kind, subject=subject, body=body, warrant=warrant)
    return repository.append(lambda _: draft, [key], tool=tool)


def _warrant_of(attestation: Attestation) -> int | None:
    """The warrant that a restore over live data rests on, which its attestation names."""
    named = attestation.details.get("warrant")
    return named if type(named) is int and named >= 0 else None


def is_recorded(repository: Repository, data: bytes) -> Record | None:
    """The statement that cites this attestation, if one does."""
    digest = str(Digest.of(data))
    for item in repository.ledger.valid(*ATTESTED):
        assert isinstance(item.body, EventBody | VerificationBody)
        if item.body.attestation == digest:
            return item
    return None


def verdict_of(error: VaultError) -> str:
    """The verdict of a restore or drill that ended with an error.

    It is "failed" if stored or restored bytes are not what was signed. Any other error (a full
    disk, a store that did not answer, another history than the one remembered) says nothing
    about the snapshot and must not count against it.
    """
    is_about_it = isinstance(error, IntegrityError) and not isinstance(error, RollbackError)
    return Verdict.FAILED if is_about_it else Verdict.INCONCLUSIVE


def attestation_of(
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
        repository: Read up to the head that it names.
        kind: One of `ATTESTED`.
        verdict: As in `EventBody`.
        snapshot: The snapshot concerned, if it is only one.
        started: When the event began.
        tool: Name and version of the program.
        details: Counts, digests, words; no file names. Who published the snapshot is added.
        claims: Fields of its statement's body other than verdict, snapshot and times.
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
        details={**_published(repository.ledger, snapshot), **details},
    )


def _published(ledger: Ledger, snapshot: Record | None) -> dict[str, Any]:
    """Whose key signed the snapshot that is attested, if it is one."""
    if snapshot is None or not isinstance(snapshot.body, SnapshotBody):
        return {}
    who = published_by(ledger, snapshot)
    return {"publisher": {"host": who.host, "key": who.key_id}}


def keep(state: Path, data: bytes) -> Path:
    """Keep an attestation that can't be recorded now as a file of this user, durably.

    Args:
        state: The state directory of this user.
        data: The attestation.

    Raises:
        LocalError: It can't be written.
    """
    path = state / "attestations" / f"{Digest.of(data)}.json"
    try:
        make_private(path.parent)
        durable.replace(path, data)
    except OSError as error:
        raise LocalError(f"can't keep the attestation as {path}", found=error.strerror) from error
    return path
