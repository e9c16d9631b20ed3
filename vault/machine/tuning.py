"""Settings of a whole process that the figures of docs/performance.md were measured with.

They are a program's to make, never a library's: the command line makes them, and so does what
runs vault's work in processes of its own.
"""

import gc
import sys
from typing import Final

from vault.machine.libc import libc

_COLLECT: Final = (100_000, 50, 100)  # objects made before each generation is looked through
_SWITCH: Final = 0.0005  # seconds
_ARENAS: Final = 1
_MAPPED: Final = 4 << 20  # bytes
_TRIMMED: Final = 32 << 20  # bytes
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # of mallopt(3), from malloc.h


def tune_process() -> None:
    """Fit this process for millions of small objects, and for buffers of packs, in threads.

    The collector looks for cycles less often: there are hardly any. A thread that comes back
    from reading or hashing gets the interpreter after 0.5 ms instead of 5. Buffers of packs are
    given back to the system when they are freed: glibc would raise its threshold and keep them.
    One heap serves all threads: what one of several has freed would not serve another.

    To be called once, after the imports and before there are threads.
    """
    gc.freeze()
    gc.set_threshold(*_COLLECT)
    sys.setswitchinterval(_SWITCH)
    mallopt = getattr(libc, "mallopt", None)
    if mallopt is not None:  # glibc
        mallopt(_M_ARENA_MAX, _ARENAS)
        mallopt(_M_MMAP_THRESHOLD, _MAPPED)
        mallopt(_M_TRIM_THRESHOLD, _TRIMMED)
