"""Executors for pipelines, made by the caller and passed down (docs/design.md "Floors").

With ``workers=0`` each task runs in the caller's thread before `submit` returns, so that "the
n-th call" means the same in every run of a test.
"""

import dataclasses
import functools
import itertools
import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import Any, Final, Generic, ParamSpec, Self, TypeVar

from vault.machine.processes import declare_quiet
from vault.machine.tuning import tune_process

_P = ParamSpec("_P")
_T = TypeVar("_T")
_U = TypeVar("_U")

QUESTIONS: Final = 8  # transfers at once of what asks a store much and fetches little


class InlineExecutor(Executor):
    """Runs each call before `submit` returns."""

    def submit(self, fn: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> Future[_T]:
        """See `concurrent.futures.Executor.submit`."""
        future: Future[_T] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:  # noqa: BLE001 - handed on by the future, as executors do
            future.set_exception(error)
        return future


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Workers:
    """The executors of one operation."""

    compute: Executor  # hashing, compression, sealing
    transfer: Executor  # calls to the store
    in_flight: int  # packs moving at the same time: bounds memory
    processes: int = 0  # that may be forked, for Python's own work on many small files


@contextmanager
def make_workers(
    workers: int = 2, *, transfers: int = 2, in_flight: int | None = None, processes: int = 0
) -> Iterator[Workers]:
    """Executors that end with the block; pending work is dropped on an error.

    Helping processes are started where these threads have no work (`declare_quiet`).

    Args:
        workers: Threads that compute; 0 for none at all.
        transfers: Threads that talk to the store.
        in_flight: Packs moving at the same time; by default as many as transfers.
        processes: Number of processes that may be forked (`vault.machine.processes`); none are
            if there are no threads.
    """
    if workers == 0:
        yield Workers(compute=InlineExecutor(), transfer=InlineExecutor(), in_flight=1)
        return
    compute = ThreadPoolExecutor(workers, thread_name_prefix="compute", initializer=declare_quiet)
    transfer = ThreadPoolExecutor(
        transfers, thread_name_prefix="transfer", initializer=declare_quiet
    )
    try:
        yield Workers(
            compute=compute,
            transfer=transfer,
            in_flight=in_flight or transfers,
            processes=processes,
        )
    finally:
        compute.shutdown(wait=True, cancel_futures=True)
        transfer.shutdown(wait=True, cancel_futures=True)


@contextmanager
def make_process_workers(processes: int, *, in_flight: int | None = None) -> Iterator[Workers]:
    """Executors that are one pool of new processes, for tasks that are values.

    A verification that knows its store by URL runs on them (`vault.verify`). Each process is
    started afresh, so that it inherits no thread and no lock, and is tuned as a program is.

    Args:
        processes: How many.
        in_flight: Tasks that are worked on or wait; by default twice as many.
    """
    import multiprocessing  # noqa: PLC0415 - takes 20 ms to import; few programs use it
    from concurrent.futures import ProcessPoolExecutor  # noqa: PLC0415 - as above

    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context, initializer=tune_process) as pool:
        yield Workers(compute=pool, transfer=pool, in_flight=in_flight or 2 * processes)


class AtOnce:
    """Calls that wait for a server, many at the same time. Use as a context manager.

    Threads are started when they are first needed and serve every call of the block: a cold
    reader of ten thousand statements needs 32 of them, not ten thousand. They have ended when the
    block ends. A signal is not held up by a server that hangs: neither here nor at the
    end of the process is a thread waited for then.

    Args:
        most: So many threads.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._threads: list[threading.Thread] = []
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._waits = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        """End the threads; those that still wait for a server end by themselves."""
        threads, self._threads = self._threads, []
        for _ in range(len(threads)):
            self._calls.put(None)
        if not self._waits:  # a process may be forked only beside threads that hold no lock
            for thread in threads:
                thread.join()
        self._calls = queue.SimpleQueue()
        self._waits = False

    def map(self, work: Callable[[_U], _T], items: Sequence[_U]) -> list[_T]:
        """Results in the order of ``items``, when all calls have ended.

        Raises what ``work`` raised for the first of the items for which it failed.
        """
        futures: list[Future[_T]] = [Future() for _ in items]

        def call(item: _U, future: Future[_T]) -> None:
            try:
                future.set_result(work(item))
            except BaseException as error:  # noqa: BLE001 - raised again where the result is taken
                future.set_exception(error)

        self._waits = True  # from here on a thread may hang: a signal can come before `wait`
        for pair in zip(items, futures, strict=True):
            self._calls.put(functools.partial(call, *pair))
        self._start(min(self._most, len(items)))
        wait(futures)
        self._waits = False
        return [future.result() for future in futures]

    def _start(self, count: int) -> None:
        while len(self._threads) < count:
            thread = threading.Thread(
                target=_serve, args=[self._calls], name="at-once", daemon=True
            )
            self._threads.append(thread)
            thread.start()


def _serve(calls: "queue.SimpleQueue[Callable[[], None] | None]") -> None:
    """Do calls until there is None."""
    while (call := calls.get()) is not None:
        call()


def in_order(
    executor: Executor, work: Callable[[_U], _T], items: Iterable[_U], *, limit: int
) -> Iterator[tuple[_U, Future[_T]]]:
    """Every item with its finished future, in the order of the items.

    Args:
        executor: Does the work.
        work: Called once for each item.
        items: Any number; read only as far ahead as the limit allows.
        limit: Most items that are being worked on or waiting to be taken.
    """
    waiting: deque[tuple[_U, Future[_T]]] = deque()
    for item in items:
        waiting.append((item, executor.submit(work, item)))
        if len(waiting) > limit:
            yield _finished(waiting)
    while waiting:
        yield _finished(waiting)


def streamed(
    executor: Executor,
    produce: Callable[[_U], Iterator[_T]],
    items: Iterable[_U],
    *,
    limit: int,
    ahead: int,
) -> Generator[tuple[_U, _T]]:
    """All that ``produce`` yields for each item, with the item; in any order between items.

    The caller's thread takes results; the executor's threads produce them. So Python's own work
    per item stays in one thread, and only long calls of C libraries run beside it.

    Args:
        executor: Runs ``produce``; an `InlineExecutor` leaves that to the caller's thread.
        produce: Called once for each item.
        items: Any number; read only as far ahead as the limit allows.
        limit: Items that are worked on at the same time.
        ahead: Results that wait to be taken.
    """
    if isinstance(executor, InlineExecutor):
        for item in items:
            for result in produce(item):
                yield item, result
        return
    stream = _Stream(executor, produce, ahead)
    left = iter(items)
    try:
        for item in itertools.islice(left, limit):
            stream.begin(item)
        while stream.running:
            item, result, ended = stream.queue.get()
            if ended is None:
                yield item, result
                continue
            stream.running.discard(ended)
            ended.result()
            for following in itertools.islice(left, 1):
                stream.begin(following)
    finally:
        stream.stop()


class _Stream(Generic[_U, _T]):
    """The producers of `streamed`, and the queue that they fill."""

    def __init__(
        self, executor: Executor, produce: Callable[[_U], Iterator[_T]], ahead: int
    ) -> None:
        self._executor = executor
        self._produce = produce
        self._stopped = threading.Event()
        self.queue: queue.Queue[Any] = queue.Queue(ahead)  # (item, result, None or a future)
        self.running: set[Future[None]] = set()

    def begin(self, item: _U) -> None:
        """Have an item worked on."""
        future: Future[None] = Future()
        self.running.add(future)
        self._executor.submit(self._fill, item, future)

    def _fill(self, item: _U, future: "Future[None]") -> None:
        try:
            for result in self._produce(item):
                self.queue.put((item, result, None))
                if self._stopped.is_set():
                    break
            future.set_result(None)
        except BaseException as error:  # noqa: BLE001 - handed on by the future, as executors do
            future.set_exception(error)
        self.queue.put((item, None, future))

    def stop(self) -> None:
        """Wait until all producers have ended; drops their further results."""
        self._stopped.set()
        while self.running:
            self.running.discard(self.queue.get()[2])


def _finished(waiting: deque[tuple[_U, Future[_T]]]) -> tuple[_U, Future[_T]]:
    item, future = waiting.popleft()
    future.exception()  # waits; the caller gets the error from the future
    return item, future
