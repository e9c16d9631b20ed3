"""Sealed objects: header and seal (docs/format.md 3).

A `Session` is one run's secret; a `Sealer` seals the parts of one object under a key of
its own; an `Opener` opens them, given the session's seed. The holder of a recipient's private key
gets the seed from the header by `open_seed`; a host forgets the seed when its run ends.
"""

import dataclasses
import hashlib
import hmac
import struct
from collections.abc import Sequence
from typing import Final, Self

from vault.crypto.keys import Aead, RecipientKey, hkdf_sha256, hpke_seal, random_bytes, recipient_id
from vault.errors import ConfigError, DigestMismatchError, FormatError, VaultError, WrongKeyError
from vault.model import Buffer, Digest, Id, ObjectType

# --- header ---

SEALED_MAGIC: Final = b"VAULTOBJ"
HEADER_PREFIX: Final = 12  # bytes from which `header_length` follows
FORMAT: Final = 1
SUITE: Final = 1
MAX_RECIPIENTS: Final = 16
MAX_SEALED_SEED: Final = 4096  # bytes
SEED_SIZE: Final = 32  # bytes

_FIXED = struct.Struct("<8sIBBBB16s32s32s")
_RECIPIENT = struct.Struct("<32sH")
MAX_HEADER: Final = _FIXED.size + MAX_RECIPIENTS * (_RECIPIENT.size + MAX_SEALED_SEED)
_NO_SESSION = bytes(16)
_USE = {
    ObjectType.DATA: b"pack",
    ObjectType.TREE: b"pack",
    ObjectType.INDEX: b"index",
    ObjectType.DOMAIN: b"domain",
    ObjectType.SEEDS: b"seeds",
}

SealedSeeds = tuple[tuple[Id, bytes], ...]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """The clear beginning of a sealed object."""

    type: ObjectType
    session_id: bytes  # 16
    salt: bytes  # 32
    commitment: bytes  # 32
    sealed: SealedSeeds  # recipient id and the seed sealed to it
    raw: bytes  # all of it, as stored
    digest: Digest  # SHA-256 of `raw`: every part's tag depends on it

    @property
    def length(self) -> int:
        """Bytes as stored; the first part follows."""
        return len(self.raw)

    @property
    def session_key(self) -> bytes:
        """Names the seed that opens the object, in tables of seeds (docs/format.md 6.1).

        Both the session's id and what is sealed to each recipient count: a thief can copy an id
        into a header with another seed.
        """
        return hashlib.sha256(self.session_id + self.raw[_FIXED.size :]).digest()

    @classmethod
    def build(
        cls,
        *,
        kind: ObjectType,
        session_id: bytes,
        salt: bytes,
        commitment: bytes,
        sealed: SealedSeeds,
    ) -> Self:
        """The header with those fields."""
        recipients = b"".join(_RECIPIENT.pack(name, len(seed)) + seed for name, seed in sealed)
        length = _FIXED.size + len(recipients)
        fixed = _FIXED.pack(
            SEALED_MAGIC, length, FORMAT, SUITE, kind, len(sealed), session_id, salt, commitment
        )
        return cls.parse(fixed + recipients)

    @classmethod
    def parse(cls, data: Buffer) -> Self:
        """The header that ``data`` begins with; bytes after it are ignored.

        Raises:
            FormatError: Not such a header, or an unknown format, suite or type.
        """
        length = header_length(data)
        raw = bytes(data[:length])
        if len(raw) != length:
            raise FormatError("sealed object is cut short", expected=length, found=len(raw))
        _, _, form, suite, kind, count, session_id, salt, commitment = _FIXED.unpack_from(raw)
        _require("format", form, FORMAT)
        _require("cipher suite", suite, SUITE)
        header = cls(
            type=_object_type(kind),
            session_id=session_id,
            salt=salt,
            commitment=commitment,
            sealed=_parse_recipients(raw, count),
            raw=raw,
            digest=Digest(hashlib.sha256(raw).digest()),
        )
        if header.type is ObjectType.INDEX:
            _require("session id of an index", session_id.hex(), _NO_SESSION.hex())
        return header


def header_length(prefix: Buffer) -> int:
    """How long the header is, from the first `HEADER_PREFIX` bytes of an object.

    Raises:
        FormatError: Not a sealed object, or a length that no header has.
    """
    if len(prefix) < HEADER_PREFIX or bytes(prefix[:8]) != SEALED_MAGIC:
        raise FormatError("not a sealed object", expected=SEALED_MAGIC, found=bytes(prefix[:8]))
    length = int.from_bytes(prefix[8:12], "little")
    if not _FIXED.size <= length <= MAX_HEADER:
        raise FormatError(
            "header length is impossible", expected=f"{_FIXED.size} to {MAX_HEADER}", found=length
        )
    return length


def _require(what: str, found: object, expected: object) -> None:
    if found != expected:
        raise FormatError(f"sealed object has an unknown {what}", expected=expected, found=found)


def _object_type(kind: int) -> ObjectType:
    try:
        return ObjectType(kind)
    except ValueError as error:
        raise FormatError("sealed object has an unknown type", found=kind) from error


def _parse_recipients(raw: bytes, count: int) -> SealedSeeds:
    if (count == 0) != (raw[14] == ObjectType.INDEX) or count > MAX_RECIPIENTS:
        raise FormatError("sealed object has an impossible number of recipients", found=count)
    sealed: list[tuple[Id, bytes]] = []
    at = _FIXED.size
    for _ in range(count):
        if at + _RECIPIENT.size > len(raw):
            raise FormatError("header ends within its recipients")
        name, size = _RECIPIENT.unpack_from(raw, at)
        at += _RECIPIENT.size
        if size > MAX_SEALED_SEED or at + size > len(raw):
            raise FormatError("header has an impossible sealed seed", found=f"{size} bytes")
        sealed.append((Id(name), raw[at : at + size]))
        at += size
    if at != len(raw):
        raise FormatError("header has bytes after its recipients", expected=at, found=len(raw))
    return tuple(sealed)


# --- seal ---


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """One run's secret, and the same sealed to every recipient."""

    id: bytes  # 16
    seed: bytes = dataclasses.field(repr=False)  # 32; forgotten when the run ends
    sealed: SealedSeeds = dataclasses.field(repr=False)

    @classmethod
    def new(cls, repository_id: bytes, recipients: Sequence[bytes]) -> Self:
        """A fresh session.

        Args:
            repository_id: 16 bytes.
            recipients: Raw public keys, 1 to 16.

        Raises:
            ConfigError: No recipient, or more than 16.
            FormatError: One is not a public key of the suite.
        """
        if not 1 <= len(recipients) <= MAX_RECIPIENTS:
            raise ConfigError(
                "number of recipients", expected=f"1 to {MAX_RECIPIENTS}", found=len(recipients)
            )
        session_id, seed = random_bytes(16), random_bytes(SEED_SIZE)
        info = _seed_info(repository_id, session_id)
        sealed = tuple((recipient_id(key), hpke_seal(key, seed, info)) for key in recipients)
        return cls(id=session_id, seed=seed, sealed=sealed)


def open_seed(header: Header, repository_id: bytes, recipient: RecipientKey) -> bytes:
    """The session's seed, for one of the header's recipients.

    Raises:
        WrongKeyError: ``recipient`` is not one of them.
        DigestMismatchError: The sealed seed was altered or belongs elsewhere.
    """
    sealed = dict(header.sealed).get(recipient.id)
    if sealed is None:
        raise WrongKeyError(
            "object is not sealed to this key",
            expected=", ".join(str(name)[:16] for name, _ in header.sealed) or "an index key",
            found=str(recipient.id)[:16],
            hint="use the key file of one of the recipients named",
        )
    seed = recipient.open(sealed, _seed_info(repository_id, header.session_id))
    if len(seed) != SEED_SIZE:
        raise FormatError("session seed has another size", expected=SEED_SIZE, found=len(seed))
    return seed


class Opener:
    """Opens the parts of one sealed object. Thread-safe."""

    __slots__ = ("_aead", "header")

    def __init__(self, header: Header, seed: bytes, repository_id: bytes) -> None:
        """Derive the object's key and check its commitment.

        AES-GCM alone does not commit to a key: without the check one ciphertext
        could open differently under two.

        Raises:
            DigestMismatchError: Another seed or repository, or an altered header.
        """
        key, commitment = _derive(seed, header.salt, repository_id, header.type)
        if not hmac.compare_digest(commitment, header.commitment):
            raise DigestMismatchError(
                "key commitment differs", found=f"{header.type.name.lower()} object"
            )
        self.header = header
        self._aead = Aead(key)

    def open(self, counter: int, stored: Buffer, *, final: bool = False) -> bytes:
        """The plaintext of one part.

        Raises:
            DigestMismatchError: Not the part sealed under that counter and flag.
        """
        return self._aead.open(counter, stored, self.header.digest, final=final)


class Sealer:
    """Seals the parts of one object, each under a counter of its own. Thread-safe.

    Every Sealer draws its salt, hence its key: a retried object never reuses a nonce.
    """

    __slots__ = ("_aead", "header", "opener")

    def __init__(
        self,
        *,
        kind: ObjectType,
        seed: bytes,
        repository_id: bytes,
        session_id: bytes = _NO_SESSION,
        sealed: SealedSeeds = (),
        salt: bytes,
    ) -> None:
        """Make a sealer of explicit parts. Only golden vectors choose the ``salt``."""
        key, commitment = _derive(seed, salt, repository_id, kind)
        self.header = Header.build(
            kind=kind, session_id=session_id, salt=salt, commitment=commitment, sealed=sealed
        )
        self._aead = Aead(key)
        self.opener = Opener(self.header, seed, repository_id)  # re-derived from the header

    @classmethod
    def for_session(cls, session: Session, kind: ObjectType, repository_id: bytes) -> Self:
        """A sealer for a pack, a domain object or a table of seeds."""
        return cls(
            kind=kind,
            seed=session.seed,
            repository_id=repository_id,
            session_id=session.id,
            sealed=session.sealed,
            salt=random_bytes(32),
        )

    @classmethod
    def for_index(cls, index_key: bytes, repository_id: bytes) -> Self:
        """A sealer for an index object of a domain."""
        return cls(
            kind=ObjectType.INDEX,
            seed=index_key,
            repository_id=repository_id,
            salt=random_bytes(32),
        )

    def seal(self, counter: int, plaintext: Buffer, *, final: bool = False) -> bytes:
        """One part, 16 bytes longer than its plaintext; the caller uses each counter once."""
        return self._aead.seal(counter, plaintext, self.header.digest, final=final)


def seal_whole(sealer: Sealer, plaintext: bytes) -> bytes:
    """An object of one part: ``header ‖ sealed``, opened again before it is returned.

    Raises:
        VaultError: What was sealed does not open to the same bytes.
    """
    sealed = sealer.seal(0, plaintext, final=True)
    if sealer.opener.open(0, sealed, final=True) != plaintext:
        raise VaultError("sealed object does not open to what was sealed")
    return sealer.header.raw + sealed


def open_whole(data: Buffer, opener: Opener) -> bytes:
    """The plaintext of `seal_whole`; ``opener`` was made from the object's header.

    Raises:
        DigestMismatchError: Altered or cut short.
    """
    return opener.open(0, memoryview(data)[opener.header.length :], final=True)


def _derive(
    seed: bytes, salt: bytes, repository_id: bytes, kind: ObjectType
) -> tuple[bytes, bytes]:
    """Key and commitment of one object."""
    info = b"vault/v1/" + _USE[kind] + b"/" + repository_id + bytes([SUITE, kind])
    both = hkdf_sha256(seed, salt, info, 64)
    return both[:32], both[32:]


def _seed_info(repository_id: bytes, session_id: bytes) -> bytes:
    return b"vault/v1/seed/" + repository_id + session_id + bytes([SUITE])
