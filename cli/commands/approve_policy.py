"""`vault approve request policy.apply | policy.weaken`: policies that several people agree to."""

from pathlib import Path
from typing import Any

import click

from cli.commands.approve_request import Asked, asking_options, write_request
from cli.option_values import parse_reason
from cli.session import Invocation, pass_invocation
from vault.errors import ConfigError
from vault.ledger.statements import Act, Role, StatementType
from vault.policy.in_force import PolicyChange, plan_apply, plan_retire, plan_withdraw
from vault.policy.policy_file import load_policy
from vault.policy.terms import terms_of
from vault.repository.repository import Repository


@click.command(Act.POLICY_APPLY)
@click.argument("file", metavar="POLICY_FILE", type=click.Path(path_type=Path))
@asking_options
@pass_invocation
def policy_apply(invocation: Invocation, /, *, file: Path, **asked: Any) -> None:
    """Ask to apply a policy file; 'policy apply FILE --warrant' acts.

    Where its terms keep or demand less than those in force, the act is policy.weaken.
    """
    terms = terms_of(load_policy(file))
    repository = invocation.open(afresh=True)
    change = plan_apply(repository, terms, reason=parse_reason(asked["reason"]))
    _ask(invocation, repository, change, Asked(**asked))


@click.command(Act.POLICY_WEAKEN)
@click.argument("file", metavar="[POLICY_FILE]", type=click.Path(path_type=Path), required=False)
@click.option("--withdraw", metavar="NAME", help="Instead of a file: the policy that is to end.")
@click.option("--retire", metavar="DATASET", help="Instead: the dataset that is to be given up.")
@asking_options
@pass_invocation
def policy_weaken(
    invocation: Invocation,
    /,
    *,
    file: Path | None,
    withdraw: str | None,
    retire: str | None,
    **asked: Any,
) -> None:
    """Ask for less: a weaker file, the end of a policy, or to give up a dataset.

    'policy apply', 'policy withdraw' or 'policy retire' with --warrant acts.
    """
    if sum(each is not None for each in (file, withdraw, retire)) != 1:
        raise ConfigError("give one of POLICY_FILE, --withdraw and --retire")
    repository = invocation.open(afresh=True)
    reason = parse_reason(asked["reason"])
    if withdraw is not None:
        change = plan_withdraw(repository, withdraw, reason=reason)
    elif retire is not None:
        change = plan_retire(repository, retire, reason=reason)
    else:
        assert file is not None
        change = plan_apply(repository, terms_of(load_policy(file)), reason=reason)
    _ask(invocation, repository, change, Asked(**asked))


def _ask(
    invocation: Invocation, repository: Repository, change: PolicyChange, asked: Asked
) -> None:
    body = change.body
    what = "dataset" if body.action == "retire" else "policy"
    lost = "; ".join(change.weaker) or "nothing is kept or demanded less than before"
    summary = f"{body.action} {what} {body.name}: {lost}"
    write_request(
        invocation,
        repository,
        body,
        summary[:400],
        asked,
        kind=StatementType.POLICY,
        role=Role.POLICY,
    )
