"""A run never publishes a snapshot of less than what it names."""

from typing import Any

import pytest

from tests.support.lab import Lab
from tests.support.trees import MakeSource, files_of
from vault.errors import LedgerMovedError
from vault.machine.chunk_cache import Cache
from vault.progress import Progress


def _forget_a_pack(monkeypatch: pytest.MonkeyPatch, *, times: int) -> tuple[Progress, list[int]]:
    """The chunk map loses a pack that the run needs, right before it is published.

    To be given to the run; and the packs that were lost, by number.
    """
    opened: list[Cache] = []
    lost: list[int] = []
    real = Cache.open

    def note(*args: Any, **options: Any) -> Cache:
        opened.append(real(*args, **options))
        return opened[-1]

    class Forgetful:
        def expect(self, *, files: int, size: int) -> None:
            pass

        def advance(self, *, files: int = 0, size: int = 0) -> None:
            pass

        def stage(self, name: str) -> None:
            if name == "publishing" and len(lost) < times:
                lost.append(min(opened[-1].pack_numbers()))
                opened[-1].drop_packs(lost[-1:])

    monkeypatch.setattr(Cache, "open", note)
    return Forgetful(), lost


def test_a_pack_that_the_chunk_map_lost_meanwhile_is_stored_anew(
    lab: Lab, make_source: MakeSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The inventory would lack it: the run starts again, and what is signed can be restored."""
    source = make_source(files=4)
    progress, lost = _forget_a_pack(monkeypatch, times=1)
    record = lab.snapshot(source, progress=progress).record
    assert len(lost) == 1
    assert lab.verify(record).verdict == "passed"
    assert lab.contents(record) == files_of(source)


def test_nothing_is_published_where_it_happens_again(
    lab: Lab, make_source: MakeSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither is a snapshot that lacks a pack."""
    progress, lost = _forget_a_pack(monkeypatch, times=9)
    with pytest.raises(LedgerMovedError):
        lab.snapshot(make_source(files=4), progress=progress)
    assert len(lost) == 2
    assert lab.open().ledger.snapshots() == []
