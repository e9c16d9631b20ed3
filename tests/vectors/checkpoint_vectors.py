"""Generator of the vectors of checkpoints: a tree, notes and requests, with fixed keys.

``tree.json`` has roots and consistency proofs over 20 entries. ``notes.json`` has the keys, and
notes with what each is: malformed, not logged, or by whom it is cosigned and whether it counts.
``requests.json`` has what a witness that has seen 5 entries answers.
"""

import base64
import dataclasses
import hashlib
import json
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from vault.crypto.keys import SigningKey, WitnessKey
from vault.errors import FormatError
from vault.ledger.checkpoints import WitnessPolicy, cosigner
from vault.ledger.merkle import consistency_proof, tree_root
from vault.ledger.notes import (
    NoteSignature,
    SignedNote,
    cosign,
    log_mark,
    log_origin,
    log_vkey,
    parse_note,
    witness_vkey,
)
from vault.ledger.witness import LogState, encode_request, judge_request, parse_request

REPOSITORY = "00112233445566778899aabbccddeeff"
NOW = datetime(2026, 1, 2, 3, 0, 0, tzinfo=UTC)
LOG, STRANGER = (SigningKey(ec.derive_private_key(number, ec.SECP256R1())) for number in (12, 9))
WITNESSES = [WitnessKey.from_raw(bytes([number]) * 32) for number in (1, 2, 3, 4)]
NAMES = ("alice", "bob.example/w", "carol", "stranger")
ENTRIES = [hashlib.sha256(b"statement %d" % number).digest() for number in range(20)]
FORKED = [*ENTRIES[:3], bytes(32), *ENTRIES[4:]]
ORIGIN = log_origin(REPOSITORY, LOG.public.id)


def _note(entries: list[bytes], key: SigningKey = LOG) -> SignedNote:
    note = SignedNote(origin=ORIGIN, size=len(entries), root=tree_root(entries))
    mark, data = log_mark(key.public), key.sign(note.text)
    return note.with_lines([NoteSignature(name=ORIGIN, mark=mark, data=data)])


def _by(note: SignedNote, *who: int, after: timedelta = timedelta()) -> SignedNote:
    return note.with_lines([cosign(note, NAMES[at], WITNESSES[at], NOW + after) for at in who])


def _tree() -> dict[str, Any]:
    return {
        "entries": [entry.hex() for entry in ENTRIES],
        "roots": [str(tree_root(ENTRIES[:size])) for size in range(len(ENTRIES) + 1)],
        "proofs": [
            {
                "old": old,
                "new": new,
                "proof": [node.hex() for node in consistency_proof(ENTRIES[:new], old)],
            }
            for new in range(1, len(ENTRIES) + 1)
            for old in range(new + 1)
        ],
    }


def _notes() -> dict[str, bytes]:
    """Well formed and malformed ones by name."""
    logged = _note(ENTRIES[:16])
    good = _by(logged, 0, 1).encode()
    text, _, lines = good.decode().partition("\n\n")
    first = lines.split("\n")[0]
    other = SignedNote(origin=log_origin(REPOSITORY, STRANGER.public.id), size=16, root=logged.root)
    mark, data = log_mark(STRANGER.public), STRANGER.sign(other.text)
    foreign = other.with_lines([NoteSignature(name=other.origin, mark=mark, data=data)])
    moved = _by(logged, 0).signatures[-1]
    dated = dataclasses.replace(moved, data=bytes(7) + b"\x01" + moved.data[8:])
    return {
        "two-of-three": good,
        "all": _by(logged, 0, 1, 2).encode(),
        "one": _by(logged, 0).encode(),
        "one-twice": _by(_by(logged, 0), 0, after=timedelta(minutes=1)).encode(),
        "none": logged.encode(),
        "with-a-stranger": _by(logged, 0, 3).encode(),
        "five-minutes-ahead": _by(logged, 0, 1, after=timedelta(minutes=5)).encode(),
        "six-minutes-ahead": _by(logged, 0, 1, after=timedelta(minutes=6)).encode(),
        "another-time-in-the-line": logged.with_lines([dated, *_by(logged, 1).signatures]).encode(),
        "not-logged": _by(_note(ENTRIES[:16], STRANGER), 0, 1).encode(),
        "another-log": _by(foreign, 0, 1).encode(),
        "another-size": good.replace(b"\n16\n", b"\n17\n"),
        "zero-before-the-size": good.replace(b"\n16\n", b"\n016\n"),
        "size-zero": good.replace(b"\n16\n", b"\n0\n"),
        "size-of-17-digits": good.replace(b"\n16\n", b"\n" + b"1" * 17 + b"\n"),
        "origin-in-capitals": good.replace(b"vault/", b"Vault/"),
        "extension-line": f"{text}\nmore\n\n{lines}".encode(),
        "no-empty-line": f"{text}\n{lines}".encode(),
        "no-signature": f"{text}\n\n".encode(),
        "cut": good[:-1],
        "hyphen": good.replace("\u2014".encode(), b"-"),
        "stray-bits": good.replace(b"=\n\n", b"\n\n"),
        "short-signature": f"{text}\n\n{first.rpartition(' ')[0]} AAAAAA==\n".encode(),
        "65-signatures": f"{text}\n\n{(first + chr(10)) * 65}".encode(),
        "not-utf-8": good.replace(b"alice", b"alic\xff"),
        "empty": b"",
    }


def _judged(data: bytes, policy: WitnessPolicy) -> dict[str, Any]:
    try:
        note = parse_note(data)
    except FormatError:
        return {"is": "malformed"}
    if not policy.is_logged(note):
        return {"is": "not logged"}
    cosigned = policy.cosigned(note, NOW)
    counts = policy.count(note, NOW)
    return {
        "is": "counts" if counts else "logged",
        "size": note.size,
        "root": str(note.root),
        "cosigned": {name: int(moment.timestamp()) for name, moment in sorted(cosigned.items())},
        "time": int(counts.time.timestamp()) if counts else None,
    }


def _requests() -> dict[str, bytes]:
    def asked(old: int, entries: list[bytes], key: SigningKey = LOG) -> bytes:
        return encode_request(old, entries, _note(entries, key))

    grown = asked(5, ENTRIES)
    return {
        "growth": grown,
        "same": asked(5, ENTRIES[:5]),
        "not-signed": asked(5, ENTRIES, STRANGER),
        "smaller": asked(5, ENTRIES[:3]),
        "older-than-seen": asked(4, ENTRIES),
        "newer-than-seen": asked(6, ENTRIES),
        "note-alone": _note(ENTRIES).encode(),
        "fork-of-one-size": asked(5, FORKED[:5]),
        "fork": asked(5, FORKED),
        "node-too-many": grown.replace(b"\n\n", b"\n" + b"A" * 43 + b"=\n\n", 1),
    }


def _answer(data: bytes) -> int:
    known = LogState(origin=ORIGIN, key=LOG.public, size=5, root=tree_root(ENTRIES[:5]))
    refused = judge_request(known, parse_request(data))
    return int(refused.answer) if refused else 200


def generate_checkpoints(directory: Path) -> None:
    """Write all of them below ``directory``."""
    vkeys = [witness_vkey(name, key.public_raw) for name, key in zip(NAMES, WITNESSES, strict=True)]
    policy = WitnessPolicy(
        logs={ORIGIN: LOG.public},
        witnesses=tuple(cosigner(f"w{at}", vkey) for at, vkey in enumerate(vkeys[:3])),
        quorum=2,
    )
    directory.mkdir(parents=True, exist_ok=True)
    notes = {
        "log": log_vkey(ORIGIN, LOG.public),
        "witnesses": {f"w{at}": vkey for at, vkey in enumerate(vkeys[:3])},
        "quorum": 2,
        "now": int(NOW.timestamp()),
        "notes": {
            name: {"note": base64.b64encode(data).decode(), **_judged(data, policy)}
            for name, data in _notes().items()
        },
    }
    requests = {
        name: {"request": base64.b64encode(data).decode(), "answer": _answer(data)}
        for name, data in _requests().items()
    }
    for name, value in {"tree": _tree(), "notes": notes, "requests": requests}.items():
        path = directory / f"{name}.json"
        path.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    generate_checkpoints(
        Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "checkpoint"
    )
