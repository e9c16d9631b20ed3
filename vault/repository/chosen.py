"""The history that leads to a head which a person names, whatever is older at its numbers.

After a statement was removed two honest histories can exist, and the store's order decides for
one of them. Who knows a head of the other can still read and restore it; nothing is appended there.
"""

import dataclasses

from vault.errors import IntegrityError
from vault.ledger.chain import Ledger
from vault.ledger.envelope import Head, parse_envelope, parse_statement
from vault.model import Digest
from vault.repository.ledgerobjects import AT_ONCE, PageLines, at_once, batches, fetch, plausible
from vault.repository.read_statements import StoredLedger, digest_of
from vault.storage.base import ObjectStore, ObjectVersion
from vault.storage.names import ledger_name


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Step:
    """One statement of the way back from the head."""

    envelope: bytes
    version: ObjectVersion | None  # None where only a page has it


def choose_history(store: ObjectStore, read: StoredLedger, head: Head) -> StoredLedger | None:
    """The history up to a head, and what follows it; None if the store has not all of it.

    Args:
        store: Where the statements are.
        read: The history by the store's order, which has not that head; read from its root.
        head: As a person named it.
    """
    way: list[_Step] = []
    digest, seq = head.digest, head.seq
    while read.ledger.digest_at(seq) != digest:
        step = _step(store, seq, digest)
        if step is None or seq == 0:
            return None
        way.append(step)
        before = parse_statement(parse_envelope(step.envelope).payload).prev
        if before is None:
            return None
        digest, seq = before, seq - 1
    chosen = StoredLedger(store, Ledger(read.ledger.records[0].digest))
    try:
        for record in read.ledger.records[: seq + 1]:
            chosen.ledger.link(
                record.envelope,
                version=record.version,
                modified=record.modified,
                is_dated=record.is_dated,
            )
        for number, step in enumerate(reversed(way), seq + 1):
            chosen.take(number, step.envelope, step.version)
    except IntegrityError:
        return None
    chosen.chosen = head
    chosen.refresh()
    return chosen


def _step(store: ObjectStore, seq: int, digest: Digest) -> _Step | None:
    """The statement of that number and digest: of any version, else of a page."""
    for batch in batches(iter(plausible(store.versions_of(ledger_name(seq)))), AT_ONCE):
        with at_once() as threads:
            read = fetch(store, batch, threads)
        for version, envelope in zip(batch, read, strict=True):
            if envelope is not None and digest_of(envelope) == digest:
                return _Step(envelope=envelope, version=version)
    line = PageLines(store).line(seq)
    if line is not None and digest_of(line) == digest:
        return _Step(envelope=line, version=None)
    return None
