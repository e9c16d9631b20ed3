"""Generator of the tree vectors: one small stream, and streams that must be refused.

``stream.bin`` is a tree stream with an entry of every type; ``tree.json`` says what it
amounts to. Each ``negative/<name>.bin`` is a stream with one thing wrong; ``expect.json``
there says what about it a reader must name. Entries of negatives are packed by hand,
so that they can break what the encoder keeps.
"""

import hashlib
import json
import struct
import sys
from pathlib import Path
from typing import Any

import msgspec

from vault.format.content_root import ContentRoot, commitment
from vault.format.entry import Entry, ListRef
from vault.format.entry_encoding import encode_canonical, encode_extra, frame
from vault.format.tree import TreeHeader, encode_header
from vault.model import EntryType

KEY = bytes(range(32))
HEADER = TreeHeader(key=KEY, relative=True, sources=(b"/srv/web",))
T = 1_767_225_600_123_456_789  # 2026-01-01T00:00:00.123456789Z
EMPTY = hashlib.sha256(b"").digest()
HELLO = hashlib.sha256(b"hello\n").digest()
IDS = b"\x11" * 32 + b"\x22" * 32


def _entry(path: bytes, kind: EntryType, **fields: Any) -> Entry:
    defaults: dict[str, Any] = {"mode": 0o644, "mtime": T, "ctime": T + 1, "user": "root"}
    return Entry(path=path, type=kind, **{**defaults, **fields})


ENTRIES = [
    _entry(b"", EntryType.DIRECTORY, mode=0o755),
    _entry(b"a", EntryType.DIRECTORY, mode=0o1777, uid=1000, gid=1000, user="web", group="web"),
    _entry(b"a/empty", EntryType.FILE, sha256=EMPTY),
    _entry(b"a/hello", EntryType.FILE, size=6, sha256=HELLO, mode=0o4755),
    _entry(b"a/hello.again", EntryType.HARD_LINK, link=b"a/hello"),
    _entry(b"a.b", EntryType.SYMLINK, link=b"../\xff", mode=0o777, mtime=-1),
    _entry(b"null", EntryType.CHARACTER_DEVICE, device=259, uid=2**32 - 2),
    _entry(b"pipe", EntryType.FIFO),
    _entry(b"sda", EntryType.BLOCK_DEVICE, device=2048),
    _entry(
        b"sparse",
        EntryType.FILE,
        size=2**30,
        sha256=HELLO,
        chunks=IDS,
        holes=((0, 4096), (2**21, 2**30 - 2**21)),
        xattrs=((b"security.capability", b"\x01\0\0\x02"), (b"user.note", b"")),
    ),
    _entry(b"vast", EntryType.FILE, size=2**44, tree_hash=HELLO, holes=((0, 2**44),)),
    _entry(
        b"vast.data",
        EntryType.FILE,
        size=2**45,
        tree_hash=HELLO,
        chunk_list=ListRef(b"\x33" * 32, 3, 2**22, 2**44),
        hole_list=ListRef(b"\x44" * 32, 2, 32_769, 2**44),
    ),
    _entry(
        b"vast.dense",
        EntryType.FILE,
        size=2**45,
        sha256=HELLO,
        chunk_list=ListRef(b"\x33" * 32, 8, 2**45, 2**45),
    ),
    _entry(
        b"vast.holes",
        EntryType.FILE,
        size=2**20,
        sha256=HELLO,
        chunks=IDS[:32],
        hole_list=ListRef(b"\x44" * 32, 1, 40_000, 2**20 - 5),
    ),
    _entry(b"\xf0\x9f\x90\x98", EntryType.FILE, size=5_000_000, sha256=HELLO, chunks=IDS),
]


def _stream(*frames: bytes) -> bytes:
    return encode_header(HEADER) + b"".join(frames)


def _frame(entry: Entry) -> bytes:
    return frame(encode_canonical(entry), encode_extra(entry))


def _raw(canonical: bytes, extra: bytes) -> bytes:
    return struct.pack("<II", len(canonical), len(extra)) + canonical + extra


def _fields(path: bytes, kind: int, **changed: Any) -> bytes:
    """An entry with any values at all in its fields."""
    first: dict[str, Any] = {
        "path": path,
        "type": kind,
        "mode": 0o644,
        "uid": 0,
        "gid": 0,
        "mtime": 0,
        "size": 0,
        "sha256": EMPTY if kind == 2 else None,
        "link": None,
        "device": None,
        "xattrs": None,
    }
    second: dict[str, Any] = {"chunks": b"", "user": "", "group": "", "ctime": 0, "holes": None}
    if "chunk_list" in changed or "hole_list" in changed:
        second |= {"chunk_list": None, "hole_list": None}
    first.update({name: value for name, value in changed.items() if name in first})
    second.update({name: value for name, value in changed.items() if name in second})
    return _raw(*(msgspec.msgpack.encode(list(part.values())) for part in (first, second)))


TOP = _frame(ENTRIES[0])
FILE = _frame(ENTRIES[2])


def _in_top(path: bytes, kind: int, **changed: Any) -> bytes:
    return _stream(TOP, _fields(path, kind, **changed))


def _giant(**changed: Any) -> bytes:
    """A file of 4 TiB in a list of its own, or what is changed of it."""
    fields = {"size": 2**42, "chunk_list": [IDS[:32], 2, 2**22, 2**42], **changed}
    return _in_top(b"b", 2, **fields)


def _lists() -> list[dict[str, Any]]:
    """Lists outside entries (8.1): their chunks, cut by hand, and what they hold or break."""
    chunks: dict[str, str] = {}

    def put(data: bytes) -> bytes:
        name = hashlib.sha256(b"chunk" + data).digest()
        chunks[name.hex()] = data.hex()
        return name

    def case(name: str, root: bytes, level: int, count: int, covered: int, **more: Any) -> None:
        ref = [root.hex(), level, count, covered]
        cases.append({"name": name, "list": ref, **more})

    cases: list[dict[str, Any]] = []
    ids = [hashlib.sha256(bytes((n,))).digest() for n in range(5)]
    stream = b"".join(ids)
    parts = [stream[:40], stream[40:41], stream[41:159], stream[159:]]
    above = b"".join(map(put, parts))
    middle = put(above)
    upper = put(put(above[:50]) + put(above[50:]))
    good = {"ids": [name.hex() for name in ids]}
    broken = "another length than its entry says"
    case("ids in one chunk", put(stream), 0, 5, 9, **good)
    case("ids, cut within ids", middle, 1, 5, 9, **good)
    case("ids, two levels, cut within an id of a chunk", upper, 2, 5, 9, **good)
    case("ids, one missing", middle, 1, 6, 9, says=broken)
    case("ids, one too many", middle, 1, 4, 9, says=broken)
    case("ids, cut short", put(stream[:-1]), 0, 5, 9, says=broken)
    case("ids, a byte too many", put(stream + b"x"), 0, 5, 9, says=broken)
    case("ids, a level too few", middle, 0, 5, 9, says=broken)
    case("ids, a level too many", middle, 2, 5, 9, says="is missing")
    case("ids, a broken level", put(above + b"x"), 1, 5, 9, says="broken length")
    case("ids, too deep", middle, 9, 5, 9, says="level is out of range")
    case("ids, a chunk missing", b"?" * 32, 0, 5, 9, says="is missing")
    bomb = put(stream)
    for _ in range(8):  # 64^8 items, if they were gone through
        bomb = put(bomb * 64)
    case("ids, many times over", bomb, 8, 1_000, 1_000, says=broken)
    holes = [(0, 5), (5, 1), (10, 90)]
    data = b"".join(struct.pack("<QQ", *hole) for hole in holes)
    listed = put(put(data[:7]) + put(data[7:]))
    case("holes", listed, 1, 3, 96, size=100, holes=holes)
    case("holes beyond the file", listed, 1, 3, 96, size=99, says="impossible ones")
    case("holes of another sum", listed, 1, 3, 95, size=100, says="not cover")
    case("holes, one missing", listed, 1, 4, 96, size=100, says=broken)
    case("holes, half of one", put(data[:-8]), 0, 3, 96, size=100, says=broken)
    for name, wrong in {
        "holes that overlap": [(0, 5), (4, 1), (10, 90)],
        "holes that descend": [(5, 1), (0, 5), (10, 90)],
        "a hole of nothing": [(0, 5), (5, 0), (10, 91)],
        "holes whose sum wraps": [(0, 5), (6, 2**64 - 1), (10, 90)],
    }.items():
        packed = b"".join(struct.pack("<QQ", *hole) for hole in wrong)
        case(name, put(packed), 0, 3, 96, size=100, says="impossible ones")
    return [{"chunks": chunks}, *cases]


def _negatives() -> dict[str, tuple[bytes, str]]:
    """Name -> stream, words of the message."""
    small = _frame(_entry(b"b", EntryType.FIFO))
    long_mode = _fields(b"b", 5).replace(
        b"\xc4\x01b\x05\xcd\x01\xa4", b"\xc4\x01b\xcc\x05\xcd\x01\xa4"
    )
    longer = struct.pack("<I", len(long_mode) - 8 - 7)  # one byte more of canonical
    return {
        "magic": (b"VAULTTR2" + _stream()[8:], "not a tree stream"),
        "header-too-long": (b"VAULTTR1" + struct.pack("<I", 2**20 + 1), "header is too long"),
        "header-key": (encode_header(HEADER).replace(KEY, KEY[:-1] + b"\xc0"), "ends too early"),
        "no-top": (_stream(_fields(b"b", 2)), "before the top"),
        "no-entries": (_stream(), "ends too early"),
        "cut-short": (_stream(TOP, small)[:-1], "ends too early"),
        "top-is-a-file": (_stream(_fields(b"", 2)), "not relative and plain"),
        "two-tops": (_stream(TOP, TOP), "out of order"),
        "repeated": (_stream(TOP, small, small), "out of order"),
        "descending": (_stream(TOP, _fields(b"b", 5), _fields(b"a", 5)), "out of order"),
        "slash-sorts-low": (
            _stream(TOP, _fields(b"a", 1), _fields(b"a.b", 5), _fields(b"a/b", 5)),
            "out of order",
        ),
        "no-parent": (_in_top(b"a/b", 5), "no directory to be in"),
        "parent-is-a-symlink": (
            _stream(TOP, _fields(b"a", 3, link=b"/etc", mode=0o777), _fields(b"a/b", 5)),
            "no directory to be in",
        ),
        "parent-was-left": (
            _stream(TOP, _fields(b"a", 1), _fields(b"b", 1), _fields(b"b/c/d", 5)),
            "no directory to be in",
        ),
        "absolute": (_in_top(b"/etc", 5), "not relative and plain"),
        "dot-dot": (_in_top(b"../b", 5), "not relative and plain"),
        "dot": (_in_top(b"./b", 5), "not relative and plain"),
        "empty-part": (_in_top(b"a//b", 5), "not relative and plain"),
        "trailing-slash": (_in_top(b"a/", 1), "not relative and plain"),
        "nul": (_in_top(b"a\0b", 5), "not relative and plain"),
        "path-too-long": (_in_top(b"a" * 65_536, 5), "path of over 65,535 bytes"),
        "type": (_in_top(b"b", 8), "unknown type"),
        "mode": (_in_top(b"b", 5, mode=0o10000), "mode out of range"),
        "uid-of-nobody": (_in_top(b"b", 5, uid=2**32 - 1), "owner out of range"),
        "uid": (_in_top(b"b", 5, uid=-1), "owner out of range"),
        "mtime": (_in_top(b"b", 5, mtime=2**63), "time out of range"),
        "size": (_in_top(b"b", 2, size=2**63), "size out of range"),
        "symlink-empty": (_in_top(b"b", 3, link=b""), "impossible link"),
        "symlink-nul": (_in_top(b"b", 3, link=b"a\0"), "impossible link"),
        "symlink-with-a-mode": (_in_top(b"b", 3, link=b"a", mode=0o755), "mode of its own"),
        "symlink-without-link": (_in_top(b"b", 3), "has a link"),
        "file-with-link": (_in_top(b"b", 2, link=b"a"), "has a link"),
        "hard-link-outside": (_in_top(b"b", 4, link=b"../a"), "target that is not relative"),
        "hard-link-later": (_stream(TOP, _fields(b"b", 4, link=b"c")), "no earlier file"),
        "hard-link-to-fifo": (
            _stream(TOP, _fields(b"a", 5), _fields(b"b", 4, link=b"a")),
            "no earlier file",
        ),
        "hard-link-with-size": (
            _stream(TOP, _fields(b"a", 2), _fields(b"b", 4, link=b"a", size=1)),
            "has content",
        ),
        "device-missing": (_in_top(b"b", 6), "device"),
        "device-of-a-file": (_in_top(b"b", 2, device=1), "device"),
        "sha256-short": (_in_top(b"b", 2, sha256=b"x" * 31), "no SHA-256"),
        "sha256-missing": (_in_top(b"b", 2, sha256=None), "no SHA-256"),
        "chunks-broken": (_in_top(b"b", 2, size=99, chunks=b"x" * 65), "number of chunk ids"),
        "chunks-of-nothing": (_in_top(b"b", 2, chunks=IDS), "number of chunk ids"),
        "chunk-derivable": (_in_top(b"b", 2, size=99, chunks=b"x" * 32), "already gives"),
        "holes-empty": (_in_top(b"b", 2, size=9, holes=[]), "empty list of holes"),
        "holes-overlap": (
            _in_top(b"b", 2, size=9, chunks=IDS, holes=[[0, 4], [3, 1]]),
            "impossible holes",
        ),
        "holes-outside": (_in_top(b"b", 2, size=9, chunks=IDS, holes=[[8, 2]]), "impossible holes"),
        "holes-only": (_in_top(b"b", 2, size=9, holes=[[0, 8]]), "its digest gives none"),
        "holes-to-hash": (
            _in_top(b"b", 2, size=2**31, holes=[[0, 2**31]]),
            "SHA-256 and too many holes",
        ),
        "tree-hash-short": (_in_top(b"b", 2, sha256=b"\x01" * 32 + b"x" * 2), "no SHA-256"),
        "tree-hash-kind": (_in_top(b"b", 2, sha256=b"\x02" * 33), "no SHA-256"),
        "digest-of-a-fifo": (_in_top(b"b", 5, sha256=b"\x01" * 32), "is no file"),
        "tree-hash-of-a-fifo": (_in_top(b"b", 5, sha256=b"\x01" * 33), "is no file"),
        "tree-hash-gives-no-chunk": (
            _in_top(b"b", 2, size=9, sha256=b"\x01" * 33),
            "its digest gives none",
        ),
        "lists-missing": (_in_top(b"b", 2, chunk_list=None), "room for lists and none"),
        "list-of-a-fifo": (_in_top(b"b", 5, hole_list=[IDS[:32], 0, 2**20, 2**20]), "is no file"),
        "list-and-chunks": (_giant(chunks=IDS), "both in it and outside"),
        "list-and-holes": (
            _giant(size=2**42 + 2**20, holes=[[0, 1]], hole_list=[IDS[:32], 1, 2**16, 2**20]),
            "both in it and outside",
        ),
        "list-id": (_giant(chunk_list=[IDS[:31], 2, 2**22, 2**42]), "impossible list"),
        "list-too-deep": (_giant(chunk_list=[IDS[:32], 9, 2**22, 2**42]), "impossible list"),
        "list-level": (_giant(chunk_list=[IDS[:32], -1, 2**22, 2**42]), "impossible list"),
        "list-fits-the-entry": (
            _giant(chunk_list=[IDS[:32], 2, 32_768, 2**42]),
            "impossible length",
        ),
        "list-longer-than-the-file": (
            _giant(size=2**20, chunk_list=[IDS[:32], 2, 2**22, 2**20]),
            "impossible length",
        ),
        "list-of-another-size": (
            _giant(chunk_list=[IDS[:32], 2, 2**22, 2**42 - 1]),
            "does not cover it",
        ),
        "hole-list-of-another-size": (
            _giant(hole_list=[IDS[:32], 1, 2**16, 2**20]),
            "does not cover it",
        ),
        "hole-list-beyond-the-file": (
            _giant(hole_list=[IDS[:32], 1, 2**16, 2**43]),
            "more holes than bytes",
        ),
        "list-of-three": (_giant(chunk_list=[IDS[:32], 2, 2**22]), "extra part is malformed"),
        "list-of-five": (
            _giant(chunk_list=[IDS[:32], 2, 2**22, 2**42, 0]),
            "extra part is malformed",
        ),
        "xattrs-empty": (_in_top(b"b", 2, xattrs=[]), "empty list of xattrs"),
        "xattrs-order": (
            _in_top(b"b", 2, xattrs=[[b"user.b", b""], [b"user.a", b""]]),
            "xattrs out of order",
        ),
        "xattrs-twice": (
            _in_top(b"b", 2, xattrs=[[b"user.a", b""], [b"user.a", b""]]),
            "xattrs out of order",
        ),
        "path-is-text": (_in_top("b", 5), "tree entry is malformed"),  # type: ignore[arg-type]
        "mode-is-a-float": (_in_top(b"b", 5, mode=1.5), "tree entry is malformed"),
        "not-shortest": (
            _stream(TOP, longer + long_mode[4:]),
            "shortest encoding",
        ),
        "canonical-too-long": (_stream(struct.pack("<II", 2**22 + 1, 0)), "entry is too long"),
        "extra-too-long": (_stream(struct.pack("<II", 0, 2**21 + 1)), "entry is too long"),
    }


def generate_tree(directory: Path) -> None:
    """Write all tree vectors."""
    (directory / "negative").mkdir(parents=True)
    root = ContentRoot()
    for entry in ENTRIES:
        root.update(encode_canonical(entry))
    (directory / "stream.bin").write_bytes(_stream(*map(_frame, ENTRIES)))
    _write_json(
        directory / "tree.json",
        {
            "commitment": commitment(KEY, root.digest()).hex(),
            "content_root": root.digest().hex(),
            "entries": [[entry.path.hex(), entry.type, entry.size] for entry in ENTRIES],
            "key": KEY.hex(),
        },
    )
    _write_json(directory / "lists.json", _lists())
    negatives = _negatives()
    for name, (stream, _) in negatives.items():
        (directory / "negative" / f"{name}.bin").write_bytes(stream)
    _write_json(
        directory / "negative" / "expect.json",
        {name: {"error": "FormatError", "says": words} for name, (_, words) in negatives.items()},
    )


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    generate_tree(Path(sys.argv[1]))
