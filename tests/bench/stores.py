"""Where repositories lie: in a local directory, or on a Ceph of one's own on loopback."""

import dataclasses
import os
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

from tests.bench.prepared import run

SCRIPT = Path(__file__).parents[1] / "s3" / "ceph-up.sh"
BUCKET = "bench"
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "vault",
    "AWS_SECRET_ACCESS_KEY": "vault-secret",
    "AWS_DEFAULT_REGION": "us-east-1",
}


@dataclasses.dataclass(frozen=True, slots=True)
class Bucket:
    """Where on an S3 server a program keeps its repository."""

    endpoint: str
    name: str
    prefix: str

    @property
    def host(self) -> str:
        """Host and port of the endpoint."""
        return self.endpoint.partition("://")[2]


class Store:
    """A local directory: each program's own."""

    name = "local directory"

    def bucket(self) -> Bucket | None:
        """A place on the server, if there is one."""
        return None

    def stored(self, repo: Path | Bucket) -> int:
        """Bytes in a repository."""
        assert isinstance(repo, Path)
        return sum(path.stat().st_size for path in repo.rglob("*") if path.is_file())

    def requests(self) -> int | None:
        """How many there were until now."""
        return None


class Ceph(Store):
    """A gateway whose log has a line for each request."""

    name = "S3 (Ceph on loopback)"

    def __init__(self, endpoint: str, log: Path) -> None:
        import boto3

        self.endpoint = endpoint
        self.log = log
        self.client = boto3.client("s3", endpoint_url=endpoint)
        self.client.create_bucket(Bucket=BUCKET, ObjectLockEnabledForBucket=True)

    def bucket(self) -> Bucket:
        """See `Store`."""
        return Bucket(self.endpoint, BUCKET, uuid.uuid4().hex[:8])

    def stored(self, repo: Path | Bucket) -> int:
        """See `Store`; all versions, as they are paid for."""
        assert isinstance(repo, Bucket)
        pages = self.client.get_paginator("list_object_versions")
        listing = pages.paginate(Bucket=repo.name, Prefix=repo.prefix)
        return sum(found["Size"] for page in listing for found in page.get("Versions", ()))

    def requests(self) -> int:
        """See `Store`."""
        with self.log.open("rb") as file:
            return sum(b" beast: " in line for line in file)


@contextmanager
def ceph(place: Path) -> Iterator[Store]:
    """A server that lives as long as the block, in memory."""
    port = os.environ.get("CEPH_PORT", "7680")
    env = dict(os.environ, CEPH_BYTES=str(10 << 30))
    place.mkdir(parents=True)
    run([str(SCRIPT), "install"])
    endpoint = run([str(SCRIPT), "start", str(place), port], env=env)
    os.environ |= CREDENTIALS
    try:
        yield Ceph(endpoint, place / "log" / "client.rgw.log")
    finally:
        subprocess.run([SCRIPT, "stop", str(place)], check=True)


def open_store(kind: str, place: Path) -> AbstractContextManager[Store]:
    """A local directory, or a server that keeps what it needs in ``place``."""
    return ceph(place) if kind == "s3" else nullcontext(Store())
