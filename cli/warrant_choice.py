"""The request that an acting command rests on: a file that people signed, or a number."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from cli.small_files import hand_out
from vault.errors import ConfigError, LocalError, naming
from vault.ledger.request_files import (
    MAX_REQUEST_FILE,
    RequestFile,
    encode_request_file,
    parse_request_file,
)
from vault.machine import durable
from vault.repository.repository import Repository

_F = TypeVar("_F", bound=Callable[..., Any])


def warrant_option(command: _F) -> _F:
    """The option ``--warrant`` of a command that acts."""
    return click.option(
        "--warrant",
        metavar="FILE|SEQ",
        help="The request that people signed, or the statement that carries it.",
    )(command)


def chosen_request(repository: Repository, warrant: str | None) -> RequestFile | None:
    """The request that ``--warrant`` names, None without it.

    Its values are those of the file; a statement carries none.

    Raises:
        ConfigError: There is no such file, or the statement carries no request.
        LocalError: The file can't be read.
        IntegrityError: It is no request, or its values were changed.
    """
    if warrant is None:
        return None
    if not warrant.isdecimal():
        return load_request_file(Path(warrant))
    request = repository.ledger.carried(int(warrant))
    if request is None:
        raise ConfigError(
            f"ledger statement {int(warrant)} carries no request",
            hint="'vault approve list' shows those that do",
        )
    return RequestFile(request=request, values={})


def load_request_file(path: Path) -> RequestFile:
    """A request file; who signed it is not looked at.

    Raises:
        ConfigError: There is no such file.
        LocalError: It can't be read.
        IntegrityError: It is no request, or its values were changed.
    """
    try:
        with path.open("rb") as file, naming(path):
            return parse_request_file(file.read(MAX_REQUEST_FILE + 1))
    except FileNotFoundError as error:
        raise ConfigError(f"there is no file {path}") from error
    except OSError as error:
        raise LocalError(f"can't read {path}", found=error.strerror) from error


def save_request_file(path: Path, file: RequestFile) -> None:
    """Write a request file, in the place of the one before if there is one.

    Raises:
        LocalError: It can't be written.
    """
    hand_out(encode_request_file(file), path)


def save_new_request_file(path: Path, file: RequestFile) -> None:
    """Write a request file that was not there.

    Raises:
        ConfigError: There is such a file.
        LocalError: It can't be written.
    """
    durable.create_named(path, encode_request_file(file))


def agreed_text(agreed: RequestFile | None, name: str, given: str | None) -> str:
    """A text of the body: as given, else as people agreed to it, else empty."""
    if given is not None:
        return given
    value: Any = agreed.values.get(name) if agreed is not None else None
    return value if isinstance(value, str) else ""
