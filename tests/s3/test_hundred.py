"""A hundred writers race on one real server."""

import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.support.lab import Lab, MakeRepository
from vault.errors import LedgerMovedError
from vault.ledger.statements import HeartbeatBody
from vault.model import LockMode
from vault.repository.append_statements import Draft
from vault.repository.enrolment import add_writer
from vault.repository.keyrequests import request_key
from vault.repository.repository import Repository
from vault.storage import s3, s3_client

pytestmark = pytest.mark.s3

WRITERS = 100
MOST_PUTS = 25 * WRITERS  # half of what taking turns in no order at all would need


def enrol(lab: Lab, count: int) -> list[Any]:
    """Signing keys of so many hosts."""
    repository = lab.open()
    signers = []
    for number in range(count):
        key, request = request_key(
            repository,
            lab.root_key.repository,
            name=f"h{number}",
            datasets=[f"d{number}"],
            domain=None,
        )
        add_writer(
            repository,
            request,
            lab.root_key.enroller,
            recovery_key=lambda: lab.recovery,
            share=None,
            tool="vault test",
            share_datasets=[lab.host.key.name],  # it writes all
        )
        signers.append(key.signing)
    return signers


def counting(client: Any) -> Counter[str]:
    """Requests that the client sends from now on, by operation; retries count."""
    counted: Counter[str] = Counter()
    mutex = threading.Lock()

    def count(event_name: str, **_: Any) -> None:
        with mutex:
            counted[event_name.rpartition(".")[2]] += 1

    client.meta.events.register("before-send.s3", count)
    return counted


def test_a_hundred_writers_race_for_one_chain(
    endpoint: str,
    racing_store: s3.S3Store,
    make_repository: MakeRepository,
    make_store: Callable[..., s3.S3Store],
) -> None:
    """All start at once on the same head; each entry is in the chain once, PUTs are bounded."""
    lab = make_repository(LockMode.NONE, store=racing_store, versions_ordered=True)
    signers = enrol(lab, WRITERS)
    first = lab.open().head.seq + 1
    client = s3_client.connect(endpoint)
    store = make_store(racing_store.prefix.rstrip("/"), client=client)
    ready = threading.Barrier(WRITERS)
    again = Counter[int]()

    def write(number: int) -> int:
        repository = Repository.open(store, lab.root, clock=lab.clock)
        draft = Draft(
            type="heartbeat",
            subject=[("repository", lab.root)],
            body=HeartbeatBody(note=f"from {number}"),
        )
        ready.wait()
        while True:
            try:
                return repository.append(lambda _: draft, [signers[number]], tool="test").seq
            except LedgerMovedError:  # exit 11: its timer tries again
                again[number] += 1
                time.sleep(random.uniform(0, 1))

    started = time.monotonic()
    with ThreadPoolExecutor(WRITERS) as pool:
        counted = counting(client)
        told = set(pool.map(write, range(WRITERS)))
    seconds = time.monotonic() - started
    print(f"\n{WRITERS} writers: {seconds:.0f} s, {dict(counted)}, moved on: {dict(again)}")
    records = lab.open().ledger.records
    assert told == set(range(first, first + WRITERS)) == {record.seq for record in records[first:]}
    notes = [r.body.note for r in records[first:] if isinstance(r.body, HeartbeatBody)]
    assert sorted(notes) == sorted(f"from {number}" for number in range(WRITERS))
    assert not lab.open().ledger.findings
    assert counted["PutObject"] <= MOST_PUTS
