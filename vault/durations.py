"""Durations as people write them: a number and one unit."""

import re
from datetime import timedelta
from typing import Final

from vault.errors import ConfigError

UNIT_SECONDS: Final = {
    "s": 1,
    "m": 60,
    "h": 3600,
    "d": 86_400,
    "w": 7 * 86_400,
    "y": 365 * 86_400,
}
LONGEST_DURATION: Final = 100 * 365 * 86_400  # seconds; no lock lasts longer

_DURATION = re.compile(r"([0-9]{1,9})([smhdwy])")


def is_duration(text: str) -> bool:
    """Whether the text has the form of a duration, however long."""
    return _DURATION.fullmatch(text.strip()) is not None


def parse_duration(text: str) -> timedelta:
    """Read ``90s``, ``15m``, ``12h``, ``30d``, ``4w`` or ``7y`` (of 365 days).

    Raises:
        ConfigError: Anything else, nothing at all, or over a hundred years.
    """
    match = _DURATION.fullmatch(text.strip())
    seconds = int(match[1]) * UNIT_SECONDS[match[2]] if match else 0
    if not 0 < seconds <= LONGEST_DURATION:
        raise ConfigError(
            "not a duration",
            expected="a number and one of s, m, h, d, w, y, for example 30d",
            found=repr(text[:40]),
        )
    return timedelta(seconds=seconds)


def format_duration(span: timedelta) -> str:
    """The shortest exact form that `parse_duration` reads, in days at most."""
    seconds = int(span.total_seconds())
    for unit in ("d", "h", "m"):
        if seconds % UNIT_SECONDS[unit] == 0:
            return f"{seconds // UNIT_SECONDS[unit]}{unit}"
    return f"{seconds}s"
