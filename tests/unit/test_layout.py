"""The layout: neither files nor folders import each other in a circle."""

from collections.abc import Mapping
from graphlib import CycleError, TopologicalSorter

import grimp
import pytest

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
