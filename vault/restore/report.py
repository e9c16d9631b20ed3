"""What a restore is asked for, and what may be said of it afterwards."""

import dataclasses
import os
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path

from vault.errors import FormatError, VaultError
from vault.format.tree import Flaws
from vault.ledger.chain import Record
from vault.ledger.statements import Counts
from vault.restore.included import Wanted
from vault.restore.prove import ProofReport


class Outcome(StrEnum):
    """What may be said of a restore."""

    RECOVERED = "recovered"  # proven, whole, and attested
    SELECTION = "recovered (selection)"  # proven, and all that was asked for
    WITHOUT_OWNERS = "recovered, without owners"  # proven, by a user who may not give files away
    PARTIAL = "partial"  # proven but for what is listed as left out
    UNPROVEN = "restored, not proven"  # --no-verify
    PLANNED = "planned"  # --dry-run


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RestoreRequest:
    """What to restore where, and how."""

    record: Record
    target: Path
    tool: str  # "vault 0.1.0"
    verify: bool = True
    replace: bool = False
    dry_run: bool = False
    wanted: Wanted | None = None  # None: everything
    drop_privileges: bool = False  # set-uid, set-gid and capabilities of files
    shared_parent: bool = False  # others may be able to swap TARGET or staging
    protected: Sequence[Path] = ()  # places of the vault's own


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RestoreReport:
    """A restore that did what it said."""

    outcome: Outcome
    target: Path
    counts: Counts  # of what was asked for, as a snapshot counts it
    files: int  # with content
    size: int  # bytes of content
    proof: ProofReport | None = None
    left_out: dict[str, int] = dataclasses.field(default_factory=dict)
    bad_packs: tuple[str, ...] = ()  # needed ones, by name; what was wanted came from others
    flaws: Flaws = dataclasses.field(default_factory=Flaws)  # of the tree, stepped over
    atomic: bool = True
    former: bool = False  # the former state is kept until it is finalized
    attestation: bytes = b""
    statement: Record | None = None  # that recorded it; None: it is kept in a file
    attestation_file: Path | None = None
    troubles: tuple[VaultError, ...] = ()  # what failed once TARGET was the new state


class BadEntriesError(FormatError):
    """The whole of a snapshot was asked for, and not all of it can be given."""

    def __init__(self, record: Record, flaws: Flaws) -> None:
        first = flaws.named[0]
        name = (
            "one without a legible name"
            if first.path is None
            else repr(os.fsdecode(first.path[:200]))
        )
        count = f"{flaws.count} entries" if flaws.count > 1 else "1 entry"
        super().__init__(
            f"snapshot {record.seq} has {count} that can't be restored, first {name}:"
            f" it {first.text}; TARGET is as it was",
            hint=f"'vault restore {record.seq} TARGET --include \"*\"' restores all others into a"
            f" new or empty TARGET; 'vault verify {record.seq}' names the bad ones",
        )
        self.flaws = flaws
