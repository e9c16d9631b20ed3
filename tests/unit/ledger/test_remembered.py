"""What is remembered of a ledger is what was verified, or nothing."""

import base64
import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.support.invariants import assert_invariants
from tests.support.lab import Lab, MakeRepository
from tests.support.trees import MakeSource
from vault.ledger import kinds, pages
from vault.ledger import remembered as remembering
from vault.ledger.chain import Ledger
from vault.ledger.envelope import Head, build_statement, parse_envelope, seal_envelope
from vault.ledger.records import Status
from vault.ledger.remembered import LedgerMemory, Remembered
from vault.ledger.statements import HeartbeatBody, InventoryRef, SnapshotBody
from vault.model import Digest, Finding, Severity
from vault.repository.append_statements import Draft
from vault.repository.enrolment import revoke_writer
from vault.repository.repository import Repository
from vault.storage.local import LocalStore
from vault.storage.memory import FaultPoint
from vault.storage.names import ledger_name, page_name


@pytest.fixture
def lab(make_repository: MakeRepository, make_source: MakeSource) -> Lab:
    """Snapshots of two hosts, one of them distrusted, one statement that nobody understands."""
    lab = make_repository("none")
    source = make_source(files=1)
    lab.snapshot(source)
    stolen = lab.enrol("stolen")
    lab.with_host(stolen).snapshot(source, dataset="stolen")
    first = lab.with_host(stolen).snapshot(source, dataset="stolen").record.seq
    _revoke(lab, "stolen", first)
    _unknown(lab)
    lab.snapshot(source)
    return lab


def _revoke(lab: Lab, name: str, distrust_from: int) -> None:
    repository = lab.open()
    (writer,) = (each for each in repository.ledger.writers.values() if each.name == name)
    revoke_writer(
        repository,
        lab.root_key.enroller,
        writer,
        distrust_from=distrust_from,
        reason="stolen",
        tool="t",
    )


def _unknown(lab: Lab) -> None:
    """A statement of a type of the future, at the head of the store."""
    repository = lab.open()
    payload = build_statement(
        type="omen",
        repository=repository.ledger.repository_id,
        seq=repository.head.seq + 1,
        prev=repository.head,
        time=lab.clock(),
        tool="vault 9",
        subject=[("repository", Digest.of(repository.id))],
        body=HeartbeatBody(note="what it says is not known"),
        by=[lab.host.key.signing.public.id],
    )
    envelope = seal_envelope(payload, [lab.host.key.signing])
    name = ledger_name(repository.head.seq + 1)
    lab.store.put(name, envelope, sha256=Digest.of(envelope))


@pytest.fixture
def memory(tmp_path: Path) -> LedgerMemory:
    """Of a machine that has seen nothing."""
    return LedgerMemory(tmp_path / "memory")


def recalled(lab: Lab, memory: LedgerMemory) -> Remembered:
    """What is remembered of the whole ledger."""
    repository = lab.open()
    memory.remember(lab.root, repository.ledger, repository.findings, until=repository.head)
    found = memory.recall(lab.root)
    assert found is not None
    return found


def state(ledger: Ledger) -> dict[str, Any]:
    """All that a ledger says, but for the envelopes."""
    return {
        "records": [dataclasses.replace(record, envelope=b"") for record in ledger.records],
        "findings": ledger.findings,
        "writers": ledger.writers,
        "root": ledger.root,
        "keys": dict(ledger.keys),
        "recipients": ledger.recipients,
        "repository": ledger.repository_id,
        "datasets": ledger.datasets(),
        "snapshots": [record.seq for record in ledger.snapshots()],
    }


def test_a_remembered_ledger_says_what_the_verified_one_says(
    lab: Lab, memory: LedgerMemory
) -> None:
    """Void, distrusted and not understood statements and their findings among it."""
    whole = lab.open().ledger
    assert {record.status for record in whole.records} == set(Status)
    assert any(record.distrusted_by for record in whole.records)
    again = Ledger(lab.root)
    recalled(lab, memory).replay(again)
    head = whole.records[-1]
    again.link(head.envelope, version=head.version, modified=head.modified)
    assert state(again) == state(whole)


def test_findings_below_the_head_are_remembered(lab: Lab, memory: LedgerMemory) -> None:
    """Those of the head's name and beyond are found again."""
    repository = lab.open()

    def finding(seq: int) -> Finding:
        subject = ledger_name(seq)
        return Finding(severity=Severity.WARNING, subject=subject, problem="junk", found="v1")

    head = repository.head
    findings = [finding(head.seq - 1), finding(head.seq), finding(head.seq + 1)]
    memory.remember(lab.root, repository.ledger, findings, until=head)
    found = memory.recall(lab.root)
    assert found is not None
    assert list(found.findings) == findings[:1]


def test_any_damage_is_forgetting(lab: Lab, memory: LedgerMemory, tmp_path: Path) -> None:
    """Every byte flipped, every cut: nothing, and no error."""
    recalled(lab, memory)
    path = next((tmp_path / "memory/ledgers").iterdir())
    whole = path.read_bytes()
    for at in range(0, len(whole), 7):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        assert memory.recall(lab.root) is None
        path.write_bytes(whole[:at])
        assert memory.recall(lab.root) is None
    path.write_bytes(whole)
    assert memory.recall(lab.root) is not None


def test_another_repositorys_memory_is_not_used(
    lab: Lab, memory: LedgerMemory, tmp_path: Path
) -> None:
    """A file under another root's name."""
    recalled(lab, memory)
    other = Digest.of(b"another root")
    path = tmp_path / "memory/ledgers"
    (path / str(lab.root)).rename(path / str(other))
    assert memory.recall(other) is None


def test_a_program_that_understands_more_judges_anew(
    lab: Lab, memory: LedgerMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What an older one did not understand may be void, or count."""
    recalled(lab, memory)
    more = {**kinds.KINDS, "omen": kinds.KINDS["heartbeat"]}
    monkeypatch.setattr(remembering, "KINDS", more)
    assert memory.recall(lab.root) is None


class _Wider(HeartbeatBody, frozen=True, kw_only=True):
    """A heartbeat as a later program knows it."""

    also: str = ""


class _WiderInventory(InventoryRef, frozen=True, kw_only=True):
    """A structure inside of a body."""

    dead: int = 0


class _WiderSnapshot(SnapshotBody, frozen=True, kw_only=True):
    """A body that grew within."""

    inventory: _WiderInventory


@pytest.mark.parametrize(("kind", "shape"), [("heartbeat", _Wider), ("snapshot", _WiderSnapshot)])
def test_a_program_that_knows_more_fields_reads_anew(
    lab: Lab,
    memory: LedgerMemory,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    shape: type[HeartbeatBody],
) -> None:
    """What an older one left out of a body is not in what it remembered."""
    recalled(lab, memory)
    wider = dataclasses.replace(kinds.KINDS[kind], shape=shape)
    monkeypatch.setattr(remembering, "KINDS", {**kinds.KINDS, kind: wider})
    assert memory.recall(lab.root) is None


def test_another_version_of_the_program_reads_anew(
    lab: Lab, memory: LedgerMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may judge the same fields by other rules."""
    recalled(lab, memory)
    monkeypatch.setattr(remembering, "__version__", "9.9.9")
    assert memory.recall(lab.root) is None


def test_a_directory_that_cannot_be_written_is_no_error(lab: Lab, tmp_path: Path) -> None:
    """The next start takes longer, that is all."""
    (tmp_path / "memory").write_text("in the way")
    repository = lab.open()
    memory = LedgerMemory(tmp_path / "memory")
    memory.remember(lab.root, repository.ledger, [], until=repository.head)
    assert memory.recall(lab.root) is None


# --- a thief who can write the file, digest and all ---


def test_who_may_sign_and_read_is_verified_at_every_start(lab: Lab, memory: LedgerMemory) -> None:
    """Another root, another writer: their signatures are not there, and the store is read."""
    found = recalled(lab, memory)
    for kind in ("root", "writer"):
        for seq, row in enumerate(found.rows):
            if row.type == kind:
                forged = msgspec.structs.replace(row, envelope=_reseal(lab, row.envelope))
                _refused(lab, _with(found, seq, forged))


def _reseal(lab: Lab, envelope: bytes) -> bytes:
    """The statement with one byte of a key changed, signed by a key that has not the role."""
    payload = base64.b64decode(json.loads(envelope)["payload"])
    at = payload.index(b'"public":"') + 80
    changed = payload[:at] + (b"A" if payload[at : at + 1] != b"A" else b"B") + payload[at + 1 :]
    return seal_envelope(changed, [lab.host.key.signing])


def test_a_statement_about_keys_cannot_be_passed_off_as_another(
    lab: Lab, memory: LedgerMemory
) -> None:
    """A digest that is not that of what it says."""
    found = recalled(lab, memory)
    seq = next(seq for seq, row in enumerate(found.rows) if row.type == "writer")
    forged = msgspec.structs.replace(found.rows[seq], digest=bytes(32))
    _refused(lab, _with(found, seq, forged))


def test_a_remembered_history_must_lead_to_the_stores_head(lab: Lab, memory: LedgerMemory) -> None:
    """Statements taken out of the middle, or put in: the head does not follow them."""
    found = recalled(lab, memory)
    seq = next(seq for seq, row in enumerate(found.rows) if row.type == "snapshot")
    less = [*found.rows[:seq], *found.rows[seq + 1 :]]
    more = [*found.rows[: seq + 1], found.rows[seq], *found.rows[seq + 1 :]]
    for rows in (less, more, [found.rows[0]] * len(found.rows)):
        _refused(lab, dataclasses.replace(found, rows=rows))


def test_a_writer_cannot_be_left_out(lab: Lab, memory: LedgerMemory) -> None:
    """What it signed would be junk to a ledger that never listed it, and no broken chain."""
    found = recalled(lab, memory)
    nothing = msgspec.Raw(msgspec.msgpack.encode(None))
    omen = msgspec.structs.replace(found.rows[-1], type="omen", status=Status.UNKNOWN, body=nothing)
    rows = [
        msgspec.structs.replace(omen, digest=row.digest) if row.type == "writer" else row
        for row in found.rows
    ]
    _refused(lab, dataclasses.replace(found, rows=rows))


def _with(found: Remembered, seq: int, row: Any) -> Remembered:
    rows = [*found.rows[:seq], row, *found.rows[seq + 1 :]]
    return dataclasses.replace(found, rows=rows)


def _refused(lab: Lab, remembered: Remembered) -> None:
    """Not used: the store is read from the start, and that ledger counts."""
    reads = _noted(lab)
    found = Repository.open(lab.store, lab.root, clock=lab.clock, remembered=remembered)
    lab.store.fault = None
    assert ledger_name(0) in reads
    assert state(found.ledger) == state(lab.open().ledger)


def _noted(lab: Lab) -> list[str]:
    """Names of the objects that are read from now on."""
    reads: list[str] = []

    def note(point: FaultPoint) -> None:
        if point.phase == "before" and point.operation == "get":
            reads.append(point.name)

    lab.store.fault = note
    return reads


# --- going on from there ---


def test_a_warm_start_reads_the_head_and_what_follows(lab: Lab) -> None:
    """One statement, or as many as are new; besides what says who may sign."""
    warm = lab.warmed()
    head = warm.open().head.seq
    reads = _noted(lab)
    warm.open()
    assert set(reads) == {ledger_name(head)}
    reads.clear()
    lab.open()
    assert len(set(reads)) == head + 1


def _thousand(lab: Lab) -> None:
    """One statement after the other, up to a thousand, put beside what checks them."""
    repository = lab.open()
    head = repository.head
    for seq in range(head.seq + 1, 1000):
        payload = build_statement(
            type="heartbeat",
            repository=repository.ledger.repository_id,
            seq=seq,
            prev=head,
            time=lab.clock(),
            tool="test",
            subject=[("repository", Digest.of(repository.id))],
            body=HeartbeatBody(note="alive"),
            by=[lab.host.key.signing.public.id],
        )
        envelope = seal_envelope(payload, [lab.host.key.signing])
        lab.store.plant(ledger_name(seq), envelope)
        head = Head(seq=seq, digest=parse_envelope(envelope).digest)


def test_a_statement_that_is_remembered_is_read_without_listing_the_others(
    lab: Lab, memory: LedgerMemory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a directory of a thousand: it is not searched, whichever of them is asked for."""
    _thousand(lab)
    for item in lab.store.versions(""):
        file = tmp_path / "repository" / item.name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(lab.store.get(item.name, item.version))
    here = lab.with_store(LocalStore(tmp_path / "repository"))
    remembered = recalled(here, memory)
    warm = Repository.open(here.store, lab.root, clock=lab.clock, remembered=remembered)
    searched: list[object] = []
    real = os.scandir

    def noted(directory: Any) -> Any:
        searched.append(directory)
        return real(directory)

    monkeypatch.setattr(os, "scandir", noted)
    older = [record for record in warm.ledger.records if not record.envelope]
    assert len(older) > 990
    for record in older:
        assert warm.log.envelope_of(record) == here.store.get(ledger_name(record.seq))
    assert len(searched) == 0
    assert len(list(here.store.versions(ledger_name(7)))) == len(searched) == 1


@pytest.mark.parametrize("lock", ["none", "governance"])
def test_a_warm_client_appends_as_a_cold_one_does(
    make_repository: MakeRepository,
    make_source: MakeSource,
    lock: Any,
) -> None:
    """The locks of statements it has not read included: they are extended over the years."""
    lab = make_repository(lock).warmed()
    source = make_source(files=1)
    for days in range(0, 900, 90):
        lab.clock.advance(days=90 if days else 0)
        lab.snapshot(source)
        assert assert_invariants(lab.store, lab.root) == days // 90 + 1


def test_whole_pages_are_written_from_a_warm_start(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their statements are fetched from the store, each known by its digest."""
    monkeypatch.setattr(pages, "PAGE_LENGTH", lab.open().head.seq)
    warm = lab.warmed()
    warm.open()
    draft = Draft(
        type="heartbeat",
        subject=[("repository", Digest.of(warm.open().id))],
        body=HeartbeatBody(note="alive"),
    )
    warm.open().append(lambda _: draft, [lab.host.key.signing], tool="t")
    page = lab.store.get(page_name(0))
    records = lab.open().ledger.records[: pages.PAGE_LENGTH]
    assert pages.split_page(page) == [lab.store.get(ledger_name(each.seq)) for each in records]
