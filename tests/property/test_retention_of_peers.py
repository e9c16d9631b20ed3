"""Ten worked examples beside what restic and borg keep; docs/retention.md shows them.

The peers' answers were recorded from the real programs, by tests/vectors/retention_of_peers.py.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from vault.durations import parse_duration
from vault.policy.keeping import TIER_LENGTHS, KeepRules, PastSnapshot, decide

TOP = Path(__file__).parents[2]
RECORDED = json.loads((TOP / "tests/vectors/retention_of_peers.json").read_text())
EXAMPLES = RECORDED["examples"]
SHORTEST = timedelta(minutes=1)


def moment(text: str) -> datetime:
    """As the file has it."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def ours(example: Mapping[str, Any]) -> list[datetime]:
    """What the vault keeps, without the 24 hours that it adds: so the rules are compared.

    That is what is owed when one looks, and the newest `last` complete ones, one a day.
    """
    keep = dict(example["keep"])
    rules = KeepRules(
        within=parse_duration(keep.pop("within", "1s")),
        tiers={tier: count * TIER_LENGTHS[tier] for tier, count in keep.items()},
        zone=ZoneInfo(example["zone"]),
    )
    past: list[PastSnapshot] = []
    claimed = {}
    for text, stored_text, complete in zip(
        example["times"], example["stored"], example["complete"], strict=True
    ):
        created, stored = moment(text), moment(stored_text)
        when = min(created, stored)  # a time in the future counts as the store's
        found = decide(rules, past, host="a", created=when, complete=complete, minimum=SHORTEST)
        until = stored + found.keep
        past.append(PastSnapshot(host="a", when=when, until=until, complete=complete))
        claimed[id(past[-1])] = created, stored
    looked = moment(example["looked"])
    owed = [each for each in past if each.until > looked]
    newest: dict[object, PastSnapshot] = {}
    for each in sorted(past, key=lambda each: claimed[id(each)][1]):
        if each.complete:
            newest[claimed[id(each)][1].date()] = each
    last = list(newest.values())[-example["last"] :]
    return sorted({claimed[id(each)][0] for each in [*owed, *last]})


def row(number: int, example: Mapping[str, Any]) -> str:
    """One line of the page's table."""
    asked = ", ".join(f"{name} {value}" for name, value in example["keep"].items())
    peers = [sorted(map(moment, example[name])) for name in ("restic", "borg")]
    columns = [*peers, ours(example)]
    times = [each for column in columns for each in column]
    form = "%d.%H" if len({each.hour for each in times}) > 1 else "%m-%d"
    cells = " | ".join(cell(column, form) for column in columns)
    return f"| {number} {example['title']}; {asked} | {cells} |"


def cell(times: Sequence[datetime], form: str) -> str:
    """How many, and which; of many the ends."""
    shown = [f"{each:{form}}" for each in times]
    if len(shown) > 8:
        shown = [*shown[:4], "…", *shown[-2:]]
    return f"{len(times)}: {' '.join(shown)}"


@pytest.mark.parametrize("number", range(1, 11))
def test_the_page_has_each_example_as_the_programs_answered(number: int) -> None:
    """The peers' answers from the recording, the vault's from its decision."""
    page = (TOP / "docs/retention.md").read_text()
    assert row(number, EXAMPLES[number - 1]) in page


def test_the_page_names_the_versions_that_answered() -> None:
    """Others may answer otherwise."""
    page = (TOP / "docs/retention.md").read_text()
    assert RECORDED["restic"].startswith("restic ")
    assert RECORDED["borg"].startswith("borg ")
    for name in ("restic", "borg"):
        version = " ".join(RECORDED[name].split()[:2])
        assert version in page


def test_a_thief_who_dates_back_takes_the_good_runs_from_the_peers_and_none_from_the_vault() -> (
    None
):
    """Example 5: five good runs, then five that are dated back to the evenings of their days."""
    example = EXAMPLES[4]
    good = set(map(moment, example["times"][:5]))
    assert not good & set(map(moment, example["restic"]))
    assert not good & set(map(moment, example["borg"]))
    assert good <= set(ours(example))


def test_the_vault_keeps_the_first_of_a_period_and_the_peers_the_last() -> None:
    """Example 1: of four runs a day."""
    example = EXAMPLES[0]
    assert {moment(each).hour for each in example["restic"]} == {18}
    assert {moment(each).hour for each in example["borg"]} == {18}
    assert [each.hour for each in ours(example)[:-1]] == [0] * 7


def test_the_peers_give_up_a_complete_run_for_an_incomplete_one() -> None:
    """Example 6: the later run of each day misses files."""
    example = EXAMPLES[5]
    complete = {moment(t) for t, c in zip(example["times"], example["complete"], strict=True) if c}
    assert complete <= set(ours(example))
    assert not complete <= set(map(moment, example["restic"]))
    assert not complete <= set(map(moment, example["borg"]))


def test_the_peers_keep_more_where_time_has_run_out() -> None:
    """Example 3: after 40 days off they count what is there; here `last` holds three."""
    example = EXAMPLES[2]
    assert len(ours(example)) == 3
    assert len(example["restic"]) == len(example["borg"]) == 7
