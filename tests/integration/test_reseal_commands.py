"""`vault key reseal`, as people run it: a second recovery key, and what can't be done."""

import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.second_holder import add_holder_at

Run = Callable[..., tuple[int, str, str]]


@dataclasses.dataclass(frozen=True)
class Two:
    """A repository with one snapshot, and the key directories of its two holders."""

    store: Path
    first: Path
    second: Path
    id: str  # of the second recipient


@pytest.fixture
def two(home: Path, vault: Run, source: Path) -> Two:
    """The root lists bob as recipient and restorer after the first snapshot."""
    repo, first, second = home / "repo", home / "config/vault", home / "bob"
    assert vault("--repo", repo, "init", "--host", "web", "--lock", "none")[0] == 0
    assert vault("snapshot", source, "--name", "www")[0] == 0
    bob = add_holder_at(repo, first, second)
    return Two(repo, first, second, str(bob.recipient.id))


def test_the_second_key_restores_and_verifies_by_itself(
    two: Two, home: Path, vault: Run, vault_json: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a machine that has that key alone."""
    monkeypatch.setenv("VAULT_KEYS", str(two.second))
    code, _, err = vault("restore", "www", home / "early")
    assert code == 12
    assert "'vault key reseal'" in err
    code, out, _ = vault("audit")
    assert code == 0
    assert "not-resealed" in out
    monkeypatch.setenv("VAULT_KEYS", str(two.first))
    done = vault_json("key", "reseal", "--to", "bob")["reseal"]
    assert (done["recipient"], done["id"], done["sessions"]) == ("bob", two.id, 2)
    assert done["unopened"] == []
    seq = done["statements"][0]["seq"]
    monkeypatch.setenv("VAULT_KEYS", str(two.second))
    assert vault("restore", "www", home / "back")[0] == 0
    assert (home / "back/readme").read_text() == "read me\n"
    assert vault_json("verify")["verification"]["verdict"] == "passed"
    assert "not-resealed" not in vault("audit")[1]
    text = vault("show", str(seq))[1]
    assert f"seeds/{two.id}/" in text
    code, out, _ = vault("key", "reseal", "--to", "bob")
    assert code == 2
    monkeypatch.setenv("VAULT_KEYS", str(two.first))
    code, out, _ = vault("key", "reseal", "--to", two.id[:16], "--from", "99")
    assert code == 0
    assert "nothing" in out


@pytest.mark.parametrize(
    ("name", "text"),
    [("carol", "lists no recipient carol"), ("", "lists no recipient"), ("00" * 8, "lists no")],
)
def test_a_recipient_that_no_root_lists_is_refused(
    two: Two, vault: Run, name: str, text: str
) -> None:
    """With those that it lists."""
    code, _, err = vault("key", "reseal", "--to", name)
    assert (code, text in err, "bob" in err) == (2, True, True)


def test_what_could_not_be_opened_is_said(two: Two, vault: Run) -> None:
    """And ends with 3."""
    pack = next((two.store / "packs").glob("*/*"))
    pack.rename(two.store / "away")
    code, out, err = vault("key", "reseal", "--to", "bob")
    assert code == 3
    assert f"{pack.name} does not open" in err.replace("\n", "")
    assert "resealed" in out


def test_a_holder_who_left_is_told_that_a_key_is_missing_and_not_that_data_is_damaged(
    two: Two, vault: Run, vault_json: Any, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a snapshot that shares packs with older ones: some open, the newer ones do not."""
    home = two.store.parent
    assert vault("key", "reseal", "--to", "bob")[0] == 0
    propose = ["key", "root", "propose", "--recipient-remove", "bob", "--out", home / "next"]
    code, _, err = vault(*propose, "--yes")
    assert code == 0, err
    assert "still opens 1 snapshot of www" in err
    assert vault("key", "root", "apply", home / "next", "--yes")[0] == 0
    (source / "new").write_bytes(os.urandom(300_000))
    seq = vault_json("snapshot", source, "--name", "www")["snapshot"]["seq"]
    monkeypatch.setenv("VAULT_KEYS", str(two.second))
    for arguments in (
        ["ls", seq],
        ["cat", seq, "new"],
        ["restore", seq, home / "whole"],
        ["restore", seq, home / "part", "--include", "readme"],
        ["find", "new"],
    ):
        code, _, err = vault(*arguments)
        assert (code, "not sealed to this key" in err) == (12, True), (arguments, code, err)
    code, out, err = vault("verify", seq)
    assert "not opened" in out + err
    monkeypatch.setenv("VAULT_KEYS", str(two.first))
    bodies = {each["type"]: each["body"] for each in _log(vault)}
    assert bodies["restore"]["verdict"] == "inconclusive"


def _log(vault: Run) -> list[Any]:
    lines = vault("--json", "log")[1].splitlines()
    found = [json.loads(line)["statement"] for line in lines]
    return [each for each in found if each["type"] in {"restore", "verification"}]


def test_a_root_may_want_several_people_to_open_what_is_stored(
    two: Two, vault: Run, vault_json: Any, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without their agreement nothing is stored; it covers what was there when it was asked."""
    home = two.store.parent
    alice = "root,enroller,policy,pruner,restorer=alice"
    propose = ["key", "root", "propose", "--person", alice, "--person", "bob=bob"]
    wanted = ["--approval", "reseal=restorer:1", "--out", home / "next", "--yes"]
    code, _, err = vault(*propose, *wanted)
    assert code == 0, err
    assert vault("key", "root", "apply", home / "next", "--yes")[0] == 0
    code, _, err = vault("key", "reseal", "--to", "bob")
    assert (code, "the root wants people to approve reseal" in err) == (2, True), err
    file = home / "wish"
    ask = ["approve", "request", "reseal", "--to", "bob", "--reason", "a second safe"]
    asked = vault_json(*ask, "--out", file)["request"]
    code, _, err = vault("key", "reseal", "--to", "bob", "--warrant", file)
    assert (code, "not enough people have agreed" in err) == (2, True), err
    assert not (two.store / "seeds").exists()
    through = len(list((two.store / "ledger").iterdir())) - 1
    assert vault("snapshot", source, "--name", "later")[0] == 0
    uri = f"file:{two.second}/recovery.key#restorer"
    code, _, err = vault("approve", "sign", file, "--key", uri, "--yes")
    assert code == 0, err
    code, _, err = vault("key", "reseal", "--to", "bob", "--through", "2", "--warrant", file)
    assert code == 2, err  # another plan than people agreed to
    done = vault_json("key", "reseal", "--to", "bob", "--warrant", file)["reseal"]
    assert done["through"] == through
    assert asked["act"] == "reseal"
    monkeypatch.setenv("VAULT_KEYS", str(two.second))
    assert vault("restore", "www", home / "back")[0] == 0
    monkeypatch.setenv("VAULT_KEYS", str(two.first))
    code, _, err = vault("key", "reseal", "--to", "bob", "--warrant", file)
    assert (code, "used" in err) == (2, True), err  # a request acts once
