"""Checks without a secret key: objects are there with the signed size and SHA-256."""

from collections.abc import Iterable, Iterator, Sequence
from functools import partial

from vault.custody.sampling import Sample
from vault.errors import IntegrityError, StorageError
from vault.ledger.records import Record
from vault.machine.workers import Workers, in_order
from vault.model import ObjectRef
from vault.progress import Progress
from vault.repository.repository import Repository
from vault.verify.damage_found import NAMED_IN_HIT, Found, Key, key_of
from vault.verify.object_task import Look, Place, look, twice


class NeededObjects:
    """The objects that snapshots need, and which of them were read.

    Args:
        repository: Read up to its head.
        workers: Executors.
        progress: Receives the number of objects and bytes.
        found: Receives what is wrong.
        place: Where workers in other processes open the store. None: the executors are
            threads, which use the open store.
    """

    def __init__(
        self,
        repository: Repository,
        workers: Workers,
        progress: Progress,
        found: Found,
        place: Place | None = None,
    ) -> None:
        self._repository = repository
        self._place = place
        self._workers = workers
        self._progress = progress
        self._found = found
        self.needed: dict[Key, ObjectRef] = {}
        self.right: set[Key] = set()  # objects that were read and have the signed bytes
        self.bytes_right = 0
        self.to_read = 0  # objects

    # --- what is needed ---

    def collect(self, records: Iterable[Record]) -> None:
        """Read all inventories; an unreadable one is noted against its snapshot."""
        self._progress.stage("reading inventories")
        for record in records:
            for ref in self._refs(record):
                self.needed.setdefault(key_of(ref), ref)

    def _refs(self, record: Record) -> Sequence[ObjectRef]:
        """The objects that a snapshot needs; an unreadable inventory is noted and gives none."""
        subject = f"ledger {record.seq}"
        try:
            inventory = twice(partial(self._repository.inventory, record))
        except IntegrityError as error:
            if record.seq not in self._found.hit:
                self._found.concerns(record, self._found.error(subject, error))
            return ()
        except StorageError as error:
            self._found.is_unread((subject, b"", 0), error)
            self._found.doubtful.add(record.seq)
            return ()
        return [self._repository.inventory_ref(record), *inventory.bases, *inventory.objects]

    # --- looking ---

    def check(self, sample: Sample) -> None:
        """Read the sample; of all other objects check that they are there in the right size."""
        chosen = sample.choose({name for name, _, _ in self.needed})
        to_read = sorted(key for key in self.needed if key[0] in chosen)
        self.to_read = len(to_read)
        self._progress.expect(files=self.to_read, size=sum(size for _, _, size in to_read))
        self._progress.stage("looking for objects")
        others = (key for key in self.needed if key[0] not in chosen)
        for _ in self._each(others, is_read=False):
            pass
        self._progress.stage("reading objects")
        for key in self._each(to_read, is_read=True):
            self.right.add(key)
            self.bytes_right += key[2]
            self._progress.advance(files=1, size=key[2])

    def _each(self, keys: Iterable[Key], *, is_read: bool) -> Iterator[Key]:
        """The objects, of those given, with which nothing is wrong."""
        workers, place = self._workers, self._place
        work = look if place is not None else partial(look, store=self._repository.store)
        tasks = (Look(place=place, ref=self.needed[key], is_read=is_read) for key in keys)
        for task, future in in_order(workers.transfer, work, tasks, limit=workers.in_flight):
            key, looked = key_of(task.ref), future.result()
            if isinstance(looked.error, StorageError):
                self._found.is_unread(key, looked.error)
                continue
            if looked.error is not None:
                self._found.is_wrong(key, looked.error)
            else:
                if looked.version:
                    self._repository.objects.note_version(task.ref, looked.version)
                yield key
            self._found.gave()

    # --- the snapshots concerned ---

    def concern(self, records: Sequence[Record]) -> None:
        """Note for every snapshot which wrong objects it needs; reads inventories once more."""
        found = self._found
        if not found.wrong and not found.unread:
            return
        self._progress.stage("finding the snapshots that are hit")
        for record in records:
            keys = [key_of(ref) for ref in self._refs(record)]
            if any(key in found.unread for key in keys):
                found.doubtful.add(record.seq)
            wrong = [key for key in keys if key in found.wrong]
            if wrong:
                found.concerns(
                    record,
                    f"{wrong[0][0]} {found.wrong[wrong[0]]}",
                    objects=tuple(name for name, _, _ in wrong[:NAMED_IN_HIT]),
                    object_count=len(wrong),
                )
