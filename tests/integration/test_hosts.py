"""Hosts as people add, limit and replace them: nothing is signed before it was shown."""

import json
import os
import pty
import select
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest

Vault: TypeAlias = Callable[..., tuple[int, str, str]]
VaultJson: TypeAlias = Callable[..., Any]
AskFor: TypeAlias = Callable[..., str]


@pytest.fixture
def there(keys: Path, repository: Path) -> list[str]:
    """How a host without key files names the repository."""
    root = json.loads((keys / "writer.key").read_bytes())["repository"]
    return ["--repo", root["url"], "--trust", f"0:{root['root']}"]


@pytest.fixture
def ask_for(vault_json: VaultJson, there: list[str], monkeypatch: pytest.MonkeyPatch) -> AskFor:
    """A request of a new host, NAME.request; gives its key."""

    def make(name: str, *datasets: str) -> str:
        patterns = [option for each in datasets for option in ("--dataset", each)]
        with monkeypatch.context() as patch:
            patch.setenv("VAULT_KEYS", f"keys-{name}")
            wish = ["--name", name, *patterns, "--out", f"{name}.request"]
            asked = vault_json(*there, "key", "request", *wish)["request"]
        return str(asked["key"])

    return make


def statements(repository: Path) -> list[str]:
    """Names in the ledger."""
    return sorted(path.name for path in (repository / "ledger").iterdir())


def on_a_terminal(arguments: list[str], *answers: tuple[bytes, bytes]) -> tuple[int, str]:
    """Run a command line on a terminal: answers to what it asks, by the end of the question."""
    child, terminal = pty.fork()
    if child == 0:
        os.environ["COLUMNS"] = "200"
        os.execv(sys.executable, [sys.executable, "-m", "cli.main", *arguments])
    shown = b""
    for question, answer in answers:
        while question not in b" ".join(shown.split()):
            ready, _, _ = select.select([terminal], [], [], 60)
            assert ready, shown
            shown += os.read(terminal, 4096)
        os.write(terminal, answer + b"\n")
    while True:
        try:
            more = os.read(terminal, 4096)
        except OSError:  # the other end is closed
            break
        if not more:
            break
        shown += more
    _, status = os.waitpid(child, 0)
    os.close(terminal)
    return os.waitstatus_to_exitcode(status), " ".join(shown.decode().split())


ENROL = b"Enrol it? [y/N]:"
LIMIT = b"(data) first? [y/N]:"


def test_all_is_shown_before_people_agree(
    vault: Vault, vault_json: VaultJson, repository: Path, source: Path, ask_for: AskFor
) -> None:
    """Host, key, patterns, domain and what overlaps; a no at any question signs nothing."""
    assert vault("snapshot", source, "--name", "data")[0] == 0
    key = ask_for("db", "db-*")
    before = statements(repository)
    add = ["key", "add", "db.request"]
    for answers in ([(LIMIT, b"n")], [(LIMIT, b"y"), (ENROL, b"n")], [(LIMIT, b"y"), (ENROL, b"")]):
        code, shown = on_a_terminal(add, *answers)
        assert code == 2
        assert "not confirmed; nothing was done" in shown
        assert statements(repository) == before
    question = shown.index("Limit first to what it has published")
    for fact in (
        "vault: host db",
        f"vault: key {key}",
        "vault: datasets db-*",
        "vault: domain db",
        "vault: overlap 'db-*' and '*' of first",
    ):
        assert 0 <= shown.find(fact) < question, (fact, shown)
    code, shown = on_a_terminal(add, (LIMIT, b"y"), (ENROL, b"y"))
    assert code == 0, shown
    listed = {each["name"]: each for each in vault_json("key", "list")["keys"]}
    assert listed["first"]["datasets"] == ["data"]
    assert listed["db"]["datasets"] == ["db-*"]
    assert listed["db"]["key"] == key
    assert vault("snapshot", source, "--name", "data")[0] == 0
    assert vault("snapshot", source, "--name", "other")[0] == 2


def test_a_script_names_the_key(vault: Vault, repository: Path, ask_for: AskFor) -> None:
    """The one of the request, 16 digits of it at least; else nothing is signed."""
    key = ask_for("db", "db-*")
    other = ask_for("web", "web-*")
    before = statements(repository)
    share = ["--share-datasets", "first"]
    for wrong in ([], ["--key", other], ["--key", key[:15]], ["--key", ""], ["--key", key.upper()]):
        code, _, err = vault("key", "add", "db.request", *share, *wrong)
        assert code == 2, err
        assert statements(repository) == before
    os.replace("web.request", "db.request")  # noqa: PTH105 - as a thief on the way does
    code, _, err = vault("key", "add", "db.request", *share, "--key", key)
    assert (code, "the request was exchanged on its way" in err) == (2, True)
    assert statements(repository) == before
    assert vault("key", "add", "db.request", *share, "--key", other[:16])[0] == 0


def test_overlaps_are_named_and_agreed_to(
    vault: Vault, vault_json: VaultJson, repository: Path, source: Path, ask_for: AskFor
) -> None:
    """A command with --key asks no question, so it limits no host; a failover pair says so."""
    assert vault("snapshot", source, "--name", "data")[0] == 0
    key = ask_for("pair", "*")
    code, _, err = vault("key", "add", "pair.request", "--key", key)
    assert code == 2
    assert "patterns overlap: '*' and '*' of first" in err
    assert "--share-datasets first lets both write them" in err
    code, _, err = vault("key", "add", "pair.request", "--key", key, "--dataset", "new-*")
    assert code == 2
    assert "'vault key limit first --dataset data' ends that" in err
    added = vault_json("key", "add", "pair.request", "--key", key, "--share-datasets", "first")
    assert added["key"]["datasets"] == ["*"]
    assert added["key"]["limited"] == []


@pytest.mark.parametrize("has_published", [False, True])
def test_where_no_limit_ends_an_overlap_people_are_asked_to_share(
    vault: Vault,
    vault_json: VaultJson,
    *,
    repository: Path,
    source: Path,
    ask_for: AskFor,
    has_published: bool,
) -> None:
    """It has published nothing, or just what overlaps: no host is limited to nothing."""
    if has_published:
        assert vault("snapshot", source, "--name", "db-1")[0] == 0
    ask_for("db", "db-*")
    share = b"May both write 'db-*' and '*' of first? [y/N]:"
    before = statements(repository)
    code, shown = on_a_terminal(["key", "add", "db.request"], (share, b"n"))
    assert (code, statements(repository)) == (2, before), shown
    code, shown = on_a_terminal(["key", "add", "db.request"], (share, b"y"), (ENROL, b"y"))
    assert code == 0, shown
    listed = {each["name"]: each for each in vault_json("key", "list")["keys"]}
    assert listed["first"]["datasets"] == ["*"]
    assert listed["db"]["datasets"] == ["db-*"]
    assert vault("snapshot", source, "--name", "db-2")[0] == 0


def test_a_host_gets_a_new_key_and_never_stops(
    vault: Vault,
    vault_json: VaultJson,
    *,
    repository: Path,
    source: Path,
    keys: Path,
    there: list[str],
) -> None:
    """It writes with the old key until the new one is enrolled, then with that, by itself."""
    assert vault("snapshot", source, "--name", "data")[0] == 0
    old = vault_json("key", "list")["keys"][-1]
    asked = vault_json("key", "request", "--rotate", "--out", "new.request")["request"]
    assert asked["replaces"] == old["key"]
    assert (asked["datasets"], asked["domain"]) == (["*"], "default")
    assert vault("snapshot", source, "--name", "data")[0] == 0
    waiting = keys / "writer.next.key"
    assert waiting.stat().st_mode & 0o777 == 0o600
    Path("new.request").unlink()
    again = vault_json("key", "request", "--rotate", "--out", "new.request")["request"]
    assert again["key"] == asked["key"]
    assert vault("key", "add", "new.request", "--key", asked["key"])[0] == 0
    code, _, err = vault("snapshot", source, "--name", "data")
    assert (code, waiting.exists()) == (0, False), err
    listed = vault_json("key", "list")["keys"][-2:]
    assert [each["key"] for each in listed] == [old["key"], asked["key"]]
    assert [each["revoked"] for each in listed] == [listed[1]["added"], None]
    assert (
        vault_json("log", "--type", "writer", str(listed[1]["added"]))["statement"]["body"][
            "replaces"
        ]
        == old["key"]
    )
    assert vault("restore", "data", "target")[0] == 0


@pytest.mark.parametrize(
    "options",
    [
        ["--rotate", "--name", "x"],
        ["--rotate", "--domain", "x"],
        ["--name", "x"],
        ["--dataset", "x"],
        [],
    ],
)
def test_a_request_that_is_neither_is_refused(
    vault: Vault, repository: Path, options: list[str]
) -> None:
    """A new host says name and patterns; a new key keeps name and domain."""
    assert vault("key", "request", *options, "--out", "r")[0] == 2
    assert not Path("r").exists()


# --- who published ---


def test_who_published_is_said_where_a_snapshot_is_listed_and_restored(
    vault: Vault, vault_json: VaultJson, repository: Path, source: Path
) -> None:
    """Host and key, in text, in JSON, and in what is attested."""
    assert vault("snapshot", source, "--name", "data")[0] == 0
    key = vault_json("key", "list")["keys"][-1]["key"]
    (listed,) = vault_json("list")["snapshots"]
    assert (listed["host"], listed["key"]) == ("first", key)
    assert f"first  {key[:16]}" in vault("list")[1]
    restored = vault_json("restore", "data", "target")["restore"]
    assert restored["publisher"] == {"host": "first", "key": key, "before": None}
    seq = restored["statement"].partition(":")[0]
    attested = vault_json("show", seq)["attestation"]
    assert attested["details"]["publisher"] == {"host": "first", "key": key}
    assert f"published  by first {key[:16]}" in vault("restore", "data", "second")[1]


def test_another_key_than_before_is_told(
    vault: Vault,
    vault_json: VaultJson,
    *,
    repository: Path,
    source: Path,
    ask_for: AskFor,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A warning where another host's key signed; a note where the host's key was rotated."""
    assert vault("snapshot", source, "--name", "data")[0] == 0
    pair = ask_for("pair", "data")
    assert vault("key", "add", "pair.request", "--key", pair, "--share-datasets", "first")[0] == 0
    with monkeypatch.context() as patch:
        patch.setenv("VAULT_KEYS", "keys-pair")
        assert vault("snapshot", source, "--name", "data")[0] == 0
        new = vault_json("key", "request", "--rotate", "--out", "new.request")["request"]["key"]
    code, _, err = vault("restore", "2", "t1")
    assert (code, "another key" in err) == (0, False)
    code, _, err = vault("restore", "data", "t2")
    assert code == 0
    assert "has another key than snapshot 2 of the same dataset, which first " in err
    share = ["--share-datasets", "first"]
    added = vault_json("key", "add", "new.request", "--key", new, *share)["key"]
    with monkeypatch.context() as patch:
        patch.setenv("VAULT_KEYS", "keys-pair")
        assert vault("snapshot", source, "--name", "data")[0] == 0
    code, out, err = vault("--json", "restore", "data", "t3")
    assert code == 0
    assert "another key" not in err
    assert f"the key of pair was rotated at {added['seq']}" in err
    before = json.loads(out)["restore"]["publisher"]["before"]
    assert (before["host"], before["key"], before["rotated_at"]) == ("pair", pair, added["seq"])


# --- incidents ---


@pytest.mark.parametrize("pattern", ["latest", "2024-logs", "9*", "-x", ".hidden", "_"])
def test_a_pattern_that_matches_no_dataset_is_refused(
    vault: Vault, repository: Path, there: list[str], pattern: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a new host and of a limit; else the host could never take a snapshot."""
    before = statements(repository)
    code, _, err = vault("key", "limit", "first", "--dataset", pattern)
    assert code == 2
    assert "matches no name that a dataset may have" in err
    monkeypatch.setenv("VAULT_KEYS", "keys-web")
    wish = ("--name", "web", f"--dataset={pattern}", "--out", "web.request")
    code, _, err = vault(*there, "key", "request", *wish)
    assert code == 2
    assert "matches no name that a dataset may have" in err
    assert statements(repository) == before


@pytest.mark.parametrize("reason", ["a\nb", "\x1b]0;owned\x07", "x" * 2_000])
def test_a_reason_that_is_no_line_of_text_is_refused_by_name(
    vault: Vault, repository: Path, reason: str
) -> None:
    """Before anything is signed."""
    before = statements(repository)
    for command in (("revoke", "first"), ("limit", "first", "--dataset", "d*")):
        code, _, err = vault("key", *command, "--reason", reason)
        assert code == 2
        assert "a reason is a line of text" in err
    assert statements(repository) == before


def test_a_revocation_begins_with_the_credentials_of_the_store(
    vault: Vault, repository: Path
) -> None:
    """In its first line, before anything is asked or opened."""
    code, _, err = vault("key", "revoke", "first")
    assert code == 0
    assert "first take away the store credentials of first" in err.splitlines()[0]


def test_a_hosts_credentials_are_its_own(vault: Vault, home: Path) -> None:
    """Else they can't be taken away from one host alone; what is printed stays plain JSON."""
    for role, is_first in (("writer", True), ("auditor", False)):
        code, out, err = vault("store", "iam", "s3://bucket/prefix", "--role", role)
        assert code == 0
        assert json.loads(out)["Statement"]
        assert ("credentials of its own" in err) is is_first
