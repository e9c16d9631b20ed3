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
from vault.storage.conformance import ProbeOutcome, check_store, require

pytestmark = pytest.mark.s3

EXIT_RETENTION = 5

GAPS = {  # what the servers of the lanes do not keep; one that begins to is to be noticed
    "ceph": {"if-none-match", "checksum", "shorten"},  # a date past 2106 wraps around
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
    found = {probe.row.name for probe in report.probes if probe.outcome is ProbeOutcome.SHORTFALL}
    assert known is None or found == known
    assert all(item.name.startswith(report.leftovers) for item in store.versions(""))


def test_a_bucket_without_versions_or_locks_is_refused(
    client: Any, clock: Callable[[], datetime]
) -> None:
    """The one for everything, the other for locks only."""
    bucket = f"vault-plain-{secrets.token_hex(6)}"
    client.create_bucket(Bucket=bucket)
    report = check_store(s3.S3Store(client, bucket), clock=clock)
    assert report.outcome("versioning") is ProbeOutcome.SHORTFALL
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


def test_a_default_retention_of_the_bucket_is_no_hindrance(
    client: Any, endpoint: str, make_person: Callable[..., Any], tmp_path: Any
) -> None:
    """Longer, shorter or stricter: the repository's own locks are what it says."""
    for number, (mode, days) in enumerate(
        (("GOVERNANCE", 1), ("COMPLIANCE", 1), ("GOVERNANCE", 30))
    ):
        bucket = f"vault-default-{number}-{secrets.token_hex(6)}"
        client.create_bucket(Bucket=bucket, ObjectLockEnabledForBucket=True)
        rule = {"DefaultRetention": {"Mode": mode, "Days": days}}
        client.put_object_lock_configuration(
            Bucket=bucket,
            ObjectLockConfiguration={"ObjectLockEnabled": "Enabled", "Rule": rule},
        )
        person = make_person(f"administrator-{number}")
        person.json(
            "--endpoint-url", endpoint, "init", f"s3://{bucket}/repository", "--host", "first"
        )


def test_a_lifecycle_rule_that_takes_objects_away_refuses_the_bucket(
    client: Any, endpoint: str, make_person: Callable[..., Any]
) -> None:
    """By its name; once it is gone the bucket is fit."""
    bucket = f"vault-rule-{secrets.token_hex(6)}"
    client.create_bucket(Bucket=bucket)
    client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    rule = {"ID": "tidy", "Status": "Enabled", "Filter": {"Prefix": ""}, "Expiration": {"Days": 30}}
    client.put_bucket_lifecycle_configuration(
        Bucket=bucket, LifecycleConfiguration={"Rules": [rule]}
    )
    person = make_person("administrator")
    line = (
        "--endpoint-url",
        endpoint,
        "init",
        f"s3://{bucket}/r",
        "--host",
        "first",
        "--lock",
        "none",
    )
    refused = person.vault(*line)
    assert refused.returncode == EXIT_RETENTION
    assert "tidy" in refused.stderr
    client.delete_bucket_lifecycle(Bucket=bucket)
    person.json(*line)
