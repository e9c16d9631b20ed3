"""Statement bodies as JSON shapes (docs/format.md 2.3); what else holds of them is in `kinds`."""

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Final

from vault.model import FORMAT_VERSION, Body, EntryType, LockMode
from vault.parameters import Parameters

MAX_BAD_PACKS: Final = 24  # pack ids in `bad`, and in `cleared`
MAX_NAMED_PACKS: Final = 32  # in both: with all else, a PAE holds no more
MAX_RANGES: Final = 16  # of snapshots that a verification covers
MAX_SIGNATURES: Final = 16  # of one envelope, and of what a warrant carries
MAX_SLICES: Final = 65_536
MAX_APPROVAL_AGE: Final = 2_592_000  # seconds that a request is good for at most: 30 days
CHECKPOINT_AGE: Final = 90_000  # seconds until a checkpoint is stale: 25 hours
WHOLE_SHARE: Final = 1_000_000  # parts per million
TIER_NAMES: Final = ("hourly", "daily", "weekly", "monthly", "quarterly", "yearly")  # in this order


class Role(StrEnum):
    """What a key may sign (docs/format.md 2.3)."""

    ROOT = "root"
    ENROLLER = "enroller"
    POLICY = "policy"
    PRUNER = "pruner"
    RESTORER = "restorer"
    VERIFIER = "verifier"  # reads and reports without a decryption key
    WRITER = "writer"
    LOG = "log"  # signs checkpoints, and no statements
    APPROVER = "approver"  # reserved


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
    WARRANT = "warrant"
    RESEAL = "reseal"


class Act(StrEnum):
    """What a root may want several people to approve (docs/format.md 2.3)."""

    ROOT = "root"
    RECIPIENT_REMOVE = "recipient.remove"
    WRITER_ADD = "writer.add"
    WRITER_LIMIT = "writer.limit"
    WRITER_REVOKE = "writer.revoke"
    HOLD_ADD = "hold.add"
    HOLD_RELEASE = "hold.release"
    POLICY_APPLY = "policy.apply"
    POLICY_WEAKEN = "policy.weaken"
    PRUNE = "prune"
    RESTORE_REPLACE = "restore.replace"
    ROLLBACK = "rollback"  # its statement comes later
    RESEAL = "reseal"


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
    person: str = ""  # a label: whose key it is; empty where no agreement of several is wanted
    review: str = ""  # YYYY-MM-DD: when to ask whether the key is still wanted; ends nothing


class Recipient(Body, frozen=True, kw_only=True):
    """A public key that packs and domain objects are sealed to."""

    name: str
    public: str  # base64 of the raw HPKE public key


class DistrustedKey(Body, frozen=True, kw_only=True, rename={"start": "from"}):
    """A key whose statements do not count while this root is in force."""

    public: str  # base64 of the DER SubjectPublicKeyInfo
    start: int  # seq


class Approval(Body, frozen=True, kw_only=True):
    """Who must agree to an act beforehand, beside those who do it."""

    role: str  # of `Role`
    threshold: int  # people with that role, other than who asks and who acts
    max_age: int = MAX_APPROVAL_AGE  # seconds that a request is good for at most


class Witness(Body, frozen=True, kw_only=True):
    """A key that cosigns checkpoints."""

    name: str  # a label
    vkey: str  # C2SP: NAME+HASH+KEY


class RootBody(Body, frozen=True, kw_only=True):
    """Who may do what; statement 0 is pinned by digest."""

    version: int = 1  # root N+1 follows root N exactly
    parameters: Parameters
    keys: tuple[PublicKey, ...]
    thresholds: dict[str, int]  # role -> unique keys and persons needed; 1 where absent
    recipients: tuple[Recipient, ...]
    approvals: dict[str, Approval] = {}  # by `Act`  # noqa: RUF012  # each body gets its own
    witnesses: tuple[Witness, ...] = ()
    quorum: int = 1  # of the witnesses that must cosign a checkpoint
    checkpoint_age: int = CHECKPOINT_AGE  # seconds until the newest checkpoint is stale
    distrust: tuple[DistrustedKey, ...] = ()  # all that holds while this root is in force
    min_reader: int = FORMAT_VERSION
    min_writer: int = FORMAT_VERSION


class DomainRef(Body, frozen=True, kw_only=True):
    """Where a writer finds its domain's secrets."""

    name: str
    object: str  # domains/<domain>/<sha256>
    sha256: str
    size: int
    version: str


WRITER_ACTIONS: Final = frozenset({"add", "limit", "revoke"})


class WriterBody(Body, frozen=True, kw_only=True):
    """Adds, limits or revokes a writer key."""

    action: str  # of `WRITER_ACTIONS`
    name: str  # of the host
    public: str  # base64 of the DER SubjectPublicKeyInfo
    recipient: str = ""  # base64 of the host's raw HPKE public key
    datasets: tuple[str, ...] = ()  # fnmatch patterns; with "limit", those that hold from here on
    domain: DomainRef | None = None
    replaces: str = ""  # with "add": id of the host's key that is retired by it, hex
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


class RetentionTerms(Body, frozen=True, kw_only=True):
    """Why a snapshot is kept as long as it is."""

    keep: int  # seconds
    tiers: tuple[str, ...] = ()  # of `TIER_NAMES`: those that it is the first of its period for


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
    previous: int | None = None  # seq of the dataset's snapshot before
    retention: RetentionTerms | None = None
    policy: str = ""  # digest of the terms that were used
    scope: str = ""  # HMAC-SHA-256 of sources and excludes, hex: shows that they changed
    label: str = ""  # public
    purpose: str = ""  # "safety": taken before something that may destroy the data
    barrier: str = ""  # 16 hex digits: of snapshots that were taken at one moment
    notes: str = ""  # chunk id, hex


class HeartbeatBody(Body, frozen=True, kw_only=True):
    """A writer is alive, or accepted another head."""

    note: str
    accepted: str = ""  # SEQ:DIGEST after --accept-head
    next_by: datetime | None = None  # by then the host will have signed again


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
    rto: int | None = None  # seconds from the start until the data was ready
    objective: int | None = None  # seconds that the terms in force allow
    replaced: bool = False  # a restore exchanged what TARGET had


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
    spared: str = ""  # digest of further evidence: lines of the plan that stay; with "plan"
    details: str = ""  # digest of evidence for people
    head: int | None = None  # seq that the plan was made at
    part: int = 1
    parts: int = 1
    objects: int = 0  # that the plan names
    bytes: int = 0  # of those; of a result, of those deleted
    of: int | None = None  # seq of the plan; with "result"
    deleted: int = 0
    gone: int = 0  # were not there
    locked: int = 0
    refused: int = 0
    complete: bool = False  # nothing is left to do


class PolicyBody(Body, frozen=True, kw_only=True):
    """A policy came into force or ended, or a dataset was given up."""

    action: str  # "apply", "withdraw" or "retire"
    name: str  # of the policy; with "retire", of the dataset
    sha256: str = ""  # digest of evidence/<sha256>: the terms
    previous: int | None = None  # seq of the statement of that name before
    weaker: tuple[str, ...] = ()  # what keeps or demands less than before; the first of it
    weakens: bool = False  # the signer's word
    reason: str = ""


class WarrantSignature(Body, frozen=True, kw_only=True):
    """One signature over a request."""

    keyid: str  # any text; not believed
    sig: str  # base64


class WarrantBody(Body, frozen=True, kw_only=True):
    """Carries a request that several people signed; it is judged by the act that names it."""

    payload: str  # base64 of the request
    signatures: tuple[WarrantSignature, ...]


class SeedTable(Body, frozen=True, kw_only=True):
    """An object with the seeds of sessions, sealed to a new recipient."""

    name: str
    sha256: str
    size: int
    version: str


class ResealBody(Body, frozen=True, kw_only=True):
    """Old packs can be opened by a new recipient; no snapshot needs the objects that it names."""

    recipient: str  # its id: SHA-256 of the raw public key, hex
    objects: tuple[SeedTable, ...]
    sessions: int  # how many seeds they hold
    through: int  # seq of the head when it was made


class HoldBody(Body, frozen=True, kw_only=True):
    """A legal hold was set or released."""

    action: str  # "add" or "release"
    snapshot: int  # seq
    hold: int | None = None  # seq of the "add"; with "release"
    dataset: str = ""  # all of it is meant
    until: datetime | None = None  # None: until it is released
    case: str = ""
    reason: str
    author: str
