"""Cold reads by pages: fewer requests, and never another history than the statements tell."""

import dataclasses
from collections import Counter
from datetime import UTC, datetime

import pytest

from tests.support.lab import Lab, MakeRepository
from vault.clock import from_rfc3339
from vault.errors import RollbackError
from vault.ledger import pages
from vault.ledger.envelope import build_statement, parse_envelope, seal_envelope
from vault.ledger.statements import EventBody, HeartbeatBody
from vault.model import Digest
from vault.repository.log import Draft
from vault.storage.memory import FaultPoint
from vault.storage.names import ledger_name, page_name

LENGTH = 10
NOW = from_rfc3339("2026-01-02T03:04:05Z")


@pytest.fixture
def lab(make_repository: MakeRepository, monkeypatch: pytest.MonkeyPatch) -> Lab:
    """A repository whose pages are short."""
    monkeypatch.setattr(pages, "PAGE_LENGTH", LENGTH)
    return make_repository("governance")


def _beat(lab: Lab, count: int) -> None:
    repository = lab.open()
    about = Digest.of(repository.id)
    draft = Draft(
        type="heartbeat", subject=[("repository", about)], body=HeartbeatBody(note="alive")
    )
    for _ in range(count):
        repository.append(lambda _: draft, [lab.host.key.signing], tool="vault test")


def _vouch(lab: Lab) -> None:
    """Another key than the writer's signs at the head."""
    repository = lab.open()
    digest = repository.put_evidence(b"seen")
    body = EventBody(
        verdict="passed",
        started=NOW,
        finished=NOW,
        attestation=str(digest),
    )
    draft = Draft(type="drill", subject=[(f"evidence/{digest}", digest)], body=body)
    repository.append(lambda _: draft, [lab.recovery.restorer], tool="vault test")


def _requests(lab: Lab) -> Counter[str]:
    """What opening the repository asks of the store, by operation."""
    seen: Counter[str] = Counter()

    def count(point: FaultPoint) -> None:
        if point.phase == "before":
            seen[point.operation] += 1

    lab.store.fault = count
    try:
        lab.open()
    finally:
        lab.store.fault = None
    return seen


def _page(lab: Lab, number: int) -> tuple[str, str]:
    name = page_name(number)
    (version,) = (item for item in lab.store.versions(name) if item.name == name)
    return name, version.version


def test_a_cold_client_reads_pages_not_statements(lab: Lab) -> None:
    """A few requests a page; the same history, and the versions that locks are extended by."""
    _beat(lab, 5 * LENGTH)
    _vouch(lab)
    assert [version.name for version in lab.store.versions("ledger-page/")] == [
        page_name(number) for number in range(5)
    ]
    asked = _requests(lab)
    assert asked["get"] < 5 * 4 + LENGTH
    paged = lab.open()
    for version in list(lab.store.versions("ledger-page/")):
        lab.store.remove(version.name, version.version)
    single = lab.open()
    assert _requests(lab)["get"] > 5 * LENGTH
    assert paged.head == single.head
    assert [record.version for record in paged.ledger.records] == [
        record.version for record in single.ledger.records
    ]


def test_a_page_that_a_killed_run_owes_is_written_by_the_next(lab: Lab) -> None:
    """Whoever appends looks; pages carry the ledger's lock."""
    _beat(lab, 2 * LENGTH)
    name, version = _page(lab, 0)
    lab.store.remove(name, version)
    _beat(lab, 1)
    name, version = _page(lab, 0)
    retention = lab.store.status(name, version).retention
    assert retention is not None
    assert retention.until >= lab.clock() + lab.open().parameters.ledger_span


@pytest.mark.parametrize("at", [0, 40, 700, -2])
def test_a_damaged_page_costs_time_only(lab: Lab, at: int) -> None:
    """Whatever is flipped, the statements themselves are read."""
    _beat(lab, 2 * LENGTH)
    expected = lab.open().head
    name, version = _page(lab, 0)
    data = bytearray(lab.store.get(name, version))
    data[at] ^= 1
    lab.store.corrupt(name, version, bytes(data))
    assert lab.open().head == expected


def test_a_page_cut_short_or_of_another_place_is_not_used(lab: Lab) -> None:
    """Nine lines, or the second page under the first one's name."""
    _beat(lab, 3 * LENGTH)
    expected = lab.open().head
    name, version = _page(lab, 0)
    whole = lab.store.get(name, version)
    second = lab.store.get(*_page(lab, 1))
    for data in (whole[: whole.rindex(b"\n", 0, -1)], second, b"", b"\n" * LENGTH):
        lab.store.corrupt(name, version, data)
        assert lab.open().head == expected


@pytest.mark.parametrize("planted_first", [False, True])
def test_a_forked_page_of_a_thief_is_not_believed(lab: Lab, *, planted_first: bool) -> None:
    """A thief with a writer key signs another history, page and all, and plants it.

    Even where the real one is not that long yet: nobody but the thief builds on his.
    """
    thief = lab.enrol("thief")
    fork = lab.open()
    envelopes = [record.envelope for record in fork.ledger.records]
    about = Digest.of(fork.id)
    while len(envelopes) <= LENGTH:
        payload = build_statement(
            type="heartbeat",
            repository=fork.ledger.repository_id,
            seq=len(envelopes),
            prev=fork.head,
            time=lab.clock(),
            tool="thief",
            subject=[("repository", about)],
            body=HeartbeatBody(note="nothing else happened"),
            by=[thief.key.signing.public.id],
        )
        envelopes.append(seal_envelope(payload, [thief.key.signing]))
        fork.ledger.link(envelopes[-1], version="planted", modified=lab.clock())

    def plant() -> None:
        for name, data in (
            (page_name(0), pages.encode_page(envelopes[:LENGTH])),
            (ledger_name(LENGTH - 1), envelopes[LENGTH - 1]),
            (ledger_name(LENGTH), envelopes[LENGTH]),
        ):
            lab.store.put(name, data, sha256=Digest.of(data))

    if planted_first:
        plant()
        with pytest.raises(RollbackError):  # as without pages: a known key signed beyond a gap
            lab.open()
        return
    _beat(lab, LENGTH)
    plant()
    real = lab.open()
    digests = {parse_envelope(envelope).digest for envelope in envelopes[3:]}
    assert not digests & {record.digest for record in real.ledger.records}


def test_pages_wait_for_a_second_key(lab: Lab) -> None:
    """Until somebody else signs after them, the statements themselves are read."""
    _beat(lab, 3 * LENGTH)
    assert _requests(lab)["get"] > 3 * LENGTH
    _vouch(lab)
    assert _requests(lab)["get"] < 3 * LENGTH


def test_a_page_that_is_too_young_does_not_spoil_the_others(lab: Lab) -> None:
    """What follows the page before it vouches for that one."""
    _beat(lab, 3 * LENGTH)
    _vouch(lab)
    _beat(lab, LENGTH)
    asked = _requests(lab)["get"]
    assert asked < 4 * LENGTH
    assert lab.open().head.seq == 4 * LENGTH + 2


# --- times ---


def _dates(lab: Lab) -> list[datetime]:
    """When each statement was stored, as a cold client has it."""
    ledger = lab.open().ledger
    return [ledger.stored(record) for record in ledger.records]


def _without_pages(lab: Lab) -> list[datetime]:
    twin = dataclasses.replace(lab, store=lab.store.copy())
    for version in list(twin.store.versions("ledger-page/")):
        twin.store.remove(version.name, version.version)
    return _dates(twin)


def test_times_are_the_stores_whether_or_not_pages_are_read(lab: Lab) -> None:
    """Not those that signers claim in a page: one of 1970 would end what all before it promise."""
    start = lab.clock()
    for _ in range(2 * LENGTH):
        lab.clock.advance(hours=1)
        _beat_dated(lab, datetime(1970, 1, 1, tzinfo=UTC))
    _vouch(lab)
    assert _requests(lab)["get"] < 3 * LENGTH, "pages were read"
    assert _dates(lab) == _without_pages(lab)
    assert min(_dates(lab)) == start


def test_junk_put_at_names_to_come_dates_nothing(lab: Lab) -> None:
    """It is older than the statement that owns the name later, and of the same length."""
    junk = b"x" * len(lab.open().ledger.records[-1].envelope)
    for seq in range(lab.open().head.seq + 1, 3 * LENGTH):
        for size in range(-8, 9):
            lab.store.plant(ledger_name(seq), junk + b"x" * size if size > 0 else junk[:size])
    lab.clock.advance(days=300)
    _beat(lab, 2 * LENGTH)
    _vouch(lab)
    assert _dates(lab) == _without_pages(lab)
    assert sum(moment == lab.clock() for moment in _dates(lab)) >= 2 * LENGTH


def test_a_page_line_for_a_name_that_is_gone_dates_nothing(lab: Lab) -> None:
    """The statement is known by the page; its time is at least not later than its successors'."""
    _beat(lab, LENGTH)
    lab.clock.advance(days=1)
    _beat(lab, LENGTH)
    _vouch(lab)
    before = _dates(lab)
    name = ledger_name(LENGTH + 3)
    (version,) = (item for item in lab.store.versions(name) if item.name == name)
    lab.store.remove(name, version.version)
    assert _dates(lab) == before


def _beat_dated(lab: Lab, claimed: datetime) -> None:
    """A heartbeat of a signer whose clock says anything."""
    repository = lab.open()
    payload = build_statement(
        type="heartbeat",
        repository=repository.ledger.repository_id,
        seq=repository.head.seq + 1,
        prev=repository.head,
        time=claimed,
        tool="t",
        subject=[("repository", Digest.of(repository.id))],
        body=HeartbeatBody(note="alive"),
        by=[lab.host.key.signing.public.id],
    )
    envelope = seal_envelope(payload, [lab.host.key.signing])
    name = ledger_name(repository.head.seq + 1)
    lab.store.put(name, envelope, sha256=Digest.of(envelope))
    repository.refresh()
    repository.log.write_pages(repository.head.seq)
