"""Break the vault in small ways, one at a time, and see whether a test notices.

    make mutants                               200 places; the day's date is the seed
    make mutants MUTANTS="--seed 7"            the same seed goes on where it was stopped
    make mutants MUTANTS="--seed 7 --again"    its survivors once more, with today's tests
    make mutants MUTANTS="--only 'vault/verify/*' --count 50"

Beside the sample, every call that makes something durable is taken away once. All happens in a
copy of the checkout, below VAULT_MUTANTS_CACHE, else vault-mutants below XDG_CACHE_HOME. Which
tests run which line is recorded first, and again only for files of tests that changed.
"""

import argparse
import difflib
import fcntl
import json
import os
import re
import sys
import time
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Final

from tests.mutants.mutations import Mutant
from tests.mutants.recording import Recording
from tests.mutants.sample import draw, modules, syncs
from tests.mutants.workshop import Workshop

HERE: Final = Path(__file__).resolve().parent
CHECKOUT: Final = HERE.parents[1]
BUDGET: Final = 30.0  # seconds of tests as recorded for one mutant; the cap is for what hangs
_USAGE: Final = 4  # of pytest: a test that it was given is not there
PATIENCE: Final = 5  # times what tests take, before it is said that they hang
STARTING: Final = 0.02  # seconds of a test beside what it measures itself

Result = dict[str, Any]


@dataclass(frozen=True)
class Chosen:
    """The tests that one mutant meets."""

    first: list[str]  # of one file: most mutants end here, and few files are loaded
    then: list[str]
    left: int  # more of them, for which there is no time
    reached: bool  # some test runs the line itself

    @property
    def tests(self) -> list[str]:
        """All of them, in the order in which they run."""
        return [*self.first, *self.then]


def choose(mutant: Mutant, recording: Recording) -> Chosen:
    """The cheapest tests that run the line: of one file, then of all, one of each before a second.

    Where none does (what runs at import, or never) those of the whole module.
    """
    running = recording.who_runs(mutant.file, mutant.line, mutant.last)
    every = running or recording.who_runs(mutant.file, 1, sys.maxsize)
    timed = {test: taken for test in every if (taken := recording.seconds(test)) is not None}
    of_file: Counter[str] = Counter()
    ranked = []
    for test in sorted(timed, key=lambda test: (timed[test], test)):
        file = test.partition("::")[0]
        ranked.append((of_file[file] > 0, timed[test], test))
        of_file[file] += 1
    nearest = max(
        sorted(of_file),
        key=lambda file: (file.startswith("tests/unit/"), of_file[file]),
        default="",
    )
    first = _within(BUDGET / 3, [turn for turn in ranked if turn[2].startswith(f"{nearest}::")])
    rest = [turn for turn in sorted(ranked) if turn[2] not in first]
    then = _within(BUDGET if running else BUDGET / 3, rest)
    return Chosen(first, then, len(timed) - len(first) - len(then), bool(running))


def _within(budget: float, ranked: Sequence[tuple[bool, float, str]]) -> list[str]:
    chosen: list[str] = []
    for _, taken, test in ranked:
        if (budget := budget - taken - STARTING) < 0 and chosen:
            break
        chosen.append(test)
    return chosen


def judge(mutant: Mutant, workshop: Workshop, chosen: Chosen, cap: float) -> Result:
    """Whether any of the tests fails on it.

    One that takes longer than the cap is tried again, with several times what the same tests take
    right then with nothing broken: a machine that is busy is not a change that hangs.
    """
    content = mutant.apply((workshop.whole / mutant.file).read_bytes())
    began = time.monotonic()
    with workshop.broken(mutant.file, content):
        status, output = _meet(workshop, chosen, cap)
    ended = verdict(status, output)
    if status is None:
        asked = time.monotonic()
        if _meet(workshop, chosen, PATIENCE * cap)[0] == 0:
            usual = time.monotonic() - asked
            with workshop.broken(mutant.file, content):
                status, output = _meet(workshop, chosen, PATIENCE * usual)
            ended = verdict(status, output)
        else:
            ended = "not tried"
    failed = failing(chosen.tests, output)
    return {
        "key": mutant.key,
        "verdict": ended if chosen.first else "not tried",
        "place": f"{mutant.file}:{mutant.line}",
        "where": mutant.where,
        "text": mutant.text,
        "kind": mutant.kind,
        "old": mutant.old,
        "new": mutant.new,
        "sync": mutant.syncs,
        "reached": chosen.reached,
        "tests": chosen.tests,
        "left": chosen.left,
        "by": failed[0] if failed else "",
        "output": "" if status in {0, 1} else output[-2_000:],
        "seconds": round(time.monotonic() - began, 1),
    }


def _meet(workshop: Workshop, chosen: Chosen, seconds: float) -> tuple[int | None, str]:
    """Run the tests until one fails, in so many seconds."""
    ends = time.monotonic() + seconds
    status: int | None = 0
    output = ""
    for tests in filter(None, (chosen.first, chosen.then)):
        if status == 0:
            status, output = workshop.pytest(tests, "-x", seconds=ends - time.monotonic())
    return status, output


def failing(tests: Sequence[str], output: str) -> list[str]:
    """Those that pytest's summary names; a test's name may hold spaces and dashes."""
    said = re.findall(r"^(?:FAILED|ERROR) (.+)", output, re.MULTILINE)
    lines = {f"{line} - " for line in said}
    return [test for test in tests if any(line.startswith(f"{test} - ") for line in lines)]


def verdict(status: int | None, output: str) -> str:
    """What pytest's exit status says; a module that can't be imported any more is noticed."""
    known = {None: "timed out", 0: "survived", 1: "killed", 2: "killed", 3: "killed"}
    broken = status == _USAGE and "ERROR: found no collectors for" in output
    return "killed" if broken else known.get(status, "not tried")


class Equivalents:
    """Changes that make no difference anyone could see, each with the reason."""

    def __init__(self, path: Path) -> None:
        self._known = tomllib.loads(path.read_text()).get("equivalent", [])

    def reason(self, mutant: Mutant) -> str | None:
        """Why it is one; None: it is not known as one."""
        for known in self._known:
            if (known["where"], known["line"], known["kind"], known["new"]) == (
                mutant.where,
                mutant.text,
                mutant.kind,
                mutant.new,
            ):
                return str(known["reason"])
        return None


def difference(result: Mapping[str, Any]) -> Iterator[str]:
    """The change, as lines that begin with - and +."""
    before, after = result["old"].split("\n"), result["new"].split("\n")
    if len(before) == 1 and result["old"] and result["old"] in result["text"]:
        before, after = [result["text"]], [result["text"].replace(result["old"], result["new"], 1)]
    return (line for line in difflib.ndiff(before, after) if line[:1] in "-+")


def show(result: Mapping[str, Any]) -> None:
    """One that no test noticed."""
    count = len(result["tests"])
    reached = "" if result["reached"] else "; no test is known to run this line"
    print(f"\n{result['place']} {result['where']} [{result['kind']}]")
    print(*(f"    {line}" for line in difference(result)), sep="\n")
    print(f"    {count} tests passed, {result['left']} left out{reached}")
    for test in result["tests"][:3]:
        print(f"      {test}")


def doubtful(results: Sequence[Result], workshop: Workshop) -> set[str]:
    """Tests that killed something, and fail with nothing broken too."""
    killers = sorted({result["by"] for result in results if result["by"]})
    if not killers:
        return set()
    status, output = workshop.pytest(killers)
    return set(failing(killers, output) if status in {0, 1} else killers)


def arguments() -> argparse.Namespace:
    """Those of the command line."""
    parser = argparse.ArgumentParser(prog="make mutants", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--seed", default=f"{datetime.now(UTC):%Y%m%d}")
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--cap", type=float, default=120, help="seconds, after which to doubt")
    parser.add_argument("--only", default="*", help="modules that match this")
    parser.add_argument("--again", action="store_true", help="only what survived, tests of now")
    parser.add_argument("--as-recorded", action="store_true", help="record nothing more")
    parser.add_argument("--record", action="store_true", help="only record who runs which line")
    return parser.parse_args()


def cache_directory() -> Path:
    """Where the copy, the recording and the results are kept."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(os.environ.get("VAULT_MUTANTS_CACHE") or f"{base}/vault-mutants").expanduser()


def prepare(workshop: Workshop, mark: Path, seed: str, *, fresh: bool) -> None:
    """The copy that this seed began with, or a new one."""
    if not fresh and mark.exists() and mark.read_text() == seed:
        workshop.mend()
    else:
        mark.unlink(missing_ok=True)
        workshop.renew(CHECKOUT)
        mark.write_text(seed)


def wanted(tree: Path, options: argparse.Namespace) -> list[Mutant]:
    """All that hurts durability, then the sample; each once."""
    lines = (HERE / "modules.txt").read_text().splitlines()
    names = modules(tree, [line for line in lines if line and not line.startswith("#")])
    names = [name for name in names if fnmatch(name, options.only)]
    every = [m for m in syncs(tree) if fnmatch(m.file, options.only)]
    every += draw(tree, names, seed=options.seed, count=options.count)
    return list({mutant.key: mutant for mutant in every}.values())


def main() -> int:
    """Go on with the sample to its end, and say what survived."""
    options = arguments()
    directory = cache_directory()
    directory.mkdir(parents=True, exist_ok=True)
    lock = (directory / "lock").open("w")
    fcntl.flock(lock, fcntl.LOCK_EX)
    results = directory / f"results-{options.seed}.jsonl"
    found: dict[str, Result] = {}
    if results.exists():
        found = {r["key"]: r for r in map(json.loads, results.read_text().splitlines())}
    workshop = Workshop(directory)
    fresh = options.again or options.record or not found
    prepare(workshop, directory / "tree-of", options.seed, fresh=fresh)
    recording = Recording(directory / "recorded", workshop)
    limit = 0 if options.as_recorded else sys.maxsize
    recording.update(lambda line: print(line, flush=True), limit=limit)
    if options.record:
        return 0
    if options.again:
        found = {key: r for key, r in found.items() if r["verdict"] == "killed"}
    equivalents = Equivalents(HERE / "equivalent.toml")
    mutants = wanted(workshop.whole, options)
    for number, mutant in enumerate(mutants, 1):
        if mutant.key not in found and equivalents.reason(mutant) is None:
            result = judge(mutant, workshop, choose(mutant, recording), options.cap)
            found[mutant.key] = result
            with results.open("a") as file:
                file.write(json.dumps(result) + "\n")
            print(f"{number}/{len(mutants)} {result['verdict']} {result['place']}", flush=True)
    return report(mutants, found, equivalents, workshop, results.with_suffix(".json"))


def report(
    mutants: Sequence[Mutant],
    found: Mapping[str, Result],
    equivalents: Equivalents,
    workshop: Workshop,
    path: Path,
) -> int:
    """Print what survived and how many did what; leave the whole as JSON."""
    mine = [found[mutant.key] for mutant in mutants if mutant.key in found]
    wrong = doubtful(mine, workshop)
    for result in mine:
        if result["by"] in wrong:
            result["verdict"] = "not tried"  # its test fails with nothing broken as well
    for result in mine:
        if result["verdict"] == "survived":
            show(result)
    print()
    summary = {}
    for name, part in (
        ("durability", [r for r in mine if r["sync"]]),
        ("sample", [r for r in mine if not r["sync"]]),
    ):
        summary[name] = dict(Counter(result["verdict"] for result in part))
        print(f"{name}: {len(part)} tried; {summary[name]}")
    known = [m for m in mutants if equivalents.reason(m) is not None]
    print(f"known to make no difference, not tried: {len(known)}")
    whole = {"summary": summary, "equivalent": [m.key for m in known], "results": mine}
    path.write_text(json.dumps(whole, indent=1))
    print(f"all of it: {path}")
    return 1 if any(result["verdict"] == "survived" for result in mine) else 0


if __name__ == "__main__":
    sys.exit(main())
