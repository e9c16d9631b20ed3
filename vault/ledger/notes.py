"""Checkpoints as bytes: signed notes and cosignatures of C2SP (docs/format.md 2.8). Pure.

A note is text and the signatures below it. Its text has three lines: the origin, which names the
log; the size of the tree; its root. A log signs the text by ECDSA P-256, so that `openssl dgst`
checks it; a witness cosigns it by Ed25519, with the time at which it did.
"""

import dataclasses
import hashlib
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from vault.crypto.keys import VerifyKey, WitnessKey, is_cosigned
from vault.encoding import b64decode_strict, b64encode
from vault.errors import FormatError
from vault.model import Digest

MAX_NOTE: Final = 16_384  # bytes
MAX_SIZE: Final = 10**16 - 1  # of a tree: seq has 16 digits
_MAX_LINES: Final = 64  # signatures below one text
_DASH: Final = "\u2014"
_NAME: Final = r"[A-Za-z0-9._/:@~-]{1,128}"
_LINE: Final = re.compile(rf"{_DASH} ({_NAME}) ([A-Za-z0-9+/=]{{1,1024}})")
_ORIGIN: Final = re.compile(r"vault/[0-9a-f]{32}/[0-9a-f]{16}")
_NUMBER: Final = re.compile(r"[1-9][0-9]{0,15}")
_VKEY: Final = re.compile(rf"({_NAME})\+([0-9a-f]{{8}})\+([A-Za-z0-9+/=]{{1,256}})")
_ECDSA: Final = b"\x02"  # types of keys in verifier keys
_COSIGNATURE: Final = b"\x04"
_MARK: Final = 4  # bytes of a key's hash before each signature
_TIME: Final = 8  # bytes of a cosignature's time
_LAST: Final = 2**33  # seconds; no clock is beyond


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class NoteSignature:
    """One line below a note."""

    name: str  # of the key
    mark: bytes  # 4 bytes of its hash: which key of that name
    data: bytes

    @property
    def line(self) -> str:
        """As it stands in the note, with its end."""
        return f"{_DASH} {self.name} {b64encode(self.mark + self.data)}\n"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SignedNote:
    """The text of a checkpoint, and the signatures that came with it; nothing is verified yet."""

    origin: str
    size: int  # statements from the first
    root: Digest  # of the tree over their digests
    signatures: tuple[NoteSignature, ...] = ()

    @property
    def text(self) -> bytes:
        """What is signed."""
        return f"{self.origin}\n{self.size}\n{b64encode(self.root)}\n".encode()

    def encode(self) -> bytes:
        """As stored."""
        lines = "".join(signature.line for signature in self.signatures)
        return self.text + b"\n" + lines.encode()

    def with_lines(self, signatures: Sequence[NoteSignature]) -> "SignedNote":
        """The same text with these signatures added, each once."""
        united = dict.fromkeys((*self.signatures, *signatures))
        return dataclasses.replace(self, signatures=tuple(united))


def parse_note(data: bytes) -> SignedNote:
    """The inverse of `SignedNote.encode`.

    Raises:
        FormatError: No note of docs/format.md 2.8.
    """
    if len(data) > MAX_NOTE:
        raise FormatError("note is too large", expected=MAX_NOTE, found=len(data))
    try:
        text, gap, below = data.decode("utf-8").partition("\n\n")
    except UnicodeDecodeError as error:
        raise FormatError("note is not UTF-8") from error
    lines = text.split("\n")
    if not gap or not below.endswith("\n") or len(lines) != 3:
        raise FormatError("note has not three lines, an empty one and signatures")
    if not _ORIGIN.fullmatch(lines[0]) or not _NUMBER.fullmatch(lines[1]):
        raise FormatError("note names no log, or no size", found=repr(lines[:2])[:120])
    signed = below[:-1].split("\n")
    if len(signed) > _MAX_LINES:
        raise FormatError("note has too many signatures", expected=_MAX_LINES, found=len(signed))
    return SignedNote(
        origin=lines[0],
        size=int(lines[1]),
        root=Digest(b64decode_strict(lines[2])),
        signatures=tuple(map(_parse_line, signed)),
    )


def _parse_line(line: str) -> NoteSignature:
    match = _LINE.fullmatch(line)
    data = b64decode_strict(match[2]) if match else b""
    if match is None or len(data) <= _MARK:
        raise FormatError("note has a line that is no signature", found=repr(line[:120]))
    return NoteSignature(name=match[1], mark=data[:_MARK], data=data[_MARK:])


# --- the log ---


def log_origin(repository: str, key_id: str) -> str:
    """The name of a log: another key, or another repository, is another log."""
    return f"vault/{repository}/{key_id[:16]}"


def log_mark(key: VerifyKey) -> bytes:
    """What stands before a log's signatures."""
    return bytes.fromhex(key.id)[:_MARK]


def is_logged(note: SignedNote, key: VerifyKey) -> bool:
    """Whether the log's key signed a note of that log."""
    mark = log_mark(key)
    return note.origin.endswith(f"/{key.id[:16]}") and any(
        (each.name, each.mark) == (note.origin, mark) and key.verify(each.data, note.text)
        for each in note.signatures
    )


def log_vkey(origin: str, key: VerifyKey) -> str:
    """The verifier key of a log, which its witnesses are set up with."""
    return f"{origin}+{log_mark(key).hex()}+{b64encode(_ECDSA + key.der)}"


def log_vkey_parts(vkey: str) -> tuple[str, VerifyKey]:
    """Origin and key of a log's verifier key.

    Raises:
        FormatError: It is none.
    """
    name, mark, key = _vkey_parts(vkey, _ECDSA)
    public = VerifyKey.from_der(key)
    if mark != log_mark(public) or not name.endswith(f"/{public.id[:16]}"):
        raise FormatError("verifier key of a log has another hash or name", found=vkey[:200])
    if not _ORIGIN.fullmatch(name):
        raise FormatError("verifier key names no log of a vault", found=name[:120])
    return name, public


# --- witnesses ---


def witness_mark(name: str, public_raw: bytes) -> bytes:
    """What stands before a witness's signatures."""
    hashed = hashlib.sha256(name.encode() + b"\n" + _COSIGNATURE + public_raw)
    return hashed.digest()[:_MARK]


def witness_vkey(name: str, public_raw: bytes) -> str:
    """The verifier key of a witness, which a root lists."""
    mark = witness_mark(name, public_raw)
    return f"{name}+{mark.hex()}+{b64encode(_COSIGNATURE + public_raw)}"


def vkey_parts(vkey: str) -> tuple[str, bytes]:
    """Name and raw Ed25519 public key (32) of a witness's verifier key.

    Raises:
        FormatError: It is no C2SP verifier key for cosignatures.
    """
    name, mark, key = _vkey_parts(vkey, _COSIGNATURE)
    if len(key) != 32:
        raise FormatError("verifier key is no Ed25519 key", expected="32 bytes", found=len(key))
    expected = witness_mark(name, key)
    if mark != expected:
        raise FormatError(
            "verifier key has another hash", expected=expected.hex(), found=mark.hex()
        )
    return name, key


def _vkey_parts(vkey: str, kind: bytes) -> tuple[str, bytes, bytes]:
    match = _VKEY.fullmatch(vkey)
    key = b64decode_strict(match[3]) if match else b""
    if match is None or key[:1] != kind:
        what = "a witness, Ed25519" if kind == _COSIGNATURE else "a log, ECDSA P-256"
        raise FormatError(
            "no verifier key", expected=f"NAME+HASH+KEY of {what} (C2SP)", found=vkey[:200]
        )
    return match[1], bytes.fromhex(match[2]), key[1:]


def cosign(note: SignedNote, name: str, key: WitnessKey, now: datetime) -> NoteSignature:
    """The line of a witness below a note."""
    seconds = int(now.timestamp())
    signature = key.sign(_cosigned_text(note, seconds))
    return NoteSignature(
        name=name,
        mark=witness_mark(name, key.public_raw),
        data=seconds.to_bytes(_TIME, "big") + signature,
    )


def cosigned_at(note: SignedNote, name: str, public_raw: bytes) -> datetime | None:
    """When that witness cosigned a note last, by its own clock; None if it did not."""
    mark = witness_mark(name, public_raw)
    times = [
        seconds
        for each in note.signatures
        if (each.name, each.mark) == (name, mark)
        and (seconds := int.from_bytes(each.data[:_TIME], "big")) < _LAST
        and is_cosigned(public_raw, each.data[_TIME:], _cosigned_text(note, seconds))
    ]
    return datetime.fromtimestamp(max(times), UTC) if times else None


def _cosigned_text(note: SignedNote, seconds: int) -> bytes:
    return b"cosignature/v1\ntime %d\n%b" % (seconds, note.text)
