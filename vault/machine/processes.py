"""Helping processes, forked for work in Python itself: threads would take turns (the GIL).

A helper shares the caller's open files and its memory as of the fork, so requests are small. Data
goes through memory that both processes map.
"""

import contextlib
import gc
import logging
import mmap
import os
import pickle
import signal
import threading
import warnings
import weakref
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final, Generic, NoReturn, Self, TypeVar, cast

from vault.errors import LocalError

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

_Request = TypeVar("_Request")
_Answer = TypeVar("_Answer")

_MOST: Final = 3  # one process can't keep more of them busy
_SLOTS: Final = 2  # one is worked on while the other waits
_MAX_REQUEST: Final = 65_536  # bytes; a socket holds more, so that sending one never waits
_NAMED: Final = 5  # threads, in a message
_STOPPED: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # sent to the whole group

_quiet: "Final[weakref.WeakSet[threading.Thread]]" = weakref.WeakSet()
_log = logging.getLogger(__name__)


def spare_processors() -> int:
    """Processes that can work beside this one, each on a processor of its own."""
    return min(len(os.sched_getaffinity(0)) - 1, _MOST)


def start(
    stack: contextlib.ExitStack, count: int, make: "Callable[[], Helper[_Request, _Answer]]"
) -> "list[Helper[_Request, _Answer]]":
    """Helpers that end with the stack: as many as wanted, or as may be started.

    A limit on processes, or a program with threads of its own, makes work slower; neither must
    make it fail.
    """
    found: list[Helper[_Request, _Answer]] = []
    try:
        for _ in range(count):
            found.append(stack.enter_context(make()))  # noqa: PERF401 - what was started stays
    except LocalError as error:
        _log.info("%d of %d processes help: %s", len(found), count, error)
    return found


class Helper(Generic[_Request, _Answer]):
    """Does one request after the other in a process of its own. Use as a context manager.

    It ends with the block, and by itself should this process be killed. What the work
    raises is raised here, by whatever is called next.

    Args:
        work: Called in the child with a request and its data. If a request has no data, it gets
            the whole room, to leave data for its answer there.
        finish: Called in the child after the last request; `Helper.finish` returns its result.
        room: Bytes that the data of one request may have.

    Raises:
        LocalError: The system allows no further process, or there are threads beside which a
            fork is not safe (`declare_quiet`).
    """

    def __init__(
        self,
        work: Callable[[_Request, memoryview], _Answer],
        finish: Callable[[], Any],
        *,
        room: int,
    ) -> None:
        from multiprocessing import Pipe  # noqa: PLC0415 - takes 10 ms, and few runs need a helper

        self._room = room
        self._free = list(range(_SLOTS))
        self._exit_code: int | None = None
        _check_threads()
        with contextlib.ExitStack() as undo:
            try:
                self._memory = mmap.mmap(-1, _SLOTS * room)  # shared: the fork maps the same pages
                undo.callback(self._memory.close)
                self._connection, there = Pipe()
                undo.callback(self._connection.close)
                with there, _signals_held():
                    self._process = _fork()
                    if not self._process:
                        self._serve(there, work, finish)
            except OSError as error:
                raise LocalError("can't start a process", found=error.strerror) from error
            undo.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Wait until the child has ended, so that it does nothing after the block."""
        self._connection.close()
        self._wait()
        with contextlib.suppress(BufferError):  # a traceback may still hold a view of the memory
            self._memory.close()

    def offer(self, request: _Request, data: bytes | memoryview = b"") -> bool:
        """Give the child work; False if it is busy, or the request or its data are too large."""
        if not self._free or len(data) > self._room:
            return False
        slot = self._free[-1]
        message = pickle.dumps((slot, len(data), request))
        if len(message) > _MAX_REQUEST:  # each would wait until the other has read
            return False
        self._free.pop()
        start = slot * self._room
        self._memory[start : start + len(data)] = data
        self._send(message)
        return True

    @property
    def busy(self) -> bool:
        """Whether there are answers still to be taken."""
        return len(self._free) < _SLOTS

    @property
    def ready(self) -> bool:
        """Whether `take` would not wait."""
        return self.busy and self._connection.poll()

    def take(self) -> _Answer:
        """The answer to the first request that has none yet; waits for it.

        Raises:
            VaultError: What the work raised.
            LocalError: The process was killed.
        """
        with self.answer() as (answer, _):
            return answer

    @contextlib.contextmanager
    def answer(self) -> Iterator[tuple[_Answer, memoryview]]:
        """As `take`, with the memory in which the work left data for its answer.

        The memory is used again after the block, so the caller must not keep a view of it.
        """
        slot, answer = self._receive()
        start = slot * self._room
        yield cast("_Answer", answer), memoryview(self._memory)[start : start + self._room]
        self._free.append(slot)

    def finish(self) -> Any:
        """End it, after the last answer was taken.

        Raises:
            VaultError: What the work raised.
            LocalError: The process was killed.
        """
        self._send(pickle.dumps(None))
        return self._receive()

    def _send(self, message: bytes) -> None:
        try:
            self._connection.send_bytes(message)
        except OSError:
            self._receive()  # why it ended
            raise

    def _receive(self) -> Any:
        try:
            result, error = self._connection.recv()
        except (EOFError, OSError):
            raise LocalError(
                "a process that helped has ended",
                found=f"exit code {self._wait()}",
                hint="was it killed for want of memory?",
            ) from None
        if error is not None:
            raise error
        return result

    def _wait(self) -> int:
        """Until it has ended; its exit code, or the signal that ended it below zero."""
        if self._exit_code is None:
            self._exit_code = os.waitstatus_to_exitcode(os.waitpid(self._process, 0)[1])
        return self._exit_code

    # --- over there ---

    def _serve(
        self,
        connection: "Connection",
        work: Callable[[_Request, memoryview], _Answer],
        finish: Callable[[], Any],
    ) -> NoReturn:
        try:
            for number in _STOPPED:
                signal.signal(number, signal.SIG_IGN)  # the parent says when to stop
            self._connection.close()  # the parent's end; while open here, its closing is not seen
            gc.freeze()  # the collector writes to every object, which would copy shared memory
            with contextlib.suppress(EOFError, OSError):  # the parent has ended
                self._answer_all(connection, work, finish)
        finally:
            os._exit(0)  # skips clean-up, which would flush and remove the parent's files

    def _answer_all(
        self,
        connection: "Connection",
        work: Callable[[_Request, memoryview], _Answer],
        finish: Callable[[], Any],
    ) -> None:
        memory = memoryview(self._memory)
        while True:
            message = connection.recv()
            try:
                if message is None:
                    connection.send((finish(), None))
                    return
                slot, length, request = message
                start = slot * self._room
                data = memory[start : start + (length or self._room)]
                connection.send(((slot, work(request, data)), None))
            except Exception as error:  # noqa: BLE001 - raised again in the parent
                connection.send((None, error))
                return


@contextlib.contextmanager
def _signals_held() -> Iterator[None]:
    """Block stop signals around a fork.

    A signal delivered to the child before it has reset its handlers would run the parent's
    clean-up there, and delete the parent's files.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _STOPPED)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def declare_quiet(thread: threading.Thread | None = None) -> None:
    """Say that this process may be forked beside a thread.

    The forked process has copies of all locks as they were at that moment, and no other thread
    that could let go of them: one that it needs, and that a thread held, it would wait for
    forever. So a thread may be declared only if it holds none of those when a helper is started:
    a worker that has no work then, or the progress bar, which has locks of its own.

    Args:
        thread: Which; the calling one unless said.
    """
    _quiet.add(thread or threading.current_thread())


def _check_threads() -> None:
    """Pass if no thread runs that may hold a lock which a helper needs.

    Raises:
        LocalError: One does.
    """
    this = threading.current_thread()
    others = [
        each.name for each in threading.enumerate() if each is not this and each not in _quiet
    ]
    if others:
        raise LocalError(
            "can't start a process beside threads that may hold locks",
            expected="only this thread, idle workers, and a progress bar",
            found=f"{len(others)} more: {', '.join(others[:_NAMED])}",
            hint="run it in a process of its own",
        )


def _fork() -> int:
    """Fork. Python warns because other threads exist; `_check_threads` looked at them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()
