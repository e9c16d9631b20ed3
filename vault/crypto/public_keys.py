"""Public keys as files that people hand over: PEM, with lines before it that prove possession.

Programs such as ``openssl pkey -pubin`` pass over those lines (RFC 7468, 2).
"""

import dataclasses
import re
import textwrap
from typing import Final

from vault.crypto.keys import RECIPIENT_PUBLIC_SIZE, Signer, VerifyKey
from vault.encoding import b64decode_strict, b64encode
from vault.errors import FormatError, SignatureError

MAX_PUBLIC_FILE: Final = 64 << 10  # bytes
_DOMAIN: Final = b"vault/public-key/v1\0"
_BEGIN, _END = "-----BEGIN PUBLIC KEY-----", "-----END PUBLIC KEY-----"
_BLOCK: Final = re.compile(f"{_BEGIN}\\s+([A-Za-z0-9+/=\\s]+){_END}")
_LINE: Final = re.compile(r"^(proof|recipient): ([A-Za-z0-9+/=]{1,4096})\r?$", re.MULTILINE)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PublicFile:
    """What a file of a public key says."""

    key: VerifyKey
    recipient: bytes | None  # raw HPKE public key, of a recovery key
    proven: bool  # its holder signed it for this repository


def to_pem(key: VerifyKey) -> str:
    """The key as PEM, ended by a line end."""
    lines = "\n".join(textwrap.wrap(b64encode(key.der), 64))
    return f"{_BEGIN}\n{lines}\n{_END}\n"


def public_file(signer: Signer, repository: str, recipient: bytes | None = None) -> str:
    """The file that a holder hands over.

    Args:
        signer: The key; it signs the proof.
        repository: Id, 32 hex digits: for which the proof is good.
        recipient: Raw HPKE public key that belongs to it.
    """
    proof = signer.sign(_message(repository, recipient))
    lines = [f"key: {signer.public.id}", f"repository: {repository}", f"proof: {b64encode(proof)}"]
    if recipient is not None:
        lines.append(f"recipient: {b64encode(recipient)}")
    return "".join(f"{line}\n" for line in lines) + to_pem(signer.public)


def parse_public_file(text: str, repository: str) -> PublicFile:
    """Read such a file, or a plain PEM, which proves nothing.

    Raises:
        FormatError: It has no P-256 key in PEM, or several.
        SignatureError: The proof in it does not hold for this repository.
    """
    blocks = _BLOCK.findall(text)
    if len(blocks) != 1:
        raise FormatError("not a public key in PEM", expected=_BEGIN, found=repr(text[:40]))
    key = VerifyKey.from_der(b64decode_strict("".join(blocks[0].split())))
    said = dict(_LINE.findall(text))
    recipient = b64decode_strict(said["recipient"]) if "recipient" in said else None
    if recipient is not None and len(recipient) != RECIPIENT_PUBLIC_SIZE:
        raise FormatError("recipient's key has another size", found=len(recipient))
    if "proof" not in said:
        if recipient is not None:
            raise SignatureError("the file names a recipient without a proof")
        return PublicFile(key=key, recipient=None, proven=False)
    if not key.verify(b64decode_strict(said["proof"]), _message(repository, recipient)):
        raise SignatureError(
            "the proof in the file of a public key does not hold",
            found=key.id,
            hint="it was altered, or made for another repository",
        )
    return PublicFile(key=key, recipient=recipient, proven=True)


def _message(repository: str, recipient: bytes | None) -> bytes:
    return _DOMAIN + repository.encode("ascii") + b"\0" + (recipient or b"")
