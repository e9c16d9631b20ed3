"""Nothing outside staging is touched, whatever an entry says or another process does."""

# ruff: noqa: PTH208 - /proc is listed by name; parameters of tests are named by pytest

import errno
import os
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TypeAlias

import pytest

from tests.support.children import as_nobody, needs_root
from vault.errors import FormatError, LocalError
from vault.format.entry import Entry
from vault.format.entry_encoding import encode_canonical
from vault.ledger.statements import Verdict
from vault.machine.workers import InlineExecutor
from vault.model import EntryType
from vault.restore.capabilities import probe
from vault.restore.journal import Local
from vault.restore.prove import prove
from vault.restore.stage import Stager, Staging
from vault.restore.syscalls import Fs, remove_tree

OpenStaging: TypeAlias = Callable[..., AbstractContextManager[Staging]]


@pytest.fixture
def stager(staging: Staging) -> Iterator[Stager]:
    """Builds below an empty staging directory."""
    opened = Stager(staging.fd, Fs())
    yield opened
    opened.close()


def _root(staging: Staging) -> Path:
    return Path(os.fsdecode(staging.path))


def _entry(path: bytes, kind: EntryType, *, link: bytes | None = None) -> Entry:
    return Entry(
        path=path, type=kind, mode=0o777, uid=os.geteuid(), gid=os.getegid(), link=link
    )  # fmt: skip


HOSTILE = [
    b"..", b"../out", b"a/../../out", b"/etc/passwd", b"./a", b"a//b", b"a/", b"nul\0name",
    b"x" * 256, b"a/" * 40_000 + b"b",
]  # fmt: skip


@pytest.mark.parametrize("path", HOSTILE, ids=lambda path: repr(path[:12]))
def test_hostile_paths_are_refused(stager: Stager, path: bytes) -> None:
    """Of directories, files, links and link targets alike."""
    stager.mkdir(b"a")
    with pytest.raises(FormatError):
        stager.mkdir(path)
    with pytest.raises(FormatError):
        stager.create_file(path)
    with pytest.raises(FormatError):
        stager.make(_entry(path, EntryType.SYMLINK, link=b"x"))
    with pytest.raises(FormatError):
        stager.make(_entry(b"fine", EntryType.HARD_LINK, link=path))
    with pytest.raises(FormatError):
        stager.finish_directories([_entry(path, EntryType.DIRECTORY)])


def test_the_top_is_no_file(stager: Stager) -> None:
    """An empty path is a directory's."""
    with pytest.raises(FormatError):
        stager.create_file(b"")
    with pytest.raises(FormatError):
        stager.make(_entry(b"", EntryType.FIFO))


def test_a_symlink_is_not_a_directory(stager: Stager, tmp_path: Path) -> None:
    """A symlink, then an entry below it: the classic way out."""
    (tmp_path / "out").mkdir()
    stager.make(_entry(b"dir", EntryType.SYMLINK, link=os.fsencode(tmp_path / "out")))
    with pytest.raises(LocalError):
        stager.create_file(b"dir/planted")
    with pytest.raises(LocalError):
        stager.mkdir(b"dir/planted")
    with pytest.raises(LocalError):
        stager.finish_directories([_entry(b"dir", EntryType.DIRECTORY)])
    assert list((tmp_path / "out").iterdir()) == []
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) != 0o777


def test_nothing_is_made_over_something(stager: Stager, staging: Staging) -> None:
    """A second entry of the same name, or a symlink planted at a file's name."""
    os.close(stager.create_file(b"file"))
    with pytest.raises(LocalError):
        stager.create_file(b"file")
    (_root(staging) / "planted").symlink_to("/etc/passwd")
    with pytest.raises(LocalError):
        stager.create_file(b"planted")
    with pytest.raises(LocalError):
        stager.reopen_file(b"planted")


def test_hard_links_stay_inside(stager: Stager, tmp_path: Path, staging: Staging) -> None:
    """A hard link to something that is no staged file is refused, and does not stay."""
    secret = tmp_path / "secret"
    secret.write_bytes(b"")
    (_root(staging) / "sym").symlink_to(secret)
    (_root(staging) / "dirlink").symlink_to(tmp_path)
    for first in (b"sym", b"dirlink/secret", b"missing"):
        with pytest.raises(LocalError):
            stager.make(_entry(b"link", EntryType.HARD_LINK, link=first))
    assert secret.stat().st_nlink == 1
    assert not (_root(staging) / "link").is_symlink()


def test_a_file_that_was_swapped_is_not_reopened(
    stager: Stager, staging: Staging, tmp_path: Path
) -> None:
    """Neither a FIFO (which would block) nor a link to a file outside."""
    outside = tmp_path / "outside"
    outside.write_bytes(b"precious")
    os.link(outside, _root(staging) / "linked")
    os.mkfifo(_root(staging) / "fifo")
    for name in (b"linked", b"fifo"):
        with pytest.raises(LocalError):
            stager.reopen_file(name)
    assert outside.read_bytes() == b"precious"


def test_a_directory_swapped_meanwhile_is_never_followed(
    stager: Stager, staging: Staging, tmp_path: Path
) -> None:
    """Another thread swaps a directory for a symlink as fast as it can: nothing gets out."""
    outside = tmp_path / "outside"
    outside.mkdir()
    root = _root(staging)
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            (root / "dir").rename(root / "aside")
            (root / "dir").symlink_to(outside)
            (root / "dir").unlink()
            (root / "aside").rename(root / "dir")

    stager.mkdir(b"dir")
    attacker = threading.Thread(target=swap)
    attacker.start()
    refused = number = 0
    while number < 1500 or (not refused and number < 100_000):  # until both ran at once
        number += 1
        stager.close()  # so that every look-up walks the names again
        try:
            os.close(stager.create_file(b"dir/%d" % number))
        except LocalError:
            refused += 1
    stop.set()
    attacker.join()
    assert list(outside.iterdir()) == []
    assert refused > 0


@needs_root
def test_a_mount_in_staging_is_not_entered(
    stager: Stager, staging: Staging, tmp_path: Path
) -> None:
    """Somebody mounts over a staged directory: writing there would be writing elsewhere."""
    import subprocess

    stager.mkdir(b"dir")
    stager.close()
    (tmp_path / "outside").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", _root(staging) / "dir"], check=True)
    try:
        with pytest.raises(LocalError):
            stager.create_file(b"dir/file")
        with pytest.raises(LocalError):
            staging.remove()
    finally:
        subprocess.run(["umount", _root(staging) / "dir"], check=True)


def test_writes_land_where_they_belong(stager: Stager, staging: Staging) -> None:
    """Pieces in any order, over a close and a reopen; a hole at the end."""
    entry = Entry(
        path=b"f", type=EntryType.FILE, mode=0o600, uid=os.geteuid(), gid=os.getegid(),
        size=9000, holes=((6, 8994),),
    )  # fmt: skip
    fd = stager.create_file(b"f")
    stager.write(fd, 3, b"def")
    stager.close_file(fd)
    fd = stager.reopen_file(b"f")
    stager.write(fd, 0, memoryview(b"abc"))
    stager.finish_file(fd, entry)
    assert (_root(staging) / "f").read_bytes() == b"abcdef" + bytes(8994)


def test_short_writes_are_continued(staging: Staging) -> None:
    """A call may write less than asked."""

    class Stingy(Fs):
        def pwrite(self, fd: int, data: bytes | memoryview, offset: int) -> int:
            return super().pwrite(fd, data[:3], offset)

    stager = Stager(staging.fd, Stingy())
    fd = stager.create_file(b"f")
    stager.write(fd, 0, b"0123456789")
    stager.close_file(fd)
    stager.close()
    assert (_root(staging) / "f").read_bytes() == b"0123456789"


def test_deep_trees_need_few_descriptors(stager: Stager, staging: Staging) -> None:
    """300 levels with 64 cached directories; times and modes still come out right."""
    paths = [b"/".join([b"d"] * depth) for depth in range(300)]
    before = len(os.listdir("/proc/self/fd"))
    for path in paths:
        stager.mkdir(path)
    assert len(os.listdir("/proc/self/fd")) <= before + 65
    directories = [
        Entry(path=path, type=EntryType.DIRECTORY, mode=0o555, uid=os.geteuid(),
              gid=os.getegid(), mtime=len(path))
        for path in paths
    ]  # fmt: skip
    stager.finish_directories(directories)
    report = prove(
        staging.fd, [(entry, encode_canonical(entry)) for entry in directories],
        check_root=lambda _: True, executor=InlineExecutor(), fs=Fs(),
    )  # fmt: skip
    assert report.mismatches == ()
    staging.remove()
    assert not _root(staging).exists()


def test_a_failed_restore_leaves_nothing(
    tmp_path: Path, stage_tree: Callable[[int], dict[str, int]], open_staging: OpenStaging
) -> None:
    """Read-only directories and all; what symlinks point to stays."""
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious/file").write_bytes(b"x")

    def restore() -> None:
        with open_staging(tmp_path / "target") as staging:
            stage_tree(staging.fd)
            (_root(staging) / "way-out").symlink_to(tmp_path / "precious")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        restore()
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]
    assert (tmp_path / "precious/file").read_bytes() == b"x"


def test_remove_tree_refuses_another_directory(tmp_path: Path) -> None:
    """What has the name but not the inode is left alone."""
    (tmp_path / "dir").mkdir()
    around = os.open(tmp_path, os.O_RDONLY)
    with pytest.raises(Exception, match="left alone"):
        remove_tree(Fs(), around, b"dir", 1)
    os.close(around)
    assert (tmp_path / "dir").is_dir()


def _write_megabyte(open_staging: OpenStaging, target: Path, fs: Fs) -> None:
    with open_staging(target, fs) as staging:
        stager = Stager(staging.fd, fs)
        fd = stager.create_file(b"f")
        try:
            stager.write(fd, 0, bytes(1 << 20))
        finally:
            stager.close_file(fd)
            stager.close()


def test_a_full_disk_is_an_error_and_leaves_nothing(
    tmp_path: Path, open_staging: OpenStaging
) -> None:
    """ENOSPC on a write: exit 14, staging removed."""

    class Full(Fs):
        def pwrite(self, fd: int, data: bytes | memoryview, offset: int) -> int:
            if len(data) > 100_000:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return super().pwrite(fd, data, offset)

    with pytest.raises(LocalError, match="No space left"):
        _write_megabyte(open_staging, tmp_path / "target", Full())
    assert list(tmp_path.iterdir()) == []


@needs_root
def test_a_really_full_disk(tmp_path: Path, open_staging: OpenStaging) -> None:
    """The same on a file system of 64 KiB."""
    import subprocess

    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", tmp_path], check=True)
    try:
        with pytest.raises(LocalError, match="No space left"):
            _write_megabyte(open_staging, tmp_path / "target", Fs())
        assert list(tmp_path.iterdir()) == []
    finally:
        subprocess.run(["umount", tmp_path], check=True)


@needs_root
def test_a_plain_user_leaves_out_owners_and_devices(
    tmp_path: Path, entries: list[Entry],
    stage_tree: Callable[[int], dict[str, int]], open_staging: OpenStaging, local: Local,
) -> None:  # fmt: skip
    """No owners, no set-id bits, no devices; the rest is proven: partial."""
    tmp_path.chmod(0o1777)
    local.state.chmod(0o700)
    os.chown(local.state, 65534, 65534)
    for parent in (*tmp_path.parents[:3], *local.state.parents[:3]):
        parent.chmod(parent.stat().st_mode | 0o011)

    def restore() -> None:
        with open_staging(tmp_path / "target") as staging:
            left_out = stage_tree(staging.fd)
            assert {"owner", "setid", "devices", "access"} <= set(left_out)
            assert stat.S_IMODE((_root(staging) / "setid").stat().st_mode) == 0o755
            arguments = {"check_root": lambda _: True, "executor": InlineExecutor(), "fs": Fs()}
            stream = [(entry, encode_canonical(entry)) for entry in entries]
            report = prove(staging.fd, stream, left_out=left_out, **arguments)  # type: ignore[arg-type]
            assert report.mismatches == ()
            assert report.verdict is Verdict.PARTIAL
            assert report.left_out["devices"] == 1
            strict = prove(staging.fd, stream, **arguments)  # type: ignore[arg-type]
            assert strict.verdict is Verdict.FAILED
            staging.remove()

    as_nobody(restore)
    assert list(tmp_path.iterdir()) == []


@needs_root
def test_probe_finds_what_a_file_system_can_hold(staging: Staging) -> None:
    """Root on a Linux file system: everything; nothing is left behind."""
    found = probe(staging.fd, Fs())
    assert found.cannot_hold == frozenset()
    assert found.exchange
    assert list(_root(staging).iterdir()) == []


def test_probe_reports_what_fails(staging: Staging) -> None:
    """Each trial is on its own."""

    class Poor(Fs):
        def symlink(self, directory: int, name: bytes, target: bytes) -> None:
            raise OSError(errno.EPERM, "")

        def exchange(self, directory: int, one: bytes, around: int, other: bytes) -> None:
            raise OSError(errno.EINVAL, "")

    found = probe(staging.fd, Poor())
    assert "symlinks" in found.cannot_hold
    assert not found.exchange
    assert list(_root(staging).iterdir()) == []


REFUSED = {  # what a file system may lack -> the call that would show it
    "owner": "chown",
    "mode": "chmod",
    "times": "utime",
    "symlinks": "symlink",
    "hard links": "link",
    "devices": "mknod",
    "xattr user": "setxattr",
}


@needs_root
@pytest.mark.parametrize("silently", [False, True])
@pytest.mark.parametrize(("capability", "call"), REFUSED.items())
def test_probe_tells_of_each_thing_that_is_refused_or_not_kept(
    staging: Staging,
    monkeypatch: pytest.MonkeyPatch,
    capability: str,
    call: str,
    silently: bool,  # noqa: FBT001
) -> None:
    """An error is believed, and success is not: what was made is read back."""
    assert capability not in probe(staging.fd, Fs()).cannot_hold

    def refuse(*_: object, **__: object) -> None:
        if not silently:
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, refuse)
        found = probe(staging.fd, Fs())
    assert capability in found.cannot_hold
    assert list(_root(staging).iterdir()) == []


@needs_root
@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EROFS])
@pytest.mark.parametrize("call", ["symlink", "link", "mknod"])
def test_probe_takes_a_failing_disk_for_no_lack(
    staging: Staging, monkeypatch: pytest.MonkeyPatch, code: int, call: str
) -> None:
    """It raises, and leaves nothing."""

    def fail(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        with pytest.raises(OSError, match=os.strerror(code)):
            probe(staging.fd, Fs())
    assert list(_root(staging).iterdir()) == []


def test_probe_tells_names_that_differ_in_case_only(staging: Staging) -> None:
    """Where the second is the first, a file of it would overwrite the other's."""

    class CaseBlind(Fs):
        def create(self, directory: int, name: bytes) -> int:
            return super().create(directory, name.lower())

    assert "case" in probe(staging.fd, CaseBlind()).cannot_hold
    assert "case" not in probe(staging.fd, Fs()).cannot_hold


def test_an_exchange_that_does_nothing_is_none(staging: Staging) -> None:
    """What is at the names is looked at."""

    class Idle(Fs):
        def exchange(self, directory: int, one: bytes, around: int, other: bytes) -> None:
            pass

    assert not probe(staging.fd, Idle()).exchange
    assert probe(staging.fd, Fs()).exchange


def test_a_file_system_without_modes_takes_a_note_and_gives_all_back(
    tmp_path: Path, open_staging: OpenStaging
) -> None:
    """Where modes are those of the mount, setting one is refused."""

    class Modeless(Fs):
        def chmod(self, fd: int, mode: int) -> None:  # type: ignore[override]
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    with open_staging(tmp_path / "target", Modeless()) as staging:
        probe(staging.fd, Modeless())
        stager = Stager(staging.fd, Modeless())
        stager.mkdir(b"inner")
        stager.close()
        assert len(list(tmp_path.glob(".*.note"))) == 1
        staging.remove()
    assert list(tmp_path.iterdir()) == []


def test_staging_leaks_no_descriptor(staging: Staging) -> None:
    """Of a file that is finished, and of one that can't be."""

    class Failing(Fs):
        fails = False

        def apply_fd(self, fd: int, attributes: object, *, directory: bool) -> tuple[str, ...]:
            if self.fails:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return ()

    fs = Failing()
    stager = Stager(staging.fd, fs)
    before = len(os.listdir("/proc/self/fd"))
    stager.finish_file(stager.create_file(b"one"), _entry(b"one", EntryType.FILE))
    assert len(os.listdir("/proc/self/fd")) == before
    fs.fails = True
    with pytest.raises(LocalError):
        stager.finish_file(stager.create_file(b"two"), _entry(b"two", EntryType.FILE))
    assert len(os.listdir("/proc/self/fd")) == before
    stager.close()


@needs_root
def test_a_plain_user_can_read_back_what_no_mode_lets_him(tmp_path: Path) -> None:
    """A file gets the right to be read, a directory also that to be entered; both are told."""
    top = tmp_path / "top"
    top.mkdir()
    os.chown(top, 65534, 65534)
    fd = os.open(top, os.O_RDONLY)

    def restore() -> None:
        def owned(path: bytes, kind: EntryType) -> Entry:
            return Entry(path=path, type=kind, mode=0, uid=65534, gid=65534)

        stager = Stager(fd, Fs())
        stager.mkdir(b"inner")
        stager.finish_file(stager.create_file(b"file"), owned(b"file", EntryType.FILE))
        stager.finish_directories([owned(b"inner", EntryType.DIRECTORY)])
        modes = {name: stat.S_IMODE(os.stat(name, dir_fd=fd).st_mode) for name in ("file", "inner")}
        assert modes == {"file": 0o400, "inner": 0o500}
        assert stager.left_out == {"access": 2}

    as_nobody(restore)
    os.close(fd)
