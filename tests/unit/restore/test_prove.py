"""The proof reads the disk, and names whatever is not as signed."""

# ruff: noqa: PLR0917, PTH208 - fixtures are arguments; /proc is listed by name

import errno
import os
import stat
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TypeAlias

import pytest

from tests.support.children import needs_root
from vault.errors import LocalError
from vault.format.entry import Entry
from vault.format.entry_encoding import encode_canonical
from vault.ledger.statements import Verdict
from vault.machine.workers import InlineExecutor
from vault.model import EntryType
from vault.progress import NO_PROGRESS
from vault.restore import read_back as disk_module
from vault.restore.prove import ProofReport, prove, read_back
from vault.restore.read_back import Disk, Evidence
from vault.restore.stage import Staging
from vault.restore.syscalls import Fs

OpenStaging: TypeAlias = Callable[..., AbstractContextManager[Staging]]

Expected = list[tuple[Entry | None, bytes]]
Prove = Callable[..., ProofReport]


@pytest.fixture(autouse=True)
def no_waits() -> None:
    """What is read must be on the disk: pages that wait for it can't be evicted."""


@pytest.fixture(params=["inline", "threads"])
def executor(request: pytest.FixtureRequest) -> Iterator[Executor]:
    """Both kinds."""
    if request.param == "inline":
        yield InlineExecutor()
        return
    with ThreadPoolExecutor(3) as pool:
        yield pool


@pytest.fixture(params=[0, 2], ids=["alone", "with helpers"])
def processes(request: pytest.FixtureRequest) -> int:
    """That read small files beside this one."""
    return int(request.param)


@pytest.fixture
def run_proof(
    staging: Staging, expected: Expected, root_digest: bytes, executor: Executor, processes: int
) -> Prove:
    """Proves the staging directory against the expected tree."""

    def run(expected: Expected = expected, **options: object) -> ProofReport:
        arguments = {
            "check_root": lambda root: root == root_digest,
            "executor": executor,
            "fs": Fs(),
            "processes": processes,
        } | options
        return prove(staging.fd, iter(expected), **arguments)  # type: ignore[arg-type]

    return run


@needs_root
def test_a_right_tree_passes(
    staging: Staging, stage_tree: Callable[[int], dict[str, int]], run_proof: Prove,
    root_digest: bytes, entries: list[Entry],
) -> None:  # fmt: skip
    """All types, attributes, hard links across directories: root recomputed from disk."""
    assert stage_tree(staging.fd) == {}
    report = run_proof()
    assert report.mismatches == ()
    assert report.verdict is Verdict.PASSED
    assert report.disk_root == report.expected_root == root_digest
    assert report.entries == len(entries)
    assert report.files == sum(entry.type is EntryType.FILE for entry in entries)
    assert report.left_out == {}


@needs_root
def test_the_disk_is_read_not_the_cache(
    staging: Staging, stage_tree: Callable[[int], dict[str, int]], run_proof: Prove
) -> None:
    """Every file's pages had left the page cache, or were read past it."""
    stage_tree(staging.fd)
    report = run_proof()
    assert report.weakest >= Evidence.EVICTED
    assert sum(report.evidence.values()) == report.files - 1  # an empty file has no pages


def test_a_page_that_stays_is_read_past_the_cache(tmp_path: Path) -> None:
    """A mapped page can't be evicted: O_DIRECT then, and the digest is right all the same."""
    import hashlib
    import mmap

    data = os.urandom(3_000_001)
    path = tmp_path / "file"
    path.write_bytes(data)
    fd = os.open(path, os.O_RDWR)
    os.fsync(fd)
    reader = disk_module._ContentReader(memory=False)
    with mmap.mmap(fd, 0) as view:
        assert view[0] == data[0]
        other = os.open(path, os.O_RDONLY)
        evidence = reader.ask(other, len(data))
        result = reader.read(other, len(data), evidence)
    os.close(fd)
    assert evidence is Evidence.DIRECT
    assert result.sha256 == hashlib.sha256(data).digest()


@needs_root
def test_memory_file_systems_prove_no_more_than_cached(
    tmp_path: Path, entries: list[Entry], open_staging: OpenStaging
) -> None:
    """There is no disk behind a tmpfs."""
    with open_staging(Path(f"/dev/shm/vault-test-{os.getpid()}")) as staging:
        (Path(os.fsdecode(staging.path)) / "file").write_bytes(b"data")
        report = prove(
            staging.fd, [], check_root=lambda _: True, executor=InlineExecutor(), fs=Fs()
        )
        assert report.weakest is Evidence.CACHED
        staging.remove()


def _flip(root: Path) -> None:
    path = root / "big"
    times = path.stat().st_mtime_ns
    data = bytearray(path.read_bytes())
    data[2_000_000] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(times, times))


def _keep_times(path: Path, change: Callable[[], object]) -> None:
    status = path.lstat()
    change()
    os.utime(path, ns=(status.st_mtime_ns, status.st_mtime_ns), follow_symlinks=False)


def _swap_device(root: Path) -> None:
    (root / "null").unlink()
    os.mknod(root / "null", stat.S_IFCHR | 0o666, os.makedev(1, 5))
    (root / "null").chmod(0o666)
    os.utime(root / "null", ns=(5, 5))


def _relink(root: Path) -> None:
    (root / "link").unlink()
    (root / "link").symlink_to("/etc/shadow")
    os.utime(root / "link", ns=(9, 9), follow_symlinks=False)


def _unlink_pair(root: Path) -> None:
    status = (root / "b/second").stat()
    (root / "b/second").unlink()
    (root / "b/second").write_bytes(b"linked")
    os.utime(root / "b/second", ns=(status.st_mtime_ns, status.st_mtime_ns))


TAMPERINGS: list[tuple[str, Callable[[Path], object], bytes, str]] = [
    ("one bit", _flip, b"big", "content"),
    ("cut short", lambda r: os.truncate(r / "setid", 3), b"setid", "size"),
    ("grown", lambda r: (r / "empty").write_bytes(b"x"), b"empty", "size"),
    ("mode", lambda r: (r / "big").chmod(0o600), b"big", "mode"),
    ("set-id bit lost", lambda r: (r / "setid").chmod(0o755), b"setid", "mode"),
    ("owner", lambda r: os.chown(r / "big", 12, 13), b"big", "owner"),
    ("time", lambda r: os.utime(r / "big", ns=(1, 1)), b"big", "mtime"),
    ("directory time", lambda r: os.utime(r / "locked/inner", ns=(1, 1)), b"locked/inner", "mtime"),
    ("xattr value", lambda r: os.setxattr(r / "big", "user.one", b"2"), b"big", "xattr user.one"),
    ("xattr gone", lambda r: os.removexattr(r / "big", "user.two"), b"big", "xattr user.two"),
    ("xattr added", lambda r: os.setxattr(r / "a", "user.x", b""), b"a", "xattr user.x"),
    ("missing", lambda r: (r / "unreadable").unlink(), b"unreadable", "missing"),
    ("last of a directory missing", lambda r: (r / "a/first").unlink(), b"a/first", "missing"),
    ("extra file", lambda r: (r / "zz").write_bytes(b""), b"zz", "unexpected"),
    ("extra inside", lambda r: (r / "a/zz").mkdir(), b"a/zz", "unexpected"),
    ("symlink target", _relink, b"link", "link"),
    ("device number", _swap_device, b"null", "device"),
    ("hard link made a copy", _unlink_pair, b"b/second", "type"),
    ("link to outside", lambda r: os.link(r / "setid", r.parent / "out"), b"setid", "links"),
]  # fmt: skip


@needs_root
@pytest.mark.parametrize(
    ("tamper", "path", "field"), [t[1:] for t in TAMPERINGS], ids=[t[0] for t in TAMPERINGS]
)
def test_any_difference_fails_and_is_named(
    staging: Staging, stage_tree: Callable[[int], dict[str, int]], run_proof: Prove,
    tamper: Callable[[Path], object], path: bytes, field: str,
) -> None:  # fmt: skip
    """A mismatch names the path and the field."""
    stage_tree(staging.fd)
    tamper(Path(os.fsdecode(staging.path)))
    report = run_proof()
    assert report.verdict is Verdict.FAILED
    assert (path, field) in {(found.path, found.field) for found in report.mismatches}


@needs_root
def test_a_right_disk_against_a_wrong_root_fails(
    staging: Staging, stage_tree: Callable[[int], dict[str, int]], run_proof: Prove
) -> None:
    """The expected stream proves nothing unless its root was signed."""
    stage_tree(staging.fd)
    report = run_proof(check_root=lambda _: False)
    assert report.verdict is Verdict.FAILED
    assert report.mismatches == ()
    assert not report.root_matches


@needs_root
def test_omissions_explain_only_what_they_say(
    staging: Staging, stage_tree: Callable[[int], dict[str, int]], run_proof: Prove
) -> None:
    """With owners left out the verdict is partial; a mode is still compared."""
    stage_tree(staging.fd)
    root = Path(os.fsdecode(staging.path))
    _keep_times(root / "empty", lambda: os.chown(root / "empty", 12, 13))
    assert run_proof().verdict is Verdict.FAILED
    report = run_proof(left_out={"owner"})
    assert report.verdict is Verdict.PARTIAL
    assert report.left_out == {"owner": 1}
    (root / "empty").chmod(0o600)
    assert run_proof(left_out={"owner"}).verdict is Verdict.FAILED


@needs_root
def test_entries_not_asked_for_make_it_partial(
    staging: Staging, stage_tree: Callable[[int], dict[str, int]], run_proof: Prove,
    entries: list[Entry],
) -> None:  # fmt: skip
    """--include: the whole list is authenticated, the disk compared with what was asked for."""
    stage_tree(staging.fd)
    (Path(os.fsdecode(staging.path)) / "zero").write_bytes(b"")
    chosen: Expected = [(e, encode_canonical(e)) for e in entries]
    skipped = [(None if e and e.path == b"unreadable" else e, canon) for e, canon in chosen]
    os.unlink("zero", dir_fd=staging.fd)
    os.unlink("unreadable", dir_fd=staging.fd)
    os.utime(staging.fd, ns=(entries[0].mtime, entries[0].mtime))
    report = run_proof(skipped)
    assert report.mismatches == ()
    assert report.verdict is Verdict.PARTIAL
    assert report.skipped == 1
    assert run_proof(chosen).verdict is Verdict.FAILED


@needs_root
def test_disk_root_can_be_read_again(
    staging: Staging, stage_tree: Callable[[int], dict[str, int]], run_proof: Prove,
    executor: Executor,
) -> None:  # fmt: skip
    """What finalize compares: the same as long as nothing changed."""
    stage_tree(staging.fd)
    before = run_proof().disk_root
    assert read_back(staging.fd, executor=executor, fs=Fs()).root == before
    _flip(Path(os.fsdecode(staging.path)))
    assert read_back(staging.fd, executor=executor, fs=Fs()).root != before


@needs_root
def test_many_mismatches_are_counted_but_not_kept(staging: Staging, run_proof: Prove) -> None:
    """A report stays small."""
    root = Path(os.fsdecode(staging.path))
    for number in range(150):
        (root / f"extra{number}").write_bytes(b"")
    report = run_proof([])
    assert len(report.mismatches) == 100
    assert report.mismatch_count == 151  # and the top


@needs_root
def test_descriptors_are_closed_when_the_proof_ends_early(
    staging: Staging, stage_tree: Callable[[int], dict[str, int]], executor: Executor
) -> None:
    """A consumer that stops in the middle leaks nothing."""
    stage_tree(staging.fd)
    before = len(os.listdir("/proc/self/fd"))
    disk = Disk(staging.fd, Fs(), executor, NO_PROGRESS)
    walk = disk.entries()
    next(walk)
    walk.close()
    assert len(os.listdir("/proc/self/fd")) == before


@needs_root
def test_kernel_labels_are_no_difference(staging: Staging, run_proof: Prove) -> None:
    """A machine that labels whatever is made on it still restores what has no label."""
    os.setxattr(staging.fd, "security.SMACK64", b"x")
    status = os.fstat(staging.fd)
    top = Entry(path=b"", type=EntryType.DIRECTORY, mode=0o700, mtime=status.st_mtime_ns)
    report = run_proof([(top, encode_canonical(top))], check_root=lambda _: True)
    assert report.verdict is Verdict.PASSED


class Calm(Fs):
    """Does not flush what others write on this machine."""

    def syncfs(self, fd: int) -> None:
        """Nothing."""


class Lossy(Fs):
    """Loses a write, as shows when all is flushed; or tells of one that was lost."""

    def __init__(self, top: Path, code: int = 0) -> None:
        self._top = top
        self._code = code

    def syncfs(self, fd: int) -> None:
        """From now on something else is on the disk."""
        if self._code:
            raise OSError(self._code, os.strerror(self._code))
        _flip(self._top)


@needs_root
def test_all_is_flushed_before_anything_is_read(
    staging: Staging, stage_tree: Callable[[int], dict[str, int]], run_proof: Prove,
    executor: Executor,
) -> None:  # fmt: skip
    """What waits in memory can't be evicted, and its writes may still fail."""
    stage_tree(staging.fd)
    root = Path(os.fsdecode(staging.path))
    right = run_proof(fs=Calm())
    assert right.verdict is Verdict.PASSED
    report = run_proof(fs=Lossy(root))
    assert [found.path for found in report.mismatches] == [b"big"]
    _flip(root)
    assert read_back(staging.fd, executor=executor, fs=Calm()).root == right.disk_root
    assert read_back(staging.fd, executor=executor, fs=Lossy(root)).root != right.disk_root


@needs_root
def test_a_lost_write_proves_nothing(
    staging: Staging, stage_tree: Callable[[int], dict[str, int]], run_proof: Prove,
    executor: Executor,
) -> None:  # fmt: skip
    """The kernel tells of it when all is flushed, even if what is read then looks right."""
    stage_tree(staging.fd)
    fs = Lossy(Path(os.fsdecode(staging.path)), errno.EIO)
    with pytest.raises(LocalError, match="read back"):
        run_proof(fs=fs)
    with pytest.raises(LocalError, match="read back"):
        read_back(staging.fd, executor=executor, fs=fs)


@needs_root
def test_a_device_that_is_missing_is_an_omission_only_where_devices_were_left_out(
    staging: Staging, stage_tree: Callable[[int], dict[str, int]], run_proof: Prove
) -> None:
    """Where it was made and is gone, or is a file, something is wrong."""
    stage_tree(staging.fd)
    root = Path(os.fsdecode(staging.path))
    _keep_times(root, (root / "null").unlink)
    report = run_proof(fs=Calm())
    assert report.verdict is Verdict.FAILED
    assert [(found.path, found.field) for found in report.mismatches] == [(b"null", "missing")]
    report = run_proof(fs=Calm(), left_out={"devices"})
    assert (report.verdict, report.left_out) == (Verdict.PARTIAL, {"devices": 1})
    _keep_times(root, (root / "empty").unlink)
    report = run_proof(fs=Calm(), left_out={"devices"})
    assert report.verdict is Verdict.FAILED
    assert [(found.path, found.field) for found in report.mismatches] == [(b"empty", "missing")]
