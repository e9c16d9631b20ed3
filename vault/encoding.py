"""Canonical JSON, strict JSON and strict base64 (docs/format.md).

Verified bytes are the bytes used. What is signed is *canonical*: a value has one spelling only,
so that no two readers can see different values in the same bytes.
"""

import base64
import binascii
import json
import re
from collections.abc import Callable
from typing import Any, NoReturn

from vault.errors import FormatError

_MAX_INTEGER = 2**53 - 1
_MAX_DEPTH = 8
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_OTHER_ESCAPE = re.compile(rb'\\[^"\\]')


def shown_path(path: bytes) -> str:
    """A path for a message: quoted, cut after 200 bytes, bytes that are not UTF-8 escaped."""
    return repr(path[:200].decode("utf-8", "surrogateescape"))


def _no_floats(text: str) -> NoReturn:
    raise FormatError("JSON has a number that is not an integer", found=text[:40])


def _integer(text: str) -> int:
    if len(text) > 17 or abs(value := int(text)) > _MAX_INTEGER:
        raise FormatError("JSON has an integer beyond 2^53-1", found=text[:40])
    return value


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise FormatError("JSON object has a duplicate name")
    return fields


def _canonical_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = _no_duplicates(pairs)
    if not all(map(_NAME.fullmatch, fields)):
        name = next(name for name in fields if not _NAME.fullmatch(name))
        raise FormatError("JSON has a name that is not allowed", found=repr(name[:80]))
    return fields


def _decoder(hook: Callable[[list[tuple[str, Any]]], dict[str, Any]]) -> json.JSONDecoder:
    return json.JSONDecoder(
        object_pairs_hook=hook,
        parse_float=_no_floats,
        parse_constant=_no_floats,
        parse_int=_integer,
    )


_STRICT, _CANONICAL = _decoder(_no_duplicates), _decoder(_canonical_names)
_ENCODER = json.JSONEncoder(
    sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
)


def _check_depth(value: dict[str, Any] | list[Any], depth: int = 1) -> None:
    """Refuse deep nesting; recursion is safe here, as the parser has recursed as deep before."""
    if depth > _MAX_DEPTH:
        raise FormatError("JSON is nested too deeply", expected=f"at most {_MAX_DEPTH}")
    for member in value.values() if isinstance(value, dict) else value:
        if isinstance(member, dict | list):
            _check_depth(member, depth + 1)


def _loads(data: bytes, decoder: json.JSONDecoder) -> Any:
    try:
        value = decoder.decode(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise FormatError("not strict JSON", found=str(error)[:120]) from error
    if isinstance(value, dict | list):
        _check_depth(value)
    return value


def loads_strict(data: bytes) -> Any:
    """Parse strict JSON.

    Raises:
        FormatError: Not UTF-8, a BOM, duplicate names, floats, NaN, huge
            integers, deep nesting, lone surrogates, or anything after the value.
    """
    value = _loads(data, _STRICT)
    if b"\\u" in data:  # only an escape can bring in a lone surrogate
        try:
            dumps(value)
        except UnicodeEncodeError as error:
            raise FormatError("not strict JSON", found=str(error)[:120]) from error
    return value


def loads_canonical(data: bytes) -> Any:
    r"""Parse canonical JSON: strict JSON in its only spelling.

    Names are 1 to 64 of ``A-Z a-z 0-9 . _ -`` and strictly ascending; there is no white space
    outside strings; strings hold no control character and escape only ``\"`` and ``\\``.

    Raises:
        FormatError: Anything else.
    """
    if b"\x7f" in data or _OTHER_ESCAPE.search(data.replace(rb"\\", b"")):
        raise FormatError("JSON has a control character or an escape that is not needed")
    value = _loads(data, _CANONICAL)
    if dumps(value) != data:
        raise FormatError("JSON is not in its one canonical form")
    return value


def dumps(value: Any) -> bytes:
    """Sorted names, no white space, UTF-8: the same value always gives the same bytes.

    The bytes are canonical unless a name or a text holds what `loads_canonical` refuses.
    """
    return _ENCODER.encode(value).encode("utf-8")


def b64encode(data: bytes) -> str:
    """Standard alphabet with padding."""
    return base64.b64encode(data).decode("ascii")


def b64decode_strict(text: str) -> bytes:
    """The inverse of `b64encode`; refuses every other spelling.

    Raises:
        FormatError: Another alphabet, stray bits, white space or missing padding.
    """
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise FormatError("not base64", found=str(error)) from error
    if b64encode(data) != text:
        raise FormatError("base64 is not in its one canonical form")
    return data
