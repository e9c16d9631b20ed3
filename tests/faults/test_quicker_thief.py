"""A stolen key is revoked while its thief appends faster than the one who revokes it."""

import pytest

from tests.support.lab import Lab, MakeRepository
from vault.errors import LedgerMovedError
from vault.ledger.statements import HeartbeatBody
from vault.model import Digest, LockMode
from vault.repository import append_statements
from vault.repository.append_statements import Draft
from vault.repository.enrolment import revoke_writer
from vault.repository.hosts import find_writer, live_writers
from vault.repository.repository import Repository
from vault.repository.root_changes import RootChange, next_root
from vault.repository.roots import apply_root, propose
from vault.storage.memory import FaultPoint
from vault.storage.names import ledger_name


@pytest.fixture
def lab(make_repository: MakeRepository) -> Lab:
    """A repository whose host's key is stolen, store credentials and all."""
    made: Lab = make_repository(LockMode.GOVERNANCE)
    return made


class Thief:
    """Appends just before each statement of another, so many times; by signing beforehand."""

    def __init__(self, lab: Lab, wins: int) -> None:
        self._lab = lab
        self._repository = lab.open()
        self.wins = wins

    def __call__(self, point: FaultPoint) -> None:
        """As a fault of the store: who is about to put a statement is overtaken."""
        is_statement = point.name.startswith("ledger/") and point.phase == "before"
        if not (is_statement and point.operation == "put" and self.wins):
            return
        self.wins -= 1
        self._lab.store.fault = None
        draft = Draft(
            type="heartbeat", subject=[("x", Digest(bytes(32)))], body=HeartbeatBody(note="mine")
        )
        self._repository.append(lambda _: draft, [self._lab.host.key.signing], tool="thief")
        self._lab.store.fault = self


def never(_: float) -> None:
    """No pause: it would be the thief's."""
    pytest.fail("paused between attempts")


def revoke(lab: Lab, lost: list[int]) -> None:
    """What the operator does."""
    repository = Repository.open(lab.store, lab.root, clock=lab.clock, pause=never)
    revoke_writer(
        repository,
        lab.root_key.enroller,
        find_writer(repository.ledger, "first"),
        distrust_from=2,
        reason="stolen",
        tool="vault test",
        insist=lost.append,
    )


def test_a_revocation_outlasts_a_thief_who_wins_99_numbers_of_100(lab: Lab) -> None:
    """It says how often it lost, and in the end the key signs nothing and is not believed."""
    lab.store.fault = Thief(lab, 99)
    lost: list[int] = []
    revoke(lab, lost)
    lab.store.fault = None
    assert lost == list(range(1, 100))
    ledger = lab.open().ledger
    assert live_writers(ledger) == {}
    assert [record.seq for record in ledger.valid("heartbeat")] == []
    assert len(ledger.records) == 2 + 99 + 1


def test_a_root_outlasts_such_a_thief_too(lab: Lab) -> None:
    """What ends a stolen key of the root, though he wins 99 numbers of 100, and has left junk."""
    junk = b"not a statement" * 40
    lab.store.put(ledger_name(2), junk, sha256=Digest.of(junk), retention=None)
    lab.store.fault = Thief(lab, 99)
    lost: list[int] = []
    repository = Repository.open(lab.store, lab.root, clock=lab.clock, pause=never)
    body = next_root(repository.ledger, RootChange(reviews={"root": "2027-01-31"}))
    proposal = propose(repository.ledger, body)
    record = apply_root(
        repository, proposal, [lab.root_key.root], tool="vault test", insist=lost.append
    )
    lab.store.fault = None
    assert (lost, record.seq) == (list(range(1, 100)), 101)
    assert lab.open().ledger.root.version == 2


def test_without_insisting_the_thief_wins(lab: Lab) -> None:
    """The control: what other statements try is not enough against him."""
    lab.store.fault = Thief(lab, 99)
    repository = Repository.open(lab.store, lab.root, clock=lab.clock, pause=lambda _: None)
    draft = Draft(
        type="heartbeat", subject=[("x", Digest(bytes(32)))], body=HeartbeatBody(note="honest")
    )
    with pytest.raises(LedgerMovedError, match="moved on 40 times"):
        repository.append(lambda _: draft, [lab.host.key.signing], tool="vault test")


def test_a_thief_who_wins_every_number_is_told_of(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An end, after so many attempts: his store credentials have to go first."""
    monkeypatch.setattr(append_statements, "INSISTING", 50)
    lab.store.fault = Thief(lab, 10**6)
    lost: list[int] = []
    with pytest.raises(LedgerMovedError, match="moved on 50 times"):
        revoke(lab, lost)
    assert lost == list(range(1, 51))
