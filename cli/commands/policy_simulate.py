"""`vault policy simulate`: what a policy would keep, before it keeps anything."""

import dataclasses
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import click

from cli.output import render
from cli.session import Invocation, pass_invocation
from vault.clock import to_rfc3339
from vault.errors import ConfigError
from vault.policy.forecast import Forecast, forecast
from vault.policy.policy_file import load_policy
from vault.policy.schedules import CronSchedule, known_zone
from vault.policy.settings import effective_retention, effective_schedule
from vault.policy.tables import DatasetTable, PolicyTable

_LOOKS = (1, 8, 30, 100, 200, 365)  # days that say most of a policy
_LONGEST = 36_600  # days


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Simulated:
    dataset: str
    cron: str
    lock: str | None
    found: Forecast


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--days",
    type=click.IntRange(1, _LONGEST),
    default=400,
    show_default=True,
    help="How far to look ahead.",
)
@pass_invocation
def simulate(invocation: Invocation, *, file: Path, days: int) -> None:
    """Show what would be kept: a calendar of the snapshots of each dataset, and until when.

    It goes by the schedule, as if each run came on time and missed nothing; needs no repository.
    A minimum retention of the repository that is longer than 'within' counts there in its place.
    """
    policy = load_policy(file)
    now = invocation.clock()
    looks = [*(day for day in _LOOKS if day < days), days]
    simulated = [_simulate(policy, dataset, now, looks) for dataset in policy.dataset]
    invocation.emit(
        "vault/policy-simulate/v1",
        {
            "policy": policy.name,
            "from": to_rfc3339(now),
            "datasets": [_fields(each) for each in simulated],
        },
        "\n\n".join("\n".join(_lines(each, now)) for each in simulated),
    )


def _simulate(
    policy: PolicyTable, dataset: DatasetTable, now: datetime, looks: list[int]
) -> _Simulated:
    schedule = effective_schedule(policy, dataset)
    if schedule is None:
        raise ConfigError(
            f"dataset {dataset.name} has no schedule",
            hint="add [schedule] with cron to the policy, or cron to the dataset",
        )
    zone = known_zone(policy.timezone)
    retention = effective_retention(policy, dataset)
    found = forecast(
        retention.rules(zone),
        CronSchedule(schedule.cron, zone),
        now,
        looks,
        minimum=retention.within,
    )
    return _Simulated(dataset=dataset.name, cron=schedule.cron, lock=retention.lock, found=found)


def _lines(each: _Simulated, now: datetime) -> Iterator[str]:
    found = each.found
    yield f"{each.dataset}: {render.plural(found.runs, 'run')} of '{each.cron}'"
    reasons = list(dict.fromkeys(name for day in found.days for name in day.by_reason))
    headings = ("after", "snapshots", *reasons, "oldest taken")
    rows = [
        (
            render.plural(day.day, "day"),
            day.snapshots,
            *(day.by_reason.get(name, 0) for name in reasons),
            render.moment(day.oldest) if day.oldest else "",
        )
        for day in found.days
    ]
    yield render.table(headings, rows, right=range(1, len(reasons) + 2))
    if found.carriers:
        counted = ", ".join(f"{count:,} {tier}" for tier, count in found.carriers.items())
        yield f"carried: {counted}; what is new in those is locked twice, first for 'within'"
    if found.first_until is not None:
        until = f"{render.moment(found.first_until)}, {(found.first_until - now).days:,} days"
        bound = "; under compliance locks nothing removes it earlier"
        yield (
            f"what the first run stores is kept until {until} from now"
            f"{bound if each.lock == 'compliance' else ''}"
        )


def _fields(each: _Simulated) -> dict[str, object]:
    found = each.found
    return {
        "dataset": each.dataset,
        "cron": each.cron,
        "runs": found.runs,
        "carriers": dict(found.carriers),
        "first_until": _time(found.first_until),
        "last_until": _time(found.last_until),
        "days": [
            {
                "day": day.day,
                "snapshots": day.snapshots,
                "by_reason": dict(day.by_reason),
                "oldest": _time(day.oldest),
            }
            for day in found.days
        ],
    }


def _time(moment: datetime | None) -> str | None:
    return None if moment is None else to_rfc3339(moment)
