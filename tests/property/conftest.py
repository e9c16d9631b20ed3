"""Many operations a test: none waits for the disk."""

import pytest


@pytest.fixture(autouse=True)
def _no_flush(no_syncfs: None) -> None:
    """No test looks at what it is for."""
