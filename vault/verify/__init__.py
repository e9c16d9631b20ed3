"""Checking stored bytes against what was signed (design.md 6, audit and verify).

Without a secret key: every object of a snapshot has the size and the SHA-256 that
its signed inventory says. With the recovery key: every block opens, every chunk
is what its id says, and the tree gives the signed commitment. What is wrong is told with
the snapshots, and the files, that it concerns; what is whole is told as well.
"""

from vault.verify.report import Hit, VerifyReport
from vault.verify.run import SoFar, Verification, verify

__all__ = ["Hit", "SoFar", "Verification", "VerifyReport", "verify"]
