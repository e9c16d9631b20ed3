"""The stores that the contract runs over.

To add one: write a factory that yields a `StoreUnderTest` and name it in `_FACTORIES`.
"""

import dataclasses
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from vault.storage.base import ObjectStore
from vault.storage.local import LocalStore
from vault.storage.memory import MemoryStore

START = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)


@dataclasses.dataclass(frozen=True, kw_only=True)
class StoreUnderTest:
    """A store and what the tests do to its surroundings."""

    store: ObjectStore
    advance: Callable[[timedelta], None]  # move the store's clock
    put_marker: Callable[[str], object] | None = None  # as an attacker would
    plant: Callable[[str, bytes], object] | None = None  # under a name the vault never writes


@dataclasses.dataclass
class _Clock:
    now: datetime = START

    def __call__(self) -> datetime:
        return self.now

    def advance(self, by: timedelta) -> None:
        self.now += by


@contextmanager
def _memory(path: Path) -> Iterator[StoreUnderTest]:
    clock = _Clock()
    store = MemoryStore(clock=clock)
    yield StoreUnderTest(
        store=store, advance=clock.advance, put_marker=store.put_marker, plant=store.plant
    )


@contextmanager
def _local(path: Path) -> Iterator[StoreUnderTest]:
    clock = _Clock()

    def plant(name: str, data: bytes) -> None:
        file = path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)

    store = LocalStore.create(path, clock=clock)
    yield StoreUnderTest(store=store, advance=clock.advance, plant=plant)
    # locked objects may be immutable, and the test run wants to remove its directory
    subprocess.run(["chattr", "-R", "-f", "-i", str(path)], check=False)


_FACTORIES: dict[str, Callable[[Path], AbstractContextManager[StoreUnderTest]]] = {
    "memory": _memory,
    "local": _local,
}


@pytest.fixture(params=sorted(_FACTORIES))
def under_test(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[StoreUnderTest]:
    """Each store in turn."""
    with _FACTORIES[request.param](tmp_path / "repository") as under_test:
        yield under_test


@pytest.fixture
def store(under_test: StoreUnderTest) -> ObjectStore:
    """The store alone, for tests that need nothing else."""
    return under_test.store
