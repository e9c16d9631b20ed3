"""Listings of versions in S3, page by page, in the order of their text.

boto3 puts versions and delete markers into two lists; here they are merged in the order of the
server.
"""

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC
from typing import Any

from vault.errors import StorageError
from vault.storage.base import ObjectVersion
from vault.storage.s3_client import versions_in_order


def list_versions(
    request: Callable[..., Any], base: str, prefix: str, after: str
) -> Iterator[ObjectVersion]:
    """The versions of a listing, page by page; of one name, newest first.

    Args:
        request: `S3Store.request`.
        base: The beginning of all keys of the store.
        prefix: The beginning, after the base, of the names wanted.
        after: The name after which the listing begins; "": at the first name.
    """
    arguments = {"Prefix": base + prefix}
    if after:
        arguments["KeyMarker"] = base + after
    while True:
        page = request("list", prefix, "list_object_versions", **arguments)
        for kind, item in versions_in_order(page):
            listed = _listed(item, base, marker=kind == b"DeleteMarker")
            if listed.name > after:  # Ceph 16 begins with the key marker, not after it
                yield listed
        if not page.get("IsTruncated"):
            return
        last = (arguments.get("KeyMarker"), arguments.get("VersionIdMarker"))
        arguments["KeyMarker"] = page.get("NextKeyMarker", "")
        arguments["VersionIdMarker"] = page.get("NextVersionIdMarker", "")
        if last == (arguments["KeyMarker"], arguments["VersionIdMarker"]):
            raise StorageError(f"the listing of {prefix or 'the store'} does not move on")


def etag_of(answer: Mapping[str, Any]) -> str:
    """The ETag in an answer, without quotes and in lower case; "" if there is none."""
    return str(answer.get("ETag", "")).strip('"').lower()


def _listed(item: dict[str, Any], base: str, *, marker: bool) -> ObjectVersion:
    key = item["Key"]
    if not key.startswith(base):
        raise StorageError("the store listed what was not asked for", found=repr(key[:80]))
    return ObjectVersion(
        name=key[len(base) :],
        version=item.get("VersionId", "null"),
        size=item.get("Size", 0),
        modified=item["LastModified"].astimezone(UTC),
        marker=marker,
        etag=etag_of(item),
    )
