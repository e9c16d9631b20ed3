"""What a root says of keys: who may sign what (docs/format.md 2.3). No I/O."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from vault.crypto.keys import VerifyKey
from vault.encoding import b64decode_strict
from vault.errors import FormatError
from vault.ledger.statements import Role, RootBody


def distrusted_keys(body: RootBody) -> dict[str, int]:
    """The keys that a root distrusts, by id, and from which number on.

    Raises:
        FormatError: One is no key, or is listed twice.
    """
    found: dict[str, int] = {}
    for entry in body.distrust:
        key_id = VerifyKey.from_der(b64decode_strict(entry.public)).id
        if entry.start < 0 or key_id in found:
            raise FormatError("root distrusts a key twice, or from below 0", found=key_id)
        found[key_id] = entry.start
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Authority:
    """What a root says about keys, decoded once."""

    body: RootBody
    keys: Mapping[str, VerifyKey]  # by key id
    roles: Mapping[str, frozenset[str]]  # by key id
    people: Mapping[str, str]  # by key id: whose it is; the id itself where the root does not say
    recipients: tuple[bytes, ...]  # raw public keys

    @classmethod
    def of(cls, body: RootBody) -> "Authority":
        """Decode and check the keys of a root.

        Raises:
            FormatError: A key is malformed or listed twice, or a threshold can't be met.
        """
        listed = [(VerifyKey.from_der(b64decode_strict(k.public)), k) for k in body.keys]
        authority = cls(
            body=body,
            keys={key.id: key for key, _ in listed},
            roles={key.id: frozenset(entry.roles) for key, entry in listed},
            people={key.id: entry.person or key.id for key, entry in listed},
            recipients=tuple(b64decode_strict(r.public) for r in body.recipients),
        )
        if len(authority.keys) != len(listed):
            raise FormatError("root lists a key twice")
        authority._check_thresholds()
        return authority

    def _check_thresholds(self) -> None:
        if any(count < 1 for count in self.body.thresholds.values()):
            raise FormatError("root has a threshold below 1")
        if self.shortfall(Role.ROOT, self.keys):
            raise FormatError("root has fewer root keys or persons than its own threshold")

    def people_with(self, role: Role, signers: Collection[str]) -> set[str]:
        """Whose keys with the role are among these; a key without a person is one by itself."""
        return {self.people[key] for key in signers if role in self.roles.get(key, ())}

    def shortfall(self, role: Role, signers: Collection[str]) -> str:
        """Why these keys do not suffice for the role; empty if they do.

        Several keys of one person count once.
        """
        needed = self.body.thresholds.get(role.value, 1)
        found = len(self.people_with(role, signers))
        if found >= needed:
            return ""
        if needed == 1:
            return f"the key has not the role {role.value}"
        wanted = f"with the role {role.value} must sign, found"
        keys = sum(1 for key in set(signers) if role in self.roles.get(key, ()))
        if keys > found:
            return f"{needed} people {wanted} {keys} keys of {found}"
        return f"{needed} keys {wanted} {found}"

    def first(self, role: Role, signers: Collection[str]) -> str:
        """The first signer with the role, or an empty text."""
        return next((key for key in signers if role in self.roles.get(key, ())), "")
