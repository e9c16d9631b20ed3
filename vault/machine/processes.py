"""A process forked from this one, for work that Python itself does: threads would take turns.

It shares the caller's open files and everything in memory as it was at the fork, so that a
request is small; data goes through memory that both have mapped.
"""

import contextlib
import gc
import mmap
import os
import pickle
import signal
import warnings
from collections.abc import Callable, Iterator
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any, Final, Generic, NoReturn, Self, TypeVar, cast

from vault.errors import LocalError

_Request = TypeVar("_Request")
_Answer = TypeVar("_Answer")

_MOST: Final = 3  # one process can't keep more of them busy
_SLOTS: Final = 2  # one is worked on while the other waits
_MAX_REQUEST: Final = 65_536  # bytes; a socket holds more, so that sending one never waits
_STOPPED: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # the whole group gets them


def spare_processors() -> int:
    """Processes that can work beside this one, each on a processor of its own."""
    return min(len(os.sched_getaffinity(0)) - 1, _MOST)


def start(
    stack: contextlib.ExitStack, count: int, make: "Callable[[], Helper[_Request, _Answer]]"
) -> "list[Helper[_Request, _Answer]]":
    """Helpers that end with the stack: as many as wanted, or as the system allows.

    A limit on processes makes work slower; it must not make it fail.
    """
    found: list[Helper[_Request, _Answer]] = []
    with contextlib.suppress(LocalError):
        for _ in range(count):
            found.append(stack.enter_context(make()))  # noqa: PERF401 - what was started stays
    return found


class Helper(Generic[_Request, _Answer]):
    """Does one request after the other in a process of its own. Use as a context manager.

    It ends with the block, and by itself should this process be killed. What the work
    raises is raised here, by whatever is called next.

    Args:
        work: Called there with a request and its data. A request without any has the whole
            room, to leave there what belongs to its answer.
        finish: Called there when everything was done; what it returns comes back here.
        room: Bytes that the data of one request may have.

    Raises:
        LocalError: The system allows no further process.
    """

    def __init__(
        self,
        work: Callable[[_Request, memoryview], _Answer],
        finish: Callable[[], Any],
        *,
        room: int,
    ) -> None:
        self._room = room
        self._free = list(range(_SLOTS))
        self._exit_code: int | None = None
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
        """Wait until it has ended: nothing that it does comes later than this."""
        self._connection.close()
        self._wait()
        with contextlib.suppress(BufferError):  # an error's traceback holds a view of it
            self._memory.close()

    def offer(self, request: _Request, data: bytes | memoryview = b"") -> bool:
        """Give it work; False if it has enough, or request or data find no room."""
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
        """As `take`, with the room in which the work left what belongs to its answer.

        The room is used again after the block: no view of it may outlast that.
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
        connection: Connection,
        work: Callable[[_Request, memoryview], _Answer],
        finish: Callable[[], Any],
    ) -> NoReturn:
        try:
            for number in _STOPPED:
                signal.signal(number, signal.SIG_IGN)  # the other end says when to stop
            self._connection.close()  # or it would never be seen closed
            gc.freeze()  # looking for cycles writes to every object, and would copy all we share
            with contextlib.suppress(EOFError, OSError):  # nobody listens any more
                self._answer_all(connection, work, finish)
        finally:
            os._exit(0)  # nothing of the parent's is closed, flushed or removed

    def _answer_all(
        self,
        connection: Connection,
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
            except Exception as error:  # noqa: BLE001 - raised again on the other side
                connection.send((None, error))
                return


@contextlib.contextmanager
def _signals_held() -> Iterator[None]:
    """One that came right after a fork would have the child clear away what is the parent's."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _STOPPED)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _fork() -> int:
    """As `os.fork`; threads of ours wait for work, or draw: no lock of theirs is waited for."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()
