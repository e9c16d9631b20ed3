"""I6: TARGET is the former or the whole new state, wherever a restore is cut off."""

# ruff: noqa: FBT001 - parameters of tests are named by pytest

import errno
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from vault.errors import (
    BusyError,
    ConfigError,
    DigestMismatchError,
    FormatError,
    LocalError,
)
from vault.restore.fs import Fs
from vault.restore.journal import Journal, State
from vault.restore.promote import Promotion, finalize, undo, unfinished
from vault.restore.prove import read_disk_root
from vault.restore.stage import Staging
from vault.restore.target import inspect
from vault.workers import InlineExecutor

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
OLD = {"old": "former", "deep": None, "deep/file": "former too"}
NEW = {"new": "state", "sub": None, "sub/file": "restored", "lost+found": None}
KILLED = 9


class Faulty(Fs):
    """Fails the n-th call, or ends the process at it."""

    def __init__(self, at: int, *, kill: bool, exchange: bool = True) -> None:
        self.calls = 0
        self.at = at
        self.kill = kill
        self.can_exchange = exchange

    def __getattribute__(self, name: str) -> object:
        """Count what is called on the way."""
        if name in Fs.__dict__:
            self.calls += 1
            if self.calls == self.at:
                if self.kill:
                    os._exit(KILLED)
                raise OSError(errno.EIO, os.strerror(errno.EIO))
        return super().__getattribute__(name)

    def exchange(self, directory: int, one: bytes, other: bytes) -> None:
        """As told."""
        if not self.can_exchange:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        super().exchange(directory, one, other)


class NoExchange(Fs):
    """A file system that can't swap names."""

    def exchange(self, directory: int, one: bytes, other: bytes) -> None:
        """Say so."""
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))


def plant(root: Path, tree: dict[str, str | None]) -> None:
    """Make a small tree."""
    root.mkdir(exist_ok=True)
    for name, text in tree.items():
        if text is None:
            (root / name).mkdir()
        else:
            (root / name).write_text(text)


def read(root: Path) -> dict[str, str | None] | None:
    """The inverse of `plant`, without what is the vault's own; None if there is nothing."""
    if not root.exists():
        return None
    return {
        str(path.relative_to(root)): path.read_text() if path.is_file() else None
        for path in root.rglob("*")
        if not path.relative_to(root).parts[0].startswith(f".{root.name}.vault-")
    }


def beside(target: Path) -> list[str]:
    """What lies around TARGET and, of the vault's own, in it."""
    inside = target.glob(f".{target.name}.vault-*") if target.exists() else []
    return sorted(p.name for p in [*target.parent.iterdir(), *inside] if p != target)


def run_restore(target: Path, fs: Fs) -> None:
    """A whole restore: stage, prove, promote, record; `finalize` is left."""
    with Staging(inspect(target, replace=True), "0123abcd", fs) as staging:
        plant(Path(os.fsdecode(staging.path)), NEW)
        Path(os.fsdecode(staging.path)).chmod(0o751)
        os.utime(staging.fd, ns=(5, -7))
        promotion = Promotion(staging, repository="ab" * 16, snapshot=7, digest="cd" * 32)
        promotion.proven(read_disk_root(staging.fd, executor=InlineExecutor(), fs=fs))
        promotion.promote()
        promotion.recorded({"attestation": "ef" * 32})


def run_finalize(target: Path, fs: Fs | None = None) -> list[Journal]:
    """Finalize; returns the journals that had to be recorded."""
    recorded: list[Journal] = []
    finalize(target, record=recorded.append, executor=InlineExecutor(), fs=fs)
    return recorded


def run_undo(target: Path, fs: Fs | None = None) -> None:
    """Undo until nothing is left to undo."""
    while undo(target, fs=fs) is not None:
        pass


def cut_off(call: Callable[[], object]) -> bool:
    """Run in a child; whether it was killed on the way."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            call()
            code = 0
        except BaseException:  # noqa: BLE001 - the child ends here, whatever it is
            import traceback

            traceback.print_exc()
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in {0, KILLED}
    return code == KILLED


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
            plant(target, OLD)
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
def before(former: str) -> dict[str, str | None] | None:
    """Content of the former state."""
    states: dict[str, dict[str, str | None] | None] = {
        "missing": None, "empty": {}, "full": OLD, "mount": {"lost+found": None},
    }  # fmt: skip
    return states[former]


def kept_mount(found: dict[str, str | None] | None, former: str) -> dict[str, str | None] | None:
    """After an undo, the snapshot's own lost+found went with it."""
    return {"lost+found": None} if former == "mount" and found == {} else found


@pytest.mark.parametrize("fs", [Fs(), NoExchange()], ids=["exchange", "renames"])
def test_promote_then_finalize(make_target: Callable[[], Path], fs: Fs) -> None:
    """The new state is there with its top's attributes, and nothing is left beside it."""
    target = make_target()
    run_restore(target, fs)
    assert read(target) == NEW
    assert run_finalize(target, fs) == []
    assert read(target) == NEW
    assert beside(target) == []
    assert target.stat().st_mode & 0o7777 == 0o751
    assert target.stat().st_mtime_ns == -7


@pytest.mark.parametrize("fs", [Fs(), NoExchange()], ids=["exchange", "renames"])
def test_promote_then_undo(
    make_target: Callable[[], Path], former: str, before: dict[str, str | None] | None, fs: Fs
) -> None:
    """The former state is back with its attributes; a second undo removes what was restored."""
    target = make_target()
    status = target.stat() if target.exists() else None
    run_restore(target, fs)
    journal = undo(target, fs=fs)
    assert journal is not None
    assert journal.state is State.PROVEN
    assert kept_mount(read(target), former) == before
    assert undo(target, fs=fs) is None
    assert kept_mount(read(target), former) == before
    assert beside(target) == []
    if status is not None:
        now = target.stat()
        assert (now.st_mode, now.st_mtime_ns) == (status.st_mode, status.st_mtime_ns)


@pytest.mark.parametrize("fs", [Fs(), NoExchange()], ids=["exchange", "renames"])
def test_undo_then_finalize_after_all(make_target: Callable[[], Path], fs: Fs) -> None:
    """What went back to staging is proven again, promoted again, recorded again."""
    target = make_target()
    run_restore(target, fs)
    undo(target, fs=fs)
    (journal,) = run_finalize(target, fs)
    assert journal.details["attestation"] == "ef" * 32
    assert read(target) == NEW
    assert beside(target) == []


def test_atomicity_is_told(tmp_path: Path) -> None:
    """One exchange is atomic, so is a rename to a free name; two renames are not."""
    told = {}
    for name, fs, full in [
        ("exchange", Fs(), True),
        ("free", NoExchange(), False),
        ("renames", NoExchange(), True),
    ]:
        target = tmp_path / name
        if full:
            plant(target, OLD)
        run_restore(target, fs)
        journal = unfinished(target)
        assert journal is not None
        told[name] = journal.details["atomic"]
    assert told == {"exchange": True, "free": True, "renames": False}


@pytest.mark.parametrize("exchange", [True, False], ids=["exchange", "renames"])
@pytest.mark.parametrize("recover", ["finalize", "undo"])
def test_killed_at_every_call_of_a_restore(
    make_target: Callable[[], Path], former: str, before: dict[str, str | None] | None,
    exchange: bool, recover: str,
) -> None:  # fmt: skip
    """Old or whole new at once; then finalize leads to new, undo to old, both to nothing left."""
    for at in range(1, 1000):
        target = make_target()
        faulty = Faulty(at, kill=True, exchange=exchange)
        if not cut_off(lambda t=target, f=faulty: run_restore(t, f)):  # type: ignore[misc]
            break
        found = read(target)
        if former != "mount":
            allowed = [before, NEW] + ([] if exchange else [None])
            assert found in allowed, at
        if recover == "finalize" and _may_finalize(target):
            run_finalize(target)
            assert read(target) == NEW, at
        elif beside(target):
            run_undo(target)
            assert kept_mount(read(target), former) == before, at
        assert beside(target) == [], at
    assert at > 20


def _may_finalize(target: Path) -> bool:
    journal = unfinished(target)
    return journal is not None and journal.state is not State.STAGED


@pytest.mark.parametrize("exchange", [True, False], ids=["exchange", "renames"])
def test_killed_at_every_call_of_finalize(make_target: Callable[[], Path], exchange: bool) -> None:
    """Also of one that has to promote first: new in the end."""
    for undone in (False, True):
        for at in range(1, 1000):
            target = make_target()
            fs = Fs() if exchange else NoExchange()
            run_restore(target, fs)
            if undone:
                undo(target, fs=fs)
            faulty = Faulty(at, kill=True, exchange=exchange)
            if not cut_off(lambda t=target, f=faulty: run_finalize(t, f)):  # type: ignore[misc]
                break
            if unfinished(target) is not None:
                run_finalize(target, fs)
            assert read(target) == NEW, at
            assert beside(target) == [], at
        assert at > 5


@pytest.mark.parametrize("exchange", [True, False], ids=["exchange", "renames"])
@pytest.mark.parametrize("then", ["undo", "finalize"])
def test_killed_at_every_call_of_undo(
    make_target: Callable[[], Path], former: str, before: dict[str, str | None] | None,
    exchange: bool, then: str,
) -> None:  # fmt: skip
    """Undo again: old and nothing left. Or finalize after all, as long as staging is there."""
    for at in range(1, 1000):
        target = make_target()
        fs = Fs() if exchange else NoExchange()
        run_restore(target, fs)
        faulty = Faulty(at, kill=True, exchange=exchange)
        if not cut_off(lambda t=target, f=faulty: run_undo(t, f)):  # type: ignore[misc]
            break
        journal = unfinished(target)
        if former != "mount":
            assert read(target) in [before, NEW] + ([] if exchange else [None]), at
        if then == "finalize" and journal and journal.state is not State.DISCARDED:
            run_finalize(target, fs)
            assert read(target) == NEW, at
        elif journal:
            run_undo(target, fs)
            assert kept_mount(read(target), former) == before, at
        assert beside(target) == [], at
    assert at > 10


@pytest.mark.parametrize("exchange", [True, False], ids=["exchange", "renames"])
def test_failing_at_every_call_of_a_restore(
    make_target: Callable[[], Path], former: str, before: dict[str, str | None] | None,
    exchange: bool,
) -> None:  # fmt: skip
    """An I/O error is told; TARGET is old with nothing left, or new and to be finalized."""
    for at in range(1, 1000):
        target = make_target()
        try:
            run_restore(target, Faulty(at, kill=False, exchange=exchange))
        except LocalError:
            pass
        else:
            break
        if unfinished(target) is None and kept_mount(read(target), former) == before:
            assert beside(target) in ([], [".target.vault-0123abcd"]), at  # removal itself failed
            continue
        run_finalize(target)
        assert read(target) == NEW, at
        assert beside(target) == [], at
    assert at > 20


def test_what_changed_after_the_proof_is_not_finalized(tmp_path: Path) -> None:
    """Finalize reads staging back again; a wrong byte leaves TARGET untouched."""
    target = tmp_path / "target"
    plant(target, OLD)
    run_restore(target, Fs())
    undo(target)
    (tmp_path / ".target.vault-0123abcd/new").write_text("STATE")
    with pytest.raises(DigestMismatchError):
        run_finalize(target)
    assert read(target) == OLD
    run_undo(target)
    assert beside(target) == []


def test_a_target_that_changed_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    """Somebody filled an empty TARGET: their file is still there."""
    target = tmp_path / "target"
    target.mkdir()

    def restore() -> None:
        with Staging(inspect(target), "0123abcd", Fs()) as staging:
            promotion = Promotion(staging, repository="", snapshot=1, digest="")
            promotion.proven(bytes(32))
            (target / "theirs").write_text("theirs")
            promotion.promote()

    with pytest.raises(ConfigError, match="changed"):
        restore()
    assert read(target) == {"theirs": "theirs"}
    assert beside(target) == []


def test_foreign_directories_are_never_touched(tmp_path: Path) -> None:
    """TARGET was moved away and another put there: neither finalize nor undo touch it."""
    target = tmp_path / "target"
    plant(target, OLD)
    run_restore(target, Fs())
    target.rename(tmp_path / "moved")
    plant(target, {"theirs": "theirs"})
    with pytest.raises(ConfigError, match="not what the restore left"):
        undo(target)
    with pytest.raises(ConfigError, match="not what the restore left"):
        run_finalize(target)
    assert read(target) == {"theirs": "theirs"}
    assert read(tmp_path / "moved") == NEW
    assert read(tmp_path / ".target.vault-0123abcd") == OLD


def test_a_failed_attestation_can_be_made_up_for(tmp_path: Path) -> None:
    """Record raises: TARGET is new, the former state is kept, finalize tries again."""
    target = tmp_path / "target"
    plant(target, OLD)
    run_restore(target, Fs())
    undo(target)

    def fail(_: Journal) -> None:
        raise LocalError("store is unreachable")

    with pytest.raises(LocalError, match="unreachable"):
        finalize(target, record=fail, executor=InlineExecutor())
    journal = unfinished(target)
    assert journal is not None
    assert journal.state is State.EXCHANGED
    assert len(run_finalize(target)) == 1
    assert read(target) == NEW


def test_nothing_or_several_to_finalize(tmp_path: Path) -> None:
    """Both are refused, as is an unproven one."""
    target = tmp_path / "target"
    with pytest.raises(ConfigError, match="no restore"):
        run_finalize(target)
    with pytest.raises(ConfigError, match="no restore"):
        undo(target)
    with Staging(inspect(target), "0123abcd", Fs()) as staging:
        Promotion(staging, repository="", snapshot=1, digest="")
    with pytest.raises(ConfigError, match="not proven"):
        run_finalize(target)
    (tmp_path / ".target.vault-00000000.journal").write_bytes(b"{}")
    for call in (run_finalize, undo, unfinished):
        with pytest.raises(ConfigError, match="several"):
            call(target)


def test_a_running_restore_is_left_alone(tmp_path: Path) -> None:
    """Its lock holds off undo and finalize, before and after there is a journal."""
    target = tmp_path / "target"
    with Staging(inspect(target), "0123abcd", Fs()) as staging:
        with pytest.raises(BusyError):
            undo(target)
        promotion = Promotion(staging, repository="", snapshot=1, digest="")
        promotion.proven(read_disk_root(staging.fd, executor=InlineExecutor(), fs=Fs()))
        promotion.promote()
        for call in (run_finalize, undo):
            with pytest.raises(BusyError):
                call(target)
    assert len(run_finalize(target)) == 1


def test_leftovers_without_a_journal_are_removed_by_undo(tmp_path: Path) -> None:
    """A run killed while it fetched; nobody else's directories are taken for its."""
    (tmp_path / ".target.vault-0123abcd/sub").mkdir(parents=True)
    (tmp_path / ".target.vault-elsewise").mkdir()
    (tmp_path / ".other.vault-0123abcd").mkdir()
    assert undo(tmp_path / "target") is None
    assert beside(tmp_path / "target") == [".other.vault-0123abcd", ".target.vault-elsewise"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda fields: fields | {"version": 2},
        lambda fields: fields | {"state": "happy"},
        lambda fields: fields | {"new": "-1"},
        lambda fields: {},
        lambda fields: [],
        lambda fields: fields | {"details": {"float": 0.5}},
    ],
    ids=["version", "state", "inode", "empty", "list", "float"],
)
def test_a_damaged_journal_is_refused(
    tmp_path: Path, damage: Callable[[dict[str, object]], object]
) -> None:
    """And nothing is moved."""
    target = tmp_path / "target"
    run_restore(target, Fs())
    journal = tmp_path / ".target.vault-0123abcd.journal"
    journal.write_text(json.dumps(damage(json.loads(journal.read_text()))))
    for call in (run_finalize, undo, unfinished):
        with pytest.raises(FormatError, match="restore journal"):
            call(target)
    assert read(target) == NEW


@needs_root
def test_a_collision_in_a_mount_point_is_not_overwritten(tmp_path: Path) -> None:
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
            run_restore(target, Intruded())
        assert (target / "sub").read_text() == "theirs"
    finally:
        subprocess.run(["umount", target], check=True)
