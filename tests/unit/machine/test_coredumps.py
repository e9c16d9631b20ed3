"""What a process holds in memory stays with it."""

import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from vault.machine.coredumps import forbid_dumps
from vault.machine.libc import libc

PR_SET_DUMPABLE = 4
NOBODY = 65534


def in_child(do: Callable[[], int]) -> int:
    """Fork a process that does something and ends with what it returns; gives its number."""
    child = os.fork()
    if child == 0:
        code = 99
        try:
            code = do()
        finally:
            os._exit(code)
    return child


def become_nobody() -> None:
    """A plain user, whose processes are open to each other as after an exec."""
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)
    libc.prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
@pytest.mark.parametrize("guarded", [True, False])
def test_no_process_of_the_user_reads_the_keys(*, guarded: bool) -> None:
    """The memory of a guarded process is closed to its own user. The control: else it is open."""
    ready, is_ready = os.pipe()
    end, ending = os.pipe()

    def victim() -> int:
        os.close(ending)
        become_nobody()
        if guarded:
            forbid_dumps()
        os.write(is_ready, b"x")
        os.read(end, 1)  # until the test closes it
        return int(guarded and resource.getrlimit(resource.RLIMIT_CORE)[0] != 0)

    def thief() -> int:
        become_nobody()
        try:
            Path(f"/proc/{watched}/mem").open("rb").close()
        except PermissionError:
            return 13
        return 0

    watched = in_child(victim)
    os.read(ready, 1)
    _, found = os.waitpid(in_child(thief), 0)
    os.close(ending)
    _, ended = os.waitpid(watched, 0)
    for descriptor in (ready, is_ready, end):
        os.close(descriptor)
    assert os.waitstatus_to_exitcode(found) == (13 if guarded else 0)
    assert os.waitstatus_to_exitcode(ended) == 0


def test_programs_that_are_started_may_ask_for_cores_again() -> None:
    """A database's own program is none of the vault's secrets: only the soft limit is 0."""
    code = (
        "import resource as r; r.setrlimit(r.RLIMIT_CORE, (4096, 4096));"
        "from vault.machine.coredumps import forbid_dumps; forbid_dumps();"
        "print(*r.getrlimit(r.RLIMIT_CORE))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["0", "4096"]
