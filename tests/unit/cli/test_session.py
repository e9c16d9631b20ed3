"""Places, passphrases, and which head is worth remembering."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from cli.options import Options
from cli.session import Invocation, Places, _home, settled_head, slips
from vault.errors import ConfigError, WrongKeyError
from vault.ledger.envelope import Head
from vault.model import Digest

NOW = datetime(2030, 1, 1, tzinfo=UTC)
HOME = Path("/home/ann")


def places(*, is_root: bool, **environment: str) -> Places:
    """Of a machine."""
    return Places.of(environment, home=HOME, is_root=is_root)


def test_root_keeps_its_files_where_the_system_does() -> None:
    """docs/design.md "Keys and hosts"."""
    found = places(is_root=True)
    assert (found.keys, found.state, found.cache) == (
        Path("/etc/vault"),
        Path("/var/lib/vault"),
        Path("/var/cache/vault"),
    )


def test_others_keep_them_at_home() -> None:
    """The XDG defaults."""
    found = places(is_root=False)
    assert (found.keys, found.state, found.cache) == (
        HOME / ".config/vault",
        HOME / ".local/state/vault",
        HOME / ".cache/vault",
    )


def test_without_any_home_a_user_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """HOME unset or relative, and no entry in the list of users; XDG variables do without."""

    def none(_: int) -> None:
        raise KeyError

    monkeypatch.setattr("pwd.getpwuid", none)
    environments: list[dict[str, str]] = [{}, {"HOME": ""}, {"HOME": "relative"}]
    for environment in environments:
        assert _home(environment) is None
    with pytest.raises(ConfigError, match="XDG_"):
        Places.of({}, home=None, is_root=False)
    assert Places.of({}, home=None, is_root=True).state == Path("/var/lib/vault")
    xdg = {f"XDG_{name}_HOME": f"/{name}" for name in ("CONFIG", "STATE", "CACHE")}
    assert Places.of(xdg, home=None, is_root=False).state == Path("/STATE/vault")


def test_xdg_variables_decide_for_root_too() -> None:
    """Where they are absolute; others are ignored, as the specification says."""
    found = places(is_root=True, XDG_STATE_HOME="/x", XDG_CACHE_HOME="relative")
    assert found.state == Path("/x/vault")
    assert found.cache == Path("/var/cache/vault")


def test_vault_keys_is_the_directory_itself() -> None:
    """Nothing is appended."""
    assert places(is_root=True, VAULT_KEYS="/k", XDG_CONFIG_HOME="/x").keys == Path("/k")


# --- which server ---

SERVER = "https://s3.example"


def asked(
    monkeypatch: pytest.MonkeyPatch, url: str, *, option: str = "", **environment: str
) -> str:
    """The endpoint for a URL, where the key file names `SERVER` for ``s3://bucket/v``."""
    run = Invocation(Options(repo=url, endpoint_url=option or None), environment)
    known = SimpleNamespace(url="s3://bucket/v", endpoint=SERVER)
    monkeypatch.setattr(run, "_known", lambda: known)
    location = run.location()
    assert location is not None
    return location.endpoint


@pytest.mark.parametrize(
    "url", ["s3://bucket/v", "s3://bucket/v/", "s3://bucket//v", "s3://bucket/copy"]
)
def test_a_key_file_s_server_serves_its_whole_bucket(
    monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    """A slash must not send a signed request to Amazon."""
    assert asked(monkeypatch, url) == SERVER


def test_another_bucket_s_server_is_never_guessed(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is asked for; what is said counts, by option or as boto3 hears it."""
    with pytest.raises(ConfigError, match="which server"):
        asked(monkeypatch, "s3://other/v")
    assert asked(monkeypatch, "s3://other/v", option="https://o.example") == "https://o.example"
    assert asked(monkeypatch, "s3://other/v", AWS_ENDPOINT_URL_S3="https://o.example") == ""


def test_a_directory_has_no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the key files say."""
    assert asked(monkeypatch, "/srv/backup") == ""


# --- passphrases ---


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


# --- remembered heads ---


def ledger(*ages: timedelta, ordered: bool) -> Any:
    """A repository whose statements are that old."""
    records = [
        SimpleNamespace(head=Head(seq=seq, digest=Digest(bytes(32))), modified=NOW - age)
        for seq, age in enumerate(ages)
    ]
    traits = SimpleNamespace(orders_versions_by_commit=ordered)
    return SimpleNamespace(
        store=SimpleNamespace(traits=traits),
        ledger=SimpleNamespace(records=records),
        head=records[-1].head,
    )


@pytest.mark.parametrize(
    ("ages", "ordered", "seq"),
    [
        ([60, 50, 0], True, 2),
        ([60, 50, 9], False, 1),
        ([60, 50, 10], False, 2),
        ([0], False, 0),
    ],
)
def test_only_a_head_that_no_race_can_undo_is_remembered(
    ages: list[int], *, ordered: bool, seq: int
) -> None:
    """At once where versions are ordered by commit, else with a successor or after 10 minutes."""
    repository = ledger(*(timedelta(minutes=age) for age in ages), ordered=ordered)
    assert settled_head(cast("Any", repository), NOW).seq == seq


# --- slips in a passphrase ---


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
