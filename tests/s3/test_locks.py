"""Locks, listings and errors of a real server, where the contract would need its clock moved."""

import hashlib
import time
from collections.abc import Callable
from typing import Any

import pytest

from vault.errors import (
    ObjectNotFoundError,
    RepositoryNotFoundError,
    RetentionError,
    StorageError,
    StorageUnavailableError,
)
from vault.model import LockMode, Retention
from vault.storage import s3, s3_client

pytestmark = pytest.mark.s3

NAME = "packs/ab/" + "ab" * 32
MODES = [LockMode.GOVERNANCE, LockMode.COMPLIANCE]
LockFor = Callable[..., Retention]


def put(store: s3.S3Store, data: bytes, retention: Retention | None = None) -> str:
    """Version id of a new version."""
    digest = hashlib.sha256(data).digest()
    return store.put(NAME, data, sha256=digest, retention=retention).version


def wait_for(store: s3.S3Store, retention: Retention) -> None:
    """Until a lock of a few seconds is over by the server's clock."""
    while store.now() <= retention.until:
        time.sleep(0.2)


@pytest.mark.parametrize("mode", MODES)
def test_a_lock_is_in_force_ends_and_can_be_set_anew(
    store: s3.S3Store, lock_for: LockFor, mode: LockMode
) -> None:
    """Deletion is refused while it lasts and granted after, unless it was set again."""
    retention = lock_for(3, mode)
    kept, gone = put(store, b"kept", retention), put(store, b"gone", retention)
    with pytest.raises(RetentionError):
        store.delete(NAME, gone)
    wait_for(store, retention)
    again = lock_for(60, mode)
    assert store.extend(NAME, kept, again) == again.until
    store.delete(NAME, gone)
    with pytest.raises(RetentionError):
        store.delete(NAME, kept)
    assert [item.version for item in store.versions("")] == [kept]


def test_a_legal_hold_outlasts_the_lock(store: s3.S3Store, lock_for: LockFor) -> None:
    """Until it is cleared."""
    retention = lock_for(2)
    version = put(store, b"data", retention)
    store.set_legal_hold(NAME, version, on=True)
    wait_for(store, retention)
    with pytest.raises(RetentionError):
        store.delete(NAME, version)
    store.set_legal_hold(NAME, version, on=False)
    store.delete(NAME, version)


def test_a_lock_date_of_2100_is_kept(store: s3.S3Store) -> None:
    """The latest that the vault ever sets (I8)."""
    from vault.model import LAST_LOCK

    version = put(store, b"data")
    retention = Retention(mode=LockMode.GOVERNANCE, until=LAST_LOCK)
    assert store.extend(NAME, version, retention) == LAST_LOCK
    assert store.status(NAME, version).retention == retention


def test_listing_keeps_the_order_of_versions_over_pages(store: s3.S3Store, client: Any) -> None:
    """Over a page's end within one name, and with markers among them (LocalStack moves those)."""
    versions, markers = [], set()
    for number in range(1100):
        versions.append(put(store, b"%d" % number))
        if number % 100 == 7:
            answer = client.delete_object(Bucket=store.bucket, Key=store.prefix + NAME)
            markers.add(answer["VersionId"])
    store.put("packs/zz", b"", sha256=hashlib.sha256(b"").digest())
    *listed, last = store.versions("packs/")
    assert [item.version for item in listed if not item.marker] == versions
    assert {item.version for item in listed if item.marker} == markers
    assert last.name == "packs/zz"
    assert [item.name for item in store.versions("packs/", after=NAME)] == ["packs/zz"]


def test_hidden_versions_are_read_and_extended_by_id(
    store: s3.S3Store, client: Any, lock_for: LockFor
) -> None:
    """Behind an overwrite and a delete marker."""
    version = put(store, b"right", lock_for(30))
    key = store.prefix + NAME
    junk = client.put_object(
        Bucket=store.bucket, Key=key, Body=b"junk", ChecksumAlgorithm="SHA256"
    )["VersionId"]
    client.delete_object(Bucket=store.bucket, Key=key)
    assert store.get(NAME, version, offset=1, length=3) == b"igh"
    longer = lock_for(60)
    assert store.extend(NAME, version, longer) == longer.until
    assert store.status(NAME, version).retention == longer
    assert store.status(NAME, junk).retention is None


def test_wrong_credentials_and_buckets_say_so(
    make_store: Callable[..., s3.S3Store], endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each with an error of its own, which never shows a secret."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-the-secret")
    with pytest.raises(StorageError) as caught:
        make_store(client=s3_client.connect(endpoint)).get(NAME)
    assert "not-the-secret" not in str(caught.value)
    monkeypatch.undo()
    absent = s3.S3Store(s3_client.connect(endpoint), "vault-test-no-such-bucket", "p")
    for call in (lambda: absent.get(NAME), lambda: list(absent.versions(""))):
        with pytest.raises(RepositoryNotFoundError):
            call()


def test_no_server_is_unavailable() -> None:
    """And worth a retry."""
    with pytest.raises(StorageUnavailableError):
        s3.S3Store(s3_client.connect("http://127.0.0.1:1", attempts=1), "bucket").now()


def test_a_version_of_another_name_is_not_found(store: s3.S3Store) -> None:
    """Version ids belong to names."""
    version = put(store, b"data")
    with pytest.raises(ObjectNotFoundError):
        store.get("packs/other", version)
