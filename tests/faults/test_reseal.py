"""A second recovery key opens what was sealed before it; a bogus reseal stops nothing."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.support import second_holder
from tests.support.lab import Lab
from tests.support.trees import MakeSource
from vault.audit import audit_repository
from vault.crypto.key_files import RecoveryKey
from vault.crypto.keys import RecipientKey
from vault.crypto.sealed import Header, Sealer, Session
from vault.encoding import b64encode
from vault.errors import ConfigError, WrongKeyError
from vault.format.seed_tables import seal_rows
from vault.ledger.records import Record
from vault.ledger.statements import (
    DistrustedKey,
    ResealBody,
    SeedTable,
)
from vault.machine.workers import make_workers
from vault.model import Code, Digest, LockMode, ObjectRef, ObjectType, Severity
from vault.repository.append_statements import Draft
from vault.repository.reader import Reader
from vault.repository.repository import Repository, domain_ref
from vault.repository.reseal import (
    Resealed,
    _Gathering,
    find_recipient,
    gather_seeds,
    store_seeds,
)
from vault.restore.restore_report import RestoreOutcome
from vault.storage.memory import FaultPoint
from vault.storage.names import seed_table_name


def append_root(lab: Lab, **changes: object) -> None:
    """Root N+1."""
    second_holder.append_root(lab.open(), lab.root_key, **changes)


def with_second(lab: Lab, name: str = "bob") -> RecoveryKey:
    """Root N+1 lists one more recipient and restorer; gives that holder's key."""
    return second_holder.list_holder(lab.open(), lab.root_key, name)


def by(lab: Lab, key: RecoveryKey) -> Lab:
    """The same repository for another holder."""
    return dataclasses.replace(lab, recovery=key)


def restored(lab: Lab, record: Record, target: Path) -> bool:
    """Whether a restore proves it and attests it with the holder's own key."""
    report = lab.restore(record, target)
    assert report.statement is not None
    assert report.statement.by == (lab.recovery.restorer.public.id,)
    return report.outcome is RestoreOutcome.RECOVERED


def reseal(lab: Lab, name: str = "bob", *, since: int = 0) -> Resealed:
    """As the command does it."""
    repository = lab.open()
    target = find_recipient(repository.ledger, name)
    gathered = gather_seeds(repository, lab.recovery.recipient, target, since=since)
    return store_seeds(repository, gathered, lab.recovery.restorer, tool="vault test")


def test_a_second_key_restores_the_oldest_snapshot(
    lab: Lab, make_source: MakeSource, tmp_path: Path
) -> None:
    """By itself, proven; before the reseal it opens nothing, and no pack is written again."""
    oldest = lab.snapshot(make_source("a")).record
    lab.snapshot(make_source("b", seed=2))
    second = by(lab, with_second(lab))
    packs = list(lab.store.versions("packs/"))
    with pytest.raises(WrongKeyError, match="not sealed to this key"):
        second.restore(oldest, tmp_path / "too early")
    done = reseal(lab)
    assert len(done.tables) == len(done.records) == 1
    assert len(done.gathered.seeds) == 3  # two runs, and the enrolment that sealed the domain
    assert list(lab.store.versions("packs/")) == packs
    for n, each in enumerate((second, second.warmed())):
        assert restored(each, oldest, tmp_path / f"back{n}")
    assert second.contents(oldest) == lab.contents(oldest)
    assert second.verify().verdict == "passed"
    assert not second.open().findings


def test_what_is_sealed_to_it_anyway_is_not_resealed(lab: Lab, make_source: MakeSource) -> None:
    """Runs after the new root seal to it; a second reseal finds what lies between alone."""
    first = lab.snapshot(make_source("a")).record
    with_second(lab)
    later = lab.snapshot(make_source("b", seed=2)).record
    done = reseal(lab)
    assert done.gathered.sealed == sum(
        1 for ref in lab.open().inventory(later).objects if ref.name.startswith("packs/")
    )
    again = reseal(lab, since=later.seq)
    assert first.seq < later.seq
    assert len(again.gathered.seeds) == 1  # the domain object
    assert again.gathered.through == lab.open().head.seq - 1


def test_a_second_holder_reseals_to_a_third(
    lab: Lab, make_source: MakeSource, tmp_path: Path
) -> None:
    """By the table that was made for it: the first key may be gone."""
    record = lab.snapshot(make_source(files=2)).record
    second = by(lab, with_second(lab))
    reseal(lab)
    third = by(lab, with_second(lab, "carol"))
    reseal(second, "carol")
    assert restored(third, record, tmp_path / "back")
    repository = third.open()
    Reader(repository, third.recovery.recipient, record, scratch=lab.scratch).close()
    assert not repository.findings  # the table that is not for it was not looked at


def test_a_removed_recipient_opens_nothing_that_is_sealed_afterwards(
    lab: Lab, make_source: MakeSource, tmp_path: Path
) -> None:
    """What it could open it still can."""
    old = lab.snapshot(make_source("a")).record
    second = by(lab, with_second(lab))
    reseal(lab)
    shared = lab.snapshot(make_source("b", seed=2)).record
    root = lab.open().ledger.root
    append_root(lab, recipients=root.recipients[:1])
    new = lab.snapshot(make_source("c", seed=3)).record
    for record in (old, shared):
        assert second.contents(record) == lab.contents(record)
    with pytest.raises(WrongKeyError):
        second.contents(new)
    assert restored(lab, new, tmp_path / "back")  # the control
    with pytest.raises(ConfigError, match="no recipient bob"):
        reseal(lab)


def test_a_session_id_that_a_thief_copied_hides_no_seed() -> None:
    """Tables go by all that stands in the header: another seed under the same id is another row."""
    honest = Session.new(bytes(16), [RecipientKey.generate().public_raw])
    thief = dataclasses.replace(
        Session.new(bytes(16), [RecipientKey.generate().public_raw]), id=honest.id
    )
    keys = {
        Sealer.for_session(each, ObjectType.DATA, bytes(16)).header.session_key
        for each in (honest, honest, thief)
    }
    assert len(keys) == 2


def test_a_copied_bucket_is_resealed(lab: Lab, make_source: MakeSource, tmp_path: Path) -> None:
    """Every version has another id there."""
    record = lab.snapshot(make_source(files=2)).record
    second = by(lab, with_second(lab))
    for version in list(lab.store.versions("packs/")):
        lab.store.plant(version.name, lab.store.get(version.name, version.version))
        lab.store.remove(version.name, version.version)
    done = reseal(lab)
    assert not done.gathered.unopened
    assert restored(second, record, tmp_path / "back")


def test_what_can_not_be_opened_is_named(lab: Lab, make_source: MakeSource) -> None:
    """A pack that is gone, one with junk in its place; the others are resealed."""
    lab.snapshot(make_source("a"))
    lab.snapshot(make_source("b", seed=2))
    with_second(lab)
    gone, junk, *_ = sorted(lab.store.versions("packs/"), key=lambda version: version.name)
    lab.store.remove(gone.name, gone.version)
    lab.store.remove(junk.name, junk.version)
    lab.store.plant(junk.name, b"VAULTOBJ" + bytes(junk.size - 8))
    done = reseal(lab)
    assert set(done.gathered.unopened) == {gone.name, junk.name}
    assert done.records


# --- bogus reseals ---

Bogus = Callable[[Lab, RecoveryKey], Mapping[str, Any]]


def _store(lab: Lab, recipient: RecipientKey, data: bytes, **says: Any) -> dict[str, Any]:
    """A table in the store, and how a statement names it."""
    digest = Digest.of(data)
    ref = lab.open().put(seed_table_name(recipient.id, digest), data, lab.clock.now).ref
    return {
        "name": ref.name,
        "sha256": str(digest),
        "size": ref.size,
        "version": ref.version,
        **says,
    }


def _rows(lab: Lab) -> dict[bytes, bytes]:
    """What a table that is right would hold."""
    repository = lab.open()
    target = find_recipient(repository.ledger, "bob")
    return dict(gather_seeds(repository, lab.recovery.recipient, target).seeds)


def _missing(_: Lab, key: RecoveryKey) -> dict[str, Any]:
    name = seed_table_name(key.recipient.id, Digest(bytes(32)))
    return {"name": name, "sha256": "00" * 32, "size": 1000, "version": "none"}


def _junk(lab: Lab, key: RecoveryKey) -> dict[str, Any]:
    return _store(lab, key.recipient, b"junk" * 100)


def _wrong_seeds(lab: Lab, key: RecoveryKey) -> dict[str, Any]:
    rows = {name: bytes(32) for name in _rows(lab)}
    return _store(lab, key.recipient, seal_rows(rows, lab.open().id, key.recipient.public_raw))


def _of_others(lab: Lab, key: RecoveryKey) -> dict[str, Any]:
    other = RecipientKey.generate().public_raw
    return _store(lab, key.recipient, seal_rows(_rows(lab), lab.open().id, other))


def _of_another_repository(lab: Lab, key: RecoveryKey) -> dict[str, Any]:
    return _store(lab, key.recipient, seal_rows(_rows(lab), bytes(16), key.recipient.public_raw))


def _huge(lab: Lab, key: RecoveryKey) -> dict[str, Any]:
    return _store(lab, key.recipient, bytes(6_500_001))


def _vast(lab: Lab, key: RecoveryKey) -> dict[str, Any]:
    return _store(lab, key.recipient, b"small", size=2**50)


def _other_bytes(lab: Lab, key: RecoveryKey) -> dict[str, Any]:
    said = _junk(lab, key)
    lab.store.remove(said["name"], said["version"])
    return {**said, "version": lab.store.plant(said["name"], b"other").version}


BOGUS = [
    _missing,
    _junk,
    _wrong_seeds,
    _of_others,
    _of_another_repository,
    _huge,
    _vast,
    _other_bytes,
]


def say(lab: Lab, recipient: str, tables: Sequence[Mapping[str, Any]]) -> int:
    """A reseal by the restorer's key, whatever it names; its number."""
    repository = lab.open()
    body = ResealBody(
        recipient=recipient,
        objects=tuple(SeedTable(**table) for table in tables),
        sessions=len(_rows(lab)),
        through=repository.head.seq,
    )
    draft = Draft(type="reseal", subject=[("x", Digest(bytes(32)))], body=body)
    return repository.append(lambda _: draft, [lab.recovery.restorer], tool="thief").seq


@pytest.fixture(params=BOGUS, ids=[each.__name__[1:] for each in BOGUS])
def bogus(request: pytest.FixtureRequest) -> Bogus:
    """What a statement names."""
    made: Bogus = request.param
    return made


def test_a_bogus_reseal_stops_nothing(
    make_repository: Any, make_source: MakeSource, tmp_path: Path, bogus: Bogus
) -> None:
    """Hosts go on for over a term, an older recipient restores; a right one opens it to the new."""
    lab: Lab = make_repository(LockMode.GOVERNANCE)
    source = make_source(files=2)
    record = lab.snapshot(source).record
    second = by(lab, with_second(lab))
    seq = say(lab, str(second.recovery.recipient.id), [bogus(lab, second.recovery)])
    with pytest.raises(WrongKeyError):
        second.contents(record)
    right = reseal(lab)
    assert right.records[0].seq > seq
    assert restored(second, record, tmp_path / "second")
    assert restored(lab, record, tmp_path / "first")
    term = lab.open().parameters.ledger_span.days
    for _ in range(5):
        lab.clock.advance(days=term / 4)
        lab.snapshot(source)
    assert lab.open().ledger.records[seq].status == "valid"
    assert second.contents(lab.open().ledger.snapshots()[-1])


# --- what an audit sees ---


def found(lab: Lab) -> dict[str, tuple[Severity, str]]:
    """Findings of an audit about reseals: severity and subject by code."""
    repository = Repository.open(lab.store, lab.root, clock=lab.clock, tolerant=True)
    with make_workers(0) as workers:
        report = audit_repository(repository, workers=workers)
    return {
        each.code: (each.severity, each.subject)
        for each in report.findings
        if each.code in {Code.RESEAL_MISSING, Code.RESEAL_WRONG, Code.NOT_RESEALED, Code.LOCK_GAP}
    }


def test_an_audit_says_what_a_new_recipient_can_not_open(lab: Lab, make_source: MakeSource) -> None:
    """Until it is resealed; a warning, for nothing is lost."""
    record = lab.snapshot(make_source("a")).record
    assert found(lab) == {}
    with_second(lab)
    lab.snapshot(make_source("b", seed=2))
    assert found(lab) == {Code.NOT_RESEALED: (Severity.WARNING, "recipient bob")}
    assert record.seq < reseal(lab).gathered.through
    assert found(lab) == {}


def test_an_audit_finds_a_bogus_reseal(lab: Lab, make_source: MakeSource, bogus: Bogus) -> None:
    """An error until a right one follows; wrong seeds are for the recipient to find."""
    record = lab.snapshot(make_source()).record
    second = by(lab, with_second(lab))
    seq = say(lab, str(second.recovery.recipient.id), [bogus(lab, second.recovery)])
    hidden = bogus in {_wrong_seeds, _of_another_repository}
    code = Code.RESEAL_MISSING if bogus is _missing else Code.RESEAL_WRONG
    covered = {Code.NOT_RESEALED: (Severity.WARNING, "recipient bob")}
    assert found(lab) == ({} if hidden else {code: (Severity.ERROR, f"ledger {seq}"), **covered})
    repository = second.open()
    with pytest.raises(WrongKeyError):
        Reader(repository, second.recovery.recipient, record, scratch=lab.scratch)
    told = {each.code for each in repository.findings}
    assert told == {Code.RESEAL_WRONG if bogus is _wrong_seeds else Code.RESEAL_MISSING}
    reseal(lab)
    after = {} if hidden else {code: (Severity.WARNING, f"ledger {seq}")}
    assert found(lab) == after


def test_a_distrusted_reseal_is_nobodys_business(lab: Lab, make_source: MakeSource) -> None:
    """A root that distrusts the restorer's key voids it: no audit and no reader looks at it."""
    lab.snapshot(make_source())
    second = by(lab, with_second(lab))
    seq = say(lab, str(second.recovery.recipient.id), [_missing(lab, second.recovery)])
    stolen = DistrustedKey(public=b64encode(lab.recovery.restorer.public.der), start=seq)
    append_root(lab, distrust=(stolen,))
    assert set(found(lab)) == {Code.NOT_RESEALED}


def test_the_lock_of_a_table_is_kept_up(make_repository: Any, make_source: MakeSource) -> None:
    """By hosts, with the statement that names it; not for a recipient that is one no more."""
    lab: Lab = make_repository(LockMode.GOVERNANCE)
    source = make_source()
    lab.snapshot(source)
    with_second(lab)
    (table,) = reseal(lab).tables

    def locked_until() -> datetime:
        retention = lab.store.status(table.ref.name, table.ref.version).retention
        assert retention is not None
        until: datetime = retention.until
        return until

    first, term = locked_until(), lab.open().parameters.ledger_span
    assert first >= lab.clock() + term
    lab.clock.advance(seconds=term.total_seconds() * 0.4)
    lab.snapshot(source)
    first = locked_until()  # as the head's, by the first that follows it
    assert first >= lab.clock() + term
    lab.clock.advance(seconds=term.total_seconds() * 0.1)
    lab.snapshot(source)
    assert locked_until() == first  # not at every run
    lab.clock.advance(seconds=term.total_seconds() * 0.51)
    lab.snapshot(source)
    assert locked_until() >= lab.clock() + term
    assert found(lab) == {}
    root = lab.open().ledger.root
    append_root(lab, recipients=root.recipients[:1])
    last = locked_until()
    for _ in range(3):
        lab.clock.advance(seconds=term.total_seconds() * 0.3)
        lab.snapshot(source)
    assert locked_until() == last


def test_a_table_without_a_lock_is_found(make_repository: Any, make_source: MakeSource) -> None:
    """By an audit: as of any object that was promised to stay."""
    lab: Lab = make_repository(LockMode.GOVERNANCE)
    lab.snapshot(make_source())
    second = by(lab, with_second(lab))
    data = seal_rows(_rows(lab), lab.open().id, second.recovery.recipient.public_raw)
    name = seed_table_name(second.recovery.recipient.id, Digest.of(data))
    version = lab.store.plant(name, data).version
    table = {"name": name, "sha256": str(Digest.of(data)), "size": len(data), "version": version}
    seq = say(lab, str(second.recovery.recipient.id), [table])
    assert found(lab)[Code.LOCK_GAP] == (Severity.ERROR, f"ledger {seq}")


def test_wrong_seeds_make_no_pack_bad(lab: Lab, make_source: MakeSource) -> None:
    """The new recipient's verification says that it could not open, and attests nothing wrong."""
    record = lab.snapshot(make_source()).record
    second = by(lab, with_second(lab))
    say(lab, str(second.recovery.recipient.id), [_half_wrong(lab, second.recovery)])
    report = second.verify(record)
    assert (report.bad, report.wrong, report.unopened) == ((), 0, 1)
    assert report.verdict != "passed"
    assert not lab.open().ledger.bad_packs()
    reseal(lab)
    assert second.verify(record).verdict == "passed"


def _half_wrong(lab: Lab, key: RecoveryKey) -> dict[str, Any]:
    """Right for the domain, so that the packs are reached; wrong for the run."""
    repository = lab.open()
    (writer,) = repository.ledger.writers.values()
    assert writer.domain is not None
    header = Header.parse(repository.read(domain_ref(writer.domain)))
    rows = {name: bytes(32) for name in _rows(lab)}
    rows[header.session_key] = _rows(lab)[header.session_key]
    return _store(lab, key.recipient, seal_rows(rows, repository.id, key.recipient.public_raw))


def test_where_locks_are_not_extended_a_table_is_stored_again(
    make_repository: Any, make_source: MakeSource, tmp_path: Path
) -> None:
    """The same bytes under a new lock, by any host."""
    lab: Lab = make_repository(LockMode.GOVERNANCE, extend=False)
    source = make_source()
    record = lab.snapshot(source).record
    second = by(lab, with_second(lab))
    (table,) = reseal(lab).tables
    term = lab.open().parameters.ledger_span
    lab.snapshot(source)
    lab.clock.advance(seconds=term.total_seconds() * 0.51)
    lab.snapshot(source)
    first, again = lab.store.versions_of(table.ref.name)
    assert lab.store.get(table.ref.name, again.version) == lab.store.get(
        table.ref.name, first.version
    )
    retention = lab.store.status(table.ref.name, again.version).retention
    assert retention is not None
    assert retention.until >= lab.clock() + term
    assert record.seq
    newest = lab.open().ledger.snapshots()[-1]
    assert restored(second, newest, tmp_path / "back")


@pytest.mark.parametrize("bogus", [_huge, _vast], ids=["huge", "vast"])
def test_a_table_larger_than_any_is_not_fetched(
    make_repository: Any, make_source: MakeSource, bogus: Bogus
) -> None:
    """By no reader, no host that locks it again, and no audit."""
    lab: Lab = make_repository(LockMode.GOVERNANCE)
    source = make_source()
    record = lab.snapshot(source).record
    second = by(lab, with_second(lab))
    table = bogus(lab, second.recovery)
    say(lab, str(second.recovery.recipient.id), [table])
    fetched: list[str] = []

    def watch(point: FaultPoint) -> None:
        if point.operation == "get" and point.name == table["name"]:
            fetched.append(point.name)

    lab.store.fault = watch
    with pytest.raises(WrongKeyError):
        second.contents(record)
    assert Code.RESEAL_WRONG in found(lab)
    lab.store.remove(table["name"], table["version"])  # a host then looks for the bytes elsewhere
    lab.store.plant(table["name"], b"x" * min(table["size"], 6_500_001))
    lab.snapshot(source)
    assert fetched == []
    (right,) = reseal(lab).tables  # the control
    table = {"name": right.ref.name}
    assert second.contents(record)
    assert fetched


def test_a_reader_looks_at_64_tables(lab: Lab, make_source: MakeSource) -> None:
    """A thief with a restorer's key who signs more of them before the right one must be ended."""
    record = lab.snapshot(make_source()).record
    second = by(lab, with_second(lab))
    key = str(second.recovery.recipient.id)
    first = lab.open().head.seq + 1
    for _ in range(7):
        say(lab, key, [_missing(lab, second.recovery)] * 8)
    right = reseal(lab)
    assert second.contents(record)
    assert right.records[0].seq > first
    for _ in range(2):
        say(lab, key, [_missing(lab, second.recovery)] * 8)
    assert second.contents(record)
    third = by(lab, with_second(lab, "carol"))
    for _ in range(8):
        say(lab, str(third.recovery.recipient.id), [_missing(lab, third.recovery)] * 8)
    reseal(lab, "carol")
    repository = third.open()
    with pytest.raises(WrongKeyError):
        Reader(repository, third.recovery.recipient, record, scratch=lab.scratch)
    assert any("over 64 tables" in each.problem for each in repository.findings)
    stolen = DistrustedKey(public=b64encode(lab.recovery.restorer.public.der), start=first)
    append_root(lab, distrust=(stolen,))
    honest = by(lab, dataclasses.replace(lab.recovery, restorer=second.recovery.restorer))
    reseal(honest, "carol")
    assert third.contents(record)


def test_a_recipient_that_a_root_took_away_meanwhile_gets_no_statement(
    lab: Lab, make_source: MakeSource
) -> None:
    """Between the reading of headers and the statement."""
    lab.snapshot(make_source())
    with_second(lab)
    repository = lab.open()
    target = find_recipient(repository.ledger, "bob")
    gathered = gather_seeds(repository, lab.recovery.recipient, target)
    append_root(lab, recipients=lab.open().ledger.root.recipients[:1])
    with pytest.raises(ConfigError, match="does not list bob any more"):
        store_seeds(repository, gathered, lab.recovery.restorer, tool="vault test")
    assert list(lab.open().ledger.valid("reseal")) == []


def test_more_sessions_than_a_table_holds_take_more(
    lab: Lab, make_source: MakeSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And more than a statement names take another statement; the recipient opens all."""
    records = [lab.snapshot(make_source(f"s{n}", seed=n)).record for n in range(5)]
    second = by(lab, with_second(lab))
    monkeypatch.setattr("vault.repository.reseal.MAX_SEEDS", 2)
    monkeypatch.setattr("vault.repository.reseal.TABLES_IN_STATEMENT", 2)
    done = reseal(lab)
    assert (len(done.gathered.seeds), len(done.tables), len(done.records)) == (6, 3, 2)
    for record in records:
        assert second.contents(record) == lab.contents(record)
    assert found(lab) == {}


def test_a_table_for_a_recipient_that_is_none_any_more_is_not_audited(
    lab: Lab, make_source: MakeSource
) -> None:
    """It may be gone."""
    lab.snapshot(make_source())
    with_second(lab)
    (table,) = reseal(lab).tables
    lab.store.remove(table.ref.name, table.ref.version)
    assert Code.RESEAL_MISSING in found(lab)
    append_root(lab, recipients=lab.open().ledger.root.recipients[:1])
    assert found(lab) == {}


def test_a_seed_that_does_not_open_its_pack_is_not_resealed(lab: Lab) -> None:
    """A host can seal anything to the recipients, and the re-sealer must not vouch for it."""
    second = with_second(lab)
    repository = lab.open()
    session = Session.new(repository.id, [lab.recovery.recipient.public_raw])
    target = find_recipient(repository.ledger, "bob")
    ref = ObjectRef(name="packs/x", sha256=Digest(bytes(32)), size=1, version="v")
    for seed, opens in ((session.seed, True), (bytes(32), False)):
        sealer = Sealer.for_session(
            dataclasses.replace(session, seed=seed), ObjectType.DATA, repository.id
        )
        run = _Gathering(repository, lab.recovery.recipient, target)
        run.take(ref, sealer.header)
        assert (len(run.seeds), run.unopened) == ((1, []) if opens else (0, [ref.name]))
    assert str(second.recipient.id) == str(target.id)
