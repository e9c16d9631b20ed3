"""Requests that people sign: for people, and for programs."""

from datetime import datetime
from typing import Any

from cli.output import render
from cli.output.statement import flat
from vault.ledger.chain import Ledger
from vault.ledger.request_files import RequestFile
from vault.ledger.warrants import Request, terms_members
from vault.repository.agreements import (
    Consent,
    RequestState,
    consent,
    holders_of,
    name_of,
    why_over,
)
from vault.repository.hosts import ID_DIGITS


def request_facts(file: RequestFile, ledger: Ledger | None, now: datetime) -> dict[str, str]:
    """All that a person should read before signing.

    Args:
        file: What was given.
        ledger: To name people by, and to say who is still needed; None if it can't be read.
        now: The time; a request that has expired is over.
    """
    terms = file.request.terms
    facts = {
        "act": terms.act,
        "summary": terms.summary,
        "reason": terms.reason,
        "ticket": terms.ticket,
        "asked by": _name(terms.requester, ledger),
        "good": f"from {render.moment(terms.not_before)} until {render.moment(terms.expires)}",
        "repository": f"{terms.repository}, under root {terms.root}, with {terms.floor}",
    }
    facts |= {f"values {name}": text for name, text in flat(dict(file.values), whole=True)}
    if ledger is None:
        claimed = (each.keyid[:ID_DIGITS] for each in file.request.envelope.signatures)
        facts["claims to be signed by"] = ", ".join(claimed)
        facts["not checked"] = "who signed, whether it was used, and what the root wants"
    else:
        facts["state"] = _state(file.request, ledger, now)
        facts["signed by"] = ", ".join(_signers(file.request, ledger))
        facts |= _consent_facts(consent(ledger, file.request))
    facts["if you sign this"] = f"you agree to {terms.act}: {terms.summary}"
    return {name: text for name, text in facts.items() if text}


def _state(request: Request, ledger: Ledger, now: datetime) -> str:
    over = why_over(ledger, request, now)
    if over:
        return f"{over}: no act can rest on it"
    if request.terms.requester not in request.signers(ledger.keys):
        return "not signed by who is said to ask: no act can rest on it so far"
    return "open"


def _consent_facts(found: Consent | None) -> dict[str, str]:
    if found is None:
        return {"the root wants": "no approval for this act"}
    wanted = f"{found.threshold} with the role {found.role}, other than who asks and who acts"
    left = found.threshold - len(found.approved)
    facts = {"the root wants": wanted, "approved by": ", ".join(found.approved) or "none yet"}
    if left > 0:
        facts["still needed"] = f"{left} of {', '.join(found.could) or 'no one who is listed'}"
    return facts


def _signers(request: Request, ledger: Ledger) -> list[str]:
    keys = request.signers(ledger.keys)
    others = len(request.envelope.signatures) - len(keys)
    more = [f"{render.plural(others, 'key')} not listed now"] if others > 0 else []
    return [*(_name(key_id, ledger) for key_id in keys), *more]


def _name(key_id: str, ledger: Ledger | None) -> str:
    name = key_id if ledger is None else name_of(ledger, key_id)
    short = key_id[:ID_DIGITS]
    return short if name == key_id else f"{name} {short}"


def request_fields(file: RequestFile, ledger: Ledger | None) -> dict[str, Any]:
    """The same for programs."""
    request = file.request
    found = None if ledger is None else consent(ledger, request)
    return {
        **terms_members(request.terms),
        "id": str(request.id),
        "values": dict(file.values),
        "signers": None if ledger is None else list(request.signers(ledger.keys)),
        "approval": None
        if found is None
        else {
            "role": str(found.role),
            "threshold": found.threshold,
            "approved": list(found.approved),
            "could": list(found.could),
        },
    }


def state_fields(state: RequestState) -> dict[str, Any]:
    """One request of the ledger, for programs."""
    return {
        "seq": state.seq,
        **terms_members(state.request.terms),
        "id": str(state.request.id),
        "signers": list(state.signers),
        "used_by": state.used_by,
        "problem": state.problem or None,
    }


def state_row(state: RequestState, ledger: Ledger) -> tuple[object, ...]:
    """The same for people, as cells of a table."""
    terms = state.request.terms
    return (
        state.seq,
        terms.act,
        name_of(ledger, terms.requester),
        ", ".join(holders_of(ledger, state.signers)),
        render.moment(terms.expires),
        state.problem or "open",
        terms.summary,
    )
