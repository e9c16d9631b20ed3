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
import json
import os
import platform
import signal
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.bench import datasets, peers, stores, table
from tests.bench.measure import CommandError
from tests.bench.prepared import UnavailableError, run
from tests.bench.programs import Program, Source
from tests.bench.rounds import READS, Bench, Plan

SMALL = 1024
ALL = ("vault", *peers.PEERS)
STORES = {"local": [d.name for d in datasets.DATA_SETS], "s3": ["linux", "random", "postgres"]}


def cache_directory() -> Path:
    """Where everything is kept that takes long to make."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(os.environ.get("VAULT_BENCH_CACHE") or f"{base}/vault-bench").expanduser()


def measure_one(
    dataset: datasets.DataSet, names: Sequence[str], plan: Plan, store: stores.Store, path: Path
) -> dict[str, Any]:
    """The result of one data set, which is in ``path`` as far as it goes.

    Raises: UnavailableError: the data set can't be had.
    """
    place = dataset.prepare(plan.work / "data", plan.part)
    tree = place / "live"
    source = Source(tree, next(tree.iterdir()) if dataset.stream else None)
    with tempfile.TemporaryDirectory(dir=plan.work, prefix="run-") as scratch:
        programs, versions, absent = gather(names, plan, Path(scratch), source, store)
        bench = Bench(dataset, place, programs, plan)
        result = {
            "name": dataset.name,
            "store": store.name,
            "about": datasets.about(place),
            "date": datetime.now(UTC).date().isoformat(),
            "machine": machine(plan.work),
            "versions": versions,
            "absent": absent,
            "samples": bench.samples,
        }
        print(f"{dataset.name}, {store.name}: {versions}", flush=True)
        for _ in bench.run():
            result["absent"] = absent | bench.failed
            path.write_text(json.dumps(result, indent=1))
    return result


def gather(
    names: Iterable[str], plan: Plan, scratch: Path, source: Source, store: stores.Store
) -> tuple[list[Program], dict[str, str], dict[str, str]]:
    """The programs, their versions, and why those that are missing can't be had."""
    programs, versions, absent = [], {}, {}
    for name in names:
        kind = peers.program_of(name)
        if isinstance(store, stores.Ceph) and not kind.s3:
            absent[name] = "keeps nothing on S3"
            continue
        try:
            binary = peers.obtain(name, plan.cache, build=plan.part == 1)
            program = kind(name, binary, scratch / name, source, store)
            versions[name] = program.version()
        except (UnavailableError, CommandError, OSError) as error:
            absent[name] = str(error)
            continue
        programs.append(program)
    return programs, versions, absent


def machine(place: Path) -> str:
    """What this was measured on."""
    cpu = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line]
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / (1 << 30)
    disk = run(["findmnt", "-no", "FSTYPE", "-T", str(place)])
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
    parser.add_argument("--data", type=_names(known), help=",".join(known))
    parser.add_argument("--programs", type=_names(ALL), default=list(ALL), help=",".join(ALL))
    parser.add_argument(
        "--works", type=_names(READS), default=list(READS), help="after the snapshots: list,ls,…"
    )
    parser.add_argument(
        "--store", type=_names(STORES), default=list(STORES), help="local,s3 (a Ceph of its own)"
    )
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
    """Programs and data, and what can't be had; what failed to build before is tried again."""
    for name in arguments.programs:
        (plan.cache / "peers" / name / "failed").unlink(missing_ok=True)
        try:
            print(f"{name}: {peers.obtain(name, plan.cache, build=True)}", flush=True)
        except UnavailableError as error:
            print(f"{name} can't be had: {error}")
    for dataset in _chosen(arguments, "local"):
        try:
            place = dataset.prepare(plan.work / "data", plan.part)
            print(f"{dataset.name}: {datasets.about(place)}", flush=True)
        except UnavailableError as error:
            print(f"{dataset.name} can't be had: {error}")


def _chosen(arguments: argparse.Namespace, store: str) -> list[datasets.DataSet]:
    names = arguments.data or STORES[store]
    return [dataset for dataset in datasets.DATA_SETS if dataset.name in names]


def measure_all(arguments: argparse.Namespace, plan: Plan) -> bool:
    """Each chosen data set on each store; whether the vault did all that was asked of it."""
    results = plan.work / "results"
    results.mkdir(parents=True, exist_ok=True)
    good = True
    for kind in arguments.store:
        for dataset in _chosen(arguments, kind):
            path = results / f"{dataset.name}-{kind}.json"
            try:
                result = measure_on(kind, dataset, arguments.programs, plan, path)
            except UnavailableError as error:
                print(f"{dataset.name} on {kind} can't be had: {error}", file=sys.stderr)
                continue
            good &= "vault" not in result["absent"]
            print(table.section(result), flush=True)
    return good


def measure_on(
    kind: str, dataset: datasets.DataSet, names: Sequence[str], plan: Plan, path: Path
) -> dict[str, Any]:
    """One data set on a store of its own."""
    with (
        tempfile.TemporaryDirectory(dir=plan.work, prefix="store-") as scratch,
        stores.open_store(kind, Path(scratch, "server")) as store,
    ):
        return measure_one(dataset, names, plan, store, path)


def main() -> None:
    """Do what the command line says."""
    arguments = parse()
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # and clear away
    cache = cache_directory()
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="vault-bench-") as small:
        work = Path(small) if arguments.small else cache
        part = SMALL if arguments.small else 1
        plan = Plan(cache, work, arguments.runs, tuple(arguments.works), part)
        if arguments.prepare:
            prepare(arguments, plan)
        elif not arguments.table and not measure_all(arguments, plan):
            sys.exit("the vault failed")
        text = table.render(work / "results")
        if arguments.table:
            print(text)
        if arguments.into:
            table.write_into(arguments.into, text)


if __name__ == "__main__":
    main()
