"""This host's cache of the index: the pack of each chunk. Only importer of lmdb.

Losing the cache costs only time. Its files may also be wrong (a flipped bit, a copied file): each
chunk's row carries a check over chunk id, pack id and length, so that damage is a miss. A lost
row costs a look-up. A pack number that came to mean another pack would corrupt snapshots; so
numbers are written to disk before use and never reused. An older copy of the files would hand
them out again: so each reservation leaves a random mark, and code that keeps numbers elsewhere
(`vault.snapshot.last_run`) keeps the newest mark with them.

Files: ``chunks`` chunk id (first 16 bytes) -> u32 pack number, u32 length, u16
check; ``packs`` number -> row; ``ids`` pack id -> number; ``indexes`` names loaded;
``unindexed`` number -> entry of a pack for the next index object; ``leftout`` pack id -> note on
a bad pack; ``meta`` identity, counter and marks. At most 20,000 inserts a transaction: more would
hold that many dirty pages in memory.
"""

import contextlib
import dataclasses
import fcntl
import logging
import os
import struct
import subprocess
import sys
import threading
import uuid
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple, Self, TypeVar

import lmdb

from vault.encoding import dumps, loads_strict
from vault.errors import FormatError, LocalError
from vault.machine.privacy import make_private, open_lock
from vault.model import ObjectType, PackId

_FORMAT = 3
MARK = 16  # bytes: the next number, and random bytes drawn when it was reserved up to there
_KEY = 16  # bytes of a chunk id that make its key
_ID = 32
_MAX_INSERTS = 20_000  # a transaction
_READ_AHEAD = 4_096  # items
_LOCK_FILE = 1 << 13  # bytes, as LMDB makes it for 126 readers, which it does not make shorter
_FIRST_MAP = 1 << 28  # bytes of address space, not of disk
_LAST_NUMBER = (1 << 32) - 1

_CHUNK = struct.Struct("<IIH")  # pack number, length, check
_NUMBER = struct.Struct(">I")  # big-endian: LMDB's order is then that of the numbers
_PACK = struct.Struct("<32sQBqQ")  # id, size, type, locked until, listed by; then the version id
_LENGTH = struct.Struct("<I")
_CRC = struct.Struct("<I")  # of all that stands before it: a row may say how long a lock lasts

_IN_USE = "open-"  # and the process id: a file for each process that has the cache open

_T = TypeVar("_T")
_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PackRow:
    """The cache's row of one pack."""

    pack_id: PackId
    size: int  # bytes as stored
    version: str  # the store's version id
    type: ObjectType
    locked_until: int = 0  # seconds since 1970, as the store answered; 0: not known
    listed_by: int = 0  # seq of the snapshot whose index object named it; 0: this host's own PUT


class DamagedCacheError(LocalError):
    """The cache contradicts itself; the caller discards it (`Cache.discard`) and begins anew."""


class ChunkPlace(NamedTuple):
    """Where a chunk lies."""

    pack: int  # number
    length: int  # bytes of plaintext


class _Part(NamedTuple):
    """A pack's chunks, or as many as one transaction takes; the last part brings the row."""

    number: int
    row: PackRow
    ids: memoryview
    lengths: Sequence[int]
    last: bool


class Cache:
    """One domain's chunks and packs. Thread-safe; several processes may have it open.

    Every method may raise `LocalError` if the disk is full or failing, or its subclass
    `DamagedCacheError`.
    """

    def __init__(self, env: lmdb.Environment, path: Path) -> None:
        self._env = env
        self._path = path
        self._lock = threading.RLock()  # the map can't grow while a thread reads
        self._chunks, self._packs, self._ids, self._indexes = map(
            env.open_db, (b"chunks", b"packs", b"ids", b"indexes")
        )
        self._unindexed, self._left_out, self._meta = map(
            env.open_db, (b"unindexed", b"leftout", b"meta")
        )
        self._in_use = path / f"{_IN_USE}{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self.generation = ""  # pack numbers are valid only within one generation
        self.created = False  # True: no usable cache was there

    @classmethod
    def open(
        cls, path: Path, *, repository_id: bytes, domain: str, map_size: int = _FIRST_MAP
    ) -> Self:
        """The cache in directory ``path``; a new, empty one if that is damaged or another's.

        Raises:
            LocalError: The directory can't be used.
        """
        owner = {"format": _FORMAT, "repository": repository_id.hex(), "domain": domain}
        try:
            make_private(path)
            with _opening(path):
                if _died(path) and not _survives_scan(path):
                    _remove(path)
                self = cls._open_valid(path, owner, map_size)
                if self is None:
                    _remove(path)
                    self = cls._create(path, owner, map_size)
                self._in_use.touch(mode=0o600)
        except (lmdb.Error, OSError) as error:
            raise _failure(path, error) from error
        return self

    @staticmethod
    def discard(path: Path) -> None:
        """Remove the cache in directory ``path``; processes that have it open keep the old files.

        Raises:
            LocalError: It can't be removed.
        """
        try:
            if path.exists():
                with _opening(path):
                    _remove(path)
        except OSError as error:
            raise _failure(path, error) from error

    @classmethod
    def _open_valid(cls, path: Path, owner: Mapping[str, object], map_size: int) -> Self | None:
        if not (path / "data.mdb").exists():
            return None
        env = None
        try:
            env = _environment(path, map_size)
            _check_length(env, path)
            self = cls(env, path)
            identity = loads_strict(self._get(b"identity", self._meta) or b"{}")
            self.generation = str(identity.pop("generation", ""))
            if self.generation and identity == owner:
                return self
        except lmdb.DiskError:
            raise  # the machine failed, not the file; a damaged size may exceed memory
        except (lmdb.Error, LocalError, FormatError, AttributeError):
            pass  # damaged: made again
        if env is not None:
            env.close()
        return None

    @classmethod
    def _create(cls, path: Path, owner: Mapping[str, object], map_size: int) -> Self:
        self = cls(_environment(path, map_size), path)
        self.generation = str(uuid.uuid4())
        self.created = True
        identity = dumps({**owner, "generation": self.generation})
        self._write(lambda txn: txn.put(b"identity", identity, db=self._meta))
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close it; what was written stays."""
        with self._lock:
            self._env.close()
        self._in_use.unlink(missing_ok=True)

    # --- chunks ---

    def find(self, chunk_id: bytes) -> ChunkPlace | None:
        """Where a chunk lies; None if that is not known, or its pack was dropped."""
        return self.find_all([chunk_id])[0]

    def find_all(self, chunk_ids: Sequence[bytes]) -> list[ChunkPlace | None]:
        """`find` for each of them, as they are at one moment."""

        def work(txn: lmdb.Transaction) -> list[ChunkPlace | None]:
            return [self._locate(txn, chunk_id[:_KEY]) for chunk_id in chunk_ids]

        return self._read(work)

    def _locate(self, txn: lmdb.Transaction, key: bytes) -> ChunkPlace | None:
        value = txn.get(key, db=self._chunks)
        if value is None or len(value) != _CHUNK.size:
            return None
        number, length, check = _CHUNK.unpack(value)
        row = txn.get(_NUMBER.pack(number), db=self._packs)
        if row is None or check != _check(key, bytes(row[:_ID]), length):
            return None
        return ChunkPlace(number, length)

    # --- packs ---

    def reserve_pack(self) -> int:
        """A number that no pack had or will have; durable before it is returned."""
        return self._reserve(1)

    def _reserve(self, count: int) -> int:
        def work(txn: lmdb.Transaction) -> int:
            value = txn.get(b"next", db=self._meta)
            number: int = _NUMBER.unpack(value)[0] if value is not None else 1
            if number + count > _LAST_NUMBER or not self._is_newest(txn, number):
                raise DamagedCacheError(f"cache {self._path} has a damaged counter", found=number)
            txn.put(b"next", _NUMBER.pack(number + count), db=self._meta)
            txn.put(_mark_key(number + count), os.urandom(MARK - _NUMBER.size), db=self._meta)
            return number

        return self._write(work)

    def _is_newest(self, txn: lmdb.Transaction, following: int) -> bool:
        """Whether the newest mark was drawn for this counter; otherwise the counter is damaged."""
        if following > 1 and txn.get(_mark_key(following), db=self._meta) is None:
            return False
        with txn.cursor(db=self._meta) as cursor:
            return not (
                cursor.set_range(_mark_key(following + 1)) and bytes(cursor.key())[:1] == b"m"
            )

    def mark(self) -> bytes:
        """A mark of all numbers handed out so far, for `knows`; 16 bytes."""

        def work(txn: lmdb.Transaction) -> bytes:
            following = bytes(txn.get(b"next", _NUMBER.pack(0), db=self._meta))
            mark = following + bytes(txn.get(b"m" + following, db=self._meta) or b"")
            return mark.ljust(MARK, b"\0")

        return self._read(work)

    def knows(self, mark: bytes) -> bool:
        """Whether numbers handed out up to a mark still mean the same packs in this cache."""
        following, drawn = mark[: _NUMBER.size], mark[_NUMBER.size :]
        return self._get(b"m" + following, self._meta) == drawn or not any(mark)

    def add_pack(self, number: int, row: PackRow, ids: bytes, lengths: Sequence[int]) -> None:
        """Enter a stored pack under its reserved number; durable on return.

        Its chunks are found only once all of it is in. A chunk that a live pack
        has already stays there.

        Args:
            number: From `reserve_pack`.
            row: The pack.
            ids: Its chunk ids, 32 bytes each.
            lengths: Their lengths in bytes.
        """
        self._insert([(number, row, ids, lengths)])

    def load_index(self, name: str, packs: Iterable[tuple[PackRow, bytes, Sequence[int]]]) -> None:
        """Enter the packs of an index object and remember its name; known packs stay unchanged.

        Args:
            name: Object name of the index.
            packs: Rows with chunk ids and lengths as for `add_pack`.
        """
        unknown = [pack for pack in packs if self.pack_number(pack[0].pack_id) is None]
        if unknown:
            first = self._reserve(len(unknown))
            self._insert([(first + i, *pack) for i, pack in enumerate(unknown)])
        self._write(lambda txn: txn.put(name.encode(), b"", db=self._indexes))

    def loaded_indexes(self) -> frozenset[str]:
        """Names given to `load_index`."""
        return frozenset(key.decode() for key, _ in self._items(self._indexes))

    def forget_indexes(self, names: Iterable[str]) -> None:
        """Forget that these were loaded, so that they are loaded again when next listed."""
        keys = [name.encode() for name in names]
        self._write(lambda txn: [txn.delete(key, db=self._indexes) for key in keys])

    def pack(self, number: int) -> PackRow | None:
        """The pack's row; None if there is none, or it was dropped."""
        value = self._get(_NUMBER.pack(number), self._packs)
        return None if value is None else self._unpack(value)

    def pack_number(self, pack_id: bytes) -> int | None:
        """The number of a live pack."""
        value = self._get(pack_id, self._ids)
        return None if value is None else int(_NUMBER.unpack(value)[0])

    def pack_numbers(self) -> list[int]:
        """Numbers of all live packs, ascending."""
        return [_NUMBER.unpack(key)[0] for key, _ in self._items(self._packs)]

    def packs(self) -> Iterator[tuple[int, PackRow]]:
        """All live packs by number; some thousand at a time, as they are then."""
        for key, value in self._items(self._packs):
            yield _NUMBER.unpack(key)[0], self._unpack(value)

    def set_locked(self, until: Mapping[int, int]) -> None:
        """Note the ends of locks that the store stated: pack number -> seconds since 1970."""

        def work(txn: lmdb.Transaction) -> None:
            for number, seconds in until.items():
                key = _NUMBER.pack(number)
                value = txn.get(key, db=self._packs)
                if value is not None:
                    row = dataclasses.replace(self._unpack(bytes(value)), locked_until=seconds)
                    txn.put(key, _pack_row(row), db=self._packs)

        self._write(work)

    def drop_packs(self, numbers: Iterable[int]) -> None:
        """Forget packs: their chunks are misses from now on."""
        keys = [_NUMBER.pack(number) for number in numbers]

        def work(txn: lmdb.Transaction) -> None:
            for key in keys:
                value = txn.pop(key, db=self._packs)
                if value is not None:
                    txn.delete(bytes(value[:_ID]), db=self._ids)

        self._write(work)

    def drop_listed(self, first: int, last: int) -> list[int]:
        """Forget packs learnt from index objects that snapshots ``first`` to ``last`` listed.

        Returns:
            Numbers of the packs dropped.
        """
        dropped = [number for number, row in self.packs() if first <= row.listed_by <= last]
        self.drop_packs(dropped)
        return dropped

    # --- packs that no index object names yet ---

    def add_unindexed(self, number: int, entry: bytes) -> None:
        """Keep a pack's entry until an index object has it; durable on return."""
        self._write(lambda txn: txn.put(_NUMBER.pack(number), entry, db=self._unindexed))

    def unindexed(self) -> Iterator[tuple[int, bytes]]:
        """Kept entries of live packs, by number; one is in memory at a time."""

        def keys(txn: lmdb.Transaction) -> list[bytes]:
            with txn.cursor(db=self._unindexed) as cursor:
                return [bytes(key) for key in cursor.iternext(values=False)]

        for key in self._read(keys):
            (number,) = _NUMBER.unpack(key)
            kept = self._get(key, self._unindexed)
            if kept is not None and self.pack(number) is not None:
                yield number, kept

    def forget_unindexed(self, numbers: Iterable[int]) -> None:
        """Drop the entries of these packs: an index object has them now."""
        keys = [_NUMBER.pack(number) for number in numbers]
        self._write(lambda txn: [txn.delete(key, db=self._unindexed) for key in keys])

    # --- packs that were found wrong ---

    def keep_left_out(self, pack_id: bytes, known: bytes) -> None:
        """Keep a note on a bad pack, which snapshots must not use; durable on return."""
        self._write(lambda txn: txn.put(pack_id, known, db=self._left_out))

    def left_out(self, pack_id: bytes) -> bytes | None:
        """The last note given to `keep_left_out`; None if there is none."""
        return self._get(pack_id, self._left_out)

    # --- transactions ---

    def _insert(self, packs: Iterable[tuple[int, PackRow, bytes, Sequence[int]]]) -> None:
        for batch in _batches(packs):
            self._write(lambda txn, batch=batch: self._insert_batch(txn, batch))  # type: ignore[misc]

    def _insert_batch(self, txn: lmdb.Transaction, batch: Sequence[_Part]) -> None:
        for part in batch:
            for i, length in enumerate(part.lengths):
                key = bytes(part.ids[i * _ID : i * _ID + _KEY])
                value = _CHUNK.pack(part.number, length, _check(key, part.row.pack_id, length))
                if not txn.put(key, value, overwrite=False, db=self._chunks) and (
                    self._locate(txn, key) is None
                ):
                    txn.put(key, value, db=self._chunks)
            if part.last:
                number = _NUMBER.pack(part.number)
                txn.put(number, _pack_row(part.row), db=self._packs)
                txn.put(part.row.pack_id, number, db=self._ids)

    def _get(self, key: bytes, database: "lmdb._Database") -> bytes | None:
        value = self._read(lambda txn: txn.get(key, db=database))
        return None if value is None else bytes(value)

    def _items(self, database: "lmdb._Database") -> Iterator[tuple[bytes, bytes]]:
        """All items in order, some thousand held at a time: a repository has millions of packs."""
        following = b""
        while True:
            items = self._read(lambda txn, start=following: _some(txn, database, start))  # type: ignore[misc]
            yield from items
            if len(items) < _READ_AHEAD:
                return
            following = items[-1][0] + b"\0"

    def _read(self, work: Callable[[lmdb.Transaction], _T]) -> _T:
        return self._run(work, write=False)

    def _write(self, work: Callable[[lmdb.Transaction], _T]) -> _T:
        """Run a write transaction; durable on return."""
        return self._run(work, write=True)

    def _run(self, work: Callable[[lmdb.Transaction], _T], *, write: bool) -> _T:
        with self._lock:
            while True:
                try:
                    with self._env.begin(write=write) as txn:
                        return work(txn)
                except lmdb.MapFullError:
                    self._env.set_mapsize(2 * self._env.info()["map_size"])
                except lmdb.MapResizedError:  # another process made it grow
                    self._env.set_mapsize(0)
                except (lmdb.Error, struct.error) as error:
                    raise _failure(self._path, error) from error

    def _unpack(self, value: bytes) -> PackRow:
        try:
            return _unpack_row(value)
        except (struct.error, ValueError, FormatError) as error:
            raise _failure(self._path, error) from error


def _some(
    txn: lmdb.Transaction, database: "lmdb._Database", start: bytes
) -> list[tuple[bytes, bytes]]:
    """Items from a key on."""
    with txn.cursor(db=database) as cursor:
        if not cursor.set_range(start):
            return []
        return [(bytes(key), bytes(value)) for key, value in islice(cursor, _READ_AHEAD)]


def _batches(packs: Iterable[tuple[int, PackRow, bytes, Sequence[int]]]) -> Iterator[list[_Part]]:
    """Parts of packs in lists of at most `_MAX_INSERTS` chunks."""
    batch: list[_Part] = []
    room = _MAX_INSERTS
    for number, row, ids, lengths in packs:
        if len(ids) != _ID * len(lengths):
            raise FormatError("pack has not one length for every chunk id", found=len(lengths))
        view = memoryview(ids)
        at = 0
        while True:
            end = min(at + room, len(lengths))
            last = end == len(lengths)
            batch.append(_Part(number, row, view[at * _ID : end * _ID], lengths[at:end], last))
            room -= end - at
            at = end
            if not room:
                yield batch
                batch, room = [], _MAX_INSERTS
            if last:
                break
    if batch:
        yield batch


def _mark_key(following: int) -> bytes:
    return b"m" + _NUMBER.pack(following)


def _check(key: bytes, pack_id: bytes, length: int) -> int:
    return zlib.crc32(b"".join((key, pack_id, _LENGTH.pack(length)))) & 0xFFFF


def _pack_row(row: PackRow) -> bytes:
    data = _PACK.pack(row.pack_id, row.size, row.type, row.locked_until, row.listed_by)
    data += row.version.encode()
    return data + _CRC.pack(zlib.crc32(data))


def _unpack_row(value: bytes) -> PackRow:
    (crc,) = _CRC.unpack_from(value, len(value) - _CRC.size)
    if zlib.crc32(value[: -_CRC.size]) != crc:
        raise FormatError("cached pack row is damaged")
    pack_id, size, kind, until, listed_by = _PACK.unpack_from(value)
    return PackRow(
        pack_id=PackId(pack_id),
        size=size,
        version=value[_PACK.size : -_CRC.size].decode(),
        type=ObjectType(kind),
        locked_until=until,
        listed_by=listed_by,
    )


# --- files ---


@contextlib.contextmanager
def _opening(path: Path) -> Iterator[None]:
    """Let one process at a time open: another could remove a half-made cache as damaged."""
    with os.fdopen(open_lock(path / "opening"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _died(path: Path) -> bool:
    """Whether a process died while it had the cache open."""
    died = False
    for mark in path.glob(_IN_USE + "*"):
        owner = mark.name.removeprefix(_IN_USE).partition("-")[0]
        if not Path(f"/proc/{owner}").exists():
            mark.unlink(missing_ok=True)
            died = True
    return died


def _survives_scan(path: Path) -> bool:
    """Read all of it in a child process: a damaged page tree crashes the process that reads it."""
    if not (path / "data.mdb").exists():
        return True
    # -I: don't import modules from the working directory
    command = [sys.executable, "-I", "-m", "vault.machine.chunk_cache", os.fspath(path)]
    done = subprocess.run(command, check=False, capture_output=True)  # noqa: S603 - our own program
    if done.returncode:
        _log.warning("cache %s is damaged and made again", path)
    return done.returncode == 0


def _scan(path: Path) -> None:
    """Touch every page of every database.

    Raises:
        lmdb.Error: A database is damaged. The damage may also crash the process.
    """
    env = _environment(path, _FIRST_MAP)
    _check_length(env, path)
    with env.begin() as txn, txn.cursor() as names:
        databases = [env.open_db(bytes(name), txn=txn, create=False) for name, _ in names]
        for database in databases:
            with txn.cursor(db=database) as cursor:
                for _ in cursor:
                    pass
    env.close()


def _environment(path: Path, map_size: int) -> lmdb.Environment:
    """Open LMDB's environment, with all blocks of its lock file allocated before.

    LMDB maps the lock file. If it had a hole and the disk were full, a write to it would kill
    the process (SIGBUS); allocating first makes that an error.
    """
    fd = open_lock(path / "lock.mdb")
    try:
        os.posix_fallocate(fd, 0, _LOCK_FILE)
    finally:
        os.close(fd)
    return lmdb.open(os.fspath(path), map_size=map_size, max_dbs=7, mode=0o600, readahead=False)


def _check_length(env: lmdb.Environment, path: Path) -> None:
    """Refuse a truncated file: touching a page beyond its end would kill the process (SIGBUS)."""
    needed = (env.info()["last_pgno"] + 1) * env.stat()["psize"]
    if (path / "data.mdb").stat().st_size < needed:
        raise lmdb.CorruptedError("file is truncated")


def _remove(path: Path) -> None:
    for name in ("data.mdb", "lock.mdb"):
        (path / name).unlink(missing_ok=True)


def _failure(path: Path, error: Exception) -> LocalError:
    # in these cases the disk or LMDB's limits failed; the file itself is sound
    trouble = (OSError, lmdb.MemoryError, lmdb.DiskError, lmdb.ReadersFullError)
    kind = LocalError if isinstance(error, trouble) else DamagedCacheError
    return kind(
        f"cache {path} failed",
        found=str(error)[:200],
        hint="if the disk is neither full nor broken, remove that directory: it is made again",
    )


if __name__ == "__main__":  # `_survives_scan`
    _scan(Path(sys.argv[1]))
