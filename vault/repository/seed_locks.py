"""Locks of tables of seeds: extended with the statement that names them, and never in the way."""

from vault.crypto.keys import recipient_id
from vault.errors import FormatError, RetentionError, StorageError, VaultError
from vault.format.seed_tables import MAX_TABLE
from vault.ledger.chain import Ledger
from vault.ledger.records import Record, Status
from vault.ledger.statements import ResealBody
from vault.model import Code, Finding, ObjectRef, Severity
from vault.repository.objects import Objects
from vault.repository.seed_lookup import table_ref


def lock_tables(record: Record, ledger: Ledger, objects: Objects) -> None:
    """Lock the tables of a reseal for a full ledger term, if its recipient is still one.

    What is missing, or not as the statement says, is a finding: no snapshot needs it.
    """
    if record.status is not Status.VALID or not isinstance(record.body, ResealBody):
        return
    if record.body.recipient not in {str(recipient_id(raw)) for raw in ledger.recipients}:
        return
    for table in record.body.objects:
        try:
            _lock(table_ref(table), objects)
        except VaultError as error:
            objects.tell(
                Finding(
                    severity=Severity.WARNING,
                    subject=f"ledger {record.seq}",
                    problem=f"{table.name} can't be locked again: {error.message}",
                    code=Code.RESEAL_MISSING,
                )
            )


def _lock(ref: ObjectRef, objects: Objects) -> None:
    need = objects.ledger_need()
    if ref.size > MAX_TABLE:
        raise FormatError("too large for a table of seeds")
    if not objects.parameters.extend:
        objects.put(ref.name, objects.read(ref), need, digest=ref.sha256)
        return
    retention = objects.retention_for(ref.sha256, need)
    assert retention is not None
    try:
        objects.store.extend(ref.name, ref.version, retention)
    except (StorageError, RetentionError):  # another version may have the bytes
        found = objects.right_version(ref, pinned=False)
        objects.store.extend(ref.name, found.version, retention)
