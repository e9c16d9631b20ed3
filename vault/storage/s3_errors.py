"""Errors of the vault for what S3 servers answer, and for requests that got no answer.

Servers differ in their codes, and the text of an answer is untrusted.
"""

from http import HTTPStatus

from botocore.exceptions import (
    ClientError,
    ConnectionError,  # noqa: A004 - botocore's own, of all that fails before an answer
    CredentialRetrievalError,
    HTTPClientError,
    IncompleteReadError,
    InvalidConfigError,
    InvalidRegionError,
    NoAuthTokenError,
    NoCredentialsError,
    PartialCredentialsError,
    ProfileNotFound,
    SSLError,
    TokenRetrievalError,
)

from vault.errors import (
    ConfigError,
    DigestMismatchError,
    NameContestedError,
    NameTakenError,
    ObjectNotFoundError,
    RepositoryNotFoundError,
    StorageError,
    StorageUnavailableError,
    VaultError,
)
from vault.storage.base import DeniedError

_GONE = {"NoSuchKey", "NoSuchVersion", "404", "MethodNotAllowed", "405"}
_NO_LOCK = {"NoSuchObjectLockConfiguration", "ObjectLockConfigurationNotFoundError"}
_DAMAGED = {
    "BadDigest",
    "InvalidDigest",
    "XAmzContentSHA256Mismatch",
    "XAmzContentChecksumMismatch",
}
_BUSY = {"SlowDown", "RequestTimeout", "OperationAborted", "ServiceUnavailable", "InternalError"}
_BAD_KEYS = {"InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken"}
_ELSEWHERE = {
    "PermanentRedirect",
    "AuthorizationHeaderMalformed",
    "IllegalLocationConstraintException",
}
_MISCONFIGURED = (
    CredentialRetrievalError,
    InvalidConfigError,
    InvalidRegionError,
    NoAuthTokenError,
    NoCredentialsError,
    PartialCredentialsError,
    ProfileNotFound,
    TokenRetrievalError,
)


class NoLifecycleError(StorageError):
    """The bucket has no lifecycle rules."""


class NoLockError(StorageError):
    """That version has no lock, or its bucket has no Object Lock."""


class PastEndError(StorageError):
    """A range that begins after the last byte."""


class BrokenOffError(StorageUnavailableError):
    """An answer that began and did not end."""


_MEANINGS = (
    (_GONE, lambda what, found: ObjectNotFoundError(what, found=found)),
    (
        {"NoSuchLifecycleConfiguration"},
        lambda what, found: NoLifecycleError(what, found=found),
    ),
    (_NO_LOCK, lambda what, found: NoLockError(what, found=found)),
    (_BUSY, lambda what, found: StorageUnavailableError(what, found=found)),
    ({"PreconditionFailed"}, lambda what, found: NameTakenError(what, found=found)),
    ({"ConditionalRequestConflict"}, lambda what, found: NameContestedError(what, found=found)),
    (_DAMAGED, lambda what, found: DigestMismatchError(what, found=found)),
    ({"InvalidRange"}, lambda what, found: PastEndError(what, found=found)),
    (
        {"NoSuchBucket"},
        lambda what, found: RepositoryNotFoundError(
            what, found=found, hint="make the bucket, with versioning and Object Lock on"
        ),
    ),
    (
        {"RequestTimeTooSkewed"},
        lambda what, found: ConfigError(
            what, found=found, hint="set this machine's clock right (NTP) and run again"
        ),
    ),
    (
        _BAD_KEYS,
        lambda what, found: StorageError(
            what, found=found, hint="check the credentials that boto3's chain finds"
        ),
    ),
    (
        _ELSEWHERE,
        lambda what, found: ConfigError(
            what, found=found, hint="set AWS_REGION to the bucket's region"
        ),
    ),
)


def refused(what: str, error: ClientError) -> VaultError:
    """The error for a server's answer; the text of it is untrusted."""
    code = str(error.response.get("Error", {}).get("Code", ""))
    text = str(error.response.get("Error", {}).get("Message") or "")
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    found = server_text(f"{code} {text}".strip() or f"status {status}")
    for codes, make in _MEANINGS:
        if code in codes:
            return make(what, found)
    if "object lock" in text.lower() and status == HTTPStatus.BAD_REQUEST:  # Ceph: InvalidRequest
        return NoLockError(what, found=found)
    if code == "InvalidArgument" and "version" in text.lower():
        return ObjectNotFoundError(what, found=found)
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status == HTTPStatus.TOO_MANY_REQUESTS:
        return StorageUnavailableError(what, found=found)
    if status == HTTPStatus.FORBIDDEN:
        return DeniedError(
            what, found=found, hint="'vault store iam' prints what each role must be allowed"
        )
    return StorageError(what, found=found)


def unanswered(what: str, error: Exception) -> VaultError:
    """The error for a request that got no answer, or an unreadable one."""
    found = server_text(str(error))
    if isinstance(error, _MISCONFIGURED):
        return ConfigError(
            what, found=found, hint="set the AWS variables or a profile, see boto3's documentation"
        )
    if isinstance(error, SSLError):
        return StorageError(
            what, found=found, hint="check the certificate; AWS_CA_BUNDLE names one's own authority"
        )
    if isinstance(error, HTTPClientError | ConnectionError | IncompleteReadError):
        return StorageUnavailableError(what, found=found)
    return StorageError(what, found=found)


def server_text(text: str) -> str:
    """The text of a server, made safe for a terminal and a log."""
    return "".join(c if c.isprintable() else "?" for c in text[:300])
