"""The walk: order, types, what can't be read, and what changes under its feet."""

import errno
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vault.errors import ConfigError
from vault.model import EntryType, sort_key
from vault.snapshot import safe_open
from vault.snapshot.walk import (
    LeftOut,
    Reason,
    Rules,
    SourceItem,
    owner_names,
    walk,
)

OPEN = 64  # directories that a walk keeps open


def _paths(items: Iterator[SourceItem]) -> list[bytes]:
    return [item.path for item in items]


def _by_path(items: Iterator[SourceItem]) -> dict[bytes, SourceItem]:
    return {item.path: item for item in items}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Some files, two directories and names that sort between a directory and its members."""
    root = tmp_path / "root"
    (root / "a" / "deep").mkdir(parents=True)
    for name in ("a/x", "a/deep/y", "a.b", "a-b", "z"):
        (root / name).write_text(name)
    return root


# --- order and names ---


def test_one_directory_gives_relative_paths_in_tree_order(tree: Path) -> None:
    """The top first, then depth first; members come before names that only begin alike."""
    assert _paths(walk([tree])) == [
        b"",
        b"a",
        b"a/deep",
        b"a/deep/y",
        b"a/x",
        b"a-b",
        b"a.b",
        b"z",
    ]


def test_items_say_where_to_open_them(tree: Path) -> None:
    """`full` leads to the thing itself."""
    for item in walk([tree]):
        assert item.full == os.path.normpath(os.fsencode(tree) + b"/" + item.path)
        assert item.stat is not None
        assert os.path.samestat(os.lstat(item.full), item.stat)


@settings(max_examples=25, deadline=None)
@given(
    names=st.lists(
        st.lists(st.sampled_from(["a", "b", "a.", "a-", "\udcff", "é"]), min_size=1, max_size=4),
        max_size=12,
    )
)
def test_the_walk_meets_what_os_walk_meets_in_tree_order(
    tmp_path_factory: pytest.TempPathFactory, names: list[list[str]]
) -> None:
    """Nothing is left out or met twice, and the order is strictly ascending."""
    root = tmp_path_factory.mktemp("walk")
    for parts in names:
        root.joinpath(*parts).mkdir(parents=True, exist_ok=True)
        root.joinpath(*parts, "file").touch()
    expected = {b""}
    for directory, below, files in os.walk(os.fsencode(root)):
        relative = directory[len(os.fsencode(root)) + 1 :]
        expected |= {(relative + b"/" + name).lstrip(b"/") for name in below + files}
    found = _paths(walk([root]))
    assert sorted(expected, key=sort_key) == found


def test_a_single_file_is_the_only_member_of_its_directory(tree: Path) -> None:
    """The top has the directory's metadata; its other members are left out."""
    top, member = walk([tree / "z"])
    assert (top.path, top.type) == (b"", EntryType.DIRECTORY)
    assert top.stat is not None
    assert top.stat.st_ino == tree.stat().st_ino
    assert (member.path, member.type) == (b"z", EntryType.FILE)


def test_several_paths_keep_their_whole_names_and_parents(tree: Path) -> None:
    """Directories above are entries, once each, without their other members."""
    found = _paths(walk([tree / "z", tree / "a"]))
    above = os.fsencode(tree)[1:].split(b"/")
    parents = [b"/".join(above[:depth]) for depth in range(len(above) + 1)]
    base = parents[-1]
    members = [base + name for name in (b"/a", b"/a/deep", b"/a/deep/y", b"/a/x", b"/z")]
    assert found == [*parents, *members]
    assert found == sorted(found, key=sort_key)


def test_relative_paths_and_symlinks_above_are_resolved(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names in the tree have only real directories above them."""
    (tree / "link").symlink_to("a")
    monkeypatch.chdir(tree)
    real = os.fsencode(tree)[1:]
    found = _by_path(walk([b"link/deep", Path("z")]))
    assert real + b"/a/deep/y" in found
    assert all(
        item.type is EntryType.DIRECTORY for path, item in found.items() if real.startswith(path)
    )
    assert _paths(walk([b"."])) == _paths(walk([tree]))


# --- paths that are refused ---


@pytest.mark.parametrize("pair", [("a", "a"), ("a", "a/deep"), ("a/x", "a"), (".", "z")])
def test_overlapping_paths_are_refused(tree: Path, pair: tuple[str, str]) -> None:
    """Else a member would have two places in the order."""
    with pytest.raises(ConfigError, match="lies in"):
        walk([tree / name for name in pair])


def test_a_missing_path_is_refused_at_once(tree: Path) -> None:
    """Before anything was walked: most likely a source is not mounted."""
    with pytest.raises(ConfigError, match="can't be read"):
        walk([tree, tree.parent / "missing"])
    with pytest.raises(ConfigError, match="no PATH"):
        walk([])
    with pytest.raises(ConfigError, match="not a file name"):
        walk([b"a\0b"])


def test_a_symlink_to_a_directory_is_refused(tree: Path) -> None:
    """It would be a backup of the link alone, which nobody wants."""
    (tree / "link").symlink_to("a")
    with pytest.raises(ConfigError, match="symbolic link") as caught:
        walk([tree / "link"])
    assert str(tree / "a") in (caught.value.hint or "")


# --- types and trouble ---


def test_every_type_is_recognised(tree: Path) -> None:
    """A socket has none; a symlink carries its target, which is not followed."""
    os.mkfifo(tree / "fifo")
    (tree / "link").symlink_to("missing/\udcff")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tree / "socket"))
        found = _by_path(walk([tree]))
    assert found[b"fifo"].type is EntryType.FIFO
    assert found[b"link"].type is EntryType.SYMLINK
    assert found[b"link"].link == b"missing/\xff"
    assert found[b"socket"].type is None
    assert found[b"socket"].stat is not None
    assert found[b"socket"].error is None


def test_devices_are_recognised() -> None:
    """By the one device that every system has."""
    _, null = walk([Path(os.devnull)])
    assert null.type is EntryType.CHARACTER_DEVICE


def test_an_unreadable_directory_is_an_item_with_an_error(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The walk goes on behind it; the directory itself keeps its metadata."""

    def refuse(fd: int) -> Any:
        if os.path.samestat(os.fstat(fd), (tree / "a").stat()):
            raise PermissionError(errno.EACCES, "Permission denied")
        return real(fd)

    real = os.scandir
    monkeypatch.setattr(os, "scandir", refuse)
    found = _by_path(walk([tree]))
    assert found[b"a"].error == "Permission denied"
    assert found[b"a"].stat is not None
    assert b"a/x" not in found
    assert b"z" in found


def test_a_failing_stat_is_an_item_with_an_error(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a damaged or remote file system."""
    real = os.stat

    def fail(path: bytes, *, dir_fd: int | None, follow_symlinks: bool) -> os.stat_result:
        if path == b"z":
            raise OSError(errno.EIO, "Input/output error")
        return real(path, dir_fd=dir_fd, follow_symlinks=follow_symlinks)

    monkeypatch.setattr("vault.snapshot.walk.os.stat", fail)
    found = _by_path(walk([tree]))
    assert found[b"z"].error == "Input/output error"
    assert found[b"z"].stat is None


def test_what_vanishes_is_an_item_that_says_so(tree: Path) -> None:
    """Between the list of a directory and the look at its member."""
    found = []
    for item in walk([tree]):
        found.append(item)
        if item.path == b"a":
            (tree / "a" / "x").unlink()
            (tree / "z").unlink()
    gone = {item.path for item in found if item.vanished}
    assert gone == {b"a/x", b"z"}
    assert all(item.error is None for item in found)


def _before_it_is_opened(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """Calls it, once, between the look at ``a`` and the opening of it."""
    real = os.stat
    done: list[object] = []

    def look(path: Any, **options: Any) -> os.stat_result:
        found = real(path, **options)
        if path == b"a" and not done:
            done.append(act())
        return found

    monkeypatch.setattr(os, "stat", look)


@pytest.mark.parametrize("target", ["secret", "moved"])
def test_a_directory_replaced_by_a_symlink_is_not_followed(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    """Between the look at it and the opening: else a user's link could show root's files."""
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "key").write_text("secret")

    def swap() -> None:
        (tree / "a").rename(tmp_path / "moved")
        (tree / "a").symlink_to(tmp_path / target)

    _before_it_is_opened(monkeypatch, swap)
    found = _by_path(walk([tree]))
    assert not any(path.startswith(b"a/") for path in found)
    assert found[b"a"].type is EntryType.SYMLINK
    assert found[b"a"].link == os.fsencode(tmp_path / target)
    assert found[b"a"].error is None
    assert b"z" in found


@pytest.mark.parametrize("kind", ["file", "fifo", "nothing"])
def test_a_directory_replaced_by_something_else_is_that(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """It is looked at once more; nothing is gone where something has its name."""

    def swap() -> None:
        (tree / "a").rename(tmp_path / "moved")
        if kind == "file":
            (tree / "a").write_text("now a file")
        elif kind == "fifo":
            os.mkfifo(tree / "a")

    _before_it_is_opened(monkeypatch, swap)
    found = _by_path(walk([tree]))
    expected = {"file": EntryType.FILE, "fifo": EntryType.FIFO, "nothing": None}
    assert found[b"a"].type is expected[kind]
    assert found[b"a"].vanished == (kind == "nothing")
    assert found[b"a"].error is None
    assert not any(path.startswith(b"a/") for path in found)


def test_a_directory_replaced_by_another_is_that(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its metadata and its members belong together; rules hold for it, too."""

    def swap() -> None:
        (tree / "a").rename(tmp_path / "moved")
        (tree / "a").mkdir()
        (tree / "a" / "other").touch()

    _before_it_is_opened(monkeypatch, swap)
    found = _by_path(walk([tree]))
    assert found[b"a"].error is None
    assert found[b"a"].stat is not None
    assert os.path.samestat(found[b"a"].stat, (tree / "a").stat())
    assert [path for path in found if path.startswith(b"a/")] == [b"a/other"]


def test_a_directory_replaced_by_one_that_the_program_writes_is_not_entered(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is left out stays so wherever it is moved to meanwhile."""
    (tmp_path / "own").mkdir()
    (tmp_path / "own/pack").touch()

    def swap() -> None:
        (tree / "a").rename(tmp_path / "moved")
        (tmp_path / "own").rename(tree / "a")

    _before_it_is_opened(monkeypatch, swap)
    skipped: list[LeftOut] = []
    rules = Rules(own=[(tmp_path / "own", "this repository")])
    found = _by_path(walk([tree], rules, skipped=skipped.append))
    assert b"a/pack" not in found
    assert [(left.path, left.reason) for left in skipped] == [(b"a", Reason.OWN)]


def test_a_directory_that_is_replaced_each_time_it_is_looked_at_is_a_problem(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tries have an end, and the item says why it has no members."""
    real = os.stat
    looks: list[bytes] = []

    def look(path: Any, **options: Any) -> os.stat_result:
        found = real(path, **options)
        if path == b"a":
            (tree / "a").rename(tmp_path / f"moved{len(looks)}")
            (tree / "a").mkdir()
            (tree / "a" / "other").touch()
            looks.append(path)
        return found

    monkeypatch.setattr(os, "stat", look)
    found = _by_path(walk([tree]))
    assert len(looks) == safe_open.TRIES
    assert "replaced" in (found[b"a"].error or "")
    assert b"a/other" not in found


@pytest.mark.parametrize("other", ["file", "nothing"])
def test_a_symlink_replaced_while_it_is_looked_at_is_looked_at_again(
    tree: Path, monkeypatch: pytest.MonkeyPatch, other: str
) -> None:
    """Its status and its target are asked for one after the other."""
    (tree / "link").symlink_to("a")
    real = safe_open.read_link

    def read_link(name: bytes, dir_fd: int | None) -> bytes:
        if (tree / "link").is_symlink():
            (tree / "link").unlink()
            if other == "file":
                (tree / "link").write_text("now a file")
        return real(name, dir_fd)

    monkeypatch.setattr(safe_open, "read_link", read_link)
    found = _by_path(walk([tree]))[b"link"]
    assert found.error is None
    assert found.type is (EntryType.FILE if other == "file" else None)
    assert found.vanished == (other == "nothing")


def test_a_very_deep_tree_needs_few_descriptors(tmp_path: Path) -> None:
    """Levels beyond the limit are closed on the way down and opened again on the way up."""
    deepest = tmp_path
    for _ in range(3 * OPEN):
        (deepest / "z").touch()
        deepest /= "d"
        deepest.mkdir()
    most = 0
    found = []
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - a count is all
    for item in walk([tmp_path]):
        found.append(item)
        most = max(most, len(os.listdir("/proc/self/fd")) - before)  # noqa: PTH208 - a count is all
    assert len(found) == 6 * OPEN + 1
    assert not any(item.error for item in found)
    assert most <= OPEN + 1
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208 - a count is all


@pytest.mark.parametrize("kind", ["directory", "symlink"])
def test_a_level_that_was_replaced_meanwhile(tmp_path: Path, kind: str) -> None:
    """A closed level goes on in the directory that has its path now, not behind a symlink."""
    root = tmp_path / "root"
    deepest = "/".join("a" * (OPEN + 1))
    (root / deepest).mkdir(parents=True)
    (root / "z").touch()
    other = tmp_path / "other"
    other.mkdir()
    (other / "z").write_text("other")
    found = {}
    for item in walk([root]):
        found[item.path] = item
        if item.path == deepest.encode():
            root.rename(tmp_path / "moved")
            if kind == "directory":
                other.rename(root)
            else:
                root.symlink_to(other)
    last = found[b"z"]
    if kind == "directory":
        assert last.error is None
        assert last.stat is not None
        assert os.path.samestat(last.stat, (root / "z").stat())
    else:
        assert "replaced" in (last.error or "")


def test_an_abandoned_walk_closes_its_descriptors(tree: Path) -> None:
    """A consumer may stop at any item."""
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - a count is all
    items = walk([tree])
    for _ in range(4):
        next(items)
    items.close()  # type: ignore[attr-defined]
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208 - a count is all


# --- excludes ---


@pytest.mark.parametrize(
    ("patterns", "gone"),
    [
        (["x"], [b"a/x"]),
        (["/x"], []),
        (["a/"], [b"a", b"a/deep", b"a/deep/y", b"a/x"]),
        (["z/"], []),
        (["a*", "!a.b"], [b"a", b"a-b", b"a/deep", b"a/deep/y", b"a/x"]),
        (["**/y", "# comment", ""], [b"a/deep/y"]),
    ],
)
def test_excludes_follow_gitignore(tree: Path, patterns: list[str], gone: list[bytes]) -> None:
    """Anchors, directories only, negation, `**`."""
    every = set(_paths(walk([tree])))
    assert sorted(every - set(_paths(walk([tree], Rules(excludes=patterns))))) == gone


def test_excludes_are_matched_below_each_path(tree: Path) -> None:
    """Not against the directories above, whatever these are called."""
    found = _paths(walk([tree / "a", tree / "z"], Rules(excludes=["/deep", tree.name])))
    assert os.fsencode(tree)[1:] + b"/a/x" in found
    assert os.fsencode(tree)[1:] + b"/a/deep" not in found


def test_an_excluded_directory_is_not_opened(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be a dead mount that hangs whoever looks in."""
    opened = []
    real = safe_open.open_path

    def note(name: bytes, flags: int, dir_fd: int | None) -> int:
        opened.append(name)
        return real(name, flags, dir_fd)

    monkeypatch.setattr(safe_open, "open_path", note)
    list(walk([tree], Rules(excludes=["a"])))
    assert opened == [os.fsencode(tree)]


def test_a_malformed_exclude_is_a_configuration_error(tree: Path) -> None:
    """Said before anything is walked."""
    with pytest.raises(ConfigError, match="exclude"):
        walk([tree], Rules(excludes=["!"]))


# --- files, owners, devices ---


def test_owner_names_are_empty_where_unknown() -> None:
    """Ids are always kept; names help where ids differ between hosts."""
    assert owner_names(0, 0) == ("root", "root")
    assert owner_names(3_999_999_999, 3_999_999_999) == ("", "")


def test_members_of_a_tagged_cache_are_left_out(tmp_path: Path) -> None:
    """The directory and its tag stay, so that it is a cache again after a restore."""
    for name in ("cache", "fake"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "big").write_bytes(b"x")
    (tmp_path / "cache" / "CACHEDIR.TAG").write_bytes(
        b"Signature: 8a477f597d28d172789f06886806bc55\n# made by a test\n"
    )
    (tmp_path / "fake" / "CACHEDIR.TAG").write_bytes(b"something else")
    skipped: list[bytes] = []
    items = walk([tmp_path], Rules(caches=True), skipped=lambda left: skipped.append(left.path))
    assert _paths(items) == [
        b"",
        b"cache",
        b"cache/CACHEDIR.TAG",
        b"fake",
        b"fake/CACHEDIR.TAG",
        b"fake/big",
    ]
    assert skipped == [b"cache"]


def test_members_beside_a_marker_file_are_left_out(tmp_path: Path) -> None:
    """Any name may be a marker; the first of them that is there counts."""
    (tmp_path / "work").mkdir()
    for name in (".nobackup", "a", "b"):
        (tmp_path / "work" / name).write_bytes(b"")
    items = walk([tmp_path], Rules(if_present=(".absent", ".nobackup")))
    assert _paths(items) == [b"", b"work", b"work/.nobackup"]


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs another file system to meet")
def test_another_file_system_is_not_entered_when_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """The mount point itself stays, as an empty directory."""
    skipped: list[LeftOut] = []
    rules = Rules(one_file_system=True, excludes=["*", "!/proc", "!/proc/**"])
    items = walk([Path("/")], rules, skipped=skipped.append)
    assert _paths(items) == [b"", b"proc"]
    detail = "its members: it is on another file system"
    assert LeftOut(b"proc", Reason.FILE_SYSTEM, detail) in skipped


def test_what_a_pattern_excludes_is_told(tree: Path) -> None:
    """A dry run says why something is not in it."""
    skipped: list[LeftOut] = []
    list(walk([tree], Rules(excludes=["z"]), skipped=skipped.append))
    assert skipped == [LeftOut(b"z", Reason.PATTERN, "excluded by a pattern")]


def test_what_the_program_writes_itself_is_not_walked_by_any_way_to_it(tree: Path) -> None:
    """Told by what it is: a link in its path, or another spelling, changes nothing."""
    (tree.parent / "alias").symlink_to(tree / "a")
    every = _paths(walk([tree]))
    assert b"a/deep/y" in every
    for own in (tree / "a/deep", tree.parent / "alias/deep", tree / "a/../a/deep"):
        skipped: list[LeftOut] = []
        rules = Rules(own=[(own, "this repository"), (tree / "missing", "the cache")])
        found = _paths(walk([tree], rules, skipped=skipped.append))
        assert sorted(set(every) - set(found)) == [b"a/deep/y"]
        assert skipped == [LeftOut(b"a/deep", Reason.OWN, "its members: it is this repository")]
        in_several = _paths(walk([tree / "a", tree / "z"], rules))
        assert os.fsencode(tree)[1:] + b"/a/x" in in_several
        assert os.fsencode(tree)[1:] + b"/a/deep/y" not in in_several


@pytest.mark.parametrize("path", ["a", "a/deep", "a/deep/y"])
def test_a_path_in_what_the_program_writes_itself_is_refused(tree: Path, path: str) -> None:
    """Nothing would be left of it, which looks like a backup."""
    with pytest.raises(ConfigError, match="never holds"):
        walk([tree / path], Rules(own=[(tree / "a", "this repository")]))
    assert _paths(walk([tree / path], Rules(own=[(tree / "a-b", "a file")])))


def test_paths_longer_than_path_max_are_walked_and_opened(tmp_path: Path) -> None:
    """The kernel takes 4,096 bytes at once; a tree may be deeper."""
    fd = os.open(tmp_path, os.O_RDONLY)
    for _ in range(25):
        os.mkdir("d" * 200, dir_fd=fd)
        inner = os.open("d" * 200, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = inner
    file = os.open("deep", os.O_WRONLY | os.O_CREAT, 0o600, dir_fd=fd)
    os.write(file, b"deep")
    os.close(file)
    os.close(fd)
    last = list(walk([tmp_path]))[-1]
    assert len(last.full) > 4096
    assert last.stat is not None
    fd, _ = safe_open.open_source(last.full, last.stat)
    assert os.read(fd, 9) == b"deep"
    os.close(fd)
