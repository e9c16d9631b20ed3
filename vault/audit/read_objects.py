"""The part of an audit that reads: bytes against digests, headers, and cited attestations."""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from functools import partial

from vault.audit.sealing import Recipients, sealed_to
from vault.custody.findings import Findings
from vault.custody.needs import Need, Needs
from vault.custody.sampling import Sample
from vault.errors import (
    FormatError,
    ObjectNotFoundError,
    StorageError,
    StorageUnavailableError,
)
from vault.ledger.records import Record
from vault.ledger.statements import ATTESTED, EventBody, VerificationBody
from vault.machine.workers import Workers, in_order
from vault.model import Code, Digest, Id
from vault.progress import Progress
from vault.repository import attestations
from vault.repository.objects import MAX_EVIDENCE
from vault.repository.repository import Repository
from vault.storage.double_check import ask_twice
from vault.storage.names import evidence_name

_HEADERS = 32  # headers and attestations being read at the same time; they are small


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ReadTotals:
    """Counts of objects and bytes read."""

    read: int = 0  # objects whose bytes were hashed here
    bytes_read: int = 0
    packs_read: int = 0
    headers: int = 0  # packs whose header was seen, those read whole among them


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    """Result of reading one object."""

    is_there: bool = True
    digest: Digest | None = None  # None: only its header was asked for
    sealed: frozenset[Id] | None = None  # None: it is not sealed, or the store shows no bytes
    problem: str = ""  # of its header


class DataReading:
    """Reads needed objects; changes nothing.

    Args:
        repository: Read up to its head.
        needs: Rows whose right version was located.
        findings: Receives the findings.
        workers: Executors.
        progress: Called with objects and bytes.
    """

    def __init__(
        self,
        repository: Repository,
        needs: Needs,
        findings: Findings,
        *,
        workers: Workers,
        progress: Progress,
    ) -> None:
        self._store = repository.store
        self._ledger = repository.ledger
        self._needs = needs
        self._findings = findings
        self._workers = workers
        self._progress = progress
        self._recipients = Recipients(repository.ledger)
        self.totals = ReadTotals()

    # --- bytes and headers ---

    def read(self, sample: Sample) -> None:
        """Hash a sample of the packs and all other objects not read yet; peek at other headers."""
        rows = [need for need in self._needs if need.located and not need.is_hashed]
        chosen = sample.choose([need.name for need in rows])
        wanted = [need for need in rows if need.name in chosen]
        others = [need for need in rows if need.name not in chosen]
        self._progress.expect(files=len(wanted), size=sum(need.stored_size for need in wanted))
        self._each(self._hash, wanted, self._workers.in_flight)
        self._each(self._peek, others, _HEADERS)

    def _each(self, look: Callable[[Need], _Seen], needs: Iterable[Need], limit: int) -> None:
        for need, future in in_order(self._workers.transfer, look, needs, limit=limit):
            self._take(need, future)

    def _hash(self, need: Need) -> _Seen:
        """Hash the whole object; a result that would be a finding is read a second time."""

        def ask() -> _Seen:
            try:
                data = self._bytes(need, need.stored_size + 1)
            except ObjectNotFoundError:
                return _Seen(is_there=False)
            seen = _Seen(digest=Digest.of(data))
            return _with_header(need, seen, lambda size: data[:size])

        return ask_twice(need.name, ask, lambda seen: seen.digest == need.sha256)

    def _peek(self, need: Need) -> _Seen:
        """Read the header alone; without the right to read packs none, which the counts show."""

        def ask() -> _Seen:
            try:
                return _with_header(need, _Seen(), partial(self._bytes, need))
            except ObjectNotFoundError:
                return _Seen(is_there=False)

        try:
            return ask_twice(need.name, ask, lambda seen: seen.is_there and not seen.problem)
        except StorageUnavailableError:
            raise
        except StorageError:
            return _Seen()

    def _bytes(self, need: Need, size: int) -> bytes:
        assert need.located is not None
        return self._store.get(need.name, need.located.version, length=size)

    def _take(self, need: Need, future: Future[_Seen]) -> None:
        seen = future.result()
        if not seen.is_there:
            self._bad(need, Code.MISSING, f"{need.name} is missing", "", "")
            return
        if seen.digest is not None:
            self._progress.advance(files=1, size=need.stored_size)
            self._count(read=1, bytes_read=need.stored_size, packs_read=int(need.is_pack))
            if seen.digest != need.sha256:
                problem = "stored bytes are not what was signed"
                self._bad(need, Code.WRONG_BYTES, problem, f"{need.sha256}", f"{seen.digest}")
                return
        self._check_seal(need, seen)

    def _check_seal(self, need: Need, seen: _Seen) -> None:
        if seen.problem:
            self._bad(
                need, Code.NOT_SEALED_TO, "header does not say who can open it", "", seen.problem
            )
        if seen.sealed is None:
            return
        self._count(headers=int(need.is_pack))
        missing = self._recipients.objection(seen.sealed, need.modified)
        if missing:
            self._bad(
                need,
                Code.NOT_SEALED_TO,
                "not sealed to a recipient of the root, who can't open it",
                missing,
                ", ".join(f"{key}"[:16] for key in sorted(seen.sealed)),
            )

    def _bad(self, need: Need, code: Code, problem: str, expected: str, found: str) -> None:
        need.is_bad = True
        self._findings.add(code, need.name, problem, expected=expected, found=found)

    def _count(self, **amounts: int) -> None:
        changed = {name: getattr(self.totals, name) + more for name, more in amounts.items()}
        self.totals = dataclasses.replace(self.totals, **changed)

    # --- attestations that events cite ---

    def check_events(self) -> None:
        """Open the attestation of every event: a statement alone does not prove that it exists."""
        events = self._ledger.valid(*ATTESTED)
        for record, future in in_order(
            self._workers.transfer, self._objections, events, limit=_HEADERS
        ):
            for each in future.result()[:1]:
                self._findings.add(
                    Code.ATTESTATION,
                    f"ledger {record.seq}",
                    f"{record.type} is not borne out by what it cites: {each.what}",
                    expected=each.statement,
                    found=each.attestation,
                )

    def _objections(self, record: Record) -> Sequence[attestations.Contradiction]:
        """Differences between an event and its attestation; a missing one is reported elsewhere."""
        assert isinstance(record.body, EventBody | VerificationBody)
        for need in self._needs.of(evidence_name(record.body.attestation)):
            if need.located is not None:
                return ask_twice(
                    need.name, partial(self._objections_to, record, need), lambda found: not found
                )
        return ()

    def _objections_to(self, record: Record, need: Need) -> Sequence[attestations.Contradiction]:
        try:
            data = self._bytes(need, MAX_EVIDENCE + 1)
        except ObjectNotFoundError:
            return ()
        return attestations.objections(data, record, self._ledger)


def _with_header(need: Need, seen: _Seen, read: Callable[[int], bytes]) -> _Seen:
    if not need.is_sealed:
        return seen
    try:
        return dataclasses.replace(seen, sealed=sealed_to(read))
    except FormatError as error:
        return dataclasses.replace(seen, problem=str(error))
