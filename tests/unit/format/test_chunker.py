"""The chunker cuts as the paper, the reference and the vectors do, whatever the pieces."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vault.errors import FormatError
from vault.format.chunker import ACCELERATED, Chunker, ChunkSizes

VECTORS = Path(__file__).parents[2] / "vectors"
CUTS: list[dict[str, Any]] = json.loads((VECTORS / "chunker" / "cuts.json").read_text())
SMALL = ChunkSizes(64, 256, 1024)


def _reference() -> ModuleType:
    spec = importlib.util.spec_from_file_location("reference", VECTORS / "reference_chunker.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


REFERENCE = _reference()


def _pieces(data: bytes, sizes: list[int]) -> list[bytes]:
    """The data in pieces of these sizes, again and again."""
    pieces: list[bytes] = []
    at = 0
    while at < len(data):
        size = sizes[len(pieces) % len(sizes)]
        pieces.append(data[at : at + size])
        at += size
    return pieces


def _cut_in_pieces(chunker: Chunker, pieces: list[bytes]) -> list[int]:
    lengths: list[int] = []
    rest = b""
    for piece in pieces:
        rest += piece
        found = chunker.cut(rest, final=False)
        rest = rest[sum(found) :]
        assert len(rest) < chunker.sizes.max
        lengths += found
    return lengths + chunker.cut(rest, final=True)


@pytest.mark.parametrize("vector", CUTS, ids=lambda v: f"{v['seed']}-{v['length']}")
def test_library_and_reference_cut_as_the_vectors_say(vector: dict[str, Any]) -> None:
    """Two implementations and a file agree: the format doesn't hang on one library."""
    data = REFERENCE.stream(vector["seed"], vector["length"])
    sizes = tuple(vector["sizes"])
    assert Chunker(ChunkSizes(*sizes)).cut(data, final=True) == vector["cuts"]
    assert REFERENCE.cuts(data, sizes) == vector["cuts"]


@settings(max_examples=60, deadline=None)
@given(
    seed=st.text("abc", max_size=3),
    length=st.integers(0, 150_000),
    alphabet=st.sampled_from([b"", b"\0", b"ab", b"the quick brown fox\n"]),
)
def test_library_and_reference_agree(seed: str, length: int, alphabet: bytes) -> None:
    """Also on monotonous data, at odd lengths and around the limits."""
    data = REFERENCE.stream(seed, length)
    if alphabet:
        data = data.translate(bytes(alphabet[i % len(alphabet)] for i in range(256)))
    assert Chunker(ChunkSizes(*REFERENCE.TREE)).cut(data, final=True) == REFERENCE.cuts(
        data, REFERENCE.TREE
    )


@settings(max_examples=100, deadline=None)
@given(
    seed=st.text("abc", max_size=3),
    length=st.integers(0, 20_000),
    sizes=st.lists(st.integers(1, 3_000), min_size=1, max_size=5),
)
def test_pieces_do_not_matter(seed: str, length: int, sizes: list[int]) -> None:
    """However a stream arrives, its chunks are those of the whole stream."""
    chunker = Chunker(SMALL)
    data = REFERENCE.stream(seed, length)
    assert _cut_in_pieces(chunker, _pieces(data, sizes)) == chunker.cut(data, final=True)


@given(st.binary(max_size=5_000))
def test_final_cuts_cover_everything_within_bounds(data: bytes) -> None:
    """No byte is lost, no chunk is empty or over the maximum, only the last under the minimum."""
    lengths = Chunker(SMALL).cut(data, final=True)
    assert sum(lengths) == len(data)
    assert all(SMALL.min <= length <= SMALL.max for length in lengths[:-1])
    assert all(0 < length <= SMALL.max for length in lengths)


def test_any_buffer_can_be_cut_and_is_released() -> None:
    """A bytearray can grow again after it was cut, so callers may reuse it."""
    data = REFERENCE.stream("buffer", 10_000)
    buffer = bytearray(data)
    expected = Chunker(SMALL).cut(data, final=True)
    assert Chunker(SMALL).cut(memoryview(data), final=True) == expected
    assert Chunker(SMALL).cut(buffer, final=True) == expected
    whole = Chunker(SMALL).cut(buffer, final=False)
    assert whole == expected[: len(whole)]
    del buffer[: sum(whole)]


@pytest.mark.parametrize(
    "sizes",
    [(65, 256, 1024), (256, 128, 1024), (64, 2048, 1024), (2, 256, 1024), (64, 256, 32 << 20)],
)
def test_impossible_sizes_are_refused(sizes: tuple[int, int, int]) -> None:
    """Sizes come from the root, so they are checked: odd, descending, out of range."""
    with pytest.raises(FormatError, match="chunk sizes"):
        ChunkSizes(*sizes)


def test_the_fast_core_is_in_use() -> None:
    """Without it snapshots are some 200 times slower; nothing else would say so."""
    assert ACCELERATED
