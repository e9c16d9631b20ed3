"""Statement bodies: which role may say what, and in what shape (docs/format.md 2.3). No I/O."""

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

import msgspec

from vault.crypto.keys import VerifyKey
from vault.encoding import b64decode_strict
from vault.errors import FormatError
from vault.model import (
    FORMAT_VERSION,
    Body,
    ChunkId,
    Digest,
    EntryType,
    Id,
    LockMode,
    PackId,
    Parameters,
    body_from_json,
    from_rfc3339,
    validate_label,
    validate_pattern,
)
from vault.storage.names import domain_object_name

_MAX_TREE_LEVEL = 8
_MAX_RECIPIENTS = 16
MAX_BAD_PACKS: Final = 24  # pack ids in `bad`, and in `cleared`
MAX_NAMED_PACKS: Final = 32  # in both: with all else, a PAE holds no more
MAX_RANGES: Final = 16  # of snapshots that a verification covers
MAX_SLICES: Final = 65_536
WHOLE_SHARE: Final = 1_000_000  # parts per million
_NONCE = re.compile(r"([0-9a-f]{32})?")
_VERSION_ID = re.compile(r"[!-~]{1,1024}")


class Role(StrEnum):
    """What a key may sign (docs/format.md 2.3)."""

    ROOT = "root"
    ENROLLER = "enroller"
    POLICY = "policy"
    PRUNER = "pruner"
    RESTORER = "restorer"
    WRITER = "writer"


class StatementType(StrEnum):
    """What a statement is about; a newer program may write others."""

    ROOT = "root"
    WRITER = "writer"
    SNAPSHOT = "snapshot"
    HEARTBEAT = "heartbeat"
    RESTORE = "restore"
    DRILL = "drill"
    VERIFICATION = "verification"
    POLICY = "policy"
    HOLD = "hold"
    PRUNE = "prune"


EVENTS: Final = (StatementType.RESTORE, StatementType.DRILL)
ATTESTED: Final = (*EVENTS, StatementType.VERIFICATION)  # cite what a restorer signed


class Verdict(StrEnum):
    """How a restore, a drill or a verification ended."""

    PASSED = "passed"
    FAILED = "failed"
    PARTIAL = "partial"  # right as far as it went
    INCONCLUSIVE = "inconclusive"  # says nothing of the snapshot


# --- bodies: JSON shapes ---


class PublicKey(Body, frozen=True, kw_only=True):
    """A signature key the root lists."""

    name: str
    public: str  # base64 of the DER SubjectPublicKeyInfo
    roles: tuple[str, ...]  # of `Role`; a newer root may know more


class Recipient(Body, frozen=True, kw_only=True):
    """A public key that packs and domain objects are sealed to."""

    name: str
    public: str  # base64 of the raw HPKE public key


class RootBody(Body, frozen=True, kw_only=True):
    """Who may do what; statement 0 is pinned by digest."""

    version: int = 1  # root N+1 follows root N exactly
    parameters: Parameters
    keys: tuple[PublicKey, ...]
    thresholds: dict[str, int]  # role -> unique keys needed; 1 where absent
    recipients: tuple[Recipient, ...]
    min_reader: int = FORMAT_VERSION
    min_writer: int = FORMAT_VERSION


class DomainRef(Body, frozen=True, kw_only=True):
    """Where a writer finds its domain's secrets."""

    name: str
    object: str  # domains/<domain>/<sha256>
    sha256: str
    size: int
    version: str


class WriterBody(Body, frozen=True, kw_only=True):
    """Adds or revokes a writer key."""

    action: str  # "add" or "revoke"
    name: str  # of the host
    public: str  # base64 of the DER SubjectPublicKeyInfo
    recipient: str = ""  # base64 of the host's raw HPKE public key
    datasets: tuple[str, ...] = ()  # fnmatch patterns
    domain: DomainRef | None = None
    distrust_from: int | None = None  # seq; with "revoke"
    reason: str = ""


class TreeRef(Body, frozen=True, kw_only=True):
    """The root of a snapshot's tree and the proof of what it must restore to."""

    id: str  # chunk id, hex
    level: int  # 0: the chunk is the tree stream itself
    commitment: str  # HMAC-SHA-256(key in the tree, content root), hex


class InventoryRef(Body, frozen=True, kw_only=True):
    """The inventory object of a snapshot."""

    sha256: str
    size: int
    version: str
    objects: int
    bytes: int


class Counts(Body, frozen=True, kw_only=True):
    """What one run saw; public, so sums only."""

    files: int = 0
    directories: int = 0
    symlinks: int = 0
    others: int = 0
    size: int = 0  # bytes of file content
    added_size: int = 0  # bytes of content not stored before
    added_bytes: int = 0  # bytes stored by this run
    unreadable: int = 0
    changed: int = 0  # while being read
    vanished: int = 0
    sockets: int = 0


COUNTED: Mapping[EntryType, str] = {  # the field of `Counts` that an entry adds to
    EntryType.DIRECTORY: "directories",
    EntryType.FILE: "files",
    EntryType.HARD_LINK: "files",
    EntryType.SYMLINK: "symlinks",
    EntryType.FIFO: "others",
    EntryType.CHARACTER_DEVICE: "others",
    EntryType.BLOCK_DEVICE: "others",
}


class SnapshotBody(Body, frozen=True, kw_only=True):
    """The manifest: publishes the state of one dataset at one time."""

    dataset: str
    created: datetime  # start of the run
    complete: bool
    counts: Counts
    tree: TreeRef
    inventory: InventoryRef
    mode: LockMode
    until: datetime
    policy: str = ""  # digest of the policy file in force
    previous: int | None = None  # seq of the dataset's snapshot before


class HeartbeatBody(Body, frozen=True, kw_only=True):
    """A writer is alive, or accepted another head."""

    note: str
    accepted: str = ""  # SEQ:DIGEST after --accept-head


class EventBody(Body, frozen=True, kw_only=True):
    """A restore or drill."""

    verdict: str  # of `Verdict`
    snapshot: int | None = None  # seq
    started: datetime
    finished: datetime
    attestation: str  # digest of evidence/<sha256>
    bad: tuple[str, ...] = ()  # ids of packs found wrong, sorted; the first of them
    bad_count: int = 0  # of all
    cleared: tuple[str, ...] = ()  # ids of packs once named bad, now read right; sorted


class VerificationBody(Body, frozen=True, kw_only=True):
    """What was read of some snapshots, and what was wrong."""

    verdict: str  # of `Verdict`
    snapshots: tuple[tuple[int, int], ...]  # covered: first and last seq of each range, ascending
    started: datetime
    finished: datetime
    attestation: str  # digest of evidence/<sha256>
    share: int  # of the objects, in parts per million; 1,000,000: all
    slice: tuple[int, int] | None = None  # [K, N]: the K-th of N slices, from 0
    nonce: str = ""  # 32 hex digits: what a sample was chosen with
    opened: bool  # packs were opened with the recovery key
    read: int  # bytes
    bad: tuple[str, ...] = ()  # as of an event
    bad_count: int = 0
    cleared: tuple[str, ...] = ()
    through: int  # seq of the head when it was read


class PruneBody(Body, frozen=True, kw_only=True):
    """A deletion, announced before and recorded after."""

    phase: str  # "plan" or "result"
    plan: str  # digest of evidence/<sha256>: inventory lines


class PolicyBody(Body, frozen=True, kw_only=True):
    """A policy file came into force."""

    sha256: str
    reason: str = ""


class HoldBody(Body, frozen=True, kw_only=True):
    """A legal hold was set or released."""

    action: str  # "add" or "release"
    snapshot: int  # seq
    reason: str
    author: str


# --- what a root says of keys ---


@dataclass(frozen=True, slots=True, kw_only=True)
class Authority:
    """What a root says about keys, decoded once."""

    body: RootBody
    keys: Mapping[str, VerifyKey]  # by key id
    roles: Mapping[str, frozenset[str]]  # by key id
    recipients: tuple[bytes, ...]  # raw public keys

    @classmethod
    def of(cls, body: RootBody) -> "Authority":
        """Decode and check the keys of a root.

        Raises:
            FormatError: A key is malformed or listed twice, or a threshold can't be met.
        """
        listed = [(VerifyKey.from_der(b64decode_strict(k.public)), k) for k in body.keys]
        authority = cls(
            body=body,
            keys={key.id: key for key, _ in listed},
            roles={key.id: frozenset(entry.roles) for key, entry in listed},
            recipients=tuple(b64decode_strict(r.public) for r in body.recipients),
        )
        if len(authority.keys) != len(listed):
            raise FormatError("root lists a key twice")
        authority._check_thresholds()
        return authority

    def _check_thresholds(self) -> None:
        if any(count < 1 for count in self.body.thresholds.values()):
            raise FormatError("root has a threshold below 1")
        if self.shortfall(Role.ROOT, self.keys):
            raise FormatError("root has fewer root keys than its own threshold")

    def shortfall(self, role: Role, signers: Collection[str]) -> str:
        """Why these unique keys do not suffice for the role; empty if they do."""
        needed = self.body.thresholds.get(role.value, 1)
        found = sum(1 for key_id in signers if role in self.roles.get(key_id, ()))
        if found >= needed:
            return ""
        if needed == 1:
            return f"the key has not the role {role.value}"
        return f"{needed} keys with the role {role.value} must sign, found {found}"

    def first(self, role: Role, signers: Collection[str]) -> str:
        """The first signer with the role, or an empty text."""
        return next((key for key in signers if role in self.roles.get(key, ())), "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One statement type."""

    role: Role
    shape: type[Body]
    check: Callable[[Any], None]  # raises a VaultError for what the shape can't say
    times: tuple[str, ...] = ()  # fields of its shape that are times


def parse_body(kind: str, fields: Any) -> Body:
    """The body of a statement of a known type.

    Raises:
        VaultError: It has not the shape of its type.
    """
    known = KINDS[kind]
    body = body_from_json(_with_times(fields, known.times), known.shape)
    known.check(body)
    return body


def _with_times(fields: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    """The fields with their times parsed: msgspec would take more spellings than one.

    Raises:
        FormatError: One has another spelling.
    """
    read = {name: fields[name] for name in names if isinstance(fields.get(name), str)}
    return {**fields, **{name: from_rfc3339(text) for name, text in read.items()}}


def parse_writer_key(body: WriterBody) -> VerifyKey:
    """The key that a writer statement adds or revokes.

    Raises:
        FormatError: It is no P-256 key.
    """
    return VerifyKey.from_der(b64decode_strict(body.public))


# --- what shapes can't say ---


def _check_root(body: RootBody) -> None:
    Authority.of(body)
    if not 1 <= len(body.recipients) <= _MAX_RECIPIENTS:
        raise FormatError("root must have 1 to 16 recipients", found=len(body.recipients))
    _check_parameters(body.parameters)


def _check_parameters(parameters: Parameters) -> None:
    for sizes in (parameters.data_chunk, parameters.tree_chunk):
        if not 0 < sizes[0] <= sizes[1] <= sizes[2]:
            raise FormatError("root has impossible chunk sizes", found=sizes)
    spans = (parameters.min_retention, parameters.default_retention, parameters.max_retention)
    if min(parameters.block_size, parameters.pack_size, parameters.lock_grid, *spans) < 1:
        raise FormatError("root has a parameter below 1")


def _check_writer(body: WriterBody) -> None:
    _choice(body.action, "action", "add", "revoke")
    parse_writer_key(body)
    if body.action == "revoke":
        if body.distrust_from is not None:
            _at_least_zero(body.distrust_from, "distrust_from")
        return
    validate_label(body.name, "host")
    for pattern in body.datasets:
        validate_pattern(pattern)
    b64decode_strict(body.recipient)
    if body.domain is not None:
        domain = body.domain
        Digest.parse(domain.sha256)
        validate_label(domain.name, "domain")
        if domain.object != domain_object_name(domain.name, domain.sha256):
            raise FormatError("writer has an impossible domain object", found=domain.object[:160])


def _check_snapshot(body: SnapshotBody) -> None:
    validate_label(body.dataset, "dataset")
    ChunkId.parse(body.tree.id)
    Id.parse(body.tree.commitment)
    if not 0 <= body.tree.level <= _MAX_TREE_LEVEL:
        raise FormatError("snapshot has an impossible tree level", found=body.tree.level)
    inventory = body.inventory
    Digest.parse(inventory.sha256)
    for value in (inventory.size, inventory.objects, inventory.bytes):
        _at_least_zero(value, "inventory")
    if not _VERSION_ID.fullmatch(inventory.version):
        raise FormatError("snapshot has an impossible version id")
    for name, value in msgspec.structs.asdict(body.counts).items():
        _at_least_zero(value, name)


def _check_event(body: EventBody) -> None:
    if body.snapshot is not None:
        _at_least_zero(body.snapshot, "snapshot")
    _check_findings(body)


def _check_verification(body: VerificationBody) -> None:
    _check_ranges(body.snapshots, body.through)
    _at_least_zero(body.read, "read")
    if not 0 <= body.share <= WHOLE_SHARE:
        raise FormatError(
            "share is not one", expected=f"0 to {WHOLE_SHARE} parts per million", found=body.share
        )
    if body.slice is not None and not 0 <= body.slice[0] < body.slice[1] <= MAX_SLICES:
        raise FormatError("slice is not one of so many", found=body.slice)
    if not _NONCE.fullmatch(body.nonce):
        raise FormatError("nonce is not 32 hex digits", found=repr(body.nonce[:40]))
    _check_findings(body)


def _check_ranges(ranges: tuple[tuple[int, int], ...], through: int) -> None:
    """Ascending, apart, up to the head that was read."""
    if not 1 <= len(ranges) <= MAX_RANGES:
        raise FormatError(f"snapshots must be 1 to {MAX_RANGES} ranges", found=len(ranges))
    before = -1
    for first, last in ranges:
        if not before < first <= last <= through:
            raise FormatError(
                "snapshots are not ascending ranges up to the head", found=f"{first} to {last}"
            )
        before = last


def _check_findings(body: EventBody | VerificationBody) -> None:
    """What every kind of event says of its time and of packs."""
    _choice(
        body.verdict,
        "verdict",
        Verdict.PASSED,
        Verdict.FAILED,
        Verdict.PARTIAL,
        Verdict.INCONCLUSIVE,
    )
    Digest.parse(body.attestation)
    for what, ids in (("bad", body.bad), ("cleared", body.cleared)):
        if len(ids) > MAX_BAD_PACKS or list(ids) != sorted(set(ids)):
            raise FormatError(f"{what} must be at most {MAX_BAD_PACKS} pack ids, sorted, each once")
        for each in ids:
            PackId.parse(each)
    if len(body.bad) + len(body.cleared) > MAX_NAMED_PACKS or set(body.bad) & set(body.cleared):
        raise FormatError(f"bad and cleared must be at most {MAX_NAMED_PACKS} different pack ids")
    if body.bad_count < len(body.bad):
        raise FormatError("bad_count is less than the packs named", found=body.bad_count)


def name_packs(bad: Iterable[str], cleared: Iterable[str]) -> dict[str, Any]:
    """The members `bad`, `bad_count` and `cleared` of a body, cut to what one statement holds.

    Args:
        bad: Ids of all packs found wrong.
        cleared: Ids of packs that an earlier statement calls bad and that were read right.
    """
    wrong = sorted(set(bad))
    named = tuple(wrong[:MAX_BAD_PACKS])
    rights = sorted(set(cleared) - set(wrong))[: min(MAX_BAD_PACKS, MAX_NAMED_PACKS - len(named))]
    return {"bad": named, "bad_count": len(wrong), "cleared": tuple(rights)}


def _check_policy(body: PolicyBody) -> None:
    Digest.parse(body.sha256)


def _check_hold(body: HoldBody) -> None:
    _choice(body.action, "action", "add", "release")
    _at_least_zero(body.snapshot, "snapshot")


def _check_prune(body: PruneBody) -> None:
    _choice(body.phase, "phase", "plan", "result")
    Digest.parse(body.plan)


def _check_nothing(_body: HeartbeatBody) -> None:
    """A heartbeat says nothing that others act on."""


def _choice(text: str, what: str, *choices: str) -> None:
    if text not in choices:
        raise FormatError(
            f"{what} is not one of its values", expected=" or ".join(choices), found=repr(text[:40])
        )


def _at_least_zero(value: int, what: str) -> None:
    if value < 0:
        raise FormatError(f"{what} must not be negative", found=value)


_SPAN = ("started", "finished")
_EVENT = Kind(role=Role.RESTORER, shape=EventBody, check=_check_event, times=_SPAN)

KINDS: Mapping[str, Kind] = {
    StatementType.ROOT: Kind(role=Role.ROOT, shape=RootBody, check=_check_root),
    StatementType.WRITER: Kind(role=Role.ENROLLER, shape=WriterBody, check=_check_writer),
    StatementType.SNAPSHOT: Kind(
        role=Role.WRITER, shape=SnapshotBody, check=_check_snapshot, times=("created", "until")
    ),
    StatementType.HEARTBEAT: Kind(role=Role.WRITER, shape=HeartbeatBody, check=_check_nothing),
    StatementType.RESTORE: _EVENT,
    StatementType.DRILL: _EVENT,
    StatementType.VERIFICATION: Kind(
        role=Role.RESTORER, shape=VerificationBody, check=_check_verification, times=_SPAN
    ),
    StatementType.POLICY: Kind(role=Role.POLICY, shape=PolicyBody, check=_check_policy),
    StatementType.HOLD: Kind(role=Role.POLICY, shape=HoldBody, check=_check_hold),
    StatementType.PRUNE: Kind(role=Role.PRUNER, shape=PruneBody, check=_check_prune),
}
