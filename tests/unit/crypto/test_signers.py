"""Signers by URI: which key each names, and what is no signer."""

from pathlib import Path
from typing import Any

import pytest

from tests.support.lab import Lab
from tests.support.tokens import PIN, SoftToken
from vault.crypto.key_file_bytes import Argon2Cost
from vault.crypto.key_files import save_recovery, save_root, save_writer
from vault.crypto.keys import Signer
from vault.crypto.signers import FileUri, open_signer, parse_signer
from vault.errors import ConfigError, VaultError, WrongKeyError

SECRET = b"correct horse"
CHEAP = Argon2Cost(memory=64, iterations=1, lanes=1)


def opened(text: str, secret: bytes = SECRET) -> Signer:
    """The signer, with what a person would type."""
    return open_signer(parse_signer(text), passphrase=lambda _: secret, pin=lambda _: PIN.encode())


@pytest.fixture
def keys(lab: Lab, tmp_path: Path) -> Path:
    """A directory with the three key files."""
    save_root(tmp_path / "root.key", lab.root_key, SECRET, cost=CHEAP)
    save_recovery(tmp_path / "recovery.key", lab.recovery, SECRET, cost=CHEAP)
    save_writer(tmp_path / "writer.key", lab.host.key)
    return tmp_path


def test_each_role_of_each_key_file_signs(lab: Lab, keys: Path) -> None:
    """The key that the file has for it."""
    expected = {
        "root.key#root": lab.root_key.root,
        "root.key#enroller": lab.root_key.enroller,
        "root.key#policy": lab.root_key.policy,
        "root.key#pruner": lab.root_key.pruner,
        "recovery.key#restorer": lab.recovery.restorer,
        "writer.key#writer": lab.host.key.signing,
    }
    for name, key in expected.items():
        signer = opened(f"file:{keys}/{name}")
        assert signer.public == key.public
        assert key.public.verify(signer.sign(b"message"), b"message")


def test_a_key_in_a_token_signs(token: SoftToken) -> None:
    """By the same function."""
    signer = opened(token.uri("policy"))
    assert signer.public.verify(signer.sign(b"message"), b"message")


@pytest.mark.parametrize(
    ("name", "kind", "text"),
    [
        ("root.key#restorer", WrongKeyError, "no key of the role restorer"),
        ("writer.key#root", WrongKeyError, "no key of the role root"),
        ("recovery.key#verifier", WrongKeyError, "no key of the role verifier"),
        ("absent.key#root", WrongKeyError, "no key file"),
    ],
)
def test_a_role_that_a_file_lacks_is_told(
    keys: Path, name: str, kind: type[VaultError], text: str
) -> None:
    """With the file and what it has."""
    with pytest.raises(kind, match=text):
        opened(f"file:{keys}/{name}")


def test_a_wrong_passphrase_is_told(keys: Path) -> None:
    """As of any sealed file."""
    with pytest.raises(WrongKeyError):
        opened(f"file:{keys}/root.key#root", b"another")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "file:",
        "file:#root",
        "file:x",
        "file:x#",
        "x#root",
        "awskms:///1",
        "file:\0#root",
        "root",
    ],
)
def test_what_is_no_signer_is_refused(text: str) -> None:
    """The error says which forms there are."""
    with pytest.raises(ConfigError, match="file:PATH#ROLE"):
        parse_signer(text)


def test_a_path_may_hold_any_character() -> None:
    """The role is what follows the last `#`."""
    found: Any = parse_signer("file:/a b/%41#1/root.key#root")
    assert found == FileUri(Path("/a b/%41#1/root.key"), "root")
    assert str(found) == "file:/a b/%41#1/root.key#root"
