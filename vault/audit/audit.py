"""One audit from beginning to end (docs/design.md "Audit")."""

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from datetime import datetime, timedelta
from typing import TypeVar

from vault.audit.audit_report import AuditReport, DatasetAge, SnapshotAudit, Totals
from vault.audit.check_ledger import check_distrusted, check_ledger
from vault.audit.check_policies import check_policies
from vault.audit.read_objects import DataReading
from vault.audit.reseals import check_reseals
from vault.custody.findings import Findings
from vault.custody.needs import NEVER, TERM_PREFIXES, Collector, Need, when
from vault.custody.protection import IN_FLIGHT, Ends
from vault.custody.sampling import NO_PACKS, Sample
from vault.custody.versions import Inspector, Judged, NameView, VersionKind, groups
from vault.errors import (
    ObjectNotFoundError,
)
from vault.ledger.envelope import Head
from vault.ledger.records import Record
from vault.ledger.statements import EventBody, VerificationBody
from vault.machine.workers import Workers, in_order
from vault.model import Code, LockMode, ObjectRef
from vault.progress import NO_PROGRESS, Progress
from vault.repository.bad_packs import words
from vault.repository.dataset_status import Check, Cited, called_bad
from vault.repository.datasets import newest_complete, owed
from vault.repository.repository import Repository, snapshot_body
from vault.storage.base import ObjectStatus, ObjectVersion
from vault.storage.double_check import ask_twice
from vault.storage.lock_rules import is_weaker
from vault.storage.names import LEDGER, PAGES, ledger_name, parse_ledger_name

_T = TypeVar("_T")
_U = TypeVar("_U")

_SLACK = timedelta(hours=1)  # clocks differ by up to five minutes, and a PUT takes its time
_SHOWN = 8  # versions of one name that get a finding each

_BAD: dict[VersionKind, tuple[Code, str]] = {
    VersionKind.MARKER: (Code.MARKER, "delete marker"),
    VersionKind.OTHER: (Code.OTHER_BYTES, "version with other bytes"),
    VersionKind.UNREADABLE: (
        Code.NOT_READ,
        "second version may not be read, so it may be anything",
    ),
    VersionKind.LOST_RACE: (Code.LOST_RACE, "statement of a writer that lost a race"),
    VersionKind.UNLISTED: (Code.UNLISTED_KEY, "statement by a key that was not listed then"),
    VersionKind.FORK: (Code.FORK, "signed statement that follows another history"),
    VersionKind.DISTRUSTED: (
        Code.OTHER_BYTES,
        "statement of a distrusted key, hides the object from plain reads",
    ),
    VersionKind.FOREIGN: (Code.FOREIGN_NAME, "name that the vault never writes"),
}


def audit_repository(
    repository: Repository,
    *,
    sample: Sample = NO_PACKS,
    floors: Sequence[Head] = (),
    workers: Workers,
    progress: Progress = NO_PROGRESS,
) -> AuditReport:
    """Check everything that can be checked without a key; changes nothing.

    Args:
        repository: Opened tolerant, so that a hole in the ledger is a finding.
        sample: Which packs to read and hash; everything else always is.
        floors: Heads that the ledger must contain.
        workers: Executors.
        progress: Called with objects and bytes.

    Raises:
        StorageError: The store did not answer, so the audit has no result.
    """
    run = _Audit(repository, workers, progress)
    check_ledger(repository, run.owed, floors, run.findings)
    check_policies(repository, run.findings)
    run.collect()
    run.list_store()
    run.check_rows()
    check_reseals(repository, run.owed, run.findings)
    run.read(sample)
    return run.report()


class _Audit:
    """One audit: its needs, findings and totals."""

    def __init__(self, repository: Repository, workers: Workers, progress: Progress) -> None:
        self._repository = repository
        self._store = repository.store
        self._ledger = repository.ledger
        self._workers = workers
        self._progress = progress
        self._head = repository.head
        self.findings = Findings()
        self._totals = Totals()
        self._beyond: list[tuple[int, Judged]] = []
        self._beside: Counter[str] = Counter()  # statements of distrusted keys, by key
        # the earlier clock: a clock that is fast must not make live snapshots look expired
        self._now = min(repository.clock(), repository.store.now())
        self.owed = owed(self._ledger, self._ledger.snapshots(), self._now)
        self._collector = Collector(repository, self.findings)
        self._held = self._ledger.held()
        self._sound: set[int] = set()
        self._called_bad: dict[int, Check] = {}  # by seq of the snapshot

    @property
    def _mode(self) -> LockMode:
        return self._repository.parameters.lock_mode

    def _count(self, **amounts: int) -> None:
        changed = {name: getattr(self._totals, name) + more for name, more in amounts.items()}
        self._totals = dataclasses.replace(self._totals, **changed)

    def _each(self, work: Callable[[_U], _T], items: Iterable[_U]) -> Iterator[tuple[_U, _T]]:
        """Items with their results, in order; many questions to the store at the same time."""
        for item, future in in_order(self._workers.transfer, work, items, limit=IN_FLIGHT):
            yield item, future.result()

    # --- objects that must exist ---

    def collect(self) -> None:
        """Collect all objects that live snapshots, the ledger and its citations need."""
        self._progress.stage("inventories")
        sound = self._collector.add_snapshots(self.owed)
        self._sound = {record.seq for record in sound}
        self._collector.add_ledger(self.owed)
        self._collector.add_evidence()
        needs = self._collector.needs
        self._count(
            needed=len(needs),
            bytes=sum(need.size or 0 for need in needs),
            packs=sum(need.is_pack for need in needs),
        )

    # --- objects in the store ---

    def list_store(self) -> None:
        """List the whole store once, and judge all versions of each name."""
        self._progress.stage("listing")
        inspector = Inspector(self._repository, self._collector.needs)

        def inspect(group: tuple[str, list[ObjectVersion]]) -> NameView:
            return inspector.inspect(*group)

        for _, view in self._each(inspect, groups(self._store)):
            self._take_view(view)
        self._settle_beyond()
        check_distrusted(self._ledger, self._beside, self.findings)
        lacking = [need for need in self._collector.needs if need.located is None]
        for need, view in self._each(lambda need: inspector.look(need.name), lacking):
            self._locate(need, view)  # a list may be stale: an object is lost if two lack it
            if need.located is None:
                self._lacks(need, view)

    def _lacks(self, need: Need, view: NameView) -> None:
        if not view.may_be_right:
            self._missing(need)
            return
        need.is_bad = True
        self.findings.add(
            Code.REFUSED,
            need.name,
            "the store refuses to show a version that may be the right one",
            expected=f"sha256 {need.sha256}",
        )

    def _take_view(self, view: NameView) -> None:
        needs = self._collector.needs.of(view.name)
        self._count(names=1, versions=len(view.judged))
        if not needs and all(each.kind is VersionKind.UNSEEN for each in view.judged):
            self._count(unneeded=1, unneeded_bytes=sum(each.version.size for each in view.judged))
            return
        rights = sum(each.kind is VersionKind.RIGHT for each in view.judged)
        self._count(repeated=max(0, rights - max(1, len(needs))))
        for need in needs:
            self._locate(need, view)
        self._report_others(view, needs)

    def _locate(self, need: Need, view: NameView) -> None:
        found = view.right(need.version)
        if found is None:
            return
        need.located = ObjectRef(
            name=need.name, sha256=need.sha256, size=found.size, version=found.version
        )
        need.modified = found.modified
        need.is_hashed = need.is_hashed or need.size is None  # judged by their bytes
        if need.version and found.version != need.version:
            need.is_hashed = False
            self.findings.add(
                Code.RELOCATED,
                need.name,
                "the right bytes are at another version than the signed one",
                expected=f"version {need.version}",
                found=described(found),
            )

    def _report_others(self, view: NameView, needs: Sequence[Need]) -> None:
        """Add a finding for each version that should not be there; for very many, a sum."""
        harmful = {id(each) for each in view.harmful(needed=bool(needs))}
        told: dict[VersionKind, list[Judged]] = {}
        for judged in view.judged:
            if judged.kind is VersionKind.BEYOND:
                seq = parse_ledger_name(view.name)
                assert seq is not None
                self._beyond.append((seq, judged))
            elif judged.kind is VersionKind.DISTRUSTED and id(judged) not in harmful:
                # those beyond the head were counted when the ledger was read
                self._beside[judged.key_id] += view.name <= ledger_name(self._head.seq)
            elif judged.kind in _BAD:
                told.setdefault(judged.kind, []).append(judged)
        for kind, group in told.items():
            # harmful versions come first, as only the first findings are kept
            group.sort(key=lambda judged: id(judged) not in harmful)
            for judged in group[:_SHOWN]:
                self._report_other(view, judged, needs, harmless=id(judged) not in harmful)
            if len(group) > _SHOWN:
                self._report_sum(view, kind, group, harmless=id(group[0]) not in harmful)

    def _report_other(
        self, view: NameView, judged: Judged, needs: Sequence[Need], *, harmless: bool
    ) -> None:
        code, problem = self._named(view.name, judged.kind)
        is_bad = judged.kind in (VersionKind.OTHER, VersionKind.MARKER)
        if judged.kind is VersionKind.OTHER and any(
            judged.version.version == need.version for need in needs
        ):
            code, problem, harmless = Code.WRONG_SIZE, "pinned version has the wrong size", False
        elif is_bad and not harmless:
            is_hiding = any(each.kind is VersionKind.RIGHT for each in view.judged)
            problem += ", hides the object from plain reads" if is_hiding else ""
        elif is_bad:
            problem += ", hides nothing" if needs else ", of a name that nothing needs"
        self.findings.add(
            code, view.name, problem, found=described(judged.version), harmless=harmless
        )

    def _report_sum(
        self, view: NameView, kind: VersionKind, group: Sequence[Judged], *, harmless: bool
    ) -> None:
        code, problem = self._named(view.name, kind)
        times = sorted(judged.version.modified for judged in group)
        self.findings.add(
            code,
            view.name,
            f"{problem}: {len(group)} in all, of which {_SHOWN} are listed",
            found=f"from {when(times[0])} to {when(times[-1])}",
            harmless=harmless,
        )

    def _named(self, name: str, kind: VersionKind) -> tuple[Code, str]:
        if kind is VersionKind.OTHER and name.startswith(LEDGER):
            return Code.JUNK_STATEMENT, "junk at a name of the ledger"
        if kind is VersionKind.OTHER and name.startswith(PAGES):
            return Code.WRONG_PAGE, "page does not say what the ledger says"
        return _BAD[kind]

    def _settle_beyond(self) -> None:
        """Report signed statements beyond a gap in the ledger.

        Statements listed beyond the head: if a refresh links them, they were appended during the
        audit. Any other one means that a statement before it is missing.
        """
        if self._beyond:
            self._repository.refresh()
        for seq, judged in self._beyond:
            head = self._repository.head
            if seq > head.seq:
                self.findings.add(
                    Code.BEYOND_GAP,
                    judged.version.name,
                    "signed statement beyond a gap: statements are missing or were replaced",
                    expected=f"every statement after {head.seq}",
                    found=described(judged.version),
                )

    def _missing(self, need: Need) -> None:
        need.is_bad = True
        self.findings.add(
            Code.MISSING,
            need.name,
            "no version with the right bytes is left",
            expected=f"version {need.version}" if need.version else f"sha256 {need.sha256}",
        )

    # --- sizes, checksums, locks ---

    def check_rows(self) -> None:
        """Ask the store about every needed object."""
        self._progress.stage("locks")
        rows = [need for need in self._collector.needs if need.located]

        def ask(need: Need) -> ObjectStatus | None:
            assert need.located is not None
            try:
                return self._store.status(need.name, need.located.version)
            except ObjectNotFoundError:
                return None

        def status(need: Need) -> ObjectStatus | None:
            return ask_twice(need.name, lambda: ask(need), bool)

        for need, answer in self._each(status, rows):
            if answer is None:
                self._missing(need)
                continue
            self._check_checksum(need, answer)
            if need.mode is not LockMode.NONE:
                self._check_lock(need, answer)

    def _check_checksum(self, need: Need, status: ObjectStatus) -> None:
        if need.is_statement:
            return  # a statement's digest is of its signed content, which was checked
        if status.sha256 is None:
            self._count(not_available=1)
            return
        self._count(checksums=1)
        if status.sha256 != need.sha256:
            need.is_bad = True
            self.findings.add(
                Code.WRONG_CHECKSUM,
                need.name,
                "the store states another SHA-256",
                expected=need.sha256,
                found=status.sha256.hex(),
            )

    def _check_lock(self, need: Need, status: ObjectStatus) -> None:
        retention = status.retention
        need.locked_until = retention.until if retention else None
        owed_until = max(need.until, self._term_end(need))
        if retention is None:
            if owed_until > NEVER:
                self._gap(need, owed_until, "no lock")
        elif retention.until < owed_until:
            self._gap(need, owed_until, f"locked until {when(retention.until)}")
        if retention and is_weaker(retention.mode, need.mode):
            self.findings.add(
                Code.LOCK_MODE,
                need.name,
                "lock is weaker than promised",
                expected=need.mode,
                found=retention.mode,
            )
        if need.held and not status.legal_hold:
            self.findings.add(
                Code.NO_HOLD, need.name, "a held snapshot needs it, and it carries no legal hold"
            )

    def _gap(self, need: Need, until: datetime, found: str) -> None:
        days = max(0, ((need.locked_until or NEVER) - self._now) // timedelta(days=1))
        self.findings.add(
            Code.LOCK_GAP,
            need.name,
            f"lock ends before what needs it, the gap begins in {days} days"
            if days
            else "lock ends before what needs it, the gap is open",
            expected=f"locked until {when(until)}",
            found=found,
        )

    def _term_end(self, need: Need) -> datetime:
        """End of the ledger term of an object, counted from when it was stored."""
        if not need.name.startswith(TERM_PREFIXES):
            return NEVER
        return need.modified + self._repository.parameters.ledger_span - _SLACK

    # --- bytes ---

    def read(self, sample: Sample) -> None:
        """Read the sampled packs, all small objects, headers, and cited attestations."""
        self._progress.stage("reading")
        needs = self._collector.needs
        reading = DataReading(
            self._repository,
            needs,
            self.findings,
            workers=self._workers,
            progress=self._progress,
        )
        already = sum(need.is_hashed for need in needs)
        reading.check_events()
        reading.read(sample)
        self._count(**dataclasses.asdict(reading.totals))
        self._count(read=already)
        self._repeat_words()

    def _repeat_words(self) -> None:
        """Report packs and snapshots that a restorer found wrong and none has read right since.

        An audit that compares sizes only can't find such packs itself, and without the key none
        can see that what was sealed is wrong.
        """
        self._called_bad = called_bad(self._ledger, self.owed, Cited(self._repository))
        said = words(self._repository)
        for need in self._collector.needs if said else ():
            word = said.get(need.name.rpartition("/")[2]) if need.is_pack else None
            if word is not None and not need.is_bad:
                need.is_bad = True
                self.findings.add(
                    Code.CALLED_BAD,
                    need.name,
                    f"statement {word.seq} found it wrong, and none has read it right since",
                )

    # --- the whole ---

    def report(self) -> AuditReport:
        """The report, after all checks."""
        ends = Ends(self._collector.needs, self._ledger, self._head.seq + 1)
        bad = {need.name for need in self._collector.needs if need.is_bad}
        snapshots = tuple(self._snapshot(record, ends, bad) for record in self.owed)
        advisory = self._mode is LockMode.NONE or not self._store.traits.enforces_retention
        if advisory:
            self.findings.add(
                Code.ADVISORY,
                "locks",
                "this repository has no locks"
                if self._mode is LockMode.NONE
                else "only this program keeps the locks: a user who may write the store may delete",
            )
        return AuditReport(
            head=self._head,
            at=self._now,
            lock_mode=self._mode,
            advisory=advisory,
            snapshots=snapshots,
            datasets=tuple(map(self._age, self._ledger.datasets())),
            totals=self._totals,
            findings=tuple(self.findings.kept),
            omitted=self.findings.omitted,
        )

    def _snapshot(self, record: Record, ends: Ends, bad: AbstractSet[str]) -> SnapshotAudit:
        body = snapshot_body(record)
        readable = record.seq in self._sound
        is_locked = self._mode is not LockMode.NONE
        refs = self._collector.refs(record) if readable and (bad or is_locked) else []
        needed = {ref.name for ref in refs if ref.name in bad}
        needed |= {name for name in bad if LEDGER < name <= ledger_name(record.seq)}
        check = self._called_bad.get(record.seq)
        if check is not None:
            self._repeat_check(check, is_told=bool(needed))
        return SnapshotAudit(
            seq=record.seq,
            dataset=body.dataset,
            created=self._ledger.when(record),
            complete=body.complete,
            held=record.seq in self._held,
            until=self._ledger.effective_until(record),
            objects=body.inventory.objects,
            bytes=body.inventory.bytes,
            readable=readable,
            bad=len(needed),
            called_bad=check.seq if check else None,
            protection=ends.of(record, refs) if readable and is_locked else None,
        )

    def _repeat_check(self, check: Check, *, is_told: bool) -> None:
        """Report a failed check of a snapshot, unless the packs that it named are reported."""
        body = self._ledger.records[check.seq].body
        assert isinstance(body, EventBody | VerificationBody)
        if not (is_told and body.bad_count):
            self.findings.add(
                Code.CALLED_BAD,
                f"snapshot {check.snapshot}",
                f"{check.type} {check.seq} found it wrong, and none has read it right since",
            )

    def _age(self, dataset: str) -> DatasetAge:
        newest = newest_complete(self._ledger, dataset)
        if newest is None:
            return DatasetAge(dataset=dataset, newest=None, age=None)
        age = max(self._now - self._ledger.when(newest), timedelta())
        return DatasetAge(dataset=dataset, newest=newest.seq, age=age)


def described(version: ObjectVersion) -> str:
    """A version's id, size and time, for a finding."""
    size = "" if version.marker else f", {version.size} bytes"
    return f"version {version.version}{size}, {when(version.modified)}"
