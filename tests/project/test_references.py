"""What code says about documents is there: pages, sections, invariants, decisions."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CODE = sorted(
    [
        ROOT / "Makefile",
        *(ROOT / "docs").glob("*.py"),
        *(path for folder in ("vault", "cli", "tests") for path in (ROOT / folder).rglob("*.py")),
    ]
)
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
INVARIANTS = ROOT / "docs/invariants.md"

# docs/design.md "Snapshot", docs/format.md 2.1, 3 and "Appendix A"
SECTIONS = r"(?: \"[^\"]+\"| \d+(?:\.\d+)*)(?:(?:,| and|, and| to)(?: \"[^\"]+\"| \d+(?:\.\d+)*))*"
REFERENCE = re.compile(rf"(?<![\w/.\"'-])([a-z][\w/.-]{{0,60}}\.md)\b({SECTIONS})?")
INVARIANT = re.compile(r"\bI([0-9]{1,2})\b(?!\.)")
DECISION = re.compile(r"\bADR ([0-9]{4})\b")
OWN = Path(__file__).name


def text_of(path: Path) -> str:
    """On one line, so that a reference may go over the end of one."""
    return re.sub(r"\s*\n\s*(?:# )?", " ", path.read_text())


def headings(page: Path) -> list[str]:
    """Of a page, without their marks."""
    return re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)


def is_there(page: Path, section: str) -> bool:
    """Whether a heading begins with that number, or with these words."""
    if section[0].isdigit():
        return any(re.match(rf"{re.escape(section)}\.? ", each) for each in headings(page))
    return any(each.startswith(section.strip('"')) for each in headings(page))


def dangling(text: str) -> list[str]:
    """References that lead nowhere."""
    found = []
    for name, sections in REFERENCE.findall(text):
        page = ROOT / name
        if not page.is_file():
            found.append(name)
            continue
        named = re.findall(r"\"[^\"]+\"|\d+(?:\.\d+)*", sections)
        found += [f"{name} {section}" for section in named if not is_there(page, section)]
    numbers = {heading for heading in headings(INVARIANTS) if heading.startswith("I")}
    found += [f"I{number}" for number in INVARIANT.findall(text) if f"I{number}" not in numbers]
    found += [
        f"ADR {number}"
        for number in DECISION.findall(text)
        if not list(ROOT.glob(f"docs/adr/{number}-*.md"))
    ]
    return found


def test_what_code_refers_to_is_there() -> None:
    """Users have no other pages than those of the project."""
    found = {
        str(path.relative_to(ROOT)): wrong
        for path in CODE
        if path.name != OWN and (wrong := dangling(text_of(path)))
    }
    assert found == {}


@pytest.mark.parametrize(
    "text",
    [
        "docs/nowhere.md",
        "design.md 4",
        'docs/design.md "No such heading"',
        "docs/format.md 2.99",
        "docs/format.md 2.1, 3 and 99",
        "I14",
        "ADR 9999",
    ],
)
def test_a_reference_that_leads_nowhere_is_found(text: str) -> None:
    """Each kind; else the test above would pass whatever code says."""
    assert len(dangling(f"({text})")) == 1


@pytest.mark.parametrize(
    "text",
    ['docs/design.md "Snapshot"', "docs/format.md 2.1, 3 to 4 and 9", "I13", "ADR 0001"],
)
def test_a_reference_that_leads_somewhere_is_none(text: str) -> None:
    """The control."""
    assert dangling(f"({text})") == []


# --- docs/invariants.md ---


def sections() -> dict[str, str]:
    """Text of each invariant."""
    parts = re.split(r"^## (.+)$", INVARIANTS.read_text(), flags=re.MULTILINE)
    found = zip(parts[1::2], parts[2::2], strict=True)
    return {name: text for name, text in found if re.fullmatch(r"I\d+", name)}


def test_there_are_thirteen_invariants() -> None:
    """In their order, each once."""
    assert list(sections()) == [f"I{number}" for number in range(1, 14)]


@pytest.mark.parametrize("name", [f"I{number}" for number in range(1, 14)])
def test_an_invariant_names_its_modules_and_its_tests(name: str) -> None:
    """All of which exist; a rule that nothing keeps, or no test watches, is a wish."""
    text = sections()[name]
    modules = re.findall(r"`(vault/[\w/]+\.py)`", text)
    tests = re.findall(r"^- `(tests/[\w/]+\.py)::(test_\w+)`$", text, re.MULTILINE)
    assert modules
    assert [module for module in modules if not (ROOT / module).is_file()] == []
    assert tests
    assert len(tests) == text.count("\n- ")
    for path, test in tests:
        assert f"def {test}(" in (ROOT / path).read_text(), f"{path}::{test}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_that_a_page_names_exist(page: Path) -> None:
    """Code moves; pages must follow."""
    named = re.findall(r"`((?:vault|cli|tests|docs)/[\w/.-]*[\w-]\.[a-z]+)`", page.read_text())
    assert [path for path in named if not (ROOT / path).is_file()] == []
