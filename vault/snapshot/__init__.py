"""Taking a snapshot: design.md 6, the first flow."""

from vault.snapshot.preview import Action, Planned
from vault.snapshot.run import Problem
from vault.snapshot.stream import Command, NamedStream, StandardInput
from vault.snapshot.take import preview_snapshot, rebuild_index, take_snapshot
from vault.snapshot.task import LeftPacks, SnapshotReport, SnapshotRequest

__all__ = [
    "Action",
    "Command",
    "LeftPacks",
    "NamedStream",
    "Planned",
    "Problem",
    "SnapshotReport",
    "SnapshotRequest",
    "StandardInput",
    "preview_snapshot",
    "rebuild_index",
    "take_snapshot",
]
