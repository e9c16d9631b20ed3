"""Cold reads by pages: fewer requests, and never another history than the statements tell."""

import dataclasses
import itertools
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.support.lab import Clock, Lab, MakeRepository
from tests.support.witnesses import beat, make_council
from vault.clock import from_rfc3339
from vault.crypto.keys import Signer
from vault.ledger import pages
from vault.ledger.chain import Ledger
from vault.ledger.envelope import Head, build_statement, parse_envelope, seal_envelope
from vault.ledger.statements import EventBody, HeartbeatBody, PolicyBody
from vault.machine.workers import AtOnce
from vault.model import Digest
from vault.repository import ledgerobjects, read_statements
from vault.repository.append_statements import Draft
from vault.repository.opening import open_repository
from vault.storage.base import ObjectStore, ObjectVersion
from vault.storage.local import LocalStore
from vault.storage.memory import FaultPoint, MemoryStore
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


def _fork(lab: Lab, signer: Signer) -> list[bytes]:
    """Another history from statement 3 on, one longer than a page."""
    fork = lab.open()
    envelopes = [record.envelope for record in fork.ledger.records]
    while len(envelopes) <= LENGTH:
        payload = build_statement(
            type="policy",
            repository=fork.ledger.repository_id,
            seq=len(envelopes),
            prev=fork.head,
            time=lab.clock(),
            tool="thief",
            subject=[("repository", Digest.of(fork.id))],
            body=PolicyBody(
                action="apply", name="web", sha256="ab" * 32, reason="nothing else happened"
            ),
            by=[signer.public.id],
        )
        envelopes.append(seal_envelope(payload, [signer]))
        fork.ledger.link(envelopes[-1], version="planted", modified=lab.clock())
    return envelopes


ROLES = ["host", "root", "enroller", "policy", "pruner", "restorer"]


def _key_of(lab: Lab, role: str) -> Signer:
    if role == "host":
        return lab.enrol("thief").key.signing
    return lab.recovery.restorer if role == "restorer" else getattr(lab.root_key, role)


@pytest.mark.parametrize("role", ROLES)
def test_a_forked_page_is_not_believed_whoever_signed_it(lab: Lab, role: str) -> None:
    """A thief with any single key signs another history, page and all, and plants it first."""
    signer = _key_of(lab, role)
    envelopes = _fork(lab, signer)
    data = pages.encode_page(envelopes[:LENGTH])
    lab.store.put(page_name(0), data, sha256=Digest.of(data))
    _beat(lab, LENGTH)
    _vouch(lab)
    real = lab.open()
    assert not {parse_envelope(each).digest for each in envelopes[-LENGTH // 2 :]} & {
        record.digest for record in real.ledger.records
    }
    assert real.ledger.policies() == {}
    lab.store.put(ledger_name(LENGTH), envelopes[LENGTH], sha256=Digest.of(envelopes[LENGTH]))
    assert lab.open().head == real.head


def test_a_line_stands_for_an_object_only_by_its_md5(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: where the list's ETags are ignored, the fork in the page is taken."""
    envelopes = _fork(lab, lab.enrol("thief").key.signing)
    data = pages.encode_page(envelopes[:LENGTH])
    lab.store.put(page_name(0), data, sha256=Digest.of(data))
    _beat(lab, LENGTH)
    forked = parse_envelope(envelopes[4]).digest

    def taken() -> set[Digest]:
        lines = ledgerobjects.PageLines(lab.store)
        read = read_statements.StoredLedger(lab.store, Ledger(lab.root), lines=lines)
        read.refresh()
        return {record.digest for record in read.ledger.records}

    assert forked not in taken()
    monkeypatch.setattr(read_statements, "stands_for", lambda *_: True)
    assert forked in taken()
    assert forked not in {record.digest for record in lab.open().ledger.records}, "it ends in a gap"


def test_two_statements_of_one_md5_fool_nobody(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page shows the one, the object is the other: what follows does not chain, and tells."""
    thief = lab.enrol("thief").key.signing
    envelopes = _fork(lab, thief)
    twin = envelopes[4]  # signed by the thief, and never stored
    _beat(lab, 2 * LENGTH)
    _vouch(lab)
    expected = lab.open().head
    name, version = _page(lab, 0)
    lines = lab.store.get(name, version).split(b"\n")
    lines[4] = twin
    lab.store.corrupt(name, version, b"\n".join(lines))
    real = ledgerobjects.stands_for
    monkeypatch.setattr(
        read_statements, "stands_for", lambda line, listed: line == twin or real(line, listed)
    )
    assert lab.open().head == expected


ETAGS = ["", "9e107d9d372bb6826bd81d3542a419d6", "9e107d9d-2"]


class Encrypted:
    """A store whose list has other ETags, as under a key of the service."""

    def __init__(self, store: MemoryStore, etag: str = ETAGS[1]) -> None:
        self._store = store
        self._etag = etag

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)

    def versions(self, prefix: str, *, after: str = "") -> Iterator[ObjectVersion]:
        """As listed, with that ETag."""
        for each in self._store.versions(prefix, after=after):
            yield dataclasses.replace(each, etag=self._etag)


def _encrypted_reads(lab: Lab, etag: str = ETAGS[1]) -> tuple[Head, Counter[str]]:
    """The head that a cold client finds there, and what it asks for."""
    asked: Counter[str] = Counter()

    def count(point: FaultPoint) -> None:
        if point.phase == "before":
            asked[f"{point.operation} {point.name.partition('/')[0]}"] += 1

    store: Any = Encrypted(lab.store.copy(fault=count), etag)
    opened = open_repository(store, lab.root, clock=lab.clock, warn=lambda _: None)
    return opened.head, asked


@pytest.mark.parametrize("etag", ETAGS)
def test_where_etags_are_no_md5_the_objects_are_read(lab: Lab, etag: str) -> None:
    """As under a key of the service: each once; pages cost a little, and are of no use."""
    _beat(lab, 2 * LENGTH)
    head, asked = _encrypted_reads(lab, etag)
    assert head == lab.open().head
    assert asked["get ledger"] == head.seq + 1
    assert asked["versions ledger"] == 1
    assert not [each for each in asked if "checkpoint" in each]


@pytest.mark.parametrize("etag", ETAGS)
def test_where_etags_are_no_md5_a_checkpoint_vouches_for_pages(lab: Lab, etag: str) -> None:
    """Nothing but what stands behind the pages is read; with one page more than it, objects are."""
    council = make_council(lab)
    _beat(lab, 4 * LENGTH)
    council.checkpoint()
    head, asked = _encrypted_reads(lab, etag)
    assert head == lab.open().head
    assert asked["get ledger"] < LENGTH + 5
    _beat(lab, LENGTH)
    head, asked = _encrypted_reads(lab, etag)
    assert head == lab.open().head
    assert asked["get ledger"] >= head.seq


def _forge(lab: Lab, start: int) -> list[bytes]:
    """Statements of another history from that number on, each as long as the honest one."""
    fork = lab.fork(lab.base / "fork")
    honest = lab.open().ledger.records[start:]
    for record in reversed(honest):
        fork.store.remove(ledger_name(record.seq), record.version)
    fork.store.remove(*_page(fork, start // LENGTH))
    for record in honest:
        for number in itertools.count():
            beat(fork, f"{number:05d}")
            forged = fork.open().ledger.records[-1]
            if len(forged.envelope) == len(record.envelope):
                break
            fork.store.remove(ledger_name(forged.seq), forged.version)
            for version in fork.store.versions_of(page_name(forged.seq // LENGTH)):
                fork.store.remove(version.name, version.version)
    return [record.envelope for record in fork.open().ledger.records[start:]]


def test_a_forged_page_is_not_taken_where_no_checkpoint_is_of_it(lab: Lab) -> None:
    """A thief with a host's key forges a page, and later versions of what stands at its end."""
    council = make_council(lab)
    _beat(lab, 2 * LENGTH)
    council.checkpoint()
    start = 12
    honest = lab.open()
    forged = _forge(lab, start)
    envelopes = [record.envelope for record in honest.ledger.records[LENGTH:start]] + forged
    page = b"".join(envelope + b"\n" for envelope in envelopes[:LENGTH])
    lab.store.corrupt(*_page(lab, 1), page)
    for seq, envelope in enumerate(forged, start):
        if seq >= 2 * LENGTH - 1:  # where an object is read whatever a page says
            lab.store.plant(ledger_name(seq), envelope)
    head, asked = _encrypted_reads(lab)
    assert head == honest.head
    assert asked["get ledger"] >= head.seq


def test_a_directory_writes_and_reads_no_pages(
    make_repository: MakeRepository, clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its list has no MD5, and its files are near."""
    monkeypatch.setattr(pages, "PAGE_LENGTH", LENGTH)
    lab = make_repository("none", store=LocalStore.create(tmp_path / "directory", clock=clock))
    _beat(lab, 2 * LENGTH)
    assert list(lab.store.versions("ledger-page/")) == []
    assert lab.open().head.seq > LENGTH


def test_a_page_needs_nobody_to_vouch_for_it(lab: Lab) -> None:
    """One host's own statements are read by page, too."""
    _beat(lab, 3 * LENGTH)
    assert _requests(lab)["get"] < 2 * LENGTH


def test_ten_thousand_statements_cost_forty_requests_in_sequence(
    make_repository: MakeRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a reader without memory: lists of a thousand names, pages, and what is read at once."""
    lab = make_repository("none")
    read = lab.open()
    envelopes = [lab.store.get(ledger_name(n)) for n in range(read.head.seq + 1)]
    prev = read.head
    while len(envelopes) < 10_000:
        payload = build_statement(
            type="heartbeat",
            repository=read.ledger.repository_id,
            seq=len(envelopes),
            prev=prev,
            time=lab.clock(),
            tool="t",
            subject=[],
            body=HeartbeatBody(note="alive"),
            by=[lab.host.key.signing.public.id],
        )
        envelopes.append(seal_envelope(payload, [lab.host.key.signing]))
        prev = Head(seq=len(envelopes) - 1, digest=parse_envelope(envelopes[-1]).digest)
        lab.store.plant(ledger_name(prev.seq), envelopes[-1])
    for number in range(10):
        lines = envelopes[1000 * number : 1000 * (number + 1)]
        lab.store.plant(page_name(number), pages.encode_page(lines))
    rounds: Counter[str] = Counter()
    fetch = ledgerobjects.fetch

    def counted(
        store: ObjectStore, versions: Sequence[ObjectVersion], threads: AtOnce
    ) -> list[bytes | None]:
        rounds["objects"] += bool(versions)
        assert len(versions) <= ledgerobjects.AT_ONCE
        return fetch(store, versions, threads)

    def count(point: FaultPoint) -> None:
        if point.phase == "before" and point.operation == "get":
            rounds["pages"] += point.name.startswith("ledger-page/")
        elif point.phase == "before":
            rounds["lists"] += 1

    monkeypatch.setattr(read_statements, "fetch", counted)
    lab.store.fault = count
    cold = lab.open()
    lab.store.fault = None
    assert cold.head == cold.ledger.records[-1].head
    assert cold.head.seq == 9_999
    names_a_list = 1_000
    in_sequence = rounds.total() + 10_000 // names_a_list
    assert in_sequence <= 40, rounds


def test_a_reading_starts_no_more_threads_than_it_asks_at_once(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not one for each statement: starting ten thousand took longer than what they asked."""
    _beat(lab, 3 * ledgerobjects.AT_ONCE)
    for version in list(lab.store.versions("ledger-page/")):
        lab.store.remove(version.name, version.version)
    started: list[threading.Thread] = []
    start = threading.Thread.start

    def counted(thread: threading.Thread) -> None:
        started.append(thread)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", counted)
    lab.open()
    assert 1 < len(started) <= ledgerobjects.AT_ONCE
    assert not any(thread.is_alive() for thread in started)


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
