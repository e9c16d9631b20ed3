"""docs/cli.md, docs/vault.1 and docs/json.md say what the program does."""

import inspect
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest

import cli
from cli.main import COMMANDS, app
from docs.reference import helps, man, reference
from tests.support.second_holder import add_holder_at
from tests.support.witnesses import file_council, file_lab, govern, save_log
from vault.storage.conformance import Probe, ProbeOutcome, StoreReport
from vault.storage.conformance_probes import Barred, Row

Vault: TypeAlias = Callable[..., tuple[int, str, str]]
VaultJson: TypeAlias = Callable[..., Any]

DOCS = Path(__file__).parents[2] / "docs"


def test_cli_md_is_what_help_says() -> None:
    """`make docs` writes it."""
    assert (DOCS / "cli.md").read_text() == reference()


def test_the_manual_page_is_what_help_says() -> None:
    """`make docs` writes it too."""
    assert (DOCS / "vault.1").read_text() == man()


def test_the_manual_page_has_every_command_and_option() -> None:
    """Nothing is lost on the way from one form to the other."""
    page = man().replace("\\-", "-")
    for path, text in helps():
        assert f"\n.SS {path}\n" in page or path == "vault"
        for option in re.findall(r"^  (?:-., )?(--[a-z0-9-]+)", text, re.MULTILINE):
            assert option in page


@pytest.mark.skipif(shutil.which("groff") is None, reason="needs groff")
def test_the_manual_page_is_roff_without_a_warning() -> None:
    """By the program that man(1) calls."""
    command = ["groff", "-man", "-ww", "-z", "-Kutf8", "-Tutf8", str(DOCS / "vault.1")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_command_list_has_the_first_line_of_each_help() -> None:
    """It is kept apart so that --help imports no command."""
    context = app.make_context("vault", [], resilient_parsing=True)
    for name, (_, text) in COMMANDS.items():
        command = app.get_command(context, name)
        assert command is not None
        assert command.name == name
        assert command.help is not None
        assert inspect.cleandoc(command.help).split("\n")[0] == text


def test_every_command_and_option_has_help() -> None:
    """Nothing has to be guessed."""
    for path, text in helps():
        options = re.findall(r"^  -.*(?:\n {10,}.*)*", text, re.MULTILINE)
        assert options, path
        for option in options:
            assert re.search(r"\S {2,}\S|\n", option.strip()), f"{path}: {option}"


# --- docs/json.md ---


def examples() -> dict[str, Any]:
    """Every example by its schema."""
    text = (DOCS / "json.md").read_text()
    found = re.findall(r"^## (\S+)\n.*?```json\n(.*?)```", text, re.MULTILINE | re.DOTALL)
    documents = {schema: json.loads(example) for schema, example in found}
    assert all(document["schema"] == schema for schema, document in documents.items())
    return documents


COUNTS = {  # fields that are maps of names to numbers
    "left_out", "evidence", "thresholds", "approvals", "tiers", "objectives", "by_reason",
    "carriers",
}  # fmt: skip


def assert_same_shape(example: Any, real: Any, where: str) -> None:
    """Same fields of the same types; null stands for any type; maps of counts have any keys."""
    if example is None or real is None:
        return
    assert type(example) is type(real), where
    if isinstance(example, dict):
        if where.rpartition(".")[2] in COUNTS:
            assert all(isinstance(count, int) for count in real.values()), where
            return
        optional = {"path_base64"}
        assert set(example) == set(real) - optional, where
        for name, value in example.items():
            assert_same_shape(value, real[name], f"{where}.{name}")
    elif isinstance(example, list) and example:
        for element in real:
            assert_same_shape(example[0], element, f"{where}[]")


@pytest.fixture
def printed(  # noqa: PLR0915 - a command for each document
    vault: Vault,
    vault_json: VaultJson,
    home: Path,
    source: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> dict[str, Any]:
    """One real object of every schema."""
    documents: list[Any] = [vault_json("init", "repository", "--host", "first")]
    documents.append(vault_json("init", "repository", code=2))
    documents.append(vault_json("snapshot", source, "--name", "data", "--dry-run"))
    documents.append(vault_json("snapshot", source, "--name", "data"))
    documents.append(vault_json("list"))
    documents.append(vault_json("restore", "data", "target"))
    documents.append(vault_json("log", "--type", "restore"))
    documents.append(vault_json("show", 3))
    documents.append(vault_json("restore", "data", "target", "--replace"))
    (note,) = home.glob(".target.vault-*.note")
    documents.append(vault_json("restore", "--undo", "--from", note, "--yes"))
    assert vault("restore", "--finalize", "target")[0] == 0
    documents.append(vault_json("restore", "data", "target", "--replace"))
    documents.append(vault_json("restore", "--undo", "target"))
    documents.append(vault_json("restore", "--finalize", "target"))
    documents.append(vault_json("export-checksums", "data"))
    documents.append(vault_json("index", "rebuild"))
    documents.append(vault_json("ls", "data"))
    documents.append(vault_json("find", "host*"))
    (source / "new").touch()
    assert vault("snapshot", source, "--name", "data")[0] == 0
    numbers = [item["seq"] for item in vault_json("list")["snapshots"]]
    documents.append(vault_json("diff", *numbers))
    documents.append(vault_json("stats"))
    documents.append(vault_json("verify"))
    documents.append(vault_json("heartbeat", "--every", "26h"))
    documents.append(vault_json("status", "--locks"))
    root = documents[0]["repository"]["root"]
    with monkeypatch.context() as patch:
        patch.setenv("VAULT_KEYS", "host2")
        there = ["--repo", "repository", "--trust", root]
        wish = ["--name", "web", "--dataset", "*", "--out", "request"]
        documents.append(vault_json(*there, "key", "request", *wish))
    documents.append(vault_json("key", "limit", "first", "--dataset", "data"))
    key = documents[-2]["request"]["key"]
    shared = ["--key", key, "--share-datasets", "first"]
    documents.append(vault_json("key", "add", "request", *shared))
    documents.append(vault_json("key", "revoke", "web"))
    documents.append(vault_json("key", "list"))
    documents += _agreed(vault_json, home)
    documents += _witnessed(vault, vault_json, home)
    add_holder_at(home / "repository", home / "config/vault", home / "bob")
    documents.append(vault_json("key", "reseal", "--to", "bob"))
    documents += _governed(vault_json, home)
    with monkeypatch.context() as patch:
        patch.setattr("vault.repository.attestations.record_attestation", _refuse)
        documents.append(vault_json("verify", code=3))
    (file,) = (home / "state/vault/attestations").iterdir()
    documents.append(vault_json("attest", "push", file))
    pack = next(path for path in Path("repository/packs").rglob("*") if path.is_file())
    pack.with_name(pack.name + "~2").write_bytes(b"junk")
    documents.append(vault_json("audit", code=4))
    documents.append(vault_json("heal", code=4))
    for pack in Path("repository/packs").rglob("*"):
        if pack.is_file():
            pack.unlink()
    documents.append(vault_json("verify", code=4))
    documents.append(_store_check(vault_json, monkeypatch))
    laptop = (DOCS.parent / "policies/laptop.toml").read_text()
    (home / "laptop.toml").write_text(laptop)
    documents.append(vault_json("policy", "apply", "laptop.toml"))
    documents.append(vault_json("policy", "show"))
    documents.append(vault_json("policy", "check", code=6))
    paths = '[[dataset]]\nname = "a"\npaths = ["/a", "/a/b"]\n'
    (home / "a.toml").write_text(f'policy = 1\nname = "a"\n{paths}')
    documents.append(vault_json("policy", "validate", "a.toml", code=2))
    daily = "[retention]\ndaily = 60\n[schedule]\ncron = '@hourly'\n"
    (home / "a.toml").write_text(
        f'policy = 1\nname = "a"\n{paths}{daily}'.replace('"/a/b"', '"/b"')
    )
    documents.append(vault_json("policy", "simulate", "a.toml", "--days", "1"))
    return {document["schema"]: document for document in documents}


def _witnessed(vault: Vault, vault_json: VaultJson, home: Path) -> list[Any]:
    """A root with a log and a witness, a checkpoint of it, and what the witness says."""
    lab, state = file_lab(home / "repository", home / "config/vault"), home / "witness"
    vkey = vault_json("witness", "init", "--state", state, "--name", "auditor")["witness"]["vkey"]
    council = file_council(lab, state)
    govern(lab, council)
    assert vkey in [each.vkey for each in lab.open().ledger.root.witnesses]
    save_log(council, home / "config/vault")
    assert vault("checkpoint", "--out", home / "note")[0] == 0
    assert vault("witness", "init", "--state", state, "--log", council.log_vkey)[0] == 0
    ask = ("witness", "cosign", "--state", state, home / "note", "--out", home / "answer")
    assert vault(*ask)[0] == 0
    checkpoint = vault_json("checkpoint", "--attach", home / "answer")
    return [checkpoint, vault_json("witness", "log", "--state", state)]


def _governed(vault_json: VaultJson, home: Path) -> list[Any]:
    """A key for another person, the root that lists it, and what `key list` says."""
    made = vault_json("key", "new", "--role", "policy", "--out", "new.key", "--public", "new.pub")
    wish = ("--add", "new=new.pub:policy", "--out", "next.root", "--yes")
    proposed = vault_json("key", "root", "propose", *wish)
    proposed["proposal"]["body"] = {"version": proposed["proposal"]["body"]["version"]}
    applied = vault_json("key", "root", "apply", "next.root", "--yes")
    (home / "words").write_text("other horse battery staple\n")
    (home / "words").chmod(0o600)
    changed = vault_json("key", "passwd", "new.key", "--new-passphrase-file", home / "words")
    exported = vault_json("key", "export", "--pem", "pems")
    return [made, proposed, applied, changed, exported, vault_json("key", "root", "show")]


def _agreed(vault_json: VaultJson, home: Path) -> list[Any]:
    """A request, what is said of it, and the act that rests on it."""
    asked, copy = home / "R.request", home / "both.request"
    wish = ("limit", "first", "--dataset", "data", "--dataset", "more")
    made = vault_json(
        *("approve", "request", "writer.limit", *wish[1:]),
        *("--reason", "less", "--out", asked),
    )
    key = f"file:{home / 'config/vault/root.key'}#policy"
    found = [
        vault_json("approve", "sign", asked, "--key", key, "--yes"),
        vault_json("approve", "show", asked),
        vault_json("approve", "merge", asked, asked, "--out", copy),
    ]
    vault_json("key", *wish, "--reason", "less", "--warrant", asked)
    return [made, *found, vault_json("approve", "list", "--all")]


def _store_check(vault_json: VaultJson, monkeypatch: pytest.MonkeyPatch) -> Any:
    """As printed for a bucket with one shortfall; tests/s3 tries out real ones."""
    row = Row(name="order", promise="listed in order", need=Barred.ALL, remedy="none")
    probe = Probe(row=row, outcome=ProbeOutcome.SHORTFALL, found="not")
    report = StoreReport(url="s3://bucket", probes=(probe,), leftovers="probe/0")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setattr("cli.commands.store.check_store", lambda *_, **__: report)
    return vault_json("store", "check", "s3://bucket", code=5)


def _refuse(*_: object, **__: object) -> None:
    from vault.errors import StorageError

    raise StorageError("read only")


def test_every_schema_is_documented_as_it_is_printed(printed: dict[str, Any]) -> None:
    """Fields and types; no schema without an example, no example without a schema."""
    documented = examples()
    assert documented.keys() == printed.keys() == schemas_in_code()
    for schema, example in documented.items():
        assert_same_shape(example, printed[schema], schema)


def schemas_in_code() -> set[str]:
    """All that the commands' source names."""
    (place,) = cli.__path__
    code = "".join(path.read_text() for path in Path(place).rglob("*.py"))
    return set(re.findall(r'"(vault/[a-z-]+/v[0-9]+)"', code))
