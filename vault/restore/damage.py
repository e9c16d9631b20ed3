"""How far a restore came and what damage it met, for the message when it fails or is stopped."""

import dataclasses
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Final

from vault.errors import IntegrityError, StorageError, VaultError, WrongKeyError
from vault.format.entry import Entry
from vault.ledger.records import Record
from vault.model import EntryType
from vault.repository.reader import Reader
from vault.repository.repository import Repository, domain_ref, snapshot_body

NAMED_FILES: Final = 20  # damaged files that a message lists by name
LOOKED_AT: Final = 50  # other snapshots whose needs are compared with what is wrong
_LOOKED_UP: Final = 256  # files at once
_UNREADABLE: Final = (IntegrityError, WrongKeyError)


@dataclasses.dataclass(slots=True)
class Course:
    """A restore's progress, filled in as it runs: true at any moment it is stopped."""

    staging: Path | None = None  # directory made beside TARGET; may have been removed since
    promoted: bool = False  # TARGET is the new state
    objects: tuple[str, ...] = ()  # wrong or missing ones that all of the snapshot depends on
    packs: tuple[str, ...] = ()  # names of packs that were found wrong or missing
    files: tuple[bytes, ...] = ()  # the first files with content in those packs
    file_count: int | None = None  # number of all such files; None: not counted
    others: tuple[int, ...] = ()  # seq of the dataset's snapshots that need none of these

    @property
    def left(self) -> Path | None:
        """The staging directory, if the restore stopped before the exchange and left it there."""
        if self.promoted or self.staging is None:
            return None
        return self.staging if self.staging.is_dir() else None


def look_for_damage(
    course: Course,
    reader: Reader,
    wanted: Iterable[Entry],
    repository: Repository,
    *,
    missing: Collection[str] = (),
) -> None:
    """Note which packs are wrong, which of the wanted files they concern, and which snapshots not.

    Args:
        course: Receives the result.
        reader: The reader that the restore used.
        wanted: Entries that were to be restored.
        repository: Read up to its head.
        missing: Names of needed packs that the store does not have.
    """
    names = {*reader.bad, *reader.unreadable, *reader.replaced, *missing}
    course.packs = tuple(sorted(names))
    if not names:
        return
    course.others = tuple(_without(repository, reader.record, names))
    course.file_count = 0
    batch: list[Entry] = []
    for entry in wanted:
        if entry.type is EntryType.FILE and entry.size:
            batch.append(entry)
        if len(batch) >= _LOOKED_UP:
            _note_hit(course, reader, batch)
            batch.clear()
    _note_hit(course, reader, batch)


def look_before_packs(course: Course, record: Record, repository: Repository) -> None:
    """Note damaged objects other than packs, and the dataset's snapshots that don't need them.

    For a restore that failed before it could open a reader.
    """
    names = set(_wrong_before_packs(record, repository))
    course.objects = tuple(sorted(names))
    if names:
        course.others = tuple(_without(repository, record, names))


def _wrong_before_packs(record: Record, repository: Repository) -> Iterable[str]:
    try:
        repository.inventory(record)
    except IntegrityError:
        yield repository.inventory_ref(record).name  # this inventory, or one that it builds on
    except StorageError:
        pass
    domain = repository.ledger.writer_for(record).domain
    if domain is None:
        return
    try:
        repository.read(domain_ref(domain))
    except IntegrityError:
        yield domain.object
    except StorageError:
        pass


def _note_hit(course: Course, reader: Reader, batch: Iterable[Entry]) -> None:
    entries = list(batch)
    small = [entry for entry in entries if entry.chunk_list is None]
    is_well = _are_there(reader, (piece for entry in small for piece in reader.chunks_of(entry)))
    for entry in entries:
        if is_well and entry.chunk_list is None:
            continue
        if not _are_there(reader, reader.chunks_of(entry)):
            assert course.file_count is not None
            course.file_count += 1
            if len(course.files) < NAMED_FILES:
                course.files = (*course.files, entry.path)


def _are_there(reader: Reader, pieces: Iterable[Sequence[bytes]]) -> bool:
    """Whether each chunk lies in a pack that was not found wrong or missing."""
    try:
        for chunks in pieces:
            places = reader.find_all(chunks)
            if any(reader.pack(place.pack).ref.name in reader.bad for place in places):
                return False
    except _UNREADABLE:
        return False
    return True


def _without(repository: Repository, record: Record, names: Collection[str]) -> Iterable[int]:
    """Complete snapshots of the same dataset, newest first, that need none of these objects."""
    dataset = snapshot_body(record).dataset
    complete = [
        other
        for other in repository.ledger.snapshots(dataset)
        if other.seq != record.seq and snapshot_body(other).complete
    ]
    for other in reversed(complete[-LOOKED_AT:]):
        try:
            objects = repository.inventory(other).objects
        except (VaultError, StorageError):
            continue
        if not any(ref.name in names for ref in objects):
            yield other.seq
