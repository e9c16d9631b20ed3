"""The runner that breaks the vault: what it changes, and what it draws."""

import ast
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.mutants.mutations import mutants_of
from tests.mutants.recording import Recording
from tests.mutants.run import Chosen, failing, judge, verdict
from tests.mutants.sample import draw, modules, syncs
from tests.mutants.workshop import Workshop

CHECKOUT = Path(__file__).parents[2]
SOURCE = b'''\
def keep(path: str, *, sure: bool = True) -> None:
    """Of a file."""
    if path and not sure:
        raise ValueError(f"not sure of {path}, {1 + 1} times")
    for part in path:
        if part < "b":
            os.fsync(1)
    return
'''


def test_every_guard_of_a_function_is_changed() -> None:
    """Each kind of change where it can be made; messages stay as they are."""
    mutants = mutants_of("vault/some.py", SOURCE)
    assert {(m.kind, m.line, m.new) for m in mutants} >= {
        ("flip-bool", 1, "False"),
        ("return-early", 3, "return\n    "),
        ("and-or", 3, "(path or not sure)"),
        ("drop-operand", 3, "(path)"),
        ("remove-not", 3, "(sure)"),
        ("negate-if", 3, "(not (path and (not sure)))"),
        ("remove-raise", 4, "pass"),
        ("boundary", 6, "(part <= 'b')"),
        ("remove-call", 7, "pass"),
        ("const", 7, "(2)"),
    }
    for mutant in mutants:
        assert mutant.where == "keep"
        assert not (mutant.line == 4 and mutant.kind == "const")
        assert ast.parse(mutant.apply(SOURCE)) is not None
    assert [m.line for m in mutants if m.syncs] == [7]
    decorated = b"@dataclass(frozen=True)\n" + SOURCE
    assert [m.key for m in mutants_of("x.py", decorated)] == [m.key for m in mutants]


def test_a_change_is_known_again_where_it_moved_to() -> None:
    """What is known of it, as that it makes no difference, outlives edits around it."""
    keys = [m.key for m in mutants_of("vault/some.py", SOURCE)]
    assert [m.key for m in mutants_of("vault/other.py", b"import os\n\n" + SOURCE)] == keys


def test_the_test_that_failed_is_known_by_its_whole_name() -> None:
    """Spaces and dashes are part of it; what pytest says of the failure is not."""
    tests = ["tests/a.py::test_b", "tests/a.py::test_b[a - b]", "tests/a.py::test_b[c d]"]
    output = "1 failed\nFAILED tests/a.py::test_b[a - b] - AssertionError: x - y\n"
    assert failing(tests, output) == [tests[1]]
    assert failing(tests, "FAILED tests/a.py::test_b[c d]\n") == [tests[2]]
    assert failing(tests, "3 passed\n") == []


def test_what_pytest_ends_with_is_a_verdict_only_where_it_is_one() -> None:
    """A module that can't be imported is noticed; a test that is not there says nothing."""
    assert [verdict(status, "") for status in (0, 1, None)] == ["survived", "killed", "timed out"]
    assert verdict(4, "ERROR: found no collectors for tests/a.py::test_b") == "killed"
    assert verdict(4, "ERROR: not found: tests/a.py::test_b") == "not tried"


@pytest.mark.parametrize(
    ("ends", "told"),
    [
        ((0,), "survived"),
        ((1,), "killed"),
        ((None, 0, 0), "survived"),
        ((None, 0, 1), "killed"),
        ((None, 0, None), "timed out"),
        ((None, None), "not tried"),
        ((None, 1), "not tried"),
    ],
)
def test_a_busy_machine_is_no_hang(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ends: Sequence[int | None], told: str
) -> None:
    """The same tests with nothing broken tell the two apart; what can't be told is not told."""
    workshop = Workshop(tmp_path)
    for top in (workshop.whole, workshop.tree):
        (top / "vault").mkdir(parents=True)
        (top / "vault/some.py").write_bytes(SOURCE)
    mutant = mutants_of("vault/some.py", SOURCE)[0]
    left, seen = list(ends), []

    def pytest_(*_: object, **__: object) -> tuple[int | None, str]:
        seen.append((workshop.tree / "vault/some.py").read_bytes() != SOURCE)
        return left.pop(0), ""

    monkeypatch.setattr(workshop, "pytest", pytest_)
    chosen = Chosen(["tests/unit/test_some.py::test_a"], [], 0, reached=True)
    assert judge(mutant, workshop, chosen, 60)["verdict"] == told
    assert (left, seen) == ([], [True, False, True][: len(ends)])
    assert (workshop.tree / "vault/some.py").read_bytes() == SOURCE


def test_the_sample_is_the_seeds() -> None:
    """The same again for the same seed, over all modules; others for another one."""
    lines = (CHECKOUT / "tests/mutants/modules.txt").read_text().splitlines()
    names = modules(CHECKOUT, [line for line in lines if not line.startswith("#")])
    drawn = draw(CHECKOUT, names, seed="1", count=200)
    assert len(drawn) == 200
    assert draw(CHECKOUT, names, seed="1", count=200) == drawn
    assert draw(CHECKOUT, names, seed="2", count=200) != drawn
    assert {m.file for m in drawn} >= {
        f"vault/verify/{name}.py" for name in ("with_key", "without_key", "verify")
    }


def test_a_line_of_the_list_that_names_nothing_is_refused(tmp_path: Path) -> None:
    """A module that was moved must not fall out of the sample unseen."""
    (tmp_path / "there.py").touch()
    assert modules(tmp_path, ["*.py"]) == ["there.py"]
    with pytest.raises(LookupError):
        modules(tmp_path, ["*.py", "gone/*.py"])


def test_every_sync_is_among_those_taken_away() -> None:
    """As many as the word is called in the sources, in whatever module."""
    called = {
        (path.relative_to(CHECKOUT).as_posix(), number)
        for path in (CHECKOUT / "vault").rglob("*.py")
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if line.strip().startswith(("os.fsync(", "self._fs.fsync(", "fs.fsync(", "fs.syncfs("))
    }
    assert called
    assert called <= {(m.file, m.line) for m in syncs(CHECKOUT)}


def test_a_line_that_no_test_runs_meets_those_of_its_module(tmp_path: Path) -> None:
    """The whole of a module is asked for at once, however long it might be."""
    recording = Recording(tmp_path, Workshop(tmp_path))
    lines = {1: {"tests/unit/test_some.py::test_a"}, 900: {"tests/unit/test_some.py::test_b"}}
    recording._lines = lambda _: lines  # type: ignore[assignment]
    assert recording.who_runs("vault/some.py", 2, 899) == set()
    assert recording.who_runs("vault/some.py", 1, sys.maxsize) == lines[1] | lines[900]
