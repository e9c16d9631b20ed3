"""The stores that the contract runs over: those of `tests/support/stores.py`."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.stores import FACTORIES, SERVERS, StoreUnderTest, gap_of_moto
from vault.storage.base import ObjectStore


def _params(*here: str) -> list[Any]:
    return [*here, *(pytest.param(name, marks=pytest.mark.s3) for name in SERVERS)]


@pytest.fixture(params=_params("local", "memory", "moto"))
def under_test(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[StoreUnderTest]:
    """Each store in turn."""
    yield from _opened(request, tmp_path)


@pytest.fixture(params=_params("memory", "moto"))
def with_markers(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[StoreUnderTest]:
    """Each store that has delete markers; a directory has none."""
    yield from _opened(request, tmp_path)


def _opened(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[StoreUnderTest]:
    gap = gap_of_moto(request.node.name) if request.param == "moto" else None
    if gap:
        request.applymarker(pytest.mark.xfail(strict=True, reason=f"moto {gap}"))
    with FACTORIES[request.param](tmp_path / "repository") as under_test:
        yield under_test


@pytest.fixture
def store(under_test: StoreUnderTest) -> ObjectStore:
    """The store alone, for tests that need nothing else."""
    return under_test.store
