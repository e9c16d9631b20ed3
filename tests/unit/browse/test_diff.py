"""Two trees are merged path by path; what differs is told with what it was and is."""

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vault.browse.diff import Change, ChangeKind, Summary, compare, diff_trees
from vault.format.entry import Entry
from vault.model import EntryType, sort_key


def _file(path: bytes = b"f", content: bytes = b"\1", size: int = 1, **fields: Any) -> Entry:
    return Entry(
        path=path,
        type=EntryType.FILE,
        size=size,
        sha256=content * 32,
        **{"mode": 0o644, **fields},
    )


def _directory(path: bytes = b"f", **fields: Any) -> Entry:
    return Entry(path=path, type=EntryType.DIRECTORY, **{"mode": 0o755, **fields})


def _symlink(link: bytes) -> Entry:
    return Entry(path=b"f", type=EntryType.SYMLINK, mode=0o777, link=link)


def _device(number: int) -> Entry:
    return Entry(path=b"f", type=EntryType.BLOCK_DEVICE, mode=0o600, device=number)


@pytest.mark.parametrize(
    ("old", "new", "kind", "fields"),
    [
        (_file(), _file(content=b"\2"), ChangeKind.CONTENT, ()),
        (_file(), _file(content=b"\2", mtime=5), ChangeKind.CONTENT, ("mtime",)),
        (_file(), _file(mtime=5, uid=3), ChangeKind.METADATA, ("uid", "mtime")),
        (_file(), _file(xattrs=((b"user.a", b"b"),)), ChangeKind.METADATA, ("xattrs",)),
        (_directory(), _directory(mode=0o700), ChangeKind.METADATA, ("mode",)),
        (_file(mode=0o755), _directory(), ChangeKind.TYPE, ()),
        (_symlink(b"a"), _symlink(b"b"), ChangeKind.CONTENT, ()),
        (_device(1), _device(2), ChangeKind.CONTENT, ()),
    ],
)
def test_what_differs(old: Entry, new: Entry, kind: ChangeKind, fields: tuple[str, ...]) -> None:
    """The gravest decides the kind; metadata that differ are named in any case."""
    assert compare(old, new) == Change(kind=kind, old=old, new=new, fields=fields)


def test_what_is_not_restored_makes_no_difference() -> None:
    """Chunk ids, owners' names, ctime and holes are no part of the content root."""
    other = _file(chunks=bytes(64), user="x", group="y", ctime=9, holes=((0, 1),))
    assert compare(_file(), other) is None


def test_directories_that_come_and_go_are_told_with_all_in_them() -> None:
    """In tree order, also where one tree ends first."""
    old = [_directory(b""), _directory(b"a"), _file(b"a/x"), _file(b"a-b")]
    new = [_directory(b""), _file(b"a-b"), _directory(b"z"), _file(b"z/y")]
    found = [(change.kind, change.entry.path) for change in diff_trees(old, new)]
    assert found == [
        (ChangeKind.REMOVED, b"a"),
        (ChangeKind.REMOVED, b"a/x"),
        (ChangeKind.ADDED, b"z"),
        (ChangeKind.ADDED, b"z/y"),
    ]


def test_no_more_than_two_entries_are_held() -> None:
    """Each tree is asked for its next entry only when the last was used."""
    ahead = 0

    def endless(*, used: bool) -> Iterator[Entry]:
        nonlocal ahead
        for number in range(1_000):
            ahead += 1 if used else 0
            yield _file(b"%04d" % number, mtime=int(used))

    for count, _ in enumerate(diff_trees(endless(used=False), endless(used=True)), start=1):
        assert ahead <= count + 1
    assert ahead == 1_000


_paths = st.lists(st.sampled_from(b"a a/b a/b/c a-b a\x01 b b/c \xff".split()), unique=True)


@given(_paths, _paths)
def test_the_merge_is_the_difference_of_the_sets(old: list[bytes], new: list[bytes]) -> None:
    """By tree order, for any two lists of paths."""
    trees = [[_file(path) for path in sorted(paths, key=sort_key)] for paths in (old, new)]
    found = [(change.kind, change.entry.path) for change in diff_trees(*trees)]
    added = [(ChangeKind.ADDED, path) for path in set(new) - set(old)]
    removed = [(ChangeKind.REMOVED, path) for path in set(old) - set(new)]
    assert found == sorted(added + removed, key=lambda item: sort_key(item[1]))


def test_the_summary_counts_content_where_it_changed() -> None:
    """Metadata moves no bytes; a file that becomes a directory is removed content."""
    old = [_file(b"a", size=10), _file(b"b", size=20), _file(b"c", size=30), _file(b"d", size=1)]
    new = [_file(b"b", b"\2", size=25), _directory(b"c"), _file(b"d", size=1, uid=1)]
    new.append(_file(b"e", size=100))
    summary = Summary()
    for change in diff_trees(old, new):
        summary.add(change)
    assert summary.paths == dict.fromkeys(ChangeKind, 1)
    assert (summary.added_size, summary.removed_size) == (125, 60)


def test_sizes_of_what_is_not_there_are_nothing() -> None:
    """Before it was added, after it was removed."""
    (added,) = diff_trees([], [_file(size=7)])
    (removed,) = diff_trees([_file(size=7)], [])
    assert (added.old_size, added.new_size) == (0, 7)
    assert (removed.old_size, removed.new_size) == (7, 0)
