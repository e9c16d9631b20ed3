"""The layout: neither files nor folders import each other in a circle."""

import ast
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import grimp
import pytest

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


def _renamed(path: Path) -> Iterator[tuple[str, str]]:
    """What of ours, in lower case as functions and modules are, a file imports by another name."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in _OURS:
            for each in node.names:
                if each.asname and each.name.islower():
                    yield f"{node.module}.{each.name}", each.asname


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
