"""Commands whose keys are in a token: a host's and each role's; what goes wrong with one."""

import dataclasses
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.tokens import MODULE, PIN, SoftToken
from vault.clock import utc_now
from vault.crypto.key_files import load_root
from vault.crypto.token_uri import TokenUri
from vault.crypto.tokens import TokenKey
from vault.encoding import b64encode
from vault.ledger.statements import PublicKey, RootBody
from vault.model import Digest, replace_body
from vault.repository.append_statements import Draft
from vault.repository.repository import Repository
from vault.storage.choose_store import open_store


@pytest.fixture
def ready(home: Path, vault: Any, token: SoftToken) -> Path:
    """A repository whose root lists the token's enroller and restorer beside those in files."""
    assert vault("--repo", home / "repo", "init", "--host", "web", "--lock", "none")[0] == 0
    keys = home / "config/vault"
    root_key = load_root(keys / "root.key", b"correct horse")
    repository = Repository.open(
        open_store(str(home / "repo")), Digest.parse(root_key.repository.root), clock=utc_now
    )
    added = [
        PublicKey(name=f"token-{role}", public=b64encode(_public(token, role)), roles=(role,))
        for role in ("enroller", "restorer")
    ]
    root = repository.ledger.root
    body: RootBody = replace_body(root, version=root.version + 1, keys=(*root.keys, *added))
    draft = Draft(type="root", subject=[("repository", Digest.of(repository.id))], body=body)
    repository.append(lambda _: draft, [root_key.root], tool="vault test")
    return keys


def _public(token: SoftToken, label: str) -> bytes:
    return TokenKey(TokenUri.parse(token.uri(label)), PIN.encode()).public.der


@dataclasses.dataclass
class _Machine:
    """One user with a directory of keys; gives what commands print with ``--json``."""

    vault_json: Any
    monkeypatch: pytest.MonkeyPatch

    def __call__(self, keys: Path, line: str, *more: object) -> Any:
        self.monkeypatch.setenv("VAULT_KEYS", str(keys))
        return self.vault_json(*line.split(), *more)


@pytest.fixture
def at(vault_json: Any, monkeypatch: pytest.MonkeyPatch) -> _Machine:
    """Runs a command with the keys in a directory."""
    return _Machine(vault_json, monkeypatch)


def test_a_host_and_the_roles_sign_through_a_token(
    ready: Path, home: Path, at: _Machine, token: SoftToken, source: Path
) -> None:
    """Enrolled, limited, rotated, restored from, while root.key is elsewhere."""
    root, host = ready / "root.key", home / "host"
    pinned = load_root(root, b"correct horse").repository.root
    root.rename(home / "root.key")  # the token's enroller takes its place
    ask = f"key request --out {home}/1 --token {token.uri('writer')} --name db --dataset db-*"
    made = at(host, f"--repo {home}/repo --trust 0:{pinned} {ask}")["request"]
    text = (host / "writer.key").read_text()
    assert "object=writer" in text
    assert PIN not in text
    agreed = "--share-datasets web"
    signer = f"enroller={token.uri('enroller')}"
    added = at(ready, f"--signer {signer} key add {home}/1 --key {made['key']} {agreed}")
    assert added["key"]["key"] == made["key"]
    at.monkeypatch.setenv("VAULT_SIGNERS", signer)  # by the environment too
    at(ready, f"key limit db --dataset db-1 {agreed}")
    taken = at(host, "snapshot --name db-1", source)["snapshot"]
    rotate = f"key request --rotate --token {token.uri('next')} --out {home}"
    rotated = at(host, f"{rotate}/2")["request"]
    again = at(host, f"{rotate}/3")["request"]  # as after a kill: the same key once more
    assert again["key"] == rotated["key"] != made["key"]
    at(ready, f"key add {home}/2 --key {rotated['key']} {agreed}")
    at(host, "snapshot --name db-1", source)
    assert "object=next" in (host / "writer.key").read_text()
    at.monkeypatch.setenv("VAULT_SIGNERS", f"restorer={token.uri('restorer')}")
    at(ready, f"restore {taken['seq']} {home}/back")
    assert (home / "back/readme").read_text() == "read me\n"
    listed = {each["name"]: each["key"] for each in at(ready, "key list")["keys"]}
    last = at(ready, "log --type restore")["statement"]
    assert [each["key"] for each in last["signers"]] == [listed["token-restorer"]]
    assert at(ready, "audit")["audit"]["verdict"] == "passed; packs not read"


@pytest.mark.parametrize(
    "wrong",
    [
        ("enroller={uri}", 0, ""),
        ("enroller={nowhere}", 12, "no such token"),
        ("enroller={absent}", 12, "no such private key"),
        ("enroller={p384}", 12, "another curve"),
        ("enroller={badpin}", 12, "refuses the PIN"),
        ("enroller={nopin}", 12, "can't be read"),
        ("enroller={asks}", 12, "no terminal"),
        ("enroller={nomodule}", 2, "can't be loaded"),
        ("enroller={inline}", 2, "holds the PIN itself"),
        ("enroller={other}", 12, "may not sign as enroller"),
        ("enroller=file:{keys}/root.key#enroller", 0, ""),
        ("enroller=file:{keys}/root.key#policy", 12, "may not sign as enroller"),
        ("enroller=file:{keys}/none.key#enroller", 12, "no key file"),
        ("enroller=http://x", 2, "file:PATH#ROLE or pkcs11:"),
        ("boss={uri}", 2, "names no role"),
        ("{uri}", 2, "names no role"),
    ],
)
def test_what_is_wrong_with_a_signer_ends_the_command(
    ready: Path, vault: Any, token: SoftToken, wrong: tuple[str, int, str]
) -> None:
    """With one error, which never shows the PIN; nothing is signed."""
    signer, code, text = wrong
    pin = ready / "pin"
    pin.write_text("guessed")
    pin.chmod(0o600)
    uri = token.uri("enroller")
    bare = token.uri("enroller", asks=True)
    filled = signer.format(
        uri=uri,
        nowhere=uri.replace("vault%20test", "nowhere"),
        absent=uri.replace("object=enroller", "object=absent"),
        p384=uri.replace("object=enroller", "object=p384"),
        other=uri.replace("object=enroller", "object=pruner"),
        badpin=f"{bare}&pin-source=file:{pin}",
        nopin=f"{bare}&pin-source=file:{ready}/none",
        asks=bare,
        nomodule=uri.replace(str(MODULE), "/usr/lib/none.so"),
        inline=f"{bare}&pin-value={PIN.replace(' ', '%20')}",
        keys=ready,
    )
    before = vault("--json", "log")[1]
    found, out, err = vault("--signer", filled, "key", "limit", "web", "--dataset", "w-*")
    assert (found, text in err) == (code, True), err
    assert PIN not in (out + err)
    assert "guessed" not in out + err
    assert (vault("--json", "log")[1] != before) == (code == 0)


def test_a_missing_extra_is_named(
    ready: Path, vault: Any, token: SoftToken, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the command that needs it; others go on without."""
    monkeypatch.setitem(sys.modules, "pkcs11", None)
    signer = ["--signer", f"enroller={token.uri('enroller')}"]
    code, _, err = vault(*signer, "key", "limit", "web", "--dataset", "w-*")
    assert code == 2
    assert "pip install 'vault-backup[pkcs11]'" in err
    assert vault(*signer, "key", "list")[0] == 0
