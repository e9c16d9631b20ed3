"""The program as a process: signals, pipes, a terminal, start-up."""

import json
import os
import pty
import select
import signal
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import pytest

Vault: TypeAlias = Callable[..., tuple[int, str, str]]
Process: TypeAlias = Callable[..., subprocess.Popen[str]]

# A snapshot that lasts until it is ended, with workers running.
_SLOW = """
import threading, cli.main, cli.commands.snapshot
def take_snapshot(*_, workers, **__):
    workers.compute.submit(lambda: None).result()
    print("started", flush=True)
    threading.Event().wait(60)
cli.commands.snapshot.take_snapshot = take_snapshot
cli.main.main()
"""


@pytest.fixture(autouse=True)
def _interruptible() -> Iterator[None]:
    """Tests that run in the background of a shell inherit an ignored Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def end(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Wait for it."""
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def read_until(terminal: int, marker: bytes) -> bytes:
    """What a terminal shows up to a marker, within a minute."""
    shown = b""
    while marker not in b" ".join(shown.split()) + b" ":
        ready, _, _ = select.select([terminal], [], [], 60)
        assert ready, shown
        shown += os.read(terminal, 1024)
    return shown


def test_the_whole_way_with_the_real_cost_of_a_passphrase(
    process: Process, home: Path, source: Path
) -> None:
    """init, snapshot, restore, each a process of its own."""
    for arguments in (
        ["init", home / "repository"],
        ["snapshot", source, "--name", "data"],
        ["restore", "data", home / "target"],
    ):
        code, _, err = end(process(*arguments))
        assert code == 0, err
        assert "Traceback" not in err
    assert (home / "target/readme").read_bytes() == (source / "readme").read_bytes()


@pytest.mark.parametrize(
    ("number", "code", "word"),
    [
        (signal.SIGINT, 130, "interrupted"),
        (signal.SIGTERM, 143, "terminated"),
        (signal.SIGHUP, 143, "terminated"),
    ],
)
def test_signals_end_it_cleanly(
    repository: Path, source: Path, number: int, code: int, word: str
) -> None:
    """A word at once, what it leaves, no traceback, workers shut down."""
    arguments = ["snapshot", str(source), "--name", "data"]
    running = subprocess.Popen(
        [sys.executable, "-c", _SLOW, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert running.stdout is not None
    assert running.stdout.readline() == "started\n"
    running.send_signal(number)
    found, _, err = end(running)
    assert found == code
    assert f"vault: {word} while " in err
    assert err.splitlines()[-2:] == [
        f"vault: error: {word}",
        "vault: nothing was published; the next run takes up what was stored",
    ]
    assert "Traceback" not in err


def test_a_reader_that_leaves_changes_no_exit_code(repository: Path, process: Process) -> None:
    """As with `vault list | true`."""
    reading, writing = os.pipe()
    os.close(reading)
    running = process("list", stdout=writing)
    os.close(writing)
    assert end(running)[::2] == (0, "")


@pytest.mark.parametrize("arguments", [["list"], ["--json", "list"], ["--json", "nonsense"]])
def test_a_full_disk_behind_stdout_is_an_error(
    repository: Path, process: Process, arguments: list[str]
) -> None:
    """What was to be said did not get out."""
    with Path("/dev/full").open("w") as full:
        code, _, err = end(process(*arguments, stdout=full))
    if "nonsense" in arguments:
        assert (code, "No such command" in err) == (2, True)
        return
    assert code == 14
    assert "Traceback" not in err


def test_a_passphrase_is_asked_for_on_the_terminal_twice(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not shown."""
    monkeypatch.delenv("VAULT_PASSPHRASE_FILE")
    child, terminal = pty.fork()
    if child == 0:
        command = [sys.executable, "-m", "cli.main", "init", "repository"]
        os.execv(sys.executable, command)
    shown = b""
    for prompt in (b"root.key: ", b"again: "):
        shown += read_until(terminal, prompt)
        os.write(terminal, b"a secret of some length\n")
    shown += read_until(terminal, b"away from this host.")
    _, status = os.waitpid(child, 0)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(status) == 0, shown
    assert b"a secret" not in shown
    assert (home / "config/vault/root.key").exists()


@pytest.mark.parametrize("end_of_input", [b"\x03", b"\x04"])
def test_leaving_at_the_prompt_ends_its_line(
    repository: Path,
    source: Path,
    vault: Vault,
    monkeypatch: pytest.MonkeyPatch,
    end_of_input: bytes,
) -> None:
    """By Ctrl-C or Ctrl-D: 130, and the terminal echoes again."""
    assert vault("snapshot", source, "--name", "data")[0] == 0
    monkeypatch.delenv("VAULT_PASSPHRASE_FILE")
    child, terminal = pty.fork()
    if child == 0:
        os.execv(sys.executable, [sys.executable, "-m", "cli.main", "ls", "data"])
    shown = read_until(terminal, b"recovery.key: ")
    os.write(terminal, end_of_input)
    shown += read_until(terminal, b"interrupted ")
    assert b"recovery.key: \r\nvault: error: interrupted" in shown.replace(b"^C", b"")
    assert termios.tcgetattr(terminal)[3] & termios.ECHO
    _, status = os.waitpid(child, 0)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(status) == 130


def test_starting_imports_nothing_that_is_not_used() -> None:
    """docs/design.md "Speed and scale": --help and list must start at once."""
    heavy = {"boto3", "botocore", "rich", "cryptography", "lmdb", "zstandard", "pathspec"}

    def imported(code: str) -> set[str]:
        code = f"import sys; {code}; print(*sys.modules)"
        done = subprocess.run(
            [sys.executable, "-c", code], check=True, capture_output=True, text=True
        )
        return heavy & set(done.stdout.split())

    assert imported("import cli.main") == set()
    assert imported("import cli.commands.list") <= {"cryptography", "zstandard"}


def test_version(process: Process) -> None:
    """Name and number."""
    assert end(process("--version"))[1].startswith("vault 0.")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script(vault: Vault, shell: str) -> None:
    """It calls back with the variable that the program looks for."""
    code, out, _ = vault("completion", shell)
    assert code == 0
    assert "_VAULT_COMPLETE" in out


@pytest.mark.parametrize("group", [[], ["key"], ["index"], ["attest"], ["store"]])
def test_a_group_alone_says_what_is_missing(vault: Vault, group: list[str]) -> None:
    """In a line, not as an escaped page."""
    code, out, err = vault(*group)
    assert (code, out) == (2, "")
    command = " ".join(["vault", *group])
    assert err == (
        f"vault: error: which command?\nvault: hint: '{command} --help' shows what it takes\n"
    )


def test_completion_knows_the_commands(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a shell asks."""
    monkeypatch.setenv("_VAULT_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", "vault sn")
    monkeypatch.setenv("COMP_CWORD", "1")
    assert end(process())[1] == "plain,snapshot\n"


def test_json_is_one_line_of_ascii(vault: Vault, repository: Path, source: Path) -> None:
    """Even where a file name is not UTF-8."""
    (source / "caf\udce9").touch()
    (source / "naïve").touch()
    assert vault("snapshot", source, "--name", "data")[0] == 0
    code, out, _ = vault("--json", "export-checksums", "data")
    assert code == 0
    assert out.isascii()
    files: list[dict[str, Any]] = json.loads(out)["files"]
    assert {"naïve", "caf\\xe9"} <= {file["path"] for file in files}
    assert [file["path_base64"] for file in files if "path_base64" in file] == ["Y2Fm6Q=="]
