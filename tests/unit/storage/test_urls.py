"""One place has many spellings, and a server is never guessed."""

from pathlib import Path

import pytest

from vault.errors import ConfigError
from vault.storage.urls import is_same_bucket, normalized, parse_local, parse_s3, scheme_of


@pytest.mark.parametrize(
    "url",
    [
        "s3://bucket/a/b",
        "s3://bucket/a/b/",
        "s3://bucket//a/b",
        "S3://bucket/a/b",
        "s3://bucket/a/b//",
    ],
)
def test_slashes_and_case_of_the_scheme_make_no_other_repository(url: str) -> None:
    """All of them are bucket ``bucket`` and prefix ``a/b``."""
    assert parse_s3(url) == ("bucket", "a/b")
    assert normalized(url) == "s3://bucket/a/b"
    assert scheme_of(url) == "s3"


def test_a_bucket_alone_has_no_slash() -> None:
    """The prefix may be empty."""
    assert normalized("s3://bucket/") == normalized("s3://bucket") == "s3://bucket"


@pytest.mark.parametrize(
    "url", ["/srv/backup", "/srv/backup/", "file:///srv/backup", "/srv//backup"]
)
def test_spellings_of_a_path(url: str) -> None:
    """A key file names it absolutely."""
    assert normalized(url) == "/srv/backup"
    assert scheme_of(url) == "file"


def test_a_relative_path_is_of_the_current_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever the key file is used from later."""
    monkeypatch.chdir(tmp_path)
    assert normalized("repo") == str(tmp_path / "repo")


@pytest.mark.parametrize(
    "url", ["s3://", "s3://B/x", "s3://bucket/../x", "s3://bucket/x?y", "ftp://x"]
)
def test_what_names_no_place_stays_as_it_is(url: str) -> None:
    """The one who opens it says what is wrong."""
    assert normalized(url).startswith(url.partition("//")[0]) or normalized(url).endswith(url)


def test_a_file_url_names_this_machine() -> None:
    """No other host, no query."""
    assert parse_local("file:///a%20b") == Path("/a b")
    for url in ("file://host/x", "file:///x?y", "file://"):
        with pytest.raises(ConfigError, match="local path"):
            parse_local(url)


def test_one_bucket_whatever_the_prefix() -> None:
    """And never a directory."""
    assert is_same_bucket("s3://bucket/a", "s3://bucket/b/")
    assert not is_same_bucket("s3://bucket/a", "s3://other/a")
    assert not is_same_bucket("/bucket", "s3://bucket")
    assert not is_same_bucket("/bucket", "/bucket")
