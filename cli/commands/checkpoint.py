"""`vault checkpoint`: what a log signs of the ledger, for witnesses to cosign."""

from pathlib import Path
from typing import Any

import click

from cli.output import render
from cli.session import Invocation, pass_invocation
from cli.small_files import hand_out, read_file
from vault.clock import to_rfc3339
from vault.errors import naming
from vault.ledger.notes import MAX_NOTE, log_vkey, parse_note
from vault.ledger.statements import Role
from vault.repository.repository import Repository
from vault.repository.sign_checkpoints import (
    Signed,
    attach_cosignatures,
    request_of,
    sign_checkpoint,
)
from vault.repository.vouching import witness_policy_of

_FILE = click.Path(dir_okay=False, path_type=Path)


@click.command()
@click.option("--out", metavar="FILE", type=_FILE, help="Write there what a witness is asked.")
@click.option(
    "--old",
    metavar="SIZE",
    type=click.IntRange(min=0),
    help="With --out: what that witness has cosigned last, if it says another size.",
)
@click.option(
    "--attach",
    metavar="FILE",
    type=_FILE,
    help="Store what a witness gave back; needs no key.",
)
@pass_invocation
def checkpoint(
    invocation: Invocation,
    *,
    out: Path | None,
    old: int | None,
    attach: Path | None,
) -> None:
    """Sign the ledger as it stands, for witnesses. Needs a log's key.

    For cron: all statements are verified first. A note is stored when the ledger grew, or when the
    last one is older than a quarter of the root's checkpoint_age. With --out the note is written
    for a witness ('vault witness cosign FILE --out ANSWER'), and --attach ANSWER stores what the
    witness gave back: only then does it count.
    """
    if attach is not None and (out or old is not None):
        raise click.UsageError("--attach stands alone")
    if old is not None and out is None:
        raise click.UsageError("--old belongs to --out")
    repository = invocation.open(afresh=True)
    invocation.report_findings(repository)
    if attach is not None:
        data = read_file(attach, MAX_NOTE)
        with naming(attach):
            note = parse_note(data)
        signed = attach_cosignatures(repository, note, state=invocation.places.state)
    else:
        key = invocation.secrets.signer(repository, Role.LOG)
        signed = sign_checkpoint(repository, key, state=invocation.places.state)
    if signed.stored:
        invocation.did(f"{signed.stored} is stored")
    if out is not None:
        hand_out(request_of(repository, signed, old), out)
        invocation.did(f"what a witness is asked is in {render.printable(str(out))}")
    invocation.remember(repository)
    fields = {"checkpoint": _fields(repository, signed)}
    invocation.emit("vault/checkpoint/v1", fields, _text(repository, signed, out))


def _vkey(repository: Repository, signed: Signed) -> str:
    origin = signed.note.origin
    return log_vkey(origin, witness_policy_of(repository).logs[origin])


def _fields(repository: Repository, signed: Signed) -> dict[str, Any]:
    note = signed.note
    return {
        "origin": note.origin,
        "log": _vkey(repository, signed),
        "size": note.size,
        "root": str(note.root),
        "head": str(repository.ledger.records[note.size - 1].head),
        "stored": signed.stored or None,
        "cosignatures": [
            {"name": name, "time": to_rfc3339(moment)}
            for name, moment in sorted(signed.cosigned.items())
        ],
        "quorum": signed.quorum,
        "counts": signed.counts,
    }


def _text(repository: Repository, signed: Signed, out: Path | None) -> str:
    cosigned = ", ".join(
        f"{name} at {render.moment(moment)}" for name, moment in sorted(signed.cosigned.items())
    )
    facts = {
        "checkpoint": f"{signed.note.size} statements, root {signed.note.root}",
        "stored": signed.stored or "nothing: the ledger has not grown, and the last note is young",
        "log": _vkey(repository, signed),
        "cosigned": f"{cosigned or 'by no witness'}; {signed.quorum} must",
    }
    if not signed.counts:
        ask = f"have a witness run 'vault witness cosign --state DIR {out or 'FILE'} --out ANSWER'"
        write = "" if out is not None else "'vault checkpoint --out FILE', then "
        facts["next"] = f"{write}{ask}, and 'vault checkpoint --attach ANSWER' here"
    return render.facts(facts)
