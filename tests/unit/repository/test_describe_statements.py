"""What people are told of statements: who, when, how it ended, what came of it."""

from datetime import timedelta
from typing import Any

import pytest

from tests.support.lab import Lab, MakeRepository
from tests.support.trees import MakeSource
from vault.errors import ConfigError
from vault.format import inventory
from vault.ledger.records import Record
from vault.ledger.statements import HeartbeatBody, HoldBody, PruneBody
from vault.model import Digest
from vault.repository.append_statements import Draft
from vault.repository.describe_statements import (
    Chronicle,
    Effect,
    cited_digest,
    doomed_needs,
    later_about,
    look_up,
    statement_at,
)
from vault.repository.enrolment import revoke_writer
from vault.repository.hosts import find_writer


@pytest.fixture
def lab(make_repository: MakeRepository, make_source: MakeSource) -> Lab:
    """2 and 3: snapshots of two datasets, a day apart."""
    made: Lab = make_repository()
    source = make_source()
    made.snapshot(source)
    made.clock.advance(days=1)
    made.snapshot(source, dataset="other")
    return made


def append(lab: Lab, kind: str, body: Any, signer: Any) -> Record:
    """One statement, whatever it cites."""
    draft = Draft(type=kind, subject=[("x", Digest(bytes(32)))], body=body)
    return lab.open().append(lambda _: draft, [signer], tool="vault test")


def record(lab: Lab, seq: int) -> Record:
    """As it stands now."""
    return statement_at(lab.open().ledger, seq)


def chosen(lab: Lab, **wanted: Any) -> list[int]:
    """Numbers of the statements that are asked for."""
    return [each.seq for each in Chronicle(lab.open().ledger).choose(**wanted)]


def test_who_signed_is_named_as_listed(lab: Lab) -> None:
    """Keys of the root by their name there, hosts by theirs, each with id and role."""
    ledger = lab.open().ledger
    told = Chronicle(ledger)
    views = [told.view(each) for each in ledger.records]
    assert all(len(view.signers) == 1 for view in views)
    signers = [view.signers[0] for view in views]
    assert [(each.name, each.roles) for each in signers] == [
        ("root", ("root",)),
        ("enroller", ("enroller",)),
        ("first", ("writer",)),
        ("first", ("writer",)),
    ]
    assert signers[0].key == lab.root_key.root.public.id
    assert signers[2].key == lab.host.key.signing.public.id
    assert signers[2].revoked is None


def test_a_statement_stands_as_later_ones_left_it(lab: Lab) -> None:
    """Valid, or distrusted by a revocation that came later; which is named on both sides."""
    beat = append(lab, "heartbeat", HeartbeatBody(note="x"), lab.host.key.signing)
    repository = lab.open()
    revoke_writer(
        repository,
        lab.root_key.enroller,
        find_writer(repository.ledger, "first"),
        distrust_from=3,
        reason="stolen",
        tool="vault test",
    )
    ledger = lab.open().ledger
    told = Chronicle(ledger)
    effects = [told.view(each).effect for each in ledger.records]
    assert effects[2:] == [Effect.VALID, Effect.DISTRUSTED, Effect.DISTRUSTED, Effect.VALID]
    assert ledger.records[3].distrusted_by == 5
    assert told.view(ledger.records[2]).signers[0].revoked == 5
    assert [each.seq for each in later_about(ledger, ledger.records[3])] == [5]
    assert [each.seq for each in later_about(ledger, ledger.records[beat.seq])] == [5]
    assert later_about(ledger, ledger.records[2]) == []
    assert [each.seq for each in later_about(ledger, ledger.records[1])] == [5]


def test_both_clocks_are_told_and_a_claim_far_off_is_marked(lab: Lab) -> None:
    """The store's time is what counts; 15 minutes are no word worth."""
    ledger = lab.open().ledger
    told = Chronicle(ledger)
    assert not told.view(ledger.records[3]).is_skewed
    lab.clock.advance(minutes=20)
    late = lab.open()
    payload_time = late.clock() - timedelta(minutes=16)
    late.objects.clock = lambda: payload_time
    late.objects.check_skew = lambda: None  # type: ignore[method-assign]  # as a forger does
    draft = Draft(
        type="heartbeat", subject=[("x", Digest(bytes(32)))], body=HeartbeatBody(note="x")
    )
    made = late.append(lambda _: draft, [lab.host.key.signing], tool="vault test")
    view = Chronicle(lab.open().ledger).view(record(lab, made.seq))
    assert view.is_skewed
    assert view.stored - (view.record.time or view.stored) >= timedelta(minutes=15)


def test_statements_are_chosen_by_type_number_time_and_dataset(lab: Lab) -> None:
    """A dataset's are its snapshots, what was said of them, and whose patterns match it."""
    restore = lab.say("restore", 2)
    both = lab.say("verification", [2, 3])
    hold = append(
        lab, "hold", HoldBody(action="add", snapshot=3, reason="r", author="a"), lab.root_key.policy
    ).seq
    beat = append(lab, "heartbeat", HeartbeatBody(note="x"), lab.host.key.signing).seq
    assert chosen(lab) == [0, 1, 2, 3, restore, both, hold, beat]
    assert chosen(lab, types=["snapshot", "hold"]) == [2, 3, hold]
    assert chosen(lab, first=both) == [both, hold, beat]
    assert chosen(lab, dataset="data") == [1, 2, restore, both]
    assert chosen(lab, dataset="other") == [1, 3, both, hold]
    since = lab.open().ledger.stored(record(lab, 3))
    assert chosen(lab, since=since, first=0) == [3, restore, both, hold, beat]
    assert chosen(lab, since=since, dataset="data") == [restore, both]
    assert chosen(lab, since=since + timedelta(days=9)) == []
    view = Chronicle(lab.open().ledger).view(record(lab, both))
    assert view.datasets == ("data", "other")


@pytest.mark.parametrize(
    ("wanted", "problem"),
    [
        ({"first": 4}, "no statement 4"),
        ({"first": 10**15}, "no statement 10"),
        ({"dataset": "nothing"}, "no snapshot of dataset 'nothing'"),
        ({"dataset": ""}, "no snapshot of dataset ''"),
    ],
)
def test_what_is_not_there_is_said(lab: Lab, wanted: dict[str, Any], problem: str) -> None:
    """An empty list would look like "nothing happened"."""
    with pytest.raises(ConfigError, match=problem):
        chosen(lab, **wanted)


def test_evidence_is_opened_and_compared(lab: Lab) -> None:
    """Borne out; then gone; and what cites nothing has none."""
    seq = lab.say("restore", 2, details={"files": 7})
    cited = look_up(lab.open(), record(lab, seq))
    assert cited is not None
    assert (cited.problem, cited.details["files"]) == ("", 7)
    assert look_up(lab.open(), record(lab, 2)) is None
    name = f"evidence/{cited_digest(record(lab, seq))}"
    for version in list(lab.store.versions_of(name)):
        lab.store.remove(name, version.version)
    gone = look_up(lab.open(), record(lab, seq))
    assert gone is not None
    assert "missing" in gone.problem
    assert gone.attestation is None


def test_what_an_attestation_says_otherwise_is_a_problem(lab: Lab) -> None:
    """A restorer's statement that cites the attestation of another event is not borne out."""
    first = record(lab, lab.say("restore", 2))
    forged = append(lab, "drill", first.body, lab.recovery.restorer)
    cited = look_up(lab.open(), forged)
    assert cited is not None
    assert "kind" in cited.problem


def test_what_a_prune_plan_dooms_is_counted(lab: Lab) -> None:
    """By object, for the snapshots that need it; a plan that can't be read is a problem."""
    repository = lab.open()
    needs = repository.inventory(record(lab, 2)).objects
    assert doomed_needs(repository, record(lab, 2)) == 0
    digest = repository.put_evidence(inventory.encode(needs[:2]))
    plan = append(lab, "prune", PruneBody(phase="plan", plan=str(digest)), lab.root_key.pruner)
    cited = look_up(lab.open(), plan)
    assert cited is not None
    assert (cited.objects, cited.problem) == (2, "")
    assert doomed_needs(lab.open(), record(lab, 2)) == 2
    result = append(lab, "prune", PruneBody(phase="result", plan=str(digest)), lab.root_key.pruner)
    assert [each.seq for each in later_about(lab.open().ledger, plan)] == [result.seq]
    bogus = append(lab, "prune", PruneBody(phase="plan", plan="ab" * 32), lab.root_key.pruner)
    cited = look_up(lab.open(), bogus)
    assert cited is not None
    assert "missing" in cited.problem


def test_a_plan_dooms_by_the_word_of_a_pruner_alone(lab: Lab) -> None:
    """A writer's plan is void and dooms nothing; a result names what is gone already."""
    repository = lab.open()
    digest = repository.put_evidence(inventory.encode(repository.inventory(record(lab, 2)).objects))
    plan = append(lab, "prune", PruneBody(phase="plan", plan=str(digest)), lab.root_key.pruner)
    result = append(lab, "prune", PruneBody(phase="result", plan=str(digest)), lab.root_key.pruner)
    forger = lab.open()
    forger.ledger.require_role = lambda *_, **__: None  # type: ignore[method-assign]  # as a thief's does
    body = PruneBody(phase="plan", plan=str(digest))
    draft = Draft(type="prune", subject=[("x", Digest(bytes(32)))], body=body)
    void = forger.append(lambda _: draft, [lab.host.key.signing], tool="thief")
    ledger = lab.open().ledger
    views = [Chronicle(ledger).view(ledger.records[each.seq]) for each in (plan, result, void)]
    assert [view.dooms for view in views] == [True, False, False]
    assert [view.effect for view in views] == [Effect.VALID, Effect.VALID, Effect.VOID]
