"""What is printed: untrusted text can do nothing, tables fit."""

import json
import unicodedata
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.output import render


@given(st.text())
def test_printable_text_has_no_character_that_steers_a_terminal(text: str) -> None:
    """No control, no format character, no line end, no surrogate."""
    shown = render.printable(text)
    assert all(unicodedata.category(c)[0] != "C" for c in shown)
    assert not {"\u2028", "\u2029"} & set(shown)


@given(st.text(st.characters(categories=["L", "N", "P", "S"])))
def test_plain_text_is_left_alone(text: str) -> None:
    """Names in any script are readable."""
    assert render.printable(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred", r"\x1b[31mred"),
        ("a\nvault: error: forged", r"a\x0avault: error: forged"),
        ("\u202egpj.exe", r"\u202egpj.exe"),
        ("\x9b2J", r"\x9b2J"),
        ("\udcff", r"\xff"),
        ("\U000e0001", r"\U000e0001"),
    ],
)
def test_what_is_escaped_can_be_told(text: str, shown: str) -> None:
    """By its number; a byte that is no UTF-8 by its value."""
    assert render.printable(text) == shown


def test_a_path_that_is_not_utf8_keeps_its_bytes_for_programs() -> None:
    """Base64 beside the escaped form."""
    assert render.path_fields(b"a\xff") == {"path": r"a\xff", "path_base64": "Yf8="}
    assert render.path_fields("ä".encode()) == {"path": "ä"}


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1_048_575, "1.0 MiB"),
        (3 * 2**30 // 2, "1.5 GiB"),
        (2**70, "1024.0 EiB"),
    ],
)
def test_sizes_are_short(amount: int, text: str) -> None:
    """One digit after the point, never four before it but for what is beyond all units."""
    assert render.size(amount) == text


def test_a_table_is_cut_to_the_terminal() -> None:
    """The widest text columns give way; numbers never do."""
    rows = [(1, "x" * 50, "short"), (123_456, "y", "z" * 20)]
    text = render.table(["number", "name", "what"], rows, right={0}, width=40)
    assert all(len(line) <= 40 for line in text.splitlines())
    assert "123456" in text
    assert "…" in text
    wide = render.table(["number", "name", "what"], rows, right={0})
    assert "x" * 50 in wide
    assert "…" not in wide


def test_a_table_escapes_its_cells() -> None:
    """Each row stays one line."""
    assert len(render.table(["name"], [["a\nb"], ["\x1b[2J"]]).splitlines()) == 3


def test_wide_characters_keep_columns_aligned() -> None:
    """A terminal gives them two columns, and accents none."""
    lines = render.table(["a", "b"], [["日本", "x"], ["e\u0301", "x"]]).splitlines()
    assert lines == ["a     b", "日本  x", "e\u0301     x"]


def test_json_is_ascii_without_surrogates(capsys: pytest.CaptureFixture[str]) -> None:
    """Other parsers must read it."""
    render.emit_json("vault/x/v1", names=["\udce9", {"ä\x9b": ("\udcff",)}])
    out = capsys.readouterr().out
    assert out.isascii()
    assert json.loads(out)["names"] == ["\\udce9", {"ä\x9b": ["\\udcff"]}]


def test_times_are_of_this_zone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that DATASET@TIME takes."""
    import time

    monkeypatch.setenv("TZ", "Asia/Kolkata")
    time.tzset()
    try:
        noon = datetime(2026, 1, 1, 12, tzinfo=UTC)
        assert render.moment(noon) == "2026-01-01 17:30"
        assert render.zone(noon) == "UTC+05:30"
    finally:
        monkeypatch.undo()
        time.tzset()
