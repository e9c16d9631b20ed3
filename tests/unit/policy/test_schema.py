"""The published JSON Schema and the code accept the same."""

import copy
import json
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vault.policy.schema import policy_schema, policy_schema_text
from vault.policy.shape import shape_problems

TOP = Path(__file__).parents[3]
EXAMPLES = sorted((TOP / "policies").glob("*.toml"))
VALUES = [tomllib.loads(path.read_text()) for path in EXAMPLES]
JUDGE = jsonschema.Draft202012Validator(policy_schema())
MINIMAL: dict[str, Any] = {"policy": 1, "name": "a", "dataset": [{"name": "a", "paths": ["/a"]}]}


def test_the_published_schema_is_that_of_the_code() -> None:
    """`make docs` writes it."""
    assert (TOP / "docs/policy.schema.json").read_text("utf-8") == policy_schema_text()
    jsonschema.Draft202012Validator.check_schema(json.loads(policy_schema_text()))


@pytest.mark.parametrize("values", VALUES, ids=[path.stem for path in EXAMPLES])
def test_every_example_is_valid_by_both(values: Any) -> None:
    """By the types and by the schema."""
    assert shape_problems(values) == []
    assert list(JUDGE.iter_errors(values)) == []


def test_each_example_names_the_schema_in_its_first_line() -> None:
    """An editor finds it there."""
    assert len(EXAMPLES) >= 9
    for path in EXAMPLES:
        assert path.read_text().splitlines()[0] == "#:schema ../docs/policy.schema.json"


ODD = [
    0, 1, -1, 3, 20, 64, 101, 1000, 1001, 100_000, 100_001, 2**64, True, False, "", "a", "1",
    "30d", "0d", "01d", "30d\n", "30 d", "1000000000y", "A", "-a", "a" * 64, "a" * 63, "web\n",
    "{host}", "{host}-a", "{host}{host}", "a{host}", "{hots}", "/", "/a", "a/b", "../a", "a/..",
    "/a\x00", "a\tb", "a\nb", "a\x7f", "file:/a", "file:a", "env:A", "env:a", "credential:a",
    "http://localhost", "http://localhost:80/x", "https://localhost", "http://localhost.evil",
    "http://127.0.0.1/\n", "governance", "compliance", "none", "stand-in", "never", "run", "skip",
    "command", "sqlite", "file", "value", "start", [], ["a"], [""], ["/a"], [["a"]], [[]], [1],
    {}, {"a": 1}, [{}], [{"name": "a"}], [{"kind": "sqlite", "name": "a"}],
    [{"kind": "nothing", "name": "a"}], [{"name": "a", "paths": ["/a"]}] * 65, ["a"] * 1001,
    "x" * 4096, "x" * 4097, "/" + "x" * 4000, "/" + "x" * 4001, "é", "١d", "@daily", "* * * * *",
]  # fmt: skip


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    members: list[tuple[Any, Any]] = list(value.items()) if isinstance(value, dict) else []
    if isinstance(value, list):
        members = list(enumerate(value))
    return [path, *(place for key, each in members for place in _places(each, (*path, key)))]


def _keys() -> list[str]:
    schema = policy_schema()["$defs"]
    return sorted({key for table in schema.values() for key in table.get("properties", {})})


@st.composite
def _changed(draw: st.DrawFn) -> Any:
    """An example with up to three of its values changed, added or taken away."""
    values = copy.deepcopy(draw(st.sampled_from([*VALUES, MINIMAL])))
    for _ in range(draw(st.integers(1, 3))):
        *above, last = draw(st.sampled_from(_places(values)[1:]))
        holder = values
        for key in above:
            holder = holder[key]
        kind = draw(st.sampled_from(["change", "add", "remove"]))
        if kind == "remove":
            del holder[last]
        elif kind == "add" and isinstance(holder, dict):
            holder[draw(st.sampled_from([*_keys(), "nonsense", "Name", ""]))] = copy.deepcopy(
                draw(st.sampled_from(ODD))
            )
        else:
            holder[last] = copy.deepcopy(draw(st.sampled_from(ODD)))
    return values


@settings(max_examples=100, deadline=None)
@given(values=_changed())
def test_code_and_schema_accept_the_same(values: Any) -> None:
    """Whatever is changed in a policy."""
    assert (shape_problems(values) == []) is JUDGE.is_valid(values)


SMALL: dict[str, Any] = {  # a place for each table: its least
    "PolicyTable": {},
    "ScheduleTable": {"schedule": {"cron": "@daily"}},
    "ObjectivesTable": {"objectives": {}},
    "RetentionTable": {"retention": {}},
    "DatasetTable": {"dataset": [{"name": "a", "paths": ["/a"]}]},
    "BeforeTable": {"before": [{"run": ["a"]}]},
    "AfterTable": {"after": [{"run": ["a"]}]},
    "NotifyTable": {"notify": [{"on": ["done"]}]},
    "MetricsTable": {"metrics": {"file": "/a"}},
}
CHECKS: dict[str, Any] = {
    "FileCheck": {"kind": "file", "name": "a", "glob": "a"},
    "CommandCheck": {"kind": "command", "name": "a", "run": ["a"]},
    "SqliteCheck": {"kind": "sqlite", "name": "a"},
    "PostgresqlCheck": {"kind": "postgresql", "name": "a", "dump": "a"},
    "MariadbCheck": {"kind": "mariadb", "name": "a", "dump": "a"},
    "RedisCheck": {"kind": "redis", "name": "a", "rdb": "a"},
}


def _document(table: str) -> tuple[Any, Any]:
    """A small policy, and the table of it that is to be changed."""
    values = copy.deepcopy(MINIMAL)
    if table in CHECKS:
        check = dict(CHECKS[table])
        values["dataset"][0]["check"] = [check]
        return values, check
    values.update(copy.deepcopy(SMALL[table]))
    [holder] = [values[key] for key in SMALL[table]] or [values]
    return values, holder[0] if isinstance(holder, list) else holder


@pytest.mark.parametrize("table", sorted(policy_schema()["$defs"]))
def test_an_odd_value_of_any_key_is_judged_alike(table: str) -> None:
    """Each in the place of each value of the table."""
    seen = set()
    shapes = policy_schema()["$defs"]
    keys = [*shapes[table]["properties"], "nonsense"]
    if table in CHECKS and table != "FileCheck":  # what all kinds have is tried out with one
        keys = [key for key in keys if key not in shapes["FileCheck"]["properties"]]
    for key in keys:
        for odd in ODD:
            values, holder = _document(table)
            holder[key] = odd
            is_valid = JUDGE.is_valid(values)
            assert (shape_problems(values) == []) is is_valid, (key, odd)
            seen.add(is_valid)
    assert seen == {True, False}
