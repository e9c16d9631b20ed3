"""Acts: what several people may have to agree to, and the values that they agree to. No I/O.

A statement is one act, the narrowest of docs/format.md 2.9; most types have none.
"""

from collections.abc import Mapping
from typing import Any, Final, Protocol

from vault.encoding import dumps
from vault.ledger.statements import (
    Act,
    Approval,
    EventBody,
    HoldBody,
    PolicyBody,
    PruneBody,
    ResealBody,
    RootBody,
    StatementType,
    WriterBody,
)
from vault.model import Body, Digest

_WIDER: Final[Mapping[str, str]] = {
    Act.RECIPIENT_REMOVE: Act.ROOT,
    Act.POLICY_WEAKEN: Act.POLICY_APPLY,
}
_OF_WRITERS: Final = {
    "add": Act.WRITER_ADD,
    "limit": Act.WRITER_LIMIT,
    "revoke": Act.WRITER_REVOKE,
}
# of some acts the whole body is bound
_WHOLE: Final = frozenset({Act.ROOT, Act.RECIPIENT_REMOVE, *_OF_WRITERS.values()})
# with the action: who agrees to weaker terms does not agree to withdraw them
_OF_POLICY: Final = {"action": "", "name": "", "sha256": "", "previous": None}
_BOUND: Final[Mapping[Act, Mapping[str, Any]]] = {  # names of the others, and what absence means
    Act.HOLD_ADD: {"snapshot": None, "dataset": "", "until": None},
    Act.HOLD_RELEASE: {"hold": None},
    Act.POLICY_APPLY: _OF_POLICY,
    Act.POLICY_WEAKEN: _OF_POLICY,
    Act.PRUNE: {"plan": ""},
    Act.RESEAL: {"recipient": "", "through": None},
}


class Snapshots(Protocol):
    """What the values of a restore are taken from."""

    def snapshot_at(self, seq: int) -> tuple[Digest, str] | None:
        """Digest and dataset of a snapshot that counted when it was linked."""


def act_of(kind: str, body: Body, root: RootBody) -> Act | None:
    """The act that a statement is, None if it is none.

    Args:
        kind: Its type.
        body: Of that type.
        root: In force before it.
    """
    act: Act | None = None
    match body:
        case RootBody():
            kept = {each.public for each in body.recipients}
            is_narrower = any(each.public not in kept for each in root.recipients)
            act = Act.RECIPIENT_REMOVE if is_narrower else Act.ROOT
        case WriterBody():
            act = _OF_WRITERS.get(body.action)
        case HoldBody():
            act = Act.HOLD_ADD if body.action == "add" else Act.HOLD_RELEASE
        case PolicyBody():
            act = Act.POLICY_WEAKEN if getattr(body, "weakens", False) else Act.POLICY_APPLY
        case PruneBody() if body.phase == "plan":
            act = Act.PRUNE
        case EventBody() if kind == StatementType.RESTORE and getattr(body, "replaced", False):
            act = Act.RESTORE_REPLACE
        case ResealBody():
            act = Act.RESEAL
        case _:
            pass
    return act


def approval_of(act: str | None, approvals: Mapping[str, Approval]) -> Approval | None:
    """What a root wants for an act: its own entry, else that of the wider act."""
    if act is None:
        return None
    return approvals.get(act) or approvals.get(_WIDER.get(act, ""))


def bound_values(
    act: Act, fields: Mapping[str, Any], snapshots: Snapshots
) -> Mapping[str, Any] | None:
    """The values of a statement that a request for its act binds; None if it has none.

    Args:
        act: Of the statement.
        fields: Its body as it is signed.
        snapshots: Of the ledger before it.
    """
    if act in _WHOLE:
        return fields
    if act is Act.RESTORE_REPLACE:
        return _restored(fields.get("snapshot"), snapshots)
    names = _BOUND.get(act)
    return names and {name: fields.get(name, absent) for name, absent in names.items()}


def _restored(seq: Any, snapshots: Snapshots) -> dict[str, Any] | None:
    found = snapshots.snapshot_at(seq) if isinstance(seq, int) else None
    return found and {"snapshot": seq, "digest": str(found[0]), "dataset": found[1]}


def bound_digest(values: Mapping[str, Any]) -> Digest:
    """What a request holds of the values that it binds."""
    return Digest.of(dumps(values))
