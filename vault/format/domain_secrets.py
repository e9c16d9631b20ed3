"""Domain objects: a domain's secrets, sealed to recipients and hosts (docs/format.md 6)."""

from collections.abc import Callable, Sequence
from typing import Final

from vault.crypto.key_files import DomainSecrets
from vault.crypto.keys import TAG_SIZE
from vault.crypto.sealed import (
    MAX_HEADER,
    Header,
    Opener,
    Sealer,
    Session,
    open_whole,
    seal_whole,
)
from vault.errors import FormatError, IntegrityError
from vault.model import NAME_PATTERN, ObjectType

_KEY = 32  # bytes
_MAX_DOMAIN_NAME = 63  # bytes
MAX_DOMAIN: Final = MAX_HEADER + 2 * _KEY + _MAX_DOMAIN_NAME + TAG_SIZE  # bytes as stored


def seal_domain(secrets: DomainSecrets, repository_id: bytes, recipients: Sequence[bytes]) -> bytes:
    """The domain object, under a session of its own.

    Args:
        secrets: The secrets to seal.
        repository_id: 16 bytes.
        recipients: Raw public keys: those of the root, and each host of the domain.

    Raises:
        ConfigError: No recipient, or more than a header holds.
        FormatError: A recipient is not a public key of the suite.
    """
    session = Session.new(repository_id, recipients)
    sealer = Sealer.for_session(session, ObjectType.DOMAIN, repository_id)
    return seal_whole(sealer, encode_secrets(secrets))


def open_domain(
    data: bytes, repository_id: bytes, seed_of: Callable[[Header], bytes], name: str
) -> DomainSecrets:
    """The secrets of the domain called ``name``.

    Args:
        data: The object.
        repository_id: 16 bytes.
        seed_of: Gives the seed that opens an object with that header, or raises WrongKeyError.
        name: Of the domain.

    Raises:
        WrongKeyError: ``seed_of`` raised it: not sealed to the key that is here.
        DigestMismatchError: Altered, or of another repository.
        FormatError: Not a domain object.
        IntegrityError: It is the object of another domain.
    """
    if len(data) > MAX_DOMAIN:
        raise FormatError("domain object is too large", expected=MAX_DOMAIN, found=len(data))
    header = Header.parse(data)
    if header.type is not ObjectType.DOMAIN:
        raise FormatError("object is not a domain object", found=header.type.name)
    opener = Opener(header, seed_of(header), repository_id)
    secrets = _decode_secrets(open_whole(data, opener))
    if secrets.name != name:
        raise IntegrityError("object is of another domain", expected=name, found=secrets.name)
    return secrets


def encode_secrets(secrets: DomainSecrets) -> bytes:
    """The plaintext of a domain object."""
    return secrets.id_key + secrets.index_key + secrets.name.encode("ascii")


def _decode_secrets(plaintext: bytes) -> DomainSecrets:
    name = plaintext[2 * _KEY :].decode("ascii", errors="replace")
    if not NAME_PATTERN.fullmatch(name):
        raise FormatError("domain object holds no domain name", found=repr(name[:80]))
    return DomainSecrets(name=name, id_key=plaintext[:_KEY], index_key=plaintext[_KEY : 2 * _KEY])
