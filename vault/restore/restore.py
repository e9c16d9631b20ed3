"""`restore_snapshot` from end to end: inspect TARGET, lock it, try, attest a failure.

See docs/design.md "Restore".

The first attempt believes index objects and the packs' directories. If one turns out to be
wrong, the restore begins anew, without believing it.
"""

import contextlib
import dataclasses
import logging
import tempfile
from pathlib import Path

from vault.crypto.key_files import RecoveryKey
from vault.errors import ConfigError, IntegrityError, SignatureError, VaultError
from vault.ledger.records import Status
from vault.machine.workers import Workers
from vault.progress import NO_PROGRESS, Progress
from vault.repository.agreements import require_agreed, require_unasked, rest_on
from vault.repository.pack_reader import StaleIndexError
from vault.repository.repository import Repository
from vault.restore.attesting import Attester, Replaces, replacement
from vault.restore.damage import Course, look_before_packs
from vault.restore.journal import Journal, Journals, Local
from vault.restore.restore_attempt import Run, Tools
from vault.restore.restore_report import RestoreReport, RestoreRequest
from vault.restore.syscalls import Fs, local_error
from vault.restore.target import Target, TargetState, inspect, locate_target
from vault.restore.undo_finalize import finalize, refuse_unfinished

_log = logging.getLogger(__name__)


def restore_snapshot(
    repository: Repository,
    recovery: RecoveryKey,
    request: RestoreRequest,
    *,
    local: Local,
    scratch: Path,
    workers: Workers,
    fs: Fs | None = None,
    progress: Progress = NO_PROGRESS,
    course: Course | None = None,
) -> RestoreReport:
    """Put a snapshot's content at TARGET, or leave TARGET as it was (I6).

    Args:
        repository: Read up to its head.
        recovery: Opens the packs and signs the attestation.
        request: The snapshot, the target and the options.
        local: This user's state directory, name and host.
        scratch: Directory on local disk for temporary files.
        workers: Executors.
        fs: System calls; tests hand in their own.
        progress: Called with each phase and its counts.
        course: Filled in as the restore runs; after an error or a signal it says what is left.

    Raises:
        BusyError: A restore of this user to TARGET runs.
        ConfigError: TARGET can't be used; nothing was written.
        IntegrityError: Stored data or the restored tree differs from what was signed.
        LocalError: The disk is full or failed.
        SignatureError: The snapshot does not count, and the request does not say that it may.
        StorageError: The store failed.
    """
    if request.record.status is not Status.VALID and not request.void:
        raise SignatureError(
            f"snapshot {request.record.seq} does not count: {request.record.reason}"
        )
    calls = fs or Fs()
    refuse_unfinished(local.state, locate_target(request.target), calls)
    target = inspect(
        request.target,
        replace=request.replace,
        shared_parent=request.shared_parent,
        protected=request.protected,
    )
    if request.wanted is not None and target.state is TargetState.FULL:
        raise ConfigError(
            "--include restores only into a missing or empty target",
            found=str(request.target),
        )
    replaces = _agreed_replacement(repository, recovery, request, target)
    with contextlib.ExitStack() as stack:
        journals = None
        if not request.dry_run:
            journals = stack.enter_context(Journals(local.state, target.path, calls))
            refuse_unfinished(local.state, target.path, calls)  # another run may just have ended
        report = _attempts(
            repository,
            recovery,
            request,
            target,
            tools=Tools(
                scratch, calls, workers, progress, local, journals, course or Course(), replaces
            ),
        )
    ended = report.statement is not None or report.attestation_file is not None
    if report.former or not ended:
        return report
    return _drop_former(report, target, local, calls)


def _agreed_replacement(
    repository: Repository, recovery: RecoveryKey, request: RestoreRequest, target: Target
) -> Replaces | None:
    """The warrant that a restore over live data rests on, stored now; None without live data.

    Raises:
        VaultError: The root wants people to approve it and they have not, or not to this.
    """
    if target.state is not TargetState.FULL:
        return None
    intent = replacement(request.record, recovery.restorer.public.id)
    if not request.dry_run:
        signer = recovery.restorer
        warrant = rest_on(repository, intent, request.agreed, signer, tool=request.tool)
        return Replaces(warrant=warrant, agreed=request.agreed)
    if request.agreed is None:
        require_unasked(repository.ledger, intent.kind, intent.body)
    else:
        require_agreed(repository.ledger, intent, request.agreed, now=repository.clock())
    return Replaces()


def _attempts(
    repository: Repository,
    recovery: RecoveryKey,
    request: RestoreRequest,
    target: Target,
    *,
    tools: Tools,
) -> RestoreReport:
    """Try; after a `StaleIndexError` try again, believing less; attest the final failure."""
    attester = Attester(
        repository, recovery.restorer, request.record, tool=request.tool, replaces=tools.replaces
    )
    for use_index, by_digest in ((True, False), (False, False), (False, True)):
        try:
            with (
                tempfile.TemporaryDirectory(
                    dir=tools.scratch, ignore_cleanup_errors=True
                ) as directory,
                Run(
                    repository,
                    recovery,
                    request,
                    target,
                    tools=dataclasses.replace(tools, scratch=Path(directory)),
                    use_index=use_index,
                    by_digest=by_digest,
                ) as run,
            ):
                attester.bad = run.bad_packs
                return run.run_or_explain(attester)
        except StaleIndexError as error:
            _log.warning("%s", error)
        except (ConfigError, KeyboardInterrupt):
            raise
        except VaultError as error:
            if isinstance(error, IntegrityError) and not tools.course.packs:
                look_before_packs(tools.course, request.record, repository)
            _attest_failure(attester, request, error)
            raise
        except OSError as error:
            failure = local_error("restore to", target.path, error)
            _attest_failure(attester, request, failure)
            raise failure from error
    raise AssertionError("what was believed only after its digest was checked can't be stale")


def _attest_failure(attester: Attester, request: RestoreRequest, error: VaultError) -> None:
    """Attest a failed restore; neither a dry run, nor one after TARGET became the new state."""
    if not request.dry_run:
        attester.failed(error)


def _drop_former(report: RestoreReport, target: Target, local: Local, fs: Fs) -> RestoreReport:
    """Finalize at once if TARGET was missing or empty: no former state could be wanted back."""
    try:
        finalize(target.path, state=local.state, prove=_is_proven, record=_is_recorded, fs=fs)
    except VaultError as error:
        return dataclasses.replace(report, troubles=(*report.troubles, error))
    return report


def _is_proven(journal: Journal, _: int) -> bytes:
    raise AssertionError(f"restore {journal.id} was exchanged by this run")


def _is_recorded(_: Journal) -> None:
    """Do nothing: this run has recorded the attestation, even if its journal lacks that step."""
