"""Canonical JSON, strict JSON and strict base64 (docs/format.md).

Verified bytes are the bytes used. What is signed is *canonical*: a value has one spelling only,
so that no two readers can see different values in the same bytes.
"""

import base64
import binascii
import json
import re
from typing import Any, NoReturn

from vault.errors import FormatError

_MAX_INTEGER = 2**53 - 1
_MAX_DEPTH = 8
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_OTHER_ESCAPE = re.compile(rb'\\[^"\\]')
_OPENING = frozenset({b"[", b"{"})
_CLOSING = frozenset({b"]", b"}"})
# strings as a whole, so that brackets in them don't count; an unterminated one ends the scan
_TOKENS = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|[\[\]{}]', re.DOTALL)


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


def _check_depth(data: bytes) -> None:
    """Bound nesting before the parser recurses."""
    if data.count(b"[") + data.count(b"{") <= _MAX_DEPTH:
        return
    depth = 0
    for token in _TOKENS.findall(data):
        if token in _OPENING:
            depth += 1
            if depth > _MAX_DEPTH:
                raise FormatError("JSON is nested too deeply", expected=f"at most {_MAX_DEPTH}")
        elif token in _CLOSING:
            depth -= 1


def loads_strict(data: bytes) -> Any:
    """Parse strict JSON.

    Raises:
        FormatError: Not UTF-8, a BOM, duplicate names, floats, NaN, huge
            integers, deep nesting, lone surrogates, or anything after the value.
    """
    _check_depth(data)
    try:
        text = data.decode("utf-8")
        value = json.loads(
            text,
            object_pairs_hook=_no_duplicates,
            parse_float=_no_floats,
            parse_constant=_no_floats,
            parse_int=_integer,
        )
        if b"\\u" in data:  # else no lone surrogate can have come in
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError) as error:
        raise FormatError("not strict JSON", found=str(error)[:120]) from error
    return value


def loads_canonical(data: bytes) -> Any:
    r"""Parse canonical JSON: strict JSON in its only spelling.

    Names are 1 to 64 of ``A-Z a-z 0-9 . _ -`` and strictly ascending; there is no white space
    outside strings; strings hold no control character and escape only ``\"`` and ``\\``.

    Raises:
        FormatError: Anything else.
    """
    value = loads_strict(data)
    if b"\x7f" in data or _OTHER_ESCAPE.search(data.replace(rb"\\", b"")):
        raise FormatError("JSON has a control character or an escape that is not needed")
    _check_names(value)
    if dumps(value) != data:
        raise FormatError("JSON is not in its one canonical form")
    return value


def _check_names(value: Any) -> None:
    """Depth was bounded by the parser."""
    if isinstance(value, dict):
        for name, member in value.items():
            if not _NAME.fullmatch(name):
                raise FormatError("JSON has a name that is not allowed", found=repr(name[:80]))
            _check_names(member)
    elif isinstance(value, list):
        for member in value:
            _check_names(member)


def dumps(value: Any) -> bytes:
    """Sorted names, no white space, UTF-8: the same value always gives the same bytes.

    They are canonical unless a name or a text holds what `loads_canonical` refuses.
    """
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode("utf-8")


def b64encode(data: bytes) -> str:
    """Standard alphabet with padding."""
    return base64.b64encode(data).decode("ascii")


def b64decode_strict(text: str) -> bytes:
    """The inverse of `b64encode`, and of nothing else.

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
