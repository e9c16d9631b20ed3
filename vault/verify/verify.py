"""One verification from beginning to end; never stops at the first finding."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from vault.crypto.key_files import RecoveryKey
from vault.custody.sampling import WHOLE, Sample
from vault.ledger.records import Record
from vault.ledger.succession import snapshot_ranges
from vault.machine.workers import Workers
from vault.progress import NO_PROGRESS, Progress
from vault.repository.repository import Repository
from vault.storage.names import pack_name
from vault.verify.damage_found import KEPT_FINDINGS, Found
from vault.verify.object_task import Place
from vault.verify.verify_report import VerifyReport
from vault.verify.with_key import OpenedContents, require_recipient
from vault.verify.without_key import NeededObjects


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SoFar:
    """How far a verification has come; for a caller that interrupts it."""

    objects: int  # read
    objects_left: int
    snapshots_left: int  # to be opened
    wrong: int  # objects
    first_wrong: str


class Verification:
    """Checks what snapshots need.

    Args:
        repository: Read up to its head.
        records: Valid snapshots.
        sample: Which packs to read; all other objects are always read.
        recovery: The key that opens what is read; None: hashes are compared only.
        scratch: Directory on local disk for temporary files.
        workers: Executors.
        progress: Receives the number of objects and bytes.
        place: Where the store is, if the executors are pools of processes or a cluster:
            its workers open the store themselves (`vault.verify.object_task`). None: for threads.

    Raises:
        WrongKeyError: The recovery key is not that of a recipient.
    """

    def __init__(
        self,
        repository: Repository,
        records: Sequence[Record],
        *,
        sample: Sample = WHOLE,
        recovery: RecoveryKey | None = None,
        scratch: Path,
        workers: Workers,
        progress: Progress = NO_PROGRESS,
        place: Place | None = None,
    ) -> None:
        self._repository = repository
        self._records = records
        self._sample = sample
        self._through = repository.head.seq
        self._progress = progress
        self._found = Found()
        self._objects = NeededObjects(repository, workers, progress, self._found, place)
        self._contents = None
        self._to_open = len(records) if recovery is not None else 0
        if recovery is not None:
            require_recipient(repository.ledger, recovery)
            self._contents = OpenedContents(
                repository,
                self._objects,
                recovery,
                scratch=scratch,
                workers=workers,
                progress=progress,
                found=self._found,
                place=place,
            )

    def run(self) -> VerifyReport:
        """Check all the snapshots.

        Raises:
            StorageError: The store has stopped answering; that is not reported as damage.
        """
        self._objects.collect(self._records)
        self._objects.check(self._sample)
        unlisted = set(self._found.hit) | self._found.doubtful  # their inventories can't be read
        if self._contents is not None:
            self._progress.stage("opening snapshots")
            for record in self._records:
                if record.seq not in unlisted:
                    self._contents.check(record)
                self._to_open -= 1
        self._objects.concern(self._records)
        return self._report()

    def so_far(self) -> SoFar:
        """How far it has come; may be called at any time."""
        done = len(self._objects.right)
        return SoFar(
            objects=done,
            objects_left=max(0, self._objects.to_read - done),
            snapshots_left=self._to_open,
            wrong=len(self._found.wrong),
            first_wrong=self._first_wrong(),
        )

    def _first_wrong(self) -> str:
        key = next(iter(self._found.wrong), None)
        return f"{key[0]} {self._found.wrong[key]}" if key is not None else ""

    def _bad_packs(self) -> set[str]:
        """Ids of wrong packs, without those that are right as another snapshot names them."""
        wrong = {key[1] for key in self._found.wrong if key[0] == pack_name(key[1])}
        right = {key[1] for key in self._objects.right.difference(self._found.wrong)}
        return {each.hex() for each in wrong - right}

    def _report(self) -> VerifyReport:
        found, objects, ledger = self._found, self._objects, self._repository.ledger
        seqs = tuple(record.seq for record in self._records)
        tried = objects.right.union(found.wrong)
        opened = self._contents.opened if self._contents is not None else set()
        right = {key[1].hex() for key in opened.difference(found.wrong)}
        others = tuple(self._repository.findings)
        return VerifyReport(
            snapshots=seqs,
            objects=len(objects.needed),
            bytes=sum(size for _, _, size in objects.needed),
            objects_read=len(objects.right),
            bytes_read=objects.bytes_right,
            objects_tried=len(tried),
            bytes_tried=sum(size for _, _, size in tried),
            chunks=self._contents.chunks if self._contents is not None else 0,
            entries=self._contents.entries if self._contents is not None else 0,
            with_key=self._contents is not None,
            opened=self._contents is not None and bool(opened or self._contents.entries),
            sample=self._sample,
            through=self._through,
            ranges=snapshot_ranges(ledger.records, set(seqs)),
            bad=tuple(sorted(self._bad_packs())),
            cleared=tuple(sorted(right & ledger.bad_packs().keys())),
            wrong=len(found.wrong),
            first_wrong=self._first_wrong(),
            unread=tuple((key[0], problem) for key, problem in found.unread.items())[
                :KEPT_FINDINGS
            ],
            unread_count=len(found.unread),
            unopened=len(found.unopened),
            hits=tuple(found.hits[seq] for seq in sorted(found.hits)),
            hit_count=len(found.hit),
            whole=tuple(s for s in seqs if s not in found.hit | found.doubtful | found.unopened),
            findings=(*found.findings, *others),
            finding_count=found.finding_count + len(others),
        )


def verify_snapshots(
    repository: Repository,
    records: Sequence[Record],
    *,
    sample: Sample = WHOLE,
    recovery: RecoveryKey | None = None,
    scratch: Path,
    workers: Workers,
    progress: Progress = NO_PROGRESS,
    place: Place | None = None,
) -> VerifyReport:
    """Check what the snapshots need, as `Verification` does.

    Raises:
        WrongKeyError: The recovery key is not that of a recipient.
        StorageError: The store has stopped answering.
    """
    return Verification(
        repository,
        records,
        sample=sample,
        recovery=recovery,
        scratch=scratch,
        workers=workers,
        progress=progress,
        place=place,
    ).run()
