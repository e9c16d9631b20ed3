"""I6: TARGET is the former or the whole new state, wherever a restore is cut off."""

# ruff: noqa: FBT001, PLR0917 - parameters of tests are named by pytest

import contextlib
import dataclasses
import errno
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from tests.support.children import KILLED, is_killed, needs_root
from tests.support.filesystems import Faulty, NoExchange
from tests.support.trees import Tree, plant_tree, read_tree
from vault.errors import (
    BusyError,
    ConfigError,
    DigestMismatchError,
    FormatError,
    LocalError,
)
from vault.machine.workers import InlineExecutor
from vault.restore.journal import Journal, Local, State
from vault.restore.promote import Promotion
from vault.restore.prove import read_back
from vault.restore.stage import Staging
from vault.restore.syscalls import Fs
from vault.restore.undo_finalize import Undone, finalize, leftovers, undo_restore, unfinished

OpenStaging: TypeAlias = Callable[..., AbstractContextManager[Staging]]
OLD: Tree = {"old": b"former", "deep": None, "deep/file": b"former too"}
NEW: Tree = {"new": b"state", "sub": None, "sub/file": b"restored", "lost+found": None}
MOUNT = {
    "before": {"mode": 0o755, "uid": 0, "gid": 0, "mtime": "0", "xattrs": []},
    "names": ["../../etc"],
}


def beside(target: Path) -> list[str]:
    """What lies around TARGET and, of the vault's own, in it."""
    inside = target.glob(f".{target.name}.vault-*") if target.exists() else []
    return sorted(p.name for p in [*target.parent.iterdir(), *inside] if p != target)


def read(root: Path) -> Tree | None:
    """What is at a place, without what is the vault's own."""
    found = read_tree(root)
    own = f".{root.name}.vault-"
    return found and {name: data for name, data in found.items() if not name.startswith(own)}


def root_of(fd: int, fs: Fs) -> bytes:
    """Content root of what is staged, as hex: stands for an attestation."""
    return read_back(fd, executor=InlineExecutor(), fs=fs).root.hex().encode()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Machine:
    """Runs restores, and what ends them, as one user."""

    local: Local
    open_staging: OpenStaging

    def restore(self, target: Path, fs: Fs) -> None:
        """A whole restore: stage, prove, promote, record; `finalize` is left."""
        with self.open_staging(target, fs, replace=True) as staging:
            plant_tree(Path(os.fsdecode(staging.path)), NEW)
            Path(os.fsdecode(staging.path)).chmod(0o751)
            os.utime(staging.fd, ns=(5, -7))
            promotion = Promotion(staging)
            promotion.proven(root_of(staging.fd, fs))
            promotion.promote()
            promotion.recorded()
            if promotion.troubles:
                raise promotion.troubles[0]

    def finalize(self, target: Path, fs: Fs | None = None) -> list[Journal]:
        """Finalize; returns the journals that had to be recorded."""
        recorded: list[Journal] = []

        def prove(journal: Journal, fd: int) -> bytes:
            found = root_of(fd, fs or Fs())
            if found.decode() != journal.attestation:
                raise DigestMismatchError("not what was proven")
            return found

        finalize(target, state=self.local.state, prove=prove, record=recorded.append, fs=fs)
        return recorded

    def undo(self, target: Path, fs: Fs | None = None) -> Undone:
        """One step back."""
        return undo_restore(target, state=self.local.state, fs=fs)

    def undo_all(self, target: Path, fs: Fs | None = None) -> None:
        """Undo until nothing is left to undo."""
        while self.undo(target, fs).journal is not None:
            pass

    def unfinished(self, target: Path) -> Journal | None:
        """The journal, if all was staged."""
        return unfinished(target, state=self.local.state)

    @property
    def journals(self) -> list[Path]:
        """In the private directory."""
        return sorted((self.local.state / "restores").glob("*.json"))


@pytest.fixture
def machine(local: Local, open_staging: OpenStaging) -> Machine:
    """One user's."""
    return Machine(local=local, open_staging=open_staging)


@pytest.fixture(params=["missing", "empty", "full", "mount"])
def former(request: pytest.FixtureRequest) -> str:
    """What was at TARGET."""
    if request.param == "mount" and os.geteuid() != 0:
        pytest.skip("needs root")
    return str(request.param)


@pytest.fixture
def make_target(tmp_path: Path, former: str) -> Iterator[Callable[[], Path]]:
    """Makes a fresh TARGET in a directory of its own, each time."""
    mounted: list[Path] = []

    def make() -> Path:
        room = tmp_path / f"room{len(list(tmp_path.iterdir()))}"
        target = room / "target"
        room.mkdir()
        if former == "full":
            plant_tree(target, OLD)
        elif former != "missing":
            target.mkdir()
        if former == "mount":
            subprocess.run(["mount", "-t", "tmpfs", "none", target], check=True)
            mounted.append(target)
            (target / "lost+found").mkdir()
        return target

    yield make
    for target in mounted:
        subprocess.run(["umount", target], check=True)


@pytest.fixture
def before(former: str) -> Tree | None:
    """Content of the former state."""
    states: dict[str, Tree | None] = {
        "missing": None, "empty": {}, "full": OLD, "mount": {"lost+found": None},
    }  # fmt: skip
    return states[former]


def kept_mount(found: Tree | None, former: str) -> Tree | None:
    """After an undo, the snapshot's own lost+found went with it."""
    return {"lost+found": None} if former == "mount" and found == {} else found


@pytest.mark.parametrize("fs", [Fs(), NoExchange()], ids=["exchange", "renames"])
def test_promote_then_finalize(machine: Machine, make_target: Callable[[], Path], fs: Fs) -> None:
    """The new state is there with its top's attributes, and nothing is left beside it."""
    target = make_target()
    machine.restore(target, fs)
    assert read(target) == NEW
    assert machine.finalize(target, fs) == []
    assert read(target) == NEW
    assert beside(target) == []
    assert target.stat().st_mode & 0o7777 == 0o751
    assert target.stat().st_mtime_ns == -7


@pytest.mark.parametrize("fs", [Fs(), NoExchange()], ids=["exchange", "renames"])
def test_promote_then_undo(
    machine: Machine,
    make_target: Callable[[], Path],
    former: str,
    before: Tree | None,
    fs: Fs,
) -> None:
    """The former state is back with its attributes; a second undo removes what was restored."""
    target = make_target()
    status = target.stat() if target.exists() else None
    machine.restore(target, fs)
    undone = machine.undo(target, fs)
    assert undone.journal is not None
    assert undone.journal.state is State.UNDONE
    assert undone.beside is not None
    assert undone.beside.is_dir()
    assert kept_mount(read(target), former) == before
    assert machine.undo(target, fs) == Undone()
    assert kept_mount(read(target), former) == before
    assert beside(target) == []
    if status is not None:
        now = target.stat()
        assert (now.st_mode, now.st_mtime_ns) == (status.st_mode, status.st_mtime_ns)


@pytest.mark.parametrize("fs", [Fs(), NoExchange()], ids=["exchange", "renames"])
def test_undo_then_finalize_after_all(
    machine: Machine, make_target: Callable[[], Path], fs: Fs
) -> None:
    """What went back to staging is proven again, promoted again, recorded again."""
    target = make_target()
    machine.restore(target, fs)
    machine.undo(target, fs)
    (journal,) = machine.finalize(target, fs)
    assert len(journal.attestation) == 64
    assert read(target) == NEW
    assert beside(target) == []


def test_atomicity_is_told(machine: Machine, tmp_path: Path) -> None:
    """One exchange is atomic, so is a rename to a free name; two renames are not."""
    told = {}
    for name, fs, full in [
        ("exchange", Fs(), True),
        ("free", NoExchange(), False),
        ("renames", NoExchange(), True),
    ]:
        target = tmp_path / name
        if full:
            plant_tree(target, OLD)
        machine.restore(target, fs)
        journal = machine.unfinished(target)
        assert journal is not None
        told[name] = journal.atomic
    assert told == {"exchange": True, "free": True, "renames": False}


@pytest.mark.parametrize("exchange", [True, False], ids=["exchange", "renames"])
@pytest.mark.parametrize("recover", ["finalize", "undo"])
def test_killed_at_every_call_of_a_restore(
    machine: Machine, make_target: Callable[[], Path], former: str,
    before: Tree | None, exchange: bool, recover: str,
) -> None:  # fmt: skip
    """Old or whole new at once; then finalize leads to new, undo to old, both to nothing left."""
    for at in range(1, 1000):
        target = make_target()
        faulty = Faulty(at, how="kill", exchange=exchange)
        if not is_killed(lambda t=target, f=faulty: machine.restore(t, f)):  # type: ignore[misc]
            break
        found = read(target)
        if former != "mount":
            allowed = [before, NEW] + ([] if exchange else [None])
            assert found in allowed, at
        if recover == "finalize" and _may_finalize(machine, target):
            machine.finalize(target)
            assert read(target) == NEW, at
        elif beside(target):
            machine.undo_all(target)
            assert kept_mount(read(target), former) == before, at
        assert beside(target) == [], at
    assert at > 20


def _may_finalize(machine: Machine, target: Path) -> bool:
    journal = machine.unfinished(target)
    return journal is not None and journal.state is not State.STAGED


@pytest.mark.parametrize("exchange", [True, False], ids=["exchange", "renames"])
def test_killed_at_every_call_of_finalize(
    machine: Machine, make_target: Callable[[], Path], exchange: bool
) -> None:
    """Also of one that has to promote first: new in the end."""
    for undone in (False, True):
        for at in range(1, 1000):
            target = make_target()
            fs = Fs() if exchange else NoExchange()
            machine.restore(target, fs)
            if undone:
                machine.undo(target, fs)
            faulty = Faulty(at, how="kill", exchange=exchange)
            if not is_killed(lambda t=target, f=faulty: machine.finalize(t, f)):  # type: ignore[misc]
                break
            if machine.unfinished(target) is not None:
                machine.finalize(target, fs)
            assert read(target) == NEW, at
            assert beside(target) == [], at
        assert at > 5


@pytest.mark.parametrize("exchange", [True, False], ids=["exchange", "renames"])
@pytest.mark.parametrize("then", ["undo", "finalize"])
def test_killed_at_every_call_of_undo(
    machine: Machine, make_target: Callable[[], Path], former: str,
    before: Tree | None, exchange: bool, then: str,
) -> None:  # fmt: skip
    """Undo again: old and nothing left. Or finalize after all, as long as staging is there."""
    for at in range(1, 1000):
        target = make_target()
        fs = Fs() if exchange else NoExchange()
        machine.restore(target, fs)
        faulty = Faulty(at, how="kill", exchange=exchange)
        if not is_killed(lambda t=target, f=faulty: machine.undo_all(t, f)):  # type: ignore[misc]
            break
        journal = machine.unfinished(target)
        if former != "mount":
            assert read(target) in [before, NEW] + ([] if exchange else [None]), at
        if then == "finalize" and journal and journal.state is not State.DISCARDED:
            machine.finalize(target, fs)
            assert read(target) == NEW, at
        elif journal:
            machine.undo_all(target, fs)
            assert kept_mount(read(target), former) == before, at
        assert beside(target) == [], at
    assert at > 10


@pytest.mark.parametrize("exchange", [True, False], ids=["exchange", "renames"])
def test_failing_at_every_call_of_a_restore(
    machine: Machine, make_target: Callable[[], Path], former: str,
    before: Tree | None, exchange: bool,
) -> None:  # fmt: skip
    """An I/O error is told; TARGET is old with nothing left, or new and to be finalized."""
    for at in range(1, 1000):
        target = make_target()
        faulty = Faulty(at, exchange=exchange)
        with contextlib.suppress(LocalError, OSError):  # a mount point may do without its note
            machine.restore(target, faulty)
        if faulty.calls < at:
            break
        if machine.unfinished(target) is None and kept_mount(read(target), former) == before:
            assert beside(target) == [], at
            continue
        machine.finalize(target)
        assert read(target) == NEW, at
        assert beside(target) == [], at
    assert at > 20


class Breaking(Fs):
    """Fails some calls in a row, from a given one of the promotion on."""

    def __init__(self, *, exchange: bool) -> None:
        self.calls = 0
        self.failing = range(0)
        self.error: BaseException = OSError(errno.EIO, os.strerror(errno.EIO))
        self.can_exchange = exchange

    def __getattribute__(self, name: str) -> object:
        """Count what is called on the way."""
        if name in Fs.__dict__:
            self.calls += 1
            if self.calls in self.failing:
                raise self.error
        return super().__getattribute__(name)

    def exchange(self, directory: int, one: bytes, around: int, other: bytes) -> None:
        """As told."""
        if not self.can_exchange:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        super().exchange(directory, one, around, other)


def _promote_breaking(machine: Machine, target: Path, fs: Breaking, at: int, length: int) -> None:
    """Stage and prove well; the calls fail from the ``at``-th of the promotion on."""
    with machine.open_staging(target, fs, replace=True) as staging:
        plant_tree(Path(os.fsdecode(staging.path)), NEW)
        promotion = Promotion(staging)
        promotion.proven(root_of(staging.fd, fs))
        fs.failing = range(fs.calls + at, fs.calls + at + length)
        promotion.promote()


@pytest.mark.parametrize("exchange", [True, False], ids=["exchange", "renames"])
def test_a_promotion_that_fails_once_is_taken_back(
    machine: Machine, make_target: Callable[[], Path], former: str,
    before: Tree | None, exchange: bool,
) -> None:  # fmt: skip
    """The failed step is rolled back at once: TARGET is old, and nothing is left to be ended."""
    failed = 0
    for at in range(1, 1000):
        target, fs = make_target(), Breaking(exchange=exchange)
        try:
            _promote_breaking(machine, target, fs, at, 1)
        except LocalError:
            failed += 1
            assert kept_mount(read(target), former) == before, at
            assert machine.unfinished(target) is None, at
            assert beside(target) == [], at
            continue
        assert read(target) == NEW, at  # nothing failed, or only the note that it is done
        machine.finalize(target)
        if fs.calls < fs.failing.start:
            break
    assert failed >= (1 if former == "missing" else 2)


@pytest.mark.parametrize("exchange", [True, False], ids=["exchange", "renames"])
@pytest.mark.parametrize("recover", ["finalize", "undo"])
@pytest.mark.parametrize("length", [1, 2, 3, 5])
@pytest.mark.parametrize("error", [OSError(errno.EIO, "I/O error"), KeyboardInterrupt()])
def test_a_promotion_that_can_not_be_taken_back_keeps_its_journal(
    machine: Machine, make_target: Callable[[], Path], former: str,
    before: Tree | None, exchange: bool, recover: str, length: int,
    error: BaseException,
) -> None:  # fmt: skip
    """Interrupted, or the way back fails, too: what moves the two states stays on record."""
    for at in range(1, 1000):
        target, fs = make_target(), Breaking(exchange=exchange)
        fs.error = error
        with contextlib.suppress(LocalError, KeyboardInterrupt):
            _promote_breaking(machine, target, fs, at, length)
        if fs.calls < fs.failing.start:
            break
        if machine.unfinished(target) is None:
            assert kept_mount(read(target), former) == before, at
        elif recover == "finalize":
            machine.finalize(target)
            assert read(target) == NEW, at
        else:
            machine.undo_all(target)
            assert kept_mount(read(target), former) == before, at
        assert beside(target) == [], at


def test_what_changed_after_the_proof_is_not_finalized(machine: Machine, tmp_path: Path) -> None:
    """Finalize reads staging back again; a wrong byte leaves TARGET untouched."""
    target = tmp_path / "target"
    plant_tree(target, OLD)
    machine.restore(target, Fs())
    machine.undo(target)
    (tmp_path / ".target.vault-0123abcd/tree/new").write_text("STATE")
    with pytest.raises(DigestMismatchError):
        machine.finalize(target)
    assert read(target) == OLD
    staged = tmp_path / ".target.vault-0123abcd/tree"
    with pytest.raises(ConfigError, match="not removed"):
        machine.undo_all(target)
    assert (staged / "new").read_text() == "STATE"
    shutil.rmtree(staged)
    machine.undo_all(target)
    assert read(target) == OLD
    assert beside(target) == []


def test_a_target_that_changed_meanwhile_is_not_replaced(
    open_staging: OpenStaging, tmp_path: Path
) -> None:
    """Somebody filled an empty TARGET: their file is still there."""
    target = tmp_path / "target"
    target.mkdir()

    def restore() -> None:
        with open_staging(target) as staging:
            promotion = Promotion(staging)
            promotion.proven(b"seen")
            (target / "theirs").write_text("theirs")
            promotion.promote()

    with pytest.raises(ConfigError, match="changed"):
        restore()
    assert read(target) == {"theirs": b"theirs"}
    assert beside(target) == []


def test_foreign_directories_are_never_touched(machine: Machine, tmp_path: Path) -> None:
    """TARGET was moved away and another put there: neither finalize nor undo touch it."""
    target = tmp_path / "target"
    plant_tree(target, OLD)
    machine.restore(target, Fs())
    target.rename(tmp_path / "moved")
    plant_tree(target, {"theirs": "theirs"})
    what = r"found something else at TARGET, the former state at '\.target\.vault-0123abcd/tree'$"
    with pytest.raises(ConfigError, match="not what the restore left: " + what):
        machine.undo(target)
    with pytest.raises(ConfigError, match="not what the restore left"):
        machine.finalize(target)
    assert read(target) == {"theirs": "theirs"}
    assert read(tmp_path / "moved") == NEW
    assert read(tmp_path / ".target.vault-0123abcd/tree") == OLD


def test_a_failed_attestation_can_be_made_up_for(machine: Machine, tmp_path: Path) -> None:
    """Record raises: TARGET is new, the former state is kept, finalize tries again."""
    target = tmp_path / "target"
    plant_tree(target, OLD)
    machine.restore(target, Fs())
    machine.undo(target)

    def fail(_: Journal) -> None:
        raise LocalError("store is unreachable")

    with pytest.raises(LocalError, match="unreachable"):
        finalize(
            target,
            state=machine.local.state,
            prove=lambda journal, _: journal.attestation.encode(),
            record=fail,
        )
    journal = machine.unfinished(target)
    assert journal is not None
    assert journal.state is State.EXCHANGED
    assert len(machine.finalize(target)) == 1
    assert read(target) == NEW


def test_nothing_or_several_to_finalize(machine: Machine, tmp_path: Path) -> None:
    """Both are refused, as is an unproven one."""
    target = tmp_path / "target"
    with pytest.raises(ConfigError, match="no restore"):
        machine.finalize(target)
    with pytest.raises(ConfigError, match="no restore"):
        machine.undo(target)
    with machine.open_staging(target) as staging:
        Promotion(staging)
    with pytest.raises(ConfigError, match="not proven"):
        machine.finalize(target)
    (journal,) = machine.journals
    fields = json.loads(journal.read_bytes()) | {"id": "00000000"}
    other = journal.with_name(journal.name.replace("0123abcd", "00000000"))
    other.touch(mode=0o600)
    other.write_text(json.dumps(fields))
    for call in (machine.finalize, machine.undo, machine.unfinished):
        with pytest.raises(ConfigError, match="several"):
            call(target)


def test_a_running_restore_is_left_alone(machine: Machine, tmp_path: Path) -> None:
    """Its lock holds off undo, finalize and another restore, from its beginning on."""
    target = tmp_path / "target"
    with machine.open_staging(target) as staging:
        with pytest.raises(BusyError):
            machine.undo(target)
        with pytest.raises(BusyError):
            machine.restore(target, Fs())
        promotion = Promotion(staging)
        promotion.proven(root_of(staging.fd, Fs()))
        promotion.promote()
        for call in (machine.finalize, machine.undo):
            with pytest.raises(BusyError):
                call(target)
    assert len(machine.finalize(target)) == 1
    assert machine.journals == []


def test_a_run_killed_while_it_fetched_is_cleared_by_undo(machine: Machine, tmp_path: Path) -> None:
    """By its journal; what has none is left alone, whatever its name."""
    target = tmp_path / "target"

    def killed() -> None:
        with machine.open_staging(target) as staging:
            os.mkdir("sub", dir_fd=staging.fd)
            os._exit(KILLED)

    assert is_killed(killed)
    (tmp_path / ".target.vault-deadbeef").mkdir()
    assert leftovers(target, state=machine.local.state).killed == (
        tmp_path / ".target.vault-0123abcd",
    )
    assert machine.undo(target) == Undone()
    assert beside(target) == [".target.vault-deadbeef"]
    assert machine.journals == []
    with pytest.raises(ConfigError, match="left alone"):
        machine.undo(target)
    assert beside(target) == [".target.vault-deadbeef"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda fields: fields | {"version": 2},
        lambda fields: fields | {"state": "happy"},
        lambda fields: fields | {"new": "-1"},
        lambda fields: {},
        lambda fields: [],
        lambda fields: fields | {"top": {"float": 0.5}},
        lambda fields: fields | {"target": "/etc"},
        lambda fields: fields | {"id": "../../xx"},
        lambda fields: fields | {"mount": fields["mount"] or MOUNT},
        lambda fields: fields | {"mount": MOUNT | {"names": ["/etc"]}},
    ],
    ids=["version", "state", "inode", "empty", "list", "float", "place", "id", "up", "absolute"],
)
def test_a_damaged_journal_is_refused(
    machine: Machine, tmp_path: Path, damage: Callable[[dict[str, Any]], object]
) -> None:
    """And nothing is moved."""
    target = tmp_path / "target"
    machine.restore(target, Fs())
    (journal,) = machine.journals
    journal.write_text(json.dumps(damage(json.loads(journal.read_text()))))
    for call in (machine.finalize, machine.undo, machine.unfinished):
        with pytest.raises(FormatError, match="restore journal") as caught:
            call(target)
        assert str(journal) in (caught.value.hint or "")  # what to move away, to go on without
    assert read(target) == NEW


@needs_root
def test_a_collision_in_a_mount_point_is_not_overwritten(machine: Machine, tmp_path: Path) -> None:
    """Somebody writes into the mount point just before the move: rolled back, theirs kept."""
    target = tmp_path / "target"
    target.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", target], check=True)

    class Intruded(Fs):
        def rename_new(self, source: int, old: bytes, directory: int, new: bytes) -> None:
            if new == b"sub" and not (target / "sub").exists():
                (target / "sub").write_text("theirs")
            super().rename_new(source, old, directory, new)

    try:
        with pytest.raises(LocalError):
            machine.restore(target, Intruded())
        assert (target / "sub").read_text() == "theirs"
    finally:
        subprocess.run(["umount", target], check=True)
