"""What must never show, and what a host can't do with all that it holds."""

import base64
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

import pytest

from vault.crypto.key_files import load_recovery, load_root, load_writer
from vault.crypto.keys import SigningKey
from vault.crypto.sealed import MAX_HEADER, Header, Opener, open_seed
from vault.encoding import loads_strict
from vault.errors import DigestMismatchError, WrongKeyError

Vault: TypeAlias = Callable[..., tuple[int, str, str]]

PASSPHRASE = b"correct horse"  # as the fixture `home` writes it


def _secrets(keys: Path) -> list[bytes]:
    writer = load_writer(keys / "writer.key")
    recovery = load_recovery(keys / "recovery.key", PASSPHRASE)
    root = load_root(keys / "root.key", PASSPHRASE)
    assert writer.domain is not None
    assert isinstance(writer.signing, SigningKey)
    assert isinstance(recovery.restorer, SigningKey)
    signing = (writer.signing, recovery.restorer, root.root, root.enroller, root.policy)
    return [
        PASSPHRASE,
        writer.domain.id_key,
        writer.domain.index_key,
        writer.recipient.raw(),
        recovery.recipient.raw(),
        *(key.pkcs8() for key in (*signing, root.pruner)),
    ]


def _spellings(secret: bytes) -> Iterator[bytes]:
    yield secret
    yield secret.hex().encode()
    yield base64.b64encode(secret)
    yield repr(secret).encode()


def test_no_secret_is_printed_logged_or_stored_in_clear(
    vault: Vault, repository: Path, source: Path, keys: Path
) -> None:
    """Every command with -v and --json, failing ones too, and every object in the store."""
    said = bytearray()
    for arguments in (
        ("snapshot", source, "--name", "data"),
        ("list",),
        ("key", "list"),
        ("verify",),
        ("audit",),
        ("status",),
        ("restore", "data", "target"),
        ("restore", "data", "target"),
        ("restore", "nothing", "other"),
        ("snapshot", "missing", "--name", "data"),
        ("cat", "data", "nowhere"),
        ("index", "rebuild", "--from-packs"),
    ):
        for options in (("-v",), ("--json",)):
            _, out, err = vault(*options, *arguments)
            said += (out + err).encode("utf-8", "surrogateescape")
    stored = b"".join(path.read_bytes() for path in repository.rglob("*") if path.is_file())
    for secret in _secrets(keys):
        for spelling in _spellings(secret):
            assert spelling not in said
            assert spelling not in stored


def test_a_host_can_not_open_a_pack_of_an_earlier_run_with_all_it_holds(
    vault: Vault, repository: Path, source: Path, keys: Path, home: Path
) -> None:
    """Its keys are no recipients, and nothing 32 bytes long on its disk is the seed."""
    assert vault("snapshot", source, "--name", "data")[0] == 0
    for name in ("recovery.key", "root.key"):
        (keys / name).rename(home / name)
    writer = load_writer(keys / "writer.key")
    place = bytes.fromhex(writer.repository.id)
    held = _held(keys, home)
    packs = [path for path in (repository / "packs").rglob("*") if path.is_file()]
    assert packs
    recovery = load_recovery(home / "recovery.key", PASSPHRASE)
    for path in packs:
        header = Header.parse(path.read_bytes()[:MAX_HEADER])
        with pytest.raises(WrongKeyError):
            open_seed(header, place, writer.recipient)
        assert not any(_opens(header, seed, place) for seed in held)
        assert _opens(header, open_seed(header, place, recovery.recipient), place)


def _held(keys: Path, home: Path) -> set[bytes]:
    """Every run of 32 bytes in any file of the host, and in what its key file spells."""
    texts = [
        path.read_bytes()
        for top in (keys, home / "state", home / "cache")
        for path in top.rglob("*")
        if path.is_file()
    ]
    assert len(texts) > 3  # key, head, entry list, chunk map
    texts += _strings(loads_strict((keys / "writer.key").read_bytes()))
    return {text[at : at + 32] for text in texts for at in range(len(text) - 31)}


def _strings(value: object) -> Iterator[bytes]:
    if isinstance(value, dict):
        for inner in value.values():
            yield from _strings(inner)
    elif isinstance(value, str):
        try:
            yield base64.b64decode(value, validate=True)
        except ValueError:
            yield value.encode()


def _opens(header: Header, seed: bytes, repository: bytes) -> bool:
    try:
        Opener(header, seed, repository)
    except DigestMismatchError:
        return False
    return True
