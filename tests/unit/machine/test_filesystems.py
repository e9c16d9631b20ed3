"""What the system says of file systems: mount tables as they are met, and this machine's own."""

import os
from pathlib import Path

from vault.machine.filesystems import FileSystem, Mount, invents_inodes, learn, tmpfs_devices


def test_tmpfs_devices_come_from_the_mount_table(tmp_path: Path) -> None:
    """Malformed lines are passed over; without a table there are none."""
    table = tmp_path / "mountinfo"
    table.write_bytes(
        b"36 35 0:25 / /tmp rw,nosuid shared:1 - tmpfs tmpfs rw\n"
        b"37 35 8:1 / / rw - ext4 /dev/sda1 rw\n"
        b"38 35 259:3 / /x rw master:1 - ramfs none rw\n"
        b"39\n39 35 zero / /y rw - tmpfs none rw\n"
    )
    assert tmpfs_devices(table) == {os.makedev(0, 25), os.makedev(259, 3)}
    assert tmpfs_devices(tmp_path / "missing") == frozenset()


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


def test_a_zfs_is_known_by_the_name_that_is_mounted(tmp_path: Path) -> None:
    """Its snapshots by what follows the @. The table is made up: no real one is tried here."""
    status = tmp_path.stat()
    named = {
        b"tank/home@monday": FileSystem("zfs", "tank/home", "tank/home@monday", is_frozen=True),
        b"tank/home": FileSystem("zfs", "tank/home", "tank/home"),
    }
    for what, expected in named.items():
        table = [Mount(status.st_dev, b"zfs", what)]
        assert learn(os.fsencode(tmp_path), status, table) == expected


def test_what_is_not_the_directory_that_was_met_says_nothing(tmp_path: Path) -> None:
    """Nor does a file, a link, or what is gone."""
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path)
    (tmp_path / "other").mkdir()
    status = tmp_path.stat()
    table = [Mount(status.st_dev, b"zfs", b"tank")]
    for name in "file", "link", "other", "gone":
        assert learn(os.fsencode(tmp_path / name), status, table) == FileSystem("zfs")


def test_a_kind_of_which_nothing_is_known_has_no_identity(tmp_path: Path) -> None:
    """Network and FUSE file systems say what their servers like."""
    status = tmp_path.stat()
    for kind in b"nfs4", b"fuse.sshfs", b"overlay", b"vfat", b"9p":
        table = [Mount(status.st_dev, kind, b"what")]
        assert learn(os.fsencode(tmp_path), status, table) == FileSystem(os.fsdecode(kind))
