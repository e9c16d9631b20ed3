"""An audit opens what statements cite, and looks at times, locks and recipients they promise."""

import dataclasses
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest

from tests.support.lab import Lab, MakeRepository
from tests.support.trees import MakeSource
from vault.audit import AuditReport, Code, Concern, audit_repository
from vault.audit.sealing import Recipients, sealed_to
from vault.clock import to_rfc3339
from vault.crypto.keys import RecipientKey, Signer, SigningKey, recipient_id
from vault.custody.sampling import NO_PACKS, WHOLE, Sample
from vault.encoding import b64encode
from vault.errors import FormatError, StorageError
from vault.ledger.envelope import build_statement, seal_envelope
from vault.ledger.records import Record
from vault.ledger.statements import EventBody, HeartbeatBody, Recipient
from vault.machine.workers import make_workers
from vault.model import Digest, LockMode, replace_body
from vault.repository import attestations
from vault.repository.append_statements import Draft
from vault.repository.repository import Repository
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


def look(lab: Lab, sample: Sample = NO_PACKS) -> AuditReport:
    """One audit, as the command line makes it."""
    repository = Repository.open(lab.store, lab.root, clock=lab.clock, tolerant=True)
    with make_workers(0) as pool:
        return audit_repository(repository, sample=sample, workers=pool)


def found(report: AuditReport) -> list[tuple[Code, str]]:
    """What was found of what."""
    return [(each.code, each.subject) for each in report.findings]


# --- attestations ---


def attested(lab: Lab, record: Record, key: Signer | None = None, **changes: Any) -> bytes:
    """An attestation of a restore of that snapshot, with some things otherwise."""
    repository = lab.open()
    honest = attestations.attestation_of(
        repository,
        kind="restore",
        verdict="passed",
        snapshot=record,
        started=lab.clock(),
        tool="vault test",
        details={},
    )
    return attestations.sign(replace_body(honest, **changes), key or lab.recovery.restorer)


def cite(lab: Lab, record: Record, data: bytes, kind: str = "restore", **changes: Any) -> int:
    """A statement by the restorer's key that cites these bytes, whatever they are."""
    repository = lab.open()
    digest = repository.put_evidence(data)
    now = lab.clock()
    body = EventBody(
        verdict="passed",
        snapshot=record.seq,
        started=now,
        finished=now,
        attestation=str(digest),
    )
    draft = Draft(
        type=kind,
        subject=[(f"evidence/{digest}", digest)],
        body=replace_body(body, **changes),
    )
    return repository.append(lambda _: draft, [lab.recovery.restorer], tool="test").seq


def test_an_honest_event_has_no_finding(lab: Lab, record: Record) -> None:
    """The control of what follows."""
    cite(lab, record, attested(lab, record))
    assert found(look(lab, WHOLE)) == []


@pytest.mark.parametrize(
    ("cited", "stated"),
    [
        (b"no envelope at all", {}),
        ({"kind": "drill"}, {}),
        ({"verdict": "partial"}, {}),
        ({"verdict": "failed"}, {}),
        ({"snapshot": None, "manifest": ""}, {}),
        ({"manifest": "ab" * 32}, {}),
        ({"repository": "ab" * 16}, {}),
        ({"head": "1:" + "ab" * 32}, {}),
        ({"head": "9999:" + "ab" * 32}, {}),
        ({"started": "2020-01-01T00:00:00Z"}, {}),
        ({"finished": "2020-01-01T00:00:00Z"}, {}),
        ({}, {"cleared": ("ab" * 32,)}),
        ("stranger", {}),
        ("writer", {}),
        ("root", {}),
    ],
)
def test_an_event_is_believed_only_as_far_as_it_is_attested(
    lab: Lab, record: Record, cited: Any, stated: dict[str, Any]
) -> None:
    """Whatever is signed by the restorer's own key: verdict, times, snapshot, kind, signer."""
    signers = {
        "stranger": SigningKey.generate(),
        "writer": lab.host.key.signing,
        "root": lab.root_key.root,
    }
    match cited:
        case bytes():
            data = cited
        case str():
            data = attested(lab, record, signers[cited])
        case _:
            data = attested(lab, record, **cited)
    seq = cite(lab, record, data, **stated)
    report = look(lab)
    assert found(report) == [(Code.ATTESTATION, f"ledger {seq}")]
    assert report.gravest is Concern.INTEGRITY


@pytest.mark.parametrize("kind", ["restore", "drill"])
def test_what_an_event_cites_is_owed(lab: Lab, record: Record, kind: str) -> None:
    """Its attestation is gone, also if other bytes lie under its name: both are told."""
    data = attested(lab, record, kind=kind)
    cite(lab, record, data, kind=kind)
    assert found(look(lab)) == []
    name = f"evidence/{Digest.of(data)}"
    (item,) = lab.store.versions(name)
    lab.store.remove(name, item.version)
    assert found(look(lab)) == [(Code.MISSING, name)]
    lab.store.plant(name, b"junk")
    report = look(lab)
    assert (Code.MISSING, name) in found(report)
    assert report.gravest is Concern.INTEGRITY


def test_missing_and_rotten_evidence_is_told_as_that(lab: Lab, record: Record) -> None:
    """Not twice."""
    data = attested(lab, record)
    seq = cite(lab, record, data)
    (item,) = lab.store.versions(f"evidence/{Digest.of(data)}")
    twin = lab.with_store(lab.store.copy())
    twin.store.remove(item.name, item.version)
    assert found(look(twin)) == [(Code.MISSING, item.name)]
    lab.store.corrupt(item.name, item.version, data[:-1] + b"!")
    assert found(look(lab)) == [(Code.ATTESTATION, f"ledger {seq}")]


# --- recipients ---


def seal_to(lab: Lab, monkeypatch: pytest.MonkeyPatch, recipients: Sequence[bytes]) -> None:
    """Packs of this host are sealed to others from now on."""
    from vault.crypto.sealed import Session

    real = Session.new
    monkeypatch.setattr(
        "vault.snapshot.snapshot_attempt.Session.new", lambda id_, _: real(id_, list(recipients))
    )


@pytest.mark.parametrize("sample", [NO_PACKS, WHOLE])
def test_a_snapshot_sealed_to_nobody_is_found(
    lab: Lab,
    record: Record,
    make_source: MakeSource,
    monkeypatch: pytest.MonkeyPatch,
    sample: Sample,
) -> None:
    """By the headers, which are read also where packs are not; and which snapshot it is."""
    assert found(look(lab, sample)) == []
    with monkeypatch.context() as patch:
        seal_to(lab, patch, [RecipientKey.generate().public_raw])
        lost = lab.snapshot(make_source("lost", seed=3), dataset="lost").record
    report = look(lab, sample)
    assert {code for code, _ in found(report)} == {Code.NOT_SEALED_TO}
    assert all(name.startswith("packs/") for _, name in found(report))
    assert report.gravest is Concern.INTEGRITY
    assert [each.seq for each in report.snapshots if each.is_hit] == [lost.seq]
    assert report.totals.headers == report.totals.packs


def test_one_sealed_to_others_as_well_is_right(
    lab: Lab, record: Record, make_source: MakeSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More recipients than the root lists are for the site to know."""
    with monkeypatch.context() as patch:
        seal_to(lab, patch, [*lab.open().ledger.recipients, RecipientKey.generate().public_raw])
        lab.snapshot(make_source("more", seed=3), dataset="more")
    assert found(look(lab)) == []


def test_who_may_not_read_packs_sees_no_headers(lab: Lab, record: Record) -> None:
    """The auditor's role: no finding, and the count says that none was seen."""

    def refuse(point: FaultPoint) -> None:
        if point.operation == "get" and point.name.startswith("packs/"):
            raise StorageError("403")

    lab.store.fault = refuse
    report = look(lab)
    assert found(report) == []
    assert (report.totals.headers, report.totals.packs_read) == (0, 0)


def test_a_pack_without_a_header(lab: Lab, record: Record) -> None:
    """A header without a recipient is a finding, because no key opens the object."""
    ref = next(ref for ref in lab.open().inventory(record).objects if ref.name.startswith("packs/"))
    data = lab.store.get(ref.name, ref.version)
    lab.store.corrupt(ref.name, ref.version, b"X" + data[1:])
    assert found(look(lab)) == [(Code.NOT_SEALED_TO, ref.name)]
    assert found(look(lab, WHOLE)) == [(Code.WRONG_BYTES, ref.name)]
    for junk in (b"", b"VAULTOBJ", data[:200]):
        with pytest.raises(FormatError):
            sealed_to(lambda size, junk=junk: junk[:size])  # type: ignore[misc]


def test_recipients_of_a_later_root_are_asked_of_later_packs_only(lab: Lab, record: Record) -> None:
    """A run that began under the old root may end under the new one."""
    from vault.ledger.statements import RootBody

    repository = lab.open()
    old = repository.ledger.root
    other = RecipientKey.generate()
    added = Recipient(name="second", public=b64encode(other.public_raw))
    lab.clock.advance(days=30)
    body = replace_body(old, version=2, recipients=(*old.recipients, added))
    assert isinstance(body, RootBody)
    draft = Draft(type="root", subject=[("repository", lab.root)], body=body)
    changed = repository.append(lambda _: draft, [lab.root_key.root], tool="test")
    recipients = Recipients(lab.open().ledger)
    first = frozenset(map(recipient_id, lab.open().ledger.recipients[:1]))
    both = first | {recipient_id(other.public_raw)}
    at = changed.modified
    for modified, sealed, missing in (
        (at - timedelta(days=1), first, ""),
        (at + timedelta(days=6), first, ""),
        (at + timedelta(days=8), first, "second"),
        (at + timedelta(days=8), both, ""),
        (at - timedelta(days=1), frozenset([recipient_id(other.public_raw)]), "second"),
    ):
        objection = recipients.objection(sealed, modified)
        assert bool(objection) is bool(missing), (modified, objection)


def test_recipients_of_a_root_between_two_others_are_asked_while_it_is_in_force(lab: Lab) -> None:
    """Each root ends with the one right after it, not with the first or the last."""
    first = frozenset(map(recipient_id, lab.open().ledger.recipients))
    sealed, starts = [first], [lab.clock()]
    for version in (2, 3):
        lab.clock.advance(days=30)
        repository = lab.open()
        old, key = repository.ledger.root, RecipientKey.generate()
        added = Recipient(name=f"of-{version}", public=b64encode(key.public_raw))
        body = replace_body(old, version=version, recipients=(*old.recipients, added))
        draft = Draft(type="root", subject=[("repository", lab.root)], body=body)

        def made(_: object, draft: Draft = draft) -> Draft:
            return draft

        starts.append(repository.append(made, [lab.root_key.root], tool="test").modified)
        sealed.append(sealed[-1] | {recipient_id(key.public_raw)})
    recipients = Recipients(lab.open().ledger)
    for number, start in enumerate(starts):
        told = [bool(recipients.objection(each, start + timedelta(days=8))) for each in sealed]
        assert told == [at < number for at in range(3)], number


# --- times ---


def plant(lab: Lab, claimed: timedelta) -> Record:
    """A heartbeat that claims another time than it is stored at."""
    repository = lab.open()
    head = repository.head
    payload = build_statement(
        type="heartbeat",
        repository=repository.ledger.repository_id,
        seq=head.seq + 1,
        prev=head,
        time=lab.clock() + claimed,
        tool="test",
        subject=[("repository", lab.root)],
        body=HeartbeatBody(note="x"),
        by=[lab.host.key.signing.public.id],
    )
    span = lab.clock() + repository.parameters.ledger_span
    repository.put(ledger_name(head.seq + 1), seal_envelope(payload, [lab.host.key.signing]), span)
    return lab.open().ledger.records[head.seq + 1]


@pytest.mark.parametrize(
    ("claimed", "codes"),
    [
        (timedelta(), set()),
        (timedelta(minutes=14), set()),
        (timedelta(minutes=-14), {Code.TIME_ORDER}),
        (timedelta(minutes=-4), set()),
        (timedelta(minutes=16), {Code.TIME_SKEW}),
        (timedelta(days=200), {Code.TIME_SKEW}),
        (timedelta(days=-200), {Code.TIME_SKEW, Code.TIME_ORDER}),
    ],
)
def test_times_that_the_store_denies_are_warned_of(
    lab: Lab, record: Record, claimed: timedelta, codes: set[Code]
) -> None:
    """Each statement by its number; what follows it is not blamed."""
    seq = plant(lab, claimed).seq
    plant(lab, timedelta())
    report = look(lab)
    assert {code for code, _ in found(report)} == codes
    assert {subject for _, subject in found(report)} <= {f"ledger {seq}"}
    assert report.gravest is Concern.NONE


def test_a_copied_store_says_nothing_of_times(lab: Lab, record: Record) -> None:
    """All of its objects are from the day of the copy."""
    lab.clock.advance(days=90)
    twin = lab.with_store(lab.store.copy())
    for item in list(twin.store.versions("")):
        data = twin.store.get(item.name, item.version)
        twin.store.remove(item.name, item.version)
        twin.store.plant(item.name, data)
    codes = {code for code, _ in found(look(twin))}
    assert codes.isdisjoint({Code.TIME_SKEW, Code.TIME_ORDER, Code.DATED_BACK})
    assert Code.NOT_SEALED_TO not in codes


def date_back(lab: Lab, monkeypatch: pytest.MonkeyPatch, by: timedelta) -> None:
    """From now on snapshots claim to be taken that long ago."""
    real = Repository.append

    def append(self: Repository, draft: Any, *rest: Any, **options: Any) -> Any:
        def changed(ledger: Any) -> Any:
            made = draft(ledger)
            if made.type != "snapshot":
                return made
            created = to_rfc3339(lab.clock() - by)
            return dataclasses.replace(made, body=replace_body(made.body, created=created))

        return real(self, changed, *rest, **options)

    monkeypatch.setattr(Repository, "append", append)


@pytest.mark.parametrize(("back", "is_told"), [(0, False), (5, False), (60, True)])
def test_a_snapshot_dated_back_before_the_one_it_follows(
    lab: Lab,
    record: Record,
    monkeypatch: pytest.MonkeyPatch,
    make_source: MakeSource,
    *,
    back: int,
    is_told: bool,
) -> None:
    """Else DATASET@TIME could be made to restore it; clocks may differ by some minutes."""
    date_back(lab, monkeypatch, timedelta(minutes=back))
    seq = lab.snapshot(make_source("again", seed=8)).record.seq
    report = look(lab)
    assert found(report) == ([(Code.DATED_BACK, f"ledger {seq}")] if is_told else [])
    assert report.gravest is (Concern.INTEGRITY if is_told else Concern.NONE)


@pytest.mark.parametrize(("days", "is_told"), [(6, False), (8, True)])
def test_a_snapshot_that_claims_to_be_much_older_than_its_statement(
    lab: Lab,
    monkeypatch: pytest.MonkeyPatch,
    make_source: MakeSource,
    *,
    days: int,
    is_told: bool,
) -> None:
    """The first of its dataset has none before it to compare with; a run may take a week."""
    date_back(lab, monkeypatch, timedelta(days=days))
    seq = lab.snapshot(make_source()).record.seq
    assert found(look(lab)) == ([(Code.TIME_SKEW, f"ledger {seq}")] if is_told else [])


# --- locks that are promised ---


def test_a_snapshot_that_promises_a_weaker_lock_than_its_root(
    lab: Lab, record: Record, monkeypatch: pytest.MonkeyPatch, make_source: MakeSource
) -> None:
    """Its packs may be locked well all the same; what it promises is what prune goes by."""
    real = Repository.append

    def append(self: Repository, draft: Any, *rest: Any, **options: Any) -> Any:
        def changed(ledger: Any) -> Any:
            made = draft(ledger)
            return dataclasses.replace(made, body=replace_body(made.body, mode=LockMode.GOVERNANCE))

        return real(self, changed, *rest, **options)

    assert found(look(lab)) == []
    monkeypatch.setattr(Repository, "append", append)
    seq = lab.snapshot(make_source("weak", seed=8), dataset="weak").record.seq
    report = look(lab)
    assert found(report) == [(Code.MODE_WEAK, f"ledger {seq}")]
    assert report.gravest is Concern.RETENTION


@pytest.mark.parametrize(("previous", "is_told"), [("right", False), (None, True), (0, True)])
def test_a_snapshot_that_names_another_before_it_is_told(
    lab: Lab,
    record: Record,
    monkeypatch: pytest.MonkeyPatch,
    make_source: MakeSource,
    *,
    previous: int | str | None,
    is_told: bool,
) -> None:
    """What was copied from another dataset, or hides the one before."""
    real = Repository.append

    def append(self: Repository, draft: Any, *rest: Any, **options: Any) -> Any:
        def changed(ledger: Any) -> Any:
            made = draft(ledger)
            if made.type != "snapshot" or previous == "right":
                return made
            return dataclasses.replace(made, body=replace_body(made.body, previous=previous))

        return real(self, changed, *rest, **options)

    monkeypatch.setattr(Repository, "append", append)
    lab.snapshot(make_source("again", seed=8))
    found = {each.code for each in look(lab).findings}
    assert (Code.OTHER_PREVIOUS in found) is is_told
