"""Attestations: signed by a restorer, recorded once, refused from anybody else."""

from typing import Any

import pytest

from tests.support.lab import Lab
from tests.support.trees import MakeSource
from vault.clock import from_rfc3339
from vault.crypto.keys import SigningKey
from vault.encoding import b64encode, dumps, loads_strict
from vault.errors import ConfigError, FormatError, SignatureError, VaultError
from vault.ledger.envelope import parse_envelope, seal_envelope
from vault.ledger.records import Record
from vault.ledger.statements import EventBody, PublicKey, RootBody, VerificationBody
from vault.model import Digest, replace_body
from vault.repository import attestations
from vault.repository.append_statements import Draft
from vault.repository.objects import MAX_EVIDENCE
from vault.repository.repository import Repository


@pytest.fixture
def repository(lab: Lab) -> Repository:
    """Opened."""
    return lab.open()


def _describe(opened: Repository, **changes: Any) -> attestations.Attestation:
    attestation = attestations.attestation_of(
        opened,
        kind="drill",
        verdict="passed",
        snapshot=None,
        started=opened.clock(),
        tool="vault test",
        details={"files": 3},
    )
    return replace_body(attestation, **changes)


def test_round_trip(lab: Lab, repository: Repository) -> None:
    """What was signed is what is read."""
    attestation = _describe(repository)
    data = attestations.sign(attestation, lab.recovery.restorer)
    assert attestations.open_attestation(data, repository.ledger) == attestation
    assert attestation.head == str(repository.head)


def test_subject_is_the_manifest_or_the_repository(lab: Lab, repository: Repository) -> None:
    """An in-toto statement is about something."""
    manifest = "ab" * 32
    for changes, name, digest in [
        ({}, "repository", str(Digest.of(repository.id))),
        ({"manifest": manifest, "snapshot": 7}, "manifest", manifest),
    ]:
        data = attestations.sign(_describe(repository, **changes), lab.recovery.restorer)
        statement = loads_strict(parse_envelope(data).payload)
        assert statement["subject"] == [{"name": name, "digest": {"sha256": digest}}]


def test_record(lab: Lab, repository: Repository) -> None:
    """Stored as evidence, cited by a statement of its kind, found again."""
    data = attestations.sign(_describe(repository, verdict="partial"), lab.recovery.restorer)
    assert attestations.is_recorded(repository, data) is None
    record = attestations.record_attestation(
        repository, data, lab.recovery.restorer, tool="vault test"
    )
    assert record.type == "drill"
    assert isinstance(record.body, EventBody)
    assert record.body.verdict == "partial"
    assert record.body.attestation == str(Digest.of(data))
    fresh = lab.open()
    assert fresh.read_evidence(Digest.of(data)) == data
    assert attestations.is_recorded(fresh, data) == record


@pytest.mark.parametrize("who", ["writer", "root", "stranger"])
def test_signed_by_somebody_else(lab: Lab, repository: Repository, who: str) -> None:
    """A key that is known but has not the role, and one that is not known."""
    keys = {
        "writer": lab.host.key.signing,
        "root": lab.root_key.root,
        "stranger": SigningKey.generate(),
    }
    data = attestations.sign(_describe(repository), keys[who])
    before = list(lab.store.versions(""))
    with pytest.raises(SignatureError):
        attestations.open_attestation(data, repository.ledger)
    with pytest.raises(SignatureError):
        attestations.record_attestation(repository, data, lab.recovery.restorer, tool="vault test")
    assert list(lab.store.versions("")) == before


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"repository": "00" * 16}, ConfigError),
        ({"kind": "snapshot"}, FormatError),
        ({"verdict": "splendid"}, VaultError),
        ({"started": "yesterday"}, VaultError),
    ],
)
def test_impossible_attestations(
    lab: Lab, repository: Repository, changes: dict[str, Any], error: type[Exception]
) -> None:
    """Rightly signed, and still not one that can be recorded here."""
    attestation = _describe(repository, **changes)
    data = attestations.sign(attestation, lab.recovery.restorer)
    with pytest.raises(error):
        attestations.record_attestation(repository, data, lab.recovery.restorer, tool="vault test")
    assert list(lab.store.versions("evidence/")) == []


def test_malformed(lab: Lab, repository: Repository) -> None:
    """Any byte that is not as it must be is a `FormatError` or a bad signature."""
    data = attestations.sign(_describe(repository), lab.recovery.restorer)
    statement = loads_strict(parse_envelope(data).payload)
    for payload in (
        dumps([]),
        dumps({**statement, "predicateType": "urn:vault:restore:v1"}),
        dumps({**statement, "predicate": None}),
        dumps({**statement, "predicate": {**statement["predicate"], "details": []}}),
        b"junk",
    ):
        bad = seal_envelope(payload, [lab.recovery.restorer], limit=MAX_EVIDENCE // 2)
        with pytest.raises(FormatError):
            attestations.open_attestation(bad, repository.ledger)
    for bad in (b"", data[:-1], data + b" x", b"x" * (MAX_EVIDENCE + 1)):
        with pytest.raises(FormatError):
            attestations.open_attestation(bad, repository.ledger)


# --- an attestation and the statement that cites it ---


def _cite(lab: Lab, data: bytes, kind: str, body: EventBody | VerificationBody) -> Record:
    """Append a statement that says whatever it says of these bytes."""
    repository = lab.open()
    digest = repository.put_evidence(data)
    draft = Draft(type=kind, subject=[(f"evidence/{digest}", digest)], body=body)
    return repository.append(lambda _: draft, [lab.recovery.restorer], tool="vault test")


def _said(data: bytes, **changes: Any) -> EventBody:
    """The body that an honest statement about these bytes would have, with changes."""
    attestation = loads_strict(parse_envelope(data).payload)["predicate"]
    body = EventBody(
        verdict=attestation["verdict"],
        snapshot=attestation.get("snapshot"),
        started=attestation["started"],
        finished=attestation["finished"],
        attestation=str(Digest.of(data)),
    )
    return replace_body(body, **changes)


def _objections(lab: Lab, data: bytes, record: Record) -> list[str]:
    return [each.what for each in attestations.objections(data, record, lab.open().ledger)]


def test_what_was_recorded_is_borne_out(lab: Lab, make_source: MakeSource) -> None:
    """Every kind, about one snapshot, several, or none; whole and failed."""
    snapshot = lab.snapshot(make_source()).record
    claims = {"snapshots": [[snapshot.seq, snapshot.seq]], "share": 5, "opened": True, "read": 9}
    cases: list[tuple[str, dict[str, Any]]] = [
        ("drill", {}),
        ("restore", {"snapshot": snapshot.seq, "manifest": str(snapshot.digest)}),
        ("restore", {"verdict": "failed", "claims": {"bad": ["ab" * 32], "bad_count": 1}}),
        ("verification", {"claims": claims}),
    ]
    for kind, changes in cases:
        opened = lab.open()
        if kind == "verification":
            claims["through"] = opened.head.seq
        data = attestations.sign(_describe(opened, kind=kind, **changes), lab.recovery.restorer)
        record = attestations.record_attestation(
            opened, data, lab.recovery.restorer, tool="vault test"
        )
        assert _objections(lab, data, record) == []


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"verdict": "failed"}, "verdict"),
        ({"snapshot": 1}, "snapshot"),
        ({"started": "2026-01-01T00:00:00Z"}, "started"),
        ({"finished": "2026-01-01T00:00:00Z"}, "finished"),
        ({"bad": ("ab" * 32,), "bad_count": 1}, "bad"),
        ({"cleared": ("ab" * 32,)}, "cleared"),
    ],
)
def test_a_statement_that_says_more_than_was_attested(
    lab: Lab, repository: Repository, changes: dict[str, Any], what: str
) -> None:
    """Each field of its body, compared with what was signed."""
    data = attestations.sign(_describe(repository), lab.recovery.restorer)
    record = _cite(lab, data, "drill", _said(data, **changes))
    assert what in _objections(lab, data, record)
    assert _objections(lab, data, _cite(lab, data, "drill", _said(data))) == []


def test_junk_is_no_attestation(lab: Lab) -> None:
    """Nor is another kind's, another repository's, or other bytes than were cited."""
    junk = b"nothing was restored"
    said = EventBody(
        verdict="passed",
        started=from_rfc3339("2026-01-01T00:00:00Z"),
        finished=from_rfc3339("2026-01-01T00:00:09Z"),
        attestation=str(Digest.of(junk)),
    )
    assert _objections(lab, junk, _cite(lab, junk, "drill", said)) == ["attestation"]
    data = attestations.sign(_describe(lab.open()), lab.recovery.restorer)
    assert _objections(lab, data, _cite(lab, data, "restore", _said(data))) == ["kind"]
    honest = _cite(lab, data, "drill", _said(data))
    assert _objections(lab, data + b" ", honest) == ["digest"]
    other = attestations.sign(_describe(lab.open(), repository="00" * 16), lab.recovery.restorer)
    assert _objections(lab, other, _cite(lab, other, "drill", _said(other))) == ["attestation"]


def test_the_head_and_manifest_must_be_the_ledgers(lab: Lab, make_source: MakeSource) -> None:
    """A head of another history or of the future, and a manifest that is no snapshot's."""
    snapshot = lab.snapshot(make_source()).record
    right = {"snapshot": snapshot.seq, "manifest": str(snapshot.digest)}
    cases: list[tuple[dict[str, Any], list[str]]] = [
        ({"head": f"0:{'ab' * 32}"}, ["head"]),
        ({"head": f"999:{'ab' * 32}"}, ["head"]),
        ({"head": "the newest"}, ["head"]),
        ({"manifest": "ab" * 32}, ["manifest"]),
        ({"snapshot": None}, ["manifest"]),
        ({}, []),
    ]
    for changes, what in cases:
        attestation = _describe(lab.open(), **{**right, **changes})
        data = attestations.sign(attestation, lab.recovery.restorer)
        assert _objections(lab, data, _cite(lab, data, "drill", _said(data))) == what


def _with_restorers(lab: Lab, *keys: SigningKey) -> None:
    """Append root N+1: these are the restorers."""
    repository = lab.open()
    root = repository.ledger.root
    kept = [key for key in root.keys if "restorer" not in key.roles]
    added = [
        PublicKey(name=f"restorer{n}", public=b64encode(key.public.der), roles=("restorer",))
        for n, key in enumerate(keys)
    ]
    body: RootBody = replace_body(root, version=root.version + 1, keys=(*kept, *added))
    draft = Draft(type="root", subject=[("repository", Digest.of(repository.id))], body=body)
    repository.append(lambda _: draft, [lab.root_key.root], tool="vault test")


def test_the_signer_must_have_been_listed_then(lab: Lab) -> None:
    """Who was taken out later still counts for what is older; who comes later does not."""
    old, new = lab.recovery.restorer, SigningKey.generate()
    data = attestations.sign(_describe(lab.open()), old)
    before = _cite(lab, data, "drill", _said(data))
    early = attestations.sign(_describe(lab.open(), details={"by": "new"}), new)
    too_early = _cite(lab, early, "drill", _said(early))
    _with_restorers(lab, new)
    assert _objections(lab, data, before) == []
    assert _objections(lab, early, too_early) == ["attestation"]
    ledger = lab.open().ledger
    with pytest.raises(SignatureError):
        attestations.open_attestation(data, ledger)
    assert attestations.open_attestation(early, ledger).kind == "drill"
