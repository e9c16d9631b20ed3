"""File systems that answer oddly, through the kernel: no name of theirs ends a snapshot."""

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

import pytest

Vault: TypeAlias = Callable[..., tuple[int, str, str]]
Mount: TypeAlias = Callable[[str], contextlib.AbstractContextManager[Path]]


def _missing() -> str:
    """What mounting lacks here; empty if nothing."""
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        return "/dev/fuse is not there, or not ours to open"
    if not (shutil.which("fusermount") or shutil.which("fusermount3")):
        return "fusermount is not installed"
    try:
        import mfusepy
    except (ImportError, OSError) as error:
        return str(error)
    return "" if mfusepy else "mfusepy is empty"


pytestmark = pytest.mark.skipif(bool(_missing()), reason=_missing())

_PROGRAM = """
import errno, stat, sys, mfusepy
class Odd(mfusepy.Operations):
    use_ns = True
    number, links, names, files = {}, 1, None, {"/a": b"first", "/dup": b"twice", "/z": b"last"}
    directories = {"/"}
    def getattr(self, path, fh=None):
        times = dict(st_mtime=10**18, st_ctime=10**18, st_atime=10**18)
        if path in self.directories:
            return dict(st_mode=stat.S_IFDIR | 0o755, st_nlink=2, st_ino=1, **times)
        if path not in self.files:
            raise mfusepy.FuseOSError(errno.ENOENT)
        return dict(st_mode=stat.S_IFREG | 0o644, st_nlink=self.links,
            st_size=len(self.files[path]),
            st_ino=self.number.get(path, 2 + sorted(self.files).index(path)), **times)
    def readdir(self, path, fh):
        return ((name, {"st_ino": 9}, 0) for name in self.listed(path))
    def listed(self, path):
        below = [name.rpartition("/")[2] for name in [*self.files, *self.directories]
            if name != path and (name.rpartition("/")[0] or "/") == path]
        return [".", "..", *(self.names or below)]
    def read(self, path, size, offset, fh):
        return self.files[path][offset:offset + size]
%s
mfusepy.FUSE(Odd(), sys.argv[1], foreground=True, ro=True, use_ino=True)
"""


@pytest.fixture
def mounted(home: Path) -> Iterator[Mount]:
    """Mounts a file system of three files, changed by what is given."""
    with contextlib.ExitStack() as stack:

        @contextlib.contextmanager
        def mount(changes: str) -> Iterator[Path]:
            place = home / "odd"
            place.mkdir()
            program = subprocess.Popen([sys.executable, "-c", _PROGRAM % changes, place])
            stack.callback(program.wait)
            tool = shutil.which("fusermount") or "fusermount3"
            stack.callback(lambda: subprocess.run([tool, "-u", "-z", place], check=False))
            while not os.path.ismount(place):
                assert program.poll() is None
                time.sleep(0.01)
            yield place

        yield mount


def test_a_name_that_is_listed_twice_is_stored_once(
    vault: Vault, repository: Path, mounted: Mount
) -> None:
    """With a warning; the snapshot can be listed and restored (restic/restic#1866)."""
    with mounted('Odd.names = ["z", "a", "dup", "dup", "a"]') as place:
        code, _, err = vault("snapshot", place, "--name", "odd")
        assert code == 0, err
        assert "lists 2 names twice" in err
        assert vault("ls", "odd", "/")[1].split() == ["a", "dup", "z"]
        code, _, err = vault("restore", "odd", place.parent / "out")
        assert code == 0, err
    assert (place.parent / "out/dup").read_text() == "twice"


def test_one_inode_number_for_two_files_is_two_files(
    vault: Vault, repository: Path, mounted: Mount
) -> None:
    """Same size, same times, two names: mergerfs and unionfs may say so."""
    odd = 'Odd.files = {"/a": b"one", "/b": b"two", "/c": b"one"}; Odd.links = 2; '
    with mounted(odd + 'Odd.number = {"/a": 7, "/b": 7, "/c": 7}') as place:
        assert (place / "a").stat().st_ino == (place / "b").stat().st_ino
        code, _, err = vault("snapshot", place, "--name", "odd")
        assert code == 0, err
        code, _, err = vault("restore", "odd", place.parent / "out")
        assert code == 0, err
    out = place.parent / "out"
    assert {path.name: path.read_text() for path in out.iterdir()} == {
        "a": "one",
        "b": "two",
        "c": "one",
    }


def test_a_name_with_a_slash_makes_its_directory_a_problem_of_its_own(
    vault: Vault, repository: Path, mounted: Mount
) -> None:
    """The kernel refuses such a list; all else is stored, and the snapshot is incomplete."""
    odd = 'Odd.directories = {"/", "/bad"}; good = Odd.listed; '
    odd += 'Odd.listed = lambda s, p: ["x/y"] if p == "/bad" else good(s, p)'
    with mounted(odd) as place:
        code, _, err = vault("snapshot", place, "--name", "odd")
        assert code == 3, err
    assert vault("ls", "2", "/z")[:2] == (0, "z\n")


def test_a_directory_that_lies_in_itself_for_ever_has_an_end(
    vault: Vault, repository: Path, mounted: Mount, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where paths get longer than can be stored; the rest is there."""
    monkeypatch.setattr("vault.source._MAX_PATH", 200)
    odd = 'Odd.directories = type("D", (), {"__contains__": lambda s, p: set(p) <= set("/d"),'
    odd += ' "__iter__": lambda s: iter(())})(); good = Odd.listed; '
    odd += 'Odd.listed = lambda s, p: [*(["d"] if set(p) <= set("/d") else []), *good(s, p)]'
    with mounted(odd) as place:
        code, _, err = vault("snapshot", place, "--name", "odd")
        assert code == 3, err
    assert vault("ls", "2", "/z")[:2] == (0, "z\n")
    assert vault("restore", "2", place.parent / "out")[0] == 0


def test_a_directory_without_an_end_is_left(
    vault: Vault, repository: Path, mounted: Mount, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its list is not gone on with; what lies beside it is stored."""
    monkeypatch.setattr("vault.source.MAX_NAMES", 1000)
    monkeypatch.setattr("vault.source._NAMES", 100)
    odd = 'Odd.directories = {"/", "/bad"}; good = Odd.listed; '
    odd += 'Odd.listed = lambda s, p: map(str, range(5000)) if p == "/bad" else good(s, p)'
    with mounted(odd) as place:
        code, _, err = vault("snapshot", place, "--name", "odd")
        assert code == 3, err
        assert "more than 1,000 names" in err
    assert vault("ls", "2", "/z")[:2] == (0, "z\n")
