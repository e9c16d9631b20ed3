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
options = {}
%s
mfusepy.FUSE(Odd(), sys.argv[1], foreground=True, ro=True, use_ino=True, **options)
"""

# The kernel asks for no more than a file's size, unless it is told to leave that to the program.
_DIRECT = """
if mfusepy.fuse_version_major == 2:
    options["direct_io"] = True
else:
    def init(self, info, config):
        config.direct_io = 1
    Odd.init_with_config = init
"""
_SAYS = """
Odd.files = {{"/said": bytes(range(256)) * {blocks} + b"end", "/z": b"last"}}
real = Odd.getattr
def says(self, path, fh=None):
    found = real(self, path, fh)
    if path == "/said":
        found.update(st_size={size}, st_blocks=0 if {size} < 1 else -(-{size} // 512))
    return found
Odd.getattr = says
"""


@pytest.fixture(autouse=True)
def no_waits() -> None:
    """Each file system is asked what it does."""


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


@pytest.mark.parametrize("blocks", [0, 20, 4_000, 80_000])  # 3 bytes; small, middling, in pieces
@pytest.mark.parametrize("share", [0, 1, 50, 99])
def test_content_beyond_the_size_is_read_to_its_end_and_comes_back(
    vault: Vault, repository: Path, mounted: Mount, blocks: int, share: int
) -> None:
    """Whatever share of it, in percent, the file says that it has (0: that it is empty)."""
    content = bytes(range(256)) * blocks + b"end"
    says = _SAYS.format(blocks=blocks, size=len(content) * share // 100)
    with mounted(_DIRECT + says) as place:
        assert (place / "said").stat().st_size < len(content)
        for _ in range(2):  # the next run can't tell that it is unchanged, or reads it again
            code, _, err = vault("snapshot", place, "--name", "odd")
            assert code == 0, err
        code, _, err = vault("restore", "odd", place.parent / "out")
        assert code == 0, err
    assert (place.parent / "out/said").read_bytes() == content
    assert (place.parent / "out/z").read_text() == "last"


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
    monkeypatch.setattr("vault.snapshot.walk.MAX_PATH", 200)
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
    monkeypatch.setattr("vault.snapshot.walk.MAX_NAMES", 1000)
    odd = 'Odd.directories = {"/", "/bad"}; good = Odd.listed; '
    odd += 'Odd.listed = lambda s, p: map(str, range(5000)) if p == "/bad" else good(s, p)'
    with mounted(odd) as place:
        code, _, err = vault("snapshot", place, "--name", "odd")
        assert code == 3, err
        assert "more than 1,000 names" in err
    assert vault("ls", "2", "/z")[:2] == (0, "z\n")


# --- entries that a reader would refuse (I11) ---

_ODD_ENTRIES = """
Odd.more, Odd.xattrs, Odd.target = {}, {}, "a"
plain = Odd.getattr
Odd.getattr = lambda s, p, fh=None: {**plain(s, p, fh), **s.more.get(p, {})}
Odd.readlink = lambda s, p: s.target
Odd.listxattr = lambda s, p: s.xattrs.get(p, ([], b""))[0]
Odd.getxattr = lambda s, p, name, position=0: s.xattrs[p][1] if p in s.xattrs else no_such()
def no_such():
    raise mfusepy.FuseOSError(errno.ENODATA)
"""
_YEAR_3000 = 32_503_680_000 * 10**9
_MANY = [f"user.{number:03}" for number in range(90)]


@pytest.mark.parametrize(
    ("odd", "code", "said"),
    [
        ('Odd.more = {"/dup": {"st_ctime": %d}}' % _YEAR_3000, 0, ""),  # noqa: UP031 - braces
        ('Odd.more = {"/dup": {"st_ctime": -(2**62) * 10**9}}', 0, ""),
        ('Odd.more = {"/dup": {"st_mtime": 2**62 * 10**9}}', 0, "attributes: dup: its mtime"),
        ('Odd.more = {"/": {"st_mtime": -(2**62) * 10**9}}', 0, "its mtime"),
        ('Odd.xattrs = {"/dup": (["user.b", "user.a", "user.b"], b"v")}', 0, ""),
        ('Odd.xattrs = {"/": (["user.a", "user.a"], b"v")}', 0, ""),
        (f'Odd.xattrs = {{"/dup": ({_MANY}, bytes(60_000))}}', 3, "over 4 MiB"),
        (f'Odd.xattrs = {{"/": ({_MANY}, bytes(60_000))}}', 3, "over 4 MiB"),
        ('Odd.more = {"/dup": {"st_uid": 2**32 - 2, "st_gid": 2**32 - 1}}', 0, ""),
        ('Odd.more = {"/dup": {"st_mode": stat.S_IFCHR, "st_rdev": 2**32 - 1}}', 0, ""),
        ('Odd.more = {"/dup": {"st_mode": 0o170644}}', 3, "unreadable: dup"),
        ('Odd.more = {"/dup": {"st_mode": stat.S_IFLNK}}; Odd.target = ""', 3, "link target"),
        ('Odd.more = {"/dup": {"st_mode": stat.S_IFLNK | 0o755}}', 0, ""),
        ('Odd.more = {"/dup": {"st_mode": stat.S_IFLNK | 0o777}}', 0, ""),  # the control
        ("pass", 0, ""),  # another control
    ],
)
def test_an_entry_that_no_reader_would_take_is_mended_or_a_problem_of_its_own(  # noqa: PLR0917 - fixtures
    vault: Vault, repository: Path, mounted: Mount, odd: str, code: int, said: str
) -> None:
    """All else can be listed, read and restored, and a second run says the same as the first."""
    with mounted(f"{_ODD_ENTRIES}\n{odd}\n") as place:
        for _ in range(2):
            found, _, err = vault("snapshot", place, "--name", "odd")
            assert found == code, err
            warnings = [line for line in err.splitlines() if "still on this host" not in line]
            assert said in err if said else not warnings
            assert {"a", "z"} <= set(vault("ls", "odd", "/")[1].split())
            assert vault("cat", "odd", "z")[:2] == (0, "last")
        assert vault("verify", "odd")[0] == 0
        found, _, err = vault("restore", "odd", place.parent / "out")
        assert found in ({0} if code == 0 and not said else {0, 3}), err
    assert (place.parent / "out/a").read_text() == "first"
    assert (place.parent / "out/z").read_text() == "last"


def test_an_attribute_that_is_listed_twice_comes_back_once(
    vault: Vault, repository: Path, mounted: Mount
) -> None:
    """Each name once, with its value; nothing is reported."""
    odd = 'Odd.xattrs = {"/dup": (["user.b", "user.a", "user.b"], b"v")}'
    with mounted(f"{_ODD_ENTRIES}\n{odd}\n") as place:
        assert vault("snapshot", place, "--name", "odd")[0] == 0
        assert vault("restore", "odd", place.parent / "out")[0] == 0
    restored = place.parent / "out/dup"
    assert sorted(os.listxattr(restored)) == ["user.a", "user.b"]
    assert os.getxattr(restored, "user.b") == b"v"


def test_names_that_no_file_system_here_can_have_are_left_out_of_a_restore(
    vault: Vault, repository: Path, mounted: Mount
) -> None:
    """All else is restored; what they hold is stored, and can be had by `cat` (I11)."""
    long, deep = "n" * 300, "d" * 260
    odd = f'Odd.directories = {{"/", "/{deep}"}}; '
    odd += f'Odd.files = {{"/a": b"first", "/{long}": b"long", "/{deep}/b": b"below"}}'
    with mounted(odd) as place:
        code, _, err = vault("snapshot", place, "--name", "odd")
        assert code == 0, err
    assert vault("cat", "odd", long)[:2] == (0, "long")
    code, out, err = vault("restore", "odd", place.parent / "out")
    assert code == 3, err
    assert "names: 3" in out
    assert "3 names with a part of over 255 bytes" in err
    assert [path.name for path in (place.parent / "out").iterdir()] == ["a"]
    code, out, err = vault("restore", "odd", place.parent / "some", "--include", "a")
    assert code == 0, err
    assert "left out" not in out
