"""The passphrase of a sealed key file, from a file, a command or the terminal."""

import codecs
import getpass
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import click

from vault.crypto.token_uri import TokenUri
from vault.errors import ConfigError, WrongKeyError

_MAX_PASSPHRASE: Final = 4096  # bytes
_LEAST: Final = 12  # characters of a new passphrase, or
_WORDS: Final = 4  # different words


def ask_passphrase(
    what: str,
    *,
    file: str | None,
    command: str | None,
    confirm: bool,
    warn: Callable[[str], None],
) -> bytes:
    """The passphrase: the first line of a file or of a command's output, else from the terminal.

    Args:
        what: The thing that it opens; for the prompt.
        file: The value of ``VAULT_PASSPHRASE_FILE``; None or "" for none.
        command: The value of ``VAULT_PASSPHRASE_COMMAND``, for a shell; None or "" for none.
        confirm: Ask twice, for a new passphrase.
        warn: Receives a warning if others may read the file.

    Raises:
        WrongKeyError: None of them gives one.
        ConfigError: Both a file and a command are named, or the two that were typed differ.
    """
    if file and command:
        raise ConfigError(
            "both VAULT_PASSPHRASE_FILE and VAULT_PASSPHRASE_COMMAND are set", hint="unset one"
        )
    if file:
        return _first_line_of(Path(file), "passphrase file", warn)
    if command:
        return _passphrase_of(command)
    if not sys.stdin.isatty():
        raise WrongKeyError(
            f"no passphrase for {what}: there is no terminal to ask on",
            hint="VAULT_PASSPHRASE_FILE names a file whose first line is the passphrase,"
            " VAULT_PASSPHRASE_COMMAND a command that prints it",
        )
    secret = _ask(f"passphrase for {what}: ")
    if not secret:
        raise WrongKeyError(f"the passphrase for {what} is empty")
    if confirm and _ask("the same again: ") != secret:
        raise ConfigError("the two passphrases differ")
    return os.fsencode(secret)


def ask_pin(uri: TokenUri, *, warn: Callable[[str], None]) -> bytes:
    """The PIN of a token: the first line of the URI's ``pin-source``, else from the terminal.

    Args:
        uri: The key in the token.
        warn: Receives a warning if others may read the file.

    Raises:
        WrongKeyError: Neither gives one.
    """
    if uri.pin_file is not None:
        return _first_line_of(uri.pin_file, "PIN file", warn)
    if not sys.stdin.isatty():
        raise WrongKeyError(
            f"no PIN for {uri}: there is no terminal to ask on",
            hint="pin-source=file:/path in the URI names a file whose first line is the PIN",
        )
    secret = _ask(f"PIN for {uri}: ")
    if not secret:
        raise WrongKeyError(f"the PIN for {uri} is empty")
    return os.fsencode(secret)


def require_strong(passphrase: bytes) -> None:
    """Pass if a new passphrase has 12 characters or 4 different words; blanks at its ends are none.

    Raises:
        ConfigError: It is shorter: a thief of the key file would guess it.
    """
    text = os.fsdecode(passphrase).strip()
    words = len(set(text.split()))
    if len(text) < _LEAST and words < _WORDS:
        raise ConfigError(
            "the passphrase is too short: a thief of the key file would guess it",
            expected=f"{_LEAST} characters or {_WORDS} words",
            found=f"{len(text)} characters",
            hint="--weak-passphrase accepts it all the same",
        )


def slips(passphrase: bytes) -> list[str]:
    """Invisible additions to a passphrase, such as blanks; reveals nothing else of it."""
    found = []
    if passphrase.startswith((codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        found.append("begins with a byte-order mark")
    if passphrase[:1].isspace():
        found.append("begins with a blank")
    if passphrase[-1:].isspace():
        found.append("ends with a blank")
    if b"\0" in passphrase:
        found.append("has NUL bytes, as UTF-16 has")
    return found


def _first_line_of(path: Path, kind: str, warn: Callable[[str], None]) -> bytes:
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            line = file.readline(_MAX_PASSPHRASE + 1)
    except OSError as error:
        raise WrongKeyError(f"the {kind} {path} can't be read", found=error.strerror) from error
    if stat.S_ISREG(status.st_mode) and status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        warn(f"others may read the {kind} {path}: chmod 600 {path}")
    return _checked(line, f"the {kind} {path}")


def _passphrase_of(command: str) -> bytes:
    """The first line that a command prints; it may ask on the terminal itself.

    It prints into memory, and not into a pipe, which an agent that it leaves behind may hold open.
    """
    try:
        with open(os.memfd_create("passphrase"), "w+b") as printed:  # noqa: PTH123 - a descriptor has no path
            done = subprocess.run(["/bin/sh", "-c", command], stdout=printed, check=False)  # noqa: S603 - the user's own command
            printed.seek(0)
            line = printed.readline(_MAX_PASSPHRASE + 1)
    except OSError as error:
        raise WrongKeyError(
            "VAULT_PASSPHRASE_COMMAND can't be run", found=error.strerror
        ) from error
    if done.returncode:
        raise WrongKeyError(
            "VAULT_PASSPHRASE_COMMAND failed",
            found=f"exit status {done.returncode}",
            hint="run it in a shell to see why; its first line must be the passphrase",
        )
    return _checked(line, "what VAULT_PASSPHRASE_COMMAND prints")


def _checked(line: bytes, source: str) -> bytes:
    """A first line without its end.

    Raises:
        WrongKeyError: It is empty or too long.
    """
    secret = line.rstrip(b"\r\n")
    if not secret or len(line) > _MAX_PASSPHRASE:
        problem = "is empty" if not secret else f"is over {_MAX_PASSPHRASE} bytes long"
        raise WrongKeyError(f"the first line of {source} {problem}")
    return secret


def _ask(prompt: str) -> str:
    """The line that is typed, unseen; ends the prompt's line in any case."""
    try:
        return getpass.getpass(prompt)
    except (KeyboardInterrupt, EOFError):
        click.echo(err=True)
        raise
