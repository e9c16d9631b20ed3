"""Many writers at once, with calls that stall and pass each other: one unbroken chain (I4)."""

import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.support.invariants import assert_invariants
from tests.support.lab import Clock, Host, Lab, MakeRepository
from tests.support.trees import MakeSource
from vault.errors import NameContestedError
from vault.ledger.statements import HeartbeatBody
from vault.model import Buffer, LockMode
from vault.repository.append_statements import Draft
from vault.repository.repository import Repository
from vault.storage.base import ObjectVersion
from vault.storage.local import LocalStore
from vault.storage.memory import FaultPoint, MemoryStore

WRITERS = 20


def _stall(seed: int) -> Callable[[FaultPoint], None]:
    """Holds random calls up, before they act or before their reply is given."""
    generator = random.Random(seed)
    mutex = threading.Lock()

    def fault(point: FaultPoint) -> None:
        with mutex:
            pause = generator.choice((0, 0, 0, 0.001, 0.004))
        if point.name.startswith("ledger/"):
            time.sleep(pause)

    return fault


def _heartbeat(lab: Lab, host: Host, note: str) -> int:
    repository = Repository.open(lab.store, lab.root, clock=lab.clock)
    draft = Draft(
        type="heartbeat",
        subject=[("repository", lab.root)],
        body=HeartbeatBody(note=note),
    )
    return repository.append(lambda _: draft, [host.key.signing], tool="vault test").seq


@pytest.fixture
def lab(make_repository: MakeRepository) -> Lab:
    """A repository with governance locks."""
    return make_repository(LockMode.GOVERNANCE)


@pytest.mark.parametrize("seed", [1, 2])
def test_twenty_racing_appends_make_one_chain_with_each_entry_once(lab: Lab, seed: int) -> None:
    """Every append returned owns the seq it was told, and no other has its note."""
    hosts = [lab.enrol(f"host{number}") for number in range(WRITERS)]
    first = lab.open().head.seq + 1
    lab.store.fault = _stall(seed)
    with ThreadPoolExecutor(WRITERS) as pool:
        jobs = [
            pool.submit(_heartbeat, lab, host, f"{host.key.name} {turn}")
            for turn in range(2)
            for host in hosts
        ]
        told = {job.result() for job in jobs}
    lab.store.fault = None
    records = lab.open().ledger.records
    assert told == set(range(first, first + 2 * WRITERS)) == {r.seq for r in records[first:]}
    notes = [r.body.note for r in records[first:] if isinstance(r.body, HeartbeatBody)]
    assert sorted(notes) == sorted(f"{host.key.name} {turn}" for host in hosts for turn in range(2))
    assert not lab.open().ledger.findings
    assert assert_invariants(lab.store, lab.root) == 0


def test_twenty_racing_snapshots_make_one_chain_and_all_are_right(
    lab: Lab, make_source: MakeSource
) -> None:
    """Half share a domain, and so each other's packs; half have one of their own."""
    shared = [lab.enrol(f"host{n}", domain="default") for n in range(WRITERS // 2)]
    own = [lab.enrol(f"lone{n}") for n in range(WRITERS // 2)]
    source = make_source(files=4, size=6000)
    lab.snapshot(source)
    lab.store.fault = _stall(3)

    def take(host: Host) -> int:
        return lab.with_host(host).snapshot(source, dataset=host.key.name).record.seq

    with ThreadPoolExecutor(WRITERS) as pool:
        told = list(pool.map(take, [*shared, *own]))
    lab.store.fault = None
    assert len(set(told)) == WRITERS
    assert assert_invariants(lab.store, lab.root) == WRITERS + 1
    assert [record.seq for record in lab.open().ledger.snapshots()][1:] == sorted(told)
    assert lab.verify(*lab.open().ledger.snapshots()[::5]).verdict == "passed"


_WRITER = """
import sys
from pathlib import Path
from vault.crypto.key_files import load_writer
from vault.clock import utc_now
from vault.model import Digest
from vault.repository.repository import Repository
from vault.snapshot import SnapshotRequest, take_snapshot
from vault.storage.local import LocalStore
from vault.machine.workers import make_workers
root, keys, base, source, name = sys.argv[1:]
key = load_writer(Path(keys))
for turn in range(3):
    with make_workers(2) as workers:
        store = LocalStore(Path(root))
        repository = Repository.open(store, Digest.parse(key.repository.root), clock=utc_now)
        take_snapshot(
            repository, key, SnapshotRequest(paths=[Path(source)], dataset=name, tool="vault test"),
            cache_dir=Path(base, "cache"), state_dir=Path(base, "state"), workers=workers,
        )
"""


def test_several_processes_on_one_directory_make_one_chain(
    make_repository: MakeRepository,
    clock: Clock,
    make_source: MakeSource,
    tmp_path: Path,
) -> None:
    """They share the writer key and the chunk map as cron jobs of one host do."""
    store = LocalStore.create(tmp_path / "repository")
    clock.now = datetime.now(UTC)
    lab = make_repository(store=store)
    source = make_source()
    keys = lab.base / "keys/writer.key"
    jobs = [
        subprocess.Popen(
            [sys.executable, "-c", _WRITER, store.url, keys, lab.host.base, source, f"set{number}"],
            stderr=subprocess.PIPE,
        )
        for number in range(4)
    ]
    errors = [job.communicate()[1].decode() for job in jobs]
    assert [job.returncode for job in jobs] == [0] * 4, errors
    assert assert_invariants(store, lab.root) == 12
    repository = lab.open()
    assert [len(repository.ledger.snapshots(name)) for name in repository.ledger.datasets()] == [
        3
    ] * 4
    assert lab.verify().verdict == "passed"


def test_a_lost_race_is_no_finding(lab: Lab) -> None:
    """Later versions at a ledger name are information: someone else was first."""
    second = lab.enrol("second")
    raced: list[bool] = []

    def fault(point: FaultPoint) -> None:
        if point.operation == "put" and point.phase == "before" and not raced:
            raced.append(True)
            _heartbeat(lab, second, "winner")

    lab.store.fault = fault
    _heartbeat(lab, lab.host, "loser")
    lab.store.fault = None
    repository = lab.open()
    notes = [r.body.note for r in repository.ledger.records if isinstance(r.body, HeartbeatBody)]
    assert notes == ["winner", "loser"]
    assert not repository.findings
    assert not repository.ledger.findings


def test_junk_at_the_next_ledger_name_does_not_stop_appends(lab: Lab) -> None:
    """A name belongs to its oldest link-valid version, whatever stands before it."""
    head = lab.open().head.seq
    for ahead in (1, 2, 5):
        lab.store.plant(f"ledger/{head + ahead:016d}", b"junk")
    lab.store.put_marker(f"ledger/{head + 1:016d}")
    assert _heartbeat(lab, lab.host, "one") == head + 1
    assert _heartbeat(lab, lab.host, "two") == head + 2
    assert len(lab.open().ledger.records) == head + 3


def test_a_stalled_append_does_not_unseat_a_later_one_where_versions_are_in_arrival_order(
    make_repository: MakeRepository, clock: Clock
) -> None:
    """Its PUT arrived first and was done last: the list shows it first, after others built on."""
    lab = make_repository(store=MemoryStore(clock=clock, orders_versions_by_commit=False))
    second = lab.enrol("second")
    told: list[int] = []

    def fault(point: FaultPoint) -> None:
        if point.operation == "put" and point.phase == "before" and not told:
            told.append(0)
            told.extend(_heartbeat(lab, second, note) for note in ("one", "two"))

    lab.store.fault = fault
    _heartbeat(lab, lab.host, "stalled")
    lab.store.fault = None
    notes = [r.body.note for r in lab.open().ledger.records if isinstance(r.body, HeartbeatBody)]
    assert sorted(notes) == ["one", "stalled", "two"]


class _Contested(MemoryStore):
    """Answers the first exclusive PUT as S3 does while another to that name is under way."""

    def __init__(self, *, clock: Clock) -> None:
        super().__init__(clock=clock, orders_versions_by_commit=False)
        self.asked: list[bool] = []

    def put(
        self, name: str, data: Buffer, *, exclusive: bool = False, **more: Any
    ) -> ObjectVersion:
        self.asked.append(exclusive)
        if exclusive and self.asked.count(True) == 1:
            raise NameContestedError("another PUT is under way")
        return super().put(name, data, exclusive=exclusive, **more)


def test_a_contested_number_is_never_taken_without_a_condition(
    make_repository: MakeRepository, clock: Clock
) -> None:
    """The other PUT can't be seen yet, and would be listed before ours: ask again instead."""
    store = _Contested(clock=clock)
    make_repository(store=store)
    appends = store.asked[store.asked.index(True) :]
    assert appends == [True, True], "an append went on without If-None-Match"
