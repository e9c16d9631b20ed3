"""Hosts that say when they will sign again, and those that did not."""

from datetime import timedelta

import pytest

from tests.support.lab import Lab
from tests.support.trees import MakeSource
from vault.ledger.statements import HeartbeatBody
from vault.model import Code
from vault.repository.enrolment import revoke_writer
from vault.repository.heartbeats import beat, silent_hosts


def promise(lab: Lab, hours: int) -> None:
    """The first host will sign again within so many hours."""
    repository = lab.open()
    every = timedelta(hours=hours)
    record = beat(repository, lab.host.key.signing, every=every, note="alive", tool="t")
    assert isinstance(record.body, HeartbeatBody)
    assert record.body.next_by == lab.clock() + every


def silent(lab: Lab) -> list[str]:
    """Hosts by name."""
    return [each.host for each in silent_hosts(lab.open().ledger, lab.clock())]


def test_a_promise_that_has_passed_is_told_of_its_host_alone(lab: Lab) -> None:
    """Not a second before; the other host never promised anything."""
    lab.enrol("second")
    promise(lab, 24)
    lab.clock.advance(hours=24)
    assert silent(lab) == []
    lab.clock.advance(seconds=1)
    assert silent(lab) == ["first"]
    (found,) = silent_hosts(lab.open().ledger, lab.clock())
    assert found.finding.code == Code.SILENT


@pytest.mark.parametrize("by", ["heartbeat", "snapshot"])
def test_any_later_statement_of_the_key_keeps_the_promise(
    lab: Lab, make_source: MakeSource, by: str
) -> None:
    """Only the last one makes a new one."""
    promise(lab, 1)
    lab.clock.advance(minutes=30)
    if by == "heartbeat":
        promise(lab, 48)
    else:
        lab.snapshot(make_source())
    lab.clock.advance(hours=2)
    assert silent(lab) == []
    lab.clock.advance(hours=48)
    assert silent(lab) == (["first"] if by == "heartbeat" else [])


def test_a_host_that_was_revoked_owes_nothing(lab: Lab) -> None:
    """A stolen laptop is dealt with by its revocation."""
    promise(lab, 1)
    lab.clock.advance(hours=2)
    assert silent(lab) == ["first"]
    repository = lab.open()
    writer = repository.ledger.writers[lab.host.key.signing.public.id]
    enroller = lab.root_key.enroller
    revoke_writer(repository, enroller, writer, distrust_from=None, reason="gone", tool="t")
    assert silent(lab) == []
