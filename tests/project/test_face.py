"""The public face: what it names is defined under that name, and its example runs."""

import doctest
import importlib
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import vault
from docs.api import api
from vault.crypto.key_file_bytes import Argon2Cost

TOP = Path(__file__).parents[2]
CHEAP = Argon2Cost(memory=64, iterations=1, lanes=1)


@pytest.mark.parametrize("name", sorted(set(vault.__all__) - {"__version__"}))
def test_a_name_of_the_face_is_defined_under_that_name(name: str) -> None:
    """A search for it finds the definition; it says what the caller gets."""
    member = getattr(vault, name)
    assert member.__name__ == name
    assert getattr(importlib.import_module(member.__module__), name) is member
    assert member.__doc__
    path = TOP / (member.__module__.replace(".", "/") + ".py")
    if not path.exists():
        path = path.with_suffix("") / "__init__.py"
    assert re.search(rf"^(?:def|class) {name}\b", path.read_text("utf-8"), re.MULTILINE)


def test_a_name_that_is_not_there_is_refused() -> None:
    """As any module refuses it."""
    with pytest.raises(AttributeError, match="restore"):
        vault.restore_everything  # type: ignore[attr-defined] # noqa: B018


def test_importing_the_face_imports_nothing_else() -> None:
    """What `vault --help` costs is not paid for names that are not asked for."""
    code = "import sys, vault; print(*sorted(m for m in sys.modules if m.startswith('vault')))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=TOP
    )
    assert done.stdout.split() == ["vault", "vault.version"]


def test_the_example_of_the_face_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It opens, takes a snapshot, restores it with proof and verifies it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cache").mkdir()
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "greeting").write_text("hello", "ascii")
    request = vault.InitRequest(
        url=str(tmp_path / "repository"),
        endpoint="",
        parameters=vault.Parameters(lock_mode=vault.LockMode.NONE),
        host="here",
        keys=tmp_path / "keys",
        passphrase=b"a passphrase",
        tool="test",
        cost=CHEAP,
    )
    store = vault.open_store(request.url, create=True)
    vault.create_repository(store, request, clock=vault.utc_now)
    result = doctest.testmod(vault)
    assert result.attempted >= 14
    assert result.failed == 0


def test_the_version_is_that_of_the_package() -> None:
    """It stands twice, as building reads the one and a run the other."""
    project = tomllib.loads((TOP / "pyproject.toml").read_text("utf-8"))["project"]
    assert vault.__version__ == project["version"]


def test_the_page_is_made_from_the_face() -> None:
    """`make docs` writes docs/api.md."""
    assert (TOP / "docs" / "api.md").read_text("utf-8") == api()
