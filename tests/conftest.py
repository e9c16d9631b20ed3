"""What tests of whole operations share: a clock, a repository with its keys, small sources."""

import functools
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lmdb
import pytest

from tests.support.lab import Clock, Lab, MakeRepository, make_lab
from tests.support.quick_disk import fsync_at_once
from tests.support.tokens import SoftToken, has_softhsm, make_token
from tests.support.trees import MakeSource, make_tree
from vault.ledger.records import Record
from vault.model import LockMode
from vault.restore.syscalls import Fs


def pytest_configure() -> None:
    """Let programs under test be stopped by signals, also where this run ignores them (nohup).

    A program that is started inherits what is ignored, and not what is caught.
    """
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, lambda *_: None)


@pytest.fixture(scope="session", autouse=True)
def _removable(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Locked objects in directories may be immutable: nobody could clean up.

    See docs/design.md "Stores".
    """
    yield
    if shutil.which("chattr") is not None:
        place = str(tmp_path_factory.getbasetemp())
        subprocess.run(["chattr", "-R", "-f", "-i", place], check=False, capture_output=True)


@pytest.fixture(autouse=True)
def no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test waits for the disk: only a power cut shows what that is for (tests/powercut).

    It is nine tenths of the time of most tests. A module that needs the disk defines this anew;
    programs that tests start wait as ever.
    """
    monkeypatch.setattr(lmdb, "open", functools.partial(lmdb.open, sync=False))
    monkeypatch.setattr(os, "fsync", fsync_at_once)


@pytest.fixture
def no_syncfs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flushing this machine's whole file system is not what is tested."""
    monkeypatch.setattr(Fs, "syncfs", lambda *_: None)


@pytest.fixture(scope="session")
def token(tmp_path_factory: pytest.TempPathFactory) -> SoftToken:
    """A token of SoftHSM with a key for each role."""
    if not has_softhsm():
        pytest.skip("no SoftHSM here")
    return make_token(tmp_path_factory.mktemp("token"))


@pytest.fixture
def clock() -> Clock:
    """A clock for the store and for everybody else."""
    return Clock()


@pytest.fixture
def make_repository(tmp_path: Path, clock: Clock) -> MakeRepository:
    """Makes a repository with its first writer; store and parameters as of `make_lab`."""

    def make(lock: LockMode = LockMode.NONE, *, name: str = "lab", **options: Any) -> Lab:
        return make_lab(tmp_path / name, clock, lock, **options)

    return make


@pytest.fixture
def lab(make_repository: MakeRepository) -> Lab:
    """An empty repository without locks."""
    return make_repository()


@pytest.fixture
def record(lab: Lab, source: Path) -> Record:
    """A snapshot of the source."""
    return lab.snapshot(source).record


@pytest.fixture
def make_source(tmp_path: Path) -> MakeSource:
    """Makes a tree of a name; see `make_tree`."""

    def make(name: str = "source", **options: int) -> Path:
        return make_tree(tmp_path / name, **options)

    return make
