"""When a cron line wants a run: its times, its longest gap, and times that a clock skips.

The only importer of cronsim, whose rules at changes to summer time are those of Debian's cron.
"""

import datetime as dt
import functools
import itertools
import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo, available_timezones

from cronsim import CronSim, CronSimError

from vault.errors import ConfigError

_SHORTHANDS: Final = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
_FIELDS: Final = ("minute", "hour", "day of the month", "month", "weekday")
_NUMBERS = re.compile(r"[0-9*,/-]+")
_NAMES = re.compile(r"(?:[0-9*,/-]|(?<![A-Za-z])[A-Za-z]{3}(?![A-Za-z]))+")  # mon, jan
_FIRST_DAY: Final = date(2026, 1, 1)  # of the years over which gaps are measured
_YEARS: Final = 9  # every leap day has been met, whatever the year it starts in


def known_zone(name: str) -> ZoneInfo:
    """The time zone of that name.

    Raises:
        ConfigError: This machine knows no such zone.
    """
    if name not in _zone_names():
        raise ConfigError(
            f"there is no time zone {name[:64]!r}", hint="write it as Europe/Berlin, or UTC"
        )
    return ZoneInfo(name)


@functools.cache
def _zone_names() -> frozenset[str]:
    """Read once: it means a look at hundreds of files."""
    return frozenset(available_timezones())


class CronSchedule:
    """The times that a cron line names, by the calendar of a zone.

    Args:
        text: Five fields, or one of @hourly, @daily, @weekly, @monthly, @yearly.
        zone: Whose clock it goes by.

    Raises:
        ConfigError: It is no such line, or names no time at all.
    """

    def __init__(self, text: str, zone: ZoneInfo) -> None:
        self._zone = zone
        self._fields = _checked(_SHORTHANDS.get(text, text))
        try:
            parsed = CronSim(self._fields, datetime(2026, 1, 1))  # noqa: DTZ001 - never asked
        except CronSimError as error:
            raise ConfigError("not a cron line", found=_told(error)) from error
        months = parsed.months
        self._days = [day for day in _days() if parsed.match_day(day) and day.month in months]
        times = itertools.product(sorted(parsed.hours), sorted(parsed.minutes))
        self._times = [dt.time(hour, minute) for hour, minute in times]
        if not self._days:
            raise ConfigError("not a cron line", found="it names no day of any year")

    def runs(self, since: datetime) -> Iterator[datetime]:
        """The times after a moment, in UTC, one after the other, without end."""
        for moment in CronSim(self._fields, since.astimezone(self._zone)):
            yield moment.astimezone(UTC)

    def newest(self, before: datetime) -> datetime:
        """The newest time that is not after a moment; UTC."""
        start = (before + timedelta(seconds=1)).astimezone(self._zone)
        return next(CronSim(self._fields, start, reverse=True)).astimezone(UTC)

    def longest_gap(self) -> timedelta:
        """The longest time between two runs in a row."""
        within = max(
            (_apart(a, b) for a, b in itertools.pairwise(self._times)), default=timedelta()
        )
        first, last = self._times[0], self._times[-1]
        between = (
            self._at(after, first) - self._at(day, last)
            for day, after in itertools.pairwise(self._days)
        )
        return max(within, max(between, default=timedelta(days=366)))

    def skipped(self) -> datetime | None:
        """A time that the line names and the zone's clock leaves out; None if there is none.

        systemd starts nothing then; cron starts the run when the clock has gone on. A line for
        every hour of the day loses nothing by it.
        """
        if self._fields.split()[1].startswith("*"):
            return None
        for day in self._days:
            if self._at(day, dt.time(0)) + timedelta(days=1) == self._at(
                day + timedelta(days=1), dt.time(0)
            ):
                continue  # an ordinary day
            for time in self._times:
                moment = datetime.combine(day, time, self._zone)
                if moment.astimezone(UTC).astimezone(self._zone).replace(tzinfo=None) != (
                    moment.replace(tzinfo=None)
                ):
                    return moment
        return None

    def _at(self, day: date, time: dt.time) -> datetime:
        return datetime.combine(day, time, self._zone).astimezone(UTC)


def _checked(text: str) -> str:
    """Five fields, upper case.

    Raises:
        ConfigError: There are more or fewer, one has other characters, or two say the day.
    """
    fields = text.split()
    if len(fields) != len(_FIELDS):
        raise ConfigError(
            "not a cron line", expected=f"5 fields: {', '.join(_FIELDS)}", found=len(fields)
        )
    for index, field in enumerate(fields):
        form = _NAMES if index > 2 else _NUMBERS
        if not form.fullmatch(field):
            raise ConfigError(f"the {_FIELDS[index]} is not a cron field", found=repr(field[:40]))
    if fields[2] != "*" and fields[4] != "*":
        raise ConfigError(
            "not a cron line",
            found="a day of the month and a weekday: cron runs on either, systemd on both",
            hint="write * for one of them",
        )
    return " ".join(fields).upper()


def _told(error: CronSimError) -> str:
    """What cronsim says, in our words: ``Bad hour``."""
    return str(error).replace("-", " ").replace("Bad ", "a wrong ")


def _days() -> Iterator[date]:
    last = _FIRST_DAY.replace(year=_FIRST_DAY.year + _YEARS)
    for offset in range((last - _FIRST_DAY).days):
        yield _FIRST_DAY + timedelta(days=offset)


def _apart(a: dt.time, b: dt.time) -> timedelta:
    return timedelta(hours=b.hour - a.hour, minutes=b.minute - a.minute)
