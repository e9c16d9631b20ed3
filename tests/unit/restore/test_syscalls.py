"""Calls that put a restore in place: they replace nothing, and say when they did nothing."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from vault.restore.syscalls import Fs, is_unsupported


@pytest.fixture
def top(tmp_path: Path) -> Iterator[int]:
    """Descriptor of a directory with two files."""
    (tmp_path / "one").write_text("one")
    (tmp_path / "two").write_text("two")
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def _look(tmp_path: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in tmp_path.iterdir()}


def test_a_rename_to_a_name_that_is_taken_is_refused(tmp_path: Path, top: int) -> None:
    """What has that name stays; a free name is taken, and what is not there is no success."""
    with pytest.raises(FileExistsError):
        Fs().rename_new(top, b"one", top, b"two")
    assert _look(tmp_path) == {"one": "one", "two": "two"}
    Fs().rename_new(top, b"one", top, b"three")
    assert _look(tmp_path) == {"three": "one", "two": "two"}
    with pytest.raises(FileNotFoundError):
        Fs().rename_new(top, b"one", top, b"four")


def test_an_exchange_swaps_two_names_or_fails(tmp_path: Path, top: int) -> None:
    """Of which both must be there."""
    try:
        Fs().exchange(top, b"one", top, b"two")
    except OSError as error:
        if not is_unsupported(error):
            raise
        pytest.skip("this file system can't exchange names")
    assert _look(tmp_path) == {"one": "two", "two": "one"}
    with pytest.raises(FileNotFoundError):
        Fs().exchange(top, b"one", top, b"three")
    assert _look(tmp_path) == {"one": "two", "two": "one"}
