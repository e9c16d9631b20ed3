"""The recovery checks of a dataset: what holds between their keys, and the digest of all.

This program does not run them yet. Their digest is a term, so what is agreed on is fixed.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
from msgspec import UNSET

from vault.durations import LONGEST_DURATION, parse_duration
from vault.encoding import dumps
from vault.errors import ConfigError
from vault.model import Digest
from vault.policy.expectations import check_expectation
from vault.policy.problems import PolicyProblem
from vault.policy.tables import (
    AnyCheck,
    CommandCheck,
    DatasetTable,
    FileCheck,
    MariadbCheck,
    PostgresqlCheck,
    RedisCheck,
    SqliteCheck,
)

_EXPECTATIONS = ("expect", "stdout", "count", "size")
_LONGEST_CHECK = 86_400  # seconds
_DURATIONS = ("timeout", "interval")


def checks_json(checks: Sequence[AnyCheck]) -> bytes:
    """The canonical JSON of a dataset's checks: every key that was said or has a default."""
    return dumps(msgspec.to_builtins(list(checks), enc_hook=_no_other))


def checks_digest(checks: Sequence[AnyCheck]) -> str:
    """SHA-256 of `checks_json`, hex; empty for a dataset without checks."""
    return str(Digest.of(checks_json(checks))) if checks else ""


def check_problems(dataset: DatasetTable, path: str) -> Iterator[PolicyProblem]:
    """What is wrong between the keys of a dataset's checks; `path` is the dataset's."""
    names: set[str] = set()
    for index, check in enumerate(dataset.check):
        at = f"{path}.check[{index}]"
        if check.name in names:
            yield PolicyProblem(
                key=f"{at}.name", what=f"{check.name} is there already", fix="name it otherwise"
            )
        names.add(check.name)
        yield from _of_durations(check, at)
        yield from _of_expectations(check, at)
        yield from _of_kind(check, at)


def _no_other(value: object) -> Any:
    raise AssertionError(f"a check holds {type(value).__name__}")


def _of_durations(check: AnyCheck, at: str) -> Iterator[PolicyProblem]:
    for name in _DURATIONS:
        try:
            seconds = parse_duration(getattr(check, name)).total_seconds()
        except ConfigError:
            seconds = LONGEST_DURATION
        if seconds > _LONGEST_CHECK:
            yield PolicyProblem(key=f"{at}.{name}", what="is over a day", fix="at most 24h")


def _of_expectations(check: AnyCheck, at: str) -> Iterator[PolicyProblem]:
    for name in _EXPECTATIONS:
        text = getattr(check, name, UNSET)
        if text is UNSET:
            continue
        try:
            check_expectation(text)
        except ConfigError as error:
            yield PolicyProblem(key=f"{at}.{name}", what=str(error), fix=error.hint or "")


def _of_kind(check: AnyCheck, at: str) -> Iterator[PolicyProblem]:
    match check:
        case FileCheck(exists=False):
            asked = [n for n in ("count", "size", "sha256", "newest") if _has(check, n)]
            if asked:
                yield PolicyProblem(
                    key=f"{at}.{asked[0]}",
                    what="goes with exists = true",
                    fix="take one of them out",
                )
        case PostgresqlCheck() | MariadbCheck():
            yield from _one_of(check, "data", "dump", at)
            yield from _goes_with(check, "expect", "sql", at)
        case RedisCheck():
            yield from _one_of(check, "rdb", "aof", at)
            if _has(check, "expect") and not check.run:
                yield PolicyProblem(
                    key=f"{at}.expect", what="needs run", fix="say which command answers"
                )
        case SqliteCheck():
            yield from _goes_with(check, "expect", "sql", at)
        case FileCheck() | CommandCheck():
            pass


def _one_of(check: AnyCheck, one: str, other: str, at: str) -> Iterator[PolicyProblem]:
    if _has(check, one) == _has(check, other):
        yield PolicyProblem(key=at, what=f"needs either {one} or {other}", fix="give one of them")


def _goes_with(check: AnyCheck, name: str, needed: str, at: str) -> Iterator[PolicyProblem]:
    if _has(check, name) != _has(check, needed):
        there, absent = (name, needed) if _has(check, name) else (needed, name)
        yield PolicyProblem(key=f"{at}.{there}", what=f"needs {absent}", fix=f"add {absent}")


def _has(check: AnyCheck, name: str) -> bool:
    return getattr(check, name) is not UNSET
