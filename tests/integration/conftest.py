"""The program as users run it: in this process with cheap passphrases, or as a process."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest

import cli.init
from cli.main import run
from vault.keyfile import Argon2Cost

Vault: TypeAlias = Callable[..., tuple[int, str, str]]

PASSPHRASE = "correct horse"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's home, the only place that the program may use; the working directory too."""
    for name in list(os.environ):
        if name.startswith(("VAULT_", "XDG_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("TZ", "UTC")
    secret = tmp_path / "passphrase"
    secret.write_text(PASSPHRASE + "\nnot part of it\n")
    secret.chmod(0o600)
    monkeypatch.setenv("VAULT_PASSPHRASE_FILE", str(secret))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def vault(home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Vault:
    """Runs a command line in this process; gives exit code, stdout, stderr."""
    monkeypatch.setattr(cli.init, "COST", Argon2Cost(memory=64, iterations=1, lanes=1))

    def call(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = run([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return code, out, err

    return call


@pytest.fixture
def vault_json(vault: Vault) -> Callable[..., Any]:
    """Runs a command line with ``--json``, which must succeed and print one object."""

    def call(*arguments: object, code: int = 0) -> Any:
        found, out, err = vault("--json", *arguments)
        assert found == code, err
        return json.loads(out)

    return call


@pytest.fixture
def source(home: Path) -> Path:
    """A small tree to take snapshots of."""
    top = home / "source"
    (top / "etc").mkdir(parents=True)
    (top / "etc/hosts").write_text("127.0.0.1 localhost\n")
    (top / "readme").write_text("read me\n")
    (top / "again").hardlink_to(top / "readme")
    (top / "link").symlink_to("etc/hosts")
    return top


@pytest.fixture
def repository(vault: Vault, home: Path) -> Path:
    """A repository in a directory, made by the program, with its keys in the default place."""
    code, _, err = vault("init", home / "repository", "--host", "first")
    assert code == 0, err
    return home / "repository"


@pytest.fixture
def keys(home: Path) -> Path:
    """Where the key files are."""
    return home / "config/vault"


@pytest.fixture
def process(home: Path) -> Callable[..., subprocess.Popen[str]]:
    """Starts the program as a process of its own, in the same home."""

    def start(*arguments: object, **options: Any) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "cli.main", *map(str, arguments)]
        pipes: dict[str, Any] = {
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
        }
        return subprocess.Popen(command, text=True, **{**pipes, **options})

    return start
