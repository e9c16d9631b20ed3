"""Entries, their order, content root and levels, against vectors and arbitrary bytes."""

import contextlib
import hashlib
import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vault import errors
from vault.errors import FormatError, VaultError
from vault.format.chunker import Chunker, ChunkSizes
from vault.format.content_root import ContentRoot, commitment
from vault.format.entry import ID_SIZE, Entry, replace_entry
from vault.format.entry_encoding import decode_entry, encode_canonical, encode_extra, frame
from vault.format.tree import Flaws, TreeHeader, TreeParser, encode_header
from vault.format.tree_levels import MAX_TREE_LEVEL, expand_levels, fold_levels, split_ids
from vault.format.tree_order import TreeOrder
from vault.model import EntryType, sort_key

VECTORS = Path(__file__).parents[2] / "vectors"
STREAM = (VECTORS / "tree" / "stream.bin").read_bytes()
TREE: dict[str, Any] = json.loads((VECTORS / "tree" / "tree.json").read_text())
NEGATIVE: dict[str, dict[str, str]] = json.loads(
    (VECTORS / "tree" / "negative" / "expect.json").read_text()
)
HEADER = TreeHeader(key=b"k" * 32, relative=True, sources=(b"/srv",))


def _generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("tree_vectors", VECTORS / "tree_vectors.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _files(directory: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file()
    }


def _parse(data: bytes, piece: int = 1 << 20) -> list[tuple[Entry, bytes]]:
    parser = TreeParser()
    entries = []
    for at in range(0, len(data), piece):
        entries += [(e, c) for e, c in parser.feed(data[at : at + piece]) if e is not None]
    parser.finish()
    return entries


def _file(path: bytes) -> Entry:
    return Entry(path=path, type=EntryType.FILE, mode=0o644, sha256=hashlib.sha256(b"").digest())


def _directory(path: bytes) -> Entry:
    return Entry(path=path, type=EntryType.DIRECTORY, mode=0o755)


def _stream(entries: list[Entry]) -> bytes:
    return encode_header(HEADER) + b"".join(
        frame(encode_canonical(entry), encode_extra(entry)) for entry in entries
    )


# --- vectors ---


def test_the_generator_reproduces_every_byte(tmp_path: Path) -> None:
    """The encoder of today writes the bytes of the vectors."""
    _generator().generate_tree(tmp_path / "tree")
    assert _files(tmp_path / "tree") == _files(VECTORS / "tree")


@pytest.mark.parametrize("piece", [1, 7, 1 << 20])
def test_the_golden_stream_amounts_to_what_the_vector_says(piece: int) -> None:
    """Entries, content root and commitment, in whatever pieces the stream comes."""
    root = ContentRoot()
    entries = _parse(STREAM, piece)
    for _, canonical in entries:
        root.update(canonical)
    assert [[e.path.hex(), e.type, e.size] for e, _ in entries] == TREE["entries"]
    assert root.digest().hex() == TREE["content_root"]
    assert commitment(bytes.fromhex(TREE["key"]), root.digest()).hex() == TREE["commitment"]


@pytest.mark.parametrize("name", sorted(NEGATIVE))
def test_a_malformed_stream_is_refused_for_its_fault(name: str) -> None:
    """Each negative breaks one rule, and the message names that rule."""
    data = (VECTORS / "tree" / "negative" / f"{name}.bin").read_bytes()
    expected = NEGATIVE[name]
    with pytest.raises(getattr(errors, expected["error"]), match=expected["says"]):
        _parse(data)


# --- entries ---

names = st.binary(min_size=1, max_size=8).filter(
    lambda name: b"/" not in name and b"\0" not in name and name not in (b".", b"..")
)
paths = st.lists(names, min_size=1, max_size=4).map(b"/".join)
times = st.integers(-(2**63), 2**63 - 1)
words = st.text(st.characters(codec="utf-8"), max_size=10)
common = {
    "path": paths,
    "mode": st.integers(0, 0o7777),
    "uid": st.integers(0, 2**32 - 2),
    "gid": st.integers(0, 2**32 - 2),
    "mtime": times,
    "ctime": times,
    "user": words,
    "group": words,
    "xattrs": st.none()
    | st.dictionaries(names, st.binary(max_size=20), min_size=1).map(
        lambda found: tuple(sorted(found.items()))
    ),
}
entries_of_all_types = st.one_of(
    st.builds(
        Entry,
        type=st.just(EntryType.FILE),
        size=st.integers(64, 2**63 - 1),
        sha256=st.binary(min_size=32, max_size=32),
        chunks=st.sampled_from([b"", b"x" * 64]),
        **common,
    ),
    st.builds(
        Entry,
        type=st.just(EntryType.SYMLINK),
        link=names,
        **{**common, "mode": st.just(0o777)},
    ),
    st.builds(Entry, type=st.just(EntryType.HARD_LINK), link=paths, **common),
    st.builds(
        Entry, type=st.just(EntryType.BLOCK_DEVICE), device=st.integers(0, 2**64 - 1), **common
    ),
    st.builds(Entry, type=st.sampled_from([EntryType.DIRECTORY, EntryType.FIFO]), **common),
)


@given(entries_of_all_types)
def test_every_entry_decodes_to_itself(entry: Entry) -> None:
    """Nothing of an entry is lost or changed on its way through the store."""
    assert decode_entry(encode_canonical(entry), encode_extra(entry)) == entry


def test_owner_names_times_and_chunks_are_not_in_the_content_root() -> None:
    """A restore can't set ctime and may lack the users; its proof must not depend on them."""
    entry = _file(b"f")
    other = Entry(
        path=b"f",
        type=EntryType.FILE,
        mode=0o644,
        sha256=entry.sha256,
        user="u",
        group="g",
        ctime=9,
    )
    assert encode_canonical(entry) == encode_canonical(other)


def test_the_key_is_not_in_the_header_s_repr() -> None:
    """Who has the key can test guesses of the content against the public commitment."""
    assert "kkkk" not in repr(HEADER)


# --- the stream ---


@given(st.lists(paths, unique=True, max_size=20))
def test_order_is_the_order_of_a_sorted_walk(found: list[bytes]) -> None:
    """Comparing component by component and comparing sort keys are the same."""
    assert sorted(found, key=sort_key) == sorted(found, key=lambda path: path.split(b"/"))


@given(st.binary(max_size=300), st.booleans())
def test_arbitrary_bytes_end_in_a_vault_error(data: bytes, with_header: bool) -> None:  # noqa: FBT001 - hypothesis calls it
    """No other exception leaves the parser, whatever the store returns."""
    with contextlib.suppress(VaultError):
        _parse(encode_header(HEADER) + data if with_header else data)


@settings(max_examples=400)
@given(st.integers(0, len(STREAM) - 1), st.integers(1, 255))
def test_a_flipped_byte_ends_in_a_vault_error_or_another_content_root(at: int, flip: int) -> None:
    """Damage is either malformed or seen by digests; it is never another kind of exception."""
    with contextlib.suppress(VaultError):
        _parse(STREAM[:at] + bytes((STREAM[at] ^ flip,)) + STREAM[at + 1 :])


def test_a_large_entry_is_refused_before_it_is_held() -> None:
    """The lengths in front of an entry are checked when they arrive, not after its bytes."""
    parser = TreeParser()
    parser.feed(encode_header(HEADER))
    with pytest.raises(FormatError, match="too long"):
        parser.feed(b"\xff" * 8)


def test_hard_links_find_files_among_very_many() -> None:
    """Files are remembered by hash in sorted runs; old runs still answer."""
    files = [_file(b"d/%07d" % i) for i in range(70_000)]
    links = [
        Entry(path=b"e/%d" % i, type=EntryType.HARD_LINK, mode=0o644, link=b"d/%07d" % target)
        for i, target in enumerate((0, 65_535, 65_536, 69_999))
    ]
    tops = [_directory(b""), _directory(b"d")]
    assert len(_parse(_stream([*tops, *files, _directory(b"e"), *links]))) == 70_007
    missing = Entry(path=b"e/9", type=EntryType.HARD_LINK, mode=0o644, link=b"d/x")
    with pytest.raises(FormatError, match="no earlier file"):
        _parse(_stream([*tops, *files, _directory(b"e"), missing]))


def test_writer_refuses_what_the_reader_would() -> None:
    """An entry over its cap fails at the snapshot, not at the restore."""
    with pytest.raises(FormatError, match="too long"):
        frame(b"x" * ((4 << 20) + 1), b"")
    with pytest.raises(FormatError, match="32 bytes"):
        encode_header(TreeHeader(key=b"", relative=True, sources=()))


@pytest.mark.parametrize("over", [0, 1])
def test_a_sha256_may_cover_holes_up_to_a_gibibyte(over: int) -> None:
    """Exactly so many are stored with one, so they must be read; a byte more needs a tree hash."""
    vast = (1 << 30) + over
    entry = replace_entry(_file(b"f"), size=vast + 1, holes=((0, vast),), chunks=b"c" * ID_SIZE)
    stream = _stream([_directory(b""), entry])
    if not over:
        assert [found for found, _ in _parse(stream)][1] == entry
        return
    with pytest.raises(FormatError, match="SHA-256 and too many holes"):
        _parse(stream)


# --- stepping over ---


def _sift(data: bytes, piece: int = 1 << 20) -> tuple[list[bytes], list[bytes | None], Flaws]:
    """Paths of what is given, of what is stepped over, and all that is said of it."""
    flaws = Flaws()
    parser = TreeParser(flaws)
    given = []
    for at in range(0, len(data), piece):
        given += [entry.path for entry, _ in parser.feed(data[at : at + piece]) if entry]
    parser.finish()
    return given, [bad.path for bad in flaws.named], flaws


@pytest.mark.parametrize("name", sorted(NEGATIVE))
def test_a_malformed_entry_costs_no_other(name: str) -> None:
    """Of each negative stream what is well-formed is given, in whatever pieces it comes."""
    data = (VECTORS / "tree" / "negative" / f"{name}.bin").read_bytes()
    try:
        given, bad, flaws = _sift(data)
    except FormatError:  # no header, or nothing good at all
        return
    assert flaws
    assert given == sorted(given, key=sort_key)
    assert _sift(data, 1)[:2] == (given, bad)
    tail = frame(encode_canonical(_file(b"\xff\xff")), encode_extra(_file(b"\xff\xff")))
    if flaws.end is None:
        assert _sift(data + tail)[:2] == ([*given, b"\xff\xff"], bad)


@given(st.lists(st.tuples(paths, st.sampled_from([1, 2, 4])), max_size=12))
def test_what_is_given_is_a_tree_whatever_came(found: list[tuple[bytes, int]]) -> None:
    """Ascending, each in a directory that was given before it; nothing is lost silently."""
    kinds = {1: EntryType.DIRECTORY, 2: EntryType.FILE, 4: EntryType.HARD_LINK}
    entries = [
        replace_entry(
            _file(path),
            type=kinds[kind],
            sha256=hashlib.sha256(b"").digest() if kind == 2 else None,
            link=found[0][0] if kind == 4 else None,
        )
        for path, kind in found
    ]
    flaws = Flaws()
    parser = TreeParser(flaws)
    sifted = parser.feed(_stream([_directory(b""), *entries]))
    given = [entry for entry, _ in sifted if entry is not None]
    assert [e.path for e in given] == sorted({e.path for e in given}, key=sort_key)
    directories = {e.path for e in given if e.type is EntryType.DIRECTORY}
    assert all(not e.path or e.path.rpartition(b"/")[0] in directories for e in given)
    canonical = b"".join(part for _, part in sifted)
    assert canonical == b"".join(encode_canonical(e) for e in [_directory(b""), *entries])
    plain = [e for e in given if e in entries]
    assert len(plain) + flaws.count >= len(entries)


@settings(max_examples=400)
@given(st.integers(0, len(STREAM) - 1), st.integers(1, 255))
def test_a_flipped_byte_never_ends_a_sifting_reader_in_a_crash(at: int, flip: int) -> None:
    """Flaws, a VaultError, or another content root."""
    with contextlib.suppress(VaultError):
        _sift(STREAM[:at] + bytes((STREAM[at] ^ flip,)) + STREAM[at + 1 :])


def test_a_refused_entry_closes_no_directory() -> None:
    """What comes after it is judged as if it had not been there; for writers, too."""
    order = TreeOrder()
    for path in (b"", b"a", b"a/b"):
        assert not order.flaw(path, is_directory=True)
    assert "no directory" in order.flaw(b"x/y", is_directory=False)
    assert not order.flaw(b"a/b/c", is_directory=False)
    assert not order.flaw(b"a/c", is_directory=False)


def test_bad_entries_have_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some thousand chunks can stand for a stream that never ends; of good entries none repeats."""
    monkeypatch.setattr("vault.format.tree.MAX_BAD_ENTRIES", 100)
    top = frame(encode_canonical(_directory(b"")), encode_extra(_directory(b"")))
    flaws = Flaws()
    parser = TreeParser(flaws)
    parser.feed(encode_header(HEADER) + top)
    for _ in range(200):
        parser.feed(top)
    assert flaws.count == 100
    assert flaws.end is not None
    assert "too many" in str(flaws.end.error)


def test_names_of_bad_entries_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """All are counted."""
    monkeypatch.setattr("vault.format.tree.MAX_NAMED_ENTRIES", 3)
    orphans = [_file(b"a")] * 10
    _, named, flaws = _sift(_stream([_directory(b""), *orphans]))
    assert (len(named), flaws.count, flaws.all_named) == (3, 9, False)


def test_directories_are_not_made_up_without_end() -> None:
    """One entry of 65,535 bytes could ask for 32,768 of them."""
    deep = b"/".join([b"d"] * 200)
    given, bad, _ = _sift(_stream([_directory(b""), _file(deep), _file(b"e/f")]))
    assert (given, bad) == ([b"", b"e", b"e/f"], [deep, b"e"])


# --- levels ---


@pytest.mark.parametrize("count", [1, 2, 129, 20_000])
def test_levels_fold_and_expand(count: int) -> None:
    """A tree of any number of chunks is found again from one id and its level."""
    store: dict[bytes, bytes] = {}

    def put(data: bytes) -> bytes:
        key = hashlib.sha256(data).digest()
        store[key] = data
        return key

    chunker = Chunker(ChunkSizes(4_096, 16_384, 65_536))
    chunks = [b"chunk %d" % i for i in range(count)]
    root, level = fold_levels(
        [put(chunk) for chunk in chunks], lambda data: chunker.cut(data, final=True), put
    )
    assert (level == 0) == (count == 1)
    assert list(expand_levels(root, level, store.__getitem__)) == chunks


def test_ids_cut_apart_between_chunks_are_joined() -> None:
    """The chunker knows nothing of 32-byte ids and may cut within one."""
    level = b"a" * 32 + b"b" * 32
    store = {
        b"r" * 32: b"1" * 32 + b"2" * 32,
        b"1" * 32: level[:33],
        b"2" * 32: level[33:],
        b"a" * 32: b"first",
        b"b" * 32: b"second",
    }
    assert list(expand_levels(b"r" * 32, 2, store.__getitem__)) == [b"first", b"second"]


@pytest.mark.parametrize("level", [-1, MAX_TREE_LEVEL + 1])
def test_levels_out_of_range_are_refused(level: int) -> None:
    """A manifest can't make a reader descend for ever."""
    with pytest.raises(FormatError, match="level"):
        expand_levels(b"r" * 32, level, lambda _: b"")


def test_a_broken_list_of_ids_is_refused() -> None:
    """A level must be whole ids."""
    with pytest.raises(FormatError, match="broken length"):
        list(expand_levels(b"r" * 32, 1, lambda _: b"x" * 33))
    with pytest.raises(FormatError, match="broken length"):
        split_ids(b"x" * 31)
