"""Where chunks lie, as others say it: false rows, lost index objects, packs of killed runs."""

import array
import dataclasses
import hashlib
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.support.lab import Lab, MakeRepository
from tests.support.trees import MakeSource
from vault.crypto.keys import chunk_id
from vault.format import pack_index
from vault.format.pack import Block, Directory
from vault.machine.chunk_cache import Cache
from vault.machine.workers import make_workers
from vault.model import ObjectType
from vault.repository.domain_packs import index_objects
from vault.repository.enrolment import revoke_writer
from vault.repository.hosts import find_writer
from vault.snapshot import known_chunks, publish, rebuild_index
from vault.storage.memory import FaultPoint

WANTED = b"what the honest host will want to store tomorrow " * 40


@pytest.fixture
def lab(make_repository: MakeRepository) -> Lab:
    """A repository without locks."""
    return make_repository("none")


def _lose_cache(lab: Lab) -> None:
    shutil.rmtree(lab.host.cache, ignore_errors=True)
    shutil.rmtree(lab.host.state, ignore_errors=True)


def _poison(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Indexes sealed from now on say that WANTED lies in an honest pack, where it does not.

    Their names sort first, so that they are loaded first.
    """
    assert lab.host.key.domain is not None
    secrets, repository = lab.host.key.domain, lab.open()
    name = chunk_id(secrets.id_key, ObjectType.DATA, hashlib.sha256(WANTED).digest())
    listed = index_objects(repository, "default")
    honest = [
        entry
        for item in listed
        for entry in pack_index.open_index(
            repository.read(item.ref), secrets.index_key, repository.id
        )
    ]
    real = pack_index.seal_index

    def falsify(entry: pack_index.IndexEntry) -> pack_index.IndexEntry:
        block = Block(entry.header_length, 64, len(WANTED), 1, 0)
        false = Directory([block], array.array("I", [len(WANTED)]), bytes(name))
        return dataclasses.replace(entry, directory=false)

    def seal(index_key: bytes, repository_id: bytes, entries: Any) -> bytes:
        lowest = min(item.ref.sha256 for item in listed)
        while True:
            data = real(index_key, repository_id, [*map(falsify, honest), *entries])
            if hashlib.sha256(data).digest() < lowest:
                return data

    monkeypatch.setattr("vault.format.pack_index.seal_index", seal)


def _distrust(lab: Lab, name: str) -> None:
    repository = lab.open()
    writer = find_writer(repository.ledger, name)
    revoke_writer(
        repository,
        lab.root_key.enroller,
        writer,
        distrust_from=writer.added + 1,
        reason="stolen",
        tool="vault test",
    )


@pytest.mark.parametrize("merged", [False, True])
def test_false_rows_of_a_stolen_writer_are_not_believed_after_the_distrust(
    lab: Lab,
    make_source: MakeSource,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    merged: bool,
) -> None:
    """Not even where an honest host merged them into an index object of its own (I10)."""
    if merged:
        monkeypatch.setattr(pack_index, "MERGE_COUNT", 2)
    lab.snapshot(make_source())
    thief = lab.with_host(lab.enrol("thief", domain="default"))
    with monkeypatch.context() as patch:
        _poison(lab, patch)
        thief.snapshot(make_source("theirs", seed=2), dataset="theirs")
    lab.snapshot(make_source("more", seed=3))  # relists, or merges, what the thief listed
    _distrust(lab, "thief")
    (tmp_path / "tomorrow").mkdir()
    (tmp_path / "tomorrow/file").write_bytes(WANTED)
    for _ in range(2):  # with the rows loaded before, and with an empty chunk map
        report = lab.snapshot(tmp_path / "tomorrow", dataset="tomorrow")
        assert lab.contents(report.record) == {"file": WANTED}
        assert lab.verify(report.record).verdict == "passed"
        _lose_cache(lab)


def test_a_distrust_that_lands_while_a_run_publishes_starts_it_again(
    lab: Lab, make_source: MakeSource
) -> None:
    """What the run believed may be false; the manifest that follows was made anew."""
    thief = lab.with_host(lab.enrol("thief", domain="default"))
    thief.snapshot(make_source("theirs", seed=2), dataset="theirs")
    stored: list[str] = []

    def late(point: FaultPoint) -> None:
        if (point.operation, point.phase) == ("put", "after") and "inventory/" in point.name:
            stored.append(point.name)
            if len(stored) == 1:
                _distrust(lab, "thief")

    lab.store.fault = late
    report = lab.snapshot(make_source())
    lab.store.fault = None
    assert len(stored) == 2
    assert lab.verify(report.record).verdict == "passed"


def test_packs_of_a_killed_run_are_named_by_the_next_index(
    lab: Lab, make_source: MakeSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else no other host would find them, and this one would lose them with its cache."""
    source = make_source()
    with monkeypatch.context() as patch:
        patch.setattr(publish.Publisher, "store_index", _die)
        with pytest.raises(KeyboardInterrupt):
            lab.snapshot(source)
    report = lab.snapshot(source)
    assert report.packs <= 1  # the tree, whose header is another; content was all there
    stored = {ref.name for ref in lab.store.versions("packs/")}
    assert _indexed(lab) >= {
        ref.name for ref in lab.open().inventory(report.record).objects if ref.name in stored
    }


def _die(*_: object) -> None:
    raise KeyboardInterrupt


def _indexed(lab: Lab) -> set[str]:
    repository = lab.open()
    assert lab.host.key.domain is not None
    key = lab.host.key.domain.index_key
    names = set()
    for listed in index_objects(repository, "default"):
        for entry in pack_index.open_index(repository.read(listed.ref), key, repository.id):
            names.add(f"packs/{str(entry.pack_id)[:2]}/{entry.pack_id}")
    return names


def _rebuild(lab: Lab, *, from_packs: bool) -> int:
    with make_workers(0) as workers:
        return rebuild_index(
            lab.open(),
            lab.host.key,
            cache_dir=lab.host.cache,
            state_dir=lab.host.state,
            workers=workers,
            tool="vault test",
            recipient=lab.recovery.recipient if from_packs else None,
        )


def test_the_chunk_map_is_rebuilt_from_packs_alone(lab: Lab, make_source: MakeSource) -> None:
    """All index objects and the cache are lost: nothing is uploaded again but new indexes."""
    source = make_source()
    first = lab.snapshot(source)
    for version in list(lab.store.versions("index/")):
        lab.store.remove(version.name, version.version)
    _lose_cache(lab)
    assert _rebuild(lab, from_packs=False) == 0
    assert _rebuild(lab, from_packs=True) == first.packs
    second = lab.snapshot(source)
    assert second.body.counts.added_size == 0
    assert _indexed(lab) >= {
        ref.name
        for ref in lab.open().inventory(first.record).objects
        if ref.name.startswith("packs/")
    }
    assert lab.verify().verdict == "passed"


def test_the_chunk_map_is_rebuilt_from_index_objects(lab: Lab, make_source: MakeSource) -> None:
    """Without any secret but the host's own."""
    first = lab.snapshot(make_source())
    _lose_cache(lab)
    assert _rebuild(lab, from_packs=False) == first.packs
    path = lab.host.cache / lab.open().ledger.repository_id / "default"
    with Cache.open(path, repository_id=lab.open().id, domain="default") as cache:
        assert not list(known_chunks.unindexed(cache))
