"""Restoring: stage beside the target, prove what was written from disk, exchange it for the target.

`restore_snapshot` is the flow from beginning to end; `restore_attempt` is one try of it. What
comes later, to undo an exchange or to finalize it, is in `undo_finalize`. Checks of stored bytes
without a target belong in `vault.verify`; reading single files belongs in `vault.browse`.
"""

from vault.restore.attesting import Finalized, ProofFailedError, finalize_restore
from vault.restore.damage import Course
from vault.restore.journal import Local
from vault.restore.restore import restore_snapshot
from vault.restore.restore_report import (
    BadEntriesError,
    RestoreOutcome,
    RestoreReport,
    RestoreRequest,
)
from vault.restore.undo_finalize import (
    Exchange,
    Leftovers,
    Undone,
    leftovers,
    undo_restore,
    undo_restore_from,
)

__all__ = [
    "BadEntriesError",
    "Course",
    "Exchange",
    "Finalized",
    "Leftovers",
    "Local",
    "ProofFailedError",
    "RestoreOutcome",
    "RestoreReport",
    "RestoreRequest",
    "Undone",
    "finalize_restore",
    "leftovers",
    "restore_snapshot",
    "undo_restore",
    "undo_restore_from",
]
