"""Which tests run which lines: every file of tests run once under coverage, and kept.

A file of tests is recorded again when it changed. What the others ran was found with the modules
as they then were: those are kept beside the recording, and line numbers carried over.
"""

import difflib
import functools
import hashlib
import json
import re
import shutil
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import coverage

from tests.mutants.workshop import Workshop

_CONTEXT: Final = re.compile(r"([^|]*) \((\w+)\)")
_CONFIG: Final = """\
[run]
source = {tree}/vault
data_file = {data}
parallel = true
disable_warnings =
    no-data-collected, module-not-measured, module-not-imported, already-imported, couldnt-parse
context = ${{PYTEST_CURRENT_TEST-}}
"""
_FIRST: Final = ("tests/unit/", "tests/vectors/")  # cheap, and tell most
_NOT_HERE: Final = ("tests/s3/", "tests/bench/", "tests/mutants/")


class Recording:
    """Of the tests in one workshop's tree."""

    def __init__(self, directory: Path, workshop: Workshop) -> None:
        self._directory = directory
        self._tree = workshop.tree
        self._pytest = workshop.pytest
        names = (
            p.relative_to(self._tree).as_posix() for p in self._tree.rglob("tests/**/test_*.py")
        )
        here = (name for name in names if not name.startswith(_NOT_HERE))
        self._files = sorted(here, key=lambda name: (not name.startswith(_FIRST), name))
        self._seconds: dict[str, dict[str, float]] = {}

    def update(self, say: Callable[[str], None], *, limit: int = sys.maxsize) -> None:
        """Record what is missing, and what was another file then; at most so many files."""
        for number, name in enumerate(self._files, 1):
            place = self._place(name)
            if not (place / "times").exists():
                if not limit:
                    continue
                limit -= 1
                self._record(name, place)
                say(f"recorded {name} ({number} of {len(self._files)})")
            self._seconds[name] = json.loads((place / "times").read_text())

    def seconds(self, test: str) -> float | None:
        """How long it takes; None: it does not pass, or is not here."""
        return self._seconds.get(test.partition("::")[0], {}).get(test)

    def who_runs(self, module: str, first: int, last: int) -> set[str]:
        """The tests that run any of these lines of a module, as it is in the tree now."""
        lines = self._lines(module)
        return set().union(*(tests for line, tests in lines.items() if first <= line <= last))

    @functools.cache  # noqa: B019 - one recording lives as long as the program
    def _lines(self, module: str) -> dict[int, set[str]]:
        found: dict[int, set[str]] = defaultdict(set)
        for name in self._seconds:
            place = self._place(name)
            if (place / "tree" / module).exists():
                then = (place / "tree" / module).read_text()
                carried = _carried(then, (self._tree / module).read_text())
                data = coverage.CoverageData(str(place / "coverage"))
                data.read()
                for line, contexts in data.contexts_by_lineno(str(self._tree / module)).items():
                    if line in carried:
                        found[carried[line]].update(self._tests(name, contexts))
        return found

    def _tests(self, name: str, contexts: Sequence[str]) -> Iterator[str]:
        for context in contexts:
            if match := _CONTEXT.search(context):
                yield match[1]
                yield from self._seconds[name] if match[2] == "shared" else ()

    def _place(self, name: str) -> Path:
        digest = hashlib.sha256((self._tree / name).read_bytes()).hexdigest()[:16]
        return self._directory / name / digest

    def _record(self, name: str, place: Path) -> None:
        shutil.rmtree(place.parent, ignore_errors=True)
        place.mkdir(parents=True)
        config = place / "config"
        config.write_text(_CONFIG.format(tree=self._tree, data=place / "coverage"))
        environment = {
            "COVERAGE_PROCESS_START": str(config),
            "MUTANTS_TIMES": str(place / "new"),
        }
        _, output = self._pytest([name], "-p", "tests.mutants.plugin", env=environment)
        (place / "output").write_text(output)
        joined = coverage.Coverage(config_file=str(config), data_suffix=False)
        joined.combine([str(place)])
        joined.save()
        shutil.copytree(self._tree / "vault", place / "tree" / "vault")
        (place / "new").rename(place / "times")


@functools.cache  # most recordings saw the same module
def _carried(then: str, now: str) -> dict[int, int]:
    """Numbers of the lines then, and now where they still are."""
    old, new = then.split("\n"), now.split("\n")
    blocks = difflib.SequenceMatcher(None, old, new, autojunk=False).get_matching_blocks()
    return {a + i + 1: b + i + 1 for a, b, size in blocks for i in range(size)}
