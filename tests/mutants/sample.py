"""Which mutants are tried: the same ones for the same seed and sources."""

import math
import random
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from tests.mutants.mutations import Mutant, mutants_of

_WEIGHTS: Final[Mapping[str, float]] = {  # how telling a kind is; others: 1.5
    "boundary": 2.5,
    "compare": 2,
    "and-or": 2,
    "drop-body": 3,
    "drop-operand": 2.5,
    "remove-call": 3,
    "remove-raise": 3,
    "const": 1.2,
    "plus-minus": 1.2,
    "remove-aug": 1,
}


def modules(tree: Path, patterns: Iterable[str]) -> list[str]:
    """The files that the list names.

    Raises: LookupError: a line of the list names no file any more.
    """
    found: set[str] = set()
    for pattern in patterns:
        here = [path.relative_to(tree).as_posix() for path in tree.glob(pattern)]
        if not here:
            raise LookupError(f"modules.txt: {pattern} names no file")
        found.update(here)
    return sorted(found)


def draw(tree: Path, names: Sequence[str], *, seed: str, count: int) -> list[Mutant]:
    """So many of them, by module as the square root of what each has; no two of one line.

    Every prefix of the sample covers all modules as evenly as it can.
    """
    pools = {name: mutants_of(name, (tree / name).read_bytes()) for name in names}
    pools = {name: pool for name, pool in pools.items() if pool}
    total = sum(math.sqrt(len(pool)) for pool in pools.values())
    turns: list[tuple[float, float, Mutant]] = []
    for name, pool in pools.items():
        chance = random.Random(f"{seed} {name}")
        share = count * math.sqrt(len(pool)) / total
        drawn = _spread(pool, math.ceil(share), chance)
        turns.extend(((at + chance.random()) / share, at, m) for at, m in enumerate(drawn))
    turns.sort(key=lambda turn: turn[:2])
    return [mutant for _, _, mutant in turns[:count]]


def syncs(tree: Path) -> list[Mutant]:
    """Every removal of a call that makes something durable, in whatever module."""
    files = sorted(path.relative_to(tree).as_posix() for path in tree.glob("vault/**/*.py"))
    return [m for name in files for m in mutants_of(name, (tree / name).read_bytes()) if m.syncs]


def _spread(pool: Sequence[Mutant], count: int, chance: random.Random) -> list[Mutant]:
    """At random over the kinds first, then over the places of that kind."""
    kinds: dict[str, list[Mutant]] = defaultdict(list)
    for mutant in chance.sample(pool, len(pool)):
        kinds[mutant.kind].append(mutant)
    drawn: dict[int, Mutant] = {}
    while len(drawn) < count and kinds:
        weights = [_WEIGHTS.get(k, 1.5) * math.sqrt(len(left)) for k, left in kinds.items()]
        kind = chance.choices(list(kinds), weights)[0]
        mutant = kinds[kind].pop()
        drawn.setdefault(mutant.line, mutant)
        if not kinds[kind]:
            del kinds[kind]
    return list(drawn.values())
