"""A witness of a vault's ledger, with nothing but Python's standard library and OpenSSL 3.

    witness.py init   --state DIR [--name NAME] [--log VKEY]...
    witness.py cosign --state DIR FILE [--out ANSWER]
    witness.py log    --state DIR

`init` makes an Ed25519 key and prints its verifier key, which the root of the repository is to
list; --log makes a log known, by the VKEY that `vault checkpoint` prints. `cosign` reads what
`vault checkpoint --out FILE` wrote and adds this witness's line, if the log has only grown since
the last time; `vault checkpoint --attach ANSWER` stores that. `log` shows what was answered.

What was seen is written to the disk, under a lock, before anything is answered. DIR has the same
files as that of `vault witness` (docs/format.md 9), and no code is shared with it. Exit status: 0
cosigned, 4 refused, 2 it could not look.
"""

import argparse
import base64
import contextlib
import fcntl
import hashlib
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

NAME = r"[A-Za-z0-9._/:@~-]{1,128}"
ORIGIN = re.compile(r"vault/[0-9a-f]{32}/[0-9a-f]{16}")
NUMBER = re.compile(r"[1-9][0-9]{0,15}")
LINE = re.compile(rf"\u2014 ({NAME}) ([A-Za-z0-9+/=]+)")
VKEY = re.compile(rf"({NAME})\+([0-9a-f]{{8}})\+([A-Za-z0-9+/=]+)")
LARGEST = 20_480  # bytes of a file
LOG_TYPE, WITNESS_TYPE = b"\x02", b"\x04"
# the DER of every P-256 SubjectPublicKeyInfo begins so, and 65 bytes of the point follow
P256 = bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d030107034200")
EMPTY = hashlib.sha256(b"").digest()


class Unusable(Exception):  # noqa: N818 - it is no fault of the program
    """What was handed in can't be looked at."""


class Refusal(Exception):  # noqa: N818 - an answer, by the number of C2SP tlog-witness
    """What was asked is not cosigned."""

    def __init__(self, answer: int, why: str) -> None:
        super().__init__(why)
        self.answer = answer


def b64decode(text: str) -> bytes:
    """One spelling only."""
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError as error:
        raise Unusable(f"no base64: {text[:60]!r}") from error
    if base64.b64encode(data).decode() != text:
        raise Unusable(f"no canonical base64: {text[:60]!r}")
    return data


# --- notes ---


class Note:
    """The text that a log signed, and the lines below it."""

    def __init__(self, data: bytes) -> None:
        try:
            text, gap, below = data.decode().partition("\n\n")
        except UnicodeDecodeError as error:
            raise Unusable("the note is not UTF-8") from error
        lines = text.split("\n")
        found = [LINE.fullmatch(line) for line in below[:-1].split("\n")]
        if not gap or len(lines) != 3 or not below.endswith("\n") or None in found:
            raise Unusable("the note has not three lines, an empty one and signatures")
        if not ORIGIN.fullmatch(lines[0]) or not NUMBER.fullmatch(lines[1]) or len(found) > 64:
            raise Unusable("the note names no log, or no size")
        self.text = f"{text}\n".encode()
        self.below = below
        self.origin, self.size, self.root = lines[0], int(lines[1]), b64decode(lines[2])
        if len(self.root) != 32:
            raise Unusable("the note has no root")
        self.signatures = [(each[1], b64decode(each[2])) for each in found if each]

    def is_signed(self, key: bytes) -> bool:
        """Whether the log's key signed it."""
        mark = hashlib.sha256(key).digest()[:4]
        return any(
            name == self.origin and data[:4] == mark and verify_p256(key, data[4:], self.text)
            for name, data in self.signatures
        )


def read_request(path: Path) -> tuple[int, list[bytes], Note]:
    """Old size, proof and note."""
    data = read(path)
    if not data.startswith(b"old "):
        return 0, [], Note(data)
    head, _, note = data.partition(b"\n\n")
    lines = head.decode("ascii", "replace").split("\n")
    size = lines[0][4:]
    if size != "0" and not NUMBER.fullmatch(size):
        raise Unusable("the request does not begin with the old size")
    proof = [b64decode(line) for line in lines[1:]]
    if len(proof) > 64 or any(len(node) != 32 for node in proof):
        raise Unusable("the request has no proof of hashes")
    return int(size), proof, Note(note)


def is_consistent(old: int, old_root: bytes, new: int, new_root: bytes, proof: list[bytes]) -> bool:
    """RFC 9162, 2.1.4.2."""
    if old == new:
        return not proof and old_root == new_root
    if old == 0:
        return not proof
    if old > new or not proof:
        return False
    nodes = list(proof) if old & (old - 1) else [old_root, *proof]
    at, last = old - 1, new - 1
    while at % 2:
        at, last = at // 2, last // 2
    first = second = nodes.pop(0)
    for node in nodes:
        if last == 0:
            return False
        if at % 2 or at == last:
            first, second = pair(node, first), pair(node, second)
            while at and at % 2 == 0:
                at, last = at // 2, last // 2
        else:
            second = pair(second, node)
        at, last = at // 2, last // 2
    return last == 0 and first == old_root and second == new_root


def pair(left: bytes, right: bytes) -> bytes:
    """The node over two others."""
    return hashlib.sha256(b"\x01" + left + right).digest()


# --- openssl ---


def openssl(*arguments: object, files: Sequence[bytes] = ()) -> subprocess.CompletedProcess[bytes]:
    """Run it; ``{0}``, ``{1}`` … in arguments stand for files with these bytes."""
    with tempfile.TemporaryDirectory() as place:
        names = []
        for number, data in enumerate(files):
            names.append(str(Path(place) / str(number)))
            Path(names[-1]).write_bytes(data)
        command = ["openssl", *(str(each).format(*names) for each in arguments)]
        try:
            return subprocess.run(command, capture_output=True, check=False)  # noqa: S603 - ours
        except OSError as error:
            raise Unusable(f"openssl can't be run: {error}") from error


def checked(*arguments: object, files: Sequence[bytes] = ()) -> bytes:
    """What it prints; it must succeed."""
    done = openssl(*arguments, files=files)
    if done.returncode != 0:
        raise Unusable(f"openssl {arguments[0]}: {done.stderr.decode('utf-8', 'replace')[:200]}")
    return done.stdout


def verify_p256(key: bytes, signature: bytes, text: bytes) -> bool:
    """ECDSA with SHA-256."""
    pem = base64.encodebytes(key).decode()
    public = f"-----BEGIN PUBLIC KEY-----\n{pem}-----END PUBLIC KEY-----\n".encode()
    ask = ("dgst", "-sha256", "-verify", "{0}", "-signature", "{1}", "{2}")
    return openssl(*ask, files=(public, signature, text)).returncode == 0


# --- verifier keys ---


def witness_vkey(name: str, public: bytes) -> str:
    """Of a witness, as the root lists it."""
    return (
        f"{name}+{mark_of(name, public).hex()}+{base64.b64encode(WITNESS_TYPE + public).decode()}"
    )


def mark_of(name: str, public: bytes) -> bytes:
    """What stands before a witness's signatures."""
    return hashlib.sha256(name.encode() + b"\n" + WITNESS_TYPE + public).digest()[:4]


def log_key(vkey: str) -> tuple[str, bytes]:
    """Origin and DER key of a log."""
    match = VKEY.fullmatch(vkey)
    key = b64decode(match[3]) if match else b""
    digest = hashlib.sha256(key[1:]).hexdigest()
    is_p256 = (
        key[:1] == LOG_TYPE and key[1:].startswith(P256) and len(key) == 1 + len(P256) + 64 + 1
    )
    if match is None or not is_p256 or match[2] != digest[:8]:
        raise Unusable(f"no verifier key of a log: {vkey[:120]!r}")
    if not ORIGIN.fullmatch(match[1]) or not match[1].endswith(f"/{digest[:16]}"):
        raise Unusable(f"the verifier key has another name than its key: {match[1]!r}")
    return match[1], key[1:]


# --- the directory ---


class Directory:
    """The witness's key, what it has seen, and its journal."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def vkey(self) -> str:
        """Of the witness."""
        return read(self.path / "vkey").decode("utf-8", "replace").strip()

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Against other processes."""
        fd = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def create(self, name: str) -> None:
        """A new key."""
        if not re.fullmatch(NAME, name):
            raise Unusable(f"no witness can have that name: {name!r}")
        (self.path / "logs").mkdir(mode=0o700, parents=True, exist_ok=True)
        self.path.chmod(0o700)
        with self.locked():
            if (self.path / "vkey").exists():
                raise Unusable(f"there is a witness already in {self.path}")
            pem = checked("genpkey", "-algorithm", "ed25519")
            replace(self.path / "key.pem", pem)
            public = checked("pkey", "-in", "{0}", "-pubout", "-outform", "DER", files=(pem,))[-32:]
            replace(self.path / "vkey", f"{witness_vkey(name, public)}\n".encode())

    def log_file(self, origin: str) -> Path:
        """Where it is kept what was seen of a log."""
        return self.path / "logs" / hashlib.sha256(origin.encode()).hexdigest()

    def add_log(self, vkey: str) -> None:
        """Know a log from now on."""
        origin, _ = log_key(vkey)
        path = self.log_file(origin)
        with self.locked():
            if not path.exists():
                replace(path, f"{vkey}\n0\n-\n".encode())
            elif read(path).decode("utf-8", "replace").split("\n")[0] != vkey:
                raise Unusable(f"another key of {origin} is known here")

    def cosign(self, old: int, proof: list[bytes], note: Note) -> bytes:
        """The note with this witness's line; first it is written what is seen."""
        with self.locked():
            now = int(time.time())
            try:
                vkey = self.judge(old, proof, note)
            except Refusal as refusal:
                self.enter(now, refusal.answer, note, str(refusal))
                raise
            root = base64.b64encode(note.root).decode()
            replace(self.log_file(note.origin), f"{vkey}\n{note.size}\n{root}\n".encode())
            self.enter(now, 200, note, "cosigned")
        name = self.vkey.partition("+")[0]
        public = b64decode(self.vkey.split("+", 2)[2])[1:]
        said = b"cosignature/v1\ntime %d\n%b" % (now, note.text)
        key = read(self.path / "key.pem")
        ask = ("pkeyutl", "-sign", "-rawin", "-inkey", "{0}", "-in", "{1}")
        signature = checked(*ask, files=(key, said))
        line = base64.b64encode(mark_of(name, public) + now.to_bytes(8, "big") + signature).decode()
        return note.text + b"\n" + f"{note.below}\u2014 {name} {line}\n".encode()

    def judge(self, old: int, proof: list[bytes], note: Note) -> str:
        """The log's verifier key, if its note may be cosigned."""
        path = self.log_file(note.origin)
        if not path.exists():
            raise Refusal(404, f"no log {note.origin} is known here")
        vkey, number, root, *rest = read(path).decode("utf-8", "replace").split("\n")
        origin, key = log_key(vkey)
        is_new = (number, root) == ("0", "-")
        seen = EMPTY if is_new else b64decode(root)
        is_whole = is_new or (NUMBER.fullmatch(number) and len(seen) == len(EMPTY))
        if origin != note.origin or rest != [""] or not is_whole:
            raise Unusable(f"{path} is of another log, or damaged")
        size = int(number)
        if not note.is_signed(key):
            raise Refusal(403, "the log's key did not sign the note")
        if old > note.size:
            raise Refusal(400, f"the note is of {note.size} statements, fewer than {old} before")
        if old != size:
            raise Refusal(409, f"the proof begins at {old}, what was seen last here at {size}")
        if not is_consistent(size, seen, note.size, note.root, proof):
            raise Refusal(422, f"the note does not continue the {size} statements seen here")
        return vkey

    def enter(self, now: int, answer: int, note: Note, why: str) -> None:
        """One line more in the journal."""
        moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now))
        line = f"{moment}\t{answer}\t{note.origin}\t{note.size}\t{note.root.hex()}\t{why}\n"
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW
        fd = os.open(self.path / "journal", flags, 0o600)
        try:
            os.write(fd, line.encode())
            os.fsync(fd)
        finally:
            os.close(fd)


def read(path: Path) -> bytes:
    """A small file."""
    with path.open("rb") as file:
        data = file.read(LARGEST + 1)
    if len(data) > LARGEST:
        raise Unusable(f"{path} is too large")
    return data


def replace(path: Path, data: bytes) -> None:
    """Durable on return: the old file or the new one, never a part."""
    fresh = path.with_name(f".{path.name[:16]}.{os.getpid()}")
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    try:
        os.write(fd, data)
        os.fsync(fd)
    finally:
        os.close(fd)
    fresh.replace(path)
    above = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(above)
    finally:
        os.close(above)


def hand_out(path: Path | None, data: bytes) -> None:
    """Print, or write a file; root could put one in the place of /dev/null, so not there."""
    if path is None:
        sys.stdout.buffer.write(data)
    elif path.exists() and not path.is_file():
        path.write_bytes(data)
    else:
        replace(path, data)


# --- the command line ---


def main() -> int:
    """See the beginning of this file."""
    parser = argparse.ArgumentParser(description="A witness of a vault's ledger.")
    commands = parser.add_subparsers(dest="command", required=True)
    for command in ("init", "cosign", "log"):
        each = commands.add_parser(command)
        each.add_argument("--state", type=Path, required=True, metavar="DIR")
        if command == "init":
            each.add_argument("--name")
            each.add_argument("--log", action="append", default=[], metavar="VKEY")
        if command == "cosign":
            each.add_argument("file", type=Path)
            each.add_argument("--out", type=Path, metavar="ANSWER")
    options = parser.parse_args()
    directory = Directory(options.state)
    match options.command:
        case "init":
            if options.name is None and not options.log:
                parser.error("--name, or a --log to add")
            if options.name is not None:
                directory.create(options.name)
            for vkey in options.log:
                directory.add_log(vkey)
            print(directory.vkey)  # noqa: T201 - its result
        case "cosign":
            answer = directory.cosign(*read_request(options.file))
            hand_out(options.out, answer)
        case _:
            journal = options.state / "journal"
            sys.stdout.write(journal.read_text("utf-8", "replace") if journal.exists() else "")
    return 0


def end(code: int, text: str) -> NoReturn:
    """Say why, and go."""
    sys.stderr.write(f"witness.py: {text}\n")
    sys.exit(code)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Refusal as refusal:
        end(4, f"not cosigned ({refusal.answer}): {refusal}")
    except (Unusable, OSError, ValueError) as error:
        end(2, str(error))
