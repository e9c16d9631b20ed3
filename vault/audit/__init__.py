"""The audit: the whole repository compared with what was signed, with public keys, without writing.

`audit_repository` is one audit from beginning to end, and never stops at the first finding. What
must exist is `vault.custody`'s; here it is counted, read, judged and reported. Opening sealed
bytes with the recovery key is the work of `vault.verify`.
"""

from vault.audit.audit import audit_repository
from vault.audit.audit_report import AuditReport, DatasetAge, SnapshotAudit
from vault.custody.findings import AuditFinding, Concern
from vault.custody.protection import Protection, protection
from vault.model import Code

__all__ = [
    "AuditFinding",
    "AuditReport",
    "Code",
    "Concern",
    "DatasetAge",
    "Protection",
    "SnapshotAudit",
    "audit_repository",
    "protection",
]
