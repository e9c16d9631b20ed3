"""Lists and journals: whole or not at all, torn tails, and joins with a walk."""

import dataclasses
import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vault.errors import LocalError
from vault.model import sort_key
from vault.snapshot.last_run import EntryListReader, EntryListWriter, Joiner
from vault.snapshot.list_records import ListHead, ListRecord
from vault.snapshot.run_journal import ListJournal, merge

HEAD = ListHead(
    repository="00" * 16,
    dataset="web",
    generation="generation",
    key=b"k" * 32,
    sources=(b"/srv/\xff",),
    created="2026-01-01T00:00:00Z",
)


class _Numbers:
    """A cache that knows the marks it drew."""

    def __init__(self, mark: bytes = b"m" * 16) -> None:
        self._mark = mark

    def mark(self) -> bytes:
        return self._mark

    def knows(self, mark: bytes) -> bool:
        return mark == self._mark


NUMBERS = _Numbers()


def _record(path: bytes, mark: int = 0) -> ListRecord:
    return ListRecord(path, mark, -1, 2, 3, 4, 5, b"\1\0\0\0", b"canonical", b"extra")


def _write(path: Path, records: list[ListRecord], head: ListHead = HEAD) -> None:
    with EntryListWriter(path, head) as writer:
        for record in records:
            writer.extend([record])
        writer.commit(NUMBERS.mark(), {})


def _read(path: Path) -> list[ListRecord]:
    reader, problem = EntryListReader.open(path, HEAD, NUMBERS)
    assert not problem
    assert reader is not None
    with reader:
        return list(reader.records())


def _append(path: Path, *records: ListRecord) -> None:
    journal, problem = ListJournal.open(path, HEAD, NUMBERS)
    assert not problem
    with journal:
        for record in records:
            journal.extend([record])


def _journal(path: Path) -> list[ListRecord]:
    journal, _ = ListJournal.open(path, HEAD, NUMBERS)
    with journal:
        return list(journal.records())


def _head_line(**changed: object) -> bytes:
    fields = {
        "created": "",
        "dataset": "web",
        "format": 1,
        "generation": "generation",
        "key": "",
        "repository": "00" * 16,
        "sha256": "",
        "sources": [],
    }
    return json.dumps({**fields, **changed}).encode() + b"\n"


names = st.lists(st.sampled_from([b"a", b"b", b"a.", b"\xff"]), min_size=1, max_size=4)
paths = names.map(b"/".join)
sorted_paths = st.lists(paths, unique=True, max_size=30).map(lambda p: sorted(p, key=sort_key))


# --- lists ---


@settings(max_examples=30, deadline=None)
@given(found=sorted_paths)
def test_a_list_comes_back_as_written(
    tmp_path_factory: pytest.TempPathFactory, found: list[bytes]
) -> None:
    """All records in order, with the head."""
    path = tmp_path_factory.mktemp("list") / "web"
    records = [_record(path, mark) for mark, path in enumerate(found)]
    _write(path, records)
    assert _read(path) == records


def test_a_list_of_many_frames_comes_back(tmp_path: Path) -> None:
    """Records are kept in frames, so that a long list never is in memory."""
    records = [_record(b"%05d" % i + b"/x" * 2_000) for i in range(1000)]  # 4 MB; a frame has 1
    _write(tmp_path / "web", records)
    assert _read(tmp_path / "web") == records


def test_the_head_comes_back_and_hides_its_key(tmp_path: Path) -> None:
    """The commitment key goes on from run to run, and into no log."""
    _write(tmp_path / "web", [])
    reader, _ = EntryListReader.open(tmp_path / "web", HEAD, NUMBERS)
    assert reader is not None
    with reader:
        assert reader.head == HEAD
        assert "kkk" not in repr(reader.head)
    assert (tmp_path / "web").stat().st_mode & 0o777 == 0o600


def test_no_list_is_no_problem(tmp_path: Path) -> None:
    """The first run has none."""
    assert EntryListReader.open(tmp_path / "web", HEAD, NUMBERS) == (None, "")


@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("repository", dataclasses.replace(HEAD, repository="11" * 16)),
        ("dataset", dataclasses.replace(HEAD, dataset="other")),
        ("generation", dataclasses.replace(HEAD, generation="other")),
    ],
)
def test_a_foreign_list_is_ignored_with_the_reason(
    tmp_path: Path, name: str, head: ListHead
) -> None:
    """Its pack numbers would mean other packs."""
    _write(tmp_path / "web", [], head)
    reader, problem = EntryListReader.open(tmp_path / "web", HEAD, NUMBERS)
    assert reader is None
    assert f"another {name}" in problem


def test_a_list_with_other_sources_is_used(tmp_path: Path) -> None:
    """Records match by inode and times; the caller sees what the sources were."""
    _write(tmp_path / "web", [_record(b"a")], dataclasses.replace(HEAD, sources=()))
    assert _read(tmp_path / "web") == [_record(b"a")]


def test_every_damaged_byte_makes_the_list_ignored(tmp_path: Path) -> None:
    """A damaged record could hide a change for ever. Damage outside what decides is harmless."""
    path = tmp_path / "web"
    _write(path, [_record(b"a"), _record(b"b")])
    good = path.read_bytes()
    body = good.index(b"\n") + 1
    for at in range(body, len(good)):
        path.write_bytes(good[:at] + bytes((good[at] ^ 4,)) + good[at + 1 :])
        reader, problem = EntryListReader.open(path, HEAD, NUMBERS)
        assert reader is None
        assert "damaged" in problem
    for length in range(len(good)):
        path.write_bytes(good[:length])
        assert EntryListReader.open(path, HEAD, NUMBERS)[0] is None


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n",
        b"{}\n",
        b"[]\n",
        b'{"format":2}\n',
        b'{"format":1}\n',
        b"\xff\xfe\n",
        b"x" * 2_000_000,
        _head_line(key="AA=="),
        _head_line(key=1),
        _head_line(sources=7),
    ],
)
def test_a_malformed_head_is_a_reason_not_an_exception(tmp_path: Path, content: bytes) -> None:
    """Also one of another version: the next run just takes longer."""
    (tmp_path / "web").write_bytes(content)
    reader, problem = EntryListReader.open(tmp_path / "web", HEAD, NUMBERS)
    assert reader is None
    assert problem.startswith("entry list is ignored")


def test_an_unfinished_list_leaves_the_former_one(tmp_path: Path) -> None:
    """And nothing beside it."""
    _write(tmp_path / "web", [_record(b"former")])
    with EntryListWriter(tmp_path / "web", HEAD) as writer:
        writer.extend([_record(b"new")])
    assert _read(tmp_path / "web") == [_record(b"former")]
    assert os.listdir(tmp_path) == ["web"]  # noqa: PTH208 - names are what counts


def test_a_list_left_by_a_kill_is_overwritten(tmp_path: Path) -> None:
    """Whatever stands at the temporary name, a link too, is not written through."""
    (tmp_path / "victim").write_text("precious")
    (tmp_path / "web.new").symlink_to("victim")
    _write(tmp_path / "web", [_record(b"a")])
    assert (tmp_path / "victim").read_text() == "precious"
    assert _read(tmp_path / "web") == [_record(b"a")]


def test_a_link_made_in_the_last_moment_is_not_written_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the removal of what stood at the temporary name and the making of the file."""
    (tmp_path / "victim").write_text("precious")
    (tmp_path / "web.new").symlink_to("victim")
    monkeypatch.setattr("vault.snapshot.last_run.Path.unlink", lambda *_args, **_named: None)
    with pytest.raises(LocalError):
        EntryListWriter(tmp_path / "web", HEAD)
    assert (tmp_path / "victim").read_text() == "precious"


def test_a_full_disk_is_a_local_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit 13, and the former list stays."""

    def fail(_: int) -> None:
        raise OSError(28, "No space left on device")

    _write(tmp_path / "web", [_record(b"former")])
    monkeypatch.setattr("vault.snapshot.last_run.os.fsync", fail)
    with pytest.raises(LocalError, match="No space"):
        _write(tmp_path / "web", [_record(b"new")])
    assert _read(tmp_path / "web") == [_record(b"former")]


def test_what_was_added_can_be_read_before_it_is_committed(tmp_path: Path) -> None:
    """All of it, whatever waits in memory."""
    with EntryListWriter(tmp_path / "web", HEAD) as writer:
        for name in (b"a", b"b"):
            writer.extend([_record(name)])
        assert list(writer.records()) == [_record(b"a"), _record(b"b")]


# --- journals ---


def test_a_journal_that_was_only_begun_is_one(tmp_path: Path) -> None:
    """A run killed before its first entry leaves nothing that the next one has to speak of."""
    journal, _ = ListJournal.open(tmp_path / "journal", HEAD, NUMBERS)
    (tmp_path / "killed").write_bytes((tmp_path / "journal").read_bytes())
    with journal:
        reopened, problem = ListJournal.open(tmp_path / "killed", HEAD, NUMBERS)
    with reopened:
        assert (problem, list(reopened.records())) == ("", [])


def test_a_journal_goes_on_where_it_was_left(tmp_path: Path) -> None:
    """Runs that were killed one after the other all count, the latest most."""
    path = tmp_path / "journal"
    _append(path, _record(b"a", 1), _record(b"c", 1))
    _append(path, _record(b"b", 2), _record(b"c", 2))
    _append(path, _record(b"a", 3))
    assert _journal(path) == [_record(b"a", 3), _record(b"b", 2), _record(b"c", 2)]
    assert path.stat().st_mode & 0o777 == 0o600


@settings(max_examples=30, deadline=None)
@given(runs=st.lists(st.lists(paths, max_size=10), max_size=4))
def test_a_journal_in_any_order_reads_sorted(
    tmp_path_factory: pytest.TempPathFactory, runs: list[list[bytes]]
) -> None:
    """Each path once, as it was appended last."""
    path = tmp_path_factory.mktemp("journal") / "journal"
    latest: dict[bytes, ListRecord] = {}
    for number, run in enumerate(runs):
        records = [_record(name, 100 * number + i) for i, name in enumerate(run)]
        _append(path, *records)
        latest.update({record.path: record for record in records})
    expected = sorted(latest.values(), key=lambda record: sort_key(record.path))
    assert _journal(path) == expected


def test_a_torn_tail_is_cut_off_at_every_length(tmp_path: Path) -> None:
    """What was whole before the kill is kept, and appending goes on behind it."""
    path = tmp_path / "journal"
    _append(path, _record(b"a", 1))
    whole = len(path.read_bytes())
    _append(path, _record(b"b", 2))
    good = path.read_bytes()
    for length in range(whole, len(good)):
        path.write_bytes(good[:length])
        _append(path, _record(b"c", 3))
        assert _journal(path) == [_record(b"a", 1), _record(b"c", 3)]


def test_frames_behind_a_damaged_one_do_not_come_back(tmp_path: Path) -> None:
    """They are cut off, so that a frame written over the damaged one does not lead to them."""
    path = tmp_path / "journal"
    _append(path, _record(b"a", 1))
    at = len(path.read_bytes())
    _append(path, _record(b"b", 2))
    _append(path, _record(b"c", 3))
    good = path.read_bytes()
    path.write_bytes(good[:at] + b"\xff" + good[at + 1 :])
    _append(path, _record(b"b", 2))
    assert _journal(path) == [_record(b"a", 1), _record(b"b", 2)]


def test_a_frame_of_an_earlier_run_behind_a_later_one_ends_the_journal(tmp_path: Path) -> None:
    """A kernel that died may leave old frames behind new ones; whole as they are, they are past."""
    path = tmp_path / "journal"
    _append(path)
    head = len(path.read_bytes())
    _append(path, _record(b"b", 1))
    first = len(path.read_bytes())
    _append(path, _record(b"a", 2))
    good = path.read_bytes()
    path.write_bytes(good[:head] + good[first:] + good[head:first])
    assert _journal(path) == [_record(b"a", 2)]


def test_a_damaged_frame_ends_the_journal(tmp_path: Path) -> None:
    """Every byte of a frame is under its CRC, the run's number too."""
    path = tmp_path / "journal"
    _append(path, _record(b"a", 1))
    whole = len(path.read_bytes())
    _append(path, _record(b"a", 2))
    good = path.read_bytes()
    for at in range(whole, len(good)):
        path.write_bytes(good[:at] + bytes((good[at] ^ 1,)) + good[at + 1 :])
        assert _journal(path) == [_record(b"a", 1)]


def test_a_foreign_or_damaged_journal_begins_anew(tmp_path: Path) -> None:
    """With the reason; its records are not used."""
    path = tmp_path / "journal"
    _append(path, _record(b"a"))
    other = dataclasses.replace(HEAD, generation="other")
    journal, problem = ListJournal.open(path, other, NUMBERS)
    with journal:
        assert "another generation" in problem
        assert not journal
        assert journal.head == other
    path.write_bytes(b"garbage")
    journal, problem = ListJournal.open(path, HEAD, NUMBERS)
    with journal:
        assert "no head" in problem
        assert list(journal.records()) == []


def test_a_continued_journal_keeps_its_head(tmp_path: Path) -> None:
    """Its key was used for what it says; a new one would not fit."""
    path = tmp_path / "journal"
    _append(path, _record(b"a"))
    journal, _ = ListJournal.open(path, dataclasses.replace(HEAD, key=b"n" * 32), NUMBERS)
    with journal:
        assert journal.head.key == HEAD.key


def test_flushed_records_survive_a_kill(tmp_path: Path) -> None:
    """They are the operating system's as soon as `flush` returns."""
    path = tmp_path / "journal"
    journal, _ = ListJournal.open(path, HEAD, NUMBERS)
    journal.extend([_record(b"a")])
    journal.flush()
    journal.extend([_record(b"b")])
    assert _journal(path) == [_record(b"a")]
    journal._file.close()


def test_a_journal_is_read_while_it_is_appended(tmp_path: Path) -> None:
    """A run joins against what the killed one left while it writes its own."""
    path = tmp_path / "journal"
    _append(path, _record(b"a", 1), _record(b"b", 1))
    journal, _ = ListJournal.open(path, HEAD, NUMBERS)
    with journal:
        records = journal.records()
        assert next(records) == _record(b"a", 1)
        journal.extend([_record(b"b", 2)])
        journal.flush()
        assert list(records) == [_record(b"b", 1)]
    assert _journal(path) == [_record(b"a", 1), _record(b"b", 2)]


def test_a_deleted_journal_is_gone(tmp_path: Path) -> None:
    """After the list that replaces it was put in its place."""
    journal, _ = ListJournal.open(tmp_path / "journal", HEAD, NUMBERS)
    with journal:
        journal.extend([_record(b"a")])
        journal.delete()
    assert not (tmp_path / "journal").exists()


def test_a_symlink_in_the_journal_s_place_is_not_followed(tmp_path: Path) -> None:
    """It is a local error, and its target stays."""
    (tmp_path / "victim").write_text("precious")
    (tmp_path / "journal").symlink_to("victim")
    with pytest.raises(LocalError):
        ListJournal.open(tmp_path / "journal", HEAD, NUMBERS)
    assert (tmp_path / "victim").read_text() == "precious"


# --- joins ---


def test_merge_prefers_the_journal(tmp_path: Path) -> None:
    """It is younger than the last list."""
    last = [_record(b"a", 1), _record(b"a/b", 1), _record(b"a.b", 1)]
    _append(tmp_path / "journal", _record(b"a/b", 2), _record(b"z", 2))
    journal, _ = ListJournal.open(tmp_path / "journal", HEAD, NUMBERS)
    with journal:
        assert list(merge(last, journal)) == [
            _record(b"a", 1),
            _record(b"a/b", 2),
            _record(b"a.b", 1),
            _record(b"z", 2),
        ]


@given(recorded=sorted_paths, walked=sorted_paths)
def test_a_join_matches_exactly_the_common_paths(
    recorded: list[bytes], walked: list[bytes]
) -> None:
    """Whatever is only on one side is passed over."""
    joiner = Joiner([_record(path) for path in recorded])
    found = [record.path for path in walked if (record := joiner.match(path)) is not None]
    assert found == [path for path in walked if path in set(recorded)]


# --- pack numbers of another time ---


def test_a_list_whose_mark_the_cache_does_not_know_is_ignored(tmp_path: Path) -> None:
    """Its numbers may stand for other packs by now."""
    _write(tmp_path / "web", [_record(b"")])
    reader, problem = EntryListReader.open(tmp_path / "web", HEAD, _Numbers(b"o" * 16))
    assert reader is None
    assert "another time" in problem


def test_a_journal_is_cut_where_the_cache_does_not_know_a_frames_mark(tmp_path: Path) -> None:
    """What was written before the cache's copy was made is still good."""
    path = tmp_path / "journal"
    _append(path, _record(b"a"))
    later = _Numbers(b"l" * 16)
    later.knows = lambda mark: True  # type: ignore[method-assign]
    journal, _ = ListJournal.open(path, HEAD, later)
    with journal:
        journal.extend([_record(b"b")])
    journal, problem = ListJournal.open(path, HEAD, NUMBERS)
    with journal:
        assert not problem
        assert [record.path for record in journal.records()] == [b"a"]
