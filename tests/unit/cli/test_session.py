"""Which server is asked; how much is printed of what is found."""

from types import SimpleNamespace

import pytest

from cli.options import Options
from cli.session import TOLD, Invocation
from vault.errors import ConfigError
from vault.model import Code, Finding, Severity

SERVER = "https://s3.example"


def asked(
    monkeypatch: pytest.MonkeyPatch, url: str, *, option: str = "", **environment: str
) -> str:
    """The endpoint for a URL, where the key file names `SERVER` for ``s3://bucket/v``."""
    run = Invocation(Options(repo=url, endpoint_url=option or None), environment)
    known = SimpleNamespace(url="s3://bucket/v", endpoint=SERVER)
    monkeypatch.setattr(run, "_known", lambda: known)
    location = run.location()
    assert location is not None
    return location.endpoint


@pytest.mark.parametrize(
    "url", ["s3://bucket/v", "s3://bucket/v/", "s3://bucket//v", "s3://bucket/copy"]
)
def test_a_key_file_s_server_serves_its_whole_bucket(
    monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    """A slash must not send a signed request to Amazon."""
    assert asked(monkeypatch, url) == SERVER


def test_another_bucket_s_server_is_never_guessed(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is asked for; what is said counts, by option or as boto3 hears it."""
    with pytest.raises(ConfigError, match="which server"):
        asked(monkeypatch, "s3://other/v")
    assert asked(monkeypatch, "s3://other/v", option="https://o.example") == "https://o.example"
    assert asked(monkeypatch, "s3://other/v", AWS_ENDPOINT_URL_S3="https://o.example") == ""


def test_a_directory_has_no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the key files say."""
    assert asked(monkeypatch, "/srv/backup") == ""


def test_of_thousands_of_findings_the_first_of_each_kind_are_printed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A thief can't bury one under those of another kind."""
    run, said = Invocation(Options(), {}), list[str]()
    monkeypatch.setattr(run, "warn", said.append)
    junk = [
        Finding(
            severity=Severity.WARNING, subject=f"ledger/{n}", problem="junk", code="junk-statement"
        )
        for n in range(3_000)
    ]
    void = Finding(severity=Severity.ERROR, subject="ledger 9", problem="void", code=Code.VOID)
    run.report([*junk, void])
    assert said == [
        *(f"ledger/{n}: junk" for n in range(TOLD)),
        "ledger 9: void",
        f"{3_000 - TOLD:,} more findings junk-statement: 'vault audit' lists them",
    ]
