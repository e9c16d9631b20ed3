"""The program over TLS, with an authority of one's own; certificates that prove nothing."""

import os
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.trees import MakeSource, files_of
from vault.storage import s3

pytestmark = pytest.mark.s3

EXIT_STORE = 13


@pytest.fixture
def tls_endpoint() -> str:
    """The server's address that speaks TLS; AWS_CA_BUNDLE names who vouches for it."""
    endpoint = os.environ.get("VAULT_TEST_S3_TLS_ENDPOINT", "")
    if not endpoint:
        pytest.skip("VAULT_TEST_S3_TLS_ENDPOINT names no address")
    return endpoint


def test_snapshots_are_taken_audited_and_restored_over_tls(
    store: s3.S3Store,
    tls_endpoint: str,
    make_source: MakeSource,
    make_person: Callable[..., Any],
) -> None:
    """From `init` on, which tries the bucket out."""
    person, source = make_person("host"), make_source()
    person.json("--endpoint-url", tls_endpoint, "init", store.url, "--host", "first")
    person.json("snapshot", source, "--name", "data")
    (source / "new").write_bytes(os.urandom(300_000))
    person.json("snapshot", source, "--name", "data")
    target = person.home / "target"
    person.json("restore", "data", target)
    assert files_of(target) == files_of(source)
    audited = person.json("audit", "--read-data", "all")["audit"]
    assert audited["verdict"] == "passed; all packs read"


@pytest.mark.parametrize("flaw", ["authority", "name"])
def test_a_certificate_that_proves_nothing_is_refused(
    *,
    store: s3.S3Store,
    tls_endpoint: str,
    make_person: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    flaw: str,
) -> None:
    """By an authority nobody here knows, or for another host: exit 13, nothing is sent."""
    if flaw == "authority":
        monkeypatch.delenv("AWS_CA_BUNDLE")
    else:
        tls_endpoint = tls_endpoint.replace("127.0.0.1", "localhost")
    person = make_person("host")
    refused = person.vault("--endpoint-url", tls_endpoint, "init", store.url, "--host", "first")
    assert refused.returncode == EXIT_STORE, refused.stderr
    assert "certificate" in refused.stderr
    assert "AWS_CA_BUNDLE" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert not list(person.keys.iterdir())
    assert not list(store.versions(""))
