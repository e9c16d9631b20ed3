"""Statement types: which role may say what, and what the shapes of bodies can't say. No I/O.

The shapes are in `statements`; docs/format.md 2.3 has all of it.
"""

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from vault.clock import from_rfc3339
from vault.crypto.keys import VerifyKey
from vault.encoding import b64decode_strict
from vault.errors import FormatError
from vault.ledger.body_rules import (
    check_drill,
    check_hold,
    check_policy_body,
    check_prune,
    check_recovery_time,
    check_snapshot_terms,
    require_choice,
    require_natural,
)
from vault.ledger.root_rules import check_root
from vault.ledger.statements import (
    MAX_BAD_PACKS,
    MAX_NAMED_PACKS,
    MAX_RANGES,
    MAX_SIGNATURES,
    MAX_SLICES,
    WHOLE_SHARE,
    WRITER_ACTIONS,
    EventBody,
    HeartbeatBody,
    HoldBody,
    PolicyBody,
    PruneBody,
    ResealBody,
    Role,
    RootBody,
    SnapshotBody,
    StatementType,
    Verdict,
    VerificationBody,
    WarrantBody,
    WriterBody,
)
from vault.model import (
    Body,
    ChunkId,
    Digest,
    Id,
    PackId,
    body_from_json,
    validate_label,
    validate_pattern,
)
from vault.storage.names import domain_object_name

_MAX_TREE_LEVEL: Final = 8
_MAX_SEED_TABLES: Final = 8
_NONCE: Final = re.compile(r"([0-9a-f]{32})?")
_VERSION_ID: Final = re.compile(r"[!-~]{1,1024}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One statement type."""

    roles: tuple[Role, ...]  # one of them must suffice; none: whatever key is listed
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


def _with_times(fields: Any, names: Collection[str]) -> dict[str, Any]:
    """The fields with their times parsed: msgspec would take more spellings than one.

    Raises:
        FormatError: They are no members, or a time has another spelling.
    """
    if not isinstance(fields, Mapping):
        raise FormatError("body is no object", found=type(fields).__name__)
    read = {name: fields[name] for name in names if isinstance(fields.get(name), str)}
    return {**fields, **{name: from_rfc3339(text) for name, text in read.items()}}


def parse_writer_key(body: WriterBody) -> VerifyKey:
    """The key that a writer statement adds or revokes.

    Raises:
        FormatError: It is no P-256 key.
    """
    return VerifyKey.from_der(b64decode_strict(body.public))


# --- what shapes can't say ---


def _check_writer(body: WriterBody) -> None:
    require_choice(body.action, "action", *sorted(WRITER_ACTIONS))
    parse_writer_key(body)
    if body.replaces:
        Id.parse(body.replaces)
    if body.action == "revoke":
        require_natural(body.distrust_from, "distrust_from")
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
        require_natural(value, "inventory")
    if not _VERSION_ID.fullmatch(inventory.version):
        raise FormatError("snapshot has an impossible version id")
    for name, value in msgspec.structs.asdict(body.counts).items():
        require_natural(value, name)
    require_natural(body.previous, "previous")
    check_snapshot_terms(body)


def _check_event(body: EventBody) -> None:
    require_natural(body.snapshot, "snapshot")
    check_recovery_time(body)
    _check_findings(body)


def _check_drill(body: EventBody) -> None:
    check_drill(body)
    _check_event(body)


def _check_verification(body: VerificationBody) -> None:
    _check_ranges(body.snapshots, body.through)
    require_natural(body.read, "read")
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
    require_choice(
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


def _check_warrant(body: WarrantBody) -> None:
    b64decode_strict(body.payload)
    if not 1 <= len(body.signatures) <= MAX_SIGNATURES:
        raise FormatError(f"warrant must have 1 to {MAX_SIGNATURES} signatures")
    for each in body.signatures:
        b64decode_strict(each.sig)


def _check_reseal(body: ResealBody) -> None:
    Digest.parse(body.recipient)
    if not 1 <= len(body.objects) <= _MAX_SEED_TABLES:
        raise FormatError(f"reseal must name 1 to {_MAX_SEED_TABLES} objects")
    for each in body.objects:
        Digest.parse(each.sha256)
        require_natural(each.size, "size")
        if each.name != f"seeds/{body.recipient}/{each.sha256}":
            raise FormatError("reseal has an impossible object", found=each.name[:160])
        if not _VERSION_ID.fullmatch(each.version):
            raise FormatError("reseal has an impossible version id")
    require_natural(body.sessions, "sessions")
    require_natural(body.through, "through")


def _check_nothing(_body: HeartbeatBody) -> None:
    """A heartbeat says nothing that others act on."""


_SPAN = ("started", "finished")
_RESTORE = Kind(roles=(Role.RESTORER,), shape=EventBody, check=_check_event, times=_SPAN)
_DRILL = Kind(roles=(Role.RESTORER,), shape=EventBody, check=_check_drill, times=_SPAN)

KINDS: Mapping[str, Kind] = {
    StatementType.ROOT: Kind(roles=(Role.ROOT,), shape=RootBody, check=check_root),
    StatementType.WRITER: Kind(roles=(Role.ENROLLER,), shape=WriterBody, check=_check_writer),
    StatementType.SNAPSHOT: Kind(
        roles=(Role.WRITER,), shape=SnapshotBody, check=_check_snapshot, times=("created", "until")
    ),
    StatementType.HEARTBEAT: Kind(
        roles=(Role.WRITER,), shape=HeartbeatBody, check=_check_nothing, times=("next_by",)
    ),
    StatementType.RESTORE: _RESTORE,
    StatementType.DRILL: _DRILL,
    StatementType.VERIFICATION: Kind(
        roles=(Role.RESTORER, Role.VERIFIER),
        shape=VerificationBody,
        check=_check_verification,
        times=_SPAN,
    ),
    StatementType.POLICY: Kind(roles=(Role.POLICY,), shape=PolicyBody, check=check_policy_body),
    StatementType.HOLD: Kind(
        roles=(Role.POLICY,), shape=HoldBody, check=check_hold, times=("until",)
    ),
    StatementType.WARRANT: Kind(roles=(), shape=WarrantBody, check=_check_warrant),
    StatementType.RESEAL: Kind(roles=(Role.RESTORER,), shape=ResealBody, check=_check_reseal),
    StatementType.PRUNE: Kind(roles=(Role.PRUNER,), shape=PruneBody, check=check_prune),
}
