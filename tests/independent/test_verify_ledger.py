"""The second verifier agrees on the vectors, and sees what is done to them."""

import ast
import base64
import importlib.util
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType

import pytest

HERE = Path(__file__).parent
SCRIPT = HERE / "verify_ledger.py"
VECTORS = HERE.parent / "vectors" / "ledger"
EXPECTED = json.loads((VECTORS / "ledger.json").read_text())
NEGATIVE = sorted((VECTORS / "negative").glob("*.json"))
NOW = datetime(2026, 6, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def verifier() -> ModuleType:
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("verify_ledger", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A copy of the vectors' store to do harm to."""
    return Path(shutil.copytree(VECTORS / "store", tmp_path / "store"))


def test_it_shares_no_code_with_the_vault() -> None:
    """Standard library only."""
    imported = set()
    for node in ast.walk(ast.parse(SCRIPT.read_text())):
        if isinstance(node, ast.Import):
            imported |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add((node.module or "").partition(".")[0])
    assert imported <= sys.stdlib_module_names


def test_sound_repository_has_no_findings() -> None:
    """As a command, with public data only."""
    done = subprocess.run(
        [sys.executable, SCRIPT, VECTORS / "store", f"0:{EXPECTED['root']}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "no findings\n")


def test_wrong_root_digest_is_found() -> None:
    """Nothing is believed without the pinned root."""
    done = subprocess.run(
        [sys.executable, SCRIPT, VECTORS / "store", "0" * 64],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "no version is the pinned root" in done.stdout


def _name(store: Path, pattern: str, index: int = 0) -> Path:
    return sorted(store.glob(pattern))[index]


def _append_byte(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"x")


HARM: dict[str, tuple[Callable[[Path], object], str]] = {
    "pack changed": (lambda s: _append_byte(_name(s, "packs/*/*")), "has other bytes"),
    "pack missing": (lambda s: _name(s, "packs/*/*").unlink(), "is missing"),
    "domain object missing": (lambda s: _name(s, "domains/*/*").unlink(), "is missing"),
    "inventory changed": (lambda s: _append_byte(_name(s, "inventory/*")), "missing or has other"),
    "inventory missing": (lambda s: _name(s, "inventory/*").unlink(), "missing or has other"),
    "attestation changed": (lambda s: _append_byte(_name(s, "evidence/*")), "evidence/"),
    "statement changed": (lambda s: _append_byte(_name(s, "ledger/*", 4)), "beyond a gap"),
    "statement missing": (lambda s: _name(s, "ledger/*", 4).unlink(), "beyond a gap"),
    "statements swapped": (
        lambda s: _name(s, "ledger/*", 3).replace(_name(s, "ledger/*", 4)),
        "beyond a gap",
    ),
    "root missing": (lambda s: _name(s, "ledger/*").unlink(), "no version is the pinned root"),
}


@pytest.mark.parametrize("name", HARM)
def test_harm_is_found(verifier: ModuleType, store: Path, name: str) -> None:
    """Changed, missing or exchanged objects of every kind."""
    harm, problem = HARM[name]
    harm(store)
    findings = verifier.verify(store, EXPECTED["root"], now=NOW)
    assert any(problem in finding for finding in findings), findings


def test_right_bytes_under_a_later_version_are_found(verifier: ModuleType, store: Path) -> None:
    """The digest decides, not the place in the list."""
    pack = _name(store, "packs/*/*")
    pack.rename(pack.with_name(pack.name + "~2"))
    pack.write_bytes(b"junk")
    envelope = _name(store, "ledger/*", 5)
    envelope.rename(envelope.with_name(envelope.name + "~10"))
    envelope.with_name(envelope.name + "~2").write_bytes(b"junk")
    assert verifier.verify(store, EXPECTED["root"], now=NOW) == []


def test_expired_snapshots_are_owed_nothing(verifier: ModuleType, store: Path) -> None:
    """What was pruned after its time is no finding."""
    shutil.rmtree(store / "packs")
    assert verifier.verify(store, EXPECTED["root"], now=datetime(2100, 1, 1, tzinfo=UTC)) == []


@pytest.mark.parametrize("path", NEGATIVE, ids=lambda path: path.stem)
def test_negative_vectors_are_judged_the_same(
    verifier: ModuleType, store: Path, path: Path
) -> None:
    """Two readings of the format: the same statements link, the same are void."""
    vector = json.loads(path.read_text())
    for later in sorted((store / "ledger").iterdir())[vector["after"] :]:
        later.unlink()
    (store / "ledger" / f"{vector['after']:016d}").write_bytes(base64.b64decode(vector["envelope"]))
    checker = verifier.Verifier(store, EXPECTED["root"], NOW)
    for seq in range(vector["after"]):
        assert checker.link(seq)
    assert checker.findings == []
    links = checker.link(vector["after"])
    assert links is (vector["expect"] in ("valid", "void", "unknown"))
    assert bool(checker.findings) is (vector["expect"] == "void")
