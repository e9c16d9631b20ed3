"""The tree hash: RFC 6962 over blocks of 1 MiB, and holes that cost nothing."""

import hashlib
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vault.format import tree_hash
from vault.format.tree_hash import TreeHash

BLOCK = 64
EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def _reference(data: bytes, block: int) -> bytes:
    """RFC 6962, 2.1, as it is written there."""

    def tree(leaves: list[bytes]) -> bytes:
        if not leaves:
            return hashlib.sha256().digest()
        if len(leaves) == 1:
            return hashlib.sha256(b"\0" + leaves[0]).digest()
        half = 1
        while half * 2 < len(leaves):
            half *= 2
        return hashlib.sha256(b"\1" + tree(leaves[:half]) + tree(leaves[half:])).digest()

    return tree([data[at : at + block] for at in range(0, len(data), block)])


sizes = st.integers(0, 20 * BLOCK) | st.sampled_from([0, BLOCK - 1, BLOCK, BLOCK + 1, 8 * BLOCK])


@settings(deadline=None, max_examples=300)
@given(parts=st.lists(st.tuples(st.booleans(), sizes), max_size=8), seed=st.integers(0, 99))
def test_it_is_the_hash_of_the_bytes_wherever_holes_are(
    parts: list[tuple[bool, int]], seed: int
) -> None:
    """Any mixture of data and holes, cut anywhere, against the definition."""
    dice = random.Random(seed)
    data, found = b"", TreeHash()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tree_hash, "BLOCK", BLOCK)
        patch.setattr(tree_hash, "_ZEROS", memoryview(bytes(BLOCK)))
        tree_hash._zero_subtree.cache_clear()
        for is_hole, size in parts:
            some = bytes(size) if is_hole else dice.randbytes(size)
            data += some
            if is_hole:
                found.zeros(size)
            else:
                found.update(some)
        digest = found.digest()
    tree_hash._zero_subtree.cache_clear()
    assert digest == _reference(data, BLOCK)


def test_known_values() -> None:
    """Of nothing, of a byte, of a block and a byte, as the definition gives them."""
    assert TreeHash().digest().hex() == EMPTY
    for data in b"x", bytes(1 << 20), b"y" * (1 << 20) + b"z":
        found = TreeHash()
        found.update(data)
        assert found.digest() == _reference(data, 1 << 20)


def test_a_hole_of_any_size_is_hashed_at_once() -> None:
    """8 EiB: two blocks are hashed, and as many nodes as the tree is high."""
    found = TreeHash()
    found.update(b"x")
    found.zeros((1 << 63) - 3)
    found.update(b"y")
    assert len(found.digest()) == 32
    assert len(found._subtrees) < 64
