"""Index objects and the plan of their merges."""

import array
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vault.crypto.compression import compress
from vault.crypto.sealed import Sealer, seal_whole
from vault.errors import DigestMismatchError, FormatError, IntegrityError, VaultError
from vault.format.pack import MAX_PACK, Block, Directory
from vault.format.pack_index import (
    MAX_MERGED,
    IndexEntry,
    open_index,
    partition,
    plan_merge,
    seal_index,
)
from vault.model import Digest, ObjectRef, ObjectType, PackId

REPOSITORY = bytes(range(16))
KEY = bytes(range(32))


def entry(number: int = 1, *, chunks: int = 2, version: str = "v-1") -> IndexEntry:
    """A pack of one block."""
    directory = Directory(
        [Block(500, 1000, 10 * chunks, chunks, 0)],
        array.array("I", [10] * chunks),
        bytes([number % 256]) * 32 * chunks,
    )
    return IndexEntry(
        pack_id=PackId(number.to_bytes(32, "big")),
        size=2000,
        type=ObjectType.TREE,
        version=version,
        header_length=500,
        directory=directory,
    )


def test_index_round_trips() -> None:
    """Any number of packs, none too."""
    for count in (0, 1, 64):
        entries = [entry(n, chunks=n + 1) for n in range(count)]
        assert open_index(seal_index(KEY, REPOSITORY, entries), KEY, REPOSITORY) == entries


def test_what_is_over_the_stored_limit_is_not_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    """One byte more is refused before any of it is opened; exactly the limit is read."""
    data = seal_index(KEY, REPOSITORY, [entry()])
    monkeypatch.setattr("vault.format.pack_index.MAX_STORED_INDEX", len(data))
    assert open_index(data, KEY, REPOSITORY) == [entry()]
    monkeypatch.setattr("vault.format.pack_index.MAX_STORED_INDEX", len(data) - 1)
    with pytest.raises(FormatError, match="too large"):
        open_index(data, KEY, REPOSITORY)


def test_an_index_may_have_all_of_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is sealed is read again: one limit, met from both sides."""
    sizes: list[int] = []

    def measured(raw: bytes) -> bytes:
        sizes.append(len(raw))
        return compress(raw)

    with monkeypatch.context() as patch:
        patch.setattr("vault.format.pack_index.compress", measured)
        seal_index(KEY, REPOSITORY, [entry()])
    (raw,) = sizes
    monkeypatch.setattr("vault.format.pack_index.MAX_INDEX", raw)
    assert open_index(seal_index(KEY, REPOSITORY, [entry()]), KEY, REPOSITORY) == [entry()]
    assert list(partition([entry(), entry()], packs=9, limit=raw)) == [[entry()], [entry()]]
    monkeypatch.setattr("vault.format.pack_index.MAX_INDEX", raw - 1)
    with pytest.raises(VaultError, match="over its limit"):
        seal_index(KEY, REPOSITORY, [entry()])


def test_index_is_bound_to_domain_and_repository() -> None:
    """Another domain's key, another repository."""
    data = seal_index(KEY, REPOSITORY, [entry()])
    for key, repository in ((bytes(32), REPOSITORY), (KEY, bytes(16))):
        with pytest.raises(DigestMismatchError):
            open_index(data, key, repository)


def test_every_flip_and_cut_is_detected() -> None:
    """Of every byte."""
    data = seal_index(KEY, REPOSITORY, [entry()])
    for at in range(len(data)):
        damaged = bytearray(data)
        damaged[at] ^= 0x41
        for bad in (bytes(damaged), data[:at]):
            with pytest.raises(IntegrityError):
                open_index(bad, KEY, REPOSITORY)
    with pytest.raises(IntegrityError):
        open_index(data + b"\0", KEY, REPOSITORY)


def forge(raw: bytes) -> bytes:
    """What another host of the domain could seal."""
    return seal_whole(Sealer.for_index(KEY, REPOSITORY), compress(raw))


def row(
    *, size: int = 2000, kind: int = 1, version: bytes = b"v", directory: bytes | None = None
) -> bytes:
    """One pack as it stands in the plaintext."""
    plain = entry().directory.encode() if directory is None else directory
    fixed = struct.pack("<32sQBIH", bytes(32), size, kind, 500, len(version))
    return fixed + version + struct.pack("<I", len(plain)) + plain


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "ends within"),
        (struct.pack("<I", 2) + row(), "ends within"),
        (struct.pack("<I", 2**32 - 1), "ends within"),
        (struct.pack("<I", 1) + row() + b"x", "bytes after"),
        (struct.pack("<I", 1) + row()[:-1], "ends within"),
        (struct.pack("<I", 1) + row(kind=3), "impossible pack"),
        (struct.pack("<I", 1) + row(kind=0), "impossible pack"),
        (struct.pack("<I", 1) + row(version=b""), "version id"),
        (struct.pack("<I", 1) + row(version=b"a b"), "version id"),
        (struct.pack("<I", 1) + row(version=b"\xff"), "version id"),
        (struct.pack("<I", 1) + row(version=b"v" * 1025), "impossible pack"),
        (struct.pack("<I", 1) + row(size=1500), "pack size"),
        (struct.pack("<I", 1) + row(size=MAX_PACK + 1), "pack size"),
        (struct.pack("<I", 1) + row(directory=b"\0"), "impossible size"),
        (struct.pack("<I", 1) + row(directory=bytes(9 << 20)), "too large"),
        (bytes(65 << 20), "too large"),
    ],
    ids=[
        "empty",
        "missing pack",
        "many packs",
        "surplus",
        "cut",
        "index type",
        "no type",
        "no version",
        "space",
        "not ASCII",
        "long version",
        "small pack",
        "large pack",
        "no directory",
        "large directory",
        "bomb",
    ],
)
def test_malformed_plaintexts_are_refused(raw: bytes, message: str) -> None:
    """Sealed by a host of the domain and still checked."""
    with pytest.raises(FormatError, match=message):
        open_index(forge(raw), KEY, REPOSITORY)


def test_only_index_objects_are_indexes() -> None:
    """Junk and other types."""
    with pytest.raises(FormatError):
        open_index(b"junk", KEY, REPOSITORY)


def test_an_index_over_the_limit_is_not_sealed() -> None:
    """A writer never makes what no reader takes."""
    large = entry(chunks=65_536)
    with pytest.raises(VaultError, match="over its limit"):
        seal_index(KEY, REPOSITORY, [large] * 29)


@given(st.lists(st.integers(1, 40), max_size=30), st.integers(1, 8), st.integers(200, 4000))
def test_partition_keeps_order_and_limits(chunks: list[int], packs: int, limit: int) -> None:
    """Groups are as full as they may be; a single entry is never lost."""
    entries = [entry(n, chunks=count) for n, count in enumerate(chunks)]
    groups = list(partition(entries, packs=packs, limit=limit))
    assert [each for group in groups for each in group] == entries
    assert all(groups)
    for group in groups:
        raw = 4 + sum(51 + len(each.version) + each.directory.encoded_size for each in group)
        assert raw <= limit or len(group) == 1
        assert len(group) <= packs


def ref(number: int, size: int) -> ObjectRef:
    """An index object of that size."""
    name = f"index/default/{number:064x}"
    return ObjectRef(name=name, sha256=Digest(number.to_bytes(32, "big")), size=size, version="v")


def test_sixteen_of_one_class_are_merged() -> None:
    """Fifteen are not, nor are sixteen of different classes."""
    small = [ref(n, 300 + n) for n in range(35)]
    large = [ref(n, 70_000) for n in range(100, 115)]
    groups = plan_merge([*large, *reversed(small)])
    assert groups == [tuple(small[:16]), tuple(small[16:32])]
    assert plan_merge(small[:15] + large[:1]) == []


def test_merges_stay_within_what_an_index_holds() -> None:
    """Sixteen large ones are left alone."""
    assert plan_merge([ref(n, MAX_MERGED // 16) for n in range(16)]) != []
    assert plan_merge([ref(n, MAX_MERGED // 16 + 1) for n in range(16)]) == []
