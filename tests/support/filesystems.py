"""File systems that fail, or can't do something, at the calls that a restore makes."""

import errno
import os
from typing import Any

from tests.support.children import KILLED
from vault.restore.syscalls import Fs


class NoExchange(Fs):
    """A file system that can't swap names, and says so in one of the ways in which they do."""

    def __init__(self, code: int = errno.ENOSYS) -> None:
        self._code = code

    def exchange(self, directory: int, one: bytes, around: int, other: bytes) -> None:
        """Say so."""
        raise OSError(self._code, os.strerror(self._code))


class Faulty(Fs):
    """Fails a call, or all from then on, or ends the process at it.

    Args:
        at: Number of the call, from 1.
        code: What it fails with.
        how: ``once``, ``from then on`` or ``kill``.
        only: Name of the calls that count; all of them by default.
        exchange: Whether names can be swapped.
    """

    def __init__(
        self,
        at: int,
        code: int = errno.EIO,
        *,
        how: str = "once",
        only: str = "",
        exchange: bool = True,
    ) -> None:
        self.calls = 0
        self.at = at
        self.code = code
        self.how = how
        self.only = only
        self.can_exchange = exchange

    def __getattribute__(self, name: str) -> Any:
        """Count what is called on the way."""
        if name in Fs.__dict__ and (not self.only or name == self.only):
            self.calls += 1
            if self.calls == self.at and self.how == "kill":
                os._exit(KILLED)
            if self.calls == self.at or (self.calls > self.at and self.how == "from then on"):
                raise OSError(self.code, os.strerror(self.code))
        return super().__getattribute__(name)

    def exchange(self, directory: int, one: bytes, around: int, other: bytes) -> None:
        """As told."""
        if not self.can_exchange:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        super().exchange(directory, one, around, other)
