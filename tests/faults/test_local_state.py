"""Local state lost, damaged, another's or from another time: snapshots stay right."""

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import lmdb
import pytest

from tests.support.lab import Host, Lab, MakeRepository
from tests.support.trees import MakeSource, files_of
from vault.errors import StorageUnavailableError
from vault.snapshot import SnapshotReport
from vault.storage.memory import FaultPoint


@pytest.fixture
def take_right() -> Callable[..., SnapshotReport]:
    """Takes a snapshot and reads all of it back: everything is there, and as it is on disk."""

    def take(lab: Lab, source: Path, dataset: str = "data") -> SnapshotReport:
        report = lab.snapshot(source, dataset=dataset)
        assert lab.contents(report.record) == files_of(source)
        return report

    return take


TakeRight: TypeAlias = Callable[..., SnapshotReport]


def _file(top: Path, name: str) -> Path:
    (found,) = top.rglob(name)
    return found


def _change(source: Path, number: int) -> None:
    (source / "dir0/file0").write_bytes(random.Random(f"change {number}").randbytes(12_000))


def _restore(host: Host, copy: Host, *parts: str) -> None:
    """Put an older copy of some of a host's directories in their place."""
    for part in parts:
        shutil.rmtree(host.base / part)
        shutil.copytree(copy.base / part, host.base / part)


def _killed(lab: Lab, source: Path, name: str, dataset: str = "data") -> None:
    """A run that ends when it begins to store an object of that name."""

    def fault(point: FaultPoint) -> None:
        if (point.operation, point.phase) == ("put", "before") and point.name.startswith(name):
            raise StorageUnavailableError("gone")

    lab.store.fault = fault
    with pytest.raises(StorageUnavailableError):
        lab.snapshot(source, dataset=dataset)
    lab.store.fault = None


# --- lost ---


@pytest.mark.parametrize("lost", [("cache",), ("state",), ("cache", "state")])
def test_lost_state_costs_time_only(
    lab: Lab, make_source: MakeSource, take_right: TakeRight, lost: tuple[str, ...]
) -> None:
    """Index objects say where chunks lie, so nothing is uploaded again but the tree."""
    source = make_source()
    take_right(lab, source)
    _change(source, 1)
    for part in lost:
        shutil.rmtree(lab.host.base / part)
    report = take_right(lab, source)
    assert report.packs <= 2
    assert report.reused_packs >= 2


# --- damaged ---


def _rows(cache: Path) -> list[bytes]:
    """Values of the chunk map as they lie in its file."""
    with lmdb.open(str(cache), max_dbs=5) as env:
        rows: list[bytes] = []
        for name in (b"chunks", b"packs", b"ids", b"meta"):
            database = env.open_db(name)
            with env.begin() as txn:
                rows += [bytes(value) for _, value in txn.cursor(db=database)]
    return rows


def test_no_damaged_row_of_the_cache_is_believed(
    lab: Lab, make_source: MakeSource, take_right: TakeRight, tmp_path: Path
) -> None:
    """A wrong place of a chunk, a wrong id, size or lock of a pack, a counter that went back."""
    source = make_source()
    take_right(lab, source)
    _change(source, 1)
    path = _file(lab.host.cache, "data.mdb")
    rows = [row for row in _rows(path.parent) if row]
    data = path.read_bytes()
    generator = random.Random(7)
    for number, row in enumerate(generator.sample(rows, 45) + rows[-3:]):
        fork = lab.fork(tmp_path / f"row{number}")
        at = data.rindex(row) + generator.randrange(len(row))
        damaged = bytearray(data)
        damaged[at] ^= 1 << generator.randrange(8)
        _file(fork.host.cache, "data.mdb").write_bytes(damaged)
        take_right(fork, source)


def test_a_cache_with_a_damaged_page_is_made_again_in_the_middle_of_the_run(
    lab: Lab,
    make_source: MakeSource,
    take_right: TakeRight,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Nobody has to remove it by hand: the run drops it and starts again once."""
    source = make_source()
    take_right(lab, source)
    _change(source, 1)
    path = _file(lab.host.cache, "data.mdb")
    data = path.read_bytes()
    for at in range(0, len(data), 4096):
        fork = lab.fork(tmp_path / f"page{at}")
        damaged = data[:at] + bytes(4096) + data[at + 4096 :]
        _file(fork.host.cache, "data.mdb").write_bytes(damaged)
        take_right(fork, source)
    assert "made again" in caplog.text


@pytest.mark.parametrize("keep", [0, 1, 4096, 8192, 12_288, 20_000])
def test_a_truncated_cache_is_made_again(
    lab: Lab, make_source: MakeSource, take_right: TakeRight, keep: int
) -> None:
    """A page beyond its end would kill the process."""
    source = make_source()
    take_right(lab, source)
    os.truncate(_file(lab.host.cache, "data.mdb"), keep)
    take_right(lab, source)


@pytest.mark.parametrize("name", ["data.entries", "data.journal"])
def test_a_list_or_journal_damaged_anywhere_is_right_or_ignored(
    lab: Lab, make_source: MakeSource, take_right: TakeRight, tmp_path: Path, name: str
) -> None:
    """A list is believed as a whole or not at all, a journal frame by frame."""
    source = make_source()
    take_right(lab, source)
    _change(source, 1)
    _killed(lab, source, "inventory/")
    size = _file(lab.host.state, name).stat().st_size
    generator = random.Random(11)
    for at in [*range(0, size, max(1, size // 25)), size - 1]:
        fork = lab.fork(tmp_path / f"at{at}")
        path = _file(fork.host.state, name)
        data = bytearray(path.read_bytes())
        data[at] ^= generator.randrange(1, 256)
        path.write_bytes(data)
        take_right(fork, source)
    for keep in (0, 1, size // 2, size - 1):
        fork = lab.fork(tmp_path / f"keep{keep}")
        os.truncate(_file(fork.host.state, name), keep)
        take_right(fork, source)


# --- another's ---


def test_the_state_of_another_repository_is_ignored(
    lab: Lab, make_repository: MakeRepository, make_source: MakeSource, take_right: TakeRight
) -> None:
    """Cache, list and journal say whose they are."""
    source = make_source()
    other = make_repository(name="other")
    other.snapshot(source)
    _killed(other, source, "inventory/")
    names = {lab.root_key.repository.id: other.root_key.repository.id}
    for ours, theirs in names.items():
        for part in (lab.host.cache, lab.host.state):
            shutil.copytree(other.host.base / part.name / theirs, part / ours)
    report = take_right(lab, source)
    assert report.reused_packs == 0


def test_the_list_of_another_dataset_is_ignored(
    lab: Lab, make_source: MakeSource, take_right: TakeRight
) -> None:
    """Its commitment key would make the same tree recognisable in both."""
    source = make_source()
    take_right(lab, source)
    state = _file(lab.host.state, "data.entries")
    state.rename(state.with_name("other.entries"))
    take_right(lab, source, "other")


# --- from another time ---


@pytest.mark.parametrize("parts", [("cache",), ("state",), ("cache", "state")])
def test_state_restored_from_an_older_copy_names_no_pack_that_lacks_a_chunk(
    lab: Lab,
    make_source: MakeSource,
    take_right: TakeRight,
    tmp_path: Path,
    parts: tuple[str, ...],
) -> None:
    """A cache from before gives numbers out again that a later list uses for other packs."""
    source = make_source()
    take_right(lab, source)
    copy = lab.host.copy(tmp_path / "copy")
    _change(source, 1)
    take_right(lab, source)
    _restore(lab.host, copy, *parts)
    (source / "dir0/a").write_bytes(random.Random("more").randbytes(50_000))  # before file0
    take_right(lab, source)
    _change(source, 4)
    take_right(lab, source)


def test_an_older_cache_that_another_dataset_went_on_with_first_misleads_nobody(
    lab: Lab, make_source: MakeSource, take_right: TakeRight, tmp_path: Path
) -> None:
    """By then the cache has more numbers than the list knows of, but for other packs."""
    source, other = make_source(), make_source("other", seed=5)
    take_right(lab, source)
    copy = lab.host.copy(tmp_path / "copy")
    _change(source, 1)
    take_right(lab, source)
    _restore(lab.host, copy, "cache")
    for item in list(lab.store.versions("index/")):  # they would give the same numbers again
        lab.store.remove(item.name, item.version)
    take_right(lab, other, "other")
    take_right(lab, source)


@pytest.mark.parametrize("name", ["index/", "inventory/"])
def test_an_older_cache_does_not_make_a_journal_lie(
    lab: Lab, make_source: MakeSource, take_right: TakeRight, tmp_path: Path, name: str
) -> None:
    """As above, with the journal of a killed run in the place of the list."""
    source, other = make_source(), make_source("other", seed=5)
    take_right(lab, source)
    copy = lab.host.copy(tmp_path / "copy")
    _change(source, 1)
    _killed(lab, source, name)
    _change(source, 2)
    _killed(lab, source, name)
    _restore(lab.host, copy, "cache")
    take_right(lab, other, "other")
    take_right(lab, source)


def test_a_killed_run_then_an_older_cache_and_another_dataset_half_way(
    lab: Lab, make_source: MakeSource, take_right: TakeRight, tmp_path: Path
) -> None:
    """The copy was made while a run was going on: it knows the run, not all of its packs."""
    source, other = make_source(files=12), make_source("other", seed=5)
    copies: list[Host] = []

    def fault(point: FaultPoint) -> None:
        if (point.operation, point.phase) != ("put", "before"):
            return
        if point.name.startswith("packs/") and len(copies) < 3:
            copies.append(lab.host.copy(tmp_path / f"copy{len(copies)}"))
        if point.name.startswith("inventory/"):
            raise StorageUnavailableError("gone")

    lab.store.fault = fault
    with pytest.raises(StorageUnavailableError):
        lab.snapshot(source)
    lab.store.fault = None
    for number, copy in enumerate(copies):
        fork = lab.fork(tmp_path / f"fork{number}")
        _restore(fork.host, copy, "cache")
        take_right(fork, other, "other")
        take_right(fork, source)
