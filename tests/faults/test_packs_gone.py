"""A run never publishes a snapshot of less than what it names."""

from typing import Any

import pytest

from tests.support.lab import Lab
from tests.support.trees import MakeSource, files_of
from vault.errors import LedgerMovedError
from vault.snapshot.snapshot_attempt import Attempt


def _forget_a_pack(monkeypatch: pytest.MonkeyPatch, *, times: int) -> list[int]:
    """The chunk map loses a pack that the run needs, right before it is published."""
    publish = Attempt._publish
    lost: list[int] = []

    def act(attempt: Attempt, run: Any, numbers: set[int], *rest: Any) -> None:
        if len(lost) < times:
            lost.append(min(numbers))
            attempt._cache.drop_packs([min(numbers)])
        publish(attempt, run, numbers, *rest)

    monkeypatch.setattr(Attempt, "_publish", act)
    return lost


def test_a_pack_that_the_chunk_map_lost_meanwhile_is_stored_anew(
    lab: Lab, make_source: MakeSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The inventory would lack it: the run starts again, and what is signed can be restored."""
    source = make_source(files=4)
    lost = _forget_a_pack(monkeypatch, times=1)
    record = lab.snapshot(source).record
    assert len(lost) == 1
    assert lab.verify(record).verdict == "passed"
    assert lab.contents(record) == files_of(source)


def test_nothing_is_published_where_it_happens_again(
    lab: Lab, make_source: MakeSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither is a snapshot that lacks a pack."""
    lost = _forget_a_pack(monkeypatch, times=9)
    with pytest.raises(LedgerMovedError):
        lab.snapshot(make_source(files=4))
    assert len(lost) == 2
    assert lab.open().ledger.snapshots() == []
