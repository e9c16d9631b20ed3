"""Opening: which head is remembered, accepted and demanded; nothing is needed but arguments."""

import dataclasses
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests.support.lab import Lab
from vault.crypto.keys import SigningKey
from vault.errors import RollbackError, WrongKeyError
from vault.ledger.envelope import Head
from vault.ledger.statements import HeartbeatBody, StatementType
from vault.model import Digest
from vault.repository.append_statements import Draft
from vault.repository.opening import (
    Acceptance,
    known_heads,
    open_repository,
    open_to_audit,
    settled_head,
)
from vault.repository.repository import Repository
from vault.storage.names import ledger_name

NOW = datetime(2030, 1, 1, tzinfo=UTC)


def ledger(*ages: timedelta, ordered: bool) -> Any:
    """A repository whose statements are that old."""
    records = [
        SimpleNamespace(head=Head(seq=seq, digest=Digest(bytes(32))), modified=NOW - age)
        for seq, age in enumerate(ages)
    ]
    traits = SimpleNamespace(orders_versions_by_commit=ordered)
    return SimpleNamespace(
        store=SimpleNamespace(traits=traits),
        ledger=SimpleNamespace(records=records),
        head=records[-1].head,
        log=SimpleNamespace(history=SimpleNamespace(by_line=None)),
    )


@pytest.mark.parametrize(
    ("ages", "ordered", "seq"),
    [
        ([60, 50, 0], True, 2),
        ([60, 50, 9], False, 1),
        ([60, 50, 10], False, 2),
        ([0], False, 0),
    ],
)
def test_only_a_head_that_no_race_can_undo_is_remembered(
    ages: list[int], *, ordered: bool, seq: int
) -> None:
    """At once where versions are ordered by commit, else with a successor or after 10 minutes."""
    repository = ledger(*(timedelta(minutes=age) for age in ages), ordered=ordered)
    assert settled_head(cast("Any", repository), NOW).seq == seq


def later(lab: Lab, state: Path) -> Head:
    """A head that is remembered there, and that the store then no longer has."""
    other = lab.open()
    draft = Draft(
        type=StatementType.HEARTBEAT,
        subject=[("repository", Digest.of(other.id))],
        body=HeartbeatBody(note="alive"),
    )
    head = other.append(lambda _: draft, [lab.host.key.signing], tool="t").head
    open_repository(lab.store, lab.root, clock=lab.clock, state=state)
    (version,) = lab.store.versions(ledger_name(head.seq))
    lab.store.remove(version.name, version.version)
    return head


def test_without_a_directory_nothing_is_remembered(lab: Lab) -> None:
    """A worker opens with what it is given, and leaves the machine as it was."""
    before = sorted(lab.base.rglob("*"))
    repository = open_repository(lab.store, lab.root, clock=lab.clock)
    assert repository.head == lab.open().head
    assert sorted(lab.base.rglob("*")) == before
    assert known_heads(lab.root, state=None) == ()


def test_what_was_seen_is_demanded_the_next_time(lab: Lab, tmp_path: Path) -> None:
    """The store shows an older history than this machine, or the caller, has seen."""
    head = later(lab, tmp_path)
    assert known_heads(lab.root, state=tmp_path) == (head,)
    with pytest.raises(RollbackError):
        open_repository(lab.store, lab.root, clock=lab.clock, state=tmp_path)
    with pytest.raises(RollbackError):
        open_repository(lab.store, lab.root, clock=lab.clock, floors=[head])
    assert open_repository(lab.store, lab.root, clock=lab.clock).head.seq == head.seq - 1


def test_an_audit_is_told_what_must_be_there_and_refuses_nothing(lab: Lab, tmp_path: Path) -> None:
    """It is for the audit's report to say that the head is gone."""
    head = later(lab, tmp_path)
    found, floors = open_to_audit(lab.store, lab.root, clock=lab.clock, state=tmp_path)
    assert floors == (head,)
    assert found.head.seq == head.seq - 1


def test_an_accepted_head_replaces_what_was_remembered_and_is_recorded(
    lab: Lab, tmp_path: Path
) -> None:
    """One that the ledger lacks is refused, and what was remembered stays."""
    gone = later(lab, tmp_path)
    head = lab.open().head
    warnings: list[str] = []
    done: list[Head] = []
    wish = Acceptance(
        head=gone,
        writer=lambda _: lab.host.key.signing,
        tool="t",
        done=lambda: done.append(head),
    )

    def opened(acceptance: Acceptance) -> Repository:
        return open_repository(
            lab.store,
            lab.root,
            clock=lab.clock,
            state=tmp_path,
            acceptance=acceptance,
            warn=warnings.append,
        )

    with pytest.raises(RollbackError, match="accept"):
        opened(wish)
    assert (known_heads(lab.root, state=tmp_path), done) == ((gone,), [])
    repository = opened(dataclasses.replace(wish, head=head))
    assert (done, warnings) == ([head], [])
    body = repository.ledger.records[-1].body
    assert isinstance(body, HeartbeatBody)
    assert body.accepted == str(head)
    assert open_repository(lab.store, lab.root, clock=lab.clock, state=tmp_path).head.seq > head.seq


def test_an_acceptance_that_cannot_be_recorded_is_warned_of(lab: Lab, tmp_path: Path) -> None:
    """No writer key is here: the head is accepted all the same."""
    later(lab, tmp_path)
    head = lab.open().head
    warnings: list[str] = []

    def no_key(_: object) -> SigningKey:
        raise WrongKeyError("there is no writer.key")

    open_repository(
        lab.store,
        lab.root,
        clock=lab.clock,
        state=tmp_path,
        acceptance=Acceptance(head=head, writer=no_key, tool="t"),
        warn=warnings.append,
    )
    (warning,) = warnings
    assert "there is no writer.key" in warning
    assert known_heads(lab.root, state=tmp_path) == (head,)
