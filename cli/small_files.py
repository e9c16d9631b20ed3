"""Small files that a person hands in, and small ones that a command hands out."""

import sys
from pathlib import Path

from vault.errors import ConfigError, LocalError
from vault.machine import durable


def read_file(path: Path, limit: int) -> bytes:
    """What a file holds.

    Args:
        path: Where it is.
        limit: Bytes that it may have.

    Raises:
        ConfigError: It is missing, or larger.
        LocalError: It can't be read.
    """
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except FileNotFoundError as error:
        raise ConfigError(f"there is no file {path}") from error
    except OSError as error:
        raise LocalError(f"can't read {path}", found=error.strerror) from error
    if len(data) > limit:
        raise ConfigError(f"{path} is too large", expected=f"at most {limit} bytes")
    return data


def hand_out(data: bytes, path: Path | None) -> None:
    """Write a file, in place of one of that name, or print to standard output.

    What is no file, such as /dev/null or a pipe, is written into: root could put a file in its
    place.

    Raises:
        LocalError: It can't be written; a file that was there is as it was.
    """
    try:
        if path is None:
            sys.stdout.buffer.write(data)
            sys.stdout.flush()
        elif path.exists() and not path.is_file():
            path.write_bytes(data)
        else:
            durable.replace(path, data)
    except OSError as error:
        raise LocalError(f"can't write {path or 'the result'}", found=error.strerror) from error
