"""How snapshots follow each other: in how many steps that is found."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.lab import Lab
from tests.support.trees import MakeSource
from vault.audit.claimed_times import check_times
from vault.custody.findings import Findings
from vault.ledger.chain import Ledger
from vault.ledger.envelope import build_statement, seal_envelope
from vault.ledger.records import Record
from vault.ledger.succession import dated_back, snapshot_before, valid_before
from vault.model import Digest, replace_body
from vault.repository.hosts import published_by
from vault.repository.repository import snapshot_body


@pytest.fixture
def source(make_source: MakeSource) -> Path:
    """What the snapshot is of."""
    return make_source(files=1)


class Counted(list[Record]):
    """Records, and how often one was taken."""

    taken = 0

    def __getitem__(self, place: Any) -> Any:
        self.taken += 1
        return super().__getitem__(place)

    def __iter__(self) -> Iterator[Record]:
        self.taken += len(self)
        return super().__iter__()


def grown(lab: Lab, record: Record, count: int) -> Ledger:
    """A ledger of so many snapshots of one dataset."""
    ledger = lab.open().ledger
    body = snapshot_body(record)
    while len(ledger.records) < count:
        prev = ledger.records[-1].head
        payload = build_statement(
            type="snapshot",
            repository=ledger.repository_id,
            seq=prev.seq + 1,
            prev=prev,
            time=lab.clock(),
            tool="t",
            subject=[(f"inventory/{body.inventory.sha256}", Digest.parse(body.inventory.sha256))],
            body=replace_body(body, previous=prev.seq),
            by=[lab.host.key.signing.public.id],
        )
        envelope = seal_envelope(payload, [lab.host.key.signing])
        ledger.link(envelope, version=f"{prev.seq + 1}", modified=lab.clock())
    return ledger


def _listed(ledger: Ledger) -> None:
    for each in ledger.snapshots():
        dated_back(ledger, each)
        published_by(ledger, each)


@pytest.mark.parametrize(
    "told", [lambda ledger: check_times(ledger, Findings()), _listed], ids=["audit", "list"]
)
def test_what_is_told_of_every_snapshot_takes_a_few_steps_for_each(
    lab: Lab, record: Record, told: Callable[[Ledger], None]
) -> None:
    """Four times as many cost four times as much: not sixteen times, as once they did."""
    steps = []
    for count in (50, 200):
        ledger = grown(lab, record, count)
        ledger.records = Counted(ledger.records)
        told(ledger)
        steps.append(ledger.records.taken)
    assert steps[1] < 6 * steps[0]


def test_the_snapshot_before_is_the_one_that_counted_then(lab: Lab, record: Record) -> None:
    """What is void now may have been the newest when the next one was published."""
    ledger = grown(lab, record, 6)
    third, fourth, fifth = ledger.records[3:6]
    assert snapshot_before(ledger, record) is None
    assert valid_before(ledger, record) is None
    assert snapshot_before(ledger, fifth) == valid_before(ledger, fifth) == fourth
    assert snapshot_before(ledger, fourth) == third
    assert list(ledger.published_before("other", 99)) == []
    assert [each.seq for each in ledger.published_before("data", 5)] == [4, 3, 2]
