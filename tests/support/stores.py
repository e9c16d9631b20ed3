"""The stores that the contract runs over.

To add one: write a factory that yields a `StoreUnderTest` and name it in `FACTORIES`.

moto is no evidence of immutability: where it differs from S3, `_MOTO_GAPS` names the gap and
the test must fail on it, so that a moto that closed it is noticed. A real server is run under
the marker ``s3``, at the bucket that VAULT_TEST_S3_URL names; a second time, over TLS, where
VAULT_TEST_S3_TLS_ENDPOINT names another address of it.
"""

import base64
import dataclasses
import functools
import hashlib
import os
import secrets
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from moto import mock_aws

from vault.model import Retention
from vault.storage import s3, s3_client
from vault.storage.base import ObjectStore
from vault.storage.local import LocalStore
from vault.storage.memory import MemoryStore
from vault.storage.urls import parse_s3

_TLS_ENDPOINT = os.environ.get("VAULT_TEST_S3_TLS_ENDPOINT", "")
START = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)


@dataclasses.dataclass(frozen=True, kw_only=True)
class StoreUnderTest:
    """A store and what the tests do to its surroundings."""

    store: ObjectStore
    advance: Callable[[timedelta], None]  # move the store's clock
    plant: Callable[[str, bytes], object]  # under a name the vault never writes
    put_marker: Callable[[str], object] | None = None  # as an attacker would; a directory has none


@dataclasses.dataclass
class _Clock:
    now: datetime = START

    def __call__(self) -> datetime:
        return self.now

    def advance(self, by: timedelta) -> None:
        self.now += by


@contextmanager
def _memory(path: Path) -> Iterator[StoreUnderTest]:
    clock = _Clock()
    store = MemoryStore(clock=clock)
    yield StoreUnderTest(
        store=store, advance=clock.advance, put_marker=store.put_marker, plant=store.plant
    )


@contextmanager
def _local(path: Path) -> Iterator[StoreUnderTest]:
    clock = _Clock()

    def plant(name: str, data: bytes) -> None:
        file = path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)

    store = LocalStore.create(path, clock=clock)
    yield StoreUnderTest(store=store, advance=clock.advance, plant=plant)
    # locked objects may be immutable, and the test run wants to remove its directory
    subprocess.run(["chattr", "-R", "-f", "-i", str(path)], check=False)


_MOTO = threading.Lock()


class _MotoStore(s3.S3Store):
    """moto answers GetObjectRetention with 500; HEAD has what it would say.

    It also reads a name's versions, then writes them back with one more: of PUTs at once it
    may lose some. A server that takes one request at a time does not.
    """

    def request(self, action: str, name: str, operation: str, **arguments: Any) -> Any:
        """One at a time."""
        with _MOTO:
            return super().request(action, name, operation, **arguments)

    def _retention(self, name: str, version: str) -> Retention | None:
        head = self.request("look up", name, "head_object", **self._at(name, version))
        mode, until = head.get("ObjectLockMode"), head.get("ObjectLockRetainUntilDate")
        return Retention(mode=mode.lower(), until=until) if mode else None


# what moto 5.2 does otherwise: test, the parameters that show it (None: all of them)
_MOTO_GAPS: tuple[tuple[str, str, tuple[str, ...] | None], ...] = (
    ("keeps the caller's buffer, not its bytes", "test_put_takes_any_buffer", ("bytearray",)),
    (
        "breaks when an unknown version is locked",
        "test_unknown_versions_are_not_found",
        ("0", "2-" + "0" * 64, "1-x", "../1", "null"),
    ),
    (
        "loses the first name after a key marker that is no name",
        "test_listing_honours_prefix_and_after",
        (
            *("a-", "a-a", "a--", "a--a", "a/-", "a/-a", "a/-a/"),
            *("a/0-", "a/0-a", "a/0-a/", "a/0-a/0", "a/b-", "a/b-a", "a/b-a/", "a/b-a/b"),
        ),
    ),
    ("lists markers apart", "test_a_delete_marker_hides_from_plain_reads_only", None),
    (
        "lists markers apart",
        "test_the_versions_of_one_name_have_its_markers_among_them",
        None,
    ),
    ("shortens locks", "test_extend_lengthens_and_never_shortens", None),
    ("shortens locks", "test_concurrent_extends_end_with_the_longest", None),
    ("turns compliance into governance", "test_compliance_is_not_downgraded", None),
)


def gap_of_moto(test: str) -> str | None:
    """What keeps moto from passing that test, named as pytest names it."""
    function, _, parameters = test.removesuffix("]").partition("[")
    own = parameters.removeprefix("moto").removeprefix("-")
    for gap, name, shown_by in _MOTO_GAPS:
        if name == function and (shown_by is None or own in shown_by):
            return gap
    return None


@contextmanager
def _moto(path: Path) -> Iterator[StoreUnderTest]:
    with mock_aws(), pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "testing")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        client = _connected("", attempts=1)
        client.create_bucket(Bucket="vault-test", ObjectLockEnabledForBucket=True)
        yield _s3_under_test(_MotoStore(client, "vault-test", "some/prefix"), client)


@contextmanager
def _s3(path: Path) -> Iterator[StoreUnderTest]:
    """The server by the address that its tests use."""
    yield _at(os.environ.get("VAULT_TEST_S3_ENDPOINT", ""))


@contextmanager
def _s3_tls(path: Path) -> Iterator[StoreUnderTest]:
    """The same server, over TLS."""
    yield _at(_TLS_ENDPOINT)


def _at(endpoint: str) -> StoreUnderTest:
    """A prefix of its own in the given bucket: what is locked there can't be cleared away."""
    bucket, prefix = parse_s3(os.environ["VAULT_TEST_S3_URL"])
    prefix = f"{prefix}/contract-{secrets.token_hex(8)}".lstrip("/")
    client = _connected(endpoint)
    return _s3_under_test(s3.S3Store(client, bucket, prefix), client)


@functools.cache
def _connected(endpoint: str, attempts: int = s3_client.ATTEMPTS) -> Any:
    """One client, as in a real run; to make one takes longer than most tests."""
    return s3_client.connect(endpoint, attempts=attempts)


def _s3_under_test(store: s3.S3Store, client: Any) -> StoreUnderTest:
    def put_marker(name: str) -> None:
        client.delete_object(Bucket=store.bucket, Key=store.prefix + name)

    def plant(name: str, data: bytes) -> None:
        checksum = base64.b64encode(hashlib.sha256(data).digest()).decode()  # else it would trail
        client.put_object(
            Bucket=store.bucket, Key=store.prefix + name, Body=data, ChecksumSHA256=checksum
        )

    def advance(by: timedelta) -> None:
        pytest.skip("the clock of a real server can't be moved; tests/s3 waits instead")

    return StoreUnderTest(store=store, advance=advance, put_marker=put_marker, plant=plant)


FACTORIES: dict[str, Callable[[Path], AbstractContextManager[StoreUnderTest]]] = {
    "memory": _memory,
    "local": _local,
    "moto": _moto,
    "s3": _s3,
    "s3-tls": _s3_tls,
}
SERVERS = ["s3", "s3-tls"] if _TLS_ENDPOINT else ["s3"]
