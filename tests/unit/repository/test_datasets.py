"""Sizes and states by public data: manifests, inventories, events."""

from datetime import timedelta
from pathlib import Path

import pytest

from tests.support.lab import Lab, MakeRepository
from tests.support.trees import MakeSource
from vault.repository.datasets import Stats, measure, owed


@pytest.fixture
def lab(make_repository: MakeRepository, make_source: MakeSource) -> Lab:
    """The same source twice as one dataset, once as another."""
    made: Lab = make_repository()
    source = make_source()
    made.snapshot(source)
    made.clock.advance(days=1)
    made.snapshot(source)
    made.snapshot(source, dataset="other")
    return made


def _source(lab: Lab) -> Path:
    return lab.base.parent / "source"


def test_objects_that_many_need_count_once(lab: Lab) -> None:
    """Content counts as often as it can be restored, stored bytes once."""
    repository = lab.open()
    records = repository.ledger.snapshots()
    total = measure(repository, records)
    content = sum(path.stat().st_size for path in _source(lab).rglob("*") if path.is_file())
    listed = {
        item.name: item.size
        for item in lab.store.versions("")
        if item.name.startswith(("packs/", "inventory/", "domains/"))
    }
    # a link is a file to is_file(), and no content of its own
    assert total.size == 3 * (content - (_source(lab) / "link").stat().st_size)
    assert (total.objects, total.stored) == (len(listed), sum(listed.values()))
    parts = [measure(repository, [record]) for record in records]
    assert total.stored < sum(part.stored for part in parts)
    assert total.size == sum(part.size for part in parts)


def test_ratios(lab: Lab) -> None:
    """Deduplication includes compression; of nothing there is none."""
    some = Stats(
        snapshots=(1,),
        failed={},
        files=1,
        size=100,
        objects=1,
        stored=20,
        added_size=50,
        added_bytes=25,
    )
    assert (some.deduplication, some.compression) == (5, 2)
    nothing = measure(lab.open(), [])
    assert (nothing.deduplication, nothing.compression) == (None, None)


def test_expired_snapshots_are_not_owed(lab: Lab) -> None:
    """They may be gone; those that are kept longer are still asked for."""
    repository = lab.open()
    first, *later = repository.ledger.snapshots()
    when = lab.clock() + timedelta(days=30, hours=12)
    assert owed(repository.ledger, [first, *later], lab.clock()) == [first, *later]
    assert owed(repository.ledger, [first, *later], when) == later
