"""What an operator reads when something fails: forty faults, and the order of the facts.

Each row of the table breaks something, runs one command, and names what its last lines must say,
in that order: what is wrong; what TARGET is now; which files are hit; which snapshots are whole;
what to try next. What TARGET really is, is looked at on the disk.
"""

import dataclasses
import os
import random
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import pytest

Vault: TypeAlias = Callable[..., tuple[int, str, str]]
Command: TypeAlias = "tuple[object, ...]"

OLD, NEW = 2, 3  # ledger numbers of the snapshots; only the new one has the file `big`


class Scene:
    """A repository with two snapshots, and a live directory that may be replaced."""

    def __init__(self, vault: Vault, home: Path, source: Path, repository: Path) -> None:
        self.vault = vault
        self.home = home
        self.source = source
        self.store = repository
        self.live = home / "live"
        self.fresh = home / "fresh"
        self.live.mkdir()
        (self.live / "precious").write_text("do not lose me")
        self.snapshot()
        (source / "big").write_bytes(random.Random(1).randbytes(3_000_000))
        self.snapshot()
        self.before = self.look()

    def snapshot(self) -> None:
        """Another one of the dataset."""
        code, _, err = self.vault("snapshot", self.source, "--name", "data")
        assert code == 0, err

    def look(self) -> dict[str, str]:
        """All that is in the live directory, and whether there is a fresh one."""
        found = {path.name: path.read_text() for path in self.live.iterdir()}
        return {**found, "fresh": str(self.fresh.exists())}

    def inventory(self, seq: int) -> Path:
        """Of a snapshot: the newest one is the last that was stored."""
        stored = sorted(self.store.glob("inventory/*"), key=lambda path: path.stat().st_mtime_ns)
        return stored[seq - OLD]

    def packs(self, seq: int) -> set[Path]:
        """That a snapshot needs."""
        text = self.inventory(seq).read_text()
        return {self.store / name for name in re.findall(r"packs/\S+", text)}

    @property
    def data(self) -> Path:
        """The pack that holds `big` alone."""
        return max(self.packs(NEW) - self.packs(OLD), key=lambda path: path.stat().st_size)

    @property
    def tree(self) -> Path:
        """A pack of the new snapshot's tree."""
        return min(self.packs(NEW) - self.packs(OLD), key=lambda path: path.stat().st_size)

    @property
    def shared(self) -> Path:
        """The pack of small files, which both snapshots need."""
        return max(self.packs(NEW) & self.packs(OLD), key=lambda path: path.stat().st_size)

    def replace(self, seq: int = NEW) -> Command:
        """Restore over live data."""
        return "restore", seq, self.live, "--replace"

    def make(self, *options: object) -> Command:
        """Restore to where nothing is."""
        return "restore", NEW, self.fresh, *options


def flip(path: Path, at: int = -1000) -> None:
    """One bit."""
    path.chmod(0o600)
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def cut(path: Path) -> None:
    """Half of it is gone."""
    path.chmod(0o600)
    os.truncate(path, path.stat().st_size // 2)


def junk(path: Path) -> None:
    """Other bytes, as many."""
    path.chmod(0o600)
    path.write_bytes(bytes(path.stat().st_size))


@dataclasses.dataclass(frozen=True)
class Fault:
    """One row: what is done, which command is run, how it ends, what it says and in which order."""

    do: Callable[[Scene], object]
    run: Callable[[Scene], Command]
    code: int
    facts: tuple[str, ...]


def _damage(what: str, how: Callable[[Path], object]) -> Callable[[Scene], object]:
    return lambda scene: how(getattr(scene, what))


def _nothing(_: Scene) -> None:
    """All is well."""


UNTOUCHED = r"^vault: target: \S+/live is untouched; nothing was left beside it$"
NOT_MADE = r"^vault: target: \S+/fresh was not made; nothing was left beside it$"
BIG = r"^vault: hit: 1 pack wrong or missing so far; 1 file can't be had: big$"
OTHER = rf"^vault: whole: {OLD}: they need none of what was found wrong"
RESTORE_OLD = rf"^vault: next: 'vault restore {OLD} \S+"
VERIFY = rf"^vault: next: .*'vault verify {NEW}' names"
AGAIN = r"^vault: next: 'vault snapshot' of data stores again what is wrong"
DAMAGED = (BIG, OTHER, RESTORE_OLD, VERIFY, AGAIN)
FAILED = r"^vault: error: verification failed: 1 of \d+ objects wrong or missing, "

FAULTS: dict[str, Fault] = {
    # --- restore: something stored is wrong ---
    "a bit of a data pack": Fault(
        _damage("data", flip),
        Scene.replace,
        4,
        (r"error: packs/\S+ has the wrong bytes", UNTOUCHED, *DAMAGED),
    ),
    "a data pack cut short": Fault(
        _damage("data", cut), Scene.replace, 4, (r"error: .*packs/", UNTOUCHED, *DAMAGED)
    ),
    "a data pack of other bytes": Fault(
        _damage("data", junk), Scene.replace, 4, (r"error: .*packs/", UNTOUCHED, *DAMAGED)
    ),
    "a data pack gone": Fault(
        _damage("data", Path.unlink),
        Scene.replace,
        4,
        (
            r"error: 1 of \d+ objects that snapshot 3 needs are missing",
            UNTOUCHED,
            OTHER,
            RESTORE_OLD,
        ),
    ),
    "a bit of a data pack, nothing there before": Fault(
        _damage("data", flip), Scene.make, 4, (r"error: packs/", NOT_MADE, *DAMAGED)
    ),
    "a bit of a tree pack": Fault(
        _damage("tree", flip),
        Scene.replace,
        4,
        (r"error: ", UNTOUCHED, r"hit: 1 pack", OTHER, RESTORE_OLD),
    ),
    "a tree pack gone": Fault(
        _damage("tree", Path.unlink),
        Scene.replace,
        4,
        (r"error: ", UNTOUCHED, r"hit: 1 pack", OTHER, RESTORE_OLD),
    ),
    "a pack that both snapshots need": Fault(
        _damage("shared", flip),
        Scene.replace,
        4,
        (
            r"error: packs/",
            UNTOUCHED,
            r"hit: 1 pack",
            r"whole: no other snapshot of the dataset",
            AGAIN,
        ),
    ),
    "the old snapshot is hit": Fault(
        lambda scene: flip(next(iter(scene.packs(OLD) - scene.packs(NEW)))),
        lambda scene: scene.replace(OLD),
        4,
        (
            r"error: ",
            UNTOUCHED,
            r"hit: 1 pack",
            rf"whole: {NEW}: ",
            rf"next: 'vault restore {NEW} ",
        ),
    ),
    "an inventory gone": Fault(
        lambda scene: scene.inventory(NEW).unlink(),
        Scene.replace,
        4,
        (
            r"error: inventory/\S+ is missing",
            UNTOUCHED,
            r"^vault: hit: every file: nothing can be read without inventory/",
            OTHER,
            RESTORE_OLD,
            r"next: 'vault heal'",
            AGAIN,
        ),
    ),
    "an inventory of other bytes": Fault(
        lambda scene: flip(scene.inventory(NEW)),
        Scene.replace,
        4,
        (
            r"error: inventory/\S+ has the wrong bytes",
            UNTOUCHED,
            r"^vault: hit: every file: nothing can be read without inventory/",
            OTHER,
            RESTORE_OLD,
            AGAIN,
        ),
    ),
    "the keys of the domain": Fault(
        lambda scene: flip(next(scene.store.glob("domains/*/*"))),
        Scene.replace,
        4,
        (
            r"error: domains/\S+ has the wrong bytes",
            UNTOUCHED,
            r"^vault: hit: every file: nothing can be read without domains/",
            r"^vault: whole: no other snapshot of the dataset",
            r"^vault: next: no snapshot stores the keys of a domain again",
        ),
    ),
    "a selection that needs a damaged pack": Fault(
        _damage("data", flip),
        lambda scene: scene.make("--include", "big"),
        4,
        (r"error: packs/", NOT_MADE, BIG, OTHER),
    ),
    "a damaged pack, planned only": Fault(
        _damage("data", Path.unlink),
        lambda scene: scene.make("--dry-run"),
        4,
        (r"error: .*missing", NOT_MADE),
    ),
    # --- restore: it was asked for what can't be ---
    "a target that is not empty": Fault(
        _nothing,
        lambda scene: ("restore", NEW, scene.live),
        2,
        (r"error: .*not empty", UNTOUCHED, r"hint: .*--replace"),
    ),
    "a selection into a target that is not empty": Fault(
        _nothing,
        lambda scene: (*scene.replace(), "--include", "readme"),
        2,
        (r"error: --include restores only into a missing or empty target", UNTOUCHED),
    ),
    "a selection of nothing": Fault(
        _nothing,
        lambda scene: scene.make("--include", "no-such-file"),
        2,
        (r"error: nothing in snapshot 3 matches", NOT_MADE, r"hint: 'vault ls'"),
    ),
    "a target that is a link": Fault(
        lambda scene: scene.fresh.symlink_to(scene.live),
        Scene.make,
        2,
        (r"error: .*link", r"target: "),
    ),
    "a target that is a file": Fault(
        lambda scene: scene.fresh.write_text("a file"),
        Scene.make,
        2,
        (r"error: ", r"target: \S+/fresh is untouched"),
    ),
    "a target without a directory around it": Fault(
        _nothing,
        lambda scene: ("restore", NEW, scene.home / "no/such/place"),
        2,
        (r"error: ", r"target: \S+/place was not made"),
    ),
    "the root directory": Fault(
        _nothing,
        lambda _: ("restore", NEW, "/", "--replace"),
        2,
        (r"error: ", r"target: / is untouched"),
    ),
    "the key files": Fault(
        _nothing,
        lambda scene: ("restore", NEW, scene.home / "config", "--replace"),
        2,
        (r"error: ", r"target: \S+/config is untouched"),
    ),
    "the repository itself": Fault(
        _nothing,
        lambda scene: ("restore", NEW, scene.store, "--replace"),
        2,
        (r"error: ", r"target: \S+/repository is untouched"),
    ),
    # --- restore: before anything of it begins ---
    "no such snapshot": Fault(_nothing, lambda s: ("restore", 99, s.live), 2, (r"error: .*99",)),
    "a number that is no snapshot": Fault(
        _nothing, lambda scene: ("restore", 1, scene.live), 2, (r"error: .*\b1\b",)
    ),
    "no such dataset": Fault(
        _nothing, lambda scene: ("restore", "mail", scene.live), 2, (r"error: .*mail",)
    ),
    "no recovery key": Fault(
        lambda scene: (scene.home / "config/vault/recovery.key").unlink(),
        Scene.replace,
        12,
        (r"error: .*recovery.key",),
    ),
    "a wrong passphrase": Fault(
        lambda scene: (scene.home / "passphrase").write_text("something else entirely\n"),
        Scene.replace,
        12,
        (r"error: .*passphrase",),
    ),
    "no repository there": Fault(
        lambda scene: scene.store.rename(scene.home / "elsewhere"),
        Scene.replace,
        10,
        (r"error: no repository at", r"hint: "),
    ),
    "an older history": Fault(
        lambda scene: max(scene.store.glob("ledger/*")).unlink(),
        Scene.replace,
        4,
        (r"error: the store shows an older history", r"hint: .*--accept-head"),
    ),
    "a hole in the ledger": Fault(
        lambda scene: sorted(scene.store.glob("ledger/*"))[OLD].unlink(),
        Scene.replace,
        4,
        (r"error: ",),
    ),
    # --- restore: taken back or finished where there is nothing ---
    "nothing to take back": Fault(
        _nothing, lambda scene: ("restore", "--undo", scene.live), 2, (r"error: ",)
    ),
    "nothing to finish": Fault(
        _nothing, lambda scene: ("restore", "--finalize", scene.live), 2, (r"error: ",)
    ),
    # --- verify ---
    "verify: a bit of a data pack": Fault(
        _damage("data", flip),
        lambda _: ("verify",),
        4,
        (
            FAILED,
            rf"hit: snapshot {NEW} of data: 1 file can't be had: big",
            rf"whole: {OLD}$",
            r"hint: 'vault snapshot' of data",
            rf"hint: 'vault restore {OLD} TARGET'",
        ),
    ),
    "verify: a data pack gone": Fault(
        _damage("data", Path.unlink),
        lambda _: ("verify",),
        4,
        (
            FAILED,
            rf"hit: snapshot {NEW}",
            rf"whole: {OLD}$",
            r"hint: 'vault heal'",
            r"hint: 'vault restore",
        ),
    ),
    "verify: a tree pack cut short": Fault(
        _damage("tree", cut),
        lambda _: ("verify",),
        4,
        (FAILED, rf"hit: snapshot {NEW}", rf"whole: {OLD}$"),
    ),
    "verify: without the key": Fault(
        _damage("data", flip),
        lambda _: ("verify", "--no-key"),
        4,
        (
            FAILED,
            rf"hit: snapshot {NEW}",
            rf"whole: {OLD}",
            r"hint: .*recovery.key is names the files",
        ),
    ),
    "verify: both snapshots are hit": Fault(
        _damage("shared", flip),
        lambda _: ("verify",),
        4,
        (FAILED, rf"hit: snapshot {OLD}", rf"hit: snapshot {NEW}", r"whole: none"),
    ),
    "verify: an inventory gone": Fault(
        lambda scene: scene.inventory(NEW).unlink(),
        lambda _: ("verify",),
        4,
        (r"error: verification failed", rf"hit: snapshot {NEW}", rf"whole: {OLD}$"),
    ),
    "verify: the keys of the domain": Fault(
        lambda scene: next(scene.store.glob("domains/*/*")).unlink(),
        lambda _: ("verify",),
        4,
        (
            r"error: verification failed",
            rf"hit: snapshot {OLD}",
            rf"hit: snapshot {NEW}",
            r"whole: none$",
            r"hint: no snapshot stores the keys of a domain again",
            r"hint: 'vault heal'",
        ),
    ),
    "snapshot: the keys of the domain gone": Fault(
        lambda scene: next(scene.store.glob("domains/*/*")).unlink(),
        lambda scene: ("snapshot", scene.source, "--name", "data"),
        4,
        (
            r"error: domains/",
            r"hint: no snapshot stores the keys of a domain again.*'vault heal'",
        ),
    ),
    "snapshot: the keys of the domain wrong": Fault(
        lambda scene: flip(next(scene.store.glob("domains/*/*"))),
        lambda scene: ("snapshot", scene.source, "--name", "data"),
        4,
        (
            r"error: domains/",
            r"hint: no snapshot stores the keys of a domain again",
        ),
    ),
    "ls: the keys of the domain gone": Fault(
        lambda scene: next(scene.store.glob("domains/*/*")).unlink(),
        lambda _: ("ls", NEW),
        4,
        (
            r"error: domains/",
            r"hint: no snapshot stores the keys of a domain again.*'vault heal'",
        ),
    ),
    "ls: the keys of the domain wrong": Fault(
        lambda scene: flip(next(scene.store.glob("domains/*/*"))),
        lambda _: ("ls", NEW),
        4,
        (
            r"error: domains/",
            r"hint: no snapshot stores the keys of a domain again",
        ),
    ),
    "verify: a wrong passphrase": Fault(
        lambda scene: (scene.home / "passphrase").write_text("something else entirely\n"),
        lambda _: ("verify",),
        12,
        (r"error: .*passphrase",),
    ),
    "verify: no such dataset": Fault(
        _nothing, lambda _: ("verify", "mail"), 2, (r"error: .*mail",)
    ),
}


@pytest.fixture
def scene(vault: Vault, home: Path, source: Path, repository: Path) -> Scene:
    """Before anything goes wrong."""
    return Scene(vault, home, source, repository)


def require_in_order(text: str, facts: tuple[str, ...]) -> None:
    """Each fact stands behind the one before it."""
    at = 0
    for fact in facts:
        found = re.compile(fact, re.MULTILINE).search(text, at)
        assert found, f"{fact!r} is not said, or too early, in:\n{text}"
        at = found.end()


def test_the_table_has_forty_faults() -> None:
    """A row that is taken out is missed."""
    assert len(FAULTS) >= 40


@pytest.mark.parametrize("name", FAULTS)
def test_the_facts_are_said_in_the_order_in_which_they_are_needed(scene: Scene, name: str) -> None:
    """And what is said of TARGET is so."""
    fault = FAULTS[name]
    fault.do(scene)
    before = scene.look() if not scene.fresh.exists() else None
    code, _, err = scene.vault(*fault.run(scene))
    assert code == fault.code, err
    require_in_order(err, fault.facts)
    assert "Traceback" not in err
    if before is not None:
        assert scene.look() == before
    assert not list(scene.home.glob(".*.vault-*"))


@pytest.mark.parametrize("command", ["restore", "verify"])
def test_the_same_commands_say_nothing_of_the_kind_when_all_is_well(
    scene: Scene, command: str
) -> None:
    """The control: no error, nothing hit, and the target is new."""
    code, _, err = scene.vault(*(scene.replace() if command == "restore" else ("verify",)))
    assert code == 0, err
    assert not re.search(r"^vault: (error|target|hit|whole|next|hint)", err, re.MULTILINE)
    if command == "restore":
        assert (scene.live / "big").read_bytes() == (scene.source / "big").read_bytes()


def test_programs_get_the_same_facts(scene: Scene) -> None:
    """As lines of `notes`, in the same order."""
    flip(scene.data)
    _, out, _ = scene.vault("--json", *scene.replace())
    assert re.search(r'"notes": \["target: [^"]*untouched[^"]*", "hit: [^"]*", "whole: ', out)


# --- stopped by a signal ---


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("background", [False, True])
def test_a_restore_that_is_stopped_says_so_at_once_and_what_stays(
    scene: Scene,
    process: Callable[..., "subprocess.Popen[str]"],
    number: signal.Signals,
    background: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    """What it was doing, then that TARGET is untouched; in the background of a script, too."""

    def ignore() -> None:
        for each in (signal.SIGINT, signal.SIGQUIT):
            signal.signal(each, signal.SIG_IGN if background else signal.SIG_DFL)

    many = scene.source / "many"
    for folder in range(60):
        (many / str(folder)).mkdir(parents=True)
        for file in range(60):
            (many / str(folder) / str(file)).write_bytes(b"%d %d" % (folder, file) * 40)
    scene.snapshot()
    running = process("restore", "data", scene.live, "--replace", preexec_fn=ignore)
    while running.poll() is None:
        staged = next(scene.home.glob(".live.vault-*/tree/many"), None)
        if staged is not None:
            break
        time.sleep(0.002)  # what is waited for is another process's directory
    running.send_signal(number)
    _, err = running.communicate()
    if running.returncode == 0:
        pytest.fail("the restore was over before it could be stopped")
    word = "interrupted" if number is signal.SIGINT else "terminated"
    assert running.returncode == (130 if number is signal.SIGINT else 143)
    require_in_order(
        err, (rf"^vault: {word} while restoring, [\d,]+ of ", rf"error: {word}", UNTOUCHED)
    )
    assert scene.look() == scene.before
    assert not list(scene.home.glob(".live.vault-*"))


def test_signals_that_were_to_be_ignored_are(
    scene: Scene, process: Callable[..., "subprocess.Popen[str]"]
) -> None:
    """``trap '' INT`` in a script means what it says."""

    def ignore() -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGQUIT, signal.SIG_DFL)

    running = process(*scene.replace(), preexec_fn=ignore)
    running.send_signal(signal.SIGINT)
    _, err = running.communicate()
    assert running.returncode == 0, err
    assert shutil.which("vault") is None or "interrupted" not in err
