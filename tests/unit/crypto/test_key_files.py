"""Key files: what is kept, who may read it, and every way it may be damaged."""

import base64
import dataclasses
import json
import os
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vault.crypto.key_file_bytes import MAX_KEY_FILE, Argon2Cost
from vault.crypto.key_files import (
    DomainSecrets,
    KeyRequest,
    RecoveryKey,
    RepositoryAddress,
    RootKey,
    WriterKey,
    load_recovery,
    load_request,
    load_root,
    load_writer,
    peek,
    save_recovery,
    save_request,
    save_root,
    save_writer,
    take_over,
)
from vault.crypto.keys import RecipientKey, SigningKey
from vault.errors import (
    ConfigError,
    FormatError,
    IntegrityError,
    LocalError,
    SignatureError,
    VaultError,
    WrongKeyError,
)

CHEAP = Argon2Cost(memory=32, iterations=1, lanes=2)
ADDRESS = RepositoryAddress(id="0f" * 16, url="s3://bucket/prefix", endpoint="", root="ab" * 32)
WRITER = WriterKey(
    repository=ADDRESS,
    name="web1",
    signing=SigningKey.generate(),
    recipient=RecipientKey.generate(),
    domain=DomainSecrets.new("default"),
)
RECOVERY = RecoveryKey(
    repository=ADDRESS, recipient=RecipientKey.generate(), restorer=SigningKey.generate()
)
ROOT = RootKey(
    repository=ADDRESS,
    root=SigningKey.generate(),
    enroller=SigningKey.generate(),
    policy=SigningKey.generate(),
    pruner=SigningKey.generate(),
)


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a key file's JSON in place."""
    members = json.loads(path.read_bytes())
    change(members)
    path.write_text(json.dumps(members))


# --- round trips ---


@pytest.mark.parametrize("domain", [WRITER.domain, None], ids=["enrolled", "requested"])
def test_writer_round_trips(tmp_path: Path, domain: DomainSecrets | None) -> None:
    """With and without a domain."""
    path, key = tmp_path / "writer.key", dataclasses.replace(WRITER, domain=domain)
    save_writer(path, key)
    assert load_writer(path) == key
    assert peek(path) == ("writer", ADDRESS)


def test_recovery_and_root_round_trip(tmp_path: Path) -> None:
    """Under their passphrase, at the cost that is written in them."""
    save_recovery(tmp_path / "recovery.key", RECOVERY, b"pass phrase", cost=CHEAP)
    save_root(tmp_path / "root.key", ROOT, b"pass phrase", cost=CHEAP)
    assert load_recovery(tmp_path / "recovery.key", b"pass phrase") == RECOVERY
    assert load_root(tmp_path / "root.key", b"pass phrase") == ROOT
    assert peek(tmp_path / "recovery.key") == ("recovery", ADDRESS)
    assert peek(tmp_path / "root.key") == ("root", ADDRESS)


def test_the_default_cost_is_that_of_the_design(tmp_path: Path) -> None:
    """Argon2id with 64 MiB, 3 iterations, 4 lanes; salt and nonce fresh in each file."""
    kept = []
    for name in ("one", "two"):
        save_recovery(tmp_path / name, RECOVERY, b"pass phrase")
        kept.append(json.loads((tmp_path / name).read_bytes()))
    cost = {name: kept[0]["kdf"][name] for name in ("name", "memory", "iterations", "lanes")}
    assert cost == {"name": "argon2id", "memory": 65_536, "iterations": 3, "lanes": 4}
    assert kept[0]["kdf"]["salt"] != kept[1]["kdf"]["salt"]
    assert kept[0]["nonce"] != kept[1]["nonce"]


def test_request_round_trips(tmp_path: Path) -> None:
    """It proves possession of the key and holds no secret."""
    request = KeyRequest.signed(
        WRITER, datasets=("web*",), domain="web", domain_object=b"sealed elsewhere"
    )
    save_request(tmp_path / "request", request)
    assert load_request(tmp_path / "request") == request
    text = (tmp_path / "request").read_text()
    assert isinstance(WRITER.signing, SigningKey)
    for secret in (WRITER.signing.pkcs8(), WRITER.recipient.raw()):
        assert base64.b64encode(secret).decode() not in text


# --- files ---


def test_files_are_for_their_owner_alone(tmp_path: Path) -> None:
    """Whatever the umask."""
    before = os.umask(0)
    try:
        save_writer(tmp_path / "writer.key", WRITER)
        save_recovery(tmp_path / "recovery.key", RECOVERY, b"p", cost=CHEAP)
    finally:
        os.umask(before)
    for path in tmp_path.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602])
def test_a_writer_file_others_may_use_is_refused(tmp_path: Path, mode: int) -> None:
    """It has no passphrase; the hint says what to do."""
    path = tmp_path / "writer.key"
    save_writer(path, WRITER)
    path.chmod(mode)
    with pytest.raises(ConfigError) as caught:
        load_writer(path)
    assert caught.value.hint == f"chmod 600 {path}"


def test_files_are_never_overwritten(tmp_path: Path) -> None:
    """Nor through a dangling link; a lost key is lost data."""
    path = tmp_path / "key"
    path.write_text("precious")
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "elsewhere")
    for taken in (path, link):
        with pytest.raises(ConfigError, match="never overwritten"):
            save_writer(taken, WRITER)
        with pytest.raises(ConfigError, match="never overwritten"):
            save_recovery(taken, RECOVERY, b"p", cost=CHEAP)
    assert path.read_text() == "precious"
    assert not (tmp_path / "elsewhere").exists()


def test_a_full_disk_leaves_no_half_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A failed fsync removes what was made and says so."""

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(LocalError, match="No space left"):
        save_writer(tmp_path / "writer.key", WRITER)
    assert list(tmp_path.iterdir()) == []


def test_file_and_directory_are_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Durable on return."""
    synced: list[int | None] = []
    sync = os.fsync

    def note(descriptor: int) -> None:
        status = os.fstat(descriptor)
        synced.append(None if stat.S_ISDIR(status.st_mode) else status.st_size)
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    path = tmp_path / "writer.key"
    save_writer(path, WRITER)
    assert synced == [path.stat().st_size, None]


def test_missing_files_ask_for_a_key(tmp_path: Path) -> None:
    """Exit 12 with a hint, for every loader."""
    path = tmp_path / "none"
    for load in (load_writer, load_request, peek):
        with pytest.raises(WrongKeyError) as caught:
            load(path)
        assert caught.value.hint
    with pytest.raises(WrongKeyError):
        load_recovery(path, b"p")


def test_what_is_no_regular_file_is_refused(tmp_path: Path) -> None:
    """A FIFO does not hang, a directory is an error."""
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(ConfigError, match="regular"):
        peek(tmp_path / "fifo")
    with pytest.raises(VaultError):
        peek(tmp_path)


def test_unwritable_places_are_local_errors(tmp_path: Path) -> None:
    """No such directory."""
    with pytest.raises(LocalError):
        save_writer(tmp_path / "none" / "writer.key", WRITER)


# --- passphrase and seal ---


def test_wrong_passphrases_are_wrong_keys(tmp_path: Path) -> None:
    """Exit 12, not an integrity error."""
    path = tmp_path / "recovery.key"
    save_recovery(path, RECOVERY, b"right", cost=CHEAP)
    for wrong in (b"", b"wrong", b"right\n"):
        with pytest.raises(WrongKeyError):
            load_recovery(path, wrong)


def test_empty_passphrases_are_refused(tmp_path: Path) -> None:
    """When a file is made."""
    with pytest.raises(ConfigError):
        save_root(tmp_path / "root.key", ROOT, b"", cost=CHEAP)
    assert list(tmp_path.iterdir()) == []


def test_files_of_another_kind_are_wrong_keys(tmp_path: Path) -> None:
    """A writer's file is no recovery key; a root key relabelled as recovery does not open."""
    save_writer(tmp_path / "writer.key", WRITER)
    save_root(tmp_path / "root.key", ROOT, b"p", cost=CHEAP)
    with pytest.raises(WrongKeyError, match="another kind"):
        load_recovery(tmp_path / "writer.key", b"p")
    (tmp_path / "root.key").chmod(0o600)
    with pytest.raises(WrongKeyError, match="another kind"):
        load_writer(tmp_path / "root.key")
    edit(tmp_path / "root.key", lambda members: members.update(kind="recovery"))
    with pytest.raises(WrongKeyError):
        load_recovery(tmp_path / "root.key", b"p")


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m["repository"].update(url="s3://attacker/bucket"),
        lambda m: m["repository"].update(endpoint="http://attacker"),
        lambda m: m["repository"].update(root="cd" * 32),
        lambda m: m["repository"].update(id="1f" * 16),
        lambda m: m["repository"].update(extra=1),
        lambda m: m["kdf"].update(iterations=2),
        lambda m: m["kdf"].update(salt=base64.b64encode(bytes(16)).decode()),
        lambda m: m.update(nonce=base64.b64encode(bytes(12)).decode()),
        lambda m: m.update(extra="x"),
        lambda m: m.update(sealed=base64.b64encode(bytes(300)).decode()),
        lambda m: m.update(sealed=""),
    ],
    ids=[
        "url",
        "endpoint",
        "root",
        "id",
        "extra in address",
        "cost",
        "salt",
        "nonce",
        "extra",
        "sealed",
        "empty",
    ],
)
def test_clear_members_are_authenticated(
    tmp_path: Path, change: Callable[[dict[str, Any]], object]
) -> None:
    """An address that was altered would send the operator to another store."""
    path = tmp_path / "recovery.key"
    save_recovery(path, RECOVERY, b"p", cost=CHEAP)
    edit(path, change)
    with pytest.raises(WrongKeyError, match="does not open"):
        load_recovery(path, b"p")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("memory", (1 << 20) + 1),
        ("memory", 2**50),
        ("memory", 0),
        ("memory", 7),
        ("memory", True),
        ("iterations", 17),
        ("iterations", 0),
        ("lanes", 17),
        ("lanes", -1),
        ("name", "scrypt"),
        ("salt", "AAAA"),
        ("salt", "not base64"),
    ],
)
def test_costs_are_capped_before_use(tmp_path: Path, name: str, value: object) -> None:
    """A key file from elsewhere must not take the machine's memory."""
    path = tmp_path / "recovery.key"
    save_recovery(path, RECOVERY, b"p", cost=CHEAP)
    edit(path, lambda members: members["kdf"].update({name: value}))
    with pytest.raises(FormatError):
        load_recovery(path, b"p")


def test_every_flipped_byte_is_detected(tmp_path: Path) -> None:
    """Of a sealed file; a byte that leaves the JSON equal is the only one that may open."""
    path = tmp_path / "recovery.key"
    save_recovery(path, RECOVERY, b"p", cost=CHEAP)
    data = path.read_bytes()
    for at in range(0, len(data), 3):
        path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        with pytest.raises((FormatError, WrongKeyError)):
            load_recovery(path, b"p")
        path.write_bytes(data[:at])
        with pytest.raises((FormatError, WrongKeyError)):
            load_recovery(path, b"p")


# --- malformed files ---


def test_large_files_are_refused(tmp_path: Path) -> None:
    """A sound key file with much white space is not read."""
    path = tmp_path / "writer.key"
    save_writer(path, WRITER)
    path.write_bytes(path.read_bytes().ljust(MAX_KEY_FILE))
    assert load_writer(path) == WRITER
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(FormatError, match="too large"):
        load_writer(path)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b"junk",
        b"\xff",
        b'{"vault-key": 2}',
        b'{"vault-key": true}',
        b'{"vault-key": 1, "vault-key": 1}',
        b'{"vault-key": 1}',
        b" " * (MAX_KEY_FILE + 1),
    ],
    ids=[
        "empty",
        "object",
        "array",
        "null",
        "junk",
        "not UTF-8",
        "version",
        "bool",
        "duplicate",
        "bare",
        "large",
    ],
)
def test_malformed_files_are_format_errors(tmp_path: Path, data: bytes) -> None:
    """For every loader; they say which file."""
    path = tmp_path / "key"
    path.write_bytes(data)
    path.chmod(0o600)
    for load in (load_writer, load_request, peek):
        with pytest.raises(FormatError, match=f"^{re.escape(str(path))}: "):
            load(path)
    for load_sealed in (load_recovery, load_root):
        with pytest.raises(FormatError, match=f"^{re.escape(str(path))}: "):
            load_sealed(path, b"p")


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.pop("repository"),
        lambda m: m["repository"].update(id="0F" * 16),
        lambda m: m["repository"].update(root="ab"),
        lambda m: m["repository"].update(url=7),
        lambda m: m.pop("secret"),
        lambda m: m["secret"].pop("signing"),
        lambda m: m["secret"].update(signing="AAAA"),
        lambda m: m["secret"].update(recipient="AAAA"),
        lambda m: m["secret"].update(name="../web"),
        lambda m: m["secret"].update(domain=[]),
        lambda m: m["secret"]["domain"].update(id_key="AAAA"),
        lambda m: m["secret"]["domain"].update(index_key=None),
        lambda m: m["secret"]["domain"].update(name="Web"),
    ],
    ids=[
        "no address",
        "id",
        "root",
        "url",
        "no secret",
        "no signing",
        "signing",
        "recipient",
        "name",
        "domain",
        "id key",
        "index key",
        "domain name",
    ],
)
def test_malformed_writers_are_format_errors(
    tmp_path: Path, change: Callable[[dict[str, Any]], object]
) -> None:
    """Each member is checked."""
    path = tmp_path / "writer.key"
    save_writer(path, WRITER)
    edit(path, change)
    with pytest.raises(FormatError):
        load_writer(path)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda m: m.update(name="web2"), SignatureError),
        (lambda m: m.update(datasets=["*"]), SignatureError),
        (lambda m: m.update(domain="other"), SignatureError),
        (lambda m: m.update(domain_object=None), SignatureError),
        (lambda m: m.update(extra=1), SignatureError),
        (lambda m: m["repository"].update(root="cd" * 32), SignatureError),
        (lambda m: m.update(signature=""), SignatureError),
        (
            lambda m: m.update(public=base64.b64encode(SigningKey.generate().public.der).decode()),
            SignatureError,
        ),
        (lambda m: m.update(public="AAAA"), FormatError),
        (lambda m: m.update(recipient="AAAA"), FormatError),
        (lambda m: m.update(datasets=[]), FormatError),
        (lambda m: m.update(datasets=[1]), FormatError),
        (lambda m: m.update(datasets="web"), FormatError),
        (lambda m: m.update(name="A"), FormatError),
    ],
    ids=[
        "name",
        "datasets",
        "domain",
        "object",
        "extra",
        "root",
        "signature",
        "key",
        "no key",
        "no recipient",
        "no dataset",
        "number",
        "string",
        "label",
    ],
)
def test_altered_requests_are_refused(
    tmp_path: Path,
    change: Callable[[dict[str, Any]], object],
    error: type[IntegrityError],
) -> None:
    """All of a request is signed by the key it asks to enrol."""
    path = tmp_path / "request"
    save_request(
        path, KeyRequest.signed(WRITER, datasets=("web",), domain="web", domain_object=b"x")
    )
    edit(path, change)
    with pytest.raises(error):
        load_request(path)


def test_secrets_do_not_show_in_repr() -> None:
    """Of any key."""
    text = repr(WRITER) + repr(RECOVERY) + repr(ROOT)
    assert WRITER.domain is not None
    assert isinstance(WRITER.signing, SigningKey)
    for secret in (
        WRITER.signing.pkcs8(),
        WRITER.recipient.raw(),
        WRITER.domain.id_key,
        WRITER.domain.index_key,
        RECOVERY.recipient.raw(),
        ROOT.root.pkcs8(),
    ):
        assert secret.hex() not in text
        assert repr(secret)[2:-1] not in text


def test_a_key_that_takes_over_is_in_its_place_before_the_directory_is_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And it is synced: after a power cut the host has the key that the ledger lists."""
    fresh, path = tmp_path / "writer.key.new", tmp_path / "writer.key"
    fresh.write_bytes(b"new")
    path.write_bytes(b"old")
    synced: list[bytes] = []

    def fsync(fd: int) -> None:
        if os.path.samestat(os.fstat(fd), tmp_path.stat()):
            synced.append(path.read_bytes())

    monkeypatch.setattr(os, "fsync", fsync)
    take_over(fresh, path)
    assert synced == [b"new"]
    assert list(tmp_path.iterdir()) == [path]
