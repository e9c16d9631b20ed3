"""What bodies about keeping, holding and deleting must say beyond their shape. No I/O.

docs/format.md 2.3 has the rules; `kinds` puts them together by type.
"""

import re
from typing import Final

from vault.errors import FormatError
from vault.ledger.statements import (
    TIER_NAMES,
    EventBody,
    HoldBody,
    PolicyBody,
    PruneBody,
    SnapshotBody,
)
from vault.model import ChunkId, Digest, Id, validate_label

_LONGEST: Final = 3_155_760_000  # seconds: 100 years
_MAX_PARTS: Final = 10_000  # of a prune plan
_MAX_WEAKER: Final = 8  # texts, of 1 to so many bytes:
_MAX_WEAKER_TEXT: Final = 100
_MAX_POLICY_REASON: Final = 200  # bytes, as all that follow
_MAX_HOLD_REASON: Final = 300
_MAX_AUTHOR: Final = 100
_MAX_CASE: Final = 60
_LABEL: Final = re.compile(r"([a-z0-9][a-z0-9._-]{0,39})?")
_BARRIER: Final = re.compile(r"([0-9a-f]{16})?")

# --- rules that several bodies share ---


def require_choice(text: str, what: str, *choices: str) -> None:
    """Pass if a text is one of these.

    Raises:
        FormatError: It is another.
    """
    if text not in choices:
        raise FormatError(
            f"{what} is not one of its values", expected=" or ".join(choices), found=repr(text[:40])
        )


def require_natural(value: int | None, what: str) -> None:
    """Pass if a number is 0 or more, or absent.

    Raises:
        FormatError: It is negative.
    """
    if value is not None and value < 0:
        raise FormatError(f"{what} must not be negative", found=value)


def _require_short(text: str, what: str, limit: int) -> None:
    size = len(text.encode("utf-8", "surrogatepass"))
    if size > limit:
        raise FormatError(f"{what} is too long", expected=f"at most {limit} bytes", found=size)


def _require_span(seconds: int | None, what: str) -> None:
    if seconds is not None and not 1 <= seconds <= _LONGEST:
        raise FormatError(
            f"{what} is no length of time", expected=f"1 to {_LONGEST} seconds", found=seconds
        )


# --- snapshots, restores, drills ---


def check_snapshot_terms(body: SnapshotBody) -> None:
    """Why a snapshot is kept, and what it is called.

    Raises:
        FormatError: It says so in a way that breaks a rule.
    """
    if body.retention is not None:
        _require_span(body.retention.keep, "retention")
        tiers = body.retention.tiers
        if list(tiers) != [tier for tier in TIER_NAMES if tier in tiers]:
            raise FormatError(
                "tiers are not in their order, each once",
                expected=" ".join(TIER_NAMES),
                found=" ".join(tiers)[:80],
            )
    if body.policy:
        Digest.parse(body.policy)
    if body.scope:
        Id.parse(body.scope)
    if body.notes:
        ChunkId.parse(body.notes)
    require_choice(body.purpose, "purpose", "", "safety")
    if not _LABEL.fullmatch(body.label):
        raise FormatError("label is not allowed", found=repr(body.label[:60]))
    if not _BARRIER.fullmatch(body.barrier):
        raise FormatError("barrier is not 16 hex digits", found=repr(body.barrier[:40]))


def check_recovery_time(body: EventBody) -> None:
    """How long a restore or drill took, and how long it might.

    Raises:
        FormatError: That is no length of time.
    """
    _require_span(body.rto, "rto")
    _require_span(body.objective, "objective")


def check_drill(body: EventBody) -> None:
    """A drill replaces nothing.

    Raises:
        FormatError: It says that it did.
    """
    if body.replaced:
        raise FormatError("a drill replaces nothing")


# --- policies, holds, prunes ---


def check_policy_body(body: PolicyBody) -> None:
    """A policy that is applied or withdrawn, or a dataset that is given up.

    Raises:
        FormatError: It breaks a rule.
        ConfigError: The name is no label.
    """
    require_choice(body.action, "action", "apply", "withdraw", "retire")
    validate_label(body.name, "dataset" if body.action == "retire" else "policy")
    if body.action == "retire":
        require_choice(body.sha256, "sha256", "")
    else:
        Digest.parse(body.sha256)
    require_natural(body.previous, "previous")
    if len(body.weaker) > _MAX_WEAKER:
        raise FormatError("weaker is too long", expected=_MAX_WEAKER, found=len(body.weaker))
    for text in body.weaker:
        _require_short(text, "weaker", _MAX_WEAKER_TEXT)
        if not text:
            raise FormatError("weaker has an empty text")
    if not body.weakens and (body.weaker or body.action != "apply"):
        raise FormatError("policy weakens what was in force, and does not say so")
    _require_short(body.reason, "reason", _MAX_POLICY_REASON)


def check_hold(body: HoldBody) -> None:
    """A legal hold that is set or released.

    Raises:
        FormatError: It breaks a rule.
        ConfigError: The dataset is no label.
    """
    require_choice(body.action, "action", "add", "release")
    require_natural(body.snapshot, "snapshot")
    require_natural(body.hold, "hold")
    if (body.hold is None) is (body.action == "release"):
        raise FormatError("a release names its hold, and nothing else does")
    if body.action == "release" and (body.dataset or body.until is not None or body.case):
        raise FormatError("a release has no dataset, until or case")
    if body.dataset:
        validate_label(body.dataset, "dataset")
    _require_short(body.case, "case", _MAX_CASE)
    _require_short(body.reason, "reason", _MAX_HOLD_REASON)
    _require_short(body.author, "author", _MAX_AUTHOR)


def check_prune(body: PruneBody) -> None:
    """A prune that is planned, or what came of it.

    Raises:
        FormatError: It breaks a rule.
    """
    require_choice(body.phase, "phase", "plan", "result")
    Digest.parse(body.plan)
    for digest in (body.spared, body.details):
        if digest:
            Digest.parse(digest)
    require_natural(body.head, "head")
    require_natural(body.of, "of")
    if not 1 <= body.part <= body.parts <= _MAX_PARTS:
        raise FormatError("part is not one of so many", found=f"{body.part} of {body.parts}")
    for what in ("objects", "bytes", "deleted", "gone", "locked", "refused"):
        require_natural(getattr(body, what), what)
