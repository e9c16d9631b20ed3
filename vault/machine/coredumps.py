"""No copy of this process's memory on disk, nor in another process of the same user."""

import contextlib
import resource
from typing import Final

from vault.machine.libc import libc

_PR_SET_DUMPABLE: Final = 4  # of prctl(2), from linux/prctl.h


def forbid_dumps() -> None:
    """Keep what this process holds in memory to itself, from here on.

    The kernel writes no core of it, and lets no other process of the user read its memory or
    attach a debugger. Programs that it starts may ask for cores again: only the soft limit is 0.
    To be called before secrets are read; where the kernel has no such call, the limit is all.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, hard))
    prctl = getattr(libc, "prctl", None)
    if prctl is not None:
        with contextlib.suppress(OSError):
            prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
