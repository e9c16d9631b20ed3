"""Snapshots that promise less than was asked: the decision is repeated from public data."""

from datetime import timedelta
from pathlib import Path

import pytest

from tests.support.lab import Lab
from tests.support.policies import (
    apply_terms,
    edited,
    governed_snapshot,
    keeper_of,
    policy_terms,
    state_policy,
)
from tests.support.trees import MakeSource
from vault.policy.kept_short import kept_short
from vault.repository.repository import snapshot_body
from vault.snapshot.snapshot_request import FixedKeeper

DAY = timedelta(days=1)


@pytest.fixture
def source(make_source: MakeSource) -> Path:
    """A small tree."""
    return make_source(files=1)


def short(lab: Lab) -> list[tuple[int, bool]]:
    """Numbers of snapshots that are kept too short, and whether that is sure."""
    return [(each.record.seq, each.sure) for each in kept_short(lab.open())]


def test_snapshots_that_obey_are_no_finding(lab: Lab, source: Path) -> None:
    """Through weeks, with a failed check, a policy that changes, and runs by two hosts."""
    apply_terms(lab, policy_terms())
    other = lab.with_host(lab.enrol("other"))
    for number in range(30):
        lab.clock.advance(hours=9, minutes=number)
        record = governed_snapshot(lab, source).record
        if number % 7 == 3:
            keeper = keeper_of(other, host=other.host)
            other.snapshot(source, keeper=keeper)
        if number == 8:
            lab.say("restore", record.seq, "failed")
        if number == 12:
            apply_terms(lab, edited({"daily = 14": "daily = 20"}))
        if number == 20:
            lab.say("restore", record.seq, "passed")
            apply_terms(lab, edited({"daily = 14": "daily = 10"}))
    assert short(lab) == []


def test_a_snapshot_that_is_kept_too_short_is_found(lab: Lab, source: Path) -> None:
    """By the whole decision: within `within`, and as the first of its periods."""
    lab.snapshot(source, keeper=FixedKeeper(DAY))
    apply_terms(lab, policy_terms())
    lab.clock.advance(hours=1)
    first = lab.snapshot(source, keeper=FixedKeeper(6 * DAY)).record
    lab.clock.advance(hours=1)
    second = lab.snapshot(source, keeper=FixedKeeper(10 * DAY)).record
    lab.clock.advance(hours=1)
    good = governed_snapshot(lab, source).record
    lab.clock.advance(hours=1)
    third = lab.snapshot(source, keeper=FixedKeeper(7 * DAY)).record
    lab.clock.advance(hours=1)
    fourth = lab.snapshot(source, keeper=FixedKeeper(6 * DAY)).record
    assert short(lab) == [(first.seq, True), (second.seq, True), (fourth.seq, True)]
    assert {good.seq, third.seq}.isdisjoint(seq for seq, _ in short(lab))
    [found, *_] = kept_short(lab.open())
    assert found.policy == "web"
    assert found.reasons == ("first daily of 2030-01-01", "first monthly of 2030-01")
    assert found.asked - snapshot_body(found.record).created == 373 * DAY


def test_a_host_that_ignores_a_failed_check_is_found(lab: Lab, source: Path) -> None:
    """The snapshot that failed covers nothing, so the next one had to carry its tiers."""
    apply_terms(lab, policy_terms())
    first = governed_snapshot(lab, source).record
    lab.clock.advance(hours=1)
    before = lab.snapshot(source, keeper=FixedKeeper(7 * DAY)).record
    lab.say("restore", first.seq, "failed")
    lab.clock.advance(hours=1)
    after = lab.snapshot(source, keeper=FixedKeeper(7 * DAY)).record
    assert short(lab) == [(after.seq, True)]
    assert before.seq not in dict(short(lab))


def test_what_would_be_right_a_day_earlier_or_later_is_not_sure(lab: Lab, source: Path) -> None:
    """Zone data that changes past rules may move the border of a period."""
    apply_terms(lab, edited({"monthly = 12": "monthly = 0"}))
    lab.clock.advance(hours=1)
    governed_snapshot(lab, source)
    lab.clock.advance(hours=23)
    record = lab.snapshot(source, keeper=FixedKeeper(7 * DAY)).record
    assert short(lab) == [(record.seq, False)]


def test_a_policy_asks_nothing_of_what_was_taken_before_or_after_it(lab: Lab, source: Path) -> None:
    """Nor one that is not used."""
    lab.snapshot(source, keeper=FixedKeeper(DAY))
    assert short(lab) == []
    first = apply_terms(lab, policy_terms())
    state_policy(lab, edited({'within = "7d"': 'within = "1d"'}), weakens=False)
    state_policy(lab, policy_terms(), action="withdraw", weakens=True, previous=first.seq)
    lab.clock.advance(hours=1)
    lab.snapshot(source, keeper=FixedKeeper(DAY))
    assert short(lab) == []
