"""`vault policy apply | withdraw | retire`: statements that change what is in force."""

from pathlib import Path

import click

from cli.option_values import parse_reason
from cli.output import render
from cli.session import TOOL, Invocation, pass_invocation
from vault.errors import ConfigError
from vault.ledger.statements import Role
from vault.policy.in_force import (
    PolicyChange,
    plan_apply,
    plan_retire,
    plan_withdraw,
    sign_change,
)
from vault.policy.policy_file import load_policy
from vault.policy.terms import terms_of
from vault.repository.repository import Repository

_REASON = click.option("--reason", default="", help="Goes into the ledger, for everyone to read.")
_YES = click.option("-y", "--yes", is_flag=True, help="Agree without being asked.")


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@_REASON
@click.option(
    "--weaken",
    is_flag=True,
    help="Agree to keep less, or to demand less, than what is in force; it is listed first.",
)
@_YES
@pass_invocation
def apply(invocation: Invocation, *, file: Path, reason: str, weaken: bool, yes: bool) -> None:
    """Sign the terms of FILE into the ledger. Needs root.key or policy.key.

    Terms are names, schedule, retention, objectives and the digests of recovery checks; paths,
    commands and addresses stay here. From then on they are a floor: a snapshot of their datasets
    is kept as long as they say, or longer.
    """
    policy = load_policy(file)
    repository = invocation.open(afresh=True)
    invocation.report_findings(repository)
    change = plan_apply(repository, terms_of(policy), reason=parse_reason(reason))
    if change.weaker and not weaken:
        error = ConfigError(
            f"policy {policy.name} would keep or demand less than what is in force",
            hint="--weaken agrees to it",
        )
        for each in change.weaker:
            error.add_note(f"weaker: {each}")
        raise error
    _sign(invocation, repository, change, yes=yes)


@click.command()
@click.argument("name")
@_REASON
@_YES
@pass_invocation
def withdraw(invocation: Invocation, *, name: str, reason: str, yes: bool) -> None:
    """End the policy NAME; what was stored keeps its time. Needs root.key or policy.key."""
    repository = invocation.open(afresh=True)
    invocation.report_findings(repository)
    _sign(
        invocation,
        repository,
        plan_withdraw(repository, name, reason=parse_reason(reason)),
        yes=yes,
    )


@click.command()
@click.argument("dataset")
@_REASON
@_YES
@pass_invocation
def retire(invocation: Invocation, *, dataset: str, reason: str, yes: bool) -> None:
    """Give up DATASET: its newest snapshots too may go once their time is over.

    Until then nothing changes. It holds until the next snapshot of the dataset. Needs root.key or
    policy.key.
    """
    repository = invocation.open(afresh=True)
    invocation.report_findings(repository)
    _sign(
        invocation,
        repository,
        plan_retire(repository, dataset, reason=parse_reason(reason)),
        yes=yes,
    )


def _sign(
    invocation: Invocation, repository: Repository, change: PolicyChange, *, yes: bool
) -> None:
    for each in change.weaker:
        invocation.warn(f"weaker: {each}")
    if change.weaker and not yes:
        invocation.confirm(
            f"{change.body.action} {change.body.name} all the same?", instead="--yes"
        )
    signer = invocation.signer(repository, Role.POLICY)
    record = sign_change(repository, change, signer, tool=TOOL)
    invocation.did(f"statement {record.seq}: {change.body.action} {change.body.name}")
    invocation.remember(repository)
    body = change.body
    invocation.emit(
        "vault/policy-change/v1",
        {
            "action": body.action,
            "name": body.name,
            "statement": str(record.head),
            "sha256": body.sha256,
            "previous": body.previous,
            "weaker": list(change.weaker),
            "reason": body.reason,
        },
        render.facts(
            {
                "done": f"{body.action} {body.name}, statement {record.seq}",
                **({"terms": body.sha256} if body.sha256 else {}),
            }
        ),
    )
