"""For pytest, beside coverage: which test runs now, how each ended and how long it took."""

import json
import os
from collections import defaultdict
from collections.abc import Generator
from pathlib import Path
from typing import Any

import coverage
import pytest

_TIMES = Path(os.environ["MUTANTS_TIMES"])  # tests may change the environment
_seconds: dict[str, float] = defaultdict(float)
_failed: set[str] = set()


def _switch(context: str) -> None:
    running = coverage.Coverage.current()
    if running is not None:
        running.switch_context(context)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> None:
    """From here on it is this test that runs lines."""
    _switch(f"{item.nodeid} (alone)")


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(
    fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest
) -> Generator[None, Any, Any]:
    """What several tests share runs in one of them, and all of them stand on it."""
    if fixturedef.scope == "function":
        return (yield)
    test = os.environ["PYTEST_CURRENT_TEST"].rpartition(" ")[0]
    _switch(f"{test} (shared)")
    try:
        return (yield)
    finally:
        _switch(f"{test} (alone)")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Skipped is as good as failed: such a test can't tell anything."""
    _seconds[report.nodeid] += report.duration
    if report.outcome != "passed":
        _failed.add(report.nodeid)


def pytest_sessionfinish() -> None:
    """Leave it for the recording."""
    passed = {test: taken for test, taken in _seconds.items() if test not in _failed}
    _TIMES.write_text(json.dumps(passed))
