"""Packs that were found wrong; writers treat them as absent (I7, docs/invariants.md).

What a restorer found is in the ledger. What a verification found without a key to sign it is kept
in the state directory of the host that ran it, and counts on that host alone.
"""

import dataclasses
import json
import logging
import os
import re
import stat
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from vault.encoding import dumps, loads_strict
from vault.errors import FormatError, IntegrityError, LocalError, VaultError
from vault.ledger.chain import Ledger
from vault.ledger.records import Record
from vault.ledger.statements import (
    ATTESTED,
    WHOLE_SHARE,
    EventBody,
    Role,
    StatementType,
    Verdict,
    VerificationBody,
)
from vault.machine import durable
from vault.machine.privacy import make_private
from vault.model import Digest
from vault.repository import attestations
from vault.repository.repository import Repository
from vault.storage.names import is_pack

_log = logging.getLogger(__name__)

MAX_READ: Final = 16  # attestations read, of statements that name only some bad packs
MAX_REMEMBERED: Final = 10_000  # packs in the file of one host
_MAX_FILE: Final = 2 << 20  # bytes; so many packs take half of it
_FORMAT: Final = 1
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_PACK_ID: Final = re.compile(r"[0-9a-f]{64}")


@dataclasses.dataclass(frozen=True, slots=True)
class Word:
    """The source of the claim that a pack is wrong."""

    seq: int  # that of the statement, or of the ledger's head when this host looked
    key_id: str = ""  # the key that signed it; "" if this host looked itself

    @property
    def is_own(self) -> bool:
        """Whether this host looked itself."""
        return not self.key_id


def words(repository: Repository, memory: "BadPackMemory | None" = None) -> dict[str, Word]:
    """Packs that are bad according to the latest word on each: hex id to the source.

    Args:
        repository: Read up to its head.
        memory: That of this host, if its own looks are to count.
    """
    ledger = repository.ledger
    signed = ledger.bad_packs(named=_Names(repository).of)
    found = {pack: Word(seq, ledger.records[seq].key_id) for pack, seq in signed.items()}
    for pack, own in memory.recall(repository).items() if memory is not None else ():
        if pack not in found and not _is_refuted(ledger, own):
            found[pack] = Word(own.head)
    return found


class _Names:
    """All packs that a statement calls bad: those it names, and more from its attestation."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._read: set[int] = set()
        ledger = repository.ledger
        for record in reversed(list(ledger.valid(*ATTESTED))):
            body = record.body
            assert isinstance(body, EventBody | VerificationBody)
            # no other key's statements take the room of a restorer's
            if body.bad_count > len(body.bad) and ledger.has_role(record, Role.RESTORER):
                self._read.add(record.seq)
                if len(self._read) == MAX_READ:
                    break

    def of(self, record: Record) -> Iterable[str]:
        """Hex ids; only those in the statement itself if its attestation is of no use."""
        assert isinstance(record.body, EventBody | VerificationBody)
        if record.seq not in self._read:
            return record.body.bad
        try:
            data = self._repository.read_evidence(Digest.parse(record.body.attestation))
            if attestations.objections(data, record, self._repository.ledger):
                raise FormatError("the attestation does not bear the statement out")
            attestation = attestations.open_attestation(
                data, self._repository.ledger, seq=record.seq
            )
            listed = attestation.details.get("bad_packs")
            if not isinstance(listed, list) or not all(map(_is_pack_id, listed)):
                raise FormatError("the attestation lists no packs")
        except IntegrityError as error:
            _log.warning("of the packs that ledger %d calls bad: %s", record.seq, error)
            return record.body.bad
        return {*record.body.bad, *listed}


def _is_pack_id(item: object) -> bool:
    return isinstance(item, str) and _PACK_ID.fullmatch(item) is not None


# --- what this host saw itself ---


@dataclasses.dataclass(frozen=True, slots=True)
class Own:
    """A pack that this host itself found wrong."""

    snapshot: int  # seq of a snapshot that needs the pack
    head: int  # seq of the ledger's head at that time


def _is_refuted(ledger: Ledger, own: Own) -> bool:
    """Whether a restorer has since read all of that snapshot and found it right."""
    return any(
        record.seq > own.head
        and body.verdict == Verdict.PASSED
        and body.share == WHOLE_SHARE
        and any(first <= own.snapshot <= last for first, last in body.snapshots)
        for record in ledger.valid(StatementType.VERIFICATION)
        if isinstance(body := record.body, VerificationBody)
    )


class BadPackMemory:
    """The packs that verifications on this host found wrong and could not sign for.

    A file that others could have written, or that is damaged, is ignored; the next
    verification replaces it.

    Args:
        state_dir: The state directory, which also holds the remembered heads.
    """

    def __init__(self, state_dir: Path) -> None:
        self._state = state_dir

    def recall(self, repository: Repository) -> dict[str, Own]:
        """The packs found wrong: hex id to what is known of each."""
        path = self._path(repository)
        try:
            data = _read(path)
            return {} if data is None else _decode(data, repository.ledger)
        except (OSError, VaultError) as error:
            _log.warning("what was remembered of bad packs is ignored: %s: %s", path, error)
            return {}

    def note(
        self,
        repository: Repository,
        records: Sequence[Record],
        bad: Collection[str],
        *,
        whole: bool,
    ) -> None:
        """Remember the result of a verification; packs that it found right are forgotten.

        Args:
            repository: The repository that was verified.
            records: The snapshots that were verified.
            bad: Hex ids of the packs found wrong.
            whole: All other packs were read and are right.

        Raises:
            LocalError: It can't be written.
        """
        known = self.recall(repository)
        if not bad and not known:
            return
        head = repository.head.seq
        seen = dict(known)
        for pack, snapshot in _needed_by(repository, records):
            if pack in bad:
                seen[pack] = Own(snapshot, head)
            elif whole:
                seen.pop(pack, None)
        if seen == known:
            return
        newest = sorted(seen.items(), key=lambda item: item[1].head, reverse=True)[:MAX_REMEMBERED]
        if len(newest) < len(seen):
            _log.warning("%d packs are wrong; %d are remembered", len(seen), len(newest))
        path = self._path(repository)
        try:
            make_private(path.parent)
            durable.replace(path, _encode(dict(newest), repository.ledger))
        except OSError as error:
            raise LocalError(f"can't remember bad packs in {path}", found=error.strerror) from error

    def _path(self, repository: Repository) -> Path:
        return self._state / repository.ledger.repository_id / "bad-packs.json"


def _needed_by(repository: Repository, records: Iterable[Record]) -> Iterator[tuple[str, int]]:
    """Every pack that the snapshots need, with the seq of each snapshot that needs it."""
    for record in records:
        try:
            objects = repository.inventory(record).objects
        except IntegrityError:
            continue
        for ref in objects:
            if is_pack(ref.name):
                yield ref.sha256.hex(), record.seq


def _read(path: Path) -> bytes | None:
    """The content of the file, if only this user can have written it.

    Raises:
        LocalError: Others may have written it, or it is too large.
    """
    try:
        fd = os.open(path, _READ)
    except FileNotFoundError:
        return None
    with os.fdopen(fd, "rb") as file:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
            raise LocalError("it is no file of this user's")
        if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise LocalError("others can write it", found=oct(stat.S_IMODE(found.st_mode)))
        data = file.read(_MAX_FILE + 1)
    if len(data) > _MAX_FILE:
        raise LocalError("it is too large", expected=f"at most {_MAX_FILE} bytes")
    return data


def _encode(packs: Mapping[str, Own], ledger: Ledger) -> bytes:
    return dumps(
        {
            "format": _FORMAT,
            "packs": {pack: [own.snapshot, own.head] for pack, own in packs.items()},
            "repository": ledger.repository_id,
        }
    )


def _decode(data: bytes, ledger: Ledger) -> dict[str, Own]:
    fields: Any = loads_strict(data)
    match fields:
        case {"format": 1, "packs": dict(packs), "repository": str(repository)} if (
            repository == ledger.repository_id and len(packs) <= MAX_REMEMBERED
        ):
            return {_pack_of(pack): _own_of(own) for pack, own in packs.items()}
    raise FormatError("it does not name packs of this repository", found=json.dumps(fields)[:80])


def _pack_of(item: object) -> str:
    if not _is_pack_id(item):
        raise FormatError("it names no pack", found=repr(item)[:80])
    assert isinstance(item, str)
    return item


def _own_of(item: object) -> Own:
    match item:
        case [int(snapshot), int(head)] if snapshot >= 0 and head >= 0:
            return Own(snapshot, head)
    raise FormatError("it does not say when a pack was seen", found=repr(item)[:80])
