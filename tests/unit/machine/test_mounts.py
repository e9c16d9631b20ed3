"""The mount table, as it is met."""

import os
from pathlib import Path

from vault.machine.mounts import in_memory, invents_inodes, mounts


def test_tmpfs_devices_come_from_the_mount_table(tmp_path: Path) -> None:
    """Malformed lines are passed over; without a table there are none."""
    table = tmp_path / "mountinfo"
    table.write_bytes(
        b"36 35 0:25 / /tmp rw,nosuid shared:1 - tmpfs tmpfs rw\n"
        b"37 35 8:1 / / rw - ext4 /dev/sda1 rw\n"
        b"38 35 259:3 / /x rw master:1 - ramfs none rw\n"
        b"39\n39 35 zero / /y rw - tmpfs none rw\n"
    )
    assert in_memory(table) == {os.makedev(0, 25), os.makedev(259, 3)}
    assert in_memory(tmp_path / "missing") == frozenset()


def test_devices_whose_inode_numbers_may_be_made_up_come_from_the_mount_table(
    tmp_path: Path,
) -> None:
    """FUSE of any kind, unions and shares; not what keeps its own."""
    table = tmp_path / "mountinfo"
    table.write_bytes(
        b"36 35 0:25 / /pool rw,nosuid shared:1 - fuse.mergerfs 1:2 rw\n"
        b"37 35 8:1 / / rw - ext4 /dev/sda1 rw\n"
        b"38 35 0:26 / /x rw master:1 - overlay none rw\n"
        b"39 35 0:27 / /y rw - fuseblk /dev/sdb rw\n"
    )
    assert [number for number in range(24, 29) if invents_inodes(os.makedev(0, number), table)] == [
        25,
        26,
        27,
    ]
    assert not invents_inodes(os.makedev(8, 1), table)
    assert not invents_inodes(os.makedev(0, 25), tmp_path / "missing")


def test_mountinfo_is_decoded(tmp_path: Path) -> None:
    """Octal escapes; lines that are none are passed over."""
    table = tmp_path / "mountinfo"
    table.write_bytes(b"36 35 0:25 / /a\\040b\\134 rw - tmpfs none rw\nnonsense\n")
    (found,) = mounts(table)
    assert (found.path, found.kind, found.device) == (b"/a b\\", b"tmpfs", os.makedev(0, 25))
    assert list(mounts(tmp_path / "missing")) == []
