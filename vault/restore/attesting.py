"""Attestations of restores: only the process that proved signs (docs/design.md "Restore", I6).

It signs ``promoted: pending`` before TARGET is touched. The process that finishes the restore,
perhaps a later one, appends this attestation, or proves again and signs the new result. It
never calls a restore proven because a file says so: other programs could have written the file.
"""

import contextlib
import dataclasses
import logging
import tempfile
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from vault.crypto.key_files import RecoveryKey
from vault.crypto.keys import Signer
from vault.encoding import shown_path
from vault.errors import ConfigError, DigestMismatchError, VaultError
from vault.format.content_root import commitment
from vault.format.entry import Entry
from vault.ledger.kinds import name_packs
from vault.ledger.records import Record, Status
from vault.ledger.statements import StatementType, Verdict
from vault.ledger.warrants import Request
from vault.machine.workers import Workers
from vault.repository import attestations
from vault.repository.agreements import Intent, replacing, require_agreed, require_unasked
from vault.repository.attestations import Attestation
from vault.repository.pack_reader import StaleIndexError
from vault.repository.reader import Reader
from vault.repository.repository import Repository
from vault.restore.journal import EXCHANGED, Journal, Local, Subject
from vault.restore.prove import ProofReport, ReadBack, read_back
from vault.restore.syscalls import Fs
from vault.restore.undo_finalize import finalize

MAX_TOLD: Final = 10_000  # bad packs in an attestation
NOT_REPEATED: Final = "exchanged; proof not repeated"

_log = logging.getLogger(__name__)


class ProofFailedError(DigestMismatchError):
    """The restored tree on the disk differs from the signed one."""

    def __init__(self, proof: ProofReport) -> None:
        first = proof.mismatches[0] if proof.mismatches else None
        super().__init__(
            f"the restored tree is not what was signed: {proof.mismatch_count} differences",
            expected=f"{first.field} {first.expected} of {shown_path(first.path)}"
            if first
            else None,
            found=first.found if first else None,
            hint="TARGET is as it was; check the disk that staging was on, then try again",
        )
        self.proof = proof


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Replaces:
    """A restore exchanges live data."""

    warrant: int | None = (
        None  # seq of what people agreed to; None where the root wants no approval
    )
    agreed: Request | None = None  # the same, to be looked at again right before the exchange


def _used(repository: Repository, subject: Subject) -> int | None:
    """The statement that used what people agreed to for this restore, if one did."""
    request = None if subject.warrant is None else repository.ledger.carried(subject.warrant)
    return None if request is None else repository.ledger.used_by(request)


def _require_agreed(
    repository: Repository, recovery: RecoveryKey, snapshot: Record, subject: Subject
) -> None:
    """Pass if live data may be exchanged now, by a run that goes on with a restore.

    Raises:
        ConfigError: What people agreed to expired or was used, or they were not asked.
    """
    intent = replacement(snapshot, recovery.restorer.public.id)
    request = None if subject.warrant is None else repository.ledger.carried(subject.warrant)
    if request is None:
        require_unasked(repository.ledger, intent.kind, intent.body)
    else:
        require_agreed(repository.ledger, intent, request, now=repository.clock())


def replacement(snapshot: Record, restorer: str) -> Intent:
    """The restore of a snapshot over live data by a key of that id, as people agree to it."""
    body = replacing(snapshot.seq)
    return Intent(kind=StatementType.RESTORE, body=body, by=(restorer,))


class Attester:
    """Signs the result of this run, and records it in the ledger or in a file."""

    def __init__(
        self,
        repository: Repository,
        key: Signer,
        snapshot: Record,
        *,
        tool: str,
        replaces: Replaces | None = None,
    ) -> None:
        self._replaces = replaces
        self._repository = repository
        self._key = key
        self._snapshot = snapshot
        self._tool = tool
        self._started: datetime = repository.clock()
        self.bad: Mapping[str, VaultError] = {}  # packs by name: as the attempt at hand found them
        self.promoted = False  # TARGET is the new state: what fails now is no failed restore

    def sign(self, verdict: str, details: dict[str, Any]) -> bytes:
        """Sign an attestation of this run's verdict, of which TARGET becomes the new state."""
        if self._replaces is None:
            return self._signed(verdict, details, {})
        named = self._replaces.warrant
        resting = {} if named is None else {"warrant": named}
        return self._signed(verdict, details | resting, {"replaced": True})

    def _signed(self, verdict: str, details: dict[str, Any], claims: dict[str, Any]) -> bytes:
        seconds = (self._repository.clock() - self._started).total_seconds()
        attestation = attestations.attestation_of(
            self._repository,
            kind=StatementType.RESTORE,
            verdict=verdict,
            snapshot=self._snapshot,
            started=self._started,
            tool=self._tool,
            details={
                "seconds": round(seconds),
                "bad_packs": self._bad_ids[:MAX_TOLD],
                **void_details(self._snapshot),
                **details,
            },
            claims=name_packs(self._bad_ids, ()) | claims,
        )
        return attestations.sign(attestation, self._key)

    @property
    def _bad_ids(self) -> list[str]:
        return sorted(name.rpartition("/")[2] for name in self.bad)

    def require_agreed(self) -> None:
        """Pass if what people agreed to is still good, right before live data are exchanged.

        Raises:
            ConfigError: It expired while this run restored, or another restore used it.
        """
        if self._replaces is not None and self._replaces.agreed is not None:
            intent = replacement(self._snapshot, self._key.public.id)
            ledger, now = self._repository.ledger, self._repository.clock()
            require_agreed(ledger, intent, self._replaces.agreed, now=now)

    def record(self, data: bytes) -> Record | None:
        """Append an attestation to the ledger; None if the store refuses the write."""
        try:
            return attestations.record_attestation(
                self._repository, data, self._key, tool=self._tool
            )
        except (VaultError, OSError) as error:
            _log.warning("the attestation could not be recorded: %s", error)
            return None

    def failed(self, error: VaultError) -> None:
        """Attest a failure, with the class of the error: its message may name files.

        Once TARGET is the new state the restore has succeeded; an error after that is left to
        `finalize_restore`, and is not attested as a failure.
        """
        if self.promoted:
            return
        details: dict[str, Any] = {"error": type(error).__name__}
        if isinstance(error, ProofFailedError):
            details |= proof_details(error.proof)
        self.record(self._signed(attestations.verdict_of(error), details, {}))


def void_details(snapshot: Record) -> dict[str, Any]:
    """Why a snapshot that was restored all the same does not count; nothing of one that does."""
    return {} if snapshot.status is Status.VALID else {"void": snapshot.reason}


def proof_details(proof: ProofReport) -> dict[str, Any]:
    """Fields of an attestation that describe a proof."""
    return {
        "proof": proof.verdict,
        "entries": proof.entries,
        "bytes_read_back": proof.size,
        "evidence": {level.word: count for level, count in proof.evidence.items()},
        "root_matches": proof.root_matches,
        "mismatches": proof.mismatch_count,
        "skipped": proof.skipped,
    }


# --- finishing a restore ---


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Finalized:
    """A restore that is final: the former state is removed."""

    journal: Journal
    verdict: str | None = None  # that this run recorded; None: it was recorded before
    not_repeated: str | None = None  # why the attestation is only partial, where it is
    statement: Record | None = None  # that this run appended
    attestation_file: Path | None = None  # where the ledger could not be written


Keys = Callable[[], tuple[Repository, RecoveryKey]]
"""Opens the repository and the recovery key; called only if an attestation has to be made."""


def finalize_restore(
    keys: Keys,
    target: Path,
    *,
    local: Local,
    scratch: Callable[[], Path],
    workers: Workers,
    tool: str,
    again: bool = False,
    fs: Fs | None = None,
) -> Finalized:
    """Continue a restore that was killed, or remove the former state of one that ended.

    Args:
        keys: Opens the repository and the recovery key.
        target: TARGET.
        local: This user's state directory, name and host.
        scratch: Gives a directory on local disk for temporary files.
        workers: Executors.
        tool: Name and version of the program, for the attestation.
        again: Read the new state back even if it was exchanged already.
        fs: System calls.

    Raises:
        BusyError: A restore of this user to TARGET runs.
        ConfigError: No restore is unfinished, it was not proven, or it is of another repository.
        IntegrityError: The restored tree is not the one that was proven, or the ledger is
            another one.
        LocalError: The file system failed; the caller may try again.
    """
    calls = fs or Fs()
    finisher = _Finisher(keys, local=local, scratch=scratch, workers=workers, tool=tool, fs=calls)
    journal = finalize(
        target,
        state=local.state,
        prove=finisher.prove,
        record=finisher.record,
        again=again,
        fs=calls,
    )
    return (
        dataclasses.replace(finisher.done, journal=journal)
        if finisher.done
        else Finalized(journal=journal)
    )


class _Finisher:
    """Proves a restore again and appends its attestation; opens the repository only for that."""

    def __init__(
        self,
        keys: Keys,
        *,
        local: Local,
        scratch: Callable[[], Path],
        workers: Workers,
        tool: str,
        fs: Fs,
    ) -> None:
        self._keys = keys
        self._opened: tuple[Repository, RecoveryKey] | None = None
        self._local = local
        self._scratch = scratch
        self._workers = workers
        self._tool = tool
        self._fs = fs
        self.done: Finalized | None = None

    def prove(self, journal: Journal, fd: int) -> bytes:
        """Read the new state back and sign the result.

        Raises:
            IntegrityError: The new state is neither the snapshot nor the tree attested before.
        """
        repository, recovery, snapshot = self._open(journal)
        if journal.state not in EXCHANGED and journal.subject.replaces:
            _require_agreed(repository, recovery, snapshot, journal.subject)
        attester = self._attester(repository, recovery, snapshot, journal)
        key, signed, vast = self._signed_root(repository, recovery, snapshot)
        found = read_back(fd, executor=self._workers.compute, fs=self._fs, vast=vast)
        root = commitment(key, found.root).hex()
        earlier = self._kept(journal, repository)[0]
        attested = earlier.details.get("commitment") if earlier else None
        if found.foreign_links or root not in {signed, attested}:
            raise DigestMismatchError(
                "what was restored is not what was proven",
                expected=signed,
                found=f"{found.foreign_links} files with names elsewhere"
                if found.foreign_links
                else root,
                hint="TARGET is not what --finalize leads to, and nothing was removed: see what"
                " changed it, or take it back with restore --undo",
            )
        verdict = Verdict.PASSED if earlier is None or root == signed else earlier.verdict
        return attester.sign(verdict, self._details(journal, found, root, verdict))

    def record(self, journal: Journal) -> None:
        """Append the journal's attestation; if it can't be used, attest "proof not repeated"."""
        repository, recovery, snapshot = self._open(journal)
        earlier, missing = self._kept(journal, repository)
        if earlier is None:
            attester = self._attester(repository, recovery, snapshot, journal)
            data = attester.sign(
                Verdict.PARTIAL, self._place(journal) | {"proof": NOT_REPEATED, "kept": missing}
            )
        else:
            data = journal.attestation.encode("utf-8")
        self.done = Finalized(
            journal=journal,
            verdict=Verdict.PARTIAL if earlier is None else earlier.verdict,
            not_repeated=missing,
        )
        self.done = dataclasses.replace(self.done, **self._append(repository, recovery, data))

    def _attester(
        self, repository: Repository, recovery: RecoveryKey, snapshot: Record, journal: Journal
    ) -> Attester:
        subject = journal.subject
        is_told = _used(repository, subject) is not None  # what is said now replaces nothing more
        return Attester(
            repository,
            recovery.restorer,
            snapshot,
            tool=self._tool,
            replaces=Replaces(warrant=subject.warrant)
            if subject.replaces and not is_told
            else None,
        )

    def _append(self, repository: Repository, recovery: RecoveryKey, data: bytes) -> dict[str, Any]:
        try:
            statement = attestations.is_recorded(
                repository, data
            ) or attestations.record_attestation(
                repository, data, recovery.restorer, tool=self._tool
            )
        except (VaultError, OSError) as error:
            kept = attestations.keep(self._local.state, data)
            _log.warning("the attestation is kept as %s: %s", kept, error)
            return {"attestation_file": kept}
        return {"statement": statement}

    def _open(self, journal: Journal) -> tuple[Repository, RecoveryKey, Record]:
        if self._opened is None:
            self._opened = self._keys()
        repository, recovery = self._opened
        subject = journal.subject
        if subject.repository != repository.ledger.repository_id:
            raise ConfigError(
                "the restore came from another repository",
                expected=repository.ledger.repository_id,
                found=subject.repository,
            )
        return repository, recovery, _snapshot_of(repository, journal)

    def _kept(
        self, journal: Journal, repository: Repository
    ) -> tuple[Attestation | None, str | None]:
        """The attestation signed before the exchange, or the reason why it can't be used."""
        if not journal.attestation:
            return None, "the journal has no attestation"
        try:
            found = attestations.open_attestation(
                journal.attestation.encode("utf-8"), repository.ledger
            )
        except VaultError as error:
            return None, f"the attestation in the journal is not right: {error}"
        expected = {
            "kind": StatementType.RESTORE,
            "snapshot": journal.subject.snapshot,
            "manifest": journal.subject.digest,
            "host": self._local.host,
            "restore": journal.id,
        }
        there = {
            "kind": found.kind,
            "snapshot": found.snapshot,
            "manifest": found.manifest,
            "host": found.details.get("host"),
            "restore": found.details.get("restore"),
        }
        other = [name for name, value in expected.items() if there[name] != value]
        if other or found.verdict not in {Verdict.PASSED, Verdict.PARTIAL}:
            return None, f"the attestation in the journal is of another {' and '.join(other)}"
        return found, None

    def _signed_root(
        self, repository: Repository, recovery: RecoveryKey, snapshot: Record
    ) -> tuple[bytes, str, set[bytes]]:
        """Key of the commitment, the commitment that the manifest signs, and `_vast`."""
        for use_index, by_digest in ((True, False), (False, False), (False, True)):
            try:
                with (
                    tempfile.TemporaryDirectory(
                        dir=self._scratch(), ignore_cleanup_errors=True
                    ) as scratch,
                    contextlib.closing(
                        Reader(
                            repository,
                            recovery.recipient,
                            snapshot,
                            scratch=Path(scratch),
                            use_index=use_index,
                            by_digest=by_digest,
                        )
                    ) as reader,
                ):
                    reader.load_packs()
                    vast = _vast(entry for entry, _ in reader.tree())  # to its end: proven last
                    return reader.tree_header.key, reader.body.tree.commitment, vast
            except StaleIndexError as error:
                _log.warning("%s", error)
        raise AssertionError("what was believed only after its digest was checked can't be stale")

    def _place(self, journal: Journal) -> dict[str, Any]:
        return {"host": self._local.host, "restore": journal.id, "finalized": True}

    def _details(
        self, journal: Journal, found: ReadBack, root: str, verdict: str
    ) -> dict[str, Any]:
        return self._place(journal) | {
            "promoted": "done" if journal.state in EXCHANGED else "pending",
            "proof": verdict,
            "entries": found.entries,
            "bytes_read_back": found.size,
            "evidence": {level.word: count for level, count in found.evidence.items()},
            "commitment": root,
            "findings": len(self._opened[0].findings) if self._opened else 0,
        }


def _vast(entries: Iterable[Entry]) -> set[bytes]:
    """Paths of entries that have a tree hash, among them files restored in place of hard links."""
    vast: set[bytes] = set()
    for entry in entries:
        if entry.tree_hash is not None or entry.link in vast:
            vast.add(entry.path)
    return vast


def _snapshot_of(repository: Repository, journal: Journal) -> Record:
    """The manifest that a journal names.

    Raises:
        DigestMismatchError: The ledger has another statement under that number.
    """
    records = repository.ledger.records
    seq, digest = journal.subject.snapshot, journal.subject.digest
    found = records[seq] if 0 <= seq < len(records) else None
    if found is None or str(found.digest) != digest:
        raise DigestMismatchError(
            f"ledger {seq} is not the snapshot that was restored",
            expected=digest,
            found=found.digest if found else "nothing",
        )
    return found
