"""`restore_snapshot` from end to end: looked at, held, tried, attested where it fails.

See docs/design.md "Restore".

What an index or a pack's directory says is believed at first; what turns out to be wrong is
not believed again, and the restore begins anew.
"""

import contextlib
import dataclasses
import logging
import tempfile
from pathlib import Path

from vault.crypto.keyfiles import RecoveryKey
from vault.errors import ConfigError, IntegrityError, VaultError
from vault.machine.workers import Workers
from vault.progress import NO_PROGRESS, Progress
from vault.repository.reader import StaleIndexError
from vault.repository.repository import Repository
from vault.restore.attempt import Run, Tools
from vault.restore.attesting import Witness
from vault.restore.course import Course, look_before_packs
from vault.restore.journal import Journal, Journals, Local
from vault.restore.report import RestoreReport, RestoreRequest
from vault.restore.syscalls import Fs, local_error
from vault.restore.target import Target, TargetState, inspect, locate
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
        request: What to do.
        local: Where this user keeps journals, and who he is.
        scratch: Directory on local disk for temporary files.
        workers: Executors.
        fs: System calls; tests hand in their own.
        progress: Told how it goes.
        course: Filled in as it goes; says what an error or a signal leaves.

    Raises:
        BusyError: A restore of this user to TARGET runs.
        ConfigError: TARGET is not as required; nothing was made.
        IntegrityError: Something stored or restored is not what was signed.
        LocalError: The disk is full or failed.
        StorageError: The store failed.
    """
    calls = fs or Fs()
    refuse_unfinished(local.state, locate(request.target), calls)
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
            tools=Tools(scratch, calls, workers, progress, local, journals, course or Course()),
        )
    ended = report.statement is not None or report.attestation_file is not None
    if report.former or not ended:
        return report
    return _drop_former(report, target, local, calls)


def _attempts(
    repository: Repository,
    recovery: RecoveryKey,
    request: RestoreRequest,
    target: Target,
    *,
    tools: Tools,
) -> RestoreReport:
    """Try, and try again without believing what turned out to be stale; attest a failure."""
    witness = Witness(repository, recovery.restorer, request.record, tool=request.tool)
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
                witness.bad = run.bad_packs
                return run.run_or_explain(witness)
        except StaleIndexError as error:
            _log.warning("%s", error)
        except (ConfigError, KeyboardInterrupt):
            raise
        except VaultError as error:
            if isinstance(error, IntegrityError) and not tools.course.packs:
                look_before_packs(tools.course, request.record, repository)
            _attest_failure(witness, request, error)
            raise
        except OSError as error:
            failure = local_error("restore to", target.path, error)
            _attest_failure(witness, request, failure)
            raise failure from error
    raise AssertionError("what was believed only after its digest was checked can't be stale")


def _attest_failure(witness: Witness, request: RestoreRequest, error: VaultError) -> None:
    """A dry run is no failed restore, and neither is one whose TARGET is the new state."""
    if not request.dry_run:
        witness.failed(error)


def _drop_former(report: RestoreReport, target: Target, local: Local, fs: Fs) -> RestoreReport:
    """TARGET was missing or empty, so nothing is left to decide; finalize does it at once."""
    try:
        finalize(target.path, state=local.state, prove=_is_proven, record=_is_recorded, fs=fs)
    except VaultError as error:
        return dataclasses.replace(report, troubles=(*report.troubles, error))
    return report


def _is_proven(journal: Journal, _: int) -> bytes:
    raise AssertionError(f"restore {journal.id} was exchanged by this run")


def _is_recorded(_: Journal) -> None:
    """By this run, in the ledger or in a file, whatever its journal could still be told."""
