"""`vault attest`: record attestations that could not be recorded at once."""

from pathlib import Path

import click

from cli.output import render
from cli.session import TOOL, Invocation, pass_invocation
from vault.crypto.key_files import RecoveryKey
from vault.errors import ConfigError, LocalError, VaultError, naming
from vault.ledger.records import Record
from vault.ledger.statements import EventBody, VerificationBody
from vault.repository import attestations
from vault.repository.objects import MAX_EVIDENCE
from vault.repository.repository import Repository


@click.group()
def attest() -> None:
    """Record attestations that could not be recorded at once."""


@attest.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@pass_invocation
def push(invocation: Invocation, file: Path) -> None:
    """Record the attestation in FILE in the ledger. Needs recovery.key.

    For a restore whose store could not be written at the time. FILE is kept.
    """
    data = _read(file)
    repository = invocation.open(afresh=True)
    with naming(file):
        attestation = attestations.open_attestation(data, repository.ledger)
    record = attestations.is_recorded(repository, data)
    if record is None:
        key = invocation.secrets.attesting_key(repository).restorer
        record = attestations.record_attestation(repository, data, key, tool=TOOL)
        invocation.did(recorded_text(record))
        invocation.remember(repository)
    fields = {
        "kind": attestation.kind,
        "verdict": attestation.verdict,
        "snapshot": attestation.snapshot,
        "started": attestation.started,
        "finished": attestation.finished,
        "statement": str(record.head),
    }
    text = render.facts(
        {
            "attestation": f"{attestation.kind}, {attestation.verdict}",
            "recorded": str(record.head),
        }
    )
    invocation.emit("vault/attest-push/v1", {"attestation": fields}, text)


def _read(file: Path) -> bytes:
    try:
        with file.open("rb") as stream:
            return stream.read(MAX_EVIDENCE + 1)
    except FileNotFoundError as error:
        raise ConfigError(f"there is no file {file}") from error
    except OSError as error:
        raise LocalError(f"{file} can't be read", found=error.strerror) from error


def record_or_keep(
    invocation: Invocation, repository: Repository, data: bytes, recovery: RecoveryKey
) -> Record | None:
    """Record an attestation; if the store refuses it, keep it in a local file and return None."""
    try:
        record = attestations.record_attestation(repository, data, recovery.restorer, tool=TOOL)
    except VaultError as error:
        invocation.warn(f"the attestation is not recorded: {error}")
        _keep(invocation, data)
        return None
    invocation.did(recorded_text(record))
    invocation.remember(repository)
    return record


def recorded_text(record: Record) -> str:
    """Text that an event is recorded in the ledger, with its verdict."""
    assert isinstance(record.body, EventBody | VerificationBody)
    return f"the {record.type} is recorded as {record.body.verdict}, head {record.head}"


def _keep(invocation: Invocation, data: bytes) -> None:
    """Leave an attestation on this machine, for `vault attest push`."""
    try:
        path = attestations.keep(invocation.places.state, data)
    except LocalError as error:
        invocation.warn(f"nor can it be kept: {error}")
        return
    invocation.warn(f"'vault attest push {path}' records it once the store can be written")
