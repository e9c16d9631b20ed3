"""Generator of the ledger vectors: a small repository with fixed keys, and what must be refused.

``store/`` is a directory store. ``ledger.json`` says what every statement amounts to.
``bodies/store/`` goes on with bodies of every kind; ``bodies.json`` says what each amounts to.
Each file in ``negative/`` holds an envelope, after how many statements of the store it
is offered, and ``expect``: the error it must raise, the status it must link with, or "upgrade"
where it ends reading. ``roots.json`` goes on behind the store's chain with roots of several people.
Signatures are deterministic (RFC 6979), so the same bytes come out of every run.
"""

import base64
import hashlib
import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import (
    decode_dss_signature,
    encode_dss_signature,
)

from tests.support.root_cases import root_cases
from vault.clock import from_rfc3339
from vault.crypto.keys import SigningKey
from vault.encoding import b64encode, dumps
from vault.format import inventory
from vault.ledger.chain import Ledger
from vault.ledger.envelope import PAYLOAD_TYPE, Head, build_statement, pae, seal_envelope
from vault.ledger.statements import (
    TIER_NAMES,
    Counts,
    DomainRef,
    EventBody,
    HeartbeatBody,
    HoldBody,
    InventoryRef,
    PolicyBody,
    PruneBody,
    PublicKey,
    Recipient,
    ResealBody,
    RetentionTerms,
    Role,
    RootBody,
    SeedTable,
    SnapshotBody,
    TreeRef,
    VerificationBody,
    WarrantBody,
    WarrantSignature,
    WriterBody,
)
from vault.model import Body, Digest, LockMode, ObjectRef, replace_body
from vault.parameters import Parameters
from vault.storage.names import ledger_name

REPOSITORY = "00112233445566778899aabbccddeeff"
START = datetime(2026, 1, 1, 3, 0, 0, tzinfo=UTC)
UNTIL = "2099-01-01T00:00:00Z"
NOTHING = inventory.encode([])  # as a plan
TERMS = b'{"name":"web"}'  # of a policy; nothing opens them
HELD = 17  # seq of a hold among the bodies
LATER = 10_000  # a seq to come
ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551  # of P-256
KEYS = (
    *("root-a", "root-b", "enroller", "policy", "pruner", "restorer"),
    *("alpha", "beta", "stranger", "gamma", "delta", "logger", "later", "verifier"),
)


def _key(name: str) -> SigningKey:
    return SigningKey(ec.derive_private_key(KEYS.index(name) + 1, ec.SECP256R1()))


def _sha(data: bytes) -> Digest:
    return Digest(hashlib.sha256(data).digest())


class _Writer:
    """Writes the store and keeps the head."""

    def __init__(self, directory: Path) -> None:
        self.store = directory / "store"
        self.envelopes: list[bytes] = []
        self.head: Head | None = None

    def put(self, name: str, data: bytes) -> ObjectRef:
        path = self.store / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return ObjectRef(name=name, sha256=_sha(data), size=len(data), version=f"1-{_sha(data)}")

    def statement(self, kind: str, body: Body, *signers: str, **changes: Any) -> bytes:
        seq = len(self.envelopes)
        fields: dict[str, Any] = {
            "type": kind,
            "repository": REPOSITORY,
            "seq": seq,
            "prev": self.head,
            "time": START + timedelta(hours=seq),
            "tool": "vault 0.1.0",
            "subject": [("repository", _sha(bytes.fromhex(REPOSITORY)))],
            "body": body,
            "by": [_key(name).public.id for name in signers],
        }
        return build_statement(**(fields | changes))

    def append(self, kind: str, body: Body, *signers: str) -> None:
        self.append_payload(self.statement(kind, body, *signers), *signers)

    def append_payload(self, payload: bytes, *signers: str) -> None:
        envelope = seal_envelope(payload, [_key(name) for name in signers])
        seq = len(self.envelopes)
        self.head = Head(
            seq=seq, digest=_sha(pae(PAYLOAD_TYPE, payload)), version=f"1-{_sha(envelope)}"
        )
        self.put(ledger_name(seq), envelope)
        self.envelopes.append(envelope)


def _public(name: str) -> str:
    return b64encode(_key(name).public.der)


def _root(version: int, *root_keys: str) -> RootBody:
    roles: dict[str, tuple[Role, ...]] = dict.fromkeys(root_keys, (Role.ROOT,))
    for role in (Role.ENROLLER, Role.POLICY, Role.PRUNER, Role.RESTORER):
        roles[role.value] = (role,)
    roles["logger"] = (Role.LOG, Role.APPROVER)
    roles["verifier"] = (Role.VERIFIER,)
    return RootBody(
        version=version,
        parameters=Parameters(lock_mode=LockMode.NONE),
        keys=tuple(
            PublicKey(name=n, public=_public(n), roles=r, person=n) for n, r in roles.items()
        ),
        thresholds={"root": len(root_keys)},
        recipients=(Recipient(name="site", public=b64encode(bytes(range(256)) * 4 + bytes(192))),),
    )


def _enrol(name: str, domain: ObjectRef, *datasets: str) -> WriterBody:
    return WriterBody(
        action="add",
        name=name,
        public=_public(name),
        datasets=datasets,
        domain=DomainRef(
            name="default",
            object=domain.name,
            sha256=str(domain.sha256),
            size=domain.size,
            version=domain.version,
        ),
    )


def _snapshot(dataset: str, listed: ObjectRef, objects: list[ObjectRef]) -> SnapshotBody:
    return SnapshotBody(
        dataset=dataset,
        created=from_rfc3339("2026-01-01T03:00:00Z"),
        complete=True,
        counts=Counts(files=1, directories=1),
        tree=TreeRef(id="ab" * 32, level=0, commitment="cd" * 32),
        inventory=InventoryRef(
            sha256=str(listed.sha256),
            size=listed.size,
            version=listed.version,
            objects=len(objects),
            bytes=sum(ref.size for ref in objects),
        ),
        mode=LockMode.NONE,
        until=from_rfc3339(UNTIL),
    )


def _pack(writer: _Writer, content: bytes) -> ObjectRef:
    digest = _sha(content)
    return writer.put(f"packs/{str(digest)[:2]}/{digest}", content)


def _delta(
    base: ObjectRef, objects: list[ObjectRef], added: ObjectRef, removed: ObjectRef
) -> bytes:
    """`inventory.encode` writes deltas of long lists only."""
    lines = [
        "# vault-inventory 1",
        f"# objects {len(objects)}",
        f"# bytes {sum(ref.size for ref in objects)}",
        f"# base {inventory.format_ref(base)}",
        inventory.format_ref(added),
        f"-{inventory.format_ref(removed)}",
    ]
    return "".join(f"{line}\n" for line in lines).encode()


def _inventory(writer: _Writer, text: bytes) -> ObjectRef:
    return writer.put(f"inventory/{_sha(text)}", text)


def _unknown(writer: _Writer, **changes: Any) -> bytes:
    """A statement of a type that this version does not know."""
    known = json.loads(writer.statement("heartbeat", HeartbeatBody(note="later"), "alpha"))
    known["predicateType"] = "urn:vault:witness:v1"
    known["predicate"]["body"] = {"cosigned": [1, 2, 3]}
    known["predicate"] |= changes
    return dumps(known)


def _build_store(directory: Path) -> _Writer:
    writer = _Writer(directory)
    packs = [_pack(writer, b"pack %d\n" % number * 9) for number in range(4)]
    domain_data = b"sealed domain secrets"
    domain = writer.put(f"domains/default/{_sha(domain_data)}", domain_data)
    attestation = writer.put("evidence/" + str(_sha(b"attestation")), b"attestation")
    first = sorted([*packs[:3], domain])
    second = sorted([packs[0], packs[1], packs[3], domain])
    whole = _inventory(writer, inventory.encode(first))
    delta = _inventory(writer, _delta(whole, second, packs[3], packs[2]))

    writer.append("root", _root(1, "root-a"), "root-a")
    writer.append("writer", _enrol("alpha", domain, "*"), "enroller")
    writer.append("snapshot", _snapshot("web", whole, first), "alpha")
    writer.append("snapshot", _snapshot("web", delta, second), "alpha")
    writer.append("heartbeat", HeartbeatBody(note="alive"), "alpha")
    event = EventBody(
        verdict="passed",
        snapshot=3,
        started=from_rfc3339("2026-01-01T08:00:00Z"),
        finished=from_rfc3339("2026-01-01T08:01:00Z"),
        attestation=str(attestation.sha256),
    )
    writer.append("restore", event, "restorer")
    writer.append("writer", _enrol("beta", domain, "db-*"), "enroller")
    writer.append_payload(_unknown(writer), "alpha")
    revoke = WriterBody(action="revoke", name="beta", public=_public("beta"), distrust_from=6)
    writer.append("writer", revoke, "enroller")
    writer.append("root", _root(2, "root-a", "root-b"), "root-a", "root-b")
    wrong, other = sorted(str(ref.sha256) for ref in packs[:2])
    failed = _verification(
        verdict="failed", attestation=event.attestation, bad=(wrong, other), bad_count=2
    )
    writer.append("verification", failed, "restorer")
    drill = replace_body(event, verdict="inconclusive", cleared=(wrong,))
    writer.append("drill", drill, "restorer")
    enrolled = _enrol("gamma", domain, "db-*")
    writer.append("writer", enrolled, "enroller")
    writer.append("writer", _limit("gamma", "db-1*"), "enroller")
    writer.append("snapshot", _snapshot("db-1", whole, first), "gamma")
    rotated = replace_body(enrolled, public=_public("delta"), replaces=_id("gamma"))
    writer.append("writer", rotated, "enroller")
    for data in (TERMS, NOTHING):
        writer.put(f"evidence/{_sha(data)}", data)
    return writer


def _build_bodies(directory: Path) -> list[dict[str, Any]]:
    """A store with bodies of every kind, right and wrong; what each statement must amount to."""
    writer = _build_store(directory)
    snapshot = _snapshot("web", ObjectRef(name="x", sha256=_sha(b""), size=0, version="1"), [])
    past = replace_body(snapshot, until=START + timedelta(days=1))  # it needs nothing any more
    first: dict[str, tuple[str, Body, str, str]] = {
        "policy": ("policy", _policy(), "policy", "valid"),
        "hold": ("hold", _hold(), "policy", "valid"),
        "hold-of-another": ("hold", replace_body(_hold(), snapshot=3), "policy", "valid"),
        "release-of-another": ("hold", _release(snapshot=3, hold=HELD + 1), "policy", "valid"),
    }
    listed = []
    for name, (kind, body, signer, status) in (first | _governed() | _measured(past)).items():
        seq = len(writer.envelopes)
        writer.append(kind, body, signer)
        listed.append({"name": name, "seq": seq, "type": kind, "status": status})
    return listed


def _roots(writer: _Writer) -> list[dict[str, str]]:
    """Roots of several people, each by two keys, in one chain behind the store's."""
    spare = PublicKey(name="new", public=_public("later"), roles=(Role.ROOT,), person="root-b")
    two = _root(3, "root-a", "root-b")
    three = replace_body(two, keys=(*two.keys, spare))
    cases = [
        *((name, *case, ("root-a", "root-b")) for name, case in root_cases(two, spare).items()),
        ("root-with-a-spare", three, "valid", ("root-a", "root-b")),
        ("root-by-two-keys-of-one-person", three, "void", ("root-b", "later")),
        ("root-by-a-spare-key", three, "valid", ("root-a", "later")),
        ("root-of-one-that-two-brought", _root(3, "root-a"), "void", ("root-b", "later")),
    ]
    found = []
    seq, prev, version = len(writer.envelopes), writer.head, 3
    for name, body, expect, names in cases:
        wanted = replace_body(body, version=version)
        payload = writer.statement("root", wanted, *names, seq=seq, prev=prev)
        envelope = seal_envelope(payload, [_key(each) for each in names], limit=1 << 16)
        found.append({"name": name, "envelope": b64encode(envelope), "expect": expect})
        prev = Head(seq=seq, digest=_sha(pae(PAYLOAD_TYPE, payload)), version="1")
        seq, version = seq + 1, version + (expect == "valid")
    return found


def _id(name: str) -> str:
    return _key(name).public.id


def _limit(name: str, *datasets: str) -> WriterBody:
    return WriterBody(action="limit", name=name, public=_public(name), datasets=datasets)


def _verification(**changes: Any) -> VerificationBody:
    """Of the two snapshots, by a sample."""
    body = VerificationBody(
        verdict="partial",
        snapshots=((2, 2), (3, 3)),
        started=from_rfc3339("2026-01-01T13:00:00Z"),
        finished=from_rfc3339("2026-01-01T13:01:00Z"),
        attestation="ab" * 32,
        share=50_000,
        slice=(2, 30),
        nonce="00112233445566778899aabbccddeeff",
        opened=True,
        read=123,
        through=9,
    )
    return replace_body(body, **changes)


# --- what must be refused ---


def _tampered(envelope: bytes, change: Callable[[dict[str, Any]], None]) -> bytes:
    fields = json.loads(envelope)
    change(fields)
    return dumps(fields)


def _flip_payload(fields: dict[str, Any]) -> None:
    payload = bytearray(base64.b64decode(fields["payload"]))
    payload[-10] ^= 1
    fields["payload"] = b64encode(bytes(payload))


def _high_s(fields: dict[str, Any]) -> None:
    """The other form of an ECDSA signature: valid, and the statement stays the same."""
    for entry in fields["signatures"]:
        r, s = decode_dss_signature(base64.b64decode(entry["sig"]))
        entry["sig"] = b64encode(encode_dss_signature(r, ORDER - s))


def _negatives(writer: _Writer) -> dict[str, tuple[int, bytes, str]]:
    """Name to (statements before it, envelope, expectation)."""
    end = len(writer.envelopes)
    beat = writer.statement("heartbeat", HeartbeatBody(note="x"), "alpha")
    alpha = _key("alpha")
    good = seal_envelope(beat, [alpha])

    def says(kind: str, body: Body, *names: str, **changes: Any) -> bytes:
        payload = writer.statement(kind, body, *names, **changes)
        return seal_envelope(payload, [_key(name) for name in names])

    def beat_by(name: str, **changes: Any) -> bytes:
        return says("heartbeat", HeartbeatBody(note="x"), name, **changes)

    def raw(text: bytes) -> bytes:
        return seal_envelope(text, [alpha], limit=1 << 20)

    other = Head(seq=end - 1, digest=_sha(b"other"))
    snapshot = writer.envelopes[2]
    body = _snapshot("web", ObjectRef(name="x", sha256=_sha(b""), size=0, version="1"), [])
    duplicate = beat.replace(b'"seq":', b'"seq":0,"seq":', 1)
    first = says("root", _root(1, "root-b"), "root-b", seq=0, prev=None)
    huge = beat.replace(b'"critical":false', b'"critical":9007199254740992')
    long = beat.replace(b'"note":"x"', b'"note":"%s"' % (b"x" * 4096))
    event = EventBody(
        verdict="passed",
        snapshot=end,
        started=from_rfc3339("2026-01-01T08:00:00Z"),
        finished=from_rfc3339("2026-01-01T08:01:00Z"),
        attestation="ab" * 32,
    )
    packs_domain = ObjectRef(
        name=f"domains/default/{_sha(b'')}", sha256=_sha(b""), size=0, version="1"
    )
    return {
        "payload-bit-flipped": (2, _tampered(snapshot, _flip_payload), "SignatureError"),
        "high-s-twin": (2, _tampered(snapshot, _high_s), "valid"),
        "not-the-pinned-root": (0, first, "DigestMismatchError"),
        "signed-by-stranger": (end, beat_by("stranger"), "SignatureError"),
        "signed-by-revoked-writer": (end, beat_by("beta"), "SignatureError"),
        "other-repository": (end, beat_by("alpha", repository="f" * 32), "DigestMismatchError"),
        "other-seq": (end, beat_by("alpha", seq=end + 1), "DigestMismatchError"),
        "other-prev": (end, beat_by("alpha", prev=other), "DigestMismatchError"),
        "duplicate-name": (end, raw(duplicate), "FormatError"),
        "float": (end, raw(beat.replace(b'"critical":false', b'"critical":1.0')), "FormatError"),
        "huge-integer": (end, raw(huge), "FormatError"),
        "trailing-bytes": (end, good + b"{}", "FormatError"),
        "byte-order-mark": (end, b"\xef\xbb\xbf" + good, "FormatError"),
        "pae-too-large": (end, raw(long), "FormatError"),
        "role-missing": (end, beat_by("policy"), "void"),
        "dataset-outside-patterns": (7, _at(writer, 7, "snapshot", body, "beta"), "void"),
        "root-version-skipped": (end, says("root", _root(4, "root-a"), "root-a", "root-b"), "void"),
        "root-below-old-threshold": (end, says("root", _root(3, "root-a"), "root-a"), "void"),
        "body-malformed": (end, raw(beat.replace(b'"note":"x"', b'"note":7')), "void"),
        **{
            name: (end, says("verification", each, "restorer"), "void")
            for name, each in _impossible_verifications(end).items()
        },
        **{
            name: (end, says("snapshot", each, "alpha"), "void")
            for name, each in _impossible_snapshots(body).items()
        },
        "restore-of-a-later-snapshot": (end, says("restore", event, "restorer"), "void"),
        "verification-of-everything-by-a-writer": (
            end,
            says("verification", _verification(), "alpha"),
            "void",
        ),
        "signed-by-replaced-writer": (end, beat_by("gamma"), "SignatureError"),
        "dataset-outside-the-limit": (
            14,
            _at(writer, 14, "snapshot", replace_body(body, dataset="db-2"), "gamma"),
            "void",
        ),
        **{
            name: (end, says("writer", each, "enroller"), expect)
            for name, (each, expect) in _enrolments(packs_domain).items()
        },
        **_spellings(beat, good, raw),
        **_signers(writer, says),
        "pattern-with-a-bracket": (
            end,
            says("writer", _enrol("stranger", packs_domain, "db-[12]"), "enroller"),
            "void",
        ),
        "unknown-version": (end, raw(beat.replace(b":heartbeat:v1", b":heartbeat:v2")), "unknown"),
    }


def _enrolments(domain: ObjectRef) -> dict[str, tuple[WriterBody, str]]:
    """Limits and rotations, and what they must not do."""
    rotated = replace_body(
        _enrol("delta", domain, "*"), public=_public("stranger"), replaces=_id("delta")
    )
    assert rotated.domain is not None
    other = replace_body(
        rotated.domain, name="other", object=rotated.domain.object.replace("default", "other")
    )
    # the key was enrolled as gamma: a rotation keeps the name
    good = replace_body(rotated, name="gamma")
    return {
        "limit": (_limit("delta", "db-1", "db-2"), "valid"),
        "limit-to-nothing": (_limit("delta"), "valid"),
        "limit-of-a-revoked-key": (_limit("beta", "db-*"), "void"),
        "limit-of-a-replaced-key": (_limit("gamma", "db-*"), "void"),
        "limit-of-a-stranger": (_limit("stranger", "db-*"), "void"),
        "limit-with-a-bracket": (_limit("delta", "db-[1]"), "void"),
        "limit-of-64-signs": (_limit("delta", "d" * 64), "void"),
        "rotation": (good, "valid"),
        "rotation-to-another-name": (rotated, "void"),
        "rotation-to-another-domain": (replace_body(good, domain=other), "void"),
        "rotation-to-no-domain": (replace_body(good, domain=None), "void"),
        "rotation-to-another-recipient": (replace_body(good, recipient="AAAA"), "void"),
        "rotation-of-a-revoked-key": (replace_body(good, replaces=_id("beta")), "void"),
        "rotation-of-a-replaced-key": (replace_body(good, replaces=_id("gamma")), "void"),
        "rotation-of-a-root-key": (replace_body(good, replaces=_id("root-a")), "void"),
        "rotation-of-no-key": (replace_body(good, replaces="delta"), "void"),
    }


def _signers(writer: _Writer, says: Callable[..., bytes]) -> dict[str, tuple[int, bytes, str]]:
    """Who signs is signed (docs/format.md 2.2): each rule, kept and broken."""
    end = len(writer.envelopes)
    policy = _policy()
    one, two = sorted(("policy", "pruner"), key=lambda name: _key(name).public.id)
    both = says("policy", policy, one, two)
    payload = base64.b64decode(json.loads(both)["payload"])
    enrolled = json.loads(base64.b64decode(json.loads(writer.envelopes[1])["payload"]))
    gamma = WriterBody(
        action="add",
        name="alpha",
        public=_public("later"),
        datasets=("*",),
        domain=DomainRef(**enrolled["predicate"]["body"]["domain"]),
    )
    brings = replace_body(
        _root(3, "root-a", "root-b"),
        keys=(
            *_root(3, "root-a", "root-b").keys,
            PublicKey(name="new", public=_public("stranger"), roles=(Role.ROOT,), person="root-b"),
        ),
    )

    def edited(kind: str, body: Body, *names: str, **changes: Any) -> bytes:
        fields = json.loads(base64.b64decode(json.loads(says(kind, body, *names))["payload"]))
        fields["predicateType"] = changes.pop("predicateType", fields["predicateType"])
        fields["predicate"] |= changes
        return seal_envelope(dumps(fields), [_key(name) for name in names], limit=1 << 16)

    def by(value: Any) -> bytes:
        return edited("policy", policy, "policy", by=value)

    def signatures(change: Callable[[list[Any]], list[Any]]) -> bytes:
        return _tampered(both, lambda e: e.update(signatures=change(e["signatures"])))

    key_id = _key("policy").public.id
    later = {
        "root-of-a-later-version": edited(
            "root", brings, "root-a", "root-b", "stranger", predicateType="urn:vault:root:v2"
        ),
        "writer-of-a-later-version": edited(
            "writer", gamma, "enroller", predicateType="urn:vault:writer:v2"
        ),
        "writer-with-another-action": says(
            "writer", replace_body(gamma, action="lend"), "enroller"
        ),
    }
    fine = {
        "by-two": (both, "valid"),
        "by-two-of-whom-one-has-the-role": (says("hold", _hold(), "pruner", "policy"), "valid"),
        "root-brings-its-signer": (says("root", brings, "root-a", "root-b", "stranger"), "valid"),
        "root-of-a-later-version-by-one": (
            edited("root", brings, "root-a", predicateType="urn:vault:root:v2"),
            "unknown",
        ),
        "writer-of-a-later-version-by-a-writer": (
            edited("writer", gamma, "alpha", predicateType="urn:vault:writer:v2"),
            "unknown",
        ),
        "writer-adds-a-key-of-the-root": (
            says("writer", replace_body(gamma, public=_public("logger")), "enroller"),
            "void",
        ),
        "verification-by-a-verifier": (says("verification", _seen(), "verifier"), "valid"),
        "restore-by-a-verifier": (says("restore", _restored(), "verifier"), "void"),
        "warrant-by-a-host": (says("warrant", _warrant(1), "alpha"), "valid"),
        "warrant-of-nobody": (says("warrant", _warrant(0), "alpha"), "void"),
        "warrant-of-17": (says("warrant", _warrant(17), "alpha"), "void"),
        "reseal": (says("reseal", _reseal(), "restorer"), "valid"),
        "reseal-by-another-role": (says("reseal", _reseal(), "verifier"), "void"),
        "reseal-of-nothing": (says("reseal", _reseal(objects=()), "restorer"), "void"),
        "reseal-of-a-head-to-come": (says("reseal", _reseal(through=end), "restorer"), "void"),
        "reseal-of-another-recipient": (
            says("reseal", _reseal(recipient="cd" * 32), "restorer"),
            "void",
        ),
        "act-with-a-warrant": (edited("policy", policy, "policy", warrant={"seq": 1}), "void"),
        "warrant-of-nothing": (edited("policy", policy, "policy", warrant=None), "valid"),
    }
    junk = {
        "by-missing": (by(None), "FormatError"),
        "by-nobody": (by([]), "FormatError"),
        "by-a-name": (by(["policy"]), "FormatError"),
        "by-upper-case": (by([key_id.upper()]), "FormatError"),
        "by-twice": (by([key_id] * 2), "FormatError"),
        "by-17": (by([f"{number:064x}" for number in range(17)]), "FormatError"),
        "by-no-list": (by(key_id), "FormatError"),
        "by-another": (by([_key("pruner").public.id]), "SignatureError"),
        "by-descending": (
            edited(
                "policy", policy, "policy", "pruner", by=[_key(n).public.id for n in (two, one)]
            ),
            "FormatError",
        ),
        "by-two-hosts": (
            edited("heartbeat", HeartbeatBody(note="x"), "alpha", by=sorted([key_id, "0" * 64])),
            "FormatError",
        ),
        "by-a-stranger-too": (says("policy", policy, "policy", "stranger"), "SignatureError"),
        "by-a-log-key": (says("heartbeat", HeartbeatBody(note="x"), "logger"), "SignatureError"),
        "by-a-log-key-too": (says("policy", policy, "policy", "logger"), "SignatureError"),
        "signature-missing": (signatures(lambda each: each[:1]), "SignatureError"),
        "signature-added": (signatures(lambda each: [*each, each[0]]), "SignatureError"),
        "signatures-swapped": (signatures(lambda each: each[::-1]), "SignatureError"),
        "signature-repeated": (signatures(lambda each: each[:1] * 2), "SignatureError"),
        "signature-of-another": (
            _tampered(
                both,
                lambda e: e["signatures"][1].update(
                    sig=b64encode(_key("alpha").sign(pae(PAYLOAD_TYPE, payload)))
                ),
            ),
            "SignatureError",
        ),
        "warrant-by-a-log-key": (says("warrant", _warrant(1), "logger"), "SignatureError"),
        "root-by-a-new-key-alone": (says("root", brings, "stranger"), "SignatureError"),
    }
    return {
        **{name: (end, data, "upgrade") for name, data in later.items()},
        **{name: (end, data, expect) for name, (data, expect) in (fine | junk).items()},
    }


def _seen() -> VerificationBody:
    return _verification(attestation=str(_sha(b"attestation")))


def _restored() -> EventBody:
    return EventBody(
        verdict="passed",
        snapshot=2,
        started=from_rfc3339("2026-01-01T08:00:00Z"),
        finished=from_rfc3339("2026-01-01T08:01:00Z"),
        attestation=str(_sha(b"attestation")),
    )


def _warrant(signatures: int) -> WarrantBody:
    one = WarrantSignature(keyid="", sig=b64encode(b"signature"))
    return WarrantBody(payload=b64encode(b"request"), signatures=(one,) * signatures)


def _reseal(**changes: Any) -> ResealBody:
    table = SeedTable(name=f"seeds/{'ab' * 32}/{'ef' * 32}", sha256="ef" * 32, size=7, version="1")
    body = ResealBody(recipient="ab" * 32, objects=(table,), sessions=1, through=3)
    return replace_body(body, **changes)


def _hold() -> HoldBody:
    return HoldBody(action="add", snapshot=2, reason="case 7", author="ann")


def _release(**changes: Any) -> HoldBody:
    body = HoldBody(action="release", snapshot=2, hold=HELD, reason="over", author="ann")
    return replace_body(body, **changes)


def _policy(**changes: Any) -> PolicyBody:
    return replace_body(PolicyBody(action="apply", name="web", sha256=str(_sha(TERMS))), **changes)


def _governed() -> dict[str, tuple[str, Body, str, str]]:
    """Name to type, body, signer and status: of policies, holds and prunes, each rule both ways."""
    policy: dict[str, tuple[dict[str, Any], str]] = {
        "weaker": ({"weaker": ("é" * 50,) + ("x",) * 7, "weakens": True}, "valid"),
        "weaker-too-long": ({"weaker": ("é" * 50 + "x",), "weakens": True}, "void"),
        "weaker-too-many": ({"weaker": ("x",) * 9, "weakens": True}, "void"),
        "weaker-of-nothing": ({"weaker": ("",), "weakens": True}, "void"),
        "weaker-unsaid": ({"weaker": ("x",)}, "void"),
        "weakens-without-a-list": ({"weakens": True}, "valid"),
        "reason": ({"reason": "\\" * 100 + '"' * 98 + "é"}, "valid"),
        "reason-too-long": ({"reason": "\\" * 100 + '"' * 99 + "é"}, "void"),
        "follows": ({"previous": 16}, "valid"),
        "follows-one-to-come": ({"previous": LATER}, "void"),
        "follows-nothing": ({"previous": -1}, "void"),
        "withdrawn": ({"action": "withdraw", "weakens": True}, "valid"),
        "withdrawn-unsaid": ({"action": "withdraw"}, "void"),
        "withdrawn-without-terms": (
            {"action": "withdraw", "weakens": True, "sha256": ""},
            "void",
        ),
        "retires": ({"action": "retire", "weakens": True, "sha256": ""}, "valid"),
        "retires-unsaid": ({"action": "retire", "sha256": ""}, "void"),
        "retires-with-terms": ({"action": "retire", "weakens": True}, "void"),
        "of-no-action": ({"action": "renew"}, "void"),
        "of-no-terms": ({"sha256": ""}, "void"),
        "of-no-name": ({"name": ""}, "void"),
        "of-a-path": ({"name": "../web"}, "void"),
    }
    hold: dict[str, tuple[dict[str, Any], str]] = {
        "of-a-dataset": (
            {"dataset": "web", "until": from_rfc3339(UNTIL), "case": "é" * 30},
            "valid",
        ),
        "of-no-dataset": ({"dataset": "Web"}, "void"),
        "case-too-long": ({"case": "é" * 30 + "x"}, "void"),
        "until-some-day": ({"until": "tomorrow"}, "void"),
        "reason-too-long": ({"reason": "x" * 301}, "void"),
        "reason-long": ({"reason": "x" * 300, "author": "x" * 100}, "valid"),
        "author-too-long": ({"author": "x" * 101}, "void"),
        "of-what-is-to-come": ({"snapshot": LATER}, "void"),
        "that-names-one": ({"hold": HELD}, "void"),
    }
    release: dict[str, tuple[dict[str, Any], str]] = {
        "-of-nothing": ({"hold": None}, "void"),
        "-of-what-is-to-come": ({"hold": LATER}, "void"),
        "-of-another-snapshot": ({"snapshot": 3}, "void"),
        "-of-what-is-released": ({"snapshot": 3, "hold": HELD + 1}, "void"),
        "-of-a-release": ({"snapshot": 3, "hold": HELD + 2}, "void"),
        "-of-a-policy": ({"hold": HELD - 1}, "void"),
        "-with-a-dataset": ({"dataset": "web"}, "void"),
        "-with-a-time": ({"until": from_rfc3339(UNTIL)}, "void"),
        "-with-a-case": ({"case": "7"}, "void"),
        "": ({}, "valid"),
        "-once-more": ({}, "void"),
    }
    listed = str(_sha(NOTHING))
    plan = PruneBody(phase="plan", plan=listed)
    prune: dict[str, tuple[dict[str, Any], str]] = {
        "plan": (
            {
                "details": str(_sha(TERMS)),
                "spared": listed,
                "head": 3,
                "part": 2,
                "parts": 2,
                "objects": 7,
                "bytes": 9,
            },
            "valid",
        ),
        "plan-at-a-head-to-come": ({"head": LATER}, "void"),
        "part-0": ({"part": 0}, "void"),
        "part-2-of-1": ({"part": 2}, "void"),
        "parts-too-many": ({"parts": 10_001}, "void"),
        "details-of-nothing": ({"details": "x"}, "void"),
        "result": (
            {
                "phase": "result",
                "of": 4,
                "deleted": 1,
                "gone": 2,
                "locked": 3,
                "refused": 4,
                "complete": True,
            },
            "valid",
        ),
        "result-of-what-is-to-come": ({"phase": "result", "of": LATER}, "void"),
        **{
            f"{each}-negative": ({each: -1}, "void")
            for each in ("objects", "bytes", "deleted", "gone", "locked", "refused")
        },
    }
    tables: tuple[tuple[str, str, Body, str, dict[str, tuple[dict[str, Any], str]]], ...] = (
        ("policy-", "policy", _policy(), "policy", policy),
        ("hold-", "hold", _hold(), "policy", hold),
        ("release", "hold", _release(), "policy", release),
        ("prune-", "prune", plan, "pruner", prune),
    )
    return {
        f"{before}{name}": (kind, replace_body(body, **changes), signer, expect)
        for before, kind, body, signer, table in tables
        for name, (changes, expect) in table.items()
    }


def _measured(snapshot: SnapshotBody) -> dict[str, tuple[str, Body, str, str]]:
    """The same of snapshots, heartbeats, restores and drills."""
    event = _restored()
    taken: dict[str, tuple[dict[str, Any], str]] = {
        "terms": (
            {
                "retention": RetentionTerms(keep=3_155_760_000, tiers=TIER_NAMES),
                "policy": "ab" * 32,
                "scope": "cd" * 32,
                "label": "9-before.update_",
                "purpose": "safety",
                "barrier": "0011223344556677",
                "notes": "ef" * 32,
            },
            "valid",
        ),
        "keep-0": ({"retention": RetentionTerms(keep=0)}, "void"),
        "keep-too-long": ({"retention": RetentionTerms(keep=3_155_760_001)}, "void"),
        "tiers-descend": ({"retention": RetentionTerms(keep=1, tiers=TIER_NAMES[1::-1])}, "void"),
        "tier-twice": ({"retention": RetentionTerms(keep=1, tiers=TIER_NAMES[:1] * 2)}, "void"),
        "tier-unknown": ({"retention": RetentionTerms(keep=1, tiers=("minutely",))}, "void"),
        "policy-of-no-digest": ({"policy": "web"}, "void"),
        "scope-of-no-digest": ({"scope": "cd" * 31}, "void"),
        "label-of-40": ({"label": "a" * 40}, "valid"),
        "label-of-41": ({"label": "a" * 41}, "void"),
        "label-with-a-dot-first": ({"label": ".a"}, "void"),
        "label-in-upper-case": ({"label": "A"}, "void"),
        "label-not-ascii": ({"label": "é"}, "void"),
        "purpose-unknown": ({"purpose": "fun"}, "void"),
        "barrier-short": ({"barrier": "00112233"}, "void"),
        "notes-of-no-chunk": ({"notes": "x"}, "void"),
        "previous-negative": ({"previous": -1}, "void"),
    }
    ended: dict[str, tuple[dict[str, Any], str]] = {
        "measured": ({"rto": 1, "objective": 3_155_760_000, "replaced": True}, "valid"),
        "rto-0": ({"rto": 0}, "void"),
        "rto-too-long": ({"rto": 3_155_760_001}, "void"),
        "objective-negative": ({"objective": -1}, "void"),
    }
    beats: dict[str, tuple[dict[str, Any], str]] = {
        "next": ({"next_by": from_rfc3339(UNTIL)}, "valid"),
        "next-some-day": ({"next_by": "tomorrow"}, "void"),
        "next-without-z": ({"next_by": "2099-01-01T00:00:00+00:00"}, "void"),
    }
    drills: dict[str, tuple[dict[str, Any], str]] = {
        "measured": ({"rto": 1}, "valid"),
        "that-replaces": ({"replaced": True}, "void"),
    }
    tables: tuple[tuple[str, Body, str, dict[str, tuple[dict[str, Any], str]]], ...] = (
        ("snapshot", snapshot, "alpha", taken),
        ("heartbeat", HeartbeatBody(note="x"), "alpha", beats),
        ("restore", event, "restorer", ended),
        ("drill", event, "restorer", drills),
    )
    return {
        f"{kind}-{name}": (kind, replace_body(body, **changes), signer, expect)
        for kind, body, signer, table in tables
        for name, (changes, expect) in table.items()
    }


def _spellings(
    beat: bytes, good: bytes, raw: Callable[[bytes], bytes]
) -> dict[str, tuple[int, bytes, str]]:
    """Canonical JSON (docs/format.md): each rule, at its limit and beyond it."""
    after = json.loads(beat)["predicate"]["seq"]

    def note(text: bytes) -> bytes:
        return raw(beat.replace(b'"note":"x"', b'"note":"%s"' % text))

    def member(text: bytes) -> bytes:  # a further member of the predicate, behind all others
        end = beat.index(b'},"predicateType"')
        return raw(beat[:end] + b"," + text + beat[end:])

    def envelope(old: bytes, new: bytes) -> bytes:
        assert old in good
        return good.replace(old, new, 1)

    fine = {
        "text-with-quote-and-backslash": note(rb"\"\\"),
        "text-with-every-length-of-utf-8": note("é€😀\u2028\u0080\uffff".encode()),
        "text-in-two-normal-forms": note("é e\u0301".encode()),
        "text-with-a-slash": note(b"a/b"),
        "depth-8": member(b'"zz":[[[[[[1]]]]]]'),
        "integer-greatest": member(b'"zz":9007199254740991'),
        "integer-least": member(b'"zz":-9007199254740991'),
        "name-of-64": member(b'"z%s":1' % (b"Z" * 63)),
        "name-with-every-sign": member(b'"z.Z_9-":1'),
        "empty-object-and-list": member(b'"zz":{},"zzz":[]'),
        "key-id-of-nothing": _tampered(good, lambda e: e["signatures"][0].update(keyid="")),
        "key-id-that-climbs": _tampered(good, lambda e: e["signatures"][0].update(keyid="../x")),
    }
    wrong = {
        "text-with-tab": note(b"\t"),
        "text-with-escaped-line-end": note(rb"\n"),
        "text-with-escaped-letter": note(rb"\u0041"),
        "text-with-escaped-slash": note(rb"\/"),
        "text-with-delete": note(b"\x7f"),
        "text-with-escaped-nul": note(rb"\u0000"),
        "text-with-surrogate": note(b"\xed\xa0\x80"),
        "text-with-escaped-surrogate": note(rb"\ud800"),
        "text-in-overlong-utf-8": note(b"\xc0\xaf"),
        "text-in-latin-1": note(b"\xe9"),
        "text-past-unicode": note(b"\xf4\x90\x80\x80"),
        "text-cut": note(b"\xe2\x82"),
        "depth-9": member(b'"zz":[[[[[[[1]]]]]]]'),
        "integer-too-great": member(b'"zz":9007199254740992'),
        "integer-too-small": member(b'"zz":-9007199254740992'),
        "integer-with-zero-in-front": member(b'"zz":01'),
        "integer-minus-zero": member(b'"zz":-0'),
        "integer-with-plus": member(b'"zz":+1'),
        "exponent": member(b'"zz":1e3'),
        "word-that-is-none": member(b'"zz":NaN'),
        "name-of-65": member(b'"z%s":1' % (b"Z" * 64)),
        "name-of-nothing": raw(beat.replace(b'"predicate":{', b'"predicate":{"":1,')),
        "name-with-a-space": member(b'"z z":1'),
        "name-with-a-colon": member(b'"z:z":1'),
        "name-not-ascii": member('"zé":1'.encode()),
        "names-descend": member(b'"aa":1'),
        "name-twice": member(b'"time":"2026-01-01T00:00:00Z"'),
        "white-space-in-the-payload": raw(beat.replace(b'":', b'": ', 1)),
        "line-end-behind-the-payload": raw(beat + b"\n"),
        "comma-before-the-end": member(b'"zz":[1,]'),
        "white-space": envelope(b'","payloadType', b'", "payloadType'),
        "line-end-behind-the-envelope": good + b"\n",
        "envelope-with-another-member": _tampered(good, lambda e: e.update(zz=1)),
        "signature-with-another-member": _tampered(good, lambda e: e["signatures"][0].update(zz=1)),
        "signature-without-key-id": _tampered(good, lambda e: e["signatures"][0].pop("keyid")),
        "envelope-out-of-order": json.dumps(
            dict(reversed(json.loads(good).items())), separators=(",", ":")
        ).encode(),
        "envelope-with-escape": envelope(b'"application/vnd', rb'"application\/vnd'),
        "no-signature": _tampered(good, lambda e: e.update(signatures=[])),
        "17-signatures": _tampered(good, lambda e: e.update(signatures=e["signatures"] * 17)),
        "base64-with-stray-bits": envelope(b'fQ==","payloadType', b'fR==","payloadType')
        if b'fQ=="' in good
        else envelope(b'","payloadType', b'=","payloadType'),
    }
    return {
        **{f"spelled-{name}": (after, data, "valid") for name, data in fine.items()},
        **{f"misspelled-{name}": (after, data, "FormatError") for name, data in wrong.items()},
    }


def _impossible_verifications(end: int) -> dict[str, VerificationBody]:
    """Each breaks one rule of docs/format.md 2.3."""
    packs = tuple(f"{number:064x}" for number in range(40))
    flaws: dict[str, dict[str, Any]] = {
        "of-nothing": {"snapshots": ()},
        "of-17-ranges": {"snapshots": tuple((n, n) for n in range(17)), "through": 17},
        "ranges-descend": {"snapshots": ((3, 3), (2, 2))},
        "ranges-overlap": {"snapshots": ((2, 4), (4, 5))},
        "range-beyond-the-head-read": {"snapshots": ((2, 10),)},
        "of-a-head-to-come": {"through": end},
        "reads-too-much": {"share": 1_000_001},
        "reads-less-than-a-share": {"share": -1},
        "reads-less-than-nothing": {"read": -1},
        "slice-of-too-few": {"slice": (30, 30)},
        "short-nonce": {"nonce": "0011"},
        "25-bad": {"bad": packs[:25], "bad_count": 25},
        "33-in-both": {"bad": packs[:24], "bad_count": 24, "cleared": packs[24:33]},
        "bad-unsorted": {"bad": packs[1::-1], "bad_count": 2},
        "bad-twice": {"bad": packs[:1] * 2, "bad_count": 2},
        "bad-and-cleared": {"bad": packs[:2], "bad_count": 2, "cleared": packs[1:3]},
        "bad-uncounted": {"bad": packs[:2], "bad_count": 1},
        "bad-is-no-id": {"bad": ("AB" * 32,), "bad_count": 1},
    }
    return {f"verification-{name}": _verification(**changes) for name, changes in flaws.items()}


def _impossible_snapshots(body: SnapshotBody) -> dict[str, SnapshotBody]:
    """Each breaks one rule of docs/format.md 2.3; the body as it is would be valid."""
    digest = "ab" * 32
    inventory_flaws: dict[str, dict[str, Any]] = {
        "digest": {"sha256": digest.upper()},
        "digest-cut": {"sha256": digest[:-1]},
        "size": {"size": -1},
        "objects": {"objects": -1},
        "bytes": {"bytes": -1},
        "version": {"version": ""},
    }
    tree_flaws: dict[str, dict[str, Any]] = {
        "id": {"id": "x"},
        "commitment": {"commitment": digest.upper()},
        "level": {"level": -1},
        "height": {"level": 9},
    }
    flaws = {
        "dataset": replace_body(body, dataset="../x"),
        "created": replace_body(body, created="yesterday"),
        "until": replace_body(body, until="2026-02-01T00:00:00+00:00"),
        "counts": replace_body(body, counts=replace_body(body.counts, files=-1)),
    }
    for name, changes in inventory_flaws.items():
        listed = replace_body(body.inventory, **changes)
        flaws[f"inventory-{name}"] = replace_body(body, inventory=listed)
    for name, changes in tree_flaws.items():
        flaws[f"tree-{name}"] = replace_body(body, tree=replace_body(body.tree, **changes))
    return {f"snapshot-{name}": each for name, each in flaws.items()}


def _at(writer: _Writer, seq: int, kind: str, body: Body, signer: str) -> bytes:
    """A statement at an earlier place of the chain."""
    digest = _sha(
        pae(PAYLOAD_TYPE, base64.b64decode(json.loads(writer.envelopes[seq - 1])["payload"]))
    )
    prev = Head(seq=seq - 1, digest=digest)
    return seal_envelope(writer.statement(kind, body, signer, seq=seq, prev=prev), [_key(signer)])


def _describe(writer: _Writer) -> dict[str, Any]:
    ledger = Ledger(None)
    for envelope in writer.envelopes:
        ledger.link(envelope, version="1", modified=START)
    records = [
        {"seq": r.seq, "type": r.type, "digest": str(r.digest), "status": r.status.value}
        for r in ledger.records
    ]
    return {"root": str(ledger.records[0].digest), "statements": records}


def _write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n")


def generate_ledger(directory: Path) -> None:
    """Write all ledger vectors below ``directory``."""
    writer = _build_store(directory)
    _write_json(directory / "ledger.json", _describe(writer))
    _write_json(directory / "bodies.json", _build_bodies(directory / "bodies"))
    _write_json(directory / "roots.json", _roots(writer))
    for name, (after, envelope, expect) in _negatives(writer).items():
        fields = {"after": after, "envelope": b64encode(envelope), "expect": expect}
        _write_json(directory / "negative" / f"{name}.json", fields)


if __name__ == "__main__":
    generate_ledger(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "ledger")
