"""What a ledger says so far, for those who judge its next statement. No I/O."""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

from vault.errors import FormatError
from vault.ledger.distrust import is_valid_but_for_distrust
from vault.ledger.records import Record
from vault.ledger.statements import HoldBody, SnapshotBody, WarrantBody
from vault.ledger.warrants import Request, carried_request
from vault.model import Digest

Holds: TypeAlias = Mapping[int, HoldBody]  # by the seq of the statement that holds


class Past:
    """What a ledger says so far, as far as what the next statement amounts to depends on it.

    Args:
        records: Of the chain; the caller goes on appending to them.
        holds: Gives the holds in force.
    """

    def __init__(self, records: Sequence[Record], holds: Callable[[], Holds]) -> None:
        self.holds = holds
        self._records = records
        self._used: dict[Digest, int] = {}  # request -> seq of the act that used it
        self._supposed: tuple[int, Request] | None = None

    def supposing(self, request: Request) -> "Past":
        """The same, with a request that the next statement would carry."""
        past = Past(self._records, self.holds)
        past._used = self._used
        past._supposed = (len(self._records), request)
        return past

    def take(self, record: Record) -> None:
        """A statement was linked; one that counts uses up the request that it rests on.

        One that is void for distrust alone does so too: a later root may let it count again, and a
        request acts once.
        """
        if record.warrant is None or not is_valid_but_for_distrust(record):
            return
        request = self.carried(record.warrant)
        if request is not None:
            self._used.setdefault(request.id, record.seq)

    def used_by(self, request: Request) -> int | None:
        """The seq of the act that used a request."""
        return self._used.get(request.id)

    def carried(self, seq: int) -> Request | None:
        """The request that a valid warrant carries; None if that statement carries none."""
        if self._supposed is not None and self._supposed[0] == seq:
            return self._supposed[1]
        record = self._at(seq)
        if record is None or not isinstance(record.body, WarrantBody):
            return None
        if not is_valid_but_for_distrust(record):
            return None
        try:
            return carried_request(record.body)
        except FormatError:
            return None

    def digest_at(self, seq: int) -> Digest | None:
        """The digest of a linked statement."""
        record = self._at(seq)
        return None if record is None else record.digest

    def snapshot_at(self, seq: int) -> tuple[Digest, str] | None:
        """Digest and dataset of a snapshot that counted when it was linked."""
        record = self._at(seq)
        if record is None or not isinstance(record.body, SnapshotBody):
            return None
        return (record.digest, record.body.dataset) if is_valid_but_for_distrust(record) else None

    def _at(self, seq: int) -> Record | None:
        return self._records[seq] if 0 <= seq < len(self._records) else None
