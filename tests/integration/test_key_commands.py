"""Keys, roles and roots by commands: what is refused, what is asked, what comes of it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest

Vault: TypeAlias = Callable[..., tuple[int, str, str]]
VaultJson: TypeAlias = Callable[..., Any]

PEOPLE = "root,enroller,policy,pruner,restorer=ann"


@pytest.fixture(autouse=True)
def _repository(repository: Path) -> None:
    """Every test has one."""


@pytest.fixture
def bob(vault: Vault) -> Path:
    """A root key that another person made; its public file lies beside it."""
    assert vault("key", "new", "--role", "root", "--out", "bob.key", "--public", "bob.pub")[0] == 0
    return Path("bob.key")


def _propose(vault: Vault, *options: object) -> tuple[int, str, str]:
    Path("next.root").unlink(missing_ok=True)
    return vault("key", "root", "propose", *options, "--out", "next.root", "--yes")


def test_a_root_of_two_keys_on_one_machine(vault: Vault, bob: Path) -> None:
    """Both thresholds: alone it is refused and says who lacks; with both keys it is in force."""
    wish = ("--add", "bob=bob.pub:root", "--person", PEOPLE, "--person", "bob=bob")
    code, out, err = _propose(vault, *wish, "--threshold", "root=2")
    assert code == 0, err
    assert "the new root wants 2 of: ann, bob" in " ".join(out.split())
    code, _, err = vault("key", "root", "apply", "next.root", "--yes")
    assert code == 2
    assert "the new root wants 1 of: bob" in err
    assert vault("key", "root", "apply", "next.root", "--yes", "--key", "file:bob.key#root")[0] == 0
    shown = vault("key", "root", "show")[1]
    assert "root 2" in " ".join(shown.split())
    # from now on the root in force wants two as well
    assert _propose(vault, "--review", "bob=2027-01-31")[0] == 0
    assert vault("key", "root", "apply", "next.root", "--yes")[0] == 2
    assert vault("key", "root", "apply", "next.root", "--yes", "--key", "file:bob.key#root")[0] == 0


def test_a_new_person_agrees_to_the_root_that_lists_them(vault: Vault, bob: Path) -> None:
    """From one to two: bob, whose key no root lists yet, signs the request; a stranger can't."""
    wish = ("--add", "bob=bob.pub:root", "--person", PEOPLE, "--person", "bob=bob")
    assert _propose(vault, *wish, "--threshold", "root=2")[0] == 0
    ask = ("approve", "request", "root", "next.root", "--reason", "two", "--out", "R.request")
    assert vault(*ask)[0] == 0
    act = ("key", "root", "apply", "next.root", "--warrant", "R.request", "--yes")
    code, _, err = vault(*act)
    assert code == 2, err
    assert vault("key", "new", "--role", "root", "--out", "c.key", "--public", "c.pub")[0] == 0
    assert vault("approve", "sign", "R.request", "--key", "file:c.key#root", "--yes")[0] == 12
    code, _, err = vault("approve", "sign", "R.request", "--key", f"file:{bob}#root", "--yes")
    assert code == 0, err
    code, _, err = vault(*act)
    assert code == 0, err
    assert vault(*act)[0] == 2
    assert "root 2" in " ".join(vault("key", "root", "show")[1].split())


def test_nothing_is_written_unasked(vault: Vault, repository: Path) -> None:
    """Without a terminal and without --yes: exit 2, no proposal, no root."""
    wish = ("--review", "root=2027-01-31", "--out", "next.root")
    code, _, err = vault("key", "root", "propose", *wish)
    assert (code, Path("next.root").exists()) == (2, False)
    assert "--yes" in err
    assert _propose(vault, "--review", "root=2027-01-31")[0] == 0
    before = sorted((repository / "ledger").iterdir())
    assert vault("key", "root", "apply", "next.root")[0] == 2
    assert vault("key", "split")[0] == 2
    assert sorted((repository / "ledger").iterdir()) == before


def test_the_lack_of_a_spare_is_asked_where_there_was_one(vault: Vault, bob: Path) -> None:
    """With two of two the loss of one key ends all changes; init's own root is only told of it."""
    _, _, err = _propose(vault, "--review", "root=2027-01-31")
    assert "no spare" in err
    _, _, err = _propose(vault, "--add", "bob=bob.pub:root")
    assert "no spare" not in err
    assert vault("key", "root", "apply", "next.root", "--yes")[0] == 0
    wish = ("--person", PEOPLE, "--person", "bob=bob", "--threshold", "root=2", "--out", "q.root")
    code, _, err = vault("key", "root", "propose", *wish)
    assert code == 2
    assert "confirmation" in err


@pytest.mark.parametrize(
    "options",
    [
        ("--add", "bob"),
        ("--add", "bob=bob.pub"),
        ("--add", "bob=bob.pub:writer"),
        ("--add", "bob=bob.pub:approver"),
        ("--add", "bob=bob.pub:boss"),
        ("--add", "bob=missing.pub:root"),
        ("--add", "root=bob.pub:root"),
        ("--remove", "root"),
        ("--remove", "carol"),
        ("--threshold", "root=two"),
        ("--threshold", "root=2"),
        ("--threshold", "root=-1"),
        ("--threshold", "roots=1"),
        ("--review", "root=tomorrow"),
        ("--person", "root=Ann Example"),
        ("--person", "carol=carol"),
        ("--recipient-add", "bob=bob.pub"),
        ("--recipient-remove", "site"),
        ("--approval", "prune=policy"),
        ("--approval", "erase=policy:1", "--person", PEOPLE),
        ("--approval", "prune=log:1", "--person", PEOPLE),
        ("--approval", "prune=policy:1", "--person", PEOPLE),
        ("--witness", "w=nonsense"),
        ("--quorum", "2"),
        ("--checkpoint-age", "20y"),
        ("--distrust", "0123456789abcdef=3"),
        ("--distrust", "0123=3"),
        ("--no-distrust", "0123456789abcdef"),
        (),
    ],
    ids=str,
)
def test_a_wish_that_can_t_be_is_refused(
    vault: Vault, bob: Path, options: tuple[object, ...]
) -> None:
    """Exit 2 with a reason, and no file."""
    assert bob.exists()
    code, _, err = _propose(vault, *options)
    assert code == 2, err
    assert "error" in err
    assert not Path("next.root").exists()


def test_a_public_file_that_was_exchanged_is_refused(vault: Vault, bob: Path) -> None:
    """Exit 4; a plain PEM is taken, and said to be unproven."""
    text = Path("bob.pub").read_text()
    assert vault("key", "new", "--role", "root", "--out", "c.key", "--public", "c.pub")[0] == 0
    other = Path("c.pub").read_text()
    Path("mixed.pub").write_text(text[: text.index("-----")] + other[other.index("-----") :])
    code, _, err = _propose(vault, "--add", "bob=mixed.pub:root")
    assert (code, "does not hold" in err) == (4, True)
    Path("plain.pub").write_text(text[text.index("-----") :])
    code, _, err = _propose(vault, "--add", "bob=plain.pub:root")
    assert (code, "nothing in plain.pub proves" in err) == (0, True)


def test_split_gives_roles_to_files_that_commands_then_use(
    vault: Vault, vault_json: VaultJson, keys: Path
) -> None:
    """The enroller in root.key is refused, and enroller.key is taken in its place."""
    old = keys.parent / "old.key"
    old.write_bytes((keys / "root.key").read_bytes())
    old.chmod(0o600)
    applied = vault_json("key", "split", "--yes")["root"]
    assert applied["version"] == 2
    limit = ("key", "limit", "first", "--dataset", "www")
    code, _, err = vault("--signer", f"enroller=file:{old}#enroller", *limit)
    assert (code, "may not sign as enroller" in err) == (12, True)
    assert vault(*limit)[0] == 0
    listed = {(e["name"], *e["roles"]) for e in vault_json("key", "list")["keys"]}
    assert listed >= {("pruner", "pruner"), ("log", "log"), ("verifier", "verifier")}
    gone = [e for e in vault_json("key", "list", "--all")["keys"] if e["revoked"] == 2]
    assert {each["name"] for each in gone} == {"enroller", "policy", "pruner"}
    assert vault("key", "split", "--yes")[0] == 2


def test_after_a_split_that_was_interrupted_the_joint_file_signs(
    vault: Vault, keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its files hold keys that no root lists yet; the next split goes on with them."""

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("cli.commands.key_files.apply_root", killed)
        assert vault("key", "split", "--yes")[0] != 0
    made = (keys / "enroller.key").read_bytes()
    assert vault("key", "limit", "first", "--dataset", "www")[0] == 0
    assert vault("key", "split", "--yes")[0] == 0
    assert (keys / "enroller.key").read_bytes() == made
    assert vault("key", "limit", "first", "--dataset", "w*")[0] == 0


def test_a_second_holder_restores_with_a_passphrase_of_its_own(
    vault: Vault, source: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`init --recovery-out`: all snapshots, by other words than those of recovery.key."""
    words = home / "words"
    words.write_text("other horse battery staple\n")
    words.chmod(0o600)
    there = home / "there"
    there.mkdir(mode=0o700)
    monkeypatch.setenv("VAULT_KEYS", str(home / "own"))
    second = ("--recovery-out", there / "recovery.key", "--recovery-passphrase-file", words)
    code, _, err = vault("init", home / "two", "--host", "first", *second)
    assert code == 0, err
    assert "a loss of either" not in err
    assert vault("snapshot", source, "--name", "data")[0] == 0
    monkeypatch.setenv("VAULT_KEYS", str(there))
    assert vault("restore", "data", "wrong")[0] == 12
    monkeypatch.setenv("VAULT_PASSPHRASE_FILE", str(words))
    code, _, err = vault("restore", "data", "target")
    assert code == 0, err
    assert (home / "target/readme").read_text() == (source / "readme").read_text()


def test_init_says_what_one_recovery_key_means(vault: Vault, home: Path) -> None:
    """Once, and asks nothing."""
    code, _, err = vault("init", home / "one", "--host", "first", "--keys", home / "one.keys")
    assert code == 0
    assert " ".join(err.split()).count("a loss of either has no remedy") == 1


def test_the_passphrase_of_a_key_file_is_changed(vault: Vault, home: Path, keys: Path) -> None:
    """The old words open it no more; a short one is refused; a host's file has none."""
    words = home / "words"
    words.write_text("short\n")
    words.chmod(0o600)
    change = ("key", "passwd", keys / "root.key", "--new-passphrase-file", words)
    assert vault(*change)[0] == 2
    words.write_text("other horse battery staple\n")
    code, _, err = vault(*change)
    assert (code, "other copies of root.key still open" in err) == (0, True)
    assert vault(*change)[0] == 12
    again = ("key", "passwd", keys / "writer.key", "--new-passphrase-file", words)
    assert vault(*again)[0] == 12


def test_all_public_keys_are_exported_by_role(vault: Vault, vault_json: VaultJson) -> None:
    """Also those that a root has taken off the list; a directory that is there is left alone."""
    assert vault("key", "split", "--role", "pruner", "--yes")[0] == 0
    exported = vault_json("key", "export", "--pem", "pems")["keys"]
    files = {path.name for path in Path("pems").iterdir()}
    assert files == {"keys.tsv", *(each["file"] for each in exported)}
    pruners = [each for each in exported if each["roles"] == "pruner"]
    assert [bool(each["removed"]) for each in pruners] == [True, False]
    lines = Path("pems/keys.tsv").read_text().splitlines()
    assert len(lines) == len(exported) + 1
    assert vault("key", "export", "--pem", "pems")[0] == 2


def test_a_review_that_is_due_is_said(vault: Vault, vault_json: VaultJson) -> None:
    """From its day on, of keys that are listed; it ends nothing."""
    assert _propose(vault, "--review", "policy=2020-02-29", "--review", "root=2999-01-01")[0] == 0
    assert vault("key", "root", "apply", "next.root", "--yes")[0] == 0
    code, _, err = vault("key", "list")
    assert (code, err.count("is due since")) == (0, 1)
    assert "the review of key policy is due since 2020-02-29" in err
    found = vault_json("audit")["audit"]["findings"]
    assert [each["code"] for each in found if "review" in each["code"]] == ["review-due"]
    listed = vault_json("key", "list")["keys"]
    assert [e["review"] for e in listed if e["name"] == "policy"] == ["2020-02-29"]


@pytest.mark.parametrize("data", [b"", b"[]", b"\xff\xfe", b'{"vault-root-proposal":1}', b"{" * 50])
def test_a_file_that_is_no_proposal_ends_in_an_error(vault: Vault, data: bytes) -> None:
    """Never in a traceback."""
    Path("bad.root").write_bytes(data)
    code, _, err = vault("key", "root", "apply", "bad.root", "--yes")
    assert code in (2, 4)
    assert "error" in err
    assert "Traceback" not in err


def test_a_proposal_travels_and_is_shown_again(vault: Vault, vault_json: VaultJson) -> None:
    """Who signs sees what it changes and makes void, by the ledger, not by its author."""
    assert _propose(vault, "--review", "policy=2027-01-31")[0] == 0
    fields = json.loads(Path("next.root").read_text())
    assert fields["body"]["version"] == 2
    code, _, err = vault("key", "root", "apply", "next.root", "--yes")
    said = " ".join(err.split())
    assert code == 0
    assert "review 2027-01-31" in said
    assert "becomes void nothing" in said
    assert vault("key", "root", "apply", "next.root", "--yes")[0] == 2
    assert vault_json("key", "root", "show")["root"]["version"] == 2


def test_no_key_is_made_whose_public_file_can_t_be(vault: Vault) -> None:
    """Nothing else could hand the public key out, and a second try would find the key there."""
    Path("old.pub").write_text("another's")
    for out, public in (("new.key", "old.pub"), ("same", "same")):
        code, _, err = vault("key", "new", "--role", "policy", "--out", out, "--public", public)
        assert (code, f"{public} " in err) == (2, True), err
        assert not Path(out).exists()
    assert Path("old.pub").read_text() == "another's"


@pytest.mark.parametrize(
    "command",
    [
        ("key", "root", "apply", "odd", "--yes"),
        ("key", "root", "propose", "--add", "x=odd:root", "--out", "p", "--yes"),
        ("approve", "show", "odd"),
        ("approve", "request", "root", "odd", "--reason", "x", "--out", "p"),
        ("checkpoint", "--attach", "odd"),
        ("witness", "cosign", "--state", "w", "odd"),
    ],
    ids=" ".join,
)
def test_a_file_of_another_kind_is_named(vault: Vault, command: tuple[str, ...]) -> None:
    """Of several that a person named, which one is wrong."""
    Path("odd").write_bytes(b"\xff\n")
    code, _, err = vault(*command)
    assert (code, "error: odd: " in err) == (4, True), err
    assert not Path("p").exists()
