"""`vault key reseal`: lets a later recipient open what was sealed before a root listed it."""

import click

from cli.commands.key_add import place_fields
from cli.exits import EXIT_DEGRADED
from cli.output import progress, render
from cli.session import TOOL, Invocation, pass_invocation
from cli.warrant_choice import chosen_request, warrant_option
from vault.repository.hosts import ID_DIGITS
from vault.repository.reseal import Resealed, find_recipient, gather_seeds, store_seeds

_NAMED = 5  # objects that could not be opened


@click.command()
@click.option(
    "--to",
    "name",
    metavar="RECIPIENT",
    required=True,
    help="Name of a recipient in the root in force, or the first 16 digits of its id.",
)
@click.option(
    "--from",
    "since",
    type=click.IntRange(min=0),
    metavar="SEQ",
    default=0,
    help="Only what snapshots from this ledger number on need; default: all.",
)
@click.option(
    "--through",
    type=click.IntRange(min=0),
    metavar="SEQ",
    help="Only what snapshots up to this number need; default: all, or what people agreed to.",
)
@warrant_option
@pass_invocation
def reseal(
    invocation: Invocation, *, name: str, since: int, through: int | None, warrant: str | None
) -> int:
    """Open older snapshots to a recipient that a new root lists. Needs an older recovery.key.

    Reads the header of each pack once, and seals the seeds of the sessions that RECIPIENT can't
    open to its key. No pack is written again. Exit 3: some objects could not be opened here.
    """
    repository = invocation.open(afresh=True)
    target = find_recipient(repository.ledger, name)
    agreed = chosen_request(repository, warrant)
    if through is None and agreed is not None:
        through = agreed.values.get("through")
    recovery = invocation.secrets.attesting_key(repository)
    with progress.shown(quiet=invocation.options.quiet) as shown:
        gathered = gather_seeds(
            repository,
            recovery.recipient,
            target,
            since=since,
            through=through,
            progress=shown,
        )
        done = store_seeds(
            repository,
            gathered,
            recovery.restorer,
            tool=TOOL,
            agreed=None if agreed is None else agreed.request,
        )
    for record in done.records:
        invocation.did(f"seeds are sealed to {target.name}, head {record.head}")
    if done.records:
        invocation.remember(repository)
    _warn(invocation, done)
    invocation.emit("vault/key-reseal/v1", {"reseal": _fields(done)}, _text(done))
    return EXIT_DEGRADED if gathered.unopened or gathered.unread else 0


def _warn(invocation: Invocation, done: Resealed) -> None:
    gathered = done.gathered
    for seq in gathered.unread[:_NAMED]:
        invocation.warn(
            f"the inventory of snapshot {seq} can't be used: its packs were not looked at"
        )
    for each in gathered.unopened[:_NAMED]:
        invocation.warn(f"{each} does not open with this recovery key, and is not resealed")
    more = len(gathered.unopened) - _NAMED
    if more > 0:
        invocation.warn(f"and {render.plural(more, 'more object')}")


def _fields(done: Resealed) -> dict[str, object]:
    gathered = done.gathered
    return {
        "recipient": gathered.target.name,
        "id": str(gathered.target.id),
        "through": gathered.through,
        "objects": gathered.objects,
        "sealed_before": gathered.sealed,
        "sessions": len(gathered.seeds),
        "unopened": list(gathered.unopened),
        "unread_snapshots": list(gathered.unread),
        "tables": [{"name": each.ref.name, "bytes": each.ref.size} for each in done.tables],
        "statements": [place_fields(record) for record in done.records],
    }


def _text(done: Resealed) -> str:
    gathered = done.gathered
    facts = {
        "recipient": f"{gathered.target.name} {str(gathered.target.id)[:ID_DIGITS]}",
        "looked at": f"{render.plural(gathered.objects, 'object')} of the snapshots up to"
        f" {gathered.through}; {gathered.sealed} were sealed to it before",
        "resealed": f"{render.plural(len(gathered.seeds), 'session')} in"
        f" {render.plural(len(done.tables), 'table')}"
        if done.records
        else "nothing: it lacks nothing that this key opens",
    }
    if done.records:
        facts["head"] = str(done.records[-1].head)
    return render.facts(facts)
