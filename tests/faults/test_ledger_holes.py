"""Holes in the ledger: findings after a second look, and the three words that are asked for.

A thief with one key can put a signed statement at any number, and a lock keeps it there.
"""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.lab import Lab, MakeRepository
from tests.support.trees import MakeSource
from vault.crypto.keys import Signer, SigningKey
from vault.custody.heal import HealAction, Healer, HealPlan, HealReport
from vault.encoding import b64encode, dumps
from vault.errors import ConfigError, LedgerMovedError, RollbackError
from vault.ledger import pages
from vault.ledger.chain import Ledger
from vault.ledger.envelope import Head, build_statement, parse_envelope, seal_envelope
from vault.ledger.records import Record, Status
from vault.ledger.statements import HeartbeatBody, PolicyBody, WriterBody
from vault.machine.workers import make_workers
from vault.model import Body, Code, Digest, Severity
from vault.repository import read_statements
from vault.repository.append_statements import Draft
from vault.repository.enrolment import revoke_writer
from vault.repository.opening import open_repository
from vault.repository.repository import Repository
from vault.repository.snapshot_spec import select_snapshot
from vault.storage.names import ledger_name

FAR = 1_000_000


@pytest.fixture
def source(make_source: MakeSource) -> Path:
    """What is backed up."""
    return make_source(files=1)


def signed(
    lab: Lab,
    key: Signer,
    at: int,
    *,
    kind: str = "heartbeat",
    body: Body | None = None,
    prev: Digest | None = None,
) -> bytes:
    """A statement for some number that follows nothing, unless told."""
    payload = build_statement(
        type=kind,
        repository=lab.open().ledger.repository_id,
        seq=at,
        prev=Head(seq=at - 1, digest=prev or Digest(bytes(32))),
        time=lab.clock(),
        tool="thief",
        subject=[("repository", lab.root)],
        body=body or HeartbeatBody(note="x"),
        by=[key.public.id],
    )
    return seal_envelope(payload, [key])


def plant(lab: Lab, key: Signer, beyond: int = 2, **what: Any) -> int:
    """Such a statement so many beyond the head; its number."""
    seq = lab.open().head.seq + beyond
    lab.store.plant(ledger_name(seq), signed(lab, key, seq, **what))
    return seq


def opened(lab: Lab, state: Path | None = None, *floors: Head) -> Repository:
    """As a command opens it."""
    return open_repository(lab.store, lab.root, clock=lab.clock, state=state, floors=floors)


def beat(repository: Repository, lab: Lab) -> Record:
    """Append what a host appends."""
    draft = Draft(
        type="heartbeat",
        subject=[("repository", lab.root)],
        body=HeartbeatBody(note="alive"),
    )
    return repository.append(lambda _: draft, [lab.host.key.signing], tool="t")


def revoke(lab: Lab, key: Signer, distrust_from: int | None = None) -> Record:
    """As the enroller does, on a machine that remembers nothing."""
    repository = opened(lab)
    return revoke_writer(
        repository,
        lab.root_key.enroller,
        repository.ledger.writers[key.public.id],
        distrust_from=distrust_from,
        reason="stolen",
        tool="t",
    )


# --- all go on before a statement beyond a hole ---


@pytest.mark.parametrize("beyond", [1, 2, 3, FAR])
def test_a_thief_beyond_a_hole_is_a_finding(lab: Lab, source: Path, beyond: int) -> None:
    """Reading, hosts that remember a head, and the revocation go on; audit names it."""
    thief = lab.enrol("thief").key.signing
    before = lab.snapshot(source).record
    state = lab.base / "state"
    opened(lab, state)
    at = plant(lab, thief, beyond)
    cold = opened(lab)
    assert cold.ledger.snapshots() == [dataclasses.replace(before)]
    assert [each.seq for each in cold.beyond] == [at]
    assert select_snapshot(cold.ledger, "data", beyond=cold.beyond) == before
    (finding,) = [each for each in cold.findings if each.code == Code.BEYOND_GAP]
    assert (finding.severity, finding.subject) == (Severity.ERROR, ledger_name(at))
    assert beat(opened(lab, state), lab).status is Status.VALID
    assert revoke(lab, thief).status is Status.VALID
    assert beat(opened(lab), lab).status is Status.VALID, "after the revocation, without memory"


def test_the_old_rule_stopped_everybody(
    lab: Lab, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: an opening that does not look beyond the hole says nothing of the statement."""
    thief = lab.enrol("thief").key.signing
    lab.snapshot(source)
    plant(lab, thief)
    monkeypatch.setattr(Ledger, "signed_for", lambda *_: None)
    cold = opened(lab)
    assert (cold.beyond, beat(cold, lab).status) == ((), Status.VALID)


@pytest.mark.parametrize("junk", [b"", b"{}", b"x" * 600])
def test_junk_beyond_the_head_is_anybodys(lab: Lab, source: Path, junk: bytes) -> None:
    """Without a listed key's signature, or copied from another place, it says nothing."""
    record = lab.snapshot(source).record
    head = opened(lab).head.seq
    lab.store.plant(ledger_name(head + 2), junk)
    lab.store.plant(ledger_name(head + 3), record.envelope)
    lab.store.plant(ledger_name(head + 4), signed(lab, SigningKey.generate(), head + 4))
    cold = opened(lab)
    assert cold.beyond == ()
    assert beat(cold, lab).status is Status.VALID


# --- the three words ---


def test_a_host_without_memory_asks_for_a_head(lab: Lab, source: Path) -> None:
    """Neither a head it was told nor one it remembers: it does not append. One option is enough."""
    thief = lab.enrol("thief").key.signing
    lab.snapshot(source)
    plant(lab, thief)
    cold = opened(lab)
    with pytest.raises(RollbackError, match="does not follow") as failure:
        beat(cold, lab)
    assert f"--trust {cold.head}" in str(failure.value.hint)
    root = Head(seq=0, digest=lab.root)
    with pytest.raises(RollbackError):
        beat(opened(lab, None, root), lab)
    assert beat(opened(lab, None, cold.head), lab).status is Status.VALID


def test_restore_of_a_dataset_names_the_snapshot_beyond_the_hole(
    lab: Lab, make_repository: MakeRepository, source: Path
) -> None:
    """What is older is not restored without a word; by number, or as latest, it is."""
    first = lab.snapshot(source).record
    second = lab.snapshot(source).record
    third = lab.snapshot(source).record
    lab.store.remove(ledger_name(second.seq), second.version)
    cold = opened(lab)
    assert cold.head.seq == first.seq
    with pytest.raises(ConfigError, match=f"{third.seq} of data.*hole is {first.seq}"):
        select_snapshot(cold.ledger, "data", beyond=cold.beyond)
    for spec in ("data@latest", str(first.seq)):
        assert select_snapshot(cold.ledger, spec, beyond=cold.beyond).digest == first.digest


@pytest.mark.parametrize("who", ["root", "enroller"])
def test_who_keeps_the_list_of_keys_stops_hosts_until_they_speak(
    lab: Lab, source: Path, who: str
) -> None:
    """A revocation may be missing: hosts wait for a root or writer statement, with memory too."""
    stolen: Signer = getattr(lab.root_key, who)
    other = lab.enrol("other").key.signing
    lab.snapshot(source)
    state = lab.base / "state"
    opened(lab, state)
    lab.clock.advance(minutes=1)
    plant(lab, stolen, kind="policy", body=PolicyBody(action="apply", name="web", sha256="ab" * 32))
    with pytest.raises(RollbackError, match="does not follow") as failure:
        beat(opened(lab, state), lab)
    assert "revocation may be missing" in str(failure.value.hint)
    lab.clock.advance(minutes=1)
    revoke(lab, other)
    assert beat(opened(lab, state), lab).status is Status.VALID


@pytest.mark.parametrize("who", ["policy", "pruner", "restorer"])
def test_no_other_role_stops_a_host_that_remembers(lab: Lab, source: Path, who: str) -> None:
    """Their statement beyond a hole is a finding."""
    key = lab.recovery.restorer if who == "restorer" else getattr(lab.root_key, who)
    lab.snapshot(source)
    state = lab.base / "state"
    opened(lab, state)
    plant(lab, key, kind="policy", body=PolicyBody(action="apply", name="web", sha256="ab" * 32))
    assert beat(opened(lab, state), lab).status is Status.VALID


def test_a_host_whose_head_is_gone_refuses(lab: Lab, source: Path) -> None:
    """Memory is never overruled by a hole."""
    lab.snapshot(source)
    state = lab.base / "state"
    head = opened(lab, state).head
    lab.store.remove(ledger_name(head.seq), head.version)
    with pytest.raises(RollbackError, match="older history"):
        opened(lab, state)


# --- what a page still has ---


@pytest.fixture
def paged(make_repository: MakeRepository, monkeypatch: pytest.MonkeyPatch) -> Lab:
    """Two pages of ten statements, and one statement more."""
    monkeypatch.setattr(pages, "PAGE_LENGTH", 10)
    lab = make_repository("governance")
    repository = lab.open()
    while repository.head.seq < 20:
        beat(repository, lab)
    return lab


@pytest.mark.parametrize("at", [1, 3, 8, 9, 15])
def test_a_line_whose_digest_the_next_statement_names_is_taken(paged: Lab, at: int) -> None:
    """By readers and by hosts that remember; no head is remembered over it."""
    state = paged.base / "state"
    whole = opened(paged, state)
    name, version = ledger_name(at), whole.ledger.records[at].version
    paged.store.remove(name, version)
    cold = opened(paged)
    assert (cold.head.digest, cold.log.history.by_line) == (whole.head.digest, at)
    (finding,) = [each for each in cold.findings if each.code == Code.MISSING]
    assert (finding.severity, finding.subject) == (Severity.ERROR, name)
    fresh = paged.base / "fresh"
    opened(paged, fresh)
    paged.store.plant(name, whole.ledger.records[at].envelope)
    assert opened(paged, fresh).head.digest == whole.head.digest
    (back,) = paged.store.versions_of(name)
    paged.store.remove(name, back.version)
    assert beat(opened(paged, state), paged).seq == whole.head.seq + 1
    (stored,) = paged.store.versions_of(name)
    assert paged.store.get(name, stored.version) == whole.ledger.records[at].envelope
    assert opened(paged).log.history.by_line is None


def _older(lab: Lab, at: int, *first: bytes) -> None:
    """Put other versions before the one of a name, which is then taken away."""
    name = ledger_name(at)
    (mine,) = lab.store.versions_of(name)
    data = lab.store.get(name, mine.version)
    lab.store.remove(name, mine.version)
    for each in (*first, data):
        lab.store.plant(name, each)
    lab.store.remove(name, lab.store.versions_of(name)[-1].version)


@pytest.mark.parametrize("what", ["bytes", "signed, and follows nothing"])
def test_junk_that_is_older_than_what_is_put_back_stops_nobody(paged: Lab, what: str) -> None:
    """It owns nothing: the host goes on, and a thief is revoked."""
    thief = paged.enrol("thief").key.signing
    state = paged.base / "state"
    opened(paged, state)
    junk = b"x" * 600 if what == "bytes" else signed(paged, thief, 15)
    _older(paged, 15, junk)
    assert revoke(paged, thief).status is Status.VALID
    assert beat(opened(paged, state), paged).status is Status.VALID
    assert [each.seq for each in opened(paged).ledger.records if not each.version] == []


def test_a_number_that_was_taken_meanwhile_is_not_put_back(paged: Lab) -> None:
    """The control: an older statement that links there owns the number."""
    thief = paged.enrol("thief").key.signing
    state = paged.base / "state"
    before = opened(paged, state)
    digest = before.ledger.records[21].digest  # the enrolment
    beat(before, paged)
    while before.head.seq < 31:
        beat(before, paged)
    opened(paged, state)
    name = ledger_name(22)
    (mine,) = paged.store.versions_of(name)
    paged.store.remove(name, mine.version)
    repository = opened(paged, state)
    paged.store.plant(name, signed(paged, thief, 22, prev=digest))
    with pytest.raises((LedgerMovedError, RollbackError)):
        repository.log.put_back(repository.log.missing()[0])


def test_a_head_over_a_line_is_not_remembered(paged: Lab) -> None:
    """A thief's page must not make a reader refuse the honest successor."""
    thief = paged.enrol("thief").key.signing
    repository = paged.open()
    while repository.head.seq < 29:
        beat(repository, paged)
    honest = paged.open()
    line = signed(paged, thief, 30, prev=honest.head.digest)
    after = signed(paged, thief, 31, prev=parse_envelope(line).digest)
    page = pages.encode_page([line, *[after] * 9])
    paged.store.put("ledger-page/0000000003", page, sha256=Digest.of(page))
    paged.store.plant(ledger_name(31), after)
    state = paged.base / "state"
    fooled = opened(paged, state)
    assert (fooled.head.seq, fooled.log.history.by_line) == (31, 30)
    paged.store.plant(
        ledger_name(30), signed(paged, paged.host.key.signing, 30, prev=honest.head.digest)
    )
    again = opened(paged, state)
    assert again.head.seq == 30
    assert again.ledger.records[30].by == (paged.host.key.signing.public.id,)


def test_a_host_that_remembers_no_head_does_not_append_over_a_line(paged: Lab) -> None:
    """For it the ledger ends before the hole, and someone signed beyond."""
    whole = paged.open()
    paged.store.remove(ledger_name(15), whole.ledger.records[15].version)
    with pytest.raises(RollbackError):
        beat(opened(paged), paged)
    assert beat(opened(paged, None, whole.head), paged).seq == whole.head.seq + 1


def heal(lab: Lab) -> tuple[HealPlan, HealReport]:
    """As `vault heal --execute` does, on a machine that remembers nothing."""
    with make_workers(0) as workers:
        healer = Healer(opened(lab), workers)
        planned = healer.plan()
        return planned, healer.execute(planned)


def put_back(planned: HealPlan) -> list[str]:
    """The statements that heal would store again."""
    return [each.name for each in planned.steps if each.action is HealAction.PUT_BACK]


def flip(lab: Lab, record: Record, after: bytes) -> None:
    """One bit of a stored statement rots, behind that text."""
    data = bytearray(record.envelope)
    data[record.envelope.index(after) + 20] ^= 1
    name = ledger_name(record.seq)
    lab.store.remove(name, record.version)
    lab.store.plant(name, bytes(data))


@pytest.mark.parametrize("after", [b'"payload"', b'"sig":"'])
def test_a_flipped_bit_is_healed_from_a_page(paged: Lab, after: bytes) -> None:
    """In what is signed, or in a signature: it is stored again, locked, and owns its number."""
    whole = paged.open()
    record, name = whole.ledger.records[3], ledger_name(3)
    flip(paged, record, after)
    planned, report = heal(paged)
    assert put_back(planned) == [name]
    assert (planned.lost, report.hidden, report.done[0].refusal) == ((), (), "")
    healed = opened(paged)
    assert (healed.head, healed.log.history.by_line) == (whole.head, None)
    version = healed.ledger.records[3].version
    assert paged.store.get(name, version) == paged.store.get(name) == record.envelope
    lock = paged.store.status(name, version).retention
    assert lock is not None
    assert lock.until >= paged.clock() + healed.parameters.ledger_span
    assert put_back(heal(paged)[0]) == []


def test_a_statement_that_is_gone_is_healed_from_a_page(paged: Lab) -> None:
    """Nothing lists its name; a plan alone changes nothing."""
    whole = paged.open()
    paged.store.remove(ledger_name(15), whole.ledger.records[15].version)
    with make_workers(0) as workers:
        planned = Healer(opened(paged), workers).plan()
    assert (put_back(planned), planned.lost) == ([ledger_name(15)], ())
    assert paged.store.versions_of(ledger_name(15)) == []
    _, report = heal(paged)
    assert (len(report.done), report.hidden) == (1, ())
    assert opened(paged).log.history.by_line is None


def test_a_host_appends_after_a_flipped_bit(paged: Lab) -> None:
    """It stores the statement again first, behind the damaged one, which links no more."""
    state = paged.base / "state"
    whole = opened(paged, state)
    flip(paged, whole.ledger.records[15], b'"payload"')
    assert beat(opened(paged, state), paged).seq == whole.head.seq + 1
    cold = opened(paged)
    assert (cold.head.seq, cold.log.history.by_line) == (whole.head.seq + 1, None)


def test_what_nothing_names_is_not_put_back(paged: Lab) -> None:
    """A page is a copy of bytes: of two missing statements the first stays missing."""
    whole = paged.open()
    for seq in (15, 16):
        paged.store.remove(ledger_name(seq), whole.ledger.records[seq].version)
    planned, report = heal(paged)
    assert (put_back(planned), report.done) == ([], ())
    assert paged.store.versions_of(ledger_name(15)) == []


def test_a_line_that_does_not_link_is_not_put_back(paged: Lab) -> None:
    """A page that was forged: its line has the digest that is named, and another signature."""
    whole = paged.open()
    record = whole.ledger.records[15]
    fields = json.loads(record.envelope)
    fields["signatures"][0]["sig"] = b64encode(SigningKey.generate().sign(b"x"))
    lines = [each.envelope for each in whole.ledger.records[10:20]]
    lines[5] = dumps(fields)
    assert parse_envelope(lines[5]).digest == record.digest
    (page,) = paged.store.versions_of("ledger-page/0000000001")
    paged.store.remove(page.name, page.version)
    paged.store.plant(page.name, pages.encode_page(lines))
    paged.store.remove(ledger_name(15), record.version)
    planned, report = heal(paged)
    assert (put_back(planned), report.done) == ([], ())


def test_a_number_that_was_taken_meanwhile_is_told(paged: Lab) -> None:
    """Between the plan and the deed a host without memory, or a thief, was quicker."""
    thief = paged.enrol("thief").key.signing  # listed from 21 on
    repository = paged.open()
    while repository.head.seq < 30:
        beat(repository, paged)
    before, gone = repository.ledger.records[24:26]
    paged.store.remove(ledger_name(25), gone.version)
    with make_workers(0) as workers:
        healer = Healer(opened(paged), workers)
        planned = healer.plan()
        assert put_back(planned) == [ledger_name(25)]
        paged.store.plant(ledger_name(25), signed(paged, thief, 25, prev=before.digest))
        (done,) = healer.execute(planned).done
    assert "was taken meanwhile" in done.refusal


def test_a_line_that_nothing_names_fills_no_hole(paged: Lab) -> None:
    """The statement after the hole decides; without it a page is anybody's."""
    whole = paged.open()
    for seq in (15, 16):
        paged.store.remove(ledger_name(seq), whole.ledger.records[seq].version)
    cold = opened(paged)
    assert (cold.head.seq, cold.log.history.by_line) == (14, None)
    assert [each.seq for each in cold.beyond] == [17, 18, 19, 20]


# --- two honest histories ---


@pytest.fixture
def forked(lab: Lab, source: Path) -> tuple[Lab, Record, Record, Record]:
    """A statement was removed, and an honest host without memory filled the hole."""
    lab.snapshot(source)
    removed = lab.snapshot(source).record
    last = lab.snapshot(source).record
    store = lab.store
    store.remove(ledger_name(removed.seq), removed.version)
    store.remove(ledger_name(last.seq), last.version)
    filled = beat(opened(lab), lab)
    assert filled.seq == removed.seq
    return lab, removed, last, filled


Back = Callable[[Lab, Record], None]


def _later(lab: Lab, record: Record) -> None:
    lab.store.plant(ledger_name(record.seq), record.envelope)


def _earlier(lab: Lab, record: Record) -> None:
    name = ledger_name(record.seq)
    (other,) = lab.store.versions_of(name)
    data = lab.store.get(name, other.version)
    lab.store.remove(name, other.version)
    lab.store.plant(name, record.envelope)
    lab.store.plant(name, data)


@pytest.mark.parametrize("back", [_later, _earlier])
def test_either_history_is_read_by_its_head(
    forked: tuple[Lab, Record, Record, Record], back: Back
) -> None:
    """Whichever is older at the name; and nothing is appended against the store's order."""
    lab, removed, last, filled = forked
    back(lab, removed)
    lab.store.plant(ledger_name(last.seq), last.envelope)
    order = lab.open().ledger.digest_at(removed.seq)
    for head in (last.head, filled.head):
        chosen = opened(lab, None, head)
        assert chosen.ledger.digest_at(head.seq) == head.digest
        if order == chosen.ledger.digest_at(removed.seq):
            assert chosen.log.history.chosen is None
            continue
        with pytest.raises(RollbackError, match="nothing is appended"):
            beat(chosen, lab)
    assert select_snapshot(opened(lab, None, last.head).ledger, str(last.seq)).digest == last.digest


def test_a_head_of_neither_history_is_refused(
    forked: tuple[Lab, Record, Record, Record],
) -> None:
    """As today: an older or another one."""
    lab, removed, last, _ = forked
    for head in (last.head, Head(seq=2, digest=Digest(bytes(32)))):
        with pytest.raises(RollbackError):
            opened(lab, None, head)
    lab.store.plant(ledger_name(last.seq), last.envelope)
    with pytest.raises(RollbackError):
        opened(lab, None, last.head)
    lab.store.plant(ledger_name(removed.seq), removed.envelope)
    assert opened(lab, None, last.head).head.digest == last.digest


# --- junk ---


def test_many_versions_of_an_old_name_change_nothing(lab: Lab, source: Path) -> None:
    """Cold and warm readers agree, wherever in the order the junk stands."""
    thief = lab.enrol("thief").key.signing
    state = lab.base / "state"
    record = lab.snapshot(source).record
    opened(lab, state)
    name = ledger_name(record.seq)
    for number in range(250):
        lab.store.plant(name, signed(lab, thief, record.seq) + b"x" * (number % 2))
    assert opened(lab).head == opened(lab, state).head
    # before it, too: at the next name, and then the statement
    following = ledger_name(record.seq + 1)
    for number in range(250):
        lab.store.plant(following, b"%0600d" % number)
    appended = beat(opened(lab, state), lab)
    assert opened(lab).head.digest == opened(lab, state).head.digest == appended.digest
    told = [each for each in opened(lab).findings if each.subject == following]
    assert len(told) == read_statements.MAX_JUNK_TOLD + 1
    assert "150 more versions" in told[-1].problem


def test_thousands_of_names_beyond_the_head_are_counted(
    lab: Lab, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The nearest are looked at, the rest said; nothing stops."""
    monkeypatch.setattr(read_statements, "MAX_BEYOND", 100)
    lab.snapshot(source)
    head = opened(lab).head.seq
    for number in range(300):
        lab.store.plant(ledger_name(head + 2 + number), b"%0600d" % number)
    cold = opened(lab)
    assert beat(cold, lab).seq == head + 1
    told = [each.problem for each in opened(lab).findings if each.subject == "ledger"]
    assert told == ["200 more names beyond the head"]


def test_a_revoked_thief_is_one_warning(lab: Lab, source: Path) -> None:
    """However many statements he left: they no longer accuse a key that is listed."""
    thief = lab.enrol("thief").key.signing
    lab.snapshot(source)
    for beyond in range(2, 12):
        plant(lab, thief, beyond)
    errors = [each for each in opened(lab).findings if each.severity is Severity.ERROR]
    assert len(errors) == 9
    revoke(lab, thief, distrust_from=3)
    cold = opened(lab)
    assert not [each for each in cold.findings if each.severity is Severity.ERROR]
    told = [each for each in cold.ledger.findings if thief.public.id in each.found]
    assert [(each.code, each.severity) for each in told] == [(Code.DISTRUSTED, Severity.WARNING)]
    assert "10 statements" in told[0].problem


def test_the_thief_who_is_enrolled_again_is_not_revived(lab: Lab, source: Path) -> None:
    """A key that was revoked is never listed again."""
    thief = lab.enrol("thief").key.signing
    lab.snapshot(source)
    revoke(lab, thief)
    body = WriterBody(
        action="add", name="thief", public=b64encode(thief.public.der), datasets=("*",)
    )
    draft = Draft(type="writer", subject=[("key", lab.root)], body=body)
    with pytest.raises(Exception, match="was revoked"):
        opened(lab).append(lambda _: draft, [lab.root_key.enroller], tool="t")
