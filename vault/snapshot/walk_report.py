"""The counts of a run, and the parts of its source that the snapshot lacks or has otherwise."""

import dataclasses
from collections.abc import Sequence

from vault.ledger.statements import Counts
from vault.model import replace_body
from vault.snapshot.file_reader import (
    ReadContent,
    ReadOutcome,
)
from vault.snapshot.walk import InUse, LeftOut, Reason, SourceItem

_READ = ReadOutcome.READ  # looked up once, not for every file
_TOLD = frozenset({Reason.FILE_SYSTEM, Reason.OWN})  # a person chose the others by name
MAX_PROBLEMS = 10_000  # listed ones; all are counted
MAX_PROBLEM_SIZE = 16 * 1_048_576  # bytes of their paths, which may be long


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """A file that is not in the snapshot as it should be."""

    path: bytes
    kind: str  # "unreadable", "changed", "vanished" or "attributes"
    detail: str


class WalkReport:
    """Counts, problems by path, and what was left out: all are counted, the first ones listed."""

    def __init__(self) -> None:
        self.tally: dict[str, int] = dict.fromkeys(Counts.__struct_fields__, 0)
        self.problems: list[Problem] = []
        self._problem_size = 0  # bytes of the paths of all
        self.complete = True
        self.left_out: list[LeftOut] = []  # a person may not expect these
        self._left_out_size = 0  # bytes of their paths
        self.in_use: list[InUse] = []  # databases
        self._in_use_size = 0  # bytes of their paths

    @property
    def counts(self) -> Counts:
        """The counts so far."""
        return replace_body(Counts(), **self.tally)

    def leave_out(self, left_out: LeftOut) -> None:
        """Note that the walk left something out that a person may have wanted."""
        if left_out.reason not in _TOLD:
            return
        self._left_out_size += len(left_out.path)
        if len(self.left_out) < MAX_PROBLEMS and self._left_out_size <= MAX_PROBLEM_SIZE:
            self.left_out.append(left_out)

    def meet_in_use(self, database: InUse) -> None:
        """Note files of a database that a program seems to use."""
        self._in_use_size += len(database.path)
        if len(self.in_use) < MAX_PROBLEMS and self._in_use_size <= MAX_PROBLEM_SIZE:
            self.in_use.append(database)

    def miss(self, item: SourceItem) -> None:
        """Note that the walk found an item gone or unreadable."""
        if item.vanished:
            self.tally["vanished"] += 1
            self._problem(item.path, "vanished", "gone since its directory was listed")
        else:
            self.unreadable(item.path, item.error or "")

    def unreadable(self, path: bytes, detail: str) -> None:
        """Note that something can't be stored, which makes the snapshot incomplete."""
        self.tally["unreadable"] += 1
        self.complete = False
        self._problem(path, "unreadable", detail)

    def _problem(self, path: bytes, kind: str, detail: str) -> None:
        self._problem_size += len(path)
        if len(self.problems) < MAX_PROBLEMS and self._problem_size <= MAX_PROBLEM_SIZE:
            self.problems.append(Problem(path=path, kind=kind, detail=detail))

    def is_stored(self, item: SourceItem, content: ReadContent) -> bool:
        """Count the outcome of reading; False if there is nothing to store."""
        if content.outcome is _READ:
            return True
        if content.outcome is ReadOutcome.VANISHED:
            self.tally["vanished"] += 1
            self._problem(item.path, "vanished", content.problem)
            return False
        if content.outcome is ReadOutcome.UNREADABLE:
            self.unreadable(item.path, content.problem)
            return False
        if content.outcome is ReadOutcome.CHANGED:
            self.tally["changed"] += 1
            self._problem(item.path, "changed", "while it was read, twice")
        return True

    def note(self, item: SourceItem, lost: Sequence[str], altered: Sequence[str]) -> None:
        """Note what is not stored, which makes the snapshot incomplete, and what was changed."""
        for detail in lost:
            self.unreadable(item.path, detail)
        for detail in altered:
            self._problem(item.path, "attributes", detail)
