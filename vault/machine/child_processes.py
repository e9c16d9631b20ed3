"""A command whose children end with it, also those that went into a session of their own.

While the command runs, this process is the reaper (prctl(2), PR_SET_CHILD_SUBREAPER): each
process that the command leaves behind becomes a child of this one, so that none can hide.
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
from vault.machine.libc import libc

GRACE = 5.0  # seconds between SIGTERM and SIGKILL
_LAST = 5.0  # seconds after SIGKILL that the kernel may take
_POLL = 0.02  # seconds
_PR_SET_CHILD_SUBREAPER = 36
_PROC = Path("/proc")


class Family:
    """A command with its standard output in a pipe, and all processes that it starts.

    Only one at a time: other children that this process gets meanwhile are taken for the
    command's.

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
        """The command's standard output."""
        assert self._process.stdout is not None
        return self._process.stdout

    def wait(self) -> int:
        """Exit status of the command itself, as `subprocess.Popen` has it."""
        return self._process.wait()

    def end(self) -> None:
        """End all processes left of it; may be called twice, and from several threads.

        Raises:
            LocalError: One of them can't be ended.
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
        """Send SIGTERM, wait, send SIGKILL; returns the processes still running.

        The command stays a zombie until the last signal, so the kernel can't reuse its number.
        """
        self._signal(signal.SIGTERM)
        deadline = time.monotonic() + GRACE
        while self._left() and time.monotonic() < deadline:
            time.sleep(_POLL)
        deadline = time.monotonic() + _LAST
        while (left := self._left()) and time.monotonic() < deadline:
            self._signal(signal.SIGKILL)  # in a loop: orphans of those that end become children
            time.sleep(_POLL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=0)
        return left

    def _left(self) -> set[int]:
        """Processes that still run; reaps zombies, except the command itself."""
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
        for pid in self._left():  # not reaped yet, so the kernel can't have reused a number
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, number)


def _reap(*, adopt: bool) -> None:
    """Have the kernel give orphaned descendants to this process, or stop doing so."""
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, int(adopt), 0, 0, 0):
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
