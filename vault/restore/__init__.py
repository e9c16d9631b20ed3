"""Restore: stage beside the target, prove from disk, promote in one step (design.md 6)."""

from vault.restore.promote import leftovers, undo
from vault.restore.run import (
    BadEntriesError,
    Outcome,
    ProofFailedError,
    RestoreReport,
    RestoreRequest,
    finalize_restore,
    restore,
)

__all__ = [
    "BadEntriesError",
    "Outcome",
    "ProofFailedError",
    "RestoreReport",
    "RestoreRequest",
    "finalize_restore",
    "leftovers",
    "restore",
    "undo",
]
