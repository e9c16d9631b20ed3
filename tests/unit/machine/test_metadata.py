"""Owner, mode, times, xattrs and holes: read, applied, compared; links are never followed."""

import dataclasses
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.children import as_nobody, needs_root
from vault.machine import metadata
from vault.machine.metadata import Meta

# cap_net_bind_service=ep, revision 2
CAPABILITY = bytes.fromhex("0100000200040000000000000000000000000000")
ACL = bytes.fromhex("0200000001000600ffffffff020004000100000004000400ffffffff"
                    "10000400ffffffff20000000ffffffff")  # fmt: skip


def _meta(**changes: object) -> Meta:
    base = Meta(mode=0o644, uid=os.geteuid(), gid=os.getegid(), mtime=1, xattrs=None)
    return dataclasses.replace(base, **changes)  # type: ignore[arg-type]


@pytest.fixture
def file(tmp_path: Path) -> Iterator[int]:
    """An open file."""
    fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT, 0o600)
    yield fd
    os.close(fd)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[int]:
    """An open directory."""
    fd = os.open(tmp_path, os.O_RDONLY)
    yield fd
    os.close(fd)


@needs_root
@pytest.mark.parametrize(
    "meta",
    [
        _meta(mode=0o7777, uid=12, gid=34),
        _meta(mode=0, mtime=-1_000_000_001),
        _meta(mtime=4_102_444_800_123_456_789),
        _meta(uid=4_000_000_000),
        _meta(xattrs=((b"security.capability", CAPABILITY), (b"user.\xff", b"\0"))),
        _meta(mode=0o640, xattrs=((b"system.posix_acl_access", ACL), (b"trusted.x", b""))),
    ],
    ids=["set-id", "before 1970", "2100", "large uid", "capability", "acl"],
)
def test_what_was_applied_reads_back(file: int, meta: Meta) -> None:
    """Changing the owner clears set-id bits and capabilities: the order is right."""
    assert metadata.apply_fd(file, meta) == ()
    found = metadata.read_meta(file, os.fstat(file))
    assert found == meta
    assert list(metadata.differences(meta, found)) == []


@needs_root
def test_applying_twice_changes_nothing(file: int) -> None:
    """A capability survives a second time."""
    meta = _meta(uid=12, xattrs=((b"security.capability", CAPABILITY),))
    metadata.apply_fd(file, meta)
    assert metadata.apply_fd(file, meta) == ()
    assert metadata.read_meta(file, os.fstat(file)) == meta


def test_inherited_attributes_do_not_stay(tmp_path: Path) -> None:
    """A default ACL of the directory around ends up on what is made in it; it has to go."""
    os.setxattr(tmp_path, "system.posix_acl_default", ACL)
    inner = tmp_path / "inner"
    inner.mkdir()
    assert metadata.read_xattrs(os.fsencode(inner))
    fd = os.open(inner, os.O_RDONLY)
    metadata.apply_fd(fd, _meta(mode=0o755), directory=True)
    assert metadata.read_xattrs(fd) is None
    assert stat.S_IMODE(os.fstat(fd).st_mode) == 0o755
    os.close(fd)


@needs_root
@pytest.mark.parametrize("target", ["victim", "missing"])
def test_a_symlink_gets_its_own_attributes(tmp_path: Path, folder: int, target: str) -> None:
    """What it points to keeps its own."""
    victim = tmp_path / "victim"
    victim.write_bytes(b"")
    before = victim.stat()
    (tmp_path / "link").symlink_to(target)
    meta = _meta(mode=0o777, uid=12, gid=34, mtime=-5, xattrs=((b"trusted.x", b"1"),))
    assert metadata.apply_at(folder, b"link", meta) == ()
    with metadata.place_at(folder, b"link") as (place, status):
        assert metadata.read_meta(place, status) == meta
    after = victim.stat()
    assert (before.st_uid, before.st_mtime_ns, before.st_mode) == (
        after.st_uid, after.st_mtime_ns, after.st_mode,
    )  # fmt: skip
    assert metadata.read_xattrs(os.fsencode(victim)) is None


@needs_root
def test_special_files_by_name(tmp_path: Path, folder: int) -> None:
    """A FIFO is not opened, a device neither."""
    os.mkfifo(tmp_path / "fifo")
    os.mknod(tmp_path / "tape", stat.S_IFCHR | 0o600, os.makedev(9, 200))
    for name in (b"fifo", b"tape"):
        meta = _meta(mode=0o6622, uid=3)
        assert metadata.apply_at(folder, name, meta) == ()
        with metadata.place_at(folder, name) as (place, status):
            assert metadata.read_meta(place, status) == meta


def test_impossible_numbers_are_omissions(file: int) -> None:
    """Not exceptions: the entry was authenticated, its author may be anybody."""
    assert "times" in metadata.apply_fd(file, _meta(mtime=2**80))
    assert "owner" in metadata.apply_fd(file, _meta(uid=2**40))
    assert "xattr nonsense.x" in metadata.apply_fd(file, _meta(xattrs=((b"nonsense.x", b""),)))


@needs_root
def test_a_label_of_the_kernel_is_left_as_it_is(file: int) -> None:
    """The machine gave it to what was made on it; any other attribute must not stay."""
    for name in ("security.SMACK64", "user.other"):
        os.setxattr(file, name, b"x")
    assert metadata.apply_fd(file, _meta()) == ()
    assert os.listxattr(file) == ["security.SMACK64"]


@needs_root
def test_a_plain_user_lends_no_rights(tmp_path: Path, file: int) -> None:
    """Without the owner no set-id bits; what must be read back stays readable; xattrs are told."""
    os.fchown(file, 65534, 65534)

    def check() -> None:
        meta = _meta(mode=0o6111, uid=0, gid=0, xattrs=((b"security.capability", CAPABILITY),))
        omitted = metadata.apply_fd(file, meta)
        assert set(omitted) == {"owner", "setid", "access", "xattr security.capability"}
        found = metadata.read_meta(file, os.fstat(file))
        assert found.mode == 0o511
        for difference in metadata.differences(meta, found):
            assert difference.omissions <= set(omitted)

    as_nobody(check)


@needs_root
def test_a_plain_user_keeps_set_id_bits_of_their_own(file: int) -> None:
    """Their own owner was applied, so nothing is lent."""
    os.fchown(file, 65534, 65534)

    def check() -> None:
        meta = _meta(mode=0o4755, uid=65534, gid=65534)
        assert metadata.apply_fd(file, meta) == ()
        assert metadata.read_meta(file, os.fstat(file)) == meta

    as_nobody(check)


@pytest.mark.parametrize(
    ("wanted", "found", "omissions"),
    [
        (0o4755, 0o755, {"setid"}),
        (0o100, 0o500, {"access"}),
        (0o4100, 0o500, {"setid", "access"}),
        (0o644, 0o666, {"mode"}),
        (0o755, 0o4755, {"mode"}),
        (0o4755, 0o700, {"mode"}),
    ],
    ids=["lost", "gained", "both", "writable", "set-id gained", "more lost"],
)
def test_mode_differences_need_the_narrowest_omission(
    wanted: int, found: int, omissions: set[str]
) -> None:
    """Dropped set-id bits never excuse other bits."""
    (difference,) = metadata.differences(_meta(mode=wanted), _meta(mode=found))
    assert difference.field == "mode"
    assert difference.omissions == omissions


def test_attribute_values_are_not_shown() -> None:
    """They can be secrets."""
    wanted, found = _meta(xattrs=((b"user.token", b"hunter2"),)), _meta()
    (difference,) = metadata.differences(wanted, found)
    assert difference.field == "xattr user.token"
    assert "hunter2" not in repr(difference)


def test_unreadable_attributes_are_told(file: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Left out with the reason; one that vanished is not worth a word."""
    import errno

    os.setxattr(file, "user.a", b"1")
    os.setxattr(file, "user.b", b"2")
    real = os.getxattr

    def refuse(place: int, name: bytes) -> bytes:
        if name == b"user.a":
            raise OSError(errno.EACCES, "Permission denied")
        return real(place, name)

    monkeypatch.setattr(os, "getxattr", refuse)
    problems: list[str] = []
    assert metadata.read_xattrs(file, problems) == ((b"user.b", b"2"),)
    assert problems == ["xattr user.a: Permission denied"]

    def vanish(place: int, name: bytes) -> bytes:
        raise OSError(errno.ENODATA, "gone")

    monkeypatch.setattr(os, "getxattr", vanish)
    problems.clear()
    assert metadata.read_xattrs(file, problems) is None
    assert problems == []


@pytest.mark.parametrize(
    "answer",
    [
        lambda offset, whence: offset,  # data and a hole begin at the same place
        lambda offset, whence: 0,  # always back to the beginning
        lambda offset, whence: offset - 1,
        lambda offset, whence: 2**63 - 1,
        lambda offset, whence: offset + 7 if whence == os.SEEK_DATA else offset,
        lambda offset, whence: offset + 1,
    ],
    ids=["same", "beginning", "back", "far", "only-holes", "on"],
)
def test_holes_of_a_file_system_that_contradicts_itself_come_to_an_end(
    monkeypatch: pytest.MonkeyPatch, answer: Callable[[int, int], int]
) -> None:
    """Ascending, disjoint, inside the file; what it says nothing sensible of is data."""
    monkeypatch.setattr(os, "lseek", lambda _, offset, whence: answer(offset, whence))
    end = 0
    for start, following in metadata.data_runs(0, 100):
        assert start >= end
        assert following > start
        end = following
    assert end <= 100
    assert 0 <= metadata.measured_holes(0, 100) <= 100


def test_holes(file: int) -> None:
    """Between, before and after data; none in a plain file."""
    block = 1 << 16
    os.ftruncate(file, 5 * block + 7)
    os.pwrite(file, b"x" * block, block)
    os.pwrite(file, b"x" * block, 3 * block)
    size = 5 * block + 7
    runs = list(metadata.data_runs(file, size))
    if runs != [(0, size)]:  # the file system under the test knows holes
        assert runs == [(block, 2 * block), (3 * block, 4 * block)]
        assert metadata.measured_holes(file, size) == 3 * block + 7
    os.ftruncate(file, 0)
    assert list(metadata.data_runs(file, 0)) == []
    assert list(metadata.data_runs(file, 5)) == []  # it was cut since its size was taken
    os.pwrite(file, b"x" * block, 0)
    assert list(metadata.data_runs(file, block)) == [(0, block)]
    assert metadata.measured_holes(file, block) == 0
