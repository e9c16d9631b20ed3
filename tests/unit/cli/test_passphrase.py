"""Passphrases, from a file and from the terminal, and slips in them."""

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from cli.options import Options
from cli.passphrase import require_strong, slips
from cli.session import Invocation
from vault.errors import ConfigError, WrongKeyError


def invocation(**environment: str) -> Invocation:
    """Of a bare environment."""
    return Invocation(Options(), {"HOME": "/nonexistent", **environment})


@pytest.mark.parametrize(
    ("content", "secret"),
    [
        (b"one\ntwo\n", b"one"),
        (b"one\r\n", b"one"),
        (b" with blanks \n", b" with blanks "),
        (b"\xff\x00", b"\xff\x00"),
    ],
)
def test_the_first_line_of_the_file_is_the_passphrase(
    tmp_path: Path, content: bytes, secret: bytes
) -> None:
    """Byte by byte, without its line end."""
    file = tmp_path / "file"
    file.write_bytes(content)
    file.chmod(0o600)
    found = invocation(VAULT_PASSPHRASE_FILE=str(file)).secrets.passphrase("recovery.key")
    assert found == secret


@pytest.mark.parametrize("content", [b"", b"\nlater\n", b"x" * 4097])
def test_an_unusable_passphrase_file_is_refused(tmp_path: Path, content: bytes) -> None:
    """Empty or endless; so is one that is not there."""
    file = tmp_path / "file"
    file.write_bytes(content)
    file.chmod(0o600)
    for path in (file, tmp_path / "absent"):
        with pytest.raises(WrongKeyError):
            invocation(VAULT_PASSPHRASE_FILE=str(path)).secrets.passphrase("recovery.key")


def test_a_passphrase_file_that_others_can_read_is_warned_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is used all the same."""
    file = tmp_path / "file"
    file.write_bytes(b"one\n")
    file.chmod(0o644)
    assert invocation(VAULT_PASSPHRASE_FILE=str(file)).secrets.passphrase("recovery.key") == b"one"
    assert f"chmod 600 {file}" in capsys.readouterr().err


def answers(monkeypatch: pytest.MonkeyPatch, *texts: str) -> None:
    """What is typed on a terminal."""
    waiting = list(texts)
    monkeypatch.setattr("sys.stdin", SimpleNamespace(isatty=lambda: True))
    monkeypatch.setattr("getpass.getpass", lambda _: waiting.pop(0))


def test_a_new_passphrase_must_be_typed_twice_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """A typing error would lock everybody out."""
    answers(monkeypatch, "ä", "ä")
    assert invocation().secrets.passphrase("keys", confirm=True) == "ä".encode()
    answers(monkeypatch, "one", "two")
    with pytest.raises(ConfigError, match="differ"):
        invocation().secrets.passphrase("keys", confirm=True)
    answers(monkeypatch, "")
    with pytest.raises(WrongKeyError, match="empty"):
        invocation().secrets.passphrase("keys", confirm=True)


@pytest.mark.parametrize(
    "weak",
    [
        "",
        "x",
        "elevenchars",
        "a b c",
        "one one one",
        "  two  spaced  ",
        "x" + " " * 40,
        "äöüäöüäöüäö",
    ],
)
def test_a_short_passphrase_is_refused_unless_it_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, weak: str
) -> None:
    """12 characters or 4 different words; blanks at the ends count for nothing."""
    with pytest.raises(ConfigError, match="too short"):
        require_strong(weak.encode())
    if weak:
        answers(monkeypatch, weak, weak, weak, weak)
        with pytest.raises(ConfigError, match="too short"):
            invocation().secrets.new_passphrase("keys", weak=False)
        assert invocation().secrets.new_passphrase("keys", weak=True) == weak.encode()


@pytest.mark.parametrize("strong", ["twelve-chars", "ab it me us", "äöüäöüäöüäöü", "correct horse"])
def test_a_long_passphrase_is_taken(strong: str) -> None:
    """Characters are counted, not bytes."""
    require_strong(strong.encode())


def test_a_slip_in_a_new_passphrase_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It would be part of it for ever."""
    answers(monkeypatch, "correct horse ", "correct horse ")
    assert invocation().secrets.new_passphrase("keys", weak=False) == b"correct horse "
    assert "the new passphrase ends with a blank" in capsys.readouterr().err


# --- by a command ---


@pytest.mark.parametrize(
    ("command", "secret"),
    [
        ("echo one; echo two", b"one"),
        ("printf 'one two'", b"one two"),
        ("printf ' one\\r\\n'", b" one"),
        ("printf '%s\\n' \"$HOME\" | sed s/.*/one/; yes | head -n 100000", b"one"),
    ],
)
def test_the_first_line_that_a_command_prints_is_the_passphrase(
    command: str, secret: bytes
) -> None:
    """Whatever it prints behind it."""
    assert invocation(VAULT_PASSPHRASE_COMMAND=command).secrets.passphrase("recovery.key") == secret


def test_an_agent_that_a_command_leaves_behind_is_not_waited_for(tmp_path: Path) -> None:
    """It holds the command's output open for as long as it runs; here until the test ends it."""
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    found = invocation(VAULT_PASSPHRASE_COMMAND=f"echo one; cat {gate} &").secrets.passphrase(
        "keys"
    )
    gate.open("wb").close()  # waits for the agent, which then ends
    assert found == b"one"


@pytest.mark.parametrize(
    "command",
    [
        "true",
        "echo",
        "false",
        "echo one; exit 3",
        "no-such-program",
        "yes x | tr -d '\\n' | head -c 5000",
    ],
)
def test_a_command_that_gives_none_is_refused(command: str) -> None:
    """It fails, prints nothing, an empty line, or one without an end."""
    with pytest.raises(WrongKeyError, match="VAULT_PASSPHRASE_COMMAND"):
        invocation(VAULT_PASSPHRASE_COMMAND=command).secrets.passphrase("recovery.key")


def test_a_file_and_a_command_together_are_refused(tmp_path: Path) -> None:
    """Which of the two is meant can't be told."""
    both = invocation(VAULT_PASSPHRASE_FILE=str(tmp_path / "x"), VAULT_PASSPHRASE_COMMAND="echo x")
    with pytest.raises(ConfigError, match="both"):
        both.secrets.passphrase("recovery.key")


@pytest.mark.parametrize(
    ("passphrase", "slip"),
    [
        (b"\xef\xbb\xbfcorrect horse", "byte-order mark"),
        (b"\xff\xfec\0o\0", "byte-order mark"),
        (b" correct horse", "begins with a blank"),
        (b"correct horse ", "ends with a blank"),
        (b"correct horse\t", "ends with a blank"),
        (b"c\0o\0", "NUL bytes"),
    ],
)
def test_what_is_not_seen_in_a_passphrase_is_named(passphrase: bytes, slip: str) -> None:
    """So that nobody looks for another key."""
    assert any(slip in each for each in slips(passphrase))


def test_a_plain_passphrase_has_no_slips() -> None:
    """Blanks within it, and letters of any alphabet, are nothing odd."""
    assert slips("correct horse, gehe\u00edm 1".encode()) == []
