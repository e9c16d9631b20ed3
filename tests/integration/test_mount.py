"""A snapshot mounted through the kernel: looked at, copied, damaged, unmounted."""

import contextlib
import errno
import filecmp
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from tests.support.forgery import forge_snapshot
from tests.support.forgery import forged_entry as entry
from vault.crypto.key_files import load_writer
from vault.model import Digest, EntryType
from vault.repository.repository import Repository
from vault.storage.choose_store import open_store

Vault: TypeAlias = Callable[..., tuple[int, str, str]]
Process: TypeAlias = Callable[..., "subprocess.Popen[str]"]
Mounted: TypeAlias = Callable[..., AbstractContextManager["subprocess.Popen[str]"]]

BIG = 6_000_000


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


@pytest.fixture
def taken(vault: Vault, repository: Path, source: Path) -> Path:
    """The source with all that makes copying hard, and a snapshot of it: number 2."""
    dice = random.Random(1)
    (source / "big").write_bytes(dice.randbytes(BIG))
    (source / os.fsdecode(b"bad\xff\n")).write_text("x")
    os.mkfifo(source / "fifo")
    with (source / "sparse").open("wb") as file:
        file.seek(5_000_000)
        file.write(b"end")
        file.truncate(9_000_000)
    (source / "many").mkdir()
    for number in range(1_500):
        (source / f"many/{number}").touch()
    (source / "void").mkdir()
    (source / "void").chmod(0o700)
    os.setxattr(source / "big", "user.key", b"value\0")
    os.utime(source / "big", ns=(0, 1_234_567_890_123_456_789))
    code, _, err = vault("snapshot", source, "--name", "data")
    assert code == 0, err
    return source


@pytest.fixture
def place(home: Path) -> Iterator[Path]:
    """Where to mount; nothing stays mounted."""
    directory = home / "mount point"
    directory.mkdir()
    yield directory
    if os.path.ismount(directory):
        tool = shutil.which("fusermount") or "fusermount3"
        subprocess.run([tool, "-u", "-z", directory], check=False)


@pytest.fixture
def mounted(process: Process, place: Path, home: Path) -> Mounted:
    """Mounts for a while; ended by a signal, as by Ctrl-C. Messages go to a file."""

    @contextmanager
    def mount(
        *, end: int = signal.SIGINT, place: Path = place
    ) -> Iterator["subprocess.Popen[str]"]:
        with (
            (home / "messages").open("w") as messages,
            process("mount", "data", place, stderr=messages) as running,
        ):
            try:
                _wait(lambda: os.path.ismount(place), running)
                yield running
            finally:
                with contextlib.suppress(ProcessLookupError):
                    running.send_signal(end)
                running.wait(timeout=30)
        assert not os.path.ismount(place)

    return mount


def _wait(condition: Callable[[], bool], running: "subprocess.Popen[str]") -> None:
    for _ in range(600):
        if condition():
            return
        assert running.poll() is None, "it ended"
        time.sleep(0.05)
    pytest.fail("it takes too long")


def test_what_is_mounted_is_what_was_taken(mounted: Mounted, taken: Path, place: Path) -> None:
    """Names, types, modes, owners, times, links, attributes, content."""
    with mounted():
        names = sorted(path.relative_to(taken) for path in taken.rglob("*"))
        assert sorted(path.relative_to(place) for path in place.rglob("*")) == names
        for name in names:
            real, seen = (taken / name).lstat(), (place / name).lstat()
            fields = ("st_mode", "st_uid", "st_gid", "st_mtime_ns", "st_nlink")
            assert [getattr(seen, f) for f in fields] == [getattr(real, f) for f in fields], name
            if (taken / name).is_symlink():
                assert (place / name).readlink() == (taken / name).readlink()
            elif (taken / name).is_file():
                assert filecmp.cmp(taken / name, place / name, shallow=False), name
        assert os.getxattr(place / "big", "user.key") == b"value\0"
        assert os.listxattr(place / "big") == ["user.key"]
        assert (place / "again").stat().st_ino == (place / "readme").stat().st_ino
        assert (place / "sparse").stat().st_blocks < 100


def test_common_tools_agree(mounted: Mounted, taken: Path, place: Path, home: Path) -> None:
    """cp, tar and grep get through all of it."""
    with mounted():
        subprocess.run(["cp", "-a", f"{place}/.", home / "copy"], check=True)
        subprocess.run(["tar", "-cf", home / "all.tar", "-C", place, "."], check=True)
        grep = subprocess.run(
            ["grep", "-rl", "localhost", place / "etc"],
            check=True,
            text=True,
            stdout=subprocess.PIPE,
        )
    assert grep.stdout.strip() == str(place / "etc/hosts")
    subprocess.run(
        ["diff", "-r", "--no-dereference", "--exclude=fifo", taken, home / "copy"], check=True
    )


def test_any_part_of_a_file_is_right(mounted: Mounted, taken: Path, place: Path) -> None:
    """Read anywhere, in any order."""
    expected = (taken / "big").read_bytes()
    dice = random.Random(2)
    with mounted(), (place / "big").open("rb", buffering=0) as file:
        for _ in range(40):
            offset, size = dice.randrange(BIG + 100), dice.randrange(1, 400_000)
            assert os.pread(file.fileno(), size, offset) == expected[offset : offset + size]


def test_nothing_can_be_changed(mounted: Mounted, taken: Path, place: Path) -> None:
    """Not even by root; and what is mounted gives no rights and no devices."""
    with mounted():
        for change in (
            (place / "new").touch,
            lambda: (place / "big").write_bytes(b""),
            (place / "big").unlink,
            lambda: (place / "big").chmod(0o777),
            (place / "dir").mkdir,
        ):
            with pytest.raises(OSError, match="Read-only") as caught:
                change()
            assert caught.value.errno == errno.EROFS
        flags = os.statvfs(place).f_flag
        assert flags & os.ST_RDONLY
        assert flags & os.ST_NOSUID
        assert flags & os.ST_NODEV


def _damage(repository: Path) -> Path:
    """Flip a bit in the middle of the pack that has the big file."""
    pack = max(repository.rglob("packs/*/*"), key=lambda path: path.stat().st_size)
    data = bytearray(pack.read_bytes())
    data[len(data) // 2] ^= 1
    pack.chmod(0o600)
    pack.write_bytes(data)
    return pack


def test_damage_is_an_io_error_and_never_other_bytes(
    mounted: Mounted, taken: Path, place: Path, repository: Path, home: Path
) -> None:
    """The rest of the file, and all other files, read on; stderr names the pack."""
    pack = _damage(repository)
    expected = (taken / "big").read_bytes()
    broken = 0
    with mounted():
        for offset in range(0, BIG, 4_096):
            with (place / "big").open("rb", buffering=0) as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
                try:
                    assert os.pread(file.fileno(), 4_096, offset) == expected[offset:][:4_096]
                except OSError as error:
                    assert error.errno == errno.EIO  # noqa: PT017 - most reads succeed
                    broken += 1
        assert 0 < broken * 4_096 < BIG * 0.8
        assert (place / "readme").read_text() == "read me\n"
    messages = (home / "messages").read_text()
    assert messages.count(f"/big is damaged: packs/{pack.parent.name}/{pack.name}") == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_unmounts(
    mounted: Mounted, taken: Path, place: Path, home: Path, number: int
) -> None:
    """Exit 0; no scratch file stays."""
    with mounted(end=number) as running:
        assert (place / "readme").read_text() == "read me\n"
    assert running.returncode == 0
    assert list((home / "cache/vault").glob("tmp*")) == []


@pytest.fixture
def forged(repository: Path, keys: Path) -> Callable[..., Any]:
    """Publishes a tree of these entries without the writer's checks."""
    key = load_writer(keys / "writer.key")
    root = Digest.parse(key.repository.root)
    opened = Repository.open(open_store(str(repository)), root, clock=lambda: datetime.now(UTC))
    return lambda *entries: forge_snapshot(opened, key, entries, data=[b"good"])


@pytest.mark.parametrize("status", [0, 3])
def test_a_bad_entry_makes_a_copy_fail_and_the_exit_code_tell(
    mounted: Mounted,
    place: Path,
    forged: Callable[..., Any],
    status: int,
) -> None:
    """All others are copied; the bad one is an I/O error, not a file that was never there."""
    bad = [entry(b"m", data=b"good", holes=((0, 100),))] if status else []
    top = entry(b"", EntryType.DIRECTORY)
    forged(top, entry(b"a", data=b"good"), *bad, entry(b"z", data=b"good"))
    target = place.parent / "copy"
    with mounted() as running:
        copy = subprocess.run(["cp", "-r", place, target], capture_output=True, check=False)
        assert (copy.returncode != 0) == bool(status), copy.stderr
        assert [(target / name).read_bytes() for name in "az"] == [b"good", b"good"]
    assert running.returncode == status
    messages = (place.parent / "messages").read_text()
    assert ("m is stepped over: its entry has impossible holes" in messages) == bool(status)
    assert ("/m is damaged" in messages) == bool(status)


def test_unmounting_ends_it(process: Process, taken: Path, place: Path) -> None:
    """By umount, as any other file system."""
    with process("mount", "data", place) as running:
        _wait(lambda: os.path.ismount(place), running)
        tool = shutil.which("fusermount") or "fusermount3"
        subprocess.run([tool, "-u", place], check=True)
        assert running.wait(timeout=30) == 0


def test_where_it_can_not_be_mounted(vault: Vault, taken: Path, home: Path) -> None:
    """Exit 2 before a passphrase is asked for."""
    (home / "full/x").mkdir(parents=True)
    for directory in ("full", "missing", "passphrase"):
        code, _, err = vault("mount", "data", directory)
        assert code == 2
        assert "can't mount at" in err
    assert vault("--json", "mount", "data", "full/x")[0] == 2
