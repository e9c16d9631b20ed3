"""Cold reads by pages: fewer requests, and never another history than the statements tell."""

from collections import Counter
from typing import TYPE_CHECKING

import pytest

from vault import pages
from vault.envelope import build_statement, ledger_name, parse_envelope, seal_envelope
from vault.errors import RollbackError
from vault.model import Digest, EventBody, HeartbeatBody
from vault.repository import Draft
from vault.storage.memory import FaultPoint

if TYPE_CHECKING:
    from tests.conftest import Lab, MakeRepository

LENGTH = 10
NOW = "2026-01-02T03:04:05Z"


@pytest.fixture
def lab(make_repository: "MakeRepository", monkeypatch: pytest.MonkeyPatch) -> "Lab":
    """A repository whose pages are short."""
    monkeypatch.setattr(pages, "PAGE_LENGTH", LENGTH)
    return make_repository("governance")


def _beat(lab: "Lab", count: int) -> None:
    repository = lab.open()
    about = Digest.of(repository.id)
    draft = Draft(
        type="heartbeat", subject=[("repository", about)], body=HeartbeatBody(note="alive")
    )
    for _ in range(count):
        repository.append(lambda _: draft, [lab.host.key.signing], tool="vault test")


def _vouch(lab: "Lab") -> None:
    """Another key than the writer's signs at the head."""
    repository = lab.open()
    digest = repository.put_evidence(b"seen")
    body = EventBody(verdict="passed", started=NOW, finished=NOW, attestation=str(digest))
    draft = Draft(type="drill", subject=[(f"evidence/{digest}", digest)], body=body)
    repository.append(lambda _: draft, [lab.recovery.restorer], tool="vault test")


def _requests(lab: "Lab") -> Counter[str]:
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


def _page(lab: "Lab", number: int) -> tuple[str, str]:
    name = pages.page_name(number)
    (version,) = (item for item in lab.store.versions(name) if item.name == name)
    return name, version.version


def test_a_cold_client_reads_pages_not_statements(lab: "Lab") -> None:
    """A few requests a page; the same history, and the versions that locks are extended by."""
    _beat(lab, 5 * LENGTH)
    _vouch(lab)
    assert [version.name for version in lab.store.versions("ledger-page/")] == [
        pages.page_name(number) for number in range(5)
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


def test_a_page_that_a_killed_run_owes_is_written_by_the_next(lab: "Lab") -> None:
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
def test_a_damaged_page_costs_time_only(lab: "Lab", at: int) -> None:
    """Whatever is flipped, the statements themselves are read."""
    _beat(lab, 2 * LENGTH)
    expected = lab.open().head
    name, version = _page(lab, 0)
    data = bytearray(lab.store.get(name, version))
    data[at] ^= 1
    lab.store.corrupt(name, version, bytes(data))
    assert lab.open().head == expected


def test_a_page_cut_short_or_of_another_place_is_not_used(lab: "Lab") -> None:
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
def test_a_forked_page_of_a_thief_is_not_believed(lab: "Lab", *, planted_first: bool) -> None:
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
        )
        envelopes.append(seal_envelope(payload, [thief.key.signing]))
        fork.ledger.link(envelopes[-1], version="planted", modified=lab.clock())

    def plant() -> None:
        for name, data in (
            (pages.page_name(0), pages.encode_page(envelopes[:LENGTH])),
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


def test_pages_wait_for_a_second_key(lab: "Lab") -> None:
    """Until somebody else signs after them, the statements themselves are read."""
    _beat(lab, 3 * LENGTH)
    assert _requests(lab)["get"] > 3 * LENGTH
    _vouch(lab)
    assert _requests(lab)["get"] < 3 * LENGTH


def test_a_page_that_is_too_young_does_not_spoil_the_others(lab: "Lab") -> None:
    """What follows the page before it vouches for that one."""
    _beat(lab, 3 * LENGTH)
    _vouch(lab)
    _beat(lab, LENGTH)
    asked = _requests(lab)["get"]
    assert asked < 4 * LENGTH
    assert lab.open().head.seq == 4 * LENGTH + 2
