"""What a ledger keeps of statements and of writers."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from vault.crypto.keys import VerifyKey
from vault.ledger.envelope import Head
from vault.ledger.statements import DomainRef
from vault.model import Body, Digest


class Status(StrEnum):
    """What a linked statement amounts to."""

    VALID = "valid"
    VOID = "void"  # linked, reported, without effect
    UNKNOWN = "unknown"  # of a type or version this program does not understand


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One linked statement."""

    seq: int
    digest: Digest  # SHA-256 of the PAE
    type: str
    status: Status
    reason: str  # why void or unknown; empty when valid
    body: Body | None  # of the type's shape; None when it has not that shape
    by: tuple[str, ...]  # ids of the keys that signed it
    warrant: int | None = None  # seq of the warrant that it names
    key_id: str  # the one it counts for
    time: datetime | None  # the signer's claim
    modified: datetime  # the store's time
    is_dated: bool = True  # whether that is when it was stored, and not when that was begun
    version: str  # the store's id of the version read
    envelope: bytes  # as stored; empty where only the judgement was remembered
    critical: bool  # marked so by keys that govern
    distrusted_by: int | None = None  # seq of the revocation that made it void

    @property
    def head(self) -> Head:
        """This record as a position."""
        return Head(seq=self.seq, digest=self.digest, version=self.version)


@dataclass(frozen=True, slots=True, kw_only=True)
class DistrustedSigner:
    """A key that a revocation or the root in force distrusts."""

    name: str  # of the host or of the root's key; empty if nothing lists it
    key: VerifyKey
    start: int  # seq; from there on


@dataclass(frozen=True, slots=True, kw_only=True)
class WriterInfo:
    """One enrolled writer key and since when it counts."""

    name: str  # of the host
    key: VerifyKey
    recipient: str  # base64 of the host's raw HPKE public key; may be empty
    datasets: tuple[str, ...]  # fnmatch patterns
    domain: DomainRef | None
    added: int  # seq
    revoked: int | None = None  # seq; unlisted from there on
    distrust_from: int | None = None  # seq; what it linked from there on is void
    replaces: str = ""  # id of the same host's key that it retired; empty if none
