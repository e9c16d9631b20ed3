"""Whether an act came in time by the store's clock, which its signer can't set. No I/O.

Claimed times decide what counts, since every reader has the same. A program that executes an act
asks this beside it, and so does an audit (docs/format.md 2.9).
"""

from datetime import datetime

from vault.clock import MAX_CLAIM_SKEW, to_rfc3339
from vault.ledger.chain import Ledger
from vault.ledger.records import Record


def lapse(ledger: Ledger, record: Record) -> str:
    """Why an act that rests on a warrant came too late; empty if it did not, or rests on none."""
    request = ledger.carried(record.warrant) if record.warrant is not None else None
    if request is None:
        return ""
    expires, stored = request.terms.expires, _stored(ledger, record)
    if stored <= expires + MAX_CLAIM_SKEW:
        return ""
    return f"its warrant expired at {to_rfc3339(expires)}; it was stored at {to_rfc3339(stored)}"


def _stored(ledger: Ledger, record: Record) -> datetime:
    """By the store; in a copy by claims, none taken as earlier than its predecessor's."""
    if not ledger.is_copy:
        return ledger.stored(record)
    claims = (each.time for each in ledger.records[: record.seq + 1])
    return max(time for time in claims if time is not None)
