"""Repository URLs: a path, ``file:///path`` or ``s3://bucket/prefix``. No I/O."""

import re
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from vault.errors import ConfigError
from vault.storage.names import validate_name

MAX_PREFIX: Final = 400  # bytes; leaves room for the longest name

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")


def scheme_of(url: str) -> str:
    """The scheme in lower case; that of a path is ``file``."""
    match = _SCHEME.match(url)
    return match[1].lower() if match else "file"


def parse_s3(url: str) -> tuple[str, str]:
    """Bucket and prefix of ``s3://bucket/prefix``; the prefix has no slash at its ends.

    Raises:
        ConfigError: Anything else.
    """
    parts = urlsplit(url)
    bucket, prefix = parts.netloc, parts.path.strip("/")
    strange = parts.scheme != "s3" or parts.query or parts.fragment
    if strange or not _BUCKET.fullmatch(bucket) or len(prefix) > MAX_PREFIX:
        raise ConfigError(
            "S3 URL must name a bucket", expected="s3://bucket/prefix", found=repr(url[:200])
        )
    return bucket, validate_name(prefix) if prefix else ""


def parse_local(url: str) -> Path:
    """The path of a local repository.

    Raises:
        ConfigError: A ``file://`` URL of another host, or with a query.
    """
    if not _SCHEME.match(url):
        return Path(url)
    parts = urlsplit(url)
    if parts.netloc not in {"", "localhost"} or parts.query or parts.fragment or not parts.path:
        raise ConfigError(
            "file URL must name a local path", expected="file:///path", found=repr(url[:200])
        )
    return Path(unquote(parts.path))


def normalized(url: str) -> str:
    """One spelling for all URLs of the same place; other text is returned unchanged.

    Slashes that a URL does not need are left out. Links are not followed: no file is looked at.
    """
    try:
        if scheme_of(url) == "s3":
            bucket, prefix = parse_s3(url)
            return f"s3://{bucket}/{prefix}".rstrip("/")
        return str(parse_local(url).absolute())
    except ConfigError:
        return url


def is_same_bucket(one: str, other: str) -> bool:
    """Whether both URLs are in one bucket, and so, without another endpoint, on one server."""
    if {scheme_of(one), scheme_of(other)} != {"s3"}:
        return False
    return parse_s3(one)[0] == parse_s3(other)[0]
