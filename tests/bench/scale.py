"""How cost grows with files, bytes, snapshots, statements and chunks; prints tables.

    python tests/bench/scale.py [--axes files,bytes,…] [--full]

Every axis has a repository of its own for each size, on a local directory; the work is done by
the command line in processes of its own. Requests are calls to the store. An exponent is the slope
of a fit through logarithms: 1 is linear, 0 is constant; at small sizes the start of a
process hides growth, so that those of whole commands are lower bounds. Nothing is asserted.
"""

import argparse
import contextlib
import dataclasses
import json
import math
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.bench.datasets import SETTLED
from tests.bench.measure import Command, CommandError, measure
from tests.bench.synthetic import (
    chunk_ids,
    fill_cache,
    grow_ledger,
    make_data,
    make_files,
    take_many,
    writer_of,
)

DATASET = "bench"
LOOKUPS = 400_000
AT_ONCE = 128  # chunks looked up in one transaction, as a snapshot of small files does
REQUESTS = ("put", "get", "status", "versions", "versions_of", "names", "extend", "delete")


@dataclasses.dataclass(frozen=True, slots=True)
class Point:
    """What one piece of work took at one size."""

    size: float
    wall: float  # seconds
    cpu: float  # seconds, user and system
    memory: float  # MB, peak of anonymous memory
    requests: int  # calls to the store
    stored: float  # MB the repository grew by


Series = dict[str, list[Point]]  # by work


class Machine:
    """A host with a repository in a directory, and the program to work on it."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.repository = place / "repository"
        self.keys = place / "keys"
        self.env = dict(os.environ)
        place.mkdir(parents=True)
        secret = place / "passphrase"
        secret.write_text("correct horse battery staple\n")
        secret.chmod(0o600)
        for name in ("CONFIG", "STATE", "CACHE"):
            self.env[f"XDG_{name}_HOME"] = str(place / name.lower())
        self.env |= {"VAULT_PASSPHRASE_FILE": str(secret), "VAULT_KEYS": str(self.keys)}
        self.run("init", str(self.repository), "--yes")

    def run(self, *arguments: str, size: float = 0, stdin: Path | None = None) -> Point:
        """One command to its end."""
        counted = self.place / "counted.json"
        before = _stored(self.repository)
        command = Command((sys.executable, __file__, "--count", str(counted), *arguments), stdin)
        sample = measure(command, self.env)
        requests = sum(json.loads(counted.read_bytes()).values())
        grown = _stored(self.repository) - before
        return Point(size, sample.wall, sample.cpu, sample.memory, requests, grown)


def _stored(top: Path) -> float:
    files = subprocess.run(["du", "-sb", str(top)], capture_output=True, text=True, check=False)
    return int(files.stdout.split()[0]) / 1e6 if files.stdout else 0


def count_requests(into: Path, arguments: Sequence[str]) -> int:
    """Run the program in this process and write down its calls to the store, by kind."""
    from cli.main import run
    from vault.storage.local import LocalStore

    seen: Counter[str] = Counter()

    def counted(name: str) -> Callable[..., Any]:
        method = getattr(LocalStore, name)

        def call(*args: Any, **options: Any) -> Any:
            seen[name] += 1
            return method(*args, **options)

        return call

    for name in REQUESTS:
        setattr(LocalStore, name, counted(name))
    try:
        return run(list(arguments))
    finally:
        into.write_text(json.dumps(seen))


# --- the axes ---


def files(place: Path, *, full: bool) -> Series:
    """Small files, each with content of its own."""
    series: Series = {}
    for count in (10_000, 100_000, *((1_000_000,) if full else ())):
        tree = place / "tree"
        make_files(tree, count)
        time.sleep(SETTLED)
        machine = Machine(place / "machine")
        _work(series, machine, tree, count, changed=lambda tree=tree: _touch(tree))  # type: ignore[misc]
        shutil.rmtree(place)
    return series


def _touch(tree: Path) -> None:
    """Change every hundredth file."""
    changed = (path for place, path in enumerate(sorted(tree.rglob("*.txt"))) if not place % 100)
    for path in changed:
        path.write_text(f"changed {path.name}\n" * 10)


def bytes_of(place: Path, *, full: bool) -> Series:
    """One file, half of it incompressible; then 16 MiB of it changed, whatever its size."""
    series: Series = {}
    for gigabytes in (1, 2, 4, *((8, 16) if full else ())):
        tree = place / "tree"
        tree.mkdir(parents=True)
        make_data(tree / "image", gigabytes << 30)
        time.sleep(SETTLED)
        machine = Machine(place / "machine")
        _work(series, machine, tree, gigabytes, changed=lambda tree=tree: _edit(tree / "image"))  # type: ignore[misc]
        shutil.rmtree(place)
    return series


def streams(place: Path, *, full: bool) -> Series:
    """A stream of gigabytes: it lies nowhere but in the repository, so a disk has room for more."""
    series: Series = {}
    for gigabytes in (1, 10, *((100,) if full else ())):
        machine = Machine(place / "machine")
        pipe = place / "pipe"
        os.mkfifo(pipe)

        def note(work: str, *arguments: str, stdin: Path | None = None) -> None:
            point = machine.run("-q", *arguments, size=gigabytes, stdin=stdin)  # noqa: B023 - called here
            series.setdefault(work, []).append(point)
            print(work, point, file=sys.stderr)

        for work in ("first snapshot", "the same again"):
            with _written_to(pipe, gigabytes * 10**9):
                note(work, "snapshot", "--stdin", "stream", "--name", DATASET, stdin=pipe)
        note("list", "list")
        note("cat", "cat", DATASET, "stream")
        note("verify", "verify", DATASET)
        subprocess.run(["chattr", "-R", "-f", "-i", str(place)], check=False)
        shutil.rmtree(place)
    return series


@contextlib.contextmanager
def _written_to(pipe: Path, size: int) -> Iterator[None]:
    """A process that writes so many bytes to the pipe, once somebody reads from it."""
    code = (
        "import sys; from pathlib import Path; from tests.bench.synthetic import make_data;"
        "make_data(Path(sys.argv[1]), int(sys.argv[2]))"
    )
    top = Path(__file__).parents[2]
    with subprocess.Popen([sys.executable, "-c", code, str(pipe), str(size)], cwd=top) as writer:
        try:
            yield
        except BaseException:
            writer.kill()
            raise
    if writer.returncode:
        raise CommandError(f"the stream broke off: exit {writer.returncode}")


def _edit(image: Path) -> None:
    """Change sixteen mebibytes in place."""
    size = image.stat().st_size
    with image.open("r+b") as file:
        for number in range(16):
            file.seek(size * number // 16)
            file.write(random.Random(number).randbytes(1 << 20))


def _work(
    series: Series, machine: Machine, tree: Path, size: float, *, changed: Callable[[], None]
) -> None:
    """What is done with a tree, from the first snapshot to its restore."""

    def note(work: str, *arguments: str) -> None:
        series.setdefault(work, []).append(machine.run(*arguments, size=size))
        print(work, series[work][-1], file=sys.stderr)

    snapshot = ["-q", "snapshot", str(tree), "--name", DATASET]
    note("first snapshot", *snapshot)
    note("unchanged", *snapshot)
    changed()
    note("changed", *snapshot)
    note("list", "list")
    out = machine.place / "out"
    note("restore --verify", "-q", "restore", DATASET, str(out))
    shutil.rmtree(out)
    note("verify", "-q", "verify", DATASET)


def snapshots(place: Path, *, full: bool) -> Series:
    """Snapshots of 200 files, of which one changes each time."""
    series: Series = {}
    tree = place / "tree"
    make_files(tree, 200)
    machine = Machine(place / "machine")
    state, cache = (machine.place / name / "vault" for name in ("state", "cache"))
    for count in (1, 10, 100, *((1_000,) if full else ())):
        take_many(machine.repository, machine.keys, tree, DATASET, count, state=state, cache=cache)
        _look(series, machine, tree, count)
        out = machine.place / "out"
        point = machine.run("-q", "restore", DATASET, str(out), size=count)
        series.setdefault("restore --verify", []).append(point)
        shutil.rmtree(out)
    return series


def statements(place: Path, *, full: bool) -> Series:
    """Statements in the ledger; only the newest snapshots are looked at."""
    series: Series = {}
    tree = place / "tree"
    make_files(tree, 200)
    machine = Machine(place / "machine")
    machine.run("-q", "snapshot", str(tree), "--name", DATASET)
    key, root = writer_of(machine.keys)
    for count in (10, 100, 1_000, *((10_000,) if full else ())):
        grow_ledger(machine.repository, root, key, count)
        first = machine.run("status", size=count)
        series.setdefault("status, nine tenths new", []).append(first)
        _look(series, machine, tree, count)
    return series


def _look(series: Series, machine: Machine, tree: Path, size: float) -> None:
    """Commands that begin with the ledger and need little else; the best of three."""
    snapshot = ["-q", "snapshot", str(tree), "--name", DATASET]
    for work, arguments in (("list", ["list"]), ("status", ["status"]), ("snapshot", snapshot)):
        runs = [machine.run(*arguments, size=size) for _ in range(3)]
        series.setdefault(work, []).append(min(runs, key=lambda run: run.cpu))
        print(work, series[work][-1], file=sys.stderr)


def chunks(place: Path, *, full: bool) -> Series:
    """Chunks in the map of a host that takes a snapshot of 200 new files."""
    from vault.machine.chunk_cache import Cache

    series: Series = {}
    for count in (100_000, 1_000_000, *((20_000_000,) if full else ())):
        tree = place / "tree"
        make_files(tree, 200)
        machine = Machine(place / "machine")
        machine.run("-q", "snapshot", str(tree), "--name", "other")
        (path,) = (machine.place / "cache/vault").rglob("data.mdb")
        owner = _repository_id(machine)
        with Cache.open(path.parent, repository_id=owner, domain="default") as cache:
            started = time.process_time()
            fill_cache(cache, count)
            filled = time.process_time() - started
            rate = _lookups(cache, count)
        print(
            f"{count} chunks: {path.stat().st_size / count:.0f} bytes each,"
            f" {count / filled:,.0f} inserts/s, {rate:,.0f} look-ups/s (of CPU time)"
        )
        (tree / "new").write_bytes(os.urandom(1 << 20))
        snapshot = ["-q", "snapshot", str(tree), "--name", DATASET]
        series.setdefault("snapshot", []).append(machine.run(*snapshot, size=count))
        shutil.rmtree(place)
    return series


def _repository_id(machine: Machine) -> bytes:
    key, _ = writer_of(machine.keys)
    return bytes.fromhex(key.repository.id)


def _lookups(cache: Any, count: int) -> float:
    """Look-ups a second of CPU time: half of them hits in random order, half misses."""
    generator = random.Random(2)
    known = list(islice(chunk_ids(count), LOOKUPS // 2))
    names = known + [generator.randbytes(32) for _ in known]
    generator.shuffle(names)
    started = time.process_time()
    for place in range(0, len(names), AT_ONCE):
        cache.find_all(names[place : place + AT_ONCE])
    return len(names) / (time.process_time() - started)


AXES: Mapping[str, Callable[..., Series]] = {
    "files": files,
    "bytes": bytes_of,
    "streams": streams,
    "snapshots": snapshots,
    "statements": statements,
    "chunks": chunks,
}
_UNITS = {"bytes": "GiB", "streams": "GB"}


# --- the tables ---


def exponent(points: Sequence[Point], measured: str) -> float | None:
    """Slope of the fit through the logarithms; None where there is nothing to fit."""
    pairs = [
        (math.log(point.size), math.log(value))
        for point in points
        if (value := getattr(point, measured)) > 0
    ]
    if len(pairs) < 2:
        return None
    return statistics.linear_regression(*zip(*pairs, strict=True)).slope


def table(axis: str, series: Series) -> Iterator[str]:
    """Markdown: one row for each work and size, then its exponents."""
    unit = _UNITS.get(axis, axis)
    yield f"| work | {unit} | wall s | CPU s | anon MB | requests | MB stored |"
    yield "|---|---|---|---|---|---|---|"
    for work, points in series.items():
        for point in points:
            yield (
                f"| {work} | {point.size:,.0f} | {point.wall:.2f} | {point.cpu:.2f} |"
                f" {point.memory:.0f} | {point.requests:,} | {point.stored:,.2f} |"
            )
        fits = [exponent(points, name) for name in ("wall", "cpu", "memory", "requests", "stored")]
        shown = ["" if fit is None else f"**{fit:.2f}**" for fit in fits]
        yield f"| {work} | *exponent* | {' | '.join(shown)} |"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--axes", default=",".join(AXES), help="which, with commas between them")
    parser.add_argument("--full", action="store_true", help="the largest sizes too: an hour")
    parser.add_argument("--place", type=Path, help="a directory with room")
    arguments = parser.parse_args()
    for axis in arguments.axes.split(","):
        place = Path(tempfile.mkdtemp(prefix="vault-scale-", dir=arguments.place))
        try:
            series = AXES[axis](place / axis, full=arguments.full)
        finally:
            subprocess.run(["chattr", "-R", "-f", "-i", str(place)], check=False)
            shutil.rmtree(place, ignore_errors=True)
        print(f"\n### {axis}\n", *table(axis, series), sep="\n", flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--count"]:
        sys.exit(count_requests(Path(sys.argv[2]), sys.argv[3:]))
    main()
