"""The second verifier stands alone. What it says of ledgers: test_verifiers.py."""

import ast
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
SCRIPT = HERE / "verify_ledger.py"
SHELL = HERE.parents[1] / "docs" / "offline-check.sh"
VECTORS = HERE.parent / "vectors" / "ledger"
EXPECTED = json.loads((VECTORS / "ledger.json").read_text())
JUDGES = {"python": [sys.executable, str(SCRIPT)], "shell": ["sh", str(SHELL)]}


def _run(judge: str, *arguments: object) -> "subprocess.CompletedProcess[str]":
    command = [*JUDGES[judge], *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_it_shares_no_code_with_the_vault() -> None:
    """Standard library only."""
    imported = set()
    for node in ast.walk(ast.parse(SCRIPT.read_text())):
        if isinstance(node, ast.Import):
            imported |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add((node.module or "").partition(".")[0])
    assert imported <= sys.stdlib_module_names


@pytest.mark.parametrize("judge", JUDGES)
def test_a_sound_repository_has_no_faults(judge: str) -> None:
    """As a command, with public data only; the root is written as the vault prints it."""
    done = _run(judge, VECTORS / "store", f"0:{EXPECTED['root']}")
    counts = "statements 16: 15 valid, 0 void, 1 not understood; 0 junk; 0 faults"
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, counts)
    assert f"head 15:{EXPECTED['statements'][-1]['digest']}" in done.stdout.splitlines()


@pytest.mark.parametrize("judge", JUDGES)
def test_what_cannot_be_looked_at_is_no_verdict(judge: str, tmp_path: Path) -> None:
    """Exit 2 for a store that is not there; a store without a ledger has no root."""
    assert _run(judge, tmp_path / "none", EXPECTED["root"]).returncode == 2
    assert _run(judge).returncode == 2
    empty = _run(judge, tmp_path, EXPECTED["root"])
    assert (empty.returncode, "fault no-root ledger 0" in empty.stdout) == (1, True)


@pytest.mark.parametrize("judge", JUDGES)
def test_names_in_a_store_are_never_commands(judge: str, tmp_path: Path) -> None:
    """Files whose names have spaces, signs of the shell and line ends change nothing."""
    store = shutil.copytree(VECTORS / "store", tmp_path / "a store; $(touch x) 'y'")
    for name in ("$(touch x)", "a b", "-n", "0000000000000016~2;x", "0000000000000099~\n"):
        (store / "ledger" / name).write_bytes(b"{}")
    done = _run(judge, store, EXPECTED["root"])
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    assert not list(Path.cwd().glob("x"))
