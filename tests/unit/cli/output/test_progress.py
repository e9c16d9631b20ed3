"""The progress bar, and its absence."""

import io

import pytest
from rich.console import Console
from rich.progress import Progress as RichProgress

from cli.output import progress


def test_without_a_terminal_nothing_is_drawn(capsys: pytest.CaptureFixture[str]) -> None:
    """As under cron."""
    with progress.shown(quiet=False) as shown:
        assert not isinstance(shown, progress.BarProgress)
    assert capsys.readouterr() == ("", "")


def test_quiet_draws_nothing_on_a_terminal_either(monkeypatch: pytest.MonkeyPatch) -> None:
    """That is what -q is for."""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    with progress.shown(quiet=True) as shown:
        assert not isinstance(shown, progress.BarProgress)


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


@pytest.mark.parametrize("width", [40, 60, 80, 200])
@pytest.mark.parametrize("expected", [0, 5 * 2**40])
def test_it_stays_on_one_line(width: int, expected: int) -> None:
    """A narrow terminal gets no bar: a line that wraps could not be drawn over."""
    console = Console(file=io.StringIO(), width=width, height=24, force_terminal=True)
    bar = progress._bar(console)
    shown = progress.BarProgress(bar)
    shown.stage("reading")
    shown.expect(files=0, size=expected)
    shown.advance(files=1, size=2**30)
    (task,) = bar.tasks
    task.fields["amount"] = "1.0 GiB of 5.0 TiB, 100.0 MiB/s"
    with console.capture() as captured:
        console.print(bar.get_renderable())
    assert captured.get().count("\n") == 1


def test_amounts_are_in_the_units_of_all_other_output() -> None:
    """And one file is not "1 files"."""
    bar = progress._bar(Console(file=io.StringIO()))
    shown = progress.BarProgress(bar)
    shown.expect(files=1, size=3 * 2**20)
    shown.advance(files=1, size=2**20)
    shown.stage("reading")
    (task,) = bar.tasks
    assert task.description == "reading (1 file)"
    assert task.fields["amount"].startswith("1.0 MiB of 3.0 MiB, ")
    assert task.fields["amount"].endswith("iB/s")


def test_how_far_a_run_is_can_be_told_without_a_bar() -> None:
    """A signal may ask at any time; a proof counts anew what was restored."""
    counted = progress.Counted()
    assert counted.state() == "starting"
    counted.stage("restoring")
    counted.expect(files=10, size=1000)
    counted.advance(files=4, size=400)
    assert counted.state() == "restoring, 4 of 10 files done, 600 B left"
    counted.stage("proving")
    counted.expect(files=10, size=1000)
    assert counted.state() == "proving, 0 of 10 files done, 1000 B left"
    counted.advance(size=2000)
    assert counted.state().endswith("0 B left")


def test_a_word_is_said_of_what_is_stopped(capfd: pytest.CaptureFixture[str]) -> None:
    """With what is being done, and without."""
    with progress.shown(quiet=True) as shown:
        shown.stage("restoring")
        progress.say_stopping("interrupted")
    progress.say_stopping("interrupted")
    assert capfd.readouterr().err == "\nvault: interrupted while restoring\n"
