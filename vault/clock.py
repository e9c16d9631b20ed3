"""Clocks and times: this machine's clock, how far it may differ, how times are written."""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from vault.errors import ConfigError, FormatError

Clock = Callable[[], datetime]  # aware; time enters the library by such an argument

MAX_SKEW = timedelta(minutes=5)  # tolerance between this machine's clock and the store's (I9)
MAX_CLAIM_SKEW = MAX_SKEW + timedelta(minutes=10)  # for a signed time: its PUT may be a retry

_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z")


def utc_now() -> datetime:
    """This machine's clock: aware, UTC. Programs pass it in; a local store uses it by default."""
    return datetime.now(UTC)


def to_rfc3339(moment: datetime) -> str:
    """The time in UTC, with whole seconds and a Z."""
    return f"{moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec='seconds')}Z"


def from_rfc3339(text: str) -> datetime:
    """The inverse of `to_rfc3339`.

    Raises:
        FormatError: Any other spelling.
    """
    try:
        if _TIME.fullmatch(text):
            return datetime.fromisoformat(text)
        problem = None
    except ValueError as error:
        problem = error
    raise FormatError("time is not RFC 3339 in UTC with Z", found=text[:40]) from problem


def check_skew(local: datetime, store: datetime) -> None:
    """Pass if this machine's clock agrees with the store's (I9).

    Raises:
        ConfigError: They differ by more than `MAX_SKEW`: nothing may be written.
    """
    if abs(local - store) > MAX_SKEW:
        raise ConfigError(
            "this machine's clock and the store's differ by more than"
            f" {MAX_SKEW // timedelta(minutes=1)} minutes",
            expected=f"about {to_rfc3339(store)}",
            found=to_rfc3339(local),
            hint="set the clock right (NTP) and run again; nothing is written until then",
        )
