"""The tree of RFC 6962, by its vectors and by all small sizes."""

import hashlib

import pytest

from vault.ledger.merkle import consistency_proof, is_consistent, tree_root, tree_roots
from vault.model import Digest

# Certificate Transparency's own entries, and the roots over the first of them
CT_ENTRIES = [
    bytes.fromhex(each) for each in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657")
] + [bytes.fromhex("606162636465666768696a6b6c6d6e6f")]
CT_ROOTS = {
    0: "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    1: "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    2: "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    3: "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    7: "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    8: "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
}


@pytest.mark.parametrize("size", CT_ROOTS)
def test_ct_vectors(size: int) -> None:
    """The roots that Certificate Transparency publishes."""
    assert str(tree_root(CT_ENTRIES[:size])) == CT_ROOTS[size]


def test_every_proof_to_70_and_none_with_a_node_too_many() -> None:
    """Of every size to every larger one; one node more, fewer or other is no proof."""
    entries = [hashlib.sha256(bytes([at])).digest() for at in range(70)]
    roots = [tree_root(entries[:size]) for size in range(71)]
    assert tree_roots(entries, range(200)) == dict(enumerate(roots[1:], 1))
    other = bytes(32)
    for new in range(1, 71):
        for old in range(new + 1):
            proof = consistency_proof(entries[:new], old)
            assert is_consistent(old, roots[old], new, roots[new], proof)
            assert not is_consistent(old, roots[old], new, roots[new], [*proof, other])
            if old < new and old:
                assert not is_consistent(old, roots[old], new, roots[new], proof[:-1])
                assert not is_consistent(old, other, new, roots[new], proof)
                assert not is_consistent(old, roots[old], new, Digest(other), proof)
                assert not is_consistent(new, roots[new], old, roots[old], proof)
