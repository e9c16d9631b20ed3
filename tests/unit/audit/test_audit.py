"""An audit: what is owed is sound and locked, and every act of an attacker is told."""

import dataclasses
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.support.lab import Clock, Lab, MakeRepository
from tests.support.trees import MakeSource
from vault.audit import AuditReport, Code, Concern, audit_repository, protection
from vault.crypto.keys import Signer, SigningKey
from vault.custody.findings import LIMIT, Findings
from vault.custody.needs import Collector
from vault.custody.protection import Protection
from vault.custody.sampling import NONCE_SIZE, draw
from vault.custody.versions import known_keys
from vault.errors import ConfigError, IntegrityError, StorageError, StorageUnavailableError
from vault.format import inventory
from vault.format.inventory import Resolver
from vault.ledger.envelope import Head, build_statement, seal_envelope
from vault.ledger.records import Record
from vault.ledger.statements import (
    HeartbeatBody,
    HoldBody,
    InventoryRef,
    PolicyBody,
    PruneBody,
)
from vault.machine.workers import make_workers
from vault.model import Digest, LockMode, ObjectRef, Retention, Severity
from vault.repository.append_statements import Draft
from vault.repository.enrolment import revoke_writer
from vault.repository.hosts import find_writer
from vault.repository.repository import Repository, snapshot_body
from vault.storage.local import LocalStore
from vault.storage.memory import FaultPoint
from vault.storage.names import ledger_name


@pytest.fixture
def lab(make_repository: MakeRepository) -> Lab:
    """A repository with locks that hold."""
    return make_repository(LockMode.COMPLIANCE)


@pytest.fixture
def record(lab: Lab, make_source: MakeSource) -> Record:
    """A snapshot of several packs."""
    return lab.snapshot(make_source(files=10)).record


def look(
    lab: Lab, share: float = 0.0, floors: Sequence[Head] = (), workers: int = 0
) -> AuditReport:
    """One audit, as the command line makes it."""
    repository = Repository.open(lab.store, lab.root, clock=lab.clock, tolerant=True)
    sample = draw(share, ledger=repository.ledger, nonce=bytes(NONCE_SIZE))
    with make_workers(workers) as pool:
        return audit_repository(repository, sample=sample, floors=floors, workers=pool)


def codes(report: AuditReport) -> set[Code]:
    """Which kinds of findings there are."""
    return {finding.code for finding in report.findings}


def subjects(report: AuditReport, code: Code) -> list[str]:
    """What findings of a kind are about, in order."""
    return [finding.subject for finding in report.findings if finding.code is code]


def packs(lab: Lab, record: Record) -> list[ObjectRef]:
    """The packs of a snapshot."""
    objects = lab.open().inventory(record).objects
    return [ref for ref in objects if ref.name.startswith("packs/")]


def flipped(data: bytes) -> bytes:
    """One byte changed, the size kept."""
    return data[:-1] + bytes([data[-1] ^ 1])


# --- sound repositories ---


@pytest.mark.parametrize("mode", list(LockMode))
@pytest.mark.parametrize("workers", [0, 2])
def test_a_sound_repository_has_no_findings(
    make_repository: MakeRepository, make_source: MakeSource, mode: LockMode, workers: int
) -> None:
    """Everything that is needed was looked at; locks are advisory only where there are none."""
    lab = make_repository(mode)
    source = make_source(files=10)
    lab.snapshot(source)
    (source / "new").write_bytes(b"new" * 5000)
    lab.clock.advance(days=1)
    record = lab.snapshot(source).record
    report = look(lab, share=1.0, workers=workers)
    assert codes(report) == ({Code.ADVISORY} if mode is LockMode.NONE else set())
    assert report.gravest is Concern.NONE
    assert report.totals.needed == len(list(lab.store.versions(""))) - len(
        list(lab.store.versions("index/"))
    )
    assert report.totals.read == report.totals.needed
    listed = list(lab.store.versions(""))
    assert report.totals.names == len({version.name for version in listed})
    assert report.totals.versions == len(listed)
    assert report.totals.not_available == 0
    assert [each.seq for each in report.snapshots] == [2, 3]
    assert report.datasets[0].newest == record.seq
    for each in report.snapshots:
        assert each.readable
        if mode is LockMode.NONE:
            assert each.protection is None
        else:
            assert each.protection is not None
            assert not each.protection.has_gap


def test_a_directory_says_that_its_locks_are_advisory(
    make_repository: MakeRepository, make_source: MakeSource, clock: Clock, tmp_path: Path
) -> None:
    """And it states no checksums, so whether bytes are right is only told by reading them."""
    store = LocalStore.create(tmp_path / "store", clock=clock)
    lab = make_repository(LockMode.GOVERNANCE, store=store)
    lab.snapshot(make_source())
    report = look(lab)
    assert report.advisory
    assert codes(report) == {Code.ADVISORY}
    assert report.totals.checksums == 0
    assert report.totals.not_available > 0
    assert report.gravest is Concern.NONE


def test_a_repository_without_locks_is_called_that(
    make_repository: MakeRepository, make_source: MakeSource, clock: Clock, tmp_path: Path
) -> None:
    """The report calls locks that only this program keeps advisory, and none none."""
    store = LocalStore.create(tmp_path / "store", clock=clock)
    advisory = make_repository(LockMode.GOVERNANCE, store=store)
    none = make_repository(LockMode.NONE, name="none")
    for lab, said in ((none, "has no locks"), (advisory, "only this program keeps the locks")):
        lab.snapshot(make_source(said))
        assert [said in finding.problem for finding in look(lab).findings] == [True]


def test_expired_snapshots_are_not_owed(lab: Lab, make_source: MakeSource) -> None:
    """What they needed may be gone."""
    record = lab.snapshot(make_source(), retention=timedelta(days=7)).record
    refs = packs(lab, record)
    lab.clock.advance(days=30)
    for ref in refs:
        lab.store.remove(ref.name, ref.version)
    report = look(lab, share=1.0)
    assert report.snapshots == ()
    assert report.gravest is Concern.NONE


def test_a_held_snapshot_is_owed_for_ever_and_needs_its_holds(
    lab: Lab, record: Record, make_source: MakeSource
) -> None:
    """A hold in the ledger without the store's own protects nothing."""
    body = HoldBody(action="add", snapshot=record.seq, reason="case 7", author="court")
    subject = [(ledger_name(record.seq), record.digest)]
    draft = Draft(type="hold", subject=subject, body=body)
    lab.open().append(lambda _: draft, [lab.root_key.policy], tool="test")
    lab.clock.advance(days=60)
    assert codes(look(lab)) == {Code.NO_HOLD}
    assert look(lab).gravest is Concern.RETENTION
    repository = lab.open()
    refs = [*repository.inventory(record).objects, repository.inventory_ref(record)]
    for ref in refs:
        lab.store.set_legal_hold(ref.name, ref.version, on=True)
    report = look(lab)
    assert codes(report) == set()
    assert [(each.seq, each.held) for each in report.snapshots] == [(record.seq, True)]


def test_the_same_bytes_put_twice_are_no_finding(lab: Lab, record: Record) -> None:
    """A lost reply makes two versions of one object; a statement may be stored twice too."""
    for item in list(lab.store.versions("")):
        lab.store.plant(item.name, lab.store.get(item.name, item.version))
    report = look(lab)
    assert codes(report) == set()
    assert report.totals.repeated > 0


# --- objects ---


@pytest.mark.parametrize("kind", ["packs/", "inventory/", "domains/", "evidence/"])
def test_a_missing_object_is_told(
    lab: Lab, record: Record, make_source: MakeSource, kind: str
) -> None:
    """Whatever it is; and the audit goes on."""
    repository = lab.open()
    digest = repository.put_evidence(b"plan")
    body = PruneBody(phase="result", plan=str(digest))
    draft = Draft(type="prune", subject=[(f"evidence/{digest}", digest)], body=body)
    repository.append(lambda _: draft, [lab.root_key.pruner], tool="test")
    for item in list(lab.store.versions(kind)):
        lab.store.remove(item.name, item.version)
    report = look(lab)
    expected = {Code.MISSING, Code.INVENTORY} if kind == "inventory/" else {Code.MISSING}
    assert codes(report) == expected
    assert report.gravest is Concern.INTEGRITY
    assert report.snapshots[0].readable is (kind != "inventory/")


def test_every_missing_pack_is_told(lab: Lab, record: Record) -> None:
    """Not only the first."""
    gone = packs(lab, record)[:3]
    for ref in gone:
        lab.store.remove(ref.name, ref.version)
    assert subjects(look(lab), Code.MISSING) == [ref.name for ref in gone]


def test_a_changed_byte_is_found_by_reading(lab: Lab, record: Record) -> None:
    """The store's checksum is of what was once put; only the bytes themselves tell."""
    ref = packs(lab, record)[1]
    lab.store.corrupt(ref.name, ref.version, flipped(lab.store.get(ref.name, ref.version)))
    assert codes(look(lab)) == set()
    report = look(lab, share=1.0)
    assert subjects(report, Code.WRONG_BYTES) == [ref.name]
    assert report.gravest is Concern.INTEGRITY


@pytest.mark.parametrize("kind", ["inventory/", "domains/"])
def test_small_objects_are_always_read(lab: Lab, record: Record, kind: str) -> None:
    """Whatever share of the packs is read."""
    (item,) = lab.store.versions(kind)
    lab.store.corrupt(item.name, item.version, flipped(lab.store.get(item.name, item.version)))
    report = look(lab)
    assert item.name in subjects(report, Code.WRONG_BYTES)
    assert report.gravest is Concern.INTEGRITY


def test_a_sample_reads_so_many_packs(lab: Lab, record: Record) -> None:
    """Drawn by the ledger's head and a nonce of the run."""
    everything = look(lab, share=1.0).totals.read
    nothing = look(lab).totals.read
    half = look(lab, share=0.5).totals.read
    assert everything - nothing == len(packs(lab, record))
    assert nothing < half < everything


def test_a_checksum_that_the_store_states_otherwise(
    lab: Lab, record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Read or not."""
    ref = packs(lab, record)[0]
    status = lab.store.status

    def lying(name: str, version: str) -> Any:
        found = status(name, version)
        return dataclasses.replace(found, sha256=bytes(32)) if name == ref.name else found

    monkeypatch.setattr(lab.store, "status", lying)
    assert subjects(look(lab), Code.WRONG_CHECKSUM) == [ref.name]


def test_a_pinned_version_of_another_size(lab: Lab, record: Record) -> None:
    """It is wrong, and nothing else is right."""
    ref = packs(lab, record)[0]
    lab.store.corrupt(ref.name, ref.version, b"short")
    report = look(lab)
    assert subjects(report, Code.WRONG_SIZE) == subjects(report, Code.MISSING) == [ref.name]


def test_a_copied_repository_is_relocated(make_repository: Any, make_source: Any) -> None:
    """The right bytes under other version ids are information; missing locks are not."""
    for number, (mode, expected) in enumerate(
        [(LockMode.NONE, Concern.NONE), (LockMode.COMPLIANCE, Concern.RETENTION)]
    ):
        lab = make_repository(mode, name=f"lab{number}")
        lab.snapshot(make_source(f"source{number}"))
        for item in list(lab.store.versions("")):
            data = lab.store.get(item.name, item.version)
            lab.store.remove(item.name, item.version)
            lab.store.plant(item.name, data)
        report = look(lab, share=1.0)
        assert Code.RELOCATED in codes(report)
        assert codes(report) <= {Code.RELOCATED, Code.ADVISORY, Code.LOCK_GAP}
        assert report.gravest is expected


def test_a_relocated_object_is_read_where_it_is(lab: Lab, record: Record) -> None:
    """One that was put away under another version and then rotted is no copy."""
    ref = packs(lab, record)[0]
    data = lab.store.get(ref.name, ref.version)
    lab.store.remove(ref.name, ref.version)
    copy = lab.store.plant(ref.name, data)
    assert codes(look(lab, share=1.0)) == {Code.RELOCATED, Code.LOCK_GAP}
    lab.store.corrupt(ref.name, copy.version, flipped(data))
    assert Code.WRONG_BYTES in codes(look(lab, share=1.0))


def test_inventories_that_lie(
    lab: Lab, make_source: MakeSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thief of a writer key signs what he likes: sums and the domain object are compared."""
    from vault.format.inventory import encode

    def without_domain(objects: Any, *rest: Any) -> bytes:
        return encode([ref for ref in objects if not ref.name.startswith("domains/")], *rest)

    with monkeypatch.context() as patch:
        patch.setattr("vault.snapshot.publish.inventory.encode", without_domain)
        lab.snapshot(make_source())
    report = look(lab)
    assert [finding.problem for finding in report.findings if finding.code is Code.INVENTORY] == [
        "inventory leaves out the domain object"
    ]

    def renamed(objects: Any, *rest: Any) -> bytes:
        one, *others = objects
        return encode([dataclasses.replace(one, sha256=Digest(bytes(32))), *others], *rest)

    with monkeypatch.context() as patch:
        patch.setattr("vault.snapshot.publish.inventory.encode", renamed)
        lab.snapshot(make_source("third", seed=5), dataset="third")
    report = look(lab)
    (finding,) = (
        f for f in report.findings if f.code is Code.INVENTORY and "can't be" in f.problem
    )
    assert finding.subject == f"ledger {lab.open().head.seq}"
    monkeypatch.setattr(
        "vault.snapshot.publish.InventoryRef",
        lambda **fields: InventoryRef(**{**fields, "objects": 1}),
    )
    lab.snapshot(make_source("other", seed=4))
    assert [each.readable for each in look(lab).snapshots] == [True, True, False]


# --- hidden versions ---


def test_an_overwritten_third_and_markers_on_everything_are_told(lab: Lab, record: Record) -> None:
    """Each act with what and when; what is owed is there all the same."""
    before = list(lab.store.versions(""))
    lab.clock.advance(days=1)
    for number, item in enumerate(before):
        if number % 3 == 0:
            lab.store.plant(item.name, b"junk" * number)
        lab.store.put_marker(item.name)
    report = look(lab, share=1.0)
    third = sorted(item.name for number, item in enumerate(before) if number % 3 == 0)
    assert subjects(report, Code.MARKER) == sorted(item.name for item in before)
    assert sorted(subjects(report, Code.OTHER_BYTES) + subjects(report, Code.JUNK_STATEMENT)) == (
        third
    )
    assert codes(report) == {Code.MARKER, Code.OTHER_BYTES, Code.JUNK_STATEMENT}
    assert all("2030-01-02T00:00:00Z" in finding.found for finding in report.findings)
    assert report.gravest is Concern.INTEGRITY
    assert lab.verify(record).passed


@pytest.mark.parametrize("states_checksums", [True, False])
def test_an_overwrite_of_the_same_size_is_told_by_digest(
    lab: Lab,
    record: Record,
    monkeypatch: pytest.MonkeyPatch,
    states_checksums: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    """By the checksum the store states, or by the bytes where it states none."""
    status = lab.store.status

    def silent(name: str, version: str) -> Any:
        return dataclasses.replace(status(name, version), sha256=None)

    if not states_checksums:
        monkeypatch.setattr(lab.store, "status", silent)
    ref = packs(lab, record)[0]
    data = lab.store.get(ref.name, ref.version)
    lab.store.plant(ref.name, flipped(data))
    report = look(lab)
    (finding,) = report.findings
    assert (finding.code, finding.subject) == (Code.OTHER_BYTES, ref.name)
    assert "hides the object" in finding.problem


def test_what_may_not_be_read_is_said(
    lab: Lab, record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An auditor without the right to packs can't tell a second version of the same size."""
    ref = packs(lab, record)[0]
    lab.store.plant(ref.name, flipped(lab.store.get(ref.name, ref.version)))
    status = lab.store.status

    def refuse(point: FaultPoint) -> None:
        if point.operation == "get" and point.name.startswith("packs/"):
            raise StorageError("403")

    monkeypatch.setattr(
        lab.store,
        "status",
        lambda name, version: dataclasses.replace(status(name, version), sha256=None),
    )
    lab.store.fault = refuse
    report = look(lab)
    assert codes(report) == {Code.NOT_READ}


def test_a_store_that_is_gone_meanwhile_is_no_word_about_an_object(
    lab: Lab, record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What can't be reached now may be right: the audit ends, and no finding says otherwise."""
    ref = packs(lab, record)[0]
    lab.store.plant(ref.name, flipped(lab.store.get(ref.name, ref.version)))
    status = lab.store.status
    monkeypatch.setattr(
        lab.store,
        "status",
        lambda name, version: dataclasses.replace(status(name, version), sha256=None),
    )

    hung_up: list[FaultPoint] = []

    def hang_up(point: FaultPoint) -> None:
        if point.operation == "get" and point.name == ref.name and not hung_up:
            hung_up.append(point)  # it answers again when other things are asked
            raise StorageUnavailableError("timed out")

    lab.store.fault = hang_up
    with pytest.raises(StorageUnavailableError):
        look(lab)
    assert hung_up


def test_many_versions_of_one_name_are_summed_up(lab: Lab, record: Record) -> None:
    """A few are told one by one, the rest as a number with first and last time."""
    name = packs(lab, record)[0].name
    for _ in range(50):
        lab.store.plant(name, b"junk")
    report = look(lab)
    assert len(report.findings) == 9
    assert "50 in all" in report.findings[-1].problem


@pytest.mark.parametrize(
    "name", ["packs/ab/junk", "ledger/7", "READ ME\n", "ledger/0000000000000001/x"]
)
def test_foreign_names_are_told_and_harm_nothing(lab: Lab, record: Record, name: str) -> None:
    """A warning: nothing of the vault's reads them."""
    lab.store.plant(name, b"hello")
    report = look(lab)
    assert subjects(report, Code.FOREIGN_NAME) == [name]
    assert report.gravest is Concern.NONE


def test_probes_and_leftovers_of_killed_runs_are_no_findings(lab: Lab, record: Record) -> None:
    """The former are ignored, the latter counted; a repeated PUT of one is no act either."""
    lab.store.plant("probe/abc/x", b"x")
    digest = Digest.of(b"orphan")
    name = f"packs/{str(digest)[:2]}/{digest}"
    lab.store.plant(name, b"orphan")
    report = look(lab)
    assert codes(report) == set()
    assert report.totals.unneeded == 2  # and the index object
    lab.store.plant(name, b"orphan")
    assert codes(look(lab)) == set()
    lab.store.plant(name, b"ORPHAN")
    assert subjects(look(lab), Code.OTHER_BYTES) == [name]


# --- the ledger ---


def test_thousands_of_junk_versions_at_the_next_ledger_name(lab: Lab, record: Record) -> None:
    """Told as a few and a number; nothing else suffers."""
    name = ledger_name(record.seq + 1)
    for number in range(3000):
        lab.store.plant(name, b"junk %d" % number)
    report = look(lab)
    assert codes(report) == {Code.JUNK_STATEMENT}
    assert len(report.findings) == 9
    assert "3000 in all" in report.findings[-1].problem
    assert report.gravest is Concern.INTEGRITY


def heartbeat(lab: Lab, key: Signer, *, after: Record, seq: int | None = None) -> bytes:
    """A valid-looking envelope that follows a statement."""
    payload = build_statement(
        type="heartbeat",
        repository=lab.open().ledger.repository_id,
        seq=after.seq + 1 if seq is None else seq,
        prev=after.head,
        time=lab.clock(),
        tool="test",
        subject=[("repository", lab.root)],
        body=HeartbeatBody(note="hello"),
        by=[key.public.id],
    )
    return seal_envelope(payload, [key])


def test_a_junk_statement_with_a_valid_looking_envelope(lab: Lab, record: Record) -> None:
    """Right in everything but that nobody knows its key; and a real one at another number."""
    stranger = SigningKey.generate()
    lab.store.plant(ledger_name(record.seq + 1), heartbeat(lab, stranger, after=record))
    lab.store.plant(ledger_name(record.seq + 2), record.envelope)
    report = look(lab)
    assert subjects(report, Code.JUNK_STATEMENT) == [
        ledger_name(record.seq + 1),
        ledger_name(record.seq + 2),
    ]
    assert codes(report) == {Code.JUNK_STATEMENT}
    assert not any("hides" in finding.problem for finding in report.findings)  # nothing is there


def test_lost_races_are_information(lab: Lab, record: Record) -> None:
    """The second statement of a known key at a taken number."""
    before = lab.open().ledger.records[record.seq - 1]
    lab.store.plant(ledger_name(record.seq), heartbeat(lab, lab.host.key.signing, after=before))
    report = look(lab)
    assert codes(report) == {Code.LOST_RACE}
    assert report.findings[0].severity is Severity.INFO
    assert report.gravest is Concern.NONE


def test_a_lost_race_of_a_writer_that_was_revoked_since_is_one_still(
    lab: Lab, record: Record
) -> None:
    """Keys that were once listed are known."""
    before = lab.open().ledger.records[record.seq - 1]
    lost = heartbeat(lab, lab.host.key.signing, after=before)
    lab.store.plant(ledger_name(record.seq), lost)
    key_id = lab.host.key.signing.public.id
    repository = lab.open()
    writer = repository.ledger.writers[key_id]
    revoke_writer(
        repository, lab.root_key.enroller, writer, distrust_from=None, reason="gone", tool="test"
    )
    assert codes(look(lab)) == {Code.LOST_RACE}
    assert known_keys(lab.open().ledger).keys() >= {key_id}


def test_a_statement_that_came_first_by_a_key_not_listed_then(lab: Lab, record: Record) -> None:
    """A thief goes on with a key that was revoked; it takes no number, and is told."""
    repository = lab.open()
    writer = repository.ledger.writers[lab.host.key.signing.public.id]
    revoked = revoke_writer(
        repository, lab.root_key.enroller, writer, distrust_from=None, reason="theft", tool="test"
    )
    name = ledger_name(revoked.seq + 1)
    lab.store.plant(name, heartbeat(lab, lab.host.key.signing, after=revoked))
    body = PolicyBody(action="retire", name="www", weakens=True)
    draft = Draft(type="policy", subject=[("policy", Digest.of(b"www"))], body=body)
    Repository.open(lab.store, lab.root, clock=lab.clock).append(
        lambda _: draft, [lab.root_key.policy], tool="test"
    )
    report = look(lab)
    assert subjects(report, Code.UNLISTED_KEY) == [name]
    assert codes(report) == {Code.UNLISTED_KEY}
    assert report.gravest is Concern.INTEGRITY


def test_pages_say_what_the_ledger_says(
    lab: Lab, record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All statements of a page, in their order, and nothing else."""
    monkeypatch.setattr("vault.ledger.pages.PAGE_LENGTH", 2)
    first, second, third = (each.envelope for each in lab.open().ledger.records)
    fork = heartbeat(lab, lab.host.key.signing, after=lab.open().ledger.records[0])
    name = "ledger-page/0000000000"
    lab.store.plant(name, first + b"\n" + second + b"\n")
    assert codes(look(lab)) == set()
    for wrong in (
        second + b"\n" + first + b"\n",
        first + b"\n",
        first + b"\n" + second + b"\n" + third + b"\n",
        b"junk\njunk\n",
        first + b"\n" + fork + b"\n",
        b"",
    ):
        twin = lab.with_store(lab.store.copy())
        twin.store.plant(name, wrong)
        report = look(twin)
        assert subjects(report, Code.WRONG_PAGE) == [name]
        assert codes(report) == {Code.WRONG_PAGE}
    lab.store.put_marker(name)
    assert codes(look(lab)) == {Code.MARKER}


def test_a_statement_of_another_history_is_a_fork(lab: Lab, record: Record) -> None:
    """Somebody who can sign rewrote what went before."""
    wrong = dataclasses.replace(lab.open().ledger.records[0], digest=Digest(bytes(32)))
    forged = heartbeat(lab, lab.host.key.signing, after=wrong, seq=record.seq)
    lab.store.plant(ledger_name(record.seq), forged)
    report = look(lab)
    assert codes(report) == {Code.FORK}
    assert report.gravest is Concern.INTEGRITY


def test_a_gap_in_the_ledger_is_a_finding_and_the_rest_is_audited(
    lab: Lab, record: Record, make_source: MakeSource
) -> None:
    """Other commands take the ledger to end before it."""
    last = lab.snapshot(make_source("other", seed=5)).record
    lab.store.remove(ledger_name(record.seq), record.version)
    assert lab.open().head.seq == record.seq - 1
    report = look(lab)
    assert subjects(report, Code.BEYOND_GAP) == [ledger_name(last.seq)]
    assert report.head.seq == record.seq - 1
    assert report.gravest is Concern.INTEGRITY


def test_what_is_opened_tolerant_never_appends(lab: Lab, record: Record) -> None:
    """Nothing follows a chain finding."""
    repository = Repository.open(lab.store, lab.root, clock=lab.clock, tolerant=True)
    body = HeartbeatBody(note="hello")
    draft = Draft(type="heartbeat", subject=[("repository", lab.root)], body=body)
    with pytest.raises(ConfigError):
        repository.append(lambda _: draft, [lab.host.key.signing], tool="test")
    assert lab.open().head.digest == record.digest


def test_what_is_appended_meanwhile_is_no_gap(
    lab: Lab, record: Record, make_source: MakeSource
) -> None:
    """A snapshot that is published between opening and listing."""
    repository = Repository.open(lab.store, lab.root, clock=lab.clock, tolerant=True)
    lab.snapshot(make_source("other", seed=5))
    with make_workers(0) as workers:
        report = audit_repository(repository, workers=workers)
    assert codes(report) == set()
    assert report.head.seq == record.seq


def test_heads_that_the_ledger_must_contain(lab: Lab, record: Record) -> None:
    """An older or another history is a finding, not the end."""
    assert codes(look(lab, floors=[record.head])) == set()
    newer = Head(seq=record.seq + 5, digest=record.digest)
    other = Head(seq=record.seq, digest=Digest(bytes(32)))
    report = look(lab, floors=[newer, other])
    assert subjects(report, Code.OTHER_HISTORY) == ["ledger", "ledger"]
    assert report.gravest is Concern.INTEGRITY


def test_void_statements_are_told(lab: Lab, record: Record) -> None:
    """A key that signs what is not its role's."""
    body = HoldBody(action="add", snapshot=record.seq, reason="none", author="thief")
    payload = build_statement(
        type="hold",
        repository=lab.open().ledger.repository_id,
        seq=record.seq + 1,
        prev=record.head,
        time=lab.clock(),
        tool="test",
        subject=[(ledger_name(record.seq), record.digest)],
        body=body,
        by=[lab.host.key.signing.public.id],
    )
    name = ledger_name(record.seq + 1)
    repository = lab.open()
    repository.put(
        name,
        seal_envelope(payload, [lab.host.key.signing]),
        lab.clock() + repository.parameters.ledger_span,
    )
    report = look(lab)
    assert subjects(report, Code.VOID) == [f"ledger {record.seq + 1}"]
    assert codes(report) == {Code.VOID}


def _failed_checks(lab: Lab) -> list[tuple[str, str]]:
    """What is called bad, with what the audit says of it."""
    report = look(lab)
    told = [each for each in report.findings if each.code is Code.CALLED_BAD]
    assert all(each.concern is Concern.INTEGRITY for each in told)
    assert (report.gravest is Concern.INTEGRITY) == bool(told)
    return [(each.subject, each.problem) for each in told]


@pytest.mark.parametrize("kind", ["verification", "restore", "drill"])
def test_a_failed_check_that_names_no_pack_is_told_until_it_is_taken_back(
    lab: Lab, record: Record, make_source: MakeSource, kind: str
) -> None:
    """Forged or broken entries: without the key an audit can't see them, but it can read."""
    other = lab.snapshot(make_source("other", files=3), dataset="other").record
    assert _failed_checks(lab) == []
    failed = lab.say(kind, record.seq, "failed")
    assert _failed_checks(lab) == [
        (
            f"snapshot {record.seq}",
            f"{kind} {failed} found it wrong, and none has read it right since",
        )
    ]
    snapshots = {each.seq: each for each in look(lab, 1.0).snapshots}
    assert snapshots[record.seq].is_hit
    assert (snapshots[record.seq].bad, snapshots[record.seq].called_bad) == (0, failed)
    assert not snapshots[other.seq].is_hit
    lab.say("verification", record.seq)
    assert _failed_checks(lab) == []
    assert not any(each.is_hit for each in look(lab).snapshots)


def test_a_failed_check_is_told_by_the_packs_that_it_names(lab: Lab, record: Record) -> None:
    """Once another check read those right, what was found of the snapshot itself still stands."""
    pack = packs(lab, record)[0]
    lab.say("verification", record.seq, "failed", bad=[pack.sha256.hex()])
    assert [subject for subject, _ in _failed_checks(lab)] == [pack.name]
    sample: dict[str, Any] = {"share": 50_000, "nonce": "0" * 32}
    lab.say("verification", record.seq, "partial", cleared=[pack.sha256.hex()], **sample)
    assert [subject for subject, _ in _failed_checks(lab)] == [f"snapshot {record.seq}"]


def test_a_failed_check_of_a_snapshot_that_is_owed_no_more_is_not_told(
    lab: Lab, record: Record
) -> None:
    """As with all else of it."""
    lab.say("verification", record.seq, "failed")
    lab.clock.advance(days=500)
    assert _failed_checks(lab) == []


# --- locks ---


@pytest.fixture
def unextended(lab: Lab, make_source: MakeSource, monkeypatch: pytest.MonkeyPatch) -> Record:
    """A snapshot that reused packs and extended none of them, as a broken writer would."""
    source = make_source(files=10)
    lab.snapshot(source, retention=timedelta(days=10))
    (source / "new").write_bytes(b"new" * 5000)
    extend = lab.store.extend

    def extend_no_pack(name: str, version: str, retention: Retention) -> datetime:
        if name.startswith("packs/"):
            return retention.until
        until: datetime = extend(name, version, retention)
        return until

    with monkeypatch.context() as patch:
        patch.setattr(lab.store, "extend", extend_no_pack)
        return lab.snapshot(source, retention=timedelta(days=90)).record


def test_a_lock_that_ends_before_the_snapshot_is_a_gap(lab: Lab, unextended: Record) -> None:
    """By object and by snapshot: until when, by which object, how many days are left."""
    report = look(lab)
    assert codes(report) == {Code.LOCK_GAP}
    assert report.gravest is Concern.RETENTION
    first, second = report.snapshots
    assert first.protection is not None
    assert second.protection is not None
    assert not first.protection.has_gap
    assert first.protection.days_to_gap(lab.clock()) is None
    assert second.protection.weakest in subjects(report, Code.LOCK_GAP)
    ends = {
        ref.name: lab.store.status(ref.name, ref.version).retention.until
        for ref in packs(lab, unextended)
    }
    assert second.protection.until == min(ends.values())
    assert second.protection.until == ends[second.protection.weakest]
    days = second.protection.days_to_gap(lab.clock())
    assert days == (min(ends.values()) - lab.clock()).days
    lab.clock.advance(days=80)
    later = look(lab).snapshots[-1].protection
    assert later is not None
    assert later.days_to_gap(lab.clock()) == 0


def test_a_lock_that_ends_with_the_snapshot_is_no_gap(lab: Lab, unextended: Record) -> None:
    """To the second: one that ends a second before it is."""
    until = snapshot_body(unextended).until
    for early, found in ((timedelta(seconds=1), {Code.LOCK_GAP}), (timedelta(0), set())):
        for ref in packs(lab, unextended):
            held = lab.store.status(ref.name, ref.version).retention
            if held.until < until:
                lock = dataclasses.replace(held, until=until - early)
                lab.store.extend(ref.name, ref.version, lock)
        assert codes(look(lab)) == found


def test_protection_of_one_snapshot_is_what_the_audit_says(
    lab: Lab, unextended: Record, make_repository: MakeRepository, make_source: MakeSource
) -> None:
    """For `vault status`."""
    expected = look(lab).snapshots[-1].protection
    assert protection(lab.open(), unextended) == expected
    other = make_repository(LockMode.NONE, name="other")
    record = other.snapshot(make_source("there", seed=8)).record
    assert protection(other.open(), record) is None


def test_an_inventory_of_too_many_objects_is_its_snapshots_fault(
    lab: Lab, record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A writer's key can be stolen: what it lists does not stop the audit."""
    small = {"keep": inventory.KEPT_LINES, "most": 1}
    monkeypatch.setattr(Resolver.__init__, "__kwdefaults__", small)
    report = look(lab)
    (found,) = [each for each in report.findings if each.code is Code.INVENTORY]
    assert found.subject == f"ledger {record.seq}"
    assert "too many objects" in found.problem
    assert found.expected == "at most 1"
    monkeypatch.undo()
    assert not look(lab).findings


def test_protection_needs_the_inventory_and_every_object(lab: Lab, record: Record) -> None:
    """An object that is gone protects nothing; without an inventory nothing can be said."""
    ref = packs(lab, record)[0]
    lab.store.remove(ref.name, ref.version)
    found = protection(lab.open(), record)
    assert found is not None
    assert (found.until, found.weakest, found.has_gap) == (None, ref.name, True)
    assert found.days_to_gap(lab.clock()) == 0
    lab.store.remove(*_place(lab.open().inventory_ref(record)))
    with pytest.raises(IntegrityError):
        protection(lab.open(), record)


def test_protection_is_that_of_relocated_objects(lab: Lab, record: Record) -> None:
    """In a copied bucket whose objects were locked anew; an unlocked copy protects nothing."""
    before = protection(lab.open(), record)
    assert before is not None
    for item in list(lab.store.versions("")):
        data = lab.store.get(item.name, item.version)
        lock = lab.store.status(item.name, item.version).retention
        lab.store.remove(item.name, item.version)
        lab.store.put(item.name, data, sha256=Digest.of(data), retention=lock)
    assert protection(lab.open(), record) == before
    ref = packs(lab, record)[0]
    (item,) = lab.store.versions(ref.name)
    data = lab.store.get(ref.name, item.version)
    lab.store.remove(ref.name, item.version)
    lab.store.plant(ref.name, data)
    after = protection(lab.open(), record)
    assert after is not None
    assert (after.until, after.weakest) == (None, ref.name)


def _place(ref: ObjectRef) -> tuple[str, str]:
    return ref.name, ref.version


def _unlock(lab: Lab, name: str, until: timedelta | None, mode: LockMode) -> None:
    """Replace the lock of every version of a name, as no store would allow."""
    versions = lab.store._objects[name]
    retention = None
    if until is not None:
        retention = Retention(mode=mode, until=lab.clock() + until)
    lab.store._objects[name] = [
        dataclasses.replace(version, lock=dataclasses.replace(version.lock, retention=retention))
        for version in versions
    ]


@pytest.mark.parametrize("kind", ["packs/", "inventory/", "domains/", "ledger/"])
@pytest.mark.parametrize("days", [None, 5])
def test_every_kind_of_need_must_be_locked(
    lab: Lab, record: Record, kind: str, days: int | None
) -> None:
    """I2: packs, inventory, domain object and the ledger, statement 0 included."""
    name = next(iter(lab.store.versions(kind))).name
    _unlock(lab, name, None if days is None else timedelta(days=days), LockMode.COMPLIANCE)
    report = look(lab)
    assert subjects(report, Code.LOCK_GAP) == [name]
    assert codes(report) == {Code.LOCK_GAP}
    found = report.snapshots[0].protection
    assert found is not None
    assert found.weakest == name
    assert found.days_to_gap(lab.clock()) == (days or 0)


@pytest.mark.parametrize("kind", ["domains/", "ledger/", "evidence/"])
def test_the_ledger_term_is_longer_than_any_snapshot(lab: Lab, record: Record, kind: str) -> None:
    """A lock that covers the snapshots of today is not enough for these."""
    repository = lab.open()
    digest = repository.put_evidence(b"plan")
    body = PruneBody(phase="result", plan=str(digest))
    draft = Draft(type="prune", subject=[(f"evidence/{digest}", digest)], body=body)
    repository.append(lambda _: draft, [lab.root_key.pruner], tool="test")
    assert codes(look(lab)) == set()
    name = next(iter(lab.store.versions(kind))).name
    _unlock(lab, name, timedelta(days=400), LockMode.COMPLIANCE)
    report = look(lab)
    assert subjects(report, Code.LOCK_GAP) == [name]
    assert all(
        each.protection is not None and not each.protection.has_gap for each in report.snapshots
    )


def test_old_statements_are_needed_by_the_snapshots_of_today(
    lab: Lab, make_source: MakeSource
) -> None:
    """When their first term is over it is the youngest snapshot that counts."""
    source = make_source()
    term = lab.open().parameters.ledger_span
    for part in (0.3, 0.3, 0.39):
        lab.clock.now += part * term
        lab.snapshot(source, retention=timedelta(days=60))
    assert codes(look(lab)) == set()
    _unlock(lab, ledger_name(0), 0.02 * term, LockMode.COMPLIANCE)
    assert subjects(look(lab), Code.LOCK_GAP) == [ledger_name(0)]


def test_a_weaker_mode_than_promised(lab: Lab, record: Record) -> None:
    """Governance where compliance was promised."""
    ref = packs(lab, record)[0]
    _unlock(lab, ref.name, timedelta(days=400), LockMode.GOVERNANCE)
    report = look(lab)
    assert codes(report) == {Code.LOCK_MODE}
    assert report.gravest is Concern.RETENTION


def test_integrity_is_graver_than_a_gap(lab: Lab, unextended: Record) -> None:
    """Exit 4 before 5."""
    lab.store.put_marker(packs(lab, unextended)[0].name)
    report = look(lab)
    assert codes(report) == {Code.LOCK_GAP, Code.MARKER}
    assert report.gravest is Concern.INTEGRITY


def test_what_the_store_would_do_by_itself_is_told(
    lab: Lab, record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lifecycle rule needs no key and leaves no statement; who may not ask is told that."""
    assert not look(lab).findings
    with monkeypatch.context() as patch:
        patch.setattr(lab.store, "hazards", lambda: ["lifecycle rule 'tidy' expires objects"])
        report = look(lab)
        assert [finding.code for finding in report.findings] == [Code.BUCKET_RULE]
        assert report.gravest is Concern.RETENTION

    def refuse() -> list[str]:
        raise StorageError("denied")

    monkeypatch.setattr(lab.store, "hazards", refuse)
    assert [finding.code for finding in look(lab).findings] == [Code.NOT_READ]


def test_a_clock_that_is_ahead_hides_nothing(lab: Lab, record: Record) -> None:
    """What is owed goes by the earlier of two clocks, and the difference is told."""

    def tomorrow() -> Any:
        return lab.clock() + timedelta(days=400)

    repository = Repository.open(lab.store, lab.root, clock=tomorrow, tolerant=True)
    with make_workers(0) as workers:
        report = audit_repository(repository, workers=workers)
    assert [each.seq for each in report.snapshots] == [record.seq]
    assert codes(report) == {Code.CLOCK}


# --- limits ---


def test_findings_are_counted_and_a_bounded_number_is_kept() -> None:
    """An attacker makes any number of names."""
    findings = Findings()
    for number in range(LIMIT + 5):
        findings.add(Code.FOREIGN_NAME, str(number), "foreign")
    findings.add(Code.MARKER, "x", "marker")
    assert len(findings.kept) == LIMIT + 1
    assert findings.omitted == 5


def test_inventories_that_are_kept_for_their_successors_are_bounded(
    lab: Lab, record: Record
) -> None:
    """By bytes."""
    collector = Collector(lab.open(), Findings(), room=10)
    assert collector.add_snapshots([record]) == [record]
    assert not collector._cache


def test_nothing_is_written(lab: Lab, record: Record, make_source: Callable[..., Path]) -> None:
    """An audit reads; each inventory once."""
    seen: list[tuple[str, str]] = []

    def note(point: FaultPoint) -> None:
        if point.phase == "before":
            seen.append((point.operation, point.name))

    lab.store.fault = note
    look(lab, share=1.0)
    assert {operation for operation, _ in seen} == {"now", "get", "status", "versions"}
    assert seen.count(("get", lab.open().inventory_ref(record).name)) == 1


def test_a_gap_by_its_numbers(lab: Lab, record: Record) -> None:
    """Days are whole and never negative."""
    until = snapshot_body(record).until
    short = Protection(until=until - timedelta(hours=1), weakest="x", promised=until)
    assert short.has_gap
    assert short.days_to_gap(until - timedelta(days=3)) == 2
    assert short.days_to_gap(until + timedelta(days=3)) == 0
    assert not dataclasses.replace(short, until=until).has_gap


def test_statements_that_were_distrusted_are_a_warning(lab: Lab, record: Record) -> None:
    """Somebody saw to it: an audit does not stay red for ever."""
    repository = lab.open()
    writer = find_writer(repository.ledger, lab.host.key.name)
    revoke_writer(
        repository,
        lab.root_key.enroller,
        writer,
        distrust_from=writer.added + 1,
        reason="theft",
        tool="test",
    )
    report = look(lab)
    assert f"ledger {record.seq}" in subjects(report, Code.DISTRUSTED)
    assert report.gravest is not Concern.INTEGRITY
