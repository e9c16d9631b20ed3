"""Header, session, sealer and opener."""

import contextlib
import dataclasses
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vault.crypto.keys import RecipientKey
from vault.crypto.sealed import (
    HEADER_PREFIX,
    MAX_HEADER,
    Header,
    Opener,
    Sealer,
    Session,
    header_length,
    open_seed,
    open_whole,
    seal_whole,
)
from vault.errors import (
    ConfigError,
    DigestMismatchError,
    FormatError,
    VaultError,
    WrongKeyError,
)
from vault.model import ObjectType

REPOSITORY = bytes(range(16))


@pytest.fixture(scope="module")
def recipient() -> RecipientKey:
    """One recovery key."""
    return RecipientKey.generate()


@pytest.fixture(scope="module")
def session(recipient: RecipientKey) -> Session:
    """A run sealed to that key and another."""
    return Session.new(REPOSITORY, [RecipientKey.generate().public_raw, recipient.public_raw])


# --- header ---


def test_header_round_trips(session: Session) -> None:
    """What was built is what is parsed, whatever follows."""
    header = Sealer.for_session(session, ObjectType.TREE, REPOSITORY).header
    assert header.session_id == session.id
    assert header.sealed == session.sealed
    assert header_length(header.raw[:HEADER_PREFIX]) == header.length == len(header.raw)
    assert Header.parse(header.raw + b"blocks") == header
    assert Header.parse(memoryview(header.raw)) == header


def patched(raw: bytes, at: int, value: bytes) -> bytes:
    """The bytes with some replaced."""
    return raw[:at] + value + raw[at + len(value) :]


@pytest.mark.parametrize(
    ("at", "value", "message"),
    [
        (0, b"X", "not a sealed object"),
        (8, struct.pack("<I", 95), "length"),
        (8, struct.pack("<I", MAX_HEADER + 1), "length"),
        (8, struct.pack("<I", 2499), "recipients|seed"),
        (8, struct.pack("<I", 2501), "cut short"),
        (12, b"\2", "format"),
        (13, b"\2", "suite: expected 1, found 2"),
        (14, b"\0", "type"),
        (14, b"\6", "type"),
        (14, b"\3", "number of recipients"),
        (15, b"\0", "number of recipients"),
        (15, b"\1", "bytes after"),
        (15, b"\3", "ends within"),
        (15, b"\x11", "number of recipients"),
        (128, struct.pack("<H", 4097), "sealed seed"),
        (128, struct.pack("<H", 0xFFFF), "sealed seed"),
    ],
)
def test_malformed_headers_are_named(session: Session, at: int, value: bytes, message: str) -> None:
    """Each field is checked before it is used."""
    raw = Sealer.for_session(session, ObjectType.DATA, REPOSITORY).header.raw
    assert len(raw) == 2500
    with pytest.raises(FormatError, match=message):
        Header.parse(patched(raw, at, value))


def test_sealed_seeds_are_capped(session: Session) -> None:
    """4096 bytes leave room for later suites; more is refused though the header has it."""
    sealer = Sealer.for_session(session, ObjectType.DATA, REPOSITORY)
    name = session.sealed[0][0]

    def build(size: int) -> Header:
        return Header.build(
            kind=ObjectType.DATA,
            session_id=session.id,
            salt=sealer.header.salt,
            commitment=sealer.header.commitment,
            sealed=((name, bytes(size)),),
        )

    assert build(4096).sealed == ((name, bytes(4096)),)
    with pytest.raises(FormatError, match="sealed seed"):
        build(4097)


def test_cut_headers_are_format_errors(session: Session) -> None:
    """At every length."""
    raw = Sealer.for_session(session, ObjectType.DATA, REPOSITORY).header.raw
    for length in (0, 7, 11, 12, 95, 96, 130, len(raw) - 1):
        with pytest.raises(FormatError):
            Header.parse(raw[:length])


@given(st.binary(max_size=300))
def test_arbitrary_headers_end_in_format_errors(tail: bytes) -> None:
    """Never another exception, never a header of more bytes than given."""
    data = b"VAULTOBJ" + tail
    with contextlib.suppress(FormatError):
        assert len(Header.parse(data).raw) <= len(data)


def test_index_header_has_no_session(session: Session) -> None:
    """Its session id is zero and its recipients are none."""
    raw = Sealer.for_index(bytes(32), REPOSITORY).header.raw
    assert len(raw) == 96
    with pytest.raises(FormatError, match="session id"):
        Header.parse(patched(raw, 16, b"\1"))


# --- session and seal ---


def test_session_opens_for_each_recipient(session: Session, recipient: RecipientKey) -> None:
    """From the header alone."""
    header = Sealer.for_session(session, ObjectType.DATA, REPOSITORY).header
    assert open_seed(header, REPOSITORY, recipient) == session.seed


def test_session_opens_for_nobody_else(session: Session) -> None:
    """The error names who could."""
    header = Sealer.for_session(session, ObjectType.DATA, REPOSITORY).header
    with pytest.raises(WrongKeyError) as caught:
        open_seed(header, REPOSITORY, RecipientKey.generate())
    assert str(session.sealed[0][0])[:16] in str(caught.value)


def test_sealed_seed_is_bound_to_repository_and_session(
    session: Session, recipient: RecipientKey
) -> None:
    """Spliced into another repository or session it does not open."""
    header = Sealer.for_session(session, ObjectType.DATA, REPOSITORY).header
    with pytest.raises(DigestMismatchError):
        open_seed(header, bytes(16), recipient)
    with pytest.raises(DigestMismatchError):
        open_seed(Header.parse(patched(header.raw, 16, bytes(16))), REPOSITORY, recipient)


def test_a_host_cannot_open_packs_of_an_earlier_session(recipient: RecipientKey) -> None:
    """With all it holds: its own HPKE key, its domain's index key, the seed of the run it is in."""
    host = RecipientKey.generate()
    earlier = Session.new(REPOSITORY, [recipient.public_raw])
    later = Session.new(REPOSITORY, [recipient.public_raw])
    header = Sealer.for_session(earlier, ObjectType.DATA, REPOSITORY).header
    with pytest.raises(WrongKeyError):
        open_seed(header, REPOSITORY, host)
    for secret in (later.seed, b"index key".ljust(32), host.raw()[:32], host.raw()[64:]):
        with pytest.raises(DigestMismatchError):
            Opener(header, secret, REPOSITORY)


@pytest.mark.parametrize("count", [0, 17])
def test_sessions_have_one_to_sixteen_recipients(recipient: RecipientKey, count: int) -> None:
    """None would be data that nobody can read."""
    with pytest.raises(ConfigError):
        Session.new(REPOSITORY, [recipient.public_raw] * count)


def test_session_hides_its_seed(session: Session) -> None:
    """In repr."""
    assert session.seed.hex() not in repr(session)
    assert repr(session.seed)[2:-1] not in repr(session)


def test_every_object_has_a_salt_of_its_own(session: Session) -> None:
    """A retry of the same block never uses the same key and nonce again."""
    sealers = [Sealer.for_session(session, ObjectType.DATA, REPOSITORY) for _ in range(50)]
    assert len({sealer.header.salt for sealer in sealers}) == 50
    assert len({sealer.header.commitment for sealer in sealers}) == 50
    assert len({sealer.seal(0, b"block") for sealer in sealers}) == 50
    indexes = [Sealer.for_index(bytes(32), REPOSITORY) for _ in range(50)]
    assert len({sealer.seal(0, b"block") for sealer in indexes}) == 50


@pytest.mark.parametrize("at", [16, 40, 70, 90, 100, 128 + 5, 2499])
def test_every_header_byte_is_authenticated(
    session: Session, recipient: RecipientKey, at: int
) -> None:
    """Session id, salt, commitment, recipients and sealed seeds."""
    sealer = Sealer.for_session(session, ObjectType.DATA, REPOSITORY)
    sealed = sealer.seal(0, b"block")
    raw = sealer.header.raw
    header = Header.parse(patched(raw, at, bytes([raw[at] ^ 1])))
    with pytest.raises((DigestMismatchError, WrongKeyError)):
        Opener(header, open_seed(header, REPOSITORY, recipient), REPOSITORY).open(0, sealed)
    with pytest.raises(DigestMismatchError):  # with the seed known otherwise, too
        Opener(header, session.seed, REPOSITORY).open(0, sealed)


def test_type_is_part_of_the_key(session: Session) -> None:
    """A data pack does not open as a tree pack, nor as a domain object."""
    raw = Sealer.for_session(session, ObjectType.DATA, REPOSITORY).header.raw
    for kind in (ObjectType.TREE, ObjectType.DOMAIN):
        with pytest.raises(DigestMismatchError, match="commitment"):
            Opener(Header.parse(patched(raw, 14, bytes([kind]))), session.seed, REPOSITORY)


def test_commitment_is_checked_before_anything_opens(session: Session) -> None:
    """One ciphertext must not open under two keys: the header commits to one."""
    header = Sealer.for_session(session, ObjectType.DATA, REPOSITORY).header
    with pytest.raises(DigestMismatchError, match="commitment"):
        Opener(dataclasses.replace(header, commitment=bytes(32)), session.seed, REPOSITORY)
    with pytest.raises(DigestMismatchError, match="commitment"):
        Opener(header, session.seed, bytes(16))


def test_whole_objects_round_trip(session: Session) -> None:
    """One part, final; cut or flipped anywhere it is refused."""
    sealer = Sealer.for_session(session, ObjectType.DOMAIN, REPOSITORY)
    data = seal_whole(sealer, b"content")
    opener = Opener(Header.parse(data), session.seed, REPOSITORY)
    assert open_whole(data, opener) == b"content"
    for bad in (data[:-1], data + b"x", data[: sealer.header.length], data[:-20] + bytes(20)):
        with pytest.raises(DigestMismatchError):
            open_whole(bad, opener)


def test_a_writer_that_seals_wrongly_notices(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What does not open to the same bytes is never handed out."""
    sealer = Sealer.for_session(session, ObjectType.DOMAIN, REPOSITORY)
    monkeypatch.setattr(
        Sealer,
        "seal",
        lambda self, *_, **__: sealer._aead.seal(0, b"other", self.header.digest, final=True),
    )
    with pytest.raises(VaultError, match="does not open"):
        seal_whole(sealer, b"content")
