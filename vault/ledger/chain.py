"""The ledger: a pure fold over link-valid statements.

See docs/design.md "The ledger", docs/format.md 2.

What links is decided by a frozen grammar, what counts by roles. A statement that links
but may not say what it says stays in the chain, is void, and is a finding: skipping it
would make two versions of this program disagree on who owns the next seq.

Adding signatures to a statement never makes it count for less, so whoever copies an
envelope can't take effect away from it.
"""

import bisect
import dataclasses
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from typing import Final

from vault.crypto.keys import VerifyKey
from vault.errors import ConfigError, DigestMismatchError, FormatError, SignatureError, VaultError
from vault.ledger.authority import Authority
from vault.ledger.envelope import (
    Envelope,
    Head,
    Statement,
    parse_envelope,
    parse_statement,
)
from vault.ledger.kinds import KINDS, parse_body, parse_writer_key
from vault.ledger.records import Record, Status, WriterInfo
from vault.ledger.statements import (
    ATTESTED,
    MAX_RANGES,
    EventBody,
    HoldBody,
    Role,
    RootBody,
    SnapshotBody,
    StatementType,
    VerificationBody,
    WriterBody,
)
from vault.model import (
    FORMAT_VERSION,
    Body,
    Code,
    Digest,
    Finding,
    Severity,
    body_to_json,
    to_rfc3339,
)
from vault.retention import MAX_SKEW, RUN_MARGIN

_MAX_SPAN: Final = 100 * 366 * 86_400  # seconds: more is for ever


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A statement found link-valid at the head; not yet linked."""

    envelope: Envelope
    statement: Statement
    digest: Digest
    signers: tuple[str, ...]  # ids of unique keys whose signatures hold, in their order


class Ledger:
    """All that a chain of statements says, from the pinned root on.

    Args:
        root_digest: Digest of statement 0. None takes statement 0 as it is, which is
            only good for showing what a store claims to be.
    """

    def __init__(self, root_digest: Digest | None) -> None:
        self.records: list[Record] = []
        self.findings: list[Finding] = []
        self.writers: dict[str, WriterInfo] = {}
        self._root_digest = root_digest
        self._repository_id = ""
        self._authority: Authority | None = None
        self._authorities: list[tuple[int, Authority]] = []  # with the seq that brought it
        self._listed: dict[str, VerifyKey] = {}
        self._datasets: dict[str, list[int]] = {}
        self._dates = _Earliest()
        self._longest: list[tuple[int, int]] = []  # seq of a root, and what it allows; seconds

    # --- what is in force ---

    @property
    def head(self) -> Head | None:
        """The last statement linked."""
        return self.records[-1].head if self.records else None

    @property
    def repository_id(self) -> str:
        """32 hex digits; empty before statement 0."""
        return self._repository_id

    @property
    def root(self) -> RootBody:
        """The root in force.

        Raises:
            SignatureError: No statement is linked yet.
        """
        return self._in_force().body

    @property
    def recipients(self) -> list[bytes]:
        """Raw public keys of the root in force, in its order."""
        return list(self._in_force().recipients)

    @property
    def keys(self) -> Mapping[str, VerifyKey]:
        """Every key listed in any role, by id."""
        return self._listed

    def authority_at(self, seq: int) -> Authority:
        """The root that judges statement ``seq``: the one in force just before it.

        Raises:
            SignatureError: No statement is linked yet.
        """
        self._in_force()
        at = bisect.bisect_left(self._authorities, seq, key=lambda each: each[0])
        return self._authorities[max(at - 1, 0)][1]

    def may_read(self) -> None:
        """Pass if the root lets this version of the program read.

        Raises:
            ConfigError: It asks for a newer one.
        """
        _require_version(self.root.min_reader, "read")

    def may_write(self) -> None:
        """Pass if nothing in the ledger keeps this version of the program from writing.

        Raises:
            ConfigError: The root asks for a newer one, or a critical statement is not understood.
        """
        _require_version(self.root.min_writer, "write to")
        for record in self.records:
            if record.status is Status.UNKNOWN and record.critical:
                raise ConfigError(
                    f"ledger statement {record.seq} is critical and not understood",
                    found=record.type,
                    hint="upgrade vault on this machine before it writes",
                )

    # --- the fold ---

    def check(self, envelope: bytes, seq: int) -> Candidate:
        """Tell whether an envelope is link-valid as the next statement; changes nothing.

        Args:
            envelope: As stored, untrusted.
            seq: The one in the object's name.

        Raises:
            FormatError: It breaks the frozen grammar.
            DigestMismatchError: It does not follow the head, or is not the pinned root.
            SignatureError: No listed key signed it.
        """
        parsed = parse_envelope(envelope)
        digest = parsed.digest
        if seq == 0 and self._root_digest not in (None, digest):
            raise DigestMismatchError(
                "ledger statement 0 is not the pinned root",
                expected=self._root_digest,
                found=digest,
                hint="is this the right repository?",
            )
        statement = _parse_sized(parsed)
        self._check_position(statement, seq)
        if seq == 0:
            return self._check_first(parsed, statement, digest)
        signers = parsed.signed_by(self._listed | _keys_of_new_root(statement))
        if self._listed.keys().isdisjoint(signers):
            raise SignatureError(f"ledger statement {seq} is not signed by a listed key")
        return Candidate(envelope=parsed, statement=statement, digest=digest, signers=signers)

    def link(
        self, envelope: bytes, *, version: str, modified: datetime, is_dated: bool = True
    ) -> Record:
        """Append the next statement.

        Args:
            envelope: As stored, untrusted.
            version: The store's id of the version read.
            modified: The store's time of it.
            is_dated: Whether that time can't lie before the statement was stored.

        Raises:
            IntegrityError: It is not link-valid, as `check` says; nothing changed.
        """
        candidate = self.check(envelope, len(self.records))
        statement = candidate.statement
        status, reason, key_id, body = self._judge(candidate)
        record = Record(
            seq=statement.seq,
            digest=candidate.digest,
            type=statement.type,
            status=status,
            reason=reason,
            body=body,
            key_id=key_id,
            time=statement.time,
            modified=modified,
            is_dated=is_dated,
            version=version,
            envelope=envelope,
            critical=statement.critical,
        )
        self._repository_id = self._repository_id or statement.repository
        self.relink(record)
        return record

    def relink(self, record: Record) -> None:
        """Append a statement as it was judged when it was linked before.

        It must be of this ledger's next seq, and from a place that is trusted as a signature is.
        """
        self.records.append(record)
        if record.is_dated:
            self._dates.add(record.seq, record.modified)
        if record.status is Status.VALID:
            self._take_effect(record)
        else:
            self._report(record)

    def require_role(self, key_ids: str | Collection[str], type: str, body: Body) -> None:  # noqa: A002  # the word of docs/format.md 2.3
        """Pass if a statement of that type and body, signed by these keys, would count now.

        Raises:
            SignatureError: It would not link or be void at head + 1.
            FormatError: The body is not one of that type.
        """
        signers = (key_ids,) if isinstance(key_ids, str) else tuple(key_ids)
        if self._listed.keys().isdisjoint(signers):
            raise SignatureError(f"{type} statement would not link: the key is not listed")
        parse_body(type, body_to_json(body))
        reason, _ = self._objection(type, body, signers)
        if reason:
            raise SignatureError(f"{type} statement would be void: {reason}")

    def digest_at(self, seq: int) -> Digest | None:
        """The digest of a linked statement, None beyond the head."""
        return self.records[seq].digest if 0 <= seq < len(self.records) else None

    def is_signed_at(self, envelope: bytes, seq: int) -> bool:
        """Whether a listed key signed this as statement ``seq`` of this repository."""
        try:
            parsed = parse_envelope(envelope)
            statement = _parse_sized(parsed)
        except VaultError:
            return False
        return (
            statement.seq == seq
            and statement.repository == self._repository_id
            and bool(parsed.signed_by(self._listed))
        )

    # --- questions ---

    def valid(self, *types: str) -> Iterator[Record]:
        """Records that count, of these types (all if none is given), by seq."""
        return (
            record
            for record in self.records
            if record.status is Status.VALID and (not types or record.type in types)
        )

    def snapshots(self, dataset: str | None = None) -> list[Record]:
        """Snapshots that count, by seq."""
        if dataset is None:
            return list(self.valid(StatementType.SNAPSHOT))
        listed = (self.records[seq] for seq in self._datasets.get(dataset, ()))
        return [record for record in listed if record.status is Status.VALID]

    # --- times (docs/format.md 2.6) ---

    def stored(self, record: Record) -> datetime:
        """When the store took a statement: the earliest time of it and its successors.

        Each of those names it, so none is older; and nobody can date one back.
        """
        return self._dates.since(record.seq) or record.modified

    def when(self, record: Record) -> datetime:
        """When a snapshot was taken, or an event ended: its claim, unless that lies in the future.

        Claims later than the store's time count as that: else one of 2099 would be the newest
        for good.
        """
        stored, claimed = self.stored(record), _claimed_time(record)
        return claimed if claimed <= _later(stored, MAX_SKEW) else stored

    def effective_until(self, record: Record) -> datetime:
        """Until when a snapshot is owed: its claim, as far as the root of that time allowed it.

        Raises:
            FormatError: The record is no snapshot.
        """
        claimed = _snapshot(record).until
        at = bisect.bisect_left(self._longest, (record.seq, 0))
        longest = timedelta(seconds=min(self._longest[at - 1][1], _MAX_SPAN))
        return min(claimed, _later(self.stored(record), longest + RUN_MARGIN + MAX_SKEW))

    def overclaims(self) -> list[Finding]:
        """Snapshots that claim a time which does not count."""
        found: list[Finding] = []
        for record in self.snapshots():
            body, subject = _snapshot(record), f"ledger {record.seq}"
            when, until = self.when(record), self.effective_until(record)
            if when != body.created:
                found.append(
                    Finding(
                        severity=Severity.WARNING,
                        subject=subject,
                        problem="snapshot claims to be taken after it was stored,"
                        f" and counts as taken at {to_rfc3339(when)}",
                        found=to_rfc3339(body.created),
                        code=Code.OVERCLAIM,
                    )
                )
            if until != body.until:
                found.append(
                    Finding(
                        severity=Severity.WARNING,
                        subject=subject,
                        problem="snapshot claims to be kept longer than the root allows,"
                        f" and is owed until {to_rfc3339(until)}",
                        found=to_rfc3339(body.until),
                        code=Code.OVERCLAIM,
                    )
                )
        return found

    def datasets(self) -> list[str]:
        """Names of datasets with a snapshot that counts, sorted."""
        return sorted(name for name in self._datasets if self.snapshots(name))

    def prunes(self) -> list[Record]:
        """Prune plans and results, by seq."""
        return list(self.valid(StatementType.PRUNE))

    def holds(self) -> dict[int, Record]:
        """Legal holds in force, by the seq of the held snapshot."""
        held: dict[int, Record] = {}
        for record in self.valid(StatementType.HOLD):
            assert isinstance(record.body, HoldBody)
            if record.body.action == "add":
                held[record.body.snapshot] = record
            else:
                held.pop(record.body.snapshot, None)
        return held

    def bad_packs(self, named: Callable[[Record], Iterable[str]] | None = None) -> dict[str, int]:
        """Packs whose latest word says that they are wrong: hex id to the seq of that word.

        Args:
            named: Those that a statement calls bad; by default the ones that it names itself.
        """
        bad: dict[str, int] = {}
        for record in self.valid(*ATTESTED):
            assert isinstance(record.body, EventBody | VerificationBody)
            wrong = record.body.bad if named is None else named(record)
            bad.update(dict.fromkeys(wrong, record.seq))
            for each in record.body.cleared:
                bad.pop(each, None)
        return bad

    def ranges(self, seqs: Collection[int]) -> tuple[tuple[int, int], ...]:
        """These snapshots as ranges of seqs that hold no other snapshot; the newest, if too many.

        Args:
            seqs: Of snapshots.
        """
        found: list[tuple[int, int]] = []
        is_open = False  # whether the last range may go on
        for record in self.records:
            if record.type != StatementType.SNAPSHOT:
                continue
            if record.seq in seqs:
                first = found.pop()[0] if is_open else record.seq
                found.append((first, record.seq))
            is_open = record.seq in seqs
        return tuple(found[-MAX_RANGES:])

    def policy(self) -> Record | None:
        """The statement that put the policy in force, if any."""
        return max(self.valid(StatementType.POLICY), key=lambda record: record.seq, default=None)

    def writer_for(self, record: Record) -> WriterInfo:
        """Who wrote a snapshot or heartbeat.

        Raises:
            SignatureError: No writer did.
        """
        writer = self.writers.get(record.key_id)
        if writer is None:
            raise SignatureError(f"ledger statement {record.seq} was not signed by a writer")
        return writer

    def domain_writers(self, domain: str) -> set[str]:
        """Ids of writer keys of a domain, revoked ones too, unless distrusted altogether.

        Which of their snapshots count is for `snapshots` to say.
        """
        return {
            key_id
            for key_id, writer in self.writers.items()
            if writer.domain is not None
            and writer.domain.name == domain
            and (writer.distrust_from is None or writer.distrust_from > writer.added)
        }

    # --- linking ---

    def _in_force(self) -> Authority:
        if self._authority is None:
            raise SignatureError("the ledger has no statement yet")
        return self._authority

    def _check_position(self, statement: Statement, seq: int) -> None:
        expected = len(self.records)
        if seq != expected or statement.seq != expected:
            raise DigestMismatchError(
                "ledger statement has another seq",
                expected=expected,
                found=statement.seq if statement.seq != expected else seq,
            )
        if seq and statement.repository != self._repository_id:
            raise DigestMismatchError(
                f"ledger statement {seq} belongs to another repository",
                expected=self._repository_id,
                found=statement.repository,
            )
        if self.head and statement.prev != self.head.digest:
            raise DigestMismatchError(
                f"ledger statement {seq} does not follow statement {seq - 1}",
                expected=self.head.digest,
                found=statement.prev,
            )

    def _check_first(self, parsed: Envelope, statement: Statement, digest: Digest) -> Candidate:
        """Statement 0 is believed for its digest, and must still satisfy its own threshold."""
        if (statement.type, statement.type_version) != (StatementType.ROOT, 1) or statement.flaw:
            raise FormatError(
                "ledger statement 0 is not a root this program understands",
                expected="root v1",
                found=statement.flaw or f"{statement.type} v{statement.type_version}",
            )
        body = parse_body(StatementType.ROOT, statement.body)
        assert isinstance(body, RootBody)
        authority = Authority.of(body)
        signers = parsed.signed_by(authority.keys)
        if reason := authority.shortfall(Role.ROOT, signers):
            raise SignatureError(f"ledger statement 0: {reason}")
        return Candidate(envelope=parsed, statement=statement, digest=digest, signers=signers)

    def _judge(self, candidate: Candidate) -> tuple[Status, str, str, Body | None]:
        """Status, reason, the key it counts for, body."""
        statement, signers = candidate.statement, candidate.signers
        fallback = next((key for key in signers if key in self._listed), signers[0])
        if statement.type not in KINDS or statement.type_version != 1:
            reason = f"type {statement.type} v{statement.type_version} is not understood"
            return Status.UNKNOWN, reason, fallback, None
        if statement.flaw:
            return Status.VOID, statement.flaw, fallback, None
        try:
            body = parse_body(statement.type, statement.body)
        except VaultError as error:
            return Status.VOID, str(error), fallback, None
        if statement.seq == 0:
            return Status.VALID, "", fallback, body
        reason, key_id = self._objection(statement.type, body, signers)
        return (Status.VOID if reason else Status.VALID), reason, key_id or fallback, body

    def _objection(self, kind: str, body: Body, signers: Collection[str]) -> tuple[str, str]:
        """Why a well-formed statement would be void (empty if not), and the key it counts for."""
        role = KINDS[kind].role
        if role is Role.WRITER:
            return self._writers_objection(body, signers)
        reason = self._in_force().shortfall(role, signers)
        if not reason and isinstance(body, RootBody):
            reason = self._root_objection(body, signers)
        if not reason and isinstance(body, WriterBody):
            reason = self._enrolment_objection(body)
        if not reason and isinstance(body, EventBody | VerificationBody):
            reason = self._event_objection(body)
        return reason, self._in_force().first(role, signers)

    def _root_objection(self, body: RootBody, signers: Collection[str]) -> str:
        if body.version != self.root.version + 1:
            return f"root version must be {self.root.version + 1}, found {body.version}"
        reason = Authority.of(body).shortfall(Role.ROOT, signers)
        return f"by the new root: {reason}" if reason else ""

    def _enrolment_objection(self, body: WriterBody) -> str:
        key_id = parse_writer_key(body).id
        known = self.writers.get(key_id)
        if body.action == "add":
            if known or key_id in self._in_force().keys:
                return "the key is listed already or was revoked"
            return self._rotation_objection(body) if body.replaces else ""
        if known is None:
            return f"{body.action}s a key that is no writer's"
        if body.action == "limit":
            return "" if known.revoked is None else "the key is revoked"
        if known.revoked is not None and not _distrusts_more(known, body):
            return "the key is revoked already"
        return ""

    def _rotation_objection(self, body: WriterBody) -> str:
        """A key is replaced by one of the same host in the same domain, sealed to it already."""
        old = self.writers.get(body.replaces)
        if old is None or old.revoked is not None:
            return "replaces a key that is no live writer's"
        if (old.name, old.recipient, _domain_name(old)) == (
            body.name,
            body.recipient,
            _domain_name(body),
        ):
            return ""
        return "replaces a key of another name, domain or recipient"

    def _event_objection(self, body: EventBody | VerificationBody) -> str:
        """Nobody has read a statement that does not exist yet."""
        seq = body.through if isinstance(body, VerificationBody) else body.snapshot
        if seq is None or seq < len(self.records):
            return ""
        return f"it is about statement {seq}, which does not precede it"

    def _writers_objection(self, body: Body, signers: Collection[str]) -> tuple[str, str]:
        """One writer without objection is enough; else the first one's objection."""
        first = ("the key has not the role writer", "")
        for key_id in signers:
            writer = self.writers.get(key_id)
            if writer is None or writer.revoked is not None:
                continue
            reason = _snapshot_objection(writer, body)
            if not reason:
                return "", key_id
            first = first if first[1] else (reason, key_id)
        return first

    # --- effects ---

    def _take_effect(self, record: Record) -> None:
        match record.body:
            case RootBody() as body:
                self._authority = Authority.of(body)
                self._longest.append((record.seq, body.parameters.max_retention))
                self._authorities.append((record.seq, self._authority))
                self._relist()
            case WriterBody(action="add") as body:
                self._enrol(body, record.seq)
            case WriterBody(action="limit") as body:
                self._limit(body)
            case WriterBody() as body:
                self._revoke(body, record.seq)
            case SnapshotBody() as body:
                self._datasets.setdefault(body.dataset, []).append(record.seq)
            case _:
                pass

    def _enrol(self, body: WriterBody, seq: int) -> None:
        key = parse_writer_key(body)
        if body.replaces:
            old = self.writers[body.replaces]
            self.writers[body.replaces] = dataclasses.replace(old, revoked=seq)
        self.writers[key.id] = WriterInfo(
            name=body.name,
            key=key,
            recipient=body.recipient,
            datasets=body.datasets,
            domain=body.domain,
            added=seq,
            replaces=body.replaces,
        )
        self._relist()

    def _limit(self, body: WriterBody) -> None:
        """Other patterns from here on; what was published stays."""
        key_id = parse_writer_key(body).id
        self.writers[key_id] = dataclasses.replace(self.writers[key_id], datasets=body.datasets)

    def _revoke(self, body: WriterBody, seq: int) -> None:
        key_id = parse_writer_key(body).id
        writer = self.writers[key_id]
        self.writers[key_id] = dataclasses.replace(
            writer,
            revoked=seq if writer.revoked is None else writer.revoked,
            distrust_from=body.distrust_from,
        )
        self._relist()
        if body.distrust_from is not None:
            self._distrust(key_id, body.distrust_from, seq)

    def _distrust(self, key_id: str, start: int, by: int) -> None:
        """Void what a stolen key linked; only writers' statements, so nothing else changes."""
        for seq in range(start, by):
            record = self.records[seq]
            if record.key_id == key_id and record.status is Status.VALID and _is_writers(record):
                self.records[seq] = dataclasses.replace(
                    record,
                    status=Status.VOID,
                    reason=f"its writer is distrusted by statement {by}",
                    distrusted_by=by,
                )
                self._report(self.records[seq])

    def _relist(self) -> None:
        active = {key_id: w.key for key_id, w in self.writers.items() if w.revoked is None}
        self._listed = active | dict(self._in_force().keys)

    def _report(self, record: Record) -> None:
        known = record.status is Status.VOID
        void = Code.VOID if record.distrusted_by is None else Code.DISTRUSTED
        self.findings.append(
            Finding(
                severity=Severity.ERROR
                if known and record.distrusted_by is None
                else Severity.WARNING,
                code=void if known else Code.NOT_UNDERSTOOD,
                subject=f"ledger {record.seq}",
                problem=f"{record.type} statement is void: {record.reason}"
                if known
                else f"statement is not understood: {record.reason}",
                found=f"key {record.key_id}",
            )
        )


class _Earliest:
    """The earliest of the times from a number on, for every number; times come in their order."""

    def __init__(self) -> None:
        self._numbers: list[int] = []  # ascending; none has a later one with an earlier time
        self._times: list[datetime] = []

    def add(self, number: int, moment: datetime) -> None:
        """The time of the next number."""
        while self._times and self._times[-1] >= moment:
            self._times.pop()
            self._numbers.pop()
        self._numbers.append(number)
        self._times.append(moment)

    def since(self, number: int) -> datetime | None:
        """The earliest time of this number and all after it; None if they have none."""
        at = bisect.bisect_left(self._numbers, number)
        return self._times[at] if at < len(self._times) else None


def _claimed_time(record: Record) -> datetime:
    """The time that a statement is about; its signer says so.

    Raises:
        FormatError: It is about none.
    """
    match record.body:
        case SnapshotBody() as body:
            return body.created
        case EventBody() | VerificationBody() as body:
            return body.finished
        case _:
            raise FormatError(f"ledger {record.seq} is about no time", found=record.type)


def _snapshot(record: Record) -> SnapshotBody:
    if not isinstance(record.body, SnapshotBody):
        raise FormatError(f"ledger {record.seq} is not a snapshot", found=record.type)
    return record.body


def _later(moment: datetime, span: timedelta) -> datetime:
    try:
        return moment + span
    except OverflowError:  # a store may state any time
        return datetime.max.replace(tzinfo=UTC)


def _parse_sized(parsed: Envelope) -> Statement:
    """The statement, if envelope and PAE are within the limits of its type."""
    statement = parse_statement(parsed.payload)
    statement.check_size(parsed)
    return statement


def _keys_of_new_root(statement: Statement) -> dict[str, VerifyKey]:
    """Keys that a root update brings along: they must sign it too."""
    if (statement.type, statement.type_version) != (StatementType.ROOT, 1):
        return {}
    try:
        body = parse_body(StatementType.ROOT, statement.body)
    except VaultError:
        return {}
    assert isinstance(body, RootBody)
    return dict(Authority.of(body).keys)


def _snapshot_objection(writer: WriterInfo, body: Body) -> str:
    if not isinstance(body, SnapshotBody):
        return ""
    if writer.domain is None:
        return f"writer {writer.name} has no domain object"
    if not any(fnmatchcase(body.dataset, pattern) for pattern in writer.datasets):
        return f"dataset {body.dataset} is outside the patterns of writer {writer.name}"
    return ""


def _domain_name(host: WriterInfo | WriterBody) -> str:
    return host.domain.name if host.domain is not None else ""


def _distrusts_more(known: WriterInfo, body: WriterBody) -> bool:
    """A theft may be found out after the key was retired."""
    if body.distrust_from is None:
        return False
    return known.distrust_from is None or body.distrust_from < known.distrust_from


def _is_writers(record: Record) -> bool:
    return record.type in KINDS and KINDS[record.type].role is Role.WRITER


def _require_version(needed: int, what: str) -> None:
    if needed > FORMAT_VERSION:
        raise ConfigError(
            f"this version of vault is too old to {what} the repository",
            expected=f"format {needed}",
            found=f"format {FORMAT_VERSION}",
            hint="upgrade vault on this machine",
        )
