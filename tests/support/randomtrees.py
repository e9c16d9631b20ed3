"""Trees as a strategy, and a way to compare two of them that shares nothing with the vault."""

# ruff: noqa: PTH101, PTH102, PTH115, PTH118, PTH123, PTH211 - names are bytes, unknown to pathlib

import dataclasses
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

from hypothesis import strategies as st

MIN_CHUNK, AVERAGE_CHUNK, MAX_CHUNK = 1024, 2048, 8192  # of the repositories tested with
ODD_NAMES = (
    b"-rf", b"--", b" ", b"\xff\xfe", b"new\nline", b"\x1b[31mred", b"\x07", b"~", b"a\\b",
    b"x" * 255, "ünï".encode(), "u\u0308n".encode(), b"CON", b"...", b".hidden", b"a", b"A",
    b"lost+found", b"%s", b"'\"", b"a!", b"a.b", b"a\x01",
)  # fmt: skip
LINK_TARGETS = (
    b"nowhere",
    b"/etc/passwd",
    b"..",
    b"../../..",
    b"a/b",
    b".",
    b"\xff",
    b"/",
    b"a\nb",
)
_NEEDED_ACCESS = 0 if os.geteuid() == 0 else 0o700  # a plain user can't read what refuses its owner
TIMES = (0, 1, -1, -1_000_000_001, 1_600_000_000_123_456_789, 2_000_000_000_000_000_007)

# One node: a directory holds others by name; everything else is a leaf.
Tree: TypeAlias = "dict[bytes, Node]"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Node:
    """What is to be made."""

    kind: str  # "directory", "file", "symlink", "link", "fifo"
    mode: int = 0o644
    mtime: int = 0
    data: bytes = b""  # or target of a symlink
    hole: int = 0  # bytes before the data and after it
    number: int = 0  # which of the files made so far a hard link names
    members: Tree = dataclasses.field(default_factory=dict)


def _content(size: int, seed: int) -> bytes:
    """Bytes that the chunker cuts at other places for another seed; few seeds, so they repeat."""
    block = bytes((i * i * 31 + i * seed + (i >> 5) * 17) & 0xFF for i in range(4096))
    return (block * (size // 4096 + 1))[:size] if seed else bytes(size)


_SIZES = st.sampled_from(
    [0, 1, 2, MIN_CHUNK - 1, MIN_CHUNK, MIN_CHUNK + 1, AVERAGE_CHUNK, MAX_CHUNK, MAX_CHUNK + 1,
     3 * MAX_CHUNK + 7, 40_000]
)  # fmt: skip
_names = st.one_of(
    st.sampled_from(ODD_NAMES),
    st.binary(min_size=1, max_size=6).filter(
        lambda name: b"/" not in name and b"\0" not in name and name not in {b".", b".."}
    ),
)
_modes = st.sampled_from([0o644, 0o600, 0, 0o777, 0o4755, 0o2755, 0o1777, 0o6711, 0o444])
_mtimes = st.one_of(
    st.sampled_from(TIMES), st.integers(min_value=-(2**31) * 10**9, max_value=2**33 * 10**9)
)
_files = st.builds(
    lambda mode, mtime, size, seed, hole: Node(
        kind="file", mode=mode, mtime=mtime, data=_content(size, seed), hole=hole
    ),
    _modes, _mtimes, _SIZES, st.integers(0, 3), st.sampled_from([0, 0, 0, 4096, 70_000]),
)  # fmt: skip
_leaves = st.one_of(
    _files,
    _files,
    st.builds(
        lambda mtime, target: Node(kind="symlink", mtime=mtime, data=target),
        _mtimes,
        st.sampled_from(LINK_TARGETS),
    ),
    st.builds(lambda number: Node(kind="link", number=number), st.integers(0, 50)),
    st.builds(lambda mode, mtime: Node(kind="fifo", mode=mode, mtime=mtime), _modes, _mtimes),
)


def _directories(members: st.SearchStrategy[Node]) -> st.SearchStrategy[Node]:
    return st.builds(
        lambda mode, mtime, inner: Node(kind="directory", mode=mode, mtime=mtime, members=inner),
        _modes,
        _mtimes,
        st.dictionaries(_names, members, max_size=5),
    )


_nodes: st.SearchStrategy[Node] = st.recursive(_leaves, _directories, max_leaves=12)


def trees() -> st.SearchStrategy[Node]:
    """A top directory with anything below."""
    return st.builds(
        lambda mode, mtime, inner: Node(kind="directory", mode=mode, mtime=mtime, members=inner),
        _modes,
        _mtimes,
        st.dictionaries(_names, _nodes, min_size=1, max_size=6),
    )


def plant(node: Node, path: bytes) -> None:
    """Make the tree at ``path``, which must not exist."""
    files: list[bytes] = []
    _make(node, path, files)


def _make(node: Node, path: bytes, files: list[bytes]) -> None:
    if node.kind == "directory":
        os.mkdir(path)
        for name, member in node.members.items():
            _make(member, path + b"/" + name, files)
    elif node.kind == "symlink":
        os.symlink(node.data, path)
    elif node.kind == "fifo":
        os.mkfifo(path)
    elif node.kind == "link" and files:
        os.link(files[node.number % len(files)], path)
        return
    else:
        with open(path, "wb") as file:
            file.seek(node.hole)
            file.write(node.data)
            file.truncate(node.hole + len(node.data) + node.hole)
        files.append(path)
    if node.kind != "symlink":
        os.chmod(path, node.mode | _NEEDED_ACCESS)
    os.utime(path, ns=(node.mtime, node.mtime), follow_symlinks=False)


# --- an independent look ---

Look: TypeAlias = dict[bytes, tuple[Any, ...]]


def look(top: bytes | Path) -> Look:
    """Everything of a tree that a restore must give back, by os.walk, lstat and read."""
    top = os.fsencode(top)
    found: Look = {}
    inodes: dict[int, bytes] = {}
    for path in sorted(_walk(top)):
        status = os.lstat(path)
        kind = stat.S_IFMT(status.st_mode)
        content: Any = None
        if kind == stat.S_IFREG:
            with open(path, "rb") as file:
                content = file.read()
        elif kind == stat.S_IFLNK:
            content = os.readlink(path)
        group = inodes.setdefault(status.st_ino, path) if kind == stat.S_IFREG else path
        found[path[len(top) :]] = (
            kind,
            stat.S_IMODE(status.st_mode),
            status.st_uid,
            status.st_gid,
            status.st_mtime_ns,
            content,
            group[len(top) :],
        )
    return found


def _walk(top: bytes) -> Iterator[bytes]:
    yield top
    for folder, folders, files in os.walk(top):
        for name in (*folders, *files):
            yield os.path.join(folder, name)


def show_differences(one: Look, other: Look) -> str:
    """For an assertion's message."""
    lines = [
        f"{path!r}: {one.get(path, ())[:5]} / {other.get(path, ())[:5]}"
        for path in sorted({*one, *other})
        if one.get(path) != other.get(path)
    ]
    return "\n".join(lines[:20])
