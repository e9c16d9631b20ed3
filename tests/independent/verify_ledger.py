#!/usr/bin/env python3
"""Checks a repository with nothing but the Python standard library and ``openssl``.

A second reading of docs/format.md that shares no code with the program it checks.

    verify_ledger.py STORE ROOT_DIGEST [NOW]

STORE is a directory store, or a bucket copied to a directory: object NAME is the file
STORE/NAME, its later versions are NAME~2, NAME~3. Only public keys are needed. Prints what
docs/format.md 2.7 says: faults, head, counts; exit status 0 if there is no fault, 1 otherwise,
2 where a statement about keys is not understood.
"""

import base64
import hashlib
import json
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from datetime import UTC, datetime
from fnmatch import fnmatchcase
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
    "verification": "restorer verifier",
    "reseal": "restorer",
    "warrant": "",
    "policy": "policy",
    "hold": "policy",
    "prune": "pruner",
}
PARAMETERS = {
    "suite?": "integer",
    "lock_mode": "mode",
    "data_chunk?": "sizes",
    "tree_chunk?": "sizes",
    "block_size?": "positive",
    "pack_size?": "positive",
    "lock_grid?": "positive",
    "min_retention?": "positive",
    "default_retention?": "positive",
    "max_retention?": "positive",
    "versions_ordered?": "boolean",
    "checksums_refused?": "boolean",
    "extend?": "boolean",
}
EVENT = {
    "verdict": "verdict",
    "started": "time",
    "finished": "time",
    "attestation": "digest",
    "bad?": "packs",
    "bad_count?": "integer",
    "cleared?": "packs",
}
RECOVERY = {"rto??": "span", "objective??": "span", "replaced?": "boolean"}
COUNTS = "files directories symlinks others size added_size added_bytes unreadable changed vanished"
OUTCOMES = "objects bytes deleted gone locked refused"
SHAPES: dict[str, dict[str, Any]] = {  # docs/format.md 2.3; "?": may be absent, "??": or null
    "root": {
        "version?": "integer",
        "parameters": PARAMETERS,
        "keys": [
            {
                "name": "text",
                "public": "key",
                "roles": ["text"],
                "person?": "label or nothing",
                "review?": "date or nothing",
            }
        ],
        "thresholds": "counts",
        "recipients": [{"name": "text", "public": "base64"}],
        "approvals?": "approvals",
        "witnesses?": [{"name": "label", "vkey": "vkey"}],
        "quorum?": "positive",
        "checkpoint_age?": "age",
        "distrust?": [{"public": "key", "from": "natural"}],
        "min_reader?": "integer",
        "min_writer?": "integer",
    },
    "writer": {
        "action": "enrolment",
        "name": "text",
        "public": "key",
        "recipient?": "text",
        "datasets?": ["text"],
        "domain??": {
            "name": "text",
            "object": "text",
            "sha256": "text",
            "size": "integer",
            "version": "text",
        },
        "replaces?": "digest or nothing",
        "distrust_from??": "integer",
        "reason?": "text",
    },
    "snapshot": {
        "dataset": "label",
        "created": "time",
        "complete": "boolean",
        "counts": {f"{name}?": "natural" for name in (*COUNTS.split(), "sockets")},
        "tree": {"id": "digest", "level": "level", "commitment": "digest"},
        "inventory": {
            "sha256": "digest",
            "size": "natural",
            "version": "version id",
            "objects": "natural",
            "bytes": "natural",
        },
        "mode": "mode",
        "until": "time",
        "previous??": "natural",
        "retention??": {"keep": "span", "tiers?": "tiers"},
        "policy?": "digest or nothing",
        "scope?": "digest or nothing",
        "label?": "name or nothing",
        "purpose?": "purpose",
        "barrier?": "barrier",
        "notes?": "digest or nothing",
    },
    "heartbeat": {"note": "text", "accepted?": "text", "next_by??": "time"},
    "restore": {**EVENT, **RECOVERY, "snapshot??": "natural"},
    "drill": {**EVENT, **RECOVERY, "snapshot??": "natural"},
    "verification": {
        **EVENT,
        "snapshots": [["integer"]],
        "share": "share",
        "slice??": ["integer"],
        "nonce?": "nonce",
        "opened": "boolean",
        "read": "natural",
        "through": "natural",
    },
    "warrant": {"payload": "base64", "signatures": [{"keyid": "text", "sig": "base64"}]},
    "reseal": {
        "recipient": "digest",
        "objects": [
            {"name": "text", "sha256": "digest", "size": "natural", "version": "version id"}
        ],
        "sessions": "natural",
        "through": "natural",
    },
    "policy": {
        "action": "ruling",
        "name": "label",
        "sha256?": "digest or nothing",
        "previous??": "natural",
        "weaker?": ["text"],
        "weakens?": "boolean",
        "reason?": "200 bytes",
    },
    "hold": {
        "action": "holding",
        "snapshot": "natural",
        "hold??": "natural",
        "dataset?": "label or nothing",
        "until??": "time",
        "case?": "60 bytes",
        "reason": "300 bytes",
        "author": "100 bytes",
    },
    "prune": {
        "phase": "phase",
        "plan": "digest",
        "spared?": "digest or nothing",
        "details?": "digest or nothing",
        "head??": "natural",
        "part?": "positive",
        "parts?": "positive",
        "of??": "natural",
        "complete?": "boolean",
        **{f"{name}?": "natural" for name in OUTCOMES.split()},
    },
}
TIERS = ("hourly", "daily", "weekly", "monthly", "quarterly", "yearly")
CITED = {  # members of a body that are digests of evidence
    "restore": ("attestation",),
    "drill": ("attestation",),
    "verification": ("attestation",),
    "policy": ("sha256",),
    "prune": ("plan", "spared", "details"),
}
ABOUT = {"hold": ("snapshot", "hold"), "policy": ("previous",), "prune": ("head", "of")}
Json = dict[str, Any]
OF_ROOTS = ("root", "recipient.remove")
BOUND: dict[str, Json] = {  # values of acts whose body is not bound whole, and if absent
    "hold.add": {"dataset": "", "snapshot": None, "until": None},
    "hold.release": {"hold": None},
    "policy.apply": {"action": "", "name": "", "previous": None, "sha256": ""},
    "policy.weaken": {"action": "", "name": "", "previous": None, "sha256": ""},
    "prune": {"plan": ""},
    "reseal": {"recipient": "", "through": None},
}
REQUEST = {
    "_type": "in-toto",
    "predicateType": "request type",
    "subject": [{"name": "text", "digest": {"sha256": "digest"}}],
    "predicate": {
        **dict.fromkeys(("floor", "act", "summary", "reason", "ticket"), "text"),
        "repository": "16 bytes",
        "root": "natural",
        "requester": "digest",
        "not_before": "time",
        "expires": "time",
        "nonce": "16 bytes",
    },
}
ACTIONS = ("add", "limit", "revoke")  # of a writer statement
APPROVING = ("root", "enroller", "policy", "pruner", "restorer", "verifier")
ACTS = (
    *("root", "recipient.remove", "writer.add", "writer.limit", "writer.revoke"),
    *("hold.add", "hold.release", "policy.apply", "policy.weaken"),
    *("prune", "restore.replace", "rollback", "reseal"),
)
SIGNS_NO_STATEMENTS = {"log", "approver"}
BROKEN = (ValueError, KeyError, TypeError, AttributeError, IndexError)
Objects = dict[str, tuple[str, int]]  # name -> digest, size
TIME = re.compile("[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z")
NUMBER = re.compile("0|[1-9][0-9]{0,15}")
HEX = re.compile("[0-9a-f]{64}")
VKEY = re.compile(r"([A-Za-z0-9._/:@~-]{1,128})\+([0-9a-f]{8})\+([A-Za-z0-9+/=]{1,64})")
LABEL = re.compile("[a-z][a-z0-9._-]{0,62}")
PATTERN = re.compile("[a-z0-9._*?-]{1,63}")
PREDICATE = re.compile("urn:vault:([a-z][a-z0-9-]{0,62}):v([1-9][0-9]{0,8})")
SPKI = bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d03010703420004")  # of P-256
FIELD = 2**256 - 2**224 + 2**192 + 2**96 - 1  # of P-256 (FIPS 186-5)
CONSTANT = 0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B
LINE = re.compile(r"([0-9a-f]{64})\t(0|[1-9][0-9]{0,14})\t([!-~]{1,1024})\t([!-~]+)")
OBJECT = re.compile("[a-z0-9][a-z0-9._-]*(/[a-z0-9][a-z0-9._-]*)*")


class UpgradeError(Exception):
    """A statement changes who may sign, in a way that is not understood here."""


class BadError(Exception):
    """These bytes are not what they should be; `code` is what a fault of it is called, or empty."""

    def __init__(self, problem: str, code: str = "") -> None:
        super().__init__(problem)
        self.code = code


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


class Canonical:
    """Reads canonical JSON (docs/format.md), a byte at a time and nothing else."""

    TEXT = re.compile(rb'"((?:[^"\\\x00-\x1f\x7f]|\\["\\])*)"')
    NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
    NUMBER = re.compile(rb"0|-?[1-9][0-9]{0,15}")
    WORDS: Mapping[bytes, object] = {b"true": True, b"false": False, b"null": None}

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    @classmethod
    def read(cls, data: bytes) -> Json:
        """One JSON object, and nothing after it."""
        reader = cls(data)
        value = reader.value(0)
        require(reader.at == len(data), "bytes after the JSON value")
        if not isinstance(value, dict):
            raise BadError("not a JSON object")
        return value

    def take(self, wanted: bytes) -> bool:
        """Step over these bytes if they come next."""
        found = self.data.startswith(wanted, self.at)
        self.at += len(wanted) if found else 0
        return found

    def match(self, pattern: re.Pattern[bytes], what: str) -> re.Match[bytes]:
        """Step over what the pattern takes."""
        found = pattern.match(self.data, self.at)
        if found is None:
            raise BadError(f"JSON has no {what} at byte {self.at}")
        self.at = found.end()
        return found

    def text(self) -> str:
        """A string: of UTF-8, with the two escapes that are needed."""
        raw = self.match(self.TEXT, "text")[1]
        return re.sub(rb"\\(.)", rb"\1", raw).decode("utf-8")

    def value(self, depth: int) -> object:
        """Whatever comes next."""
        if self.take(b"{"):
            return self.members(depth + 1)
        if self.take(b"["):
            return self.items(depth + 1)
        if self.data[self.at : self.at + 1] == b'"':
            return self.text()
        for word, meaning in self.WORDS.items():
            if self.take(word):
                return meaning
        number = int(self.match(self.NUMBER, "value")[0])
        require(abs(number) < 2**53, "integer beyond 2^53-1")
        return number

    def items(self, depth: int) -> list[object]:
        """A list, after its bracket."""
        require(depth <= 8, "JSON is nested too deeply")
        found: list[object] = []
        while not self.take(b"]"):
            require(not found or self.take(b","), "JSON list lacks a comma")
            found.append(self.value(depth))
        return found

    def members(self, depth: int) -> Json:
        """An object, after its brace."""
        require(depth <= 8, "JSON is nested too deeply")
        found: Json = {}
        last = ""
        while not self.take(b"}"):
            require(not found or self.take(b","), "JSON object lacks a comma")
            name = self.text()
            require(self.NAME.fullmatch(name) and name > last, "JSON names are not ascending")
            require(self.take(b":"), "JSON object lacks a colon")
            found[name] = self.value(depth)
            last = name
        return found


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
        later = paths[0].parent.glob(f"{paths[0].name}~*")
        paths += sorted(filter(_version_number, later), key=_version_number)
        return (path for path in paths if path.is_file())

    def find(self, name: str, digest: str) -> Path:
        """The oldest version that has this digest."""
        paths = list(self.versions(name))
        for path in paths:
            with path.open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() == digest:
                    return path
        code, what = ("wrong-bytes", "has other bytes") if paths else ("missing", "is missing")
        raise BadError(f"{name} {what}", code)


def _version_number(path: Path) -> int:
    """2 and more; 0 for what is no version."""
    number = path.name.rpartition("~")[2]
    return int(number) if re.fullmatch("[1-9][0-9]{0,17}", number) else 0


# --- the ledger ---


class Verifier:
    """Walks the chain from the pinned root; keeps faults, head and counts."""

    def __init__(self, store: Path, root_digest: str, now: datetime) -> None:
        self.store = Store(store)
        self.pinned = root_digest
        self.now = now
        self.faults: dict[str, str] = {}  # "CODE SUBJECT" -> what is wrong, in their order
        self.notes: list[str] = []
        self.status: list[str] = []  # of each linked statement: valid, void or unknown
        self.junk = 0  # versions passed over
        self.root: Json = {}
        self.writers: dict[str, Json] = {}  # base64 public key -> body of its enrolment
        self.revoked: set[str] = set()
        self.upgrade = False  # a statement about keys is not understood
        self.prev = ""
        self.repository = ""
        self.digests: list[str] = []  # of the linked statements
        self.requests: dict[int, tuple[bytes, list[Json]]] = {}  # what valid warrants carry, by seq
        self.used: set[str] = set()  # digests of requests on which an act rests
        self.acts: dict[int, tuple[str, list[str], Json]] = {}  # valid but for distrust, by seq
        self.spoken: list[tuple[int, str, int, list[str]]] = []  # seq, writer, from, who spoke
        self.root_at = 0
        self.snapshots: dict[int, Json] = {}  # seq -> body
        self.held: set[int] = set()
        self.cited: set[str] = set()  # digests of evidence
        self.lines = 0  # of an inventory and its bases

    def run(self) -> None:
        """Look at everything."""
        try:
            while self.link(len(self.status)):
                pass
            if self.status:
                self.check_beyond(len(self.status))
            else:
                self.fault("no-root", "ledger 0", "no version is the pinned root")
        except UpgradeError as error:
            self.upgrade = True
            self.fault("upgrade", f"ledger {len(self.status)}", str(error))
        self.settle()
        for digest in sorted(self.cited):
            self.check_object(f"evidence/{digest}", digest)
        needed: dict[str, str] = {}
        for seq, body in sorted(self.snapshots.items()):
            try:
                needed |= self.needs(seq, body)
            except (BadError, *BROKEN) as error:
                self.fault("inventory", f"ledger {seq}", str(error))
        for name, digest in sorted(needed.items()):
            self.check_object(name, digest)

    def fault(self, code: str, subject: str, problem: str) -> None:
        """Keep one; the same code and subject once."""
        self.faults.setdefault(f"{code} {subject}", problem)

    def check_object(self, name: str, digest: str) -> Path | None:
        """The version that has this digest; its absence is a fault."""
        try:
            return self.store.find(name, digest)
        except BadError as error:
            self.fault(error.code, name, str(error))
            return None

    def link(self, seq: int) -> bool:
        """Take the oldest link-valid version of the next name."""
        for path in self.store.versions(f"ledger/{seq:016d}"):
            try:
                pae, statement, signers = self.check_link(path.read_bytes(), seq)
            except (BadError, *BROKEN) as error:
                self.junk += 1
                name = str(path.relative_to(self.store.root))
                self.fault("junk-statement", name, f"does not link: {error}")
                continue
            if type_of(statement)[0] == "root" and type_of(statement)[1] > 1:
                self.require_known_root(statement, signers)
            self.prev = sha256(pae)
            self.digests.append(self.prev)
            self.repository = statement["predicate"]["repository"]
            self.status.append("valid")
            try:
                self.take_effect(seq, statement, signers)
            except (BadError, *BROKEN) as error:
                self.status[seq] = "void"
                self.fault("void-statement", f"ledger {seq}", f"void: {error}")
            return True
        return False

    def check_beyond(self, end: int) -> None:
        """What stands after the head must not be signed by a key we know."""
        for path in sorted((self.store.root / "ledger").glob("*")):
            if not re.fullmatch("[0-9]{16}(~.*)?", path.name) or int(path.name[:16]) < end:
                continue
            try:
                _, _, signers = self.open(path.read_bytes(), int(path.name[:16]))
            except (BadError, *BROKEN):
                continue
            if set(signers) & self.listed():
                self.fault("beyond-gap", f"ledger/{path.name}", "signed, but beyond a gap")

    def require_known_root(self, statement: Json, signers: list[str]) -> None:
        """A root of a later version, signed so that it would count, ends reading."""
        try:
            if self.root:
                every = signers + self.agreed_to_unknown(statement)
                self.require_role("root", every, self.root)
        except BadError:
            return
        raise UpgradeError(f"root of version {type_of(statement)[1]}")

    def listed(self) -> set[str]:
        """Public keys that may sign statements, in base64."""
        return {
            key["public"] for key in self.root["keys"] if set(key["roles"]) - SIGNS_NO_STATEMENTS
        } | (set(self.writers) - self.revoked)

    def open(self, envelope: bytes, seq: int) -> tuple[bytes, Json, list[str]]:
        """PAE, statement and the public keys whose signatures hold: all but its place."""
        require(len(envelope) <= 2 * 65536 + 8192, "too large")
        fields = Canonical.read(envelope)
        require(set(fields) == {"payload", "payloadType", "signatures"}, "another member")
        require(fields["payloadType"] == PAYLOAD_TYPE, "another payload type")
        payload = unbase64(fields["payload"])
        kind = PAYLOAD_TYPE.encode()
        pae = b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)
        statement = Canonical.read(payload)
        name = type_of(statement)[0]
        limit = 65536 if name == "root" else 4096
        require(len(pae) <= limit and len(envelope) <= 2 * limit + 8192, "too large")
        check_grammar(statement, seq)
        repository = statement["predicate"]["repository"]
        require(self.repository in ("", repository), "another repository")
        listed = {key_id(public): public for public in self.listed()} if self.root else {}
        brought = keys_of_root(statement) if name == "root" else {}
        by = statement["predicate"]["by"]
        require(not self.root or set(by) & set(listed), "not signed by a listed key")
        return pae, statement, self.signers(fields["signatures"], pae, by, brought | listed)

    @staticmethod
    def signers(entries: list[Json], pae: bytes, by: list[str], keys: dict[str, str]) -> list[str]:
        """Public keys, in the order of ``by``: exactly these signed, each in its place."""
        require(1 <= len(entries) <= 16, "not 1 to 16 signatures")
        for entry in entries:
            require(set(entry) == {"keyid", "sig"}, "another member of a signature")
            require(type(entry["keyid"]) is str, "key id is no text")
        require(len(entries) == len(by), "other signatures than by names")
        for identity, entry in zip(by, entries, strict=True):
            require(identity in keys, "signed by a key that is not listed")
            verified = openssl_verifies(keys[identity], unbase64(entry["sig"]), pae)
            require(verified, "a signature does not hold")
        return [keys[identity] for identity in by]

    def check_link(self, envelope: bytes, seq: int) -> tuple[bytes, Json, list[str]]:
        """The grammar that decides what links: docs/format.md 2.2."""
        pae, statement, signers = self.open(envelope, seq)
        if seq == 0:
            require(sha256(pae) == self.pinned, "not the pinned root")
            require(type_of(statement)[0] == "root", "not a root")
            if type_of(statement)[1] > 1:
                return pae, statement, signers
            body = statement["predicate"]["body"]
            check_body("root", statement, seq)
            self.require_role("root", signers, body)
        else:
            require(statement["predicate"]["prev"]["sha256"] == self.prev, "does not follow")
        return pae, statement, signers

    def require_role(self, role: str, signers: Collection[str], root: Json) -> None:
        """Enough unique persons with the role must have signed; a key without one is its own."""
        signed = [key for key in root["keys"] if key["public"] in signers]
        people = {key.get("person") or key["public"] for key in signed if role in key["roles"]}
        needed = root["thresholds"].get(role, 1)
        require(len(people) >= needed, f"{role} needs {needed} signatures")

    def require_one_of(self, roles: list[str], signers: list[str]) -> None:
        """The threshold of one of the roles is met."""
        for role in roles[:-1]:
            try:
                return self.require_role(role, signers, self.root)
            except BadError:
                continue
        return self.require_role(roles[-1], signers, self.root)

    def take_effect(self, seq: int, statement: Json, signers: list[str]) -> None:
        """What a linked statement changes; `BadError` when it is void."""
        kind, version = type_of(statement)
        role = ROLE_OF.get(kind) if version == 1 else None  # any of these; none: every listed key
        if role is None or is_unknown_action(kind, statement):
            self.status[seq] = "unknown"
            self.note_unknown(kind, seq, statement, signers)
            return
        check_body(kind, statement, seq)
        body = statement["predicate"]["body"]
        act = self.act_of(kind, body) if seq else ""
        agreed, asked, request = self.agreement(statement, act)
        self.require_approval(act, body, signers, agreed, asked)
        if role == "writer":
            self.writer_of(kind, body, signers)
        elif seq and role:
            self.require_one_of(role.split(), signers + agreed)
        if kind == "root":
            self.change_root(seq, body, signers + agreed)
        elif kind == "writer":
            self.change_writer(seq, body, signers)
        else:
            if kind == "hold" and body["action"] == "release":
                held = self.holds().get(body["hold"])
                require(held == body["snapshot"], "releases no hold in force of that snapshot")
            self.acts[seq] = (kind, signers, body)
        if kind == "warrant":
            self.requests[seq] = (unbase64(body["payload"]), body["signatures"])
        self.used |= {request} - {""}

    # --- agreement of several people: docs/format.md 2.9 ---

    def act_of(self, kind: str, body: Json) -> str:
        """What a statement does, as a request names it; empty for what none can be asked for."""
        if kind == "root":
            kept = {each["public"] for each in body["recipients"]}
            fewer = any(each["public"] not in kept for each in self.root["recipients"])
            return "recipient.remove" if fewer else "root"
        if kind in ("writer", "hold"):
            return f"{kind}.{body['action']}"
        if kind == "policy":
            return "policy.weaken" if body.get("weakens") else "policy.apply"
        acts = {
            "reseal": "reseal",
            "prune": "prune" if body.get("phase") == "plan" else "",
            "restore": "restore.replace" if body.get("replaced") else "",
        }
        return acts.get(kind, "")

    def bound(self, act: str, body: Json) -> Json:
        """The values that a request for an act binds."""
        if act.partition(".")[0] in ("root", "recipient", "writer"):
            return body
        if act == "restore.replace":
            seq: Any = body.get("snapshot")
            kind, _, said = self.acts.get(seq, ("", [], {}))
            require(kind == "snapshot", "replaces live data by what is no snapshot")
            return {"dataset": said["dataset"], "digest": self.digests[seq], "snapshot": seq}
        return {name: body.get(name, absent) for name, absent in BOUND[act].items()}

    def agreement(self, statement: Json, act: str) -> tuple[list[str], str, str]:
        """Public keys that signed the warrant it names, who asked, and the request's digest."""
        predicate = statement["predicate"]
        if (named := predicate.get("warrant")) is None:
            return [], "", ""
        require(act, "rests on a warrant, and is nothing that one is for")
        request, signers = self.examined(statement, named["seq"])
        said = request["predicate"]
        require(said["act"] == act, f"the warrant is for {said['act']}")
        bound = sha256(encoded(self.bound(act, predicate["body"])))
        require(request["subject"][0]["digest"]["sha256"] == bound, "warrant for another plan")
        longest = (self.approval(act) or {}).get("max_age", 2_592_000)
        span = parsed(said["expires"]) - parsed(said["not_before"])
        require(span.total_seconds() <= longest, "good for too long")
        return signers, said["requester"], sha256(self.requests[named["seq"]][0])

    def agreed_to_unknown(self, statement: Json) -> list[str]:
        """The same of a root or writer statement that is not understood: any act of its type."""
        kind, predicate = type_of(statement)[0], statement["predicate"]
        try:
            request, signers = self.examined(statement, predicate["warrant"]["seq"])
            require(type(predicate["body"]) is dict, "no body")
            said, bound = request["predicate"], sha256(encoded(predicate["body"]))
            act = "root" if said["act"] == "recipient.remove" else said["act"]
            require(act == kind or act.startswith(f"{kind}."), "for another type")
            require(request["subject"][0]["digest"]["sha256"] == bound, "for other values")
            longest = (self.approval(said["act"]) or {}).get("max_age", 2_592_000)
            span = parsed(said["expires"]) - parsed(said["not_before"])
            require(span.total_seconds() <= longest, "good for too long")
        except (BadError, *BROKEN):
            return []
        return signers

    def examined(self, statement: Json, number: Any) -> tuple[Json, list[str]]:
        """A request that a warrant carries, and who signed it; all but its act and its values."""
        require(type(number) is int and number in self.requests, "names no warrant")
        payload, signatures = self.requests[number]
        request = Canonical.read(payload)
        check_shape(request, REQUEST, "request")
        said, predicate = request["predicate"], statement["predicate"]
        require(len(request["subject"]) == 1, "binds not one thing")
        require(request["subject"][0]["name"] == "bound", "binds nothing")
        require(said["root"] >= 1, "names no root")
        seq, _, digest = said["floor"].partition(":")
        require(NUMBER.fullmatch(seq) and HEX.fullmatch(digest), "names no floor")
        require(said["repository"] == self.repository, "of another repository")
        place = int(seq)
        require(place < predicate["seq"] and self.digests[place] == digest, "its floor is not here")
        require(said["root"] == self.root.get("version", 1), "asked under another root")
        within = parsed(said["not_before"]) <= parsed(predicate["time"]) <= parsed(said["expires"])
        require(within, "not in its time")
        signers = self.signers_of(statement, payload, signatures)
        require(said["requester"] in map(key_id, signers), "its requester did not sign")
        require(sha256(payload) not in self.used, "used before")
        return request, signers

    def signers_of(self, statement: Json, payload: bytes, signatures: list[Json]) -> list[str]:
        """Public keys, each once: of those listed, and of those that a root brings."""
        kind = PAYLOAD_TYPE.encode()
        pae = b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)
        brought = keys_of_root(statement) if type_of(statement)[0] == "root" else {}
        keys = brought | {key_id(public): public for public in self.listed()}
        found: dict[str, str] = {}
        for each in signatures:
            hinted = sorted(keys, key=lambda identity: identity != each["keyid"])
            for identity in hinted:
                if identity not in found and openssl_verifies(
                    keys[identity], unbase64(each["sig"]), pae
                ):
                    found[identity] = keys[identity]
                    break
        return list(found.values())

    def approval(self, act: str) -> Json | None:
        """What the root in force wants for an act, or for the wider one."""
        wanted: Json = self.root.get("approvals", {})
        wider = {"recipient.remove": "root", "policy.weaken": "policy.apply"}
        found: Json | None = wanted.get(act) or wanted.get(wider.get(act, ""))
        return found

    def require_approval(
        self, act: str, body: Json, signers: list[str], agreed: list[str], asked: str
    ) -> None:
        """People other than those who ask and act have agreed, where the root wants it."""
        wanted = self.approval(act)
        if wanted is None:
            return
        actors = {key_id(public) for public in signers} | {asked}
        others = {
            key["person"]
            for key in (*self.root["keys"], *(body["keys"] if act in OF_ROOTS else ()))
            if key.get("person") and key_id(key["public"]) in actors
        }
        people = {
            key.get("person") or key["public"]
            for key in self.root["keys"]
            if wanted["role"] in key["roles"] and key["public"] in agreed
            if key_id(key["public"]) not in actors
        }
        require(len(people - others) >= wanted["threshold"], f"{act} needs approval")

    def holds(self) -> dict[int, int]:
        """The holds in force, by their seq: what they hold."""
        found: dict[int, int] = {}
        for seq, (kind, signers, body) in self.acts.items():
            if kind != "hold" or self.is_of_distrusted(signers, seq):
                continue
            if body["action"] == "add":
                found[seq] = body["snapshot"]
            else:
                found.pop(body["hold"], None)
        return found

    def distrusted(self) -> dict[str, int]:
        """Keys that the root in force distrusts, and from where."""
        return {entry["public"]: entry["from"] for entry in self.root.get("distrust", ())}

    def is_of_distrusted(self, signers: list[str], seq: int) -> bool:
        """Whether the root distrusts one of these keys at that number."""
        starts = self.distrusted()
        return any(key in starts and seq >= starts[key] for key in signers)

    def distrusted_writers(self) -> dict[str, tuple[int, int]]:
        """Writers whose distrust holds: from where, and the revocation that reaches furthest."""
        found: dict[str, tuple[int, int]] = {}
        for seq, public, start, signers in self.spoken:
            reach = found.get(public, (start + 1, 0))[0]
            if start < reach and not self.is_of_distrusted(signers, seq):
                found[public] = (start, seq)
        return found

    def settle(self) -> None:
        """Void what is distrusted in the end; what counts is held, cited and needed."""
        writers = self.distrusted_writers()
        for seq, (kind, signers, body) in self.acts.items():
            if kind in ("snapshot", "heartbeat"):
                start, by = writers.get(signers[0], (seq + 1, 0))
                why = by if start <= seq < by else None
            else:
                is_void = kind != "warrant" and self.is_of_distrusted(signers, seq)
                why = self.root_at if is_void else None
            if why is not None:
                self.status[seq] = "void"
                self.notes.append(f"{seq} distrusted by statement {why}")
                continue
            if kind == "snapshot":
                self.snapshots[seq] = body
            self.cited |= {body.get(name, "") for name in CITED.get(kind, ())} - {""}
        self.held = set(self.holds().values())

    def note_unknown(self, kind: str, seq: int, statement: Json, signers: list[str]) -> None:
        """Who is listed can't be known after a writer statement that is not understood."""
        if kind != "writer":
            return
        try:
            every = signers + self.agreed_to_unknown(statement)
            self.require_role("enroller", every, self.root)
        except BadError:
            return
        self.upgrade = True
        self.fault("upgrade", f"ledger {seq}", "a writer statement is not understood")

    def writer_of(self, kind: str, body: Json, signers: list[str]) -> str:
        """The signer: a writer, not revoked, who may write this dataset."""
        (public,) = signers
        require(public in self.writers and public not in self.revoked, "not signed by a writer")
        writer = self.writers[public]
        patterns = writer.get("datasets", ()) if writer.get("domain") else ()
        fits = kind != "snapshot" or any(fnmatchcase(body["dataset"], p) for p in patterns)
        require(fits, f"dataset {body.get('dataset')} is outside the writer's patterns")
        return public

    def change_root(self, seq: int, body: Json, signers: list[str]) -> None:
        """Root N+1 follows root N and satisfies both thresholds."""
        if seq:
            before = self.root.get("version", 1)
            require(body.get("version", 1) == before + 1, "root version skipped")
            self.require_role("root", signers, body)
        self.root, self.root_at = body, seq
        if self.upgrade:  # a root that is understood follows what is not
            self.upgrade = False
            self.faults = {f: why for f, why in self.faults.items() if not f.startswith("upgrade")}

    def change_writer(self, seq: int, body: Json, signers: list[str]) -> None:
        """Enrol, limit or revoke one writer key."""
        public = body["public"]
        if body["action"] == "add":
            require(public not in self.writers, "the key was enrolled before")
            listed = {key["public"] for key in self.root["keys"]}
            require(public not in listed, "the key is listed already")
            if wanted := body.get("replaces"):
                self.revoked.add(self.replaced(wanted, body))
            self.writers[public] = body
            return
        require(public in self.writers, "no such writer")
        if body["action"] == "limit":
            require(public not in self.revoked, "the key is revoked")
            self.writers[public] = {**self.writers[public], "datasets": body.get("datasets", [])}
            return
        start = body.get("distrust_from")
        if public in self.revoked:
            known = self.distrusted_writers().get(public)
            is_more = start is not None and (known is None or start < known[0])
            require(is_more, "the key is revoked already")
        self.revoked.add(public)
        if start is not None:
            self.spoken.append((seq, public, start, signers))

    def replaced(self, wanted: str, body: Json) -> str:
        """The live key that a rotation retires: of the same host, in the same domain."""
        live = [key for key in self.writers if key not in self.revoked and key_id(key) == wanted]
        require(live, "replaces a key that is no live writer's")
        require(host_of(self.writers[live[0]]) == host_of(body), "replaces another host's key")
        return live[0]

    # --- objects ---

    def needs(self, seq: int, body: Json) -> dict[str, str]:
        """Objects of a snapshot that is live or held, by name; nothing of one that ended."""
        until = datetime.strptime(body["until"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
        if until <= self.now and seq not in self.held:
            return {}
        stated = body["inventory"]
        name = f"inventory/{stated['sha256']}"
        self.lines = 0
        objects = self.resolve(name, stated["sha256"], 0)
        require(len(objects) <= 4_000_000, f"{name} has too many objects")
        total = sum(size for _, size in objects.values())
        require(
            (len(objects), total) == (stated["objects"], stated["bytes"]),
            f"{name} has not the count or bytes that the snapshot states",
        )
        return {wanted: digest for wanted, (digest, _) in objects.items()}

    def resolve(self, name: str, digest: str, depth: int) -> Objects:
        """Objects by name, with those of the bases."""
        require(depth <= 16, f"{name} has too many bases")
        path = self.check_object(name, digest)
        require(path, f"{name} can't be read")
        assert path
        text = path.read_bytes().decode("ascii")
        require(text.endswith("\n"), f"{name} ends within a line")
        lines = text[:-1].split("\n")
        require(lines[0] == "# vault-inventory 1", f"{name} is not an inventory")
        objects: Objects = {}
        count, total, *rest = lines[1:]
        if rest and rest[0].startswith("# base "):
            base_digest, _, base_name = parse_line(rest.pop(0).removeprefix("# base "))
            require(base_name == f"inventory/{base_digest}", f"{name} has an impossible base")
            objects = self.resolve(base_name, base_digest, depth + 1)
        elif any(line.startswith("-") for line in rest):
            raise BadError(f"{name} removes lines and has no base")
        if "# index" in rest:
            at = rest.index("# index")
            require(len(rest) - at - 1 <= 4_000_000, f"{name} has too many index objects")
            check_ascending(name, [parse_line(line) for line in rest[at + 1 :]])
            rest = rest[:at]
        self.lines += len(rest)
        require(self.lines <= 8_000_000, f"{name} has too many lines with its bases")
        apply_lines(name, objects, rest)
        sums = (f"# objects {len(objects)}", f"# bytes {sum(s for _, s in objects.values())}")
        require((count, total) == sums, f"{name} does not add up")
        return objects


# --- what a statement may say ---


def type_of(statement: Json) -> tuple[str, int]:
    """Type and version; empty and 0 where it is no type of ours."""
    text = statement.get("predicateType")
    match = PREDICATE.fullmatch(text) if isinstance(text, str) else None
    return (match[1], int(match[2])) if match else ("", 0)


def check_grammar(statement: Json, seq: int) -> None:
    """What must be right for a statement to link, but for its place in the chain."""
    require(statement["_type"] == "https://in-toto.io/Statement/v1", "another _type")
    predicate = statement["predicate"]
    require(type(predicate["seq"]) is int and predicate["seq"] == seq, "another seq")
    require(re.fullmatch("[0-9a-f]{32}", predicate["repository"]), "no repository id")
    by, kind = predicate["by"], type_of(statement)[0]
    require(type(by) is list and all(type(each) is str for each in by), "by is no list of ids")
    most = 1 if kind in ("snapshot", "heartbeat") else 16
    require(1 <= len(by) <= most and by == sorted(set(by)), f"by lists not 1 to {most} keys")
    require(all(map(HEX.fullmatch, by)), "by lists what is no key id")
    prev = predicate["prev"]
    require(prev is None if seq == 0 else HEX.fullmatch(prev["sha256"]), "impossible prev")


def is_time(text: str) -> bool:
    """RFC 3339 in UTC, whole seconds, of a day that is."""
    if not TIME.fullmatch(text):
        return False
    datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)  # ValueError where not
    return True


def is_key(text: str) -> bool:
    """A P-256 key in DER, uncompressed, in base64: a point of the curve."""
    der = unbase64(text)
    x, y = int.from_bytes(der[27:59]), int.from_bytes(der[59:])
    on_curve = x < FIELD and y < FIELD and (y * y - x**3 + 3 * x - CONSTANT) % FIELD == 0
    return len(der) == 91 and der.startswith(SPKI) and on_curve


def are_approvals(value: Json) -> bool:
    """Who must agree to which act."""
    for act, each in value.items():
        require(act in ACTS, f"{act} is no act")
        require(
            type(each) is dict and each.get("role") in APPROVING, f"{act} has an impossible role"
        )
        check_shape(each, {"role": "text", "threshold": "positive", "max_age?": "age"}, act)
    return True


def key_of_vkey(vkey: str) -> bytes:
    """The Ed25519 key of a C2SP verifier key for cosignatures."""
    match = VKEY.fullmatch(vkey)
    require(match, "no verifier key")
    assert match
    key = unbase64(match[3])
    require(len(key) == 33 and key[0] == 4, "verifier key is not for cosignatures")
    require(
        sha256(match[1].encode() + b"\n" + key)[:8] == match[2], "verifier key has another hash"
    )
    return key[1:]


WORDS: dict[str, tuple[type, Callable[[Any], object]]] = {
    "text": (str, lambda _: True),
    "label": (str, LABEL.fullmatch),
    "label or nothing": (str, lambda text: not text or LABEL.fullmatch(text)),
    "date or nothing": (str, lambda text: not text or is_time(f"{text}T00:00:00Z")),
    "approvals": (dict, are_approvals),
    "vkey": (str, key_of_vkey),
    "age": (int, lambda n: 1 <= n <= 315_360_000),
    "in-toto": (str, "https://in-toto.io/Statement/v1".__eq__),
    "request type": (str, "urn:vault:request:v1".__eq__),
    "16 bytes": (str, re.compile("[0-9a-f]{32}").fullmatch),
    "digest": (str, HEX.fullmatch),
    "time": (str, is_time),
    "base64": (str, lambda text: unbase64(text) is not None),
    "key": (str, is_key),
    "version id": (str, re.compile("[!-~]{1,1024}").fullmatch),
    "nonce": (str, re.compile("([0-9a-f]{32})?").fullmatch),
    "mode": (str, ("none", "governance", "compliance").__contains__),
    "verdict": (str, ("passed", "failed", "partial", "inconclusive").__contains__),
    "enrolment": (str, ACTIONS.__contains__),
    "digest or nothing": (str, re.compile("([0-9a-f]{64})?").fullmatch),
    "name or nothing": (str, re.compile("([a-z0-9][a-z0-9._-]{0,39})?").fullmatch),
    "barrier": (str, re.compile("([0-9a-f]{16})?").fullmatch),
    "purpose": (str, ("", "safety").__contains__),
    "ruling": (str, ("apply", "withdraw", "retire").__contains__),
    "holding": (str, ("add", "release").__contains__),
    "60 bytes": (str, lambda text: len(text.encode()) <= 60),
    "100 bytes": (str, lambda text: len(text.encode()) <= 100),
    "200 bytes": (str, lambda text: len(text.encode()) <= 200),
    "300 bytes": (str, lambda text: len(text.encode()) <= 300),
    "tiers": (list, lambda names: names == [tier for tier in TIERS if tier in names]),
    "span": (int, lambda seconds: 1 <= seconds <= 3_155_760_000),
    "phase": (str, ("plan", "result").__contains__),
    "boolean": (bool, lambda _: True),
    "integer": (int, lambda _: True),
    "natural": (int, lambda n: n >= 0),
    "positive": (int, lambda n: n >= 1),
    "level": (int, lambda n: 0 <= n <= 8),
    "share": (int, lambda n: 0 <= n <= 1_000_000),
    "counts": (dict, lambda m: all(type(n) is int and n >= 1 for n in m.values())),
    "sizes": (
        list,
        lambda s: [type(n) for n in s] == [int] * 3 and 0 < s[0] <= s[1] <= s[2],
    ),
    "packs": (
        list,
        lambda ids: len(ids) <= 24 and ids == sorted(set(ids)) and all(map(HEX.fullmatch, ids)),
    ),
}


def check_shape(value: Any, shape: Any, where: str) -> None:
    """Raise `BadError` where a value has not the shape."""
    if isinstance(shape, str):
        wanted, rule = WORDS[shape]
        require(type(value) is wanted and rule(value), f"{where} is no {shape}")
    elif isinstance(shape, list):
        require(type(value) is list, f"{where} is no list")
        for item in value:
            check_shape(item, shape[0], where)
    else:
        require(type(value) is dict, f"{where} is no object")
        for name, part in shape.items():
            found = value.get(name.rstrip("?"))
            absent = name.rstrip("?") not in value if not name.endswith("??") else found is None
            if not (name.endswith("?") and absent):
                check_shape(found, part, name.rstrip("?"))


def check_body(kind: str, statement: Json, seq: int) -> None:
    """All that a well-formed statement of this type must say; `BadError` makes it void."""
    predicate = statement["predicate"]
    check_shape(predicate, {"time": "time", "tool": "text", "body": {}}, "predicate")
    if (named := predicate.get("warrant")) is not None:
        check_shape(named, {"seq": "natural"}, "warrant")
        require(named["seq"] < 10**16 and seq, "names an impossible warrant")
    check_shape(statement["subject"], [{"name": "text", "digest": {"sha256": "digest"}}], "subject")
    body = predicate["body"]
    check_shape(body, SHAPES[kind], "body")
    if kind == "root":
        check_root(body)
    elif kind == "writer":
        check_writer(body)
    elif kind == "warrant":
        require(1 <= len(body["signatures"]) <= 16, "not 1 to 16 signatures")
    elif kind == "reseal":
        check_reseal(body, seq)
    elif kind in ("policy", "hold", "prune"):
        check_governed(kind, body)
    elif "attestation" in body and kind in ("restore", "drill", "verification"):
        check_event(kind, body, seq)
    for name in ABOUT.get(kind, ()):
        require((body.get(name) or 0) < seq, "about a statement that does not precede it")


def check_root(body: Json) -> None:
    """A root can satisfy itself."""
    keys = [key["public"] for key in body["keys"]]
    require(len(keys) == len(set(keys)), "root lists a key twice")
    distrusts = [entry["public"] for entry in body.get("distrust", ())]
    require(len(distrusts) == len(set(distrusts)), "root distrusts a key twice")
    require(1 <= len(body["recipients"]) <= 16, "not 1 to 16 recipients")
    people = {key.get("person") or key["public"] for key in body["keys"] if "root" in key["roles"]}
    require(len(people) >= body["thresholds"].get("root", 1), "fewer persons than the threshold")
    check_people(body)
    witnesses = body.get("witnesses", [])
    require(len(witnesses) <= 16, "over 16 witnesses")
    for part in (str, key_of_vkey):
        member = "name" if part is str else "vkey"
        once = {part(each[member]) for each in witnesses}
        require(len(once) == len(witnesses), "root lists a witness twice")
    require(body.get("quorum", 1) <= max(1, len(witnesses)), "quorum is over the witnesses")


def check_people(body: Json) -> None:
    """Where several must agree, keys say whose they are."""
    if not body.get("approvals") and max(body["thresholds"].values(), default=1) < 2:
        return
    for key in body["keys"]:
        alone = not set(key["roles"]) & {"root", "enroller", "policy", "pruner", "restorer"}
        require(alone or key.get("person"), f"key {key['name']} has no person")


def check_writer(body: Json) -> None:
    """Name, patterns and domain of a host that is added."""
    if body["action"] == "revoke":
        require((body.get("distrust_from") or 0) >= 0, "distrust_from is negative")
        return
    require(all(map(PATTERN.fullmatch, body.get("datasets", ()))), "impossible pattern")
    require(LABEL.fullmatch(body["name"]), "impossible name")
    unbase64(body.get("recipient", ""))
    if domain := body.get("domain"):
        require(HEX.fullmatch(domain["sha256"]), "impossible domain object")
        require(LABEL.fullmatch(domain["name"]), "impossible domain")
        wanted = f"domains/{domain['name']}/{domain['sha256']}"
        require(domain["object"] == wanted, "impossible domain object")


def host_of(body: Json) -> tuple[str, str, str]:
    """What a rotation can't change: name, HPKE key and domain."""
    domain = (body.get("domain") or {}).get("name", "")
    return body["name"], body.get("recipient", ""), domain


def check_reseal(body: Json, seq: int) -> None:
    """Objects of that recipient, made from what precedes it."""
    require(1 <= len(body["objects"]) <= 8, "not 1 to 8 objects")
    require(body["through"] < seq, "about a statement that does not precede it")
    for each in body["objects"]:
        wanted = f"seeds/{body['recipient']}/{each['sha256']}"
        require(each["name"] == wanted, "impossible object")


def check_governed(kind: str, body: Json) -> None:
    """What a policy, a hold or a prune must say together."""
    action = body.get("action")
    if kind == "prune":
        require(body.get("part", 1) <= body.get("parts", 1) <= 10_000, "impossible part")
    elif kind == "policy":
        weaker = body.get("weaker", [])
        require(len(weaker) <= 8, "weaker is too long")
        require(all(1 <= len(text.encode()) <= 100 for text in weaker), "weaker is malformed")
        weakens = body.get("weakens", False)
        require(weakens or (action == "apply" and not weaker), "weakens and does not say so")
        require(bool(body.get("sha256")) == (action != "retire"), "other terms than the action has")
    else:
        require((body.get("hold") is None) == (action == "add"), "names another hold")
        extra = body.get("dataset") or body.get("until") or body.get("case")
        require(action == "add" or not extra, "a release says more")


def check_event(kind: str, body: Json, seq: int) -> None:
    """What a restore, drill or verification says is of what precedes it, and adds up."""
    about = check_ranges(body) if kind == "verification" else body.get("snapshot")
    require(about is None or about < seq, "about a statement that does not precede it")
    bad, cleared = body.get("bad", []), body.get("cleared", [])
    require(len(bad) + len(cleared) <= 32 and not set(bad) & set(cleared), "too many ids")
    require(body.get("bad_count", 0) >= len(bad), "bad_count is too small")
    require(kind == "restore" or not body.get("replaced"), "a drill replaces nothing")


def check_ranges(body: Json) -> int:
    """The snapshots that a verification covers, up to the head it read, which is returned."""
    through: int = body["through"]
    if (part := body.get("slice")) is not None:
        require(len(part) == 2 and 0 <= part[0] < part[1] <= 65_536, "impossible slice")
    require(1 <= len(body["snapshots"]) <= 16, "not 1 to 16 ranges")
    before = -1
    for first, last in body["snapshots"]:
        require(before < first <= last <= through, "ranges do not ascend")
        before = last
    return through


def is_unknown_action(kind: str, statement: Json) -> bool:
    """Whether a writer statement does what is not known here."""
    body = statement["predicate"].get("body")
    action = body.get("action") if isinstance(body, dict) else None
    return kind == "writer" and isinstance(action, str) and action not in ACTIONS


def keys_of_root(statement: Json) -> dict[str, str]:
    """Keys that a root of any version brings along, by id; what is none is passed over."""
    body = statement["predicate"].get("body")
    listed = body.get("keys") if isinstance(body, dict) else None
    found: dict[str, str] = {}
    for entry in listed if isinstance(listed, list) else ():
        public = entry.get("public") if isinstance(entry, dict) else None
        try:
            if isinstance(public, str) and is_key(public):
                found[key_id(public)] = public
        except (BadError, *BROKEN):
            continue
    return found


def encoded(value: Any) -> bytes:
    """Canonical JSON of what was read from canonical JSON."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return text.encode()


def parsed(text: str) -> datetime:
    """A time that `is_time` takes."""
    require(is_time(text), "no time")
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)


def key_id(public: str) -> str:
    """SHA-256 of the DER form."""
    return sha256(unbase64(public))


def parse_line(line: str) -> tuple[str, int, str]:
    """Digest, size and name."""
    match = LINE.fullmatch(line)
    require(match, f"malformed inventory line {line[:80]!r}")
    assert match
    require(len(match[4]) <= 512 and OBJECT.fullmatch(match[4]), "impossible object name")
    return match[1], int(match[2]), match[4]


def check_ascending(name: str, lines: list[tuple[str, int, str]]) -> None:
    """Sorted by name, without repeats."""
    names = [entry[2] for entry in lines]
    require(names == sorted(set(names)), f"{name} is not sorted")


def apply_lines(name: str, objects: Objects, lines: list[str]) -> None:
    """Added lines, then the removed ones, which take effect first; both sorted."""
    turn = next((i for i, line in enumerate(lines) if line.startswith("-")), len(lines))
    added = [parse_line(line) for line in lines[:turn]]
    require(all(line.startswith("-") for line in lines[turn:]), f"{name} adds after removing")
    removed = [parse_line(line[1:]) for line in lines[turn:]]
    for part in (added, removed):
        check_ascending(name, part)
    for digest, size, wanted in removed:
        require(objects.pop(wanted, None) == (digest, size), f"{name} removes what is not there")
    for digest, size, wanted in added:
        require(wanted not in objects, f"{name} repeats {wanted}")
        objects[wanted] = (digest, size)


def report(verifier: Verifier) -> list[str]:
    """The lines of docs/format.md 2.7."""
    counts = Counter(verifier.status)
    end = len(verifier.status)
    summary = (
        f"statements {end}: {counts['valid']} valid, {counts['void']} void,"
        f" {counts['unknown']} not understood; {verifier.junk} junk; {len(verifier.faults)} faults"
    )
    return [
        *verifier.notes,
        *(f"fault {fault}: {problem}" for fault, problem in verifier.faults.items()),
        *([f"head {end - 1}:{verifier.prev}"] if end else []),
        summary,
    ]


def verify(store: Path, root_digest: str, *, now: datetime | None = None) -> list[str]:
    """All faults of a repository in a directory; empty if it is sound.

    Args:
        store: The directory.
        root_digest: Of statement 0, known from elsewhere.
        now: Snapshots that ended before need nothing any more; by default the clock.
    """
    verifier = Verifier(store, root_digest, now or datetime.now(UTC))
    verifier.run()
    return [f"{fault}: {problem}" for fault, problem in verifier.faults.items()]


def main() -> int:
    """The command."""
    if len(sys.argv) not in (3, 4) or not Path(sys.argv[1]).is_dir():
        print(__doc__, file=sys.stderr)
        return 2
    now = datetime.fromisoformat(sys.argv[3]) if len(sys.argv) == 4 else datetime.now(UTC)
    verifier = Verifier(Path(sys.argv[1]), sys.argv[2].removeprefix("0:"), now)
    verifier.run()
    print("\n".join(report(verifier)))
    if verifier.upgrade:
        return 2
    return 1 if verifier.faults else 0


if __name__ == "__main__":
    sys.exit(main())
