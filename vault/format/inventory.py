"""Inventories: which objects a snapshot needs (docs/format.md 7). No I/O.

The text is made for people: ``grep``, ``sort`` and ``sha256sum`` read it. A large one may
be written as the difference to a base, so that an hourly snapshot of a big dataset
does not upload the same list every hour.
"""

import itertools
import operator
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

from vault.errors import ConfigError, FormatError
from vault.machine.lru import Recent
from vault.model import Digest, ObjectRef
from vault.storage.names import inventory_name, validate_name

MAX_INVENTORY = 1 << 30  # bytes
MAX_CHAIN = 16  # bases behind one inventory
MAX_OBJECTS = 4_000_000  # resolved, those of the bases included; of index objects as many
KEPT_LINES = 1 << 18  # references and lines that a `Resolver` keeps: some 100 MB at most
DELTA_FROM = 100  # objects; a shorter list is cheaper than a second read and lock
_STEP = 4  # a delta has at most a fourth of the lines of the delta that it builds on
_PIECE = 1 << 20  # bytes of text that are split into lines at a time

_MAGIC = "# vault-inventory 1"
_INDEX = "# index"
_INDEX_LINE = b"\n# index\n"
_NUMBER = r"(0|[1-9][0-9]{0,14})"
_COUNT = re.compile(rf"# objects {_NUMBER}")
_BYTES = re.compile(rf"# bytes {_NUMBER}")
_OBJECT = re.compile(rf"([0-9a-f]{{64}})\t{_NUMBER}\t([!-~]{{1,1024}})\t([!-~]+)")
_BASE = "# base "


@dataclass(frozen=True, slots=True, kw_only=True)
class Inventory:
    """All that a snapshot needs, after deltas were resolved."""

    objects: tuple[ObjectRef, ...]  # sorted by name
    index: tuple[ObjectRef, ...] = ()  # in use, but only a cache: not needed (I10)
    bases: tuple[ObjectRef, ...] = ()  # nearest first; needed as long as this inventory is
    changes: tuple[int, ...] = ()  # lines added and removed: by it, then by each base but the last

    @property
    def objects_count(self) -> int:
        """How many objects it lists."""
        return len(self.objects)

    @property
    def bytes_total(self) -> int:
        """Bytes of all objects as stored."""
        return sum(ref.size for ref in self.objects)


@dataclass(frozen=True, slots=True, kw_only=True)
class ParsedInventory:
    """One inventory object as written: whole, or the difference to its base."""

    count: int  # objects once resolved
    total: int  # bytes once resolved
    base: ObjectRef | None
    added: tuple[ObjectRef, ...]
    removed: tuple[ObjectRef, ...]
    index: tuple[ObjectRef, ...]


# --- writing ---


def format_ref(ref: ObjectRef) -> str:
    """One line without its end; prune plans use the same.

    Raises:
        FormatError: The store's version id can't be written in a line.
    """
    line = f"{ref.sha256}\t{ref.size}\t{ref.version}\t{ref.name}"
    if not _OBJECT.fullmatch(line):
        raise FormatError("object can't be written in an inventory", found=repr(line[:160]))
    return line


def encode(
    objects: Iterable[ObjectRef],
    index: Iterable[ObjectRef] = (),
    base: Inventory | None = None,
    base_ref: ObjectRef | None = None,
    *,
    most: int = MAX_OBJECTS,
) -> bytes:
    """The text of an inventory: whole, or as a delta where that saves more than half.

    Args:
        objects: What is needed; any order, each name once.
        index: Index objects in use; any order, each name once.
        base: An earlier inventory, resolved, to differ from.
        base_ref: The object that holds `base`.
        most: So many objects may be needed; and as many index objects may be in use.

    Raises:
        FormatError: A name repeats, or a line can't be written.
        ConfigError: There are too many, so that readers would refuse it.
    """
    needed, listed = _sorted(objects), _sorted(index)
    if max(len(needed), len(listed)) > most:
        raise ConfigError(
            "the snapshot needs too many objects",
            expected=f"at most {most}",
            found=max(len(needed), len(listed)),
            hint="split the dataset, or make a repository with a larger pack size",
        )
    cache = [_INDEX, *map(format_ref, listed)] if listed else []
    lines = [format_ref(ref) for ref in needed]
    if base is not None and base_ref is not None and _may_be_delta(needed, base):
        delta = _delta_lines(needed, base, base_ref)
        if 2 * _text_size(delta) < _text_size(lines):
            lines = delta
    total = sum(ref.size for ref in needed)
    head = [_MAGIC, f"# objects {len(needed)}", f"# bytes {total}"]
    return "\n".join([*head, *lines, *cache, ""]).encode("ascii")


def pick_base(objects: Iterable[ObjectRef], last: Inventory) -> int:
    """The inventory to build a delta on: 0 for ``last`` itself, n for the n-th of its bases.

    Each base behind a snapshot costs its readers a request, and each later snapshot a request
    to extend its lock; so chains must stay short. A delta that has fewer lines than `_STEP`
    times the new one is skipped, and its changes are written again. Thus the number of bases,
    and how often a line is written again, grow with the logarithm of the number of lines.
    """
    lines = max(1, len(set(objects).symmetric_difference(last.objects)))
    for back, changed in enumerate(last.changes):
        if changed >= _STEP * lines:
            return back
        lines += changed  # an upper bound: lines that were changed back are not written
    return len(last.changes)


def _may_be_delta(needed: Sequence[ObjectRef], base: Inventory) -> bool:
    return len(needed) > DELTA_FROM and len(base.bases) < MAX_CHAIN


def _delta_lines(needed: Sequence[ObjectRef], base: Inventory, base_ref: ObjectRef) -> list[str]:
    before, after = set(base.objects), set(needed)
    return [
        _BASE + format_ref(base_ref),
        *(format_ref(ref) for ref in needed if ref not in before),
        *("-" + format_ref(ref) for ref in base.objects if ref not in after),
    ]


def _text_size(lines: Sequence[str]) -> int:
    return sum(map(len, lines)) + len(lines)


def _sorted(refs: Iterable[ObjectRef]) -> list[ObjectRef]:
    listed = sorted(refs, key=lambda ref: ref.name)
    _check_order(listed)
    return listed


# --- reading ---


def parse(
    data: bytes, known: dict[str, ObjectRef] | None = None, *, most: int = MAX_OBJECTS
) -> ParsedInventory:
    """One inventory object.

    Args:
        data: Its bytes, verified against the digest that names them.
        known: References by line, parsed before; new ones are added, up to `KEPT_LINES`.
        most: So many objects it may come to, and so many lines each of its parts may have.

    Raises:
        FormatError: It does not follow docs/format.md 7.
    """
    _require_text(data)
    (magic, count, total), start = _head(data)
    if magic != _MAGIC:
        raise FormatError("not an inventory", expected=_MAGIC, found=repr(magic[:40]))
    stated, size = _header_number(count, _COUNT), _header_number(total, _BYTES)
    _require_at_most(most, stated, "objects")
    base = None
    if data.startswith(_BASE.encode(), start):
        line, start = _line(data, start)
        base = _parse_base(line)
    # a line's end is before each part, so a part begins behind what is looked for from there
    cut = data.find(_INDEX_LINE, start - 1)
    end, index = (len(data), len(data)) if cut < 0 else (cut + 1, cut + len(_INDEX_LINE))
    turn = data.find(b"\n-", start - 1, end) + 1 or end
    parts = ((start, turn), (turn, end), (index, len(data)))
    for part in parts:
        _require_at_most(most, data.count(b"\n", *part), "lines")
    known = {} if known is None else known
    parsed = ParsedInventory(
        count=stated,
        total=size,
        base=base,
        added=_parse_part(_pieces(data, *parts[0]), known),
        removed=_parse_part(map(_without_minus, _pieces(data, *parts[1])), known),
        index=_parse_part(_pieces(data, *parts[2]), known),
    )
    if parsed.removed and base is None:
        raise FormatError("inventory removes lines but has no base")
    return parsed


def parse_plan(data: bytes) -> tuple[ObjectRef, ...]:
    """The objects that a prune plan names.

    Args:
        data: Its bytes, verified against the digest that a statement cites.

    Raises:
        FormatError: It is no inventory, has a base or an index, or does not add up.
    """
    parsed = parse(data)
    if parsed.base is not None or parsed.index:
        raise FormatError("prune plan has a base or an index")
    _check_sums("prune plan", parsed.added, parsed)
    return parsed.added


def parse_ref(line: str) -> ObjectRef:
    """One line without its end.

    Raises:
        FormatError: Not such a line.
    """
    match = _OBJECT.fullmatch(line)
    if match is None:
        raise FormatError("inventory line is malformed", found=repr(line[:160]))
    try:
        name = validate_name(match[4])
    except ConfigError as error:
        raise FormatError("inventory names an impossible object", found=error.found) from error
    sha256 = Digest(bytes.fromhex(match[1]))
    return ObjectRef(name=name, sha256=sha256, size=int(match[2]), version=match[3])


def resolve(ref: ObjectRef, fetch: Callable[[ObjectRef], bytes]) -> Inventory:
    """An inventory, with all that it takes over from its bases.

    Args:
        ref: The inventory object.
        fetch: Gives the bytes of an object, verified against its digest.

    Raises:
        FormatError: A base chain is too long, a removed line was never there,
            a name repeats, or the header's sums differ.
    """
    return Resolver(fetch, keep=0).resolve(ref)


class Resolver:
    """Resolves many inventories that share most of their lines, as those of a dataset do.

    A line is parsed once and always gives the same `ObjectRef`, so that callers may compare by
    identity first. The last results are kept: a delta costs only its own lines.

    Args:
        fetch: Gives the bytes of an object, verified against its digest.
        keep: How many references of resolved inventories, and how many parsed lines, to keep.
        most: So many objects an inventory may come to; with its bases it may have twice as many
            lines. A writer's key can be stolen, and a reader's memory has an end.
    """

    def __init__(
        self,
        fetch: Callable[[ObjectRef], bytes],
        *,
        keep: int = KEPT_LINES,
        most: int = MAX_OBJECTS,
    ) -> None:
        self._fetch = fetch
        self._keep = keep
        self._most = most
        self._lines: dict[str, ObjectRef] = {}
        self._resolved: Recent[tuple[Digest, int], Inventory] = Recent(
            keep, weigh=lambda inventory: len(inventory.objects)
        )

    def resolve(self, ref: ObjectRef) -> Inventory:
        """See the function `resolve`."""
        chain: list[tuple[ObjectRef, ParsedInventory]] = []
        source: ObjectRef | None = ref
        known: Inventory | None = None
        lines = 0
        while source is not None and (known := self._recall(source)) is None:
            if len(chain) > MAX_CHAIN:
                raise _too_many_bases()
            parsed = self._parse(source)
            lines += len(parsed.added) + len(parsed.removed)
            _require_at_most(2 * self._most, lines, "lines with its bases")
            chain.append((source, parsed))
            source = parsed.base
        if not chain:
            assert known is not None
            return known
        objects = {} if known is None else {each.name: each for each in known.objects}
        bases = () if known is None else known.bases
        changes = () if known is None else known.changes
        for source, parsed in reversed(chain):
            objects = _apply(objects, parsed, source)
            if parsed.base is not None:
                bases = (parsed.base, *bases)
                changes = (len(parsed.added) + len(parsed.removed), *changes)
            if len(bases) > MAX_CHAIN:
                raise _too_many_bases()
            if self._keep or source is ref:
                known = Inventory(
                    objects=tuple(objects[name] for name in sorted(objects)),
                    index=parsed.index,
                    bases=bases,
                    changes=changes,
                )
                self._remember(source, known)
        assert known is not None
        return known

    def _parse(self, ref: ObjectRef) -> ParsedInventory:
        if len(self._lines) > self._keep:
            self._lines.clear()
        return parse(self._fetch(_fetchable(ref)), self._lines, most=self._most)

    def _recall(self, ref: ObjectRef) -> Inventory | None:
        return self._resolved.get((ref.sha256, ref.size))

    def _remember(self, ref: ObjectRef, resolved: Inventory) -> None:
        self._resolved.put((ref.sha256, ref.size), resolved)


def _too_many_bases() -> FormatError:
    return FormatError("inventory has too many bases", expected=f"at most {MAX_CHAIN}")


def _apply(
    objects: dict[str, ObjectRef], parsed: ParsedInventory, source: ObjectRef
) -> dict[str, ObjectRef]:
    """The objects after one inventory of a chain; checks the sums of its header."""
    for ref in parsed.removed:
        if objects.pop(ref.name, None) != ref:
            raise FormatError(f"{source.name} removes a line that its base lacks", found=ref.name)
    for ref in parsed.added:
        if objects.setdefault(ref.name, ref) is not ref:
            raise FormatError(f"{source.name} repeats a line of its base", found=ref.name)
    _check_sums(source.name, objects.values(), parsed)
    return objects


def _check_sums(subject: str, refs: Collection[ObjectRef], parsed: ParsedInventory) -> None:
    found = (len(refs), sum(ref.size for ref in refs))
    if found != (parsed.count, parsed.total):
        raise FormatError(
            f"{subject} does not add up",
            expected=f"{parsed.count} objects, {parsed.total} bytes",
            found=f"{found[0]} objects, {found[1]} bytes",
        )


def _fetchable(ref: ObjectRef) -> ObjectRef:
    if ref.size > MAX_INVENTORY:
        raise FormatError(f"{ref.name} is too large", expected=MAX_INVENTORY, found=ref.size)
    return ref


def _require_text(data: bytes) -> None:
    if len(data) > MAX_INVENTORY:
        raise FormatError("inventory is too large", expected=MAX_INVENTORY, found=len(data))
    if not data.isascii() or not data.endswith(b"\n"):
        raise FormatError("inventory must be ASCII lines ended by a newline")


def _require_at_most(most: int, found: int, what: str) -> None:
    """What is counted before it is parsed can't fill the memory."""
    if found > most:
        raise FormatError(
            f"inventory has too many {what}",
            expected=f"at most {most}",
            found=found,
        )


def _head(data: bytes) -> tuple[list[str], int]:
    """The first three lines, and where the next one begins."""
    lines: list[str] = []
    at = 0
    for _ in range(3):
        if at == len(data):
            raise FormatError("not an inventory", expected=_MAGIC, found=repr(lines[0][:40]))
        line, at = _line(data, at)
        lines.append(line)
    return lines, at


def _line(data: bytes, at: int) -> tuple[str, int]:
    """The line that begins there, without its end; where the next one begins."""
    end = data.index(b"\n", at)
    return data[at:end].decode("ascii"), end + 1


def _header_number(line: str, pattern: re.Pattern[str]) -> int:
    match = pattern.fullmatch(line)
    if match is None:
        raise FormatError("inventory header is malformed", found=repr(line[:80]))
    return int(match[1])


def _parse_base(line: str) -> ObjectRef:
    base = parse_ref(line.removeprefix(_BASE))
    if base.name != inventory_name(base.sha256):
        raise FormatError("inventory base is not an inventory", found=base.name)
    return base


def _parse_part(pieces: Iterable[list[str]], known: dict[str, ObjectRef]) -> tuple[ObjectRef, ...]:
    refs: list[ObjectRef] = []
    for lines in pieces:
        if len(known) > KEPT_LINES:
            known.clear()
        for line in lines:
            if line not in known:
                known[line] = parse_ref(line)
        refs += map(known.__getitem__, lines)
    _check_order(refs)
    return tuple(refs)


def _pieces(data: bytes, start: int, end: int) -> Iterator[list[str]]:
    """The lines between two places, some at a time: all at once they would double the memory."""
    while start < end:
        stop = data.rfind(b"\n", start, min(start + _PIECE, end))
        if stop < 0:
            stop = data.index(b"\n", start)
        yield data[start:stop].decode("ascii").split("\n")
        start = stop + 1


def _without_minus(lines: list[str]) -> list[str]:
    for line in lines:
        if not line.startswith("-"):
            raise FormatError("inventory adds a line after a removed one", found=repr(line[:160]))
    return [line[1:] for line in lines]


def _check_order(refs: Sequence[ObjectRef]) -> None:
    names = [ref.name for ref in refs]
    if all(map(operator.lt, names, names[1:])):
        return
    before, after = next(pair for pair in itertools.pairwise(names) if pair[0] >= pair[1])
    raise FormatError(
        "inventory lines are not sorted without repeats", found=f"{after} after {before}"
    )
