"""`store check` on a real server, and what it finds wrong with an unfit bucket."""

import os
import secrets
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest

from vault.errors import RetentionError
from vault.model import LockMode
from vault.storage import s3
from vault.storage.check import Outcome, check_store, require

pytestmark = pytest.mark.s3

EXIT_RETENTION = 5

GAPS = {  # what the servers of the lanes do not keep; one that begins to is to be noticed
    "ceph": {"if-none-match", "checksum"},
    "localstack": {"if-none-match", "version-order"},
}


def test_the_test_bucket_keeps_every_needed_promise(
    store: s3.S3Store, clock: Callable[[], datetime]
) -> None:
    """And the check leaves only probes behind."""
    report = check_store(store, clock=clock)
    for mode in LockMode:
        require(report, mode)
    known = GAPS.get(os.environ.get("VAULT_TEST_S3_SERVER", ""))
    found = {probe.row.name for probe in report.probes if probe.outcome is Outcome.SHORTFALL}
    assert known is None or found == known
    assert all(item.name.startswith(report.leftovers) for item in store.versions(""))


def test_a_bucket_without_versions_or_locks_is_refused(
    client: Any, clock: Callable[[], datetime]
) -> None:
    """The one for everything, the other for locks only."""
    bucket = f"vault-plain-{secrets.token_hex(6)}"
    client.create_bucket(Bucket=bucket)
    report = check_store(s3.S3Store(client, bucket), clock=clock)
    assert report.outcome("versioning") is Outcome.SHORTFALL
    with pytest.raises(RetentionError):
        require(report, LockMode.NONE)
    client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    report = check_store(s3.S3Store(client, bucket), clock=clock)
    require(report, LockMode.NONE)
    with pytest.raises(RetentionError):
        require(report, LockMode.GOVERNANCE)


def test_init_refuses_a_bucket_that_can_not_keep_the_promise(
    client: Any, endpoint: str, make_person: Callable[..., Any]
) -> None:
    """Exit 5 and no key file; without locks it may be any bucket that keeps versions."""
    person = make_person("administrator")
    bucket = f"vault-plain-{secrets.token_hex(6)}"
    client.create_bucket(Bucket=bucket)
    line = ("--endpoint-url", endpoint, "init", f"s3://{bucket}/repository", "--host", "first")
    for options in ([], ["--lock", "none"]):
        assert person.vault(*line, *options).returncode == EXIT_RETENTION
    client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    refused = person.vault(*line)
    assert refused.returncode == EXIT_RETENTION, refused.stderr
    assert "lock" in refused.stderr
    assert not list(person.keys.iterdir())
    person.json(*line, "--lock", "none")
