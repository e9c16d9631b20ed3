"""A plugin of pytest: what must not be skipped, fails the run if it was (``-p tests.required``).

Some tests are skipped where the machine lacks what they need. Where a claim about safety rests on
one, `tests/required.txt` lists it, and ``.ci/run`` names the lane whose tests must have run.
"""

from pathlib import Path

import pytest

LIST = Path(__file__).with_name("required.txt")


def read_list(path: Path, *lanes: str) -> list[str]:
    """Tests of these lanes: lines ``LANE FILE`` or ``LANE FILE::TEST``, ``#`` begins a comment."""
    lines = (line.partition("#")[0].split() for line in path.read_text().splitlines())
    return [test for where, test in filter(None, lines) if where in lanes]


def is_of(nodeid: str, test: str) -> bool:
    """Whether a test that ran is the one in the list, one of its cases, or in that file."""
    return nodeid == test or nodeid.startswith((f"{test}::", f"{test}["))


def faults(wanted: list[str], ran: set[str], skipped: dict[str, str]) -> list[str]:
    """What of the list did not run, and why."""
    found = []
    for test in wanted:
        reasons = {why for nodeid, why in skipped.items() if is_of(nodeid, test)}
        if reasons:
            found.append(f"{test}: skipped: {'; '.join(sorted(reasons))}")
        elif not any(is_of(nodeid, test) for nodeid in ran):
            found.append(f"{test}: did not run")
    return found


class Required:
    """Sees what came of each test; on the controller, where workers run them."""

    def __init__(self, wanted: list[str]) -> None:
        self._wanted = wanted
        self._ran: set[str] = set()
        self._skipped: dict[str, str] = {}
        self._faults: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Of a test, or of its setting up, where most skips are."""
        if report.skipped:
            said = report.longrepr
            self._skipped[report.nodeid] = str(said[2] if isinstance(said, tuple) else said)
        elif report.when == "call":
            self._ran.add(report.nodeid)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Red, whatever else passed."""
        self._faults = faults(self._wanted, self._ran, self._skipped)
        if self._faults and session.exitstatus in {0, pytest.ExitCode.NO_TESTS_COLLECTED}:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Which, and why."""
        if self._faults:
            terminalreporter.section("required tests that did not run (tests/required.txt)")
            for fault in self._faults:
                terminalreporter.line(fault)


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--lane`` names a part of the list, and may be repeated; ``--required`` another list."""
    parser.addoption(
        "--lane", action="append", default=[], help="whose tests in the list must not be skipped"
    )
    parser.addoption("--required", type=Path, default=LIST, help="the list")


def pytest_configure(config: pytest.Config) -> None:
    """On the controller only: a worker sees some of the tests."""
    lanes = config.getoption("--lane")
    if lanes and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Required(read_list(config.getoption("--required"), *lanes)))
