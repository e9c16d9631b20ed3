"""Restore: stage beside the target, prove from disk, promote in one step (design.md 6)."""

from vault.restore.attempts import restore
from vault.restore.course import Course
from vault.restore.finish import Exchange, Leftovers, Undone, leftovers, undo, undo_from
from vault.restore.journal import Local
from vault.restore.report import BadEntriesError, Outcome, RestoreReport, RestoreRequest
from vault.restore.witness import Finalized, ProofFailedError, finalize_restore

__all__ = [
    "BadEntriesError",
    "Course",
    "Exchange",
    "Finalized",
    "Leftovers",
    "Local",
    "Outcome",
    "ProofFailedError",
    "RestoreReport",
    "RestoreRequest",
    "Undone",
    "finalize_restore",
    "leftovers",
    "restore",
    "undo",
    "undo_from",
]
