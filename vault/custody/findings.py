"""The findings of an audit, and how grave each is. Pure."""

import dataclasses
from collections import Counter
from collections.abc import Mapping
from enum import StrEnum

from vault.model import Code, Finding, Severity

LIMIT = 10_000  # kept findings of one code; an attacker can make any number of versions


class Concern(StrEnum):
    """The promise that a finding is about; the gravest first."""

    INTEGRITY = "integrity"
    RETENTION = "retention"
    ACCESS = "access"  # the store refuses to show it
    OBJECTIVE = "objective"
    NONE = "none"


_INTEGRITY = (Severity.ERROR, Concern.INTEGRITY)
_RETENTION = (Severity.ERROR, Concern.RETENTION)
_OBJECTIVE = (Severity.ERROR, Concern.OBJECTIVE)
_WARNING = (Severity.WARNING, Concern.NONE)
_INFO = (Severity.INFO, Concern.NONE)

JUDGEMENT: Mapping[Code, tuple[Severity, Concern]] = {
    Code.VOID: _INTEGRITY,
    Code.DISTRUSTED: _WARNING,  # a revocation already voided it
    Code.NOT_UNDERSTOOD: _WARNING,
    Code.OTHER_HISTORY: _INTEGRITY,
    Code.BEYOND_GAP: _INTEGRITY,
    Code.FORK: _INTEGRITY,
    Code.UNLISTED_KEY: _INTEGRITY,
    Code.JUNK_STATEMENT: _INTEGRITY,
    Code.LOST_RACE: _INFO,
    Code.WRONG_PAGE: _INTEGRITY,
    Code.HEAVY_PLAN: _INTEGRITY,
    Code.UNREADABLE_PLAN: _INTEGRITY,
    Code.INVENTORY: _INTEGRITY,
    Code.MISSING: _INTEGRITY,
    Code.WRONG_SIZE: _INTEGRITY,
    Code.WRONG_CHECKSUM: _INTEGRITY,
    Code.WRONG_BYTES: _INTEGRITY,
    Code.RELOCATED: _INFO,
    Code.MARKER: _INTEGRITY,
    Code.OTHER_BYTES: _INTEGRITY,
    Code.NOT_READ: _WARNING,
    Code.REFUSED: (Severity.ERROR, Concern.ACCESS),
    Code.FOREIGN_NAME: _WARNING,
    Code.LOCK_GAP: _RETENTION,
    Code.LOCK_MODE: _RETENTION,
    Code.NO_HOLD: _RETENTION,
    Code.ADVISORY: _INFO,
    Code.CLOCK: _WARNING,
    Code.ATTESTATION: _INTEGRITY,
    Code.NOT_SEALED_TO: _INTEGRITY,
    Code.TIME_SKEW: _WARNING,
    Code.REVIEW_DUE: _WARNING,
    Code.TIME_ORDER: _WARNING,
    Code.OTHER_PREVIOUS: _WARNING,
    Code.DATED_BACK: _INTEGRITY,
    Code.OVERCLAIM: _WARNING,
    Code.MODE_WEAK: _RETENTION,
    Code.UNAPPROVED: _INTEGRITY,
    Code.RETENTION_SHORT: _RETENTION,
    Code.CALLED_BAD: _INTEGRITY,
    Code.BUCKET_RULE: _RETENTION,
    Code.TRUNCATED: _INTEGRITY,
    Code.FORKED: _INTEGRITY,
    Code.FROZEN: _OBJECTIVE,
    Code.UNWITNESSED: _INTEGRITY,  # a warning where no witness is required
    Code.CHECKPOINT: _INTEGRITY,
    Code.SILENT: _OBJECTIVE,
    Code.RESEAL_MISSING: _INTEGRITY,
    Code.RESEAL_WRONG: _INTEGRITY,
    Code.NOT_RESEALED: _WARNING,
}


HIDING = frozenset({Code.MARKER, Code.OTHER_BYTES, Code.JUNK_STATEMENT})  # `heal` removes it


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class AuditFinding(Finding):
    """A finding with the promise that it is about."""

    code: Code

    @property
    def concern(self) -> Concern:
        """Which promise it breaks."""
        return JUDGEMENT[self.code][1]


class Findings:
    """Collects findings; counts all, keeps the first `LIMIT` of each code."""

    def __init__(self) -> None:
        self.kept: list[AuditFinding] = []
        self.counts: Counter[Code] = Counter()

    def add(
        self,
        code: Code,
        subject: str,
        problem: str,
        *,
        expected: object = "",
        found: object = "",
        harmless: bool = False,
    ) -> None:
        """Add a finding; if it is marked harmless, it is no error, whatever its code."""
        self.counts[code] += 1
        if self.counts[code] > LIMIT:
            return
        severity = JUDGEMENT[code][0]
        if harmless and severity is Severity.ERROR:
            severity = Severity.WARNING
        self.kept.append(
            AuditFinding(
                severity=severity,
                subject=subject,
                problem=problem,
                expected=str(expected),
                found=str(found),
                code=code,
            )
        )

    @property
    def omitted(self) -> int:
        """How many were counted and not kept."""
        return self.counts.total() - len(self.kept)
