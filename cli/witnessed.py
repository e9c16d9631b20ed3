"""What witnesses say of a ledger, in text and in JSON, and what vouches for its end."""

from datetime import timedelta
from typing import Any

from cli.option_values import format_age
from cli.output import render
from cli.session import Invocation
from vault.clock import to_rfc3339
from vault.ledger.checkpoints import Standing
from vault.ledger.witnessed import ASK_A_WITNESS, Witnessed
from vault.repository.repository import Repository


def vouching_of(invocation: Invocation, repository: Repository) -> str | None:
    """What vouches, after it was noted; None after a warning that nothing does.

    A checkpoint of a quorum of witnesses does, by its time; a head that was named with ``--trust``
    or ``--accept-head``; else the head that this machine remembers. A cold machine has only the
    first two (docs/design.md "Trust").
    """
    witnessed = repository.witnessed
    if witnessed.vouches and witnessed.checkpoint is not None:
        found = witnessed.checkpoint
        who = render.plural(len(found.cosigned), "witness")
        invocation.note(
            f"newest as of {render.moment(found.time)}, by {who}: {found.note.size} statements"
        )
        return "checkpoint"
    if any(floor.seq for floor in invocation.floors) or invocation.options.accept_head:
        return "trust"
    if repository.log.history.knows_head:
        return "memory"
    age = invocation.clock() - repository.ledger.stored(repository.ledger.records[-1])
    step = (
        "--trust SEQ:DIGEST names a later statement that must be there"
        if witnessed.standing is Standing.UNASKED
        else ASK_A_WITNESS
    )
    invocation.warn(
        f"not proven newest: the ledger ends with {repository.head.seq}, which is"
        f" {format_age(max(age, timedelta()))} old; {step}"
    )
    return None


def witnessed_fields(found: Witnessed) -> dict[str, Any]:
    """For JSON; size and time are null where no checkpoint counts."""
    checkpoint = found.checkpoint
    return {
        "standing": found.standing.value,
        "size": checkpoint.note.size if checkpoint else None,
        "time": to_rfc3339(checkpoint.time) if checkpoint else None,
        "cosignatures": [
            {"name": name, "time": to_rfc3339(moment)}
            for name, moment in sorted(checkpoint.cosigned.items())
        ]
        if checkpoint
        else [],
    }


def witnessed_text(found: Witnessed) -> str:
    """In one line."""
    if found.checkpoint is None:
        return f"{found.standing}: {found.why}"
    checkpoint = found.checkpoint
    names = ", ".join(sorted(checkpoint.cosigned))
    text = f"{checkpoint.note.size} statements, {render.moment(checkpoint.time)}, by {names}"
    return text if found.vouches else f"{found.standing}: {text}"
