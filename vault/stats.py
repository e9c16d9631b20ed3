"""Sizes, deduplication and the state of every dataset, from public data alone.

Manifests and inventories are signed and readable without a key, so whoever looks
after backups needs none (design.md 4, Objects).
"""

import dataclasses
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime, timedelta

from vault.ledger import Ledger, Record
from vault.model import EventBody, VerificationBody
from vault.repository import Repository, snapshot_body

_CHECKS = ("verification", "restore", "drill")
_VERDICTS = frozenset({"passed", "partial", "failed"})

# --- sizes ---


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
    """Sizes of some snapshots; bytes."""

    snapshots: tuple[int, ...]  # seq
    files: int  # of all snapshots, each counted where it is
    size: int  # of the content of all snapshots: what restoring each of them would write
    objects: int  # that are needed, each counted once
    stored: int  # of those
    added_size: int  # of content that was new when it was stored
    added_bytes: int  # that were stored for it

    @property
    def deduplication(self) -> float | None:
        """Bytes of content for each byte stored, compression included; None of nothing."""
        return self.size / self.stored if self.stored else None

    @property
    def compression(self) -> float | None:
        """Bytes of new content for each byte it was stored as; None of nothing."""
        return self.added_size / self.added_bytes if self.added_bytes else None


def measure(repository: Repository, records: Sequence[Record]) -> Stats:
    """Sizes of these snapshots together; an object that many need counts once.

    Raises:
        IntegrityError: An inventory is missing or wrong.
    """
    needed: dict[str, int] = {}
    for record in records:
        inventory = repository.inventory(record)
        refs = (repository.inventory_ref(record), *inventory.bases, *inventory.objects)
        needed.update((ref.name, ref.size) for ref in refs)
    counts = [snapshot_body(record).counts for record in records]
    return Stats(
        snapshots=tuple(record.seq for record in records),
        files=sum(each.files for each in counts),
        size=sum(each.size for each in counts),
        objects=len(needed),
        stored=sum(needed.values()),
        added_size=sum(each.added_size for each in counts),
        added_bytes=sum(each.added_bytes for each in counts),
    )


def owed(ledger: Ledger, records: Iterable[Record], now: datetime) -> list[Record]:
    """Those that are still to be kept, or held; the others may be gone."""
    held = ledger.holds()
    return [
        record for record in records if record.seq in held or ledger.effective_until(record) > now
    ]


# --- state ---


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """The last restore, drill or verification that says something of a dataset."""

    seq: int
    type: str
    verdict: str
    finished: datetime
    snapshot: int | None  # seq; None: it is about several


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class DatasetStatus:
    """How a dataset stands."""

    dataset: str
    snapshots: int  # that count, expired ones too
    owed: int  # of them, still to be kept or held
    newest: Record | None  # complete
    incomplete: Record | None  # newer than that one
    age: timedelta | None  # of the newest complete one, since its run began
    verification: Event | None
    restore: Event | None  # or drill


def status_of(ledger: Ledger, dataset: str, now: datetime) -> DatasetStatus:
    """By what the ledger says."""
    records = ledger.snapshots(dataset)
    newest = next((record for record in reversed(records) if snapshot_body(record).complete), None)
    last = records[-1] if records else None
    return DatasetStatus(
        dataset=dataset,
        snapshots=len(records),
        owed=len(owed(ledger, records, now)),
        newest=newest,
        incomplete=last if last is not newest else None,
        age=max(now - ledger.when(newest), timedelta()) if newest else None,
        verification=_last_event(ledger, records, "verification"),
        restore=_last_event(ledger, records, "restore", "drill"),
    )


def failed_check(ledger: Ledger, dataset: str) -> Event | None:
    """The newest failed check of a dataset, unless one has passed since; a sample passes nothing.

    Checks are verifications, restores and drills. One of several snapshots at once that
    failed may have failed for another dataset's sake.
    """
    records = ledger.snapshots(dataset)
    last = _last_event(ledger, records, *_CHECKS, verdicts={"passed", "failed"})
    return last if last is not None and last.verdict == "failed" else None


def _last_event(
    ledger: Ledger,
    records: Sequence[Record],
    *types: str,
    verdicts: Collection[str] = _VERDICTS,
) -> Event | None:
    """The newest of one of the snapshots, or of all there were at that time."""
    numbers = {record.seq for record in records}
    first = min(numbers, default=len(ledger.records))
    for record in reversed(list(ledger.valid(*types))):
        body = record.body
        assert isinstance(body, EventBody | VerificationBody)
        if body.verdict in verdicts and _is_about(body, numbers, was_there=first < record.seq):
            return Event(
                seq=record.seq,
                type=record.type,
                verdict=body.verdict,
                finished=ledger.when(record),
                snapshot=_only_snapshot(body),
            )
    return None


def _is_about(
    body: EventBody | VerificationBody, numbers: Collection[int], *, was_there: bool
) -> bool:
    if isinstance(body, VerificationBody):
        return any(first <= seq <= last for first, last in body.snapshots for seq in numbers)
    return body.snapshot in numbers or (body.snapshot is None and was_there)


def _only_snapshot(body: EventBody | VerificationBody) -> int | None:
    """The one snapshot that it is about; None of several."""
    if isinstance(body, EventBody):
        return body.snapshot
    first, last = body.snapshots[0][0], body.snapshots[-1][1]
    return first if first == last else None
