"""How long operations report their progress; the command line draws it."""

from typing import Protocol


class Progress(Protocol):
    """Receives advances; called from one thread, often, so implementations are cheap."""

    def expect(self, *, files: int, size: int) -> None:
        """Say how much is to be done, as far as known; may be called again."""

    def advance(self, *, files: int = 0, size: int = 0) -> None:
        """Say what was done since the last call; ``size`` in bytes of content."""

    def stage(self, name: str) -> None:
        """Say what is being done now, in a word or two."""


class _NoProgress:
    """Discards what is reported."""

    def expect(self, *, files: int, size: int) -> None:
        pass

    def advance(self, *, files: int = 0, size: int = 0) -> None:
        pass

    def stage(self, name: str) -> None:
        pass


NO_PROGRESS: Progress = _NoProgress()
