"""Keys, signatures, HPKE, AES-GCM and derivations."""

import hashlib
import hmac
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from vault.crypto.keys import (
    Aead,
    RecipientKey,
    SigningKey,
    VerifyKey,
    aes_gcm_open,
    aes_gcm_seal,
    argon2id,
    chunk_id,
    hkdf_sha256,
    hpke_seal,
)
from vault.errors import DigestMismatchError, FormatError
from vault.model import Digest, ObjectType

HEADER = Digest(bytes(32))


def spki(key: ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey) -> bytes:
    """DER of any public key."""
    return key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def test_signature_verifies_under_its_key_only() -> None:
    """Another message, another key and a damaged signature are all refused."""
    key, other = SigningKey.generate(), SigningKey.generate()
    signature = key.sign(b"message")
    assert key.public.verify(signature, b"message")
    assert not key.public.verify(signature, b"massage")
    assert not other.public.verify(signature, b"message")
    assert not key.public.verify(signature[:-1], b"message")
    assert not key.public.verify(b"", b"message")


def test_signing_twice_gives_the_same_bytes() -> None:
    """Retries of one statement must be equal (RFC 6979)."""
    key = SigningKey.generate()
    assert key.sign(b"message") == key.sign(b"message")


def test_keys_survive_their_encodings() -> None:
    """PKCS#8, SubjectPublicKeyInfo and the raw recipient key are inverses."""
    key, recipient = SigningKey.generate(), RecipientKey.generate()
    assert SigningKey.from_pkcs8(key.pkcs8()) == key
    assert VerifyKey.from_der(key.public.der) == key.public
    assert key.public.id == hashlib.sha256(key.public.der).hexdigest()
    assert len(recipient.raw()) == 96
    assert len(recipient.public_raw) == 1216
    assert RecipientKey.from_raw(recipient.raw()) == recipient
    assert recipient.id == hashlib.sha256(recipient.public_raw).digest()


def compressed_point(der: bytes) -> bytes:
    """The same key in another encoding of its point."""
    key = serialization.load_der_public_key(der)
    assert isinstance(key, ec.EllipticCurvePublicKey)
    return key.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.CompressedPoint)


@pytest.mark.parametrize(
    "damage",
    [
        lambda der: b"",
        lambda der: der[:-1],
        lambda der: der + b"\0",
        lambda der: bytes(91),
        lambda der: der[:-1] + bytes([der[-1] ^ 1]),
        lambda der: b"\x30\x81" + der[1:-1],
        compressed_point,
        lambda der: der[:26] + bytes([6 | der[-1] & 1]) + der[27:],
        lambda der: spki(ec.generate_private_key(ec.SECP256K1()).public_key()),
        lambda der: spki(ec.generate_private_key(ec.SECP384R1()).public_key()),
        lambda der: spki(ed25519.Ed25519PrivateKey.generate().public_key()),
    ],
    ids=[
        "empty",
        "cut",
        "longer",
        "zeros",
        "off the curve",
        "long-form length",
        "compressed point",
        "hybrid point",
        "secp256k1",
        "P-384",
        "Ed25519",
    ],
)
def test_public_keys_have_one_form(damage: Callable[[bytes], bytes]) -> None:
    """A key in two encodings would count twice against a threshold."""
    with pytest.raises(FormatError):
        VerifyKey.from_der(damage(SigningKey.generate().public.der))


def test_private_keys_must_be_p256_pkcs8() -> None:
    """Other curves, junk and long input are format errors."""
    other = ec.generate_private_key(ec.SECP384R1()).private_bytes(
        serialization.Encoding.DER,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    for data in (b"", b"junk", other, bytes(10_000), SigningKey.generate().pkcs8()[:-1]):
        with pytest.raises(FormatError):
            SigningKey.from_pkcs8(data)


def test_secrets_do_not_show_in_repr() -> None:
    """A traceback or log must not leak keys."""
    key, recipient = SigningKey.generate(), RecipientKey.generate()
    for text, secret in ((repr(key), key.pkcs8()), (repr(recipient), recipient.raw())):
        assert secret.hex() not in text
        assert secret[:32].hex() not in text
        assert repr(secret[:8])[2:-1] not in text


def test_hpke_opens_for_its_recipient_and_info_only() -> None:
    """Another key, info or any damage is a digest error."""
    key, other = RecipientKey.generate(), RecipientKey.generate()
    sealed = hpke_seal(key.public_raw, b"s" * 32, b"info")
    assert key.open(sealed, b"info") == b"s" * 32
    flipped = [sealed[:at] + bytes([sealed[at] ^ 1]) + sealed[at + 1 :] for at in (0, 1100, 1167)]
    for bad in (*flipped, sealed[:-1], sealed + b"x", sealed[:10], b""):
        with pytest.raises(DigestMismatchError):
            key.open(bad, b"info")
    with pytest.raises(DigestMismatchError):
        key.open(sealed, b"other")
    with pytest.raises(DigestMismatchError):
        other.open(sealed, b"info")


def test_malformed_recipients_are_format_errors() -> None:
    """Wrong size, no ML-KEM key, an X25519 point of low order."""
    good = RecipientKey.generate().public_raw
    for bad in (b"", good[:-1], b"\xff" * 1216, good[:1184] + bytes(32)):
        with pytest.raises(FormatError):
            hpke_seal(bad, b"seed", b"")
    with pytest.raises(FormatError):
        RecipientKey.from_raw(bytes(95))


def test_aead_binds_counter_flag_and_header() -> None:
    """A part opens only in its own place of its own object."""
    aead = Aead(bytes(32))
    sealed = aead.seal(1, b"data", HEADER, final=False)
    assert aead.open(1, sealed, HEADER, final=False) == b"data"
    other = Digest(b"\1" + bytes(31))
    for counter, header, final in ((2, HEADER, False), (1, HEADER, True), (1, other, False)):
        with pytest.raises(DigestMismatchError):
            aead.open(counter, sealed, header, final=final)
    for short in (b"", sealed[:15], sealed[:-1]):
        with pytest.raises(DigestMismatchError):
            aead.open(1, short, HEADER, final=False)


def test_aead_seals_the_highest_counter() -> None:
    """The directory has counter 2^64-1."""
    aead = Aead(bytes(32))
    sealed = aead.seal(2**64 - 1, b"", HEADER, final=True)
    assert aead.open(2**64 - 1, sealed, HEADER, final=True) == b""


def test_key_file_seal_binds_its_aad() -> None:
    """Changed AAD does not open."""
    sealed = aes_gcm_seal(bytes(32), bytes(12), b"secret", b"aad")
    assert aes_gcm_open(bytes(32), bytes(12), sealed, b"aad") == b"secret"
    with pytest.raises(DigestMismatchError):
        aes_gcm_open(bytes(32), bytes(12), sealed, b"add")


def test_hkdf_is_that_of_the_rfc() -> None:
    """RFC 5869, test case 1."""
    info, salt = bytes(range(0xF0, 0xFA)), bytes(range(13))
    assert hkdf_sha256(b"\x0b" * 22, salt, info, 42).hex() == (
        "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865"
    )


def test_chunk_ids_differ_by_type_and_key() -> None:
    """Data and tree chunks of equal bytes must not stand in for each other."""
    digest = hashlib.sha256(b"chunk").digest()
    found = chunk_id(bytes(32), ObjectType.TREE, digest)
    assert found == hmac.digest(bytes(32), b"\2" + digest, "sha256")
    assert found != chunk_id(bytes(32), ObjectType.DATA, digest)
    assert found != chunk_id(b"\1" * 32, ObjectType.TREE, digest)


def test_argon2id_is_that_of_the_reference() -> None:
    """The reference implementation's own test (argon2 test.c, version 0x13, 64 MiB, t=2, p=1)."""
    found = argon2id(b"password", salt=b"somesalt", memory_kib=65_536, iterations=2, lanes=1)
    assert found.hex() == "09316115d5cf24ed5a15a31a3ba326e5cf32edc24702987c02b6566f61913cf7"


@pytest.mark.parametrize("cost", [(7, 1, 1), (8, 0, 1), (8, 1, 0), (15, 1, 2)])
def test_argon2id_refuses_impossible_costs(cost: tuple[int, int, int]) -> None:
    """Costs below RFC 9106's are format errors, no crash."""
    memory, iterations, lanes = cost
    with pytest.raises(FormatError):
        argon2id(b"p", salt=bytes(16), memory_kib=memory, iterations=iterations, lanes=lanes)
