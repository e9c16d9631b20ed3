"""A bad network between the vault and a real server: nothing acknowledged is lost (I1, I3).

`Proxy` stands between the two and breaks the exchanges that a test names.
"""

import http.client
import itertools
import os
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from enum import StrEnum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from cli.exits import exit_code_of
from tests.support.invariants import assert_invariants
from tests.support.lab import Lab, MakeRepository
from tests.support.trees import MakeSource
from vault.errors import StorageError
from vault.model import LockMode
from vault.storage import s3, s3_client

pytestmark = pytest.mark.s3

EXIT_STORE = 13
LATE = 0.2  # seconds
LONGER = timedelta(days=60)  # reused packs have to be extended
MOST_WRITES = 100  # of one small run


class Fault(StrEnum):
    """What may happen to one exchange."""

    DROPPED = "dropped"  # the connection ends, and the server has seen nothing
    TORN = "torn"  # the server got half of the request
    UNANSWERED = "unanswered"  # the server acted, and its answer is lost
    CUT = "cut"  # the server acted, and half of its answer's body comes back
    ERROR = "error"  # 500
    BUSY = "busy"  # 503
    LATE = "late"


class Operation(StrEnum):
    """What a request asks for."""

    PUT = "put"
    GET = "get"
    HEAD = "head"
    LIST = "list"
    EXTEND = "extend"
    OTHER = "other"


_REFUSALS = {
    Fault.ERROR: (500, "InternalError"),
    Fault.BUSY: (503, "SlowDown"),
}


def operation_of(method: str, path: str) -> Operation:
    """By method and query."""
    query = urlsplit(path).query.partition("&")[0].partition("=")[0]
    match method, query:
        case "PUT", "retention":
            return Operation.EXTEND
        case "PUT", _:
            return Operation.PUT
        case "GET", "versions":
            return Operation.LIST
        case "GET", "" | "versionId" | "partNumber":
            return Operation.GET
        case "HEAD", _:
            return Operation.HEAD
        case _:
            return Operation.OTHER


class Proxy(ThreadingHTTPServer):
    """Passes requests on to a server, and breaks those that it is told to."""

    daemon_threads = True

    def __init__(self, endpoint: str) -> None:
        super().__init__(("127.0.0.1", 0), _Exchange)
        target = urlsplit(endpoint)
        assert target.scheme == "http"
        self.target = (target.hostname or "", target.port or 80)
        self.broken: list[Operation] = []  # every exchange that was
        self._mutex = threading.Lock()
        self._decide: Callable[[Operation], Fault | None] = lambda _: None

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def play(self, decide: Callable[[Operation], Fault | None]) -> None:
        """Ask ``decide`` about every request from now on."""
        with self._mutex:
            self.broken.clear()
            self._decide = decide

    def fault_of(self, operation: Operation) -> Fault | None:
        """What is to happen to the next exchange."""
        with self._mutex:
            fault = self._decide(operation)
            if fault is not None:
                self.broken.append(operation)
        return fault

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Connections end here as they please."""


class _Exchange(BaseHTTPRequestHandler):
    """One connection of a client."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Proxy

    def setup(self) -> None:
        super().setup()
        self.upstream = http.client.HTTPConnection(*self.server.target, timeout=60)

    def finish(self) -> None:
        self.upstream.close()
        super().finish()

    def exchange(self) -> None:
        """One request and its answer."""
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        fault = self.server.fault_of(operation_of(self.command, self.path))
        if fault in _REFUSALS:
            status, code = _REFUSALS[fault]
            text = b"" if self.command == "HEAD" else f"<Error><Code>{code}</Code></Error>".encode()
            self.answer(status, [("Content-Type", "application/xml")], text, length=len(text))
            return
        if fault is Fault.LATE:
            time.sleep(LATE)
        if fault is Fault.DROPPED:
            self.hang_up()
            return
        if fault is Fault.TORN:
            self.forward(body, len(body) // 2)
            self.upstream.close()
            self.hang_up()
            return
        self.forward(body, len(body))
        answer = self.upstream.getresponse()
        data = answer.read()
        if fault is Fault.UNANSWERED:
            self.hang_up()
            return
        length = int(answer.headers.get("Content-Length", len(data)))
        sent = data[: len(data) // 2] if fault is Fault.CUT else data
        self.answer(answer.status, answer.getheaders(), sent, length=length)
        if fault is Fault.CUT:
            self.hang_up()

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = exchange  # noqa: N815 - http.server's names

    def forward(self, body: bytes, upto: int) -> None:
        """Send the request on, with the first bytes of its body."""
        self.upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            if name.lower() not in {"expect", "connection"}:  # neither is signed
                self.upstream.putheader(name, value)
        self.upstream.endheaders(body[:upto])

    def answer(
        self, status: int, headers: list[tuple[str, str]], body: bytes, *, length: int
    ) -> None:
        """Send an answer back, whose body is perhaps shorter than it says."""
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() not in {"content-length", "transfer-encoding", "connection"}:
                self.send_header(name, value)
        if status != http.client.NO_CONTENT:
            self.send_header("Content-Length", str(length))
        self.end_headers()
        self.wfile.write(body)

    def hang_up(self) -> None:
        """End the connection without another word."""
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def proxy(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """Before the server; boto3's pauses between its attempts are left out."""
    if urlsplit(endpoint).scheme != "http":
        pytest.skip("the proxy speaks plain HTTP")
    backoff = "botocore.retries.standard.ExponentialBackoff.delay_amount"
    monkeypatch.setattr(backoff, lambda *_: 0.01)
    with Proxy(endpoint) as proxy:
        thread = threading.Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield proxy
        proxy.shutdown()
        thread.join()


@pytest.fixture
def lab(make_repository: MakeRepository, store: s3.S3Store) -> Lab:
    """A repository with governance locks."""
    return make_repository(LockMode.GOVERNANCE, store=store)


@pytest.fixture
def through(proxy: Proxy, lab: Lab) -> Callable[[int], Lab]:
    """The same repository behind the proxy, with so many attempts per request."""

    def make(attempts: int) -> Lab:
        client = s3_client.connect(proxy.url, attempts=attempts)
        store = s3.S3Store(client, lab.store.bucket, lab.store.prefix.rstrip("/"))
        return lab.with_store(store)

    return make


@pytest.fixture
def source(make_source: MakeSource) -> Path:
    """Of some packs."""
    top: Path = make_source(files=4)
    return top


def sometimes(fault: Fault, operation: Operation) -> Callable[[Operation], Fault | None]:
    """Every second request of one kind, beginning with the first."""
    turns = itertools.cycle([fault, None])
    return lambda asked: next(turns) if asked is operation else None


def always(
    fault: Fault, operation: Operation, *, after: int = 0
) -> Callable[[Operation], Fault | None]:
    """Each request of one kind but the first ones."""
    count = itertools.count()
    return lambda asked: fault if asked is operation and next(count) >= after else None


@pytest.mark.parametrize("operation", ["put", "get", "list", "extend"])
@pytest.mark.parametrize("fault", list(Fault))
def test_what_breaks_now_and_then_is_done_again(
    *,
    lab: Lab,
    proxy: Proxy,
    through: Callable[[int], Lab],
    source: Path,
    fault: Fault,
    operation: str,
) -> None:
    """Every second request breaks; two snapshots and a proof succeed nevertheless."""
    troubled = through(s3_client.ATTEMPTS)
    proxy.play(sometimes(fault, Operation(operation)))
    first = troubled.snapshot(source).record
    (source / "new").write_bytes(os.urandom(20_000))
    second = troubled.snapshot(source, retention=LONGER).record
    assert troubled.verify(first, second).passed
    assert Operation(operation) in proxy.broken
    assert [r.digest for r in lab.open().ledger.snapshots()] == [first.digest, second.digest]
    assert_invariants(lab.store, lab.root)


@pytest.mark.parametrize("operation", ["put", "get", "list", "extend"])
@pytest.mark.parametrize("fault", [fault for fault in Fault if fault is not Fault.LATE])
def test_what_stays_broken_fails_clean(
    *,
    lab: Lab,
    proxy: Proxy,
    through: Callable[[int], Lab],
    source: Path,
    fault: Fault,
    operation: str,
) -> None:
    """Exit 13, what was acknowledged is there, and the next run over a good network succeeds."""
    before = lab.snapshot(source).record
    (source / "new").write_bytes(os.urandom(20_000))
    for after in (0, 1, 3):
        proxy.play(always(fault, Operation(operation), after=after))
        try:
            told = through(2).snapshot(source, retention=LONGER).record
        except StorageError as error:
            assert exit_code_of(error) == EXIT_STORE  # noqa: PT017 - whether it fails depends on the fault
            assert proxy.broken
        else:
            assert told.digest in {r.digest for r in lab.open().ledger.snapshots()}
    again = lab.snapshot(source).record
    found = {r.digest for r in lab.open().ledger.snapshots()}
    assert {before.digest, again.digest} <= found
    assert assert_invariants(lab.store, lab.root) == len(found)
    assert lab.verify().passed


def test_a_network_that_ends_at_any_write_loses_nothing(
    *,
    lab: Lab,
    proxy: Proxy,
    through: Callable[[int], Lab],
    source: Path,
    tmp_path: Path,
) -> None:
    """The server acts on the n-th write and nothing comes back any more, for every n of a run."""
    told = [lab.snapshot(source).record.digest]
    (source / "new").write_bytes(os.urandom(8000))
    good = tmp_path / "good"
    shutil.copytree(lab.host.base, good)
    for last in range(MOST_WRITES):
        proxy.play(until(last))
        try:
            told.append(through(1).snapshot(source, dataset=f"d{last}").record.digest)
        except StorageError as error:
            assert exit_code_of(error) == EXIT_STORE  # noqa: PT017 - the last run succeeds
        if not proxy.broken:
            break
        shutil.rmtree(lab.host.base)
        shutil.copytree(good, lab.host.base)
    assert not proxy.broken, "no run got through"
    told.append(lab.snapshot(source, dataset="after").record.digest)
    found = {r.digest for r in lab.open().ledger.snapshots()}
    assert set(told) <= found
    assert len(found) > len(told), "no run was cut off behind its statement"
    assert assert_invariants(lab.store, lab.root) == len(found)
    assert lab.verify().passed


def until(last: int) -> Callable[[Operation], Fault | None]:
    """So many writes pass, the answer of one more is lost, then nothing passes."""
    count = itertools.count()
    ended = False

    def decide(operation: Operation) -> Fault | None:
        nonlocal ended
        if ended:
            return Fault.DROPPED
        if operation in {Operation.PUT, Operation.EXTEND}:
            ended = next(count) == last
        return Fault.UNANSWERED if ended else None

    return decide
