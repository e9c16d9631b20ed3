"""Whatever a source shows, a reader takes what the writer makes of it (I11)."""

import hashlib
import os
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vault.errors import FormatError
from vault.format.content_root import ContentRoot
from vault.format.entry import MAX_TIME, MAX_ZEROS, MIN_TIME, Entry, replace_entry
from vault.format.entry_encoding import (
    MAX_CANONICAL,
    decode_entry,
    encode_canonical,
    encode_entry,
    encode_extra,
    frame,
)
from vault.format.tree import TreeHeader, TreeParser, encode_header
from vault.format.tree_order import TreeOrder
from vault.model import EntryType
from vault.snapshot import walk
from vault.snapshot.chunks_and_holes import Extents
from vault.snapshot.dedup import TreeBuilder
from vault.snapshot.list_records import ListRecord
from vault.snapshot.records import (
    Recorded,
    file_record,
    fitting_holes,
    large_record,
    mend,
    other_record,
    recorded,
)
from vault.snapshot.walk import SourceItem

_EMPTY = hashlib.sha256(b"").digest()
_LIST = msgspec.msgpack.Decoder(list[ListRecord])

# --- what a source can show ---

names = st.binary(min_size=1, max_size=12).filter(
    lambda name: b"/" not in name and b"\0" not in name and name not in {b".", b".."}
)
paths = st.lists(names, min_size=1, max_size=4).map(b"/".join)
storable_times = st.integers(MIN_TIME, MAX_TIME)
any_times = (
    storable_times
    | st.integers(-(2**63) * 10**9, 2**63 * 10**9)  # seconds are 64 bits with sign
    | st.sampled_from([MIN_TIME - 1, MIN_TIME, MAX_TIME, MAX_TIME + 1, 2**64 - 1, 2**64])
)


def _statuses(
    times: st.SearchStrategy[int], lowest_owner: int = 0
) -> st.SearchStrategy[os.stat_result]:
    owners = st.integers(lowest_owner, 2**32 - 2)
    fields = st.fixed_dictionaries(
        {
            "st_mode": st.integers(0, 2**32 - 1),
            "st_uid": owners,
            "st_gid": owners,
            "st_mtime_ns": times,
            "st_ctime_ns": times,
            "st_size": st.integers(0, 2**63 - 1),
            "st_ino": st.integers(0, 2**64 - 1),
            "st_dev": st.integers(-1, 2**64 - 1),
            "st_rdev": st.integers(-1, 2**64 - 1),
        }
    )
    return fields.map(lambda found: cast("os.stat_result", SimpleNamespace(**found)))


good_names = st.binary(min_size=1, max_size=255).filter(lambda name: b"\0" not in name)
good_xattrs = st.dictionaries(good_names, st.binary(max_size=40), min_size=1, max_size=5).map(
    lambda found: tuple(sorted(found.items()))
)
any_xattrs = st.lists(
    st.tuples(
        st.sampled_from([b"", b"user.a", b"user.b", b"x" * 256, b"user.\0"])
        | st.binary(max_size=9),
        st.binary(max_size=40),
    ),
    max_size=6,
).map(tuple)
any_holes = st.lists(
    st.tuples(st.integers(-5, 80), st.integers(-5, 40)) | st.tuples(st.integers(), st.integers()),
    max_size=6,
).map(tuple)


@st.composite
def good_holes(draw: st.DrawFn) -> tuple[int, tuple[tuple[int, int], ...] | None]:
    """A size, and holes that a file of it can have."""
    size = draw(st.integers(0, 2**63 - 1))
    ends = sorted(draw(st.sets(st.integers(0, size), max_size=8)))
    pairs = zip(ends[::2], ends[1::2], strict=False)
    return size, tuple((start, end - start) for start, end in pairs) or None


def _taken(made: Recorded) -> Entry:
    """The entry as a reader has it, which must also survive the entry list."""
    record = made.record
    assert record is not None, made.lost
    again = _LIST.decode(msgspec.msgpack.encode([record]))
    assert again == [record]
    parser = TreeParser()
    header = encode_header(TreeHeader(key=bytes(32), relative=True, sources=(b"/srv",)))
    order = TreeOrder()
    parts = [header]
    for path in _above(record.path):
        assert not order.flaw(path, is_directory=True)
        parts.append(frame(*encode_entry(Entry(path=path, type=EntryType.DIRECTORY, mode=0o755))))
    parts.append(frame(record.canonical, record.extra))
    entries = parser.feed(b"".join(parts))
    parser.finish()
    entry, canonical = entries[-1]
    assert entry is not None
    assert (encode_canonical(entry), encode_extra(entry)) == (canonical, record.extra)
    root = ContentRoot()
    root.update(canonical)
    assert entry == decode_entry(record.canonical, record.extra)
    return entry


def _above(path: bytes) -> list[bytes]:
    parts = path.split(b"/")
    return [b"/".join(parts[:depth]) for depth in range(len(parts))]


def _no_list() -> TreeBuilder:
    raise AssertionError("too small for a list of its own")


def _ids_for(size: int, holes: tuple[tuple[int, int], ...] | None) -> list[bytes]:
    """Chunk ids that a file with so much data could have."""
    return [bytes(32)] if size - sum(length for _, length in holes or ()) else []


# --- what a kernel can return ---


@settings(deadline=None)
@given(
    path=paths, stat=_statuses(storable_times), sparse=good_holes(), xattrs=st.none() | good_xattrs
)
def test_a_file_as_a_kernel_shows_it_comes_back_without_a_problem(
    path: bytes,
    stat: os.stat_result,
    sparse: tuple[int, tuple[tuple[int, int], ...] | None],
    xattrs: Any,
) -> None:
    """Metadata, size, and holes are those that were read; nothing is reported."""
    size, holes = sparse
    extents = Extents(_no_list)
    hidden = sum(length for _, length in holes or ())
    extents.add(_ids_for(size, holes), [], size - hidden)
    extents.add_holes(holes or ())
    is_vast = hidden > MAX_ZEROS
    made = large_record(path, stat, size, _EMPTY, extents, xattrs, 0, is_tree_hash=is_vast)
    entry = _taken(made)
    assert (made.lost, made.altered) == ((), ())
    assert (entry.path, entry.size, entry.sha256 or entry.tree_hash) == (path, size, _EMPTY)
    assert (entry.holes, entry.xattrs) == (holes, xattrs)
    assert (entry.mtime, entry.ctime) == (stat.st_mtime_ns, stat.st_ctime_ns)
    assert entry.mode == stat.st_mode % 0o10000
    assert (entry.uid, entry.gid) == (stat.st_uid, stat.st_gid)


@settings(deadline=None)
@given(
    path=paths,
    stat=_statuses(storable_times),
    kind=st.sampled_from(sorted(set(EntryType) - {EntryType.FILE})),
    link=st.binary(min_size=1, max_size=4095).filter(lambda link: b"\0" not in link),
    group=paths,
    xattrs=st.none() | good_xattrs,
)
def test_anything_else_as_a_kernel_shows_it_comes_back_without_a_problem(
    *, path: bytes, stat: os.stat_result, kind: EntryType, link: bytes, group: bytes, xattrs: Any
) -> None:
    """Directories, links of both kinds, FIFOs and devices."""
    item = SourceItem(path, b"/" + path, stat, kind, link if kind is EntryType.SYMLINK else None)
    first = group if kind is EntryType.HARD_LINK else None
    made = other_record(item, kind, link=first, xattrs=xattrs, read_ns=0)
    if kind is EntryType.HARD_LINK:  # its first name is not in this tree
        assert made.record is not None
        entry = decode_entry(made.record.canonical, made.record.extra)
    else:
        entry = _taken(made)
    assert (made.lost, made.altered) == ((), ())
    assert (entry.path, entry.type, entry.xattrs) == (path, kind, xattrs)
    assert entry.mode == (0o777 if kind is EntryType.SYMLINK else stat.st_mode % 0o10000)
    assert entry.link == (item.link or first)
    is_device = kind in {EntryType.CHARACTER_DEVICE, EntryType.BLOCK_DEVICE}
    assert entry.device == (stat.st_rdev % 2**64 if is_device else None)
    assert (entry.mtime, entry.ctime) == (stat.st_mtime_ns, stat.st_ctime_ns)


# --- what none should return ---


@settings(deadline=None)
@given(
    path=paths,
    stat=_statuses(any_times, -1),
    size=st.integers(0, 100) | st.integers(0, 2**63 - 1),
    ids=st.integers(0, 3).map(lambda count: [bytes(32)] * count),
    holes=any_holes,
    xattrs=any_xattrs,
)
def test_a_broken_file_is_mended_or_is_a_problem_of_its_own(
    *, path: bytes, stat: os.stat_result, size: int, ids: list[bytes], holes: Any, xattrs: Any
) -> None:
    """What is right stays as it is, and nothing is reported but what is broken."""
    bare = Entry(
        path=path, type=EntryType.FILE, mode=stat.st_mode % 0o10000, mtime=stat.st_mtime_ns,
        size=size, ctime=stat.st_ctime_ns, chunks=b"".join(ids) if len(ids) > 1 or holes else b"",
        xattrs=xattrs or None, holes=holes or None, tree_hash=_EMPTY if size > MAX_ZEROS else None,
        sha256=None if size > MAX_ZEROS else _EMPTY, uid=stat.st_uid, gid=stat.st_gid,
    )  # fmt: skip
    made = recorded(bare, stat, 0)
    fitting = fitting_holes(holes, size)
    data = size - sum(length for _, length in fitting or ())
    if made.record is None:
        assert len(ids) > data or ((fitting or size > MAX_ZEROS) and len(ids) < 2 and data)
        return
    entry = _taken(made)
    good = {name for name, _ in xattrs if 0 < len(name) <= 255 and b"\0" not in name}
    assert entry.xattrs == (
        tuple((name, next(v for n, v in xattrs if n == name)) for name in sorted(good)) or None
    )
    assert bool(made.lost) == (good != {name for name, _ in xattrs})
    is_owned = min(stat.st_uid, stat.st_gid) >= 0
    assert bool(made.altered) == (not MIN_TIME <= stat.st_mtime_ns <= MAX_TIME or not is_owned)
    assert entry.uid == (65_534 if stat.st_uid == -1 else stat.st_uid)
    assert entry.mtime == max(MIN_TIME, min(stat.st_mtime_ns, MAX_TIME))
    assert entry.ctime == max(MIN_TIME, min(stat.st_ctime_ns, MAX_TIME))
    assert entry.holes == fitting
    assert (entry.size, entry.sha256 or entry.tree_hash) == (size, _EMPTY)


@settings(deadline=None)
@given(path=paths, stat=_statuses(any_times, -1), link=st.binary(max_size=20), xattrs=any_xattrs)
def test_a_link_to_nowhere_is_a_problem_and_any_other_is_stored(
    path: bytes, stat: os.stat_result, link: bytes, xattrs: Any
) -> None:
    """No system could make an empty one again, or one with a NUL."""
    item = SourceItem(path, b"/" + path, stat, EntryType.SYMLINK, link)
    made = other_record(item, EntryType.SYMLINK, link=None, xattrs=xattrs or None, read_ns=0)
    assert (made.record is None) == (not link or b"\0" in link)
    if made.record is None:
        assert "link target" in made.lost[-1]
    else:
        assert _taken(made).link == link


@given(
    path=paths,
    link=st.sampled_from([b"", b"x\0y", b"t" * 65_536, b"/a", b"a//b", b"../a", b"p" * 65_536]),
    kind=st.sampled_from([EntryType.SYMLINK, EntryType.HARD_LINK]),
)
def test_what_has_no_obvious_value_is_refused_by_writer_and_reader_alike(
    path: bytes, link: bytes, kind: EntryType
) -> None:
    """The writer's verdict on an entry is the reader's on its bytes."""
    entry = Entry(path=path, type=kind, mode=0o777, link=link)
    refused = []
    for judge in (
        lambda: encode_entry(entry),
        lambda: decode_entry(encode_canonical(entry), encode_extra(entry)),
    ):
        try:
            judge()
        except FormatError as error:
            refused.append(str(error))
        else:
            refused.append("")
    assert refused[0] == refused[1]
    assert bool(refused[0]) == (
        kind is EntryType.HARD_LINK or link[:2] in {b"", b"x\0", b"tt", b"pp"}
    )


def test_attributes_beyond_what_an_entry_holds_lose_the_largest() -> None:
    """ACLs and capabilities stay; every one that is left out is counted, some are named."""
    large = tuple((b"user.a%02d" % n, bytes(60_000)) for n in range(80))
    xattrs = (*large, (b"user.z", b"small"), (b"system.posix_acl_access", bytes(44)))
    stat = SimpleNamespace(
        st_mode=0o100644, st_uid=0, st_gid=0, st_mtime_ns=1, st_ctime_ns=1,
        st_size=1, st_ino=1, st_dev=1,
    )  # fmt: skip
    made = file_record(
        b"big", cast("os.stat_result", stat), 1, _EMPTY, [bytes(32)], tuple(sorted(xattrs)), 0
    )
    entry = _taken(made)
    kept = dict(entry.xattrs or ())
    assert kept[b"user.z"] == b"small"
    assert b"system.posix_acl_access" in kept
    assert MAX_CANONICAL - 61_000 < len(encode_canonical(entry)) <= MAX_CANONICAL
    gone = len(xattrs) - len(kept)
    assert len(made.lost) == 1
    assert "4 MiB" in made.lost[0]
    assert f"and {gone - 5} more left out" in made.lost[0]


def test_an_entry_at_the_limit_is_not_touched() -> None:
    """One byte more is what makes the difference."""
    bare = Entry(path=b"f", type=EntryType.FIFO, mode=0, xattrs=((b"user.a", bytes(70_000)),))
    room = MAX_CANONICAL - len(encode_canonical(bare))
    full = replace_entry(bare, xattrs=((b"user.a", bytes(70_000 + room)),))
    assert len(encode_canonical(full)) == MAX_CANONICAL
    assert encode_entry(full)
    assert mend(full) == (full, [], [])
    over = replace_entry(bare, xattrs=((b"user.a", bytes(70_001 + room)),))
    with pytest.raises(FormatError, match="too long"):
        encode_entry(over)
    assert mend(over).entry.xattrs is None


def test_an_owner_with_a_name_too_long_becomes_one_without(monkeypatch: pytest.MonkeyPatch) -> None:
    """The numbers are what is restored."""
    monkeypatch.setattr(walk, "owner_names", lambda _u, _g: ("u" * 256, "g" * 255))
    stat = SimpleNamespace(
        st_mode=0o40755, st_uid=7, st_gid=8, st_mtime_ns=1, st_ctime_ns=1, st_size=1, st_ino=1,
        st_dev=1, st_rdev=0,
    )  # fmt: skip
    item = SourceItem(b"d", b"/d", cast("os.stat_result", stat), EntryType.DIRECTORY)
    made = other_record(item, EntryType.DIRECTORY, link=None, xattrs=None, read_ns=0)
    entry = _taken(made)
    assert (entry.user, entry.group, entry.uid) == ("", "g" * 255, 7)
    assert made.altered == ["its owner's name is too long to be stored"]
    longest = replace_entry(entry, user="u" * 255, group="g" * 255)
    assert mend(longest) == (longest, [], []), "names that fit are not called altered"


@given(holes=any_holes, size=st.integers(0, 100))
def test_holes_that_fit_hold_the_same_bytes(holes: Any, size: int) -> None:
    """Byte by byte: a hole stays one, data stays data, and fitting twice changes nothing."""
    holes = tuple((offset, length) for offset, length in holes if abs(offset) + abs(length) < 300)
    fitted = fitting_holes(holes, size) or ()
    covered = {at for offset, length in holes for at in range(offset, offset + length)}
    assert {at for offset, length in fitted for at in range(offset, offset + length)} == {
        at for at in covered if 0 <= at < size
    }
    assert fitting_holes(fitted, size) == (fitted or None)


# --- the order of a tree ---


@given(st.lists(st.tuples(paths | st.just(b""), st.booleans()), max_size=12))
def test_what_the_order_lets_pass_a_reader_takes(steps: list[tuple[bytes, bool]]) -> None:
    """A name listed twice, a directory that is missing: the writer leaves them out."""
    order = TreeOrder()
    parts = [encode_header(TreeHeader(key=bytes(32), relative=True, sources=(b"/srv",)))]
    passed = []
    for path, is_directory in [(b"", True), *steps, *sorted(steps)]:
        if order.flaw(path, is_directory=is_directory):
            continue
        kind = EntryType.DIRECTORY if is_directory else EntryType.FIFO
        parts.append(frame(*encode_entry(Entry(path=path, type=kind, mode=0))))
        passed.append(path)
    parser = TreeParser()
    assert [entry and entry.path for entry, _ in parser.feed(b"".join(parts))] == passed
    parser.finish()
