"""Roots that follow another: what is refused before anything is signed, and what comes of one."""

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.support.lab import Lab
from tests.support.trees import MakeSource
from vault.crypto.keys import RecipientKey, SigningKey
from vault.encoding import b64encode, dumps
from vault.errors import ConfigError, VaultError
from vault.ledger.envelope import build_statement, seal_envelope
from vault.ledger.records import Record, Status
from vault.ledger.statements import (
    Approval,
    PublicKey,
    Recipient,
    Role,
    StatementType,
    Witness,
)
from vault.model import Digest, replace_body
from vault.repository.root_changes import (
    RootChange,
    consequences,
    known_root,
    missing_signers,
    next_root,
    without_spare,
)
from vault.repository.roots import (
    apply_root,
    encode_proposal,
    parse_proposal,
    propose,
    require_proposal,
)
from vault.storage.names import ledger_name

TOOL = "vault test"
BOB = SigningKey.generate()
NAMES = ("root", "enroller", "policy", "pruner", "restorer")
ANN = dict.fromkeys(NAMES, "ann")
VKEY = "auditor+1a2b3c4d+BGsX0fLhLEJH+Lzm5WOkQPJ3A32BLeszoPShOUXYmMKW"


@pytest.fixture
def source(make_source: MakeSource) -> Path:
    """One file."""
    return make_source()


def _bob(name: str = "bob", *roles: Role, person: str = "bob") -> PublicKey:
    public = b64encode(BOB.public.der)
    return PublicKey(name=name, public=public, roles=roles or (Role.ROOT,), person=person)


def _apply(lab: Lab, change: RootChange, *signers: SigningKey) -> int:
    repository = lab.open()
    proposal = propose(repository.ledger, next_root(repository.ledger, change))
    keys = signers or (lab.root_key.root,)
    return apply_root(repository, proposal, keys, tool=TOOL).seq


TWO = RootChange(add=[_bob()], persons=ANN, thresholds={"root": 2})
REFUSED: Mapping[str, tuple[RootChange, str]] = {
    "nothing": (RootChange(), "nothing would change"),
    "no such key": (RootChange(remove=["mallory"]), "has no key mallory"),
    "no such recipient": (RootChange(recipients_remove=["x"]), "has no recipient x"),
    "no such witness": (RootChange(witnesses_remove=["x"]), "has no witness x"),
    "person of no key": (RootChange(persons={"x": "ann"}), "no key x"),
    "name twice": (RootChange(add=[_bob("policy")]), "two keys of the name policy"),
    "key twice": (RootChange(add=[_bob(), _bob("bob2")]), "lists a key twice"),
    "no root key": (RootChange(remove=["root"]), "fewer root keys or persons"),
    "no recipient": (RootChange(recipients_remove=["site"]), "1 to 16 recipients"),
    "threshold over the keys": (RootChange(thresholds={"root": 2}), "fewer root keys or persons"),
    "threshold over the persons": (
        RootChange(add=[_bob(person="ann")], persons=ANN, thresholds={"root": 2}),
        "fewer root keys or persons",
    ),
    "threshold of nothing": (RootChange(thresholds={"root": 0}), "threshold below 1"),
    "threshold of another role": (
        RootChange(persons=ANN, thresholds={"pruner": 2}),
        "no one could sign as pruner",
    ),
    "key without a person": (RootChange(add=[_bob()], thresholds={"root": 2}), "has no person"),
    "person that is no label": (RootChange(persons={"root": "Ann X"}), "person name"),
    "review of no date": (RootChange(reviews={"root": "soon"}), "review is no date"),
    "approval of no act": (
        RootChange(persons=ANN, approvals={"erase": Approval(role="policy", threshold=1)}),
        "unknown act",
    ),
    "approval by the one who acts": (
        RootChange(persons=ANN, approvals={"prune": Approval(role="policy", threshold=1)}),
        "prune could never be approved",
    ),
    "quorum without witnesses": (RootChange(quorum=2), "impossible quorum"),
    "no witness": (RootChange(witnesses_add=[Witness(name="w", vkey=VKEY)]), "another hash"),
    "unknown key distrusted": (RootChange(distrust=[("ab" * 32, 1)]), "was ever listed"),
    "trust of a key that is trusted": (RootChange(trust=["ab" * 32]), "does not distrust"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_root_that_would_be_void_or_a_dead_end_is_refused(lab: Lab, what: str) -> None:
    """Before anything is signed or written."""
    change, words = REFUSED[what]
    with pytest.raises(ConfigError, match=words):
        next_root(lab.open().ledger, change)


def test_the_same_changes_are_taken_where_they_can_be_lived_with(lab: Lab) -> None:
    """The control of the refusals: two people, thresholds, approvals by another, a recipient."""
    site = RecipientKey.generate()
    change = dataclasses.replace(
        TWO,
        add=[_bob("bob", Role.ROOT, Role.POLICY)],
        approvals={"prune": Approval(role="policy", threshold=1)},
        recipients_add=[Recipient(name="bob", public=b64encode(site.public_raw))],
        reviews={"policy": "2027-01-31"},
        checkpoint_age=3600,
    )
    ledger = lab.open().ledger
    body = next_root(ledger, change)
    assert (body.version, body.thresholds["root"], len(body.keys)) == (2, 2, 6)
    assert without_spare(body)
    assert without_spare(ledger.root)
    assert not without_spare(replace_body(body, thresholds={"root": 1}))


def test_a_host_s_key_is_no_key_of_a_root(lab: Lab) -> None:
    """It would be listed by two who can each take it off."""
    public = b64encode(lab.host.key.signing.public.der)
    host = PublicKey(name="web", public=public, roles=(Role.VERIFIER,))
    with pytest.raises(ConfigError, match="host's key"):
        next_root(lab.open().ledger, RootChange(add=[host]))


def test_both_thresholds_must_sign_and_who_lacks_is_named(lab: Lab) -> None:
    """One of two is refused with names, nothing is appended; two keys on one machine suffice."""
    repository = lab.open()
    body = next_root(repository.ledger, TWO)
    proposal = propose(repository.ledger, body)
    with pytest.raises(ConfigError, match="the new root wants 1 of: bob"):
        apply_root(repository, proposal, [lab.root_key.root], tool=TOOL)
    with pytest.raises(ConfigError, match="the root in force wants 1 of: root"):
        apply_root(repository, proposal, [BOB], tool=TOOL)
    assert lab.open().head.seq == repository.head.seq
    record = apply_root(repository, proposal, [lab.root_key.root, BOB], tool=TOOL)
    assert record.status is Status.VALID
    ledger = lab.open().ledger
    assert ledger.root == body
    back = next_root(ledger, RootChange(thresholds={"root": 1}))
    assert missing_signers(ledger, back, [BOB.public.id]) == "the root in force wants 1 of: ann"
    assert missing_signers(ledger, back, [BOB.public.id, lab.root_key.root.public.id]) == ""


def test_a_proposal_that_another_root_overtook_is_refused(lab: Lab) -> None:
    """Nothing of what was changed meanwhile is taken back unseen."""
    ledger = lab.open().ledger
    late = propose(ledger, next_root(ledger, RootChange(reviews={"root": "2027-01-31"})))
    _apply(lab, RootChange(reviews={"policy": "2027-01-31"}))
    with pytest.raises(ConfigError, match="does not follow the one in force"):
        apply_root(lab.open(), late, [lab.root_key.root], tool=TOOL)
    renumbered = dataclasses.replace(late, body=replace_body(late.body, version=3))
    with pytest.raises(ConfigError, match="does not follow the one in force"):
        require_proposal(lab.open().ledger, renumbered)


def test_a_proposal_of_another_repository_is_refused(lab: Lab) -> None:
    """Its keys may be the same."""
    ledger = lab.open().ledger
    body = next_root(ledger, RootChange(reviews={"root": "2027-01-31"}))
    foreign = dataclasses.replace(propose(ledger, body), repository="ab" * 16)
    with pytest.raises(ConfigError, match="another repository"):
        require_proposal(ledger, foreign)


def _edit(change: Callable[[dict[str, Any]], None]) -> Callable[[bytes], bytes]:
    def edited(data: bytes) -> bytes:
        fields = json.loads(data)
        change(fields)
        return dumps(fields)

    return edited


FILES: Mapping[str, Callable[[bytes], bytes]] = {
    "cut": lambda data: data[:-3],
    "empty": lambda _: b"",
    "no JSON": lambda _: b"root 2",
    "a list": lambda _: b"[]",
    "other spelling": lambda data: data.replace(b'":', b'": '),
    "other version": _edit(lambda f: f.update({"vault-root-proposal": 2})),
    "further member": _edit(lambda f: f.update(approved=True)),
    "further member of the root": _edit(lambda f: f["body"].update(zz=1)),
    "further member of a key": _edit(lambda f: f["body"]["keys"][0].update(zz=1)),
    "root that is a list": _edit(lambda f: f.update(body=[])),
    "root that is nothing": _edit(lambda f: f.update(body=None)),
    "root without a list": _edit(lambda f: f["body"].pop("approvals")),
    "impossible root": _edit(lambda f: f["body"].update(recipients=[])),
    "no digest": _edit(lambda f: f.update(after="x")),
    "repository that is no text": _edit(lambda f: f.update(repository=7)),
}


@pytest.mark.parametrize("what", FILES)
def test_a_file_that_is_no_proposal_is_refused(lab: Lab, what: str) -> None:
    """Whatever it holds: it came from another machine."""
    ledger = lab.open().ledger
    body = next_root(ledger, RootChange(reviews={"root": "2027-01-31"}))
    data = encode_proposal(propose(ledger, body))
    assert parse_proposal(data) == propose(ledger, body)
    with pytest.raises(VaultError):
        parse_proposal(FILES[what](data))


def _append_raw(lab: Lab, change: Callable[[dict[str, Any]], None]) -> None:
    """A root of a newer program, with members that this one does not know."""
    repository = lab.open()
    before = repository.ledger.root
    body = replace_body(before, version=before.version + 1)
    payload = build_statement(
        type=StatementType.ROOT,
        repository=repository.ledger.repository_id,
        seq=repository.head.seq + 1,
        prev=repository.head,
        time=lab.clock(),
        tool=TOOL,
        subject=[("repository", Digest(bytes(32)))],
        body=body,
        by=[lab.root_key.root.public.id],
    )
    fields = json.loads(payload)
    change(fields["predicate"]["body"])
    envelope = seal_envelope(dumps(fields), [lab.root_key.root])
    name = ledger_name(repository.head.seq + 1)
    lab.store.put(name, envelope, sha256=Digest.of(envelope), retention=None)


NEWER: Mapping[str, Callable[[dict[str, Any]], None]] = {
    "top": lambda body: body.update(limits={}),
    "keys[0].expires": lambda body: body["keys"][0].update(expires="2027-01-01"),
    "recipients[0].domains": lambda body: body["recipients"][0].update(domains=["hr"]),
    "parameters.other": lambda body: body["parameters"].update(other=1),
    "approvals.prune.quiet": lambda body: body.update(
        approvals={"prune": {"role": "policy", "threshold": 1, "max_age": 60, "quiet": 1}},
        keys=[{**key, "person": "ann"} for key in body["keys"]],
    ),
}


@pytest.mark.parametrize("what", NEWER)
def test_a_root_with_members_that_are_not_known_is_not_followed(lab: Lab, what: str) -> None:
    """A root written over it would drop them without a word; a root without them is followed."""
    _append_raw(lab, lambda _: None)
    known_root(lab.open().ledger)
    _append_raw(lab, NEWER[what])
    ledger = lab.open().ledger
    assert ledger.root.version == 3
    with pytest.raises(ConfigError, match="does not know"):
        next_root(ledger, RootChange(reviews={"policy": "2027-01-31"}))


def test_what_becomes_void_is_foretold_and_so_comes(lab: Lab, record: Record) -> None:
    """Distrust of the restorer: its statements, and nothing else; taken back they count again."""
    restorer = lab.recovery.restorer
    lab.say("drill", record.seq)
    lab.say("verification", [record.seq])
    ledger = lab.open().ledger
    signed = [each.seq for each in ledger.records if each.by == (restorer.public.id,)]
    assert signed
    change = RootChange(distrust=[(restorer.public.id, 0)])
    found = consequences(ledger, next_root(ledger, change), now=lab.clock())
    assert [each.seq for each in found.void] == signed
    _apply(lab, change)
    after = lab.open().ledger
    assert all(after.records[seq].status is Status.VOID for seq in signed)
    assert [e.seq for e in after.records if e.status is not Status.VALID] == signed
    back = RootChange(trust=[restorer.public.id])
    again = consequences(after, next_root(after, back), now=lab.clock())
    assert [each.seq for each in again.valid] == signed
    assert not again.void
