"""Each role does its work with its credentials, and nothing else (on Ceph, which has the users)."""

import hashlib
import os
import secrets
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from vault.errors import StorageError
from vault.model import LockMode, Parameters
from vault.restore import Outcome, RestoreRequest, restore
from vault.storage import s3
from vault.storage.base import ObjectVersion
from vault.storage.iam import AccessRole, Dialect, bucket_policy
from vault.workers import make_workers

pytestmark = [
    pytest.mark.s3,
    pytest.mark.skipif(
        os.environ.get("VAULT_TEST_S3_SERVER") != "ceph", reason="needs the users of ceph-up.sh"
    ),
]

StoreOf = Callable[[str], s3.S3Store]
MakeSource = Callable[..., Path]


@pytest.fixture
def store_of(endpoint: str, client: Any, monkeypatch: pytest.MonkeyPatch) -> StoreOf:
    """The store as a user of the server sees it; one bucket, under the policy of the vault."""
    import json

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
            return s3.S3Store(s3.connect(endpoint), bucket, "repository")

    return store_of


@pytest.fixture
def lab(store_of: StoreOf, make_repository: Callable[..., Any]) -> Any:
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
        except s3.DeniedError:
            continue
        except StorageError:
            continue
        passed.add(name)
    return passed


def test_the_writer_takes_snapshots_and_can_do_no_harm(
    lab: Any, store_of: StoreOf, make_source: MakeSource
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
    lab: Any, store_of: StoreOf, make_source: MakeSource, tmp_path: Path
) -> None:
    """And stores no packs."""
    record = lab.snapshot(make_source()).record
    restorer = store_of("vault-restorer")
    request = RestoreRequest(record=record, target=tmp_path / "target", tool="vault test")
    with make_workers(0) as workers:
        report = restore(
            lab.with_store(restorer).open(),
            lab.recovery,
            request,
            local=lab.local,
            scratch=tmp_path,
            workers=workers,
        )
    assert report.outcome is Outcome.RECOVERED
    assert report.statement is not None
    with pytest.raises(s3.DeniedError):
        restorer.put("packs/ab/x", b"x", sha256=hashlib.sha256(b"x").digest())
    assert allowed(restorer, next(restorer.versions("packs/"))) == {"read"}


def test_the_auditor_sees_all_but_the_data(
    lab: Any, store_of: StoreOf, make_source: MakeSource
) -> None:
    """Chain, inventories, and the lock of every pack; writes nothing."""
    record = lab.snapshot(make_source()).record
    auditor = store_of("vault-auditor")
    repository = lab.with_store(auditor).open()
    for ref in repository.inventory(record).objects:
        assert auditor.status(ref.name, ref.version).retention is not None
    with pytest.raises(s3.DeniedError):
        auditor.put("evidence/x", b"x", sha256=hashlib.sha256(b"x").digest())
    assert allowed(auditor, next(auditor.versions("packs/"))) == set()
    assert allowed(auditor, next(auditor.versions("ledger/"))) == {"read"}


def test_the_pruner_deletes_what_is_unlocked_under_its_names_only(
    lab: Any, store_of: StoreOf, make_source: MakeSource
) -> None:
    """Locked packs and the ledger stay."""
    lab.snapshot(make_source())
    owner, pruner = store_of("vault"), store_of("vault-pruner")
    digest = hashlib.sha256(b"x").digest()
    orphan, kept = (owner.put(name, b"x", sha256=digest) for name in ("packs/ab/x", "ledger/x"))
    locked = next(item for item in pruner.versions("packs/") if item.name != orphan.name)
    pruner.delete(orphan.name, orphan.version)
    with pytest.raises(s3.DeniedError):
        pruner.delete(kept.name, kept.version)
    assert allowed(pruner, locked) == set()
