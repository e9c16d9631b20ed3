"""One attempt at a restore (docs/design.md "Restore"), and its outcome: proven, partial, failed.

Ledger, manifest and tree are verified before the target is touched. Everything is built in
staging, read back from the disk, compared, and attested; only then does TARGET change, in one
step, and only then is the attestation recorded.
"""

import contextlib
import dataclasses
import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

from vault.crypto.key_files import RecoveryKey
from vault.errors import (
    ConfigError,
    IntegrityError,
    VaultError,
)
from vault.format.content_root import commitment
from vault.format.entry import Entry, replace_entry
from vault.format.tree_file import Spool
from vault.ledger.statements import Counts, Verdict
from vault.machine import metadata
from vault.machine.workers import Workers
from vault.model import EntryType, replace_body
from vault.progress import Progress
from vault.repository import attestations
from vault.repository.pack_reader import StaleIndexError
from vault.repository.reader import Reader
from vault.repository.repository import Repository
from vault.restore.attesting import Attester, ProofFailedError, Replaces, proof_details
from vault.restore.capabilities import Capabilities, probe
from vault.restore.changed_since_proof import Stillness
from vault.restore.damage import Course, look_for_damage
from vault.restore.fetch import Fetcher
from vault.restore.include_filter import NAMES, Selection
from vault.restore.journal import Journals, Local, Subject
from vault.restore.promote import Promotion
from vault.restore.prove import ProofReport, prove
from vault.restore.restore_plan import RestorePlan
from vault.restore.restore_report import (
    RestoreOutcome,
    RestoreReport,
    RestoreRequest,
)
from vault.restore.stage import Stager, Staging
from vault.restore.syscalls import Fs
from vault.restore.target import (
    Target,
    TargetState,
    new_id,
)

ENOUGH_FILES = 1_000  # for a process of its own to be worth its start

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, slots=True)
class Tools:
    """Executors, directories and system calls that a restore uses."""

    scratch: Path
    fs: Fs
    workers: Workers
    progress: Progress
    local: Local
    journals: Journals | None  # None for a dry run, which writes no journal
    course: Course
    replaces: Replaces | None = None  # set where TARGET has live data


class Run:
    """One attempt. A context manager that closes what it opened."""

    def __init__(
        self,
        repository: Repository,
        recovery: RecoveryKey,
        request: RestoreRequest,
        target: Target,
        *,
        tools: Tools,
        use_index: bool,
        by_digest: bool,
    ) -> None:
        self._repository = repository
        self._request = request
        self._target = target
        self._tools = tools
        with contextlib.ExitStack() as stack:
            self._spool = stack.enter_context(Spool(tools.scratch))
            self._reader = Reader(
                repository,
                recovery.recipient,
                request.record,
                scratch=tools.scratch,
                use_index=use_index,
                by_digest=by_digest,
            )
            stack.callback(self._reader.close)
            self._stack = stack.pop_all()
        self._plan = RestorePlan(repository, self._reader, self._spool, request, target)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def bad_packs(self) -> Mapping[str, VaultError]:
        """Packs that were read twice and are wrong, by name; it grows while the restore runs."""
        return self._reader.bad

    def run_or_explain(self, attester: Attester) -> RestoreReport:
        """Run the attempt; if stored data is at fault, note in `course` which files it affects."""
        try:
            return self.run(attester)
        except StaleIndexError:
            raise
        except IntegrityError:
            look_for_damage(
                self._tools.course,
                self._reader,
                self._wanted_entries(),
                self._repository,
                missing=self._plan.missing,
            )
            raise

    def _wanted_entries(self) -> Iterator[Entry]:
        if self._plan.selection is not None:
            for _, entry, _ in self._spool.places():
                if self._plan.selection.takes(entry):
                    yield entry

    def run(self, attester: Attester) -> RestoreReport:
        """Run the attempt: prepare, stage, prove, promote; each step only after the one before."""
        self._tools.progress.stage("planning")
        selection = self._plan.prepare()
        if self._tools.journals is None:
            return self._report(RestoreOutcome.PLANNED)
        with self._open_staging(self._tools.journals) as staging:
            self._tools.course.staging = Path(os.fsdecode(staging.path)).parent
            self._check_capabilities(probe(staging.fd, self._tools.fs))
            left_out = self._stage(staging, selection)
            promotion = Promotion(staging)
            still = Stillness()
            proof = None
            if self._request.verify:
                proof = self._prove(staging, selection, left_out, still)
            return self._promote(
                promotion, staging, proof, left_out, attester=attester, still=still
            )

    def _open_staging(self, journals: Journals) -> Staging:
        record = self._request.record
        return Staging(
            self._target,
            new_id(),
            self._tools.fs,
            journals=journals,
            subject=Subject(
                repository=self._repository.ledger.repository_id,
                snapshot=record.seq,
                digest=str(record.digest),
                replaces=self._tools.replaces is not None,
                warrant=None if self._tools.replaces is None else self._tools.replaces.warrant,
            ),
            local=self._tools.local,
        )

    def _promote(
        self,
        promotion: Promotion,
        staging: Staging,
        proof: ProofReport | None,
        left_out: dict[str, int],
        *,
        attester: Attester,
        still: Stillness,
    ) -> RestoreReport:
        """Attest, exchange, record: in this order, each durable before the next.

        Once TARGET is the new state nothing is raised: the report says what failed after that.
        """
        attester.require_agreed()
        self._tools.progress.stage("promoting")
        details = self._details(proof, left_out) | self._place(staging)
        attestation = attester.sign(_verdict(proof), details)
        promotion.proven(attestation, still.newest)
        if proof is not None:
            still.check(staging.fd, self._tools.fs)
        promoted = promotion.promote()
        self._tools.course.promoted = attester.promoted = True
        statement = attester.record(attestation)
        kept, troubles = None, []
        if statement is None:
            try:
                kept = attestations.keep(self._tools.local.state, attestation)
            except VaultError as error:
                troubles.append(error)
        if statement is not None or kept is not None:
            promotion.recorded()
        return self._report(
            self._outcome(proof, left_out),
            proof=proof,
            left_out=left_out,
            atomic=promoted.atomic,
            former=self._target.state is TargetState.FULL,
            attestation=attestation,
            statement=statement,
            attestation_file=kept,
            troubles=(*promotion.troubles, *troubles),
        )

    def _place(self, staging: Staging) -> dict[str, Any]:
        """Fields that tie the attestation to this restore, so that `finalize` can check them.

        They name no files.
        """
        place: dict[str, Any] = {
            "promoted": "pending",
            "host": self._tools.local.host,
            "restore": staging.id,
        }
        if self._request.shared_parent:
            place["shared_parent"] = {
                "staging": {"inode": str(staging.inode), "owner": os.fstat(staging.fd).st_uid},
                "target": None
                if self._target.inode is None
                else {"inode": str(self._target.inode), "owner": self._target.owner},
            }
        return place

    def _check_capabilities(self, capabilities: Capabilities) -> None:
        """Refuse a file system that can't hold the tree's links."""
        needed = {EntryType.SYMLINK: "symlinks", EntryType.HARD_LINK: "hard links"}
        missing = {
            needed[kind] for kind in self._plan.kinds & needed.keys()
        } & capabilities.cannot_hold
        if missing:
            raise ConfigError(
                "the target's file system can't hold this snapshot",
                expected=", ".join(sorted(missing)),
                hint="restore to another file system",
            )

    # --- staging ---

    def _stage(
        self,
        staging: Staging,
        selection: Selection,
    ) -> dict[str, int]:
        """Build the tree; returns attributes and objects that were left out, with their counts."""
        self._tools.progress.stage("restoring")
        self._tools.progress.expect(files=self._files, size=self._plan.size)
        drop = self._request.drop_privileges
        stager = Stager(staging.fd, self._tools.fs, drop_privileges=drop)
        if self._plan.unnameable:
            stager.add_left_out({NAMES: self._plan.unnameable})
        try:
            for place in self._plan.directories:
                stager.mkdir(self._spool.at(place).path)
            renamed = {path: selection.files[path] for path in self._plan.copied}
            for entry in map(self._spool.at, self._plan.empty):
                fd = stager.create_file(renamed.get(entry.path, entry.path))
                stager.finish_file(fd, entry)
            Fetcher(
                self._plan.fetch,
                self._spool,
                stager,
                renamed=renamed,
                workers=self._tools.workers,
                processes=self._processes,
                progress=self._tools.progress,
            ).run()
            for place in self._plan.giants:
                self._stage_giant(stager, place, renamed)
            for place in self._plan.others:
                stager.make(self._as_restored(self._spool.at(place), selection))
            stager.finish_directories(map(self._spool.at, self._plan.directories))
        finally:
            stager.close()
        return stager.left_out

    def _stage_giant(self, stager: Stager, place: int, renamed: dict[bytes, bytes]) -> None:
        """A file of very many chunks, part by part: a plan of all of it would be too large."""
        entry = self._spool.at(place)
        path = renamed.get(entry.path, entry.path)
        stager.close_file(stager.create_file(path))
        for plan in self._plan.fetch.parts(place, entry):
            Fetcher(
                plan,
                self._spool,
                stager,
                renamed=renamed,
                workers=self._tools.workers,
                progress=self._tools.progress,
            ).run()
        stager.finish_file(stager.reopen_file(path), entry)
        self._tools.progress.advance(files=1, size=0)

    def _path(self, entry: Entry, selection: Selection) -> bytes:
        """Where a file is restored: at another name if its own was not asked for."""
        return selection.files[entry.path] if entry.path in self._plan.copied else entry.path

    def _as_restored(self, entry: Entry, selection: Selection) -> Entry:
        """The entry at its path, where a hard link lost its file to ``--include``."""
        first = selection.files.get(entry.link or b"")
        if entry.type is not EntryType.HARD_LINK or first is None:
            return entry
        if first == entry.path:
            return replace_entry(self._plan.copied[entry.link or b""][1], path=entry.path)
        return replace_entry(entry, link=first)

    # --- proof ---

    def _prove(
        self,
        staging: Staging,
        selection: Selection,
        left_out: dict[str, int],
        still: Stillness,
    ) -> ProofReport:
        """Read it back from the disk and compare.

        Raises:
            ProofFailedError: The disk differs from the signed tree.
        """
        self._tools.progress.stage("proving")
        self._tools.progress.expect(files=self._files, size=self._plan.size)
        proof = prove(
            staging.fd,
            self._expected(selection),
            check_root=self._is_signed_root,
            left_out=left_out,
            executor=self._tools.workers.compute,
            fs=self._tools.fs,
            progress=self._tools.progress,
            processes=self._processes,
            vast={self._path(entry, selection) for entry in map(self._spool.at, self._plan.vast)},
            still=still,
        )
        if proof.verdict is Verdict.FAILED:
            raise ProofFailedError(proof)
        return proof

    @property
    def _files(self) -> int:
        """Number of files with content."""
        return len(self._plan.fetch.places) + len(self._plan.giants)

    @property
    def _processes(self) -> int:
        """Number of processes to fork for small files; 0 where too few files would use them."""
        enough = self._files >= ENOUGH_FILES
        return self._tools.workers.processes if enough else 0

    def _expected(self, selection: Selection) -> Iterator[tuple[Entry | None, bytes]]:
        for _, entry, canonical in self._spool.frames():
            if entry is None:
                yield None, canonical
            elif selection.takes(entry):
                yield self._as_restored(entry, selection), canonical
            else:
                yield None, canonical

    def _is_signed_root(self, root: bytes) -> bool:
        signed = self._reader.body.tree.commitment
        return commitment(self._reader.tree_header.key, root).hex() == signed

    def _details(self, proof: ProofReport | None, left_out: dict[str, int]) -> dict[str, Any]:
        """Counts and digests for the attestation; it contains no file names."""
        details: dict[str, Any] = {
            "files": self._files,
            "size": self._plan.size,
            "left_out": left_out,
            "findings": len(self._repository.findings),
            **({"stepped_over": self._plan.flaws.count} if self._plan.flaws else {}),
        }
        if proof is None:
            return {**details, "proof": "none"}
        key = self._reader.tree_header.key
        return {
            **details,
            **proof_details(proof),
            "commitment": commitment(key, proof.disk_root).hex(),
        }

    def _outcome(self, proof: ProofReport | None, left_out: dict[str, int]) -> RestoreOutcome:
        if proof is None:
            return RestoreOutcome.UNPROVEN
        if proof.verdict is Verdict.PASSED:
            return RestoreOutcome.RECOVERED
        if self._plan.flaws or left_out.keys() - {metadata.OWNER}:
            return RestoreOutcome.PARTIAL
        if left_out:
            return RestoreOutcome.WITHOUT_OWNERS
        return (
            RestoreOutcome.SELECTION if self._request.wanted is not None else RestoreOutcome.PARTIAL
        )

    def _report(self, outcome: RestoreOutcome, **details: Any) -> RestoreReport:
        return RestoreReport(
            outcome=outcome,
            target=Path(os.fsdecode(self._target.path)),
            counts=replace_body(Counts(), **self._plan.tally),
            files=self._files,
            size=self._plan.size,
            bad_packs=tuple(sorted(self._reader.replaced)),
            flaws=self._plan.flaws,
            **details,
        )


def _verdict(proof: ProofReport | None) -> str:
    return Verdict.PARTIAL if proof is None else proof.verdict
