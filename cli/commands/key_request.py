"""`vault key request`: a key for this host, and the request to have it enrolled."""

from pathlib import Path
from typing import Any

import click

from cli.output import render
from cli.session import Invocation, pass_invocation
from vault.crypto.key_files import (
    KeyRequest,
    RepositoryAddress,
    WriterKey,
    load_request,
    load_writer,
    save_request,
    save_writer,
)
from vault.crypto.keys import VerifyKey
from vault.errors import LocalError
from vault.machine.privacy import make_private
from vault.repository.key_names import NEXT_WRITER_FILE, WRITER_FILE
from vault.repository.keyrequests import request_key, request_rotation
from vault.repository.repository import Repository


@click.command()
@click.option("--name", help="The name of this host.")
@click.option(
    "--dataset",
    "datasets",
    metavar="PATTERN",
    multiple=True,
    help="Datasets that it wants to write, for example 'web-*'. Repeatable.",
)
@click.option("--domain", help="Existing domain to share; default: one of its own.")
@click.option("--rotate", is_flag=True, help="Ask for a new key in the place of this host's.")
@click.option(
    "--token",
    metavar="URI",
    help="The new key lies in a token: pkcs11:… names it, and it stays there.",
)
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    required=True,
    help="The request file to write; it is public.",
)
@pass_invocation
def request(
    invocation: Invocation,
    *,
    name: str | None,
    datasets: tuple[str, ...],
    domain: str | None,
    rotate: bool,
    token: str | None,
    out: Path,
) -> None:
    """Make keys for this host, and the request to have them enrolled.

    Needs --repo and --trust 0:DIGEST where no key file names the repository.
    The secret stays here, in writer.key; the request holds none. With --rotate the host keeps
    name, datasets and domain; it writes with its old key until the request is granted, and from
    then on with the new one.
    """
    if rotate and (name or domain):
        raise click.UsageError("--rotate keeps name and domain")
    if not rotate and not (name and datasets):
        raise click.UsageError("--name and --dataset, or --rotate")
    repository = invocation.open(afresh=True)
    key_in_token = None if token is None else invocation.secrets.token_key(token)
    if rotate:
        path = invocation.places.keys / NEXT_WRITER_FILE
        old = invocation.secrets.writer_key(repository)
        writer, wanted = request_rotation(
            repository, old, datasets=datasets, begun=_begun(invocation, path), signing=key_in_token
        )
    else:
        assert name is not None
        path = invocation.places.keys / WRITER_FILE
        writer, wanted = request_key(
            repository,
            repository_address(invocation, repository),
            name=name,
            datasets=datasets,
            domain=domain,
            begun=_begun(invocation, path),
            signing=key_in_token,
        )
    _save_both(path, writer, out, wanted)
    invocation.did(f"the key of this host is made, {path}, and the request {out}")
    fields = {**wanted_fields(wanted), "file": str(out), "key_file": str(path)}
    facts = {
        "request": str(out),
        "secret": f"{path} stays on this host",
        "key": str(fields["key"]),
        "datasets": " ".join(wanted.datasets),
        "domain": wanted.domain,
        "replaces": wanted.replaces,
        "next": f"run 'vault key add {out.name}' where root.key is, and compare the key there",
    }
    text = render.facts({name: value for name, value in facts.items() if value})
    invocation.emit("vault/key-request/v1", {"request": fields}, text)


def repository_address(invocation: Invocation, repository: Repository) -> RepositoryAddress:
    """What a key file says of its repository."""
    location = invocation.location()
    assert location is not None
    return RepositoryAddress(
        id=repository.ledger.repository_id,
        url=location.url,
        endpoint=location.endpoint,
        root=str(invocation.pinned_root()),
    )


def _begun(invocation: Invocation, path: Path) -> WriterKey | None:
    """The key of a request that was killed: written first, so that no request lacks its key."""
    return load_writer(path, pin=invocation.secrets.pin_of) if path.exists() else None


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
    return (found.public, found.name, found.datasets, found.domain, found.replaces) == (
        wanted.public,
        wanted.name,
        wanted.datasets,
        wanted.domain,
        wanted.replaces,
    )


def wanted_fields(wanted: KeyRequest) -> dict[str, Any]:
    """The fields of a request, for programs."""
    return {
        "name": wanted.name,
        "key": VerifyKey.from_der(wanted.public).id,
        "datasets": list(wanted.datasets),
        "domain": wanted.domain,
        "shares_domain": wanted.domain_object is None and not wanted.replaces,
        "replaces": wanted.replaces or None,
    }
