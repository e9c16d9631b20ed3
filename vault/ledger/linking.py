"""What links: the frozen rules that decide who owns a number of the ledger (docs/format.md 2.2).

Every reader of every version must come to the same answer, so nothing here depends on what a
statement says beyond the keys that a new root brings along.
"""

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

from vault.crypto.keys import VerifyKey
from vault.encoding import b64decode_strict
from vault.errors import (
    ConfigError,
    DigestMismatchError,
    FormatError,
    SignatureError,
    VaultError,
)
from vault.ledger.authority import Authority
from vault.ledger.envelope import Envelope, Statement, parse_envelope, parse_statement
from vault.ledger.keyring import Keyring
from vault.ledger.kinds import parse_body
from vault.ledger.statements import Role, RootBody, StatementType
from vault.model import Digest

UPGRADE: Final = "upgrade vault on this machine"


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A statement whose signatures hold; not yet linked."""

    envelope: Envelope
    statement: Statement
    digest: Digest

    @property
    def signers(self) -> tuple[str, ...]:
        """Ids of the keys that signed it: all that it names, and no other."""
        return self.statement.by


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """Where the next statement goes."""

    seq: int
    prev: Digest | None  # None at seq 0
    repository: str  # 32 hex digits; empty at seq 0
    root: Digest | None  # pinned, of statement 0; None takes it as it is


def check_link(data: bytes, position: Position, keyring: Keyring) -> Candidate:
    """The statement that an envelope holds, if it is link-valid at that position.

    Args:
        data: The envelope as stored, untrusted.
        position: The next one of the chain.
        keyring: Who may sign there.

    Raises:
        FormatError: It breaks the frozen grammar.
        DigestMismatchError: It does not follow, or is not the pinned root.
        SignatureError: Its signatures are not exactly those of the keys that it names, or none
            of them is listed.
        ConfigError: Statement 0 is a root of a version that this program does not know.
    """
    candidate = _parse(data)
    if position.seq == 0 and position.root not in (None, candidate.digest):
        raise DigestMismatchError(
            "ledger statement 0 is not the pinned root",
            expected=position.root,
            found=candidate.digest,
            hint="is this the right repository?",
        )
    _check_position(candidate.statement, position)
    if position.seq == 0:
        _check_first(candidate)
    else:
        _check_signed(candidate, keyring.listed)
    return candidate


def find_signed(
    data: bytes, seq: int, repository: str, keys: Mapping[str, VerifyKey]
) -> Candidate | None:
    """The statement that an envelope holds, if keys of these signed it for that number at all.

    Where it stands in no chain, it says that one was taken away, or that a key was stolen.

    Args:
        data: The envelope as stored, untrusted.
        seq: The one in the object's name.
        repository: 32 hex digits.
        keys: Who may sign, by id; one of them must.
    """
    try:
        candidate = _parse(data)
        if candidate.statement.seq != seq or candidate.statement.repository != repository:
            return None
        _check_signed(candidate, keys)
    except VaultError:
        return None
    return candidate


def _parse(data: bytes) -> Candidate:
    """The statement, if envelope and PAE are within the limits of its type."""
    envelope = parse_envelope(data)
    statement = parse_statement(envelope.payload)
    statement.check_size(envelope)
    return Candidate(envelope=envelope, statement=statement, digest=envelope.digest)


def _check_position(statement: Statement, position: Position) -> None:
    if statement.seq != position.seq:
        raise DigestMismatchError(
            "ledger statement has another seq", expected=position.seq, found=statement.seq
        )
    if position.seq and statement.repository != position.repository:
        raise DigestMismatchError(
            f"ledger statement {position.seq} belongs to another repository",
            expected=position.repository,
            found=statement.repository,
        )
    if statement.prev != position.prev:
        raise DigestMismatchError(
            f"ledger statement {position.seq} does not follow statement {position.seq - 1}",
            expected=position.prev,
            found=statement.prev,
        )


def _check_signed(candidate: Candidate, listed: Mapping[str, VerifyKey]) -> None:
    """All keys that it names signed it; each may, and one of them is listed."""
    statement = candidate.statement
    if listed.keys().isdisjoint(statement.by):
        raise SignatureError(f"ledger statement {statement.seq} is not signed by a listed key")
    _check_exactly(candidate, {**keys_brought(statement, statement.by), **listed})


def _check_exactly(candidate: Candidate, keys: Mapping[str, VerifyKey]) -> None:
    if not candidate.envelope.is_signed_by(candidate.statement.by, keys):
        raise SignatureError(
            f"ledger statement {candidate.statement.seq} has not the signatures it names",
            expected=" ".join(candidate.statement.by),
        )


def keys_brought(
    statement: Statement, wanted: Collection[str] | None = None
) -> dict[str, VerifyKey]:
    """Keys that a root of any version brings along, by id.

    What is no key in its list is passed over: a later version may list something else there.

    Args:
        statement: Of any type; only a root brings keys along.
        wanted: Ids of those that are asked for; all by default.
    """
    if statement.type != StatementType.ROOT or not statement.type_version:
        return {}
    found: dict[str, VerifyKey] = {}
    listed = statement.body.get("keys")
    for entry in listed if isinstance(listed, list) else ():
        key = _key_of(entry, wanted)
        if key is not None:
            found[key.id] = key
    return found


def _key_of(entry: Any, wanted: Collection[str] | None) -> VerifyKey | None:
    public = entry.get("public") if isinstance(entry, dict) else None
    if not isinstance(public, str):
        return None
    try:
        der = b64decode_strict(public)
        is_wanted = wanted is None or hashlib.sha256(der).hexdigest() in wanted
        return VerifyKey.from_der(der) if is_wanted else None
    except FormatError:
        return None


def _check_first(candidate: Candidate) -> None:
    """Statement 0 is believed for its digest, and must still satisfy its own threshold."""
    statement = candidate.statement
    if statement.type == StatementType.ROOT and statement.type_version > 1:
        raise ConfigError(
            "this version of vault is too old to read the repository",
            expected="root v1",
            found=f"root v{statement.type_version}",
            hint=UPGRADE,
        )
    if (statement.type, statement.type_version) != (StatementType.ROOT, 1) or statement.flaw:
        raise FormatError(
            "ledger statement 0 is not a root this program understands",
            expected="root v1",
            found=statement.flaw or f"{statement.type} v{statement.type_version}",
        )
    if statement.warrant is not None:
        raise FormatError("ledger statement 0 names a warrant, and nothing precedes it")
    body = parse_body(StatementType.ROOT, statement.body)
    assert isinstance(body, RootBody)
    authority = Authority.of(body)
    _check_exactly(candidate, authority.keys)
    if reason := authority.shortfall(Role.ROOT, statement.by):
        raise SignatureError(f"ledger statement 0: {reason}")
