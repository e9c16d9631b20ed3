"""`vault policy show`: what is in force, and how the local file differs."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import click

from cli.output import render
from cli.session import Invocation, pass_invocation, signer_name
from vault.clock import to_rfc3339
from vault.durations import format_duration
from vault.errors import ConfigError, VaultError
from vault.ledger.statements import PolicyBody
from vault.policy.in_force import AppliedPolicy, policies_in_force, retired_datasets
from vault.policy.policy_file import load_policy
from vault.policy.terms import DatasetTerms, terms_of, weaker
from vault.repository.repository import Repository

POLICY_DIRECTORY = "policies"  # beside the key files


@click.command("show")
@click.argument("name", required=False)
@pass_invocation
def show_policies(invocation: Invocation, *, name: str | None) -> None:
    """Show the policies in force, or the one called NAME: since when, by whom, its terms.

    Where a file of that name is in policies/ beside the key files, and says otherwise, that is
    said. Needs no secret.
    """
    repository = invocation.open()
    invocation.report_findings(repository)
    policies = policies_in_force(repository)
    invocation.report(policies.findings)
    found = [each for key, each in policies.by_name.items() if name in {None, key}]
    if name is not None and not found:
        raise ConfigError(
            f"no policy {name} is in force",
            hint=f"in force: {', '.join(policies.by_name) or 'none'}",
        )
    retired = sorted(retired_datasets(repository.ledger))
    differences = {each.name: local_difference(invocation, each) for each in found}
    fields = [_fields(repository, each, differences[each.name]) for each in found]
    blocks = ["\n".join(_lines(repository, each, differences[each.name])) for each in found]
    if retired:
        blocks.append(f"given up: {', '.join(retired)}")
    invocation.emit(
        "vault/policy-show/v1",
        {"policies": fields, "retired": retired},
        "\n\n".join(blocks) or "no policy is in force",
    )


def local_difference(invocation: Invocation, policy: AppliedPolicy) -> str | None:
    """How the local file of that name differs: empty if it does not, None if there is none."""
    path = Path(invocation.places.keys) / POLICY_DIRECTORY / f"{policy.name}.toml"
    if not path.exists():
        return None
    try:
        local = terms_of(load_policy(path))
    except VaultError as error:
        return f"{path} can't be used: {error}"
    if local == policy.terms:
        return ""
    less = weaker(policy.terms, local)
    return f"{path} says otherwise" + (f"; weaker: {less[0]}" if less else "")


def _lines(repository: Repository, policy: AppliedPolicy, difference: str | None) -> Iterator[str]:
    record = policy.record
    when = render.moment(repository.ledger.stored(record))
    yield f"policy {policy.name}, in force since {when} by {_who(repository, policy)}"
    yield f"statement {record.seq}, terms {policy.terms.digest}, time zone {policy.terms.timezone}"
    if difference:
        yield f"differs: {difference}"
    rows = [_row(dataset) for dataset in policy.terms.datasets]
    yield render.table(("dataset", "runs", "within", "tiers", "last", "objectives", "checks"), rows)


def _row(terms: DatasetTerms) -> tuple[object, ...]:
    return (
        terms.name,
        terms.schedule.cron if terms.schedule else "",
        _span(terms.within),
        _spans(terms.tiers),
        terms.last,
        _spans(terms.objectives),
        " ".join(terms.checks.names) if terms.checks else "",
    )


def _spans(named: object) -> str:
    assert isinstance(named, dict)
    return " ".join(f"{name}={_span(seconds)}" for name, seconds in named.items())


def _span(seconds: int) -> str:
    return format_duration(timedelta(seconds=seconds))


def _who(repository: Repository, policy: AppliedPolicy) -> str:
    return " and ".join(signer_name(repository, key) for key in policy.record.by)


def _fields(
    repository: Repository, policy: AppliedPolicy, difference: str | None
) -> dict[str, object]:
    body = policy.record.body
    assert isinstance(body, PolicyBody)
    terms = policy.terms
    return {
        "name": policy.name,
        "statement": str(policy.record.head),
        "since": to_rfc3339(repository.ledger.stored(policy.record)),
        "by": list(policy.record.by),
        "sha256": body.sha256,
        "reason": body.reason,
        "differs": difference,
        "timezone": terms.timezone,
        "owner": terms.owner,
        "criticality": terms.criticality,
        "datasets": [
            {
                "name": each.name,
                "within": each.within,
                "tiers": dict(each.tiers),
                "last": each.last,
                "incomplete": each.incomplete,
                "lock": each.lock,
                "objectives": dict(each.objectives),
                "cron": each.schedule.cron if each.schedule else None,
                "checks": each.checks.names if each.checks else [],
                "checks_sha256": each.checks.digest if each.checks else None,
            }
            for each in terms.datasets
        ],
    }
