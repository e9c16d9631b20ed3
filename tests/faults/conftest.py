"""Faults of stores and processes; power cuts are not among them."""

import pytest


@pytest.fixture(autouse=True)
def _no_waits(no_fsync: None) -> None:
    """No test looks at what it is for."""
