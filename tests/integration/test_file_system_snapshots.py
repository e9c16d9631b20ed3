"""Snapshots of a real file system as the source, at another PATH each time."""

import contextlib
import fcntl
import os
import shutil
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.lab import Lab
from vault.machine import filesystems, mounts
from vault.snapshot import safe_open, unchanged

_CREATE_SNAPSHOT = (
    1 << 30 | 4096 << 16 | 0x94 << 8 | 23
)  # BTRFS_IOC_SNAP_CREATE_V2 of linux/btrfs.h
_READ_ONLY = 2
_OLD, _OLDER = 1_700_000_000, 1_600_000_000  # seconds since 1970


def _run(*command: str | Path, text: str | None = None) -> str:
    done = subprocess.run(
        list(map(str, command)), check=False, capture_output=True, text=True, input=text
    )
    if done.returncode:
        raise OSError(f"{command[0]}: {done.stderr.strip()}")
    return done.stdout


class _Loops:
    """File systems in files, mounted where a test likes."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self._stack = stack

    def mount(self, image: Path, at: Path, options: str = "ro") -> Path:
        at.mkdir(exist_ok=True)
        _run("mount", "-o", f"loop,{options}", image, at)
        self._stack.callback(subprocess.run, ["umount", "-l", str(at)], check=False, stderr=-3)
        return at

    def unmount(self, at: Path) -> None:
        _run("umount", at)


@pytest.fixture
def loops() -> Iterator[_Loops]:
    """Everything is unmounted at the end."""
    if os.geteuid() != 0:
        pytest.skip("only root mounts")
    with contextlib.ExitStack() as stack:
        yield _Loops(stack)


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that a run opened since the list was cleared."""
    opened: list[str] = []
    real = safe_open.open_source

    def open_source(full: bytes, expected: Any) -> tuple[int, os.stat_result]:
        opened.append(os.fsdecode(full.rpartition(b"/")[2]))
        return real(full, expected)

    monkeypatch.setattr(safe_open, "open_source", open_source)
    return opened


# --- btrfs ---


class _Btrfs:
    def __init__(self, top: Path) -> None:
        self.top = top
        self.live = self.subvolume("live")

    def subvolume(self, name: str) -> Path:
        _run("btrfs", "-q", "subvolume", "create", self.top / name)
        return self.top / name

    def snapshot(self, name: str, of: Path | None = None, flags: int = _READ_ONLY) -> Path:
        """By the system call itself: a program would take longer than a tick of the clock."""
        arguments = bytearray(4096)
        with _directory(self.top) as into, _directory(of or self.live) as source:
            struct.pack_into("<qQQ", arguments, 0, source, 0, flags)
            arguments[56 : 56 + len(name)] = name.encode()
            fcntl.ioctl(into, _CREATE_SNAPSHOT, arguments)
        return self.top / name


@contextlib.contextmanager
def _directory(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield fd
    finally:
        os.close(fd)


@pytest.fixture
def btrfs(loops: _Loops, tmp_path: Path) -> _Btrfs:
    """One in a file, with an empty subvolume."""
    if not (shutil.which("mkfs.btrfs") and shutil.which("btrfs")):
        pytest.skip("btrfs-progs is not installed")
    image = tmp_path / "image"
    with image.open("wb") as file:
        file.truncate(300 << 20)
    try:
        _run("mkfs.btrfs", "-q", image)
        return _Btrfs(loops.mount(image, tmp_path / "top", "rw"))
    except OSError as error:
        pytest.skip(f"no btrfs can be mounted: {error}")


def _same_status(one: Path, other: Path) -> bool:
    a, b = one.stat(), other.stat()
    fields = "st_ino", "st_size", "st_mtime_ns", "st_ctime_ns"
    return all(getattr(a, field) == getattr(b, field) for field in fields)


def _within_a_tick(btrfs: _Btrfs) -> tuple[Path, Path]:
    """Two snapshots with one file of one status and two contents, A and B."""
    for number in range(300):
        with (btrfs.live / "file").open("wb", buffering=0) as file:
            file.write(b"A")
            before = btrfs.snapshot(f"a{number}")
            os.pwrite(file.fileno(), b"B", 0)
        after = btrfs.snapshot(f"b{number}")
        if _same_status(before / "file", after / "file"):
            return before, after
    pytest.skip("no two writes around a snapshot got one time")


def test_the_next_snapshot_of_a_btrfs_is_not_read_again(
    lab: Lab, btrfs: _Btrfs, read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the PATH nor the device number is last time's; what is new is read."""
    monkeypatch.setattr(unchanged, "MARGIN_NS", 0)  # else the test would have to wait for it
    for name in "xyz":
        (btrfs.live / name).write_text(name * 5000)
    (btrfs.live / "link").hardlink_to(btrfs.live / "x")
    _run("btrfs", "filesystem", "sync", btrfs.top)
    one = btrfs.snapshot("one")
    lab.snapshot(one)
    (btrfs.live / "y").write_text("new")
    two = btrfs.snapshot("two")
    assert one.stat().st_dev != two.stat().st_dev
    read.clear()
    report = lab.snapshot(two)
    assert read == ["y"]
    assert report.body.counts.files == 4
    assert lab.contents(report.record)["y"] == b"new"
    read.clear()
    lab.snapshot(btrfs.snapshot("three"))  # what was unchanged then is on the second's device
    assert read in ([], ["y"])  # it may have been written in the tick of the second


@pytest.mark.parametrize("is_guarded", [True, False])
@pytest.mark.parametrize("is_back", [False, True])
def test_a_write_in_the_tick_of_a_btrfs_snapshot_is_not_lost(
    lab: Lab, btrfs: _Btrfs, monkeypatch: pytest.MonkeyPatch, *, is_back: bool, is_guarded: bool
) -> None:
    """Its times, size and inode are those of before, whichever of the two comes first."""
    before, after = _within_a_tick(btrfs)
    if not is_guarded:
        monkeypatch.setattr(unchanged, "bound", lambda *_, **__: unchanged.FOREVER)
    first, second = (after, before) if is_back else (before, after)
    lab.snapshot(first)
    found = lab.contents(lab.snapshot(second).record)["file"]
    right = (second / "file").read_bytes()
    assert (found == right) is is_guarded


@pytest.mark.parametrize("is_guarded", [True, False])
@pytest.mark.parametrize("kind", ["others", "copies", "changed"])
def test_subvolumes_that_are_not_one_give_each_other_nothing(
    lab: Lab,
    btrfs: _Btrfs,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    *,
    is_guarded: bool,
) -> None:
    """Inode numbers of two subvolumes agree, and a script that fills both takes no tick."""
    monkeypatch.setattr(unchanged, "MARGIN_NS", 0)
    for number in range(100):
        if kind == "others":
            one, two = btrfs.subvolume(f"one{number}"), btrfs.subvolume(f"two{number}")
        else:
            one = btrfs.snapshot(f"one{number}", flags=0)
            two = btrfs.snapshot(f"two{number}", flags=0)
        for place, content in ((one, b"1"), (two, b"2")):  # as a shell does: `open` of Python
            file = os.open(place / "file", os.O_WRONLY | os.O_CREAT)  # asks for the status, and
            os.write(file, content)  # then the kernel takes a finer clock
            os.close(file)
        if _same_status(one / "file", two / "file"):
            break
    else:
        pytest.skip("no two writes got one time")
    if kind == "changed":
        for each in one, two:
            _run("btrfs", "property", "set", each, "ro", "true")
    else:
        one, two = btrfs.snapshot("last", of=one), btrfs.snapshot("this", of=two)
    if not is_guarded:
        learnt = filesystems.FileSystem("btrfs", "any", "", is_frozen=True, taken=2**62)
        monkeypatch.setattr(filesystems, "learn", lambda *_: learnt)
    lab.snapshot(one)
    found = lab.contents(lab.snapshot(two).record)["file"]
    assert (found == b"2") is is_guarded


# --- a volume with snapshots: the image of an ext4 is copied ---


class _Volume:
    """An ext4 in a file, whose times are set as no program could."""

    def __init__(self, image: Path) -> None:
        self.image = image

    def snapshot(self, name: str) -> Path:
        return Path(shutil.copyfile(self.image, self.image.with_name(name)))

    def write(self, loops: _Loops, **content: str) -> None:
        place = loops.mount(self.image, self.image.with_name("writing"), "rw")
        for name, text in content.items():
            (place / name).write_text(text)
        loops.unmount(place)

    def set_times(self, seconds: int, *names: str) -> None:
        fields = [f"{kind}time {seconds}" for kind in "mc"] + ["ctime_extra 0", "mtime_extra 0"]
        lines = [
            f"set_inode_field /{name} {field.replace('time ', 'time @')}"
            for name in names
            for field in fields
        ]
        _run("debugfs", "-w", "-f", "-", self.image, text="\n".join(lines) + "\n")


@pytest.fixture
def volume(loops: _Loops, tmp_path: Path) -> _Volume:
    """With three old files, and one that is a week younger."""
    if not (shutil.which("mkfs.ext4") and shutil.which("debugfs")):
        pytest.skip("e2fsprogs is not installed")
    image = tmp_path / "volume"
    with image.open("wb") as file:
        file.truncate(8 << 20)
    made = _Volume(image)
    try:
        _run("mkfs.ext4", "-q", "-E", "root_owner=0:0", image)
        made.write(loops, x="x", y="y", z="z", young="young")
        place = loops.mount(image, tmp_path / "look")
    except OSError as error:
        pytest.skip(f"no ext4 can be mounted: {error}")
    learnt = filesystems.learn(os.fsencode(place), place.stat(), tuple(mounts.mounts()))
    loops.unmount(place)
    if not learnt.identity:
        pytest.skip("this system does not say which file system is which")
    made.set_times(_OLD, "", "lost+found", "x", "y", "z")
    made.set_times(_OLD + 7 * 86_400, "young")
    return made


def _last(lab: Lab, loops: _Loops, image: Path, read: list[str]) -> None:
    """Take the snapshot of last time, and forget what it read."""
    lab.snapshot(loops.mount(image, image.with_name("last-time")))
    assert sorted(read) == ["x", "y", "young", "z"]
    read.clear()


def test_the_next_snapshot_of_a_volume_is_not_read_again(
    lab: Lab, loops: _Loops, volume: _Volume, read: list[str]
) -> None:
    """But for what changed in the minute of last time's newest: it may be the snapshot's own."""
    _last(lab, loops, volume.snapshot("monday"), read)
    report = lab.snapshot(loops.mount(volume.snapshot("tuesday"), volume.image.with_name("now")))
    assert read == ["young"]
    assert report.body.counts.files == 4


def test_another_snapshot_at_the_same_path_is_not_read_again_either(
    lab: Lab, loops: _Loops, volume: _Volume, read: list[str]
) -> None:
    """Nor is it taken for the one of last time, though the device number may be its."""
    monday = volume.snapshot("monday")
    _last(lab, loops, monday, read)
    place = monday.with_name("last-time")
    loops.unmount(place)
    lab.snapshot(loops.mount(volume.snapshot("tuesday"), place))
    assert read == ["young"]
    read.clear()
    lab.snapshot(place)  # now it is the one of last time
    assert not read


@pytest.mark.parametrize("is_guarded", [True, False])
@pytest.mark.parametrize("is_back", [False, True])
@pytest.mark.parametrize("is_same_path", [False, True])
def test_a_write_in_the_tick_of_a_volumes_snapshot_is_not_lost(
    lab: Lab,
    loops: _Loops,
    volume: _Volume,
    read: list[str],
    monkeypatch: pytest.MonkeyPatch,
    *,
    is_same_path: bool,
    is_back: bool,
    is_guarded: bool,
) -> None:
    """Also where the later one comes first, which holds what is much younger."""
    tick = _OLD + 7 * 86_400 + 1
    before = volume.snapshot("before")
    _Volume(before).set_times(tick, "y")
    volume.write(loops, y="Y")
    volume.set_times(tick, "y")
    if is_back:
        volume.set_times(_OLD + 30 * 86_400, "young")
    first, second = (volume.image, before) if is_back else (before, volume.image)
    _last(lab, loops, first, read)
    place = first.with_name("last-time")
    if not is_guarded:
        monkeypatch.setattr(unchanged, "bound", lambda *_, **__: unchanged.FOREVER)
    if is_same_path:
        loops.unmount(place)
    now = loops.mount(second, place if is_same_path else first.with_name("now"))
    found = lab.contents(lab.snapshot(now).record)["y"]
    assert (found == (now / "y").read_bytes()) is is_guarded


@pytest.mark.parametrize("why", ["uuid", "writable", "directory"])
def test_what_may_be_another_file_system_is_read_whole(
    lab: Lab, loops: _Loops, volume: _Volume, read: list[str], why: str
) -> None:
    """With another UUID, or written to; so is another directory of the same one."""
    if why == "directory":
        place = loops.mount(volume.image, volume.image.with_name("writing"), "rw")
        shutil.copytree(place, place / "copy", ignore=shutil.ignore_patterns("lost+found"))
        loops.unmount(place)
    _last_of = volume.snapshot("monday")
    if why == "directory":
        lab.snapshot(loops.mount(_last_of, _last_of.with_name("last-time")) / "copy")
        read.clear()
        lab.snapshot(loops.mount(volume.snapshot("tuesday"), _last_of.with_name("now")))
        assert len(read) == 8
        return
    _last(lab, loops, _last_of, read)
    tuesday = volume.snapshot("tuesday")
    if why == "uuid":
        _run("e2fsck", "-f", "-p", tuesday)  # tune2fs wants it, if a second passed since mkfs
        _run("tune2fs", "-f", "-U", "random", tuesday)
    options = "rw" if why == "writable" else "ro"
    lab.snapshot(loops.mount(tuesday, tuesday.with_name("now"), options))
    assert sorted(read) == ["x", "y", "young", "z"]


def test_what_a_killed_run_read_is_of_its_own_path(
    lab: Lab, loops: _Loops, volume: _Volume, read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its journal names no newest time; the same PATH goes on from it, another does not."""
    one = loops.mount(volume.snapshot("monday"), volume.image.with_name("one"))
    two = loops.mount(volume.snapshot("tuesday"), volume.image.with_name("two"))

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    for place, expected in ((one, 4), (two, 4), (two, 0)):
        read.clear()
        with monkeypatch.context() as patched:
            patched.setattr("vault.snapshot.publish.Publisher.publish", stop)
            with pytest.raises(KeyboardInterrupt):
                lab.snapshot(place)
        assert len(read) == expected
