"""Each role does its work with its credentials, and nothing else (on Ceph, which has the users)."""

import dataclasses
import functools
import hashlib
import json
import os
import secrets
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.support.lab import Lab, MakeRepository
from tests.support.trees import MakeSource
from vault.errors import StorageError
from vault.machine.workers import make_workers
from vault.model import LockMode
from vault.parameters import Parameters
from vault.restore import RestoreOutcome, RestoreRequest, restore_snapshot
from vault.storage import s3, s3_client
from vault.storage.base import DeniedError, ObjectVersion
from vault.storage.iam import AccessRole, Dialect, bucket_policy

pytestmark = [
    pytest.mark.s3,
    pytest.mark.skipif(
        os.environ.get("VAULT_TEST_S3_SERVER") != "ceph", reason="needs the users of ceph-up.sh"
    ),
]

StoreOf = Callable[[str], s3.S3Store]


@pytest.fixture
def store_of(endpoint: str, client: Any, monkeypatch: pytest.MonkeyPatch) -> StoreOf:
    """The store as a user of the server sees it; one bucket, under the policy of the vault."""
    bucket = f"vault-roles-{secrets.token_hex(6)}"
    client.create_bucket(Bucket=bucket, ObjectLockEnabledForBucket=True)
    policy = bucket_policy(
        bucket,
        "repository",
        dialect=Dialect.CEPH,
        parameters=Parameters(lock_mode=LockMode.GOVERNANCE, extend=False),
        principals={role: [f"arn:aws:iam:::user/vault-{role}"] for role in AccessRole},
    )
    client.put_bucket_policy(Bucket=bucket, Policy=json.dumps(policy))

    def store_of(user: str) -> s3.S3Store:
        with monkeypatch.context() as patch:
            patch.setenv("AWS_ACCESS_KEY_ID", user)
            patch.setenv("AWS_SECRET_ACCESS_KEY", f"{user}-secret")
            return s3.S3Store(s3_client.connect(endpoint), bucket, "repository")

    return store_of


@pytest.fixture
def lab(store_of: StoreOf, make_repository: MakeRepository) -> Lab:
    """A repository that the bucket's owner made."""
    return make_repository(LockMode.GOVERNANCE, store=store_of("vault"), extend=False)


def attempts(store: s3.S3Store, item: ObjectVersion) -> dict[str, Callable[[], object]]:
    """What may be tried on one locked object, by name."""
    at = {"Key": store.prefix + item.name, "VersionId": item.version}

    def call(operation: str, **arguments: Any) -> Callable[[], object]:
        return lambda: store.request("attack", item.name, operation, **arguments)

    wrapped = {"Mode": "GOVERNANCE", "RetainUntilDate": datetime(2106, 2, 7, 7, tzinfo=UTC)}
    short = {"Mode": "GOVERNANCE", "RetainUntilDate": store.now()}
    return {
        "read": lambda: store.get(item.name, item.version),
        "delete": call("delete_object", **at),
        "bypass": call("delete_object", BypassGovernanceRetention=True, **at),
        "mark": call("delete_object", Key=at["Key"]),
        "shorten": call(
            "put_object_retention", Retention=short, BypassGovernanceRetention=True, **at
        ),
        "extend": call("put_object_retention", Retention=wrapped, **at),
        "publish": call("put_object_acl", ACL="public-read", **at),
        "publish anew": call("put_object", Key=at["Key"], Body=b"x", ACL="public-read"),
        "hold": call("put_object_legal_hold", LegalHold={"Status": "ON"}, **at),
        "policy": call("delete_bucket_policy"),
        "suspend": call("put_bucket_versioning", VersioningConfiguration={"Status": "Suspended"}),
    }


def allowed(store: s3.S3Store, item: ObjectVersion) -> set[str]:
    """Which of the attempts the server let pass."""
    passed = set()
    for name, attempt in attempts(store, item).items():
        try:
            attempt()
        except DeniedError:
            continue
        except StorageError:
            continue
        passed.add(name)
    return passed


def test_the_writer_takes_snapshots_and_can_do_no_harm(
    lab: Lab, store_of: StoreOf, make_source: MakeSource
) -> None:
    """It stores what it may not read."""
    writer = store_of("vault-writer")
    source = make_source()
    record = lab.with_store(writer).snapshot(source).record
    (source / "new").write_bytes(b"new")
    lab.with_store(writer).snapshot(source, retention=timedelta(days=60))
    pack = next(writer.versions("packs/"))
    assert writer.status(pack.name, pack.version).size == pack.size
    statement = next(writer.versions("ledger/"))
    assert allowed(writer, pack) == set()
    assert allowed(writer, statement) == {"read"}
    assert lab.with_store(store_of("vault-restorer")).verify(record).passed


def test_the_restorer_restores_and_records_it(
    lab: Lab, store_of: StoreOf, make_source: MakeSource, tmp_path: Path
) -> None:
    """And stores no packs."""
    record = lab.snapshot(make_source()).record
    restorer = store_of("vault-restorer")
    request = RestoreRequest(record=record, target=tmp_path / "target", tool="vault test")
    with make_workers(0) as workers:
        report = restore_snapshot(
            lab.with_store(restorer).open(),
            lab.recovery,
            request,
            local=lab.local,
            scratch=tmp_path,
            workers=workers,
        )
    assert report.outcome is RestoreOutcome.RECOVERED
    assert report.statement is not None
    with pytest.raises(DeniedError):
        restorer.put("packs/ab/x", b"x", sha256=hashlib.sha256(b"x").digest())
    assert allowed(restorer, next(restorer.versions("packs/"))) == {"read"}


def test_the_auditor_sees_all_but_the_data(
    lab: Lab, store_of: StoreOf, make_source: MakeSource
) -> None:
    """Chain, inventories, and the lock of every pack; writes nothing."""
    record = lab.snapshot(make_source()).record
    auditor = store_of("vault-auditor")
    repository = lab.with_store(auditor).open()
    for ref in repository.inventory(record).objects:
        assert auditor.status(ref.name, ref.version).retention is not None
    with pytest.raises(DeniedError):
        auditor.put("evidence/x", b"x", sha256=hashlib.sha256(b"x").digest())
    assert allowed(auditor, next(auditor.versions("packs/"))) == set()
    assert allowed(auditor, next(auditor.versions("ledger/"))) == {"read"}


def test_the_pruner_deletes_what_is_unlocked_under_its_names_only(
    lab: Lab, store_of: StoreOf, make_source: MakeSource
) -> None:
    """Locked packs and the ledger stay."""
    lab.snapshot(make_source())
    owner, pruner = store_of("vault"), store_of("vault-pruner")
    digest = hashlib.sha256(b"x").digest()
    orphan, kept = (owner.put(name, b"x", sha256=digest) for name in ("packs/ab/x", "ledger/x"))
    locked = next(item for item in pruner.versions("packs/") if item.name != orphan.name)
    pruner.delete(orphan.name, orphan.version)
    with pytest.raises(DeniedError):
        pruner.delete(kept.name, kept.version)
    assert allowed(pruner, locked) == set()


# --- every call on every kind of object, past the program ---

# r: read; a: add, and cover by another version; d: delete what is not locked
RIGHTS = """
who       ledger  ledger-page  evidence  index  inventory  domains  packs  seeds  checkpoint  probe
writer    ra      ra           ra        ra     ra         ra       a      re     r           -
restorer  ra      ra           ra        r      r          r        r      ra     r           r
verifier  ra      ra           ra        r      r          r        r      r      r           r
auditor   r       r            r         r      r          r        -      r      r           -
reading   r       r            r         r      r          r        r      r      r           r
pruner    ra      ra           ra        d      rd         -        d      -      r           -
log       r       r            -         -      -          -        -      -      ra          -
stranger  -       -            -         -      -          -        -      -      -           -
"""
# e: extends locks; where nothing may, it stores the same bytes under a new one
LETTERS = {"r": {"read", "read newest", "look up"}, "a": {"add", "cover"}, "d": {"delete unlocked"}}
EXTENDS = {"extend", "wrap around"}  # the second is what Ceph 16 does wrong: see docs/stores.md
KEEPERS = {
    "probe": "vault",
    "checkpoint": "vault-log",
    "seeds": "vault-restorer",
}  # who stores what others only read
EVERYBODY = 'uri="http://acs.amazonaws.com/groups/global/AllUsers"'


def rights_of(who: str) -> dict[str, str]:
    """By kind of object."""
    head, *rows = (line.split() for line in RIGHTS.strip().splitlines())
    return {kind: row[at] for row in rows if row[0] == who for at, kind in enumerate(head) if at}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Server:
    """A bucket under its policy, as each user's own boto3 sees it."""

    bucket: str
    clients: Callable[[str], Any]

    def put(self, user: str, key: str, *, days: int = 40) -> dict[str, str]:
        """Store an object; gives where it is. Locked, unless for no days."""
        until = datetime.now(UTC) + timedelta(days=days)
        lock: dict[str, Any] = {"ObjectLockMode": "GOVERNANCE", "ObjectLockRetainUntilDate": until}
        place = {"Bucket": self.bucket, "Key": key}
        answer = self.clients(user).put_object(
            Body=b"data", ChecksumAlgorithm="SHA256", **place, **(lock if days else {})
        )
        return {**place, "VersionId": answer["VersionId"]}


@pytest.fixture
def make_server(client: Any, endpoint: str) -> Callable[..., Server]:
    """Makes one under the policy that is printed for all roles."""

    @functools.cache
    def clients(user: str) -> Any:
        import boto3

        secret: dict[str, Any] = {
            "aws_access_key_id": user,
            "aws_secret_access_key": f"{user}-secret",
        }
        return boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1", **secret)

    def make(
        *, extend: bool = False, read_data: bool = False, administrator: str = "vault"
    ) -> Server:
        bucket = f"vault-calls-{secrets.token_hex(6)}"
        client.create_bucket(Bucket=bucket, ObjectLockEnabledForBucket=True)
        policy = bucket_policy(
            bucket,
            "repository",
            dialect=Dialect.CEPH,
            parameters=Parameters(lock_mode=LockMode.GOVERNANCE, extend=extend),
            principals={role: [f"arn:aws:iam:::user/vault-{role}"] for role in AccessRole},
            administrator=administrator and f"arn:aws:iam:::user/{administrator}",
            read_data=read_data,
        )
        client.put_bucket_policy(Bucket=bucket, Policy=json.dumps(policy))
        return Server(bucket=bucket, clients=clients)

    return make


def object_calls(server: Server, client: Any, at: dict[str, str]) -> dict[str, Callable[[], Any]]:
    """What may be asked of one locked version."""
    place = {"Bucket": at["Bucket"], "Key": at["Key"]}
    new = {**place, "Key": at["Key"] + secrets.token_hex(4), "Body": b"x"}
    several = {"Objects": [{"Key": at["Key"], "VersionId": at["VersionId"]}]}

    def until(**span: float) -> dict[str, Any]:
        return {"Mode": "GOVERNANCE", "RetainUntilDate": datetime.now(UTC) + timedelta(**span)}

    def retain(retention: dict[str, Any], **options: Any) -> Callable[[], Any]:
        return lambda: client.put_object_retention(**at, Retention=retention, **options)

    def each(answer: dict[str, Any]) -> None:
        if answer.get("Errors"):
            raise PermissionError

    wrapped = {"Mode": "GOVERNANCE", "RetainUntilDate": datetime(2106, 2, 7, 7, tzinfo=UTC)}
    hold = client.put_object_legal_hold
    checked = {"ChecksumAlgorithm": "SHA256"}
    return {
        "read": lambda: client.get_object(**at),
        "read newest": lambda: client.get_object(**place),
        "look up": lambda: client.head_object(**at),
        "add": lambda: client.put_object(**new, **checked),
        "cover": lambda: client.put_object(**{**new, **place}, **checked),
        "add for all": lambda: client.put_object(**new, **checked, ACL="public-read"),
        "delete": lambda: client.delete_object(**at),
        "delete bypassing": lambda: client.delete_object(**at, BypassGovernanceRetention=True),
        "delete in a list": lambda: each(
            client.delete_objects(
                Bucket=server.bucket, Delete=several, BypassGovernanceRetention=True
            )
        ),
        "mark": lambda: client.delete_object(**place),
        "mark in a list": lambda: each(
            client.delete_objects(Bucket=server.bucket, Delete={"Objects": [{"Key": at["Key"]}]})
        ),
        "shorten": retain(until(seconds=5)),
        "shorten bypassing": retain(until(seconds=5), BypassGovernanceRetention=True),
        "extend": retain(until(days=50)),
        "wrap around": retain(wrapped),
        "hold": lambda: hold(**at, LegalHold={"Status": "ON"}),
        "let go": lambda: hold(**at, LegalHold={"Status": "OFF"}),
        "publish": lambda: client.put_object_acl(**at, ACL="public-read"),
        "publish newest": lambda: client.put_object_acl(**place, ACL="public-read"),
        "grant": lambda: client.put_object_acl(**at, GrantRead=EVERYBODY),
    }


def bucket_calls(server: Server, client: Any) -> dict[str, Callable[[], Any]]:
    """What would weaken the bucket."""
    at = {"Bucket": server.bucket}
    rule = {"ID": "x", "Status": "Enabled", "Prefix": "", "Expiration": {"Days": 1}}
    return {
        "policy": lambda: client.put_bucket_policy(
            **at, Policy=json.dumps({"Version": "2012-10-17", "Statement": []})
        ),
        "no policy": lambda: client.delete_bucket_policy(**at),
        "lifecycle": lambda: client.put_bucket_lifecycle_configuration(
            **at, LifecycleConfiguration={"Rules": [rule]}
        ),
        "no lifecycle": lambda: client.delete_bucket_lifecycle(**at),
        "suspend": lambda: client.put_bucket_versioning(
            **at, VersioningConfiguration={"Status": "Suspended"}
        ),
        "locks": lambda: client.put_object_lock_configuration(
            **at, ObjectLockConfiguration={"ObjectLockEnabled": "Enabled"}
        ),
        "access": lambda: client.put_bucket_acl(**at, ACL="public-read"),
        "origins": lambda: client.put_bucket_cors(
            **at,
            CORSConfiguration={"CORSRules": [{"AllowedMethods": ["GET"], "AllowedOrigins": ["*"]}]},
        ),
        "payer": lambda: client.put_bucket_request_payment(
            **at, RequestPaymentConfiguration={"Payer": "Requester"}
        ),
        "delete": lambda: client.delete_bucket(**at),
    }


def passes(call: Callable[[], Any]) -> bool:
    """Whether the server did it; what it does not know is not done."""
    try:
        call()
    except PermissionError:
        return False
    except ClientError as error:
        code = error.response["Error"]["Code"]
        assert code not in {"InvalidAccessKeyId", "SignatureDoesNotMatch"}  # refused for what it is
        return False
    return True


@pytest.mark.parametrize("extend", [False, True], ids=["no-extend", "extend"])
@pytest.mark.parametrize("who", [row.split()[0] for row in RIGHTS.strip().splitlines()[1:]])
def test_each_role_may_ask_for_what_it_needs_and_nothing_else(
    make_server: Callable[..., Server],
    who: str,
    extend: bool,  # noqa: FBT001 - a parameter
) -> None:
    """Also of objects that it stored itself, as whoever stored one may do much on Ceph."""
    server = make_server(extend=extend, read_data=who == "reading")
    user = "vault-auditor" if who == "reading" else f"vault-{who}"
    client = server.clients(user)
    found = {}
    for kind, letters in rights_of(who).items():
        storing = user if "a" in letters else KEEPERS.get(kind, "vault-writer")
        key = f"repository/{kind}/x"
        calls = object_calls(server, client, server.put(storing, key))
        allowed = set()
        for name in calls:
            fresh = object_calls(server, client, server.put(storing, key))
            allowed |= {name} if passes(fresh[name]) else set()
        unlocked = server.put(storing, key, days=0)
        if passes(lambda at=unlocked: client.delete_object(**at)):  # type: ignore[misc]
            allowed.add("delete unlocked")
        known = letters.replace("e", "" if extend else "a").replace("-", "")
        wanted = set().union(*(LETTERS[letter] for letter in known))
        if extend and letters[-1] in "ae":
            wanted |= EXTENDS
        found[kind] = allowed ^ wanted
    assert {kind: odd for kind, odd in found.items() if odd} == {}
    calls = bucket_calls(server, client)
    assert [name for name, call in calls.items() if passes(call)] == []


@pytest.mark.parametrize(
    ("administrator", "readable"), [("vault", False), ("", True)], ids=["named", "control"]
)
def test_what_a_host_makes_public_is_read_by_nobody_who_is_not_named(
    make_server: Callable[..., Server],
    client: Any,
    administrator: str,
    readable: bool,  # noqa: FBT001 - a parameter
) -> None:
    """Grants by headers, and access lists of what is stored in parts: Ceph lets both be set.

    The control: without an administrator's name there is no such rule, and they are read.
    """
    server = make_server(administrator=administrator)
    writer, stranger = server.clients("vault-writer"), server.clients("vault-stranger")
    granted = {"Bucket": server.bucket, "Key": "repository/packs/ab/granted"}
    writer.put_object(**granted, Body=b"x", ChecksumAlgorithm="SHA256", GrantRead=EVERYBODY)
    parts = {"Bucket": server.bucket, "Key": "repository/packs/ab/parts"}
    upload = writer.create_multipart_upload(**parts, ACL="public-read")["UploadId"]
    part = writer.upload_part(**parts, UploadId=upload, PartNumber=1, Body=b"x")["ETag"]
    done = {"Parts": [{"ETag": part, "PartNumber": 1}]}
    writer.complete_multipart_upload(**parts, UploadId=upload, MultipartUpload=done)
    found = [passes(lambda at=at: stranger.get_object(**at)) for at in (granted, parts)]  # type: ignore[misc]
    assert found == [readable] * 2
    assert passes(lambda: server.clients("vault-restorer").get_object(**granted))
    assert passes(lambda: client.get_object(**granted))
