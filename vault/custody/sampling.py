"""Which packs a verification or an audit reads: all, a sample, or a slice in turn. Pure.

A sample is drawn by a random nonce of the run, so that a writer who appends to the ledger before
the run can't choose the packs (docs/format.md 2.4). Slices need no luck: N runs read every pack.
"""

import dataclasses
import hashlib
import heapq
import math
import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Final

from vault.errors import ConfigError
from vault.ledger.chain import Ledger
from vault.ledger.records import Record
from vault.ledger.statements import (
    MAX_RANGES,
    WHOLE_SHARE,
    StatementType,
    Verdict,
    VerificationBody,
)
from vault.model import Digest
from vault.storage.names import is_drawn

SLICES: Final = 30  # a run a night reads every pack within a month
NONCE_SIZE: Final = 16  # bytes

_DOMAIN: Final = b"vault/sample/v1"
_SEED = re.compile(r"([0-9a-f]{32})(?:@(0|[1-9][0-9]{0,15}))?")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """The packs to read: all, a drawn share, or one slice."""

    share: float = 1.0  # of their number, 0 to 1
    nonce: bytes = b""  # of a drawn sample
    head: Digest | None = None  # of a drawn sample
    seq: int = 0  # of that head
    slice: tuple[int, int] | None = None  # K of N

    @property
    def is_whole(self) -> bool:
        """Whether every pack is to be read."""
        return self.slice is None and self.share >= 1

    @property
    def seed(self) -> str:
        """Value for ``--seed`` to draw the same sample again; empty if no sample was drawn."""
        return f"{self.nonce.hex()}@{self.seq}" if self.nonce else ""

    def choose(self, names: Collection[str]) -> set[str]:
        """Names of the objects to read: the chosen packs, and every object that is no pack."""
        if self.is_whole:
            return set(names)
        packs = [name for name in names if is_drawn(name)]
        chosen: Collection[str] = ()
        if self.slice is not None:
            part, slices = self.slice
            chosen = [name for name in packs if slice_of(name, slices) == part]
        elif self.share > 0:
            assert self.head is not None
            chosen = choose_sample(packs, self.share, head=self.head, nonce=self.nonce)
        return set(names).difference(packs).union(chosen)


WHOLE: Final = Sample()
NO_PACKS: Final = Sample(share=0.0)


def draw(share: float, *, ledger: Ledger, nonce: bytes) -> Sample:
    """A sample of so many of the packs, drawn by the ledger's head and a nonce.

    Args:
        share: From 0 to 1.
        ledger: As it is read.
        nonce: Random bytes of this run, `NONCE_SIZE` of them.
    """
    assert ledger.head is not None
    if share >= 1:
        return WHOLE
    return Sample(share=share, nonce=nonce, head=ledger.head.digest, seq=ledger.head.seq)


def draw_again(share: float, *, ledger: Ledger, seed: str) -> Sample:
    """The sample that an earlier run drew.

    Args:
        share: From 0 to 1, as then.
        ledger: Must hold the head of then.
        seed: ``HEX`` or ``HEX@SEQ`` as that run printed it. Without ``@SEQ``, the head is that of
            the recorded verification with that nonce, if there is one, else the present head.

    Raises:
        ConfigError: It is not a seed, or the ledger is shorter.
    """
    match = _SEED.fullmatch(seed)
    if match is None:
        raise ConfigError(
            "not a seed of a sample",
            expected="32 hex digits, as 'vault verify --read-data 5%' printed them",
            found=repr(seed[:60]),
        )
    nonce = bytes.fromhex(match[1])
    seq = int(match[2]) if match[2] else _recorded_head(ledger, match[1])
    head = ledger.digest_at(seq)
    if head is None:
        raise ConfigError(
            f"the ledger has no statement {seq}, which the seed names",
            found=f"{len(ledger.records)} statements",
        )
    return Sample(share=share, nonce=nonce, head=head, seq=seq)


def _recorded_head(ledger: Ledger, nonce: str) -> int:
    for _, body in _verifications(ledger):
        if body.nonce == nonce:
            return body.through
    return len(ledger.records) - 1


def choose_sample(names: Collection[str], share: float, *, head: Digest, nonce: bytes) -> list[str]:
    """So many of the names: those with the lowest hash of head, nonce and name.

    Args:
        names: To choose from.
        share: How many of them, from 0 to 1; rounded up.
        head: Digest of the ledger's head, which a user who picks the nonce beforehand can't know.
        nonce: Of the run, which a writer who appends to the ledger can't know.
    """
    wanted = math.ceil(len(names) * share)
    if wanted >= len(names):
        return list(names)
    prefix = hashlib.sha256(_DOMAIN + head + nonce)

    def rank(name: str) -> bytes:
        digest = prefix.copy()
        digest.update(name.encode())
        return digest.digest()

    return heapq.nsmallest(wanted, names, key=rank)


def slice_of(name: str, slices: int = SLICES) -> int:
    """Which slice a pack is in: the first four bytes of its id, big-endian, modulo their number."""
    return int(name.rpartition("/")[2][:8], 16) % slices


# --- slices in turn, by the ledger ---


def next_slice(ledger: Ledger, records: Iterable[Record]) -> Sample:
    """The slice whose last reading is oldest; one never read comes first, then the lowest number.

    Chosen by the ledger, not by the date: a run every 30 days would read the same slice for ever.

    Args:
        ledger: As it is read.
        records: Snapshots that are about to be verified.
    """
    read = slices_read(ledger, [record.seq for record in records])
    part = min(range(SLICES), key=lambda k: (read[k].seq if k in read else -1, k))
    return Sample(slice=(part, SLICES))


def slices_read(
    ledger: Ledger, seqs: Collection[int], believes: Callable[[Record], bool] = lambda _: True
) -> Mapping[int, Record]:
    """By slice, the last verification that read it for all these snapshots then in the ledger.

    A failed verification counts, too: it read its slice, and its findings are reported elsewhere.
    Otherwise a damaged pack that a lock keeps would have its slice read again for ever.

    Args:
        ledger: As it is read.
        seqs: Of snapshots.
        believes: Returns whether an event's attestation bears it out; called for few events.
    """
    wanted = sorted(seqs)
    found: dict[int, Record] = {}
    for record, body in _verifications(ledger):
        if not _covers(body, wanted):
            continue
        parts = [part for part in _slices_of(body) if part not in found]
        if parts and believes(record):
            found.update(dict.fromkeys(parts, record))
        if len(found) == SLICES:
            break
    return found


def _slices_of(body: VerificationBody) -> Iterable[int]:
    """Slices that a verification read whole."""
    if body.slice is not None:
        return (body.slice[0],) if body.slice[1] == SLICES else ()
    return range(SLICES) if body.share == WHOLE_SHARE else ()


def _verifications(ledger: Ledger) -> Iterable[tuple[Record, VerificationBody]]:
    """Those that count, newest first."""
    for record in reversed(list(ledger.valid(StatementType.VERIFICATION))):
        assert isinstance(record.body, VerificationBody)
        yield record, record.body


def _covers(body: VerificationBody, wanted: Sequence[int]) -> bool:
    """Whether a verification covers all of these snapshots that existed then, and at least one.

    A statement holds only the newest ranges; if it is full, older ones are in its attestation only.
    """
    start = body.snapshots[0][0] if len(body.snapshots) == MAX_RANGES else 0
    known = bisect_right(wanted, body.through) - bisect_left(wanted, start)
    covered = sum(
        bisect_right(wanted, last) - bisect_left(wanted, first) for first, last in body.snapshots
    )
    return 0 < known == covered


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """When all needed packs were last read back, whole or slice by slice."""

    slices: int  # N
    unread: int  # number of slices never read for the snapshots that are owed
    since: datetime | None  # every pack was read since then; None while one slice is unread
    through: int | None  # of all snapshots up to this seq; None while one slice is unread
    failed: bool = False  # one of these readings found a wrong or missing object

    @property
    def is_complete(self) -> bool:
        """Whether every slice was read."""
        return self.since is not None


def coverage(
    ledger: Ledger, records: Sequence[Record], believes: Callable[[Record], bool] = lambda _: True
) -> Coverage:
    """Coverage of these snapshots by the verifications in the ledger.

    Packs stored after `Coverage.through` were not read back yet. Times are when a run began, but
    at the latest when the store received its statement.

    Args:
        ledger: As it is read.
        records: Snapshots that are owed.
        believes: As for `slices_read`.
    """
    read = slices_read(ledger, [record.seq for record in records], believes)
    if len(read) < SLICES:
        return Coverage(slices=SLICES, unread=SLICES - len(read), since=None, through=None)
    bodies = [record.body for record in read.values()]
    return Coverage(
        slices=SLICES,
        unread=0,
        since=min(_read_at(ledger, record) for record in read.values()),
        through=min(body.through for body in bodies if isinstance(body, VerificationBody)),
        failed=any(
            body.verdict == Verdict.FAILED for body in bodies if isinstance(body, VerificationBody)
        ),
    )


def _read_at(ledger: Ledger, record: Record) -> datetime:
    assert isinstance(record.body, VerificationBody)
    return min(record.body.started, ledger.stored(record))
