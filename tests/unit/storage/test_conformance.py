"""`store check` finds what a server does not keep; moto, which keeps little, is the example."""

import dataclasses
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from moto import mock_aws

from vault.errors import RepositoryNotFoundError, RetentionError
from vault.model import LockMode, Retention
from vault.storage import s3, s3_client
from vault.storage.base import DeniedError, ObjectVersion, is_on_server
from vault.storage.conformance import Probe, ProbeOutcome, StoreReport, check_store, require
from vault.storage.conformance_probes import Barred
from vault.storage.local import LocalStore
from vault.storage.memory import MemoryStore


def now() -> datetime:
    """The wall clock, as moto has it."""
    return datetime.now(UTC)


class MotoStore(s3.S3Store):
    """moto answers GetObjectRetention with 500; HEAD has what it would say."""

    def _retention(self, name: str, version: str) -> Retention | None:
        head = self.request("look up", name, "head_object", **self._at(name, version))
        mode, until = head.get("ObjectLockMode"), head.get("ObjectLockRetainUntilDate")
        return Retention(mode=LockMode(mode.lower()), until=until) if mode else None


@pytest.fixture(scope="module")
def reports() -> Iterator[Callable[..., StoreReport]]:
    """Checks a bucket of moto that was made with these settings."""
    with mock_aws(), pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "testing")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        client = s3_client.connect(attempts=1)

        def make(bucket: str, *, lock: bool, ahead: timedelta = timedelta(0)) -> StoreReport:
            client.create_bucket(Bucket=bucket, ObjectLockEnabledForBucket=lock)
            return check_store(MotoStore(client, bucket, "p"), clock=lambda: now() + ahead)

        make.client = client  # type: ignore[attr-defined]
        yield make


@pytest.fixture(scope="module")
def report(reports: Callable[..., StoreReport]) -> StoreReport:
    """Of a bucket with Object Lock."""
    return reports("locked-bucket", lock=True)


@pytest.mark.parametrize("name", ["shorten", "downgrade", "suspend", "checksum"])
def test_promises_that_are_not_kept_are_found(report: StoreReport, name: str) -> None:
    """Here are four that would cost data."""
    assert report.outcome(name) is ProbeOutcome.SHORTFALL


@pytest.mark.parametrize(
    "name",
    # not if-none-match: moto looks and writes in two steps, so that chance decides it
    ["versioning", "object-lock", "locked-delete", "extend", "extend-version"],
)
def test_promises_that_are_kept_are_said_to_be(report: StoreReport, name: str) -> None:
    """So that a shortfall means something."""
    assert report.outcome(name) is ProbeOutcome.KEPT


def test_a_server_that_turns_compliance_into_nothing_weaker_keeps_that(
    reports: Callable[..., StoreReport], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A refusal is the promise kept; what moto permits is none."""
    real = s3.S3Store.request

    def refuse(self: s3.S3Store, what: str, name: str, call: str, **arguments: Any) -> Any:
        retention = arguments.get("Retention", {})
        if call == "put_object_retention" and retention["Mode"] == "GOVERNANCE":
            raise DeniedError(f"{name} stays as it is")
        return real(self, what, name, call, **arguments)

    monkeypatch.setattr(s3.S3Store, "request", refuse)
    assert reports("firm-bucket", lock=True).outcome("downgrade") is ProbeOutcome.KEPT


@pytest.mark.parametrize("bits", [32, 64])
def test_a_server_whose_lock_dates_wrap_around_is_found(
    reports: Callable[..., StoreReport], monkeypatch: pytest.MonkeyPatch, bits: int
) -> None:
    """It refuses to shorten a lock, yet one that is set to a far date ends in the past."""
    real = s3.S3Store.request

    def wrap(self: s3.S3Store, what: str, name: str, call: str, **arguments: Any) -> Any:
        if call == "put_object_retention":
            given = arguments["Retention"]
            held = self.status(name, arguments["VersionId"]).retention
            if held is not None and given["RetainUntilDate"] < held.until:
                raise DeniedError(f"{name} stays as it is")
            seconds = int(given["RetainUntilDate"].timestamp()) % 2**bits
            kept = datetime.fromtimestamp(seconds, UTC)
            arguments["Retention"] = given | {"RetainUntilDate": kept}
        return real(self, what, name, call, **arguments)

    monkeypatch.setattr(s3.S3Store, "request", wrap)
    report = reports(f"bucket-of-{bits}-bits", lock=True)
    (probe,) = (each for each in report.probes if each.row.name == "shorten")
    if bits == 64:
        assert probe.outcome is ProbeOutcome.KEPT
        assert report.keeps_locks_from_extenders
        return
    assert probe.outcome is ProbeOutcome.SHORTFALL
    assert "setting it to 2106-02-07T06:28:16Z: it became compliance until 1970" in probe.found
    assert "no right to change a lock" in probe.row.remedy
    assert not report.keeps_locks_from_extenders


def test_a_shortfall_of_locks_refuses_locks_only(report: StoreReport) -> None:
    """Exit 5, and the first shortfall by name."""
    only_locks = dataclasses.replace(
        report, probes=tuple(probe for probe in report.probes if probe.row.need is not Barred.ALL)
    )
    require(only_locks, LockMode.NONE)
    for mode in (LockMode.GOVERNANCE, LockMode.COMPLIANCE):
        with pytest.raises(RetentionError, match="can't be shortened"):
            require(only_locks, mode)


def test_only_what_was_seen_is_relied_on(report: StoreReport) -> None:
    """Order and checksums stay distrusted unless their probes were kept."""
    assert not report.observed.refuses_wrong_checksums

    def kept(probe: Probe) -> Probe:
        return dataclasses.replace(probe, outcome=ProbeOutcome.KEPT)

    perfect = dataclasses.replace(report, probes=tuple(map(kept, report.probes)))
    assert perfect.observed.refuses_wrong_checksums
    assert perfect.observed.orders_versions_by_commit
    require(perfect, LockMode.COMPLIANCE)


def test_a_plain_bucket_is_refused_and_its_locks_are_not_tried(
    reports: Callable[..., StoreReport],
) -> None:
    """What can't be tried is said to be untested, never kept."""
    report = reports("plain-bucket", lock=False)
    assert report.outcome("versioning") is ProbeOutcome.SHORTFALL
    assert report.outcome("object-lock") is ProbeOutcome.SHORTFALL
    assert report.outcome("shorten") is ProbeOutcome.UNTESTED
    assert report.outcome("version-order") is ProbeOutcome.UNTESTED
    with pytest.raises(RetentionError):
        require(report, LockMode.NONE)


def test_a_wrong_clock_is_a_shortfall(reports: Callable[..., StoreReport]) -> None:
    """Beyond five minutes nothing is written (I9)."""
    report = reports("skewed-bucket", lock=True, ahead=timedelta(minutes=6))
    assert report.outcome("clock") is ProbeOutcome.SHORTFALL


def test_no_bucket_is_no_report(reports: Callable[..., StoreReport]) -> None:
    """There is nothing to say about it."""
    client = reports.client  # type: ignore[attr-defined]
    with pytest.raises(RepositoryNotFoundError):
        check_store(s3.S3Store(client, "no-such-bucket"), clock=now)


def test_everything_left_behind_is_a_probe(
    report: StoreReport, reports: Callable[..., StoreReport]
) -> None:
    """Under the name that audit, heal and prune pass over."""
    client = reports.client  # type: ignore[attr-defined]
    store = s3.S3Store(client, "locked-bucket")
    assert report.leftovers.startswith("probe/")
    names = {item.name for item in store.versions("")}
    assert names
    assert all(name.startswith(f"p/{report.leftovers}") for name in names)


# --- what the credentials do not allow says nothing of the store ---


def test_credentials_that_may_store_nothing_check_nothing(
    reports: Callable[..., StoreReport], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No promise is called broken: the refusal itself is told, and whose credentials it takes."""

    def refuse(*_: object, **__: object) -> ObjectVersion:
        raise DeniedError("can't store s3://b/p/probe/x", found="AccessDenied")

    monkeypatch.setattr(MotoStore, "put", refuse)
    with pytest.raises(DeniedError, match="can't be checked with these credentials") as refused:
        reports("denied-bucket", lock=True)
    assert "administrator" in str(refused.value.hint)


def test_a_promise_that_may_not_be_tried_is_untested_and_not_relied_on(
    reports: Callable[..., StoreReport], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Listing is refused: neither broken nor kept, and no repository is made."""

    def refuse(*_: object, **__: object) -> Iterator[ObjectVersion]:
        raise DeniedError("can't list s3://b/p/probe/", found="AccessDenied")

    monkeypatch.setattr(MotoStore, "versions", refuse)
    report = reports("unlisted-bucket", lock=True)
    assert report.outcome("listing") is ProbeOutcome.UNTESTED
    assert report.outcome("versioning") is ProbeOutcome.KEPT
    with pytest.raises(DeniedError, match="could not be tried"):
        require(report, LockMode.NONE)


def test_only_a_store_on_a_server_is_tried_out(tmp_path: Path) -> None:
    """To tell them apart asks the server nothing: no client is there to ask."""
    assert is_on_server(s3.S3Store(None, "bucket"))
    assert not is_on_server(LocalStore.create(tmp_path / "store"))
    assert not is_on_server(MemoryStore())
