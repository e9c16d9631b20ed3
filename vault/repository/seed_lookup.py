"""Seeds of sessions for a recipient: in headers, else in tables of seeds (docs/format.md 6.1).

Only a reader that holds a recipient's key looks for tables, and only for what no header gives it.
What is wrong with a table is a finding; the other tables are used.
"""

import threading
from collections.abc import Iterator
from typing import Final

from vault.crypto.keys import RecipientKey
from vault.crypto.sealed import Header, Opener, open_seed
from vault.errors import DigestMismatchError, FormatError, IntegrityError, WrongKeyError
from vault.format.seed_tables import MAX_TABLE, SeedRows, open_rows
from vault.ledger.chain import Ledger
from vault.ledger.records import Record
from vault.ledger.statements import ResealBody, SeedTable, StatementType
from vault.model import Code, Digest, Finding, ObjectRef, Severity
from vault.repository.objects import Objects

MOST_TABLES: Final = 64  # that one reader opens


class SeedLookup:
    """Opens sealed objects for recipients of a repository.

    Args:
        ledger: Its reseals say where tables lie.
        objects: Of the same store.
    """

    def __init__(self, ledger: Ledger, objects: Objects) -> None:
        self._ledger = ledger
        self._objects = objects
        self._opened: dict[str, SeedRows | None] = {}  # by name; None: of no use
        self._told: set[str] = set()
        self._mutex = threading.Lock()

    def seed_of(self, header: Header, recipient: RecipientKey) -> bytes:
        """The seed that opens an object with that header; any thread may call this.

        Raises:
            WrongKeyError: The object is not sealed to the recipient, and no table has its seed.
            DigestMismatchError: The sealed seed was altered or belongs elsewhere.
            StorageError: The store failed.
        """
        repository_id = bytes.fromhex(self._ledger.repository_id)
        try:
            return open_seed(header, repository_id, recipient)
        except WrongKeyError as error:
            with self._mutex:
                found = self._find(header, repository_id, recipient)
            if found is None:
                error.hint = (
                    "use the key file of one of the recipients named, whose holder can also open it"
                    " to this one: 'vault key reseal'"
                )
                raise
            return found

    def _find(self, header: Header, repository_id: bytes, recipient: RecipientKey) -> bytes | None:
        """The seed in a table, once the object's commitment has proven it."""
        for record, rows in self._tables(recipient, repository_id):
            seed = rows.find(header.session_key)
            if seed is None:
                continue
            try:
                Opener(header, seed, repository_id)
            except DigestMismatchError:
                self._tell(record, Code.RESEAL_WRONG, "a seed that it gives opens nothing")
                continue
            return seed
        return None

    def _tables(
        self, recipient: RecipientKey, repository_id: bytes
    ) -> Iterator[tuple[Record, SeedRows]]:
        """Tables for a recipient that can be used, oldest first."""
        looked_at = 0
        for record in self._ledger.valid(StatementType.RESEAL):
            body = record.body
            assert isinstance(body, ResealBody)
            if body.recipient != str(recipient.id):
                continue
            for table in body.objects:
                looked_at += 1
                if looked_at > MOST_TABLES:
                    self._tell(record, Code.RESEAL_WRONG, f"over {MOST_TABLES} tables of seeds")
                    return
                if table.name not in self._opened:
                    self._opened[table.name] = self._open(record, table, recipient, repository_id)
                rows = self._opened[table.name]
                if rows is not None:
                    yield record, rows

    def _open(
        self, record: Record, table: SeedTable, recipient: RecipientKey, repository_id: bytes
    ) -> SeedRows | None:
        ref = table_ref(table)
        try:
            if ref.size > MAX_TABLE:
                raise FormatError("too large", expected=MAX_TABLE, found=ref.size)
            return open_rows(self._objects.read(ref), repository_id, recipient)
        except IntegrityError as error:
            self._tell(record, Code.RESEAL_MISSING, f"{table.name} is of no use: {error}")
            return None

    def _tell(self, record: Record, code: Code, problem: str) -> None:
        """Add a finding, one for each statement and problem."""
        subject = f"ledger {record.seq}"
        if f"{subject} {problem}" not in self._told:
            self._told.add(f"{subject} {problem}")
            self._objects.tell(
                Finding(severity=Severity.WARNING, subject=subject, problem=problem, code=code)
            )


def table_ref(table: SeedTable) -> ObjectRef:
    """A table as an object that can be read."""
    return ObjectRef(
        name=table.name,
        sha256=Digest.parse(table.sha256),
        size=table.size,
        version=table.version,
    )
