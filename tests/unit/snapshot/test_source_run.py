"""What a snapshot makes of its source: missing, empty, changing, unreadable.

See docs/design.md "Snapshot".
"""

import errno
import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.lab import Clock, Lab
from tests.support.trees import MakeSource
from vault.errors import BusyError, ConfigError, StorageError
from vault.format import tree
from vault.machine import metadata
from vault.snapshot import file_reader, safe_open, unchanged, walk_report
from vault.snapshot import walk as walking
from vault.snapshot.unchanged import FOREVER
from vault.snapshot.walk import Rules
from vault.storage.memory import FaultPoint


def _empty(top: Path) -> None:
    for member in top.iterdir():
        shutil.rmtree(member) if member.is_dir() and not member.is_symlink() else member.unlink()


# --- the unmounted source ---


def test_a_missing_path_is_refused_before_anything_is_stored(lab: Lab, tmp_path: Path) -> None:
    """A PATH that is not there is not a PATH with nothing in it."""
    before = list(lab.store.versions(""))
    with pytest.raises(ConfigError, match="can't be read"):
        lab.snapshot(tmp_path / "gone")
    assert list(lab.store.versions("")) == before


def test_a_source_that_lost_everything_is_refused(lab: Lab, make_source: MakeSource) -> None:
    """Until somebody says that it is meant to be empty."""
    source = make_source()
    lab.snapshot(source)
    _empty(source)
    with pytest.raises(ConfigError, match="is empty") as refused:
        lab.snapshot(source)
    assert str(source) in str(refused.value)
    report = lab.snapshot(source, allow_empty=True)
    assert report.body.counts.files == 0
    assert lab.snapshot(source).body.complete


def test_one_of_several_paths_that_lost_everything_is_refused(
    lab: Lab, make_source: MakeSource
) -> None:
    """The others' files must not hide that one disk is not mounted."""
    first, second = make_source("first"), make_source("second", seed=2)
    lab.snapshot(first, second)
    _empty(second)
    with pytest.raises(ConfigError, match="is empty") as refused:
        lab.snapshot(first, second)
    assert "second" in str(refused.value)
    assert "first" not in str(refused.value)


def test_without_an_entry_list_the_ledger_tells_that_the_source_was_not_empty(
    lab: Lab, make_source: MakeSource
) -> None:
    """A reinstalled host whose data disk is not mounted."""
    source = make_source()
    lab.snapshot(source)
    _empty(source)
    shutil.rmtree(lab.host.state)
    with pytest.raises(ConfigError, match="is empty"):
        lab.snapshot(source)


def test_a_source_that_always_was_empty_is_taken(lab: Lab, tmp_path: Path) -> None:
    """Nothing was lost."""
    (tmp_path / "new").mkdir()
    for _ in range(2):
        assert lab.snapshot(tmp_path / "new").body.complete


# --- what is in it ---


def test_sockets_are_counted_and_not_stored(
    lab: Lab, make_source: MakeSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They mean nothing without the process behind them."""
    source = make_source()
    monkeypatch.chdir(source)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket")
    report = lab.snapshot(source)
    assert report.body.counts.sockets == 1
    assert report.body.complete
    assert "socket" not in lab.contents(report.record)


def test_files_that_nobody_may_read_make_the_snapshot_incomplete(
    lab: Lab, make_source: MakeSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Listed with the reason; everything else is there."""
    source = make_source()
    refused = bytes(source / "dir0/file2")
    real = safe_open.open_source

    def open_source(full: bytes, expected: os.stat_result) -> tuple[int, os.stat_result]:
        if full == refused:
            raise PermissionError(13, "Permission denied")
        return real(full, expected)

    monkeypatch.setattr(safe_open, "open_source", open_source)
    report = lab.snapshot(source)
    assert not report.body.complete
    assert report.body.counts.unreadable == 1
    assert [(problem.path, problem.kind) for problem in report.problems] == [
        (b"dir0/file2", "unreadable")
    ]
    stored = lab.contents(report.record)
    assert "dir0/file2" not in stored
    assert "dir0/file4" in stored
    monkeypatch.undo()
    report = lab.snapshot(source)
    assert report.body.complete
    assert "dir0/file2" in lab.contents(report.record)


def test_few_descriptors_are_no_reason_to_leave_files_out(
    lab: Lab, make_source: MakeSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many files are opened ahead; where the system allows fewer they are opened in turn."""
    source = make_source(files=60)
    real, real_close = safe_open.open_source, os.close
    held: set[int] = set()

    def open_source(full: bytes, expected: os.stat_result) -> tuple[int, os.stat_result]:
        if len(held) == 5:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        fd, status = real(full, expected)
        held.add(fd)
        return fd, status

    def close(fd: int) -> None:
        held.discard(fd)
        real_close(fd)

    monkeypatch.setattr(safe_open, "open_source", open_source)
    monkeypatch.setattr(os, "close", close)
    report = lab.snapshot(source)
    assert report.body.complete
    assert report.body.counts.unreadable == 0
    assert not held


def test_what_is_excluded_is_not_stored(lab: Lab, make_source: MakeSource) -> None:
    """By gitignore patterns below each PATH."""
    source = make_source()
    report = lab.snapshot(source, rules=Rules(excludes=("dir1/",)))
    assert {name.partition("/")[0] for name in lab.contents(report.record)} == {"dir0", "empty"}


# --- what changes meanwhile ---


def _between_reads(
    monkeypatch: pytest.MonkeyPatch, act: Callable[[int], object], *names: str
) -> None:
    """Calls ``act`` with a count after the bytes of each file, or piece of one, were read."""
    count = [0]

    def hooked(real: Callable[..., Any]) -> Callable[..., Any]:
        def read(*arguments: Any) -> Any:
            result = real(*arguments)
            count[0] += 1
            act(count[0])
            return result

        return read

    for name in names or ("_read_whole", "_read_into"):
        monkeypatch.setattr(file_reader, name, hooked(getattr(file_reader, name)))


def test_a_file_that_changes_once_while_it_is_read_is_read_again(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second reading is the one that counts."""
    (tmp_path / "top").mkdir()
    file = tmp_path / "top/file"
    file.write_bytes(b"before")

    def act(count: int) -> None:
        if count == 1:
            file.write_bytes(b"after it")

    _between_reads(monkeypatch, act)
    report = lab.snapshot(tmp_path / "top")
    assert report.body.counts.changed == 0
    assert lab.contents(report.record) == {"file": b"after it"}


def test_a_file_that_goes_on_changing_is_listed_and_read_again_next_time(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The snapshot stays complete: the file is there as it was read."""
    (tmp_path / "top").mkdir()
    file = tmp_path / "top/file"
    file.write_bytes(b"0")
    _between_reads(monkeypatch, lambda count: file.write_bytes(b"%d" % count))
    report = lab.snapshot(tmp_path / "top")
    assert report.body.counts.changed == 1
    assert report.body.complete
    assert [problem.kind for problem in report.problems] == ["changed"]
    assert lab.contents(report.record) == {"file": b"1"}
    monkeypatch.undo()
    assert lab.contents(lab.snapshot(tmp_path / "top").record) == {"file": b"2"}


def test_a_file_that_changed_without_its_times_is_read_again_for_a_minute(
    lab: Lab, clock: Clock, tmp_path: Path
) -> None:
    """Times written less than 60 s before the file was read prove nothing."""
    (tmp_path / "top").mkdir()
    file = tmp_path / "top/file"
    file.write_bytes(b"first")
    read = file.stat()
    clock.now = clock.now.fromtimestamp(read.st_ctime, clock.now.tzinfo)
    lab.snapshot(tmp_path / "top")
    record = _only_record(lab)
    seconds = (record.read_ns - max(record.mtime, record.ctime)) / 1e9
    assert seconds < 60
    assert not unchanged.is_unchanged(file.stat(), record, FOREVER)
    clock.advance(minutes=2)
    lab.snapshot(tmp_path / "top")
    assert unchanged.is_unchanged(file.stat(), _only_record(lab), FOREVER)


def _only_record(lab: Lab) -> Any:
    """The entry list's record of the file at the top."""
    from vault.snapshot.last_run import EntryListReader, _end_of_records
    from vault.snapshot.list_records import read_head

    (path,) = lab.host.state.rglob("data.entries")
    with path.open("rb") as file:
        head, _, _ = read_head(file)
        start = file.tell()
        records = list(EntryListReader(file, head, start, _end_of_records(file)).records())
    return next(record for record in records if record.path == b"file")


def test_a_file_that_vanishes_before_it_is_read_is_counted(
    lab: Lab, make_source: MakeSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if the walk had been a moment later."""
    source = make_source()
    gone = source / "dir0/file2"
    _between_reads(monkeypatch, lambda count: gone.unlink(missing_ok=True), "_ask")
    report = lab.snapshot(source)
    assert report.body.counts.vanished == 1
    assert report.body.complete
    assert "dir0/file2" not in lab.contents(report.record)


def test_a_large_file_that_shrinks_while_it_is_read_is_listed(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Read in pieces; what is stored is what was read."""
    monkeypatch.setattr(file_reader, "LARGE_FILE", 4096)
    monkeypatch.setattr(file_reader, "PIECE", 8192)
    (tmp_path / "top").mkdir()
    file = tmp_path / "top/file"
    file.write_bytes(os.urandom(60_000))
    sizes = iter((30_000, 20_000))

    def act(count: int) -> None:
        if count in (2, 7):
            os.truncate(file, next(sizes))

    _between_reads(monkeypatch, act)
    report = lab.snapshot(tmp_path / "top")
    assert report.body.counts.changed == 1
    (data,) = lab.contents(report.record).values()
    assert file.read_bytes() == data[:20_000]


@pytest.mark.parametrize(
    ("cut", "regrown"),
    [
        (1, None),  # in the first data
        (400_000, None),  # in the second hole
        (700_000, None),  # before the last hole
        (700_000, 2_000_000),  # and it has other holes since
        (0, 1_000_000),
        (1_000_000, None),  # the control: nothing is cut
    ],
)
def test_a_sparse_file_that_is_cut_while_it_is_read_can_be_restored(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut: int, regrown: int | None
) -> None:
    """Its holes end with what was read (libarchive/libarchive#2125); the other file is whole."""
    monkeypatch.setattr(file_reader, "PIECE", 8192)
    top = tmp_path / "top"
    top.mkdir()
    (top / "other").write_bytes(b"other")
    file = top / "file"

    def plant() -> None:
        with file.open("wb") as image:
            for at in (0, 500_000, 600_000):
                image.seek(at)
                image.write(os.urandom(20_000))
            image.truncate(1_000_000)

    def act(_: int) -> None:
        if file.stat().st_size == 1_000_000 and cut < 1_000_000:
            os.truncate(file, cut)
            if regrown:
                os.truncate(file, regrown)

    plant()
    _between_reads(monkeypatch, act)
    real_open = file_reader.FileReader.open_in_pieces

    def open_anew(
        reader: file_reader.FileReader, item: Any, **options: Any
    ) -> file_reader.LargeFile:
        plant()
        return real_open(reader, item, **options)

    monkeypatch.setattr(file_reader.FileReader, "open_in_pieces", open_anew)
    report = lab.snapshot(top)
    assert report.body.counts.changed == (cut < 1_000_000)
    assert report.body.complete
    stored = lab.contents(report.record)
    assert stored["other"] == b"other"
    monkeypatch.undo()
    if cut == 1_000_000:
        assert stored["file"] == file.read_bytes()
    assert lab.contents(lab.snapshot(top).record)["file"] == file.read_bytes()


@pytest.mark.parametrize("hole", [-7, 0, 10**12])
def test_holes_that_a_file_system_invents_cost_nothing(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hole: int
) -> None:
    """Before where it was asked from, there, or beyond the end: what is no hole by then is read."""
    top = tmp_path / "top"
    top.mkdir()
    file = top / "file"
    with file.open("wb") as image:
        image.write(b"data" * 5000)
        image.truncate(900_000)
    real = os.lseek

    def lseek(fd: int, offset: int, whence: int) -> int:
        if whence == os.SEEK_DATA:
            return offset - 3
        return offset + hole if whence == os.SEEK_HOLE else real(fd, offset, whence)

    monkeypatch.setattr(os, "lseek", lseek)
    report = lab.snapshot(top)
    assert report.body.complete
    assert not report.problems
    assert lab.contents(report.record) == {"file": file.read_bytes()}


def test_attributes_that_were_not_stored_are_missing_next_time_too(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that did not change since is no reason to call the snapshot complete."""
    top = tmp_path / "top"
    (top / "inside").mkdir(parents=True)
    (top / "file").write_bytes(b"small")
    (top / "large").write_bytes(bytes(9_000_000))
    (top / "link").symlink_to("file")
    real = metadata.read_xattrs

    def refused(place: Any, problems: list[str]) -> Any:
        problems.append("xattrs: Permission denied")
        return real(place, problems)

    monkeypatch.setattr(metadata, "read_xattrs", refused)
    for _ in range(3):
        report = lab.snapshot(top)
        assert not report.body.complete
        assert report.body.counts.unreadable == 5
    monkeypatch.undo()
    assert lab.snapshot(top).body.complete


def test_a_log_that_grows_without_end_holds_nobody_up(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As much is read as there was when it was opened; then it is listed as changed."""
    (tmp_path / "top").mkdir()
    log = tmp_path / "top/log"
    log.write_bytes(b"line\n")

    def act(_: int) -> None:
        with log.open("ab") as file:
            file.write(b"one more line\n")

    _between_reads(monkeypatch, act)
    report = lab.snapshot(tmp_path / "top")
    assert report.body.counts.changed == 1
    assert report.body.complete
    (data,) = lab.contents(report.record).values()
    assert log.read_bytes().startswith(data)
    assert len(data) < log.stat().st_size


@pytest.mark.parametrize("kind", ["directory", "symlink", "fifo"])
def test_a_file_that_is_replaced_before_it_is_read_is_not_followed(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """What is there now was never looked at: it is listed, and the snapshot is incomplete."""
    (tmp_path / "secret").write_bytes(b"not part of the source")
    (tmp_path / "top").mkdir()
    (tmp_path / "top/kept").write_bytes(b"kept")
    file = tmp_path / "top/file"
    file.write_bytes(b"content")
    real = safe_open.open_source

    def swapped(full: bytes, expected: Any) -> tuple[int, os.stat_result]:
        if full == bytes(file):
            file.unlink()
            if kind == "directory":
                file.mkdir()
            elif kind == "symlink":
                file.symlink_to(tmp_path / "secret")
            else:
                os.mkfifo(file)
        return real(full, expected)

    monkeypatch.setattr(safe_open, "open_source", swapped)
    report = lab.snapshot(tmp_path / "top")
    assert not report.body.complete
    assert [(problem.path, problem.kind) for problem in report.problems] == [
        (b"file", "unreadable")
    ]
    assert lab.contents(report.record) == {"kept": b"kept"}


def _replace_when_opened(
    monkeypatch: pytest.MonkeyPatch, path: Path, act: Callable[[], object]
) -> None:
    """Has it done right before the file is opened, the first time."""
    real = safe_open.open_source
    done: list[object] = []

    def open_source(full: bytes, expected: Any) -> tuple[int, os.stat_result]:
        if full == bytes(path) and not done:
            done.append(act())
        return real(full, expected)

    monkeypatch.setattr(safe_open, "open_source", open_source)


@pytest.mark.parametrize("size", [0, 5, 300_000, 9_000_000, -5_000_000, -100_000])
@pytest.mark.parametrize("before", [5, 300_000, 9_000_000])
def test_a_file_that_was_replaced_by_a_rename_is_stored_as_it_is_now(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: int, size: int
) -> None:
    """Content, size and status are of the file that was read, however large; <0: sparse."""
    top = tmp_path / "top"
    top.mkdir()
    file = top / "file"
    file.write_bytes(b"1" * before)
    (top / "neighbour").write_bytes(b"neighbour")
    beside = tmp_path / "beside"
    if size >= 0:
        beside.write_bytes(os.urandom(size))
    else:
        with beside.open("wb") as out:
            out.truncate(-size)
            out.seek(-size // 5)
            out.write(b"between holes")
    beside.chmod(0o741)
    os.utime(beside, ns=(1, 1_234_567_890_123_456_789))
    content = beside.read_bytes()
    _replace_when_opened(monkeypatch, file, lambda: beside.rename(file))
    report = lab.snapshot(top)
    assert report.body.complete
    assert not report.problems
    assert lab.contents(report.record) == {"file": content, "neighbour": b"neighbour"}
    entry = lab.entries(report.record)["file"]
    assert (entry.mode, entry.mtime) == (0o741, 1_234_567_890_123_456_789)
    assert entry.size == abs(size)
    assert (entry.holes is not None) == (size < 0)
    assert lab.verify(report.record).passed


def test_what_replaced_a_file_is_not_taken_for_unchanged(
    lab: Lab, tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is remembered is the status of what was opened: the next run reads anew, if need be."""
    top = tmp_path / "top"
    top.mkdir()
    file, beside = top / "file", tmp_path / "beside"
    file.write_bytes(b"first")
    beside.write_bytes(b"other")
    kept = tmp_path / "kept"
    kept.hardlink_to(file)
    _replace_when_opened(monkeypatch, file, lambda: beside.rename(file))
    clock.advance(days=20_000)  # nothing is young
    assert lab.contents(lab.snapshot(top).record) == {"file": b"other"}
    monkeypatch.undo()
    opened: list[bytes] = []
    real = safe_open.open_source

    def open_source(full: bytes, expected: Any) -> tuple[int, os.stat_result]:
        opened.append(full)
        return real(full, expected)

    monkeypatch.setattr(safe_open, "open_source", open_source)
    assert lab.contents(lab.snapshot(top).record) == {"file": b"other"}
    assert not opened
    kept.rename(file)  # what the walk had met
    assert lab.contents(lab.snapshot(top).record) == {"file": b"first"}
    assert opened == [bytes(file)]


def test_a_symlink_that_was_replaced_by_a_rename_is_stored_as_it_is_now(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As releases are switched: target and owner are of one and the same link."""
    top = tmp_path / "top"
    top.mkdir()
    link, beside = top / "current", tmp_path / "beside"
    link.symlink_to("release-1")
    beside.symlink_to("release-2")
    os.utime(beside, ns=(1, 1_234_567_890_123_456_789), follow_symlinks=False)
    real = safe_open.open_described

    def swapped(full: bytes, expected: os.stat_result) -> tuple[int, os.stat_result]:
        if full == bytes(link) and beside.is_symlink():
            beside.rename(link)
        return real(full, expected)

    monkeypatch.setattr(safe_open, "open_described", swapped)
    report = lab.snapshot(top)
    assert report.body.complete
    assert not report.problems
    entry = lab.entries(report.record)["current"]
    assert (entry.link, entry.mtime) == (b"release-2", 1_234_567_890_123_456_789)


def test_a_directory_that_was_replaced_after_its_walk_is_described_as_it_is_now(
    lab: Lab, make_source: MakeSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its attributes are those of what has its name; it is no problem that it is another."""
    source, other = make_source(), tmp_path / "other"
    shutil.copytree(source / "dir0", other)
    other.chmod(0o701)
    os.setxattr(other, "user.note", b"other")
    real = safe_open.open_described

    def swapped(full: bytes, expected: os.stat_result) -> tuple[int, os.stat_result]:
        if full == bytes(source / "dir0") and other.is_dir():
            (source / "dir0").rename(tmp_path / "aside")
            other.rename(source / "dir0")
        return real(full, expected)

    monkeypatch.setattr(safe_open, "open_described", swapped)
    report = lab.snapshot(source)
    assert report.body.complete
    entry = lab.entries(report.record)["dir0"]
    assert (entry.mode, entry.xattrs) == (0o701, ((b"user.note", b"other"),))


# --- one at a time ---


def test_a_second_run_of_the_same_dataset_is_refused(lab: Lab, make_source: MakeSource) -> None:
    """Another dataset may run at the same time."""
    source = make_source()
    tried: list[bool] = []

    def fault(point: FaultPoint) -> None:
        if point.name.startswith("packs/") and not tried:
            tried.append(True)
            lab.snapshot(source, dataset="other")
            with pytest.raises(BusyError):
                lab.snapshot(source)

    lab.store.fault = fault
    lab.snapshot(source)
    lab.store.fault = None
    assert tried
    assert lab.verify().verdict == "passed"


def test_attributes_are_those_of_what_the_walk_met(
    lab: Lab, make_source: MakeSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A directory above was swapped for a symlink: what lies elsewhere is not described."""
    source, elsewhere = make_source(), tmp_path / "elsewhere"
    (source / "above/inner").mkdir(parents=True)
    (elsewhere / "inner").mkdir(parents=True)
    os.setxattr(elsewhere / "inner", "user.secret", b"1")
    real = safe_open.open_described

    def swapped(full: bytes, expected: os.stat_result) -> tuple[int, os.stat_result]:
        if full.endswith(b"above/inner"):
            (source / "above").rename(tmp_path / "aside")
            (source / "above").symlink_to(elsewhere)
        return real(full, expected)

    monkeypatch.setattr(safe_open, "open_described", swapped)
    report = lab.snapshot(source)
    assert not report.body.complete
    assert [(problem.path, problem.kind) for problem in report.problems] == [
        (b"above/inner", "unreadable")
    ]


# --- what no tree can hold ---


def test_a_path_too_long_is_a_problem_and_what_it_holds_is_not_walked(
    lab: Lab, make_source: MakeSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One problem for a directory, however much is in it; all else is stored."""
    monkeypatch.setattr(walking, "MAX_PATH", 60)
    source = make_source()
    deep = source / "dir0" / ("n" * 70)
    deep.mkdir()
    for number in range(20):
        (deep / str(number)).write_bytes(b"out of reach")
    (source / ("m" * 61)).write_bytes(b"out of reach")
    (source / ("m" * 60)).write_bytes(b"within")
    report = lab.snapshot(source)
    assert not report.body.complete
    assert [(problem.path, problem.kind) for problem in report.problems] == [
        (b"dir0/" + b"n" * 70, "unreadable"),
        (b"m" * 61, "unreadable"),
    ]
    stored = lab.contents(report.record)
    assert stored["m" * 60] == b"within"
    assert "dir0/file2" in stored


def test_problems_with_long_paths_are_listed_as_far_as_memory_allows(
    lab: Lab, make_source: MakeSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are all counted."""
    monkeypatch.setattr(walking, "MAX_PATH", 60)
    monkeypatch.setattr(walk_report, "MAX_PROBLEM_SIZE", 300)
    source = make_source()
    for number in range(10):
        (source / ("%070d" % number)).write_bytes(b"")  # noqa: UP031 - shorter
    report = lab.snapshot(source)
    assert report.body.counts.unreadable == 10
    assert len(report.problems) == 4


def test_a_link_target_that_was_cut_off_is_not_stored_as_if_it_were_all(
    lab: Lab, make_source: MakeSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python reads 4,096 bytes of it and does not say that there are more."""
    source = make_source()
    for name in ("cut", "kept"):
        (source / name).symlink_to("t")
    real = os.readlink

    def readlink(name: Any, **options: Any) -> Any:
        return {b"cut": b"t" * 4096, b"kept": b"t" * 4095}.get(name) or real(name, **options)

    monkeypatch.setattr(os, "readlink", readlink)
    report = lab.snapshot(source)
    assert [(problem.path, problem.kind) for problem in report.problems] == [(b"cut", "unreadable")]
    assert report.body.counts.symlinks == 2  # with the one that was there


def test_a_source_that_is_gone_when_it_is_walked_publishes_nothing(
    lab: Lab, make_source: MakeSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tree without a top can't be read, so none is published."""
    source = make_source()
    head = lab.open().head
    real = walking.locate_source

    def locate(path: Any) -> bytes:
        found = real(path)
        calls.append(found)
        if len(calls) == 2:  # the walk has begun
            shutil.rmtree(source)
        return found

    calls: list[bytes] = []
    monkeypatch.setattr(walking, "locate_source", locate)
    with pytest.raises(ConfigError, match="can't be read") as refused:
        lab.snapshot(source)
    assert "nothing was published" in str(refused.value.hint)
    assert lab.open().head == head


def test_more_paths_than_a_tree_can_name_are_refused_before_anything_is_stored(
    lab: Lab, make_source: MakeSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tree's head names its sources and has its limit; a list of files may be longer."""
    monkeypatch.setattr(tree, "MAX_TREE_HEADER", 200)
    source = make_source()
    before = list(lab.store.versions(""))
    paths = [source / f"dir0/file{number}" for number in (0, 2, 4)]
    with pytest.raises(ConfigError, match="3 PATHs are more than one snapshot can name"):
        lab.snapshot(*paths)
    assert list(lab.store.versions("")) == before
    monkeypatch.undo()
    assert lab.snapshot(*paths).body.complete


def test_a_journal_ends_with_the_run_whose_list_holds_all_of_it(
    lab: Lab, make_source: MakeSource
) -> None:
    """One that stayed would be read again by every later run, and never cease to grow."""
    source = make_source()

    def fail(point: FaultPoint) -> None:
        if point.name.startswith("inventory/"):
            raise StorageError("no room")

    lab.store.fault = fail
    with pytest.raises(StorageError):
        lab.snapshot(source)
    assert [path.name for path in lab.host.state.rglob("*.journal")] == ["data.journal"]
    lab.store.fault = None
    lab.snapshot(source)
    assert list(lab.host.state.rglob("*.journal")) == []
    assert [path.name for path in lab.host.state.rglob("*.entries")] == ["data.entries"]
