"""A progress bar on a terminal, and silence elsewhere."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from cli import render
from vault.progress import NO_PROGRESS, Progress

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as RichProgress

_REFRESH: Final = 0.1  # seconds between two updates of the bar
_ROOM_FOR_BAR: Final = 72  # columns; a narrower terminal gets one line without a bar


@contextmanager
def shown(*, quiet: bool) -> Iterator[Progress]:
    """A progress that draws on stderr where that is a terminal; else one that tells nobody."""
    if quiet or not sys.stderr.isatty():
        yield NO_PROGRESS
        return
    # Only here: rich costs 70 ms, and nothing else needs it.
    from rich.console import Console  # noqa: PLC0415

    bar = _bar(Console(stderr=True))
    with bar:
        yield BarProgress(bar)


def _bar(console: "Console") -> "RichProgress":
    """What fits on one line: a wrapped one could not be drawn over."""
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


class BarProgress:
    """See `vault.progress.Progress`; updates the bar ten times a second at most."""

    def __init__(self, bar: "RichProgress") -> None:
        self._bar = bar
        self._task = bar.add_task("starting", total=None, amount="")
        self._files = 0
        self._size = 0
        self._began = self._drawn = time.monotonic()
        self._expected = 0
        self._stage = "starting"

    def expect(self, *, files: int, size: int) -> None:
        """Bytes decide the percentage; without bytes there is none."""
        del files
        self._expected = size
        self._bar.update(self._task, total=size or None)

    def advance(self, *, files: int = 0, size: int = 0) -> None:
        """Count; draw when the last drawing is old enough."""
        self._files += files
        self._size += size
        now = time.monotonic()
        if now - self._drawn >= _REFRESH:
            self._drawn = now
            self._draw()

    def stage(self, name: str) -> None:
        """Name what is going on, at once."""
        self._stage = name
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
