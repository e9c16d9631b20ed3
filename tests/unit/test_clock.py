"""Clocks, and times as they are written (I9, docs/invariants.md)."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from vault.clock import MAX_SKEW, check_skew, from_rfc3339, to_rfc3339
from vault.errors import ConfigError, FormatError

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
SECOND = timedelta(seconds=1)


@pytest.mark.parametrize("sign", [1, -1])
def test_skew_over_five_minutes_is_refused(sign: int) -> None:
    """In both directions; five minutes exactly pass."""
    check_skew(NOW, NOW + sign * MAX_SKEW)
    with pytest.raises(ConfigError, match="clock"):
        check_skew(NOW, NOW + sign * (MAX_SKEW + SECOND))


def test_a_time_is_written_in_utc_with_whole_seconds() -> None:
    """Whatever its zone; and is read back as it was."""
    east = NOW.astimezone(timezone(timedelta(hours=3))) + timedelta(microseconds=999_999)
    assert to_rfc3339(east) == "2026-03-01T12:00:00Z"
    assert from_rfc3339("2026-03-01T12:00:00Z") == NOW


@pytest.mark.parametrize(
    "text",
    [
        "2026-03-01T12:00:00+00:00",
        "2026-03-01 12:00:00Z",
        "2026-03-01T12:00:00.0Z",
        "2026-02-30T00:00:00Z",
        "",
    ],
)
def test_a_time_in_another_spelling_is_refused(text: str) -> None:
    """One moment has one spelling: signed bytes are compared."""
    with pytest.raises(FormatError, match="RFC 3339"):
        from_rfc3339(text)
