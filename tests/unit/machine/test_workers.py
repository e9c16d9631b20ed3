"""Executors, and work that is taken from threads in order or as it comes."""

import contextlib
import threading
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor

import pytest

from vault.machine import workers
from vault.machine.workers import AtOnce, InlineExecutor, streamed


@pytest.fixture(params=["inline", "threads"])
def executor(request: pytest.FixtureRequest) -> Iterator[Executor]:
    """One that runs everything at once, and one with two threads."""
    if request.param == "inline":
        yield InlineExecutor()
    else:
        with ThreadPoolExecutor(2) as pool:
            yield pool


def test_everything_that_is_produced_is_taken(executor: Executor) -> None:
    """With its item, and in its item's order, though more waits than the queue holds."""
    taken: dict[int, list[int]] = {}
    for item, result in streamed(executor, lambda n: iter(range(n)), range(20), limit=3, ahead=2):
        taken.setdefault(item, []).append(result)
    assert taken == {n: list(range(n)) for n in range(1, 20)}


def test_an_error_of_a_producer_ends_it(executor: Executor) -> None:
    """After that nobody works any more."""
    ended = threading.Semaphore(0)

    def produce(item: int) -> Iterator[int]:
        try:
            yield from range(3)
            if item == 2:
                raise ValueError("broken")
            yield from range(100)
        finally:
            ended.release()

    with pytest.raises(ValueError, match="broken"):
        list(streamed(executor, produce, range(10), limit=2, ahead=1))
    assert ended.acquire(timeout=10)


def test_who_stops_taking_waits_for_the_producers(executor: Executor) -> None:
    """They must not go on with what is about to be closed."""
    open_files = [True]
    used_closed = []

    def produce(item: int) -> Iterator[int]:
        for number in range(1000):
            used_closed.append(not open_files[0])
            yield item * number

    with contextlib.closing(streamed(executor, produce, range(9), limit=3, ahead=1)) as stream:
        next(stream)
        working = list(used_closed)
    open_files[0] = False
    assert len(working) < 9000
    assert not any(used_closed)


def test_calls_at_once_come_in_order_and_leave_no_thread() -> None:
    """The first waits for the last, which shows that they run at the same time."""
    before = set(threading.enumerate())
    last = threading.Event()

    def work(number: int) -> int:
        if number == 2:
            last.set()
        assert last.wait(60)
        return number * 10

    with AtOnce(3) as threads:
        assert threads.map(work, range(3)) == [0, 10, 20]
    assert set(threading.enumerate()) == before


def test_threads_for_calls_at_once_serve_the_whole_block() -> None:
    """As few are started as calls wait, and no more than allowed, however many calls there are."""
    seen: set[int] = set()

    def work(number: int) -> int:
        seen.add(threading.get_ident())
        return number

    with AtOnce(4) as threads:
        for _ in range(50):
            assert threads.map(work, range(10)) == list(range(10))
    with threads:  # a second block begins anew
        assert threads.map(work, [7]) == [7]
    assert len(seen) <= 5


def test_a_signal_does_not_wait_for_calls_that_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    """The block ends while the server still says nothing; what hangs ends by itself."""
    answers = threading.Event()

    def interrupted(_: object) -> None:
        raise KeyboardInterrupt

    def hung() -> list[threading.Thread]:
        return [each for each in threading.enumerate() if each.name == "at-once"]

    monkeypatch.setattr(workers, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt), AtOnce(2) as threads:
        threads.map(lambda _: answers.wait(60), range(2))
    left = hung()
    assert left
    assert all(thread.daemon for thread in left)
    answers.set()
    for thread in left:
        thread.join(60)
    assert not hung()


def test_an_error_of_a_call_at_once_is_raised_when_all_have_ended() -> None:
    """None goes on behind the caller's back."""
    ended = []

    def work(number: int) -> None:
        if number == 0:
            raise ValueError("first")
        ended.append(number)

    with pytest.raises(ValueError, match="first"), AtOnce(3) as threads:
        threads.map(work, range(3))
    assert sorted(ended) == [1, 2]
