"""The content root of a tree, and the commitment to it that a manifest signs (docs/format.md 8)."""

import hashlib
import hmac


class ContentRoot:
    """SHA-256 over canonical entries in order: what a restore must reproduce."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def update(self, canonical: bytes) -> None:
        """Add the next entry's canonical part, or those of several in one piece."""
        self._hash.update(canonical)

    def digest(self) -> bytes:
        """The content root so far: 32 bytes."""
        return self._hash.digest()


def commitment(key: bytes, root: bytes) -> bytes:
    """HMAC-SHA-256 of the content root; without the key in the tree it confirms no guess."""
    return hmac.digest(key, root, "sha256")
