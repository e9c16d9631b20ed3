"""A power cut at any moment of a restore: TARGET is old or new and whole, and there is a way on."""

import contextlib
import dataclasses
import errno
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from tests.support.filesystems import NoExchange
from tests.support.powercut import Disk, Recorder, Tree
from tests.support.trees import plant_tree
from vault.errors import LocalError
from vault.machine.workers import InlineExecutor
from vault.restore.journal import Journal, Journals, Local, Subject
from vault.restore.promote import Promotion
from vault.restore.prove import read_back
from vault.restore.stage import Staging
from vault.restore.syscalls import Fs
from vault.restore.target import inspect
from vault.restore.undo_finalize import Undone, finalize, undo_restore, unfinished

OLD: Tree = {"old": b"former", "deep": None, "deep/file": b"former too"}
NEW: Tree = {"new": b"state", "sub": None, "sub/file": b"restored", "lost+found": None}
MODE, MTIME = 0o751, -7
HOLDER = ".target.vault-0123abcd"
NOTE = f"{HOLDER}.note"
SUBJECT = Subject(repository="ab" * 16, snapshot=7, digest="cd" * 32)
FAR = str(1 << 62)  # ns; building a disk again changes every inode's time of change

Steps: TypeAlias = Callable[["Machine"], None]


class Full(Fs):
    """A file system that has room for no tree, or for no note."""

    def __init__(self, name: bytes) -> None:
        self._name = name

    def mkdir(self, directory: int, name: bytes) -> None:
        """The holder is all that it takes."""
        if name == self._name:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        super().mkdir(directory, name)

    def chmod(self, fd: int, mode: int) -> None:  # type: ignore[override]
        """Of a note that is written."""
        if self._name == b"note":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        super().chmod(fd, mode)


def prove(fd: int, fs: Fs) -> bytes:
    """What is at a descriptor; stands for an attestation."""
    return read_back(fd, executor=InlineExecutor(), fs=fs).root.hex().encode()


@dataclasses.dataclass(kw_only=True)
class Machine:
    """One user's: a directory with TARGET in it, and one with his journals."""

    room: Path
    state: Path
    former: str
    fs: Fs
    recorder: Recorder | None = None

    @property
    def target(self) -> Path:
        """Where the restore goes."""
        return self.room / "target"

    @property
    def before(self) -> Tree | None:
        """Content of the former state."""
        known: dict[str, Tree | None] = {
            "missing": None, "full": OLD, "mount": {"lost+found": None},
        }  # fmt: skip
        return known[self.former]

    @contextlib.contextmanager
    def staging(self) -> Iterator[Staging]:
        """Where it is built."""
        found = inspect(self.target, replace=True)
        local = Local(state=self.state, host="here", user="me")
        with (
            Journals(self.state, found.path, self.fs) as journals,
            Staging(
                found, HOLDER[-8:], self.fs, journals=journals, subject=SUBJECT, local=local
            ) as staging,
        ):
            yield staging

    def restore(self) -> None:
        """A whole restore: stage, prove, promote, record; `finalize` is left."""
        with self.staging() as staging:
            self.mark("began")
            plant_tree(Path(os.fsdecode(staging.path)), NEW)
            Path(os.fsdecode(staging.path)).chmod(MODE)
            os.utime(staging.fd, ns=(5, MTIME))
            promotion = Promotion(staging)
            promotion.proven(prove(staging.fd, self.fs))
            promotion.promote()
            self.mark("promoted")
            promotion.recorded()
            assert not promotion.troubles
        self.mark("recorded")

    def fail(self) -> None:
        """A restore that ends by an error before anything is proven."""
        with contextlib.suppress(LocalError), self.staging() as staging:
            plant_tree(Path(os.fsdecode(staging.path)), NEW)
            Promotion(staging)
            self.mark("failing")
            raise LocalError("the store is gone")
        self.mark("failed")

    def undo(self) -> None:
        """One step back."""
        self.mark("undoing")
        undone = undo_restore(self.target, state=self.state, fs=self.fs)
        self.mark("removed" if undone == Undone() else "undone")

    def finalize(self) -> None:
        """Go on to the end."""
        self.mark("finalizing")

        def prove_again(journal: Journal, fd: int) -> bytes:
            found = prove(fd, self.fs)
            assert found.decode() == journal.attestation, "finalize proves something else"
            return found

        finalize(
            self.target, state=self.state, prove=prove_again, record=lambda _: None, fs=self.fs
        )
        self.mark("finalized")

    def mark(self, text: str) -> None:
        """Announce something, where it is recorded."""
        if self.recorder is not None:
            self.recorder.mark(text)

    def run(self, steps: Steps) -> Recorder:
        """Record them."""
        with Recorder(self.room, self.state) as recorder:
            self.recorder = recorder
            steps(self)
            self.recorder = None
        return recorder

    def journals(self, disk: Disk) -> list[dict[str, Any]]:
        """What the disk has; each is whole."""
        place = self.state / "restores"
        names = [name for name in disk.list(place) if name.endswith(".json")]
        return [json.loads(disk.read(place / name) or b"") for name in names]

    def built(self, disk: Disk) -> None:
        """This machine after the cut: the journal and the note know the new inode numbers."""
        numbers = {str(old): str(new) for old, new in disk.build().items()}
        places = [*self.state.glob("restores/*.json"), *self.room.glob("*.note")]
        for place in places:
            with contextlib.suppress(ValueError):
                fields = json.loads(place.read_text())
                for name in fields.keys() & {"holder", "new", "old", "former"}:
                    fields[name] = numbers.get(fields[name], fields[name])
                if fields.get("newest"):
                    fields["newest"] = FAR
                place.write_text(json.dumps(fields))


# --- what holds whenever the power fails ---


def is_former(disk: Disk, machine: Machine) -> bool:
    """Whether TARGET is what it was; the snapshot's own lost+found went with what was undone."""
    found = outside(disk.tree(machine.target))
    return found == machine.before or (machine.former == "mount" and not found)


def outside(tree: Tree | None) -> Tree | None:
    """Without staging in a mount point."""
    if tree is None:
        return None
    return {name: data for name, data in tree.items() if not name.startswith(HOLDER)}


def check_disk(disk: Disk, machine: Machine) -> None:
    """What the journal says, what was announced, and what is there agree."""
    target = outside(disk.tree(machine.target))
    holder = (machine.target if machine.former == "mount" else machine.room) / HOLDER
    staged = disk.tree(holder / "tree")
    mounted, going_back = machine.former == "mount", "undoing" in disk.marks
    kept = machine.before in (staged, disk.tree(holder / "former"))
    kept |= mounted or not machine.before  # else there was nothing to keep
    journals = machine.journals(disk)
    assert len(journals) < 2
    state = journals[0]["state"] if journals else "none"
    if state in {"none", "started", "staged", "discarded"}:
        assert is_former(disk, machine) or (state == "none" and target == NEW)
    begun = set(disk.marks) & {"failing", "finalizing"}
    if state in {"staged", "undone"} and not begun:
        assert is_former(disk, machine)
        assert staged == NEW
    if state in {"proven", "exchanged", "recorded"}:
        assert is_former(disk, machine) or kept
        assert mounted or NEW in (staged, target)
    if state == "finalized" or (state in {"exchanged", "recorded"} and not going_back):
        assert target == NEW
        assert disk.mode(machine.target) == MODE
    if state == "none":
        assert disk.find(holder) is None, "a directory that no journal is about"
        assert disk.find(machine.room / NOTE) is None, "a note that no journal is about"
    check_announced(disk, machine, journals)


def check_announced(disk: Disk, machine: Machine, journals: list[dict[str, Any]]) -> None:
    """What a command said last is true after a power cut, too."""
    said = disk.marks[-1] if disk.marks else ""
    if said == "began":
        (journal,) = journals
        note = json.loads(disk.read(machine.room / NOTE) or b"")
        assert (note["new"], note["former"]) == (journal["new"], journal["old"])
        assert disk.mode(machine.room / NOTE) == 0o644
    if said in {"promoted", "recorded", "finalized"}:
        assert outside(disk.tree(machine.target)) == NEW
        assert disk.mode(machine.target) == MODE
    if said in {"undone", "removed", "failed"}:
        assert is_former(disk, machine)
    if said in {"recorded", "undone"}:
        assert [journal["state"] for journal in journals] == [said]
    if said in {"finalized", "removed", "failed"}:
        assert not journals


def check_ways_on(disk: Disk, machine: Machine) -> None:
    """Both ways lead to an end that a person can have meant; nothing is left of either."""
    for forward in (True, False):
        machine.built(disk)
        journal = unfinished(machine.target, state=machine.state)
        state = "none" if journal is None else str(journal.state)
        can_go_on = state not in {"none", "staged", "discarded"}
        if state == "finalized" or (forward and can_go_on):
            machine.finalize()
            new = True
        else:
            new = state == "none" and outside(disk.tree(machine.target)) == NEW
            while list(machine.state.glob("restores/*.json")):
                machine.undo()
        found = {
            str(path.relative_to(machine.target)): path.read_bytes() if path.is_file() else None
            for path in machine.target.rglob("*")
        }
        if new:
            assert found == NEW
            status = machine.target.stat()
            assert (status.st_mode & 0o7777, status.st_mtime_ns) == (MODE, MTIME)
        elif not (machine.former == "mount" and not found):
            assert (found if machine.target.exists() else None) == machine.before
        assert not list(machine.room.glob(".target*"))
        assert not list(machine.target.glob(".target*"))


# --- the steps ---


def _finalized(machine: Machine) -> None:
    machine.restore()
    machine.finalize()


def _undone(machine: Machine) -> None:
    machine.restore()
    machine.undo()
    machine.undo()


def _finalized_after_all(machine: Machine) -> None:
    machine.restore()
    machine.undo()
    machine.finalize()


def _failed(machine: Machine) -> None:
    machine.fail()


def _never_began(machine: Machine) -> None:
    usual, machine.fs = machine.fs, Full(b"tree" if machine.former == "mount" else b"note")
    machine.mark("failing")
    with pytest.raises(LocalError), machine.staging():
        pass
    machine.mark("failed")
    machine.fs = usual


@pytest.fixture(params=["missing", "full", "mount"])
def former(request: pytest.FixtureRequest) -> str:
    """What was at TARGET."""
    if request.param == "mount" and os.geteuid() != 0:
        pytest.skip("needs root")
    return str(request.param)


@pytest.fixture(params=["exchange", "renames"])
def machine(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    former: str,
) -> Iterator[Machine]:
    """A machine whose file system can exchange names, or can't."""
    room, state = tmp_path / "room", tmp_path / "state"
    room.mkdir()
    state.mkdir(mode=0o700)
    target = room / "target"
    if former == "full":
        plant_tree(target, OLD)
    elif former != "missing":
        target.mkdir()
    if former == "mount":
        subprocess.run(["mount", "-t", "tmpfs", "none", target], check=True)
        (target / "lost+found").mkdir()
    fs = Fs() if request.param == "exchange" else NoExchange()
    yield Machine(room=room, state=state, former=former, fs=fs)
    if former == "mount":
        subprocess.run(["umount", target], check=True)


@pytest.mark.parametrize(
    ("steps", "fresh"),
    [
        (_finalized, "began"),
        (_undone, "undoing"),
        (_finalized_after_all, "undone"),
        (_failed, "failing"),
        (_never_began, "failing"),
    ],
)
def test_a_power_cut_at_any_moment(
    machine: Machine, steps: Steps, fresh: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No statement of the journal or of a command runs ahead of what the disk has.

    ``fresh`` is the mark that the first of these steps does not come to: what the disk may
    have before that is tried out once.
    """
    recorder = machine.run(steps)
    disks = list(recorder.cuts())
    assert len(disks) > 10
    for disk in disks:
        try:
            check_disk(disk, machine)
        except AssertionError as error:
            raise AssertionError(f"after {disk.after}, said {disk.marks}: {error}") from error
    monkeypatch.setattr(os, "fsync", lambda _: None)  # what is recorded was recorded
    monkeypatch.setattr(Fs, "syncfs", lambda *_: None)
    for disk in disks:
        if fresh not in disk.marks and steps is not _finalized:
            continue
        try:
            check_ways_on(disk, machine)
        except AssertionError as error:
            raise AssertionError(f"after {disk.after}: {error}") from error
