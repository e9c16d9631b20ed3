"""A command whose children end with it, also those that went into a session of their own.

While it runs this process is their reaper (prctl(2), PR_SET_CHILD_SUBREAPER): whatever
the command leaves behind becomes a child of this process, so that none can hide.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from vault.errors import LocalError

GRACE = 5.0  # seconds between SIGTERM and SIGKILL
_LAST = 5.0  # seconds after SIGKILL that the kernel may take
_POLL = 0.02  # seconds
_PR_SET_CHILD_SUBREAPER = 36
_libc = ctypes.CDLL(None, use_errno=True)
_PROC = Path("/proc")


class Family:
    """A command that runs with its standard output in a pipe, and all that it starts.

    Only one at a time: children of this process that come meanwhile are taken for its.

    Raises:
        OSError: It can't be started.
    """

    def __init__(self, arguments: Sequence[str]) -> None:
        self._others = _children()
        self._ending = threading.Lock()
        self._ended = False
        _reap(adopt=True)
        try:
            self._process = subprocess.Popen(  # noqa: S603 - running it is what was asked for
                arguments,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                start_new_session=True,
            )
        except BaseException:
            _reap(adopt=False)
            raise

    @property
    def output(self) -> IO[bytes]:
        """What it prints."""
        assert self._process.stdout is not None
        return self._process.stdout

    def wait(self) -> int:
        """Exit status of the command itself, as `subprocess.Popen` has it."""
        return self._process.wait()

    def end(self) -> None:
        """End whatever is left of it; may be called twice, and from several threads.

        Raises:
            LocalError: Something of it can't be ended.
        """
        with self._ending:
            if self._ended:
                return
            left = self._end_all()
            self._ended = True
            _reap(adopt=False)
        if left:
            raise LocalError(
                "the command left processes that can't be ended",
                found=", ".join(map(str, sorted(left))),
                hint="do they run as another user? end them by hand",
            )

    def _end_all(self) -> set[int]:
        """Ask, wait, and kill; what is left after that.

        The command stays a zombie until the last signal, so that its number can't be another's.
        """
        self._signal(signal.SIGTERM)
        deadline = time.monotonic() + GRACE
        while self._left() and time.monotonic() < deadline:
            time.sleep(_POLL)
        deadline = time.monotonic() + _LAST
        while (left := self._left()) and time.monotonic() < deadline:
            self._signal(signal.SIGKILL)  # children of those that end are ours the moment after
            time.sleep(_POLL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=0)
        return left

    def _left(self) -> set[int]:
        """Those that still run: zombies are reaped on the way, but for the command."""
        left = _children() - self._others
        for pid in list(left):
            options = os.WEXITED | os.WNOHANG | (os.WNOWAIT if pid == self._process.pid else 0)
            with contextlib.suppress(ChildProcessError):
                if os.waitid(os.P_PID, pid, options) is None:
                    continue
            left.discard(pid)
        return left

    def _signal(self, number: signal.Signals) -> None:
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, number)
        for pid in self._left():  # not reaped yet, so that no number can be another's
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, number)


def _reap(*, adopt: bool) -> None:
    """Have orphans among the descendants become children of this process, or no more."""
    if _libc.prctl(_PR_SET_CHILD_SUBREAPER, int(adopt), 0, 0, 0):
        raise OSError(ctypes.get_errno(), "this process can't be made the reaper of its children")


def _children() -> set[int]:
    """Children of this process, zombies too."""
    own = os.getpid()
    found = set()
    for directory in _PROC.iterdir():
        if directory.name.isdigit():
            with contextlib.suppress(OSError):  # it ended meanwhile
                fields = (directory / "stat").read_bytes().rpartition(b")")[2].split()
                if int(fields[1]) == own:
                    found.add(int(directory.name))
    return found
