"""A second reading of checkpoints comes to what the vault does."""

import ast
import base64
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.lab import Lab
from tests.support.witnesses import beat, cut, make_council
from vault.ledger.notes import witness_vkey
from vault.model import Digest
from vault.repository.opening import open_to_audit
from vault.storage.names import CHECKPOINTS, LEDGER

HERE = Path(__file__).parent
SCRIPT = HERE / "verify_checkpoints.py"
ALONE = HERE.parents[1] / "docs" / "witness.py"
VECTORS = HERE.parent / "vectors" / "checkpoint"
NOTES = json.loads((VECTORS / "notes.json").read_text())
REQUESTS = json.loads((VECTORS / "requests.json").read_text())


def load(path: Path) -> Any:
    """A program as a module."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", [SCRIPT, ALONE], ids=["reader", "witness"])
def test_it_shares_no_code_with_the_vault(path: Path) -> None:
    """Standard library only."""
    imported = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            imported |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add((node.module or "").partition(".")[0])
    assert imported <= sys.stdlib_module_names


@pytest.mark.parametrize("name", NOTES["notes"])
def test_notes_of_the_vectors_are_what_they_are(name: str) -> None:
    """By openssl, and by another reading of the page."""
    expected = dict(NOTES["notes"][name])
    data = base64.b64decode(expected.pop("note"))
    judge = load(SCRIPT).judge
    found = judge(data, NOTES["log"], NOTES["witnesses"], NOTES["quorum"], NOTES["now"])
    assert found == expected


def test_roots_and_proofs_of_the_vectors_hold() -> None:
    """The recursion of RFC 6962; and the proofs, by the witness that stands alone."""
    tree = json.loads((VECTORS / "tree.json").read_text())
    entries = [bytes.fromhex(entry) for entry in tree["entries"]]
    root_of = load(SCRIPT).root_of
    assert [root_of(entries[:size]).hex() for size in range(21)] == tree["roots"]
    is_consistent = load(ALONE).is_consistent
    roots = [bytes.fromhex(root) for root in tree["roots"]]
    for each in tree["proofs"]:
        old, new = each["old"], each["new"]
        proof = [bytes.fromhex(node) for node in each["proof"]]
        assert is_consistent(old, roots[old], new, roots[new], proof)
        assert not is_consistent(old, roots[old], new, roots[new], [*proof, bytes(32)])


@pytest.mark.parametrize("name", REQUESTS)
def test_the_witness_that_stands_alone_gives_the_answers_of_the_vectors(
    name: str, tmp_path: Path
) -> None:
    """It has seen five entries."""
    state, file = tmp_path / "state", tmp_path / "request"
    command = [sys.executable, str(ALONE)]
    made = [*command, "init", "--state", str(state), "--name", "w", "--log", NOTES["log"]]
    assert subprocess.run(made, capture_output=True, check=False).returncode == 0
    (log,) = (state / "logs").iterdir()
    tree = json.loads((VECTORS / "tree.json").read_text())
    root = base64.b64encode(bytes.fromhex(tree["roots"][5])).decode()
    log.write_text(f"{NOTES['log']}\n5\n{root}\n")
    file.write_bytes(base64.b64decode(REQUESTS[name]["request"]))
    ask = [*command, "cosign", "--state", str(state), str(file)]
    done = subprocess.run(ask, capture_output=True, check=False)
    answer = REQUESTS[name]["answer"]
    assert done.returncode == (0 if answer == 200 else 4), done.stderr
    assert answer == 200 or f"({answer})".encode() in done.stderr


@pytest.mark.parametrize(
    "what", ["vouched", "truncated", "forked", "one of two", "united", "by a stranger"]
)
def test_both_readers_come_to_the_same(lab: Lab, what: str, tmp_path: Path) -> None:
    """Of one store; where the vault refuses it, so does the second reading."""
    council = make_council(lab, 2, quorum=2)
    beat(lab)
    note = council.note()
    match what:
        case "one of two":
            council.store(council.cosign(note, 0))
        case "united":
            council.store(council.cosign(note, 0))
            council.store(council.cosign(note, 1))
        case "by a stranger":
            digests = [Digest.of(b"x")] * 3
            council.store(council.cosign(council.note(digests), 0))
        case _:
            council.store(council.cosign(note, 0, 1))
    if what in {"truncated", "forked"}:
        cut(lab, 1)
    if what == "forked":
        beat(lab, "forged")
    for prefix in (LEDGER, CHECKPOINTS):
        for version in lab.store.versions(prefix):
            path = tmp_path / version.name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(lab.store.get(version.name, version.version))
    keys = [witness_vkey(f"w{at}", key.public_raw) for at, key in enumerate(council.witnesses)]
    now = int(lab.clock().timestamp())
    ask = [str(SCRIPT), str(tmp_path), council.log_vkey, "2", str(now), *keys]
    done = subprocess.run([sys.executable, *ask], capture_output=True, text=True, check=False)
    own = open_to_audit(lab.store, lab.root, clock=lab.clock)[0].witnessed
    assert done.stdout.split()[0] == own.standing, done.stderr
