"""Names of key files. Apart from what makes them: every command looks for these files."""

from typing import Final

from vault.ledger.statements import Role

WRITER_FILE: Final = "writer.key"
NEXT_WRITER_FILE: Final = "writer.next.key"  # replaces that one once it is enrolled
RECOVERY_FILE: Final = "recovery.key"
ROOT_FILE: Final = "root.key"

SPLIT_ROLES: Final = (Role.ENROLLER, Role.POLICY, Role.PRUNER, Role.LOG, Role.VERIFIER)


def role_file(role: str) -> str:
    """The name of the file of a role's key."""
    return f"{role}.key"
