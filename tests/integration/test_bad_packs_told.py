"""What `snapshot` and `verify` say of damaged packs, and how they end."""

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from tests.support.verifiers import distrust, list_verifier, say_bad
from vault.clock import utc_now
from vault.crypto.key_files import load_root
from vault.model import Digest
from vault.repository.repository import Repository
from vault.storage.choose_store import open_store
from vault.storage.names import is_pack

Vault: TypeAlias = Callable[..., tuple[int, str, str]]
VaultJson: TypeAlias = Callable[..., Any]


def flip(path: Path) -> None:
    """One bit in the middle, as a disk does."""
    subprocess.run(["chattr", "-f", "-i", str(path)], check=False)
    path.chmod(0o600)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.fixture
def damaged(vault: Vault, repository: Path, source: Path) -> str:
    """The id of the larger pack of a snapshot of `data`, which has a flipped bit."""
    assert vault("snapshot", source, "--name", "data")[0] == 0
    path = max((repository / "packs").rglob("*/*"), key=lambda path: path.stat().st_size)
    flip(path)
    return path.name


def test_a_replaced_pack_is_told_with_who_said_so(
    vault: Vault, vault_json: VaultJson, damaged: str, source: Path, home: Path
) -> None:
    """In text and JSON; one of two packs is many, so exit 3; the next run has nothing to tell."""
    assert vault("verify")[0] == 4
    fields = vault_json("snapshot", source, "--name", "data", code=3)
    (seq,) = [each["seq"] for each in vault_json("list")["snapshots"]][:1]
    assert fields["bad_packs"]["packs"] == [damaged]
    assert (fields["bad_packs"]["snapshot"], fields["bad_packs"]["of"]) == (seq, 2)
    (said,) = fields["bad_packs"]["said_by"]
    assert fields["bad_packs"]["many"]
    assert fields["failed_check"]["statement"] == said["statement"]
    code, out, err = vault("restore", "data", home / "back")
    assert code == 0, err
    code, out, err = vault("snapshot", source, "--name", "data")
    assert (code, "damaged" in out + err, "of data failed" in err) == (0, False, False)


def test_the_text_names_packs_and_teller(vault: Vault, damaged: str, source: Path) -> None:
    """A warning for people, and the count among the packs."""
    assert damaged
    assert vault("verify")[0] == 4
    code, out, err = vault("snapshot", source, "--name", "data")
    assert code == 3
    assert "1 of 2 packs that snapshot" in err
    assert "stored anew" in err
    assert "more than 5% of its packs" in err
    assert "1 damaged pack replaced" in out


def test_a_look_without_a_key_is_remembered_on_this_host(
    vault: Vault, vault_json: VaultJson, damaged: str, source: Path, keys: Path
) -> None:
    """Where nothing can be signed; a control without that look builds on the pack."""
    (keys / "recovery.key").rename(keys / "elsewhere")
    assert vault_json("snapshot", source, "--name", "data")["bad_packs"] is None
    assert vault("verify")[0] == 4
    fields = vault_json("snapshot", source, "--name", "data", code=3)
    assert fields["bad_packs"]["packs"] == [damaged]
    assert fields["bad_packs"]["said_by"] == [{"statement": None, "signer": None}]


def test_a_failed_check_is_warned_of_until_one_passes(
    vault: Vault, damaged: str, source: Path
) -> None:
    """Newer than the last good one; a passed verification of the new snapshot ends it."""
    assert damaged
    assert vault("verify")[0] == 4
    assert "verification of data failed" in vault("snapshot", source, "--name", "data")[2]
    assert vault("verify", "data@latest")[0] == 0
    assert "of data failed" not in vault("snapshot", source, "--name", "data")[2]


def test_a_verifiers_word_is_told_with_the_snapshots_it_concerns(
    vault: Vault, vault_json: VaultJson, repository: Path, source: Path, home: Path
) -> None:
    """By list, status and restore, before and after a root takes it back; restores go on."""
    for _ in range(2):
        assert vault("snapshot", source, "--name", "data")[0] == 0
    (home / "other").mkdir()
    (home / "other/file").write_bytes(b"another")
    assert vault("snapshot", home / "other", "--name", "other")[0] == 0
    first, second, third = (each["seq"] for each in vault_json("list")["snapshots"])
    root_key = load_root(home / "config/vault/root.key", b"correct horse")
    opened = Repository.open(
        open_store(str(repository)), Digest.parse(root_key.repository.root), clock=utc_now
    )
    verifier = list_verifier(opened, root_key)
    objects = opened.inventory(opened.ledger.records[first]).objects
    bad = [str(ref.sha256) for ref in objects if is_pack(ref.name)]
    seq = say_bad(opened, verifier, utc_now, [(first, first)], bad=bad).seq

    said = f"a verification by verifier {verifier.public.id[:16]} calls"
    concerned = f"snapshots {first}-{second} need some of them (ledger {seq})"
    code, out, err = vault("list")
    assert code == 0
    assert f"{said} {len(bad)} packs wrong, and {concerned}" in err
    assert out.count(f"called wrong by {seq}") == 2
    listed = vault_json("list")["snapshots"]
    assert [each["called_bad"] for each in listed] == [[seq], [seq], []]
    code, _, err = vault("status")
    assert concerned in err
    (word,) = vault_json("status")["called_bad"]
    assert (word["statement"], word["role"], word["packs"]) == (seq, "verifier", len(bad))
    assert (word["key"], word["snapshots"]) == (verifier.public.id, [first, second])
    code, _, err = vault("restore", "data", home / "back")
    assert (code, f"{said} packs wrong that snapshot {second} needs" in err) == (0, True)
    assert (home / "back/readme").read_bytes() == (source / "readme").read_bytes()
    code, _, err = vault("restore", str(third), home / "else")
    assert (code, "calls packs wrong" in err) == (0, False)

    distrust(opened, root_key, verifier)
    for command in (["list"], ["status"], ["restore", "data", home / "again"]):
        code, out, err = vault(*command)
        assert (code, "wrong" in err, "called wrong" in out) == (0, False, False), err
