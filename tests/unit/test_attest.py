"""Attestations: signed by a restorer, recorded once, refused from anybody else."""

from typing import TYPE_CHECKING, Any

import pytest

from vault import attest
from vault.crypto import SigningKey
from vault.encoding import dumps, loads_strict
from vault.envelope import parse_envelope, seal_envelope
from vault.errors import ConfigError, FormatError, SignatureError, VaultError
from vault.model import Digest, EventBody, replace_body
from vault.repository import MAX_EVIDENCE, Repository

if TYPE_CHECKING:
    from tests.conftest import Lab, MakeRepository


@pytest.fixture
def lab(make_repository: "MakeRepository") -> "Lab":
    """An empty repository."""
    made: Lab = make_repository()
    return made


@pytest.fixture
def repository(lab: "Lab") -> Repository:
    """Opened."""
    return lab.open()


def _describe(opened: Repository, **changes: Any) -> attest.Attestation:
    attestation = attest.describe(
        opened,
        kind="drill",
        verdict="passed",
        snapshot=None,
        started=opened.clock(),
        tool="vault test",
        details={"files": 3},
    )
    return replace_body(attestation, **changes)


def test_round_trip(lab: "Lab", repository: Repository) -> None:
    """What was signed is what is read."""
    attestation = _describe(repository)
    data = attest.sign(attestation, lab.recovery.restorer)
    assert attest.open_attestation(data, repository.ledger) == attestation
    assert attestation.head == str(repository.head)


def test_subject_is_the_manifest_or_the_repository(lab: "Lab", repository: Repository) -> None:
    """An in-toto statement is about something."""
    manifest = "ab" * 32
    for changes, name, digest in [
        ({}, "repository", str(Digest.of(repository.id))),
        ({"manifest": manifest, "snapshot": 7}, "manifest", manifest),
    ]:
        data = attest.sign(_describe(repository, **changes), lab.recovery.restorer)
        statement = loads_strict(parse_envelope(data).payload)
        assert statement["subject"] == [{"name": name, "digest": {"sha256": digest}}]


def test_record(lab: "Lab", repository: Repository) -> None:
    """Stored as evidence, cited by a statement of its kind, found again."""
    data = attest.sign(_describe(repository, verdict="partial"), lab.recovery.restorer)
    assert attest.is_recorded(repository, data) is None
    record = attest.record(repository, data, lab.recovery.restorer, tool="vault test")
    assert record.type == "drill"
    assert isinstance(record.body, EventBody)
    assert record.body.verdict == "partial"
    assert record.body.attestation == str(Digest.of(data))
    fresh = lab.open()
    assert fresh.read_evidence(Digest.of(data)) == data
    assert attest.is_recorded(fresh, data) == record


@pytest.mark.parametrize("who", ["writer", "root", "stranger"])
def test_signed_by_somebody_else(lab: "Lab", repository: Repository, who: str) -> None:
    """A key that is known but has not the role, and one that is not known."""
    keys = {
        "writer": lab.host.key.signing,
        "root": lab.root_key.root,
        "stranger": SigningKey.generate(),
    }
    data = attest.sign(_describe(repository), keys[who])
    before = list(lab.store.versions(""))
    with pytest.raises(SignatureError):
        attest.open_attestation(data, repository.ledger)
    with pytest.raises(SignatureError):
        attest.record(repository, data, lab.recovery.restorer, tool="vault test")
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
    lab: "Lab", repository: Repository, changes: dict[str, Any], error: type[Exception]
) -> None:
    """Rightly signed, and still not one that can be recorded here."""
    attestation = _describe(repository, **changes)
    data = attest.sign(attestation, lab.recovery.restorer)
    with pytest.raises(error):
        attest.record(repository, data, lab.recovery.restorer, tool="vault test")
    assert list(lab.store.versions("evidence/")) == []


def test_malformed(lab: "Lab", repository: Repository) -> None:
    """Any byte that is not as it must be is a `FormatError` or a bad signature."""
    data = attest.sign(_describe(repository), lab.recovery.restorer)
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
            attest.open_attestation(bad, repository.ledger)
    for bad in (b"", data[:-1], data + b" x", b"x" * (MAX_EVIDENCE + 1)):
        with pytest.raises(FormatError):
            attest.open_attestation(bad, repository.ledger)
