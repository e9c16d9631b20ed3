"""Passphrases, from a file and from the terminal, and slips in them."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from cli.options import Options
from cli.passphrase import slips
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
    found = invocation(VAULT_PASSPHRASE_FILE=str(file)).passphrase("recovery.key")
    assert found == secret


@pytest.mark.parametrize("content", [b"", b"\nlater\n", b"x" * 4097])
def test_an_unusable_passphrase_file_is_refused(tmp_path: Path, content: bytes) -> None:
    """Empty or endless; so is one that is not there."""
    file = tmp_path / "file"
    file.write_bytes(content)
    file.chmod(0o600)
    for path in (file, tmp_path / "absent"):
        with pytest.raises(WrongKeyError):
            invocation(VAULT_PASSPHRASE_FILE=str(path)).passphrase("recovery.key")


def test_a_passphrase_file_that_others_can_read_is_warned_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is used all the same."""
    file = tmp_path / "file"
    file.write_bytes(b"one\n")
    file.chmod(0o644)
    assert invocation(VAULT_PASSPHRASE_FILE=str(file)).passphrase("recovery.key") == b"one"
    assert f"chmod 600 {file}" in capsys.readouterr().err


def answers(monkeypatch: pytest.MonkeyPatch, *texts: str) -> None:
    """What is typed on a terminal."""
    waiting = list(texts)
    monkeypatch.setattr("sys.stdin", SimpleNamespace(isatty=lambda: True))
    monkeypatch.setattr("getpass.getpass", lambda _: waiting.pop(0))


def test_a_new_passphrase_must_be_typed_twice_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """A typing error would lock everybody out."""
    answers(monkeypatch, "ä", "ä")
    assert invocation().passphrase("keys", confirm=True) == "ä".encode()
    answers(monkeypatch, "one", "two")
    with pytest.raises(ConfigError, match="differ"):
        invocation().passphrase("keys", confirm=True)
    answers(monkeypatch, "")
    with pytest.raises(WrongKeyError, match="empty"):
        invocation().passphrase("keys", confirm=True)


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
