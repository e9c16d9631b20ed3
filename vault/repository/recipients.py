"""What a recipient that a root takes away can still open, and until when. Pure."""

import dataclasses
from collections.abc import Iterable, Iterator
from datetime import datetime

from vault.crypto.keys import recipient_id
from vault.encoding import b64decode_strict
from vault.ledger.chain import Ledger
from vault.ledger.records import Record
from vault.ledger.statements import Recipient, ResealBody, StatementType
from vault.model import Id
from vault.repository.datasets import owed
from vault.repository.repository import snapshot_body


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class StillOpen:
    """What stays open to a recipient after a root that leaves it out."""

    name: str
    id: Id
    snapshots: int  # still to be kept, or held
    datasets: tuple[str, ...]
    through: int  # seq of the last of them; -1 without one
    until: datetime | None  # when the last of them may go; None without one
    held: int  # of these, without an end
    domains: tuple[str, ...]  # whose secrets it keeps

    def lines(self) -> list[str]:
        """The same for people, a sentence each."""
        who = f"{self.name} ({str(self.id)[:16]})"
        closed = f"runs that begin after this root seal nothing to {who}"
        if self.until is None:
            return [closed, f"no snapshot that is kept opens with the key of {who}"]
        many = f"{self.snapshots} snapshot{'' if self.snapshots == 1 else 's'}"
        text = (
            f"the key of {who} still opens {many} of {', '.join(self.datasets)}, up to number"
            f" {self.through}, until they are gone: the last may go from"
            f" {self.until:%Y-%m-%d} on"
        )
        if self.held:
            text += f", and {self.held} held without an end"
        shared = "packs that later snapshots share with those stay open to it while they are kept"
        secrets = (
            f"it keeps the secrets of the domains {', '.join(self.domains)}: with them it can tell"
            " whether a file that it has is stored; a host that is enrolled anew gets new ones"
        )
        return [closed, text, shared, secrets]


def still_open(ledger: Ledger, recipient: Recipient, now: datetime) -> StillOpen:
    """What a recipient could open at the head, as the ledger tells it.

    Args:
        ledger: Read up to its head.
        recipient: One of a root.
        now: Snapshots that had to be kept until before it are not counted.
    """
    public = b64decode_strict(recipient.public)
    opened = list(_opened(ledger, public, owed(ledger, ledger.snapshots(), now)))
    holds = ledger.held()
    domains = {
        domain.name for each in opened if (domain := ledger.writer_for(each).domain) is not None
    }
    return StillOpen(
        name=recipient.name,
        id=recipient_id(public),
        snapshots=len(opened),
        datasets=tuple(sorted({snapshot_body(each).dataset for each in opened})),
        through=max((each.seq for each in opened), default=-1),
        until=max(map(ledger.effective_until, opened), default=None),
        held=sum(each.seq in holds for each in opened),
        domains=tuple(sorted(domains)),
    )


def _opened(ledger: Ledger, public: bytes, records: Iterable[Record]) -> Iterator[Record]:
    """Of these snapshots, those that were sealed to a recipient, or resealed."""
    covered = -1
    for record in ledger.valid(StatementType.RESEAL):
        assert isinstance(record.body, ResealBody)
        if record.body.recipient == str(recipient_id(public)):
            covered = max(covered, record.body.through)
    for record in records:
        if record.seq <= covered or public in ledger.authority_at(record.seq).recipients:
            yield record
