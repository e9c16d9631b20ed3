"""What is taken back is there: journals, notes, locks and neighbours that can't be believed."""

import contextlib
import dataclasses
import fcntl
import json
import os
import shutil
import signal
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.children import KILLED, NOBODY, as_nobody, become_nobody, is_killed, needs_root
from tests.support.lab import Lab, MakeRepository
from tests.support.trees import files_of
from vault.errors import ConfigError, DigestMismatchError, IntegrityError, LocalError, VaultError
from vault.ledger.records import Record
from vault.ledger.statements import EventBody
from vault.machine.workers import make_workers
from vault.repository import attestations
from vault.restore import (
    Exchange,
    Finalized,
    Local,
    RestoreReport,
    finalize_restore,
    leftovers,
    undo_restore,
    undo_restore_from,
)
from vault.restore.syscalls import Fs
from vault.restore.undo_finalize import unfinished

ME = os.geteuid()  # tests of what neighbours do run as root, who can act as one, and as anybody
OLD = {"precious": b"only copy"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bench:
    """A snapshot, a live TARGET, and a user who restores."""

    lab: Lab
    record: Record
    target: Path
    local: Local

    def restore(self, fs: Fs | None = None, **options: Any) -> RestoreReport:
        """Over the live TARGET, without threads."""
        options = {"target": self.target, "replace": True, "local": self.local, **options}
        return self.lab.restore(self.record, fs=fs, **options)

    def finalize(self, **options: Any) -> Finalized:
        """Go on with it."""
        return self.lab.finalize(self.target, local=self.local, **options)

    def undo(self) -> bool:
        """One step back; whether what was restored is kept."""
        return undo_restore(self.target, state=self.local.state).journal is not None

    def of(self, state: Path) -> "Bench":
        """Another user, or the same one after his state directory was lost."""
        return dataclasses.replace(self, local=dataclasses.replace(self.local, state=state))

    @property
    def journal(self) -> Path:
        """The one there is."""
        (path,) = (self.local.state / "restores").glob("*.json")
        return path

    @property
    def note(self) -> Path:
        """The one there is."""
        (path,) = self.target.parent.glob(".live.vault-*.note")
        return path

    def trees(self) -> list[dict[str, bytes]]:
        """Content of TARGET and of all directories beside it."""
        room = self.target.parent
        found = [path for path in room.glob("*") if path.is_dir()]
        return [files_of(path) for path in sorted([*found, *room.glob(".live.vault-*/*/")])]

    def said(self) -> list[tuple[str, dict[str, Any]]]:
        """Verdicts and details of the restores that the ledger has."""
        repository = self.lab.open()
        found = []
        for record in repository.ledger.valid("restore"):
            assert isinstance(record.body, EventBody)
            name = f"evidence/{record.body.attestation}"
            (version,) = repository.store.versions(name)
            data = repository.store.get(name, version.version)
            found.append(
                (
                    record.body.verdict,
                    attestations.open_attestation(data, repository.ledger).details,
                )
            )
        return found


@pytest.fixture
def bench(make_repository: MakeRepository, tmp_path: Path) -> Bench:
    """TARGET holds the only copy of something."""
    lab = make_repository()
    source = tmp_path / "source"
    (source / "sub").mkdir(parents=True)
    (source / "sub/file").write_bytes(b"restored")
    source.chmod(0o755)
    room = tmp_path / "room"
    target = room / "live"
    target.mkdir(parents=True)
    (target / "precious").write_bytes(OLD["precious"])
    for folder in (tmp_path, *tmp_path.parents):
        if "pytest" in str(folder):
            folder.chmod(0o755)
    local = Local(state=tmp_path / "state", host="here", user="me")
    return Bench(lab=lab, record=lab.snapshot(source).record, target=target, local=local)


NEW = {"sub/file": b"restored"}


pytestmark = pytest.mark.usefixtures("no_syncfs")


# --- the state directory is lost ---


class Killed(Fs):
    """Ends the process once a journal of a state was written."""

    def __init__(self, state: str, room: Path) -> None:
        self._state = '"new":"' if state == "started" else f'"state":"{state}"'
        self._room = room

    def rename(self, source: int, old: bytes, directory: int, new: bytes) -> None:
        """Look what was written."""
        super().rename(source, old, directory, new)
        if any(self._state in path.read_text() for path in self._room.glob("*.json")):
            os._exit(KILLED)


def _killed_at(bench: Bench, state: str) -> None:
    assert is_killed(lambda: bench.restore(Killed(state, bench.local.state / "restores")))


@pytest.mark.parametrize("loss", ["removed", "another user", "journals removed", "damaged"])
@pytest.mark.parametrize("state", ["started", "staged", "proven", "exchanged", "recorded"])
def test_both_trees_are_there_after_the_state_directory_is_lost(
    bench: Bench, tmp_path: Path, state: str, loss: str
) -> None:
    """Whatever the restore had come to: no command removes either, nor says that it undid."""
    _killed_at(bench, state)
    before = bench.trees()
    assert OLD in before
    match loss:
        case "removed":
            shutil.rmtree(bench.local.state)
        case "another user":
            bench = bench.of(tmp_path / "other")
        case "journals removed":
            bench.journal.unlink()
        case _:
            bench.journal.write_bytes(b"{}")
    for call in (bench.undo, bench.finalize, bench.undo):
        with pytest.raises(VaultError):
            call()
    assert bench.trees() == before
    if loss != "damaged":
        assert leftovers(bench.target, state=bench.local.state).unknown
        bench.restore()
        assert [tree for tree in before if tree not in bench.trees()] == []


@pytest.mark.parametrize("state", ["proven", "exchanged"])
def test_with_its_journal_each_is_taken_back(bench: Bench, state: str) -> None:
    """The control: nothing is lost, so it is undone."""
    _killed_at(bench, state)
    while bench.undo():
        pass
    assert bench.trees() == [OLD]


# --- undo by the note ---


def test_undo_from_a_note_exchanges_and_removes_nothing(bench: Bench) -> None:
    """It asks first; a second time there is nothing to do."""
    bench.restore()
    shutil.rmtree(bench.local.state)
    asked: list[Exchange] = []

    def refuse(_: Exchange) -> None:
        raise ConfigError("no")

    with pytest.raises(ConfigError, match="no"):
        undo_restore_from(bench.note, state=bench.local.state, agree=refuse)
    assert files_of(bench.target) == NEW
    assert undo_restore_from(bench.note, state=bench.local.state, agree=asked.append) is not None
    assert (asked[0].target, asked[0].note.user) == (bench.target, "me")
    assert files_of(bench.target) == OLD
    assert NEW in bench.trees()
    assert undo_restore_from(bench.note, state=bench.local.state, agree=refuse) is None
    assert files_of(bench.target) == OLD


def test_undo_from_a_note_shows_mode_and_owner_of_what_comes_back(bench: Bench) -> None:
    """Others may have forged the note: by these the user sees whose directory it would be."""
    bench.target.chmod(0o2751)
    bench.restore()
    shown: list[tuple[int | None, int | None]] = []

    def agree(exchange: Exchange) -> None:
        assert exchange.other is not None
        assert files_of(exchange.other) == OLD
        shown.append((exchange.other_mode, exchange.other_owner))

    undo_restore_from(bench.note, state=bench.local.state, agree=agree)
    assert shown == [(0o2751, ME)]
    assert files_of(bench.target) == OLD


def test_undo_from_a_note_where_target_was_missing_shows_no_other_directory(bench: Bench) -> None:
    """There is none, so it has no mode and no owner; TARGET is missing again."""
    shutil.rmtree(bench.target)
    _killed_at(bench, "exchanged")
    assert files_of(bench.target) == NEW
    asked: list[Exchange] = []
    undo_restore_from(bench.note, state=bench.local.state, agree=asked.append)
    (exchange,) = asked
    assert (exchange.other, exchange.other_mode, exchange.other_owner) == (None, None, None)
    assert not bench.target.exists()
    assert NEW in bench.trees()


def test_undo_from_a_note_beside_its_journal_keeps_both_in_step(bench: Bench) -> None:
    """The journal knows afterwards, so that finalize and undo go on from there."""
    bench.restore()
    undo_restore_from(bench.note, state=bench.local.state, agree=lambda _: None)
    assert files_of(bench.target) == OLD
    bench.finalize()
    assert bench.trees() == [NEW]


def _other_inode(note: Path) -> None:
    fields = json.loads(note.read_text())
    note.write_text(json.dumps(fields | {"new": "1"}))


def _another_name(note: Path) -> None:
    note.rename(note.with_name(note.name.replace(".live.", ".other.")))


def _as_link(path: Path) -> None:
    path.rename(path.with_name("aside"))
    path.symlink_to("aside")


def _as_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path, 0o600)


def _as_directory(path: Path) -> None:
    path.unlink()
    path.mkdir(0o700)


NOTES: dict[str, Callable[[Path], object]] = {
    "symlink": _as_link,
    "fifo": _as_fifo,
    "huge": lambda note: os.truncate(note, 1 << 40),
    "junk": lambda note: note.write_bytes(b"\xff"),
    "a list": lambda note: note.write_bytes(b"[]"),
    "another inode": _other_inode,
    "an inode number that is none": lambda note: note.write_text(
        json.dumps(json.loads(note.read_text()) | {"new": "x"})
    ),
    "of another version": lambda note: note.write_text(
        json.dumps(json.loads(note.read_text()) | {"version": 2})
    ),
    "a text beyond its limit": lambda note: note.write_text(
        json.dumps(json.loads(note.read_text()) | {"host": "h" * 4_097})
    ),
    "of another id": lambda note: note.write_text(
        json.dumps(json.loads(note.read_text()) | {"id": "00000000"})
    ),
    "an id that leads elsewhere": lambda note: note.write_text(
        json.dumps(json.loads(note.read_text()) | {"id": "../../.."})
    ),
}


@pytest.mark.parametrize("kind", NOTES)
def test_a_note_that_is_none_moves_nothing(bench: Bench, kind: str) -> None:
    """Nor does it end the program; a new restore and undo go past it."""
    bench.restore()
    before = bench.trees()
    note = bench.note
    NOTES[kind](note)
    other = bench.local.state / "lost"
    for _ in range(2):
        with pytest.raises(VaultError):
            undo_restore_from(
                note, state=other, agree=lambda _: pytest.fail("asked about a false note")
            )
    assert leftovers(bench.target, state=other).unknown
    assert bench.trees() == before
    while bench.undo():
        pass
    assert files_of(bench.target) == OLD


@pytest.mark.parametrize("name", ["/etc/passwd", ".vault-0123abcd.note", "x.note", "..", ""])
def test_what_has_no_name_of_a_note_is_refused(bench: Bench, name: str) -> None:
    """Before anything is opened."""
    with pytest.raises(ConfigError):
        undo_restore_from(name, state=bench.local.state, agree=lambda _: None)


# --- planted ---


def _with(journal: Path, **fields: Any) -> None:
    journal.write_text(json.dumps(json.loads(journal.read_text()) | fields))


def _second_name(journal: Path) -> None:
    os.link(journal, journal.with_name("second"))


JOURNALS: dict[str, Callable[[Path], object]] = {
    "symlink": _as_link,
    "fifo": _as_fifo,
    "directory": _as_directory,
    "huge": lambda path: os.truncate(path, 1 << 40),
    "hard-linked": _second_name,
    "of another user": lambda path: os.chown(path, NOBODY, NOBODY),
    "writable": lambda path: path.chmod(0o666),
    "directory writable": lambda path: path.parent.chmod(0o777),
    "directory of another user": lambda path: os.chown(path.parent, NOBODY, NOBODY),
    "directory around writable": lambda path: path.parent.parent.chmod(0o777),
    "directory is a symlink": lambda path: _as_link(path.parent),
    "names what is above": lambda path: _with(
        path, mount={"before": json.loads(path.read_text())["top"], "names": ["../../x"]}
    ),
    "absolute name": lambda path: _with(
        path, mount={"before": json.loads(path.read_text())["top"], "names": ["/etc"]}
    ),
    "another target": lambda path: _with(path, target="/etc"),
    "id of a path": lambda path: _with(path, id="../../xx"),
    "inode that is none": lambda path: _with(path, old="../1"),
}  # fmt: skip


@pytest.mark.parametrize(
    "kind",
    [pytest.param(kind, marks=needs_root if "another user" in kind else ()) for kind in JOURNALS],
)
def test_a_journal_that_others_could_have_written_is_refused(bench: Bench, kind: str) -> None:
    """Neither finalize nor undo nor a new restore goes by it, and both trees stay."""
    bench.restore()
    before, said = bench.trees(), bench.said()
    JOURNALS[kind](bench.journal)
    for call in (bench.undo, bench.finalize, bench.restore):
        with pytest.raises((ConfigError, IntegrityError)):
            call()
    assert bench.trees() == before
    assert bench.said() == said


@pytest.mark.parametrize("where", ["beside, as once", "note"])
def test_what_lies_beside_a_target_is_believed_by_nobody(bench: Bench, where: str) -> None:
    """A journal or note of another user's signs nothing, moves nothing, stops no restore."""
    room = bench.target.parent
    room.chmod(0o1777)
    evil = room / ".live.vault-deadbeef"

    def plant() -> None:
        evil.mkdir()
        (evil / "evil").write_bytes(b"evil")
        fields = {
            "version": 1, "id": "deadbeef", "state": "exchanged", "repository": "0" * 32,
            "snapshot": 2, "host": "h", "user": "root", "target": "live", "beside": evil.name,
            "new": str(bench.target.stat().st_ino), "former": str(evil.stat().st_ino),
        }  # fmt: skip
        suffix = ".note" if where == "note" else ".journal"
        evil.with_name(evil.name + suffix).write_text(json.dumps(fields))

    as_nobody(plant)
    for call in (bench.undo, bench.finalize):
        with pytest.raises(ConfigError, match="left alone"):
            call()
    assert bench.said() == []
    assert files_of(bench.target) == OLD
    bench.restore()
    assert files_of(bench.target) == NEW
    assert files_of(evil) == {"evil": b"evil"}
    while bench.undo():
        pass
    assert files_of(bench.target) == OLD
    assert files_of(evil) == {"evil": b"evil"}


def test_a_lock_of_others_stops_nothing(bench: Bench) -> None:
    """Who may read TARGET may lock it; the lock that counts is where he can't."""
    bench.restore()
    held, told = os.pipe()
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            become_nobody()
            for path in (bench.target, bench.note):
                fcntl.flock(os.open(path, os.O_RDONLY), fcntl.LOCK_EX)
            os.write(told, b"x")
            signal.pause()
        os._exit(1)
    os.close(told)  # so that a child that failed is an end, not a wait
    try:
        assert os.read(held, 1) == b"x"
        assert bench.undo()
        assert files_of(bench.target) == OLD
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(held)


# --- neighbours ---


@pytest.mark.parametrize(
    ("mode", "owner", "former", "taken"),
    [
        (0o755, ME, ME, True),
        (0o1777, ME, ME, True),
        (0o1777, ME, None, True),
        (0o777, ME, ME, False),
        (0o777, ME, None, False),
        pytest.param(0o775, ME, ME, False, marks=needs_root),  # of another group
        pytest.param(0o755, ME, NOBODY, True, marks=needs_root),
        pytest.param(0o1777, ME, NOBODY, False, marks=needs_root),
        pytest.param(0o755, NOBODY, ME, False, marks=needs_root),
        pytest.param(0o1755, NOBODY, ME, False, marks=needs_root),
    ],
)
def test_a_parent_that_others_can_write_is_refused(
    bench: Bench,
    mode: int,
    owner: int,
    former: int | None,
    taken: bool,  # noqa: FBT001
) -> None:
    """But for a sticky one of ours or root's with a TARGET that is ours, or asked for."""
    room = bench.target.parent
    os.chown(room, owner, 8 if mode == 0o775 else os.getegid())
    room.chmod(mode)
    if former is None:
        shutil.rmtree(bench.target)
    else:
        os.chown(bench.target, former, -1)
    if not taken:
        with pytest.raises(ConfigError, match="can swap"):
            bench.restore()
        assert bench.said() == []
    bench.restore(shared_parent=not taken)
    assert files_of(bench.target) == NEW
    ((_, details),) = bench.said()
    assert ("shared_parent" in details) is not taken
    assert details["promoted"] == "pending"


class Swapping(Fs):
    """Somebody swaps names right before a call."""

    def __init__(self, swap: Callable[[], None]) -> None:
        self._swap = swap

    def exchange(self, directory: int, one: bytes, around: int, other: bytes) -> None:
        """Theirs first, once."""
        if one == b"live":
            swap, self._swap = self._swap, lambda: None
            swap()
        super().exchange(directory, one, around, other)


@pytest.mark.parametrize("what", ["staging", "target"])
def test_what_was_swapped_in_is_put_back(bench: Bench, what: str) -> None:
    """The exchange had begun: names are as that neighbour left them, and it is no success."""
    aside = bench.target.parent / "aside"

    def swap() -> None:
        (staging,) = bench.target.parent.glob(".live.vault-*/tree")
        victim = staging if what == "staging" else bench.target
        victim.rename(aside)
        victim.mkdir()
        (victim / "evil").write_bytes(b"evil")

    with pytest.raises(ConfigError, match="not what the restore left"):
        bench.restore(Swapping(swap))
    assert files_of(bench.target) == (OLD if what == "staging" else {"evil": b"evil"})
    assert files_of(aside) == (NEW if what == "staging" else OLD)
    assert [verdict for verdict, _ in bench.said() if verdict == "passed"] == []


def test_a_holder_that_was_swapped_ends_nothing(bench: Bench) -> None:
    """Another directory has its name: finalize does not say that the former state is removed."""
    bench.restore()
    (holder,) = (path for path in bench.target.parent.glob(".live.vault-*") if path.is_dir())
    aside = holder.rename(holder.with_name("aside"))
    holder.mkdir()
    for call in (bench.finalize, bench.undo):
        with pytest.raises(ConfigError, match="not what the restore left"):
            call()
    assert files_of(aside / "tree") == OLD
    holder.rmdir()
    aside.rename(holder)
    assert bench.undo()
    assert files_of(bench.target) == OLD


class Changing(Fs):
    """A program of root's changes what is staged, between the proof and the exchange."""

    def __init__(self, room: Path, change: Callable[[Path], object]) -> None:
        self._room = room
        self._change = change

    def rename(self, source: int, old: bytes, directory: int, new: bytes) -> None:
        """When the journal says that it is proven."""
        super().rename(source, old, directory, new)
        for path in self._room.glob(".live.vault-*/tree"):
            if (path / "sub/file").exists() and (path / "sub/file").read_bytes() == b"restored":
                journal = b"".join(p.read_bytes() for p in (self._state).glob("*.json"))
                if b'"state":"proven"' in journal:
                    self._change(path)

    @property
    def _state(self) -> Path:
        return self._room.parent / "state/restores"


CHANGES: dict[str, Callable[[Path], object]] = {
    "content": lambda top: (top / "sub/file").write_bytes(b"tampered"),
    "content with its times": lambda top: _rewrite(top / "sub/file"),
    "mode": lambda top: (top / "sub/file").chmod(0o666),
    "a new file": lambda top: (top / "sub/new").touch(),
    "a file less": lambda top: (top / "sub/file").unlink(),
    "a second name": lambda top: os.link(top / "sub/file", top.parent.parent / "second"),
    "at the top": lambda top: (top / "new").touch(),
    "an attribute": lambda top: os.setxattr(top / "sub/file", "user.x", b"y"),
}


def _rewrite(path: Path) -> None:
    status = path.stat()
    path.write_bytes(b"tampered")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize("kind", CHANGES)
def test_what_changes_after_it_was_read_is_not_exchanged(bench: Bench, kind: str) -> None:
    """Whatever the change, the kernel's own time of it tells."""
    with pytest.raises(LocalError, match="after it was read"):
        bench.restore(Changing(bench.target.parent, CHANGES[kind]))
    assert files_of(bench.target) == OLD
    assert [verdict for verdict, _ in bench.said()] == ["inconclusive"]


def test_what_does_not_change_is_exchanged(bench: Bench) -> None:
    """The control: looking is no change."""
    bench.restore(Changing(bench.target.parent, lambda top: (top / "sub/file").read_bytes()))
    assert files_of(bench.target) == NEW


def test_others_can_not_enter_staging_before_the_exchange(bench: Bench) -> None:
    """At every call a plain user is refused what is staged; TARGET has its own mode at once.

    Who is no root can't act as another: then the mode must refuse all but the owner.
    """
    theirs = NOBODY if ME == 0 else ME
    refused: list[bool] = []
    modes: set[tuple[int, int]] = set()

    class Watching(Fs):
        def __getattribute__(self, name: str) -> Any:
            if name in Fs.__dict__:
                status = bench.target.lstat()
                modes.add((stat.S_IMODE(status.st_mode), status.st_uid))
                refused.extend(map(_is_closed, bench.target.parent.glob(".live.vault-*/tree")))
            return super().__getattribute__(name)

    os.chown(bench.lab.base.parent / "source", theirs, -1)
    record = bench.lab.snapshot(bench.lab.base.parent / "source").record
    bench = dataclasses.replace(bench, record=record)
    bench.restore(Watching())
    assert refused
    assert all(refused)
    assert modes == {(0o755, ME), (0o755, theirs)}
    bench.undo()
    (beside,) = bench.target.parent.glob(".live.vault-*/tree")
    assert _is_closed(beside)


def _is_closed(top: Path) -> bool:
    """Whether a plain user is refused; asked with his rights, in this process."""
    if ME != 0:
        return not top.parent.stat().st_mode & 0o077
    os.seteuid(NOBODY)
    try:
        top.stat()
    except PermissionError:
        return True
    finally:
        os.seteuid(0)
    return False


# --- what is signed ---


def test_an_attestation_signed_before_the_exchange_is_only_appended(bench: Bench) -> None:
    """Finalize after a kill adds the very bytes that the process that proved had signed."""
    _killed_at(bench, "exchanged")
    kept = json.loads(bench.journal.read_text())["attestation"].encode()
    final = bench.finalize()
    assert (final.verdict, final.not_repeated) == ("passed", None)
    assert attestations.is_recorded(bench.lab.open(), kept) == final.statement
    ((verdict, details),) = bench.said()
    assert (verdict, details["promoted"], details["host"]) == ("passed", "pending", "here")


FORGED: dict[str, Callable[[dict[str, Any]], object]] = {
    "none": lambda fields: fields | {"attestation": ""},
    "junk": lambda fields: fields | {"attestation": "{}"},
    "a byte of the signature": lambda fields: (
        fields | {"attestation": fields["attestation"].replace('"sig":"M', '"sig":"N')}
    ),
}


@pytest.mark.parametrize("kind", [*FORGED, "another host", "another restore"])
def test_without_the_attestation_only_partial_is_signed(
    bench: Bench, tmp_path: Path, kind: str
) -> None:
    """By the process that did not prove: and the former state is removed all the same."""
    _killed_at(bench, "exchanged")
    if kind == "another host":
        bench = dataclasses.replace(bench, local=dataclasses.replace(bench.local, host="there"))
    elif kind == "another restore":
        other = dataclasses.replace(bench, target=tmp_path / "room2/live").of(tmp_path / "state2")
        other.target.mkdir(parents=True)
        (other.target / "x").touch()
        _killed_at(other, "exchanged")
        _with(bench.journal, attestation=json.loads(other.journal.read_text())["attestation"])
    else:
        fields = json.loads(bench.journal.read_text())
        bench.journal.write_text(json.dumps(FORGED[kind](fields)))
    final = bench.finalize()
    assert final.not_repeated
    ((verdict, details),) = bench.said()
    assert (verdict, details["proof"]) == ("partial", "exchanged; proof not repeated")
    assert bench.trees() == [NEW]


def test_finalize_prove_reads_the_target_again(bench: Bench) -> None:
    """And signs that; what it can't find right is neither signed nor costs the former state."""
    bench.restore()
    (bench.target / "sub/file").write_bytes(b"served on")
    with pytest.raises(DigestMismatchError):
        bench.finalize(again=True)
    assert OLD in bench.trees()
    (bench.target / "sub/file").write_bytes(b"restored")
    source = bench.lab.base.parent / "source"
    for name in ("sub/file", "sub"):
        status = (source / name).stat()
        os.utime(bench.target / name, ns=(status.st_mtime_ns, status.st_mtime_ns))
    final = bench.finalize(again=True)
    assert final.verdict == "passed"
    assert [details["promoted"] for _, details in bench.said()] == ["pending", "done"]


def test_a_restore_without_proof_passes_once_finalize_proves_it_whole(bench: Bench) -> None:
    """The proof decides, not what the restore could say before it."""
    bench.restore(verify=False)
    final = bench.finalize(again=True)
    assert final.verdict == "passed"
    said = [(verdict, details["proof"]) for verdict, details in bench.said()]
    assert said == [("partial", "none"), ("passed", "passed")]


def test_finalize_of_a_recorded_restore_needs_no_key(bench: Bench) -> None:
    """Removing the former state depends on no proof, no store, no passphrase."""
    bench.restore()

    def keys() -> Any:
        raise AssertionError

    with make_workers(0) as workers:
        finalize_restore(
            keys, bench.target, local=bench.local, scratch=lambda: bench.lab.base,
            workers=workers, tool="t",
        )  # fmt: skip
    assert bench.trees() == [NEW]


@pytest.mark.parametrize("state", ["exchanged", "recorded"])
def test_a_journal_that_cannot_be_written_after_the_exchange_is_told(
    bench: Bench, state: str
) -> None:
    """TARGET is the new state and attested; what failed is said, and finalize ends it."""

    class Full(Fs):
        def rename(self, source: int, old: bytes, directory: int, new: bytes) -> None:
            said = json.loads(os.pread(os.open(old, os.O_RDONLY, dir_fd=source), 1 << 20, 0))
            if said["state"] == state:
                raise OSError(28, os.strerror(28))
            super().rename(source, old, directory, new)

    report = bench.restore(Full())
    assert [type(each) for each in report.troubles] == [LocalError]
    assert report.statement is not None
    assert files_of(bench.target) == NEW
    bench.finalize()
    assert bench.trees() == [NEW]
    assert [verdict for verdict, _ in bench.said()] == ["passed"]


# --- undo, again and in odd places ---


def test_what_changed_while_it_was_live_is_kept(bench: Bench) -> None:
    """Undo brings the former state back; a second one does not remove what services wrote."""
    bench.restore()
    (bench.target / "sub/log").write_bytes(b"written since")
    assert bench.undo()
    assert files_of(bench.target) == OLD
    for call in (bench.undo, bench.finalize, bench.undo):
        with pytest.raises(VaultError):
            call()
    assert {"sub/file": b"restored", "sub/log": b"written since"} in bench.trees()
    (beside,) = bench.target.parent.glob(".live.vault-*/tree")
    shutil.rmtree(beside)
    assert not bench.undo()
    assert sorted(p.name for p in bench.target.parent.iterdir()) == ["live"]


def test_undo_twice_and_after_finalize(bench: Bench) -> None:
    """The second removes what was restored; after finalize there is nothing to undo."""
    bench.restore()
    assert bench.undo()
    assert not bench.undo()
    assert bench.trees() == [OLD]
    with pytest.raises(ConfigError, match="no restore"):
        bench.undo()
    bench.restore()
    bench.finalize()
    with pytest.raises(ConfigError, match="no restore"):
        bench.undo()
    assert bench.trees() == [NEW]


def test_a_target_replaced_by_a_symlink_is_not_followed(bench: Bench) -> None:
    """After the exchange, before undo and finalize."""
    bench.restore()
    aside = bench.target.parent / "aside"
    bench.target.rename(aside)
    bench.target.symlink_to(aside)
    for call in (bench.undo, bench.finalize):
        with pytest.raises(ConfigError, match="symbolic link"):
            call()
    assert files_of(aside) == NEW
    assert OLD in bench.trees()


def _spellings(target: Path) -> Iterator[tuple[str, str]]:
    alias = target.parent.parent / "alias"
    alias.symlink_to(target.parent)
    yield "slash", f"{target}/"
    yield "dots", f"{target.parent}/../{target.parent.name}/./{target.name}"
    yield "symlinked parent", f"{alias}/{target.name}"
    yield "relative", os.path.relpath(target)
    yield "doubled", str(target).replace("/", "//")


def test_a_target_by_another_spelling_is_the_same(bench: Bench) -> None:
    """Its journal is found, and another restore to it is refused."""
    for name, spelled in _spellings(bench.target):
        bench.restore()
        with pytest.raises(ConfigError, match="not finished"):
            bench.restore(target=Path(spelled))
        assert unfinished(spelled, state=bench.local.state) is not None, name
        assert undo_restore(spelled, state=bench.local.state).journal is not None
        assert undo_restore(spelled, state=bench.local.state).journal is None
        assert bench.trees() == [OLD], name


def test_two_users_who_restore_to_one_target_at_once(bench: Bench, tmp_path: Path) -> None:
    """The second finds another TARGET than it looked at; nothing of the first is lost."""
    other = bench.of(tmp_path / "other")

    class Overtaken(Fs):
        done = False

        def symlink(self, directory: int, name: bytes, target: bytes) -> None:
            if not self.done:
                self.done = True
                other.restore()
            super().symlink(directory, name, target)

    with pytest.raises(ConfigError, match="changed during the restore"):
        bench.restore(Overtaken())
    assert files_of(bench.target) == NEW
    assert OLD in other.trees()
    assert other.undo()
    assert files_of(bench.target) == OLD


@pytest.fixture
def his(bench: Bench) -> Bench:
    """The same of a plain user: TARGET, what is around it and the state are his."""
    base = bench.target.parent.parent
    for folder in (base, *base.parents[:2], bench.lab.base):
        folder.chmod(0o755)
    (bench.lab.base / "scratch").mkdir(exist_ok=True)
    (base / "his").mkdir(mode=0o700)
    for path in (
        bench.target.parent, bench.target, bench.target / "precious", base / "his",
        bench.lab.base / "scratch",
    ):  # fmt: skip
        os.chown(path, NOBODY, NOBODY)
    return bench.of(base / "his")


@needs_root
def test_a_plain_user_takes_his_own_back(bench: Bench, his: Bench) -> None:
    """In his own directories, with his own state; and root sees only his note."""
    as_nobody(his.restore)
    assert files_of(bench.target) == NEW
    bench.target.parent.chmod(0o755)
    with pytest.raises(ConfigError, match="left alone"):
        bench.undo()
    assert OLD in bench.trees()
    as_nobody(lambda: his.undo() or 1 / 0)
    assert files_of(bench.target) == OLD


@needs_root
def test_a_plain_user_exchanges_read_only_directories(bench: Bench, his: Bench) -> None:
    """Both tops are 0555: they keep that; one of root's that he can't write is refused at once."""
    source = bench.lab.base.parent / "source"
    source.chmod(0o555)
    his = dataclasses.replace(his, record=his.lab.snapshot(source).record)
    bench.target.chmod(0o555)
    as_nobody(his.restore)
    assert files_of(bench.target) == NEW
    assert stat.S_IMODE(bench.target.stat().st_mode) == 0o555
    as_nobody(lambda: his.undo() or 1 / 0)
    assert files_of(bench.target) == OLD
    assert stat.S_IMODE(bench.target.stat().st_mode) == 0o555
    as_nobody(lambda: his.undo() and 1 / 0)
    os.chown(bench.target, 0, 0)

    def refused() -> None:
        with pytest.raises(ConfigError, match="can't be exchanged"):
            his.restore()

    as_nobody(refused)
    assert files_of(bench.target) == OLD
