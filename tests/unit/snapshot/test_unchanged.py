"""What a list of entries proves elsewhere: the decision alone, on every machine."""

import os
from pathlib import Path
from typing import Any

import pytest

from vault.machine.filesystems import FileSystem
from vault.snapshot.list_records import Ground
from vault.snapshot.unchanged import FOREVER, LONG_AGO, MARGIN_NS, bound, newest_above

HERE, THERE = 1, 2  # devices
NEWEST = 10**18


def _ext4(volume: str = "", *, identity: str = "uuid", is_frozen: bool = True) -> FileSystem:
    return FileSystem("ext4", identity, volume, is_frozen=is_frozen)


def _btrfs(volume: str, taken: int, *, of: str = "live") -> FileSystem:
    return FileSystem("btrfs", of, volume, is_frozen=True, taken=taken)


def _bound(before: FileSystem, now: FileSystem, **changes: Any) -> int:
    values: dict[str, Any] = {"device": HERE, "seen": NEWEST, "same_path": True} | changes
    ground = Ground(HERE, before, NEWEST, b"newest")
    return bound(ground, now, values["device"], values["seen"], same_path=values["same_path"])


@pytest.mark.parametrize(
    ("file_system", "device"),
    [
        (_ext4(is_frozen=False), HERE),
        (_ext4("dm LVM-a"), THERE),  # the volume names itself, whatever its number is
        (_btrfs("one", 5), THERE),
        (FileSystem("nfs4"), HERE),
        (FileSystem("fuse.x"), HERE),
    ],
)
def test_at_the_same_path_the_same_file_system_needs_nothing_more(
    file_system: FileSystem, device: int
) -> None:
    """Its entries are judged by when they were read, as ever."""
    assert _bound(file_system, file_system, device=device) == FOREVER


@pytest.mark.parametrize(
    ("before", "now", "changes"),
    [
        (_ext4("dm LVM-a"), _ext4("dm LVM-b"), {}),  # another snapshot at the same mount point
        (_ext4("dm LVM-a"), _ext4("dm LVM-b"), {"same_path": False, "device": THERE}),
        (_ext4(), _ext4(), {"same_path": False}),
        (_ext4(is_frozen=False), _ext4(is_frozen=False), {"device": THERE}),
        (FileSystem("nfs4"), FileSystem("nfs4"), {"device": THERE}),  # mounted anew
        (_ext4("a"), _ext4("b"), {"seen": NEWEST + 5}),
        (_btrfs("one", NEWEST), _btrfs("two", NEWEST + 5), {"seen": 0}),
        (_btrfs("two", NEWEST + 5), _btrfs("one", NEWEST), {"seen": 0}),
    ],
)
def test_elsewhere_a_minute_before_the_older_moment_counts(
    before: FileSystem, now: FileSystem, changes: dict[str, Any]
) -> None:
    """Of last time and of now: what changed later may have changed again in the same tick."""
    assert _bound(before, now, **changes) == NEWEST - MARGIN_NS
    assert MARGIN_NS == 60 * 10**9


@pytest.mark.parametrize(
    ("before", "now", "changes"),
    [
        (_ext4(), _ext4(identity="other"), {}),
        (_ext4(), FileSystem("xfs", "uuid"), {}),
        (_ext4(identity=""), _ext4(identity=""), {"same_path": False}),
        (_ext4(is_frozen=False), _ext4(), {"same_path": False}),
        (_ext4(), _ext4(is_frozen=False), {"same_path": False}),
        (FileSystem("nfs4"), FileSystem("nfs4"), {"same_path": False}),
        (_btrfs("one", 5), _btrfs("two", 9, of="another"), {}),
    ],
)
def test_what_is_not_known_to_be_one_file_system_proves_nothing(
    before: FileSystem, now: FileSystem, changes: dict[str, Any]
) -> None:
    """Another type, UUID or subvolume; none that is known; one that may be a copy written to."""
    assert _bound(before, now, **changes) == LONG_AGO


def test_a_file_system_that_went_back_is_judged_by_what_it_still_has() -> None:
    """At the same PATH, too: the newest of last time is not there any more."""
    live = _ext4(is_frozen=False)
    assert _bound(live, live, seen=NEWEST - 7) == NEWEST - 7 - MARGIN_NS
    assert _bound(live, live, seen=None) == FOREVER  # that can't be told
    assert _bound(_ext4("a"), _ext4("b"), seen=None) == -MARGIN_NS


def test_the_newest_is_looked_for_up_to_the_top(tmp_path: Path) -> None:
    """What takes it away leaves its time in a directory above it."""
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/b/file").touch()
    top, device = os.fsencode(tmp_path), tmp_path.stat().st_dev

    def newest() -> int:
        found = newest_above(top, b"a/b/file", device)
        assert found is not None
        return found

    before = newest()
    assert before == max(path.stat().st_ctime_ns for path in (tmp_path, *tmp_path.rglob("*")))
    (tmp_path / "a/b/file").unlink()
    gone = newest()
    assert gone == (tmp_path / "a/b").stat().st_ctime_ns >= before
    (tmp_path / "a/b").rename(tmp_path / "c")
    assert newest() == (tmp_path / "a").stat().st_ctime_ns >= gone
    assert newest_above(top, b"a/b", device + 1) is None
