"""Keys, seals and derivations: the only importer of `cryptography`.

Primitives and their bytes are fixed by docs/format.md 2.1, 3, 4 and 9. Private keys and
secrets never appear in a ``repr``.
"""

import dataclasses
import functools
import hashlib
import os
import struct
from typing import Protocol, Self

from cryptography.exceptions import InvalidSignature, InvalidTag, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, hpke, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mlkem, x25519
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from vault.errors import DigestMismatchError, FormatError, LocalError
from vault.model import Buffer, Digest, Id, ObjectType

TAG_SIZE = 16  # bytes that AES-GCM appends
_SPKI_SIZE = 91  # bytes of a P-256 SubjectPublicKeyInfo with an uncompressed point
_POINT_SIZE = 65  # bytes of an uncompressed point of P-256
_RAW_SIZE = 64  # bytes of a P-256 signature as r ‖ s
_MAX_PKCS8 = 512  # bytes; a P-256 PKCS#8 document has about 138
_MLKEM_SEED, _MLKEM_PUBLIC, _X25519 = 64, 1184, 32  # bytes
RECIPIENT_PUBLIC_SIZE = _MLKEM_PUBLIC + _X25519
RECIPIENT_PRIVATE_SIZE = _MLKEM_SEED + _X25519

_ECDSA = ec.ECDSA(hashes.SHA256(), deterministic_signing=True)
_NONCE = struct.Struct(">4xQ")
_COUNTER_AND_FLAG = struct.Struct("<Q?")
_TYPE_BYTE = {kind: bytes([kind]) for kind in ObjectType}


def random_bytes(count: int) -> bytes:
    """``count`` bytes of the system's generator."""
    return os.urandom(count)


def hkdf_sha256(secret: bytes, salt: bytes, info: bytes, length: int) -> bytes:
    """HKDF with SHA-256 (RFC 5869)."""
    return HKDF(algorithm=hashes.SHA256(), length=length, salt=salt, info=info).derive(secret)


def chunk_id(key: bytes, kind: ObjectType, sha256: bytes) -> bytes:
    """The id, 32 bytes, of the chunk with that SHA-256 under a domain's id key.

    HMAC-SHA-256 (docs/format.md 4). Both pads are hashed once for all chunks: this is called for
    every chunk, and `hmac.digest` takes twice as long for so short a message.
    """
    padded, outer_pad = _hmac_pads(key, kind)
    inner = padded.copy()
    inner.update(sha256)
    outer = outer_pad.copy()
    outer.update(inner.digest())
    return outer.digest()


@functools.lru_cache(maxsize=16)
def _hmac_pads(key: bytes, kind: ObjectType) -> "tuple[hashlib._Hash, hashlib._Hash]":
    """Inner pad with the type's byte, and outer pad (RFC 2104), for a key of one block at most."""
    block = key.ljust(hashlib.sha256().block_size, b"\0")
    inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in block) + _TYPE_BYTE[kind])
    return inner, hashlib.sha256(bytes(byte ^ 0x5C for byte in block))


# --- signatures: ECDSA P-256 with SHA-256 ---


@dataclasses.dataclass(frozen=True, slots=True)
class VerifyKey:
    """A public signature key; equal where its DER SubjectPublicKeyInfo is."""

    der: bytes
    _key: ec.EllipticCurvePublicKey = dataclasses.field(repr=False, compare=False)

    @classmethod
    def from_der(cls, der: bytes) -> Self:
        """From a SubjectPublicKeyInfo.

        Raises:
            FormatError: Not the one canonical DER form of a P-256 key.
        """
        if len(der) != _SPKI_SIZE:
            raise FormatError("public key is not P-256", expected="91 bytes", found=len(der))
        try:
            key = serialization.load_der_public_key(der)
        except (ValueError, UnsupportedAlgorithm) as error:
            raise FormatError("public key is not a DER SubjectPublicKeyInfo") from error
        if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name != "secp256r1":
            raise FormatError("public key is not P-256", found=type(key).__name__)
        if _public_der(key) != der:
            raise FormatError("public key is not in canonical DER")
        return cls(der, key)

    @classmethod
    def from_point(cls, point: bytes) -> Self:
        """From an uncompressed point of P-256 (SEC 1, 2.3.3), as tokens give it.

        Raises:
            FormatError: Not one.
        """
        if len(point) != _POINT_SIZE:
            raise FormatError("public key is not P-256", expected="65 bytes", found=len(point))
        try:
            key = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point)
        except ValueError as error:
            raise FormatError("public key is no point of P-256") from error
        return cls.from_der(_public_der(key))

    @property
    def id(self) -> str:
        """SHA-256 of the DER form, in hex: a DSSE ``keyid``."""
        return hashlib.sha256(self.der).hexdigest()

    def verify(self, signature: bytes, message: Buffer) -> bool:
        """Whether this key made ``signature`` over ``message``; False for a malformed one."""
        try:
            self._key.verify(signature, message, _ECDSA)
        except InvalidSignature:
            return False
        return True


class Signer(Protocol):
    """Signs as a key does: a private key in memory, or one that never leaves a token.

    Signatures of the same message may differ at each try; each is right.
    """

    @property
    def public(self) -> VerifyKey:
        """The key that its signatures are checked with."""

    def sign(self, message: Buffer) -> bytes:
        """A DER signature over the SHA-256 of the message."""


def signature_from_raw(raw: bytes) -> bytes:
    """The DER form of a P-256 signature that a token gave as r ‖ s (docs/format.md 2.1).

    Raises:
        FormatError: Not 64 bytes.
    """
    if len(raw) != _RAW_SIZE:
        raise FormatError("signature is not P-256", expected=f"{_RAW_SIZE} bytes", found=len(raw))
    half = _RAW_SIZE // 2
    return encode_dss_signature(
        int.from_bytes(raw[:half], "big"), int.from_bytes(raw[half:], "big")
    )


class SigningKey:
    """A private signature key; two are equal where their public keys are."""

    __slots__ = ("_key", "public")

    def __init__(self, key: ec.EllipticCurvePrivateKey) -> None:
        self._key = key
        self.public = VerifyKey.from_der(_public_der(key.public_key()))

    @classmethod
    def generate(cls) -> Self:
        """A new key."""
        return cls(ec.generate_private_key(ec.SECP256R1()))

    @classmethod
    def from_pkcs8(cls, der: bytes) -> Self:
        """The inverse of `pkcs8`.

        Raises:
            FormatError: Not an unencrypted PKCS#8 document of a P-256 key.
        """
        if len(der) > _MAX_PKCS8:
            raise FormatError("private key is too long", expected=_MAX_PKCS8, found=len(der))
        try:
            key = serialization.load_der_private_key(der, password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise FormatError("private key is not PKCS#8") from error
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name != "secp256r1":
            raise FormatError("private key is not P-256", found=type(key).__name__)
        return cls(key)

    def pkcs8(self) -> bytes:
        """The secret itself: unencrypted DER PKCS#8."""
        return self._key.private_bytes(
            serialization.Encoding.DER,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )

    def sign(self, message: Buffer) -> bytes:
        """A DER signature; deterministic (RFC 6979), so that a retry gives the same bytes."""
        return self._key.sign(message, _ECDSA)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SigningKey) and self.public == other.public

    def __hash__(self) -> int:
        return hash(self.public)

    def __repr__(self) -> str:
        return f"SigningKey(public={self.public.id})"


def _public_der(key: ec.EllipticCurvePublicKey) -> bytes:
    return key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


# --- cosignatures of witnesses: Ed25519 ---

WITNESS_KEY_SIZE = 32  # bytes, of both halves


def is_cosigned(public_raw: bytes, signature: bytes, message: bytes) -> bool:
    """Whether the Ed25519 key of these 32 bytes made the signature; False for malformed ones."""
    try:
        ed25519.Ed25519PublicKey.from_public_bytes(public_raw).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


class WitnessKey:
    """The Ed25519 key of a witness."""

    __slots__ = ("_key", "public_raw")

    def __init__(self, key: ed25519.Ed25519PrivateKey) -> None:
        self._key = key
        self.public_raw = key.public_key().public_bytes_raw()

    @classmethod
    def generate(cls) -> Self:
        """A new key."""
        return cls(ed25519.Ed25519PrivateKey.generate())

    @classmethod
    def from_raw(cls, raw: bytes) -> Self:
        """The inverse of `raw`.

        Raises:
            FormatError: Not 32 bytes.
        """
        if len(raw) != WITNESS_KEY_SIZE:
            raise FormatError(
                "witness key has another size", expected=WITNESS_KEY_SIZE, found=len(raw)
            )
        return cls(ed25519.Ed25519PrivateKey.from_private_bytes(raw))

    def raw(self) -> bytes:
        """The secret itself: 32 bytes."""
        return self._key.private_bytes_raw()

    def sign(self, message: bytes) -> bytes:
        """A signature of 64 bytes."""
        return self._key.sign(message)

    def __repr__(self) -> str:
        return f"WitnessKey(public={self.public_raw.hex()})"


# --- recipients: HPKE (RFC 9180), MLKEM768-X25519, HKDF-SHA-256, AES-256-GCM ---

_HPKE = hpke.Suite(hpke.KEM.MLKEM768_X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)


def recipient_id(public_raw: bytes) -> Id:
    """How headers name a recipient: SHA-256 of its raw public key."""
    return Id(hashlib.sha256(public_raw).digest())


def hpke_seal(public_raw: bytes, plaintext: bytes, info: bytes) -> bytes:
    """Seal to one recipient: encapsulated key and ciphertext in one.

    Raises:
        FormatError: ``public_raw`` is not a public key of suite 1.
    """
    if len(public_raw) != RECIPIENT_PUBLIC_SIZE:
        raise FormatError(
            "recipient public key has another size",
            expected=RECIPIENT_PUBLIC_SIZE,
            found=len(public_raw),
        )
    try:
        public = hpke.MLKEM768X25519PublicKey(
            mlkem.MLKEM768PublicKey.from_public_bytes(public_raw[:_MLKEM_PUBLIC]),
            x25519.X25519PublicKey.from_public_bytes(public_raw[_MLKEM_PUBLIC:]),
        )
        return _HPKE.encrypt(plaintext, public, info)
    except ValueError as error:  # not an ML-KEM key, or an X25519 point of low order
        raise FormatError("recipient public key is not one of suite 1") from error


class RecipientKey:
    """A private HPKE key: opens what was sealed to its public key."""

    __slots__ = ("_mlkem", "_private", "_x25519", "id", "public_raw")

    def __init__(
        self, mlkem_key: mlkem.MLKEM768PrivateKey, x25519_key: x25519.X25519PrivateKey
    ) -> None:
        self._mlkem = mlkem_key
        self._x25519 = x25519_key
        self._private = hpke.MLKEM768X25519PrivateKey(mlkem_key, x25519_key)
        self.public_raw = (
            mlkem_key.public_key().public_bytes_raw() + x25519_key.public_key().public_bytes_raw()
        )
        self.id = recipient_id(self.public_raw)

    @classmethod
    def generate(cls) -> Self:
        """A new key."""
        return cls(mlkem.MLKEM768PrivateKey.generate(), x25519.X25519PrivateKey.generate())

    @classmethod
    def from_raw(cls, raw: bytes) -> Self:
        """The inverse of `raw`.

        Raises:
            FormatError: Not 96 bytes.
        """
        if len(raw) != RECIPIENT_PRIVATE_SIZE:
            raise FormatError(
                "recipient key has another size", expected=RECIPIENT_PRIVATE_SIZE, found=len(raw)
            )
        return cls(
            mlkem.MLKEM768PrivateKey.from_seed_bytes(raw[:_MLKEM_SEED]),
            x25519.X25519PrivateKey.from_private_bytes(raw[_MLKEM_SEED:]),
        )

    def raw(self) -> bytes:
        """The secret itself: ML-KEM seed ‖ X25519 private key."""
        return self._mlkem.private_bytes_raw() + self._x25519.private_bytes_raw()

    def open(self, sealed: bytes, info: bytes) -> bytes:
        """The plaintext of `hpke_seal`.

        Raises:
            DigestMismatchError: Not sealed to this key under ``info``, or altered since.
        """
        try:
            return _HPKE.decrypt(sealed, self._private, info)
        except (InvalidTag, ValueError) as error:
            raise DigestMismatchError(
                "sealed seed does not open with the recipient's key"
            ) from error

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RecipientKey) and self.public_raw == other.public_raw

    def __hash__(self) -> int:
        return hash(self.public_raw)

    def __repr__(self) -> str:
        return f"RecipientKey(id={self.id})"


# --- AES-256-GCM ---


class Aead:
    """AES-256-GCM under a key that one object alone uses (docs/format.md 3). Thread-safe."""

    __slots__ = ("_cipher",)

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)

    def seal(self, counter: int, data: Buffer, header_digest: Digest, *, final: bool) -> bytes:
        """Ciphertext and tag; the caller uses each ``counter`` once."""
        aad = header_digest + _COUNTER_AND_FLAG.pack(counter, final)
        return self._cipher.encrypt(_NONCE.pack(counter), data, aad)

    def open(self, counter: int, stored: Buffer, header_digest: Digest, *, final: bool) -> bytes:
        """The plaintext of `seal`.

        Raises:
            DigestMismatchError: Other bytes, counter, header, flag or key.
        """
        aad = header_digest + _COUNTER_AND_FLAG.pack(counter, final)
        try:
            return self._cipher.decrypt(_NONCE.pack(counter), stored, aad)
        except InvalidTag as error:
            raise DigestMismatchError(
                "authentication tag differs", found=f"part {counter}, {len(stored)} bytes"
            ) from error


def aes_gcm_seal(key: bytes, nonce: bytes, plaintext: bytes, aad: bytes) -> bytes:
    """AES-256-GCM with a nonce of 12 bytes that the caller chose; for key files."""
    return AESGCM(key).encrypt(nonce, plaintext, aad)


def aes_gcm_open(key: bytes, nonce: bytes, sealed: bytes, aad: bytes) -> bytes:
    """The plaintext of `aes_gcm_seal`.

    Raises:
        DigestMismatchError: Other bytes, nonce, AAD or key.
    """
    try:
        return AESGCM(key).decrypt(nonce, sealed, aad)
    except InvalidTag as error:
        raise DigestMismatchError("authentication tag differs") from error


def argon2id(
    passphrase: bytes, *, salt: bytes, memory_kib: int, iterations: int, lanes: int
) -> bytes:
    """32 bytes by Argon2id (RFC 9106). The caller caps the cost.

    Raises:
        FormatError: A cost or salt below what RFC 9106 allows.
        LocalError: This machine lacks ``memory_kib`` KiB.
    """
    try:
        return Argon2id(
            salt=salt, length=32, iterations=iterations, lanes=lanes, memory_cost=memory_kib
        ).derive(passphrase)
    except ValueError as error:
        raise FormatError("Argon2id parameters are not allowed", found=str(error)) from error
    except MemoryError as error:
        raise LocalError("not enough memory for Argon2id", expected=f"{memory_kib} KiB") from error
