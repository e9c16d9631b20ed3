"""The fold: what links, what counts, and what an attacker can't make of it."""

import base64
import contextlib
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.utils import (
    decode_dss_signature,
    encode_dss_signature,
)

from vault.clock import from_rfc3339, to_rfc3339
from vault.crypto.keys import SigningKey
from vault.encoding import b64encode, dumps
from vault.errors import (
    ConfigError,
    DigestMismatchError,
    FormatError,
    IntegrityError,
    SignatureError,
    VaultError,
)
from vault.ledger.chain import Ledger
from vault.ledger.envelope import Head, build_statement, parse_envelope, seal_envelope
from vault.ledger.kinds import name_packs
from vault.ledger.records import Record, Status
from vault.ledger.statements import (
    MAX_NAMED_PACKS,
    MAX_RANGES,
    MAX_SLICES,
    Counts,
    DistrustedKey,
    DomainRef,
    EventBody,
    HeartbeatBody,
    HoldBody,
    InventoryRef,
    PolicyBody,
    PruneBody,
    PublicKey,
    Recipient,
    Role,
    RootBody,
    SnapshotBody,
    TreeRef,
    VerificationBody,
    WriterBody,
)
from vault.ledger.succession import snapshot_ranges
from vault.model import Body, Digest, LockMode, Severity, body_from_json, body_to_json, replace_body
from vault.parameters import Parameters

REPOSITORY = "ab" * 16
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
DIGEST = "cd" * 32
RECIPIENT = b"\x07" * 1216
ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551  # of P-256
NAMES = "root,root2,enroller,enroller2,policy,pruner,restorer,alpha,beta,stranger"
KEY = {name: SigningKey.generate() for name in NAMES.split(",")}


def public(name: str) -> str:
    """As a body carries it."""
    return b64encode(KEY[name].public.der)


def root_body(
    version: int = 1,
    keys: Sequence[tuple[str, Role]] = (
        ("root", Role.ROOT),
        ("enroller", Role.ENROLLER),
        ("policy", Role.POLICY),
        ("pruner", Role.PRUNER),
        ("restorer", Role.RESTORER),
    ),
    **changes: Any,
) -> RootBody:
    """The root that most tests begin with."""
    fields: dict[str, Any] = {
        "version": version,
        "parameters": Parameters(lock_mode=LockMode.NONE),
        "keys": tuple(PublicKey(name=n, public=public(n), roles=(r,), person=n) for n, r in keys),
        "thresholds": {},
        "recipients": (Recipient(name="site", public=b64encode(RECIPIENT)),),
    }
    return RootBody(**(fields | changes))


DOMAIN = DomainRef(
    name="default", object=f"domains/default/{DIGEST}", sha256=DIGEST, size=1, version="1"
)


def enrol(name: str = "alpha", *datasets: str, **changes: Any) -> WriterBody:
    """Adds a writer key."""
    fields: dict[str, Any] = {
        "action": "add",
        "name": name,
        "public": public(name),
        "datasets": datasets or ("*",),
        "domain": DOMAIN,
    }
    return WriterBody(**(fields | changes))


def revoke(name: str = "alpha", distrust_from: int | None = None) -> WriterBody:
    """Revokes a writer key."""
    return WriterBody(action="revoke", name=name, public=public(name), distrust_from=distrust_from)


def snapshot(dataset: str = "web", **changes: Any) -> SnapshotBody:
    """A complete one."""
    fields: dict[str, Any] = {
        "dataset": dataset,
        "created": "2026-01-01T00:00:00Z",
        "complete": True,
        "counts": Counts(),
        "tree": TreeRef(id=DIGEST, level=0, commitment=DIGEST),
        "inventory": InventoryRef(sha256=DIGEST, size=1, version="1", objects=1, bytes=1),
        "mode": LockMode.NONE,
        "until": "2026-02-01T00:00:00Z",
    }
    return SnapshotBody(**(fields | changes))


class Chain:
    """A ledger under construction, and a signer for its next statement."""

    def __init__(self, root: RootBody | None = None, signers: Sequence[str] = ("root",)) -> None:
        envelope = self._seal("root", root or root_body(), signers, 0, None)
        self.envelopes = [envelope]
        self.ledger = Ledger(parse_envelope(envelope).digest)
        self.ledger.link(envelope, version="v0", modified=NOW)

    @staticmethod
    def _seal(
        kind: str,
        body: Body,
        signers: Sequence[str],
        seq: int,
        prev: Head | None,
        /,
        **changes: Any,
    ) -> bytes:
        fields: dict[str, Any] = {
            "type": kind,
            "repository": REPOSITORY,
            "seq": seq,
            "prev": prev,
            "time": NOW + timedelta(hours=seq),
            "tool": "vault 0.1.0",
            "subject": [("x", Digest(bytes(32)))],
            "body": body,
            "by": [KEY[name].public.id for name in signers],
        }
        payload = build_statement(**(fields | changes))
        return seal_envelope(payload, [KEY[name] for name in signers])

    def sealed(self, kind: str, body: Body, /, *signers: str, **changes: Any) -> bytes:
        """The next statement, not linked."""
        head = self.ledger.head
        return self._seal(kind, body, signers, len(self.ledger.records), head, **changes)

    def edited(self, kind: str, body: Body, /, *signers: str, **predicate: Any) -> bytes:
        """The next statement with members of its predicate replaced before it was signed."""
        fields = json.loads(parse_envelope(self.sealed(kind, body, *signers)).payload)
        fields["predicateType"] = predicate.pop("predicateType", fields["predicateType"])
        fields["predicate"] |= predicate
        return seal_envelope(dumps(fields), [KEY[name] for name in signers], limit=65536)

    def link(self, envelope: bytes, *, modified: datetime = NOW, is_dated: bool = True) -> Record:
        """Link what is given."""
        self.envelopes.append(envelope)
        return self.ledger.link(envelope, version="v", modified=modified, is_dated=is_dated)

    def store(self, kind: str, body: Body, signer: str, at: datetime, **how: bool) -> Record:
        """Seal and link, as stored at a time."""
        return self.link(self.sealed(kind, body, signer), modified=at, **how)

    def add(self, kind: str, body: Body, /, *signers: str, **changes: Any) -> Record:
        """Seal and link."""
        return self.link(self.sealed(kind, body, *signers, **changes))


@pytest.fixture
def chain() -> Chain:
    """A root, and alpha enrolled for every dataset."""
    made = Chain()
    made.add("writer", enrol(), "enroller")
    return made


def beat(chain: Chain, *signers: str, **changes: Any) -> bytes:
    """The next statement, a heartbeat."""
    return chain.sealed("heartbeat", HeartbeatBody(note="x"), *(signers or ("alpha",)), **changes)


def resigned(envelope: bytes, *signatures: tuple[str, bytes]) -> bytes:
    """The same payload with other signatures."""
    fields = json.loads(envelope)
    fields["signatures"] = [{"keyid": k, "sig": b64encode(s)} for k, s in signatures]
    return dumps(fields)


def sign(envelope: bytes, name: str) -> bytes:
    """One more signature over the same statement."""
    return KEY[name].sign(parse_envelope(envelope).pae)


# --- statement 0 ---


def test_first_statement_sets_repository_root_and_keys() -> None:
    """Everything later hangs on it."""
    chain = Chain()
    ledger = chain.ledger
    assert ledger.repository_id == REPOSITORY
    assert ledger.recipients == [RECIPIENT]
    assert ledger.head == ledger.records[0].head
    assert KEY["enroller"].public.id in ledger.keys
    assert [r.status for r in ledger.records] == [Status.VALID]


def test_another_root_than_the_pinned_one_is_refused() -> None:
    """However well it is signed."""
    ledger = Ledger(Digest(bytes(32)))
    with pytest.raises(DigestMismatchError, match="pinned"):
        ledger.link(Chain().envelopes[0], version="v", modified=NOW)
    assert ledger.head is None


def test_first_statement_needs_its_own_threshold() -> None:
    """Even the pinned root must be signed by those it names."""
    body = root_body(keys=(("root", Role.ROOT), ("root2", Role.ROOT)), thresholds={"root": 2})
    Chain(body, ("root", "root2"))
    with pytest.raises(SignatureError, match="2 keys"):
        Chain(body, ("root",))
    for signers in (("stranger",), ("root", "stranger"), ("root", "root2", "stranger")):
        with pytest.raises(SignatureError, match="has not the signatures"):
            Chain(body, signers)


def test_first_statement_must_be_a_root() -> None:
    """Nothing else can list keys."""
    envelope = Chain._seal("heartbeat", HeartbeatBody(note="x"), ("root",), 0, None)
    with pytest.raises(FormatError, match="not a root"):
        Ledger(None).link(envelope, version="v", modified=NOW)


BAD_ROOTS: dict[str, dict[str, Any]] = {
    "no root key": {"keys": ()},
    "key twice": {"keys": (("root", Role.ROOT), ("root", Role.ENROLLER))},
    "threshold of zero": {"thresholds": {"root": 0}},
    "threshold nobody can meet": {"thresholds": {"root": 2}},
    "no recipient": {"recipients": ()},
    "recipient not base64": {"recipients": (Recipient(name="x", public="-"),)},
    "chunk sizes": {"parameters": Parameters(lock_mode=LockMode.NONE, data_chunk=(4, 2, 8))},
    "no grid": {"parameters": Parameters(lock_mode=LockMode.NONE, lock_grid=0)},
}


@pytest.mark.parametrize("name", BAD_ROOTS)
def test_roots_that_make_no_sense_are_refused(name: str) -> None:
    """At seq 0 an error, later void."""
    changes = dict(BAD_ROOTS[name])
    keys = changes.pop("keys", None)
    body = root_body(keys=keys, **changes) if keys is not None else root_body(**changes)
    with pytest.raises(FormatError):
        Chain(body)
    chain = Chain()
    record = chain.add("root", replace_body(body, version=2), "root")
    assert (record.status, record.body) == (Status.VOID, None)


def test_root_key_on_another_curve_is_refused() -> None:
    """Keys are P-256, in canonical DER."""
    key = PublicKey(name="x", public=b64encode(bytes(91)), roles=(Role.ROOT,))
    with pytest.raises(FormatError, match="key"):
        Chain(replace_body(root_body(), keys=(key,)))


def test_a_ledger_without_statements_has_no_root() -> None:
    """Asking too early is an error, not an empty answer."""
    with pytest.raises(SignatureError, match="no statement"):
        _ = Ledger(None).root


# --- what links ---


def test_snapshot_links_and_counts(chain: Chain) -> None:
    """The plain case, with what the record keeps."""
    envelope = chain.sealed("snapshot", snapshot(), "alpha")
    record = chain.link(envelope)
    assert (record.seq, record.status, record.reason) == (2, Status.VALID, "")
    assert record.key_id == KEY["alpha"].public.id
    assert (record.version, record.modified, record.envelope) == ("v", NOW, envelope)
    assert record.time == NOW + timedelta(hours=2)
    assert chain.ledger.snapshots() == chain.ledger.snapshots("web") == [record]
    assert chain.ledger.datasets() == ["web"]
    assert chain.ledger.writer_for(record).name == "alpha"
    assert chain.ledger.findings == []


def test_check_changes_nothing(chain: Chain) -> None:
    """A writer asks before it uploads."""
    envelope = beat(chain)
    assert chain.ledger.check(envelope).digest == parse_envelope(envelope).digest
    assert len(chain.ledger.records) == 2


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"repository": "ef" * 16}, "another repository"),
        ({"seq": 3}, "another seq"),
        ({"seq": 1}, "another seq"),
        ({"prev": Head(seq=1, digest=Digest(bytes(32)))}, "does not follow"),
    ],
)
def test_statements_of_another_place_do_not_link(
    chain: Chain, changes: dict[str, Any], problem: str
) -> None:
    """Replays into another repository or position, and forks."""
    with pytest.raises(DigestMismatchError, match=problem):
        chain.link(beat(chain, **changes))
    assert len(chain.ledger.records) == 2


def test_version_id_of_the_predecessor_is_only_a_hint(chain: Chain) -> None:
    """A copied bucket has others."""
    head = chain.ledger.head
    assert head is not None
    moved = Head(seq=head.seq, digest=head.digest, version="elsewhere")
    assert chain.link(beat(chain, prev=moved)).status is Status.VALID


def test_reordered_and_repeated_statements_do_not_link(chain: Chain) -> None:
    """The chain has one order."""
    chain.add("snapshot", snapshot(), "alpha")
    chain.add("heartbeat", HeartbeatBody(note="x"), "alpha")
    again = Ledger(chain.ledger.records[0].digest)
    for seq in (0, 1):
        again.link(chain.envelopes[seq], version="v", modified=NOW)
    for wrong in (3, 1, 0):
        with pytest.raises(DigestMismatchError):
            again.link(chain.envelopes[wrong], version="v", modified=NOW)


@pytest.mark.parametrize("signer", ["stranger", "beta", "root2"])
def test_keys_that_nobody_listed_sign_nothing(chain: Chain, signer: str) -> None:
    """Junk by strangers owns no seq."""
    with pytest.raises(SignatureError, match="listed key"):
        chain.link(beat(chain, signer))


def test_key_id_of_a_listed_key_does_not_help_a_stranger(chain: Chain) -> None:
    """The hint is unauthenticated."""
    envelope = beat(chain)
    forged = resigned(envelope, (KEY["alpha"].public.id, sign(envelope, "stranger")))
    with pytest.raises(SignatureError):
        chain.link(forged)


@pytest.mark.parametrize("keyid", ["", "x", "0" * 64])
def test_wrong_key_id_does_not_matter(chain: Chain, keyid: str) -> None:
    """What signs it is what the statement names."""
    envelope = beat(chain)
    record = chain.link(resigned(envelope, (keyid, sign(envelope, "alpha"))))
    assert record.key_id == KEY["alpha"].public.id


def test_no_flipped_byte_is_accepted_as_another_statement(chain: Chain) -> None:
    """Every byte of an envelope: refused, or still the same statement."""
    envelope = chain.sealed("snapshot", snapshot(), "alpha")
    digest = parse_envelope(envelope).digest
    accepted = set()
    for position in range(len(envelope)):
        for mask in (0x01, 0x20, 0x80):
            flipped = bytearray(envelope)
            flipped[position] ^= mask
            try:
                candidate = chain.ledger.check(bytes(flipped))
            except IntegrityError:
                continue
            assert candidate.digest == digest
            accepted.add(position)
    hint = envelope.index(b'"keyid"')
    names_and_hint = range(hint, envelope.index(b'"sig"'))
    assert accepted <= set(names_and_hint)


def test_no_flipped_bit_of_payload_or_signature_is_accepted(chain: Chain) -> None:
    """Below the base64: each byte of what is signed and of the signature."""
    envelope = chain.sealed("snapshot", snapshot(), "alpha")
    fields = json.loads(envelope)
    payload = base64.b64decode(fields["payload"])
    signature = base64.b64decode(fields["signatures"][0]["sig"])
    for position in range(len(payload)):
        flipped = bytearray(payload)
        flipped[position] ^= 1
        with pytest.raises(VaultError):
            chain.ledger.check(dumps(fields | {"payload": b64encode(bytes(flipped))}))
    for position in range(len(signature)):
        flipped = bytearray(signature)
        flipped[position] ^= 1
        with pytest.raises(SignatureError):
            chain.ledger.check(resigned(envelope, (KEY["alpha"].public.id, bytes(flipped))))


def test_high_s_twin_of_a_signature_is_the_same_statement(chain: Chain) -> None:
    """ECDSA has two forms; digests are over the PAE, so both are one entry."""
    envelope = beat(chain)
    r, s = decode_dss_signature(sign(envelope, "alpha"))
    twin = resigned(envelope, ("", encode_dss_signature(r, ORDER - s)))
    assert twin != envelope
    assert chain.ledger.check(twin).digest == chain.ledger.check(envelope).digest
    assert chain.link(twin).status is Status.VALID


# --- who signs is signed ---


def test_a_statement_has_exactly_the_signatures_it_names(chain: Chain) -> None:
    """None more, none less, none twice, none in another place: else it is junk."""
    chain.ledger.require_role(KEY["enroller"].public.id, "writer", enrol("beta"))
    two = sorted(("enroller", "policy"), key=lambda name: KEY[name].public.id)
    envelope = chain.sealed("writer", enrol("beta"), *two)
    first, second = (("", sign(envelope, name)) for name in two)
    stranger = ("", sign(envelope, "stranger"))
    for wrong in (
        [first],
        [second],
        [second, first],
        [first, first],
        [first, second, second],
        [first, second, stranger],
        [stranger, first, second],
        [first, stranger],
    ):
        with pytest.raises(SignatureError, match="has not the signatures"):
            chain.link(resigned(envelope, *wrong))
    assert chain.link(resigned(envelope, first, second)).by == tuple(
        KEY[name].public.id for name in two
    )


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("other", ["live", "retired"])
def test_a_signature_that_is_added_revives_nothing(chain: Chain, other: str, order: int) -> None:
    """A distrusted host's statement stays void when another key signs it, before or after."""
    chain.add("writer", enrol("beta"), "enroller")
    seq = chain.add("snapshot", snapshot(), "beta").seq
    chain.add("writer", revoke("beta", distrust_from=seq), "enroller")
    if other == "retired":
        chain.add("writer", revoke("alpha"), "enroller")
    envelope = chain.envelopes[seq]
    pair = [("", sign(envelope, "beta")), ("", sign(envelope, "alpha"))]
    again = Ledger(chain.ledger.records[0].digest)
    for number, each in enumerate(chain.envelopes):
        if number == seq:
            with pytest.raises(SignatureError):
                again.link(resigned(each, *pair[::order]), version="v", modified=NOW)
        again.link(each, version="v", modified=NOW)
    assert again.records[seq].status is Status.VOID
    assert again.snapshots() == []


BY = {
    "absent": None,
    "no list": "alpha",
    "empty": [],
    "no key id": ["alpha"],
    "upper case": [KEY["alpha"].public.id.upper()],
    "twice": [KEY["alpha"].public.id] * 2,
    "two of a host": sorted(KEY[name].public.id for name in ("alpha", "beta")),
    "number": [7],
}


@pytest.mark.parametrize("name", BY)
def test_what_does_not_say_who_signs_it_is_junk(chain: Chain, name: str) -> None:
    """Malformed, or more than one signer of what one host says."""
    chain.add("writer", enrol("beta"), "enroller")
    edited = chain.edited("heartbeat", HeartbeatBody(note="x"), "alpha", by=BY[name])
    with pytest.raises(FormatError, match="by must"):
        chain.link(edited)


def test_two_hosts_do_not_sign_one_snapshot(chain: Chain) -> None:
    """Of any version: a later one is chained over by the same rule."""
    chain.add("writer", enrol("beta"), "enroller")
    names = sorted(("alpha", "beta"), key=lambda name: KEY[name].public.id)
    with pytest.raises(ConfigError, match="not be readable"):
        chain.sealed("snapshot", snapshot(), *names)
    by = [KEY[name].public.id for name in names]
    two = chain.edited(
        "policy",
        PolicyBody(action="apply", name="web", sha256=DIGEST),
        *names,
        by=by,
        predicateType="urn:vault:snapshot:v2",
    )
    with pytest.raises(FormatError, match="by must"):
        chain.link(two)


def test_seventeen_keys_are_too_many(chain: Chain) -> None:
    """Sixteen may sign."""
    ids = sorted(f"{number:064x}" for number in range(17))
    with pytest.raises(FormatError, match="by must"):
        chain.link(
            chain.edited(
                "policy", PolicyBody(action="apply", name="web", sha256=DIGEST), "policy", by=ids
            )
        )


def test_a_key_that_is_not_listed_signs_along_with_nobody(chain: Chain) -> None:
    """Only a root brings keys along; beside a listed key, a stranger makes junk of the rest."""
    for other in ("stranger", "beta", "root2"):
        both = chain.sealed(
            "policy", PolicyBody(action="apply", name="web", sha256=DIGEST), "policy", other
        )
        with pytest.raises(SignatureError):
            chain.link(both)


@pytest.mark.parametrize("version", [1, 2, 9])
def test_a_root_brings_keys_along_whatever_its_version(chain: Chain, version: int) -> None:
    """They sign it with one that is listed, and never without."""
    body = root_body(2, (("root", Role.ROOT), ("root2", Role.ROOT)))
    kind = f"urn:vault:root:v{version}"
    with pytest.raises(SignatureError, match="not signed by a listed key"):
        chain.link(chain.edited("root", body, "root2", predicateType=kind))
    both = chain.edited("root", body, "root", "root2", predicateType=kind)
    assert len(chain.ledger.check(both).signers) == 2
    fields = json.loads(parse_envelope(both).payload)
    fields["predicate"]["body"]["keys"] = [7, {}, {"public": 7}, {"public": "x"}]
    strange = seal_envelope(dumps(fields), [KEY["root"], KEY["root2"]], limit=65536)
    with pytest.raises(SignatureError):
        chain.ledger.check(strange)


@pytest.mark.parametrize("role", [Role.LOG, Role.APPROVER])
def test_keys_that_sign_no_statements_do_not_link(role: Role) -> None:
    """A log key lies on a machine that runs by itself: it could fill the ledger."""
    keys = (("root", Role.ROOT), ("restorer", role))
    chain = Chain(root_body(keys=keys))
    with pytest.raises(SignatureError, match="not signed by a listed key"):
        chain.add("heartbeat", HeartbeatBody(note="x"), "restorer")
    with pytest.raises(SignatureError, match="has not the signatures"):
        chain.add(
            "policy", PolicyBody(action="apply", name="web", sha256=DIGEST), "restorer", "root"
        )
    body = replace_body(
        root_body(2, keys),
        keys=(
            PublicKey(name="root", public=public("root"), roles=(Role.ROOT,)),
            PublicKey(name="r", public=public("restorer"), roles=(role, Role.RESTORER)),
        ),
    )
    chain.add("root", body, "root")
    assert chain.add("heartbeat", HeartbeatBody(note="x"), "restorer").status is Status.VOID


def test_the_control_signs_alone(chain: Chain) -> None:
    """The statements of these tests link when nothing is added to them."""
    chain.add("writer", enrol("beta"), "enroller", "policy")
    assert chain.add("snapshot", snapshot(), "beta").status is Status.VALID
    assert chain.ledger.findings == []


# --- roles and thresholds ---


EVENT = EventBody(
    verdict="passed",
    snapshot=1,
    started=from_rfc3339("2026-01-01T00:00:00Z"),
    finished=from_rfc3339("2026-01-01T00:00:00Z"),
    attestation=DIGEST,
)
VERIFICATION = VerificationBody(
    verdict="passed",
    snapshots=((1, 1),),
    started=from_rfc3339("2026-01-01T00:00:00Z"),
    finished=from_rfc3339("2026-01-01T00:00:00Z"),
    attestation=DIGEST,
    share=1_000_000,
    opened=True,
    read=1,
    through=1,
)
STATEMENTS: dict[str, tuple[Body, str]] = {
    "root": (root_body(2), "root"),
    "writer": (enrol("beta"), "enroller"),
    "snapshot": (snapshot(), "alpha"),
    "heartbeat": (HeartbeatBody(note="x"), "alpha"),
    "restore": (EVENT, "restorer"),
    "drill": (EVENT, "restorer"),
    "verification": (VERIFICATION, "restorer"),
    "policy": (PolicyBody(action="apply", name="web", sha256=DIGEST), "policy"),
    "hold": (HoldBody(action="add", snapshot=1, reason="case", author="x"), "policy"),
    "prune": (PruneBody(phase="plan", plan=DIGEST), "pruner"),
}
LISTED = ["root", "enroller", "policy", "pruner", "restorer", "alpha"]


@pytest.mark.parametrize("signer", LISTED)
@pytest.mark.parametrize("kind", STATEMENTS)
def test_each_type_counts_only_from_its_role(chain: Chain, kind: str, signer: str) -> None:
    """A key of role A that signs B: linked, void, a finding; asked before, refused."""
    body, role = STATEMENTS[kind]
    key_id = KEY[signer].public.id
    if signer == role:
        chain.ledger.require_role(key_id, kind, body)
    else:
        with pytest.raises(SignatureError, match="would be void"):
            chain.ledger.require_role(key_id, kind, body)
    record = chain.add(kind, body, signer)
    assert record.status is (Status.VALID if signer == role else Status.VOID)
    assert len(chain.ledger.findings) == (signer != role)
    assert all(f.severity is Severity.ERROR for f in chain.ledger.findings)
    assert chain.link(beat(chain)).seq == 3


PACKS = [f"{number:064x}" for number in range(40)]


def test_a_verification_that_says_all_it_may_fits_into_a_statement(chain: Chain) -> None:
    """The most ranges and ids, the longest numbers: still within 4,096 bytes of PAE."""
    last = 2**53 - 1
    body = replace_body(
        VERIFICATION,
        snapshots=tuple((last - 40 + 2 * n, last - 39 + 2 * n) for n in range(MAX_RANGES)),
        slice=(MAX_SLICES - 1, MAX_SLICES),
        nonce="0" * 32,
        read=last,
        through=last,
        **name_packs(PACKS[:24], PACKS[24:]),
    )
    assert len(body.bad) + len(body.cleared) == MAX_NAMED_PACKS
    record = chain.add("verification", body, "restorer", tool="vault 10.20.30")
    assert "does not precede" in record.reason  # nothing else is wrong with it


def test_packs_are_named_up_to_what_a_statement_holds() -> None:
    """The count is of all; what is wrong comes before what is right again."""
    named = name_packs(PACKS[:30], PACKS)
    assert (named["bad"], named["bad_count"]) == (tuple(PACKS[:24]), 30)
    assert named["cleared"] == tuple(PACKS[30:38])
    assert name_packs([], []) == {"bad": (), "bad_count": 0, "cleared": ()}


def test_the_latest_word_on_a_pack_counts(chain: Chain) -> None:
    """Named, read right, named again; of drills and verifications alike."""
    bad = replace_body(VERIFICATION, verdict="failed", **name_packs(PACKS[:2], ()))
    first = chain.add("verification", bad, "restorer").seq
    assert chain.ledger.bad_packs() == {PACKS[0]: first, PACKS[1]: first}
    chain.add("drill", replace_body(EVENT, **name_packs((), PACKS[:1])), "restorer")
    assert chain.ledger.bad_packs() == {PACKS[1]: first}
    again = chain.add("restore", replace_body(EVENT, **name_packs(PACKS[:1], ())), "restorer").seq
    assert chain.ledger.bad_packs() == {PACKS[0]: again, PACKS[1]: first}


def test_void_words_on_packs_do_not_count(chain: Chain) -> None:
    """Of a writer, of a policy key: neither that one is bad nor that it is right again."""
    for signer, role_is_right in (("alpha", False), ("policy", False), ("restorer", True)):
        body = replace_body(EVENT, **name_packs(PACKS[:1], ()))
        chain.add("restore", body, signer)
        assert bool(chain.ledger.bad_packs()) is role_is_right
    chain.add("restore", replace_body(EVENT, **name_packs((), PACKS[:1])), "alpha")
    assert list(chain.ledger.bad_packs()) == PACKS[:1]


def test_ranges_hold_no_snapshot_that_was_not_covered(chain: Chain) -> None:
    """Other statements may lie between; the newest ranges are told where there are too many."""
    seqs = []
    for _ in range(50):
        seqs.append(chain.add("snapshot", snapshot(), "alpha").seq)
        chain.link(beat(chain))
    ledger = chain.ledger
    assert snapshot_ranges(ledger.records, seqs) == ((seqs[0], seqs[-1]),)
    assert snapshot_ranges(ledger.records, []) == ()
    assert snapshot_ranges(ledger.records, [*seqs[:3], *seqs[7:9]]) == (
        (seqs[0], seqs[2]),
        (seqs[7], seqs[8]),
    )
    every_other = snapshot_ranges(ledger.records, seqs[::2])
    assert len(every_other) == MAX_RANGES
    assert every_other[-1] == (seqs[48], seqs[48])


def test_a_hold_stands_until_its_own_release(chain: Chain) -> None:
    """Two holds of one snapshot are two; neither is released twice, nor by what is no release."""
    chain.add("snapshot", snapshot(), "alpha")
    add = HoldBody(action="add", snapshot=2, reason="case 7", author="ann")
    first, second = (chain.add("hold", add, "policy") for _ in range(2))
    release = replace_body(add, action="release", hold=first.seq)
    assert chain.add("hold", release, "policy").status is Status.VALID
    assert (set(chain.ledger.holds()), chain.ledger.held()) == ({second.seq}, {2})
    for wrong in (
        release,
        replace_body(release, hold=2),
        replace_body(release, hold=second.seq, snapshot=1),
        replace_body(release, hold=second.seq + 100),
    ):
        assert chain.add("hold", wrong, "policy").status is Status.VOID
    assert chain.ledger.held() == {2}
    assert chain.add("hold", replace_body(release, hold=second.seq), "policy").status is (
        Status.VALID
    )
    assert chain.ledger.held() == set()


def test_a_distrusted_release_releases_nothing(chain: Chain) -> None:
    """The hold stands again, and its honest release counts, though the thief's came first."""
    chain.add("snapshot", snapshot(), "alpha")
    add = HoldBody(action="add", snapshot=2, reason="case 7", author="ann")
    hold = chain.add("hold", add, "policy").seq
    release = replace_body(add, action="release", hold=hold)
    stolen = chain.add("hold", release, "policy").seq
    with pytest.raises(SignatureError, match="no hold in force"):
        chain.ledger.require_role(KEY["policy"].public.id, "hold", release)
    distrusts = (DistrustedKey(public=public("policy"), start=stolen),)
    keys = (("root", Role.ROOT), ("policy", Role.POLICY), ("stranger", Role.POLICY))
    chain.add("root", root_body(2, keys, distrust=distrusts), "root")
    assert chain.ledger.held() == {2}
    assert chain.add("hold", release, "stranger").status is Status.VALID
    assert chain.ledger.held() == set()


def test_a_policy_is_in_force_until_it_is_withdrawn(chain: Chain) -> None:
    """By name; giving up a dataset is no policy."""
    apply = PolicyBody(action="apply", name="web", sha256=DIGEST)
    chain.add("policy", apply, "policy")
    newest = chain.add("policy", apply, "policy")
    chain.add("policy", PolicyBody(action="retire", name="web", weakens=True), "policy")
    assert chain.ledger.policies() == {"web": newest}
    other = chain.add("policy", replace_body(apply, name="db"), "policy")
    end = replace_body(apply, action="withdraw", weakens=True, previous=newest.seq)
    chain.add("policy", end, "policy")
    assert chain.ledger.policies() == {"db": other}


def test_void_statements_have_no_effect(chain: Chain) -> None:
    """Linked only."""
    before = chain.ledger.keys
    for kind, (body, role) in STATEMENTS.items():
        chain.add(kind, body, "policy" if role != "policy" else "pruner")
    ledger = chain.ledger
    assert ledger.keys == before
    assert (ledger.root.version, ledger.snapshots(), ledger.datasets()) == (1, [], [])
    assert (ledger.plans(), ledger.holds(), ledger.policies()) == ([], {}, {})
    assert len(ledger.findings) == len(STATEMENTS)


def test_unlisted_key_is_refused_before_it_signs(chain: Chain) -> None:
    """Its statement would not even link."""
    with pytest.raises(SignatureError, match="not link"):
        chain.ledger.require_role(KEY["stranger"].public.id, "heartbeat", HeartbeatBody(note="x"))


def test_impossible_body_is_refused_before_it_is_signed(chain: Chain) -> None:
    """The same checks as when it is read."""
    with pytest.raises(FormatError):
        chain.ledger.require_role(KEY["alpha"].public.id, "snapshot", snapshot(until="tomorrow"))


def two_enrollers() -> Chain:
    """Two of two enrollers must sign."""
    keys = (
        ("root", Role.ROOT),
        ("enroller", Role.ENROLLER),
        ("enroller2", Role.ENROLLER),
    )
    return Chain(root_body(keys=keys, thresholds={"enroller": 2}))


def test_one_key_never_counts_twice() -> None:
    """Not with two forms of its signature, and not by naming another."""
    chain = two_enrollers()
    envelope = chain.sealed("writer", enrol(), "enroller", "enroller2")
    signature = sign(envelope, "enroller")
    r, s = decode_dss_signature(signature)
    for second in (signature, encode_dss_signature(r, ORDER - s)):
        with pytest.raises(SignatureError, match="has not the signatures"):
            chain.link(resigned(envelope, ("", signature), ("", second)))
    record = chain.add("writer", enrol(), "enroller")
    assert record.status is Status.VOID
    assert "2 keys with the role enroller must sign, found 1" in record.reason


def test_threshold_is_met_by_two_keys() -> None:
    """Whatever key ids stand beside the signatures."""
    chain = two_enrollers()
    fields = json.loads(chain.sealed("writer", enrol(), "enroller", "enroller2"))
    for entry in fields["signatures"]:
        entry["keyid"] = KEY["stranger"].public.id
    assert chain.link(dumps(fields)).status is Status.VALID
    both = [KEY["enroller"].public.id, KEY["enroller2"].public.id]
    chain.ledger.require_role(both, "writer", enrol("beta"))
    with pytest.raises(SignatureError, match="2 keys"):
        chain.ledger.require_role(both[:1], "writer", enrol("beta"))


def test_signature_of_another_role_does_not_fill_a_threshold() -> None:
    """Only keys with the role are counted."""
    chain = two_enrollers()
    assert chain.add("writer", enrol(), "enroller", "root").status is Status.VOID


# --- root updates ---

NEW_KEYS = (("root2", Role.ROOT), ("enroller2", Role.ENROLLER))


def test_new_root_takes_over_with_both_thresholds(chain: Chain) -> None:
    """Old keys are unlisted from then on, writers stay."""
    body = root_body(2, NEW_KEYS)
    assert chain.add("root", body, "root", "root2").status is Status.VALID
    assert chain.ledger.root == body
    for gone in ("root", "enroller", "policy"):
        with pytest.raises(SignatureError):
            chain.link(beat(chain, gone))
    assert chain.add("snapshot", snapshot(), "alpha").status is Status.VALID
    assert chain.add("writer", enrol("beta"), "enroller2").status is Status.VALID


@pytest.mark.parametrize(
    ("signers", "problem"),
    [(["root"], "by the new root"), (["root2", "policy"], "role root"), (["policy"], "role root")],
)
def test_new_root_without_both_thresholds_is_void(
    chain: Chain, signers: list[str], problem: str
) -> None:
    """The failed root is not kept: the next one follows the old."""
    record = chain.add("root", root_body(2, NEW_KEYS), *signers)
    assert record.status is Status.VOID
    assert problem in record.reason
    assert chain.ledger.root.version == 1
    assert chain.add("root", root_body(2, NEW_KEYS), "root", "root2").status is Status.VALID


def test_new_root_signed_only_by_its_own_keys_does_not_link(chain: Chain) -> None:
    """Nobody enrols himself."""
    with pytest.raises(SignatureError, match="listed key"):
        chain.add("root", root_body(2, NEW_KEYS), "root2")


@pytest.mark.parametrize("version", [0, 1, 3, 100])
def test_root_versions_step_by_one(chain: Chain, version: int) -> None:
    """No root is skipped or repeated."""
    record = chain.add("root", root_body(version), "root")
    assert record.status is Status.VOID
    assert "root version must be 2" in record.reason


def test_old_threshold_of_two_binds_the_next_root() -> None:
    """A threshold is not lowered by one of its keys alone."""
    keys = (("root", Role.ROOT), ("root2", Role.ROOT))
    chain = Chain(root_body(keys=keys, thresholds={"root": 2}), ("root", "root2"))
    lower = root_body(2, keys, thresholds={"root": 1})
    assert chain.add("root", lower, "root").status is Status.VOID
    assert chain.add("root", lower, "root", "root2").status is Status.VALID


# --- writers ---


def test_revoked_writer_is_unlisted_from_then_on(chain: Chain) -> None:
    """What it signed before stays valid."""
    earlier = chain.add("snapshot", snapshot(), "alpha")
    chain.add("writer", revoke(), "enroller")
    with pytest.raises(SignatureError, match="listed key"):
        chain.link(beat(chain))
    assert chain.ledger.snapshots() == [earlier]
    assert chain.ledger.writers[KEY["alpha"].public.id].revoked == 3
    assert chain.ledger.domain_writers("default") == {KEY["alpha"].public.id}


def test_distrust_voids_what_was_linked_since(chain: Chain) -> None:
    """It stays linked, has no effect, and is reported."""
    first = chain.add("snapshot", snapshot(), "alpha")
    second = chain.add("snapshot", snapshot("db"), "alpha")
    chain.add("writer", enrol("beta"), "enroller")
    other = chain.add("snapshot", snapshot("mail"), "beta")
    chain.add("writer", revoke(distrust_from=second.seq), "enroller")
    ledger = chain.ledger
    assert ledger.snapshots() == [first, other]
    assert ledger.snapshots("db") == []
    assert ledger.datasets() == ["mail", "web"]
    assert ledger.records[second.seq].status is Status.VOID
    assert ledger.records[second.seq].digest == second.digest
    assert [f.subject for f in ledger.findings] == [f"ledger {second.seq}"]
    # seen to, so no error for ever; what is void from the start is one
    assert ledger.findings[0].severity is Severity.WARNING
    assert chain.link(beat(chain, "beta")).status is Status.VALID
    assert chain.add("snapshot", snapshot("../x"), "beta").status is Status.VOID
    assert [f.severity for f in ledger.findings] == [Severity.ERROR, Severity.WARNING]


def test_theft_found_after_the_revocation_can_still_be_told(chain: Chain) -> None:
    """A second revocation may distrust, or distrust more, but never less."""
    record = chain.add("snapshot", snapshot(), "alpha")
    chain.add("writer", revoke(), "enroller")
    assert chain.add("writer", revoke(), "enroller").status is Status.VOID
    assert chain.add("writer", revoke(distrust_from=2), "enroller").status is Status.VALID
    assert chain.ledger.records[record.seq].status is Status.VOID
    assert chain.add("writer", revoke(distrust_from=2), "enroller").status is Status.VOID
    assert chain.add("writer", revoke(distrust_from=0), "enroller").status is Status.VALID
    assert chain.ledger.domain_writers("default") == set()
    assert chain.ledger.writers[KEY["alpha"].public.id].revoked == 3


def test_distrust_from_the_future_voids_nothing(chain: Chain) -> None:
    """The key is unlisted anyway."""
    chain.add("snapshot", snapshot(), "alpha")
    assert chain.add("writer", revoke(distrust_from=10**9), "enroller").status is Status.VALID
    assert len(chain.ledger.snapshots()) == 1


@pytest.mark.parametrize("name", ["alpha", "policy"])
def test_listed_keys_are_not_enrolled_again(chain: Chain, name: str) -> None:
    """A host's key is a writer's and nothing else."""
    assert chain.add("writer", enrol(name), "enroller").status is Status.VOID


def test_revoked_key_does_not_come_back(chain: Chain) -> None:
    """Its former owner would come back with it."""
    chain.add("writer", revoke(), "enroller")
    assert chain.add("writer", enrol(), "enroller").status is Status.VOID
    with pytest.raises(SignatureError):
        chain.link(beat(chain))


def test_revocation_of_a_stranger_is_void(chain: Chain) -> None:
    """It says nothing."""
    assert chain.add("writer", revoke("stranger"), "enroller").status is Status.VOID


def limit(name: str, *datasets: str) -> WriterBody:
    """Gives a writer key other patterns."""
    return WriterBody(action="limit", name=name, public=public(name), datasets=datasets)


def test_a_limit_judges_what_comes_after_it(chain: Chain) -> None:
    """What was published stays; the key stays listed, also where it may write nothing."""
    before = chain.add("snapshot", snapshot("db"), "alpha")
    assert chain.add("writer", limit("alpha", "web"), "enroller").status is Status.VALID
    assert chain.add("snapshot", snapshot("db"), "alpha").status is Status.VOID
    after = chain.add("snapshot", snapshot("web"), "alpha")
    assert chain.ledger.snapshots() == [before, after]
    chain.add("writer", limit("alpha"), "enroller")
    assert chain.add("snapshot", snapshot("web"), "alpha").status is Status.VOID
    assert chain.link(beat(chain)).status is Status.VALID


def test_only_an_enroller_limits_and_only_a_live_key(chain: Chain) -> None:
    """A stolen writer's key can't shut others out, and no revoked key comes back."""
    chain.add("writer", enrol("beta"), "enroller")
    assert chain.add("writer", limit("alpha"), "beta").status is Status.VOID
    assert chain.add("writer", limit("stranger", "web"), "enroller").status is Status.VOID
    chain.add("writer", revoke("beta"), "enroller")
    assert chain.add("writer", limit("beta", "web"), "enroller").status is Status.VOID
    assert chain.add("snapshot", snapshot("db"), "alpha").status is Status.VALID


def rotated(**changes: Any) -> WriterBody:
    """Puts beta's key in the place of alpha's."""
    fields = {"public": public("beta"), "replaces": KEY["alpha"].public.id}
    return replace_body(enrol("alpha"), **(fields | changes))


def test_a_rotation_retires_the_key_that_it_replaces(chain: Chain) -> None:
    """In one statement: there is no moment with both keys or with none."""
    before = chain.add("snapshot", snapshot(), "alpha")
    record = chain.add("writer", rotated(), "enroller")
    assert record.status is Status.VALID
    with pytest.raises(SignatureError, match="listed key"):
        chain.link(beat(chain, "alpha"))
    after = chain.add("snapshot", snapshot(), "beta")
    ledger = chain.ledger
    assert ledger.snapshots() == [before, after]
    old, new = (ledger.writers[KEY[name].public.id] for name in ("alpha", "beta"))
    assert (old.revoked, old.distrust_from) == (record.seq, None)
    assert (new.name, new.added, new.replaces) == ("alpha", record.seq, old.key.id)
    assert ledger.domain_writers("default") == {old.key.id, new.key.id}


def test_a_key_that_was_replaced_can_still_be_distrusted(chain: Chain) -> None:
    """It may have been the theft that made people rotate it."""
    before = chain.add("snapshot", snapshot(), "alpha")
    chain.add("writer", rotated(), "enroller")
    assert chain.add("writer", revoke(), "enroller").status is Status.VOID
    assert chain.add("writer", revoke(distrust_from=2), "enroller").status is Status.VALID
    assert chain.ledger.records[before.seq].status is Status.VOID


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "other"},
        {"recipient": b64encode(b"x" * 1216)},
        {"domain": None},
        {"domain": replace_body(DOMAIN, name="other", object=f"domains/other/{DIGEST}")},
        {"replaces": KEY["stranger"].public.id},
        {"replaces": KEY["policy"].public.id},
        {"replaces": KEY["beta"].public.id},
        {"replaces": "alpha"},
    ],
    ids=[
        *("name", "recipient", "no domain", "domain"),
        *("replaces a stranger", "replaces a role's key", "replaces itself", "replaces a name"),
    ],
)
def test_a_rotation_to_anything_else_is_void(chain: Chain, changes: dict[str, Any]) -> None:
    """Of name, recipient, domain, or of a key that is no writer's; the old key stays listed."""
    assert chain.add("writer", rotated(**changes), "enroller").status is Status.VOID
    assert chain.link(beat(chain, "alpha")).status is Status.VALID
    assert chain.add("writer", rotated(), "enroller").status is Status.VALID  # the control


@pytest.mark.parametrize(
    ("dataset", "counts"), [("db-1", True), ("db", False), ("web", False), ("logs", True)]
)
def test_snapshot_outside_its_writers_patterns_is_void(
    chain: Chain, *, dataset: str, counts: bool
) -> None:
    """A host publishes its own datasets only."""
    chain.add("writer", enrol("beta", "db-*", "logs"), "enroller")
    record = chain.add("snapshot", snapshot(dataset), "beta")
    assert record.status is (Status.VALID if counts else Status.VOID)
    assert chain.ledger.datasets() == ([dataset] if counts else [])


def test_snapshot_of_a_writer_without_domain_object_is_void(chain: Chain) -> None:
    """Nobody could open it."""
    chain.add("writer", enrol("beta", domain=None), "enroller")
    record = chain.add("snapshot", snapshot(), "beta")
    assert "no domain object" in record.reason
    assert chain.add("heartbeat", HeartbeatBody(note="x"), "beta").status is Status.VALID


def test_statement_of_no_writer_has_no_writer(chain: Chain) -> None:
    """The question is an error."""
    record = chain.add("policy", PolicyBody(action="apply", name="web", sha256=DIGEST), "policy")
    with pytest.raises(SignatureError, match="writer"):
        chain.ledger.writer_for(record)


# --- bodies ---


BAD_BODIES: dict[str, tuple[str, Body, str]] = {
    "dataset": ("snapshot", snapshot("../x"), "alpha"),
    "created": ("snapshot", snapshot(created="yesterday"), "alpha"),
    "until": ("snapshot", snapshot(until="2026-02-01T00:00:00+00:00"), "alpha"),
    "tree id": ("snapshot", snapshot(tree=TreeRef(id="x", level=0, commitment=DIGEST)), "alpha"),
    "level": ("snapshot", snapshot(tree=TreeRef(id=DIGEST, level=9, commitment=DIGEST)), "alpha"),
    "commitment": ("snapshot", snapshot(tree=TreeRef(id=DIGEST, level=0, commitment="")), "alpha"),
    **{
        f"inventory {name}": (
            "snapshot",
            snapshot(
                inventory=replace_body(
                    InventoryRef(sha256=DIGEST, size=1, version="1", objects=1, bytes=1),
                    **{name: value},
                )
            ),
            "alpha",
        )
        for name, value in (
            ("sha256", str(DIGEST)[:-1] + "G"),
            ("size", -1),
            ("objects", -1),
            ("bytes", -1),
        )
    },
    "version id": (
        "snapshot",
        snapshot(inventory=InventoryRef(sha256=DIGEST, size=1, version="", objects=1, bytes=1)),
        "alpha",
    ),
    "counts": ("snapshot", snapshot(counts=Counts(files=-1)), "alpha"),
    "predecessor": ("writer", replace_body(enrol("beta"), replaces="ab"), "enroller"),
    "host": ("writer", replace_body(enrol("beta"), name="UPPER"), "enroller"),
    "host key": ("writer", replace_body(enrol("beta"), public="AAAA"), "enroller"),
    "domain object": (
        "writer",
        enrol("beta", domain=replace_body(DOMAIN, object="packs/x")),
        "enroller",
    ),
    "distrust": ("writer", revoke(distrust_from=-1), "enroller"),
    "verdict": ("restore", replace_body(EVENT, verdict="fine"), "restorer"),
    "attestation": ("drill", replace_body(EVENT, attestation="x"), "restorer"),
    "started": ("verification", replace_body(EVENT, started="x"), "restorer"),
    "policy": ("policy", PolicyBody(action="apply", name="web", sha256="x"), "policy"),
    "hold": ("hold", HoldBody(action="keep", snapshot=1, reason="", author=""), "policy"),
    "held": ("hold", HoldBody(action="add", snapshot=-1, reason="", author=""), "policy"),
    "phase": ("prune", PruneBody(phase="maybe", plan=DIGEST), "pruner"),
    "plan": ("prune", PruneBody(phase="plan", plan="x"), "pruner"),
}


@pytest.mark.parametrize("name", BAD_BODIES)
def test_bodies_that_say_the_impossible_are_void(chain: Chain, name: str) -> None:
    """Linked, reported, without effect."""
    kind, body, signer = BAD_BODIES[name]
    record = chain.add(kind, body, signer)
    assert (record.status, record.body) == (Status.VOID, None)
    assert [f.subject for f in chain.ledger.findings] == ["ledger 2"]


@pytest.mark.parametrize("predicate", [{"body": {}}, {"body": []}, {"time": "x"}, {"tool": None}])
def test_malformed_statements_are_void(chain: Chain, predicate: dict[str, Any]) -> None:
    """What is wrong outside the frozen grammar takes no seq away."""
    record = chain.link(chain.edited("snapshot", snapshot(), "alpha", **predicate))
    assert record.status is Status.VOID
    assert chain.link(beat(chain)).status is Status.VALID


# --- newer writers ---


def test_unknown_type_is_chained_over(chain: Chain) -> None:
    """An old client goes on behind it."""
    envelope = chain.edited(
        "heartbeat", HeartbeatBody(note="x"), "alpha", predicateType="urn:vault:witness:v1", body=[]
    )
    record = chain.link(envelope)
    assert (record.status, record.type) == (Status.UNKNOWN, "witness")
    assert [f.severity for f in chain.ledger.findings] == [Severity.WARNING]
    assert chain.add("snapshot", snapshot(), "alpha").status is Status.VALID
    chain.ledger.may_read()
    chain.ledger.may_write("snapshot")


def test_unknown_version_of_a_known_type_is_not_understood(chain: Chain) -> None:
    """Its body may mean something else."""
    record = chain.link(
        chain.edited("snapshot", snapshot(), "alpha", predicateType="urn:vault:snapshot:v2")
    )
    assert record.status is Status.UNKNOWN
    assert chain.ledger.snapshots() == []


SHARD = {"predicateType": "urn:vault:shard:v1", "critical": True}


def test_a_critical_statement_of_the_root_forbids_writing(chain: Chain) -> None:
    """Readers and governing keys go on, because a governing key must be able to end it."""
    chain.link(chain.edited("heartbeat", HeartbeatBody(note="x"), "root", **SHARD))
    chain.ledger.may_read()
    for kind in ("snapshot", "heartbeat", "restore", "prune"):
        with pytest.raises(ConfigError, match="critical"):
            chain.ledger.may_write(kind)
    chain.ledger.may_write("root")
    chain.ledger.may_write("writer")


@pytest.mark.parametrize("signer", ["alpha", "enroller", "policy", "pruner", "restorer"])
def test_critical_counts_from_nobody_else(chain: Chain, signer: str) -> None:
    """The mark of one stolen key stops no host, and the ledger reports it."""
    chain.link(chain.edited("heartbeat", HeartbeatBody(note="x"), signer, **SHARD))
    chain.ledger.may_write("snapshot")
    (finding,) = chain.ledger.findings
    assert "critical" in finding.problem


def test_critical_counts_from_the_whole_threshold() -> None:
    """One root key of two is no more than any other."""
    keys = (("root", Role.ROOT), ("root2", Role.ROOT))
    for signers, forbids in ((("root",), False), (("root", "root2"), True)):
        chain = Chain(root_body(keys=keys, thresholds={"root": 2}), ("root", "root2"))
        chain.link(
            chain.edited(
                "policy", PolicyBody(action="apply", name="web", sha256=DIGEST), *signers, **SHARD
            )
        )
        with pytest.raises(ConfigError) if forbids else contextlib.nullcontext():
            chain.ledger.may_write("snapshot")


def test_critical_statement_that_is_understood_forbids_nothing(chain: Chain) -> None:
    """The mark is for those who don't."""
    chain.add("heartbeat", HeartbeatBody(note="x"), "alpha", critical=True)
    chain.add(
        "policy", PolicyBody(action="apply", name="web", sha256=DIGEST), "root", critical=True
    )
    chain.ledger.may_write("snapshot")


def test_a_root_that_is_not_understood_ends_reading(chain: Chain) -> None:
    """Its keys would be unlisted here, and this program would append over their statements."""
    later = chain.edited("root", root_body(2), "root", predicateType="urn:vault:root:v2")
    with pytest.raises(ConfigError, match="not understood"):
        chain.link(later)
    assert chain.ledger.head is not None
    assert chain.ledger.head.seq == 1


def test_a_first_root_that_is_not_understood_ends_reading(chain: Chain) -> None:
    """Statement 0 of a later version is the right repository, and not for this program."""
    fields = json.loads(parse_envelope(chain.envelopes[0]).payload)
    fields["predicateType"] = "urn:vault:root:v2"
    envelope = seal_envelope(dumps(fields), [KEY["root"]], limit=65536)
    ledger = Ledger(parse_envelope(envelope).digest)
    with pytest.raises(ConfigError, match="too old to read"):
        ledger.link(envelope, version="v", modified=NOW)
    with pytest.raises(DigestMismatchError):
        Ledger(Digest(bytes(32))).link(envelope, version="v", modified=NOW)


LATER_WRITERS: dict[str, dict[str, Any]] = {
    "version": {"predicateType": "urn:vault:writer:v2"},
    "action": {"body": {**body_to_json(enrol("beta")), "action": "lend"}},
}


@pytest.mark.parametrize("name", LATER_WRITERS)
def test_a_writer_statement_that_is_not_understood_ends_reading(chain: Chain, name: str) -> None:
    """Until a root that is understood follows it: one enroller's key ends nothing for ever."""
    record = chain.link(chain.edited("writer", enrol("beta"), "enroller", **LATER_WRITERS[name]))
    assert record.status is Status.UNKNOWN
    with pytest.raises(ConfigError, match="not understood"):
        chain.ledger.may_read()
    for kind in ("writer", "snapshot"):
        with pytest.raises(ConfigError, match="not understood"):
            chain.ledger.may_write(kind)
    chain.ledger.may_write("root")
    chain.add("root", root_body(2), "root")
    chain.ledger.may_read()
    chain.ledger.may_write("snapshot")


@pytest.mark.parametrize("signer", ["alpha", "policy", "pruner", "restorer"])
@pytest.mark.parametrize("kind", ["urn:vault:root:v2", "urn:vault:writer:v2", "urn:vault:omen:v1"])
def test_nobody_else_ends_reading(chain: Chain, signer: str, kind: str) -> None:
    """A statement about keys, of a key that may not make any."""
    record = chain.link(
        chain.edited(
            "policy",
            PolicyBody(action="apply", name="web", sha256=DIGEST),
            signer,
            predicateType=kind,
        )
    )
    assert record.status is Status.UNKNOWN
    chain.ledger.may_read()
    chain.ledger.may_write("snapshot")


def test_an_act_that_names_a_warrant_is_void(chain: Chain) -> None:
    """What several people have to agree to is not judged by this program, so it does not count."""
    body = PolicyBody(action="apply", name="web", sha256=DIGEST)
    for warrant, status in (({"seq": 1}, Status.VOID), ([], Status.VOID), (None, Status.VALID)):
        record = chain.link(chain.edited("policy", body, "policy", warrant=warrant))
        assert record.status is status


def test_unknown_members_are_ignored_everywhere(chain: Chain) -> None:
    """Newer writers may add some."""
    fields = json.loads(parse_envelope(chain.sealed("snapshot", snapshot(), "alpha")).payload)
    fields["new"] = {"a": 1}
    fields["predicate"]["new"] = [1]
    fields["predicate"]["prev"]["new"] = "x"
    fields["predicate"]["body"]["new"] = None
    fields["predicate"]["body"]["tree"]["new"] = "x"
    record = chain.link(seal_envelope(dumps(fields), [KEY["alpha"]]))
    assert record.status is Status.VALID


@pytest.mark.parametrize(("reader", "writer"), [(1, 2), (2, 2)])
def test_newer_repositories_say_who_may_read_and_write(reader: int, writer: int) -> None:
    """An old client may be kept from writing only, or from both."""
    ledger = Chain(root_body(min_reader=reader, min_writer=writer)).ledger
    with pytest.raises(ConfigError, match="too old to write"):
        ledger.may_write("root")
    if reader == 1:
        ledger.may_read()
    else:
        with pytest.raises(ConfigError, match="too old to read"):
            ledger.may_read()


# --- questions ---


def test_holds_last_until_they_are_released(chain: Chain) -> None:
    """The last word on a snapshot counts."""
    chain.add("snapshot", snapshot(), "alpha")
    add = HoldBody(action="add", snapshot=2, reason="case 7", author="ann")
    held = chain.add("hold", add, "policy")
    assert chain.ledger.holds() == {held.seq: add}
    assert chain.ledger.held() == {2}
    chain.add("hold", replace_body(add, action="release", hold=held.seq), "policy")
    assert chain.ledger.holds() == {}


def test_newest_policy_is_in_force(chain: Chain) -> None:
    """And prunes are listed."""
    chain.add("policy", PolicyBody(action="apply", name="web", sha256="00" * 32), "policy")
    newest = chain.add("policy", PolicyBody(action="apply", name="web", sha256=DIGEST), "policy")
    prune = chain.add("prune", PruneBody(phase="plan", plan=DIGEST), "pruner")
    assert chain.ledger.policies() == {"web": newest}
    assert chain.ledger.plans() == [prune]


def test_signed_statement_out_of_place_is_recognised(chain: Chain) -> None:
    """It proves a gap; junk and copies of other statements do not."""
    ledger = chain.ledger
    beyond = beat(chain, seq=9)
    assert ledger.signed_for(beyond, 9)
    assert not ledger.signed_for(beyond, 8)
    assert not ledger.signed_for(beat(chain, "stranger", seq=9), 9)
    assert not ledger.signed_for(beat(chain, seq=9, repository="ef" * 16), 9)
    assert not ledger.signed_for(b"junk", 9)
    assert (ledger.digest_at(1), ledger.digest_at(2)) == (ledger.records[1].digest, None)


def test_failed_link_leaves_no_trace(chain: Chain) -> None:
    """No state changes before everything is checked."""
    before = (list(chain.ledger.records), dict(chain.ledger.keys), chain.ledger.head)
    for envelope in (b"junk", beat(chain, "stranger"), beat(chain, seq=5)):
        with pytest.raises(IntegrityError):
            chain.link(envelope)
    assert (list(chain.ledger.records), dict(chain.ledger.keys), chain.ledger.head) == before
    assert chain.ledger.findings == []


def test_statement_beyond_the_limit_of_its_type_does_not_link(chain: Chain) -> None:
    """A root may be larger; a heartbeat of that size owns no seq."""
    large = chain.edited("heartbeat", HeartbeatBody(note="x"), "alpha", body={"note": "x" * 5000})
    with pytest.raises(FormatError, match="too large"):
        chain.link(large)
    with pytest.raises(FormatError, match="too large"):
        chain.link(resigned(beat(chain), ("x" * 20_000, sign(beat(chain), "alpha"))))


def test_a_host_does_not_sign_with_another_key(chain: Chain) -> None:
    """Asked before: neither with a role's key nor with two of hosts."""
    both = [KEY["policy"].public.id, KEY["alpha"].public.id]
    with pytest.raises(SignatureError, match="would be void: a host signs alone"):
        chain.ledger.require_role(both, "heartbeat", HeartbeatBody(note="x"))


def test_a_root_with_a_role_of_the_future_is_understood_as_far_as_known() -> None:
    """Else an old client would never see that root's min_reader."""
    listed = PublicKey(name="x", public="", roles=("auditor-of-2030",))
    fields = body_to_json(listed)
    assert body_from_json(fields, PublicKey) == listed


# --- distrust by a root ---


def distrusting(version: int, *names: str, start: int = 0) -> RootBody:
    """A root that distrusts these keys."""
    entries = tuple(DistrustedKey(public=public(name), start=start) for name in names)
    return root_body(version, distrust=entries)


ROLES_OF = {
    "restore": "restorer",
    "drill": "restorer",
    "verification": "restorer",
    "policy": "policy",
    "hold": "policy",
    "prune": "pruner",
}


@pytest.mark.parametrize("kind", ROLES_OF)
def test_a_root_voids_what_a_key_said_of_its_role(chain: Chain, kind: str) -> None:
    """From a number on, for as long as that root is in force; before and after alike."""
    body, signer = STATEMENTS[kind]
    early = chain.add(kind, body, signer).seq
    late = chain.add(kind, body, signer).seq
    root = chain.add("root", distrusting(2, signer, start=late), "root").seq
    after = chain.add(kind, body, signer).seq
    records = chain.ledger.records
    assert [records[seq].status for seq in (early, late, after)] == [
        Status.VALID,
        Status.VOID,
        Status.VOID,
    ]
    assert records[late].distrusted_by == records[after].distrusted_by == root
    chain.add("root", root_body(3), "root")
    assert {records[seq].status for seq in (early, late, after)} == {Status.VALID}


def test_a_root_voids_nothing_that_says_who_may_sign(chain: Chain) -> None:
    """Root and writer statements stay, and so do snapshots: who was listed when never changes."""
    before = chain.add("snapshot", snapshot(), "alpha")
    chain.add("writer", enrol("beta"), "enroller")
    chain.add("root", distrusting(2, "enroller", "root", "alpha"), "root")
    assert {each.status for each in chain.ledger.records} == {Status.VALID}
    assert chain.ledger.snapshots() == [before]
    assert chain.add("snapshot", snapshot(), "beta").status is Status.VALID


def test_a_distrusted_plan_stays_doomed(chain: Chain) -> None:
    """It permits nothing, and writers still do not build on it."""
    plan = chain.add("prune", PruneBody(phase="plan", plan=DIGEST), "pruner").seq
    chain.add("root", distrusting(2, "pruner"), "root")
    (doomed,) = chain.ledger.plans()
    assert (doomed.seq, doomed.status) == (plan, Status.VOID)


def test_a_stolen_enroller_voids_no_backup_for_ever(chain: Chain) -> None:
    """It distrusts every host; a root that distrusts it from there on lifts that, and no more."""
    kept = [chain.add("snapshot", snapshot(), "alpha").seq for _ in range(2)]
    revoked = chain.add("writer", revoke(distrust_from=2), "enroller").seq
    ledger = chain.ledger
    assert ledger.snapshots() == []
    chain.add("root", distrusting(2, "enroller", start=revoked), "root")
    assert [each.seq for each in ledger.snapshots()] == kept
    writer = ledger.writers[KEY["alpha"].public.id]
    assert (writer.revoked, writer.distrust_from) == (revoked, None)
    with pytest.raises(SignatureError):
        chain.link(beat(chain))
    assert chain.add("writer", revoke(distrust_from=kept[1]), "enroller").status is Status.VALID
    assert [each.seq for each in ledger.snapshots()] == kept, "that one is distrusted as well"
    chain.add("root", root_body(3), "root")
    assert ledger.snapshots() == []


def test_what_was_distrusted_before_the_theft_stays_so(chain: Chain) -> None:
    """The entry says from where on the enroller's word is not believed."""
    chain.add("snapshot", snapshot(), "alpha")
    seq = chain.add("writer", revoke(distrust_from=2), "enroller").seq
    chain.add("root", distrusting(2, "enroller", start=seq + 1), "root")
    assert chain.ledger.snapshots() == []


@pytest.mark.parametrize("twice", [True, False])
def test_a_root_distrusts_a_key_once(chain: Chain, *, twice: bool) -> None:
    """And from no number below 0."""
    names = ("policy", "policy") if twice else ("policy",)
    body = distrusting(2, *names, start=0 if twice else -1)
    assert chain.add("root", body, "root").status is Status.VOID


# --- times ---


YEAR_2099 = "2099-01-01T00:00:00Z"


def test_a_statement_is_no_younger_than_any_that_follows_it(chain: Chain) -> None:
    """Whatever times a store lists, against the plain reading of the rule."""
    random = Random(7)
    times = [NOW, NOW]
    for number in range(200):
        at = NOW + timedelta(minutes=number + random.randint(-90, 90))
        times.append(at)
        chain.store("heartbeat", HeartbeatBody(note="x"), "alpha", at)
        for record in chain.ledger.records:
            assert chain.ledger.stored(record) == min(times[record.seq :])


def test_a_time_at_which_an_upload_began_dates_nothing(chain: Chain) -> None:
    """Who begins an upload in parts today and ends it in a year would date it back by a year."""
    first = chain.store("snapshot", snapshot(), "alpha", NOW)
    early = NOW - timedelta(days=300)
    begun = chain.store("heartbeat", HeartbeatBody(note="x"), "alpha", early, is_dated=False)
    assert chain.ledger.stored(first) == NOW
    assert chain.ledger.stored(begun) == early, "nothing better is known of it"
    later = NOW + timedelta(hours=1)
    chain.store("heartbeat", HeartbeatBody(note="x"), "alpha", later)
    assert chain.ledger.stored(begun) == later


@pytest.mark.parametrize(
    ("minutes", "counts"), [(-600, True), (0, True), (5, True), (5.1, False), (10_000_000, False)]
)
def test_a_claim_later_than_the_store_counts_as_the_stores(
    chain: Chain, minutes: float, *, counts: bool
) -> None:
    """Five minutes are what clocks may differ; of snapshots and of events."""
    at = NOW.replace(microsecond=0)
    claimed = at + timedelta(minutes=minutes)
    text = to_rfc3339(claimed)
    taken = chain.store("snapshot", snapshot(created=text), "alpha", at)
    proven = chain.store("drill", replace_body(EVENT, finished=text), "restorer", at)
    for record in (taken, proven):
        assert chain.ledger.when(record) == (claimed if counts else at)


def test_a_snapshot_is_owed_no_longer_than_its_root_allowed(chain: Chain) -> None:
    """The root in force at its own place: no later one changes what was promised."""
    ledger, allowed = chain.ledger, timedelta(days=400)
    margin = timedelta(hours=24, minutes=5)
    honest = chain.store("snapshot", snapshot(), "alpha", NOW)
    forged = chain.store("snapshot", snapshot(until=YEAR_2099), "alpha", NOW)
    assert ledger.effective_until(honest) == datetime(2026, 2, 1, tzinfo=UTC)
    assert ledger.effective_until(forged) == NOW + allowed + margin
    less = replace_body(ledger.root.parameters, max_retention=3600, min_retention=1)
    chain.add("root", replace_body(root_body(2), parameters=less), "root")
    after = chain.store("snapshot", snapshot(until=YEAR_2099), "alpha", NOW)
    assert ledger.root.version == 2
    assert ledger.effective_until(forged) == NOW + allowed + margin
    assert ledger.effective_until(after) == NOW + timedelta(hours=1) + margin


def test_impossible_times_of_a_store_are_no_reason_to_stop() -> None:
    """The last moment there is, and a root that allows for ever."""
    ever = Parameters(lock_mode=LockMode.NONE, max_retention=2**53 - 1)
    chain = Chain(replace_body(root_body(), parameters=ever))
    last = datetime.max.replace(tzinfo=UTC)
    chain.add("writer", enrol(), "enroller")
    record = chain.store("snapshot", snapshot(until=YEAR_2099), "alpha", last)
    ledger = chain.ledger
    assert to_rfc3339(ledger.effective_until(record)) == YEAR_2099
    assert to_rfc3339(ledger.when(record)) == "2026-01-01T00:00:00Z"


def test_claims_that_do_not_count_are_told(chain: Chain) -> None:
    """Both, with what counts instead; control: an honest snapshot gives no finding."""
    chain.store("snapshot", snapshot(), "alpha", NOW)
    assert chain.ledger.overclaims() == []
    chain.store("snapshot", snapshot(created=YEAR_2099, until=YEAR_2099), "alpha", NOW)
    taken, kept = chain.ledger.overclaims()
    assert (taken.subject, kept.subject) == ("ledger 3", "ledger 3")
    assert (taken.found, kept.found) == (YEAR_2099, YEAR_2099)
    assert to_rfc3339(NOW) in taken.problem
