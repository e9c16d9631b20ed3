"""`vault policy apply | withdraw | retire`: statements that change what is in force."""

from pathlib import Path

import click

from cli.option_values import parse_reason
from cli.output import render
from cli.session import TOOL, Invocation, pass_invocation
from cli.warrant_choice import agreed_text, chosen_request, warrant_option
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

_REASON = click.option("--reason", help="Goes into the ledger, for everyone to read.")
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
@warrant_option
@pass_invocation
def apply(
    invocation: Invocation,
    *,
    file: Path,
    reason: str | None,
    weaken: bool,
    yes: bool,
    warrant: str | None,
) -> None:
    """Sign the terms of FILE into the ledger. Needs root.key or policy.key.

    Terms are names, schedule, retention, objectives and the digests of recovery checks; paths,
    commands and addresses stay here. From then on they are a floor: a snapshot of their datasets
    is kept as long as they say, or longer.
    """
    policy = load_policy(file)
    run = _Change(invocation, reason, warrant)
    change = plan_apply(run.repository, terms_of(policy), reason=run.reason)
    if change.weaker and not weaken:
        error = ConfigError(
            f"policy {policy.name} would keep or demand less than what is in force",
            hint="--weaken agrees to it",
        )
        for each in change.weaker:
            error.add_note(f"weaker: {each}")
        raise error
    run.sign(change, yes=yes)


@click.command()
@click.argument("name")
@_REASON
@_YES
@warrant_option
@pass_invocation
def withdraw(
    invocation: Invocation, *, name: str, reason: str | None, yes: bool, warrant: str | None
) -> None:
    """End the policy NAME; what was stored keeps its time. Needs root.key or policy.key."""
    run = _Change(invocation, reason, warrant)
    run.sign(plan_withdraw(run.repository, name, reason=run.reason), yes=yes)


@click.command()
@click.argument("dataset")
@_REASON
@_YES
@warrant_option
@pass_invocation
def retire(
    invocation: Invocation, *, dataset: str, reason: str | None, yes: bool, warrant: str | None
) -> None:
    """Give up DATASET: its newest snapshots too may go once their time is over.

    Until then nothing changes. It holds until the next snapshot of the dataset. Needs root.key or
    policy.key.
    """
    run = _Change(invocation, reason, warrant)
    run.sign(plan_retire(run.repository, dataset, reason=run.reason), yes=yes)


class _Change:
    """One change: the repository as it is now, and what people agreed to."""

    def __init__(self, invocation: Invocation, reason: str | None, warrant: str | None) -> None:
        self._invocation = invocation
        self.repository = invocation.open(afresh=True)
        invocation.report_findings(self.repository)
        self._agreed = chosen_request(self.repository, warrant)
        self.reason = parse_reason(agreed_text(self._agreed, "reason", reason))

    def sign(self, change: PolicyChange, *, yes: bool) -> None:
        """List what is weaker, ask, and append the statement."""
        invocation, body = self._invocation, change.body
        for each in change.weaker:
            invocation.warn(f"weaker: {each}")
        if change.weaker and not yes:
            invocation.confirm(f"{body.action} {body.name} all the same?", instead="--yes")
        record = sign_change(
            self.repository,
            change,
            invocation.secrets.signer(self.repository, Role.POLICY),
            tool=TOOL,
            agreed=None if self._agreed is None else self._agreed.request,
        )
        invocation.did(f"statement {record.seq}: {body.action} {body.name}")
        invocation.remember(self.repository)
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
