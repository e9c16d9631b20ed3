"""What a stream is stored as."""

import os

import pytest

from vault.errors import ConfigError
from vault.snapshot.stream import NamedStream, StandardInput


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b", "/a", "a\0b", "n" * 256, "ü" * 128], ids=lambda name: name[:9]
)
def test_a_stream_gets_no_name_that_a_restore_could_not_make(name: str) -> None:
    """Refused before anything is read of it; the longest that a directory can hold is taken."""
    with open(os.devnull, "rb") as file:  # noqa: PTH123 - a device
        given = StandardInput(file)
        NamedStream(name="n" * 255, stream=given)
        with pytest.raises(ConfigError, match="plain file name"):
            NamedStream(name=name, stream=given)
