"""A snapshot is looked at through its verified tree; every byte of a file is verified."""

import logging
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.lab import Lab, MakeRepository
from tests.support.trees import MakeSource
from vault.browse import OpenFile, TreeIndex, View, path_matcher
from vault.browse.files import Blocks, FileContent
from vault.errors import DigestMismatchError, FormatError, IntegrityError
from vault.format import pack_index
from vault.format.entry import Entry
from vault.format.entry_encoding import encode_canonical
from vault.model import EntryType, ObjectRef

BIG = 200_000  # bytes: chunks are of 1 to 8 KiB, blocks of 8 KiB, packs of 24 KiB


def _entries(*entries: Entry) -> Iterator[tuple[Entry, bytes]]:
    top = Entry(path=b"", type=EntryType.DIRECTORY, mode=0o755)
    return ((entry, encode_canonical(entry)) for entry in (top, *entries))


def _directory(path: bytes) -> Entry:
    return Entry(path=path, type=EntryType.DIRECTORY, mode=0o755)


def _file(path: bytes) -> Entry:
    return Entry(path=path, type=EntryType.FILE, mode=0o644, sha256=bytes(32))


def _link(path: bytes, target: bytes) -> Entry:
    return Entry(path=path, type=EntryType.HARD_LINK, mode=0o644, link=target)


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[TreeIndex]:
    """Directories in directories, names that sort around the slash, and a hard link."""
    with TreeIndex(tmp_path) as made:
        made.fill(
            _entries(
                _directory(b"a"),
                _file(b"a/1"),
                _directory(b"a/2"),
                _file(b"a/2/x"),
                _link(b"a/3", b"a/1"),
                _file(b"a\x01"),
                _file(b"a-b"),
                _directory(b"b"),
            )
        )
        yield made


def _names(tree: TreeIndex, path: bytes, start: int = 0) -> list[bytes]:
    number = tree.find(path)
    assert number is not None
    return [tree.entry(member).path for member in tree.children(number, start)]


def test_members_of_a_directory_are_its_own(tree: TreeIndex) -> None:
    """Not what is below its subdirectories, and not its neighbours."""
    assert _names(tree, b"") == [b"a", b"a\x01", b"a-b", b"b"]
    assert _names(tree, b"a") == [b"a/1", b"a/2", b"a/3"]
    assert _names(tree, b"b") == []


def test_members_go_on_after_any_of_them(tree: TreeIndex) -> None:
    """Listing in parts gives what listing at once does; before the first is the first."""
    number = tree.find(b"a")
    assert number is not None
    for member in tree.children(number):
        rest = list(tree.children(number, tree.after(member)))
        assert rest == [each for each in tree.children(number) if each > member]
    assert _names(tree, b"a", 0) == _names(tree, b"a")


def test_every_entry_is_found_and_nothing_else(tree: TreeIndex) -> None:
    """By its whole path."""
    for number, entry in enumerate(tree):
        assert tree.find(entry.path) == number
    for missing in (b"a/", b"a/2/", b"a/2/y", b"c", b"A", b"\xff"):
        assert tree.find(missing) is None


def test_everything_below_a_directory_is_a_range(tree: TreeIndex) -> None:
    """In tree order."""
    number = tree.find(b"a")
    assert number is not None
    assert [tree.entry(each).path for each in tree.below(number)] == [
        b"a/1",
        b"a/2",
        b"a/2/x",
        b"a/3",
    ]


def test_links_are_counted_as_stat_does(tree: TreeIndex) -> None:
    """Names of a file; two and the subdirectories of a directory."""
    found = {path: tree.links(tree.find(path) or 0) for path in (b"", b"a", b"a/1", b"a/2", b"a-b")}
    assert found == {b"": 4, b"a": 3, b"a/1": 2, b"a/2": 2, b"a-b": 1}
    assert tree.file_of(tree.find(b"a/3") or 0) == tree.find(b"a/1")


def test_a_hard_link_to_no_file_is_refused(tmp_path: Path) -> None:
    """The parser sees paths only by hash."""
    with TreeIndex(tmp_path) as tree, pytest.raises(FormatError, match="hard link"):
        tree.fill(_entries(_directory(b"a"), _link(b"b", b"a")))


def test_few_keys_are_kept(tmp_path: Path) -> None:
    """However many are looked up, and no long one."""
    long = b"z" * 3_000
    with TreeIndex(tmp_path, max_keys=8) as tree:
        tree.fill(_entries(*(_file(b"%03d" % n) for n in range(200)), _file(long)))
        for number in range(200):
            assert tree.find(b"%03d" % number) == number + 1
            assert len(tree._keys) <= 8
        assert tree.find(long) == 201
        assert max(map(len, tree._keys.values())) < 10


@pytest.mark.parametrize(
    ("pattern", "path", "expected"),
    [
        (b"*.txt", b"a/b.txt", True),
        (b"b*", b"a/b.txt", True),
        (b"b", b"a/b.txt", False),
        (b"a*", b"a/b", False),
        (b"a/*", b"a/b/c", True),
        (b"*/c", b"a/b/c", True),
        (b"b/c", b"a/b/c", False),
        (b"[xy]?", b"d/y\xff", True),
        (b"n\n*", b"n\nm", True),
    ],
)
def test_globs(*, pattern: bytes, path: bytes, expected: bool) -> None:
    """With a slash the whole path, else the name; bytes that are not UTF-8 are one character."""
    assert path_matcher(pattern)(path) is expected


# --- content ---


@pytest.fixture
def source(make_source: MakeSource) -> Path:
    """A file of many chunks, one with holes, one that is all hole."""
    top = make_source()
    big = random.Random(7).randbytes(BIG)
    (top / "big").write_bytes(big)
    (top / "hard").hardlink_to(top / "big")
    with (top / "sparse").open("wb") as file:
        file.seek(1 << 20)
        file.write(big[:30_000])
        file.seek(4 << 20)
        file.write(big[:5])
        file.truncate(6 << 20)
    with (top / "hole").open("wb") as file:
        file.truncate(3 << 20)
    return top


@pytest.fixture
def lab(make_repository: MakeRepository, source: Path) -> Lab:
    """A repository after a snapshot of it."""
    made: Lab = make_repository()
    made.snapshot(source)
    return made


def _view(lab: Lab, *, random_access: bool = True, max_cached: int = 1 << 16) -> View:
    repository = lab.open()
    scratch = lab.base / "scratch"
    scratch.mkdir(exist_ok=True)
    return View(
        repository,
        lab.recovery,
        repository.ledger.snapshots()[-1],
        scratch=scratch,
        random_access=random_access,
        max_cached=max_cached,
    )


def _at(view: View, path: bytes) -> Entry:
    number = view.tree.find(path)
    assert number is not None
    return view.tree.entry(view.tree.file_of(number))


def _data_packs(lab: Lab, path: bytes = b"big") -> list[ObjectRef]:
    """Packs that a file's chunks lie in, in the order of the file."""
    with _view(lab) as view:
        reader = view.blocks.reader
        numbers = [chunk.pack for chunk in reader.located(_at(view, path))]
        return [reader.pack(number).ref for number in dict.fromkeys(numbers)]


def _flip(lab: Lab, ref: ObjectRef, at: int = 8_000) -> None:
    data = bytearray(lab.store.get(ref.name, ref.version))
    data[at] ^= 1
    lab.store.corrupt(ref.name, ref.version, bytes(data))


@pytest.mark.parametrize("name", ["big", "hard", "sparse", "hole", "empty", "dir0/file0"])
def test_any_part_of_a_file_reads_as_it_was(lab: Lab, source: Path, name: str) -> None:
    """At random offsets and lengths, past the end too; and from beginning to end."""
    expected = (source / name).read_bytes()
    dice = random.Random(3)
    with _view(lab) as view:
        entry = _at(view, name.encode())
        file = view.open(entry)
        for _ in range(60):
            offset = dice.randrange(len(expected) + 10)
            size = dice.choice((0, 1, 100, 10_000, 200_000))
            assert file.read(offset, size) == expected[offset : offset + size]
        assert b"".join(view.stream(entry)) == expected


@pytest.mark.parametrize("name", ["big", "sparse", "vast"])
def test_any_part_of_a_giant_file_reads_as_it_was(
    lab: Lab, source: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Its chunks and holes are lists of their own, and lie on disk; the control has none."""
    (source / "new").mkdir()
    (source / name).replace(source / "new/file") if name != "vast" else _comb(source / "new/file")
    path, expected = b"new/file", (source / "new/file").read_bytes()
    for module in "format.entry_rules", "snapshot.chunks_and_holes", "snapshot.file_reader":
        monkeypatch.setattr(f"vault.{module}.MAX_INLINE", 1)
    lab.snapshot(source / "new")
    lab.snapshot(source)
    dice = random.Random(3)
    with _view(lab) as view:
        entry = _at(view, path)
        assert entry.chunk_list is not None
        assert (entry.hole_list is None) == (name == "big")
        file = view.open(entry)
        for _ in range(60):
            offset = dice.randrange(len(expected) + 10)
            size = dice.choice((0, 1, 100, 10_000, 200_000))
            assert file.read(offset, size) == expected[offset : offset + size]
        assert b"".join(view.stream(entry)) == expected
    assert lab.verify(lab.open().ledger.snapshots()[-1]).passed


def _comb(path: Path) -> None:
    with path.open("wb") as file:
        for number in range(20):
            file.seek(number * 131_072)
            file.write(os.urandom(number * 512))
        file.truncate(21 * 131_072)


def test_open_blocks_are_bounded(lab: Lab, source: Path) -> None:
    """Whatever is read; one block is always kept."""
    with _view(lab, max_cached=20_000) as view:
        file = view.open(_at(view, b"big"))
        dice = random.Random(4)
        for _ in range(100):
            file.read(dice.randrange(BIG), 5_000)
            assert view.blocks._open.weight <= 20_000
        assert view.blocks._open


def test_reading_on_fetches_together(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neighbouring blocks come in one call to the store, and each only once."""
    calls: list[tuple[str, int]] = []
    with _view(lab, max_cached=1 << 20) as view:
        repository = view.blocks.reader.repository
        real = repository.read_range

        def counted(ref: ObjectRef, offset: int, length: int) -> bytes:
            calls.append((ref.name, offset))
            return real(ref, offset, length)

        monkeypatch.setattr(repository, "read_range", counted)
        assert sum(map(len, view.stream(_at(view, b"big")))) == BIG
    blocks_at = [place for place in calls if place[1]]
    assert len(blocks_at) == len(set(blocks_at))
    assert len(calls) <= 2 * len(_data_packs(lab)) + 2  # a header and a range


@pytest.mark.parametrize("random_access", [True, False])
def test_a_flipped_bit_is_never_given(lab: Lab, source: Path, *, random_access: bool) -> None:
    """What comes before it is right, then the error names the pack; elsewhere all is right."""
    expected = (source / "big").read_bytes()
    damaged = _data_packs(lab)[2]
    _flip(lab, damaged)
    with _view(lab, random_access=random_access) as view:
        entry = _at(view, b"big")
        file = view.open(entry)
        errors = set()
        for offset in range(0, BIG, 1_000):
            try:
                assert file.read(offset, 1_000) == expected[offset : offset + 1_000]
            except DigestMismatchError as error:
                errors.add(str(error))
        assert errors
        assert all(damaged.name in error for error in errors)
        with pytest.raises(DigestMismatchError, match=damaged.name):
            list(view.stream(entry))


def test_damage_is_not_fetched_again(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever reads on costs the store nothing more."""
    _flip(lab, _data_packs(lab)[0])
    with _view(lab) as view:
        file = view.open(_at(view, b"big"))
        bad = next(at for at in range(0, BIG, 1_000) if _fails(file, at))
        monkeypatch.setattr(view.blocks.reader.repository, "read", None)
        monkeypatch.setattr(view.blocks.reader.repository, "read_range", None)
        with pytest.raises(DigestMismatchError):
            file.read(bad, 1)


def _fails(file: OpenFile, offset: int) -> bool:
    try:
        file.read(offset, 1)
    except IntegrityError:
        return True
    return False


def test_damage_ahead_does_not_disturb(lab: Lab, source: Path) -> None:
    """A block that is only fetched along may be broken."""
    ref = _data_packs(lab)[0]
    size = len(lab.store.get(ref.name, ref.version))
    _flip(lab, ref, size * 2 // 3)
    with _view(lab) as view:
        first = view.open(_at(view, b"big")).read(0, 1_000)
    assert first == (source / "big").read_bytes()[:1_000]


def test_a_damaged_tree_shows_nothing(lab: Lab) -> None:
    """Not even the part that is right."""
    repository = lab.open()
    for ref in repository.inventory(repository.ledger.snapshots()[-1]).objects:
        if ref.name.startswith("packs/") and lab.store.get(ref.name)[14] == 2:
            _flip(lab, ref, ref.size - 2_000)
    with pytest.raises(IntegrityError), _view(lab):
        pytest.fail("was opened")
    assert not list((lab.base / "scratch").iterdir())


def test_a_wrong_index_is_believed_no_more(
    lab: Lab, source: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its lengths are shifted by one between two chunks; the file still reads right."""
    real = pack_index.open_index

    def lying(*arguments: bytes) -> list[pack_index.IndexEntry]:
        entries = real(*arguments)
        for entry in entries:
            lengths = entry.directory.lengths
            if len(lengths) > 1:
                lengths[0] += 1
                lengths[1] -= 1
        return entries

    monkeypatch.setattr("vault.repository.candidate_packs.pack_index.open_index", lying)
    with caplog.at_level(logging.WARNING), _view(lab) as view:
        content = view.open(_at(view, b"big"))
        assert content.read(0, BIG) == (source / "big").read_bytes()
        assert view.blocks.reader._hashed
    assert "reading again" in caplog.text


def test_lengths_at_random_are_not_those_of_an_unproven_directory(
    lab: Lab, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store can seal a pack that claims other lengths; it can't make it hash right.

    Two lies that cancel out would move all chunks between them.
    """
    # no index is left
    monkeypatch.setattr("vault.repository.candidate_packs.pack_index.open_index", lambda *_: [])
    expected = (source / "big").read_bytes()
    real = __import__("vault.repository.pack_reader", fromlist=["x"]).read_directory
    first, *_, last = _data_packs(lab)

    def forged(data_range: object, size: int, opener_for: object) -> object:
        header, opener, directory = real(data_range, size, opener_for)
        if not _is_whole(data_range):
            if size == first.size:
                directory.lengths[0] += 1
            if size == last.size:
                directory.lengths[-1] -= 1
        return header, opener, directory

    monkeypatch.setattr("vault.repository.pack_reader.read_directory", forged)
    with _view(lab) as view:
        assert view.open(_at(view, b"big")).read(BIG // 2, 100) == expected[BIG // 2 :][:100]


def _is_whole(data_range: object) -> bool:
    """Whether the directory is read from bytes that were hashed."""
    return getattr(data_range, "__name__", "") == "<lambda>"


def test_chunks_that_do_not_add_up_are_refused(lab: Lab) -> None:
    """The size is signed, the lengths must fit it."""
    with _view(lab) as view:
        entry = _at(view, b"big")
        shorter = Entry(
            path=entry.path,
            type=entry.type,
            mode=entry.mode,
            size=entry.size - 1,
            sha256=entry.sha256,
            chunks=entry.chunks,
        )
        with pytest.raises(IntegrityError, match="don't add up"):
            FileContent(Blocks(view.blocks.reader), shorter)


def test_the_whole_file_must_have_the_signed_digest(lab: Lab) -> None:
    """Chunks that exist, in another order than the signed SHA-256 says."""
    with _view(lab, random_access=False) as view:
        entry = _at(view, b"big")
        ids = entry.chunks
        swapped = Entry(
            path=entry.path,
            type=entry.type,
            mode=entry.mode,
            size=entry.size,
            sha256=entry.sha256,
            chunks=ids[32:64] + ids[:32] + ids[64:],
        )
        with pytest.raises(DigestMismatchError, match="each chunk being right"):
            list(view.stream(swapped))
