"""Durations as people write them."""

from datetime import timedelta

import pytest

from vault.durations import format_duration, parse_duration
from vault.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "span"),
    [
        ("90s", timedelta(seconds=90)),
        ("15m", timedelta(minutes=15)),
        ("12h", timedelta(hours=12)),
        ("30d", timedelta(days=30)),
        ("4w", timedelta(weeks=4)),
        ("7y", timedelta(days=7 * 365)),
    ],
)
def test_a_duration_has_one_unit(text: str, span: timedelta) -> None:
    """Weeks are seven days, years 365."""
    assert parse_duration(text) == span


@pytest.mark.parametrize(
    "text", ["", "30", "d", "-1d", "0d", "1.5d", "1d12h", "101y", "30 d", "٣d"]
)
def test_anything_else_is_no_duration(text: str) -> None:
    """Nothing is guessed, nothing lasts over a hundred years."""
    with pytest.raises(ConfigError, match="not a duration"):
        parse_duration(text)


@pytest.mark.parametrize("text", ["30d", "12h", "90m", "61s"])
def test_durations_are_written_as_they_are_read(text: str) -> None:
    """In the largest unit that is exact."""
    assert format_duration(parse_duration(text)) == text
