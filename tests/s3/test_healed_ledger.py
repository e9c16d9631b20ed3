"""A statement that is gone from a real server comes back from a page of the ledger."""

import json
from pathlib import Path
from typing import Any

import pytest

from cli import main
from tests.support.lab import Lab, MakeRepository
from vault.ledger import pages
from vault.ledger.statements import HeartbeatBody
from vault.model import LockMode
from vault.repository.append_statements import Draft
from vault.storage import s3
from vault.storage.names import ledger_name

pytestmark = pytest.mark.s3

EXIT_INTEGRITY = 4
GONE = 15  # on the second page


@pytest.fixture
def paged(
    store: s3.S3Store, make_repository: MakeRepository, monkeypatch: pytest.MonkeyPatch
) -> Lab:
    """Two pages of ten statements, and one statement more."""
    monkeypatch.setattr(pages, "PAGE_LENGTH", 10)
    lab = make_repository(LockMode.GOVERNANCE, store=store)
    repository = lab.open()
    body = HeartbeatBody(note="alive")
    draft = Draft(type="heartbeat", subject=[("repository", lab.root)], body=body)
    while repository.head.seq < 20:
        repository.append(lambda _: draft, [lab.host.key.signing], tool="t")
    return lab


def versions(client: Any, store: s3.S3Store, name: str) -> list[str]:
    """The ids of a name's versions, by boto3's own reading."""
    found = client.list_object_versions(Bucket=store.bucket, Prefix=store.prefix + name)
    return [each["VersionId"] for each in found.get("Versions", ())]


@pytest.mark.parametrize("has_pages", [True, False], ids=["pages", "control"])
def test_heal_stores_a_statement_again_that_an_administrator_removed(
    *,
    paged: Lab,
    store: s3.S3Store,
    client: Any,
    endpoint: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    has_pages: bool,
) -> None:
    """The same bytes under a lock as before. The control: without its page nothing comes back."""
    for kind in ("CONFIG", "STATE", "CACHE"):
        monkeypatch.setenv(f"XDG_{kind}_HOME", str(tmp_path / kind.lower()))
    name = ledger_name(GONE)
    (before,) = versions(client, store, name)
    data, head = store.get(name, before), paged.open().head
    page = "ledger-page/0000000001"
    for gone in [name] if has_pages else [name, page]:
        (version,) = versions(client, store, gone)
        client.delete_object(
            Bucket=store.bucket,
            Key=store.prefix + gone,
            VersionId=version,
            BypassGovernanceRetention=True,
        )
    assert versions(client, store, name) == []

    def vault(*arguments: str) -> tuple[int, dict[str, Any]]:
        capsys.readouterr()
        place = ("--repo", store.url, "--endpoint-url", endpoint, "--trust", f"0:{paged.root}")
        code = main.run(["--json", *place, *arguments])
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return code, json.loads(out.splitlines()[0]) if out else {}

    code, planned = vault("heal")
    if not has_pages:
        assert planned["heal"]["steps"] == []
        vault("heal", "--execute")
        assert versions(client, store, name) == []
        code, audited = vault("audit")
        found = {each["code"] for each in audited["audit"]["findings"]}
        assert (code, "beyond-gap" in found) == (EXIT_INTEGRITY, True), found
        return
    steps = [(each["action"], each["name"]) for each in planned["heal"]["steps"]]
    assert (code, steps) == (EXIT_INTEGRITY, [("put back", name)])
    assert versions(client, store, name) == [], "a plan changes nothing"
    assert vault("heal", "--execute")[0] == 0
    (version,) = versions(client, store, name)
    at = {"Bucket": store.bucket, "Key": store.prefix + name, "VersionId": version}
    assert client.get_object(**at)["Body"].read() == data
    lock = client.get_object_retention(**at)["Retention"]
    assert lock["Mode"] == "GOVERNANCE"
    assert lock["RetainUntilDate"] >= paged.clock() + paged.open().parameters.ledger_span
    assert paged.open().head == head
    code, again = vault("heal")
    assert (code, again["heal"]["steps"]) == (0, [])
