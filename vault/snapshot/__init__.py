"""Taking a snapshot: design.md 6, the first flow."""

from vault.snapshot.run import Problem
from vault.snapshot.stream import Command, NamedStream, StandardInput
from vault.snapshot.take import SnapshotReport, SnapshotRequest, rebuild_index, take_snapshot

__all__ = [
    "Command",
    "NamedStream",
    "Problem",
    "SnapshotReport",
    "SnapshotRequest",
    "StandardInput",
    "rebuild_index",
    "take_snapshot",
]
