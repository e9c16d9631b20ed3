"""Large files and streams: cut, hashed and read by threads, as if at once."""

import errno
import hashlib
import os
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from vault.format.chunker import Chunker, ChunkSizes
from vault.format.entry_encoding import decode_entry
from vault.snapshot import file_reader, stream
from vault.snapshot.chunks_and_holes import Extents
from vault.snapshot.dedup import TreeBuilder
from vault.snapshot.file_reader import FileReader, LargeFile, ReadOutcome, ToRead
from vault.snapshot.pieces import Pieces
from vault.snapshot.stream import StreamFile
from vault.snapshot.walk import walk

SIZES = ChunkSizes(1024, 2048, 8192)
CONTENT = random.Random(1).randbytes(200_000)
HOLE = 65_536


@pytest.fixture
def reader() -> FileReader:
    """With small chunks."""
    return FileReader(SIZES, b"k" * 32, lambda: 0)


@pytest.fixture(params=[1_000, 4_096, 50_000, 1_000_000])
def _piece(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces below a chunk's size, and larger than all."""
    monkeypatch.setattr(file_reader, "PIECE", request.param)
    monkeypatch.setattr(stream, "PIECE", request.param)


def open_file(reader: FileReader, path: Path) -> LargeFile:
    """The file at a path as the walk would meet it."""
    (item,) = (item for item in walk([path]) if item.path)
    return reader.open_in_pieces(ToRead.of(item))


def chunks(file: Pieces) -> Iterator[tuple[bytes, bytes]]:
    """Id and bytes of each, looked at when the next piece is there already."""
    before: list[tuple[bytes, memoryview]] = []
    while not file.done:
        now = list(zip(*file.read_piece(), strict=True))
        yield from ((name, bytes(piece)) for name, piece in before)
        before = now
    yield from ((name, bytes(piece)) for name, piece in before)


def _no_list() -> TreeBuilder:
    raise AssertionError("too small for a list of its own")


def cut(data: bytes) -> list[bytes]:
    """Of all the data at once."""
    found, at = [], 0
    for length in Chunker(SIZES).cut(data, final=True):
        found.append(data[at : at + length])
        at += length
    return found


@pytest.mark.usefixtures("_piece")
@pytest.mark.parametrize("layout", ["whole", "hole before", "hole between", "hole behind", "holes"])
def test_a_file_is_what_it_would_be_at_once(
    reader: FileReader, tmp_path: Path, layout: str
) -> None:
    """Every run of data is cut on its own; the SHA-256 is of the file with its zeros."""
    path = tmp_path / "file"
    runs = {
        "whole": [CONTENT],
        "hole before": [b"", CONTENT],
        "hole between": [CONTENT[:HOLE], CONTENT],
        "hole behind": [CONTENT[:HOLE], b""],
        "holes": [b"", CONTENT[:HOLE], CONTENT[HOLE : 2 * HOLE], CONTENT],
    }[layout]
    with path.open("wb") as out:
        for place, run in enumerate(runs):
            out.seek(HOLE * bool(place), os.SEEK_END)
            out.write(run)
        out.truncate(out.tell())
    file = open_file(reader, path)
    found = list(chunks(file))
    extents = Extents(_no_list)
    extents.add([name for name, _ in found], [], sum(len(data) for _, data in found))
    content = file.finish(extents)
    file.close()
    assert [data for _, data in found] == [data for run in runs for data in cut(run)]
    for name, data in found:
        assert name == reader.chunk_id(hashlib.sha256(data).digest())
    assert content.outcome is ReadOutcome.READ
    assert content.size == path.stat().st_size
    assert content.record is not None
    entry = decode_entry(content.record.canonical, content.record.extra)
    assert entry.sha256 == hashlib.sha256(path.read_bytes()).digest()
    assert sum(length for _, length in entry.holes or ()) == HOLE * (len(runs) - 1)


@pytest.mark.usefixtures("_piece")
@pytest.mark.parametrize("size", [0, 1, 4_096, 8_192, len(CONTENT)])
def test_a_stream_is_what_it_would_be_at_once(reader: FileReader, size: int) -> None:
    """Also one that ends with a piece."""
    source, sink = os.pipe()

    def write() -> None:
        with os.fdopen(sink, "wb") as out:
            out.write(CONTENT[:size])

    writing = threading.Thread(target=write)
    writing.start()
    with os.fdopen(source, "rb", buffering=0) as given:
        file = StreamFile(reader, stream.StandardInput(given), SIZES)
        found = [data for _, data in chunks(file)]
        assert found == cut(CONTENT[:size])
        assert file.digest() == hashlib.sha256(CONTENT[:size]).digest()
        assert file.size == size
        file.close()
    writing.join()


def test_a_file_that_can_not_be_read(
    reader: FileReader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error comes to who asks for the piece."""
    (tmp_path / "file").write_bytes(CONTENT)
    monkeypatch.setattr(file_reader, "PIECE", 4_096)
    file = open_file(reader, tmp_path / "file")
    real = os.preadv

    def fail(fd: int, buffers: list[memoryview], offset: int) -> int:
        if offset > 100_000:
            raise OSError(errno.EIO, "Input/output error")
        return real(fd, buffers, offset)

    monkeypatch.setattr(os, "preadv", fail)
    with pytest.raises(OSError, match="Input/output error"):
        list(chunks(file))
    file.close()


def test_one_that_nobody_wants_any_more(
    reader: FileReader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its thread ends, whatever it waits for."""
    (tmp_path / "file").write_bytes(CONTENT)
    monkeypatch.setattr(file_reader, "PIECE", 4_096)
    threads = threading.active_count()
    for _ in range(20):
        file = open_file(reader, tmp_path / "file")
        file.read_piece()
        file.close()
        file.close()
    assert threading.active_count() == threads


def test_buffers_serve_the_next_file(
    reader: FileReader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of one that was left early don't: somebody may be cutting what is in them."""
    (tmp_path / "file").write_bytes(CONTENT)
    monkeypatch.setattr(file_reader, "PIECE", 4_096)
    left = open_file(reader, tmp_path / "file")
    left.read_piece()
    left.close()
    assert len(reader.buffers.take(0)) == 0
    for _ in range(3):
        file = open_file(reader, tmp_path / "file")
        list(chunks(file))
        file.close()
    buffers = [reader.buffers.take(0) for _ in range(4)]
    assert sorted(map(len, buffers)) == [0, *[SIZES.max + 4_096] * 3]


@pytest.mark.parametrize("turn", range(10))
def test_a_silent_stream_that_nobody_wants_any_more(reader: FileReader, turn: int) -> None:
    """It may be silent for hours, when the store has failed meanwhile; who waits is told."""
    source, sink = os.pipe()
    with os.fdopen(source, "rb", buffering=0) as given:
        file = StreamFile(reader, stream.StandardInput(given), SIZES)
        waiting = threading.Thread(target=file.read_piece)
        waiting.start()
        time.sleep(turn % 5 / 1000)
        file.close()
        waiting.join(10)
        assert not waiting.is_alive()
    os.close(sink)
