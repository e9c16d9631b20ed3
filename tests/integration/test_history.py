"""Another history than the one known is refused (docs/design.md "Trust")."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from vault.ledger import remembered
from vault.ledger.envelope import Head
from vault.ledger.trust import HeadMemory
from vault.model import Digest
from vault.storage.base import ObjectVersion
from vault.storage.local import LocalStore

Vault: TypeAlias = Callable[..., tuple[int, str, str]]
VaultJson: TypeAlias = Callable[..., Any]


@pytest.fixture(autouse=True, params=["cold", "warm"])
def _memory(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether every statement that was verified is remembered, or none so few."""
    if request.param == "warm":
        monkeypatch.setattr(remembered, "WORTHWHILE", 1)


@pytest.fixture
def heads(
    vault: Vault, vault_json: VaultJson, repository: Path, source: Path, home: Path
) -> tuple[str, str]:
    """Heads of a ledger before and after a snapshot; the store is put back to before."""
    assert vault("snapshot", source, "--name", "data")[0] == 0
    older = vault_json("list")["head"]
    shutil.copytree(repository, home / "older", symlinks=True)
    assert vault("snapshot", source, "--name", "data")[0] == 0
    newer = vault_json("list")["head"]
    repository.rename(home / "newer")
    (home / "older").rename(repository)
    return older, newer


def test_an_older_history_than_the_one_seen_is_refused(
    vault: Vault, heads: tuple[str, str], source: Path
) -> None:
    """By every command that opens the repository; the hint names --accept-head."""
    for arguments in (["list"], ["snapshot", source, "--name", "data"], ["verify"]):
        code, _, err = vault(*arguments)
        assert code == 4
        assert heads[1] in err
        assert "--accept-head" in err


def test_accepting_a_head_is_recorded_in_the_ledger(
    vault: Vault, vault_json: VaultJson, heads: tuple[str, str], repository: Path
) -> None:
    """The writer signs a heartbeat that names it; from then on the ledger is believed."""
    import base64

    older, _ = heads
    found = vault_json("--accept-head", older, "list")
    seq = int(older.partition(":")[0]) + 1
    assert found["head"].startswith(f"{seq}:")
    envelope = json.loads((repository / f"ledger/{seq:016d}").read_bytes())
    statement = json.loads(base64.b64decode(envelope["payload"]))
    assert statement["predicateType"] == "urn:vault:heartbeat:v1"
    assert statement["predicate"]["body"]["accepted"] == older
    assert vault("list")[0] == 0


def test_without_a_writer_key_the_acceptance_is_only_noted(
    vault: Vault, heads: tuple[str, str], keys: Path
) -> None:
    """Accepted all the same; stderr says that it is not recorded."""
    (keys / "writer.key").unlink()
    code, _, err = vault("--accept-head", heads[0], "list")
    assert code == 0
    assert "not recorded" in err
    assert vault("list")[0] == 0


def test_a_head_that_the_ledger_does_not_contain_is_not_accepted(
    vault: Vault, heads: tuple[str, str]
) -> None:
    """Nothing is forgotten then."""
    assert vault("--accept-head", heads[1], "list")[0] == 4
    assert vault("list")[0] == 4


def test_a_trusted_head_is_a_floor(
    vault: Vault, heads: tuple[str, str], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine that never saw the repository is told by --trust."""
    monkeypatch.setenv("XDG_STATE_HOME", str(home / "fresh"))
    assert vault("--trust", heads[1], "list")[0] == 4
    assert vault("--trust", heads[0], "list")[0] == 0
    assert vault("--trust", heads[0], "--trust", heads[1], "list")[0] == 4


def test_another_root_than_the_pinned_one_is_refused(
    vault: Vault, repository: Path, source: Path, home: Path
) -> None:
    """--trust 0:DIGEST decides, whatever the key files say; they then don't fit."""
    assert vault("--trust", "0:" + 64 * "0", "--repo", repository, "list")[0] == 4
    code, out, _ = vault("--json", "init", "second", "--keys", "keys2", "--host", "other")
    assert code == 0
    root = json.loads(out)["repository"]["root"]
    there = ["--repo", "second", "--trust", root]
    assert vault(*there, "list")[0] == 0
    assert vault("--repo", "second", "list")[0] == 4
    assert vault(*there, "snapshot", source, "--name", "data")[0] == 12
    assert vault(*there, "key", "revoke", "other")[0] == 12
    assert vault("list")[0] == 0


def test_key_files_of_different_repositories_are_refused(
    vault: Vault, repository: Path, keys: Path
) -> None:
    """Which one is meant must not be guessed."""
    assert vault("init", "second", "--keys", "keys2")[0] == 0
    shutil.copy("keys2/root.key", keys / "root.key")
    code, _, err = vault("list")
    assert code == 2
    assert "different repositories" in err


def test_a_state_directory_that_cannot_be_written_is_a_warning(
    vault: Vault, repository: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An incident is no time to refuse a list for it."""
    monkeypatch.setenv("XDG_STATE_HOME", str(home / "fresh"))
    (home / "fresh/vault/heads.lock").mkdir(parents=True, mode=0o700)  # where a file must be
    code, _, err = vault("list")
    assert code == 0
    assert "not remembered" in err


def test_whoever_proves_something_reads_every_statement(
    vault: Vault, repository: Path, source: Path, home: Path
) -> None:
    """What was verified before is not enough for a proof: a changed statement is found by it."""
    for _ in range(2):
        assert vault("snapshot", source, "--name", "data")[0] == 0
    assert vault("list")[0] == 0
    statement = repository / f"ledger/{2:016d}"
    data = statement.read_bytes()
    statement.unlink()
    statement.write_bytes(data.replace(b'"sig":"M', b'"sig":"N'))
    for command in (["verify"], ["audit"], ["restore", "data", home / "target"]):
        assert vault(*command)[0] == 4, command
    assert not (home / "target").exists()


# --- commands of one host at the same time ---


@pytest.fixture
def known(vault: Vault, vault_json: VaultJson, repository: Path, source: Path) -> str:
    """The head of a ledger with a snapshot, which this host has seen."""
    assert vault("snapshot", source, "--name", "data")[0] == 0
    head: str = vault_json("list")["head"]
    return head


def _hide_newest(monkeypatch: pytest.MonkeyPatch, *, lasting: bool) -> list[str]:
    """The store's list lacks the newest statement; the names that were left out."""
    real = LocalStore.versions
    hidden: list[str] = []

    def versions(self: LocalStore, prefix: str, *, after: str = "") -> Iterator[ObjectVersion]:
        items = list(real(self, prefix, after=after))
        if prefix == "ledger/" and items and (lasting or not hidden):
            hidden.append(items.pop().name)
        return iter(items)

    monkeypatch.setattr(LocalStore, "versions", versions)
    return hidden


@pytest.mark.parametrize("command", [("list",), ("status",), ("verify", "--no-key"), ("audit",)])
def test_a_list_that_lags_behind_once_is_no_older_history(
    vault: Vault, known: str, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    """It is asked for again before anything is called tampering."""
    before = vault(*command)
    hidden = _hide_newest(monkeypatch, lasting=False)
    code, _, err = vault(*command)
    assert hidden, "the list was asked for"
    assert code == before[0], err
    assert "history" not in err


@pytest.mark.parametrize("command", [("list",), ("audit",)])
def test_a_list_that_lacks_it_for_good_is_an_older_history(
    vault: Vault, known: str, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    """Control."""
    hidden = _hide_newest(monkeypatch, lasting=True)
    code, out, err = vault(*command)
    assert code == 4
    assert "older history" in out + err
    assert len(hidden) > 1, "it was looked at twice"


def test_what_another_command_remembers_meanwhile_is_not_held_against_the_store(
    vault: Vault, known: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is remembered is recalled before the store is listed."""
    order: list[str] = []
    recall, versions = HeadMemory.recall, LocalStore.versions

    def noted_recall(self: HeadMemory, root: Digest) -> Head | None:
        order.append("recall")
        return recall(self, root)

    def noted_versions(self: LocalStore, prefix: str, *, after: str = "") -> Any:
        order.append("list")
        return versions(self, prefix, after=after)

    monkeypatch.setattr(HeadMemory, "recall", noted_recall)
    monkeypatch.setattr(LocalStore, "versions", noted_versions)
    assert vault("list")[0] == 0
    assert order[0] == "recall"
    order.clear()
    vault("audit")
    assert order[0] == "recall"
