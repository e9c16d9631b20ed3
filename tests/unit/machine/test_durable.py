"""Local files: whole, durable, and never a part of one."""

import os
import stat
from pathlib import Path

import pytest

from vault.machine import durable


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is synced and put in place, in order."""
    seen: list[str] = []
    sync, rename = os.fsync, Path.replace

    def note(fd: int) -> None:
        seen.append("directory" if stat.S_ISDIR(os.fstat(fd).st_mode) else "file")
        sync(fd)

    def put(self: Path, target: Path) -> Path:
        seen.append("rename")
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", note)
    monkeypatch.setattr(Path, "replace", put)
    return seen


def test_a_file_is_on_the_disk_before_it_has_its_name(tmp_path: Path, calls: list[str]) -> None:
    """And its name before the call returns; its mode lets only the owner in."""
    path = tmp_path / "file"
    durable.replace(path, b"old")
    durable.replace(path, b"new")
    assert calls == ["file", "rename", "directory"] * 2
    assert (path.read_bytes(), stat.S_IMODE(path.stat().st_mode)) == (b"new", 0o600)
    assert list(tmp_path.iterdir()) == [path]


def test_what_needs_no_disk_waits_for_none(tmp_path: Path, calls: list[str]) -> None:
    """Its reader knows a part by its digest."""
    durable.replace(tmp_path / "file", b"data", durable=False)
    assert calls == ["rename"]


def test_what_is_created_is_synced_and_never_replaced(tmp_path: Path, calls: list[str]) -> None:
    """A file that is there stays as it is."""
    path = tmp_path / "file"
    durable.create(path, b"data")
    assert calls == ["file", "directory"]
    with pytest.raises(FileExistsError):
        durable.create(path, b"other")
    assert (path.read_bytes(), stat.S_IMODE(path.stat().st_mode)) == (b"data", 0o600)


def test_a_file_written_piece_by_piece_is_put_in_place(tmp_path: Path, calls: list[str]) -> None:
    """Synced, closed, renamed, and the name synced."""
    fresh, path = tmp_path / "fresh", tmp_path / "path"
    path.write_bytes(b"old")
    file = fresh.open("wb")
    file.write(b"new")
    durable.put_in_place(file, fresh, path)
    assert calls == ["file", "rename", "directory"]
    assert file.closed
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_leaves_the_former_file_and_no_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also of a new file nothing is left."""
    path = tmp_path / "file"
    durable.replace(path, b"old")

    def fail(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space"):
        durable.replace(path, b"new")
    with pytest.raises(OSError, match="No space"):
        durable.create(tmp_path / "other", b"new")
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == b"old"
