"""What holds between the keys of a policy file, and what is worth a second thought."""

import itertools
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Final

from msgspec import UNSET, UnsetType

from vault.durations import format_duration, parse_duration
from vault.errors import ConfigError
from vault.model import LATEST, Severity
from vault.patterns import matcher
from vault.policy.checks import check_problems
from vault.policy.dataset_names import HOST, may_be_one
from vault.policy.keeping import TIER_LENGTHS
from vault.policy.problems import PolicyProblem
from vault.policy.schedules import CronSchedule, known_zone
from vault.policy.settings import (
    EffectiveRetention,
    effective_objectives,
    effective_retention,
    tier_keep,
)
from vault.policy.tables import (
    AfterTable,
    BeforeTable,
    DatasetTable,
    NotifyTable,
    ObjectivesTable,
    PolicyTable,
    RetentionTable,
)

_NOTICED: Final = timedelta(days=7)  # within which a taken-over host should be noticed (P7)
_OBJECTIVES: Final = ("rpo", "rto", "verify", "drill")


def rule_problems(policy: PolicyTable) -> Iterator[PolicyProblem]:
    """Errors and warnings, in the order of the file's tables."""
    yield from _of_zone(policy)
    yield from _of_durations(policy)
    yield from _of_datasets(policy)
    for at, hook in _hooks(policy):
        yield from _of_hook(hook, at, policy)
    for index, notify in enumerate(policy.notify):
        yield from _of_notify(notify, f"notify[{index}]")
    if not any(_of_zone(policy)) and not any(_of_durations(policy)):
        for index, dataset in enumerate(policy.dataset):
            yield from _of_keeping(policy, dataset, f"dataset[{index}]")
        yield from _of_schedules(policy)


def _error(key: str, what: str, fix: str = "") -> PolicyProblem:
    return PolicyProblem(key=key, what=what, fix=fix)


def _warning(key: str, what: str, fix: str) -> PolicyProblem:
    return PolicyProblem(key=key, what=what, fix=fix, severity=Severity.WARNING)


def _of_zone(policy: PolicyTable) -> Iterator[PolicyProblem]:
    try:
        known_zone(policy.timezone)
    except ConfigError as error:
        yield _error("timezone", str(error), error.hint or "")


# --- durations ---


def _of_durations(policy: PolicyTable) -> Iterator[PolicyProblem]:
    """Those that are longer than any lock can be."""
    for at, value in _durations(policy):
        tier = at.rpartition(".")[2]
        try:
            if tier in TIER_LENGTHS:
                tier_keep(tier, value)
            elif isinstance(value, str):
                parse_duration(value)
        except ConfigError:
            yield _error(at, f"{value} is over a hundred years", "no lock lasts longer")


def _durations(policy: PolicyTable) -> Iterator[tuple[str, object]]:
    if not isinstance(policy.schedule, UnsetType):
        yield "schedule.jitter", policy.schedule.jitter
    tables: list[tuple[str, DatasetTable | PolicyTable]] = [("", policy)]
    tables += [(f"dataset[{index}].", each) for index, each in enumerate(policy.dataset)]
    for at, table in tables:
        for name in ("within", *TIER_LENGTHS):
            yield f"{at}retention.{name}", getattr(table.retention, name)
        for name in _OBJECTIVES:
            yield f"{at}objectives.{name}", getattr(table.objectives, name)
        if isinstance(table, DatasetTable):
            yield f"{at}timeout", table.timeout
    for at, hook in _hooks(policy):
        yield f"{at}.timeout", hook.timeout
    for index, notify in enumerate(policy.notify):
        yield f"notify[{index}].timeout", notify.timeout


# --- datasets ---


def _of_datasets(policy: PolicyTable) -> Iterator[PolicyProblem]:
    for index, dataset in enumerate(policy.dataset):
        at = f"dataset[{index}]"
        yield from _of_name(dataset.name, at, [each.name for each in policy.dataset[:index]])
        yield from _of_source(dataset, at)
        yield from _of_paths(dataset.paths, at)
        try:
            matcher(dataset.exclude)
        except ConfigError as error:
            yield _error(f"{at}.exclude", str(error), "write it as in a .gitignore")
        yield from check_problems(dataset, at)


def _of_name(name: str, at: str, before: Sequence[str]) -> Iterator[PolicyProblem]:
    if name == LATEST:
        yield _error(f"{at}.name", f"no dataset may be called {LATEST}", "it means the newest")
    if len(name.replace(HOST, "h")) > 63:
        yield _error(f"{at}.name", "is longer than 63 characters", "shorten it")
    for other in before:
        if name == other:
            yield _error(f"{at}.name", f"{name} is there already", "name each dataset once")
        elif may_be_one(name, other):
            yield _error(
                f"{at}.name",
                f"{name} and {other} are one dataset on some host",
                "name them so that no host's name makes them equal",
            )


def _of_source(dataset: DatasetTable, at: str) -> Iterator[PolicyProblem]:
    has_command = dataset.command is not UNSET
    if bool(dataset.paths) == has_command:
        yield _error(at, "needs either paths or command", "give one of them")
    if has_command and dataset.file is UNSET:
        yield _error(f"{at}.command", "needs file", 'name the file that it becomes: file = "…"')
    if has_command:
        for name in ("exclude", "exclude_from", "exclude_caches", "exclude_if_present"):
            if getattr(dataset, name):
                yield _error(f"{at}.{name}", "goes with paths", "take it out")
        if dataset.one_file_system:
            yield _error(f"{at}.one_file_system", "goes with paths", "take it out")
    else:
        for name in ("file", "timeout"):
            if getattr(dataset, name) is not UNSET:
                yield _error(f"{at}.{name}", "goes with command", "take it out")


def _of_paths(paths: Sequence[str], at: str) -> Iterator[PolicyProblem]:
    split = sorted([part for part in path.split("/") if part] for path in paths)
    for path in paths:
        if {".", ".."} & set(path.split("/")):
            yield _error(f"{at}.paths", f"{path} has '.' or '..' in it", "write the full path")
    for above, below in itertools.pairwise(split):
        if below[: len(above)] == above:
            a, b = "/" + "/".join(above), "/" + "/".join(below)
            what = f"{b} is there twice" if a == b else f"{b} lies in {a}"
            yield _error(f"{at}.paths", what, "name each once")


# --- retention ---


def _of_keeping(policy: PolicyTable, dataset: DatasetTable, at: str) -> Iterator[PolicyProblem]:
    effective = effective_retention(policy, dataset)
    if effective.within < _NOTICED:
        yield _warning(
            _said(dataset.retention, "within", at),
            f"a host that is taken over can shorten all but the"
            f" {format_duration(effective.within)} of within",
            "7d or more leave time to notice",
        )
    yield from _of_tiers(dataset.retention, effective, at)


def _of_tiers(
    said: RetentionTable, effective: EffectiveRetention, at: str
) -> Iterator[PolicyProblem]:
    for name, keep in effective.tiers.items():
        key = _said(said, name, at)
        if keep <= effective.within:
            yield _warning(
                key,
                f"keeps nothing: within keeps every snapshot for"
                f" {format_duration(effective.within)} already",
                f"{name} = 0, or more than within",
            )


def _said(table: RetentionTable | ObjectivesTable, name: str, at: str) -> str:
    """Where a key is said: in the dataset's own table, else at the top."""
    kind = "retention" if isinstance(table, RetentionTable) else "objectives"
    inherited = getattr(table, name) is UNSET
    return f"{kind}.{name}" if inherited else f"{at}.{kind}.{name}"


# --- schedules ---


def _of_schedules(policy: PolicyTable) -> Iterator[PolicyProblem]:
    lines: dict[str, str] = {}
    if not isinstance(policy.schedule, UnsetType):
        lines["schedule.cron"] = policy.schedule.cron
    for index, dataset in enumerate(policy.dataset):
        if isinstance(dataset.cron, str):
            lines[f"dataset[{index}].cron"] = dataset.cron
    parsed: dict[str, CronSchedule] = {}
    for at, line in lines.items():
        try:
            parsed[at] = CronSchedule(line, known_zone(policy.timezone))
        except ConfigError as error:
            yield _error(at, str(error), error.hint or "minute hour day month weekday")
            continue
        if skipped := parsed[at].skipped():
            yield _warning(
                at,
                f"the clocks of {policy.timezone} skip {skipped:%H:%M} on {skipped:%Y-%m-%d},"
                " and systemd then starts nothing",
                "move it, or take timezone UTC",
            )
    yield from _of_gaps(policy, parsed)


def _of_gaps(policy: PolicyTable, parsed: dict[str, CronSchedule]) -> Iterator[PolicyProblem]:
    jitter = timedelta()
    if not isinstance(policy.schedule, UnsetType):
        jitter = parse_duration(policy.schedule.jitter)
    told: set[str] = set()
    for index, dataset in enumerate(policy.dataset):
        own = f"dataset[{index}].cron"
        schedule = parsed.get(own) or parsed.get("schedule.cron")
        rpo = effective_objectives(policy, dataset).get("rpo")
        key = _said(dataset.objectives, "rpo", f"dataset[{index}]")
        if schedule is None or rpo is None or (key in told and own not in parsed):
            continue
        gap = schedule.longest_gap()
        if rpo < gap + jitter:
            told.add(key)
            yield _error(
                key,
                f"{format_duration(rpo)} can't be met by {dataset.name}: runs are up to"
                f" {format_duration(gap)} and {format_duration(jitter)} of jitter apart",
                f"{format_duration(gap + jitter)} or more, or run more often",
            )


# --- hooks and messages ---


def _hooks(policy: PolicyTable) -> Iterator[tuple[str, BeforeTable | AfterTable]]:
    for index, before in enumerate(policy.before):
        yield f"before[{index}]", before
    for index, after in enumerate(policy.after):
        yield f"after[{index}]", after


def _of_hook(
    hook: BeforeTable | AfterTable, at: str, policy: PolicyTable
) -> Iterator[PolicyProblem]:
    names = [dataset.name for dataset in policy.dataset]
    for name in hook.datasets:
        if name not in names:
            yield _error(f"{at}.datasets", f"there is no dataset {name}", f"one of {_few(names)}")


def _of_notify(notify: NotifyTable, at: str) -> Iterator[PolicyProblem]:
    wanted = "run" if notify.style == "command" else "url"
    other = "url" if wanted == "run" else "run"
    if getattr(notify, wanted) is UNSET:
        yield _error(at, f"style {notify.style} needs {wanted}", f"add {wanted}")
    if getattr(notify, other) is not UNSET:
        yield _error(f"{at}.{other}", f"goes with another style than {notify.style}", "take it out")


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
