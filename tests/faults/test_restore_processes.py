"""A restore whose small files are written by processes beside it: same tree, same failures (I6)."""

import errno
import os
import signal
from pathlib import Path

import pytest

from tests.support.lab import Lab
from tests.support.trees import read_tree
from vault.errors import LocalError
from vault.ledger.records import Record
from vault.machine import metadata
from vault.machine.workers import make_workers
from vault.restore import RestoreOutcome, RestoreReport
from vault.restore import restore_attempt as restore_run
from vault.restore.syscalls import Fs

FILES = 300


@pytest.fixture(autouse=True)
def _few_are_enough(monkeypatch: pytest.MonkeyPatch, no_syncfs: None) -> None:
    monkeypatch.setattr(restore_run, "ENOUGH_FILES", 1)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Small files in several blocks, some of several chunks, links and an empty file."""
    top = tmp_path / "source"
    for number in range(FILES):
        directory = top / f"d{number % 7}"
        directory.mkdir(parents=True, exist_ok=True)
        (directory / f"f{number}").write_bytes(os.urandom(200 + number))
    (top / "large").write_bytes(os.urandom(50_000))
    (top / "none").touch()
    (top / "hard").hardlink_to(top / "d0/f0")
    (top / "link").symlink_to("d0/f0")
    return top


class Watched(Fs):
    """Tells another class what is done in a process beside that of the tests."""

    def __init__(self, file: Path) -> None:
        self.parent = os.getpid()
        self.file = file
        self.process, self.calls = self.parent, 0  # files made by this process

    @property
    def is_helper(self) -> bool:
        """Whether this is not the process that restores."""
        return os.getpid() != self.parent

    def create(self, directory: int, name: bytes) -> int:
        """Note who made which file."""
        with self.file.open("ab") as out:
            out.write(b"%d %s\n" % (self.is_helper, name))
        if self.process != os.getpid():
            self.process, self.calls = os.getpid(), 0
        self.calls += 1
        self.before_create()
        return super().create(directory, name)

    def before_create(self) -> None:
        """What a test does at this moment."""

    def made_by_helpers(self) -> int:
        """How many files."""
        return sum(line.startswith(b"1") for line in self.file.read_bytes().splitlines())


def run(lab: Lab, record: Record, target: Path, fs: Fs, processes: int = 2) -> RestoreReport:
    """A restore with threads and processes."""
    with make_workers(2, processes=processes) as workers:
        return lab.restore(record, target, workers=workers, fs=fs)


def check_refused(lab: Lab, record: Record, room: Path, fs: Fs, match: str) -> None:
    """The restore fails in the vault's own words, leaves nothing, and works without the fault."""
    room.mkdir()
    with pytest.raises(LocalError, match=match):
        run(lab, record, room / "target", fs)
    assert list(room.iterdir()) == []
    assert lab.verdicts() == ["inconclusive"]
    run(lab, record, room / "target", Fs())


def test_the_same_tree(lab: Lab, record: Record, source: Path, tmp_path: Path) -> None:
    """Proven, and indeed written by more than one process."""
    fs = Watched(tmp_path / "log")
    report = run(lab, record, tmp_path / "target", fs)
    assert report.outcome is RestoreOutcome.RECOVERED
    assert report.files == FILES + 1
    assert read_tree(tmp_path / "target") == read_tree(source)
    assert fs.made_by_helpers() > 0


def test_a_small_restore_starts_none(
    lab: Lab, record: Record, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would not be worth it."""
    monkeypatch.setattr(restore_run, "ENOUGH_FILES", FILES + 2)
    fs = Watched(tmp_path / "log")
    run(lab, record, tmp_path / "target", fs)
    assert fs.made_by_helpers() == 0


def test_what_they_could_not_apply_is_counted(lab: Lab, record: Record, tmp_path: Path) -> None:
    """As if one process had written everything."""

    class Ownerless(Watched):
        def apply_fd(
            self, fd: int, attributes: metadata.Attributes, *, directory: bool
        ) -> tuple[str, ...]:
            """Say that the owner could not be set."""
            done = super().apply_fd(fd, attributes, directory=directory)
            return done if directory else (*done, metadata.OWNER)

    fs = Ownerless(tmp_path / "log")
    report = run(lab, record, tmp_path / "target", fs)
    assert fs.made_by_helpers() > 0
    alone = run(lab, record, tmp_path / "alone", Ownerless(tmp_path / "log2"), processes=0)
    assert report.left_out == alone.left_out
    assert report.left_out[metadata.OWNER] >= FILES


@pytest.mark.parametrize("in_helper", [True, False], ids=["in a helper", "in the parent"])
@pytest.mark.parametrize("call", [1, 2, 20])
def test_a_full_disk(
    lab: Lab, record: Record, tmp_path: Path, call: int, *, in_helper: bool
) -> None:
    """Whoever meets it: the restore fails, and nothing is left, not even by who works on."""

    class Full(Watched):
        def before_create(self) -> None:
            """No room."""
            if self.is_helper is in_helper and self.calls == call:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    fs = Full(tmp_path / "log")
    check_refused(lab, record, tmp_path / "room", fs, "No space left")


@pytest.mark.parametrize("call", [1, 2, 20])
def test_a_helper_that_is_killed(lab: Lab, record: Record, tmp_path: Path, call: int) -> None:
    """Its files are missing: no recovery is declared."""

    class Killed(Watched):
        def before_create(self) -> None:
            """As the kernel does when memory runs out."""
            if self.is_helper and self.calls == call:
                os.kill(os.getpid(), signal.SIGKILL)

    fs = Killed(tmp_path / "log")
    check_refused(lab, record, tmp_path / "room", fs, "exit code -9")


def test_an_interrupted_restore_leaves_nothing(lab: Lab, record: Record, tmp_path: Path) -> None:
    """Ctrl-C reaches the parent; what helpers were just doing is waited for, then removed."""

    class Interrupted(Watched):
        def before_create(self) -> None:
            """As the signal's handler does."""
            if not self.is_helper and self.calls == 5:
                raise KeyboardInterrupt

    room = tmp_path / "room"
    room.mkdir()
    with pytest.raises(KeyboardInterrupt):
        run(lab, record, room / "target", Interrupted(tmp_path / "log"))
    assert list(room.iterdir()) == []


def test_a_limit_on_processes_is_no_failure(
    lab: Lab, record: Record, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is slower, that is all; and nothing stays open."""

    def refuse() -> int:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(os, "fork", refuse)
    before = sum(1 for _ in Path("/proc/self/fd").iterdir())
    report = run(lab, record, tmp_path / "target", Fs())
    assert sum(1 for _ in Path("/proc/self/fd").iterdir()) == before
    assert report.outcome is RestoreOutcome.RECOVERED
    assert read_tree(tmp_path / "target") == read_tree(source)
