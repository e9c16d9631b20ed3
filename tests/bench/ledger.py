"""What the ledger costs: read cold over a slow line, and by whole commands; prints tables.

    python tests/bench/ledger.py cold [--statements 10000] [--milliseconds 30]
    python tests/bench/ledger.py commands|readers [--statements N] [--against CHECKOUT]

`cold` reads a ledger in memory, each of whose requests waits as for a distant store: how many
requests follow each other, how long the reader waits for them, and how many threads it starts.
`commands` runs the program on a directory; with another checkout of the project, the two take
turns, each on a repository that its own code made; `readers` does so with `log` and `show`.
Nothing is asserted.
"""

import argparse
import dataclasses
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.bench.measure import Command, Cost, measure
from tests.bench.synthetic import heartbeats
from tests.support.lab import Clock, Lab, make_lab
from vault.ledger import pages
from vault.repository.read_statements import read_ledger
from vault.storage.base import ObjectVersion
from vault.storage.memory import MemoryStore
from vault.storage.names import page_name

NAMES_A_LIST = 1_000
GROW = """
import sys
from pathlib import Path
from tests.bench.synthetic import grow_ledger, writer_of
key, root = writer_of(Path(sys.argv[2]))
grow_ledger(Path(sys.argv[1]), root, key, int(sys.argv[3]))
"""
WORKS: dict[str, tuple[str, ...]] = {
    "open warm (`list nosuch`)": ("list", "nosuch"),
    "`status`": ("status",),
    "append (`snapshot`, nothing changed)": ("-q", "snapshot", "SOURCE", "--name", "bench"),
    "`audit`": ("-q", "audit"),
}
READERS: dict[str, tuple[str, ...]] = {
    "`log`": ("log",),
    "`log --dataset bench --since 2026-01-01`": (
        *("log", "--dataset", "bench", "--since", "2026-01-01"),
    ),
    "`log --json`": ("--json", "log"),
    "`log --type snapshot SEQ` of the last ten": ("log", "--type", "snapshot", "LAST"),
    "`show` of the newest": ("show", "NEWEST"),
}


# --- cold ---


class Distant:
    """A store whose answers take a while; a list is answered by the thousand."""

    def __init__(self, store: MemoryStore, seconds: float) -> None:
        self._store = store
        self._seconds = seconds
        self._under_way = 0
        self._mutex = threading.Lock()
        self.in_sequence = 0  # requests that began while no other was under way
        self.waited = 0.0  # seconds while one was
        self._since = 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def _wait(self) -> None:
        with self._mutex:
            if not self._under_way:
                self.in_sequence += 1
                self._since = time.monotonic()
            self._under_way += 1
        time.sleep(self._seconds)
        with self._mutex:
            self._under_way -= 1
            if not self._under_way:
                self.waited += time.monotonic() - self._since

    def get(self, *args: Any, **options: Any) -> bytes:
        """See `ObjectStore`."""
        self._wait()
        return self._store.get(*args, **options)

    def versions_of(self, name: str) -> list[ObjectVersion]:
        """See `ObjectStore`."""
        self._wait()
        return self._store.versions_of(name)

    def versions(self, prefix: str, *, after: str = "") -> Iterator[ObjectVersion]:
        """See `ObjectStore`."""
        self._wait()
        for place, each in enumerate(self._store.versions(prefix, after=after), 1):
            yield each
            if place % NAMES_A_LIST == 0:
                self._wait()


def cold(statements: int, milliseconds: float, runs: int) -> Iterator[str]:
    """A table: with the pages that appending hosts wrote, and where they are of no use."""
    yield "| | requests in sequence | wall s | CPU s | waiting for the store s | threads started |"
    yield "|---|---|---|---|---|---|"
    with tempfile.TemporaryDirectory() as place:
        lab = make_lab(Path(place) / "lab", Clock())
        envelopes = heartbeats(lab.store, lab.root, lab.host.key, statements)
        yield _cold_row("without pages", lab, milliseconds, runs)
        for number in range(statements // pages.PAGE_LENGTH):
            lines = envelopes[number * pages.PAGE_LENGTH : (number + 1) * pages.PAGE_LENGTH]
            lab.store.plant(page_name(number), pages.encode_page(lines))
        yield _cold_row("with pages", lab, milliseconds, runs)


def _cold_row(label: str, lab: Lab, milliseconds: float, runs: int) -> str:
    measured: list[tuple[float, float, float, int, int]] = []
    started: list[threading.Thread] = []
    start = threading.Thread.start

    def counted(thread: threading.Thread) -> None:
        started.append(thread)
        start(thread)

    with mock.patch.object(threading.Thread, "start", counted):
        for _ in range(runs):
            store: Any = Distant(lab.store, milliseconds / 1000)
            started.clear()
            wall, cpu = time.monotonic(), time.process_time()
            read_ledger(store, lab.root)
            wall, cpu = time.monotonic() - wall, time.process_time() - cpu
            measured.append((store.waited, wall, cpu, store.in_sequence, len(started)))
    waited, wall, cpu, requests, threads = min(
        measured
    )  # on a shared machine, the one least disturbed
    return f"| {label} | {requests:.0f} | {wall:.2f} | {cpu:.2f} | {waited:.2f} | {threads:.0f} |"


# --- commands ---


class Side:
    """A checkout of the project, with a repository that its own code made."""

    def __init__(self, checkout: Path, place: Path, statements: int) -> None:
        self.checkout = checkout
        self.place = place
        self.newest = statements - 1
        self.env = dict(os.environ, PYTHONPATH=str(checkout), VAULT_KEYS=str(place / "keys"))
        place.mkdir()
        secret = place / "passphrase"
        secret.write_text("correct horse battery staple\n")
        secret.chmod(0o600)
        self.env["VAULT_PASSPHRASE_FILE"] = str(secret)
        for name in ("CONFIG", "STATE", "CACHE"):
            self.env[f"XDG_{name}_HOME"] = str(place / name.lower())
        (place / "source").mkdir()
        (place / "source/file").write_text("one\n")
        self.run(("init", str(place / "store"), "--yes"))
        self.run(("-q", "snapshot", str(place / "source"), "--name", "bench"))
        arguments = [str(place / "store"), str(place / "keys"), str(statements)]
        subprocess.run(
            [sys.executable, "-P", "-c", GROW, *arguments], check=True, env=self.env, cwd=checkout
        )
        self.run(("status",))  # remembers the ledger

    def run(self, arguments: Sequence[str]) -> Cost:
        """One command to its end."""
        names = {
            "SOURCE": str(self.place / "source"),
            "LAST": str(self.newest - 9),
            "NEWEST": str(self.newest),
        }
        words = [names.get(each, each) for each in arguments]
        program = "from cli.main import main; main()"  # of the checkout that PYTHONPATH names
        command = Command((sys.executable, "-P", "-c", program, *words), good=(0, 2, 3, 4))
        return measure(command, self.env)

    def end(self) -> None:
        """Remove it all."""
        subprocess.run(["chattr", "-R", "-f", "-i", str(self.place)], check=False)
        shutil.rmtree(self.place, ignore_errors=True)


@dataclasses.dataclass(frozen=True, slots=True)
class Chosen:
    """What is measured."""

    works: dict[str, tuple[str, ...]]
    runs: int


def commands(sides: Sequence[Side], chosen: Chosen) -> Iterator[str]:
    """A table: CPU time and memory of each command, the sides in turns."""
    yield f"| command | {' | '.join(f'{side.checkout.name}: CPU s | MB' for side in sides)} |"
    yield "|---" * (1 + 2 * len(sides)) + "|"
    for label, arguments in chosen.works.items():
        costs: list[list[Cost]] = [[] for _ in sides]
        for _ in range(chosen.runs):
            for side, taken in zip(sides, costs, strict=True):
                taken.append(side.run(arguments))
        cells = (
            f"{statistics.median(each.cpu for each in taken):.2f}"
            f" ({min(each.cpu for each in taken):.2f} to {max(each.cpu for each in taken):.2f})"
            f" | {max(each.memory for each in taken):.0f}"
            for taken in costs
        )
        yield f"| {label} | {' | '.join(cells)} |"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["cold", "commands", "readers"])
    parser.add_argument("--statements", type=int, default=0)
    parser.add_argument("--milliseconds", type=float, default=30)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--against", type=Path, help="another checkout of the project")
    parser.add_argument("--place", type=Path, help="a directory with room")
    arguments = parser.parse_args()
    if arguments.what == "cold":
        count = arguments.statements or 10_000
        for line in cold(count, arguments.milliseconds, arguments.runs):
            print(line, flush=True)
        return
    place = Path(tempfile.mkdtemp(prefix="vault-ledger-", dir=arguments.place))
    works = WORKS if arguments.what == "commands" else READERS
    checkouts = [each for each in (arguments.against, Path(__file__).parents[2]) if each]
    sides: list[Side] = []
    try:
        for number, checkout in enumerate(checkouts):
            count = arguments.statements or (1_500 if works is WORKS else 10_000)
            sides.append(Side(checkout.resolve(), place / str(number), count))
        for line in commands(sides, Chosen(works, arguments.runs)):
            print(line, flush=True)
    finally:
        for side in sides:
            side.end()
        shutil.rmtree(place, ignore_errors=True)


if __name__ == "__main__":
    main()
