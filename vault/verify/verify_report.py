"""The result of a verification: for people, for programs, and for an attestation. Pure."""

import dataclasses
from typing import Any, Final

from vault.custody.sampling import Sample
from vault.ledger.kinds import name_packs
from vault.ledger.statements import WHOLE_SHARE, Verdict
from vault.model import Finding, Severity

_TOLD: Final = 100  # findings, and snapshots, in an attestation
_PACKS_TOLD: Final = 10_000  # pack ids in an attestation: 0.7 MB of the 2 it may have


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """One snapshot that needs something wrong or missing."""

    seq: int
    dataset: str
    problem: str  # the first one found
    objects: tuple[str, ...] = ()  # wrong or missing ones that it needs; the first of them
    object_count: int = 0
    files: tuple[bytes, ...] = ()  # whose content can't be had; the first of them
    file_count: int | None = None  # None: not checked, as that needs the recovery key
    after: bytes | None = None  # no entry after this path in the tree can be read

    loose: int = 0  # substitute packs whose lock ends too early

    @property
    def is_elsewhere(self) -> bool:
        """Whether all of it can be had, because other packs hold what damaged ones do not."""
        return self.file_count == 0 and self.after is None

    @property
    def is_mended(self) -> bool:
        """Whether that holds for as long as the snapshot is to be kept."""
        return self.is_elsewhere and not self.loose


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class VerifyReport:
    """What was checked, and what was found."""

    snapshots: tuple[int, ...]  # seq
    objects: int  # that the snapshots need
    bytes: int  # of those
    objects_read: int  # whose bytes were read and are right
    bytes_read: int
    objects_tried: int  # that were read, or found missing
    bytes_tried: int
    chunks: int  # opened and checked against their ids; 0 without a recovery key
    entries: int  # entries of the trees that were checked
    with_key: bool  # a recovery key was given
    opened: bool  # packs were opened with it
    sample: Sample  # which packs were to be read
    through: int  # seq of the head when it was read
    ranges: tuple[tuple[int, int], ...]  # ranges of seqs with these snapshots and no other
    bad: tuple[str, ...]  # ids of packs found wrong
    cleared: tuple[str, ...]  # ids of packs called bad by a statement, and found right
    wrong: int  # objects that are wrong or missing
    first_wrong: str  # one of them, and what is wrong with it
    unread: tuple[tuple[str, str], ...]  # objects that the store did not give, and why
    unread_count: int
    unopened: int  # snapshots that were sealed before this recovery key was listed
    hits: tuple[Hit, ...]  # the first of them
    hit_count: int
    whole: tuple[int, ...]  # seqs of snapshots about which nothing wrong was found
    findings: tuple[Finding, ...]  # the first of them
    finding_count: int

    @property
    def passed(self) -> bool:
        """Whether nothing wrong was found in what was read."""
        return not self.hit_count and not any(
            finding.severity is Severity.ERROR for finding in self.findings
        )

    @property
    def verdict(self) -> str:
        """One of "nothing" (to verify), "failed", "unfinished", "partial" (not all read), "passed".

        "unfinished": the store did not give some bytes; that says nothing about them.
        """
        if not self.snapshots:
            return "nothing"
        if not self.passed:
            return Verdict.FAILED
        if self.unread_count:
            return "unfinished"
        is_whole = self.objects_read == self.objects and not self.unopened
        return Verdict.PASSED if is_whole else Verdict.PARTIAL

    @property
    def share(self) -> int:
        """The parts per million that were read, of objects or of bytes: the lower of the two."""
        if not self.objects:
            return 0
        objects = self.objects_tried * WHOLE_SHARE // self.objects
        return min(objects, self.bytes_tried * WHOLE_SHARE // (self.bytes or 1))

    def claims(self) -> dict[str, Any]:
        """The fields of the statement about it."""
        return {
            "snapshots": self.ranges,
            "share": self.share,
            "slice": self.sample.slice,
            "nonce": self.sample.nonce.hex(),
            "opened": self.opened,
            "read": self.bytes_read,
            "through": self.through,
            **name_packs(self.bad, self.cleared),
        }

    def details(self) -> dict[str, Any]:
        """The details of its attestation; public, so without file names."""
        return {
            "bad_packs": list(self.bad[:_PACKS_TOLD]),
            "snapshots": len(self.snapshots),
            "objects": self.objects,
            "bytes": self.bytes,
            "objects_read": self.objects_read,
            "bytes_read": self.bytes_read,
            "chunks": self.chunks,
            "entries": self.entries,
            "wrong": self.wrong,
            "unread": self.unread_count,
            "unopened": self.unopened,
            "hits": [_public(hit) for hit in self.hits[:_TOLD]],
            "hit_count": self.hit_count,
            "findings": [
                f"{finding.severity}: {finding.subject}: {finding.problem}"[:200]
                for finding in self.findings[:_TOLD]
            ],
            "finding_count": self.finding_count,
        }


def _public(hit: Hit) -> dict[str, Any]:
    """A snapshot that needs something wrong, in numbers only."""
    return {
        "snapshot": hit.seq,
        "objects": hit.object_count,
        "files": hit.file_count,
        "mended": hit.is_mended,
    }
