"""The documents point at what exists."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("policies/*.md")])
LINK = re.compile(r"\]\(([^)#:]+)\)")
TEST_NAME = re.compile(r"`(?:(test_[a-z0-9_]+\.py)::)?(test_[a-z0-9_]+)`")
MODULE = re.compile(r"python[0-9.]* (?!-I)[^\n]*-m [^\n]*")
COMMAND = re.compile(r"`make ([a-z]+)`")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    """Every relative link is a file of the project."""
    assert [
        link for link in LINK.findall(page.read_text()) if not (page.parent / link).exists()
    ] == []


def test_tests_that_are_named_exist() -> None:
    """Every test that a document cites as evidence is there, once; else its file is named too."""
    defined: dict[str, list[str]] = {}
    for path in (ROOT / "tests").rglob("test_*.py"):
        for name in re.findall(r"^def (test_\w+)", path.read_text(), re.MULTILINE):
            defined.setdefault(name, []).append(path.name)
    named = {each for page in PAGES for each in TEST_NAME.findall(page.read_text())}
    assert named
    wrong = [
        (file, name, defined.get(name, []))
        for file, name in named
        if len([where for where in defined.get(name, []) if file in {"", where}]) != 1
    ]
    assert wrong == []


def test_each_attacker_has_its_tests() -> None:
    """Every section of "Who attacks" names a test, but for what is said to be open."""
    text = (ROOT / "docs/threat-model.md").read_text()
    attackers = text.partition("## Who attacks\n")[2].partition("\n## ")[0].split("\n### ")[1:]
    assert len(attackers) > 10
    assert [each.splitlines()[0] for each in attackers if not TEST_NAME.search(each)] == []


def test_make_targets_that_are_named_exist() -> None:
    """Every ``make`` target that a document names is in the Makefile."""
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {name for page in PAGES for name in COMMAND.findall(page.read_text())}
    assert named - targets == set()


def test_programs_are_started_without_the_current_directory() -> None:
    """``python -m`` runs what lies in the current directory, which may be another user's."""
    calls = [
        (str(path.relative_to(ROOT)), [getattr(part, "value", None) for part in node.elts])
        for folder in ("vault", "cli")
        for path in (ROOT / folder).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.List | ast.Tuple)
        and any(isinstance(part, ast.Attribute) and part.attr == "executable" for part in node.elts)
    ]
    assert calls  # the cache has one: else this looks for the wrong thing
    assert [call for call in calls if call[1][1] != "-I"] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_recipes_start_python_without_the_current_directory(page: Path) -> None:
    """But for what is run in the project's own directory by who works on it."""
    if page.name != "CONTRIBUTING.md":
        assert MODULE.findall(page.read_text()) == []
