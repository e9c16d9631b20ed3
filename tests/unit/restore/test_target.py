"""A target is refused before anything is downloaded."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.children import needs_root
from vault.errors import ConfigError, LocalError
from vault.restore.target import (
    Space,
    TargetState,
    check_space,
    inspect,
    open_space,
    recheck,
)


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Path]:
    """An empty mount point with an odd name."""
    place = tmp_path / "a mount\tpoint"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", place], check=True)
    yield place
    subprocess.run(["umount", place], check=True)


def test_missing_empty_and_full(tmp_path: Path) -> None:
    """Missing and empty may be restored to; a full one only with --replace."""
    place = tmp_path / "target"
    assert inspect(place).state is TargetState.MISSING
    place.mkdir()
    assert inspect(place).state is TargetState.EMPTY
    assert inspect(f"{place}/").path == os.fsencode(place)
    (place / "file").write_bytes(b"")
    with pytest.raises(ConfigError, match="not empty"):
        inspect(place)
    assert inspect(place, replace=True).state is TargetState.FULL


def test_dot_is_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And is replaced under its own name."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert inspect(".").path == os.fsencode(tmp_path / "here")


@pytest.mark.parametrize("path", ["/", "//", "/.", "/etc/.."])
def test_the_whole_machine_is_refused(path: str) -> None:
    """However it is spelled."""
    with pytest.raises(ConfigError, match="whole machine"):
        inspect(path, replace=True)


def test_symlinks_files_and_orphans_are_refused(tmp_path: Path) -> None:
    """A symlink (also with a slash after it), a file, a path without parent, a long name."""
    (tmp_path / "dir").mkdir()
    (tmp_path / "link").symlink_to("dir")
    (tmp_path / "file").write_bytes(b"")
    for name, problem in [
        ("link", "symbolic link"),
        ("link/", "symbolic link"),
        ("file", "not a directory"),
        ("missing/target", "parent"),
        ("file/target", "parent"),
        ("x" * 240, "too long"),
    ]:
        with pytest.raises(ConfigError, match=problem):
            inspect(f"{tmp_path}/{name}", replace=True)


def test_parents_may_be_symlinks(tmp_path: Path) -> None:
    """They are resolved once."""
    (tmp_path / "dir").mkdir()
    (tmp_path / "link").symlink_to("dir")
    assert inspect(tmp_path / "link" / "target").path == os.fsencode(tmp_path / "dir/target")


def test_the_vaults_own_places_are_refused(tmp_path: Path) -> None:
    """The store as target, around it, and in it, also by way of a symlink."""
    (tmp_path / "a/store/packs").mkdir(parents=True)
    (tmp_path / "link").symlink_to("a/store")
    (tmp_path / "a/storefront").mkdir()
    for name in ("a", "a/store", "a/store/packs", "a/store/new"):
        with pytest.raises(ConfigError, match="own"):
            inspect(tmp_path / name, replace=True, protected=[tmp_path / "link"])
    inspect(tmp_path / "a/storefront", protected=[tmp_path / "link"])


@needs_root
def test_mounts(mount: Path) -> None:
    """An empty mount point takes staging inside; a full one, or one below, is refused."""
    found = inspect(mount)
    assert found.mount_point
    assert found.home == found.path
    (mount / "lost+found").mkdir()
    assert inspect(mount).state is TargetState.EMPTY
    with pytest.raises(ConfigError, match="mounted in"):
        inspect(mount.parent, replace=True)
    (mount / "file").write_bytes(b"")
    with pytest.raises(ConfigError, match="mount point that is not empty"):
        inspect(mount, replace=True)


def test_a_target_that_changes_is_noticed(tmp_path: Path) -> None:
    """Made, removed, swapped or filled between inspection and promotion."""
    place = tmp_path / "target"
    missing = inspect(place)
    place.mkdir()
    empty = inspect(place)
    recheck(empty)
    with pytest.raises(ConfigError, match="changed"):
        recheck(missing)
    (place / "file").write_bytes(b"")
    with pytest.raises(ConfigError, match="changed"):
        recheck(empty)
    full = inspect(place, replace=True)
    recheck(full)
    place.rename(tmp_path / "aside")
    with pytest.raises(ConfigError, match="changed"):
        recheck(full)


def test_space_is_counted_in_blocks(tmp_path: Path) -> None:
    """A byte takes a block, a directory one too, an empty file none."""
    space = Space(4096)
    space.add(1)
    space.add(0)
    space.add(0, directory=True)
    assert (space.bytes, space.inodes) == (8192, 3)
    target = inspect(tmp_path / "target")
    check_space(target, open_space(target))
    space.add(1 << 60)
    with pytest.raises(LocalError, match="space"):
        check_space(target, space)
    space.bytes, space.inodes = 0, 1 << 60
    if os.statvfs(tmp_path).f_files:
        with pytest.raises(LocalError, match="inodes"):
            check_space(target, space)
