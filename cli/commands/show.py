"""`vault show`: all of one statement of the ledger; needs no secret."""

from collections.abc import Iterator, Mapping
from typing import Any

import click

from cli.exits import EXIT_INTEGRITY
from cli.output import render, statement
from cli.session import Invocation, pass_invocation
from vault.clock import to_rfc3339
from vault.encoding import loads_strict
from vault.ledger.envelope import parse_envelope
from vault.ledger.records import Record
from vault.ledger.statements import SnapshotBody
from vault.model import body_to_json
from vault.repository.describe_statements import (
    Chronicle,
    CitedEvidence,
    Effect,
    SignedBy,
    StatementView,
    doomed_needs,
    later_about,
    look_up,
    statement_at,
)
from vault.repository.repository import Repository

_SHOWN = 20  # later statements


@click.command()
@click.argument("seq", metavar="SEQ", type=click.IntRange(min=0))
@pass_invocation
def show(invocation: Invocation, *, seq: int) -> int:
    """Show all of the statement SEQ of the ledger: 'vault log' and warnings name numbers.

    Needs no key. Shows its effect, the key that signed it, the times of both clocks, the signed
    text, the evidence that it cites, opened and checked, and later statements about it. Exit 4:
    the evidence is missing, or says something else.
    """
    repository = invocation.open()
    record = statement_at(repository.ledger, seq)
    view = Chronicle(repository.ledger).view(record)
    cited = look_up(repository, record)
    signed = _signed(repository, record)
    later = later_about(repository.ledger, record)
    is_snapshot = isinstance(record.body, SnapshotBody) and view.effect is Effect.VALID
    doomed = doomed_needs(repository, record) if is_snapshot else None
    fields = {
        "statement": {
            **statement.view_fields(view, cited),
            "doomed": doomed,
            "tool": signed.get("tool"),
            "prev": signed.get("prev"),
            "version": record.version,
            "body": signed.get("body"),
        },
        "attestation": body_to_json(cited.attestation)
        if cited is not None and cited.attestation is not None
        else None,
        "later": [{"seq": each.seq, "type": each.type} for each in later],
    }
    facts = _facts(view, cited, signed, statement.doom_text(doomed) if is_snapshot else "")
    if later:
        facts["later"] = ", ".join(f"{each.seq} {each.type}" for each in later[:_SHOWN])
        facts["later"] += f", {len(later) - _SHOWN} more" if len(later) > _SHOWN else ""
    text = "\n\n".join(_sections(facts, cited, signed))
    invocation.emit("vault/show/v1", fields, text)
    return EXIT_INTEGRITY if cited is not None and cited.problem else 0


def _signed(repository: Repository, record: Record) -> Mapping[str, Any]:
    """The predicate as it was signed, of any type; the envelope was verified when it linked."""
    payload = loads_strict(parse_envelope(repository.log.envelope_of(record)).payload)
    assert isinstance(payload, dict)
    predicate = payload["predicate"]
    assert isinstance(predicate, dict)
    return predicate


def _facts(
    view: StatementView, cited: CitedEvidence | None, signed: Mapping[str, Any], doom: str
) -> dict[str, str]:
    record = view.record
    off = ", far from the store's time" if view.is_skewed else ""
    facts = {
        "statement": str(record.head),
        "type": record.type,
        "outcome": statement.effect_text(view, cited, opened=True),
        "reason": record.reason,
        "what": statement.deed(record.body),
        "signed by": "; ".join(map(_signer, view.signers)),
        "key": " ".join(each.key for each in view.signers),
        "signed at": f"{_time(record)} by the signer's clock{off}",
        "stored at": f"{to_rfc3339(view.stored)} by the store's clock, at the latest",
        "tool": str(signed.get("tool", "")),
        "datasets": " ".join(view.datasets),
        "evidence": _evidence(view, cited),
        "doomed": doom,
    }
    return {name: text for name, text in facts.items() if text}


def _signer(signer: SignedBy) -> str:
    roles = f", role {' '.join(signer.roles)}" if signer.roles else ""
    revoked = f", revoked or replaced at {signer.revoked}" if signer.revoked is not None else ""
    return f"{signer.name or 'a key that is not listed'}{roles}{revoked}"


def _time(record: Record) -> str:
    return to_rfc3339(record.time) if record.time is not None else "no time"


def _evidence(view: StatementView, cited: CitedEvidence | None) -> str:
    if cited is None:
        return ""
    if cited.problem:
        return f"{cited.digest}: does not bear it out: {cited.problem}"
    what = (
        "says the same"
        if cited.objects is None
        else statement.plan_text(cited.objects, dooms=view.dooms)
    )
    return f"{cited.digest}: opened, {what}"


def _sections(
    facts: Mapping[str, str], cited: CitedEvidence | None, signed: Mapping[str, Any]
) -> Iterator[str]:
    yield render.facts(facts)
    body = list(statement.flat(signed.get("body")))
    if body:
        yield render.table(("signed", ""), body)
    details = list(statement.flat(cited.details)) if cited is not None else []
    if details:
        yield render.table(("attested", ""), details)
