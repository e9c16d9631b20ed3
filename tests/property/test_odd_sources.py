"""Whatever a source's file system says of its entries, a snapshot of it can be read (I11).

Odd answers are put in where the program asks the system, so all above is the real thing:
the walk, the reading in pieces, the entry list, the tree. The source itself is sound, so
content is compared with it.
"""

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.lab import Lab
from vault.format.entry import Entry
from vault.ledger.records import Record
from vault.repository.reader import Reader

MIN_TIME, MAX_TIME = -(2**63), 2**63 - 1  # ns, docs/format.md 8
SPARSE, DATA = 900_000, 20_000  # bytes: of the sparse file, and of the data it begins with
NAMES = ("small", "sparse", "inside", "inside/deep", "link", "fifo", "again")  # and the top

MODEST = settings(
    deadline=None,
    max_examples=60,
    print_blob=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

_sound_times = st.integers(MIN_TIME, MAX_TIME)
_odd_times = _sound_times | st.integers(-(2**63) * 10**9, 2**63 * 10**9)
_owners = st.integers(0, 2**32 - 2)
_sound_xattrs = st.dictionaries(
    st.text("abcé", min_size=1, max_size=5).map(lambda name: "user." + name),
    st.binary(max_size=30),
    max_size=4,
).map(lambda found: list(found.items()))
_odd_xattrs = st.lists(
    st.tuples(
        st.sampled_from(["", "user.a", "user.b", "user.c", "user." + "x" * 260]),
        st.binary(max_size=9) | st.just(bytes(3_000_000)),
    ),
    max_size=4,
)
_sound_links = st.binary(min_size=1, max_size=4095).filter(lambda target: b"\0" not in target)
_odd_links = _sound_links | st.sampled_from([b"", b"a\0b", b"t" * 4096, b"t" * 65_536])
_holes = st.lists(  # how far it is to the next hole, or to the next data; before is nonsense
    st.integers(-5, 0) | st.integers(5_000, SPARSE + 300_000), min_size=1, max_size=6
)


def _answers(*, odd: bool) -> st.SearchStrategy[dict[str, Any]]:
    """What the file system says of one entry, where it is not what it is."""
    times = _odd_times if odd else _sound_times
    fields = {"mtime": times, "ctime": times, "uid": _owners, "gid": _owners}
    fields["mode"] = st.integers(0, 0o7777)
    return st.fixed_dictionaries(
        {
            "stat": st.fixed_dictionaries({}, optional=fields),
            "xattrs": st.none() | (_odd_xattrs if odd else _sound_xattrs),
        }
    )


def _everything(*, odd: bool) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(
        {
            "of": st.fixed_dictionaries({name: _answers(odd=odd) for name in ("", *NAMES[:-1])}),
            "link": _odd_links if odd else _sound_links,
            "holes": st.none() | _holes if odd else st.none(),
        }
    )


def _plant(top: Path) -> dict[str, bytes]:
    """The source; what is in its files."""
    (top / "inside").mkdir(parents=True)
    content = {
        "small": b"small",
        "sparse": b"data" * (DATA // 4) + bytes(SPARSE - DATA),
        "inside/deep": b"deep",
    }
    for name, data in content.items():
        with (top / name).open("wb") as file:
            file.write(data.rstrip(b"\0"))
            file.truncate(len(data))
    (top / "link").symlink_to("small")
    os.mkfifo(top / "fifo")
    (top / "again").hardlink_to(top / "small")
    return {**content, "again": b"small"}


class _Oddly:
    """The system's answers about a source, changed as drawn."""

    def __init__(self, top: Path, drawn: dict[str, Any]) -> None:
        self._drawn = drawn
        self._names = {os.lstat(top / name).st_ino: name for name in drawn["of"]}
        self._device = top.stat().st_dev
        self._real: dict[str, Any] = {"stat": os.stat, "fstat": os.fstat, "readlink": os.readlink}
        self._real |= {"listxattr": os.listxattr, "getxattr": os.getxattr, "lseek": os.lseek}

    @contextlib.contextmanager
    def answering(self) -> Iterator[None]:
        """Answer so within the block."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "stat", lambda *a, **b: self._odd(self._real["stat"](*a, **b)))
            patch.setattr(os, "fstat", lambda fd: self._odd(self._real["fstat"](fd)))
            patch.setattr(os, "readlink", self._readlink)
            patch.setattr(os, "listxattr", self._listxattr)
            patch.setattr(os, "getxattr", self._getxattr)
            if self._drawn["holes"] is not None:
                patch.setattr(os, "lseek", self._lseek)
            yield

    def _of(self, status: os.stat_result) -> dict[str, Any] | None:
        name = self._names.get(status.st_ino) if status.st_dev == self._device else None
        return None if name is None else self._drawn["of"][name]

    def _odd(self, real: os.stat_result) -> os.stat_result:
        drawn = self._of(real)
        if not drawn or not drawn["stat"]:
            return real
        said = drawn["stat"]
        mode = stat.S_IFMT(real.st_mode) | said.get("mode", stat.S_IMODE(real.st_mode))
        visible = list(real)
        visible[0], visible[4], visible[5] = (
            mode,
            said.get("uid", real[4]),
            said.get("gid", real[5]),
        )
        hidden = {
            name: getattr(real, name)
            for name in dir(real)
            if name.startswith("st_") and "n_" not in name
        }
        for name in ("mtime", "ctime"):
            hidden[f"st_{name}_ns"] = said.get(name, hidden[f"st_{name}_ns"])
        return os.stat_result(visible, hidden)

    def _readlink(self, path: Any, **options: Any) -> Any:
        around = options.get("dir_fd")
        is_open = not path and self._names.get(self._real["fstat"](around).st_ino) == "link"
        if not is_open and os.fsencode(path) != b"link":
            return self._real["readlink"](path, **options)
        return self._drawn["link"][:4096]  # as Python reads them

    def _xattrs(self, place: Any) -> list[tuple[str, bytes]] | None:
        drawn = self._of(self._real["stat"](place))
        return None if drawn is None else drawn["xattrs"]

    def _listxattr(self, place: Any) -> list[str]:
        found = self._xattrs(place)
        return self._real["listxattr"](place) if found is None else [name for name, _ in found]

    def _getxattr(self, place: Any, name: Any) -> bytes:
        found = self._xattrs(place)
        if found is None:
            found = [(name, self._real["getxattr"](place, name))]
        return next(value for each, value in found if os.fsencode(each) == os.fsencode(name))

    def _lseek(self, fd: int, offset: int, whence: int) -> int:
        """Holes wherever it likes, but none where data is."""
        if whence not in {os.SEEK_DATA, os.SEEK_HOLE}:
            found: int = self._real["lseek"](fd, offset, whence)
            return found
        if whence == os.SEEK_DATA and offset < DATA:
            return offset
        said: list[int] = self._drawn["holes"]
        return offset + said[offset % len(said)]


def _entries(lab: Lab, record: "Record", scratch: Path) -> dict[str, Entry]:
    own = Path(mkdtemp(dir=scratch))
    reader = Reader(lab.open(), lab.recovery.recipient, record, scratch=own)
    try:
        reader.load_packs()
        return {os.fsdecode(entry.path): entry for entry, _ in reader.tree()}
    finally:
        reader.close()


def _check(drawn: dict[str, Any], entries: dict[str, Entry], top: Path) -> None:
    """Times, owners, modes and attributes are what was said, or the nearest that there is."""
    for name, answers in drawn["of"].items():
        if name not in entries:
            continue
        entry, real, said = entries[name], os.lstat(top / name), answers["stat"]
        for field, found in (("mtime", entry.mtime), ("ctime", entry.ctime)):
            wanted = said.get(field, getattr(real, f"st_{field}_ns"))
            assert found == max(MIN_TIME, min(wanted, MAX_TIME))
        owner = (said.get("uid", real.st_uid), said.get("gid", real.st_gid))
        assert (entry.uid, entry.gid) == owner
        mode = 0o777 if name == "link" else said.get("mode", stat.S_IMODE(real.st_mode))
        assert entry.mode == mode
        if answers["xattrs"] is not None:
            first = {os.fsencode(each): value for each, value in reversed(answers["xattrs"])}
            stored = dict(entry.xattrs or ())
            assert stored.items() <= first.items()
            if sum(map(len, first.values())) < 3_500_000:
                assert stored.keys() == {each for each in first if 0 < len(each) <= 255}


def _broken(drawn: dict[str, Any]) -> set[str]:
    """Names of entries with something that can't be stored as it is said."""
    found = {"link"} if not 0 < len(drawn["link"]) < 4096 or b"\0" in drawn["link"] else set()
    for name, answers in drawn["of"].items():
        values: dict[str, bytes] = dict(reversed(answers["xattrs"] or []))
        if (
            not MIN_TIME <= answers["stat"].get("mtime", 0) <= MAX_TIME
            or any(not 0 < len(each) <= 255 for each in values)
            or sum(map(len, values.values())) > 3_500_000
        ):
            found.add(name)
    return found | ({"again"} if "small" in found else set())  # two names of one file


@MODEST
@given(drawn=_everything(odd=False))
def test_what_a_kernel_can_say_is_stored_as_it_is_said(
    lab: Lab, tmp_path: Path, drawn: dict[str, Any]
) -> None:
    """No problem is reported; content, attributes and links come back, also by a second run."""
    room = Path(mkdtemp(dir=tmp_path))
    one, top = lab.fork(room / "host"), room / "source"
    content = _plant(top)
    with _Oddly(top, drawn).answering():
        reports = [one.snapshot(top) for _ in range(2)]
    for report in reports:
        assert report.body.complete
        assert not report.problems
        entries = _entries(one, report.record, room)
        assert set(entries) == {"", *NAMES}
        assert entries["link"].link == drawn["link"]
        _check(drawn, entries, top)
        for name, answers in drawn["of"].items():
            if answers["xattrs"] is not None:
                wanted = sorted((os.fsencode(each), value) for each, value in answers["xattrs"])
                assert list(entries[name].xattrs or ()) == wanted
    assert one.contents(reports[0].record).items() <= content.items()


@MODEST
@given(drawn=_everything(odd=True))
def test_what_none_should_say_costs_what_is_broken_and_nothing_else(
    lab: Lab, tmp_path: Path, drawn: dict[str, Any]
) -> None:
    """Problems are of entries with a broken field; all can be listed and read, twice in a row."""
    room = Path(mkdtemp(dir=tmp_path))
    one, top = lab.fork(room / "host"), room / "source"
    content = _plant(top)
    broken = _broken(drawn)
    with _Oddly(top, drawn).answering():
        reports = [one.snapshot(top) for _ in range(2)]
    for report in reports:
        named = {os.fsdecode(problem.path) for problem in report.problems}
        assert named == broken
        entries = _entries(one, report.record, room)
        assert {"", *NAMES} - set(entries) <= {"link"} & broken
        _check(drawn, entries, top)
        assert one.contents(report.record).items() <= content.items()
    report = one.snapshot(top)
    assert report.body.complete
    assert not report.problems
