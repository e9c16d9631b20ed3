"""The keys that a run uses: found where this user keeps them, opened, of the right repository.

Passphrases and PINs are asked for by `passphrase`; which key signs as which role may be chosen
(`signer_choice`).
"""

import dataclasses
import functools
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Protocol, TypeVar

from cli.passphrase import ask_passphrase, ask_pin, require_strong, slips
from cli.signer_choice import SIGNERS_VARIABLE, chosen_signers
from vault.crypto.key_files import (
    RecoveryKey,
    RepositoryAddress,
    WriterKey,
    load_recovery,
    load_writer,
    peek,
    peek_role,
    take_over,
)
from vault.crypto.keys import Signer
from vault.crypto.signers import FileUri, SignerUri, open_signer
from vault.crypto.token_uri import TokenUri
from vault.crypto.tokens import TokenKey, open_token_key
from vault.errors import WrongKeyError
from vault.ledger.statements import Role
from vault.machine.coredumps import forbid_dumps
from vault.repository.hosts import ID_DIGITS, live_writers, may_sign_as
from vault.repository.key_names import (
    NEXT_WRITER_FILE,
    RECOVERY_FILE,
    ROOT_FILE,
    WRITER_FILE,
)
from vault.repository.repository import Repository

_FILE_OF = {
    Role.ROOT: ROOT_FILE,
    Role.ENROLLER: ROOT_FILE,
    Role.POLICY: ROOT_FILE,
    Role.PRUNER: ROOT_FILE,
    Role.RESTORER: RECOVERY_FILE,
    Role.WRITER: WRITER_FILE,
}

_T = TypeVar("_T")


class Teller(Protocol):
    """Where advice and information go."""

    def warn(self, text: str) -> None:
        """Advice; it is not an error."""

    def note(self, text: str) -> None:
        """Information."""


class HeldSecrets:
    """Keys, passphrases and PINs of one run, each asked for when it is needed.

    Args:
        place: The directory of key files.
        given: ROLE=URI, of each ``--signer``.
        environment: The variables by name.
        tell: Receives warnings.
    """

    def __init__(
        self, place: Path, given: Iterable[str], environment: Mapping[str, str], *, tell: Teller
    ) -> None:
        self._place = place
        self._given = given
        self._environment = environment
        self._tell = tell
        self._pins: dict[str, bytes] = {}  # by URI

    def writer_key(self, repository: Repository) -> WriterKey:
        """The key of this host.

        Raises:
            WrongKeyError: There is none, or it is of another repository.
        """
        forbid_dumps()
        key = self._next_writer(repository) or load_writer(
            self._place / WRITER_FILE, pin=self.pin_of, signing=self._chosen_writer(repository)
        )
        self.check_key(key.repository, repository)
        return key

    def _next_writer(self, repository: Repository) -> WriterKey | None:
        """The key that was asked for with ``key request --rotate``, once it is enrolled.

        Its file then takes the place of the old key's, which can sign nothing any more.
        """
        path = self._place / NEXT_WRITER_FILE
        if not path.exists():
            return None
        key = load_writer(path, pin=self.pin_of)
        if key.signing.public.id not in live_writers(repository.ledger):
            return None
        take_over(path, self._place / WRITER_FILE)
        self._tell.note(f"this host's new key is enrolled, and is {WRITER_FILE} from now on")
        return key

    def recovery_key(self, repository: Repository) -> RecoveryKey:
        """The key that opens and attests, after asking for its passphrase; as `writer_key`."""
        path = self._place / RECOVERY_FILE
        _, address = peek(path)
        self.check_key(address, repository)
        return self._open_sealed(load_recovery, path)

    def attesting_key(self, repository: Repository) -> RecoveryKey:
        """As `recovery_key`, for a command that signs too; another restorer may be chosen."""
        key = self.recovery_key(repository)
        if Role.RESTORER not in self._signers:
            return key
        return dataclasses.replace(key, restorer=self.signer(repository, Role.RESTORER))

    def has_recovery_key(self) -> bool:
        """Whether the key file is here."""
        return (self._place / RECOVERY_FILE).exists()

    def _open_sealed(self, load: Callable[[Path, bytes], _T], path: Path) -> _T:
        """Open a key file by its passphrase; the error names what looks like a slip."""
        passphrase = self.passphrase(path.name)
        try:
            return load(path, passphrase)
        except WrongKeyError as error:
            for slip in slips(passphrase):
                error.add_note(f"the passphrase {slip}, which counts as part of it")
            raise

    def signer(self, repository: Repository, role: Role) -> Signer:
        """The key that signs as a role: the chosen one, else that of the usual key file.

        Raises:
            WrongKeyError: There is none, it is of another repository, or it does not open.
            ConfigError: The token's module can't be used.
        """
        uri = self._signers.get(role)
        if uri is None:
            return self.open_signer(repository, FileUri(self._usual_file(repository, role), role))
        key = self.open_signer(repository, uri)
        if not may_sign_as(repository.ledger, key.public.id, role):
            raise WrongKeyError(
                f"the chosen key may not sign as {role}",
                found=f"{uri}, key {key.public.id[:ID_DIGITS]}",
                hint="'vault key list' shows which keys may",
            )
        return key

    def has_signer(self, repository: Repository, role: Role) -> bool:
        """Whether a key for the role was chosen, or lies at its usual place."""
        return role in self._signers or self._usual_file(repository, role).exists()

    def open_signer(self, repository: Repository, uri: SignerUri) -> Signer:
        """The key that a URI names, after asking for its passphrase or PIN; as `signer`."""
        return self.signer_of(repository.ledger.repository_id, uri)

    def signer_of(self, repository_id: str, uri: SignerUri) -> Signer:
        """As `open_signer`, where the repository itself can't be reached."""
        forbid_dumps()
        if isinstance(uri, FileUri):
            _, address = peek(uri.path)
            self.check_address(address, repository_id)
        return open_signer(uri, passphrase=self._passphrase_of, pin=self.pin_of)

    def token_key(self, uri: str) -> TokenKey:
        """A key in a token, after asking for its PIN.

        Raises:
            ConfigError: It is no PKCS#11 URI, or its module can't be used.
            WrongKeyError: No such token or key, or a wrong PIN.
        """
        return open_token_key(TokenUri.parse(uri), self.pin_of)

    def _usual_file(self, repository: Repository, role: Role) -> Path:
        """The key file of the role alone, as `vault key split` makes it, else the joint one.

        A file of a split that was interrupted holds a key that no root lists: the joint one signs.
        """
        joint = self._place / _FILE_OF.get(role, f"{role}.key")
        alone = self._place / f"{role}.key"
        if alone == joint or not alone.exists():
            return joint
        _, public = peek_role(alone)
        is_listed = may_sign_as(repository.ledger, public.id, role)
        return alone if is_listed or not joint.exists() else joint

    def _chosen_writer(self, repository: Repository) -> Signer | None:
        return self.signer(repository, Role.WRITER) if Role.WRITER in self._signers else None

    @functools.cached_property
    def _signers(self) -> Mapping[Role, SignerUri]:
        return chosen_signers(self._given, self._environment.get(SIGNERS_VARIABLE, ""))

    def check_key(self, address: RepositoryAddress, repository: Repository) -> None:
        """Refuse a key file of another repository.

        Raises:
            WrongKeyError: It is of another repository.
        """
        self.check_address(address, repository.ledger.repository_id)

    def check_address(self, address: RepositoryAddress, repository_id: str) -> None:
        """The same, of the repository with that id."""
        if address.id != repository_id:
            raise WrongKeyError(
                f"the key files in {self._place} are of another repository",
                expected=repository_id,
                found=address.id,
            )

    def warn_of_keys_together(self) -> None:
        """Warn while keys that could read or rewrite everything lie beside the writer's."""
        beside = [n for n in (RECOVERY_FILE, ROOT_FILE) if (self._place / n).exists()]
        if beside and (self._place / WRITER_FILE).exists():
            self._tell.warn(
                f"{' and '.join(beside)} still on this host, in {self._place}:"
                " a thief of the host gets them too; move them to a safe place"
            )

    def pin_of(self, uri: TokenUri) -> bytes:
        """The PIN for a token's key; asked for once in a run.

        Raises:
            WrongKeyError: None is given.
        """
        if uri.text not in self._pins:
            forbid_dumps()
            self._pins[uri.text] = ask_pin(uri, warn=self._tell.warn)
        return self._pins[uri.text]

    def passphrase(self, what: str, *, confirm: bool = False) -> bytes:
        """The passphrase, from ``VAULT_PASSPHRASE_FILE`` or ``_COMMAND``, else the terminal.

        Args:
            what: The thing that it opens; for the prompt.
            confirm: Ask twice, for a new passphrase.

        Raises:
            WrongKeyError: None of them gives one.
            ConfigError: The two that were typed differ, or both variables are set.
        """
        forbid_dumps()
        return ask_passphrase(
            what,
            file=self._environment.get("VAULT_PASSPHRASE_FILE"),
            command=self._environment.get("VAULT_PASSPHRASE_COMMAND"),
            confirm=confirm,
            warn=self._tell.warn,
        )

    def new_passphrase(self, what: str, *, weak: bool) -> bytes:
        """As `passphrase`, for key files that are about to be made.

        Args:
            what: It will open; for the prompt.
            weak: Whether a short one is taken too.

        Raises:
            WrongKeyError: None is given.
            ConfigError: It is too short, or as for `passphrase`.
        """
        return self._fit(self.passphrase(what, confirm=True), weak=weak)

    def second_passphrase(self, what: str, file: Path | None, *, weak: bool) -> bytes:
        """The passphrase of another holder, as `changed_passphrase`.

        Without a terminal it is the one of this user's keys, which is said.
        """
        if file is not None or sys.stdin.isatty():
            return self.changed_passphrase(what, file, weak=weak)
        self._tell.warn(
            f"{what} has the same passphrase as the other keys: 'vault key passwd' gives it another"
        )
        return self.new_passphrase(what, weak=weak)

    def changed_passphrase(self, what: str, file: Path | None, *, weak: bool) -> bytes:
        """The passphrase that is to replace another: from a file, else from the terminal.

        Args:
            what: It will open; for the prompt.
            file: Its first line is the passphrase.
            weak: Whether a short one is taken too.

        Raises:
            WrongKeyError: None is given.
            ConfigError: It is too short, or the two that were typed differ.
        """
        forbid_dumps()
        named = None if file is None else str(file)
        secret = ask_passphrase(what, file=named, command=None, confirm=True, warn=self._tell.warn)
        return self._fit(secret, weak=weak)

    def _passphrase_of(self, path: Path) -> bytes:
        return self.passphrase(path.name)

    def _fit(self, secret: bytes, *, weak: bool) -> bytes:
        if not weak:
            require_strong(secret)
        for slip in slips(secret):
            self._tell.warn(f"the new passphrase {slip}, which counts as part of it")
        return secret
