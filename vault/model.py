"""The words of docs/design.md "Words" as types. No I/O and no keys."""

import dataclasses
import hashlib
import re
from datetime import UTC, datetime
from enum import IntEnum, StrEnum
from typing import Any, Final, Self, TypeAlias, TypeVar

import msgspec

from vault.clock import to_rfc3339
from vault.errors import ConfigError, FormatError

FORMAT_VERSION = 1  # of docs/format.md; compared with the root's min_reader and min_writer
LATEST = "latest"  # the newest snapshot: of a dataset, or alone, of the only dataset there is
NAME_PATTERN = re.compile(r"[a-z][a-z0-9._-]{0,62}")  # datasets, domains, hosts
_DATASET_PATTERN = re.compile(r"[a-z0-9._*?-]{1,63}")
LAST_LOCK = datetime(2100, 1, 1, tzinfo=UTC)  # I8: Ceph 16 wraps later dates and unlocks


class Id(bytes):
    """A 32-byte content address; prints as lower-case hex."""

    __slots__ = ()

    def __new__(cls, raw: bytes | memoryview) -> Self:
        """Check the length.

        Raises:
            FormatError: Not 32 bytes.
        """
        self = super().__new__(cls, raw)
        if len(self) != 32:
            raise FormatError(f"{cls.__name__} must be 32 bytes", found=len(self))
        return self

    @classmethod
    def parse(cls, text: str) -> Self:
        """From 64 lower-case hex digits.

        Raises:
            FormatError: Anything else.
        """
        if not re.fullmatch(r"[0-9a-f]{64}", text):
            raise FormatError(f"{cls.__name__} must be 64 lower-case hex digits", found=text[:80])
        return cls(bytes.fromhex(text))

    def __str__(self) -> str:
        """Lower-case hex."""
        return self.hex()


class Digest(Id):
    """SHA-256 of bytes as stored."""

    __slots__ = ()

    @classmethod
    def of(cls, data: bytes | bytearray | memoryview) -> Self:
        """The digest of these bytes."""
        return cls(hashlib.sha256(data).digest())


class PackId(Digest):
    """SHA-256 of a whole pack as stored."""

    __slots__ = ()


class ChunkId(Id):
    """HMAC-SHA-256(domain id key, type ‖ SHA-256(chunk))."""

    __slots__ = ()


class ObjectType(IntEnum):
    """The type byte of a sealed object, and the first byte under a chunk id's HMAC."""

    DATA = 1
    TREE = 2
    INDEX = 3
    DOMAIN = 4
    SEEDS = 5


class EntryType(IntEnum):
    """What a tree entry describes (docs/format.md 8)."""

    DIRECTORY = 1
    FILE = 2
    SYMLINK = 3
    HARD_LINK = 4
    FIFO = 5
    CHARACTER_DEVICE = 6
    BLOCK_DEVICE = 7


class LockMode(StrEnum):
    """How strictly a lock binds; NONE keeps dates advisory (I8)."""

    NONE = "none"
    GOVERNANCE = "governance"
    COMPLIANCE = "compliance"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """A lock on one object version."""

    mode: LockMode  # never NONE: an unlocked version has no Retention
    until: datetime  # aware, UTC, whole seconds


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, order=True)
class ObjectRef:
    """One stored object as a signed record describes it; one line of an inventory."""

    name: str
    sha256: Digest
    size: int  # bytes as stored
    version: str  # the version to read and extend first; only a hint, as the digest decides


class Severity(StrEnum):
    """How grave a finding is; the exit code follows the gravest."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class Code(StrEnum):
    """The kind of a finding; stable, for programs (docs/json.md "vault/audit/v1")."""

    VOID = "void-statement"
    DISTRUSTED = "distrusted-statement"
    NOT_UNDERSTOOD = "statement-not-understood"
    OTHER_HISTORY = "other-history"
    BEYOND_GAP = "beyond-gap"
    FORK = "fork"
    UNLISTED_KEY = "unlisted-key"
    JUNK_STATEMENT = "junk-statement"
    LOST_RACE = "lost-race"
    WRONG_PAGE = "wrong-page"
    UNREADABLE_PLAN = "unreadable-plan"
    HEAVY_PLAN = "heavy-plan"
    INVENTORY = "inventory"
    MISSING = "missing"
    WRONG_SIZE = "wrong-size"
    WRONG_CHECKSUM = "wrong-checksum"
    WRONG_BYTES = "wrong-bytes"
    RELOCATED = "relocated"
    MARKER = "delete-marker"
    OTHER_BYTES = "other-bytes"
    NOT_READ = "not-read"
    REFUSED = "refused"
    FOREIGN_NAME = "foreign-name"
    LOCK_GAP = "lock-gap"
    LOCK_MODE = "lock-mode"
    NO_HOLD = "no-legal-hold"
    ADVISORY = "advisory-locks"
    CLOCK = "clock"
    ATTESTATION = "attestation"
    NOT_SEALED_TO = "not-sealed-to"
    TIME_SKEW = "time-skew"
    TIME_ORDER = "time-order"
    OTHER_PREVIOUS = "other-previous"
    DATED_BACK = "dated-back"
    OVERCLAIM = "overclaim"
    UNAPPROVED = "unapproved"
    RETENTION_SHORT = "retention-short"
    MODE_WEAK = "mode-weak"
    CALLED_BAD = "called-bad"
    BUCKET_RULE = "bucket-rule"
    TRUNCATED = "truncated"
    FORKED = "forked"
    FROZEN = "frozen"
    UNWITNESSED = "unwitnessed"
    CHECKPOINT = "checkpoint"
    SILENT = "silent"
    REVIEW_DUE = "review-due"
    RESEAL_MISSING = "reseal-missing"
    RESEAL_WRONG = "reseal-wrong"
    NOT_RESEALED = "not-resealed"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something that was found and is not as it should be. Data, not an exception."""

    severity: Severity
    subject: str  # object name, "ledger 17", "dataset web"
    problem: str
    expected: str = ""
    found: str = ""
    code: str = ""  # a `Code`; empty where only a person can judge the finding


# --- parameters and statement bodies: JSON shapes, docs/format.md 2.3 ---


class Body(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Unknown fields are ignored: newer writers may add some. ``gc=False``: it is in no cycle."""


BodyT = TypeVar("BodyT", bound=Body)


# --- small things that every layer needs ---

Buffer: TypeAlias = bytes | bytearray | memoryview


MAX_PATH: Final = 65_535  # bytes of a path in a tree, and of a link's target (docs/format.md 8)


SYMLINK_MODE: Final = 0o777  # mode of every symlink: Linux has no other and can set none


def sort_key(path: bytes) -> bytes:
    """A key that sorts paths by component, as a sorted walk meets them: `/` is the lowest byte."""
    return path.replace(b"/", b"\0")


def validate_label(text: str, what: str) -> str:
    """The text itself, if it may name a dataset, domain or host.

    Raises:
        ConfigError: It may not.
    """
    if not NAME_PATTERN.fullmatch(text):
        raise ConfigError(
            f"{what} name is not allowed", expected=NAME_PATTERN.pattern, found=repr(text[:80])
        )
    return text


def validate_dataset(text: str) -> str:
    """The text itself, if a snapshot may be taken under that name.

    Raises:
        ConfigError: It may not: it is no label, or the word that means the newest snapshot.
    """
    if text == LATEST:
        raise ConfigError(
            f"no dataset may be called {LATEST}", hint="the word means the newest snapshot"
        )
    return validate_label(text, "dataset")


def validate_pattern(text: str) -> str:
    """The text itself, if it may be a pattern of datasets: characters of labels, ``*`` and ``?``.

    Brackets are refused: Python, shells and locales read them differently.

    Raises:
        ConfigError: It may not.
    """
    if not _DATASET_PATTERN.fullmatch(text):
        raise ConfigError(
            "dataset pattern is not allowed",
            expected="1 to 63 of a-z, 0-9, '.', '_', '-', '*', '?'",
            found=repr(text[:80]),
        )
    return text


def validate_wanted_pattern(text: str) -> str:
    """The text itself, if a dataset can have a name that it matches: before a host gets it.

    Raises:
        ConfigError: It is no pattern, or matches no name that a dataset may have.
    """
    validate_pattern(text)
    if text == LATEST or not (text[0] in "*?" or text[0].isalpha()):
        raise ConfigError(
            f"pattern {text!r} matches no name that a dataset may have",
            expected=f"names begin with a letter, and none is {LATEST}",
        )
    return text


def body_from_json(fields: Any, shape: type[BodyT]) -> BodyT:
    """Check the shape of parsed JSON.

    Raises:
        FormatError: A field is missing or has another type.
    """
    try:
        return msgspec.convert(fields, shape, strict=True)
    except (msgspec.ValidationError, ValueError) as error:
        raise FormatError("body is malformed", found=str(error)) from error


def replace_body(body: BodyT, **changes: object) -> BodyT:
    """A copy with some fields changed."""
    return msgspec.structs.replace(body, **changes)


def body_to_json(body: Body) -> Any:
    """Plain dicts, lists, strings and numbers; top-level times as `to_rfc3339` writes them."""
    fields = msgspec.to_builtins(body, builtin_types=(datetime,))
    return {
        name: to_rfc3339(value) if isinstance(value, datetime) else value
        for name, value in fields.items()
    }
