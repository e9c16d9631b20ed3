"""Which key signs as which role, where it is not the one in the usual key file."""

from collections.abc import Iterable
from typing import Final

from vault.crypto.signers import SignerUri, parse_signer
from vault.errors import ConfigError
from vault.ledger.statements import Role

SIGNERS_VARIABLE: Final = "VAULT_SIGNERS"


def chosen_signers(given: Iterable[str], variable: str) -> dict[Role, SignerUri]:
    """The signers by role; an option comes before the variable.

    Args:
        given: ROLE=URI, of each ``--signer``.
        variable: The value of ``VAULT_SIGNERS``: the same, separated by blanks.

    Raises:
        ConfigError: One is malformed, or a role is named twice in one place.
    """
    return _by_role(variable.split(), SIGNERS_VARIABLE) | _by_role(given, "--signer")


def _by_role(entries: Iterable[str], place: str) -> dict[Role, SignerUri]:
    found: dict[Role, SignerUri] = {}
    for entry in entries:
        name, _, uri = entry.partition("=")
        if name not in set(Role) - {Role.APPROVER}:
            raise ConfigError(f"{place} names no role", expected="ROLE=URI", found=repr(name[:20]))
        role = Role(name)
        if role in found:
            raise ConfigError(f"{place} names two signers for the role {role}")
        found[role] = parse_signer(uri)
    return found
