"""Trees to take snapshots of, and what is on a disk afterwards."""

import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeAlias

MakeSource: TypeAlias = Callable[..., Path]
Tree: TypeAlias = Mapping[str, bytes | str | None]  # files, targets of symlinks, directories


def make_tree(top: Path, *, files: int = 6, size: int = 12_000, seed: int = 1) -> Path:
    """A directory of files with bytes that neither compress nor repeat."""
    generator = random.Random(seed)
    for number in range(files):
        file = top / f"dir{number % 2}" / f"file{number}"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(generator.randbytes(size))
    (top / "empty").touch()
    (top / "link").symlink_to("dir0/file0")
    return top


def files_of(top: Path) -> dict[str, bytes]:
    """Bytes of every regular file below a directory, by path."""
    return {
        str(path.relative_to(top)): path.read_bytes()
        for path in top.rglob("*")
        if path.is_file() and not path.is_symlink()
    }


def plant_tree(top: Path, tree: Tree) -> None:
    """Make a small tree; directories are named before what is in them."""
    top.mkdir(exist_ok=True)
    for name, content in tree.items():
        match content:
            case bytes():
                (top / name).write_bytes(content)
            case str():
                (top / name).symlink_to(content)
            case None:
                (top / name).mkdir()


def read_tree(top: Path) -> Tree | None:
    """The inverse of `plant_tree`; None if there is nothing."""
    if not top.exists():
        return None
    return {
        str(path.relative_to(top)): str(path.readlink())
        if path.is_symlink()
        else path.read_bytes()
        if path.is_file()
        else None
        for path in sorted(top.rglob("*"))
    }
