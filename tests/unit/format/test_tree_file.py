"""The tree on local disk: what goes in comes out, from any place, of any size."""

import os
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vault.errors import LocalError
from vault.format.entry import Entry
from vault.format.entry_encoding import encode_canonical, encode_extra, frame
from vault.format.tree import Flaws, TreeHeader, TreeParser, encode_header
from vault.format.tree_file import Spool, Tree
from vault.model import EntryType


def _entries(*lengths: int) -> list[tuple[Entry, bytes]]:
    """Symlinks whose encodings have about those lengths."""
    found = []
    for number, length in enumerate(lengths):
        path = b"%06d" % number
        xattrs = ((b"user.x", bytes(length)),)
        entry = Entry(path=path, type=EntryType.SYMLINK, mode=0o777, link=b"x", xattrs=xattrs)
        found.append((entry, encode_canonical(entry)))
    return found


LENGTHS = {
    "none": [],
    "one": [10],
    "many small": [10] * 30_000,  # more than one buffer
    "larger than the guess": [4_096, 5_000, 1, 70_000],
    "larger than the buffer": [10, 3 << 20, 10, 2 << 20, 1 << 20, (1 << 20) - 60, 10],
}


@pytest.mark.parametrize("name", LENGTHS)
def test_what_goes_in_comes_out(tmp_path: Path, name: str) -> None:
    """In order, by place, from several threads; as often as wanted."""
    entries = _entries(*LENGTHS[name])
    with Spool(tmp_path) as spool:
        spool.fill(iter(entries))
        assert list(spool) == entries
        assert list(spool) == entries
        places = [place for place, _, _ in spool.places()]
        with ThreadPoolExecutor(2) as executor:
            assert list(executor.map(spool.at, places)) == [entry for entry, _ in entries]


def test_nothing_has_a_name(tmp_path: Path) -> None:
    """A crash leaves no part of a decrypted tree on the disk."""
    with Spool(tmp_path) as spool:
        spool.fill(_entries(10, 10))
        assert list(tmp_path.iterdir()) == []


def test_local_disk_failures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No directory, no space."""
    with pytest.raises(LocalError, match="can't write in"):
        Spool(tmp_path / "nowhere")
    if not os.path.exists("/dev/full"):  # noqa: PTH110 - a device, not a file of ours
        pytest.skip("no /dev/full")
    full = open("/dev/full", "w+b", buffering=0)  # noqa: PTH123, SIM115 - as above; closed by Spool
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda **_: full)
    with Spool(tmp_path) as spool, pytest.raises(LocalError, match="can't keep the tree"):
        spool.fill(_entries(10))


def test_errors_of_the_source_pass_through(tmp_path: Path) -> None:
    """A tree that breaks off is not taken for a whole one."""

    def broken() -> object:
        yield from _entries(10)
        raise ValueError("broken off")

    with Spool(tmp_path) as spool, pytest.raises(ValueError, match="broken off"):
        spool.fill(broken())  # type: ignore[arg-type]  # an iterator of entries


# --- entries that don't ascend ---


def _stream(paths: list[bytes]) -> bytes:
    top = Entry(path=b"", type=EntryType.DIRECTORY, mode=0o755)
    entries = [top, *(Entry(path=path, type=EntryType.FIFO, mode=0o644) for path in paths)]
    return encode_header(TreeHeader(key=bytes(32), relative=True, sources=())) + b"".join(
        frame(encode_canonical(entry), encode_extra(entry)) for entry in entries
    )


def _tree(paths: list[bytes]) -> Tree:
    """A tree that can be read again, of FIFOs at these paths."""

    def read(flaws: Flaws, kept: Iterator[bool] | None) -> list[tuple[Entry | None, bytes]]:
        parser = TreeParser(flaws, kept)
        return parser.feed(_stream(paths))

    return read


def _longest(numbers: list[int]) -> int:
    """By trying every row: an oracle for short lists."""
    best = [1] * len(numbers)
    for at, number in enumerate(numbers):
        best[at] += max((best[i] for i in range(at) if numbers[i] < number), default=0)
    return max(best, default=0)


@given(st.lists(st.integers(0, 9), max_size=12))
def test_the_longest_ascending_row_is_kept(numbers: list[int]) -> None:
    """One that comes too early displaces no others; all entries still count for the root."""
    paths = [b"%d" % number for number in numbers]
    with TemporaryDirectory() as scratch, Spool(Path(scratch)) as spool:
        flaws = spool.sift(_tree(paths))
        given_paths = [entry.path for entry, _ in spool][1:]
        assert given_paths == sorted(set(given_paths))
        assert len(given_paths) == _longest(numbers)
        assert len(given_paths) + flaws.count == len(paths)
        canonical = [part for _, _, part in spool.frames()]
        assert len(canonical) == len(paths) + 1


def test_a_tree_in_order_is_read_once(tmp_path: Path) -> None:
    """Reading it again is for those that are not."""
    read = []

    def counted(flaws: Flaws, kept: Iterator[bool] | None) -> list[tuple[Entry | None, bytes]]:
        read.append(kept)
        return list(_tree([b"a", b"b", b"c"])(flaws, kept))

    with Spool(tmp_path) as spool:
        assert not spool.sift(counted)
    assert read == [None]
