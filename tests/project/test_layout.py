"""The layout: neither files nor folders import each other in a circle."""

import ast
import re
import sys
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import grimp
import pytest

from docs.rooms import with_map

TOP = Path(__file__).parents[2]

_OURS = {"vault", "cli"}
Arrows = Mapping[str, set[str]]


@pytest.fixture(scope="module")
def arrows() -> Arrows:
    """What every module of the program imports, wherever in the file the import stands."""
    graph = grimp.build_graph("vault", "cli", include_external_packages=False, cache_dir=None)
    return {name: graph.find_modules_directly_imported_by(name) for name in graph.modules}


def test_files_do_not_import_each_other_in_a_circle(arrows: Arrows) -> None:
    """There is an order in which every file comes after all that it imports."""
    assert _circle(arrows) == []


def test_folders_do_not_import_each_other_in_a_circle(arrows: Arrows) -> None:
    """Nor is there one if all files of a room are taken together."""
    rooms: dict[str, set[str]] = {}
    for importer, imported in arrows.items():
        room = _room(importer)
        rooms.setdefault(room, set()).update({_room(each) for each in imported} - {room})
    assert {"vault.repository", "vault.storage", "cli.commands", "cli.output"} <= set(rooms)
    assert _circle(rooms) == []


def test_a_circle_is_found() -> None:
    """The control: of three files one imports itself by way of another."""
    assert set(_circle({"a": {"b"}, "b": {"a", "c"}, "c": set()})) == {"a", "b"}


def test_one_word_names_one_thing() -> None:
    """What other modules may use has a name of its own: a search finds the one definition."""
    files = [*(TOP / "vault").rglob("*.py"), *(TOP / "cli").rglob("*.py")]
    places: dict[str, list[str]] = {}
    for path in files:
        for name in _public(path):
            places.setdefault(name, []).append(str(path.relative_to(TOP)))
    assert len(places) > 500
    assert {name: found for name, found in places.items() if len(found) > 1} == {}


def test_a_word_for_two_things_is_found(tmp_path: Path) -> None:
    """The control: classes, functions and constants are seen; what is private is left out."""
    path = tmp_path / "a.py"
    path.write_text(
        "A = 1\nB: int = 2\n_C = 3\nclass D: ...\ndef e(): ...\ndef _f(): ...\n", "ascii"
    )
    assert list(_public(path)) == ["A", "B", "D", "e"]


def test_no_function_is_renamed_where_it_is_imported(arrows: Arrows) -> None:
    """A search for the name that a caller uses finds the definition."""
    files = [*(TOP / "vault").rglob("*.py"), *(TOP / "cli").rglob("*.py")]
    assert len(files) > 100
    found = {(str(path.relative_to(TOP)), *each) for path in files for each in _renamed(path)}
    assert {each for each in found if each[1] not in arrows} == set()


def test_a_renamed_function_is_found(tmp_path: Path) -> None:
    """The control: of a class, a module of another library and a function, the last one is told."""
    path = tmp_path / "a.py"
    path.write_text(
        "from vault.a import A as B\nimport os as o\nfrom vault.b import c as d\n", "ascii"
    )
    assert list(_renamed(path)) == [("vault.b.c", "d")]


def test_the_map_of_rooms_is_what_their_docstrings_say() -> None:
    """`make docs` writes it."""
    page = (TOP / "CONTRIBUTING.md").read_text()
    assert page == with_map(page)
    assert all(f"| `vault/{room.name}` |" in page for room in (TOP / "vault").glob("[a-z]*/"))


def test_each_unit_test_stands_beside_its_module() -> None:
    """`tests/unit/a/test_b.py` is about `vault/a/b.py`; of the command line about `cli/`."""
    unit = TOP / "tests/unit"
    tests = [path.relative_to(unit) for path in unit.rglob("test_*.py")]
    assert len(tests) > 60
    assert [str(test) for test in tests if not _module_of(test).exists()] == []


def test_a_unit_test_without_a_module_is_found() -> None:
    """The control: of modules that are there, in each place one may be, and of one that is not."""
    there = [
        "test_patterns.py",
        "format/test_tree.py",
        "cli/test_main.py",
        "cli/output/test_page.py",
    ]
    assert all(_module_of(Path(each)).exists() for each in there)
    assert not _module_of(Path("format/test_trees.py")).exists()


def test_tests_share_by_tests_support_alone() -> None:
    """Neither a test nor a conftest is imported; what is shared imports no test either."""
    files = [path for path in (TOP / "tests").rglob("*.py") if path.parent.name != "mutants"]
    assert len(files) > 150
    found = {str(path.relative_to(TOP)): set(_tests_imported(path)) for path in files}
    assert {name: each for name, each in found.items() if each} == {}


def test_a_test_that_imports_a_test_is_found(tmp_path: Path) -> None:
    """The control: in each form that an import has, at the top and inside a function."""
    path = tmp_path / "test_a.py"
    path.write_text(
        "from tests.support.lab import Lab\nfrom tests.unit.test_b import c\n"
        "def f():\n    import tests.conftest\n    from tests.faults import test_d\n",
        "ascii",
    )
    assert list(_tests_imported(path)) == [
        "tests.unit.test_b.c", "tests.conftest", "tests.faults.test_d",
    ]  # fmt: skip


def test_an_oracle_imports_nothing_of_what_it_judges() -> None:
    """The second verifier, and the second retention decision, know pages, Python, and no more."""
    graph = grimp.build_graph("tests", include_external_packages=True, cache_dir=None)
    for oracle in ("tests.independent.verify_ledger", "tests.support.retention_reference"):
        modules = graph.find_modules_directly_imported_by(oracle)
        names = {each.split(".")[0] for each in modules}
        assert names <= sys.stdlib_module_names | {"cryptography"}


def test_each_dependency_is_imported_by_the_owners_that_its_page_names() -> None:
    """By no other module; and by each of them, so that the page forgets none."""
    page = (TOP / "docs/dependencies.md").read_text()
    graph = grimp.build_graph("vault", "cli", include_external_packages=True, cache_dir=None)
    needed = _owned(page)
    for package, owners in needed.items():
        importers = graph.find_modules_that_directly_import(package)
        assert {_owner(each, owners) for each in importers} == owners, package


def test_every_library_that_is_imported_stands_in_the_page() -> None:
    """What comes with Python, and what an owner's library brings, are not listed."""
    page = (TOP / "docs/dependencies.md").read_text()
    graph = grimp.build_graph("vault", "cli", include_external_packages=True, cache_dir=None)
    brought = {"botocore", "urllib3"}  # by boto3, whose owner alone may import them
    others = {each for each in graph.modules if "." not in each} - _OURS - sys.stdlib_module_names
    assert others - brought == set(_owned(page))


def _owned(page: str) -> dict[str, set[str]]:
    """The run-time and optional libraries of the page, each with the modules that may import it."""
    run_time, _, _ = page.partition("\n## For building")
    rows = re.findall(r"^\| (\w+) [\d.]+ \| [^|]+ \| ([^|]+) \|", run_time, re.MULTILINE)
    return {package: set(re.findall(r"`([\w/]+(?:\.py|/))`", owner)) for package, owner in rows}


def _owner(module: str, owners: set[str]) -> str:
    """The path of a module, or of the folder among the owners that it is in."""
    path = module.replace(".", "/") + ".py"
    return next((each for each in owners if each.endswith("/") and path.startswith(each)), path)


def _renamed(path: Path) -> Iterator[tuple[str, str]]:
    """What of ours, in lower case as functions and modules are, a file imports by another name."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in _OURS:
            for each in node.names:
                if each.asname and each.name.islower():
                    yield f"{node.module}.{each.name}", each.asname


def _tests_imported(path: Path) -> Iterator[str]:
    """What of the tests a file imports that is a test itself, or holds fixtures."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        match node:
            case ast.Import(names=names):
                imported = [each.name for each in names]
            case ast.ImportFrom(module=str(module), names=names):
                imported = [f"{module}.{each.name}" for each in names]
            case _:
                continue
        for name in imported:
            parts = name.split(".")
            if any(part == "conftest" or part.startswith("test_") for part in parts):
                yield name


def _module_of(test: Path) -> Path:
    """The module that a file of `tests/unit` is about."""
    top = TOP if test.parts[0] == "cli" else TOP / "vault"
    return top / test.parent / test.name.removeprefix("test_")


def _room(module: str) -> str:
    """The folder that a module is in; a file that is in no room counts for itself."""
    return ".".join(module.split(".")[:2])


def _circle(arrows: Arrows) -> list[str]:
    """The modules of one circle; empty if there is none."""
    try:
        TopologicalSorter(arrows).prepare()
    except CycleError as error:
        circle: list[str] = error.args[1]
        return circle
    return []


def _public(path: Path) -> Iterator[str]:
    """Names that a module defines at its top for others."""
    for node in ast.parse(path.read_text("utf-8")).body:
        match node:
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name):
                names = [name]
            case ast.Assign(targets=targets):
                names = [each.id for each in targets if isinstance(each, ast.Name)]
            case ast.AnnAssign(target=ast.Name(id=name)):
                names = [name]
            case _:
                names = []
        yield from (each for each in names if not each.startswith("_"))
