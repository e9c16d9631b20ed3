#!/usr/bin/env python3
"""Checks a repository with nothing but the Python standard library and ``openssl``.

A second reading of docs/format.md that shares no code with the program it checks.

    verify_ledger.py STORE ROOT_DIGEST

STORE is a directory store, or a bucket copied to a directory: object NAME is the file
STORE/NAME, its later versions are NAME~2, NAME~3. Only public keys are needed. Prints one
finding a line; exit status 0 if there is none, 1 otherwise.
"""

import base64
import hashlib
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any

PAYLOAD_TYPE = "application/vnd.in-toto+json"
ROLE_OF = {
    "root": "root",
    "writer": "enroller",
    "snapshot": "writer",
    "heartbeat": "writer",
    "restore": "restorer",
    "drill": "restorer",
    "verification": "restorer",
    "policy": "policy",
    "hold": "policy",
    "prune": "pruner",
}
EVENT: dict[str, type] = {"verdict": str, "started": str, "finished": str, "attestation": str}
NEEDED: dict[str, dict[str, type]] = {  # members of bodies that this program reads, and their types
    "root": {"version": int, "keys": list, "thresholds": dict},
    "writer": {"action": str, "public": str},
    "snapshot": {"dataset": str, "until": str, "inventory": dict, "complete": bool},
    "heartbeat": {"note": str},
    "hold": {"action": str, "snapshot": int},
    "prune": {"plan": str, "phase": str},
    "restore": EVENT,
    "drill": EVENT,
    "verification": {
        **EVENT,
        "snapshots": list,
        "share": int,
        "opened": bool,
        "read": int,
        "through": int,
    },
}
BROKEN = (ValueError, KeyError, TypeError, AttributeError, IndexError)
Json = dict[str, Any]
Objects = dict[str, tuple[str, int]]  # name -> digest, size
TIME = "[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z"
LINE = re.compile(r"([0-9a-f]{64})\t([0-9]+)\t([!-~]{1,1024})\t([!-~]+)")


class BadError(Exception):
    """These bytes are not what they should be."""


def require(condition: object, problem: str) -> None:
    """Raise `BadError` with the problem unless the condition holds."""
    if not condition:
        raise BadError(problem)


# --- bytes ---


def sha256(data: bytes) -> str:
    """Lower-case hex."""
    return hashlib.sha256(data).hexdigest()


def unbase64(text: str) -> bytes:
    """Decode canonical base64 only."""
    data = base64.b64decode(text, validate=True)
    require(base64.b64encode(data).decode() == text, "base64 is not canonical")
    return data


def strict_json(data: bytes) -> Json:
    """One JSON object without floats, duplicate names or huge integers."""

    def refuse(text: str) -> None:
        raise BadError(f"number {text[:20]} in JSON")

    def integer(text: str) -> int:
        require(len(text) < 18 and abs(int(text)) < 2**53, "integer beyond 2^53-1")
        return int(text)

    def unique(pairs: list[tuple[str, Any]]) -> Json:
        require(len(dict(pairs)) == len(pairs), "duplicate name in JSON")
        return dict(pairs)

    value = json.loads(
        data.decode("utf-8"),
        parse_float=refuse,
        parse_constant=refuse,
        parse_int=integer,
        object_pairs_hook=unique,
    )
    if not isinstance(value, dict):
        raise BadError("not a JSON object")
    return value


def openssl_verifies(public: str, signature: bytes, message: bytes) -> bool:
    """What an auditor would type: ``openssl dgst -sha256 -verify``."""
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        pem = f"-----BEGIN PUBLIC KEY-----\n{public}\n-----END PUBLIC KEY-----\n"
        (work / "key").write_text(pem)
        (work / "sig").write_bytes(signature)
        (work / "pae").write_bytes(message)
        command = ["openssl", "dgst", "-sha256", "-verify", "key", "-signature", "sig", "pae"]
        done = subprocess.run(command, cwd=work, capture_output=True, check=False)
    return done.returncode == 0 and b"Verified OK" in done.stdout


# --- the store ---


class Store:
    """Objects by name; every version may be asked for."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def versions(self, name: str) -> Iterator[Path]:
        """Oldest first."""
        require(not {"", ".", ".."} & set(name.split("/")), f"impossible object name {name!r}")
        paths = [self.root / name]
        paths += sorted(paths[0].parent.glob(f"{paths[0].name}~*"), key=_version_number)
        return (path for path in paths if path.is_file())

    def find(self, name: str, digest: str) -> bytes:
        """The bytes of any version that has this digest."""
        for path in self.versions(name):
            if sha256(data := path.read_bytes()) == digest:
                return data
        raise BadError(f"{name} is missing or has other bytes")

    def has(self, name: str, size: int, digest: str) -> str:
        """What is wrong with an object that is too large to be read at once; empty if nothing."""
        paths = list(self.versions(name))
        for path in paths:
            with path.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
            if (path.stat().st_size, found) == (size, digest):
                return ""
        return f"{name} has other bytes" if paths else f"{name} is missing"


def _version_number(path: Path) -> int:
    number = path.name.rpartition("~")[2]
    return int(number) if number.isdecimal() else sys.maxsize


# --- the ledger ---


class Verifier:
    """Walks the chain from the pinned root and collects findings."""

    def __init__(self, store: Path, root_digest: str, now: datetime) -> None:
        self.store = Store(store)
        self.pinned = root_digest
        self.now = now
        self.findings: list[str] = []
        self.root: Json = {}
        self.writers: dict[str, Json] = {}  # base64 public key -> body of its enrolment
        self.revoked: set[str] = set()
        self.prev = ""
        self.repository = ""
        self.snapshots: dict[int, tuple[str, Json]] = {}  # seq -> (public key, body)
        self.held: set[int] = set()

    def run(self) -> list[str]:
        """All findings."""
        seq = 0
        while self.link(seq):
            seq += 1
        if seq == 0:
            self.findings.append("ledger 0: no version is the pinned root")
        self.check_beyond(seq)
        for number, (_, body) in sorted(self.snapshots.items()):
            self.guard(f"ledger {number}", partial(self.check_needs, number, body))
        return self.findings

    def guard(self, subject: str, action: Callable[[], None]) -> None:
        """Turn what fails into a finding."""
        try:
            action()
        except (BadError, *BROKEN) as error:
            self.findings.append(f"{subject}: {error!s}")

    def link(self, seq: int) -> bool:
        """Take the oldest link-valid version of the next name."""
        for path in self.store.versions(f"ledger/{seq:016d}"):
            try:
                pae, statement, signers = self.check_link(path.read_bytes(), seq)
            except (BadError, *BROKEN):
                continue
            self.prev = sha256(pae)
            self.repository = statement["predicate"]["repository"]
            self.guard(f"ledger {seq}", partial(self.take_effect, seq, statement, signers))
            return True
        return False

    def check_beyond(self, end: int) -> None:
        """What stands after the head must not be signed by a key we know."""
        for path in sorted((self.store.root / "ledger").glob("[0-9]" * 16 + "*")):
            if int(path.name[:16]) >= end:
                try:
                    _, statement, signers = self.open(path.read_bytes())
                except (BadError, *BROKEN):
                    continue
                if signers and statement["predicate"]["seq"] == int(path.name[:16]):
                    self.findings.append(f"ledger {path.name}: signed, but beyond a gap")

    def listed(self) -> set[str]:
        """Public keys that may sign anything, in base64."""
        return {key["public"] for key in self.root.get("keys", ())} | (
            set(self.writers) - self.revoked
        )

    def open(self, envelope: bytes) -> tuple[bytes, Json, set[str]]:
        """PAE, statement and the public keys whose signatures hold."""
        fields = strict_json(envelope)
        require(fields["payloadType"] == PAYLOAD_TYPE, "another payload type")
        payload = unbase64(fields["payload"])
        kind = PAYLOAD_TYPE.encode()
        pae = b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)
        statement = strict_json(payload)
        require(1 <= len(fields["signatures"]) <= 16, "not 1 to 16 signatures")
        limit = 65536 if ":root:" in str(statement["predicateType"]) else 4096
        require(len(pae) <= limit and len(envelope) <= 2 * limit + 8192, "too large")
        candidates = self.listed()
        if statement["predicateType"] == "urn:vault:root:v1":
            candidates |= keys_of_root(statement)
        return pae, statement, self.signers(fields["signatures"], pae, candidates)

    @staticmethod
    def signers(signatures: list[Json], pae: bytes, candidates: set[str]) -> set[str]:
        """Unique public keys; the key id only says which one to try first."""
        found: set[str] = set()
        for entry in signatures:
            signature, hint = unbase64(entry["sig"]), entry.get("keyid", "")
            order = sorted(candidates - found, key=lambda k: sha256(unbase64(k)) != hint)
            for public in order:
                if openssl_verifies(public, signature, pae):
                    found.add(public)
                    break
        return found

    def check_link(self, envelope: bytes, seq: int) -> tuple[bytes, Json, set[str]]:
        """The frozen grammar: docs/format.md 2.2."""
        pae, statement, signers = self.open(envelope)
        predicate = statement["predicate"]
        require(statement["_type"] == "https://in-toto.io/Statement/v1", "another _type")
        require(type(predicate["seq"]) is int and predicate["seq"] == seq, "another seq")
        if seq == 0:
            require(sha256(pae) == self.pinned and predicate["prev"] is None, "not the pinned root")
            require(statement["predicateType"] == "urn:vault:root:v1", "not a root")
            self.require_role("root", signers, predicate["body"])
        else:
            require(predicate["repository"] == self.repository, "another repository")
            require(predicate["prev"]["sha256"] == self.prev, "does not follow")
            require(signers & self.listed(), "not signed by a listed key")
        return pae, statement, signers

    def require_role(self, role: str, signers: set[str], root: Json) -> None:
        """Enough unique keys with the role must have signed."""
        able = {key["public"] for key in root["keys"] if role in key["roles"]}
        needed = root["thresholds"].get(role, 1)
        require(len(able & signers) >= needed, f"void: {role} needs {needed} signatures")

    def take_effect(self, seq: int, statement: Json, signers: set[str]) -> None:
        """What a linked statement changes; `BadError` when it is void."""
        match = re.fullmatch(r"urn:vault:([a-z]+):v1", str(statement["predicateType"]))
        role = ROLE_OF.get(match[1]) if match else None
        if match is None or role is None:
            return  # not understood: chained over
        body = statement["predicate"]["body"]
        check_shape(match[1], body)
        if role == "writer":
            able = sorted((signers & set(self.writers)) - self.revoked)
            require(able, "void: not signed by a writer")
        elif seq:
            self.require_role(role, signers, self.root)
        match match[1]:
            case "root":
                self.change_root(seq, body, signers)
            case "writer":
                self.change_writer(seq, body)
            case "snapshot":
                self.add_snapshot(seq, body, able)
            case "hold":
                change = self.held.add if body["action"] == "add" else self.held.discard
                change(body["snapshot"])
            case "restore" | "drill" | "verification":
                check_event(match[1], body, seq)
                self.store.find(f"evidence/{body['attestation']}", body["attestation"])
            case "prune":
                self.store.find(f"evidence/{body['plan']}", body["plan"])
            case _:
                pass  # a heartbeat

    def change_root(self, seq: int, body: Json, signers: set[str]) -> None:
        """Root N+1 follows root N and satisfies both thresholds."""
        if seq:
            require(body["version"] == self.root["version"] + 1, "void: root version skipped")
            self.require_role("root", signers, body)
        self.root = body

    def change_writer(self, seq: int, body: Json) -> None:
        """Enrol or revoke one writer key."""
        public = body["public"]
        if body["action"] == "add":
            require(public not in self.writers, "void: the key was enrolled before")
            require(public not in self.listed(), "void: the key is listed already")
            self.writers[public] = body
            return
        require(body["action"] == "revoke" and public in self.writers, "void: no such writer")
        self.revoked.add(public)
        start = body.get("distrust_from")
        if start is None:
            return
        for number, (writer, _) in list(self.snapshots.items()):
            if writer == public and number >= start:
                del self.snapshots[number]
                self.findings.append(f"ledger {number}: void, distrusted by statement {seq}")

    def add_snapshot(self, seq: int, body: Json, able: list[str]) -> None:
        """A snapshot counts within its writer's patterns."""
        for public in able:
            writer = self.writers[public]
            if writer.get("domain") and any(
                fnmatchcase(body["dataset"], pattern) for pattern in writer["datasets"]
            ):
                self.snapshots[seq] = (public, body)
                return
        raise BadError(f"void: dataset {body['dataset']} is outside the writer's patterns")

    # --- objects ---

    def check_needs(self, seq: int, body: Json) -> None:
        """Every object that a live or held snapshot needs has its bytes."""
        until = datetime.strptime(body["until"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
        if until <= self.now and seq not in self.held:
            return  # no longer owed
        stated = body["inventory"]
        name = f"inventory/{stated['sha256']}"
        objects, chain = self.resolve(name, stated["sha256"], 0)
        total = sum(size for _, size in objects.values())
        require(
            (len(objects), total) == (stated["objects"], stated["bytes"]),
            f"{name} has not the count or bytes that the snapshot states",
        )
        require(chain <= 16, f"{name} has a chain of {chain} bases")
        for wanted, (digest, size) in sorted(objects.items()):
            if problem := self.store.has(wanted, size, digest):
                self.findings.append(f"ledger {seq}: {problem}")

    def resolve(self, name: str, digest: str, depth: int) -> tuple[Objects, int]:
        """Objects by name, and how many bases it took."""
        require(depth <= 16, f"{name} has too many bases")
        text = self.store.find(name, digest).decode("ascii")
        require(text.endswith("\n"), f"{name} ends within a line")
        lines = text.partition("# index\n")[0].splitlines()
        require(lines[0] == "# vault-inventory 1", f"{name} is not an inventory")
        objects: Objects = {}
        chain, rest = 0, lines[3:]
        if rest and rest[0].startswith("# base "):
            base_digest, _, base_name = parse_line(rest.pop(0).removeprefix("# base "))
            require(base_name == f"inventory/{base_digest}", f"{name} has an impossible base")
            objects, chain = self.resolve(base_name, base_digest, depth + 1)
            chain += 1
        apply_lines(name, objects, rest)
        header = (f"# objects {len(objects)}", f"# bytes {sum(s for _, s in objects.values())}")
        require((lines[1], lines[2]) == header, f"{name} does not add up")
        return objects, chain


def check_shape(kind: str, body: Json) -> None:
    """A body that lacks what its type says is void."""
    for name, wanted in NEEDED.get(kind, {}).items():
        require(type(body.get(name)) is wanted, f"void: {name} is malformed")  # bool is no int


def check_event(kind: str, body: Json, seq: int) -> None:
    """What a restore, drill or verification may say (docs/format.md 2.3); `BadError`: void."""
    require(body["verdict"] in ("passed", "failed", "partial"), "void: another verdict")
    for name in ("started", "finished"):
        require(re.fullmatch(TIME, body[name]), f"void: {name} is no time")
    about = body.get("snapshot")
    if kind == "verification":
        about = check_ranges(body)
        share, part, nonce = body["share"], body.get("slice"), body.get("nonce", "")
        require(0 <= share <= 1_000_000 and body["read"] >= 0, "void: impossible share")
        require(not part or 0 <= part[0] < part[1] <= 65_536, "void: impossible slice")
        require(re.fullmatch("([0-9a-f]{32})?", nonce), "void: impossible nonce")
    require(about is None or 0 <= about < seq, "void: about a statement that does not precede it")
    bad, cleared = body.get("bad", []), body.get("cleared", [])
    for ids in (bad, cleared):
        require(len(ids) <= 24 and ids == sorted(set(ids)), "void: pack ids are not sorted")
        require(all(re.fullmatch("[0-9a-f]{64}", each) for each in ids), "void: no pack id")
    require(len(bad) + len(cleared) <= 32 and not set(bad) & set(cleared), "void: too many ids")
    require(body.get("bad_count", 0) >= len(bad), "void: bad_count is too small")


def check_ranges(body: Json) -> int:
    """The snapshots that a verification covers, up to the head it read, which is returned."""
    through: int = body["through"]
    require(1 <= len(body["snapshots"]) <= 16, "void: not 1 to 16 ranges")
    before = -1
    for first, last in body["snapshots"]:
        require(before < first <= last <= through, "void: ranges do not ascend")
        before = last
    return through


def keys_of_root(statement: Json) -> set[str]:
    """Keys that a new root brings along: they must sign it too."""
    try:
        keys = {key["public"] for key in statement["predicate"]["body"]["keys"]}
        return {public for public in keys if len(unbase64(public)) == 91}
    except (BadError, *BROKEN):
        return set()


def parse_line(line: str) -> tuple[str, int, str]:
    """Digest, size and name."""
    match = LINE.fullmatch(line)
    require(match, f"malformed inventory line {line[:80]!r}")
    assert match
    return match[1], int(match[2]), match[4]


def apply_lines(name: str, objects: Objects, lines: list[str]) -> None:
    """Removed lines first, then the others; both sorted without repeats."""
    added = [parse_line(line) for line in lines if not line.startswith("-")]
    removed = [parse_line(line[1:]) for line in lines if line.startswith("-")]
    for part in (added, removed):
        names = [entry[2] for entry in part]
        require(names == sorted(set(names)), f"{name} is not sorted")
    for digest, size, wanted in removed:
        require(objects.pop(wanted, None) == (digest, size), f"{name} removes what is not there")
    for digest, size, wanted in added:
        require(wanted not in objects, f"{name} repeats {wanted}")
        objects[wanted] = (digest, size)


def verify(store: Path, root_digest: str, *, now: datetime | None = None) -> list[str]:
    """All findings of a repository in a directory; empty if it is sound.

    Args:
        store: The directory.
        root_digest: Of statement 0, known from elsewhere.
        now: Snapshots that ended before need nothing any more; by default the clock.
    """
    return Verifier(store, root_digest, now or datetime.now(UTC)).run()


def main() -> int:
    """The command."""
    if len(sys.argv) != 3:
        print(__doc__)
        return 2
    findings = verify(Path(sys.argv[1]), sys.argv[2].removeprefix("0:"))
    print("\n".join(findings) or "no findings")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
