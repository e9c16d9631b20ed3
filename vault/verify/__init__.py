"""Verification: stored bytes of snapshots compared with what was signed, whole or by sample.

Without a secret key every object has the size and the SHA-256 that its signed inventory says.
With the recovery key every block opens, every chunk is what its id says, and the tree gives the
signed commitment. The report names the snapshots and files that damage concerns. Locks, hidden
versions and the ledger itself are the work of `vault.audit`.
"""

from vault.verify.object_task import Place
from vault.verify.verify import SoFar, Verification, verify_snapshots
from vault.verify.verify_report import Hit, VerifyReport

__all__ = ["Hit", "Place", "SoFar", "Verification", "VerifyReport", "verify_snapshots"]
