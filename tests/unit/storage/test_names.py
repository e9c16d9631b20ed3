"""Names of objects: made, parsed and matched in one place."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from vault.errors import ConfigError
from vault.model import Digest
from vault.storage.names import (
    MAX_OBJECT_NAME,
    claimed_digest,
    domain_object_name,
    evidence_name,
    index_name,
    inventory_name,
    is_drawn,
    is_pack,
    is_written,
    ledger_name,
    pack_digits,
    pack_name,
    page_name,
    parse_ledger_name,
    parse_page_name,
    probe_prefix,
    validate_name,
)

ROOT = Path(__file__).resolve().parents[3]
SPELLED = re.compile(
    r"(?<![a-z])(?:ledger|ledger-page|evidence|packs|index|inventory|domains|probe)/"
)
DIGEST = Digest(bytes(range(32)))


def test_ledger_names_round_trip() -> None:
    """16 digits, nothing else."""
    assert ledger_name(17) == "ledger/0000000000000017"
    assert parse_ledger_name(ledger_name(17)) == 17
    for name in ("ledger/17", "ledger/00000000000000017", "ledger/000000000000001x", "x"):
        assert parse_ledger_name(name) is None
    assert parse_ledger_name("ledger/٠٠٠٠٠٠٠٠٠٠٠٠٠٠٠٠") is None


def test_names_of_pages_sort_as_their_numbers() -> None:
    """As docs/format.md 2.5 writes them."""
    assert page_name(7) == "ledger-page/0000000007"
    assert parse_page_name(page_name(7)) == 7
    for name in ("ledger-page/7", "ledger-page/00000000071", "ledger/0000000007"):
        assert parse_page_name(name) is None


def test_pack_names() -> None:
    """Two digits of the digest, then all of it."""
    assert pack_name(bytes(range(32))) == f"packs/00/{bytes(range(32)).hex()}"
    assert pack_digits(pack_name(DIGEST)) == str(DIGEST)


def test_names_of_the_vault() -> None:
    """The digest is where the name says, and nowhere else."""
    digest = "ab" + "0" * 62
    assert claimed_digest(f"packs/ab/{digest}") == Digest.parse(digest)
    assert claimed_digest(f"index/web/{digest}") == Digest.parse(digest)
    for name in (f"packs/aa/{digest}", f"packs/{digest}", f"index/{digest}", f"x/{digest}\n"):
        assert claimed_digest(name) is None


def test_every_name_that_is_made_is_known_and_may_be_written() -> None:
    """The audit calls none of them foreign, and stores take them; others are foreign."""
    made = [ledger_name(0), page_name(0), pack_name(DIGEST), evidence_name(DIGEST)]
    made += [inventory_name(DIGEST), index_name("web", DIGEST), domain_object_name("web", DIGEST)]
    for name in made:
        assert is_written(name)
        assert validate_name(name) == name
    assert [name for name in made if claimed_digest(name) == DIGEST] == made[2:]
    for name in (f"{probe_prefix('ab')}x", "x", f"{made[0]}0", f"{made[2]}/x", "index/web"):
        assert not is_written(name)


def test_a_sample_is_drawn_from_what_looks_like_a_pack() -> None:
    """Also where the two digits are not the pack's: docs/format.md 2.4 does not compare them."""
    assert is_drawn(pack_name(DIGEST))
    assert is_drawn(f"packs/ff/{DIGEST}")
    assert not is_drawn(f"packs/{DIGEST}")
    assert not is_drawn(inventory_name(DIGEST))
    assert is_pack("packs/x")
    assert not is_pack(f"x{pack_name(DIGEST)}")


def test_names_over_the_limit_are_refused() -> None:
    """The longest that passes has exactly so many bytes."""
    assert validate_name("a" * MAX_OBJECT_NAME)
    for name in ("a" * (MAX_OBJECT_NAME + 1), "/a", "a/", "a//b", "../a", "A", ""):
        with pytest.raises(ConfigError, match="object name"):
            validate_name(name)


def test_no_other_module_spells_a_name() -> None:
    """A prefix or a pattern of its own would miss what is changed in names.py."""
    owner = ROOT / "vault/storage/names.py"
    modules = [*(ROOT / "vault").rglob("*.py"), *(ROOT / "cli").rglob("*.py")]
    spelled = [
        f"{module.relative_to(ROOT)}:{line}"
        for module in sorted(set(modules) - {owner})
        for line, text in strings(ast.parse(module.read_text()))
        if SPELLED.search(text)
    ]
    assert spelled == []
    assert any(SPELLED.search(text) for _, text in strings(ast.parse(owner.read_text())))


def strings(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Every string of a module with its line, docstrings left out."""
    said = {
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in said:
            yield node.lineno, node.value
