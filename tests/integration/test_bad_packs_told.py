"""What `snapshot` and `verify` say of damaged packs, and how they end."""

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest

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
