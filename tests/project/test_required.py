"""A test that must not be skipped fails the run if it was."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TESTS = """
import pytest

def test_runs(): pass

@pytest.mark.parametrize("case", [1, 2])
def test_some_skip(case):
    if case == 2:
        pytest.skip("no such thing here")

@pytest.mark.skipif(True, reason="needs root")
def test_skips(): pass
"""


def run(place: Path, required: str, *arguments: str) -> tuple[int, str]:
    """Run pytest on those tests, with that list."""
    (place / "test_it.py").write_text(TESTS)
    (place / "list").write_text(required)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-p", "tests.required", "--lane", "main"),
            *("--required", str(place / "list"), "--rootdir", str(place), "-p", "no:cacheprovider"),
            *(*arguments, "-c", "/dev/null", str(place / "test_it.py")),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout


@pytest.mark.parametrize("arguments", [("-p", "no:xdist"), ("-n", "2")], ids=["alone", "workers"])
def test_a_required_test_that_ran_is_fine(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    """The control: the others are skipped, and what is required elsewhere is of no matter."""
    code, out = run(tmp_path, "main test_it.py::test_runs\nceph test_it.py::test_skips", *arguments)
    assert (code, "required tests" in out) == (0, False), out


@pytest.mark.parametrize("arguments", [("-p", "no:xdist"), ("-n", "2")], ids=["alone", "workers"])
def test_a_required_test_that_did_not_run_fails_the_run(
    tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    """Skipped as a whole or in one case, or not there; it is said which and why."""
    said = {
        "test_it.py::test_skips": "skipped: Skipped: needs root",
        "test_it.py::test_some_skip": "skipped: Skipped: no such thing here",
        "test_it.py": "skipped: Skipped: needs root; Skipped: no such thing here",
        "test_it.py::test_gone": "did not run",
        "test_it.py::test_run": "did not run",
    }
    required = "\n".join(f"main {test}  # why" for test in said)
    code, out = run(tmp_path, required, *arguments)
    assert code == 1, out
    assert [line for test, why in said.items() if (line := f"{test}: {why}") not in out] == []


def test_what_is_listed_exists() -> None:
    """Each line is a lane that `.ci/run` runs, and a file or a test of the project."""
    lanes = set(re.findall(r"--lane (\w+)", (ROOT / ".ci/run").read_text()))
    lines = (ROOT / "tests/required.txt").read_text().splitlines()
    rows = [line.partition("#")[0].split() for line in lines]
    for lane, test in filter(None, rows):
        file, _, name = test.partition("::")
        assert lane in lanes, lane
        assert (ROOT / file).is_file(), file
        assert not name or f"\ndef {name}(" in (ROOT / file).read_text(), test
