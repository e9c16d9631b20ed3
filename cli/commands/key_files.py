"""`vault key new`, `split`, `passwd` and `export`: files of keys, secret and public."""

from pathlib import Path

import click

from cli.commands import init
from cli.commands.key_request import repository_address
from cli.commands.key_root import agree_to_root, emit_applied, root_signers, show_root
from cli.output import render
from cli.output.lost_attempts import LostAttempts
from cli.session import TOOL, Invocation, pass_invocation
from vault.crypto.key_files import change_passphrase, peek
from vault.crypto.public_keys import public_file, to_pem
from vault.errors import ConfigError, LocalError
from vault.ledger.statements import Role, RootBody
from vault.machine.coredumps import forbid_dumps
from vault.repository.key_inventory import listed_keys
from vault.repository.key_names import SPLIT_ROLES
from vault.repository.role_keys import (
    MADE_ROLES,
    new_role_key,
    save_public,
    split_keys,
)
from vault.repository.root_changes import missing_signers
from vault.repository.roots import apply_root, propose

_FILE = click.Path(dir_okay=False, path_type=Path)
_WEAK = click.option(
    "--weak-passphrase",
    is_flag=True,
    help="Take a passphrase of less than 12 characters and 4 words.",
)


# --- new ---


@click.command()
@click.option(
    "--role",
    type=click.Choice([role.value for role in MADE_ROLES]),
    required=True,
    help="What the key is for.",
)
@click.option("--out", type=_FILE, help="The key file to make, sealed under a passphrase.")
@click.option("--token", metavar="URI", help="The key lies in a token: pkcs11:… names it.")
@click.option(
    "--public", type=_FILE, required=True, help="The public file to make, which is handed over."
)
@_WEAK
@pass_invocation
def new(
    invocation: Invocation,
    *,
    role: str,
    out: Path | None,
    token: str | None,
    public: Path,
    weak_passphrase: bool,
) -> None:
    """Make a key for a person, and the public file to hand over.

    Nothing lists the key yet: 'vault key root propose --add NAME=FILE:ROLE' does, where the root
    is changed; compare the key id there. The public file is PEM, with a proof that its holder has
    the key. A restorer's key is a recovery key: it opens what is sealed to it, once it is a
    recipient too (--recipient-add). Needs --repo and --trust 0:DIGEST where no key file names the
    repository.
    """
    if (out is None) == (token is None):
        raise click.UsageError("--out for a key file, or --token for a key in a token")
    if public.exists() or public == out:  # nothing else could make it anew, once the key is there
        raise ConfigError(f"{public} exists or is the key file, and is never overwritten")
    repository = invocation.open(afresh=True)
    address = repository_address(invocation, repository)
    if token is not None:
        text = public_file(invocation.secrets.token_key(token), address.id)
    else:
        assert out is not None
        secret = invocation.secrets.new_passphrase(f"the new {out.name}", weak=weak_passphrase)
        text = new_role_key(out, address, Role(role), secret, cost=init.COST)
        invocation.did(f"the key is made, {out}")
    save_public(public, text)
    key_id = text.split(maxsplit=2)[1]
    fields = {"key": key_id, "role": role, "file": str(out) if out else None, "public": str(public)}
    facts = {
        "key": key_id,
        "secret": f"{out} stays with you" if out else "stays in the token",
        "public": f"{public}, to hand over",
        "next": f"'vault key root propose --add NAME={public.name}:{role}', and compare the key",
    }
    invocation.emit("vault/key-new/v1", {"key": fields}, render.facts(facts))


# --- split ---


@click.command()
@click.option(
    "--role",
    "roles",
    type=click.Choice([role.value for role in SPLIT_ROLES]),
    multiple=True,
    help="Only this one. Repeatable.",
)
@click.option("--yes", is_flag=True, help="Don't ask.")
@_WEAK
@pass_invocation
def split(
    invocation: Invocation, *, roles: tuple[str, ...], yes: bool, weak_passphrase: bool
) -> None:
    """Give each role a key file of its own, with a new key, and put a root in force that lists it.

    Makes enroller.key, policy.key, pruner.key, log.key and verifier.key beside root.key. That keeps
    the root's key; what else it holds may sign no more. Needs root.key. Move each file to where it
    is used.
    """
    repository = invocation.open(afresh=True)

    signers = root_signers(invocation, repository, ())

    def agree(body: RootBody) -> None:
        missing = missing_signers(repository.ledger, body, [each.public.id for each in signers])
        if missing:
            raise ConfigError(
                f"too few sign the root: {missing}",
                hint="'vault key new' makes a key, and 'vault key root propose --add' lists it",
            )
        show_root(invocation, repository, body)
        agree_to_root(invocation, repository, body, "Put this root in force?", yes=yes)

    made = split_keys(
        repository.ledger,
        repository_address(invocation, repository),
        invocation.places.keys,
        [role for role in SPLIT_ROLES if not roles or role.value in roles],
        invocation.secrets.new_passphrase("the new key files", weak=weak_passphrase),
        agree=agree,
        cost=init.COST,
    )
    proposal = propose(repository.ledger, made.body)
    lost = LostAttempts(invocation.warn)
    record = apply_root(repository, proposal, signers, tool=TOOL, insist=lost)
    for role, path in made.files.items():
        invocation.note(f"{path} signs as {role}: move it to where it is used")
    emit_applied(invocation, repository, record, proposal, lost)


# --- passwd ---


@click.command()
@click.argument("file", type=_FILE)
@click.option(
    "--new-passphrase-file",
    type=_FILE,
    help="The first line is the new passphrase; else it is asked for.",
)
@_WEAK
@pass_invocation
def passwd(
    invocation: Invocation, *, file: Path, new_passphrase_file: Path | None, weak_passphrase: bool
) -> None:
    """Seal a key file under a new passphrase.

    Copies of the file that lie elsewhere still open with the old one: replace or destroy them.
    """
    forbid_dumps()
    peek(file)
    old = invocation.secrets.passphrase(file.name)
    new_secret = invocation.secrets.changed_passphrase(
        file.name, new_passphrase_file, weak=weak_passphrase
    )
    change_passphrase(file, old, new_secret, cost=init.COST)
    invocation.did(f"{file} opens with the new passphrase")
    invocation.warn(f"other copies of {file.name} still open with the old passphrase")
    facts = {"file": str(file), "passphrase": "changed"}
    invocation.emit("vault/key-passwd/v1", {"file": str(file)}, render.facts(facts))


# --- export ---


@click.command()
@click.option(
    "--pem",
    "directory",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    help="The directory to make, with a PEM file a key and keys.tsv.",
)
@pass_invocation
def export(invocation: Invocation, *, directory: Path) -> None:
    """Write every public key that was ever listed as PEM, by role; needs no secret.

    keys.tsv says of each key: id, file, roles, name, person, and at which numbers of the ledger it
    was added and removed.
    """
    repository = invocation.open(afresh=True)
    keys = listed_keys(repository.ledger)
    _make_directory(directory)
    rows = []
    for each in keys:
        name = f"{'-'.join(each.roles) or 'none'}-{each.key.id[:16]}.pem"
        save_public(directory / name, to_pem(each.key))
        rows.append(
            (
                each.key.id,
                name,
                " ".join(each.roles),
                each.name,
                each.person,
                str(each.added),
                "" if each.removed is None else str(each.removed),
            )
        )
    heading = ("key", "file", "roles", "name", "person", "added", "removed")
    save_public(
        directory / "keys.tsv",
        "".join("\t".join(map(render.printable, row)) + "\n" for row in (heading, *rows)),
    )
    fields = {
        "directory": str(directory),
        "keys": [dict(zip(heading, row, strict=True)) for row in rows],
    }
    facts = {"directory": str(directory), "keys": render.plural(len(rows), "key")}
    invocation.emit("vault/key-export/v1", fields, render.facts(facts))


def _make_directory(directory: Path) -> None:
    """Make a directory for files that are public.

    Raises:
        ConfigError: There is one.
        LocalError: It can't be made.
    """
    try:
        directory.mkdir()
    except FileExistsError as error:
        raise ConfigError(f"{directory} exists", hint="name a directory to be made") from error
    except OSError as error:
        raise LocalError(f"can't make {directory}", found=error.strerror) from error
