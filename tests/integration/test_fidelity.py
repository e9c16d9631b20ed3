"""Everything a file system holds comes back: compared by programs that are not ours."""

import os
import shutil
import socket
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

import pytest

Vault: TypeAlias = Callable[..., tuple[int, str, str]]

IS_ROOT = os.geteuid() == 0
NANOSECONDS = 1_234_567_890_123_456_789
BEFORE_1970 = -86_400 * 10**9 - 1

needs_root = pytest.mark.skipif(not IS_ROOT, reason="devices, owners and capabilities are root's")


def _needs(program: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(
        shutil.which(program) is None, reason=f"{program} is not installed; .ci/run installs it"
    )


def _sparse(path: Path) -> None:
    """Data in the middle of holes, as disk images have."""
    with path.open("wb") as file:
        file.truncate(64 << 20)
        for offset in (4 << 20, 40 << 20):
            file.seek(offset)
            file.write(os.urandom(300_000))


@pytest.fixture
def hostile(home: Path) -> Iterator[Path]:
    """A tree of all that backup tools are known to lose."""
    top = home / "hostile"
    top.mkdir()
    _sparse(top / "sparse")
    with (top / "hole").open("wb") as file:
        file.truncate(8 << 20)
    for name in (b"not utf-8 \xff\xfe", b"new\nline", b"\x1b[31mred\x1b[0m", b"-rf", b" ", b"\\"):
        (top / os.fsdecode(name)).write_bytes(name)
    for case in ("Case", "case", "CASE"):
        (top / case).write_text(case)
    for directory in ("a/b", "z/y"):
        (top / directory).mkdir(parents=True)
    (top / "a/b/first").write_bytes(os.urandom(5000))
    (top / "z/y/second").hardlink_to(top / "a/b/first")
    (top / "a/third").hardlink_to(top / "a/b/first")
    os.mkfifo(top / "fifo", 0o640)
    (top / "dangling").symlink_to("../nowhere/\x1b[0m")
    (top / "absolute").symlink_to("/etc/passwd")
    (top / "setid").write_bytes(b"#!/bin/sh\n")
    (top / "setid").chmod(0o6755)
    (top / "sticky").mkdir(mode=0o777)
    (top / "sticky").chmod(0o1777)
    (top / "unreadable").write_bytes(b"secret")
    (top / "unreadable").chmod(0o400)
    (top / "read-only").mkdir()
    (top / "read-only/file").write_bytes(b"x")
    (top / "empty").write_bytes(b"")
    for path, moment in (("a", NANOSECONDS), ("empty", BEFORE_1970), ("read-only", BEFORE_1970)):
        os.utime(top / path, ns=(moment, moment))
    os.utime(top / "dangling", ns=(NANOSECONDS, NANOSECONDS), follow_symlinks=False)
    os.setxattr(top / "empty", "user.note", b"\x00binary\xff")
    os.setxattr(top / "a", "user.on-directory", b"yes")
    (top / "read-only").chmod(0o555)
    os.utime(top, ns=(NANOSECONDS, NANOSECONDS))
    yield top
    (top / "read-only").chmod(0o755)


def _recover(vault: Vault, source: Path, *, code: int = 0) -> Path:
    target = source.with_name("restored")
    taken, _, err = vault("snapshot", source, "--name", "tree")
    assert taken == 0, err
    restored, out, err = vault("restore", "tree", target)
    assert restored == code, err
    assert ("recovered" in out) is (code == 0)
    return target


def _holes(path: Path) -> list[tuple[int, int]]:
    """Runs of data by SEEK_DATA and SEEK_HOLE."""
    runs = []
    size = path.stat().st_size
    with path.open("rb") as file:
        at = 0
        while at < size:
            try:
                start = os.lseek(file.fileno(), at, os.SEEK_DATA)
            except OSError:
                break
            at = os.lseek(file.fileno(), start, os.SEEK_HOLE)
            runs.append((start, at))
    return runs


def _rsync(source: Path, target: Path) -> str:
    flags = "-aHAXn" if IS_ROOT else "-aHXn"
    command = ["rsync", flags, "--checksum", "--modify-window=-1", "--delete", "-i"]
    done = subprocess.run(
        [*command, f"{source}/", f"{target}/"], capture_output=True, text=True, check=False
    )
    return done.stdout + done.stderr


@_needs("rsync")
def test_a_hostile_tree_comes_back_to_the_nanosecond(
    vault: Vault, repository: Path, hostile: Path
) -> None:
    """Nothing is left to do for rsync: names, links, modes, owners, times, ACLs, bytes."""
    target = _recover(vault, hostile)
    assert _rsync(hostile, target) == ""
    for path in ("", "a", "empty", "read-only", "dangling"):
        before, after = (os.lstat(top / path) for top in (hostile, target))
        assert before.st_mtime_ns == after.st_mtime_ns


def test_holes_come_back_as_holes_and_take_no_space(
    vault: Vault, repository: Path, hostile: Path
) -> None:
    """Where data is and where it is not; a snapshot of holes stores next to nothing."""
    target = _recover(vault, hostile)
    for name in ("sparse", "hole"):
        assert _holes(target / name) == _holes(hostile / name)
        assert (target / name).stat().st_blocks <= (hostile / name).stat().st_blocks
    stored = sum(path.stat().st_size for path in repository.rglob("*") if path.is_file())
    assert stored < 2_000_000


def test_a_file_over_4_gib_comes_back(vault: Vault, repository: Path, home: Path) -> None:
    """Offsets beyond 32 bits; all but the ends is a hole, or this would take minutes."""
    (home / "large").mkdir()
    with (home / "large/file").open("wb") as file:
        file.write(b"begin")
        file.seek((4 << 30) + 1)
        file.write(b"end")
    target = _recover(vault, home / "large")
    assert (target / "file").stat().st_size == (4 << 30) + 4
    with (target / "file").open("rb") as file:
        assert file.read(5) == b"begin"
        file.seek(4 << 30)
        assert file.read() == b"\0end"


@needs_root
@_needs("setcap")
@_needs("setfacl")
def test_what_only_root_can_set_comes_back(vault: Vault, repository: Path, hostile: Path) -> None:
    """Owners, devices, ACLs, default ACLs, capabilities: as getfacl, getcap and stat say."""
    (hostile / "server").write_bytes(b"#!/bin/sh\n")
    subprocess.run(["setcap", "cap_net_bind_service=ep", hostile / "server"], check=True)
    subprocess.run(["setfacl", "-m", "u:12345:rwx,g:23456:r", hostile / "server"], check=True)
    subprocess.run(["setfacl", "-d", "-m", "u:12345:rx", hostile / "a"], check=True)
    os.mknod(hostile / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(hostile / "loop", stat.S_IFBLK | 0o660, os.makedev(7, 200))
    os.chown(hostile / "server", 12345, 23456)
    subprocess.run(["setcap", "cap_net_bind_service=ep", hostile / "server"], check=True)
    os.chown(hostile / "dangling", 4_000_000_000, 4_000_000_000, follow_symlinks=False)
    target = _recover(vault, hostile)
    assert _rsync(hostile, target) == ""
    for command in (["getfacl", "-pR"], ["getcap", "-r"], ["stat", "-c", "%n %F %t:%T %u:%g %a"]):
        said = []
        for top in (hostile, target):
            names = sorted(str(path) for path in top.rglob("*")) if command[0] == "stat" else [top]
            done = subprocess.run([*command, *names], capture_output=True, check=True)
            said.append(done.stdout.replace(os.fsencode(top), b""))
        assert said[0] == said[1]


def test_a_socket_is_counted_and_left_out(vault: Vault, repository: Path, hostile: Path) -> None:
    """Nothing can bring it back to life; the snapshot is complete without it."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(hostile / "s"))
        code, out, err = vault("--json", "snapshot", hostile, "--name", "tree")
    assert code == 0, err
    assert '"sockets": 1' in out
    assert vault("restore", "tree", hostile.with_name("out"))[0] == 0
    assert not (hostile.with_name("out") / "s").exists()


def test_very_many_links_and_a_directory_of_thousands(
    vault: Vault, repository: Path, home: Path
) -> None:
    """One inode under 1,000 names, and 3,000 names in one directory."""
    tree = home / "many"
    tree.mkdir()
    (tree / "0").write_bytes(b"shared")
    for number in range(1, 1000):
        (tree / str(number)).hardlink_to(tree / "0")
    (tree / "crowd").mkdir()
    for number in range(3000):
        (tree / "crowd" / f"{number:05}").write_bytes(b"%d" % number)
    target = _recover(vault, tree)
    assert (target / "0").stat().st_nlink == 1000
    assert len(list((target / "crowd").iterdir())) == 3000
    assert (target / "crowd/02999").read_bytes() == b"2999"


def test_paths_longer_than_path_max_come_back(vault: Vault, repository: Path, home: Path) -> None:
    """The kernel takes 4,096 bytes of path at once; trees do not care."""
    tree = home / "deep"
    tree.mkdir()
    _descend(tree, 25, create=True)
    target = _recover(vault, tree)
    assert _descend(target, 25, create=False) == b"at the bottom"


def _descend(top: Path, depth: int, *, create: bool) -> bytes:
    fd = os.open(top, os.O_RDONLY)
    for _ in range(depth):
        if create:
            os.mkdir("d" * 200, dir_fd=fd)
        inner = os.open("d" * 200, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = inner
    file = os.open("file", os.O_RDWR | (os.O_CREAT if create else 0), 0o600, dir_fd=fd)
    if create:
        os.write(file, b"at the bottom")
        os.lseek(file, 0, os.SEEK_SET)
    content = os.read(file, 100)
    os.close(file)
    os.close(fd)
    return content


@needs_root
def test_a_plain_user_restores_all_but_owners_and_says_so(
    vault: Vault, repository: Path, hostile: Path, home: Path
) -> None:
    """Exit 3 with the list; content, modes, times and links are proven all the same."""
    os.chown(hostile / "empty", 12345, 12345)
    assert vault("snapshot", hostile, "--name", "tree")[0] == 0
    for path in [home, *home.rglob("*")]:
        if hostile not in path.parents and path != hostile:
            os.chown(path, 65534, 65534, follow_symlinks=False)
    for parent in home.parents:
        if parent.stat().st_mode & 0o111 != 0o111:  # made by pytest, for root alone
            parent.chmod(0o711)
    child = os.fork()
    if child == 0:  # pragma: no cover - another user's process
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
        code, out, err = vault("restore", "tree", home / "restored")
        (home / "said").write_text(f"{code}\n{out}\n{err}")
        os._exit(0)
    os.waitpid(child, 0)
    said = (home / "said").read_text()
    assert said.startswith("3\n"), said
    assert "owner" in said
    assert "recovered" not in said
    assert (home / "restored/empty").stat().st_uid == 65534
    assert (home / "restored/a/b/first").read_bytes() == (hostile / "a/b/first").read_bytes()
    assert (home / "restored/z/y/second").stat().st_nlink == 3
    assert not (home / "restored/setid").stat().st_mode & stat.S_ISUID


@needs_root
@_needs("setcap")
def test_privileges_of_an_untrusted_snapshot_can_be_left_out(
    vault: Vault, repository: Path, hostile: Path
) -> None:
    """A file restored from a host that was taken over lends nobody its owner's rights."""
    (hostile / "server").write_bytes(b"#!/bin/sh\n")
    subprocess.run(["setcap", "cap_setuid=ep", hostile / "server"], check=True)
    assert vault("snapshot", hostile, "--name", "tree")[0] == 0
    target = hostile.with_name("restored")
    code, out, err = vault("restore", "--drop-privileges", "tree", target)
    assert code == 3, err
    assert "recovered" not in out
    assert "setid" in out
    for path in target.rglob("*"):
        if path.is_file() and not path.is_symlink():
            assert not path.stat().st_mode & (stat.S_ISUID | stat.S_ISGID)
            assert "security.capability" not in os.listxattr(path)
    assert (target / "setid").stat().st_mode & 0o777 == 0o755
