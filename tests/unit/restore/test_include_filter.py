"""What `--include` takes along."""

import hashlib

from vault.format.entry import Entry
from vault.format.entry_encoding import encode_canonical
from vault.model import EntryType
from vault.restore.include_filter import Selection, nameable, select_entries

_SHA = hashlib.sha256(b"x").digest()


def _tree() -> list[tuple[Entry, bytes]]:
    """Two directories; a file in the first that the second has links to."""
    kinds = [
        (b"", EntryType.DIRECTORY, None),
        (b"a", EntryType.DIRECTORY, None),
        (b"a/file", EntryType.FILE, None),
        (b"a/other", EntryType.FILE, None),
        (b"b", EntryType.DIRECTORY, None),
        (b"b/c", EntryType.DIRECTORY, None),
        (b"b/c/link", EntryType.HARD_LINK, b"a/file"),
        (b"b/link", EntryType.HARD_LINK, b"a/file"),
        (b"b/soft", EntryType.SYMLINK, b"nowhere"),
    ]
    entries = [
        Entry(path=path, type=kind, mode=0o644, link=link, size=1, sha256=_SHA)
        for path, kind, link in kinds
    ]
    return [(entry, encode_canonical(entry)) for entry in entries]


def _taken(selection: Selection) -> list[bytes]:
    return [entry.path for entry, _ in _tree() if selection.takes(entry)]


def test_everything_by_default() -> None:
    """And nothing is partial about it."""
    selection = select_entries(_tree(), None)
    assert not selection.is_partial
    assert _taken(selection) == [entry.path for entry, _ in _tree()]


def test_directories_around_what_is_wanted_come_along() -> None:
    """All the way up, but not their other members."""
    selection = select_entries(_tree(), lambda path, _: path == b"b/c/link")
    assert selection.is_partial
    assert _taken(selection) == [b"", b"b", b"b/c", b"b/c/link"]


def test_a_link_stands_in_for_its_file() -> None:
    """The first in order that is wanted, and only where the file itself is not."""
    selection = select_entries(_tree(), lambda path, _: path.startswith(b"b/"))
    assert selection.files == {b"a/file": b"b/c/link"}
    assert select_entries(_tree(), lambda path, _: b"file" in path or b"link" in path).files == {}


def test_patterns_are_told_what_is_a_directory() -> None:
    """As a pattern that ends in a slash needs to know."""
    told: dict[bytes, bool] = {}

    def wanted(path: bytes, is_directory: bool) -> bool:  # noqa: FBT001 - the shape of `Wanted`
        told[path] = is_directory
        return False

    select_entries(_tree(), wanted)
    assert {path for path, is_directory in told.items() if is_directory} == {b"a", b"b", b"b/c"}


def test_a_directory_asked_for_as_one_is_taken_and_no_file_of_its_name() -> None:
    """Both the look for what is needed and the restore itself say of what type an entry is."""

    def wanted(path: bytes, is_directory: bool) -> bool:  # noqa: FBT001 - the shape of `Wanted`
        return is_directory and path in {b"b/c", b"a/file"}

    assert _taken(select_entries(_tree(), wanted)) == [b"", b"b", b"b/c"]
    assert _taken(Selection(wanted=wanted)) == [b"", b"b/c"]


def test_nothing_wanted_leaves_the_top() -> None:
    """TARGET itself always has attributes."""
    assert _taken(select_entries(_tree(), lambda *_: False)) == [b""]


def test_a_link_whose_file_can_be_given_no_name_becomes_that_file() -> None:
    """As where its file was not asked for; what lies below a long name goes with it."""
    long = b"n" * 256
    tree = [
        (Entry(path=b"", type=EntryType.DIRECTORY, mode=0o755), b""),
        (Entry(path=long, type=EntryType.FILE, mode=0o644, sha256=bytes(32)), b""),
        (Entry(path=b"x", type=EntryType.DIRECTORY, mode=0o755), b""),
        (Entry(path=b"x/" + long + b"/y", type=EntryType.FIFO, mode=0o644), b""),
        (Entry(path=b"z", type=EntryType.HARD_LINK, mode=0o644, link=long), b""),
    ]
    found = select_entries(tree, nameable(None))
    assert [entry.path for entry, _ in tree if found.takes(entry)] == [b"", b"x", b"z"]
    assert found.files == {long: b"z"}
    only = select_entries(tree, nameable(lambda path, _: path == b"x"))
    assert [entry.path for entry, _ in tree if only.takes(entry)] == [b"", b"x"]
