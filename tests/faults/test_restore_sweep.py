"""Cut off at every call, a restore leaves TARGET as it was, or as the whole new state (I6)."""

import dataclasses
import errno
import itertools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from tests.support.children import is_killed
from tests.support.filesystems import Faulty
from tests.support.lab import Lab
from tests.support.trees import Tree, read_tree
from vault.errors import LocalError, StorageUnavailableError, VaultError
from vault.ledger.records import Record
from vault.restore import (
    RestoreOutcome,
    RestoreReport,
    undo_restore,
)
from vault.restore.syscalls import Fs
from vault.restore.undo_finalize import unfinished
from vault.storage.memory import FaultPoint

OLD = {"old": b"former", "deep/file": b"former too"}
ENOUGH = 2_000  # calls; more than any of these restores makes

State: TypeAlias = Tree | None

pytestmark = pytest.mark.usefixtures("no_syncfs")


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
        assert read_tree(self.target) == self.before
        assert not self.beside


def run(
    lab: Lab, record: Record, room: Room, fs: Fs | None = None, **options: Any
) -> RestoreReport:
    """One restore, without threads so that the n-th call is always the same one."""
    return lab.restore(record, room.target, fs=fs, replace=True, **options)


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
        return Room(path=path, target=target, before=read_tree(target))

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
def new(source: Path, record: Record) -> State:
    """What a restore must give."""
    return read_tree(source)


def check_either(lab: Lab, room: Room, new: State, *, forward: bool) -> bool:
    """TARGET is one of both states; going on or back leads to it, and leaves nothing else.

    Returns:
        Whether the other way was open, too.
    """
    found = read_tree(room.target)
    assert found in (room.before, new)
    assert all(name.startswith(".target.vault-") for name in room.beside)
    journal = unfinished(room.target, state=lab.host.state)
    can_go_on = journal is not None and journal.state not in {"staged", "discarded"}
    no_way_back = journal is not None and journal.state == "finalized"
    if (forward and can_go_on) or no_way_back:
        lab.finalize(room.target)
        assert read_tree(room.target) == new
    elif room.beside:
        while undo_restore(room.target, state=lab.host.state).journal is not None:
            assert read_tree(room.target) == room.before
        assert read_tree(room.target) == room.before
    assert room.beside == []
    return can_go_on and not no_way_back


def sweep(call: Callable[[int], bool], *, step: int = 1) -> int:
    """Call with 1, 1 + step … until it returns False; gives how often it was."""
    for count, at in enumerate(range(1, ENOUGH, step)):
        if not call(at):
            return count
    raise AssertionError("no end")


def sweep_both_ways(call: Callable[[int, bool], tuple[bool, bool]], *, step: int = 1) -> int:
    """As `sweep`: with the way on, and where both ways were open once more with the way back."""
    forks = 0

    def each(at: int) -> bool:
        nonlocal forks
        goes_on, is_fork = call(at, True)
        if is_fork:
            forks += 1
            call(at, False)
        return goes_on

    count = sweep(each, step=step)
    assert 0 < forks < count
    return count


def failing(lab: Lab, record: Record, room: Room, fs: Fs) -> RestoreReport | VaultError:
    """A restore that may fail: but only in the vault's own words."""
    try:
        report: RestoreReport = run(lab, record, room, fs)
    except VaultError as error:
        return error
    return report


def test_one_failing_call(
    lab: Lab,
    record: Record,
    make_room: Callable[[], Room],
    new: State,
    former: str,
) -> None:
    """The call fails once. Before the exchange: cleaned up, as before, attested as inconclusive."""

    def once(at: int, forward: bool) -> tuple[bool, bool]:  # noqa: FBT001 - see sweep_both_ways
        own = lab.with_store(lab.store.copy())
        room = make_room()
        fs = Faulty(at)
        outcome = failing(own, record, room, fs)
        if isinstance(outcome, VaultError):
            # what fails while it is tried out is taken for what the file system can't
            assert isinstance(outcome, LocalError) or "can't hold" in str(outcome)
            assert unfinished(room.target, state=lab.host.state) is None
            room.assert_clean()
            assert own.verdicts() == ["inconclusive"] * isinstance(outcome, LocalError)
        else:
            assert read_tree(room.target) == new
            # a file system's lack of something is no failure, an owner's must be told
            assert outcome.outcome in {RestoreOutcome.RECOVERED, RestoreOutcome.PARTIAL}
            assert own.verdicts() == [
                "passed" if outcome.outcome is RestoreOutcome.RECOVERED else "partial"
            ]
        is_fork = check_either(own, room, new, forward=forward)
        if at % 10 == 0:
            run(own, record, room)
            assert read_tree(room.target) == new
        return fs.calls >= at, is_fork

    assert sweep_both_ways(once) > 60


def test_a_disk_that_dies(
    lab: Lab,
    record: Record,
    make_room: Callable[[], Room],
    new: State,
) -> None:
    """Every call from the n-th on fails, so nothing can be cleaned up; later it can."""

    def dying(at: int, forward: bool) -> tuple[bool, bool]:  # noqa: FBT001 - see sweep_both_ways
        own = lab.with_store(lab.store.copy())
        room = make_room()
        fs = Faulty(at, how="from then on")
        failing(own, record, room, fs)
        return fs.calls >= at, check_either(own, room, new, forward=forward)

    assert sweep_both_ways(dying, step=3) > 20


def test_killed(
    lab: Lab,
    record: Record,
    make_room: Callable[[], Room],
    new: State,
) -> None:
    """The process ends at the call; who comes after goes on, or back, and can restore."""

    def killed(at: int, forward: bool) -> tuple[bool, bool]:  # noqa: FBT001 - see sweep_both_ways
        own = lab.with_store(lab.store.copy())
        room = make_room()
        struck = is_killed(lambda: run(own, record, room, Faulty(at, how="kill")))
        journal = unfinished(room.target, state=lab.host.state)
        is_fork = check_either(own, room, new, forward=forward)
        if forward and journal is not None and journal.state in {"proven", "exchanged"}:
            assert own.verdicts() == ["passed"]  # the killed run had not attested it
        return struck, is_fork

    assert sweep_both_ways(killed, step=2) > 30


def test_no_space_at_any_write(
    lab: Lab, record: Record, make_room: Callable[[], Room], new: State
) -> None:
    """ENOSPC is told as such; content, journal or attestation alike."""

    def full(at: int) -> bool:
        own = lab.with_store(lab.store.copy())
        room = make_room()
        fs = Faulty(at, errno.ENOSPC, only="pwrite")
        outcome = failing(own, record, room, fs)
        if isinstance(outcome, VaultError):
            assert os.strerror(errno.ENOSPC) in str(outcome)
        check_either(own, room, new, forward=True)
        return fs.calls >= at

    assert sweep(full) > 6


@pytest.mark.parametrize("phase", ["before", "after"])
def test_store_that_fails_once(
    lab: Lab, record: Record, make_room: Callable[[], Room], new: State, phase: str
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
        try:
            report = run(own, record, room, repository=repository)
        except StorageUnavailableError:
            own.store.fault = None
            room.assert_clean()
            assert own.verdicts() in (["inconclusive"], [])
        else:
            own.store.fault = None
            assert read_tree(room.target) == new
            assert report.outcome is RestoreOutcome.RECOVERED
            assert (report.statement is None) is (report.attestation_file is not None)
        return struck

    assert sweep(failing_store) > 10
