"""What all key files have in common: checked members, secrets under a passphrase, bytes on disk.

`key_files` has the members of each kind; docs/format.md 9 has all of it. A file is small, is JSON,
and is created once: nothing overwrites it.
"""

import contextlib
import dataclasses
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, TypeAlias

from vault.crypto.keys import aes_gcm_open, aes_gcm_seal, argon2id, random_bytes
from vault.encoding import b64decode_strict, b64encode, dumps, loads_strict
from vault.errors import ConfigError, DigestMismatchError, FormatError, LocalError, WrongKeyError
from vault.machine import durable
from vault.model import NAME_PATTERN, Id

MAX_KEY_FILE: Final = 64 << 10  # bytes
KEY_FILE_VERSION: Final = 1
_MAX_MEMORY = 1 << 20  # KiB
_MAX_ITERATIONS = 16
_MAX_LANES = 16
_SALT_SIZE, _NONCE_SIZE = 16, 12  # bytes

Members: TypeAlias = dict[str, Any]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Argon2Cost:
    """The cost of one guess of the passphrase."""

    memory: int = 65_536  # KiB
    iterations: int = 3
    lanes: int = 4


DEFAULT_COST: Final = Argon2Cost()


# --- members ---


def member_of(members: Members, name: str, kind: type[Any]) -> Any:
    """A member of this type.

    Raises:
        FormatError: It is missing, or of another type.
    """
    value = members.get(name)
    if type(value) is not kind:
        raise FormatError(
            f"key file member {name!r} is missing or of another type",
            expected=kind.__name__,
            found=type(value).__name__,
        )
    return value


def text_member(members: Members, name: str) -> str:
    """A member that is a text; else as `member_of`."""
    return str(member_of(members, name, str))


def label_member(members: Members, name: str) -> str:
    """A member that is a name.

    Raises:
        FormatError: It is none.
    """
    text = text_member(members, name)
    if not NAME_PATTERN.fullmatch(text):
        raise FormatError(
            f"key file member {name!r} is no name", expected=NAME_PATTERN.pattern, found=text[:80]
        )
    return text


def key_id_member(members: Members, name: str) -> str:
    """64 hex digits, or an empty text for none."""
    text = text_member(members, name)
    return str(Id.parse(text)) if text else ""


def binary_member(members: Members, name: str, size: int | None = None) -> bytes:
    """A member that is base64.

    Args:
        members: Of the file, or within it.
        name: The member's.
        size: In bytes, if it must have one.

    Raises:
        FormatError: It is something else.
    """
    data = b64decode_strict(text_member(members, name))
    if size is not None and len(data) != size:
        raise FormatError(
            f"key file member {name!r} has another size", expected=size, found=len(data)
        )
    return data


# --- secrets under a passphrase ---


def seal_members(clear: Members, secrets: Members, passphrase: bytes, cost: Argon2Cost) -> bytes:
    """The bytes of a file with members that all may read, and secrets under a passphrase.

    Raises:
        ConfigError: The passphrase is empty.
    """
    if not passphrase:
        raise ConfigError("the passphrase is empty")
    nonce = random_bytes(_NONCE_SIZE)
    members = {
        **clear,
        "kdf": {
            "name": "argon2id",
            **dataclasses.asdict(cost),
            "salt": b64encode(random_bytes(_SALT_SIZE)),
        },
        "nonce": b64encode(nonce),
    }
    sealed = aes_gcm_seal(_derive(members, passphrase), nonce, dumps(secrets), dumps(members))
    return dumps({**members, "sealed": b64encode(sealed)})


def open_members(members: Members, passphrase: bytes, path: Path) -> Members:
    """The secrets of a file.

    Raises:
        WrongKeyError: It does not open with this passphrase.
        FormatError: It is no such file.
    """
    nonce = binary_member(members, "nonce", _NONCE_SIZE)
    sealed = binary_member(members, "sealed")
    rest = dumps({name: value for name, value in members.items() if name != "sealed"})
    try:
        plaintext = aes_gcm_open(_derive(members, passphrase), nonce, sealed, rest)
    except DigestMismatchError as error:
        raise WrongKeyError(
            f"{path} does not open: wrong passphrase, or the file was altered",
            hint="check the passphrase; else use another copy of the key file",
        ) from error
    return _object(plaintext)


def _derive(members: Members, passphrase: bytes) -> bytes:
    kdf = member_of(members, "kdf", dict)
    if text_member(kdf, "name") != "argon2id":
        raise FormatError("key file has an unknown kdf", expected="argon2id", found=kdf["name"])
    return argon2id(
        passphrase,
        salt=binary_member(kdf, "salt", _SALT_SIZE),
        memory_kib=_capped(kdf, "memory", _MAX_MEMORY),
        iterations=_capped(kdf, "iterations", _MAX_ITERATIONS),
        lanes=_capped(kdf, "lanes", _MAX_LANES),
    )


def _capped(members: Members, name: str, cap: int) -> int:
    value = int(member_of(members, name, int))
    if not 1 <= value <= cap:
        raise FormatError(f"key file's kdf {name}", expected=f"1 to {cap}", found=value)
    return value


# --- files ---


def _object(data: bytes) -> Members:
    members = loads_strict(data)
    if not isinstance(members, dict):
        raise FormatError("key file is not a JSON object", found=type(members).__name__)
    return members


def read_key_file(path: Path, *, private: bool = False) -> Members:
    """The members of a file; what is in them is for the caller to check.

    Args:
        path: Of the file.
        private: Whether other users may have no right to it.

    Raises:
        WrongKeyError: There is none.
        ConfigError: It is no file, or others may read or write it.
        FormatError: It is no JSON object of this version.
        LocalError: It can't be read.
    """
    with local_errors(path):
        try:
            # A FIFO in the file's place must not hang a cron job.
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError as error:
            raise WrongKeyError(
                f"there is no key file {path}", hint="name the directory of your key files"
            ) from error
        with open(descriptor, "rb") as file:  # noqa: PTH123  # a descriptor has no path
            _check_file(os.fstat(descriptor), path, private=private)
            data = file.read(MAX_KEY_FILE + 1)
    if len(data) > MAX_KEY_FILE:
        raise FormatError("too large for a key file", expected=f"at most {MAX_KEY_FILE} bytes")
    members = _object(data)
    if member_of(members, "vault-key", int) != KEY_FILE_VERSION:
        raise FormatError(
            "unknown key file version",
            expected=KEY_FILE_VERSION,
            found=members["vault-key"],
        )
    return members


def _check_file(status: os.stat_result, path: Path, *, private: bool) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise ConfigError(f"{path} is not a regular file")
    if private and status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ConfigError(
            f"other users may read or write the key file {path}",
            expected="mode 0600",
            found=f"mode {stat.S_IMODE(status.st_mode):04o}",
            hint=f"chmod 600 {path}",
        )


def create_key_file(path: Path, data: bytes) -> None:
    """Create a file, readable by its owner alone, durable on return.

    Raises:
        ConfigError: The file exists already, or would be too large.
        LocalError: It can't be written.
    """
    if len(data) > MAX_KEY_FILE:
        raise ConfigError(f"{path} would be too large", expected=MAX_KEY_FILE, found=len(data))
    durable.create_named(path, data)


@contextlib.contextmanager
def local_errors(path: Path) -> Iterator[None]:
    """Call what fails by the file's name."""
    try:
        yield
    except OSError as error:
        raise LocalError(f"key file {path}: {error.strerror}") from error
