"""The cache: what it finds, what it forgets, and that it survives whatever happens to it."""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lmdb
import pytest

from vault.errors import FormatError, LocalError
from vault.machine import chunk_cache as cache_module
from vault.machine.chunk_cache import Cache, ChunkPlace, DamagedCacheError, PackRow
from vault.model import ObjectType, PackId

REPOSITORY = bytes(range(16))


def _open(path: Path, domain: str = "default", map_size: int = 1 << 20) -> Cache:
    return Cache.open(path, repository_id=REPOSITORY, domain=domain, map_size=map_size)


def _id(text: object) -> bytes:
    return hashlib.sha256(str(text).encode()).digest()


def _row(name: object, **changed: object) -> PackRow:
    fields: dict[str, object] = {"size": 1000, "version": "v-1", "type": ObjectType.DATA}
    return PackRow(pack_id=PackId(_id(f"pack {name}")), **{**fields, **changed})  # type: ignore[arg-type]


def _ids(*names: object) -> bytes:
    return b"".join(map(_id, names))


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Cache]:
    """An empty one."""
    with _open(tmp_path / "cache") as opened:
        yield opened


# --- finding ---


def test_chunks_of_a_pack_are_found(cache: Cache) -> None:
    """With the number of their pack and their length."""
    number = cache.reserve_pack()
    cache.add_pack(number, _row(1), _ids("a", "b"), [10, 4_194_304])
    assert cache.find(_id("a")) == ChunkPlace(number, 10)
    assert cache.find(_id("b")) == ChunkPlace(number, 4_194_304)
    assert cache.find(_id("c")) is None


def test_rows_come_back_as_they_were(cache: Cache) -> None:
    """All that reuse, extension and distrust need."""
    row = _row(1, type=ObjectType.TREE, locked_until=5, listed_by=7, size=2**40)
    number = cache.reserve_pack()
    cache.add_pack(number, row, b"", [])
    assert cache.pack(number) == row
    assert cache.pack_number(row.pack_id) == number
    assert list(cache.packs()) == [(number, row)]
    assert cache.pack_numbers() == [number]
    assert cache.pack(number + 1) is None
    assert cache.pack_number(b"x" * 32) is None


@pytest.mark.parametrize("held", [1, 2, 3, 100])
def test_packs_are_gone_through_some_at_a_time(
    cache: Cache, monkeypatch: pytest.MonkeyPatch, held: int
) -> None:
    """Each once, in order, also where the last lot is a whole one or none."""
    monkeypatch.setattr(cache_module, "_READ_AHEAD", held)
    assert cache.pack_numbers() == []
    numbers = [cache.reserve_pack() for _ in range(6)]
    for number in numbers:
        cache.add_pack(number, _row(number), b"", [])
    assert cache.pack_numbers() == [number for number, _ in cache.packs()] == numbers


def test_a_chunk_stays_where_a_live_pack_has_it(cache: Cache) -> None:
    """So that two packs with the same chunk don't both stay needed."""
    first, second = cache.reserve_pack(), cache.reserve_pack()
    cache.add_pack(first, _row(1), _ids("a"), [10])
    cache.add_pack(second, _row(2), _ids("a"), [10])
    assert cache.find(_id("a")) == ChunkPlace(first, 10)


def test_a_dropped_pack_is_a_miss_and_its_chunks_move(cache: Cache) -> None:
    """A pack that a prune plan names is absent at once; a later one takes its chunks over."""
    first, second = cache.reserve_pack(), cache.reserve_pack()
    cache.add_pack(first, _row(1), _ids("a"), [10])
    cache.drop_packs([first, 99])
    assert cache.find(_id("a")) is None
    assert cache.pack(first) is None
    assert cache.pack_number(_row(1).pack_id) is None
    cache.add_pack(second, _row(2), _ids("a"), [10])
    assert cache.find(_id("a")) == ChunkPlace(second, 10)


def test_locks_are_noted(cache: Cache) -> None:
    """Of live packs; a dropped one does not come back."""
    number, gone = cache.reserve_pack(), cache.reserve_pack()
    cache.add_pack(number, _row(1), b"", [])
    cache.set_locked({number: 1_800_000_000, gone: 1})
    assert cache.pack(number) == _row(1, locked_until=1_800_000_000)
    assert cache.pack(gone) is None


def test_one_length_for_every_chunk(cache: Cache) -> None:
    """A caller's mistake is not entered."""
    with pytest.raises(FormatError, match="length"):
        cache.add_pack(cache.reserve_pack(), _row(1), _ids("a"), [1, 2])


# --- indexes ---


def test_an_index_is_loaded_once_and_remembered(cache: Cache) -> None:
    """Packs known already keep their number; names can be forgotten."""
    own = cache.reserve_pack()
    cache.add_pack(own, _row(1), _ids("a"), [1])
    cache.load_index("index/default/x", [(_row(1), _ids("a"), [1]), (_row(2), _ids("b"), [2])])
    assert cache.find(_id("a")) == ChunkPlace(own, 1)
    found = cache.find(_id("b"))
    assert found is not None
    assert found.pack == cache.pack_number(_row(2).pack_id) != own
    assert cache.loaded_indexes() == {"index/default/x"}
    cache.forget_indexes(["index/default/x", "unknown"])
    assert cache.loaded_indexes() == frozenset()


def test_what_was_listed_in_a_span_is_dropped(cache: Cache) -> None:
    """Between two seqs, whoever listed it; own packs and what came before and after stay."""
    cache.load_index(
        "i",
        [
            (_row(1, listed_by=4), _ids("a"), [1]),
            (_row(2, listed_by=5), _ids("b"), [1]),
            (_row(3, listed_by=7), _ids("c"), [1]),
            (_row(4, listed_by=8), _ids("d"), [1]),
        ],
    )
    number = cache.reserve_pack()
    cache.add_pack(number, _row(5), _ids("e"), [1])
    assert len(cache.drop_listed(5, 7)) == 2
    gone = [cache.find(_id(name)) is None for name in "abcde"]
    assert gone == [False, True, True, False, False]


def test_what_no_index_says_yet_is_kept_until_one_does(cache: Cache) -> None:
    """Only of packs that are known: a run may die between the two."""
    first, second = cache.reserve_pack(), cache.reserve_pack()
    cache.add_unindexed(first, b"one")
    cache.add_unindexed(second, b"two")
    assert list(cache.unindexed()) == []
    cache.add_pack(first, _row(1), _ids("a"), [1])
    cache.add_pack(second, _row(2), _ids("b"), [1])
    assert list(cache.unindexed()) == [(first, b"one"), (second, b"two")]
    cache.forget_unindexed([first])
    assert list(cache.unindexed()) == [(second, b"two")]


def test_large_packs_and_many_small_ones_go_in_by_parts(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Few inserts a transaction, and the map grows on the way; every chunk is found."""
    monkeypatch.setattr(cache_module, "_MAX_INSERTS", 1000)
    large = [f"l{i}" for i in range(20_500)]
    small = [[f"s{pack}.{i}" for i in range(300)] for pack in range(10)]
    number = cache.reserve_pack()
    cache.add_pack(number, _row("large"), _ids(*large), [7] * len(large))
    cache.load_index(
        "i", [(_row(i), _ids(*names), [7] * len(names)) for i, names in enumerate(small)]
    )
    assert all(cache.find(_id(name)) == ChunkPlace(number, 7) for name in large)
    assert all(cache.find(_id(name)) is not None for names in small for name in names)


def test_a_pack_is_found_only_when_all_of_it_is_in(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill between two transactions leaves chunks without a row: misses."""
    monkeypatch.setattr(cache_module, "_MAX_INSERTS", 2)
    real, calls = Cache._insert_batch, []

    def fail_later(self: Cache, txn: lmdb.Transaction, batch: list[cache_module._Part]) -> None:
        calls.append(batch)
        if len(calls) == 2:
            raise KeyboardInterrupt
        real(self, txn, batch)

    monkeypatch.setattr(Cache, "_insert_batch", fail_later)
    number = cache.reserve_pack()
    with pytest.raises(KeyboardInterrupt):
        cache.add_pack(number, _row(1), _ids("a", "b", "c"), [1, 1, 1])
    assert cache.find(_id("a")) is None
    assert cache.pack_numbers() == []


# --- damage ---


def _overwrite(path: Path, database: bytes, key: bytes, at: int) -> None:
    """Flip a bit of one value, as a disk might."""
    with lmdb.open(str(path), max_dbs=5) as env:
        db = env.open_db(database)
        with env.begin(write=True) as txn:
            value = bytearray(txn.get(key, db=db) or b"")
            value[at] ^= 1
            txn.put(key, bytes(value), db=db)


@pytest.mark.parametrize("at", range(10))
def test_a_flipped_bit_in_a_chunk_s_row_is_a_miss(tmp_path: Path, at: int) -> None:
    """Never another chunk's place or length; and the chunk can be entered again."""
    with _open(tmp_path) as cache:
        packs = [cache.reserve_pack() for _ in range(3)]
        for number in packs:
            cache.add_pack(number, _row(number), _ids(f"a{number}"), [1000])
    _overwrite(tmp_path, b"chunks", _id("a1")[:16], at)
    with _open(tmp_path) as cache:
        assert not cache.created
        assert cache.find(_id("a1")) is None
        number = cache.reserve_pack()
        cache.add_pack(number, _row("again"), _ids("a1"), [1000])
        assert cache.find(_id("a1")) == ChunkPlace(number, 1000)


def test_a_damaged_pack_row_is_a_local_error_or_a_miss(tmp_path: Path) -> None:
    """Its chunks are misses, and reading it says what to do."""
    with _open(tmp_path) as cache:
        number = cache.reserve_pack()
        cache.add_pack(number, _row(1), _ids("a"), [1])
    _overwrite(tmp_path, b"packs", number.to_bytes(4, "big"), 0)
    _overwrite(tmp_path, b"packs", number.to_bytes(4, "big"), 57)
    with _open(tmp_path) as cache:
        assert cache.find(_id("a")) is None
        with pytest.raises(LocalError, match="cache") as caught:
            cache.pack(number)
        assert "remove" in (caught.value.hint or "")


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"x" * 100_000),
        lambda path: path.write_bytes(path.read_bytes()[:100]),
        lambda path: os.truncate(path, path.stat().st_size // 2),
        lambda path: path.write_bytes(b"\0" * 8192 + path.read_bytes()[8192:]),
        lambda path: path.unlink(),
    ],
    ids=["empty", "garbage", "stump", "truncated", "no meta pages", "missing"],
)
def test_a_damaged_file_is_replaced_by_an_empty_cache(tmp_path: Path, damage: object) -> None:
    """With another generation, because numbers begin again."""
    with _open(tmp_path) as cache:
        assert cache.created
        generation = cache.generation
        cache.add_pack(cache.reserve_pack(), _row(1), _ids(*range(5000)), [1] * 5000)
    assert callable(damage)
    damage(tmp_path / "data.mdb")
    with _open(tmp_path) as cache:
        assert cache.created
        assert cache.generation != generation
        assert cache.find(_id(0)) is None
        assert cache.reserve_pack() == 1


def test_another_s_cache_is_replaced(tmp_path: Path) -> None:
    """Chunk ids of another domain or repository mean nothing here."""
    with _open(tmp_path, "one") as cache:
        generation = cache.generation
    with _open(tmp_path, "two") as cache:
        assert cache.created
        assert cache.generation != generation
    with _open(tmp_path, "two") as cache:
        assert not cache.created
    with Cache.open(tmp_path, repository_id=b"x" * 16, domain="two") as cache:
        assert cache.created


def test_a_directory_that_can_t_be_made_is_a_local_error(tmp_path: Path) -> None:
    """Exit 13, not a bug."""
    (tmp_path / "file").touch()
    with pytest.raises(LocalError, match="cache"):
        _open(tmp_path / "file" / "cache")


# --- processes and threads ---

_CHILD = """
import sys
from pathlib import Path
from vault.machine.chunk_cache import Cache
identity = {"repository_id": bytes(range(16)), "domain": "default"}
with Cache.open(Path(sys.argv[1]), **identity, map_size=1 << 20) as cache:
    while True:
        print(cache.reserve_pack(), flush=True)
        if sys.stdin.readline() == "":
            break
"""


def _child(path: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", _CHILD, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[3],
    )


def _next(child: "subprocess.Popen[str]") -> int:
    assert child.stdout is not None
    return int(child.stdout.readline())


def _ask(child: "subprocess.Popen[str]") -> int:
    assert child.stdin is not None
    child.stdin.write("\n")
    child.stdin.flush()
    return _next(child)


def test_numbers_are_never_used_twice_even_after_a_kill(tmp_path: Path) -> None:
    """A number may be in a journal although its run was killed before the pack was entered."""
    with _child(tmp_path) as child:
        used = [_next(child), _ask(child), _ask(child)]
        child.send_signal(signal.SIGKILL)
    with _open(tmp_path) as cache:
        assert not cache.created
        assert cache.reserve_pack() > max(used)


def test_two_processes_share_a_cache(tmp_path: Path) -> None:
    """Two datasets' runs at once: distinct numbers, and each sees the map that the other grew."""
    with _open(tmp_path) as cache, _child(tmp_path) as child:
        numbers = [_next(child), cache.reserve_pack(), _ask(child), cache.reserve_pack()]
        names = [f"n{i}" for i in range(30_000)]
        cache.add_pack(cache.reserve_pack(), _row(1), _ids(*names), [1] * len(names))
        numbers.append(_ask(child))
        numbers.append(cache.reserve_pack())
        assert child.stdin is not None
        child.stdin.close()
    assert len(set(numbers)) == len(numbers)
    assert child.returncode == 0


def test_threads_read_while_the_map_grows(cache: Cache) -> None:
    """No reader may hold the map when it is moved."""
    first = cache.reserve_pack()
    cache.add_pack(first, _row("first"), _ids("a"), [1])
    done, wrong = threading.Event(), []

    def read() -> None:
        while not done.is_set():
            if cache.find(_id("a")) != ChunkPlace(first, 1):
                wrong.append(1)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for pack in range(5):
        names = [f"{pack}.{i}" for i in range(5_000)]
        cache.add_pack(cache.reserve_pack(), _row(pack), _ids(*names), [1] * len(names))
    done.set()
    for reader in readers:
        reader.join()
    assert not wrong


# --- marks ---


def test_a_mark_is_known_for_ever_after_and_not_by_an_older_copy(tmp_path: Path) -> None:
    """A copy from before hands the same numbers out again, for other packs."""
    with Cache.open(tmp_path / "a", repository_id=b"r" * 16, domain="d") as cache:
        empty = cache.mark()
        cache.reserve_pack()
        first = cache.mark()
    shutil.copytree(tmp_path / "a", tmp_path / "copy")
    with Cache.open(tmp_path / "a", repository_id=b"r" * 16, domain="d") as cache:
        cache.reserve_pack()
        second = cache.mark()
        assert all(map(cache.knows, (empty, first, second)))
    with Cache.open(tmp_path / "copy", repository_id=b"r" * 16, domain="d") as copy:
        copy.reserve_pack()
        copy.reserve_pack()
        assert copy.knows(first)
        assert not copy.knows(second)
        assert not copy.knows(b"junk")
    assert len({empty, first, second}) == 3
    assert {len(mark) for mark in (empty, first, second)} == {16}


# --- a cache that contradicts itself ---


def test_no_changed_bit_of_a_pack_row_is_believed(tmp_path: Path) -> None:
    """A row may say for how long a lock lasts, and a snapshot relies on it (I2)."""
    row = PackRow(
        pack_id=PackId(b"p" * 32), size=9, version="v", type=ObjectType.DATA, locked_until=7
    )
    with Cache.open(tmp_path / "a", repository_id=b"r" * 16, domain="d") as cache:
        number = cache.reserve_pack()
        cache.add_pack(number, row, b"", [])
        key = number.to_bytes(4, "big")
        stored = cache._get(key, cache._packs)
        assert stored is not None
        for bit in range(8 * len(stored)):
            damaged = bytearray(stored)
            damaged[bit // 8] ^= 1 << bit % 8
            cache._write(lambda txn, data=bytes(damaged): txn.put(key, data, db=cache._packs))  # type: ignore[misc]
            with pytest.raises(DamagedCacheError):
                cache.pack(number)


@pytest.mark.parametrize("number", [0, 1, 2, 4, 77])
def test_a_counter_that_changed_gives_no_number_out(tmp_path: Path, number: int) -> None:
    """It would be handed out for the second time, or stand beyond the marks."""
    with Cache.open(tmp_path / "a", repository_id=b"r" * 16, domain="d") as cache:
        for _ in range(2):
            cache.reserve_pack()
        data = number.to_bytes(4, "big")
        cache._write(lambda txn: txn.put(b"next", data, db=cache._meta))
        with pytest.raises(DamagedCacheError):
            cache.reserve_pack()


def test_a_discarded_cache_is_made_again(tmp_path: Path) -> None:
    """Also where none is."""
    Cache.discard(tmp_path / "a")
    with Cache.open(tmp_path / "a", repository_id=b"r" * 16, domain="d") as cache:
        cache.reserve_pack()
        mark = cache.mark()
    Cache.discard(tmp_path / "a")
    with Cache.open(tmp_path / "a", repository_id=b"r" * 16, domain="d") as cache:
        assert cache.created
        assert not cache.knows(mark)


def test_a_cache_that_kills_its_reader_is_made_again(tmp_path: Path) -> None:
    """After a death the next run has it read by a process that may die too."""
    options: dict[str, Any] = {"repository_id": b"r" * 16, "domain": "default"}
    with Cache.open(tmp_path / "cache", **options) as cache:
        for start in range(0, 4000, 1000):
            number = cache.reserve_pack()
            names = [str(name) for name in range(start, start + 1000)]
            cache.add_pack(number, _row(number), _ids(*names), [1] * 1000)
        generation = cache.generation
    data = tmp_path / "cache/data.mdb"
    page = 4096
    whole = bytearray(data.read_bytes())
    for at in range(2 * page, len(whole), page):  # every page but the two meta pages
        whole[at + 10 : at + 16] = b"\xff" * 6
    data.write_bytes(whole)
    (tmp_path / "cache/open-999999999-0").touch()  # whoever met the damage died of it
    with Cache.open(tmp_path / "cache", **options) as cache:
        assert cache.created
        assert cache.generation != generation
        assert cache.find(_id("1")) is None


def test_a_death_alone_loses_nothing(tmp_path: Path) -> None:
    """A killed run leaves a whole cache, and the next one uses it."""
    options: dict[str, Any] = {"repository_id": b"r" * 16, "domain": "default"}
    with Cache.open(tmp_path / "cache", **options) as cache:
        generation = cache.generation
    (tmp_path / "cache/open-999999999-0").touch()
    with Cache.open(tmp_path / "cache", **options) as cache:
        assert (cache.created, cache.generation) == (False, generation)
        assert [path.name for path in (tmp_path / "cache").glob("open-999999999-*")] == []
    assert not list((tmp_path / "cache").glob("open-*"))


def test_no_code_of_the_current_directory_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cache that a killed run left is read by a program of its own, which lies elsewhere."""
    planted = tmp_path / "vault"
    planted.mkdir()
    ran = tmp_path / "ran"
    (planted / "__init__.py").write_text(f"open({str(ran)!r}, 'w')\n")
    (planted / "machine").mkdir()
    (planted / "machine/chunk_cache.py").write_text("")
    monkeypatch.chdir(tmp_path)
    subprocess.run([sys.executable, "-m", "vault.machine.chunk_cache"], check=True)
    assert ran.exists()  # so it would without -I
    ran.unlink()
    _open(tmp_path / "cache").close()
    (tmp_path / "cache" / "open-999999999-dead").touch()
    with _open(tmp_path / "cache") as opened:
        assert not opened.created
    assert not ran.exists()


_ON_A_FULL_DISK = """
import os, sys
from pathlib import Path
from vault.machine.chunk_cache import Cache
from vault.errors import LocalError
place = Path(sys.argv[1])
with (place / "filler").open("wb", buffering=0) as file:
    try:
        while file.write(bytes(4096)):
            pass
    except OSError:
        pass
    os.ftruncate(file.fileno(), file.tell() - 4096 * int(sys.argv[2]))
try:
    Cache.open(place / "cache", repository_id=bytes(16), domain="default").close()
except LocalError as error:
    print("refused:", error)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small file system")
@pytest.mark.parametrize("free", [0, 1, 2, 3, 4, 5, 400])
def test_a_full_disk_is_an_error_and_no_signal(tmp_path: Path, free: int) -> None:
    """However many pages are left; with enough, the cache is made."""
    place = tmp_path / "small"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "none", str(place)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("nothing can be mounted here")
    try:
        done = subprocess.run(
            [sys.executable, "-c", _ON_A_FULL_DISK, str(place), str(free)],
            check=False,
            capture_output=True,
            text=True,
            cwd=Path(__file__).parents[3],
        )
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("refused:") == (free < 400)
