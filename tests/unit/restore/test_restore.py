"""The restore as a whole: what it says, what it leaves, what it records."""

# ruff: noqa: PLR0917 - parameters of tests are named by pytest

import contextlib
import dataclasses
import errno
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cli.commands.restore import restore_exit
from tests.support.children import as_nobody, needs_root
from tests.support.filesystems import NoExchange
from tests.support.lab import Lab, MakeRepository
from vault.errors import (
    ConfigError,
    DigestMismatchError,
    IntegrityError,
    LocalError,
    StorageError,
    StorageUnavailableError,
)
from vault.format import tree_file
from vault.format.entry import Entry, replace_entry
from vault.format.entry_encoding import encode_canonical
from vault.ledger.records import Record
from vault.ledger.statements import Verdict
from vault.machine.workers import make_workers
from vault.model import EntryType, LockMode
from vault.patterns import matcher
from vault.repository import attestations
from vault.restore import (
    Course,
    ProofFailedError,
    RestoreOutcome,
    RestoreReport,
    RestoreRequest,
    restore_snapshot,
    undo_restore,
)
from vault.restore.prove import ProofReport, prove
from vault.restore.syscalls import Fs
from vault.restore.undo_finalize import unfinished
from vault.storage.memory import FaultPoint

pytestmark = pytest.mark.usefixtures("no_syncfs")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Directories, files of one and several chunks, links of both kinds."""
    top = tmp_path / "source"
    (top / "a/deep").mkdir(parents=True)
    (top / "b").mkdir()
    (top / "a/deep/large").write_bytes(os.urandom(30_000))
    (top / "a/one").write_bytes(b"one")
    (top / "b/hard").hardlink_to(top / "a/one")
    (top / "b/hard2").hardlink_to(top / "a/one")
    (top / "b/link").symlink_to("../a/one")
    (top / "b/empty").touch()
    (top / "b/large-too").hardlink_to(top / "a/deep/large")
    return top


@pytest.fixture
def lab(make_repository: MakeRepository) -> Lab:
    """An empty repository."""
    return make_repository(LockMode.GOVERNANCE)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """Missing, in a room of its own."""
    room = tmp_path / "room"
    room.mkdir()
    return room / "target"


def run(
    lab: Lab, record: Record, target: Path, *, workers: int = 0, **options: Any
) -> RestoreReport:
    """A restore; without threads unless asked for."""
    with make_workers(workers) as executors:
        return lab.restore(record, target, workers=executors, **options)


def look(top: Path) -> dict[str, object]:
    """Paths with content or link target; names of one inode share a list."""
    inodes: dict[int, list[str]] = {}
    found: dict[str, object] = {}
    for path in sorted(top.rglob("*")):
        name = str(path.relative_to(top))
        if path.is_symlink():
            found[name] = path.readlink()
        elif path.is_file():
            same = inodes.setdefault(path.stat().st_ino, [])
            same.append(name)
            found[name] = (path.read_bytes(), same)
        else:
            found[name] = None
    return found


def beside(target: Path) -> list[str]:
    """Names in TARGET's room, but for TARGET."""
    return sorted(path.name for path in target.parent.iterdir() if path != target)


# --- what is damaged ---


@pytest.mark.parametrize("is_readable", [True, False])
def test_a_snapshot_that_may_need_what_is_wrong_is_not_called_whole(
    lab: Lab, source: Path, target: Path, *, is_readable: bool
) -> None:
    """Of one whose inventory is gone that can't be known; the others are still named."""
    extra = source / "c"
    extra.write_bytes(os.urandom(200_000))
    record = lab.snapshot(source).record
    extra.unlink()
    older = lab.snapshot(source).record
    (source / "d").write_bytes(b"another")
    newer = lab.snapshot(source).record
    repository = lab.open()
    alone = {ref.name: ref for ref in repository.inventory(record).objects}
    for ref in repository.inventory(newer).objects:
        alone.pop(ref.name, None)
    damaged = max(alone.values(), key=lambda ref: ref.size)
    lab.store.corrupt(damaged.name, damaged.version, bytes(damaged.size))
    if not is_readable:
        inventory = repository.inventory_ref(newer)
        lab.store.remove(inventory.name, inventory.version)
    course = Course()
    with pytest.raises(IntegrityError):
        run(lab, record, target, course=course)
    assert course.packs == (damaged.name,)
    assert course.others == ((newer.seq, older.seq) if is_readable else (older.seq,))


# --- what is said ---


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("former", ["missing", "empty"])
def test_recovered(
    lab: Lab, record: Record, source: Path, target: Path, former: str, workers: int
) -> None:
    """Proven, attested, and nothing is left beside it, as nothing was there to keep."""
    if former == "empty":
        target.mkdir()
    report = run(lab, record, target, workers=workers)
    assert report.outcome is RestoreOutcome.RECOVERED
    assert (report.atomic, report.former, report.left_out) == (True, False, {})
    assert look(target) == look(source)
    assert beside(target) == []
    assert lab.verdicts() == ["passed"]


def test_not_proven_is_never_called_recovered(lab: Lab, record: Record, target: Path) -> None:
    """Without the proof it says so, also on record."""
    report = run(lab, record, target, verify=False)
    assert report.outcome is RestoreOutcome.UNPROVEN
    assert report.outcome.value == "restored, not proven"
    assert report.proof is None
    assert lab.verdicts() == ["partial"]
    ledger = lab.open().ledger
    assert attestations.open_attestation(report.attestation, ledger).details["proof"] == "none"


def test_a_bit_that_the_disk_gets_wrong(lab: Lab, record: Record, target: Path) -> None:
    """What was written right and reads back wrong is no recovery; TARGET is never made."""

    class Rotten(Fs):
        """Changes a byte after the file was closed: nobody but a re-read can know."""

        def pwrite(self, fd: int, data: bytes | memoryview, offset: int) -> int:
            """Write something else."""
            if bytes(data) == b"one":
                data = b"0ne"
            return super().pwrite(fd, data, offset)

    with pytest.raises(ProofFailedError) as caught:
        run(lab, record, target, fs=Rotten())
    assert caught.value.proof.mismatches[0].path == b"a/one"
    assert not target.exists()
    assert beside(target) == []
    assert lab.verdicts() == ["failed"]


def test_the_verdict_of_the_proof_decides(
    lab: Lab, record: Record, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failed proof promotes nothing, a partial one is not called recovered."""
    real = prove
    verdict = Verdict.FAILED

    def judged(*arguments: Any, **options: Any) -> ProofReport:
        return dataclasses.replace(real(*arguments, **options), verdict=verdict)

    monkeypatch.setattr("vault.restore.restore_attempt.prove", judged)
    with pytest.raises(ProofFailedError):
        run(lab, record, target)
    assert not target.exists()
    verdict = Verdict.PARTIAL
    assert run(lab, record, target).outcome is RestoreOutcome.PARTIAL
    assert lab.verdicts() == ["failed", "partial"]


def test_nothing_is_promoted_before_it_was_read_back(
    lab: Lab, record: Record, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the proof begins TARGET is not there; the attestation holds what it read."""
    seen: list[bool] = []
    real = prove

    def watched(*arguments: Any, **options: Any) -> ProofReport:
        seen.append(target.exists())
        return real(*arguments, **options)

    monkeypatch.setattr("vault.restore.restore_attempt.prove", watched)
    report = run(lab, record, target)
    assert seen == [False]
    details = attestations.open_attestation(report.attestation, lab.open().ledger).details
    assert details["bytes_read_back"] == 30_003
    assert details["root_matches"] is True


def _rewrite(tree: Path) -> None:
    (tree / "a/one").write_bytes(b"two")


def _chmod(tree: Path) -> None:
    (tree / "a/deep").chmod(0o700)


def _add(tree: Path) -> None:
    (tree / "b/more").touch()


def _remove(tree: Path) -> None:
    (tree / "b/link").unlink()


@pytest.mark.parametrize("change", [_rewrite, _chmod, _add, _remove])
def test_what_changes_between_the_proof_and_the_exchange_is_not_exchanged(
    lab: Lab,
    record: Record,
    target: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[Path], None],
) -> None:
    """A last look at every entry: another program of this user got in behind the reading."""
    real = prove

    def watched(*arguments: Any, **options: Any) -> ProofReport:
        report = real(*arguments, **options)
        (staged,) = target.parent.rglob("a/one")
        change(staged.parents[1])
        return report

    monkeypatch.setattr("vault.restore.restore_attempt.prove", watched)
    with pytest.raises(LocalError, match="changed after it was read back"):
        run(lab, record, target)
    assert not target.exists()
    assert "passed" not in lab.verdicts()


def test_the_disk_is_compared_with_the_signed_root(
    lab: Lab, record: Record, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tree that was changed after it was verified agrees with the disk, not with the manifest."""

    def changed(frame: bytes) -> tuple[Entry, bytes]:
        entry, canonical = decode(frame)
        assert entry is not None
        if b"a/one" not in {entry.path, entry.link} or entry.type is EntryType.SYMLINK:
            return entry, canonical
        entry = replace_entry(entry, mode=0o4777)
        return entry, encode_canonical(entry)

    decode = tree_file._decode
    monkeypatch.setattr(tree_file, "_decode", changed)
    with pytest.raises(ProofFailedError) as caught:
        run(lab, record, target)
    assert not caught.value.proof.root_matches
    assert caught.value.proof.mismatch_count == 0
    assert not target.exists()


def test_dry_run_makes_nothing(lab: Lab, record: Record, target: Path) -> None:
    """Not even a statement."""
    before = list(lab.store.versions(""))
    report = run(lab, record, target, dry_run=True)
    assert (report.outcome, report.files, report.size) == (RestoreOutcome.PLANNED, 2, 30_003)
    assert not target.exists()
    assert beside(target) == []
    assert list(lab.store.versions("")) == before


# --- what was there ---


def test_full_target_needs_replace(lab: Lab, record: Record, target: Path) -> None:
    """Exit 2, and nothing is recorded: nothing was tried."""
    target.mkdir()
    (target / "mine").write_text("mine")
    with pytest.raises(ConfigError, match="not empty"):
        run(lab, record, target)
    assert look(target) == {"mine": (b"mine", ["mine"])}
    assert lab.verdicts() == []


@pytest.mark.parametrize("fs", [Fs(), NoExchange(errno.EINVAL)], ids=["exchange", "renames"])
def test_replace_undo_finalize(
    lab: Lab, record: Record, source: Path, target: Path, fs: Fs
) -> None:
    """The former state is kept, comes back, goes again, and is removed at last."""
    target.mkdir()
    (target / "mine").write_text("mine")
    former = look(target)
    report = run(lab, record, target, fs=fs, replace=True)
    assert (report.outcome, report.former) == (RestoreOutcome.RECOVERED, True)
    assert report.atomic is not isinstance(fs, NoExchange)
    assert look(target) == look(source)
    with pytest.raises(ConfigError, match="not finished"):
        run(lab, record, target, replace=True)
    assert undo_restore(target, state=lab.host.state).journal is not None
    assert look(target) == former
    lab.finalize(target)
    assert look(target) == look(source)
    assert beside(target) == []
    assert lab.verdicts() == ["passed", "passed"]


def test_changed_while_it_waited(lab: Lab, record: Record, target: Path) -> None:
    """What was proven is proven again before it is promoted after an undo."""
    target.mkdir()
    (target / "mine").write_text("mine")
    run(lab, record, target, replace=True)
    undo_restore(target, state=lab.host.state)
    (staged,) = [p for p in target.parent.glob(".target.vault-*") if p.is_dir()]
    (staged / "tree/a/one").write_bytes(b"0ne")
    with pytest.raises(DigestMismatchError):
        lab.finalize(target)
    assert (target / "mine").read_text() == "mine"


def test_finalize_needs_the_snapshot_it_was(
    lab: Lab, record: Record, source: Path, target: Path, make_repository: MakeRepository
) -> None:
    """The journal of another repository attests nothing here; a lost head is told."""
    target.mkdir()
    (target / "mine").write_text("mine")
    run(lab, record, target, replace=True)
    undo_restore(target, state=lab.host.state)
    other = make_repository(name="other")
    with pytest.raises(ConfigError, match="another repository"):
        other.with_host(lab.host).finalize(target)
    lab.store.remove(f"ledger/{record.seq:016d}", record.version)
    for seq in range(record.seq + 1, record.seq + 2):
        name = f"ledger/{seq:016d}"
        for version in list(lab.store.versions(name)):
            lab.store.remove(name, version.version)
    with pytest.raises(DigestMismatchError, match="not the snapshot"):
        lab.finalize(target)
    assert lab.snapshot(source).record.seq == record.seq
    with pytest.raises(DigestMismatchError, match="not the snapshot"):
        lab.finalize(target)


@needs_root
def test_empty_mount_point(lab: Lab, record: Record, source: Path, mounted: Path) -> None:
    """Staged inside it, promoted member by member, and called not atomic."""
    report = run(lab, record, mounted)
    assert (report.outcome, report.atomic) == (RestoreOutcome.RECOVERED, False)
    assert look(mounted) == look(source)
    assert mounted.stat().st_mtime_ns == source.stat().st_mtime_ns
    assert beside(mounted) == []


class NoNote(Fs):
    """A directory around TARGET in which nothing more can be made."""

    def create(self, directory: int, name: bytes) -> int:
        """Full, for a note."""
        if name.endswith(b".note"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().create(directory, name)


def test_a_restore_without_its_note_makes_nothing(lab: Lab, record: Record, target: Path) -> None:
    """What is beside TARGET would be unexplained where the journal is lost."""
    with pytest.raises(LocalError, match="leave a note"):
        run(lab, record, target, fs=NoNote())
    assert list(target.parent.iterdir()) == []


@needs_root
def test_a_mount_point_needs_no_note(lab: Lab, record: Record, source: Path, mounted: Path) -> None:
    """It was empty: there is no former state, and often no right to write around it."""
    assert run(lab, record, mounted, fs=NoNote()).outcome is RestoreOutcome.RECOVERED
    assert look(mounted) == look(source)


@pytest.fixture
def mounted(target: Path) -> Iterator[Path]:
    """An empty file system of its own."""
    target.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", target], check=True)
    yield target
    subprocess.run(["umount", target], check=True)


# --- a part of it ---


def included(*patterns: str) -> dict[str, Any]:
    """As the command line does it."""
    return {"wanted": matcher(patterns)}


def test_include_a_directory(lab: Lab, record: Record, source: Path, target: Path) -> None:
    """With the directories around it and their attributes; attested as partial."""
    report = run(lab, record, target, **included("/a/deep/"))
    assert report.outcome is RestoreOutcome.SELECTION
    assert list(look(target)) == ["a", "a/deep", "a/deep/large"]
    assert (target / "a").stat().st_mtime_ns == (source / "a").stat().st_mtime_ns
    assert report.proof is not None
    assert report.proof.skipped == 7
    assert report.proof.root_matches
    assert lab.verdicts() == ["partial"]


def test_include_a_file_and_a_pattern(lab: Lab, record: Record, target: Path) -> None:
    """By path, and by wildcard."""
    run(lab, record, target, **included("/a/one"))
    assert list(look(target)) == ["a", "a/one"]
    run(lab, record, target.with_name("other"), **included("em*"))
    assert list(look(target.with_name("other"))) == ["b", "b/empty"]


def test_include_hard_links_without_their_file(
    lab: Lab, record: Record, source: Path, target: Path
) -> None:
    """The first one becomes the file, later ones link to it; of any number of chunks."""
    large = (source / "a/deep/large").read_bytes()
    report = run(lab, record, target, **included("/b/"))
    assert report.outcome is RestoreOutcome.SELECTION
    found = look(target)
    assert found["b/hard"] == (b"one", ["b/hard", "b/hard2"])
    assert found["b/large-too"] == (large, ["b/large-too"])
    assert (target / "b/hard").stat().st_nlink == 2


def test_include_that_matches_nothing(lab: Lab, record: Record, target: Path) -> None:
    """An empty TARGET would look like a success."""
    with pytest.raises(ConfigError, match="matches"):
        run(lab, record, target, **included("/typo"))
    assert not target.exists()


def test_include_never_replaces(lab: Lab, record: Record, target: Path) -> None:
    """A part must not stand in for the whole."""
    target.mkdir()
    (target / "mine").write_text("mine")
    with pytest.raises(ConfigError, match="missing or empty"):
        run(lab, record, target, replace=True, **included("/a/"))


# --- who can't do all ---


@needs_root
def test_plain_user(lab: Lab, source: Path, target: Path) -> None:
    """Owners are left out, listed, and make it partial."""
    os.chown(source / "a/one", 12345, 12345)
    record = lab.snapshot(source).record
    target.parent.chmod(0o777)
    lab.base.chmod(0o755)
    lab.base.joinpath("scratch").mkdir(mode=0o777, exist_ok=True)
    lab.base.joinpath("scratch").chmod(0o777)
    for folder in target.parents:
        if folder.owner() == "root" and "pytest" in str(folder):
            folder.chmod(0o755 if folder != target.parent else 0o1777)
    lab.host.state.mkdir(exist_ok=True)
    os.chown(lab.host.state, 65534, 65534)

    def restore() -> None:
        report = run(lab, record, target)
        assert report.outcome is RestoreOutcome.WITHOUT_OWNERS
        assert report.left_out.keys() == {"owner"}
        details = attestations.open_attestation(report.attestation, lab.open().ledger).details
        assert details["left_out"] == report.left_out
        assert (target / "a/one").read_bytes() == b"one"

    as_nobody(restore)
    target.rename(target.with_name("first"))
    os.chown(lab.base, 65534, 65534)

    def replace_and_finalize() -> None:
        target.mkdir()
        (target / "mine").write_text("mine")
        assert run(lab, record, target, replace=True).outcome is RestoreOutcome.WITHOUT_OWNERS
        assert lab.finalize(target, again=True).verdict == "partial"

    as_nobody(replace_and_finalize)


def test_read_only_store(lab: Lab, record: Record, source: Path, target: Path) -> None:
    """The attestation is kept by this user, signed, and can be recorded later."""

    def refuse(point: FaultPoint) -> None:
        if point.operation in {"put", "extend"}:
            raise StorageError("read-only")

    lab.store.fault = refuse
    report = run(lab, record, target)
    assert report.outcome is RestoreOutcome.RECOVERED
    assert report.statement is None
    assert report.attestation_file is not None
    assert look(target) == look(source)
    assert beside(target) == []
    assert report.attestation_file.parent == lab.host.state / "attestations"
    lab.store.fault = None
    data = report.attestation_file.read_bytes()
    repository = lab.open()
    assert attestations.is_recorded(repository, data) is None
    statement = attestations.record_attestation(
        repository, data, lab.recovery.restorer, tool="vault test"
    )
    assert attestations.is_recorded(lab.open(), data) == statement
    assert lab.verdicts() == ["passed"]


def test_read_only_store_and_finalize(lab: Lab, record: Record, target: Path) -> None:
    """Going on after an undo leaves a file as well, instead of refusing to go on."""
    target.mkdir()
    (target / "mine").write_text("mine")
    run(lab, record, target, replace=True)
    undo_restore(target, state=lab.host.state)

    def refuse(point: FaultPoint) -> None:
        if point.operation == "put":
            raise StorageUnavailableError("no answer")

    lab.store.fault = refuse
    final = lab.finalize(target)
    assert beside(target) == []
    assert final.attestation_file is not None
    data = final.attestation_file.read_bytes()
    assert attestations.open_attestation(data, lab.open().ledger).verdict == "passed"


# --- failures ---


def test_errors_of_the_system_come_in_the_vaults_words(
    lab: Lab, record: Record, target: Path
) -> None:
    """Also before staging begins: a scratch directory that is not there."""
    with pytest.raises(LocalError), make_workers(0) as workers:
        restore_snapshot(
            lab.open(),
            lab.recovery,
            RestoreRequest(record=record, target=target, tool="t"),
            local=lab.local,
            scratch=lab.base / "nowhere",
            workers=workers,
        )
    assert lab.verdicts() == ["inconclusive"]


def test_threads_end_before_staging_is_removed(lab: Lab, source: Path, target: Path) -> None:
    """A thread that still reads a pack when a write failed is waited for."""
    for number in range(60):
        (source / f"more{number}").write_bytes(os.urandom(9_000))
    record = lab.snapshot(source).record
    caller = threading.current_thread()
    second = threading.Lock()
    reading, failed, removed = threading.Event(), threading.Event(), threading.Event()
    seen: list[bool] = []  # whether staging was removed while a pack was read

    def hold(point: FaultPoint) -> None:
        """The first thread to read a pack is held until staging goes; the others wait for it."""
        is_pack = point.operation == "get" and point.name.startswith("packs/")
        if not is_pack or threading.current_thread() is caller:
            return
        if second.acquire(blocking=False):
            reading.set()
            assert failed.wait(10)
            seen.append(removed.wait(0.3))  # nothing to wait for, unless the restore is wrong
        assert reading.wait(10)

    class Full(Fs):
        """No space for what was read from packs; tells of removals."""

        def pwrite(self, fd: int, data: bytes | memoryview, offset: int) -> int:
            """Say so; the journal was written before."""
            if not reading.is_set():
                return super().pwrite(fd, data, offset)
            failed.set()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        def rmdir(self, directory: int, name: bytes) -> None:
            """Tell of it, if it comes after the failure."""
            if failed.is_set():
                removed.set()
            super().rmdir(directory, name)

    lab.store.fault = hold
    with pytest.raises(LocalError, match="write"):
        run(lab, record, target, fs=Full(), workers=4)
    assert removed.is_set()
    assert seen == [False]
    assert beside(target) == []


def test_no_descriptor_is_left_open(lab: Lab, record: Record, target: Path) -> None:
    """Neither by success nor by a failure in the middle."""

    class Full(Fs):
        """No space for content."""

        def pwrite(self, fd: int, data: bytes | memoryview, offset: int) -> int:
            """Say so."""
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    run(lab, record, target)
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - names are enough
    with pytest.raises(LocalError):
        run(lab, record, target.with_name("other"), fs=Full())
    run(lab, record, target.with_name("third"))
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208 - names are enough


def _open_files() -> Iterator[str]:
    """Names of what this process has open; another thread may close some meanwhile."""
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            yield descriptor.readlink().name


def test_every_staged_file_is_closed(
    lab: Lab, source: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the descriptors of a machine would not last for the files of a snapshot."""
    for number in range(80):
        (source / f"many{number}").write_bytes(b"%d" % number)
    record = lab.snapshot(source).record
    most = 0
    create = Fs.create

    def counted(fs: Fs, directory: int, name: bytes) -> int:
        nonlocal most
        fd = create(fs, directory, name)
        most = max(most, sum(name.startswith("many") for name in _open_files()))
        return fd

    monkeypatch.setattr(Fs, "create", counted)
    run(lab, record, target)
    assert look(target) == look(source)
    assert 0 < most < 60


@pytest.mark.parametrize(("lacks", "missing"), [("symlink", "symlinks"), ("link", "hard links")])
def test_a_file_system_that_cannot_hold_the_tree_is_refused(
    lab: Lab, record: Record, source: Path, target: Path, lacks: str, missing: str
) -> None:
    """Before anything is staged; a tree without such things is restored there."""

    class Poor(Fs):
        """Lacks one thing, and counts what is made beside what tries that out."""

        files: int = 0

        def create(self, directory: int, name: bytes) -> int:
            """Count."""
            self.files += name in {b"large", b"one"}
            return super().create(directory, name)

    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    poor = Poor()
    setattr(poor, lacks, refuse)
    with pytest.raises(ConfigError, match="can't hold this snapshot") as caught:
        run(lab, record, target, fs=poor)
    assert caught.value.expected == missing
    assert poor.files == 0
    assert not target.exists()
    assert beside(target) == []
    assert lab.verdicts() == []
    for path in (source / "b").iterdir():
        path.unlink()
    plain = lab.snapshot(source).record
    assert run(lab, plain, target, fs=poor).outcome is RestoreOutcome.RECOVERED


def test_a_disk_without_room_for_the_content_is_refused(
    lab: Lab, source: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything is made; holes and second names of a file take none."""
    (source / "content").write_bytes(os.urandom(1 << 20))
    (source / "again").hardlink_to(source / "content")
    with (source / "holes").open("wb") as file:
        file.truncate(1 << 30)
    record = lab.snapshot(source).record
    block = 4096

    def room(size: int) -> None:
        free = os.statvfs_result((block, block, 0, 0, size // block, 0, 0, 0, 0, 255))
        monkeypatch.setattr(os, "statvfs", lambda _: free)

    room(1 << 20)  # enough for the largest file, not for the others and the directories
    with pytest.raises(LocalError, match="not enough space"):
        run(lab, record, target)
    assert not target.exists()
    assert beside(target) == []
    room((1 << 20) + 30_000 + 12 * block)
    assert run(lab, record, target).outcome is RestoreOutcome.RECOVERED


def test_an_attestation_that_can_be_kept_nowhere_is_told(
    lab: Lab, record: Record, target: Path
) -> None:
    """TARGET is the new state; that it is not on record is said, and finalize makes up for it."""

    def refuse(point: FaultPoint) -> None:
        if point.operation == "put":
            raise StorageUnavailableError("no answer")

    in_the_way = lab.host.state / "attestations"
    in_the_way.write_text("no directory")
    target.mkdir()
    (target / "mine").write_text("mine")
    lab.store.fault = refuse
    report = run(lab, record, target, replace=True)
    assert (report.statement, report.attestation_file) == (None, None)
    assert [type(trouble) for trouble in report.troubles] == [LocalError]
    assert restore_exit(report) == 14
    journal = unfinished(target, state=lab.host.state)
    assert journal is not None
    assert journal.state == "exchanged"
    lab.store.fault = None
    lab.finalize(target)
    assert lab.verdicts() == ["passed"]


def test_failure_after_the_exchange_is_not_called_a_failed_restore(
    lab: Lab, record: Record, source: Path, target: Path
) -> None:
    """TARGET is the new state and its attestation says passed; finalize ends what is left."""

    class Late(Fs):
        """The journal can't be replaced once the exchange was recorded."""

        def rename(self, source: int, old: bytes, directory: int, new: bytes) -> None:
            """Fail for the state after."""
            if lab.verdicts():
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            super().rename(source, old, directory, new)

    target.mkdir()
    (target / "mine").write_text("mine")
    report = run(lab, record, target, fs=Late(), replace=True)
    assert [type(trouble) for trouble in report.troubles] == [LocalError]
    assert restore_exit(report) == 14
    assert look(target) == look(source)
    assert lab.verdicts() == ["passed"]
    assert unfinished(target, state=lab.host.state) is not None
    lab.finalize(target)
    assert lab.verdicts() == ["passed"]
    assert beside(target) == []
