"""Packs: directory, writer, reader, and every way to damage one."""

import array
import dataclasses
import hashlib
import random
import struct
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vault.crypto.compression import compress
from vault.crypto.keys import RecipientKey, chunk_id
from vault.crypto.sealed import Header, Opener, Sealer, Session, open_seed
from vault.errors import (
    DigestMismatchError,
    FormatError,
    IntegrityError,
    VaultError,
    WrongKeyError,
)
from vault.format.pack import (
    DIRECTORY_COUNTER,
    MAX_BLOCK,
    MAX_BLOCK_CHUNKS,
    MAX_CHUNKS,
    MAX_PACK,
    Block,
    Directory,
    FinishedPack,
    PackWriter,
    SealedBlock,
    open_block,
    read_directory,
)
from vault.model import ObjectType

REPOSITORY = bytes(range(16))
ID_KEY = bytes(range(32))
RECIPIENT = RecipientKey.generate()
SESSION = Session.new(REPOSITORY, [RECIPIENT.public_raw])
BLOCKS = [[b"one" * 100, b"two" * 200], [b"three" * 300], [b"four" * 7, b"five" * 5, b"six"]]


def name_of(chunk: bytes, kind: ObjectType = ObjectType.DATA) -> bytes:
    """The chunk's id."""
    return chunk_id(ID_KEY, kind, hashlib.sha256(chunk).digest())


def write(
    blocks: list[list[bytes]],
    *,
    session: Session = SESSION,
    repository: bytes = REPOSITORY,
    kind: ObjectType = ObjectType.DATA,
) -> FinishedPack:
    """A pack of those chunks."""
    writer = PackWriter(Sealer.for_session(session, kind, repository), 3)
    for chunks in blocks:
        sealed = writer.seal_block(
            writer.next_counter(),
            b"".join(chunks),
            [name_of(chunk, kind) for chunk in chunks],
            [len(chunk) for chunk in chunks],
        )
        writer.add(sealed)
    return writer.finish()


def read(
    data: bytes | bytearray,
    *,
    seed: bytes | None = None,
    recipient: RecipientKey = RECIPIENT,
    repository: bytes = REPOSITORY,
) -> list[bytes]:
    """Every block of a pack, all ids checked."""

    def opener_for(header: Header) -> Opener:
        return Opener(header, seed or open_seed(header, repository, recipient), repository)

    def ranges(offset: int, length: int) -> bytes:
        return bytes(data[offset : offset + length])

    _, opener, directory = read_directory(ranges, len(data), opener_for)
    return [
        open_block(
            opener,
            directory,
            number,
            data[block.offset : block.offset + block.stored],
            id_key=ID_KEY,
        )
        for number, block in enumerate(directory.blocks)
    ]


@pytest.fixture(scope="module")
def pack() -> FinishedPack:
    """Three blocks, six chunks."""
    return write(BLOCKS)


# --- round trips ---


def test_pack_round_trips(pack: FinishedPack) -> None:
    """Blocks come back, and the directory says where every chunk is."""
    assert read(pack.data) == [b"".join(chunks) for chunks in BLOCKS]
    assert pack.pack_id == hashlib.sha256(pack.data).digest()
    chunks = [chunk for block in BLOCKS for chunk in block]
    found = list(pack.directory.iter_chunks())
    assert [location.id for location in found] == [name_of(chunk) for chunk in chunks]
    raw = [b"".join(block) for block in BLOCKS]
    assert [raw[each.block][each.offset : each.offset + each.length] for each in found] == chunks
    assert len(pack.directory) == len(chunks)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(st.binary(min_size=1, max_size=300), min_size=1, max_size=5), max_size=6))
def test_any_pack_round_trips(blocks: list[list[bytes]]) -> None:
    """The empty pack too."""
    assert read(write(blocks).data) == [b"".join(chunks) for chunks in blocks]


def test_a_large_directory_is_read_in_more_ranges() -> None:
    """One longer than the first guess."""
    blocks = [[struct.pack("<I", n * 2000 + m) for m in range(2000)] for n in range(3)]
    pack = write(blocks)
    asked: list[int] = []

    def ranges(offset: int, length: int) -> bytes:
        asked.append(length)
        return bytes(pack.data[offset : offset + length])

    _, _, directory = read_directory(
        ranges, len(pack.data), lambda header: Opener(header, SESSION.seed, REPOSITORY)
    )
    assert directory == pack.directory
    assert len(asked) == 3


def test_a_large_header_is_read_in_more_ranges() -> None:
    """Sixteen recipients."""
    session = Session.new(REPOSITORY, [RECIPIENT.public_raw] * 16)
    assert read(write(BLOCKS, session=session).data) == [b"".join(chunks) for chunks in BLOCKS]


def directories() -> st.SearchStrategy[Directory]:
    """Any directory a writer could make."""

    def build(parts: list[tuple[int, list[int]]], seed: int) -> Directory:
        offset, blocks = 96, []
        lengths = array.array("I")
        for stored, chunks in parts:
            blocks.append(Block(offset, stored, sum(chunks), len(chunks), len(lengths)))
            offset += stored
            lengths.extend(chunks)
        return Directory(blocks, lengths, random.Random(seed).randbytes(32 * len(lengths)))

    block = st.tuples(
        st.integers(17, 1 << 20), st.lists(st.integers(1, 1 << 20), min_size=1, max_size=8)
    )
    return st.builds(build, st.lists(block, max_size=8), st.integers(0, 99))


@given(directories())
def test_directories_round_trip(directory: Directory) -> None:
    """Encode and decode are inverses."""
    data = directory.encode()
    assert len(data) == directory.encoded_size
    assert Directory.decode(data, 96) == directory


@given(directories(), st.data())
def test_damaged_directories_end_in_format_errors(
    directory: Directory, data: st.DataObject
) -> None:
    """A flipped byte decodes to another consistent directory or to a FormatError, nothing else."""
    raw = bytearray(directory.encode())
    at = data.draw(st.integers(0, len(raw) - 1))
    raw[at] ^= data.draw(st.integers(1, 255))
    try:
        decoded = Directory.decode(bytes(raw), 96)
    except FormatError:
        return
    assert decoded.encode() == raw


# --- damage ---


def outcome(data: bytes | bytearray) -> type[BaseException] | None:
    """What a full read ends in."""
    try:
        read(data)
    except (IntegrityError, WrongKeyError) as error:
        return type(error)
    return None


def test_every_flipped_byte_is_detected(pack: FinishedPack) -> None:
    """Header, salt, commitment, sealed seed, blocks, tags, directory, length and magic."""
    for at in [
        *range(130),
        *range(130, pack.header_length, 97),
        *range(pack.header_length, len(pack.data)),
    ]:
        damaged = bytearray(pack.data)
        damaged[at] ^= 0x41
        assert outcome(damaged) is not None, at


def test_every_truncation_is_detected(pack: FinishedPack) -> None:
    """At the end, at the front, and longer than it was."""
    for keep in [*range(0, 140, 7), *range(140, len(pack.data), 29), len(pack.data) - 1]:
        assert outcome(pack.data[:keep]) is not None, keep
    assert outcome(pack.data[1:]) is not None
    assert outcome(pack.data + b"\0") is not None
    assert outcome(pack.data + pack.data[-12:]) is not None


REGIONS: list[tuple[str, Callable[[FinishedPack], int], tuple[type[VaultError], ...]]] = [
    ("magic", lambda p: 0, (FormatError,)),
    ("format", lambda p: 12, (FormatError,)),
    ("suite", lambda p: 13, (FormatError,)),
    ("session id", lambda p: 16, (DigestMismatchError,)),
    ("salt", lambda p: 32, (DigestMismatchError,)),
    ("commitment", lambda p: 64, (DigestMismatchError,)),
    ("recipient", lambda p: 96, (WrongKeyError,)),
    ("sealed seed", lambda p: 140, (DigestMismatchError,)),
    ("block", lambda p: p.header_length, (DigestMismatchError,)),
    ("tag", lambda p: p.directory.blocks[1].offset - 1, (DigestMismatchError,)),
    ("directory", lambda p: p.directory.stored_end, (DigestMismatchError,)),
    ("directory length", lambda p: len(p.data) - 12, (DigestMismatchError,)),
    ("directory magic", lambda p: len(p.data) - 8, (FormatError,)),
]


@pytest.mark.parametrize(("region", "at", "errors"), REGIONS, ids=[each[0] for each in REGIONS])
def test_damage_is_an_error_of_its_family(
    pack: FinishedPack,
    region: str,
    at: Callable[[FinishedPack], int],
    errors: tuple[type[VaultError], ...],
) -> None:
    """A FormatError where bytes make no sense, else a digest or key error."""
    damaged = bytearray(pack.data)
    damaged[at(pack)] ^= 2
    assert outcome(damaged) in errors


def block_bytes(pack: FinishedPack, number: int) -> slice:
    """Where a block lies."""
    block = pack.directory.blocks[number]
    return slice(block.offset, block.offset + block.stored)


def test_blocks_cannot_change_places() -> None:
    """Two blocks of equal size, exchanged within a pack."""
    pack = write([[b"A" * 500], [b"B" * 500]])
    first, second = block_bytes(pack, 0), block_bytes(pack, 1)
    swapped = bytearray(pack.data)
    swapped[first], swapped[second] = pack.data[second], pack.data[first]
    assert len(swapped) == len(pack.data)
    assert swapped != pack.data
    assert outcome(swapped) is DigestMismatchError


def test_blocks_cannot_come_from_another_pack() -> None:
    """The same content, session and counter; only the salt differs."""
    one, other = write([[b"A" * 500]]), write([[b"A" * 500]])
    spliced = bytearray(one.data)
    spliced[block_bytes(one, 0)] = other.data[block_bytes(other, 0)]
    assert outcome(spliced) is DigestMismatchError


def test_directories_cannot_come_from_another_pack() -> None:
    """Nor can a directory be a block or a block a directory: the flag differs."""
    one, other = write([[b"A" * 500]]), write([[b"A" * 500]])
    spliced = one.data[: one.directory.stored_end] + other.data[other.directory.stored_end :]
    assert outcome(spliced) is DigestMismatchError


def test_packs_cannot_come_from_another_repository() -> None:
    """Same recipient, same domain key, another repository id."""
    other = bytes(16)
    foreign = write(BLOCKS, session=Session.new(other, [RECIPIENT.public_raw]), repository=other)
    assert outcome(foreign.data) is DigestMismatchError
    with pytest.raises(DigestMismatchError, match="commitment"):  # even with the seed
        read(write(BLOCKS, repository=other).data, seed=SESSION.seed)


def test_an_earlier_pack_stays_closed_to_its_host(pack: FinishedPack) -> None:
    """Holding another session's seed, or a key that is no recipient."""
    with pytest.raises(WrongKeyError):
        read(pack.data, recipient=RecipientKey.generate())
    with pytest.raises(DigestMismatchError):
        read(pack.data, seed=Session.new(REPOSITORY, [RECIPIENT.public_raw]).seed)


def test_only_packs_are_packs() -> None:
    """A domain object's header is not one."""
    header = Sealer.for_session(SESSION, ObjectType.DOMAIN, REPOSITORY).header
    with pytest.raises(FormatError, match="not a pack"):
        read(header.raw + bytes(100))


def test_a_poisoned_chunk_is_caught() -> None:
    """Right tags, right sizes, but the content is not what its id says."""
    writer = PackWriter(Sealer.for_session(SESSION, ObjectType.DATA, REPOSITORY), 3)
    ids = [name_of(b"good"), name_of(b"fine")]
    writer.add(writer.seal_block(writer.next_counter(), b"goodevil", ids, [4, 4]))
    with pytest.raises(DigestMismatchError, match=ids[1].hex()):
        read(writer.finish().data)


def test_a_data_chunk_never_passes_for_a_tree_chunk() -> None:
    """The pack's type is part of the id."""
    writer = PackWriter(Sealer.for_session(SESSION, ObjectType.TREE, REPOSITORY), 3)
    name = name_of(b"chunk", ObjectType.DATA)
    writer.add(writer.seal_block(writer.next_counter(), b"chunk", [name], [5]))
    with pytest.raises(DigestMismatchError, match="not what its id says"):
        read(writer.finish().data)


# --- what only a holder of the seed could make: hostile, but sealed ---


def forge(
    blocks: list[tuple[bytes, int, int]], lengths: list[int], directory: bytes | None = None
) -> bytes:
    """A sealed pack of those (frame, claimed raw length, chunk count)."""
    sealer = Sealer.for_session(SESSION, ObjectType.DATA, REPOSITORY)
    stored = [sealer.seal(n, frame) for n, (frame, _, _) in enumerate(blocks)]
    rows = [
        struct.pack("<III", len(sealed), raw, chunks)
        for sealed, (_, raw, chunks) in zip(stored, blocks, strict=True)
    ]
    plain = b"".join(
        [
            struct.pack("<I", len(rows)),
            *rows,
            struct.pack(f"<{len(lengths)}I", *lengths),
            bytes(32 * len(lengths)),
        ]
    )
    sealed = sealer.seal(
        DIRECTORY_COUNTER, compress(plain) if directory is None else directory, final=True
    )
    trailer = struct.pack("<I", len(sealed)) + b"VAULTDIR"
    return b"".join([sealer.header.raw, *stored, sealed, trailer])


def test_sealed_bombs_are_refused() -> None:
    """A block whose frame is larger than declared in the directory, or than any block."""
    frame = compress(bytes(9 << 20))
    with pytest.raises(FormatError, match="too large"):
        read(forge([(frame, 1000, 1)], [1000]))
    with pytest.raises(FormatError, match="impossible block"):
        read(forge([(frame, 9 << 20, 1)], [9 << 20]))
    with pytest.raises(DigestMismatchError, match="another size"):
        read(forge([(compress(bytes(2000)), 1000, 1)], [1000]))
    with pytest.raises(FormatError, match="too large"):
        read(forge([], [], directory=compress(bytes(9 << 20))))


@pytest.mark.parametrize(
    ("blocks", "lengths", "message"),
    [
        ([(compress(b"ab"), 2, 0)], [], "impossible block"),
        ([(compress(b""), 0, 1)], [1], "impossible block"),
        ([(compress(b"ab"), 2, 2)], [2, 0], "empty chunk"),
        ([(compress(b"ab"), 2, 1)], [1], "sum to its raw length"),
        ([(compress(b"ab"), 2, 2)], [2], "sum to its raw length"),
        ([(compress(b"ab"), 2, 1)], [2, 1], "sum up"),
        ([], [1], "sum up"),
    ],
    ids=["no chunk", "no bytes", "empty chunk", "short", "missing", "surplus", "no block"],
)
def test_contradictory_directories_are_refused(
    blocks: list[tuple[bytes, int, int]], lengths: list[int], message: str
) -> None:
    """Sealed by a trusted key and still not believed."""
    with pytest.raises(FormatError, match=message):
        read(forge(blocks, lengths))


def test_directory_sizes_are_capped() -> None:
    """Counts are compared with the bytes there before anything is made of them."""
    huge = struct.pack("<I", 2**32 - 1)
    with pytest.raises(FormatError, match="impossible size"):
        Directory.decode(huge + bytes(100), 96)
    many = struct.pack("<I", 0) + bytes(36 * (MAX_CHUNKS + 1))
    with pytest.raises(FormatError, match="impossible size"):
        Directory.decode(many, 96)
    block = struct.pack("<III", MAX_PACK, 1, 1)
    with pytest.raises(FormatError, match="sum up"):
        Directory.decode(
            struct.pack("<I", 2) + block * 2 + struct.pack("<II", 1, 1) + bytes(64), 96
        )


def test_blocks_must_fill_the_pack() -> None:
    """Bytes between the last block and the directory belong to nobody."""
    data = forge([(compress(b"ab"), 2, 1)], [2])
    length = struct.unpack("<I", data[-12:-8])[0]
    at = len(data) - 12 - length
    with pytest.raises(FormatError, match="do not fill"):
        read(data[:at] + b"hidden" + data[at:])


def test_impossible_sizes_are_refused_unread() -> None:
    """Nothing is fetched of a pack over the limit."""

    def never(offset: int, length: int) -> bytes:
        raise AssertionError

    for size in (0, 11, MAX_PACK + 1):
        with pytest.raises(FormatError, match="size"):
            read_directory(never, size, lambda header: Opener(header, b"", b""))


def test_short_answers_of_the_store_are_format_errors(pack: FinishedPack) -> None:
    """The listing says more than the store gives."""
    with pytest.raises(FormatError, match="cut short"):
        read_directory(
            lambda offset, length: bytes(pack.data[offset : offset + length]),
            len(pack.data) + 10_000,
            lambda header: Opener(header, SESSION.seed, REPOSITORY),
        )


# --- the writer's own limits ---


def writer_of_data() -> PackWriter:
    """An empty one."""
    return PackWriter(Sealer.for_session(SESSION, ObjectType.DATA, REPOSITORY), 1)


def test_blocks_are_added_in_order() -> None:
    """The counter under the tag is the place in the pack."""
    writer = writer_of_data()
    sealed = [writer.seal_block(writer.next_counter(), b"x", [bytes(32)], [1]) for _ in range(2)]
    with pytest.raises(VaultError, match="out of order"):
        writer.add(sealed[1])
    writer.add(sealed[0])
    with pytest.raises(VaultError, match="out of order"):
        writer.add(sealed[0])


@pytest.mark.parametrize(
    ("pieces", "ids", "lengths"),
    [
        ([], [], []),
        ([b""], [bytes(32)], [0]),
        ([b"ab"], [bytes(32)], [1]),
        ([b"ab"], [bytes(32)], [1, 1]),
        ([bytes(MAX_BLOCK + 1)], [bytes(32)], [MAX_BLOCK + 1]),
        (
            [bytes(MAX_BLOCK_CHUNKS + 1)],
            [bytes(32)] * (MAX_BLOCK_CHUNKS + 1),
            [1] * (MAX_BLOCK_CHUNKS + 1),
        ),
    ],
    ids=["nothing", "empty", "short", "ids", "large", "many"],
)
def test_impossible_blocks_are_not_sealed(
    pieces: list[bytes], ids: list[bytes], lengths: list[int]
) -> None:
    """A writer never makes what no reader takes."""
    with pytest.raises(VaultError, match="not one that a pack can hold"):
        writer_of_data().seal_block(0, b"".join(pieces), ids, lengths)


def test_packs_end_before_their_limits() -> None:
    """By bytes and by chunks."""
    writer = writer_of_data()
    block = SealedBlock(
        0, bytes(1 << 20), MAX_BLOCK_CHUNKS, [1] * MAX_BLOCK_CHUNKS, [bytes(32)] * MAX_BLOCK_CHUNKS
    )
    assert not writer.is_full(1 << 20)
    for counter in range(8):
        assert not writer.is_full(32 << 20)
        writer.add(block._replace(counter=counter))
    assert writer.is_full(1 << 20)
    assert writer.is_full(32 << 20)
    assert writer.chunk_count == MAX_CHUNKS // 2
    for counter in range(8, 16):
        writer.add(block._replace(counter=counter))
    with pytest.raises(VaultError, match="over its limit"):
        writer.add(block._replace(counter=16))


def test_a_writer_that_seals_wrongly_notices(monkeypatch: pytest.MonkeyPatch) -> None:
    """A block that would not open to the same bytes is never handed out."""
    monkeypatch.setattr(
        "vault.format.pack.compress", lambda raw, level: compress(bytes(len(raw)), level)
    )
    with pytest.raises(VaultError, match="does not open"):
        writer_of_data().seal_block(0, b"data", [bytes(32)], [4])


def test_a_directory_that_reads_back_differently_is_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Before the pack is stored."""
    writer = writer_of_data()
    writer.add(writer.seal_block(writer.next_counter(), b"data", [bytes(32)], [4]))
    wrong = dataclasses.replace(write([[b"data"]]).directory, ids=b"\1" * 32).encode()
    monkeypatch.setattr("vault.format.pack.compress", lambda raw, level: compress(wrong, level))
    with pytest.raises(VaultError):
        writer.finish()
