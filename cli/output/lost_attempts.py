"""How often others appended first, while a command insists."""

from collections.abc import Callable

from cli.output import render


class LostAttempts:
    """Counts the attempts that others won, and reports the count at 1, 10, 100 and so on.

    Args:
        warn: Receives the reports.
    """

    def __init__(self, warn: Callable[[str], None]) -> None:
        self._warn = warn
        self.count = 0

    def __call__(self, count: int) -> None:
        """After so many attempts that others won."""
        self.count = count
        if str(count).strip("0") == "1":
            self._warn(f"others appended first, {render.plural(count, 'time')} so far; going on")

    @property
    def text(self) -> str:
        """The count for people."""
        return f"{render.plural(self.count, 'attempt')}: others appended first"
