"""A tree with one of each, and how to stage it."""

import contextlib
import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from vault.format.content_root import ContentRoot
from vault.format.entry import Entry
from vault.format.entry_encoding import encode_canonical
from vault.model import EntryType, sort_key
from vault.restore.journal import Journals, Local, Subject
from vault.restore.stage import Stager, Staging
from vault.restore.syscalls import Fs
from vault.restore.target import inspect

Contents: TypeAlias = dict[bytes, bytes]
StageTree: TypeAlias = Callable[[int], dict[str, int]]
OpenStaging: TypeAlias = Callable[..., contextlib.AbstractContextManager[Staging]]

SUBJECT = Subject(repository="ab" * 16, snapshot=7, digest="cd" * 32)


def _file(path: bytes, data: bytes, *, mode: int = 0o644, mtime: int = 1_600_000_000_123_456_789,
          xattrs: tuple[tuple[bytes, bytes], ...] | None = None,
          holes: tuple[tuple[int, int], ...] | None = None) -> Entry:  # fmt: skip
    return Entry(
        path=path, type=EntryType.FILE, mode=mode, uid=os.geteuid(), gid=os.getegid(),
        mtime=mtime, size=len(data), sha256=hashlib.sha256(data).digest(), xattrs=xattrs,
        holes=holes,
    )  # fmt: skip


def _other(path: bytes, kind: EntryType, mode: int, mtime: int = 5, *, link: bytes | None = None,
           device: int | None = None) -> Entry:  # fmt: skip
    return Entry(
        path=path, type=kind, mode=mode, uid=os.geteuid(), gid=os.getegid(), mtime=mtime,
        link=link, device=device,
    )  # fmt: skip


@pytest.fixture
def contents() -> Contents:
    """Bytes of the regular files."""
    return {
        b"a/first": b"linked",
        b"big": bytes(range(256)) * 12_000,  # more than one piece, not a multiple of a page
        b"empty": b"",
        b"locked/inner/deep": b"in read-only directories",
        b"setid": b"#!/bin/sh\n",
        b"sparse": b"x" + bytes(1 << 20),
        b"unreadable": b"mode 0",
    }


@pytest.fixture
def entries(contents: Contents) -> list[Entry]:
    """One of each, in the tree's order; owned by whoever runs the test."""
    linked = _file(b"a/first", contents[b"a/first"])
    found = [
        _other(b"", EntryType.DIRECTORY, 0o755, 1_500_000_000_000_000_001),
        _other(b"a", EntryType.DIRECTORY, 0o700, -5_000_000_001),
        linked,
        _other(b"a!", EntryType.FIFO, 0o622),
        _other(b"b", EntryType.DIRECTORY, 0o2755, 7),
        Entry(
            path=b"b/second", type=EntryType.HARD_LINK, mode=linked.mode, uid=linked.uid,
            gid=linked.gid, mtime=linked.mtime, link=b"a/first",
        ),
        _file(b"big", contents[b"big"], xattrs=((b"user.one", b"1"), (b"user.two", b"\0\xff"))),
        _file(b"empty", b""),
        _other(b"link", EntryType.SYMLINK, 0o777, 9, link=b"/etc/passwd"),
        _other(b"locked", EntryType.DIRECTORY, 0o555, 11),
        _other(b"locked/inner", EntryType.DIRECTORY, 0o500, 13),
        _file(b"locked/inner/deep", contents[b"locked/inner/deep"]),
        _other(b"null", EntryType.CHARACTER_DEVICE, 0o666, device=os.makedev(1, 3)),
        _file(b"setid", contents[b"setid"], mode=0o6755),
        _file(b"sparse", contents[b"sparse"], holes=((4096, (1 << 20) + 1 - 4096),)),
        _file(b"unreadable", contents[b"unreadable"], mode=0),
    ]  # fmt: skip
    assert found == sorted(found, key=lambda entry: sort_key(entry.path))
    return found


@pytest.fixture
def expected(entries: list[Entry]) -> list[tuple[Entry | None, bytes]]:
    """What a tree stream gives: entries with their canonical bytes."""
    return [(entry, encode_canonical(entry)) for entry in entries]


@pytest.fixture
def root_digest(entries: list[Entry]) -> bytes:
    """The signed content root."""
    root = ContentRoot()
    for entry in entries:
        root.update(encode_canonical(entry))
    return root.digest()


@pytest.fixture
def stage_tree(entries: list[Entry], contents: Contents) -> StageTree:
    """Stages all entries below a descriptor; returns the omissions."""

    def stage(fd: int, fs: Fs | None = None) -> dict[str, int]:
        stager = Stager(fd, fs or Fs())
        for entry in entries:
            if entry.type is EntryType.DIRECTORY:
                stager.mkdir(entry.path)
            elif entry.type is EntryType.FILE:
                file = stager.create_file(entry.path)
                data = contents[entry.path]
                stager.write(file, 0, data[:4096] if entry.holes else data)
                stager.finish_file(file, entry)
            else:
                stager.make(entry)
        stager.finish_directories(e for e in entries if e.type is EntryType.DIRECTORY)
        left_out = stager.left_out
        stager.close()
        return left_out

    return stage


@pytest.fixture
def local(tmp_path_factory: pytest.TempPathFactory) -> Local:
    """This user's state directory, away from every target."""
    return Local(state=tmp_path_factory.mktemp("state"), host="here", user="me")


@pytest.fixture
def open_staging(local: Local) -> OpenStaging:
    """Opens a staging directory for a target, its journal held."""

    @contextlib.contextmanager
    def opened(target: Path, fs: Fs | None = None, **options: Any) -> Iterator[Staging]:
        calls = fs or Fs()
        found = inspect(target, **options)
        with (
            Journals(local.state, found.path, calls) as journals,
            Staging(
                found, "0123abcd", calls, journals=journals, subject=SUBJECT, local=local
            ) as staging,
        ):
            yield staging

    return opened


@pytest.fixture
def staging(tmp_path: Path, open_staging: OpenStaging) -> Iterator[Staging]:
    """An empty staging directory for ``tmp_path/target``."""
    with open_staging(tmp_path / "target") as opened:
        yield opened


@pytest.fixture(autouse=True)
def _writable_again(tmp_path: Path) -> Iterator[None]:
    """Lets pytest remove read-only directories."""
    yield
    for folder, _, _ in os.walk(tmp_path):
        if stat.S_IMODE(os.lstat(folder).st_mode) & 0o700 != 0o700:
            Path(folder).chmod(0o700)
