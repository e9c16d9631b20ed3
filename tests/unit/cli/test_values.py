"""Durations and shares as people write them."""

from datetime import timedelta

import pytest

from cli.values import format_age, format_duration, parse_duration, parse_share
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


@pytest.mark.parametrize(("text", "share"), [("all", 1.0), ("5%", 0.05), ("0.5 %", 0.005)])
def test_a_share_is_all_or_per_cent(text: str, share: float) -> None:
    """From nothing to everything."""
    assert parse_share(text) == pytest.approx(share)


@pytest.mark.parametrize("text", ["", "5", "101%", "-1%", "half"])
def test_anything_else_is_no_share(text: str) -> None:
    """Nothing is guessed."""
    with pytest.raises(ConfigError, match="not a share"):
        parse_share(text)


def test_ages_are_rough() -> None:
    """One unit is enough for people."""
    assert format_age(timedelta(seconds=59)) == "less than a minute"
    assert format_age(timedelta(minutes=1)) == "1 minute"
    assert format_age(timedelta(hours=5, minutes=9)) == "5 hours"
    assert format_age(timedelta(days=3, hours=9)) == "3 days"
