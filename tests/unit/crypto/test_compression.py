"""zstd frames, those that lie too."""

import contextlib
import struct
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from vault.crypto.compression import compress, decompress
from vault.errors import (
    ConfigError,
    DigestMismatchError,
    FormatError,
    IntegrityError,
)


@given(st.binary(max_size=5000), st.integers(1, 19))
def test_compression_round_trips(data: bytes, level: int) -> None:
    """At every level allowed."""
    assert decompress(compress(data, level), max_raw=5000, raw=len(data)) == data


def test_contexts_serve_many_threads() -> None:
    """Each thread has contexts of its own."""
    data = [bytes([n]) * 100_000 for n in range(32)]
    with ThreadPoolExecutor(4) as pool:
        frames = list(pool.map(compress, data))
        assert list(pool.map(lambda f: decompress(f, max_raw=100_000), frames)) == data


@pytest.mark.parametrize("level", [-1, 0, 20, 22])
def test_levels_that_need_large_windows_are_refused(level: int) -> None:
    """Level 20 and up would write frames that no reader takes."""
    with pytest.raises(ConfigError):
        compress(b"data", level)


def test_declared_bomb_takes_no_memory() -> None:
    """A frame that declares 1 GiB is refused before memory is taken for it."""
    bomb = zstandard.ZstdCompressor().compress(bytes(1 << 28))
    tracemalloc.start()
    try:
        with pytest.raises(FormatError, match="too large"):
            decompress(bomb, max_raw=8 << 20)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_undeclared_size_is_refused() -> None:
    """Streaming into a cap would be a second way to read; there is one."""
    frame = zstandard.ZstdCompressor(write_content_size=False).compress(bytes(10_000))
    with pytest.raises(FormatError, match="declare"):
        decompress(frame, max_raw=1 << 20)


def declare(frame: bytes, size: int) -> bytes:
    """The frame with a 4-byte content size of another value."""
    assert frame[4] >> 6 == 2
    at = 5 if frame[4] & 0x20 else 6
    return frame[:at] + struct.pack("<I", size) + frame[at + 4 :]


@pytest.mark.parametrize("change", [-1, 1, -65_000, 65_000])
def test_declared_size_must_be_the_actual_one(change: int) -> None:
    """A frame that lies about its size is damaged."""
    frame = compress(b"vault " * 50_000)
    with pytest.raises(FormatError):
        decompress(declare(frame, 300_000 + change), max_raw=8 << 20)


def test_size_other_than_the_directory_says_is_refused() -> None:
    """The frame is sound, but not the one that was named."""
    with pytest.raises(DigestMismatchError):
        decompress(compress(b"data"), max_raw=100, raw=5)


def raw_frame(*, window_log: int, dictionary: bool = False) -> bytes:
    """A frame of the four bytes "data" by hand (RFC 8878 3.1.1)."""
    descriptor = bytes([0x81 if dictionary else 0x80, (window_log - 10) << 3])
    dictionary_id = b"\1" if dictionary else b""
    block = (4 << 3 | 1).to_bytes(3, "little") + b"data"
    return b"\x28\xb5\x2f\xfd" + descriptor + dictionary_id + struct.pack("<I", 4) + block


def test_large_windows_and_dictionaries_are_refused() -> None:
    """A window is memory as well."""
    assert decompress(raw_frame(window_log=23), max_raw=8 << 20) == b"data"
    with pytest.raises(FormatError, match="window"):
        decompress(raw_frame(window_log=24), max_raw=8 << 20)
    with pytest.raises(FormatError, match="dictionary"):
        decompress(raw_frame(window_log=20, dictionary=True), max_raw=8 << 20)


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"\x28\xb5\x2f",
        b"\x28\xb5\x2f\xfd",
        b"junk that is no frame",
        b"\x50\x2a\x4d\x18\x04\0\0\0skip",
        compress(b"data") + b"x",
        compress(b"data") + compress(b"data"),
        compress(b"data" * 1000)[:-1],
        compress(b"data")[:8],
    ],
)
def test_exactly_one_frame_is_taken(frame: bytes) -> None:
    """Nothing, junk, skippable frames, trailing bytes, two frames, a cut frame."""
    with pytest.raises(FormatError):
        decompress(frame, max_raw=1 << 20)


@given(st.binary(max_size=200))
def test_arbitrary_frames_end_in_integrity_errors(tail: bytes) -> None:
    """Never another exception."""
    with contextlib.suppress(IntegrityError):
        decompress(b"\x28\xb5\x2f\xfd" + tail, max_raw=1 << 16)
