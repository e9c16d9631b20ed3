"""A real S3 server: the bucket that VAULT_TEST_S3_URL names, a prefix of its own per test.

Nothing is cleared away: what is locked there stays until its lock ends.
"""

import dataclasses
import functools
import json
import os
import secrets
import subprocess
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from vault.model import LockMode, Retention
from vault.storage import s3, s3_client
from vault.storage.conformance import ProbeOutcome, check_store
from vault.storage.urls import parse_s3

MakeStore: TypeAlias = Callable[..., s3.S3Store]
LockFor: TypeAlias = Callable[..., Retention]

PASSPHRASE = "correct horse"


@functools.cache
def _connected(endpoint: str) -> Any:
    """One client, as in a real run; to make one takes longer than most tests."""
    return s3_client.connect(endpoint)


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
    bucket, base = parse_s3(os.environ["VAULT_TEST_S3_URL"])

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
    if ProbeOutcome.KEPT not in {report.outcome("version-order"), report.outcome("if-none-match")}:
        pytest.skip("this server gets one writer only, as store check says")
    return store


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """Somebody at a machine of their own, with credentials of the store and some key files."""

    home: Path
    user: str  # of the store; "" takes the credentials of the test run
    endpoint: str
    history: list[tuple[str, ...]] = dataclasses.field(default_factory=list)  # what they ran

    @property
    def keys(self) -> Path:
        """Where their key files are."""
        return self.home / "config/vault"

    def vault(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        """Run a command line as a process of its own."""
        return subprocess.run(
            self._command(arguments),
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            cwd=self.home,
            env=self._environment(),
            check=False,
            timeout=300,
        )

    def start(self, *arguments: object) -> "subprocess.Popen[str]":
        """Begin one that goes on until it is told to end; its messages go to a file."""
        with (self.home / "messages").open("w") as messages:
            return subprocess.Popen(
                self._command(arguments),
                stdin=subprocess.DEVNULL,
                stdout=messages,
                stderr=messages,
                cwd=self.home,
                env=self._environment(),
                text=True,
            )

    def json(self, *arguments: object, code: int = 0) -> Any:
        """Run one with ``--json``, which must end with that code and print one object."""
        done = self.vault("--json", *arguments)
        assert done.returncode == code, (arguments, done.stdout, done.stderr)
        return json.loads(done.stdout)

    def _command(self, arguments: Sequence[object]) -> list[str]:
        line = tuple(map(str, arguments))
        self.history.append(line)
        return [sys.executable, "-m", "cli.main", *line]

    def _environment(self) -> dict[str, str]:
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("VAULT_", "XDG_"))}
        credentials = {
            "AWS_ACCESS_KEY_ID": self.user,
            "AWS_SECRET_ACCESS_KEY": f"{self.user}-secret",
        }
        return {
            **inherited,
            **(credentials if self.user else {}),
            "HOME": str(self.home),
            "TZ": "UTC",
            "XDG_CONFIG_HOME": str(self.home / "config"),
            "XDG_STATE_HOME": str(self.home / "state"),
            "XDG_CACHE_HOME": str(self.home / "cache"),
            "VAULT_PASSPHRASE_FILE": str(self.home / "passphrase"),
        }


@pytest.fixture
def make_person(tmp_path: Path, endpoint: str) -> Callable[..., Person]:
    """Gives somebody a machine; ``keys`` are the key files they are given."""

    def make(name: str, *, user: str = "", keys: tuple[Path, ...] = ()) -> Person:
        person = Person(home=tmp_path / name, user=user, endpoint=endpoint)
        person.keys.mkdir(parents=True)
        secret = person.home / "passphrase"
        secret.write_text(PASSPHRASE + "\n")
        secret.chmod(0o600)
        for key in keys:
            (person.keys / key.name).write_bytes(key.read_bytes())
            (person.keys / key.name).chmod(0o600)
        return person

    return make
