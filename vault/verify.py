"""Checking stored bytes against what was signed (design.md 6, audit and verify).

Without a secret key: every object of a snapshot has the size and the SHA-256 that
its signed inventory says. With the recovery key: every block opens, every chunk
is what its id says, and the tree gives the signed commitment.
"""

import dataclasses
import tempfile
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from vault.bodies import WHOLE_SHARE, name_packs
from vault.errors import IntegrityError, VaultError
from vault.keyfile import RecoveryKey
from vault.ledger import Record
from vault.model import EntryType, Finding, ObjectRef, ObjectType, Severity
from vault.progress import NO_PROGRESS, Progress
from vault.reader import PackReader, Reader
from vault.repository import Repository
from vault.sampling import WHOLE, Sample
from vault.tree import Flaws
from vault.workers import Workers, in_order

_LOOKED_UP = 512  # chunks at once
_BAD_TOLD = 10_000  # packs that an attestation names; more would not fit
_MAX_FLAWS = 1_000  # findings about entries of one tree


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class VerifyReport:
    """What was looked at and what was found."""

    snapshots: tuple[int, ...]  # seq
    objects: int  # that the snapshots need
    bytes: int  # of those
    objects_read: int  # whose bytes were read and hashed
    bytes_read: int
    chunks: int  # opened and checked against their ids; 0 without a recovery key
    entries: int  # of trees that were gone through
    opened: bool  # packs were opened with the recovery key
    sample: Sample  # which packs were to be read
    through: int  # seq of the head when it was read
    ranges: tuple[tuple[int, int], ...]  # of seqs that hold these snapshots and no other
    bad: tuple[str, ...]  # ids of packs found wrong
    cleared: tuple[str, ...]  # of packs that a statement calls bad and that were read right
    findings: tuple[Finding, ...]

    @property
    def passed(self) -> bool:
        """Whether nothing is wrong."""
        return not any(finding.severity is Severity.ERROR for finding in self.findings)

    @property
    def verdict(self) -> str:
        """Of "passed", "partial" (only a sample was read), "failed"."""
        if not self.passed:
            return "failed"
        return "passed" if self.objects_read == self.objects else "partial"

    def claims(self) -> dict[str, Any]:
        """What the statement about it says."""
        return {
            "snapshots": self.ranges,
            "share": self.objects_read * WHOLE_SHARE // self.objects if self.objects else 0,
            "opened": self.opened,
            "read": self.bytes_read,
            "through": self.through,
            "nonce": self.sample.nonce.hex(),
            "slice": self.sample.slice,
            **name_packs(self.bad, self.cleared),
        }

    def details(self) -> dict[str, Any]:
        """For an attestation."""
        return {
            "bad_packs": list(self.bad[:_BAD_TOLD]),
            "snapshots": len(self.snapshots),
            "objects": self.objects,
            "bytes": self.bytes,
            "objects_read": self.objects_read,
            "bytes_read": self.bytes_read,
            "chunks": self.chunks,
            "entries": self.entries,
            "seed": self.sample.seed,
            "findings": [
                f"{finding.severity}: {finding.subject}: {finding.problem}"[:200]
                for finding in self.findings[:100]
            ],
            "finding_count": len(self.findings),
        }


def verify(
    repository: Repository,
    records: Sequence[Record],
    *,
    sample: Sample = WHOLE,
    recovery: RecoveryKey | None = None,
    scratch: Path,
    workers: Workers,
    progress: Progress = NO_PROGRESS,
) -> VerifyReport:
    """Check what the snapshots need; never stops at the first finding.

    Args:
        repository: Read up to its head.
        records: Valid snapshots.
        sample: Which packs to read; everything else always is.
        recovery: Opens what is read.
        scratch: Directory on local disk for temporary files.
        workers: Executors.
        progress: Told objects and bytes.
    """
    run = _Run(repository, workers, progress, sample)
    run.check_ciphertext(records)
    if recovery is not None:
        for record in records:
            run.check_plaintext(record, recovery, scratch)
    return run.report(records)


def _open(pack: PackReader) -> tuple[int, IntegrityError | None]:
    """How many chunks of a pack are right, and what is wrong with the first that is not."""
    chunks = 0
    try:
        for number, _ in pack.blocks(range(len(pack.directory.blocks))):
            chunks += pack.directory.blocks[number].chunks
    except IntegrityError as error:
        return chunks, error
    return chunks, None


def _pack_id(name: str) -> str:
    return name.rpartition("/")[2]


class _Run:
    """Collects what one verification sees."""

    def __init__(
        self, repository: Repository, workers: Workers, progress: Progress, sample: Sample
    ) -> None:
        self._repository = repository
        self._workers = workers
        self._progress = progress
        self._sample = sample
        self._head = repository.head
        self._findings: list[Finding] = []
        self._needed: dict[str, ObjectRef] = {}
        self._read: set[str] = set()
        self._bad: set[str] = set()
        self._opened: set[str] = set()
        self._chunks = 0
        self._entries = 0
        self._last_tree: tuple[Any, int] | None = None  # what the last one was; its entries

    # --- without keys ---

    def check_ciphertext(self, records: Iterable[Record]) -> None:
        """Presence and size of everything needed; SHA-256 of the sample."""
        for record in records:
            try:
                inventory = self._repository.inventory(record)
            except IntegrityError as error:
                self._error(f"ledger {record.seq}", error)
                continue
            refs = [self._repository.inventory_ref(record), *inventory.bases, *inventory.objects]
            self._needed.update((ref.name, ref) for ref in refs)
        sample = self._sample.choose(self._needed)
        self._progress.expect(
            files=len(sample), size=sum(self._needed[name].size for name in sample)
        )
        self._check_presence(name for name in self._needed if name not in sample)
        self._read_all(sorted(sample))

    def _check_presence(self, names: Iterable[str]) -> None:
        for name in names:
            ref = self._needed[name]
            sizes = self._repository.sizes(ref)
            if ref.size not in sizes:
                problem = "object has the wrong size" if sizes else "object is missing"
                self._finding(name, problem, str(ref.size), ", ".join(map(str, sizes)))
                self._bad.add(name)

    def _read_all(self, names: Sequence[str]) -> None:
        workers = self._workers
        for name, future in in_order(workers.transfer, self._hash, names, limit=workers.in_flight):
            self._take(name, future)

    def _hash(self, name: str) -> int:
        return len(self._repository.read(self._needed[name]))

    def _take(self, name: str, future: Future[int]) -> None:
        try:
            size = future.result()
        except IntegrityError as error:
            self._error(name, error)
            self._bad.add(name)
            return
        self._read.add(name)
        self._progress.advance(files=1, size=size)

    # --- with the recovery key ---

    def check_plaintext(self, record: Record, recovery: RecoveryKey, scratch: Path) -> None:
        """Every chunk of the packs that were read, and the whole tree."""
        with tempfile.TemporaryDirectory(dir=scratch) as directory:
            try:
                # not by the index: what a restore would fall back to is what is checked
                reader = Reader(
                    self._repository,
                    recovery.recipient,
                    record,
                    scratch=Path(directory),
                    use_index=False,
                )
            except IntegrityError as error:
                self._error(f"ledger {record.seq}", error)
                return
            try:
                self._check_snapshot(reader, record)
            finally:
                reader.close()

    def _check_snapshot(self, reader: Reader, record: Record) -> None:
        tree = (reader.body.tree, tuple(reader.inventory.objects))
        if self._last_tree is not None and tree == self._last_tree[0]:
            self._entries += self._last_tree[1]  # was right, and nothing changed since
            return
        entries, findings = self._entries, len(self._findings)
        try:
            reader.load_packs()
            self._report_unreadable(reader)
            self._open_packs(reader)
            self._check_tree(reader)
        except IntegrityError as error:
            self._error(f"ledger {record.seq}", error)
        is_right = len(self._findings) == findings
        self._last_tree = (tree, self._entries - entries) if is_right else None

    def _report_unreadable(self, reader: Reader) -> None:
        """Packs whose directory can't be read; what lies in the others is checked all the same."""
        for name, error in reader.unreadable.items():
            if name not in self._bad:
                self._error(name, error)
            if isinstance(error, IntegrityError):
                self._bad.add(name)

    def _open_packs(self, reader: Reader) -> None:
        """Every chunk of the packs that were read and not opened yet."""
        packs = (
            pack
            for pack in reader.packs().values()
            if pack.ref.name in self._read and pack.ref.name not in self._opened
        )
        workers = self._workers
        for pack, future in in_order(workers.compute, _open, packs, limit=workers.in_flight):
            self._opened.add(pack.ref.name)
            chunks, error = future.result()
            self._chunks += chunks
            if error is not None:
                self._error(pack.ref.name, error)
                self._bad.add(pack.ref.name)

    def _check_tree(self, reader: Reader) -> None:
        """The whole tree; every chunk that a file names lies in a pack that the snapshot needs."""
        names: list[bytes] = []
        flaws = Flaws()
        for entry, _ in reader.tree(flaws):
            self._entries += 1
            if entry is None:
                continue
            if entry.type is EntryType.FILE and entry.size:
                names += reader.chunks_of(entry)
            if len(names) >= _LOOKED_UP:
                self._check_chunks(reader, names)
                names.clear()
        self._check_chunks(reader, names)
        self._report_flaws(reader.record, flaws)

    def _report_flaws(self, record: Record, flaws: Flaws) -> None:
        """Names of files stay out of `Finding.problem`, which an attestation makes public."""
        for bad in flaws.named[:_MAX_FLAWS]:
            path = "a name that can't be read" if bad.path is None else repr(bad.path[:200])
            self._finding(
                f"ledger {record.seq}", f"a tree entry {bad.problem}", "", f"{path} {bad.found}"
            )
        if flaws.count > _MAX_FLAWS:
            more = f"{flaws.count - _MAX_FLAWS} more entries of the tree are bad"
            self._finding(f"ledger {record.seq}", more, "", "")
        if flaws.end is not None:
            after = repr(flaws.end.after[:200])
            problem = f"the tree can't be read to its end: {flaws.end.error.message}"
            self._finding(f"ledger {record.seq}", problem, "", f"what follows {after} is missing")

    def _check_chunks(self, reader: Reader, names: Sequence[bytes]) -> None:
        for number in {location.pack for location in reader.find_all(names)}:
            pack = reader.pack(number)
            if pack.kind is not ObjectType.DATA:
                self._finding(pack.ref.name, "file content in a pack of another type", "", "")

    # --- what was found ---

    def _error(self, subject: str, error: VaultError) -> None:
        self._finding(
            subject,
            error.message.removeprefix(f"{subject} "),
            "" if error.expected is None else str(error.expected),
            "" if error.found is None else str(error.found),
        )

    def _finding(self, subject: str, problem: str, expected: str, found: str) -> None:
        self._findings.append(
            Finding(
                severity=Severity.ERROR,
                subject=subject,
                problem=problem,
                expected=expected,
                found=found,
            )
        )

    def report(self, records: Sequence[Record]) -> VerifyReport:
        """All of it."""
        ledger = self._repository.ledger
        right = {_pack_id(name) for name in self._opened - self._bad}
        return VerifyReport(
            opened=bool(self._opened),
            through=self._head.seq,
            ranges=ledger.ranges({record.seq for record in records}),
            bad=tuple(sorted(_pack_id(name) for name in self._bad if name.startswith("packs/"))),
            cleared=tuple(sorted(right & ledger.bad_packs().keys())),
            snapshots=tuple(record.seq for record in records),
            objects=len(self._needed),
            bytes=sum(ref.size for ref in self._needed.values()),
            objects_read=len(self._read),
            bytes_read=sum(self._needed[name].size for name in self._read),
            chunks=self._chunks,
            entries=self._entries,
            sample=self._sample,
            findings=(*self._findings, *self._repository.findings),
        )
