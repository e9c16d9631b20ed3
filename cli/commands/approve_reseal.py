"""`vault approve request reseal`: older snapshots that several people open to a recipient."""

from typing import Any

import click

from cli.commands.approve_request import Asked, asking_options, write_request
from cli.session import Invocation, pass_invocation
from vault.ledger.statements import Act, Role, StatementType
from vault.repository.reseal import find_recipient, reseal_to_approve


@click.command(Act.RESEAL)
@click.option(
    "--to", "name", metavar="RECIPIENT", required=True, help="A recipient in the root in force."
)
@asking_options
@pass_invocation
def reseal_request(invocation: Invocation, /, *, name: str, **asked: Any) -> None:
    """Ask to open what is stored now to a recipient; 'key reseal --to NAME --warrant' acts."""
    repository = invocation.open(afresh=True)
    target = find_recipient(repository.ledger, name)
    through = repository.head.seq
    summary = f"{target.name} can open every snapshot up to number {through}"
    write_request(
        invocation,
        repository,
        reseal_to_approve(target, through),
        summary,
        Asked(**asked),
        kind=StatementType.RESEAL,
        role=Role.RESTORER,
    )
