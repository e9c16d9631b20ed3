"""Objects copied to another bucket: other version ids, and the times of the copying."""

from collections import Counter
from datetime import UTC
from pathlib import Path

import pytest

from tests.support.lab import Lab, MakeRepository
from tests.support.trees import MakeSource, files_of
from vault.audit import audit_repository
from vault.clock import to_rfc3339
from vault.ledger.envelope import Head, build_statement, seal_envelope
from vault.ledger.records import Record
from vault.ledger.statements import HeartbeatBody
from vault.machine.workers import make_workers
from vault.model import Code, Digest, LockMode
from vault.repository.append_statements import Draft
from vault.repository.repository import Repository
from vault.repository.snapshot_spec import select_snapshot
from vault.storage.memory import FaultPoint, MemoryStore
from vault.storage.names import ledger_name


@pytest.fixture
def source(make_source: MakeSource) -> Path:
    """What is backed up."""
    return make_source(files=2)


@pytest.fixture
def lab(make_repository: MakeRepository, source: Path) -> Lab:
    """Three snapshots, one a day; then a month goes by."""
    lab = make_repository(LockMode.GOVERNANCE)
    for day in range(3):
        (source / "day").write_text(f"{day}")
        lab.snapshot(source)
        lab.clock.advance(days=1)
    lab.clock.advance(days=20)
    return lab


def copied(lab: Lab, *, locks: bool) -> Lab:
    """The same objects in another bucket, perhaps with their locks."""
    other = MemoryStore(clock=lab.clock)
    spare = other.put("spare", b"", sha256=Digest.of(b""))
    for item in lab.store.versions(""):
        data = lab.store.get(item.name, item.version)
        lock = lab.store.status(item.name, item.version).retention if locks else None
        ends_later = lock is not None and lock.until > lab.clock()
        other.put(item.name, data, sha256=Digest.of(data), retention=lock if ends_later else None)
    other.remove("spare", spare.version)
    return lab.with_store(other)


def append(lab: Lab) -> Record:
    """What a host appends."""
    draft = Draft(
        type="heartbeat", subject=[("repository", lab.root)], body=HeartbeatBody(note="alive")
    )
    return lab.open().append(lambda _: draft, [lab.host.key.signing], tool="t")


def asked(lab: Lab) -> Counter[str]:
    """What one append asks of the locks of statements, by operation."""
    seen: Counter[str] = Counter()

    def count(point: FaultPoint) -> None:
        if point.phase == "before" and point.name.startswith("ledger/"):
            seen[point.operation] += point.operation in ("status", "extend")

    lab.store.fault = count
    append(lab)
    lab.store.fault = None
    return seen


def test_a_copy_is_read_restored_and_continued(lab: Lab, source: Path) -> None:
    """By time through the hosts' clocks, by number, with what was promised; nothing is odd."""
    twin = copied(lab, locks=False)
    here, there = lab.open().ledger, twin.open().ledger
    assert there.is_copy
    assert not here.is_copy
    for record in here.snapshots():
        assert there.effective_until(record) == here.effective_until(record)
        moment = f"data@{to_rfc3339(here.stored(record))}"
        assert select_snapshot(there, moment, zone=UTC).seq == record.seq
    oldest = there.snapshots()[0]
    twin.restore(oldest, lab.base / "oldest")
    assert files_of(lab.base / "oldest")["day"] == b"0"
    (source / "day").write_text("later")
    record = twin.snapshot(source).record
    twin.restore(record, lab.base / "later")
    assert files_of(lab.base / "later") == files_of(source)
    audited = Repository.open(twin.store, twin.root, clock=twin.clock, tolerant=True)
    with make_workers(0) as workers:
        codes = {each.code for each in audit_repository(audited, workers=workers).findings}
    assert codes.isdisjoint({Code.TIME_SKEW, Code.TIME_ORDER, Code.DATED_BACK, Code.OVERCLAIM})


def test_a_copy_with_its_locks_is_asked_for_one_of_them_once(lab: Lab) -> None:
    """The head names another version than the list has; the next one names the right one."""
    usual = asked(lab)
    twin = copied(lab, locks=True)
    assert asked(twin) == usual + Counter(status=1)
    assert asked(twin) == usual


def test_a_copy_without_its_locks_is_locked_by_the_first_append(lab: Lab) -> None:
    """All statements, one extend each; after that it costs what it always costs."""
    usual = asked(lab)
    twin = copied(lab, locks=False)
    statements = twin.open().head.seq + 1
    assert asked(twin) == Counter(status=1, extend=statements)
    assert asked(twin) == usual


def test_a_head_that_names_another_version_costs_one_request(lab: Lab) -> None:
    """It lied: its predecessor is locked where it is, so nothing is extended for that."""
    usual = asked(lab)
    repository = lab.open()
    head = repository.head
    payload = build_statement(
        type="heartbeat",
        repository=repository.ledger.repository_id,
        seq=head.seq + 1,
        prev=Head(seq=head.seq, digest=head.digest, version="another"),
        time=lab.clock(),
        tool="thief",
        subject=[("repository", lab.root)],
        body=HeartbeatBody(note="x"),
        by=[lab.host.key.signing.public.id],
    )
    lab.store.plant(ledger_name(head.seq + 1), seal_envelope(payload, [lab.host.key.signing]))
    assert asked(lab) == usual + Counter(status=1)
    assert asked(lab) == usual
