"""A boto3 client with the vault's settings, which keeps listings in their order."""

import re
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
)

from vault.errors import (
    ConfigError,
    StorageError,
)
from vault.storage.base import (
    UNSEEN,
    Observed,
)
from vault.storage.s3_errors import (
    server_text,
)

CONNECTIONS = 36  # kept open: as many as a reader of statements asks at once, and four to spare
ATTEMPTS = 8  # per request; boto3 waits longer after each
READ_ATTEMPTS = 4  # for a body that broke off: boto3 repeats requests, not bodies
CONNECT_TIMEOUT, READ_TIMEOUT = 5, 60  # seconds
_LISTED = re.compile(rb"<(Version|DeleteMarker)>")
_ORDER = "VaultListingOrder"  # added to the parsed answer by `_keep_order`


def connect(endpoint: str = "", *, attempts: int = ATTEMPTS, observed: Observed = UNSEEN) -> Any:
    """A boto3 client with the vault's settings; nothing is sent yet.

    Credentials, region and certificates come by boto3's own chain.

    Raises:
        ConfigError: The endpoint is no address, or boto3's configuration can't be used.
    """
    choices: Any = {
        "addressing_style": "path" if endpoint else "auto",
        "payload_signing_enabled": not _skips_signing(endpoint, observed),
    }
    config = Config(
        max_pool_connections=CONNECTIONS,
        retries={"mode": "standard", "total_max_attempts": attempts},
        connect_timeout=CONNECT_TIMEOUT,
        read_timeout=READ_TIMEOUT,
        tcp_keepalive=True,
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        s3=choices,
    )
    try:
        client = boto3.session.Session().client(
            "s3", endpoint_url=_check_endpoint(endpoint) or None, config=config
        )
    except (BotoCoreError, ValueError) as error:
        raise ConfigError(
            "S3 client can't be configured",
            found=server_text(str(error)),
            hint="check AWS_PROFILE, AWS_REGION and the files in ~/.aws",
        ) from error
    client.meta.events.register("before-parse.s3.ListObjectVersions", _keep_order)
    return client


def _skips_signing(endpoint: str, observed: Observed) -> bool:
    """Whether TLS and a checksum that the server enforces make a second hash redundant."""
    return observed.refuses_wrong_checksums and not endpoint.startswith("http:")


def _check_endpoint(endpoint: str) -> str:
    parts = urlsplit(endpoint)
    if endpoint and (
        parts.scheme not in {"http", "https"} or not parts.hostname or "@" in endpoint
    ):
        raise ConfigError(
            "endpoint must be the address of a server",
            expected="https://host:port",
            found=f"{parts.scheme}://{parts.hostname}",
        )
    return endpoint


def _keep_order(
    response_dict: dict[str, Any], customized_response_dict: dict[str, Any], **_: Any
) -> None:
    """Keep the order of a listing: boto3 puts versions and delete markers into two lists."""
    if response_dict["status_code"] == HTTPStatus.OK:
        customized_response_dict[_ORDER] = _LISTED.findall(response_dict["body"])


def versions_in_order(page: dict[str, Any]) -> Iterator[tuple[bytes, dict[str, Any]]]:
    """The versions and delete markers of a page, each with its kind, as the server listed them.

    Raises:
        StorageError: The page and its text do not say the same.
    """
    lists = {b"Version": page.get("Versions", []), b"DeleteMarker": page.get("DeleteMarkers", [])}
    order = page.get(_ORDER, [])
    if any(order.count(kind) != len(items) for kind, items in lists.items()):
        raise StorageError("the store's listing can't be understood")
    rest = {kind: iter(items) for kind, items in lists.items()}
    for kind in order:
        yield kind, next(rest[kind])
