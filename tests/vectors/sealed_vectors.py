"""Golden vectors of sealed objects and key files (docs/format.md 3 to 6 and 9).

`generate_sealed` writes ``pack.json``, ``index.json`` and ``domain.json``: the same bytes each
time, from the secrets in ``session.json``. That file and ``keyfile.json`` hold what is random by
nature (HPKE, fresh nonces); `generate_fixed` made them once, and they are checked by opening only.

A case is an object's bytes (``data``, or the file's ``base`` with ``patches``, ``keep`` and
``append``), what differs from the file's inputs, and what a reader must say: ``success``,
``integrity``, ``format`` or ``wrong key``. All bytes are in hex.
"""

import array
import dataclasses
import hashlib
import json
import struct
from pathlib import Path
from typing import Any

import zstandard

from vault.crypto.compression import compress
from vault.crypto.key_file_bytes import Argon2Cost
from vault.crypto.key_files import DomainSecrets, RecoveryKey, RepositoryAddress, save_recovery
from vault.crypto.keys import RecipientKey, SigningKey, chunk_id
from vault.crypto.sealed import Sealer, Session, seal_whole
from vault.format.domain_secrets import encode_secrets
from vault.format.pack import DIRECTORY_COUNTER, Directory, PackWriter
from vault.format.pack_index import IndexEntry, seal_index_with
from vault.format.seed_tables import encode_rows
from vault.model import Id, ObjectType, PackId

HERE = Path(__file__).parent / "sealed"
Json = dict[str, Any]

REPOSITORY = bytes(range(16))
ID_KEY = hashlib.sha256(b"id key").digest()
INDEX_KEY = hashlib.sha256(b"index key").digest()
SALT = hashlib.sha256(b"salt").digest()
# Content that zstd cannot shrink, so that its version hardly matters.
CHUNKS = [hashlib.shake_256(bytes([n])).digest(40 + n) for n in range(4)]
OTHER_REPOSITORY = bytes(16)


def generate_sealed(directory: Path) -> None:
    """Write the vectors that are the same each time."""
    session = read_session()
    _write(directory / "pack.json", _pack_vectors(session))
    _write(directory / "index.json", _index_vectors())
    _write(directory / "domain.json", _domain_vectors(session))
    _write(directory / "seeds.json", _seeds_vectors(session))


def generate_fixed(directory: Path) -> None:
    """Write the vectors that differ each time: run by hand, once."""
    recipient = RecipientKey.generate()
    session = Session.new(REPOSITORY, [RecipientKey.generate().public_raw, recipient.public_raw])
    _write(
        directory / "session.json",
        {
            "repository": REPOSITORY.hex(),
            "session": session.id.hex(),
            "seed": session.seed.hex(),
            "sealed": [[name.hex(), sealed.hex()] for name, sealed in session.sealed],
            "recipient": recipient.raw().hex(),
            "public": recipient.public_raw.hex(),
            "stranger": RecipientKey.generate().raw().hex(),
        },
    )
    key = RecoveryKey(
        repository=RepositoryAddress(
            id=REPOSITORY.hex(), url="file:///srv/vault", endpoint="", root="ab" * 32
        ),
        recipient=recipient,
        restorer=SigningKey.generate(),
    )
    path = directory / "recovery.key"
    save_recovery(path, key, b"passphrase", cost=Argon2Cost(memory=64, iterations=1, lanes=1))
    text = path.read_text()
    path.unlink()
    cases = [
        {"name": "right passphrase", "text": text, "expect": "success"},
        {"name": "wrong passphrase", "text": text, "passphrase": "x", "expect": "wrong key"},
        {"name": "url", "text": text.replace("/srv/", "/mnt/"), "expect": "wrong key"},
        {"name": "kdf", "text": text.replace("argon2id", "argon2i"), "expect": "format"},
        {
            "name": "too much memory",
            "text": text.replace('"memory":64', '"memory":1048577'),
            "expect": "format",
        },
        {"name": "cut short", "text": text[:-1], "expect": "format"},
    ]
    assert isinstance(key.restorer, SigningKey)
    secrets = {"recipient": recipient.raw().hex(), "restorer": key.restorer.pkcs8().hex()}
    _write(
        directory / "keyfile.json", {"passphrase": "passphrase", "holds": secrets, "cases": cases}
    )


def read_session() -> Session:
    """The session all packs and domain objects here belong to."""
    kept = json.loads((HERE / "session.json").read_bytes())
    return Session(
        id=bytes.fromhex(kept["session"]),
        seed=bytes.fromhex(kept["seed"]),
        sealed=tuple((Id.parse(name), bytes.fromhex(seed)) for name, seed in kept["sealed"]),
    )


def object_of(case: Json, base: str) -> bytes:
    """The bytes of a case."""
    data = bytearray.fromhex(case.get("data", base))
    for at, patch in case.get("patches", []):
        data[at : at + len(patch) // 2] = bytes.fromhex(patch)
    return bytes(data[: case.get("keep", len(data))]) + bytes.fromhex(case.get("append", ""))


def _write(path: Path, vectors: Json) -> None:
    path.write_text(json.dumps(vectors, indent=1, sort_keys=True) + "\n")


def _sealer(session: Session, kind: ObjectType, *, suffix: bytes = b"") -> Sealer:
    return Sealer(
        kind=kind,
        seed=session.seed,
        repository_id=REPOSITORY,
        session_id=session.id,
        sealed=session.sealed,
        salt=hashlib.sha256(SALT + suffix).digest() if suffix else SALT,
    )


def _name(chunk: bytes) -> bytes:
    return chunk_id(ID_KEY, ObjectType.DATA, hashlib.sha256(chunk).digest())


def _flip(name: str, data: bytes, at: int, expect: str) -> Json:
    return {"name": name, "patches": [[at, f"{data[at] ^ 2:02x}"]], "expect": expect}


def _header_flips(data: bytes) -> list[Json]:
    return [
        _flip("magic", data, 0, "format"),
        _flip("header length", data, 8, "format"),
        _flip("format", data, 12, "format"),
        _flip("suite", data, 13, "format"),
        _flip("salt", data, 32, "integrity"),
        _flip("commitment", data, 64, "integrity"),
    ]


# --- packs ---


def _pack_vectors(session: Session) -> Json:
    writer = PackWriter(_sealer(session, ObjectType.DATA), 3)
    for pair in (CHUNKS[:2], CHUNKS[2:]):
        ids, lengths = [_name(chunk) for chunk in pair], [len(chunk) for chunk in pair]
        writer.add(writer.seal_block(writer.next_counter(), b"".join(pair), ids, lengths))
    pack = writer.finish()
    data, second = bytes(pack.data), pack.directory.blocks[1].offset
    recipients = pack.header_length - 1202  # our own is the last
    cases = [
        {"name": "as written", "expect": "success"},
        *_header_flips(data),
        _flip("session id", data, 16, "integrity"),
        _flip("recipient id", data, recipients, "wrong key"),
        _flip("sealed seed", data, recipients + 34, "integrity"),
        _flip("first block", data, pack.header_length, "integrity"),
        _flip("tag of the first block", data, second - 1, "integrity"),
        _flip("directory", data, pack.directory.stored_end, "integrity"),
        _flip("directory length", data, len(data) - 12, "integrity"),
        _flip("directory magic", data, len(data) - 1, "format"),
        {"name": "other type", "patches": [[14, "02"]], "expect": "integrity"},
        {"name": "cut by a byte", "keep": len(data) - 1, "expect": "format"},
        {"name": "header alone", "keep": pack.header_length, "expect": "format"},
        {"name": "empty", "keep": 0, "expect": "format"},
        {"name": "longer", "append": "00", "expect": "format"},
        {"name": "other repository", "repository": OTHER_REPOSITORY.hex(), "expect": "integrity"},
        {"name": "stranger's key", "stranger": True, "expect": "wrong key"},
        {"name": "other id key", "id_key": INDEX_KEY.hex(), "expect": "integrity"},
        *_hostile_packs(session),
    ]
    return {
        "zstd": zstandard.ZSTD_VERSION,
        "repository": REPOSITORY.hex(),
        "seed": session.seed.hex(),
        "salt": SALT.hex(),
        "id_key": ID_KEY.hex(),
        "chunks": [chunk.hex() for chunk in CHUNKS],
        "ids": [_name(chunk).hex() for chunk in CHUNKS],
        "sha256": pack.pack_id.hex(),
        "base": data.hex(),
        "cases": cases,
    }


def _hostile_packs(session: Session) -> list[Json]:
    """Sealed with the right key: only the limits stop them."""
    undeclared = zstandard.ZstdCompressor(write_content_size=False).compress(b"chunk")
    hostile: list[tuple[str, bytes, int, str]] = [
        ("declares 9 MiB", compress(bytes(9 << 20)), 5, "format"),
        ("declares no size", undeclared, 5, "format"),
        ("declares more than it has", _lie(compress(b"chunk"), 6), 6, "format"),
        ("declares less than it has", _lie(compress(b"chunk"), 4), 4, "format"),
        ("other size than the directory's", compress(b"chunk"), 6, "integrity"),
        ("two frames", compress(b"chunk") * 2, 5, "format"),
        ("empty block", compress(b""), 0, "format"),
        ("poisoned chunk", compress(b"other"), 5, "integrity"),
    ]
    return [
        {
            "name": name,
            "data": _forge(_sealer(session, ObjectType.DATA, suffix=name.encode()), frame, raw),
            "expect": expect,
        }
        for name, frame, raw, expect in hostile
    ]


def _lie(frame: bytes, size: int) -> bytes:
    """A small single-segment frame with another content size."""
    return frame[:5] + bytes([size]) + frame[6:]


def _forge(sealer: Sealer, frame: bytes, raw: int) -> str:
    stored = sealer.seal(0, frame)
    plain = struct.pack("<IIIII", 1, len(stored), raw, 1, raw) + _name(b"chunk")
    directory = sealer.seal(DIRECTORY_COUNTER, compress(plain), final=True)
    trailer = struct.pack("<I", len(directory)) + b"VAULTDIR"
    return (sealer.header.raw + stored + directory + trailer).hex()


# --- index and domain objects ---


def _index_vectors() -> Json:
    entry = IndexEntry(
        pack_id=PackId(hashlib.sha256(b"pack").digest()),
        size=5000,
        type=ObjectType.DATA,
        version="version-1",
        header_length=1298,
        directory=_directory(),
    )
    sealer = Sealer(kind=ObjectType.INDEX, seed=INDEX_KEY, repository_id=REPOSITORY, salt=SALT)
    data = seal_index_with(sealer, [entry])
    cases = [
        {"name": "as written", "expect": "success"},
        *_header_flips(data),
        _flip("session id", data, 16, "format"),
        _flip("ciphertext", data, 96, "integrity"),
        _flip("tag", data, len(data) - 1, "integrity"),
        {"name": "with a recipient", "patches": [[15, "01"]], "expect": "format"},
        {"name": "cut by a byte", "keep": len(data) - 1, "expect": "integrity"},
        {"name": "longer", "append": "00", "expect": "integrity"},
        {"name": "other key", "index_key": ID_KEY.hex(), "expect": "integrity"},
        {"name": "other repository", "repository": OTHER_REPOSITORY.hex(), "expect": "integrity"},
    ]
    return {
        "zstd": zstandard.ZSTD_VERSION,
        "repository": REPOSITORY.hex(),
        "index_key": INDEX_KEY.hex(),
        "salt": SALT.hex(),
        "pack": entry.pack_id.hex(),
        "directory": entry.directory.encode().hex(),
        "base": data.hex(),
        "cases": cases,
    }


def _directory() -> Directory:
    lengths = struct.pack("<2I", 300, 200)
    ids = _name(CHUNKS[0]) + _name(CHUNKS[1])
    plain = struct.pack("<IIII", 1, 450, 500, 2) + lengths + ids
    directory = Directory.decode(plain, 1298)
    assert directory.lengths == array.array("I", [300, 200])
    return directory


def _domain_vectors(session: Session) -> Json:
    secrets = DomainSecrets(name="default", id_key=ID_KEY, index_key=INDEX_KEY)
    data = seal_whole(_sealer(session, ObjectType.DOMAIN), encode_secrets(secrets))
    cases = [
        {"name": "as written", "expect": "success"},
        *_header_flips(data),
        _flip("tag", data, len(data) - 1, "integrity"),
        {"name": "cut by a byte", "keep": len(data) - 1, "expect": "integrity"},
        {"name": "other name", "domain": "other", "expect": "integrity"},
        {"name": "other repository", "repository": OTHER_REPOSITORY.hex(), "expect": "integrity"},
        {"name": "stranger's key", "stranger": True, "expect": "wrong key"},
    ]
    return {
        "repository": REPOSITORY.hex(),
        "seed": session.seed.hex(),
        "salt": SALT.hex(),
        "domain": secrets.name,
        "id_key": ID_KEY.hex(),
        "index_key": INDEX_KEY.hex(),
        "base": data.hex(),
        "cases": cases,
    }


# --- tables of seeds ---


def _seeds_vectors(session: Session) -> Json:
    ours = dataclasses.replace(session, sealed=session.sealed[-1:])
    names = sorted(hashlib.sha256(bytes([n])).digest() for n in range(3))
    seeds = {name: hashlib.sha256(name).digest() for name in names}
    data = seal_whole(_sealer(ours, ObjectType.SEEDS), encode_rows(seeds))
    header = len(data) - 16 - 4 - 3 * 64
    row, other = (name + seeds[name] for name in names[:2])
    hostile = {
        "no rows": struct.pack("<I", 0),
        "fewer rows than it says": struct.pack("<I", 2) + row,
        "more rows than it says": struct.pack("<I", 1) + row + other,
        "not in order": struct.pack("<I", 2) + other + row,
        "one twice": struct.pack("<I", 2) + row + row,
        "says four thousand million": struct.pack("<I", 2**32 - 1) + row,
        "no count": b"",
    }
    cases = [
        {"name": "as written", "expect": "success"},
        *_header_flips(data),
        _flip("session id", data, 16, "integrity"),
        _flip("sealed seed", data, header - 1, "integrity"),
        _flip("recipient id", data, header - 1202, "format"),
        _flip("tag", data, len(data) - 1, "integrity"),
        {"name": "cut by a byte", "keep": len(data) - 1, "expect": "integrity"},
        {"name": "longer", "append": "00", "expect": "integrity"},
        {"name": "header alone", "keep": header, "expect": "integrity"},
        {"name": "empty", "keep": 0, "expect": "format"},
        {"name": "other type", "patches": [[14, "04"]], "expect": "format"},
        {"name": "other repository", "repository": OTHER_REPOSITORY.hex(), "expect": "integrity"},
        {"name": "stranger's key", "stranger": True, "expect": "format"},
        {
            "name": "two recipients",
            "data": seal_whole(_sealer(session, ObjectType.SEEDS), encode_rows(seeds)).hex(),
            "expect": "format",
        },
        *(
            {
                "name": name,
                "data": seal_whole(
                    _sealer(ours, ObjectType.SEEDS, suffix=name.encode()), plaintext
                ).hex(),
                "expect": "format",
            }
            for name, plaintext in hostile.items()
        ),
    ]
    return {
        "repository": REPOSITORY.hex(),
        "seed": session.seed.hex(),
        "salt": SALT.hex(),
        "seeds": {name.hex(): seed.hex() for name, seed in seeds.items()},
        "base": data.hex(),
        "cases": cases,
    }


if __name__ == "__main__":
    generate_sealed(HERE)
