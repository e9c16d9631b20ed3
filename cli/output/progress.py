"""A progress bar on a terminal, and silence elsewhere; how far it is, when it is to stop."""

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final, TypeVar

from cli.output import render
from vault.machine.processes import declare_quiet
from vault.progress import Progress

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as RichProgress

_ProgressT = TypeVar("_ProgressT", bound="Counted")

_REFRESH: Final = 0.1  # seconds between two updates of the bar
_ROOM_FOR_BAR: Final = 72  # columns; a narrower terminal gets one line without a bar


@contextmanager
def shown(*, quiet: bool) -> Iterator[Progress]:
    """A progress that draws on stderr where that is a terminal, and elsewhere only counts."""
    if quiet or not sys.stderr.isatty():
        with _known(Counted()) as counted:
            yield counted
        return
    # Only here: rich costs 70 ms, and nothing else needs it.
    from rich.console import Console  # noqa: PLC0415

    bar = _bar(Console(stderr=True))
    before = set(threading.enumerate())
    with bar, _known(BarProgress(bar)) as drawn:
        for thread in set(threading.enumerate()) - before:
            declare_quiet(thread)  # it draws, and no helper does
        yield drawn


_running: "list[Counted]" = []  # the phases that are running; read when a signal arrives


@contextmanager
def _known(progress: "_ProgressT") -> "Iterator[_ProgressT]":
    _running.append(progress)
    try:
        yield progress
    finally:
        _running.remove(progress)


def say_stopping(why: str) -> None:
    """Print at once which phase is stopped and how much of it is left; safe in a signal handler."""
    if not _running:
        return  # nothing long: the error that follows says it
    text = f"\nvault: {why} while {_running[-1].state()}\n"
    with suppress(OSError):  # the terminal may be gone
        os.write(2, text.encode("utf-8", "replace"))


def _bar(console: "Console") -> "RichProgress":
    """Cut text to one line: a line that wraps can't be overwritten."""
    from rich.progress import BarColumn, TextColumn, TimeRemainingColumn  # noqa: PLC0415
    from rich.progress import Progress as RichProgress  # noqa: PLC0415

    wide = [BarColumn(), TimeRemainingColumn()] if console.width >= _ROOM_FOR_BAR else []
    return RichProgress(
        TextColumn("{task.description}"),
        *wide,
        TextColumn("{task.fields[amount]}"),
        console=console,
        transient=True,
        redirect_stdout=False,
    )


class Counted:
    """See `vault.progress.Progress`; counts, and can say how far it is."""

    def __init__(self) -> None:
        self._files = 0
        self._size = 0
        self._expected = 0
        self._expected_files = 0
        self._stage = "starting"

    def expect(self, *, files: int, size: int) -> None:
        """Begin to count anew: a proof goes through the same files as the restore before it."""
        self._files = self._size = 0
        self._expected_files, self._expected = files, size

    def advance(self, *, files: int = 0, size: int = 0) -> None:
        """Count."""
        self._files += files
        self._size += size

    def stage(self, name: str) -> None:
        """Name the phase that begins."""
        self._stage = name

    def state(self) -> str:
        """The phase, and how much of it is done and left."""
        if not self._expected_files and not self._expected:
            done = f", {render.plural(self._files, 'file')} done" if self._files else ""
            return f"{self._stage}{done}"
        left = max(self._expected - self._size, 0)
        return (
            f"{self._stage}, {self._files:,} of {render.plural(self._expected_files, 'file')} done,"
            f" {render.size(left)} left"
        )


class BarProgress(Counted):
    """See `vault.progress.Progress`; updates the bar ten times a second at most."""

    def __init__(self, bar: "RichProgress") -> None:
        super().__init__()
        self._bar = bar
        self._task = bar.add_task("starting", total=None, amount="")
        self._began = self._drawn = time.monotonic()

    def expect(self, *, files: int, size: int) -> None:
        """Bytes decide the percentage; without bytes there is none."""
        super().expect(files=files, size=size)
        self._began = time.monotonic()
        self._bar.update(self._task, total=size or None)

    def advance(self, *, files: int = 0, size: int = 0) -> None:
        """Count; draw when the last drawing is old enough."""
        super().advance(files=files, size=size)
        now = time.monotonic()
        if now - self._drawn >= _REFRESH:
            self._drawn = now
            self._draw()

    def stage(self, name: str) -> None:
        """Name the phase that begins, and print it at once."""
        super().stage(name)
        self._draw()

    def _draw(self) -> None:
        files = f" ({render.plural(self._files, 'file')})" if self._files else ""
        self._bar.update(
            self._task,
            completed=self._size,
            description=self._stage + files,
            amount=self._amount() if self._size else "",
        )

    def _amount(self) -> str:
        """How much, of how much if that is known, and how fast so far."""
        of = f" of {render.size(self._expected)}" if self._expected else ""
        seconds = max(time.monotonic() - self._began, _REFRESH)
        return f"{render.size(self._size)}{of}, {render.size(int(self._size / seconds))}/s"
