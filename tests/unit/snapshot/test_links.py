"""Names of one file (I12): one inode in one state, or each has its own content."""

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.support.lab import Clock, Lab
from vault.errors import VaultError
from vault.ledger.records import Record
from vault.machine import mounts
from vault.model import EntryType
from vault.repository.reader import Reader
from vault.snapshot import file_reader, safe_open, source_run, unchanged
from vault.snapshot import walk as walking
from vault.snapshot.links import Links, state_of
from vault.snapshot.walk import SourceItem

OLD, NEW = b"the old letter!!", b"another content."


@pytest.fixture
def top(tmp_path: Path) -> Path:
    """An empty source."""
    (tmp_path / "top").mkdir()
    return tmp_path / "top"


@pytest.fixture
def much_later(clock: Clock) -> None:
    """Files made by the test are no longer young."""
    clock.now = clock.now.fromtimestamp(4e9, clock.now.tzinfo)


def _links(lab: Lab, record: "Record") -> dict[str, str]:
    """The hard links of a snapshot, and what they are links of."""
    scratch = lab.base / "links"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    reader = Reader(lab.open(), lab.recovery.recipient, record, scratch=scratch)
    try:
        reader.load_packs()
        return {
            os.fsdecode(entry.path): os.fsdecode(entry.link or b"")
            for entry, _ in reader.tree()
            if entry.type is EntryType.HARD_LINK
        }
    finally:
        reader.close()


def _held(lab: Lab, record: "Record") -> dict[str, bytes]:
    """Content under every name, links followed."""
    contents: dict[str, bytes] = lab.contents(record)
    return contents | {name: contents[first] for name, first in _links(lab, record).items()}


def _when_met(monkeypatch: pytest.MonkeyPatch, acts: dict[bytes, Callable[[], object]]) -> None:
    """Calls what is given for a path right before the walk hands that path out."""
    real = walking.walk

    def walk(*arguments: Any, **options: Any) -> Iterator[SourceItem]:
        for item in real(*arguments, **options):
            acts.pop(item.path, lambda: None)()
            yield item

    monkeypatch.setattr(walking, "walk", walk)


@pytest.mark.parametrize("is_guarded", [True, False])
def test_an_inode_number_that_is_given_out_again_makes_no_link(
    lab: Lab, top: Path, monkeypatch: pytest.MonkeyPatch, *, is_guarded: bool
) -> None:
    """Two letters are delivered under two names each; the second gets the number of the first."""
    (top / "a").write_bytes(OLD)
    (top / "b").hardlink_to(top / "a")
    for number in range(300):  # so that "a" is read before "y" is met
        (top / f"m{number}").write_bytes(b"%d" % number)
    for name in "yz":
        (top / name).write_bytes(b"")

    def deliver() -> None:
        number = (top / "a").stat().st_ino
        for name in "abyz":
            (top / name).unlink()
        for _ in range(100):
            (top / "y").write_bytes(NEW)
            if (top / "y").stat().st_ino == number:
                break
            (top / "y").rename(top / f"zz{os.urandom(8).hex()}")
        else:
            pytest.skip("this file system gives no inode number out again")
        (top / "z").hardlink_to(top / "y")

    _when_met(monkeypatch, {b"m290": deliver})
    if not is_guarded:
        for module in source_run, file_reader:
            monkeypatch.setattr(module, "state_of", lambda stat: b"%d" % stat.st_ino)
        monkeypatch.setattr("vault.snapshot.links._TICK_NS", -(10**20))
        monkeypatch.setattr(
            source_run, "read_attributes", lambda item, problems, state=b"": (item, None)
        )
    report = lab.snapshot(top)
    assert _held(lab, report.record)["z"] == (NEW if is_guarded else OLD)
    monkeypatch.undo()


def _show_one_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """All files have one inode number, one time, and two names."""
    real = os.stat_result

    def one(found: os.stat_result) -> os.stat_result:
        times = {"st_mtime_ns": 10**18, "st_ctime_ns": 10**18, "st_blocks": 8, "st_rdev": 0}
        values = [*found[:1], 7, found[2], 2, *found[4:10]]
        return real(values, times) if found.st_mode & 0o170000 == 0o100000 else found

    stat, fstat = os.stat, os.fstat
    monkeypatch.setattr(os, "stat", lambda *a, **k: one(stat(*a, **k)))
    monkeypatch.setattr(os, "fstat", lambda fd: one(fstat(fd)))


@pytest.mark.parametrize("is_guarded", [True, False])
@pytest.mark.usefixtures("much_later")
def test_a_file_system_that_shows_one_number_for_two_files(
    lab: Lab, top: Path, monkeypatch: pytest.MonkeyPatch, *, is_guarded: bool
) -> None:
    """One size and one time too: only reading tells, so both are read."""
    (top / "a").write_bytes(OLD)
    (top / "z").write_bytes(NEW)
    (top / "same").write_bytes(OLD)
    for path in top.iterdir():
        os.utime(path, ns=(0, 10**18))
    _show_one_number(monkeypatch)
    monkeypatch.setattr(mounts, "invents_inodes", lambda device: is_guarded)
    report = lab.snapshot(top)
    monkeypatch.undo()
    held = _held(lab, report.record)
    assert held == {"a": OLD, "same": OLD, "z": NEW if is_guarded else OLD}
    assert _links(lab, report.record).get("same") == "a"


@pytest.mark.parametrize("is_swapped", [True, False])
@pytest.mark.usefixtures("much_later")
def test_a_second_name_that_was_another_file_while_it_was_read_is_no_link(
    lab: Lab, top: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_swapped: bool
) -> None:
    """One number for two files, and the directory of the second is another until it was read.

    What was read has the content of the first and other metadata, so it shows nothing of the file
    that is there before and after: with the metadata of the first, that one has other content.
    """
    inner, other, aside = top / "d", tmp_path / "other", tmp_path / "aside"
    inner.mkdir()
    other.mkdir()
    (top / "a").write_bytes(OLD)
    (inner / "z").write_bytes(NEW)
    (other / "z").write_bytes(OLD)
    (other / "z").chmod(0o600)
    opened, described = safe_open.open_source, safe_open.open_described

    def open_source(full: bytes, expected: Any) -> tuple[int, os.stat_result]:
        if is_swapped and full == bytes(inner / "z"):
            inner.rename(aside)
            other.rename(inner)
        return opened(full, expected)

    def open_described(full: bytes, expected: os.stat_result) -> tuple[int, os.stat_result]:
        if full == bytes(inner / "z") and aside.exists():
            inner.rename(other)
            aside.rename(inner)
        return described(full, expected)

    _show_one_number(monkeypatch)
    monkeypatch.setattr(mounts, "invents_inodes", lambda device: True)
    monkeypatch.setattr(safe_open, "open_source", open_source)
    monkeypatch.setattr(safe_open, "open_described", open_described)
    report = lab.snapshot(top)
    monkeypatch.undo()
    assert _links(lab, report.record) == {}
    assert lab.contents(report.record) == {"a": OLD, "d/z": OLD if is_swapped else NEW}
    assert (lab.entries(report.record)["d/z"].mode == 0o600) is is_swapped


@pytest.mark.parametrize("what", ["gone", "unreadable", "growing", "replaced"])
def test_a_first_name_that_was_not_read_as_it_was_met_has_no_links(
    lab: Lab, top: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """The second name then carries the content."""
    (top / "a").write_bytes(OLD)
    (top / "z").hardlink_to(top / "a")
    (top / "zz").hardlink_to(top / "a")
    real = safe_open.open_source

    def open_source(full: bytes, expected: os.stat_result) -> tuple[int, os.stat_result]:
        if full.endswith(b"/a"):
            if what == "unreadable":
                raise PermissionError(13, "Permission denied")
            if what == "gone":
                (top / "a").unlink()
            if what == "replaced":
                (top / "new").write_bytes(b"")
                (top / "new").rename(top / "a")
            if what == "growing":
                (top / "a").write_bytes((top / "a").read_bytes() + b"+")
        return real(full, expected)

    monkeypatch.setattr(safe_open, "open_source", open_source)
    report = lab.snapshot(top)
    monkeypatch.undo()
    held = _held(lab, report.record)
    assert held["z"] == held["zz"] == (top / "z").read_bytes()
    if what in {"gone", "unreadable"}:
        assert "a" not in held
    if what == "replaced":
        assert held["a"] == b""
        assert report.body.complete


def test_a_link_to_a_first_name_that_is_unchanged(
    lab: Lab, top: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first is not read again; a new name of it is still its link, and nothing else is."""
    (top / "a").write_bytes(OLD)
    (top / "b").hardlink_to(top / "a")
    clock.advance(days=20_000)
    assert _links(lab, lab.snapshot(top).record) == {"b": "a"}
    opened: list[bytes] = []
    real = safe_open.open_source

    def open_source(full: bytes, expected: os.stat_result) -> tuple[int, os.stat_result]:
        opened.append(full)
        return real(full, expected)

    monkeypatch.setattr(safe_open, "open_source", open_source)
    report = lab.snapshot(top)
    assert not opened
    assert _links(lab, report.record) == {"b": "a"}
    (top / "c").hardlink_to(top / "a")
    assert _links(lab, lab.snapshot(top).record) == {"b": "a", "c": "a"}


def test_an_unchanged_link_whose_first_name_can_not_be_stored_any_more(
    lab: Lab, top: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its record says "a link of a", and there is no a in this snapshot."""
    (top / "a").write_bytes(OLD)
    (top / "b").hardlink_to(top / "a")
    clock.advance(days=20_000)
    lab.snapshot(top)
    real = unchanged.is_unchanged
    monkeypatch.setattr(
        source_run,
        "is_unchanged",
        lambda stat, record, fs: record.path != b"a" and real(stat, record, fs),
    )
    unreadable = safe_open.open_source

    def open_source(full: bytes, expected: os.stat_result) -> tuple[int, os.stat_result]:
        if full.endswith(b"/a"):
            raise OSError(5, "Input/output error")
        return unreadable(full, expected)

    monkeypatch.setattr(safe_open, "open_source", open_source)
    report = lab.snapshot(top)
    assert lab.contents(report.record) == {"b": OLD}
    assert not report.body.complete


def test_a_link_that_lost_its_other_names(
    lab: Lab, top: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a file system whose times don't tell: what was a link is a file, and is read."""
    (top / "a").write_bytes(OLD)
    (top / "b").hardlink_to(top / "a")
    clock.advance(days=20_000)
    lab.snapshot(top)
    (top / "a").unlink()
    monkeypatch.setattr(source_run, "is_unchanged", lambda stat, record, fs: True)
    report = lab.snapshot(top)
    assert lab.contents(report.record) == {"b": OLD}


def test_an_unchanged_link_follows_its_file_to_the_first_name_of_each_snapshot(
    lab: Lab, top: Path, clock: Clock
) -> None:
    """Its record says "a link of a": where a is left out, it is one of b, and of a afterwards."""
    from vault.snapshot.walk import Rules

    (top / "a").write_bytes(OLD)
    for name in "b", "c":
        (top / name).hardlink_to(top / "a")
    clock.advance(days=20_000)
    lab.snapshot(top)
    for excludes, links in (
        (["a"], {"c": "b"}),
        ([], {"b": "a", "c": "a"}),
        (["b"], {"c": "a"}),
    ):
        record = lab.snapshot(top, rules=Rules(excludes=excludes)).record
        assert _links(lab, record) == links
        assert set(_held(lab, record)) == {"a", "b", "c"} - set(excludes)
        assert set(_held(lab, record).values()) == {OLD}


def test_links_over_several_paths_and_past_what_is_excluded(
    lab: Lab, tmp_path: Path, clock: Clock
) -> None:
    """The first name that is in the snapshot is the file."""
    from vault.snapshot.walk import Rules

    for name in "one", "two":
        (tmp_path / name).mkdir()
    (tmp_path / "one/a").write_bytes(OLD)
    (tmp_path / "one/b").hardlink_to(tmp_path / "one/a")
    (tmp_path / "two/c").hardlink_to(tmp_path / "one/a")
    clock.advance(days=20_000)
    below = str(tmp_path)[1:]
    report = lab.snapshot(tmp_path / "one", tmp_path / "two", rules=Rules(excludes=["a"]))
    assert _links(lab, report.record) == {f"{below}/two/c": f"{below}/one/b"}
    assert _held(lab, report.record) == {f"{below}/one/b": OLD, f"{below}/two/c": OLD}


def test_symlinks_and_fifos_with_several_names_are_each_stored(lab: Lab, top: Path) -> None:
    """Only files have content that two names could share."""
    (top / "link").symlink_to("nowhere")
    os.link(top / "link", top / "link2", follow_symlinks=False)
    os.mkfifo(top / "fifo")
    (top / "fifo2").hardlink_to(top / "fifo")
    report = lab.snapshot(top)
    assert report.body.counts.symlinks == 2
    assert report.body.counts.others == 2
    assert _links(lab, report.record) == {}


def test_a_second_name_whose_attributes_change_is_no_link(
    lab: Lab, top: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A link has the attributes of its file, or a restore could not prove it."""
    (top / "a").write_bytes(OLD)
    (top / "b").hardlink_to(top / "a")
    real = safe_open.open_described

    def open_described(full: bytes, expected: os.stat_result) -> tuple[int, os.stat_result]:
        if full == bytes(top / "b"):
            os.setxattr(top / "b", "user.new", b"1")
        return real(full, expected)

    monkeypatch.setattr(safe_open, "open_described", open_described)
    report = lab.snapshot(top)
    assert _links(lab, report.record) == {}
    assert lab.contents(report.record) == {"a": OLD, "b": OLD}
    assert lab.verify(report.record).passed


def test_many_links_take_little_memory(tmp_path: Path) -> None:
    """A million names, each of another file: about 200 bytes for each."""
    import tracemalloc

    (tmp_path / "file").touch()
    found = (tmp_path / "file").stat()
    times = {"st_mtime_ns": 1, "st_ctime_ns": 2}
    links = Links(lambda _: False)
    tracemalloc.start()
    for number in range(20_000):
        values: Sequence[Any] = [found[0], number, *found[2:10]]
        links.meet(state_of(os.stat_result(values, times)))
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert used / 20_000 < 250


def test_nothing_that_is_published_can_fail_to_be_read(
    lab: Lab, top: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names that come and go all through the walk: the snapshot lists, verifies, and holds."""
    for number in range(40):
        (top / f"f{number}").write_bytes(b"%d" % (number % 7))
        (top / f"g{number}").hardlink_to(top / f"f{number}")
    acts: dict[bytes, Callable[[], object]] = {}
    for number in range(0, 40, 3):

        def act(number: int = number) -> None:
            for name in f"f{number}", f"g{(number * 7) % 40}":
                (top / name).unlink(missing_ok=True)
                (top / name).write_bytes(b"new %d" % number)

        acts[b"f%d" % ((number + 5) % 40)] = act
    _when_met(monkeypatch, acts)
    try:
        report = lab.snapshot(top)
    except VaultError as error:  # pragma: no cover - what must not be
        pytest.fail(str(error))
    monkeypatch.undo()
    assert lab.verify(report.record).passed
    held = _held(lab, report.record)
    assert {name for name in held if name[0] == "g"} == {f"g{number}" for number in range(40)}
