"""What has a path now is opened: what the walk met, or what took its place by a rename."""

import errno
import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.children import as_nobody
from vault.snapshot import safe_open
from vault.snapshot.safe_open import open_described, open_source


class _Met(NamedTuple):
    """A file as the walk met it, elsewhere than it is now."""

    st_dev: int
    st_ino: int


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file in a directory that the walk met."""
    (tmp_path / "top").mkdir()
    (tmp_path / "top/file").write_bytes(b"first")
    return tmp_path / "top/file"


@pytest.fixture(autouse=True)
def _no_descriptor_stays(tmp_path: Path) -> Iterator[None]:
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - a count is all
    yield
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208 - a count is all


def _content(path: Path, met: os.stat_result) -> bytes:
    """What is read, with the status of just that."""
    fd, found = open_source(os.fsencode(path), met)
    try:
        assert os.path.samestat(found, os.fstat(fd))
        return os.read(fd, 100)
    finally:
        os.close(fd)


def _replace(path: Path, content: bytes) -> None:
    beside = path.with_name("beside")
    beside.write_bytes(content)
    beside.rename(path)


def test_the_file_that_was_met(file: Path) -> None:
    """Read-only and not inherited by hooks."""
    fd, found = open_source(bytes(file), file.lstat())
    try:
        assert os.read(fd, 9) == b"first"
        assert found.st_size == 5
        assert not os.get_inheritable(fd)
    finally:
        os.close(fd)


def _make_anew(file: Path) -> None:
    file.rename(file.with_name("kept"))
    file.write_bytes(b"second")


def _replace_directory(file: Path) -> None:
    file.parent.rename(file.parent.with_name("old"))
    file.parent.mkdir()
    file.write_bytes(b"second")


def _replace_by_a_link(file: Path) -> None:
    _replace(file, b"second")
    file.with_name("other").hardlink_to(file)


@pytest.mark.parametrize(
    "act",
    [lambda file: _replace(file, b"second"), _make_anew, _replace_directory, _replace_by_a_link],
    ids=["renamed over", "made anew", "directory replaced", "has other names"],
)
def test_a_file_that_took_the_place_of_the_one_that_was_met(
    file: Path, act: Callable[[Path], None]
) -> None:
    """A file of that name was there all the time."""
    met = file.lstat()
    act(file)
    assert _content(file, met) == b"second"


def test_what_is_of_another_kind_now_is_refused(file: Path) -> None:
    """A symlink, a directory, a FIFO that would block, or nothing."""
    met = file.lstat()
    file.rename(file.with_name("kept"))
    with pytest.raises(FileNotFoundError):
        open_source(bytes(file), met)
    file.symlink_to("kept")
    with pytest.raises(OSError, match="replaced"):
        open_source(bytes(file), met)
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(OSError, match="replaced"):
        open_source(bytes(file), file.lstat())
    file.unlink()
    file.mkdir()
    with pytest.raises(OSError, match="replaced"):
        open_source(bytes(file), met)


def test_what_lies_behind_a_mount_that_was_put_over_it_is_refused(file: Path) -> None:
    """It has the path, and is no part of what was walked. Control: the same, on its device."""
    met = file.lstat()
    with pytest.raises(OSError, match="replaced"):
        open_source(bytes(file), _Met(met.st_dev + 1, met.st_ino))
    fd, _ = open_source(bytes(file), _Met(met.st_dev, met.st_ino + 1))
    os.close(fd)


@pytest.mark.parametrize("what", ["the same name", "no such name"])
def test_what_lies_behind_a_symlink_is_refused(file: Path, tmp_path: Path, what: str) -> None:
    """A directory was swapped for one that shows another's files; it did not vanish either.

    Control: the directory itself, in that place, is part of the source.
    """
    met = file.lstat()
    (tmp_path / "secret").mkdir()
    if what == "the same name":
        (tmp_path / "secret/file").write_bytes(b"secret")
    file.parent.rename(tmp_path / "aside")
    file.parent.symlink_to(tmp_path / "secret")
    with pytest.raises(OSError, match="replaced"):
        open_source(bytes(file), met)
    if what == "the same name":
        file.parent.unlink()
        (tmp_path / "secret").rename(file.parent)
        assert _content(file, met) == b"secret"


def test_a_directory_above_may_be_one_that_others_can_not_list() -> None:
    """As /home often is."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:  # pytest's are closed to others
        above = Path(name)
        above.chmod(0o711)
        (above / "file").write_bytes(b"first")
        met = (above / "file").lstat()
        _replace(above / "file", b"second")
        (above / "file").chmod(0o644)

        def look() -> None:
            assert _content(above / "file", met) == b"second"
            with pytest.raises(PermissionError):
                os.listdir(above)  # noqa: PTH208 - that it fails is all

        as_nobody(look)


@pytest.mark.parametrize("gone", [1, 2, 9])
def test_a_name_that_is_gone_for_a_moment_is_looked_for_again(
    file: Path, monkeypatch: pytest.MonkeyPatch, gone: int
) -> None:
    """The kernel may find none between two renames over it; one that stays gone has vanished."""
    met, real, tries = file.lstat(), os.open, []

    def missing(path: bytes, flags: int, *, dir_fd: int | None = None) -> int:
        if path.endswith(b"file"):
            tries.append(path)
            if len(tries) <= gone:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        return real(path, flags, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", missing)
    if gone < 9:
        assert _content(file, met) == b"first"
    else:
        with pytest.raises(FileNotFoundError):
            _content(file, met)
        assert len(tries) == 1 + safe_open.TRIES


def test_without_the_right_to_spare_access_times(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the owner may; others read all the same, also what took the file's place."""
    real = os.open

    def refuse(path: bytes, flags: int, *, dir_fd: int | None = None) -> int:
        if flags & os.O_NOATIME:
            raise PermissionError(errno.EPERM, "Operation not permitted")
        return real(path, flags, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", refuse)
    met = file.lstat()
    assert _content(file, met) == b"first"
    _replace(file, b"second")
    assert _content(file, met) == b"second"


def test_a_symlink_that_took_the_place_of_another_is_described(file: Path) -> None:
    """By a descriptor: its status and its target are of one and the same."""
    link = file.with_name("link")
    link.symlink_to("one")
    met = link.lstat()
    link.unlink()
    file.with_name("beside").symlink_to("two")
    file.with_name("beside").rename(link)
    fd, found = open_described(bytes(link), met)
    try:
        assert stat.S_ISLNK(found.st_mode)
        assert safe_open.read_link(b"", fd) == b"two"
    finally:
        os.close(fd)
    link.unlink()
    link.mkdir()
    with pytest.raises(OSError, match="replaced"):
        open_described(bytes(link), met)
