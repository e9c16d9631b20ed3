"""A snapshot whose small files are read by processes beside it: same tree, same failures."""

import contextlib
import os
import signal
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.support.lab import Lab
from vault.errors import LocalError
from vault.ledger.records import Record
from vault.machine.workers import make_workers
from vault.repository.reader import Reader
from vault.snapshot import SnapshotReport, file_reader, reading_processes, safe_open, source_run

FILES = 900
Act = Callable[[Path], object]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Files for several batches, some of several chunks or read by threads, links, an empty one."""
    top = tmp_path / "source"
    for number in range(FILES):
        directory = top / f"d{number % 7}"
        directory.mkdir(parents=True, exist_ok=True)
        (directory / f"f{number}").write_bytes(os.urandom(200 + number * (1 + number % 50)))
    (top / "large").write_bytes(os.urandom(400_000))
    (top / "none").touch()
    (top / "hard").hardlink_to(top / "d0/f0")
    (top / "link").symlink_to("d0/f0")
    os.setxattr(top / "d0/f7", "user.note", b"kept")
    return top


def take(lab: Lab, source: Path, processes: int = 2) -> SnapshotReport:
    """A snapshot with threads and processes."""
    with make_workers(2, processes=processes) as workers:
        return lab.snapshot(source, workers=workers)


def entries(lab: Lab, record: Record) -> list[bytes]:
    """What the content root covers, entry by entry."""
    scratch = lab.base / f"entries-{record.seq}"
    scratch.mkdir()
    reader = Reader(lab.open(), lab.recovery.recipient, record, scratch=scratch)
    with contextlib.closing(reader):
        reader.load_packs()
        return [canonical for _, canonical in reader.tree()]


@pytest.fixture
def before_each(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[Act], Path]:
    """Have something done before a file is opened; returns the list of those in helpers."""

    def install(act: Act) -> Path:
        parent, opened, real = os.getpid(), tmp_path / "opened", safe_open.open_source
        opened.touch()

        def open_source(full: bytes, expected: Any) -> tuple[int, os.stat_result]:
            if os.getpid() != parent:
                with opened.open("ab") as out:
                    out.write(full + b"\n")
                act(Path(os.fsdecode(full)))
            return real(full, expected)

        monkeypatch.setattr(safe_open, "open_source", open_source)
        return opened

    return install


def names(source: Path, opened: Path) -> list[str]:
    """Of the files in such a list, relative to the source."""
    return [os.fsdecode(line).removeprefix(f"{source}/") for line in opened.read_bytes().split()]


def test_the_same_tree(lab: Lab, source: Path, before_each: Callable[[Act], Path]) -> None:
    """Content, attributes and counts, and indeed read by more than one process."""
    opened = before_each(lambda _: None)
    report = take(lab, source)
    assert opened.read_bytes().count(b"\n") > 0
    alone = take(lab, source, processes=0)
    assert alone.body.counts.added_bytes < report.body.counts.added_bytes
    assert report.body.counts.files == alone.body.counts.files == FILES + 3
    assert report.body.counts.size == alone.body.counts.size
    assert report.body.complete
    assert entries(lab, report.record) == entries(lab, alone.record)
    stored = lab.contents(report.record)
    assert all(stored[name] == (source / name).read_bytes() for name in stored)
    assert len(stored) == FILES + 2


def test_what_others_read_is_unchanged_next_time(
    lab: Lab, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their records tell this process what is still as it was."""
    lab.clock.now = datetime.now(UTC) + timedelta(hours=1)
    take(lab, source)
    opened: list[bytes] = []
    monkeypatch.setattr(safe_open, "open_source", lambda full, _: opened.append(full))
    assert take(lab, source, processes=0).body.counts.files == FILES + 3
    assert not opened


def test_a_file_that_grew_is_read_in_pieces(
    lab: Lab, source: Path, before_each: Callable[[Act], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It finds no room where the others of its batch leave theirs."""
    monkeypatch.setattr(reading_processes, "ROOM", 70_000)
    monkeypatch.setattr(source_run, "BATCH_SIZE", 20_000)

    def grow(path: Path) -> None:
        if path.stat().st_size < 100_000:
            path.write_bytes(b"x" * 2 * reading_processes.ROOM)

    opened = before_each(grow)
    report = take(lab, source)
    grown = [name for name in names(source, opened) if name.endswith("99")]
    stored = lab.contents(report.record)
    assert {len(stored[name]) for name in grown} == {2 * reading_processes.ROOM}
    assert report.body.counts.changed == 0


def test_what_they_could_not_read_is_told(
    lab: Lab, source: Path, before_each: Callable[[Act], Path]
) -> None:
    """Vanished or unreadable, as if this process had met it."""

    def act(path: Path) -> None:
        if path.name.endswith("0"):
            path.unlink()
        elif path.name.endswith("1"):
            raise PermissionError(13, "Permission denied")

    opened = before_each(act)
    report = take(lab, source)
    met = names(source, opened)
    counts = report.body.counts
    assert counts.vanished == sum(name.endswith("0") for name in met) > 0
    assert counts.unreadable == sum(name.endswith("1") for name in met) > 0
    assert not report.body.complete
    assert counts.files == FILES + 3 - counts.vanished - counts.unreadable


def test_one_that_is_killed_ends_the_run(
    lab: Lab, source: Path, before_each: Callable[[Act], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is published; the next run is as any other."""
    before_each(lambda _: os.kill(os.getpid(), signal.SIGKILL))
    with pytest.raises(LocalError, match="exit code -9"):
        take(lab, source)
    assert not lab.open().ledger.snapshots("data")
    monkeypatch.undo()
    assert take(lab, source).body.complete


def test_their_memory_is_not_used_again_too_early(
    lab: Lab, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch's bytes are stored before another takes their place."""
    real = file_reader.FileReader.read_batch

    def read_batch(self: file_reader.FileReader, items: Any, room: memoryview) -> Any:
        contents = real(self, items, room)
        end = sum(content.size for content in contents if content is not None)
        room[end:] = b"?" * (len(room) - end)  # whatever another batch left there
        return contents

    monkeypatch.setattr(file_reader.FileReader, "read_batch", read_batch)
    report = take(lab, source)
    stored = lab.contents(report.record)
    assert all(stored[name] == (source / name).read_bytes() for name in stored)
    assert len(stored) == FILES + 2
