"""`vault key`: the keys that may sign: hosts, people and the root that lists them."""

import click

from cli.commands.key_add import add, place_fields
from cli.commands.key_files import export, new, passwd, split
from cli.commands.key_request import request
from cli.commands.key_reseal import reseal
from cli.commands.key_root import root
from cli.option_values import parse_reason
from cli.output import render
from cli.output.lost_attempts import LostAttempts
from cli.session import TOOL, Invocation, pass_invocation
from cli.warrant_choice import agreed_text, chosen_request, warrant_option
from vault.ledger.statements import Role
from vault.repository.enrolment import limit_writer, revoke_writer
from vault.repository.hosts import ID_DIGITS, find_writer
from vault.repository.key_inventory import ListedKey, due_reviews, listed_keys

_HEADINGS = (
    *("name", "key", "roles", "person", "datasets", "domain"),
    *("added", "revoked", "distrust from", "review"),
)


@click.group()
def key() -> None:
    """Enrol hosts, give people keys, and change the root that says who may do what."""


for command in (request, add, root, new, split, passwd, export, reseal):
    key.add_command(command)


# --- list ---


@key.command("list")
@click.option("--all", "show_all", is_flag=True, help="Also keys that an earlier root listed.")
@pass_invocation
def list_keys(invocation: Invocation, *, show_all: bool) -> None:
    """List the keys that may sign, and those of hosts that were revoked; needs no secret.

    A key of a host that was rotated says which key it replaces. A review date asks whether the key
    is still wanted; it ends nothing.
    """
    repository = invocation.open(afresh=True)
    invocation.report_findings(repository)
    keys = [
        each
        for each in listed_keys(repository.ledger)
        if show_all or each.removed is None or Role.WRITER in each.roles
    ]
    for each in due_reviews(keys, invocation.clock()):
        invocation.warn(f"the review of key {each.name} is due since {each.review}")
    fields = {"keys": list(map(_fields, keys))}
    text = render.table(
        _HEADINGS, map(_row, keys), right={1, 6, 7, 8}, width=render.terminal_width()
    )
    invocation.emit("vault/key-list/v1", fields, text)


def _fields(each: ListedKey) -> dict[str, object]:
    return {
        "name": each.name,
        "key": each.key.id,
        "roles": list(each.roles),
        "person": each.person or None,
        "review": each.review or None,
        "datasets": list(each.datasets),
        "domain": each.domain,
        "added": each.added,
        "revoked": each.removed,
        "distrust_from": each.distrust_from,
        "replaces": each.replaces or None,
        "last": each.last,
        "statements": each.statements,
    }


def _row(each: ListedKey) -> tuple[object, ...]:
    def or_blank(value: object) -> object:
        return "" if value is None else value

    return (
        each.name,
        each.key.id[:ID_DIGITS],
        " ".join(each.roles),
        each.person,
        " ".join(each.datasets),
        or_blank(each.domain),
        each.added,
        or_blank(each.removed),
        or_blank(each.distrust_from),
        each.review,
    )


# --- limit ---


@key.command()
@click.argument("host", metavar="NAME_OR_ID")
@click.option(
    "--dataset",
    "datasets",
    metavar="PATTERN",
    multiple=True,
    required=True,
    help="Datasets that it may write from now on. Repeatable.",
)
@click.option(
    "--share-datasets",
    metavar="HOST",
    multiple=True,
    help="Agree that both hosts write the datasets in which they overlap. Repeatable.",
)
@click.option("--reason", help="Goes into the ledger, for everyone to read.")
@warrant_option
@pass_invocation
def limit(
    invocation: Invocation,
    *,
    host: str,
    datasets: tuple[str, ...],
    share_datasets: tuple[str, ...],
    reason: str | None,
    warrant: str | None,
) -> None:
    """Say which datasets a host may write from now on. Needs root.key.

    What it has published stays valid. New patterns must not overlap with those of another host,
    unless --share-datasets names that host.
    """
    repository = invocation.open(afresh=True)
    found = find_writer(repository.ledger, host)
    agreed = chosen_request(repository, warrant)
    record = limit_writer(
        repository,
        invocation.secrets.signer(repository, Role.ENROLLER),
        found,
        datasets=datasets,
        share_datasets=share_datasets,
        reason=parse_reason(agreed_text(agreed, "reason", reason)),
        tool=TOOL,
        agreed=None if agreed is None else agreed.request,
    )
    invocation.did(f"host {found.name} is limited, head {record.head}")
    invocation.remember(repository)
    fields = {
        "name": found.name,
        "key": found.key.id,
        "datasets": list(datasets),
        **place_fields(record),
    }
    text = render.facts(
        {
            "limited": found.name,
            "key": found.key.id,
            "datasets": " ".join(datasets),
            "head": str(record.head),
        }
    )
    invocation.emit("vault/key-limit/v1", {"key": fields}, text)


# --- revoke ---


@key.command()
@click.argument("writer", metavar="NAME_OR_ID")
@click.option(
    "--distrust-from",
    type=click.IntRange(min=0),
    metavar="SEQ",
    help="Void what the key wrote from this ledger number on.",
)
@click.option("--reason", help="Goes into the ledger, for everyone to read.")
@warrant_option
@pass_invocation
def revoke(
    invocation: Invocation,
    *,
    writer: str,
    distrust_from: int | None,
    reason: str | None,
    warrant: str | None,
) -> None:
    """Take a host's key off the list. Needs root.key.

    If the key was stolen, first take away the host's credentials of the store: with them a thief
    near the store can append faster than you. The command tries 10,000 times without a pause, and
    says how often others came first. What the key wrote before stays valid, unless --distrust-from
    SEQ voids it from SEQ on.
    """
    invocation.warn(
        f"if the key was stolen, first take away the store credentials of {writer}:"
        " a thief who has them can append faster than this command"
    )
    repository = invocation.open(afresh=True)
    found = find_writer(repository.ledger, writer)
    agreed = chosen_request(repository, warrant)
    if distrust_from is None and agreed is not None:
        distrust_from = agreed.values.get("distrust_from")
    lost = LostAttempts(invocation.warn)
    record = revoke_writer(
        repository,
        invocation.secrets.signer(repository, Role.ENROLLER),
        found,
        distrust_from=distrust_from,
        reason=parse_reason(agreed_text(agreed, "reason", reason)),
        tool=TOOL,
        insist=lost,
        agreed=None if agreed is None else agreed.request,
    )
    invocation.did(f"key {found.key.id} of {found.name} is revoked, head {record.head}")
    invocation.remember(repository)
    fields = {
        "name": found.name,
        "key": found.key.id,
        "distrust_from": distrust_from,
        "lost": lost.count,
        **place_fields(record),
    }
    facts = {"revoked": found.name, "key": found.key.id, "head": str(record.head)}
    if lost.count:
        facts["lost"] = lost.text
    invocation.emit("vault/key-revoke/v1", {"key": fields}, render.facts(facts))
