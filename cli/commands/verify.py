"""`vault verify`: stored bytes against what was signed."""

import contextlib
import logging
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import NoReturn

import click

from cli.commands.attest import record_or_keep
from cli.exits import (
    EXIT_DEGRADED,
    EXIT_INTEGRITY,
    EXIT_INTERRUPTED,
    EXIT_STORAGE,
    EXIT_TERMINATED,
)
from cli.option_values import ReadData, parse_read_data
from cli.output import progress, render
from cli.output import verification as verified
from cli.output.findings import finding_text
from cli.pack_sample import sample_of
from cli.session import TOOL, Invocation, pass_invocation
from vault.crypto.key_files import RecoveryKey
from vault.custody.sampling import Sample
from vault.errors import IntegrityError, LocalError, StorageError
from vault.ledger.records import Record
from vault.ledger.statements import StatementType
from vault.machine.workers import make_workers
from vault.repository import attestations
from vault.repository.bad_packs import BadPackMemory
from vault.repository.datasets import owed
from vault.repository.repository import Repository
from vault.verify import Verification, VerifyReport

SIGNAL_GRACE = 5.0  # seconds that threads have to end after a signal


@click.command()
@click.argument("spec", metavar="[SNAPSHOT]", required=False)
@click.option(
    "--read-data",
    type=parse_read_data,
    metavar="SHARE",
    default="all",
    show_default=True,
    help="How much of the packs to read: all, a sample such as 5%, or slice: the one in thirty"
    " whose turn it is.",
)
@click.option(
    "--seed", metavar="HEX", help="Draw the sample that an earlier run drew; record nothing."
)
@click.option("--no-key", is_flag=True, help="Check only what needs no key; record nothing.")
@pass_invocation
def verify(
    invocation: Invocation,
    *,
    spec: str | None,
    read_data: ReadData,
    seed: str | None,
    no_key: bool,
) -> int:
    """Check stored bytes against what was signed.

    Without SNAPSHOT it checks every snapshot that is still to be kept. It compares sizes and
    SHA-256. With recovery.key it also opens every block, and attests the result in the ledger.
    Exit 4: something is missing or wrong; the output names the snapshots and files concerned, and
    the snapshots that are whole. Exit 13: the store did not give all of it; that says nothing about
    the bytes, and is not attested.
    """
    repository = invocation.open(afresh=True)
    records = (
        [invocation.snapshot(repository, spec)]
        if spec
        else owed(repository.ledger, repository.ledger.snapshots(), invocation.clock())
    )
    has_key = bool(records) and invocation.secrets.has_recovery_key() and not no_key
    sample = sample_of(read_data, seed, repository.ledger, records, is_recorded=has_key)
    started = invocation.clock()
    recovery = invocation.secrets.attesting_key(repository) if has_key else None
    report = _run(invocation, repository, records, sample, recovery)
    statement = None
    is_recorded = recovery is not None and seed is None and report.verdict != "unfinished"
    if recovery is not None and is_recorded:
        data = _attestation(repository, records, recovery, report, started)
        statement = record_or_keep(invocation, repository, data, recovery)
    _remember(invocation, repository, records, report, is_signed=statement is not None)
    _tell(invocation, report, statement, repository)
    if not report.passed:
        return EXIT_INTEGRITY
    if report.unread_count:
        return EXIT_STORAGE
    return EXIT_DEGRADED if is_recorded and statement is None else 0


def _run(
    invocation: Invocation,
    repository: Repository,
    records: Sequence[Record],
    sample: Sample,
    recovery: RecoveryKey | None,
) -> VerifyReport:
    with (
        _ending_soon() as end_soon,
        make_workers() as workers,
        progress.shown(quiet=invocation.options.quiet) as shown,
    ):
        verification = Verification(
            repository,
            records,
            sample=sample,
            recovery=recovery,
            scratch=invocation.scratch,
            workers=workers,
            progress=shown,
        )
        with _saying_how_far(invocation, verification, end_soon), _each_thing_once(invocation):
            return verification.run()


@contextlib.contextmanager
def _ending_soon() -> Iterator[Callable[[int], None]]:
    """Yields a function that ends the process after a grace, unless the block ends before.

    A thread that waits for a store that hangs can't be stopped. A verification only reads, so
    nothing is left half done; scratch files are removed by the next command.
    """
    timers: list[threading.Timer] = []

    def end_soon(code: int) -> None:
        timer = threading.Timer(SIGNAL_GRACE, _end, [code])
        timer.daemon = True
        timer.start()
        timers.append(timer)

    before = set(threading.enumerate())
    try:
        yield end_soon
    finally:  # an executor forgets a thread in whose start a signal came: the interpreter waits
        if before.union(timers).issuperset(threading.enumerate()):
            for timer in timers:
                timer.cancel()


def _end(code: int) -> NoReturn:
    render.message("error", "ended although the store has not answered")
    os._exit(code)


@contextlib.contextmanager
def _each_thing_once(invocation: Invocation) -> Iterator[None]:
    """Drop repeated warnings: readers warn of a bad pack for each snapshot, the report once."""
    reader = logging.getLogger("vault.repository.reader")
    reader.setLevel(logging.NOTSET if invocation.options.verbose else logging.ERROR)
    try:
        yield
    finally:
        reader.setLevel(logging.NOTSET)


@contextlib.contextmanager
def _saying_how_far(
    invocation: Invocation, verification: Verification, end_soon: Callable[[int], None]
) -> Iterator[None]:
    """If a run is stopped early, print the findings made until then.

    Raises:
        IntegrityError: The store failed, after something was found wrong: that is graver.
    """
    try:
        yield
    except StorageError as error:
        state = verification.so_far()
        invocation.warn(verified.so_far(state))
        if state.wrong:
            raise IntegrityError(
                f"verification failed, and could not be finished: {state.first_wrong}",
                found=f"then the store failed: {error}",
                hint="run 'vault verify' again once the store answers: it names what is hit",
            ) from error
        raise
    except BaseException as error:
        invocation.warn(verified.so_far(verification.so_far()))
        if not isinstance(error, Exception):  # a signal
            is_interrupt = isinstance(error, KeyboardInterrupt)
            end_soon(EXIT_INTERRUPTED if is_interrupt else EXIT_TERMINATED)
        raise


def _remember(
    invocation: Invocation,
    repository: Repository,
    records: Sequence[Record],
    report: VerifyReport,
    *,
    is_signed: bool,
) -> None:
    """Have the snapshots of this host not build on packs that were found wrong.

    What is signed stands in the ledger, for every host.
    """
    memory = BadPackMemory(invocation.places.state)
    bad = () if is_signed else report.bad
    whole = report.sample.is_whole and not report.unread_count
    try:
        memory.note(repository, records, bad, whole=whole)
    except LocalError as error:
        invocation.warn(f"{error}: the snapshots of this host go on building on them")


def _tell(
    invocation: Invocation, report: VerifyReport, statement: Record | None, repository: Repository
) -> None:
    """The result; if there is damage, last the lines that an operator needs first."""
    told = report.findings[: verified.NAMED_HITS]
    for finding in told:
        invocation.warn(finding_text(finding))
    if report.finding_count > len(told):
        invocation.warn(f"and {render.plural(report.finding_count - len(told), 'finding')} more")
    for name, problem in report.unread[: verified.NAMED_HITS]:
        invocation.warn(f"{name} was not read: {problem}")
    invocation.did(f"the verification ended: {report.verdict}")
    fields = {"verification": verified.fields(report, statement)}
    invocation.emit("vault/verify/v1", fields, verified.text(report, statement))
    if not report.passed:
        for level, text in verified.complaints(report, repository.ledger):
            render.message(level, text)
    elif report.unread_count:
        render.message("error", f"verification {verified.verdict(report)}")
        render.message("hint", "run 'vault verify' again once the store gives them")


def _attestation(
    repository: Repository,
    records: Sequence[Record],
    recovery: RecoveryKey,
    report: VerifyReport,
    started: datetime,
) -> bytes:
    attestation = attestations.attestation_of(
        repository,
        kind=StatementType.VERIFICATION,
        verdict=report.verdict,
        snapshot=records[0] if len(records) == 1 else None,
        started=started,
        tool=TOOL,
        details=report.details(),
        claims=report.claims(),
    )
    return attestations.sign(attestation, recovery.restorer)
