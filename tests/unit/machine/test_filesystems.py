"""What the system says of file systems: mount tables as they are met, and this machine's own."""

import os
from pathlib import Path

from vault.machine.filesystems import FileSystem, learn
from vault.machine.mounts import Mount


def test_a_zfs_is_known_by_the_name_that_is_mounted(tmp_path: Path) -> None:
    """Its snapshots by what follows the @. The table is made up: no real one is tried here."""
    status = tmp_path.stat()
    named = {
        b"tank/home@monday": FileSystem("zfs", "tank/home", "tank/home@monday", is_frozen=True),
        b"tank/home": FileSystem("zfs", "tank/home", "tank/home"),
    }
    for what, expected in named.items():
        table = [Mount(status.st_dev, b"zfs", what, path=b"/")]
        assert learn(os.fsencode(tmp_path), status, table) == expected


def test_what_is_not_the_directory_that_was_met_says_nothing(tmp_path: Path) -> None:
    """Nor does a file, a link, or what is gone."""
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path)
    (tmp_path / "other").mkdir()
    status = tmp_path.stat()
    table = [Mount(status.st_dev, b"zfs", b"tank", path=b"/")]
    for name in "file", "link", "other", "gone":
        assert learn(os.fsencode(tmp_path / name), status, table) == FileSystem("zfs")


def test_a_kind_of_which_nothing_is_known_has_no_identity(tmp_path: Path) -> None:
    """Network and FUSE file systems say what their servers like."""
    status = tmp_path.stat()
    for kind in b"nfs4", b"fuse.sshfs", b"overlay", b"vfat", b"9p":
        table = [Mount(status.st_dev, kind, b"what", path=b"/")]
        assert learn(os.fsencode(tmp_path), status, table) == FileSystem(os.fsdecode(kind))
