"""What the kernel is told of a snapshot, without a kernel."""

import errno
import logging
import os
import re
import signal
import stat
import sys
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from tests.support.forgery import forge_snapshot
from tests.support.forgery import forged_entry as entry
from tests.support.lab import Lab, MakeRepository
from tests.support.trees import MakeSource
from vault.browse import View
from vault.browse.mount import SnapshotFiles, check_mount_point, load_fuse, mount_snapshot
from vault.errors import ConfigError, LocalError, StorageError
from vault.model import EntryType


@pytest.fixture
def source(make_source: MakeSource) -> Path:
    """Some of everything that a plain user can make."""
    top = make_source()
    (top / "hard").hardlink_to(top / "dir0/file0")
    os.utime(top / "dir0/file0", ns=(5, -1_000_000_001))
    os.mkfifo(top / "fifo")
    (top / "many").mkdir()
    for number in range(300):
        (top / f"many/{number:03}").touch()
    (top / "void").mkdir()
    with (top / "sparse").open("wb") as file:
        file.truncate(1 << 20)
    Path(os.fsdecode(bytes(top) + b"/bad\xff\n")).touch()
    os.setxattr(top / "dir0/file0", "user.key", b"value\0")
    return top


@pytest.fixture
def lab(make_repository: MakeRepository, source: Path) -> Lab:
    """A repository after a snapshot of it."""
    made: Lab = make_repository()
    made.snapshot(source)
    return made


@pytest.fixture
def view(lab: Lab, tmp_path: Path) -> Iterator[View]:
    """The snapshot."""
    repository = lab.open()
    (record,) = repository.ledger.snapshots()
    with View(repository, lab.recovery, record, scratch=tmp_path, random_access=True) as opened:
        yield opened


@pytest.fixture
def files(view: View) -> SnapshotFiles:
    """The snapshot as files."""
    return SnapshotFiles(view)


def _listed(files: SnapshotFiles, path: str, step: int = 1_000_000) -> list[str]:
    """Names of a directory, asked for some at a time as a kernel does."""
    names: list[str] = []
    offset = 0
    while True:
        some = list(islice(files.readdir_with_offset(path, offset, 0), step))
        if not some:
            return names
        names += [name for name, _, _ in some]
        offset = some[-1][2]


def _error(call: Callable[..., object], *arguments: object) -> int | None:
    with pytest.raises(OSError, match=r"\w") as caught:
        call(*arguments)
    return caught.value.errno


def test_attributes_are_those_of_the_source(files: SnapshotFiles, source: Path) -> None:
    """Type, mode, owner, size, nanoseconds before 1970, names of the file."""
    for path in [source, *source.rglob("*")]:
        real = path.lstat()
        name = os.fsdecode(b"/" + os.path.relpath(bytes(path), bytes(source)))
        found = files.getattr("/" if path == source else name)
        assert found["st_mode"] == real.st_mode, path
        assert found["st_mtime"] == real.st_mtime_ns, path
        assert (found["st_uid"], found["st_gid"]) == (real.st_uid, real.st_gid)
        assert found["st_nlink"] == real.st_nlink, path
        if not path.is_dir() or path.is_symlink():
            assert found["st_size"] == real.st_size, path
    assert files.getattr("/sparse")["st_blocks"] == 0


def test_inodes_are_one_for_each_file(files: SnapshotFiles, source: Path) -> None:
    """Names of one file share theirs; nothing else does."""
    paths = [f"/{path.relative_to(source)}" for path in source.rglob("*")]
    inodes = [files.getattr(path)["st_ino"] for path in paths]
    assert len(set(inodes)) == len(paths) - 1
    assert files.getattr("/hard")["st_ino"] == files.getattr("/dir0/file0")["st_ino"]
    assert files.getattr("/")["st_ino"] == 1


@pytest.mark.parametrize("step", [1, 2, 3, 7, 1_000])
def test_directories_are_listed_in_parts(files: SnapshotFiles, source: Path, step: int) -> None:
    """However few the kernel has room for at once, an empty one too."""
    for path in ("", "many", "void", "dir0"):
        names = _listed(files, f"/{path}", step)
        assert names[:2] == [".", ".."]
        assert sorted(names[2:]) == sorted(each.name for each in (source / path).iterdir())


def test_listing_gives_inode_and_type(files: SnapshotFiles) -> None:
    """The same as asking for each name."""
    for name, given, _ in files.readdir_with_offset("/", 0, 0):
        if name not in (".", ".."):
            full = files.getattr(f"/{name}")
            assert stat.S_IFMT(full["st_mode"]) == given["st_mode"]
            assert full["st_ino"] == given["st_ino"]


def test_a_wild_offset_stays_in_the_directory(files: SnapshotFiles) -> None:
    """Whatever someone seeks to."""
    number = files.getattr("/many")["st_ino"]
    for offset in (0, 1, 2, 3, number, 10**6, 2**40):
        names = [name for name, _, _ in files.readdir_with_offset("/many", offset, 0)]
        assert set(names) <= {".", "..", *(f"{each:03}" for each in range(300))}


def test_files_are_read_by_any_name(files: SnapshotFiles, source: Path) -> None:
    """Anywhere in them; a handle that was released is gone."""
    expected = (source / "dir0/file0").read_bytes()
    for path in ("/dir0/file0", "/hard"):
        handle = files.open(path, os.O_RDONLY)
        assert files.read(path, 1_000, 5_000, handle) == expected[5_000:6_000]
        assert files.read(path, 1_000, len(expected), handle) == b""
        files.release(path, handle)
        assert not files._open


def test_links_and_attributes(files: SnapshotFiles) -> None:
    """Symlinks as they were; xattrs of a file by each of its names."""
    assert files.readlink("/link") == "dir0/file0"
    assert files.listxattr("/hard") == ["user.key"]
    assert files.getxattr("/hard", "user.key") == b"value\0"
    assert files.listxattr("/many") == []


def test_refusals_have_their_numbers(files: SnapshotFiles) -> None:
    """As a read-only file system of the kernel's own gives them."""
    assert _error(files.getattr, "/nothing") == errno.ENOENT
    assert _error(files.open, "/hard", os.O_RDWR) == errno.EROFS
    assert _error(files.open, "/hard", os.O_WRONLY | os.O_TRUNC) == errno.EROFS
    assert _error(files.open, "/many", os.O_RDONLY) == errno.EISDIR
    assert _error(files.readlink, "/hard") == errno.EINVAL
    assert _error(files.getxattr, "/hard", "user.none") == errno.ENODATA
    assert _error(list, files.readdir_with_offset("/hard", 0, 0)) == errno.ENOTDIR


def test_a_link_too_long_for_a_kernel_is_not_cut(
    files: SnapshotFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a target would lead elsewhere."""
    monkeypatch.setattr("vault.browse.mount.MAX_LINK", 5)
    assert _error(files.readlink, "/link") == errno.ENAMETOOLONG


def test_a_name_too_long_for_a_kernel_is_left_out(
    files: SnapshotFiles, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It would take the whole directory with it."""
    monkeypatch.setattr("vault.browse.mount.MAX_SHOWN_NAME", 5)
    assert "sparse" not in _listed(files, "/")
    assert "dir0" in _listed(files, "/")
    assert "left out" in caplog.text


def test_damage_is_an_io_error_and_a_line_that_names_the_pack(
    lab: Lab, files: SnapshotFiles, view: View, caplog: pytest.LogCaptureFixture
) -> None:
    """Never other bytes."""
    reader = view.blocks.reader
    number = view.tree.find(b"dir0/file0")
    assert number is not None
    ((first, *_),) = reader.chunks_of(view.tree.entry(number))
    ref = reader.pack(reader.find(first).pack).ref
    data = bytearray(lab.store.get(ref.name, ref.version))
    data[len(data) // 2] ^= 1
    data[5_000] ^= 1
    lab.store.corrupt(ref.name, ref.version, bytes(data))
    handle = files.open("/dir0/file0", os.O_RDONLY)
    with caplog.at_level(logging.ERROR):
        for _ in range(3):
            assert _error(files.read, "/dir0/file0", 12_000, 0, handle) == errno.EIO
    assert caplog.text.count(f"/dir0/file0 is damaged: {ref.name}") == 1


def test_a_bad_entry_is_listed_and_an_io_error(
    lab: Lab, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """So that a copy of the mounted snapshot fails there, and does not pass for whole."""
    top, m = entry(b"", EntryType.DIRECTORY), entry(b"m", EntryType.DIRECTORY)
    good = [entry(b"a", data=b"a"), m, entry(b"m/z", data=b"z")]
    bad = [entry(b"m/b%03d" % i, EntryType.SYMLINK, link=b"") for i in range(300)]
    outside = [entry(b"m/../x", data=b"a"), entry(b"a", data=b"z"), entry(b"a/x", data=b"a")]
    made = forge_snapshot(
        lab.open(), lab.host.key, [top, *good[:2], *bad, good[2], *outside], data=[b"a", b"z"]
    )
    repository = lab.open()
    with View(repository, lab.recovery, made.record, scratch=tmp_path, random_access=True) as view:
        files = SnapshotFiles(view)
        assert _listed(files, "/") == [".", "..", "a", "m"]
        names = ["z", *(f"b{i:03}" for i in range(300))]
        for step in (1, 7, 1_000):
            assert _listed(files, "/m", step) == [".", "..", *names]
        assert files.read("/m/z", 9, 0, files.open("/m/z", os.O_RDONLY)) == b"z"
        assert files.read("/a", 9, 0, files.open("/a", os.O_RDONLY)) == b"a"
        with caplog.at_level(logging.ERROR):
            assert _error(files.getattr, "/m/b007") == errno.EIO
        assert "/m/b007 is damaged: its entry has an impossible link target" in caplog.text
        assert _error(files.getattr, "/m/c") == errno.ENOENT


def test_an_unreachable_store_is_an_io_error(
    files: SnapshotFiles,
    view: View,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """And it is tried again the next time."""

    def fail(*_: object) -> bytes:
        raise StorageError("no route to the store")

    handle = files.open("/dir0/file0", os.O_RDONLY)
    with monkeypatch.context() as patch:
        patch.setattr(view.blocks.reader.repository, "read_range", fail)
        assert _error(files.read, "/dir0/file0", 100, 0, handle) == errno.EIO
    assert "unreadable: no route" in caplog.text
    assert len(files.read("/dir0/file0", 100, 0, handle)) == 100


def test_the_file_system_is_full(files: SnapshotFiles, source: Path) -> None:
    """Of the snapshot's size, with nothing free."""
    found = files.statfs("/")
    assert "f_bavail" not in found
    assert found["f_blocks"] * found["f_bsize"] >= 6 * 12_000


# --- mounting ---


def test_a_mount_point_is_an_empty_directory(tmp_path: Path) -> None:
    """Else exit 2, before anything is read."""
    (tmp_path / "full/x").mkdir(parents=True)
    (tmp_path / "file").touch()
    for name in ("full", "file", "missing"):
        with pytest.raises(ConfigError, match="can't mount at"):
            check_mount_point(tmp_path / name)
    check_mount_point(tmp_path / "full/x")


@pytest.mark.parametrize(
    ("failure", "hint"),
    [(None, r"vault-backup\[mount\]"), (OSError("Unable to find libfuse"), "fuse3")],
)
def test_a_missing_library_is_said(
    monkeypatch: pytest.MonkeyPatch, failure: Exception | None, hint: str
) -> None:
    """With what to install."""

    class Finder:
        def find_spec(self, name: str, *_: object) -> None:
            if failure is not None and name == "mfusepy":
                raise failure

    if failure is None:
        monkeypatch.setitem(sys.modules, "mfusepy", None)
    else:
        monkeypatch.delitem(sys.modules, "mfusepy", raising=False)
        monkeypatch.setattr(sys, "meta_path", [Finder(), *sys.meta_path])
    with pytest.raises(ConfigError) as caught:
        load_fuse()
    assert caught.value.hint is not None
    assert re.search(hint, caught.value.hint)


@pytest.mark.parametrize(("code", "fails"), [(None, False), (8, False), (1, True)])
def test_what_libfuse_returns(
    view: View, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int | None, *, fails: bool
) -> None:
    """Unmounted or ended by a signal is the normal end; signals are its own for the while."""
    seen: dict[str, Any] = {}

    class Library:
        @staticmethod
        def FUSE(_files: object, place: str, **options: object) -> None:  # noqa: N802 - its name
            seen.update(options, place=place, handler=signal.getsignal(signal.SIGTERM))
            if code is not None:
                raise RuntimeError(code)

    monkeypatch.setattr("vault.browse.mount.load_fuse", lambda: Library)
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    mine = signal.getsignal(signal.SIGTERM)
    mount = tmp_path / "mount"
    mount.mkdir()
    try:
        if fails:
            with pytest.raises(LocalError, match="can't mount"):
                mount_snapshot(view, mount)
        else:
            mount_snapshot(view, mount, allow_other=True)
            assert seen["default_permissions"] is seen["allow_other"] is True
        assert signal.getsignal(signal.SIGTERM) is mine
    finally:
        signal.signal(signal.SIGTERM, before)
    assert seen["handler"] is signal.SIG_DFL
    assert seen["ro"] is seen["nosuid"] is seen["nodev"] is True
    assert seen["place"] == str(mount)
