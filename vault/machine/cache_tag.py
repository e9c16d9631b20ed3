"""CACHEDIR.TAG: says to backup programs that a directory can be left out (bford.info/cachedir)."""

import contextlib
import os
from pathlib import Path

NAME = b"CACHEDIR.TAG"
SIGNATURE = b"Signature: 8a477f597d28d172789f06886806bc55"
_TEXT = SIGNATURE + (
    b"\n# This directory belongs to vault, which makes its content again.\n"
    b"# About cache directory tags see https://bford.info/cachedir/\n"
)


def tag(directory: Path) -> None:
    """Tag a directory, if it is there and has no tag; one that can't be written stays without."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with contextlib.suppress(OSError):
        fd = os.open(os.fsencode(directory) + b"/" + NAME, flags, 0o644)
        with os.fdopen(fd, "wb") as file:
            file.write(_TEXT)
