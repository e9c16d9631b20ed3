"""Sizes, deduplication and what is owed, from public data alone.

Manifests and inventories are signed and readable without a key, so a person who
watches backups needs none (docs/design.md "Objects").
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from vault.errors import IntegrityError
from vault.ledger.chain import Ledger
from vault.ledger.records import Record
from vault.repository.repository import Repository, snapshot_body

# --- sizes ---


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
    """Sizes of some snapshots; bytes."""

    snapshots: tuple[int, ...]  # seq
    failed: Mapping[int, IntegrityError]  # by seq: left out, as their inventory can't be read
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

    One whose inventory is missing or wrong is left out.
    """
    needed: dict[str, int] = {}
    readable: list[Record] = []
    failed: dict[int, IntegrityError] = {}
    for record in records:
        try:
            inventory = repository.inventory(record)
        except IntegrityError as error:
            failed[record.seq] = error
            continue
        readable.append(record)
        refs = (repository.inventory_ref(record), *inventory.bases, *inventory.objects)
        needed.update((ref.name, ref.size) for ref in refs)
    counts = [snapshot_body(record).counts for record in readable]
    return Stats(
        snapshots=tuple(record.seq for record in readable),
        failed=failed,
        files=sum(each.files for each in counts),
        size=sum(each.size for each in counts),
        objects=len(needed),
        stored=sum(needed.values()),
        added_size=sum(each.added_size for each in counts),
        added_bytes=sum(each.added_bytes for each in counts),
    )


def owed(ledger: Ledger, records: Iterable[Record], now: datetime) -> list[Record]:
    """Those that are still to be kept, or held; the others may be gone."""
    held = ledger.held()
    return [
        record for record in records if record.seq in held or ledger.effective_until(record) > now
    ]


def newest_complete(ledger: Ledger, dataset: str) -> Record | None:
    """The newest snapshot of a dataset that misses nothing; None if none is complete."""
    records = reversed(ledger.snapshots(dataset))
    return next((record for record in records if snapshot_body(record).complete), None)
