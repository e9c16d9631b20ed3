"""Packs: sealed blocks of chunks and a sealed directory (docs/format.md 4)."""

import array
import dataclasses
import hashlib
import itertools
import struct
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple, Self

from vault.crypto.compression import compress, decompress
from vault.crypto.keys import TAG_SIZE, chunk_id
from vault.crypto.sealed import HEADER_PREFIX, Header, Opener, Sealer, header_length
from vault.errors import DigestMismatchError, FormatError, VaultError
from vault.model import Buffer, ObjectType, PackId

DIRECTORY_COUNTER: Final = 2**64 - 1
MAX_PACK: Final = 72 << 20  # bytes as stored
MAX_BLOCK: Final = 8 << 20  # bytes of raw
MAX_DIRECTORY: Final = 8 << 20  # bytes of raw
MAX_CHUNKS: Final = 65_536  # chunks of a pack
MAX_BLOCK_CHUNKS: Final = 4_096  # a limit of writers only, so that a pack fills evenly

_MAGIC = b"VAULTDIR"
_TRAILER = struct.Struct("<I8s")
_COUNT = struct.Struct("<I")
_BLOCK = struct.Struct("<III")
_ID_SIZE = 32
_CHUNK_SIZE = 4 + _ID_SIZE  # bytes of one chunk in the directory
_MAX_STORED_DIRECTORY = MAX_DIRECTORY + (1 << 16)  # incompressible data grows a little
_HEAD_GUESS = 4096  # bytes: a header with three recipients
_TAIL_GUESS = 1 << 16  # bytes: the directory of most packs


class Block(NamedTuple):
    """The place of one block, and the chunks in it."""

    offset: int  # bytes from the pack's start
    stored: int  # bytes, with tag
    raw: int  # bytes
    chunks: int
    first_chunk: int  # place in the pack's list of chunks


class BlockPlace(NamedTuple):
    """The place of one chunk in a pack."""

    id: bytes
    block: int
    offset: int  # in the block's raw bytes
    length: int  # bytes


@dataclasses.dataclass(frozen=True, slots=True)
class Directory:
    """The content of a pack: its blocks in order, and the length and id of every chunk."""

    blocks: list[Block]
    lengths: "array.array[int]"  # u32, one for each chunk
    ids: bytes  # 32 bytes for each chunk

    def __len__(self) -> int:
        """The number of chunks."""
        return len(self.lengths)

    def chunk_id(self, place: int) -> bytes:
        """The id of one chunk."""
        return self.ids[place * _ID_SIZE : (place + 1) * _ID_SIZE]

    def iter_ids(self) -> Iterator[bytes]:
        """The id of every chunk, in the order of the pack."""
        ids = self.ids
        return (ids[at : at + _ID_SIZE] for at in range(0, len(ids), _ID_SIZE))

    def iter_chunks(self) -> Iterator[BlockPlace]:
        """Every chunk, in the order of the pack."""
        for number, block in enumerate(self.blocks):
            offset = 0
            for place in range(block.first_chunk, block.first_chunk + block.chunks):
                length = self.lengths[place]
                yield BlockPlace(self.chunk_id(place), number, offset, length)
                offset += length

    @property
    def encoded_size(self) -> int:
        """Bytes that `encode` gives."""
        return _COUNT.size + len(self.blocks) * _BLOCK.size + len(self) * _CHUNK_SIZE

    @property
    def stored_end(self) -> int:
        """Bytes from the pack's start to the end of its last block; 0 without blocks."""
        return self.blocks[-1].offset + self.blocks[-1].stored if self.blocks else 0

    def encode(self) -> bytes:
        """The directory's plaintext."""
        blocks = (_BLOCK.pack(block.stored, block.raw, block.chunks) for block in self.blocks)
        return b"".join(
            [_COUNT.pack(len(self.blocks)), *blocks, _to_little(self.lengths), self.ids]
        )

    @classmethod
    def decode(cls, data: bytes, header_length: int) -> Self:
        """The inverse of `encode`, for a pack whose header has that length.

        Raises:
            FormatError: Not a directory, or one that contradicts itself or exceeds a limit.
        """
        count = _COUNT.unpack_from(data)[0] if len(data) >= _COUNT.size else 0
        chunks_at = _COUNT.size + count * _BLOCK.size
        chunks, rest = divmod(len(data) - chunks_at, _CHUNK_SIZE)
        if len(data) < _COUNT.size or chunks < 0 or rest or chunks > MAX_CHUNKS:
            raise FormatError(
                "pack directory has an impossible size", found=f"{len(data)} bytes, {count} blocks"
            )
        ids_at = chunks_at + chunks * 4
        lengths = _from_little(data[chunks_at:ids_at])
        if 0 in lengths:
            raise FormatError("pack directory has an empty chunk", found=lengths.index(0))
        blocks = _decode_blocks(data[_COUNT.size : chunks_at], lengths, header_length)
        return cls(blocks, lengths, data[ids_at:])


def _decode_blocks(data: bytes, lengths: "array.array[int]", offset: int) -> list[Block]:
    blocks: list[Block] = []
    first = 0
    for stored, raw, chunks in _BLOCK.iter_unpack(data):
        if not (TAG_SIZE < stored <= MAX_PACK and 0 < raw <= MAX_BLOCK and chunks):
            raise FormatError(
                "pack directory has an impossible block",
                found=f"block {len(blocks)}: stored {stored}, raw {raw}, chunks {chunks}",
            )
        if first + chunks > len(lengths) or sum(lengths[first : first + chunks]) != raw:
            raise FormatError(
                "chunks of a block do not sum to its raw length", found=f"block {len(blocks)}"
            )
        blocks.append(Block(offset, stored, raw, chunks, first))
        offset += stored
        first += chunks
    if first != len(lengths) or offset > MAX_PACK:
        raise FormatError(
            "pack directory does not sum up",
            expected=f"{len(lengths)} chunks, at most {MAX_PACK} bytes",
            found=f"{first} chunks, {offset} bytes",
        )
    return blocks


def _from_little(data: bytes) -> "array.array[int]":
    values = array.array("I", data)
    if sys.byteorder == "big":
        values.byteswap()
    return values


def _to_little(values: "array.array[int]") -> bytes:
    if sys.byteorder == "big":
        values = values[:]
        values.byteswap()
    return values.tobytes()


# --- write ---


class SealedBlock(NamedTuple):
    """A block ready to be added to the pack whose sealer sealed it."""

    counter: int
    stored: bytes
    raw: int  # bytes
    lengths: Sequence[int]
    ids: Sequence[bytes]


class FinishedPack(NamedTuple):
    """A whole pack, ready to be stored."""

    pack_id: PackId
    data: bytearray
    directory: Directory
    header_length: int
    type: ObjectType


class PackWriter:
    """Builds one pack in memory.

    `next_counter` and `seal_block` may be called by many threads; `add` and `finish` by one,
    blocks in the order of their counters.
    """

    def __init__(self, sealer: Sealer, level: int) -> None:
        self._sealer = sealer
        self._level = level
        self._counters = itertools.count()
        self._data = bytearray(sealer.header.raw)
        self._blocks: list[Block] = []
        self._lengths = array.array("I")
        self._ids = bytearray()

    @property
    def size(self) -> int:
        """Bytes so far: header and added blocks, without directory."""
        return len(self._data)

    @property
    def chunk_count(self) -> int:
        """Chunks added so far."""
        return len(self._lengths)

    def is_full(self, target: int) -> bool:
        """Whether the pack has about ``target`` bytes, or so many chunks that it should end.

        Blocks that are being sealed may still be added, as the hard limits are twice as high.
        """
        directory = len(self._blocks) * _BLOCK.size + self.chunk_count * _CHUNK_SIZE
        return self.size + directory >= target or self.chunk_count >= MAX_CHUNKS // 2

    def next_counter(self) -> int:
        """The counter of the next block; a block must be sealed and added for each counter."""
        return next(self._counters)

    def seal_block(
        self, counter: int, raw: bytes | bytearray, ids: Sequence[bytes], lengths: Sequence[int]
    ) -> SealedBlock:
        """Compress and seal one block, and open it again.

        Args:
            counter: From `next_counter`; used once.
            raw: The block's bytes.
            ids: Chunk ids.
            lengths: Bytes of each chunk; they sum to the length of the block.

        Raises:
            VaultError: Over a limit, or what was sealed does not open to the same bytes.
        """
        if (
            not 0 < len(raw) <= MAX_BLOCK
            or len(ids) != len(lengths)
            or not 0 < len(ids) <= MAX_BLOCK_CHUNKS
            or sum(lengths) != len(raw)
        ):
            raise VaultError(
                "block is not one that a pack can hold",
                found=f"{len(raw)} bytes, {len(lengths)} chunks, {len(ids)} ids",
            )
        stored = self._sealer.seal(counter, compress(raw, self._level))
        frame = self._sealer.opener.open(counter, stored)
        if decompress(frame, max_raw=MAX_BLOCK, raw=len(raw)) != raw:
            raise VaultError("sealed block does not open to what was sealed")
        return SealedBlock(counter, stored, len(raw), lengths, ids)

    def add(self, block: SealedBlock) -> None:
        """Append the next block.

        Raises:
            VaultError: Out of order, or over a limit of the pack.
        """
        if block.counter != len(self._blocks):
            raise VaultError(
                "block added out of order", expected=len(self._blocks), found=block.counter
            )
        chunks = self.chunk_count + len(block.ids)
        size = self.size + len(block.stored)
        if chunks > MAX_CHUNKS or size > MAX_PACK - _MAX_STORED_DIRECTORY:
            raise VaultError("pack is over its limit", found=f"{size} bytes, {chunks} chunks")
        self._blocks.append(
            Block(self.size, len(block.stored), block.raw, len(block.ids), self.chunk_count)
        )
        self._data += block.stored
        self._lengths.extend(block.lengths)
        self._ids += b"".join(block.ids)

    def finish(self) -> FinishedPack:
        """The whole pack, its directory read back from the bytes to be stored.

        Raises:
            VaultError: The directory does not read back.
        """
        directory = Directory(self._blocks, self._lengths, bytes(self._ids))
        sealed = self._sealer.seal(
            DIRECTORY_COUNTER, compress(directory.encode(), self._level), final=True
        )
        self._data += sealed
        self._data += _TRAILER.pack(len(sealed), _MAGIC)
        whole = memoryview(self._data)
        _, _, found = read_directory(
            lambda offset, length: bytes(whole[offset : offset + length]),
            len(whole),
            lambda _: self._sealer.opener,
        )
        if found != directory:
            raise VaultError("pack directory does not read back as it was written")
        return FinishedPack(
            PackId(hashlib.sha256(whole).digest()),
            self._data,
            directory,
            self._sealer.header.length,
            self._sealer.header.type,
        )


# --- read ---


def read_directory(
    data_range: Callable[[int, int], bytes], size: int, opener_for: Callable[[Header], Opener]
) -> tuple[Header, Opener, Directory]:
    """Header and directory of a pack, from two to four ranges of it.

    Args:
        data_range: Gives the bytes at (offset, length).
        size: Bytes of the pack as stored.
        opener_for: Makes the opener for a header; may raise WrongKeyError.

    Raises:
        FormatError: Not a pack, or one cut short.
        DigestMismatchError: Its header, key or directory was altered.
    """
    if not HEADER_PREFIX <= size <= MAX_PACK:
        raise FormatError("pack has an impossible size", expected=f"≤ {MAX_PACK}", found=size)
    read = _exact(data_range)
    header = _read_header(read, size)
    opener = opener_for(header)
    room = size - header.length - _TRAILER.size
    sealed = _read_tail(read, size, room)
    frame = opener.open(DIRECTORY_COUNTER, sealed, final=True)
    directory = Directory.decode(decompress(frame, max_raw=MAX_DIRECTORY), header.length)
    blocks_end = directory.stored_end or header.length
    if blocks_end != size - _TRAILER.size - len(sealed):
        raise FormatError(
            "blocks do not fill the pack",
            expected=f"{size - _TRAILER.size - len(sealed)} bytes",
            found=blocks_end,
        )
    return header, opener, directory


def open_block(
    opener: Opener,
    directory: Directory,
    number: int,
    stored: Buffer,
    *,
    id_key: bytes | None,
) -> bytes:
    """The raw bytes of one block.

    Args:
        opener: The opener of the pack.
        directory: The directory of the pack.
        number: The number of the block.
        stored: The bytes of the block as stored.
        id_key: That of the domain; every chunk id is checked with it, under the pack's type: a
            data chunk never passes for a tree chunk. None checks only the tag.

    Raises:
        FormatError: The block is not one zstd frame.
        DigestMismatchError: The block was altered, or a chunk is not what its id says.
    """
    block = directory.blocks[number]
    if len(stored) != block.stored:
        raise DigestMismatchError("block is cut short", expected=block.stored, found=len(stored))
    raw = decompress(opener.open(number, stored), max_raw=MAX_BLOCK, raw=block.raw)
    if id_key is not None:
        _check_chunks(directory, block, raw, id_key, opener.header.type)
    return raw


def _check_chunks(
    directory: Directory, block: Block, raw: bytes, id_key: bytes, kind: ObjectType
) -> None:
    view = memoryview(raw)
    offset = 0
    for place in range(block.first_chunk, block.first_chunk + block.chunks):
        end = offset + directory.lengths[place]
        found = chunk_id(id_key, kind, hashlib.sha256(view[offset:end]).digest())
        if found != directory.chunk_id(place):
            raise DigestMismatchError(
                "chunk is not what its id says",
                expected=directory.chunk_id(place).hex(),
                found=found,
            )
        offset = end


def _exact(data_range: Callable[[int, int], bytes]) -> Callable[[int, int], bytes]:
    def read(offset: int, length: int) -> bytes:
        data = data_range(offset, length)
        if len(data) != length:
            raise FormatError(
                "pack is cut short", expected=f"{length} bytes at {offset}", found=len(data)
            )
        return data

    return read


def _read_header(read: Callable[[int, int], bytes], size: int) -> Header:
    head = read(0, min(size, _HEAD_GUESS))
    length = header_length(head)
    if length > size:
        raise FormatError("pack is cut short", expected=f"{length} bytes of header", found=size)
    if length > len(head):
        head += read(len(head), length - len(head))
    header = Header.parse(head)
    if header.type not in (ObjectType.DATA, ObjectType.TREE):
        raise FormatError("object is not a pack", found=header.type.name)
    return header


def _read_tail(read: Callable[[int, int], bytes], size: int, room: int) -> bytes:
    """The sealed directory, which has at most ``room`` bytes."""
    guess = min(size, _TAIL_GUESS)
    tail = read(size - guess, guess)
    length, magic = _TRAILER.unpack(tail[-_TRAILER.size :])
    if magic != _MAGIC:
        raise FormatError("pack does not end in its directory", expected=_MAGIC, found=magic)
    if not TAG_SIZE < length <= min(room, _MAX_STORED_DIRECTORY):
        raise FormatError("pack directory has an impossible length", found=length)
    missing = length + _TRAILER.size - len(tail)
    if missing > 0:
        tail = read(size - guess - missing, missing) + tail
    end = len(tail) - _TRAILER.size
    return tail[end - length : end]
