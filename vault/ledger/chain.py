"""The ledger: a pure fold over link-valid statements.

See docs/design.md "The ledger", docs/format.md 2.

`linking` decides what links, by a frozen grammar; `judging` what counts, by roles; `keyring` has
the keys and `times` the times. This module puts them together and answers questions.
"""

import bisect
import dataclasses
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from datetime import datetime
from typing import Final

from vault.crypto.keys import VerifyKey
from vault.encoding import b64decode_strict
from vault.errors import ConfigError, SignatureError
from vault.ledger.authority import Authority, distrusted_keys
from vault.ledger.distrust import OF_ROLES, Distrust, Spoken, is_valid_but_for_distrust
from vault.ledger.envelope import Head, Statement
from vault.ledger.judging import Judgement, judge
from vault.ledger.keyring import Keyring
from vault.ledger.kinds import parse_body, parse_writer_key
from vault.ledger.linking import UPGRADE, Candidate, Position, check_link, find_signed
from vault.ledger.past import Past
from vault.ledger.records import DistrustedSigner, Record, Status, WriterInfo
from vault.ledger.remarks import remarks
from vault.ledger.statements import (
    ATTESTED,
    EventBody,
    HoldBody,
    PolicyBody,
    PruneBody,
    Role,
    RootBody,
    SnapshotBody,
    StatementType,
    VerificationBody,
    WriterBody,
)
from vault.ledger.times import Times
from vault.ledger.warrants import Request
from vault.model import FORMAT_VERSION, Body, Digest, Finding, body_to_json

_AGREE: Final = "'vault approve request' asks people for their signatures"
_GOVERNING: Final = {StatementType.ROOT, StatementType.WRITER}  # can always be appended


class Ledger:
    """All that a chain of statements says, from the pinned root on.

    Args:
        root_digest: Digest of statement 0. None takes statement 0 as it is, which is
            only good for showing what a store claims to be.
    """

    def __init__(self, root_digest: Digest | None) -> None:
        self.records: list[Record] = []
        self.left_beyond: Mapping[str, int] = {}  # of distrusted keys, in the store, not linked
        self._root_digest = root_digest
        self._repository_id = ""
        self._keyring = Keyring()
        self._times = Times()
        self._distrust = Distrust()
        self._past = Past(self.records, self.holds)
        self._datasets: dict[str, list[int]] = {}
        self._holds: list[int] = []  # seqs of holds and releases, void ones too
        self._too_new: int | None = None  # seq of a statement about keys that is not understood

    # --- what is in force ---

    @property
    def head(self) -> Head | None:
        """The last statement linked."""
        return self.records[-1].head if self.records else None

    @property
    def pinned(self) -> Digest | None:
        """The digest that statement 0 must have; None where any will do."""
        return self._root_digest

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
        return self._keyring.authority.body

    @property
    def recipients(self) -> list[bytes]:
        """Raw public keys of the root in force, in its order."""
        return list(self._keyring.authority.recipients)

    @property
    def keys(self) -> Mapping[str, VerifyKey]:
        """Every key whose statements link now, by id."""
        return self._keyring.listed

    @property
    def writers(self) -> Mapping[str, WriterInfo]:
        """Every writer that was enrolled, by key id."""
        return self._keyring.writers

    def authority_at(self, seq: int) -> Authority:
        """The root that judges statement ``seq``: the one in force just before it.

        Raises:
            SignatureError: No statement is linked yet.
        """
        return self._keyring.authority_at(seq)

    def may_read(self) -> None:
        """Pass if the root lets this version of the program read.

        Raises:
            ConfigError: It asks for a newer one, or a statement about keys is not understood.
        """
        _require_version(self.root.min_reader, "read")
        if self._too_new is not None:
            raise _not_understood(self.records[self._too_new])

    def may_write(self, kind: str) -> None:
        """Pass if nothing in the ledger keeps this version of the program from writing.

        Holders of root and enroller keys can always write, so that they can end what stops hosts.

        Args:
            kind: The type of what is to be appended.

        Raises:
            ConfigError: The root asks for a newer one, or a statement is not understood that
                changes who may sign, or that the root's keys marked critical.
        """
        _require_version(self.root.min_writer, "write to")
        if kind != StatementType.ROOT:
            self.may_read()
        if kind in _GOVERNING:
            return
        for record in self.records:
            if record.status is Status.UNKNOWN and record.critical:
                raise ConfigError(
                    f"ledger statement {record.seq} is critical and not understood",
                    found=record.type,
                    hint=f"{UPGRADE} before it writes",
                )

    # --- the fold ---

    def check(self, envelope: bytes) -> Candidate:
        """Tell whether an envelope is link-valid as the next statement; changes nothing.

        Raises:
            IntegrityError: It is not, as `vault.ledger.linking.check_link` says.
        """
        head = self.head
        position = Position(
            seq=len(self.records),
            prev=head.digest if head else None,
            repository=self._repository_id,
            root=self._root_digest,
        )
        return check_link(envelope, position, self._keyring)

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
            ConfigError: It is a root of a version that this program does not know.
        """
        candidate = self.check(envelope)
        statement = candidate.statement
        self._repository_id = self._repository_id or statement.repository
        judgement = judge(statement, self._keyring, self._past)
        record = Record(
            seq=statement.seq,
            digest=candidate.digest,
            type=statement.type,
            status=judgement.status,
            reason=judgement.reason,
            body=judgement.body,
            by=statement.by,
            warrant=statement.warrant,
            key_id=judgement.key_id,
            time=statement.time,
            modified=modified,
            is_dated=is_dated,
            version=version,
            envelope=envelope,
            critical=judgement.is_critical,
        )
        if judgement.ends_reading and statement.type == StatementType.ROOT:
            raise _not_understood(record)  # nothing that follows it can be judged
        self.relink(record)
        if judgement.ends_reading:
            self._too_new = record.seq
        return self.records[-1]

    def relink(self, record: Record) -> None:
        """Append a statement as it was judged when it was linked before.

        It must be of this ledger's next seq, and from a place that is trusted as a signature is.
        """
        if record.status is Status.VALID and record.type in OF_ROLES:
            record = self._distrusted(record, {})
        self.records.append(record)
        self._past.take(record)
        self._times.add(record)
        if record.type == StatementType.HOLD:
            self._holds.append(record.seq)
        if record.status is Status.VALID:
            self._take_effect(record)

    def foresee(
        self,
        by: Collection[str],
        type: str,  # noqa: A002  # the word of docs/format.md 2.3
        body: Body,
        *,
        time: datetime | None = None,
        warrant: int | None = None,
        request: Request | None = None,
    ) -> Judgement:
        """What a statement of that type and body would amount to as the next one.

        Args:
            by: Ids of the keys that would sign it.
            type: As `StatementType` has it.
            body: Of that type.
            time: That it would claim; needed with a warrant or a request.
            warrant: Seq of the warrant that it would name.
            request: A request that would be carried by a warrant before it, which it names.
        """
        carried = request is not None
        statement = Statement(
            repository=self._repository_id,
            seq=len(self.records) + carried,
            prev=None,
            prev_version="",
            type=type,
            type_version=1,
            by=tuple(sorted(set(by))),
            critical=False,
            warrant=len(self.records) if carried else warrant,
            time=time,
            body=body_to_json(body),
        )
        past = self._past.supposing(request) if request is not None else self._past
        return judge(statement, self._keyring, past)

    def require_role(
        self,
        key_ids: str | Collection[str],
        type: str,  # noqa: A002  # the word of docs/format.md 2.3
        body: Body,
        *,
        warrant: int | None = None,
        time: datetime | None = None,
    ) -> None:
        """Pass if a statement of that type and body, signed by these keys, would count now.

        Args:
            key_ids: Of the keys.
            type: As `StatementType` has it.
            body: Of that type.
            warrant: Seq of the warrant that it names.
            time: That it claims; needed with a warrant.

        Raises:
            SignatureError: It would not link or be void at head + 1.
            ConfigError: It would be void because people have not agreed to it.
            FormatError: The body is not one of that type.
        """
        signers = (key_ids,) if isinstance(key_ids, str) else tuple(key_ids)
        if self.keys.keys().isdisjoint(signers):
            raise SignatureError(f"{type} statement would not link: the key is not listed")
        parse_body(type, body_to_json(body))
        judgement = self.foresee(signers, type, body, warrant=warrant, time=time)
        if judgement.is_unagreed:
            raise ConfigError(f"{type} statement would be void: {judgement.reason}", hint=_AGREE)
        if judgement.status is not Status.VALID:
            raise SignatureError(f"{type} statement would be void: {judgement.reason}")

    def carried(self, seq: int) -> Request | None:
        """The request that a warrant carries; None if that statement carries none."""
        return self._past.carried(seq)

    def snapshot_at(self, seq: int) -> tuple[Digest, str] | None:
        """Digest and dataset of a snapshot that counted when it was linked."""
        return self._past.snapshot_at(seq)

    def used_by(self, request: Request) -> int | None:
        """The seq of the act that used a request, if one did."""
        return self._past.used_by(request)

    def digest_at(self, seq: int) -> Digest | None:
        """The digest of a linked statement, None beyond the head."""
        return self.records[seq].digest if 0 <= seq < len(self.records) else None

    def up_to(self, seq: int) -> "Ledger":
        """The ledger of the statements before that number, to judge what links there."""
        older = Ledger(self._root_digest)
        older._repository_id = self._repository_id
        for record in self.records[:seq]:
            older.relink(record)
        return older

    @property
    def distrusted(self) -> dict[str, DistrustedSigner]:
        """Keys that revocations and the root in force distrust, by id."""
        found = {
            key_id: DistrustedSigner(name=writer.name, key=writer.key, start=writer.distrust_from)
            for key_id, writer in self.writers.items()
            if writer.distrust_from is not None
        }
        for entry in self.root.distrust if self.records else ():
            key = VerifyKey.from_der(b64decode_strict(entry.public))
            writer = self.writers.get(key.id)
            name = writer.name if writer is not None else self._keyring.name_of(entry.public)
            known = found.get(key.id)
            start = entry.start if known is None else min(entry.start, known.start)
            found[key.id] = DistrustedSigner(name=name, key=key, start=start)
        return found

    def signed_for(self, envelope: bytes, seq: int) -> Candidate | None:
        """The statement in an envelope, if listed keys signed it as number ``seq`` of this ledger.

        Where it does not link, something before it was taken away, or a key was stolen.
        """
        return find_signed(envelope, seq, self._repository_id, self.keys)

    def distrusted_signer(self, envelope: bytes, seq: int) -> str | None:
        """The distrusted key that signed an envelope as number ``seq`` of this ledger, if any."""
        keys = {key_id: each.key for key_id, each in self.distrusted.items()}
        found = find_signed(envelope, seq, self._repository_id, keys) if keys else None
        return found.signers[0] if found is not None else None

    # --- questions ---

    @property
    def findings(self) -> list[Finding]:
        """What there is to say of statements that do not count, by seq."""
        return list(remarks(self.records, self.distrusted, self.left_beyond))

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

    # --- times: `vault.ledger.times` ---

    def stored(self, record: Record) -> datetime:
        """When the store took a statement: the earliest time of it and its successors."""
        return self._times.stored(record)

    @property
    def is_copy(self) -> bool:
        """Whether the statements were copied to this store, with the times of the copying."""
        return self._times.is_copy(self.records[0])

    def before(self, moment: datetime) -> int:
        """How many statements from the first were stored before a moment."""
        return self._times.before(self.records, moment)

    def when(self, record: Record) -> datetime:
        """When a snapshot was taken, or an event ended: its claim, unless that lies in the future.

        Raises:
            FormatError: The record is about no time.
        """
        return self._times.when(record)

    def effective_until(self, record: Record) -> datetime:
        """Until when a snapshot is owed: its claim, as far as the root of that time allowed it.

        Raises:
            FormatError: The record is no snapshot.
        """
        return self._times.effective_until(record)

    def overclaims(self) -> list[Finding]:
        """Snapshots that claim a time which does not count."""
        return list(self._times.overclaims(self.snapshots()))

    def datasets(self) -> list[str]:
        """Names of datasets with a snapshot that counts, sorted."""
        return sorted(name for name in self._datasets if self.snapshots(name))

    def plans(self) -> list[Record]:
        """Prune plans that count or that a pruner's key signed, void ones too, by seq.

        What a stolen key announced is not built upon, as it may keep its rights at the store.
        """
        return [
            record
            for record in self.records
            if isinstance(record.body, PruneBody)
            and record.body.phase == "plan"
            and (record.status is Status.VALID or self.has_role(record, Role.PRUNER))
        ]

    def has_role(self, record: Record, role: Role) -> bool:
        """Whether a key that signed a statement had that role then."""
        roles = self.authority_at(record.seq).roles
        return any(role in roles.get(key_id, ()) for key_id in record.by)

    def holds(self) -> dict[int, HoldBody]:
        """Legal holds in force, by the seq of the statement that holds."""
        found: dict[int, HoldBody] = {}
        for record in (self.records[seq] for seq in self._holds):
            if record.status is Status.VALID and isinstance(record.body, HoldBody):
                if record.body.hold is None:
                    found[record.seq] = record.body
                else:
                    found.pop(record.body.hold, None)
        return found

    def held(self) -> set[int]:
        """Snapshots under a legal hold, by seq."""
        return {hold.snapshot for hold in self.holds().values()}

    def bad_packs(self, named: Callable[[Record], Iterable[str]] | None = None) -> dict[str, int]:
        """Packs whose latest word says that they are wrong: hex id to the seq of that word.

        What a restorer names only a restorer clears, whatever a verifier says in between.

        Args:
            named: Those that a restorer's statement calls bad; by default, and of a verifier's
                statement, the ones that it names itself.
        """
        bad: dict[str, int] = {}
        by_restorers: set[str] = set()
        for record in self.valid(*ATTESTED):
            assert isinstance(record.body, EventBody | VerificationBody)
            by_restorer = self.has_role(record, Role.RESTORER)
            all_named = named is not None and by_restorer
            wrong = tuple(named(record) if all_named and named is not None else record.body.bad)
            for each in wrong:
                if by_restorer or each not in by_restorers:
                    bad[each] = record.seq
            if by_restorer:
                by_restorers.update(wrong)
                by_restorers.difference_update(record.body.cleared)
            for each in record.body.cleared:
                if by_restorer or each not in by_restorers:
                    bad.pop(each, None)
        return bad

    def policies(self) -> dict[str, Record]:
        """The statements that put policies in force, by the policy's name."""
        found: dict[str, Record] = {}
        for record in self.valid(StatementType.POLICY):
            assert isinstance(record.body, PolicyBody)
            if record.body.action == "apply":
                found[record.body.name] = record
            elif record.body.action == "withdraw":
                found.pop(record.body.name, None)
        return found

    def writer_for(self, record: Record) -> WriterInfo:
        """Who wrote a snapshot or heartbeat.

        Raises:
            SignatureError: No writer did.
        """
        writer = self.writers.get(record.key_id)
        if writer is None:
            raise SignatureError(f"ledger statement {record.seq} was not signed by a writer")
        return writer

    def published_before(self, dataset: str, seq: int) -> Iterator[Record]:
        """Snapshots of a dataset that counted when they were published, from ``seq`` back."""
        listed = self._datasets.get(dataset, [])
        for place in range(bisect.bisect_left(listed, seq) - 1, -1, -1):
            yield self.records[listed[place]]

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

    # --- effects ---

    def _take_effect(self, record: Record) -> None:
        match record.body:
            case RootBody() as body:
                self._keyring.take_root(record.seq, body)
                self._times.allow(record.seq, body.parameters.max_retention)
                self._too_new = None  # who governs has answered what was not understood
                if self._distrust.govern(record.seq, distrusted_keys(body)):
                    self._apply_distrust()
            case WriterBody() as body:
                self._keyring.take_writer(record.seq, body)
                if body.action == "revoke" and body.distrust_from is not None:
                    self._distrust.speak(
                        Spoken(
                            seq=record.seq,
                            key_id=parse_writer_key(body).id,
                            start=body.distrust_from,
                            by=record.by,
                        )
                    )
                    self._apply_distrust()
            case SnapshotBody() as body:
                self._datasets.setdefault(body.dataset, []).append(record.seq)
            case _:
                pass

    def _apply_distrust(self) -> None:
        """Void what is distrusted now; what no longer is counts again."""
        writers = self._distrust.writers
        self._keyring.note_distrust({key_id: each.start for key_id, each in writers.items()})
        for seq, record in enumerate(self.records):
            if is_valid_but_for_distrust(record):
                self.records[seq] = self._distrusted(record, writers)

    def _distrusted(self, record: Record, writers: Mapping[str, Spoken]) -> Record:
        """A record that is valid but for distrust, as it stands now."""
        why = self._distrust.why(record, writers)
        if why is not None:
            return dataclasses.replace(
                record, status=Status.VOID, reason=why[1], distrusted_by=why[0]
            )
        if record.distrusted_by is None:
            return record
        return dataclasses.replace(record, status=Status.VALID, reason="", distrusted_by=None)


def _not_understood(record: Record) -> ConfigError:
    return ConfigError(
        f"ledger statement {record.seq} changes who may sign, and is not understood",
        found=record.reason,
        hint=UPGRADE,
    )


def _require_version(needed: int, what: str) -> None:
    if needed > FORMAT_VERSION:
        raise ConfigError(
            f"this version of vault is too old to {what} the repository",
            expected=f"format {needed}",
            found=f"format {FORMAT_VERSION}",
            hint=UPGRADE,
        )
