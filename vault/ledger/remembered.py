"""The ledger as this machine verified it, so that a start reads only what is new (ADR 0010).

One file a repository, beside the remembered head and trusted as that is. It costs nothing but
time to lose, and decides nothing alone: its reader looks whether the store still has every
statement and reads the newest one again (`vault.repository.repository`). Statements about keys
are kept as they were signed and verified again at every start.
"""

import hashlib
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final, get_args

import msgspec

from vault.errors import FormatError
from vault.ledger.chain import Ledger
from vault.ledger.envelope import Head
from vault.ledger.kinds import KINDS
from vault.ledger.records import Record, Status
from vault.ledger.statements import StatementType
from vault.machine import durable
from vault.machine.privacy import make_private
from vault.model import Body, Digest, Finding
from vault.storage.names import ledger_name
from vault.version import __version__

WORTHWHILE: Final = 64  # new statements that a file is written for; fewer are read again

_MAGIC: Final = b"vault ledger 1\n"
_DIGEST: Final = 32  # bytes, of all that follows
_MAX_FILE: Final = 1 << 30  # bytes; a million statements
_NOTHING: Final = msgspec.msgpack.encode(None)
# who may sign and who may read is verified anew
_PROOF: Final = frozenset({StatementType.ROOT, StatementType.WRITER, StatementType.WARRANT})

_log = logging.getLogger(__name__)


class _Row(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One statement."""

    digest: bytes
    type: str
    status: Status  # before anybody was distrusted
    reason: str
    body: msgspec.Raw
    by: tuple[str, ...]
    warrant: int | None
    key_id: str
    time: datetime | None
    modified: datetime
    is_dated: bool
    version: str
    critical: bool
    envelope: bytes  # of the types in `_PROOF`; else empty


class _File(msgspec.Struct, array_like=True, frozen=True):
    """All of a file behind its digest."""

    root: bytes
    program: str  # its version: another one may judge by other rules
    understood: dict[str, list[str]]  # names of fields by type: what was left out can't come back
    findings: list[Finding]
    rows: list[_Row]


@dataclass(frozen=True, slots=True, kw_only=True)
class Remembered:
    """A verified ledger up to a head; not empty."""

    rows: Sequence[_Row]
    findings: Sequence[Finding]  # of the store's ledger objects, before the head

    @property
    def head(self) -> Head:
        """Its last statement."""
        last = self.rows[-1]
        return Head(seq=len(self.rows) - 1, digest=Digest(last.digest), version=last.version)

    def replay(self, ledger: Ledger) -> None:
        """Fill an empty ledger with all but the head, which is for the caller to read.

        Raises:
            VaultError: What was remembered contradicts itself.
        """
        for seq, row in enumerate(self.rows[:-1]):
            if row.type in _PROOF:
                ledger.link(
                    row.envelope, version=row.version, modified=row.modified, is_dated=row.is_dated
                )
            else:
                ledger.relink(_record(seq, row))
            if ledger.records[seq].digest != row.digest:
                raise FormatError("the remembered ledger contradicts itself", found=f"seq {seq}")


class LedgerMemory:
    """Ledgers that this machine has verified.

    Args:
        state_dir: Where the remembered heads are, too.
    """

    def __init__(self, state_dir: Path) -> None:
        self._directory = state_dir / "ledgers"

    def recall(self, root: Digest) -> Remembered | None:
        """What is remembered of the repository with that root; None if nothing of use is."""
        try:
            with self._path(root).open("rb") as file:
                if os.fstat(file.fileno()).st_size > _MAX_FILE:
                    return None
                return _decode(file.read(), root)
        except FileNotFoundError:
            return None
        except (OSError, FormatError) as error:
            _log.info("the ledger is read from its start: %s", error)
            return None

    def remember(
        self, root: Digest, ledger: Ledger, findings: Sequence[Finding], *, until: Head
    ) -> None:
        """Keep a verified ledger up to ``until``; does nothing if that fails.

        Args:
            root: Digest of statement 0.
            ledger: All of it.
            findings: Of its objects in the store.
            until: The newest statement that no lost race can take back.
        """
        data = _encode(root, ledger.records[: until.seq + 1], findings)
        try:
            make_private(self._directory)
            # what a crash leaves half written has another digest
            durable.replace(self._path(root), data, durable=False)
        except OSError as error:
            _log.info("the ledger is not remembered: %s", error)

    def _path(self, root: Digest) -> Path:
        return self._directory / str(root)


def _encode(root: Digest, records: Sequence[Record], findings: Sequence[Finding]) -> bytes:
    head = ledger_name(records[-1].seq)
    file = _File(
        root=bytes(root),
        program=__version__,
        understood=_understood(),
        findings=[finding for finding in findings if finding.subject < head],
        rows=list(_rows(records)),
    )
    payload = msgspec.msgpack.encode(file)
    return b"".join((_MAGIC, hashlib.sha256(payload).digest(), payload))


def _understood() -> dict[str, list[str]]:
    """What this program takes in of every type: a body is kept with no other field than these."""
    return {str(kind): sorted(_field_names(known.shape)) for kind, known in KINDS.items()}


def _field_names(shape: type[Body], prefix: str = "") -> Iterator[str]:
    """Names of fields, with those of the structures inside as ``outer.inner``."""
    for field in msgspec.structs.fields(shape):
        name = prefix + field.encode_name
        yield name
        for inner in _structures(field.type):
            yield from _field_names(inner, f"{name}.")


def _structures(hint: Any) -> Iterator[type[Body]]:
    """The structures that a type is made of."""
    if isinstance(hint, type) and issubclass(hint, Body):
        yield hint
    for part in get_args(hint):
        yield from _structures(part)


def _rows(records: Sequence[Record]) -> Iterator[_Row]:
    encoder = msgspec.msgpack.Encoder()
    for record in records:
        trusted = record.distrusted_by is None
        yield _Row(
            digest=bytes(record.digest),
            type=record.type,
            status=record.status if trusted else Status.VALID,
            reason=record.reason if trusted else "",
            body=msgspec.Raw(encoder.encode(record.body)),
            by=record.by,
            warrant=record.warrant,
            key_id=record.key_id,
            time=record.time,
            modified=record.modified,
            is_dated=record.is_dated,
            version=record.version,
            critical=record.critical,
            envelope=record.envelope if record.type in _PROOF else b"",
        )


def _decode(data: bytes, root: Digest) -> Remembered:
    """What a file says.

    Raises:
        FormatError: It is damaged, or of another program or repository.
    """
    start = len(_MAGIC) + _DIGEST
    payload = memoryview(data)[start:]
    if data[:start] != _MAGIC + hashlib.sha256(payload).digest():
        raise FormatError("the remembered ledger is damaged")
    try:
        file = msgspec.msgpack.decode(payload, type=_File)
    except (msgspec.MsgspecError, ValueError) as error:
        raise FormatError("the remembered ledger is malformed", found=error) from error
    writer = (file.root, file.program, file.understood)
    if writer != (root, __version__, _understood()) or not file.rows:
        raise FormatError("the remembered ledger is another's")
    return Remembered(rows=file.rows, findings=file.findings)


def _record(seq: int, row: _Row) -> Record:
    return Record(
        seq=seq,
        digest=Digest(row.digest),
        type=row.type,
        status=row.status,
        reason=row.reason,
        body=_body(row),
        by=row.by,
        warrant=row.warrant,
        key_id=row.key_id,
        time=row.time,
        modified=row.modified,
        is_dated=row.is_dated,
        version=row.version,
        envelope=b"",
        critical=row.critical,
    )


def _body(row: _Row) -> Body | None:
    if bytes(row.body) == _NOTHING:
        return None
    try:
        return msgspec.msgpack.decode(row.body, type=KINDS[row.type].shape)
    except (KeyError, msgspec.MsgspecError, ValueError) as error:
        raise FormatError("the remembered ledger is malformed", found=error) from error
