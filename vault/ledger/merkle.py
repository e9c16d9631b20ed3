"""The tree of RFC 6962 over the digests of a ledger's statements: entry i is that of statement i.

Pure. One root stands for all statements up to a size; a consistency proof shows that the tree of
one size is the beginning of another (docs/format.md 2.8).
"""

import functools
import hashlib
from collections.abc import Iterable, Sequence

from vault.model import Digest

MAX_PROOF = 64  # nodes: a tree of 2^63 entries needs no more


def leaf_hash(entry: bytes) -> bytes:
    """The node over one entry."""
    return hashlib.sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The node over two others."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def tree_root(entries: Sequence[bytes]) -> Digest:
    """The root over these entries, in their order; of none, the SHA-256 of nothing."""
    if not entries:
        return Digest.of(b"")
    return Digest(_root([leaf_hash(entry) for entry in entries]))


def tree_roots(entries: Sequence[bytes], sizes: Iterable[int]) -> dict[int, Digest]:
    """The roots over the first so many entries, for several sizes, in one pass."""
    wanted = sorted({size for size in sizes if 0 < size <= len(entries)}, reverse=True)
    found: dict[int, Digest] = {}
    whole: list[bytes] = []  # roots of whole subtrees, the largest first
    for size, entry in enumerate(entries[: wanted[0]] if wanted else (), 1):
        node = leaf_hash(entry)
        merged = size
        while not merged & 1:
            node, merged = node_hash(whole.pop(), node), merged >> 1
        whole.append(node)
        if size == wanted[-1]:
            wanted.pop()
            found[size] = Digest(functools.reduce(_under, reversed(whole)))
    return found


def _under(right: bytes, left: bytes) -> bytes:
    return node_hash(left, right)


def _root(level: list[bytes]) -> bytes:
    """The root over leaves: pair by pair, a node that has no neighbour goes up as it is."""
    while len(level) > 1:
        above = [node_hash(*level[at : at + 2]) for at in range(0, len(level) - 1, 2)]
        level = above + level[len(level) & ~1 :]
    return level[0]


def consistency_proof(entries: Sequence[bytes], old: int) -> list[bytes]:
    """The nodes which show that the tree of the first ``old`` entries begins the tree of all.

    RFC 6962, 2.1.2; empty for nothing and for all of them.
    """
    if not 0 < old < len(entries):
        return []
    return _prove([leaf_hash(entry) for entry in entries], old, known=True)


def _prove(leaves: list[bytes], old: int, *, known: bool) -> list[bytes]:
    """SUBPROOF of RFC 6962; ``known``: the reader has the root of exactly these leaves."""
    if old == len(leaves):
        return [] if known else [_root(leaves)]
    half = 1 << ((len(leaves) - 1).bit_length() - 1)
    if old <= half:
        return [*_prove(leaves[:half], old, known=known), _root(leaves[half:])]
    return [*_prove(leaves[half:], old - half, known=False), _root(leaves[:half])]


def is_consistent(
    old: int, old_root: bytes, new: int, new_root: bytes, proof: Sequence[bytes]
) -> bool:
    """Whether a proof shows that the tree of size ``old`` begins the one of size ``new``.

    RFC 9162, 2.1.4.2: a node too many or too few is no proof.
    """
    if old == new:
        return not proof and old_root == new_root
    if old == 0:
        return not proof and new > 0
    if old > new or not 0 < len(proof) <= MAX_PROOF:
        return False
    nodes = list(proof) if old & (old - 1) else [old_root, *proof]
    at, last = old - 1, new - 1
    while at & 1:
        at, last = at >> 1, last >> 1
    first = second = nodes[0]
    for node in nodes[1:]:
        if last == 0:
            return False
        if at & 1 or at == last:
            first, second = node_hash(node, first), node_hash(node, second)
            while at and not at & 1:
                at, last = at >> 1, last >> 1
        else:
            second = node_hash(second, node)
        at, last = at >> 1, last >> 1
    return last == 0 and (first, second) == (old_root, new_root)
