"""Agreement on a store: thieves, people who left, the clock of the store, what is remembered."""

import dataclasses
from datetime import timedelta

import pytest

from tests.support.lab import TOOL, Lab
from vault.audit import audit_repository
from vault.crypto.keys import SigningKey
from vault.custody.sampling import WHOLE
from vault.encoding import b64encode
from vault.errors import ConfigError
from vault.ledger.lapse import lapse
from vault.ledger.records import Record, Status
from vault.ledger.request_files import RequestFile
from vault.ledger.statements import Approval, PublicKey, Role, RootBody, StatementType, WriterBody
from vault.ledger.warrants import add_signature
from vault.machine.workers import make_workers
from vault.model import Digest, replace_body
from vault.repository.agreements import Intent, Reasons, ask, carry
from vault.repository.append_statements import Draft
from vault.repository.enrolment import limit_writer, limitation, revoke_writer

BOB, CAROL = SigningKey.generate(), SigningKey.generate()
REASONS = Reasons(summary="less", reason="r", span=timedelta(hours=72))


def govern(lab: Lab, *people: tuple[str, SigningKey], wanted: int = 1) -> None:
    """The next root: everything is alice's, these people may approve, and limits want so many."""
    repository = lab.open()
    body = repository.ledger.root
    keys = [
        replace_body(each, person="alice") for each in body.keys if each.person in {"", "alice"}
    ]
    keys += [
        PublicKey(name=name, public=b64encode(key.public.der), roles=(Role.POLICY,), person=name)
        for name, key in people
    ]
    approvals = {"writer.limit": Approval(role="policy", threshold=wanted)}
    changed: RootBody = replace_body(
        body, version=body.version + 1, keys=tuple(keys), approvals=approvals
    )
    draft = Draft(type="root", subject=[("repository", Digest.of(repository.id))], body=changed)
    repository.append(lambda _: draft, [lab.root_key.root], tool=TOOL)


def wanted(lab: Lab, *datasets: str) -> WriterBody:
    """The limit that is asked for."""
    (writer,) = lab.open().ledger.writers.values()
    return limitation(writer, datasets=datasets or ("data",), reason="r")


def asked(lab: Lab, *signers: SigningKey, by: SigningKey | None = None) -> RequestFile:
    """A request of alice's, or of another's, with these people's signatures."""
    requester = by or lab.root_key.policy
    file = ask(lab.open(), StatementType.WRITER, wanted(lab), REASONS, requester)
    for key in signers:
        file = dataclasses.replace(file, request=add_signature(file.request, key))
    return file


def limit(lab: Lab, file: RequestFile) -> Record:
    """The act, by alice's enroller's key."""
    repository = lab.open()
    (writer,) = repository.ledger.writers.values()
    return limit_writer(
        repository,
        lab.root_key.enroller,
        writer,
        datasets=["data"],
        reason="r",
        tool=TOOL,
        agreed=file.request,
    )


@pytest.fixture
def council(lab: Lab) -> Lab:
    """Limits want one person's approval; bob and carol may give it."""
    govern(lab, ("bob", BOB), ("carol", CAROL))
    return lab


def test_a_thief_who_asks_gets_nothing_but_his_own_signature(council: Lab) -> None:
    """Alice's whole root.key is stolen: he asks, signs by each of her keys, and acts."""
    keys = council.root_key
    file = asked(council, keys.root, keys.enroller, keys.pruner)
    count = len(council.open().ledger.records)
    with pytest.raises(ConfigError, match="found 0") as failure:
        limit(council, file)
    assert failure.value.hint == "still needed of: bob (policy), carol (policy)"
    assert len(council.open().ledger.records) == count
    assert limit(council, asked(council, BOB)).status is Status.VALID  # the control: bob agrees


def test_a_thief_who_forces_the_act_into_the_ledger_made_a_void_statement(council: Lab) -> None:
    """His program skips what the writer's checks: readers judge all the same."""
    repository = council.open()
    ledger = repository.ledger
    ledger.require_role = lambda *_, **__: None  # type: ignore[method-assign]  # as a thief's does
    draft = Draft(type="writer", subject=[("key", council.root)], body=wanted(council))
    record = repository.append(lambda _: draft, [council.root_key.enroller], tool=TOOL)
    assert (record.status, "needs the approval" in record.reason) == (Status.VOID, True)


def test_a_person_who_left_approves_nothing_and_what_she_approved_ends(council: Lab) -> None:
    """Root N+1 without carol: her signature on an open request counts no more."""
    file = asked(council, CAROL)
    govern(council, ("bob", BOB))
    with pytest.raises(ConfigError, match="asked under root 2"):
        limit(council, file)
    with pytest.raises(ConfigError, match="found 0"):
        limit(council, asked(council, CAROL))
    assert limit(council, asked(council, BOB)).status is Status.VALID


def test_a_request_acts_once_also_for_a_machine_that_remembers_the_ledger(council: Lab) -> None:
    """What was used survives in what is remembered, though the act's envelope does not."""
    warm = council.warmed()
    file = asked(warm, BOB)
    used = limit(warm, file)
    repository = warm.open()
    assert repository.ledger.used_by(file.request) == used.seq
    cold = council.open()
    assert cold.ledger.used_by(file.request) == used.seq
    with pytest.raises(ConfigError, match=f"used by statement {used.seq}"):
        limit(warm, file)


def test_a_killed_act_goes_on_with_the_warrant_that_it_stored(council: Lab) -> None:
    """The same request is carried once."""
    file = asked(council, BOB)
    by = (council.root_key.enroller.public.id,)
    intent = Intent(kind=StatementType.WRITER, body=wanted(council), by=by)
    seq = carry(council.open(), file.request, intent, council.root_key.enroller, tool=TOOL)
    record = limit(council, file)
    assert (record.warrant, record.seq) == (seq, seq + 1)


def _late(lab: Lab, file: RequestFile, by: timedelta) -> Record:
    """The act, dated back into the time of its request, and stored so long after its end."""
    repository = lab.open()
    enroller = lab.root_key.enroller
    intent = Intent(kind=StatementType.WRITER, body=wanted(lab), by=(enroller.public.id,))
    warrant = carry(repository, file.request, intent, enroller, tool=TOOL)
    lab.clock.now = file.request.terms.expires + by
    late = lab.open()
    claimed = file.request.terms.expires
    late.log._objects.clock = lambda: claimed  # a thief's clock
    late.log._objects.check_skew = lambda: None  # type: ignore[method-assign]
    draft = Draft(type="writer", subject=[("key", lab.root)], body=wanted(lab), warrant=warrant)
    return late.append(lambda _: draft, [enroller], tool=TOOL)


def audited(lab: Lab) -> list[str]:
    """Findings of the kind in question, by subject."""
    with make_workers(0) as workers:
        found = audit_repository(lab.open(), sample=WHOLE, workers=workers).findings
    return [each.subject for each in found if each.code == "unapproved"]


@pytest.mark.parametrize(("minutes", "is_late"), [(15, False), (16, True)])
def test_an_act_that_was_dated_back_is_told_by_the_store(
    council: Lab,
    minutes: int,
    is_late: bool,  # noqa: FBT001  # of a case
) -> None:
    """It counts by its claim; who executes it asks the store's time, and so does an audit."""
    record = _late(council, asked(council, BOB), timedelta(minutes=minutes))
    assert record.status is Status.VALID
    assert bool(lapse(council.open().ledger, record)) is is_late
    assert audited(council) == ([f"ledger {record.seq}"] if is_late else [])


def test_where_nobody_agrees_to_anything_no_request_is_made_more(lab: Lab) -> None:
    """A root without approvals: an act costs what it cost before."""
    repository = lab.open()
    (writer,) = repository.ledger.writers.values()
    before = len(repository.ledger.records)
    limit_writer(
        repository, lab.root_key.enroller, writer, datasets=["data"], reason="r", tool=TOOL
    )
    assert len(lab.open().ledger.records) == before + 1
    revoke_writer(
        repository, lab.root_key.enroller, writer, distrust_from=None, reason="", tool=TOOL
    )
    assert not lab.open().ledger.findings
