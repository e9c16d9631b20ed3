"""`vault approve request ACT`: what is to be done, written down for people to sign."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from cli.commands.key_root import read_proposal, show_root
from cli.option_values import parse_reason
from cli.output import render
from cli.output.request import request_facts, request_fields
from cli.session import Invocation, pass_invocation
from cli.warrant_choice import save_new_request_file
from vault.crypto.key_files import load_request
from vault.crypto.signers import parse_signer
from vault.durations import parse_duration
from vault.errors import ConfigError
from vault.ledger.statements import Act, Role, StatementType
from vault.model import Body
from vault.repository.agreements import Reasons, ask, replacing
from vault.repository.enrolment import addition, limitation, revocation
from vault.repository.hosts import find_writer
from vault.repository.keyrequests import granted
from vault.repository.repository import Repository, snapshot_body
from vault.repository.roots import require_proposal

_F = TypeVar("_F", bound=Callable[..., Any])


@click.group("request")
def request_act() -> None:
    """Write down an act for people to sign: a file, with your signature as the one who asks."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What every request says."""

    reason: str
    ticket: str
    expires: str
    key: str | None
    out: Path


def asking_options(command: _F) -> _F:
    """The options of every act."""
    options = (
        click.option(
            "--out",
            type=click.Path(dir_okay=False, path_type=Path),
            required=True,
            help="The request file to write; it is public.",
        ),
        click.option("--key", metavar="URI", help="Signs as who asks; by default the role's key."),
        click.option(
            "--expires",
            metavar="DURATION",
            default="72h",
            help="For how long it is good.",
            show_default=True,
        ),
        click.option("--ticket", default="", help="Where it is discussed, for example CHG-123."),
        click.option("--reason", required=True, help="Why, for those who sign."),
    )
    for option in options:
        command = option(command)
    return command


# --- acts ---


@request_act.command(Act.WRITER_ADD)
@click.argument("file", metavar="KEY_REQUEST", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--dataset", "datasets", metavar="PATTERN", multiple=True, help="Fewer datasets.")
@click.option("--share-datasets", metavar="HOST", multiple=True, help="Both write an overlap.")
@click.option("--share-domain", metavar="DOMAIN", help="It joins; needs recovery.key too.")
@asking_options
@pass_invocation
def writer_add(
    invocation: Invocation,
    /,
    *,
    file: Path,
    datasets: tuple[str, ...],
    share_datasets: tuple[str, ...],
    share_domain: str | None,
    **asked: Any,
) -> None:
    """Ask to enrol the host that made a key request; 'key add KEY_REQUEST --warrant' acts.

    Stores the object with the secrets of its domain, which the request names.
    """
    if not file.exists():
        raise ConfigError(f"there is no file {file}")
    wanted = load_request(file)
    repository = invocation.open(afresh=True)

    def stored() -> Body:
        return addition(
            repository,
            wanted,
            recovery_key=lambda: invocation.secrets.recovery_key(repository),
            share=share_domain,
            datasets=datasets,
            share_datasets=share_datasets,
        )

    may = " ".join(granted(wanted, datasets))
    rotates = f" in the place of {wanted.replaces[:16]}" if wanted.replaces else ""
    summary = f"host {wanted.name} gets a key{rotates} and may write {may}"
    write_request(invocation, repository, stored, summary, Asked(**asked))


@request_act.command(Act.WRITER_LIMIT)
@click.argument("host", metavar="NAME_OR_ID")
@click.option(
    "--dataset",
    "datasets",
    metavar="PATTERN",
    multiple=True,
    required=True,
    help="Datasets that it may write from then on. Repeatable.",
)
@asking_options
@pass_invocation
def writer_limit(
    invocation: Invocation, /, *, host: str, datasets: tuple[str, ...], **asked: Any
) -> None:
    """Ask to give a host other datasets; 'key limit NAME --dataset … --warrant' acts."""
    repository = invocation.open(afresh=True)
    found = find_writer(repository.ledger, host)
    before, then = " ".join(found.datasets), " ".join(datasets)
    summary = f"host {found.name} may write {then}, no longer {before}"
    body = limitation(found, datasets=datasets, reason=parse_reason(asked["reason"]))
    write_request(invocation, repository, body, summary, Asked(**asked))


@request_act.command(Act.WRITER_REVOKE)
@click.argument("host", metavar="NAME_OR_ID")
@click.option(
    "--distrust-from",
    type=click.IntRange(min=0),
    metavar="SEQ",
    help="Void what the key wrote from this ledger number on.",
)
@asking_options
@pass_invocation
def writer_revoke(
    invocation: Invocation, /, *, host: str, distrust_from: int | None, **asked: Any
) -> None:
    """Ask to take a host's key off the list; 'key revoke NAME --warrant' acts."""
    repository = invocation.open(afresh=True)
    found = find_writer(repository.ledger, host)
    body = revocation(
        repository, found, distrust_from=distrust_from, reason=parse_reason(asked["reason"])
    )
    summary = f"host {found.name} can write no more"
    if distrust_from is not None:
        lost = [
            each
            for each in repository.ledger.snapshots()
            if each.key_id == found.key.id and each.seq >= distrust_from
        ]
        become = render.plural(len(lost), "snapshot")
        summary += f"; what it wrote from {distrust_from} on is void, {become} of it"
    write_request(invocation, repository, body, summary, Asked(**asked))


@request_act.command(Act.ROOT)
@click.argument("file", metavar="PROPOSAL", type=click.Path(dir_okay=False, path_type=Path))
@asking_options
@pass_invocation
def ask_for_root(invocation: Invocation, /, *, file: Path, **asked: Any) -> None:
    """Ask to put a proposed root in force; 'key root apply PROPOSAL --warrant' acts.

    Where it removes a recipient the act is recipient.remove.
    """
    proposal = read_proposal(file)
    repository = invocation.open(afresh=True)
    require_proposal(repository.ledger, proposal)
    found = show_root(invocation, repository, proposal.body)
    change = f"{len(proposal.body.keys)} keys, {len(proposal.body.recipients)} recipients"
    summary = f"root {proposal.body.version} is in force, with {change}"
    if found.void:
        summary += f"; {render.plural(len(found.void), 'statement')} become void"
    for each in found.removed:
        summary += f"; what is sealed then {each.name} can't open"
    write_request(
        invocation,
        repository,
        proposal.body,
        summary,
        Asked(**asked),
        kind=StatementType.ROOT,
        role=Role.ROOT,
    )


request_act.add_command(ask_for_root, Act.RECIPIENT_REMOVE)


@request_act.command(Act.RESTORE_REPLACE)
@click.argument("snapshot", metavar="SNAPSHOT")
@asking_options
@pass_invocation
def ask_for_replacement(invocation: Invocation, /, *, snapshot: str, **asked: Any) -> None:
    """Ask to put a snapshot in the place of live data; 'restore --replace --warrant' acts."""
    repository = invocation.open(afresh=True)
    record = invocation.snapshot(repository, snapshot)
    body = snapshot_body(record)
    taken = render.moment(repository.ledger.when(record))
    summary = f"live data are exchanged for snapshot {record.seq} of {body.dataset}, taken {taken}"
    write_request(
        invocation,
        repository,
        replacing(record.seq),
        summary,
        Asked(**asked),
        kind=StatementType.RESTORE,
        role=Role.RESTORER,
    )


# --- the file ---


def write_request(
    invocation: Invocation,
    repository: Repository,
    body: Body | Callable[[], Body],
    summary: str,
    asked: Asked,
    *,
    kind: StatementType = StatementType.WRITER,
    role: Role = Role.ENROLLER,
) -> None:
    """Make the request of a statement, sign it as who asks, and write its file.

    Args:
        invocation: Prints it.
        repository: Where the statement is to stand.
        body: Of the statement. One that stores something is called for when the options were
            read and the key is open: without them the repository stays as it was.
        summary: What is lost by it, in words and numbers.
        asked: What the options say.
        kind: Of the statement.
        role: Whose key signs where none is chosen.
    """
    reasons = Reasons(
        summary=summary,
        reason=parse_reason(asked.reason),
        ticket=parse_reason(asked.ticket),
        span=parse_duration(asked.expires),
    )
    if asked.key is None:
        signer = invocation.secrets.signer(repository, role)
    else:
        signer = invocation.secrets.open_signer(repository, parse_signer(asked.key))
    made = body() if callable(body) else body
    file = ask(repository, kind, made, reasons, signer)
    save_new_request_file(asked.out, file)
    invocation.did(f"the request is written, {asked.out}")
    facts = request_facts(file, repository.ledger, invocation.clock())
    facts.pop("if you sign this")
    facts["next"] = f"others run 'vault approve sign {asked.out.name} --key URI'"
    fields = {"file": str(asked.out), **request_fields(file, repository.ledger)}
    invocation.emit("vault/approve-request/v1", {"request": fields}, render.facts(facts))
