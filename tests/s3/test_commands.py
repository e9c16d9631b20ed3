"""Every command as its role runs it: the program itself, with the store's users of Ceph.

The policies are those that ``vault store iam`` prints.
"""

import dataclasses
import hashlib
import importlib.util
import json
import os
import secrets
import shutil
import signal
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click
import pytest

from cli import main
from vault.errors import RetentionError
from vault.model import Digest
from vault.repository.repository import Repository
from vault.storage import s3, s3_client
from vault.storage.urls import parse_s3

pytestmark = [
    pytest.mark.s3,
    pytest.mark.skipif(
        os.environ.get("VAULT_TEST_S3_SERVER") != "ceph", reason="needs the users of ceph-up.sh"
    ),
]

EXIT_DEGRADED, EXIT_INTEGRITY, EXIT_KEY, EXIT_STORE = 3, 4, 12, 13
ROLES = ("writer", "restorer", "auditor", "pruner")
MakePerson = Callable[..., Any]

# by the test that runs them, and under whose credentials; test_role_matrix.py has every command
WRITERS = {"snapshot", "list", "status", "stats", "key list", "key request", "index rebuild"}
WRITERS |= {"log", "show"}
RESTORERS = {"list", "status", "ls", "cat", "find", "diff", "stats", "export-checksums"}
RESTORERS |= {"restore", "verify", "audit", "heal"}
PUSHED, MOUNTED = {"attest push"}, {"mount"}
AUDITORS = {"list", "status", "stats", "key list", "audit", "heal", "verify"}
ADMINISTRATORS = {"init", "store check", "store iam", "key add", "key limit", "key revoke"}
HEALERS = {"heal", "audit"}


def leaves(group: click.Group, above: str = "") -> set[str]:
    """The commands of the program, with what they stand under."""
    found: set[str] = set()
    for name in group.list_commands(click.Context(group)):
        command = group.get_command(click.Context(group), name)
        full = f"{above} {name}".lstrip()
        found |= leaves(command, full) if isinstance(command, click.Group) else {full}
    return found


def ran(person: Any) -> set[str]:
    """Which of them somebody has called."""
    known = leaves(main.app)
    lines = (" ".join(line) for line in person.history)
    return {name for line in lines for name in known if f" {name} " in f" {line} "}


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
    put_policy(client, administrator, url)
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


def put_policy(client: Any, administrator: Any, url: str, *options: str) -> None:
    """Give the bucket the policy that the program prints for it."""
    principals = [f"--principal={role}=arn:aws:iam:::user/vault-{role}" for role in ROLES]
    printed = administrator.vault(
        *("store", "iam", url, "--bucket-policy", "--dialect", "ceph", *principals, *options),
        "--administrator=arn:aws:iam:::user/vault",
    )
    policy = json.dumps(json.loads(printed.stdout))
    client.put_bucket_policy(Bucket=parse_s3(url)[0], Policy=policy)


def test_the_writers_commands(office: Office, endpoint: str) -> None:
    """It stores, reuses and looks at the ledger; what is in the packs stays closed to it."""
    writer = office.writer
    first = writer.json("snapshot", office.source, "--name", "data")["snapshot"]
    (office.source / "new").write_bytes(os.urandom(5000))
    writer.json("snapshot", office.source, "--name", "data", "--retain", "60d")
    writer.json("snapshot", office.source, "--name", "data", "--dry-run")
    assert len(writer.json("list")["snapshots"]) == 2
    writer.json("list", "data")
    assert writer.vault("log").returncode == 0
    for command in (["status"], ["status", "--locks"], ["stats"], ["key", "list"], ["show", "2"]):
        writer.json(*command)
    request = writer.home / "request"
    place = ("--repo", office.url, "--endpoint-url", endpoint, "--trust", office.root)
    other = writer.home / "other-host"
    other.mkdir()
    asked = dataclasses.replace(writer, home=other).json(
        *place, "key", "request", "--name", "second", "--dataset", "*", "--out", request
    )
    agreed = ("--key", asked["request"]["key"], "--share-datasets", "first")
    office.administrator.json("key", "add", request, *agreed)
    assert "second" in json.dumps(writer.json("key", "list"))
    seq = first["seq"]
    for command in (["ls", seq], ["cat", seq, "empty"], ["restore", seq, writer.home / "t"]):
        assert writer.vault(*command).returncode == EXIT_KEY, command
    verified = writer.vault("verify", "--no-key")
    assert verified.returncode == EXIT_STORE, verified.stdout + verified.stderr
    rebuilt = writer.vault("index", "rebuild")
    assert rebuilt.returncode == 0, rebuilt.stderr
    assert ran(writer) >= WRITERS


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
    assert ran(restorer) >= RESTORERS


@pytest.mark.skipif(
    not os.access("/dev/fuse", os.R_OK | os.W_OK)
    or not (shutil.which("fusermount") or shutil.which("fusermount3"))
    or importlib.util.find_spec("mfusepy") is None,
    reason="mounting needs /dev/fuse, fusermount and mfusepy",
)
def test_the_restorer_mounts_a_snapshot(office: Office) -> None:
    """Files are read through the kernel, from packs that are fetched as they are needed."""
    office.writer.json("snapshot", office.source, "--name", "data")
    place = office.restorer.home / "mountpoint"
    place.mkdir()
    running = office.restorer.start("mount", "data", place)
    try:
        while not place.is_mount():
            assert running.poll() is None, (office.restorer.home / "messages").read_text()
            time.sleep(0.05)
        wanted = {path for path in office.source.rglob("*") if path.is_file()}
        assert wanted
        for path in wanted:
            assert (place / path.relative_to(office.source)).read_bytes() == path.read_bytes()
    finally:
        running.send_signal(signal.SIGINT)
        running.wait(timeout=60)
    assert not place.is_mount()
    assert ran(office.restorer) >= MOUNTED


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
    (kept,) = reader.home.rglob("attestations/*.json")  # in the state directory of who restored
    reader.json("attest", "push", kept)
    assert ran(reader) >= PUSHED
    assert "restore" in {fields["type"] for fields in _statements(office)}


def test_the_auditors_commands(office: Office, client: Any) -> None:
    """Without any key file and writing nothing; the packs' bytes only where that was granted."""
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
    for command in (["verify", "--no-key"], ["audit", "--read-data", "all"]):
        denied = office.auditor.vault(*place, "--trust", office.root, *command)
        assert denied.returncode == EXIT_STORE, denied.stdout + denied.stderr
    put_policy(client, office.administrator, office.url, "--read-data")
    read = office.audit("audit", "--read-data", "all")["audit"]
    assert read["verdict"] == "passed; all packs read"
    assert read["bytes_read"] >= sum(file.stat().st_size for file in office.source.rglob("*/file*"))
    office.audit("verify", "--no-key")
    assert _statements(office) == before
    assert ran(office.auditor) >= AUDITORS


def test_the_administrators_commands(office: Office, endpoint: str) -> None:
    """The bucket is tried out, and a host is shut out."""
    administrator = office.administrator
    administrator.json("--endpoint-url", endpoint, "store", "check", office.url)
    for role in ROLES:
        assert administrator.vault("store", "iam", office.url, "--role", role).returncode == 0
    office.writer.json("snapshot", office.source, "--name", "data")
    administrator.json("key", "limit", "first", "--dataset", "data")
    revoked = administrator.vault("key", "revoke", "first")
    assert revoked.returncode == 0, revoked.stderr
    refused = office.writer.vault("snapshot", office.source, "--name", "data")
    assert refused.returncode == EXIT_KEY, refused.stderr
    request = administrator.home / "request"
    asked = office.auditor.json(
        *("--repo", office.url, "--endpoint-url", endpoint, "--trust", office.root),
        *("key", "request", "--name", "second", "--dataset", "*", "--out", request),
    )
    administrator.json("key", "add", request, "--key", asked["request"]["key"])
    assert ran(administrator) >= ADMINISTRATORS


def test_the_administrator_heals_what_an_attacker_hid(office: Office, client: Any) -> None:
    """Everything is marked, a third overwritten, some of it locked: plain reads are right again."""
    office.writer.json("snapshot", office.source, "--name", "data")
    store = s3.S3Store(client, office.bucket, "repository")
    names = sorted({item.name for item in store.versions("") if "probe/" not in item.name})
    before = {name: store.get(name) for name in names}
    lock = {"ObjectLockMode": "GOVERNANCE", "ObjectLockRetainUntilDate": soon(store)}
    for number, name in enumerate(names):
        at = {"Bucket": office.bucket, "Key": store.prefix + name}
        if number % 3 == 0:
            locked = lock if number % 2 else {}
            client.put_object(Body=b"junk", ChecksumAlgorithm="SHA256", **at, **locked)
        client.delete_object(**at)
    refused = office.restorer.json("heal", "--execute", "--no-key", code=EXIT_INTEGRITY)["heal"]
    assert set(refused["hidden"]) >= {name for name in names if name.startswith("packs/")}
    planned = office.administrator.json("heal", code=EXIT_INTEGRITY)["heal"]
    assert {step["action"] for step in planned["steps"]} == {"remove marker", "remove junk"}
    healed = office.administrator.json("heal", "--execute")["heal"]
    assert healed["statement"]
    needed = [name for name in names if not name.startswith("index/")]
    assert {name: store.get(name) for name in needed} == {name: before[name] for name in needed}
    assert {step["action"] for step in healed["steps"] if step["done"]} >= {"remove marker"}
    assert ran(office.administrator) >= {"heal"}


def soon(store: s3.S3Store) -> datetime:
    """When junk is unlocked again."""
    return store.now() + timedelta(days=1)


def test_the_pruner_deletes_what_is_no_longer_locked(
    office: Office, endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the library, as there is no command for it; what is locked stays."""
    office.writer.json("snapshot", office.source, "--name", "data")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "vault-pruner")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "vault-pruner-secret")
    pruner = s3.S3Store(s3_client.connect(endpoint), office.bucket, "repository")
    pack = next(pruner.versions("packs/"))
    with pytest.raises(RetentionError):
        pruner.delete(pack.name, pack.version)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "vault")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "vault-secret")
    owner = s3.S3Store(s3_client.connect(endpoint), office.bucket, "repository")
    digest = hashlib.sha256(b"orphan").digest()
    orphan = owner.put("packs/ab/orphan", b"orphan", sha256=digest)
    pruner.delete(orphan.name, orphan.version)
    assert orphan.version not in {item.version for item in pruner.versions(orphan.name)}


def _statements(office: Office) -> list[Any]:
    """What the ledger says, as the library reads it with the owner's credentials."""
    store = s3.S3Store(s3_client.connect(office.auditor.endpoint), office.bucket, "repository")
    root = Digest.parse(office.root.partition(":")[2])
    records = Repository.open(store, root, clock=lambda: datetime.now(UTC)).ledger.records
    return [{"seq": record.seq, "type": record.type} for record in records]
