"""The request for a restore, its report, and the outcomes that the report may claim."""

import dataclasses
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path

from vault.encoding import shown_path
from vault.errors import FormatError, VaultError
from vault.format.tree import Flaws
from vault.ledger.records import Record
from vault.ledger.statements import Counts
from vault.ledger.warrants import Request
from vault.restore.include_filter import Wanted
from vault.restore.prove import ProofReport


class RestoreOutcome(StrEnum):
    """The outcome that a report of a restore claims."""

    RECOVERED = "recovered"  # proven, whole, and attested
    SELECTION = "recovered (selection)"  # proven, and all that --include asked for
    WITHOUT_OWNERS = "recovered, without owners"  # proven, by a user who may not give files away
    PARTIAL = "partial"  # proven, except for the listed omissions
    UNPROVEN = "restored, not proven"  # --no-verify
    PLANNED = "planned"  # --dry-run


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RestoreRequest:
    """The snapshot to restore, the target, and the options."""

    record: Record
    target: Path
    tool: str  # "vault 0.1.0"
    verify: bool = True
    replace: bool = False
    dry_run: bool = False
    wanted: Wanted | None = None  # None: everything
    drop_privileges: bool = False  # set-uid, set-gid and capabilities of files
    shared_parent: bool = False  # others may be able to swap TARGET or staging
    void: bool = False  # the snapshot may be one that does not count
    protected: Sequence[Path] = ()  # places of the vault's own
    agreed: Request | None = None  # what people agreed to, where live data are replaced


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RestoreReport:
    """Result of a restore that ended without an error."""

    outcome: RestoreOutcome
    target: Path
    counts: Counts  # of the requested entries, as a snapshot counts them
    files: int  # with content
    size: int  # bytes of content
    proof: ProofReport | None = None
    left_out: dict[str, int] = dataclasses.field(default_factory=dict)
    bad_packs: tuple[str, ...] = ()  # names of wrong packs; other packs held the same chunks
    flaws: Flaws = dataclasses.field(default_factory=Flaws)  # bad entries that were skipped
    atomic: bool = True
    former: bool = False  # the former state is kept until it is finalized
    attestation: bytes = b""
    statement: Record | None = None  # the attestation in the ledger; None: it is in a file
    attestation_file: Path | None = None
    troubles: tuple[VaultError, ...] = ()  # errors after TARGET had become the new state


class BadEntriesError(FormatError):
    """The caller asked for a whole snapshot, and some of its entries can't be restored."""

    def __init__(self, record: Record, flaws: Flaws) -> None:
        first = flaws.named[0]
        name = "one without a legible name" if first.path is None else shown_path(first.path)
        count = f"{flaws.count} entries" if flaws.count > 1 else "1 entry"
        super().__init__(
            f"snapshot {record.seq} has {count} that can't be restored, first {name}:"
            f" it {first.text}; TARGET is as it was",
            hint=f"'vault restore {record.seq} TARGET --include \"*\"' restores all others into a"
            f" new or empty TARGET; 'vault verify {record.seq}' names the bad ones",
        )
        self.flaws = flaws
