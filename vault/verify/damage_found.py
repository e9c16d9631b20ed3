"""What one verification has found so far; bounded, however much is wrong."""

import dataclasses
from typing import Final, TypeAlias

from vault.errors import (
    DigestMismatchError,
    MissingObjectError,
    StorageError,
    VaultError,
    WrongKeyError,
)
from vault.ledger.records import Record
from vault.model import Code, Finding, ObjectRef, Severity
from vault.repository.repository import snapshot_body
from vault.verify.verify_report import Hit

KEPT_FINDINGS: Final = 1_000  # findings, snapshots that are hit, objects that were not read
NAMED_IN_HIT: Final = 20  # objects and files of one snapshot
_STORE_IS_GONE: Final = 3  # objects in a row that the store does not give

_CODES: Final = (  # the codes that an audit gives to the same problems
    (MissingObjectError, Code.MISSING),
    (WrongKeyError, Code.NOT_SEALED_TO),
    (DigestMismatchError, Code.WRONG_BYTES),
)

# name, SHA-256, size: one name may be signed with two digests
Key: TypeAlias = tuple[str, bytes, int]


def key_of(ref: ObjectRef) -> Key:
    """The key by which a verification knows an object."""
    return ref.name, ref.sha256, ref.size


class Found:
    """Findings, wrong or unread objects, and the snapshots that need them."""

    def __init__(self) -> None:
        self.findings: list[Finding] = []
        self.finding_count = 0
        self.wrong: dict[Key, str] = {}  # what is wrong with an object that is wrong or missing
        self.unread: dict[Key, str] = {}  # what the store did not give, and why
        self.hits: dict[int, Hit] = {}  # by seq; only the first are kept
        self.hit: set[int] = set()  # seqs of all snapshots that need something wrong
        self.doubtful: set[int] = set()  # seqs of snapshots that need something unread
        self.unopened: set[int] = set()  # seqs of snapshots not sealed to this recovery key
        self._in_a_row = 0

    # --- findings ---

    def error(self, subject: str, error: VaultError, *, severity: Severity = Severity.ERROR) -> str:
        """Note an exception as a finding about a subject; returns the problem."""
        problem = error.message.removeprefix(f"{subject} ")
        self.note(
            subject,
            problem,
            expected="" if error.expected is None else str(error.expected),
            found="" if error.found is None else str(error.found),
            severity=severity,
            code=next((code for kind, code in _CODES if isinstance(error, kind)), ""),
        )
        return problem

    def note(
        self,
        subject: str,
        problem: str,
        *,
        expected: str = "",
        found: str = "",
        severity: Severity = Severity.ERROR,
        code: str = "",
    ) -> None:
        """Note a finding."""
        self.finding_count += 1
        if len(self.findings) < KEPT_FINDINGS:
            self.findings.append(
                Finding(
                    severity=severity,
                    subject=subject,
                    problem=problem,
                    expected=expected,
                    found=found,
                    code=code,
                )
            )

    def is_wrong(self, key: Key, error: VaultError) -> None:
        """Note that an object is not what was signed, or is missing."""
        if key not in self.wrong:
            self.wrong[key] = self.error(key[0], error)

    # --- what the store does not give ---

    def gave(self) -> None:
        """Note that the store answered."""
        self._in_a_row = 0

    def is_unread(self, key: Key, error: StorageError) -> None:
        """Note that the store did not give an object, which says nothing about its bytes.

        Raises:
            StorageError: It gave none of the objects before either: the store itself fails.
        """
        self._in_a_row += 1
        if self._in_a_row >= _STORE_IS_GONE:
            raise error
        self.unread[key] = str(error)

    # --- snapshots ---

    def concerns(
        self,
        record: Record,
        problem: str,
        *,
        objects: tuple[str, ...] = (),
        object_count: int = 0,
        files: tuple[bytes, ...] = (),
        file_count: int | None = None,
        after: bytes | None = None,
        loose: int = 0,
    ) -> None:
        """Note that a snapshot needs something wrong; later calls add to earlier ones."""
        self.hit.add(record.seq)
        known = self.hits.get(record.seq)
        if known is None and len(self.hits) >= KEPT_FINDINGS:
            return
        if known is None:
            dataset = snapshot_body(record).dataset
            known = Hit(seq=record.seq, dataset=dataset, problem=problem)
        self.hits[record.seq] = dataclasses.replace(
            known,
            problem=problem if objects else known.problem or problem,
            objects=objects[:NAMED_IN_HIT] or known.objects,
            object_count=object_count or known.object_count,
            files=files[:NAMED_IN_HIT] or known.files,
            file_count=known.file_count if file_count is None else file_count,
            after=known.after if after is None else after,
            loose=loose or known.loose,
        )
