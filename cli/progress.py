"""A progress bar on a terminal, and silence elsewhere."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from vault.progress import NO_PROGRESS, Progress

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress

_REFRESH: Final = 0.1  # seconds between two updates of the bar


@contextmanager
def shown(*, quiet: bool) -> Iterator[Progress]:
    """A progress that draws on stderr where that is a terminal; else one that tells nobody."""
    if quiet or not sys.stderr.isatty():
        yield NO_PROGRESS
        return
    # Only here: rich costs 70 ms, and nothing else needs it.
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import (  # noqa: PLC0415
        BarColumn,
        DownloadColumn,
        TaskProgressColumn,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )
    from rich.progress import Progress as RichProgress  # noqa: PLC0415

    bar = RichProgress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
        redirect_stdout=False,
    )
    with bar:
        yield BarProgress(bar)


class BarProgress:
    """See `vault.progress.Progress`; updates the bar ten times a second at most."""

    def __init__(self, bar: "RichProgress") -> None:
        self._bar = bar
        self._task = bar.add_task("starting", total=None)
        self._files = 0
        self._size = 0
        self._drawn = 0.0
        self._stage = "starting"

    def expect(self, *, files: int, size: int) -> None:
        """Bytes decide the percentage; without bytes there is none."""
        del files
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
        files = f" ({self._files:,} files)" if self._files else ""
        self._bar.update(self._task, completed=self._size, description=self._stage + files)
