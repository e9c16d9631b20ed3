"""Every reader agrees with the golden vectors in ``sealed/``."""

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import pytest
import zstandard

from vault.crypto.key_files import DomainSecrets, load_recovery
from vault.crypto.keys import RecipientKey, SigningKey
from vault.crypto.sealed import Header, Opener, open_seed
from vault.errors import FormatError, IntegrityError, WrongKeyError
from vault.format.domain_secrets import open_domain
from vault.format.pack import open_block, read_directory
from vault.format.pack_index import open_index
from vault.format.seed_tables import open_rows, table_rows

SEALED = Path(__file__).parent / "sealed"
Json = dict[str, Any]
T = TypeVar("T")


def load(name: str) -> Json:
    """One file of vectors."""
    vectors: Json = json.loads((SEALED / f"{name}.json").read_bytes())
    return vectors


def generator() -> ModuleType:
    """The module that wrote them."""
    spec = importlib.util.spec_from_file_location(
        "sealed_vectors", Path(__file__).with_name("sealed_vectors.py")
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def cases(name: str) -> pytest.MarkDecorator:
    """Parametrise over the cases of one file."""
    found = load(name)["cases"]
    return pytest.mark.parametrize("case", found, ids=[case["name"] for case in found])


SESSION = load("session")
OBJECT_OF = generator().object_of


def recipient_of(case: Json) -> RecipientKey:
    """Ours, or one that nothing is sealed to."""
    return RecipientKey.from_raw(
        bytes.fromhex(SESSION["stranger" if case.get("stranger") else "recipient"])
    )


def attempt(read: Callable[[], T]) -> tuple[str, T | None]:
    """What reading ends in, in the words of the vectors, and what was read."""
    try:
        return "success", read()
    except FormatError:
        return "format", None
    except IntegrityError:
        return "integrity", None
    except WrongKeyError:
        return "wrong key", None


def read_pack(data: bytes, vectors: Json, case: Json) -> bytes:
    """All raw bytes of a pack."""
    inputs = vectors | case
    repository, recipient = bytes.fromhex(inputs["repository"]), recipient_of(case)

    def opener_for(header: Header) -> Opener:
        return Opener(header, open_seed(header, repository, recipient), repository)

    _, opener, directory = read_directory(
        lambda offset, length: data[offset : offset + length], len(data), opener_for
    )
    id_key = bytes.fromhex(inputs["id_key"])
    return b"".join(
        open_block(
            opener,
            directory,
            number,
            data[block.offset : block.offset + block.stored],
            id_key=id_key,
        )
        for number, block in enumerate(directory.blocks)
    )


@cases("pack")
def test_pack(case: Json) -> None:
    """Chunks of the sound one; every other is refused as stated."""
    vectors = load("pack")
    data = OBJECT_OF(case, vectors["base"])
    verdict, raw = attempt(lambda: read_pack(data, vectors, case))
    assert verdict == case["expect"]
    assert raw is None or raw.hex() == "".join(vectors["chunks"])


@cases("index")
def test_index(case: Json) -> None:
    """Directory of the sound one; every other is refused as stated."""
    vectors = load("index")
    inputs = vectors | case
    key, repository = bytes.fromhex(inputs["index_key"]), bytes.fromhex(inputs["repository"])
    data = OBJECT_OF(case, vectors["base"])
    verdict, entries = attempt(lambda: open_index(data, key, repository))
    assert verdict == case["expect"]
    for entry in entries or ():
        assert entry.pack_id.hex() == vectors["pack"]
        assert entry.directory.encode().hex() == vectors["directory"]


@cases("domain")
def test_domain(case: Json) -> None:
    """Secrets of the sound one; every other is refused as stated."""
    vectors = load("domain")
    inputs = vectors | case
    repository, name = bytes.fromhex(inputs["repository"]), inputs["domain"]
    data = OBJECT_OF(case, vectors["base"])
    key = recipient_of(case)
    verdict, secrets = attempt(
        lambda: open_domain(data, repository, lambda h: open_seed(h, repository, key), name)
    )
    assert verdict == case["expect"]
    assert secrets is None or secrets == DomainSecrets(
        name="default",
        id_key=bytes.fromhex(vectors["id_key"]),
        index_key=bytes.fromhex(vectors["index_key"]),
    )


@cases("seeds")
def test_seeds(case: Json) -> None:
    """Rows of the sound one, their number without a key; every other is refused as stated."""
    vectors = load("seeds")
    repository, key = bytes.fromhex((vectors | case)["repository"]), recipient_of(case)
    data = OBJECT_OF(case, vectors["base"])
    verdict, rows = attempt(lambda: open_rows(data, repository, key))
    assert verdict == case["expect"]
    if rows is not None:
        assert len(rows) == len(vectors["seeds"]) == table_rows(data, key.id)
        assert {name: rows.find(bytes.fromhex(name)) for name in vectors["seeds"]} == {
            name: bytes.fromhex(seed) for name, seed in vectors["seeds"].items()
        }
        assert rows.find(bytes(32)) is None


@cases("keyfile")
def test_key_file(case: Json, tmp_path: Path) -> None:
    """Keys of the sound one; every other is refused as stated."""
    vectors = load("keyfile")
    holds, passphrase = vectors["holds"], (vectors | case)["passphrase"].encode()
    path = tmp_path / "recovery.key"
    path.write_text(case["text"])
    verdict, key = attempt(lambda: load_recovery(path, passphrase))
    assert verdict == case["expect"]
    if key is not None:
        assert key.recipient.raw().hex() == holds["recipient"]
        assert key.restorer == SigningKey.from_pkcs8(bytes.fromhex(holds["restorer"]))


def test_recipient_key_has_its_public_key() -> None:
    """The raw private key derives the raw public key on record."""
    assert recipient_of({}).public_raw.hex() == SESSION["public"]


def test_vectors_are_written_the_same_again(tmp_path: Path) -> None:
    """Nothing but HPKE, salts and nonces is random."""
    if tuple(load("pack")["zstd"]) != zstandard.ZSTD_VERSION:
        pytest.skip("another zstd may compress differently; reading is tested above")
    generator().generate_sealed(tmp_path)
    for name in ("pack", "index", "domain"):
        assert (tmp_path / f"{name}.json").read_bytes() == (SEALED / f"{name}.json").read_bytes()
