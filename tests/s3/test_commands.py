"""Every command as its role runs it: the program itself, with the store's users of Ceph.

The policies are those that ``vault store iam`` prints.
"""

import dataclasses
import hashlib
import json
import os
import secrets
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from vault.errors import RetentionError
from vault.model import Digest
from vault.repository import Repository
from vault.storage import s3

pytestmark = [
    pytest.mark.s3,
    pytest.mark.skipif(
        os.environ.get("VAULT_TEST_S3_USERS") != "ceph", reason="needs the users of ceph-up.sh"
    ),
]

EXIT_DEGRADED, EXIT_KEY, EXIT_STORE = 3, 12, 13
ROLES = ("writer", "restorer", "auditor", "pruner")
MakePerson = Callable[..., Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Office:
    """A repository that its administrator made, and who works with it."""

    url: str
    bucket: str
    root: str  # 0:DIGEST
    source: Path
    administrator: Any
    writer: Any
    restorer: Any
    auditor: Any

    def audit(self, *arguments: object, code: int = 0) -> Any:
        """As the auditor, who has no key file."""
        place = ("--repo", self.url, "--endpoint-url", self.auditor.endpoint)
        return self.auditor.json(*place, "--trust", self.root, *arguments, code=code)


@pytest.fixture
def office(
    client: Any, endpoint: str, make_person: MakePerson, make_source: Callable[..., Path]
) -> Office:
    """One bucket under the policy that the program prints; key files only where they belong."""
    bucket = f"vault-commands-{secrets.token_hex(6)}"
    url = f"s3://{bucket}/repository"
    client.create_bucket(Bucket=bucket, ObjectLockEnabledForBucket=True)
    administrator = make_person("administrator", user="vault")
    principals = [f"--principal={role}=arn:aws:iam:::user/vault-{role}" for role in ROLES]
    policy = administrator.vault(
        *("store", "iam", url, "--bucket-policy", "--dialect", "ceph", *principals),
        "--administrator=arn:aws:iam:::user/vault",
    )
    client.put_bucket_policy(Bucket=bucket, Policy=json.dumps(json.loads(policy.stdout)))
    made = administrator.json("--endpoint-url", endpoint, "init", url, "--host", "first")
    keys = administrator.keys
    return Office(
        url=url,
        bucket=bucket,
        root=made["repository"]["root"],
        source=make_source(),
        administrator=administrator,
        writer=make_person("writer", user="vault-writer", keys=(keys / "writer.key",)),
        restorer=make_person("restorer", user="vault-restorer", keys=(keys / "recovery.key",)),
        auditor=make_person("auditor", user="vault-auditor"),
    )


def test_the_writers_commands(office: Office, endpoint: str) -> None:
    """It stores, reuses and looks at the ledger; what is in the packs stays closed to it."""
    writer = office.writer
    first = writer.json("snapshot", office.source, "--name", "data")["snapshot"]
    (office.source / "new").write_bytes(os.urandom(5000))
    writer.json("snapshot", office.source, "--name", "data", "--retain", "60d")
    writer.json("snapshot", office.source, "--name", "data", "--dry-run")
    assert len(writer.json("list")["snapshots"]) == 2
    writer.json("list", "data")
    for command in (["status"], ["status", "--locks"], ["stats"], ["key", "list"]):
        writer.json(*command)
    request = writer.home / "request"
    place = ("--repo", office.url, "--endpoint-url", endpoint, "--trust", office.root)
    other = writer.home / "other-host"
    other.mkdir()
    asked = dataclasses.replace(writer, home=other).vault(
        *place, "key", "request", "--name", "second", "--dataset", "*", "--out", request
    )
    assert asked.returncode == 0, asked.stderr
    office.administrator.json("key", "add", request)
    assert "second" in json.dumps(writer.json("key", "list"))
    seq = first["seq"]
    for command in (["ls", seq], ["cat", seq, "empty"], ["restore", seq, writer.home / "t"]):
        assert writer.vault(*command).returncode == EXIT_KEY, command
    verified = writer.vault("verify", "--no-key")
    assert verified.returncode == EXIT_STORE, verified.stdout + verified.stderr
    rebuilt = writer.vault("index", "rebuild")
    assert rebuilt.returncode == 0, rebuilt.stderr


def test_the_restorers_commands(office: Office) -> None:
    """It reads everything, proves and records it, and stores no snapshots."""
    restorer = office.restorer
    office.writer.json("snapshot", office.source, "--name", "data")
    (office.source / "new").write_bytes(b"new")
    office.writer.json("snapshot", office.source, "--name", "data")
    target = restorer.home / "target"
    for command in (
        ["list"],
        ["status", "--locks"],
        ["ls", "data"],
        ["find", "new"],
        ["diff", "2", "data"],
        ["stats", "data"],
        ["export-checksums", "data"],
        ["restore", "data", target, "--dry-run"],
        ["restore", "data", target],
        ["verify"],
        ["verify", "data", "--no-key"],
        ["audit", "--read-data", "all"],
        ["heal"],
    ):
        done = restorer.vault(*command)
        assert done.returncode == 0, (command, done.stdout, done.stderr)
    assert (target / "new").read_bytes() == b"new"
    assert restorer.vault("cat", "data", "new").stdout == "new"
    kinds = {fields["type"] for fields in _statements(office)}
    assert {"restore", "verification"} <= kinds
    refused = restorer.vault("snapshot", office.source, "--name", "data")
    assert refused.returncode == EXIT_KEY, refused.stderr


def test_an_attestation_is_recorded_later(office: Office, client: Any) -> None:
    """Of a restore by someone who may not write; the restorer pushes it."""
    office.writer.json("snapshot", office.source, "--name", "data")
    policy = json.loads(client.get_bucket_policy(Bucket=office.bucket)["Policy"])
    closed = client.get_bucket_policy(Bucket=office.bucket)["Policy"]
    for statement in policy["Statement"]:
        if statement["Effect"] == "Allow" and "s3:PutObject" in statement["Action"]:
            statement["Effect"] = "Deny"
    client.put_bucket_policy(Bucket=office.bucket, Policy=json.dumps(policy))
    reader = office.restorer
    done = reader.vault("restore", "data", reader.home / "target")
    assert done.returncode == EXIT_DEGRADED, done.stderr
    client.put_bucket_policy(Bucket=office.bucket, Policy=closed)
    (kept,) = reader.home.glob(".target.vault-*.json")
    reader.json("attest", "push", kept)
    assert "restore" in {fields["type"] for fields in _statements(office)}


def test_the_auditors_commands(office: Office) -> None:
    """Without any key file: all but the packs' bytes, and nothing written."""
    office.writer.json("snapshot", office.source, "--name", "data")
    before = _statements(office)
    for command in (
        ["list"],
        ["status", "--locks"],
        ["stats"],
        ["key", "list"],
        ["audit"],
        ["heal"],
    ):
        office.audit(*command)
    place = ("--repo", office.url, "--endpoint-url", office.auditor.endpoint)
    denied = office.auditor.vault(*place, "--trust", office.root, "verify", "--no-key")
    assert denied.returncode == EXIT_STORE, denied.stdout + denied.stderr
    assert _statements(office) == before


def test_the_administrators_commands(office: Office, endpoint: str) -> None:
    """The bucket is tried out, and a host is shut out."""
    administrator = office.administrator
    administrator.json("--endpoint-url", endpoint, "store", "check", office.url)
    for role in ROLES:
        assert administrator.vault("store", "iam", office.url, "--role", role).returncode == 0
    office.writer.json("snapshot", office.source, "--name", "data")
    revoked = administrator.vault("key", "revoke", "first")
    assert revoked.returncode == 0, revoked.stderr
    refused = office.writer.vault("snapshot", office.source, "--name", "data")
    assert refused.returncode == EXIT_KEY, refused.stderr


def test_the_pruner_deletes_what_is_no_longer_locked(
    office: Office, endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the library, as there is no command for it; what is locked stays."""
    office.writer.json("snapshot", office.source, "--name", "data")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "vault-pruner")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "vault-pruner-secret")
    pruner = s3.S3Store(s3.connect(endpoint), office.bucket, "repository")
    pack = next(pruner.versions("packs/"))
    with pytest.raises(RetentionError):
        pruner.delete(pack.name, pack.version)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "vault")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "vault-secret")
    owner = s3.S3Store(s3.connect(endpoint), office.bucket, "repository")
    digest = hashlib.sha256(b"orphan").digest()
    orphan = owner.put("packs/ab/orphan", b"orphan", sha256=digest)
    pruner.delete(orphan.name, orphan.version)
    assert orphan.version not in {item.version for item in pruner.versions(orphan.name)}


def _statements(office: Office) -> list[Any]:
    """What the ledger says, as the library reads it with the owner's credentials."""
    store = s3.S3Store(s3.connect(office.auditor.endpoint), office.bucket, "repository")
    root = Digest.parse(office.root.partition(":")[2])
    records = Repository(store, root, clock=lambda: datetime.now(UTC)).ledger.records
    return [{"seq": record.seq, "type": record.type} for record in records]
