"""The tree hash of a content: RFC 6962, 2.1, over blocks of 1 MiB (docs/format.md 8.2).

With SHA-256, a file that is mostly hole would take hours of hashing zeros. In a Merkle tree the
subtrees over zeros are known, so holes cost almost nothing.
"""

import hashlib
from functools import cache

from vault.model import Buffer

BLOCK = 1 << 20  # bytes
_LEAF = hashlib.sha256(b"\0")
_ZEROS = memoryview(bytes(BLOCK))


class TreeHash:
    """Hashes a content, given in order as to `hashlib`; holes are given as lengths.

    Memory holds one digest for each level.
    """

    def __init__(self) -> None:
        self._subtrees: list[tuple[int, bytes]] = []  # height and digest; heights descend
        self._leaf = _LEAF.copy()
        self._filled = 0  # bytes of the open leaf
        self._leaves = 0  # closed ones

    def update(self, data: Buffer) -> None:
        """Add the next bytes."""
        rest = memoryview(data)
        while rest:
            some = rest[: BLOCK - self._filled]
            self._leaf.update(some)
            self._filled += len(some)
            rest = rest[len(some) :]
            if self._filled == BLOCK:
                self._close_leaf()

    def zeros(self, size: int) -> None:
        """Add so many bytes that are zero; takes as long as hashing two blocks at most."""
        if self._filled:
            some = min(size, BLOCK - self._filled)
            self.update(_ZEROS[:some])
            size -= some
        blocks, rest = divmod(size, BLOCK)
        while blocks:
            height = blocks.bit_length() - 1
            if self._leaves:  # a subtree begins at a multiple of its size
                height = min(height, (self._leaves & -self._leaves).bit_length() - 1)
            self._push(height, _zero_subtree(height))
            blocks -= 1 << height
        if rest:
            self.update(_ZEROS[:rest])

    def digest(self) -> bytes:
        """The tree hash of all that was added: 32 bytes."""
        subtrees = [digest for _, digest in self._subtrees]
        if self._filled:
            subtrees.append(self._leaf.digest())
        if not subtrees:
            return hashlib.sha256().digest()
        found = subtrees.pop()
        while subtrees:
            found = _node(subtrees.pop(), found)
        return found

    def _close_leaf(self) -> None:
        digest, self._leaf, self._filled = self._leaf.digest(), _LEAF.copy(), 0
        self._push(0, digest)

    def _push(self, height: int, digest: bytes) -> None:
        self._leaves += 1 << height
        subtrees = self._subtrees
        while subtrees and subtrees[-1][0] == height:
            digest = _node(subtrees.pop()[1], digest)
            height += 1
        subtrees.append((height, digest))


def _node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\1" + left + right).digest()


@cache
def _zero_subtree(height: int) -> bytes:
    """The hash of a subtree over 2^height blocks of zeros."""
    if not height:
        leaf = _LEAF.copy()
        leaf.update(_ZEROS)
        return leaf.digest()
    below = _zero_subtree(height - 1)
    return _node(below, below)
