"""The S3 store against a scripted server: what answers mean, and what is never sent."""

import base64
import hashlib
import io
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    EndpointConnectionError,
    IncompleteReadError,
    NoCredentialsError,
    ReadTimeoutError,
    SSLError,
)

from vault.errors import (
    ConfigError,
    DigestMismatchError,
    NameContestedError,
    NameTakenError,
    ObjectNotFoundError,
    RepositoryNotFoundError,
    RetentionError,
    StorageError,
    StorageUnavailableError,
    VaultError,
)
from vault.model import LockMode, Retention
from vault.storage import s3, s3_client
from vault.storage.base import UNSEEN, DeniedError, Observed
from vault.storage.choose_store import open_store

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
NAME = "packs/ab/cd"
DATA = b"data"
SHA256 = hashlib.sha256(DATA).digest()


def answer(date: datetime = NOW, **fields: Any) -> dict[str, Any]:
    """A reply with the server's time."""
    text = date.strftime("%a, %d %b %Y %H:%M:%S GMT")
    return {"ResponseMetadata": {"HTTPStatusCode": 200, "HTTPHeaders": {"date": text}}, **fields}


def refusal(status: int, code: str, message: str = "") -> ClientError:
    """An error that the server sent."""
    response: Any = {
        "Error": {"Code": code, "Message": message},
        "ResponseMetadata": answer()["ResponseMetadata"] | {"HTTPStatusCode": status},
    }
    return ClientError(response, "Operation")


class Server:
    """Gives the scripted replies of each operation in turn, the last one for ever."""

    def __init__(self, **replies: Any) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self._replies = {name: list(reply) if isinstance(reply, list) else [reply]
                         for name, reply in replies.items()}  # fmt: skip

    def __getattr__(self, operation: str) -> Callable[..., Any]:
        def call(**arguments: Any) -> Any:
            self.calls.append((operation, arguments))
            replies = self._replies.get(operation, [answer()])
            reply = replies.pop(0) if len(replies) > 1 else replies[0]
            if isinstance(reply, Exception):
                raise reply
            return reply

        return call

    def sent(self, operation: str) -> list[dict[str, Any]]:
        """The arguments of its calls."""
        return [arguments for name, arguments in self.calls if name == operation]


def store_on(server: Server, **options: Any) -> s3.S3Store:
    """A store with a prefix."""
    return s3.S3Store(server, "bucket", "some/prefix", **options)


def lock(days: int, mode: LockMode = LockMode.GOVERNANCE) -> Retention:
    """A lock from NOW on."""
    return Retention(mode=mode, until=NOW + timedelta(days=days))


def locked(retention: Retention) -> dict[str, Any]:
    """What GetObjectRetention answers."""
    return answer(Retention={"Mode": retention.mode.upper(), "RetainUntilDate": retention.until})


# --- errors ---

MEANINGS: list[tuple[Exception, type[VaultError]]] = [
    (refusal(404, "NoSuchKey"), ObjectNotFoundError),
    (refusal(404, "404"), ObjectNotFoundError),
    (refusal(405, "MethodNotAllowed"), ObjectNotFoundError),
    (refusal(400, "InvalidArgument", "Invalid version id specified"), ObjectNotFoundError),
    (refusal(404, "NoSuchBucket"), RepositoryNotFoundError),
    (refusal(403, "AccessDenied"), DeniedError),
    (refusal(403, "RequestTimeTooSkewed"), ConfigError),
    (refusal(403, "SignatureDoesNotMatch"), StorageError),
    (refusal(301, "PermanentRedirect"), ConfigError),
    (refusal(400, "BadDigest"), DigestMismatchError),
    (refusal(412, "PreconditionFailed"), NameTakenError),
    (refusal(409, "ConditionalRequestConflict"), NameContestedError),
    # the word alone is no absence: what is taken for absent is stored anew, or called deleted
    (refusal(400, "InvalidArgument", "Invalid argument"), StorageError),
    (refusal(403, "Forbidden", "no right to this version"), DeniedError),
    (refusal(400, "OddApi", "this API version is not supported"), StorageError),
    (refusal(500, "OddServer", "of a newer version"), StorageUnavailableError),
    (refusal(429, "OddHaste"), StorageUnavailableError),
    (refusal(499, "OddEdge"), StorageError),
    (refusal(503, "SlowDown"), StorageUnavailableError),
    (refusal(500, "InternalError"), StorageUnavailableError),
    (refusal(500, "OddExactly"), StorageUnavailableError),
    (refusal(502, "Bad Gateway"), StorageUnavailableError),
    (refusal(400, "SomethingNew"), StorageError),
    (NoCredentialsError(), ConfigError),
    (EndpointConnectionError(endpoint_url="http://x"), StorageUnavailableError),
    (ReadTimeoutError(endpoint_url="http://x"), StorageUnavailableError),
    (SSLError(endpoint_url="http://x", error=OSError("certificate")), StorageError),
    (BotoCoreError(), StorageError),
]


@pytest.mark.parametrize(("raised", "expected"), MEANINGS, ids=lambda item: str(item)[:60])
def test_every_error_becomes_one_of_the_vaults(
    raised: Exception, expected: type[VaultError]
) -> None:
    """Exactly that class, so that exit codes and retries are right."""
    with pytest.raises(expected) as caught:
        store_on(Server(get_object=raised)).get(NAME, "1")
    assert type(caught.value) is expected


def test_what_a_server_says_can_not_drive_a_terminal() -> None:
    """Control characters and endless texts are cut."""
    error = refusal(400, "Odd", "\x1b[2J" + "x" * 9999)
    with pytest.raises(StorageError) as caught:
        store_on(Server(get_object=error)).get(NAME, "1")
    assert "\x1b" not in str(caught.value)
    assert len(str(caught.value)) < 500


# --- put ---


@pytest.mark.parametrize(
    ("said", "enforces"),
    [
        (answer(ObjectLockConfiguration={"ObjectLockEnabled": "Enabled"}), True),
        (answer(ObjectLockConfiguration={}), False),
        (refusal(404, "ObjectLockConfigurationNotFoundError"), False),
    ],
    ids=["on", "off", "none"],
)
def test_a_bucket_is_asked_once_whether_it_keeps_locks(said: Any, *, enforces: bool) -> None:
    """What it does not say to keep is not claimed."""
    server = Server(get_object_lock_configuration=said)
    store = store_on(server)
    assert store.traits.enforces_retention is enforces
    assert store.traits.enforces_retention is enforces
    assert len(server.sent("get_object_lock_configuration")) == 1


def _put(store: s3.S3Store, retention: Retention) -> None:
    store.put(NAME, b"data", sha256=hashlib.sha256(b"data").digest(), retention=retention)


def _extend(store: s3.S3Store, retention: Retention) -> None:
    store.extend(NAME, "1", retention)


@pytest.mark.parametrize("operation", [_put, _extend])
def test_a_lock_that_has_run_out_is_refused_before_anything_is_sent(
    operation: Callable[[s3.S3Store, Retention], None],
) -> None:
    """A server may take it, and the object would lie there without a lock."""
    server = Server()
    with pytest.raises(RetentionError, match="not in the future"):
        operation(store_on(server), lock(-20_000))
    assert server.sent("put_object") == []
    assert server.sent("put_object_retention") == []


def test_put_sends_one_request_with_checksum_and_lock() -> None:
    """And reads the first lock of a run back, not the later ones (I8)."""
    retention = lock(9, LockMode.COMPLIANCE)
    server = Server(put_object=answer(VersionId="v"), get_object_retention=locked(retention))
    store = store_on(server)
    for _ in range(3):
        store.put(NAME, DATA, sha256=SHA256, retention=retention)
    assert server.sent("put_object")[0] == {
        "Bucket": "bucket",
        "Key": f"some/prefix/{NAME}",
        "Body": DATA,
        "ChecksumAlgorithm": "SHA256",
        "ChecksumSHA256": base64.b64encode(SHA256).decode(),
        "ObjectLockMode": "COMPLIANCE",
        "ObjectLockRetainUntilDate": retention.until,
    }
    assert len(server.sent("get_object_retention")) == 1


@pytest.mark.parametrize(
    "found", [lock(8), lock(9), answer(Retention={}), refusal(404, "NoSuchObjectLockConfiguration")]
)
def test_a_server_that_forgets_a_lock_is_found_out(found: Any) -> None:
    """Shorter, weaker or none: nothing is believed that was not read back."""
    reply = locked(found) if isinstance(found, Retention) else found
    server = Server(put_object=answer(VersionId="v"), get_object_retention=reply)
    with pytest.raises(RetentionError):
        store_on(server).put(NAME, DATA, sha256=SHA256, retention=lock(9, LockMode.COMPLIANCE))


@pytest.mark.parametrize("version", [None, "null"])
def test_a_bucket_without_versions_is_refused(version: str | None) -> None:
    """A PUT there destroys what it replaces."""
    with pytest.raises(ConfigError, match="not versioned"):
        store_on(Server(put_object=answer(VersionId=version))).put(NAME, DATA, sha256=SHA256)


def test_bytes_are_hashed_here_unless_the_server_was_seen_to() -> None:
    """Only then is the second hash redundant."""
    server = Server(put_object=answer(VersionId="v"))
    with pytest.raises(DigestMismatchError):
        store_on(server).put(NAME, b"other", sha256=SHA256)
    seen = Observed(refuses_wrong_checksums=True)
    store_on(server, observed=seen).put(NAME, b"other", sha256=SHA256)


# --- get ---


def body(data: bytes, error: Exception | None = None) -> Any:
    """A body that fails when it is read."""

    class Body(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            if error:
                raise error
            return super().read(size)

    return answer(Body=Body(data), ContentLength=len(data))


BROKEN = IncompleteReadError(actual_bytes=1, expected_bytes=4)


def test_a_body_that_broke_off_is_asked_for_again() -> None:
    """A few times, then it is unavailable."""
    server = Server(get_object=[body(DATA, BROKEN), body(DATA, BROKEN), body(DATA)])
    assert store_on(server).get(NAME, "1") == DATA
    server = Server(get_object=body(DATA, BROKEN))
    with pytest.raises(StorageUnavailableError):
        store_on(server).get(NAME, "1")
    assert len(server.calls) == s3_client.READ_ATTEMPTS


def test_more_than_asked_is_not_read() -> None:
    """A server that ignores the range must not fill the memory."""
    with pytest.raises(StorageError, match="more than asked"):
        store_on(Server(get_object=body(DATA))).get(NAME, "1", length=3)


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/../b", "a//b", "/a", "a/", "a\0", "\udcff", "x" * 2000]
)
def test_names_that_would_become_others_are_never_sent(name: str) -> None:
    """Clients and proxies fold dots and slashes away."""
    server = Server()
    with pytest.raises(ObjectNotFoundError):
        store_on(server).get(name, "1")
    assert server.calls == []


@pytest.mark.parametrize("version", ["", " ", "a b", "ä", "x" * 2000])
def test_version_ids_that_no_server_has_are_never_sent(version: str) -> None:
    """Above all not "", which would mean the newest."""
    server = Server()
    for call in (
        lambda: store_on(server).get(NAME, version),
        lambda: store_on(server).delete(NAME, version),
        lambda: store_on(server).extend(NAME, version, lock(9)),
    ):
        with pytest.raises(ObjectNotFoundError):
            call()
    assert server.calls == []


# --- extend and delete ---


@pytest.mark.parametrize(
    ("found", "is_fine"),
    [
        (lock(9), True),
        (lock(30, LockMode.COMPLIANCE), True),
        (lock(8), False),
        (None, False),
    ],
)
def test_a_refused_extend_is_fine_if_the_lock_is_long_enough(
    found: Retention | None,
    is_fine: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    """403 is what a server says to a shorter date, and to much else."""
    reply = locked(found) if found else refusal(404, "NoSuchObjectLockConfiguration")
    server = Server(put_object_retention=refusal(403, "AccessDenied"), get_object_retention=reply)
    if is_fine:
        assert found
        assert store_on(server).extend(NAME, "1", lock(9)) == found.until
    else:
        with pytest.raises(RetentionError):
            store_on(server).extend(NAME, "1", lock(9))
    assert server.sent("put_object_retention")[0]["VersionId"] == "1"


@pytest.mark.parametrize(
    "said",
    [
        refusal(404, "NoSuchObjectLockConfiguration"),
        refusal(404, "ObjectLockConfigurationNotFoundError"),
        refusal(400, "InvalidRequest", "Bucket is missing Object Lock Configuration"),  # AWS
        refusal(400, "InvalidRequest", "bucket object lock not configured"),  # Ceph 16
    ],
)
def test_a_bucket_without_object_lock_has_no_locks(said: ClientError) -> None:
    """That it was never configured is an answer, and no failure of the store."""
    server = Server(head_object=answer(ContentLength=3), get_object_retention=said)
    status = store_on(server).status(NAME, "1")
    assert (status.size, status.retention, status.legal_hold) == (3, None, False)


def test_another_invalid_request_is_no_answer() -> None:
    """It says nothing of a lock."""
    said = refusal(400, "InvalidRequest", "something else")
    server = Server(head_object=answer(ContentLength=3), get_object_retention=said)
    with pytest.raises(StorageError):
        store_on(server).status(NAME, "1")


@pytest.mark.parametrize(
    ("found", "hold", "expected"),
    [
        (lock(9), "OFF", RetentionError),
        (lock(-9), "ON", RetentionError),
        (lock(-9), "OFF", DeniedError),
    ],
)
def test_a_refused_deletion_says_why(
    found: Retention, hold: str, expected: type[VaultError]
) -> None:
    """A lock or a hold in force, or that it is not allowed."""
    server = Server(
        delete_object=refusal(403, "AccessDenied"),
        get_object_retention=locked(found),
        get_object_legal_hold=answer(LegalHold={"Status": hold}),
    )
    with pytest.raises(expected) as caught:
        store_on(server).delete(NAME, "1")
    assert type(caught.value) is expected


def test_deleting_what_is_not_there_is_told_from_deleting_a_marker() -> None:
    """S3 says 204 to both."""
    gone = refusal(404, "NoSuchKey")
    store_on(Server(get_object_retention=gone, delete_object=answer(DeleteMarker=True))).delete(
        NAME, "1"
    )
    with pytest.raises(ObjectNotFoundError):
        store_on(Server(get_object_retention=gone)).delete(NAME, "1")


def test_status_without_the_right_to_read() -> None:
    """Lock and size come from where the writer may look."""
    item = {"Key": f"some/prefix/{NAME}", "VersionId": "1", "Size": 7, "LastModified": NOW}
    server = Server(
        head_object=refusal(403, "403"),
        get_object_retention=locked(lock(9)),
        list_object_versions=answer(Versions=[item], VaultListingOrder=[b"Version"]),
    )
    status = store_on(server).status(NAME, "1")
    assert (status.size, status.sha256, status.retention) == (7, None, lock(9))


# --- listing ---


def page(*items: tuple[str, str, bool], more: tuple[str, str] | None = None) -> dict[str, Any]:
    """One page of (name, version, marker), newest first."""

    def entries(*, marker: bool) -> Sequence[dict[str, Any]]:
        return [
            {"Key": f"some/prefix/{name}", "VersionId": version, "Size": 1, "LastModified": NOW}
            for name, version, is_marker in items
            if is_marker == marker
        ]

    fields: dict[str, Any] = {
        "Versions": entries(marker=False),
        "DeleteMarkers": entries(marker=True),
        "VaultListingOrder": [b"DeleteMarker" if item[2] else b"Version" for item in items],
    }
    if more:
        fields |= {"IsTruncated": True, "NextKeyMarker": more[0], "NextVersionIdMarker": more[1]}
    return answer(**fields)


def test_versions_are_turned_round_by_name_across_pages() -> None:
    """S3 lists them newest first, and parts a name's versions wherever a page is full."""
    server = Server(
        list_object_versions=[
            page(("a", "2", True), ("a", "1", False), ("b", "4", False), more=("b", "4")),
            page(("b", "3", True), ("b", "2", False), more=("b", "2")),
            page(("b", "1", False), ("c", "1", False)),
        ]
    )
    listed = [(item.name, item.version) for item in store_on(server).versions("")]
    assert listed == [("a", "1"), ("a", "2"), *(("b", str(n)) for n in (1, 2, 3, 4)), ("c", "1")]


def test_the_versions_of_one_name_end_at_the_first_other_key() -> None:
    """One request, whatever else begins like the name; two where its own versions go on."""
    shared = page(("a", "2", True), ("a", "1", False), ("a/b", "1", False), more=("a/b", "1"))
    server = Server(list_object_versions=[shared, page(("a/c", "1", False))])
    assert [item.version for item in store_on(server).versions_of("a")] == ["1", "2"]
    assert server.sent("list_object_versions") == [{"Bucket": "bucket", "Prefix": "some/prefix/a"}]
    long = [page(("a", "3", False), more=("a", "3")), page(("a", "2", False), ("a.b", "1", False))]
    server = Server(list_object_versions=long)
    assert [item.version for item in store_on(server).versions_of("a")] == ["2", "3"]
    assert len(server.sent("list_object_versions")) == 2
    assert store_on(server).versions_of("") == store_on(server).versions_of("a\0") == []


@pytest.mark.parametrize(("etag", "in_parts"), [('"9e10"', False), ('"9e10-2"', True), ("", False)])
def test_what_was_put_together_of_parts_is_marked(etag: str, *, in_parts: bool) -> None:
    """Its time may be that at which the first part was begun."""
    item = {"Key": "some/prefix/a", "VersionId": "1", "LastModified": NOW, "ETag": etag}
    listing = answer(Versions=[item], VaultListingOrder=[b"Version"])
    (found,) = store_on(Server(list_object_versions=listing)).versions("")
    assert found.in_parts is in_parts


def test_a_listing_that_makes_no_sense_is_refused() -> None:
    """Endless, out of the prefix, or not to be put in order."""
    endless = page(("a", "1", False), more=("a", "1"))
    foreign = answer(
        Versions=[{"Key": "other/a", "VersionId": "1", "LastModified": NOW}],
        VaultListingOrder=[b"Version"],
    )
    for reply in (endless, foreign, page(("a", "1", False)) | {"VaultListingOrder": []}):
        with pytest.raises(StorageError):
            list(store_on(Server(list_object_versions=reply)).versions(""))


def test_now_is_the_servers_date() -> None:
    """Also when its answer is a refusal; without a date there is no time."""
    assert store_on(Server(list_object_versions=answer())).now() == NOW
    bare = {"ResponseMetadata": {"HTTPHeaders": {"date": "yesterday"}}}
    with pytest.raises(StorageError):
        store_on(Server(list_object_versions=bare)).now()


# --- addresses ---


def test_s3_urls_open_stores_without_a_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slash at the end means nothing; the prefix may be missing."""
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    store = open_store("s3://bucket/some/prefix/", endpoint="http://127.0.0.1:1")
    assert store.url == "s3://bucket/some/prefix"
    assert open_store("s3://bucket").url == "s3://bucket"


@pytest.mark.parametrize(
    "url",
    ["s3://", "s3:///prefix", "s3://B/p", "s3://bucket/p?x", "s3://bucket/../p", "s3://u:p@b"],
)
def test_what_is_no_bucket_is_refused(url: str) -> None:
    """Before anything is sent."""
    with pytest.raises(ConfigError):
        open_store(url)


@pytest.mark.parametrize(
    "endpoint", ["host:80", "ftp://host", "https://", "https://me:secret@host"]
)
def test_endpoints_are_addresses_without_credentials(endpoint: str) -> None:
    """Which would end up in key files and messages."""
    with pytest.raises(ConfigError) as caught:
        s3_client.connect(endpoint)
    assert "secret" not in str(caught.value)


def test_the_body_is_signed_unless_tls_and_the_server_check_it() -> None:
    """Ceph 16 ignores the checksum: there the signature is all that protects the transfer."""
    seen = Observed(refuses_wrong_checksums=True)
    for endpoint, observed, signs in (
        ("https://host", UNSEEN, True),
        ("http://host", seen, True),
        ("https://host", seen, False),
    ):
        config = s3_client.connect(endpoint, observed=observed).meta.config
        assert config.s3["payload_signing_enabled"] is signs
        assert config.request_checksum_calculation == "when_required"
