"""Signers by URI: ``file:PATH#ROLE`` for a key file, ``pkcs11:…`` for a key in a token.

Which key may sign what is for `vault.ledger` to say. Passphrases and PINs come from the caller.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Final, Self, TypeAlias

from vault.crypto.key_files import load_recovery, load_role, load_root, load_writer, peek
from vault.crypto.keys import Signer
from vault.crypto.token_uri import SCHEME, TokenUri
from vault.crypto.tokens import AskPin, open_token_key
from vault.errors import ConfigError, WrongKeyError

_FILE: Final = "file:"

AskPassphrase: TypeAlias = Callable[[Path], bytes]


@dataclasses.dataclass(frozen=True, slots=True)
class FileUri:
    """Names one key of a key file."""

    path: Path
    role: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """``file:PATH#ROLE``.

        Raises:
            ConfigError: Not of this form.
        """
        path, _, role = text.removeprefix(_FILE).rpartition("#")
        if not text.startswith(_FILE) or not path or not role or "\0" in path:
            raise ConfigError(
                "not a key of a file", expected="file:PATH#ROLE", found=repr(text[:80])
            )
        return cls(Path(path), role)

    def __str__(self) -> str:
        return f"{_FILE}{self.path}#{self.role}"


SignerUri: TypeAlias = FileUri | TokenUri


def parse_signer(text: str) -> SignerUri:
    """The URI of a signer.

    Raises:
        ConfigError: Neither ``file:PATH#ROLE`` nor a PKCS#11 URI.
    """
    if text.startswith(SCHEME):
        return TokenUri.parse(text)
    if text.startswith(_FILE):
        return FileUri.parse(text)
    raise ConfigError(
        "a signer is named by a URI",
        expected="file:PATH#ROLE or pkcs11:…",
        found=repr(text.partition(":")[0][:20]),
    )


def open_signer(uri: SignerUri, *, passphrase: AskPassphrase, pin: AskPin) -> Signer:
    """The signer that a URI names.

    Args:
        uri: Which one.
        passphrase: Gives the passphrase of a sealed key file.
        pin: Gives the PIN of a token.

    Raises:
        WrongKeyError: No such file, role, token or key, or a wrong passphrase or PIN.
        ConfigError: A token's module can't be used, or others may read a host's key file.
        FormatError: Not a key file.
        LocalError: File or token can't be read.
    """
    if isinstance(uri, TokenUri):
        return open_token_key(uri, pin)
    signers = _keys_of(uri.path, passphrase, pin)
    if uri.role not in signers:
        raise WrongKeyError(
            f"{uri.path} has no key of the role {uri.role}", expected=" or ".join(signers)
        )
    return signers[uri.role]


def _keys_of(path: Path, passphrase: AskPassphrase, pin: AskPin) -> dict[str, Signer]:
    """The signing keys in a key file, by role."""
    kind, _ = peek(path)
    if kind == "writer":
        return {"writer": load_writer(path, pin=pin).signing}
    if kind == "recovery":
        return {"restorer": load_recovery(path, passphrase(path)).restorer}
    if kind == "role":
        alone = load_role(path, passphrase(path))
        return {alone.role: alone.signing}
    key = load_root(path, passphrase(path))
    return {
        "root": key.root,
        "enroller": key.enroller,
        "policy": key.policy,
        "pruner": key.pruner,
    }
