"""Time the vault beside its peers on the same data, in turns, and write the figures.

    make bench                                                  everything that can be had
    make bench BENCH="--data linux --programs vault,restic"     a part of it
    make bench BENCH=--table                                    the tables of what was measured

Needs the checkout as working directory. Programs, data and results lie in VAULT_BENCH_CACHE,
else in vault-bench below XDG_CACHE_HOME: made once, never by a measured run. Asserts nothing.

In each run programs take turns, beginning with another one each time. Before a turn the source
is in the page cache, and everything written is on the disk; what a program stored is in the page
cache as well, unless the program itself evicts it.
"""

import argparse
import dataclasses
import json
import os
import platform
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from operator import methodcaller
from pathlib import Path
from typing import Any

from tests.bench import datasets, peers, stores, table
from tests.bench.measure import Command, CommandError, measure
from tests.bench.programs import Program, Source

SMALL = 1024
ALL = ("vault", *peers.PEERS)
READS = {
    "restore": "restore",
    "restore --verify": "restore_verified",
    "verify": "verify",
    "list": "list",
    "ls": "ls",
    "--help": "help",
}
Work = tuple[str, Callable[[Program], Command | None]]


@dataclasses.dataclass(frozen=True, slots=True)
class Plan:
    """What is measured, and where."""

    cache: Path
    runs: int  # 0: the data set's own number
    reads: tuple[str, ...]
    part: int  # only this part of the data: 1 is all of it


class Bench:
    """Some programs on one data set."""

    def __init__(
        self, dataset: datasets.DataSet, place: Path, programs: Sequence[Program], plan: Plan
    ) -> None:
        self.dataset = dataset
        self.place = place
        self.programs = programs
        self.plan = plan
        self.failed: dict[str, str] = {}
        self.samples: list[dict[str, Any]] = []

    def run(self) -> None:
        """Measure everything; a program that fails is left out from then on."""
        for number in range(self.plan.runs or self.dataset.runs):
            self.dataset.start(self.place)
            for program in self._turn(number):
                with self._guard(program, "init"):
                    program.prepare()
            for work, command_of in self._works():
                for program in self._turn(number):
                    with self._guard(program, work):
                        self._measure(number, work, program, command_of(program))

    def _turn(self, number: int) -> list[Program]:
        """Who is left, beginning with another one in each run."""
        start = number % len(self.programs)
        turn = [*self.programs[start:], *self.programs[:start]]
        return [program for program in turn if program.name not in self.failed]

    def _works(self) -> Iterator[Work]:
        """What is timed, in order; the source is changed on the way."""
        self._rest()
        yield "first snapshot", methodcaller("take")
        yield "nothing changed", methodcaller("take")
        for step in self.dataset.steps:
            step.apply(self.place)
            self._rest()
            yield step.name, methodcaller("take")
        yield from ((work, methodcaller(READS[work])) for work in self.plan.reads)

    def _rest(self) -> None:
        """Nothing about the source is new, and all of it is in the page cache."""
        if self.plan.part == 1:
            datasets.settle(self.place)
        datasets.warm(self.place / "live")

    def _measure(self, number: int, work: str, program: Program, command: Command | None) -> None:
        if command is None:
            return
        program.empty_target()
        if self.plan.part == 1:
            os.sync()
        before = program.store.requests()
        cost = measure(command, program.env)
        after = program.store.requests()
        if work.startswith("restore"):
            self._compare(program)
        sample = dataclasses.asdict(cost) | {
            "run": number,
            "work": work,
            "program": program.name,
            "requests": None if before is None or after is None else after - before,
            "stored": None if work in READS else program.stored() / 1e6,
        }
        self.samples.append(sample)
        print(f"  run {number + 1}  {work:22} {program.name:12}", end="")
        print(f" {cost.wall:8.2f} s {cost.cpu:8.2f} s CPU {cost.memory:5.0f} MB", flush=True)

    def _compare(self, program: Program) -> None:
        """A restore that left something out would be no restore."""
        wanted, found = datasets.count(self.place / "live"), datasets.count(program.target)
        if wanted != found:
            raise CommandError(f"restored {found} files and bytes, not {wanted}")

    @contextmanager
    def _guard(self, program: Program, work: str) -> Iterator[None]:
        try:
            yield
        except (CommandError, OSError) as error:
            self.failed[program.name] = f"failed at {work}: {error}"
            print(f"{program.name} {self.failed[program.name]}", file=sys.stderr)
        finally:
            program.empty_target()


def cache_directory() -> Path:
    """Where everything is kept that takes long to make."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(os.environ.get("VAULT_BENCH_CACHE") or f"{base}/vault-bench").expanduser()


def measure_one(
    dataset: datasets.DataSet, names: Sequence[str], plan: Plan, store: stores.Store
) -> dict[str, Any]:
    """The result of one data set.

    Raises: UnavailableError: the data set can't be had.
    """
    place = dataset.prepare(plan.cache / "data", plan.part)
    tree = place / "live"
    source = Source(tree, next(tree.iterdir()) if dataset.stream else None)
    with tempfile.TemporaryDirectory(dir=plan.cache, prefix="run-") as scratch:
        programs, absent = gather(names, plan, Path(scratch), source, store)
        versions = {program.name: program.version() for program in programs}
        print(f"{dataset.name}, {store.name}: {versions}", flush=True)
        bench = Bench(dataset, place, programs, plan)
        bench.run()
    return {
        "name": dataset.name,
        "store": store.name,
        "about": datasets.about(place),
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine(plan.cache),
        "runs": plan.runs or dataset.runs,
        "versions": versions,
        "absent": absent | bench.failed,
        "samples": bench.samples,
    }


def gather(
    names: Iterable[str], plan: Plan, scratch: Path, source: Source, store: stores.Store
) -> tuple[list[Program], dict[str, str]]:
    """The programs, and why those that are missing can't be had."""
    programs, absent = [], {}
    for name in names:
        kind = peers.program_of(name)
        if isinstance(store, stores.Ceph) and not kind.s3:
            absent[name] = "keeps nothing on S3"
            continue
        try:
            binary = peers.obtain(name, plan.cache, build=plan.part == 1)
        except datasets.UnavailableError as error:
            absent[name] = str(error)
            continue
        programs.append(kind(name, binary, scratch / name, source, store))
    return programs, absent


def machine(place: Path) -> str:
    """What this was measured on."""
    cpu = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line]
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / (1 << 30)
    disk = datasets.run(["findmnt", "-no", "FSTYPE", "-T", str(place)])
    model = cpu[0].partition(": ")[2] if cpu else platform.machine()
    return (
        f"{os.cpu_count()} cores ({model}), {memory:.0f} GiB, {disk},"
        f" Linux {platform.release()}, Python {platform.python_version()}"
    )


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    known = [dataset.name for dataset in datasets.DATA_SETS]
    parser.add_argument("--data", type=_names(known), default=known, help=",".join(known))
    parser.add_argument("--programs", type=_names(ALL), default=list(ALL), help=",".join(ALL))
    parser.add_argument(
        "--works", type=_names(READS), default=list(READS), help="after the snapshots: list,ls,…"
    )
    parser.add_argument("--store", choices=("local", "s3"), default="local")
    parser.add_argument("--runs", type=int, default=0, help="instead of each data set's number")
    parser.add_argument("--small", action="store_true", help="little data, no peers built: a smoke")
    parser.add_argument("--prepare", action="store_true", help="only programs and data")
    parser.add_argument("--table", action="store_true", help="only print what was measured")
    parser.add_argument("--into", type=Path, help="put the tables into this page, at its marks")
    return parser.parse_args()


def _names(known: Iterable[str]) -> Callable[[str], list[str]]:
    def split(text: str) -> list[str]:
        names = text.split(",")
        if unknown := set(names) - set(known):
            raise argparse.ArgumentTypeError(f"not known: {', '.join(sorted(unknown))}")
        return names

    return split


def prepare(arguments: argparse.Namespace, plan: Plan) -> None:
    """Programs and data, and what can't be had."""
    for name in arguments.programs:
        try:
            print(f"{name}: {peers.obtain(name, plan.cache, build=True)}", flush=True)
        except datasets.UnavailableError as error:
            print(f"{name} can't be had: {error}")
    for dataset in _chosen(arguments):
        try:
            place = dataset.prepare(plan.cache / "data", plan.part)
            print(f"{dataset.name}: {datasets.about(place)}", flush=True)
        except datasets.UnavailableError as error:
            print(f"{dataset.name} can't be had: {error}")


def _chosen(arguments: argparse.Namespace) -> list[datasets.DataSet]:
    return [dataset for dataset in datasets.DATA_SETS if dataset.name in arguments.data]


def measure_all(arguments: argparse.Namespace, plan: Plan) -> bool:
    """Each chosen data set; whether the vault did all that was asked of it."""
    results = plan.cache / "results"
    results.mkdir(parents=True, exist_ok=True)
    good = True
    for dataset in _chosen(arguments):
        with tempfile.TemporaryDirectory(dir=plan.cache, prefix="store-") as scratch:
            opened = stores.open_store(arguments.store, Path(scratch, "server"))
            try:
                with opened as store:
                    result = measure_one(dataset, arguments.programs, plan, store)
            except datasets.UnavailableError as error:
                print(f"{dataset.name} can't be had: {error}", file=sys.stderr)
                continue
        good &= "vault" not in result["absent"]
        path = results / f"{dataset.name}-{arguments.store}.json"
        path.write_text(json.dumps(result, indent=1))
        print(table.section(result), flush=True)
    return good


def main() -> None:
    """Do what the command line says."""
    arguments = parse()
    with tempfile.TemporaryDirectory(prefix="vault-bench-") as small:
        cache = Path(small) if arguments.small else cache_directory()
        cache.mkdir(parents=True, exist_ok=True)
        plan = Plan(cache, arguments.runs, tuple(arguments.works), SMALL if arguments.small else 1)
        if arguments.prepare:
            prepare(arguments, plan)
        elif not arguments.table and not measure_all(arguments, plan):
            sys.exit("the vault failed")
        text = table.render(cache / "results")
        if arguments.table:
            print(text)
        if arguments.into:
            table.write_into(arguments.into, text)


if __name__ == "__main__":
    main()
