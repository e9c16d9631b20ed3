"""`vault verify`: stored bytes against what was signed."""

from collections.abc import Sequence
from datetime import datetime

import click

from cli import progress, render
from cli.attest import record_or_keep
from cli.context import TOOL, Invocation, finding_fields, finding_text, pass_invocation
from cli.exits import EXIT_DEGRADED, EXIT_INTEGRITY
from cli.sample import sample_of, sample_text
from cli.values import ReadData, parse_read_data
from vault import attest
from vault.badpacks import BadPackMemory
from vault.errors import LocalError
from vault.keyfile import RecoveryKey
from vault.ledger import Record
from vault.repository import Repository
from vault.selection import select
from vault.stats import owed
from vault.verify import VerifyReport
from vault.verify import verify as verify_records
from vault.workers import make_workers


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

    Without SNAPSHOT, every snapshot that is still to be kept. With recovery.key
    every block is opened too, and the result is attested in the ledger; without
    it sizes and SHA-256 are checked. Exit 4: something is missing or wrong.
    """
    repository = invocation.open(afresh=True)
    records = (
        [select(repository.ledger, spec)]
        if spec
        else owed(repository.ledger, repository.ledger.snapshots(), invocation.clock())
    )
    sample = sample_of(read_data, seed, repository.ledger, records)
    started = invocation.clock()
    recovery = None
    if invocation.has_recovery_key() and not no_key:
        recovery = invocation.recovery_key(repository)
    with make_workers() as workers, progress.shown(quiet=invocation.options.quiet) as shown:
        report = verify_records(
            repository,
            records,
            sample=sample,
            recovery=recovery,
            scratch=invocation.scratch,
            workers=workers,
            progress=shown,
        )
    statement = None
    is_recorded = recovery is not None and bool(records) and seed is None
    if recovery is not None and is_recorded:
        data = _attestation(repository, records, recovery, report, started)
        statement = record_or_keep(invocation, repository, data, recovery)
    _remember(invocation, repository, records, report, is_signed=statement is not None)
    for finding in report.findings:
        invocation.warn(finding_text(finding))
    invocation.did(f"the verification ended: {report.verdict}")
    fields = {"verification": _fields(report, statement)}
    invocation.emit("vault/verify/v1", fields, _text(report, statement))
    if not report.passed:
        return EXIT_INTEGRITY
    return EXIT_DEGRADED if is_recorded and statement is None else 0


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
    try:
        memory.note(repository, records, bad, whole=report.sample.is_whole)
    except LocalError as error:
        invocation.warn(f"{error}: the snapshots of this host go on building on them")


def _attestation(
    repository: Repository,
    records: Sequence[Record],
    recovery: RecoveryKey,
    report: VerifyReport,
    started: datetime,
) -> bytes:
    attestation = attest.describe(
        repository,
        kind="verification",
        verdict=report.verdict,
        snapshot=records[0] if len(records) == 1 else None,
        started=started,
        tool=TOOL,
        details=report.details(),
        claims=report.claims(),
    )
    return attest.sign(attestation, recovery.restorer)


def _fields(report: VerifyReport, statement: Record | None) -> dict[str, object]:
    return {
        "verdict": report.verdict,
        "snapshots": list(report.snapshots),
        "objects": report.objects,
        "bytes": report.bytes,
        "objects_read": report.objects_read,
        "bytes_read": report.bytes_read,
        "chunks": report.chunks,
        "entries": report.entries,
        "seed": report.sample.seed,
        "findings": [finding_fields(finding) for finding in report.findings],
        "statement": str(statement.head) if statement else None,
    }


def _text(report: VerifyReport, statement: Record | None) -> str:
    opened = "not opened (no recovery.key)"
    if report.chunks or report.entries:
        opened = f"{report.chunks:,} chunks, {report.entries:,} entries"
    return render.facts(
        {
            "verdict": report.verdict,
            "snapshots": ", ".join(map(str, report.snapshots)) or "none",
            "read": f"{report.objects_read:,} of {render.plural(report.objects, 'object')},"
            f" {render.size(report.bytes_read)} of {render.size(report.bytes)}",
            "sample": sample_text(report.sample) or "none: all of it",
            "opened": opened,
            "attested": str(statement.head) if statement else "no",
        }
    )
