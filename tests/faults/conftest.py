"""Faults of stores and processes; power cuts are not among them."""

import functools
import os

import lmdb
import pytest


@pytest.fixture(autouse=True)
def _no_fsync(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waiting for the disk is most of the time here, and no test looks at what it is for."""
    monkeypatch.setattr(lmdb, "open", functools.partial(lmdb.open, sync=False))
    monkeypatch.setattr(os, "fsync", lambda _: None)
