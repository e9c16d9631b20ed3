"""Cut off at every call, a restore leaves TARGET as it was, or as the whole new state (I6)."""

import dataclasses
import errno
import itertools
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest

from vault.errors import LocalError, StorageUnavailableError, VaultError
from vault.ledger.records import Record
from vault.ledger.statements import EventBody
from vault.machine.workers import make_workers
from vault.restore import (
    RestoreOutcome,
    RestoreReport,
    RestoreRequest,
    finalize_restore,
    restore_snapshot,
    undo_restore,
)
from vault.restore.syscalls import Fs
from vault.restore.undo_finalize import unfinished
from vault.storage.memory import FaultPoint

if TYPE_CHECKING:
    from tests.conftest import Lab, MakeRepository

OLD = {"old": b"former", "deep/file": b"former too"}
KILLED = 9
ENOUGH = 2_000  # calls; more than any of these restores makes

State: TypeAlias = dict[str, bytes | str | None] | None


class Faulty(Fs):
    """Fails the n-th call, or all from then on, or ends the process at it."""

    def __init__(
        self, at: int, code: int = errno.EIO, *, how: str = "once", only: str = ""
    ) -> None:
        self.calls = 0
        self.at = at
        self.code = code
        self.how = how
        self.only = only

    def __getattribute__(self, name: str) -> Any:
        """Count what is called on the way."""
        if name in Fs.__dict__ and (not self.only or name == self.only):
            self.calls += 1
            if self.calls == self.at and self.how == "kill":
                os._exit(KILLED)
            if self.calls == self.at or (self.calls > self.at and self.how == "from then on"):
                raise OSError(self.code, os.strerror(self.code))
        return super().__getattribute__(name)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Room:
    """A directory that holds TARGET and nothing else, and where it came from."""

    path: Path
    target: Path
    before: State

    @property
    def beside(self) -> list[str]:
        """Names in the room, but for TARGET."""
        return sorted(p.name for p in self.path.iterdir() if p != self.target)

    def assert_clean(self) -> None:
        """TARGET is as it was, and nothing that was restored is left beside it."""
        assert read(self.target) == self.before
        assert not self.beside


def read(top: Path) -> State:
    """What is at a place: content of files, targets of symlinks; None if there is nothing."""
    if not top.exists():
        return None
    return {
        str(path.relative_to(top)): str(path.readlink())
        if path.is_symlink()
        else path.read_bytes()
        if path.is_file()
        else None
        for path in sorted(top.rglob("*"))
    }


def run(lab: "Lab", record: Record, room: Room, fs: Fs | None = None, **options: Any) -> Any:
    """One restore, without threads so that the n-th call is always the same one."""
    scratch = lab.base / "scratch"
    scratch.mkdir(exist_ok=True)
    with make_workers(0) as workers:
        return restore_snapshot(
            lab.open(),
            lab.recovery,
            RestoreRequest(
                record=record, target=room.target, tool="vault test", replace=True, **options
            ),
            local=lab.local,
            scratch=scratch,
            workers=workers,
            fs=fs,
        )


def run_finalize(lab: "Lab", room: Room) -> None:
    """End what is unfinished."""
    with make_workers(0) as workers:
        finalize_restore(
            lambda: (lab.open(), lab.recovery),
            room.target,
            local=lab.local,
            scratch=lambda: lab.base,
            workers=workers,
            tool="vault test",
        )


def verdicts(lab: "Lab") -> list[str]:
    """Of the restores that the ledger knows."""
    bodies = [record.body for record in lab.open().ledger.valid("restore")]
    return [body.verdict for body in bodies if isinstance(body, EventBody)]


@pytest.fixture(params=["missing", "empty", "full"])
def former(request: pytest.FixtureRequest) -> str:
    """What was at TARGET."""
    return str(request.param)


@pytest.fixture
def make_room(tmp_path: Path, former: str) -> Callable[[], Room]:
    """Makes rooms, each with its own TARGET."""
    numbers = iter(range(10_000))

    def make() -> Room:
        path = tmp_path / f"room{next(numbers)}"
        path.mkdir()
        target = path / "target"
        if former != "missing":
            target.mkdir()
        for name, data in OLD.items() if former == "full" else ():
            (target / name).parent.mkdir(exist_ok=True)
            (target / name).write_bytes(data)
        return Room(path=path, target=target, before=read(target))

    return make


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A small tree with one of each."""
    top = tmp_path / "source"
    (top / "inner").mkdir(parents=True)
    (top / "several").write_bytes(os.urandom(20_000))
    (top / "small").write_bytes(b"small")
    (top / "none").touch()
    (top / "inner/link").symlink_to("../small")
    (top / "inner/hard").hardlink_to(top / "small")
    return top


@pytest.fixture
def lab(make_repository: "MakeRepository") -> "Lab":
    """An empty repository."""
    made: Lab = make_repository()
    return made


@pytest.fixture
def record(lab: "Lab", source: Path) -> Record:
    """A snapshot of the source."""
    return lab.snapshot(source).record


@pytest.fixture
def new(source: Path, record: Record) -> State:
    """What a restore must give."""
    return read(source)


def check_either(lab: "Lab", record: Record, room: Room, new: State, *, forward: bool) -> None:
    """TARGET is one of both states; going on or back leads to it, and leaves nothing else.

    After that a plain restore works.
    """
    found = read(room.target)
    assert found in (room.before, new)
    assert all(name.startswith(".target.vault-") for name in room.beside)
    journal = unfinished(room.target, state=lab.host.state)
    can_go_on = journal is not None and journal.state not in {"staged", "discarded"}
    no_way_back = journal is not None and journal.state == "finalized"
    if (forward and can_go_on) or no_way_back:
        run_finalize(lab, room)
        assert read(room.target) == new
    elif room.beside:
        while undo_restore(room.target, state=lab.host.state).journal is not None:
            assert read(room.target) == room.before
        assert read(room.target) == room.before
    assert room.beside == []


def sweep(call: Callable[[int], bool], *, step: int = 1) -> int:
    """Call with 1, 1 + step … until it returns False; gives how often it was."""
    for count, at in enumerate(range(1, ENOUGH, step)):
        if not call(at):
            return count
    raise AssertionError("no end")


def failing(lab: "Lab", record: Record, room: Room, fs: Fs) -> RestoreReport | VaultError:
    """A restore that may fail: but only in the vault's own words."""
    try:
        report: RestoreReport = run(lab, record, room, fs)
    except VaultError as error:
        return error
    return report


@pytest.mark.parametrize("forward", [True, False], ids=["finalize", "undo"])
def test_one_failing_call(
    lab: "Lab",
    record: Record,
    make_room: Callable[[], Room],
    new: State,
    former: str,
    *,
    forward: bool,
) -> None:
    """The call fails once. Before the exchange: cleaned up, as before, attested as inconclusive."""

    def once(at: int) -> bool:
        own = lab.with_store(lab.store.copy())
        room = make_room()
        fs = Faulty(at)
        outcome = failing(own, record, room, fs)
        if isinstance(outcome, VaultError):
            # what fails while it is tried out is taken for what the file system can't
            assert isinstance(outcome, LocalError) or "can't hold" in str(outcome)
            assert unfinished(room.target, state=lab.host.state) is None
            room.assert_clean()
            assert verdicts(own) == ["inconclusive"] * isinstance(outcome, LocalError)
        else:
            assert read(room.target) == new
            # a file system's lack of something is no failure, an owner's must be told
            assert outcome.outcome in {RestoreOutcome.RECOVERED, RestoreOutcome.PARTIAL}
            assert verdicts(own) == [
                "passed" if outcome.outcome is RestoreOutcome.RECOVERED else "partial"
            ]
        check_either(own, record, room, new, forward=forward)
        if at % 10 == 0:
            run(own, record, room)
            assert read(room.target) == new
        return fs.calls >= at

    assert sweep(once) > 60


@pytest.mark.parametrize("forward", [True, False], ids=["finalize", "undo"])
def test_a_disk_that_dies(
    lab: "Lab",
    record: Record,
    make_room: Callable[[], Room],
    new: State,
    *,
    forward: bool,
) -> None:
    """Every call from the n-th on fails, so nothing can be cleaned up; later it can."""

    def dying(at: int) -> bool:
        own = lab.with_store(lab.store.copy())
        room = make_room()
        fs = Faulty(at, how="from then on")
        failing(own, record, room, fs)
        check_either(own, record, room, new, forward=forward)
        return fs.calls >= at

    assert sweep(dying, step=3) > 20


@pytest.mark.parametrize("forward", [True, False], ids=["finalize", "undo"])
def test_killed(
    lab: "Lab",
    record: Record,
    make_room: Callable[[], Room],
    new: State,
    *,
    forward: bool,
) -> None:
    """The process ends at the call; who comes after goes on, or back, and can restore."""

    def killed(at: int) -> bool:
        own = lab.with_store(lab.store.copy())
        room = make_room()
        child = os.fork()
        if child == 0:
            code = 1
            try:
                run(own, record, room, Faulty(at, how="kill"))
                code = 0
            finally:
                os._exit(code)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert code in {0, KILLED}
        journal = unfinished(room.target, state=lab.host.state)
        check_either(own, record, room, new, forward=forward)
        if forward and journal is not None and journal.state in {"proven", "exchanged"}:
            assert verdicts(own) == ["passed"]  # nobody else had attested it
        return code == KILLED

    assert sweep(killed, step=2) > 30


def test_no_space_at_any_write(
    lab: "Lab", record: Record, make_room: Callable[[], Room], new: State
) -> None:
    """ENOSPC is told as such; content, journal or attestation alike."""

    def full(at: int) -> bool:
        own = lab.with_store(lab.store.copy())
        room = make_room()
        fs = Faulty(at, errno.ENOSPC, only="pwrite")
        outcome = failing(own, record, room, fs)
        if isinstance(outcome, VaultError):
            assert os.strerror(errno.ENOSPC) in str(outcome)
        check_either(own, record, room, new, forward=True)
        return fs.calls >= at

    assert sweep(full) > 6


@pytest.mark.parametrize("phase", ["before", "after"])
def test_store_that_fails_once(
    lab: "Lab", record: Record, make_room: Callable[[], Room], new: State, phase: str
) -> None:
    """Reads: as before. Writes of the attestation: recovered, and it lies beside TARGET."""

    def failing_store(at: int) -> bool:
        struck = False

        def fault(point: FaultPoint) -> None:
            nonlocal struck
            if (point.count, point.phase) == (at, phase):
                struck = True
                raise StorageUnavailableError("no answer")

        room = make_room()
        own = lab.with_store(lab.store.copy())
        repository = own.open()
        own.store._calls = itertools.count(1)
        own.store.fault = fault
        scratch = lab.base / "scratch"
        scratch.mkdir(exist_ok=True)
        request = RestoreRequest(record=record, target=room.target, tool="t", replace=True)
        try:
            with make_workers(0) as workers:
                report = restore_snapshot(
                    repository,
                    own.recovery,
                    request,
                    local=lab.local,
                    scratch=scratch,
                    workers=workers,
                )
        except StorageUnavailableError:
            own.store.fault = None
            room.assert_clean()
            assert verdicts(own) in (["inconclusive"], [])
        else:
            own.store.fault = None
            assert read(room.target) == new
            assert report.outcome is RestoreOutcome.RECOVERED
            assert (report.statement is None) is (report.attestation_file is not None)
        return struck

    assert sweep(failing_store) > 10


@pytest.fixture(autouse=True)
def _no_syncfs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flushing this machine's whole file system is not what is tested."""
    monkeypatch.setattr(Fs, "syncfs", lambda *_: None)
