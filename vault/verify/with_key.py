"""Checks with the recovery key: blocks open, chunks match their ids, trees are whole.

If one snapshot can't be opened, the others are opened all the same.
"""

import dataclasses
import itertools
import tempfile
from collections.abc import Iterator, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Final

from vault.crypto.key_files import RecoveryKey
from vault.encoding import b64encode
from vault.errors import (
    DigestMismatchError,
    FormatError,
    IntegrityError,
    ObjectNotFoundError,
    StorageError,
    VaultError,
    WrongKeyError,
)
from vault.format.entry import Entry, hole_size
from vault.format.tree import Flaws
from vault.ledger.chain import Ledger
from vault.ledger.records import Record
from vault.ledger.statements import RootBody, StatementType
from vault.machine.chunk_cache import ChunkPlace
from vault.machine.workers import Workers, in_order
from vault.model import EntryType, LockMode, ObjectRef, ObjectType, Severity
from vault.progress import Progress
from vault.repository.pack_reader import PackReader
from vault.repository.reader import LOOKED_UP, Reader
from vault.repository.repository import Repository
from vault.verify.damage_found import NAMED_IN_HIT, Found, Key, key_of
from vault.verify.object_task import Place
from vault.verify.pack_task import OpenedPack, PackTask, open_blocks, open_pack
from vault.verify.without_key import NeededObjects

_UNREADABLE: Final = (IntegrityError, WrongKeyError)


def require_recipient(ledger: Ledger, recovery: RecoveryKey) -> None:
    """Refuse a key that nothing was ever sealed to: with it, every object would seem damaged.

    Raises:
        WrongKeyError: No root lists it.
    """
    if not any(_lists(root, recovery) for root in _roots(ledger)):
        raise WrongKeyError(
            "this recovery key is no recipient of the repository",
            hint="--no-key checks sizes and SHA-256 without it",
        )


def _roots(ledger: Ledger, until: int | None = None) -> Iterator[RootBody]:
    for record in ledger.valid(StatementType.ROOT):
        assert isinstance(record.body, RootBody)
        if until is None or record.seq < until:
            yield record.body


def _lists(root: RootBody, recovery: RecoveryKey) -> bool:
    public = b64encode(recovery.recipient.public_raw)
    return any(recipient.public == public for recipient in root.recipients)


@dataclasses.dataclass(slots=True)
class _Walk:
    """The result of going through one tree."""

    entries: int = 0
    files: list[bytes] = dataclasses.field(default_factory=list)  # the first without content
    file_count: int = 0
    problem: str = ""
    after: bytes | None = None
    listed: bool = True  # whether any of the tree could be read

    @property
    def what(self) -> str:
        """What can't be had, in words without file names."""
        if not self.listed:
            return "its tree can't be read"
        if self.after is not None:
            return "its tree can't be read to its end"
        return f"the content of {self.file_count} of its files can't be had"

    def add(self, path: bytes, problem: str) -> None:
        """Note a file whose content can't be had."""
        self.file_count += 1
        self.problem = self.problem or problem
        if len(self.files) < NAMED_IN_HIT:
            self.files.append(path)


class _Elsewhere:
    """Whether other packs of the domain hold what damaged packs do not give.

    Args:
        reader: That of a snapshot some of whose packs are wrong.
        faulty: Ids of chunks in blocks of its own packs that do not open.
    """

    def __init__(self, reader: Reader, faulty: set[bytes]) -> None:
        self._reader = reader
        self._faulty = faulty
        self._own = {pack.ref.name for pack in reader.packs().values()}
        self._right: set[tuple[int, int]] = set()  # blocks, by pack, that were opened here
        self._blocks: dict[int, dict[bytes, int]] = {}  # by pack: the block that holds each chunk

    def problem_of(self, entry: Entry) -> str:
        """Why the content of a file can't be had; empty if it can."""
        if entry.type is not EntryType.FILE or not entry.size:
            return ""
        size = 0
        try:
            for names in self._reader.chunks_of(entry):
                places = _check_chunks(self._reader, names)
                for name, location in zip(names, places, strict=True):
                    size += location.length
                    known = self._reader.pack(location.pack).ref.name in self._own
                    if not known or name in self._faulty:
                        self._reader.wherever(name, self._open)
            _check_extent(self._reader, entry, size)
        except _UNREADABLE as error:
            return error.message
        return ""

    def _open(self, name: bytes) -> None:
        """Open the block that holds a chunk, in whichever pack the reader now finds it."""
        number = self._reader.find(name).pack
        pack = self._reader.pack(number)
        if number not in self._blocks:
            self._blocks[number] = {place.id: place.block for place in pack.directory.iter_chunks()}
        block = self._blocks[number][name]
        if (number, block) not in self._right:
            for _ in pack.blocks([block]):
                self._right.add((number, block))


class OpenedContents:
    """Opens the objects that were read, snapshot by snapshot.

    Args:
        repository: Read up to its head.
        objects: The objects, and which of them were read.
        recovery: The key that opens them.
        scratch: Directory on local disk for temporary files.
        workers: Executors.
        progress: Receives the number of tree entries.
        found: Receives what is wrong.
        place: Where workers in other processes open the store. None: the executors are
            threads, which use the open store.
    """

    def __init__(
        self,
        repository: Repository,
        objects: NeededObjects,
        recovery: RecoveryKey,
        *,
        scratch: Path,
        workers: Workers,
        progress: Progress,
        found: Found,
        place: Place | None = None,
    ) -> None:
        self._repository = repository
        self._place = place
        self._objects = objects
        self._recovery = recovery
        self._scratch = scratch
        self._workers = workers
        self._progress = progress
        self._found = found
        self._faulty: dict[Key, frozenset[int]] = {}  # blocks of packs that do not open
        self._last_tree: tuple[Any, int] | None = (
            None  # the last tree found right, and the number of its entries
        )
        self.opened: set[Key] = set()  # packs of which every block was tried
        self.chunks = 0
        self.entries = 0

    def check(self, record: Record) -> None:
        """Check every chunk of the packs that were read and not opened yet, and the whole tree."""
        try:
            self._check(record)
        except _UNREADABLE as error:
            self._is_closed(record, error)
        except StorageError as error:
            self._found.is_unread((f"ledger {record.seq}", b"", 0), error)
            self._found.doubtful.add(record.seq)

    def _check(self, record: Record) -> None:
        with tempfile.TemporaryDirectory(dir=self._scratch) as directory:
            # without the index: check what a restore would fall back to
            reader = Reader(
                self._repository,
                self._recovery.recipient,
                record,
                scratch=Path(directory),
                use_index=False,
            )
            try:
                if any(key_of(ref) in self._found.unread for ref in reader.inventory.objects):
                    self._found.doubtful.add(record.seq)  # the store would not give it now either
                else:
                    self._check_snapshot(reader, record)
            finally:
                reader.close()

    def _is_closed(self, record: Record, error: VaultError) -> None:
        """Note that nothing of a snapshot can be opened."""
        subject = f"ledger {record.seq}"
        if isinstance(error, WrongKeyError) and not self._must_open(record):
            self._is_unopened(record)
            return
        problem = _sealed_otherwise(error) or error.message
        self._found.note(subject, problem)
        self._found.concerns(record, problem)

    def _is_unopened(self, record: Record) -> None:
        """Note a snapshot sealed before a root listed this recovery key: not checked, no fault."""
        if record.seq not in self._found.unopened:
            self._found.unopened.add(record.seq)
            problem = "not opened: the repository did not list this recovery key from its beginning"
            self._found.note(f"ledger {record.seq}", problem, severity=Severity.WARNING)

    def _must_open(self, record: Record) -> bool:
        """Whether each root up to a snapshot lists this key, so that it must open all of it."""
        roots = _roots(self._repository.ledger, record.seq)
        return all(_lists(root, self._recovery) for root in roots)

    def _check_snapshot(self, reader: Reader, record: Record) -> None:
        tree = (reader.body.tree, tuple(reader.inventory.objects))
        if self._last_tree is not None and tree == self._last_tree[0]:
            self.entries += self._last_tree[1]  # the same tree was found right before
            return
        self._last_tree = None
        try:
            reader.load_packs()
        finally:
            self._note_unreadable(reader, record)
        if record.seq in self._found.unopened:
            return
        self._open_packs(reader)
        walk = self._walk(reader)
        self.entries += walk.entries
        if record.seq not in self._found.hit and not walk.problem:
            self._last_tree = (tree, walk.entries)

    def _note_unreadable(self, reader: Reader, record: Record) -> None:
        """Note packs whose directory can't be read; the others are checked all the same."""
        refs = {ref.name: ref for ref in reader.inventory.objects}
        for name, error in reader.unreadable.items():
            problem = _sealed_otherwise(error)
            if problem and not self._must_open(record):
                self._is_unopened(record)
            else:
                wrong = IntegrityError(f"{name} {problem}") if problem else error
                self._found.is_wrong(key_of(refs[name]), wrong)

    # --- packs ---

    def _open_packs(self, reader: Reader) -> None:
        """Check every chunk of the packs that were read and not opened yet."""
        tried = self._objects.right.union(self._found.wrong)
        packs = {
            key: pack
            for pack in reader.packs().values()
            if (key := key_of(pack.ref)) in tried and key not in self.opened
        }
        workers = self._workers
        work = open_pack
        if self._place is None:
            work = partial(open_pack, objects=self._repository)
        tasks = (self._task(reader, pack) for pack in packs.values())
        for task, future in in_order(workers.compute, work, tasks, limit=workers.in_flight):
            key = key_of(task.ref)
            try:
                result = future.result()
                if result.is_of_other_session:
                    result = open_blocks(packs[key])  # with the recovery key
            except StorageError as error:
                self._found.is_unread(key, error)
                continue
            self._take(reader, packs[key], result)

    def _task(self, reader: Reader, pack: PackReader) -> PackTask:
        assert pack.session is not None  # no index object was asked
        return PackTask(
            place=self._place,
            ref=pack.ref,
            entry=pack.as_entry(),
            repository_id=self._repository.id,
            session=pack.session,
            id_key=reader.secrets.id_key,
        )

    def _take(self, reader: Reader, pack: PackReader, result: OpenedPack) -> None:
        """Count what opening a pack gave; have its chunks sought elsewhere if it is unreadable."""
        key = key_of(pack.ref)
        self._found.gave()
        self.opened.add(key)
        self.chunks += result.chunks
        for version in result.versions:
            self._repository.objects.note_version(pack.ref, version)
        if result.given_up is not None:
            reader.give_up(pack, result.given_up)
        if result.error is not None:
            self._faulty[key] = result.faulty
            self._found.is_wrong(key, result.error)

    def _faulty_chunks(self, reader: Reader) -> set[bytes]:
        """Ids of the chunks in blocks that do not open."""
        ids: set[bytes] = set()
        for pack in reader.packs().values():
            faulty = self._faulty.get(key_of(pack.ref))
            if faulty:
                ids.update(
                    place.id for place in pack.directory.iter_chunks() if place.block in faulty
                )
        return ids

    # --- trees ---

    def _walk(self, reader: Reader) -> _Walk:
        """Check the whole tree: every chunk that a file names must lie in a pack that opens."""
        faulty = self._faulty_chunks(reader)
        if not faulty and not reader.unreadable:
            try:
                return _Walk(entries=self._walk_fast(reader))
            except IntegrityError as error:
                first = error
        else:
            first = None
        walk = self._walk_carefully(reader, faulty)
        if first is not None:
            walk.problem = walk.problem or first.message
        if walk.problem:
            subject = f"ledger {reader.record.seq}"
            self._found.note(subject, f"{walk.what}: {walk.problem}")
        self._found.concerns(
            reader.record,
            walk.problem,
            files=tuple(walk.files),
            file_count=walk.file_count if walk.listed else None,
            after=walk.after,
            loose=0 if walk.file_count or walk.after is not None else self._loose(reader),
        )
        return walk

    def _loose(self, reader: Reader) -> int:
        """How many packs that are read as substitutes have a lock that ends too early."""
        if self._repository.parameters.lock_mode is LockMode.NONE:
            return 0  # nothing is locked at all
        until = reader.body.until
        return sum(not self._lasts(ref, until) for ref in reader.substitutes.values())

    def _lasts(self, ref: ObjectRef, until: datetime) -> bool:
        try:
            retention = self._repository.store.status(ref.name, ref.version).retention
        except ObjectNotFoundError:
            return False
        return retention is not None and retention.until >= until

    def _walk_fast(self, reader: Reader) -> int:
        """Check a tree and count its entries; raises at the first fault."""
        files: list[tuple[Entry, int]] = []  # checked together; each with its number of chunks
        names: list[bytes] = []
        entries = 0
        for entry, _ in reader.tree():
            assert entry is not None
            entries += 1
            if entry.type is not EntryType.FILE:
                continue
            if entry.chunk_list is not None or entry.hole_list is not None:
                _check_giant(reader, entry)
                continue
            ids = next(reader.chunks_of(entry), ())
            names += ids
            files.append((entry, len(ids)))
            if len(files) >= LOOKED_UP or len(names) >= LOOKED_UP:
                _check_files(reader, files, names)
                files, names = [], []
        _check_files(reader, files, names)
        return entries

    def _walk_carefully(self, reader: Reader, faulty: set[bytes]) -> _Walk:
        """Find every file whose content can't be had, in a tree with a fault."""
        walk = _Walk()
        flaws = Flaws()
        elsewhere = _Elsewhere(reader, faulty)
        last: bytes | None = None
        try:
            for entry, _ in reader.tree(flaws):
                walk.entries += 1
                if entry is None:
                    continue
                last = entry.path
                problem = elsewhere.problem_of(entry)
                if problem:
                    walk.add(entry.path, problem)
        except IntegrityError as error:
            walk.problem = walk.problem or error.message
            walk.after = last
            walk.listed = last is not None
        self._note_flaws(walk, flaws)
        return walk

    @staticmethod
    def _note_flaws(walk: _Walk, flaws: Flaws) -> None:
        """Note entries that were skipped, and where the tree ends early."""
        for bad in flaws.named:
            walk.add(bad.path or b"?", f"a tree entry {bad.problem}")
        walk.file_count += flaws.count - len(flaws.named)
        if flaws.end is not None:
            walk.after = flaws.end.after
            walk.problem = walk.problem or flaws.end.error.message


def _sealed_otherwise(error: VaultError) -> str:
    """The problem, if an object is sealed to other keys; empty for any other error."""
    return "is not sealed to this recovery key" if isinstance(error, WrongKeyError) else ""


def _check_files(
    reader: Reader, files: Sequence[tuple[Entry, int]], names: Sequence[bytes]
) -> None:
    """Check the chunks of some files in one look-up; raises as `_check_chunks`."""
    found = iter(_check_chunks(reader, names))
    for entry, count in files:
        _check_extent(reader, entry, sum(at.length for at in itertools.islice(found, count)))


def _check_giant(reader: Reader, entry: Entry) -> None:
    """Check a file whose lists lie outside its entry, in pieces; raises as `_check_chunks`."""
    size = 0
    for names in reader.chunks_of(entry):
        size += sum(at.length for at in _check_chunks(reader, names))
    _check_extent(reader, entry, size)


def _check_extent(reader: Reader, entry: Entry, size: int) -> None:
    """Pass if the chunks, ``size`` bytes, and the holes make up the whole file.

    Raises:
        IntegrityError: They are not, or the list of its holes is broken.
    """
    if entry.hole_list is not None:
        for _ in reader.holes_of(entry):
            pass
    expected = entry.size - hole_size(entry)
    if size != expected:
        raise DigestMismatchError(
            "the chunks of a file are not as long as it is",
            expected=f"{expected} bytes",
            found=f"{size} bytes",
        )


def _check_chunks(reader: Reader, names: Sequence[bytes]) -> list[ChunkPlace]:
    """The places of chunks, all of them in data packs.

    Raises:
        IntegrityError: One lies in no data pack.
    """
    found = reader.find_all(names)
    for number in {location.pack for location in found}:
        pack = reader.pack(number)
        if pack.kind is not ObjectType.DATA:
            raise FormatError(f"file content lies in {pack.ref.name}, a pack of another type")
    return found
