"""`vault audit`: the whole repository against what was signed, without a key."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from cli.exits import (
    EXIT_INTEGRITY,
    EXIT_LOCAL,
    EXIT_OBJECTIVE,
    EXIT_RETENTION,
    EXIT_STORAGE,
    gravest,
)
from cli.option_values import ReadData, format_age, parse_read_data
from cli.output import progress, render
from cli.output.findings import finding_text
from cli.output.page import Section, page
from cli.pack_sample import sample_of
from cli.session import Invocation, pass_invocation
from cli.small_files import hand_out
from vault.audit import (
    AuditFinding,
    AuditReport,
    Concern,
    DatasetAge,
    Protection,
    SnapshotAudit,
    audit_repository,
)
from vault.clock import to_rfc3339
from vault.custody.findings import HIDING
from vault.errors import ConfigError, LocalError
from vault.ledger.envelope import Head
from vault.machine.workers import QUESTIONS, make_workers
from vault.model import Code, Severity
from vault.repository.datasets import owed
from vault.repository.opening import open_to_audit
from vault.repository.repository import Repository

_IN_FLIGHT = 2  # packs in memory
_NOTES = 16  # that contradict the ledger, and are kept beside a report
_EXITS = {
    Concern.INTEGRITY: EXIT_INTEGRITY,
    Concern.RETENTION: EXIT_RETENTION,
    Concern.ACCESS: EXIT_STORAGE,
    Concern.OBJECTIVE: EXIT_OBJECTIVE,
    Concern.NONE: 0,
}


@click.command()
@click.option(
    "--read-data",
    type=parse_read_data,
    metavar="SHARE",
    default="0%",
    show_default=True,
    help="How many of the packs to read and hash: all, a sample such as 5%, or slice: one in"
    " thirty, by chance.",
)
@click.option("--seed", metavar="HEX", help="Draw the sample that an earlier run drew.")
@click.option(
    "--report",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE.html",
    help="Write a report for people to FILE.html as well.",
)
@pass_invocation
def audit(
    invocation: Invocation, *, read_data: ReadData, seed: str | None, report: Path | None
) -> int:
    """Check the whole repository: chain, signatures, bytes, locks, hidden versions.

    Changes nothing and needs no key, only the pinned root: from a key file, or
    --trust 0:DIGEST. It checks the needs of snapshots that are still to be kept, or held. It
    reads as much of their packs as --read-data says, and always everything else. Exit 4:
    something is missing, wrong or was planted; 5: a lock ends too early or is too weak;
    6: no witness saw the ledger lately; 13: the store refuses to show something. "passed" says
    how much of the packs was read.
    """
    repository, floors = _open(invocation)
    ledger = repository.ledger
    records = owed(ledger, ledger.snapshots(), invocation.clock())
    sample = sample_of(read_data, seed, ledger, records, is_recorded=False)
    with (
        make_workers(1, transfers=QUESTIONS, in_flight=_IN_FLIGHT) as workers,
        progress.shown(quiet=invocation.options.quiet) as shown,
    ):
        result = audit_repository(
            repository, sample=sample, floors=floors, workers=workers, progress=shown
        )
    if result.gravest is not Concern.INTEGRITY:
        invocation.remember(repository)
    if sample.seed:
        invocation.note(f"packs were drawn by seed {sample.seed}")
    invocation.did(f"the audit's verdict is: {result.verdict}")
    fields = {**_fields(repository, result), "seed": sample.seed}
    invocation.emit("vault/audit/v1", {"audit": fields}, _text(result))
    codes = [_EXITS[result.gravest]]
    if report is not None:
        try:
            _write(report, _page(repository, result))
            _keep_notes(invocation, report, repository)
        except LocalError as error:  # the findings are printed all the same
            render.message("error", str(error))
            codes.append(EXIT_LOCAL)
    return gravest(codes)


def _open(invocation: Invocation) -> tuple[Repository, Sequence[Head]]:
    """Open the repository, even if its ledger has holes; also the heads that it must contain."""
    if invocation.options.accept_head is not None:
        raise ConfigError(
            "an audit accepts nothing: it writes neither here nor to the ledger",
            hint="accept the head with another command, for example 'vault list'",
        )
    store, root = invocation.store_and_root()
    return open_to_audit(
        store,
        root,
        clock=invocation.clock,
        state=invocation.places.state,
        floors=invocation.floors,
        witnesses=invocation.witness_wish(),
    )


def _keep_notes(invocation: Invocation, report: Path, repository: Repository) -> None:
    """Keep what convicts a log's key beside the report: the store may not show it again."""
    for note in repository.witnessed.against[:_NOTES]:
        path = report.with_name(f"{report.name}.{note.size}.note")
        hand_out(note.encode(), path)
        invocation.did(f"a checkpoint that contradicts the ledger is kept in {path}")


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise LocalError(f"can't write {path}", found=error.strerror) from error


# --- for programs ---


def _fields(repository: Repository, report: AuditReport) -> dict[str, Any]:
    totals = report.totals
    return {
        "verdict": report.verdict,
        "repository": repository.ledger.repository_id,
        "url": repository.store.url,
        "head": str(report.head),
        "at": to_rfc3339(report.at),
        "lock": report.lock_mode.value,
        "advisory": report.advisory,
        "snapshots": [_snapshot_fields(report, each) for each in report.snapshots],
        "datasets": [_age_fields(each) for each in report.datasets],
        "objects": totals.needed,
        "bytes": totals.bytes,
        "checksums_stated": totals.checksums,
        "checksums_not_available": totals.not_available,
        "objects_read": totals.read,
        "bytes_read": totals.bytes_read,
        "packs": totals.packs,
        "packs_read": totals.packs_read,
        "headers": totals.headers,
        "names": totals.names,
        "versions": totals.versions,
        "repeated": totals.repeated,
        "unneeded": totals.unneeded,
        "unneeded_bytes": totals.unneeded_bytes,
        "findings": [_finding_fields(each) for each in report.findings],
        "findings_omitted": report.omitted,
    }


def _snapshot_fields(report: AuditReport, snapshot: SnapshotAudit) -> dict[str, Any]:
    return {
        "seq": snapshot.seq,
        "dataset": snapshot.dataset,
        "created": to_rfc3339(snapshot.created),
        "complete": snapshot.complete,
        "held": snapshot.held,
        "until": to_rfc3339(snapshot.until),
        "objects": snapshot.objects,
        "bytes": snapshot.bytes,
        "readable": snapshot.readable,
        "bad": snapshot.bad,
        "called_bad": snapshot.called_bad,
        "protection": protection_fields(snapshot.protection, report.at),
    }


def protection_fields(protection: Protection | None, now: datetime) -> dict[str, Any] | None:
    """End of the protection, the object that ends it, and the days until a gap."""
    if protection is None:
        return None
    return {
        "until": to_rfc3339(protection.until) if protection.until else None,
        "weakest": protection.weakest,
        "days_to_gap": protection.days_to_gap(now),
    }


def _age_fields(dataset: DatasetAge) -> dict[str, Any]:
    return {
        "dataset": dataset.dataset,
        "newest": dataset.newest,
        "age": int(dataset.age.total_seconds()) if dataset.age is not None else None,
    }


def _finding_fields(finding: AuditFinding) -> dict[str, str]:
    return {
        "severity": finding.severity.value,
        "code": finding.code.value,
        "concern": finding.concern.value,
        "subject": finding.subject,
        "problem": finding.problem,
        "expected": finding.expected,
        "found": finding.found,
    }


# --- for people ---


def _text(report: AuditReport) -> str:
    """The errors first, then what is sound, the next step, the findings, and the totals."""
    parts = [render.facts(_outcome(report))]
    if report.findings:
        parts.append("\n".join(map(_finding_line, report.findings)))
    if report.omitted:
        parts.append(f"and {render.plural(report.omitted, 'finding')} like these")
    parts.append(render.facts(_facts(report)))
    if report.snapshots:
        rows = [_snapshot_row(each, report) for each in report.snapshots]
        width = render.terminal_width()
        parts.append(render.table(_SNAPSHOT_HEADINGS, rows, right={0, 6}, width=width))
    if report.datasets:
        parts.append(render.table(_AGE_HEADINGS, map(_age_row, report.datasets), right={1}))
    return "\n\n".join(parts)


def _outcome(report: AuditReport) -> dict[str, str]:
    """The verdict, the errors, the snapshots concerned, and the next step."""
    facts = {"verdict": report.verdict}
    errors = [each for each in report.findings if each.severity is Severity.ERROR]
    if errors:
        count = render.plural(len(errors), "error") + (" and more" if report.omitted else "")
        facts["wrong"] = f"{count}, first {errors[0].code}: {finding_text(errors[0])}"
    hit = [each.seq for each in report.snapshots if each.is_hit]
    others = [each.seq for each in report.snapshots if not each.is_hit]
    if hit:
        facts["concerns"] = f"snapshots with something missing or wrong: {render.numbers(hit)}"
    if report.snapshots:
        facts["others" if hit else "snapshots"] = (
            f"nothing found missing or wrong: {render.numbers(others)}"
        )
    if step := _next_step(report, hit):
        facts["next"] = step
    return facts


def _next_step(report: AuditReport, hit: Sequence[int]) -> str:
    """The command that helps most now; empty if no step is left."""
    codes = {each.code for each in report.findings if each.severity is Severity.ERROR}
    steps = (
        (bool(hit), f"'vault verify {hit[-1]}' names the files that are concerned" if hit else ""),
        (Code.MISSING in codes, "copy what is missing back from a second copy, then audit again"),
        (
            bool(codes & HIDING),
            "'vault heal' shows what hides needed objects, --execute removes it",
        ),
        (
            bool(codes & {Code.TRUNCATED, Code.FORKED, Code.CHECKPOINT}),
            "who changed the store, or stole a log's key? --report FILE keeps the checkpoints",
        ),
        (Code.FROZEN in codes, "have a witness cosign what 'vault checkpoint --out FILE' writes"),
        (
            report.gravest is Concern.RETENTION,
            "'vault status --locks' shows the gaps; the next snapshot extends what it needs",
        ),
        (bool(codes), "the findings below; docs/json.md says what each code means"),
        (
            report.gravest is Concern.NONE and report.totals.packs_read < report.totals.packs,
            "'vault audit --read-data all' reads every pack",
        ),
    )
    return next((step for is_due, step in steps if is_due), "")


def _facts(report: AuditReport) -> dict[str, str]:
    """Totals of the audit, in a few lines."""
    totals = report.totals
    stated = f"{totals.checksums:,} stated by the store, {totals.not_available:,} not available"
    unneeded = f"{totals.unneeded:,}, {render.size(totals.unneeded_bytes)}"
    locks = f"{report.lock_mode.value}{', advisory' if report.advisory else ''}"
    return {
        "head": str(report.head),
        "locks": locks,
        "needed": f"{render.plural(totals.needed, 'object')}, {render.size(totals.bytes)}",
        "checksums": stated,
        "read": f"{render.plural(totals.read, 'object')}, {render.size(totals.bytes_read)},"
        f" {totals.packs_read:,} of {render.plural(totals.packs, 'pack')},"
        f" headers of {totals.headers:,}",
        "listed": f"{totals.names:,} names, {render.plural(totals.versions, 'version')},"
        f" {totals.repeated:,} of them repeated",
        "not needed": unneeded,
        "findings": _counts(report.findings, report.omitted),
    }


def _counts(findings: Sequence[AuditFinding], omitted: int) -> str:
    counts: dict[str, int] = {}
    for finding in findings:
        counts[finding.severity.value] = counts.get(finding.severity.value, 0) + 1
    parts = [f"{count:,} {severity}" for severity, count in counts.items()]
    if omitted:
        parts.append(f"{omitted:,} more")
    return ", ".join(parts) or "none"


_SNAPSHOT_HEADINGS = (
    "snapshot",
    "dataset",
    "taken",
    "found",
    "until",
    "protected until",
    "gap in days",
    "weakest object",
)


def _snapshot_row(snapshot: SnapshotAudit, report: AuditReport) -> tuple[str, ...]:
    """One snapshot that is owed."""
    protection = snapshot.protection
    until, days, weakest = "not locked" if snapshot.readable else "unknown", "", ""
    if snapshot.readable and protection is not None:
        until, days, weakest = protection_cells(protection, report.at)
    advisory = " (advisory)" if protection is not None and report.advisory else ""
    return (
        str(snapshot.seq),
        snapshot.dataset,
        render.moment(snapshot.created),
        _found(snapshot),
        render.moment(snapshot.until) + (", held" if snapshot.held else ""),
        until + advisory,
        days,
        weakest,
    )


def _found(snapshot: SnapshotAudit) -> str:
    """Number of a snapshot's objects that are bad, as text."""
    if not snapshot.readable:
        return "inventory can't be used"
    if snapshot.bad:
        return f"{snapshot.bad:,} bad or not shown"
    return f"wrong by {snapshot.called_bad}" if snapshot.called_bad is not None else "nothing wrong"


def protection_cells(protection: Protection, now: datetime) -> tuple[str, str, str]:
    """Until when, days to the gap, and the object whose lock ends first."""
    gap = protection.days_to_gap(now)
    until = render.moment(protection.until) if protection.until else "not locked"
    return until, "none" if gap is None else str(gap), protection.weakest


_AGE_HEADINGS = ("dataset", "newest complete", "age")


def _age_row(dataset: DatasetAge) -> tuple[str, ...]:
    """The RPO of one dataset as it is."""
    age = format_age(dataset.age) if dataset.age is not None else ""
    return (dataset.dataset, "none" if dataset.newest is None else str(dataset.newest), age)


def _finding_line(finding: AuditFinding) -> str:
    line = f"{finding.severity}: {finding.code}: {finding_text(finding)}"
    return render.printable(line)


def _page(repository: Repository, report: AuditReport) -> str:
    """The same for a browser."""
    about = {"repository": f"{repository.store.url} ({repository.ledger.repository_id})"}
    about = _outcome(report) | about | {"audited": to_rfc3339(report.at)} | _facts(report)
    kept = [
        Section(
            title="Snapshots that are owed",
            headings=_SNAPSHOT_HEADINGS,
            rows=[_snapshot_row(each, report) for each in report.snapshots],
        ),
        Section(
            title="Age of the newest complete snapshot",
            headings=_AGE_HEADINGS,
            rows=[_age_row(each) for each in report.datasets],
        ),
        Section(
            title="Findings",
            headings=("severity", "code", "subject", "problem", "expected", "found"),
            rows=[_finding_cells(each) for each in report.findings],
            by_severity=True,
        ),
    ]
    good = report.gravest is Concern.NONE
    return page("Audit of a vault repository", report.verdict, about, kept, good=good)


def _finding_cells(finding: AuditFinding) -> tuple[str, ...]:
    return (
        finding.severity.value,
        finding.code.value,
        finding.subject,
        finding.problem,
        finding.expected,
        finding.found,
    )
