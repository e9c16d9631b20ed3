"""What the recovery key opens: packs, by index or by themselves, and the signed tree."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.lab import Lab, MakeRepository
from vault.errors import DigestMismatchError, IntegrityError, MissingObjectError
from vault.ledger.records import Record
from vault.model import EntryType, ObjectType, replace_body
from vault.repository.pack_reader import PackReader, StaleIndexError
from vault.repository.reader import Reader
from vault.storage.memory import FaultPoint


@pytest.fixture
def lab(make_repository: MakeRepository) -> Lab:
    """An empty repository with large packs of small blocks."""
    return make_repository(pack_size=1 << 20)


@pytest.fixture
def record(lab: Lab, tmp_path: Path) -> Record:
    """A snapshot of files that make one data pack of many blocks."""
    top = tmp_path / "top"
    top.mkdir()
    for number in range(10):
        (top / f"file{number}").write_bytes(os.urandom(8_000))
    return lab.snapshot(top).record


@pytest.fixture
def reader(lab: Lab, record: Record, tmp_path: Path) -> Iterator[Reader]:
    """By the index."""
    opened = Reader(lab.open(), lab.recovery.recipient, record, scratch=_scratch(tmp_path))
    opened.load_packs()
    yield opened
    opened.close()


def _scratch(tmp_path: Path) -> Path:
    path = tmp_path / f"scratch{len(list(tmp_path.iterdir()))}"
    path.mkdir()
    return path


def _data_pack(reader: Reader) -> PackReader:
    (pack,) = (pack for pack in reader.packs().values() if pack.kind is ObjectType.DATA)
    return pack


def _gets(lab: Lab) -> list[str]:
    """Names of objects that are read from here on."""
    seen: list[str] = []

    def note(point: FaultPoint) -> None:
        if point.operation == "get" and point.phase == "before":
            seen.append(point.name)

    lab.store.fault = note
    return seen


def test_index_saves_reading_directories(lab: Lab, record: Record, tmp_path: Path) -> None:
    """With it no pack is read to learn where chunks lie; without it each is, to the same end."""
    known = []
    for use_index in (True, False):
        opened = Reader(
            lab.open(),
            lab.recovery.recipient,
            record,
            scratch=_scratch(tmp_path),
            use_index=use_index,
        )
        gets = _gets(lab)
        opened.load_packs()
        lab.store.fault = None
        assert any(name.startswith("packs/") for name in gets) is not use_index
        known.append(
            {pack.ref.name: (pack.kind, pack.directory) for pack in opened.packs().values()}
        )
        opened.close()
    assert known[0] == known[1]


def test_neighbouring_blocks_are_one_read(lab: Lab, reader: Reader) -> None:
    """Few blocks: a range for each run of them; most of the blocks: the whole pack."""
    pack = _data_pack(reader)
    count = len(pack.directory.blocks)
    assert count >= 10
    assert [number for number, _ in pack.blocks([1])] == [1]  # learns the pack's key too
    for wanted, expected in [([0], 1), ([0, 1, 5, 6], 2), (list(range(count)), 1)]:
        gets = _gets(lab)
        assert [number for number, _ in pack.blocks(wanted)] == wanted
        assert len(gets) == expected
        lab.store.fault = None


def test_blocks_already_given_are_not_given_again(lab: Lab, reader: Reader) -> None:
    """Damage in the middle: what came before it stays, the rest comes from another version."""
    pack = _data_pack(reader)
    data = lab.store.get(pack.ref.name, pack.ref.version)
    at = pack.directory.blocks[3].offset
    lab.store.plant(pack.ref.name, data)
    bad = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
    lab.store.corrupt(pack.ref.name, pack.ref.version, bad)
    wanted = list(range(len(pack.directory.blocks)))
    assert [number for number, _ in pack.blocks(wanted)] == wanted
    assert [found.subject for found in reader.repository.findings] == [pack.ref.name]


def test_no_version_with_the_right_bytes(lab: Lab, reader: Reader) -> None:
    """The pack's digest settles it."""
    pack = _data_pack(reader)
    data = lab.store.get(pack.ref.name, pack.ref.version)
    at = pack.directory.blocks[3].offset
    flipped = bytes([data[at] ^ 1])
    lab.store.corrupt(pack.ref.name, pack.ref.version, data[:at] + flipped + data[at + 1 :])
    with pytest.raises(DigestMismatchError, match=pack.ref.name):
        list(pack.blocks([3]))


def test_tree_is_the_signed_one(reader: Reader) -> None:
    """Every entry, in order."""
    entries = [entry for entry, _ in reader.tree()]
    assert [entry.type for entry in entries[:2]] == [EntryType.DIRECTORY, EntryType.FILE]
    assert len(entries) == 11
    assert all(
        reader.find(name)
        for entry in entries[1:]
        for ids in reader.chunks_of(entry)
        for name in ids
    )


def test_tree_with_another_commitment(reader: Reader) -> None:
    """Said only at the end, as only then it is known."""
    tree = replace_body(reader.body.tree, commitment="00" * 32)
    reader.body = replace_body(reader.body, tree=tree)
    with pytest.raises(DigestMismatchError, match="not the one that was signed"):
        list(reader.tree())


def test_a_data_chunk_is_no_tree(reader: Reader) -> None:
    """Even one that lies in a pack of the snapshot."""
    tree = replace_body(reader.body.tree, id=_data_pack(reader).directory.chunk_id(0).hex())
    reader.body = replace_body(reader.body, tree=tree)
    with pytest.raises(IntegrityError, match="holds no tree chunks"):
        list(reader.tree())


def test_unknown_chunk(lab: Lab, record: Record, reader: Reader, tmp_path: Path) -> None:
    """In doubt while anything is believed; missing for sure once all was hashed."""
    with pytest.raises(StaleIndexError):
        reader.find(bytes(32))
    sure = Reader(
        lab.open(),
        lab.recovery.recipient,
        record,
        scratch=_scratch(tmp_path),
        use_index=False,
        by_digest=True,
    )
    sure.load_packs()
    with pytest.raises(MissingObjectError):
        sure.find(bytes(32))
    sure.close()
