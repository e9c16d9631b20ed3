"""Any tree comes back as it was: proven by the vault, and compared by other means."""

import os
import random
import shutil
import stat
import time
from pathlib import Path
from tempfile import mkdtemp

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.lab import Lab
from tests.support.randomtrees import Node, look, plant, show_differences, trees
from vault.format.content_root import ContentRoot
from vault.model import EntryType
from vault.repository.reader import Reader
from vault.restore import RestoreOutcome
from vault.snapshot import safe_open

MODEST = settings(
    deadline=None,
    max_examples=100,
    print_blob=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def _fresh(lab: Lab, tmp_path: Path) -> tuple[Lab, Path]:
    """The repository as it was made, in a room of its own."""
    room = Path(mkdtemp(dir=tmp_path))
    return lab.fork(room / "host"), room


def _proven_root(lab: Lab, seq: int, scratch: Path) -> bytes:
    """Content root of the tree that was signed."""
    repository = lab.open()
    root = ContentRoot()
    reader = Reader(
        repository, lab.recovery.recipient, repository.ledger.records[seq], scratch=scratch
    )
    reader.load_packs()
    for _, canonical in reader.tree():
        root.update(canonical)
    reader.close()
    return root.digest()


@MODEST
@given(data=st.data())
def test_any_tree_comes_back(lab: Lab, tmp_path: Path, data: st.DataObject) -> None:
    """Snapshot, restore with proof: equal content root, and equal to an independent look."""
    one, room = _fresh(lab, tmp_path)
    top = room / "source"
    plant(data.draw(trees()), os.fsencode(top))
    before = look(top)
    taken = one.snapshot(top, allow_empty=True)
    assert taken.body.complete
    report = one.restore(taken.record, room / "target")
    assert report.outcome is RestoreOutcome.RECOVERED
    assert report.proof is not None
    (room / "reader").mkdir()
    assert report.proof.disk_root == _proven_root(one, taken.record.seq, room / "reader")
    after = look(room / "target")
    assert after == before, show_differences(before, after)
    assert look(top) == before
    shutil.rmtree(room)


class _Opened:
    """Counts the files whose content is opened, by path."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.paths: list[bytes] = []
        real = safe_open.open_source

        def counting(full: bytes, expected: os.stat_result) -> tuple[int, os.stat_result]:
            self.paths.append(full)
            return real(full, expected)

        monkeypatch.setattr(safe_open, "open_source", counting)


def _change(top: bytes, draw: random.Random) -> set[bytes]:
    """Some random changes; the paths of files whose inode was touched."""
    files = []
    for folder, _, names in os.walk(top):
        files += [os.path.join(folder, name) for name in names]  # noqa: PTH118 - names are bytes
    touched: set[int] = set()
    time.sleep(0.02)  # a later tick of the kernel's clock, or ctime would say nothing
    for path in sorted(files):
        status = os.lstat(path)
        choice = draw.randrange(6)
        if choice == 0:
            os.unlink(path)  # noqa: PTH108 - as above
            touched.add(status.st_ino)
        elif choice == 1 and not os.path.islink(path) and os.path.isfile(path):  # noqa: PTH113,PTH114 - as above
            with open(path, "ab") as file:  # noqa: PTH123 - as above
                file.write(draw.randbytes(draw.choice([1, 1500, 20_000])))
            touched.add(status.st_ino)
    for number in range(draw.randrange(3)):
        path = b"%b/made-%d" % (top, number)
        Path(os.fsdecode(path)).write_bytes(draw.randbytes(5000))
        touched.add(os.lstat(path).st_ino)
    found = set()
    for folder, _, names in os.walk(top):
        for name in names:
            path = os.path.join(folder, name)  # noqa: PTH118 - as above
            if os.lstat(path).st_ino in touched:
                found.add(path)
    return found


@settings(MODEST, max_examples=40)  # each waits for the kernel's clock
@given(data=st.data(), seed=st.integers(0, 2**32))
def test_what_changed_is_read_again_and_nothing_else(
    lab: Lab,
    tmp_path: Path,
    data: st.DataObject,
    seed: int,
) -> None:
    """Two snapshots with changes in between: both restore right; unchanged files stay unread."""
    one, room = _fresh(lab, tmp_path)
    top = os.fsencode(room / "source")
    plant(data.draw(trees()), top)
    first = one.snapshot(room / "source", allow_empty=True)
    before = look(top)
    changed = _change(top, random.Random(seed))
    middle = look(top)
    one.clock.advance(hours=1)
    with pytest.MonkeyPatch.context() as monkeypatch:
        opened = _Opened(monkeypatch)
        second = one.snapshot(room / "source", allow_empty=True)
    clock_ns = int(one.clock.now.timestamp()) * 10**9
    for path in opened.paths:
        status = os.lstat(path)
        from_the_future = status.st_mtime_ns > clock_ns - 7200 * 10**9  # may change unseen
        assert path in changed or from_the_future or stat.S_ISDIR(status.st_mode), path
    for taken, expected in ((second, middle), (first, before)):
        target = room / f"target{taken.record.seq}"
        assert one.restore(taken.record, target).outcome is RestoreOutcome.RECOVERED
        found = look(target)
        assert found == expected, show_differences(expected, found)
    shutil.rmtree(room)


def test_the_strategy_makes_what_it_says(tmp_path: Path) -> None:
    """Odd names, links, repeats and times do occur, so that the tests above mean something."""
    kinds = set()
    seen: set[str] = set()

    @settings(MODEST, max_examples=100, database=None, derandomize=True)
    @given(tree=trees())
    def collect(tree: Node) -> None:
        room = Path(mkdtemp(dir=tmp_path))
        top = os.fsencode(room / "source")
        plant(tree, top)
        found = look(top)
        for path, (kind, mode, _, _, mtime, content, group) in found.items():
            kinds.add(kind)
            seen.update(
                name
                for name, holds in {
                    "negative time": mtime < 0,
                    "setuid": mode & 0o4000,
                    "control character": b"\n" in path or b"\x1b" in path,
                    "hard link": group != path,
                    "in another directory": group.rpartition(b"/")[0] != path.rpartition(b"/")[0],
                    "several chunks": content is not None and len(content) > 8192,
                    "empty": content == b"",
                }.items()
                if holds
            )
        shutil.rmtree(room)

    collect()
    assert len(kinds) == len({EntryType.DIRECTORY, EntryType.FILE, EntryType.SYMLINK, "fifo"})
    assert seen == {
        "negative time", "setuid", "control character", "hard link", "in another directory",
        "several chunks", "empty",
    }  # fmt: skip
