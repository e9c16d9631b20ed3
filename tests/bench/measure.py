"""Run one command and say what it took: wall, CPU and anonymous memory of all its processes."""

import dataclasses
import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

INTERVAL = 0.02  # seconds between two looks at the memory


class CommandError(Exception):
    """A measured command failed; the message holds its last words."""


@dataclasses.dataclass(frozen=True, slots=True)
class Command:
    """What is run: arguments, and the file that is its standard input."""

    arguments: tuple[str, ...]
    stdin: Path | None = None
    good: tuple[int, ...] = (0,)  # exit codes that mean success


@dataclasses.dataclass(frozen=True, slots=True)
class Cost:
    """What a command took."""

    wall: float  # seconds
    cpu: float  # seconds, user and system, of all processes
    memory: float  # MB, peak of the anonymous memory of all processes; what they share counts once


def measure(command: Command, env: Mapping[str, str]) -> Cost:
    """Run a command to its end.

    Raises: CommandError.
    """
    with (
        tempfile.TemporaryFile() as errors,
        Path(command.stdin or os.devnull).open("rb") as source,
    ):
        started = time.monotonic()
        process = subprocess.Popen(
            command.arguments, env=env, stdin=source, stdout=subprocess.DEVNULL, stderr=errors
        )
        peak = [0]
        sampler = threading.Thread(target=_watch, args=(process.pid, peak), daemon=True)
        sampler.start()
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:  # interrupted: leave nothing running
            process.kill()
            raise
        wall = time.monotonic() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        sampler.join()
        if process.returncode not in command.good:
            errors.seek(0)
            words = errors.read().decode(errors="replace").strip()[-2000:]
            raise CommandError(f"{' '.join(command.arguments)}: exit {process.returncode}\n{words}")
    return Cost(wall, usage.ru_utime + usage.ru_stime, peak[0] / 1000)


def _watch(root: int, peak: list[int]) -> None:
    while (total := _anonymous(list(_family(root)))) > 0:
        peak[0] = max(peak[0], total)
        time.sleep(INTERVAL)


def _family(pid: int) -> Iterator[int]:
    """A process and all that descend from it."""
    yield pid
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        children = [
            int(child) for task in tasks for child in (task / "children").read_text().split()
        ]
    except OSError:
        return  # it just ended
    for child in children:
        yield from _family(child)


def _anonymous(processes: list[int]) -> int:
    """Kilobytes of anonymous memory that are resident; 0 when all ended."""
    if len(processes) == 1:
        return _field(processes[0], "status", "RssAnon:")
    return sum(_field(each, "smaps_rollup", "Pss_Anon:") for each in processes)


def _field(process: int, file: str, name: str) -> int:
    """A number from a file about a process; 0 when that ended."""
    try:
        text = Path(f"/proc/{process}/{file}").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in text.splitlines() if line.startswith(name)), 0)
