"""Key files by role, for one person each; a root N+1 lists them in the place of joint ones."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from vault.crypto.key_file_bytes import DEFAULT_COST, Argon2Cost
from vault.crypto.key_files import (
    RecoveryKey,
    RepositoryAddress,
    RoleKey,
    load_role,
    peek_role,
    save_recovery,
    save_role,
)
from vault.crypto.keys import RecipientKey, SigningKey
from vault.crypto.public_keys import public_file
from vault.encoding import b64encode
from vault.errors import ConfigError, LocalError
from vault.ledger.chain import Ledger
from vault.ledger.statements import PublicKey, Role, RootBody
from vault.machine import durable
from vault.machine.privacy import make_private
from vault.repository.key_names import SPLIT_ROLES, role_file
from vault.repository.root_changes import RootChange, next_root

MADE_ROLES: Final = (Role.ROOT, *SPLIT_ROLES, Role.RESTORER)  # whose keys `vault key new` makes


def new_role_key(
    path: Path,
    address: RepositoryAddress,
    role: Role,
    passphrase: bytes,
    *,
    cost: Argon2Cost = DEFAULT_COST,
) -> str:
    """Make a key of a role, in a file of its own; durable on return.

    A restorer's is a recovery key: it opens what is sealed to it and attests what it found.

    Returns:
        What its holder hands over: `vault.crypto.public_keys.public_file`.

    Raises:
        ConfigError: The file exists.
        LocalError: It can't be written.
    """
    _make_private(path.parent)
    signing = SigningKey.generate()
    if role is not Role.RESTORER:
        key = RoleKey(repository=address, role=role, signing=signing)
        save_role(path, key, passphrase, cost=cost)
        return public_file(signing, address.id)
    recipient = RecipientKey.generate()
    recovery = RecoveryKey(repository=address, recipient=recipient, restorer=signing)
    save_recovery(path, recovery, passphrase, cost=cost)
    return public_file(signing, address.id, recipient.public_raw)


def save_public(path: Path, text: str) -> None:
    """Write a file that is handed over; it is never overwritten.

    Raises:
        ConfigError: It exists.
        LocalError: It can't be written.
    """
    try:
        durable.create(path, text.encode("ascii"))
    except FileExistsError as error:
        raise ConfigError(f"{path} exists and is never overwritten") from error
    except OSError as error:
        raise LocalError(f"can't write {path}", found=error.strerror) from error


def _make_private(directory: Path) -> None:
    try:
        make_private(directory)
    except OSError as error:
        raise LocalError(f"can't make {directory}", found=error.strerror) from error


# --- split ---


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """Key files by role, and the root that lists their keys."""

    files: Mapping[Role, Path]
    body: RootBody


def split_keys(
    ledger: Ledger,
    address: RepositoryAddress,
    directory: Path,
    roles: Sequence[Role],
    passphrase: bytes,
    *,
    agree: Callable[[RootBody], None],
    cost: Argon2Cost = DEFAULT_COST,
) -> Split:
    """Make a key file for each role, and the root in which the new keys take those roles over.

    The files are durable before the root is. What an interrupted run made is used again. Keys that
    had the role lose it; one that has no other is listed no more.

    Args:
        ledger: With the root in force.
        address: Goes into the files.
        directory: Where the files go, ROLE.key each.
        roles: Which.
        passphrase: Opens the new files, and those of an interrupted run.
        agree: Called with the root before a file is made; raises where a person says no.
        cost: Of the passphrase.

    Raises:
        ConfigError: A role's file holds a key that is listed already, or is of another repository.
        WrongKeyError: The passphrase does not open what an interrupted run made.
    """
    files = {role: directory / role_file(role) for role in roles}
    made = {
        role: _made_before(ledger, address, path, role, passphrase) for role, path in files.items()
    }
    keys = {role: key or SigningKey.generate() for role, key in made.items()}
    body = _taking_over(ledger, keys)
    agree(body)
    _make_private(directory)
    for role, path in files.items():
        if made[role] is None:
            key = RoleKey(repository=address, role=role, signing=keys[role])
            save_role(path, key, passphrase, cost=cost)
    return Split(files=files, body=body)


def _made_before(
    ledger: Ledger, address: RepositoryAddress, path: Path, role: Role, secret: bytes
) -> SigningKey | None:
    if not path.exists():
        return None
    found, public = peek_role(path)
    key = load_role(path, secret)
    if key.repository.id != address.id or found != role:
        raise ConfigError(f"{path} is of another repository or role", hint="move it away")
    if public.id in ledger.authority_at(len(ledger.records)).keys:
        raise ConfigError(f"{path} is in force already", hint="--role names the others to split")
    return key.signing


def _taking_over(ledger: Ledger, keys: Mapping[Role, SigningKey]) -> RootBody:
    """The next root, in which these keys alone have their roles."""
    removed, added = [], []
    person = ""
    for listed in ledger.root.keys:
        left = tuple(role for role in listed.roles if role not in set(map(str, keys)))
        if left == tuple(listed.roles):
            continue
        person = person or listed.person
        removed.append(listed.name)
        if left:
            added.append(
                PublicKey(
                    name=listed.name,
                    public=listed.public,
                    roles=left,
                    person=listed.person,
                    review=listed.review,
                )
            )
    for role, key in keys.items():
        name = _free_name(ledger, role, set(removed))
        public = b64encode(key.public.der)
        added.append(PublicKey(name=name, public=public, roles=(role.value,), person=person))
    return next_root(ledger, RootChange(add=added, remove=removed))


def _free_name(ledger: Ledger, role: Role, removed: set[str]) -> str:
    taken = {key.name for key in ledger.root.keys} - removed
    names = (role.value, *(f"{role}-{number}" for number in range(2, len(taken) + 3)))
    return next(name for name in names if name not in taken)
