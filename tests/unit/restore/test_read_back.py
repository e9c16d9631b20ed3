"""Content of files as it is read back: whole, past holes, and no further than it is wanted."""

import hashlib
import os
from pathlib import Path

import pytest

from vault.format.tree_hash import TreeHash
from vault.restore.read_back import Evidence, _ContentReader

MIB = 1 << 20


def _read(path: Path, *, is_vast: bool) -> tuple[int, int, bytes | None, bytes | None]:
    reader = _ContentReader(memory=False)
    fd = os.open(path, os.O_RDONLY)
    size = path.stat().st_size
    return tuple(reader.read(fd, size, Evidence.EVICTED, is_vast=is_vast))  # type: ignore[return-value]


@pytest.mark.parametrize(
    "runs",
    [
        [],
        [(0, 5)],
        [(5 * MIB, 4096), (5 * MIB + 65_536, 4096), (9 * MIB - 1, 1)],
        [(number * 65_536, 100) for number in range(0, 160, 2)],
        [(0, 10 * MIB)],
    ],
)
def test_a_vast_file_is_hashed_around_its_holes(
    tmp_path: Path, runs: list[tuple[int, int]]
) -> None:
    """As if all of it had been read."""
    path = tmp_path / "file"
    content = bytearray(10 * MIB + 77)
    with path.open("wb") as file:
        file.truncate(len(content))
        for offset, length in runs:
            content[offset : offset + length] = os.urandom(length)
            file.seek(offset)
            file.write(content[offset : offset + length])
    expected = TreeHash()
    expected.update(content)
    size, read, sha256, tree_hash = _read(path, is_vast=True)
    assert (size, sha256, tree_hash) == (len(content), None, expected.digest())
    assert read <= size
    assert _read(path, is_vast=False)[2] == hashlib.sha256(content).digest()


@pytest.mark.parametrize("is_vast", [True, False])
def test_reading_ends_when_it_is_stopped(tmp_path: Path, *, is_vast: bool) -> None:
    """In the middle of a file; the control reads to its end."""
    path = tmp_path / "file"
    path.write_bytes(os.urandom(3 * MIB))
    reader = _ContentReader(memory=False)
    fd = os.open(path, os.O_RDONLY)
    pieces = reader._pieces(fd, 0, None)
    assert len(next(pieces)) == MIB
    reader.stop()
    with pytest.raises(OSError, match="canceled"):
        next(pieces)
    os.close(fd)
    with pytest.raises(OSError, match="canceled"):
        reader.read(os.open(path, os.O_RDONLY), 3 * MIB, Evidence.EVICTED, is_vast=is_vast)
    assert _read(path, is_vast=is_vast)[0] == 3 * MIB
