"""Whole operations on a real server, and an attacker who holds the store's credentials."""

import os
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.support.invariants import assert_invariants
from tests.support.lab import Lab, MakeRepository
from tests.support.trees import MakeSource
from vault.audit import Concern, audit_repository
from vault.ledger.records import Record
from vault.machine.workers import make_workers
from vault.model import Code, LockMode
from vault.repository.repository import Repository
from vault.restore import RestoreOutcome, RestoreRequest, restore_snapshot
from vault.storage import s3
from vault.storage.base import ObjectVersion, Observed

pytestmark = pytest.mark.s3

MODES = [LockMode.GOVERNANCE, LockMode.COMPLIANCE]
MakeStore = Callable[..., s3.S3Store]


@pytest.fixture
def source(make_source: MakeSource) -> Path:
    """A small tree of several packs."""
    return make_source(files=12)


def assert_restored(lab: Lab, record: Record, source: Path) -> None:
    """A proven and recorded restore gives exactly the tree."""
    scratch, target = lab.base / "restore-scratch", lab.base / "target"
    scratch.mkdir()
    request = RestoreRequest(record=record, target=target, tool="vault test")
    with make_workers(2) as workers:
        report = restore_snapshot(
            lab.open(), lab.recovery, request, local=lab.local, scratch=scratch, workers=workers
        )
    assert report.outcome is RestoreOutcome.RECOVERED
    assert report.statement is not None
    assert tree(target) == tree(source)


def tree(top: Path) -> dict[str, bytes | str]:
    """What is below a directory: bytes of files, targets of links."""
    return {
        str(path.relative_to(top)): str(path.readlink()) if path.is_symlink() else path.read_bytes()
        for path in sorted(top.rglob("*"))
        if path.is_symlink() or path.is_file()
    }


@pytest.mark.parametrize("mode", MODES)
def test_snapshots_are_locked_verified_and_restored(
    store: s3.S3Store,
    make_repository: MakeRepository,
    source: Path,
    mode: LockMode,
) -> None:
    """A second snapshot reuses packs and extends their locks."""
    lab = make_repository(mode, store=store)
    first = lab.snapshot(source).record
    packs = {item.version for item in store.versions("packs/")}
    (source / "new").write_bytes(os.urandom(20_000))
    second = lab.snapshot(source, retention=timedelta(days=60)).record
    assert packs < {item.version for item in store.versions("packs/")}
    assert assert_invariants(store, lab.root) == 2
    assert lab.verify(first, second).passed
    assert_restored(lab, second, source)


def test_a_repository_survives_an_attacker_with_the_stores_credentials(
    store: s3.S3Store,
    client: Any,
    make_repository: MakeRepository,
    make_source: MakeSource,
) -> None:
    """300 packs, a third overwritten, all delete-marked, junk at the next ledger names."""
    lab = make_repository(LockMode.COMPLIANCE, store=store)
    source = make_source(files=66, size=130_000)
    record = lab.snapshot(source).record
    before = list(store.versions(""))
    packs = [item for item in before if item.name.startswith("packs/")]
    assert len(packs) >= 300
    attack(store, client, [item.name for item in before])
    packs_left = client.list_objects_v2(Bucket=store.bucket, Prefix=store.prefix + "packs/")
    assert not packs_left["KeyCount"]
    for item in before[:3] + packs[:3]:
        with pytest.raises(ClientError, match="AccessDenied"):
            client.delete_object(
                Bucket=store.bucket,
                Key=store.prefix + item.name,
                VersionId=item.version,
                BypassGovernanceRetention=True,
            )

    assert lab.open().ledger.snapshots()[-1].digest == record.digest
    assert lab.verify(record).passed
    assert_restored(lab, record, source)
    again = lab.snapshot(source).record
    assert again.seq > record.seq
    assert_told(lab, {item.name for item in before}, overwritten(before), record.seq)


def overwritten(items: Sequence[ObjectVersion]) -> set[str]:
    """The third of the names that `attack` stores junk at."""
    return {item.name for item in items[::3]}


def assert_told(lab: Lab, names: set[str], hit: set[str], seq: int) -> None:
    """The audit names every marker, every version with other bytes, every planted statement."""
    repository = Repository.open(lab.store, lab.root, clock=lab.clock, tolerant=True)
    with make_workers(0, transfers=8) as workers:
        report = audit_repository(repository, workers=workers)
    assert report.gravest is Concern.INTEGRITY
    assert not report.omitted
    told: dict[Code, set[str]] = {}
    for finding in report.findings:
        told.setdefault(finding.code, set()).add(finding.subject)
    assert told[Code.MARKER] == names
    ledger = {name for name in hit if name.startswith("ledger/")}
    planted = {f"ledger/{seq + ahead:016d}" for ahead in (1, 2, 8)}
    assert told[Code.JUNK_STATEMENT] == ledger | planted
    assert told[Code.OTHER_BYTES] == hit - ledger
    times = [finding.found for finding in report.findings if finding.code is Code.OTHER_BYTES]
    assert all(re.search(r"\d{4}-\d\d-\d\dT", found) for found in times)


def attack(store: s3.S3Store, client: Any, names: list[str]) -> None:
    """What the credentials of a writer that may also delete allow."""

    def strike(numbered: tuple[int, str]) -> None:
        number, name = numbered
        key = store.prefix + name
        if number % 3 == 0:
            client.put_object(
                Bucket=store.bucket, Key=key, Body=b"junk" * 10, ChecksumAlgorithm="SHA256"
            )
        client.delete_object(Bucket=store.bucket, Key=key)

    statements = [name for name in names if name.startswith("ledger/")]
    copied = store.get(statements[-1])
    junk = [f"ledger/{len(statements) + ahead:016d}" for ahead in (0, 0, 0, 1, 7)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(strike, enumerate(names)))
        for number, name in enumerate(junk):
            client.put_object(
                Bucket=store.bucket,
                Key=store.prefix + name,
                Body=copied if number == 1 else b"{}",
                ChecksumAlgorithm="SHA256",
            )


@pytest.mark.parametrize("ordered", [True, False])
def test_twelve_writers_race_for_one_chain(
    make_store: MakeStore,
    racing_store: s3.S3Store,
    make_repository: MakeRepository,
    tmp_path: Path,
    ordered: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    """Nobody's entry is lost, with and without trust in the order of versions."""
    observed = Observed(orders_versions_by_commit=ordered)
    lab = make_repository(store=make_store(racing_store.prefix.rstrip("/"), observed=observed))
    hosts = [lab.enrol(f"host{number}") for number in range(12)]

    def write(number: int) -> Record:
        source = tmp_path / f"source{number}"
        source.mkdir()
        (source / "file").write_bytes(os.urandom(3000))
        record: Record = lab.with_host(hosts[number]).snapshot(source, dataset=f"d{number}").record
        return record

    with ThreadPoolExecutor(12) as pool:
        records = list(pool.map(write, range(12)))
    repository: Repository = lab.open()
    seqs = sorted(record.seq for record in repository.ledger.snapshots())
    assert seqs == list(range(seqs[0], seqs[0] + 12))
    assert {record.digest for record in records} == {
        record.digest for record in repository.ledger.snapshots()
    }
    assert lab.verify().passed
