"""Statements of the ledger for people, and for programs: `vault log` and `vault show`."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cli.output import render
from vault.clock import to_rfc3339
from vault.errors import FormatError
from vault.ledger.statements import (
    WHOLE_SHARE,
    EventBody,
    HeartbeatBody,
    HoldBody,
    PolicyBody,
    PruneBody,
    RootBody,
    SnapshotBody,
    VerificationBody,
    WarrantBody,
    WriterBody,
)
from vault.ledger.warrants import carried_request
from vault.model import Body, body_to_json
from vault.repository.describe_statements import CitedEvidence, Effect, SignedBy, StatementView
from vault.repository.hosts import ID_DIGITS

_SHOWN_ITEMS = 8  # shown of a list in a signed body or an attestation
_SHOWN_TEXT = 200  # characters shown of a text in them; a recipient's key has 1,600


# --- for people ---


def deed(body: Body | None) -> str:  # noqa: C901  # a case for each type
    """The act that a statement records, in a few words; untrusted."""
    match body:
        case RootBody():
            said = _root(body)
        case WriterBody():
            said = _writer(body)
        case SnapshotBody():
            said = _snapshot(body)
        case VerificationBody():
            said = _verification(body)
        case EventBody():
            said = _event(body)
        case HeartbeatBody():
            said = _heartbeat(body)
        case PolicyBody():
            said = _policy(body)
        case HoldBody():
            said = _hold(body)
        case PruneBody():
            said = _prune(body)
        case WarrantBody():
            said = _warrant(body)
        case _:
            said = ""
    return said


def _event(body: EventBody) -> str:
    of = f": snapshot {body.snapshot}" if body.snapshot is not None else ""
    return f"{body.verdict}{of}{_bad(body)}{_recovery(body)}"


def _heartbeat(body: HeartbeatBody) -> str:
    said = body.note + (f", accepts {body.accepted}" if body.accepted else "")
    return said + (f", next by {render.moment(body.next_by)}" if body.next_by is not None else "")


def _snapshot(body: SnapshotBody) -> str:
    whole = "complete" if body.complete else "INCOMPLETE"
    until = render.moment(body.until)
    called = f" {body.label!r}" if body.label else ""
    purpose = f" for {body.purpose}" if body.purpose else ""
    tiers = body.retention.tiers if body.retention is not None else ()
    first = f", first {' '.join(tiers)}" if tiers else ""
    said = f"{body.dataset}{called}{purpose}, {whole}, {render.contents(body.counts)}"
    return f"{said}, until {until}{first}"


def _root(body: RootBody) -> str:
    keys, recipients = (
        render.plural(len(some), word)
        for some, word in ((body.keys, "key"), (body.recipients, "recipient"))
    )
    days = body.parameters.max_retention // 86_400
    lock = body.parameters.lock_mode.value
    return f"root {body.version}: {keys}, {recipients}, lock {lock}, kept at most {days} days"


def _writer(body: WriterBody) -> str:
    patterns = " ".join(body.datasets) or "nothing"
    match body.action:
        case "limit":
            said = f"limits {body.name} to {patterns}"
        case "revoke":
            said = f"revokes {body.name}"
            if body.distrust_from is not None:
                said += f", distrusts it from {body.distrust_from} on"
        case _:
            what = "replaces the key of" if body.replaces else "enrols"
            domain = f", domain {body.domain.name}" if body.domain is not None else ""
            said = f"{what} {body.name} for {patterns}{domain}"
    return _with_reason(said, body.reason)


def _verification(body: VerificationBody) -> str:
    ranges = ", ".join(
        str(first) if first == last else f"{first}-{last}" for first, last in body.snapshots
    )
    if body.slice is not None:
        part = f", slice {body.slice[0] + 1} of {body.slice[1]}"
    elif body.share < WHOLE_SHARE:
        part = f", {body.share / 10_000:g} % read"
    else:
        part = ""
    opened = "" if body.opened else ", not opened"
    return f"{body.verdict}: snapshots {ranges}{part}{opened}{_bad(body)}"


def _recovery(body: EventBody) -> str:
    """How long it took, against how long it may, and whether it replaced what was there."""
    took = f", ready after {body.rto:,} s" if body.rto is not None else ""
    allowed = f" of {body.objective:,} s" if took and body.objective is not None else ""
    return f"{took}{allowed}{', replaced what was there' if body.replaced else ''}"


def _policy(body: PolicyBody) -> str:
    if body.action == "retire":
        said = f"gives up dataset {body.name}"
    else:
        done = "applies" if body.action == "apply" else "withdraws"
        said = f"{done} policy {body.name} {body.sha256[:ID_DIGITS]}"
    if body.action == "apply" and body.weakens:
        said += f", weaker: {'; '.join(body.weaker)}" if body.weaker else ", weaker"
    return _with_reason(said, body.reason)


def _hold(body: HoldBody) -> str:
    if body.action == "release":
        said = f"{body.author} releases snapshot {body.snapshot}, held by {body.hold}"
        return _with_reason(said, body.reason)
    whole = f" and all of dataset {body.dataset}" if body.dataset else ""
    until = f" until {render.moment(body.until)}" if body.until is not None else ""
    case = f", case {body.case}" if body.case else ""
    said = f"{body.author} holds snapshot {body.snapshot}{whole}{until}{case}"
    return _with_reason(said, body.reason)


def _prune(body: PruneBody) -> str:
    said = f"{body.phase}, {body.plan[:ID_DIGITS]}"
    if body.parts > 1:
        said += f", part {body.part} of {body.parts}"
    if body.phase == "plan":
        return said + (f", {render.plural(body.objects, 'object')}" if body.objects else "")
    counts = {
        "deleted": body.deleted,
        "already gone": body.gone,
        "locked": body.locked,
        "refused": body.refused,
    }
    said += "".join(f", {count:,} {what}" for what, count in counts.items() if count)
    return said + (", complete" if body.complete else "")


def _warrant(body: WarrantBody) -> str:
    try:
        terms = carried_request(body).terms
    except FormatError:
        return "carries no request"
    signed = render.plural(len(body.signatures), "signature")
    return _with_reason(f"{signed} for {terms.act}, {terms.summary}", terms.reason)


def _bad(body: EventBody | VerificationBody) -> str:
    return f", {render.plural(body.bad_count, 'pack')} wrong" if body.bad_count else ""


def _with_reason(said: str, reason: str) -> str:
    return f"{said}: {reason}" if reason else said


def signer_text(signers: Sequence[SignedBy]) -> str:
    """The name of the host or key, enough of its id to use in a command, how many signed too."""
    first, *others = signers
    more = f" and {render.plural(len(others), 'more key')}" if others else ""
    return f"{first.name or 'not listed'} {first.key[:ID_DIGITS]}{more}"


def effect_text(view: StatementView, cited: CitedEvidence | None, *, opened: bool) -> str:
    """The effect of a statement, and how far its evidence was checked.

    Args:
        view: The facts about the statement.
        cited: Its evidence, if that was opened.
        opened: Whether evidence was opened if there was any.
    """
    if view.effect is Effect.DISTRUSTED:
        return f"distrusted by {view.record.distrusted_by}"
    if view.effect is not Effect.VALID:
        return view.effect.value
    if not opened:
        return "valid, evidence not opened"
    if cited is None:
        return "valid"
    return "NOT BELIEVED" if cited.problem else "valid, evidence checked"


def plan_text(objects: int, *, dooms: bool) -> str:
    """What follows from the objects that a prune plan names, valid or void."""
    named = f"names {render.plural(objects, 'object')}"
    return f"{named}: doomed, writers do not build on them" if dooms else f"{named}, dooms none"


def doom_text(doomed: int | None) -> str:
    """The effect of prune plans on a snapshot; empty if they name nothing of it."""
    if doomed is None:
        return "it is unknown whether a prune plan dooms it"
    return f"doomed: prune plans name {render.plural(doomed, 'object')} of it" if doomed else ""


def flat(value: Any, name: str = "", *, whole: bool = False) -> Iterator[tuple[str, str]]:
    """The members of a signed JSON value as names and texts; a name includes those around it.

    Args:
        value: What was signed.
        name: What it is called.
        whole: Long lists and texts are not cut: for a person who is about to sign it.
    """
    if isinstance(value, Mapping) and value:
        for inner, each in value.items():
            yield from flat(each, f"{name}.{inner}" if name else str(inner), whole=whole)
        return
    if isinstance(value, str) or not isinstance(value, Sequence):
        yield name, _plain(value, whole=whole)
        return
    shown = value if whole else value[:_SHOWN_ITEMS]
    if any(map(_is_nested, value)):
        for number, each in enumerate(shown):
            yield from flat(each, f"{name}.{number}", whole=whole)
    else:
        yield name, " ".join(_plain(each, whole=whole) for each in shown) or _plain(None)
    if len(shown) < len(value):
        yield f"{name} …", f"{len(value) - len(shown):,} more, see --json"


def _is_nested(value: object) -> bool:
    return isinstance(value, Mapping | list | tuple)


def _plain(value: object, *, whole: bool = False) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if not value and value != 0:
        return "none"
    text = str(value)
    cut = len(text) > _SHOWN_TEXT and not whole
    return f"{text[:_SHOWN_TEXT]}… ({len(text):,} characters, see --json)" if cut else text


# --- for programs ---


def view_fields(view: StatementView, cited: CitedEvidence | None) -> dict[str, Any]:
    """The fields of a statement in `vault log`."""
    record = view.record
    return {
        "seq": record.seq,
        "head": str(record.head),
        "type": record.type,
        "effect": view.effect.value,
        "reason": record.reason or None,
        "distrusted_by": record.distrusted_by,
        "signers": [
            {
                "name": each.name,
                "key": each.key,
                "roles": list(each.roles),
                "revoked": each.revoked,
            }
            for each in view.signers
        ],
        "signed": to_rfc3339(record.time) if record.time is not None else None,
        "stored": to_rfc3339(view.stored),
        "datasets": list(view.datasets),
        "dooms": view.dooms,
        "body": body_to_json(record.body) if record.body is not None else None,
        "cites": _cites_fields(cited),
    }


def _cites_fields(cited: CitedEvidence | None) -> dict[str, Any] | None:
    if cited is None:
        return None
    return {
        "digest": cited.digest,
        "borne_out": not cited.problem,
        "problem": cited.problem or None,
        "objects": cited.objects,
    }
