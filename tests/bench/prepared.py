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
    try:
        done = subprocess.run(
            command, cwd=cwd, env=env, stdin=subprocess.DEVNULL, capture_output=True, check=False
        )
    except OSError as error:
        raise UnavailableError(f"{command[0]}: {error.strerror}") from error
    if done.returncode:
        words = done.stderr.decode(errors="replace").strip() or f"exit {done.returncode}"
        raise UnavailableError(f"{Path(command[0]).name}: {words.splitlines()[0]}")
    return done.stdout.decode(errors="replace").strip()
