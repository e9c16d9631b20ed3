"""Taking a snapshot: walk the source, store what is new, publish inventory and statement.

`snapshot` is the flow from beginning to end; `snapshot_attempt` is one try of it. The walk of the
source is in `walk`, the list of the last run in `last_run`, the test for unchanged files in
`unchanged`, deduplication in `dedup`. Bytes of trees and packs belong in `vault.format`; looking
into snapshots that exist belongs in `vault.browse`.
"""

from vault.snapshot.preview import Planned, PreviewAction
from vault.snapshot.snapshot import preview_snapshot, rebuild_index, take_snapshot
from vault.snapshot.snapshot_request import LeftPacks, SnapshotReport, SnapshotRequest
from vault.snapshot.stream import Command, NamedStream, StandardInput
from vault.snapshot.walk_report import Problem

__all__ = [
    "Command",
    "LeftPacks",
    "NamedStream",
    "Planned",
    "PreviewAction",
    "Problem",
    "SnapshotReport",
    "SnapshotRequest",
    "StandardInput",
    "preview_snapshot",
    "rebuild_index",
    "take_snapshot",
]
