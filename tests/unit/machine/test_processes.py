"""A process that helps: what it is given is done, and its end is never later than its block."""

import contextlib
import gc
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from vault.errors import FormatError, LocalError
from vault.machine.processes import Helper, declare_quiet, spare_processors, start
from vault.machine.workers import make_workers

ROOM = 1 << 16


def _length(_request: object, data: memoryview) -> tuple[int, int]:
    return os.getpid(), len(data)


def _nothing() -> None:
    pass


def _take_all(helper: Helper[Any, Any]) -> list[Any]:
    found = []
    while helper.busy:
        found.append(helper.take())
    return found


def test_work_is_done_in_another_process() -> None:
    """With the data, which both have mapped."""
    with Helper(_length, _nothing, room=ROOM) as helper:
        assert helper.offer(None, memoryview(bytes(100)))
        process, length = helper.take()
    assert process != os.getpid()
    assert length == 100


def test_answers_come_in_order_and_room_is_used_again() -> None:
    """Each answer is to its request, with the bytes that came with it."""
    got = []

    def work(request: int, data: memoryview) -> tuple[int, bytes]:
        return request, bytes(data)

    with Helper(work, _nothing, room=ROOM) as helper:
        for number in range(50):
            data = memoryview(bytes([number]) * (number + 1))
            while not helper.offer(number, data):
                got.append(helper.take())
        got += _take_all(helper)
    assert got == [(number, bytes([number]) * (number + 1)) for number in range(50)]


def test_no_more_is_taken_than_there_is_room_for() -> None:
    """What is too large, or comes too early, is left to the caller."""
    with Helper(_length, _nothing, room=ROOM) as helper:
        assert not helper.offer(None, memoryview(bytes(ROOM + 1)))
        while helper.offer(None, memoryview(bytes(ROOM))):
            pass
        assert helper.busy
        assert [length for _, length in (helper.take(), helper.take())] == [ROOM, ROOM]
        assert not helper.busy
        assert not helper.ready


def test_requests_that_a_socket_may_not_hold_are_left_to_the_caller() -> None:
    """Else each side would wait until the other has read: 128 paths of 4 KiB, and more back."""
    paths = [os.urandom(4_000) for _ in range(128)]

    def work(request: list[bytes], _data: memoryview) -> list[bytes]:
        return request * 4

    with Helper(work, _nothing, room=ROOM) as helper:
        assert not helper.offer(paths)
        assert helper.offer(paths[:10])
        assert helper.offer(paths[10:20])
        assert _take_all(helper) == [paths[:10] * 4, paths[10:20] * 4]


def test_work_without_data_may_leave_some() -> None:
    """In the room that goes with its answer, until the block ends."""

    def work(request: int, room: memoryview) -> int:
        room[:request] = b"x" * request
        return request

    with Helper(work, _nothing, room=ROOM) as helper:
        assert helper.offer(3)
        with helper.answer() as (size, room):
            assert bytes(room[:size]) == b"xxx"
            assert len(room) == ROOM
            del room


def test_finish_tells_what_was_gathered_there() -> None:
    """The process has a copy of what it works on; this one's stays as it was."""
    gathered: list[int] = []

    def work(request: int, _data: memoryview) -> None:
        gathered.append(request)

    with Helper(work, lambda: gathered, room=ROOM) as helper:
        for number in (3, 4):
            assert helper.offer(number, memoryview(b""))
        _take_all(helper)
        assert helper.finish() == [3, 4]
    assert gathered == []


def test_errors_are_raised_on_this_side() -> None:
    """As they were, with expected, found and hint."""

    def work(_request: object, _data: memoryview) -> None:
        raise FormatError("bad", expected="good", found="worse", hint="go home")

    with Helper(work, _nothing, room=ROOM) as helper:
        helper.offer(None, memoryview(b""))
        with pytest.raises(FormatError, match="bad: expected good, found worse") as raised:
            helper.take()
    assert raised.value.hint == "go home"


def test_who_goes_on_after_an_error_hears_of_it() -> None:
    """Also if the next thing is not to take an answer."""

    def work(_request: object, _data: memoryview) -> None:
        raise FormatError("bad")

    with Helper(work, _nothing, room=ROOM) as helper:
        helper.offer(None, memoryview(b""))
        while not helper.ready:
            time.sleep(0.001)
        with pytest.raises(FormatError, match="bad"):
            helper.finish()


def test_a_killed_process_is_an_error() -> None:
    """Its files are not all there."""

    def work(_request: object, _data: memoryview) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    with Helper(work, _nothing, room=ROOM) as helper:
        helper.offer(None, memoryview(b""))
        with pytest.raises(LocalError, match="exit code -9"):
            helper.take()


def test_nothing_is_done_after_the_block(tmp_path: Path) -> None:
    """Who leaves it early may remove what the process works on."""
    file = tmp_path / "file"

    def work(_request: object, _data: memoryview) -> None:
        time.sleep(0.1)
        with file.open("ab") as out:
            out.write(b"x")

    with Helper(work, _nothing, room=ROOM) as helper:
        while helper.offer(None, memoryview(b"")):
            pass
    size = file.stat().st_size if file.exists() else 0
    time.sleep(0.3)
    assert (file.stat().st_size if file.exists() else 0) == size


def test_signals_to_the_group_are_left_to_the_parent() -> None:
    """Ctrl-C reaches every process of a terminal; only one decides what it means."""
    with Helper(_length, _nothing, room=ROOM) as helper:
        helper.offer(None, memoryview(b""))
        process, _ = helper.take()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(process, number)
        assert helper.offer(None, memoryview(b"1"))
        assert helper.take() == (process, 1)


def test_a_signal_right_after_the_fork_is_the_parent_s(monkeypatch: pytest.MonkeyPatch) -> None:
    """A child that unwound would remove the parent's staging directory."""
    parent, fork = os.getpid(), os.fork

    def interrupted() -> int:
        process = fork()
        if not process:
            os.kill(os.getpid(), signal.SIGINT)
        return process

    monkeypatch.setattr(os, "fork", interrupted)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with Helper(_length, _nothing, room=ROOM) as helper:
            helper.offer(None, memoryview(b"1"))
            assert helper.take()[1] == 1
    finally:
        if os.getpid() != parent:
            os._exit(99)
        signal.signal(signal.SIGINT, before)


def test_it_ends_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    """Nobody is left behind who still holds the staging directory's lock."""
    told = tmp_path / "process"
    parent = os.fork()
    if parent == 0:
        try:
            with (
                Helper(_length, _nothing, room=ROOM) as first,
                Helper(_length, _nothing, room=ROOM) as second,
            ):
                first.offer(None, memoryview(b""))
                second.offer(None, memoryview(b""))
                told.with_suffix(".new").write_text(f"{first.take()[0]} {second.take()[0]}")
                told.with_suffix(".new").rename(told)
                time.sleep(60)
        finally:
            os._exit(1)
    while not told.exists():
        time.sleep(0.01)
    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)
    for process in map(int, told.read_text().split()):
        while _runs(process):
            time.sleep(0.01)


def _runs(process: int) -> bool:
    """Not as a zombie that nobody waits for."""
    try:
        status = Path(f"/proc/{process}/stat").read_text()
    except FileNotFoundError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


def test_what_was_there_before_stays_shared() -> None:
    """Also when the process looks for cycles: else each would cost as much as its parent."""
    before = [[number] for number in range(500_000)]  # 60 MB, in every page of it an object

    def work(_request: object, _data: memoryview) -> int:
        gc.collect()
        rollup = Path("/proc/self/smaps_rollup").read_text()
        return sum(int(line.split()[1]) for line in rollup.splitlines() if "Private_D" in line)

    with Helper(work, _nothing, room=ROOM) as helper:
        helper.offer(None)
        assert helper.take() < 20_000  # kB
    assert len(before) == 500_000


def test_one_processor_is_left_for_the_parent(monkeypatch: pytest.MonkeyPatch) -> None:
    """And a machine of many does not get as many processes."""
    for processors, spare in ((1, 0), (2, 1), (64, 3)):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, n=processors: set(range(n)))
        assert spare_processors() == spare


@pytest.fixture
def stranger() -> Iterator[threading.Thread]:
    """A thread of another part of the program."""
    ended = threading.Event()
    thread = threading.Thread(target=ended.wait, name="dashboard")
    thread.start()
    yield thread
    ended.set()
    thread.join()


def test_no_process_is_forked_beside_threads_that_may_hold_locks(
    stranger: threading.Thread, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The child would wait forever for a lock that one of them held: an error names it."""
    monkeypatch.setattr(os, "fork", lambda: pytest.fail("forked"))
    with pytest.raises(LocalError, match="beside threads") as refused:
        Helper(_length, _nothing, room=ROOM)
    assert refused.value.found == "1 more: dashboard"


def test_work_is_done_without_help_beside_such_threads(stranger: threading.Thread) -> None:
    """It takes longer; once the thread is declared quiet there is help again."""
    with contextlib.ExitStack() as stack:
        assert start(stack, 1, lambda: Helper(_length, _nothing, room=ROOM)) == []
        declare_quiet(stranger)
        assert len(start(stack, 1, lambda: Helper(_length, _nothing, room=ROOM))) == 1


def test_processes_are_forked_beside_workers() -> None:
    """They have no work then; that they are there is no reason against it."""
    with make_workers(2) as workers, contextlib.ExitStack() as stack:
        workers.compute.submit(int).result()
        workers.transfer.submit(int).result()
        assert len(start(stack, 1, lambda: Helper(_length, _nothing, room=ROOM))) == 1
