"""What tests of several rooms share."""

import os
from collections.abc import Callable

import pytest


@pytest.fixture
def as_nobody() -> Callable[[Callable[[], None]], None]:
    """Runs a function as a plain user in a child process; fails if it raises."""

    def run(call: Callable[[], None]) -> None:
        child = os.fork()
        if child == 0:
            code = 1
            try:
                os.setgroups([])
                os.setgid(65534)
                os.setuid(65534)
                call()
                code = 0
            except BaseException:  # noqa: BLE001 - the child ends here, whatever it is
                import traceback

                traceback.print_exc()
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

    return run
