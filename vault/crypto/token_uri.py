"""PKCS#11 URIs (RFC 7512): which key of which token, by which module. Pure.

What people and logs see is the path alone: `str` of a URI never has its query, where a PIN might
stand. A PIN in the URI itself is refused, because other users see it in the list of processes.
"""

import dataclasses
import re
from pathlib import Path
from typing import Final, Self
from urllib.parse import quote, unquote_to_bytes

from vault.errors import ConfigError

SCHEME: Final = "pkcs11:"
_MAX_URI = 4096  # characters
_HINT = (
    "pkcs11:token=LABEL;object=LABEL?module-path=/usr/lib/softhsm/libsofthsm2.so"
    "&pin-source=file:/path"
)
_TOKEN = ("token", "manufacturer", "serial", "model")
_OBJECT = ("object", "id", "type")
_QUERY = ("module-path", "pin-source")
_ALLOWED = re.compile(r"[A-Za-z0-9\-._~:\[\]@!$'()*+,=/|%;?&]*")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TokenUri:
    """Names one private key of one token; an attribute that is None matches anything."""

    token: str | None = None
    manufacturer: str | None = None
    serial: str | None = None
    model: str | None = None
    object: str | None = None  # label of the key
    id: bytes | None = None
    module: Path  # the shared library that talks to the token
    pin_file: Path | None = None  # its first line is the PIN; None: a person is asked
    text: str = dataclasses.field(repr=False)  # as given

    @classmethod
    def parse(cls, text: str) -> Self:
        """The URI in ``text``.

        Raises:
            ConfigError: Not a PKCS#11 URI, or one that names no module or no key.
        """
        if not text.startswith(SCHEME) or len(text) > _MAX_URI or not _ALLOWED.fullmatch(text):
            raise ConfigError("not a PKCS#11 URI (RFC 7512)", hint=_HINT)
        path, _, query = text.removeprefix(SCHEME).partition("?")
        named = _attributes(path, ";", (*_TOKEN, *_OBJECT))
        asked = _attributes(query, "&", _QUERY)
        if named.pop("type", b"private") != b"private":
            raise ConfigError("a PKCS#11 URI must name a private key", expected="type=private")
        if not named.keys() & {"object", "id"}:
            raise ConfigError("the PKCS#11 URI names no key", expected="object=LABEL or id=%01")
        key_id = named.pop("id", None)
        return cls(
            **{name: _as_text(name, value) for name, value in named.items()},
            id=key_id,
            module=_module(asked),
            pin_file=_pin_file(asked),
            text=text,
        )

    def __str__(self) -> str:
        """The path of the URI, for people and logs: it holds no PIN and no place of one."""
        parts = [
            f"{name}={quote(value, safe='')}"
            for name in (*_TOKEN, "object")
            if (value := getattr(self, name)) is not None
        ]
        if self.id is not None:
            parts.append("id=" + "".join(f"%{byte:02x}" for byte in self.id))
        return SCHEME + ";".join(parts)


def _attributes(text: str, separator: str, known: tuple[str, ...]) -> dict[str, bytes]:
    """Name and value of each attribute, decoded; a value is never shown, for it may be a PIN."""
    found: dict[str, bytes] = {}
    for part in text.split(separator) if text else ():
        name, equals, value = part.partition("=")
        if name == "pin-value":
            raise ConfigError(
                "the PKCS#11 URI holds the PIN itself, which other users can see",
                hint="pin-source=file:/path names a file whose first line is the PIN;"
                " without it you are asked",
            )
        if not equals or name not in known:
            raise ConfigError(
                "the PKCS#11 URI has an attribute that is not understood",
                expected=", ".join(known),
                found=repr(name[:40]),
            )
        if name in found:
            raise ConfigError(f"the PKCS#11 URI has {name} twice")
        if re.search(r"%(?![0-9A-Fa-f]{2})", value):
            raise ConfigError(f"{name} of the PKCS#11 URI has a % without two hex digits")
        found[name] = unquote_to_bytes(value)
    return found


def _as_text(name: str, value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise ConfigError(f"{name} of the PKCS#11 URI is not UTF-8") from error


def _module(query: dict[str, bytes]) -> Path:
    found = _path("module-path", query)
    if found is None:
        raise ConfigError("the PKCS#11 URI names no module", hint=_HINT)
    return found


def _pin_file(query: dict[str, bytes]) -> Path | None:
    source = query.get("pin-source")
    if source is not None and source.startswith(b"|"):
        raise ConfigError("pin-source of the PKCS#11 URI names a command", expected="file:/path")
    return _path("pin-source", query)


def _path(name: str, query: dict[str, bytes]) -> Path | None:
    value = query.get(name)
    if value is None:
        return None
    text = _as_text(name, value).removeprefix("file:")
    text = text.removeprefix("//") if text.startswith("///") else text
    if not text.startswith("/") or "\0" in text:
        raise ConfigError(f"{name} of the PKCS#11 URI must be an absolute path")
    return Path(text)
