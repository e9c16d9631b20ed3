"""What statements `reseal` name: whether the tables are there, and are what they must be.

Without a key it can be seen to whom a table is sealed and how many seeds it holds. Whether they
open anything, only the recipient can tell: a restore or verification by its key.
"""

from collections.abc import Sequence
from datetime import timedelta

from vault.crypto.keys import recipient_id
from vault.custody.findings import Findings
from vault.custody.needs import when
from vault.encoding import b64decode_strict
from vault.errors import FormatError, IntegrityError, MissingObjectError, ObjectNotFoundError
from vault.format.seed_tables import MAX_TABLE, table_rows
from vault.ledger.records import Record
from vault.ledger.statements import ResealBody, RootBody, SeedTable, StatementType
from vault.model import Code, Id, LockMode
from vault.repository.repository import Repository
from vault.repository.seed_lookup import table_ref
from vault.storage.lock_rules import is_weaker

_SLACK = timedelta(hours=1)  # clocks differ by up to five minutes, and a PUT takes its time


def check_reseals(repository: Repository, owed: Sequence[Record], findings: Findings) -> None:
    """Look at the reseals for recipients of the root in force, and at what none covers.

    What is wrong with one is no error where a later one for the same recipient, as far as can be
    seen, is right and covers as much.

    Args:
        repository: Read up to its head.
        owed: Snapshots that are still to be kept, or held.
        findings: Receives what is wrong.

    Raises:
        StorageError: The store did not answer.
    """
    names = {
        str(recipient_id(b64decode_strict(each.public))): each.name
        for each in repository.ledger.root.recipients
    }
    covered = dict.fromkeys(names, -1)
    for record in reversed(list(repository.ledger.valid(StatementType.RESEAL))):
        body = record.body
        assert isinstance(body, ResealBody)
        if body.recipient not in names:
            continue
        run = _Looking(repository, record, body)
        run.look()
        for code, problem in run.problems:
            is_covered = covered[body.recipient] >= body.through
            findings.add(code, f"ledger {record.seq}", problem, harmless=is_covered)
        if not run.problems:
            covered[body.recipient] = max(covered[body.recipient], body.through)
    _tell_uncovered(repository, owed, names, covered, findings)


class _Looking:
    """One statement, and what is wrong with what it names."""

    def __init__(self, repository: Repository, record: Record, body: ResealBody) -> None:
        self._repository = repository
        self._record = record
        self._body = body
        self.problems: list[tuple[Code, str]] = []

    def look(self) -> None:
        """Read each table, and count the seeds in all."""
        rows = [self._rows_in(table) for table in self._body.objects]
        if None not in rows and sum(map(int, filter(None, rows))) != self._body.sessions:
            found = sum(map(int, filter(None, rows)))
            self.problems.append(
                (
                    Code.RESEAL_WRONG,
                    f"it says {self._body.sessions} sessions, and its tables have {found}",
                )
            )

    def _rows_in(self, table: SeedTable) -> int | None:
        ref = table_ref(table)
        try:
            if ref.size > MAX_TABLE:
                raise FormatError(f"{ref.name} is too large", expected=MAX_TABLE, found=ref.size)
            found = self._repository.objects.right_version(ref)
            rows = table_rows(found.data, Id.parse(self._body.recipient))
        except MissingObjectError:
            self.problems.append((Code.RESEAL_MISSING, f"{ref.name} is missing"))
            return None
        except IntegrityError as error:
            self.problems.append((Code.RESEAL_WRONG, f"{ref.name} is of no use: {error}"))
            return None
        self._check_lock(ref.name, found.version)
        return rows

    def _check_lock(self, name: str, version: str) -> None:
        parameters = self._repository.parameters
        if parameters.lock_mode is LockMode.NONE:
            return
        try:
            retention = self._repository.store.status(name, version).retention
        except ObjectNotFoundError:
            self.problems.append((Code.RESEAL_MISSING, f"{name} is missing"))
            return
        need = self._record.modified + parameters.ledger_span - _SLACK
        if retention is None or retention.until < need:
            end = (
                "carries no lock"
                if retention is None
                else f"is locked until {when(retention.until)}"
            )
            self.problems.append((Code.LOCK_GAP, f"{name} {end}, and not until {when(need)}"))
        elif is_weaker(retention.mode, parameters.lock_mode):
            self.problems.append((Code.LOCK_MODE, f"the lock of {name} is weaker than promised"))


def _tell_uncovered(
    repository: Repository,
    owed: Sequence[Record],
    names: dict[str, str],
    covered: dict[str, int],
    findings: Findings,
) -> None:
    """Snapshots that a recipient can't open: published before a root listed it, not resealed."""
    for key, since in _listed_since(repository).items():
        closed = [each.seq for each in owed if covered[key] < each.seq < since]
        if closed:
            findings.add(
                Code.NOT_RESEALED,
                f"recipient {names[key]}",
                f"can't open all of {len(closed)} snapshots up to {closed[-1]}: no reseal covers"
                " them",
                expected=f"vault key reseal --to {names[key]}",
            )


def _listed_since(repository: Repository) -> dict[str, int]:
    """The recipients of the root in force, and from which root on each was listed."""
    since: dict[str, int] = {}
    for record in repository.ledger.valid(StatementType.ROOT):
        assert isinstance(record.body, RootBody)
        listed = {
            str(recipient_id(b64decode_strict(each.public))) for each in record.body.recipients
        }
        since = {key: since.get(key, record.seq) for key in listed}
    return since
