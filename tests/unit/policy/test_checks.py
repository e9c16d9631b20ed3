"""Recovery checks: their digest, and what holds between their keys."""

import hashlib
import json
import tomllib

import msgspec
import pytest

from vault.errors import ConfigError
from vault.policy.checks import check_problems, checks_digest
from vault.policy.expectations import check_expectation
from vault.policy.tables import DatasetTable

CHECKS = """
name = "db"
paths = ["/a"]
[[check]]
name = "counts"
kind = "sqlite"
path = "a.db"
sql = "select 1"
expect = ">= 1"
[[check]]
name = "runs"
kind = "command"
run = ["true"]
timeout = "5m"
"""


def dataset(text: str) -> DatasetTable:
    """A dataset with the checks of that text."""
    return msgspec.convert(tomllib.loads(text), DatasetTable, strict=True)


def test_the_digest_is_that_of_the_canonical_json_of_the_tables() -> None:
    """Sorted names, no white space, defaults written out, in the order of the file."""
    common = {"attest": [], "interval": "2s", "path": ".", "required": True, "retries": 0}
    tables = [
        {**common, "kind": "sqlite", "name": "counts", "path": "a.db", "sql": "select 1",
         "expect": ">= 1", "timeout": "60s"},
        {**common, "kind": "command", "name": "runs", "run": ["true"], "exit": 0,
         "timeout": "5m"},
    ]  # fmt: skip
    text = json.dumps(tables, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    wanted = hashlib.sha256(text.encode()).hexdigest()
    assert checks_digest(dataset(CHECKS).check) == wanted
    assert checks_digest([]) == ""


@pytest.mark.parametrize(
    ("old", "new"),
    [("select 1", "select 2"), ('"5m"', '"6m"'), ("runs", "run"), (">= 1", "> 1"), ("a.db", "b")],
)
def test_the_digest_follows_every_value(old: str, new: str) -> None:
    """And not the order of keys, or what is left at its default."""
    digest = checks_digest(dataset(CHECKS).check)
    assert checks_digest(dataset(CHECKS.replace(old, new)).check) != digest
    same = CHECKS.replace('sql = "select 1"\nexpect = ">= 1"', 'expect = ">= 1"\nsql = "select 1"')
    assert same != CHECKS
    assert checks_digest(dataset(same).check) == digest
    assert checks_digest(dataset(CHECKS + "retries = 0\n").check) == digest


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ('kind = "postgresql"', "needs either data or dump"),
        ('kind = "postgresql"\ndata = "a"\ndump = "b"', "needs either data or dump"),
        ('kind = "mariadb"\ndump = "b"\nsql = "x"', "needs expect"),
        ('kind = "redis"', "needs either rdb or aof"),
        ('kind = "redis"\nrdb = "a"\nexpect = "> 1"', "needs run"),
        ('kind = "file"\nglob = "a"\nexists = false\ncount = "> 1"', "goes with exists = true"),
        ('kind = "command"\nrun = ["a"]\nstdout = "~ ["', "regular expression is malformed"),
        ('kind = "sqlite"\ninterval = "25h"', "is over a day"),
        ('kind = "sqlite"\n[[check]]\nname = "c"\nkind = "sqlite"', "c is there already"),
    ],
)
def test_keys_that_do_not_go_together_are_said(lines: str, said: str) -> None:
    """With the check that has them."""
    table = dataset(f'name = "a"\npaths = ["/a"]\n[[check]]\nname = "c"\n{lines}\n')
    problems = list(check_problems(table, "dataset[0]"))
    assert [each for each in problems if said in each.what]
    assert all(each.key.startswith("dataset[0].check[") and each.fix for each in problems)


@pytest.mark.parametrize(
    "text",
    [
        ">= 1000", "==0", "< -5", '== "ok"', '!="bad"', "~ ^PostgreSQL 1[5-9]",
        "within 5% of PREVIOUS",
    ],
)  # fmt: skip
def test_an_expectation_has_one_of_three_forms(text: str) -> None:
    """A comparison, a regular expression, or nearness to the last answer."""
    check_expectation(text)


@pytest.mark.parametrize(
    "text", ["", "ok", "= 1", "=> 1", ">= 1.5", '> "a"', '== "a', "~", "~ (", "within 5 of x", "1"]
)
def test_anything_else_expects_nothing(text: str) -> None:
    """Nothing is guessed."""
    with pytest.raises(ConfigError):
        check_expectation(text)
