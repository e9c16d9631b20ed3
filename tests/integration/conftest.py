"""The program as users run it: in this process with cheap passphrases, or as a process."""

import dataclasses
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import pytest

import cli.commands.init
from cli.main import run
from vault.crypto.key_file_bytes import Argon2Cost

Vault: TypeAlias = Callable[..., tuple[int, str, str]]

PASSPHRASE = "correct horse"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
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
    yield tmp_path
    # locked objects may be immutable, and the test run wants to remove its directory
    subprocess.run(["chattr", "-R", "-f", "-i", str(tmp_path)], check=False)


@pytest.fixture
def vault(home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Vault:
    """Runs a command line in this process; gives exit code, stdout, stderr."""
    monkeypatch.setattr(cli.commands.init, "COST", Argon2Cost(memory=64, iterations=1, lanes=1))

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


# --- docs/guide.md, whose lines are run ---

_STATUS = re.compile(r" +# exit ([0-9]+)$")
_CRON_FIELDS = 5
_END = "end of the command:"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One line that is typed, or that cron runs, and what must come of it."""

    section: str
    line: int  # of the page, from 1
    machine: str
    command: str
    status: int
    shown: list[str]  # lines that must come out in this order; … stands for anything

    def check(self, machine: "Machine") -> None:
        """Run it on a machine; fails where the page is wrong."""
        status, out = machine.run(self.command)
        place = f"line {self.line} of the page: {self.command}"
        assert status == self.status, f"{place}: exit {status}\n{out}"
        rest = iter([_blank(line) for line in out.splitlines()])
        for wanted in self.shown:
            parts = [re.escape(_blank(part)) for part in wanted.split("…")]
            pattern = re.compile(" ?.*".join(parts))
            assert any(map(pattern.fullmatch, rest)), f"{place}: no line {wanted!r}\n{out}"


def _blank(text: str) -> str:
    """Blanks at the ends and between words don't count."""
    return " ".join(text.split())


class Machine:
    """A machine with a home of its own and a shell that stays open."""

    def __init__(self, home: Path, variables: dict[str, str]) -> None:
        home.mkdir(parents=True, exist_ok=True)
        programs = Path(sys.executable).parent
        environment = {
            "HOME": str(home),
            "PATH": f"{programs}:{os.environ['PATH']}",
            "TZ": "UTC",
            "LC_ALL": "C.UTF-8",
            "XDG_CONFIG_HOME": str(home / ".config"),
            "XDG_STATE_HOME": str(home / ".local/state"),
            "XDG_CACHE_HOME": str(home / ".cache"),
            "KEYS": str(home / ".config/vault"),
            "STATE": str(home / ".local/state/vault"),
            "CACHE": str(home / ".cache/vault"),
            **variables,
        }
        self._shell = subprocess.Popen(
            ["sh"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            cwd=home,
            env=environment,
        )

    def run(self, command: str) -> tuple[int, str]:
        """Exit status, and all that was printed."""
        stdin, stdout = self._shell.stdin, self._shell.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(f"{{ {command}\n}} < /dev/null\nprintf '\\n%s %d\\n' '{_END}' $?\n")
        stdin.flush()
        out: list[str] = []
        for line in stdout:
            if line.startswith(_END):
                return int(line.removeprefix(_END)), "".join(out)
            out.append(line)
        raise AssertionError("the shell ended: " + "".join(out))

    def close(self) -> None:
        """End its shell."""
        self._shell.communicate()


def read_guide(text: str) -> list[Step]:
    """The steps of a page, in order."""
    steps: list[Step] = []
    section = fence = ""
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith("```"):
            fence = line.removeprefix("```") if not fence else ""
        elif not fence:
            section = line.removeprefix("## ") if line.startswith("## ") else section
        elif command := _command(fence, line):
            wanted = _STATUS.search(command)
            steps.append(
                Step(
                    section=section,
                    line=number,
                    machine=fence.split()[1],
                    command=command,
                    status=int(wanted[1]) if wanted else 0,
                    shown=[],
                )
            )
        elif fence.startswith("console "):
            steps[-1].shown.append(line)
    return steps


def _command(fence: str, line: str) -> str:
    """What is run of a line; nothing of one that is output or no command."""
    if fence.startswith("console ") and line.startswith("$ "):
        return line.removeprefix("$ ")
    if fence.startswith("crontab "):
        assert "%" not in line, "cron reads it as the end of a line"
        return line.split(maxsplit=_CRON_FIELDS)[_CRON_FIELDS]
    return ""


@pytest.fixture
def guide() -> Callable[[str], list[Step]]:
    """Reads the steps of a page."""
    return read_guide


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Callable[..., Machine]]:
    """Starts a machine: its home below ``tmp_path``, and the variables that the guide names."""
    started: list[Machine] = []

    def start(home: str, **variables: str) -> Machine:
        started.append(Machine(tmp_path / home, variables))
        return started[-1]

    yield start
    for each in started:
        each.close()
