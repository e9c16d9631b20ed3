"""Functions that run in a process of their own: as another user, or until it is killed."""

import os
import sys
import traceback
from collections.abc import Callable

import pytest

KILLED = 9  # the exit code of a child that ends itself where a test wants it to be killed
NOBODY = 65534  # uid and gid

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def run_in_child(call: Callable[[], object]) -> int:
    """Exit code of a child that calls it: 0, or 1 if it raises, which is shown on stderr."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            call()
            code = 0
        except BaseException:  # noqa: BLE001 - the child ends here, whatever it is
            traceback.print_exc(file=sys.__stderr__)
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def is_killed(call: Callable[[], object]) -> bool:
    """Whether a child that calls it is killed on the way; fails if it ends by an exception."""
    code = run_in_child(call)
    assert code in {0, KILLED}
    return code == KILLED


def become_nobody() -> None:
    """Go on as a plain user; one who is no root has only himself."""
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)


def as_nobody(call: Callable[[], object]) -> None:
    """Call it as a plain user in a child; fails if it raises."""

    def call_as_nobody() -> None:
        become_nobody()
        call()

    assert run_in_child(call_as_nobody) == 0
