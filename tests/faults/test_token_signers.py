"""Statements signed in a token: of every role, and stored twice after an answer that was lost."""

import dataclasses
from pathlib import Path

import pytest

from tests.support.lab import Host, Lab
from tests.support.tokens import PIN, SoftToken
from tests.support.trees import MakeSource
from vault.crypto.key_files import load_writer, save_writer
from vault.crypto.token_uri import TokenUri
from vault.crypto.tokens import TokenKey
from vault.encoding import b64encode
from vault.errors import ConfigError
from vault.ledger.chain import Ledger
from vault.ledger.envelope import parse_envelope, seal_envelope
from vault.ledger.records import Status
from vault.ledger.statements import (
    HeartbeatBody,
    HoldBody,
    PolicyBody,
    PruneBody,
    PublicKey,
    Role,
    RootBody,
)
from vault.model import Body, Digest, replace_body
from vault.repository.append_statements import Draft
from vault.repository.enrolment import add_writer, limit_writer
from vault.repository.keyrequests import request_key, request_rotation
from vault.storage.names import ledger_name

SIGNING = [role for role in Role if role not in (Role.APPROVER, Role.LOG)]


def key_of(token: SoftToken, label: str) -> TokenKey:
    """A key in the token."""
    return TokenKey(TokenUri.parse(token.uri(label)), PIN.encode())


def append(lab: Lab, kind: str, body: Body, key: TokenKey) -> int:
    """One statement about the repository; its number."""
    draft = Draft(type=kind, subject=[("repository", lab.root)], body=body)
    return lab.open().append(lambda _: draft, [key], tool="vault test").seq


def with_token(lab: Lab, token: SoftToken) -> dict[Role, TokenKey]:
    """Root N+1 lists a key of the token for each role in the place of those before."""
    keys: dict[Role, TokenKey] = {role: key_of(token, role) for role in SIGNING}
    listed = [
        PublicKey(name=role, public=b64encode(key.public.der), roles=(role,))
        for role, key in keys.items()
        if role is not Role.WRITER
    ]
    root = lab.open().ledger.root
    old = [each for each in root.keys if "root" in each.roles]

    def draft(ledger: Ledger) -> Draft:
        body: RootBody = replace_body(
            ledger.root, version=ledger.root.version + 1, keys=(*old, *listed)
        )
        return Draft(type="root", subject=[("repository", lab.root)], body=body)

    lab.open().append(draft, [lab.root_key.root], tool="vault test")
    return keys


def enrolled(lab: Lab, key: TokenKey, enroller: TokenKey) -> Host:
    """A host whose key is in the token."""
    repository = lab.open()
    writer, request = request_key(
        repository,
        lab.root_key.repository,
        name="token",
        datasets=["token-*"],
        domain=None,
        signing=key,
    )
    add_writer(
        repository,
        request,
        enroller,
        recovery_key=lambda: lab.recovery,
        share=None,
        share_datasets=["first"],
        tool="vault test",
    )
    base = lab.base / "token-host"
    base.mkdir()
    return Host(key=writer, base=base)


def test_every_role_signs_through_a_token(
    lab: Lab, token: SoftToken, make_source: MakeSource
) -> None:
    """Each statement counts, for readers that know nothing of tokens."""
    keys = with_token(lab, token)
    source = make_source(files=2)
    host = enrolled(lab, keys[Role.WRITER], keys[Role.ENROLLER])
    record = lab.with_host(host).snapshot(source, dataset="token-1").record
    hold = HoldBody(action="add", snapshot=record.seq, reason="r", author="a")
    signed = {
        "snapshot": record.seq,
        "policy": append(
            lab,
            "policy",
            PolicyBody(action="apply", name="web", sha256="ab" * 32),
            keys[Role.POLICY],
        ),
        "hold": append(lab, "hold", hold, keys[Role.POLICY]),
        "heartbeat": append(lab, "heartbeat", HeartbeatBody(note="here"), keys[Role.WRITER]),
    }
    digest = lab.open().put_evidence(b"# vault-inventory 1\n# objects 0\n# bytes 0\n")
    signed["prune"] = append(
        lab, "prune", PruneBody(phase="plan", plan=str(digest)), keys[Role.PRUNER]
    )
    attesting = dataclasses.replace(
        lab, recovery=dataclasses.replace(lab.recovery, restorer=keys[Role.RESTORER])
    )
    signed["drill"] = attesting.say("drill", record.seq)
    verifier = dataclasses.replace(
        lab, recovery=dataclasses.replace(lab.recovery, restorer=keys[Role.VERIFIER])
    )
    signed["verification"] = verifier.say("verification", [record.seq])
    (writer,) = (each for each in lab.open().ledger.writers.values() if each.name == "token")
    signed["writer"] = limit_writer(
        lab.open(),
        keys[Role.ENROLLER],
        writer,
        datasets=["token-1"],
        share_datasets=["first"],
        reason="r",
        tool="vault test",
    ).seq
    root = lab.open().ledger.root
    signed["root"] = append(
        lab, "root", replace_body(root, version=root.version + 1), keys[Role.ROOT]
    )
    ledger = lab.open().ledger
    assert {kind: ledger.records[seq].type for kind, seq in signed.items()} == {
        kind: kind for kind in signed
    }
    assert {ledger.records[seq].status for seq in signed.values()} == {Status.VALID}
    used = {lab.open().ledger.records[seq].by for seq in signed.values()}
    assert used == {(key.public.id,) for key in keys.values()}
    assert lab.verify(record).verdict == "passed"


def test_a_statement_stored_twice_is_one_entry(lab: Lab, token: SoftToken) -> None:
    """Its signatures differ, its PAE does not: whichever version is older owns the number."""
    keys = with_token(lab, token)
    append(
        lab, "policy", PolicyBody(action="apply", name="web", sha256="ab" * 32), keys[Role.POLICY]
    )
    head = lab.open().head
    name = ledger_name(head.seq)
    (first,) = lab.store.versions_of(name)
    envelope = lab.store.get(name, first.version)
    payload = parse_envelope(envelope).payload
    again = seal_envelope(payload, [keys[Role.POLICY]])
    assert again != envelope
    lab.store.plant(name, again)
    for each in (lab, lab.warmed()):
        repository = each.open()
        assert repository.head == head
        assert not repository.findings
    append(
        lab, "policy", PolicyBody(action="apply", name="web", sha256="cd" * 32), keys[Role.POLICY]
    )
    lab.store.remove(name, first.version)  # the other version is the same statement
    assert lab.open().head.seq == head.seq + 1
    assert lab.open().ledger.records[head.seq].digest == head.digest


def test_the_key_file_of_a_host_names_the_token(lab: Lab, token: SoftToken, tmp_path: Path) -> None:
    """And holds nothing that could sign."""
    keys = with_token(lab, token)
    host = enrolled(lab, keys[Role.WRITER], keys[Role.ENROLLER])
    path = tmp_path / "writer.key"
    save_writer(path, host.key)
    asked: list[TokenUri] = []

    def pin(uri: TokenUri) -> bytes:
        asked.append(uri)
        return PIN.encode()

    again = load_writer(path, pin=pin)
    assert again.signing.public == keys[Role.WRITER].public
    assert len(asked) == 1
    assert b"PRIVATE" not in path.read_bytes()
    assert PIN not in path.read_text()
    assert str(Digest.of(again.signing.public.der)) == keys[Role.WRITER].public.id


def test_a_request_begun_with_another_key_is_not_gone_on_with(lab: Lab, token: SoftToken) -> None:
    """A key in a file waits, and one in a token is asked for, or another way round."""
    keys = with_token(lab, token)
    repository = lab.open()
    next_key = key_of(token, "next")
    in_file, _ = request_rotation(repository, lab.host.key)
    in_token, _ = request_rotation(repository, lab.host.key, signing=next_key)
    again, _ = request_rotation(repository, lab.host.key, signing=next_key, begun=in_token)
    assert again.signing.public == next_key.public  # the control
    for begun, signing in ((in_file, next_key), (in_token, None), (in_token, keys[Role.WRITER])):
        with pytest.raises(ConfigError, match="another key waits already"):
            request_rotation(repository, lab.host.key, begun=begun, signing=signing)
    begun, _ = request_key(
        repository, lab.root_key.repository, name="db", datasets=["db"], domain=None
    )
    with pytest.raises(ConfigError, match="has a key already"):
        request_key(
            repository,
            lab.root_key.repository,
            name="db",
            datasets=["db"],
            domain=None,
            begun=begun,
            signing=next_key,
        )
