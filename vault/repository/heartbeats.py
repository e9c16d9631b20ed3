"""Heartbeats: a host says when it will sign again, and is silent once that has passed."""

import dataclasses
from collections.abc import Iterator
from datetime import datetime, timedelta

from vault.clock import to_rfc3339
from vault.crypto.keys import Signer
from vault.ledger.chain import Ledger
from vault.ledger.records import Record
from vault.ledger.statements import HeartbeatBody, StatementType
from vault.model import Code, Digest, Finding, Severity
from vault.repository.append_statements import Draft
from vault.repository.hosts import live_writers
from vault.repository.repository import Repository


def beat(
    repository: Repository, signer: Signer, *, every: timedelta, note: str, tool: str
) -> Record:
    """Append a heartbeat of this host.

    Args:
        repository: Where.
        signer: The host's key.
        every: Within that time the host will sign again.
        note: For people; public.
        tool: Goes into the statement.

    Raises:
        VaultError: As `Log.append`.
    """
    next_by = (repository.clock() + every).replace(microsecond=0)
    body = HeartbeatBody(note=note, next_by=next_by)
    subject = [("repository", Digest.of(repository.id))]
    draft = Draft(type=StatementType.HEARTBEAT, subject=subject, body=body)
    return repository.append(lambda _: draft, [signer], tool=tool)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SilentHost:
    """A host that said when it would sign again, and did not."""

    host: str
    key_id: str
    seq: int  # of its last statement
    next_by: datetime

    @property
    def finding(self) -> Finding:
        """An error about this host, and about no other."""
        return Finding(
            severity=Severity.ERROR,
            subject=f"host {self.host}",
            problem="it has not signed by the time that it gave itself",
            expected=to_rfc3339(self.next_by),
            found=f"ledger {self.seq} is its last statement",
            code=Code.SILENT,
        )


def silent_hosts(ledger: Ledger, now: datetime) -> Iterator[SilentHost]:
    """Hosts whose key is not revoked, and whose promise to sign again has passed.

    Any later snapshot or heartbeat of a key keeps its promise; only the last one makes a new one.
    """
    last: dict[str, Record] = {}
    for record in ledger.valid(StatementType.SNAPSHOT, StatementType.HEARTBEAT):
        last[record.key_id] = record
    for key_id, writer in live_writers(ledger).items():
        if key_id not in last or not isinstance(body := last[key_id].body, HeartbeatBody):
            continue
        if body.next_by is not None and body.next_by < now:
            seq = last[key_id].seq
            yield SilentHost(host=writer.name, key_id=key_id, seq=seq, next_by=body.next_by)
