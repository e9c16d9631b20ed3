"""When statements were stored, when snapshots were taken, and until when they are owed.

Times in statements are claims of their signers; docs/format.md 2.6 says how far they count.
"""

import bisect
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from vault.clock import MAX_SKEW, to_rfc3339
from vault.errors import FormatError
from vault.ledger.records import Record
from vault.ledger.statements import EventBody, SnapshotBody, VerificationBody
from vault.model import Code, Finding, Severity
from vault.retention import RUN_MARGIN

_COPIED: Final = timedelta(hours=1)  # statement 0 stored that much after its time: a copy
_MAX_SPAN: Final = 100 * 366 * 86_400  # seconds: more is for ever


class Times:
    """The times of a chain's statements; each is added once, in their order."""

    def __init__(self) -> None:
        self._dates = _Earliest()
        self._longest: list[tuple[int, int]] = []  # seq of a root, and what it allows; seconds

    def add(self, record: Record) -> None:
        """The next statement, and when the store took it."""
        if record.is_dated:
            self._dates.add(record.seq, record.modified)

    def allow(self, seq: int, longest: int) -> None:
        """A root allows retention of so many seconds, from its seq on."""
        self._longest.append((seq, longest))

    def stored(self, record: Record) -> datetime:
        """When the store took a statement: the earliest time of it and its successors.

        Each of those names it, so none is older, and a writer can't date them back.
        """
        return self._dates.since(record.seq) or record.modified

    def is_copy(self, first: Record) -> bool:
        """Whether the objects were copied here: the store's times are then those of the copying.

        Args:
            first: Statement 0, whose time is pinned by its digest.
        """
        return first.time is not None and self.stored(first) > _later(first.time, _COPIED)

    def before(self, records: Sequence[Record], moment: datetime) -> int:
        """How many statements from the first were stored before a moment.

        In a copy the signers' claims count, none as earlier than its predecessor's: the store
        knows no better there.
        """
        if not records or not self.is_copy(records[0]):
            return bisect.bisect_left(records, moment, key=self.stored)
        latest = datetime.min.replace(tzinfo=UTC)
        for record in records:
            latest = max(latest, record.time or latest)
            if latest >= moment:
                return record.seq
        return len(records)

    def when(self, record: Record) -> datetime:
        """When a snapshot was taken, or an event ended: its claim, unless that lies in the future.

        Claims later than the store's time count as that: else one of 2099 would be the newest
        for good.
        """
        stored, claimed = self.stored(record), _claimed_time(record)
        return claimed if claimed <= _later(stored, MAX_SKEW) else stored

    def effective_until(self, record: Record) -> datetime:
        """Until when a snapshot is owed: its claim, as far as the root of that time allowed it.

        Raises:
            FormatError: The record is no snapshot.
        """
        claimed = _snapshot(record).until
        at = bisect.bisect_left(self._longest, (record.seq, 0))
        longest = timedelta(seconds=min(self._longest[at - 1][1], _MAX_SPAN))
        return min(claimed, _later(self.stored(record), longest + RUN_MARGIN + MAX_SKEW))

    def overclaims(self, snapshots: Iterable[Record]) -> Iterator[Finding]:
        """Claims of a time that does not count."""
        for record in snapshots:
            body = _snapshot(record)
            when, until = self.when(record), self.effective_until(record)
            if when != body.created:
                yield _overclaim(
                    record,
                    "snapshot claims to be taken after it was stored,"
                    f" and counts as taken at {to_rfc3339(when)}",
                    body.created,
                )
            if until != body.until:
                yield _overclaim(
                    record,
                    "snapshot claims to be kept longer than the root allows,"
                    f" and is owed until {to_rfc3339(until)}",
                    body.until,
                )


class _Earliest:
    """The earliest of the times from a number on, for every number; times come in their order."""

    def __init__(self) -> None:
        self._numbers: list[int] = []  # ascending; none has a later one with an earlier time
        self._times: list[datetime] = []

    def add(self, number: int, moment: datetime) -> None:
        """The time of the next number."""
        while self._times and self._times[-1] >= moment:
            self._times.pop()
            self._numbers.pop()
        self._numbers.append(number)
        self._times.append(moment)

    def since(self, number: int) -> datetime | None:
        """The earliest time of this number and all after it; None if they have none."""
        at = bisect.bisect_left(self._numbers, number)
        return self._times[at] if at < len(self._times) else None


def _overclaim(record: Record, problem: str, claimed: datetime) -> Finding:
    return Finding(
        severity=Severity.WARNING,
        subject=f"ledger {record.seq}",
        problem=problem,
        found=to_rfc3339(claimed),
        code=Code.OVERCLAIM,
    )


def _claimed_time(record: Record) -> datetime:
    """The time that a statement is about; its signer says so.

    Raises:
        FormatError: It is about none.
    """
    match record.body:
        case SnapshotBody() as body:
            return body.created
        case EventBody() | VerificationBody() as body:
            return body.finished
        case _:
            raise FormatError(f"ledger {record.seq} is about no time", found=record.type)


def _snapshot(record: Record) -> SnapshotBody:
    if not isinstance(record.body, SnapshotBody):
        raise FormatError(f"ledger {record.seq} is not a snapshot", found=record.type)
    return record.body


def _later(moment: datetime, span: timedelta) -> datetime:
    try:
        return moment + span
    except OverflowError:  # a store may state any time
        return datetime.max.replace(tzinfo=UTC)
