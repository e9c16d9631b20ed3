"""Notes: their one spelling, and who signed them."""

import base64
import dataclasses
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

from vault.crypto.keys import SigningKey, WitnessKey
from vault.errors import FormatError
from vault.ledger.notes import (
    MAX_NOTE,
    NoteSignature,
    SignedNote,
    cosign,
    cosigned_at,
    is_logged,
    log_mark,
    log_origin,
    log_vkey,
    log_vkey_parts,
    parse_note,
    vkey_parts,
    witness_vkey,
)
from vault.model import Digest

NOW = datetime(2030, 1, 1, tzinfo=UTC)
REPOSITORY = "00112233445566778899aabbccddeeff"
LOG = SigningKey.generate()
WITNESS = WitnessKey.generate()


def note(size: int = 7, key: SigningKey = LOG) -> SignedNote:
    """Signed by its log."""
    origin = log_origin(REPOSITORY, key.public.id)
    unsigned = SignedNote(origin=origin, size=size, root=Digest.of(b"root"))
    return unsigned.with_lines([line(unsigned, key)])


def line(unsigned: SignedNote, key: SigningKey) -> NoteSignature:
    """Of the log."""
    mark = log_mark(key.public)
    return NoteSignature(name=unsigned.origin, mark=mark, data=key.sign(unsigned.text))


def test_a_note_is_read_as_it_was_written() -> None:
    """Text, then signatures; lines of a witness are added once."""
    signed = note()
    cosigned = signed.with_lines([cosign(signed, "w", WITNESS, NOW)] * 2)
    assert parse_note(cosigned.encode()) == cosigned
    assert len(cosigned.signatures) == 2


@pytest.mark.parametrize(
    "change",
    [
        (b"\n7\n", b"\n07\n"),
        (b"\n7\n", b"\n+7\n"),
        (b"\n7\n", b"\n0\n"),
        (b"\n7\n", b"\n" + b"7" * 17 + b"\n"),
        (b"vault/", b"Vault/"),
        (b"\n\n", b"\nmore\n\n"),
        (b"\n\n", b"\n"),
        ("\u2014 ".encode(), b"- "),
        (b"\n\n", b"\n\n\n"),
        (b"=\n\n", b"\n\n"),
    ],
)
def test_what_is_spelled_otherwise_is_no_note(change: tuple[bytes, bytes]) -> None:
    """Numbers, lines, dashes and base64 have one form."""
    data = note().encode()
    changed = data.replace(*change, 1)
    assert changed != data
    with pytest.raises(FormatError):
        parse_note(changed)


@pytest.mark.parametrize(
    "data",
    [b"", b"\xff", b"x" * (MAX_NOTE + 1), note().encode()[:-1], note().text + b"\n"],
)
def test_what_is_no_note_is_refused(data: bytes) -> None:
    """Nothing, not UTF-8, too long, cut, unsigned."""
    with pytest.raises(FormatError):
        parse_note(data)


def test_only_the_log_s_key_signs_for_the_log() -> None:
    """Not another key under its name, nor the key for another size or another log."""
    signed, other = note(), SigningKey.generate()
    assert is_logged(signed, LOG.public)
    forged = SignedNote(origin=signed.origin, size=7, root=signed.root)
    assert not is_logged(forged.with_lines([line(forged, other)]), LOG.public)
    assert not is_logged(dataclasses.replace(signed, size=8), LOG.public)
    assert not is_logged(note(key=other), LOG.public)


def test_a_witness_is_known_by_name_and_key() -> None:
    """With the time in its line; a changed time is no cosignature, the newest counts."""
    signed = note()
    made = cosign(signed, "w", WITNESS, NOW)
    cosigned = signed.with_lines([made])
    assert cosigned_at(cosigned, "w", WITNESS.public_raw) == NOW
    assert cosigned_at(cosigned, "v", WITNESS.public_raw) is None
    assert cosigned_at(cosigned, "w", WitnessKey.generate().public_raw) is None
    later = dataclasses.replace(made, data=bytes(7) + b"\x01" + made.data[8:])
    assert cosigned_at(signed.with_lines([later]), "w", WITNESS.public_raw) is None
    newest = cosigned.with_lines([cosign(signed, "w", WITNESS, NOW.replace(hour=1))])
    assert cosigned_at(newest, "w", WITNESS.public_raw) == NOW.replace(hour=1)


def test_verifier_keys_say_their_names_and_keys() -> None:
    """Both kinds; a changed character is refused."""
    vkey = witness_vkey("auditor.example/w1", WITNESS.public_raw)
    assert vkey_parts(vkey) == ("auditor.example/w1", WITNESS.public_raw)
    origin = note().origin
    assert log_vkey_parts(log_vkey(origin, LOG.public)) == (origin, LOG.public)
    for wrong in (vkey[:-1], "x" + vkey, vkey.replace("+", "-", 1), "", "a+b+c"):
        with pytest.raises(FormatError):
            vkey_parts(wrong)
    with pytest.raises(FormatError):
        log_vkey_parts(vkey)
    with pytest.raises(FormatError):
        log_vkey_parts(log_vkey(f"vault/{REPOSITORY}/{'0' * 16}", LOG.public))


def test_openssl_checks_a_note(tmp_path: Path) -> None:
    """The text is what stands before the empty line, the signature is DER behind four bytes."""
    signed = note()
    (tmp_path / "note").write_bytes(signed.encode())
    pem = base64.encodebytes(LOG.public.der).decode()
    (tmp_path / "log.pem").write_text(
        f"-----BEGIN PUBLIC KEY-----\n{pem}-----END PUBLIC KEY-----\n"
    )
    script = """
        awk 'NF==0{exit}{print}' note > text
        awk 'NF==0{s=1;next} s==1{print $3; exit}' note | base64 -d | tail -c +5 > signature
        openssl dgst -sha256 -verify log.pem -signature signature text
    """
    done = subprocess.run(
        ["sh", "-ec", script], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout.strip()) == (0, "Verified OK"), done.stderr
