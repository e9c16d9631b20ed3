"""From init to a proven restore, and what each step prints."""

import json
import os
import re
import resource
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from cli.commands import key_request
from vault.errors import StorageError
from vault.repository import enrolment
from vault.restore.restore_attempt import ENOUGH_FILES
from vault.storage.local import LocalStore
from vault.storage.names import ledger_name

Vault: TypeAlias = Callable[..., tuple[int, str, str]]
VaultJson: TypeAlias = Callable[..., Any]


# --- init ---


def test_init_makes_three_key_files_for_their_owner_alone(repository: Path, keys: Path) -> None:
    """The repository is there, and nobody else can read the keys."""
    assert repository.is_dir()
    found = {path.name: path.stat().st_mode & 0o777 for path in keys.iterdir()}
    assert found == {"writer.key": 0o600, "recovery.key": 0o600, "root.key": 0o600}


def test_init_of_an_existing_repository_names_its_digest(vault: Vault, repository: Path) -> None:
    """Exit 2 with the digest and the way in; nothing changes."""
    before = sorted(repository.rglob("*"))
    code, out, err = vault("init", repository)
    assert (code, out) == (2, "")
    assert re.search("found 0:[0-9a-f]{64}", err)
    assert "vault key request" in err
    assert sorted(repository.rglob("*")) == before


def test_init_finishes_one_that_was_killed(
    vault: Vault, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keys and root are there, the writer was not enrolled: the second run enrols it."""

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("vault.repository.enrolment.enrol_own_writer", killed)
        assert vault("init", "repository")[0] == 130
    code, _, err = vault("init", home / "repository")
    assert code == 0, err
    assert "finished" in err
    assert vault("snapshot", home / "passphrase", "--name", "data")[0] == 0
    assert vault("init", "repository")[0] == 2


def test_init_of_compliance_asks_first(vault: Vault) -> None:
    """Without a terminal and --yes: exit 2, and the date is named; nothing is made."""
    code, _, err = vault("init", "repository", "--lock", "compliance")
    assert code == 2
    assert re.search("can't be removed before [0-9]{4}-[0-9]{2}-[0-9]{2}", err)
    assert not Path("repository").exists()
    assert vault("init", "repository", "--lock", "compliance", "--yes")[0] == 0


def test_init_refuses_a_default_over_the_maximum(vault: Vault) -> None:
    """--retain must lie between the minimum lock and --max-retain."""
    code, _, err = vault("init", "repository", "--retain", "60d", "--max-retain", "30d")
    assert code == 2
    assert "7d to 30d, found 60d" in err


# --- snapshot and list ---


def test_a_snapshot_is_listed(vault_json: VaultJson, repository: Path, source: Path) -> None:
    """What snapshot prints is what list shows; that alone looks for words on its packs."""
    taken = vault_json("snapshot", source, "--name", "data", "--retain", "60d")["snapshot"]
    listed = vault_json("list")["snapshots"]
    assert listed == [taken | {"called_bad": []}]
    assert taken["host"] == "first"
    assert taken["counts"]["files"] == 3
    assert vault_json("list", "data")["snapshots"] == listed


def test_list_needs_no_secret(
    vault: Vault, repository: Path, source: Path, keys: Path, home: Path
) -> None:
    """Address and root digest are enough."""
    _, _, _ = vault("snapshot", source, "--name", "data")
    root = json.loads((keys / "writer.key").read_bytes())["repository"]["root"]
    keys.rename(home / "elsewhere")
    code, out, _ = vault("--repo", repository, "--trust", f"0:{root}", "list")
    assert code == 0
    assert "data" in out
    code, _, err = vault("--repo", repository, "list")
    assert code == 2
    assert "--trust 0:DIGEST" in err


def test_snapshot_warns_while_the_keys_lie_together(
    vault: Vault, repository: Path, source: Path, keys: Path
) -> None:
    """Advice on stderr, exit 0; silent once they are gone."""
    code, _, err = vault("snapshot", source, "--name", "data")
    assert code == 0
    assert "recovery.key and root.key" in err
    (keys / "recovery.key").unlink()
    (keys / "root.key").unlink()
    assert vault("snapshot", source, "--name", "data")[2] == ""


def test_strict_makes_changed_files_an_exit_code(
    vault: Vault, repository: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that changed while it was read: 0, with --strict 3; both are published."""
    import dataclasses

    import cli.commands.snapshot
    from vault.snapshot import Problem
    from vault.snapshot import take_snapshot as real

    def changing(*arguments: Any, **options: Any) -> Any:
        problem = Problem(path=b"a\x1b[31m\n", kind="changed", detail="")
        return dataclasses.replace(real(*arguments, **options), problems=(problem,))

    monkeypatch.setattr(cli.commands.snapshot, "take_snapshot", changing)
    code, _, err = vault("snapshot", source, "--name", "data")
    assert code == 0
    assert r"changed: a\x1b[31m\x0a" in err
    assert vault("snapshot", source, "--name", "data", "--strict")[0] == 3


# --- restore ---


@pytest.fixture
def taken(vault: Vault, repository: Path, source: Path) -> Path:
    """The source, with a snapshot of it as dataset data."""
    assert vault("snapshot", source, "--name", "data")[0] == 0
    return source


def contents(top: Path) -> dict[str, str]:
    """Every file below a directory."""
    return {
        str(path.relative_to(top)): path.read_text() for path in top.rglob("*") if path.is_file()
    }


def test_restore_says_recovered_after_it_was_attested(vault: Vault, taken: Path) -> None:
    """The content is back, and the ledger has the restore; this machine has seen its head."""
    code, out, err = vault("restore", "data", "target")
    assert code == 0, err
    assert "recovered" in out
    assert "not proven newest" not in err
    assert contents(Path("target")) == contents(taken)


def test_a_cold_machine_doubts_what_no_trusted_head_vouches_for(
    vault: Vault, vault_json: VaultJson, taken: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """--trust names a head that must be there; without it that is said once."""
    head = vault_json("list")["head"]
    monkeypatch.setenv("XDG_STATE_HOME", str(home / "cold"))
    code, _, err = vault("--trust", head, "restore", "data", "target")
    assert (code, "not proven newest" in err) == (0, False)
    monkeypatch.setenv("XDG_STATE_HOME", str(home / "colder"))
    code, _, err = vault("restore", "data", "again")
    assert (code, err.count("not proven newest"), "--trust" in err) == (0, 1, True)


def test_a_full_target_needs_replace_and_can_be_undone(vault: Vault, taken: Path) -> None:
    """Exit 2 first; then exchanged, back, and final."""
    target = Path("target")
    target.mkdir()
    (target / "mine").write_text("mine")
    assert vault("restore", "data", target)[0] == 2
    assert contents(target) == {"mine": "mine"}
    assert vault("restore", "data", target, "--replace")[0] == 0
    assert contents(target) == contents(taken)
    assert vault("restore", "--undo", target)[0] == 0
    assert contents(target) == {"mine": "mine"}
    assert vault("restore", "--finalize", target)[0] == 0
    assert contents(target) == contents(taken)
    assert not list(Path().glob(".target*"))


def test_what_lies_beside_a_target_is_named_and_left(vault: Vault, taken: Path, home: Path) -> None:
    """Without a journal it may be a former state; scratch files are nobody's any more."""
    (home / ".target.vault-0123abcd").mkdir()
    (home / "cache/vault/scratch/killed").mkdir(parents=True)
    code, _, err = vault("restore", "data", "target")
    assert code == 0
    assert ".target.vault-0123abcd is of a restore that this user has no journal of" in err
    assert list((home / "cache/vault/scratch").iterdir()) == []
    for way in ("--undo", "--finalize"):
        code, _, err = vault("restore", way, "target")
        assert code == 2
        assert "left alone" in err
    assert (home / ".target.vault-0123abcd").exists()
    assert (home / "target/readme").exists()


def test_include_restores_only_what_matches(vault: Vault, taken: Path) -> None:
    """The outcome is what was asked for, and says so."""
    code, out, _ = vault("restore", "data", "target", "--include", "etc/")
    assert code == 0
    assert "recovered (selection)" in out
    assert set(contents(Path("target"))) == {"etc/hosts"}


def test_a_dry_run_makes_nothing(vault: Vault, taken: Path) -> None:
    """Planned is what it says."""
    code, out, _ = vault("restore", "data", "target", "--dry-run")
    assert code == 0
    assert "planned" in out
    assert not Path("target").exists()


def test_restore_never_touches_the_vaults_own_places(
    vault: Vault, taken: Path, repository: Path, keys: Path
) -> None:
    """Neither the repository nor the keys are a target."""
    for place in (repository, keys):
        assert vault("restore", "data", place, "--replace")[0] == 2
    assert vault("list")[0] == 0


@pytest.mark.parametrize(
    "arguments", [["data"], ["--undo", "a", "b"], ["--undo", "--finalize", "a"], []]
)
def test_wrong_arguments_of_restore_are_a_usage_error(
    vault: Vault, repository: Path, arguments: list[str]
) -> None:
    """Nothing is guessed."""
    assert vault("restore", *arguments)[0] == 2


# --- verify, checksums, attestations, index ---


def test_verify_with_the_recovery_key_is_attested(
    vault: Vault, vault_json: VaultJson, taken: Path
) -> None:
    """The ledger grows by one; without the key it does not."""
    before = int(vault_json("list")["head"].partition(":")[0])
    found = vault_json("verify")["verification"]
    assert found["verdict"] == "passed"
    assert found["chunks"] > 0
    assert found["statement"].startswith(f"{before + 1}:")
    found = vault_json("verify", "--no-key")["verification"]
    assert (found["chunks"], found["statement"]) == (0, None)


def test_an_unrecorded_verification_is_kept_and_pushed_later(
    vault: Vault, taken: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store that can't be written: exit 3, a file here; `attest push` records it, once."""
    from vault.errors import StorageError
    from vault.repository.repository import Repository

    def refuse(*_: object, **__: object) -> None:
        raise StorageError("read only")

    with monkeypatch.context() as patch:
        patch.setattr(Repository, "append", refuse)
        code, _, err = vault("verify")
    assert code == 3
    assert "attest push" in err
    (file,) = (home / "state/vault/attestations").iterdir()
    code, first, _ = vault("attest", "push", file)
    assert code == 0
    assert "verification, passed" in first
    assert vault("attest", "push", file)[1] == first
    (home / "junk").write_text("no attestation")
    code, _, err = vault("attest", "push", "junk")
    assert code == 4
    assert "vault: error: junk: not strict JSON" in err


def test_checksums_satisfy_sha256sum(vault: Vault, taken: Path, home: Path) -> None:
    """Hard links and names with line ends too."""
    (taken / "two\nlines").write_text("x")
    assert vault("snapshot", taken, "--name", "data")[0] == 0
    code, out, _ = vault("export-checksums", "data")
    assert code == 0
    assert len(out.splitlines()) == 4
    (home / "sums").write_text(out)
    subprocess.run(["sha256sum", "--check", "--quiet", home / "sums"], cwd=taken, check=True)


def test_index_rebuild_counts_packs(vault_json: VaultJson, taken: Path) -> None:
    """A data pack and a tree pack."""
    assert vault_json("index", "rebuild")["index"] == {"packs": 2}


# --- further hosts ---


def test_a_second_host_joins_writes_and_is_revoked(
    vault: Vault, vault_json: VaultJson, taken: Path, keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Request there, add here; it writes what it may; after the revocation nothing."""
    root = json.loads((keys / "writer.key").read_bytes())["repository"]
    there = ["--repo", root["url"], "--trust", f"0:{root['root']}"]
    with monkeypatch.context() as patch:
        patch.setenv("VAULT_KEYS", "host2")
        asked = vault_json(
            *there, "key", "request", "--name", "web", "--dataset", "web-*", "--out", "request"
        )["request"]
        assert vault("snapshot", taken, "--name", "web-1")[0] == 12
    assert vault("snapshot", taken, "--name", "data")[0] == 0
    assert vault("key", "limit", "first", "--dataset", "data")[0] == 0
    added = vault_json("key", "add", "request", "--key", asked["key"])["key"]
    assert added["key"] == asked["key"]
    with monkeypatch.context() as patch:
        patch.setenv("VAULT_KEYS", "host2")
        assert vault("snapshot", taken, "--name", "web-1")[0] == 0
        assert vault("snapshot", taken, "--name", "data")[0] == 2
    assert vault("key", "revoke", "web", "--reason", "gone")[0] == 0
    listed = {key["name"]: key for key in vault_json("key", "list")["keys"]}
    assert listed["web"]["revoked"] > listed["web"]["added"]
    with monkeypatch.context() as patch:
        patch.setenv("VAULT_KEYS", "host2")
        assert vault("snapshot", taken, "--name", "web-1")[0] == 12


def test_distrust_voids_what_a_stolen_key_wrote(
    vault: Vault, vault_json: VaultJson, taken: Path
) -> None:
    """The snapshot is no longer listed, and that is reported."""
    number = vault_json("list")["snapshots"][0]["seq"]
    assert vault("key", "revoke", "first", "--distrust-from", number)[0] == 0
    code, out, err = vault("list")
    assert code == 0
    assert " data " not in out
    assert f"ledger {number}" in err


def test_a_void_snapshot_is_restored_by_its_number_and_the_attestation_says_so(
    vault: Vault, vault_json: VaultJson, taken: Path, tmp_path: Path
) -> None:
    """A distrusted host's snapshot may be the only one; a restore takes it only with --void."""
    number = vault_json("list")["snapshots"][0]["seq"]
    assert vault("key", "revoke", "first", "--distrust-from", number)[0] == 0
    target = str(tmp_path / "back")
    code, _, err = vault("restore", str(number), target)
    assert (code, "--void" in err, Path(target).exists()) == (4, True, False)
    assert vault("restore", "--void", "data", target)[0] == 2, "never by its dataset"
    code, _, err = vault("restore", "--void", str(number), target)
    assert (code, "does not count" in err) == (0, True), err
    shown = vault_json("show", str(vault_json("list")["head"].partition(":")[0]))
    assert "distrusted" in shown["attestation"]["details"]["void"]


def test_sharing_a_domain_must_be_agreed_to(
    vault: Vault, vault_json: VaultJson, taken: Path, keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hosts of a domain trust each other; --share-domain says so."""
    root = json.loads((keys / "writer.key").read_bytes())["repository"]
    there = ["--repo", root["url"], "--trust", f"0:{root['root']}"]
    wish = ["--name", "web", "--dataset", "*", "--domain", "default", "--out", "request"]
    with monkeypatch.context() as patch:
        patch.setenv("VAULT_KEYS", "host2")
        key = vault_json(*there, "key", "request", *wish)["request"]["key"]
    agreed = ["key", "add", "request", "--key", key, "--share-datasets", "first"]
    assert vault(*agreed)[0] == 2
    assert vault(*agreed, "--share-domain", "default")[0] == 0


@pytest.mark.parametrize("saved", ["save_writer", "save_request"])
def test_a_request_that_was_killed_can_be_repeated(
    vault: Vault,
    vault_json: VaultJson,
    *,
    repository: Path,
    keys: Path,
    monkeypatch: pytest.MonkeyPatch,
    saved: str,
) -> None:
    """After either of its files; the same key is asked for. Another's name is another request."""
    root = json.loads((keys / "writer.key").read_bytes())["repository"]
    there = ["--repo", root["url"], "--trust", f"0:{root['root']}"]
    wish = ["key", "request", "--dataset", "web-*", "--out", "request", "--name"]
    real = getattr(key_request, saved)

    def save(*arguments: object) -> None:
        real(*arguments)
        os._exit(9)

    monkeypatch.setenv("VAULT_KEYS", "host2")
    child = os.fork()
    if not child:
        monkeypatch.setattr(key_request, saved, save)
        vault(*there, *wish, "web")
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    secret = Path("host2/writer.key").read_bytes()
    code, _, err = vault(*there, *wish, "other")
    assert (code, "has a key already" in err) == (2, True)
    asked = vault_json(*there, *wish, "web")["request"]["key"]
    assert Path("host2/writer.key").read_bytes() == secret
    monkeypatch.setenv("VAULT_KEYS", str(keys))
    added = vault_json("key", "add", "request", "--key", asked, "--share-datasets", "first")
    assert added["key"]["name"] == "web"
    monkeypatch.setenv("VAULT_KEYS", "host2")
    assert vault(*there, *wish, "web")[0] == 2  # enrolled: no request of it any more


@pytest.mark.parametrize("at", ["save_recovery", "save_writer", "_publish_root"])
def test_an_init_that_fails_can_be_repeated(
    vault: Vault, home: Path, keys: Path, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    """No key file is left; those that were there before stay as they are."""

    def fail(*_: object, **__: object) -> None:
        raise StorageError("no room")

    keys.mkdir(parents=True)
    (keys / "other.key").write_text("another's")
    with monkeypatch.context() as patch:
        patch.setattr(enrolment, at, fail)
        code, _, err = vault("init", home / "repository", "--host", "first")
        assert code == 13, err
    assert [path.name for path in keys.iterdir()] == ["other.key"]
    code, _, err = vault("init", home / "repository", "--host", "first")
    assert code == 0, err
    assert len(list(keys.iterdir())) == 4


@pytest.mark.parametrize("why", ["a key file is there", "no label", "keys can't be made"])
def test_a_refused_init_leaves_no_directory(vault: Vault, home: Path, keys: Path, why: str) -> None:
    """Neither its own nor parents that it made; one that was there before stays."""
    keys.mkdir(parents=True)
    if why == "a key file is there":
        assert vault("init", home / "first", "--host", "first")[0] == 0
    elif why == "keys can't be made":
        keys.rmdir()
        keys.write_text("in the way")
    host = "No Label" if why == "no label" else "first"
    (home / "mine").mkdir()
    for place, left in ((home / "made/deep/repository", home / "made"), (home / "mine", None)):
        code, _, err = vault("init", place, "--host", host)
        assert code in {2, 14}, err
        if left is not None:
            assert not left.exists()
    assert list((home / "mine").iterdir()) == []


def test_an_init_whose_root_is_there_keeps_its_keys(
    vault: Vault, home: Path, keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer was lost, not the PUT: the next init finishes it."""
    put = LocalStore.put

    def fall_silent(store: LocalStore, name: str, *rest: Any, **options: Any) -> None:
        put(store, name, *rest, **options)
        if name == ledger_name(0):
            raise StorageError("no answer")

    with monkeypatch.context() as patch:
        patch.setattr(LocalStore, "put", fall_silent)
        assert vault("init", home / "repository", "--host", "first")[0] == 13
    assert len(list(keys.iterdir())) == 3
    code, _, err = vault("init", home / "repository", "--host", "first")
    assert code == 0, err


def test_a_request_that_fails_leaves_neither_file(
    vault: Vault, repository: Path, keys: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that it can simply be made again."""
    root = json.loads((keys / "writer.key").read_bytes())["repository"]
    there = ["--repo", root["url"], "--trust", f"0:{root['root']}"]
    (home / "file").touch()
    monkeypatch.setenv("VAULT_KEYS", str(home / "file/keys"))
    wish = ["--name", "web", "--dataset", "*", "--out", "request"]
    assert vault(*there, "key", "request", *wish)[0] == 14
    assert not Path("request").exists()


@pytest.mark.parametrize("count", [300, ENOUGH_FILES])
def test_a_restore_gets_by_with_few_descriptors(
    vault: Vault,
    repository: Path,
    home: Path,
    process: Callable[..., "subprocess.Popen[str]"],
    count: int,
) -> None:
    """Of many small files, all of which are read back; also where processes share them."""
    (home / "many").mkdir()
    for number in range(count):
        (home / "many" / str(number)).write_text(str(number))
    assert vault("snapshot", home / "many", "--name", "many")[0] == 0

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))

    _, err = (run := process("restore", "many", home / "out", preexec_fn=limit)).communicate()
    assert run.returncode == 0, err
    assert len(list((home / "out").iterdir())) == count


def test_a_ledger_that_is_gone_is_no_place_for_a_new_one(
    vault: Vault, repository: Path, source: Path
) -> None:
    """Where a head is known, no hint says to make a repository; a missing root is damage."""
    assert vault("snapshot", source, "--name", "data")[0] == 0
    ledger, aside = repository / "ledger", repository / "aside"
    root = ledger / "0000000000000000"
    root.rename(repository / "root")
    code, _, err = vault("list")
    assert code == 4
    assert "statement 0 is missing" in err
    assert "make nothing anew" in err
    (repository / "root").rename(root)
    ledger.rename(aside)
    code, _, err = vault("list")
    assert code == 10
    assert "known here up to statement" in err
    assert "vault init" not in err
    aside.rename(ledger)
    assert vault("list")[0] == 0
