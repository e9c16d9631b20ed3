"""The whole repository against what was signed: chain, bytes, locks, hidden versions (design.md 6).

`audit` reads and never writes, needs public keys only, and never stops at the first
finding. `protection` tells until when one snapshot is protected.

::

    findings     what can be found, how grave it is, and a collector that keeps a bounded number
    needs        what is owed: every object that a live or held snapshot and the ledger need
    versions     which of the versions under a name is the right one, and what the others are
    protection   until when the locks of everything needed last
    report       what was looked at and how every snapshot stands
    run          one audit from beginning to end
"""

from vault.audit.findings import AuditFinding, Concern
from vault.audit.protection import Protection, protection
from vault.audit.report import AuditReport, DatasetAge, SnapshotAudit
from vault.audit.run import audit
from vault.model import Code

__all__ = [
    "AuditFinding",
    "AuditReport",
    "Code",
    "Concern",
    "DatasetAge",
    "Protection",
    "SnapshotAudit",
    "audit",
    "protection",
]
