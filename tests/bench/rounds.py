"""Rounds: all operations on one data set, the programs taking turns."""

import dataclasses
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from operator import methodcaller
from pathlib import Path
from typing import Any

from tests.bench import datasets
from tests.bench.measure import Command, CommandError, measure
from tests.bench.programs import Program

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

    cache: Path  # programs that were built
    work: Path  # data, repositories, results
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

    def run(self) -> Iterator[None]:
        """Measure everything, a command at a time; who fails is left out from then on."""
        for number in range(self.plan.runs or self.dataset.runs):
            self.dataset.start(self.place)
            for program in self._turn(number):
                with self._guard(program, "init"):
                    program.prepare()
            for work, command_of in self._works():
                for program in self._turn(number):
                    with self._guard(program, work):
                        self._measure(number, work, program, command_of(program))
                    yield

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
