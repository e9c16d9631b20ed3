"""A real S3 server: the bucket that VAULT_TEST_S3_URL names, a prefix of its own per test.

Nothing is cleared away: what is locked there stays until its lock ends.
"""

import functools
import os
import secrets
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias

import pytest

from vault.model import LockMode, Retention
from vault.storage import s3
from vault.storage.check import Outcome, check_store

MakeStore: TypeAlias = Callable[..., s3.S3Store]
LockFor: TypeAlias = Callable[..., Retention]


@functools.cache
def _connected(endpoint: str) -> Any:
    """One client, as in a real run; to make one takes longer than most tests."""
    return s3.connect(endpoint)


@pytest.fixture
def endpoint() -> str:
    """Of the server; "" for AWS."""
    return os.environ.get("VAULT_TEST_S3_ENDPOINT", "")


@pytest.fixture
def client(endpoint: str) -> Any:
    """boto3's own view of the server, for what the vault would never do."""
    return _connected(endpoint)


@pytest.fixture
def make_store(endpoint: str, client: Any) -> MakeStore:
    """Makes stores with a new prefix, or the one given; settings as of `S3Store`."""
    bucket, base = s3.parse_url(os.environ["VAULT_TEST_S3_URL"])

    def make(prefix: str = "", **options: Any) -> s3.S3Store:
        prefix = prefix or f"{base}/test-{secrets.token_hex(8)}".lstrip("/")
        return s3.S3Store(options.pop("client", client), bucket, prefix, **options)

    return make


@pytest.fixture
def store(make_store: MakeStore) -> s3.S3Store:
    """One store, empty."""
    return make_store()


@pytest.fixture
def lock_for(store: s3.S3Store) -> LockFor:
    """A lock of so many seconds by the server's clock."""

    def make(seconds: int, mode: LockMode = LockMode.GOVERNANCE) -> Retention:
        return Retention(mode=mode, until=store.now() + timedelta(seconds=seconds))

    return make


@pytest.fixture
def clock() -> Callable[[], datetime]:
    """The wall clock: a real server can't be told another time."""
    return lambda: datetime.now(UTC)


@pytest.fixture
def racing_store(store: s3.S3Store, clock: Callable[[], datetime]) -> s3.S3Store:
    """A store that several writers may share; LocalStack is none (docs/stores.md)."""
    report = check_store(store, clock=clock)
    if Outcome.KEPT not in {report.outcome("version-order"), report.outcome("if-none-match")}:
        pytest.skip("this server gets one writer only, as store check says")
    return store
