"""Inventories: strict text, deltas, and sums that must add up."""

import contextlib
import hashlib
import itertools
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vault.errors import ConfigError, FormatError, VaultError
from vault.format import inventory
from vault.format.inventory import (
    MAX_CHAIN,
    MAX_INVENTORY,
    Inventory,
    Resolver,
    encode,
    format_ref,
    parse,
    parse_ref,
    pick_base,
    resolve,
)
from vault.model import Digest, ObjectRef


def ref(number: int, **changes: Any) -> ObjectRef:
    """One pack; names sort by number."""
    fields: dict[str, Any] = {
        "name": f"packs/{number:06d}",
        "sha256": Digest(hashlib.sha256(b"%d" % number).digest()),
        "size": 1000 + number,
        "version": f"v{number}",
    }
    return ObjectRef(**(fields | changes))


def stored(text: bytes) -> ObjectRef:
    """The inventory object with these bytes."""
    digest = Digest(hashlib.sha256(text).digest())
    return ObjectRef(name=f"inventory/{digest}", sha256=digest, size=len(text), version="1")


class Shelf:
    """Keeps inventory objects by name."""

    def __init__(self) -> None:
        self.texts: dict[str, bytes] = {}

    def put(self, text: bytes) -> ObjectRef:
        """Store one."""
        where = stored(text)
        self.texts[where.name] = text
        return where

    def fetch(self, where: ObjectRef) -> bytes:
        """What `resolve` asks for."""
        return self.texts[where.name]


def lines(*parts: str, count: int = 0, total: int = 0) -> bytes:
    """An inventory with these lines after its header."""
    head = ["# vault-inventory 1", f"# objects {count}", f"# bytes {total}"]
    return "".join(f"{line}\n" for line in [*head, *parts]).encode()


ONE = format_ref(ref(1))
TWO = format_ref(ref(2))


def test_text_is_that_of_the_format() -> None:
    """Tab-separated, sorted, with a header and the index part last."""
    text = encode([ref(2), ref(1)], [ref(9, name="index/default/x")])
    sha = [hashlib.sha256(b"%d" % n).hexdigest() for n in (1, 2, 9)]
    assert text.decode().splitlines() == [
        "# vault-inventory 1",
        "# objects 2",
        "# bytes 2003",
        f"{sha[0]}\t1001\tv1\tpacks/000001",
        f"{sha[1]}\t1002\tv2\tpacks/000002",
        "# index",
        f"{sha[2]}\t1009\tv9\tindex/default/x",
    ]


def test_empty_inventory_round_trips() -> None:
    """An empty source needs nothing."""
    shelf = Shelf()
    assert resolve(shelf.put(encode([])), shelf.fetch) == Inventory(objects=())


def test_whole_inventory_round_trips() -> None:
    """Objects and index come back sorted, with count and bytes."""
    shelf = Shelf()
    index = [ref(8, name="index/a/x")]
    inventory = resolve(shelf.put(encode([ref(2), ref(1)], index)), shelf.fetch)
    assert inventory == Inventory(objects=(ref(1), ref(2)), index=tuple(index))
    assert (inventory.objects_count, inventory.bytes_total) == (2, 2003)


def test_large_inventory_with_few_changes_is_a_delta() -> None:
    """Only what changed is written, and the base is needed from then on."""
    shelf = Shelf()
    before = [ref(n) for n in range(1500)]
    after = [*before[10:], *(ref(n) for n in range(1500, 1520))]
    base = shelf.put(encode(before, [ref(1, name="index/a/old")]))
    text = encode(after, [ref(2, name="index/a/new")], resolve(base, shelf.fetch), base)
    assert text.count(b"\n") == 3 + 1 + 20 + 10 + 2
    inventory = resolve(shelf.put(text), shelf.fetch)
    assert inventory.objects == tuple(after)
    assert inventory.bases == (base,)
    assert inventory.index == (ref(2, name="index/a/new"),)


def test_relocated_object_is_removed_and_added() -> None:
    """The same name under another version id."""
    shelf = Shelf()
    before = [ref(n) for n in range(1500)]
    after = [ref(0, version="other"), *before[1:]]
    base = shelf.put(encode(before))
    text = encode(after, (), resolve(base, shelf.fetch), base)
    assert resolve(shelf.put(text), shelf.fetch).objects == tuple(after)


@pytest.mark.parametrize(("count", "kept"), [(100, 100), (1500, 700)])
def test_delta_is_not_written_where_it_saves_little(count: int, kept: int) -> None:
    """Short lists and great changes are written whole."""
    shelf = Shelf()
    before = [ref(n) for n in range(count)]
    after = [*before[:kept], *(ref(n) for n in range(count, 2 * count - kept))]
    base = shelf.put(encode(before))
    assert parse(encode(after, (), resolve(base, shelf.fetch), base)).base is None


class _Dataset:
    """Inventories of one dataset as its snapshots write them."""

    def __init__(self, shelf: Shelf) -> None:
        self.shelf = shelf
        self.last: ObjectRef | None = None
        self.written = 0  # bytes
        self.wholes = 0

    def write(self, objects: list[ObjectRef]) -> Inventory:
        """The next one, resolved."""
        base: Inventory | None = None
        where = self.last
        if where is not None:
            base = resolve(where, self.shelf.fetch)
            if back := pick_base(objects, base):
                where = base.bases[back - 1]
                base = resolve(where, self.shelf.fetch)
        text = encode(objects, (), base, where)
        self.written += len(text)
        self.wholes += b"\n# base " not in text
        self.last = self.shelf.put(text)
        found = resolve(self.last, self.shelf.fetch)
        assert found.objects == tuple(objects)
        return found


def test_inventories_of_small_daily_changes_are_written_in_small_parts() -> None:
    """Two packs a day, one of which replaces one: a tenth of the bytes, in short chains."""
    dataset, whole, chains = _Dataset(Shelf()), 0, []
    objects = [ref(n) for n in range(200)]
    for day in range(100):
        objects = [*objects[:-1], ref(200 + 2 * day), ref(201 + 2 * day)]
        chains.append(len(dataset.write(objects).bases))
        whole += len(encode(objects))
    assert dataset.written < whole / 10
    assert dataset.wholes <= 3
    assert max(chains) <= 5


def test_inventories_that_do_not_change_build_on_the_same_one() -> None:
    """However many: a chain of empty deltas would be long for nothing."""
    dataset = _Dataset(Shelf())
    objects = [ref(n) for n in range(200)]
    dataset.write(objects)
    objects.append(ref(200))
    chains = [len(dataset.write(objects).bases) for _ in range(20)]
    assert max(chains) <= 2
    assert dataset.wholes == 1


@settings(deadline=None, max_examples=20)
@given(st.lists(st.integers(0, 60), min_size=1, max_size=20))
def test_each_delta_has_a_fourth_of_the_lines_of_the_one_below(changed: list[int]) -> None:
    """Whatever changes, so that chains are as long as the logarithm of the lines."""
    dataset = _Dataset(Shelf())
    objects = [ref(n) for n in range(200)]
    count = len(objects)
    dataset.write(objects)
    for number in changed:
        objects = [*objects[number:], *(ref(count + n) for n in range(number))]
        count += number
        found = dataset.write(objects)
        assert len(found.changes) == len(found.bases)
        assert all(4 * above <= below for above, below in itertools.pairwise(found.changes))
        assert len(found.bases) <= 6


def test_chain_never_grows_beyond_sixteen_bases() -> None:
    """The seventeenth is written whole again, though each is made to build on the last."""
    shelf = Shelf()
    objects = [ref(n) for n in range(1200)]
    where = shelf.put(encode(objects))
    longest = 0
    for number in range(1200, 1220):
        inventory = resolve(where, shelf.fetch)
        assert inventory.objects == tuple(objects)
        longest = max(longest, len(inventory.bases))
        objects.append(ref(number))
        where = shelf.put(encode(objects, (), inventory, where))
    assert longest == MAX_CHAIN


def test_longer_chain_of_bases_is_refused() -> None:
    """A hostile chain ends after sixteen bases."""
    shelf = Shelf()
    where = shelf.put(lines())
    for number in range(MAX_CHAIN + 1):
        added = ref(number)
        total = sum(1000 + n for n in range(number + 1))
        where = shelf.put(
            lines(f"# base {format_ref(where)}", format_ref(added), count=number + 1, total=total)
        )
        if number == MAX_CHAIN - 1:
            assert len(resolve(where, shelf.fetch).bases) == MAX_CHAIN
    with pytest.raises(FormatError, match="too many bases"):
        resolve(where, shelf.fetch)


def test_base_with_another_name_is_refused() -> None:
    """A base is an inventory, found under its own digest."""
    with pytest.raises(FormatError, match="base"):
        parse(lines(f"# base {ONE}"))


def base_and_delta(*delta: str, count: int, total: int) -> tuple[Shelf, ObjectRef]:
    """An inventory of object 1, and a delta over it."""
    shelf = Shelf()
    base = shelf.put(lines(ONE, count=1, total=1001))
    text = lines(f"# base {format_ref(base)}", *delta, count=count, total=total)
    return shelf, shelf.put(text)


def test_delta_can_empty_its_base() -> None:
    """Nothing is needed any more."""
    shelf, where = base_and_delta(f"-{ONE}", count=0, total=0)
    assert resolve(where, shelf.fetch).objects == ()


@pytest.mark.parametrize(
    ("delta", "count", "total", "problem"),
    [
        ([f"-{TWO}"], 1, 1001, "its base lacks"),
        (["-" + ONE.replace("\tv1\t", "\tv2\t")], 0, 0, "its base lacks"),
        ([ONE], 1, 1001, "repeats a line"),
        ([ONE.replace("\tv1\t", "\tv2\t")], 1, 1001, "repeats a line"),
        ([TWO], 1, 2003, "does not add up"),
        ([TWO], 2, 2002, "does not add up"),
    ],
)
def test_delta_that_does_not_fit_its_base_is_refused(
    delta: list[str], count: int, total: int, problem: str
) -> None:
    """Removals must match whole lines, additions must be new, sums must hold."""
    shelf, where = base_and_delta(*delta, count=count, total=total)
    with pytest.raises(FormatError, match=problem):
        resolve(where, shelf.fetch)


MALFORMED: Mapping[str, bytes] = {
    "empty": b"",
    "no newline at the end": lines()[:-1],
    "other magic": lines().replace(b"inventory 1", b"inventory 2"),
    "header cut": b"# vault-inventory 1\n# objects 0\n",
    "count padded": lines().replace(b"objects 0", b"objects 00"),
    "count negative": lines().replace(b"objects 0", b"objects -1"),
    "empty line": lines("", count=0),
    "carriage return": lines(ONE, count=1, total=1001).replace(b"\n", b"\r\n"),
    "spaces for tabs": lines(ONE.replace("\t", " "), count=1, total=1001),
    "field missing": lines("\t".join(ONE.split("\t")[:3]), count=1, total=1001),
    "field too many": lines(ONE + "\tx", count=1, total=1001),
    "digest upper case": lines(ONE.upper(), count=1, total=1001),
    "size padded": lines(ONE.replace("\t1001", "\t01001"), count=1, total=1001),
    "size huge": lines(ONE.replace("\t1001", "\t" + "9" * 30), count=1, total=1001),
    "version empty": lines(ONE.replace("\tv1\t", "\t\t"), count=1, total=1001),
    "version with space": lines(ONE.replace("\tv1\t", "\tv 1\t"), count=1, total=1001),
    "version too long": lines(ONE.replace("\tv1\t", "\t" + "v" * 1025 + "\t"), count=1),
    "name with ..": lines(ONE.replace("packs/", "packs/../"), count=1, total=1001),
    "name absolute": lines(ONE.replace("packs/", "/packs/"), count=1, total=1001),
    "not ASCII": lines(ONE.replace("packs/", "päcks/"), count=1, total=1001),
    "unsorted": lines(TWO, ONE, count=2, total=2003),
    "repeated": lines(ONE, ONE, count=2, total=2002),
    "unsorted index": lines("# index", TWO, ONE),
    "index twice": lines("# index", ONE, "# index", TWO),
    "minus in the index": lines("# index", f"-{ONE}"),
    "removal without base": lines(f"-{ONE}"),
    "unknown comment": lines("# note"),
    "base twice": lines(f"# base {format_ref(stored(b'x'))}", f"# base {format_ref(stored(b'x'))}"),
    "added after removed": lines(f"# base {format_ref(stored(b'x'))}", f"-{ONE}", TWO),
    "unsorted removals": lines(f"# base {format_ref(stored(b'x'))}", f"-{TWO}", f"-{ONE}"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_inventories_are_format_errors(name: str) -> None:
    """One spelling for everything."""
    with pytest.raises(FormatError):
        parse(MALFORMED[name])


def test_more_objects_than_the_limit_are_refused_before_a_line_is_parsed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By what the header states, or by a count of lines, in each part; at the limit they pass."""
    base = f"# base {format_ref(stored(b'x'))}"
    assert len(parse(lines(ONE, TWO, count=2, total=2003), most=2).added) == 2
    assert len(parse(lines(base, f"-{ONE}", f"-{TWO}"), most=2).removed) == 2
    monkeypatch.setattr(inventory, "parse_ref", lambda _line: pytest.fail("a line was parsed"))
    for text, what in (
        (lines(ONE, TWO, count=3), "objects"),
        (lines(ONE, TWO, TWO, count=1), "lines"),
        (lines("# index", ONE, TWO, TWO), "lines"),
    ):
        with pytest.raises(FormatError, match=f"too many {what}") as failure:
            parse(text, most=2)
        assert (failure.value.expected, failure.value.found) == ("at most 2", 3)


def test_the_lines_of_all_bases_count_together() -> None:
    """Else sixteen bases of removed and added lines would hold as many times the limit."""
    shelf, where = base_and_delta(TWO, f"-{ONE}", count=1, total=1002)
    assert len(Resolver(shelf.fetch, most=2).resolve(where).objects) == 1
    with pytest.raises(FormatError, match="too many lines with its bases"):
        Resolver(shelf.fetch, most=1).resolve(where)


def test_more_objects_than_readers_take_are_not_written() -> None:
    """Needed ones, and those of the index."""
    one, two = map(parse_ref, (ONE, TWO))
    assert encode([one], [two], most=1)
    for needed, index in (([one, two], []), ([], [one, two])):
        with pytest.raises(ConfigError, match="too many objects"):
            encode(needed, index, most=1)


@pytest.mark.parametrize("piece", [1, 100, 400])
def test_text_is_split_anywhere(monkeypatch: pytest.MonkeyPatch, piece: int) -> None:
    """Lines are whole whatever is read at a time, in each part."""
    text = lines(
        f"# base {format_ref(stored(b'x'))}", ONE, TWO, f"-{ONE}", f"-{TWO}", "# index", ONE, TWO
    )
    whole = parse(text)
    monkeypatch.setattr(inventory, "_PIECE", piece)
    assert parse(text) == whole
    assert [len(part) for part in (whole.added, whole.removed, whole.index)] == [2, 2, 2]


def test_whole_inventory_that_does_not_add_up_is_refused() -> None:
    """Count and bytes of the header are checked."""
    for count, total in ((2, 1001), (1, 1000)):
        shelf = Shelf()
        with pytest.raises(FormatError, match="add up"):
            resolve(shelf.put(lines(ONE, count=count, total=total)), shelf.fetch)


def test_huge_inventory_is_refused_before_it_is_fetched() -> None:
    """The signed size is checked first."""

    def fetch(_ref: ObjectRef) -> bytes:
        raise AssertionError

    with pytest.raises(FormatError, match="too large"):
        resolve(ref(1, size=MAX_INVENTORY + 1), fetch)


@pytest.mark.parametrize("version", ["", "a b", "a\tb", "a\nb", "é", "v" * 1025])
def test_version_ids_that_would_break_a_line_are_not_written(version: str) -> None:
    """A store's answer must not forge another line."""
    with pytest.raises(FormatError):
        encode([ref(1, version=version)])


def test_one_name_twice_is_not_written() -> None:
    """Each object has one version."""
    with pytest.raises(FormatError, match="sorted without repeats"):
        encode([ref(1), ref(1, version="v2")])


VERSIONS = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=9)
OBJECTS = st.dictionaries(
    st.integers(0, 40),
    st.builds(ref, st.just(0), size=st.integers(0, 2**40), version=VERSIONS),
    max_size=20,
).map(lambda items: [ref(n, size=r.size, version=r.version) for n, r in items.items()])


@given(st.lists(OBJECTS, min_size=1, max_size=5), OBJECTS)
def test_any_chain_of_deltas_resolves_to_its_last_list(
    steps: list[list[ObjectRef]], index: list[ObjectRef]
) -> None:
    """Whole or delta, what was written is what is read."""
    import vault.format.inventory as module

    shelf = Shelf()
    base: Inventory | None = None
    where: ObjectRef | None = None
    for objects in steps:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "DELTA_FROM", -1)
            where = shelf.put(encode(objects, index, base, where))
        base = resolve(where, shelf.fetch)
        assert base.objects == tuple(sorted(objects))
        assert base.index == tuple(sorted(index))


@given(st.binary(max_size=300))
def test_arbitrary_bytes_raise_nothing_but_vault_errors(data: bytes) -> None:
    """Inventories come from the store."""
    for text in (data, lines() + data, lines(ONE) + data + b"\n"):
        with contextlib.suppress(VaultError):
            parse(text)


@given(st.text(max_size=200))
def test_parsed_lines_are_written_the_same(line: str) -> None:
    """A line has one spelling."""
    try:
        parsed = parse_ref(line)
    except VaultError:
        return
    assert format_ref(parsed) == line


def test_line_of_an_object_round_trips() -> None:
    """Prune plans use the same lines."""
    assert parse_ref(ONE) == ref(1)


def _chain(shelf: Shelf, count: int) -> list[ObjectRef]:
    """Inventories of a dataset that grows by an object at a time; most of them deltas."""
    listed = [ref(number) for number in range(1200)]
    where: ObjectRef | None = None
    base: Inventory | None = None
    made: list[ObjectRef] = []
    for number in range(count):
        listed = [*listed[1:], ref(1200 + number)]
        where = shelf.put(encode(listed, base=base, base_ref=where))
        base = resolve(where, shelf.fetch)
        made.append(where)
    return made


@pytest.mark.parametrize("keep", [0, 1300, 1 << 18])
@pytest.mark.parametrize("backwards", [False, True])
def test_many_inventories_resolve_as_each_alone(*, keep: int, backwards: bool) -> None:
    """Whatever is kept between them, and in any order."""
    shelf = Shelf()
    made = _chain(shelf, 40)
    assert max(len(resolve(where, shelf.fetch).bases) for where in made) == MAX_CHAIN
    resolver = Resolver(shelf.fetch, keep=keep)
    for where in reversed(made) if backwards else made:
        assert resolver.resolve(where) == resolve(where, shelf.fetch)


def test_many_inventories_cost_what_they_differ_by() -> None:
    """Each object is fetched and each line parsed once; alone, a delta's bases are read again."""
    shelf = Shelf()
    made = _chain(shelf, 40)
    fetched: list[str] = []

    def fetch(where: ObjectRef) -> bytes:
        fetched.append(where.name)
        return shelf.fetch(where)

    resolver = Resolver(fetch)
    resolved = [resolver.resolve(where) for where in reversed(made)]
    assert sorted(fetched) == sorted(where.name for where in made)
    shared = {id(each) for each in resolved[0].objects} & {id(each) for each in resolved[1].objects}
    assert len(shared) == 1199
    fetched.clear()
    for where in made:
        resolve(where, fetch)
    assert len(fetched) > 5 * len(made)


def test_a_chain_too_long_is_refused_whatever_is_known_of_it() -> None:
    """A base that was resolved before counts with all that is behind it."""
    shelf = Shelf()
    one = ref(1)
    where = shelf.put(encode([one]))
    chain = [where]
    for _ in range(MAX_CHAIN + 1):
        text = lines(f"# base {format_ref(where)}", count=1, total=one.size)
        where = shelf.put(text + b"# index\n" + format_ref(ref(len(chain))).encode() + b"\n")
        chain.append(where)
    resolver = Resolver(shelf.fetch)
    for good in chain[: MAX_CHAIN + 1]:
        assert resolver.resolve(good).objects == (one,)
    for each in (resolver, Resolver(shelf.fetch)):
        with pytest.raises(FormatError, match="too many bases"):
            each.resolve(chain[-1])
