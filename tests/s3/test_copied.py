"""A repository that was copied to another bucket by a plain copy tool.

See docs/design.md "Objects".
"""

import json
import secrets
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.lab import MakeRepository
from tests.support.trees import MakeSource, files_of
from vault.model import LockMode
from vault.storage import s3

pytestmark = pytest.mark.s3


def copy_newest(store: s3.S3Store, client: Any, bucket: str) -> None:
    """Within the server, what plain reads see; Ceph takes the locks along, AWS does not."""
    for name in sorted({item.name for item in store.versions("")}):
        key = store.prefix + name
        client.copy_object(Bucket=bucket, Key=key, CopySource={"Bucket": store.bucket, "Key": key})


def upload_all(store: s3.S3Store, client: Any, bucket: str) -> None:
    """Every version in its order, read and stored anew; no locks."""
    for item in store.versions(""):
        key = store.prefix + item.name
        body = store.get(item.name, item.version)
        client.put_object(Bucket=bucket, Key=key, Body=body, ChecksumAlgorithm="SHA256")


@pytest.mark.parametrize("copy", [copy_newest, upload_all])
def test_a_copied_repository_is_opened_proven_and_continued(
    *,
    store: s3.S3Store,
    client: Any,
    endpoint: str,
    make_repository: MakeRepository,
    make_source: MakeSource,
    make_person: Callable[..., Any],
    copy: Callable[..., None],
) -> None:
    """With --repo; the next snapshot locks what it needs here, or stores it anew (I7)."""
    lab = make_repository(LockMode.GOVERNANCE, store=store)
    source = make_source()
    lab.snapshot(source)
    junk = copy is upload_all  # else it would be all that is copied of that object
    if junk:
        pack = next(store.versions("packs/"))
        key = store.prefix + pack.name
        client.put_object(Bucket=store.bucket, Key=key, Body=b"x", ChecksumAlgorithm="SHA256")
    bucket = f"vault-copied-{secrets.token_hex(6)}"
    client.create_bucket(Bucket=bucket, ObjectLockEnabledForBucket=True)
    copy(store, client, bucket)

    keys = lab.base / "keys"
    person = make_person("host", keys=(keys / "writer.key", keys / "recovery.key"))
    copied = s3.S3Store(client, bucket, store.prefix.rstrip("/"))
    place = ("--repo", copied.url, "--endpoint-url", endpoint)
    assert len(person.json(*place, "list")["snapshots"]) == 1
    verified = person.json(*place, "verify")["verification"]
    assert verified["verdict"] == "passed"
    target = person.home / "target"
    person.json(*place, "restore", "data", target)
    assert files_of(target) == files_of(source)

    audited = json.loads(person.vault("--json", *place, "audit").stdout)["audit"]
    codes = {finding["code"] for finding in audited["findings"]}
    assert codes >= ({"relocated", "other-bytes", "lock-gap"} if junk else {"relocated"})

    (source / "new").write_bytes(b"new")
    person.json(*place, "snapshot", source, "--name", "data")
    again = person.home / "again"
    person.json(*place, "restore", "data", again)
    assert files_of(again) == files_of(source)
    repository = lab.with_store(copied).open()
    needed = repository.inventory(repository.ledger.snapshots()[-1]).objects
    held = {
        item.name
        for item in copied.versions("")
        if copied.status(item.name, item.version).retention
    }
    statements = {item.name for item in copied.versions("ledger/")}
    assert {ref.name for ref in needed} | statements <= held
    watched = json.loads(person.vault("--json", *place, "status", "--locks").stdout)["snapshots"]
    assert watched[-1]["protection"]["days_to_gap"] is None
