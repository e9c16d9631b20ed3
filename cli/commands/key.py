"""`vault key`: enrol, limit, list and revoke the hosts that may write."""

import dataclasses

import click

from cli.commands.key_add import add, place_fields
from cli.commands.key_request import request
from cli.commands.key_reseal import reseal
from cli.option_values import parse_reason
from cli.output import render
from cli.session import TOOL, Invocation, pass_invocation
from vault.crypto.keys import VerifyKey
from vault.encoding import b64decode_strict
from vault.ledger.records import WriterInfo
from vault.ledger.statements import Role, StatementType
from vault.repository.enrolment import limit_writer, revoke_writer
from vault.repository.hosts import ID_DIGITS, find_writer
from vault.repository.repository import Repository

_HEADINGS = ("name", "key", "roles", "datasets", "domain", "added", "revoked", "distrust from")


@click.group()
def key() -> None:
    """Enrol, limit, list and revoke the hosts that may write."""


key.add_command(request)
key.add_command(add)
key.add_command(reseal)


# --- list ---


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Listed:
    """One key that the ledger lists or listed."""

    name: str
    key: str  # id, hex
    roles: list[str]
    datasets: list[str]
    domain: str | None
    added: int  # seq
    revoked: int | None
    distrust_from: int | None
    replaces: str | None = None  # id of the host's key before


@key.command("list")
@pass_invocation
def list_keys(invocation: Invocation) -> None:
    """List the keys that may sign, and those that were revoked; needs no secret."""
    repository = invocation.open(afresh=True)
    invocation.report_findings(repository)
    keys = [*_root_keys(repository), *map(_writer, repository.ledger.writers.values())]
    fields = {"keys": [dataclasses.asdict(each) for each in keys]}
    text = render.table(
        _HEADINGS, map(_row, keys), right={1, 5, 6, 7}, width=render.terminal_width()
    )
    invocation.emit("vault/key-list/v1", fields, text)


def _root_keys(repository: Repository) -> list[_Listed]:
    """Keys of the root in force; added by the root that is in force."""
    added = max(record.seq for record in repository.ledger.valid(StatementType.ROOT))
    return [
        _Listed(
            name=listed.name,
            key=VerifyKey.from_der(b64decode_strict(listed.public)).id,
            roles=[str(role) for role in listed.roles],
            datasets=[],
            domain=None,
            added=added,
            revoked=None,
            distrust_from=None,
        )
        for listed in repository.ledger.root.keys
    ]


def _writer(writer: WriterInfo) -> _Listed:
    return _Listed(
        name=writer.name,
        key=writer.key.id,
        roles=[Role.WRITER.value],
        datasets=list(writer.datasets),
        domain=writer.domain.name if writer.domain else None,
        added=writer.added,
        revoked=writer.revoked,
        distrust_from=writer.distrust_from,
        replaces=writer.replaces or None,
    )


def _row(each: _Listed) -> tuple[object, ...]:
    def or_blank(value: object) -> object:
        return "" if value is None else value

    return (
        each.name,
        each.key[:ID_DIGITS],
        " ".join(each.roles),
        " ".join(each.datasets),
        or_blank(each.domain),
        each.added,
        or_blank(each.revoked),
        or_blank(each.distrust_from),
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
@click.option("--reason", default="", help="Goes into the ledger, for everyone to read.")
@pass_invocation
def limit(
    invocation: Invocation,
    *,
    host: str,
    datasets: tuple[str, ...],
    share_datasets: tuple[str, ...],
    reason: str,
) -> None:
    """Say which datasets a host may write from now on. Needs root.key.

    What it has published stays valid. New patterns must not overlap with those of another host,
    unless --share-datasets names that host.
    """
    repository = invocation.open(afresh=True)
    found = find_writer(repository.ledger, host)
    record = limit_writer(
        repository,
        invocation.signer(repository, Role.ENROLLER),
        found,
        datasets=datasets,
        share_datasets=share_datasets,
        reason=parse_reason(reason),
        tool=TOOL,
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
@click.option("--reason", default="", help="Goes into the ledger, for everyone to read.")
@pass_invocation
def revoke(invocation: Invocation, writer: str, distrust_from: int | None, reason: str) -> None:
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
    lost = _Lost(invocation)
    record = revoke_writer(
        repository,
        invocation.signer(repository, Role.ENROLLER),
        found,
        distrust_from=distrust_from,
        reason=parse_reason(reason),
        tool=TOOL,
        insist=lost,
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
        facts["lost"] = f"{render.plural(lost.count, 'attempt')}: others appended first"
    invocation.emit("vault/key-revoke/v1", {"key": fields}, render.facts(facts))


class _Lost:
    """Counts the attempts that others won, and reports the count at 1, 10, 100 and so on."""

    def __init__(self, invocation: Invocation) -> None:
        self._invocation = invocation
        self.count = 0

    def __call__(self, count: int) -> None:
        self.count = count
        if str(count).strip("0") == "1":
            self._invocation.warn(
                f"others appended first, {render.plural(count, 'time')} so far; going on"
            )
