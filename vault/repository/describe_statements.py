"""The ledger for people: who did what, when and by which clock, how it ended, what came of it.

`vault.ledger.chain` decides what effect a statement has; this module gathers the facts about one
statement at a time. The decisions are pure; `look_up` reads the evidence that a statement cites.
"""

import dataclasses
from bisect import bisect_left, bisect_right
from collections.abc import Collection, Sequence
from datetime import datetime
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Any

from vault.clock import MAX_CLAIM_SKEW
from vault.crypto.keys import VerifyKey
from vault.encoding import b64decode_strict
from vault.errors import ConfigError, IntegrityError, VaultError
from vault.format.inventory import parse_plan
from vault.ledger.chain import Ledger
from vault.ledger.kinds import parse_writer_key
from vault.ledger.records import Record, Status
from vault.ledger.statements import (
    EventBody,
    HoldBody,
    PolicyBody,
    PruneBody,
    PublicKey,
    RootBody,
    SnapshotBody,
    StatementType,
    VerificationBody,
    WriterBody,
)
from vault.model import Digest
from vault.repository.attestations import Attestation, objections, open_attestation
from vault.repository.repository import Repository


class Effect(StrEnum):
    """The effect that a statement has now."""

    VALID = "valid"
    VOID = "void"
    DISTRUSTED = "distrusted"  # valid at first; a later statement voids it
    UNKNOWN = "not understood"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SignedBy:
    """The key that signed a statement, as it was listed then."""

    name: str  # of the host or the root's key; empty if neither lists it
    key: str  # id, hex
    roles: tuple[str, ...]
    revoked: int | None = None  # seq of its revocation, if it is a host's key


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class StatementView:
    """The facts about one statement that can be shown without reading what it cites."""

    record: Record
    effect: Effect
    signers: tuple[SignedBy, ...]  # the one that it counts for comes first
    stored: datetime  # by the store's clock
    is_skewed: bool  # its own time is far from the store's
    dooms: bool  # a prune plan, void or not, whose objects writers do not build on
    datasets: tuple[str, ...]  # those concerned, sorted; for an enrolment, those that match


class Chronicle:
    """The content of a ledger, statement by statement. Pure.

    Args:
        ledger: Read up to its head.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._listed: dict[int, dict[str, PublicKey]] = {}  # keys by id, of a root by its object
        self._dooming = {record.seq for record in ledger.plans()}
        self._taken: dict[str, list[int]] = {}  # by dataset: seqs of its snapshots, void ones too
        for record in ledger.records:
            if isinstance(record.body, SnapshotBody):
                self._taken.setdefault(record.body.dataset, []).append(record.seq)

    def view(self, record: Record) -> StatementView:
        """The facts about a statement."""
        stored = self._ledger.stored(record)
        return StatementView(
            record=record,
            effect=_effect(record),
            signers=tuple(
                self._signer(record, key_id)
                for key_id in dict.fromkeys((record.key_id, *record.by))
            ),
            stored=stored,
            is_skewed=record.time is not None and abs(record.time - stored) > MAX_CLAIM_SKEW,
            dooms=record.seq in self._dooming,
            datasets=tuple(name for name in sorted(self._taken) if self._concerns(record, name)),
        )

    def _signer(self, record: Record, key_id: str) -> SignedBy:
        """As listed by the root that judged the statement, by the one it brings, or enrolled."""
        roots = [self._ledger.authority_at(record.seq).body]
        if isinstance(record.body, RootBody):
            roots.append(record.body)
        for root in roots:
            if id(root) not in self._listed:
                self._listed[id(root)] = _by_id(root)
            listed = self._listed[id(root)].get(key_id)
            if listed is not None:
                return SignedBy(name=listed.name, key=key_id, roles=tuple(map(str, listed.roles)))
        writer = self._ledger.writers.get(key_id)
        if writer is None:
            return SignedBy(name="", key=key_id, roles=())
        return SignedBy(name=writer.name, key=key_id, roles=("writer",), revoked=writer.revoked)

    def choose(
        self,
        *,
        types: Collection[str] = (),
        dataset: str | None = None,
        since: datetime | None = None,
        first: int = 0,
    ) -> list[Record]:
        """The statements that meet all conditions, by seq.

        Args:
            types: The types wanted; all if empty.
            dataset: The dataset that they must concern.
            since: The time from which on the store took them.
            first: The lowest seq.

        Raises:
            ConfigError: The ledger has no statement ``first``, or no snapshot of that dataset.
        """
        if first:
            statement_at(self._ledger, first)
        if dataset is not None and dataset not in self._taken:
            known = ", ".join(sorted(self._taken)[:10]) or "none"
            raise ConfigError(
                f"there is no snapshot of dataset {dataset[:80]!r}", hint=f"datasets here: {known}"
            )
        return [
            record
            for record in self._ledger.records[first:]
            if (not types or record.type in types)
            and (since is None or self._ledger.stored(record) >= since)
            and (dataset is None or self._concerns(record, dataset))
        ]

    def _concerns(self, record: Record, dataset: str) -> bool:
        match record.body:
            case SnapshotBody() as body:
                concerns = body.dataset == dataset
            case WriterBody() as body:
                patterns = body.datasets or self._patterns_of(body)
                concerns = any(fnmatchcase(dataset, pattern) for pattern in patterns)
            case VerificationBody() as body:
                taken = self._taken[dataset]
                concerns = any(
                    bisect_left(taken, first) < bisect_right(taken, min(last, record.seq))
                    for first, last in body.snapshots
                )
            case EventBody() as body:
                concerns = body.snapshot in self._taken[dataset]
            case HoldBody() as body:
                concerns = body.dataset == dataset or body.snapshot in self._taken[dataset]
            case PolicyBody() as body:
                concerns = body.action == "retire" and body.name == dataset
            case _:
                concerns = False
        return concerns

    def _patterns_of(self, body: WriterBody) -> Sequence[str]:
        """The patterns of the key that a revocation is about."""
        writer = self._ledger.writers.get(parse_writer_key(body).id)
        return writer.datasets if writer is not None else ()


def statement_at(ledger: Ledger, seq: int) -> Record:
    """The statement of that number.

    Raises:
        ConfigError: There is none.
    """
    if 0 <= seq < len(ledger.records):
        return ledger.records[seq]
    raise ConfigError(
        f"the ledger has no statement {seq}",
        found=f"statements 0 to {len(ledger.records) - 1}",
        hint="'vault log' lists them",
    )


def _effect(record: Record) -> Effect:
    if record.distrusted_by is not None:
        return Effect.DISTRUSTED
    match record.status:
        case Status.VALID:
            return Effect.VALID
        case Status.VOID:
            return Effect.VOID
        case Status.UNKNOWN:
            return Effect.UNKNOWN


def _by_id(root: RootBody) -> dict[str, PublicKey]:
    """The keys of a root by their ids."""
    return {VerifyKey.from_der(b64decode_strict(each.public)).id: each for each in root.keys}


# --- what came of it ---


def later_about(ledger: Ledger, record: Record) -> list[Record]:
    """Later statements about this one, void ones too, by seq. Pure."""
    return [each for each in ledger.records[record.seq + 1 :] if _is_about(each, record)]


def _is_about(later: Record, record: Record) -> bool:
    if later.seq == record.distrusted_by:
        return True
    match record.body:
        case SnapshotBody():
            is_about = _covers_snapshot(later, record.seq)
        case WriterBody() as body:
            is_about = isinstance(later.body, WriterBody) and _names_key(later.body, body)
        case PruneBody() as body:
            is_about = isinstance(later.body, PruneBody) and later.body.plan == body.plan
        case HoldBody():
            is_about = isinstance(later.body, HoldBody) and later.body.hold == record.seq
        case PolicyBody():
            is_about = isinstance(later.body, PolicyBody) and later.body.previous == record.seq
        case RootBody():
            is_about = later.type == StatementType.ROOT
        case _:
            is_about = False
    return is_about


def _covers_snapshot(later: Record, seq: int) -> bool:
    match later.body:
        case VerificationBody() as body:
            return any(first <= seq <= last for first, last in body.snapshots)
        case EventBody() | HoldBody() as body:
            return body.snapshot == seq
        case _:
            return False


def _names_key(later: WriterBody, body: WriterBody) -> bool:
    return later.public == body.public or later.replaces == parse_writer_key(body).id


# --- what it cites ---


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CitedEvidence:
    """The evidence that a statement cites, opened and compared with it."""

    digest: str
    problem: str = ""  # why it does not support the statement; empty if it does
    attestation: Attestation | None = None  # if it is one of a restore, drill or verification
    objects: int | None = None  # number of objects in a prune plan

    @property
    def details(self) -> dict[str, Any]:
        """The details that the restorer attested."""
        return dict(self.attestation.details) if self.attestation is not None else {}


def cited_digest(record: Record) -> str:
    """The digest of the evidence that a statement cites; empty if it cites none."""
    match record.body:
        case EventBody() | VerificationBody() as body:
            return body.attestation
        case PruneBody() as body:
            return body.plan
        case PolicyBody() as body:
            return body.sha256
        case _:
            return ""


def look_up(repository: Repository, record: Record) -> CitedEvidence | None:
    """Open what a statement cites; None if it cites nothing.

    Raises:
        StorageError: The store can't be asked.
    """
    digest = cited_digest(record)
    if not digest:
        return None
    try:
        data = repository.read_evidence(Digest.parse(digest))
        if isinstance(record.body, PruneBody):
            return CitedEvidence(digest=digest, objects=sum(1 for _ in parse_plan(data)))
        if isinstance(record.body, PolicyBody):
            return CitedEvidence(digest=digest)
        problems = objections(data, record, repository.ledger)
        if problems:
            return CitedEvidence(digest=digest, problem=str(problems[0]))
        attestation = open_attestation(data, repository.ledger, seq=record.seq)
    except IntegrityError as error:
        return CitedEvidence(digest=digest, problem=str(error))
    return CitedEvidence(digest=digest, attestation=attestation)


def doomed_needs(repository: Repository, record: Record) -> int | None:
    """How many needs of a snapshot prune plans name; None if that is unknown."""
    doomed = repository.plans.doomed()
    if not doomed:
        return 0
    try:
        found = repository.inventory(record)
    except VaultError:
        return None
    return sum((ref.name, ref.version) in doomed for ref in (*found.bases, *found.objects))
