"""The part of an audit that repeats what policies asked of snapshots."""

from vault.clock import to_rfc3339
from vault.custody.findings import Findings
from vault.model import Code
from vault.policy.in_force import policies_in_force
from vault.policy.kept_short import kept_short
from vault.repository.repository import Repository


def check_policies(repository: Repository, findings: Findings) -> None:
    """Report policies that are not used, and snapshots that promise less than was asked."""
    for each in policies_in_force(repository).findings:
        findings.add(Code.UNAPPROVED, each.subject, each.problem, found=each.found)
    for short in kept_short(repository):
        why = f" as {' and '.join(short.reasons)}" if short.reasons else ""
        findings.add(
            Code.RETENTION_SHORT,
            f"ledger {short.record.seq}",
            f"snapshot {short.record.seq} promises less than policy {short.policy} asks{why}",
            expected=to_rfc3339(short.asked),
            found=to_rfc3339(short.until),
            harmless=not short.sure,
        )
