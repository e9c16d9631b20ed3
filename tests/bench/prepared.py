"""Commands that prepare what is measured; what fails is not to be had here."""

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path


class UnavailableError(Exception):
    """A data set, a program or a store can't be had here; the message is the reason."""


def run(
    command: Sequence[str], *, cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> str:
    """Run a command and give what it printed.

    Raises: UnavailableError: it failed, with the first line that it said.
    """
    pipe, nothing = subprocess.PIPE, subprocess.DEVNULL
    try:
        process = subprocess.Popen(
            command, cwd=cwd, env=env, stdin=nothing, stdout=pipe, stderr=pipe
        )
    except OSError as error:
        raise UnavailableError(f"{command[0]}: {error.strerror}") from error
    try:
        out, errors = process.communicate()
    except BaseException:
        process.terminate()  # not killed: it ends what it began
        process.communicate()
        raise
    if process.returncode:
        words = errors.decode(errors="replace").strip() or f"exit {process.returncode}"
        raise UnavailableError(f"{Path(command[0]).name}: {words.splitlines()[0]}")
    return out.decode(errors="replace").strip()
