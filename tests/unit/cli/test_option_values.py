"""Ages, times and shares as people write them."""

from datetime import UTC, datetime, timedelta

import pytest

from cli.option_values import format_age, parse_reason, parse_share, parse_since
from vault.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-01-31", datetime(2026, 1, 31, tzinfo=UTC)),
        ("2026-01-31 06:30", datetime(2026, 1, 31, 6, 30, tzinfo=UTC)),
        ("2026-01-31T06:30:15Z", datetime(2026, 1, 31, 6, 30, 15, tzinfo=UTC)),
        ("2026-01-31T06:30+02:00", datetime(2026, 1, 31, 4, 30, tzinfo=UTC)),
        ("7d", datetime(2026, 2, 22, 12, tzinfo=UTC)),
    ],
)
def test_since_is_the_beginning_of_a_time_or_so_long_ago(text: str, moment: datetime) -> None:
    """A day begins at its start: what happened on it is after it."""
    now = datetime(2026, 3, 1, 12, tzinfo=UTC)
    assert parse_since(text, now, zone=UTC) == moment


@pytest.mark.parametrize("text", ["", "yesterday", "2026-02-30", "2026", "-7d", "0001-01-01"])
def test_anything_else_is_no_time(text: str) -> None:
    """Nothing is guessed."""
    with pytest.raises(ConfigError, match=r"not a time since when|not a duration"):
        parse_since(text, datetime(2026, 3, 1, tzinfo=UTC))


@pytest.mark.parametrize(("text", "share"), [("all", 1.0), ("5%", 0.05), ("0.5 %", 0.005)])
def test_a_share_is_all_or_per_cent(text: str, share: float) -> None:
    """From nothing to everything."""
    assert parse_share(text) == pytest.approx(share)


@pytest.mark.parametrize("text", ["", "5", "101%", "-1%", "half"])
def test_anything_else_is_no_share(text: str) -> None:
    """Nothing is guessed."""
    with pytest.raises(ConfigError, match="not a share"):
        parse_share(text)


@pytest.mark.parametrize("text", ["", "stolen in the night", "gestohlen: \u00fc\u202e", "x" * 1000])
def test_a_reason_is_a_line_of_text(text: str) -> None:
    """Whatever else it holds: what shows it escapes it."""
    assert parse_reason(text) == text


@pytest.mark.parametrize(
    "text", ["a\nb", "a\tb", "\x1b[31m", "a\x7fb", "a\x9bb", "a\udcffb", "x" * 1001, "\u00fc" * 501]
)
def test_a_reason_that_no_statement_can_hold_is_refused(text: str) -> None:
    """By name, not by what the ledger's JSON can't say."""
    with pytest.raises(ConfigError, match="a reason is a line of text"):
        parse_reason(text)


def test_ages_are_rough() -> None:
    """One unit is enough for people."""
    assert format_age(timedelta(seconds=59)) == "less than a minute"
    assert format_age(timedelta(minutes=1)) == "1 minute"
    assert format_age(timedelta(hours=5, minutes=9)) == "5 hours"
    assert format_age(timedelta(days=3, hours=9)) == "3 days"
