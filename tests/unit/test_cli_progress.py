"""The progress bar, and its absence."""

import io

import pytest
from rich.console import Console
from rich.progress import Progress as RichProgress

from cli import progress
from vault.progress import NO_PROGRESS


def test_without_a_terminal_nothing_is_drawn(capsys: pytest.CaptureFixture[str]) -> None:
    """As under cron."""
    with progress.shown(quiet=False) as shown:
        assert shown is NO_PROGRESS
    assert capsys.readouterr() == ("", "")


def test_quiet_draws_nothing_on_a_terminal_either(monkeypatch: pytest.MonkeyPatch) -> None:
    """That is what -q is for."""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    with progress.shown(quiet=True) as shown:
        assert shown is NO_PROGRESS


def test_on_a_terminal_there_is_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes what operations tell."""
    monkeypatch.setattr("sys.stderr", io.StringIO())
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    with progress.shown(quiet=False) as shown:
        assert isinstance(shown, progress.BarProgress)
        shown.stage("reading")
        shown.advance(files=1, size=10)


def test_the_bar_counts_what_it_was_told() -> None:
    """Bytes against what is expected; nothing is expected where nothing is known."""
    bar = RichProgress(console=Console(file=io.StringIO()))
    shown = progress.BarProgress(bar)
    shown.advance(files=2, size=30)
    shown.stage("reading")
    (task,) = bar.tasks
    assert (task.completed, task.total) == (30, None)
    assert task.description == "reading (2 files)"
    shown.expect(files=4, size=60)
    assert task.percentage == 50
