"""What a stolen key left in the store, once it is distrusted: one warning, wherever it stands.

Locks keep a thief's objects for years; an audit that failed for them would fail for as long.
"""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.lab import Lab
from tests.support.trees import MakeSource
from tests.support.verifiers import distrust, list_verifier, say_bad
from vault.audit import audit_repository
from vault.crypto.keys import Signer
from vault.custody.heal import HealAction, Healer
from vault.ledger.envelope import Head, build_statement, seal_envelope
from vault.ledger.records import Record, Status
from vault.ledger.statements import HeartbeatBody, PolicyBody
from vault.machine.workers import make_workers
from vault.model import Body, Code, Digest, Finding, Severity
from vault.repository.append_statements import Draft
from vault.repository.enrolment import revoke_writer
from vault.repository.repository import Repository
from vault.storage.names import ledger_name

POLICY = PolicyBody(action="retire", name="data", weakens=True)


@pytest.fixture
def source(make_source: MakeSource) -> Path:
    """What is backed up."""
    return make_source(files=1)


def audit(lab: Lab) -> list[Finding]:
    """Errors, and what is said of distrusted keys."""
    with make_workers(0) as workers:
        opened = Repository.open(lab.store, lab.root, clock=lab.clock, tolerant=True)
        found = audit_repository(opened, workers=workers).findings
    return [
        Finding(severity=each.severity, code=each.code, subject=each.subject, problem=each.problem)
        for each in found
        if each.severity is Severity.ERROR or each.code is Code.DISTRUSTED
    ]


def plant(lab: Lab, key: Signer, seq: int, kind: str, body: Body) -> None:
    """A statement that follows nothing, at any number."""
    payload = build_statement(
        type=kind,
        repository=lab.open().ledger.repository_id,
        seq=seq,
        prev=Head(seq=seq - 1, digest=Digest(bytes(32))),
        time=lab.clock(),
        tool="thief",
        subject=[("policy", Digest(bytes(32)))],
        body=body,
        by=[key.public.id],
    )
    lab.store.plant(ledger_name(seq), seal_envelope(payload, [key]))


def append(lab: Lab, key: Signer, kind: str, body: Body) -> Record:
    """As its holder does."""
    draft = Draft(type=kind, subject=[("policy", Digest(bytes(32)))], body=body)
    return lab.open().append(lambda _: draft, [key], tool="vault test")


def leave(lab: Lab, key: Signer, kind: str, body: Body, appended: int) -> None:
    """Beyond a hole, and at a number that others are to own."""
    lab.clock.advance(minutes=1)
    head = lab.open().head.seq
    plant(lab, key, head + 40, kind, body)
    plant(lab, key, appended, kind, body)
    plant(lab, key, head + 2, kind, body)


def test_what_a_distrusted_host_left_is_one_warning(lab: Lab, source: Path) -> None:
    """In the chain, beyond it, and at numbers that honest statements own by now."""
    thief = lab.enrol("thief").key.signing
    lab.snapshot(source)
    first = append(lab, thief, "heartbeat", HeartbeatBody(note="mine")).seq
    leave(lab, thief, "heartbeat", HeartbeatBody(note="x"), first)
    repository = lab.open()
    revoke_writer(
        repository,
        lab.root_key.enroller,
        repository.ledger.writers[thief.public.id],
        distrust_from=first,
        reason="stolen",
        tool="t",
    )
    lab.snapshot(source)  # takes the number where the thief's third stands
    lab.snapshot(source)
    _honest_on_top(lab, first)
    (warning,) = audit(lab)
    assert (warning.code, warning.severity) == (Code.DISTRUSTED, Severity.WARNING)
    assert warning.problem.startswith("4 statements do not count: the key of thief")


def _honest_on_top(lab: Lab, seq: int) -> None:
    """The right bytes are the newest again, as heal puts them."""
    lab.store.plant(ledger_name(seq), lab.open().ledger.records[seq].envelope)


def test_what_a_revoked_host_left_stays_an_error_without_distrust(lab: Lab, source: Path) -> None:
    """The control: the revocation did not say that it was a theft."""
    thief = lab.enrol("thief").key.signing
    lab.snapshot(source)
    leave(lab, thief, "heartbeat", HeartbeatBody(note="x"), lab.open().head.seq)
    repository = lab.open()
    writer = repository.ledger.writers[thief.public.id]
    revoke_writer(
        repository, lab.root_key.enroller, writer, distrust_from=None, reason="gone", tool="t"
    )
    assert {each.severity for each in audit(lab)} == {Severity.ERROR}


def _policy(lab: Lab) -> tuple[Signer, Callable[[], int]]:
    key = lab.root_key.policy
    return key, lambda: append(lab, key, "policy", POLICY).seq


def _verifier(lab: Lab) -> tuple[Signer, Callable[[], int]]:
    key = list_verifier(lab.open(), lab.root_key)
    return key, lambda: say_bad(lab.open(), key, lab.clock, [(2, 2)], bad=["ab" * 32]).seq


@pytest.mark.parametrize("stolen", [_policy, _verifier])
def test_what_a_role_left_that_a_root_distrusts_is_one_warning(
    lab: Lab, source: Path, stolen: Callable[[Lab], tuple[Signer, Callable[[], int]]]
) -> None:
    """Root N+1 ends what a stolen key of a role left; nothing accuses it for ever."""
    lab.snapshot(source)
    key, speak = stolen(lab)
    spoken = [speak() for _ in range(2)]
    leave(lab, key, "policy", POLICY, spoken[0])
    distrust(lab.open(), lab.root_key, key)
    lab.snapshot(source)
    lab.snapshot(source)
    _honest_on_top(lab, spoken[0])
    ledger = lab.open().ledger
    assert {ledger.records[seq].status for seq in spoken} == {Status.VOID}
    assert [each.code for each in ledger.findings] == [Code.DISTRUSTED]
    errors = [each for each in audit(lab) if each.code is not Code.MISSING]
    (warning,) = errors
    assert (warning.code, warning.severity) == (Code.DISTRUSTED, Severity.WARNING)
    assert warning.problem.startswith("5 statements do not count: the key of ")


def test_a_distrusted_statement_on_top_of_an_honest_one_is_found_and_covered(
    lab: Lab, source: Path
) -> None:
    """Copy tools read the newest version of a name."""
    thief = lab.enrol("thief").key.signing
    lab.snapshot(source)
    repository = lab.open()
    writer = repository.ledger.writers[thief.public.id]
    revoked = revoke_writer(
        repository,
        lab.root_key.enroller,
        writer,
        distrust_from=writer.added + 1,
        reason="stolen",
        tool="t",
    ).seq
    plant(lab, thief, revoked, "heartbeat", HeartbeatBody(note="x"))
    (error,) = (each for each in audit(lab) if each.severity is Severity.ERROR)
    assert (error.code, error.subject) == (Code.OTHER_BYTES, ledger_name(revoked))
    with make_workers(0) as workers:
        healer = Healer(lab.open(), workers)
        plan = healer.plan()
        assert [step.action for step in plan.steps] == [HealAction.EXPOSE]
        assert healer.execute(plan).hidden == ()
    assert {each.severity for each in audit(lab)} == {Severity.WARNING}
