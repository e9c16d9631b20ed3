"""The state of datasets, by what the ledger says of their newest snapshots and of checks of these.

See docs/guide.md "Exit codes in cron".

A verdict is about one snapshot. A failed one stays until the same snapshot passes, and a sample
never replaces a whole check. A check that failed because of the machine it ran on says nothing
about the snapshot and is attested as inconclusive. The decisions are pure; `Cited` reads what
they rest on, and believes an event only if its attestation agrees with it.
"""

import dataclasses
from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Protocol

from vault.errors import IntegrityError
from vault.ledger.chain import Ledger
from vault.ledger.records import Record
from vault.ledger.statements import (
    ATTESTED,
    EVENTS,
    WHOLE_SHARE,
    EventBody,
    StatementType,
    Verdict,
    VerificationBody,
)
from vault.model import Code, Digest, Finding, Severity
from vault.repository.attestations import Attestation, objections, open_attestation
from vault.repository.bad_packs import BadPackMemory, Word, words
from vault.repository.datasets import newest_complete, owed
from vault.repository.repository import Repository
from vault.storage.names import is_pack, pack_digits

BUDGET = 200  # attestations that one status opens; passes beyond it are not believed


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """The result of one restore, drill or verification for one snapshot."""

    seq: int  # that of the statement
    type: str
    verdict: str  # a `Verdict`
    finished: datetime
    snapshot: int  # its seq
    share: int = WHOLE_SHARE  # parts per million of objects read
    slice: tuple[int, int] | None = None
    opened: bool = True  # blocks were opened, not only hashed
    spoiled: bool = False  # of another snapshot: it found a pack wrong that this one needs

    @property
    def failed(self) -> bool:
        """Whether something is wrong with the snapshot."""
        return self.verdict == Verdict.FAILED

    @property
    def is_whole(self) -> bool:
        """Whether all of the snapshot was opened and is right."""
        all_read = self.share == WHOLE_SHARE and self.slice is None and self.opened
        return all_read and self.verdict == Verdict.PASSED


class Facts(Protocol):
    """The questions that the decisions ask about statements."""

    def believes(self, record: Record) -> bool:
        """Whether the attestation that an event cites agrees with it."""

    def concerns(self, record: Record, snapshot: Record) -> bool:
        """Whether this snapshot is one of those that a failed verification found wrong."""

    def bad_since(self, snapshot: Record) -> Record | None:
        """The last statement, if any, that calls something bad that the snapshot needs."""

    def seen_here(self, snapshot: Record) -> int:
        """How many packs that it needs this host itself found wrong, unsigned."""


# --- one snapshot; pure ---


def verified(ledger: Ledger, snapshot: Record, facts: Facts) -> Check | None:
    """The verification that counts for a snapshot: a standing failure, else the last whole pass.

    A pass that only hashed ciphertext does not cancel a failure to open it.
    """
    failed, passed, sample = None, None, None
    for record, body in _verifications(ledger, snapshot):
        if body.verdict == Verdict.FAILED:
            if passed is not None and (passed.opened or not body.opened):
                continue
            if _is_about(record, snapshot, facts) and facts.believes(record):
                failed = _check_of(ledger, record, snapshot)
                break
        elif not facts.believes(record):
            continue
        elif body.verdict == Verdict.PASSED and body.share == WHOLE_SHARE and body.slice is None:
            passed = passed or _check_of(ledger, record, snapshot)
            if body.opened:
                break
        else:
            sample = sample or _check_of(ledger, record, snapshot)
    return failed or _spoiled(ledger, snapshot, passed, facts) or passed or sample


def restored(ledger: Ledger, snapshot: Record, facts: Facts) -> Check | None:
    """The restore or drill of exactly this snapshot that counts; as `verified`."""
    part: Check | None = None
    for record in reversed(list(ledger.valid(*EVENTS))):
        body = record.body
        assert isinstance(body, EventBody)
        if body.snapshot != snapshot.seq or body.verdict == Verdict.INCONCLUSIVE:
            continue
        if not facts.believes(record):
            continue
        check = _check_of(ledger, record, snapshot)
        if body.verdict != Verdict.PARTIAL:
            return check
        part = part or check
    return part


def called_bad(ledger: Ledger, snapshots: Iterable[Record], facts: Facts) -> dict[int, Check]:
    """Snapshots that a check found wrong and no later whole check found right.

    A restore, a drill, and a verification that opens what it reads each cancel an earlier failure
    of any of them, as a restorer signs all three. Packs called bad are left to `bad_packs.words`.
    """
    failed = [record.body for record in ledger.valid(*ATTESTED) if _has_failed(record)]
    found = {}
    for snapshot in snapshots:
        if any(_covers(body, snapshot.seq) for body in failed):
            check = _standing_failure(ledger, snapshot, facts)
            if check is not None:
                found[snapshot.seq] = check
    return found


def _standing_failure(ledger: Ledger, snapshot: Record, facts: Facts) -> Check | None:
    both = (verified(ledger, snapshot, facts), restored(ledger, snapshot, facts))
    checks = [check for check in both if check is not None]
    right = max((check.seq for check in checks if check.is_whole), default=-1)
    standing = [check for check in checks if check.failed and not check.spoiled]
    return max((each for each in standing if each.seq > right), key=_seq_of, default=None)


def _seq_of(check: Check) -> int:
    return check.seq


def _has_failed(record: Record) -> bool:
    assert isinstance(record.body, EventBody | VerificationBody)
    return record.body.verdict == Verdict.FAILED


def sound(ledger: Ledger, snapshot: Record, facts: Facts) -> bool:
    """Whether no check speaks against restoring this snapshot."""
    checks = (verified(ledger, snapshot, facts), restored(ledger, snapshot, facts))
    return not any(check is not None and check.failed for check in checks)


def failed_check(ledger: Ledger, dataset: str, facts: Facts) -> Check | None:
    """The last failed check of any snapshot of a dataset, unless a whole one passed since.

    Weaker than `verified`: it warns the taker of the next snapshot that something was wrong.
    """
    known = {record.seq: record for record in ledger.snapshots(dataset)}
    for record in reversed(list(ledger.valid(*ATTESTED))):
        body = record.body
        assert isinstance(body, EventBody | VerificationBody)
        is_clear = body.verdict in (Verdict.PASSED, Verdict.FAILED)
        seq = _last_covered(record, known) if is_clear else None
        if seq is None or not _is_whole_or_failed(record, known[seq], facts):
            continue
        if facts.believes(record):
            return _check_of(ledger, record, known[seq]) if body.verdict == Verdict.FAILED else None
    return None


def _is_whole_or_failed(record: Record, snapshot: Record, facts: Facts) -> bool:
    body = record.body
    if isinstance(body, EventBody):
        return True
    assert isinstance(body, VerificationBody)
    if body.verdict == Verdict.FAILED:
        return _is_about(record, snapshot, facts)
    return body.share == WHOLE_SHARE and body.slice is None


def _verifications(ledger: Ledger, snapshot: Record) -> Iterator[tuple[Record, VerificationBody]]:
    """Verifications that read some of a snapshot or found something wrong, newest first."""
    for record in reversed(list(ledger.valid(StatementType.VERIFICATION))):
        body = record.body
        assert isinstance(body, VerificationBody)
        if not _covers(body, snapshot.seq):
            continue
        if body.verdict == Verdict.FAILED or (
            body.verdict in (Verdict.PASSED, Verdict.PARTIAL) and body.share
        ):
            yield record, body


def _covers(body: object, seq: int) -> bool:
    """Whether an event or a verification is about a snapshot."""
    if isinstance(body, VerificationBody):
        return any(first <= seq <= last for first, last in body.snapshots)
    assert isinstance(body, EventBody)
    return body.snapshot == seq


def _is_about(record: Record, snapshot: Record, facts: Facts) -> bool:
    body = record.body
    assert isinstance(body, VerificationBody)
    return body.snapshots == ((snapshot.seq, snapshot.seq),) or facts.concerns(record, snapshot)


def _spoiled(ledger: Ledger, snapshot: Record, passed: Check | None, facts: Facts) -> Check | None:
    """The check that found something bad that the snapshot needs, unless a later one passed."""
    record = facts.bad_since(snapshot)
    if record is None or (passed is not None and passed.seq > record.seq):
        return None
    check = _check_of(ledger, record, snapshot)
    return dataclasses.replace(check, verdict=Verdict.FAILED, spoiled=True)


def _check_of(ledger: Ledger, record: Record, snapshot: Record) -> Check:
    body = record.body
    assert isinstance(body, EventBody | VerificationBody)
    check = Check(
        seq=record.seq,
        type=record.type,
        verdict=body.verdict,
        finished=ledger.when(record),
        snapshot=snapshot.seq,
    )
    if isinstance(body, EventBody):
        return check
    return dataclasses.replace(check, share=body.share, slice=body.slice, opened=body.opened)


# --- what the decisions rest on ---


class Cited:
    """`Facts` from a repository; opens each attestation once, and inventories only if needed.

    Args:
        repository: Read up to its head.
        memory: Packs that this host found wrong and could not sign for, if they are to count.
    """

    def __init__(self, repository: Repository, memory: BadPackMemory | None = None) -> None:
        self._repository = repository
        self._memory = memory
        self._opened: dict[int, Attestation | None] = {}
        self._words: dict[str, Word] | None = None
        self._needs: dict[int, frozenset[str]] = {}
        self.findings: list[Finding] = []  # events that are not believed, and why
        self.doubted: list[int] = []  # seqs of these events

    def believes(self, record: Record) -> bool:
        """See `Facts`; beyond the budget a failure is believed and a pass is not."""
        if record.seq not in self._opened and len(self._opened) >= BUDGET:
            assert isinstance(record.body, EventBody | VerificationBody)
            return record.body.verdict == Verdict.FAILED
        return self._attestation(record) is not None

    def concerns(self, record: Record, snapshot: Record) -> bool:
        """See `Facts`; True if the attestation does not say."""
        attestation = self._attestation(record) if len(self._opened) < BUDGET else None
        if attestation is None:
            return True
        hits = attestation.details.get("hits")
        if isinstance(hits, list) and len(hits) == attestation.details.get("hit_count"):
            return any(
                isinstance(hit, dict) and hit.get("snapshot") == snapshot.seq for hit in hits
            )
        body = record.body
        assert isinstance(body, EventBody | VerificationBody)
        named = attestation.details.get("bad_packs")
        if not isinstance(named, list) or not named or len(named) != body.bad_count:
            return True
        return not self._needs_of(snapshot).isdisjoint(map(str, named))

    def bad_since(self, snapshot: Record) -> Record | None:
        """See `Facts`."""
        said = {word.seq for word in self._words_about(snapshot) if not word.is_own}
        records = [self._repository.ledger.records[seq] for seq in sorted(said, reverse=True)]
        return next((record for record in records if self.believes(record)), None)

    def seen_here(self, snapshot: Record) -> int:
        """See `Facts`."""
        return sum(word.is_own for word in self._words_about(snapshot))

    def _words_about(self, snapshot: Record) -> Collection[Word]:
        """The words on packs that the snapshot needs."""
        if self._words is None:
            self._words = words(self._repository, self._memory)
        if not self._words:
            return ()
        return [self._words[each] for each in self._needs_of(snapshot) & self._words.keys()]

    def _needs_of(self, snapshot: Record) -> frozenset[str]:
        """Ids of the packs that a snapshot needs; none if its inventory can't be read."""
        if snapshot.seq not in self._needs:
            try:
                objects = self._repository.inventory(snapshot).objects
            except IntegrityError:
                objects = ()
            packs = (ref.name for ref in objects if is_pack(ref.name))
            self._needs[snapshot.seq] = frozenset(pack_digits(name) for name in packs)
        return self._needs[snapshot.seq]

    def _attestation(self, record: Record) -> Attestation | None:
        if record.seq not in self._opened:
            self._opened[record.seq] = self._open(record)
        return self._opened[record.seq]

    def _open(self, record: Record) -> Attestation | None:
        assert isinstance(record.body, EventBody | VerificationBody)
        ledger = self._repository.ledger
        try:
            data = self._repository.read_evidence(Digest.parse(record.body.attestation))
            problems = [str(each) for each in objections(data, record, ledger)]
            if not problems:
                return open_attestation(data, ledger, seq=record.seq)
        except IntegrityError as error:
            problems = [str(error)]
        self.doubted.append(record.seq)
        self.findings.append(
            Finding(
                severity=Severity.WARNING,
                subject=f"ledger {record.seq}",
                problem=f"{record.type} is not believed: what it cites does not bear it out",
                found=problems[0],
                code=Code.ATTESTATION,
            )
        )
        return None


# --- datasets ---


class Trouble(StrEnum):
    """What may be wrong with a dataset."""

    FAILED = "failed"  # a check of its newest snapshot failed
    OBJECTIVE = "objective"  # its newest complete snapshot is too old
    INCOMPLETE = "incomplete"  # its newest snapshot is incomplete


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class DatasetStatus:
    """The state of a dataset."""

    dataset: str
    snapshots: int  # valid ones, expired ones too
    owed: int  # those still to be kept, or held
    newest: Record | None  # the newest complete one
    incomplete: Record | None  # an incomplete one after it
    age: timedelta | None  # that of `newest`, since its run began
    verification: Check | None  # of `newest`; else of the older snapshot it names
    restore: Check | None  # or drill; of the same as above
    failures: tuple[Check, ...]  # of `newest` and `incomplete`
    seen_here: int = 0  # packs of `newest` that this host found wrong, unsigned

    def troubles(self, max_age: timedelta | None = None) -> set[Trouble]:
        """What is wrong with the dataset.

        Args:
            max_age: The age that the newest complete snapshot may have; None: any age.
        """
        found: set[Trouble] = set()
        if self.failures or self.seen_here:
            found.add(Trouble.FAILED)
        if max_age is not None and (self.age is None or self.age > max_age):
            found.add(Trouble.OBJECTIVE)
        if self.incomplete is not None:
            found.add(Trouble.INCOMPLETE)
        return found


def status_of(ledger: Ledger, dataset: str, now: datetime, facts: Facts) -> DatasetStatus:
    """The state of a dataset, according to the events in the ledger that are believed."""
    records = ledger.snapshots(dataset)
    newest = newest_complete(ledger, dataset)
    last = records[-1] if records else None
    incomplete = last if last is not newest else None
    watched = [record for record in (incomplete, newest) if record is not None]
    checks = [find(ledger, record, facts) for record in watched for find in (verified, restored)]
    return DatasetStatus(
        dataset=dataset,
        snapshots=len(records),
        owed=len(owed(ledger, records, now)),
        newest=newest,
        incomplete=incomplete,
        age=max(now - ledger.when(newest), timedelta()) if newest else None,
        verification=_shown(ledger, records, newest, facts, verified),
        restore=_shown(ledger, records, newest, facts, restored),
        failures=tuple(check for check in checks if check is not None and check.failed),
        seen_here=facts.seen_here(newest) if newest is not None else 0,
    )


class _Find(Protocol):
    def __call__(self, ledger: Ledger, snapshot: Record, facts: Facts, /) -> Check | None: ...


def _shown(
    ledger: Ledger, records: Sequence[Record], newest: Record | None, facts: Facts, find: _Find
) -> Check | None:
    """The check of the newest complete snapshot; else of the last snapshot that has one."""
    known = {record.seq: record for record in records}
    if newest is not None:
        check = find(ledger, newest, facts)
        if check is not None:
            return check
        del known[newest.seq]
    types = (StatementType.VERIFICATION,) if find is verified else EVENTS
    for event in reversed(list(ledger.valid(*types))):
        seq = _last_covered(event, known)
        check = find(ledger, known.pop(seq), facts) if seq is not None else None
        if check is not None:
            return check
    return None


def _last_covered(event: Record, known: Collection[int]) -> int | None:
    return max((seq for seq in known if _covers(event.body, seq)), default=None)
