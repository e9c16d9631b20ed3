"""Where each chunk of a file belongs."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, cast

import pytest

from vault.errors import DigestMismatchError, FormatError, IntegrityError
from vault.format.entry import Entry
from vault.format.tree_levels import split_ids
from vault.machine.chunk_cache import ChunkPlace
from vault.model import EntryType, ObjectType
from vault.repository.reader import Located
from vault.restore import fetch
from vault.restore.fetch import FetchPlan

if TYPE_CHECKING:
    from vault.repository.reader import Reader

LENGTHS = {b"a" * 32: 10, b"b" * 32: 20, b"c" * 32: 5}
TREE_PACK = b"t" * 32


class _Pack:
    """As much of a `PackReader` as planning asks for."""

    def __init__(self, kind: ObjectType) -> None:
        self.kind = kind
        self.ref = cast("Any", type("Ref", (), {"name": "packs/x"}))


class _Reader:
    """Knows three chunks, and one of a tree pack."""

    def chunks_of(self, entry: Entry) -> Iterator[list[bytes]]:
        yield split_ids(entry.chunks)

    def located(self, entry: Entry) -> Iterator[Located]:
        ids = split_ids(entry.chunks)
        return (Located(name, *at) for name, at in zip(ids, self.find_all(ids), strict=True))

    def holes_of(self, entry: Entry) -> Iterator[tuple[int, int]]:
        return iter(entry.holes or ())

    def find_all(self, chunk_ids: Sequence[bytes]) -> list[ChunkPlace]:
        return [
            ChunkPlace(1, 10) if each == TREE_PACK else ChunkPlace(0, LENGTHS[each])
            for each in chunk_ids
        ]

    def pack(self, number: int) -> _Pack:
        return _Pack(ObjectType.TREE if number else ObjectType.DATA)

    def doubt(self, error: IntegrityError) -> IntegrityError:
        return error


def _file(size: int, chunks: str, holes: tuple[tuple[int, int], ...] | None = None) -> Entry:
    ids = b"".join(letter.encode() * 32 for letter in chunks)
    return Entry(
        path=b"f", type=EntryType.FILE, mode=0, size=size, sha256=bytes(32), chunks=ids, holes=holes
    )


def _offsets(entry: Entry) -> list[int]:
    plan = FetchPlan(cast("Reader", _Reader()))
    plan.add(0, entry)
    plan.end()
    return list(plan._packs[0].offsets)


@pytest.mark.parametrize(
    ("entry", "offsets"),
    [
        (_file(10, "a"), [0]),
        (_file(35, "abc"), [0, 10, 30]),
        (_file(20, "aa"), [0, 10]),
        (_file(30, "aa", ((10, 10),)), [0, 20]),
        (_file(30, "aa", ((0, 10),)), [10, 20]),
        (_file(30, "aa", ((20, 10),)), [0, 10]),
        (_file(60, "ab", ((0, 10), (20, 10), (50, 10))), [10, 30]),
    ],
)
def test_chunks_lie_between_the_holes(entry: Entry, offsets: list[int]) -> None:
    """In order, each at its place."""
    assert _offsets(entry) == offsets


@pytest.mark.parametrize(
    "entry",
    [
        _file(9, "a"),
        _file(11, "a"),
        _file(30, "abc"),
        _file(40, "abc"),
        _file(30, "b", ((10, 10),)),  # lies across a hole
        _file(30, "a", ((0, 10),)),  # the end is missing
        _file(20, "aaa"),
    ],
)
def test_chunks_that_do_not_fit(entry: Entry) -> None:
    """Neither more nor less than the file has room for."""
    with pytest.raises(DigestMismatchError, match="not as long as the file"):
        _offsets(entry)


@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_a_giant_file_is_planned_in_parts(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """Together they plan what one plan would; none finishes the file."""
    monkeypatch.setattr(fetch, "PART", size)
    entry = _file(85, "aaabc" + "b", ((10, 5), (25, 5)))
    plan = FetchPlan(cast("Reader", _Reader()))
    plan.check(entry)
    parts = list(plan.parts(7, entry))
    assert [offset for part in parts for offset in part._packs[0].offsets] == [
        0,
        15,
        30,
        40,
        60,
        65,
    ]
    assert all(list(part.places) == [7] and part.begun == {0} for part in parts)
    assert all(part.pending[0] == len(part._packs[0].offsets) + 1 for part in parts)


@pytest.mark.parametrize("entry", [_file(84, "aaabcb"), _file(10, "t"), _file(31, "aaa")])
def test_a_giant_file_that_does_not_fit_is_refused_before_anything_is_fetched(
    entry: Entry,
) -> None:
    """Wrong lengths, or chunks of a tree."""
    with pytest.raises((DigestMismatchError, FormatError)):
        FetchPlan(cast("Reader", _Reader())).check(entry)


def test_tree_chunks_are_no_content() -> None:
    """A chunk's type is that of its pack."""
    with pytest.raises(FormatError, match="holds no file content"):
        _offsets(_file(10, "t"))


def test_the_same_chunk_many_times() -> None:
    """Each place is planned, from one pack that is fetched once."""
    plan = FetchPlan(cast("Reader", _Reader()))
    for place in range(3):
        plan.add(place, _file(20, "aa"))
    plan.end()
    assert list(plan.pending) == [2, 2, 2]
    assert list(plan._packs) == [0]
    assert list(plan._packs[0].files) == [0, 0, 1, 1, 2, 2]
