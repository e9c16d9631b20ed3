"""Strict JSON and base64 (docs/format.md)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vault.encoding import b64decode_strict, b64encode, dumps, loads_strict, shown_path
from vault.errors import FormatError

_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(_VALUES)
def test_what_is_dumped_loads_to_the_same_value(value: object) -> None:
    """Round trip of everything that strict JSON can say, up to its depth."""
    data = dumps(value)
    try:
        assert loads_strict(data) == value
    except FormatError as error:
        assert "deeply" in str(error)  # noqa: PT017 - either outcome is right


@pytest.mark.parametrize(
    "text",
    [
        '{"a":1,"a":1}',
        "1.5",
        "1e400",
        "NaN",
        "Infinity",
        "9007199254740992",
        "1" * 5000,
        "[" * 9 + "]" * 9,
        "[" * 5000 + "]" * 5000,
        '{"a":' * 100_000,
        "1 2",
        "",
        '"\\ud800"',
        "\ufeff{}",
        '{"a":"]]]]]]]]","b":' + "[" * 9 + "]" * 9 + "}",
        '{"a":"\\"]]]]]]]]","b":' + "[" * 9 + "]" * 9 + "}",
    ],
)
def test_what_is_not_strict_json_is_refused(text: str) -> None:
    """Each of the liberties that parsers differ on."""
    with pytest.raises(FormatError):
        loads_strict(text.encode())


def test_brackets_in_strings_do_not_count_as_depth() -> None:
    """A long string of brackets is a string."""
    assert loads_strict(b'{"a":"[[[[[[[[[[[["}') == {"a": "[" * 12}


def test_bytes_that_are_not_utf8_are_refused() -> None:
    """Latin-1 is not UTF-8."""
    with pytest.raises(FormatError):
        loads_strict(b'"\xff"')


def test_an_unterminated_string_is_refused() -> None:
    """A megabyte of escapes without an end; were the scan quadratic, this would take hours."""
    with pytest.raises(FormatError):
        loads_strict(b'"' + b"\\" * 1_000_001)


@given(st.binary())
def test_base64_has_one_spelling(data: bytes) -> None:
    """Round trip."""
    assert b64decode_strict(b64encode(data)) == data


@pytest.mark.parametrize("text", ["QQ", "QR==", "QQ==\n", "Q Q==", "-_==", "QQ=", "é"])
def test_other_spellings_of_base64_are_refused(text: str) -> None:
    """Stray bits, white space, missing padding, the other alphabet."""
    with pytest.raises(FormatError):
        b64decode_strict(text)


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        (b"m", "'m'"),
        ("größe/ß".encode(), "'größe/ß'"),
        (b"it's", '"it\'s"'),
        (b"bell\x07\n", "'bell\\x07\\n'"),
        (b"\xff", "'\\udcff'"),
        (b"x" * 300, repr("x" * 200)),
    ],
)
def test_a_path_in_a_message_is_no_python(path: bytes, shown: str) -> None:
    """Quoted, one line, whatever is in it."""
    assert shown_path(path) == shown
