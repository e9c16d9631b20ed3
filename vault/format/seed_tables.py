"""Tables of seeds: what opens older sessions, sealed to a later recipient (docs/format.md 6.1)."""

import bisect
import itertools
from collections.abc import Mapping
from typing import Final

from vault.crypto.keys import TAG_SIZE, RecipientKey
from vault.crypto.sealed import (
    SEED_SIZE,
    Header,
    Opener,
    Sealer,
    Session,
    open_seed,
    open_whole,
    seal_whole,
)
from vault.errors import ConfigError, FormatError
from vault.model import Id, ObjectType

MAX_SEEDS: Final = 100_000  # in one table
MAX_TABLE: Final = 6_500_000  # bytes as stored
_KEY_SIZE: Final = 32  # bytes of a session key
_ROW: Final = _KEY_SIZE + SEED_SIZE
_COUNT: Final = 4  # bytes


class SeedRows:
    """The rows of one table, as they are stored: a search takes no more memory than they do."""

    def __init__(self, plaintext: bytes) -> None:
        """Check a table.

        Raises:
            FormatError: Not ``u32 n`` and that many rows in ascending order, none twice.
        """
        count = int.from_bytes(plaintext[:_COUNT], "little")
        if not 1 <= count <= MAX_SEEDS or len(plaintext) != _COUNT + count * _ROW:
            raise FormatError(
                "table of seeds has an impossible size",
                expected=f"1 to {MAX_SEEDS} rows",
                found=f"{count} rows in {len(plaintext)} bytes",
            )
        self._plaintext = plaintext
        self._count = count
        keys = list(map(self._key, range(count)))
        if any(one >= next_one for one, next_one in itertools.pairwise(keys)):
            raise FormatError("table of seeds is not in ascending order")

    def __len__(self) -> int:
        """How many sessions it opens."""
        return self._count

    def find(self, session_key: bytes) -> bytes | None:
        """The seed of a session; None if the table has none."""
        at = bisect.bisect_left(range(self._count), session_key, key=self._key)
        if at == self._count or self._key(at) != session_key:
            return None
        start = _COUNT + at * _ROW + _KEY_SIZE
        return self._plaintext[start : start + SEED_SIZE]

    def _key(self, number: int) -> bytes:
        start = _COUNT + number * _ROW
        return self._plaintext[start : start + _KEY_SIZE]


def encode_rows(seeds: Mapping[bytes, bytes]) -> bytes:
    """The plaintext of a table: seeds by session key.

    Raises:
        ConfigError: None, or more than one table holds.
    """
    if not 1 <= len(seeds) <= MAX_SEEDS:
        raise ConfigError("seeds in a table", expected=f"1 to {MAX_SEEDS}", found=len(seeds))
    rows = b"".join(key + seed for key, seed in sorted(seeds.items()))
    return len(seeds).to_bytes(_COUNT, "little") + rows


def seal_rows(seeds: Mapping[bytes, bytes], repository_id: bytes, recipient: bytes) -> bytes:
    """A table as an object.

    Args:
        seeds: Seeds of sessions, by session key.
        repository_id: 16 bytes.
        recipient: Raw public key.

    Raises:
        ConfigError: None, or more than one table holds.
        FormatError: ``recipient`` is not a public key of the suite.
    """
    session = Session.new(repository_id, [recipient])
    sealer = Sealer.for_session(session, ObjectType.SEEDS, repository_id)
    return seal_whole(sealer, encode_rows(seeds))


def table_rows(data: bytes, recipient: Id) -> int:
    """How many rows a table has, by its size alone; needs no key.

    Raises:
        FormatError: Not a table for that recipient, too large, or of an impossible size.
    """
    header = _header_of(data, recipient)
    count, rest = divmod(len(data) - header.length - TAG_SIZE - _COUNT, _ROW)
    if rest or not 1 <= count <= MAX_SEEDS:
        raise FormatError("table of seeds has an impossible size", found=f"{len(data)} bytes")
    return count


def open_rows(data: bytes, repository_id: bytes, recipient: RecipientKey) -> SeedRows:
    """The rows of a table.

    Raises:
        FormatError: Not a table for ``recipient``, too large, or malformed.
        DigestMismatchError: Altered, or of another repository.
    """
    header = _header_of(data, recipient.id)
    opener = Opener(header, open_seed(header, repository_id, recipient), repository_id)
    return SeedRows(open_whole(data, opener))


def _header_of(data: bytes, recipient: Id) -> Header:
    if len(data) > MAX_TABLE:
        raise FormatError("table of seeds is too large", expected=MAX_TABLE, found=len(data))
    header = Header.parse(data)
    if header.type is not ObjectType.SEEDS:
        raise FormatError("object is no table of seeds", found=header.type.name)
    sealed_to = [name for name, _ in header.sealed]
    if sealed_to != [recipient]:
        raise FormatError(
            "table of seeds is sealed to others",
            expected=str(recipient)[:16],
            found=", ".join(str(name)[:16] for name in sealed_to),
        )
    return header
