"""Domain objects."""

import pytest

from vault.crypto.key_files import DomainSecrets
from vault.crypto.keys import RecipientKey
from vault.crypto.sealed import Sealer, Session, open_seed, seal_whole
from vault.errors import (
    ConfigError,
    DigestMismatchError,
    FormatError,
    IntegrityError,
    VaultError,
    WrongKeyError,
)
from vault.format.domain_secrets import MAX_DOMAIN, open_domain, seal_domain
from vault.model import ObjectType

REPOSITORY = bytes(range(16))
KEYS = [RecipientKey.generate() for _ in range(3)]
SECRETS = DomainSecrets.new("default")


def opened(data: bytes, repository_id: bytes, key: RecipientKey, name: str) -> DomainSecrets:
    """The secrets, for the holder of a key."""
    return open_domain(
        data, repository_id, lambda header: open_seed(header, repository_id, key), name
    )


@pytest.fixture(scope="module")
def sealed() -> bytes:
    """A domain of two recipients and one host."""
    return seal_domain(SECRETS, REPOSITORY, [key.public_raw for key in KEYS])


def test_every_recipient_opens_a_domain(sealed: bytes) -> None:
    """Site, escrow and host."""
    for key in KEYS:
        assert opened(sealed, REPOSITORY, key, "default") == SECRETS


def test_nobody_else_opens_a_domain(sealed: bytes) -> None:
    """A key that is no recipient."""
    with pytest.raises(WrongKeyError):
        opened(sealed, REPOSITORY, RecipientKey.generate(), "default")


def test_a_domain_must_be_the_one_named(sealed: bytes) -> None:
    """An object moved to another domain's name is refused."""
    with pytest.raises(IntegrityError, match="another domain"):
        opened(sealed, REPOSITORY, KEYS[0], "other")


def test_a_domain_belongs_to_one_repository(sealed: bytes) -> None:
    """Another id does not open it."""
    with pytest.raises(DigestMismatchError):
        opened(sealed, bytes(16), KEYS[0], "default")


def test_every_flip_and_cut_is_detected(sealed: bytes) -> None:
    """Header, salt, commitment, sealed seed, ciphertext, tag."""
    own = 96 + 34 + 1168  # first recipient's entry; the others are under the tag as well
    for at in [*range(140), *range(140, own, 41), *range(own, len(sealed), 53), len(sealed) - 1]:
        damaged = bytearray(sealed)
        damaged[at] ^= 0x41
        for bad in (bytes(damaged), sealed[:at]):
            with pytest.raises((IntegrityError, WrongKeyError)):
                opened(bad, REPOSITORY, KEYS[0], "default")
    with pytest.raises(DigestMismatchError):
        opened(sealed + b"\0", REPOSITORY, KEYS[0], "default")


@pytest.mark.parametrize(
    "plaintext", [b"", bytes(64), bytes(64) + b"UPPER", bytes(64) + b"\xff", bytes(64) + b"a" * 64]
)
def test_a_domain_needs_a_name(plaintext: bytes) -> None:
    """Sealed to us by anyone (base mode names no sender), so it is checked."""
    session = Session.new(REPOSITORY, [KEYS[0].public_raw])
    data = seal_whole(Sealer.for_session(session, ObjectType.DOMAIN, REPOSITORY), plaintext)
    with pytest.raises(FormatError, match="no domain name"):
        opened(data, REPOSITORY, KEYS[0], "default")


def test_only_domain_objects_are_domains() -> None:
    """Another type with the same plaintext, junk, and more bytes than one has."""
    session = Session.new(REPOSITORY, [KEYS[0].public_raw])
    data = seal_whole(
        Sealer.for_session(session, ObjectType.DATA, REPOSITORY), bytes(64) + b"default"
    )
    for bad in (data, b"junk", bytes(MAX_DOMAIN + 1)):
        with pytest.raises(FormatError):
            opened(bad, REPOSITORY, KEYS[0], "default")


def test_a_domain_has_recipients() -> None:
    """None, or a malformed one, is refused."""
    with pytest.raises(ConfigError):
        seal_domain(SECRETS, REPOSITORY, [])
    with pytest.raises(VaultError):
        seal_domain(SECRETS, REPOSITORY, [b"short"])


def test_secrets_do_not_show_in_repr() -> None:
    """Neither key."""
    for key in (SECRETS.id_key, SECRETS.index_key):
        assert key.hex() not in repr(SECRETS)
        assert repr(key)[2:-1] not in repr(SECRETS)
