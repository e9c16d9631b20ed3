"""S3 with Object Lock as a store (docs/design.md "Stores"); its client is `s3_client`'s.

Every object is one single-part PUT that carries its SHA-256 and its lock. Versions are
always named by their id: a writer may also hide a name behind newer versions and
delete markers. Nothing here deletes without a version id or bypasses governance.

Servers differ, so this module relies on what all of them do. After a refused extend it
reads the lock in force. Before a deletion it looks the version up, as deleting a missing
one succeeds. It takes the order of a listing from the text of the answer.
"""

import base64
import contextlib
import hashlib
import itertools
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

import urllib3
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    HTTPClientError,
    IncompleteReadError,
)
from botocore.parsers import ResponseParserError

from vault.clock import to_rfc3339
from vault.errors import (
    ConfigError,
    ObjectNotFoundError,
    RetentionError,
    StorageError,
)
from vault.model import Buffer, LockMode, Retention
from vault.storage import lifecycle
from vault.storage.base import (
    UNSEEN,
    DeniedError,
    ObjectStatus,
    ObjectVersion,
    Observed,
    StoreTraits,
    names_of,
)
from vault.storage.lock_rules import check_future, check_lock, check_sha256, is_weaker
from vault.storage.names import validate_name
from vault.storage.s3_client import READ_ATTEMPTS
from vault.storage.s3_errors import (
    BrokenOffError,
    NoLifecycleError,
    NoLockError,
    PastEndError,
    refused,
    server_text,
    unanswered,
)
from vault.storage.s3_listing import etag_of, list_versions
from vault.storage.s3_stalled_put import stalled_body

MAX_KEY = 1024  # bytes, of all servers

_VERSION_ID = re.compile(r"[!-~]{1,1024}")


class S3Store:
    """An `ObjectStore` in a versioned bucket; see `vault.storage.base` for the semantics.

    Args:
        client: From `connect`; shared by all threads.
        bucket: The bucket; it must exist, be versioned and, to enforce locks, have Object Lock.
        prefix: The beginning of all keys, without the slash after it; may be empty.
        observed: What `vault.storage.conformance` saw of this server.
    """

    def __init__(
        self, client: Any, bucket: str, prefix: str = "", *, observed: Observed = UNSEEN
    ) -> None:
        self._client = client
        self._bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""
        self._observed = observed
        self._has_lock: bool | None = None
        self._dated: tuple[datetime, float] | None = None  # the store's time, our monotonic time
        self._proven: set[str] = set()  # operations whose lock was read back
        self._mutex = threading.Lock()

    def observing(self, observed: Observed) -> "S3Store":
        """The same bucket, relying on what was observed of its server."""
        if observed == self._observed:
            return self
        prefix = self._prefix.rstrip("/")
        return S3Store(self._client, self._bucket, prefix, observed=observed)

    @property
    def url(self) -> str:
        """``s3://bucket/prefix``; the endpoint is not part of it."""
        return f"s3://{self._bucket}/{self._prefix}".rstrip("/")

    @property
    def bucket(self) -> str:
        """The bucket's name."""
        return self._bucket

    @property
    def prefix(self) -> str:
        """The prefix of every key; ends in a slash unless empty."""
        return self._prefix

    @property
    def traits(self) -> StoreTraits:
        """Order as observed, locks as the bucket states; asks the server once.

        Raises:
            StorageError: It did not answer.
        """
        return StoreTraits(
            orders_versions_by_commit=self._observed.orders_versions_by_commit,
            lists_md5=True,
            enforces_retention=self._bucket_has_lock(),
        )

    def now(self) -> datetime:
        """The server's clock as its ``Date`` header gives it, in whole seconds."""
        self.request("ask the time of", "", "list_object_versions", Prefix=self._prefix, MaxKeys=1)
        if self._dated is None:
            raise StorageError("the store does not say what time it has", found="no Date header")
        return self._dated[0]

    def put(
        self,
        name: str,
        data: Buffer,
        *,
        sha256: bytes,
        retention: Retention | None = None,
        exclusive: bool = False,
    ) -> ObjectVersion:
        """See `ObjectStore.put`; the time it states is that of the answer."""
        key = self._prefix + validate_name(name)
        arguments = self._lock_arguments(retention) if retention else {}
        if not self._observed.refuses_wrong_checksums:
            check_sha256(name, data, sha256)
        if exclusive:
            arguments["IfNoneMatch"] = "*"
        answer = self.request(
            "store",
            name,
            "put_object",
            Key=key,
            Body=data if isinstance(data, bytes | bytearray) else bytes(data),
            ChecksumAlgorithm="SHA256",  # some servers look for this and not for the checksum
            ChecksumSHA256=base64.b64encode(sha256).decode(),
            **arguments,
        )
        version = _version_in(answer, self._bucket)
        if retention:
            self._prove("put", name, version, retention)
        return ObjectVersion(
            name=name,
            version=version,
            size=len(data),
            modified=self._estimated_now(),
            etag=etag_of(answer),
        )

    def get(
        self, name: str, version: str | None = None, *, offset: int = 0, length: int | None = None
    ) -> bytes:
        """See `ObjectStore.get`; a body that broke off is asked for again."""
        arguments = self._at(name, version)
        if length == 0:
            self.request("look up", name, "head_object", **arguments)
            return b""
        if offset or length is not None:
            last = "" if length is None else offset + length - 1
            arguments["Range"] = f"bytes={offset}-{last}"
        for _ in range(READ_ATTEMPTS - 1):
            with contextlib.suppress(BrokenOffError):
                return self._fetch(name, arguments, length)
        return self._fetch(name, arguments, length)

    def status(self, name: str, version: str) -> ObjectStatus:
        """See `ObjectStore.status`; works, without checksum, where reading is not allowed."""
        try:
            head = self.request(
                "look up", name, "head_object", ChecksumMode="ENABLED", **self._at(name, version)
            )
        except DeniedError:
            return self._status_unread(name, version)
        # HEAD omits what the caller may not see: without a lock in it there may still be one
        return ObjectStatus(
            size=int(head["ContentLength"]),
            sha256=_sha256(head.get("ChecksumSHA256")),
            retention=_retention(head.get("ObjectLockMode"), head.get("ObjectLockRetainUntilDate"))
            or self._retention(name, version),
            legal_hold=head.get("ObjectLockLegalHoldStatus") == "ON",
        )

    def versions(self, prefix: str, *, after: str = "") -> Iterator[ObjectVersion]:
        """See `ObjectStore.versions`; keeps the versions of one name in memory."""
        if not _is_sendable(self._prefix + prefix):
            return
        if after and not after.startswith(prefix):
            if after > prefix:
                return  # every name with the prefix sorts before it
            after = ""
        group: list[ObjectVersion] = []  # of one name, newest first
        for item in list_versions(self.request, self._prefix, prefix, after):
            if group and group[0].name != item.name:
                yield from reversed(group)
                group = []
            group.append(item)
        yield from reversed(group)

    def versions_of(self, name: str) -> list[ObjectVersion]:
        """See `ObjectStore.versions_of`; the name is listed before all that begin with it."""
        if not name or not _is_sendable(self._prefix + name):
            return []
        listed = list_versions(self.request, self._prefix, name, "")
        return list(itertools.takewhile(lambda item: item.name == name, listed))[::-1]

    def names(self, prefix: str) -> Iterator[str]:
        """See `ObjectStore.names`."""
        return names_of(self.versions(prefix))

    def extend(self, name: str, version: str, retention: Retention) -> datetime:
        """See `ObjectStore.extend`; a refusal is fine if the lock in force is long enough."""
        check_lock(retention)
        lock = {"Mode": retention.mode.upper(), "RetainUntilDate": retention.until}
        at = self._at(name, version)
        check_future(retention, self._estimated_now())
        try:
            self.request("lock", name, "put_object_retention", Retention=lock, **at)
        except DeniedError as refusal:
            return self._lock_in_force(name, version, retention, refusal)
        self._prove("extend", name, version, retention)
        return retention.until

    def set_legal_hold(self, name: str, version: str, *, on: bool) -> None:
        """See `ObjectStore.set_legal_hold`."""
        self.request(
            "hold",
            name,
            "put_object_legal_hold",
            LegalHold={"Status": "ON" if on else "OFF"},
            **self._at(name, version),
        )

    def delete(self, name: str, version: str) -> None:
        """See `ObjectStore.delete`; removes delete markers, too."""
        at = self._at(name, version)
        unseen: ObjectNotFoundError | DeniedError | None = None
        try:
            self._retention(name, version)
        except (ObjectNotFoundError, DeniedError) as error:
            unseen = error  # or a delete marker, which has no lock; Ceph refuses to look
        try:
            answer = self.request("delete", name, "delete_object", **at)
        except DeniedError as refusal:
            self._explain(name, version, refusal)
            raise
        if unseen and not answer.get("DeleteMarker"):
            raise unseen

    def request(self, action: str, name: str, operation: str, **arguments: Any) -> Any:
        """One API call, for this class and `vault.storage.conformance`; errors are translated.

        Args:
            action: The verb of messages.
            name: The object; "" for the whole store.
            operation: A method of boto3's client.
            arguments: Of that method, without the bucket.

        Raises:
            DeniedError: The server said 403.
            VaultError: Any other failure.
        """
        subject = f"{self.url}/{name}" if name else self.url
        try:
            answer = getattr(self._client, operation)(Bucket=self._bucket, **arguments)
        except ClientError as error:
            self._note_time(error.response)
            raise refused(f"can't {action} {subject}", error) from error
        except (BotoCoreError, ResponseParserError) as error:
            raise unanswered(f"can't {action} {subject}", error) from error
        self._note_time(answer)
        return answer

    def put_slowly(self, name: str, data: bytes, pause: Callable[[], object]) -> str:
        """A PUT whose body stops half-way while ``pause`` runs; for `vault.storage.conformance`.

        Returns:
            The version id.
        """
        with stalled_body(self._client, data, pause) as body:
            answer = self.request(
                "store",
                name,
                "put_object",
                Key=self._prefix + validate_name(name),
                Body=body,
                ChecksumAlgorithm="SHA256",
                ChecksumSHA256=base64.b64encode(hashlib.sha256(data).digest()).decode(),
            )
        return _version_in(answer, self._bucket)

    # --- addresses and time ---

    def _at(self, name: str, version: str | None) -> dict[str, Any]:
        """The arguments that name one version; nothing is sent for what can't exist.

        Raises:
            ObjectNotFoundError: No server has such a name or id, or a client on the
                way would rewrite it to another.
        """
        key = self._prefix + name
        parts = set(key.split("/"))
        if not _is_sendable(key) or parts & {"", ".", ".."}:
            raise ObjectNotFoundError("no object can have that name", found=repr(name[:80]))
        if version is None:
            return {"Key": key}
        if not _VERSION_ID.fullmatch(version):
            raise ObjectNotFoundError(f"no object {name}", expected=repr(version[:80]))
        return {"Key": key, "VersionId": version}

    def _note_time(self, answer: Mapping[str, Any]) -> None:
        headers = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {})
        with contextlib.suppress(ValueError, TypeError, OverflowError):
            date = parsedate_to_datetime(headers.get("date"))
            self._dated = (
                date.replace(tzinfo=date.tzinfo or UTC).astimezone(UTC),
                time.monotonic(),
            )

    def _estimated_now(self) -> datetime:
        """The store's clock, reckoned from its last answer."""
        if self._dated is None:
            return self.now()
        date, at = self._dated
        return date + timedelta(seconds=int(time.monotonic() - at))

    # --- bodies and listings ---

    def _fetch(self, name: str, arguments: dict[str, Any], limit: int | None) -> bytes:
        try:
            answer = self.request("read", name, "get_object", **arguments)
        except PastEndError:
            return b""
        with contextlib.closing(answer["Body"]) as body:
            size = answer.get("ContentLength")
            if limit is not None and (size is None or size > limit):
                raise StorageError(
                    f"{name} was answered with more than asked", expected=limit, found=size
                )
            try:
                return bytes(body.read())
            except (HTTPClientError, IncompleteReadError, urllib3.exceptions.HTTPError) as error:
                raise BrokenOffError(
                    f"{name} broke off while being read", found=server_text(str(error))
                ) from error

    # --- locks ---

    def _lock_arguments(self, retention: Retention) -> dict[str, Any]:
        check_lock(retention)
        check_future(retention, self._estimated_now())
        return {
            "ObjectLockMode": retention.mode.upper(),
            "ObjectLockRetainUntilDate": retention.until,
        }

    def _prove(self, operation: str, name: str, version: str, asked: Retention) -> None:
        """Read the lock back, the first time that this operation sets one (I8).

        Raises:
            RetentionError: The server said yes and did something else.
        """
        if operation in self._proven:
            return
        found = self._retention(name, version)
        if found is None or found.until < asked.until or is_weaker(found.mode, asked.mode):
            raise RetentionError(
                f"{self._bucket} does not keep the locks it is given",
                expected=f"{asked.mode} until {to_rfc3339(asked.until)}",
                found=_described(found),
                hint="run 'vault store check' on the bucket; it may lack Object Lock",
            )
        with self._mutex:
            self._proven.add(operation)

    def _lock_in_force(
        self, name: str, version: str, asked: Retention, refusal: DeniedError
    ) -> datetime:
        found = self._retention(name, version)
        if found and found.until >= asked.until and not is_weaker(found.mode, asked.mode):
            return found.until
        raise RetentionError(
            f"the store refused to extend the lock of {name}",
            expected=f"{asked.mode} until {to_rfc3339(asked.until)}",
            found=_described(found),
            hint="the writer needs s3:PutObjectRetention; 'vault store iam' prints its role",
        ) from refusal

    def _explain(self, name: str, version: str, refusal: DeniedError) -> None:
        """Raise the reason of a refused deletion, where it is a lock or a hold."""
        with contextlib.suppress(DeniedError, ObjectNotFoundError):
            if self._legal_hold(name, version):
                raise RetentionError(f"{name} is under a legal hold") from refusal
        with contextlib.suppress(DeniedError, ObjectNotFoundError):
            retention = self._retention(name, version)
            if retention and retention.until > self._estimated_now():
                raise RetentionError(f"{name} is locked: {_described(retention)}") from refusal

    def _retention(self, name: str, version: str) -> Retention | None:
        try:
            answer = self.request(
                "read the lock of", name, "get_object_retention", **self._at(name, version)
            )
        except NoLockError:
            return None
        found = answer.get("Retention", {})
        return _retention(found.get("Mode"), found.get("RetainUntilDate"))

    def _legal_hold(self, name: str, version: str) -> bool:
        try:
            answer = self.request(
                "read the hold of", name, "get_object_legal_hold", **self._at(name, version)
            )
        except NoLockError:
            return False
        return bool(answer.get("LegalHold", {}).get("Status") == "ON")

    def _status_unread(self, name: str, version: str) -> ObjectStatus:
        """The status for roles that may see locks and lists but no bytes."""
        retention = self._retention(name, version)
        for item in self.versions_of(name):
            if item.version == version and not item.marker:
                return ObjectStatus(
                    size=item.size,
                    sha256=None,
                    retention=retention,
                    legal_hold=self._legal_hold(name, version),
                )
        raise ObjectNotFoundError(f"no object {name}", expected=version)

    def hazards(self) -> list[str]:
        """See `ObjectStore.hazards`.

        Raises:
            DeniedError: These credentials may not ask for the bucket's lifecycle rules.
        """
        try:
            answer = self.request("inspect", "", "get_bucket_lifecycle_configuration")
        except NoLifecycleError:
            return []
        return lifecycle.hazards(answer.get("Rules", ()), self._prefix)

    def _bucket_has_lock(self) -> bool:
        if self._has_lock is None:
            try:
                answer = self.request("inspect", "", "get_object_lock_configuration")
            except (NoLockError, DeniedError):
                self._has_lock = False
            else:
                found = answer.get("ObjectLockConfiguration", {})
                self._has_lock = found.get("ObjectLockEnabled") == "Enabled"
        return self._has_lock


def _is_sendable(key: str) -> bool:
    try:
        return len(key.encode()) <= MAX_KEY and "\0" not in key
    except UnicodeEncodeError:
        return False


def _retention(mode: str | None, until: datetime | None) -> Retention | None:
    """A lock as the server states it; fractions of a second are cut off."""
    if not mode or until is None:
        return None
    try:
        known = LockMode(mode.lower())
    except ValueError:
        raise StorageError(
            "the store states an unknown lock mode", found=server_text(mode)
        ) from None
    return Retention(mode=known, until=until.astimezone(UTC).replace(microsecond=0))


def _described(retention: Retention | None) -> str:
    if retention is None:
        return "no lock"
    return f"{retention.mode} until {to_rfc3339(retention.until)}"


def _sha256(text: str | None) -> bytes | None:
    """A stored checksum; None where there is none, or a composite one of parts."""
    with contextlib.suppress(ValueError):
        digest = base64.b64decode(text or "", validate=True)
        return digest if len(digest) == 32 else None
    return None


def _version_in(answer: dict[str, Any], bucket: str) -> str:
    version = answer.get("VersionId")
    if not isinstance(version, str) or version == "null":
        raise ConfigError(
            f"bucket {bucket} is not versioned",
            hint="turn versioning on; without it a PUT destroys what it replaces",
        )
    return version
