"""`vault key`: enrol, list and revoke the hosts that may write."""

import dataclasses
from pathlib import Path
from typing import Any

import click

from cli.output import render
from cli.session import TOOL, Invocation, pass_invocation
from vault.crypto.keyfiles import (
    KeyRequest,
    RepositoryAddress,
    WriterKey,
    load_request,
    load_writer,
    save_request,
    save_writer,
)
from vault.crypto.keys import VerifyKey
from vault.encoding import b64decode_strict
from vault.errors import ConfigError, LocalError
from vault.ledger.records import Record, WriterInfo
from vault.ledger.statements import Role, StatementType
from vault.machine.privacy import make_private
from vault.repository.enrolment import (
    WRITER_FILE,
    add_writer,
    find_writer,
    request_key,
    revoke_writer,
)
from vault.repository.repository import Repository

_HEADINGS = ("name", "key", "roles", "datasets", "domain", "added", "revoked", "distrust from")


@click.group()
def key() -> None:
    """Enrol, list and revoke the hosts that may write."""


# --- request ---


@key.command()
@click.option("--name", required=True, help="Of this host.")
@click.option(
    "--dataset",
    "datasets",
    metavar="PATTERN",
    multiple=True,
    required=True,
    help="What it wants to write, for example 'web-*'. Repeatable.",
)
@click.option("--domain", help="Existing domain to share; default: one of its own.")
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    required=True,
    help="The request file to write; it is public.",
)
@pass_invocation
def request(
    invocation: Invocation, name: str, datasets: tuple[str, ...], domain: str | None, out: Path
) -> None:
    """Make keys for this host, and the request to have them enrolled.

    Needs --repo and --trust 0:DIGEST where no key file names the repository.
    The secret stays here, in writer.key; the request holds none.
    """
    repository = invocation.open(afresh=True)
    location = invocation.location()
    assert location is not None
    address = RepositoryAddress(
        id=repository.ledger.repository_id,
        url=location.url,
        endpoint=location.endpoint,
        root=str(invocation.pinned_root()),
    )
    path = invocation.places.keys / WRITER_FILE
    writer, wanted = request_key(
        repository, address, name=name, datasets=datasets, domain=domain, begun=_begun(path)
    )
    _save_both(path, writer, out, wanted)
    invocation.did(f"the key of this host is made, {path}, and the request {out}")
    fields = {**_wanted_fields(wanted), "file": str(out), "key_file": str(path)}
    text = render.facts(
        {
            "request": str(out),
            "secret": f"{path} stays on this host",
            "key": str(fields["key"]),
            "next": f"run 'vault key add {out.name}' where root.key is",
        }
    )
    invocation.emit("vault/key-request/v1", {"request": fields}, text)


def _begun(path: Path) -> WriterKey | None:
    """The key of a request that was killed: written first, so that no request lacks its key."""
    return load_writer(path) if path.exists() else None


def _save_both(path: Path, writer: WriterKey, out: Path, wanted: KeyRequest) -> None:
    """The key, if it is new, then the request; no new key stays if the request can't be made."""
    new = not path.exists()
    if not new and out.exists() and _is_same(load_request(out), wanted):
        return
    if new:
        try:
            make_private(path.parent)
        except OSError as error:
            raise LocalError(f"can't make {path.parent}", found=error.strerror) from error
        save_writer(path, writer)
    try:
        save_request(out, wanted)
    except BaseException:
        if new:
            path.unlink()
        raise


def _is_same(found: KeyRequest, wanted: KeyRequest) -> bool:
    return (found.public, found.name, found.datasets, found.domain) == (
        wanted.public,
        wanted.name,
        wanted.datasets,
        wanted.domain,
    )


def _wanted_fields(wanted: KeyRequest) -> dict[str, Any]:
    return {
        "name": wanted.name,
        "key": VerifyKey.from_der(wanted.public).id,
        "datasets": list(wanted.datasets),
        "domain": wanted.domain,
        "shares_domain": wanted.domain_object is None,
    }


# --- add ---


@key.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--share-domain",
    metavar="DOMAIN",
    help="Agree that the host joins this domain; needs recovery.key too.",
)
@pass_invocation
def add(invocation: Invocation, file: Path, share_domain: str | None) -> None:
    """Enrol the host that made a request FILE. Needs root.key.

    Compare the key that is printed with the one the host printed.
    """
    if not file.exists():
        raise ConfigError(f"there is no file {file}")
    wanted = load_request(file)
    repository = invocation.open(afresh=True)
    record = add_writer(
        repository,
        wanted,
        invocation.root_key(repository),
        recovery_key=lambda: invocation.recovery_key(repository),
        share=share_domain,
        tool=TOOL,
    )
    invocation.did(f"host {wanted.name} is enrolled, head {record.head}")
    invocation.remember(repository)
    fields = {**_wanted_fields(wanted), **_place(record)}
    text = render.facts(
        {
            "host": wanted.name,
            "key": str(fields["key"]),
            "datasets": " ".join(wanted.datasets),
            "domain": wanted.domain,
            "head": str(record.head),
        }
    )
    invocation.emit("vault/key-add/v1", {"key": fields}, text)


def _place(record: Record) -> dict[str, Any]:
    return {"seq": record.seq, "head": str(record.head)}


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
    )


def _row(each: _Listed) -> tuple[object, ...]:
    def or_blank(value: object) -> object:
        return "" if value is None else value

    return (
        each.name,
        each.key[:12],
        " ".join(each.roles),
        " ".join(each.datasets),
        or_blank(each.domain),
        each.added,
        or_blank(each.revoked),
        or_blank(each.distrust_from),
    )


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

    What it wrote before stays, unless --distrust-from says that it is not to be believed.
    """
    repository = invocation.open(afresh=True)
    found = find_writer(repository.ledger, writer)
    record = revoke_writer(
        repository,
        invocation.root_key(repository),
        found,
        distrust_from=distrust_from,
        reason=reason,
        tool=TOOL,
    )
    invocation.did(f"key {found.key.id} of {found.name} is revoked, head {record.head}")
    invocation.remember(repository)
    fields = {
        "name": found.name,
        "key": found.key.id,
        "distrust_from": distrust_from,
        **_place(record),
    }
    text = render.facts({"revoked": found.name, "key": found.key.id, "head": str(record.head)})
    invocation.emit("vault/key-revoke/v1", {"key": fields}, text)
