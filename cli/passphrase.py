"""The passphrase of a sealed key file, from a file or from the terminal."""

import codecs
import getpass
import os
import stat
import sys
from collections.abc import Callable
from pathlib import Path

import click

from vault.errors import ConfigError, WrongKeyError

_MAX_PASSPHRASE = 4096  # bytes


def ask_passphrase(
    what: str, *, file: str | None, confirm: bool, warn: Callable[[str], None]
) -> bytes:
    """The passphrase, from a file's first line or else from the terminal.

    Args:
        what: The thing that it opens; for the prompt.
        file: The value of ``VAULT_PASSPHRASE_FILE``; None or "" to ask.
        confirm: Ask twice, for a new passphrase.
        warn: Receives a warning if others may read the file.

    Raises:
        WrongKeyError: Neither gives one.
    """
    if file:
        return _passphrase_in(Path(file), warn)
    if not sys.stdin.isatty():
        raise WrongKeyError(
            f"no passphrase for {what}: there is no terminal to ask on",
            hint="VAULT_PASSPHRASE_FILE names a file whose first line is the passphrase",
        )
    secret = _ask(f"passphrase for {what}: ")
    if not secret:
        raise WrongKeyError(f"the passphrase for {what} is empty")
    if confirm and _ask("the same again: ") != secret:
        raise ConfigError("the two passphrases differ")
    return os.fsencode(secret)


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


def _passphrase_in(path: Path, warn: Callable[[str], None]) -> bytes:
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            line = file.readline(_MAX_PASSPHRASE + 1)
    except OSError as error:
        raise WrongKeyError(
            f"the passphrase file {path} can't be read", found=error.strerror
        ) from error
    if stat.S_ISREG(status.st_mode) and status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        warn(f"others may read the passphrase file {path}: chmod 600 {path}")
    secret = line.rstrip(b"\r\n")
    if not secret or len(line) > _MAX_PASSPHRASE:
        problem = "is empty" if not secret else f"is over {_MAX_PASSPHRASE} bytes long"
        raise WrongKeyError(f"the first line of the passphrase file {path} {problem}")
    return secret


def _ask(prompt: str) -> str:
    """The line that is typed, unseen; ends the prompt's line in any case."""
    try:
        return getpass.getpass(prompt)
    except (KeyboardInterrupt, EOFError):
        click.echo(err=True)
        raise
