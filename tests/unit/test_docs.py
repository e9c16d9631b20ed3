"""The documents point at what exists."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("policies/*.md")])
LINK = re.compile(r"\]\(([^)#:]+)\)")
TEST_NAME = re.compile(r"`(test_[a-z0-9_]+)`")
COMMAND = re.compile(r"`make ([a-z]+)`")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    """Every relative link is a file of the project."""
    assert [
        link for link in LINK.findall(page.read_text()) if not (page.parent / link).exists()
    ] == []


def test_tests_that_are_named_exist() -> None:
    """Every test that a document cites as evidence is there."""
    defined = {
        name
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"^def (test_\w+)", path.read_text(), re.MULTILINE)
    }
    named = {name for page in PAGES for name in TEST_NAME.findall(page.read_text())}
    assert named - defined == set()


def test_make_targets_that_are_named_exist() -> None:
    """Every ``make`` target that a document names is in the Makefile."""
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {name for page in PAGES for name in COMMAND.findall(page.read_text())}
    assert named - targets == set()
