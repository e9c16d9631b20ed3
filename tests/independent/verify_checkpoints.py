"""Checks checkpoints with nothing but the Python standard library and ``openssl`` (3 or newer).

A second reading of docs/format.md 2.8 that shares no code with the program it checks.

    verify_checkpoints.py STORE LOG_VKEY QUORUM NOW WITNESS_VKEY...

STORE is a directory store. Its ledger is taken as it is: verify_ledger.py checks that. Prints the
newest checkpoint that counts and what it says of the ledger: vouched, truncated, forked, or
unwitnessed. Exit status 0 if it vouches, 1 if not.
"""

import base64
import hashlib
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

TYPE = b"application/vnd.in-toto+json"
ORIGIN = r"vault/[0-9a-f]{32}/[0-9a-f]{16}"
TEXT = re.compile(rf"({ORIGIN})\n([1-9][0-9]{{0,15}})\n([A-Za-z0-9+/]{{43}}=)\n")
LINE = re.compile(r"\u2014 ([A-Za-z0-9._/:@~-]{1,128}) ([A-Za-z0-9+/=]{1,1024})\n")
MOST = 16_384  # bytes of a note


def b64(text: str) -> bytes:
    """One spelling; ValueError for others."""
    data = base64.b64decode(text, validate=True)
    if base64.b64encode(data).decode() != text:
        raise ValueError(text)
    return data


def root_of(entries: list[bytes]) -> bytes:
    """RFC 6962, 2.1, as it is written there."""
    if not entries:
        return hashlib.sha256().digest()
    if len(entries) == 1:
        return hashlib.sha256(b"\0" + entries[0]).digest()
    half = 1
    while half * 2 < len(entries):
        half *= 2
    return hashlib.sha256(b"\1" + root_of(entries[:half]) + root_of(entries[half:])).digest()


def parse(data: bytes) -> tuple[str, list[tuple[str, bytes]]]:
    """Text and lines of a note; ValueError for what is none."""
    whole = data.decode("utf-8")
    match = TEXT.match(whole)
    if match is None or len(data) > MOST or whole[match.end() : match.end() + 1] != "\n":
        raise ValueError("no text of a note")
    b64(match[3])
    rest, lines = whole[match.end() + 1 :], []
    while rest:
        found = LINE.match(rest)
        if found is None:
            raise ValueError("no signature")
        lines.append((found[1], b64(found[2])))
        rest = rest[found.end() :]
    if not 1 <= len(lines) <= 64 or any(len(signature) < 5 for _, signature in lines):
        raise ValueError("wrong number of signatures, or an empty one")
    return match[0], lines


def openssl(*arguments: str, files: dict[str, bytes]) -> bool:
    """Whether it succeeds with these files in its directory."""
    with tempfile.TemporaryDirectory() as place:
        for name, data in files.items():
            (Path(place) / name).write_bytes(data)
        done = subprocess.run(["openssl", *arguments], cwd=place, capture_output=True, check=False)
    return done.returncode == 0


def pem(der: bytes) -> bytes:
    """A public key as openssl reads it."""
    text = base64.encodebytes(der).decode()
    return f"-----BEGIN PUBLIC KEY-----\n{text}-----END PUBLIC KEY-----\n".encode()


def logged(text: str, lines: list[tuple[str, bytes]], vkey: str) -> bool:
    """Whether the log of that verifier key signed: ``openssl dgst``."""
    name, _, key = vkey.split("+", 2)
    der = b64(key)[1:]
    mark = hashlib.sha256(der).digest()[:4]
    ask = ("dgst", "-sha256", "-verify", "key", "-signature", "signature", "text")
    return text.startswith(f"{name}\n") and any(
        each == name
        and data[:4] == mark
        and openssl(*ask, files={"key": pem(der), "signature": data[4:], "text": text.encode()})
        for each, data in lines
    )


def cosigned(text: str, lines: list[tuple[str, bytes]], vkey: str) -> int | None:
    """The time at which that witness cosigned last."""
    name, _, key = vkey.split("+", 2)
    raw = b64(key)[1:]
    mark = hashlib.sha256(f"{name}\n".encode() + b"\x04" + raw).digest()[:4]
    der = bytes.fromhex("302a300506032b6570032100") + raw
    ask = ("pkeyutl", "-verify", "-pubin", "-inkey", "key", "-rawin", "-in", "said")
    times = []
    for each, data in lines:
        if (each, data[:4]) != (name, mark) or len(data) != 76:
            continue
        time = int.from_bytes(data[4:12], "big")
        said = f"cosignature/v1\ntime {time}\n{text}".encode()
        files = {"key": pem(der), "said": said, "signature": data[12:]}
        if time < 2**33 and openssl(*ask, "-sigfile", "signature", files=files):
            times.append(time)
    return max(times, default=None)


def judge(
    data: bytes, log: str, witnesses: dict[str, str], quorum: int, now: int
) -> dict[str, object]:
    """What a note is: malformed, not logged, logged, or it counts."""
    try:
        text, lines = parse(data)
    except ValueError:  # UnicodeDecodeError and binascii.Error are such
        return {"is": "malformed"}
    if not logged(text, lines, log):
        return {"is": "not logged"}
    found = {name: cosigned(text, lines, vkey) for name, vkey in witnesses.items()}
    times = {name: time for name, time in found.items() if time is not None and time <= now + 300}
    newest = sorted(times.values(), reverse=True)
    counts = len(newest) >= quorum >= 1
    return {
        "is": "counts" if counts else "logged",
        "size": int(text.split("\n")[1]),
        "root": b64(text.split("\n")[2]).hex(),
        "cosigned": times,
        "time": newest[quorum - 1] if counts else None,
    }


def digests_in(store: Path) -> list[bytes]:
    """Of the statements of a store, as they are."""
    found = []
    for path in sorted((store / "ledger").glob("[0-9]*")):
        if "~" not in path.name:
            payload = b64(json.loads(path.read_bytes())["payload"])
            said = b"DSSEv1 %d %s %d %s" % (len(TYPE), TYPE, len(payload), payload)
            found.append(hashlib.sha256(said).digest())
    return found


def main(store: Path, log: str, quorum: int, now: int, witnesses: list[str]) -> int:
    """See the beginning of this file."""
    digests = digests_in(store)
    texts: dict[str, list[bytes]] = {}
    for path in (store / "checkpoint").glob("*/*"):
        data = path.read_bytes()
        name = path.name.partition("~")[0]
        said = data.split(b"\n")[1:2]
        if hashlib.sha256(data).hexdigest() != name or said != [b"%d" % int(path.parent.name)]:
            continue
        text, _, lines = data.partition(b"\n\n")
        texts.setdefault(text.decode("utf-8", "replace"), []).append(lines)
    named = {vkey: vkey for vkey in witnesses}
    best: dict[str, object] = {"is": "unwitnessed", "size": 0}
    for start, parts in texts.items():
        united = f"{start}\n\n".encode() + b"".join(parts)
        found = judge(united, log, named, quorum, now)
        if found["is"] == "counts" and int(str(found["size"])) > int(str(best["size"])):
            best = found
    size = int(str(best["size"]))
    standing = "unwitnessed"
    if best["is"] == "counts":
        is_same = root_of(digests[:size]).hex() == best["root"]
        standing = "truncated" if size > len(digests) else "vouched" if is_same else "forked"
    print(standing, size)
    return 0 if standing == "vouched" else 1


if __name__ == "__main__":
    _, given, log_key, needed, moment, *keys = sys.argv
    sys.exit(main(Path(given), log_key, int(needed), int(moment), keys))
