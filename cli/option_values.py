"""Options that are more than text, each read in one place."""

import dataclasses
import re
import unicodedata
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Final

from vault.durations import is_duration, parse_duration
from vault.errors import ConfigError

MAX_REASON: Final = 1_000  # bytes; what else a statement says needs the rest of 4,096
_SHARE = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,6})?) ?%")


def parse_since(text: str, now: datetime, *, zone: tzinfo | None = None) -> datetime:
    """Read the beginning of a time: ``2026-01-31``, ``2026-01-31 06:30``, or a duration ago.

    Args:
        text: As given.
        now: By the caller's clock, aware.
        zone: Of a time that has none; None is the zone of this machine.

    Raises:
        ConfigError: None of these.
    """
    try:
        if is_duration(text):
            return now - parse_duration(text)
        moment = datetime.fromisoformat(text.strip())
        if moment.tzinfo is None and zone is not None:
            moment = moment.replace(tzinfo=zone)
        return moment.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise ConfigError(
            "not a time since when",
            expected="for example 2026-01-31, '2026-01-31 06:30', or 7d",
            found=repr(text[:40]),
        ) from error


def parse_reason(text: str) -> str:
    """Read why something is done: a line of text that goes into the ledger.

    Raises:
        ConfigError: It is longer, or has what a statement can't hold.
    """
    if any(unicodedata.category(each) in {"Cc", "Cs"} for each in text):
        raise ConfigError(
            "a reason is a line of text", expected="no control characters", found=repr(text[:40])
        )
    if len(text.encode()) > MAX_REASON:
        raise ConfigError(
            "a reason is a line of text",
            expected=f"at most {MAX_REASON} bytes",
            found=f"{len(text.encode())} bytes",
        )
    return text


def parse_share(text: str) -> float:
    """Read ``all`` or ``5%`` as a share from 0 to 1.

    Raises:
        ConfigError: Anything else.
    """
    if text == "all":
        return 1.0
    match = _SHARE.fullmatch(text)
    share = float(match[1]) / 100 if match else -1.0
    if not 0 <= share <= 1:
        raise ConfigError(
            "not a share of the data",
            expected="all, slice, or per cent, for example 5%",
            found=repr(text[:40]),
        )
    return share


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ReadData:
    """How much of the packs ``--read-data`` asks for."""

    share: float = 1.0  # from 0 to 1
    in_turn: bool = False  # the slice whose turn it is

    @property
    def is_drawn(self) -> bool:
        """Whether chance chooses."""
        return not self.in_turn and 0 < self.share < 1


def parse_read_data(text: str) -> ReadData:
    """Read ``all``, ``5%`` or ``slice``.

    Raises:
        ConfigError: Anything else.
    """
    if text == "slice":
        return ReadData(in_turn=True)
    return ReadData(share=parse_share(text))


def format_age(span: timedelta) -> str:
    """Roughly, for people: ``3 days``, ``5 hours``, ``2 minutes``."""
    seconds = int(span.total_seconds())
    for unit, length in (("day", 86_400), ("hour", 3600), ("minute", 60)):
        if seconds >= length:
            count = seconds // length
            return f"{count} {unit}" + ("s" if count > 1 else "")
    return "less than a minute"
